//! The states, each a struct with what it may know and nothing else, consumed by its transitions.
//!
//! The client's token is in nobody's hands here: it goes from the dialogue, where it arrives, into
//! [`Action::CheckLogin`], and its checker drops it. The OAuth token or password is in the upstream
//! dialogue of [`LoggingIn`] and [`Securing`] only. [`State::Relay`] has no field.
//!
//! Two clocks run. The client has `pre_auth_timeout` in all for its part, from accept to the end of login's input; the time
//! that the proxy and the upstream take for a login is not held against it, other than that of a token that is refused. A login has `login_timeout`, its retry included.

use std::time::Instant;

use super::machine::Core;
use super::{Action, Admission, Goodbye, Input, LoginRequest, Phase, Report, Transition, UpstreamReady};
use crate::fault::{Fault, FaultKind};
use crate::limits::UPSTREAM_TEXT_CHARS_MAX;
use crate::proto::CredentialSecret;
use crate::proto::dialogue::{
    ClientDialogue, ClientIdentity, ClientStep, UpstreamDialogue, UpstreamGreeted, UpstreamStep,
};

/// Where a session is and what it holds there.
pub(super) enum State {
    Greeting(Greeting),
    Auth(Auth),
    Upgrading(Upgrading),
    Checking(Checking),
    Connecting(Connecting),
    Securing(Securing),
    LoggingIn(LoggingIn),
    Relay,
    Closed,
}

/// The connection is not open yet.
pub(super) struct Greeting {
    client: ClientLeg,
    deadline: Instant,
}

/// The client is to give its login.
pub(super) struct Auth {
    client: ClientLeg,
    deadline: Instant,
}

/// The TLS handshake of STARTTLS is under way on the client's leg.
pub(super) struct Upgrading(Auth);

/// The client's token is being checked.
pub(super) struct Checking {
    client: ClientLeg,
    attempt: Attempt,
}

/// The account's credential is being obtained and the upstream leg opened.
pub(super) struct Connecting {
    client: ClientLeg,
    attempt: Attempt,
    account: String,
    retry: Retry,
}

/// The upstream leg is being logged in on.
pub(super) struct LoggingIn {
    /// What is needed to go back, for the retry.
    before: Connecting,
    upstream: Box<dyn UpstreamDialogue>,
    /// Which of the account's OAuth tokens is being presented; `None` for a password.
    generation: Option<u64>,
}

/// The TLS handshake of STARTTLS is under way on the upstream leg.
pub(super) struct Securing(LoggingIn);

/// The client's side of a session that is not relayed yet.
struct ClientLeg {
    dialogue: Box<dyn ClientDialogue>,
    identity: Option<ClientIdentity>,
}

/// One login attempt.
struct Attempt {
    user: Option<String>,
    since: Instant,
    deadline: Instant,
    /// The deadline of the client's part, as it was when the attempt began.
    pre_auth_deadline: Instant,
}

/// Whether a refused OAuth token may still be replaced by a fresh one.
enum Retry {
    Possible,
    /// It was to be replaced, after this refusal.
    Spent(Fault),
}

type Next = (State, Transition);

impl State {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Greeting(_) => Phase::Greeting,
            Self::Auth(_) | Self::Upgrading(_) | Self::Checking(_) => Phase::Auth,
            Self::Connecting(_) | Self::Securing(_) | Self::LoggingIn(_) => Phase::UpstreamConnect,
            Self::Relay => Phase::Relay,
            Self::Closed => Phase::Closed,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "waiting for the connection to open",
            Self::Auth(phase) => phase.client.dialogue.state_name(),
            Self::Upgrading(_) => UPGRADING,
            Self::Checking(_) => CHECKING,
            Self::Connecting(_) => CONNECTING,
            Self::Securing(_) => SECURING,
            Self::LoggingIn(phase) => phase.upstream.state_name(),
            Self::Relay => "relaying",
            Self::Closed => "closed",
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Greeting(phase) => Some(phase.deadline),
            Self::Auth(phase) | Self::Upgrading(Upgrading(phase)) => Some(phase.deadline),
            Self::Checking(phase) => Some(phase.attempt.deadline),
            Self::Connecting(phase) => Some(phase.attempt.deadline),
            Self::Securing(Securing(phase)) | Self::LoggingIn(phase) => Some(phase.before.attempt.deadline),
            Self::Relay | Self::Closed => None,
        }
    }

    pub(super) fn client(&self) -> Option<&dyn ClientDialogue> {
        let leg = match self {
            Self::Greeting(phase) => &phase.client,
            Self::Auth(phase) | Self::Upgrading(Upgrading(phase)) => &phase.client,
            Self::Checking(phase) => &phase.client,
            Self::Connecting(phase) => &phase.client,
            Self::Securing(Securing(phase)) | Self::LoggingIn(phase) => &phase.before.client,
            Self::Relay | Self::Closed => return None,
        };
        Some(leg.dialogue.as_ref())
    }
}

impl Greeting {
    pub(super) fn new(dialogue: Box<dyn ClientDialogue>, deadline: Instant) -> Self {
        Self {
            client: ClientLeg {
                dialogue,
                identity: None,
            },
            deadline,
        }
    }

    pub(super) fn handle(mut self, input: Input<'_>, core: &mut Core) -> Next {
        let taken = match input {
            Input::Opened => {
                self.client.dialogue.handle_opened();
                State::Auth(Auth {
                    client: self.client,
                    deadline: self.deadline,
                })
            }
            Input::ClientBytes(_) | Input::ClientEof => {
                self.client.feed(&input);
                State::Greeting(self)
            }
            Input::DeadlinePassed => self.client.time_out(core),
            Input::Goodbye(goodbye) => core.say_goodbye(goodbye),
            _ => return (State::Greeting(self), Transition::Invalid),
        };
        (taken, Transition::Taken)
    }
}

impl Auth {
    pub(super) fn handle(mut self, input: Input<'_>, core: &mut Core) -> Next {
        let taken = match input {
            Input::ClientBytes(_) | Input::ClientEof => {
                self.client.feed(&input);
                State::Auth(self)
            }
            Input::DeadlinePassed => self.client.time_out(core),
            Input::Goodbye(goodbye) => core.say_goodbye(goodbye),
            Input::Opened | Input::ClientSecured => return (State::Auth(self), Transition::Invalid),
            // An attempt has just been abandoned, and its answer was on the way.
            Input::LoginChecked(_)
            | Input::UpstreamConnected(_)
            | Input::UpstreamBytes(_)
            | Input::UpstreamEof
            | Input::UpstreamSecured(_) => return (State::Auth(self), Transition::NoOp),
        };
        (taken, Transition::Taken)
    }

    /// Takes one step of the client's dialogue, if there is one.
    pub(super) fn advance(mut self, core: &mut Core) -> State {
        match self.client.dialogue.poll_step() {
            None => State::Auth(self),
            Some(ClientStep::Send(bytes)) => {
                core.act(Action::SendClient(bytes));
                State::Auth(self)
            }
            Some(ClientStep::Secure) => {
                core.act(Action::SecureClient);
                State::Upgrading(Upgrading(self))
            }
            Some(ClientStep::Identified(identity)) => {
                core.report(Report::ClientIdentified(rendered(&identity)));
                self.client.identity = Some(identity);
                State::Auth(self)
            }
            Some(ClientStep::LoginRefused { user, fault }) => {
                core.report(Report::LoginRefused { user, fault });
                State::Auth(self)
            }
            Some(ClientStep::Login(request)) => State::Checking(self.begin_login(request, core)),
            Some(ClientStep::End(fault)) => {
                core.report(Report::Ended(fault));
                core.close()
            }
        }
    }

    fn begin_login(self, request: LoginRequest, core: &mut Core) -> Checking {
        let attempt = Attempt {
            user: request.user.clone(),
            since: core.now,
            deadline: core.now + core.login_timeout,
            pre_auth_deadline: self.deadline,
        };
        core.act(Action::CheckLogin(request));
        Checking {
            client: self.client,
            attempt,
        }
    }
}

impl Upgrading {
    pub(super) fn handle(self, input: Input<'_>, core: &mut Core) -> Next {
        let Self(mut auth) = self;
        let taken = match input {
            Input::ClientSecured => {
                // What was said in clear may have been somebody else's word (RFC 9051 §6.2.1, RFC 3207 §4.2).
                auth.client.identity = None;
                auth.client.dialogue.handle_secured();
                State::Auth(auth)
            }
            // Neither can be told in the middle of a handshake.
            Input::DeadlinePassed => {
                core.report(pre_auth_timeout(UPGRADING));
                core.close()
            }
            Input::Goodbye(_) => core.close(),
            // Bytes that are fed here would be plaintext believed behind STARTTLS.
            _ => return (State::Upgrading(Self(auth)), Transition::Invalid),
        };
        (taken, Transition::Taken)
    }
}

impl Checking {
    pub(super) fn handle(mut self, input: Input<'_>, core: &mut Core) -> Next {
        let taken = match input {
            Input::ClientBytes(_) | Input::ClientEof => {
                self.client.feed(&input);
                State::Checking(self)
            }
            Input::LoginChecked(Ok(Admission { account })) => {
                core.act(Action::ConnectUpstream { refused: None });
                State::Connecting(Connecting {
                    client: self.client,
                    attempt: self.attempt,
                    account,
                    retry: Retry::Possible,
                })
            }
            // A check takes no time but what the refusal is held back for, which counts as the client's own.
            Input::LoginChecked(Err(fault)) => {
                let since = core.now;
                Attempt { since, ..self.attempt }.refuse(self.client, &fault, core)
            }
            Input::DeadlinePassed => self.attempt.abandon(self.client, &timed_out(CHECKING), core),
            Input::Goodbye(goodbye) => self.attempt.end(goodbye, core),
            _ => return (State::Checking(self), Transition::Invalid),
        };
        (taken, Transition::Taken)
    }
}

impl Connecting {
    pub(super) fn handle(mut self, input: Input<'_>, core: &mut Core) -> Next {
        let taken = match input {
            Input::ClientBytes(_) | Input::ClientEof => {
                self.client.feed(&input);
                State::Connecting(self)
            }
            Input::UpstreamConnected(Ok(ready)) => State::LoggingIn(self.begin_dialogue(ready, core)),
            Input::UpstreamConnected(Err(fault)) => {
                let fault = self.without_upstream(fault);
                self.abandon(&fault, core)
            }
            Input::DeadlinePassed => self.abandon(&timed_out(CONNECTING), core),
            Input::Goodbye(goodbye) => self.attempt.end(goodbye, core),
            // The leg that refused the token before may still have said something.
            Input::UpstreamBytes(_) | Input::UpstreamEof if matches!(self.retry, Retry::Spent(_)) => {
                return (State::Connecting(self), Transition::NoOp);
            }
            _ => return (State::Connecting(self), Transition::Invalid),
        };
        (taken, Transition::Taken)
    }

    fn begin_dialogue(self, ready: UpstreamReady, core: &Core) -> LoggingIn {
        let generation = match &ready.credential.secret {
            CredentialSecret::OAuth { generation, .. } => Some(*generation),
            CredentialSecret::Password(_) => None,
        };
        LoggingIn {
            upstream: core.upstream.dialogue(ready, self.client.identity.clone()),
            generation,
            before: self,
        }
    }

    /// What the client hears when no leg could be opened. If that is because the refused token is the only one there is, the
    /// refusal stands, in the upstream's own words.
    fn without_upstream(&self, fault: Fault) -> Fault {
        match (&self.retry, &fault.kind) {
            (Retry::Spent(first), FaultKind::UpstreamRefused(_)) => first.clone(),
            _ => fault,
        }
    }

    fn abandon(self, fault: &Fault, core: &mut Core) -> State {
        self.attempt.abandon(self.client, fault, core)
    }
}

impl LoggingIn {
    pub(super) fn handle(mut self, input: Input<'_>, core: &mut Core) -> Next {
        match input {
            Input::ClientBytes(_) | Input::ClientEof => self.before.client.feed(&input),
            Input::UpstreamBytes(bytes) => self.upstream.handle_bytes(bytes),
            Input::UpstreamEof => self.upstream.handle_eof(),
            Input::DeadlinePassed => {
                let fault = timed_out(self.upstream.state_name());
                return (self.before.abandon(&fault, core), Transition::Taken);
            }
            Input::Goodbye(goodbye) => return (self.before.attempt.end(goodbye, core), Transition::Taken),
            _ => return (State::LoggingIn(self), Transition::Invalid),
        }
        (State::LoggingIn(self), Transition::Taken)
    }

    /// Takes one step of the upstream's dialogue, if there is one.
    pub(super) fn advance(mut self, core: &mut Core) -> State {
        match self.upstream.poll_step() {
            None => State::LoggingIn(self),
            Some(UpstreamStep::Send(bytes)) => {
                core.act(Action::SendUpstream(bytes));
                State::LoggingIn(self)
            }
            Some(UpstreamStep::Challenged(text)) => {
                core.report(Report::UpstreamChallenge(text));
                State::LoggingIn(self)
            }
            Some(UpstreamStep::Learned(said)) => {
                core.report(Report::UpstreamSaid(said));
                State::LoggingIn(self)
            }
            Some(UpstreamStep::Secure) => {
                core.act(Action::SecureUpstream);
                State::Securing(Securing(self))
            }
            Some(UpstreamStep::LoggedIn(greeted)) => self.before.hand_over(greeted, core),
            Some(UpstreamStep::Failed(fault)) => self.fail(&fault, core),
        }
    }

    /// An upstream that blames the credential for an OAuth token gets one retry with a fresh one before the client hears of it.
    fn fail(self, fault: &Fault, core: &mut Core) -> State {
        match (&fault.kind, self.generation, &self.before.retry) {
            (FaultKind::UpstreamRefused(refusal), Some(generation), Retry::Possible) if refusal.blames_credential => {
                core.report(Report::RetryingWithFreshToken(fault.to_string()));
                core.act(Action::ConnectUpstream {
                    refused: Some(generation),
                });
                State::Connecting(Connecting {
                    retry: Retry::Spent(fault.clone()),
                    ..self.before
                })
            }
            _ => self.before.abandon(fault, core),
        }
    }
}

impl Connecting {
    /// The mailbox is open: tells the client, and lets go of everything but the two streams.
    fn hand_over(self, greeted: UpstreamGreeted, core: &mut Core) -> State {
        let accepted = self.client.dialogue.into_accepted(&self.account, &greeted.for_client);
        core.act(Action::SendClient(accepted.to_client));
        core.report(Report::LoggedIn);
        core.act(Action::BeginRelay {
            to_client: greeted.surplus,
            to_upstream: accepted.to_upstream,
        });
        State::Relay
    }
}

impl Securing {
    pub(super) fn handle(mut self, input: Input<'_>, core: &mut Core) -> Next {
        let taken = match input {
            Input::ClientBytes(_) | Input::ClientEof => {
                self.0.before.client.feed(&input);
                State::Securing(self)
            }
            Input::UpstreamSecured(Ok(())) => {
                self.0.upstream.handle_secured();
                State::LoggingIn(self.0)
            }
            Input::UpstreamSecured(Err(fault)) => self.0.before.abandon(&fault, core),
            Input::DeadlinePassed => self.0.before.abandon(&timed_out(SECURING), core),
            Input::Goodbye(goodbye) => self.0.before.attempt.end(goodbye, core),
            // The handshake owns the stream: bytes that are fed here would be plaintext believed behind STARTTLS.
            _ => return (State::Securing(self), Transition::Invalid),
        };
        (taken, Transition::Taken)
    }
}

impl ClientLeg {
    fn feed(&mut self, input: &Input<'_>) {
        match input {
            Input::ClientBytes(bytes) => self.dialogue.handle_bytes(bytes),
            _ => self.dialogue.handle_eof(),
        }
    }

    /// The client's time is over.
    fn time_out(self, core: &mut Core) -> State {
        core.say_farewell(self.dialogue.farewell(&FaultKind::PreAuthTimeout));
        core.report(pre_auth_timeout(self.dialogue.state_name()));
        core.close()
    }
}

impl Attempt {
    /// Refuses the login. The client goes on where its own clock stood when the attempt began.
    fn refuse(self, mut client: ClientLeg, fault: &Fault, core: &mut Core) -> State {
        client.dialogue.handle_refused(fault);
        core.report(Report::LoginRefused {
            user: self.user,
            fault: fault.clone(),
        });
        State::Auth(Auth {
            client,
            deadline: self.pre_auth_deadline + core.now.saturating_duration_since(self.since),
        })
    }

    /// Refuses the login while something may be in flight for it.
    fn abandon(self, client: ClientLeg, fault: &Fault, core: &mut Core) -> State {
        core.act(Action::AbandonLogin);
        self.refuse(client, fault, core)
    }

    /// The session ends in the middle of the login.
    fn end(self, goodbye: Goodbye, core: &mut Core) -> State {
        core.report(Report::LoginRefused {
            user: self.user,
            fault: Fault::unavailable(format_args!(
                "the session was ended during its login: {}",
                goodbye.label().replace('_', " ")
            )),
        });
        core.say_goodbye(goodbye)
    }
}

fn pre_auth_timeout(state: &str) -> Report {
    Report::Ended(Fault::with_detail(
        FaultKind::PreAuthTimeout,
        format_args!("pre_auth_timeout passed while {state}"),
    ))
}

fn timed_out(state: &str) -> Fault {
    Fault::unavailable(format_args!("login_timeout passed while {state}"))
}

/// A client's identity as one printable, bounded line: `name=Thunderbird version=140.0`.
fn rendered(identity: &ClientIdentity) -> String {
    let pairs = identity
        .pairs
        .iter()
        .filter_map(|(field, value)| Some((field, value.as_ref()?)));
    let line = pairs
        .map(|(field, value)| format!("{field}={value}"))
        .collect::<Vec<_>>()
        .join(" ");
    line.chars()
        .map(|character| {
            if character.is_ascii_graphic() || character == ' ' {
                character
            } else {
                '?'
            }
        })
        .take(UPSTREAM_TEXT_CHARS_MAX)
        .collect()
}

const UPGRADING: &str = "waiting for the TLS handshake with the client";
const CHECKING: &str = "checking the access token";
const CONNECTING: &str = "obtaining the credential and connecting to the upstream";
const SECURING: &str = "waiting for the TLS handshake with the upstream";
