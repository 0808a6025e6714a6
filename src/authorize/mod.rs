//! Consent: how a mailbox's owner gives a grant, and what must hold before it is kept.
//!
//! ```text
//!  admin, cli ──begin──> flows (pure) ──redirect──┐
//!  web ──link──> links (pure) ──begin──> flows ───┴─> exchange ──> judge ──> login ──> store
//!  device task ──poll──> provider ──granted──────────────────────────┘
//! ```
//!
//! A grant is kept only if it can be refreshed, covers what was asked for, is the right mailbox's and opens it: a real login
//! shows that. What fails is given back to the provider, and the account's old grant stays as it was. The one exception is an
//! upstream that cannot be reached: the grant is kept, since nothing is wrong with it, and the outcome says so.
//!
//! Flows in progress live in memory: a restart ends them, and they are begun again. Links are signed and survive it.

mod complete;
mod device;
mod error;
mod flows;
mod link;
mod progress;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use url::Url;

use crate::account::Changes;
use crate::clock::{self, Timestamp};
use crate::config::{Provider, is_loopback_host};
use crate::connection::Services;
use crate::limits::{CODE_FLOW_LIFE, DEVICE_FLOWS_MAX, LINK_LIFE};
use crate::oauth::{OAuthClient, Redirect};
use crate::store::{AccountRecord, AccountState};

pub use error::{AuthorizeError, Blame};
pub use flows::Bearer;
pub use link::LinkProblem;
pub use progress::{FlowKind, FlowState, Progress};

use flows::{Browser, CodeFlow, Flows};
use link::{LinkKey, Links, Payload};
use progress::Board;

/// Leads owners through consent. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    shared: Arc<Shared>,
}

struct Shared {
    services: Arc<Services>,
    oauth: OAuthClient,
    changes: Arc<Changes>,
    flows: Mutex<Flows>,
    links: Links,
    board: Mutex<Board>,
    /// Bounds the device flows in progress, each of which is a task.
    device_places: Arc<Semaphore>,
}

/// Whose mailbox a consent is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The account's id. The account need not exist yet where a link was made for it.
    pub account: String,
    /// The mailbox's address.
    pub email: Option<String>,
    /// The provider's name in the configuration.
    pub provider: String,
}

/// A code flow that has begun.
#[derive(Debug, Clone)]
pub struct CodeBegun {
    /// Where the owner's browser goes.
    pub url: Url,
    /// Until when it may come back.
    pub expires: Timestamp,
}

/// A device flow that has begun.
#[derive(Debug, Clone)]
pub struct DeviceBegun {
    /// What the owner types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// Until when.
    pub expires: Timestamp,
    /// Seconds between the daemon's questions.
    pub interval: u64,
}

/// A consent that was given, tried and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The account's id.
    pub account: String,
    /// The mailbox's address.
    pub email: Option<String>,
    /// Its state now.
    pub state: AccountState,
    /// Where whoever made the link wants the browser to go.
    pub return_to: Option<Url>,
}

/// What a link is to be made of.
#[derive(Debug, Clone)]
pub struct LinkOrder {
    /// Whose mailbox it is for.
    pub subject: Subject,
    /// Where the browser is sent after success.
    pub return_to: Option<Url>,
}

impl Authorizer {
    /// An authorizer without any flow in progress. `changes` is shared with whoever else changes accounts.
    pub fn new(services: Arc<Services>, oauth: OAuthClient, changes: Arc<Changes>) -> Self {
        let key = LinkKey::new(&services.store.derive_key("authorization links"));
        Self {
            shared: Arc::new(Shared {
                services,
                oauth,
                changes,
                flows: Mutex::default(),
                links: Links::new(key),
                board: Mutex::default(),
                device_places: Arc::new(Semaphore::new(DEVICE_FLOWS_MAX)),
            }),
        }
    }

    /// Begins a code flow for an account that exists, which comes back to `redirect_uri`: a listener on the owner's own
    /// machine, or the public side.
    ///
    /// # Errors
    /// [`AuthorizeError`].
    pub async fn begin_code(&self, account: &AccountRecord, redirect_uri: &Url) -> Result<CodeBegun, AuthorizeError> {
        let own = self.callback();
        // RFC 8252 §7.3 and §8.3: a loopback listener is on the owner's own machine, whatever its port.
        let is_local = redirect_uri.scheme() == "http" && redirect_uri.host_str().is_some_and(is_loopback_host);
        if !is_local && own.as_ref() != Some(redirect_uri) {
            return Err(AuthorizeError::RedirectUri);
        }
        if redirect_uri.fragment().is_some() {
            return Err(AuthorizeError::RedirectUri);
        }
        let subject = Subject::of(account);
        self.begin(subject, redirect_uri.clone(), None, None).await
    }

    /// Makes a link that leads the mailbox's owner through consent, good for [`LINK_LIFE`] and for one success.
    ///
    /// # Errors
    /// [`AuthorizeError`]; [`AuthorizeError::WebOff`] where no public side is configured.
    pub async fn link(&self, order: LinkOrder) -> Result<Url, AuthorizeError> {
        let base = self.public_url().ok_or(AuthorizeError::WebOff)?;
        self.provider(&order.subject.provider)?;
        let record = self.shared.services.store.account(&order.subject.account).await?;
        if let Some(record) = &record
            && record.provider != order.subject.provider
        {
            return Err(AuthorizeError::OtherProvider(record.provider.clone()));
        }
        let now = clock::now();
        let payload = Payload::new(order, record.is_some(), now, now.after(LINK_LIFE));
        Ok(below(&base, &format!("authorize/{}", self.shared.links.seal(&payload))))
    }

    /// Reads a link, without consuming it.
    ///
    /// # Errors
    /// [`LinkProblem`].
    pub async fn open_link(&self, link: &str) -> Result<Subject, LinkProblem> {
        let payload = self.shared.links.open(link, clock::now())?;
        self.check_link(&payload).await?;
        Ok(payload.subject())
    }

    /// Whether a link that was read still stands, its time apart.
    async fn check_link(&self, link: &Payload) -> Result<(), LinkProblem> {
        self.shared.links.check(link)?;
        let record = self.shared.services.store.account(&link.account).await;
        let record = record.map_err(|error| LinkProblem::Unknown(error.to_string()))?;
        link.check(record.as_ref())
    }

    /// Begins the code flow of a link, for the browser that keeps `browser`, which alone can complete it.
    ///
    /// # Errors
    /// [`AuthorizeError`].
    pub async fn begin_link(&self, link: &str, browser: &[u8]) -> Result<Url, AuthorizeError> {
        let subject = self.open_link(link).await?;
        let payload = self.shared.links.open(link, clock::now())?;
        let redirect_uri = self.callback().ok_or(AuthorizeError::WebOff)?;
        let browser = Some(Browser::of(browser));
        let begun = self.begin(subject, redirect_uri, browser, Some(payload)).await?;
        Ok(begun.url)
    }

    /// Completes a code flow from the URL to which the provider sent the owner's browser. Runs to its end even if the caller
    /// goes away, since a code can be exchanged once.
    ///
    /// # Errors
    /// [`AuthorizeError`].
    pub async fn complete(&self, redirected: &Url, bearer: Bearer<'_>) -> Result<Completed, AuthorizeError> {
        let redirect = Redirect::read(redirected)?;
        let flow = self.flows().take(&redirect, &bearer, clock::now());
        let flow = flow.ok_or(AuthorizeError::UnknownFlow)?;
        let this = self.clone();
        let completion = tokio::spawn(Box::pin(async move { this.exchange(flow, redirect).await }));
        completion
            .await
            .unwrap_or_else(|panicked| Err(AuthorizeError::Internal(panicked.to_string())))
    }

    /// How the latest flow of an account stands.
    pub fn progress(&self, account: &str) -> Option<Progress> {
        self.board().of(account, clock::now())
    }

    async fn exchange(&self, flow: CodeFlow, redirect: Redirect) -> Result<Completed, AuthorizeError> {
        let outcome = self.exchange_and_keep(&flow, &redirect).await;
        self.board()
            .end(&flow.subject.account, flow.number, &outcome, clock::now());
        let mut completed = outcome?;
        if let Some(link) = flow.link {
            completed.return_to = link.return_to();
            self.shared.links.consume(&link);
        }
        Ok(completed)
    }

    async fn exchange_and_keep(&self, flow: &CodeFlow, redirect: &Redirect) -> Result<Completed, AuthorizeError> {
        // Two browsers may have begun by one link: the second to come back hears so before its code is spent.
        if let Some(link) = &flow.link {
            self.check_link(link).await?;
        }
        let provider = self.provider(&flow.subject.provider)?;
        let timeout = self.shared.services.config().limits.token_request_timeout;
        let answer = self
            .shared
            .oauth
            .exchange_code(&provider, &flow.pending, redirect, timeout);
        let answer = answer.await.map_err(AuthorizeError::of_exchange)?;
        self.keep(&flow.subject, &provider, answer, &flow.pending.scopes).await
    }

    async fn begin(
        &self,
        subject: Subject,
        redirect_uri: Url,
        browser: Option<Browser>,
        link: Option<Payload>,
    ) -> Result<CodeBegun, AuthorizeError> {
        let provider = self.consenting(&subject.provider)?;
        let timeout = self.shared.services.config().limits.token_request_timeout;
        let hint = subject.mailbox();
        let request = self.shared.oauth.begin_code(&provider, &redirect_uri, hint, timeout);
        let request = request.await.map_err(AuthorizeError::Provider)?;
        let now = clock::now();
        let expires = now.after(CODE_FLOW_LIFE);
        let number = self.board().begin(&subject.account, FlowKind::Code, expires, now);
        self.flows().add(
            CodeFlow {
                number,
                subject,
                pending: request.pending,
                browser,
                link,
                expires,
            },
            now,
        );
        Ok(CodeBegun {
            url: request.url,
            expires,
        })
    }

    fn provider(&self, name: &str) -> Result<Arc<Provider>, AuthorizeError> {
        let config = self.shared.services.config();
        let provider = config.providers.get(name).cloned();
        provider.ok_or_else(|| AuthorizeError::UnknownProvider(name.to_owned()))
    }

    /// The provider, if its mailboxes' owners consent at all.
    fn consenting(&self, name: &str) -> Result<Arc<Provider>, AuthorizeError> {
        let provider = self.provider(name)?;
        match &provider.oauth {
            Some(app) if app.grant.needs_consent() => Ok(provider),
            Some(_) => Err(AuthorizeError::NoConsent(name.to_owned())),
            None => Err(AuthorizeError::PasswordsOnly(name.to_owned())),
        }
    }

    /// What people call a provider.
    pub fn title(&self, provider: &str) -> String {
        let mut letters = provider.chars();
        let first = letters.next().into_iter().flat_map(char::to_uppercase);
        first.chain(letters).collect()
    }

    fn public_url(&self) -> Option<Url> {
        self.shared.services.config().web.public_url.clone()
    }

    /// Where the provider sends browsers back to that followed a link.
    fn callback(&self) -> Option<Url> {
        self.public_url().map(|base| below(&base, "oauth/callback"))
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        // Nothing under this lock can leave the flows half-changed.
        self.shared.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // As above.
        self.shared.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject {
    /// Whose mailbox `record` is.
    pub fn of(record: &AccountRecord) -> Self {
        Self {
            account: record.account.clone(),
            email: record.email.clone(),
            provider: record.provider.clone(),
        }
    }

    /// The mailbox's address: the one given, or an id that is one.
    pub fn mailbox(&self) -> Option<&str> {
        let id = Some(self.account.as_str()).filter(|id| id.contains('@'));
        self.email.as_deref().or(id)
    }
}

/// The URL of `path` below `base`, whose own path has no slash at its end.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}
