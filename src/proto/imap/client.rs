//! The client leg of an IMAP session before its relay: from the greeting to the reply to a login.
//!
//! ```text
//! Greeting ──> Commands ──AUTHENTICATE──> Exchange ──┐
//!                │  └──LOGIN──────────────────────> Outcome ──accepted──> (relay)
//!                │<──refused──────────────────────────┤
//!                └<──any line── Challenged <──refused─┘   (OAUTHBEARER, XOAUTH2)
//! ```
//! Commands are answered in order, one after the other; behind a login nothing is looked at until its outcome is known, since
//! it may be the upstream's. Bad commands and refused logins are counted, and the last that is allowed is followed by `* BYE`.
//! A command that has a meaning after the login only, an unknown mechanism and a cancelled exchange count as bad commands.
//!
//! Where a login is not allowed for want of TLS, its arguments are neither waited for nor looked at.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::command::{self, Body, Command, Tag};
use super::reply;
use crate::fault::{Fault, FaultKind};
use crate::limits::ID_COMMAND_BYTES_MAX;
use crate::proto::Mechanism;
use crate::proto::client_leg::ClientLeg;
use crate::proto::dialogue::{Accepted, ClientDialogue, ClientIdentity, ClientStep};
use crate::proto::framing::{Cut, Frame, LineTooLong, Longer, Overlong};
use crate::proto::sasl::client::{Exchange, Outcome, refusal_challenge};
use crate::proto::sasl::{UnfitCredentials, login_request};
use crate::proto::session::{LoginRequest, Offer, SessionContext};

/// An IMAP client's dialogue.
pub struct ImapClient {
    remote: IpAddr,
    /// What is told of the upstream before the login.
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
    /// The client's line in a SASL exchange.
    Exchange {
        tag: Tag,
        mechanism: Mechanism,
        exchange: Exchange,
    },
    /// The TLS handshake.
    Handshake,
    /// The outcome of a login.
    Outcome { tag: Tag, mechanism: Option<Mechanism> },
    /// Any line of the client, then it gets the refusal.
    Challenged { tag: Tag, kind: FaultKind },
    /// Nothing any more.
    Ended,
}

impl ImapClient {
    /// A dialogue at the begin of a connection.
    pub fn new(context: &SessionContext) -> Self {
        Self {
            remote: context.remote_address,
            promised: context.promised.clone(),
            leg: ClientLeg::with_longer(context, LONG_IDENTITY),
            reading: Reading::Greeting,
        }
    }

    /// Does the next thing that can be done. False if there is none.
    fn advance(&mut self) -> bool {
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::Commands => self.read_command(),
            Reading::Exchange {
                tag,
                mechanism,
                exchange,
            } => self.read_response(tag, mechanism, exchange),
            Reading::Challenged { tag, kind } => self.read_acknowledgement(tag, kind),
            waiting @ (Reading::Greeting | Reading::Handshake | Reading::Outcome { .. } | Reading::Ended) => {
                self.reading = waiting;
                false
            }
        }
    }

    fn read_command(&mut self) -> bool {
        let Some(cut) = self.leg.framer.poll_command() else {
            return self.pause(Reading::Commands);
        };
        self.reading = Reading::Commands;
        match cut {
            Cut::Frame(frame) => self.handle_frame(&frame),
            Cut::Announced => self.handle_literal(),
            Cut::Refused(frame) => {
                let tag = command::tag_of(frame.as_bytes());
                self.refuse_command(tag.as_ref(), &reply::refusal(&FaultKind::LiteralTooLong));
            }
            Cut::Lost(overlong, frame) => self.lose(overlong, command::tag_of(frame.as_bytes()).as_ref()),
        }
        true
    }

    fn read_response(&mut self, tag: Tag, mechanism: Mechanism, exchange: Exchange) -> bool {
        match self.leg.framer.poll_line() {
            Some(Ok(line)) => self.handle_outcome(tag, mechanism, exchange.respond(line.as_bytes())),
            Some(Err(LineTooLong)) => self.lose(Overlong::Line, Some(&tag)),
            None => {
                return self.pause(Reading::Exchange {
                    tag,
                    mechanism,
                    exchange,
                });
            }
        }
        true
    }

    fn read_acknowledgement(&mut self, tag: Tag, kind: FaultKind) -> bool {
        match self.leg.framer.poll_line() {
            Some(Ok(_)) => self.refuse_login(&tag, &kind),
            Some(Err(LineTooLong)) => self.lose(Overlong::Line, Some(&tag)),
            // Its reply is due all the same.
            None if self.leg.is_at_eof => self.refuse_login(&tag, &kind),
            None => return self.pause(Reading::Challenged { tag, kind }),
        }
        true
    }

    /// There is nothing to read: waits, or ends at the end of the stream. False if it waits.
    fn pause(&mut self, reading: Reading) -> bool {
        let is_gone = self.leg.end_at_eof();
        self.reading = if is_gone { Reading::Ended } else { reading };
        is_gone
    }

    fn handle_frame(&mut self, frame: &Frame) {
        if !self.leg.offer.login
            && let Some(tag) = command::login_tag_of(frame.as_bytes())
        {
            return self.refuse_in_clear(tag);
        }
        match command::parse(frame.as_bytes()) {
            Ok(Command { tag, body }) => self.handle_command(tag, body),
            Err(bad) => self.refuse_command(bad.tag.as_ref(), &format!("BAD {}", bad.reason)),
        }
    }

    fn handle_command(&mut self, tag: Tag, body: Body) {
        match body {
            Body::Capability => {
                let capabilities = reply::capabilities(self.leg.offer, &self.promised);
                self.leg.say(&format!("* CAPABILITY {capabilities}\r\n"));
                self.answer_and_count(&tag, "OK CAPABILITY completed");
            }
            Body::Noop => self.answer_and_count(&tag, "OK NOOP completed"),
            Body::Id(identity) => self.handle_identity(&tag, identity),
            Body::Logout => {
                self.leg.say("* BYE Logging out\r\n");
                self.answer(&tag, "OK LOGOUT completed");
                self.end(Fault::with_detail(FaultKind::ClientGone, "LOGOUT before a login"));
            }
            Body::StartTls if self.leg.offer.has_starttls() => self.start_tls(&tag),
            Body::StartTls => self.refuse_command(Some(&tag), "BAD STARTTLS is not offered"),
            Body::AfterLogin => self.refuse_command(Some(&tag), "BAD Log in first"),
            Body::Login { user, secret } => match login_request(Some(&user), &secret, None) {
                Ok(request) => self.await_outcome(tag, None, request),
                Err(unfit) => self.refuse_unfit(tag, None, unfit),
            },
            Body::Authenticate { mechanism, initial } => match Mechanism::by_name(mechanism.as_bytes()) {
                Some(mechanism) => {
                    let initial = initial.as_ref().map(|response| response.as_slice());
                    self.handle_outcome(tag, mechanism, Exchange::begin(mechanism, initial));
                }
                None => self.refuse_command(Some(&tag), "NO [CANNOT] Unsupported authentication mechanism"),
            },
        }
    }

    /// RFC 9051 §6.2.1. What stands behind the command came in clear, perhaps from somebody else, and would be taken for the
    /// client's word inside TLS (CVE-2011-0411).
    fn start_tls(&mut self, tag: &Tag) {
        if self.leg.framer.buffered() > 0 {
            return self.end_with_bye(FaultKind::StartTlsInjection);
        }
        self.answer(tag, "OK Begin TLS now");
        self.leg.step(ClientStep::Secure);
        self.reading = Reading::Handshake;
    }

    /// RFC 2971: answers with who we are, and keeps who the client is for the upstream.
    fn handle_identity(&mut self, tag: &Tag, identity: ClientIdentity) {
        self.leg.say(reply::identity());
        self.answer(tag, "OK ID completed");
        if !identity.pairs.is_empty() {
            self.leg.step(ClientStep::Identified(identity));
        }
        self.count_command();
    }

    /// A synchronising literal is welcome, except for a login that is refused anyway.
    fn handle_literal(&mut self) {
        if !self.leg.offer.login
            && let Some(tag) = command::login_tag_of(self.leg.framer.command_so_far())
        {
            self.leg.framer.drop_command();
            return self.refuse_in_clear(tag);
        }
        self.leg.say("+ OK\r\n");
    }

    fn handle_outcome(&mut self, tag: Tag, mechanism: Mechanism, outcome: Outcome) {
        self.reading = Reading::Commands;
        match outcome {
            Outcome::Ask(challenge, exchange) => {
                self.leg.say(&format!("+ {challenge}\r\n"));
                self.reading = Reading::Exchange {
                    tag,
                    mechanism,
                    exchange,
                };
            }
            Outcome::Login(request) => self.await_outcome(tag, Some(mechanism), request),
            Outcome::Unfit(unfit) => self.refuse_unfit(tag, Some(mechanism), unfit),
            Outcome::Malformed(reason) => self.refuse_command(Some(&tag), &format!("BAD {reason}")),
            Outcome::Cancelled => self.refuse_command(Some(&tag), "BAD Authentication cancelled"),
        }
    }

    fn await_outcome(&mut self, tag: Tag, mechanism: Option<Mechanism>, request: LoginRequest) {
        self.leg.step(ClientStep::Login(request));
        self.reading = Reading::Outcome { tag, mechanism };
    }

    fn refuse_unfit(&mut self, tag: Tag, mechanism: Option<Mechanism>, unfit: UnfitCredentials) {
        let kind = self.leg.refuse_unfit(unfit);
        self.challenge_or_refuse(tag, mechanism, kind);
    }

    fn refuse_in_clear(&mut self, tag: Tag) {
        let kind = self.leg.refuse_in_clear();
        self.refuse_login(&tag, &kind);
    }

    /// A refusal of OAUTHBEARER or XOAUTH2 begins with a challenge.
    fn challenge_or_refuse(&mut self, tag: Tag, mechanism: Option<Mechanism>, kind: FaultKind) {
        match mechanism.and_then(|mechanism| refusal_challenge(mechanism, &kind)) {
            Some(challenge) => {
                self.leg.say(&format!("+ {challenge}\r\n"));
                self.reading = Reading::Challenged { tag, kind };
            }
            None => self.refuse_login(&tag, &kind),
        }
    }

    fn refuse_login(&mut self, tag: &Tag, kind: &FaultKind) {
        self.reading = Reading::Commands;
        self.answer(tag, &reply::refusal(kind));
        if self.leg.count_failure() {
            self.end_with_bye(FaultKind::TooManyFailures);
        }
    }

    fn refuse_command(&mut self, tag: Option<&Tag>, text: &str) {
        self.leg.say(&format!("{} {text}\r\n", tag.map_or("*", Tag::as_str)));
        if self.leg.count_bad_command() {
            self.end_with_bye(FaultKind::TooManyBadCommands);
        }
    }

    /// The client's stream cannot be followed any more.
    fn lose(&mut self, overlong: Overlong, tag: Option<&Tag>) {
        let kind = match overlong {
            Overlong::Line => FaultKind::LineTooLong,
            Overlong::Literal => FaultKind::LiteralTooLong,
        };
        self.leg.say(&format!(
            "{} {}\r\n",
            tag.map_or("*", Tag::as_str),
            reply::refusal(&kind)
        ));
        self.end_with_bye(kind);
    }

    fn end_with_bye(&mut self, kind: FaultKind) {
        self.leg.say(reply::farewell(&kind));
        self.end(Fault::new(kind));
    }

    fn end(&mut self, fault: Fault) {
        self.leg.step(ClientStep::End(fault));
        self.reading = Reading::Ended;
    }

    /// Answers a command that is fine, and brings the client no nearer to its login.
    fn answer_and_count(&mut self, tag: &Tag, text: &str) {
        self.answer(tag, text);
        self.count_command();
    }

    fn count_command(&mut self) {
        if self.leg.count_command() {
            self.end_with_bye(FaultKind::TooManyCommands);
        }
    }

    fn answer(&mut self, tag: &Tag, text: &str) {
        self.leg.say(&format!("{} {text}\r\n", tag.as_str()));
    }
}

impl ClientDialogue for ImapClient {
    fn handle_opened(&mut self) {
        self.leg
            .say(&reply::greeting(self.leg.offer, &self.promised, self.remote));
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
            self.reading = Reading::Commands;
        }
    }

    fn handle_refused(&mut self, fault: &Fault) {
        match std::mem::replace(&mut self.reading, Reading::Ended) {
            Reading::Outcome { tag, mechanism } => {
                for alert in fault.alerts() {
                    self.leg.say(&reply::untagged(alert));
                }
                self.challenge_or_refuse(tag, mechanism, fault.kind.clone());
            }
            // No login waits for its outcome.
            reading => self.reading = reading,
        }
    }

    fn poll_step(&mut self) -> Option<ClientStep> {
        while !self.leg.is_due() && self.advance() {}
        self.leg.pop_step()
    }

    fn into_accepted(self: Box<Self>, account: &str, for_client: &[u8]) -> Accepted {
        let tag = match &self.reading {
            Reading::Outcome { tag, .. } => Some(tag),
            _ => None,
        };
        let reply = reply::authenticated(tag, account);
        self.leg.into_accepted(for_client, &reply)
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
            Reading::Exchange { .. } => "waiting for the response to AUTHENTICATE",
            Reading::Handshake => "waiting for the TLS handshake with the client",
            Reading::Outcome { .. } => "waiting for the outcome of the login",
            Reading::Challenged { .. } => "waiting for the client's answer to the failure challenge",
            Reading::Ended => "ending",
        }
    }
}

/// A client may say of itself more than a login has room for (RFC 2971 §3.3).
const LONG_IDENTITY: Longer = Longer {
    is_longer: command::is_identity,
    bytes_max: ID_COMMAND_BYTES_MAX,
};
