//! Listening sockets: bind each address on its own, accept, admit, hand over.
//!
//! [`bind`] makes the sockets, [`accept_until`] runs one of them. The loop never ends by itself: what an accept call can
//! report is either one connection's trouble, which is skipped, or a shortage, on which the loop rests for
//! [`ACCEPT_REST`] instead of spinning. It hands every connection to a callback that must not block, so that a slow session
//! cannot hold up the next client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::admission::{Admission, Permit, Refusal, RefusalPermit};
use super::stream::tune;
use crate::limits::{ACCEPT_LOG_INTERVAL, ACCEPT_REST, LISTEN_BACKLOG};

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
}

/// A connection that counts as a session from now on.
#[derive(Debug)]
pub struct Admitted {
    /// The connection, with no delay for small writes, and keepalive.
    pub tcp: TcpStream,
    /// The client, an IPv4-mapped address already made IPv4.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Must live as long as the session.
    pub permit: Permit,
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

/// Accepts on `socket` until `stop` turns true or its sender is gone. `on_arrival` must return in microseconds.
pub async fn accept_until(
    socket: TcpListener,
    admission: Admission,
    mut stop: watch::Receiver<bool>,
    mut on_arrival: impl FnMut(Arrival),
) {
    let mut complaints = Complaints::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = socket.accept() => accepted,
        };
        let rest = match accepted.and_then(|(tcp, remote)| receive(tcp, remote, &admission)) {
            Ok(arrival) => {
                on_arrival(arrival);
                continue;
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a client left before it was accepted");
                continue;
            }
            Err(error) => complaints.on_shortage(&error, Instant::now()),
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Admits or refuses one connection.
fn receive(tcp: TcpStream, remote: SocketAddr, admission: &Admission) -> io::Result<Arrival> {
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let refusal = match admission.admit(remote.ip()) {
        Ok(permit) => {
            tune(&tcp)?;
            let local = tcp.local_addr()?;
            return Ok(Arrival::Admitted(Admitted {
                tcp,
                remote,
                local,
                permit,
            }));
        }
        Err(refusal) => refusal,
    };
    Ok(match admission.permit_refusal() {
        Some(permit) => Arrival::Refused(Refused {
            tcp,
            refusal,
            remote,
            permit,
        }),
        None => Arrival::Dropped { refusal, remote },
    })
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

/// Keeps a shortage from filling the log.
#[derive(Debug, Default)]
struct Complaints {
    last: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Logs `error`, at most once in [`ACCEPT_LOG_INTERVAL`], and tells how long to rest.
    fn on_shortage(&mut self, error: &io::Error, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now < last + ACCEPT_LOG_INTERVAL) {
            self.unsaid += 1;
        } else {
            tracing::error!(
                %error,
                unsaid = self.unsaid,
                "cannot accept connections for now (raise the limit on open files, or lower limits.sessions_max)"
            );
            self.last = Some(now);
            self.unsaid = 0;
        }
        ACCEPT_REST
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::net::admission::AdmissionLimits;
    use crate::net::stream::Stream;

    struct Running {
        address: SocketAddr,
        arrivals: mpsc::UnboundedReceiver<Arrival>,
        stop: watch::Sender<bool>,
        task: tokio::task::JoinHandle<()>,
    }

    fn run(sessions_max: usize) -> Running {
        let mut bound = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let (address, socket) = bound.sockets.pop().unwrap();
        let admission = Admission::new(AdmissionLimits {
            sessions_max,
            sessions_per_ip_max: 200,
        });
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept_until(socket, admission, stopped, move |arrival| {
            arrived.send(arrival).unwrap();
        }));
        Running {
            address,
            arrivals,
            stop,
            task,
        }
    }

    #[tokio::test]
    async fn a_client_is_admitted_with_both_addresses() {
        let mut running = run(1);
        let client = TcpStream::connect(running.address).await.unwrap();
        let Some(Arrival::Admitted(admitted)) = running.arrivals.recv().await else {
            panic!("not admitted");
        };
        assert_eq!(admitted.remote, client.local_addr().unwrap());
        assert_eq!(admitted.local, running.address);
        assert!(admitted.tcp.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_client_over_the_limit_can_be_told_and_one_after_it_fits_again() {
        let mut running = run(1);
        let _first = TcpStream::connect(running.address).await.unwrap();
        let Some(Arrival::Admitted(first)) = running.arrivals.recv().await else {
            panic!("not admitted");
        };
        let mut second = TcpStream::connect(running.address).await.unwrap();
        let Some(Arrival::Refused(refused)) = running.arrivals.recv().await else {
            panic!("not refused");
        };
        assert_eq!(refused.refusal, Refusal::SessionsMax);
        let hearing = async {
            let mut heard = Vec::new();
            second.read_to_end(&mut heard).await.unwrap();
            drop(second);
            heard
        };
        let telling = Stream::from(refused.tcp).part(b"* BYE [LIMIT]\r\n", Duration::from_secs(10));
        let (heard, ()) = tokio::join!(hearing, telling);
        assert_eq!(heard, b"* BYE [LIMIT]\r\n");

        drop(first);
        let _third = TcpStream::connect(running.address).await.unwrap();
        assert!(matches!(running.arrivals.recv().await, Some(Arrival::Admitted(_))));
    }

    #[tokio::test]
    async fn beyond_the_refusals_that_can_be_told_connections_are_dropped_and_counted() {
        let mut running = run(0);
        let mut held = Vec::new();
        for place in 0..=crate::limits::REFUSALS_MAX {
            let mut client = TcpStream::connect(running.address).await.unwrap();
            match running.arrivals.recv().await.unwrap() {
                Arrival::Refused(refused) => held.push((client, refused)),
                Arrival::Dropped { refusal, .. } => {
                    assert_eq!((place, refusal), (crate::limits::REFUSALS_MAX, Refusal::SessionsMax));
                    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
                    return;
                }
                Arrival::Admitted(_) => panic!("admitted over the limit"),
            }
        }
        panic!("nobody was dropped");
    }

    #[tokio::test]
    async fn a_stopped_listener_closes_its_port() {
        let running = run(1);
        running.stop.send(true).unwrap();
        running.task.await.unwrap();
        let error = TcpStream::connect(running.address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn an_address_the_machine_lacks_is_left_out_and_one_in_use_is_an_error() {
        let lacking: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let bound = bind(&["127.0.0.1:0".parse().unwrap(), lacking]).unwrap();
        assert_eq!((bound.sockets.len(), bound.missing.len()), (1, 1));
        assert!(
            bind(&[lacking])
                .unwrap_err()
                .to_string()
                .contains("does not have that address")
        );

        let (taken, _socket) = &bound.sockets[0];
        let error = bind(&["127.0.0.1:0".parse().unwrap(), *taken]).unwrap_err();
        assert_eq!(error.address, *taken);
        assert!(error.to_string().contains("another program"), "{error}");
    }

    #[tokio::test]
    async fn both_families_share_a_port() {
        let Ok(first) = bind(&["[::]:0".parse().unwrap()]) else {
            // A machine without IPv6 has nothing to show here.
            return;
        };
        let port = first.sockets[0].0.port();
        assert!(bind(&[SocketAddr::new([0, 0, 0, 0].into(), port)]).is_ok());
    }

    #[test]
    fn a_shortage_is_logged_at_most_once_a_second_and_always_rested_on() {
        let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(!is_of_one_connection(&error));
        let mut complaints = Complaints::default();
        let begun = Instant::now();
        for millis in [0, 100, 999] {
            let rest = complaints.on_shortage(&error, begun + Duration::from_millis(millis));
            assert_eq!(rest, ACCEPT_REST);
        }
        assert_eq!((complaints.last, complaints.unsaid), (Some(begun), 2));
        complaints.on_shortage(&error, begun + ACCEPT_LOG_INTERVAL);
        assert_eq!(complaints.unsaid, 0);
    }
}
