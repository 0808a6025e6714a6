//! A real balancer in front: haproxy tells by the PROXY protocol, in both its versions, where a
//! client comes from, and it is that address that counts.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::PATIENCE;
use crate::support::bed::{Bed, until};
use crate::support::haproxy::{Haproxy, Listeners, Way};
use crate::support::imap::Imap;
use crate::support::pop3::Pop3;
use crate::support::ports::free_port;
use crate::support::protocol::Protocol;
use crate::support::provider::ProviderOptions;
use crate::support::smtp::Smtp;
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_address_decides_a_tokens_restriction() {
    let balanced = Balanced::start("").await;
    let body = json!({
        "account": MAILBOX,
        "scopes": ["imap-proxy", "smtp", "pop3"],
        "description": "behind the balancer",
        "restrictions": { "addresses": ["127.0.0.2/32"] },
    });
    let token = balanced.bed.portreeve.create_token(&body).await;
    for protocol in PROTOCOLS {
        for way in [Way::V1, Way::V2] {
            let allowed = balanced.login(protocol, way, ALLOWED, &token).await;
            assert!(allowed.starts_with(welcome(protocol)), "{way:?}: {allowed}");
            let refused = balanced.login(protocol, way, REFUSED, &token).await;
            let code = match protocol {
                Protocol::Imap => "NO [AUTHENTICATIONFAILED]",
                Protocol::Smtp => "535 5.7.8",
                Protocol::Pop3 => "-ERR [AUTH]",
            };
            assert_eq!(refused, format!("{code} {NOT_FROM_THERE}"), "{way:?}");
        }
        let logins = balanced.usage(protocol, "login", 2).await;
        assert_eq!(logins, ["127.0.0.2"; 2]);
        let denials = balanced.usage(protocol, "denied", 2).await;
        assert_eq!(denials, ["127.0.0.3 address_not_allowed"; 2]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_plaintext_is_allowed_is_judged_by_the_clients_address() {
    let balanced = Balanced::start("").await;
    for protocol in PROTOCOLS {
        let near = balanced.login(protocol, Way::V2, ALLOWED, &balanced.token).await;
        assert!(near.starts_with(welcome(protocol)), "{near}");
        let far = balanced.login(protocol, Way::Far, ALLOWED, &balanced.token).await;
        let refusal = match protocol {
            Protocol::Imap => "NO [PRIVACYREQUIRED] ",
            Protocol::Smtp => "538 5.7.11 ",
            Protocol::Pop3 => "-ERR [AUTH] ",
        };
        assert!(far.starts_with(refusal), "{far}");
    }

    let imap = balanced.haproxy.door(Protocol::Imap, Way::Far);
    let greeting = Imap::connect(imap).await.greeting().to_owned();
    assert!(
        greeting.contains(" LOGINDISABLED") && !greeting.contains("AUTH="),
        "{greeting}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_that_sends_no_header_gets_no_word() {
    let balanced = Balanced::start("").await;
    for (protocol, port) in balanced.listeners {
        let listener = SocketAddr::from(([127, 0, 0, 1], port));
        let mut direct = Wire::dial(None, listener, None).await;
        direct.send_line("NOOP").await;
        direct.expect_end().await;
        // The listener is fine; it was the header that lacked.
        let mut introduced = Wire::dial(None, listener, None).await;
        introduced.send_line("PROXY UNKNOWN").await;
        let greeting = introduced.line().await;
        assert!(greeting.starts_with(opening(protocol)), "{greeting}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_checks_find_the_listeners_up_and_count_for_nobody() {
    let balanced = Balanced::start("").await;
    balanced.haproxy.until_all_are_up().await;
    // Whatever a check does, it is refused nothing, and each leaves as it came.
    let refused = balanced.bed.metric("portreeve_connections_refused_total", "").await;
    assert_eq!(refused, 0.0);
    for protocol in PROTOCOLS {
        let protocol = format!("protocol=\"{}\"", protocol.name());
        until(PATIENCE, "no check is a session for long", async || {
            let sessions = balanced.bed.metric("portreeve_sessions", &protocol).await;
            (sessions == 0.0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_behind_the_balancer_has_its_own_share_of_connections() {
    let limits = format!("[limits]\nsessions_per_ip_max = {SHARE}\n");
    let balanced = Balanced::start(&limits).await;
    let door = balanced.haproxy.door(Protocol::Imap, Way::V2);
    let connect = |from: Ipv4Addr| Wire::dial(Some(SocketAddr::from((from, 0))), door, None);
    let mut held = Vec::new();
    for _ in 0..SHARE {
        let mut imap = connect(ALLOWED).await;
        assert!(imap.line().await.starts_with("* OK "));
        held.push(imap);
    }
    let mut one_more = connect(ALLOWED).await;
    let refused = one_more.line().await;
    assert!(refused.starts_with("* BYE [LIMIT] "), "{refused}");
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
    let haproxy = Haproxy::start([(Protocol::Imap, imap), (Protocol::Smtp, smtp), (Protocol::Pop3, pop3)]).await;
    for (way, header) in [
        (Way::V1, b"PROXY TCP4 127.0.0.2 127.0.0.1 ".as_slice()),
        (Way::V2, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x02\x7f\0\0\x01"),
        (
            Way::Far,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01",
        ),
    ] {
        let from = Some(SocketAddr::from((ALLOWED, 0)));
        let mut client = Wire::dial(from, haproxy.door(Protocol::Imap, way), None).await;
        client.send_line(&"x".repeat(HEADER_OCTETS)).await;
        let is_heard = async { while !heard.recv().await.expect("it goes on").starts_with(header) {} };
        let said = tokio::time::timeout(PATIENCE, is_heard).await;
        assert!(said.is_ok(), "{way:?} is not said in time");
    }
    greeting.abort();
}

/// The bed with listeners of all protocols that want PROXY headers of 127.0.0.1, and haproxy before them.
struct Balanced {
    haproxy: Haproxy,
    listeners: Listeners,
    bed: Bed,
    /// Without restrictions.
    token: String,
}

impl Balanced {
    /// `toml` is added to the proxy's configuration.
    async fn start(toml: &str) -> Balanced {
        let listeners = PROTOCOLS.map(|protocol| (protocol, free_port()));
        let mut configuration = toml.to_owned();
        for (protocol, port) in listeners {
            configuration += &format!(
                "[[listener]]\nprotocol = \"{}\"\naddress = \"127.0.0.1:{port}\"\n\
                 proxy_protocol_from = [\"127.0.0.1/32\"]\n",
                protocol.name()
            );
        }
        let bed = Bed::start_whole(ProviderOptions::default(), &configuration, &[]).await;
        Balanced {
            haproxy: Haproxy::start(listeners).await,
            listeners,
            token: bed.account(MAILBOX).await,
            bed,
        }
    }

    /// Connects through haproxy from an address and logs in; the last line of the answer, without IMAP's tag.
    async fn login(&self, protocol: Protocol, way: Way, from: Ipv4Addr, token: &str) -> String {
        let door = self.haproxy.door(protocol, way);
        let local = SocketAddr::from((from, 0));
        match protocol {
            Protocol::Imap => Imap::connect_from(local, door).await.login(MAILBOX, token).await.tagged,
            Protocol::Smtp => {
                let mut smtp = Smtp::connect_from(local, door).await;
                smtp.ehlo().await;
                let reply = smtp.auth_plain(MAILBOX, token).await.reply;
                format!("{} {}", reply.code, reply.lines.join("\n"))
            }
            Protocol::Pop3 => Pop3::connect_from(local, door).await.login(MAILBOX, token).await,
        }
    }

    /// The address, and the reason where there is one, of each usage event of a kind, which come a
    /// little after the replies that they are about.
    async fn usage(&self, protocol: Protocol, kind: &str, count: usize) -> Vec<String> {
        let path = format!("/v1/usage?account={MAILBOX}&pageSize=100");
        until(PATIENCE, "the usage events are there", async || {
            let usage = self.bed.portreeve.read(&path).await;
            let events: Vec<String> = usage["events"]
                .as_array()
                .expect("a list")
                .iter()
                .filter(|event| event["protocol"] == protocol.name() && event["kind"] == kind)
                .flat_map(|event| {
                    let word = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
                    let shown = format!("{} {}", word("remoteAddress"), word("reason"));
                    // Refusals of a minute are counted in one event.
                    let times = event["count"].as_u64().unwrap_or(1);
                    std::iter::repeat_n(shown.trim().to_owned(), usize::try_from(times).expect("a few"))
                })
                .collect();
            (events.len() >= count).then_some(events)
        })
        .await
    }
}

/// How the greeting begins.
fn opening(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "* OK ",
        Protocol::Smtp => "220 ",
        Protocol::Pop3 => "+OK ",
    }
}

/// How the answer to a login begins that is accepted.
fn welcome(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "OK ",
        Protocol::Smtp => "235 ",
        Protocol::Pop3 => "+OK",
    }
}

const MAILBOX: &str = "alice@example.com";
const PROTOCOLS: [Protocol; 3] = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3];
const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const REFUSED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const NOT_FROM_THERE: &str = "Access denied, traffic not accepted from this IP";
/// Connections of one address. The balancer itself has a share too, in which its nine health checks,
/// which may all come at once, must find room.
const SHARE: usize = 30;
/// At least as much of a connection as a header takes up to the end of its addresses.
const HEADER_OCTETS: usize = 40;
