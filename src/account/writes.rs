//! The writes of one account, one at a time and in order: what waits, what is on its way, what the disk does not have yet.
//!
//! Pure but for the reply ports that it carries. The supervisor starts what [`Writes::next`] returns and reports its end.

use std::collections::VecDeque;
use std::time::Duration;

use ractor::RpcReplyPort;

use crate::clock::Timestamp;
use crate::limits::{ACCOUNT_WRITE_RETRY_MAX, ACCOUNT_WRITE_RETRY_MIN};
use crate::store::{AccountRecord, AccountSecrets, StoreError, TokenId};

/// What an administrator ordered.
#[derive(Debug)]
pub(super) enum Order {
    /// Another record, and other credentials where given.
    Replace(Box<Replacement>),
    /// No account any more.
    Remove(RpcReplyPort<Result<Vec<TokenId>, StoreError>>),
}

/// See [`Order::Replace`].
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) record: AccountRecord,
    pub(super) credentials: Credentials,
    pub(super) reply: RpcReplyPort<Result<(), StoreError>>,
}

/// What becomes of an account's credentials when its record is replaced.
#[derive(Debug)]
pub(super) enum Credentials {
    /// They stay.
    Kept,
    /// Others take their place.
    New(AccountSecrets),
    /// Others do, but the grant among them is the one that is being refreshed: what the refresh brings is kept.
    NewBesideGrant(AccountSecrets),
}

/// A write that is to be started.
#[derive(Debug)]
pub(super) enum Write {
    /// What is in memory.
    Save,
    /// What was ordered.
    Order(Order),
}

/// How far the disk is behind what is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Behind {
    /// Not at all.
    Nothing,
    /// A state or an error, which can be found out again.
    State,
    /// A grant, which cannot.
    Grant,
}

/// The writes of one account.
#[derive(Debug)]
pub(super) struct Writes {
    orders: VecDeque<Order>,
    /// What the disk lacks, beside what is being written.
    behind: Behind,
    /// What a write on its way will bring.
    on_its_way: Option<Behind>,
    failures: u32,
    retry_at: Option<Timestamp>,
}

impl Writes {
    pub(super) fn new() -> Self {
        Self {
            orders: VecDeque::new(),
            behind: Behind::Nothing,
            on_its_way: None,
            failures: 0,
            retry_at: None,
        }
    }

    /// Takes an order, to be carried out after those before it.
    pub(super) fn order(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Something in memory has changed.
    pub(super) fn mark(&mut self, what: Behind) {
        self.behind = self.behind.max(what);
    }

    /// The write to be started now, if any.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Write> {
        if self.on_its_way.is_some() {
            return None;
        }
        if let Some(order) = self.orders.pop_front() {
            self.on_its_way = Some(Behind::Nothing);
            return Some(Write::Order(order));
        }
        if self.behind == Behind::Nothing || self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.on_its_way = Some(self.behind);
        self.behind = Behind::Nothing;
        Some(Write::Save)
    }

    /// The save on its way ended; says whether it had failed before or does now.
    pub(super) fn on_saved(&mut self, result: &Result<(), StoreError>, now: Timestamp) {
        let written = self.on_its_way.take().unwrap_or(Behind::Nothing);
        if result.is_ok() {
            self.failures = 0;
            self.retry_at = None;
            return;
        }
        self.behind = self.behind.max(written);
        self.retry_at = Some(now.after(retry_wait(self.failures)));
        self.failures = self.failures.saturating_add(1);
    }

    /// The order on its way ended.
    pub(super) fn on_order_ended(&mut self) {
        self.on_its_way = None;
    }

    /// The program stops: whatever is left is tried at once.
    pub(super) fn hurry(&mut self) {
        self.retry_at = None;
    }

    /// When [`Writes::next`] is worth asking again.
    pub(super) fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at.filter(|_| self.on_its_way.is_none())
    }

    /// Whether everything is on disk and nothing is ordered.
    pub(super) fn is_clean(&self) -> bool {
        self.on_its_way.is_none() && self.orders.is_empty() && self.behind == Behind::Nothing
    }

    /// Whether the disk has refused a grant that is in memory.
    pub(super) fn is_grant_refused(&self) -> bool {
        self.failures > 0 && self.behind.max(self.on_its_way.unwrap_or(Behind::Nothing)) == Behind::Grant
    }
}

fn retry_wait(failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    ACCOUNT_WRITE_RETRY_MIN
        .saturating_mul(factor)
        .min(ACCOUNT_WRITE_RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(seconds))
    }

    #[test]
    fn one_write_is_on_its_way_and_one_more_brings_all_that_came_meanwhile() {
        let mut writes = Writes::new();
        assert!(writes.next(at(0)).is_none());
        writes.mark(Behind::State);
        assert!(matches!(writes.next(at(0)), Some(Write::Save)));
        writes.mark(Behind::Grant);
        writes.mark(Behind::State);
        assert!(writes.next(at(0)).is_none());
        writes.on_saved(&Ok(()), at(0));
        assert!(!writes.is_clean());
        assert!(matches!(writes.next(at(0)), Some(Write::Save)));
        writes.on_saved(&Ok(()), at(0));
        assert!(writes.is_clean() && writes.next(at(0)).is_none());
    }

    #[test]
    fn a_refused_write_is_tried_again_ever_more_rarely_until_it_succeeds() {
        let mut writes = Writes::new();
        writes.mark(Behind::Grant);
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert!(matches!(writes.next(at(now)), Some(Write::Save)));
            writes.on_saved(&Err(StoreError::Unwritable("full".to_owned())), at(now));
            assert!(writes.is_grant_refused());
            assert_eq!(writes.retry_at(), Some(at(now + wait)));
            assert!(writes.next(at(now)).is_none());
            now += wait;
        }
        writes.hurry();
        assert!(matches!(writes.next(at(0)), Some(Write::Save)));
        writes.on_saved(&Ok(()), at(now));
        assert!(writes.is_clean() && !writes.is_grant_refused());
    }
}
