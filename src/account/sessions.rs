//! The register of an account's live sessions: how many there are, and how to reach them.
//!
//! It outlives a supervisor that panics, so that the sessions of a deleted token can be ended whatever happens.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::DerivedActorRef;

use super::shared::Slot;
use super::supervisor::Message;
use crate::proto::Protocol;
use crate::proto::session::Goodbye;
use crate::store::TokenId;

/// Names a session for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// A logged-in session, as its account knows it.
#[derive(Debug, Clone)]
pub struct LiveSession {
    /// Which.
    pub session: SessionId,
    /// What it speaks: submissions have a limit of their own.
    pub protocol: Protocol,
    /// The access token that it logged in with.
    pub token: TokenId,
    /// Where to say that it must end.
    pub end: DerivedActorRef<Goodbye>,
}

/// A session's place in its account's register. Dropping it gives the place back.
pub struct SessionLease {
    slot: Arc<Slot>,
    session: SessionId,
    protocol: Protocol,
}

/// A verification's place among its account's sessions, for as long as it is logged in. Dropping it gives the place back.
pub struct VisitLease {
    slot: Arc<Slot>,
    protocol: Protocol,
}

/// The live sessions of one account.
#[derive(Debug, Default)]
pub(super) struct Register {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    sessions: HashMap<SessionId, LiveSession>,
    /// The protocols of verifications that are logged in.
    visits: Vec<Protocol>,
}

impl Live {
    /// How many are logged in at the upstream.
    fn count(&self) -> usize {
        self.sessions.len() + self.visits.len()
    }

    fn submissions(&self) -> usize {
        let sessions = self.sessions.values().map(|session| session.protocol);
        let visits = self.visits.iter().copied();
        sessions
            .chain(visits)
            .filter(|protocol| *protocol == Protocol::Smtp)
            .count()
    }
}

impl SessionId {
    /// The next id.
    pub fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed).saturating_add(1))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SessionLease {
    /// Takes a place for `session`, or gives it back if `limit` sessions are there already.
    pub(super) fn take(slot: &Arc<Slot>, session: LiveSession, limit: usize) -> Result<Self, usize> {
        let mut live = slot.register.lock();
        if live.count() >= limit {
            return Err(live.count());
        }
        let (id, protocol) = (session.session, session.protocol);
        live.sessions.insert(id, session);
        drop(live);
        Ok(Self {
            slot: Arc::clone(slot),
            session: id,
            protocol,
        })
    }
}

impl VisitLease {
    /// Takes a place over `protocol`, or says how many are live if `limit` are, or as many submissions as may be.
    pub(super) fn take(
        slot: &Arc<Slot>,
        protocol: Protocol,
        limit: usize,
        submissions_max: Option<usize>,
    ) -> Result<Self, usize> {
        let mut live = slot.register.lock();
        if live.count() >= limit {
            return Err(live.count());
        }
        let is_full = submissions_max.is_some_and(|max| live.submissions() >= max);
        if protocol == Protocol::Smtp && is_full {
            return Err(live.submissions());
        }
        live.visits.push(protocol);
        drop(live);
        Ok(Self {
            slot: Arc::clone(slot),
            protocol,
        })
    }
}

impl Drop for VisitLease {
    fn drop(&mut self) {
        let mut live = self.slot.register.lock();
        if let Some(place) = live.visits.iter().position(|protocol| *protocol == self.protocol) {
            live.visits.swap_remove(place);
        }
        drop(live);
        // Somebody may wait for this very slot.
        if let Some(supervisor) = self.slot.supervisor() {
            // One that is just ending has nobody who waits.
            let _ = supervisor.send_message(Message::SessionEnded);
        }
    }
}

impl fmt::Debug for VisitLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VisitLease({})", self.protocol)
    }
}

impl fmt::Debug for SessionLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionLease({})", self.session)
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        let mut live = self.slot.register.lock();
        live.sessions.remove(&self.session);
        let is_last = live.sessions.is_empty();
        drop(live);
        // IMPORTANT: the supervisor of now, not the one that gave the lease: somebody may wait there for this very slot. One
        // that starts later looks at the register itself.
        if (is_last || self.protocol == Protocol::Smtp)
            && let Some(supervisor) = self.slot.supervisor()
        {
            // One that is just ending has nobody who waits.
            let _ = supervisor.send_message(Message::SessionEnded);
        }
    }
}

impl Register {
    /// Whether no session is live.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().sessions.is_empty()
    }

    /// How many are submissions.
    pub(super) fn submissions(&self) -> usize {
        self.lock().submissions()
    }

    /// Tells the sessions of one access token, or all of them, to end.
    pub(super) fn end(&self, token: Option<&TokenId>, goodbye: Goodbye) {
        let live = self.lock();
        let wanted = live
            .sessions
            .values()
            .filter(|session| token.is_none_or(|token| session.token == *token));
        for session in wanted {
            // A session that is gone already needs no goodbye.
            let _ = session.end.send_message(goodbye);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        // Insertion and removal leave what is kept whole even if a thread panics beside them.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
