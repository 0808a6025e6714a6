//! The command's own listener, which the owner's browser is sent back to (RFC 8252 §7.3).
//!
//! ```text
//!   GET / with the right state ──> come_back ──(the daemon exchanges and logs in)──> answer ──> the page, in that browser
//!   anything else ─────────────> 404, and the wait goes on
//! ```
//! It listens on 127.0.0.1 and ::1, on the same port, because the browser decides which of them `localhost` is, and names
//! itself `http://localhost:PORT`: of all names for this machine, Microsoft takes only that one with any port, registered as
//! `http://localhost`; Google takes it for desktop apps without any registration. Other programs on this machine may connect as
//! well, so that nothing counts but the state, which only the owner's browser has been told.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use super::Refusal;
use super::page::page;
use crate::admin::types::AuthorizationOutcome;
use crate::cli::Failure;
use crate::limits::{
    CODE_FLOW_LIFE, HTTP_WRITE_TIMEOUT, LOOPBACK_CONNECTIONS_MAX, LOOPBACK_INPUT_TIMEOUT, LOOPBACK_LAST_WORDS,
    REDIRECT_BYTES_MAX,
};
use crate::net::http_server::{Bounds, Reuse, serve_connection, stopped};
use crate::web::content_security_policy;

/// A listener on this machine, of one flow.
pub(super) struct Listener {
    port: u16,
    sockets: Vec<TcpListener>,
    serving: JoinSet<()>,
    redirects: Option<mpsc::Receiver<Url>>,
    outcome: watch::Sender<Option<Words>>,
    stop: watch::Sender<bool>,
}

/// What the browser is told at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Words {
    status: StatusCode,
    title: &'static str,
    text: String,
}

/// What the handler knows.
struct Door {
    /// What the browser must bring.
    state: String,
    /// The redirect's own place.
    base: Url,
    redirects: mpsc::Sender<Url>,
    outcome: watch::Receiver<Option<Words>>,
}

impl Listener {
    /// Binds a free port of this machine, on both of its addresses where it has both.
    ///
    /// # Errors
    /// If there is none.
    pub(super) async fn bind() -> Result<Self, Failure> {
        let cannot =
            |error: io::Error| Failure::failed(format!("cannot listen on this machine for the browser: {error}"));
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS_MAX {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot)?;
            let port = v4.local_addr().map_err(cannot)?.port();
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
                Ok(v6) => return Ok(Self::new(port, vec![v4, v6])),
                // Somebody else has that port there; another is free on both.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(_) => return Ok(Self::new(port, vec![v4])),
            }
        }
        Err(cannot(last))
    }

    fn new(port: u16, sockets: Vec<TcpListener>) -> Self {
        Self {
            port,
            sockets,
            serving: JoinSet::new(),
            redirects: None,
            outcome: watch::Sender::new(None),
            stop: watch::Sender::new(false),
        }
    }

    /// Where the browser comes back to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Where the browser is to come back to.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// From now on serves whoever connects, and waits for a browser that brings `state`.
    pub(super) fn expect(&mut self, state: String) {
        let base = Url::parse(&self.redirect_uri()).expect("a port makes a URL");
        let (redirects, receiver) = mpsc::channel(1);
        let door = Arc::new(Door {
            state,
            base,
            redirects,
            outcome: self.outcome.subscribe(),
        });
        // Every path and method comes to the one handler, which says no to all but one.
        let router = Router::new().fallback(come_back).with_state(door);
        for socket in self.sockets.drain(..) {
            self.serving
                .spawn(accept(socket, router.clone(), self.stop.subscribe()));
        }
        self.redirects = Some(receiver);
    }

    /// Waits for the browser, and gives the URL that it was sent back to.
    ///
    /// # Errors
    /// If nothing is listened to any more.
    pub(super) async fn come_back(&mut self) -> Result<Url, Failure> {
        let redirected = match &mut self.redirects {
            Some(redirects) => redirects.recv().await,
            None => None,
        };
        redirected.ok_or_else(|| Failure::failed("the listener for the browser has ended"))
    }

    /// Shows the browser how it ended, and stops listening.
    pub(super) async fn answer(mut self, words: Words) {
        self.outcome.send_replace(Some(words));
        self.stop.send_replace(true);
        // A browser that does not read its page is not waited for.
        let _ = timeout(LOOPBACK_LAST_WORDS, async {
            while self.serving.join_next().await.is_some() {}
        })
        .await;
    }
}

impl Words {
    /// What is true of `outcome`.
    pub(super) fn of(outcome: &Result<AuthorizationOutcome, Refusal>) -> Self {
        match outcome {
            Ok(outcome) => Self {
                status: StatusCode::OK,
                title: "The mailbox is open",
                text: format!("{} is authorized. You can close this window.", outcome.account),
            },
            Err(Refusal::Told { message, .. }) => Self::failed(message),
            Err(Refusal::Failure(failure)) => Self::failed(&failure.message),
        }
    }

    fn failed(message: &str) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            title: "The mailbox is not open",
            text: format!("It did not work: {}.", message.trim_end_matches('.')),
        }
    }
}

/// Accepts until `stop`, then waits for the requests in progress.
async fn accept(socket: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let mut stopping = stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = stopped(&mut stopping) => break,
        };
        while connections.try_join_next().is_some() {}
        // A failed accept is of that connection alone, and of too many there is one less.
        if let Ok((stream, _)) = accepted
            && connections.len() < LOOPBACK_CONNECTIONS_MAX
        {
            let bounds = Bounds {
                header_bytes_max: 2 * REDIRECT_BYTES_MAX,
                header_timeout: LOOPBACK_INPUT_TIMEOUT,
                write_timeout: HTTP_WRITE_TIMEOUT,
                reuse: Reuse::Never,
                // A browser that is back waits for the outcome, and there is none after this.
                life: CODE_FLOW_LIFE,
            };
            connections.spawn(serve_connection(stream, router.clone(), bounds, stop.clone()));
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Takes the redirect, and answers when it is known how it ended. A browser that asks again waits for the same.
async fn come_back(State(door): State<Arc<Door>>, request: Request) -> Response {
    let Some(url) = door.redirected(&request) else {
        let words = "There is nothing here. If you were sent here by the provider, begin again.";
        return shown(StatusCode::NOT_FOUND, "Not found", words);
    };
    // One is enough, and the first counts.
    let _ = door.redirects.try_send(url);
    let mut outcome = door.outcome.clone();
    let words = match outcome.wait_for(Option::is_some).await {
        Ok(words) => words.clone(),
        Err(_) => None,
    };
    match words {
        Some(Words { status, title, text }) => shown(status, title, &text),
        None => shown(
            StatusCode::GONE,
            "Too late",
            "The command that waited for this has ended. Begin again.",
        ),
    }
}

impl Door {
    /// The URL that the browser was sent to, if the request is the redirect of this flow.
    fn redirected(&self, request: &Request) -> Option<Url> {
        if request.method() != Method::GET || request.uri().path() != self.base.path() {
            return None;
        }
        let mut url = self.base.clone();
        url.set_query(request.uri().query());
        let (_, state) = url.query_pairs().find(|(name, _)| name == "state")?;
        let is_right: bool = state.as_bytes().ct_eq(self.state.as_bytes()).into();
        is_right.then_some(url)
    }
}

fn shown(status: StatusCode, title: &str, text: &str) -> Response {
    let policy = [(header::CONTENT_SECURITY_POLICY, content_security_policy(None))];
    let html = Html(page(status.is_success(), title, text));
    (status, PROTECTION, policy, html).into_response()
}

/// The address holds a code that is used up; nobody else need hear of it all the same.
const PROTECTION: [(HeaderName, HeaderValue); 3] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// How often a port is looked for that is free on both addresses.
const ATTEMPTS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::store::AccountState;

    async fn ask(address: &str, port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((address, port)).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn listener() -> (Listener, u16) {
        let mut listener = Listener::bind().await.unwrap();
        listener.expect("right".to_owned());
        let port = listener.port;
        (listener, port)
    }

    fn authorized() -> Words {
        Words::of(&Ok(AuthorizationOutcome {
            account: "ada & co".to_owned(),
            state: AccountState::Active,
        }))
    }

    #[tokio::test]
    async fn nothing_but_the_right_request_ends_the_wait() {
        let (mut listener, port) = listener().await;
        for request in [
            "GET /",
            "GET /favicon.ico",
            "GET /?code=c&state=wrong",
            "GET /callback?code=c&state=right",
            "POST /?code=c&state=right",
            "HEAD /?code=c&state=right",
        ] {
            let answer = ask("127.0.0.1", port, request).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{request}: {answer}");
        }
        let (answer, ()) = tokio::join!(ask("127.0.0.1", port, "GET /?code=c&state=right"), async {
            let url = listener.come_back().await.unwrap();
            assert_eq!(url.as_str(), format!("http://localhost:{port}/?code=c&state=right"));
            listener.answer(authorized()).await;
        });
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("ada &amp; co is authorized"), "{answer}");
        assert!(answer.contains("referrer-policy: no-referrer"), "{answer}");
        assert!(
            TcpStream::connect(("127.0.0.1", port)).await.is_err(),
            "it listens no more"
        );
    }

    #[tokio::test]
    async fn the_browser_may_come_by_either_address_and_hears_the_reason() {
        let (mut listener, port) = listener().await;
        assert_eq!(listener.redirect_uri(), format!("http://localhost:{port}"));
        // A machine without IPv6 has one address, and then localhost is that one.
        let address = if listener.serving.len() == 2 {
            "::1"
        } else {
            "127.0.0.1"
        };
        let request = "GET /?error=access_denied&state=right";
        let (answer, ()) = tokio::join!(ask(address, port, request), async {
            listener.come_back().await.unwrap();
            let message = "the permission was not given".to_owned();
            let code = "denied".to_owned();
            listener.answer(Words::of(&Err(Refusal::Told { code, message }))).await;
        });
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert!(answer.contains("the permission was not given"), "{answer}");
    }
}
