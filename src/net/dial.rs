//! Opening the connection to an upstream: every address of the host, in a race (Happy Eyeballs, RFC 8305), within one
//! deadline that covers the resolution too.
//!
//! The addresses come from the system's resolver in its own order (RFC 6724) and are interleaved by family. An attempt that
//! fails lets the next begin at once; one that is silent lets the next begin beside it after
//! [`DIAL_ATTEMPT_DELAY`]. The first connection wins, and the others are dropped.

use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::resolve::resolve;
use super::stream::tune;
use crate::limits::{DIAL_ADDRESSES_MAX, DIAL_ATTEMPT_DELAY};

/// Why there is no connection. The text is for the operator's log and names every address that was tried.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address, or the resolver failed.
    #[error("cannot resolve {host}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's answer.
        error: io::Error,
    },
    /// Every address refused.
    #[error("cannot connect to {host}: {tried}")]
    Connect {
        /// The name.
        host: String,
        /// What came of each address.
        tried: Tried,
    },
    /// The deadline passed.
    #[error("cannot connect to {host} within {}: {}", crate::span::Span(*within), fmt_progress(tried))]
    TimedOut {
        /// The name.
        host: String,
        /// The whole time allowed.
        within: Duration,
        /// What had come of each address by then; empty while the name was being resolved.
        tried: Tried,
    },
}

/// The addresses that were tried, with the error of each that had one.
#[derive(Debug, Default)]
pub struct Tried(Vec<(SocketAddr, Option<io::Error>)>);

impl Tried {
    /// The addresses, in the order they were tried.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|(address, _)| *address)
    }

    fn on_failed(&mut self, address: SocketAddr, error: io::Error) {
        if let Some((_, outcome)) = self.0.iter_mut().find(|(tried, _)| *tried == address) {
            *outcome = Some(error);
        }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (address, outcome)) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("; ")?;
            }
            match outcome {
                Some(error) => write!(f, "{address}: {error}")?,
                None => write!(f, "{address}: no answer")?,
            }
        }
        Ok(())
    }
}

/// Connects to `host`, a name or an address, on `port`. The connection has no delay for small writes, and keepalive.
/// Cancel-safe: dropping the future closes what it has opened.
///
/// # Errors
/// [`DialError`], after `within` at the latest.
pub async fn dial(host: &str, port: u16, within: Duration) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + within;
    let mut tried = Tried::default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match timeout_at(deadline, resolve_and_race(bare, port, &mut tried)).await {
        Ok(Ok(Some(tcp))) => Ok(tcp),
        Ok(Ok(None)) => Err(DialError::Connect {
            host: host.to_owned(),
            tried,
        }),
        Ok(Err(error)) => Err(DialError::Resolve {
            host: host.to_owned(),
            error,
        }),
        Err(_) => Err(DialError::TimedOut {
            host: host.to_owned(),
            within,
            tried,
        }),
    }
}

/// `Ok(None)` where every address failed, as `tried` then tells; `Err` where the resolver did.
async fn resolve_and_race(host: &str, port: u16, tried: &mut Tried) -> io::Result<Option<TcpStream>> {
    let addresses = interleave(resolve(host, port).await?.into_iter());
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(race(addresses, tried).await)
}

/// The first of `addresses` that accepts. Waits for ever if one is silent and none accepts.
async fn race(addresses: Vec<SocketAddr>, tried: &mut Tried) -> Option<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut next_attempt = Instant::now();
    loop {
        let may_start = waiting.len() > 0;
        tokio::select! {
            biased;
            Some((address, outcome)) = attempts.next() => match outcome {
                Ok(tcp) => return Some(tcp),
                Err(error) => {
                    tried.on_failed(address, error);
                    // RFC 8305 §5: a failure need not wait for the delay.
                    next_attempt = Instant::now();
                }
            },
            () = sleep_until(next_attempt), if may_start => {
                if let Some(address) = waiting.next() {
                    tried.0.push((address, None));
                    attempts.push(attempt(address));
                    next_attempt = Instant::now() + DIAL_ATTEMPT_DELAY;
                }
            }
            else => return None,
        }
    }
}

async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    let outcome = async {
        let tcp = TcpStream::connect(address).await?;
        tune(&tcp)?;
        Ok(tcp)
    };
    (address, outcome.await)
}

/// The families by turns, beginning with the one that the resolver put first (RFC 8305 §4), each address once.
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct: Vec<SocketAddr> = Vec::new();
    for address in addresses {
        if !distinct.contains(&address) && distinct.len() < DIAL_ADDRESSES_MAX {
            distinct.push(address);
        }
    }
    let Some(first) = distinct.first().copied() else {
        return distinct;
    };
    let (same, other): (Vec<_>, Vec<_>) = distinct
        .into_iter()
        .partition(|address| address.is_ipv6() == first.is_ipv6());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [same.next(), other.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

fn fmt_progress(tried: &Tried) -> String {
    let mut text = String::new();
    if tried.0.is_empty() {
        text.push_str("the name was still being resolved");
    } else {
        // Writing to a string cannot fail.
        let _ = write!(text, "{tried}");
    }
    text
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockRef, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    /// An address that never answers: a listener whose queue is full drops what else arrives. Silent while this lives.
    struct BlackHole {
        address: SocketAddr,
        _listener: Socket,
        _queued: Vec<Socket>,
    }

    impl BlackHole {
        fn new() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
            listener.bind(&any.into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let queued = std::iter::repeat_with(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            });
            Self {
                address,
                _queued: queued.take(4).collect(),
                _listener: listener,
            }
        }
    }

    async fn closed_port() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    }

    const WITHIN: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_connection_is_tuned() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tcp = dial("localhost", port, WITHIN).await.unwrap();
        assert!(tcp.nodelay().unwrap() && SockRef::from(&tcp).keepalive().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_by_the_attempt_delay() {
        let silent = BlackHole::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        let begun = Instant::now();
        let mut tried = Tried::default();
        let tcp = race(vec![silent.address, live], &mut tried).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), live);
        assert_eq!(begun.elapsed(), DIAL_ATTEMPT_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusing_address_delays_the_next_by_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap();
        let begun = Instant::now();
        let mut tried = Tried::default();
        let tcp = race(vec![closed_port().await, live], &mut tried).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), live);
        assert!(begun.elapsed() < DIAL_ATTEMPT_DELAY, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn when_every_address_refuses_each_is_told() {
        let closed = closed_port().await;
        let error = dial("[127.0.0.1]", closed.port(), WITHIN).await.unwrap_err();
        let DialError::Connect { tried, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(tried.addresses().collect::<Vec<_>>(), [closed]);
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_deadline() {
        let silent = BlackHole::new();
        let begun = Instant::now();
        let error = dial("127.0.0.1", silent.address.port(), WITHIN).await.unwrap_err();
        assert!(matches!(error, DialError::TimedOut { .. }), "{error}");
        assert!(error.to_string().ends_with("no answer"), "{error}");
        // The timer wheel rounds up to the next millisecond.
        assert!(begun.elapsed() >= WITHIN && begun.elapsed() < WITHIN + Duration::from_millis(5));
    }

    #[tokio::test]
    async fn a_name_without_address_is_told_as_such() {
        // RFC 6761 §6.4: `invalid` never exists, and needs no network to know so.
        let error = dial("imap.invalid", 993, Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, DialError::Resolve { .. }), "{error}");
    }

    #[test]
    fn families_take_turns_beginning_with_the_resolvers_first() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (a, b, c) = (address("[::1]:1"), address("[::2]:1"), address("[::3]:1"));
        let (x, y) = (address("10.0.0.1:1"), address("10.0.0.2:1"));
        assert_eq!(interleave([a, b, c, x, a, y].into_iter()), [a, x, b, y, c]);
        assert_eq!(interleave([x, y, a].into_iter()), [x, a, y]);
        assert_eq!(interleave([].into_iter()), []);
        let many = (0..1000).map(|port| SocketAddr::new([127, 0, 0, 1].into(), port));
        assert_eq!(interleave(many).len(), DIAL_ADDRESSES_MAX);
    }
}
