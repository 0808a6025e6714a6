//! The fjall database and its keyspaces: the only file that names fjall.
//!
//! Settings are small, because what is kept is small: a proxy's memory belongs to its sessions. fjall's own expiry (TTL and
//! FIFO compaction) is not used, for overlapping keys poison the whole database, nor is `clear`. A failed write poisons the
//! database too: it can still be read, but takes no write until it is opened again (see `writer`).

use std::collections::BTreeMap;
use std::ops::{Bound, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};

use crate::clock;
use crate::store::StoreError;

/// One kind of record or index. The names are part of the format on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Table {
    /// What concerns the store itself: see [`super::meta`].
    Meta,
    /// Account id → account.
    Accounts,
    /// Account id, the id of one that shares its grant → nothing.
    Sharers,
    /// Folded id or e-mail → who bears it.
    Names,
    /// Account id → sealed secrets.
    Secrets,
    /// Token id → token.
    Tokens,
    /// Account id, token id → nothing.
    AccountTokens,
    /// Token id, the id of one that it made → nothing.
    TokenChildren,
    /// Token id → last accepted use.
    TokenUses,
    /// Usage events; see [`super::usage`] for this and the next two.
    Usage,
    /// Where an account's events are.
    UsageByAccount,
    /// Where an access token's events are.
    UsageByToken,
}

impl Table {
    /// Its name on disk, and in the associated data of what is sealed in it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Accounts => "accounts",
            Self::Sharers => "sharers",
            Self::Names => "names",
            Self::Secrets => "secrets",
            Self::Tokens => "tokens",
            Self::AccountTokens => "account-tokens",
            Self::TokenChildren => "token-children",
            Self::TokenUses => "token-uses",
            Self::Usage => "usage",
            Self::UsageByAccount => "usage-by-account",
            Self::UsageByToken => "usage-by-token",
        }
    }
}

/// How safe a commit is when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It survives a killed process.
    Buffered,
    /// It survives a power loss.
    Synced,
}

/// What a commit writes.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// A value, or `None` for a deletion, for each key.
    pub(super) values: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Keys that are deleted besides.
    pub(super) forgotten: Vec<(Table, Vec<u8>)>,
}

impl Writes {
    /// One value.
    pub(super) fn of(table: Table, key: &[u8], value: Vec<u8>) -> Self {
        Self {
            values: BTreeMap::from([((table, key.to_vec()), Some(value))]),
            forgotten: Vec::new(),
        }
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && self.forgotten.is_empty()
    }
}

/// An open database.
pub(super) struct Tables {
    database: Database,
    meta: Keyspace,
    accounts: Keyspace,
    sharers: Keyspace,
    names: Keyspace,
    secrets: Keyspace,
    tokens: Keyspace,
    account_tokens: Keyspace,
    token_children: Keyspace,
    token_uses: Keyspace,
    usage: Keyspace,
    usage_by_account: Keyspace,
    usage_by_token: Keyspace,
}

impl Tables {
    /// Opens or creates the database in `directory`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if it is open elsewhere, [`StoreError::Unreadable`] for everything else.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let failed = |error| match error {
            fjall::Error::Locked => StoreError::Locked(directory.display().to_string()),
            error => StoreError::Unreadable(format!("{}: {}", directory.display(), Cause(&error))),
        };
        let database = Database::builder(directory)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            .max_cached_files(Some(CACHED_FILES))
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        let open = |table: Table| database.keyspace(table.name(), keyspace_options).map_err(failed);
        Ok(Self {
            meta: open(Table::Meta)?,
            accounts: open(Table::Accounts)?,
            sharers: open(Table::Sharers)?,
            names: open(Table::Names)?,
            secrets: open(Table::Secrets)?,
            tokens: open(Table::Tokens)?,
            account_tokens: open(Table::AccountTokens)?,
            token_children: open(Table::TokenChildren)?,
            token_uses: open(Table::TokenUses)?,
            usage: open(Table::Usage)?,
            usage_by_account: open(Table::UsageByAccount)?,
            usage_by_token: open(Table::UsageByToken)?,
            database,
        })
    }

    /// The value of `key`.
    pub(super) fn value(&self, table: Table, key: &[u8]) -> Result<Option<fjall::Slice>, StoreError> {
        self.keyspace(table).get(key).map_err(|error| unreadable(&error))
    }

    /// The tables as they are now, unmoved by later writes.
    pub(super) fn view(&self) -> View<'_> {
        View {
            tables: self,
            snapshot: self.database.snapshot(),
        }
    }

    /// Writes everything or nothing.
    pub(super) fn commit(&self, writes: Writes, durability: Durability) -> Result<(), StoreError> {
        let mut batch = self.database.batch().durability(Some(match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        }));
        for (table, key) in writes.forgotten {
            batch.remove(self.keyspace(table), key);
        }
        for ((table, key), value) in writes.values {
            match value {
                Some(value) => batch.insert(self.keyspace(table), key, value),
                None => batch.remove(self.keyspace(table), key),
            }
        }
        batch.commit().map_err(|error| unwritable(&error))
    }

    /// Makes what was committed [`Durability::Buffered`] survive a power loss.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.database
            .persist(PersistMode::SyncData)
            .map_err(|error| unwritable(&error))
    }

    /// Makes everything durable and moves it from the journal to where it need not be replayed when the database is opened.
    /// The latter is given up after a while, for fjall's worker may have ended on a full disk; nothing is lost by it.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.database
            .persist(PersistMode::SyncAll)
            .map_err(|error| unwritable(&error))?;
        for keyspace in self.keyspaces() {
            keyspace.rotate_memtable().map_err(|error| unwritable(&error))?;
        }
        let deadline = clock::instant() + FLUSH_WAIT_MAX;
        while self
            .keyspaces()
            .iter()
            .any(|keyspace| keyspace.sealed_memtable_count() > 0)
        {
            if clock::instant() > deadline {
                tracing::warn!("the store's flush takes too long; the next start replays its journal");
                break;
            }
            std::thread::sleep(FLUSH_POLL);
        }
        Ok(())
    }

    /// Has fjall's worker write the tables of what is in memory, without waiting for it.
    #[cfg(test)]
    pub(super) fn rotate(&self) -> Result<bool, StoreError> {
        self.accounts.rotate_memtable().map_err(|error| unwritable(&error))
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        match table {
            Table::Meta => &self.meta,
            Table::Accounts => &self.accounts,
            Table::Sharers => &self.sharers,
            Table::Names => &self.names,
            Table::Secrets => &self.secrets,
            Table::Tokens => &self.tokens,
            Table::AccountTokens => &self.account_tokens,
            Table::TokenChildren => &self.token_children,
            Table::TokenUses => &self.token_uses,
            Table::Usage => &self.usage,
            Table::UsageByAccount => &self.usage_by_account,
            Table::UsageByToken => &self.usage_by_token,
        }
    }

    fn keyspaces(&self) -> [&Keyspace; 12] {
        [
            &self.meta,
            &self.accounts,
            &self.sharers,
            &self.names,
            &self.secrets,
            &self.tokens,
            &self.account_tokens,
            &self.token_children,
            &self.token_uses,
            &self.usage,
            &self.usage_by_account,
            &self.usage_by_token,
        ]
    }
}

/// The tables as they were at one moment.
pub(super) struct View<'a> {
    tables: &'a Tables,
    snapshot: Snapshot,
}

impl View<'_> {
    /// The value of `key`.
    pub(super) fn value(&self, table: Table, key: &[u8]) -> Result<Option<fjall::Slice>, StoreError> {
        self.snapshot
            .get(self.tables.keyspace(table), key)
            .map_err(|error| unreadable(&error))
    }

    /// Whether `table` holds nothing.
    pub(super) fn is_empty(&self, table: Table) -> Result<bool, StoreError> {
        self.snapshot
            .is_empty(self.tables.keyspace(table))
            .map_err(|error| unreadable(&error))
    }

    /// Every key and value of `table`, in the order of keys.
    pub(super) fn entries(&self, table: Table) -> impl DoubleEndedIterator<Item = Entry> {
        self.snapshot.iter(self.tables.keyspace(table)).map(entry)
    }

    /// The keys and values of `table` whose keys come after `key`, or all, in order.
    pub(super) fn entries_behind(&self, table: Table, key: Option<&[u8]>) -> impl Iterator<Item = Entry> + use<> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (from, Bound::Unbounded);
        self.snapshot
            .range::<&[u8], _>(self.tables.keyspace(table), range)
            .map(entry)
    }

    /// The keys that begin with `prefix`, in order.
    pub(super) fn keys(
        &self,
        table: Table,
        prefix: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<fjall::Slice, StoreError>> {
        self.snapshot.prefix(self.tables.keyspace(table), prefix).map(key)
    }

    /// The keys and values of `table` in `range`, in order.
    pub(super) fn entries_within(
        &self,
        table: Table,
        range: RangeInclusive<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Entry> + use<> {
        self.snapshot.range(self.tables.keyspace(table), range).map(entry)
    }

    /// The keys in `range`, in order.
    pub(super) fn keys_within(
        &self,
        table: Table,
        range: RangeInclusive<Vec<u8>>,
    ) -> impl DoubleEndedIterator<Item = Result<fjall::Slice, StoreError>> + use<> {
        self.snapshot.range(self.tables.keyspace(table), range).map(key)
    }
}

/// A key and its value, or why they cannot be read.
pub(super) type Entry = Result<(fjall::Slice, fjall::Slice), StoreError>;

fn entry(guard: Guard) -> Entry {
    guard.into_inner().map_err(|error| unreadable(&error))
}

fn key(guard: Guard) -> Result<fjall::Slice, StoreError> {
    guard.key().map_err(|error| unreadable(&error))
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn unreadable(error: &fjall::Error) -> StoreError {
    StoreError::Unreadable(Cause(error).to_string())
}

fn unwritable(error: &fjall::Error) -> StoreError {
    StoreError::Unwritable(Cause(error).to_string())
}

/// What an administrator can make use of in fjall's errors, whose own text is Debug output.
struct Cause<'a>(&'a fjall::Error);

impl std::fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => write!(f, "{error}"),
            fjall::Error::Poisoned => f.write_str("an earlier write failed"),
            error => write!(f, "{error}"),
        }
    }
}

/// A keyspace's share of recent writes in memory; twelve of them, though most stay almost empty.
const MEMTABLE_BYTES: u64 = 8 * 1024 * 1024;

/// Blocks of tables in memory: tokens and accounts of a large installation fit several times.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;

/// All journals together; the least that fjall allows.
const JOURNALS_BYTES: u64 = 64 * 1024 * 1024;

/// Table files kept open; fits with [`crate::limits::DESCRIPTORS_RESERVED`].
const CACHED_FILES: usize = 64;

const FLUSH_WAIT_MAX: Duration = Duration::from_secs(10);
const FLUSH_POLL: Duration = Duration::from_millis(1);
