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
//! Each state is a struct that is consumed by the response that it waits for; those from Invitation on are in
//! `login`. The credential is in those up to Capability;
//! from there on only its encoded form is left, in Invitation, until the upstream has asked for it, and in Answer the
//! beginnings that are needed to recognise an echo. All of it is wiped when dropped.
//!
//! **How it fails.** `* BYE`, the end of the stream, a malformed or over-long response and a STARTTLS that was tampered with
//! are [`FaultKind::Unavailable`](crate::fault::FaultKind::Unavailable); a NO or BAD to the login is judged by
//! `refusal`. After a failure nothing more is sent.
//!
//! **What is believed.** Nothing that was said in clear outlives STARTTLS: it is sent without asking for capabilities first
//! (every IMAP server on a clear port has it, RFC 9051 §11.1, and a list in clear proves nothing either way), bytes behind
//! its OK are an injection, and what came before is forgotten. On a leg that stays in clear only the capability list after
//! login is passed on.

use std::fmt;

use super::login::{AwaitAnswer, AwaitInvitation, AwaitSettlement, Login, is_untagged, listed, pass_on_untagged};
use super::presentation::{Presentation, identify};
use super::promise::NAMES;
use super::response::{Capabilities, Condition, Response, ResponseFramer, Status, without_line_end};
use crate::fault::{Fault, LoginStep, UpstreamWords};
use crate::limits::UPSTREAM_ALERTS_MAX;
use crate::proto::dialogue::{ClientIdentity, DialUpstream, UpstreamDialogue, UpstreamStep};
use crate::proto::outbox::{Outbox, closed};
use crate::proto::presentation::SecretBytes;
use crate::proto::promise::{Moment, named};
use crate::proto::redaction::Redaction;
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
        let mut leg = Leg {
            passes_on: ready.security != UpstreamSecurity::Clear,
            // Its first tag went with the STARTTLS.
            tags: u32::from(ready.security == UpstreamSecurity::Upgraded),
            ..Leg::default()
        };
        let plan = Plan { ready, identity };
        Self {
            responses: ResponseFramer::default(),
            state: match plan.ready.security {
                UpstreamSecurity::Upgraded => AwaitHandshake { plan }.on_secured(&mut leg),
                _ => State::Greeting(AwaitGreeting { plan }),
            },
            leg,
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

    /// What the upstream has said for the mailbox's owner goes with whatever the login fails for.
    fn fail(&mut self, fault: Fault) {
        self.state = State::Failed;
        let alerts = std::mem::take(&mut self.leg.alerts);
        self.leg.out.fail(fault.after_alerts(alerts));
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
            self.fail(closed(self.state.name()));
        }
    }

    fn handle_secured(&mut self) {
        self.step(State::on_secured);
    }

    fn poll_step(&mut self) -> Option<UpstreamStep> {
        self.leg.out.poll(|| self.responses.take_surplus())
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
pub(super) struct Leg {
    pub(super) out: Outbox,
    for_client: Vec<u8>,
    /// What of that is for the mailbox's owner even where the login fails.
    alerts: Vec<String>,
    /// Whether untagged data and alerts from around the login reach the client: only inside TLS (INTERFACE §5).
    pub(super) passes_on: bool,
    tags: u32,
}

impl Leg {
    fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("P{}", self.tags)
    }

    /// Sends CAPABILITY and returns its tag.
    pub(super) fn ask_for_capabilities(&mut self) -> String {
        let tag = self.next_tag();
        self.out.send(format!("{tag} CAPABILITY\r\n"));
        tag
    }

    /// Keeps a response for the client, as it is but for its line end.
    pub(super) fn pass_on(&mut self, response: &[u8]) {
        if self.passes_on {
            self.for_client.extend_from_slice(without_line_end(response));
            self.for_client.extend_from_slice(b"\r\n");
        }
    }

    /// Keeps an untagged response for the client. If it is an alert or a warning (RFC 9051 §7.1, Gmail's `WEBALERT`), the
    /// client hears it also where the login fails: it may be all that says how to mend that.
    pub(super) fn pass_on_response(&mut self, response: &Response<'_>, bytes: &[u8]) {
        self.pass_on(bytes);
        if self.passes_on
            && self.alerts.len() < UPSTREAM_ALERTS_MAX
            && let Response::Untagged(condition) = response
            && condition.is_for_owner()
        {
            // An echo of the credential has not come so far.
            let said = Redaction::default().clean_line(without_line_end(bytes));
            self.alerts.push(said.trim_start_matches("* ").to_owned());
        }
    }

    /// Keeps a capability list of the open mailbox for the client, in whatever form it came.
    pub(super) fn pass_on_capabilities(&mut self, list: &[u8]) {
        self.out.learned(Moment::AfterLogin, promisable(Capabilities(list)));
        self.for_client.extend_from_slice(b"* CAPABILITY ");
        self.for_client.extend_from_slice(list);
        self.for_client.extend_from_slice(b"\r\n");
    }

    pub(super) fn logged_in(&mut self) -> State {
        self.out.logged_in(std::mem::take(&mut self.for_client).into());
        State::LoggedIn
    }
}

/// The states, named by what they wait for.
pub(super) enum State {
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

    fn step(&self) -> LoginStep {
        match self {
            Self::Greeting(_) => LoginStep::Greeting,
            Self::StartTls(_) | Self::Handshake(_) => LoginStep::StartTls,
            Self::Capability(_) => LoginStep::Capabilities,
            _ => LoginStep::Login,
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
            code,
            text,
        }) = &response
        {
            let said = self.clean(text);
            let fault = Fault::unavailable(format_args!("upstream says BYE, {}: {said}", self.name()));
            let code = code.map(|code| self.clean(code.name).to_ascii_uppercase());
            return Err(fault.for_words(UpstreamWords::new(self.step(), code, said)));
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
pub(super) struct Plan {
    ready: UpstreamReady,
    identity: Option<ClientIdentity>,
}

impl Plan {
    /// Sends ID and AUTHENTICATE or LOGIN, all that may be said without waiting in one write. Some providers insist on ID,
    /// and it is answered in order, so that it costs no round trip of its own.
    fn present(self, offered: Capabilities<'_>, leg: &mut Leg) -> Result<State, Fault> {
        leg.out.learned(Moment::BeforeLogin, promisable(offered));
        let mut write = Vec::new();
        let id = offered.offers("ID").then(|| leg.next_tag());
        if let Some(id) = &id {
            write.extend_from_slice(identify(id, self.identity.as_ref(), self.ready.forwarded.as_ref()).as_bytes());
        }
        let tag = leg.next_tag();
        let presentation = Presentation::compose(&tag, &self.ready, offered)?;
        leg.out
            .send(SecretBytes::new([&write[..], &presentation.opening].concat()));
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
pub(super) struct AwaitGreeting {
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
            Status::No | Status::Bad | Status::Bye => {
                let words = words_of(LoginStep::Greeting, greeting);
                return Err(unexpected(bytes, &State::Greeting(self)).for_words(words));
            }
        }
        if self.plan.ready.security == UpstreamSecurity::StartTls {
            let tag = leg.next_tag();
            leg.out.send(format!("{tag} STARTTLS\r\n"));
            return Ok(State::StartTls(AwaitStartTls { plan: self.plan, tag }));
        }
        if greeting.is_alert() {
            leg.pass_on_response(response, bytes);
        }
        match greeting.capabilities() {
            Some(offered) => self.plan.present(offered, leg),
            None => Ok(State::Capability(AwaitCapability::ask(self.plan, leg))),
        }
    }
}

/// Waits for the answer to STARTTLS. Whatever else is said in clear is ignored.
pub(super) struct AwaitStartTls {
    plan: Plan,
    tag: String,
}

impl AwaitStartTls {
    fn on_response(self, response: &Response<'_>, bytes: &[u8], leg: &mut Leg) -> Result<State, Fault> {
        match response {
            Response::Tagged(tag, condition) if *tag == self.tag.as_bytes() => match condition.status {
                Status::Ok => {
                    leg.out.secure();
                    Ok(State::Handshake(AwaitHandshake { plan: self.plan }))
                }
                _ => {
                    let words = words_of(LoginStep::StartTls, condition);
                    Err(Fault::unavailable(format_args!("upstream refuses STARTTLS: {}", words.text)).for_words(words))
                }
            },
            response if is_untagged(response) => Ok(State::StartTls(self)),
            _ => Err(unexpected(bytes, &State::StartTls(self))),
        }
    }
}

/// Waits for the TLS handshake.
pub(super) struct AwaitHandshake {
    plan: Plan,
}

impl AwaitHandshake {
    /// RFC 9051 §6.2.1: what was learnt of capabilities before TLS is to be discarded.
    fn on_secured(self, leg: &mut Leg) -> State {
        State::Capability(AwaitCapability::ask(self.plan, leg))
    }
}

/// Waits for the capabilities before login.
pub(super) struct AwaitCapability {
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
                        let fault = Fault::unavailable(format_args!("upstream gives no capabilities: {said}"));
                        Err(fault.for_words(words_of(LoginStep::Capabilities, condition)))
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

/// What of a list clients may be promised.
pub(super) fn promisable(list: Capabilities<'_>) -> Vec<String> {
    named(&NAMES, |name| list.offers(name))
}

/// The fault of a response that the state has no use for.
pub(super) fn unexpected(bytes: &[u8], state: &State) -> Fault {
    let said = state.clean(without_line_end(bytes));
    Fault::unavailable(format_args!(
        "upstream sent an unexpected response, {}: {said}",
        state.name()
    ))
}

/// What the upstream says in a `condition` before it has been sent anything secret.
fn words_of(step: LoginStep, condition: &Condition<'_>) -> UpstreamWords {
    let clean = |text| Redaction::default().clean(text);
    let code = condition.code.map(|code| clean(code.name).to_ascii_uppercase());
    UpstreamWords::new(step, code, clean(condition.text))
}

/// CVE-2011-0411's class, from the other side: what an attacker put behind the OK would be taken for the upstream's word.
fn injected() -> Fault {
    Fault::unavailable("upstream sent data in clear behind its OK to STARTTLS: a command injection, refused")
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
