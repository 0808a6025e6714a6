//! Every way in which a consent can fail, each with its code for programs and its text for people, which says what to do.
//!
//! No text holds a token, a code or an internal address: owners of mailboxes read them.

use crate::oauth::{Explanation, RedirectError, TokenError, TokenErrorKind};
use crate::sentence::explained;
use crate::store::StoreError;

/// Why a consent was not begun, or did not open the mailbox.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthorizeError {
    /// What the browser brought back is none of a flow in progress, or is not this caller's to complete.
    #[error("this belongs to no authorization in progress: it was completed already, or begun elsewhere; begin again")]
    UnknownState,
    /// The flow's time is over.
    #[error("the time for this authorization is over; begin again")]
    Expired,
    /// A newer flow has taken its place.
    #[error("another authorization was begun instead of this one")]
    Replaced,
    /// What was given is no URL that a provider sends browsers back to.
    #[error("this is not the address that the browser was sent back to: {0}")]
    BadRedirect(#[from] RedirectError),
    /// The flow's own redirect goes elsewhere.
    #[error("this address is not where the browser was to come back to, which is {0}")]
    WrongRedirect(String),
    /// The owner, or the provider in their place, said no.
    #[error("the permission was not given{}", denied(.said, .meaning))]
    Denied {
        /// What the provider said, which may be nothing.
        said: String,
        /// What that means and what to do, where it is known.
        meaning: Option<Explanation>,
    },
    /// Not everything that is needed was granted.
    #[error(
        "the permission is incomplete, for these were not granted: {}; begin again and leave every box ticked",
        .0.join(", ")
    )]
    PartialConsent(Vec<String>),
    /// Somebody else signed in than was asked for.
    #[error("{given} signed in, but the mailbox is {asked}; begin again, and choose {asked} at the provider")]
    WrongMailbox {
        /// The mailbox that was asked for.
        asked: String,
        /// Who signed in.
        given: String,
    },
    /// The grant would end with its first access token.
    #[error(
        "the provider gave no refresh token, so that the permission would end within the hour; the request must ask for one \
         (offline_access among the scopes; with Google access_type=offline and prompt=consent), and the app must be allowed it"
    )]
    NoRefreshToken,
    /// The mailbox does not let us in with the grant.
    #[error("the permission was given, but the mailbox refused the login with it: {}", with(.said, .meaning))]
    LoginRefused {
        /// What the upstream said, or why no login was tried.
        said: String,
        /// What that means and what to do, where it is known.
        meaning: Option<Explanation>,
    },
    /// The mailbox could not be reached to try the grant.
    #[error(
        "the permission was given, but the mailbox could not be reached to try it ({said}); {}",
        if *.is_kept { "it is kept, and the next login will use it" } else { "what the account had before is kept; begin again later" }
    )]
    LoginUnavailable {
        /// What happened.
        said: String,
        /// Whether the new grant was stored.
        is_kept: bool,
    },
    /// The provider refused to exchange what the owner's consent had given, or did not answer.
    #[error("the provider did not exchange the permission for a token: {}", with(.error, .meaning))]
    ExchangeFailed {
        /// What it said.
        error: TokenError,
        /// What that means and what to do, where it is known.
        meaning: Option<Explanation>,
    },
    /// The redirect came from another issuer than was asked (RFC 9207 §2.4).
    #[error(
        "the answer came from another provider than was asked, so it was not used; begin again, in a browser that you trust"
    )]
    IssuerMismatch,
    /// The provider has no such flow, or its accounts need no consent.
    #[error("{0}")]
    FlowNotOffered(String),
    /// The account is gone.
    #[error("no such account")]
    AccountGone,
    /// What the consent is for has changed, or is somebody else's.
    #[error("{0}")]
    Conflict(String),
    /// A field of a request cannot be accepted.
    #[error("{field}: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// Why.
        problem: String,
    },
    /// The link that began it.
    #[error(transparent)]
    Link(#[from] LinkProblem),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The program stops.
    #[error("the program is stopping; begin again when it is back")]
    Stopping,
    /// A defect of this program.
    #[error("a defect of this program")]
    Defect,
}

/// What can be wrong with a hosted link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkProblem {
    /// It was not made here, or has been changed.
    #[error("this link was not made here, or has been changed")]
    Forged,
    /// Its time is over.
    #[error("the time of this link is over; ask for another")]
    Expired,
    /// It has done its work.
    #[error("this link has been used; ask for another if that was not you")]
    Used,
    /// What it was made for is gone.
    #[error("what this link was made for is gone; ask for another")]
    Gone,
}

impl AuthorizeError {
    /// What it is about, for programs: snake case, never changed once released.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownState => "unknown_state",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::BadRedirect(_) | Self::WrongRedirect(_) => "bad_redirect",
            Self::Denied { .. } => "denied",
            Self::PartialConsent(_) => "partial_consent",
            Self::WrongMailbox { .. } => "wrong_mailbox",
            Self::NoRefreshToken => "no_refresh_token",
            Self::LoginRefused { .. } => "login_refused",
            Self::LoginUnavailable { .. } => "login_unavailable",
            Self::ExchangeFailed { .. } => "exchange_failed",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::FlowNotOffered(_) => "flow_not_offered",
            Self::AccountGone => "account_not_found",
            Self::Conflict(_) | Self::Store(StoreError::Conflict(_)) => "conflict",
            Self::Field { .. } => "invalid_request",
            Self::Link(LinkProblem::Forged) => "link_forged",
            Self::Link(LinkProblem::Expired) => "link_expired",
            Self::Link(LinkProblem::Used) => "link_used",
            Self::Link(LinkProblem::Gone) => "link_gone",
            Self::Store(_) => "store_unavailable",
            Self::Stopping => "stopping",
            Self::Defect => "internal",
        }
    }

    /// What a failed exchange comes to, by the words of whoever refused.
    pub(super) fn of_exchange(error: TokenError, meaning: Option<Explanation>) -> Self {
        match error.code.as_str() {
            // RFC 6749 §4.1.2.1, RFC 8628 §3.5: the owner or the authorization server denied the request.
            "access_denied" => Self::Denied {
                said: error.message,
                meaning,
            },
            "expired_token" => Self::Expired,
            "wrong_state" => Self::UnknownState,
            "wrong_issuer" => Self::IssuerMismatch,
            _ => Self::ExchangeFailed { error, meaning },
        }
    }

    /// Who has to do something about it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::BadRedirect(_) | Self::WrongRedirect(_) | Self::FlowNotOffered(_) | Self::Field { .. } => {
                Blame::Request
            }
            Self::UnknownState | Self::AccountGone | Self::Link(_) => Blame::Absence,
            Self::Expired => Blame::Time,
            Self::Replaced | Self::Conflict(_) | Self::Store(StoreError::Conflict(_)) => Blame::Conflict,
            Self::Denied { .. } | Self::PartialConsent(_) | Self::WrongMailbox { .. } | Self::IssuerMismatch => {
                Blame::Owner
            }
            Self::ExchangeFailed { error, .. } if matches!(error.kind, TokenErrorKind::Temporary { .. }) => {
                Blame::Trouble
            }
            Self::ExchangeFailed { .. } | Self::NoRefreshToken | Self::LoginRefused { .. } => Blame::Upstream,
            Self::LoginUnavailable { .. } | Self::Store(_) | Self::Stopping => Blame::Trouble,
            Self::Defect => Blame::Proxy,
        }
    }
}

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Whoever asked: what they asked for cannot be done.
    Request,
    /// There is no such thing (any more).
    Absence,
    /// It took too long.
    Time,
    /// Something else has happened in between.
    Conflict,
    /// The owner, by what they decided.
    Owner,
    /// The provider or the upstream, by refusing.
    Upstream,
    /// Nobody: it may pass.
    Trouble,
    /// This program.
    Proxy,
}

/// Why it was denied, as far as that is known, and what to do: what the meaning says of both goes before our own words.
fn denied(said: &str, meaning: &Option<Explanation>) -> String {
    let remedy = "to allow it, begin again and agree to all that is asked";
    match meaning {
        Some(meaning) => format!(": {meaning}"),
        None if said.is_empty() => format!("; {remedy}"),
        None => format!(" ({}); {remedy}", said.trim_end_matches('.')),
    }
}

/// What a refusal means, if that is known.
fn with(said: &impl ToString, meaning: &Option<Explanation>) -> String {
    meaning.map_or_else(|| said.to_string(), |meaning| explained(said.to_string(), meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_exchange_is_told_by_whose_doing_it_is() {
        let error = |code: &str| TokenError::temporary(code, "what it said");
        for (code, expected) in [
            ("access_denied", "denied"),
            ("expired_token", "expired"),
            ("wrong_state", "unknown_state"),
            ("wrong_issuer", "issuer_mismatch"),
            ("invalid_grant", "exchange_failed"),
            ("timeout", "exchange_failed"),
        ] {
            assert_eq!(
                AuthorizeError::of_exchange(error(code), None).code(),
                expected,
                "{code}"
            );
        }
    }

    #[test]
    fn texts_say_what_to_do() {
        let wrong = AuthorizeError::WrongMailbox {
            asked: "ada@example.com".to_owned(),
            given: "bob@example.com".to_owned(),
        };
        assert_eq!(
            wrong.to_string(),
            "bob@example.com signed in, but the mailbox is ada@example.com; begin again, and choose ada@example.com at the provider"
        );
        let partial = AuthorizeError::PartialConsent(vec!["imap".to_owned(), "smtp".to_owned()]);
        assert!(partial.to_string().contains("imap, smtp"), "{partial}");
        let explained = Some(Explanation {
            cause: "it was declined",
            remedy: "Accept it",
        });
        for (said, meaning, starts) in [
            ("", None, "; to allow it, "),
            ("No.", None, " (No); to allow it, "),
            ("No.", explained, ": it was declined. Accept it"),
        ] {
            let said = said.to_owned();
            let text = AuthorizeError::Denied { said, meaning }.to_string();
            assert!(
                text.starts_with(&format!("the permission was not given{starts}")),
                "{text}"
            );
        }
        let refused = AuthorizeError::LoginRefused {
            said: "535 5.7.139".to_owned(),
            meaning: Some(Explanation {
                cause: "it is off",
                remedy: "Switch it on",
            }),
        };
        assert!(
            refused.to_string().ends_with("535 5.7.139; it is off. Switch it on"),
            "{refused}"
        );
        for (is_kept, says) in [(true, "next login"), (false, "before")] {
            let said = "no answer".to_owned();
            let text = AuthorizeError::LoginUnavailable { said, is_kept }.to_string();
            assert!(text.contains(says), "{text}");
        }
    }
}
