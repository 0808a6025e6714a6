//! Listening sockets: bind each address on its own, accept, admit, hand over.
//!
//! ```text
//! accept ──> a place among all sessions ──────────────────────────> the client's own share ──> Arrival
//!              (or a stranger's, in the end)
//!                     └── from a trusted load balancer: a task, ── PROXY header ──┘
//! ```
//! [`bind`] makes the sockets, [`accept_until`] runs one of them. The loop never ends by itself: what an accept call can
//! report is either one connection's trouble, which is skipped, or a shortage, on which the loop rests for
//! [`ACCEPT_REST`] instead of spinning. It hands every connection to a callback that must not block, so that a slow session
//! cannot hold up the next client; for the same reason a PROXY header is waited for in a task of its own, which holds the
//! socket and a place among the sessions, and ends with the loop.

use std::io;
use std::net::SocketAddr;

use ipnet::IpNet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::admission::{Admission, Permit, Refusal, RefusalPermit, Reservation};
use super::complaints::Complaints;
use super::proxy_protocol::{self, HeaderError, Source};
use super::stream::tune;
use crate::clock;
use crate::limits::{ACCEPT_REST, LISTEN_BACKLOG};

/// What became of a connection that was accepted.
#[derive(Debug)]
pub enum Arrival {
    /// It may become a session.
    Admitted(Admitted),
    /// It may not, and can be told so.
    Refused(Refused),
    /// It may not, and too many are being told so already: it has been closed. To be counted.
    Dropped {
        /// Which limit is reached.
        refusal: Refusal,
        /// The client.
        remote: SocketAddr,
    },
    /// A trusted load balancer did not say whom it speaks for: it has been closed. To be counted.
    Unannounced {
        /// What was wrong.
        error: HeaderError,
        /// The load balancer.
        peer: SocketAddr,
    },
}

/// A connection that counts as a session from now on.
#[derive(Debug)]
pub struct Admitted {
    /// The connection, with no delay for small writes, and keepalive.
    pub tcp: TcpStream,
    /// The client, an IPv4-mapped address already made IPv4: the peer, or whom it speaks for.
    pub remote: SocketAddr,
    /// The load balancer that speaks for the client.
    pub balancer: Option<SocketAddr>,
    /// Our end.
    pub local: SocketAddr,
    /// When it was accepted, which may be some seconds before its PROXY header had come.
    pub accepted_at: std::time::Instant,
    /// Must live as long as the session.
    pub permit: Permit,
    /// Whose place this one has, by the name that [`Permit::is_stranger`] gave it: it must be told to go.
    pub displaced: Option<u64>,
}

/// A connection over a limit.
#[derive(Debug)]
pub struct Refused {
    /// The connection. Say why with [`super::stream::Stream::part`], or drop it.
    pub tcp: TcpStream,
    /// Which limit is reached.
    pub refusal: Refusal,
    /// The client, as in [`Admitted`].
    pub remote: SocketAddr,
    /// Must live as long as `tcp`.
    pub permit: RefusalPermit,
}

/// Sockets that listen, each with its real address (port 0 is resolved).
#[derive(Debug)]
pub struct Bound {
    /// One for each address that this machine has.
    pub sockets: Vec<(SocketAddr, TcpListener)>,
    /// Addresses that this machine does not have, for a warning.
    pub missing: Vec<BindError>,
}

/// Why an address cannot be listened on. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}{}", remedy(error))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The system's answer.
    pub error: io::Error,
}

/// Listens on every one of `addresses`. An address or a whole family that the machine lacks is left out, as long as one
/// remains: `["127.0.0.1:993", "[::1]:993"]` is right on a machine without IPv6.
///
/// # Errors
/// If an address is there but cannot be had (in use, not permitted), or none is there.
pub fn bind(addresses: &[SocketAddr]) -> Result<Bound, BindError> {
    let mut bound = Bound {
        sockets: Vec::new(),
        missing: Vec::new(),
    };
    for &address in addresses {
        match listen(address).and_then(|socket| Ok((socket.local_addr()?, socket))) {
            Ok(socket) => bound.sockets.push(socket),
            Err(error) if is_missing(&error) => bound.missing.push(BindError { address, error }),
            Err(error) => return Err(BindError { address, error }),
        }
    }
    if bound.sockets.is_empty()
        && let Some(error) = bound.missing.pop()
    {
        return Err(error);
    }
    Ok(bound)
}

/// Accepts on `socket` until `stop` turns true or its sender is gone. Peers within `trusted` must begin with a PROXY header,
/// and what it says of the client counts. `on_arrival` must return in microseconds.
pub async fn accept_until(
    socket: TcpListener,
    admission: Admission,
    trusted: Vec<IpNet>,
    mut stop: watch::Receiver<bool>,
    on_arrival: impl Fn(Arrival) + Clone + Send + 'static,
) {
    let mut complaints = Complaints::default();
    // Ends with this loop, and all that is waited for in it.
    let mut announcing = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            Some(_) = announcing.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        let error = match accepted {
            Ok((tcp, peer)) => {
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let accepted = Accepted {
                    tcp,
                    at: clock::instant(),
                    held: Held::new(&admission),
                };
                if trusted.iter().any(|range| range.contains(&peer.ip())) {
                    if let Held::Refusal(refusal, None) = accepted.held {
                        on_arrival(Arrival::Dropped { refusal, remote: peer });
                        continue;
                    }
                    let (admission, on_arrival) = (admission.clone(), on_arrival.clone());
                    announcing.spawn(async move {
                        deliver(receive_announced(accepted, peer, &admission).await, &on_arrival);
                    });
                } else {
                    deliver(receive(accepted, peer, None, &admission), &on_arrival);
                }
                continue;
            }
            Err(error) => error,
        };
        if is_of_one_connection(&error) {
            tracing::debug!(%error, "a client left before it was accepted");
            continue;
        }
        if let Some(unsaid) = complaints.may_say(Instant::now()) {
            tracing::error!(
                %error,
                unsaid,
                "cannot accept connections for now (raise the limit on open files, or lower limits.sessions_max)"
            );
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(ACCEPT_REST) => {}
        }
    }
}

/// A connection of which nothing is decided yet.
struct Accepted {
    tcp: TcpStream,
    at: std::time::Instant,
    held: Held,
}

/// What is held for a connection from the moment it is accepted, so that only so many can wait for anything.
enum Held {
    /// A place among the sessions.
    Place(Reservation),
    /// There was none that was free; the right to say so, unless too many are being told.
    Refusal(Refusal, Option<RefusalPermit>),
}

impl Held {
    /// Takes whichever can be had.
    fn new(admission: &Admission) -> Self {
        match admission.reserve() {
            Ok(reservation) => Self::Place(reservation),
            Err(refusal) => Self::Refusal(refusal, admission.permit_refusal()),
        }
    }
}

/// Hands over what came of a connection, unless it has broken meanwhile.
fn deliver(arrival: io::Result<Arrival>, on_arrival: &impl Fn(Arrival)) {
    match arrival {
        Ok(arrival) => on_arrival(arrival),
        Err(error) => tracing::debug!(%error, "a client left as it was accepted"),
    }
}

/// Admits or refuses one connection whose client is known.
fn receive(
    accepted: Accepted,
    remote: SocketAddr,
    balancer: Option<SocketAddr>,
    admission: &Admission,
) -> io::Result<Arrival> {
    let Accepted { tcp, at, held } = accepted;
    // Whoever has broken by now must not cost another its place.
    tune(&tcp)?;
    let local = tcp.local_addr()?;
    let admitted = match held {
        Held::Place(reservation) => match reservation.admit(remote.ip()) {
            Ok(permit) => Ok((permit, None)),
            Err(refusal) => Err((refusal, admission.permit_refusal())),
        },
        Held::Refusal(_, permit) => admission.displace(remote.ip()).map_err(|refusal| (refusal, permit)),
    };
    Ok(match admitted {
        Ok((permit, displaced)) => Arrival::Admitted(Admitted {
            tcp,
            remote,
            balancer,
            local,
            accepted_at: at,
            permit,
            displaced,
        }),
        Err((refusal, Some(permit))) => Arrival::Refused(Refused {
            tcp,
            refusal,
            remote,
            permit,
        }),
        Err((refusal, None)) => Arrival::Dropped { refusal, remote },
    })
}

/// The same for a connection of a load balancer, which says first whom it speaks for. One that is to be refused is heard
/// too: what it is told must come behind the header, and may have to be told in TLS.
async fn receive_announced(mut accepted: Accepted, peer: SocketAddr, admission: &Admission) -> io::Result<Arrival> {
    match proxy_protocol::receive(&mut accepted.tcp).await {
        Ok(Source::Client(remote)) => receive(accepted, remote, Some(peer), admission),
        Ok(Source::Peer) => receive(accepted, peer, None, admission),
        Err(error) => Ok(Arrival::Unannounced { error, peer }),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a process before this one, still in TIME_WAIT, must not keep the port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Each address stands for itself: `[::]` beside `0.0.0.0` would else be in use.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether the machine simply has no such address or family.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Whether only the connection that was to be accepted is in trouble, and the next may be tried at once (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Interrupted
    )
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: `ss -ltnp` shows which)",
        io::ErrorKind::PermissionDenied => {
            " (a port below 1024 needs CAP_NET_BIND_SERVICE, as the systemd unit gives, or another port)"
        }
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
