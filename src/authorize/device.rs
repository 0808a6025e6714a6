//! The device flows in progress (RFC 8628): when to poll next, and which of them still count. Pure; time is an argument.
//!
//! ```text
//!   begun ──> wait interval ──> poll ──┬─ pending ────> wait …
//!                                      ├─ slow down ──> interval + 5 s, wait …
//!                                      ├─ granted, refused ──> ended
//!      replaced, pushed out, stopping, or the code has expired ──> ended, before the next poll
//! ```

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use super::error::AuthorizeError;
use crate::clock::Timestamp;
use crate::limits::DEVICE_FLOWS_MAX;
use crate::oauth::DeviceCode;

/// When a device code is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Schedule {
    interval: Duration,
    expires: Timestamp,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait so long, then poll.
    Poll(Duration),
    /// Wait so long, then it is over.
    Expire(Duration),
}

impl Schedule {
    /// The schedule of a `code` that was issued `now`.
    pub(super) fn new(code: &DeviceCode, now: Timestamp) -> Self {
        Self {
            interval: code.interval,
            expires: now.after(code.expires_in),
        }
    }

    /// When the code expires.
    pub(super) fn expires(&self) -> Timestamp {
        self.expires
    }

    /// What comes next, at the moment `now`.
    pub(super) fn next(&self, now: Timestamp) -> Next {
        let left = self.expires.since(now);
        if self.interval < left {
            Next::Poll(self.interval)
        } else {
            Next::Expire(left)
        }
    }

    /// The provider wants to be asked less often, or could not be reached: §3.5 has five seconds more for this and all
    /// further polls.
    pub(super) fn on_slow_down(&mut self) {
        self.interval += SLOW_DOWN;
    }
}

/// The device flows in progress, one of an account.
#[derive(Debug, Default)]
pub(super) struct Devices {
    flows: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// Tells the flow's task why it ends before its time.
    end: watch::Sender<Option<Ending>>,
}

/// Why a flow ends before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// A newer one has taken its place.
    Replaced,
    /// The program stops.
    Stopping,
}

impl From<Ending> for AuthorizeError {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Replaced => Self::Replaced,
            Ending::Stopping => Self::Stopping,
        }
    }
}

impl Devices {
    /// Adds the flow `number` of `account`, in the place of the one that it had; where there are too many, in that of the
    /// oldest. What is returned tells when it must end.
    pub(super) fn insert(&mut self, account: &str, number: u64) -> watch::Receiver<Option<Ending>> {
        if !self.flows.contains_key(account) && self.flows.len() >= DEVICE_FLOWS_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, entry)| entry.number);
            if let Some(oldest) = oldest.map(|(account, _)| account.clone()) {
                self.end(&oldest, Ending::Replaced);
            }
        }
        self.end(account, Ending::Replaced);
        let (end, ended) = watch::channel(None);
        self.flows.insert(account.to_owned(), Entry { number, end });
        ended
    }

    /// The flow `number` of `account` has ended.
    pub(super) fn remove(&mut self, account: &str, number: u64) {
        if self.flows.get(account).is_some_and(|entry| entry.number == number) {
            self.flows.remove(account);
        }
    }

    /// Ends them all: the program stops.
    pub(super) fn stop(&mut self) {
        for (_, entry) in self.flows.drain() {
            entry.end.send_replace(Some(Ending::Stopping));
        }
    }

    fn end(&mut self, account: &str, why: Ending) {
        if let Some(entry) = self.flows.remove(account) {
            entry.end.send_replace(Some(why));
        }
    }
}

/// RFC 8628 §3.5.
const SLOW_DOWN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn code(expires: u64, interval: u64) -> DeviceCode {
        DeviceCode {
            device_code: "d".into(),
            user_code: "A".to_owned(),
            verification_uri: "https://example.com".to_owned(),
            verification_uri_complete: None,
            expires_in: Duration::from_secs(expires),
            interval: Duration::from_secs(interval),
            scopes: Vec::new(),
        }
    }

    fn at(seconds: u64) -> Timestamp {
        START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_code_is_polled_at_its_interval_until_it_expires() {
        let schedule = Schedule::new(&code(20, 5), START);
        assert_eq!(schedule.expires(), at(20));
        for (now, expected) in [
            (0, Next::Poll(Duration::from_secs(5))),
            (14, Next::Poll(Duration::from_secs(5))),
            (15, Next::Expire(Duration::from_secs(5))),
            (19, Next::Expire(Duration::from_secs(1))),
            (20, Next::Expire(Duration::ZERO)),
            (30, Next::Expire(Duration::ZERO)),
        ] {
            assert_eq!(schedule.next(at(now)), expected, "{now}");
        }
    }

    #[test]
    fn each_slow_down_adds_five_seconds_for_good() {
        let mut schedule = Schedule::new(&code(600, 5), START);
        schedule.on_slow_down();
        assert_eq!(schedule.next(START), Next::Poll(Duration::from_secs(10)));
        schedule.on_slow_down();
        assert_eq!(schedule.next(at(100)), Next::Poll(Duration::from_secs(15)));
    }

    #[test]
    fn a_new_flow_ends_the_one_that_the_account_had() {
        let mut devices = Devices::default();
        let (first, other) = (devices.insert("ada", 1), devices.insert("bob", 2));
        let second = devices.insert("ada", 3);
        assert_eq!(*first.borrow(), Some(Ending::Replaced));
        assert_eq!((*second.borrow(), *other.borrow()), (None, None));
        devices.remove("ada", 1);
        devices.stop();
        assert_eq!(
            *second.borrow(),
            Some(Ending::Stopping),
            "the first one's end is not the second's"
        );
    }

    #[test]
    fn the_oldest_goes_where_there_are_too_many() {
        let mut devices = Devices::default();
        let flows: Vec<_> = (0..=DEVICE_FLOWS_MAX)
            .map(|number| devices.insert(&format!("account{number}"), number as u64))
            .collect();
        assert_eq!(*flows[0].borrow(), Some(Ending::Replaced));
        assert_eq!(*flows[1].borrow(), None);
        assert_eq!(devices.flows.len(), DEVICE_FLOWS_MAX);
    }
}
