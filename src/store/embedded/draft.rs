//! What a commit will write, and the tables as they will be after it.
//!
//! Several operations share one commit, hence one fsync; each must see what those before it are about to write, so that two
//! accounts with the same name in one commit still conflict.

use std::collections::BTreeSet;

use super::codec;
use super::meta::{Counts, GENERATION, USAGE_METER, UsageMeter};
use super::tables::{Table, Tables, View, Writes};
use crate::store::StoreError;

/// The tables with a commit's writes laid over them. An operation reads everything it depends on before it writes anything,
/// so that one that fails leaves no trace.
pub(super) struct Draft<'a> {
    tables: &'a Tables,
    writes: Writes,
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
            writes: Writes::new(),
            usage_before: usage,
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

    /// Whether this draft deletes `key`.
    pub(super) fn deletes(&self, table: Table, key: &[u8]) -> bool {
        matches!(self.writes.get(&(table, key.to_vec())), Some(None))
    }

    /// Sets the value of `key`.
    pub(super) fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.insert((table, key.into()), Some(value.into()));
    }

    /// Deletes `key`, whether or not it exists.
    pub(super) fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.writes.insert((table, key.into()), None);
    }

    /// What is to be written, with the meter of usage events if it moved, and `generation` if it is to be counted.
    pub(super) fn into_writes(mut self, generation: Option<u64>) -> Result<Writes, StoreError> {
        if let Some(generation) = generation.filter(|_| !self.writes.is_empty()) {
            let generation = codec::encode(&generation)?;
            self.put(Table::Meta, GENERATION, generation);
        }
        if self.usage != self.usage_before {
            let meter = codec::encode(&self.usage)?;
            self.put(Table::Meta, USAGE_METER, meter);
        }
        Ok(self.writes)
    }
}
