//! The writes of one account by its supervisor, one at a time and in order: what waits, what is on its way, what the disk does not
//! have yet. What refreshes bring is not among them: see [`super::grants`].
//!
//! Pure but for the reply ports that it carries. The supervisor starts what [`Writes::next`] returns and reports its end.

use std::collections::VecDeque;

use ractor::RpcReplyPort;

use super::grants::retry_wait;
use crate::clock::Timestamp;
use crate::limits::{ACCOUNT_STATE_INTERVAL, FAILURES_WRITE_INTERVAL};
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
    /// The record as it is in memory.
    Save,
    /// What was ordered.
    Order(Order),
}

/// The writes of one account.
#[derive(Debug)]
pub(super) struct Writes {
    orders: VecDeque<Order>,
    /// Whether the disk lacks something of the record, beside what is being written: a state or an error.
    is_behind: bool,
    on_its_way: Option<OnItsWay>,
    /// When to write what is not urgent.
    later: Option<Timestamp>,
    failures: u32,
    /// Before this nothing is saved: it has just been, or could not be.
    rests_until: Option<Timestamp>,
    is_hurried: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnItsWay {
    Save,
    Order,
}

impl Writes {
    pub(super) fn new() -> Self {
        Self {
            orders: VecDeque::new(),
            is_behind: false,
            on_its_way: None,
            later: None,
            failures: 0,
            rests_until: None,
            is_hurried: false,
        }
    }

    /// Takes an order, to be carried out after those before it.
    pub(super) fn order(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    /// Something of the record has changed in memory.
    pub(super) fn mark(&mut self) {
        self.is_behind = true;
    }

    /// Something of it has changed that is worth a write only now and then.
    pub(super) fn mark_later(&mut self, now: Timestamp) {
        self.later.get_or_insert(now.after(FAILURES_WRITE_INTERVAL));
    }

    /// The write to be started now, if any.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<Write> {
        // A removal does not wait for a save that hangs with its disk: the store puts it in force before it is written.
        let overtakes = matches!(self.orders.front(), Some(Order::Remove(_)));
        match self.on_its_way {
            None => {}
            Some(OnItsWay::Save) if overtakes => {}
            Some(OnItsWay::Save | OnItsWay::Order) => return None,
        }
        if let Some(order) = self.orders.pop_front() {
            self.on_its_way = Some(OnItsWay::Order);
            return Some(Write::Order(order));
        }
        let is_late = self.later.is_some_and(|at| at <= now || self.is_hurried);
        if !(self.is_behind || is_late) || self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        self.on_its_way = Some(OnItsWay::Save);
        (self.is_behind, self.later) = (false, None);
        Some(Write::Save)
    }

    /// The save on its way ended.
    pub(super) fn on_saved(&mut self, result: &Result<(), StoreError>, now: Timestamp) {
        // An order may have overtaken it.
        self.on_its_way.take_if(|on_its_way| *on_its_way == OnItsWay::Save);
        if result.is_ok() {
            self.failures = 0;
            // Whoever stops waits for what is left.
            self.rests_until = Some(now.after(ACCOUNT_STATE_INTERVAL)).filter(|_| !self.is_hurried);
            return;
        }
        self.is_behind = true;
        self.rests_until = Some(now.after(retry_wait(self.failures)));
        self.failures = self.failures.saturating_add(1);
    }

    /// The order on its way ended.
    pub(super) fn on_order_ended(&mut self) {
        self.on_its_way = None;
    }

    /// The program stops: whatever is left is tried at once.
    pub(super) fn hurry(&mut self) {
        self.rests_until = None;
        self.is_hurried = true;
    }

    /// When [`Writes::next`] is worth asking again.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let due = match self.is_behind {
            true => self.rests_until,
            false => self.later.max(self.later.and(self.rests_until)),
        };
        due.filter(|_| self.on_its_way.is_none())
    }

    /// Whether everything is on disk and nothing is ordered.
    pub(super) fn is_clean(&self) -> bool {
        self.on_its_way.is_none() && self.orders.is_empty() && !self.is_behind && self.later.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::EPOCH.after(Duration::from_secs(seconds))
    }

    #[test]
    fn one_write_is_on_its_way_and_one_more_brings_all_that_came_meanwhile() {
        let mut writes = Writes::new();
        assert!(writes.next(at(0)).is_none());
        writes.mark();
        assert!(matches!(writes.next(at(0)), Some(Write::Save)));
        writes.mark();
        writes.mark();
        assert!(writes.next(at(0)).is_none());
        writes.on_saved(&Ok(()), at(0));
        assert!(!writes.is_clean());
        assert!(writes.next(at(0)).is_none(), "it has just been written");
        assert_eq!(writes.due(), Some(at(1)));
        assert!(matches!(writes.next(at(1)), Some(Write::Save)));
        writes.on_saved(&Ok(()), at(1));
        assert!(writes.is_clean() && writes.next(at(9)).is_none());
    }

    #[test]
    fn what_is_not_urgent_is_written_once_a_minute_or_with_what_is() {
        let mut writes = Writes::new();
        for second in 0..60 {
            writes.mark_later(at(second));
            assert!(writes.next(at(second)).is_none());
            assert_eq!(writes.due(), Some(at(60)));
        }
        assert!(matches!(writes.next(at(60)), Some(Write::Save)));
        writes.mark_later(at(60));
        writes.on_saved(&Ok(()), at(60));
        writes.mark();
        assert_eq!(writes.due(), Some(at(61)));
        assert!(matches!(writes.next(at(61)), Some(Write::Save)));
        writes.on_saved(&Ok(()), at(61));
        assert!(writes.is_clean() && writes.due().is_none());
        // Whoever stops waits for none of it.
        writes.mark_later(at(62));
        writes.hurry();
        assert!(!writes.is_clean());
        assert!(matches!(writes.next(at(62)), Some(Write::Save)));
    }

    #[test]
    fn a_removal_does_not_wait_for_a_save_on_its_way() {
        let mut writes = Writes::new();
        writes.mark();
        assert!(matches!(writes.next(at(0)), Some(Write::Save)));
        writes.mark();
        let (reply, _answer) = ractor::concurrency::oneshot();
        writes.order(Order::Remove(reply.into()));
        assert!(matches!(writes.next(at(0)), Some(Write::Order(Order::Remove(_)))));
        writes.on_saved(&Ok(()), at(0));
        assert!(
            writes.next(at(0)).is_none(),
            "nothing is saved of what is being removed"
        );
        writes.on_order_ended();
        let rested = Timestamp::EPOCH.after(ACCOUNT_STATE_INTERVAL);
        assert!(matches!(writes.next(rested), Some(Write::Save)));
    }

    #[test]
    fn a_refused_write_is_tried_again_ever_more_rarely_until_it_succeeds() {
        let mut writes = Writes::new();
        writes.mark();
        let mut now = 0;
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert!(matches!(writes.next(at(now)), Some(Write::Save)));
            writes.on_saved(&Err(StoreError::Unwritable("full".to_owned())), at(now));
            assert!(!writes.is_clean());
            assert_eq!(writes.due(), Some(at(now + wait)));
            assert!(writes.next(at(now)).is_none());
            now += wait;
        }
        writes.hurry();
        assert!(matches!(writes.next(at(0)), Some(Write::Save)));
        writes.on_saved(&Ok(()), at(now));
        assert!(writes.is_clean());
    }
}
