//! Every metric, once: its name, its labels, its help text, and the function that the rest of the program records it with.
//!
//! The table [`ALL`] is what is described to Prometheus and what `docs/metrics.md` is checked against by a test.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::proto::Protocol;
use crate::store::{AccountState, UsageKind};

/// One metric as Prometheus sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its full name.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its labels, in the order in which they are documented.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

/// The types of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in seconds, in buckets.
    Histogram,
}

/// The two ways of a relayed byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
}

/// Every metric of this program; `process_*` comes beside it from the operating system.
pub const ALL: &[Metric] = &[
    Metric {
        name: CONNECTIONS_ACCEPTED,
        kind: MetricKind::Counter,
        labels: &["protocol"],
        help: "Client connections that were accepted.",
    },
    Metric {
        name: CONNECTIONS_REFUSED,
        kind: MetricKind::Counter,
        labels: &["protocol", "reason"],
        help: "Client connections that were refused before a login could begin.",
    },
    Metric {
        name: SESSIONS,
        kind: MetricKind::Gauge,
        labels: &["protocol", "phase"],
        help: "Live sessions.",
    },
    Metric {
        name: LOGINS,
        kind: MetricKind::Counter,
        labels: &["protocol", "outcome"],
        help: "Finished login attempts of clients; outcome is ok or the reason of the refusal.",
    },
    Metric {
        name: REFUSALS_DELAYED,
        kind: MetricKind::Counter,
        labels: &["side"],
        help: "Refused logins whose answer was delayed, because there had been many; side is a protocol or admin.",
    },
    Metric {
        name: LOGIN_DURATION,
        kind: MetricKind::Histogram,
        labels: &["protocol"],
        help: "Time from a client's credentials to its answer.",
    },
    Metric {
        name: UPSTREAM_CONNECT_DURATION,
        kind: MetricKind::Histogram,
        labels: &["protocol", "provider"],
        help: "Time to an open upstream leg: name resolution, TCP and TLS.",
    },
    Metric {
        name: UPSTREAM_NOT_CONNECTED,
        kind: MetricKind::Counter,
        labels: &["provider"],
        help: "Logins that an upstream accepted and then answered with 'authenticated but not connected'.",
    },
    Metric {
        name: RELAYED_BYTES,
        kind: MetricKind::Counter,
        labels: &["protocol", "direction"],
        help: "Bytes relayed after login; up is towards the upstream.",
    },
    Metric {
        name: OAUTH_REFRESHES,
        kind: MetricKind::Counter,
        labels: &["provider", "outcome"],
        help: "Finished refreshes of OAuth tokens; outcome is ok, grant_refused, app_refused or temporary.",
    },
    Metric {
        name: OAUTH_REFRESH_DURATION,
        kind: MetricKind::Histogram,
        labels: &["provider"],
        help: "Time that the provider's token endpoint took to answer a refresh.",
    },
    Metric {
        name: ACCOUNTS,
        kind: MetricKind::Gauge,
        labels: &["state"],
        help: "Accounts by state, as of the scrape.",
    },
    Metric {
        name: ACCOUNT_STATE_CHANGES,
        kind: MetricKind::Counter,
        labels: &["provider", "state"],
        help: "Changes of accounts' states; state is the new one.",
    },
    Metric {
        name: GRANTS_ENDING,
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Grants that end soon unless their owners authorize again, as of the scrape.",
    },
    Metric {
        name: ACCESS_TOKENS,
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Access tokens, as of the scrape.",
    },
    Metric {
        name: STORE_COMMIT_DURATION,
        kind: MetricKind::Histogram,
        labels: &[],
        help: "Time that a durable commit of the store took.",
    },
    Metric {
        name: USAGE_EVENTS,
        kind: MetricKind::Counter,
        labels: &["kind"],
        help: "Usage events that were recorded.",
    },
    Metric {
        name: BUILD_INFO,
        kind: MetricKind::Gauge,
        labels: &["version"],
        help: "Always 1; names the running version.",
    },
];

/// A client connection was accepted.
pub fn connections_accepted(protocol: Protocol) -> Counter {
    counter!(CONNECTIONS_ACCEPTED, "protocol" => protocol.name())
}

/// A client connection was refused before a login could begin. `reason` comes from a closed set.
pub fn connections_refused(protocol: Protocol, reason: &'static str) -> Counter {
    counter!(CONNECTIONS_REFUSED, "protocol" => protocol.name(), "reason" => reason)
}

/// Live sessions in a phase, a name of `proto::session::Phase`.
pub fn sessions(protocol: Protocol, phase: &'static str) -> Gauge {
    gauge!(SESSIONS, "protocol" => protocol.name(), "phase" => phase)
}

/// A login attempt ended: `outcome` is [`OUTCOME_OK`] or a label of [`crate::fault::FaultKind`].
pub fn logins(protocol: Protocol, outcome: &'static str) -> Counter {
    counter!(LOGINS, "protocol" => protocol.name(), "outcome" => outcome)
}

/// The answer to a refused login was delayed. `side` is the name of a protocol, or `admin`.
pub fn refusals_delayed(side: &'static str) -> Counter {
    counter!(REFUSALS_DELAYED, "side" => side)
}

/// Seconds from a client's credentials to its answer.
pub fn login_duration(protocol: Protocol) -> Histogram {
    histogram!(LOGIN_DURATION, "protocol" => protocol.name())
}

/// Seconds to an open upstream leg. `provider` is a name of the configuration.
pub fn upstream_connect_duration(protocol: Protocol, provider: &str) -> Histogram {
    histogram!(UPSTREAM_CONNECT_DURATION, "protocol" => protocol.name(), "provider" => provider.to_owned())
}

/// An upstream accepted a login and then said that there is no mailbox behind it.
pub fn upstream_not_connected(provider: &str) -> Counter {
    counter!(UPSTREAM_NOT_CONNECTED, "provider" => provider.to_owned())
}

/// Bytes relayed after login.
pub fn relayed_bytes(protocol: Protocol, direction: Direction) -> Counter {
    counter!(RELAYED_BYTES, "protocol" => protocol.name(), "direction" => direction.label())
}

/// A refresh ended: `outcome` is [`OUTCOME_OK`] or the kind of the error.
pub fn oauth_refreshes(provider: &str, outcome: &'static str) -> Counter {
    counter!(OAUTH_REFRESHES, "provider" => provider.to_owned(), "outcome" => outcome)
}

/// Seconds that a token endpoint took to answer.
pub fn oauth_refresh_duration(provider: &str) -> Histogram {
    histogram!(OAUTH_REFRESH_DURATION, "provider" => provider.to_owned())
}

/// Accounts in a state.
pub fn accounts(state: AccountState) -> Gauge {
    gauge!(ACCOUNTS, "state" => state_label(state))
}

/// An account of a provider came into a state.
pub fn account_state_changes(provider: &str, state: AccountState) -> Counter {
    counter!(ACCOUNT_STATE_CHANGES, "provider" => provider.to_owned(), "state" => state_label(state))
}

/// Grants that end soon.
pub fn grants_ending() -> Gauge {
    gauge!(GRANTS_ENDING)
}

/// Access tokens.
pub fn access_tokens() -> Gauge {
    gauge!(ACCESS_TOKENS)
}

/// Seconds that a durable commit of the store took.
pub fn store_commit_duration() -> Histogram {
    histogram!(STORE_COMMIT_DURATION)
}

/// A usage event was recorded.
pub fn usage_events(kind: UsageKind) -> Counter {
    let kind = match kind {
        UsageKind::Login => "login",
        UsageKind::Denied => "denied",
        UsageKind::End => "end",
        UsageKind::State => "state",
    };
    counter!(USAGE_EVENTS, "kind" => kind)
}

/// Names the running version.
pub fn build_info() -> Gauge {
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"))
}

/// Registers the type and help text of every metric with the recorder in effect.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => {
                metrics::describe_histogram!(metric.name, metrics::Unit::Seconds, metric.help);
            }
        }
    }
}

/// The value of the label `state`, which is also the state's name in the admin API.
pub fn state_label(state: AccountState) -> &'static str {
    match state {
        AccountState::New => "new",
        AccountState::Active => "active",
        AccountState::NeedsAuthorization => "needs-authorization",
        AccountState::Failing => "failing",
        AccountState::Disabled => "disabled",
    }
}

impl Direction {
    /// The value of the label `direction`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// The outcome of what succeeded.
pub const OUTCOME_OK: &str = "ok";

const CONNECTIONS_ACCEPTED: &str = "portreeve_connections_accepted_total";
const CONNECTIONS_REFUSED: &str = "portreeve_connections_refused_total";
const SESSIONS: &str = "portreeve_sessions";
const LOGINS: &str = "portreeve_logins_total";
const REFUSALS_DELAYED: &str = "portreeve_refusals_delayed_total";
pub(super) const LOGIN_DURATION: &str = "portreeve_login_duration_seconds";
pub(super) const UPSTREAM_CONNECT_DURATION: &str = "portreeve_upstream_connect_duration_seconds";
const UPSTREAM_NOT_CONNECTED: &str = "portreeve_upstream_not_connected_total";
const RELAYED_BYTES: &str = "portreeve_relayed_bytes_total";
const OAUTH_REFRESHES: &str = "portreeve_oauth_refreshes_total";
pub(super) const OAUTH_REFRESH_DURATION: &str = "portreeve_oauth_refresh_duration_seconds";
const ACCOUNTS: &str = "portreeve_accounts";
const ACCOUNT_STATE_CHANGES: &str = "portreeve_account_state_changes_total";
const GRANTS_ENDING: &str = "portreeve_grants_ending";
const ACCESS_TOKENS: &str = "portreeve_access_tokens";
pub(super) const STORE_COMMIT_DURATION: &str = "portreeve_store_commit_duration_seconds";
const USAGE_EVENTS: &str = "portreeve_usage_events_total";
const BUILD_INFO: &str = "portreeve_build_info";

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of `docs/metrics.md`'s table, as it must stand for `metric`.
    fn documented(metric: &Metric) -> String {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() {
            "–".to_owned()
        } else {
            labels.join(", ")
        };
        format!("| `{}` | {kind} | {labels} | {} |", metric.name, metric.help)
    }

    #[test]
    fn the_documentation_lists_exactly_the_metrics_that_exist() {
        let docs = include_str!("../../docs/metrics.md");
        let lines: Vec<&str> = docs.lines().filter(|line| line.starts_with("| `portreeve_")).collect();
        let expected: Vec<String> = ALL.iter().map(documented).collect();
        assert_eq!(lines, expected, "docs/metrics.md should read:\n{}", expected.join("\n"));
    }

    #[test]
    fn counters_end_in_total_and_durations_in_seconds() {
        for metric in ALL {
            let suffix = match metric.kind {
                MetricKind::Counter => "_total",
                MetricKind::Histogram => "_duration_seconds",
                MetricKind::Gauge => "",
            };
            assert!(metric.name.starts_with("portreeve_"), "{}", metric.name);
            assert!(metric.name.ends_with(suffix), "{}", metric.name);
        }
    }

    #[test]
    fn a_states_label_is_its_name_in_the_api() {
        for state in [
            AccountState::New,
            AccountState::Active,
            AccountState::NeedsAuthorization,
            AccountState::Failing,
            AccountState::Disabled,
        ] {
            assert_eq!(serde_json::to_value(state).unwrap(), state_label(state));
        }
    }
}
