//! What can go wrong with a session, whom to blame for it, and whether a retry helps.
//!
//! Everything that refuses or ends a login is a [`Fault`]. Its [`FaultKind`] is for machines: the reply to the client, the
//! metric label, the log level and the decision to retry are total functions of the kind, each in one place (the reply in
//! the `reply` module of each protocol). Its detail is for the operator's log and never reaches a client, and nothing is
//! decided by it: what else a decision needs is in fields of its own, first of all the upstream's own words.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a login or a session was refused or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", in_full(kind, detail))]
pub struct Fault {
    /// What happened, for machines.
    pub kind: FaultKind,
    /// What happened, for the operator: lower case, without secrets. May name internal addresses.
    pub detail: String,
    /// What the upstream said, where it is its words that a login fails for.
    pub said: Option<Box<UpstreamWords>>,
    /// What to do about it, where whoever found the fault knows: a sentence without its full stop.
    pub remedy: Option<Cow<'static, str>>,
}

/// What an upstream said as a login failed on it: printable ASCII, bounded in length, free of what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamWords {
    /// How far the login had come.
    pub step: LoginStep,
    /// The code in the protocol's form (IMAP: `LIMIT`, SMTP: `454 4.7.0`), if it gave one, known or not.
    pub code: Option<String>,
    /// The human-readable text.
    pub text: String,
    /// For how long it asks to be left alone.
    pub backoff: Option<Duration>,
    /// What it said before for the mailbox's owner: status responses of IMAP without their `* `.
    pub alerts: Vec<String>,
}

/// How far a login had come on its upstream's leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginStep {
    /// It was to be greeted.
    Greeting,
    /// It had asked what the upstream can do.
    Capabilities,
    /// It had asked for TLS.
    StartTls,
    /// It was to choose how to present such a credential, and found nothing fit among what is offered.
    Mechanism(CredentialForm),
    /// It had presented the credential, or begun to.
    Login,
}

/// Of what form a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialForm {
    /// An OAuth access token.
    Token,
    /// A password.
    Password,
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
    /// More commands that bring no login nearer than a connection may send.
    TooManyCommands,
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
            code.starts_with('5')
                || code.starts_with("WEBALERT")
                || matches!(code, "CONTACTADMIN" | "NOPERM" | "SYS/PERM")
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
        Self::with_detail(kind, "")
    }

    /// A fault with a detail for the operator's log. `detail` must hold no secret.
    pub fn with_detail(kind: FaultKind, detail: impl fmt::Display) -> Self {
        Self {
            kind,
            detail: detail.to_string(),
            said: None,
            remedy: None,
        }
    }

    /// Temporary trouble, with its detail.
    pub fn unavailable(detail: impl fmt::Display) -> Self {
        Self::with_detail(FaultKind::Unavailable, detail)
    }

    /// The same, for these words of the upstream's.
    #[must_use]
    pub fn for_words(self, words: UpstreamWords) -> Self {
        Self {
            said: Some(Box::new(words)),
            ..self
        }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Cow<'static, str>>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// The same, with what the upstream said before for the mailbox's owner.
    #[must_use]
    pub fn after_alerts(mut self, alerts: Vec<String>) -> Self {
        if !alerts.is_empty() {
            let nothing = || Box::new(UpstreamWords::new(LoginStep::Login, None, String::new()));
            self.said.get_or_insert_with(nothing).alerts = alerts;
        }
        self
    }

    /// What the upstream said before for the mailbox's owner.
    pub fn alerts(&self) -> &[String] {
        self.said.as_ref().map_or(&[], |said| said.alerts.as_slice())
    }

    /// For how long the upstream asks to be left alone.
    pub fn backoff(&self) -> Option<Duration> {
        self.said.as_ref()?.backoff
    }
}

impl UpstreamWords {
    /// Cleaned words, said at this step.
    pub fn new(step: LoginStep, code: Option<String>, text: String) -> Self {
        Self {
            step,
            backoff: suggested_backoff(&text),
            code,
            text,
            alerts: Vec::new(),
        }
    }
}

/// The time that an upstream's words ask for: `Suggested Backoff Time: N` (Exchange Online), in milliseconds, which some leave
/// unsaid.
fn suggested_backoff(words: &str) -> Option<Duration> {
    let words = words.to_ascii_lowercase();
    let (_, rest) = words.split_once("suggested backoff time:")?;
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    match digits.parse() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) if digits.is_empty() => None,
        Err(_) => Some(Duration::MAX),
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
            | Self::TooManyCommands
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
            Self::TooManyCommands => "too_many_commands",
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

/// The kind and what is known beyond it. What an upstream said is often a sentence of its own, so that nothing may go on after it.
fn in_full(kind: &FaultKind, detail: &str) -> String {
    match kind {
        kind if detail.is_empty() => kind.to_string(),
        FaultKind::UpstreamRefused(_) => format!("{kind} ({detail})"),
        kind => format!("{kind}: {detail}"),
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
            (Some("WEBALERT"), false, false),
            (Some("WEBALERT https://x.example"), false, false),
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

    #[test]
    fn the_suggested_time_is_read_from_the_upstreams_words() {
        for (words, millis) in [
            (
                "Request is throttled. Suggested Backoff Time: 92415 milliseconds",
                Some(92_415),
            ),
            ("NO Request is throttled. Suggested Backoff Time: 256625", Some(256_625)),
            ("suggested backoff time:7ms", Some(7)),
            ("Request is throttled. Suggested Backoff Time: soon", None),
            ("Request is throttled.", None),
            ("Too many simultaneous connections. (Failure)", None),
        ] {
            let said = UpstreamWords::new(LoginStep::Login, None, words.to_owned());
            assert_eq!(said.backoff, millis.map(Duration::from_millis), "{words}");
            let fault = Fault::unavailable("x").for_words(said);
            assert_eq!(fault.backoff(), millis.map(Duration::from_millis));
        }
        let endless = "Suggested Backoff Time: 99999999999999999999999 milliseconds";
        assert_eq!(suggested_backoff(endless), Some(Duration::MAX));
    }

    #[test]
    fn what_was_said_before_goes_with_whatever_the_login_fails_for() {
        let alerts = vec!["OK [ALERT] Closing at noon".to_owned()];
        let closed = Fault::unavailable("upstream closed").after_alerts(alerts.clone());
        assert_eq!(closed.alerts(), alerts);
        let said = UpstreamWords::new(LoginStep::Greeting, Some("LIMIT".to_owned()), "no".to_owned());
        let refused = Fault::unavailable("no").for_words(said).after_alerts(alerts.clone());
        let said = refused.said.as_ref().unwrap();
        assert_eq!((said.step, said.text.as_str()), (LoginStep::Greeting, "no"));
        assert_eq!(refused.alerts(), alerts);
        assert_eq!(
            Fault::unavailable("x").after_alerts(Vec::new()),
            Fault::unavailable("x")
        );
    }
}
