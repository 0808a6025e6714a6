//! Who waits for a submission slot of an account, in the order of their coming. Pure: who is let in, and when a wait is over,
//! without knowing what a waiter is.
//!
//! The queue is bounded and every wait ends: with a slot, with its deadline, or because nobody is let in any more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::{SUBMISSION_SLOT_WAIT, SUBMISSION_WAITERS_MAX};

/// The waiters of one account.
#[derive(Debug)]
pub(super) struct Submissions<W> {
    waiting: VecDeque<Waiting<W>>,
}

/// Whether anybody can be let in now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// A slot is free.
    Open,
    /// All slots are taken.
    Full,
    /// Nobody is let in any more: the account is disabled, or the program stops.
    Shut,
}

/// What becomes of a waiter whose wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It takes the slot.
    Admitted,
    /// It waited as long as it may.
    TimedOut,
    /// It waits for nothing.
    TurnedAway,
}

#[derive(Debug)]
struct Waiting<W> {
    until: Timestamp,
    waiter: W,
}

impl<W> Submissions<W> {
    /// Nobody waits.
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
        }
    }

    /// Lets `waiter` wait behind all others, or gives it back if too many do. Whoever comes waits, if only until the next
    /// [`Submissions::next`], so that nobody is overtaken.
    pub(super) fn wait(&mut self, waiter: W, login_timeout: Duration, now: Timestamp) -> Result<(), W> {
        if self.waiting.len() >= SUBMISSION_WAITERS_MAX {
            return Err(waiter);
        }
        let until = now.after(SUBMISSION_SLOT_WAIT.min(login_timeout / 2));
        self.waiting.push_back(Waiting { until, waiter });
        Ok(())
    }

    /// Forgets those who gave up, whom a slot would be wasted on.
    pub(super) fn forget(&mut self, has_left: impl Fn(&W) -> bool) {
        self.waiting.retain(|waiting| !has_left(&waiting.waiter));
    }

    /// The next whose wait is over, to be called until there is none: the door may have closed behind the last. Deadlines are
    /// not in order where `login_timeout` was changed, so that all are looked at.
    pub(super) fn next(&mut self, door: Door, now: Timestamp) -> Option<(W, Outcome)> {
        let (index, outcome) = match door {
            Door::Open => (0, Outcome::Admitted),
            Door::Shut => (0, Outcome::TurnedAway),
            Door::Full => {
                let index = self.waiting.iter().position(|waiting| waiting.until <= now)?;
                (index, Outcome::TimedOut)
            }
        };
        let waiting = self.waiting.remove(index)?;
        Some((waiting.waiter, outcome))
    }

    /// When the first wait ends by itself.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_let_in() {
        let mut queue = Submissions::new();
        for waiter in ["a", "b"] {
            queue.wait(waiter, LOGIN_TIMEOUT, at(0)).unwrap();
        }
        assert_eq!(queue.next(Door::Full, at(4)), None);
        assert_eq!(queue.next(Door::Open, at(4)), Some(("a", Outcome::Admitted)));
        assert_eq!(queue.deadline(), Some(at(5)));
        assert_eq!(queue.next(Door::Full, at(5)), Some(("b", Outcome::TimedOut)));
        assert_eq!(queue.deadline(), None);
        assert_eq!(queue.next(Door::Open, at(5)), None);
    }

    #[test]
    fn a_wait_leaves_time_for_the_login_itself() {
        let mut queue = Submissions::new();
        queue.wait((), Duration::from_secs(4), at(10)).unwrap();
        assert_eq!(queue.deadline(), Some(at(12)));
    }

    #[test]
    fn no_more_wait_than_the_limit_allows() {
        let mut queue = Submissions::new();
        for waiter in 0..SUBMISSION_WAITERS_MAX {
            queue.wait(waiter, LOGIN_TIMEOUT, at(0)).unwrap();
        }
        assert_eq!(queue.wait(999, LOGIN_TIMEOUT, at(0)), Err(999));
        queue.forget(|waiter| *waiter == 7);
        assert_eq!(queue.wait(999, LOGIN_TIMEOUT, at(0)), Ok(()));
    }

    /// What happens to a queue of an account with two slots.
    #[derive(Debug, Clone)]
    enum Event {
        Comes { login_timeout: u64 },
        Leaves(usize),
        SlotFreed,
        TimePasses(u64),
        Shuts,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (1_u64..40).prop_map(|login_timeout| Event::Comes { login_timeout }),
            1 => (0_usize..100).prop_map(Event::Leaves),
            2 => Just(Event::SlotFreed),
            2 => (0_u64..4).prop_map(Event::TimePasses),
            1 => Just(Event::Shuts),
        ]
    }

    proptest! {
        #[test]
        fn every_waiter_is_answered_once_and_in_order(events in prop::collection::vec(event(), 0..200)) {
            let (slots, mut taken, mut now, mut came) = (2, 0, 0_u64, 0_usize);
            let mut left = std::collections::BTreeSet::new();
            let mut admitted = Vec::new();
            let mut answered = std::collections::BTreeSet::new();
            let mut queue = Submissions::new();
            for event in events {
                let mut is_shut = false;
                match event {
                    Event::Comes { login_timeout } => {
                        queue.forget(|waiter| left.contains(waiter));
                        if queue.wait(came, Duration::from_secs(login_timeout), at(now)).is_err() {
                            answered.insert(came);
                        }
                        came += 1;
                    }
                    Event::Leaves(waiter) if waiter < came && !answered.contains(&waiter) => {
                        left.insert(waiter);
                    }
                    Event::Leaves(_) => {}
                    Event::SlotFreed => taken = usize::saturating_sub(taken, 1),
                    Event::TimePasses(seconds) => now += seconds,
                    Event::Shuts => is_shut = true,
                }
                queue.forget(|waiter| left.contains(waiter));
                loop {
                    let door = if is_shut { Door::Shut } else if taken < slots { Door::Open } else { Door::Full };
                    let Some((waiter, outcome)) = queue.next(door, at(now)) else { break };
                    prop_assert!(answered.insert(waiter), "{waiter} is answered twice");
                    prop_assert!(!left.contains(&waiter), "{waiter} had left");
                    if outcome == Outcome::Admitted {
                        taken += 1;
                        admitted.push(waiter);
                    }
                }
                prop_assert!(taken <= slots);
                prop_assert!(queue.is_empty() || taken == slots, "somebody waits beside a free slot");
                prop_assert!(queue.deadline().is_none_or(|until| until > at(now) && until <= at(now + 5)));
                if is_shut {
                    prop_assert!(queue.is_empty());
                }
            }
            prop_assert!(admitted.is_sorted());
            now += SUBMISSION_SLOT_WAIT.as_secs();
            while let Some((waiter, _)) = queue.next(Door::Full, at(now)) {
                prop_assert!(answered.insert(waiter));
            }
            prop_assert_eq!(answered.union(&left).count(), came, "somebody waits for ever");
        }
    }
}
