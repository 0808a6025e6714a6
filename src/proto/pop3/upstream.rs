//! The upstream leg of a POP3 login: [`Pop3Upstream`], from the greeting to the `+OK` of the open mailbox.
//!
//! ```text
//! Greeting ──(StartTls)──> Stls ──> Handshake ─┐              XClient, where the upstream is told of clients
//!    │                                         │                 │
//!    └─────────────────────────────────────────┴> Capa ──> List ─┤
//!                                                  └──(-ERR)─────┴─> Invitation <─┐ once for each line awaited
//!                                                                        │  └─────┘
//!                                                LoggedIn <── Answer <───┴─> Answer, once: the challenge
//! ```
//! Each state is a struct that is consumed by the line that it waits for. The credential is in those up to List; from there
//! on only its encoded form is left, in Invitation, until the upstream has asked for it, and in Answer the beginnings that
//! are needed to recognise an echo. All of it is wiped when dropped.
//!
//! **How it fails.** The end of the stream, a malformed or over-long line, a greeting that is none and an STLS that was
//! tampered with are [`FaultKind::Unavailable`](crate::fault::FaultKind::Unavailable); an `-ERR` to the login is judged by
//! `refusal`. After a failure nothing more is sent.
//!
//! **What is believed.** Nothing that was said in clear outlives STLS: it is sent without asking for capabilities first (a
//! list in clear proves nothing either way), and bytes behind its `+OK` are an injection. A timestamp in the greeting, the
//! offer of APOP, is ignored. A list that is refused (Exchange in some states) is no obstacle: the provider's first mechanism
//! is tried then. What the upstream can do after the login the client asks it itself.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use super::presentation::{Presentation, Way};
use super::promise::NAMES;
use super::refusal::{Told, refusal};
use super::response::{Offered, Refused, ReplyFramer, Response};
use crate::fault::{Fault, LoginStep, UpstreamWords};
use crate::proto::dialogue::{ClientIdentity, DialUpstream, UpstreamDialogue, UpstreamStep};
use crate::proto::outbox::{Outbox, closed};
use crate::proto::presentation::SecretBytes;
use crate::proto::promise::{Moment, has};
use crate::proto::redaction::Redaction;
use crate::proto::session::{ForwardedClient, UpstreamReady, UpstreamSecurity};

/// Makes [`Pop3Upstream`]s.
#[derive(Debug, Clone, Copy, Default)]
pub struct DialPop3;

impl DialUpstream for DialPop3 {
    /// POP3 has no word for who the client is.
    fn dialogue(&self, ready: UpstreamReady, _identity: Option<ClientIdentity>) -> Box<dyn UpstreamDialogue> {
        Box::new(Pop3Upstream::new(ready))
    }
}

/// One login on one upstream leg. See the module for its states and failures.
pub struct Pop3Upstream {
    replies: ReplyFramer,
    state: State,
    out: Outbox,
}

impl Pop3Upstream {
    /// A login with what `ready` holds.
    pub fn new(ready: UpstreamReady) -> Self {
        let mut out = Outbox::default();
        Self {
            replies: ReplyFramer::default(),
            state: match ready.security {
                UpstreamSecurity::Upgraded => State::Capa(AwaitCapa::ask(ready, &mut out)),
                _ => State::Greeting(AwaitGreeting { ready }),
            },
            out,
        }
    }

    /// Handles complete lines until there is none, or until what follows is no longer the login's.
    fn handle_lines(&mut self) {
        while self.state.takes_lines() {
            match self.replies.next_line() {
                Ok(Some(line)) => self.step(|state, out| state.on_line(line.as_bytes(), out)),
                Ok(None) => return,
                Err(error) => {
                    let place = self.state.name();
                    self.fail(Fault::unavailable(format_args!("{error}, {place}")));
                }
            }
        }
        if matches!(self.state, State::Handshake(_)) && !self.replies.is_empty() {
            self.fail(injected());
        }
    }

    /// Replaces the state by what `transition` makes of it.
    fn step(&mut self, transition: impl FnOnce(State, &mut Outbox) -> Result<State, Fault>) {
        let state = std::mem::replace(&mut self.state, State::Failed);
        match transition(state, &mut self.out) {
            Ok(next) => self.state = next,
            Err(fault) => self.fail(fault),
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.state = State::Failed;
        self.out.fail(fault);
    }
}

impl UpstreamDialogue for Pop3Upstream {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Failed) {
            self.replies.push(bytes);
            self.handle_lines();
        }
    }

    fn handle_eof(&mut self) {
        if !matches!(self.state, State::LoggedIn | State::Failed) {
            self.fail(closed(self.state.name()));
        }
    }

    fn handle_secured(&mut self) {
        self.step(|state, out| {
            Ok(match state {
                State::Handshake(AwaitHandshake { ready }) => State::Capa(AwaitCapa::ask(ready, out)),
                other => other,
            })
        });
    }

    fn poll_step(&mut self) -> Option<UpstreamStep> {
        self.out.poll(|| self.replies.take_surplus())
    }

    fn state_name(&self) -> &'static str {
        self.state.name()
    }
}

impl fmt::Debug for Pop3Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pop3Upstream")
            .field("state", &self.state.name())
            .finish_non_exhaustive()
    }
}

/// The states, named by what they wait for.
enum State {
    Greeting(AwaitGreeting),
    Stls(AwaitStls),
    Handshake(AwaitHandshake),
    Capa(AwaitCapa),
    List(AwaitList),
    XClient(AwaitXClient),
    Invitation(AwaitInvitation),
    Answer(AwaitAnswer),
    LoggedIn,
    Failed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "waiting for the upstream's greeting",
            Self::Stls(_) => "waiting for the upstream's answer to STLS",
            Self::Handshake(_) => "waiting for the TLS handshake with the upstream",
            Self::Capa(_) => "waiting for the upstream's answer to CAPA",
            Self::List(_) => "waiting for the end of the upstream's capabilities",
            Self::XClient(_) => "waiting for the upstream's answer to XCLIENT",
            Self::Invitation(waiting) => match waiting.login.way {
                Way::Sasl(_) => "waiting for the upstream's invitation to go on with AUTH",
                Way::UserPass => "waiting for the upstream's answer to USER",
            },
            Self::Answer(waiting) => match waiting.login.way {
                Way::Sasl(_) => "waiting for the upstream's answer to AUTH",
                Way::UserPass => "waiting for the upstream's answer to PASS",
            },
            Self::LoggedIn => "logged in to the upstream",
            Self::Failed => "the upstream login has failed",
        }
    }

    fn takes_lines(&self) -> bool {
        !matches!(self, Self::Handshake(_) | Self::LoggedIn | Self::Failed)
    }

    fn on_line(self, line: &[u8], out: &mut Outbox) -> Result<Self, Fault> {
        if let Self::List(waiting) = self {
            return waiting.on_line(line, out);
        }
        let Some(response) = Response::parse(line) else {
            return Err(unexpected(line, &self));
        };
        match self {
            Self::Greeting(waiting) => waiting.on_response(&response, line, out),
            Self::Stls(waiting) => waiting.on_response(&response, line, out),
            Self::Capa(waiting) => waiting.on_response(&response, line, out),
            Self::XClient(waiting) => waiting.on_response(&response, line, out),
            Self::Invitation(waiting) => waiting.on_response(&response, line, out),
            Self::Answer(waiting) => waiting.on_response(&response, line, out),
            Self::List(_) | Self::Handshake(_) | Self::LoggedIn | Self::Failed => Ok(self),
        }
    }

    fn clean(&self, text: &[u8]) -> String {
        match self {
            Self::Invitation(waiting) => waiting.login.redaction.clean(text),
            Self::Answer(waiting) => waiting.login.redaction.clean(text),
            _ => Redaction::default().clean(text),
        }
    }
}

/// Waits for the greeting.
struct AwaitGreeting {
    ready: UpstreamReady,
}

impl AwaitGreeting {
    fn on_response(mut self, response: &Response<'_>, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        match (response, self.ready.security) {
            // Dovecot tells those that it trusts so, and does not list it.
            (Response::Ok(greeting), UpstreamSecurity::Secured | UpstreamSecurity::Clear)
                if greeting.starts_with(b"[XCLIENT]") && self.ready.forwarded.is_some() =>
            {
                let client = self.ready.forwarded.take();
                client.iter().for_each(|client| out.send(xclient(client)));
                Ok(State::XClient(AwaitXClient {
                    ready: self.ready,
                    offered: None,
                }))
            }
            (Response::Ok(_), UpstreamSecurity::StartTls) => {
                out.send("STLS\r\n");
                Ok(State::Stls(AwaitStls { ready: self.ready }))
            }
            (Response::Ok(_), _) => Ok(State::Capa(AwaitCapa::ask(self.ready, out))),
            (Response::Err(refused), _) => {
                let words = words_of(LoginStep::Greeting, refused);
                Err(unexpected(line, &State::Greeting(self)).for_words(words))
            }
            (Response::Continuation(_), _) => Err(unexpected(line, &State::Greeting(self))),
        }
    }
}

/// Waits for the answer to STLS.
struct AwaitStls {
    ready: UpstreamReady,
}

impl AwaitStls {
    fn on_response(self, response: &Response<'_>, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        match response {
            Response::Ok(_) => {
                out.secure();
                Ok(State::Handshake(AwaitHandshake { ready: self.ready }))
            }
            Response::Err(refused) => {
                let words = words_of(LoginStep::StartTls, refused);
                Err(Fault::unavailable(format_args!("upstream refuses STLS: {}", words.text)).for_words(words))
            }
            Response::Continuation(_) => Err(unexpected(line, &State::Stls(self))),
        }
    }
}

/// Waits for the TLS handshake.
struct AwaitHandshake {
    ready: UpstreamReady,
}

/// Waits for the answer to CAPA.
struct AwaitCapa {
    ready: UpstreamReady,
}

impl AwaitCapa {
    fn ask(ready: UpstreamReady, out: &mut Outbox) -> Self {
        out.send("CAPA\r\n");
        Self { ready }
    }

    fn on_response(self, response: &Response<'_>, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        match response {
            Response::Ok(_) => Ok(State::List(AwaitList {
                ready: self.ready,
                offered: Offered::default(),
                listed: Vec::new(),
            })),
            Response::Err(_) => present(&self.ready, None, out),
            Response::Continuation(_) => Err(unexpected(line, &State::Capa(self))),
        }
    }
}

/// Waits for the end of the capability list. How long it may be, its lines' caps decide.
struct AwaitList {
    ready: UpstreamReady,
    offered: Offered,
    /// What of the list clients may be promised.
    listed: Vec<String>,
}

impl AwaitList {
    fn on_line(mut self, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        if line == b"." {
            out.learned(Moment::BeforeLogin, self.listed);
            if self.offered.lists_xclient()
                && let Some(client) = self.ready.forwarded.take()
            {
                out.send(xclient(&client));
                return Ok(State::XClient(AwaitXClient {
                    ready: self.ready,
                    offered: Some(self.offered),
                }));
            }
            return present(&self.ready, Some(&self.offered), out);
        }
        self.offered.add(line);
        note_promisable(&mut self.listed, line);
        Ok(State::List(self))
    }
}

/// Adds what a line of a capability list lets a client be promised, once.
pub(super) fn note_promisable(listed: &mut Vec<String>, line: &[u8]) {
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let name = NAMES.iter().find(|name| word.eq_ignore_ascii_case(name.as_bytes()));
    if let Some(name) = name.filter(|&&name| !has(listed, name)) {
        listed.push((*name).to_owned());
    }
}

/// Waits for the answer to XCLIENT (Dovecot), by which the upstream takes the client's address for the connection's. One that will
/// not have it gets the login all the same.
struct AwaitXClient {
    ready: UpstreamReady,
    /// `None` where capabilities have not been asked for yet.
    offered: Option<Offered>,
}

impl AwaitXClient {
    fn on_response(self, response: &Response<'_>, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        match (response, &self.offered) {
            (Response::Continuation(_), _) => Err(unexpected(line, &State::XClient(self))),
            (_, Some(offered)) => present(&self.ready, Some(offered), out),
            (_, None) => Ok(State::Capa(AwaitCapa::ask(self.ready, out))),
        }
    }
}

/// The command that tells of `client`.
fn xclient(client: &ForwardedClient) -> String {
    let ForwardedClient { remote, session, .. } = client;
    let (address, port) = (remote.ip().to_canonical(), remote.port());
    format!("XCLIENT ADDR={address} PORT={port} SESSION={session}\r\n")
}

/// Begins the login.
fn present(ready: &UpstreamReady, offered: Option<&Offered>, out: &mut Outbox) -> Result<State, Fault> {
    let presentation = Presentation::compose(ready, offered)?;
    out.send(presentation.opening);
    let login = Login {
        way: presentation.way,
        redaction: presentation.redaction,
    };
    Ok(login.await_next(presentation.rest, Told::Mechanism))
}

/// A login that was begun.
struct Login {
    way: Way,
    redaction: Redaction,
}

impl Login {
    /// The state to be in while `rest` is still to be written, one line for each invitation.
    fn await_next(self, rest: VecDeque<SecretBytes>, told: Told) -> State {
        match rest.is_empty() {
            true => State::Answer(AwaitAnswer {
                login: self,
                is_challenged: false,
            }),
            false => State::Invitation(AwaitInvitation {
                told: if self.way == Way::UserPass {
                    Told::Credential
                } else {
                    told
                },
                login: self,
                rest,
            }),
        }
    }

    fn refused(&self, refused: &Refused<'_>, told: Told) -> Fault {
        refusal(refused, told, &self.redaction, self.way.name())
    }
}

/// Waits to be asked for the next line of the login: by a `+` for SASL, by a `+OK` for PASS.
struct AwaitInvitation {
    login: Login,
    /// Never empty.
    rest: VecDeque<SecretBytes>,
    /// What the upstream knows already.
    told: Told,
}

impl AwaitInvitation {
    fn on_response(mut self, response: &Response<'_>, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        match (response, self.login.way) {
            (Response::Continuation(_), Way::Sasl(_)) | (Response::Ok(_), Way::UserPass) => {
                if let Some(line) = self.rest.pop_front() {
                    out.send(line);
                }
                Ok(self.login.await_next(self.rest, Told::Credential))
            }
            (Response::Err(refused), _) => Err(self.login.refused(refused, self.told)),
            _ => Err(unexpected(line, &State::Invitation(self))),
        }
    }
}

/// Waits for the answer to the whole credential, with a challenge before it at the most.
struct AwaitAnswer {
    login: Login,
    is_challenged: bool,
}

impl AwaitAnswer {
    fn on_response(mut self, response: &Response<'_>, line: &[u8], out: &mut Outbox) -> Result<State, Fault> {
        match (response, self.login.way) {
            (Response::Ok(_), _) => {
                out.logged_in(Bytes::new());
                Ok(State::LoggedIn)
            }
            (Response::Err(refused), _) => Err(self.login.refused(refused, Told::Credential)),
            // More than one would keep a login going for nothing.
            (Response::Continuation(challenge), Way::Sasl(mechanism)) if !self.is_challenged => {
                out.answer_challenge(Some(mechanism), challenge, &self.login.redaction);
                self.is_challenged = true;
                Ok(State::Answer(self))
            }
            (Response::Continuation(_), _) => Err(unexpected(line, &State::Answer(self))),
        }
    }
}

/// The fault of a line that the state has no use for.
fn unexpected(line: &[u8], state: &State) -> Fault {
    let said = state.clean(line);
    Fault::unavailable(format_args!(
        "upstream sent an unexpected reply, {}: {said}",
        state.name()
    ))
}

/// What the upstream says before it has been sent anything secret.
fn words_of(step: LoginStep, refused: &Refused<'_>) -> UpstreamWords {
    let clean = |text| Redaction::default().clean(text);
    let code = refused.code.map(|code| clean(code).to_ascii_uppercase());
    UpstreamWords::new(step, code, clean(refused.text))
}

/// CVE-2011-0411's class, from the other side: what an attacker put behind the `+OK` would be taken for the upstream's word.
fn injected() -> Fault {
    Fault::unavailable("upstream sent data in clear behind its +OK to STLS: a command injection, refused")
}

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
