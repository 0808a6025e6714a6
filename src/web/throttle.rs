//! How often one client address may ask.
//!
//! An IPv6 network counts as one client, as everywhere. What is remembered is bounded: addresses that have been quiet are
//! forgotten, and where that does not help, all are. Whoever has so many addresses is not slowed by a limit for each, and
//! refusing newcomers instead would do their work for them.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::limits::{WEB_CLIENTS_MAX, WEB_REQUEST_INTERVAL, WEB_REQUESTS_BURST};
use crate::net::admission::client_of;

/// Counts the requests of every client address.
pub(super) struct Throttle<C: Clock = DefaultClock> {
    clock: C,
    counted: Mutex<Counted<C>>,
}

type Counted<C> = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl<C: Clock + Clone> Throttle<C> {
    /// Nobody counted yet.
    pub(super) fn new(clock: C) -> Self {
        Self {
            counted: Mutex::new(RateLimiter::hashmap_with_clock(quota(), clock.clone())),
            clock,
        }
    }

    /// Counts a request of `client`.
    ///
    /// # Errors
    /// How long the client is to wait before the next, if this is one too many.
    pub(super) fn count(&self, client: IpAddr) -> Result<(), Duration> {
        // Nothing is left half done by a panic elsewhere while this was held.
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= WEB_CLIENTS_MAX {
            counted.retain_recent();
            if counted.len() >= WEB_CLIENTS_MAX {
                *counted = RateLimiter::hashmap_with_clock(quota(), self.clock.clone());
            }
        }
        counted
            .check_key(&client_of(client))
            .map_err(|refused| refused.wait_time_from(self.clock.now()))
    }
}

fn quota() -> Quota {
    let burst = NonZeroU32::new(WEB_REQUESTS_BURST).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(WEB_REQUEST_INTERVAL)
        .unwrap_or(Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use governor::clock::FakeRelativeClock;

    use super::*;

    fn throttle() -> (Throttle<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Throttle::new(clock.clone()), clock)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_one_request_each_interval() {
        let (throttle, clock) = throttle();
        let client = address("192.0.2.1");
        let passed = (0..100).filter(|_| throttle.count(client).is_ok()).count();
        assert_eq!(passed, WEB_REQUESTS_BURST as usize);
        assert_eq!(throttle.count(client), Err(WEB_REQUEST_INTERVAL));
        assert_eq!(throttle.count(address("192.0.2.2")), Ok(()), "another is not concerned");
        clock.advance(WEB_REQUEST_INTERVAL);
        assert_eq!(throttle.count(client), Ok(()));
        assert!(throttle.count(client).is_err());
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let (throttle, _) = throttle();
        let hosts = (0..100u16).map(|host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host)));
        let passed = hosts.filter(|host| throttle.count(*host).is_ok()).count();
        assert_eq!(passed, WEB_REQUESTS_BURST as usize);
        assert_eq!(throttle.count(address("2001:db8:0:2::1")), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_quiet_are_forgotten_first() {
        let (throttle, clock) = throttle();
        let clients = |from: u32| {
            (from..)
                .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
                .take(WEB_CLIENTS_MAX - 1)
        };
        let remembered = || throttle.counted.lock().unwrap().len();
        for client in clients(1 << 24) {
            throttle.count(client).unwrap();
        }
        assert_eq!(remembered(), WEB_CLIENTS_MAX - 1);
        clock.advance(WEB_REQUEST_INTERVAL * WEB_REQUESTS_BURST);
        let busy = address("192.0.2.1");
        while throttle.count(busy).is_ok() {}
        throttle.count(address("192.0.2.2")).unwrap();
        assert_eq!(remembered(), 2, "the quiet ones are gone");
        assert!(throttle.count(busy).is_err(), "the busy one is not");
        for client in clients(2 << 24) {
            throttle.count(client).unwrap();
            assert!(remembered() <= WEB_CLIENTS_MAX);
        }
    }
}
