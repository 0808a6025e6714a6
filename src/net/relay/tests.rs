//! Whole relayed sessions over loopback, in clear and in TLS.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::poll;
use proptest::prelude::*;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::*;
use crate::net::test_support::{Wire, pair, tcp_pair};

const WIRES: [Wire; 2] = [Wire::Plain, Wire::Tls];

/// A relay, with the mail program and the upstream at its two ends.
struct Rig {
    relay: Relay,
    client: Stream,
    upstream: Stream,
    traffic: Arc<Traffic>,
    goodbye: oneshot::Sender<Goodbye>,
    seen: Arc<Seen>,
}

/// What the boundaries were shown, and what they answer.
#[derive(Default)]
struct Seen {
    of_client: Mutex<Vec<u8>>,
    of_upstream: Mutex<Vec<u8>>,
    is_at_boundary: AtomicBool,
}

struct Watcher(Arc<Seen>);

impl Boundaries for Watcher {
    fn watch_client(&mut self, bytes: &[u8]) {
        self.0.of_client.lock().unwrap().extend_from_slice(bytes);
    }

    fn watch_upstream(&mut self, bytes: &[u8]) {
        self.0.of_upstream.lock().unwrap().extend_from_slice(bytes);
    }

    fn at_boundary(&self) -> bool {
        self.0.is_at_boundary.load(Ordering::Relaxed)
    }
}

impl Rig {
    async fn new(wire: Wire) -> Self {
        Self::beginning_with(wire, b"", b"").await
    }

    async fn beginning_with(wire: Wire, to_client: &'static [u8], to_upstream: &'static [u8]) -> Self {
        Self::between(pair(wire).await, pair(wire).await, to_client, to_upstream)
    }

    fn between(
        (client, client_leg): (Stream, Stream),
        (upstream_leg, upstream): (Stream, Stream),
        to_client: &'static [u8],
        to_upstream: &'static [u8],
    ) -> Self {
        let (goodbye, hears_goodbye) = oneshot::channel();
        let traffic = Arc::new(Traffic::default());
        let seen = Arc::new(Seen::default());
        Self {
            relay: Relay::new(
                client_leg,
                upstream_leg,
                Bytes::from_static(to_client),
                Bytes::from_static(to_upstream),
                Box::new(Watcher(seen.clone())),
                traffic.clone(),
                hears_goodbye,
            ),
            client,
            upstream,
            traffic,
            goodbye,
            seen,
        }
    }

    /// Polls the relay until so many bytes have come up and down.
    async fn run_until(&mut self, up: u64, down: u64) {
        while (self.traffic.up(), self.traffic.down()) != (up, down) {
            assert!(poll!(&mut self.relay).is_pending(), "the relay has ended");
            yield_now().await;
        }
    }

    /// Sends what `block` repeats from the upstream until neither its own socket nor the client's takes any more, and tells
    /// how many bytes it was.
    async fn stall(&mut self, block: &[u8]) -> u64 {
        let mut sent = 0;
        loop {
            let place = sent % block.len();
            match poll!(pin!(self.upstream.write(&block[place..]))) {
                Poll::Ready(written) => sent += written.unwrap(),
                Poll::Pending if !self.down().is_idle() => return sent as u64,
                Poll::Pending => {
                    assert!(poll!(&mut self.relay).is_pending(), "the relay has ended");
                    yield_now().await;
                }
            }
        }
    }

    fn down(&self) -> &Direction {
        &self.relay.session.as_ref().unwrap().down
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// `length` bytes whose order can be told.
fn numbered(length: usize) -> Vec<u8> {
    (0u32..).flat_map(u32::to_le_bytes).take(length).collect()
}

async fn write_in_chunks(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], chunks: &[usize]) {
    let mut rest = bytes;
    let mut sizes = chunks.iter().copied().cycle();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(sizes.next().unwrap_or(rest.len()).min(rest.len()));
        stream.write_all(chunk).await.unwrap();
        stream.flush().await.unwrap();
        rest = after;
    }
    stream.shutdown().await.unwrap();
}

/// Relays `up` and `down` at once, in pieces of these sizes, and checks all that can be checked.
async fn both_ways(wire: Wire, up: &[u8], down: &[u8], chunks: &[usize]) {
    let rig = Rig::new(wire).await;
    let (mut client_reads, mut client_writes) = tokio::io::split(rig.client);
    let (mut upstream_reads, mut upstream_writes) = tokio::io::split(rig.upstream);
    let (mut at_client, mut at_upstream) = (Vec::new(), Vec::new());
    let mut relay = rig.relay;
    let relayed = poll_fn(|cx| {
        let before = (rig.traffic.up(), rig.traffic.down());
        let outcome = Pin::new(&mut relay).poll(cx);
        let most = (RELAY_ROUNDS_MAX * RELAY_SCRATCH_BYTES) as u64;
        assert!(rig.traffic.up() - before.0 <= most && rig.traffic.down() - before.1 <= most);
        outcome
    });
    let (end, ..) = tokio::join!(
        relayed,
        write_in_chunks(&mut client_writes, up, chunks),
        write_in_chunks(&mut upstream_writes, down, chunks),
        async { client_reads.read_to_end(&mut at_client).await.unwrap() },
        async { upstream_reads.read_to_end(&mut at_upstream).await.unwrap() },
    );
    assert!(
        matches!(end, RelayEnd::ClientClosed | RelayEnd::UpstreamClosed),
        "{end:?}"
    );
    assert!(at_client == down && at_upstream == up);
    assert_eq!(
        (rig.traffic.up(), rig.traffic.down()),
        (up.len() as u64, down.len() as u64)
    );
    assert!(*rig.seen.of_client.lock().unwrap() == up && *rig.seen.of_upstream.lock().unwrap() == down);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_byte_arrives_once_in_order_however_it_is_cut(
        is_tls: bool,
        up in 0usize..400_000,
        down in 0usize..400_000,
        chunks in prop::collection::vec(1usize..100_000, 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let wire = if is_tls { Wire::Tls } else { Wire::Plain };
        runtime.block_on(both_ways(wire, &numbered(up), &numbered(down), &chunks));
    }
}

#[tokio::test]
async fn one_byte_at_a_time_arrives_too() {
    for wire in WIRES {
        both_ways(wire, &numbered(300), &numbered(300), &[1]).await;
    }
}

#[tokio::test]
async fn what_was_read_ahead_comes_first_and_is_watched_and_counted() {
    for wire in WIRES {
        let mut rig = Rig::beginning_with(wire, b"* 1 EXISTS\r\n", b"B NOOP\r\n").await;
        send(&mut rig.client, b"C LOGOUT\r\n").await;
        send(&mut rig.upstream, b"B OK\r\n").await;
        let (mut at_client, mut at_upstream) = ([0; 18], [0; 18]);
        let relaying = tokio::spawn(rig.relay);
        rig.client.read_exact(&mut at_client).await.unwrap();
        rig.upstream.read_exact(&mut at_upstream).await.unwrap();
        assert_eq!(&at_client, b"* 1 EXISTS\r\nB OK\r\n");
        assert_eq!(&at_upstream, b"B NOOP\r\nC LOGOUT\r\n");
        assert_eq!((rig.traffic.up(), rig.traffic.down()), (18, 18));
        assert_eq!(*rig.seen.of_client.lock().unwrap(), at_upstream);
        assert_eq!(*rig.seen.of_upstream.lock().unwrap(), at_client);
        relaying.abort();
    }
}

#[tokio::test]
async fn after_the_clients_end_the_upstream_still_answers() {
    for wire in WIRES {
        let mut rig = Rig::new(wire).await;
        let traffic = rig.traffic.clone();
        let relaying = tokio::spawn(rig.relay);
        send(&mut rig.client, b"A LOGOUT\r\n").await;
        rig.client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        rig.upstream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"A LOGOUT\r\n");
        assert!(traffic.is_half_closed());
        send(&mut rig.upstream, b"* BYE\r\nA OK\r\n").await;
        rig.upstream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        rig.client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"* BYE\r\nA OK\r\n");
        assert!(matches!(relaying.await.unwrap(), RelayEnd::ClientClosed));
    }
}

#[tokio::test]
async fn after_the_upstreams_end_the_client_may_still_send() {
    for wire in WIRES {
        let mut rig = Rig::new(wire).await;
        let traffic = rig.traffic.clone();
        let relaying = tokio::spawn(rig.relay);
        send(&mut rig.upstream, b"* BYE\r\n").await;
        rig.upstream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        rig.client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"* BYE\r\n");
        assert!(traffic.is_half_closed());
        send(&mut rig.client, b"late").await;
        rig.client.shutdown().await.unwrap();
        let mut late = Vec::new();
        rig.upstream.read_to_end(&mut late).await.unwrap();
        assert_eq!(late, b"late");
        assert!(matches!(relaying.await.unwrap(), RelayEnd::UpstreamClosed));
    }
}

#[tokio::test]
async fn a_client_that_never_reads_stops_the_upstream_within_one_scratch() {
    for wire in WIRES {
        let mut rig = Rig::new(wire).await;
        let block = numbered(RELAY_SCRATCH_BYTES);
        let sent = rig.stall(&block).await;
        // What TLS holds back of a write it has taken is at most the one write, so at most a scratch as well.
        assert!(rig.down().pending.len() <= RELAY_SCRATCH_BYTES);
        assert!(rig.traffic.down() < sent, "the rest waits in the upstream's own socket");

        // The other direction is not held up.
        send(&mut rig.client, b"A NOOP\r\n").await;
        let stalled_at = rig.traffic.down();
        rig.run_until(8, stalled_at).await;
        let mut heard = [0; 8];
        rig.upstream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"A NOOP\r\n");

        // And nothing is lost or kept when the client reads at last.
        let held = rig.traffic.down();
        let mut read = 0;
        let mut part = vec![0; RELAY_SCRATCH_BYTES];
        while read < held {
            assert!(poll!(&mut rig.relay).is_pending());
            if let Poll::Ready(length) = poll!(pin!(rig.client.read(&mut part))) {
                for byte in &part[..length.unwrap()] {
                    assert_eq!(*byte, block[usize::try_from(read).unwrap() % block.len()]);
                    read += 1;
                }
            }
            yield_now().await;
        }
        let finishing = async {
            let mut rest = vec![0; RELAY_SCRATCH_BYTES];
            rig.upstream.shutdown().await.unwrap();
            while rig.client.read(&mut rest).await.unwrap() > 0 {}
            rig.client.shutdown().await.unwrap();
        };
        let (end, ()) = tokio::join!(&mut rig.relay, finishing);
        assert!(matches!(end, RelayEnd::UpstreamClosed), "{end:?}");
        assert_eq!(rig.traffic.down(), sent);
    }
}

#[tokio::test]
async fn a_relay_holds_no_buffer_when_nothing_moves() {
    let mut rig = Rig::new(Wire::Plain).await;
    let block = vec![b'x'; 8 * 1024 * 1024];
    let feeding = async {
        send(&mut rig.upstream, &block).await;
    };
    let mut part = vec![0; 4096];
    let mut left = block.len();
    let reading = async {
        while left > 0 {
            left -= rig.client.read(&mut part).await.unwrap();
        }
    };
    let ending = async { tokio::join!(feeding, reading) };
    tokio::select! {
        end = &mut rig.relay => panic!("{end:?}"),
        _ = ending => {}
    }
    let down = rig.down();
    assert!(down.is_idle());
    // A static slice, not an emptied allocation.
    assert!(Bytes::new().as_ptr() == down.pending.as_ptr());
}

#[tokio::test]
async fn a_goodbye_at_a_boundary_hands_out_the_client() {
    for wire in WIRES {
        let mut rig = Rig::new(wire).await;
        send(&mut rig.upstream, b"* 1 EXISTS\r\n").await;
        rig.run_until(0, 12).await;
        rig.seen.is_at_boundary.store(true, Ordering::Relaxed);
        rig.goodbye.send(Goodbye::TokenDeleted).unwrap();
        let RelayEnd::Goodbye {
            goodbye: Goodbye::TokenDeleted,
            client: Some(leg),
        } = rig.relay.await
        else {
            panic!("no farewell");
        };
        let mut heard = Vec::new();
        let hearing = async {
            rig.client.read_to_end(&mut heard).await.unwrap();
            rig.client.shutdown().await.unwrap();
        };
        tokio::join!(hearing, leg.part(b"* BYE\r\n", Duration::from_secs(10)));
        assert_eq!(heard, b"* 1 EXISTS\r\n* BYE\r\n");
        assert_eq!(rig.upstream.read(&mut [0]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn a_goodbye_elsewhere_closes_without_a_word() {
    for wire in WIRES {
        let mut rig = Rig::new(wire).await;
        send(&mut rig.upstream, b"* 1 FETCH {100}\r\n").await;
        rig.run_until(0, 17).await;
        rig.goodbye.send(Goodbye::Idle).unwrap();
        let end = (&mut rig.relay).await;
        assert!(matches!(end, RelayEnd::Goodbye { client: None, .. }), "{end:?}");
        // The sockets are closed though the relay is not dropped yet.
        let mut heard = Vec::new();
        rig.client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"* 1 FETCH {100}\r\n");
        assert!(poll!(&mut rig.relay).is_pending());
    }
}

#[tokio::test]
async fn a_goodbye_is_not_said_over_bytes_that_the_client_has_not_received() {
    let mut rig = Rig::new(Wire::Plain).await;
    rig.seen.is_at_boundary.store(true, Ordering::Relaxed);
    let block = numbered(RELAY_SCRATCH_BYTES);
    rig.stall(&block).await;
    rig.goodbye.send(Goodbye::ClosedByAdmin).unwrap();
    let end = rig.relay.await;
    assert!(matches!(end, RelayEnd::Goodbye { client: None, .. }), "{end:?}");
}

#[tokio::test]
async fn a_goodbye_that_can_no_longer_come_changes_nothing() {
    let mut rig = Rig::new(Wire::Plain).await;
    drop(rig.goodbye);
    send(&mut rig.client, b"A NOOP\r\n").await;
    rig.client.shutdown().await.unwrap();
    rig.upstream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let (end, _) = tokio::join!(rig.relay, rig.upstream.read_to_end(&mut heard));
    assert!(matches!(end, RelayEnd::ClientClosed | RelayEnd::UpstreamClosed));
    assert_eq!(heard, b"A NOOP\r\n");
}

/// Closes with a reset instead of a FIN.
fn reset(tcp: TcpStream) {
    SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    drop(tcp);
}

#[tokio::test]
async fn a_reset_ends_the_relay_and_tells_whose_it_was() {
    let rig = |client: TcpStream, client_leg: TcpStream, upstream_leg: TcpStream, upstream: TcpStream| {
        Rig::between(
            (client.into(), client_leg.into()),
            (upstream_leg.into(), upstream.into()),
            b"",
            b"",
        )
    };
    let (near, far) = (tcp_pair().await, tcp_pair().await);
    let mut of_client = rig(near.0, near.1, far.0, far.1);
    reset(of_client.client.into_tcp().unwrap());
    let relaying = tokio::spawn(of_client.relay);
    assert_eq!(
        of_client.upstream.read(&mut [0]).await.unwrap(),
        0,
        "it hears of the end"
    );
    drop(of_client.upstream);
    let end = relaying.await.unwrap();
    assert!(matches!(end, RelayEnd::ClientError(_)), "{end:?}");

    let (near, far) = (tcp_pair().await, tcp_pair().await);
    let of_upstream = rig(near.0, near.1, far.0, far.1);
    reset(of_upstream.upstream.into_tcp().unwrap());
    let end = of_upstream.relay.await;
    assert!(matches!(end, RelayEnd::UpstreamError(_)), "{end:?}");
}

#[tokio::test]
async fn what_came_before_an_upstream_s_failure_reaches_a_slow_client() {
    let mut rig = Rig::new(Wire::Plain).await;
    let block = numbered(RELAY_SCRATCH_BYTES);
    rig.stall(&block).await;
    reset(rig.upstream.into_tcp().unwrap());
    let mut heard = Vec::new();
    let mut part = [0; 1024];
    let end = loop {
        if let Poll::Ready(end) = poll!(&mut rig.relay) {
            break end;
        }
        if let Poll::Ready(length) = poll!(pin!(rig.client.read(&mut part))) {
            heard.extend_from_slice(&part[..length.unwrap()]);
        }
        yield_now().await;
    };
    assert!(matches!(end, RelayEnd::UpstreamError(_)), "{end:?}");
    rig.client.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len() as u64, rig.traffic.down());
    assert!(
        heard
            .iter()
            .zip(block.iter().cycle())
            .all(|(heard, sent)| heard == sent)
    );
}

#[tokio::test]
async fn a_client_that_hangs_up_and_then_resets_has_closed() {
    let mut rig = Rig::new(Wire::Plain).await;
    let mut client = rig.client.into_tcp().unwrap();
    client.shutdown().await.unwrap();
    let traffic = rig.traffic.clone();
    let relaying = tokio::spawn(rig.relay);
    assert_eq!(rig.upstream.read(&mut [0]).await.unwrap(), 0);
    assert!(traffic.is_half_closed());
    reset(client);
    // Whatever is still sent to a client that is gone is for nobody.
    for _ in 0..100 {
        rig.upstream.write_all(&[b'x'; 4096]).await.unwrap();
    }
    drop(rig.upstream);
    let end = relaying.await.unwrap();
    assert!(matches!(end, RelayEnd::ClientClosed), "{end:?}");
}

#[tokio::test]
async fn what_a_client_sent_before_it_was_gone_reaches_the_upstream_which_may_finish() {
    for is_reset in [false, true] {
        let mut rig = Rig::beginning_with(Wire::Plain, b"250 ok\r\n", b"EHLO\r\n").await;
        let mut client = rig.client.into_tcp().unwrap();
        client.write_all(b"QUIT\r\n").await.unwrap();
        match is_reset {
            true => reset(client),
            false => drop(client),
        }
        let relaying = tokio::spawn(rig.relay);
        // More than fits on the way: an upstream that nobody reads would be held up before it has done what it was told.
        rig.upstream.write_all(&[b'x'; 64 * RELAY_SCRATCH_BYTES]).await.unwrap();
        let mut heard = Vec::new();
        rig.upstream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"EHLO\r\nQUIT\r\n");
        assert!(rig.traffic.is_half_closed(), "it has ten seconds");
        rig.upstream.write_all(b"221 bye\r\n").await.unwrap();
        drop(rig.upstream);
        let end = relaying.await.unwrap();
        assert!(
            matches!(end, RelayEnd::ClientClosed | RelayEnd::ClientError(_)),
            "{end:?}"
        );
    }
}

#[test]
fn a_relay_is_small() {
    assert!(size_of::<Relay>() <= 320, "{} bytes", size_of::<Relay>());
}
