//! One task that looks at all sessions once a second: it counts their bytes, ends those that are idle or half-closed for too
//! long, and during a drain those on which nothing moves.
//!
//! A session itself keeps no timer and reads no clock. The price is that a time-out is noticed up to [`SWEEP_INTERVAL`] late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::actor::Message;
use super::register::{Entry, Relayed};
use super::{Services, Sessions};
use crate::clock;
use crate::limits::HALF_CLOSED_MAX;
use crate::metrics::names::{self, Direction};
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
        if let Some(order) = judge(entry, policy, now) {
            // A session that cannot be told any more is ending by itself.
            entry.actor.cast(order).ok();
        }
    });
}

fn judge(entry: &mut Entry, policy: Policy, now: Instant) -> Option<Message> {
    let Some(relayed) = &mut entry.relayed else {
        return (policy.drain == Drain::Quiet).then_some(Message::End(Goodbye::ShuttingDown));
    };
    let (up, down) = relayed.count(now);
    count_relayed(entry.protocol, up, down);
    relayed.heed_remark();
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
    names::relayed_bytes(protocol, Direction::Up).increment(up);
    names::relayed_bytes(protocol, Direction::Down).increment(down);
}

impl Relayed {
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

    /// Tells the operator what the upstream has given away of itself.
    pub(super) fn heed_remark(&self) {
        match self.traffic.take_remark() {
            Some(UpstreamRemark::NotConnected) => {
                names::upstream_not_connected(&self.provider).increment(1);
                warn!(
                    provider = self.provider,
                    "the upstream said 'authenticated but not connected': IMAP is off for the mailbox, or the login name has \
                     no access to it, or the mailbox is throttled"
                );
            }
            None => {}
        }
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
