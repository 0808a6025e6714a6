//! Programs that are started from here: what they have started themselves ends with them.

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

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

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            tracing::debug!(%error, "a program's processes cannot be killed");
        }
    }
}
