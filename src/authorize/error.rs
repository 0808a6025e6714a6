//! Why a consent came to nothing, or not to all that was wanted.
//!
//! Every text is for whoever authorizes the mailbox: it says what happened and what to do. What the provider or the upstream
//! said is in it cleaned, and no secret is.

use crate::oauth::{RedirectError, TokenError, TokenErrorKind};
use crate::store::StoreError;

use super::LinkProblem;

/// Why a consent came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthorizeError {
    /// The provider is not in the configuration (any more).
    #[error("provider '{0}' is not configured")]
    UnknownProvider(String),
    /// The account is another provider's.
    #[error("the account is of provider '{0}'; change that first, or leave the provider as it is")]
    OtherProvider(String),
    /// The provider has no OAuth app.
    #[error(
        "provider '{0}' has no OAuth app here: configure one, or give the account a password (portreeve account update \
         ACCOUNT --password-file -)"
    )]
    PasswordsOnly(String),
    /// The provider's grant needs no consent.
    #[error("provider '{0}' is configured with a grant that no owner consents to; its mailboxes need no authorization")]
    NoConsent(String),
    /// The redirect goes elsewhere.
    #[error(
        "the redirect must be http on a loopback host of the machine where the browser runs, such as \
         http://localhost:8000/, or the daemon's own <web.public_url>/oauth/callback"
    )]
    RedirectUri,
    /// Links need the public side.
    #[error("links need [web] listen and public_url in the configuration")]
    WebOff,
    /// The link does not stand.
    #[error(transparent)]
    Link(#[from] LinkProblem),
    /// The redirected URL cannot be read.
    #[error("the redirected URL cannot be used: {0}; copy the whole address from the browser's address bar")]
    Redirect(#[from] RedirectError),
    /// No flow is in progress that it belongs to.
    #[error(
        "this answer belongs to no authorization in progress: it has been used, is too old, or was begun elsewhere; begin \
         again"
    )]
    UnknownFlow,
    /// As many flows are in progress as there may be.
    #[error("too many authorizations are in progress; try again in some minutes")]
    Busy,
    /// The owner did not decide in time.
    #[error("nobody consented in time; begin again")]
    Expired,
    /// The owner, or the provider in their place, said no.
    #[error("the consent was denied: {0}")]
    Denied(TokenError),
    /// The provider does not do what was asked.
    #[error("the provider refuses: {0}")]
    Provider(TokenError),
    /// The grant cannot be refreshed.
    #[error(
        "the provider gave no refresh token, so that the grant would be over within the hour; ask for it by the scope \
         offline_access, or whatever the provider wants for offline access, and authorize again"
    )]
    NoRefreshToken,
    /// Not everything was granted.
    #[error("consent is missing for {}; authorize again and allow everything that is asked for", .0.join(", "))]
    MissingScopes(Vec<String>),
    /// Somebody else signed in.
    #[error(
        "{given} signed in, but the mailbox is {asked}; sign in as that, or, for a shared mailbox, give the account its own \
         login name (portreeve account update ACCOUNT --user {asked})"
    )]
    WrongMailbox {
        /// The address that was asked for.
        asked: String,
        /// The address that signed in.
        given: String,
    },
    /// The mailbox does not open.
    #[error("the provider granted access, but the mailbox refuses it: {0}")]
    LoginRefused(String),
    /// The mailbox cannot be tried now.
    #[error(
        "the grant is kept, but the mailbox could not be tried: {0}; see portreeve account verify for what is wrong"
    )]
    LoginUnavailable(String),
    /// The account changed meanwhile.
    #[error("the account was changed or deleted meanwhile; begin again")]
    AccountChanged,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect.
    #[error("a defect of this program: {0}")]
    Internal(String),
}

/// Who has to do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Whoever asked: what they asked for cannot be done.
    Request,
    /// There is no such thing (any more).
    Absence,
    /// The owner, or what they decided.
    Owner,
    /// The provider or the upstream, by refusing.
    Upstream,
    /// Time: it may pass.
    Trouble,
    /// This program.
    Proxy,
}

impl AuthorizeError {
    /// What came of an exchange: a refusal by the owner is told from all others.
    pub(super) fn of_exchange(error: TokenError) -> Self {
        match error.code.as_str() {
            "access_denied" => Self::Denied(error),
            "expired_token" => Self::Expired,
            _ => Self::Provider(error),
        }
    }

    /// A name for programs, never changed once released.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProvider(_) => "unknown_provider",
            Self::OtherProvider(_) => "other_provider",
            Self::PasswordsOnly(_) | Self::NoConsent(_) => "flow_not_offered",
            Self::RedirectUri => "invalid_redirect_uri",
            Self::WebOff => "web_off",
            Self::Link(LinkProblem::Forged) => "link_forged",
            Self::Link(LinkProblem::Expired) => "link_expired",
            Self::Link(LinkProblem::Used) => "link_used",
            Self::Link(LinkProblem::Gone) => "link_gone",
            Self::Link(LinkProblem::Unknown(_)) | Self::Store(_) => "store_unavailable",
            Self::Redirect(_) => "invalid_redirect",
            Self::UnknownFlow => "unknown_state",
            Self::Busy => "busy",
            Self::Expired => "expired",
            Self::Denied(_) => "access_denied",
            Self::Provider(_) => "provider_refused",
            Self::NoRefreshToken => "no_refresh_token",
            Self::MissingScopes(_) => "missing_scopes",
            Self::WrongMailbox { .. } => "wrong_mailbox",
            Self::LoginRefused(_) => "login_refused",
            Self::LoginUnavailable(_) => "login_unavailable",
            Self::AccountChanged => "account_changed",
            Self::Internal(_) => "internal",
        }
    }

    /// Who has to do something about it.
    pub fn blame(&self) -> Blame {
        match self {
            Self::UnknownProvider(_)
            | Self::OtherProvider(_)
            | Self::PasswordsOnly(_)
            | Self::NoConsent(_)
            | Self::RedirectUri
            | Self::WebOff
            | Self::Redirect(_) => Blame::Request,
            Self::UnknownFlow | Self::Expired | Self::AccountChanged | Self::Link(_) => Blame::Absence,
            Self::Denied(_) | Self::NoRefreshToken | Self::MissingScopes(_) | Self::WrongMailbox { .. } => Blame::Owner,
            Self::Provider(error) if matches!(error.kind, TokenErrorKind::Temporary { .. }) => Blame::Trouble,
            Self::Provider(_) | Self::LoginRefused(_) => Blame::Upstream,
            Self::Busy | Self::LoginUnavailable(_) | Self::Store(_) => Blame::Trouble,
            Self::Internal(_) => Blame::Proxy,
        }
    }
}
