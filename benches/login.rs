//! A whole login through the daemon, TLS on both legs: how much of its processor time one takes, and how long the client
//! waits.
//!
//! The daemon is a child process pinned to one core, mail program and upstream share another. Logins come one after the
//! other, each on a new connection that closes once it is in; the upstream handshakes resume, since all sessions share the
//! provider's TLS configuration. The processor time is the sum over the daemon's threads as the scheduler counts it (the
//! store's among them), and holds everything from accept to the session's end. Full and resumed client handshakes take
//! turns, and the least, median and greatest of the rounds are printed.

#[path = "support/daemon.rs"]
mod daemon;
mod support;

use std::time::Duration;

use daemon::{Daemon, serve_mailbox};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use support::{Identity, Outcome, is_measuring};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const DRIVER_CORE: usize = 0;
const DAEMON_CORE: usize = 1;

/// How the client's handshakes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handshake {
    Full,
    Resumed,
}

/// What a round of logins gave.
struct Round {
    handshake: Handshake,
    cpu: Duration,
    /// From the first SYN and from the credentials, each sorted.
    waits: [Vec<Duration>; 2],
}

fn main() -> Outcome<()> {
    pin(None, DRIVER_CORE);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(measure())
}

async fn measure() -> Outcome<()> {
    let (rounds, logins) = if is_measuring() { (5, 2000) } else { (1, 5) };
    let directory = tempfile::tempdir()?;
    let identity = Identity::issue(directory.path())?;
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let upstream_port = upstream.local_addr()?.port();
    let _serving = tokio::spawn(serve_mailbox(upstream, identity.server()?, 0));
    let daemon = Daemon::start(directory.path(), upstream_port, true).await?;
    pin_all_threads(daemon.id(), DAEMON_CORE)?;

    let mut done = Vec::new();
    for _ in 0..rounds {
        for handshake in [Handshake::Full, Handshake::Resumed] {
            done.push(play(&daemon, &identity, handshake, logins).await?);
        }
    }
    println!("{rounds} rounds of {logins} logins in µs: least, median, greatest of the rounds");
    for (handshake, name) in [(Handshake::Full, "full"), (Handshake::Resumed, "resumed")] {
        let of_rounds = |figure: &dyn Fn(&Round) -> Duration| {
            let mut figures: Vec<_> = done
                .iter()
                .filter(|round| round.handshake == handshake)
                .map(figure)
                .collect();
            figures.sort();
            let at = |place: usize| figures.get(place).map_or(f64::NAN, |figure| figure.as_secs_f64() * 1e6);
            format!("{:7.0} {:7.0} {:7.0}", at(0), at(rounds / 2), at(rounds - 1))
        };
        println!(
            "{name:8} handshake: CPU per login         {}",
            of_rounds(&|round| round.cpu / logins)
        );
        for (place, what) in [(0, "connect to OK"), (1, "LOGIN to OK")] {
            for percent in [50, 99] {
                let waited = |round: &Round| percentile(round.waits.get(place), percent);
                println!("{name:8} handshake: {what:13} p{percent}       {}", of_rounds(&waited));
            }
        }
    }
    Ok(())
}

/// Logs in so many times, one after the other.
async fn play(daemon: &Daemon, identity: &Identity, handshake: Handshake, logins: u32) -> Outcome<Round> {
    let shared = identity.client()?;
    let mut waits = [Vec::new(), Vec::new()];
    let begun = cpu_time(daemon.id())?;
    for number in 0..logins {
        let fresh = match handshake {
            Handshake::Full => Some(identity.client()?),
            Handshake::Resumed => None,
        };
        let (mut session, waited) = daemon.log_in(fresh.as_ref().unwrap_or(&shared)).await?;
        let is_resumed = session
            .tls_summary()
            .is_some_and(|summary| summary.ends_with("resumed"));
        if is_resumed != (handshake == Handshake::Resumed && number > 0) {
            return Err("a handshake was not of the kind that is measured".into());
        }
        for (all, one) in waits.iter_mut().zip(waited) {
            all.push(one);
        }
        session.shutdown().await?;
        // The daemon's end of it: what a session costs is then all spent.
        while session.read(&mut [0; 64]).await? > 0 {}
    }
    let cpu = cpu_time(daemon.id())?.saturating_sub(begun);
    waits.iter_mut().for_each(|waits| waits.sort());
    Ok(Round { handshake, cpu, waits })
}

fn percentile(sorted: Option<&Vec<Duration>>, percent: usize) -> Duration {
    sorted
        .and_then(|sorted| sorted.get(sorted.len() * percent / 100))
        .copied()
        .unwrap_or_default()
}

/// Processor time of all threads of a process, in nanoseconds as the scheduler counts them.
fn cpu_time(process: u32) -> Outcome<Duration> {
    let mut nanoseconds = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn pin_all_threads(process: u32, core: usize) -> Outcome<()> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let id = thread?.file_name().to_string_lossy().parse()?;
        pin(Pid::from_raw(id), core);
    }
    Ok(())
}

/// Best effort: on a machine with one core the figures are only noisier.
fn pin(thread: Option<Pid>, core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    if let Err(error) = sched_setaffinity(thread, &cores) {
        eprintln!("cannot pin a thread to core {core}: {error}");
    }
}
