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

/// The live sessions of one account.
#[derive(Debug, Default)]
pub(super) struct Register {
    sessions: Mutex<HashMap<SessionId, LiveSession>>,
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
        let mut sessions = slot.register.lock();
        if sessions.len() >= limit {
            return Err(sessions.len());
        }
        let (id, protocol) = (session.session, session.protocol);
        sessions.insert(id, session);
        drop(sessions);
        Ok(Self {
            slot: Arc::clone(slot),
            session: id,
            protocol,
        })
    }
}

impl fmt::Debug for SessionLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionLease({})", self.session)
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        let mut sessions = self.slot.register.lock();
        sessions.remove(&self.session);
        let is_last = sessions.is_empty();
        drop(sessions);
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
        self.lock().is_empty()
    }

    /// How many of the sessions are submissions.
    pub(super) fn submissions(&self) -> usize {
        let sessions = self.lock();
        sessions
            .values()
            .filter(|session| session.protocol == Protocol::Smtp)
            .count()
    }

    /// Tells the sessions of one access token, or all of them, to end.
    pub(super) fn end(&self, token: Option<&TokenId>, goodbye: Goodbye) {
        let sessions = self.lock();
        let wanted = sessions
            .values()
            .filter(|session| token.is_none_or(|token| session.token == *token));
        for session in wanted {
            // A session that is gone already needs no goodbye.
            let _ = session.end.send_message(goodbye);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, LiveSession>> {
        // Insertion and removal leave a map whole even if a thread panics beside them.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
