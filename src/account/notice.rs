//! What is told of accounts to whoever wants to know: that a state changed, that a grant will end soon.
//!
//! Supervisors publish and go on: the channel is bounded ([`crate::limits::NOTICES_MAX`]), and who falls behind loses the oldest
//! and is told how many.

use crate::clock::Timestamp;
use crate::metrics::names::state_label;
use crate::store::{AccountError, AccountRecord, AccountState};

/// One piece of news of one account. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// When.
    pub time: Timestamp,
    /// Whose: the account's id.
    pub account: String,
    /// Its e-mail address.
    pub email: Option<String>,
    /// Its provider's name in the configuration.
    pub provider: String,
    /// What.
    pub news: News,
}

/// What happened to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It came into another state.
    State {
        /// The state before.
        from: AccountState,
        /// The state now.
        to: AccountState,
        /// The error that is the cause.
        error: Option<AccountError>,
        /// What somebody must do about it.
        remedy: Option<String>,
    },
    /// Its grant ends soon, and no renewal has moved that end.
    GrantEnding {
        /// When it ends.
        ends: Timestamp,
    },
}

impl Notice {
    /// News of `record`, at `time`.
    pub(super) fn of(record: &AccountRecord, news: News, time: Timestamp) -> Self {
        Self {
            time,
            account: record.account.clone(),
            email: record.email.clone(),
            provider: record.provider.clone(),
            news,
        }
    }
}

impl News {
    /// A change of state in a few words, for a log: the new state, and the code of the error that it is for.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::State { to, error, .. } if *to == AccountState::NeedsAuthorization => {
                let state = state_label(*to);
                let code = error.as_ref().map(|error| error.code.as_str());
                Some(code.map_or(state.to_owned(), |code| format!("{state}: {code}")))
            }
            Self::State { .. } | Self::GrantEnding { .. } => None,
        }
    }
}
