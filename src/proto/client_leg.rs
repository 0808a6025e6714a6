//! What the client leg of every protocol keeps before its relay: the client's stream, what is to be done for the client, and
//! how much of it is still put up with.
//!
//! What may not live here: a command, a reply's form, or what the dialogue waits for; those are each protocol's own, in its
//! `client.rs`. A dialogue owns one [`ClientLeg`] and drives it like this:
//!
//! ```text
//! while !leg.is_due() && <the dialogue did the next thing that can be done> {}
//! leg.pop_step()
//! ```

use std::collections::VecDeque;

use bytes::BytesMut;

use super::dialogue::{Accepted, ClientStep};
use super::framing::{FrameLimits, Framer, Longer};
use super::sasl::UnfitCredentials;
use super::session::{Offer, SessionContext};
use crate::fault::{Fault, FaultKind};

/// A client leg that is not logged in yet.
pub(super) struct ClientLeg {
    /// What the client has sent.
    pub(super) framer: Framer,
    /// Whether the client will send no more.
    pub(super) is_at_eof: bool,
    /// What the client may do as things are.
    pub(super) offer: Offer,
    failures_left: u32,
    bad_commands_left: u32,
    commands_left: u32,
    /// Replies that were not yet polled for.
    replies: BytesMut,
    /// Steps that come before `replies`.
    steps: VecDeque<ClientStep>,
}

impl ClientLeg {
    /// A leg at the begin of a connection.
    pub(super) fn new(context: &SessionContext) -> Self {
        let limits = &context.limits;
        Self {
            framer: Framer::new(FrameLimits {
                line_bytes_max: limits.command_line_bytes_max,
                // Of no matter where a protocol's commands are lines.
                literal_bytes_max: limits.literal_bytes_max,
            }),
            is_at_eof: false,
            offer: context.offer(),
            failures_left: limits.auth_failures_max,
            bad_commands_left: limits.bad_commands_max,
            commands_left: limits.pre_auth_commands_max,
            replies: BytesMut::new(),
            steps: VecDeque::new(),
        }
    }

    /// The same for a protocol some of whose commands may be longer than the others.
    pub(super) fn with_longer(context: &SessionContext, longer: Longer) -> Self {
        let leg = Self::new(context);
        Self {
            framer: leg.framer.with_longer(longer),
            ..leg
        }
    }

    /// A reply, or a piece of one, that comes behind all that was said and done.
    pub(super) fn say(&mut self, reply: &str) {
        self.replies.extend_from_slice(reply.as_bytes());
    }

    /// A step that comes behind all that was said.
    pub(super) fn step(&mut self, step: ClientStep) {
        let said = self.flush();
        self.steps.extend(said);
        self.steps.push_back(step);
    }

    /// The step of a login whose credentials are refused at sight. Gives what the client is to hear of it.
    pub(super) fn refuse_unfit(&mut self, unfit: UnfitCredentials) -> FaultKind {
        let UnfitCredentials { user, fault } = unfit;
        let kind = fault.kind.clone();
        self.step(ClientStep::LoginRefused { user, fault: *fault });
        kind
    }

    /// The step of a login that is refused for want of TLS. Gives what the client is to hear of it.
    pub(super) fn refuse_in_clear(&mut self) -> FaultKind {
        self.refuse_unfit(UnfitCredentials {
            user: None,
            fault: Box::new(Fault::new(FaultKind::PlaintextRefused)),
        })
    }

    /// A login was refused. True if it was the last that is put up with.
    pub(super) fn count_failure(&mut self) -> bool {
        self.failures_left = self.failures_left.saturating_sub(1);
        self.failures_left == 0
    }

    /// A command was bad. True if it was the last that is put up with.
    pub(super) fn count_bad_command(&mut self) -> bool {
        self.bad_commands_left = self.bad_commands_left.saturating_sub(1);
        self.bad_commands_left == 0
    }

    /// A command was fine, and brought the client no nearer to its login. True if it was the last that is put up with:
    /// otherwise a stranger could keep the proxy busy for as long as a login may take.
    pub(super) fn count_command(&mut self) -> bool {
        self.commands_left = self.commands_left.saturating_sub(1);
        self.commands_left == 0
    }

    /// There is nothing to read, and so there never will be if the client's stream has ended: then the session ends too.
    /// False if there is something to wait for.
    pub(super) fn end_at_eof(&mut self) -> bool {
        if self.is_at_eof {
            self.step(ClientStep::End(Fault::with_detail(
                FaultKind::ClientGone,
                "end of the client's stream before its login",
            )));
        }
        self.is_at_eof
    }

    /// Whether something is to be done before the client's next command is looked at. Replies go out in pieces, however many
    /// commands a client pipelines.
    pub(super) fn is_due(&self) -> bool {
        !self.steps.is_empty() || self.replies.len() >= REPLY_BYTES
    }

    /// The next thing to do: the steps, then what was said behind them.
    pub(super) fn pop_step(&mut self) -> Option<ClientStep> {
        self.steps.pop_front().or_else(|| self.flush())
    }

    /// The login succeeded: `reply` says so, behind the upstream's own words `for_client`.
    pub(super) fn into_accepted(self, for_client: &[u8], reply: &str) -> Accepted {
        Accepted {
            to_client: [for_client, reply.as_bytes()].concat().into(),
            to_upstream: self.framer.into_rest(),
        }
    }

    fn flush(&mut self) -> Option<ClientStep> {
        (!self.replies.is_empty()).then(|| ClientStep::Send(self.replies.split().freeze()))
    }
}

/// Replies are written once they are this many bytes, even if more commands wait.
const REPLY_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::context;

    fn steps(leg: &mut ClientLeg) -> Vec<String> {
        std::iter::from_fn(|| leg.pop_step())
            .map(|step| match step {
                ClientStep::Send(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
                ClientStep::Secure => "(secure)".to_owned(),
                ClientStep::LoginRefused { fault, .. } => format!("(refused: {:?})", fault.kind),
                ClientStep::End(fault) => format!("(end: {:?})", fault.kind),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn what_is_said_and_done_comes_out_in_its_order() {
        let mut leg = ClientLeg::new(&context());
        leg.say("one ");
        leg.say("reply");
        leg.step(ClientStep::Secure);
        assert_eq!(leg.refuse_in_clear(), FaultKind::PlaintextRefused);
        leg.say("behind both");
        let expected = ["one reply", "(secure)", "(refused: PlaintextRefused)", "behind both"];
        assert_eq!(steps(&mut leg), expected);
        assert_eq!(steps(&mut leg), [""; 0]);
    }

    #[test]
    fn replies_are_due_once_they_are_many_and_a_step_is_due_at_once() {
        let mut leg = ClientLeg::new(&context());
        leg.say(&"r".repeat(REPLY_BYTES - 1));
        assert!(!leg.is_due());
        leg.say("r");
        assert!(leg.is_due());
        leg.pop_step();
        assert!(!leg.is_due());
        leg.step(ClientStep::Secure);
        assert!(leg.is_due());
    }

    #[test]
    fn the_last_that_is_put_up_with_is_told() {
        let context = context();
        let mut leg = ClientLeg::new(&context);
        let limits = &context.limits;
        let failures = (0..limits.auth_failures_max).filter(|_| leg.count_failure()).count();
        let bad_commands = (0..limits.bad_commands_max).filter(|_| leg.count_bad_command()).count();
        let commands = (0..limits.pre_auth_commands_max)
            .filter(|_| leg.count_command())
            .count();
        assert_eq!((failures, bad_commands, commands), (1, 1, 1));
    }

    #[test]
    fn a_pause_ends_the_session_only_where_the_stream_has_ended() {
        let mut leg = ClientLeg::new(&context());
        assert!(!leg.end_at_eof());
        assert_eq!(steps(&mut leg), [""; 0]);
        leg.is_at_eof = true;
        assert!(leg.end_at_eof());
        assert_eq!(steps(&mut leg), ["(end: ClientGone)"]);
    }
}
