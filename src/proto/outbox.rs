//! What the upstream leg of a login has decided, and nobody has done yet: [`Outbox`].
//!
//! The upstream side of every protocol goes through one, so that what may still happen behind a failure, and how a SASL
//! challenge is answered, is said once. What is written, and when, is the protocol's business.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::fault::Fault;
use crate::proto::Mechanism;
use crate::proto::dialogue::{UpstreamGreeted, UpstreamStep};
use crate::proto::promise::{Moment, Said};
use crate::proto::redaction::Redaction;
use crate::proto::sasl::upstream::challenge_answer;

/// The steps of an [`UpstreamDialogue`](crate::proto::dialogue::UpstreamDialogue) that are still to be taken, in order.
#[derive(Default)]
pub(in crate::proto) struct Outbox {
    steps: VecDeque<UpstreamStep>,
}

impl Outbox {
    /// Writes to the upstream. What wipes itself when dropped does so once it was written.
    pub(in crate::proto) fn send(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) {
        self.steps.push_back(UpstreamStep::Send(Bytes::from_owner(bytes)));
    }

    /// Begins the TLS handshake.
    pub(in crate::proto) fn secure(&mut self) {
        self.steps.push_back(UpstreamStep::Secure);
    }

    /// Tells what the upstream says it can do.
    pub(in crate::proto) fn learned(&mut self, moment: Moment, lines: Vec<String>) {
        self.steps.push_back(UpstreamStep::Learned(Said { moment, lines }));
    }

    /// Reports and answers the challenge in which an upstream explains why it will refuse (RFC 7628 §3.2.2); it refuses once
    /// that was acknowledged. `None` for a login without SASL.
    pub(in crate::proto) fn answer_challenge(
        &mut self,
        mechanism: Option<Mechanism>,
        challenge: &[u8],
        redaction: &Redaction,
    ) {
        let explained = STANDARD
            .decode(challenge.trim_ascii())
            .unwrap_or_else(|_| challenge.to_vec());
        let explained = redaction.clean(&explained);
        self.steps.push_back(UpstreamStep::Challenged(explained));
        let answer = challenge_answer(mechanism);
        self.send(format!("{answer}\r\n"));
    }

    /// The last step of a login that went well; `for_client` is what the client is to hear of it.
    pub(in crate::proto) fn logged_in(&mut self, for_client: Bytes) {
        self.steps.push_back(UpstreamStep::LoggedIn(UpstreamGreeted {
            for_client,
            surplus: Bytes::new(),
        }));
    }

    /// The last step of a login that failed. What was learnt and reported before is still told.
    pub(in crate::proto) fn fail(&mut self, fault: Fault) {
        // IMPORTANT: a write that nobody has taken yet must not go out any more: it could be a credential behind a fault
        // that came in the same piece.
        self.steps
            .retain(|step| matches!(step, UpstreamStep::Challenged(_) | UpstreamStep::Learned(_)));
        self.steps.push_back(UpstreamStep::Failed(fault));
    }

    /// The next step. Behind a login that went well come the bytes that the upstream has sent since, from `take_surplus`.
    pub(in crate::proto) fn poll(&mut self, take_surplus: impl FnOnce() -> Bytes) -> Option<UpstreamStep> {
        let mut step = self.steps.pop_front()?;
        if let UpstreamStep::LoggedIn(greeted) = &mut step {
            greeted.surplus = take_surplus();
        }
        Some(step)
    }
}

/// The fault of an upstream that went away while the login was at `place`.
pub(in crate::proto) fn closed(place: &str) -> Fault {
    Fault::unavailable(format_args!("upstream closed the connection, {place}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_failure_nothing_is_written_and_what_was_found_out_is_still_told() {
        let mut outbox = Outbox::default();
        outbox.learned(Moment::BeforeLogin, vec!["SIZE".to_owned()]);
        outbox.send("the credential\r\n");
        outbox.answer_challenge(Some(Mechanism::XOAuth2), b"e30=", &Redaction::default());
        outbox.secure();
        outbox.logged_in(Bytes::new());
        outbox.fail(closed("here"));
        let steps: Vec<UpstreamStep> = std::iter::from_fn(|| outbox.poll(Bytes::new)).collect();
        let [
            UpstreamStep::Learned(_),
            UpstreamStep::Challenged(explained),
            UpstreamStep::Failed(fault),
        ] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!(explained, "{}");
        assert_eq!(fault.detail, "upstream closed the connection, here");
    }
}
