//! Access tokens that somebody else's program keeps: a command that prints them, a URL that answers with them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::{ALICE, BOB, account, assert_opens, bed};
use crate::support::open_directory;
use crate::support::provider::ProviderOptions;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_prints_json_or_a_bare_token() {
    let directory = open_directory();
    let helper = directory.path().join("helper");
    let script = "#!/bin/sh\n[ -f \"$1/$2\" ] || { echo \"no entry for $2\" >&2; exit 3; }\nexec cat \"$1/$2\"\n";
    std::fs::write(&helper, script).expect("the helper can be written");
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("it is the test's own");
    let bed = bed(ProviderOptions::default(), |_| {
        format!(
            "grant = \"external\"\ntoken_command = [{helper:?}, {:?}, \"{{account}}\"]",
            directory.path()
        )
    })
    .await;
    let entry = |account: &str, text: &str| {
        std::fs::write(directory.path().join(account), text).expect("an entry can be written");
    };
    let of_alice = bed.provider.mint(ALICE).await.access_token;
    let told = json!({ "user": ALICE, "accessToken": of_alice, "expires": "2099-01-01T00:00:00Z" });
    entry("desk", &told.to_string());
    // The account's name is not the mailbox's: the helper tells that.
    let token = account(&bed, "desk", json!({})).await;
    assert_opens(&bed, "desk", &token).await;

    entry(BOB, &format!("{}\n", bed.provider.mint(BOB).await.access_token));
    let token = account(&bed, BOB, json!({})).await;
    assert_opens(&bed, BOB, &token).await;

    let token = account(&bed, "nobody@example.com", json!({})).await;
    let reply = bed.login("nobody@example.com", &token).await;
    assert!(reply.starts_with("NO [UNAVAILABLE] "), "{reply}");
    let shown = bed.shown("nobody@example.com").await;
    assert_eq!(shown["state"], "failing", "{shown}");
    let message = shown["lastError"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("no entry for nobody@example.com"), "{shown}");
    assert!(bed.provider.requests().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_asked_for_an_account_and_answers_with_its_token() {
    let keeper = Keeper::default();
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address = socket.local_addr().expect("it is bound");
    let routes = Router::new()
        .route("/token", get(Keeper::answer))
        .with_state(keeper.clone());
    tokio::spawn(async move { axum::serve(socket, routes).await });
    let bed = bed(ProviderOptions::default(), |_| {
        format!("grant = \"external\"\ntoken_url_external = \"http://{address}/token?key=k\"")
    })
    .await;
    let of_alice = bed.provider.mint(ALICE).await.access_token;
    keeper.tokens.lock().unwrap().insert(ALICE.to_owned(), of_alice);
    let token = account(&bed, ALICE, json!({})).await;
    assert_opens(&bed, ALICE, &token).await;
    let asked = keeper.asked.lock().unwrap().clone();
    let expected = [("account", ALICE), ("key", "k"), ("proto", "imap")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked, [BTreeMap::from(expected)]);

    let token = account(&bed, BOB, json!({})).await;
    assert!(bed.login(BOB, &token).await.starts_with("NO ["));
    assert_eq!(keeper.asked.lock().unwrap().len(), 2);
    assert!(bed.shown(BOB).await["lastError"]["code"].is_string());
}

/// Who keeps tokens, and what was asked for.
#[derive(Clone, Default)]
struct Keeper {
    tokens: Arc<Mutex<BTreeMap<String, String>>>,
    asked: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
}

impl Keeper {
    async fn answer(
        State(keeper): State<Keeper>,
        Query(asked): Query<BTreeMap<String, String>>,
    ) -> Result<String, StatusCode> {
        let account = asked["account"].clone();
        keeper.asked.lock().unwrap().push(asked);
        let tokens = keeper.tokens.lock().unwrap();
        let token = tokens.get(&account).ok_or(StatusCode::NOT_FOUND)?;
        Ok(json!({ "user": account, "accessToken": token, "expires": "2099-01-01T00:00:00Z" }).to_string())
    }
}
