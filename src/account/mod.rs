//! Accounts: who owns a mailbox's credential, keeps it fresh, and knows the sessions that live on it.
//!
//! ```text
//!  connection, admin ──> Accounts ──id──> AccountSupervisor (an actor, started when first needed)
//!                                            │  decides with refresh::Refresher (pure)
//!                                            ├── refresh task ──> token endpoint
//!                                            └── write task ────> store
//! ```
//!
//! A supervisor holds its account's record and credentials in memory and is the only one to write them, one write at a time,
//! so that a refresh and an administrator's change cannot overwrite each other. It ends no session for trouble with a
//! refresh: sessions that are logged in need no token. If it panics, its sessions go on, and the next question starts
//! another from what is on disk.

mod accounts;
mod changes;
pub mod meaning;
pub mod refresh;
mod sessions;
mod submissions;
mod supervisor;
mod target;
mod writes;

#[cfg(test)]
pub(crate) mod tests;

pub use accounts::Accounts;
pub use changes::Changes;
pub use sessions::{LiveSession, SessionId, SessionLease};
pub use target::{Place, UpstreamTarget};

use crate::clock::Timestamp;
use crate::store::{AccountError, AccountState};

/// What an administrator sees of an account's credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its state.
    pub state: AccountState,
    /// The last error that concerned its credential.
    pub last_error: Option<AccountError>,
    /// When the next refresh is tried, after one that failed.
    pub next_try: Option<Timestamp>,
    /// When its OAuth access token ends.
    pub expires: Option<Timestamp>,
}
