//! The usage log from outside its writer: sweeps, listings, counts of refused logins, and logs of the first version.

use std::time::Duration;

use super::super::tests::{ALL, copy, event, open, state_dir};
use super::*;
use crate::clock;
use crate::limits::STORE_QUEUE;
use crate::store::embedded::EmbeddedStore;
use crate::store::{Page, Store, UsageFilter};

/// Records events without outrunning the writer.
async fn record(store: &EmbeddedStore, events: impl IntoIterator<Item = UsageEvent>) {
    for (number, event) in events.into_iter().enumerate() {
        store.record_usage(event);
        if number % (STORE_QUEUE / 2) == 0 {
            store
                .usage(&UsageFilter::default(), Page { page: 0, size: 1 })
                .await
                .unwrap();
        }
    }
}

async fn times(store: &EmbeddedStore, filter: &UsageFilter) -> Vec<u64> {
    let listing = store.usage(filter, ALL).await.unwrap();
    assert_eq!(listing.total, u64::try_from(listing.entries.len()).unwrap());
    listing.entries.iter().map(|event| event.time.as_millis()).collect()
}

fn refused(time: u64, account: Option<&str>) -> UsageEvent {
    UsageEvent {
        reason: Some("unknown_credentials".to_owned()),
        count: Some(1),
        ..event(time, account, None)
    }
}

fn of_kind(kind: UsageKind) -> UsageFilter {
    UsageFilter {
        kind: Some(kind),
        ..UsageFilter::default()
    }
}

#[tokio::test]
async fn a_sweep_of_more_than_one_step_takes_the_oldest() {
    let directory = state_dir();
    let store = open(directory.path());
    let total = u64::try_from(2 * SWEEP_MAX + 250).unwrap();
    record(&store, (0..total).map(|time| event(time, Some("a"), Some(1)))).await;
    let swept = store.sweep_usage(Timestamp::EPOCH, Duration::ZERO, 10).await.unwrap();
    assert_eq!(swept, total - 10);
    let by_token = UsageFilter {
        token: Some(TokenId([1; 32])),
        ..UsageFilter::default()
    };
    for filter in [UsageFilter::default(), by_token, of_kind(UsageKind::Login)] {
        assert_eq!(
            times(&store, &filter).await,
            (total - 10..total).rev().collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn refused_logins_drive_out_no_other_events_and_are_few_themselves() {
    let directory = state_dir();
    let store = open(directory.path());
    record(&store, [event(0, Some("a"), Some(1))]).await;
    // Each is of another reason, so that none is counted in another.
    let strangers = (1..100).map(|time| UsageEvent {
        reason: Some(format!("reason {time}")),
        ..refused(time, Some("a"))
    });
    record(&store, strangers).await;
    let swept = store.sweep_usage(Timestamp::EPOCH, Duration::ZERO, 20).await.unwrap();
    assert_eq!(swept, 94);
    assert_eq!(times(&store, &of_kind(UsageKind::Login)).await, [0]);
    assert_eq!(times(&store, &of_kind(UsageKind::Denied)).await, [99, 98, 97, 96, 95]);
}

#[tokio::test]
async fn refused_logins_of_a_minute_are_one_event_whose_count_is_seen_at_once() {
    let directory = state_dir();
    let store = open(directory.path());
    let now = clock::now().as_millis() - 10_000;
    record(&store, (0..30).map(|_| refused(now, Some("a")))).await;
    record(&store, (0..20).map(|_| refused(now, Some("a")))).await;
    record(&store, [refused(now, None)]).await;
    let counts = |listing: crate::store::Listing<UsageEvent>| -> Vec<_> {
        listing
            .entries
            .into_iter()
            .map(|event| (event.account, event.count))
            .collect()
    };
    let expected = [(None, Some(1)), (Some("a".to_owned()), Some(50))];
    assert_eq!(
        counts(store.usage(&UsageFilter::default(), ALL).await.unwrap()),
        expected
    );
    store.record_usage(refused(now + 1, Some("a")));
    store.close().await.unwrap();
    // The count that nobody had asked for was written when the store was closed.
    let listing = open(directory.path())
        .usage(&UsageFilter::default(), ALL)
        .await
        .unwrap();
    assert_eq!(counts(listing)[1], (Some("a".to_owned()), Some(51)));
}

#[tokio::test]
async fn a_count_goes_on_after_its_event_was_swept() {
    let directory = state_dir();
    let store = open(directory.path());
    let now = clock::now();
    record(&store, [refused(now.as_millis(), Some("a"))]).await;
    store
        .sweep_usage(now.after(Duration::from_secs(9)), Duration::from_secs(1), 10)
        .await
        .unwrap();
    for expected in [2, 3] {
        record(&store, [refused(now.as_millis(), Some("a"))]).await;
        let listing = store.usage(&UsageFilter::default(), ALL).await.unwrap();
        assert_eq!(
            listing.entries.iter().map(|event| event.count).collect::<Vec<_>>(),
            [Some(expected)]
        );
    }
}

#[tokio::test]
async fn a_page_far_away_holds_what_a_walk_from_the_newest_would_find_there() {
    let directory = state_dir();
    let store = open(directory.path());
    let total = 3_000;
    // Several in a millisecond, so that their order is that of their numbers.
    let events = (0..total).map(|number| UsageEvent {
        kind: UsageKind::ALL[usize::try_from(number % 3).unwrap()],
        reason: Some(number.to_string()),
        ..event(
            number / 7,
            Some(["a", "b"][usize::try_from(number % 2).unwrap()]),
            Some(1),
        )
    });
    let events: Vec<_> = events.collect();
    record(&store, events.clone()).await;
    for filter in [
        UsageFilter::default(),
        of_kind(UsageKind::End),
        UsageFilter {
            account: Some("b".to_owned()),
            since: Some(Timestamp::from_millis(100)),
            until: Some(Timestamp::from_millis(300)),
            ..UsageFilter::default()
        },
    ] {
        let mut expected: Vec<_> = events
            .iter()
            .filter(|event| filter.matches(event))
            .map(|event| event.reason.clone())
            .collect();
        expected.reverse();
        for page in [0, 1, 17, 42, 142, 428, 1000] {
            let listing = store.usage(&filter, Page { page, size: 7 }).await.unwrap();
            assert_eq!(listing.total, u64::try_from(expected.len()).unwrap());
            let found: Vec<_> = listing.entries.into_iter().map(|event| event.reason).collect();
            assert_eq!(
                found,
                expected.iter().skip(7 * page).take(7).cloned().collect::<Vec<_>>(),
                "{filter:?} {page}"
            );
        }
    }
}

#[tokio::test]
async fn a_log_of_the_first_version_is_found_whatever_its_length_and_however_often_it_is_opened() {
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1");
    let directory = copy(&fixture);
    let total = SWEEP_MAX + SWEEP_MAX / 2;
    {
        // As the first version wrote them.
        let tables = Tables::open(&directory.path().join("store")).unwrap();
        let mut draft = Draft::new(&tables, Counts::default(), UsageMeter::default());
        for time in 1..total {
            let time = 1_700_000_002_000 + u64::try_from(time).unwrap();
            let event = event(time, Some("example"), Some(1));
            let number = keys::sequence_floor(event.time);
            let account = keys::sequence(&keys::account_prefix("example"), number);
            draft.put(
                Table::Usage,
                keys::sequence(&[], number),
                codec::encode(&event).unwrap(),
            );
            draft.put(Table::UsageByAccount, account, []);
            draft.put(Table::UsageByToken, keys::sequence(&[1; 32], number), []);
        }
        tables
            .commit(draft.into_writes(None).unwrap(), Durability::Synced)
            .unwrap();
    }
    for _ in 0..2 {
        let store = open(directory.path());
        for filter in [
            UsageFilter::default(),
            UsageFilter {
                account: Some("example".to_owned()),
                token: Some(TokenId([1; 32])),
                kind: Some(UsageKind::Login),
                ..UsageFilter::default()
            },
        ] {
            let listing = store.usage(&filter, ALL).await.unwrap();
            assert_eq!(listing.total, u64::try_from(total).unwrap());
            let newest = 1_700_000_002_000 + u64::try_from(total).unwrap() - 1;
            assert_eq!(listing.entries[0].time.as_millis(), newest);
        }
        store.close().await.unwrap();
    }
    let store = open(directory.path());
    store.sweep_usage(Timestamp::EPOCH, Duration::ZERO, 0).await.unwrap();
    store.close().await.unwrap();
    let tables = Tables::open(&directory.path().join("store")).unwrap();
    for table in [Table::Usage, Table::UsageByAccount, Table::UsageByToken] {
        assert!(tables.view().is_empty(table).unwrap(), "{table:?}");
    }
}
