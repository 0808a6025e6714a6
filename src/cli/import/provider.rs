//! Which provider of the daemon's configuration an account belongs to: that which asks the same token endpoint, for the same
//! app where there are several. A refresh token is good at its token endpoint and for its app only, so nothing else counts.

use url::Url;

use super::format::{App, Flow};
use crate::admin::types::ProviderView;
use crate::config::{KnownProvider, known_providers};

/// The provider of an app.
///
/// # Errors
/// What to tell of none, or of several that differ in nothing that counts.
pub(super) fn choose<'a>(app: &App, providers: &'a [ProviderView]) -> Result<&'a ProviderView, String> {
    let ranked = providers.iter().filter_map(|provider| {
        let nearness = nearness(app, provider)?;
        Some(((is_same_app(app, provider), nearness), provider))
    });
    let ranked: Vec<_> = ranked.collect();
    let Some(best) = ranked.iter().map(|(rank, _)| *rank).max() else {
        return Err(no_provider(app));
    };
    let mut nearest = ranked
        .iter()
        .filter(|(rank, _)| *rank == best)
        .map(|(_, provider)| *provider);
    match (nearest.next(), nearest.next()) {
        (Some(only), None) => Ok(only),
        // All have the same app at the same place: any will do.
        (Some(first), Some(_)) if best.0 => Ok(first),
        _ => Err(format!(
            "several providers ask {} for tokens, none with its client_id; choose one with --provider",
            host(&app.token_url)
        )),
    }
}

/// Whether the provider has the app that the account's grant was given to.
pub(super) fn is_same_app(app: &App, provider: &ProviderView) -> bool {
    app.client_id.is_some() && app.client_id == provider.client_id
}

/// Why the provider cannot take the place of the account's app, whoever consents to what: it opens mailboxes in another way, or
/// asks in another tenant. `None` where it can.
pub(super) fn difference(app: &App, provider: &ProviderView) -> Option<String> {
    let name = &provider.name;
    let (there, here) = (app.flow.grant(), provider.grant.as_deref().unwrap_or_default());
    // Where its app needs nobody's consent, any account can be moved to it.
    if provider.needs_consent() && !matches!(app.flow, Flow::Code | Flow::Device) {
        return Some(format!(
            "its app differs: the file's has the grant {there} (oauth2_flow), and provider {name} has {here}, which wants its owner's \
             consent"
        ));
    }
    match (tenant(&app.token_url), provider.token_url.as_ref().and_then(tenant)) {
        (Some(there), Some(here)) if !may_be_one_tenant(there, here) => Some(format!(
            "its tenant differs: the file's app asks in {there}, and provider {name} in {here}"
        )),
        _ => None,
    }
}

/// The tenant that a token endpoint of Microsoft's is for.
pub(super) fn tenant(token_url: &Url) -> Option<&str> {
    let mut path = token_url.path_segments()?;
    let tenant = path.next().filter(|_| path.next() == Some("oauth2"))?;
    let is_microsofts = MICROSOFT.contains(&place(token_url).as_str());
    is_microsofts.then_some(tenant)
}

/// Whether a mailbox may be one of both. A tenant has an id and domains, of which the file may name another than the daemon's
/// configuration: only where both are written alike, or both otherwise, they can be compared.
fn may_be_one_tenant(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let is_any = |tenant: &str| tenant == "common";
    let is_personal = |tenant: &str| tenant == "consumers" || tenant == PERSONAL_TENANT;
    match (one.as_str(), other.as_str()) {
        (one, other) if one == other || is_any(one) || is_any(other) => true,
        (one, other) if is_personal(one) || is_personal(other) => is_personal(one) && is_personal(other),
        ("organizations", _) | (_, "organizations") => true,
        (one, other) => one.contains('.') != other.contains('.'),
    }
}

/// The preset of an app, by its token endpoint.
pub(super) fn preset(app: &App) -> Option<KnownProvider> {
    let place = place(&app.token_url);
    known_providers().find(|known| known.token_url().is_some_and(|url| host(&url) == place))
}

/// How much a provider's token endpoint is the app's; `None`: not at all.
fn nearness(app: &App, provider: &ProviderView) -> Option<Nearness> {
    let places = [&provider.token_url, &provider.issuer];
    if provider.token_url.as_ref() == Some(&app.token_url) {
        return Some(Nearness::SameEndpoint);
    }
    let mut places = places.into_iter().flatten();
    places
        .any(|url| {
            url.port_or_known_default() == app.token_url.port_or_known_default() && place(url) == place(&app.token_url)
        })
        .then_some(Nearness::SamePlace)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    /// The same host, such as Microsoft's for another tenant.
    SamePlace,
    /// The very same URL.
    SameEndpoint,
}

fn no_provider(app: &App) -> String {
    let host = host(&app.token_url);
    match preset(app) {
        Some(known) => format!(
            "the daemon has no OAuth app for {}; add [provider.{}], which --print-config prints",
            known.title, known.name
        ),
        None => format!(
            "no provider of the daemon asks {host} for tokens; add one, which --print-config prints, or choose one with \
             --provider"
        ),
    }
}

/// The host of a URL, under the one name that stands for all of a provider's.
fn place(url: &Url) -> String {
    let host = host(url);
    let same = SAME_PLACE.iter().find(|(other, _)| *other == host);
    same.map_or(host, |(_, place)| (*place).to_owned())
}

pub(super) fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The hosts of Microsoft's token endpoints, in its clouds.
const MICROSOFT: [&str; 3] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
];

/// The id of the tenant of all personal accounts (learn.microsoft.com/entra/identity-platform/v2-protocols).
const PERSONAL_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// Token endpoints that a provider serves, or served, under other names than that of its preset.
const SAME_PLACE: &[(&str, &str)] = &[
    ("accounts.google.com", "oauth2.googleapis.com"),
    ("www.googleapis.com", "oauth2.googleapis.com"),
    ("login.live.com", "login.microsoftonline.com"),
    ("login.windows.net", "login.microsoftonline.com"),
    ("login.chinacloudapi.cn", "login.partner.microsoftonline.cn"),
    ("oauth.yandex.ru", "oauth.yandex.com"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::format::{Flow, Proof};

    #[test]
    fn an_account_belongs_to_the_provider_with_its_token_endpoint_and_app() {
        let providers = [
            provider(
                "microsoft",
                "https://login.microsoftonline.com/common/oauth2/v2.0/token",
                "app-1",
            ),
            provider(
                "work",
                "https://login.microsoftonline.com/tenant/oauth2/v2.0/token",
                "app-2",
            ),
            provider("google", "https://oauth2.googleapis.com/token", "app-3"),
            provider("own", "http://127.0.0.1:8080/token", "app-4"),
            provider("own-2", "http://127.0.0.1:9090/token", "app-4"),
        ];
        let chosen = |token_url: &str, client_id: &str| {
            choose(&app(token_url, client_id), &providers).map(|provider| provider.name.as_str())
        };
        for (token_url, client_id, name) in [
            // The app decides among a provider's tenants, the endpoint where no app is the same.
            (
                "https://login.microsoftonline.com/other/oauth2/v2.0/token",
                "app-2",
                "work",
            ),
            (
                "https://login.microsoftonline.com/tenant/oauth2/v2.0/token",
                "app-1",
                "microsoft",
            ),
            (
                "https://login.microsoftonline.com/tenant/oauth2/v2.0/token",
                "app-9",
                "work",
            ),
            ("https://login.live.com/oauth20_token.srf", "app-1", "microsoft"),
            ("https://accounts.google.com/o/oauth2/token", "app-9", "google"),
            ("https://www.googleapis.com/oauth2/v4/token", "app-3", "google"),
            ("http://127.0.0.1:9090/other", "app-4", "own-2"),
        ] {
            assert_eq!(chosen(token_url, client_id), Ok(name), "{token_url} {client_id}");
        }
        let ambiguous = chosen("https://login.microsoftonline.com/x/oauth2/v2.0/token", "app-9").unwrap_err();
        assert!(ambiguous.contains("several providers"), "{ambiguous}");
        let unknown = chosen("https://id.example.com/token", "app-1").unwrap_err();
        assert!(unknown.contains("id.example.com"), "{unknown}");
        let unconfigured = chosen("https://api.login.yahoo.com/oauth2/get_token", "app-1").unwrap_err();
        assert!(unconfigured.contains("[provider.yahoo]"), "{unconfigured}");
    }

    #[test]
    fn a_provider_with_another_grant_or_tenant_is_told_from_one_that_takes_the_accounts_over() {
        let url = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
        let (id, other_id) = (
            "11111111-2222-3333-4444-555555555555",
            "11111111-2222-3333-4444-666666666666",
        );
        for (flow, there, grant, here, says) in [
            (Flow::Code, "common", "code", "common", None),
            (Flow::Device, "common", "code", "contoso.com", None),
            (Flow::Code, "contoso.com", "device", "organizations", None),
            (Flow::Code, "Contoso.com", "code", "contoso.com", None),
            (Flow::Code, id, "code", "contoso.com", None),
            (Flow::Code, PERSONAL_TENANT, "code", "consumers", None),
            (Flow::Code, "contoso.com", "client_credentials", "contoso.com", None),
            (
                Flow::Code,
                "contoso.com",
                "code",
                "fabrikam.com",
                Some("in contoso.com, and provider work in fabrikam.com"),
            ),
            (Flow::Code, id, "code", other_id, Some("its tenant differs")),
            (
                Flow::Code,
                "consumers",
                "code",
                "organizations",
                Some("its tenant differs"),
            ),
            (Flow::Code, "consumers", "code", id, Some("its tenant differs")),
            (
                Flow::ClientCredentials,
                "contoso.com",
                "code",
                "common",
                Some("has the grant client_credentials"),
            ),
            (
                Flow::ServiceAccount,
                "common",
                "code",
                "common",
                Some("provider work has code"),
            ),
            (Flow::Password, "common", "device", "common", Some("its app differs")),
            (
                Flow::ClientCredentials,
                "contoso.com",
                "client_credentials",
                "fabrikam.com",
                Some("its tenant differs"),
            ),
        ] {
            let app = App {
                flow,
                ..app(&url(there), "app")
            };
            let provider = ProviderView {
                grant: Some(grant.to_owned()),
                ..provider("work", &url(here), "app")
            };
            let told = difference(&app, &provider);
            assert_eq!(
                told.is_some(),
                says.is_some(),
                "{flow:?} {there} {grant} {here}: {told:?}"
            );
            assert!(
                told.unwrap_or_default().contains(says.unwrap_or_default()),
                "{there} {here}"
            );
        }
        let elsewhere = provider("own", "https://id.example.com/a/oauth2/token", "app");
        assert_eq!(
            difference(&app("https://id.example.com/b/oauth2/token", "app"), &elsewhere),
            None
        );
    }

    #[test]
    fn a_provider_that_is_discovered_is_known_by_its_issuer() {
        let discovered = ProviderView {
            token_url: None,
            issuer: Some("https://id.example.com/realms/mail".parse().unwrap()),
            ..provider("own", "https://unused.example.com/", "app")
        };
        let app = app("https://id.example.com/realms/mail/token", "app");
        assert_eq!(choose(&app, &[discovered]).unwrap().name, "own");
    }

    fn provider(name: &str, token_url: &str, client_id: &str) -> ProviderView {
        ProviderView {
            name: name.to_owned(),
            domains: Vec::new(),
            oauth2: true,
            device: false,
            protocols: Vec::new(),
            client_id: Some(client_id.to_owned()),
            token_url: Some(token_url.parse().unwrap()),
            issuer: None,
            grant: Some("code".to_owned()),
        }
    }

    fn app(token_url: &str, client_id: &str) -> App {
        App {
            token_url: token_url.parse().unwrap(),
            permission_url: None,
            client_id: Some(client_id.to_owned()),
            proof: Proof::None,
            flow: Flow::Code,
            scopes: Vec::new(),
        }
    }
}
