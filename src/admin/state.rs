//! What the admin API needs of the rest of the program: the store as it is, accounts and live sessions through ports.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use url::Url;

use super::readiness::Readiness;
use super::types::{
    CertificateAuthorityView, ListenerView, RecognitionView, SessionView, UpstreamView, VerifyStep, WebView,
};
use crate::access::Budgets;
use crate::account::{AccountStatus, Changes};
use crate::authorize::{AuthorizeError, CodeBegun, Completed, DeviceBegun, LinkOrder, Progress};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::metrics::render::Exposition;
use crate::oauth::RedirectUri;
use crate::recognize::Reach;
use crate::store::{AccountRecord, AccountSecrets, Failures, Listing, Page, SharedStore, StoreError, TokenId};

/// Everything that the routes work with.
pub struct AdminState {
    /// Accounts, tokens and usage events.
    pub store: SharedStore,
    /// The owners of the accounts' credentials.
    pub accounts: Arc<dyn AccountControl>,
    /// Who leads owners through consent.
    pub consent: Arc<dyn ConsentControl>,
    /// Who changes which account.
    pub changes: Arc<Changes>,
    /// What refused logins cost.
    pub failures: Arc<Budgets>,
    /// The live sessions.
    pub sessions: Arc<dyn SessionControl>,
    /// Who can tell whose mailbox an address is.
    pub recognition: Arc<dyn Recognition>,
    /// The configuration in effect.
    pub config: watch::Receiver<Arc<Config>>,
    /// The collected metrics.
    pub metrics: Exposition,
    /// What probes have found.
    pub readiness: Readiness,
    /// When the daemon started.
    pub started: Timestamp,
    /// Whether the daemon is stopping: it is alive, but no longer ready.
    pub draining: watch::Receiver<bool>,
}

/// What the admin API asks of the accounts. Changes go through here rather than to the store, because the owner of an
/// account's credential must hear of them first.
#[async_trait]
pub trait AccountControl: Send + Sync + 'static {
    /// Adds an account.
    ///
    /// # Errors
    /// Those of [`crate::store::Store::create_account`].
    async fn create(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError>;

    /// Replaces an account's record and, where `secrets` are given, its credentials.
    ///
    /// With new credentials the record's state is `new` (`active` if a login proved them, or `disabled`) and holds: an earlier `needs-authorization` and any
    /// back-off are over. Without them the record's state and last error count only where they switch `disabled` on or off;
    /// else they are what the account knows by then, which may be newer than what the caller read.
    ///
    /// # Errors
    /// Those of [`crate::store::Store::replace_account`].
    async fn replace(&self, account: AccountRecord, secrets: Option<AccountSecrets>) -> Result<(), StoreError>;

    /// Deletes an account with its tokens and ends its sessions.
    ///
    /// # Errors
    /// Those of [`crate::store::Store::remove_account`], among them that others share its grant.
    async fn remove(&self, account: &str) -> Result<(), StoreError>;

    /// Takes note that a token has been deleted from the store, and ends the sessions that it opened.
    async fn token_removed(&self, account: &str, token: TokenId);

    /// What is known of an account's credential now; `None` for an unknown account.
    async fn status(&self, account: &str) -> Option<AccountStatus>;

    /// The accounts whose grants end soon, in the order of their ids, and when.
    fn ending(&self) -> Vec<(String, Timestamp)>;

    /// The accounts with logins that have failed since one succeeded, in the order of their ids.
    fn failing(&self) -> Vec<(String, Failures)>;

    /// The upstreams that accounts are at, and what each can do, in order.
    fn upstreams(&self) -> Vec<UpstreamView>;

    /// Walks through everything that a login needs and tells of each step how it went.
    async fn verify(&self, account: &str) -> Vec<VerifyStep>;

    /// Whether every grant that a provider rotated is on the disk. `Err` says what is not, for `/readyz`.
    fn health(&self) -> Result<(), String>;
}

/// What the admin API asks of whoever leads owners through consent.
#[async_trait]
pub trait ConsentControl: Send + Sync + 'static {
    /// Begins a code flow that comes back to `redirect_uri`.
    ///
    /// # Errors
    /// As [`crate::authorize::Authorizer::begin_code`].
    async fn begin_code(
        &self,
        account: &AccountRecord,
        redirect_uri: &RedirectUri,
    ) -> Result<CodeBegun, AuthorizeError>;

    /// Begins a device flow.
    ///
    /// # Errors
    /// As [`crate::authorize::Authorizer::begin_device`].
    async fn begin_device(&self, account: &AccountRecord) -> Result<DeviceBegun, AuthorizeError>;

    /// Completes a code flow from the URL to which the provider sent the browser. A flow of another account than `own`, if
    /// that is given, counts as none.
    ///
    /// # Errors
    /// As [`crate::authorize::Authorizer::complete`].
    async fn complete(&self, redirected: &Url, own: Option<&str>) -> Result<Completed, AuthorizeError>;

    /// How an account's latest flow stands.
    fn progress(&self, account: &str) -> Option<Progress>;

    /// Makes a hosted link.
    ///
    /// # Errors
    /// As [`crate::authorize::Authorizer::link`].
    async fn link(&self, order: LinkOrder) -> Result<Url, AuthorizeError>;
}

/// What the admin API asks of the listeners and the live sessions.
#[async_trait]
pub trait SessionControl: Send + Sync + 'static {
    /// Live sessions, newest first; of one account, if it is named.
    async fn list(&self, account: Option<&str>, page: Page) -> Listing<SessionView>;

    /// One live session.
    async fn find(&self, session: u64) -> Option<SessionView>;

    /// Ends a session with a goodbye. Returns whether there was one.
    async fn close(&self, session: u64) -> bool;

    /// The listeners as they are bound.
    fn listeners(&self) -> Vec<ListenerView>;

    /// The public side as it is bound, if it is turned on.
    fn web(&self) -> Option<WebView>;

    /// The daemon's own CA, if a listener uses a certificate of it.
    fn certificate_authority(&self) -> Option<CertificateAuthorityView>;
}

/// What the admin API asks of whoever knows providers.
#[async_trait]
pub trait Recognition: Send + Sync + 'static {
    /// Whose mailbox `email` is, under the configuration in effect.
    async fn recognize(&self, email: &str, reach: Reach) -> RecognitionView;
}
