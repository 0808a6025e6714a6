//! Every metric's name and labels, once.

/// Counter of refresh attempts that were answered or failed; labels [`PROVIDER`] and [`OUTCOME`] (`success`,
/// `grant_refused`, `app_refused`, `temporary`).
pub const OAUTH_REFRESHES: &str = "portreeve_oauth_refreshes_total";

/// Histogram of the time from the request to the answer; label [`PROVIDER`].
pub const OAUTH_REFRESH_DURATION: &str = "portreeve_oauth_refresh_duration_seconds";

/// The provider's name in the configuration.
pub const PROVIDER: &str = "provider";

/// How something ended.
pub const OUTCOME: &str = "outcome";
