//! The state directory: made private, and refused where it is not.
//!
//! It holds the store, the master key and generated certificates, so that nobody but the daemon's own user may enter it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::StoreError;

/// Makes `path` with mode 0700 if it does not exist, and refuses it if others can enter it.
///
/// Sets the process's umask to 077, because the engine creates files without a say in their mode: what is made from now on
/// is for the daemon's user alone, unless its mode is set afterwards.
///
/// # Errors
/// [`StoreError::Exposed`]; [`StoreError::Unwritable`] where the directory cannot be made.
pub fn prepare(path: &Path) -> Result<(), StoreError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    create(path).map_err(|error| {
        StoreError::Unwritable(format!("cannot create the state directory {}: {error}", path.display()))
    })?;
    let mode = fs::metadata(path)
        .map_err(|error| StoreError::Unreadable(format!("{}: {error}", path.display())))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(StoreError::Exposed(format!(
        "the state directory {path} can be reached by other users (mode {mode:04o}); run 'chmod 700 {path}'",
        path = path.display(),
        mode = mode & 0o7777,
    )))
}

/// Makes the names in `directory` survive a power loss.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn create(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .map_or(Ok(()), sync_directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        prepare(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        prepare(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o750, 0o701] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = prepare(directory.path()).unwrap_err();
            assert!(
                matches!(&error, StoreError::Exposed(text) if text.contains("chmod 700")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(prepare(file.path()), Err(StoreError::Unwritable(_))));
    }
}
