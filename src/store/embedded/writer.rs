//! The writer: the one thread that changes the database.
//!
//! Orders that wait are taken together and committed once, so that a crowd shares an fsync. An order is answered after the
//! commit that holds it. Usage events and last uses of tokens are written with the rest, or without an fsync where there is
//! no rest; a sync follows within [`SYNC_INTERVAL`].
//!
//! ```text
//!             room below the reserve                  a commit fails
//!   Writing ──────────────────────────> Short     ───────────────────> Broken
//!      ^                                  │                              │
//!      └────── there is room again ───────┘                              │
//!      └────── there is room, and the database could be opened again ────┘
//! ```
//! `Short` keeps a full disk from ever failing a write of fjall's, which would poison the database. Where one fails even so,
//! the database can still be read, and is opened again in place as soon as a probe can be written. Orders are refused in
//! both states, usage events shed and counted; every [`SYNC_INTERVAL`] the writer looks whether it can go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::changes;
use super::draft::Draft;
use super::meta::Counts;
use super::room;
use super::shared::Shared;
use super::tables::{Durability, Table, Tables};
use super::usage::{self, Denials, Due, USAGE_METER, UsageMeter};
use crate::clock;
use crate::metrics::names;
use crate::store::{StoreError, TokenId, TokenUse, UsageEvent};

/// What the writer is told.
pub(super) enum Order {
    /// A durable change.
    Change(Change),
    /// A change that need not be synced: sweeping.
    Chore(Change),
    /// A usage event.
    Usage(UsageEvent),
    /// An accepted use of a token.
    TokenUse(TokenId, TokenUse),
    /// Answer when everything ordered before can be read.
    Barrier(oneshot::Sender<()>),
    /// Flush, close the database, answer, end.
    Close(oneshot::Sender<Result<(), StoreError>>),
}

/// Makes an operation's writes in a draft, and returns how to answer it once the draft is committed. Where no draft can be
/// made, it is given the reason to answer with.
pub(super) type Change = Box<dyn FnOnce(Result<&mut Draft<'_>, StoreError>) -> Answer + Send>;

/// Answers an operation with its own outcome, or with why the commit failed.
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The state of the writer's thread.
pub(super) struct Writer {
    directory: PathBuf,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    /// Only for waiting with a time-out; nothing else ever runs on it.
    runtime: tokio::runtime::Runtime,
    usage: UsageMeter,
    denials: Denials,
    condition: Condition,
    /// Whether something has been committed without a sync.
    is_dirty: bool,
    /// When to look after what is not urgent; `None` while there is no such thing.
    tick_due: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Writing,
    Short,
    Broken,
}

/// What the writer wakes up for.
enum Wake {
    Order(Order),
    Tick,
    /// Nobody can give orders any more.
    Abandoned,
}

impl Writer {
    /// A writer for the database that `shared` holds, in `directory`.
    pub(super) fn new(
        directory: PathBuf,
        shared: Arc<Shared>,
        orders: mpsc::Receiver<Order>,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| StoreError::Unwritable(error.to_string()))?;
        let mut writer = Self {
            directory,
            shared,
            orders,
            runtime,
            usage: UsageMeter::default(),
            denials: Denials::default(),
            condition: Condition::Writing,
            is_dirty: false,
            tick_due: None,
        };
        writer.take_counts()?;
        Ok(writer)
    }

    /// Carries out orders until [`Order::Close`] or until nobody can give any.
    pub(super) fn run(mut self) {
        loop {
            match self.wait() {
                Wake::Order(order) => {
                    if let Some(closed) = self.carry_out(order) {
                        let _ = closed.send(self.close());
                        return;
                    }
                }
                Wake::Tick => self.tick(),
                Wake::Abandoned => {
                    self.carry_out_group(Vec::new(), Some(Due::All));
                    self.sync();
                    let _ = self.shared.release(StoreError::Closed);
                    return;
                }
            }
        }
    }

    fn wait(&mut self) -> Wake {
        let is_clean = !self.is_dirty && self.denials.is_empty() && !self.shared.has_shed();
        let is_idle = is_clean && self.condition == Condition::Writing;
        if is_idle {
            self.tick_due = None;
            return self.orders.blocking_recv().map_or(Wake::Abandoned, Wake::Order);
        }
        let now = clock::instant();
        let due = *self.tick_due.get_or_insert(now + SYNC_INTERVAL);
        if now >= due {
            self.tick_due = None;
            return Wake::Tick;
        }
        let orders = &mut self.orders;
        let waiting = async { tokio::time::timeout_at(due.into(), orders.recv()).await };
        match self.runtime.block_on(waiting) {
            Ok(next) => next.map_or(Wake::Abandoned, Wake::Order),
            Err(_elapsed) => {
                self.tick_due = None;
                Wake::Tick
            }
        }
    }

    /// Carries out `first` and what waits behind it, in one commit. Returns the order to close, if it came.
    fn carry_out(&mut self, first: Order) -> Option<oneshot::Sender<Result<(), StoreError>>> {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(order) = next {
            if let Order::Close(closed) = order {
                self.carry_out_group(group, Some(Due::All));
                return Some(closed);
            }
            group.push(order);
            next = if group.len() < GROUP_MAX {
                self.orders.try_recv().ok()
            } else {
                None
            };
        }
        self.carry_out_group(group, None);
        None
    }

    /// Stages a group in its order and the counts of refused logins that are `due`, commits it, and answers those who wait
    /// for it.
    fn carry_out_group(&mut self, group: Vec<Order>, mut due: Option<Due>) {
        let tables = self.writable();
        let mut draft = tables
            .as_deref()
            .map(|tables| Draft::new(tables, self.shared.counts(), self.usage.clone()))
            .map_err(Clone::clone);
        let mut answers: Vec<Answer> = Vec::new();
        let mut durability = Durability::Buffered;
        let mut events = 0;
        for order in group {
            let draft = draft.as_mut().map_err(|error| error.clone());
            match order {
                Order::Change(change) => {
                    answers.push(change(draft));
                    durability = Durability::Synced;
                }
                Order::Chore(chore) => answers.push(chore(draft)),
                Order::Usage(event) => {
                    log_loss(draft.map_or(Ok(()), |draft| usage::record(draft, &mut self.denials, event)));
                    events += 1;
                }
                Order::TokenUse(token, last) => {
                    log_loss(draft.map_or(Ok(()), |draft| changes::note_token_use(draft, &token, &last)));
                }
                Order::Barrier(passed) => {
                    due = Some(Due::All);
                    answers.push(Box::new(move |_committed| {
                        let _ = passed.send(());
                    }));
                }
                // `carry_out` keeps it out of groups.
                Order::Close(_) => {}
            }
        }
        if let (Ok(draft), Some(due)) = (&mut draft, due) {
            log_loss(usage::write_counts(draft, &mut self.denials, clock::now(), due));
        }
        let committed = match &tables {
            Ok(tables) => draft.and_then(|draft| self.commit(tables, draft, durability)),
            Err(error) => Err(error.clone()),
        };
        if committed.is_err() {
            self.shared.shed(events);
        }
        // IMPORTANT: let go of the database first, for a caller may close the store when it has its answer.
        drop(tables);
        for answer in answers {
            answer(committed.clone());
        }
    }

    fn commit(&mut self, tables: &Tables, draft: Draft<'_>, durability: Durability) -> Result<(), StoreError> {
        let (counts, usage) = (draft.counts, draft.usage.clone());
        let writes = draft.into_writes()?;
        if writes.is_empty() {
            return Ok(());
        }
        let started = clock::instant();
        tables
            .commit(writes, durability)
            .inspect_err(|error| self.turn(Condition::Broken, Some(error)))?;
        if durability == Durability::Synced {
            let took = clock::instant().duration_since(started);
            names::store_commit_duration().record(took.as_secs_f64());
        }
        self.is_dirty = durability == Durability::Buffered;
        self.usage = usage;
        self.shared.set_counts(counts);
        Ok(())
    }

    /// The tables, if they take writes and the disk has room for some.
    fn writable(&mut self) -> Result<Arc<Tables>, StoreError> {
        if self.condition == Condition::Broken {
            self.shared.health()?;
        }
        match room::check(&self.directory, self.shared.reserve()) {
            Ok(()) => self.turn(Condition::Writing, None),
            Err(error) => {
                self.turn(Condition::Short, Some(&error));
                return Err(error);
            }
        }
        self.shared.tables()
    }

    fn tick(&mut self) {
        match self.condition {
            Condition::Writing => {}
            Condition::Short => drop(self.writable()),
            Condition::Broken => {
                if let Err(error) = self.reopen() {
                    self.turn(Condition::Broken, Some(&error));
                }
            }
        }
        if !self.denials.is_empty() {
            self.carry_out_group(Vec::new(), Some(Due::Ended));
        }
        self.sync();
        if let shed @ 1.. = self.shared.take_shed() {
            tracing::warn!(
                events = shed,
                "usage events were lost, because the store could not keep up or not be written"
            );
        }
    }

    /// Makes durable what was committed without a sync.
    fn sync(&mut self) {
        if self.is_dirty && self.condition != Condition::Broken {
            let synced = self.shared.tables().and_then(|tables| tables.sync());
            if let Err(error) = synced {
                self.turn(Condition::Broken, Some(&error));
            }
        }
        self.is_dirty = false;
    }

    /// Opens the database again. Reads fail for the moment that this takes.
    fn reopen(&mut self) -> Result<(), StoreError> {
        room::check(&self.directory, self.shared.reserve())?;
        room::probe(&self.directory)?;
        self.shared
            .release(StoreError::Unwritable("it is being opened again".to_owned()))?;
        self.shared.install(Tables::open(&self.directory)?);
        self.take_counts()?;
        self.turn(Condition::Writing, None);
        Ok(())
    }

    /// Counts what is kept in memory anew.
    fn take_counts(&mut self) -> Result<(), StoreError> {
        let tables = self.shared.tables()?;
        self.usage = UsageMeter::read(tables.value(Table::Meta, USAGE_METER)?.as_deref())?;
        self.shared.set_counts(Counts::of(&tables)?);
        Ok(())
    }

    fn turn(&mut self, condition: Condition, reason: Option<&StoreError>) {
        self.shared
            .set_health(reason.map_or(Ok(()), |reason| Err(reason.clone())));
        if self.condition == condition {
            return;
        }
        self.condition = condition;
        match reason {
            Some(reason) => tracing::error!(%reason, "the store takes no writes for now"),
            None => tracing::info!("the store takes writes again"),
        }
    }

    fn close(&mut self) -> Result<(), StoreError> {
        let flushed = match self.condition {
            Condition::Broken => self.shared.health(),
            Condition::Writing | Condition::Short => self.shared.tables().and_then(|tables| tables.flush()),
        };
        let released = self.shared.release(StoreError::Closed);
        flushed.and(released)
    }
}

fn log_loss(staged: Result<(), StoreError>) {
    if let Err(error) = staged {
        tracing::warn!(%error, "a usage event or a last use was lost");
    }
}

/// Orders that share a commit at most, so that the first of them does not wait long for the last.
const GROUP_MAX: usize = 1024;

/// How long a usage event may stay where a power loss could take it, and how often a store that cannot be written is tried.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
