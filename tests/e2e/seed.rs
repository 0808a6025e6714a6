//! The seed conversation: the main job in one piece, with `curl` on the admin socket, a real Dovecot and a refreshed grant.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::dovecot::Dovecot;
use crate::support::imap::Imap;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::provider::{Provider, ProviderOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_mailbox_from_its_address_until_it_is_deleted() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start(&provider).await;
    dovecot.deliver("alice", b"Subject: seed\r\n\r\nthe body\r\n");
    let portreeve = Setup::default().provider(&provider, &dovecot).start().await;
    let grant = provider.mint_with_life("alice", -60).await;
    let created = curl(
        &portreeve,
        "POST",
        "/v1/account",
        Some(json!({
            "account": "example",
            "email": "example@localhost.test",
            "provider": PROVIDER,
            "user": "alice",
            "oauth2": {
                "refreshToken": grant.refresh_token,
                "accessToken": grant.access_token,
                "expires": "2026-01-01T00:00:00Z",
            },
        })),
    );
    assert_eq!(created, json!({ "account": "example", "state": "new" }));
    let created = curl(
        &portreeve,
        "POST",
        "/v1/token",
        Some(json!({
            "account": "example",
            "scopes": ["imap-proxy"],
            "description": "seed",
            "restrictions": { "addresses": ["127.0.0.1/32"] },
        })),
    );
    let token = created["token"].as_str().unwrap().to_owned();
    assert_eq!(token.len(), 64, "{created}");

    let mut session = portreeve.connect().await;
    assert_eq!(
        session.greeting(),
        "* OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN] \
         Portreeve IMAP proxy ready for requests from 127.0.0.1"
    );
    session.send_line(&format!("A LOGIN example {token}")).await;
    let capabilities = session.line().await;
    assert!(capabilities.starts_with("* CAPABILITY IMAP4rev1 "), "{capabilities}");
    assert_eq!(session.line().await, "A OK example authenticated");
    assert!(session.command("SELECT INBOX").await.is_ok());
    assert_eq!(session.fetch_body(1).await, b"Subject: seed\r\n\r\nthe body\r\n");
    assert_eq!(
        provider.counters("alice").await.refreshes,
        1,
        "the expired token was refreshed once"
    );
    assert_eq!(portreeve.account_state("example").await, "active");

    let refused = "NO [AUTHENTICATIONFAILED] Access denied, traffic not accepted from this IP";
    assert_eq!(
        login_from(SocketAddr::from(([127, 0, 0, 9], 0)), portreeve.imap(), &token).await,
        refused
    );
    let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0));
    assert_eq!(login_from(v6, portreeve.imap_v6(), &token).await, refused);

    let deleted_at = Instant::now();
    assert_eq!(
        curl(&portreeve, "DELETE", &format!("/v1/token/{token}"), None),
        json!({ "deleted": true })
    );
    assert!(session.line().await.starts_with("* BYE "), "{}", session.transcript());
    session.expect_end().await;
    assert!(deleted_at.elapsed() < Duration::from_secs(1), "a second is promised");

    let refused = "NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user";
    assert_eq!(
        login_from(SocketAddr::from(([127, 0, 0, 1], 0)), portreeve.imap(), &token).await,
        refused
    );
}

/// Logs in from `local` and returns the tagged answer without its tag.
async fn login_from(local: SocketAddr, proxy: SocketAddr, token: &str) -> String {
    let mut imap = Imap::connect_from(local, proxy).await;
    imap.send_line(&format!("A LOGIN example {token}")).await;
    let reply = imap.line().await;
    reply.strip_prefix("A ").unwrap_or(&reply).to_owned()
}

/// Asks the admin API as the documentation tells people to.
fn curl(portreeve: &Portreeve, method: &str, path: &str, body: Option<Value>) -> Value {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "-X", method, "--unix-socket"])
        .arg(portreeve.socket());
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    }
    let output = command
        .arg(format!("http://localhost{path}"))
        .output()
        .expect("curl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}
