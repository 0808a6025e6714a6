//! The file as it is written: one structure for each table of INTERFACE §3, every key optional, nothing checked but types.
//!
//! A value that needs a check of its own stays text or an integer here, with its place, so that the check can name the line
//! and go on to the next one. The same structures are what [`super::show`] writes, so that the keys read and the keys shown
//! cannot drift apart.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Spanned;

use crate::secret::SecretString;

/// A value with its place in the file; `None` where the key is absent.
pub(super) type Key<T> = Option<Spanned<T>>;

/// What stands in the place of a secret wherever a configuration is shown.
pub(super) const REDACTED: &str = "[redacted]";

/// The whole file.
#[derive(Debug, Default, Serialize)]
pub(super) struct File {
    pub(super) server: Server,
    pub(super) store: Store,
    pub(super) secrets: Secrets,
    pub(super) admin: Admin,
    pub(super) metrics: Metrics,
    pub(super) log: Log,
    pub(super) limits: Limits,
    pub(super) web: Web,
    pub(super) hooks: Hooks,
    pub(super) listener: Vec<Spanned<Listener>>,
    pub(super) certificate: BTreeMap<String, Spanned<Certificate>>,
    pub(super) provider: BTreeMap<String, Spanned<Provider>>,
}

/// `[server]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    pub(super) hostname: Key<String>,
    pub(super) state_dir: Key<String>,
    pub(super) drain_timeout: Key<String>,
    pub(super) worker_threads: Key<i64>,
}

/// `[store]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Store {
    pub(super) backend: Key<String>,
    pub(super) usage_retention: Key<String>,
    pub(super) usage_events_max: Key<i64>,
}

/// `[secrets]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Secrets {
    pub(super) master_key: Key<Secret>,
    pub(super) master_key_file: Key<String>,
    pub(super) master_key_env: Key<String>,
}

/// `[admin]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) socket: Key<String>,
    pub(super) socket_mode: Key<String>,
    pub(super) listen: Key<OneOrMany>,
    pub(super) root_token: Key<Secret>,
    pub(super) root_token_file: Key<String>,
    pub(super) root_token_env: Key<String>,
}

/// `[metrics]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Metrics {
    pub(super) listen: Key<String>,
}

/// `[log]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Key<String>,
    pub(super) format: Key<String>,
}

/// `[limits]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) sessions_max: Key<i64>,
    pub(super) sessions_per_ip_max: Key<i64>,
    pub(super) sessions_per_account_max: Key<i64>,
    pub(super) pre_auth_timeout: Key<String>,
    pub(super) login_timeout: Key<String>,
    pub(super) upstream_connect_timeout: Key<String>,
    pub(super) token_request_timeout: Key<String>,
    pub(super) idle_timeout: Key<String>,
    pub(super) command_line_bytes_max: Key<i64>,
    pub(super) literal_bytes_max: Key<i64>,
    pub(super) bad_commands_max: Key<i64>,
    pub(super) pre_auth_commands_max: Key<i64>,
    pub(super) auth_failures_max: Key<i64>,
    pub(super) auth_failure_delay: Key<String>,
}

/// `[web]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Web {
    pub(super) listen: Key<String>,
    pub(super) public_url: Key<String>,
    pub(super) certificate: Key<String>,
    pub(super) trusted_proxies: Key<OneOrMany>,
}

/// `[hooks]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Hooks {
    pub(super) command: Key<Vec<String>>,
    pub(super) env: Key<BTreeMap<String, Value>>,
    pub(super) webhook_url: Key<String>,
    pub(super) webhook_secret: Key<Secret>,
    pub(super) webhook_secret_file: Key<String>,
    pub(super) webhook_secret_env: Key<String>,
}

/// One `[[listener]]`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) protocol: Key<String>,
    pub(super) address: Key<OneOrMany>,
    pub(super) tls: Key<String>,
    pub(super) certificate: Key<OneOrMany>,
    pub(super) plaintext_auth: Key<String>,
    pub(super) proxy_protocol_from: Key<OneOrMany>,
    pub(super) provider: Key<String>,
}

/// One `[certificate.*]`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Certificate {
    pub(super) cert_file: Key<String>,
    pub(super) key_file: Key<String>,
    pub(super) self_signed: Key<bool>,
}

/// One `[provider.*]`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) grant: Key<String>,
    pub(super) issuer: Key<String>,
    pub(super) authorize_url: Key<String>,
    pub(super) token_url: Key<String>,
    pub(super) device_url: Key<String>,
    pub(super) revocation_url: Key<String>,
    pub(super) client_id: Key<String>,
    pub(super) client_secret: Key<Secret>,
    pub(super) client_secret_file: Key<String>,
    pub(super) client_secret_env: Key<String>,
    pub(super) client_auth: Key<String>,
    pub(super) client_certificate_file: Key<String>,
    pub(super) client_key_file: Key<String>,
    pub(super) service_account_file: Key<String>,
    pub(super) token_command: Key<Vec<String>>,
    pub(super) env: Key<BTreeMap<String, Value>>,
    pub(super) token_url_external: Key<String>,
    pub(super) keep_alive: Key<String>,
    pub(super) tenant: Key<String>,
    pub(super) cloud: Key<String>,
    pub(super) scopes: Key<Vec<String>>,
    pub(super) sasl: Key<Vec<String>>,
    pub(super) imap: Key<Endpoint>,
    pub(super) smtp: Key<Endpoint>,
    pub(super) pop3: Key<Endpoint>,
    pub(super) ca_file: Key<String>,
    pub(super) allow_insecure: Key<bool>,
    pub(super) forward_client_address: Key<bool>,
    pub(super) sessions_per_account_max: Key<i64>,
    pub(super) submissions_max: Key<i64>,
    pub(super) domains: Key<Vec<String>>,
}

/// An endpoint of a provider: `imap`, `smtp` or `pop3`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Endpoint {
    pub(super) host: Key<String>,
    pub(super) port: Key<i64>,
    pub(super) tls: Key<String>,
    pub(super) allow_insecure: Key<bool>,
}

/// A string, or a list of strings.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    /// The strings that are not empty: an empty one means, as everywhere in the file, that nothing is given.
    pub(super) fn given(&self) -> impl Iterator<Item = &str> {
        let all = match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many.as_slice(),
        };
        all.iter().map(String::as_str).filter(|text| !text.is_empty())
    }
}

/// The value of an environment variable: read as a secret, and shown only where its name tells that it is none.
#[derive(Debug)]
pub(super) enum Value {
    Hidden(Secret),
    Shown(String),
}

impl Value {
    /// That there is a value, and nothing of it.
    pub(super) fn redacted() -> Self {
        Self::Hidden(Secret(REDACTED.to_owned().into()))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::deserialize(deserializer).map(Self::Hidden)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Hidden(secret) => secret.serialize(serializer),
            Self::Shown(text) => serializer.serialize_str(text),
        }
    }
}

/// A secret written in the file itself. It never prints, and a value of the wrong type is not repeated in the error.
pub(super) struct Secret(pub(super) SecretString);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(text.into())),
            _ => Err(D::Error::custom("expected a string")),
        }
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}
