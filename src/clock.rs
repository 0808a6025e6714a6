//! The one place that reads the clock. Everything else is given the time as an argument.

use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
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

/// The wall-clock time now, as far as the system's clock is to be believed: one that has been set by more than
/// `STEP` is followed once it has stood by that for `BELIEF`. So a clock that is wrong for a moment, as virtual machines'
/// and those of time servers that start are, leaves no deadline a day ahead.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = Timestamp(millis(since_epoch));
    let uptime = boot_time();
    let mut believed = BELIEVED.lock().unwrap_or_else(PoisonError::into_inner);
    believed.get_or_insert(WallClock::set(wall, uptime)).read(wall, uptime)
}

/// The monotonic time now, for deadlines. Follows tokio's clock, so that tests can pause it.
pub fn instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Since this machine was started, suspensions included: what nobody can set.
fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// What is believed of the wall clock. Pure.
#[derive(Debug, Clone, Copy)]
struct WallClock {
    /// What it was when it was last believed.
    anchor: Timestamp,
    /// And the uptime then.
    anchored: Duration,
    doubt: Option<Doubt>,
}

/// A step of the wall clock that is not believed yet.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Duration,
    /// Milliseconds by which the wall clock is ahead of what is believed.
    ahead: i128,
}

impl WallClock {
    fn set(wall: Timestamp, uptime: Duration) -> Self {
        Self {
            anchor: wall,
            anchored: uptime,
            doubt: None,
        }
    }

    fn read(&mut self, wall: Timestamp, uptime: Duration) -> Timestamp {
        let counted = self.anchor.after(uptime.saturating_sub(self.anchored));
        let ahead = i128::from(wall.0) - i128::from(counted.0);
        if is_same(ahead, 0) {
            *self = Self::set(wall, uptime);
            return wall;
        }
        match self.doubt {
            Some(doubt) if is_same(doubt.ahead, ahead) => {
                if uptime.saturating_sub(doubt.since) >= BELIEF {
                    tracing::warn!(from = %counted, to = %wall, "the system's clock has been set");
                    *self = Self::set(wall, uptime);
                    return wall;
                }
            }
            _ => self.doubt = Some(Doubt { since: uptime, ahead }),
        }
        counted
    }
}

fn is_same(one: i128, other: i128) -> bool {
    one.abs_diff(other) <= STEP.as_millis()
}

/// Moments on a clock that nobody can set: what it was at its start, and the time that has passed since, suspensions included.
///
/// For deadlines beside which moments from the disk stand. Follows tokio's clock in tests, where it is paused.
#[derive(Debug, Clone, Copy)]
pub struct SteadyClock {
    start: Timestamp,
    origin: Instant,
    origin_boot: Duration,
}

impl SteadyClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            start: now(),
            origin: instant(),
            origin_boot: boot_time(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        // The monotonic clock stands still while a machine is suspended.
        let counted = instant().saturating_duration_since(self.origin);
        self.start
            .after(counted.max(boot_time().saturating_sub(self.origin_boot)))
    }

    /// When a moment of this clock is by the wall clock, which may have been set meanwhile: for people.
    pub fn to_wall(&self, moment: Timestamp) -> Timestamp {
        let (steady, wall) = (self.now(), now());
        // As long as nobody has set it, the same moment at each asking.
        let is_untouched = is_same(i128::from(steady.0), i128::from(wall.0));
        match is_untouched || moment < steady {
            true => moment,
            false => wall.after(moment.since(steady)),
        }
    }
}

/// Since this process first asked, suspensions included.
pub fn uptime() -> Duration {
    static FIRST: OnceLock<Duration> = OnceLock::new();
    let now = boot_time();
    now.saturating_sub(*FIRST.get_or_init(|| now))
}

static BELIEVED: Mutex<Option<WallClock>> = Mutex::new(None);

/// By how much clocks are corrected without being set.
const STEP: Duration = Duration::from_secs(1);

/// How long a clock that was set is not believed: longer than what is wrong by accident, and short for somebody who has set it.
const BELIEF: Duration = Duration::from_secs(10);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
    }

    fn up(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_is_wrong_for_a_moment_is_not_believed() {
        let mut clock = WallClock::set(at(0), up(100));
        for wrong in [at(1).after(DAY), at(1).before(DAY), Timestamp::EPOCH] {
            assert_eq!(clock.read(wrong, up(101)), at(1));
        }
        assert_eq!(clock.read(at(2), up(102)), at(2));
        // Nor is one that comes and goes believed by and by.
        for second in (3..60).step_by(2) {
            assert_eq!(clock.read(at(second).after(DAY), up(100 + second)), at(second));
            assert_eq!(clock.read(at(second + 1), up(101 + second)), at(second + 1));
        }
    }

    #[test]
    fn a_clock_that_has_been_set_is_followed_in_the_end() {
        for set in [|time: Timestamp| time.after(DAY), |time: Timestamp| time.before(DAY)] {
            let mut clock = WallClock::set(at(0), up(100));
            assert_eq!(clock.read(set(at(1)), up(101)), at(1));
            assert_eq!(clock.read(set(at(10)), up(110)), at(10));
            assert_eq!(clock.read(set(at(11)), up(111)), set(at(11)));
            assert_eq!(clock.read(set(at(12)), up(112)), set(at(12)));
        }
    }

    #[test]
    fn a_clock_that_is_corrected_bit_by_bit_is_followed_at_once() {
        let mut clock = WallClock::set(at(0), up(100));
        for second in 1..100 {
            let slewed = at(second).after(Duration::from_millis(second * 50));
            assert_eq!(clock.read(slewed, up(100 + second)), slewed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_clock_goes_on_with_what_has_passed() {
        let clock = SteadyClock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(clock.now().since(before) >= Duration::from_secs(3600));
        // The wall clock has not moved: what is an hour ahead there is so here.
        let until = clock.now().after(Duration::from_secs(60));
        let shown = clock.to_wall(until);
        assert!(shown <= now().after(Duration::from_secs(61)) && shown >= now().after(Duration::from_secs(59)));
    }

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
