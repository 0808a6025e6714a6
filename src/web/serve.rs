//! The public side's socket: opening it, accepting, and the life of a connection.
//!
//! A connection is good for one request, and everything about it is bounded in time, so that it cannot be held: the
//! handshake, the header, the body, the request, an answer that is not read, and the whole. Connections are counted in all and, where the client is not
//! a trusted proxy, for each address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::{Extension, Router};
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::port::ConsentPort;
use super::routes::{Peer, Public, router};
use crate::config;
use crate::limits::{
    CLOSE_DRAIN, HTTP_WRITE_TIMEOUT, WEB_CONNECTION_LIFE, WEB_CONNECTIONS_MAX, WEB_CONNECTIONS_PER_IP_MAX,
    WEB_HEADER_BYTES_MAX, WEB_INPUT_TIMEOUT, WEB_STOP_GRACE,
};
use crate::net::admission::{Admission, AdmissionLimits};
use crate::net::http_server::{Bounds, Reuse, Shares, serve_connection};
use crate::net::listener::{self, Admitted, Arrival, accept_until};
use crate::net::tls::ServerTls;

/// The public side's socket, open but not yet served.
#[derive(Debug)]
pub struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTls>,
    public_url: Url,
    trusted_proxies: Vec<IpNet>,
}

/// Why `web.listen` cannot be listened on. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("web.listen: {0}")]
pub struct BindError(#[from] listener::BindError);

impl Bound {
    /// Opens `web.listen`, to be served with `tls` or, without it, in clear. `None` where the public side is turned off.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn open(settings: &config::Web, tls: Option<ServerTls>) -> Result<Option<Self>, BindError> {
        let (Some(listen), Some(public_url)) = (settings.listen, settings.public_url.clone()) else {
            return Ok(None);
        };
        let bound = listener::bind(&[listen])?;
        Ok(bound.sockets.into_iter().next().map(|(address, socket)| Self {
            socket,
            address,
            tls,
            public_url,
            trusted_proxies: settings.trusted_proxies.clone(),
        }))
    }

    /// Where; a port of 0 has become a real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether TLS is spoken here.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// How browsers reach it.
    pub fn public_url(&self) -> &Url {
        &self.public_url
    }
}

/// Serves until `stop` becomes true (or its sender is gone); then lets consents in progress go on for [`WEB_STOP_GRACE`].
pub async fn serve(bound: Bound, consent: Arc<dyn ConsentPort>, stop: watch::Receiver<bool>) {
    let Bound {
        socket,
        tls,
        public_url,
        trusted_proxies,
        ..
    } = bound;
    let public = Arc::new(Public::new(&public_url, trusted_proxies.clone(), consent));
    let door = Door {
        tls,
        router: router(Arc::clone(&public)),
        shares: Shares::new(
            "the public side",
            AdmissionLimits {
                sessions_max: WEB_CONNECTIONS_MAX,
                sessions_per_ip_max: WEB_CONNECTIONS_PER_IP_MAX,
                strangers_max: WEB_CONNECTIONS_MAX,
            },
            trusted_proxies,
        ),
        stop: stop.clone(),
    };
    // What waits in the channel has been admitted, so it is bounded as the connections are.
    let (arrive, mut arrived) = mpsc::unbounded_channel();
    let everybody = Admission::new(AdmissionLimits {
        sessions_max: WEB_CONNECTIONS_MAX,
        sessions_per_ip_max: WEB_CONNECTIONS_MAX,
        strangers_max: WEB_CONNECTIONS_MAX,
    });
    let mut accepting = std::pin::pin!(accept_until(socket, everybody, Vec::new(), stop, move |arrival| {
        // The receiver is gone at the end only.
        let _ = arrive.send(arrival);
    }));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut accepting => break,
            Some(_) = connections.join_next() => {}
            Some(arrival) = arrived.recv() => {
                if let Arrival::Admitted(admitted) = arrival {
                    connections.spawn(door.clone().receive(admitted));
                } else {
                    tracing::debug!("a connection to the public side is refused: there are too many");
                }
            }
        }
    }
    let deadline = Instant::now() + WEB_STOP_GRACE;
    let _ = timeout_at(deadline, public.idle()).await;
    // Answers are on their way by now. Whoever is still sending a request is cut when the set is dropped.
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(CLOSE_DRAIN, ended).await;
    // One may have been completed just before that.
    let _ = timeout_at(deadline, public.idle()).await;
}

/// What every connection comes through.
#[derive(Clone)]
struct Door {
    tls: Option<ServerTls>,
    router: Router,
    shares: Shares,
    stop: watch::Receiver<bool>,
}

impl Door {
    /// One connection, from its beginning to its end.
    async fn receive(self, admitted: Admitted) {
        let peer = admitted.remote.ip();
        let Ok(_share) = self.shares.take(peer) else { return };
        let Admitted { tcp, permit, .. } = admitted;
        let _permit = permit;
        let stream = match &self.tls {
            Some(tls) => match tls.accept(tcp, WEB_INPUT_TIMEOUT).await {
                Ok(stream) => stream,
                Err(error) => return tracing::debug!(%peer, %error, "a browser failed the TLS handshake"),
            },
            None if self.is_near(peer) => tcp.into(),
            // Links and codes would go in clear past the proxy that is there for TLS.
            None => return tracing::debug!(%peer, "a browser came in clear, and not by a trusted proxy"),
        };
        let router = self.router.layer(Extension(Peer(peer)));
        Box::pin(serve_connection(stream, router, BOUNDS, self.stop)).await;
    }

    /// Whether `peer` may speak in clear: on this machine, or as a trusted proxy.
    fn is_near(&self, peer: IpAddr) -> bool {
        peer.is_loopback() || self.shares.is_uncounted(peer)
    }
}

const BOUNDS: Bounds = Bounds {
    header_bytes_max: WEB_HEADER_BYTES_MAX,
    header_timeout: WEB_INPUT_TIMEOUT,
    write_timeout: HTTP_WRITE_TIMEOUT,
    reuse: Reuse::Never,
    life: WEB_CONNECTION_LIFE,
};
