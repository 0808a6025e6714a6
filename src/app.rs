//! Wiring: what is started in which order, and stopped in which.
//!
//! ```text
//! start:  descriptors → store → accounts → TLS → sessions → listeners → consents → public side → keeper of grants, hooks
//!         → admin and metrics
//! stop:   not ready → listeners → quiet sessions → all sessions → public side → consents in flight
//!         → accounts (refreshes in flight) → hooks → store → admin
//! ```
//!
//! The admin API is the last to go, so that an administrator can watch a drain.

mod certificates;
mod consent;
mod machine;
mod news;
mod ports;
mod providers;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rlimit::Resource;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::account::{self, Accounts, Changes};
use crate::admin::{self, AdminState, Readiness, Sockets};
use crate::authorize::Authorizer;
use crate::cli::Failure;
use crate::clock;
use crate::config::{Config, ListenerTls};
use crate::connection::{self, Drain, Listener, Services, Trust};
use crate::hooks::Hooks;
use crate::limits;
use crate::metrics::render::Exposition;
use crate::net::admission::{Admission, AdmissionLimits};
use crate::net::dns::Dns;
use crate::net::http::Http;
use crate::net::listener::{accept_until, bind};
use crate::net::tls::SystemRoots;
use crate::oauth::client::OAuthClient;
use crate::recognize::{Places, Recognizer};
use crate::store::embedded::EmbeddedStore;
use crate::store::master_key::MasterKeySource;
use crate::store::{Deletions, Loss, SharedStore, StoreError};
use crate::usage::{self, UsageLog};
use crate::web;
use certificates::ListenerCertificates;
pub use machine::Machine;
use ports::{AccountPort, RecognitionPort, SessionPort};

/// A running portreeve.
pub struct App {
    services: Arc<Services>,
    authorizer: Authorizer,
    config: watch::Sender<Arc<Config>>,
    admission: Admission,
    certificates: ListenerCertificates,
    listeners: Vec<SocketAddr>,
    draining: watch::Sender<bool>,
    drain: watch::Sender<Drain>,
    stop_admin: watch::Sender<bool>,
    /// The accept loops.
    accepting: JoinSet<()>,
    /// The public side, which ends when its requests in progress are answered.
    public: JoinSet<()>,
    /// The sweepers, which end when the stop is over.
    sweeping: JoinSet<()>,
    admin: JoinSet<()>,
}

impl App {
    /// Starts everything that `config` asks for. When this returns the listeners accept. `loss` says what becomes of a store
    /// from which records are missing.
    ///
    /// # Errors
    /// What could not be started and what to do about it; everything that had been started ends.
    pub async fn start(config: Config, loss: Loss) -> Result<Self, Failure> {
        let config = fit_descriptors(config);
        let metrics = Exposition::install().map_err(Failure::failed)?;
        let store = open_store(&config, loss).await?;
        providers::warn_of_missing(&store, &config).await;
        let (config_sender, config) = watch::channel(Arc::new(config));
        let effective = config.borrow().clone();
        let system = SystemRoots::load();
        let http = Http::new(system.clone());
        let oauth = OAuthClient::new(http.clone());
        let recognizer = Recognizer::new(Dns::default(), http.clone(), Places::default());
        let accounts = Accounts::start(store.clone(), oauth.clone(), config.clone());
        let usage = UsageLog::new(store.clone());
        let trust = Trust::new(system);
        let services = Services::new(store.clone(), accounts.clone(), usage, config.clone(), trust);

        let admission = Admission::new(admission_limits(&effective));
        let (draining, draining_watch) = watch::channel(false);
        let mut accepting = JoinSet::new();
        let bound = Bound::new(&effective)?;
        // Sockets of the admin API first: a second daemon must fail before it takes a client from the first.
        let sockets = Sockets::bind(&effective)
            .await
            .map_err(|error| Failure::failed(error.to_string()))?;
        for (listener, socket) in bound.sockets {
            let (services, admission) = (services.clone(), admission.clone());
            accepting.spawn(accept_until(
                socket,
                admission,
                listener.settings.proxy_protocol_from.clone(),
                draining_watch.clone(),
                move |arrival| {
                    connection::accept(&services, &listener, arrival);
                },
            ));
        }

        let changes = Arc::new(Changes::default());
        let authorizer = Authorizer::new(Arc::clone(&services), oauth, Arc::clone(&changes));
        let web_view = bound.web.as_ref().map(web_view);
        let public = serve_web(bound.web, authorizer.clone(), &draining_watch);
        let (drain, drain_watch) = watch::channel(Drain::Serving);
        let mut sweeping = sweepers(&services, &drain_watch);
        // Nothing has happened to an account yet that these could miss.
        keepers(&mut sweeping, &services, http, &drain_watch);

        let (stop_admin, stop_admin_watch) = watch::channel(false);
        let state = AdminState {
            store,
            accounts: Arc::new(AccountPort::new(services.clone())),
            consent: Arc::new(authorizer.clone()),
            changes,
            failures: Arc::clone(&services.failures),
            sessions: Arc::new(SessionPort::new(
                services.sessions.clone(),
                bound.views,
                web_view,
                bound.certificates.ca(),
            )),
            recognition: Arc::new(RecognitionPort::new(recognizer, config.clone())),
            config,
            metrics,
            readiness: Readiness::default(),
            started: clock::now(),
            draining: draining_watch,
        };
        let mut admin = JoinSet::new();
        admin.spawn(admin::serve(Arc::new(state), sockets, stop_admin_watch));
        for address in &bound.addresses {
            info!(%address, "listening");
        }
        info!(socket = %effective.admin.socket.display(), "ready");
        Ok(Self {
            services,
            authorizer,
            config: config_sender,
            admission,
            certificates: bound.certificates,
            listeners: bound.addresses,
            draining,
            drain,
            stop_admin,
            accepting,
            public,
            sweeping,
            admin,
        })
    }

    /// Where clients are accepted, in the order of the configuration; ports of 0 have become real ones.
    pub fn listener_addresses(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// Serves until SIGTERM or SIGINT, then stops; a second one ends the stop at once. SIGHUP reloads. `signals` that came
    /// during the start are obeyed first.
    ///
    /// # Errors
    /// If a second signal ended the stop.
    pub async fn run_until_signal(mut self, mut signals: Signals) -> Result<(), Failure> {
        let mut certificates = interval(CERTIFICATE_CHECK_INTERVAL);
        certificates.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = certificates.tick() => self.certificates.look().await,
                order = signals.next() => match order {
                    Order::Reload => self.reload().await,
                    Order::Stop => break,
                },
            }
        }
        info!("stopping; a second signal ends at once");
        tokio::select! {
            () = Box::pin(self.stop()) => Ok(()),
            () = signals.stop() => Err(Failure::failed("ended at once, by a second signal")),
        }
    }

    /// Stops in order; see the head of this file.
    pub async fn stop(mut self) {
        // The receivers live as long as the tasks that heed them; one that has ended needs no order.
        self.draining.send_replace(true);
        while self.accepting.join_next().await.is_some() {}
        let drain_timeout = self.services.config().server.drain_timeout;
        self.drain.send_replace(Drain::Quiet);
        if timeout(drain_timeout, self.no_sessions()).await.is_err() {
            self.drain.send_replace(Drain::All);
            if timeout(LAST_WORDS, self.no_sessions()).await.is_err() {
                warn!(
                    sessions = self.services.sessions.count(),
                    "sessions did not end in time"
                );
            }
        }
        while self.public.join_next().await.is_some() {}
        self.authorizer.stop().await;
        let patience = tokio::select! {
            () = self.services.accounts.drain() => drain_timeout,
            () = self.disk_given_up(drain_timeout) => {
                warn!("what the accounts have to write is given up with the disk");
                LAST_WORDS
            }
        };
        drop(self.drain);
        let told = async { while self.sweeping.join_next().await.is_some() {} };
        if timeout(patience, told).await.is_err() {
            warn!("what is still to be told and kept is given up");
            self.sweeping.abort_all();
        }
        match timeout(patience, self.services.store.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "the store could not be closed in order"),
            Err(_elapsed) => error!("the disk does not answer; the store is left as it is"),
        }
        self.stop_admin.send_replace(true);
        while self.admin.join_next().await.is_some() {}
        info!("stopped");
    }

    /// Waits until the disk has had its time and still takes nothing.
    async fn disk_given_up(&self, time: Duration) {
        sleep(time).await;
        while self.services.store.health().is_ok() {
            sleep(DRAIN_POLL).await;
        }
    }

    async fn no_sessions(&self) {
        while self.admission.sessions() > 0 {
            sleep(DRAIN_POLL).await;
        }
    }
}

/// Starts what looks after live sessions and old usage events, until `drain`'s sender is gone.
fn sweepers(services: &Arc<Services>, drain: &watch::Receiver<Drain>) -> JoinSet<()> {
    let mut sweeping = JoinSet::new();
    sweeping.spawn(connection::sweep(services.clone(), drain.clone()));
    let settings = services.config.clone();
    let mut ended = drain.clone();
    sweeping.spawn(usage::retention::run(
        services.store.clone(),
        move || settings.borrow().store.clone(),
        async move { while ended.changed().await.is_ok() {} },
    ));
    sweeping
}

/// Starts what keeps grants alive, what asks upstreams and what tells of accounts, until `drain`'s sender is gone: what the last refreshes have to tell
/// is told, too.
fn keepers(sweeping: &mut JoinSet<()>, services: &Arc<Services>, http: Http, drain: &watch::Receiver<Drain>) {
    let ended = || {
        let mut drain = drain.clone();
        async move { while drain.changed().await.is_ok() {} }
    };
    let accounts = &services.accounts;
    sweeping.spawn(news::record(accounts.notices(), services.usage.clone(), ended()));
    sweeping.spawn(Hooks::new(services.config.clone(), http).run(accounts.notices(), ended()));
    sweeping.spawn(account::keeping::keep(accounts.clone(), ended()));
    sweeping.spawn(account::roll::keep(accounts.clone(), ended()));
    sweeping.spawn(connection::ask_upstreams(services.clone(), ended()));
}

/// Serves the public side, where it is turned on, until `draining`.
fn serve_web(bound: Option<web::Bound>, authorizer: Authorizer, draining: &watch::Receiver<bool>) -> JoinSet<()> {
    let mut public = JoinSet::new();
    if let Some(bound) = bound {
        info!(address = %bound.address(), public_url = %bound.public_url(), "the public side is listening");
        public.spawn(web::serve(bound, Arc::new(authorizer), draining.clone()));
    }
    public
}

fn web_view(bound: &web::Bound) -> admin::types::WebView {
    admin::types::WebView {
        address: bound.address(),
        tls: bound.is_tls(),
        public_url: bound.public_url().as_str().trim_end_matches('/').to_owned(),
    }
}

/// Everything that listens for clients.
struct Bound {
    sockets: Vec<(Arc<Listener>, tokio::net::TcpListener)>,
    addresses: Vec<SocketAddr>,
    views: Vec<admin::types::ListenerView>,
    web: Option<web::Bound>,
    certificates: ListenerCertificates,
}

impl Bound {
    fn new(config: &Config) -> Result<Self, Failure> {
        let mut bound = Self {
            sockets: Vec::new(),
            addresses: Vec::new(),
            views: Vec::new(),
            web: None,
            certificates: ListenerCertificates::open(config)?,
        };
        for settings in &config.listeners {
            let tls = match settings.tls {
                ListenerTls::Starttls | ListenerTls::Implicit => {
                    Some(bound.certificates.serve(&settings.certificates, config)?)
                }
                ListenerTls::Off => None,
            };
            let listener = Arc::new(Listener {
                settings: settings.clone(),
                tls,
            });
            let opened = bind(&settings.addresses).map_err(|error| Failure::failed(error.to_string()))?;
            for missing in &opened.missing {
                warn!("{missing}; the listener's other addresses are served");
            }
            for (address, socket) in opened.sockets {
                bound.addresses.push(address);
                bound.views.push(admin::types::ListenerView {
                    protocol: settings.protocol,
                    address,
                    tls: settings.tls,
                });
                bound.sockets.push((listener.clone(), socket));
            }
        }
        bound.open_web(config)?;
        Ok(bound)
    }

    fn open_web(&mut self, config: &Config) -> Result<(), Failure> {
        let settings = &config.web;
        if settings.listen.is_none() {
            return Ok(());
        }
        let tls = match &settings.certificate {
            Some(name) => Some(self.certificates.serve(std::slice::from_ref(name), config)?),
            None => None,
        };
        self.web = web::Bound::open(settings, tls).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(())
    }
}

/// Raises the soft limit of descriptors to the hard one, and lowers the sessions to what fits (INTERFACE §3).
fn fit_descriptors(mut config: Config) -> Config {
    let limit = rlimit::increase_nofile_limit(u64::MAX)
        .or_else(|_| Resource::NOFILE.get_soft())
        .unwrap_or(u64::MAX);
    let (sessions_max, is_lowered) = limits::fit_sessions(config.limits.sessions_max, limit);
    if is_lowered {
        let wanted = config.limits.sessions_max;
        warn!(
            wanted,
            sessions_max, limit, "limits.sessions_max is lowered: too few descriptors are allowed"
        );
        config.limits.sessions_max = sessions_max;
    }
    config
}

fn admission_limits(config: &Config) -> AdmissionLimits {
    AdmissionLimits {
        sessions_max: config.limits.sessions_max,
        sessions_per_ip_max: config.limits.sessions_per_ip_max,
        strangers_max: limits::strangers_max(config.limits.sessions_max),
    }
}

async fn open_store(config: &Config, loss: Loss) -> Result<SharedStore, Failure> {
    let state_dir = config.server.state_dir.clone();
    let key = master_key(config);
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open_with(&state_dir, &key, loss)).await;
    match opened {
        Ok(Ok(store)) => Ok(Deletions::over(store)),
        Ok(Err(error @ (StoreError::MasterKey(_) | StoreError::Exposed(_)))) => {
            Err(Failure::configuration(error.to_string()))
        }
        Ok(Err(error)) => Err(Failure::failed(error.to_string())),
        Err(error) => Err(Failure::failed(format!("the store could not be opened: {error}"))),
    }
}

/// Where the store's master key is.
fn master_key(config: &Config) -> MasterKeySource {
    match (&config.secrets.master_key, &config.secrets.master_key_file) {
        (Some(key), _) => MasterKeySource::Given(crate::secret::duplicate(key)),
        (None, Some(file)) => MasterKeySource::File(file.clone()),
        (None, None) => MasterKeySource::Generated,
    }
}

/// The signals that the daemon heeds. To be listened to before anything is started: until then a SIGHUP kills.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens from now on; what comes before anyone asks is kept.
    ///
    /// # Errors
    /// If the system does not let this process listen.
    pub fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::failed(format!("signals cannot be listened to: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hangup.recv() => Order::Reload,
        }
    }

    async fn stop(&mut self) {
        while self.next().await != Order::Stop {}
    }
}

/// What a signal asks for.
#[derive(PartialEq, Eq)]
enum Order {
    Reload,
    Stop,
}

/// How often certificate files are looked at.
const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How long sessions may take to end once they all must.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How often a stop looks whether the sessions have ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);
