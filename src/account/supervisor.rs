//! The actor that owns one account's credential. It decides and returns in microseconds; requests and writes are tasks of
//! their own that report their end as a message, whatever happens to them.
//!
//! How it fails: a refresh or a write that panics is one that failed for now. A supervisor that panics is replaced by the
//! next question (see [`super::accounts`]); who waited for it is told that nothing can be had now, or asks again.

mod credential;
mod failures;
mod held;
mod keeping;
mod opening;
mod orders;
mod sharing;
mod tasks;

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::task::JoinHandle;

use super::AccountStatus;
use super::grants::Kept;
use super::refresh::{Input, Refresher};
use super::sessions::{LiveSession, Register, SessionLease, VisitLease};
use super::shared::{Shared, Slot};
use super::submissions::Submissions;
use super::target::UpstreamTarget;
use super::writes::{Order, Replacement, Writes};
use crate::clock::{SteadyClock, Timestamp};
use crate::config::Config;
use crate::fault::Fault;
use crate::limits::SUPERVISOR_IDLE;
use crate::oauth::TokenError;
use crate::proto::{CredentialSecret, Protocol};
use crate::store::{AccountRecord, AccountSecrets, AccountState, Grant, StoreError, TokenId};

use failures::Runs;
use held::Held;
pub(super) use held::{Way, is_upstreams};

/// What a supervisor is asked, ordered and told.
#[derive(Debug)]
pub(super) enum Message {
    /// May this session live on the account?
    OpenSession(LiveSession, RpcReplyPort<Result<SessionLease, Fault>>),
    /// May a verification log in over this protocol?
    Visit(Protocol, RpcReplyPort<Result<VisitLease, Fault>>),
    /// What is presented where?
    Credential {
        protocol: Protocol,
        purpose: Purpose,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
    },
    /// What does an account present that shares this one's grant? With the generation that its upstream has just refused.
    Lend {
        refused: Option<u64>,
        reply: RpcReplyPort<Result<CredentialSecret, Fault>>,
    },
    /// The account whose grant is shared has answered what to present at `protocol`.
    Lent {
        protocol: Protocol,
        secret: Result<CredentialSecret, Fault>,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
    },
    /// Renew the grant if it is due before `until_next` from now, and answer when that is over.
    KeepAlive {
        until_next: Duration,
        reply: RpcReplyPort<()>,
    },
    /// How is the credential?
    Status(RpcReplyPort<AccountStatus>),
    /// Change the account.
    Order(Order),
    /// Send nothing new, and answer when all that was sent has ended and is kept.
    Drain(RpcReplyPort<()>),
    /// A session ended that was the last one, or a submission, for whose slot somebody may wait.
    SessionEnded,
    /// The configuration was reloaded.
    ConfigChanged,
    /// An upstream accepted the credential.
    UpstreamAccepted { grant: u64, protocol: Protocol },
    /// A login failed; with the grant that was presented, if one was.
    LoginFailed {
        grant: Option<u64>,
        protocol: Protocol,
        fault: Fault,
    },
    /// A refresh ended.
    Refreshed {
        grant: u64,
        result: Result<Refreshed, TokenError>,
    },
    /// A refresh that waited for its turn was not sent, because the program stops.
    NotSent { grant: u64 },
    /// The save on its way ended.
    Saved(Result<(), StoreError>),
    /// A replacement ended; with the record that was written.
    Replaced(Box<Replacement>, Box<AccountRecord>, Result<(), StoreError>),
    /// A removal ended.
    Removed(
        RpcReplyPort<Result<Vec<TokenId>, StoreError>>,
        Result<Vec<TokenId>, StoreError>,
    ),
    /// The time that was waited for has come.
    TimeCame,
}

/// What a refresh brought, and what became of it at the store.
#[derive(Debug)]
pub(super) struct Refreshed {
    pub(super) grant: Grant,
    pub(super) kept: Kept,
}

/// What a credential is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A login; with the generation that an upstream has just refused.
    Login { refused: Option<u64> },
    /// To find out how the mailbox is: a password is tried although an upstream has refused it before. With the generation that
    /// an upstream has just refused.
    Verification { refused: Option<u64> },
}

/// The behaviour; everything that is kept is [`Supervised`].
pub(super) struct AccountSupervisor;

/// What a supervisor is started with.
pub(super) struct Setup {
    pub(super) record: AccountRecord,
    pub(super) secrets: AccountSecrets,
    pub(super) shared: Arc<Shared>,
    pub(super) slot: Arc<Slot>,
}

/// Somebody who asked for a credential. Dropping it unanswered tells them that, too.
#[derive(Debug)]
enum Waiter {
    /// A login.
    Login {
        /// Where that is, is looked up when they are answered: the account may have been replaced meanwhile.
        protocol: Protocol,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
    },
    /// The supervisor of an account that shares the grant.
    Sharer(RpcReplyPort<Result<CredentialSecret, Fault>>),
    /// Whoever keeps grants alive.
    Keeper(RpcReplyPort<()>),
}

/// A supervisor's state.
pub(super) struct Supervised {
    myself: ActorRef<Message>,
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    clock: SteadyClock,
    held: Held,
    refresher: Refresher<Waiter>,
    /// The protocols over which the upstream has accepted the credential, and the grant that it was.
    accepted: (u64, Vec<Protocol>),
    writes: Writes,
    /// The logins that wait for a submission slot.
    submissions: Submissions<opening::Applicant>,
    /// The grants whose refresh is on its way: more than one if credentials were replaced meanwhile.
    in_flight: Vec<u64>,
    /// The logins that fail.
    runs: Runs,
    drains: Vec<RpcReplyPort<()>>,
    last_used: Timestamp,
    timer: Option<(Timestamp, JoinHandle<()>)>,
}

impl Actor for AccountSupervisor {
    type Msg = Message;
    type State = Supervised;
    type Arguments = Setup;

    async fn pre_start(&self, myself: ActorRef<Message>, setup: Setup) -> Result<Supervised, ActorProcessingErr> {
        Ok(Supervised::new(myself, setup))
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        state: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(message);
        Ok(())
    }

    /// It has no children. The default would stop it with the first one that ends.
    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<Message>,
        _event: SupervisionEvent,
        _state: &mut Supervised,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

impl Supervised {
    fn new(myself: ActorRef<Message>, setup: Setup) -> Self {
        let clock = SteadyClock::start();
        let now = clock.now();
        let held = Held::new(setup.record, setup.secrets, &setup.shared.config());
        let needs_authorization = held.record.state == AccountState::NeedsAuthorization;
        // Of an app nobody can authorize anything: it is tried again.
        let refresher = if needs_authorization && held.has_tokens() && held.way != Way::App {
            Refresher::needing_authorization()
        } else {
            Refresher::new(held.token_times(now), held.renewal(), now, rand::random())
        };
        let runs = Runs::of(&held.record);
        Self {
            myself,
            shared: setup.shared,
            slot: setup.slot,
            clock,
            held,
            refresher,
            writes: Writes::new(),
            submissions: Submissions::new(),
            accepted: (0, Vec::new()),
            in_flight: Vec::new(),
            runs,
            drains: Vec::new(),
            last_used: now,
            timer: None,
        }
    }

    fn handle(&mut self, message: Message) {
        let now = self.clock.now();
        let state_before = self.held.record.state;
        self.follow_config(now);
        // A lease that was taken from a supervisor before this one tells only the register.
        let sessions = if self.register().is_empty() {
            Input::SessionsGone
        } else {
            Input::SessionsLive
        };
        self.decide(sessions, now);
        match message {
            Message::OpenSession(session, reply) => self.on_open_session(session, reply, now),
            Message::Visit(protocol, reply) => self.on_visit(protocol, reply, now),
            Message::Credential {
                protocol,
                purpose,
                reply,
            } => self.on_asked(protocol, purpose, reply, now),
            Message::Lend { refused, reply } => self.on_lend(refused, reply, now),
            Message::Lent {
                protocol,
                secret,
                reply,
            } => self.on_lent(protocol, secret, reply),
            Message::KeepAlive { until_next, reply } => self.on_keep_alive(until_next, reply, now),
            Message::Status(reply) => drop(reply.send(self.status())),
            Message::Order(order) => self.on_order(order),
            Message::Drain(reply) => {
                self.drains.push(reply);
                self.writes.hurry();
                self.decide(Input::Draining, now);
            }
            Message::SessionEnded => {}
            Message::ConfigChanged => self.decide(Input::AppChanged, now),
            Message::UpstreamAccepted { grant, protocol } => self.on_accepted(grant, protocol),
            Message::LoginFailed { grant, protocol, fault } => self.on_failed(grant, protocol, &fault, now),
            Message::Refreshed { grant, result } => self.on_refreshed(grant, result, now),
            Message::NotSent { grant } => self.on_not_sent(grant, now),
            Message::Saved(result) => self.on_saved(&result, now),
            Message::Replaced(replacement, written, result) => self.on_replaced(*replacement, &written, result, now),
            Message::Removed(reply, result) => self.on_removed(reply, result),
            Message::TimeCame => {
                self.timer = None;
                self.decide(Input::DeadlinePassed, now);
                self.retire_if_idle(now);
            }
        }
        self.admit_waiting(now);
        self.follow_config(now);
        self.publish_state(state_before, now);
        self.write(now);
        self.shared
            .note_ending(&self.held.record.account, self.held.ending(now));
        self.shared
            .note_failing(&self.held.record.account, self.held.record.failures);
        if self.in_flight.is_empty() && self.writes.is_clean() {
            self.drains.drain(..).for_each(|reply| drop(reply.send(())));
        }
        self.arm(now);
    }

    fn status(&self) -> AccountStatus {
        AccountStatus {
            state: self.held.record.state,
            last_error: self.held.record.last_error.clone(),
            failures: self.held.record.failures,
            next_try: self.refresher.next_try().map(|moment| self.clock.to_wall(moment)),
            expires: self.held.expires(),
            scope: self.held.secrets.grant.as_ref().and_then(|grant| grant.scope.clone()),
            grant_ends: self.held.grant_ends(),
        }
    }

    /// Ends this supervisor if nobody has used it for a while and the store holds all that it knows.
    fn retire_if_idle(&mut self, now: Timestamp) {
        let is_idle = now >= self.last_used.after(SUPERVISOR_IDLE)
            && self.slot.is_dispensable()
            && self.refresher.is_at_rest(now)
            && self.in_flight.is_empty()
            && self.writes.is_clean();
        if is_idle {
            self.shared.retire(&self.held.record.account, &self.slot);
            self.myself.stop(None);
        }
    }

    /// Sees to it that this supervisor is woken when something is due. A timer that comes early is harmless.
    fn arm(&mut self, now: Timestamp) {
        let idle = match self.register().is_empty() && !self.refresher.is_refreshing() {
            // Tried again later where it cannot end yet.
            true => Some(self.last_used.after(SUPERVISOR_IDLE).max(now.after(IDLE_CHECK_MIN))),
            false => None,
        };
        let due = [
            self.refresher.deadline(),
            self.writes.due(),
            self.submissions.deadline(),
            idle,
        ];
        let Some(due) = due.into_iter().flatten().min() else {
            return;
        };
        if self.timer.as_ref().is_some_and(|(armed, _)| *armed <= due) {
            return;
        }
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
        self.timer = Some((due, tasks::wake(self.myself.clone(), due.since(now))));
    }

    fn register(&self) -> &Register {
        &self.slot.register
    }

    fn config(&self) -> Arc<Config> {
        self.shared.config()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some((_, timer)) = self.timer.take() {
            timer.abort();
        }
    }
}

/// How long to wait at least before it is looked again whether the supervisor can end.
const IDLE_CHECK_MIN: Duration = Duration::from_secs(60);
