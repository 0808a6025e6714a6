//! How the latest flow of each account is going, for whoever waits. Pure; time is an argument.
//!
//! At most [`FLOWS_REMEMBERED_MAX`] accounts' are remembered; the oldest goes.

use std::collections::HashMap;

use super::error::AuthorizeError;
use crate::clock::Timestamp;
use crate::limits::FLOWS_REMEMBERED_MAX;
use crate::store::AccountState;

/// How a flow is going.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Which kind it is.
    pub flow: FlowKind,
    /// How far it got.
    pub stage: Stage,
}

/// The ways of asking an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKind {
    /// In a browser (RFC 6749 §4.1).
    Code,
    /// On another device (RFC 8628).
    Device,
}

/// How far a flow got.
#[derive(Debug, Clone)]
pub enum Stage {
    /// The owner is waited for, or what they granted is being tried.
    Pending,
    /// The grant is stored, and a login with it has succeeded.
    Done(AccountState),
    /// It came to nothing, or to less than that.
    Failed(AuthorizeError),
}

/// The latest flow of each account.
#[derive(Debug, Default)]
pub(super) struct Latest {
    flows: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    progress: Progress,
    /// When a flow that nobody came back to is over.
    expires: Option<Timestamp>,
}

impl Latest {
    /// A flow of `account` has begun. One that nobody brings back until `expires` is over then.
    pub(super) fn begin(&mut self, account: &str, number: u64, flow: FlowKind, expires: Timestamp) {
        let is_new = !self.flows.contains_key(account);
        if is_new && self.flows.len() >= FLOWS_REMEMBERED_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, entry)| entry.number);
            if let Some(oldest) = oldest.map(|(account, _)| account.clone()) {
                self.flows.remove(&oldest);
            }
        }
        let entry = Entry {
            number,
            progress: Progress {
                flow,
                stage: Stage::Pending,
            },
            expires: Some(expires),
        };
        self.flows.insert(account.to_owned(), entry);
    }

    /// The owner has come back; from now on nothing but the outcome ends the flow.
    pub(super) fn come_back(&mut self, account: &str, number: u64) {
        if let Some(entry) = self.entry(account, number) {
            entry.expires = None;
        }
    }

    /// The flow has ended. An older one than the latest tells nothing any more.
    pub(super) fn end(&mut self, account: &str, number: u64, outcome: Result<AccountState, AuthorizeError>) {
        if let Some(entry) = self.entry(account, number) {
            entry.progress.stage = outcome.map_or_else(Stage::Failed, Stage::Done);
            entry.expires = None;
        }
    }

    /// How the latest flow of `account` is going.
    pub(super) fn of(&self, account: &str, now: Timestamp) -> Option<Progress> {
        let entry = self.flows.get(account)?;
        let mut progress = entry.progress.clone();
        if entry.expires.is_some_and(|expires| now >= expires) {
            progress.stage = Stage::Failed(AuthorizeError::Expired);
        }
        Some(progress)
    }

    fn entry(&mut self, account: &str, number: u64) -> Option<&mut Entry> {
        self.flows.get_mut(account).filter(|entry| entry.number == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);
    const END: Timestamp = Timestamp::from_millis(2_000_000);

    fn stage(latest: &Latest, now: Timestamp) -> String {
        match latest.of("ada", now).unwrap().stage {
            Stage::Pending => "pending".to_owned(),
            Stage::Done(_) => "done".to_owned(),
            Stage::Failed(error) => error.code().to_owned(),
        }
    }

    #[test]
    fn a_flow_is_pending_until_it_ends_or_nobody_came_in_time() {
        let mut latest = Latest::default();
        assert!(latest.of("ada", START).is_none());
        latest.begin("ada", 1, FlowKind::Code, END);
        assert_eq!(stage(&latest, START), "pending");
        assert_eq!(stage(&latest, END), "expired");
        latest.come_back("ada", 1);
        assert_eq!(stage(&latest, END), "pending", "it is being completed");
        latest.end("ada", 1, Err(AuthorizeError::NoRefreshToken));
        assert_eq!(stage(&latest, END), "no_refresh_token");
        latest.begin("ada", 2, FlowKind::Device, END);
        latest.end("ada", 2, Ok(AccountState::Active));
        assert_eq!(stage(&latest, END), "done");
        assert_eq!(latest.of("ada", END).unwrap().flow, FlowKind::Device);
    }

    #[test]
    fn an_older_flow_says_nothing_of_the_latest() {
        let mut latest = Latest::default();
        latest.begin("ada", 1, FlowKind::Code, END);
        latest.begin("ada", 2, FlowKind::Code, END);
        latest.end("ada", 1, Err(AuthorizeError::Replaced));
        assert_eq!(stage(&latest, START), "pending");
    }

    #[test]
    fn as_many_accounts_are_remembered_as_there_is_room_for() {
        let mut latest = Latest::default();
        for number in 0..=FLOWS_REMEMBERED_MAX {
            latest.begin(&format!("account{number}"), number as u64, FlowKind::Code, END);
        }
        assert_eq!(latest.flows.len(), FLOWS_REMEMBERED_MAX);
        assert!(latest.of("account0", START).is_none());
        assert!(latest.of("account1", START).is_some());
    }
}
