//! The witness: a small file beside the store that says what the store must at least hold.
//!
//! An engine that finds its journal damaged goes on with what it can read, which may be nothing, and looks like a new store.
//! The witness tells the two apart. It is a lower bound at any moment, whatever a kill or a power loss interrupts: what a
//! commit adds is noted after it, and what a commit deletes is taken off before it. So a good store is never refused.
//!
//! It is replaced as a whole and synced. A file that cannot be read is damage, for nothing of ours leaves one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::state_dir::sync_directory;

/// What a store holds, or must at least hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holdings {
    /// How many durable commits there were. A store that has fewer has lost some.
    pub(super) generation: u64,
    /// Accounts.
    pub(super) accounts: u64,
    /// Access tokens.
    pub(super) tokens: u64,
}

impl Holdings {
    /// What of `self` is not in `found`, in words; `None` if nothing is missing.
    pub(super) fn missing_from(&self, found: &Self) -> Option<String> {
        let counted = |what: &str, expected: u64, found: u64| {
            (found < expected).then(|| format!("{} of {expected} {what}", expected - found))
        };
        let missing = [
            counted("accounts", self.accounts, found.accounts),
            counted("access tokens", self.tokens, found.tokens),
            counted("commits", self.generation, found.generation),
        ];
        let missing: Vec<String> = missing.into_iter().flatten().collect();
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// The lower of both, number by number.
    fn min(self, other: Self) -> Self {
        Self {
            generation: self.generation.min(other.generation),
            accounts: self.accounts.min(other.accounts),
            tokens: self.tokens.min(other.tokens),
        }
    }
}

/// The file, and what it says at present.
pub(super) struct Witness {
    state_dir: PathBuf,
    says: Holdings,
}

/// What the file is, in JSON.
#[derive(Serialize, Deserialize)]
struct Statement {
    format: u32,
    #[serde(flatten)]
    holdings: Holdings,
}

impl Witness {
    /// What the witness in `state_dir` says; `None` where there is none.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] if there is one that cannot be read.
    pub(super) fn read(state_dir: &Path) -> Result<Option<Holdings>, StoreError> {
        let path = state_dir.join(FILE);
        let unreadable = |reason: String| {
            StoreError::Unreadable(format!(
                "the store's witness {path} cannot be read ({reason}); restore it from a backup together with the store, or \
                 remove the file if you know that the store is whole",
                path = path.display()
            ))
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let statement: Statement =
            serde_json::from_slice(&bytes).map_err(|_| unreadable("it is damaged".to_owned()))?;
        if statement.format != FORMAT {
            return Err(unreadable(format!(
                "it has format {}, a newer version's",
                statement.format
            )));
        }
        Ok(Some(statement.holdings))
    }

    /// Has the witness in `state_dir` say what `found` is. `before` is what it says already.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`].
    pub(super) fn install(state_dir: &Path, before: Option<Holdings>, found: Holdings) -> Result<Self, StoreError> {
        let witness = Self {
            state_dir: state_dir.to_owned(),
            says: found,
        };
        if before != Some(found) {
            witness.write(found)?;
        }
        Ok(witness)
    }

    /// What it says.
    pub(super) fn says(&self) -> Holdings {
        self.says
    }

    /// Before a commit after which the store holds `planned`: takes off what the commit deletes. Touches no disk where it
    /// deletes nothing.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`]; the commit must not be made then.
    pub(super) fn lower(&mut self, planned: Holdings) -> Result<(), StoreError> {
        self.say(self.says.min(planned))
    }

    /// After a commit by which the store holds `held`.
    ///
    /// # Errors
    /// [`StoreError::Unwritable`]; it says less than is true then, which is safe.
    pub(super) fn raise(&mut self, held: Holdings) -> Result<(), StoreError> {
        self.say(held)
    }

    fn say(&mut self, holdings: Holdings) -> Result<(), StoreError> {
        if holdings != self.says {
            self.write(holdings)?;
            self.says = holdings;
        }
        Ok(())
    }

    fn write(&self, holdings: Holdings) -> Result<(), StoreError> {
        let path = self.state_dir.join(FILE);
        let statement = Statement {
            format: FORMAT,
            holdings,
        };
        let write = || -> io::Result<()> {
            let text = serde_json::to_string(&statement).map_err(io::Error::other)?;
            // IMPORTANT: synced before it takes the old one's place, or a power loss could leave an empty file there.
            let temporary = self.state_dir.join(TEMPORARY);
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_directory(&self.state_dir)
        };
        write().map_err(|error| StoreError::Unwritable(format!("{}: {error}", path.display())))
    }
}

/// The witness's name under the state directory.
pub(super) const FILE: &str = "store.witness";

/// What is left here by a kill is overwritten.
const TEMPORARY: &str = "store.witness.new";

const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn holdings(generation: u64, accounts: u64, tokens: u64) -> Holdings {
        Holdings {
            generation,
            accounts,
            tokens,
        }
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_more_is_not_missed() {
        let witness = holdings(9, 2, 3);
        assert_eq!(witness.missing_from(&holdings(9, 2, 3)), None);
        assert_eq!(witness.missing_from(&holdings(10, 5, 4)), None);
        assert_eq!(
            witness.missing_from(&holdings(0, 0, 0)).unwrap(),
            "2 of 2 accounts, 3 of 3 access tokens, 9 of 9 commits"
        );
        assert_eq!(
            witness.missing_from(&holdings(9, 2, 2)).unwrap(),
            "1 of 3 access tokens"
        );
    }

    #[test]
    fn a_witness_reads_back_and_is_lowered_at_once_but_never_raised_by_a_plan() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path();
        assert_eq!(Witness::read(state_dir).unwrap(), None);
        let mut witness = Witness::install(state_dir, None, holdings(5, 2, 2)).unwrap();
        assert_eq!(Witness::read(state_dir).unwrap(), Some(holdings(5, 2, 2)));

        witness.lower(holdings(6, 1, 4)).unwrap();
        assert_eq!(Witness::read(state_dir).unwrap(), Some(holdings(5, 1, 2)));
        witness.raise(holdings(6, 1, 4)).unwrap();
        assert_eq!(Witness::read(state_dir).unwrap(), Some(holdings(6, 1, 4)));
    }

    #[test]
    fn a_damaged_or_newer_witness_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"format":2,"generation":0,"accounts":0,"tokens":0}"#] {
            fs::write(directory.path().join(FILE), text).unwrap();
            let error = Witness::read(directory.path()).unwrap_err().to_string();
            assert!(error.contains("restore it from a backup"), "{error}");
        }
    }
}
