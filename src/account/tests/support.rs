//! A store in memory and a scripted provider, for the tests of accounts.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::account::{Accounts, LiveSession, Notice, SessionId, SessionLease};
use crate::clock::{self, Timestamp};
use crate::config::{
    Admin, Config, Endpoint, Hooks, Limits, Log, LogFormat, OAuthApp, Provider, SecretsSettings, Server, StoreSettings,
    UpstreamTls, UserRule, Web, test_support,
};
use crate::fault::Fault;
use crate::oauth::{Basis, Revocation, TokenAnswer, TokenError, TokenSource};
use crate::proto::Protocol;
use crate::proto::session::Goodbye;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{
    AccountRecord, AccountSecrets, AccountState, Amendment, Grant, Listing, Page, SharedStore, Store, StoreError,
    TokenId, TokenRecord, TokenUse, UsageEvent, UsageFilter,
};

/// An account `id` at the provider `example`.
pub(crate) fn account(id: &str) -> AccountRecord {
    AccountRecord {
        email: Some(format!("{id}@example.com")),
        ..AccountRecord::new(id.to_owned(), "example".to_owned(), Timestamp::EPOCH)
    }
}

/// Nothing but a refresh token.
pub(crate) fn refresh_token(token: &str) -> AccountSecrets {
    AccountSecrets {
        grant: Some(Grant {
            refresh_token: Some(token.into()),
            ..Grant::default()
        }),
        password: None,
    }
}

/// A password.
pub(crate) fn password(password: &str) -> AccountSecrets {
    AccountSecrets {
        grant: None,
        password: Some(password.into()),
    }
}

/// A configuration with the providers `example` (OAuth) and `icloud` (passwords).
pub(crate) fn config() -> Config {
    let provider = |name: &str, oauth| {
        let provider = Provider {
            imap: Some(Endpoint {
                host: "imap.example.com".to_owned(),
                port: 993,
                tls: UpstreamTls::Implicit,
            }),
            imap_user: match name {
                "icloud" => UserRule::LocalPart,
                _ => UserRule::Address,
            },
            ..test_support::provider(name, oauth)
        };
        (name.to_owned(), Arc::new(provider))
    };
    Config {
        warnings: Vec::new(),
        web: Web::default(),
        hooks: Hooks::default(),
        source: None,
        server: Server {
            hostname: "proxy.example.com".to_owned(),
            state_dir: "/nonexistent".into(),
            drain_timeout: Duration::from_secs(30),
            worker_threads: None,
        },
        store: StoreSettings {
            usage_retention: Duration::from_secs(1),
            usage_events_max: 1,
        },
        secrets: SecretsSettings {
            master_key: None,
            master_key_file: None,
        },
        admin: Admin {
            socket: "/nonexistent".into(),
            socket_mode: 0o600,
            listen: vec![],
            root_token: None,
        },
        metrics_listen: None,
        log: Log {
            level: "info".to_owned(),
            format: LogFormat::Auto,
        },
        limits: Limits {
            sessions_max: 100,
            sessions_per_ip_max: 100,
            sessions_per_account_max: 2,
            pre_auth_timeout: Duration::from_secs(60),
            login_timeout: Duration::from_secs(30),
            upstream_connect_timeout: Duration::from_secs(20),
            token_request_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(1860),
            command_line_bytes_max: 8192,
            literal_bytes_max: 4096,
            bad_commands_max: 10,
            pre_auth_commands_max: 100,
            auth_failures_max: 3,
            auth_failure_delay: Duration::ZERO,
        },
        listeners: vec![],
        certificates: BTreeMap::new(),
        providers: BTreeMap::from([provider("example", Some(test_support::app())), provider("icloud", None)]),
    }
}

/// The OAuth app of the provider `example`.
pub(crate) fn app_of(config: &mut Config) -> &mut OAuthApp {
    let provider = config.providers.get_mut("example").unwrap();
    Arc::get_mut(provider).unwrap().oauth.as_mut().unwrap()
}

/// Accounts over a store in memory and a provider whose answers the test gives.
pub(crate) struct World {
    pub(crate) accounts: Accounts,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) requests: mpsc::UnboundedReceiver<TokenRequest>,
    /// The refresh tokens that were given back.
    pub(crate) revoked: mpsc::UnboundedReceiver<String>,
    pub(crate) notices: broadcast::Receiver<Notice>,
    pub(crate) config: watch::Sender<Arc<Config>>,
}

/// A refresh that waits for the test's answer.
pub(crate) struct TokenRequest {
    pub(crate) refresh_token: String,
    pub(crate) password: String,
    pub(crate) user: String,
    answer: oneshot::Sender<Result<TokenAnswer, TokenError>>,
}

impl World {
    /// A world with one account, `ada`.
    pub(crate) async fn with(secrets: AccountSecrets) -> Self {
        Self::with_record(account("ada"), secrets).await
    }

    pub(crate) async fn with_record(record: AccountRecord, secrets: AccountSecrets) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.create_account(record, secrets).await.unwrap();
        let (config, watched) = watch::channel(Arc::new(config()));
        let (sender, requests) = mpsc::unbounded_channel();
        let (revocations, revoked) = mpsc::unbounded_channel();
        let tokens = ScriptedTokens {
            requests: sender,
            revocations,
        };
        let accounts = Accounts::start(Arc::clone(&store) as SharedStore, tokens, watched);
        let notices = accounts.notices();
        Self {
            accounts,
            store,
            requests,
            revoked,
            notices,
            config,
        }
    }

    /// Asks for a credential in a task of its own.
    pub(crate) fn ask(&self, refused: Option<u64>) -> tokio::task::JoinHandle<Asked> {
        self.ask_of("ada", refused)
    }

    /// The same, of another account.
    pub(crate) fn ask_of(&self, account: &'static str, refused: Option<u64>) -> tokio::task::JoinHandle<Asked> {
        let accounts = self.accounts.clone();
        tokio::spawn(async move { accounts.credential(account, Protocol::Imap, refused).await })
    }

    /// Opens a submission in a task of its own.
    pub(crate) fn submit(&self, live: &LiveSession) -> tokio::task::JoinHandle<Result<SessionLease, Fault>> {
        let (accounts, live) = (self.accounts.clone(), live.clone());
        tokio::spawn(async move { accounts.open_session("ada", live).await })
    }

    /// The next refresh request.
    pub(crate) async fn request(&mut self) -> TokenRequest {
        self.requests.recv().await.unwrap()
    }

    pub(crate) async fn state(&self) -> AccountState {
        self.state_of("ada").await
    }

    pub(crate) async fn state_of(&self, account: &str) -> AccountState {
        self.accounts.status(account).await.unwrap().state
    }

    /// The refresh token that is in the store.
    pub(crate) fn stored(&self) -> String {
        let kept = self.store.kept.lock().unwrap();
        let grant = kept.accounts["ada"].1.grant.as_ref().unwrap();
        grant.refresh_token.as_ref().unwrap().expose_secret().to_owned()
    }
}

/// What [`World::ask`] comes to.
pub(crate) type Asked = Result<crate::account::UpstreamTarget, crate::fault::Fault>;

impl TokenRequest {
    pub(crate) fn succeed(self, access_token: &str, refresh_token: Option<&str>, life: u64) {
        self.succeed_until(access_token, refresh_token, life, None);
    }

    /// The same, with what is told of the grant's own end.
    pub(crate) fn succeed_until(
        self,
        access_token: &str,
        refresh_token: Option<&str>,
        life: u64,
        ends_in: Option<Duration>,
    ) {
        let answer = TokenAnswer {
            refresh_token: refresh_token.map(Into::into),
            scopes: Some(vec!["mail".to_owned()]),
            ends_in,
            ..TokenAnswer::bearer(access_token.into(), Duration::from_secs(life))
        };
        self.answer.send(Ok(answer)).unwrap();
    }

    pub(crate) fn fail(self, error: TokenError) {
        self.answer.send(Err(error)).unwrap();
    }

    /// Makes the task that asked panic.
    pub(crate) fn break_down(self) {
        drop(self.answer);
    }
}

struct ScriptedTokens {
    requests: mpsc::UnboundedSender<TokenRequest>,
    revocations: mpsc::UnboundedSender<String>,
}

#[async_trait]
impl TokenSource for ScriptedTokens {
    async fn obtain(&self, _: &Provider, basis: &Basis, _: Duration) -> Result<TokenAnswer, TokenError> {
        let (answer, answered) = oneshot::channel();
        let refresh_token = basis.refresh_token.as_ref().map(ExposeSecret::expose_secret);
        let refresh_token = refresh_token.unwrap_or_default().to_owned();
        let password = basis.password.as_ref().map(ExposeSecret::expose_secret);
        let request = TokenRequest {
            refresh_token,
            password: password.unwrap_or_default().to_owned(),
            user: basis.user.clone(),
            answer,
        };
        self.requests.send(request).unwrap();
        answered.await.expect("the provider breaks down")
    }

    async fn revoke(&self, _: &Provider, refresh_token: &SecretString, _: Duration) -> Result<Revocation, TokenError> {
        self.revocations.send(refresh_token.expose_secret().to_owned()).unwrap();
        Ok(Revocation::Done)
    }
}

/// A session's end that hands what it hears to the test.
pub(crate) struct Ear;

impl Actor for Ear {
    type Msg = Goodbye;
    type State = mpsc::UnboundedSender<Goodbye>;
    type Arguments = mpsc::UnboundedSender<Goodbye>;

    async fn pre_start(&self, _: ActorRef<Goodbye>, heard: Self::Arguments) -> Result<Self::State, ActorProcessingErr> {
        Ok(heard)
    }

    async fn handle(
        &self,
        _: ActorRef<Goodbye>,
        goodbye: Goodbye,
        heard: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        heard.send(goodbye)?;
        Ok(())
    }
}

/// A session on a token that is put into the store, and what it is told.
pub(crate) async fn session(world: &World, token: u8) -> (LiveSession, mpsc::UnboundedReceiver<Goodbye>) {
    let token = TokenId([token; 32]);
    world.store.kept.lock().unwrap().tokens.push(token);
    let (sender, heard) = mpsc::unbounded_channel();
    let (ear, _) = Actor::spawn(None, Ear, sender).await.unwrap();
    let live = LiveSession {
        session: SessionId::next(),
        protocol: Protocol::Imap,
        token,
        end: ear.get_derived(),
    };
    (live, heard)
}

/// A submission, as [`session`] is one of IMAP.
pub(crate) async fn submission(world: &World, token: u8) -> LiveSession {
    let (live, _) = session(world, token).await;
    LiveSession {
        protocol: Protocol::Smtp,
        ..live
    }
}

/// A store in memory, as much of it as accounts need.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) kept: Mutex<Kept>,
    /// How often the record of an account was written, alone or with its credentials.
    pub(crate) writes: AtomicUsize,
    /// How often a grant was.
    pub(crate) grant_writes: AtomicUsize,
    /// Whether account writes are refused.
    pub(crate) is_full: AtomicBool,
    /// Where given, each account write waits for a permit.
    pub(crate) gate: Mutex<Option<Arc<Semaphore>>>,
}

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) accounts: HashMap<String, (AccountRecord, AccountSecrets)>,
    pub(crate) tokens: Vec<TokenId>,
}

impl MemoryStore {
    /// From now on, account writes wait for a permit.
    pub(crate) fn hold_writes(&self) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        *self.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    pub(crate) fn grant_writes(&self) -> usize {
        self.grant_writes.load(Ordering::SeqCst)
    }

    async fn begin_write(&self, count: &AtomicUsize) -> Result<(), StoreError> {
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.acquire().await.unwrap().forget();
        }
        count.fetch_add(1, Ordering::SeqCst);
        match self.is_full.load(Ordering::SeqCst) {
            true => Err(StoreError::Unwritable("no space left on device".to_owned())),
            false => Ok(()),
        }
    }

    fn replace(
        &self,
        account: AccountRecord,
        secrets: impl FnOnce(AccountSecrets) -> AccountSecrets,
    ) -> Result<(), StoreError> {
        let mut kept = self.kept.lock().unwrap();
        let is_taken = |(other, _): &(AccountRecord, AccountSecrets)| {
            other.account != account.account && other.email == account.email
        };
        if kept.accounts.values().any(is_taken) {
            return Err(StoreError::Conflict("e-mail"));
        }
        let held = kept
            .accounts
            .get_mut(&account.account)
            .ok_or(StoreError::NotFound("account"))?;
        *held = (account, secrets(held.1.clone()));
        Ok(())
    }
}

/// The credentials as they are after an amendment.
fn amended(mut secrets: AccountSecrets, amendment: Option<Amendment>) -> (AccountSecrets, bool) {
    let before = secrets.clone();
    match amendment.is_some_and(|amendment| amendment(&mut secrets)) {
        true => (secrets, true),
        false => (before, false),
    }
}

#[async_trait]
impl Store for MemoryStore {
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
        let mut kept = self.kept.lock().unwrap();
        if kept.accounts.contains_key(&account.account) {
            return Err(StoreError::Conflict("account"));
        }
        kept.accounts.insert(account.account.clone(), (account, secrets));
        Ok(())
    }

    async fn replace_account(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        self.begin_write(&self.writes).await?;
        self.replace(account, |_| secrets)
    }

    async fn amend_account(&self, account: AccountRecord, secrets: Option<Amendment>) -> Result<(), StoreError> {
        self.begin_write(&self.writes).await?;
        self.replace(account, |kept| amended(kept, secrets).0)
    }

    async fn amend_secrets(&self, account: &str, amendment: Amendment) -> Result<bool, StoreError> {
        self.begin_write(&self.grant_writes).await?;
        let mut kept = self.kept.lock().unwrap();
        let (_, secrets) = kept.accounts.get_mut(account).ok_or(StoreError::NotFound("account"))?;
        let (after, is_amended) = amended(secrets.clone(), Some(amendment));
        *secrets = after;
        Ok(is_amended)
    }

    async fn remove_account(&self, account: &str) -> Result<Vec<TokenId>, StoreError> {
        let mut kept = self.kept.lock().unwrap();
        let shares =
            |(record, _): &&(AccountRecord, AccountSecrets)| record.shares_grant_of.as_deref() == Some(account);
        if let Some((sharer, _)) = kept.accounts.values().find(shares) {
            return Err(StoreError::GrantShared(sharer.account.clone()));
        }
        kept.accounts.remove(account).ok_or(StoreError::NotFound("account"))?;
        Ok(std::mem::take(&mut kept.tokens))
    }

    async fn account(&self, account: &str) -> Result<Option<AccountRecord>, StoreError> {
        Ok(self
            .kept
            .lock()
            .unwrap()
            .accounts
            .get(account)
            .map(|(record, _)| record.clone()))
    }

    async fn account_by_login(&self, name: &str) -> Result<Option<AccountRecord>, StoreError> {
        self.account(name).await
    }

    async fn account_secrets(&self, account: &str) -> Result<Option<AccountSecrets>, StoreError> {
        Ok(self
            .kept
            .lock()
            .unwrap()
            .accounts
            .get(account)
            .map(|(_, secrets)| secrets.clone()))
    }

    async fn accounts(&self, _: Option<&str>, _: Page) -> Result<Listing<AccountRecord>, StoreError> {
        Ok(Listing {
            total: 0,
            entries: vec![],
        })
    }

    async fn accounts_after(&self, after: Option<&str>, count: usize) -> Result<Vec<AccountRecord>, StoreError> {
        let kept = self.kept.lock().unwrap();
        let mut found: Vec<_> = kept.accounts.values().map(|(record, _)| record.clone()).collect();
        found.sort_by(|one, other| one.account.cmp(&other.account));
        found.retain(|record| after.is_none_or(|after| record.account.as_str() > after));
        found.truncate(count);
        Ok(found)
    }

    async fn sharers(&self, owner: &str) -> Result<Vec<String>, StoreError> {
        let kept = self.kept.lock().unwrap();
        let records = kept.accounts.values().map(|(record, _)| record);
        let sharing = records.filter(|record| record.shares_grant_of.as_deref() == Some(owner));
        Ok(sharing.map(|record| record.account.clone()).collect())
    }

    async fn account_states(&self) -> Result<Vec<(AccountState, u64)>, StoreError> {
        Ok(vec![])
    }

    async fn create_token(&self, token: TokenRecord) -> Result<(), StoreError> {
        self.kept.lock().unwrap().tokens.push(token.id);
        Ok(())
    }

    async fn remove_token(&self, id: &TokenId) -> Result<Vec<TokenRecord>, StoreError> {
        self.kept.lock().unwrap().tokens.retain(|kept| kept != id);
        Ok(Vec::new())
    }

    async fn token(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let is_kept = self.kept.lock().unwrap().tokens.contains(id);
        Ok(is_kept.then(|| TokenRecord::new(*id, Some("ada".to_owned()), Vec::new(), clock::now())))
    }

    async fn tokens(
        &self,
        _: Option<&str>,
        _: Option<&str>,
        _: Page,
    ) -> Result<Listing<(TokenRecord, Option<TokenUse>)>, StoreError> {
        Ok(Listing {
            total: 0,
            entries: vec![],
        })
    }

    async fn token_use(&self, _: &TokenId) -> Result<Option<TokenUse>, StoreError> {
        let ip = IpAddr::from([127, 0, 0, 1]);
        Ok(Some(TokenUse { time: clock::now(), ip }))
    }

    async fn token_count(&self) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn record_token_use(&self, _: TokenId, _: TokenUse) {}

    fn record_usage(&self, _: UsageEvent) {}

    async fn usage(&self, _: &UsageFilter, _: Page) -> Result<Listing<UsageEvent>, StoreError> {
        Ok(Listing {
            total: 0,
            entries: vec![],
        })
    }

    async fn sweep_usage(&self, _: Timestamp, _: Duration, _: u64) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn derive_key(&self, _: &'static str) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new([7; 32])
    }

    fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
