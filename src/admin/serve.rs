//! The sockets of the admin API and of the metrics: opening them, accepting, and the life of a connection.
//!
//! Opening is apart from serving, so that a daemon learns of a taken address before it says that it is ready.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::{Extension, Router};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::auth::Peer;
use super::routes;
use super::socket::{BindError, BoundSocket};
use super::state::AdminState;
use crate::config::Config;
use crate::limits::{
    ACCEPT_REST, ADMIN_CONNECTION_LIFE, ADMIN_CONNECTION_REUSE, ADMIN_CONNECTIONS_MAX, ADMIN_CONNECTIONS_PER_IP_MAX,
    ADMIN_HEADER_TIMEOUT, ADMIN_STOP_GRACE, HTTP_WRITE_TIMEOUT, METRICS_UPKEEP_INTERVAL,
};
use crate::metrics::render::Exposition;
use crate::net::admission::AdmissionLimits;
use crate::net::http_server::{Bounds, Reuse, Shares, serve_connection, stopped};

/// The opened sockets of the admin API and of the metrics.
#[derive(Debug)]
pub struct Sockets {
    unix: BoundSocket,
    tcp: Vec<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Sockets {
    /// Opens `admin.socket`, `admin.listen` and `metrics.listen`.
    ///
    /// # Errors
    /// The first that cannot be opened, by its name, with what to do about it.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let unix = BoundSocket::bind(&config.admin.socket, config.admin.socket_mode)?;
        let mut tcp = Vec::with_capacity(config.admin.listen.len());
        for address in &config.admin.listen {
            tcp.push(bind_tcp(*address).await?);
        }
        let metrics = match config.metrics_listen {
            Some(address) => Some(bind_tcp(address).await?),
            None => None,
        };
        Ok(Self { unix, tcp, metrics })
    }

    /// The addresses of `admin.listen` as bound: a port of 0 has become a real one.
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// The address of `metrics.listen` as bound.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|socket| socket.local_addr().ok())
    }
}

/// Serves the admin API and the metrics until `shutdown` becomes true (or its sender is gone); then lets requests in
/// progress go on for [`ADMIN_STOP_GRACE`] and removes the Unix socket's file.
///
/// Also folds the metrics at intervals, whether or not anybody scrapes them.
pub async fn serve(state: Arc<AdminState>, sockets: Sockets, shutdown: watch::Receiver<bool>) {
    let Sockets { unix, tcp, metrics } = sockets;
    let api = routes::admin(Arc::clone(&state));
    let mut loops = JoinSet::new();
    loops.spawn(upkeep(state.metrics.clone(), shutdown.clone()));
    loops.spawn(serve_unix(unix, api.clone(), shutdown.clone()));
    for listener in tcp {
        loops.spawn(accept_loop("the admin API", listener, api.clone(), shutdown.clone()));
    }
    if let Some(listener) = metrics {
        loops.spawn(accept_loop(
            "the metrics",
            listener,
            routes::metrics_only(state),
            shutdown,
        ));
    }
    while loops.join_next().await.is_some() {}
}

/// Keeps the socket's file for as long as it is served.
async fn serve_unix(socket: BoundSocket, router: Router, shutdown: watch::Receiver<bool>) {
    accept_loop("the admin API", &socket.listener, router, shutdown).await;
}

/// A socket that can be accepted from.
trait Listen: Send + Sync {
    /// Its connections.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection and who is at its other end. Cancel-safe.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Peer)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, Peer::Tcp(address)))
    }
}

impl Listen for &UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.accept().await?;
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        Ok((stream, Peer::Unix { uid }))
    }
}

/// Serves `side`, which is named so in the log.
async fn accept_loop<L: Listen>(side: &'static str, listener: L, router: Router, mut shutdown: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let limits = AdmissionLimits {
        sessions_max: ADMIN_CONNECTIONS_MAX,
        sessions_per_ip_max: ADMIN_CONNECTIONS_PER_IP_MAX,
        strangers_max: ADMIN_CONNECTIONS_MAX,
    };
    let shares = Shares::new(side, limits, Vec::new());
    let mut connections = JoinSet::new();
    let stopping = shutdown.clone();
    let accept = async || {
        let permit = Arc::clone(&permits).acquire_owned().await;
        (permit, listener.next().await)
    };
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accept() => match accepted {
                Ok((stream, peer)) => {
                    let share = match peer {
                        Peer::Tcp(address) => shares.take(address.ip()).map(Some),
                        // Whoever may open the Unix socket may do everything.
                        Peer::Unix { .. } => Ok(None),
                    };
                    let Ok(share) = share else { continue };
                    let router = router.clone().layer(Extension(peer));
                    let connection = serve_connection(stream, router, BOUNDS, stopping.clone());
                    connections.spawn(async move {
                        let _counted = (permit, share);
                        connection.await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    sleep(ACCEPT_REST).await;
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // What has not ended by then is cut when the set is dropped.
    let _ = timeout(ADMIN_STOP_GRACE, ended).await;
}

/// Folds the metrics at intervals.
async fn upkeep(metrics: Exposition, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = interval(METRICS_UPKEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut shutdown) => return,
            _ = ticks.tick() => metrics.upkeep(),
        }
    }
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| BindError::System {
        place: address.to_string(),
        error,
    })
}

/// Callers are the administrator's own: what they need is generous, and a client that asks often may stay.
const BOUNDS: Bounds = Bounds {
    header_bytes_max: 64 * 1024,
    header_timeout: ADMIN_HEADER_TIMEOUT,
    write_timeout: HTTP_WRITE_TIMEOUT,
    reuse: Reuse::For(ADMIN_CONNECTION_REUSE),
    life: ADMIN_CONNECTION_LIFE,
};
