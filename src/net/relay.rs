//! Moves bytes between a client and an upstream, both ways, until the session ends. The heart of the proxy.
//!
//! ```text
//!            up:   client ──read──> scratch ──watch──> write ──> upstream
//!            down: upstream ──────> scratch ──────────────────> client
//!                                     │ what the writer does not take
//!                                     └──> pending (the direction is not read until it is gone)
//! ```
//!
//! **Memory.** While nothing moves, a relay owns no buffer: it borrows its thread's scratch for the length of one poll. What
//! the receiving side does not take is kept in one allocation of exactly that size, and its direction is not read again
//! until that has been written: a stalled reader costs at most one scratch in each direction and stops the sender.
//!
//! **Time.** A relay has no timer and reads no clock. It counts in [`Traffic`], and a sweeper outside finds sessions on which
//! nothing has moved between two looks, or that have been half-closed for too long, and ends them by the goodbye channel.
//!
//! **Ends.** The end of one side is passed on to the other (flush, then half-close) and the other direction goes on. A
//! failure on the upstream's leg ends the relay, once the client has taken what came before. A failure on the client's leg is
//! its end: what it sent still goes to the upstream, which then has as long to finish as after any end, and what it says is
//! for nobody. A goodbye ends the relay too; the client's stream is handed out where a farewell would be
//! understood, and closed without a word elsewhere (INTERFACE §5). Both sockets are closed when the relay is ready, not only
//! when it is dropped.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;

use super::stream::Stream;
use crate::limits::{RELAY_ROUNDS_MAX, RELAY_SCRATCH_BYTES};
use crate::proto::dialogue::{Boundaries, UpstreamRemark};
use crate::proto::session::Goodbye;

/// A relayed session: a future that is ready when the session has ended. Small, so that it can be a task of its own.
pub struct Relay {
    /// `None` once the relay has ended.
    session: Option<Session>,
}

/// What a session has moved, counted by its relay and read by others at any time.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
    half_closed: AtomicBool,
    not_connected: AtomicBool,
}

/// How a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// The client ended first, and then everything came to its end.
    ClientClosed,
    /// The upstream ended first, and then everything came to its end.
    UpstreamClosed,
    /// The client's leg failed.
    ClientError(io::Error),
    /// The upstream's leg failed.
    UpstreamError(io::Error),
    /// The proxy ended the session.
    Goodbye {
        /// Why.
        goodbye: Goodbye,
        /// The client's leg, if a farewell would be understood on it now; see [`Stream::part`].
        client: Option<Stream>,
    },
}

impl Traffic {
    /// Bytes from the client so far.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Bytes from the upstream so far.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// Whether one side has ended while the other goes on; for [`crate::limits::HALF_CLOSED_MAX`].
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed)
    }

    /// What the upstream has given away of itself, once (see [`Boundaries::take_remark`]).
    pub fn take_remark(&self) -> Option<UpstreamRemark> {
        self.not_connected
            .swap(false, Ordering::Relaxed)
            .then_some(UpstreamRemark::NotConnected)
    }
}

#[cfg(test)]
impl Traffic {
    /// Counts bytes as a relay would.
    pub(crate) fn add(&self, up: usize, down: usize) {
        count(&self.up, up);
        count(&self.down, down);
    }

    /// Notes the end of one side as a relay would.
    pub(crate) fn half_close(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
    }
}

impl Relay {
    /// Relays between two legs that are logged in. `to_client` and `to_upstream` are what was read ahead on the other leg;
    /// they are watched, counted and written before anything else. A `goodbye` whose sender is dropped never comes.
    pub fn new(
        client: Stream,
        upstream: Stream,
        to_client: Bytes,
        to_upstream: Bytes,
        mut boundaries: Box<dyn Boundaries>,
        traffic: Arc<Traffic>,
        goodbye: oneshot::Receiver<Goodbye>,
    ) -> Self {
        boundaries.watch_client(&to_upstream);
        boundaries.watch_upstream(&to_client);
        count(&traffic.up, to_upstream.len());
        count(&traffic.down, to_client.len());
        Self {
            session: Some(Session {
                client,
                upstream,
                up: Direction::beginning_with(to_upstream),
                down: Direction::beginning_with(to_client),
                first_ended: None,
                client_failure: None,
                boundaries,
                traffic,
                goodbye: Some(goodbye),
            }),
        }
    }
}

impl Future for Relay {
    type Output = RelayEnd;

    /// Stays pending for ever if polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let Some(session) = &mut self.session else {
            return Poll::Pending;
        };
        // Fairness is RELAY_ROUNDS_MAX here. Tokio's own budget would run out in the middle of a write, and what it then
        // keeps back would have to be copied aside.
        let advance = poll_fn(|cx| with_scratch(|scratch| session.poll_advance(cx, scratch)));
        let ended = match pin!(unconstrained(advance)).poll(cx) {
            Poll::Ready(ended) => ended,
            Poll::Pending => return Poll::Pending,
        };
        match self.session.take() {
            Some(session) => Poll::Ready(session.into_end(ended)),
            None => Poll::Pending,
        }
    }
}

/// A side of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    Client,
    Upstream,
}

/// What ended a session.
enum Ended {
    /// Both directions have come to their end.
    InOrder,
    Failed(Trouble),
    Goodbye(Goodbye),
}

/// A failure and the leg that it happened on.
struct Trouble {
    leg: Leg,
    error: io::Error,
}

struct Session {
    client: Stream,
    upstream: Stream,
    up: Direction,
    down: Direction,
    /// The side whose end was seen first.
    first_ended: Option<Leg>,
    /// How the client's leg has failed, if it has: nothing is written to it any more.
    client_failure: Option<io::Error>,
    boundaries: Box<dyn Boundaries>,
    traffic: Arc<Traffic>,
    /// `None` once its sender is gone.
    goodbye: Option<oneshot::Receiver<Goodbye>>,
}

impl Session {
    fn poll_advance(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<Ended> {
        if let Some(goodbye) = self.poll_goodbye(cx) {
            return Poll::Ready(Ended::Goodbye(goodbye));
        }
        for _ in 0..RELAY_ROUNDS_MAX {
            match self.move_both(cx, scratch) {
                Err(trouble) => {
                    if let Some(trouble) = self.outlive(trouble) {
                        return Poll::Ready(Ended::Failed(trouble));
                    }
                }
                Ok([Progress::Ended, Progress::Ended]) => return Poll::Ready(Ended::InOrder),
                Ok([Progress::More, _] | [_, Progress::More]) => {}
                Ok(_) => return Poll::Pending,
            }
        }
        // There is more to move, but other sessions of this thread come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Option<Goodbye> {
        match Pin::new(self.goodbye.as_mut()?).poll(cx) {
            Poll::Ready(Ok(goodbye)) => Some(goodbye),
            Poll::Ready(Err(_)) => {
                self.goodbye = None;
                None
            }
            Poll::Pending => None,
        }
    }

    /// Goes on without the client, if the trouble is that its leg has failed. A client that hangs up without reading, or resets its
    /// connection, means what it said before all the same: a script that pipelines a whole submission and is gone.
    fn outlive(&mut self, trouble: Trouble) -> Option<Trouble> {
        if trouble.leg == Leg::Upstream || self.client_failure.is_some() {
            return Some(trouble);
        }
        self.client_failure = Some(trouble.error);
        self.traffic.half_closed.store(true, Ordering::Relaxed);
        self.down.pending = Bytes::new();
        if self.up.stage == Stage::Breaking {
            self.up.stage = Stage::Ending;
        }
        None
    }

    /// The upstream's direction first: when a client hangs up in the middle of an upstream's last words, these are still
    /// read and counted before the write back to that upstream fails. Once a leg has failed, nothing more is sent to it: the
    /// failure of that would end the relay before what the leg had sent is delivered.
    fn move_both(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<[Progress; 2], Trouble> {
        let down = match self.up.stage {
            Stage::Breaking => Progress::Waiting,
            _ => self.move_down(cx, scratch)?,
        };
        let up = match self.down.stage {
            Stage::Breaking => Progress::Waiting,
            _ => self.move_up(cx, scratch)?,
        };
        Ok([down, up])
    }

    fn move_down(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<Progress, Trouble> {
        if self.client_failure.is_some() {
            return self.discard_down(cx, scratch);
        }
        let (boundaries, traffic) = (&mut self.boundaries, &self.traffic);
        let progress = self
            .down
            .advance(cx, &mut self.upstream, &mut self.client, scratch, |bytes| {
                boundaries.watch_upstream(bytes);
                if let Some(UpstreamRemark::NotConnected) = boundaries.take_remark() {
                    traffic.not_connected.store(true, Ordering::Relaxed);
                }
                count(&traffic.down, bytes.len());
            });
        self.note_end(Leg::Upstream);
        progress.map_err(|failure| failure.on(Leg::Upstream, Leg::Client))
    }

    /// Reads what the upstream says to a client that is gone, so that it is not held up before it has done what it was told.
    fn discard_down(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<Progress, Trouble> {
        if self.down.stage == Stage::Ended {
            return Ok(Progress::Ended);
        }
        match fill(cx, &mut self.upstream, scratch).1 {
            SourceState::MayHaveMore => Ok(Progress::More),
            SourceState::Waiting => Ok(Progress::Waiting),
            SourceState::AtEnd => {
                self.down.stage = Stage::Ended;
                Ok(Progress::Ended)
            }
            SourceState::Failed(error) => Err(Trouble {
                leg: Leg::Upstream,
                error,
            }),
        }
    }

    fn move_up(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<Progress, Trouble> {
        let (boundaries, traffic) = (&mut self.boundaries, &self.traffic);
        let progress = self
            .up
            .advance(cx, &mut self.client, &mut self.upstream, scratch, |bytes| {
                boundaries.watch_client(bytes);
                count(&traffic.up, bytes.len());
            });
        self.note_end(Leg::Client);
        progress.map_err(|failure| failure.on(Leg::Client, Leg::Upstream))
    }

    /// Notes if `source` has ended. One that has failed has not, but what it sent before has as long to be delivered.
    fn note_end(&mut self, source: Leg) {
        let direction = match source {
            Leg::Client => &self.up,
            Leg::Upstream => &self.down,
        };
        match direction.stage {
            Stage::Open => {}
            Stage::Breaking => self.traffic.half_closed.store(true, Ordering::Relaxed),
            // A failed one has been brought to its end here.
            Stage::Ending | Stage::Ended if source == Leg::Client && self.client_failure.is_some() => {}
            Stage::Ending | Stage::Ended if self.first_ended.is_none() => {
                self.first_ended = Some(source);
                self.traffic.half_closed.store(true, Ordering::Relaxed);
            }
            Stage::Ending | Stage::Ended => {}
        }
    }

    fn into_end(self, ended: Ended) -> RelayEnd {
        match ended {
            Ended::Goodbye(goodbye) => {
                let is_there = self.client_failure.is_none() && self.down.is_idle();
                let is_understood = is_there && self.boundaries.at_boundary();
                RelayEnd::Goodbye {
                    goodbye,
                    client: is_understood.then_some(self.client),
                }
            }
            _ if self.client_failure.is_some() => match (self.first_ended, self.client_failure) {
                (None | Some(Leg::Upstream), Some(error)) => RelayEnd::ClientError(error),
                _ => RelayEnd::ClientClosed,
            },
            // A leg that has ended and then fails (a reset for what was still sent to it) has just closed.
            Ended::Failed(trouble) if self.first_ended != Some(trouble.leg) => match trouble.leg {
                Leg::Client => RelayEnd::ClientError(trouble.error),
                Leg::Upstream => RelayEnd::UpstreamError(trouble.error),
            },
            Ended::Failed(_) | Ended::InOrder => match self.first_ended {
                Some(Leg::Upstream) => RelayEnd::UpstreamClosed,
                Some(Leg::Client) | None => RelayEnd::ClientClosed,
            },
        }
    }
}

/// One of the two ways through a session: what its source sends goes to its target.
struct Direction {
    /// Read and watched, but not yet taken by the target.
    pending: Bytes,
    /// Taken by the target's TLS, but perhaps not yet by its socket.
    is_unflushed: bool,
    stage: Stage,
    /// How the source failed, until the relay ends with it.
    failure: Option<io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The source may send more.
    Open,
    /// The source has ended, the target is yet to hear of it.
    Ending,
    /// The target has been half-closed.
    Ended,
    /// The source has failed, the target is yet to get what came before.
    Breaking,
}

/// What came of one step in a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There may be more to do at once.
    More,
    /// A socket will wake the task.
    Waiting,
    /// Nothing will ever move here again.
    Ended,
}

/// A failure, seen from a direction.
enum Failure {
    Source(io::Error),
    Target(io::Error),
}

impl Failure {
    fn on(self, source: Leg, target: Leg) -> Trouble {
        match self {
            Self::Source(error) => Trouble { leg: source, error },
            Self::Target(error) => Trouble { leg: target, error },
        }
    }
}

impl Direction {
    fn beginning_with(pending: Bytes) -> Self {
        Self {
            pending,
            is_unflushed: false,
            stage: Stage::Open,
            failure: None,
        }
    }

    /// Whether the target has received, in whole, everything that was watched, and may be sent more.
    fn is_idle(&self) -> bool {
        self.stage == Stage::Open && self.pending.is_empty() && !self.is_unflushed
    }

    /// One step: first what is due, then at most one scratchful more.
    fn advance(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Stream,
        target: &mut Stream,
        scratch: &mut [u8],
        watch: impl FnOnce(&[u8]),
    ) -> Result<Progress, Failure> {
        if self.poll_settle(cx, target).map_err(Failure::Target)?.is_pending() {
            return Ok(Progress::Waiting);
        }
        match self.stage {
            Stage::Open => {}
            Stage::Ending => return self.poll_end(cx, target),
            Stage::Ended => return Ok(Progress::Ended),
            Stage::Breaking => {
                return self
                    .failure
                    .take()
                    .map_or(Ok(Progress::Ended), |error| Err(Failure::Source(error)));
            }
        }
        let (filled, source_state) = fill(cx, source, scratch);
        if !filled.is_empty() {
            watch(filled);
            let taken = deliver(cx, target, filled).map_err(Failure::Target)?;
            self.is_unflushed = true;
            self.pending = filled.get(taken..).map(Bytes::copy_from_slice).unwrap_or_default();
        }
        let is_waiting = matches!(source_state, SourceState::Waiting);
        match source_state {
            SourceState::Failed(error) => (self.stage, self.failure) = (Stage::Breaking, Some(error)),
            SourceState::AtEnd => self.stage = Stage::Ending,
            SourceState::Waiting | SourceState::MayHaveMore => {}
        }
        let settled = self.poll_settle(cx, target).map_err(Failure::Target)?;
        Ok(if settled.is_pending() || is_waiting {
            Progress::Waiting
        } else {
            Progress::More
        })
    }

    /// Writes what is pending and flushes. Ready when the target's socket has taken all.
    fn poll_settle(&mut self, cx: &mut Context<'_>, target: &mut Stream) -> io::Result<Poll<()>> {
        if !self.pending.is_empty() {
            let taken = deliver(cx, target, &self.pending)?;
            self.is_unflushed = true;
            self.pending.advance(taken);
            if !self.pending.is_empty() {
                return Ok(Poll::Pending);
            }
            // An empty slice would still hold the whole allocation.
            self.pending = Bytes::new();
        }
        if self.is_unflushed {
            match Pin::new(target).poll_flush(cx)? {
                Poll::Ready(()) => self.is_unflushed = false,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Passes the source's end on to the target.
    fn poll_end(&mut self, cx: &mut Context<'_>, target: &mut Stream) -> Result<Progress, Failure> {
        match Pin::new(target).poll_shutdown(cx).map_err(Failure::Target)? {
            Poll::Ready(()) => {
                self.stage = Stage::Ended;
                Ok(Progress::Ended)
            }
            Poll::Pending => Ok(Progress::Waiting),
        }
    }
}

/// Where reading from a source stopped.
enum SourceState {
    /// The scratch is full.
    MayHaveMore,
    /// Nothing more for now; the task will be woken.
    Waiting,
    AtEnd,
    Failed(io::Error),
}

/// Reads until the scratch is full or the source has no more for now: TLS hands out one record at a time, and many records
/// in one write are what makes the other side fast.
fn fill<'a>(cx: &mut Context<'_>, source: &mut Stream, scratch: &'a mut [u8]) -> (&'a [u8], SourceState) {
    let mut buffer = ReadBuf::new(scratch);
    let state = loop {
        let before = buffer.filled().len();
        if buffer.remaining() == 0 {
            break SourceState::MayHaveMore;
        }
        match Pin::new(&mut *source).poll_read(cx, &mut buffer) {
            Poll::Pending => break SourceState::Waiting,
            Poll::Ready(Err(error)) => break SourceState::Failed(error),
            Poll::Ready(Ok(())) if buffer.filled().len() == before => break SourceState::AtEnd,
            Poll::Ready(Ok(())) => {}
        }
    };
    let filled = buffer.filled().len();
    (scratch.get(..filled).unwrap_or_default(), state)
}

/// Writes as much of `bytes` as `target` takes now, and tells how much that was.
fn deliver(cx: &mut Context<'_>, target: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match Pin::new(&mut *target).poll_write(cx, rest)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(taken) => rest = rest.get(taken..).unwrap_or_default(),
            Poll::Pending => break,
        }
    }
    Ok(bytes.len() - rest.len())
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Lends this thread's scratch. It is taken out for the time, so that a nested call gets another instead of a conflict.
fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut scratch = SCRATCH.take();
    scratch.resize(RELAY_SCRATCH_BYTES, 0);
    let outcome = work(&mut scratch);
    SCRATCH.set(scratch);
    outcome
}

#[cfg(test)]
mod tests;
