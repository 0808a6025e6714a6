//! The upstream leg of an SMTP login: [`SmtpUpstream`], from the greeting to `235`.
//!
//! ```text
//! Greeting ──> Ehlo ──(StartTls, once)──> StartTls ──> Handshake ─┐
//!               │ └<──(XClient, once, where the upstream is told of clients)──┤
//!               │ └<──────────────────────────────────────────────┘
//!               └──> Invitation <─┐ once for each `334` awaited
//!                        │  └─────┘
//!                      Answer <─┐ once: the challenge
//!                        │ └────┘
//!                        └> LoggedIn
//! ```
//!
//! Each state is a struct that is consumed by the reply that it waits for. The credential is in those up to Ehlo; from there
//! on only its encoded form is left, in Invitation, until the upstream has asked for it, and in Answer the beginnings that
//! are needed to recognise an echo. All of it is wiped when dropped.
//!
//! **How it fails.** A reply that the state has no use for, the end of the stream, what is no reply and a STARTTLS that was
//! tampered with are [`FaultKind::Unavailable`](crate::fault::FaultKind::Unavailable); a final reply to AUTH other than
//! `235` is judged by `refusal`. After a failure nothing more is sent.
//!
//! **What is believed.** Nothing that was said in clear outlives STARTTLS: it is sent whether or not EHLO's reply in clear
//! lists it, since whoever can strip the list can forge it too; only `220` leads on; bytes behind that are an injection; and
//! what came before is forgotten (RFC 3207 §4.2).

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;

use super::extensions;
use super::presentation::{Offered, Presentation, ehlo_name};
use super::refusal::refusal;
use super::response::{Reply, ReplyError, ReplyFramer};
use crate::fault::{Fault, LoginStep, UpstreamWords};
use crate::proto::Mechanism;
use crate::proto::dialogue::{ClientIdentity, DialUpstream, UpstreamDialogue, UpstreamStep};
use crate::proto::outbox::{Outbox, closed};
use crate::proto::presentation::SecretBytes;
use crate::proto::promise::Moment;
use crate::proto::redaction::Redaction;
use crate::proto::session::{ForwardedClient, UpstreamReady, UpstreamSecurity};

/// Makes [`SmtpUpstream`]s.
#[derive(Debug, Clone)]
pub struct DialSmtp {
    /// The proxy's own name, for EHLO.
    pub hostname: Arc<str>,
    /// What the client was promised of its upstream ([`SessionContext::promised`](crate::proto::session::SessionContext)).
    pub promised: Arc<[String]>,
}

impl DialUpstream for DialSmtp {
    /// SMTP has no word for who the client is: `identity` is not used.
    fn dialogue(&self, ready: UpstreamReady, _identity: Option<ClientIdentity>) -> Box<dyn UpstreamDialogue> {
        Box::new(SmtpUpstream::for_client(ready, &self.hostname, self.promised.clone()))
    }
}

/// One login on one upstream leg. See the module for its states and failures.
pub struct SmtpUpstream {
    replies: ReplyFramer,
    state: State,
    out: Outbox,
}

impl SmtpUpstream {
    /// A login with what `ready` holds, by a proxy whose own name is `hostname`.
    pub fn new(ready: UpstreamReady, hostname: &str) -> Self {
        Self::for_client(ready, hostname, Arc::default())
    }

    /// The same for a client that was promised something of its upstream.
    fn for_client(ready: UpstreamReady, hostname: &str, promised: Arc<[String]>) -> Self {
        let mut out = Outbox::default();
        let plan = Plan {
            ready,
            name: ehlo_name(hostname),
            promised,
        };
        Self {
            replies: ReplyFramer::default(),
            state: match plan.ready.security {
                UpstreamSecurity::Upgraded => AwaitHandshake { plan }.on_secured(&mut out),
                _ => State::Greeting(AwaitGreeting { plan }),
            },
            out,
        }
    }

    /// Handles complete replies until there is none, or until what follows is no longer the login's.
    fn handle_replies(&mut self) {
        while self.state.takes_replies() {
            match self.replies.next_reply() {
                Ok(Some(reply)) => self.step(|state, out| state.on_reply(&reply, out)),
                Ok(None) => return,
                Err(error) => self.fail(unintelligible(&error, &self.state)),
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

impl UpstreamDialogue for SmtpUpstream {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Failed) {
            self.replies.push(bytes);
            self.handle_replies();
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
        self.out.poll(|| self.replies.take_surplus())
    }

    fn state_name(&self) -> &'static str {
        self.state.name()
    }
}

impl fmt::Debug for SmtpUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmtpUpstream")
            .field("state", &self.state.name())
            .finish_non_exhaustive()
    }
}

/// The states, named by what they wait for.
enum State {
    Greeting(AwaitGreeting),
    Ehlo(AwaitEhlo),
    XClient(AwaitXClient),
    StartTls(AwaitStartTls),
    Handshake(AwaitHandshake),
    Invitation(AwaitInvitation),
    Answer(AwaitAnswer),
    LoggedIn,
    Failed,
}

impl State {
    fn name(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "waiting for the upstream's greeting",
            Self::Ehlo(_) => "waiting for the upstream's answer to EHLO",
            Self::XClient(_) => "waiting for the upstream's answer to XCLIENT",
            Self::StartTls(_) => "waiting for the upstream's answer to STARTTLS",
            Self::Handshake(_) => "waiting for the TLS handshake with the upstream",
            Self::Invitation(_) => "waiting for the upstream's invitation to go on with AUTH",
            Self::Answer(_) => "waiting for the upstream's answer to AUTH",
            Self::LoggedIn => "logged in to the upstream",
            Self::Failed => "the upstream login has failed",
        }
    }

    fn step(&self) -> LoginStep {
        match self {
            Self::Greeting(_) => LoginStep::Greeting,
            Self::Ehlo(_) | Self::XClient(_) => LoginStep::Capabilities,
            Self::StartTls(_) | Self::Handshake(_) => LoginStep::StartTls,
            _ => LoginStep::Login,
        }
    }

    fn takes_replies(&self) -> bool {
        !matches!(self, Self::Handshake(_) | Self::LoggedIn | Self::Failed)
    }

    fn on_secured(self, out: &mut Outbox) -> Result<Self, Fault> {
        match self {
            Self::Handshake(waiting) => Ok(waiting.on_secured(out)),
            other => Ok(other),
        }
    }

    fn on_reply(self, reply: &Reply, out: &mut Outbox) -> Result<Self, Fault> {
        match self {
            Self::Greeting(waiting) => waiting.on_reply(reply, out),
            Self::Ehlo(waiting) => waiting.on_reply(reply, out),
            Self::XClient(waiting) => waiting.on_reply(reply, out),
            Self::StartTls(waiting) => waiting.on_reply(reply, out),
            Self::Invitation(waiting) => waiting.on_reply(reply, out),
            Self::Answer(waiting) => waiting.on_reply(reply, out),
            Self::Handshake(_) | Self::LoggedIn | Self::Failed => Ok(self),
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

/// What the login is to be, until it has been put into words.
struct Plan {
    ready: UpstreamReady,
    /// The proxy's, for EHLO.
    name: String,
    promised: Arc<[String]>,
}

impl Plan {
    fn say_ehlo(self, is_in_tls: bool, out: &mut Outbox) -> State {
        out.send(format!("EHLO {}\r\n", self.name));
        let wants_tls = self.ready.security == UpstreamSecurity::StartTls && !is_in_tls;
        State::Ehlo(AwaitEhlo { plan: self, wants_tls })
    }
}

/// Waits for the greeting.
struct AwaitGreeting {
    plan: Plan,
}

impl AwaitGreeting {
    fn on_reply(self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        match reply.code {
            SERVICE_READY => Ok(self.plan.say_ehlo(false, out)),
            _ => Err(unexpected(reply, &State::Greeting(self))),
        }
    }
}

/// Waits for the answer to EHLO.
struct AwaitEhlo {
    plan: Plan,
    /// Whether the leg is still in clear and must not stay so: then nothing in the answer is believed.
    wants_tls: bool,
}

impl AwaitEhlo {
    fn on_reply(mut self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        if reply.code != OK {
            return Err(unexpected(reply, &State::Ehlo(self)));
        }
        if self.wants_tls {
            out.send("STARTTLS\r\n");
            return Ok(State::StartTls(AwaitStartTls { plan: self.plan }));
        }
        if let Some(client) = self.plan.ready.forwarded.take()
            && let Some(line) = xclient(&keywords(reply), &client)
        {
            out.send(line);
            let ehlo = reply.clone();
            return Ok(State::XClient(AwaitXClient { plan: self.plan, ehlo }));
        }
        self.plan.log_in(reply, out)
    }
}

/// Waits for the answer to XCLIENT (Postfix, XCLIENT_README), by which the upstream takes the client's address for the
/// connection's.
struct AwaitXClient {
    plan: Plan,
    /// What the upstream answered to EHLO before.
    ehlo: Reply,
}

impl AwaitXClient {
    fn on_reply(self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        match reply.code {
            // The session begins anew, as it were with that client.
            SERVICE_READY => Ok(self.plan.say_ehlo(true, out)),
            // It will not have it; the mail is more important than who sent it.
            400.. if reply.code != CLOSING => self.plan.log_in(&self.ehlo, out),
            _ => Err(unexpected(reply, &State::XClient(self))),
        }
    }
}

impl Plan {
    /// Begins the login with what the upstream answered to EHLO.
    fn log_in(self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        let learned = keywords(reply);
        let is_chunking_broken = extensions::is_chunking_broken(&self.promised, &learned);
        out.learned(Moment::BeforeLogin, learned);
        if is_chunking_broken {
            return Err(Fault::unavailable(
                "the client was promised CHUNKING, which this upstream lacks; its next session is told what the upstream has",
            ));
        }
        let presentation = Presentation::compose(&self.ready, &Offered::in_reply(reply))?;
        out.send(presentation.opening);
        let login = Login {
            mechanism: presentation.mechanism,
            redaction: presentation.redaction,
        };
        Ok(login.await_next(presentation.rest))
    }
}

/// Waits for the answer to STARTTLS.
struct AwaitStartTls {
    plan: Plan,
}

impl AwaitStartTls {
    fn on_reply(self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        if reply.code != SERVICE_READY {
            let said = Redaction::default().clean(&reply.text());
            let code = reply.full_code();
            let fault = Fault::unavailable(format_args!("upstream refuses STARTTLS: {code} {said}"));
            return Err(fault.for_words(UpstreamWords::new(LoginStep::StartTls, Some(code), said)));
        }
        out.secure();
        Ok(State::Handshake(AwaitHandshake { plan: self.plan }))
    }
}

/// Waits for the TLS handshake.
struct AwaitHandshake {
    plan: Plan,
}

impl AwaitHandshake {
    /// RFC 3207 §4.2: what was learnt before TLS is to be discarded, so EHLO is said again.
    fn on_secured(self, out: &mut Outbox) -> State {
        self.plan.say_ehlo(true, out)
    }
}

/// A login that was begun.
struct Login {
    mechanism: Mechanism,
    redaction: Redaction,
}

impl Login {
    /// The state to be in while `rest` is still to be written, one line for each invitation.
    fn await_next(self, rest: VecDeque<SecretBytes>) -> State {
        match rest.is_empty() {
            true => State::Answer(AwaitAnswer {
                login: self,
                challenges: 0,
            }),
            false => State::Invitation(AwaitInvitation { login: self, rest }),
        }
    }

    fn refused(&self, reply: &Reply) -> Fault {
        refusal(reply, &self.redaction, self.mechanism)
    }
}

/// Waits for a `334`: for a SASL response that could not be sent at once.
struct AwaitInvitation {
    login: Login,
    /// Never empty.
    rest: VecDeque<SecretBytes>,
}

impl AwaitInvitation {
    fn on_reply(mut self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        match reply.code {
            GO_ON => {
                if let Some(line) = self.rest.pop_front() {
                    out.send(line);
                }
                Ok(self.login.await_next(self.rest))
            }
            400.. => Err(self.login.refused(reply)),
            _ => Err(unexpected(reply, &State::Invitation(self))),
        }
    }
}

/// Waits for the answer to the whole credential, with a challenge before it at the most.
struct AwaitAnswer {
    login: Login,
    challenges: u32,
}

impl AwaitAnswer {
    fn on_reply(mut self, reply: &Reply, out: &mut Outbox) -> Result<State, Fault> {
        match reply.code {
            LOGGED_IN => {
                out.logged_in(Bytes::new());
                Ok(State::LoggedIn)
            }
            GO_ON if self.challenges < CHALLENGES_MAX => {
                self.challenges += 1;
                out.answer_challenge(Some(self.login.mechanism), &reply.text(), &self.login.redaction);
                Ok(State::Answer(self))
            }
            400.. => Err(self.login.refused(reply)),
            _ => Err(unexpected(reply, &State::Answer(self))),
        }
    }
}

/// The command that tells of `client`, in the attributes that the upstream lists behind XCLIENT; `None` where it does not take
/// an address.
fn xclient(keywords: &[String], client: &ForwardedClient) -> Option<String> {
    let listed = keywords.iter().find_map(|keyword| {
        let (name, attributes) = keyword.split_once(' ')?;
        name.eq_ignore_ascii_case("XCLIENT").then_some(attributes)
    })?;
    let takes = |name: &str| listed.split(' ').any(|listed| listed.eq_ignore_ascii_case(name));
    let address = |address: SocketAddr| match address.ip().to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    };
    let attributes = [
        ("ADDR", address(client.remote)),
        ("PORT", client.remote.port().to_string()),
        // Else it would stay that of this proxy.
        ("NAME", "[UNAVAILABLE]".to_owned()),
        ("DESTADDR", address(client.local)),
        ("DESTPORT", client.local.port().to_string()),
        ("SESSION", client.session.clone()),
    ];
    let told: Vec<String> = attributes
        .into_iter()
        .filter(|(name, _)| takes(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    takes("ADDR").then(|| format!("XCLIENT {}\r\n", told.join(" ")))
}

/// The extensions in a reply to EHLO: every line but the first, as far as it is printable and of a usual length.
pub(super) fn keywords(reply: &Reply) -> Vec<String> {
    let keywords = reply.lines().iter().skip(1).filter(|keyword| {
        (1..=KEYWORD_LINE_BYTES_MAX).contains(&keyword.len()) && keyword.iter().all(|byte| matches!(byte, b' '..=b'~'))
    });
    keywords
        .map(|keyword| String::from_utf8_lossy(keyword).into_owned())
        .collect()
}

/// The fault of a reply that the state has no use for.
fn unexpected(reply: &Reply, state: &State) -> Fault {
    let code = reply.full_code();
    let said = state.clean(&reply.text());
    let fault = Fault::unavailable(format_args!("upstream says {code} {said}, {}", state.name()));
    match reply.code {
        400.. => fault.for_words(UpstreamWords::new(state.step(), Some(code), said)),
        // It has another protocol in mind; there is nothing to be understood of it.
        _ => fault,
    }
}

/// The fault of what is no reply, or too much of one.
fn unintelligible(error: &ReplyError, state: &State) -> Fault {
    let place = state.name();
    match error {
        ReplyError::Malformed(line) => {
            let said = state.clean(line);
            Fault::unavailable(format_args!("{error}, {place}: {said}"))
        }
        _ => Fault::unavailable(format_args!("{error}, {place}")),
    }
}

/// CVE-2011-0411's class, from the other side: what an attacker put behind the `220` would be taken for the upstream's word.
fn injected() -> Fault {
    Fault::unavailable("upstream sent data in clear behind its 220 to STARTTLS: a command injection, refused")
}

/// `220` (RFC 5321 §4.2.3), for the greeting and for STARTTLS (RFC 3207 §4).
pub(super) const SERVICE_READY: u16 = 220;

/// `421`: the upstream closes (RFC 5321 §3.8).
const CLOSING: u16 = 421;

/// `235` (RFC 4954 §6).
const LOGGED_IN: u16 = 235;

/// `250` (RFC 5321 §4.2.3).
pub(super) const OK: u16 = 250;

/// `334` (RFC 4954 §4).
const GO_ON: u16 = 334;

/// One explains the refusal. More would keep a login going for nothing.
const CHALLENGES_MAX: u32 = 1;

/// RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets, of which code, separator and CRLF take six.
const KEYWORD_LINE_BYTES_MAX: usize = 506;

#[cfg(test)]
#[path = "upstream_tests.rs"]
mod tests;
