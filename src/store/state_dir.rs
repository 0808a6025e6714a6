//! The state directory: made private, and refused where it is not.
//!
//! It holds the store, the master key and generated certificates, so that nobody but the daemon's own user may enter it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
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
    examine(path, Reader::Daemon)
}

/// For whom a file or a directory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// For this process, which is the daemon.
    Daemon,
    /// For a daemon that this user starts. Root may start it as any user, so that owners cannot be judged for root.
    Administrator,
}

/// Refuses the state directory where it is none, or is not for the daemon alone. One that is not there yet is fine.
///
/// # Errors
/// [`StoreError::Exposed`]; [`StoreError::Unreadable`] where it cannot be looked at or is no directory.
pub fn examine(path: &Path, reader: Reader) -> Result<(), StoreError> {
    let unreadable = |problem: String| StoreError::Unreadable(format!("{}: {problem}", path.display()));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    if !metadata.is_dir() {
        return Err(unreadable("the state directory is not a directory".to_owned()));
    }
    refuse_foreign("the state directory", path, metadata.uid(), reader)?;
    let mode = metadata.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(StoreError::Exposed(format!(
        "the state directory {path} can be reached by other users (mode {mode:04o}); run 'chmod 700 {path}'",
        path = path.display(),
        mode = mode & 0o7777,
    )))
}

/// Refuses what belongs to another user than the daemon's own and root: its owner could read it and put something else in
/// its place, whatever its mode is now.
pub(super) fn refuse_foreign(what: &str, path: &Path, owner: u32, reader: Reader) -> Result<(), StoreError> {
    let own = rustix::process::geteuid();
    if reader == Reader::Administrator && own.is_root() {
        return Ok(());
    }
    refuse_owner(what, path, owner, own.as_raw())
}

fn refuse_owner(what: &str, path: &Path, owner: u32, own: u32) -> Result<(), StoreError> {
    if owner == own || owner == ROOT {
        return Ok(());
    }
    Err(StoreError::Exposed(format!(
        "{what} {path} belongs to user {owner}, not to the user that the daemon runs as ({own}) or root; run the daemon as \
         user {owner}, or 'chown -R {own} {path}' if all that is in there is to be trusted",
        path = path.display(),
    )))
}

/// The user whom everybody has to trust.
const ROOT: u32 = 0;

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
    fn what_belongs_to_another_user_is_refused_with_what_to_do() {
        let path = Path::new("/var/lib/portreeve");
        refuse_owner("the state directory", path, 990, 990).unwrap();
        refuse_owner("the state directory", path, 0, 990).unwrap();
        for own in [0, 991] {
            let error = refuse_owner("the state directory", path, 990, own).unwrap_err();
            let expected = format!("belongs to user 990, not to the user that the daemon runs as ({own}) or root");
            assert!(
                matches!(&error, StoreError::Exposed(text) if text.contains(&expected) && text.contains("chown -R")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_directory_of_another_user_is_refused_by_the_daemon_and_left_to_root_who_checks_for_others() {
        let directory = tempfile::tempdir().unwrap();
        // Only root can give a directory away; anybody else has one that is root's own.
        let another = if rustix::process::geteuid().is_root() {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::chown(directory.path(), Some(12_345), None).unwrap();
            directory.path()
        } else {
            return examine(Path::new("/root"), Reader::Daemon).unwrap();
        };
        assert!(matches!(prepare(another), Err(StoreError::Exposed(_))));
        examine(another, Reader::Administrator).unwrap();
        assert!(matches!(examine(another, Reader::Daemon), Err(StoreError::Exposed(_))));
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_fine() {
        examine(Path::new("/nonexistent/portreeve"), Reader::Daemon).unwrap();
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(prepare(file.path()), Err(StoreError::Unwritable(_))));
    }
}
