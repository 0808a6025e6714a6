//! Sweeps usage events that are too old or too many.

use std::time::Duration;

use crate::clock;
use crate::config::StoreSettings;
use crate::store::SharedStore;

/// Sweeps at once and then every five minutes, until `shutdown` is ready. `settings` is asked each time, so that a
/// reload of the configuration counts. A sweep that fails is made up for by the next one.
pub async fn run(store: SharedStore, settings: impl Fn() -> StoreSettings, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
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
            swept = store.sweep_usage(clock::now(), usage_retention, usage_events_max) => match swept {
                Ok(0) => {}
                Ok(events) => tracing::debug!(events, "swept old usage events"),
                Err(error) => tracing::warn!(%error, "old usage events could not be swept"),
            },
        }
    }
}

/// How often events are swept: their number may exceed the maximum by what comes in meanwhile.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;
    use crate::store::{Page, Store, TokenId, UsageFilter};
    use crate::usage::{SessionFacts, UsageLog};

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
