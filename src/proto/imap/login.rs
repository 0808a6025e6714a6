//! The states of an upstream login from the credential on: invited, answered, settled.
//!
//! What comes before them, and how they fit together, is in [`upstream`](super::upstream).

use std::collections::VecDeque;

use super::refusal::refusal;
use super::response::{Capabilities, Condition, Response, Status};
use super::upstream::{Leg, State, unexpected};
use crate::fault::Fault;
use crate::proto::Mechanism;
use crate::proto::presentation::SecretBytes;
use crate::proto::redaction::Redaction;

/// A login that was begun: which answers belong to it, and what it has heard so far.
pub(super) struct Login {
    pub(super) tag: String,
    /// The tag of an ID that has not been answered yet.
    pub(super) id: Option<String>,
    /// `None` for the LOGIN command.
    pub(super) mechanism: Option<Mechanism>,
    pub(super) redaction: Redaction,
    /// The latest capability list that came since the upstream had the credential.
    pub(super) capabilities: Option<Vec<u8>>,
}

impl Login {
    /// The state to be in while `rest` is still to be written, one piece for each invitation.
    pub(super) fn await_next(self, rest: VecDeque<SecretBytes>) -> State {
        match rest.is_empty() {
            true => State::Answer(AwaitAnswer {
                login: self,
                challenges: 0,
            }),
            false => State::Invitation(AwaitInvitation { login: self, rest }),
        }
    }

    /// Takes what may come at any time around a login; `false` for what only the state can judge.
    fn takes(&mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> bool {
        match response {
            Response::Tagged(tag, _) if self.id.as_ref().is_some_and(|id| *tag == id.as_bytes()) => {
                // Whether it liked our ID is the upstream's business. A list that came before is one from before the login.
                self.id = None;
                self.capabilities = None;
                true
            }
            response if is_untagged(response) => {
                match listed(response) {
                    Some(list) => self.capabilities = Some(list.0.to_vec()),
                    None => pass_on_untagged(response, bytes, leg),
                }
                true
            }
            _ => false,
        }
    }

    fn is_answered_by(&self, tag: &[u8]) -> bool {
        tag == self.tag.as_bytes()
    }

    fn refused(&self, condition: &Condition<'_>) -> Fault {
        match self.mechanism {
            Some(mechanism) => refusal(
                condition,
                &self.redaction,
                &format!("AUTHENTICATE {mechanism}", mechanism = mechanism.name()),
            ),
            None => refusal(condition, &self.redaction, "LOGIN"),
        }
    }
}

/// Waits for a `+`: for a SASL response that could not be sent at once, or for a literal of LOGIN.
pub(super) struct AwaitInvitation {
    pub(super) login: Login,
    /// Never empty.
    rest: VecDeque<SecretBytes>,
}

impl AwaitInvitation {
    pub(super) fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Continuation(_) => {
                if let Some(piece) = self.rest.pop_front() {
                    leg.out.send(piece);
                }
                // The upstream had not the whole credential when it sent this list.
                self.login.capabilities = None;
                Ok(self.login.await_next(self.rest))
            }
            Response::Tagged(tag, condition) if self.login.is_answered_by(tag) && condition.status != Status::Ok => {
                Err(self.login.refused(condition))
            }
            response if self.login.takes(response, bytes, leg) => Ok(State::Invitation(self)),
            _ => Err(unexpected(bytes, &State::Invitation(self))),
        }
    }
}

/// Waits for the answer to the whole credential, with a challenge before it at the most.
pub(super) struct AwaitAnswer {
    pub(super) login: Login,
    challenges: u32,
}

impl AwaitAnswer {
    pub(super) fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Continuation(challenge) if self.challenges < CHALLENGES_MAX => {
                self.challenges += 1;
                leg.out
                    .answer_challenge(self.login.mechanism, challenge, &self.login.redaction);
                Ok(State::Answer(self))
            }
            Response::Tagged(tag, condition) if self.login.is_answered_by(tag) => match condition.status {
                Status::Ok => Ok(self.on_accepted(condition, leg)),
                _ => Err(self.login.refused(condition)),
            },
            response if self.login.takes(response, bytes, leg) => Ok(State::Answer(self)),
            _ => Err(unexpected(bytes, &State::Answer(self))),
        }
    }

    fn on_accepted(self, condition: &Condition<'_>, leg: &mut Leg) -> State {
        if condition.is_alert() {
            leg.pass_on(&[b"* OK [ALERT] ", condition.text].concat());
        }
        let list = condition.capabilities().map(|list| list.0.to_vec());
        let list = list.or(self.login.capabilities).filter(|list| !list.is_empty());
        // What follows the OK is the open mailbox's own, as it would be in the relay.
        leg.passes_on = true;
        if let Some(list) = &list {
            leg.pass_on_capabilities(list);
        }
        let asked = list.is_none().then(|| leg.ask_for_capabilities());
        AwaitSettlement {
            asked,
            is_listed: list.is_some(),
            id: self.login.id,
        }
        .settle(leg)
    }
}

/// Logged in. Waits for the capability list, where it was not volunteered, and for an answer to ID that is late, so that
/// no answer to a command of ours is left in the stream.
pub(super) struct AwaitSettlement {
    /// The tag of our CAPABILITY.
    asked: Option<String>,
    /// Whether the client is going to have the list.
    is_listed: bool,
    id: Option<String>,
}

impl AwaitSettlement {
    fn settle(self, leg: &mut Leg) -> State {
        match (&self.asked, &self.id) {
            (None, None) => leg.logged_in(),
            _ => State::Settlement(self),
        }
    }

    pub(super) fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        let is_tagged = |awaited: &Option<String>, tag: &[u8]| awaited.as_ref().is_some_and(|it| tag == it.as_bytes());
        match response {
            // An upstream that refuses to give its list has still opened the mailbox; the client will hear what it hears.
            Response::Tagged(tag, condition) if is_tagged(&self.asked, tag) => {
                self.asked = None;
                self.on_list(condition.capabilities(), leg);
            }
            Response::Tagged(tag, _) if is_tagged(&self.id, tag) => self.id = None,
            Response::Identity if self.id.is_some() => {}
            response if is_untagged(response) => match listed(response) {
                None => leg.pass_on(bytes),
                list => self.on_list(list, leg),
            },
            _ => return Err(unexpected(bytes, &State::Settlement(self))),
        }
        Ok(self.settle(leg))
    }

    fn on_list(&mut self, list: Option<Capabilities<'_>>, leg: &mut Leg) {
        if let Some(list) = list.filter(|_| !self.is_listed) {
            leg.pass_on_capabilities(list.0);
            self.is_listed = true;
        }
    }
}

/// The capability list in an untagged response, wherever it stands.
pub(super) fn listed<'a>(response: &Response<'a>) -> Option<Capabilities<'a>> {
    match response {
        Response::Capability(list) => Some(*list),
        Response::Untagged(condition) => condition.capabilities(),
        _ => None,
    }
}

/// Passes on what an upstream says before the login's OK, except what it says to the proxy: its identity.
pub(super) fn pass_on_untagged(response: &Response<'_>, bytes: &[u8], leg: &mut Leg) {
    if !matches!(response, Response::Identity) {
        leg.pass_on_response(response, bytes);
    }
}

pub(super) fn is_untagged(response: &Response<'_>) -> bool {
    !matches!(response, Response::Continuation(_) | Response::Tagged(..))
}

/// One explains the refusal. More would keep a login going for nothing.
const CHALLENGES_MAX: u32 = 1;
