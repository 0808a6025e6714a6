//! What refreshes bring, from the request that is sent until the disk has the answer. It belongs to the account's slot and not
//! to its supervisor, so that a supervisor that dies loses nothing: the next waits for what is under way, and reads it then.
//!
//! ```text
//!   refresh task:  request ──answer──> keep ──written, or refused──> the supervisor is told, and the grant is used
//!                                       └── refused ──> retry: until written, or until another grant is in its place
//! ```
//! **Whose grant the disk has.** A refresh token names its grant, and a rotation names it anew. A [`Line`] knows the names that
//! the present grant may have on the disk. What is kept replaces a grant of one of these names and no other, so that an
//! administrator's new credentials are never undone by an answer that comes late. That comparison is made by the store, where
//! nothing can come between it and the write.
//!
//! How it fails: a grant that the disk refuses stays here, is used, makes the daemon unready ([`Shared::note_unsaved`]) and is
//! written when there is room. Only a process that ends before loses it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::keeping;
use super::shared::{Shared, Slot, lock};
use crate::clock::Timestamp;
use crate::limits::{ACCOUNT_WRITE_RETRY_MAX, ACCOUNT_WRITE_RETRY_MIN, GRANT_NAMES_MAX};
use crate::oauth::TokenAnswer;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{AccountSecrets, Amendment, Grant, StoreError};

/// What the disk may not have yet of one account's grant.
#[derive(Debug, Default)]
pub(super) struct Grants {
    pending: watch::Sender<Pending>,
    line: Mutex<Line>,
    /// Wakes the retry before its time.
    hurry: Notify,
}

/// What is waited for.
#[derive(Debug, Default, Clone, Copy)]
struct Pending {
    /// Requests on their way, and answers whose first write has not ended.
    under_way: usize,
    /// Whether the disk has refused a grant that is in use.
    is_refused: bool,
}

/// The names of the present grant.
#[derive(Debug, Default)]
struct Line {
    /// Counts the grants that an account has had.
    number: u64,
    /// Counts what was to be written of the present one. The last alone matters.
    turn: u64,
    /// The refresh tokens that the disk may have, the oldest first. An app's grant has none.
    names: Vec<Name>,
    /// What the disk has refused.
    refused: Option<Grant>,
}

type Name = Option<SecretString>;

/// A request that was sent for the grant of one line. Whoever waits for all of them does so until it is dropped.
pub(super) struct UnderWay {
    slot: Arc<Slot>,
    number: u64,
}

/// One thing to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    number: u64,
    turn: u64,
}

/// What became of a grant that was to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// The disk has it.
    Written,
    /// The disk refuses it for now. It is used, and its write is tried again.
    Refused,
    /// Other credentials are in its place.
    Superseded,
    /// The account is gone.
    AccountGone,
}

impl Grants {
    /// Waits until no request is on its way and every answer has been written or refused.
    pub(super) async fn settled(&self) {
        // The sender is here, so that the channel is not closed.
        let _ = self
            .pending
            .subscribe()
            .wait_for(|pending| pending.under_way == 0)
            .await;
    }

    /// The same, and until the disk has taken everything.
    pub(super) async fn kept(&self) {
        let _ = self.pending.subscribe().wait_for(Pending::is_over).await;
    }

    /// Whether nothing is on its way and the disk has everything.
    pub(super) fn is_kept(&self) -> bool {
        self.pending.borrow().is_over()
    }

    /// The program stops: what was refused is tried at once.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// A supervisor starts with `secrets` from the store: it gets the grant that the disk has refused, if there is one.
    pub(super) fn adopt(&self, secrets: &mut AccountSecrets) {
        let line = lock(&self.line);
        let stored = name(secrets.grant.as_ref());
        match &line.refused {
            Some(refused) if line.has(stored.as_ref()) => secrets.grant = Some(refused.clone()),
            _ => self.begin(line, stored),
        }
    }

    /// The store has taken other credentials, `secrets`.
    pub(super) fn replaced(&self, secrets: &AccountSecrets) {
        self.begin(lock(&self.line), name(secrets.grant.as_ref()));
    }

    /// Whether `secrets` hold a refresh token of the grant that the disk has refused.
    pub(super) fn is_refused_grant_of(&self, secrets: &AccountSecrets) -> bool {
        let line = lock(&self.line);
        let name = name(secrets.grant.as_ref());
        line.refused.is_some() && name.is_some() && line.has(name.as_ref())
    }

    fn begin(&self, mut line: MutexGuard<'_, Line>, name: Name) {
        line.number = line.number.saturating_add(1);
        line.turn = 0;
        line.names = vec![name];
        line.refused = None;
        self.show(&line);
    }

    /// Takes a turn for `grant`; `None` if its line is not the present one any more.
    fn enter(&self, number: u64, grant: &Grant) -> Option<(Mark, Vec<Name>)> {
        let mut line = lock(&self.line);
        if line.number != number {
            return None;
        }
        line.turn = line.turn.saturating_add(1);
        line.add(name(Some(grant)));
        let turn = line.turn;
        Some((Mark { number, turn }, line.names.clone()))
    }

    /// What the disk has refused of `mark`, unless something newer is to be written.
    fn refused(&self, mark: Mark) -> Option<(Grant, Vec<Name>)> {
        let line = lock(&self.line);
        let refused = line.refused.clone().filter(|_| line.mark() == mark)?;
        Some((refused, line.names.clone()))
    }

    /// Takes note of how the write of `grant` ended.
    fn settle(&self, mark: Mark, grant: &Grant, result: &Result<bool, StoreError>) -> Kept {
        let kept = match result {
            Ok(true) => Kept::Written,
            Ok(false) => Kept::Superseded,
            Err(StoreError::NotFound(_)) => Kept::AccountGone,
            Err(_) => Kept::Refused,
        };
        let mut line = lock(&self.line);
        if line.mark() == mark {
            line.refused = Some(grant.clone()).filter(|_| kept == Kept::Refused);
            if kept == Kept::Written {
                line.names = vec![name(Some(grant))];
            }
            self.show(&line);
        }
        kept
    }

    fn show(&self, line: &Line) {
        let is_refused = line.refused.is_some();
        self.pending
            .send_if_modified(|pending| std::mem::replace(&mut pending.is_refused, is_refused) != is_refused);
    }
}

impl Pending {
    fn is_over(&self) -> bool {
        self.under_way == 0 && !self.is_refused
    }
}

impl Line {
    fn mark(&self) -> Mark {
        Mark {
            number: self.number,
            turn: self.turn,
        }
    }

    fn has(&self, name: Option<&SecretString>) -> bool {
        is_among(&self.names, name)
    }

    fn add(&mut self, name: Name) {
        if self.has(name.as_ref()) {
            return;
        }
        if self.names.len() >= GRANT_NAMES_MAX {
            // The oldest is the one that is surely on the disk, unless a write that failed was done all the same.
            self.names.remove(1);
        }
        self.names.push(name);
    }
}

impl UnderWay {
    /// A request is sent for the grant that the account of `slot` has now.
    pub(super) fn begin(slot: &Arc<Slot>) -> Self {
        let slot = Arc::clone(slot);
        let number = lock(&slot.grants.line).number;
        slot.grants.pending.send_modify(|pending| pending.under_way += 1);
        Self { slot, number }
    }

    /// Keeps what the request brought. Returns when the disk has taken or refused it; a refused one is tried again by a task of
    /// its own.
    pub(super) async fn keep(&self, shared: &Arc<Shared>, account: &str, grant: &Grant) -> Kept {
        let grants = &self.slot.grants;
        let Some((mark, names)) = grants.enter(self.number, grant) else {
            return Kept::Superseded;
        };
        let result = write(shared, account, names, grant.clone()).await;
        let kept = grants.settle(mark, grant, &result);
        shared.note_unsaved(account, grants.pending.borrow().is_refused);
        if let (Kept::Refused, Err(error)) = (kept, result) {
            tracing::error!(%account, %error, "an account's grant cannot be written; it is kept in memory");
            tokio::spawn(retry(
                Arc::clone(&self.slot),
                Arc::clone(shared),
                account.to_owned(),
                mark,
            ));
        }
        kept
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let pending = &self.slot.grants.pending;
        pending.send_modify(|pending| pending.under_way = pending.under_way.saturating_sub(1));
    }
}

/// What `grant` becomes by an answer that came at `now`. Without a new refresh token the old one stays (RFC 6749 §6), as do the
/// scopes that an answer does not tell (§5.1).
pub(super) fn renewed(mut grant: Grant, answer: TokenAnswer, now: Timestamp) -> Grant {
    if let Some(refresh_token) = answer.refresh_token {
        grant.refresh_token = Some(refresh_token);
    }
    if let Some(scopes) = answer.scopes {
        grant.scope = Some(scopes.join(" "));
    }
    grant.names_no_scopes |= answer.had_without_scopes;
    keeping::note_end(&mut grant, answer.ends_in, now);
    grant.user = answer.user;
    grant.access_token = Some(answer.access_token);
    grant.obtained = Some(now);
    grant.expires = Some(now.after(answer.expires_in));
    grant
}

/// Tries again to write what the disk has refused, until it is written or something newer is to be.
async fn retry(slot: Arc<Slot>, shared: Arc<Shared>, account: String, mark: Mark) {
    let grants = &slot.grants;
    for failures in 0_u32.. {
        tokio::select! {
            () = tokio::time::sleep(retry_wait(failures)) => {}
            () = grants.hurry.notified() => {}
        }
        let Some((grant, names)) = grants.refused(mark) else {
            return;
        };
        let result = write(&shared, &account, names, grant.clone()).await;
        let kept = grants.settle(mark, &grant, &result);
        shared.note_unsaved(&account, grants.pending.borrow().is_refused);
        match (kept, result) {
            (Kept::Refused, Err(StoreError::Closed)) => return,
            (Kept::Refused, _) => tracing::debug!(%account, "an account's grant still cannot be written"),
            (Kept::Written, _) => return tracing::info!(%account, "the account's grant is written"),
            (Kept::Superseded | Kept::AccountGone, _) => return,
        }
    }
}

/// Replaces the grant that the store has of `account`, if it is one of `names`.
async fn write(shared: &Shared, account: &str, names: Vec<Name>, mut grant: Grant) -> Result<bool, StoreError> {
    let amendment: Amendment = Box::new(move |secrets| {
        if !is_among(&names, name(secrets.grant.as_ref()).as_ref()) {
            return false;
        }
        // Whoever was warned while the request was under way is not warned again.
        let warned_of = secrets.grant.as_ref().and_then(|stored| stored.warned_of);
        grant.warned_of = grant.warned_of.max(warned_of);
        secrets.grant = Some(grant);
        true
    });
    shared.store.amend_secrets(account, amendment).await
}

fn is_among(names: &[Name], name: Option<&SecretString>) -> bool {
    let wanted = name.map(ExposeSecret::expose_secret);
    let mut names = names.iter().map(|one| one.as_ref().map(ExposeSecret::expose_secret));
    names.any(|one| one == wanted)
}

/// Whether `grant` has this refresh token, or none where that is `None`.
pub(super) fn is_named(grant: &Grant, refresh_token: Option<&SecretString>) -> bool {
    is_among(std::slice::from_ref(&grant.refresh_token), refresh_token)
}

fn name(grant: Option<&Grant>) -> Name {
    grant?.refresh_token.clone()
}

/// How long to wait after so many failed attempts to write something of an account.
pub(super) fn retry_wait(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    ACCOUNT_WRITE_RETRY_MIN
        .saturating_mul(factor)
        .min(ACCOUNT_WRITE_RETRY_MAX)
}
