//! What refused logins cost: a growing delay before the refusal is answered, for each client and for each login name.
//!
//! [`FailureBudget`] is the policy, pure: time is an argument. [`Budgets`] holds it for the whole program. A refusal takes
//! one unit of its client's budget and one of its login name's; a unit comes back every [`AUTH_FAILURE_RECOVERY`]. Beyond the
//! budget each further refusal waits twice as long as the one before, up to the configured cap.
//!
//! Only refusals wait: a good login is answered at once whatever strangers do to its account, and from where it came nothing
//! is delayed for a while ([`ACCEPTED_CLIENT_LIFE`]). Names that belong to no account cost what others do, so that the delay
//! does not tell which names exist.
//!
//! Memory is bounded by [`AUTH_FAILURE_RECORDS_MAX`]. What makes room is the record that is nearest to being forgotten
//! anyway: whoever wants his own to go must first be refused more often under that many other addresses. What finds no room
//! shares one record.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{
    ACCEPTED_CLIENT_LIFE, AUTH_FAILURE_FIRST_DELAY, AUTH_FAILURE_RECORDS_MAX, AUTH_FAILURE_RECOVERY,
    AUTH_FAILURES_FREE_ACCOUNT, AUTH_FAILURES_FREE_CLIENT, AUTH_FAILURES_OVER_MAX,
};

/// The failure budgets of all clients and login names.
#[derive(Debug)]
pub struct Budgets {
    budget: Mutex<FailureBudget>,
    hasher: RandomState,
}

/// How many are over their budget, so that their next refusal is delayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DelayedCounts {
    /// Clients: IPv4 addresses and IPv6 networks.
    pub addresses: usize,
    /// Login names.
    pub accounts: usize,
}

/// The policy. Clients are told apart as `net::admission::client_of` has it, login names by a hash.
#[derive(Debug)]
struct FailureBudget {
    clients: Spent<IpAddr>,
    names: Spent<u64>,
    /// Clients from which a token was accepted, and until when that counts.
    accepted: Ledger<IpAddr>,
}

/// What has been spent of one kind of budget.
#[derive(Debug)]
struct Spent<K> {
    free: u32,
    /// When each budget will be whole again.
    whole_at: Ledger<K>,
    /// The same for all for whom there is no room.
    others: Option<Instant>,
}

/// Moments by key, no more than `capacity`: the earliest makes room.
#[derive(Debug)]
struct Ledger<K> {
    capacity: usize,
    moments: HashMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            budget: Mutex::new(FailureBudget::new(AUTH_FAILURE_RECORDS_MAX)),
            hasher: RandomState::new(),
        }
    }
}

impl Budgets {
    /// A login was refused to `client`, for `name`: the account's id, or what was given where there is no such account.
    /// Returns for how long the refusal is to wait, at most `cap`.
    pub fn refused(&self, client: IpAddr, name: Option<&str>, cap: Duration, now: Instant) -> Duration {
        let name = name.map(|name| self.hasher.hash_one(name.to_lowercase()));
        self.lock().refused(client, name, cap, now)
    }

    /// A token was accepted from `client`.
    pub fn accepted(&self, client: IpAddr, now: Instant) {
        self.lock().accepted(client, now);
    }

    /// How many are over their budget.
    pub fn delayed(&self, now: Instant) -> DelayedCounts {
        let budget = self.lock();
        DelayedCounts {
            addresses: budget.clients.over(now),
            accounts: budget.names.over(now),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FailureBudget> {
        // A record is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FailureBudget {
    fn new(records_max: usize) -> Self {
        Self {
            clients: Spent::new(AUTH_FAILURES_FREE_CLIENT, records_max),
            names: Spent::new(AUTH_FAILURES_FREE_ACCOUNT, records_max),
            accepted: Ledger::new(records_max),
        }
    }

    fn refused(&mut self, client: IpAddr, name: Option<u64>, cap: Duration, now: Instant) -> Duration {
        if self.accepted.moment(&client).is_some_and(|until| now < until) {
            return Duration::ZERO;
        }
        let over = self.clients.spend(client, now);
        let over_name = name.map_or(0, |name| self.names.spend(name, now));
        delay(over.max(over_name)).min(cap)
    }

    fn accepted(&mut self, client: IpAddr, now: Instant) {
        self.accepted.set(client, now + ACCEPTED_CLIENT_LIFE);
    }
}

/// How long the refusal waits that is the `over`th beyond a budget.
fn delay(over: u32) -> Duration {
    match over.checked_sub(1) {
        Some(doublings) => AUTH_FAILURE_FIRST_DELAY.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)),
        None => Duration::ZERO,
    }
}

impl<K: Copy + Ord + Hash> Spent<K> {
    fn new(free: u32, records_max: usize) -> Self {
        Self {
            free,
            whole_at: Ledger::new(records_max),
            others: None,
        }
    }

    /// Takes a unit. Returns by how many the budget is overdrawn now.
    fn spend(&mut self, key: K, now: Instant) -> u32 {
        let most = now + AUTH_FAILURE_RECOVERY * (self.free + AUTH_FAILURES_OVER_MAX);
        let after_one_more = |whole: Option<Instant>| {
            let whole = whole.map_or(now, |whole| whole.max(now));
            (whole + AUTH_FAILURE_RECOVERY).min(most)
        };
        let mut whole = after_one_more(self.whole_at.moment(&key));
        if !self.whole_at.set(key, whole) {
            whole = after_one_more(self.others);
            self.others = Some(whole);
        }
        // Parts of a unit count as one: what is overdrawn stays so until it has come back in full.
        let left = whole.saturating_duration_since(now).as_millis();
        let units = left.div_ceil(AUTH_FAILURE_RECOVERY.as_millis());
        u32::try_from(units).unwrap_or(u32::MAX).saturating_sub(self.free)
    }

    /// How many have nothing left.
    fn over(&self, now: Instant) -> usize {
        let exhausted = now + AUTH_FAILURE_RECOVERY * self.free.saturating_sub(1);
        self.whole_at.after(exhausted)
    }
}

impl<K: Copy + Ord + Hash> Ledger<K> {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            moments: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    fn moment(&self, key: &K) -> Option<Instant> {
        self.moments.get(key).copied()
    }

    /// Sets the moment of `key`. Returns false where there is no room, for every other moment is later.
    fn set(&mut self, key: K, moment: Instant) -> bool {
        if let Some(before) = self.moments.insert(key, moment) {
            self.order.remove(&(before, key));
        }
        self.order.insert((moment, key));
        if self.moments.len() <= self.capacity {
            return true;
        }
        match self.order.pop_first() {
            Some((_, earliest)) => {
                self.moments.remove(&earliest);
                earliest != key
            }
            None => true,
        }
    }

    /// How many moments are later than `moment`.
    fn after(&self, moment: Instant) -> usize {
        let later = self.order.iter().rev().take_while(|(at, _)| *at > moment);
        later.count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAP: Duration = Duration::from_secs(15);

    fn client(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    fn delays(budget: &mut FailureBudget, client: IpAddr, name: Option<u64>, count: u32, now: Instant) -> Vec<u64> {
        let delays = (0..count).map(|_| budget.refused(client, name, CAP, now).as_secs());
        delays.collect()
    }

    #[test]
    fn beyond_its_budget_a_client_waits_longer_each_time_up_to_the_cap_and_recovers() {
        let mut budget = FailureBudget::new(10);
        let now = Instant::now();
        let free = vec![0; AUTH_FAILURES_FREE_CLIENT as usize];
        assert_eq!(
            delays(&mut budget, client(1), None, AUTH_FAILURES_FREE_CLIENT, now),
            free
        );
        assert_eq!(delays(&mut budget, client(1), None, 7, now), [1, 2, 4, 8, 15, 15, 15]);
        assert_eq!(
            delays(&mut budget, client(2), None, 1, now),
            [0],
            "another client does not pay for it"
        );
        let quiet = now + AUTH_FAILURE_RECOVERY * (AUTH_FAILURES_FREE_CLIENT + AUTH_FAILURES_OVER_MAX);
        assert_eq!(delays(&mut budget, client(1), None, 1, quiet), [0]);
        assert_eq!(budget.refused(client(1), None, Duration::ZERO, now), Duration::ZERO);
    }

    #[test]
    fn many_clients_that_try_one_name_wait_although_each_alone_would_not() {
        let mut budget = FailureBudget::new(1000);
        let now = Instant::now();
        let mut waits = (0..100).map(|number| budget.refused(client(number), Some(7), CAP, now).as_secs());
        assert_eq!(waits.by_ref().take(AUTH_FAILURES_FREE_ACCOUNT as usize).max(), Some(0));
        assert_eq!(waits.take(6).collect::<Vec<_>>(), [1, 2, 4, 8, 15, 15]);
        assert_eq!(budget.refused(client(200), Some(8), CAP, now), Duration::ZERO);
    }

    #[test]
    fn from_where_a_token_was_accepted_nothing_is_delayed_for_a_while() {
        let mut budget = FailureBudget::new(10);
        let now = Instant::now();
        delays(&mut budget, client(1), Some(7), 40, now);
        budget.accepted(client(1), now);
        assert_eq!(delays(&mut budget, client(1), Some(7), 40, now), vec![0; 40]);
        let later = now + ACCEPTED_CLIENT_LIFE;
        assert_eq!(delays(&mut budget, client(1), None, 12, later)[11], 2);
    }

    #[test]
    fn a_crowd_of_other_addresses_does_not_make_a_heavy_record_be_forgotten() {
        let mut budget = FailureBudget::new(8);
        let now = Instant::now();
        delays(&mut budget, client(1), None, 20, now);
        for number in 2..10_000 {
            budget.refused(client(number), None, CAP, now);
        }
        assert_eq!(delays(&mut budget, client(1), None, 1, now), [15]);
        assert!(budget.clients.whole_at.moments.len() <= 8);
        assert_eq!(budget.clients.over(now), 1);
    }

    #[test]
    fn those_for_whom_there_is_no_room_share_a_record() {
        let mut budget = FailureBudget::new(2);
        let now = Instant::now();
        for heavy in 1..=2 {
            delays(&mut budget, client(heavy), None, 20, now);
        }
        let waits: Vec<_> = (10..40)
            .map(|number| budget.refused(client(number), None, CAP, now))
            .collect();
        assert_eq!((waits[0], waits[29]), (Duration::ZERO, CAP));
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        let failures = Budgets::default();
        let now = Instant::now();
        for number in 0..AUTH_FAILURES_FREE_ACCOUNT {
            assert!(failures.refused(client(number), Some("Alice"), CAP, now).is_zero());
        }
        assert_eq!(failures.delayed(now).accounts, 1);
        assert!(!failures.refused(client(1000), Some("ALICE"), CAP, now).is_zero());
    }

    proptest! {
        #[test]
        fn records_are_bounded_and_delays_never_exceed_the_cap(
            steps in prop::collection::vec((0..30_u32, prop::option::of(0..5_u64), any::<bool>(), 0..200_u64), 1..300),
            cap in 0..60_u64,
        ) {
            let mut budget = FailureBudget::new(6);
            let mut now = Instant::now();
            let cap = Duration::from_secs(cap);
            for (number, name, is_accepted, seconds) in steps {
                now += Duration::from_secs(seconds);
                if is_accepted {
                    budget.accepted(client(number), now);
                    prop_assert_eq!(budget.refused(client(number), name, cap, now), Duration::ZERO);
                } else {
                    prop_assert!(budget.refused(client(number), name, cap, now) <= cap);
                }
                for ledger in [&budget.clients.whole_at, &budget.accepted] {
                    prop_assert!(ledger.moments.len() <= 6);
                    prop_assert_eq!(ledger.moments.len(), ledger.order.len());
                }
                prop_assert!(budget.names.whole_at.moments.len() <= 6);
            }
        }
    }
}
