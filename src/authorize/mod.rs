//! Consents: asking a mailbox's owner, and what becomes of the answer.
//!
//! ```text
//!  admin API ── begin_code ──> flows ────────── redirect ──┐
//!  web ── link ── begin ─────> flows ── browser's own ─────┤
//!  admin API ── begin_device ─> devices ── task polls ─────┤
//!                                                          v
//!        exchange ──> judgement ──> a login at the mailbox ──> store        all of it to its end, one at a time of an account
//!           │            │                    │                  │
//!           └────────────┴──── AuthorizeError ┴──────────────────┘         nothing is stored; what the account had stays
//! ```
//! `flows`, `device`, `progress`, `links` and `judgement` decide and are pure; [`Authorizer`] does what they say.
//! Success is what a login at the mailbox has shown, and nothing less. Where the mailbox cannot be reached just then, a grant
//! that can be told to be the mailbox's own is kept untried, and the outcome says so.
//!
//! Everything that was begun with a code runs to its end, whoever goes away meanwhile, because a code is good once; a stop
//! waits for it. Flows are kept in memory: a restart forgets them, and their owners begin again. Links outlive it.

mod begin;
mod complete;
mod device;
mod error;
mod flows;
mod judgement;
mod links;
mod progress;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use url::Url;

use crate::account::Changes;
use crate::clock::{self, Timestamp};
use crate::config::Provider;
use crate::connection::Services;
use crate::oauth::OAuthClient;
use crate::store::AccountState;
use device::Devices;
use flows::Flows;
use links::{Link, Links};
use progress::Latest;

pub use begin::{CodeBegun, DeviceBegun, LinkOrder, Subject};
pub use error::{AuthorizeError, Blame, LinkProblem};
pub use progress::{FlowKind, Progress, Stage};

/// Asks owners of mailboxes for their consent, and completes what they answer. Cheap to clone.
#[derive(Clone)]
pub struct Authorizer {
    shared: Arc<Shared>,
}

/// What flows have in common.
struct Shared {
    services: Arc<Services>,
    oauth: OAuthClient,
    changes: Arc<Changes>,
    links: Mutex<Links>,
    flows: Mutex<Flows>,
    devices: Mutex<Devices>,
    latest: Mutex<Latest>,
    /// Counts the flows, so that the older of two can be told.
    begun: AtomicU64,
    /// What runs to its end: completions, and the polling of device codes.
    tasks: Mutex<JoinSet<()>>,
    is_stopping: watch::Sender<bool>,
}

/// What an owner is asked for.
#[derive(Debug, Clone)]
struct Consent {
    /// The account's id.
    account: String,
    /// The provider as it was when the flow began: a code belongs to the app that asked for it.
    provider: Arc<Provider>,
    /// When the account was added, where that counts: a link knows by itself what it was made for.
    created: Option<Timestamp>,
    /// The hosted link that it came by.
    link: Option<Link>,
    /// Which flow it is; later ones have higher numbers.
    number: u64,
}

/// How a redirect came back.
#[derive(Debug, Clone)]
pub enum Via {
    /// By the admin API.
    Api {
        /// The one account that the caller may act on; `None`: all.
        own: Option<String>,
    },
    /// By the public side, from a browser that keeps this secret, or none.
    Browser(Option<[u8; 32]>),
}

/// A consent that opened its mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// The account's id.
    pub account: String,
    /// The mailbox's address, where it is known.
    pub email: Option<String>,
    /// The account's state now.
    pub state: AccountState,
    /// Where whoever made the link wants the browser to go, told of the account and its state.
    pub return_to: Option<Url>,
}

impl Authorizer {
    /// An authorizer of the accounts of `services`, which asks providers by `oauth` and takes its turn at an account among
    /// `changes`.
    pub fn new(services: Arc<Services>, oauth: OAuthClient, changes: Arc<Changes>) -> Self {
        let key = services.store.derive_key("hosted links");
        Self {
            shared: Arc::new(Shared {
                services,
                oauth,
                changes,
                links: Mutex::new(Links::new(&key)),
                flows: Mutex::default(),
                devices: Mutex::default(),
                latest: Mutex::default(),
                begun: AtomicU64::new(0),
                tasks: Mutex::default(),
                is_stopping: watch::Sender::new(false),
            }),
        }
    }

    /// How the latest flow of `account` is going; `None` where none was begun, or too long ago.
    pub fn progress(&self, account: &str) -> Option<Progress> {
        lock(&self.shared.latest).of(account, clock::now())
    }

    /// Begins nothing more, gives up the device flows that wait for their owners, and waits for what is being completed.
    pub async fn stop(&self) {
        self.shared.is_stopping.send_replace(true);
        lock(&self.shared.devices).stop();
        loop {
            let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    fn refuse_if_stopping(&self) -> Result<(), AuthorizeError> {
        if *self.shared.is_stopping.borrow() {
            return Err(AuthorizeError::Stopping);
        }
        Ok(())
    }

    fn next_number(&self) -> u64 {
        self.shared.begun.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `work` to its end, whether or not somebody waits for it.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.shared.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    /// The same, and waits for what comes of it.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AuthorizeError>> + Send + 'static,
    ) -> Result<T, AuthorizeError> {
        let (tell, told) = oneshot::channel();
        {
            let mut tasks = lock(&self.shared.tasks);
            // IMPORTANT: under the lock by which a stop takes the tasks. What begins here is waited for, or does not begin.
            self.refuse_if_stopping()?;
            tasks.spawn(async move {
                // Whoever waited may have gone.
                let _ = tell.send(work.await);
            });
        }
        told.await.unwrap_or(Err(AuthorizeError::Defect))
    }
}

impl Shared {
    fn open_link(&self, token: &str, now: Timestamp) -> Result<Link, LinkProblem> {
        lock(&self.links).open(token, now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave what they guard half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
