//! Listings of the usage log, which cost the same however many events there are and however far away the page is.
//!
//! A filter picks series and spans of numbers in them. How many events a span holds is the difference of the ranks at its
//! ends. A page begins where as many events are below it as are on later pages: that number is looked for by halving.

use std::ops::Range;

use super::super::tables::{Table, Tables, View};
use super::{USAGE_METER, UsageMeter, event_key, keyable, rank_in, read, refusals_of};
use crate::store::{Listing, Page, StoreError, TokenId, UsageEvent, UsageFilter, UsageKind, keys};

/// Usage events, newest first; see [`crate::store::Store::usage`].
pub(in crate::store::embedded) fn usage(
    tables: &Tables,
    filter: &UsageFilter,
    page: Page,
) -> Result<Listing<UsageEvent>, StoreError> {
    let view = tables.view();
    let meter = UsageMeter::read(view.value(Table::Meta, USAGE_METER)?.as_deref())?;
    let spans = Spans::of(&view, &meter, filter)?;
    let total = spans.total();
    let skipped = u64::try_from(page.page.saturating_mul(page.size)).unwrap_or(u64::MAX);
    let entries = match total.checked_sub(skipped) {
        Some(below @ 1..) => spans.newest_of(below, page.size)?,
        _ => Vec::new(),
    };
    Ok(Listing { total, entries })
}

/// The events that a filter lets through.
struct Spans<'a> {
    view: &'a View<'a>,
    spans: Vec<Span>,
}

/// Events of one series between two numbers; at least one.
struct Span {
    table: Table,
    series: Vec<u8>,
    kind: UsageKind,
    numbers: Range<u64>,
    ranks: Range<u64>,
}

impl<'a> Spans<'a> {
    fn of(view: &'a View<'a>, meter: &UsageMeter, filter: &UsageFilter) -> Result<Self, StoreError> {
        let mut spans = Vec::new();
        let numbers = meter.numbers(filter.since, filter.until);
        for kind in UsageKind::ALL {
            if filter.kind.is_some_and(|wanted| wanted != kind) || meter.count(kind) == 0 {
                continue;
            }
            let Some((table, series)) = series_of(view, meter, filter, kind)? else {
                continue;
            };
            for numbers in &numbers {
                let numbers = numbers.start.max(meter.oldest(kind))..numbers.end;
                spans.extend(Span::find(view, table, &series, kind, numbers)?);
            }
        }
        Ok(Self { view, spans })
    }

    fn total(&self) -> u64 {
        self.spans.iter().map(|span| span.ranks.end - span.ranks.start).sum()
    }

    /// How many events have a number below `number`.
    fn below(&self, number: u64) -> Result<u64, StoreError> {
        let mut below = 0;
        for span in &self.spans {
            below += span.below(self.view, number)?;
        }
        Ok(below)
    }

    /// The newest `size` of the oldest `count` events, newest first.
    fn newest_of(&self, count: u64, size: usize) -> Result<Vec<UsageEvent>, StoreError> {
        let end = self.number_after(count)?;
        let mut series: Vec<_> = self
            .spans
            .iter()
            .map(|span| (span.kind, span.keys_below(self.view, end).peekable()))
            .collect();
        let mut entries = Vec::new();
        while entries.len() < size {
            let mut newest: Option<(u64, usize)> = None;
            for (place, (_, keys)) in series.iter_mut().enumerate() {
                if let Some(number) = keys.next_if(Result::is_err) {
                    return Err(number.err().unwrap_or(StoreError::Closed));
                }
                if let Some(Ok(number)) = keys.peek()
                    && newest.is_none_or(|(highest, _)| *number > highest)
                {
                    newest = Some((*number, place));
                }
            }
            let Some((number, place)) = newest else { break };
            let Some((kind, keys)) = series.get_mut(place) else {
                break;
            };
            keys.next();
            let value = self.view.value(Table::Usage, &event_key(*kind, number))?;
            let value = value
                .ok_or_else(|| StoreError::Unreadable("an index names a usage event that is not there".to_owned()))?;
            entries.push(read(&value)?.1);
        }
        Ok(entries)
    }

    /// A number that exactly `count` events are below.
    fn number_after(&self, count: u64) -> Result<u64, StoreError> {
        let mut low = self.spans.iter().map(|span| span.numbers.start).min().unwrap_or(0);
        let mut high = self.spans.iter().map(|span| span.numbers.end).max().unwrap_or(0);
        if count >= self.total() {
            return Ok(high);
        }
        // `count` events or fewer are below `low`, more are below `high`. Numbers differ, so that counts rise by one.
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.below(middle)? <= count {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

impl Span {
    /// The events of `series` in `numbers`, if there are any.
    fn find(
        view: &View<'_>,
        table: Table,
        series: &[u8],
        kind: UsageKind,
        numbers: Range<u64>,
    ) -> Result<Option<Self>, StoreError> {
        let Some(last_number) = numbers.end.checked_sub(1).filter(|last| *last >= numbers.start) else {
            return Ok(None);
        };
        let range = keys::sequence(series, numbers.start)..=keys::sequence(series, last_number);
        let mut entries = view.entries_within(table, range);
        let Some((first, first_rank)) = entries.next().transpose()? else {
            return Ok(None);
        };
        let (last, last_rank) = match entries.next_back().transpose()? {
            Some(last) => last,
            None => (first.clone(), first_rank.clone()),
        };
        let number = |key: &[u8]| keys::sequence_of(key).unwrap_or_default();
        Ok(Some(Self {
            table,
            series: series.to_vec(),
            kind,
            numbers: number(&first)..number(&last).saturating_add(1),
            ranks: rank_in(&first_rank)?..rank_in(&last_rank)? + 1,
        }))
    }

    /// How many of its events have a number below `number`.
    fn below(&self, view: &View<'_>, number: u64) -> Result<u64, StoreError> {
        if number <= self.numbers.start {
            return Ok(0);
        }
        if number >= self.numbers.end {
            return Ok(self.ranks.end - self.ranks.start);
        }
        let range = keys::sequence(&self.series, number)..=keys::sequence(&self.series, self.numbers.end);
        let rank = match view.entries_within(self.table, range).next().transpose()? {
            Some((_, value)) => rank_in(&value)?,
            None => self.ranks.end,
        };
        Ok(rank.saturating_sub(self.ranks.start))
    }

    /// Its numbers below `end`, from the highest on.
    fn keys_below<'a>(&self, view: &'a View<'a>, end: u64) -> impl Iterator<Item = Result<u64, StoreError>> + use<'a> {
        let end = end.min(self.numbers.end);
        let last = end.checked_sub(1).filter(|last| *last >= self.numbers.start);
        let range =
            last.map(|last| keys::sequence(&self.series, self.numbers.start)..=keys::sequence(&self.series, last));
        let table = self.table;
        let keys = range
            .into_iter()
            .flat_map(move |range| view.keys_within(table, range).rev());
        keys.map(|key| key.map(|key| keys::sequence_of(&key).unwrap_or_default()))
    }
}

/// The series that has the events of `kind` that `filter` lets through, whatever their times. `None`: there are none.
fn series_of(
    view: &View<'_>,
    meter: &UsageMeter,
    filter: &UsageFilter,
    kind: UsageKind,
) -> Result<Option<(Table, Vec<u8>)>, StoreError> {
    let account = match &filter.account {
        Some(account) => match keyable(Some(account)) {
            Some(account) => Some(account),
            None => return Ok(None),
        },
        None => None,
    };
    Ok(match (&filter.token, account) {
        (None, None) => Some((Table::Usage, keys::series(&[], kind))),
        (None, Some(account)) => Some((
            Table::UsageByAccount,
            keys::series(&keys::account_prefix(account), kind),
        )),
        (Some(token), None) => Some((Table::UsageByToken, keys::series(&token.0, kind))),
        (Some(token), Some(account)) if kind == UsageKind::Denied => {
            Some((Table::UsageByToken, refusals_of(token, account)))
        }
        (Some(token), Some(account)) => {
            let owner = owner_of(view, meter, token, kind)?;
            (owner.as_deref() == Some(account)).then(|| (Table::UsageByToken, keys::series(&token.0, kind)))
        }
    })
}

/// The account of the events of `kind` that `token` has.
fn owner_of(
    view: &View<'_>,
    meter: &UsageMeter,
    token: &TokenId,
    kind: UsageKind,
) -> Result<Option<String>, StoreError> {
    let series = keys::series(&token.0, kind);
    let range = keys::sequence(&series, meter.oldest(kind))..=keys::sequence(&series, u64::MAX);
    let Some(key) = view.keys_within(Table::UsageByToken, range).next_back().transpose()? else {
        return Ok(None);
    };
    let value = view.value(
        Table::Usage,
        &event_key(kind, keys::sequence_of(&key).unwrap_or_default()),
    )?;
    Ok(value
        .map(|value| read(&value))
        .transpose()?
        .and_then(|(_, event)| event.account))
}
