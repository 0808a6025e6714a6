//! Client connections: each is an actor that owns one task at a time, first the login's, then the relay's.
//!
//! ```text
//! net::listener ──accepted──> Connection (actor: describe, end, facts)
//!                                └─ owns ── driver::Driver ──parts──> net::relay::Relay
//!                                              │ drives proto::Session
//! Sessions (register) <── one entry for each actor, read by the sweeper and the admin API
//! ```
//!
//! Bytes never pass through the actor's mailbox: the login's task and the relay's task move them. What the actor keeps is
//! released by `Drop` in every way an actor can end: its task is aborted, its entry leaves the register, its lease goes back
//! to the account. A panic in a task is reported to the actor as an end like any other, and ends that session only.

mod actor;
mod attempt;
mod driver;
mod open;
mod opening;
mod refusals;
mod register;
mod sweeper;
mod throttle;
mod trust;
mod try_login;
mod upstreams;
mod verify;

use std::sync::Arc;

use tokio::sync::watch;

use crate::access::Budgets;
use crate::account::{Accounts, Changes};
use crate::config::{self, Config};
use crate::store::SharedStore;
use crate::usage::UsageLog;

pub use actor::{Listener, accept};
pub use register::{SessionView, Sessions};
pub use sweeper::{Drain, sweep};
pub use trust::Trust;
pub use try_login::try_login;
pub use upstreams::{UpstreamState, Upstreams, ask_upstreams};
pub use verify::{Step, StepResult, verify, walked};

/// What every session needs of the rest of the program.
pub struct Services {
    /// Where access tokens are looked up.
    pub store: SharedStore,
    /// Who owns the mailboxes' credentials.
    pub accounts: Accounts,
    /// Where usage events go.
    pub usage: UsageLog,
    /// The configuration in effect.
    pub config: watch::Receiver<Arc<Config>>,
    /// TLS towards upstreams.
    pub trust: Trust,
    /// The live sessions.
    pub sessions: Arc<Sessions>,
    /// What refused logins cost.
    pub failures: Arc<Budgets>,
    /// What was said of refusals lately.
    refusals: refusals::Refusals,
    /// What was said of misunderstandings lately.
    hints: opening::Hints,
    /// What upstreams can do.
    pub upstreams: Upstreams,
    /// Who is being verified.
    verifications: Changes,
    /// Which upstreams asked to be left alone.
    throttles: throttle::Throttles,
}

impl Services {
    /// Puts together what sessions need.
    pub fn new(
        store: SharedStore,
        accounts: Accounts,
        usage: UsageLog,
        config: watch::Receiver<Arc<Config>>,
        trust: Trust,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            accounts,
            usage,
            config,
            trust,
            sessions: Arc::default(),
            failures: Arc::default(),
            refusals: refusals::Refusals::default(),
            hints: opening::Hints::default(),
            upstreams: Upstreams::default(),
            verifications: Changes::default(),
            throttles: throttle::Throttles::default(),
        })
    }

    /// What a client of a listener is told of its upstream before its login.
    async fn promised(&self, config: &Arc<Config>, listener: &config::Listener) -> Arc<[String]> {
        let roll = self.accounts.roll();
        self.upstreams.settled(roll).await;
        self.upstreams
            .promised(roll, config, listener.protocol, listener.provider.as_deref())
    }

    /// The configuration in effect now.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }
}
