//! Over real sockets: who is admitted, as whom, and who is not.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::net::admission::AdmissionLimits;
use crate::net::stream::Stream;

/// More than any test needs but the one that reaches it.
const PER_IP_MAX: usize = 80;

struct Running {
    address: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    admission: Admission,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

/// A listener for everybody.
fn run(sessions_max: usize) -> Running {
    run_trusting(sessions_max, &[])
}

/// One that believes the PROXY headers of some.
fn run_trusting(sessions_max: usize, trusted: &[&str]) -> Running {
    let trusted = trusted.iter().map(|range| range.parse().unwrap()).collect();
    let mut bound = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let (address, socket) = bound.sockets.pop().unwrap();
    let admission = Admission::new(AdmissionLimits {
        sessions_max,
        sessions_per_ip_max: PER_IP_MAX,
        strangers_max: sessions_max,
    });
    let counting = admission.clone();
    let (arrived, arrivals) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(accept_until(socket, admission, trusted, stopped, move |arrival| {
        arrived.send(arrival).unwrap();
    }));
    Running {
        address,
        arrivals,
        admission: counting,
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
    assert_eq!((admitted.local, admitted.balancer), (running.address, None));
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
            other => panic!("admitted over the limit: {other:?}"),
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
fn a_shortage_is_of_no_single_connection() {
    let error = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
    assert!(!is_of_one_connection(&error));
}

const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1/128"];

/// A PROXY header of version 1 for a client.
fn header(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 56789 993\r\n").into_bytes()
}

/// A connection on which `bytes` have been sent.
async fn saying(running: &Running, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.write_all(bytes).await.unwrap();
    client
}

async fn admitted(running: &mut Running) -> Admitted {
    match running.arrivals.recv().await {
        Some(Arrival::Admitted(admitted)) => admitted,
        other => panic!("not admitted: {other:?}"),
    }
}

#[tokio::test]
async fn a_trusted_peer_speaks_for_the_client_that_its_header_names() {
    let mut running = run_trusting(2, LOOPBACK);
    let balancer = saying(&running, &[&header("192.0.2.7")[..], b"A1 NOOP\r\n"].concat()).await;
    let mut arrived = admitted(&mut running).await;
    assert_eq!(arrived.remote, "192.0.2.7:56789".parse().unwrap());
    assert_eq!(arrived.balancer, Some(balancer.local_addr().unwrap()));
    let mut behind = [0; 9];
    arrived.tcp.read_exact(&mut behind).await.unwrap();
    assert_eq!(&behind, b"A1 NOOP\r\n");
    let check = saying(&running, b"PROXY UNKNOWN\r\n").await;
    let arrived = admitted(&mut running).await;
    assert_eq!((arrived.remote, arrived.balancer), (check.local_addr().unwrap(), None));
}

#[tokio::test]
async fn a_peer_that_is_not_trusted_speaks_for_itself_whatever_it_says() {
    let mut running = run_trusting(1, &["192.0.2.0/24"]);
    let client = saying(&running, &header("192.0.2.7")).await;
    let arrived = admitted(&mut running).await;
    assert_eq!((arrived.remote, arrived.balancer), (client.local_addr().unwrap(), None));
}

#[tokio::test]
async fn a_trusted_peer_without_a_header_is_closed_and_its_place_given_back() {
    let mut running = run_trusting(1, LOOPBACK);
    let mut client = saying(&running, b"A1 LOGIN alice secret\r\n").await;
    let Some(Arrival::Unannounced { error, peer }) = running.arrivals.recv().await else {
        panic!("it arrived");
    };
    assert!(matches!(error, HeaderError::Missing), "{error}");
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
    let _next = saying(&running, &header("192.0.2.7")).await;
    admitted(&mut running).await;
}

#[tokio::test]
async fn one_that_is_slow_to_say_whom_it_speaks_for_holds_up_nobody_but_counts() {
    let mut running = run_trusting(2, LOOPBACK);
    let mut slow = saying(&running, b"PROXY TCP4 192").await;
    let _quick = saying(&running, &header("192.0.2.7")).await;
    let first = admitted(&mut running).await;
    assert_eq!(running.admission.sessions(), 2);
    // All places are taken, so this one is told so, behind its header.
    let _third = saying(&running, &header("192.0.2.8")).await;
    let Some(Arrival::Refused(refused)) = running.arrivals.recv().await else {
        panic!("not refused");
    };
    assert_eq!(
        (refused.refusal, refused.remote.ip()),
        (Refusal::SessionsMax, IpAddr::from([192, 0, 2, 8]))
    );
    slow.write_all(b".0.2.9 198.51.100.1 1 2\r\n").await.unwrap();
    let slow = admitted(&mut running).await;
    assert_eq!(slow.remote, "192.0.2.9:1".parse().unwrap());
    assert!(
        slow.accepted_at < first.accepted_at,
        "its time counts from when it came"
    );
}

#[tokio::test]
async fn a_clients_own_share_is_that_of_the_address_in_the_header() {
    let mut running = run_trusting(PER_IP_MAX + 2, LOOPBACK);
    let mut held = Vec::new();
    for _ in 0..PER_IP_MAX {
        let client = saying(&running, &header("192.0.2.7")).await;
        held.push((client, admitted(&mut running).await));
    }
    let _over = saying(&running, &header("192.0.2.7")).await;
    let Some(Arrival::Refused(refused)) = running.arrivals.recv().await else {
        panic!("not refused");
    };
    assert_eq!(refused.refusal, Refusal::SessionsPerIpMax);
    let _other = saying(&running, &header("192.0.2.8")).await;
    admitted(&mut running).await;
}

#[tokio::test]
async fn who_is_still_waited_for_ends_with_the_listener() {
    let running = run_trusting(1, LOOPBACK);
    let mut waited_for = saying(&running, b"PROXY ").await;
    while running.admission.sessions() == 0 {
        tokio::task::yield_now().await;
    }
    running.stop.send(true).unwrap();
    running.task.await.unwrap();
    assert_eq!(waited_for.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(running.admission.sessions(), 0);
}
