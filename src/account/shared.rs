//! What supervisors and their root have in common: the slots of all accounts, and what is told of each without asking it.
//!
//! Every lock here is held for a single call.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{ActorRef, ActorStatus};
use tokio::sync::{Semaphore, broadcast, watch};

use super::grants::Grants;
use super::notice::Notice;
use super::roll::Roll;
use super::sessions::Register;
use super::supervisor::Message;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::limits::{NOTICES_MAX, REFRESHES_PER_PROVIDER_MAX, REVOCATIONS_MAX};
use crate::oauth::TokenSource;
use crate::store::{Failures, SharedStore};

/// What supervisors and their root have in common.
pub(super) struct Shared {
    pub(super) store: SharedStore,
    pub(super) tokens: Arc<dyn TokenSource>,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) slots: Mutex<HashMap<String, Arc<Slot>>>,
    limiters: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// The accounts with a grant that the disk has refused.
    pub(super) unsaved: Mutex<BTreeSet<String>>,
    /// The accounts whose grant ends soon, and when.
    pub(super) ending: Mutex<BTreeMap<String, Timestamp>>,
    /// The accounts whose logins fail.
    pub(super) failing: Mutex<BTreeMap<String, Failures>>,
    pub(super) notices: broadcast::Sender<Notice>,
    /// Which kinds of accounts there are.
    pub(super) roll: Roll,
    /// What bounds the grants that are being given back.
    pub(super) revocations: Semaphore,
    pub(super) is_draining: AtomicBool,
}

/// An account's place in the map.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) register: Register,
    pub(super) grants: Grants,
    pub(super) occupant: Mutex<Occupant>,
    /// Held by whoever starts a supervisor.
    pub(super) starting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
pub(super) enum Occupant {
    #[default]
    Nobody,
    Supervisor(ActorRef<Message>),
    /// The slot is not in the map any more.
    Retired,
}

impl Shared {
    /// Of the accounts in `store`, of which nobody has asked for any yet.
    pub(super) fn new(store: SharedStore, tokens: Arc<dyn TokenSource>, config: watch::Receiver<Arc<Config>>) -> Self {
        Self {
            store,
            tokens,
            config,
            slots: Mutex::default(),
            limiters: Mutex::default(),
            unsaved: Mutex::default(),
            ending: Mutex::default(),
            failing: Mutex::default(),
            notices: broadcast::Sender::new(NOTICES_MAX),
            roll: Roll::default(),
            revocations: Semaphore::new(REVOCATIONS),
            is_draining: AtomicBool::new(false),
        }
    }

    /// The configuration in effect.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Whether the program stops.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }

    /// What bounds the refresh requests in progress at one provider.
    pub(super) fn limiter(&self, provider: &str) -> Arc<Semaphore> {
        let mut limiters = lock(&self.limiters);
        let make = || Arc::new(Semaphore::new(REFRESHES_PER_PROVIDER_MAX));
        Arc::clone(limiters.entry(provider.to_owned()).or_insert_with(make))
    }

    /// Whether an account has a grant that the disk has refused.
    pub(super) fn note_unsaved(&self, account: &str, is_unsaved: bool) {
        let mut unsaved = lock(&self.unsaved);
        if is_unsaved {
            unsaved.insert(account.to_owned());
        } else if !unsaved.is_empty() {
            unsaved.remove(account);
        }
    }

    /// When an account's grant ends, if that is soon.
    pub(super) fn note_ending(&self, account: &str, ends: Option<Timestamp>) {
        let mut ending = lock(&self.ending);
        if let Some(ends) = ends {
            ending.insert(account.to_owned(), ends);
        } else if !ending.is_empty() {
            ending.remove(account);
        }
    }

    /// The failed logins of an account, if there are any.
    pub(super) fn note_failing(&self, account: &str, failures: Option<Failures>) {
        let mut failing = lock(&self.failing);
        if let Some(failures) = failures {
            failing.insert(account.to_owned(), failures);
        } else if !failing.is_empty() {
            failing.remove(account);
        }
    }

    /// Tells whoever listens.
    pub(super) fn publish(&self, notice: Notice) {
        // An error says that nobody does.
        let _ = self.notices.send(notice);
    }

    /// Takes a slot out of the map, so that its supervisor can end.
    pub(super) fn retire(&self, account: &str, slot: &Arc<Slot>) {
        *lock(&slot.occupant) = Occupant::Retired;
        let mut slots = lock(&self.slots);
        if slots.get(account).is_some_and(|mapped| Arc::ptr_eq(mapped, slot)) {
            slots.remove(account);
        }
    }
}

impl Slot {
    /// Whether nothing would be lost with it.
    pub(super) fn is_dispensable(&self) -> bool {
        self.register.is_empty() && self.grants.is_kept()
    }

    /// The supervisor, while it lives.
    pub(super) fn supervisor(&self) -> Option<ActorRef<Message>> {
        match &*lock(&self.occupant) {
            Occupant::Supervisor(supervisor) if is_alive(supervisor) => Some(supervisor.clone()),
            _ => None,
        }
    }
}

fn is_alive(supervisor: &ActorRef<Message>) -> bool {
    matches!(
        supervisor.get_status(),
        ActorStatus::Unstarted | ActorStatus::Starting | ActorStatus::Running | ActorStatus::Upgrading
    )
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under these locks is a single call, so that a panic beside it leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// [`REVOCATIONS_MAX`], as the semaphore counts.
const REVOCATIONS: usize = REVOCATIONS_MAX as usize;
