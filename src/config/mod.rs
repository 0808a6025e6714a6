//! The configuration: raw TOML in, validated types out. What is here has been checked and needs no further check.
//!
//! ```text
//! locate ──> document ──> raw::File ──> sections, listener, provider ──> Config ──> show
//!  (which     (syntax,     (keys with    (values, combinations, secrets,
//!   file)      types)       places)       presets, defaults)
//! ```
//! [`load()`] does it all. A check that fails notes the problem in `report` and goes on, so that an error names everything
//! that is wrong, each with file, line, key and what is allowed; nothing of a secret is ever in it. What is outside the
//! file (environment, user, host, other files) comes in through [`Environment`], which also looks at every [`Material`] that
//! is named: so whatever keeps a daemon from starting is found by `config check` and on SIGHUP, too.

mod document;
mod endpoint;
mod environment;
mod listener;
mod load;
mod locate;
mod material;
mod preset;
mod program;
mod provider;
mod raw;
mod report;
mod secret;
mod sections;
mod show;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
mod web;

pub use environment::{Environment, FileContent, ProcessEnvironment};
pub use listener::address_range;
pub use load::{client_socket, load, parse, reload};
pub use material::Material;
pub use preset::{KnownProvider, known_providers};
pub use program::Variables;
pub use report::{ConfigError, Problem};

pub use crate::host::is_loopback_host;
pub use crate::telemetry::LogFormat;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::proto::{Mechanism, Protocol};
use crate::secret::SecretString;

/// The whole configuration in effect.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, if any.
    pub source: Option<PathBuf>,
    /// What an administrator should know of it, to be logged once logging is set up.
    pub warnings: Vec<String>,
    /// `[server]`
    pub server: Server,
    /// `[store]`
    pub store: StoreSettings,
    /// `[secrets]`
    pub secrets: SecretsSettings,
    /// `[admin]`
    pub admin: Admin,
    /// `metrics.listen`; `None` where it is turned off.
    pub metrics_listen: Option<SocketAddr>,
    /// `[log]`
    pub log: Log,
    /// `[limits]`
    pub limits: Limits,
    /// `[web]`
    pub web: Web,
    /// `[hooks]`
    pub hooks: Hooks,
    /// `[[listener]]`
    pub listeners: Vec<Listener>,
    /// `[certificate.*]`
    pub certificates: BTreeMap<String, Certificate>,
    /// `[provider.*]`, and the presets that take passwords.
    pub providers: BTreeMap<String, Arc<Provider>>,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// The name in greetings.
    pub hostname: String,
    /// Where the store, the master key and generated certificates are.
    pub state_dir: PathBuf,
    /// How long live sessions may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// Worker threads of the runtime; `None`: one for each core.
    pub worker_threads: Option<usize>,
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Age at which usage events are swept.
    pub usage_retention: Duration,
    /// Number of usage events above which the oldest are swept.
    pub usage_events_max: u64,
}

/// `[secrets]`
#[derive(Debug, Clone)]
pub struct SecretsSettings {
    /// The master key itself, in base64, from the configuration or from an environment variable. At most one of the two
    /// is given; with neither, the key is generated under the state directory.
    pub master_key: Option<SecretString>,
    /// The master key's file.
    pub master_key_file: Option<PathBuf>,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// The Unix socket's path.
    pub socket: PathBuf,
    /// Its mode bits.
    pub socket_mode: u32,
    /// TCP addresses that serve the same API, always with a bearer token.
    pub listen: Vec<SocketAddr>,
    /// A root token from a file.
    pub root_token: Option<SecretString>,
}

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// A level, or a list of `target=level`; what [`crate::telemetry::filter`] accepts.
    pub level: String,
    /// The output's form.
    pub format: LogFormat,
}

/// `[limits]`, with the meanings and defaults of INTERFACE §3.
#[derive(Debug, Clone)]
#[expect(
    missing_docs,
    reason = "each key is documented in INTERFACE §3 and docs/configuration.md under the same name"
)]
pub struct Limits {
    pub sessions_max: usize,
    pub sessions_per_ip_max: usize,
    pub sessions_per_account_max: usize,
    pub pre_auth_timeout: Duration,
    pub login_timeout: Duration,
    pub upstream_connect_timeout: Duration,
    pub token_request_timeout: Duration,
    pub idle_timeout: Duration,
    pub command_line_bytes_max: usize,
    pub literal_bytes_max: usize,
    pub bad_commands_max: u32,
    pub pre_auth_commands_max: u32,
    pub auth_failures_max: u32,
    pub auth_failure_delay: Duration,
}

/// `[web]`: the public side, where owners follow hosted links and providers send their browsers back.
#[derive(Debug, Clone, Default)]
pub struct Web {
    /// Where; `None` where it is turned off.
    pub listen: Option<SocketAddr>,
    /// How browsers reach it; always there if `listen` is. See [`Web::page`] for what is below it.
    pub public_url: Option<Url>,
    /// The name of its certificate; `None`: plain HTTP.
    pub certificate: Option<String>,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[hooks]`: who is told when an account's state changes or its grant will end soon.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
    /// What it finds in its environment besides what every program gets.
    pub env: Variables,
    /// Where the event is posted.
    pub webhook_url: Option<Url>,
    /// With what the post is signed.
    pub webhook_secret: Option<SecretString>,
}

/// One `[[listener]]`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// What is spoken.
    pub protocol: Protocol,
    /// Where; each is bound on its own.
    pub addresses: Vec<SocketAddr>,
    /// TLS towards clients.
    pub tls: ListenerTls,
    /// The certificates to choose from by SNI, by name; the first is the default.
    pub certificates: Vec<String>,
    /// Whether a client may log in without TLS.
    pub plaintext_auth: PlaintextAuth,
    /// The peers that must begin with a PROXY header, and are believed what it says of the client; IPv4-mapped ranges are
    /// IPv4 here.
    pub proxy_protocol_from: Vec<IpNet>,
    /// SMTP: the provider of whose upstreams the EHLO extensions are advertised; `None`: what all upstreams share.
    pub provider: Option<String>,
}

/// `listener.tls`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerTls {
    /// In clear.
    Off,
    /// In clear until the client asks for TLS (RFC 9051 §6.2.1, RFC 3207, RFC 2595 §4).
    Starttls,
    /// TLS from the first byte.
    Implicit,
}

/// `listener.plaintext_auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaintextAuth {
    /// Never.
    Never,
    /// For clients on a loopback address.
    Loopback,
    /// For every client.
    Always,
}

/// One `[certificate.*]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// `cert_file` and `key_file`.
    Files {
        /// A PEM chain, leaf first.
        cert_file: PathBuf,
        /// Its PEM key.
        key_file: PathBuf,
    },
    /// `self_signed = true`: issued by the daemon's own CA, under the state directory.
    SelfSigned,
}

/// One provider: a preset, completed by its table, or an administrator's own.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name, as accounts and metrics use it.
    pub name: String,
    /// Why it is there.
    pub origin: Origin,
    /// Its OAuth app; `None` where accounts can have passwords only.
    pub oauth: Option<OAuthApp>,
    /// Whether it lets programs in by a password, as far as is known.
    pub passwords: bool,
    /// OAuth mechanisms in order of preference.
    pub sasl: Vec<Mechanism>,
    /// Its IMAP endpoint.
    pub imap: Option<Endpoint>,
    /// Its SMTP endpoint.
    pub smtp: Option<Endpoint>,
    /// Its POP3 endpoint.
    pub pop3: Option<Endpoint>,
    /// Trust anchors beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether its servers are told the clients' true addresses.
    pub forward_client_address: bool,
    /// Its own limit, where it differs from `limits.sessions_per_account_max`.
    pub sessions_per_account_max: Option<usize>,
    /// Submission sessions at once for one account; `None`: no limit.
    pub submissions_max: Option<usize>,
    /// E-mail domains by which `account add` recognises it.
    pub domains: Vec<String>,
    /// What it takes as the login name for IMAP.
    pub imap_user: UserRule,
    /// What it takes as the login name for SMTP and POP3.
    pub user: UserRule,
    /// How to get what portreeve needs of it: a client id, or an app password. For people, in a few sentences.
    pub advice: Option<&'static str>,
}

/// Why a provider is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file has a table for it.
    Table,
    /// It is a preset that takes passwords and needs no table.
    Preset,
}

/// What a provider takes as login name, where an account names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRule {
    /// The e-mail address.
    Address,
    /// What stands before its `@`.
    LocalPart,
}

/// The OAuth app of a provider.
#[derive(Debug, Clone)]
pub struct OAuthApp {
    /// How access tokens are had.
    pub grant: GrantType,
    /// What a token command finds in its environment besides what every program gets.
    pub env: Variables,
    /// Where tokens are refreshed, if it was given or is a preset's; else `issuer` tells.
    pub token_url: Option<Url>,
    /// The issuer whose discovery document tells the endpoints (OpenID Connect Discovery 1.0 §4).
    pub issuer: Option<Url>,
    /// What a preset's issuer calls itself, which is compared without asking it (RFC 9207 §2.4).
    pub known_issuer: Option<&'static str>,
    /// Where a mailbox's owner consents (RFC 6749 §3.1).
    pub authorize_url: Option<Url>,
    /// Where a device code is asked for (RFC 8628 §3.1).
    pub device_url: Option<Url>,
    /// Where a token is given back (RFC 7009 §2), if it was given or is a preset's; else `issuer` may tell.
    pub revocation_url: Option<Url>,
    /// The app's id; empty for a service account and an external source, which have none.
    pub client_id: String,
    /// The app's secret, for a confidential client.
    pub client_secret: Option<SecretString>,
    /// How the app authenticates.
    pub client_auth: ClientAuth,
    /// What the app signs its assertions with, where it authenticates by them.
    pub client_key: Option<ClientKey>,
    /// The scopes that mail needs: as given, else the preset's for the protocols that listeners serve.
    pub scopes: Vec<String>,
    /// What a consent asks for besides, so that the answer tells whose mailbox it is (OpenID Connect Core §5.4).
    pub identity_scopes: Vec<String>,
    /// What the provider wants in an authorization request besides RFC 6749's parameters, such as Google's `access_type`.
    pub authorize_parameters: Vec<(&'static str, &'static str)>,
    /// The scopes that a refresh names: of several resources a preset's provider would refuse it, or it needs none.
    pub refresh_scopes: Vec<String>,
    /// Whether plain HTTP beyond loopback was allowed.
    pub allow_insecure: bool,
    /// A grant that nobody uses is renewed at least this often, so that it does not die of disuse.
    pub keep_alive: Duration,
}

/// `provider.grant`: how access tokens are had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantType {
    /// An owner consents in a browser (RFC 6749 §4.1); refreshed from then on. Device codes are taken where asked for.
    Code,
    /// The same, by a code typed on another device (RFC 8628), which `account authorize` then prefers.
    Device,
    /// The app itself may open the mailboxes (RFC 6749 §4.4).
    ClientCredentials,
    /// A Google service account speaks for the mailbox (RFC 7523 §2.1).
    ServiceAccount {
        /// Google's JSON key.
        key_file: PathBuf,
    },
    /// The mailbox's own name and password (RFC 6749 §4.3).
    Password,
    /// Somebody else's program keeps the grant.
    External(External),
}

/// Where an external program gives access tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum External {
    /// A program and its arguments, in which `{account}` stands for the account's id.
    Command(Vec<String>),
    /// A URL, asked with `?account=&proto=`.
    Url(Url),
}

/// What an app signs its assertions with (RFC 7523 §2.2). The files are read at each use, so that they can be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// Its private key, in PEM.
    pub key_file: PathBuf,
    /// Its certificate, in PEM, whose thumbprint names the key (RFC 7515 §4.1.8).
    pub certificate_file: Option<PathBuf>,
}

/// `provider.client_auth`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Id and secret in the body (RFC 6749 §2.3.1).
    Post,
    /// HTTP Basic (RFC 6749 §2.3.1).
    Basic,
    /// A public client: the id alone, in the body.
    None,
    /// An assertion signed with the app's own key (RFC 7523 §2.2).
    #[serde(rename = "private_key_jwt")]
    PrivateKeyJwt,
}

/// Where one protocol of a provider is served.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How it is protected.
    pub tls: UpstreamTls,
}

/// How an upstream endpoint is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpstreamTls {
    /// TLS from the first byte.
    Implicit,
    /// STARTTLS, which must succeed.
    Starttls,
    /// In clear; for loopback hosts.
    Off,
}

impl Provider {
    /// The endpoint for `protocol`, if the provider has one.
    pub fn endpoint(&self, protocol: Protocol) -> Option<&Endpoint> {
        match protocol {
            Protocol::Imap => self.imap.as_ref(),
            Protocol::Smtp => self.smtp.as_ref(),
            Protocol::Pop3 => self.pop3.as_ref(),
        }
    }

    /// Whether it is configured without anybody's doing.
    pub fn is_always_there(&self) -> bool {
        self.origin == Origin::Preset
    }
}

impl Web {
    /// The address of a page: `path`, which begins without a slash, below `public_url`; `None` where there is no such URL. What
    /// `public_url` has as a path of its own stays before it, with or without a slash at its end.
    pub fn page(&self, path: &str) -> Option<Url> {
        let mut url = self.public_url.clone()?;
        let below = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&below);
        Some(url)
    }

    /// Where providers send browsers back to, as it must be registered with them.
    pub fn redirect_url(&self) -> Option<Url> {
        self.page("oauth/callback")
    }
}

impl GrantType {
    /// Its name in the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Device => "device",
            Self::ClientCredentials => "client_credentials",
            Self::ServiceAccount { .. } => "service_account",
            Self::Password => "password",
            Self::External(_) => "external",
        }
    }

    /// Whether an owner has to consent before there is anything to log in with.
    pub fn needs_consent(&self) -> bool {
        matches!(self, Self::Code | Self::Device)
    }
}

impl UserRule {
    /// The login name made of an address.
    pub fn apply(self, address: &str) -> &str {
        match self {
            Self::Address => address,
            Self::LocalPart => address.rsplit_once('@').map_or(address, |(local, _)| local),
        }
    }
}
