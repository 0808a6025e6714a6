//! Why there is no access token: whose trouble it is, a code and a text.

use std::time::Duration;

use super::classify;

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

impl TokenError {
    /// Trouble that may pass, in our own words.
    pub fn temporary(code: &str, message: impl Into<String>) -> Self {
        Self {
            kind: TokenErrorKind::Temporary { retry_after: None },
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// Trouble with the app's configuration, in our own words.
    pub fn app(code: &str, message: impl Into<String>) -> Self {
        Self {
            kind: TokenErrorKind::App,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// Whether the endpoint refused because a scope that was named has not been consented to: Microsoft's AADSTS65001, which
    /// refuses the request as a whole.
    pub fn is_for_want_of_consent(&self) -> bool {
        self.code == "consent_required"
            || classify::aadsts_numbers(&self.message).any(|number| number == CONSENT_REQUIRED)
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

/// AADSTS65001: the user or an administrator has not consented.
const CONSENT_REQUIRED: u64 = 65001;
