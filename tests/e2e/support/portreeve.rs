//! The proxy itself as its users run it: the built binary, a configuration file, the admin socket.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::certs::{Authority, Leaf};
use super::dovecot::Dovecot;
use super::imap::Imap;
use super::ports::free_port;
use super::process::Process;
use super::protocol::Protocol;
use super::provider::{Endpoints, Grant, Provider};
use super::upstream::Security;
use super::{PATIENCE, open_directory};

/// A running `portreeve serve` with an IMAP listener in clear on 127.0.0.1 and ::1, one with TLS, and what else was chosen.
pub struct Portreeve {
    process: Option<Process>,
    directory: TempDir,
    authority: Authority,
    imap_port: u16,
    imaps_port: u16,
    doors: Vec<Door>,
    metrics_port: u16,
    admin: Admin,
}

/// The admin API behind a socket; for those that outlive a proxy which a test ends.
#[derive(Clone)]
pub struct Admin {
    http: reqwest::Client,
}

/// What a test may choose of the proxy's configuration.
#[derive(Default)]
pub struct Setup {
    text: String,
    protocols: Vec<Protocol>,
    provider_text: String,
}

/// Where the provider has its upstream of one protocol, on localhost.
pub struct Endpoint {
    /// The protocol.
    pub protocol: Protocol,
    /// The address, of which the port counts.
    pub address: SocketAddr,
    /// How connections begin.
    pub tls: Security,
}

/// A listener beside the two that every bed has.
struct Door {
    protocol: Protocol,
    tls: Security,
    port: u16,
}

/// The name under which [`Setup::provider`] puts the testbed's provider.
pub const PROVIDER: &str = "testbed";

impl Setup {
    /// Adds TOML to the configuration.
    pub fn with(mut self, toml: &str) -> Self {
        self.text.push_str(toml);
        self.text.push('\n');
        self
    }

    /// Adds listeners of a protocol on 127.0.0.1, so that there is one in clear, one with STARTTLS, and one with implicit TLS.
    pub fn listening(mut self, protocol: Protocol) -> Self {
        self.protocols.push(protocol);
        self
    }

    /// Adds TOML to the table of the provider that is added after this.
    pub fn with_provider(mut self, toml: &str) -> Self {
        self.provider_text.push_str(toml);
        self.provider_text.push('\n');
        self
    }

    /// Adds the testbed's OAuth2 provider with the mailboxes of `dovecot`, over implicit TLS.
    pub fn provider(self, provider: &Provider, dovecot: &Dovecot) -> Self {
        let imaps = Endpoint::new(Protocol::Imap, dovecot.imaps(), Security::Implicit);
        self.provider_at(provider.endpoints(), &[imaps], &dovecot.ca_file())
    }

    /// Adds the testbed's OAuth2 provider with endpoints of the test's choice on localhost.
    pub fn provider_at(self, oauth: &Endpoints, endpoints: &[Endpoint], ca_file: &Path) -> Self {
        let Endpoints {
            token_url,
            client_id,
            client_secret,
            ..
        } = oauth;
        let endpoints: String = endpoints.iter().map(Endpoint::to_toml).collect();
        let ca_file = ca_file.display();
        let more = self.provider_text.clone();
        self.with(&format!(
            r#"
[provider.{PROVIDER}]
token_url = "{token_url}"
client_id = "{client_id}"
client_secret = "{client_secret}"
scopes = ["mail", "offline_access"]
ca_file = "{ca_file}"
{endpoints}{more}
"#
        ))
    }

    /// What was chosen so far, for [`Portreeve::write_config`].
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Starts the proxy and waits until it is ready.
    pub async fn start(self) -> Portreeve {
        let mut portreeve = Portreeve::prepare(&self);
        portreeve.spawn();
        portreeve.until_ready().await;
        portreeve
    }
}

impl Portreeve {
    /// Writes the configuration; starts nothing.
    pub fn prepare(setup: &Setup) -> Portreeve {
        // The tests' HTTP client needs one; an error means that another test in this process came first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = open_directory();
        let authority = Authority::new();
        let Leaf {
            certificate_pem,
            key_pem,
        } = authority.issue_for_loopback();
        let portreeve = Portreeve {
            process: None,
            authority,
            imap_port: free_port(),
            imaps_port: free_port(),
            doors: setup.protocols.iter().copied().flat_map(Door::of).collect(),
            metrics_port: free_port(),
            admin: Admin::behind(&directory.path().join("admin.sock")),
            directory,
        };
        let path = portreeve.directory.path();
        std::fs::write(path.join("certificate.pem"), certificate_pem).expect("the certificate can be written");
        std::fs::write(path.join("key.pem"), key_pem).expect("the key can be written");
        std::fs::write(path.join("ca.pem"), portreeve.authority.pem()).expect("the authority can be written");
        portreeve.write_config(&setup.text);
        portreeve
    }

    /// Replaces what the test chose of the configuration; SIGHUP makes it count.
    pub fn write_config(&self, chosen: &str) {
        let path = self.directory.path().display();
        let (imap, imaps, metrics) = (self.imap_port, self.imaps_port, self.metrics_port);
        let doors: String = self.doors.iter().map(Door::to_toml).collect();
        let mut config = String::new();
        if !chosen.contains("[log]") {
            config.push_str("[log]\nlevel = \"debug\"\nformat = \"text\"\n");
        }
        if !chosen.contains("[server]") {
            write!(
                config,
                "[server]\nhostname = \"localhost\"\nstate_dir = \"{path}/state\"\ndrain_timeout = \"2s\"\n"
            )
            .ok();
        }
        if !chosen.contains("[admin]") {
            write!(config, "[admin]\nsocket = \"{path}/admin.sock\"\n").ok();
        }
        write!(
            config,
            r#"
[metrics]
listen = "127.0.0.1:{metrics}"
[certificate.default]
cert_file = "{path}/certificate.pem"
key_file = "{path}/key.pem"
[[listener]]
protocol = "imap"
address = ["127.0.0.1:{imap}", "[::1]:{imap}"]
[[listener]]
protocol = "imap"
address = "127.0.0.1:{imaps}"
tls = "implicit"
{doors}{chosen}
"#
        )
        .ok();
        std::fs::write(self.config_file(), config).expect("the configuration can be written");
    }

    /// Starts the process, without waiting for it to be ready.
    pub fn spawn(&mut self) {
        self.spawn_under(&[]);
    }

    /// The same, by a program and its arguments that start what is behind them, such as `unshare`.
    pub fn spawn_under(&mut self, wrapper: &[&str]) {
        let words = [wrapper, &[env!("CARGO_BIN_EXE_portreeve")]].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg("serve")
            .arg("--config")
            .arg(self.config_file());
        self.process = Some(Process::spawn("portreeve", &mut command));
    }

    /// Waits until `/readyz` says so.
    pub async fn until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok((200, _)) = self.admin.try_ask(reqwest::Method::GET, "/readyz", None).await {
                return;
            }
            let process = self.process.as_mut().expect("the process was started");
            assert!(process.is_running(), "portreeve ended\n{}", process.log_tail());
            assert!(
                Instant::now() < deadline,
                "portreeve does not get ready\n{}",
                process.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the process was started")
    }

    /// Ends the process as a power cut would, and reaps it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks the process to reload.
    pub fn reload(&self) {
        self.process
            .as_ref()
            .expect("the process was started")
            .signal(Signal::HUP);
    }

    /// All that was logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Where IMAP in clear is, on 127.0.0.1.
    pub fn imap(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.imap_port))
    }

    /// Where IMAP in clear is, on ::1.
    pub fn imap_v6(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], self.imap_port))
    }

    /// Where IMAP over TLS is.
    pub fn imaps(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.imaps_port))
    }

    /// Where a protocol is: for IMAP in clear and with implicit TLS always, else where [`Setup::listening`] was asked for it.
    pub fn door(&self, protocol: Protocol, tls: Security) -> SocketAddr {
        match (protocol, tls) {
            (Protocol::Imap, Security::Off) => return self.imap(),
            (Protocol::Imap, Security::Implicit) => return self.imaps(),
            _ => {}
        }
        let door = self
            .doors
            .iter()
            .find(|door| door.protocol == protocol && door.tls == tls);
        let door = door.unwrap_or_else(|| panic!("no listener of {protocol:?} was chosen"));
        SocketAddr::from(([127, 0, 0, 1], door.port))
    }

    /// Who signed the TLS listener's certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The authority's file, for mail programs.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// The admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("admin.sock")
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("portreeve.toml")
    }

    /// A new client connection in clear.
    pub async fn connect(&self) -> Imap {
        Imap::connect(self.imap()).await
    }

    /// A new client connection, logged in.
    pub async fn logged_in(&self, user: &str, token: &str) -> Imap {
        let mut imap = self.connect().await;
        let reply = imap.login(user, token).await;
        assert!(reply.is_ok(), "{}\n{}", imap.transcript(), self.log());
        imap
    }

    /// Asks the admin API; the status and the JSON body.
    pub async fn ask(&self, method: reqwest::Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.admin
            .try_ask(method, path, body)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// The admin API.
    pub fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// `GET`, which must succeed.
    pub async fn read(&self, path: &str) -> Value {
        let (status, body) = self.ask(reqwest::Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// `POST`, which must succeed.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(reqwest::Method::POST, path, Some(body)).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// `DELETE`; the status and the JSON body.
    pub async fn delete(&self, path: &str) -> (u16, Value) {
        self.ask(reqwest::Method::DELETE, path, None).await
    }

    /// Adds an account of the testbed's provider with a grant; the account's id is `user` and so is its login name upstream.
    pub async fn add_account(&self, user: &str, grant: &Grant) {
        let oauth2 = json!({ "refreshToken": grant.refresh_token });
        self.post(
            "/v1/account",
            &json!({ "account": user, "provider": PROVIDER, "user": user, "oauth2": oauth2 }),
        )
        .await;
    }

    /// Creates an access token for IMAP without restrictions.
    pub async fn add_token(&self, account: &str) -> String {
        self.add_token_for(account, &[Protocol::Imap]).await
    }

    /// Creates an access token for some protocols without restrictions.
    pub async fn add_token_for(&self, account: &str, protocols: &[Protocol]) -> String {
        let scopes: Vec<&str> = protocols.iter().map(|protocol| protocol.scope()).collect();
        let body = json!({ "account": account, "scopes": scopes, "description": "a test" });
        self.create_token(&body).await
    }

    /// Creates an access token as `body` says.
    pub async fn create_token(&self, body: &Value) -> String {
        self.post("/v1/token", body).await["token"]
            .as_str()
            .expect("a token is text")
            .to_owned()
    }

    /// An account's state.
    pub async fn account_state(&self, account: &str) -> String {
        let account = self.read(&format!("/v1/account/{account}")).await;
        account["state"].as_str().expect("a state is text").to_owned()
    }

    /// The metrics as Prometheus sees them.
    pub async fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics_port);
        reqwest::get(url)
            .await
            .expect("metrics answer")
            .text()
            .await
            .expect("metrics are text")
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics().await;
        let samples = text.lines().filter_map(|line| line.strip_prefix(name));
        let values = samples
            .filter(|sample| sample.starts_with(['{', ' ']) && sample.contains(labels))
            .map(|sample| sample.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()));
        values.map(|value| value.expect("a sample ends in a number")).sum()
    }
}

impl Endpoint {
    /// An endpoint of a provider.
    pub fn new(protocol: Protocol, address: SocketAddr, tls: Security) -> Endpoint {
        Endpoint { protocol, address, tls }
    }

    /// A line of a provider's table.
    pub fn to_toml(&self) -> String {
        let (protocol, port, tls) = (self.protocol.name(), self.address.port(), self.tls.name());
        format!("{protocol} = {{ host = \"localhost\", port = {port}, tls = \"{tls}\" }}\n")
    }
}

impl Door {
    /// The doors of a protocol that no bed has by itself.
    fn of(protocol: Protocol) -> impl Iterator<Item = Door> {
        let kinds: &[Security] = match protocol {
            Protocol::Imap => &[Security::StartTls],
            Protocol::Smtp | Protocol::Pop3 => &[Security::Off, Security::StartTls, Security::Implicit],
        };
        let door = move |tls: &Security| Door {
            protocol,
            tls: *tls,
            port: free_port(),
        };
        kinds.iter().map(door)
    }

    fn to_toml(&self) -> String {
        let (protocol, port, tls) = (self.protocol.name(), self.port, self.tls.name());
        format!("[[listener]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:{port}\"\ntls = \"{tls}\"\n")
    }
}

impl Admin {
    /// The admin API behind `socket`, whoever listens there at the time.
    pub fn behind(socket: &Path) -> Admin {
        // An error means that another test of this process has installed it: the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            // A connection that is kept may lead to a proxy that has ended.
            .pool_max_idle_per_host(0)
            .build();
        Admin {
            http: client.expect("a client can be made"),
        }
    }

    /// The status and the JSON body, null where there is none.
    ///
    /// # Errors
    ///
    /// When no whole answer comes.
    pub async fn try_ask(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        self.send(method, path, body, None).await
    }

    /// The same as whoever holds `token`.
    pub async fn ask_as(&self, token: &str, method: reqwest::Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.send(method, path, body, Some(token)).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn send(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let mut request = self.http.request(method, format!("http://localhost{path}"));
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
