//! Whether the disk takes writes.

use std::io::{self, Write};
use std::path::Path;

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

/// What must be free before anything is written: a memtable's flush and some journal. With less, a write or a flush of the
/// engine's could fail half-way.
pub(super) const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

const PROBE_BYTES: usize = 64 * 1024;
