//! One login attempt of a connection: what it holds, and the work that it waits for.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ractor::ActorRef;
use tokio::time::sleep;

use super::Services;
use super::actor::Message;
use super::open::{self, Leg};
use crate::access::{self, Scope};
use crate::account::{LiveSession, SessionId, SessionLease, UpstreamTarget};
use crate::clock;
use crate::fault::{Fault, FaultKind};
use crate::metrics::names;
use crate::net::admission::client_of;
use crate::proto::Protocol;
use crate::proto::session::{Admission, LoginRequest};
use crate::store::TokenId;

/// One login attempt, from the client's credentials to their answer. Dropping it gives back all that it holds.
pub(super) struct Attempt {
    /// When the client gave its credentials.
    pub(super) begun: Instant,
    /// The account that was named, if it exists.
    pub(super) account: Option<String>,
    /// The access token that was presented, if it exists.
    pub(super) token: Option<TokenId>,
    /// The place among the account's sessions, once admitted.
    pub(super) lease: Option<SessionLease>,
    /// Which of the account's grants the upstream was last shown.
    pub(super) grant: Option<u64>,
    /// What the upstream leg was opened with.
    pub(super) target: Option<UpstreamTarget>,
    /// The upstream leg, while it is open and nothing is done to it.
    pub(super) upstream: Option<Upstream>,
    /// What the session waits for.
    pub(super) work: Option<Work>,
}

/// Work that a session waits for, polled beside its legs.
pub(super) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How a piece of work ended.
pub(super) enum Outcome {
    /// The access token was checked.
    Checked(Checked),
    /// The upstream leg was opened; with the grant that is to be shown there, if there is one.
    Connected(Option<u64>, Result<(Leg, Box<UpstreamTarget>), Fault>),
    /// TLS was begun on it.
    Secured(Result<Leg, Fault>),
}

/// What checking an access token gave.
pub(super) struct Checked {
    pub(super) account: Option<String>,
    pub(super) token: Option<TokenId>,
    pub(super) lease: Option<SessionLease>,
    pub(super) result: Result<Admission, Fault>,
    /// For how long the answer was held back.
    pub(super) delayed: Duration,
}

/// An open upstream leg before the relay.
pub(super) struct Upstream {
    pub(super) leg: Leg,
    /// Whether a write to it has failed, which the session is to hear as its end.
    pub(super) is_lost: bool,
    pub(super) buffer: Box<[u8]>,
}

/// What checking an access token takes.
pub(super) struct Check {
    pub(super) services: Arc<Services>,
    pub(super) request: LoginRequest,
    pub(super) protocol: Protocol,
    pub(super) address: IpAddr,
    /// How long a refusal may be held back.
    pub(super) delay_max: Duration,
    pub(super) session: SessionId,
    pub(super) actor: ActorRef<Message>,
}

impl Attempt {
    /// An attempt that begins with checking the client's credentials.
    pub(super) fn begin(now: Instant, check: Work) -> Self {
        Self {
            begun: now,
            account: None,
            token: None,
            lease: None,
            grant: None,
            target: None,
            upstream: None,
            work: Some(check),
        }
    }
}

impl Upstream {
    pub(super) fn new(leg: Leg) -> Self {
        let buffer = open::buffer();
        Self {
            leg,
            is_lost: false,
            buffer,
        }
    }
}

impl Check {
    /// Checks the access token, holds a refusal back for as long as the failures before it ask for, and takes a place among the account's sessions, where the token is looked up once more: its
    /// deletion either finds the session there, or is found by it.
    pub(super) async fn run(self) -> Checked {
        let Self {
            services,
            request,
            protocol,
            address,
            delay_max,
            session,
            actor,
        } = self;
        let client = client_of(address);
        let (user, scope) = (request.user.as_deref(), Scope::of(protocol));
        let admitted = access::authenticate(&*services.store, user, &request.secret, scope, address, clock::now());
        let admitted = match admitted.await {
            Ok(admitted) => admitted,
            Err(denied) => {
                let name = denied.account.as_deref().or(user);
                let delayed = match denied.fault.kind {
                    // The store is to blame.
                    FaultKind::Unavailable => Duration::ZERO,
                    _ => services.failures.refused(client, name, delay_max, clock::instant()),
                };
                if !delayed.is_zero() {
                    names::refusals_delayed(protocol.name()).increment(1);
                    sleep(delayed).await;
                }
                let (account, token) = (denied.account, denied.token);
                return Checked {
                    account,
                    token,
                    lease: None,
                    result: Err(denied.fault),
                    delayed,
                };
            }
        };
        services.failures.accepted(client, clock::instant());
        let (account, token) = (admitted.account.account, admitted.token.id);
        let live = LiveSession {
            session,
            protocol,
            token,
            end: actor.get_derived(),
        };
        let (lease, result) = match services.accounts.open_session(&account, live).await {
            Ok(lease) => (
                Some(lease),
                Ok(Admission {
                    account: account.clone(),
                }),
            ),
            Err(fault) => (None, Err(fault)),
        };
        Checked {
            account: Some(account),
            token: Some(token),
            lease,
            result,
            delayed: Duration::ZERO,
        }
    }
}
