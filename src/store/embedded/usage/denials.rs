//! Refused logins that are counted together: those of one address, account and reason within a minute. Pure.
//!
//! The first of a window becomes an event at once; the others raise its count in memory, which is written when the window
//! ends or somebody asks. So strangers make one write a minute, however often they are refused.
//!
//! Memory is bounded: beyond [`DENIED_WINDOWS_MAX`] windows the address is left out of new ones, beyond twice as many the
//! account too. What is left then are the reasons, of which there are few.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::limits::{DENIED_WINDOW, DENIED_WINDOWS_MAX};
use crate::proto::Protocol;
use crate::store::UsageEvent;

/// The open windows.
#[derive(Debug, Default)]
pub(in crate::store::embedded) struct Denials {
    windows: HashMap<DenialKey, Window>,
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DenialKey {
    address: Option<IpAddr>,
    account: Option<String>,
    reason: Option<String>,
    /// An event names one.
    protocol: Option<Protocol>,
}

/// An event and how often it has happened.
#[derive(Debug)]
struct Window {
    begun: Timestamp,
    /// The number that the event is kept under.
    number: u64,
    /// How often it has happened.
    count: u64,
    /// The count that is kept.
    written: u64,
    event: UsageEvent,
}

/// A count that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recount {
    /// The number that the event was kept under.
    pub(super) number: u64,
    /// The event with its count.
    pub(super) event: UsageEvent,
}

impl Denials {
    /// Counts `event`. Returns it, as it is to be kept, where it is the first of its window: [`Self::open`] it then.
    pub(super) fn count(&mut self, event: UsageEvent) -> Option<UsageEvent> {
        let event = self.bounded(event);
        let more = event.count.unwrap_or(1);
        match self.windows.get_mut(&DenialKey::of(&event)) {
            Some(window) if is_within(window.begun, event.time) => {
                window.count += more;
                None
            }
            _ => Some(UsageEvent {
                count: Some(more),
                ..event
            }),
        }
    }

    /// Begins the window of `event`, which is kept under `number`.
    pub(super) fn open(&mut self, event: UsageEvent, number: u64) {
        let count = event.count.unwrap_or(1);
        let window = Window {
            begun: event.time,
            number,
            count,
            written: count,
            event,
        };
        self.windows.insert(DenialKey::of(&window.event), window);
    }

    /// The counts that are to be written now: those that have grown and whose windows have ended, or all that have grown.
    /// Windows that have ended are forgotten.
    pub(super) fn due(&mut self, now: Timestamp, which: Due) -> Vec<Recount> {
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            let is_open = is_within(window.begun, now);
            if window.count > window.written && (!is_open || which == Due::All) {
                window.written = window.count;
                due.push(window.recount());
            }
            is_open
        });
        due
    }

    /// The count of the window that `event` begins anew, if it has grown since it was written.
    pub(super) fn take_ended(&mut self, event: &UsageEvent) -> Option<Recount> {
        let window = self.windows.remove(&DenialKey::of(event))?;
        (window.count > window.written).then(|| window.recount())
    }

    /// Notes that the event which was kept under the number `before` has been written anew, as `event` and `number`.
    pub(super) fn renumber(&mut self, before: u64, number: u64, event: UsageEvent) {
        if let Some(window) = self.windows.get_mut(&DenialKey::of(&event))
            && window.number == before
        {
            (window.number, window.event) = (number, event);
        }
    }

    /// Whether no window is open.
    pub(in crate::store::embedded) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The event without what there is no room for.
    fn bounded(&self, mut event: UsageEvent) -> UsageEvent {
        event.remote_address = event.remote_address.map(|address| address.to_canonical());
        if self.windows.len() < DENIED_WINDOWS_MAX || self.windows.contains_key(&DenialKey::of(&event)) {
            return event;
        }
        (event.remote_address, event.client, event.token) = (None, None, None);
        if self.windows.len() < 2 * DENIED_WINDOWS_MAX || self.windows.contains_key(&DenialKey::of(&event)) {
            return event;
        }
        event.account = None;
        event
    }
}

impl DenialKey {
    pub(super) fn of(event: &UsageEvent) -> Self {
        Self {
            address: event.remote_address,
            account: event.account.clone(),
            reason: event.reason.clone(),
            protocol: event.protocol,
        }
    }
}

impl Window {
    fn recount(&self) -> Recount {
        Recount {
            number: self.number,
            event: UsageEvent {
                count: Some(self.count),
                ..self.event.clone()
            },
        }
    }
}

/// Which counts are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::embedded) enum Due {
    /// Those of windows that have ended.
    Ended,
    /// All of them: somebody asks, or the store is being closed.
    All,
}

/// Whether a window that began at `begun` is open at `time`. A clock that was set back ends it.
fn is_within(begun: Timestamp, time: Timestamp) -> bool {
    begun <= time && time.since(begun) < DENIED_WINDOW
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(address: u32, account: &str, time: u64) -> UsageEvent {
        let event = serde_json::json!({
            "time": Timestamp::from_millis(time), "kind": "denied", "protocol": "imap", "account": account, "token": null,
            "remoteAddress": IpAddr::from(address.to_be_bytes()), "reason": "unknown_credentials", "count": 1,
        });
        serde_json::from_value(event).unwrap()
    }

    proptest! {
        #[test]
        fn every_refusal_is_in_exactly_one_count(
            refusals in prop::collection::vec((0..3_u32, 0..2_usize, 0..30_000_u64, any::<bool>()), 1..100),
        ) {
            let mut denials = Denials::default();
            let mut kept = std::collections::BTreeMap::new();
            let mut now = 0;
            for (number, (address, account, step, is_asked)) in (0_u64..).zip(&refusals) {
                now += step;
                let event = refused(*address, ["a", "b"][*account], now);
                if let Some(first) = denials.count(event) {
                    kept.extend(denials.take_ended(&first).map(|recount| (recount.number, recount.event.count)));
                    kept.insert(number, first.count);
                    denials.open(first, number);
                }
                let which = if *is_asked { Due::All } else { Due::Ended };
                kept.extend(denials.due(Timestamp::from_millis(now), which).into_iter().map(|due| (due.number, due.event.count)));
                if *is_asked {
                    let counted: u64 = kept.values().flatten().sum();
                    prop_assert_eq!(counted, number + 1);
                }
            }
            kept.extend(denials.due(Timestamp::from_millis(u64::MAX), Due::Ended).into_iter().map(|due| (due.number, due.event.count)));
            prop_assert!(denials.is_empty());
            prop_assert_eq!(kept.values().flatten().sum::<u64>(), u64::try_from(refusals.len()).unwrap());
        }
    }

    #[test]
    fn a_crowd_of_addresses_and_accounts_takes_bounded_memory_and_makes_a_bounded_number_of_events() {
        let mut denials = Denials::default();
        let mut events = 0;
        for number in 0..5 * u32::try_from(DENIED_WINDOWS_MAX).unwrap() {
            if let Some(first) = denials.count(refused(number, &number.to_string(), 1)) {
                denials.open(first, u64::from(number));
                events += 1;
            }
        }
        assert_eq!(denials.windows.len(), 2 * DENIED_WINDOWS_MAX + 1);
        assert_eq!(events, denials.windows.len());
        let counted: u64 = denials.windows.values().map(|window| window.count).sum();
        assert_eq!(counted, 5 * u64::try_from(DENIED_WINDOWS_MAX).unwrap());
    }

    #[test]
    fn a_clock_that_was_set_back_begins_a_window() {
        let mut denials = Denials::default();
        for time in [100_000, 40_000] {
            let first = denials.count(refused(1, "a", time)).unwrap();
            denials.open(first, time);
        }
        assert!(denials.count(refused(1, "a", 40_001)).is_none());
    }
}
