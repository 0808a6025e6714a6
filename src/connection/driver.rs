//! The login of one connection: drives a [`Session`] with bytes and facts, and carries out its actions.
//!
//! The driver is gone when the relay begins; what the relay needs of it leaves as [`RelayParts`]. A leg that breaks while it
//! is written is told to the session as that leg's end, after the actions in hand, so that there is one way to end.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ractor::ActorRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout, timeout_at};
use tracing::{Level, debug, error, info, warn};

use super::Services;
use super::actor::{Listener, Message};
use super::attempt::{Attempt, Check, Outcome, Upstream};
use super::open;
use super::opening::{Beginning, Opening};
use crate::account::{SessionId, SessionLease, meaning};
use crate::clock;
use crate::config::{Config, PlaintextAuth};
use crate::fault::{Fault, FaultKind};
use crate::limits::CLOSE_DRAIN;
use crate::metrics::names;
use crate::net::first_bytes::is_tls_record;
use crate::net::stream::Stream;
use crate::net::tls::ServerTls;
use crate::proto::Protocol;
use crate::proto::session::{
    Action, Admission, ClientSecurity, ForwardedClient, Goodbye, Input, LoginRequest, Phase, Report, Session,
    SessionContext, SessionLimits, Transition,
};
use crate::usage::SessionFacts;

/// The task of a connection that is not logged in yet.
pub(super) struct Driver {
    pub(super) services: Arc<Services>,
    pub(super) session: SessionId,
    pub(super) listener: Arc<Listener>,
    pub(super) tcp: TcpStream,
    pub(super) remote: SocketAddr,
    /// Where the client connected to.
    pub(super) local: SocketAddr,
    /// The load balancer that speaks for the client.
    pub(super) balancer: Option<SocketAddr>,
    /// From when the time for a login counts.
    pub(super) accepted_at: Instant,
    pub(super) actor: ActorRef<Message>,
    pub(super) goodbye: oneshot::Receiver<Goodbye>,
}

/// What a session is relayed with.
pub(super) struct RelayParts {
    pub(super) client: Stream,
    pub(super) upstream: Stream,
    pub(super) upstream_address: Option<SocketAddr>,
    pub(super) provider: String,
    /// Which of the account's grants the upstream was shown.
    pub(super) grant: u64,
    /// From the client's credentials to their answer.
    pub(super) login_seconds: f64,
    pub(super) to_client: Bytes,
    pub(super) to_upstream: Bytes,
    pub(super) goodbye: oneshot::Receiver<Goodbye>,
    pub(super) lease: SessionLease,
}

impl Driver {
    /// Runs the session up to its login. `None`: it ended before.
    pub(super) async fn run(self) -> Option<RelayParts> {
        let config = self.services.config();
        let settings = &self.listener.settings;
        let mut goodbye = self.goodbye;
        let opening = Opening {
            services: self.services.clone(),
            protocol: settings.protocol,
            session: self.session,
            remote: self.remote,
            balancer: self.balancer,
            seen: Vec::new(),
        };
        let client = match self.listener.implicit_tls() {
            Some(tls) => {
                let waited = clock::instant().saturating_duration_since(self.accepted_at);
                let within = config.limits.pre_auth_timeout.saturating_sub(waited);
                tokio::select! {
                    accepted = opening.accept_tls(tls, self.tcp, within) => accepted?,
                    // Nothing can be said before the handshake is done.
                    Ok(_) = &mut goodbye => return None,
                }
            }
            None => Stream::from(self.tcp),
        };
        let starttls = self.listener.starttls().cloned();
        let remote = self.remote.ip();
        let context = SessionContext {
            protocol: settings.protocol,
            remote_address: remote,
            hostname: config.server.hostname.as_str().into(),
            security: match (client.is_tls(), &starttls) {
                (true, _) => ClientSecurity::Secured,
                (false, Some(_)) => ClientSecurity::StartTls,
                (false, None) => ClientSecurity::Clear,
            },
            plaintext_login: match settings.plaintext_auth {
                PlaintextAuth::Never => false,
                PlaintextAuth::Loopback => remote.is_loopback(),
                PlaintextAuth::Always => true,
            },
            promised: self.services.promised(&config, settings).await,
            limits: session_limits(&config),
        };
        let login = Login {
            session: Session::new(&context, self.accepted_at),
            facts: SessionFacts {
                protocol: settings.protocol,
                remote_address: remote,
                client: None,
            },
            services: self.services,
            config,
            session_id: self.session,
            remote: self.remote,
            local: self.local,
            accepted_at: self.accepted_at,
            actor: self.actor,
            opening: (!client.is_tls()).then_some(opening),
            client,
            starttls,
            client_loss: None,
            client_buffer: open::buffer(),
            phase: Phase::Greeting,
            attempt: None,
        };
        login.run(goodbye).await
    }
}

/// A running login.
struct Login {
    session: Session,
    services: Arc<Services>,
    config: Arc<Config>,
    session_id: SessionId,
    remote: SocketAddr,
    local: SocketAddr,
    accepted_at: Instant,
    /// What usage events say of the session.
    facts: SessionFacts,
    actor: ActorRef<Message>,
    /// Until the first bytes have said what they are, where they come in clear.
    opening: Option<Opening>,
    client: Stream,
    /// What STARTTLS begins, where it is offered.
    starttls: Option<ServerTls>,
    /// How a write to the client has failed, if one has.
    client_loss: Option<ClientLoss>,
    client_buffer: Box<[u8]>,
    phase: Phase,
    attempt: Option<Attempt>,
}

/// Why nothing more is written to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientLoss {
    /// Its socket is gone. What it sent before is still there to be read, up to its end: a script that pipelines all that it has
    /// to say and closes without reading means what it said.
    Gone,
    /// It does not read, which the session is to hear as its end.
    Stalled,
    /// The session has heard that.
    Ended,
}

/// What woke a login.
enum Woken {
    Client(std::io::Result<usize>),
    Upstream(std::io::Result<usize>),
    Done(Outcome),
    Deadline,
    Goodbye(Goodbye),
}

/// What an action leads to.
enum Next {
    Continue,
    Secure,
    Relay { to_client: Bytes, to_upstream: Bytes },
    Close,
}

impl Login {
    async fn run(mut self, mut goodbye: oneshot::Receiver<Goodbye>) -> Option<RelayParts> {
        self.tell(Input::Opened);
        loop {
            while let Some(action) = self.session.poll_action() {
                match self.perform(action).await {
                    Next::Continue => {}
                    Next::Secure => self = self.secure_client(&mut goodbye).await?,
                    Next::Relay { to_client, to_upstream } => {
                        return self.into_relay(to_client, to_upstream, goodbye);
                    }
                    Next::Close => {
                        self.close().await;
                        return None;
                    }
                }
            }
            self.tell_phase();
            if self.client_loss == Some(ClientLoss::Stalled) {
                self.client_loss = Some(ClientLoss::Ended);
                self.tell(Input::ClientEof);
                continue;
            }
            if self.take_upstream_lost() {
                self.tell(Input::UpstreamEof);
                continue;
            }
            match self.wait(&mut goodbye).await {
                Woken::Client(Ok(count)) if self.is_out_of_place(count) => {
                    self.close().await;
                    return None;
                }
                Woken::Client(read) => self.on_client_read(read),
                Woken::Upstream(read) => self.on_upstream_read(read),
                Woken::Done(outcome) => self.on_done(outcome),
                Woken::Deadline => self.tell(Input::DeadlinePassed),
                Woken::Goodbye(reason) => self.tell(Input::Goodbye(reason)),
            }
        }
    }

    /// Does the TLS handshake that STARTTLS has promised. `None`: it failed, and with it the connection; nothing can be said.
    async fn secure_client(self, goodbye: &mut oneshot::Receiver<Goodbye>) -> Option<Self> {
        let (tcp, tls) = (self.client.into_tcp()?, self.starttls?);
        let deadline = self.session.deadline().unwrap_or_else(clock::instant);
        let within = deadline.saturating_duration_since(clock::instant());
        let (session, remote, protocol) = (self.session_id, self.remote, self.facts.protocol);
        let services = Arc::clone(&self.services);
        let handshake = async {
            let mut first = [0];
            match timeout(within, tcp.peek(&mut first)).await {
                // What was sent in clear, but came too late to be seen behind the command.
                Ok(Ok(1..)) if !is_tls_record(&first) => {
                    count_injection(protocol);
                    debug!(%session, %remote, "bytes in clear where TLS was to begin");
                    Stream::from(tcp).part(b"", CLOSE_DRAIN).await;
                    None
                }
                Ok(Ok(1..)) => {
                    let accepted = tls
                        .accept(tcp, deadline.saturating_duration_since(clock::instant()))
                        .await;
                    accepted
                        .inspect_err(|error| services.hints.on_no_tls(protocol, session, remote, error))
                        .ok()
                }
                Err(_) => {
                    debug!(%session, %remote, "pre_auth_timeout passed while waiting for the TLS handshake with the client");
                    None
                }
                // The client is gone.
                Ok(_) => None,
            }
        };
        let client = tokio::select! {
            secured = handshake => secured?,
            Ok(_) = goodbye => return None,
        };
        let mut secured = Self {
            client,
            starttls: None,
            ..self
        };
        secured.tell(Input::ClientSecured);
        Some(secured)
    }

    async fn perform(&mut self, action: Action) -> Next {
        match action {
            Action::SendClient(bytes) => self.send_client(&bytes).await,
            Action::SecureClient => return Next::Secure,
            Action::SendUpstream(bytes) => self.send_upstream(&bytes).await,
            Action::CheckLogin(request) => self.check_login(request),
            Action::ConnectUpstream { refused } => self.connect_upstream(refused),
            Action::SecureUpstream => self.secure_upstream(),
            Action::Report(report) => self.on_report(report),
            Action::AbandonLogin => self.abandon(),
            Action::BeginRelay { to_client, to_upstream } => return Next::Relay { to_client, to_upstream },
            Action::Close => return Next::Close,
        }
        Next::Continue
    }

    /// Waits for whatever happens first. Cancel-safe: what was not returned has not been taken.
    async fn wait(&mut self, goodbye: &mut oneshot::Receiver<Goodbye>) -> Woken {
        let deadline = self.session.deadline();
        let (work, upstream) = match &mut self.attempt {
            Some(Attempt { work: Some(work), .. }) => (Some(work), None),
            Some(Attempt { upstream, .. }) => (None, upstream.as_mut()),
            None => (None, None),
        };
        tokio::select! {
            // The sender lives in the actor that owns this task.
            Ok(reason) = goodbye => Woken::Goodbye(reason),
            read = self.client.read(&mut self.client_buffer), if self.session.wants_client_bytes() => Woken::Client(read),
            read = async {
                match upstream {
                    Some(upstream) => upstream.leg.stream.read(&mut upstream.buffer).await,
                    None => pending().await,
                }
            } => Woken::Upstream(read),
            outcome = async {
                match work {
                    Some(work) => work.await,
                    None => pending().await,
                }
            } => Woken::Done(outcome),
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => pending().await,
                }
            } => Woken::Deadline,
        }
    }

    /// Tells the session.
    fn tell(&mut self, input: Input<'_>) {
        if self.session.handle(input, clock::instant()) == Transition::Invalid {
            error!(session = %self.session_id, state = self.session.state_name(), "the session was told what it cannot hear");
        }
    }

    /// Tells the actor of a change of phase. The relay's beginning it learns from the hand-over.
    fn tell_phase(&mut self) {
        let phase = self.session.phase();
        if phase != self.phase {
            self.phase = phase;
            self.cast(Message::PhaseChanged(phase));
        }
    }

    /// Whether these are among the client's first bytes, and of no mail protocol.
    fn is_out_of_place(&mut self, count: usize) -> bool {
        let Some(opening) = &mut self.opening else {
            return false;
        };
        let beginning = opening.on_clear_bytes(self.client_buffer.get(..count).unwrap_or_default());
        if beginning != Beginning::Undecided {
            self.opening = None;
        }
        beginning == Beginning::OutOfPlace
    }

    fn on_client_read(&mut self, read: std::io::Result<usize>) {
        match read {
            Ok(count) if count > 0 => {
                let buffer = std::mem::take(&mut self.client_buffer);
                self.tell(Input::ClientBytes(buffer.get(..count).unwrap_or_default()));
                self.client_buffer = buffer;
            }
            Ok(_) => self.tell(Input::ClientEof),
            Err(error) => {
                debug!(session = %self.session_id, %error, "the client's leg broke");
                self.tell(Input::ClientEof);
            }
        }
    }

    fn on_upstream_read(&mut self, read: std::io::Result<usize>) {
        let count = match read {
            Ok(count) => count,
            Err(error) => {
                debug!(session = %self.session_id, %error, "the upstream leg broke");
                0
            }
        };
        let Some(upstream) = self.upstream() else { return };
        if count == 0 {
            self.tell(Input::UpstreamEof);
            return;
        }
        let buffer = std::mem::take(&mut upstream.buffer);
        self.tell(Input::UpstreamBytes(buffer.get(..count).unwrap_or_default()));
        if let Some(upstream) = self.upstream() {
            upstream.buffer = buffer;
        }
    }

    /// Tells the session how the work in hand ended.
    fn on_done(&mut self, outcome: Outcome) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.work = None;
        let input = match outcome {
            Outcome::Checked(checked) => {
                (attempt.account, attempt.token, attempt.lease) = (checked.account, checked.token, checked.lease);
                // The clients' own doing is no measure of the proxy.
                attempt.begun += checked.delayed;
                if let (Ok(Admission { account }), Some(token)) = (&checked.result, attempt.token) {
                    let account = account.clone();
                    self.cast(Message::Admitted { account, token });
                }
                Input::LoginChecked(checked.result)
            }
            Outcome::Connected(grant, Ok((leg, target))) => {
                let mut ready = open::ready(&target);
                ready.forwarded = target.provider.forward_client_address.then(|| ForwardedClient {
                    remote: self.remote,
                    local: self.local,
                    session: self.session_id.to_string(),
                });
                attempt.grant = grant;
                attempt.target = Some(*target);
                attempt.upstream = Some(Upstream::new(leg));
                Input::UpstreamConnected(Ok(ready))
            }
            Outcome::Connected(grant, Err(fault)) => {
                attempt.grant = grant.or(attempt.grant);
                Input::UpstreamConnected(Err(fault))
            }
            Outcome::Secured(Ok(leg)) => {
                attempt.upstream = Some(Upstream::new(leg));
                Input::UpstreamSecured(Ok(()))
            }
            Outcome::Secured(Err(fault)) => Input::UpstreamSecured(Err(fault)),
        };
        self.tell(input);
    }

    fn check_login(&mut self, request: LoginRequest) {
        let check = Check {
            services: self.services.clone(),
            request,
            protocol: self.facts.protocol,
            address: self.remote.ip(),
            delay_max: self.delay_max(),
            session: self.session_id,
            actor: self.actor.clone(),
        };
        let work = Box::pin(async move { Outcome::Checked(check.run().await) });
        self.attempt = Some(Attempt::begin(clock::instant(), work));
    }

    /// How long a refusal may be delayed at most. It is told before the client's time is over, and well before that of the
    /// login, for what is late counts as temporary trouble.
    fn delay_max(&self) -> Duration {
        let limits = &self.config.limits;
        let since = clock::instant().saturating_duration_since(self.accepted_at);
        let left = limits.pre_auth_timeout.saturating_sub(since);
        limits.auth_failure_delay.min(left).min(limits.login_timeout / 2)
    }

    fn connect_upstream(&mut self, refused: Option<u64>) {
        let Some(attempt) = &mut self.attempt else { return };
        let Some(account) = attempt.account.clone() else { return };
        (attempt.target, attempt.upstream) = (None, None);
        let (services, protocol) = (self.services.clone(), self.facts.protocol);
        let limit = self.config.limits.upstream_connect_timeout;
        attempt.work = Some(Box::pin(async move {
            let mut grant = None;
            let connect = async {
                services.throttles.check(&account, protocol, clock::instant())?;
                let target = services.accounts.credential(&account, protocol, refused).await?;
                grant = Some(target.grant);
                let leg = open::open(&target, protocol, &services.trust, limit).await?;
                Ok((leg, Box::new(target)))
            };
            let connected = connect.await;
            Outcome::Connected(grant, connected)
        }));
    }

    fn secure_upstream(&mut self) {
        let Some(attempt) = &mut self.attempt else { return };
        let (Some(target), Some(Upstream { leg, .. })) = (attempt.target.clone(), attempt.upstream.take()) else {
            return;
        };
        let services = self.services.clone();
        let limit = self.config.limits.upstream_connect_timeout;
        attempt.work = Some(Box::pin(async move {
            let (provider, host) = (&target.provider, &target.endpoint.host);
            Outcome::Secured(open::secure(leg, provider, host, &services.trust, limit).await)
        }));
    }

    /// Gives back what a login attempt held. A token refresh that it waited for goes on by itself.
    fn abandon(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            (attempt.work, attempt.upstream, attempt.lease) = (None, None, None);
        }
    }

    async fn send_client(&mut self, bytes: &[u8]) {
        if self.client_loss.is_some() {
            return;
        }
        let error = match timeout_at(self.write_deadline().into(), open::send(&mut self.client, bytes)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                self.client_loss = Some(ClientLoss::Gone);
                error
            }
            Err(elapsed) => {
                self.client_loss = Some(ClientLoss::Stalled);
                elapsed.into()
            }
        };
        debug!(session = %self.session_id, %error, "cannot write to the client");
    }

    async fn send_upstream(&mut self, bytes: &[u8]) {
        let (session, deadline) = (self.session_id, self.write_deadline());
        let Some(upstream) = self.upstream().filter(|upstream| !upstream.is_lost) else {
            return;
        };
        let sent = timeout_at(deadline.into(), open::send(&mut upstream.leg.stream, bytes)).await;
        if let Err(error) = sent.map_err(std::io::Error::from).flatten() {
            upstream.is_lost = true;
            debug!(%session, %error, "cannot write to the upstream");
        }
    }

    /// Until when a write may take: as long as the session waits for an answer; the answer to a login as long as the login;
    /// last words not long.
    fn write_deadline(&self) -> Instant {
        self.session.deadline().unwrap_or_else(|| match &self.attempt {
            Some(attempt) if self.session.phase() == Phase::Relay => attempt.begun + self.config.limits.login_timeout,
            _ => clock::instant() + CLOSE_DRAIN,
        })
    }

    /// The upstream leg, where it is open.
    fn upstream(&mut self) -> Option<&mut Upstream> {
        self.attempt.as_mut()?.upstream.as_mut()
    }

    fn take_upstream_lost(&mut self) -> bool {
        self.upstream()
            .is_some_and(|upstream| std::mem::take(&mut upstream.is_lost))
    }

    /// Half-closes, so that the client gets what was written, and drains what it still sends, so that the kernel does not
    /// answer it with a reset that would destroy the last reply on its way (RFC 9293 §3.10.7.1).
    async fn close(&mut self) {
        let Self {
            client, client_buffer, ..
        } = self;
        let drained = timeout(CLOSE_DRAIN, async {
            client.shutdown().await?;
            while client.read(client_buffer).await? > 0 {}
            Ok::<_, std::io::Error>(())
        });
        if !matches!(drained.await, Ok(Ok(()))) {
            debug!(session = %self.session_id, "the client did not end its side");
        }
    }

    /// What the relay takes over. `None` where the client is there and has not received all of its answer: nothing may follow it
    /// then. Of a client that is gone, what it sent is relayed all the same.
    fn into_relay(
        self,
        to_client: Bytes,
        to_upstream: Bytes,
        goodbye: oneshot::Receiver<Goodbye>,
    ) -> Option<RelayParts> {
        let attempt = self.attempt?;
        let Upstream { leg, .. } = attempt.upstream?;
        if matches!(self.client_loss, Some(ClientLoss::Stalled | ClientLoss::Ended)) {
            return None;
        }
        Some(RelayParts {
            client: self.client,
            upstream: leg.stream,
            upstream_address: leg.address,
            provider: attempt.target?.provider.name.clone(),
            grant: attempt.grant?,
            login_seconds: clock::instant().saturating_duration_since(attempt.begun).as_secs_f64(),
            to_client,
            to_upstream,
            goodbye,
            lease: attempt.lease?,
        })
    }

    fn on_report(&mut self, report: Report) {
        let (session, remote) = (self.session_id, self.remote);
        match report {
            Report::ClientIdentified(client) => {
                self.cast(Message::Identified(client.clone()));
                self.facts.client = Some(client);
            }
            Report::LoggedIn => self.on_logged_in(),
            Report::LoginRefused { user, fault } => self.on_login_refused(user, &fault),
            Report::Ended(fault) => {
                if fault.kind == FaultKind::StartTlsInjection {
                    count_injection(self.facts.protocol);
                }
                let refusals = &self.services.refusals;
                let unsaid = match fault.kind.log_level() {
                    Level::DEBUG => None,
                    _ => refusals.may_say(remote.ip(), None, fault.kind.label()),
                };
                match unsaid {
                    Some(unsaid) => info!(%session, %remote, %fault, unsaid, "ended before login"),
                    None => debug!(%session, %remote, %fault, "ended before login"),
                }
            }
            Report::UpstreamSaid(said) => {
                if let Some(target) = self.attempt.as_ref().and_then(|attempt| attempt.target.as_ref()) {
                    self.services.upstreams.learn(target, self.facts.protocol, &said);
                }
            }
            Report::UpstreamChallenge(challenge) => {
                let account = self.account();
                info!(%session, account, %challenge, "the upstream explained its refusal");
            }
            Report::RetryingWithFreshToken(refusal) => {
                let account = self.account();
                warn!(%session, account, refusal, "the upstream refused a valid OAuth token; trying once with a fresh one");
            }
        }
    }

    /// Tells the account's supervisor that the credential is good. The login itself is recorded by the actor, when it takes
    /// over what is relayed.
    fn on_logged_in(&self) {
        if let Some(Attempt {
            account: Some(account),
            target: Some(target),
            ..
        }) = &self.attempt
        {
            self.services
                .accounts
                .report_accepted(account, target.grant, self.facts.protocol);
        }
    }

    fn on_login_refused(&mut self, user: Option<String>, fault: &Fault) {
        let (mut account, mut token) = (None, None);
        if let Some(attempt) = self.attempt.take() {
            let seconds = clock::instant().saturating_duration_since(attempt.begun).as_secs_f64();
            names::login_duration(self.facts.protocol).record(seconds);
            if let Some(account) = &attempt.account {
                let protocol = self.facts.protocol;
                self.services
                    .accounts
                    .report_failed(account, attempt.grant, protocol, fault);
            }
            (account, token) = (attempt.account, attempt.token);
        }
        if let Some(account) = &account {
            let throttles = &self.services.throttles;
            throttles.note(account, self.facts.protocol, fault, clock::instant());
        }
        self.cast(Message::Refused);
        let reason = fault.kind.label();
        names::logins(self.facts.protocol, reason).increment(1);
        self.services
            .usage
            .denied(&self.facts, account.clone(), token, reason, clock::now());
        let (session, remote) = (self.session_id, self.remote);
        let unsaid = self.services.refusals.may_say(remote.ip(), account.as_deref(), reason);
        let level = if unsaid.is_some() {
            fault.kind.log_level()
        } else {
            Level::DEBUG
        };
        let user = account.or_else(|| user.and_then(|user| loggable(&user)));
        let meaning = meaning::of_fault(self.facts.protocol, fault).map(|meaning| meaning.explanation.to_string());
        let alerts = (!fault.alerts().is_empty()).then(|| fault.alerts().join("; "));
        match level {
            Level::ERROR => error!(%session, user, %remote, %fault, alerts, meaning, unsaid, "login refused"),
            Level::WARN => warn!(%session, user, %remote, %fault, alerts, meaning, unsaid, "login refused"),
            Level::INFO => info!(%session, user, %remote, %fault, alerts, meaning, unsaid, "login refused"),
            _ => debug!(%session, user, %remote, %fault, alerts, meaning, unsaid, "login refused"),
        }
    }

    fn account(&self) -> Option<&str> {
        self.attempt.as_ref()?.account.as_deref()
    }

    fn cast(&self, message: Message) {
        // Without its actor this task is about to be aborted.
        self.actor.cast(message).ok();
    }
}

/// Counts bytes in clear behind STARTTLS, whether they came with the command or where the handshake was to begin.
fn count_injection(protocol: Protocol) {
    names::connections_refused(protocol, FaultKind::StartTlsInjection.label()).increment(1);
}

fn session_limits(config: &Config) -> SessionLimits {
    let limits = &config.limits;
    SessionLimits {
        pre_auth_timeout: limits.pre_auth_timeout,
        login_timeout: limits.login_timeout,
        command_line_bytes_max: limits.command_line_bytes_max,
        literal_bytes_max: limits.literal_bytes_max,
        bad_commands_max: limits.bad_commands_max,
        pre_auth_commands_max: limits.pre_auth_commands_max,
        auth_failures_max: limits.auth_failures_max,
    }
}

/// A name that belongs to no account, as far as it may be logged: the commonest mistake is a secret in the name's place, so
/// only what looks like an e-mail address is shown.
fn loggable(user: &str) -> Option<String> {
    let is_address = user.contains('@') && user.len() <= ADDRESS_BYTES_MAX && !user.contains(char::is_whitespace);
    is_address.then(|| user.escape_debug().to_string())
}

/// Octets of an e-mail address (RFC 5321 §4.5.3.1.3).
const ADDRESS_BYTES_MAX: usize = 254;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_in_the_names_place_is_not_logged() {
        let token = "6cad01dae08b3c1f6cad01dae08b3c1f6cad01dae08b3c1f6cad01dae08b3c1f";
        for secret in [token, "hunter2", "abcd-efgh-ijkl-mnop", "two words@x", ""] {
            assert_eq!(loggable(secret), None, "{secret}");
        }
        assert_eq!(loggable("alice@example.com").as_deref(), Some("alice@example.com"));
        assert_eq!(loggable("a\u{1}@b").as_deref(), Some("a\\u{1}@b"));
    }
}
