//! Whether the disk takes writes, and the room that is kept for deletions.
//!
//! A full disk must not keep anybody from revoking a token. So a file of [`Reserve::BYTES`] lies beside the store, and is given
//! up where a deletion finds no room.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::store::StoreError;

/// Fails if less than `reserve` bytes are free, to this user, on the disk under `directory`.
pub(super) fn check(directory: &Path, reserve: u64) -> Result<(), StoreError> {
    let disk = rustix::fs::statvfs(directory)
        .map_err(|error| StoreError::Unwritable(format!("{}: {error}", directory.display())))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free >= reserve {
        return Ok(());
    }
    Err(StoreError::Unwritable(format!(
        "only {free} bytes are free on the disk of {}, {reserve} are needed",
        directory.display()
    )))
}

/// Fails if a file cannot be written and synced in `directory`.
pub(super) fn probe(directory: &Path) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut file = tempfile::tempfile_in(directory)?;
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_all()
    };
    write().map_err(|error| StoreError::Unwritable(format!("{}: {error}", directory.display())))
}

/// The file that keeps room for deletions.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    state: ReserveState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReserveState {
    Held,
    Released,
    /// The file system allots nothing in advance.
    NotOffered,
}

impl Reserve {
    /// What is kept: the journal's share of some thousand deletions.
    pub(super) const BYTES: u64 = 4 * 1024 * 1024;

    /// The reserve in `state_dir`, which is not looked at yet.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(RESERVE_FILE),
            state: ReserveState::Released,
        }
    }

    /// Bytes that it takes to hold what is not held.
    pub(super) fn missing(&self) -> u64 {
        match self.state {
            ReserveState::Released if fs::metadata(&self.path).is_ok_and(|file| file.len() == Self::BYTES) => 0,
            ReserveState::Released => Self::BYTES,
            ReserveState::Held | ReserveState::NotOffered => 0,
        }
    }

    /// Takes the room, where it is not held yet.
    pub(super) fn hold(&mut self) {
        if self.state != ReserveState::Released {
            return;
        }
        let hold = || -> io::Result<()> {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&self.path)?;
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, Self::BYTES)?;
            Ok(())
        };
        self.state = match hold() {
            Ok(()) => ReserveState::Held,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.release();
                ReserveState::Released
            }
            Err(error) => {
                tracing::debug!(%error, "no room is kept for deletions");
                self.release();
                ReserveState::NotOffered
            }
        };
    }

    /// Gives the room up, for a deletion.
    pub(super) fn release(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "the room that is kept for deletions cannot be given up");
        }
        if self.state == ReserveState::Held {
            self.state = ReserveState::Released;
        }
    }
}

/// What must be free before anything is written: a memtable's flush and some journal. With less, a write or a flush of the
/// engine's could fail half-way.
pub(super) const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// What must be free before a deletion is written, with the reserve given up.
pub(super) const DELETION_BYTES: u64 = 1024 * 1024;

const PROBE_BYTES: usize = 64 * 1024;

const RESERVE_FILE: &str = "store.reserve";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_held_once_and_its_room_is_free_again_when_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(RESERVE_FILE);
        let mut reserve = Reserve::new(directory.path());
        assert_eq!(reserve.missing(), Reserve::BYTES);
        reserve.hold();
        assert_eq!(reserve.missing(), 0);
        assert_eq!(fs::metadata(&path).unwrap().len(), Reserve::BYTES);
        assert_eq!(
            Reserve::new(directory.path()).missing(),
            0,
            "one of an earlier run counts"
        );

        reserve.release();
        assert!(!path.exists());
        assert_eq!(reserve.missing(), Reserve::BYTES);
        reserve.release();
    }
}
