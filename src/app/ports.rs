//! The admin API's ports, on the accounts and the sessions of this process.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::account::{AccountStatus, SessionId};
use crate::admin::types::{self, ListenerView, UpstreamView, VerifyStep, WebView};
use crate::admin::{AccountControl, Recognition, SessionControl};
use crate::clock::{self, Timestamp};
use crate::config::Config;
use crate::connection::{self, Services, Sessions, StepResult};
use crate::net::tls::{AuthorityFacts, PrivateCa};
use crate::proto::session::Goodbye;
use crate::recognize::{Reach, Recognizer};
use crate::store::{AccountRecord, AccountSecrets, Failures, Listing, Page, StoreError, TokenId};

/// The accounts, as the admin API reaches them.
pub(super) struct AccountPort {
    services: Arc<Services>,
}

/// The sessions, as the admin API reaches them.
pub(super) struct SessionPort {
    sessions: Arc<Sessions>,
    listeners: Vec<ListenerView>,
    web: Option<WebView>,
    ca: Option<Arc<PrivateCa>>,
}

/// Who knows providers, as the admin API reaches it.
pub(super) struct RecognitionPort {
    recognizer: Recognizer,
    config: watch::Receiver<Arc<Config>>,
}

impl RecognitionPort {
    pub(super) fn new(recognizer: Recognizer, config: watch::Receiver<Arc<Config>>) -> Self {
        Self { recognizer, config }
    }
}

impl AccountPort {
    pub(super) fn new(services: Arc<Services>) -> Self {
        Self { services }
    }
}

impl SessionPort {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        listeners: Vec<ListenerView>,
        web: Option<WebView>,
        ca: Option<Arc<PrivateCa>>,
    ) -> Self {
        Self {
            sessions,
            listeners,
            web,
            ca,
        }
    }
}

#[async_trait]
impl AccountControl for AccountPort {
    async fn create(&self, account: AccountRecord, secrets: AccountSecrets) -> Result<(), StoreError> {
        self.services.accounts.create(account, secrets).await
    }

    async fn replace(&self, account: AccountRecord, secrets: Option<AccountSecrets>) -> Result<(), StoreError> {
        self.services.accounts.replace(account, secrets).await
    }

    async fn remove(&self, account: &str) -> Result<(), StoreError> {
        self.services.accounts.remove(account).await.map(drop)
    }

    async fn token_removed(&self, account: &str, token: TokenId) {
        self.services.accounts.token_removed(account, &token);
    }

    async fn status(&self, account: &str) -> Option<AccountStatus> {
        self.services.accounts.status(account).await.ok()
    }

    fn ending(&self) -> Vec<(String, Timestamp)> {
        self.services.accounts.ending()
    }

    fn failing(&self) -> Vec<(String, Failures)> {
        self.services.accounts.failing()
    }

    fn upstreams(&self) -> Vec<UpstreamView> {
        let config = self.services.config();
        let states = self.services.upstreams.states(self.services.accounts.roll(), &config);
        states.into_iter().map(UpstreamView::from).collect()
    }

    async fn verify(&self, account: &str) -> Vec<VerifyStep> {
        let Ok(Some(record)) = self.services.store.account(account).await else {
            return Vec::new();
        };
        let steps = connection::verify(&self.services, &record).await;
        steps.into_iter().map(view).collect()
    }

    fn health(&self) -> Result<(), String> {
        self.services.accounts.health()
    }
}

#[async_trait]
impl SessionControl for SessionPort {
    async fn list(&self, account: Option<&str>, page: Page) -> Listing<types::SessionView> {
        let Listing { total, entries } = self.sessions.list(account, page).await;
        Listing {
            total,
            entries: entries.into_iter().map(types::SessionView::from).collect(),
        }
    }

    async fn find(&self, session: u64) -> Option<types::SessionView> {
        self.sessions
            .find(SessionId(session))
            .await
            .map(types::SessionView::from)
    }

    async fn close(&self, session: u64) -> bool {
        self.sessions.end(SessionId(session), Goodbye::ClosedByAdmin)
    }

    fn listeners(&self) -> Vec<ListenerView> {
        self.listeners.clone()
    }

    fn web(&self) -> Option<WebView> {
        self.web.clone()
    }

    fn certificate_authority(&self) -> Option<types::CertificateAuthorityView> {
        self.ca.as_ref().map(|ca| ca.facts(clock::now()).into())
    }
}

#[async_trait]
impl Recognition for RecognitionPort {
    async fn recognize(&self, email: &str, reach: Reach) -> types::RecognitionView {
        let config = self.config.borrow().clone();
        let finding = self.recognizer.recognize(email, &config, reach).await;
        types::RecognitionView::new(email, finding)
    }
}

impl From<AuthorityFacts> for types::CertificateAuthorityView {
    fn from(facts: AuthorityFacts) -> Self {
        Self {
            path: facts.path,
            fingerprint: facts.fingerprint,
            expires: facts.expires,
            former: facts.former.map(|former| types::FormerCertificateView {
                fingerprint: former.fingerprint,
                expires: former.expires,
            }),
        }
    }
}

impl From<connection::UpstreamState> for UpstreamView {
    fn from(state: connection::UpstreamState) -> Self {
        let connection::UpstreamState { id, can, asked, error } = state;
        Self {
            protocol: id.protocol,
            provider: id.provider,
            host: id.endpoint.host,
            port: id.endpoint.port,
            tls: id.endpoint.tls,
            capabilities: can,
            asked,
            error,
        }
    }
}

impl From<connection::SessionView> for types::SessionView {
    fn from(view: connection::SessionView) -> Self {
        Self {
            id: view.id.to_string(),
            protocol: view.protocol,
            account: view.account,
            token: view.token,
            remote_address: view.remote_address,
            local_address: view.local_address,
            upstream_address: view.upstream_address,
            client: view.client,
            phase: view.phase.to_owned(),
            since: view.since,
            bytes_up: view.bytes_up,
            bytes_down: view.bytes_down,
        }
    }
}

fn view(step: connection::Step) -> VerifyStep {
    VerifyStep {
        name: step.name.to_owned(),
        protocol: step.protocol,
        result: match step.result {
            StepResult::Ok => types::StepResult::Ok,
            StepResult::Failed => types::StepResult::Failed,
            StepResult::Skipped => types::StepResult::Skipped,
        },
        ms: step.ms,
        message: step.message,
        remedy: step.remedy,
    }
}
