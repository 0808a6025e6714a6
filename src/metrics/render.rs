//! The recorder that collects the metrics, and their rendering as Prometheus text.
//!
//! This module alone names the Prometheus exporter. It opens no socket: who serves the text is [`crate::admin`]'s business.

use std::sync::Arc;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use metrics_process::Collector;

use super::names;

/// The collected metrics, ready to be rendered. Cheap to clone.
#[derive(Clone)]
pub struct Exposition {
    handle: PrometheusHandle,
    process: Arc<Collector>,
}

impl Exposition {
    /// Installs the process-wide recorder, to which all of [`names`] goes from then on.
    ///
    /// # Errors
    /// If the process has a recorder already; the message says so.
    pub fn install() -> Result<Self, String> {
        let recorder = recorder().map_err(|error| error.to_string())?;
        let exposition = Self::of(&recorder);
        metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
        exposition.describe();
        Ok(exposition)
    }

    /// A recorder that is not the process's own, for programs that embed this one and for tests: nothing reaches it unless
    /// `metrics::with_local_recorder` names it.
    ///
    /// # Errors
    /// None in practice: the buckets are constants and not empty.
    pub fn detached() -> Result<(PrometheusRecorder, Self), String> {
        let recorder = recorder().map_err(|error| error.to_string())?;
        let exposition = Self::of(&recorder);
        metrics::with_local_recorder(&recorder, || exposition.describe());
        Ok((recorder, exposition))
    }

    /// All metrics as Prometheus text, version 0.0.4, with the process's own as of now.
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Folds the samples that were taken since the last rendering. To be called at regular intervals, because samples that
    /// nobody scrapes would pile up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn of(recorder: &PrometheusRecorder) -> Self {
        Self {
            handle: recorder.handle(),
            process: Arc::new(Collector::default()),
        }
    }

    fn describe(&self) {
        names::describe();
        self.process.describe();
        names::build_info().set(1.0);
    }
}

/// The media type of [`Exposition::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in [
        (names::LOGIN_DURATION, NETWORK_BUCKETS),
        (names::UPSTREAM_CONNECT_DURATION, NETWORK_BUCKETS),
        (names::OAUTH_REFRESH_DURATION, NETWORK_BUCKETS),
        (names::STORE_COMMIT_DURATION, DISK_BUCKETS),
    ] {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), buckets)?;
    }
    Ok(builder.build_recorder())
}

/// Seconds: from a login that needs nothing of a distant provider up to `limits.login_timeout`'s default.
const NETWORK_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0,
];

/// Seconds: from a commit into a battery-backed cache up to a disk that is about to fail.
const DISK_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Protocol;
    use crate::store::{AccountState, UsageKind};

    fn record_everything() {
        names::connections_accepted(Protocol::Imap).increment(1);
        names::connections_refused(Protocol::Imap, "proxy_limit").increment(1);
        names::sessions(Protocol::Imap, "relay").set(3.0);
        names::logins(Protocol::Imap, names::OUTCOME_OK).increment(2);
        names::refusals_delayed("imap").increment(1);
        names::login_duration(Protocol::Imap).record(0.2);
        names::upstream_connect_duration(Protocol::Imap, "example").record(0.02);
        names::upstream_not_connected("example").increment(1);
        names::relayed_bytes(Protocol::Imap, names::Direction::Up).increment(10);
        names::relayed_bytes(Protocol::Imap, names::Direction::Down).increment(20);
        names::oauth_refreshes("example", names::OUTCOME_OK).increment(1);
        names::oauth_refresh_duration("example").record(0.3);
        names::accounts(AccountState::NeedsAuthorization).set(1.0);
        names::account_state_changes("example", AccountState::Failing).increment(1);
        names::grants_ending().set(2.0);
        names::access_tokens().set(7.0);
        names::store_commit_duration().record(0.0016);
        names::usage_events(UsageKind::Denied).increment(1);
    }

    #[test]
    fn the_text_carries_every_metric_with_its_labels_and_help() {
        let (recorder, exposition) = Exposition::detached().unwrap();
        let text = metrics::with_local_recorder(&recorder, || {
            record_everything();
            exposition.render()
        });
        for metric in names::ALL {
            assert!(
                text.contains(&format!("# HELP {} {}", metric.name, metric.help)),
                "{} in\n{text}",
                metric.name
            );
        }
        for line in [
            "portreeve_connections_refused_total{protocol=\"imap\",reason=\"proxy_limit\"} 1",
            "portreeve_logins_total{protocol=\"imap\",outcome=\"ok\"} 2",
            "portreeve_sessions{protocol=\"imap\",phase=\"relay\"} 3",
            "portreeve_login_duration_seconds_bucket{protocol=\"imap\",le=\"0.25\"} 1",
            "portreeve_login_duration_seconds_bucket{protocol=\"imap\",le=\"0.1\"} 0",
            "portreeve_relayed_bytes_total{protocol=\"imap\",direction=\"down\"} 20",
            "portreeve_accounts{state=\"needs-authorization\"} 1",
            "portreeve_account_state_changes_total{provider=\"example\",state=\"failing\"} 1",
            "portreeve_grants_ending 2",
            "portreeve_access_tokens 7",
            "portreeve_store_commit_duration_seconds_bucket{le=\"0.0025\"} 1",
            "portreeve_usage_events_total{kind=\"denied\"} 1",
            concat!("portreeve_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn samples_that_nobody_scraped_survive_the_upkeep() {
        let (recorder, exposition) = Exposition::detached().unwrap();
        let text = metrics::with_local_recorder(&recorder, || {
            names::store_commit_duration().record(0.5);
            exposition.upkeep();
            exposition.render()
        });
        assert!(
            text.contains("portreeve_store_commit_duration_seconds_count 1"),
            "{text}"
        );
    }
}
