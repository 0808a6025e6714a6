//! How many sessions there may be, in all and for one client address.
//!
//! A [`Permit`] is taken before anything is spawned for a connection and counts until it is dropped, so that nothing can
//! grow without bound behind it. Where the client is not known at first, because a load balancer has yet to say whom it speaks
//! for, it is had in two steps: a [`Reservation`] counts among all sessions from the beginning, and becomes a permit once the
//! address is known. Limits may change while sessions go on: none is ended for it, but no new one begins until
//! the count has come down.
//!
//! A session that has not logged in is a stranger. Where there is no place left, the oldest stranger gives its own to a
//! newcomer ([`Admission::displace`]), so that a crowd that only connects keeps nobody out; whoever has logged in never does.
//! Some places are for logins alone: strangers together hold no more than `strangers_max`. One that gives way is over the
//! count until it is gone, and of those there are never more than [`GIVING_WAY_MAX`].

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{GIVE_WAY_SESSIONS_MIN, GIVING_WAY_MAX, IPV6_CLIENT_BITS, REFUSALS_MAX};

/// The register of sessions that are admitted. Cheap to clone; clones count together.
#[derive(Debug, Clone)]
pub struct Admission {
    counts: Arc<Mutex<Counts>>,
    refusals: Arc<Semaphore>,
}

/// The limits of [`Admission`] (INTERFACE §3, `[limits]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Sessions in all.
    pub sessions_max: usize,
    /// Sessions of one IPv4 address, or of one IPv6 /64.
    pub sessions_per_ip_max: usize,
    /// Sessions that have not logged in; `sessions_max` where there are no logins.
    pub strangers_max: usize,
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `sessions_max` is reached, and nobody can give way.
    SessionsMax,
    /// `sessions_per_ip_max` is reached for this client.
    SessionsPerIpMax,
}

/// A place among all sessions for a client that is not known yet, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    counts: Arc<Mutex<Counts>>,
}

/// One admitted session, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    reservation: Reservation,
    client: IpAddr,
    standing: Standing,
}

/// What a session is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It cannot be told anything yet.
    Unnamed,
    /// It has not logged in. Where its name is not among the strangers any more, it was told to give way.
    Stranger(u64),
    /// It has logged in.
    LoggedIn,
}

/// The right to tell one client that it is refused, until it is dropped.
#[derive(Debug)]
pub struct RefusalPermit {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Counts {
    limits: AdmissionLimits,
    sessions: usize,
    by_client: HashMap<IpAddr, usize>,
    /// Of `sessions`, those that have logged in.
    logged_in: usize,
    /// Of `sessions`, those that were told to give way: their places are others' already.
    giving_way: usize,
    /// Those that can be told to give way, by name, the oldest first.
    strangers: BTreeSet<u64>,
}

impl Admission {
    /// Nobody admitted yet.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            counts: Arc::new(Mutex::new(Counts {
                limits,
                sessions: 0,
                by_client: HashMap::new(),
                logged_in: 0,
                giving_way: 0,
                strangers: BTreeSet::new(),
            })),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    /// Takes a place among all sessions, whoever the client is.
    ///
    /// # Errors
    /// [`Refusal::SessionsMax`] if none is free.
    pub fn reserve(&self) -> Result<Reservation, Refusal> {
        let mut counts = lock(&self.counts);
        if !counts.has_room() {
            return Err(Refusal::SessionsMax);
        }
        counts.sessions += 1;
        Ok(Reservation {
            counts: self.counts.clone(),
        })
    }

    /// Admits a session from `address` although no place was free: in that of the oldest stranger, whose name is given and who
    /// must be told to go, unless one has become free meanwhile. A client that is over its own limit costs nobody a place.
    ///
    /// # Errors
    /// [`Refusal::SessionsMax`] if nobody can give way, [`Refusal::SessionsPerIpMax`] if the client has its share already.
    pub fn displace(&self, address: IpAddr) -> Result<(Permit, Option<u64>), Refusal> {
        let client = client_of(address);
        let mut counts = lock(&self.counts);
        let displaced = match counts.has_room() {
            true => None,
            false => Some(counts.next_to_give_way().ok_or(Refusal::SessionsMax)?),
        };
        counts.enter(client)?;
        counts.sessions += 1;
        if let Some(stranger) = displaced {
            counts.strangers.remove(&stranger);
            counts.giving_way += 1;
        }
        drop(counts);
        let permit = Permit {
            reservation: Reservation {
                counts: self.counts.clone(),
            },
            client,
            standing: Standing::Unnamed,
        };
        Ok((permit, displaced))
    }

    /// The right to hold a refused connection long enough to tell it so; `None` while too many are being told.
    pub fn permit_refusal(&self) -> Option<RefusalPermit> {
        let permit = self.refusals.clone().try_acquire_owned().ok()?;
        Some(RefusalPermit { _permit: permit })
    }

    /// Puts other limits in force, for sessions that are yet to come.
    pub fn change_limits(&self, limits: AdmissionLimits) {
        lock(&self.counts).limits = limits;
    }

    /// Sessions admitted and not yet ended.
    pub fn sessions(&self) -> usize {
        lock(&self.counts).sessions
    }
}

impl Reservation {
    /// Admits a session from `address` on this place, which is given back if that is refused.
    ///
    /// # Errors
    /// [`Refusal::SessionsPerIpMax`] if the client has its share already.
    pub fn admit(self, address: IpAddr) -> Result<Permit, Refusal> {
        let client = client_of(address);
        lock(&self.counts).enter(client)?;
        Ok(Permit {
            reservation: self,
            client,
            standing: Standing::Unnamed,
        })
    }
}

impl Permit {
    /// The session has not logged in, or its login has failed after all. From now on it may have to give way, under this name;
    /// of two, the smaller is the older.
    pub fn is_stranger(&mut self, name: u64) {
        let mut counts = lock(&self.reservation.counts);
        match self.standing {
            Standing::Stranger(_) => return,
            Standing::LoggedIn => counts.logged_in = counts.logged_in.saturating_sub(1),
            Standing::Unnamed => {}
        }
        counts.strangers.insert(name);
        self.standing = Standing::Stranger(name);
    }

    /// The session has logged in, and keeps its place, unless it was told to go a moment before.
    pub fn has_logged_in(&mut self) {
        let mut counts = lock(&self.reservation.counts);
        if let Standing::Stranger(name) = self.standing
            && counts.strangers.remove(&name)
        {
            counts.logged_in += 1;
            self.standing = Standing::LoggedIn;
        }
    }
}

impl Counts {
    /// Sessions whose places are their own.
    fn in_place(&self) -> usize {
        self.sessions.saturating_sub(self.giving_way)
    }

    /// Whether a newcomer finds a free place that strangers may have.
    fn has_room(&self) -> bool {
        let in_place = self.in_place();
        in_place < self.limits.sessions_max && in_place.saturating_sub(self.logged_in) < self.limits.strangers_max
    }

    /// The oldest stranger, if it may be told to go. Where `sessions_max` was lowered, its place would not be another's.
    fn next_to_give_way(&self) -> Option<u64> {
        let AdmissionLimits { sessions_max, .. } = self.limits;
        let is_possible = sessions_max >= GIVE_WAY_SESSIONS_MIN
            && self.in_place() <= sessions_max
            && self.giving_way < GIVING_WAY_MAX;
        self.strangers.first().copied().filter(|_| is_possible)
    }

    /// Counts one more session of `client`.
    fn enter(&mut self, client: IpAddr) -> Result<(), Refusal> {
        let of_client = self.by_client.get(&client).copied().unwrap_or(0);
        if of_client >= self.limits.sessions_per_ip_max {
            return Err(Refusal::SessionsPerIpMax);
        }
        self.by_client.insert(client, of_client + 1);
        Ok(())
    }
}

impl Refusal {
    /// The value of the metric label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::SessionsMax => "sessions_max",
            Self::SessionsPerIpMax => "sessions_per_ip_max",
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.sessions = counts.sessions.saturating_sub(1);
    }
}

/// The place among all sessions is given back after this, by the reservation.
impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.reservation.counts);
        match self.standing {
            Standing::Stranger(name) if !counts.strangers.remove(&name) => {
                counts.giving_way = counts.giving_way.saturating_sub(1);
            }
            Standing::LoggedIn => counts.logged_in = counts.logged_in.saturating_sub(1),
            Standing::Stranger(_) | Standing::Unnamed => {}
        }
        if let Entry::Occupied(mut entry) = counts.by_client.entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What counts as one client: an IPv4 address (IPv4-mapped ones included), or the network of an IPv6 address.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let host_bits = Ipv6Addr::BITS - IPV6_CLIENT_BITS;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> host_bits << host_bits))
        }
    }
}

/// Counting cannot fail half-way, so that a panic elsewhere leaves the counts right.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: AdmissionLimits = AdmissionLimits {
        sessions_max: 5,
        sessions_per_ip_max: 2,
        strangers_max: 5,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admit(admission: &Admission, address: IpAddr) -> Result<Permit, Refusal> {
        admission.reserve()?.admit(address)
    }

    #[test]
    fn one_client_is_an_ipv4_address_or_an_ipv6_network() {
        for (one, other, is_same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(
                client_of(address(one)) == client_of(address(other)),
                is_same,
                "{one} {other}"
            );
        }
    }

    #[test]
    fn a_client_over_its_limit_does_not_keep_others_out() {
        let admission = Admission::new(LIMITS);
        let held: Vec<_> = (0..2)
            .map(|_| admit(&admission, address("192.0.2.1")).unwrap())
            .collect();
        assert_eq!(
            admit(&admission, address("192.0.2.1")).unwrap_err(),
            Refusal::SessionsPerIpMax
        );
        assert!(admit(&admission, address("192.0.2.2")).is_ok());
        drop(held);
        assert!(admit(&admission, address("192.0.2.1")).is_ok());
    }

    #[test]
    fn lower_limits_end_nobody_and_admit_nobody_until_the_count_is_below() {
        let admission = Admission::new(LIMITS);
        let mut held: Vec<_> = (0..4)
            .map(|host| admit(&admission, address(&format!("192.0.2.{host}"))).unwrap())
            .collect();
        admission.change_limits(AdmissionLimits {
            sessions_max: 3,
            ..LIMITS
        });
        assert_eq!(admission.sessions(), 4);
        assert_eq!(
            admit(&admission, address("192.0.2.9")).unwrap_err(),
            Refusal::SessionsMax
        );
        held.truncate(2);
        assert!(admit(&admission, address("192.0.2.9")).is_ok());
    }

    #[test]
    fn a_place_counts_before_its_client_is_known_and_is_given_back_where_that_one_is_refused() {
        let admission = Admission::new(LIMITS);
        let mut reserved: Vec<_> = (0..5).map(|_| admission.reserve().unwrap()).collect();
        assert_eq!(admission.sessions(), 5);
        assert_eq!(admission.reserve().unwrap_err(), Refusal::SessionsMax);
        let client = address("192.0.2.1");
        let admitted: Vec<_> = reserved.drain(..2).map(|place| place.admit(client).unwrap()).collect();
        assert_eq!(admission.sessions(), 5);
        let refused = reserved.remove(0).admit(client);
        assert_eq!(refused.unwrap_err(), Refusal::SessionsPerIpMax);
        assert_eq!(admission.sessions(), 4);
        drop((reserved, admitted));
        assert_eq!(admission.sessions(), 0);
        assert!(lock(&admission.counts).by_client.is_empty());
    }

    #[test]
    fn only_so_many_refusals_are_told_at_once() {
        let admission = Admission::new(LIMITS);
        let told: Vec<_> = std::iter::from_fn(|| admission.permit_refusal()).take(1000).collect();
        assert_eq!(told.len(), REFUSALS_MAX);
        drop(told);
        assert!(admission.permit_refusal().is_some());
    }

    /// Takes a place, or a stranger's, as a stranger of this name.
    fn arrive(admission: &Admission, host: u8, name: u64) -> Result<(Permit, Option<u64>), Refusal> {
        let address = IpAddr::from([192, 0, 2, host]);
        let (mut permit, displaced) = match admission.reserve() {
            Ok(place) => (place.admit(address)?, None),
            Err(_) => admission.displace(address)?,
        };
        permit.is_stranger(name);
        Ok((permit, displaced))
    }

    #[test]
    fn the_oldest_stranger_gives_way_and_nobody_who_has_logged_in() {
        let admission = Admission::new(LIMITS);
        let mut held: Vec<_> = (0..5)
            .map(|name| arrive(&admission, name, name.into()).unwrap().0)
            .collect();
        held[0].has_logged_in();
        let (_newcomer, displaced) = arrive(&admission, 7, 7).unwrap();
        assert_eq!(displaced, Some(1));
        // Its login comes too late, and makes nobody else go.
        held[1].has_logged_in();
        let (_another, displaced) = arrive(&admission, 8, 8).unwrap();
        assert_eq!(displaced, Some(2));
        assert_eq!(admission.sessions(), 7);
        drop(held.drain(1..3));
        assert_eq!((admission.sessions(), lock(&admission.counts).giving_way), (5, 0));

        held.iter_mut().for_each(Permit::has_logged_in);
        // One whose login fails after all is as old as it was.
        held[0].is_stranger(0);
        assert_eq!(arrive(&admission, 9, 9).unwrap().1, Some(0));
    }

    #[test]
    fn nobody_gives_way_where_all_have_logged_in_or_for_a_client_that_is_over_its_limit() {
        let admission = Admission::new(LIMITS);
        let mut held: Vec<_> = (0..5)
            .map(|name| arrive(&admission, name / 2, name.into()).unwrap().0)
            .collect();
        assert_eq!(arrive(&admission, 0, 9).unwrap_err(), Refusal::SessionsPerIpMax);
        assert_eq!(lock(&admission.counts).strangers.len(), 5);
        held.iter_mut().for_each(Permit::has_logged_in);
        assert_eq!(arrive(&admission, 9, 9).unwrap_err(), Refusal::SessionsMax);
    }

    #[test]
    fn a_share_of_the_places_is_for_logins() {
        let admission = Admission::new(AdmissionLimits {
            strangers_max: 3,
            ..LIMITS
        });
        let mut held: Vec<_> = (0..3)
            .map(|name| arrive(&admission, name, name.into()).unwrap().0)
            .collect();
        assert_eq!(admission.reserve().unwrap_err(), Refusal::SessionsMax);
        held[0].has_logged_in();
        let (newcomer, displaced) = arrive(&admission, 3, 3).unwrap();
        assert_eq!(displaced, None, "the login has made room");
        assert_eq!(arrive(&admission, 4, 4).unwrap().1, Some(1));
        drop(newcomer);
    }

    #[test]
    fn so_many_are_leaving_at_once_and_no_more() {
        let admission = Admission::new(AdmissionLimits {
            sessions_per_ip_max: 100,
            ..LIMITS
        });
        let mut held = Vec::new();
        for name in 0.. {
            match arrive(&admission, 1, name) {
                Ok((permit, _)) => held.push(permit),
                Err(refusal) => {
                    assert_eq!(refusal, Refusal::SessionsMax);
                    break;
                }
            }
        }
        assert_eq!(admission.sessions(), 5 + GIVING_WAY_MAX);
        held.remove(0);
        assert!(arrive(&admission, 1, 1000).is_ok());
    }

    #[test]
    fn of_a_single_place_nobody_is_driven() {
        let admission = Admission::new(AdmissionLimits {
            sessions_max: 1,
            strangers_max: 1,
            ..LIMITS
        });
        let _held = arrive(&admission, 1, 1).unwrap();
        assert_eq!(arrive(&admission, 2, 2).unwrap_err(), Refusal::SessionsMax);
    }

    #[derive(Debug, Clone)]
    enum Move {
        Arrive(u8),
        LogIn(usize),
        Fail(usize),
        Leave(usize),
    }

    fn a_move() -> impl Strategy<Value = Move> {
        prop_oneof![
            4 => (0u8..8).prop_map(Move::Arrive),
            2 => any::<usize>().prop_map(Move::LogIn),
            1 => any::<usize>().prop_map(Move::Fail),
            2 => any::<usize>().prop_map(Move::Leave),
        ]
    }

    /// One that is held, in the test's own books.
    struct Held {
        name: u64,
        permit: Permit,
        is_logged_in: bool,
        is_leaving: bool,
    }

    proptest! {
        #[test]
        fn places_are_bounded_and_only_the_oldest_stranger_gives_way(moves in prop::collection::vec(a_move(), 0..200)) {
            let limits = AdmissionLimits { sessions_max: 6, sessions_per_ip_max: 4, strangers_max: 5 };
            let admission = Admission::new(limits);
            let mut held: Vec<Held> = Vec::new();
            for (name, step) in (0..).zip(moves) {
                let len = held.len().max(1);
                match step {
                    Move::Arrive(host) => {
                        let strangers = |held: &Held| !held.is_logged_in && !held.is_leaving;
                        let before = held.iter().filter(|held| strangers(held)).count();
                        let in_place = held.iter().filter(|held| !held.is_leaving).count();
                        let oldest = held.iter().filter(|held| strangers(held)).map(|held| held.name).min();
                        let is_free = in_place < limits.sessions_max && before < limits.strangers_max;
                        match arrive(&admission, host, name) {
                            Ok((permit, displaced)) => {
                                prop_assert_eq!(displaced, oldest.filter(|_| !is_free));
                                prop_assert!(is_free || displaced.is_some());
                                for one in held.iter_mut().filter(|held| Some(held.name) == displaced) {
                                    one.is_leaving = true;
                                }
                                held.push(Held { name, permit, is_logged_in: false, is_leaving: false });
                                let after = held.iter().filter(|held| strangers(held)).count();
                                prop_assert!(after <= before.max(limits.strangers_max));
                            }
                            Err(Refusal::SessionsPerIpMax) => {}
                            Err(Refusal::SessionsMax) => {
                                let leaving = held.len() - in_place;
                                prop_assert!(!is_free && (oldest.is_none() || leaving == GIVING_WAY_MAX));
                            }
                        }
                    }
                    Move::LogIn(which) => if let Some(held) = held.get_mut(which % len) {
                        held.permit.has_logged_in();
                        held.is_logged_in = !held.is_leaving;
                    },
                    Move::Fail(which) => if let Some(held) = held.get_mut(which % len) {
                        held.permit.is_stranger(held.name);
                        held.is_logged_in = false;
                    },
                    Move::Leave(which) => if which % len < held.len() {
                        held.remove(which % len);
                    },
                }
                let leaving = held.iter().filter(|held| held.is_leaving).count();
                prop_assert!(held.len() - leaving <= limits.sessions_max && leaving <= GIVING_WAY_MAX);
                let counts = lock(&admission.counts);
                prop_assert_eq!((counts.sessions, counts.giving_way), (held.len(), leaving));
                prop_assert_eq!(counts.logged_in, held.iter().filter(|held| held.is_logged_in).count());
                prop_assert_eq!(counts.strangers.len(), held.len() - leaving - counts.logged_in);
            }
            drop(held);
            let counts = lock(&admission.counts);
            prop_assert_eq!((counts.sessions, counts.giving_way, counts.logged_in), (0, 0, 0));
            prop_assert!(counts.strangers.is_empty() && counts.by_client.is_empty());
        }

        #[test]
        fn counts_are_those_of_the_permits_held(steps in prop::collection::vec((any::<bool>(), 0u8..4), 0..200)) {
            let admission = Admission::new(LIMITS);
            let mut held: Vec<(u8, Permit)> = Vec::new();
            for (begins, host) in steps {
                if begins {
                    let of_client = held.iter().filter(|(of, _)| *of == host).count();
                    let expected = match held.len() {
                        5.. => Err(Refusal::SessionsMax),
                        _ if of_client >= 2 => Err(Refusal::SessionsPerIpMax),
                        _ => Ok(()),
                    };
                    let outcome = admit(&admission, IpAddr::from([192, 0, 2, host]));
                    prop_assert_eq!(outcome.as_ref().map(|_| ()).map_err(|refusal| *refusal), expected);
                    held.extend(outcome.ok().map(|permit| (host, permit)));
                } else if let Some(place) = held.iter().position(|(of, _)| *of == host) {
                    held.remove(place);
                }
                let clients: std::collections::HashSet<u8> = held.iter().map(|(host, _)| *host).collect();
                prop_assert_eq!(admission.sessions(), held.len());
                prop_assert_eq!(lock(&admission.counts).by_client.len(), clients.len());
            }
        }
    }
}
