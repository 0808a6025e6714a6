//! What is kept: accounts with their credentials, access tokens, usage events. The trait and its types.
//!
//! An engine is one folder that implements [`Store`]; `embedded` is the one on fjall. Callers see plain values: sealing the
//! secrets before they reach a disk is the engine's duty, with [`seal`] and [`master_key`].
//!
//! Durable operations return only when their effect survives a power loss; buffered ones (usage events, last use) survive a
//! killed process once the writer has them.

mod deletions;
pub mod embedded;
mod keys;
pub mod master_key;
mod records;
pub mod seal;
mod secrets;
pub mod state_dir;
mod upstreams;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::limits::TOKENS_PER_ACCOUNT_MAX;

pub use deletions::Deletions;
pub use records::*;
pub use upstreams::{UpstreamId, UpstreamRecord};

/// A store behind whichever engine is configured.
pub type SharedStore = Arc<dyn Store>;

/// A change of credentials that depends on what they are. Run where nothing can change them beside it; one that says `false` has
/// found nothing to change, and what it did to its argument is dropped.
pub type Amendment = Box<dyn FnOnce(&mut AccountSecrets) -> bool + Send>;

/// The operations that every engine offers. Identifiers are compared exactly, e-mail addresses without regard to case.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Writes a new account and its credentials, durably.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the id or the e-mail is an id or an e-mail of another account;
    /// [`StoreError::NotShareable`] if it is to share a grant that it cannot.
    async fn create_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError>;

    /// Replaces an account's record and credentials, durably. Both are written or neither.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] and [`StoreError::NotShareable`] as for `create_account`;
    /// [`StoreError::GrantShared`] if others share its grant and the change would take it from them.
    async fn replace_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError>;

    /// Replaces an account's record, durably, and amends its credentials as the store has them by then; without an amendment
    /// they stay. Both are written or neither.
    ///
    /// # Errors
    /// As [`Store::replace_account`].
    async fn amend_account(&self, account: AccountRecord, secrets: Option<Amendment>) -> Result<(), StoreError>;

    /// Amends an account's credentials as the store has them by then, durably, and leaves its record alone. Says whether there
    /// was anything to amend.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn amend_secrets(&self, account: &str, amendment: Amendment) -> Result<bool, StoreError>;

    /// Deletes an account with its credentials and its access tokens, durably; its usage events stay until they age out.
    /// Returns the ids of the tokens that went with it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::GrantShared`] while others share its grant.
    async fn remove_account(&self, account: &str) -> Result<Vec<TokenId>, StoreError>;

    /// The account whose id is `account`, without its secrets.
    async fn account(&self, account: &str) -> Result<Option<AccountRecord>, StoreError>;

    /// The account whose id is `name`, or whose e-mail is, without regard to case.
    async fn account_by_login(&self, name: &str) -> Result<Option<AccountRecord>, StoreError>;

    /// The credentials of an account, unsealed.
    async fn account_secrets(&self, account: &str) -> Result<Option<AccountSecrets>, StoreError>;

    /// Accounts, newest first, whose id, name or e-mail contains `query` without regard to case.
    async fn accounts(&self, query: Option<&str>, page: Page) -> Result<Listing<AccountRecord>, StoreError>;

    /// Up to `count` accounts in the order of their ids: those behind `after`, or the first. For walks over all of them, which
    /// cost a constant for each page.
    async fn accounts_after(&self, after: Option<&str>, count: usize) -> Result<Vec<AccountRecord>, StoreError>;

    /// The accounts that share the grant of `owner`.
    async fn sharers(&self, owner: &str) -> Result<Vec<String>, StoreError>;

    /// How many accounts are in each state.
    async fn account_states(&self) -> Result<Vec<(AccountState, u64)>, StoreError>;

    /// Writes a new access token, durably.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if its account or the token that makes it does not exist (any more);
    /// [`StoreError::TooManyTokens`].
    async fn create_token(&self, token: TokenRecord) -> Result<(), StoreError>;

    /// Deletes an access token, and with it all that it made and that those made, in one durable commit. Returns what was
    /// deleted, the token itself first; nothing where it does not exist.
    async fn remove_token(&self, id: &TokenId) -> Result<Vec<TokenRecord>, StoreError>;

    /// The access token with this id. On the path of every login: microseconds.
    async fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError>;

    /// Access tokens, newest first: of one account (`None`: of all, root tokens too), whose description, account or id
    /// contains `query` without regard to case. Each with its last accepted use.
    async fn tokens(
        &self,
        account: Option<&str>,
        query: Option<&str>,
        page: Page,
    ) -> Result<Listing<(TokenRecord, Option<TokenUse>)>, StoreError>;

    /// When and from where a token was last accepted.
    async fn token_use(&self, id: &TokenId) -> Result<Option<TokenUse>, StoreError>;

    /// How many access tokens there are.
    async fn token_count(&self) -> Result<u64, StoreError>;

    /// Takes note of an accepted use, without waiting. Buffered.
    fn record_token_use(&self, id: TokenId, last: TokenUse);

    /// Takes note of a usage event, without waiting. Buffered; sheds events rather than blocking a session when the writer
    /// cannot keep up, and counts what it shed in the log.
    fn record_usage(&self, event: UsageEvent);

    /// Usage events, newest first. Sees every event recorded before the call.
    async fn usage(&self, filter: &UsageFilter, page: Page) -> Result<Listing<UsageEvent>, StoreError>;

    /// Deletes the oldest usage events beyond `retention` (as of `now`) and beyond `events_max`. Returns how many.
    async fn sweep_usage(&self, now: Timestamp, retention: Duration, events_max: u64) -> Result<u64, StoreError>;

    /// What upstreams were heard to do.
    async fn upstreams(&self) -> Result<Vec<UpstreamRecord>, StoreError>;

    /// Keeps what upstreams were heard to do, durably, and forgets others.
    async fn keep_upstreams(&self, heard: Vec<UpstreamRecord>, forgotten: Vec<UpstreamId>) -> Result<(), StoreError>;

    /// Whether a deletion that was acknowledged is in force in memory alone, because the disk refuses it for now. An engine
    /// acknowledges none before it is durable; see [`Deletions`].
    fn owes(&self, _deletion: Deletion<'_>) -> bool {
        false
    }

    /// A key for `purpose`, the same whenever the store is opened with the same master key, from which it cannot be told.
    fn derive_key(&self, purpose: &'static str) -> Zeroizing<[u8; 32]>;

    /// Whether durable writes succeed at present. `Err` says why not, for `/readyz`.
    fn health(&self) -> Result<(), StoreError>;

    /// Writes and flushes everything, then closes. Later calls fail with [`StoreError::Closed`].
    async fn close(&self) -> Result<(), StoreError>;
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion<'a> {
    /// The account with this id, and its access tokens.
    Account(&'a str),
    /// The access token with this id.
    Token(&'a TokenId),
}

/// What becomes of a store from which records are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It is not opened.
    Refused,
    /// It is opened with what is left; what cannot be read at all is set aside.
    Accepted,
}

/// What an engine reports when it cannot do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// What was to be changed does not exist.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// An id or an e-mail is taken; names which.
    #[error("{0} is taken by another account")]
    Conflict(&'static str),
    /// The account's grant is shared by those that are named, which would lose it.
    #[error("its grant is shared by {0}; give them another first")]
    GrantShared(String),
    /// The account whose grant is to be shared is gone, has another provider, or shares a grant itself.
    #[error("the account whose grant is to be shared does not exist, has another provider, or shares a grant itself")]
    NotShareable,
    /// The account has as many access tokens as it may.
    #[error("the account has {TOKENS_PER_ACCOUNT_MAX} access tokens, as many as it may; delete some first")]
    TooManyTokens,
    /// Another process has the directory open.
    #[error("{0} is in use by another portreeve; stop that one first, or give this one another server.state_dir")]
    Locked(String),
    /// The disk is full or failing. The operation has no effect now, and trying it again later may succeed; if the disk
    /// failed in the midst of it, a restart may yet find it done.
    #[error("cannot write to the store: {0}")]
    Unwritable(String),
    /// A record cannot be read: damage, or a format newer than this program.
    #[error("cannot read the store: {0}")]
    Unreadable(String),
    /// Records are missing that were there: says which, and what to do.
    #[error("{0}")]
    Incomplete(String),
    /// The master key is missing or not the one that sealed the records.
    #[error("{0}")]
    MasterKey(String),
    /// Other users of the machine can reach what must be private: the state directory or the master key.
    #[error("{0}")]
    Exposed(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}

/// Which usage events are wanted; every part that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageFilter {
    /// Of this account.
    pub account: Option<String>,
    /// Of this access token.
    pub token: Option<TokenId>,
    /// At this time or later.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Of this kind.
    pub kind: Option<UsageKind>,
}

impl UsageFilter {
    /// Whether `event` is wanted.
    pub fn matches(&self, event: &UsageEvent) -> bool {
        self.account
            .as_ref()
            .is_none_or(|account| event.account.as_ref() == Some(account))
            && self.token.is_none_or(|token| event.token == Some(token))
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && self.kind.is_none_or(|kind| event.kind == kind)
    }
}

/// A page of a listing, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Which page.
    pub page: usize,
    /// How many entries a page has; at least 1.
    pub size: usize,
}

/// One page of entries and how many there are in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// How many entries there are on all pages.
    pub total: u64,
    /// The entries of this page.
    pub entries: Vec<T>,
}
