//! What is told of an account on the command line, and the request that it becomes.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::admin::types::AccountView;
use crate::cli::Failure;
use crate::cli::output::clean;
use crate::cli::value::secret;
use crate::proto::Protocol;
use crate::secret::Maker;

/// What is told of an account. Secrets come from files, never from arguments.
#[derive(Debug, Default, clap::Args)]
pub struct Fields {
    /// Provider, a name of the configuration; without it, the address tells
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// E-mail address, the other name to log in with
    #[arg(long)]
    pub email: Option<String>,
    /// Label
    #[arg(long)]
    pub name: Option<String>,
    /// Login name at the provider, where it is not the e-mail address (shared mailboxes)
    #[arg(long)]
    pub user: Option<String>,
    /// File with the OAuth2 refresh token; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
    pub refresh_token_file: Option<PathBuf>,
    /// File with the password; - for standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Account whose grant opens this mailbox, too (shared mailboxes)
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["refresh_token_file", "password_file"])]
    pub shares_grant_of: Option<String>,
    /// Another IMAP endpoint than the provider's
    #[arg(long, value_name = "HOST:PORT[/implicit|starttls|off]")]
    pub imap: Option<String>,
    /// Another SMTP endpoint than the provider's
    #[arg(long, value_name = "HOST:PORT[/implicit|starttls|off]")]
    pub smtp: Option<String>,
    /// Another POP3 endpoint than the provider's
    #[arg(long, value_name = "HOST:PORT[/implicit|starttls|off]")]
    pub pop3: Option<String>,
    /// Login name for IMAP alone, where it differs
    #[arg(long, value_name = "USER")]
    pub imap_user: Option<String>,
    /// Login name for SMTP alone, where it differs (who sends for a shared mailbox)
    #[arg(long, value_name = "USER")]
    pub smtp_user: Option<String>,
    /// Login name for POP3 alone, where it differs
    #[arg(long, value_name = "USER")]
    pub pop3_user: Option<String>,
}

impl Fields {
    /// The JSON of a request, without the fields that were not given.
    pub(super) fn body(&self) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        for (name, value) in [
            ("provider", &self.provider),
            ("email", &self.email),
            ("name", &self.name),
            ("user", &self.user),
        ] {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.as_str().into());
            }
        }
        if let Some(path) = &self.refresh_token_file {
            let token = secret(path, "refresh token", Maker::Machine)?;
            body.insert("oauth2".to_owned(), json!({"refreshToken": token}));
        }
        if let Some(owner) = &self.shares_grant_of {
            body.insert("oauth2".to_owned(), json!({"sharesGrantOf": owner}));
        }
        if let Some(path) = &self.password_file {
            body.insert("password".to_owned(), secret(path, "password", Maker::Person)?.into());
        }
        for (protocol, endpoint, user) in self.overrides() {
            let mut own = match endpoint {
                Some(endpoint) => Server::parse(protocol, endpoint)?.to_json(),
                None => Map::new(),
            };
            if let Some(user) = user {
                own.insert("user".to_owned(), user.into());
            }
            if !own.is_empty() {
                body.insert(protocol.name().to_owned(), own.into());
            }
        }
        Ok(body)
    }

    /// What is given for one protocol alone: an endpoint, a login name, or both.
    pub(super) fn overrides(&self) -> [(Protocol, Option<&str>, Option<&str>); 3] {
        [
            (Protocol::Imap, self.imap.as_deref(), self.imap_user.as_deref()),
            (Protocol::Smtp, self.smtp.as_deref(), self.smtp_user.as_deref()),
            (Protocol::Pop3, self.pop3.as_deref(), self.pop3_user.as_deref()),
        ]
    }

    /// Whether any server is named.
    pub(super) fn names_a_server(&self) -> bool {
        self.overrides().into_iter().any(|(_, endpoint, _)| endpoint.is_some())
    }

    /// Whether only a part of what an account may have for one protocol is given, so that the rest is to be kept.
    pub(super) fn is_partial(&self) -> bool {
        let mut overrides = self.overrides().into_iter();
        overrides.any(|(_, endpoint, user)| endpoint.is_some() != user.is_some())
    }

    /// How the servers are spoken to of which only the ports told that, a line for each.
    pub(super) fn choices(&self) -> Vec<String> {
        let named = self.overrides().into_iter();
        let servers = named.filter_map(|(protocol, text, _)| Some((protocol, Server::parse(protocol, text?).ok()?)));
        let chosen = servers.filter(|(_, server)| server.is_chosen);
        let told = chosen.map(|(protocol, Server { host, port, tls, .. })| {
            let (how, other) = match tls {
                "starttls" => ("STARTTLS", "implicit"),
                _ => ("TLS from the first byte", "starttls"),
            };
            let host = clean(host);
            format!("{host}:{port} is spoken to with {how}; if that is wrong: --{protocol} {host}:{port}/{other}")
        });
        told.collect()
    }
}

/// Keeps what the account has for a protocol and `body` does not say: a change replaces it as a whole.
pub(super) fn keep_overrides(body: &mut Map<String, Value>, account: &AccountView) {
    for (protocol, own) in [
        (Protocol::Imap, &account.imap),
        (Protocol::Smtp, &account.smtp),
        (Protocol::Pop3, &account.pop3),
    ] {
        let (Some(Value::Object(given)), Some(Value::Object(kept))) =
            (body.get_mut(protocol.name()), own.as_ref().map(|own| json!(own)))
        else {
            continue;
        };
        for (name, value) in kept {
            given.entry(name).or_insert(value);
        }
    }
}

/// A server as it is given on the command line: `HOST:PORT[/TLS]`.
#[derive(Debug, PartialEq, Eq)]
struct Server<'a> {
    host: &'a str,
    port: u16,
    tls: &'a str,
    /// Whether the TLS was told by the port alone.
    is_chosen: bool,
}

impl<'a> Server<'a> {
    fn parse(protocol: Protocol, text: &'a str) -> Result<Self, Failure> {
        let (address, tls) = match text.split_once('/') {
            Some((address, tls)) => (address, Some(tls)),
            None => (text, None),
        };
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
            .ok_or_else(|| {
                Failure::usage(format!(
                    "--{protocol} '{text}' is not HOST:PORT[/implicit|starttls|off]"
                ))
            })?;
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']'),
            port,
            tls: tls.unwrap_or_else(|| usual_tls(protocol, port)),
            is_chosen: tls.is_none(),
        })
    }

    fn to_json(&self) -> Map<String, Value> {
        let fields = [
            ("host", self.host.into()),
            ("port", self.port.into()),
            ("tls", self.tls.into()),
        ];
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }
}

/// What is spoken at a port that the protocol is registered for (RFC 8314 §7); TLS from the first byte at any other, as it
/// should be (§3).
fn usual_tls(protocol: Protocol, port: u16) -> &'static str {
    match (protocol, port) {
        (Protocol::Imap, 143) | (Protocol::Smtp, 25 | 587) | (Protocol::Pop3, 110) => "starttls",
        _ => "implicit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;

    #[test]
    fn a_shared_grant_stands_in_the_place_of_one() {
        let fields = Fields {
            shares_grant_of: Some("alice@example.com".to_owned()),
            ..Fields::default()
        };
        let body = Value::from(fields.body().unwrap());
        assert_eq!(body, json!({"oauth2": {"sharesGrantOf": "alice@example.com"}}));
    }

    #[test]
    fn an_endpoint_is_a_host_a_port_and_perhaps_its_tls_which_else_the_port_tells() {
        use Protocol::{Imap, Pop3, Smtp};
        for (protocol, text, host, port, tls) in [
            (Imap, "imap.example.com:993", "imap.example.com", 993, "implicit"),
            (Imap, "imap.example.com:143", "imap.example.com", 143, "starttls"),
            (
                Imap,
                "imap.example.com:143/implicit",
                "imap.example.com",
                143,
                "implicit",
            ),
            (Imap, "127.0.0.1:1143/off", "127.0.0.1", 1143, "off"),
            (Imap, "[::1]:1143/starttls", "::1", 1143, "starttls"),
            (Imap, "[::1]:1143", "::1", 1143, "implicit"),
            (Smtp, "smtp.example.com:465", "smtp.example.com", 465, "implicit"),
            (Smtp, "smtp.example.com:587", "smtp.example.com", 587, "starttls"),
            (Smtp, "smtp.example.com:25", "smtp.example.com", 25, "starttls"),
            (Pop3, "pop.example.com:995", "pop.example.com", 995, "implicit"),
            (Pop3, "pop.example.com:110", "pop.example.com", 110, "starttls"),
            (Pop3, "pop.example.com:143", "pop.example.com", 143, "implicit"),
        ] {
            assert_eq!(
                Value::from(Server::parse(protocol, text).unwrap().to_json()),
                json!({"host": host, "port": port, "tls": tls})
            );
        }
        for text in ["imap.example.com", "imap.example.com:70000", ""] {
            let failure = Server::parse(Smtp, text).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{text}");
            assert!(failure.message.starts_with("--smtp '"), "{}", failure.message);
        }
    }

    #[test]
    fn what_only_the_port_told_is_said() {
        let fields = Fields {
            imap: Some("imap.example.com:143".to_owned()),
            smtp: Some("smtp.example.com:465".to_owned()),
            pop3: Some("pop.example.com:995/implicit".to_owned()),
            ..Fields::default()
        };
        assert_eq!(
            fields.choices(),
            [
                "imap.example.com:143 is spoken to with STARTTLS; if that is wrong: --imap imap.example.com:143/implicit",
                "smtp.example.com:465 is spoken to with TLS from the first byte; if that is wrong: \
                 --smtp smtp.example.com:465/starttls",
            ]
        );
    }

    #[test]
    fn a_login_name_for_one_protocol_needs_no_endpoint() {
        let fields = Fields {
            smtp_user: Some("delegate@example.com".to_owned()),
            pop3: Some("pop.example.com:995".to_owned()),
            pop3_user: Some("other".to_owned()),
            ..Fields::default()
        };
        assert!(fields.is_partial());
        assert_eq!(
            Value::from(fields.body().unwrap()),
            json!({
                "smtp": {"user": "delegate@example.com"},
                "pop3": {"host": "pop.example.com", "port": 995, "tls": "implicit", "user": "other"},
            })
        );
        let whole = Fields {
            smtp: fields.pop3.clone(),
            ..fields
        };
        assert!(!whole.is_partial());
    }

    #[test]
    fn what_a_change_does_not_say_of_a_protocol_is_kept() {
        let account: AccountView = serde_json::from_value(json!({
            "account": "shared", "provider": "example", "state": "active",
            "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
            "imap": {"user": "imap-name"},
            "smtp": {"host": "own.example.com", "port": 587, "tls": "starttls", "user": "old"},
        }))
        .unwrap();
        let mut body = Map::from_iter([
            ("smtp".to_owned(), json!({"user": "new"})),
            ("pop3".to_owned(), json!({"user": "name"})),
        ]);
        keep_overrides(&mut body, &account);
        assert_eq!(
            Value::from(body),
            json!({
                "smtp": {"host": "own.example.com", "port": 587, "tls": "starttls", "user": "new"},
                "pop3": {"user": "name"},
            })
        );
    }
}
