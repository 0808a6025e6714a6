//! What can go wrong with a session, whom to blame for it, and whether a retry helps.
//!
//! Everything that refuses or ends a login is a [`Fault`]. Its [`FaultKind`] is for machines: the reply to the client, the
//! metric label, the log level and the decision to retry are total functions of the kind, each in one place (the reply in
//! the `reply` module of each protocol). Its detail is for the operator's log and never reaches a client.

use std::fmt;

/// Why a login or a session was refused or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct Fault {
    /// What happened, for machines.
    pub kind: FaultKind,
    /// What happened, for the operator: lower case, without secrets. May name internal addresses.
    pub detail: String,
}

/// What happened, as far as a client, a metric or a retry has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// No such account, no such token, or what was given has not even the form of a token.
    UnknownCredentials,
    /// The token is another account's.
    ForeignToken,
    /// The token lacks the protocol's scope.
    ScopeMissing,
    /// The token may not be used from the client's address.
    AddressNotAllowed,
    /// The token's time is over.
    TokenExpired,
    /// A login in clear where that is not allowed.
    PlaintextRefused,
    /// The mailbox's grant is gone or its password was refused: a person must act.
    AuthorizationGone,
    /// The provider refuses the OAuth app itself.
    AppRefused,
    /// The account is disabled.
    AccountDisabled,
    /// The account's provider has no host for this protocol.
    ProtocolNotOffered,
    /// Trouble at the provider, in the network or in the store that may pass.
    Unavailable,
    /// The account has as many sessions as it may.
    AccountLimit,
    /// The proxy has as many sessions as it may, in all or for this address.
    ProxyLimit,
    /// The upstream refused a fresh credential.
    UpstreamRefused(UpstreamRefusal),
    /// A malformed or unknown command.
    Malformed,
    /// More malformed commands than a connection may send.
    TooManyBadCommands,
    /// More refused logins than a connection may cause.
    TooManyFailures,
    /// A command line over the limit.
    LineTooLong,
    /// A literal over the limit.
    LiteralTooLong,
    /// The client sent bytes in clear behind STARTTLS (CVE-2011-0411).
    StartTlsInjection,
    /// The client did not finish its login in time.
    PreAuthTimeout,
    /// The client went away before its login ended.
    ClientGone,
    /// A defect of ours.
    Internal,
}

/// An upstream's refusal in its own words, cleaned: printable ASCII, bounded in length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRefusal {
    /// The response code in the protocol's form (IMAP: `AUTHENTICATIONFAILED`, SMTP: `535 5.7.8`), if it gave one.
    pub code: Option<String>,
    /// The human-readable text.
    pub text: String,
    /// Whether the upstream blames the credential, rather than being unavailable, limited or throttled.
    pub blames_credential: bool,
}

impl UpstreamRefusal {
    /// Whether somebody must act, at the provider, before the same login can succeed: a policy, a mailbox that is switched
    /// off. By the code: of SMTP those of class 5 (RFC 5321 §4.2.1), of IMAP and POP3 those that say so (RFC 5530, RFC 3206).
    fn is_final(&self) -> bool {
        self.code.as_deref().is_some_and(|code| {
            code.starts_with('5') || matches!(code, "CONTACTADMIN" | "NOPERM" | "WEBALERT" | "SYS/PERM")
        })
    }
}

/// Whose doing a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The mail program or its user.
    Client,
    /// The mailbox's provider: its servers, its token endpoint, or the network towards them.
    Upstream,
    /// This proxy or its configuration.
    Proxy,
}

impl Fault {
    /// A fault with nothing to add for the operator.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            detail: String::new(),
        }
    }

    /// A fault with a detail for the operator's log. `detail` must hold no secret.
    pub fn with_detail(kind: FaultKind, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            detail: detail.to_string(),
        }
    }

    /// Temporary trouble, with its detail.
    pub fn unavailable(detail: impl fmt::Display) -> Self {
        Self::with_detail(FaultKind::Unavailable, detail)
    }
}

impl FaultKind {
    /// Whose doing it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownCredentials
            | Self::ForeignToken
            | Self::ScopeMissing
            | Self::AddressNotAllowed
            | Self::TokenExpired
            | Self::PlaintextRefused
            | Self::AccountLimit
            | Self::Malformed
            | Self::TooManyBadCommands
            | Self::TooManyFailures
            | Self::LineTooLong
            | Self::LiteralTooLong
            | Self::StartTlsInjection
            | Self::PreAuthTimeout
            | Self::ClientGone => Blame::Client,
            Self::AuthorizationGone | Self::AppRefused | Self::Unavailable | Self::UpstreamRefused(_) => {
                Blame::Upstream
            }
            Self::AccountDisabled | Self::ProtocolNotOffered | Self::ProxyLimit | Self::Internal => Blame::Proxy,
        }
    }

    /// The value of the metric label `outcome` and of a usage event's `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::UnknownCredentials => "unknown_credentials",
            Self::ForeignToken => "invalid_username",
            Self::ScopeMissing => "invalid_scope",
            Self::AddressNotAllowed => "address_not_allowed",
            Self::TokenExpired => "token_expired",
            Self::PlaintextRefused => "plaintext_refused",
            Self::AuthorizationGone => "needs_authorization",
            Self::AppRefused => "app_refused",
            Self::AccountDisabled => "account_disabled",
            Self::ProtocolNotOffered => "protocol_not_offered",
            Self::Unavailable => "unavailable",
            Self::AccountLimit => "account_limit",
            Self::ProxyLimit => "proxy_limit",
            Self::UpstreamRefused(_) => "upstream_refused",
            Self::Malformed => "malformed",
            Self::TooManyBadCommands => "too_many_bad_commands",
            Self::TooManyFailures => "too_many_failures",
            Self::LineTooLong => "line_too_long",
            Self::LiteralTooLong => "literal_too_long",
            Self::StartTlsInjection => "starttls_injection",
            Self::PreAuthTimeout => "pre_auth_timeout",
            Self::ClientGone => "client_gone",
            Self::Internal => "internal",
        }
    }

    /// Whether the same login may succeed later without anybody doing anything.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable | Self::AccountLimit | Self::ProxyLimit | Self::Internal => true,
            Self::UpstreamRefused(refusal) => !refusal.blames_credential && !refusal.is_final(),
            _ => false,
        }
    }

    /// The level at which a session's end with this fault is logged: what a client can cause at will stays quiet.
    pub fn log_level(&self) -> tracing::Level {
        match self {
            Self::ClientGone | Self::PreAuthTimeout => tracing::Level::DEBUG,
            Self::Internal => tracing::Level::ERROR,
            kind => match kind.blame() {
                Blame::Client => tracing::Level::INFO,
                Blame::Upstream | Blame::Proxy => tracing::Level::WARN,
            },
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpstreamRefused(refusal) => {
                write!(
                    f,
                    "upstream refused: [{}] {}",
                    refusal.code.as_deref().unwrap_or("-"),
                    refusal.text
                )
            }
            kind => f.write_str(&kind.label().replace('_', " ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_temporary_if_neither_the_credential_nor_a_setting_is_blamed() {
        for (code, blames_credential, expected) in [
            (None, false, true),
            (Some("LIMIT"), false, true),
            (Some("IN-USE"), false, true),
            (Some("454 4.7.0"), false, true),
            (Some("535 5.7.139"), false, false),
            (Some("CONTACTADMIN"), false, false),
            (Some("SYS/PERM"), false, false),
            (Some("LIMIT"), true, false),
            (None, true, false),
        ] {
            let refusal = UpstreamRefusal {
                code: code.map(str::to_owned),
                text: String::new(),
                blames_credential,
            };
            let kind = FaultKind::UpstreamRefused(refusal);
            assert_eq!(kind.is_temporary(), expected, "{code:?}");
        }
    }
}
