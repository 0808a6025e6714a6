//! The actor of one client connection: it answers at any moment, because its task does the work.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use ractor::{Actor, ActorProcessingErr, ActorRef, ActorRuntime, RpcReplyPort};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{debug, error, info, warn};

use super::Services;
use super::driver::{Driver, RelayParts};
use super::register::{Entered, Entry, SessionView};
use crate::account::{SessionId, SessionLease, meaning};
use crate::clock::{self, Timestamp};
use crate::config;
use crate::limits::{CLOSE_DRAIN, GIVE_WAY_DRAIN};
use crate::metrics::names;
use crate::net::admission::Permit;
use crate::net::listener::{Admitted, Arrival, Refused};
use crate::net::relay::{Relay, RelayEnd, Traffic};
use crate::net::stream::Stream;
use crate::net::tls::ServerTls;
use crate::proto::dialogue::UpstreamRemark;
use crate::proto::session::{Goodbye, Phase};
use crate::proto::{self, Protocol};
use crate::store::TokenId;
use crate::usage;

/// What a client was accepted on.
#[derive(Clone)]
pub struct Listener {
    /// Its configuration.
    pub settings: config::Listener,
    /// TLS with the client, at the time that the settings tell.
    pub tls: Option<ServerTls>,
}

impl Listener {
    /// TLS with the client from the first byte.
    pub(super) fn implicit_tls(&self) -> Option<&ServerTls> {
        let tls = self.tls.as_ref();
        tls.filter(|_| self.settings.tls == config::ListenerTls::Implicit)
    }

    /// TLS with the client when it asks for it.
    pub(super) fn starttls(&self) -> Option<&ServerTls> {
        let tls = self.tls.as_ref();
        tls.filter(|_| self.settings.tls == config::ListenerTls::Starttls)
    }
}

/// Takes over what has arrived at a listener. Does not wait: the accept loop goes on.
pub fn accept(services: &Arc<Services>, listener: &Arc<Listener>, arrival: Arrival) {
    let protocol = listener.settings.protocol;
    match arrival {
        Arrival::Admitted(admitted) => {
            names::connections_accepted(protocol).increment(1);
            if let Some(stranger) = admitted.displaced {
                // One that cannot be told any more is leaving by itself.
                services.sessions.end(SessionId(stranger), Goodbye::GaveWay);
            }
            let session = SessionId::next();
            let arguments = Arguments {
                services: services.clone(),
                session,
                listener: listener.clone(),
                admitted,
            };
            // `pre_start` does no I/O that could fail.
            if let Err(error) = ActorRuntime::spawn_instant(None, Connection, arguments) {
                error!(%session, %error, "cannot start a session");
            }
        }
        Arrival::Refused(refused) => {
            names::connections_refused(protocol, refused.refusal.label()).increment(1);
            let (remote, limit) = (refused.remote, refused.refusal.label());
            match services.refusals.may_say(remote.ip(), None, limit) {
                Some(unsaid) => info!(%remote, limit, unsaid, "connection refused"),
                None => debug!(%remote, limit, "connection refused"),
            }
            tokio::spawn(refuse(listener.clone(), refused));
        }
        Arrival::Dropped { refusal, remote } => {
            names::connections_refused(protocol, refusal.label()).increment(1);
            debug!(%remote, limit = refusal.label(), "connection refused without a word");
        }
        Arrival::Unannounced { error, peer } => services.hints.on_unannounced(protocol, peer, &error),
    }
}

/// Tells a client that there is no place for it.
async fn refuse(listener: Arc<Listener>, refused: Refused) {
    let stream = match listener.implicit_tls() {
        Some(tls) => match tls.accept(refused.tcp, CLOSE_DRAIN).await {
            Ok(stream) => stream,
            Err(error) => return debug!(remote = %refused.remote, %error, "no TLS with a client that is refused"),
        },
        None => Stream::from(refused.tcp),
    };
    stream
        .part(&proto::refusal(listener.settings.protocol), CLOSE_DRAIN)
        .await;
}

/// One client connection.
struct Connection;

/// What a connection is told.
pub(super) enum Message {
    /// Describe the session for an administrator.
    Describe(RpcReplyPort<SessionView>),
    /// End the session, with a farewell where the client can understand it.
    End(Goodbye),
    /// End the session at once, without a word.
    Abort(&'static str),
    /// The login's task has entered another phase.
    PhaseChanged(Phase),
    /// The client told what it is.
    Identified(String),
    /// A login was admitted; it may still fail upstream.
    Admitted {
        /// The account's id.
        account: String,
        /// The access token's id.
        token: TokenId,
    },
    /// The login attempt was refused, and recorded.
    Refused,
    /// The login's task has ended with a session to relay.
    LoggedIn(Box<RelayParts>),
    /// The upstream has said to the client what the account's owner ought to know.
    Remarked(UpstreamRemark),
    /// The task of the session has ended.
    Ended(&'static str),
}

impl From<Goodbye> for Message {
    fn from(goodbye: Goodbye) -> Self {
        Self::End(goodbye)
    }
}

impl TryFrom<Message> for Goodbye {
    type Error = ();

    fn try_from(message: Message) -> Result<Self, ()> {
        match message {
            Message::End(goodbye) => Ok(goodbye),
            _ => Err(()),
        }
    }
}

/// What a connection is started with.
struct Arguments {
    services: Arc<Services>,
    session: SessionId,
    listener: Arc<Listener>,
    admitted: Admitted,
}

/// What a connection owns. Dropping it ends everything.
struct State {
    services: Arc<Services>,
    session: SessionId,
    entered: Entered,
    phase: PhaseGauge,
    remote: SocketAddr,
    local: SocketAddr,
    since: Timestamp,
    client: Option<String>,
    account: Option<String>,
    token: Option<TokenId>,
    goodbye: Option<oneshot::Sender<Goodbye>>,
    task: AbortOnDrop,
    relayed: Option<Relayed>,
    /// The proxy counts the session until this is dropped.
    permit: Permit,
}

/// What a connection knows of its relay.
struct Relayed {
    upstream: Option<SocketAddr>,
    provider: String,
    /// Which of the account's grants the upstream was shown.
    grant: u64,
    traffic: Arc<Traffic>,
    since: Instant,
    /// Held for its `Drop`: the account counts the session until then.
    _lease: SessionLease,
}

impl Actor for Connection {
    type Msg = Message;
    type State = State;
    type Arguments = Arguments;

    async fn pre_start(&self, myself: ActorRef<Message>, arguments: Arguments) -> Result<State, ActorProcessingErr> {
        let Arguments {
            services,
            session,
            listener,
            admitted,
        } = arguments;
        let Admitted {
            tcp,
            remote,
            balancer,
            local,
            accepted_at,
            mut permit,
            displaced: _,
        } = admitted;
        let protocol = listener.settings.protocol;
        let entered = services.sessions.enter(
            session,
            Entry {
                actor: myself.clone(),
                protocol,
                account: None,
                relayed: None,
            },
        );
        // From now on it can be found, and told to go.
        permit.is_stranger(session.0);
        let (goodbye, goodbye_order) = oneshot::channel();
        debug!(%session, %protocol, %remote, balancer = balancer.map(tracing::field::display), "session begins");
        let driver = Driver {
            services: services.clone(),
            session,
            listener,
            tcp,
            remote,
            local,
            balancer,
            accepted_at,
            actor: myself.clone(),
            goodbye: goodbye_order,
        };
        Ok(State {
            task: spawn_login(driver, myself),
            services,
            session,
            entered,
            phase: PhaseGauge::new(protocol),
            remote,
            local,
            since: clock::now(),
            client: None,
            account: None,
            token: None,
            goodbye: Some(goodbye),
            relayed: None,
            permit,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<Message>,
        message: Message,
        state: &mut State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            Message::Describe(reply) => {
                // The caller may have given up waiting.
                reply.send(state.describe()).ok();
            }
            Message::End(goodbye) => state.end(goodbye, &myself),
            Message::Abort(reason) => state.finish(reason, &myself),
            Message::PhaseChanged(phase) => state.phase.enter(phase),
            Message::Identified(client) => state.client = Some(client),
            Message::Admitted { account, token } => {
                state.permit.has_logged_in();
                state.entered.admitted(&account);
                (state.account, state.token) = (Some(account), Some(token));
            }
            Message::Refused => {
                state.permit.is_stranger(state.session.0);
                state.entered.refused();
                (state.account, state.token) = (None, None);
            }
            Message::LoggedIn(parts) => state.relay(*parts, myself),
            Message::Remarked(remark) => state.on_remark(remark),
            Message::Ended(reason) => state.finish(reason, &myself),
        }
        Ok(())
    }
}

impl State {
    fn describe(&self) -> SessionView {
        let (bytes_up, bytes_down) = self.relayed.as_ref().map_or((0, 0), Relayed::bytes);
        SessionView {
            id: self.session,
            protocol: self.phase.protocol,
            account: self.account.clone(),
            token: self.token,
            remote_address: self.remote,
            local_address: self.local,
            upstream_address: self.relayed.as_ref().and_then(|relayed| relayed.upstream),
            client: self.client.clone(),
            phase: self.phase.phase.name(),
            since: self.since,
            bytes_up,
            bytes_down,
        }
    }

    /// Passes the order on to the task, once, and makes sure that the session ends even if its client reads nothing.
    fn end(&mut self, goodbye: Goodbye, myself: &ActorRef<Message>) {
        if let Some(order) = self.goodbye.take() {
            // The receiver goes from the login's task to the relay's, so the order is heard whichever runs. Both say it at
            // once or not at all, so what the abort cuts off is the wait for the client to hang up, never the farewell.
            order.send(goodbye).ok();
            let within = match goodbye {
                Goodbye::GaveWay => {
                    self.note_giving_way();
                    GIVE_WAY_DRAIN
                }
                _ => CLOSE_DRAIN,
            };
            myself.send_after(within, move || Message::Abort(goodbye.label()));
        }
    }

    fn note_giving_way(&self) {
        let (session, remote, reason) = (self.session, self.remote, Goodbye::GaveWay.label());
        names::connections_refused(self.phase.protocol, reason).increment(1);
        match self.services.refusals.may_say(remote.ip(), None, reason) {
            Some(unsaid) => info!(%session, %remote, unsaid, "ended before login: a newcomer needs its place"),
            None => debug!(%session, %remote, "ended before login: a newcomer needs its place"),
        }
    }

    fn relay(&mut self, parts: RelayParts, myself: ActorRef<Message>) {
        let protocol = self.phase.protocol;
        self.record_login(parts.login_seconds);
        let traffic = Arc::new(Traffic::default());
        let relay = Relay::new(
            parts.client,
            parts.upstream,
            parts.to_client,
            parts.to_upstream,
            proto::boundaries(protocol),
            traffic.clone(),
            parts.goodbye,
        );
        self.phase.enter(Phase::Relay);
        self.entered
            .relayed(traffic.clone(), parts.provider.clone(), clock::instant());
        self.relayed = Some(Relayed {
            provider: parts.provider,
            grant: parts.grant,
            upstream: parts.upstream_address,
            traffic,
            since: clock::instant(),
            _lease: parts.lease,
        });
        let session = self.session;
        self.task = AbortOnDrop::spawn(async move {
            let reason = match AssertUnwindSafe(relay).catch_unwind().await {
                Ok(end) => take_leave(session, protocol, end).await,
                Err(_) => PANICKED,
            };
            // Without its actor the session is over already.
            myself.cast(Message::Ended(reason)).ok();
        });
    }

    /// The upstream took the login and does not serve the mailbox: that is a refusal which came late.
    fn on_remark(&self, remark: UpstreamRemark) {
        let (Some(account), Some(relayed)) = (&self.account, &self.relayed) else {
            return;
        };
        let protocol = self.phase.protocol;
        let fault = remark.fault();
        let meaning = meaning::of_fault(protocol, &fault).map(|meaning| meaning.explanation.to_string());
        let (session, provider) = (self.session, &relayed.provider);
        warn!(%session, account, provider, %fault, meaning, "the upstream does not serve a mailbox that it let in");
        let accounts = &self.services.accounts;
        accounts.report_failed(account, Some(relayed.grant), protocol, &fault);
    }

    /// Takes leave: the usage event, the summary line, and the actor's own end, which releases the rest.
    fn finish(&mut self, reason: &'static str, myself: &ActorRef<Message>) {
        let now = clock::instant();
        if let Some(remark) = self.entered.settle(now) {
            self.on_remark(remark);
        }
        if let Some(relayed) = self.relayed.take() {
            let (up, down) = relayed.bytes();
            let duration = now.saturating_duration_since(relayed.since);
            self.record_end(usage::Traffic { up, down, duration }, reason);
            let (session, account) = (self.session, self.account.as_deref());
            let seconds = duration.as_secs_f64();
            info!(%session, account, remote = %self.remote, reason, bytes_up = up, bytes_down = down, seconds, "session ended");
        } else {
            self.record_denied(reason);
            debug!(session = %self.session, remote = %self.remote, reason, "session ended before a login");
        }
        if reason == PANICKED {
            error!(session = %self.session, "a session's task panicked; the session has been ended");
        }
        myself.stop(None);
    }

    fn record_login(&self, seconds: f64) {
        let protocol = self.phase.protocol;
        names::logins(protocol, names::OUTCOME_OK).increment(1);
        names::login_duration(protocol).record(seconds);
        // A session that is relayed was admitted, so both are known.
        if let (Some(account), Some(token)) = (&self.account, self.token) {
            self.services.usage.login(&self.facts(), account, token, clock::now());
            info!(session = %self.session, account, remote = %self.remote, seconds, "logged in");
        }
    }

    fn record_end(&self, traffic: usage::Traffic, reason: &str) {
        if let (Some(account), Some(token)) = (&self.account, self.token) {
            self.services
                .usage
                .end(&self.facts(), account, token, traffic, reason, clock::now());
        }
    }

    /// Records a login that was admitted and neither refused nor relayed: it was ended on its way.
    fn record_denied(&self, reason: &'static str) {
        if let (Some(account), Some(token)) = (&self.account, self.token) {
            names::logins(self.phase.protocol, reason).increment(1);
            self.services
                .usage
                .denied(&self.facts(), Some(account.clone()), Some(token), reason, clock::now());
        }
    }

    fn facts(&self) -> usage::SessionFacts {
        usage::SessionFacts {
            protocol: self.phase.protocol,
            remote_address: self.remote.ip(),
            client: self.client.clone(),
        }
    }
}

impl Relayed {
    /// Bytes (up, down) so far.
    fn bytes(&self) -> (u64, u64) {
        (self.traffic.up(), self.traffic.down())
    }
}

/// Keeps the metric of live sessions by phase in step with one session.
struct PhaseGauge {
    protocol: Protocol,
    phase: Phase,
}

impl PhaseGauge {
    fn new(protocol: Protocol) -> Self {
        names::sessions(protocol, Phase::Greeting.name()).increment(1);
        Self {
            protocol,
            phase: Phase::Greeting,
        }
    }

    fn enter(&mut self, phase: Phase) {
        names::sessions(self.protocol, self.phase.name()).decrement(1);
        names::sessions(self.protocol, phase.name()).increment(1);
        self.phase = phase;
    }
}

impl Drop for PhaseGauge {
    fn drop(&mut self) {
        names::sessions(self.protocol, self.phase.name()).decrement(1);
    }
}

/// A task that does not outlive its owner.
struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs the login as a task of its own; its large future is gone when the relay begins.
fn spawn_login(driver: Driver, myself: ActorRef<Message>) -> AbortOnDrop {
    AbortOnDrop::spawn(async move {
        let message = match AssertUnwindSafe(Box::pin(driver.run())).catch_unwind().await {
            Ok(Some(parts)) => Message::LoggedIn(Box::new(parts)),
            Ok(None) => Message::Ended("not_logged_in"),
            Err(_) => Message::Ended(PANICKED),
        };
        // Without its actor the session is over already.
        myself.cast(message).ok();
    })
}

/// Says the farewell that a relay's end calls for, and names the end for usage events and the log.
async fn take_leave(session: SessionId, protocol: Protocol, end: RelayEnd) -> &'static str {
    match end {
        RelayEnd::ClientClosed => "client_closed",
        RelayEnd::UpstreamClosed => "upstream_closed",
        RelayEnd::Goodbye { goodbye, client } => {
            if let Some(client) = client {
                client.part(&proto::goodbye(protocol, goodbye), CLOSE_DRAIN).await;
            }
            goodbye.label()
        }
        RelayEnd::ClientError(error) => {
            debug!(%session, %error, "the client's leg broke");
            "client_error"
        }
        RelayEnd::UpstreamError(error) => {
            debug!(%session, %error, "the upstream leg broke");
            "upstream_error"
        }
    }
}

const PANICKED: &str = "panic";
