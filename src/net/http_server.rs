//! One HTTP/1.1 connection, with bounds on all that its client could stretch.
//!
//! Who may connect, what is served, and how long a request may take is its caller's to say; here is what the admin API and
//! the public side do alike. hyper's server is named in this file alone.

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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::clock;

/// What a client may stretch, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of a request's line and header; at least 8192.
    pub header_bytes_max: usize,
    /// How long a client may take to send a request's header, and so how long a connection may be idle between two.
    pub header_timeout: Duration,
    /// Whether a second request may follow.
    pub reuse: Reuse,
}

/// Whether a connection is good for more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// As many as the client likes.
    Always,
    /// It is closed behind the first answer, so that nobody can hold it.
    Never,
}

/// Serves `router` on `stream` until the client leaves, or until `shutdown` becomes true (or its sender is gone) and the
/// request in progress is answered. Dropping the future closes the connection and, with it, a request in progress.
pub async fn serve_connection<S>(stream: S, router: Router, bounds: Bounds, mut shutdown: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = router.layer(from_fn(require_host));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(bounds.header_bytes_max)
        .keep_alive(bounds.reuse == Reuse::Always)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an HTTP connection ended early");
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

    /// What comes back for `request`, up to the end of the connection or of the header.
    async fn answer(request: &str) -> String {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (_stop, stopped) = watch::channel(false);
        let bounds = Bounds {
            header_bytes_max: 8192,
            header_timeout: Duration::from_secs(20),
            reuse: Reuse::Never,
        };
        let router = Router::new().route("/", get(|| async { "here" }));
        let serving = serve_connection(server, router, bounds, stopped);
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
