//! Keeps one kind of trouble, which a peer may be able to cause at will, from filling the log.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{COMPLAINT_INTERVAL, DENIED_WINDOW, DENIED_WINDOWS_MAX};

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
        self.may_say_once_in(COMPLAINT_INTERVAL, now)
    }

    fn may_say_once_in(&mut self, interval: Duration, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + interval) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// The same for refusals of many peers, each told apart by a key: each may be spoken of once in [`DENIED_WINDOW`].
///
/// At most [`DENIED_WINDOWS_MAX`] are told apart; those beyond share one line.
#[derive(Debug)]
pub struct KeyedComplaints<K> {
    said: HashMap<K, Complaints>,
    others: Complaints,
    /// When those that are over were last sought.
    sought: Option<Instant>,
}

impl<K> Default for KeyedComplaints<K> {
    fn default() -> Self {
        Self {
            said: HashMap::new(),
            others: Complaints::default(),
            sought: None,
        }
    }
}

impl<K: Eq + Hash> KeyedComplaints<K> {
    /// Whether the trouble of `key` may be spoken of now; if so, how often it was not since the last time.
    pub fn may_say(&mut self, key: K, now: Instant) -> Option<u64> {
        if self.said.len() >= DENIED_WINDOWS_MAX && !self.said.contains_key(&key) {
            self.make_room(now);
            if self.said.len() >= DENIED_WINDOWS_MAX {
                return self.others.may_say_once_in(DENIED_WINDOW, now);
            }
        }
        self.said.entry(key).or_default().may_say_once_in(DENIED_WINDOW, now)
    }

    /// Forgets those that may be spoken of again, at most once in [`COMPLAINT_INTERVAL`]. What was not said of them is said
    /// with the others.
    fn make_room(&mut self, now: Instant) {
        if self.sought.is_some_and(|sought| now < sought + COMPLAINT_INTERVAL) {
            return;
        }
        self.sought = Some(now);
        let others = &mut self.others;
        self.said.retain(|_, complaints| {
            let is_over = complaints.last.is_none_or(|last| now >= last + DENIED_WINDOW);
            if is_over {
                others.unsaid += complaints.unsaid;
            }
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn each_peer_is_spoken_of_once_a_minute_and_a_crowd_shares_a_line_without_taking_memory() {
        let mut complaints = KeyedComplaints::default();
        let begun = Instant::now();
        assert_eq!(
            [1, 1, 2, 1].map(|peer| complaints.may_say(peer, begun)),
            [Some(0), None, Some(0), None]
        );
        assert_eq!(complaints.may_say(1, begun + DENIED_WINDOW), Some(2));
        let peers = 3..3 * u32::try_from(DENIED_WINDOWS_MAX).unwrap();
        let lines = peers
            .filter(|peer| complaints.may_say(*peer, begun + DENIED_WINDOW).is_some())
            .count();
        // Each that has room says its own, and one speaks for all others.
        assert_eq!(lines, DENIED_WINDOWS_MAX);
        assert_eq!(complaints.said.len(), DENIED_WINDOWS_MAX);
        // When they are over there is room again.
        assert_eq!(complaints.may_say(0, begun + 3 * DENIED_WINDOW), Some(0));
        assert_eq!(complaints.said.len(), 1);
    }
}
