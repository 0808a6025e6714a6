//! What the configuration takes from outside its file, behind one trait, so that every rule about it can be tested.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::material::Material;

/// Environment variables, the user, the host and the files that a configuration refers to.
pub trait Environment {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<OsString>;

    /// Whether the effective user is root, whose defaults are the system's directories.
    fn is_root(&self) -> bool;

    /// The host's own name.
    fn hostname(&self) -> String;

    /// Reads a small file.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::FileTooLarge`] above `bytes_max`.
    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent>;

    /// Looks at a file or a program that a configuration names. Whoever only reads keys, as a command does that looks for its
    /// daemon's socket, takes all of it to be there; whoever runs on the configuration must not.
    ///
    /// # Errors
    /// What is wrong with it and what would be right, as words that go after the key.
    fn examine(&self, _material: &Material<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// The process's own environment.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }

    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn hostname(&self) -> String {
        gethostname::gethostname().to_string_lossy().into_owned()
    }

    fn read(&self, path: &Path, bytes_max: u64) -> io::Result<FileContent> {
        let mut file = File::open(path)?;
        let mode = file.metadata()?.mode() & 0o7777;
        let mut bytes = Vec::new();
        // One byte more than allowed tells a file that is too large from one that just fits.
        file.by_ref()
            .take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > bytes_max) {
            let message = format!("the file is larger than {bytes_max} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(FileContent { bytes, mode })
    }
}

/// The path in an environment variable; an empty one counts as unset.
pub(super) fn path(environment: &dyn Environment, name: &str) -> Option<PathBuf> {
    environment
        .variable(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// The first path of a variable that systemd fills with a list (`STATE_DIRECTORY` and its like, systemd.exec(5)).
pub(super) fn first_path(environment: &dyn Environment, name: &str) -> Option<PathBuf> {
    let list = environment.variable(name)?;
    std::env::split_paths(&list)
        .next()
        .filter(|path| !path.as_os_str().is_empty())
}

/// The directory of an XDG variable, which must be absolute to count (XDG Base Directory Specification), or its default
/// under the home directory.
pub(super) fn xdg_path(environment: &dyn Environment, name: &str, under_home: &str) -> Option<PathBuf> {
    path(environment, name)
        .filter(|path| path.is_absolute())
        .or_else(|| path(environment, "HOME").map(|home| home.join(under_home)))
}
