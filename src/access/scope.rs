//! What an access token may be used for.

use std::fmt;
use std::str::FromStr;

use crate::proto::Protocol;

/// A scope of INTERFACE §4. Narrowed ones, such as `imap-proxy:read`, are not granted yet and refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// IMAP.
    ImapProxy,
    /// Submission.
    Smtp,
    /// POP3.
    Pop3,
    /// The admin API, for the token's own account.
    Api,
    /// `GET /metrics`.
    Metrics,
    /// Everything in the admin API; for root tokens, which have no account and cannot log in to mail.
    All,
}

/// Why a token cannot have the scopes that were asked for. The text is for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No such scope.
    #[error("unknown scope '{0}'; allowed are imap-proxy, smtp, pop3, api and metrics")]
    Unknown(String),
    /// A scope narrowed by a colon.
    #[error(
        "'{0}' is a narrowed scope, which this version does not grant; allowed are imap-proxy, smtp, pop3, api and metrics"
    )]
    Narrowed(String),
}

impl Scope {
    /// The scope that a login over `protocol` needs.
    pub const fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Imap => Self::ImapProxy,
            Protocol::Smtp => Self::Smtp,
            Protocol::Pop3 => Self::Pop3,
        }
    }

    /// The protocol whose logins need it; `None` for those of the admin API.
    pub const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::ImapProxy => Some(Protocol::Imap),
            Self::Smtp => Some(Protocol::Smtp),
            Self::Pop3 => Some(Protocol::Pop3),
            Self::Api | Self::Metrics | Self::All => None,
        }
    }

    /// Its name in the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ImapProxy => "imap-proxy",
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Api => "api",
            Self::Metrics => "metrics",
            Self::All => "*",
        }
    }

    /// Whether one of `granted`, as a token's record holds them, is this scope or stands for it. A name that this version
    /// does not know grants nothing.
    pub fn is_granted_by(self, granted: &[String]) -> bool {
        granted
            .iter()
            .any(|name| name == self.name() || name == Self::All.name())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        ALL.into_iter().find(|scope| scope.name() == text).ok_or_else(|| {
            let base = text.split_once(':').map(|(base, _)| base);
            if base.is_some_and(|base| ALL.iter().any(|scope| scope.name() == base)) {
                ScopeError::Narrowed(text.to_owned())
            } else {
                ScopeError::Unknown(text.to_owned())
            }
        })
    }
}

const ALL: [Scope; 6] = [
    Scope::ImapProxy,
    Scope::Smtp,
    Scope::Pop3,
    Scope::Api,
    Scope::Metrics,
    Scope::All,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_read_by_its_name() {
        for scope in ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert!(scope.protocol().is_none_or(|protocol| Scope::of(protocol) == scope));
        }
    }

    #[test]
    fn a_scope_is_granted_by_itself_and_by_the_one_for_everything() {
        for (granted, expected) in [
            ("api", true),
            ("*", true),
            ("metrics", false),
            ("API", false),
            ("api:read", false),
        ] {
            assert_eq!(Scope::Api.is_granted_by(&[granted.to_owned()]), expected, "{granted}");
        }
    }

    #[test]
    fn a_refusal_lists_what_is_allowed() {
        for (text, expected) in [
            ("imap", ScopeError::Unknown("imap".to_owned())),
            ("IMAP-PROXY", ScopeError::Unknown("IMAP-PROXY".to_owned())),
            ("smtp:send", ScopeError::Narrowed("smtp:send".to_owned())),
        ] {
            let error = text.parse::<Scope>().unwrap_err();
            assert_eq!(error, expected);
            let error = error.to_string();
            assert!(
                error.contains(text) && error.contains("imap-proxy, smtp, pop3, api and metrics"),
                "{error}"
            );
        }
    }
}
