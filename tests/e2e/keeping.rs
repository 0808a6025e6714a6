//! What becomes of a grant besides logins: it is kept alive, shared, given back, and whoever should know is told.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::support::bed::{Bed, until};
use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{PROVIDER, Setup};
use crate::support::protocol::Protocol;
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::upstream::{Security, Upstream};
use crate::support::wire::Wire;
use crate::support::{PATIENCE, open_directory};

/// A bed whose provider's table has `table` beside.
async fn bed(toml: &str, table: &str) -> Bed {
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start(&provider).await;
    let revocation_url = format!("{}/revocation", provider.endpoints().token_url);
    let setup = Setup::default().with(toml);
    let setup = setup.with_provider(&format!("revocation_url = \"{revocation_url}\"\n{table}"));
    let portreeve = setup.provider(&provider, &dovecot).start().await;
    Bed {
        provider,
        postfix: None,
        dovecot,
        portreeve,
        protocols: vec![Protocol::Imap],
    }
}

#[tokio::test]
async fn a_grant_that_nobody_uses_is_renewed_as_often_as_keep_alive_wants() {
    let bed = bed("", "keep_alive = \"3s\"").await;
    // Its access token is good for an hour: it is the grant that is renewed.
    let token = bed.account_with_life("idle", 3600).await;
    let gone = bed.account("gone").await;
    assert!(bed.provider.revoke_grants("gone").await > 0);
    until(PATIENCE, "it was renewed three times", async || {
        (bed.provider.counters("idle").await.refreshes >= 3).then_some(())
    })
    .await;
    let shown = bed.shown("idle").await;
    assert_eq!(shown["state"], "active", "{shown}");
    // The provider punishes the use of any but the last refresh token.
    assert!(bed.provider.revoke_access_tokens("idle").await > 0);
    assert_eq!(bed.login("idle", &token).await, "OK idle authenticated");

    // One whose grant is gone is found out without a login, and left alone from then on.
    bed.until_state("gone", "needs-authorization").await;
    let requests = bed.provider.counters("gone").await.requests;
    let refreshes = bed.provider.counters("idle").await.refreshes;
    until(PATIENCE, "the other was renewed again", async || {
        (bed.provider.counters("idle").await.refreshes >= refreshes + 2).then_some(())
    })
    .await;
    assert_eq!(bed.provider.counters("gone").await.requests, requests);
    assert_eq!(
        bed.login("gone", &gone).await,
        "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again"
    );
}

#[tokio::test]
async fn a_removed_accounts_grant_is_revoked_at_the_provider() {
    let bed = bed("", "").await;
    let grant = bed.provider.mint("leaver").await;
    bed.portreeve.add_account("leaver", &grant).await;
    assert_eq!(bed.portreeve.delete("/v1/account/leaver").await.0, 200);
    until(PATIENCE, "the refresh token is good for nothing", async || {
        let answer = bed
            .provider
            .refresh(&grant.refresh_token)
            .await
            .expect("the provider answers");
        (answer.text("error") == "invalid_grant").then_some(())
    })
    .await;
    until(PATIENCE, "the log says so", async || {
        let log = bed.portreeve.log();
        log.contains("the removed account's grant is revoked").then_some(())
    })
    .await;
    assert!(!bed.portreeve.log().contains(&grant.refresh_token));
}

#[tokio::test]
async fn a_grant_revoked_right_before_the_stop_is_waited_for() {
    let mut bed = bed("", "").await;
    let grant = bed.provider.mint("last").await;
    bed.portreeve.add_account("last", &grant).await;
    assert_eq!(bed.portreeve.delete("/v1/account/last").await.0, 200);
    let process = bed.portreeve.process();
    process.signal(rustix::process::Signal::TERM);
    assert!(process.wait().await.success());
    let answer = bed
        .provider
        .refresh(&grant.refresh_token)
        .await
        .expect("the provider answers");
    assert_eq!(answer.text("error"), "invalid_grant");
}

#[tokio::test]
async fn hooks_a_usage_event_and_a_metric_tell_that_an_account_needs_authorization() {
    let directory = open_directory();
    let told = directory.path().join("told");
    let program = directory.path().join("hook");
    std::fs::write(&program, "#!/bin/sh\nexec cat >>\"$1\"\n").expect("the hook can be written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    let mut receiver = Receiver::start().await;
    let hooks = format!(
        "[hooks]\ncommand = [{program:?}, {told:?}]\nwebhook_url = \"{}\"\nwebhook_secret = \"s3cret\"",
        receiver.url
    );
    let bed = bed(&hooks, "").await;
    let token = bed.account("ada").await;
    assert_eq!(bed.login("ada", &token).await, "OK ada authenticated");
    let event = receiver.next().await;
    assert_eq!(
        (&event["from"], &event["to"]),
        (&json!("new"), &json!("active")),
        "{event}"
    );

    assert!(bed.provider.revoke_grants("ada").await > 0);
    assert!(bed.login("ada", &token).await.starts_with("NO [CONTACTADMIN]"));
    let event = receiver.next().await;
    assert_eq!(event["event"], "account.state", "{event}");
    assert_eq!(
        (&event["account"], &event["provider"]),
        (&json!("ada"), &json!(PROVIDER))
    );
    assert_eq!(
        (&event["from"], &event["to"]),
        (&json!("active"), &json!("needs-authorization"))
    );
    assert_eq!(event["lastError"]["code"], "invalid_grant");
    assert!(
        event["remedy"]
            .as_str()
            .is_some_and(|remedy| remedy.contains("account authorize")),
        "{event}"
    );

    let events = until(PATIENCE, "the command has been told of both", async || {
        let events = lines(&told);
        (events.len() == 2).then_some(events)
    })
    .await;
    assert!(events.contains(&event), "{events:?}");
    let shown = bed.portreeve.read("/v1/usage?account=ada&outcome=state").await;
    assert_eq!(
        shown["events"][0],
        json!({
            "time": event["time"], "kind": "state", "protocol": null, "account": "ada", "token": null,
            "remoteAddress": null, "reason": "needs-authorization: invalid_grant",
        })
    );
    let changes = "portreeve_account_state_changes_total";
    assert_eq!(bed.metric(changes, r#"state="needs-authorization""#).await, 1.0);
}

#[tokio::test]
async fn mailboxes_share_a_grant_with_names_and_sessions_of_their_own() {
    let bed = bed("", "").await;
    let token = bed.account("ada").await;
    let upstream = Upstream::listen(Security::Off).await;
    let own = json!({"host": "127.0.0.1", "port": upstream.address().port(), "tls": "off", "user": "team@example.com"});
    let sharer = |owner: &str| json!({ "account": "team", "provider": PROVIDER, "imap": own, "oauth2": { "sharesGrantOf": owner } });
    let (status, refused) = bed
        .portreeve
        .ask(Method::POST, "/v1/account", Some(&sharer("nobody")))
        .await;
    assert_eq!(
        (status, &refused["message"]),
        (400, &json!("oauth2.sharesGrantOf: there is no account 'nobody'"))
    );
    bed.portreeve.post("/v1/account", &sharer("ada")).await;
    assert_eq!(bed.shown("team").await["sharesGrantOf"], "ada");
    let team = bed.portreeve.add_token("team").await;

    let (shown, reply) = tokio::join!(accept(&upstream), bed.login("team", &team));
    assert_eq!(reply, "OK team authenticated");
    assert!(shown.contains("team@example.com"), "{shown}");
    // The same token opens the owner's mailbox, by the same refresh.
    assert_eq!(bed.login("ada", &token).await, "OK ada authenticated");
    assert_eq!(bed.provider.counters("ada").await.requests, 1);

    let (status, refused) = bed.portreeve.delete("/v1/account/ada").await;
    assert_eq!((status, &refused["code"]), (409, &json!("grant_shared")), "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|message| message.contains("team")),
        "{refused}"
    );
    assert!(bed.provider.revoke_grants("ada").await > 0);
    assert!(bed.login("ada", &token).await.starts_with("NO [CONTACTADMIN]"));
    assert_eq!(
        bed.login("team", &team).await,
        "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again"
    );
    let shown = bed.shown("team").await;
    assert_eq!(
        (&shown["state"], &shown["lastError"]["code"]),
        (&json!("needs-authorization"), &json!("invalid_grant"))
    );

    bed.authorize_again("ada").await;
    let (_, reply) = tokio::join!(accept(&upstream), bed.login("team", &team));
    assert_eq!(reply, "OK team authenticated");
    assert_eq!(bed.portreeve.delete("/v1/account/team").await.0, 200);
    assert_eq!(bed.portreeve.delete("/v1/account/ada").await.0, 200);
}

/// Plays the sharer's upstream for one login; returns what was presented.
async fn accept(upstream: &Upstream) -> String {
    let mut leg = upstream.accept().await;
    leg.send_line("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=OAUTHBEARER] ready")
        .await;
    let presented = answer(&mut leg).await;
    leg.expect_end().await;
    presented
}

async fn answer(leg: &mut Wire) -> String {
    loop {
        let line = leg.line().await;
        let mut words = line.split(' ');
        let tag = words.next().unwrap_or_default().to_owned();
        if words.next() == Some("AUTHENTICATE") {
            assert_eq!(words.next(), Some("OAUTHBEARER"), "{line}");
            let response = BASE64_STANDARD
                .decode(words.next().unwrap_or_default())
                .expect("it is base64");
            leg.send_line(&format!("{tag} OK [CAPABILITY IMAP4rev1] done")).await;
            return String::from_utf8_lossy(&response).into_owned();
        }
        leg.send_line(&format!("{tag} OK done")).await;
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// A receiver of webhooks.
struct Receiver {
    url: String,
    posts: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
}

impl Receiver {
    async fn start() -> Receiver {
        let (sender, posts) = mpsc::unbounded_channel();
        let routes = Router::new()
            .route("/hook", axum::routing::post(Self::post))
            .with_state(sender);
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}/hook", socket.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(socket, routes).await });
        Receiver { url, posts }
    }

    async fn post(State(posts): State<mpsc::UnboundedSender<(HeaderMap, Bytes)>>, headers: HeaderMap, body: Bytes) {
        // The test has ended otherwise.
        let _ = posts.send((headers, body));
    }

    /// The next event, whose signature is checked.
    async fn next(&mut self) -> Value {
        let received = tokio::time::timeout(PATIENCE, self.posts.recv()).await;
        let (headers, body) = received.expect("an event comes").expect("the receiver runs");
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").expect("any length will do");
        mac.update(&body);
        let digest: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(headers["x-portreeve-signature"], format!("sha256={digest}"));
        serde_json::from_slice(&body).expect("it is JSON")
    }
}
