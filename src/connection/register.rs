//! The register of live sessions: who is there, found by id, newest first.
//!
//! It holds what the sweeper compares between two rounds, so that neither a relay nor its actor needs a clock or a timer. The
//! lock is held for the length of a map operation or of one sweep, never across an await.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ractor::ActorRef;
use ractor::rpc::CallResult;

use super::actor::Message;
use super::sweeper::count_relayed;
use crate::account::SessionId;
use crate::clock::Timestamp;
use crate::net::relay::Traffic;
use crate::proto::Protocol;
use crate::proto::dialogue::UpstreamRemark;
use crate::proto::session::Goodbye;
use crate::store::{Listing, Page, TokenId};

/// All live sessions of this process.
#[derive(Default)]
pub struct Sessions {
    entries: Mutex<BTreeMap<SessionId, Entry>>,
}

/// One live session.
pub(super) struct Entry {
    /// Who answers for it.
    pub(super) actor: ActorRef<Message>,
    /// Its protocol, for the byte counters.
    pub(super) protocol: Protocol,
    /// The account's id, once a token was admitted.
    pub(super) account: Option<String>,
    /// What it has moved, once it is relayed.
    pub(super) relayed: Option<Relayed>,
}

/// What the sweeper knows of a relayed session.
pub(super) struct Relayed {
    /// The relay's own counters.
    pub(super) traffic: Arc<Traffic>,
    /// The upstream's provider, for what the upstream says of itself.
    pub(super) provider: String,
    /// Bytes (up, down) at the last sweep, which the metrics have already.
    pub(super) counted: (u64, u64),
    /// Since when no byte has moved.
    pub(super) quiet_since: Instant,
    /// Since when one side has ended.
    pub(super) half_closed_since: Option<Instant>,
}

/// A live session as the admin API shows it.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// The client's protocol.
    pub protocol: Protocol,
    /// The account's id, once a token was admitted.
    pub account: Option<String>,
    /// The access token's id, once it was admitted.
    pub token: Option<TokenId>,
    /// The client's address.
    pub remote_address: SocketAddr,
    /// The listener's address.
    pub local_address: SocketAddr,
    /// The upstream's address, once the session is relayed.
    pub upstream_address: Option<SocketAddr>,
    /// What the client said it is.
    pub client: Option<String>,
    /// `greeting`, `auth`, `upstream_connect` or `relay`.
    pub phase: &'static str,
    /// When the client connected.
    pub since: Timestamp,
    /// Bytes from the client to the upstream.
    pub bytes_up: u64,
    /// Bytes from the upstream to the client.
    pub bytes_down: u64,
}

impl Sessions {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// One page of them, newest first; of one account, if it is given. Sessions that end while they are asked are left out.
    pub async fn list(&self, account: Option<&str>, page: Page) -> Listing<SessionView> {
        let (total, actors) = self.page(account, page);
        Listing {
            total,
            entries: describe(actors).await,
        }
    }

    /// How many sessions `account` has, or all accounts together, and those of one page: only these need be asked.
    fn page(&self, account: Option<&str>, page: Page) -> (u64, Vec<ActorRef<Message>>) {
        let entries = self.lock();
        let wanted = || {
            let newest_first = entries.values().rev();
            newest_first.filter(|entry| account.is_none_or(|account| entry.account.as_deref() == Some(account)))
        };
        let on_page = wanted().skip(page.page.saturating_mul(page.size)).take(page.size);
        (
            wanted().count() as u64,
            on_page.map(|entry| entry.actor.clone()).collect(),
        )
    }

    /// One of them.
    pub async fn find(&self, session: SessionId) -> Option<SessionView> {
        let actor = self.lock().get(&session)?.actor.clone();
        describe([actor]).await.pop()
    }

    /// Ends a session. False if there is none with this id.
    pub fn end(&self, session: SessionId, reason: Goodbye) -> bool {
        match self.lock().get(&session) {
            Some(entry) => entry.actor.cast(Message::End(reason)).is_ok(),
            None => false,
        }
    }

    /// Ends every session.
    pub(super) fn end_all(&self, reason: Goodbye) {
        for entry in self.lock().values() {
            // A session that cannot be told any more is ending by itself.
            entry.actor.cast(Message::End(reason)).ok();
        }
    }

    /// Enters a session; it leaves when the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, session: SessionId, entry: Entry) -> Entered {
        self.lock().insert(session, entry);
        Entered {
            sessions: self.clone(),
            session,
        }
    }

    /// Runs `visit` over all sessions.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&mut Entry)) {
        self.lock().values_mut().for_each(&mut visit);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Entry>> {
        // A map is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the register.
pub(super) struct Entered {
    sessions: Arc<Sessions>,
    session: SessionId,
}

impl Entered {
    /// Takes note of whose session it is.
    pub(super) fn admitted(&self, account: &str) {
        self.belongs_to(Some(account.to_owned()));
    }

    /// Takes note that the session is nobody's any more: its login was refused after all.
    pub(super) fn refused(&self) {
        self.belongs_to(None);
    }

    fn belongs_to(&self, account: Option<String>) {
        if let Some(entry) = self.sessions.lock().get_mut(&self.session) {
            entry.account = account;
        }
    }

    /// Takes note that the session is relayed from now on.
    pub(super) fn relayed(&self, traffic: Arc<Traffic>, provider: String, now: Instant) {
        if let Some(entry) = self.sessions.lock().get_mut(&self.session) {
            entry.relayed = Some(Relayed::begin(traffic, provider, now));
        }
    }

    /// Puts the rest of what the session moved into the metrics, at its end; gives what its upstream has given away since it
    /// was last looked at.
    pub(super) fn settle(&self, now: Instant) -> Option<UpstreamRemark> {
        let mut entries = self.sessions.lock();
        let entry = entries.get_mut(&self.session)?;
        let relayed = entry.relayed.as_mut()?;
        let (up, down) = relayed.count(now);
        count_relayed(entry.protocol, up, down);
        relayed.take_remark()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.session);
    }
}

async fn describe(actors: impl IntoIterator<Item = ActorRef<Message>>) -> Vec<SessionView> {
    let views = join_all(actors.into_iter().map(|actor| async move {
        match actor.call(Message::Describe, Some(DESCRIBE_TIMEOUT)).await {
            Ok(CallResult::Success(view)) => Some(view),
            _ => None,
        }
    }));
    views.await.into_iter().flatten().collect()
}

/// How long a session may take to describe itself; its actor answers in microseconds.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr};

    use super::*;

    /// A session that does nothing but describe itself.
    struct Stub;

    impl Actor for Stub {
        type Msg = Message;
        type State = SessionView;
        type Arguments = SessionView;

        async fn pre_start(&self, _: ActorRef<Message>, view: SessionView) -> Result<SessionView, ActorProcessingErr> {
            Ok(view)
        }

        async fn handle(
            &self,
            myself: ActorRef<Message>,
            message: Message,
            view: &mut SessionView,
        ) -> Result<(), ActorProcessingErr> {
            match message {
                Message::Describe(reply) => reply.send(view.clone())?,
                _ => myself.stop(None),
            }
            Ok(())
        }
    }

    /// Enters sessions 1 to 5; the odd ones are of the account `odd`.
    async fn five(sessions: &Arc<Sessions>) -> Vec<Entered> {
        let mut entered = Vec::new();
        for id in 1..=5 {
            let view = SessionView {
                id: SessionId(id),
                protocol: Protocol::Imap,
                account: (id % 2 == 1).then(|| "odd".to_owned()),
                token: None,
                remote_address: SocketAddr::from(([192, 0, 2, 1], 1)),
                local_address: SocketAddr::from(([127, 0, 0, 1], 143)),
                upstream_address: None,
                client: None,
                phase: "auth",
                since: Timestamp::EPOCH,
                bytes_up: 0,
                bytes_down: 0,
            };
            let (actor, _) = Actor::spawn(None, Stub, view).await.unwrap();
            let entry = Entry {
                actor,
                protocol: Protocol::Imap,
                account: (id % 2 == 1).then(|| "odd".into()),
                relayed: None,
            };
            entered.push(sessions.enter(SessionId(id), entry));
        }
        entered
    }

    fn ids(listing: &Listing<SessionView>) -> (u64, Vec<u64>) {
        (listing.total, listing.entries.iter().map(|view| view.id.0).collect())
    }

    #[tokio::test]
    async fn pages_are_cut_from_all_sessions_newest_first() {
        let sessions = Arc::<Sessions>::default();
        let _entered = five(&sessions).await;
        for (account, page, size, expected) in [
            (None, 0, 2, (5, vec![5, 4])),
            (None, 2, 2, (5, vec![1])),
            (None, 3, 2, (5, vec![])),
            (None, usize::MAX, 2, (5, vec![])),
            (Some("odd"), 0, 2, (3, vec![5, 3])),
            (Some("odd"), 1, 2, (3, vec![1])),
            (Some("nobody"), 0, 2, (0, vec![])),
        ] {
            let listing = sessions.list(account, Page { page, size }).await;
            assert_eq!(ids(&listing), expected, "{account:?} {page}");
        }
    }

    #[tokio::test]
    async fn a_session_leaves_with_its_guard_and_cannot_be_found_or_ended_then() {
        let sessions = Arc::<Sessions>::default();
        let mut entered = five(&sessions).await;
        assert_eq!(sessions.find(SessionId(5)).await.unwrap().id, SessionId(5));
        assert!(sessions.end(SessionId(5), Goodbye::ClosedByAdmin));
        entered.pop();
        assert!(sessions.find(SessionId(5)).await.is_none());
        assert!(!sessions.end(SessionId(5), Goodbye::ClosedByAdmin));
        assert_eq!(sessions.count(), 4);
    }
}
