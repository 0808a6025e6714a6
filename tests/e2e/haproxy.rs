//! A real balancer in front: haproxy tells by the PROXY protocol, in both its versions, where a
//! client comes from, and it is that address that counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::PATIENCE;
use crate::support::desk::{Desk, MAILBOX};
use crate::support::haproxy::{Haproxy, Listeners, Way};
use crate::support::imap::Imap;
use crate::support::ports::free_port;
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_address_decides_a_tokens_restriction() {
    let bed = Bed::start("").await;
    let token = bed.token_for("127.0.0.2/32").await;
    for protocol in PROTOCOLS {
        for way in [Way::V1, Way::V2] {
            let door = bed.haproxy.door(protocol, way);
            let allowed = login(protocol, door, ALLOWED, &token).await;
            assert!(allowed.starts_with(welcome(protocol)), "{protocol} {way:?}: {allowed}");
            let refused = login(protocol, door, REFUSED, &token).await;
            match protocol {
                "imap" => assert_eq!(refused, format!("NO [AUTHENTICATIONFAILED] {NOT_FROM_THERE}")),
                "smtp" => assert!(refused.starts_with("535 5.7.8 "), "{refused}"),
                _ => assert!(refused.starts_with("-ERR [AUTH] "), "{refused}"),
            }
        }
        let logins = bed.usage(protocol, "login", 2).await;
        assert_eq!(logins, ["127.0.0.2"; 2]);
        let denials = bed.usage(protocol, "denied", 2).await;
        assert_eq!(denials, ["127.0.0.3 address_not_allowed"; 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_plaintext_is_allowed_is_judged_by_the_clients_address() {
    let bed = Bed::start("").await;
    let token = bed.token_for("0.0.0.0/0").await;
    for protocol in PROTOCOLS {
        let near = login(protocol, bed.haproxy.door(protocol, Way::V2), ALLOWED, &token).await;
        assert!(near.starts_with(welcome(protocol)), "{protocol}: {near}");
        let far = login(protocol, bed.haproxy.door(protocol, Way::Far), ALLOWED, &token).await;
        let refusal = match protocol {
            "imap" => "NO [PRIVACYREQUIRED] ",
            "smtp" => "538 5.7.11 ",
            _ => "-ERR [AUTH] ",
        };
        assert!(far.starts_with(refusal), "{protocol}: {far}");
    }

    let imap = bed.haproxy.door("imap", Way::Far);
    let greeting = Imap::connect(imap).await.greeting().to_owned();
    assert!(
        greeting.contains(" LOGINDISABLED") && !greeting.contains("AUTH="),
        "{greeting}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_sends_no_header_gets_no_word() {
    let bed = Bed::start("").await;
    for (protocol, port) in bed.ports() {
        let listener = SocketAddr::from(([127, 0, 0, 1], port));
        let mut direct = Imap::on(Wire::dial(None, listener, None).await);
        direct.send_line("NOOP").await;
        direct.expect_end().await;
        // The listener is fine; it was the header that lacked.
        let mut introduced = Imap::on(Wire::dial(None, listener, None).await);
        introduced.send_line("PROXY UNKNOWN").await;
        let greeting = introduced.line().await;
        assert!(greeting.starts_with(opening(protocol)), "{greeting}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_find_the_listeners_up_and_count_for_nobody() {
    let bed = Bed::start("").await;
    bed.haproxy.until_all_are_up().await;
    let usage = bed.desk.portreeve.read("/v1/usage").await;
    assert_eq!(usage["total"], 0, "{usage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_behind_the_balancer_has_its_own_share_of_connections() {
    let bed = Bed::start("[limits]\nsessions_per_ip_max = 2\n").await;
    let door = bed.haproxy.door("imap", Way::V2);
    let connect =
        |from: Ipv4Addr| async move { Imap::on(Wire::dial(Some(SocketAddr::from((from, 0))), door, None).await) };
    let mut first = [connect(ALLOWED).await, connect(ALLOWED).await];
    for imap in &mut first {
        assert!(imap.line().await.starts_with("* OK "));
    }
    let mut third = connect(ALLOWED).await;
    let refused = third.line_or_end().await;
    assert!(
        refused.as_deref().is_none_or(|line| line.starts_with("* BYE ")),
        "{refused:?}"
    );
    let mut another = connect(REFUSED).await;
    assert!(another.line().await.starts_with("* OK "));
}

/// The bed itself, without the proxy: what the other tests take for granted of haproxy.
#[tokio::test]
async fn haproxy_says_in_either_version_where_a_client_comes_from() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let imap = listener.local_addr().expect("it is bound").port();
    let (headers, mut heard) = mpsc::unbounded_channel();
    let greeting = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("haproxy connects");
            let headers = headers.clone();
            tokio::spawn(async move {
                // Its health checks hang up as soon as they are greeted.
                let _ = stream.write_all(b"* OK ready\r\n").await;
                let mut header = vec![0; HEADER_OCTETS];
                let _ = stream.read_exact(&mut header).await;
                headers.send(header)
            });
        }
    });
    // Nobody listens for the other two.
    let (smtp, pop3) = (free_port(), free_port());
    let haproxy = Haproxy::start(Listeners { imap, smtp, pop3 }).await;
    for (way, header) in [
        (Way::V1, b"PROXY TCP4 127.0.0.2 127.0.0.1 ".as_slice()),
        (Way::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x02\x7f\0\0\x01"),
        (
            Way::Far,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01",
        ),
    ] {
        let from = Some(SocketAddr::from((ALLOWED, 0)));
        let mut client = Imap::on(Wire::dial(from, haproxy.door("imap", way), None).await);
        client.send_line(&"x".repeat(HEADER_OCTETS)).await;
        let is_heard = async { while !heard.recv().await.expect("it goes on").starts_with(header) {} };
        let said = tokio::time::timeout(PATIENCE, is_heard).await;
        assert!(said.is_ok(), "{way:?} is not said in time");
    }
    greeting.abort();
}

/// A mailbox, the proxy before it, and haproxy before that.
struct Bed {
    haproxy: Haproxy,
    listeners: Listeners,
    desk: Desk,
}

impl Bed {
    /// `toml` is added to the proxy's configuration.
    async fn start(toml: &str) -> Bed {
        let listeners = Listeners {
            imap: free_port(),
            smtp: free_port(),
            pop3: free_port(),
        };
        let mut configuration = toml.to_owned();
        for (protocol, port) in ports(listeners) {
            configuration += &format!(
                "[[listener]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:{port}\"\n\
                 proxy_protocol_from = [\"127.0.0.1/32\"]\n"
            );
        }
        Bed {
            desk: Desk::start(&configuration).await,
            haproxy: Haproxy::start(listeners).await,
            listeners,
        }
    }

    fn ports(&self) -> [(&'static str, u16); 3] {
        ports(self.listeners)
    }

    /// An access token that counts only for clients from there.
    async fn token_for(&self, addresses: &str) -> String {
        let body = json!({
            "account": MAILBOX,
            "scopes": ["imap-proxy", "smtp", "pop3"],
            "description": "behind the balancer",
            "restrictions": { "addresses": [addresses] },
        });
        self.desk.portreeve.create_token(&body).await
    }

    /// The address, and the reason where there is one, of each usage event of a kind, which come a
    /// little after the replies that they are about.
    async fn usage(&self, protocol: &str, kind: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/v1/usage?account={MAILBOX}&pageSize=100");
            let usage = self.desk.portreeve.read(&path).await;
            let events: Vec<String> = usage["events"]
                .as_array()
                .expect("a list")
                .iter()
                .filter(|event| event["protocol"] == protocol && event["kind"] == kind)
                .map(|event| {
                    let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                    format!("{} {}", word("remoteAddress"), word("reason"))
                        .trim()
                        .to_owned()
                })
                .collect();
            if events.len() >= count {
                return events;
            }
            assert!(Instant::now() < deadline, "{usage}\n{}", self.desk.portreeve.log());
            tokio::time::sleep(POLL).await;
        }
    }
}

fn ports(listeners: Listeners) -> [(&'static str, u16); 3] {
    let Listeners { imap, smtp, pop3 } = listeners;
    [("imap", imap), ("smtp", smtp), ("pop3", pop3)]
}

/// Connects from an address and logs in; the last line of the answer, without IMAP's tag.
async fn login(protocol: &str, door: SocketAddr, from: Ipv4Addr, token: &str) -> String {
    let mut client = Imap::on(Wire::dial(Some(SocketAddr::from((from, 0))), door, None).await);
    let greeting = client.line().await;
    assert!(greeting.starts_with(opening(protocol)), "{greeting}");
    match protocol {
        "imap" => client.login(MAILBOX, token).await.tagged,
        "smtp" => {
            client.send_line("EHLO client.example.com").await;
            while client.line().await.starts_with("250-") {}
            let plain = BASE64_STANDARD.encode(format!("\0{MAILBOX}\0{token}"));
            client.send_line(&format!("AUTH PLAIN {plain}")).await;
            client.line().await
        }
        _ => {
            client.send_line(&format!("USER {MAILBOX}")).await;
            let named = client.line().await;
            if !named.starts_with("+OK") {
                return named;
            }
            client.send_line(&format!("PASS {token}")).await;
            client.line().await
        }
    }
}

/// How the greeting begins.
fn opening(protocol: &str) -> &'static str {
    match protocol {
        "imap" => "* OK ",
        "smtp" => "220 ",
        _ => "+OK ",
    }
}

/// How the answer to a login begins that is accepted.
fn welcome(protocol: &str) -> &'static str {
    match protocol {
        "imap" => "OK ",
        "smtp" => "235 ",
        _ => "+OK",
    }
}

const PROTOCOLS: [&str; 3] = ["imap", "smtp", "pop3"];
const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const REFUSED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const NOT_FROM_THERE: &str = "Access denied, traffic not accepted from this IP";
/// At least as much of a connection as a header takes up to the end of its addresses.
const HEADER_OCTETS: usize = 40;
const POLL: Duration = Duration::from_millis(20);
