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
//! both states, usage events shed and counted; every [`SYNC_INTERVAL`] the writer looks whether it can go on. Deletions alone
//! go on in `Short`, in the room that is kept for them.
//!
//! The [`Witness`] is lowered before a commit that deletes and raised after one that adds, at the latest in the next tick.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::changes;
use super::draft::Draft;
use super::meta::{self, Counts};
use super::room::{self, Reserve};
use super::shared::{self, Shared};
use super::tables::{Durability, Table, Tables};
use super::usage::{self, Denials, Due, USAGE_METER, UsageMeter};
use crate::clock;
use crate::limits::STORE_COMMIT_SLOW;
use crate::metrics::names;
use crate::store::witness::{Holdings, Witness};
use crate::store::{StoreError, TokenId, TokenUse, UsageEvent};

/// What the writer is told.
pub(super) enum Order {
    /// A durable change.
    Change(Change),
    /// A durable change that only deletes, for which the last of the disk is kept.
    Deletion(Change),
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
    /// How many durable commits there were.
    generation: u64,
    witness: Witness,
    reserve: Reserve,
    denials: Denials,
    condition: Condition,
    /// Whether the last write took too long.
    is_slow: bool,
    /// Whether the witness could not be written the last time.
    is_witness_behind: bool,
    /// When the witness was last raised.
    raised: Instant,
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
        witness: Witness,
        orders: mpsc::Receiver<Order>,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| StoreError::Unwritable(error.to_string()))?;
        let mut writer = Self {
            reserve: Reserve::new(directory.parent().unwrap_or(&directory)),
            directory,
            shared,
            orders,
            runtime,
            usage: UsageMeter::default(),
            generation: 0,
            witness,
            denials: Denials::default(),
            condition: Condition::Writing,
            is_slow: false,
            is_witness_behind: false,
            raised: clock::instant(),
            is_dirty: false,
            tick_due: None,
        };
        writer.take_counts()?;
        let _ = writer.writable();
        Ok(writer)
    }

    /// Carries out orders until [`Order::Close`] or until nobody can give any.
    pub(super) fn run(mut self) {
        loop {
            let wake = self.wait();
            let began = clock::instant();
            self.shared.set_busy(Some(began));
            match wake {
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
                    self.testify();
                    let _ = self.shared.release(StoreError::Closed);
                    return;
                }
            }
            self.note_pace(clock::instant().saturating_duration_since(began));
            self.shared.set_busy(None);
        }
    }

    fn wait(&mut self) -> Wake {
        let is_clean = !self.is_dirty && self.denials.is_empty() && !self.shared.has_shed();
        let is_well = self.condition == Condition::Writing && !self.is_slow;
        let is_idle = is_clean && is_well && self.witness.says() == self.holdings();
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
        // These wait for the group, and do not hold up its answers.
        let mut chores = Vec::new();
        let mut next = Some(first);
        while let Some(order) = next {
            if let Order::Close(closed) = order {
                self.carry_out_group(group, Some(Due::All));
                self.carry_out_chores(chores);
                return Some(closed);
            }
            match order {
                Order::Chore(_) => chores.push(order),
                order => group.push(order),
            }
            next = if group.len() < GROUP_MAX {
                self.orders.try_recv().ok()
            } else {
                None
            };
        }
        if !group.is_empty() {
            self.carry_out_group(group, None);
        }
        self.carry_out_chores(chores);
        None
    }

    /// Carries out chores, each in a commit of its own that is not synced.
    fn carry_out_chores(&mut self, chores: Vec<Order>) {
        for chore in chores {
            self.carry_out_group(vec![chore], None);
        }
    }

    /// Stages a group in its order and the counts of refused logins that are `due`, commits it, and answers those who wait
    /// for it.
    fn carry_out_group(&mut self, group: Vec<Order>, mut due: Option<Due>) {
        let mut refused = None;
        let mut tables = self.writable();
        if let Err(error) = &tables
            && group.iter().any(|order| matches!(order, Order::Deletion(_)))
        {
            refused = Some(error.clone());
            tables = self.deletable();
        }
        let mut draft = tables
            .as_deref()
            .map(|tables| Draft::new(tables, self.shared.counts(), self.usage.clone()))
            .map_err(Clone::clone);
        let mut answers: Vec<Answer> = Vec::new();
        let mut durability = Durability::Buffered;
        let mut events = 0;
        for order in group {
            let draft = match &refused {
                Some(error) if !matches!(order, Order::Deletion(_)) => Err(error.clone()),
                _ => draft.as_mut().map_err(|error| error.clone()),
            };
            match order {
                Order::Change(change) | Order::Deletion(change) => {
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
            let written = usage::write_counts(draft, &mut self.denials, clock::now(), due);
            events += written.as_ref().copied().unwrap_or_default();
            log_loss(written.map(drop));
        }
        let committed = match &tables {
            Ok(tables) => draft.and_then(|draft| self.commit(tables, draft, durability)),
            Err(error) => Err(error.clone()),
        };
        let counts_have_risen = committed.is_ok() && durability == Durability::Synced && self.has_more_than_witnessed();
        if committed.is_err() || refused.is_some() {
            self.shared.shed(events);
        }
        // IMPORTANT: let go of the database first, for a caller may close the store when it has its answer.
        drop(tables);
        for answer in answers {
            answer(committed.clone());
        }
        // After the answers, which do not wait for it; a crowd of changes shares one.
        if counts_have_risen && clock::instant().saturating_duration_since(self.raised) >= RAISE_INTERVAL {
            self.testify();
        }
    }

    fn commit(&mut self, tables: &Tables, draft: Draft<'_>, durability: Durability) -> Result<(), StoreError> {
        let (counts, usage) = (draft.counts, draft.usage.clone());
        let generation = self
            .generation
            .saturating_add(u64::from(durability == Durability::Synced));
        let writes = draft.into_writes((durability == Durability::Synced).then_some(generation))?;
        if writes.is_empty() {
            return Ok(());
        }
        let started = clock::instant();
        // IMPORTANT: before the commit, or a power loss between the two would leave a witness that condemns a good store.
        self.witness
            .lower(holdings(generation, &counts))
            .inspect_err(|error| self.shared.set_health(Err(error.clone())))?;
        tables
            .commit(writes, durability)
            .inspect_err(|error| self.turn(Condition::Broken, Some(error)))?;
        if durability == Durability::Synced {
            let took = clock::instant().duration_since(started);
            names::store_commit_duration().record(took.as_secs_f64());
        }
        self.is_dirty = durability == Durability::Buffered;
        self.usage = usage;
        self.generation = generation;
        self.shared.set_counts(counts);
        Ok(())
    }

    fn holdings(&self) -> Holdings {
        holdings(self.generation, &self.shared.counts())
    }

    /// Whether there are accounts or tokens that the witness does not know of.
    fn has_more_than_witnessed(&self) -> bool {
        let (says, held) = (self.witness.says(), self.holdings());
        held.accounts > says.accounts || held.tokens > says.tokens
    }

    /// Has the witness say what there is.
    fn testify(&mut self) {
        self.raised = clock::instant();
        if self.condition == Condition::Broken {
            return;
        }
        let raised = self.witness.raise(self.holdings());
        if let Err(error) = &raised
            && !self.is_witness_behind
        {
            tracing::warn!(%error, "the store's witness cannot be written; it says less than there is");
        }
        self.is_witness_behind = raised.is_err();
    }

    /// Takes note of how long work on the disk took. Only a quick probe, in a tick, ends the doubt.
    fn note_pace(&mut self, took: Duration) {
        if took > STORE_COMMIT_SLOW {
            self.is_slow = true;
            self.turn(self.condition, None);
        }
    }

    /// Tries a disk that was too slow.
    fn try_pace(&mut self) {
        let began = clock::instant();
        if room::probe(&self.directory).is_ok()
            && clock::instant().saturating_duration_since(began) <= STORE_COMMIT_SLOW
        {
            self.is_slow = false;
            self.turn(self.condition, None);
        }
    }

    /// The tables, if they take writes and the disk has room for some.
    fn writable(&mut self) -> Result<Arc<Tables>, StoreError> {
        if self.condition == Condition::Broken {
            self.shared.health()?;
        }
        let needed = self.shared.reserve().saturating_add(self.reserve.missing());
        match room::check(&self.directory, needed) {
            Ok(()) => self.turn(Condition::Writing, None),
            Err(error) => {
                self.turn(Condition::Short, Some(&error));
                return Err(error);
            }
        }
        self.reserve.hold();
        self.shared.tables()
    }

    /// The tables, if they take a deletion though the disk is full.
    fn deletable(&mut self) -> Result<Arc<Tables>, StoreError> {
        if self.condition == Condition::Broken {
            self.shared.health()?;
        }
        let room = self.shared.deletion_room();
        if room::check(&self.directory, room).is_err() {
            self.reserve.release();
            room::check(&self.directory, room)?;
        }
        self.shared.tables()
    }

    fn tick(&mut self) {
        match self.condition {
            Condition::Writing if self.is_slow => self.try_pace(),
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
        self.testify();
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
        if let Some(missing) = self.witness.says().missing_from(&self.holdings()) {
            return Err(StoreError::Unwritable(format!(
                "records are missing since it was opened again: {missing}"
            )));
        }
        self.turn(Condition::Writing, None);
        Ok(())
    }

    /// Counts what is kept in memory anew.
    fn take_counts(&mut self) -> Result<(), StoreError> {
        let tables = self.shared.tables()?;
        self.usage = UsageMeter::read(tables.value(Table::Meta, USAGE_METER)?.as_deref())?;
        self.generation = meta::generation(&tables)?;
        self.shared.set_counts(Counts::of(&tables)?);
        Ok(())
    }

    /// Takes note of how the store is; `reason` is why it takes no writes.
    fn turn(&mut self, condition: Condition, reason: Option<&StoreError>) {
        match reason {
            Some(reason) => self.shared.set_health(Err(reason.clone())),
            None if condition != Condition::Writing => {}
            None if self.is_slow => self.shared.set_health(Err(shared::slow())),
            None => self.shared.set_health(Ok(())),
        }
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
        self.testify();
        let released = self.shared.release(StoreError::Closed);
        flushed.and(released)
    }
}

fn holdings(generation: u64, counts: &Counts) -> Holdings {
    Holdings {
        generation,
        accounts: counts.accounts(),
        tokens: counts.tokens,
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

/// How often the witness is raised at most because of new accounts and tokens, so that an import is not slowed down by it.
const RAISE_INTERVAL: Duration = Duration::from_millis(100);
