//! The client leg of a POP3 session before its relay: from the greeting to the reply to a login.
//!
//! ```text
//! Greeting ──> Commands ──AUTH──> Exchange ──────────┐
//!                │  └──USER, PASS─────────────────> Outcome ──accepted──> (relay)
//!                │<──refused──────────────────────────┤
//!                └<──any line── Challenged <──refused─┘   (OAUTHBEARER, XOAUTH2)
//! ```
//! Commands are answered in order, one after the other; behind a login nothing is looked at until its outcome is known, since
//! it may be the upstream's. Bad commands and refused logins are counted; the last that is allowed gets its `-ERR`, and then
//! the connection closes: POP3 has no line that nobody asked for. A command that has a meaning after the login only, an
//! unknown mechanism and a cancelled exchange count as bad commands.
//!
//! Where a login is not allowed for want of TLS, its arguments are not looked at: USER is refused already, so that no client
//! gives its password away.

use std::sync::Arc;

use bytes::Bytes;

use super::command::{self, BadCommand, Command};
use super::reply;
use crate::fault::{Fault, FaultKind};
use crate::proto::Mechanism;
use crate::proto::client_leg::ClientLeg;
use crate::proto::dialogue::{Accepted, ClientDialogue, ClientStep};
use crate::proto::framing::LineTooLong;
use crate::proto::sasl::client::{Exchange, Outcome, refusal_challenge};
use crate::proto::sasl::{UnfitCredentials, login_request};
use crate::proto::session::{LoginRequest, Offer, SessionContext};

/// A POP3 client's dialogue.
pub struct Pop3Client {
    /// What is told of the upstream before the login.
    promised: Arc<[String]>,
    leg: ClientLeg,
    reading: Reading,
    /// What USER said, until PASS or another way to log in. PASS stands "immediately after a successful USER" (RFC 1939 §7);
    /// a CAPA or NOOP between them does no harm.
    user: Option<Vec<u8>>,
}

/// What the dialogue waits for.
enum Reading {
    /// The connection to be open.
    Greeting,
    /// A command.
    Commands,
    /// The client's line in a SASL exchange.
    Exchange { mechanism: Mechanism, exchange: Exchange },
    /// The TLS handshake.
    Handshake,
    /// The outcome of a login.
    Outcome { mechanism: Option<Mechanism> },
    /// Any line of the client, then it gets the refusal.
    Challenged { kind: FaultKind },
    /// Nothing any more.
    Ended,
}

impl Pop3Client {
    /// A dialogue at the begin of a connection.
    pub fn new(context: &SessionContext) -> Self {
        Self {
            promised: context.promised.clone(),
            leg: ClientLeg::new(context),
            reading: Reading::Greeting,
            user: None,
        }
    }

    /// Does the next thing that can be done. False if there is none.
    fn advance(&mut self) -> bool {
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            waiting @ (Reading::Greeting | Reading::Handshake | Reading::Outcome { .. } | Reading::Ended) => {
                self.reading = waiting;
                false
            }
            reading => match self.leg.framer.poll_line() {
                Some(Ok(line)) => {
                    self.handle_line(reading, line.as_bytes());
                    true
                }
                Some(Err(LineTooLong)) => {
                    self.end_with_refusal(FaultKind::LineTooLong);
                    true
                }
                None => self.pause(reading),
            },
        }
    }

    fn handle_line(&mut self, reading: Reading, line: &[u8]) {
        match reading {
            Reading::Exchange { mechanism, exchange } => self.handle_outcome(mechanism, exchange.respond(line)),
            Reading::Challenged { kind } => self.refuse_login(&kind),
            _ => {
                self.reading = Reading::Commands;
                self.handle_command(line);
            }
        }
    }

    /// There is nothing to read: waits, or ends at the end of the stream. False if it waits.
    fn pause(&mut self, reading: Reading) -> bool {
        match reading {
            // Its reply is due all the same.
            Reading::Challenged { kind } if self.leg.is_at_eof => {
                self.refuse_login(&kind);
                true
            }
            waiting => {
                let is_gone = self.leg.end_at_eof();
                self.reading = if is_gone { Reading::Ended } else { waiting };
                is_gone
            }
        }
    }

    fn handle_command(&mut self, line: &[u8]) {
        if !self.leg.offer.login && command::is_login(line) {
            return self.refuse_in_clear();
        }
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(BadCommand(reason)) => return self.refuse_command(reason),
        };
        match command {
            Command::Capa => self.say_and_count(&reply::capabilities(self.leg.offer, &self.promised)),
            Command::Noop => self.say_and_count("+OK\r\n"),
            Command::Mechanisms => self.say_and_count(reply::mechanisms(self.leg.offer)),
            Command::Quit => {
                self.leg.say("+OK Bye\r\n");
                self.end(Fault::with_detail(FaultKind::ClientGone, "QUIT before a login"));
            }
            Command::Stls if self.leg.offer.has_starttls() => self.start_tls(),
            Command::Stls => self.refuse_command("STLS is not offered"),
            Command::User(name) => {
                // Whether there is such an account is not told before the password (RFC 1939 §13).
                self.user = Some(name);
                self.say_and_count("+OK Now the password\r\n");
            }
            Command::Pass(password) => match self.user.take() {
                Some(user) => match login_request(Some(&user), &password, None) {
                    Ok(request) => self.await_outcome(None, request),
                    Err(unfit) => self.refuse_unfit(None, unfit),
                },
                None => self.refuse_command("Give USER first"),
            },
            Command::Auth { mechanism, initial } => {
                self.user = None;
                match Mechanism::by_name(mechanism.as_bytes()) {
                    Some(mechanism) => {
                        let initial = initial.as_ref().map(|response| response.as_slice());
                        self.handle_outcome(mechanism, Exchange::begin(mechanism, initial));
                    }
                    None => self.refuse_command("Unsupported authentication mechanism"),
                }
            }
            Command::Apop => self.refuse_command("APOP is not offered"),
            Command::AfterLogin => self.refuse_command("Log in first"),
        }
    }

    /// RFC 2595 §4. What stands behind the command came in clear, perhaps from somebody else, and would be taken for the
    /// client's word inside TLS (CVE-2011-0411).
    fn start_tls(&mut self) {
        if self.leg.framer.buffered() > 0 {
            return self.end_with_refusal(FaultKind::StartTlsInjection);
        }
        self.leg.say("+OK Begin TLS\r\n");
        self.leg.step(ClientStep::Secure);
        self.reading = Reading::Handshake;
    }

    fn handle_outcome(&mut self, mechanism: Mechanism, outcome: Outcome) {
        self.reading = Reading::Commands;
        match outcome {
            Outcome::Ask(challenge, exchange) => {
                self.leg.say(&format!("+ {challenge}\r\n"));
                self.reading = Reading::Exchange { mechanism, exchange };
            }
            Outcome::Login(request) => self.await_outcome(Some(mechanism), request),
            Outcome::Unfit(unfit) => self.refuse_unfit(Some(mechanism), unfit),
            Outcome::Malformed(reason) => self.refuse_command(reason),
            Outcome::Cancelled => self.refuse_command("Authentication cancelled"),
        }
    }

    fn await_outcome(&mut self, mechanism: Option<Mechanism>, request: LoginRequest) {
        self.leg.step(ClientStep::Login(request));
        self.reading = Reading::Outcome { mechanism };
    }

    fn refuse_unfit(&mut self, mechanism: Option<Mechanism>, unfit: UnfitCredentials) {
        let kind = self.leg.refuse_unfit(unfit);
        self.challenge_or_refuse(mechanism, kind);
    }

    fn refuse_in_clear(&mut self) {
        let kind = self.leg.refuse_in_clear();
        self.refuse_login(&kind);
    }

    /// A refusal of OAUTHBEARER or XOAUTH2 begins with a challenge.
    fn challenge_or_refuse(&mut self, mechanism: Option<Mechanism>, kind: FaultKind) {
        match mechanism.and_then(|mechanism| refusal_challenge(mechanism, &kind)) {
            Some(challenge) => {
                self.leg.say(&format!("+ {challenge}\r\n"));
                self.reading = Reading::Challenged { kind };
            }
            None => self.refuse_login(&kind),
        }
    }

    fn refuse_login(&mut self, kind: &FaultKind) {
        self.reading = Reading::Commands;
        self.leg.say(&format!("{}\r\n", reply::refusal(kind)));
        if self.leg.count_failure() {
            self.end(Fault::new(FaultKind::TooManyFailures));
        }
    }

    /// Answers a command that is fine, and does not log in.
    fn say_and_count(&mut self, reply: &str) {
        self.leg.say(reply);
        if self.leg.count_command() {
            self.end(Fault::new(FaultKind::TooManyCommands));
        }
    }

    fn refuse_command(&mut self, reason: &str) {
        self.leg.say(&format!("-ERR {reason}\r\n"));
        if self.leg.count_bad_command() {
            self.end(Fault::new(FaultKind::TooManyBadCommands));
        }
    }

    /// The client's stream cannot be followed or trusted any more.
    fn end_with_refusal(&mut self, kind: FaultKind) {
        self.leg.say(&format!("{}\r\n", reply::refusal(&kind)));
        self.end(Fault::new(kind));
    }

    fn end(&mut self, fault: Fault) {
        self.leg.step(ClientStep::End(fault));
        self.reading = Reading::Ended;
    }
}

impl ClientDialogue for Pop3Client {
    fn handle_opened(&mut self) {
        self.leg.say(reply::GREETING);
        self.reading = Reading::Commands;
    }

    fn handle_bytes(&mut self, bytes: &[u8]) {
        if !matches!(self.reading, Reading::Ended) {
            self.leg.framer.push(bytes);
        }
    }

    fn handle_eof(&mut self) {
        self.leg.is_at_eof = true;
    }

    fn handle_secured(&mut self) {
        if matches!(self.reading, Reading::Handshake) {
            self.leg.offer = Offer::SECURED;
            // What was said in clear is forgotten (RFC 2595 §4).
            self.user = None;
            self.reading = Reading::Commands;
        }
    }

    fn handle_refused(&mut self, fault: &Fault) {
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::Outcome { mechanism } => self.challenge_or_refuse(mechanism, fault.kind.clone()),
            // No login waits for its outcome.
            reading => self.reading = reading,
        }
    }

    fn poll_step(&mut self) -> Option<ClientStep> {
        while !self.leg.is_due() && self.advance() {}
        self.leg.pop_step()
    }

    fn into_accepted(self: Box<Self>, account: &str, for_client: &[u8]) -> Accepted {
        self.leg.into_accepted(for_client, &reply::authenticated(account))
    }

    /// Nothing: an inactive session is closed without a response (RFC 1939 §3).
    fn farewell(&self, _kind: &FaultKind) -> Bytes {
        Bytes::new()
    }

    fn buffered(&self) -> usize {
        self.leg.framer.buffered()
    }

    fn is_at_eof(&self) -> bool {
        self.leg.is_at_eof
    }

    fn state_name(&self) -> &'static str {
        match &self.reading {
            Reading::Greeting => "waiting to greet",
            Reading::Commands if self.leg.framer.buffered() > 0 => "waiting for the rest of a command",
            Reading::Commands if self.user.is_some() => "waiting for PASS",
            Reading::Commands => "waiting for a command",
            Reading::Exchange { .. } => "waiting for the response to AUTH",
            Reading::Handshake => "waiting for the TLS handshake with the client",
            Reading::Outcome { .. } => "waiting for the outcome of the login",
            Reading::Challenged { .. } => "waiting for the client's answer to the failure challenge",
            Reading::Ended => "ending",
        }
    }
}
