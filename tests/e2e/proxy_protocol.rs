//! Behind a load balancer: the PROXY header's address is the client's for everything that asks for one, nobody else is
//! believed, and whoever speaks the wrong thing to a port is explained in the log.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::certs::Authority;
use crate::support::imap::Imap;
use crate::support::mailbox::Mailbox;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn a_tokens_restriction_is_judged_by_the_address_in_the_header() {
    let bed = Bed::start("plaintext_auth = \"always\"", "").await;
    let body = json!({
        "account": "example", "scopes": ["imap-proxy"], "description": "a test",
        "restrictions": { "addresses": ["192.0.2.0/24", "2001:db8::/32"] },
    });
    let token = bed.portreeve.create_token(&body).await;
    for (header, client, is_allowed) in [
        (v1("192.0.2.7"), "192.0.2.7", true),
        (v1("2001:db8::7"), "2001:db8::7", true),
        (v1("198.51.100.7"), "198.51.100.7", false),
        (v2("192.0.2.7"), "192.0.2.7", true),
        (v2("198.51.100.7"), "198.51.100.7", false),
        (v2("::ffff:192.0.2.7"), "192.0.2.7", true),
        // Health checks: the balancer speaks for itself.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", false),
        (binary(0x20, 0x00, &[]), "127.0.0.1", false),
    ] {
        let (mut imap, greeting) = bed.greeted(&header).await;
        assert!(greeting.ends_with(&format!(" from {client}")), "{greeting}");
        let reply = imap.login("example", &token).await.tagged;
        let wanted = match is_allowed {
            true => "OK example authenticated",
            false => "NO [AUTHENTICATIONFAILED] Access denied, traffic not accepted from this IP",
        };
        assert_eq!(reply, wanted, "{client}");
    }
    let events = bed.portreeve.read("/v1/usage?outcome=login").await;
    let newest = events["events"][0]["remoteAddress"].as_str();
    assert_eq!(newest, Some("192.0.2.7"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_behind_the_balancer_has_its_own_share_of_sessions() {
    let bed = Bed::start("", "[limits]\nsessions_per_ip_max = 2").await;
    let mut held = Vec::new();
    for client in ["192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.8"] {
        let (imap, greeting) = bed.greeted(&v1(client)).await;
        assert!(greeting.starts_with("* OK "), "{greeting}");
        held.push(imap);
    }
    let (mut over, refusal) = bed.greeted(&v2("192.0.2.7")).await;
    assert!(refusal.starts_with("* BYE [LIMIT] "), "{refusal}");
    over.expect_end().await;
    let refused = bed.counted("sessions_per_ip_max").await;
    assert_eq!(refused, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_in_clear_is_judged_by_the_address_in_the_header() {
    let bed = Bed::start("plaintext_auth = \"loopback\"", "").await;
    let (mut remote, greeting) = bed.greeted(&v1("192.0.2.7")).await;
    assert!(
        greeting.contains("LOGINDISABLED") && !greeting.contains("AUTH="),
        "{greeting}"
    );
    let reply = remote.login("example", &bed.token).await.tagged;
    assert!(reply.starts_with("NO [PRIVACYREQUIRED] "), "{reply}");
    let (mut local, greeting) = bed.greeted(&v1("127.0.0.5")).await;
    assert!(!greeting.contains("LOGINDISABLED"), "{greeting}");
    assert!(local.login("example", &bed.token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balancer_that_does_not_say_whom_it_speaks_for_is_closed_and_counted() {
    let bed = Bed::start("", "").await;
    let mut silent = bed.dial(BALANCER, b"").await;
    let mut halting = bed.dial(BALANCER, b"PROXY TCP4 192.0.2.7 198").await;
    for wrong in [
        &b"A1 LOGIN example secret\r\n"[..],
        b"PROXY TCP4 nobody nobody 1 2\r\n",
        b"\x16\x03\x01\x02\x00",
    ] {
        let mut client = bed.dial(BALANCER, wrong).await;
        assert_eq!(heard(&mut client).await, "");
    }
    bed.until_counted(3.0).await;
    assert_eq!(heard(&mut silent).await, "");
    assert_eq!(heard(&mut halting).await, "");
    bed.until_counted(5.0).await;
    bed.until_logged("did not begin with a PROXY protocol header").await;
    bed.until_logged("sent no complete PROXY protocol header within 5 s")
        .await;

    // A health check that only connects is refused nothing, whether it closes or resets.
    drop(bed.dial(BALANCER, b"").await);
    let resetting = bed.dial(BALANCER, b"").await;
    SockRef::from(&resetting)
        .set_linger(Some(Duration::ZERO))
        .expect("a connected socket takes it");
    drop(resetting);
    let (mut imap, _) = bed.greeted(&v1("127.0.0.5")).await;
    assert!(imap.login("example", &bed.token).await.is_ok());
    assert_eq!(bed.counted("proxy_protocol").await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_from_anybody_else_is_refused_and_counted() {
    let bed = Bed::start("", "").await;
    for header in [v1("192.0.2.7"), v2("192.0.2.7"), b"PROXY UNKNOWN\r\n".to_vec()] {
        // At a listener that believes others, at one that believes nobody, and at one with TLS.
        let mut stranger = bed.dial(STRANGER, &header).await;
        let greeting = heard(&mut stranger).await;
        assert!(greeting.ends_with(" from 127.0.0.9\r\n"), "{greeting}");
        let mut stranger = dial(STRANGER, bed.portreeve.imap(), &header).await;
        let greeting = heard(&mut stranger).await;
        assert_eq!(greeting.lines().count(), 1, "{greeting}");
        let mut stranger = dial(STRANGER, bed.portreeve.imaps(), &header).await;
        assert_eq!(heard(&mut stranger).await, "");
    }
    bed.until_counted(9.0).await;
    bed.until_logged("proxy_protocol_from does not name this address").await;

    // Nor is a client believed that sends one behind the balancer's.
    let twice = [v1("192.0.2.7"), v1("127.0.0.1")].concat();
    let mut client = bed.dial(BALANCER, &twice).await;
    let greeting = heard(&mut client).await;
    assert!(greeting.ends_with(" from 192.0.2.7\r\n"), "{greeting}");
    bed.until_counted(10.0).await;

    // Without a header a stranger is simply a client, and a command's tag is no header.
    let (mut stranger, _) = greeted(bed.dial(STRANGER, b"PROXY NOOP\r\n").await, None).await;
    assert!(stranger.line().await.starts_with("PROXY OK "));
    assert!(stranger.login("example", &bed.token).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_from_anybody_else_is_refused_in_pieces_too() {
    let bed = Bed::start("", "").await;
    for (refused, header) in [(1.0, v1("192.0.2.7")), (3.0, b"PROXY UNKNOWN\r\n".to_vec())] {
        for (more, address) in [(0.0, bed.address), (1.0, bed.portreeve.imaps())] {
            let mut stranger = dial(STRANGER, address, b"").await;
            for byte in header.chunks(1) {
                // The proxy may close as soon as it knows.
                let _ = stranger.write_all(byte).await;
                tokio::task::yield_now().await;
            }
            heard(&mut stranger).await;
            bed.until_counted(refused + more).await;
        }
    }
    // The first line of a binary one is answered as a command before anybody can know what it is.
    let (mut stranger, _) = greeted(bed.dial(STRANGER, &v2("192.0.2.7")[..2]).await, None).await;
    let reply = stranger.line().await;
    assert!(reply.starts_with("* BAD "), "{reply}");
    stranger.send(&v2("192.0.2.7")[2..]).await;
    stranger.expect_end().await;
    bed.until_counted(5.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_begins_right_behind_the_header_even_in_the_same_segment() {
    let bed = Bed::start("tls = \"implicit\"\nplaintext_auth = \"never\"", "").await;
    for header in [v1("192.0.2.7"), v2("192.0.2.7"), v2("2001:db8::7")] {
        let together = Headed {
            header: header.clone(),
            stream: bed.dial(BALANCER, b"").await,
        };
        let apart = bed.dial(BALANCER, &header).await;
        let authority = Some(bed.portreeve.authority());
        let sessions = tokio::join!(greeted(together, authority), greeted(apart, authority));
        for (mut imap, greeting) in [sessions.0, sessions.1] {
            assert!(!greeting.ends_with(" from 127.0.0.1"), "{greeting}");
            assert!(imap.login("example", &bed.token).await.is_ok());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_behind_the_balancer_may_begin_tls_in_the_middle_and_not_before() {
    let bed = Bed::start("tls = \"starttls\"\nplaintext_auth = \"never\"", "").await;
    let (imap, greeting) = bed.greeted(&v2("192.0.2.7")).await;
    assert!(
        greeting.contains(" STARTTLS") && greeting.ends_with(" from 192.0.2.7"),
        "{greeting}"
    );
    let mut imap = imap.starttls(bed.portreeve.authority()).await;
    assert!(imap.login("example", &bed.token).await.is_ok());

    let hello = [&v1("192.0.2.7")[..], b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03"].concat();
    let greeting = heard(&mut bed.dial(BALANCER, &hello).await).await;
    assert_eq!(greeting.lines().count(), 1, "{greeting}");
    bed.until_logged("a client began TLS on a port without it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_still_waited_for_does_not_hold_up_a_stop() {
    let mut bed = Bed::start("", "").await;
    let mut halting = bed.dial(BALANCER, b"PROXY ").await;
    let process = bed.portreeve.process();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(heard(&mut halting).await, "");
    // It gave up waiting because it stopped, and it stopped in order.
    assert_eq!(process.wait().await.code(), Some(0), "{}", bed.portreeve.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_misunderstood_says_so_in_the_log() {
    let bed = Bed::start("", "[limits]\npre_auth_timeout = \"2s\"\nbad_commands_max = 1").await;
    let hello = [&b"\x16\x03\x01\x00\x2e\x01\x00\x00\x2a\x03\x03"[..], &[7; 40]].concat();
    let mut client = dial(STRANGER, bed.portreeve.imap(), &hello).await;
    let greeting = heard(&mut client).await;
    assert_eq!(greeting.lines().count(), 1, "nothing is said to it: {greeting}");
    bed.until_logged("a client began TLS on a port without it").await;

    let mut client = dial(STRANGER, bed.portreeve.imaps(), b"A1 LOGIN example secret\r\n").await;
    assert_eq!(heard(&mut client).await, "");
    bed.until_logged("a client spoke in clear to a port that begins with TLS")
        .await;

    let mut client = dial(STRANGER, bed.portreeve.imaps(), b"").await;
    assert_eq!(heard(&mut client).await, "");
    bed.until_logged("it may be waiting for a greeting in clear").await;
    assert!(!bed.portreeve.log().contains("secret"), "{}", bed.portreeve.log());
}

/// A proxy with a listener behind a load balancer at [`BALANCER`].
struct Bed {
    portreeve: Portreeve,
    address: SocketAddr,
    token: String,
    _mailbox: Mailbox,
}

impl Bed {
    /// Starts it; `listener` goes on with the listener's settings, `toml` with the file's.
    async fn start(listener: &str, toml: &str) -> Bed {
        let mailbox = Mailbox::serve().await;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let portreeve = Setup::default()
            .with(&format!(
                r#"
[[listener]]
protocol = "imap"
address = "{address}"
proxy_protocol_from = ["{BALANCER}", "192.0.2.1"]
{listener}
{toml}
[log]
format = "text"
[provider.{PROVIDER}]
imap = {{ host = "127.0.0.1", port = {}, tls = "off" }}
"#,
                mailbox.address().port(),
            ))
            .start()
            .await;
        let account = json!({ "account": "example", "provider": PROVIDER, "user": "example", "password": "pw" });
        portreeve.post("/v1/account", &account).await;
        let token = portreeve.add_token("example").await;
        Bed {
            portreeve,
            address,
            token,
            _mailbox: mailbox,
        }
    }

    /// A connection to the listener behind the balancer, on which `bytes` have been sent.
    async fn dial(&self, from: Ipv4Addr, bytes: &[u8]) -> TcpStream {
        dial(from, self.address, bytes).await
    }

    /// A client for whom the balancer sends `header`, and the proxy's greeting.
    async fn greeted(&self, header: &[u8]) -> (Imap, String) {
        greeted(self.dial(BALANCER, header).await, None).await
    }

    /// Connections that were refused for `reason`.
    async fn counted(&self, reason: &str) -> f64 {
        let sample = format!("portreeve_connections_refused_total{{protocol=\"imap\",reason=\"{reason}\"}} ");
        let metrics = self.portreeve.metrics().await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(&sample));
        value.map_or(0.0, |value| value.parse().expect("a sample ends in a number"))
    }

    /// Waits for the count of those that were refused for their PROXY header, or for lacking one, which is no more.
    async fn until_counted(&self, refused: f64) {
        let counted = until(PATIENCE, "the refusals are counted", async || {
            let counted = self.counted("proxy_protocol").await;
            (counted >= refused).then_some(counted)
        });
        assert_eq!(counted.await, refused);
    }

    async fn until_logged(&self, text: &str) {
        until(PATIENCE, text, async || {
            self.portreeve.log().contains(text).then_some(())
        })
        .await;
    }
}

/// A stream whose first write has a header in front of it, in one piece.
struct Headed {
    header: Vec<u8>,
    stream: TcpStream,
}

impl AsyncWrite for Headed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.header.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let together = [self.header.as_slice(), bytes].concat();
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &together))?;
        assert_eq!(written, together.len(), "an empty socket takes a first flight whole");
        self.header.clear();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Headed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// A client on `stream`, in TLS if it trusts somebody, and the proxy's greeting.
async fn greeted(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    authority: Option<&Authority>,
) -> (Imap, String) {
    let mut wire = Wire::on(stream);
    if let Some(authority) = authority {
        wire = wire.secured(authority.client_config()).await;
    }
    let mut imap = Imap::on(wire);
    let greeting = imap.line().await;
    (imap, greeting)
}

/// A connection from an address of this machine, on which `bytes` have been sent.
async fn dial(from: Ipv4Addr, to: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket
        .bind(SocketAddr::from((from, 0)))
        .expect("every 127.0.0.0/8 address is this machine's");
    let mut stream = socket.connect(to).await.expect("the listener accepts");
    stream.set_nodelay(true).expect("a connected socket takes it");
    stream.write_all(bytes).await.expect("the proxy reads");
    stream
}

/// All that the proxy says until it closes.
async fn heard(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    // A reset is an end too: bytes that nobody wanted were never read.
    timeout(PATIENCE, stream.read_to_end(&mut heard))
        .await
        .expect("the proxy closes")
        .ok();
    String::from_utf8_lossy(&heard).into_owned()
}

/// A header of version 1.
fn v1(client: &str) -> Vec<u8> {
    match client.contains(':') {
        true => format!("PROXY TCP6 {client} 2001:db8::1 56789 993\r\n"),
        false => format!("PROXY TCP4 {client} 198.51.100.1 56789 993\r\n"),
    }
    .into_bytes()
}

/// A header of version 2, as haproxy sends it with the name that a client asked for.
fn v2(client: &str) -> Vec<u8> {
    let (family, addresses) = match client.parse().expect("an address") {
        std::net::IpAddr::V4(client) => (0x11, [client.octets(), [198, 51, 100, 1]].concat()),
        std::net::IpAddr::V6(client) => (0x21, [client.octets(), [1; 16]].concat()),
    };
    let authority = [&[2, 0, 9][..], b"imap.test"].concat();
    binary(
        0x21,
        family,
        &[&addresses[..], &[0xDD, 0xD5, 3, 0xE1], &authority].concat(),
    )
}

fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block").to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, block].concat()
}

/// Who is in `proxy_protocol_from`.
const BALANCER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Who is not.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
