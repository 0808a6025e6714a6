//! A daemon in memory for the tests of this room and of the command line: the real sockets and routes over a store and ports
//! that only remember.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use super::serve::{Sockets, serve};
use super::state::{AccountControl, AdminState, ConsentControl, Recognition, SessionControl};
use super::types::{
    CertificateAuthorityView, ListenerView, RecognitionView, SessionView, StepResult, UpstreamView, VerifyStep, WebView,
};
use crate::account::AccountStatus;
use crate::authorize::{AuthorizeError, CodeBegun, Completed, DeviceBegun, LinkOrder, Progress};
use crate::clock::Timestamp;
use crate::config::{self, Config, ListenerTls, ProcessEnvironment};
use crate::metrics::render::Exposition;
use crate::net::dns::Dns;
use crate::net::http::Http;
use crate::net::tls::SystemRoots;
use crate::oauth::RedirectUri;
use crate::proto::Protocol;
use crate::recognize::{Places, Reach, Recognizer};
use crate::store::*;

/// A daemon that answers on a Unix socket, a TCP port and a metrics port of its own.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    pub(crate) tcp: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) world: Arc<World>,
    stop: watch::Sender<bool>,
    pub(crate) draining: watch::Sender<bool>,
    served: JoinHandle<()>,
    _config: watch::Sender<Arc<Config>>,
    _directory: TempDir,
}

/// Everything that the fakes remember.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) accounts: Mutex<Vec<(AccountRecord, AccountSecrets)>>,
    pub(crate) tokens: Mutex<Vec<TokenRecord>>,
    pub(crate) uses: Mutex<BTreeMap<TokenId, TokenUse>>,
    pub(crate) events: Mutex<Vec<UsageEvent>>,
    pub(crate) sessions: Mutex<Vec<SessionView>>,
    pub(crate) ended_tokens: Mutex<Vec<(String, TokenId)>>,
    pub(crate) replaced_secrets: Mutex<Option<AccountSecrets>>,
    pub(crate) verification: Mutex<Vec<VerifyStep>>,
    pub(crate) trouble: Mutex<Option<StoreError>>,
    pub(crate) ending: Mutex<Vec<(String, Timestamp)>>,
    pub(crate) failing: Mutex<Vec<(String, Failures)>>,
    pub(crate) web: Mutex<Option<WebView>>,
    pub(crate) authority: Mutex<Option<CertificateAuthorityView>>,
}

/// The configured root token of every [`Daemon`].
pub(crate) const ROOT_TOKEN: &str = "abababababababababababababababababababababababababababababababab";

impl Daemon {
    pub(crate) async fn start() -> Self {
        // Nobody listens there, which is heard of at once.
        Self::start_with_dns(Dns::at(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))).await
    }

    /// One that asks `dns` about domains that no provider has.
    pub(crate) async fn start_with_dns(dns: Dns) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let config = config(directory.path(), &socket);
        let sockets = Sockets::bind(&config).await.unwrap();
        let (tcp, metrics) = (sockets.tcp_addresses()[0], sockets.metrics_address().unwrap());
        let world = Arc::new(World::default());
        let (config_sender, config) = watch::channel(Arc::new(config));
        let (draining, draining_receiver) = watch::channel(false);
        let (stop, shutdown) = watch::channel(false);
        let (_, exposition) = Exposition::detached().unwrap();
        let state = AdminState {
            store: world.clone(),
            accounts: world.clone(),
            consent: world.clone(),
            changes: Arc::default(),
            failures: Arc::default(),
            sessions: world.clone(),
            recognition: Arc::new(Knower {
                recognizer: Recognizer::new(
                    dns,
                    Http::new(SystemRoots::none()),
                    Places {
                        urls: Vec::new(),
                        ca_file: None,
                    },
                ),
                config: config.clone(),
            }),
            config,
            metrics: exposition,
            readiness: crate::admin::Readiness::default(),
            started: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
            draining: draining_receiver,
        };
        let served = tokio::spawn(serve(Arc::new(state), sockets, shutdown));
        Self {
            socket,
            tcp,
            metrics,
            world,
            stop,
            draining,
            served,
            _config: config_sender,
            _directory: directory,
        }
    }

    /// Stops serving, as at the end of the program.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.served.await.unwrap();
    }
}

fn config(directory: &Path, socket: &Path) -> Config {
    let root_token = directory.join("root-token");
    std::fs::write(&root_token, ROOT_TOKEN).unwrap();
    std::fs::set_permissions(&root_token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        r#"
        [server]
        hostname = "mail.example.com"
        state_dir = "{state}"
        [admin]
        socket = "{socket}"
        listen = ["127.0.0.1:0"]
        root_token_file = "{root_token}"
        [metrics]
        listen = "127.0.0.1:0"
        [provider.example]
        token_url = "https://id.example.com/token"
        client_id = "app"
        client_secret = "secret of the app"
        imap = {{ host = "imap.example.com", port = 993, tls = "implicit" }}
        domains = ["example.com"]
        "#,
        state = directory.join("state").display(),
        socket = socket.display(),
        root_token = root_token.display(),
    );
    config::parse(None, &text, &ProcessEnvironment).unwrap()
}

/// Recognises as the daemon does, without autoconfig files.
struct Knower {
    recognizer: Recognizer,
    config: watch::Receiver<Arc<Config>>,
}

#[async_trait]
impl Recognition for Knower {
    async fn recognize(&self, email: &str, reach: Reach) -> RecognitionView {
        let config = self.config.borrow().clone();
        RecognitionView::new(email, self.recognizer.recognize(email, &config, reach).await)
    }
}

impl World {
    fn check(&self) -> Result<(), StoreError> {
        self.trouble.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

fn page_of<T>(entries: impl Iterator<Item = T>, page: Page) -> Listing<T> {
    let all: Vec<T> = entries.collect();
    Listing {
        total: all.len() as u64,
        entries: all.into_iter().skip(page.page * page.size).take(page.size).collect(),
    }
}

#[async_trait]
impl Store for World {
    async fn upstreams(&self) -> Result<Vec<crate::store::UpstreamRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn keep_upstreams(
        &self,
        _heard: Vec<crate::store::UpstreamRecord>,
        _forgotten: Vec<crate::store::UpstreamId>,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    async fn create_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        self.check()?;
        if self.account_by_login(&account.account).await?.is_some() {
            return Err(StoreError::Conflict("account"));
        }
        self.accounts.lock().unwrap().push((account, secrets));
        Ok(())
    }

    async fn replace_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        let mut accounts = self.accounts.lock().unwrap();
        let place = accounts.iter_mut().find(|(known, _)| known.account == account.account);
        *place.ok_or(StoreError::NotFound("account"))? = (account, secrets);
        Ok(())
    }

    async fn amend_account(&self, _: AccountRecord, _: Option<Amendment>) -> Result<(), StoreError> {
        unreachable!("only supervisors of accounts amend them")
    }

    async fn amend_secrets(&self, _: &str, _: Amendment) -> Result<bool, StoreError> {
        unreachable!("only supervisors of accounts amend them")
    }

    async fn remove_account(&self, account: &str) -> Result<Vec<TokenId>, StoreError> {
        self.accounts
            .lock()
            .unwrap()
            .retain(|(known, _)| known.account != account);
        let mut tokens = self.tokens.lock().unwrap();
        let (gone, kept) = tokens
            .drain(..)
            .partition(|token| token.account.as_deref() == Some(account));
        *tokens = kept;
        let gone: Vec<TokenRecord> = gone;
        Ok(gone.into_iter().map(|token| token.id).collect())
    }

    async fn account(&self, account: &str) -> Result<Option<AccountRecord>, StoreError> {
        let accounts = self.accounts.lock().unwrap();
        let found = accounts.iter().find(|(known, _)| known.account == account);
        Ok(found.map(|(record, _)| record.clone()))
    }

    async fn account_by_login(&self, name: &str) -> Result<Option<AccountRecord>, StoreError> {
        let accounts = self.accounts.lock().unwrap();
        let is_named = |record: &AccountRecord| {
            let email = record.email.as_deref();
            record.account == name || email.is_some_and(|email| email.eq_ignore_ascii_case(name))
        };
        Ok(accounts
            .iter()
            .map(|(record, _)| record)
            .find(|record| is_named(record))
            .cloned())
    }

    async fn account_secrets(&self, account: &str) -> Result<Option<AccountSecrets>, StoreError> {
        let accounts = self.accounts.lock().unwrap();
        let found = accounts.iter().find(|(known, _)| known.account == account);
        Ok(found.map(|(_, secrets)| secrets.clone()))
    }

    async fn accounts(&self, query: Option<&str>, page: Page) -> Result<Listing<AccountRecord>, StoreError> {
        let accounts = self.accounts.lock().unwrap();
        let query = query.unwrap_or_default();
        let matching = accounts.iter().rev().map(|(record, _)| record);
        Ok(page_of(
            matching.filter(|record| record.account.contains(query)).cloned(),
            page,
        ))
    }

    async fn accounts_after(&self, _: Option<&str>, _: usize) -> Result<Vec<AccountRecord>, StoreError> {
        unreachable!("only the keeper of grants walks the accounts")
    }

    async fn sharers(&self, _: &str) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    async fn account_states(&self) -> Result<Vec<(AccountState, u64)>, StoreError> {
        let mut counts = BTreeMap::new();
        for (record, _) in self.accounts.lock().unwrap().iter() {
            *counts.entry(record.state).or_insert(0) += 1;
        }
        Ok(counts.into_iter().collect())
    }

    async fn create_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.tokens.lock().unwrap().push(token);
        Ok(())
    }

    async fn remove_token(&self, id: &TokenId) -> Result<Vec<TokenRecord>, StoreError> {
        let mut tokens = self.tokens.lock().unwrap();
        let mut gone = Vec::new();
        // What a token made comes after it.
        tokens.retain(|token| {
            let parent = token
                .parent
                .filter(|parent| gone.iter().any(|token: &TokenRecord| token.id == *parent));
            let is_gone = token.id == *id || parent.is_some();
            gone.extend(is_gone.then(|| token.clone()));
            !is_gone
        });
        Ok(gone)
    }

    async fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        Ok(self
            .tokens
            .lock()
            .unwrap()
            .iter()
            .find(|token| token.id == *id)
            .cloned())
    }

    async fn tokens(
        &self,
        account: Option<&str>,
        query: Option<&str>,
        page: Page,
    ) -> Result<Listing<(TokenRecord, Option<TokenUse>)>, StoreError> {
        let tokens = self.tokens.lock().unwrap();
        let uses = self.uses.lock().unwrap();
        let query = query.unwrap_or_default();
        let matching = tokens
            .iter()
            .rev()
            .filter(|token| account.is_none() || token.account.as_deref() == account)
            .filter(|token| token.description.contains(query) || token.id.to_string().contains(query))
            .map(|token| (token.clone(), uses.get(&token.id).copied()));
        Ok(page_of(matching, page))
    }

    async fn token_use(&self, id: &TokenId) -> Result<Option<TokenUse>, StoreError> {
        Ok(self.uses.lock().unwrap().get(id).copied())
    }

    async fn token_count(&self) -> Result<u64, StoreError> {
        Ok(self.tokens.lock().unwrap().len() as u64)
    }

    fn record_token_use(&self, id: TokenId, last: TokenUse) {
        self.uses.lock().unwrap().insert(id, last);
    }

    fn record_usage(&self, event: UsageEvent) {
        self.events.lock().unwrap().push(event);
    }

    async fn usage(&self, filter: &UsageFilter, page: Page) -> Result<Listing<UsageEvent>, StoreError> {
        let events = self.events.lock().unwrap();
        let is_wanted = |event: &&UsageEvent| {
            (filter.account.is_none() || filter.account == event.account)
                && (filter.token.is_none() || filter.token == event.token)
                && filter.since.is_none_or(|since| event.time >= since)
                && filter.until.is_none_or(|until| event.time < until)
                && filter.kind.is_none_or(|kind| event.kind == kind)
        };
        Ok(page_of(events.iter().rev().filter(is_wanted).cloned(), page))
    }

    async fn sweep_usage(&self, _now: Timestamp, _retention: Duration, _max: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn derive_key(&self, _: &'static str) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new([7; 32])
    }

    fn health(&self) -> Result<(), StoreError> {
        self.check()
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl AccountControl for World {
    async fn create(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        self.create_account(account, secrets).await
    }

    async fn replace(&self, account: AccountRecord, secrets: Option<AccountSecrets>) -> Result<(), StoreError> {
        let kept = self.account_secrets(&account.account).await?.unwrap_or_default();
        self.replaced_secrets.lock().unwrap().clone_from(&secrets);
        self.replace_account(account, secrets.unwrap_or(kept)).await
    }

    async fn remove(&self, account: &str) -> Result<(), StoreError> {
        self.remove_account(account).await.map(|_| ())
    }

    async fn token_removed(&self, account: &str, token: TokenId) {
        self.ended_tokens.lock().unwrap().push((account.to_owned(), token));
    }

    async fn status(&self, account: &str) -> Option<AccountStatus> {
        let record = self.account(account).await.ok()??;
        Some(AccountStatus {
            state: record.state,
            last_error: record.last_error,
            failures: record.failures,
            next_try: (record.state == AccountState::Failing).then(|| Timestamp::from_millis(0)),
            expires: None,
            scope: None,
            grant_ends: None,
        })
    }

    fn ending(&self) -> Vec<(String, Timestamp)> {
        self.ending.lock().unwrap().clone()
    }

    fn failing(&self) -> Vec<(String, Failures)> {
        self.failing.lock().unwrap().clone()
    }

    fn upstreams(&self) -> Vec<UpstreamView> {
        vec![UpstreamView {
            protocol: Protocol::Smtp,
            provider: "example".to_owned(),
            host: "smtp.example.com".to_owned(),
            port: 587,
            tls: crate::config::UpstreamTls::Starttls,
            capabilities: Some(vec!["SIZE 1000".to_owned(), "DSN".to_owned()]),
            asked: Some(Timestamp::from_millis(1_000)),
            error: None,
        }]
    }

    async fn verify(&self, _account: &str) -> Vec<VerifyStep> {
        self.verification.lock().unwrap().clone()
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }
}

#[async_trait]
impl ConsentControl for World {
    async fn begin_code(
        &self,
        account: &AccountRecord,
        redirect_uri: &RedirectUri,
    ) -> Result<CodeBegun, AuthorizeError> {
        let mut url = Url::parse("https://id.example.com/authorize").unwrap();
        url.query_pairs_mut()
            .append_pair("login_hint", &account.account)
            .append_pair("redirect_uri", redirect_uri.as_str());
        Ok(CodeBegun {
            url,
            expires: Timestamp::parse("2026-01-01T00:10:00Z").unwrap(),
        })
    }

    async fn begin_device(&self, account: &AccountRecord) -> Result<DeviceBegun, AuthorizeError> {
        Err(AuthorizeError::FlowNotOffered(account.provider.clone()))
    }

    async fn complete(&self, redirected: &Url, own: Option<&str>) -> Result<Completed, AuthorizeError> {
        let account = redirected.query_pairs().find(|(name, _)| name == "state");
        let account = account.map(|(_, state)| state.into_owned());
        let account = account.filter(|account| own.is_none_or(|own| own == account));
        Ok(Completed {
            account: account.ok_or(AuthorizeError::UnknownState)?,
            email: None,
            state: AccountState::Active,
            return_to: None,
        })
    }

    fn progress(&self, _: &str) -> Option<Progress> {
        None
    }

    async fn link(&self, order: LinkOrder) -> Result<Url, AuthorizeError> {
        let mut url = Url::parse("https://mail.example.com/authorize/").unwrap();
        url.set_fragment(Some(&format!("{:?}", order.subject)));
        Ok(url)
    }
}

#[async_trait]
impl SessionControl for World {
    async fn list(&self, account: Option<&str>, page: Page) -> Listing<SessionView> {
        let sessions = self.sessions.lock().unwrap();
        let matching = sessions.iter().rev();
        page_of(
            matching
                .filter(|session| account.is_none() || session.account.as_deref() == account)
                .cloned(),
            page,
        )
    }

    async fn find(&self, session: u64) -> Option<SessionView> {
        let sessions = self.sessions.lock().unwrap();
        sessions.iter().find(|known| known.id == session.to_string()).cloned()
    }

    async fn close(&self, session: u64) -> bool {
        let mut sessions = self.sessions.lock().unwrap();
        let before = sessions.len();
        sessions.retain(|known| known.id != session.to_string());
        sessions.len() < before
    }

    fn listeners(&self) -> Vec<ListenerView> {
        vec![ListenerView {
            protocol: Protocol::Imap,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 2993)),
            tls: ListenerTls::Off,
        }]
    }

    fn web(&self) -> Option<WebView> {
        self.web.lock().unwrap().clone()
    }

    fn certificate_authority(&self) -> Option<CertificateAuthorityView> {
        self.authority.lock().unwrap().clone()
    }
}

/// A step of a verification.
pub(crate) fn step(name: &str, result: StepResult, message: &str) -> VerifyStep {
    VerifyStep {
        name: name.to_owned(),
        protocol: Some(Protocol::Imap),
        ms: 1,
        result,
        message: message.to_owned(),
        remedy: None,
    }
}

/// A live session of `account`.
pub(crate) fn session(id: u64, account: &str) -> SessionView {
    SessionView {
        id: id.to_string(),
        protocol: Protocol::Imap,
        account: Some(account.to_owned()),
        token: Some(TokenId([7; 32])),
        remote_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 50000)),
        local_address: SocketAddr::from((Ipv4Addr::LOCALHOST, 2993)),
        upstream_address: None,
        client: Some("Thunderbird".to_owned()),
        phase: "relay".to_owned(),
        since: Timestamp::EPOCH,
        bytes_up: 10,
        bytes_down: 20,
    }
}

/// A login of `account` at the given moment.
pub(crate) fn login(account: &str, time: Timestamp) -> UsageEvent {
    UsageEvent {
        time,
        kind: UsageKind::Login,
        protocol: Some(Protocol::Imap),
        account: Some(account.to_owned()),
        token: Some(TokenId([7; 32])),
        remote_address: Some(Ipv4Addr::LOCALHOST.into()),
        client: None,
        reason: None,
        count: None,
        bytes_up: None,
        bytes_down: None,
        duration_ms: None,
    }
}
