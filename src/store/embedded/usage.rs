//! The usage log in the tables: adding, counting and sweeping events. Only the writer's thread changes it.
//!
//! ```text
//!   usage             kind, number                   →  rank, event
//!   usage-by-account  account, kind, number          →  rank
//!   usage-by-token    token, kind, number            →  rank
//!                     token, account, denied, number →  rank
//! ```
//! What shares everything but the number is a series. The ranks of a series have no gap: events are added at its end and
//! swept from its beginning. So how many lie in a span of numbers is told by the two at its ends, see [`listing`].
//!
//! A token that was accepted belongs to one account for good, and so do its events, except for refusals, where it may have
//! been presented for any account: hence the fourth row.

mod denials;
pub(super) mod listing;
mod meter;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::Deserialize;

pub(super) use self::denials::{Denials, Due};
pub(super) use self::meter::{USAGE_METER, UsageMeter};
use super::codec;
use super::draft::Draft;
use super::meta::{self, Counts};
use super::tables::{Durability, Entry, Table, Tables};
use crate::clock::Timestamp;
use crate::store::{StoreError, TokenId, UsageClass, UsageEvent, UsageKind, keys};

/// Adds an event; a refused login where it is the first of its window.
pub(super) fn record(draft: &mut Draft<'_>, denials: &mut Denials, event: UsageEvent) -> Result<(), StoreError> {
    if event.kind != UsageKind::Denied {
        return add(draft, event).map(|_| ());
    }
    let Some(first) = denials.count(event) else {
        return Ok(());
    };
    if let Some(ended) = denials.take_ended(&first) {
        recount(draft, denials, ended)?;
    }
    let (number, first) = add(draft, first)?;
    denials.open(first, number);
    Ok(())
}

/// Writes the counts of refused logins that are due at `now`. Returns how many those are.
pub(super) fn write_counts(
    draft: &mut Draft<'_>,
    denials: &mut Denials,
    now: Timestamp,
    which: Due,
) -> Result<usize, StoreError> {
    let due = denials.due(now, which);
    let count = due.len();
    for due in due {
        recount(draft, denials, due)?;
    }
    Ok(count)
}

/// Deletes up to [`SWEEP_MAX`] of the oldest events: those before `cutoff`, and those beyond the newest that each class may
/// keep of `events_max`. Of each class it stops at
/// the first that is to stay. Returns how many were deleted.
pub(super) fn sweep(draft: &mut Draft<'_>, cutoff: Timestamp, events_max: u64) -> Result<u64, StoreError> {
    let mut swept = 0;
    for class in UsageClass::ALL {
        swept += sweep_class(draft, class, cutoff, class.events_max(events_max), SWEEP_MAX - swept)?;
    }
    draft.usage.forget_runs();
    Ok(u64::try_from(swept).unwrap_or(u64::MAX))
}

/// Brings the events of a store of the first version, which had no kinds and no ranks in its keys, into this one's form. In
/// steps that are complete in themselves, so that a start that is cut short goes on where it was.
pub(super) fn migrate(tables: &Tables) -> Result<(), StoreError> {
    let mut migrated = 0_usize;
    let mut after = None;
    loop {
        let meter = UsageMeter::read(tables.value(Table::Meta, USAGE_METER)?.as_deref())?;
        let mut draft = Draft::new(tables, Counts::default(), meter);
        let old = draft.committed();
        let old = old.entries_behind(Table::Usage, after.as_deref());
        let mut step = 0;
        for entry in old.take(SWEEP_MAX) {
            let (key, value) = entry?;
            if key.first().is_none_or(|first| *first >= keys::FIRST_KIND) {
                break;
            }
            let event: UsageEvent = codec::decode("a usage event", &value)?;
            let number = keys::sequence_of(&key).unwrap_or_default();
            draft.forget(Table::Usage, key.to_vec());
            if let Some(account) = keyable(event.account.as_deref()) {
                let key = keys::sequence(&keys::account_prefix(account), number);
                draft.forget(Table::UsageByAccount, key);
            }
            if let Some(token) = &event.token {
                draft.forget(Table::UsageByToken, keys::sequence(&token.0, number));
            }
            add(&mut draft, event)?;
            after = Some(key.to_vec());
            step += 1;
        }
        if step == 0 {
            break;
        }
        migrated += step;
        tables.commit(draft.into_writes(None)?, Durability::Buffered)?;
    }
    if migrated > 0 {
        tables.sync()?;
        tracing::info!(events = migrated, "the usage log has been brought into its new form");
    }
    Ok(())
}

/// Events that one sweep deletes at most, so that a durable write that waits for it waits for a few milliseconds.
pub(super) const SWEEP_MAX: usize = 100;

/// Adds an event. Returns the number that it is kept under, and the event as it is kept.
fn add(draft: &mut Draft<'_>, event: UsageEvent) -> Result<(u64, UsageEvent), StoreError> {
    let owners = Owners {
        account: event.account.as_deref().map(Cow::Borrowed),
        token: event.token,
    };
    let mut ranked = Vec::with_capacity(2);
    for (table, series) in owners.series(event.kind) {
        let rank = draft.next_rank(table, &series, draft.usage.oldest(event.kind))?;
        ranked.push((table, series, rank));
    }
    let mut meter = draft.usage.clone();
    let (number, rank, time) = meter.add(event.kind, event.time);
    let event = UsageEvent { time, ..event };
    let value = kept(rank, &event)?;
    draft.usage = meter;
    draft.put(Table::Usage, event_key(event.kind, number), value);
    for (table, series, rank) in ranked {
        draft.put(table, keys::sequence(&series, number), rank.to_be_bytes());
        draft.set_rank(table, series, rank);
    }
    Ok((number, event))
}

/// Writes a count that has grown. An event that was swept or lost meanwhile is added anew.
fn recount(draft: &mut Draft<'_>, denials: &mut Denials, due: denials::Recount) -> Result<(), StoreError> {
    let denials::Recount { number, event } = due;
    let key = event_key(event.kind, number);
    if number >= draft.usage.oldest(event.kind)
        && let Some(value) = draft.value(Table::Usage, &key)?
    {
        let (rank, before) = read(&value)?;
        // A number whose commit failed is given out again.
        if before.time == event.time && denials::DenialKey::of(&before) == denials::DenialKey::of(&event) {
            draft.put(Table::Usage, key, kept(rank, &event)?);
            return Ok(());
        }
    }
    let time = event.time.max(draft.usage.last_time());
    let (anew, event) = add(draft, UsageEvent { time, ..event })?;
    denials.renumber(number, anew, event);
    Ok(())
}

/// Deletes up to `step` of the oldest events of a class; see [`sweep`].
fn sweep_class(
    draft: &mut Draft<'_>,
    class: UsageClass,
    cutoff: Timestamp,
    events_max: u64,
    step: usize,
) -> Result<usize, StoreError> {
    let view = draft.committed();
    let mut left = draft.usage.count_of_class(class);
    let kinds = UsageKind::ALL.into_iter().filter(|kind| kind.class() == class);
    let mut oldest: Vec<_> = kinds
        .map(|kind| {
            let series = keys::series(&[], kind);
            let range = keys::sequence(&series, draft.usage.oldest(kind))..=keys::sequence(&series, u64::MAX);
            (kind, view.entries_within(Table::Usage, range).peekable())
        })
        .collect();
    let mut swept = 0;
    while swept < step {
        let number_of = |entry: Option<&Entry>| match entry {
            Some(Ok((key, _))) => keys::sequence_of(key),
            // An entry that cannot be read comes first, for its error to be told.
            Some(Err(_)) => Some(0),
            None => None,
        };
        let first = oldest
            .iter_mut()
            .filter_map(|(kind, entries)| Some((number_of(entries.peek())?, *kind, entries)))
            .min_by_key(|(number, _, _)| *number);
        let Some((number, kind, entries)) = first else { break };
        if left <= events_max && !draft.usage.is_before(number, cutoff) {
            break;
        }
        let Some(entry) = entries.next() else { break };
        let (key, value) = entry?;
        let owners = Owners::read(&value)?;
        for (table, series) in owners.series(kind) {
            draft.forget(table, keys::sequence(&series, number));
        }
        draft.forget(Table::Usage, key.to_vec());
        draft.usage.remove_oldest(kind, number);
        left = left.saturating_sub(1);
        swept += 1;
    }
    Ok(swept)
}

/// What an event is found by, besides its kind.
#[derive(Deserialize)]
struct Owners<'a> {
    #[serde(borrow)]
    account: Option<Cow<'a, str>>,
    token: Option<TokenId>,
}

impl<'a> Owners<'a> {
    /// Of the event in `value`, without the rest of it: a sweep reads a great many.
    fn read(value: &'a [u8]) -> Result<Self, StoreError> {
        codec::decode("a usage event", record_in(value)?)
    }

    /// The series in which an event of `kind` is, besides its kind's own.
    fn series(&self, kind: UsageKind) -> impl Iterator<Item = (Table, Vec<u8>)> + use<> {
        let account = keyable(self.account.as_deref());
        let by_account = account.map(|account| {
            (
                Table::UsageByAccount,
                keys::series(&keys::account_prefix(account), kind),
            )
        });
        let by_token = self
            .token
            .map(|token| (Table::UsageByToken, keys::series(&token.0, kind)));
        let by_both = account
            .zip(self.token.as_ref())
            .filter(|_| kind == UsageKind::Denied)
            .map(|(account, token)| (Table::UsageByToken, refusals_of(token, account)));
        by_account.into_iter().chain(by_token).chain(by_both)
    }
}

/// The series of refusals where `token` was presented for `account`.
fn refusals_of(token: &TokenId, account: &str) -> Vec<u8> {
    let mut owner = token.0.to_vec();
    owner.extend(keys::account_prefix(account));
    keys::series(&owner, UsageKind::Denied)
}

fn keyable(account: Option<&str>) -> Option<&str> {
    account.filter(|account| meta::is_keyable(account))
}

fn event_key(kind: UsageKind, number: u64) -> Vec<u8> {
    keys::sequence(&keys::series(&[], kind), number)
}

/// An event as it is kept: its rank among its kind's, and the record.
fn kept(rank: u64, event: &UsageEvent) -> Result<Vec<u8>, StoreError> {
    let mut value = rank.to_be_bytes().to_vec();
    value.extend(codec::encode(event)?);
    Ok(value)
}

/// The rank and the event in a value of [`kept`].
fn read(value: &[u8]) -> Result<(u64, UsageEvent), StoreError> {
    Ok((rank_in(value)?, codec::decode("a usage event", record_in(value)?)?))
}

/// The rank that a value of a series begins with.
fn rank_in(value: &[u8]) -> Result<u64, StoreError> {
    let rank = value.first_chunk().copied().map(u64::from_be_bytes);
    rank.ok_or_else(|| StoreError::Unreadable("the rank of a usage event is damaged".to_owned()))
}

fn record_in(value: &[u8]) -> Result<&[u8], StoreError> {
    let record = value.get(size_of::<u64>()..);
    record.ok_or_else(|| StoreError::Unreadable("the record of a usage event is damaged".to_owned()))
}

/// The rank after the last of a `series`, none of whose events has a number below `oldest`.
pub(super) fn next_rank(tables: &Tables, table: Table, series: &[u8], oldest: u64) -> Result<u64, StoreError> {
    let range = keys::sequence(series, oldest)..=keys::sequence(series, u64::MAX);
    match tables.view().entries_within(table, range).next_back() {
        Some(entry) => Ok(rank_in(&entry?.1)? + 1),
        None => Ok(0),
    }
}
