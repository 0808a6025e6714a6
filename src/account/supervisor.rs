//! The actor that owns one account's credential. It decides and returns in microseconds; requests and writes are tasks of
//! their own that report their end as a message, whatever happens to them.
//!
//! How it fails: a refresh or a write that panics is one that failed for now. A supervisor that panics is replaced by the
//! next question (see [`super::accounts`]); who waited for it is told that nothing can be had now, or asks again.

mod held;
mod tasks;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::task::JoinHandle;

use super::accounts::{Shared, Slot};
use super::refresh::{Action, Answer, Failure, Input, Refresher, Renewal, TokenTimes};
use super::sessions::{LiveSession, Register, SessionLease};
use super::target::{Place, UpstreamTarget};
use super::writes::{Behind, Order, Replacement, Write, Writes};
use super::{AccountStatus, writes::Credentials};
use crate::clock::{SteadyClock, Timestamp};
use crate::config::Config;
use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::limits::SUPERVISOR_IDLE;
use crate::oauth::{TokenAnswer, TokenError, TokenErrorKind};
use crate::proto::session::Goodbye;
use crate::proto::{CredentialSecret, Protocol};
use crate::secret::{SecretString, duplicate};
use crate::store::{AccountRecord, AccountSecrets, AccountState, StoreError, TokenId};

use held::Held;

/// What a supervisor is asked, ordered and told.
#[derive(Debug)]
pub(super) enum Message {
    /// May this session live on the account?
    OpenSession(LiveSession, RpcReplyPort<Result<SessionLease, Fault>>),
    /// What is presented where?
    Credential {
        protocol: Protocol,
        refused: Option<u64>,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
    },
    /// How is the credential?
    Status(RpcReplyPort<AccountStatus>),
    /// Change the account.
    Order(Order),
    /// Send nothing new, and answer when all that was sent has ended and is kept.
    Drain(RpcReplyPort<()>),
    /// The register is empty again.
    LastSessionEnded,
    /// The configuration was reloaded.
    ConfigChanged,
    /// An upstream accepted the credential.
    UpstreamAccepted { grant: u64 },
    /// An upstream refused the credential for good.
    UpstreamRefused { grant: u64, refusal: UpstreamRefusal },
    /// A refresh ended.
    Refreshed {
        grant: u64,
        result: Result<TokenAnswer, TokenError>,
    },
    /// The save on its way ended.
    Saved(Result<(), StoreError>),
    /// A replacement ended; with the record that was written.
    Replaced(Replacement, Box<AccountRecord>, Result<(), StoreError>),
    /// A removal ended.
    Removed(
        RpcReplyPort<Result<Vec<TokenId>, StoreError>>,
        Result<Vec<TokenId>, StoreError>,
    ),
    /// The time that was waited for has come.
    TimeCame,
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
struct Waiter {
    place: Place,
    reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
}

/// A refreshed token that is not on disk yet, and so not in use.
#[derive(Debug)]
struct Uncommitted {
    grant: u64,
    times: TokenTimes,
    access_token: SecretString,
    /// Whether the save on its way includes it.
    is_being_saved: bool,
}

/// A supervisor's state.
pub(super) struct Supervised {
    myself: ActorRef<Message>,
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    clock: SteadyClock,
    held: Held,
    refresher: Refresher<Waiter>,
    /// The access token that is handed out.
    usable: Option<SecretString>,
    uncommitted: Option<Uncommitted>,
    writes: Writes,
    /// The grants whose refresh is on its way: more than one if credentials were replaced meanwhile.
    in_flight: Vec<u64>,
    last_refusal: Option<UpstreamRefusal>,
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
        let held = Held::new(setup.record, setup.secrets);
        let needs_authorization = held.record.state == AccountState::NeedsAuthorization;
        let refresher = if needs_authorization && held.uses_oauth() {
            Refresher::needing_authorization()
        } else {
            Refresher::new(held.token_times(now), held.renewal(), now, rand::random())
        };
        let usable = held.access_token().map(duplicate);
        Self {
            myself,
            shared: setup.shared,
            slot: setup.slot,
            clock,
            held,
            refresher,
            usable,
            uncommitted: None,
            writes: Writes::new(),
            in_flight: Vec::new(),
            last_refusal: None,
            drains: Vec::new(),
            last_used: now,
            timer: None,
        }
    }

    fn handle(&mut self, message: Message) {
        let now = self.clock.now();
        // A lease that was taken from a supervisor before this one tells only the register.
        let sessions = if self.register().is_empty() {
            Input::SessionsGone
        } else {
            Input::SessionsLive
        };
        self.decide(sessions, now);
        match message {
            Message::OpenSession(session, reply) => self.on_open_session(session, reply, now),
            Message::Credential {
                protocol,
                refused,
                reply,
            } => self.on_asked(protocol, refused, reply, now),
            Message::Status(reply) => drop(reply.send(self.status())),
            Message::Order(order) => self.on_order(order),
            Message::Drain(reply) => {
                self.drains.push(reply);
                self.writes.hurry();
                self.decide(Input::Draining, now);
            }
            Message::LastSessionEnded => {}
            Message::ConfigChanged => self.decide(Input::AppChanged, now),
            Message::UpstreamAccepted { grant } => self.on_accepted(grant),
            Message::UpstreamRefused { grant, refusal } => self.on_refused(grant, refusal, now),
            Message::Refreshed { grant, result } => self.on_refreshed(grant, result, now),
            Message::Saved(result) => self.on_saved(&result, now),
            Message::Replaced(replacement, written, result) => self.on_replaced(replacement, *written, result, now),
            Message::Removed(reply, result) => self.on_removed(reply, result),
            Message::TimeCame => {
                self.timer = None;
                self.decide(Input::DeadlinePassed, now);
                self.retire_if_idle(now);
            }
        }
        self.write(now);
        self.shared
            .note_unsaved(&self.held.record.account, self.writes.is_grant_refused());
        if self.in_flight.is_empty() && self.uncommitted.is_none() && self.writes.is_clean() {
            self.drains.drain(..).for_each(|reply| drop(reply.send(())));
        }
        self.arm(now);
    }

    fn on_open_session(
        &mut self,
        session: LiveSession,
        reply: RpcReplyPort<Result<SessionLease, Fault>>,
        now: Timestamp,
    ) {
        self.last_used = now;
        let config = self.config();
        let own_limit = config
            .providers
            .get(&self.held.record.provider)
            .and_then(|provider| provider.sessions_per_account_max);
        let limit = own_limit.unwrap_or(config.limits.sessions_per_account_max);
        let opened = if self.held.record.state == AccountState::Disabled {
            Err(Fault::new(FaultKind::AccountDisabled))
        } else {
            SessionLease::take(&self.slot, session, limit, self.myself.clone()).map_err(|live| {
                Fault::with_detail(
                    FaultKind::AccountLimit,
                    format!("{live} sessions are live, {limit} are allowed"),
                )
            })
        };
        if opened.is_ok() {
            self.decide(Input::SessionsLive, now);
        }
        // If nobody listens any more, the lease comes back with the error and is dropped, which ends it.
        drop(reply.send(opened));
    }

    fn on_asked(
        &mut self,
        protocol: Protocol,
        refused: Option<u64>,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
        now: Timestamp,
    ) {
        self.last_used = now;
        let place = match self.place(protocol) {
            Ok(place) => place,
            Err(fault) => return drop(reply.send(Err(fault))),
        };
        if self.held.uses_oauth() {
            let waiter = Waiter { place, reply };
            return self.decide(Input::Asked { waiter, refused }, now);
        }
        let answer = match self.held.password() {
            Some(_) if self.held.record.state == AccountState::NeedsAuthorization => Err(self.authorization_gone()),
            Some(password) => {
                let secret = CredentialSecret::Password(duplicate(password));
                Ok(place.with_secret(secret, self.refresher.grant()))
            }
            None => Err(Fault::with_detail(
                FaultKind::AuthorizationGone,
                "the account has no credentials",
            )),
        };
        drop(reply.send(answer));
    }

    fn place(&self, protocol: Protocol) -> Result<Place, Fault> {
        if self.held.record.state == AccountState::Disabled {
            return Err(Fault::new(FaultKind::AccountDisabled));
        }
        Place::find(&self.held.record, &self.config(), protocol)
    }

    /// Lets the policy decide, and carries out what it wants.
    fn decide(&mut self, input: Input<Waiter>, now: Timestamp) {
        for action in self.refresher.handle(input, now, rand::random()) {
            match action {
                Action::Send { grant } => self.send_refresh(grant),
                Action::Answer(waiter, answer) => self.answer(waiter, answer),
                Action::Defect(what) => {
                    let state = self.refresher.state_name();
                    tracing::error!(account = %self.held.record.account, state, "defect in the refresh policy: {what}");
                }
            }
        }
    }

    fn answer(&mut self, waiter: Waiter, answer: Answer) {
        let told = match (answer, &self.usable) {
            (Answer::Token, Some(token)) => {
                let secret = CredentialSecret::OAuth {
                    token: duplicate(token),
                    generation: self.refresher.generation(),
                };
                Ok(waiter.place.with_secret(secret, self.refresher.grant()))
            }
            (Answer::Token, None) => Err(Fault::with_detail(FaultKind::Internal, "no token where one is usable")),
            (Answer::Unavailable, _) => Err(Fault::unavailable(self.held.last_error())),
            (Answer::AppRefused, _) => Err(Fault::with_detail(FaultKind::AppRefused, self.held.last_error())),
            (Answer::NeedsAuthorization, _) => Err(self.authorization_gone()),
            (Answer::StillRefused, _) => Err(match &self.last_refusal {
                Some(refusal) => Fault::new(FaultKind::UpstreamRefused(refusal.clone())),
                None => Fault::unavailable("the upstream refuses a token that was refreshed less than a minute ago"),
            }),
        };
        if answer == Answer::NeedsAuthorization && self.held.record.state != AccountState::NeedsAuthorization {
            let now = self.clock.now();
            self.note(
                AccountState::NeedsAuthorization,
                Some(("no_refresh_token", "the access token has ended")),
                now,
            );
        }
        // Whoever has hung up meanwhile needs no answer.
        drop(waiter.reply.send(told));
    }

    fn authorization_gone(&self) -> Fault {
        Fault::with_detail(FaultKind::AuthorizationGone, self.held.last_error())
    }

    fn on_refreshed(&mut self, grant: u64, result: Result<TokenAnswer, TokenError>, now: Timestamp) {
        self.in_flight.retain(|sent| *sent != grant);
        if grant != self.refresher.grant() {
            tracing::debug!(account = %self.held.record.account, "a refresh ended whose grant has been replaced");
            return;
        }
        match result {
            Ok(answer) => {
                tracing::debug!(account = %self.held.record.account, life = ?answer.expires_in, "OAuth token refreshed");
                let times = TokenTimes {
                    obtained: now,
                    expires: now.after(answer.expires_in),
                };
                let access_token = duplicate(&answer.access_token);
                self.held.take_answer(answer, times);
                self.uncommitted = Some(Uncommitted {
                    grant,
                    times,
                    access_token,
                    is_being_saved: false,
                });
                self.note_refreshed(now);
                self.writes.mark(Behind::Grant);
            }
            Err(error) => {
                let (state, failure) = match error.kind {
                    TokenErrorKind::Grant => (AccountState::NeedsAuthorization, Failure::Grant),
                    TokenErrorKind::App => (AccountState::Failing, Failure::App),
                    TokenErrorKind::Temporary { retry_after } => {
                        (AccountState::Failing, Failure::Temporary { retry_after })
                    }
                };
                // IMPORTANT: before the waiters are answered, for their faults carry the error.
                self.note(state, Some((&error.code, &error.message)), now);
                self.decide(Input::Failed { grant, failure }, now);
            }
        }
    }

    /// A save ended. What it brought is used now; what the disk refused is used, too, for the old grant may be gone, and the
    /// account stays unsaved until a later attempt succeeds.
    fn on_saved(&mut self, result: &Result<(), StoreError>, now: Timestamp) {
        self.writes.on_saved(result, now);
        if let Err(StoreError::NotFound(_)) = result {
            tracing::error!(account = %self.held.record.account, "an account has vanished from the store");
            self.shared.retire(&self.held.record.account, &self.slot);
            return self.myself.stop(None);
        }
        if let Err(error) = result {
            tracing::error!(account = %self.held.record.account, %error, "an account cannot be written; it is kept in memory");
        }
        if let Some(done) = self.uncommitted.take_if(|uncommitted| uncommitted.is_being_saved) {
            self.usable = Some(done.access_token);
            let (grant, times) = (done.grant, done.times);
            self.decide(Input::Succeeded { grant, times }, now);
        }
    }

    fn on_order(&mut self, order: Order) {
        let order = match order {
            Order::Replace(mut replacement) => {
                let is_refreshing = self.in_flight.contains(&self.refresher.grant()) || self.uncommitted.is_some();
                if is_refreshing && let Credentials::New(secrets) = replacement.credentials {
                    // The answer on its way belongs to this very grant: it must not be lost.
                    replacement.credentials = match self.held.has_refresh_token_of(&secrets) {
                        true => Credentials::NewBesideGrant(secrets),
                        false => Credentials::New(secrets),
                    };
                }
                Order::Replace(replacement)
            }
            Order::Remove(reply) => Order::Remove(reply),
        };
        self.writes.order(order);
    }

    fn on_replaced(
        &mut self,
        replacement: Replacement,
        written: AccountRecord,
        result: Result<(), StoreError>,
        now: Timestamp,
    ) {
        self.writes.on_order_ended();
        if result.is_ok() {
            let Replacement {
                record, credentials, ..
            } = replacement;
            let has_new_grant = matches!(credentials, Credentials::New(_));
            self.held.replace(record, credentials);
            if self.held.record != written {
                // Its state changed while it was being written.
                self.writes.mark(Behind::State);
            }
            if has_new_grant {
                self.usable = self.held.access_token().map(duplicate);
                (self.uncommitted, self.last_refusal) = (None, None);
                let times = self.held.token_times(now);
                let renewal = self.held.renewal();
                self.decide(Input::GrantReplaced { times, renewal }, now);
            }
            if self.held.record.state == AccountState::Disabled {
                self.register().end(None, Goodbye::AccountDeleted);
            }
        }
        drop(replacement.reply.send(result));
    }

    fn on_removed(
        &mut self,
        reply: RpcReplyPort<Result<Vec<TokenId>, StoreError>>,
        result: Result<Vec<TokenId>, StoreError>,
    ) {
        self.writes.on_order_ended();
        if result.is_ok() {
            self.register().end(None, Goodbye::AccountDeleted);
            self.shared.retire(&self.held.record.account, &self.slot);
            // Waiters and later orders are dropped with the state: their askers find no account any more.
            self.myself.stop(None);
        }
        drop(reply.send(result));
    }

    fn on_accepted(&mut self, grant: u64) {
        if grant != self.refresher.grant() {
            return;
        }
        self.last_refusal = None;
        let is_over = match self.held.record.state {
            AccountState::New => true,
            // A token accepted upstream says nothing of a refresh that fails.
            AccountState::Failing => self.held.is_failing_upstream() || self.refresher.is_at_rest(),
            AccountState::NeedsAuthorization => !self.held.uses_oauth(),
            AccountState::Active | AccountState::Disabled => false,
        };
        if is_over {
            let now = self.clock.now();
            self.note(AccountState::Active, None, now);
        }
    }

    fn on_refused(&mut self, grant: u64, refusal: UpstreamRefusal, now: Timestamp) {
        if grant != self.refresher.grant() || !refusal.blames_credential {
            return;
        }
        let message = match &refusal.code {
            Some(code) => format!("the upstream refuses the credential: [{code}] {}", refusal.text),
            None => format!("the upstream refuses the credential: {}", refusal.text),
        };
        self.last_refusal = Some(refusal);
        let state = if self.held.uses_oauth() {
            AccountState::Failing
        } else {
            AccountState::NeedsAuthorization
        };
        self.note(state, Some((held::UPSTREAM_REFUSED, &message)), now);
    }

    fn note_refreshed(&mut self, now: Timestamp) {
        // A refresh that succeeds does not heal a mailbox whose upstream refuses the fresh tokens.
        if !self.held.is_failing_upstream() {
            self.note(AccountState::Active, None, now);
        }
    }

    /// Takes note of a state, and has it written if it is another.
    fn note(&mut self, state: AccountState, error: Option<(&str, &str)>, now: Timestamp) {
        if self.held.note(state, error, now) {
            self.writes.mark(Behind::State);
        }
    }

    fn status(&self) -> AccountStatus {
        AccountStatus {
            state: self.held.record.state,
            last_error: self.held.record.last_error.clone(),
            next_try: self.refresher.next_try(),
            expires: self.refresher.expires(),
        }
    }

    /// Starts the next write, if there is one.
    fn write(&mut self, now: Timestamp) {
        match self.writes.next(now) {
            None => {}
            Some(Write::Save) => {
                if let Some(uncommitted) = &mut self.uncommitted {
                    uncommitted.is_being_saved = true;
                }
                tasks::save(self);
            }
            Some(Write::Order(Order::Replace(replacement))) => tasks::replace(self, replacement),
            Some(Write::Order(Order::Remove(reply))) => tasks::remove(self, reply),
        }
    }

    fn send_refresh(&mut self, grant: u64) {
        self.in_flight.push(grant);
        tasks::refresh(self, grant);
    }

    /// Ends this supervisor if nobody has used it for a while and the store holds all that it knows.
    fn retire_if_idle(&mut self, now: Timestamp) {
        let is_idle = now >= self.last_used.after(SUPERVISOR_IDLE)
            && self.register().is_empty()
            && self.refresher.is_at_rest()
            && self.in_flight.is_empty()
            && self.writes.is_clean();
        if is_idle && self.shared.retire(&self.held.record.account, &self.slot) {
            self.myself.stop(None);
        }
    }

    /// Sees to it that this supervisor is woken when something is due. A timer that comes early is harmless.
    fn arm(&mut self, now: Timestamp) {
        let idle = match self.register().is_empty() && self.refresher.is_at_rest() {
            // Tried again later where it cannot end yet.
            true => Some(self.last_used.after(SUPERVISOR_IDLE).max(now.after(IDLE_CHECK_MIN))),
            false => None,
        };
        let due = [self.refresher.deadline(), self.writes.retry_at(), idle];
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
        self.shared.note_unsaved(&self.held.record.account, false);
    }
}

/// How long to wait at least before it is looked again whether the supervisor can end.
const IDLE_CHECK_MIN: std::time::Duration = std::time::Duration::from_secs(60);
