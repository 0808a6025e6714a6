//! Keeps one kind of trouble, which a peer may be able to cause at will, from filling the log.

use tokio::time::Instant;

use crate::limits::COMPLAINT_INTERVAL;

/// When a kind of trouble was last spoken of.
#[derive(Debug, Default)]
pub struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Whether it may be spoken of now, at most once in [`COMPLAINT_INTERVAL`]; if so, how often it was not since the last
    /// time.
    pub fn may_say(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + COMPLAINT_INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_trouble_is_spoken_of_once_in_a_while_and_then_told_how_often_it_was_not() {
        let mut complaints = Complaints::default();
        let begun = Instant::now();
        let said: Vec<_> = [0, 100, 999, 1000, 1001]
            .map(|millis| complaints.may_say(begun + Duration::from_millis(millis)))
            .into();
        assert_eq!(said, [Some(0), None, None, Some(2), None]);
        assert_eq!(complaints.may_say(begun + 3 * COMPLAINT_INTERVAL), Some(1));
    }
}
