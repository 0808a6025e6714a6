//! One HTTP/1.1 connection, with bounds on all that its client could stretch.
//!
//! Who may connect, what is served, and how long a request may take is its caller's to say; here is what the admin API and
//! the public side do alike. hyper's server is named in this file alone.

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
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
