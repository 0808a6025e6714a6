//! Accounts: who owns a mailbox's credential, keeps it fresh, and knows the sessions that live on it.
//!
//! ```text
//!  connection, admin ──> Accounts ──id──> AccountSupervisor (an actor, started when first needed)
//!                                            │  decides with refresh::Refresher (pure)
//!                                            ├── refresh task ──> token endpoint, then grants::Grants ──> store
//!                                            └── write task ────> store
//! ```
//!
//! A supervisor holds its account's record and credentials in memory. It alone writes the record and an administrator's new
//! credentials, one write at a time. What a refresh brings is written by the task that asked for it, before anybody is told,
//! and only over the grant that it came of: the two cannot overwrite each other, and a supervisor that dies loses nothing. An account that shares another's grant asks
//! that one's supervisor for tokens, and has everything else of its own. A supervisor ends no session for trouble with a
//! refresh: sessions that are logged in need no token. If it panics, its sessions go on, and the next question starts
//! another from what is on disk.

mod accounts;
mod changes;
mod grants;
pub mod keeping;
pub mod meaning;
mod notice;
pub mod refresh;
pub mod roll;
mod sessions;
mod shared;
mod submissions;
mod supervisor;
mod target;
mod writes;

#[cfg(test)]
pub(crate) mod tests;

pub use accounts::Accounts;
pub use changes::Changes;
pub use notice::{News, Notice};
pub use roll::Roll;
pub use sessions::{LiveSession, SessionId, SessionLease, VisitLease};
pub use target::{Place, UpstreamTarget};

use crate::clock::Timestamp;
use crate::store::{AccountError, AccountState, Failures};
use supervisor::is_upstreams;

/// What an administrator sees of an account's credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its state.
    pub state: AccountState,
    /// The last error that concerned its credential.
    pub last_error: Option<AccountError>,
    /// The logins that have failed since one last succeeded.
    pub failures: Option<Failures>,
    /// When the next refresh is tried, after one that failed.
    pub next_try: Option<Timestamp>,
    /// When its OAuth access token ends.
    pub expires: Option<Timestamp>,
    /// The scopes that its provider granted, where it told.
    pub scope: Option<String>,
    /// When its grant ends, where the provider told.
    pub grant_ends: Option<Timestamp>,
}

impl AccountStatus {
    /// What is to be shown of an account that shares the grant of another, which is in the state `owner`: trouble with the
    /// grant is trouble of both. What an upstream refuses at the owner's own mailbox is not.
    pub(crate) fn sharing(self, owner: Self) -> Self {
        let is_untroubled = matches!(self.state, AccountState::New | AccountState::Active);
        let has_lost_its_grant = match owner.state {
            AccountState::NeedsAuthorization => true,
            AccountState::Failing => owner
                .last_error
                .as_ref()
                .is_some_and(|error| !is_upstreams(&error.code)),
            AccountState::New | AccountState::Active | AccountState::Disabled => false,
        };
        let (state, last_error) = match is_untroubled && has_lost_its_grant {
            true => (owner.state, owner.last_error),
            false => (self.state, self.last_error),
        };
        Self {
            state,
            last_error,
            failures: self.failures,
            next_try: owner.next_try,
            expires: owner.expires,
            scope: owner.scope,
            grant_ends: owner.grant_ends,
        }
    }
}
