//! Opening the database, and not taking a damaged one for a new one.
//!
//! What the store must at least hold is in the [`Witness`] beside it. A store from before there were witnesses is taken as it
//! is, and gets one. Where [`Loss::Accepted`] is said, a store that lacks something is opened with what is left, and one that
//! cannot be opened at all is set aside under another name and a new one begun.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::journals::Journals;
use super::meta;
use super::tables::Tables;
use crate::store::master_key::GENERATED_KEY_FILE;
use crate::store::witness::{self, Holdings, Witness};
use crate::store::{Loss, StoreError, state_dir};

/// Opens or creates the database in `directory`, which is under `state_dir`. It holds what its witness says.
///
/// # Errors
/// As [`super::EmbeddedStore::open`].
pub(super) fn open(state_dir: &Path, directory: &Path, loss: Loss) -> Result<(Tables, Witness), StoreError> {
    let expected = match (Witness::read(state_dir), loss) {
        (Ok(expected), _) => expected,
        (Err(error), Loss::Refused) => return Err(error),
        (Err(error), Loss::Accepted) => {
            tracing::warn!(%error, "a damaged witness is replaced");
            None
        }
    };
    check_presence(state_dir, directory, expected, loss)?;
    if loss == Loss::Refused {
        check_trees(directory)?;
    }
    let (tables, found) = match open_whole(directory, expected, loss) {
        Err(StoreError::Locked(_)) => return Err(StoreError::Locked(state_dir.display().to_string())),
        Err(error @ (StoreError::Incomplete(_) | StoreError::Unreadable(_))) if loss == Loss::Accepted => {
            let aside = set_aside(directory)?;
            tracing::warn!(%error, aside = %aside.display(), "the store is set aside, and a new one begun");
            (Tables::open(directory)?, Holdings::default())
        }
        opened => opened?,
    };
    state_dir::sync_directory(state_dir).map_err(|error| StoreError::Unwritable(error.to_string()))?;
    let witness = Witness::install(state_dir, expected, found)?;
    Ok((tables, witness))
}

/// Refuses to begin a new store where there has been one.
fn check_presence(
    state_dir: &Path,
    directory: &Path,
    expected: Option<Holdings>,
    loss: Loss,
) -> Result<(), StoreError> {
    let is_there = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    let sign = match expected {
        Some(expected) => (expected != Holdings::default()).then(|| state_dir.join(witness::FILE)),
        None => Some(state_dir.join(GENERATED_KEY_FILE)).filter(|key| key.exists()),
    };
    let Some(sign) = sign.filter(|_| !is_there) else {
        return Ok(());
    };
    let error = StoreError::Incomplete(format!(
        "the store {store} is missing, but {sign} says that there was one; {WHAT_TO_DO}",
        store = directory.display(),
        sign = sign.display()
    ));
    match loss {
        Loss::Refused => Err(error),
        Loss::Accepted => {
            tracing::warn!(%error, "a new store is begun");
            Ok(())
        }
    }
}

/// Refuses a database of which a keyspace has tables and no list of them: fjall would take it for a new one and drop them.
fn check_trees(directory: &Path) -> Result<(), StoreError> {
    let Ok(keyspaces) = fs::read_dir(directory.join(KEYSPACES)) else {
        return Ok(());
    };
    for keyspace in keyspaces.flatten() {
        let path = keyspace.path();
        let has_tables = fs::read_dir(path.join(TABLES)).is_ok_and(|mut tables| tables.next().is_some());
        let list = path.join(CURRENT);
        if has_tables && !list.exists() {
            return Err(StoreError::Unreadable(format!(
                "{} is missing; {WHAT_TO_DO}",
                list.display()
            )));
        }
    }
    Ok(())
}

/// Opens the database if it holds what is `expected` of it, or if that is not asked. Where it is refused, its journals are as
/// they were found.
fn open_whole(directory: &Path, expected: Option<Holdings>, loss: Loss) -> Result<(Tables, Holdings), StoreError> {
    let held = expected
        .filter(|expected| *expected != Holdings::default())
        .and_then(|_| Journals::hold(directory).ok());
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let tables = Tables::open(directory)?;
        let found = meta::holdings(&tables)?;
        Ok((tables, found))
    }));
    // fjall panics at some kinds of damage.
    let opened = opened.unwrap_or_else(|_panic| Err(StoreError::Unreadable("it is damaged".to_owned())));
    let error = match opened {
        Ok((tables, found)) => match expected.and_then(|expected| expected.missing_from(&found)) {
            None => return Ok((tables, found)),
            Some(missing) if loss == Loss::Accepted => {
                tracing::warn!(%missing, "records are missing from the store; it is opened with what is left");
                return Ok((tables, found));
            }
            Some(missing) => StoreError::Incomplete(format!(
                "records are missing from the store {store}: {missing}; {WHAT_TO_DO}",
                store = directory.display()
            )),
        },
        // Another daemon's journals are not to be touched.
        Err(error @ StoreError::Locked(_)) => return Err(error),
        Err(StoreError::Unreadable(reason)) => StoreError::Unreadable(format!("{reason}; {WHAT_TO_DO}")),
        Err(error) => error,
    };
    if let Some(Err(failed)) = held.as_ref().map(Journals::put_back) {
        tracing::error!(error = %failed, "the journals of the damaged store could not be put back as they were");
    }
    Err(error)
}

/// Gives the damaged database another name, which is returned.
fn set_aside(directory: &Path) -> Result<PathBuf, StoreError> {
    let failed = |error: io::Error| {
        StoreError::Unwritable(format!(
            "the damaged store {} cannot be renamed: {error}",
            directory.display()
        ))
    };
    let mut number = 1_u32;
    loop {
        let aside = directory.with_extension(format!("damaged.{number}"));
        match fs::symlink_metadata(&aside) {
            Ok(_) => number = number.saturating_add(1),
            Err(_) => {
                fs::rename(directory, &aside).map_err(failed)?;
                return Ok(aside);
            }
        }
    }
}

/// fjall's names.
const KEYSPACES: &str = "keyspaces";
const TABLES: &str = "tables";
const CURRENT: &str = "current";

const WHAT_TO_DO: &str = "restore the state directory from a backup, or start once with 'portreeve serve --accept-loss' to go on \
                          with what is left";
