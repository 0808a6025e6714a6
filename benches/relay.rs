//! How much a session's relay moves for each second of its thread's processor time, beside tokio's `copy_bidirectional` on
//! the same streams.
//!
//! One process: a thread with the relay and nothing else on one core, mail program and upstream on another. Only the
//! relay's thread is counted, by its own CPU clock, from the first relayed byte to the last; handshakes are left out. The
//! rivals take turns, and the least, median and greatest of the rounds are printed. All goes over loopback, so the kernel's
//! copies count in full.

mod support;

use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use portreeve::net::relay::{Relay, Traffic};
use portreeve::net::stream::Stream;
use portreeve::proto::dialogue::Boundaries;
use support::{Identity, Outcome, accept, connect, is_measuring};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mover {
    Relay,
    CopyBidirectional,
}

/// What a figure is about.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    is_tls: bool,
    mover: Mover,
}

const CASES: [Case; 4] = [
    Case {
        name: "TLS to TLS      relay",
        is_tls: true,
        mover: Mover::Relay,
    },
    Case {
        name: "TLS to TLS      copy_bidirectional",
        is_tls: true,
        mover: Mover::CopyBidirectional,
    },
    Case {
        name: "plain to plain  relay",
        is_tls: false,
        mover: Mover::Relay,
    },
    Case {
        name: "plain to plain  copy_bidirectional",
        is_tls: false,
        mover: Mover::CopyBidirectional,
    },
];

const DRIVER_CORE: usize = 0;
const RELAY_CORE: usize = 1;

fn main() -> Outcome<()> {
    let (rounds, bytes) = if is_measuring() { (5, 2 << 30) } else { (1, 4 << 20) };
    let directory = tempfile::tempdir()?;
    let identity = Arc::new(Identity::issue(directory.path())?);
    let mut figures = CASES.map(|case| (case, Vec::new()));
    for _ in 0..rounds {
        for (case, figures) in &mut figures {
            figures.push(measure(*case, bytes, &identity)?);
        }
    }
    println!(
        "GB per CPU-second of the relay's thread, downstream, {rounds} rounds of {bytes} bytes: least, median, greatest"
    );
    for (case, figures) in &mut figures {
        figures.sort_by(f64::total_cmp);
        let at = |place: usize| figures.get(place).copied().unwrap_or(f64::NAN);
        println!(
            "{:38} {:.2}  {:.2}  {:.2}",
            case.name,
            at(0),
            at(rounds / 2),
            at(rounds - 1)
        );
    }
    Ok(())
}

/// Relays `bytes` from an upstream to a client, and tells GB per CPU-second.
fn measure(case: Case, bytes: u64, identity: &Arc<Identity>) -> Outcome<f64> {
    let upstream = StdListener::bind("127.0.0.1:0")?;
    let upstream_port = upstream.local_addr()?.port();
    let (told_port, port) = mpsc::channel();
    let relaying = {
        let identity = identity.clone();
        thread::spawn(move || run_relay(case, &identity, upstream_port, &told_port))
    };
    let port = port.recv_timeout(Duration::from_secs(60))?;
    pin_to(DRIVER_CORE);
    let received = on_runtime(drive(case, identity, upstream, port, bytes))?;
    let busy = relaying.join().map_err(|_| "the relay's thread panicked")??;
    if received != bytes {
        return Err(format!("{received} of {bytes} bytes arrived").into());
    }
    Ok(bytes as f64 / 1e9 / busy.as_secs_f64())
}

/// The relay's thread: one session, and the processor time that it took.
fn run_relay(case: Case, identity: &Identity, upstream_port: u16, port: &mpsc::Sender<u16>) -> Outcome<Duration> {
    pin_to(RELAY_CORE);
    on_runtime(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        port.send(listener.local_addr()?.port())?;
        let (server, client) = (identity.server()?, identity.client()?);
        let (tcp, _) = listener.accept().await?;
        let client_leg = accept(case.is_tls.then_some(&server), tcp).await?;
        let upstream_leg = connect(case.is_tls.then_some(&client), upstream_port).await?;
        let begun = thread_cpu_time();
        move_all(case.mover, client_leg, upstream_leg).await?;
        Ok(thread_cpu_time() - begun)
    })
}

async fn move_all(mover: Mover, mut client: Stream, mut upstream: Stream) -> Outcome<()> {
    match mover {
        Mover::Relay => {
            let (_goodbye, hears_goodbye) = oneshot::channel();
            Relay::new(
                client,
                upstream,
                Bytes::new(),
                Bytes::new(),
                Box::new(Unwatched),
                Arc::new(Traffic::default()),
                hears_goodbye,
            )
            .await;
        }
        Mover::CopyBidirectional => {
            tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
        }
    }
    Ok(())
}

/// `copy_bidirectional` looks at nothing, so neither does the relay here; the boundary scanner has a bench of its own.
struct Unwatched;

impl Boundaries for Unwatched {
    fn watch_client(&mut self, _bytes: &[u8]) {}
    fn watch_upstream(&mut self, _bytes: &[u8]) {}
    fn at_boundary(&self) -> bool {
        false
    }
}

/// Mail program and upstream. Tells how many bytes arrived.
async fn drive(case: Case, identity: &Identity, upstream: StdListener, port: u16, bytes: u64) -> Outcome<u64> {
    upstream.set_nonblocking(true)?;
    let upstream = TcpListener::from_std(upstream)?;
    let (server, client) = (identity.server()?, identity.client()?);
    let sending = async {
        let (tcp, _) = upstream.accept().await?;
        let mut stream = accept(case.is_tls.then_some(&server), tcp).await?;
        let block = vec![b'x'; 256 * 1024];
        let mut left = bytes;
        while left > 0 {
            let part = left.min(block.len() as u64);
            stream.write_all(block.get(..part as usize).unwrap_or_default()).await?;
            left -= part;
        }
        stream.shutdown().await?;
        while stream.read(&mut [0; 64]).await? > 0 {}
        Outcome::Ok(())
    };
    let receiving = async {
        let mut stream = connect(case.is_tls.then_some(&client), port).await?;
        let mut block = vec![0; 256 * 1024];
        let mut received = 0;
        loop {
            match stream.read(&mut block).await? {
                0 => break,
                length => received += length as u64,
            }
        }
        stream.shutdown().await?;
        Outcome::Ok(received)
    };
    let (sent, received) = tokio::join!(sending, receiving);
    sent?;
    received
}

fn on_runtime<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Best effort: on a machine with one core the figures are only noisier.
fn pin_to(core: usize) {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &cores) {
        eprintln!("cannot pin a thread to core {core}: {error}");
    }
}

/// Processor time of the calling thread.
fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
