//! The store on fjall, an embedded log-structured database under the state directory.
//!
//! One thread writes (`writer`); everybody reads straight from the database. A read takes microseconds, so that it is done
//! where it is asked for; listings, which scan, go to a thread that may block. Nothing here waits for a disk on a worker of
//! the runtime, except for a single block of a table that is not in memory yet.
//!
//! ```text
//!   Store::create_…, replace_…, remove_…  ──order──>  writer: draft ─ commit ─ fsync ──answer──> caller
//!   Store::record_…                       ──order──>  writer: draft ─ commit           (fsync within a second)
//!   Store::account, token, usage, …       ─────────────────────────> tables
//! ```
//! How it fails: a full disk refuses writes until there is room again, a failed one until the database could be opened
//! again; reads go on. See `writer`.

mod changes;
mod codec;
mod draft;
mod journals;
mod meta;
mod opening;
mod queries;
mod room;
mod shared;
mod tables;
#[cfg(test)]
pub(super) mod tests;
mod usage;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use self::changes::Bearers;
use self::draft::Draft;
use self::shared::Shared;
use self::tables::{Table, Tables};
use self::writer::{Change, Order, Writer};
use super::master_key::MasterKeySource;
use super::seal::Sealer;
use super::{
    AccountRecord, AccountSecrets, AccountState, Amendment, Listing, Loss, Page, Store, StoreError, TokenId,
    TokenRecord, TokenUse, UpstreamId, UpstreamRecord, UsageEvent, UsageFilter, keys, secrets, state_dir,
};
use crate::clock::Timestamp;
use crate::limits::STORE_QUEUE;

/// The store on fjall. Dropping it without [`Store::close`] loses nothing that was acknowledged.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    sealer: Arc<Sealer>,
    orders: mpsc::Sender<Order>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens the store under `state_dir`, or creates it there. Blocks while it reads what was not flushed before.
    ///
    /// # Errors
    /// As [`Self::open_with`]; a store from which records are missing is refused.
    pub fn open(state_dir: &Path, master_key: &MasterKeySource) -> Result<Arc<Self>, StoreError> {
        Self::open_with(state_dir, master_key, Loss::Refused)
    }

    /// The same, with what is left where `loss` says so.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open; [`StoreError::Exposed`] if others can reach the directory or
    /// the key; [`StoreError::MasterKey`] if the key is missing or wrong; [`StoreError::Incomplete`] if records are missing;
    /// [`StoreError::Unreadable`] and [`StoreError::Unwritable`] as the disk has it.
    pub fn open_with(state_dir: &Path, master_key: &MasterKeySource, loss: Loss) -> Result<Arc<Self>, StoreError> {
        state_dir::prepare(state_dir)?;
        let directory = state_dir.join(DIRECTORY);
        // IMPORTANT: the database first, for its lock: of two daemons that start at once only one may make a key.
        let (tables, witness) = opening::open(state_dir, &directory, loss)?;
        meta::check_format(&tables)?;
        let sealer = Arc::new(meta::sealer(&tables, state_dir, master_key)?);
        usage::migrate(&tables)?;

        let shared = Arc::new(Shared::new(tables));
        let (orders, receiver) = mpsc::channel(STORE_QUEUE);
        let writer = Writer::new(directory, Arc::clone(&shared), witness, receiver)?;
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unwritable(format!("cannot start the writer's thread: {error}")))?;
        Ok(Arc::new(Self {
            shared,
            sealer,
            orders,
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Has the writer carry out a durable change. Once this has been polled to where it waits for the answer, the change
    /// is carried out even if the caller goes away.
    async fn change<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Draft<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.order(Order::Change, operation).await
    }

    /// The same for a deletion, for which the last of the disk is kept.
    async fn delete<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Draft<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.order(Order::Deletion, operation).await
    }

    async fn order<T: Send + 'static>(
        &self,
        order: impl FnOnce(Change) -> Order,
        operation: impl FnOnce(&mut Draft<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.orders
            .send(order(answering(operation, reply)))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Like [`Self::change`], but what is done survives a killed process only, and costs no sync.
    async fn chore<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Draft<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let chore = Order::Chore(answering(operation, reply));
        self.orders.send(chore).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Waits until what was recorded before can be read.
    async fn barrier(&self) -> Result<(), StoreError> {
        let (reply, passed) = oneshot::channel();
        self.orders
            .send(Order::Barrier(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        passed.await.map_err(|_| StoreError::Closed)
    }

    /// Runs a scan on a thread that may block.
    async fn scan<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Tables) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tables = self.shared.tables()?;
        tokio::task::spawn_blocking(move || query(&tables))
            .await
            .map_err(|error| StoreError::Unreadable(format!("a listing was cut short: {error}")))?
    }

    fn record<T: serde::de::DeserializeOwned>(
        &self,
        table: Table,
        what: &'static str,
        key: &[u8],
    ) -> Result<Option<T>, StoreError> {
        let value = self.shared.tables()?.value(table, key)?;
        value.map(|bytes| codec::decode(what, &bytes)).transpose()
    }
}

/// An operation that tells `reply` its outcome once it is committed.
fn answering<T: Send + 'static>(
    operation: impl FnOnce(&mut Draft<'_>) -> Result<T, StoreError> + Send + 'static,
    reply: oneshot::Sender<Result<T, StoreError>>,
) -> Change {
    Box::new(move |draft| {
        let staged = draft.and_then(operation);
        Box::new(move |committed| {
            let _ = reply.send(staged.and_then(|outcome| committed.map(|()| outcome)));
        })
    })
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn create_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        let sealed = seal(&self.sealer, &account.account, &secrets)?;
        self.change(move |draft| changes::create_account(draft, &account, sealed))
            .await
    }

    async fn replace_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        let sealed = seal(&self.sealer, &account.account, &secrets)?;
        self.change(move |draft| changes::replace_account(draft, &account, Some(sealed)))
            .await
    }

    async fn amend_account(&self, account: AccountRecord, secrets: Option<Amendment>) -> Result<(), StoreError> {
        let sealer = Arc::clone(&self.sealer);
        self.change(move |draft| {
            let sealed = match secrets {
                Some(amendment) => amend(draft, &sealer, &account.account, amendment)?,
                None => None,
            };
            changes::replace_account(draft, &account, sealed)
        })
        .await
    }

    async fn amend_secrets(&self, account: &str, amendment: Amendment) -> Result<bool, StoreError> {
        let (sealer, account) = (Arc::clone(&self.sealer), account.to_owned());
        self.change(move |draft| {
            let sealed = amend(draft, &sealer, &account, amendment)?;
            let is_amended = sealed.is_some();
            if let Some(sealed) = sealed {
                draft.put(Table::Secrets, account.as_bytes(), sealed);
            }
            Ok(is_amended)
        })
        .await
    }

    async fn remove_account(&self, account: &str) -> Result<Vec<TokenId>, StoreError> {
        let account = account.to_owned();
        self.delete(move |draft| changes::remove_account(draft, &account)).await
    }

    async fn account(&self, account: &str) -> Result<Option<AccountRecord>, StoreError> {
        if !meta::is_keyable(account) {
            return Ok(None);
        }
        self.record(Table::Accounts, "an account", account.as_bytes())
    }

    async fn account_by_login(&self, name: &str) -> Result<Option<AccountRecord>, StoreError> {
        if let Some(account) = self.account(name).await? {
            return Ok(Some(account));
        }
        if !meta::is_keyable(name) {
            return Ok(None);
        }
        let bearers: Option<Bearers> = self.record(Table::Names, "a name", keys::folded(name).as_bytes())?;
        match bearers.and_then(|bearers| bearers.email) {
            Some(account) => self.account(&account).await,
            None => Ok(None),
        }
    }

    async fn account_secrets(&self, account: &str) -> Result<Option<AccountSecrets>, StoreError> {
        if !meta::is_keyable(account) {
            return Ok(None);
        }
        let Some(sealed) = self.shared.tables()?.value(Table::Secrets, account.as_bytes())? else {
            return Ok(None);
        };
        unseal(&self.sealer, account, &sealed).map(Some)
    }

    async fn accounts(&self, query: Option<&str>, page: Page) -> Result<Listing<AccountRecord>, StoreError> {
        let query = query.map(str::to_owned);
        self.scan(move |tables| queries::accounts(tables, query.as_deref(), page))
            .await
    }

    async fn accounts_after(&self, after: Option<&str>, count: usize) -> Result<Vec<AccountRecord>, StoreError> {
        let after = after.map(str::to_owned);
        self.scan(move |tables| queries::accounts_after(tables, after.as_deref(), count))
            .await
    }

    async fn sharers(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        let owner = owner.to_owned();
        self.scan(move |tables| queries::sharers(tables, &owner)).await
    }

    async fn account_states(&self) -> Result<Vec<(AccountState, u64)>, StoreError> {
        Ok(self.shared.counts().states())
    }

    async fn create_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.change(move |draft| changes::create_token(draft, &token)).await
    }

    async fn remove_token(&self, id: &TokenId) -> Result<Vec<TokenRecord>, StoreError> {
        let id = *id;
        self.delete(move |draft| changes::remove_token(draft, &id)).await
    }

    async fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.record(Table::Tokens, "an access token", &id.0)
    }

    async fn tokens(
        &self,
        account: Option<&str>,
        query: Option<&str>,
        page: Page,
    ) -> Result<Listing<(TokenRecord, Option<TokenUse>)>, StoreError> {
        let (account, query) = (account.map(str::to_owned), query.map(str::to_owned));
        self.scan(move |tables| queries::tokens(tables, account.as_deref(), query.as_deref(), page))
            .await
    }

    async fn token_use(&self, id: &TokenId) -> Result<Option<TokenUse>, StoreError> {
        self.record(Table::TokenUses, "a token's last use", &id.0)
    }

    async fn token_count(&self) -> Result<u64, StoreError> {
        Ok(self.shared.counts().tokens)
    }

    fn record_token_use(&self, id: TokenId, last: TokenUse) {
        // One that is shed is made up for by the token's next use.
        let _ = self.orders.try_send(Order::TokenUse(id, last));
    }

    fn record_usage(&self, event: UsageEvent) {
        if self.orders.try_send(Order::Usage(event)).is_err() {
            self.shared.shed(1);
        }
    }

    async fn usage(&self, filter: &UsageFilter, page: Page) -> Result<Listing<UsageEvent>, StoreError> {
        self.barrier().await?;
        let filter = filter.clone();
        self.scan(move |tables| usage::listing::usage(tables, &filter, page))
            .await
    }

    async fn sweep_usage(&self, now: Timestamp, retention: Duration, events_max: u64) -> Result<u64, StoreError> {
        self.barrier().await?;
        let cutoff = now.before(retention);
        let mut swept = 0;
        // In steps, so that logins and refreshes that are to be written meanwhile are not kept waiting.
        loop {
            let step = self.chore(move |draft| usage::sweep(draft, cutoff, events_max)).await?;
            if step == 0 {
                return Ok(swept);
            }
            swept += step;
        }
    }

    async fn upstreams(&self) -> Result<Vec<UpstreamRecord>, StoreError> {
        self.scan(queries::upstreams).await
    }

    async fn keep_upstreams(&self, heard: Vec<UpstreamRecord>, forgotten: Vec<UpstreamId>) -> Result<(), StoreError> {
        self.change(move |draft| changes::keep_upstreams(draft, &heard, &forgotten))
            .await
    }

    fn derive_key(&self, purpose: &'static str) -> Zeroizing<[u8; 32]> {
        self.sealer.derive_key(purpose)
    }

    fn health(&self) -> Result<(), StoreError> {
        if self.orders.is_closed() {
            return Err(StoreError::Closed);
        }
        self.shared.health()
    }

    async fn close(&self) -> Result<(), StoreError> {
        let (reply, closed) = oneshot::channel();
        self.orders
            .send(Order::Close(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        let outcome = closed.await.map_err(|_| StoreError::Closed)?;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It ends right after its answer; waiting for it is a matter of microseconds.
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        outcome
    }
}

/// What the secrets of `account` are after `amendment`, sealed; `None` if it changes nothing.
fn amend(
    draft: &Draft<'_>,
    sealer: &Sealer,
    account: &str,
    amendment: Amendment,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sealed = match meta::is_keyable(account) {
        true => draft.value(Table::Secrets, account.as_bytes())?,
        false => None,
    };
    let sealed = sealed.ok_or(StoreError::NotFound("account"))?;
    let mut secrets = unseal(sealer, account, &sealed)?;
    match amendment(&mut secrets) {
        true => seal(sealer, account, &secrets).map(Some),
        false => Ok(None),
    }
}

fn seal(sealer: &Sealer, account: &str, secrets: &AccountSecrets) -> Result<Vec<u8>, StoreError> {
    sealer
        .seal(Table::Secrets.name(), account.as_bytes(), secrets::encode(secrets))
        .map_err(|error| StoreError::Unwritable(error.to_string()))
}

fn unseal(sealer: &Sealer, account: &str, sealed: &[u8]) -> Result<AccountSecrets, StoreError> {
    let damaged = |reason: &str| StoreError::Unreadable(format!("the secrets of an account: {reason}"));
    let plaintext = sealer
        .open(Table::Secrets.name(), account.as_bytes(), sealed)
        .map_err(|error| damaged(&error.to_string()))?;
    secrets::decode(&plaintext).ok_or_else(|| damaged("of a format that this version does not read"))
}

/// The database's own directory under the state directory.
const DIRECTORY: &str = "store";
