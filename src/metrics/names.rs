//! Every metric's name and labels, once.

/// Seconds that a durable commit of the store took, fsync and all. No labels.
pub const STORE_COMMIT_DURATION: &str = "portreeve_store_commit_duration_seconds";

/// Usage events by `kind`: `login`, `denied`, `end`.
pub const USAGE_EVENTS: &str = "portreeve_usage_events_total";
