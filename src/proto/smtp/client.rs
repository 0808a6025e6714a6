//! The client leg of an SMTP session before its relay: from the greeting to the reply to a login.
//!
//! ```text
//! Greeting ──> Commands ──AUTH──> Exchange ──> Outcome ──accepted──> (relay)
//!                │  │<──refused──────────────────┤
//!                │  └<──any line── Challenged <──┘   (OAUTHBEARER, XOAUTH2)
//!                ├──BDAT──> Chunk ──its octets──> Commands
//!                └──STARTTLS──> Handshake ──> Commands
//! ```
//! Commands are answered in order, one after the other; behind an AUTH nothing is looked at until its outcome is known, since
//! it may be the upstream's. Bad commands and refused logins are counted, and the last that is allowed is followed by a 421. A
//! command that needs a login counts as a bad one, and so do an unknown mechanism and a cancelled exchange: a client that
//! pipelines a whole envelope before its AUTH hears a 530 for each of its commands, and one that goes on so is left.
//!
//! The octets behind a BDAT come without waiting for leave; they are thrown away, since they are no commands, whatever stands
//! in them.
//!
//! Where a login is not allowed for want of TLS, its arguments are neither waited for nor looked at.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{self, Command};
use super::reply;
use crate::fault::{Fault, FaultKind};
use crate::proto::Mechanism;
use crate::proto::client_leg::ClientLeg;
use crate::proto::dialogue::{Accepted, ClientDialogue, ClientStep};
use crate::proto::framing::{Frame, LineTooLong};
use crate::proto::sasl::client::{Exchange, Outcome, refusal_challenge};
use crate::proto::session::{ClientSecurity, Offer, SessionContext};

/// An SMTP client's dialogue.
pub struct SmtpClient {
    hostname: Arc<str>,
    remote: IpAddr,
    /// The lines of EHLO that the upstreams will honour.
    promised: Arc<[String]>,
    leg: ClientLeg,
    reading: Reading,
}

/// What the dialogue waits for.
enum Reading {
    /// The connection to be open.
    Greeting,
    /// A command.
    Commands,
    /// The octets behind a BDAT, to be thrown away.
    Chunk { octets_left: u64 },
    /// The client's line in a SASL exchange.
    Exchange { mechanism: Mechanism, exchange: Exchange },
    /// The TLS handshake.
    Handshake,
    /// The outcome of a login.
    Outcome { mechanism: Mechanism },
    /// Any line of the client, then it gets the refusal.
    Challenged { kind: FaultKind },
    /// Nothing any more.
    Ended,
}

impl SmtpClient {
    /// A dialogue at the begin of a connection.
    pub fn new(context: &SessionContext) -> Self {
        Self {
            hostname: context.hostname.clone(),
            remote: context.remote_address,
            promised: context.promised.clone(),
            leg: ClientLeg::new(context),
            reading: Reading::Greeting,
        }
    }

    /// Does the next thing that can be done. False if there is none.
    fn advance(&mut self) -> bool {
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::Commands => self.read_command(),
            Reading::Chunk { octets_left } => self.read_chunk(octets_left),
            Reading::Exchange { mechanism, exchange } => self.read_response(mechanism, exchange),
            Reading::Challenged { kind } => self.read_acknowledgement(kind),
            waiting @ (Reading::Greeting | Reading::Handshake | Reading::Outcome { .. } | Reading::Ended) => {
                self.reading = waiting;
                false
            }
        }
    }

    fn read_command(&mut self) -> bool {
        match self.leg.framer.poll_line() {
            Some(Ok(line)) => {
                self.reading = Reading::Commands;
                self.handle_line(&line);
            }
            Some(Err(LineTooLong)) => self.lose(),
            None => return self.pause(Reading::Commands),
        }
        true
    }

    fn read_chunk(&mut self, octets_left: u64) -> bool {
        let wanted = usize::try_from(octets_left).unwrap_or(usize::MAX);
        let gone = self.leg.framer.discard(wanted);
        // A usize fits where it came out of no more than this.
        let octets_left = octets_left.saturating_sub(u64::try_from(gone).unwrap_or(u64::MAX));
        if octets_left > 0 {
            return self.pause(Reading::Chunk { octets_left });
        }
        self.reading = Reading::Commands;
        true
    }

    fn read_response(&mut self, mechanism: Mechanism, exchange: Exchange) -> bool {
        match self.leg.framer.poll_line() {
            Some(Ok(line)) => self.handle_outcome(mechanism, exchange.respond(line.as_bytes())),
            Some(Err(LineTooLong)) => self.lose(),
            None => return self.pause(Reading::Exchange { mechanism, exchange }),
        }
        true
    }

    fn read_acknowledgement(&mut self, kind: FaultKind) -> bool {
        match self.leg.framer.poll_line() {
            Some(Ok(_)) => self.refuse_login(&kind),
            Some(Err(LineTooLong)) => self.lose(),
            // Its reply is due all the same.
            None if self.leg.is_at_eof => self.refuse_login(&kind),
            None => return self.pause(Reading::Challenged { kind }),
        }
        true
    }

    /// There is nothing to read: waits, or ends at the end of the stream. False if it waits.
    fn pause(&mut self, reading: Reading) -> bool {
        let is_gone = self.leg.end_at_eof();
        self.reading = if is_gone { Reading::Ended } else { reading };
        is_gone
    }

    fn handle_line(&mut self, line: &Frame) {
        if !self.leg.offer.login && command::is_auth(line.as_bytes()) {
            return self.refuse_in_clear();
        }
        match command::parse(line.as_bytes()) {
            Ok(command) => self.handle_command(command),
            Err(bad) => self.refuse_command(&reply::bad_command(bad)),
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Ehlo => {
                let ehlo = reply::ehlo(&self.hostname, self.remote, self.leg.offer, &self.promised);
                self.leg.say(&ehlo);
                self.count_command();
            }
            Command::Helo => {
                self.leg.say(&reply::helo(&self.hostname));
                self.count_command();
            }
            Command::Noop | Command::Rset => self.answer_and_count("250 2.0.0 OK"),
            Command::Help => self.answer_and_count("214 2.0.0 Log in with AUTH before sending mail"),
            // RFC 5321 §3.5.3. Whether a mailbox exists is nobody's business before a login.
            Command::Vrfy => self.answer_and_count("252 2.5.0 Cannot verify before a login"),
            Command::Quit => {
                self.answer("221 2.0.0 Bye");
                self.end(Fault::with_detail(FaultKind::ClientGone, "QUIT before a login"));
            }
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => {
                self.authenticate(&mechanism, initial.as_ref().map(|response| response.as_slice()));
            }
            Command::Chunk { octets } => {
                self.reading = Reading::Chunk { octets_left: octets };
                self.refuse_command(LOGIN_REQUIRED);
            }
            Command::AfterLogin => self.refuse_command(LOGIN_REQUIRED),
            Command::Unimplemented => self.refuse_command("502 5.5.1 Command not implemented"),
        }
    }

    /// RFC 3207 §4. What stands behind the command came in clear, perhaps from somebody else, and would be taken for the
    /// client's word inside TLS (CVE-2011-0411).
    fn start_tls(&mut self) {
        match self.leg.offer.security {
            ClientSecurity::StartTls if self.leg.framer.buffered() > 0 => {
                self.end_with_farewell(FaultKind::StartTlsInjection);
            }
            ClientSecurity::StartTls => {
                self.answer("220 2.0.0 Ready to start TLS");
                self.leg.step(ClientStep::Secure);
                self.reading = Reading::Handshake;
            }
            ClientSecurity::Secured => self.refuse_command("503 5.5.1 TLS has begun already"),
            ClientSecurity::Clear => self.refuse_command("502 5.5.1 STARTTLS is not offered"),
        }
    }

    /// An AUTH that no EHLO went before is taken (RFC 4954 §4 forbids it to clients, not to servers): Postfix and Dovecot take
    /// it, and devices log in without one, without another one after STARTTLS, or after one without a name that got a 501.
    fn authenticate(&mut self, mechanism: &str, initial: Option<&[u8]>) {
        match Mechanism::by_name(mechanism.as_bytes()) {
            Some(mechanism) => self.handle_outcome(mechanism, Exchange::begin(mechanism, initial)),
            None => self.refuse_command("504 5.5.4 Unsupported authentication mechanism"),
        }
    }

    /// RFC 4954 §4, with the codes that it names.
    fn handle_outcome(&mut self, mechanism: Mechanism, outcome: Outcome) {
        self.reading = Reading::Commands;
        match outcome {
            Outcome::Ask(challenge, exchange) => {
                self.challenge(challenge);
                self.reading = Reading::Exchange { mechanism, exchange };
            }
            Outcome::Login(request) => {
                self.leg.step(ClientStep::Login(request));
                self.reading = Reading::Outcome { mechanism };
            }
            Outcome::Unfit(unfit) => {
                let kind = self.leg.refuse_unfit(unfit);
                self.challenge_or_refuse(mechanism, kind);
            }
            Outcome::Malformed(reason) => self.refuse_command(&format!("501 5.5.2 {reason}")),
            Outcome::Cancelled => self.refuse_command("501 5.7.0 Authentication cancelled"),
        }
    }

    fn refuse_in_clear(&mut self) {
        let kind = self.leg.refuse_in_clear();
        self.refuse_login(&kind);
    }

    /// A refusal of OAUTHBEARER or XOAUTH2 begins with a challenge.
    fn challenge_or_refuse(&mut self, mechanism: Mechanism, kind: FaultKind) {
        match refusal_challenge(mechanism, &kind) {
            Some(challenge) => {
                self.challenge(challenge);
                self.reading = Reading::Challenged { kind };
            }
            None => self.refuse_login(&kind),
        }
    }

    fn refuse_login(&mut self, kind: &FaultKind) {
        self.reading = Reading::Commands;
        self.answer(&reply::refusal(kind));
        if self.leg.count_failure() {
            self.end_with_farewell(FaultKind::TooManyFailures);
        }
    }

    fn answer_and_count(&mut self, text: &str) {
        self.answer(text);
        self.count_command();
    }

    /// A command was fine, and brought the client no nearer to its login.
    fn count_command(&mut self) {
        if self.leg.count_command() {
            self.end_with_farewell(FaultKind::TooManyCommands);
        }
    }

    fn refuse_command(&mut self, text: &str) {
        self.answer(text);
        if self.leg.count_bad_command() {
            self.end_with_farewell(FaultKind::TooManyBadCommands);
        }
    }

    /// The client's stream cannot be followed any more.
    fn lose(&mut self) {
        self.answer(&reply::refusal(&FaultKind::LineTooLong));
        self.end_with_farewell(FaultKind::LineTooLong);
    }

    fn end_with_farewell(&mut self, kind: FaultKind) {
        self.leg.say(reply::farewell(&kind));
        self.end(Fault::new(kind));
    }

    fn end(&mut self, fault: Fault) {
        self.leg.step(ClientStep::End(fault));
        self.reading = Reading::Ended;
    }

    fn challenge(&mut self, challenge: &str) {
        self.answer(&format!("334 {challenge}"));
    }

    fn answer(&mut self, text: &str) {
        self.leg.say(text);
        self.leg.say("\r\n");
    }
}

impl ClientDialogue for SmtpClient {
    fn handle_opened(&mut self) {
        self.leg.say(&reply::greeting(&self.hostname));
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

    /// RFC 3207 §4.2: what the client said of itself in clear is forgotten. Nothing of it was kept.
    fn handle_secured(&mut self) {
        if matches!(self.reading, Reading::Handshake) {
            self.leg.offer = Offer::SECURED;
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

    fn farewell(&self, kind: &FaultKind) -> Bytes {
        Bytes::from_static(reply::farewell(kind).as_bytes())
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
            Reading::Commands => "waiting for a command",
            Reading::Chunk { .. } => "waiting for the rest of a refused BDAT",
            Reading::Exchange { .. } => "waiting for the response to AUTH",
            Reading::Handshake => "waiting for the TLS handshake with the client",
            Reading::Outcome { .. } => "waiting for the outcome of the login",
            Reading::Challenged { .. } => "waiting for the client's answer to the failure challenge",
            Reading::Ended => "ending",
        }
    }
}

/// RFC 4954 §6.
const LOGIN_REQUIRED: &str = "530 5.7.0 Authentication required";
