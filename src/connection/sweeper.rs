//! One task that looks at all sessions once a second: it counts their bytes, ends those that are idle or half-closed for too
//! long, and during a drain those on which nothing moves.
//!
//! A session itself keeps no timer and reads no clock. The price is that a time-out is noticed up to [`SWEEP_INTERVAL`] late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::actor::Message;
use super::register::Relayed;
use super::{Services, Sessions};
use crate::clock;
use crate::limits::HALF_CLOSED_MAX;
use crate::metrics::names::{self, Direction};
use crate::net::relay::Traffic;
use crate::proto::Protocol;
use crate::proto::dialogue::UpstreamRemark;
use crate::proto::session::Goodbye;

/// Whether sessions are being drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Sessions come and go.
    Serving,
    /// The proxy shuts down: a session on which nothing has moved for a second is ended.
    Quiet,
    /// The time to drain is over: every session is ended.
    All,
}

/// Sweeps the live sessions until `drain`'s sender is gone.
pub async fn sweep(services: Arc<Services>, mut drain: watch::Receiver<Drain>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = drain.changed() => if changed.is_err() { return },
        }
        let drain = *drain.borrow_and_update();
        if drain == Drain::All {
            services.sessions.end_all(Goodbye::ShuttingDown);
            continue;
        }
        let idle_timeout = services.config().limits.idle_timeout;
        sweep_once(&services.sessions, Policy { idle_timeout, drain }, clock::instant());
    }
}

/// What makes a session end.
#[derive(Clone, Copy)]
struct Policy {
    idle_timeout: Duration,
    drain: Drain,
}

fn sweep_once(sessions: &Sessions, policy: Policy, now: Instant) {
    sessions.for_each(|entry| {
        if let Some(relayed) = &mut entry.relayed {
            let (up, down) = relayed.count(now);
            count_relayed(entry.protocol, up, down);
            if let Some(remark) = relayed.take_remark() {
                // A session that is ending takes it with its last look.
                entry.actor.cast(Message::Remarked(remark)).ok();
            }
        }
        if let Some(order) = judge(entry.relayed.as_mut(), policy, now) {
            // A session that cannot be told any more is ending by itself.
            entry.actor.cast(order).ok();
        }
    });
}

/// What a session is told, given what is known of its relay (`None`: it is not logged in).
fn judge(relayed: Option<&mut Relayed>, policy: Policy, now: Instant) -> Option<Message> {
    let Some(relayed) = relayed else {
        return (policy.drain == Drain::Quiet).then_some(Message::End(Goodbye::ShuttingDown));
    };
    let quiet = now.saturating_duration_since(relayed.quiet_since);
    if relayed.half_closed_for(now) >= HALF_CLOSED_MAX {
        Some(Message::Abort("half_closed"))
    } else if quiet >= policy.idle_timeout {
        Some(Message::End(Goodbye::Idle))
    } else if policy.drain == Drain::Quiet && quiet >= DRAIN_QUIET {
        Some(Message::End(Goodbye::ShuttingDown))
    } else {
        None
    }
}

/// Adds bytes that were moved since the last time to the metrics.
pub(super) fn count_relayed(protocol: Protocol, up: u64, down: u64) {
    // Most sessions are idle: for those not even the counters are looked up.
    for (direction, bytes) in [(Direction::Up, up), (Direction::Down, down)] {
        if bytes > 0 {
            names::relayed_bytes(protocol, direction).increment(bytes);
        }
    }
}

impl Relayed {
    /// A session whose relay begins now.
    pub(super) fn begin(traffic: Arc<Traffic>, provider: String, now: Instant) -> Self {
        Self {
            traffic,
            provider,
            counted: (0, 0),
            quiet_since: now,
            half_closed_since: None,
        }
    }

    /// Takes note of what has moved since the last sweep and returns it, as bytes (up, down).
    pub(super) fn count(&mut self, now: Instant) -> (u64, u64) {
        let (up, down) = (self.traffic.up(), self.traffic.down());
        let moved = (up.saturating_sub(self.counted.0), down.saturating_sub(self.counted.1));
        if moved != (0, 0) {
            self.quiet_since = now;
            self.counted = (up, down);
        }
        moved
    }

    /// What the upstream has given away of itself, counted, once.
    pub(super) fn take_remark(&self) -> Option<UpstreamRemark> {
        let remark = self.traffic.take_remark()?;
        match remark {
            UpstreamRemark::NotConnected => names::upstream_not_connected(&self.provider).increment(1),
        }
        Some(remark)
    }

    fn half_closed_for(&mut self, now: Instant) -> Duration {
        if !self.traffic.is_half_closed() {
            return Duration::ZERO;
        }
        now.saturating_duration_since(*self.half_closed_since.get_or_insert(now))
    }
}

/// How often sessions are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How long nothing has moved on a session that may be ended early in a drain (INTERFACE §7).
const DRAIN_QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(1800);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn relayed(begun: Instant) -> Relayed {
        Relayed::begin(Arc::default(), "example".to_owned(), begun)
    }

    /// What a session is told, as the name of the end.
    fn told(relayed: Option<&mut Relayed>, drain: Drain, now: Instant) -> Option<&'static str> {
        let policy = Policy {
            idle_timeout: IDLE,
            drain,
        };
        judge(relayed, policy, now).map(|order| match order {
            Message::End(goodbye) => goodbye.label(),
            Message::Abort(reason) => reason,
            _ => "something else",
        })
    }

    #[test]
    fn a_session_that_is_quiet_for_long_is_idle_and_in_a_drain_a_second_is_long() {
        let begun = clock::instant();
        let stopping = Some(Goodbye::ShuttingDown.label());
        for (quiet, serving, draining) in [
            (seconds(0), None, None),
            (Duration::from_millis(999), None, None),
            (seconds(1), None, stopping),
            (seconds(1799), None, stopping),
            (IDLE, Some(Goodbye::Idle.label()), Some(Goodbye::Idle.label())),
        ] {
            let now = begun + quiet;
            assert_eq!(
                told(Some(&mut relayed(begun)), Drain::Serving, now),
                serving,
                "{quiet:?}"
            );
            assert_eq!(
                told(Some(&mut relayed(begun)), Drain::Quiet, now),
                draining,
                "{quiet:?}"
            );
        }
    }

    #[test]
    fn a_session_that_is_not_logged_in_is_ended_by_a_drain_only() {
        let now = clock::instant();
        assert_eq!(told(None, Drain::Serving, now), None);
        assert_eq!(told(None, Drain::Quiet, now), Some(Goodbye::ShuttingDown.label()));
    }

    #[test]
    fn what_moves_keeps_a_session_alive_and_is_counted_once() {
        let begun = clock::instant();
        let mut session = relayed(begun);
        session.traffic.add(3, 5);
        assert_eq!(session.count(begun + seconds(1799)), (3, 5));
        assert_eq!(session.count(begun + seconds(1800)), (0, 0));
        assert_eq!(told(Some(&mut session), Drain::Serving, begun + seconds(1800)), None);
        session.traffic.add(0, 1);
        assert_eq!(session.count(begun + seconds(1801)), (0, 1));
    }

    #[test]
    fn the_other_side_has_ten_seconds_from_when_the_end_of_one_was_seen() {
        let begun = clock::instant();
        let mut session = relayed(begun);
        assert_eq!(told(Some(&mut session), Drain::Serving, begun + seconds(20)), None);
        session.traffic.half_close();
        for (after, expected) in [(20, None), (29, None), (30, Some("half_closed"))] {
            assert_eq!(
                told(Some(&mut session), Drain::Serving, begun + seconds(after)),
                expected
            );
        }
    }
}
