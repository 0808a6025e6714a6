//! The login of one connection: drives a [`Session`] with bytes and facts, and carries out its actions.
//!
//! The driver is gone when the relay begins; what the relay needs of it leaves as [`RelayParts`]. A leg that breaks while it
//! is written is told to the session as that leg's end, after the actions in hand, so that there is one way to end.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ractor::ActorRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout, timeout_at};
use tracing::{Level, debug, error, info, warn};

use super::Services;
use super::actor::{Listener, Message};
use super::open::{self, Leg};
use crate::access::{self, Scope};
use crate::account::{LiveSession, SessionId, SessionLease, UpstreamTarget};
use crate::clock;
use crate::config::{Config, PlaintextAuth};
use crate::fault::{Fault, FaultKind};
use crate::limits::CLOSE_DRAIN;
use crate::metrics::names;
use crate::net::stream::Stream;
use crate::proto::session::{
    Action, Admission, Goodbye, Input, LoginRequest, Phase, Report, Session, SessionContext, SessionLimits, Transition,
};
use crate::store::TokenId;
use crate::usage::SessionFacts;

/// The task of a connection that is not logged in yet.
pub(super) struct Driver {
    pub(super) services: Arc<Services>,
    pub(super) session: SessionId,
    pub(super) listener: Arc<Listener>,
    pub(super) tcp: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) actor: ActorRef<Message>,
    pub(super) goodbye: oneshot::Receiver<Goodbye>,
}

/// What a session is relayed with.
pub(super) struct RelayParts {
    pub(super) client: Stream,
    pub(super) upstream: Stream,
    pub(super) upstream_address: Option<SocketAddr>,
    pub(super) provider: String,
    pub(super) to_client: Bytes,
    pub(super) to_upstream: Bytes,
    pub(super) goodbye: oneshot::Receiver<Goodbye>,
    pub(super) lease: SessionLease,
}

impl Driver {
    /// Runs the session up to its login. `None`: it ended before.
    pub(super) async fn run(self) -> Option<RelayParts> {
        let accepted_at = clock::instant();
        let config = self.services.config();
        let settings = &self.listener.settings;
        let client = match &self.listener.tls {
            Some(tls) => match tls.accept(self.tcp, config.limits.pre_auth_timeout).await {
                Ok(stream) => stream,
                Err(error) => {
                    debug!(session = %self.session, remote = %self.remote, %error, "no TLS with the client");
                    return None;
                }
            },
            None => Stream::from(self.tcp),
        };
        let remote = self.remote.ip();
        let context = SessionContext {
            protocol: settings.protocol,
            remote_address: remote,
            hostname: config.server.hostname.as_str().into(),
            login_allowed: client.is_tls()
                || match settings.plaintext_auth {
                    PlaintextAuth::Never => false,
                    PlaintextAuth::Loopback => remote.is_loopback(),
                    PlaintextAuth::Always => true,
                },
            limits: session_limits(&config),
        };
        let login = Login {
            session: Session::new(&context, accepted_at)?,
            facts: SessionFacts {
                protocol: settings.protocol,
                remote_address: remote,
                client: None,
            },
            services: self.services,
            config,
            session_id: self.session,
            remote: self.remote,
            actor: self.actor,
            client,
            client_lost: false,
            client_buffer: open::buffer(),
            phase: Phase::Greeting,
            attempt: None,
        };
        login.run(self.goodbye).await
    }
}

/// A running login.
struct Login {
    session: Session,
    services: Arc<Services>,
    config: Arc<Config>,
    session_id: SessionId,
    remote: SocketAddr,
    /// What usage events say of the session.
    facts: SessionFacts,
    actor: ActorRef<Message>,
    client: Stream,
    /// Whether a write to the client has failed, which the session is to hear as the client's end.
    client_lost: bool,
    client_buffer: Box<[u8]>,
    phase: Phase,
    attempt: Option<Attempt>,
}

/// One login attempt, from the client's credentials to their answer.
struct Attempt {
    begun: Instant,
    account: Option<String>,
    token: Option<TokenId>,
    lease: Option<SessionLease>,
    target: Option<UpstreamTarget>,
    /// Which of the account's credentials was presented last: known on, where a refused one could not be replaced.
    grant: Option<u64>,
    upstream: Upstream,
}

/// The upstream leg of an attempt.
enum Upstream {
    /// There is none.
    Closed,
    /// It is being opened or secured.
    Pending(Pin<Box<dyn Future<Output = Result<Opened, Fault>> + Send>>),
    /// It is there.
    Open { leg: Leg, lost: bool, buffer: Box<[u8]> },
}

/// What opening or securing an upstream leg gave.
enum Opened {
    Connected(Leg, Box<UpstreamTarget>),
    Secured(Leg),
}

/// What woke a login.
enum Woken {
    Client(std::io::Result<usize>),
    Upstream(std::io::Result<usize>),
    Opened(Result<Opened, Fault>),
    Deadline,
    Goodbye(Goodbye),
}

/// What an action leads to.
enum Next {
    Continue,
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
                    Next::Relay { to_client, to_upstream } => {
                        return self.into_relay(to_client, to_upstream, goodbye);
                    }
                    Next::Close => {
                        self.close().await;
                        return None;
                    }
                }
            }
            if self.take_client_lost() {
                self.tell(Input::ClientEof);
                continue;
            }
            if self.take_upstream_lost() {
                self.tell(Input::UpstreamEof);
                continue;
            }
            match self.wait(&mut goodbye).await {
                Woken::Client(read) => self.on_client_read(read),
                Woken::Upstream(read) => self.on_upstream_read(read),
                Woken::Opened(opened) => self.on_opened(opened),
                Woken::Deadline => self.tell(Input::DeadlinePassed),
                Woken::Goodbye(reason) => self.tell(Input::Goodbye(reason)),
            }
        }
    }

    async fn perform(&mut self, action: Action) -> Next {
        match action {
            Action::SendClient(bytes) => self.send_client(&bytes).await,
            Action::SendUpstream(bytes) => self.send_upstream(&bytes).await,
            Action::CheckLogin(request) => {
                let checked = Box::pin(self.check_login(request)).await;
                self.tell(Input::LoginChecked(checked));
            }
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
        let (opening, upstream) = match self.attempt.as_mut().map(|attempt| &mut attempt.upstream) {
            Some(Upstream::Pending(opening)) => (Some(opening), None),
            Some(Upstream::Open { leg, buffer, .. }) => (None, Some((leg, buffer))),
            Some(Upstream::Closed) | None => (None, None),
        };
        tokio::select! {
            // The sender lives in the actor that owns this task.
            Ok(reason) = goodbye => Woken::Goodbye(reason),
            read = self.client.read(&mut self.client_buffer), if self.session.wants_client_bytes() => Woken::Client(read),
            read = async {
                match upstream {
                    Some((leg, buffer)) => leg.stream.read(buffer).await,
                    None => pending().await,
                }
            } => Woken::Upstream(read),
            opened = async {
                match opening {
                    Some(opening) => opening.await,
                    None => pending().await,
                }
            } => Woken::Opened(opened),
            () = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => pending().await,
                }
            } => Woken::Deadline,
        }
    }

    /// Tells the session, and the actor of a change of phase.
    fn tell(&mut self, input: Input<'_>) {
        if self.session.handle(input, clock::instant()) == Transition::Invalid {
            error!(session = %self.session_id, state = self.session.state_name(), "the session was told what it cannot hear");
        }
        let phase = self.session.phase();
        if phase != self.phase {
            self.phase = phase;
            self.cast(Message::PhaseChanged(phase));
        }
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
        let Some(Upstream::Open { buffer, .. }) = self.attempt.as_mut().map(|attempt| &mut attempt.upstream) else {
            return;
        };
        if count == 0 {
            self.tell(Input::UpstreamEof);
            return;
        }
        let taken = std::mem::take(buffer);
        self.tell(Input::UpstreamBytes(taken.get(..count).unwrap_or_default()));
        if let Some(Upstream::Open { buffer, .. }) = self.attempt.as_mut().map(|attempt| &mut attempt.upstream) {
            *buffer = taken;
        }
    }

    fn on_opened(&mut self, opened: Result<Opened, Fault>) {
        let Some(attempt) = &mut self.attempt else { return };
        let input = match opened {
            Ok(Opened::Connected(leg, target)) => {
                let ready = open::ready(&target);
                attempt.grant = Some(target.grant);
                attempt.target = Some(*target);
                attempt.upstream = Upstream::Open {
                    leg,
                    lost: false,
                    buffer: open::buffer(),
                };
                Input::UpstreamConnected(Ok(ready))
            }
            Ok(Opened::Secured(leg)) => {
                attempt.upstream = Upstream::Open {
                    leg,
                    lost: false,
                    buffer: open::buffer(),
                };
                Input::UpstreamSecured(Ok(()))
            }
            Err(fault) => {
                attempt.upstream = Upstream::Closed;
                // Only an open leg has a target, and only an open leg is secured.
                match attempt.target {
                    Some(_) => Input::UpstreamSecured(Err(fault)),
                    None => Input::UpstreamConnected(Err(fault)),
                }
            }
        };
        self.tell(input);
    }

    /// Checks the access token and takes a place among the account's sessions, where the token is looked up once more: its
    /// deletion either finds the session there, or is found by it.
    async fn check_login(&mut self, request: LoginRequest) -> Result<Admission, Fault> {
        let mut attempt = Attempt {
            begun: clock::instant(),
            account: None,
            token: None,
            lease: None,
            target: None,
            grant: None,
            upstream: Upstream::Closed,
        };
        let store = self.services.store.clone();
        let authenticated = access::authenticate(
            &*store,
            request.user.as_deref(),
            &request.secret,
            Scope::of(self.facts.protocol),
            self.remote.ip(),
            clock::now(),
        )
        .await;
        let admitted = match authenticated {
            Ok(admitted) => admitted,
            Err(denied) => {
                (attempt.account, attempt.token) = (denied.account, denied.token);
                self.attempt = Some(attempt);
                return Err(denied.fault);
            }
        };
        let (account, token) = (admitted.account.account, admitted.token.id);
        (attempt.account, attempt.token) = (Some(account.clone()), Some(token));
        let attempt = self.attempt.insert(attempt);
        let live = LiveSession {
            session: self.session_id,
            token,
            end: self.actor.get_derived(),
        };
        attempt.lease = Some(self.services.accounts.open_session(&account, live).await?);
        self.cast(Message::Admitted {
            account: account.clone(),
            token,
        });
        Ok(Admission { account })
    }

    fn connect_upstream(&mut self, refused: Option<u64>) {
        let Some(attempt) = &mut self.attempt else { return };
        let Some(account) = attempt.account.clone() else { return };
        attempt.target = None;
        let (services, protocol) = (self.services.clone(), self.facts.protocol);
        let limit = self.config.limits.upstream_connect_timeout;
        attempt.upstream = Upstream::Pending(Box::pin(async move {
            let target = services.accounts.credential(&account, protocol, refused).await?;
            let leg = open::open(&target, protocol, &services.trust, limit).await?;
            Ok(Opened::Connected(leg, Box::new(target)))
        }));
    }

    fn secure_upstream(&mut self) {
        let Some(attempt) = &mut self.attempt else { return };
        let Some(target) = attempt.target.clone() else { return };
        match std::mem::replace(&mut attempt.upstream, Upstream::Closed) {
            Upstream::Open { leg, .. } => {
                let services = self.services.clone();
                let limit = self.config.limits.upstream_connect_timeout;
                attempt.upstream = Upstream::Pending(Box::pin(async move {
                    let (provider, host) = (&target.provider, &target.endpoint.host);
                    open::secure(leg, provider, host, &services.trust, limit)
                        .await
                        .map(Opened::Secured)
                }));
            }
            other => attempt.upstream = other,
        }
    }

    /// Gives back what a login attempt held. A token refresh that it waited for goes on by itself.
    fn abandon(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.upstream = Upstream::Closed;
            attempt.lease = None;
        }
    }

    async fn send_client(&mut self, bytes: &[u8]) {
        if self.client_lost {
            return;
        }
        let sent = within(self.session.deadline(), open::send(&mut self.client, bytes)).await;
        if let Err(error) = sent {
            debug!(session = %self.session_id, %error, "cannot write to the client");
            self.client_lost = true;
        }
    }

    async fn send_upstream(&mut self, bytes: &[u8]) {
        let deadline = self.session.deadline();
        let Some(Upstream::Open { leg, lost, .. }) = self.attempt.as_mut().map(|attempt| &mut attempt.upstream) else {
            return;
        };
        if *lost {
            return;
        }
        if let Err(error) = within(deadline, open::send(&mut leg.stream, bytes)).await {
            debug!(session = %self.session_id, %error, "cannot write to the upstream");
            *lost = true;
        }
    }

    fn take_client_lost(&mut self) -> bool {
        std::mem::take(&mut self.client_lost)
    }

    fn take_upstream_lost(&mut self) -> bool {
        match self.attempt.as_mut().map(|attempt| &mut attempt.upstream) {
            Some(Upstream::Open { lost, .. }) => std::mem::take(lost),
            _ => false,
        }
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

    fn into_relay(
        self,
        to_client: Bytes,
        to_upstream: Bytes,
        goodbye: oneshot::Receiver<Goodbye>,
    ) -> Option<RelayParts> {
        let attempt = self.attempt?;
        let Upstream::Open { leg, .. } = attempt.upstream else {
            return None;
        };
        Some(RelayParts {
            client: self.client,
            upstream: leg.stream,
            upstream_address: leg.address,
            provider: attempt.target?.provider.name.clone(),
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
            Report::Ended(fault) => match fault.kind.log_level() {
                Level::DEBUG => debug!(%session, %remote, %fault, "ended before login"),
                _ => info!(%session, %remote, %fault, "ended before login"),
            },
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

    fn on_logged_in(&mut self) {
        let Some(attempt) = &self.attempt else { return };
        let seconds = clock::instant().saturating_duration_since(attempt.begun).as_secs_f64();
        names::logins(self.facts.protocol, names::OUTCOME_OK).increment(1);
        names::login_duration(self.facts.protocol).record(seconds);
        if let (Some(account), Some(token), Some(target)) = (&attempt.account, attempt.token, &attempt.target) {
            self.services.usage.login(&self.facts, account, token, clock::now());
            self.services.accounts.report_accepted(account, target.grant);
            info!(session = %self.session_id, account, remote = %self.remote, seconds, "logged in");
        }
    }

    fn on_login_refused(&mut self, user: Option<String>, fault: &Fault) {
        let (mut account, mut token) = (None, None);
        if let Some(attempt) = self.attempt.take() {
            let seconds = clock::instant().saturating_duration_since(attempt.begun).as_secs_f64();
            names::login_duration(self.facts.protocol).record(seconds);
            if let (Some(account), FaultKind::UpstreamRefused(refusal), Some(grant)) =
                (&attempt.account, &fault.kind, attempt.grant)
            {
                self.services.accounts.report_refused(account, grant, refusal);
            }
            (account, token) = (attempt.account, attempt.token);
        }
        let reason = fault.kind.label();
        names::logins(self.facts.protocol, reason).increment(1);
        self.services
            .usage
            .denied(&self.facts, account.clone(), token, reason, clock::now());
        let (session, remote) = (self.session_id, self.remote);
        let user = account.or(user);
        match fault.kind.log_level() {
            Level::ERROR => error!(%session, user, %remote, %fault, "login refused"),
            Level::WARN => warn!(%session, user, %remote, %fault, "login refused"),
            Level::INFO => info!(%session, user, %remote, %fault, "login refused"),
            _ => debug!(%session, user, %remote, %fault, "login refused"),
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

fn session_limits(config: &Config) -> SessionLimits {
    let limits = &config.limits;
    SessionLimits {
        pre_auth_timeout: limits.pre_auth_timeout,
        login_timeout: limits.login_timeout,
        command_line_bytes_max: limits.command_line_bytes_max,
        literal_bytes_max: limits.literal_bytes_max,
        bad_commands_max: limits.bad_commands_max,
        auth_failures_max: limits.auth_failures_max,
    }
}

async fn within(deadline: Option<Instant>, write: impl Future<Output = std::io::Result<()>>) -> std::io::Result<()> {
    match deadline {
        Some(deadline) => timeout_at(deadline.into(), write).await?,
        None => write.await,
    }
}
