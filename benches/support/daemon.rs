//! The daemon itself as a child process: one mailbox with a fresh OAuth2 token, TLS on both legs, and the upstream that
//! lets everybody in.

use std::net::TcpListener as StdListener;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use portreeve::admin::client::{Client, Target};
use portreeve::admin::types::{AccountCreated, TokenCreated};
use portreeve::net::stream::Stream;
use portreeve::net::tls::{ServerTls, UpstreamTls};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::{Identity, Outcome, accept, connect};

/// A running daemon; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    port: u16,
    login: String,
}

impl Daemon {
    /// Starts it with its state and certificate in `directory`, on one worker thread if `is_pinned` to the last core.
    pub(crate) async fn start(directory: &Path, upstream_port: u16, is_pinned: bool) -> Outcome<Self> {
        let port = StdListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = directory.join("portreeve.toml");
        std::fs::write(&config, configuration(directory, port, upstream_port, is_pinned))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
        let child = command.arg("serve").arg("--config").arg(config).spawn()?;
        let mut daemon = Self {
            child,
            port,
            login: String::new(),
        };
        let client = Client::new(Target::Socket(directory.join("admin.sock")), None);
        daemon.until_ready(&client).await?;
        let account = json!({
            "account": "bench",
            "provider": "bench",
            "user": "bench",
            "oauth2": { "refreshToken": "r", "accessToken": "a", "expires": "2099-01-01T00:00:00Z" },
        });
        client.create::<AccountCreated>("/v1/account", &account).await?;
        let token = json!({ "account": "bench", "scopes": ["imap-proxy"], "description": "a benchmark" });
        let created = client.create::<TokenCreated>("/v1/token", &token).await?.value;
        daemon.login = format!("A LOGIN bench {}\r\n", created.token);
        Ok(daemon)
    }

    async fn until_ready(&mut self, client: &Client) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while client.read::<serde_json::Value>("/readyz", &[]).await.is_err() {
            if Instant::now() > deadline || self.child.try_wait()?.is_some() {
                return Err("the daemon does not start".into());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// A session that is logged in, and how long that took from the first SYN and from the credentials.
    pub(crate) async fn log_in(&self, tls: &UpstreamTls) -> Outcome<(Stream, [Duration; 2])> {
        let begun = Instant::now();
        let mut session = BufReader::with_capacity(512, connect(Some(tls), self.port).await?);
        let mut line = String::new();
        session.read_line(&mut line).await?;
        let asked = Instant::now();
        session.write_all(self.login.as_bytes()).await?;
        session.flush().await?;
        while !line.starts_with("A ") {
            line.clear();
            if session.read_line(&mut line).await? == 0 {
                return Err("the daemon closed".into());
            }
        }
        if !line.starts_with("A OK ") {
            return Err(line.into());
        }
        Ok((session.into_inner(), [begun.elapsed(), asked.elapsed()]))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child that has ended by itself needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The upstream: takes any credential, and answers every command behind it with `answer_bytes`.
pub(crate) async fn serve_mailbox(listener: TcpListener, tls: ServerTls, answer_bytes: usize) -> Outcome<()> {
    loop {
        let (tcp, _) = listener.accept().await?;
        let tls = tls.clone();
        tokio::spawn(async move {
            let mut stream = BufReader::with_capacity(2048, accept(Some(&tls), tcp).await?);
            stream.write_all(GREETING).await?;
            stream.flush().await?;
            let mut line = String::new();
            while stream.read_line(&mut line).await? > 0 {
                let tag = line.split(' ').next().unwrap_or_default();
                if line.contains(" AUTHENTICATE ") {
                    let reply = format!("{tag} OK [CAPABILITY IMAP4rev1 IDLE] logged in\r\n");
                    stream.write_all(reply.as_bytes()).await?;
                } else {
                    stream.write_all(&vec![b'x'; answer_bytes]).await?;
                }
                stream.flush().await?;
                line.clear();
            }
            Outcome::Ok(())
        });
    }
}

fn configuration(directory: &Path, port: u16, upstream_port: u16, is_pinned: bool) -> String {
    let Identity { cert_file, key_file } = Identity::in_directory(directory);
    let (directory, cert_file, key_file) = (directory.display(), cert_file.display(), key_file.display());
    format!(
        r#"
[server]
hostname = "localhost"
state_dir = '{directory}/state'
worker_threads = {}
[admin]
socket = '{directory}/admin.sock'
[metrics]
listen = ""
[log]
level = "error"
[limits]
sessions_per_ip_max = 9000
sessions_per_account_max = 9000
[certificate.default]
cert_file = '{cert_file}'
key_file = '{key_file}'
[[listener]]
protocol = "imap"
address = "127.0.0.1:{port}"
tls = "implicit"
[provider.bench]
token_url = "http://127.0.0.1:1/"
client_id = "bench"
client_secret = "bench"
scopes = ["mail"]
sasl = ["XOAUTH2"]
imap = {{ host = "localhost", port = {upstream_port}, tls = "implicit" }}
ca_file = '{cert_file}'
sessions_per_account_max = 9000
"#,
        u8::from(is_pinned),
    )
}

const GREETING: &[u8] = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n";
