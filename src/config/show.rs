//! The configuration in effect, written as a file again: every key with its value, defaults and presets filled in.
//!
//! What it writes reads back as the same configuration, except for secrets, which stand as `[redacted]`, and so do the queries
//! of URLs, in which some put secrets. Presets that nobody wrote a table for are left out: they are there in any case.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;
use url::Url;

use super::raw::{self, Key, OneOrMany, REDACTED, Secret};
use super::{
    Certificate, ClientAuth, Config, Endpoint, External, GrantType, Limits, Listener, ListenerTls, LogFormat, OAuthApp,
    PlaintextAuth, Provider, UpstreamTls, Web,
};
use crate::host::is_loopback_host;
use crate::proto::Mechanism;
use crate::secret::SecretString;

impl Config {
    /// The configuration in effect, in TOML, without secrets.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.to_file()).expect("a table of strings, numbers and lists is TOML")
    }

    /// The configuration in effect, in JSON, without secrets.
    pub fn to_json(&self) -> String {
        // By way of TOML, which has no null for a key that is absent.
        serde_json::to_string_pretty(&self.to_table()).expect("a table with string keys is JSON")
    }

    /// The configuration in effect as a table, without secrets.
    pub fn to_table(&self) -> toml::Table {
        toml::Table::try_from(self.to_file()).expect("a file is a table with string keys")
    }

    fn to_file(&self) -> raw::File {
        raw::File {
            server: raw::Server {
                hostname: string(&self.server.hostname),
                state_dir: path(&self.server.state_dir),
                drain_timeout: duration(self.server.drain_timeout),
                worker_threads: count(self.server.worker_threads.unwrap_or(0)),
            },
            store: raw::Store {
                backend: string("embedded"),
                usage_retention: duration(self.store.usage_retention),
                usage_events_max: given(i64::try_from(self.store.usage_events_max).unwrap_or(i64::MAX)),
            },
            secrets: raw::Secrets {
                master_key: secret(self.secrets.master_key.as_ref()),
                master_key_file: self.secrets.master_key_file.as_deref().and_then(path),
                master_key_env: None,
            },
            admin: raw::Admin {
                socket: path(&self.admin.socket),
                socket_mode: string(&format!("{:04o}", self.admin.socket_mode)),
                listen: addresses(&self.admin.listen),
                root_token: secret(self.admin.root_token.as_ref()),
                root_token_file: None,
                root_token_env: None,
            },
            metrics: raw::Metrics {
                listen: string(
                    &self
                        .metrics_listen
                        .map(|address| address.to_string())
                        .unwrap_or_default(),
                ),
            },
            log: raw::Log {
                level: string(&self.log.level),
                format: string(log_format(self.log.format)),
            },
            limits: limits(&self.limits),
            web: web(&self.web),
            hooks: raw::Hooks {
                command: given(self.hooks.command.clone()),
                env: self.hooks.env.to_raw().and_then(given),
                webhook_url: webhook(self.hooks.webhook_url.as_ref()),
                webhook_secret: secret(self.hooks.webhook_secret.as_ref()),
                webhook_secret_file: None,
                webhook_secret_env: None,
            },
            listener: self.listeners.iter().map(|one| spanned(listener(one))).collect(),
            certificate: self
                .certificates
                .iter()
                .map(|(name, one)| (name.clone(), spanned(certificate(one))))
                .collect(),
            provider: self
                .providers
                .iter()
                .filter(|(_, one)| !one.is_always_there())
                .map(|(name, one)| (name.clone(), spanned(provider(one))))
                .collect(),
        }
    }
}

fn limits(limits: &Limits) -> raw::Limits {
    raw::Limits {
        sessions_max: count(limits.sessions_max),
        sessions_per_ip_max: count(limits.sessions_per_ip_max),
        sessions_per_account_max: count(limits.sessions_per_account_max),
        pre_auth_timeout: duration(limits.pre_auth_timeout),
        login_timeout: duration(limits.login_timeout),
        upstream_connect_timeout: duration(limits.upstream_connect_timeout),
        token_request_timeout: duration(limits.token_request_timeout),
        idle_timeout: duration(limits.idle_timeout),
        command_line_bytes_max: count(limits.command_line_bytes_max),
        literal_bytes_max: count(limits.literal_bytes_max),
        bad_commands_max: given(limits.bad_commands_max.into()),
        pre_auth_commands_max: given(limits.pre_auth_commands_max.into()),
        auth_failures_max: given(limits.auth_failures_max.into()),
        auth_failure_delay: duration(limits.auth_failure_delay),
    }
}

fn web(web: &Web) -> raw::Web {
    raw::Web {
        listen: string(&web.listen.map(|address| address.to_string()).unwrap_or_default()),
        public_url: url(web.public_url.as_ref()),
        certificate: string(web.certificate.as_deref().unwrap_or_default()),
        trusted_proxies: ranges(&web.trusted_proxies),
    }
}

fn listener(listener: &Listener) -> raw::Listener {
    let tls = match listener.tls {
        ListenerTls::Off => "off",
        ListenerTls::Starttls => "starttls",
        ListenerTls::Implicit => "implicit",
    };
    let plaintext_auth = match listener.plaintext_auth {
        PlaintextAuth::Never => "never",
        PlaintextAuth::Loopback => "loopback",
        PlaintextAuth::Always => "always",
    };
    raw::Listener {
        protocol: string(listener.protocol.name()),
        address: addresses(&listener.addresses),
        tls: string(tls),
        certificate: given(OneOrMany::Many(listener.certificates.clone())),
        plaintext_auth: string(plaintext_auth),
        proxy_protocol_from: ranges(&listener.proxy_protocol_from),
        provider: listener.provider.as_deref().and_then(string),
    }
}

fn certificate(certificate: &Certificate) -> raw::Certificate {
    match certificate {
        Certificate::Files { cert_file, key_file } => raw::Certificate {
            cert_file: path(cert_file),
            key_file: path(key_file),
            self_signed: None,
        },
        Certificate::SelfSigned => raw::Certificate {
            cert_file: None,
            key_file: None,
            self_signed: given(true),
        },
    }
}

fn provider(provider: &Provider) -> raw::Provider {
    let mechanisms = provider
        .sasl
        .iter()
        .map(|mechanism| mechanism_name(*mechanism).to_owned())
        .collect();
    let shown = raw::Provider {
        sasl: given(mechanisms),
        imap: provider.imap.as_ref().and_then(endpoint),
        smtp: provider.smtp.as_ref().and_then(endpoint),
        pop3: provider.pop3.as_ref().and_then(endpoint),
        ca_file: provider.ca_file.as_deref().and_then(path),
        forward_client_address: given(provider.forward_client_address),
        sessions_per_account_max: provider.sessions_per_account_max.and_then(count),
        submissions_max: count(provider.submissions_max.unwrap_or(0)),
        domains: given(provider.domains.clone()),
        ..raw::Provider::default()
    };
    match &provider.oauth {
        Some(app) => with_oauth(shown, app),
        None => shown,
    }
}

fn with_oauth(provider: raw::Provider, app: &OAuthApp) -> raw::Provider {
    let client_auth = match app.client_auth {
        ClientAuth::Post => "post",
        ClientAuth::Basic => "basic",
        ClientAuth::None => "none",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
    };
    let provider = with_grant(provider, &app.grant);
    let key = app.client_key.as_ref();
    raw::Provider {
        issuer: url(app.issuer.as_ref()),
        authorize_url: url(app.authorize_url.as_ref()),
        token_url: url(app.token_url.as_ref()),
        device_url: url(app.device_url.as_ref()),
        revocation_url: url(app.revocation_url.as_ref()),
        client_id: string(&app.client_id),
        client_secret: secret(app.client_secret.as_ref()),
        client_auth: string(client_auth),
        client_key_file: key.and_then(|key| path(&key.key_file)),
        client_certificate_file: key.and_then(|key| key.certificate_file.as_deref()).and_then(path),
        keep_alive: duration(app.keep_alive),
        env: app.env.to_raw().and_then(given),
        scopes: given(app.scopes.clone()),
        allow_insecure: given(app.allow_insecure),
        ..provider
    }
}

fn with_grant(provider: raw::Provider, grant: &GrantType) -> raw::Provider {
    let provider = raw::Provider {
        grant: string(grant.name()),
        ..provider
    };
    match grant {
        GrantType::Code | GrantType::Device | GrantType::ClientCredentials | GrantType::Password => provider,
        GrantType::ServiceAccount { key_file } => raw::Provider {
            service_account_file: path(key_file),
            ..provider
        },
        GrantType::External(External::Command(command)) => raw::Provider {
            token_command: given(command.clone()),
            ..provider
        },
        GrantType::External(External::Url(source)) => raw::Provider {
            token_url_external: url(Some(source)),
            ..provider
        },
    }
}

fn endpoint(endpoint: &Endpoint) -> Key<raw::Endpoint> {
    let tls = match endpoint.tls {
        UpstreamTls::Implicit => "implicit",
        UpstreamTls::Starttls => "starttls",
        UpstreamTls::Off => "off",
    };
    let insecure = endpoint.tls == UpstreamTls::Off && !is_loopback_host(&endpoint.host);
    given(raw::Endpoint {
        host: string(&endpoint.host),
        port: given(endpoint.port.into()),
        tls: string(tls),
        allow_insecure: insecure.then_some(true).and_then(given),
    })
}

const fn mechanism_name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::Login => "LOGIN",
        Mechanism::OAuthBearer => "OAUTHBEARER",
        Mechanism::XOAuth2 => "XOAUTH2",
    }
}

const fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

/// A value that has no place in any file.
fn spanned<T>(value: T) -> Spanned<T> {
    Spanned::new(0..0, value)
}

fn given<T>(value: T) -> Key<T> {
    Some(spanned(value))
}

fn string(text: &str) -> Key<String> {
    given(text.to_owned())
}

fn path(path: &Path) -> Key<String> {
    given(path.display().to_string())
}

fn url(url: Option<&Url>) -> Key<String> {
    let mut shown = url?.clone();
    if shown.query().is_some() {
        shown.set_query(Some(REDACTED));
    }
    string(shown.as_str())
}

/// A webhook's URL, whose path is often all that protects it.
fn webhook(hook: Option<&Url>) -> Key<String> {
    let mut shown = hook?.clone();
    if shown.path() != "/" {
        shown.set_path(REDACTED);
    }
    url(Some(&shown))
}

fn count(number: usize) -> Key<i64> {
    given(i64::try_from(number).unwrap_or(i64::MAX))
}

fn duration(duration: Duration) -> Key<String> {
    given(humantime::format_duration(duration).to_string())
}

fn addresses(addresses: &[SocketAddr]) -> Key<OneOrMany> {
    given(OneOrMany::Many(addresses.iter().map(SocketAddr::to_string).collect()))
}

fn ranges(ranges: &[IpNet]) -> Key<OneOrMany> {
    given(OneOrMany::Many(ranges.iter().map(IpNet::to_string).collect()))
}

/// That there is a secret, and nothing of it.
fn secret(secret: Option<&SecretString>) -> Key<Secret> {
    secret.and_then(|_| given(Secret(REDACTED.to_owned().into())))
}
