//! `portreeve demo`: the main job with nothing configured and no network.
//!
//! Everything is real but small: a daemon with throw-away state on free ports, an OAuth2 provider and a mailbox that trusts
//! it, both on loopback. The account's OAuth token has expired before the demo begins, so the login that is shown had to
//! refresh it. The demo uses the daemon as anybody would: over its admin socket and its IMAP port.

mod mailbox;
mod provider;
mod transcript;

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::admin::client::{Client, Target};
use crate::admin::types::{AccountCreated, TokenCreated};
use crate::app::{App, Signals};
use crate::cli::Failure;
use crate::cli::output::print;
use crate::clock;
use crate::config::{self, ProcessEnvironment};
use crate::shell;
use crate::store::Loss;
use crate::telemetry;
use provider::Provider;

/// Runs the demo: prints the transcript, then serves until a signal; with `once`, ends after the transcript.
///
/// # Errors
/// What kept the demo from its end, in words.
pub async fn run(once: bool) -> Result<(), Failure> {
    let directory = tempfile::Builder::new()
        .prefix("portreeve-demo-")
        .tempdir()
        .map_err(refused)?;
    let provider = Arc::new(Provider::new(MAILBOX_USER));
    let token_address = provider.clone().serve().await.map_err(refused)?;
    let certificates = write_certificates(directory.path()).map_err(refused)?;
    let mailbox = mailbox::serve(provider.clone(), &certificates).await.map_err(refused)?;
    let config = configuration(&directory, &certificates, token_address, mailbox, &provider);
    let config = config::parse(None, &config, &ProcessEnvironment).map_err(refused)?;
    let socket = config.admin.socket.clone();
    telemetry::init(&config.log.level, config.log.format).map_err(refused)?;
    let app = Box::pin(App::start(config, Loss::Refused)).await?;

    let token = set_up(&Client::new(Target::Socket(socket.clone()), None), &provider).await?;
    let [plain, tls] = *app.listener_addresses() else {
        return Err(Failure::failed("the demo's listeners are not there"));
    };
    let mut told = tell_login(plain, &token, &provider).await;
    if told.is_ok() && !once {
        told = print(&instructions(plain, tls, &certificates.authority, &socket, &token));
    }
    if told.is_err() || once {
        app.stop().await;
        return told;
    }
    app.run_until_signal(Signals::listen()?).await
}

/// Logs in through the proxy at `plain` and prints how that went.
async fn tell_login(plain: SocketAddr, token: &str, provider: &Provider) -> Result<(), Failure> {
    print(&format!(
        "A login through portreeve at {plain}, as a mail program would do it:\n"
    ))?;
    let transcript = transcript::login(plain, ACCOUNT, token).await.map_err(refused)?;
    print(&format!(
        "{transcript}\nThe mailbox takes OAuth2 only, and the account's OAuth token had expired:\n\
         portreeve has refreshed it ({} refresh at the built-in provider).",
        provider.refreshes()
    ))
}

/// The files of the demo's own certificate authority and of the certificate that it issued for this machine.
struct Certificates {
    authority: String,
    chain: String,
    key: String,
}

fn write_certificates(directory: &Path) -> Result<Certificates, Box<dyn std::error::Error>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "portreeve demo");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf =
        CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?.signed_by(&key, &authority)?;
    let write = |name: &str, content: String| -> io::Result<String> {
        let path = directory.join(name);
        std::fs::write(&path, content)?;
        Ok(path.display().to_string())
    };
    Ok(Certificates {
        authority: write("ca.pem", authority.pem())?,
        chain: write("cert.pem", leaf.pem())?,
        key: write("key.pem", key.serialize_pem())?,
    })
}

fn configuration(
    directory: &TempDir,
    certificates: &Certificates,
    token_address: SocketAddr,
    mailbox: SocketAddr,
    provider: &Provider,
) -> String {
    let directory = directory.path().display();
    let Certificates { authority, chain, key } = certificates;
    let (client_id, client_secret) = provider.app();
    format!(
        r#"
[server]
hostname = "localhost"
state_dir = '{directory}/state'
drain_timeout = "1s"

[admin]
socket = '{directory}/admin.sock'

[metrics]
listen = ""

[log]
level = "warn"

[limits]
sessions_max = 100

[[listener]]
protocol = "imap"
address = "127.0.0.1:0"

[[listener]]
protocol = "imap"
address = "127.0.0.1:0"
tls = "implicit"

[certificate.default]
cert_file = '{chain}'
key_file = '{key}'

[provider.demo]
token_url = "http://{token_address}/token"
client_id = "{client_id}"
client_secret = "{client_secret}"
scopes = ["mail", "offline_access"]
sasl = ["OAUTHBEARER", "XOAUTH2"]
imap = {{ host = "localhost", port = {port}, tls = "implicit" }}
ca_file = '{authority}'
"#,
        port = mailbox.port()
    )
}

/// Adds the account, with an OAuth token that has expired, and creates an access token for it.
async fn set_up(admin: &Client, provider: &Provider) -> Result<String, Failure> {
    let grant = provider.expired_grant();
    let account = json!({
        "account": ACCOUNT,
        "email": MAILBOX_USER,
        "provider": "demo",
        "oauth2": {
            "refreshToken": grant.refresh_token,
            "accessToken": grant.access_token,
            "expires": clock::now().before(std::time::Duration::from_secs(3600)),
        },
    });
    admin.create::<AccountCreated>("/v1/account", &account).await?;
    let token = json!({ "account": ACCOUNT, "scopes": ["imap-proxy"], "description": "the demo's mail program" });
    let created = admin.create::<TokenCreated>("/v1/token", &token).await?;
    Ok(created.value.token)
}

fn instructions(plain: SocketAddr, tls: SocketAddr, authority: &str, socket: &Path, token: &str) -> String {
    let mut text = String::new();
    let socket = socket.to_string_lossy();
    let (authority, socket) = (shell::word(authority), shell::word(&socket));
    // Writing to a String cannot fail.
    write!(
        text,
        "
It goes on serving; end it with Ctrl-C. Try it from another terminal:

  curl --url 'imap://{plain}/INBOX;MAILINDEX=1' --user '{ACCOUNT}:{token}'
  curl --cacert {authority} --url 'imaps://localhost:{tls_port}/INBOX;MAILINDEX=1' --user '{ACCOUNT}:{token}'
  openssl s_client -quiet -crlf -CAfile {authority} -connect {tls}
    A LOGIN {ACCOUNT} {token}
    B SELECT INBOX

Delete the token, and a session that uses it ends within a second:

  curl --unix-socket {socket} -X DELETE http://localhost/v1/token/{token}
",
        tls_port = tls.port()
    )
    .ok();
    text
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("the demo cannot run: {error}"))
}

/// The account's id, as in INTERFACE §5.
const ACCOUNT: &str = "example";

/// The mailbox's login name at the upstream.
const MAILBOX_USER: &str = "example@demo.invalid";
