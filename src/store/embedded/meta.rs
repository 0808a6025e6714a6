//! What the store knows of itself: its format, a proof of the master key, and what it counts.

use std::path::Path;

use zeroize::Zeroizing;

use super::codec;
use super::tables::{Durability, Table, Tables, Writes};
use crate::secret::ExposeSecret;
use crate::store::master_key::{self, GENERATED_KEY_FILE, MasterKey, MasterKeySource};
use crate::store::seal::Sealer;
use crate::store::witness::Holdings;
use crate::store::{AccountRecord, AccountState, StoreError, keys};

/// How many there are of what is asked for often. Kept in memory, counted anew whenever the store is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    states: [u64; STATES.len()],
    /// Access tokens.
    pub(super) tokens: u64,
    /// Accounts and tokens that were made since the store was opened.
    made: u64,
}

impl Counts {
    /// Counts what is in `tables`.
    pub(super) fn of(tables: &Tables) -> Result<Self, StoreError> {
        let view = tables.view();
        let mut counts = Self::default();
        for entry in view.entries(Table::Accounts) {
            counts.add(codec::decode::<AccountRecord>("an account", &entry?.1)?.state);
        }
        for key in view.keys(Table::Tokens, &[]) {
            key?;
            counts.tokens += 1;
        }
        Ok(counts)
    }

    /// The rank of an account or a token that is made now: higher than any other's of the same millisecond.
    pub(super) fn next_rank(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// One more account in `state`.
    pub(super) fn add(&mut self, state: AccountState) {
        *self.of_state(state) += 1;
    }

    /// One account less in `state`.
    pub(super) fn subtract(&mut self, state: AccountState) {
        let count = self.of_state(state);
        *count = count.saturating_sub(1);
    }

    /// Accounts in any state.
    pub(super) fn accounts(&self) -> u64 {
        self.states.iter().sum()
    }

    /// Accounts in each state.
    pub(super) fn states(&self) -> Vec<(AccountState, u64)> {
        STATES.into_iter().zip(self.states).collect()
    }

    fn of_state(&mut self, state: AccountState) -> &mut u64 {
        let [new, active, needs_authorization, failing, disabled] = &mut self.states;
        match state {
            AccountState::New => new,
            AccountState::Active => active,
            AccountState::NeedsAuthorization => needs_authorization,
            AccountState::Failing => failing,
            AccountState::Disabled => disabled,
        }
    }
}

/// What `tables` hold, to be compared with the witness. An account without its secrets is none.
pub(super) fn holdings(tables: &Tables) -> Result<Holdings, StoreError> {
    let counts = Counts::of(tables)?;
    let mut secrets = 0;
    for key in tables.view().keys(Table::Secrets, &[]) {
        key?;
        secrets += 1;
    }
    Ok(Holdings {
        generation: generation(tables)?,
        accounts: counts.accounts().min(secrets),
        tokens: counts.tokens,
    })
}

/// How many durable commits there were, as far as they were counted: not before there were witnesses.
pub(super) fn generation(tables: &Tables) -> Result<u64, StoreError> {
    let value = tables.value(Table::Meta, GENERATION)?;
    value.map_or(Ok(0), |bytes| codec::decode("the generation", &bytes))
}

/// Refuses a store of a newer format; marks a new one.
pub(super) fn check_format(tables: &Tables) -> Result<(), StoreError> {
    match tables.value(Table::Meta, FORMAT_KEY)? {
        None => put(tables, FORMAT_KEY, FORMAT.to_vec()),
        Some(format) if format.as_ref() == FORMAT => Ok(()),
        Some(format) => Err(StoreError::Unreadable(format!(
            "it has format {}, and this program reads format {}",
            String::from_utf8_lossy(&format),
            String::from_utf8_lossy(FORMAT),
        ))),
    }
}

/// The sealer for this store, with the key from `source`. A new key is made only in the state directory, and never while
/// records exist that another one sealed.
pub(super) fn sealer(tables: &Tables, state_dir: &Path, source: &MasterKeySource) -> Result<Sealer, StoreError> {
    let has_sealed = !tables.view().is_empty(Table::Secrets)?;
    let (key, shown) = match source {
        MasterKeySource::Given(text) => {
            let place = "secrets.master_key";
            (
                MasterKey::decode(text.expose_secret().as_bytes(), place)?,
                place.to_owned(),
            )
        }
        MasterKeySource::File(path) => (key_in(path, has_sealed, false)?, path.display().to_string()),
        MasterKeySource::Generated => {
            let path = state_dir.join(GENERATED_KEY_FILE);
            (key_in(&path, has_sealed, true)?, path.display().to_string())
        }
    };

    let sealer = Sealer::new(&key);
    let proof = tables.value(Table::Meta, KEY_PROOF)?;
    let is_proven = proof.is_some_and(|proof| sealer.open(Table::Meta.name(), KEY_PROOF, &proof).is_ok());
    if is_proven {
        return Ok(sealer);
    }
    if has_sealed {
        return Err(StoreError::MasterKey(format!(
            "the master key in {shown} is not the one that sealed the account secrets in this store; restore the right one \
             from a backup, or set secrets.master_key_file to where it is"
        )));
    }
    let proof = sealer
        .seal(Table::Meta.name(), KEY_PROOF, Zeroizing::new(PROOF_TEXT.to_vec()))
        .map_err(|error| StoreError::Unwritable(error.to_string()))?;
    put(tables, KEY_PROOF, proof)?;
    Ok(sealer)
}

/// The key in the file `path`; where there is none, a new one if it may be made.
fn key_in(path: &Path, has_sealed: bool, may_generate: bool) -> Result<MasterKey, StoreError> {
    let shown = path.display();
    match MasterKey::load(path)? {
        Some(key) => Ok(key),
        None if has_sealed => Err(StoreError::MasterKey(format!(
            "the master key {shown} is missing, but there are account secrets sealed with it; restore the file from a \
             backup, or set secrets.master_key_file to where the key is"
        ))),
        None if may_generate => MasterKey::generate(path),
        None => Err(StoreError::MasterKey(master_key::missing(path))),
    }
}

/// Whether `name` can be the key of a record.
pub(super) fn is_keyable(name: &str) -> bool {
    (1..=keys::NAME_BYTES_MAX).contains(&name.len())
}

/// The key of the [`generation`].
pub(super) const GENERATION: &[u8] = b"generation";

fn put(tables: &Tables, key: &[u8], value: Vec<u8>) -> Result<(), StoreError> {
    tables.commit(Writes::of(Table::Meta, key, value), Durability::Synced)
}

const STATES: [AccountState; 5] = [
    AccountState::New,
    AccountState::Active,
    AccountState::NeedsAuthorization,
    AccountState::Failing,
    AccountState::Disabled,
];

const FORMAT_KEY: &[u8] = b"format";
const FORMAT: &[u8] = b"1";

/// A sealed constant, by which a wrong key is noticed before anything is sealed with it.
const KEY_PROOF: &[u8] = b"key-proof";
const PROOF_TEXT: &[u8] = b"portreeve";
