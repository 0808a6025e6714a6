//! The upstream leg of an IMAP login: [`ImapUpstream`], from the greeting to the capability list of the open mailbox.
//!
//! ```text
//! Greeting ──(StartTls)──> StartTls ──> Handshake ─┐
//!    ├─(no list volunteered)───────────────────────┴> Capability ─┐
//!    └─(list in the greeting)─────────────────────────────────────┴─> Invitation <─┐ once for each `+` awaited
//!                                                                        │  └──────┘
//!                                        Settlement <──(OK, list missing)── Answer <┴─> Answer, once: the challenge
//!                                            └────────> LoggedIn <───────────┘
//! ```
//!
//! Each state is a struct that is consumed by the response that it waits for. The credential is in those up to Capability;
//! from there on only its encoded form is left, in Invitation, until the upstream has asked for it, and in Answer the
//! beginnings that are needed to recognise an echo. All of it is wiped when dropped.
//!
//! **How it fails.** `* BYE`, the end of the stream, a malformed or over-long response and a STARTTLS that was tampered with
//! are [`FaultKind::Unavailable`](crate::fault::FaultKind::Unavailable); a NO or BAD to the login is judged by
//! [`refusal`](super::refusal). After a failure nothing more is sent.
//!
//! **What is believed.** Nothing that was said in clear outlives STARTTLS: it is sent without asking for capabilities first
//! (every IMAP server on a clear port has it, RFC 9051 §11.1, and a list in clear proves nothing either way), bytes behind
//! its OK are an injection, and what came before is forgotten. On a leg that stays in clear only the capability list after
//! login is passed on.

use std::collections::VecDeque;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::presentation::{Presentation, SecretBytes, identify, name};
use super::redaction::Redaction;
use super::refusal::refusal;
use super::response::{Capabilities, Condition, Response, ResponseFramer, Status, without_line_end};
use crate::fault::Fault;
use crate::proto::Mechanism;
use crate::proto::dialogue::{ClientIdentity, DialUpstream, UpstreamDialogue, UpstreamGreeted, UpstreamStep};
use crate::proto::sasl::upstream::{OAUTHBEARER_CHALLENGE_ANSWER, XOAUTH2_CHALLENGE_ANSWER};
use crate::proto::session::{UpstreamReady, UpstreamSecurity};

/// Makes [`ImapUpstream`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct DialImap;

impl DialUpstream for DialImap {
    fn dialogue(&self, ready: UpstreamReady, identity: Option<ClientIdentity>) -> Box<dyn UpstreamDialogue> {
        Box::new(ImapUpstream::new(ready, identity))
    }
}

/// One login on one upstream leg. See the module for its states and failures.
pub struct ImapUpstream {
    responses: ResponseFramer,
    state: State,
    leg: Leg,
}

impl ImapUpstream {
    /// A login with what `ready` holds, for a client that calls itself `identity`.
    pub fn new(ready: UpstreamReady, identity: Option<ClientIdentity>) -> Self {
        let passes_on = ready.security != UpstreamSecurity::Clear;
        Self {
            responses: ResponseFramer::default(),
            state: State::Greeting(AwaitGreeting {
                plan: Plan { ready, identity },
            }),
            leg: Leg {
                passes_on,
                ..Leg::default()
            },
        }
    }

    /// Handles complete responses until there is none, or until what follows is no longer the login's.
    fn handle_responses(&mut self) {
        while self.state.takes_responses() {
            match self.responses.next_response() {
                Ok(Some(response)) => self.step(|state, leg| state.on_response(&response, leg)),
                Ok(None) => return,
                Err(error) => {
                    let place = self.state.name();
                    self.fail(Fault::unavailable(format_args!("{error}, {place}")));
                }
            }
        }
        if matches!(self.state, State::Handshake(_)) && !self.responses.is_empty() {
            self.fail(injected());
        }
    }

    /// Replaces the state by what `transition` makes of it.
    fn step(&mut self, transition: impl FnOnce(State, &mut Leg) -> Result<State, Fault>) {
        let state = std::mem::replace(&mut self.state, State::Failed);
        match transition(state, &mut self.leg) {
            Ok(next) => self.state = next,
            Err(fault) => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.state = State::Failed;
        // IMPORTANT: a write that nobody has taken yet must not go out any more: it could be a credential behind a fault
        // that came in the same piece.
        self.leg
            .steps
            .retain(|step| matches!(step, UpstreamStep::Challenged(_)));
        self.leg.steps.push_back(UpstreamStep::Failed(fault));
    }
}

impl UpstreamDialogue for ImapUpstream {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Failed) {
            self.responses.push(bytes);
            self.handle_responses();
        }
    }

    fn handle_eof(&mut self) {
        if !matches!(self.state, State::LoggedIn | State::Failed) {
            let place = self.state.name();
            self.fail(Fault::unavailable(format_args!(
                "upstream closed the connection, {place}"
            )));
        }
    }

    fn handle_secured(&mut self) {
        self.step(State::on_secured);
    }

    fn poll_step(&mut self) -> Option<UpstreamStep> {
        let mut step = self.leg.steps.pop_front()?;
        if let UpstreamStep::LoggedIn(greeted) = &mut step {
            greeted.surplus = self.responses.take_surplus();
        }
        Some(step)
    }

    fn state_name(&self) -> &'static str {
        self.state.name()
    }
}

impl fmt::Debug for ImapUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUpstream")
            .field("state", &self.state.name())
            .finish_non_exhaustive()
    }
}

/// What every state may use: the way out to the upstream, and towards the client.
#[derive(Default)]
struct Leg {
    steps: VecDeque<UpstreamStep>,
    for_client: Vec<u8>,
    /// Whether untagged data and alerts from around the login reach the client: only inside TLS (INTERFACE §5).
    passes_on: bool,
    tags: u32,
}

impl Leg {
    fn send(&mut self, bytes: impl AsRef<[u8]> + Send + 'static) {
        self.steps.push_back(UpstreamStep::Send(Bytes::from_owner(bytes)));
    }

    fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("P{}", self.tags)
    }

    /// Sends CAPABILITY and returns its tag.
    fn ask_for_capabilities(&mut self) -> String {
        let tag = self.next_tag();
        self.send(format!("{tag} CAPABILITY\r\n").into_bytes());
        tag
    }

    /// Keeps a response for the client, as it is but for its line end.
    fn pass_on(&mut self, response: &[u8]) {
        if self.passes_on {
            self.for_client.extend_from_slice(without_line_end(response));
            self.for_client.extend_from_slice(b"\r\n");
        }
    }

    /// Keeps a capability list of the open mailbox for the client, in whatever form it came.
    fn pass_on_capabilities(&mut self, list: &[u8]) {
        self.for_client.extend_from_slice(b"* CAPABILITY ");
        self.for_client.extend_from_slice(list);
        self.for_client.extend_from_slice(b"\r\n");
    }

    fn logged_in(&mut self) -> State {
        self.steps.push_back(UpstreamStep::LoggedIn(UpstreamGreeted {
            for_client: std::mem::take(&mut self.for_client).into(),
            surplus: Bytes::new(),
        }));
        State::LoggedIn
    }
}

/// The states, named by what they wait for.
enum State {
    Greeting(AwaitGreeting),
    StartTls(AwaitStartTls),
    Handshake(AwaitHandshake),
    Capability(AwaitCapability),
    Invitation(AwaitInvitation),
    Answer(AwaitAnswer),
    Settlement(AwaitSettlement),
    LoggedIn,
    Failed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "waiting for the upstream's greeting",
            Self::StartTls(_) => "waiting for the upstream's answer to STARTTLS",
            Self::Handshake(_) => "waiting for the TLS handshake with the upstream",
            Self::Capability(_) => "waiting for the upstream's answer to CAPABILITY",
            Self::Invitation(waiting) => match waiting.login.mechanism {
                Some(_) => "waiting for the upstream's invitation to go on with AUTHENTICATE",
                None => "waiting for the upstream's invitation to go on with LOGIN",
            },
            Self::Answer(waiting) => match waiting.login.mechanism {
                Some(_) => "waiting for the upstream's answer to AUTHENTICATE",
                None => "waiting for the upstream's answer to LOGIN",
            },
            Self::Settlement(_) => "waiting for the upstream's capabilities after login",
            Self::LoggedIn => "logged in to the upstream",
            Self::Failed => "the upstream login has failed",
        }
    }

    fn takes_responses(&self) -> bool {
        !matches!(self, Self::Handshake(_) | Self::LoggedIn | Self::Failed)
    }

    fn on_secured(self, leg: &mut Leg) -> Result<Self, Fault> {
        match self {
            Self::Handshake(waiting) => Ok(waiting.on_secured(leg)),
            other => Ok(other),
        }
    }

    fn on_response(self, bytes: &[u8], leg: &mut Leg) -> Result<Self, Fault> {
        let Some(response) = Response::parse(bytes) else {
            return Err(unexpected(bytes, &self));
        };
        if let Response::Untagged(Condition {
            status: Status::Bye,
            text,
            ..
        }) = &response
        {
            let said = self.clean(text);
            return Err(Fault::unavailable(format_args!(
                "upstream says BYE, {}: {said}",
                self.name()
            )));
        }
        if self.redaction().is_some_and(|redaction| redaction.is_in(bytes)) && is_untagged(&response) {
            // An echo of the credential is for nobody.
            return Ok(self);
        }
        match self {
            Self::Greeting(waiting) => waiting.on_response(&response, bytes, leg),
            Self::StartTls(waiting) => waiting.on_response(&response, bytes, leg),
            Self::Capability(waiting) => waiting.on_response(&response, bytes, leg),
            Self::Invitation(waiting) => waiting.on_response(&response, bytes, leg),
            Self::Answer(waiting) => waiting.on_response(&response, bytes, leg),
            Self::Settlement(waiting) => waiting.on_response(&response, bytes, leg),
            Self::Handshake(_) | Self::LoggedIn | Self::Failed => Ok(self),
        }
    }

    fn redaction(&self) -> Option<&Redaction> {
        match self {
            Self::Invitation(waiting) => Some(&waiting.login.redaction),
            Self::Answer(waiting) => Some(&waiting.login.redaction),
            _ => None,
        }
    }

    fn clean(&self, text: &[u8]) -> String {
        self.redaction().unwrap_or(&Redaction::default()).clean(text)
    }
}

/// What the login is to be, until it has been put into words.
struct Plan {
    ready: UpstreamReady,
    identity: Option<ClientIdentity>,
}

impl Plan {
    /// Sends ID and AUTHENTICATE or LOGIN, all that may be said without waiting in one write. Some providers insist on ID,
    /// and it is answered in order, so that it costs no round trip of its own.
    fn present(self, offered: Capabilities<'_>, leg: &mut Leg) -> Result<State, Fault> {
        let mut write = Vec::new();
        let id = offered.offers("ID").then(|| leg.next_tag());
        if let Some(id) = &id {
            write.extend_from_slice(identify(id, self.identity.as_ref()).as_bytes());
        }
        let tag = leg.next_tag();
        let presentation = Presentation::compose(&tag, &self.ready, offered)?;
        leg.send(SecretBytes::new([&write[..], &presentation.opening].concat()));
        let login = Login {
            tag,
            id,
            mechanism: presentation.mechanism,
            redaction: presentation.redaction,
            capabilities: None,
        };
        Ok(login.await_next(presentation.rest))
    }
}

/// Waits for the greeting.
struct AwaitGreeting {
    plan: Plan,
}

impl AwaitGreeting {
    fn on_response(self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        let Response::Untagged(greeting) = response else {
            return Err(unexpected(bytes, &State::Greeting(self)));
        };
        match greeting.status {
            Status::Ok => {}
            // Nobody's credential was checked, so it is not known whose mailbox this is; and in clear it is how an attacker
            // keeps STARTTLS from being used (RFC 9051 §11.1).
            Status::Preauth => return Err(Fault::unavailable("upstream greets with PREAUTH, which is refused")),
            Status::No | Status::Bad | Status::Bye => return Err(unexpected(bytes, &State::Greeting(self))),
        }
        if self.plan.ready.security == UpstreamSecurity::StartTls {
            let tag = leg.next_tag();
            leg.send(format!("{tag} STARTTLS\r\n").into_bytes());
            return Ok(State::StartTls(AwaitStartTls { plan: self.plan, tag }));
        }
        if greeting.is_alert() {
            leg.pass_on(bytes);
        }
        match greeting.capabilities() {
            Some(offered) => self.plan.present(offered, leg),
            None => Ok(State::Capability(AwaitCapability::ask(self.plan, leg))),
        }
    }
}

/// Waits for the answer to STARTTLS. Whatever else is said in clear is ignored.
struct AwaitStartTls {
    plan: Plan,
    tag: String,
}

impl AwaitStartTls {
    fn on_response(self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Tagged(tag, condition) if *tag == self.tag.as_bytes() => match condition.status {
                Status::Ok => {
                    leg.steps.push_back(UpstreamStep::Secure);
                    Ok(State::Handshake(AwaitHandshake { plan: self.plan }))
                }
                _ => {
                    let said = Redaction::default().clean(condition.text);
                    Err(Fault::unavailable(format_args!("upstream refuses STARTTLS: {said}")))
                }
            },
            response if is_untagged(response) => Ok(State::StartTls(self)),
            _ => Err(unexpected(bytes, &State::StartTls(self))),
        }
    }
}

/// Waits for the TLS handshake.
struct AwaitHandshake {
    plan: Plan,
}

impl AwaitHandshake {
    /// RFC 9051 §6.2.1: what was learnt of capabilities before TLS is to be discarded.
    fn on_secured(self, leg: &mut Leg) -> State {
        State::Capability(AwaitCapability::ask(self.plan, leg))
    }
}

/// Waits for the capabilities before login.
struct AwaitCapability {
    plan: Plan,
    tag: String,
    list: Option<Vec<u8>>,
}

impl AwaitCapability {
    fn ask(plan: Plan, leg: &mut Leg) -> Self {
        Self {
            plan,
            tag: leg.ask_for_capabilities(),
            list: None,
        }
    }

    fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Tagged(tag, condition) if *tag == self.tag.as_bytes() => {
                let list = condition.capabilities().map(|list| list.0.to_vec()).or(self.list);
                match list {
                    Some(list) if condition.status == Status::Ok => self.plan.present(Capabilities(&list), leg),
                    _ => {
                        let said = Redaction::default().clean(without_line_end(bytes));
                        Err(Fault::unavailable(format_args!(
                            "upstream gives no capabilities: {said}"
                        )))
                    }
                }
            }
            response if is_untagged(response) => {
                match listed(response) {
                    Some(list) => self.list = Some(list.0.to_vec()),
                    None => pass_on_untagged(response, bytes, leg),
                }
                Ok(State::Capability(self))
            }
            _ => Err(unexpected(bytes, &State::Capability(self))),
        }
    }
}

/// A login that was begun: which answers belong to it, and what it has heard so far.
struct Login {
    tag: String,
    /// The tag of an ID that has not been answered yet.
    id: Option<String>,
    /// `None` for the LOGIN command.
    mechanism: Option<Mechanism>,
    redaction: Redaction,
    /// The latest capability list that came since the upstream had the credential.
    capabilities: Option<Vec<u8>>,
}

impl Login {
    /// The state to be in while `rest` is still to be written, one piece for each invitation.
    fn await_next(self, rest: VecDeque<SecretBytes>) -> State {
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
            Some(mechanism) => refusal(condition, &self.redaction, &format!("AUTHENTICATE {}", name(mechanism))),
            None => refusal(condition, &self.redaction, "LOGIN"),
        }
    }
}

/// Waits for a `+`: for a SASL response that could not be sent at once, or for a literal of LOGIN.
struct AwaitInvitation {
    login: Login,
    /// Never empty.
    rest: VecDeque<SecretBytes>,
}

impl AwaitInvitation {
    fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Continuation(_) => {
                if let Some(piece) = self.rest.pop_front() {
                    leg.send(piece);
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
struct AwaitAnswer {
    login: Login,
    challenges: u32,
}

impl AwaitAnswer {
    fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Continuation(challenge) if self.challenges < CHALLENGES_MAX => {
                self.answer_challenge(challenge, leg);
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

    /// The upstream explains a refusal (RFC 7628 §3.2.2) and says NO once that was acknowledged. A mechanism that knows no
    /// such thing is cancelled (RFC 9051 §6.2.2).
    fn answer_challenge(&mut self, challenge: &[u8], leg: &mut Leg) {
        self.challenges += 1;
        let explained = STANDARD
            .decode(challenge.trim_ascii())
            .unwrap_or_else(|_| challenge.to_vec());
        let explained = self.login.redaction.clean(&explained);
        leg.steps.push_back(UpstreamStep::Challenged(explained));
        let answer = match self.login.mechanism {
            Some(Mechanism::XOAuth2) => XOAUTH2_CHALLENGE_ANSWER,
            Some(Mechanism::OAuthBearer) => OAUTHBEARER_CHALLENGE_ANSWER,
            Some(Mechanism::Plain | Mechanism::Login) | None => "*",
        };
        leg.send(format!("{answer}\r\n").into_bytes());
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
struct AwaitSettlement {
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

    fn on_response(mut self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
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
fn listed<'a>(response: &Response<'a>) -> Option<Capabilities<'a>> {
    match response {
        Response::Capability(list) => Some(*list),
        Response::Untagged(condition) => condition.capabilities(),
        _ => None,
    }
}

/// Passes on what an upstream says before the login's OK, except what it says to the proxy: its identity.
fn pass_on_untagged(response: &Response<'_>, bytes: &[u8], leg: &mut Leg) {
    if !matches!(response, Response::Identity) {
        leg.pass_on(bytes);
    }
}

fn is_untagged(response: &Response<'_>) -> bool {
    !matches!(response, Response::Continuation(_) | Response::Tagged(..))
}

fn unexpected(bytes: &[u8], state: &State) -> Fault {
    let said = state.clean(without_line_end(bytes));
    Fault::unavailable(format_args!(
        "upstream sent an unexpected response, {}: {said}",
        state.name()
    ))
}

/// CVE-2011-0411's class, from the other side: what an attacker put behind the OK would be taken for the upstream's word.
fn injected() -> Fault {
    Fault::unavailable("upstream sent data in clear behind its OK to STARTTLS: a command injection, refused")
}

/// One explains the refusal. More would keep a login going for nothing.
const CHALLENGES_MAX: u32 = 1;

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
