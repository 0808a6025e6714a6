//! Programs that are started from here: what they have started themselves ends with them, and they are told no more of the
//! daemon's environment than they need.

use std::ffi::OsString;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The processes that a program began, which was started with `process_group(0)`. They are killed when this is dropped before
/// the program is known to have ended.
#[derive(Debug)]
pub struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    /// The group that `child` leads.
    pub fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }

    /// The program has ended, and its id may soon be another's.
    pub fn leave(mut self) {
        self.0 = None;
    }
}

/// Gives `command` an environment of its own instead of the daemon's, which may hold secrets: `PATH`, `HOME` and `LANG`, and
/// what is `named` for it, which may change those.
pub fn set_environment<'v>(command: &mut Command, named: impl Iterator<Item = (&'v str, &'v str)>) {
    command.env_clear().env("PATH", search_path());
    for name in ["HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(named);
}

/// Where programs are looked for by their names: the daemon's own `PATH`, or where it has none, what Linux takes for it.
pub fn search_path() -> OsString {
    std::env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into())
}

/// `_PATH_DEFPATH` of the C library, with what an administrator installs before it.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a program's processes cannot be killed");
        }
    }
}
