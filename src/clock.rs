//! The one place that reads the clock. Everything else is given the time as an argument.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in wall-clock time, in milliseconds since the Unix epoch. Written as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The beginning of time, for tests and as a lower bound of ranges.
    pub const EPOCH: Self = Self(0);

    /// The moment `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// This moment plus `duration`, at the latest the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This moment less `duration`, at the earliest the epoch.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How much later this moment is than `earlier`; zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Reads a date in the form that HTTP senders must use (RFC 9110 §5.6.7). `None` if `text` is none or lies before 1970.
    pub fn from_http_date(text: &str) -> Option<Self> {
        let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        u64::try_from(time.as_millisecond()).ok().map(Self)
    }

    /// Reads an RFC 3339 date and time with an offset.
    ///
    /// # Errors
    /// A message that says what is expected, if `text` is none or lies before 1970.
    pub fn parse(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .and_then(|time| u64::try_from(time.as_millisecond()).ok())
            .map(Self)
            .ok_or_else(|| format!("'{text}' is not an RFC 3339 time such as 2026-01-31T12:00:00Z"))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{time:.3}")
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

/// The wall-clock time now.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(millis(since_epoch))
}

/// The monotonic time now, for deadlines. Follows tokio's clock, so that tests can pause it.
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A wall clock that never goes back: the later of the wall clock and of what the monotonic one has counted since the start.
///
/// For timers whose moments are kept on disk. It goes on through a suspended machine (which the monotonic clock misses),
/// through a wall clock that is set back, and, in tests, with tokio's paused clock.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    start: Timestamp,
    origin: Instant,
}

impl SteadyClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: now(),
            origin: instant(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        let counted = instant().saturating_duration_since(self.origin);
        now().max(self.start.after(counted))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_back_what_it_wrote() {
        for text in ["1970-01-01T00:00:00.000Z", "2026-11-23T21:28:00.123Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Timestamp::parse("2026-01-01T02:00:00+02:00").unwrap().to_string(),
            "2026-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in ["", "tomorrow", "2026-01-01", "1969-12-31T23:59:59Z"] {
            assert!(Timestamp::parse(text).unwrap_err().contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn arithmetic_stops_at_the_ends_of_time() {
        assert_eq!(Timestamp::EPOCH.before(Duration::from_secs(1)), Timestamp::EPOCH);
        assert_eq!(
            Timestamp::from_millis(u64::MAX)
                .after(Duration::from_secs(1))
                .as_millis(),
            u64::MAX
        );
        assert_eq!(Timestamp::EPOCH.since(Timestamp::from_millis(5)), Duration::ZERO);
    }
}
