//! Why there is no access token: whose trouble it is, a code, a text, and how it came about.
//!
//! Who decides anything by a [`TokenError`] looks at its kind and its facts. Its message is for people: it is cleaned, cut and
//! redacted, so that nothing may be read out of it.

use std::time::Duration;

use super::vendor::Vendor;

/// Why there is no new access token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct TokenError {
    /// What another attempt would need.
    pub kind: TokenErrorKind,
    /// The provider's own code, or one of ours: `timeout`, `connect`, `network`, `bad_answer`, `http_503`, `key_file`,
    /// `token_command`, ….
    pub code: String,
    /// What it means, for an operator.
    pub message: String,
    /// How it came about.
    pub facts: TokenErrorFacts,
}

/// What another attempt would need in order to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// A person who authorizes the mailbox again.
    Grant,
    /// A change of the OAuth app's configuration or registration.
    App,
    /// Time.
    Temporary {
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// How an error came about, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenErrorFacts {
    /// What was being done.
    pub step: Option<Step>,
    /// Whose token endpoint it is.
    pub vendor: Vendor,
    /// Who answered.
    pub answered_by: AnsweredBy,
    /// The answer's HTTP status.
    pub status: Option<u16>,
    /// The vendor's own number for it, such as 70043 of AADSTS70043: of several the one that tells most.
    pub number: Option<u64>,
    /// Whether scopes were refused that the request named.
    pub is_about_scopes: bool,
}

/// What was being done when it failed. With it goes who can do anything about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A mailbox's owner was asked for consent in a browser (RFC 6749 §4.1.1).
    Consent,
    /// The code that the browser brought back was exchanged (§4.1.3).
    Exchange,
    /// A device code was asked for (RFC 8628 §3.1).
    DeviceCode,
    /// The endpoint was asked whether the owner has typed the code (RFC 8628 §3.4).
    DevicePoll,
    /// The owner's grant was refreshed (RFC 6749 §6).
    Refresh,
    /// The app asked for itself (§4.4).
    ClientCredentials,
    /// A service account spoke for the mailbox (RFC 7523 §2.1).
    ServiceAccount,
    /// The mailbox's own password was handed over (RFC 6749 §4.3).
    Password,
    /// Somebody else's program was asked.
    External,
    /// A grant was given back (RFC 7009).
    Revocation,
}

impl Step {
    /// Whether what is presented in it is an owner's, so that a new consent brings another.
    pub fn has_owner(self) -> bool {
        match self {
            Self::Consent | Self::Exchange | Self::DeviceCode | Self::DevicePoll | Self::Refresh | Self::Revocation => {
                true
            }
            Self::ClientCredentials | Self::ServiceAccount | Self::Password | Self::External => false,
        }
    }
}

/// Who answered a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnsweredBy {
    /// Nobody: nothing was sent, or nothing came back.
    #[default]
    Nobody,
    /// The provider, in the form of RFC 6749 §5.
    Provider,
    /// A server that has trouble: the provider's, or one before it.
    Gateway,
    /// Something else than a token endpoint.
    Obstacle(Obstacle),
}

/// What can stand where a token endpoint should be: a proxy, a web filter, the login page of a hotel, a wrong URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A proxy or a network that wants a login first (RFC 9110 §15.5.8, RFC 6585 §6).
    Login,
    /// The proxy of `HTTPS_PROXY`, which makes no tunnel to there.
    Proxy,
    /// A redirect, which is not followed: a secret would go elsewhere.
    Redirect,
    /// A page for people.
    Page,
    /// A refusal that is not an OAuth endpoint's.
    Refusal,
    /// A server that has nothing at this URL, or takes no such request there.
    Nothing,
}

impl TokenError {
    /// An error of which nothing else is known.
    pub fn new(kind: TokenErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            facts: TokenErrorFacts::default(),
        }
    }

    /// Trouble that may pass, in our own words.
    pub fn temporary(code: &str, message: impl Into<String>) -> Self {
        Self::new(TokenErrorKind::Temporary { retry_after: None }, code, message)
    }

    /// Trouble with the app's configuration, in our own words.
    pub fn app(code: &str, message: impl Into<String>) -> Self {
        Self::new(TokenErrorKind::App, code, message)
    }

    /// The same, of a step that was taken with `vendor`, unless the step is known already.
    pub fn at(mut self, step: Step, vendor: Vendor) -> Self {
        self.facts.step.get_or_insert(step);
        self.facts.vendor = vendor;
        self
    }

    /// Whether the endpoint refused the scopes that the request named and has kept what was presented, so that the same may be
    /// asked without them. These statuses say that nothing was done (RFC 6749 §5.2); after others a rotating token may have
    /// been used up.
    pub(super) fn is_refusal_of_scopes(&self) -> bool {
        self.facts.is_about_scopes && matches!(self.facts.status, Some(400 | 401 | 403))
    }

    /// The value of the metric label `outcome`.
    pub fn label(&self) -> &'static str {
        match self.kind {
            TokenErrorKind::Grant => "grant_refused",
            TokenErrorKind::App => "app_refused",
            TokenErrorKind::Temporary { .. } => "temporary",
        }
    }
}
