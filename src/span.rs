//! Lengths of time as people read them. Every message and every line of the log that names one goes through here; only the
//! configuration has a way of its own, which it reads too.

use std::fmt;
use std::time::Duration;

/// A length of time, shown with at most two units and no more digits than anybody reads: `250 ms`, `3 s`, `1 min 30 s`, `2 h`,
/// `30 days`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_nanos().div_ceil(NANOS_PER_MILLI / 2) / 2;
        if millis == 0 {
            return f.write_str("0 s");
        }
        if millis < MILLIS_PER_SECOND {
            return write!(f, "{millis} ms");
        }
        let seconds = (millis + MILLIS_PER_SECOND / 2) / MILLIS_PER_SECOND;
        // What is short is told to a tenth of a second.
        if millis < TENTHS_BELOW_MILLIS && !millis.is_multiple_of(MILLIS_PER_SECOND) {
            let tenths = (millis + 50) / 100;
            return match tenths % 10 {
                0 => write!(f, "{} s", tenths / 10),
                tenth => write!(f, "{}.{tenth} s", tenths / 10),
            };
        }
        let (number, unit, rest, smaller) = match seconds {
            ..MINUTE => return write!(f, "{seconds} s"),
            MINUTE..HOUR => (seconds / MINUTE, "min", seconds % MINUTE, "s"),
            HOUR..DAY => {
                let minutes = (seconds + MINUTE / 2) / MINUTE;
                (minutes / 60, "h", minutes % 60, "min")
            }
            DAY.. => {
                let hours = (seconds + HOUR / 2) / HOUR;
                (hours / 24, "day", hours % 24, "h")
            }
        };
        // An hour's minutes may have been rounded up to a day, for which nobody minds `24 h`.
        let plural = if unit == "day" && number != 1 { "s" } else { "" };
        match rest {
            0 => write!(f, "{number} {unit}{plural}"),
            rest => write!(f, "{number} {unit}{plural} {rest} {smaller}"),
        }
    }
}

const NANOS_PER_MILLI: u128 = 1_000_000;
const MILLIS_PER_SECOND: u128 = 1000;
const TENTHS_BELOW_MILLIS: u128 = 10_000;
const MINUTE: u128 = 60;
const HOUR: u128 = 60 * MINUTE;
const DAY: u128 = 24 * HOUR;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_shown_as_people_say_it() {
        for (duration, expected) in [
            (Duration::ZERO, "0 s"),
            (Duration::from_nanos(1), "0 s"),
            (Duration::from_nanos(600_000), "1 ms"),
            (Duration::from_millis(250), "250 ms"),
            (Duration::from_nanos(999_900_000), "1 s"),
            (Duration::from_millis(1500), "1.5 s"),
            (Duration::from_millis(2040), "2 s"),
            (Duration::from_secs(3), "3 s"),
            (Duration::from_nanos(9_999_999_999), "10 s"),
            (Duration::from_nanos(14_999_999_123), "15 s"),
            (Duration::from_millis(59_700), "1 min"),
            (Duration::from_secs(90), "1 min 30 s"),
            (Duration::from_secs(120), "2 min"),
            (Duration::from_secs(600), "10 min"),
            (Duration::from_secs(3600), "1 h"),
            (Duration::from_secs(5430), "1 h 31 min"),
            (Duration::from_secs(86_399), "24 h"),
            (Duration::from_secs(86_400), "1 day"),
            (Duration::from_secs(90_000), "1 day 1 h"),
            (Duration::from_secs(30 * 86_400), "30 days"),
            (Duration::MAX, "213503982334601 days 7 h"),
        ] {
            assert_eq!(Span(duration).to_string(), expected, "{duration:?}");
        }
    }
}
