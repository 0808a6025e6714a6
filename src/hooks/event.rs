//! The event as hooks get it: JSON, camelCase, times RFC 3339 in UTC.

use serde::Serialize;

use crate::account::{News, Notice};
use crate::clock::Timestamp;
use crate::store::AccountState;

/// One event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    /// `account.state` or `grant.ending`.
    pub(super) event: &'static str,
    time: Timestamp,
    account: String,
    email: Option<String>,
    provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<AccountState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<AccountState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<Timestamp>,
}

/// The error behind a state.
#[derive(Debug, Serialize)]
struct Cause {
    code: String,
    message: String,
}

impl Event {
    /// The event of a notice.
    pub(super) fn new(notice: &Notice) -> Self {
        let mut event = Self {
            event: STATE,
            time: notice.time,
            account: notice.account.clone(),
            email: notice.email.clone(),
            provider: notice.provider.clone(),
            from: None,
            to: None,
            last_error: None,
            remedy: None,
            ends: None,
        };
        match &notice.news {
            News::State {
                from,
                to,
                error,
                remedy,
            } => {
                (event.from, event.to) = (Some(*from), Some(*to));
                event.last_error = error.as_ref().map(|error| Cause {
                    code: error.code.clone(),
                    message: error.message.clone(),
                });
                event.remedy.clone_from(remedy);
            }
            News::GrantEnding { ends } => {
                event.event = GRANT_ENDING;
                event.ends = Some(*ends);
            }
        }
        event
    }

    /// The account that it is of, for logs.
    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// Its JSON. `None` is a defect, and logged.
    pub(super) fn body(&self) -> Option<Vec<u8>> {
        let body = serde_json::to_vec(self);
        body.inspect_err(|error| tracing::error!(%error, "an event cannot be written as JSON"))
            .ok()
    }
}

const STATE: &str = "account.state";
const GRANT_ENDING: &str = "grant.ending";
