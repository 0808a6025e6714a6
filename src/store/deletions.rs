//! Deletions that are in force at once, whatever the disk says.
//!
//! Whoever revokes a token wants it dead now. So a deletion is first noted in memory, where nothing that is read here shows what
//! it names any more, and then carried out by the engine. Where the disk refuses it, or takes too long, the deletion is
//! acknowledged all the same: [`Store::owes`] tells that it is not durable, and it is tried again every [`RETRY`], before any
//! other write. It is this process that remembers it: a restart before it was written brings back what it named.
//!
//! What is noted is bounded by what there is: each note names a record that the engine holds.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{
    AccountRecord, AccountSecrets, AccountState, Amendment, Deletion, Listing, Page, SharedStore, Store, StoreError,
    TokenId, TokenRecord, TokenUse, UpstreamId, UpstreamRecord, UsageEvent, UsageFilter,
};
use crate::clock::Timestamp;
use crate::limits::DELETION_WAIT;

/// A store above an engine's, whose deletions are in force at once.
pub struct Deletions {
    shared: Arc<Shared>,
}

struct Shared {
    engine: SharedStore,
    denied: RwLock<Denied>,
    /// Something is owed.
    owed: Arc<Notify>,
    /// Held by whoever carries out what is owed, so that it is done in its order.
    settling: Mutex<()>,
}

/// What is not there any more, though the engine may hold it.
#[derive(Default)]
struct Denied {
    /// In the order in which they came: who shared a grant before its owner.
    owed: VecDeque<Owed>,
    accounts: BTreeMap<String, AccountRecord>,
    /// Those of the accounts too.
    tokens: BTreeMap<TokenId, TokenRecord>,
}

/// A [`Deletion`] that is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owed {
    Account(String),
    Token(TokenId),
}

impl Deletions {
    /// Above `engine`. To be called on a runtime, where what is owed is carried out.
    pub fn over(engine: SharedStore) -> Arc<Self> {
        let shared = Arc::new(Shared {
            engine,
            denied: RwLock::default(),
            owed: Arc::default(),
            settling: Mutex::new(()),
        });
        tokio::spawn(settle_later(Arc::downgrade(&shared), Arc::clone(&shared.owed)));
        Arc::new(Self { shared })
    }

    /// The engine, once it holds nothing any more that has been deleted: for changes that must not meet it there.
    async fn settled(&self) -> Result<&SharedStore, StoreError> {
        self.shared.settle().await?;
        Ok(&self.shared.engine)
    }

    fn engine(&self) -> &SharedStore {
        &self.shared.engine
    }

    fn denied(&self) -> RwLockReadGuard<'_, Denied> {
        self.shared.denied()
    }

    /// `token` and all that it made, and that those made. One that is being made just now may be missing; it is of no use,
    /// for its maker is looked up with it.
    async fn line_of(&self, token: TokenRecord) -> Result<Vec<TokenRecord>, StoreError> {
        let others = match &token.account {
            Some(owner) => self.tokens(Some(owner), None, EVERYTHING).await?.entries,
            None => Vec::new(),
        };
        let mut others: Vec<TokenRecord> = others.into_iter().map(|(token, _)| token).collect();
        let mut line = vec![token];
        let mut next = 0;
        while let Some(maker) = line.get(next).map(|token| token.id) {
            let (made, rest) = others.into_iter().partition(|token| token.parent == Some(maker));
            let made: Vec<TokenRecord> = made;
            line.extend(made);
            others = rest;
            next += 1;
        }
        Ok(line)
    }

    /// Carries out what has just been noted, for as long as its caller should wait. `None` if it is owed now.
    ///
    /// # Errors
    /// What the engine has against it for good; the note is taken back then.
    async fn carry_out<T>(
        &self,
        owed: &Owed,
        deletion: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Option<T>, StoreError> {
        // Also where this is dropped half-way: somebody sees to it.
        self.shared.owed.notify_one();
        match timeout(DELETION_WAIT, deletion).await {
            Ok(Ok(done)) => {
                self.shared.lift(owed);
                Ok(Some(done))
            }
            Ok(Err(StoreError::Unwritable(reason))) => {
                tracing::error!(%reason, "{owed} is deleted, but not on the disk yet: after a restart it would be there again");
                Ok(None)
            }
            Err(_elapsed) => {
                tracing::error!(
                    "{owed} is deleted, but the disk has not said so yet: after a restart it may be there again"
                );
                Ok(None)
            }
            Ok(Err(error)) => {
                self.shared.lift(owed);
                Err(error)
            }
        }
    }
}

impl Drop for Deletions {
    fn drop(&mut self) {
        // Wakes the task, which finds that it has nothing left to do.
        self.shared.owed.notify_one();
    }
}

/// Tries again what is owed, until the store is gone.
async fn settle_later(shared: Weak<Shared>, owed: Arc<Notify>) {
    loop {
        owed.notified().await;
        loop {
            sleep(RETRY).await;
            let Some(shared) = shared.upgrade() else { return };
            if shared.settle().await.is_ok() {
                break;
            }
        }
    }
}

impl Shared {
    fn denied(&self) -> RwLockReadGuard<'_, Denied> {
        self.denied.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn denied_mut(&self) -> RwLockWriteGuard<'_, Denied> {
        self.denied.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out what is owed, in its order, and stops at the first that the engine refuses.
    async fn settle(&self) -> Result<(), StoreError> {
        if self.denied().owed.is_empty() {
            return Ok(());
        }
        let _turn = self.settling.lock().await;
        loop {
            let Some(owed) = self.denied().owed.front().cloned() else {
                return Ok(());
            };
            let outcome = match &owed {
                Owed::Account(account) => self.engine.remove_account(account).await.map(drop),
                Owed::Token(token) => self.engine.remove_token(token).await.map(drop),
            };
            match outcome {
                Ok(()) => tracing::info!("the deletion of {owed} is on the disk"),
                // Whoever asked for it waits for it, too, and may have been faster.
                Err(StoreError::NotFound(_)) => {}
                Err(error @ StoreError::GrantShared(_)) => {
                    tracing::error!(%error, "{owed} cannot be deleted and is there again");
                }
                Err(error) => return Err(error),
            }
            self.lift(&owed);
        }
    }

    /// Forgets a note.
    fn lift(&self, owed: &Owed) {
        let mut denied = self.denied_mut();
        denied.owed.retain(|other| other != owed);
        match owed {
            Owed::Account(account) => {
                denied.accounts.remove(account);
                denied.tokens.retain(|_, token| token.account.as_ref() != Some(account));
            }
            Owed::Token(token) => denied.lift_line(token),
        }
    }
}

impl Denied {
    fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    fn has_account(&self, account: &str) -> bool {
        self.accounts.contains_key(account)
    }

    fn has_token(&self, token: &TokenRecord) -> bool {
        self.tokens.contains_key(&token.id) || token.account.as_ref().is_some_and(|owner| self.has_account(owner))
    }

    /// Forgets a token and all that it made, which went with it.
    fn lift_line(&mut self, token: &TokenId) {
        let mut line = vec![*token];
        while let Some(maker) = line.pop() {
            self.tokens.remove(&maker);
            let made = self.tokens.values().filter(|token| token.parent == Some(maker));
            line.extend(made.map(|token| token.id));
        }
    }

    fn note(&mut self, owed: Owed) {
        if !self.owed.contains(&owed) {
            self.owed.push_back(owed);
        }
    }
}

impl std::fmt::Display for Owed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Account(account) => write!(f, "account '{account}'"),
            Self::Token(token) => write!(f, "access token {token}"),
        }
    }
}

#[async_trait]
impl Store for Deletions {
    async fn create_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        self.settled().await?.create_account(account, secrets).await
    }

    async fn replace_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        if self.denied().has_account(&account.account) {
            return Err(StoreError::NotFound("account"));
        }
        self.settled().await?.replace_account(account, secrets).await
    }

    async fn amend_account(&self, account: AccountRecord, secrets: Option<Amendment>) -> Result<(), StoreError> {
        if self.denied().has_account(&account.account) {
            return Err(StoreError::NotFound("account"));
        }
        self.settled().await?.amend_account(account, secrets).await
    }

    async fn amend_secrets(&self, account: &str, amendment: Amendment) -> Result<bool, StoreError> {
        if self.denied().has_account(account) {
            return Err(StoreError::NotFound("account"));
        }
        self.settled().await?.amend_secrets(account, amendment).await
    }

    async fn remove_account(&self, account: &str) -> Result<Vec<TokenId>, StoreError> {
        let record = self.account(account).await?.ok_or(StoreError::NotFound("account"))?;
        let sharers = self.sharers(account).await?;
        if !sharers.is_empty() {
            return Err(StoreError::GrantShared(sharers.join(", ")));
        }
        let tokens = self.tokens(Some(account), None, EVERYTHING).await?.entries;
        let ids: Vec<TokenId> = tokens.iter().map(|(token, _)| token.id).collect();
        let owed = Owed::Account(account.to_owned());
        {
            let mut denied = self.shared.denied_mut();
            denied.note(owed.clone());
            denied.accounts.insert(account.to_owned(), record);
            denied
                .tokens
                .extend(tokens.into_iter().map(|(token, _)| (token.id, token)));
        }
        let deletion = async {
            match self.engine().remove_account(account).await {
                // Whoever settles what is owed came first.
                Err(StoreError::NotFound(_)) => Ok(ids.clone()),
                outcome => outcome,
            }
        };
        Ok(self.carry_out(&owed, deletion).await?.unwrap_or(ids.clone()))
    }

    async fn account(&self, account: &str) -> Result<Option<AccountRecord>, StoreError> {
        if self.denied().has_account(account) {
            return Ok(None);
        }
        self.engine().account(account).await
    }

    async fn account_by_login(&self, name: &str) -> Result<Option<AccountRecord>, StoreError> {
        let found = self.engine().account_by_login(name).await?;
        Ok(found.filter(|account| !self.denied().has_account(&account.account)))
    }

    async fn account_secrets(&self, account: &str) -> Result<Option<AccountSecrets>, StoreError> {
        if self.denied().has_account(account) {
            return Ok(None);
        }
        self.engine().account_secrets(account).await
    }

    async fn accounts(&self, query: Option<&str>, page: Page) -> Result<Listing<AccountRecord>, StoreError> {
        if self.denied().accounts.is_empty() {
            return self.engine().accounts(query, page).await;
        }
        let all = self.engine().accounts(query, EVERYTHING).await?;
        let denied = self.denied();
        Ok(page_of(all, page, |account| !denied.has_account(&account.account)))
    }

    async fn accounts_after(&self, after: Option<&str>, count: usize) -> Result<Vec<AccountRecord>, StoreError> {
        let more = self.denied().accounts.len();
        let mut accounts = self.engine().accounts_after(after, count.saturating_add(more)).await?;
        let denied = self.denied();
        accounts.retain(|account| !denied.has_account(&account.account));
        accounts.truncate(count);
        Ok(accounts)
    }

    async fn sharers(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        let mut sharers = self.engine().sharers(owner).await?;
        let denied = self.denied();
        sharers.retain(|sharer| !denied.has_account(sharer));
        Ok(sharers)
    }

    async fn account_states(&self) -> Result<Vec<(AccountState, u64)>, StoreError> {
        let mut states = self.engine().account_states().await?;
        for account in self.denied().accounts.values() {
            if let Some((_, count)) = states.iter_mut().find(|(state, _)| *state == account.state) {
                *count = count.saturating_sub(1);
            }
        }
        Ok(states)
    }

    async fn create_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.settled().await?.create_token(token).await
    }

    async fn remove_token(&self, id: &TokenId) -> Result<Vec<TokenRecord>, StoreError> {
        let Some(record) = self.token(id).await? else {
            return Ok(Vec::new());
        };
        let line = self.line_of(record).await?;
        let owed = Owed::Token(*id);
        {
            let mut denied = self.shared.denied_mut();
            denied.note(owed.clone());
            denied.tokens.extend(line.iter().map(|token| (token.id, token.clone())));
        }
        let removed = self.carry_out(&owed, self.engine().remove_token(id)).await?;
        // Whoever settles what is owed may have come first.
        Ok(removed.filter(|removed| !removed.is_empty()).unwrap_or(line))
    }

    async fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let found = self.engine().token(id).await?;
        Ok(found.filter(|token| !self.denied().has_token(token)))
    }

    async fn tokens(
        &self,
        account: Option<&str>,
        query: Option<&str>,
        page: Page,
    ) -> Result<Listing<(TokenRecord, Option<TokenUse>)>, StoreError> {
        if self.denied().is_empty() {
            return self.engine().tokens(account, query, page).await;
        }
        let all = self.engine().tokens(account, query, EVERYTHING).await?;
        let denied = self.denied();
        Ok(page_of(all, page, |(token, _)| !denied.has_token(token)))
    }

    async fn token_use(&self, id: &TokenId) -> Result<Option<TokenUse>, StoreError> {
        if self.denied().tokens.contains_key(id) {
            return Ok(None);
        }
        self.engine().token_use(id).await
    }

    async fn token_count(&self) -> Result<u64, StoreError> {
        let count = self.engine().token_count().await?;
        let denied = u64::try_from(self.denied().tokens.len()).unwrap_or(u64::MAX);
        Ok(count.saturating_sub(denied))
    }

    fn record_token_use(&self, id: TokenId, last: TokenUse) {
        self.engine().record_token_use(id, last);
    }

    fn record_usage(&self, event: UsageEvent) {
        self.engine().record_usage(event);
    }

    async fn usage(&self, filter: &UsageFilter, page: Page) -> Result<Listing<UsageEvent>, StoreError> {
        self.engine().usage(filter, page).await
    }

    async fn sweep_usage(&self, now: Timestamp, retention: Duration, events_max: u64) -> Result<u64, StoreError> {
        self.engine().sweep_usage(now, retention, events_max).await
    }

    async fn upstreams(&self) -> Result<Vec<UpstreamRecord>, StoreError> {
        self.engine().upstreams().await
    }

    async fn keep_upstreams(&self, heard: Vec<UpstreamRecord>, forgotten: Vec<UpstreamId>) -> Result<(), StoreError> {
        self.engine().keep_upstreams(heard, forgotten).await
    }

    fn owes(&self, deletion: Deletion<'_>) -> bool {
        let denied = self.denied();
        match deletion {
            Deletion::Account(account) => denied.has_account(account),
            Deletion::Token(token) => denied.tokens.contains_key(token),
        }
    }

    fn derive_key(&self, purpose: &'static str) -> Zeroizing<[u8; 32]> {
        self.engine().derive_key(purpose)
    }

    fn health(&self) -> Result<(), StoreError> {
        self.engine().health()
    }

    async fn close(&self) -> Result<(), StoreError> {
        let settled = timeout(DELETION_WAIT, self.shared.settle()).await;
        if !matches!(settled, Ok(Ok(()))) {
            for owed in &self.denied().owed {
                tracing::error!("the deletion of {owed} was never written: after the start it is there again");
            }
        }
        self.engine().close().await
    }
}

/// A page of what may be seen of a listing.
fn page_of<T>(all: Listing<T>, page: Page, is_seen: impl Fn(&T) -> bool) -> Listing<T> {
    let seen: Vec<T> = all.entries.into_iter().filter(is_seen).collect();
    Listing {
        total: u64::try_from(seen.len()).unwrap_or(u64::MAX),
        entries: seen
            .into_iter()
            .skip(page.page.saturating_mul(page.size))
            .take(page.size)
            .collect(),
    }
}

/// A listing as a whole. Taken only while something is owed, and of one account's tokens.
const EVERYTHING: Page = Page {
    page: 0,
    size: usize::MAX,
};

/// How often the engine is asked again; it notices by itself, as often, that there is room again.
const RETRY: Duration = Duration::from_secs(1);
