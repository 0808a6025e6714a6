//! What lies behind a transcript's conversation: the proxy, its upstream, the OAuth2 provider where
//! one is needed, and the orders (`@` lines) that prepare and change them.
//!
//! ```text
//! oauth                                   a real OAuth2 provider         ┐ before
//! upstream off|starttls|implicit|closed   how, and at the port {upstream} │ anything
//! port NAME                               a free port for the config     ┘ else
//! account NAME password=P|grant=refresh|grant=fresh [email=E] [provider=P] [smtp.user=U]
//! token ACCOUNT [as=NAME] [scopes=A,B] [addresses=A,B] [expires=TIME|past]
//! client [from=ADDRESS] [to=PORT] [starttls|tls] [bytewise]    the scene's clients, before they connect
//! delete token NAME · delete account NAME · disable account NAME · move account NAME PROVIDER · close sessions · stop
//! fault KIND · refuse                     what the provider does from here on
//! state ACCOUNT STATE · refreshes NUMBER · log TEXT   what must be so, soon
//! error ACCOUNT TEXT                      what the account's last error must say, soon
//! upstream lets in                        the upstream's side of a login that succeeds
//! greeted [2|3]                           the client reads its greeting, and says EHLO where that is due
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::PATIENCE;
use super::portreeve::{Endpoint, PROVIDER, Portreeve, Setup};
use super::ports::free_port;
use super::process::tail;
use super::protocol::Protocol;
use super::provider::{Fault, Provider, ProviderOptions};
use super::transcript::Words;
use super::upstream::{Security, Upstream};
use super::wire::Wire;

/// The proxy and what it talks to, from its configuration's first line on.
pub struct Bed {
    protocol: Protocol,
    config: String,
    provider: Option<Provider>,
    upstream: Option<Upstream>,
    upstream_is_closed: bool,
    portreeve: Option<Portreeve>,
    words: Words,
    /// What no log may hold.
    secrets: Vec<String>,
    client: Client,
}

/// How a scene's clients connect.
struct Client {
    from: Option<IpAddr>,
    to: Option<u16>,
    tls: Security,
    bytewise: bool,
}

impl Bed {
    /// A bed whose clients and upstream speak this protocol.
    pub fn of(protocol: Protocol) -> Bed {
        Bed {
            protocol,
            config: String::new(),
            provider: None,
            upstream: None,
            upstream_is_closed: false,
            portreeve: None,
            words: Words::default(),
            secrets: Vec::new(),
            client: Client::default(),
        }
    }

    /// What its clients and upstream speak.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Adds a line to the proxy's configuration.
    pub fn configure(&mut self, line: &str) {
        assert!(self.portreeve.is_none(), "the proxy runs already");
        self.config.push_str(&self.words.fill(line));
        self.config.push('\n');
    }

    /// The placeholders.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// The placeholders, to give them meanings.
    pub fn words_mut(&mut self) -> &mut Words {
        &mut self.words
    }

    /// The upstream that the test plays.
    pub fn upstream(&self) -> &Upstream {
        self.upstream.as_ref().expect("the proxy was started with an upstream")
    }

    /// What the proxy has logged, its end.
    pub fn log(&self) -> String {
        self.portreeve
            .as_ref()
            .map(|proxy| tail(&proxy.log()))
            .unwrap_or_default()
    }

    /// Fails if the proxy has logged a token or password of these accounts.
    pub fn expect_no_secrets_logged(&self) {
        let log = self.portreeve.as_ref().map(Portreeve::log).unwrap_or_default();
        let logged = self.secrets.iter().find(|secret| log.contains(secret.as_str()));
        assert_eq!(logged, None, "a secret in the log\n{log}");
    }

    /// Whether clients send a byte at a time.
    pub fn is_bytewise(&self) -> bool {
        self.client.bytewise
    }

    /// The next clients connect as if nothing had been ordered for them.
    pub fn forget_client(&mut self) {
        self.client = Client::default();
    }

    /// A new client of the proxy, with its greeting unread.
    pub async fn connect(&mut self) -> Wire {
        self.start().await;
        let portreeve = self.proxy();
        let local = self.client.from.map(|address| SocketAddr::new(address, 0));
        let mut to = portreeve.door(self.protocol, self.client.tls);
        if let Some(port) = self.client.to {
            to.set_port(port);
        }
        let authority = (self.client.tls == Security::Implicit).then(|| portreeve.authority());
        Wire::dial(local, to, authority).await
    }

    /// What a client trusts that goes on inside TLS.
    pub fn client_tls(&self) -> Arc<ClientConfig> {
        self.proxy().authority().client_config()
    }

    /// Carries out an order.
    pub async fn obey(&mut self, order: &str) {
        let order = self.words.fill(order);
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["oauth"] => self.provider = Some(Provider::start(ProviderOptions::default()).await),
            ["port", name] => self.words.set(name, free_port().to_string()),
            ["upstream", "closed"] => self.upstream_is_closed = true,
            ["upstream", security] => {
                let security = Security::by_name(security).expect("off, starttls, implicit or closed");
                let upstream = Upstream::listen(security).await;
                self.words.set("upstream", upstream.address().port().to_string());
                self.upstream = Some(upstream);
            }
            ["client", settings @ ..] => self.order_client(settings),
            words => {
                self.start().await;
                self.obey_running(words).await;
            }
        }
    }

    async fn obey_running(&mut self, words: &[&str]) {
        match words {
            ["account", name, settings @ ..] => self.add_account(name, settings).await,
            ["token", account, settings @ ..] => self.add_token(account, settings).await,
            ["delete", "token", token] => self.delete(&format!("/v1/token/{token}")).await,
            ["delete", "account", account] => self.delete(&format!("/v1/account/{account}")).await,
            ["disable", "account", account] => {
                let path = format!("/v1/account/{account}");
                let (status, answer) = self
                    .proxy()
                    .ask(Method::PUT, &path, Some(&json!({"disabled": true})))
                    .await;
                assert_eq!(status, 200, "{answer}");
            }
            ["move", "account", account, provider] => {
                let (path, change) = (format!("/v1/account/{account}"), json!({ "provider": provider }));
                let (status, answer) = self.proxy().ask(Method::PUT, &path, Some(&change)).await;
                assert_eq!(status, 200, "{answer}");
            }
            ["close", "sessions"] => {
                let sessions = self.proxy().read("/v1/sessions").await;
                for session in sessions["sessions"].as_array().expect("a list") {
                    let id = session["id"].as_str().expect("an id is text");
                    let (status, answer) = self.proxy().delete(&format!("/v1/session/{id}")).await;
                    // One of a scene before may just have ended.
                    assert!(status == 200 || status == 404, "{answer}");
                }
            }
            ["stop"] => {
                let portreeve = self.portreeve.as_mut().expect("it was started");
                portreeve.process().signal(Signal::TERM);
            }
            ["fault", fault @ ..] => self.provider().fault(fault_named(fault)).await,
            ["refuse"] => self.provider().stop().await,
            ["state", account, state] => self.expect_state(account, state).await,
            ["error", account, text @ ..] => self.expect_error(account, &text.join(" ")).await,
            ["refreshes", number] => {
                let counters = self.provider().counters(MAILBOX).await;
                assert_eq!(counters.refreshes.to_string(), *number, "{counters:?}");
            }
            ["log", text @ ..] => self.expect_log(&text.join(" ")).await,
            other => panic!("no such order: {other:?}"),
        }
    }

    fn order_client(&mut self, settings: &[&str]) {
        for setting in settings {
            match setting.split_once('=').unwrap_or((setting, "")) {
                ("from", address) => self.client.from = Some(address.parse().expect("an address")),
                ("to", port) => self.client.to = Some(port.parse().expect("a port")),
                ("starttls", "") => self.client.tls = Security::StartTls,
                ("tls", "") => self.client.tls = Security::Implicit,
                ("bytewise", "") => self.client.bytewise = true,
                _ => panic!("no such setting of clients: {setting}"),
            }
        }
    }

    async fn add_account(&mut self, account: &str, settings: &[&str]) {
        let mut body = json!({ "account": account, "provider": PROVIDER, "user": MAILBOX });
        for (setting, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
            match (setting, value) {
                ("grant", kind) => {
                    let grant = self.provider().mint(MAILBOX).await;
                    self.words.set("access", grant.access_token.clone());
                    self.secrets
                        .extend([grant.access_token.clone(), grant.refresh_token.clone()]);
                    body["oauth2"] = json!({ "refreshToken": grant.refresh_token });
                    if kind == "fresh" {
                        body["oauth2"]["accessToken"] = json!(grant.access_token);
                        body["oauth2"]["expires"] = json!("2099-01-01T00:00:00Z");
                    }
                }
                (setting, value) => match setting.split_once('.') {
                    Some((protocol, setting)) => body[protocol][setting] = json!(value),
                    None => body[setting] = json!(value),
                },
            }
        }
        let answer = self.proxy().post("/v1/account", &body).await;
        assert_eq!(answer, json!({ "account": account, "state": "new" }));
    }

    async fn add_token(&mut self, account: &str, settings: &[&str]) {
        let mut body = json!({ "account": account, "scopes": [self.protocol.scope()], "description": "a transcript" });
        let mut name = "token";
        for (setting, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
            let list = || Value::from(value.split(',').collect::<Vec<_>>());
            match setting {
                "as" => name = value,
                "scopes" => body["scopes"] = list(),
                "addresses" => body["restrictions"] = json!({ "addresses": list() }),
                setting => body[setting] = json!(value),
            }
        }
        let token = match &body["expires"] {
            Value::String(past) if past == "past" => self.expired_token(body).await,
            _ => self.proxy().create_token(&body).await,
        };
        self.secrets.push(token.clone());
        self.words.set(name, token);
    }

    /// A token that has just expired. Its life is as short as can be while the proxy still hears of it before its end.
    async fn expired_token(&self, mut body: Value) -> String {
        let mut life = jiff::SignedDuration::from_millis(50);
        loop {
            let end = jiff::Timestamp::now() + life;
            body["expires"] = json!(end.to_string());
            let (status, answer) = self.proxy().ask(Method::POST, "/v1/token", Some(&body)).await;
            if status == 200 {
                while jiff::Timestamp::now() <= end {
                    tokio::time::sleep(POLL).await;
                }
                return answer["token"].as_str().expect("a token is text").to_owned();
            }
            assert!(life.as_secs() < 10, "{answer}");
            life += life;
        }
    }

    async fn delete(&self, path: &str) {
        let (status, answer) = self.proxy().delete(path).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }

    async fn expect_state(&self, account: &str, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.proxy().account_state(account).await;
            if now == state {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{account} is {now}, not {state}\n{}",
                self.log()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn expect_error(&self, account: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.proxy().read(&format!("/v1/account/{account}")).await;
            if shown["lastError"].to_string().contains(text) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} is not the last error: {shown}\n{}",
                self.log()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    async fn expect_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.proxy().log().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not logged\n{}", self.log());
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts the proxy with what was ordered so far, unless it runs.
    async fn start(&mut self) {
        if self.portreeve.is_some() {
            return;
        }
        if self.upstream.is_none() {
            self.upstream = Some(Upstream::listen(Security::Off).await);
        }
        let upstream = self.upstream();
        let mut endpoint = Endpoint::new(self.protocol, upstream.address(), upstream.security());
        if self.upstream_is_closed {
            endpoint.address.set_port(free_port());
        }
        let ca_file = upstream.ca_file();
        let setup = Setup::default().listening(self.protocol);
        let setup = match &self.provider {
            Some(provider) => setup.provider_at(provider.endpoints(), &[endpoint], &ca_file),
            None => setup.with(&format!(
                "[provider.{PROVIDER}]\nca_file = \"{}\"\n{}",
                ca_file.display(),
                endpoint.to_toml(),
            )),
        };
        self.portreeve = Some(setup.with(&self.config).start().await);
    }

    fn proxy(&self) -> &Portreeve {
        self.portreeve.as_ref().expect("it was started")
    }

    fn provider(&self) -> &Provider {
        self.provider.as_ref().expect("`@ oauth` comes first")
    }
}

impl Default for Client {
    fn default() -> Client {
        Client {
            from: None,
            to: None,
            tls: Security::Off,
            bytewise: false,
        }
    }
}

fn fault_named(words: &[&str]) -> Fault {
    match words {
        ["invalid_grant"] => Fault::InvalidGrant,
        ["invalid_client"] => Fault::InvalidClient,
        ["temporarily_unavailable"] => Fault::TemporarilyUnavailable,
        ["too_many_requests"] => Fault::TooManyRequests { retry_after: 60 },
        ["server_error"] => Fault::ServerError,
        ["html_502"] => Fault::Html502,
        ["html_200"] => Fault::Html200,
        ["drop"] => Fault::Drop,
        ["hang"] => Fault::Hang,
        ["error", error] => Fault::Custom {
            status: 400,
            body: json!({ "error": error }),
        },
        other => panic!("no such fault: {other:?}"),
    }
}

/// The login name of every account at its upstream and at the provider.
const MAILBOX: &str = "mailbox";
const POLL: Duration = Duration::from_millis(10);
