//! What readers share with the writer's thread: the open database, the store's health and its counts.
//!
//! Every lock here is held for a copy at most, so that a worker of the runtime never waits for one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::meta::Counts;
use super::room;
use super::tables::Tables;
use crate::clock;
use crate::limits::STORE_COMMIT_SLOW;
use crate::span::Span;
use crate::store::StoreError;

/// See the module.
pub(super) struct Shared {
    tables: RwLock<Result<Arc<Tables>, StoreError>>,
    health: RwLock<Result<(), StoreError>>,
    counts: RwLock<Counts>,
    shed: AtomicU64,
    /// Since when the writer has been at work on the disk, if it is.
    busy_since: RwLock<Option<Instant>>,
    /// [`room::RESERVE_BYTES`]; tests pretend that the disk is full by raising it.
    reserve: AtomicU64,
    /// [`room::DELETION_BYTES`]; likewise.
    deletion_room: AtomicU64,
}

impl Shared {
    /// Around an open database, healthy, with nothing counted yet.
    pub(super) fn new(tables: Tables) -> Self {
        Self {
            tables: RwLock::new(Ok(Arc::new(tables))),
            health: RwLock::new(Ok(())),
            counts: RwLock::default(),
            shed: AtomicU64::new(0),
            busy_since: RwLock::new(None),
            reserve: AtomicU64::new(room::RESERVE_BYTES),
            deletion_room: AtomicU64::new(room::DELETION_BYTES),
        }
    }

    /// The database, or why there is none at present. Not to be kept: see [`Self::release`].
    pub(super) fn tables(&self) -> Result<Arc<Tables>, StoreError> {
        read(&self.tables)
    }

    /// Puts another database in place.
    pub(super) fn install(&self, tables: Tables) {
        write(&self.tables, Ok(Arc::new(tables)));
    }

    /// Takes the database away, so that readers fail with `reason`, and closes it when the last of them has finished.
    /// Blocks until then.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`] if a reader takes too long; the database is back in place then, unless it was to be
    /// closed for good.
    pub(super) fn release(&self, reason: StoreError) -> Result<(), StoreError> {
        let is_final = matches!(reason, StoreError::Closed);
        let taken = std::mem::replace(
            &mut *self.tables.write().unwrap_or_else(PoisonError::into_inner),
            Err(reason),
        );
        let Ok(mut tables) = taken else {
            return Ok(());
        };
        let deadline = clock::instant() + READERS_WAIT_MAX;
        loop {
            match Arc::try_unwrap(tables) {
                Ok(tables) => {
                    drop(tables);
                    return Ok(());
                }
                Err(shared) => tables = shared,
            }
            if clock::instant() > deadline {
                if !is_final {
                    write(&self.tables, Ok(tables));
                }
                return Err(StoreError::Unwritable(
                    "a reader does not let go of the database".to_owned(),
                ));
            }
            std::thread::sleep(READERS_POLL);
        }
    }

    /// Whether durable writes succeed, and soon.
    pub(super) fn health(&self) -> Result<(), StoreError> {
        let busy_since = read(&self.busy_since);
        if busy_since.is_some_and(|since| clock::instant().saturating_duration_since(since) > STORE_COMMIT_SLOW) {
            return Err(slow());
        }
        read(&self.health)
    }

    /// Takes note that the writer begins to work on the disk, or has ended.
    pub(super) fn set_busy(&self, since: Option<Instant>) {
        write(&self.busy_since, since);
    }

    /// Sets what [`Self::health`] tells.
    pub(super) fn set_health(&self, health: Result<(), StoreError>) {
        write(&self.health, health);
    }

    /// What is counted.
    pub(super) fn counts(&self) -> Counts {
        read(&self.counts)
    }

    /// Sets what [`Self::counts`] tells.
    pub(super) fn set_counts(&self, counts: Counts) {
        write(&self.counts, counts);
    }

    /// Notes that `events` usage events were lost.
    pub(super) fn shed(&self, events: usize) {
        self.shed
            .fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether any were lost since [`Self::take_shed`].
    pub(super) fn has_shed(&self) -> bool {
        self.shed.load(Ordering::Relaxed) > 0
    }

    /// How many were lost since the last time.
    pub(super) fn take_shed(&self) -> u64 {
        self.shed.swap(0, Ordering::Relaxed)
    }

    /// Bytes that must be free on the disk before anything is written.
    pub(super) fn reserve(&self) -> u64 {
        self.reserve.load(Ordering::Relaxed)
    }

    /// The same for a deletion.
    pub(super) fn deletion_room(&self) -> u64 {
        self.deletion_room.load(Ordering::Relaxed)
    }

    /// Has the disk look full to deletions too, or not.
    #[cfg(test)]
    pub(super) fn set_deletion_room(&self, bytes: u64) {
        self.deletion_room.store(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn set_reserve(&self, bytes: u64) {
        self.reserve.store(bytes, Ordering::Relaxed);
    }
}

/// What is said of a disk that takes too long.
pub(super) fn slow() -> StoreError {
    StoreError::Unwritable(format!(
        "a write takes longer than {}; the disk does not answer in time",
        Span(STORE_COMMIT_SLOW)
    ))
}

fn read<T: Clone>(lock: &RwLock<T>) -> T {
    lock.read().unwrap_or_else(PoisonError::into_inner).clone()
}

fn write<T>(lock: &RwLock<T>, value: T) {
    *lock.write().unwrap_or_else(PoisonError::into_inner) = value;
}

/// How long a listing may go on before the database it reads is closed: a full scan of all usage events takes about a second.
const READERS_WAIT_MAX: Duration = Duration::from_secs(10);
const READERS_POLL: Duration = Duration::from_millis(1);
