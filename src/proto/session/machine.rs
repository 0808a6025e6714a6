//! The machine: hands each input to the state it is in, and takes steps until there is nothing to do.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::phases::{Greeting, State};
use super::{Action, Goodbye, Input, Phase, Report, SessionContext, Transition};
use crate::limits::PIPELINED_BYTES_MAX;
use crate::proto::dialogue::{ClientDialogue, DialUpstream};
use crate::proto::{Dialogues, Protocol};

/// One client session. See the module for how it is driven.
pub struct Session {
    core: Core,
    pub(super) state: State,
}

/// What every state may use.
pub(super) struct Core {
    pub(super) protocol: Protocol,
    pub(super) login_timeout: Duration,
    pub(super) upstream: Box<dyn DialUpstream + Send>,
    /// The time of the last input.
    pub(super) now: Instant,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session whose client was accepted at `now`.
    pub fn new(context: &SessionContext, now: Instant) -> Self {
        Self::with_dialogues(context, crate::proto::dialogues(context), now)
    }

    /// A session whose client was accepted at `now`, on these dialogues.
    pub fn with_dialogues(context: &SessionContext, dialogues: Dialogues, now: Instant) -> Self {
        let Dialogues { client, upstream } = dialogues;
        Self {
            core: Core {
                protocol: context.protocol,
                login_timeout: context.limits.login_timeout,
                upstream,
                now,
                actions: VecDeque::new(),
            },
            state: State::Greeting(Greeting::new(client, now + context.limits.pre_auth_timeout)),
        }
    }

    /// Takes an input at `now`.
    pub fn handle(&mut self, input: Input<'_>, now: Instant) -> Transition {
        self.core.now = now;
        if let Input::DeadlinePassed = input
            && self.deadline().is_none_or(|deadline| now < deadline)
        {
            return Transition::NoOp;
        }
        let (state, transition) = match std::mem::replace(&mut self.state, State::Closed) {
            State::Greeting(phase) => phase.handle(input, &mut self.core),
            State::Auth(phase) => phase.handle(input, &mut self.core),
            State::Upgrading(phase) => phase.handle(input, &mut self.core),
            State::Checking(phase) => phase.handle(input, &mut self.core),
            State::Connecting(phase) => phase.handle(input, &mut self.core),
            State::Securing(phase) => phase.handle(input, &mut self.core),
            State::LoggingIn(phase) => phase.handle(input, &mut self.core),
            State::Relay => (State::Relay, in_relay(&input)),
            State::Closed => (State::Closed, Transition::NoOp),
        };
        self.state = state;
        transition
    }

    /// The next thing to do; `None` until the next input.
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.core.actions.pop_front() {
                return Some(action);
            }
            self.state = match std::mem::replace(&mut self.state, State::Closed) {
                State::Auth(phase) => phase.advance(&mut self.core),
                State::LoggingIn(phase) => phase.advance(&mut self.core),
                state => state,
            };
            if self.core.actions.is_empty() {
                return None;
            }
        }
    }

    /// When to wake the session. Holds once `poll_action` has returned `None`, as all that follows.
    pub fn deadline(&self) -> Option<Instant> {
        self.state.deadline()
    }

    /// Whether to read from the client. While commands are read, the caps on a command bound what is kept of them; while they
    /// wait for a login's outcome, this does.
    pub fn wants_client_bytes(&self) -> bool {
        if matches!(self.state, State::Upgrading(_)) {
            // The handshake owns the stream.
            return false;
        }
        let is_reading = matches!(self.state, State::Auth(_));
        self.state
            .client()
            .is_some_and(|client| !client.is_at_eof() && (is_reading || client.buffered() < PIPELINED_BYTES_MAX))
    }

    /// Bytes of the client that are kept: at most a command, or [`PIPELINED_BYTES_MAX`] and one read.
    pub fn buffered(&self) -> usize {
        self.state.client().map_or(0, ClientDialogue::buffered)
    }

    /// Where the session is.
    pub fn phase(&self) -> Phase {
        self.state.phase()
    }

    /// Where the session is, in the words of a time-out's message: "waiting for the upstream's answer to AUTHENTICATE".
    pub fn state_name(&self) -> &'static str {
        self.state.name()
    }
}

/// Shows neither what a client has sent nor what an upstream is told.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("phase", &self.phase())
            .field("state", &self.state_name())
            .finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn report(&mut self, report: Report) {
        self.act(Action::Report(report));
    }

    /// Says goodbye and ends the session.
    pub(super) fn say_goodbye(&mut self, goodbye: Goodbye) -> State {
        self.say_farewell(crate::proto::goodbye(self.protocol, goodbye));
        self.close()
    }

    /// Says the last words, where the protocol has any.
    pub(super) fn say_farewell(&mut self, words: Bytes) {
        if !words.is_empty() {
            self.act(Action::SendClient(words));
        }
    }

    pub(super) fn close(&mut self) -> State {
        self.act(Action::Close);
        State::Closed
    }
}

/// The relay has taken over: bytes that are still fed here would be lost to it.
fn in_relay(input: &Input<'_>) -> Transition {
    match input {
        Input::DeadlinePassed | Input::Goodbye(_) => Transition::NoOp,
        _ => Transition::Invalid,
    }
}
