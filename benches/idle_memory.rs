//! Memory of an idle relayed session, TLS on both legs.
//!
//! Twice: of the relay alone, in a child process that accepts, dials and relays, and nothing else; and of the daemon, where
//! a session is also an actor, an entry in registers and a place in its account. This process is mail program and upstream.
//! The figure is the slope of the child's resident set between session counts, so that what it needs once does not count;
//! first with sessions that have logged in, then with sessions that have each fetched 40 KB besides.

#[path = "support/daemon.rs"]
mod daemon;
mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use daemon::Daemon;
use portreeve::net::relay::{Relay, Traffic};
use portreeve::net::stream::Stream;
use portreeve::net::tls::{ServerTls, UpstreamTls};
use portreeve::proto::dialogue::Boundaries;
use support::{Identity, Outcome, accept, connect, is_measuring};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// First argument of the child.
const AS_PROXY: &str = "--as-proxy";

const GREETING: &[u8] = b"* OK ready\r\n";
const FETCH: &[u8] = b"A FETCH\r\n";
const FETCHED_BYTES: usize = 40_000;

fn main() -> Outcome<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(AS_PROXY) {
        let directory = PathBuf::from(arguments.next().ok_or("the directory is missing")?);
        let upstream_port = arguments.next().ok_or("the port is missing")?.parse()?;
        return runtime.block_on(run_proxy(&directory, upstream_port));
    }
    let counts = if is_measuring() { [500, 1500] } else { [5, 15] };
    println!("resident KB per idle session, TLS on both legs, between {counts:?} sessions");
    for (after, fetched) in [("login", 0), ("40 KB each", FETCHED_BYTES)] {
        println!(
            "relay alone, after {after:10} {:5.1}",
            runtime.block_on(measure(counts, fetched))?
        );
        println!(
            "daemon, after {after:15} {:5.1}",
            runtime.block_on(measure_daemon(counts, fetched))?
        );
    }
    Ok(())
}

/// As [`measure`], of the daemon.
async fn measure_daemon(counts: [usize; 2], fetched: usize) -> Outcome<f64> {
    let directory = tempfile::tempdir()?;
    let identity = Identity::issue(directory.path())?;
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let upstream_port = upstream.local_addr()?.port();
    let _serving = tokio::spawn(daemon::serve_mailbox(upstream, identity.server()?, FETCHED_BYTES));
    let daemon = Daemon::start(directory.path(), upstream_port, false).await?;
    let tls = identity.client()?;

    let mut sessions = Vec::new();
    let mut sizes = [0.0; 2];
    for (count, size) in counts.into_iter().zip(&mut sizes) {
        while sessions.len() < count {
            let (mut session, _) = daemon.log_in(&tls).await?;
            if fetched > 0 {
                session.write_all(FETCH).await?;
                session.flush().await?;
                session.read_exact(&mut vec![0; fetched]).await?;
            }
            sessions.push(session);
        }
        *size = resident_kb(daemon.id())?;
    }
    Ok(slope(counts, sizes))
}

/// Opens sessions up to each of `counts` and tells the slope in KB per session.
async fn measure(counts: [usize; 2], fetched: usize) -> Outcome<f64> {
    let directory = tempfile::tempdir()?;
    let identity = Identity::issue(directory.path())?;
    let upstream = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = Proxy::start(directory.path(), upstream.local_addr()?.port())?;
    let _serving = tokio::spawn(serve_upstream(upstream, identity.server()?));
    let tls = identity.client()?;

    let mut sessions = Vec::new();
    let mut sizes = [0.0; 2];
    for (count, size) in counts.into_iter().zip(&mut sizes) {
        while sessions.len() < count {
            sessions.push(log_in(&tls, proxy.port, fetched).await?);
        }
        *size = resident_kb(proxy.child.id())?;
    }
    Ok(slope(counts, sizes))
}

fn slope([fewer, more]: [usize; 2], [before, after]: [f64; 2]) -> f64 {
    (after - before) / (more - fewer) as f64
}

fn resident_kb(process: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.split_whitespace().next());
    Ok(kilobytes.ok_or("no VmRSS")?.parse()?)
}

/// The mail program: connects, hears the greeting, and fetches.
async fn log_in(tls: &UpstreamTls, port: u16, fetched: usize) -> Outcome<Stream> {
    let mut session = connect(Some(tls), port).await?;
    session.read_exact(&mut [0; GREETING.len()]).await?;
    if fetched > 0 {
        session.write_all(FETCH).await?;
        session.flush().await?;
        session.read_exact(&mut vec![0; fetched]).await?;
    }
    Ok(session)
}

/// The upstream: greets, and answers every command with a mail.
async fn serve_upstream(listener: TcpListener, tls: ServerTls) -> Outcome<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        let tls = tls.clone();
        tokio::spawn(async move {
            let mut stream = accept(Some(&tls), tcp).await?;
            stream.write_all(GREETING).await?;
            stream.flush().await?;
            let mut command = [0; FETCH.len()];
            while stream.read_exact(&mut command).await.is_ok() {
                stream.write_all(&[b'x'; FETCHED_BYTES]).await?;
                stream.flush().await?;
            }
            Outcome::Ok(())
        });
    }
}

/// The child process; killed when dropped.
struct Proxy {
    child: Child,
    port: u16,
}

impl Proxy {
    fn start(directory: &Path, upstream_port: u16) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(AS_PROXY)
            .arg(directory)
            .arg(upstream_port.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().ok_or("the child has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().parse()?;
        Ok(Self { child, port })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // A child that has ended by itself needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn run_proxy(directory: &Path, upstream_port: u16) -> Outcome<()> {
    let identity = Identity::in_directory(directory);
    let (server, client) = (identity.server()?, identity.client()?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (tcp, _) = listener.accept().await?;
        tokio::spawn(set_up(tcp, server.clone(), client.clone(), upstream_port));
    }
}

/// As in the daemon, the relay is a task of its own, so that what was needed to set it up is gone when it idles.
async fn set_up(tcp: TcpStream, server: ServerTls, client: UpstreamTls, upstream_port: u16) -> Outcome<()> {
    let client_leg = accept(Some(&server), tcp).await?;
    let upstream_leg = connect(Some(&client), upstream_port).await?;
    tokio::spawn(async move {
        let (_goodbye, hears_goodbye) = oneshot::channel();
        Relay::new(
            client_leg,
            upstream_leg,
            Bytes::new(),
            Bytes::new(),
            Box::new(Unwatched),
            Arc::new(Traffic::default()),
            hears_goodbye,
        )
        .await
    });
    Ok(())
}

struct Unwatched;

impl Boundaries for Unwatched {
    fn watch_client(&mut self, _bytes: &[u8]) {}
    fn watch_upstream(&mut self, _bytes: &[u8]) {}
    fn at_boundary(&self) -> bool {
        false
    }
}
