//! How each account's latest flow stands, for whoever began it and waits. Pure: time is an argument.

use std::collections::HashMap;

use super::{AuthorizeError, Completed};
use crate::clock::Timestamp;
use crate::limits::{FLOW_OUTCOME_LIFE, FLOW_OUTCOMES_MAX};

/// How a flow stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which kind it is.
    pub kind: FlowKind,
    /// What has become of it.
    pub state: FlowState,
}

/// The kinds of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowKind {
    /// By a browser that comes back.
    Code,
    /// By a code that is typed elsewhere.
    Device,
}

/// What has become of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowState {
    /// The owner has not decided yet.
    Pending,
    /// The grant was kept, and it opens the mailbox.
    Done,
    /// It came to nothing, or not to all that was wanted.
    Failed {
        /// As in [`AuthorizeError::code`].
        code: &'static str,
        /// Why, for people.
        message: String,
    },
}

/// The latest flow of each account.
#[derive(Debug, Default)]
pub(super) struct Board {
    flows: HashMap<String, Entry>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    progress: Progress,
    /// When a flow that is not done has failed for want of time.
    expires: Timestamp,
    /// When this is forgotten.
    until: Timestamp,
}

impl Board {
    /// Takes note of a flow, and gives it a number. It is the account's latest from here on.
    pub(super) fn begin(&mut self, account: &str, kind: FlowKind, expires: Timestamp, now: Timestamp) -> u64 {
        self.flows.retain(|_, entry| now < entry.until);
        if self.flows.len() >= FLOW_OUTCOMES_MAX
            && let Some(oldest) = self.flows.iter().min_by_key(|(_, entry)| entry.number)
        {
            let oldest = oldest.0.clone();
            self.flows.remove(&oldest);
        }
        self.last = self.last.saturating_add(1);
        let entry = Entry {
            number: self.last,
            progress: Progress {
                kind,
                state: FlowState::Pending,
            },
            expires,
            until: expires.after(FLOW_OUTCOME_LIFE),
        };
        self.flows.insert(account.to_owned(), entry);
        self.last
    }

    /// Whether the flow `number` is still the account's latest, and undecided.
    pub(super) fn is_waited_for(&self, account: &str, number: u64) -> bool {
        let entry = self.flows.get(account);
        entry.is_some_and(|entry| entry.number == number && entry.progress.state == FlowState::Pending)
    }

    /// Takes note of how the flow `number` ended, unless another has begun since.
    pub(super) fn end(
        &mut self,
        account: &str,
        number: u64,
        outcome: &Result<Completed, AuthorizeError>,
        now: Timestamp,
    ) {
        if let Some(entry) = self.flows.get_mut(account)
            && entry.number == number
        {
            entry.until = now.after(FLOW_OUTCOME_LIFE);
            entry.progress.state = match outcome {
                Ok(_) => FlowState::Done,
                Err(error) => FlowState::failed(error),
            };
        }
    }

    /// How the account's latest flow stands.
    pub(super) fn of(&self, account: &str, now: Timestamp) -> Option<Progress> {
        let entry = self.flows.get(account)?;
        let mut progress = entry.progress.clone();
        if progress.state == FlowState::Pending && now >= entry.expires {
            progress.state = FlowState::failed(&AuthorizeError::Expired);
        }
        Some(progress)
    }
}

impl FlowState {
    fn failed(error: &AuthorizeError) -> Self {
        Self::Failed {
            code: error.code(),
            message: error.to_string(),
        }
    }
}
