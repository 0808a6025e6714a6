//! The numbers of usage events: which one is next, and where in them a span of time lies. Pure.
//!
//! An event's number begins with the millisecond of its time, so that events since a moment are found without an index by
//! time. Numbers only rise. A clock that is set back therefore begins a [`Run`] whose numbers are ahead of their times by a
//! constant; a span of time is looked for in every run.
//!
//! ```text
//!   time    10:00 ─────── 12:00 │ 11:00 ──────────────>      (set back by an hour)
//!   number  10:00 ─────── 12:00 │ 12:00 ──────────────>      the second run is an hour ahead
//!   since 11:30:      [───────] │       [─────────────>
//! ```
//! Each kind of event is counted by itself: its events have ranks without a gap, of which the oldest are swept first.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::limits::{USAGE_DISORDER_MAX, USAGE_RUNS_MAX};
use crate::store::embedded::codec;
use crate::store::{StoreError, UsageClass, UsageKind, keys};

/// Where the numbering stands, and how many events there are: kept on disk beside them, because counting a million of them
/// would delay every start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::store::embedded) struct UsageMeter {
    /// The number of the newest event there ever was.
    last: u64,
    /// Its time.
    last_time: u64,
    /// From the oldest on; the first begins where numbers begin.
    runs: Vec<Run>,
    kinds: BTreeMap<UsageKind, KindMeter>,
}

/// Events between two moments at which the clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    /// The number after the last one of the run before it.
    first: u64,
    /// Milliseconds by which its numbers are ahead of its times.
    ahead: u64,
}

/// The events of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KindMeter {
    /// No event that is kept has a lower number.
    oldest: u64,
    /// The rank of the oldest event.
    first_rank: u64,
    /// The rank of the next event.
    next_rank: u64,
}

impl UsageMeter {
    /// The meter as `value` of [`USAGE_METER`] tells.
    pub(in crate::store::embedded) fn read(value: Option<&[u8]>) -> Result<Self, StoreError> {
        value.map_or_else(|| Ok(Self::default()), |bytes| codec::decode("the usage meter", bytes))
    }

    /// The number and the rank of an event of `kind`, which is being added, and the time that it is kept with: `time`, unless
    /// that is a little before the last event's.
    pub(super) fn add(&mut self, kind: UsageKind, time: Timestamp) -> (u64, u64, Timestamp) {
        let last_time = Timestamp::from_millis(self.last_time);
        let is_disordered = time < last_time && last_time.since(time) <= USAGE_DISORDER_MAX;
        let time = if is_disordered { last_time } else { time };
        let number = self.next_number(time);
        (self.last, self.last_time) = (number, time.as_millis());
        let meter = self.kinds.entry(kind).or_default();
        let rank = meter.next_rank;
        meter.next_rank += 1;
        (number, rank, time)
    }

    fn next_number(&mut self, time: Timestamp) -> u64 {
        let millis = time.as_millis();
        let following = self.last.saturating_add(1);
        let ahead = self.runs.last().map_or(0, |run| run.ahead);
        let number_ahead = |ahead: u64| keys::sequence_floor(Timestamp::from_millis(millis.saturating_add(ahead)));
        let in_run = number_ahead(ahead).max(following);
        let (number, ahead) = if number_ahead(0) > self.last {
            (number_ahead(0), 0)
        } else if keys::millisecond_of(in_run) == millis.saturating_add(ahead) {
            (in_run, ahead)
        } else {
            let ahead = (keys::millisecond_of(self.last) + 1).saturating_sub(millis);
            (number_ahead(ahead).max(following), ahead)
        };
        if self.runs.last().is_none_or(|run| run.ahead != ahead) {
            self.runs.push(Run {
                first: following,
                ahead,
            });
            if self.runs.len() > USAGE_RUNS_MAX {
                self.runs.remove(0);
            }
        }
        number
    }

    /// Takes note that the oldest event of `kind`, which had `number`, is being deleted.
    pub(super) fn remove_oldest(&mut self, kind: UsageKind, number: u64) {
        let meter = self.kinds.entry(kind).or_default();
        meter.oldest = number.saturating_add(1);
        meter.first_rank = (meter.first_rank + 1).min(meter.next_rank);
    }

    /// Forgets the runs of which nothing is left.
    pub(super) fn forget_runs(&mut self) {
        let oldest = self.kinds.values().filter(|meter| meter.first_rank < meter.next_rank);
        let oldest = oldest.map(|meter| meter.oldest).min().unwrap_or(self.last);
        while self.runs.get(1).is_some_and(|run| run.first <= oldest) {
            self.runs.remove(0);
        }
    }

    /// How many events of `kind` there are.
    pub(super) fn count(&self, kind: UsageKind) -> u64 {
        self.kinds
            .get(&kind)
            .map_or(0, |meter| meter.next_rank.saturating_sub(meter.first_rank))
    }

    /// How many events of `class` there are.
    pub(super) fn count_of_class(&self, class: UsageClass) -> u64 {
        let kinds = UsageKind::ALL.into_iter().filter(|kind| kind.class() == class);
        kinds.map(|kind| self.count(kind)).sum()
    }

    /// The time of the newest event there ever was.
    pub(super) fn last_time(&self) -> Timestamp {
        Timestamp::from_millis(self.last_time)
    }

    /// A number that no event of `kind` is below.
    pub(super) fn oldest(&self, kind: UsageKind) -> u64 {
        self.kinds.get(&kind).map_or(0, |meter| meter.oldest)
    }

    /// The numbers of the events at `since` or later and before `until`, in ascending order.
    pub(super) fn numbers(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Vec<Range<u64>> {
        if since.is_none() && until.is_none() {
            return std::iter::once(0..self.end()).collect();
        }
        let within = |(run, numbers): (Run, Range<u64>)| {
            let from = since.map_or(0, |since| run.number_at(since)).max(numbers.start);
            let to = until.map_or(u64::MAX, |until| run.number_at(until)).min(numbers.end);
            (from < to).then_some(from..to)
        };
        self.runs().filter_map(within).collect()
    }

    /// Whether the event with `number` is from before `time`.
    pub(super) fn is_before(&self, number: u64, time: Timestamp) -> bool {
        let later = self.runs.partition_point(|run| run.first <= number);
        let run = self.runs.get(later.saturating_sub(1)).copied();
        run.is_some_and(|run| number < run.number_at(time))
    }

    /// The runs, each with its numbers.
    fn runs(&self) -> impl Iterator<Item = (Run, Range<u64>)> {
        let ends = self.runs.iter().skip(1).map(|run| run.first).chain([self.end()]);
        let starts = std::iter::once(0).chain(self.runs.iter().skip(1).map(|run| run.first));
        self.runs
            .iter()
            .copied()
            .zip(starts.zip(ends).map(|(start, end)| start..end))
    }

    fn end(&self) -> u64 {
        self.last.saturating_add(1)
    }
}

impl Run {
    /// The number from which on this run's events are at `time` or later.
    fn number_at(self, time: Timestamp) -> u64 {
        keys::sequence_floor(Timestamp::from_millis(time.as_millis().saturating_add(self.ahead)))
    }
}

/// The key of the [`UsageMeter`] in [`crate::store::embedded::tables::Table::Meta`].
pub(in crate::store::embedded) const USAGE_METER: &[u8] = b"usage-log";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Times as a clock tells them that is set now and then, and whose readers overtake each other.
    fn any_times() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            8 => 0..3_000_i64,
            4 => -900..0_i64,
            1 => -90_000_000..90_000_000_i64,
        ];
        (1_000_000_000..2_000_000_000_i64, prop::collection::vec(step, 1..80)).prop_map(|(start, steps)| {
            let mut now = start;
            let mut times = Vec::new();
            for step in steps {
                now = (now + step).max(0);
                times.push(u64::try_from(now).unwrap());
            }
            times
        })
    }

    proptest! {
        #[test]
        fn a_span_of_time_is_found_whatever_the_clock_did(times in any_times(), at in any::<prop::sample::Index>(), long in 0..9_000_u64) {
            let mut meter = UsageMeter::default();
            let mut last = 0;
            let mut events = Vec::new();
            for (position, time) in times.iter().enumerate() {
                let (number, rank, kept) = meter.add(UsageKind::Login, Timestamp::from_millis(*time));
                prop_assert!(number > last || position == 0);
                prop_assert_eq!(rank, u64::try_from(position).unwrap());
                prop_assert!(kept.as_millis().abs_diff(*time) <= 1000);
                last = number;
                events.push((number, kept));
            }
            let since = Timestamp::from_millis(*at.get(&times));
            let until = since.after(std::time::Duration::from_millis(long));
            let spans = [(Some(since), None), (None, Some(until)), (Some(since), Some(until)), (None, None)];
            for (since, until) in spans {
                let numbers = meter.numbers(since, until);
                prop_assert!(numbers.is_sorted_by(|a, b| a.end <= b.start));
                for (number, time) in &events {
                    let is_within = since.is_none_or(|since| *time >= since) && until.is_none_or(|until| *time < until);
                    prop_assert_eq!(numbers.iter().any(|range| range.contains(number)), is_within);
                }
            }
            for (number, time) in &events {
                prop_assert_eq!(meter.is_before(*number, since), *time < since);
            }
        }
    }

    #[test]
    fn events_of_several_sessions_that_overtake_each_other_stay_in_one_run() {
        let mut meter = UsageMeter::default();
        for time in [5_000, 4_999, 5_001, 4_500, 5_001] {
            meter.add(UsageKind::Login, Timestamp::from_millis(time));
        }
        assert_eq!(meter.runs.len(), 1);
    }

    #[test]
    fn runs_of_which_nothing_is_left_are_forgotten_and_their_number_is_bounded() {
        let mut meter = UsageMeter::default();
        let mut numbers = Vec::new();
        for day in (0..2 * USAGE_RUNS_MAX as u64).rev() {
            numbers.push(meter.add(UsageKind::Login, Timestamp::from_millis(day * 86_400_000)).0);
        }
        assert_eq!(meter.runs.len(), USAGE_RUNS_MAX);
        let (newest, older) = numbers.split_last().unwrap();
        for number in older {
            meter.remove_oldest(UsageKind::Login, *number);
        }
        meter.forget_runs();
        assert_eq!((meter.runs.len(), meter.count(UsageKind::Login)), (1, 1));
        let numbers = meter.numbers(Some(Timestamp::EPOCH), None);
        assert!(numbers.first().is_some_and(|numbers| numbers.contains(newest)));
        assert_eq!(numbers.len(), 1);
    }
}
