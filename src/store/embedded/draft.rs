//! What a commit will write, and the tables as they will be after it.
//!
//! Several operations share one commit, hence one fsync; each must see what those before it are about to write, so that two
//! accounts with the same name in one commit still conflict.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::codec;
use super::meta::{Counts, GENERATION};
use super::tables::{Table, Tables, View, Writes};
use super::usage::{self, USAGE_METER, UsageMeter};
use crate::store::StoreError;

/// The tables with a commit's writes laid over them. An operation reads everything it depends on before it writes anything,
/// so that one that fails leaves no trace.
pub(super) struct Draft<'a> {
    tables: &'a Tables,
    writes: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    /// Keys that are deleted, and that nothing else in this draft reads or writes.
    forgotten: Vec<(Table, Vec<u8>)>,
    /// The last rank of each series of usage events that was added to.
    ranks: HashMap<(Table, Vec<u8>), u64>,
    usage_before: UsageMeter,
    /// The counts as they will be.
    pub(super) counts: Counts,
    /// The numbering of usage events as it will be.
    pub(super) usage: UsageMeter,
}

impl<'a> Draft<'a> {
    /// A draft that writes nothing yet.
    pub(super) fn new(tables: &'a Tables, counts: Counts, usage: UsageMeter) -> Self {
        Self {
            tables,
            writes: BTreeMap::new(),
            forgotten: Vec::new(),
            ranks: HashMap::new(),
            usage_before: usage.clone(),
            counts,
            usage,
        }
    }

    /// The value of `key` as it will be.
    pub(super) fn value(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(&(table, key.to_vec())) {
            Some(written) => Ok(written.clone()),
            None => Ok(self.tables.value(table, key)?.map(|value| value.to_vec())),
        }
    }

    /// The keys that begin with `prefix` as they will be.
    pub(super) fn keys(&self, table: Table, prefix: &[u8]) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let mut keys = BTreeSet::new();
        for key in self.committed().keys(table, prefix) {
            keys.insert(key?.to_vec());
        }
        let written = self.writes.range((table, prefix.to_vec())..);
        for ((_, key), value) in written.take_while(|((at, key), _)| *at == table && key.starts_with(prefix)) {
            match value {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        Ok(keys)
    }

    /// The tables without this draft's writes.
    pub(super) fn committed(&self) -> View<'a> {
        self.tables.view()
    }

    /// The rank of the next event in a series of usage events, none of which has a number below `oldest`.
    pub(super) fn next_rank(&self, table: Table, series: &[u8], oldest: u64) -> Result<u64, StoreError> {
        match self.ranks.get(&(table, series.to_vec())) {
            Some(last) => Ok(last + 1),
            None => usage::next_rank(self.tables, table, series, oldest),
        }
    }

    /// Notes the rank of the event that was added to a series last.
    pub(super) fn set_rank(&mut self, table: Table, series: Vec<u8>, rank: u64) {
        self.ranks.insert((table, series), rank);
    }

    /// Sets the value of `key`.
    pub(super) fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.insert((table, key.into()), Some(value.into()));
    }

    /// Deletes `key`, whether or not it exists.
    pub(super) fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.insert((table, key.into()), None);
    }

    /// Deletes `key`, which nothing else in this draft reads or writes: cheaper than [`Self::delete`], for sweeps.
    pub(super) fn forget(&mut self, table: Table, key: Vec<u8>) {
        self.forgotten.push((table, key));
    }

    /// What is to be written, with the meter of usage events if it moved, and `generation` if it is to be counted.
    pub(super) fn into_writes(mut self, generation: Option<u64>) -> Result<Writes, StoreError> {
        if self.usage != self.usage_before {
            let meter = codec::encode(&self.usage)?;
            self.put(Table::Meta, USAGE_METER, meter);
        }
        // IMPORTANT: with whatever is written, for the writer counts on from it.
        let writes_nothing = self.writes.is_empty() && self.forgotten.is_empty();
        if let Some(generation) = generation.filter(|_| !writes_nothing) {
            let generation = codec::encode(&generation)?;
            self.put(Table::Meta, GENERATION, generation);
        }
        Ok(Writes {
            values: self.writes,
            forgotten: self.forgotten,
        })
    }
}
