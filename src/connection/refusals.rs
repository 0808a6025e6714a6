//! What the log hears of refusals, which strangers cause as often as they like: one line a minute for each client, account and
//! reason, with how many more there were.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::net::admission::client_of;
use crate::net::complaints::KeyedComplaints;

/// What was said of refusals lately.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    said: Mutex<KeyedComplaints<RefusalKey>>,
}

/// Refusals that share a line.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RefusalKey {
    client: IpAddr,
    account: Option<String>,
    reason: &'static str,
}

impl Refusals {
    /// Whether a refusal of `reason` to a client at `address` may be spoken of, and how many like it were not. `account` is
    /// the one that was named, if it exists.
    pub(super) fn may_say(&self, address: IpAddr, account: Option<&str>, reason: &'static str) -> Option<u64> {
        let key = RefusalKey {
            client: client_of(address),
            account: account.map(str::to_owned),
            reason,
        };
        // Each complaint is whole after every operation, so a panic elsewhere while it was held does no harm here.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.may_say(key, Instant::now())
    }
}
