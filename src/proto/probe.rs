//! Asking an upstream what it can do, without a login: [`Probe`].
//!
//! ```text
//! Greeting ──(STARTTLS)──> [Introduction] ──> StartTls ──> Handshake ─┐
//!    │  └──(list in the greeting)──────────────────────────> Ended    │
//!    └────────────────────────────────────────────> Question <────────┘──> Ended
//! ```
//! The states are the same for every protocol. What is said in each, and how an answer is read, is a `Dialect`, one for each
//! protocol in its `probe`; `Introduction` is SMTP's EHLO, without which there is no STARTTLS.
//!
//! **What is believed.** Nothing that was said in clear outlives STARTTLS, which is asked for without looking for it in a list:
//! whoever can strip a list can forge one. Bytes behind its answer are an injection. A PREAUTH greeting is refused.
//!
//! **How it fails.** [`ProbeStep::Failed`] with words for an operator, as the last step. An upstream's lines and all that it
//! says are bounded as around a login; how long it may take is the driver's business.

use bytes::Bytes;

use super::session::UpstreamSecurity;
use super::{Protocol, imap, pop3, smtp};
use crate::fault::Fault;

/// One question to one upstream: feed what arrives, then take steps until there is none.
pub struct Probe {
    dialect: Box<dyn Dialect>,
    state: State,
    wants_starttls: bool,
    steps: Vec<ProbeStep>,
}

/// What a [`Probe`] wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeStep {
    /// Write to the upstream.
    Send(Bytes),
    /// Do the TLS handshake, then call [`Probe::handle_secured`].
    Secure,
    /// What it told, as [`Moment::BeforeLogin`](super::promise::Moment::BeforeLogin); `None` where it does not answer such
    /// questions (POP3 without CAPA). The last step.
    Told(Option<Vec<String>>),
    /// Why there is no answer. The last step.
    Failed(Fault),
}

/// The words of a protocol.
pub(super) trait Dialect: Send {
    /// Adds what arrived.
    fn push(&mut self, bytes: &[u8]);
    /// Whether nothing is buffered.
    fn is_empty(&self) -> bool;
    /// The next complete answer to what was last said; `None` until more arrives.
    ///
    /// # Errors
    /// What is no answer, or a refusal.
    fn answer(&mut self, to: Asked) -> Result<Option<Answer>, Fault>;
    /// The command that asks for the list.
    fn question(&self) -> String;
    /// The command that begins TLS.
    fn starttls(&self) -> &'static str;
    /// Whether the question has to be asked before STARTTLS may be.
    fn introduces_itself(&self) -> bool {
        false
    }
}

/// What an upstream is answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The connection.
    Greeting,
    /// The command that begins TLS.
    StartTls,
    /// The command that asks for the list.
    Question,
}

/// What an upstream answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It agrees.
    Yes,
    /// The list.
    List(Vec<String>),
    /// It does not know the question.
    NoList,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Greeting,
    Introduction,
    StartTls,
    Handshake,
    Question,
    Ended,
}

impl Probe {
    /// A question to an upstream whose connection is open, by a proxy whose own name is `hostname`.
    pub fn new(protocol: Protocol, security: UpstreamSecurity, hostname: &str) -> Self {
        Self {
            dialect: match protocol {
                Protocol::Imap => Box::new(imap::probe::ImapDialect::default()),
                Protocol::Smtp => Box::new(smtp::probe::SmtpDialect::new(hostname)),
                Protocol::Pop3 => Box::new(pop3::probe::Pop3Dialect::default()),
            },
            state: State::Greeting,
            wants_starttls: security == UpstreamSecurity::StartTls,
            steps: Vec::new(),
        }
    }

    /// The upstream sent bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.state == State::Ended {
            return;
        }
        self.dialect.push(bytes);
        while let Some(asked) = self.state.asked() {
            match self.dialect.answer(asked) {
                Ok(Some(answer)) => self.on_answer(answer),
                Ok(None) => return,
                Err(fault) => self.fail(fault),
            }
        }
        if self.state == State::Handshake && !self.dialect.is_empty() {
            // CVE-2011-0411's class, from the other side.
            self.fail(Fault::unavailable(
                "upstream sent data in clear behind its answer to STARTTLS",
            ));
        }
    }

    /// The upstream will send no more.
    pub fn handle_eof(&mut self) {
        if self.state != State::Ended {
            self.fail(Fault::unavailable(
                "upstream closed the connection before it told what it can do",
            ));
        }
    }

    /// The TLS handshake that [`ProbeStep::Secure`] asked for succeeded.
    pub fn handle_secured(&mut self) {
        if self.state == State::Handshake {
            self.ask(State::Question);
        }
    }

    /// The next thing to do.
    pub fn poll_step(&mut self) -> Option<ProbeStep> {
        (!self.steps.is_empty()).then(|| self.steps.remove(0))
    }

    fn on_answer(&mut self, answer: Answer) {
        match (self.state, answer) {
            (State::Greeting, _) if self.wants_starttls && self.dialect.introduces_itself() => {
                self.ask(State::Introduction);
            }
            (State::Greeting, _) if self.wants_starttls => self.begin_tls(),
            // What it says of itself in clear is not believed.
            (State::Introduction, _) => self.begin_tls(),
            (State::StartTls, _) => {
                self.steps.push(ProbeStep::Secure);
                self.state = State::Handshake;
            }
            (State::Greeting | State::Question, Answer::List(lines)) => self.end(ProbeStep::Told(Some(lines))),
            (State::Question, Answer::Yes | Answer::NoList) => self.end(ProbeStep::Told(None)),
            (State::Greeting, Answer::Yes | Answer::NoList) => self.ask(State::Question),
            (State::Handshake | State::Ended, _) => {}
        }
    }

    fn ask(&mut self, next: State) {
        self.steps.push(ProbeStep::Send(self.dialect.question().into()));
        self.state = next;
    }

    fn begin_tls(&mut self) {
        self.steps
            .push(ProbeStep::Send(Bytes::from_static(self.dialect.starttls().as_bytes())));
        self.state = State::StartTls;
    }

    fn fail(&mut self, fault: Fault) {
        // Nothing is written behind a failure.
        self.steps.clear();
        self.end(ProbeStep::Failed(fault));
    }

    fn end(&mut self, last: ProbeStep) {
        self.steps.push(last);
        self.state = State::Ended;
    }
}

impl State {
    /// What the upstream is answering here.
    fn asked(self) -> Option<Asked> {
        match self {
            Self::Greeting => Some(Asked::Greeting),
            Self::StartTls => Some(Asked::StartTls),
            Self::Introduction | Self::Question => Some(Asked::Question),
            Self::Handshake | Self::Ended => None,
        }
    }
}

impl Asked {
    /// For an operator: "to STARTTLS".
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Greeting => "in its greeting",
            Self::StartTls => "to STARTTLS",
            Self::Question => "when asked what it can do",
        }
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
