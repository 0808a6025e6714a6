//! The register's side of a supervisor: which sessions may live on the account, and who waits for a submission slot.

use ractor::RpcReplyPort;

use super::Supervised;
use crate::account::refresh::Input;
use crate::account::sessions::{LiveSession, SessionLease, VisitLease};
use crate::account::submissions::{Door, Outcome};
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind};
use crate::limits::SUBMISSION_WAITERS_MAX;
use crate::proto::Protocol;
use crate::store::AccountState;

/// A session that waits to be opened. Dropping it unanswered tells its asker that, too.
#[derive(Debug)]
pub(super) struct Applicant {
    session: LiveSession,
    reply: RpcReplyPort<Result<SessionLease, Fault>>,
}

impl Supervised {
    pub(super) fn on_open_session(
        &mut self,
        session: LiveSession,
        reply: RpcReplyPort<Result<SessionLease, Fault>>,
        now: Timestamp,
    ) {
        self.last_used = now;
        let applicant = Applicant { session, reply };
        if applicant.session.protocol != Protocol::Smtp || self.submissions_max().is_none() {
            return self.open(applicant, now);
        }
        self.forget_who_left();
        let login_timeout = self.config().limits.login_timeout;
        if let Err(applicant) = self.submissions.wait(applicant, login_timeout, now) {
            let detail = format!("{SUBMISSION_WAITERS_MAX} submissions wait for a slot already");
            return applicant.answer(Err(Fault::with_detail(FaultKind::AccountLimit, detail)));
        }
        if self.door() == Door::Full {
            tracing::debug!(account = %self.held.record.account, "a submission waits for another to end");
        }
    }

    /// Answers all whose wait for a submission slot is over. Called after every message, since any may have freed a slot,
    /// changed the limit or shut the door.
    pub(super) fn admit_waiting(&mut self, now: Timestamp) {
        if self.submissions.is_empty() {
            return;
        }
        self.forget_who_left();
        while let Some((applicant, outcome)) = self.submissions.next(self.door(), now) {
            match outcome {
                Outcome::Admitted => self.open(applicant, now),
                Outcome::TimedOut => {
                    let live = self.register().submissions();
                    let detail = format!("{live} submissions are live, which is all that the provider allows at once");
                    applicant.answer(Err(Fault::with_detail(FaultKind::AccountLimit, detail)));
                }
                Outcome::TurnedAway => {
                    let fault = match self.held.record.state {
                        AccountState::Disabled => Fault::new(FaultKind::AccountDisabled),
                        _ => Fault::unavailable("the proxy shuts down"),
                    };
                    applicant.answer(Err(fault));
                }
            }
        }
    }

    /// Registers a session, if the account has room for one more of any protocol.
    fn open(&mut self, applicant: Applicant, now: Timestamp) {
        if self.held.record.state == AccountState::Disabled {
            return applicant.answer(Err(Fault::new(FaultKind::AccountDisabled)));
        }
        let limit = self.sessions_max();
        let Applicant { session, reply } = applicant;
        let opened = SessionLease::take(&self.slot, session, limit).map_err(|live| {
            Fault::with_detail(
                FaultKind::AccountLimit,
                format!("{live} sessions are live, {limit} are allowed"),
            )
        });
        if opened.is_ok() {
            self.decide(Input::SessionsLive, now);
        }
        // If nobody listens any more, the lease comes back with the error and is dropped, which ends it.
        drop(reply.send(opened));
    }

    /// A verification wants to log in. It does not wait for a slot: its place is nobody's right.
    pub(super) fn on_visit(
        &mut self,
        protocol: Protocol,
        reply: RpcReplyPort<Result<VisitLease, Fault>>,
        now: Timestamp,
    ) {
        self.last_used = now;
        let limit = self.sessions_max();
        let visit = VisitLease::take(&self.slot, protocol, limit, self.submissions_max()).map_err(|live| {
            let detail = format!("{live} sessions are live, which is all that the account may have at once");
            Fault::with_detail(FaultKind::AccountLimit, detail)
        });
        // If nobody listens any more, the lease comes back with the error and is dropped, which ends it.
        drop(reply.send(visit));
    }

    /// How many sessions the account may have.
    fn sessions_max(&self) -> usize {
        let config = self.config();
        let provider = config.providers.get(&self.held.record.provider);
        let own = provider.and_then(|provider| provider.sessions_per_account_max);
        own.unwrap_or(config.limits.sessions_per_account_max)
    }

    fn door(&self) -> Door {
        if self.held.record.state == AccountState::Disabled || self.shared.is_draining() {
            return Door::Shut;
        }
        match self.submissions_max() {
            Some(limit) if self.register().submissions() >= limit => Door::Full,
            _ => Door::Open,
        }
    }

    /// How many submissions the provider allows at once, if it limits them.
    fn submissions_max(&self) -> Option<usize> {
        let config = self.config();
        config.providers.get(&self.held.record.provider)?.submissions_max
    }

    fn forget_who_left(&mut self) {
        self.submissions.forget(|applicant| applicant.reply.is_closed());
    }
}

impl Applicant {
    fn answer(self, answer: Result<SessionLease, Fault>) {
        // Whoever has hung up meanwhile needs no answer.
        drop(self.reply.send(answer));
    }
}
