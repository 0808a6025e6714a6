//! Whether the daemon was ready when somebody last asked, so that the log tells of a change and not of every probe.

use std::sync::{Mutex, PoisonError};

/// What the last probe found. Ready, at first: nothing has been told yet.
#[derive(Debug, Default)]
pub struct Readiness {
    is_unready: Mutex<bool>,
}

impl Readiness {
    /// Takes note of what a probe finds; `problem` is why the daemon is not ready. Says whether that is a change, which it logs.
    pub(super) fn note(&self, problem: Option<&str>) -> bool {
        let mut is_unready = self.is_unready.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_unready == problem.is_some() {
            return false;
        }
        *is_unready = problem.is_some();
        match problem {
            Some(problem) => tracing::warn!(problem, "not ready"),
            None => tracing::info!("ready again"),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_and_no_other_probe() {
        let readiness = Readiness::default();
        assert!(!readiness.note(None));
        assert!(readiness.note(Some("the disk has 17 bytes left")));
        assert!(!readiness.note(Some("the disk has 16 bytes left")));
        assert!(readiness.note(None));
        assert!(!readiness.note(None));
    }
}
