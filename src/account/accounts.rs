//! The root of all accounts: finds an account's supervisor, starting it if nobody needed it before.
//!
//! **The slot protocol.** An account has at most one slot in the map and a slot at most one living supervisor: its
//! `starting` lock is held from reading the store until the supervisor runs. A supervisor that ends of its own accord first
//! marks its slot as retired; whoever finds a retired slot looks into the map again. A question that meets a supervisor just
//! ending is dropped with its mailbox, its asker notices, and asks again.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::sync::{broadcast, watch};

use super::AccountStatus;
use super::notice::Notice;
use super::sessions::{LiveSession, SessionLease, VisitLease};
use super::shared::{Occupant, Shared, Slot, lock};
use super::supervisor::{AccountSupervisor, Message, Purpose, Setup};
use super::target::UpstreamTarget;
use super::writes::{Credentials, Order, Replacement};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::fault::{Fault, FaultKind};
use crate::limits::REVOCATIONS_MAX;
use crate::oauth::TokenSource;
use crate::proto::session::Goodbye;
use crate::proto::{CredentialSecret, Protocol};
use crate::store::{AccountRecord, AccountSecrets, Failures, SharedStore, StoreError, TokenId};

/// All accounts. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub(super) shared: Arc<Shared>,
}

/// Why a question got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    UnknownAccount,
    Store(StoreError),
    Draining,
    TimedOut,
    Defect,
}

impl Accounts {
    /// All accounts of `store`. No supervisor is started yet. Must be called within a runtime: a task watches `config`.
    pub fn start(store: SharedStore, tokens: impl TokenSource, config: watch::Receiver<Arc<Config>>) -> Self {
        let shared = Arc::new(Shared::new(store, Arc::new(tokens), config.clone()));
        tokio::spawn(watch_config(Arc::downgrade(&shared), config));
        Self { shared }
    }

    /// Registers a session that logs in. It is told through [`LiveSession::end`] when it must end; dropping the lease
    /// unregisters it. A submission beyond the provider's limit waits up to [`crate::limits::SUBMISSION_SLOT_WAIT`] for
    /// another to end; dropping the future gives its place in that queue up.
    ///
    /// # Errors
    /// [`FaultKind::AccountLimit`], [`FaultKind::AccountDisabled`]; [`FaultKind::UnknownCredentials`] if the account or the
    /// session's access token has been deleted meanwhile; [`FaultKind::Unavailable`].
    pub async fn open_session(&self, account: &str, session: LiveSession) -> Result<SessionLease, Fault> {
        let token = session.token;
        let timeout = self.login_timeout();
        let lease = self
            .ask(account, timeout, |reply| Message::OpenSession(session.clone(), reply))
            .await??;
        // IMPORTANT: after the session is registered. A token deleted before was checked too early by whoever checked it; one
        // deleted from now on finds the session in the register.
        match self.shared.store.token(&token).await {
            Ok(Some(_)) => Ok(lease),
            Ok(None) => Err(Fault::with_detail(
                FaultKind::UnknownCredentials,
                "the access token was deleted meanwhile",
            )),
            Err(error) => Err(Fault::unavailable(error)),
        }
    }

    /// Where an account's mailbox is and what to present there. If `refused` is the generation of the current token, it is
    /// replaced first, at most once a minute for each account. Dropping the future cancels no refresh.
    ///
    /// # Errors
    /// [`FaultKind::AuthorizationGone`], [`FaultKind::AppRefused`], [`FaultKind::Unavailable`],
    /// [`FaultKind::UpstreamRefused`] (the refused token is the only one: it cannot be replaced, or it is too soon to do so once
    /// more), [`FaultKind::AccountDisabled`], [`FaultKind::ProtocolNotOffered`], [`FaultKind::UnknownCredentials`] if the
    /// account has been deleted.
    pub async fn credential(
        &self,
        account: &str,
        protocol: Protocol,
        refused: Option<u64>,
    ) -> Result<UpstreamTarget, Fault> {
        self.ask_credential(account, protocol, Purpose::Login { refused }).await
    }

    /// As [`Accounts::credential`], for a verification: a password is handed out although an upstream has refused it before,
    /// so that the account heals where that was a mistake.
    ///
    /// # Errors
    /// As [`Accounts::credential`].
    pub async fn credential_to_verify(
        &self,
        account: &str,
        protocol: Protocol,
        refused: Option<u64>,
    ) -> Result<UpstreamTarget, Fault> {
        self.ask_credential(account, protocol, Purpose::Verification { refused })
            .await
    }

    /// A place among the account's sessions for a verification over `protocol`: the provider counts its login like any other.
    ///
    /// # Errors
    /// [`FaultKind::AccountLimit`], [`FaultKind::UnknownCredentials`] if the account has been deleted,
    /// [`FaultKind::Unavailable`].
    pub async fn open_visit(&self, account: &str, protocol: Protocol) -> Result<VisitLease, Fault> {
        let question = |reply| Message::Visit(protocol, reply);
        self.ask(account, self.login_timeout(), question).await?
    }

    /// The upstream accepted a credential at `protocol`; `grant` is [`UpstreamTarget::grant`].
    pub fn report_accepted(&self, account: &str, grant: u64, protocol: Protocol) {
        self.tell(account, Message::UpstreamAccepted { grant, protocol });
    }

    /// A login over `protocol` failed for `fault`, and the client has been told so; `grant` is [`UpstreamTarget::grant`], and
    /// `None` where there was no credential to present. What is the client's own doing changes nothing. All else is counted, is
    /// the account's last error, and makes it `failing` unless another protocol is good.
    pub fn report_failed(&self, account: &str, grant: Option<u64>, protocol: Protocol, fault: &Fault) {
        let fault = fault.clone();
        let message = Message::LoginFailed { grant, protocol, fault };
        self.tell(account, message);
    }

    /// Adds an account, durably.
    ///
    /// # Errors
    /// As [`crate::store::Store::create_account`].
    pub async fn create(&self, record: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        let created = record.clone();
        self.shared.store.create_account(record, secrets).await?;
        self.shared.roll.note(&created);
        Ok(())
    }

    /// Changes an account, durably, and its credentials where `secrets` are given, which ends `needs-authorization` and any
    /// back-off. The record's state matters only for disabling and enabling, and where it comes with new credentials as active,
    /// because a login has proved them; else the account's own is kept.
    ///
    /// # Errors
    /// As [`crate::store::Store::replace_account`].
    pub async fn replace(&self, record: AccountRecord, secrets: Option<AccountSecrets>) -> Result<(), StoreError> {
        let account = record.account.clone();
        let order = |reply| {
            let credentials = secrets.clone().map_or(Credentials::Kept, Credentials::New);
            Message::Order(Order::Replace(Box::new(Replacement {
                record: record.clone(),
                credentials,
                reply,
            })))
        };
        self.ask(&account, ORDER_TIMEOUT, order).await??;
        self.shared.roll.note(&record);
        self.shared.roll.note_gone();
        Ok(())
    }

    /// Deletes an account with its access tokens, durably, and ends its sessions. Its grant is given back to the provider, which is
    /// not waited for. Returns the ids of the tokens.
    ///
    /// # Errors
    /// As [`crate::store::Store::remove_account`].
    pub async fn remove(&self, account: &str) -> Result<Vec<TokenId>, StoreError> {
        let removed = self
            .ask(account, ORDER_TIMEOUT, |reply| Message::Order(Order::Remove(reply)))
            .await??;
        self.shared.roll.note_gone();
        Ok(removed)
    }

    /// An access token has been deleted: its sessions end.
    pub fn token_removed(&self, account: &str, token: &TokenId) {
        let slot = lock(&self.shared.slots).get(account).cloned();
        if let Some(slot) = slot {
            slot.register.end(Some(token), Goodbye::TokenDeleted);
        }
    }

    /// How an account's credential is. Starts no supervisor.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and what the store says.
    pub async fn status(&self, account: &str) -> Result<AccountStatus, StoreError> {
        let store = &self.shared.store;
        let record = store.account(account).await?.ok_or(StoreError::NotFound("account"))?;
        let owner = record.shares_grant_of.clone();
        let own = self.own_status(record).await?;
        let Some(owner) = owner else { return Ok(own) };
        match store.account(&owner).await? {
            Some(owner) => Ok(own.sharing(self.own_status(owner).await?)),
            None => Ok(own),
        }
    }

    async fn own_status(&self, record: AccountRecord) -> Result<AccountStatus, StoreError> {
        let account = record.account.as_str();
        if let Some(supervisor) = self.running(account)
            && let Ok(CallResult::Success(status)) = supervisor.call(Message::Status, Some(ORDER_TIMEOUT)).await
        {
            return Ok(status);
        }
        let store = &self.shared.store;
        let secrets = store.account_secrets(account).await?.unwrap_or_default();
        let grant = secrets.grant.unwrap_or_default();
        Ok(AccountStatus {
            state: record.state,
            last_error: record.last_error,
            failures: record.failures,
            next_try: None,
            expires: grant.expires,
            scope: grant.scope,
            grant_ends: grant.ends,
        })
    }

    /// News of accounts from now on. Whoever falls behind by [`crate::limits::NOTICES_MAX`] loses the oldest.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.shared.notices.subscribe()
    }

    /// The accounts whose grants end soon, in the order of their ids, as far as they have been looked at since the start.
    pub fn ending(&self) -> Vec<(String, Timestamp)> {
        let ending = lock(&self.shared.ending);
        ending.iter().map(|(account, ends)| (account.clone(), *ends)).collect()
    }

    /// The accounts with logins that have failed since one succeeded, in the order of their ids, as far as their supervisors
    /// run.
    pub fn failing(&self) -> Vec<(String, Failures)> {
        let failing = lock(&self.shared.failing);
        failing
            .iter()
            .map(|(account, failures)| (account.clone(), *failures))
            .collect()
    }

    /// Whether everything that must not be lost is on disk. `Err` says what is not, for `/readyz`.
    ///
    /// # Errors
    /// A message for an operator.
    pub fn health(&self) -> Result<(), String> {
        match lock(&self.shared.unsaved).len() {
            0 => Ok(()),
            count => Err(format!(
                "the grants of {count} accounts are in memory only: the store refuses to write them"
            )),
        }
    }

    /// Stops: sends no more refreshes, not even those that wait for their turn at a provider, waits for those on their way and until what they brought is on disk, then ends all
    /// supervisors. Gives up after as long as a request may take and a few seconds for the disk.
    pub async fn drain(&self) {
        self.shared.is_draining.store(true, Ordering::SeqCst);
        let slots = lock(&self.shared.slots).values().cloned().collect::<Vec<_>>();
        let timeout = self.shared.config().limits.token_request_timeout + DRAIN_WRITE_TIME;
        let deadline = tokio::time::Instant::now() + timeout;
        let drains = slots.into_iter().map(|slot| async move {
            // One that is being started was let in before the door was shut.
            let _starting = slot.starting.lock().await;
            slot.grants.hurry();
            if let Some(supervisor) = slot.supervisor() {
                if let Ok(CallResult::Timeout) = supervisor.call(Message::Drain, Some(timeout)).await {
                    tracing::error!("a refresh or a write of its account did not end in time");
                }
                supervisor.stop(None);
            }
            // What a supervisor leaves behind that died before.
            if tokio::time::timeout_at(deadline, slot.grants.kept()).await.is_err() {
                tracing::error!("what a refresh brought was not written in time");
            }
        });
        futures_util::future::join_all(drains).await;
        // Whoever has all permits knows that nobody gives a grant back any more.
        let given_back = self.shared.revocations.acquire_many(REVOCATIONS_MAX);
        if tokio::time::timeout(timeout, given_back).await.is_err() {
            tracing::warn!("the grants of removed accounts could not all be given back in time");
        }
    }

    /// Asks an account's supervisor, and once more if it was just ending.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        account: &str,
        timeout: Duration,
        question: impl Fn(RpcReplyPort<T>) -> Message,
    ) -> Result<T, Unanswered> {
        for _ in 0..ATTEMPTS_MAX {
            let supervisor = self.supervisor(account).await?;
            match supervisor.call(&question, Some(timeout)).await {
                Ok(CallResult::Success(answer)) => return Ok(answer),
                Ok(CallResult::Timeout) => return Err(Unanswered::TimedOut),
                // It is ending, or has just failed: what it was asked is not answered any more.
                Ok(CallResult::SenderError) | Err(_) => drop(supervisor.wait(Some(ENDING_TIME)).await),
            }
        }
        Err(Unanswered::Defect)
    }

    /// What an account presents that shares the grant of `owner`.
    pub(super) async fn lend(&self, owner: &str, refused: Option<u64>) -> Result<CredentialSecret, Fault> {
        let question = |reply| Message::Lend { refused, reply };
        match self.ask(owner, self.login_timeout(), question).await {
            Ok(lent) => lent,
            Err(Unanswered::UnknownAccount) => Err(Fault::with_detail(
                FaultKind::AuthorizationGone,
                format!("the account '{owner}', whose grant is shared, is gone"),
            )),
            Err(why) => Err(why.into()),
        }
    }

    /// The accounts that have `shared` in common.
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
        }
    }

    /// The configuration in effect.
    pub(super) fn config(&self) -> Arc<Config> {
        self.shared.config()
    }

    /// Where accounts are kept.
    pub(super) fn store(&self) -> &SharedStore {
        &self.shared.store
    }

    /// Takes note of what the store says of an account's end, unless a supervisor knows better.
    pub(super) fn note_ending(&self, account: &str, ends: Option<Timestamp>) {
        if self.running(account).is_none() {
            self.shared.note_ending(account, ends);
        }
    }

    async fn ask_credential(
        &self,
        account: &str,
        protocol: Protocol,
        purpose: Purpose,
    ) -> Result<UpstreamTarget, Fault> {
        let question = |reply| Message::Credential {
            protocol,
            purpose,
            reply,
        };
        self.ask(account, self.login_timeout(), question).await?
    }

    /// Tells an account's supervisor something that only a running one needs to know.
    fn tell(&self, account: &str, message: Message) {
        if let Some(supervisor) = self.running(account)
            && supervisor.send_message(message).is_err()
        {
            tracing::debug!(account, "a report came after the account's supervisor had ended");
        }
    }

    /// Whether an account's supervisor runs.
    #[cfg(test)]
    pub(super) fn is_supervised(&self, account: &str) -> bool {
        self.running(account).is_some()
    }

    /// Ends a supervisor as a panic would.
    #[cfg(test)]
    pub(super) fn kill_supervisor(&self, account: &str) {
        self.running(account).expect("it runs").kill();
    }

    fn running(&self, account: &str) -> Option<ActorRef<Message>> {
        let slot = lock(&self.shared.slots).get(account).cloned()?;
        slot.supervisor()
    }

    async fn supervisor(&self, account: &str) -> Result<ActorRef<Message>, Unanswered> {
        loop {
            let slot = Arc::clone(lock(&self.shared.slots).entry(account.to_owned()).or_default());
            if let Some(supervisor) = slot.supervisor() {
                return Ok(supervisor);
            }
            let _starting = slot.starting.lock().await;
            // Somebody else may have been here meanwhile.
            if let Some(supervisor) = slot.supervisor() {
                return Ok(supervisor);
            }
            if matches!(*lock(&slot.occupant), Occupant::Retired) {
                continue;
            }
            let started = self.start_supervisor(account, &slot).await;
            match &started {
                Ok(supervisor) => *lock(&slot.occupant) = Occupant::Supervisor(supervisor.clone()),
                // The register of sessions that outlived a supervisor is kept until another can be started, as is what the disk
                // has not taken yet.
                Err(why) if !matches!(why, Unanswered::UnknownAccount) && !slot.is_dispensable() => {}
                Err(_) => self.shared.retire(account, &slot),
            }
            return started;
        }
    }

    async fn start_supervisor(&self, account: &str, slot: &Arc<Slot>) -> Result<ActorRef<Message>, Unanswered> {
        if self.shared.is_draining() {
            return Err(Unanswered::Draining);
        }
        // IMPORTANT: before the store is read. What a supervisor that died has asked for is in it then, and a refresh token that was
        // presented already is not presented again.
        slot.grants.settled().await;
        let store = &self.shared.store;
        let record = store.account(account).await.map_err(Unanswered::Store)?;
        let record = record.ok_or(Unanswered::UnknownAccount)?;
        let secrets = store.account_secrets(account).await.map_err(Unanswered::Store)?;
        let mut secrets = secrets.unwrap_or_default();
        slot.grants.adopt(&mut secrets);
        let setup = Setup {
            record,
            secrets,
            shared: Arc::clone(&self.shared),
            slot: Arc::clone(slot),
        };
        match AccountSupervisor::spawn(None, AccountSupervisor, setup).await {
            Ok((supervisor, _)) => Ok(supervisor),
            Err(error) => {
                tracing::error!(account, %error, "an account's supervisor cannot be started");
                Err(Unanswered::Defect)
            }
        }
    }

    fn login_timeout(&self) -> Duration {
        self.shared.config().limits.login_timeout
    }
}

impl From<Unanswered> for Fault {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::UnknownAccount => {
                Self::with_detail(FaultKind::UnknownCredentials, "the account was deleted meanwhile")
            }
            Unanswered::Store(error) => Self::unavailable(error),
            Unanswered::Draining => Self::unavailable("the proxy shuts down"),
            Unanswered::TimedOut => Self::unavailable("the account's credential was not there in time"),
            Unanswered::Defect => Self::with_detail(FaultKind::Internal, "the account's supervisor fails"),
        }
    }
}

impl From<Unanswered> for StoreError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::UnknownAccount => Self::NotFound("account"),
            Unanswered::Store(error) => error,
            Unanswered::Draining => Self::Closed,
            Unanswered::TimedOut => Self::Unwritable("the account was not written in time".to_owned()),
            Unanswered::Defect => Self::Unwritable("the account's supervisor fails".to_owned()),
        }
    }
}

/// Tells everybody whom it may concern that the configuration was reloaded, for as long as there are accounts.
async fn watch_config(shared: Weak<Shared>, mut config: watch::Receiver<Arc<Config>>) {
    while config.changed().await.is_ok() {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.tokens.reload();
        let slots = lock(&shared.slots).values().cloned().collect::<Vec<_>>();
        for slot in slots {
            if let Some(supervisor) = slot.supervisor() {
                // One that is just ending needs no news.
                let _ = supervisor.send_message(Message::ConfigChanged);
            }
        }
    }
}

/// How often a supervisor is looked for that ends just when it is asked.
const ATTEMPTS_MAX: usize = 4;

/// How long to wait for a supervisor that is ending to have ended.
const ENDING_TIME: Duration = Duration::from_millis(100);

/// How long an administrator waits for a write. One that comes later is carried out all the same.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long stopping waits for the disk after the longest refresh.
const DRAIN_WRITE_TIME: Duration = Duration::from_secs(10);
