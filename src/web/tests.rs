//! The public side as a browser, a scanner and an attacker meet it: real connections, a port that only remembers.

mod bounds;
mod flow;
mod pages;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use super::*;
use crate::config;

/// What the port was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Asked {
    Open(String),
    Begin(String, [u8; BROWSER_BYTES]),
    Complete(String, Option<[u8; BROWSER_BYTES]>),
}

/// A port whose answer is set by the test, and which remembers what it was asked.
struct Port {
    asked: Mutex<Vec<Asked>>,
    opened: Mutex<Result<Invitation, LinkProblem>>,
    begun: Mutex<Result<Url, Problem>>,
    completed: Mutex<Result<Granted, Problem>>,
    /// How long beginning and completing take.
    takes: Mutex<Duration>,
    ended: Mutex<u32>,
    is_defective: Mutex<bool>,
}

impl Port {
    fn ask(&self, question: Asked) {
        self.asked.lock().unwrap().push(question);
    }

    async fn work(&self) {
        let takes = *self.takes.lock().unwrap();
        tokio::time::sleep(takes).await;
        assert!(!*self.is_defective.lock().unwrap(), "a defect");
        *self.ended.lock().unwrap() += 1;
    }
}

#[async_trait]
impl ConsentPort for Port {
    async fn open(&self, link: &str) -> Result<Invitation, LinkProblem> {
        self.ask(Asked::Open(link.to_owned()));
        self.opened.lock().unwrap().clone()
    }

    async fn begin(&self, link: &str, browser: [u8; BROWSER_BYTES]) -> Result<Url, Problem> {
        self.ask(Asked::Begin(link.to_owned(), browser));
        self.work().await;
        self.begun.lock().unwrap().clone()
    }

    async fn complete(&self, redirected: &Url, browser: Option<[u8; BROWSER_BYTES]>) -> Result<Granted, Problem> {
        self.ask(Asked::Complete(redirected.to_string(), browser));
        self.work().await;
        self.completed.lock().unwrap().clone()
    }
}

/// The public side in clear on loopback, reached as `public_url`.
struct Side {
    address: SocketAddr,
    port: Arc<Port>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

/// An answer.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Side {
    async fn start() -> Self {
        Self::at("https://mail.example.com", &[]).await
    }

    async fn at(public_url: &str, trusted_proxies: &[&str]) -> Self {
        let settings = config::Web {
            listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
            public_url: Some(Url::parse(public_url).unwrap()),
            certificate: None,
            trusted_proxies: trusted_proxies.iter().map(|range| range.parse().unwrap()).collect(),
        };
        let port = Arc::new(Port {
            asked: Mutex::default(),
            opened: Mutex::new(Ok(invitation("alice", Some("alice@example.com")))),
            begun: Mutex::new(Ok(Url::parse("https://id.example.com/authorize?state=s3cret").unwrap())),
            completed: Mutex::new(Ok(granted(None))),
            takes: Mutex::default(),
            ended: Mutex::default(),
            is_defective: Mutex::default(),
        });
        let bound = Bound::open(&settings, None).unwrap().unwrap();
        let address = bound.address();
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(serve(bound, port.clone(), stopped));
        Self {
            address,
            port,
            stop,
            served,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` as it is and reads until the connection ends.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // One that is refused may be cut before it is read whole.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: whatever.example\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        Reply::parse(&self.raw((request + "\r\n").as_bytes()).await)
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[]).await
    }

    /// The button on a link's page.
    async fn press(&self, link: &str) -> Reply {
        self.ask("POST", &format!("/authorize/{link}"), OWN).await
    }

    fn asked(&self) -> Vec<Asked> {
        self.port.asked.lock().unwrap().clone()
    }

    async fn outcome(&self, problem: Problem) -> Reply {
        *self.port.completed.lock().unwrap() = Err(problem);
        self.get("/oauth/callback?code=c0de&state=s3cret").await
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.served.await.unwrap();
    }
}

impl Reply {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut found = lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value);
        let value = found.next();
        assert_eq!(found.next(), None, "{name} twice");
        value
    }

    /// What a reader sees, on one line.
    fn text(&self) -> String {
        let body = self.body.split_once("</style>").map_or("", |(_, body)| body);
        let mut text = String::new();
        let mut is_tag = false;
        for character in body.chars() {
            match character {
                '<' => is_tag = true,
                '>' => is_tag = false,
                _ if !is_tag => text.push(character),
                _ => {}
            }
        }
        text
    }
}

fn invitation(account: &str, email: Option<&str>) -> Invitation {
    Invitation {
        account: account.to_owned(),
        email: email.map(ToOwned::to_owned),
        provider_name: "google".to_owned(),
        provider_title: "Google".to_owned(),
    }
}

fn granted(return_to: Option<&str>) -> Granted {
    Granted {
        account: "alice".to_owned(),
        email: Some("alice@example.com".to_owned()),
        return_to: return_to.map(|url| Url::parse(url).unwrap()),
    }
}

/// What a browser says of a form on our own page.
const OWN: &[(&str, &str)] = &[
    ("Sec-Fetch-Site", "same-origin"),
    ("Origin", "null"),
    ("Content-Length", "0"),
];

/// What every page must be, whatever it says.
fn assert_sound(reply: &Reply) {
    let body = &reply.body;
    assert!(body.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{body}");
    for (piece, times) in [
        ("<title>", 1),
        ("<h1>", 1),
        ("<main", 1),
        ("<style>", 1),
        ("<script", 0),
        (" style=", 0),
    ] {
        assert_eq!(body.matches(piece).count(), times, "{piece} in {body}");
    }
    for handler in [" onclick", " onload", "javascript:", "src=", "href="] {
        assert!(!body.contains(handler), "{handler} in {body}");
    }
    for secret in ["s3cret", "c0de", "t0ken"] {
        assert!(!body.contains(secret), "{secret} in {body}");
    }
    assert!(body.contains("width=device-width") && body.contains("prefers-color-scheme:dark"));
    assert_eq!(reply.field("content-type"), Some("text/html; charset=utf-8"));
}

/// What every answer must say in its head.
fn assert_protected(reply: &Reply) {
    for (name, expected) in [
        ("cache-control", Some("no-store")),
        ("referrer-policy", Some("no-referrer")),
        ("x-content-type-options", Some("nosniff")),
        ("x-frame-options", Some("DENY")),
        ("cross-origin-opener-policy", Some("same-origin")),
        ("strict-transport-security", Some("max-age=31536000")),
        ("connection", Some("close")),
        ("server", None),
    ] {
        assert_eq!(reply.field(name), expected, "{name} in {}", reply.head);
    }
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(
        policy.ends_with("; frame-ancestors 'none'; base-uri 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
}

/// What holds for every page.
fn assert_page(reply: &Reply) {
    assert_sound(reply);
    assert_protected(reply);
}
