//! One HTTP/1.1 connection, with bounds on all that its client could stretch.
//!
//! What is served, and how long a request may take is its caller's to say; here is what the admin API, the metrics and the
//! public side do alike. Nobody who does not read, or does not leave, holds others up: an answer that is not read ends its
//! connection, every connection has an end, and an address has its share of them. hyper's server is named in this file alone.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutWriter;

use super::admission::{Admission, AdmissionLimits, Permit, Refusal, client_of};
use super::complaints::KeyedComplaints;
use crate::clock;

/// What a client may stretch, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a request's line and header; at least 8192.
    pub header_bytes_max: usize,
    /// How long a client may take to send a request's header, and so how long a connection may be idle between two.
    pub header_timeout: Duration,
    /// How long a client may read nothing of an answer.
    pub write_timeout: Duration,
    /// Whether a second request may follow.
    pub reuse: Reuse,
    /// How long the connection may last, whatever is in progress.
    pub life: Duration,
}

/// Whether a connection is good for more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// As many as the client likes, until it is this old: the answer that is in progress then is the last.
    For(Duration),
    /// It is closed behind the first answer, so that nobody can hold it.
    Never,
}

/// Serves `router` on `stream` until the client leaves, reads nothing or has stayed for its time, or until `shutdown` becomes
/// true (or its sender is gone) and the request in progress is answered. Dropping the future closes the connection and, with
/// it, a request in progress.
pub async fn serve_connection<S>(stream: S, router: Router, bounds: Bounds, mut shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(from_fn(require_host));
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(bounds.write_timeout));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(bounds.header_bytes_max)
        .keep_alive(bounds.reuse != Reuse::Never)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router));
    let life = async {
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => return outcome,
            () = stopped(&mut shutdown) => {}
            () = outworn(bounds.reuse) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    match timeout(bounds.life, life).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP connection is cut: it took too long"),
    }
}

/// Waits until no further request may begin on a connection that begins now.
async fn outworn(reuse: Reuse) {
    match reuse {
        Reuse::For(time) => sleep(time).await,
        Reuse::Never => std::future::pending().await,
    }
}

/// The connections of each client address to one socket, clones counted together.
#[derive(Debug, Clone)]
pub struct Shares {
    side: &'static str,
    uncounted: Vec<IpNet>,
    counted: Admission,
    complaints: Arc<Mutex<KeyedComplaints<IpAddr>>>,
}

/// One connection of its client's share, until it is dropped.
#[derive(Debug)]
pub struct Share {
    _permit: Option<Permit>,
}

impl Shares {
    /// The shares in the connections to `side`, which is named so in the log. Peers in `uncounted` bring other people's
    /// connections, and are not counted.
    pub fn new(side: &'static str, limits: AdmissionLimits, uncounted: Vec<IpNet>) -> Self {
        Self {
            side,
            uncounted,
            counted: Admission::new(limits),
            complaints: Arc::default(),
        }
    }

    /// Whether the connections of `peer` are not counted.
    pub fn is_uncounted(&self, peer: IpAddr) -> bool {
        self.uncounted.iter().any(|range| range.contains(&peer))
    }

    /// Takes a connection of `peer` out of its share. That there is none is logged here, once in a while for each client.
    ///
    /// # Errors
    /// Which limit is reached; the connection is to be closed.
    pub fn take(&self, peer: IpAddr) -> Result<Share, Refusal> {
        let peer = peer.to_canonical();
        if self.is_uncounted(peer) {
            return Ok(Share { _permit: None });
        }
        let permit = self.counted.reserve().and_then(|place| place.admit(peer));
        permit
            .map(|permit| Share { _permit: Some(permit) })
            .inspect_err(|refusal| {
                let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(unsaid) = complaints.may_say(client_of(peer), tokio::time::Instant::now()) {
                    let reason = refusal.label();
                    tracing::warn!(%peer, reason, unsaid, "a connection to {} is refused", self.side);
                }
            })
    }
}

/// Refuses a request that does not say which host it is for, or says it twice, before any route sees it: two readers of it may
/// take it for two different hosts' (RFC 9112 §3.2). hyper leaves that to whoever uses it.
async fn require_host(request: Request, next: Next) -> Response {
    match host_problem(request.version(), request.headers()) {
        None => next.run(request).await,
        Some(problem) => {
            let close = [(header::CONNECTION, HeaderValue::from_static("close"))];
            (StatusCode::BAD_REQUEST, close, format!("{problem}\n")).into_response()
        }
    }
}

/// What is wrong with a request's `Host`. HTTP/1.0 has none; and what has no authority, such as a path on a Unix socket, may
/// leave it empty (RFC 9110 §7.2).
fn host_problem(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut given = headers.get_all(header::HOST).iter();
    let host = match (given.next(), given.next()) {
        (None, _) if version < Version::HTTP_11 => return None,
        (None, _) => return Some("an HTTP/1.1 request needs a Host"),
        (Some(_), Some(_)) => return Some("a request may have one Host only"),
        (Some(host), None) => host.as_bytes(),
    };
    let is_host = host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok());
    (!is_host).then_some("the Host is no host")
}

/// Waits until `shutdown` is true.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say so: that is a stop, too.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// A request's route for the log: its template, because the path itself may hold a token.
pub fn route_of(request: &Request) -> String {
    request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unknown route".to_owned(), |path| path.as_str().to_owned())
}

/// Logs what became of a request to `side`: trouble of ours aloud, what changed something in its turn, the rest quietly.
pub fn log_outcome(side: &str, method: &Method, route: &str, status: StatusCode, begun: Instant) {
    let duration_ms = clock::instant().duration_since(begun).as_millis();
    let status = status.as_u16();
    if status >= 500 {
        tracing::warn!(%method, route, status, duration_ms, "{side} request");
    } else if method.is_safe() {
        tracing::debug!(%method, route, status, duration_ms, "{side} request");
    } else {
        tracing::info!(%method, route, status, duration_ms, "{side} request");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const BOUNDS: Bounds = Bounds {
        header_bytes_max: 8192,
        header_timeout: Duration::from_secs(20),
        write_timeout: Duration::from_secs(30),
        reuse: Reuse::Never,
        life: Duration::from_secs(1000),
    };

    /// Serves a client that asks for a large answer, takes the first byte of it and then one each `pace`; returns how many
    /// seconds that goes on.
    async fn seconds_of_reading_at(pace: Duration) -> u64 {
        let (mut client, server) = tokio::io::duplex(1);
        let (_stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "x".repeat(1_000_000) }));
        let begun = tokio::time::Instant::now();
        let reading = async {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            while client.read_u8().await.is_ok() {
                sleep(pace).await;
            }
        };
        let serving = async {
            serve_connection(server, router, BOUNDS, stopped).await;
            begun.elapsed().as_secs()
        };
        tokio::join!(serving, reading).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_answer_is_cut_and_one_that_reads_slowly_is_not_before_its_end() {
        assert_eq!(seconds_of_reading_at(Duration::from_secs(5000)).await, 30);
        assert_eq!(seconds_of_reading_at(Duration::from_secs(29)).await, 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_used_again_and_again_is_closed_after_an_answer_once_it_is_old() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (_stop, stopped) = watch::channel(false);
        let bounds = Bounds {
            reuse: Reuse::For(Duration::from_secs(95)),
            ..BOUNDS
        };
        let slow = async || {
            sleep(Duration::from_secs(10)).await;
            "here"
        };
        let serving = serve_connection(server, Router::new().route("/", get(slow)), bounds, stopped);
        let asking = async {
            let mut text = String::new();
            // One is in progress at 95 s, and is answered at 100 s.
            while client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() {
                let mut buffer = [0; 1024];
                let length = client.read(&mut buffer).await.unwrap();
                if length == 0 {
                    break;
                }
                text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            text
        };
        let (text, ()) = tokio::join!(asking, serving);
        assert_eq!(text.matches("HTTP/1.1 200 ").count(), 10, "{text}");
        assert_eq!(text.matches("connection: close").count(), 1, "{text}");
        assert!(text.ends_with("here"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_long_is_answered_after_the_reuse_has_ended_and_none_outlives_the_connection() {
        for (takes, is_answered) in [(900, true), (1100, false)] {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let (_stop, stopped) = watch::channel(false);
            let bounds = Bounds {
                reuse: Reuse::For(Duration::from_secs(95)),
                ..BOUNDS
            };
            let slow = move || async move {
                sleep(Duration::from_secs(takes)).await;
                "here"
            };
            let serving = serve_connection(server, Router::new().route("/", get(slow)), bounds, stopped);
            let asking = async {
                client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
                let mut text = String::new();
                client.read_to_string(&mut text).await.unwrap();
                text
            };
            let (text, ()) = tokio::join!(asking, serving);
            assert_eq!(text.ends_with("here"), is_answered, "{takes} {text}");
        }
    }

    #[test]
    fn an_address_has_its_share_and_others_have_theirs_unless_it_speaks_for_others() {
        let limits = AdmissionLimits {
            sessions_max: 100,
            sessions_per_ip_max: 2,
            strangers_max: 100,
        };
        let shares = Shares::new("a test", limits, vec!["192.0.2.0/24".parse().unwrap()]);
        let take = |peer: &str| shares.take(peer.parse().unwrap());
        let held = [take("198.51.100.1").unwrap(), take("::ffff:198.51.100.1").unwrap()];
        assert_eq!(take("198.51.100.1").unwrap_err(), Refusal::SessionsPerIpMax);
        assert!(take("198.51.100.2").is_ok());
        drop(held);
        assert!(take("198.51.100.1").is_ok());
        let network = [take("2001:db8::1").unwrap(), take("2001:db8::2").unwrap()];
        assert!(take("2001:db8::3").is_err());
        assert!(take("2001:db8:0:1::1").is_ok());
        drop(network);
        let of_others: Vec<_> = (0..10).map(|_| take("::ffff:192.0.2.1").unwrap()).collect();
        assert_eq!(of_others.len(), 10);
    }

    /// What comes back for `request`, up to the end of the connection or of the header.
    async fn answer(request: &str) -> String {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (_stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(|| async { "here" }));
        let serving = serve_connection(server, router, BOUNDS, stopped);
        let asking = async {
            client.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let (text, ()) = tokio::join!(asking, serving);
        text
    }

    #[tokio::test]
    async fn a_request_names_one_host() {
        for (request, expected) in [
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 "),
            ("GET / HTTP/1.1\r\nHost: [::1]:3000\r\n\r\n", "HTTP/1.1 200 "),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "HTTP/1.1 200 "),
            ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 "),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "HTTP/1.1 400 "),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "HTTP/1.1 400 "),
            ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.0 400 "),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "HTTP/1.1 400 "),
            ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", "HTTP/1.1 400 "),
            ("GET /none HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ] {
            let answer = answer(request).await;
            assert!(answer.starts_with(expected), "{request:?}: {answer}");
            assert_eq!(answer.ends_with("here"), expected.contains("200"), "{answer}");
        }
    }
}
