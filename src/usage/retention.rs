//! Sweeps usage events that are too old or too many.

use std::time::Duration;

use crate::clock::{self, Timestamp};
use crate::config::StoreSettings;
use crate::store::{Page, SharedStore, StoreError, UsageFilter};

/// Sweeps at once and then every five minutes, until `shutdown` is ready. `settings` is asked each time, so that a
/// reload of the configuration counts. A sweep that fails is made up for by the next one.
pub async fn run(store: SharedStore, settings: impl Fn() -> StoreSettings, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    // IMPORTANT: read once. An event of this process bears the time of the very clock that is doubted.
    let newest_before = newest(&store).await;
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            _ = ticks.tick() => {}
        }
        let StoreSettings {
            usage_retention,
            usage_events_max,
        } = settings();
        // A sweep is left off where it stands at shutdown: each of its steps is complete in itself.
        tokio::select! {
            () = &mut shutdown => return,
            swept = sweep(&store, newest_before, usage_retention, usage_events_max) => match swept {
                Ok(0) => {}
                Ok(events) => tracing::debug!(events, "swept old usage events"),
                Err(error) => tracing::warn!(%error, "old usage events could not be swept"),
            },
        }
    }
}

/// The time of the newest event. Where it cannot be read, the sweep that follows says why.
async fn newest(store: &SharedStore) -> Option<Timestamp> {
    let first = Page { page: 0, size: 1 };
    let listing = store.usage(&UsageFilter::default(), first).await.ok()?;
    listing.entries.first().map(|event| event.time)
}

async fn sweep(
    store: &SharedStore,
    newest_before: Option<Timestamp>,
    retention: Duration,
    events_max: u64,
) -> Result<u64, StoreError> {
    let now = believed(clock::now(), newest_before, clock::uptime());
    store.sweep_usage(now, retention, events_max).await
}

/// The time by which events are old. A clock that is more than [`AHEAD_MAX`] ahead of the newest event from before this process,
/// as counted on since it began, may be wrong, and would have everything swept: then time is what was counted. A clock that
/// stays there for as long as that is believed: the daemon was out of service.
fn believed(now: Timestamp, newest_before: Option<Timestamp>, uptime: Duration) -> Timestamp {
    match newest_before.map(|newest| newest.after(uptime)) {
        Some(counted) if now > counted.after(AHEAD_MAX) && uptime < AHEAD_MAX => {
            tracing::debug!(%now, %counted, "the clock is far ahead of the newest usage event; old events are kept for now");
            counted
        }
        _ => now,
    }
}

/// See [`believed`].
const AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// How often events are swept: their number may exceed the maximum by what comes in meanwhile.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;
    use crate::store::{Store, TokenId};
    use crate::usage::{SessionFacts, UsageLog};

    #[test]
    fn a_clock_far_ahead_of_the_newest_event_is_not_believed() {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
        let newest = Timestamp::from_millis(1_700_000_000_000);
        for (now, uptime, expected) in [
            (newest.after(hour), hour, newest.after(hour)),
            (newest.after(day), Duration::ZERO, newest.after(day)),
            (newest.after(day + hour), Duration::ZERO, newest),
            (newest.after(40 * day), hour, newest.after(hour)),
            (newest.after(40 * day), 40 * day, newest.after(40 * day)),
            (newest.before(day), hour, newest.before(day)),
        ] {
            assert_eq!(believed(now, Some(newest), uptime), expected);
        }
        assert_eq!(believed(newest, None, Duration::ZERO), newest);
    }

    #[tokio::test]
    async fn events_are_not_swept_by_a_clock_that_is_wrong() {
        let parent = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&parent.path().join("state"), &MasterKeySource::Generated).unwrap();
        let log = UsageLog::new(store.clone());
        let facts = SessionFacts {
            protocol: crate::proto::Protocol::Imap,
            remote_address: [192, 0, 2, 1].into(),
            client: None,
        };
        // To these, the clock is a year ahead.
        let then = clock::now().before(Duration::from_secs(365 * 86_400));
        for age in 0..3 {
            log.login(&facts, "ada", TokenId([1; 32]), then.before(Duration::from_secs(age)));
        }
        let store = store as SharedStore;
        let before = newest(&store).await;
        let retention = Duration::from_secs(30 * 86_400);
        assert_eq!(sweep(&store, before, retention, 1000).await.unwrap(), 0);
        log.login(&facts, "ada", TokenId([1; 32]), clock::now());
        let swept = sweep(&store, before, retention, 1000).await.unwrap();
        assert_eq!(swept, 0, "an event that bears the doubted time bears nothing out");
        let swept = sweep(&store, newest(&store).await, retention, 1000).await.unwrap();
        assert_eq!(swept, 3, "that of a process before does");
    }

    #[tokio::test]
    async fn the_oldest_beyond_the_maximum_go_at_the_first_sweep() {
        let parent = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&parent.path().join("state"), &MasterKeySource::Generated).unwrap();
        let log = UsageLog::new(store.clone());
        let facts = SessionFacts {
            protocol: crate::proto::Protocol::Imap,
            remote_address: [192, 0, 2, 1].into(),
            client: None,
        };
        let token = TokenId([1; 32]);
        for _ in 0..10 {
            log.login(&facts, "example", token, clock::now());
        }
        let settings = || StoreSettings {
            usage_retention: Duration::from_secs(3600),
            usage_events_max: 3,
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let sweeper = tokio::spawn(run(Arc::clone(&store) as SharedStore, settings, async {
            let _ = stopped.await;
        }));
        let all = Page { page: 0, size: 10 };
        while store.usage(&UsageFilter::default(), all).await.unwrap().total > 3 {
            tokio::task::yield_now().await;
        }
        stop.send(()).unwrap();
        sweeper.await.unwrap();
        assert_eq!(store.usage(&UsageFilter::default(), all).await.unwrap().total, 3);
    }
}
