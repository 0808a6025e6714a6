//! Presets: what is publicly known of the large providers, as data.
//!
//! A preset fills in what its table `[provider.NAME]` leaves out, but for domains, which add up. It never holds an app's id:
//! each installation registers its own. A provider that is not here is configured by hand. One that takes passwords is there
//! without a table, so that a mailbox with an app password needs no configuration at all.

mod table;

use url::Url;

use super::{Endpoint, Origin, Provider, UpstreamTls, UserRule};
use crate::proto::{Mechanism, Protocol};

/// What is known of a provider, in one of its clouds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preset {
    /// The name of the table that it completes.
    pub(super) name: &'static str,
    /// What people call it.
    title: &'static str,
    /// Its value of `provider.cloud`; empty where the provider has but one.
    pub(super) cloud: &'static str,
    /// Its OAuth endpoints; `None`: it takes passwords only.
    pub(super) oauth: Option<PresetOAuth>,
    /// Whether it lets programs in by a password, which may have to be one made for them. Such a provider is there without
    /// a table; its OAuth takes an app of the administrator's.
    pub(super) passwords: bool,
    /// OAuth mechanisms in order of preference.
    pub(super) sasl: &'static [Mechanism],
    /// Its IMAP endpoint.
    pub(super) imap: Option<PresetEndpoint>,
    /// Its submission endpoint.
    pub(super) smtp: Option<PresetEndpoint>,
    /// Its POP3 endpoint.
    pub(super) pop3: Option<PresetEndpoint>,
    /// Sessions that it allows to one mailbox, where it says so.
    pub(super) sessions_per_account_max: Option<usize>,
    /// Submission sessions that it allows at once to one mailbox, where it says so.
    pub(super) submissions_max: Option<usize>,
    /// Domains of its mailboxes.
    pub(super) domains: &'static [&'static str],
    /// What the names of its mail exchangers end in, for domains of its customers.
    mx: &'static [&'static str],
    /// What it takes as the login name for IMAP.
    pub(super) imap_user: UserRule,
    /// What it takes as the login name for SMTP and POP3.
    user: UserRule,
    /// How to get a client id, or an app password, in a few sentences.
    pub(super) advice: &'static str,
}

/// The OAuth side of a [`Preset`]. `{tenant}` in a URL stands for the configured tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct PresetOAuth {
    authorize_url: &'static str,
    token_url: &'static str,
    /// What its issuer calls itself in answers; `None` where that differs from tenant to tenant, or is not known.
    issuer: Option<&'static str>,
    /// `None` where the device flow (RFC 8628) is closed to mail.
    device_url: Option<&'static str>,
    /// Where a token is given back (RFC 7009); `None` where there is no such thing.
    revocation_url: Option<&'static str>,
    /// The scopes that a mailbox's owner consents to.
    scopes: PresetScopes,
    /// What a consent asks for besides, for the owner's address (OpenID Connect Core §5.4); empty where it is not OpenID.
    identity: &'static [&'static str],
    /// What an app asks for that opens mailboxes by itself (RFC 6749 §4.4); empty where that is not offered.
    app: &'static [&'static str],
    /// What an authorization request holds besides RFC 6749's parameters.
    parameters: &'static [(&'static str, &'static str)],
    /// The scopes that a refresh names.
    refresh: RefreshScopes,
}

/// The scopes of a preset: those of each protocol are asked for only where it is served, since an owner consents more
/// readily, and an organization at all, to as little as is needed.
#[derive(Debug, Clone, Copy)]
struct PresetScopes {
    imap: Option<&'static str>,
    smtp: Option<&'static str>,
    pop3: Option<&'static str>,
    /// What every consent asks for besides.
    common: &'static [&'static str],
}

/// Which scopes a refresh names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefreshScopes {
    /// None, which stands for the grant's own (RFC 6749 §6).
    Unnamed,
    /// Those of the consent. They must be of one resource: Microsoft refuses others (AADSTS28000).
    Consented,
}

/// Where a preset's protocol is served.
#[derive(Debug, Clone, Copy)]
pub(super) struct PresetEndpoint {
    host: &'static str,
    port: u16,
    tls: UpstreamTls,
}

/// The preset called `name`, in its usual cloud where it has several.
pub(super) fn find(name: &str) -> Option<&'static Preset> {
    table::PRESETS.iter().find(|preset| preset.name == name)
}

/// The clouds of the provider called `name`, the usual one first; none where it has but one.
pub(super) fn clouds(name: &str) -> Vec<(&'static str, &'static Preset)> {
    let rows = table::PRESETS.iter().filter(|preset| preset.name == name);
    rows.map(|preset| (preset.cloud, preset))
        .filter(|(cloud, _)| !cloud.is_empty())
        .collect()
}

/// The presets that are of use without a table, for accounts with passwords.
pub(super) fn always_there() -> impl Iterator<Item = &'static Preset> {
    table::PRESETS.iter().filter(|preset| preset.passwords)
}

/// What is publicly known of a provider, whether it is configured or not: enough to recognise its mailboxes.
#[derive(Debug, Clone, Copy)]
pub struct KnownProvider {
    /// Its name, which its table must have.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Domains of its mailboxes.
    pub domains: &'static [&'static str],
    /// What the names of its mail exchangers end in.
    pub mx: &'static [&'static str],
    /// Whether it lets programs in by a password.
    pub passwords: bool,
    /// How to get what portreeve needs of it.
    pub advice: &'static str,
    /// Which of its clouds this is; empty where it has but one.
    pub cloud: &'static str,
    preset: &'static Preset,
}

impl KnownProvider {
    /// Where its tokens are asked for; `None` where it takes passwords only. Of tenants it is the default one's.
    pub fn token_url(&self) -> Option<Url> {
        self.preset.oauth.and_then(|oauth| oauth.token_url(TENANT_DEFAULT))
    }

    /// Where the protocol is served; `None` where it is not.
    pub fn endpoint(&self, protocol: Protocol) -> Option<Endpoint> {
        let endpoint = match protocol {
            Protocol::Imap => self.preset.imap,
            Protocol::Smtp => self.preset.smtp,
            Protocol::Pop3 => self.preset.pop3,
        };
        endpoint.map(PresetEndpoint::endpoint)
    }
}

/// Every provider that is known, once for each of its clouds.
pub fn known_providers() -> impl Iterator<Item = KnownProvider> {
    table::PRESETS.iter().map(|preset| KnownProvider {
        name: preset.name,
        title: preset.title,
        domains: preset.domains,
        mx: preset.mx,
        passwords: preset.passwords,
        advice: preset.advice,
        cloud: preset.cloud,
        preset,
    })
}

/// The names of all presets, for messages.
pub(super) fn names() -> String {
    let mut names: Vec<_> = table::PRESETS.iter().map(|preset| preset.name).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

impl Preset {
    /// The provider that this is without a table of its own; one with OAuth lacks its app.
    pub(super) fn provider(&self) -> Provider {
        Provider {
            name: self.name.to_owned(),
            origin: Origin::Preset,
            oauth: None,
            passwords: self.passwords,
            sasl: self.sasl.to_vec(),
            imap: self.imap.map(PresetEndpoint::endpoint),
            smtp: self.smtp.map(PresetEndpoint::endpoint),
            pop3: self.pop3.map(PresetEndpoint::endpoint),
            ca_file: None,
            forward_client_address: false,
            sessions_per_account_max: self.sessions_per_account_max,
            submissions_max: self.submissions_max,
            domains: self.domains.iter().map(|domain| (*domain).to_owned()).collect(),
            imap_user: self.imap_user,
            user: self.user,
            advice: Some(self.advice),
        }
    }
}

impl PresetOAuth {
    /// Where a mailbox's owner consents.
    pub(super) fn authorize_url(&self, tenant: &str) -> Option<Url> {
        with_tenant(self.authorize_url, tenant)
    }

    /// Where tokens are issued and refreshed.
    pub(super) fn token_url(&self, tenant: &str) -> Option<Url> {
        with_tenant(self.token_url, tenant)
    }

    /// Where a device code is asked for (RFC 8628).
    pub(super) fn device_url(&self, tenant: &str) -> Option<Url> {
        with_tenant(self.device_url?, tenant)
    }

    /// What its issuer calls itself.
    pub(super) fn issuer(&self) -> Option<&'static str> {
        self.issuer
    }

    /// Where a token is given back.
    pub(super) fn revocation_url(&self) -> Option<Url> {
        Url::parse(self.revocation_url?).ok()
    }

    /// What a consent asks for besides mail.
    pub(super) fn identity_scopes(&self) -> Vec<String> {
        owned(self.identity)
    }

    /// What an app asks for that opens mailboxes by itself.
    pub(super) fn app_scopes(&self) -> Vec<String> {
        owned(self.app)
    }

    /// Whether `url` is where tokens of no tenant in particular are issued, by which no app can act for itself.
    pub(super) fn is_of_no_tenant(&self, url: &Url) -> bool {
        let shared = ["common", "organizations", "consumers"];
        self.token_url.contains("{tenant}") && shared.iter().any(|tenant| self.token_url(tenant).as_ref() == Some(url))
    }

    /// What an authorization request holds besides.
    pub(super) fn authorize_parameters(&self) -> Vec<(&'static str, &'static str)> {
        self.parameters.to_vec()
    }
}

impl PresetOAuth {
    /// The scopes that a mailbox's owner consents to where `served` is what listeners serve; in one order, whatever theirs.
    pub(super) fn scopes(&self, served: &[Protocol]) -> Vec<String> {
        let PresetScopes {
            imap,
            smtp,
            pop3,
            common,
        } = self.scopes;
        let protocols = [(Protocol::Imap, imap), (Protocol::Pop3, pop3), (Protocol::Smtp, smtp)];
        let wanted = protocols
            .into_iter()
            .filter(|(protocol, _)| served.contains(protocol))
            .filter_map(|(_, scope)| scope);
        let mut scopes: Vec<String> = Vec::new();
        for scope in wanted.chain(common.iter().copied()) {
            if !scopes.iter().any(|known| known == scope) {
                scopes.push(scope.to_owned());
            }
        }
        scopes
    }

    /// The scopes that a refresh names, likewise.
    pub(super) fn refresh_scopes(&self, served: &[Protocol]) -> Vec<String> {
        match self.refresh {
            RefreshScopes::Unnamed => Vec::new(),
            RefreshScopes::Consented => self.scopes(served),
        }
    }
}

impl PresetEndpoint {
    fn endpoint(self) -> Endpoint {
        Endpoint {
            host: self.host.to_owned(),
            port: self.port,
            tls: self.tls,
        }
    }
}

fn owned(scopes: &[&str]) -> Vec<String> {
    scopes.iter().map(|scope| (*scope).to_owned()).collect()
}

fn with_tenant(url: &str, tenant: &str) -> Option<Url> {
    Url::parse(&url.replace("{tenant}", tenant)).ok()
}

/// The tenant where a table names none: any work, school or personal account.
pub(super) const TENANT_DEFAULT: &str = "common";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn presets_are_found_by_name_and_cloud() {
        assert_eq!(find("google").unwrap().imap.unwrap().host, "imap.gmail.com");
        assert_eq!(find("microsoft").unwrap().cloud, "global");
        assert!(find("nobody").is_none());
        let clouds: Vec<_> = clouds("microsoft").into_iter().map(|(cloud, _)| cloud).collect();
        assert_eq!(clouds, ["global", "gcc-high", "dod", "china"]);
        assert!(super::clouds("google").is_empty());
        assert_eq!(
            names(),
            "aol, att, comcast, fastmail, gmx, gmx-com, google, icloud, mailru, microsoft, other, seznam, webde, yahoo, \
             yandex, zoho"
        );
    }

    #[test]
    fn every_url_is_https_once_the_tenant_is_filled_in() {
        for oauth in table::PRESETS.iter().filter_map(|preset| preset.oauth) {
            let urls = [oauth.authorize_url("common"), oauth.token_url("common")];
            for url in urls
                .into_iter()
                .chain(oauth.device_url.map(|_| oauth.device_url("common")))
            {
                let url = url.unwrap();
                assert_eq!(url.scheme(), "https");
                assert!(
                    !url.as_str().contains("tenant") && !url.as_str().contains("%7B"),
                    "{url}"
                );
            }
        }
    }

    /// What the preset `name` asks for in its cloud `cloud` where `served` is served, at consent and at a refresh.
    fn scopes(name: &str, cloud: &str, served: &[Protocol]) -> (Vec<String>, Vec<String>) {
        let mut presets = table::PRESETS.iter();
        let preset = presets
            .find(|preset| preset.name == name && preset.cloud == cloud)
            .unwrap();
        let oauth = preset.oauth.unwrap();
        (oauth.scopes(served), oauth.refresh_scopes(served))
    }

    #[test]
    fn google_has_one_scope_for_all_and_refreshes_without_a_word() {
        for served in [&[Protocol::Imap][..], &[Protocol::Smtp, Protocol::Pop3, Protocol::Imap]] {
            let (consented, refreshed) = scopes("google", "", served);
            assert_eq!(consented, ["https://mail.google.com/"]);
            assert!(refreshed.is_empty());
        }
    }

    #[test]
    fn microsoft_is_asked_for_what_is_served_in_each_of_its_clouds() {
        use Protocol::{Imap, Pop3, Smtp};
        for (cloud, resource) in [
            ("global", "https://outlook.office.com"),
            ("gcc-high", "https://outlook.office365.us"),
            ("dod", "https://outlook.office365.us"),
            ("china", "https://partner.outlook.cn"),
        ] {
            for (served, expected) in [
                (&[Imap][..], &["IMAP.AccessAsUser.All"][..]),
                (&[Smtp], &["SMTP.Send"]),
                (&[Pop3], &["POP.AccessAsUser.All"]),
                (&[Smtp, Imap, Smtp], &["IMAP.AccessAsUser.All", "SMTP.Send"]),
                (
                    &[Pop3, Smtp, Imap],
                    &["IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"],
                ),
            ] {
                let mut expected: Vec<_> = expected.iter().map(|scope| format!("{resource}/{scope}")).collect();
                expected.push("offline_access".to_owned());
                let (consented, refreshed) = scopes("microsoft", cloud, served);
                assert_eq!(consented, expected, "{cloud}");
                assert_eq!(refreshed, expected, "{cloud}");
            }
        }
    }

    #[test]
    fn each_preset_asks_for_what_its_protocols_need() {
        use Protocol::{Imap, Pop3, Smtp};
        for (name, served, expected) in [
            ("yahoo", &[Imap, Smtp, Pop3][..], &["mail-w"][..]),
            ("aol", &[Smtp], &["mail-w"]),
            (
                "fastmail",
                &[Smtp, Imap],
                &[
                    "https://www.fastmail.com/dev/protocol-imap",
                    "https://www.fastmail.com/dev/protocol-smtp",
                ],
            ),
            ("fastmail", &[Pop3], &["https://www.fastmail.com/dev/protocol-pop"]),
            ("comcast", &[Imap], &["https://email.comcast.net/", "profile", "openid"]),
            ("yandex", &[Imap, Smtp], &["mail:imap_full", "mail:smtp"]),
            // Its POP3 takes no token, so there is nothing to ask for.
            ("yandex", &[Pop3], &[]),
            ("mailru", &[Smtp, Imap], &["mail.imap"]),
            ("seznam", &[Imap], &["email", "identity"]),
        ] {
            assert_eq!(scopes(name, "", served).0, expected, "{name} {served:?}");
        }
    }

    #[test]
    fn domains_and_exchangers_belong_to_one_provider_and_are_written_as_they_are_compared() {
        let mut domains = HashSet::new();
        let mut exchangers = HashSet::new();
        for preset in table::PRESETS {
            for domain in preset.domains {
                assert!(domains.insert(*domain), "{domain} twice");
            }
            for suffix in preset.mx {
                assert!(exchangers.insert(*suffix), "{suffix} twice");
            }
            for name in preset.domains.iter().chain(preset.mx) {
                assert_eq!(*name, name.to_lowercase());
                assert!(
                    name.contains('.') && !name.starts_with('.') && !name.ends_with('.'),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_preset_protects_its_logins_and_tells_how_to_get_one() {
        for preset in table::PRESETS {
            let endpoints = [preset.imap, preset.smtp, preset.pop3];
            for endpoint in endpoints.into_iter().flatten() {
                assert_ne!(endpoint.tls, UpstreamTls::Off, "{}", preset.name);
            }
            assert!(
                !preset.advice.is_empty() && preset.advice.ends_with('.'),
                "{}",
                preset.name
            );
            assert!(preset.passwords || preset.oauth.is_some(), "{}: no way in", preset.name);
            assert_eq!(preset.oauth.is_some(), !preset.sasl.is_empty(), "{}", preset.name);
        }
    }

    #[test]
    fn a_refresh_asks_for_the_scopes_of_one_resource_only() {
        // Microsoft refuses a request that names scopes of several (AADSTS28000).
        let all = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3];
        for oauth in table::PRESETS.iter().filter_map(|preset| preset.oauth) {
            let refreshed = oauth.refresh_scopes(&all);
            let urls = refreshed.iter().filter_map(|scope| Url::parse(scope).ok());
            let resources: HashSet<_> = urls.filter_map(|url| url.host_str().map(str::to_owned)).collect();
            assert!(resources.len() <= 1, "{resources:?}");
        }
    }
}
