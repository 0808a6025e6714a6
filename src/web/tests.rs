//! The public side as a browser, a scanner and an attacker meet it: real connections, a port that only remembers.

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
use crate::limits::{
    WEB_BODY_BYTES_MAX, WEB_CONNECTIONS_PER_IP_MAX, WEB_HEADER_BYTES_MAX, WEB_INPUT_TIMEOUT, WEB_REQUEST_TIMEOUT,
    WEB_REQUESTS_BURST,
};

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

#[tokio::test]
async fn a_link_says_who_asks_for_what_and_offers_one_button() {
    let side = Side::start().await;
    let reply = side.get("/authorize/t0ken").await;
    assert_eq!(reply.status, 200);
    assert_sound(&reply);
    assert_protected(&reply);
    let text = reply.text();
    for words in [
        "mail.example.com asks you",
        "alice@example.com",
        "Google",
        "Continue to Google",
        "at this servicealice",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(reply.body.contains("<form method=\"post\"><button type=\"submit\">"));
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self' https: "), "{policy}");
    assert_eq!(side.asked(), [Asked::Open("t0ken".to_owned())]);
}

#[tokio::test]
async fn however_often_a_link_is_fetched_nothing_is_begun_and_no_cookie_is_set() {
    let side = Side::start().await;
    for fields in [
        &[][..],
        &[("Sec-Purpose", "prefetch")],
        &[("User-Agent", "a mail scanner")],
    ] {
        for method in ["GET", "HEAD"] {
            let reply = side.ask(method, "/authorize/t0ken", fields).await;
            assert_eq!((reply.status, reply.field("set-cookie")), (200, None));
            assert_eq!(reply.body.is_empty(), method == "HEAD");
            assert_protected(&reply);
        }
    }
    assert_eq!(side.asked(), vec![Asked::Open("t0ken".to_owned()); 6]);
}

#[tokio::test]
async fn the_style_is_the_one_that_the_policy_allows() {
    use base64::Engine;
    use sha2::Digest;
    let reply = Side::start().await.get("/authorize/t0ken").await;
    let style = reply
        .body
        .split_once("<style>")
        .unwrap()
        .1
        .split_once("</style>")
        .unwrap()
        .0;
    let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style));
    let policy = reply.field("content-security-policy").unwrap();
    assert!(policy.contains(&format!("style-src 'sha256-{hash}';")), "{policy}");
}

#[tokio::test]
async fn the_button_binds_the_browser_and_sends_it_to_the_provider() {
    let side = Side::start().await;
    let reply = side.press("t0ken").await;
    assert_eq!(reply.status, 303);
    assert_eq!(
        reply.field("location"),
        Some("https://id.example.com/authorize?state=s3cret")
    );
    assert_protected(&reply);
    let cookie = reply.field("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("__Host-portreeve="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );

    let pair = cookie.split(';').next().unwrap();
    side.ask("GET", "/oauth/callback?code=c0de&state=s3cret", &[("Cookie", pair)])
        .await;
    let asked = side.asked();
    let Asked::Begin(link, browser) = &asked[0] else {
        panic!("{asked:?}")
    };
    assert_eq!(link, "t0ken");
    let redirected = "https://mail.example.com/oauth/callback?code=c0de&state=s3cret".to_owned();
    assert_eq!(asked[1], Asked::Complete(redirected, Some(*browser)));

    side.press("t0ken").await;
    let asked = side.asked();
    assert!(
        matches!(&asked[2], Asked::Begin(_, other) if other != browser),
        "a new browser, a new secret"
    );
}

#[tokio::test]
async fn success_is_told_once_the_consent_is_complete() {
    let side = Side::start().await;
    let reply = side.get("/oauth/callback?code=c0de&state=s3cret").await;
    assert_eq!(reply.status, 200);
    assert_sound(&reply);
    assert_protected(&reply);
    let text = reply.text();
    assert!(
        text.contains("alice@example.com is connected") && text.contains("a login to the mailbox worked"),
        "{text}"
    );
    assert!(
        reply
            .field("content-security-policy")
            .unwrap()
            .contains("form-action 'none'")
    );
}

#[tokio::test]
async fn success_returns_to_whoever_made_the_link_if_they_asked_for_it() {
    let side = Side::start().await;
    for (return_to, status, location) in [
        (
            "https://app.example/done?x=1",
            303,
            Some("https://app.example/done?x=1"),
        ),
        ("javascript:alert(1)", 200, None),
        ("data:text/html,x", 200, None),
    ] {
        *side.port.completed.lock().unwrap() = Ok(granted(Some(return_to)));
        let reply = side.get("/oauth/callback?code=c0de&state=s3cret").await;
        assert_eq!(
            (reply.status, reply.field("location")),
            (status, location),
            "{return_to}"
        );
        assert_protected(&reply);
    }
}

#[tokio::test]
async fn every_way_to_fail_has_its_page_that_says_what_to_do() {
    let side = Side::start().await;
    let wrong = Problem::WrongMailbox {
        asked: "alice@example.com".to_owned(),
        given: "mallory@example.com".to_owned(),
    };
    let missing = Problem::MissingScopes(vec![
        "https://outlook.office.com/SMTP.Send".to_owned(),
        "urn:other".to_owned(),
    ]);
    let refused = Problem::LoginRefused {
        reason: "IMAP is switched off for this mailbox".to_owned(),
    };
    for (problem, status, words) in [
        (Problem::Link(LinkProblem::Forged), 404, "This link is not valid"),
        (Problem::Link(LinkProblem::Expired), 410, "This link has expired"),
        (Problem::Link(LinkProblem::Used), 410, "This link has been used"),
        (Problem::Link(LinkProblem::Internal), 500, "Something went wrong here"),
        (Problem::UnknownFlow, 400, "This sign-in cannot be completed"),
        (Problem::Denied, 403, "Permission was not given"),
        (missing.clone(), 403, "to send mail (SMTP)"),
        (missing, 403, "the permission that the provider calls urn:other"),
        (wrong.clone(), 409, "Asked foralice@example.com"),
        (wrong, 409, "Signed inmallory@example.com"),
        (refused, 403, "IMAP is switched off for this mailbox"),
        (Problem::MailboxUnreachable, 503, "it has been kept"),
        (
            Problem::ProviderTrouble,
            502,
            "The provider does not answer as it should",
        ),
        (Problem::Internal, 500, "Something went wrong here"),
    ] {
        let reply = side.outcome(problem.clone()).await;
        assert_eq!(reply.status, status, "{problem:?}");
        assert_sound(&reply);
        assert_protected(&reply);
        let text = reply.text();
        assert!(
            text.contains(words) && text.contains("What you can do"),
            "{problem:?}: {text}"
        );
        assert!(!text.contains("is connected"), "no success is claimed: {text}");
        assert!(
            reply
                .field("content-security-policy")
                .unwrap()
                .contains("form-action 'none'")
        );
    }
}

#[tokio::test]
async fn a_link_that_is_no_good_is_told_at_its_page_and_at_its_button_alike() {
    let side = Side::start().await;
    for (problem, status) in [
        (LinkProblem::Forged, 404),
        (LinkProblem::Expired, 410),
        (LinkProblem::Used, 410),
        (LinkProblem::Internal, 500),
    ] {
        *side.port.opened.lock().unwrap() = Err(problem);
        *side.port.begun.lock().unwrap() = Err(problem.into());
        let (page, button) = (side.get("/authorize/t0ken").await, side.press("t0ken").await);
        assert_eq!((page.status, button.status), (status, status));
        assert_eq!(page.body, button.body);
        assert_eq!(button.field("set-cookie"), None);
        assert_sound(&page);
    }
    let asked = side.asked().len();
    assert_eq!(side.get("/authorize/%ff").await.status, 404, "no text, no link");
    assert_eq!(side.press("%ff").await.status, 404);
    assert_eq!(side.asked().len(), asked);
}

#[tokio::test]
async fn names_that_hold_markup_stay_text() {
    let side = Side::start().await;
    let hostile = "\"><script>alert(1)</script><img src=x onerror='x'>&amp;\u{202e}";
    let escaped = "&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img";
    *side.port.opened.lock().unwrap() = Ok(Invitation {
        account: hostile.to_owned(),
        email: Some(format!("{hostile}@example.com")),
        provider_name: hostile.to_owned(),
        provider_title: hostile.to_owned(),
    });
    *side.port.completed.lock().unwrap() = Ok(Granted {
        account: hostile.to_owned(),
        email: None,
        return_to: None,
    });
    let mut pages = vec![
        side.get("/authorize/t0ken").await,
        side.get("/oauth/callback?state=s3cret").await,
    ];
    for problem in [
        Problem::MissingScopes(vec![hostile.to_owned()]),
        Problem::WrongMailbox {
            asked: hostile.to_owned(),
            given: hostile.to_owned(),
        },
        Problem::LoginRefused {
            reason: hostile.to_owned(),
        },
    ] {
        pages.push(side.outcome(problem).await);
    }
    for page in pages {
        assert!(page.body.contains(&format!("<bdi>{escaped}")), "{}", page.body);
        for markup in ["<script", "<img", "alert(1)</script"] {
            assert!(!page.body.contains(markup), "{markup} in {}", page.body);
        }
    }
}

#[tokio::test]
async fn a_page_stays_short_whatever_it_is_told() {
    let side = Side::start().await;
    let long = "ä".repeat(100_000);
    let reply = side
        .outcome(Problem::WrongMailbox {
            asked: long.clone(),
            given: long.clone(),
        })
        .await;
    assert!(reply.body.len() < 10_000, "{}", reply.body.len());
    let reply = side.outcome(Problem::MissingScopes(vec![long; 1000])).await;
    assert!(reply.body.len() < 60_000, "{}", reply.body.len());
}

#[tokio::test]
async fn a_post_that_another_site_sends_begins_nothing() {
    let side = Side::start().await;
    for (name, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
    ] {
        let reply = side
            .ask("POST", "/authorize/t0ken", &[(name, value), ("Content-Length", "0")])
            .await;
        assert_eq!(reply.status, 403, "{name}: {value}");
        assert_eq!(reply.field("set-cookie"), None);
        assert_sound(&reply);
        assert_protected(&reply);
    }
    assert_eq!(side.asked(), []);
}

#[tokio::test]
async fn other_paths_and_methods_have_a_page_and_reach_nothing() {
    let side = Side::start().await;
    for (method, path, status, allow) in [
        ("GET", "/", 404, None),
        ("GET", "/authorize", 404, None),
        ("GET", "/authorize/", 404, None),
        ("GET", "/authorize/a/b", 404, None),
        ("GET", "/v1/accounts", 404, None),
        ("GET", "/../etc/passwd", 404, None),
        ("POST", "/", 404, None),
        ("PUT", "/authorize/t0ken", 405, Some("GET,HEAD,POST")),
        ("OPTIONS", "/authorize/t0ken", 405, Some("GET,HEAD,POST")),
        ("POST", "/oauth/callback?state=s3cret", 405, Some("GET,HEAD")),
    ] {
        let reply = side.ask(method, path, &[("Content-Length", "0")]).await;
        assert_eq!((reply.status, reply.field("allow")), (status, allow), "{method} {path}");
        assert_sound(&reply);
        assert_protected(&reply);
    }
    let head = side.ask("HEAD", "/oauth/callback?code=c0de&state=s3cret", &[]).await;
    assert_eq!(
        (head.status, head.field("allow"), head.body.as_str()),
        (405, Some("GET"), "")
    );
    assert_eq!(side.asked(), []);
}

#[tokio::test]
async fn search_engines_are_asked_to_stay_away() {
    let reply = Side::start().await.get("/robots.txt").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "User-agent: *\nDisallow: /\n")
    );
    assert_protected(&reply);
}

#[tokio::test]
async fn routes_lie_below_the_public_urls_path() {
    let side = Side::at("https://example.com/:mail/", &[]).await;
    assert_eq!(side.get("/:mail/authorize/t0ken").await.status, 200);
    assert_eq!(side.get("/authorize/t0ken").await.status, 404);
    let begun = side.ask("POST", "/:mail/authorize/t0ken", OWN).await;
    let cookie = begun.field("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Secure-portreeve=") && cookie.contains("; Path=/:mail/;"),
        "{cookie}"
    );
    side.get("/:mail/oauth/callback?state=s3cret").await;
    let redirected = "https://example.com/:mail/oauth/callback?state=s3cret".to_owned();
    assert_eq!(side.asked().last(), Some(&Asked::Complete(redirected, None)));
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_how_long_to_wait() {
    let side = Side::start().await;
    let mut last = side.get("/authorize/t0ken").await;
    for _ in 0..2 * WEB_REQUESTS_BURST {
        last = side
            .ask("GET", "/authorize/t0ken", &[("X-Forwarded-For", "203.0.113.5")])
            .await;
    }
    assert_eq!((last.status, last.field("retry-after")), (429, Some("1")));
    assert_sound(&last);
    assert_protected(&last);
    let opened = side.asked().len();
    side.press("t0ken").await;
    assert!(opened < 2 * WEB_REQUESTS_BURST as usize);
    assert_eq!(
        side.asked()
            .iter()
            .filter(|asked| matches!(asked, Asked::Begin(..)))
            .count(),
        0
    );
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_of_its_clients_has_a_limit_of_its_own() {
    let side = Side::at("https://mail.example.com", &["127.0.0.1/32"]).await;
    let ask = async |client: &str| {
        let fields = [("X-Forwarded-For", client)];
        side.ask("GET", "/robots.txt", &fields).await.status
    };
    for _ in 0..2 * WEB_REQUESTS_BURST {
        ask("198.51.100.9, 203.0.113.5").await;
    }
    assert_eq!(
        ask("198.51.100.1, 203.0.113.5").await,
        429,
        "what the client wrote itself does not count"
    );
    assert_eq!(ask("203.0.113.6").await, 200);
}

#[tokio::test]
async fn what_is_too_large_or_malformed_is_refused() {
    let side = Side::start().await;
    let large = "x".repeat(WEB_BODY_BYTES_MAX + 1);
    let post = format!(
        "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    let reply = Reply::parse(&side.raw(post.as_bytes()).await);
    assert_eq!(reply.status, 413);
    assert_sound(&reply);
    assert_protected(&reply);
    let header = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(2 * WEB_HEADER_BYTES_MAX)
    );
    for (request, expected) in [
        (header.as_str(), "431"),
        ("GET / HTTP/9.9\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n", "400"),
        (
            "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            "400",
        ),
        (
            "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\nxx",
            "400",
        ),
    ] {
        let answer = side.raw(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{request:.60}: {answer:?}"
        );
    }
    assert_eq!(side.asked(), []);
}

#[tokio::test]
async fn a_connection_is_good_for_one_request() {
    let side = Side::start().await;
    let two = "GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".repeat(2);
    let answer = side.raw(two.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn slow_headers_and_slow_bodies_are_cut_in_time() {
    let side = Side::start().await;
    let begun = tokio::time::Instant::now();
    assert_eq!(side.raw(b"GET / HTTP/1.1\r\nHost:").await, "");
    let half = "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx";
    assert_eq!(Reply::parse(&side.raw(half.as_bytes()).await).status, 408);
    let took = begun.elapsed();
    assert!(
        took >= 2 * WEB_INPUT_TIMEOUT && took < 2 * WEB_INPUT_TIMEOUT + Duration::from_secs(2),
        "{took:?}"
    );
    assert_eq!(side.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_request_that_never_comes_whole() {
    let side = Side::start().await;
    let mut stream = side.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let begun = tokio::time::Instant::now();
    side.stop().await;
    assert!(begun.elapsed() < WEB_INPUT_TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let side = Side::start().await;
    let mut held = Vec::new();
    for _ in 0..WEB_CONNECTIONS_PER_IP_MAX {
        let mut stream = side.connect().await;
        stream.write_all(b"GET / HT").await.unwrap();
        held.push(stream);
    }
    let refused = side.raw(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(refused, "");
    drop(held.pop());
    // The place is free as soon as the side has seen the connection end.
    while side
        .raw(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_consent_that_takes_long_goes_on_behind_an_answer_that_claims_nothing() {
    let side = Side::start().await;
    *side.port.takes.lock().unwrap() = WEB_REQUEST_TIMEOUT + Duration::from_secs(5);
    let reply = side.get("/oauth/callback?code=c0de&state=s3cret").await;
    assert_eq!(reply.status, 504);
    assert_sound(&reply);
    assert_protected(&reply);
    assert!(reply.text().contains("The work goes on"), "{}", reply.text());
    let port = side.port.clone();
    assert_eq!(*port.ended.lock().unwrap(), 0);
    side.stop().await;
    assert_eq!(*port.ended.lock().unwrap(), 1, "a stop waits for it");
}

#[tokio::test]
async fn a_browser_that_hangs_up_does_not_stop_a_consent() {
    let side = Side::start().await;
    *side.port.takes.lock().unwrap() = Duration::from_millis(100);
    let mut stream = side.connect().await;
    stream
        .write_all(b"GET /oauth/callback?code=c0de HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    while side.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    let port = side.port.clone();
    side.stop().await;
    assert_eq!(*port.ended.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_defect_is_a_page_and_not_an_end() {
    let side = Side::start().await;
    *side.port.is_defective.lock().unwrap() = true;
    let reply = side.get("/oauth/callback?code=c0de").await;
    assert_eq!(reply.status, 500);
    assert_sound(&reply);
    assert_eq!(side.get("/robots.txt").await.status, 200);
}

#[tokio::test]
async fn a_taken_address_is_told_with_the_key_that_names_it() {
    let side = Side::start().await;
    let settings = config::Web {
        listen: Some(side.address),
        public_url: Some(Url::parse("https://mail.example.com").unwrap()),
        ..config::Web::default()
    };
    let text = Bound::open(&settings, None).unwrap_err().to_string();
    let expected = format!("web.listen: cannot listen on {}", side.address);
    assert!(text.starts_with(&expected), "{text}");
    assert!(Bound::open(&config::Web::default(), None).unwrap().is_none());
}
