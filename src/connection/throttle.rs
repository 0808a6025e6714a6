//! Upstreams that ask to be left alone for a while, and for how long they are: a login that follows too early would only make
//! the time longer (Exchange Online: `BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds`).
//!
//! The time is an account's at one protocol, as the provider counts it. Until it is over, a login is refused as temporary
//! trouble without connecting. What is known goes with the process: at worst the upstream says it once more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::{Fault, FaultKind};
use crate::limits::THROTTLE_BACKOFF_MAX;
use crate::proto::Protocol;

/// Whom not to bother, and until when.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    until: Mutex<HashMap<(String, Protocol), Instant>>,
}

impl Throttles {
    /// Takes note if the `fault` of a login to `account` at `protocol` asks for time.
    pub(super) fn note(&self, account: &str, protocol: Protocol, fault: &Fault, now: Instant) {
        let words = match &fault.kind {
            FaultKind::UpstreamRefused(refusal) => &refusal.text,
            _ => &fault.detail,
        };
        let Some(backoff) = suggested_backoff(words) else {
            return;
        };
        let backoff = backoff.min(THROTTLE_BACKOFF_MAX);
        tracing::info!(account, %protocol, ?backoff, "the upstream asks to be left alone");
        let mut until = self.lock();
        // Those that are over are of no use, and would add up.
        until.retain(|_, end| *end > now);
        until.insert((account.to_owned(), protocol), now + backoff);
    }

    /// Whether a login to `account` at `protocol` may be tried.
    ///
    /// # Errors
    /// Temporary trouble, with what is left of the time.
    pub(super) fn check(&self, account: &str, protocol: Protocol, now: Instant) -> Result<(), Fault> {
        let key = (account.to_owned(), protocol);
        let left = self.lock().get(&key).map(|end| end.saturating_duration_since(now));
        match left {
            Some(left) if !left.is_zero() => Err(Fault::unavailable(format_args!(
                "the upstream said that the request is throttled, and asked to be left alone for another {} s",
                left.as_secs() + 1
            ))),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Protocol), Instant>> {
        // The map is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time that an upstream's words ask for: `Suggested Backoff Time: N`, in milliseconds, which some leave unsaid.
fn suggested_backoff(words: &str) -> Option<Duration> {
    let words = words.to_ascii_lowercase();
    let (_, rest) = words.split_once("suggested backoff time:")?;
    let digits = rest.trim_start().split(|c: char| !c.is_ascii_digit()).next()?;
    match digits.parse() {
        Ok(millis) => Some(Duration::from_millis(millis)),
        Err(_) if digits.is_empty() => None,
        Err(_) => Some(Duration::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::fault::UpstreamRefusal;

    #[test]
    fn the_suggested_time_is_read_from_the_upstreams_words() {
        for (words, millis) in [
            (
                "Request is throttled. Suggested Backoff Time: 92415 milliseconds",
                Some(92_415),
            ),
            ("NO Request is throttled. Suggested Backoff Time: 256625", Some(256_625)),
            ("suggested backoff time:7ms", Some(7)),
            ("Request is throttled. Suggested Backoff Time: soon", None),
            ("Request is throttled.", None),
            ("Too many simultaneous connections. (Failure)", None),
        ] {
            assert_eq!(suggested_backoff(words), millis.map(Duration::from_millis), "{words}");
        }
        let endless = "Suggested Backoff Time: 99999999999999999999999 milliseconds";
        assert_eq!(suggested_backoff(endless), Some(Duration::MAX));
    }

    fn throttled(millis: u64) -> Fault {
        Fault::unavailable(format_args!(
            "upstream answers AUTHENTICATE with BAD Request is throttled. Suggested Backoff Time: {millis} milliseconds"
        ))
    }

    #[test]
    fn an_account_is_left_alone_at_that_protocol_until_the_time_is_over() {
        let (throttles, now) = (Throttles::default(), clock::instant());
        let is_let = |account: &str, protocol, after: u64| {
            let at = now + Duration::from_millis(after);
            throttles.check(account, protocol, at).is_ok()
        };
        throttles.note("ada", Protocol::Imap, &throttled(10_000), now);
        assert!(!is_let("ada", Protocol::Imap, 0) && !is_let("ada", Protocol::Imap, 9_999));
        assert!(is_let("ada", Protocol::Imap, 10_000), "over");
        assert!(is_let("ada", Protocol::Smtp, 0) && is_let("bob", Protocol::Imap, 0));
        let fault = throttles.check("ada", Protocol::Imap, now).unwrap_err();
        assert!(
            fault.kind.is_temporary() && fault.detail.contains("another 11 s"),
            "{fault}"
        );
    }

    #[test]
    fn only_a_fault_that_asks_for_time_counts_and_none_for_more_than_the_most() {
        let (throttles, now) = (Throttles::default(), clock::instant());
        throttles.note("ada", Protocol::Imap, &Fault::unavailable("upstream closed"), now);
        assert!(throttles.check("ada", Protocol::Imap, now).is_ok());
        let refusal = UpstreamRefusal {
            code: Some("ALERT".to_owned()),
            text: "Suggested Backoff Time: 3600000 milliseconds".to_owned(),
            blames_credential: false,
        };
        throttles.note(
            "ada",
            Protocol::Imap,
            &Fault::new(FaultKind::UpstreamRefused(refusal)),
            now,
        );
        let last = now + THROTTLE_BACKOFF_MAX - Duration::from_millis(1);
        assert!(throttles.check("ada", Protocol::Imap, last).is_err());
        assert!(
            throttles
                .check("ada", Protocol::Imap, now + THROTTLE_BACKOFF_MAX)
                .is_ok()
        );
    }

    #[test]
    fn times_that_are_over_do_not_add_up() {
        let (throttles, now) = (Throttles::default(), clock::instant());
        for number in 0..10 {
            throttles.note(&format!("user{number}"), Protocol::Pop3, &throttled(5), now);
        }
        assert_eq!(throttles.lock().len(), 10);
        let later = now + Duration::from_secs(1);
        throttles.note("ada", Protocol::Pop3, &throttled(5), later);
        assert_eq!(throttles.lock().len(), 1);
    }
}
