//! Provider, Dovecot and proxy with a public side, and the steps that every consent is made of.

use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use crate::support::bed::Bed;
use crate::support::browser::{Shown, Tab};
use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{Endpoint, PROVIDER, Setup};
use crate::support::ports::free_port;
use crate::support::protocol::Protocol;
use crate::support::provider::{Provider, ProviderOptions, Request};
use crate::support::upstream::Security;
use crate::support::visitor::Visitor;

pub const ALICE: &str = "alice@example.com";
pub const BOB: &str = "bob@example.com";
/// Where the browsers of the flows by code are sent to. Nobody listens there: their visitors stop on the way.
pub const CALLBACK: &str = "http://localhost:4711/callback";
/// What the provider is asked for, as it tells whose grant it is.
pub const ALL_SCOPES: [&str; 4] = ["openid", "email", "mail", "offline_access"];

/// How a consent that came to nothing is told over the API: the HTTP status, and the code for programs.
pub type Refusal = (u16, &'static str);
pub const UNKNOWN_STATE: Refusal = (404, "unknown_state");
pub const DENIED: Refusal = (403, "denied");
pub const PARTIAL_CONSENT: Refusal = (403, "partial_consent");
pub const WRONG_MAILBOX: Refusal = (403, "wrong_mailbox");
pub const WRONG_ISSUER: Refusal = (403, "issuer_mismatch");
pub const EXPIRED: Refusal = (410, "expired");
pub const LOGIN_REFUSED: Refusal = (502, "login_refused");
pub const LOGIN_UNAVAILABLE: Refusal = (503, "login_unavailable");
pub const EXCHANGE_REFUSED: Refusal = (502, "exchange_failed");
pub const EXCHANGE_TROUBLE: Refusal = (503, "exchange_failed");

/// How browsers reach the public side.
#[derive(Clone, Copy)]
pub enum Web {
    /// Over TLS, by the proxy's own authority.
    Tls,
    /// In clear, on loopback.
    Clear,
}

/// What a test may choose of it.
pub struct Plan {
    pub web: Web,
    /// What the proxy asks the provider for. Without `email` only a login can tell whose grant it is.
    pub scopes: &'static [&'static str],
    pub provider: ProviderOptions,
    /// More of the proxy's configuration.
    pub toml: &'static str,
}

/// All of it.
pub struct Consent {
    pub bed: Bed,
    /// How browsers reach the public side.
    pub public_url: Url,
    web_port: u16,
    upstream_port: u16,
    http: reqwest::Client,
    forwarding: JoinSet<()>,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            web: Web::Tls,
            scopes: &ALL_SCOPES,
            provider: ProviderOptions::default(),
            toml: "",
        }
    }
}

impl Plan {
    /// Starts everything. The mailboxes can be reached.
    pub async fn start(self) -> Consent {
        let mut consent = self.start_without_upstream().await;
        consent.reach_upstream().await;
        consent
    }

    /// The same, but connections to the mailboxes are refused until [`Consent::reach_upstream`].
    pub async fn start_without_upstream(self) -> Consent {
        let provider = Provider::start(self.provider).await;
        let dovecot = Dovecot::start(&provider).await;
        let (web_port, upstream_port) = (free_port(), free_port());
        let (scheme, certificate) = match self.web {
            Web::Tls => ("https", "own"),
            Web::Clear => ("http", ""),
        };
        // Another host than the provider's, so that browsers take it for another site, too.
        let public_url = format!("{scheme}://localhost:{web_port}");
        provider.redirect_to(&[&format!("{public_url}/oauth/callback")]).await;
        let upstream = SocketAddr::from(([127, 0, 0, 1], upstream_port));
        let endpoints = provider.endpoints();
        let portreeve = Setup::default()
            .with(self.toml)
            .with(&format!(
                r#"
[certificate.own]
self_signed = true
[web]
listen = "127.0.0.1:{web_port}"
public_url = "{public_url}"
certificate = "{certificate}"
[provider.{PROVIDER}]
issuer = "{}"
client_id = "{}"
client_secret = "{}"
scopes = {:?}
ca_file = "{}"
{}"#,
                endpoints.issuer,
                endpoints.client_id,
                endpoints.client_secret,
                self.scopes,
                dovecot.ca_file().display(),
                Endpoint::new(Protocol::Imap, upstream, Security::Implicit).to_toml(),
            ))
            .start()
            .await;
        let http = reqwest::Client::builder()
            .unix_socket(portreeve.socket())
            .pool_max_idle_per_host(0)
            .build();
        Consent {
            bed: Bed {
                provider,
                postfix: None,
                dovecot,
                portreeve,
                protocols: vec![Protocol::Imap],
            },
            public_url: Url::parse(&public_url).expect("a URL"),
            web_port,
            upstream_port,
            http: http.expect("a client can be made"),
            forwarding: JoinSet::new(),
        }
    }
}

impl Consent {
    /// Lets the mailboxes be reached.
    pub async fn reach_upstream(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.upstream_port)).await;
        let listener = listener.expect("the port is free");
        let dovecot = self.bed.dovecot.imaps();
        self.forwarding.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let Ok(mut server) = TcpStream::connect(dovecot).await else {
                        return;
                    };
                    copy_bidirectional(&mut client, &mut server).await.ok();
                });
            }
        });
    }

    /// Cuts the mailboxes off, connections and all.
    pub async fn lose_upstream(&mut self) {
        self.forwarding.shutdown().await;
    }

    /// Where the mailboxes are, for an account that is to log in there as `user`.
    pub fn endpoint_of(&self, user: &str) -> Value {
        json!({ "host": "localhost", "port": self.upstream_port, "tls": "implicit", "user": user })
    }

    /// The file of the authority that browsers have to trust.
    pub async fn authority(&self) -> PathBuf {
        let status = self.bed.portreeve.read("/v1/status").await;
        let path = status["certificateAuthority"]["path"].as_str();
        path.unwrap_or_else(|| panic!("no authority: {status}")).into()
    }

    /// Adds an account that nobody has consented for; returns an access token for it.
    pub async fn add_account(&self, account: &str, more: &Value) -> String {
        let mut body = json!({ "account": account, "provider": PROVIDER });
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        self.bed.portreeve.post("/v1/account", &body).await;
        self.bed.portreeve.add_token(account).await
    }

    /// Adds an account whose owner has consented; returns an access token for it.
    pub async fn authorized(&self, account: &str) -> String {
        let token = self.add_account(account, &json!({})).await;
        let redirected = self.answered(account, account, &ALL_SCOPES).await;
        let (status, answer) = self.complete(&redirected).await;
        assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
        token
    }

    /// Begins a flow by code; the URL for the owner's browser.
    pub async fn begin_code(&self, account: &str) -> String {
        let body = json!({ "flow": "code", "redirectUri": CALLBACK });
        let begun = self.bed.portreeve.post(&path_of(account), &body).await;
        begun["url"].as_str().expect("a URL is text").to_owned()
    }

    /// Begins a flow by code, which `user` answers by granting `scopes`, or by refusing; the URL that this leads to.
    pub async fn answered(&self, account: &str, user: &str, scopes: &[&str]) -> Url {
        let url = self.begin_code(account).await;
        Visitor::new().consent(&url, user, scopes).await.elsewhere()
    }

    /// Completes a flow by code, as root.
    pub async fn complete(&self, redirected: &Url) -> (u16, Value) {
        let body = json!({ "url": redirected });
        self.bed.portreeve.ask(Method::POST, "/v1/authorize", Some(&body)).await
    }

    /// Asks the admin API as the holder of `token`, who is not root.
    pub async fn ask_as(&self, token: &str, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(format!("http://localhost{path}"));
        let answer = request
            .bearer_auth(token)
            .json(body)
            .send()
            .await
            .expect("an answer comes");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// How the account's latest flow stands.
    pub async fn progress(&self, account: &str) -> Value {
        self.bed.portreeve.read(&path_of(account)).await
    }

    /// Makes a link as `body` says; its URL.
    pub async fn link(&self, body: &Value) -> String {
        let made = self.bed.portreeve.post("/v1/authentication/form", body).await;
        let url = made["url"].as_str().expect("a URL is text");
        assert!(url.starts_with(&format!("{}authorize/", self.public_url)), "{url}");
        url.to_owned()
    }

    /// Fails the test unless the account's mail opens with `token`.
    pub async fn assert_opens(&self, account: &str, token: &str) {
        let reply = self.bed.login(account, token).await;
        assert_eq!(reply, format!("OK {account} authenticated"), "{}", self.bed.log());
    }

    /// The token requests that exchanged a code so far.
    pub async fn exchanges(&self) -> Vec<Request> {
        let mut requests = self.bed.provider.requests().await;
        requests.retain(|request| request.params["grant_type"] == "authorization_code");
        requests
    }

    /// The refresh tokens that were given back so far, oldest first.
    pub async fn given_back(&self) -> Vec<String> {
        let revocations = self.bed.provider.revocations().await;
        let token = |request: &Request| {
            assert_eq!(request.status, Some(200), "{request:?}");
            request.params["token"].clone()
        };
        revocations.iter().map(token).collect()
    }

    /// A client like a mail scanner's: it has no cookies, follows nothing and comes on a new connection each time.
    pub async fn stranger(&self) -> reqwest::Client {
        let pem = std::fs::read(self.authority().await).expect("the authority can be read");
        let client = reqwest::Client::builder()
            .no_proxy()
            .add_root_certificate(reqwest::Certificate::from_pem(&pem).expect("it is a certificate"))
            .redirect(reqwest::redirect::Policy::none())
            .resolve("localhost", SocketAddr::from(([127, 0, 0, 1], self.web_port)))
            .build();
        client.expect("a client can be made")
    }
}

/// Fails the test unless `answer` is this refusal; what it says to people.
pub fn refused(answer: &(u16, Value), refusal: Refusal) -> String {
    let (status, body) = answer;
    assert_eq!((*status, &body["code"]), (refusal.0, &json!(refusal.1)), "{body}");
    body["message"].as_str().expect("a message is text").to_owned()
}

/// Presses the button of a link's page; the provider's login page is in view then.
pub async fn press(owner: &Tab<'_>) {
    let login = owner.follow("role=button").await;
    assert_eq!(login.title, "Log in", "{login:?}");
}

/// Logs in at the provider, once its page is in view, and allows what stays ticked.
pub async fn allow(owner: &Tab<'_>, user: &str, unticked: &[&str]) -> Shown {
    owner.fill("role=textbox[name=\"User name\"]", user).await;
    let consent = owner.follow("role=button[name=\"Log in\"]").await;
    assert_eq!(consent.title, "Allow access?", "{consent:?}");
    for scope in unticked {
        owner.tick(&format!("role=checkbox[name=\"{scope}\"]"), false).await;
    }
    owner.follow("role=button[name=\"Allow\"]").await
}

/// Follows a link to its end, allowing all as `user`.
pub async fn follow_to_end(owner: &Tab<'_>, link: &str, user: &str) -> Shown {
    owner.goto(link).await;
    press(owner).await;
    allow(owner, user, &[]).await
}

fn path_of(account: &str) -> String {
    format!("/v1/account/{account}/authorize")
}
