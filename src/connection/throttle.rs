//! Upstreams that ask to be left alone for a while, and for how long they are: a login that follows too early would only make
//! the time longer (Exchange Online: `BAD Request is throttled. Suggested Backoff Time: 92415 milliseconds`).
//!
//! The time is an account's at one protocol, as the provider counts it. Until it is over, a login is refused as temporary
//! trouble without connecting. What is known goes with the process: at worst the upstream says it once more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::fault::{Fault, UpstreamWords};
use crate::limits::THROTTLE_BACKOFF_MAX;
use crate::proto::Protocol;
use crate::span::Span;

/// Whom not to bother, and until when.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    until: Mutex<HashMap<(String, Protocol), Throttled>>,
}

/// For how long one mailbox is left alone at a protocol, and the words that ask for it.
#[derive(Debug)]
struct Throttled {
    end: Instant,
    said: Box<UpstreamWords>,
}

impl Throttles {
    /// Takes note if the `fault` of a login to `account` at `protocol` asks for time.
    pub(super) fn note(&self, account: &str, protocol: Protocol, fault: &Fault, now: Instant) {
        let Some(said) = &fault.said else { return };
        let Some(backoff) = said.backoff else { return };
        let backoff = backoff.min(THROTTLE_BACKOFF_MAX);
        tracing::info!(account, %protocol, backoff = %Span(backoff), "the upstream asks to be left alone");
        let mut until = self.lock();
        // Those that are over are of no use, and would add up.
        until.retain(|_, throttled| throttled.end > now);
        // What they ask for is noted; a login that is refused for it asks for nothing more.
        let said = Box::new(UpstreamWords {
            backoff: None,
            ..*said.clone()
        });
        let end = now + backoff;
        until.insert((account.to_owned(), protocol), Throttled { end, said });
    }

    /// Whether a login to `account` at `protocol` may be tried.
    ///
    /// # Errors
    /// Temporary trouble, with what is left of the time.
    pub(super) fn check(&self, account: &str, protocol: Protocol, now: Instant) -> Result<(), Fault> {
        let key = (account.to_owned(), protocol);
        match self.lock().get(&key) {
            Some(Throttled { end, said }) if *end > now => {
                let left = end.saturating_duration_since(now);
                let fault = Fault::unavailable(format_args!(
                    "the upstream said that the request is throttled, and asked to be left alone for another {}",
                    Span(std::time::Duration::from_secs(left.as_secs() + 1))
                ));
                Err(fault.for_words((**said).clone()))
            }
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Protocol), Throttled>> {
        // The map is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::fault::LoginStep;

    fn throttled(millis: u64) -> Fault {
        let text = format!("Request is throttled. Suggested Backoff Time: {millis} milliseconds");
        Fault::unavailable("upstream answers AUTHENTICATE with BAD").for_words(UpstreamWords::new(
            LoginStep::Login,
            None,
            text,
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
        assert!(fault.said.as_ref().unwrap().text.contains("throttled"), "{fault:?}");
        // Its own refusal does not make the time longer.
        throttles.note("ada", Protocol::Imap, &fault, now + Duration::from_millis(5_000));
        assert!(is_let("ada", Protocol::Imap, 10_000));
    }

    #[test]
    fn only_a_fault_that_asks_for_time_counts_and_none_for_more_than_the_most() {
        let (throttles, now) = (Throttles::default(), clock::instant());
        // A text that was made for the log asks for nothing.
        let logged = Fault::unavailable("Suggested Backoff Time: 3600000 milliseconds");
        throttles.note("ada", Protocol::Imap, &logged, now);
        assert!(throttles.check("ada", Protocol::Imap, now).is_ok());
        throttles.note("ada", Protocol::Imap, &throttled(3_600_000), now);
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
