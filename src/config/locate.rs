//! Where things are when nothing says so: the configuration file, the state directory, the admin socket (INTERFACE §3).

use std::io;
use std::path::{Path, PathBuf};

use super::environment::{self, Environment, FileContent};
use super::report::ConfigError;
use crate::limits::CONFIG_BYTES_MAX;

/// The configuration file and its content; `None` where there is none and the defaults apply.
///
/// # Errors
/// A file that was named, by the command line or by `PORTREEVE_CONFIG`, must be readable; one that is only looked for may
/// be absent, but not unreadable: running on defaults instead would surprise whoever wrote it.
pub(super) fn config_file(
    explicit: Option<&Path>,
    environment: &dyn Environment,
) -> Result<Option<(PathBuf, FileContent)>, ConfigError> {
    let read = |path: &Path| environment.read(path, CONFIG_BYTES_MAX);
    let named = explicit
        .map(Path::to_owned)
        .or_else(|| environment::path(environment, "PORTREEVE_CONFIG"));
    if let Some(path) = named {
        return match read(&path) {
            Ok(content) => Ok(Some((path, content))),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        };
    }
    let own = environment::xdg_path(environment, "XDG_CONFIG_HOME", ".config").map(|home| home.join(FILE_IN_HOME));
    for path in own.into_iter().chain([PathBuf::from(FILE_OF_SYSTEM)]) {
        match read(&path) {
            Ok(content) => return Ok(Some((path, content))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
    }
    Ok(None)
}

/// The default of `server.state_dir`; `None` where the environment names no place at all.
pub(super) fn state_dir(environment: &dyn Environment) -> Option<PathBuf> {
    environment::first_path(environment, "STATE_DIRECTORY").or_else(|| {
        if environment.is_root() {
            return Some(PathBuf::from("/var/lib/portreeve"));
        }
        environment::xdg_path(environment, "XDG_STATE_HOME", ".local/state").map(|home| home.join("portreeve"))
    })
}

/// The default of `admin.socket`.
pub(super) fn admin_socket(environment: &dyn Environment, state_dir: &Path) -> PathBuf {
    if let Some(directory) = environment::first_path(environment, "RUNTIME_DIRECTORY") {
        return directory.join(SOCKET);
    }
    if environment.is_root() {
        return Path::new("/run/portreeve").join(SOCKET);
    }
    environment::path(environment, "XDG_RUNTIME_DIR")
        .filter(|path| path.is_absolute())
        .map_or_else(
            || state_dir.join(SOCKET),
            |runtime| runtime.join("portreeve").join(SOCKET),
        )
}

const FILE_IN_HOME: &str = "portreeve/portreeve.toml";
const FILE_OF_SYSTEM: &str = "/etc/portreeve/portreeve.toml";
const SOCKET: &str = "admin.sock";
