//! How many sessions there may be, in all and for one client address.
//!
//! A [`Permit`] is taken before anything is spawned for a connection and counts until it is dropped, so that nothing can
//! grow without bound behind it. Where the client is not known at first, because a load balancer has yet to say whom it speaks
//! for, it is had in two steps: a [`Reservation`] counts among all sessions from the beginning, and becomes a permit once the
//! address is known. Limits may change while sessions go on: none is ended for it, but no new one begins until
//! the count has come down.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{IPV6_CLIENT_BITS, REFUSALS_MAX};

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
}

/// Why a connection is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `sessions_max` is reached.
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
}

impl Admission {
    /// Nobody admitted yet.
    pub fn new(limits: AdmissionLimits) -> Self {
        Self {
            counts: Arc::new(Mutex::new(Counts {
                limits,
                sessions: 0,
                by_client: HashMap::new(),
            })),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
        }
    }

    /// Takes a place among all sessions, whoever the client is.
    ///
    /// # Errors
    /// [`Refusal::SessionsMax`] if there is none.
    pub fn reserve(&self) -> Result<Reservation, Refusal> {
        let mut counts = lock(&self.counts);
        if counts.sessions >= counts.limits.sessions_max {
            return Err(Refusal::SessionsMax);
        }
        counts.sessions += 1;
        Ok(Reservation {
            counts: self.counts.clone(),
        })
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
        {
            let mut counts = lock(&self.counts);
            let of_client = counts.by_client.get(&client).copied().unwrap_or(0);
            if of_client >= counts.limits.sessions_per_ip_max {
                return Err(Refusal::SessionsPerIpMax);
            }
            counts.by_client.insert(client, of_client + 1);
        }
        Ok(Permit {
            reservation: self,
            client,
        })
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

    proptest! {
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
