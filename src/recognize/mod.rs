//! Whose mailbox an address is: found out from what is configured, from what is publicly known, and from what the address's
//! domain publishes.
//!
//! ```text
//! domain of a provider ──> MX records ──> SRV records (RFC 6186) ──> autoconfig files (Mozilla's form)
//!        │                     │                  │                            │
//!     provider              provider      servers, or the provider whose servers they are
//! ```
//! The first that tells anything decides. What DNS and autoconfig files say is not to be trusted with a credential: whoever
//! forges it could name a host of theirs. It is therefore only told. It becomes part of an account when an administrator, who
//! has seen it, says so; a provider that it leads to is one of the configuration's, with the hosts that stand there.
//!
//! Everything is bounded in size, number and time, and no failure is worse than finding nothing.

mod autoconfig;
mod srv;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::PathBuf;

use url::Host;

use crate::config::{Config, Endpoint, KnownProvider, Provider, is_loopback_host, known_providers};
use crate::limits::RECOGNITION_STEP_TIMEOUT;
use crate::net::dns::{Dns, is_host_name};
use crate::net::http::Http;
use crate::proto::Protocol;

/// Finds out whose mailbox an address is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recognizer {
    dns: Dns,
    http: Http,
    places: Places,
}

/// Where autoconfig files are looked for, in this order; `{domain}` and `{email}` are replaced.
#[derive(Debug, Clone)]
pub struct Places {
    /// URLs, all of them https.
    pub urls: Vec<String>,
    /// Trust anchors beside the system's.
    pub ca_file: Option<PathBuf>,
}

/// How far to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only for a provider: by domain, then by MX.
    Provider,
    /// For servers, too, which a person will look at.
    Servers,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The provider, by its name in the configuration, or the name that its table would have.
    pub provider: Option<String>,
    /// By what.
    pub how: How,
    /// The same in words.
    pub found: String,
    /// Whether the provider is configured.
    pub configured: bool,
    /// Whether the provider has an OAuth app, so that an owner can consent.
    pub oauth2: bool,
    /// Whether a password is taken, as far as is known.
    pub passwords: bool,
    /// What there is to do at the provider.
    pub advice: Option<String>,
    /// Servers of no known provider.
    pub servers: Servers,
}

/// By what something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The domain is a provider's.
    Domain,
    /// Its mail goes to a provider's exchangers.
    Mx,
    /// Its SRV records name servers.
    Srv,
    /// An autoconfig file names servers.
    Autoconfig,
    /// Nothing was found.
    None,
}

/// Servers that a domain names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Servers {
    /// For IMAP.
    pub imap: Option<Server>,
    /// For submission.
    pub smtp: Option<Server>,
    /// For POP3.
    pub pop3: Option<Server>,
}

/// A server that a domain names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is; always with TLS.
    pub endpoint: Endpoint,
    /// The login name there, where it is not the address.
    pub user: Option<String>,
}

/// A provider, configured or only known.
#[derive(Debug, Clone, Copy)]
enum Owner<'c> {
    Configured(&'c Provider),
    Known(KnownProvider),
}

impl Default for Places {
    /// The domain's own places, and last Mozilla's database, which is told the domain and no more.
    fn default() -> Self {
        let urls = [
            "https://autoconfig.{domain}/mail/config-v1.1.xml?emailaddress={email}",
            "https://{domain}/.well-known/autoconfig/mail/config-v1.1.xml",
            "https://autoconfig.thunderbird.net/v1.1/{domain}",
        ];
        Self {
            urls: urls.map(str::to_owned).into(),
            ca_file: None,
        }
    }
}

impl Recognizer {
    /// One that asks by `dns` and `http`, and looks for autoconfig files at `places`.
    pub fn new(dns: Dns, http: Http, places: Places) -> Self {
        Self { dns, http, places }
    }

    /// Whose mailbox `email` is. Takes no longer than a few times [`RECOGNITION_STEP_TIMEOUT`]. Cancel-safe.
    pub async fn recognize(&self, email: &str, config: &Config, reach: Reach) -> Finding {
        let Some(domain) = domain_of(email) else {
            return Finding::nothing("the address has no domain that mail could go to".to_owned());
        };
        if let Some(owner) = by_domain(&domain, config) {
            return owner.finding(How::Domain, format!("{domain} is {}", owner.whose()));
        }
        let mut troubles = Vec::new();
        if let Some(finding) = self.by_mx(&domain, config, &mut troubles).await {
            return finding;
        }
        if reach == Reach::Servers {
            let servers = srv::servers(&self.dns, &domain, &mut troubles).await;
            if !servers.is_empty() {
                let told = format!("{domain} names its servers in DNS (SRV): {}", servers.in_words());
                return served(servers, How::Srv, told, true, config);
            }
            if let Some((url, file)) = autoconfig::find(&self.http, &self.places, &domain, email).await {
                let told = format!("{url} names the servers of {domain}: {}", file.servers.in_words());
                return served(file.servers, How::Autoconfig, told, file.passwords, config);
            }
        }
        Finding::nothing(in_vain(&domain, reach, &troubles))
    }

    async fn by_mx(&self, domain: &str, config: &Config, troubles: &mut Vec<String>) -> Option<Finding> {
        let exchangers = match self.dns.mx(domain, RECOGNITION_STEP_TIMEOUT).await {
            Ok(exchangers) => exchangers,
            Err(error) => {
                troubles.push(format!("its MX records cannot be asked for: {error}"));
                return None;
            }
        };
        let (owner, host) = exchangers
            .iter()
            .find_map(|exchanger| Some((by_exchanger(&exchanger.host, config)?, &exchanger.host)))?;
        Some(owner.finding(How::Mx, format!("{domain} is {} (MX {host})", owner.whose())))
    }
}

/// The domain of an address as DNS knows it, in ASCII and lower case.
fn domain_of(email: &str) -> Option<String> {
    let (local, domain) = email.rsplit_once('@')?;
    let Ok(Host::Domain(domain)) = Host::parse(domain.trim_end_matches('.')) else {
        return None;
    };
    let usable = !local.is_empty() && domain.contains('.') && is_host_name(&domain) && !is_loopback_host(&domain);
    usable.then_some(domain)
}

/// The provider that `domain` was given to, else the one that is known to have it.
fn by_domain<'c>(domain: &str, config: &'c Config) -> Option<Owner<'c>> {
    let is_it =
        |given: &str| given == domain || matches!(Host::parse(given), Ok(Host::Domain(given)) if given == domain);
    let mut configured = config.providers.values();
    let configured = configured.find(|provider| provider.domains.iter().any(|given| is_it(given)));
    if let Some(provider) = configured {
        return Some(Owner::Configured(provider));
    }
    let known = known_providers().find(|known| known.domains.contains(&domain))?;
    Some(Owner::of(known, config))
}

/// The provider whose exchangers' names end as `host` does, in the most labels.
fn by_exchanger<'c>(host: &str, config: &'c Config) -> Option<Owner<'c>> {
    let matching = |known: &KnownProvider| {
        let lengths = known.mx.iter().filter(|suffix| is_below(host, suffix));
        lengths.map(|suffix| suffix.len()).max()
    };
    let (_, known) = known_providers()
        .filter_map(|known| Some((matching(&known)?, known)))
        .max_by_key(|(length, _)| *length)?;
    Some(Owner::of(known, config))
}

/// Whether `host` is `suffix` or a name below it.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The finding for servers that a domain names: of a provider, if they are its own.
fn served(servers: Servers, how: How, told: String, passwords: bool, config: &Config) -> Finding {
    match by_servers(&servers, config) {
        Some(owner) => owner.finding(how, format!("{told}, which are {}", owner.whose())),
        None => Finding {
            passwords,
            servers,
            ..Finding::found(how, told)
        },
    }
}

/// The provider whose servers `servers` are, for everything that they name.
fn by_servers<'c>(servers: &Servers, config: &'c Config) -> Option<Owner<'c>> {
    let is_all = |endpoint: &dyn Fn(Protocol) -> Option<Endpoint>| {
        let mut named = servers.named();
        named.all(|(protocol, server)| {
            endpoint(protocol).is_some_and(|own| own.host.eq_ignore_ascii_case(&server.endpoint.host))
        })
    };
    let mut configured = config.providers.values();
    let configured = configured.find(|provider| is_all(&|protocol| provider.endpoint(protocol).cloned()));
    if let Some(provider) = configured {
        return Some(Owner::Configured(provider));
    }
    let known = known_providers().find(|known| is_all(&|protocol| known.endpoint(protocol)))?;
    Some(Owner::Known(known))
}

fn in_vain(domain: &str, reach: Reach, troubles: &[String]) -> String {
    let mut text = match reach {
        Reach::Provider => format!("{domain} is no known provider's, neither by name nor by its MX records"),
        Reach::Servers => format!(
            "{domain} is no known provider's, neither by name nor by its MX records, and names no servers (SRV, autoconfig)"
        ),
    };
    for trouble in troubles {
        // Writing to a String cannot fail.
        let _ = write!(text, "; {trouble}");
    }
    text
}

impl<'c> Owner<'c> {
    fn of(known: KnownProvider, config: &'c Config) -> Self {
        match config.providers.get(known.name) {
            Some(provider) => Self::Configured(provider),
            None => Self::Known(known),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Configured(provider) => &provider.name,
            Self::Known(known) => known.name,
        }
    }

    /// `Google's`, or `provider example's` where nobody but the administrator knows it.
    fn whose(&self) -> String {
        match known_providers().find(|known| known.name == self.name()) {
            Some(known) => format!("{}'s", known.title),
            None => format!("provider {}'s", self.name()),
        }
    }

    fn finding(&self, how: How, found: String) -> Finding {
        let (oauth2, passwords, advice) = match self {
            Self::Configured(provider) => (provider.oauth.is_some(), provider.passwords, provider.advice),
            Self::Known(known) => (false, known.passwords, Some(known.advice)),
        };
        Finding {
            provider: Some(self.name().to_owned()),
            configured: matches!(self, Self::Configured(_)),
            oauth2,
            passwords,
            advice: advice.map(str::to_owned),
            ..Finding::found(how, found)
        }
    }
}

impl Finding {
    fn found(how: How, found: String) -> Self {
        Self {
            provider: None,
            how,
            found,
            configured: false,
            oauth2: false,
            passwords: false,
            advice: None,
            servers: Servers::default(),
        }
    }

    fn nothing(found: String) -> Self {
        Self::found(How::None, found)
    }
}

impl Servers {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        self.named().next().is_none()
    }

    /// The servers that are named, each with its protocol.
    pub fn named(&self) -> impl Iterator<Item = (Protocol, &Server)> {
        let all = [
            (Protocol::Imap, &self.imap),
            (Protocol::Smtp, &self.smtp),
            (Protocol::Pop3, &self.pop3),
        ];
        all.into_iter()
            .filter_map(|(protocol, server)| Some((protocol, server.as_ref()?)))
    }

    fn in_words(&self) -> String {
        let one = |(protocol, server): (Protocol, &Server)| {
            let Endpoint { host, port, .. } = &server.endpoint;
            format!("{protocol} {host}:{port}")
        };
        let all: Vec<_> = self.named().map(one).collect();
        all.join(", ")
    }
}
