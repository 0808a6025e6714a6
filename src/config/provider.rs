//! `[provider.*]`: a preset completed by its table, or an administrator's own provider.

mod grant;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use url::Url;

use super::endpoint;
use super::load::Check;
use super::material::Material;
use super::preset::{self, Preset, PresetOAuth, TENANT_DEFAULT};
use super::raw::{self, Key};
use super::report::{Place, place, quoted, text};
use super::secret::{self, Forms};
use super::sections::SESSIONS;
use super::{ClientAuth, ClientKey, GrantType, OAuthApp, Origin, Provider, UserRule};
use crate::host::is_loopback_host;
use crate::proto::{Mechanism, Protocol};
use crate::secret::{Maker, oddity};

/// All providers: those of the file, and the presets that take passwords. `served` is what listeners
/// serve, which consent is asked for.
pub(super) fn providers(
    check: &mut Check<'_>,
    raw: &BTreeMap<String, Spanned<raw::Provider>>,
    served: &[Protocol],
) -> BTreeMap<String, Arc<Provider>> {
    let mut providers: BTreeMap<String, Provider> = BTreeMap::new();
    for (name, table) in raw {
        if let Some(provider) = provider(check, name, table, served) {
            providers.insert(name.clone(), provider);
        }
    }
    for preset in preset::always_there().filter(|preset| !raw.contains_key(preset.name)) {
        providers.insert(preset.name.to_owned(), preset.provider());
    }
    let owners = domain_owners(check, raw);
    for provider in providers.values_mut() {
        let name = &provider.name;
        provider
            .domains
            .retain(|domain| owners.get(domain).is_none_or(|owner| owner == name));
    }
    providers
        .into_iter()
        .map(|(name, provider)| (name, Arc::new(provider)))
        .collect()
}

/// Which provider each domain in the file was given to. That takes it from a preset, but never from another table.
fn domain_owners(check: &mut Check<'_>, raw: &BTreeMap<String, Spanned<raw::Provider>>) -> BTreeMap<String, String> {
    let mut owners = BTreeMap::new();
    for (name, table) in raw {
        let given = &table.get_ref().domains;
        for domain in given.iter().flat_map(|given| given.get_ref()) {
            let domain = domain.to_lowercase();
            match owners.get(&domain) {
                Some(other) if other != name => {
                    let message = format!(
                        "{} belongs to provider {other} already; name it in one of the two",
                        quoted(&domain)
                    );
                    check
                        .report
                        .refuse(place(given), format!("provider.{name}.domains"), message);
                }
                _ => {
                    owners.insert(domain, name.clone());
                }
            }
        }
    }
    owners
}

/// One table; `None` where it makes no provider, which was then noted.
fn provider(
    check: &mut Check<'_>,
    name: &str,
    table: &Spanned<raw::Provider>,
    served: &[Protocol],
) -> Option<Provider> {
    let (at, raw) = (Some(table.span()), table.get_ref());
    let mut reader = Reader {
        check,
        section: format!("provider.{name}"),
        at: at.clone(),
        raw,
        served,
    };
    let section = reader.section.clone();
    reader.check.require_name(&section, at.clone(), name);
    let preset = reader.preset(name);
    let known = preset.map(Preset::provider);
    let known = known.as_ref();
    let mut endpoint =
        |protocol: Protocol, key| endpoint::endpoint(reader.check, &format!("{section}.{protocol}"), protocol, key);
    let imap = endpoint(Protocol::Imap, &raw.imap).or_else(|| known?.imap.clone());
    let smtp = endpoint(Protocol::Smtp, &raw.smtp).or_else(|| known?.smtp.clone());
    let pop3 = endpoint(Protocol::Pop3, &raw.pop3).or_else(|| known?.pop3.clone());
    if raw.imap.is_none() && raw.smtp.is_none() && raw.pop3.is_none() && known.is_none() {
        let message = format!(
            "is not a preset of this version, which are {}; give its endpoints in full: \
             imap = {{ host = \"…\", port = 993, tls = \"implicit\" }} and, for OAuth, client_id and token_url or issuer",
            preset::names()
        );
        reader.check.report.refuse(at, section, message);
        return None;
    }
    let takes_passwords = known.is_none_or(|known| known.passwords);
    let oauth = reader.oauth(preset.and_then(|preset| preset.oauth.as_ref()), takes_passwords);
    let sasl = reader.sasl(known);
    if oauth.is_some() && sasl.is_empty() {
        reader.refuse(
            place(&raw.sasl),
            "sasl",
            "must name at least one of OAUTHBEARER, XOAUTH2",
        );
    }
    let sessions = reader.limit("sessions_per_account_max", &raw.sessions_per_account_max, SESSIONS);
    let submissions = match &raw.submissions_max {
        None => known.and_then(|preset| preset.submissions_max),
        given => reader
            .limit("submissions_max", given, 0..=*SESSIONS.end())
            .filter(|limit| *limit > 0),
    };
    Some(Provider {
        name: name.to_owned(),
        origin: Origin::Table,
        oauth,
        passwords: takes_passwords,
        sasl,
        imap,
        smtp,
        pop3,
        ca_file: reader.ca_file(),
        forward_client_address: raw
            .forward_client_address
            .as_ref()
            .is_some_and(|given| *given.get_ref()),
        sessions_per_account_max: sessions.or_else(|| known?.sessions_per_account_max),
        submissions_max: submissions,
        domains: reader.domains(known),
        imap_user: known.map_or(UserRule::Address, |known| known.imap_user),
        user: known.map_or(UserRule::Address, |known| known.user),
        advice: known.and_then(|known| known.advice),
    })
}

/// One provider's table while it is read.
struct Reader<'c, 'e, 'r> {
    check: &'c mut Check<'e>,
    section: String,
    at: Place,
    raw: &'r raw::Provider,
    /// What listeners serve.
    served: &'r [Protocol],
}

impl Reader<'_, '_, '_> {
    /// Refuses a key of this table; an absent one at the table's own place.
    fn refuse(&mut self, at: Place, key: &str, message: impl Into<String>) {
        self.check.report.refuse(
            at.or_else(|| self.at.clone()),
            format!("{}.{key}", self.section),
            message,
        );
    }

    /// The preset that the table completes, in the cloud that it names.
    fn preset(&mut self, name: &str) -> Option<&'static Preset> {
        let usual = preset::find(name);
        let clouds = preset::clouds(name);
        if let (Some(usual), false) = (usual, clouds.is_empty()) {
            let key = format!("{}.cloud", self.section);
            return Some(self.check.report.choice(&key, &self.raw.cloud, usual, &clouds));
        }
        for (key, given) in [("tenant", &self.raw.tenant), ("cloud", &self.raw.cloud)] {
            if text(given).is_some() {
                self.refuse(place(given), key, "is for [provider.microsoft] only");
            }
        }
        usual
    }

    /// Microsoft's tenant: a word, a domain or a UUID, which becomes a segment of the endpoints' paths.
    fn tenant(&mut self) -> String {
        let Some(given) = text(&self.raw.tenant) else {
            return TENANT_DEFAULT.to_owned();
        };
        let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        if !given.bytes().all(usable) || given.starts_with('.') {
            let message = format!(
                "{} is not allowed; use common, organizations, consumers, a domain or a tenant's id",
                quoted(given)
            );
            self.refuse(place(&self.raw.tenant), "tenant", message);
            return TENANT_DEFAULT.to_owned();
        }
        given.to_owned()
    }

    /// The OAuth app, where any key of one is given, or nothing else lets anybody in.
    fn oauth(&mut self, preset: Option<&PresetOAuth>, takes_passwords: bool) -> Option<OAuthApp> {
        let raw = self.raw;
        let texts = [
            &raw.grant,
            &raw.issuer,
            &raw.authorize_url,
            &raw.token_url,
            &raw.device_url,
            &raw.revocation_url,
            &raw.client_id,
            &raw.client_secret_file,
            &raw.client_secret_env,
            &raw.client_auth,
            &raw.client_certificate_file,
            &raw.client_key_file,
            &raw.service_account_file,
            &raw.token_url_external,
        ];
        let given = texts.iter().any(|key| text(key).is_some())
            || raw.client_secret.is_some()
            || raw.scopes.is_some()
            || raw.token_command.is_some()
            || raw.env.is_some();
        if !given && takes_passwords {
            return None;
        }
        let full = format!("{}.env", self.section);
        let env = self.check.variables(&full, &raw.env);
        let grant = self.grant(&env);
        let tenant = self.tenant();
        let issuer = self.url("issuer", &raw.issuer);
        let mut url = |name, key, known: Option<Url>| self.url(name, key).or(known);
        let authorize_url = url(
            "authorize_url",
            &raw.authorize_url,
            preset.and_then(|preset| preset.authorize_url(&tenant)),
        );
        let token_url = url(
            "token_url",
            &raw.token_url,
            preset.and_then(|preset| preset.token_url(&tenant)),
        );
        let device_url = url(
            "device_url",
            &raw.device_url,
            preset.and_then(|preset| preset.device_url(&tenant)),
        );
        let revocation_url = url(
            "revocation_url",
            &raw.revocation_url,
            preset.and_then(PresetOAuth::revocation_url),
        );
        // A service account's key names its own endpoint, and an external program has one of its own.
        let has_endpoint = matches!(grant, GrantType::ServiceAccount { .. } | GrantType::External(_));
        if text(&raw.issuer).is_none() && text(&raw.token_url).is_none() && preset.is_none() && !has_endpoint {
            self.refuse(None, "token_url", "is missing; give token_url, or issuer for discovery");
        }
        let client_id = self.client_id();
        if client_id.is_none() && text(&raw.client_id).is_none() && !has_endpoint {
            self.refuse(
                None,
                "client_id",
                "is missing; register an app with the provider and give its client id",
            );
        }
        let section = self.section.clone();
        let forms = Forms {
            section: &section,
            name: "client_secret",
            value: &raw.client_secret,
            file: &raw.client_secret_file,
            variable: &raw.client_secret_env,
            made_by: Maker::Machine,
        };
        let client_secret = secret::resolve(self.check, &forms);
        let client_key = self.client_key();
        let client_auth = self.client_auth(client_key.as_ref());
        let scopes = self.scopes(preset, &grant);
        let refresh_scopes = match preset {
            // What `config show` has printed reads back as the same.
            Some(preset) if scopes == preset.scopes(self.served) => preset.refresh_scopes(self.served),
            _ => scopes.clone(),
        };
        // Somebody else's pages may be somebody else's issuer.
        let known_issuer = preset
            .filter(|preset| authorize_url == preset.authorize_url(&tenant))
            .and_then(PresetOAuth::issuer);
        let app = OAuthApp {
            grant,
            env,
            issuer,
            known_issuer,
            authorize_url,
            token_url,
            device_url,
            revocation_url,
            client_id: client_id.unwrap_or_default(),
            client_secret,
            client_auth,
            client_key,
            identity_scopes: preset.map(PresetOAuth::identity_scopes).unwrap_or_default(),
            authorize_parameters: preset.map(PresetOAuth::authorize_parameters).unwrap_or_default(),
            scopes,
            refresh_scopes,
            allow_insecure: self.allows_insecure(),
            keep_alive: self.keep_alive(),
        };
        self.check_grant(&app, preset);
        Some(app)
    }

    /// The app's id, which is copied from a web page, and with it what stood around it there.
    fn client_id(&mut self) -> Option<String> {
        let given = text(&self.raw.client_id)?;
        if let Some(oddity) = oddity(given, Maker::Machine) {
            let message = format!("{} {oddity}", quoted(given));
            self.refuse(place(&self.raw.client_id), "client_id", message);
            return None;
        }
        Some(given.to_owned())
    }

    /// Trust anchors beside the system's.
    fn ca_file(&mut self) -> Option<PathBuf> {
        let file = text(&self.raw.ca_file).map(|given| self.check.beside_file(given))?;
        self.examine("ca_file", &self.raw.ca_file, &Material::Anchors(&file));
        Some(file)
    }

    /// Has what `key` of this table names looked at; whether it is as it should be.
    fn examine(&mut self, name: &str, key: &Key<String>, material: &Material<'_>) -> bool {
        let full = format!("{}.{name}", self.section);
        self.check.examine(&full, place(key), material)
    }

    fn keep_alive(&mut self) -> Duration {
        let key = format!("{}.keep_alive", self.section);
        let range = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
        let report = &mut self.check.report;
        report.duration(&key, &self.raw.keep_alive, KEEP_ALIVE_DEFAULT, range)
    }

    /// How the app authenticates: as given, else by what there is to authenticate with. It must fit that.
    fn client_auth(&mut self, client_key: Option<&ClientKey>) -> ClientAuth {
        let raw = self.raw;
        let secret = raw
            .client_secret
            .as_ref()
            .is_some_and(|secret| !secret::is_empty(&secret.get_ref().0))
            || text(&raw.client_secret_file).is_some()
            || text(&raw.client_secret_env).is_some();
        let default = match (client_key, secret) {
            (Some(_), _) => ClientAuth::PrivateKeyJwt,
            (None, true) => ClientAuth::Post,
            (None, false) => ClientAuth::None,
        };
        let ways = [
            ("post", ClientAuth::Post),
            ("basic", ClientAuth::Basic),
            ("none", ClientAuth::None),
            ("private_key_jwt", ClientAuth::PrivateKeyJwt),
        ];
        let key = format!("{}.client_auth", self.section);
        let auth = self.check.report.choice(&key, &raw.client_auth, default, &ways);
        let message = match (auth, secret, client_key) {
            (ClientAuth::None, true, _) => "\"none\" does not go with a client_secret",
            (ClientAuth::Post | ClientAuth::Basic, false, _) => {
                "post and basic need a client_secret; for a public client use none"
            }
            (ClientAuth::PrivateKeyJwt, true, _) => "\"private_key_jwt\" does not go with a client_secret",
            (ClientAuth::PrivateKeyJwt, false, None) => "private_key_jwt needs client_key_file",
            _ => return auth,
        };
        self.refuse(place(&raw.client_auth), "client_auth", message);
        auth
    }

    fn allows_insecure(&self) -> bool {
        self.raw.allow_insecure.as_ref().is_some_and(|given| *given.get_ref())
    }

    /// An OAuth URL.
    fn url(&mut self, name: &str, key: &Key<String>) -> Option<Url> {
        self.url_of(name, key, self.allows_insecure())
    }

    /// A URL, which is not repeated in the error: some put secrets in URLs. In clear it is for loopback hosts alone, unless
    /// `insecure` says that an administrator meant it.
    fn url_of(&mut self, name: &str, key: &Key<String>, insecure: bool) -> Option<Url> {
        let given = text(key)?;
        let message = match Url::parse(given) {
            Err(error) => format!("is not a URL ({error}); use one such as https://id.example.com/token"),
            Ok(url) => {
                let loopback = url.host_str().is_some_and(is_loopback_host);
                match url.scheme() {
                    _ if url.host().is_none() => "has no host; use one such as https://id.example.com/token".to_owned(),
                    _ if !url.username().is_empty() || url.password().is_some() => {
                        "must not hold a user name or a password".to_owned()
                    }
                    _ if url.fragment().is_some() => "must not have a fragment (RFC 6749 §3.1, §3.2)".to_owned(),
                    "https" => return Some(url),
                    "http" if loopback || insecure => return Some(url),
                    "http" if name == "token_url_external" => "must be https; http is for loopback hosts".to_owned(),
                    "http" => "must be https; http is for loopback hosts, or with allow_insecure = true".to_owned(),
                    _ => "must be https".to_owned(),
                }
            }
        };
        self.refuse(place(key), name, message);
        None
    }

    /// Scopes, each a `scope-token` of RFC 6749 §3.3.
    fn scopes(&mut self, preset: Option<&PresetOAuth>, grant: &GrantType) -> Vec<String> {
        let Some(given) = &self.raw.scopes else {
            let known = preset.map(|preset| match grant {
                GrantType::ClientCredentials => preset.app_scopes(),
                _ => preset.scopes(self.served),
            });
            return known.unwrap_or_default();
        };
        let usable = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        for scope in given.get_ref() {
            if scope.is_empty() || !scope.bytes().all(usable) {
                let message = format!("{} is not a scope; give each as a string of its own", quoted(scope));
                self.refuse(place(&self.raw.scopes), "scopes", message);
            }
        }
        given.get_ref().clone()
    }

    fn sasl(&mut self, known: Option<&Provider>) -> Vec<Mechanism> {
        let Some(given) = &self.raw.sasl else {
            return known.map_or_else(|| OAUTH_MECHANISMS.to_vec(), |known| known.sasl.clone());
        };
        let mut mechanisms = Vec::new();
        for name in given.get_ref() {
            let mechanism = match name.to_ascii_uppercase().as_str() {
                "OAUTHBEARER" => Mechanism::OAuthBearer,
                "XOAUTH2" => Mechanism::XOAuth2,
                _ => {
                    let message = format!("{} is not allowed; use OAUTHBEARER, XOAUTH2", quoted(name));
                    self.refuse(place(&self.raw.sasl), "sasl", message);
                    continue;
                }
            };
            if !mechanisms.contains(&mechanism) {
                mechanisms.push(mechanism);
            }
        }
        mechanisms
    }

    /// The domains, in lower case; a preset's own stay.
    fn domains(&mut self, known: Option<&Provider>) -> Vec<String> {
        let mut domains = known.map(|known| known.domains.clone()).unwrap_or_default();
        for given in self.raw.domains.iter().flat_map(|given| given.get_ref()) {
            let domain = given.to_lowercase();
            if domain.is_empty() || domain.contains(|c: char| c == '@' || c.is_whitespace() || c.is_control()) {
                let message = format!("{} is not allowed; use domains such as \"example.com\"", quoted(given));
                self.refuse(place(&self.raw.domains), "domains", message);
            } else if !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        domains
    }

    fn limit(&mut self, name: &str, key: &Key<i64>, range: std::ops::RangeInclusive<u32>) -> Option<usize> {
        key.as_ref()?;
        let key_name = format!("{}.{name}", self.section);
        Some(self.check.report.count(&key_name, key, *range.start(), range))
    }
}

const OAUTH_MECHANISMS: [Mechanism; 2] = [Mechanism::OAuthBearer, Mechanism::XOAuth2];

/// Well below the 90 days after which Microsoft, and the 6 months after which Google, ends a grant that nobody uses.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(30 * 86_400);
