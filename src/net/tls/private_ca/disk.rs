//! Files of the authority: for the daemon's user alone, complete or not there, durable when written.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::NamedTempFile;

use super::super::{TlsSetupError, content};

/// Makes a directory that only the daemon's user can enter, if it is not there, and refuses one that others can enter.
pub(super) fn make_directory(path: &Path) -> Result<(), TlsSetupError> {
    let make = || match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Ok(()) => sync(parent(path)),
        Err(error) => Err(error),
    };
    make().map_err(|error| unwritable(path, error))?;
    match exposed(path)? {
        None => Ok(()),
        Some(mode) => {
            let remedy = format!("run 'chmod 700 {}'", path.display());
            let problem = format!("the directory can be reached by other users (mode {mode:04o}); {remedy}");
            Err(content(path, problem))
        }
    }
}

/// Writes `path`, in place of what may be there.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TlsSetupError> {
    let write = || {
        staged(path, bytes)?.persist(path)?;
        sync(parent(path))
    };
    write().map_err(|error| unwritable(path, error))
}

/// Writes two files of one directory, neither of which may be there yet. Both are complete on the disk before the first gets
/// its name, so that little can come between the two.
pub(super) fn create_both(first: (&Path, &[u8]), second: (&Path, &[u8])) -> Result<(), TlsSetupError> {
    let stage = |(path, bytes): (&Path, &[u8])| staged(path, bytes).map_err(|error| unwritable(path, error));
    let (staged_first, staged_second) = (stage(first)?, stage(second)?);
    let (first, second) = (first.0, second.0);
    staged_first
        .persist_noclobber(first)
        .map_err(|error| unwritable(first, error.error))?;
    if let Err(error) = staged_second.persist_noclobber(second) {
        // Nobody has seen the first yet. If it cannot be removed either, the next start says what to do.
        let _ = std::fs::remove_file(first);
        return Err(unwritable(second, error.error));
    }
    sync(parent(second)).map_err(|error| unwritable(second, error))
}

/// Refuses a key that others than its owner can read.
pub(super) fn refuse_exposed(path: &Path) -> Result<(), TlsSetupError> {
    match exposed(path)? {
        None => Ok(()),
        Some(mode) => {
            let remedy = format!("run 'chmod 600 {}'", path.display());
            Err(content(
                path,
                format!("the key can be reached by other users (mode {mode:04o}); {remedy}"),
            ))
        }
    }
}

/// The mode of a file or directory, if others than its owner can reach it.
pub(super) fn exposed(path: &Path) -> Result<Option<u32>, TlsSetupError> {
    let metadata = std::fs::metadata(path).map_err(|error| TlsSetupError::Read {
        file: path.to_owned(),
        error,
    })?;
    let mode = metadata.permissions().mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// A file beside `path` with the content that `path` is to have. A tempfile's mode is 0600 from its creation on.
fn staged(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(parent(path))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Makes the names in `directory` survive a power loss.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn unwritable(file: &Path, error: io::Error) -> TlsSetupError {
    TlsSetupError::Write {
        file: file.to_owned(),
        error,
    }
}
