//! What Google is sent (developers.google.com/identity/protocols/oauth2/native-app, limited-input-device, service-account).

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::{ALICE, AUTHORIZED, Office, assert_posted_to, assert_query, challenge_of, param, random};
use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::protocol::Protocol;
use crate::support::recorded::{GOOGLE_CLIENT, GOOGLE_SECRET, Registrations, Vendor};

const MAIL: &str = "https://mail.google.com/";
const ASKED: [&str; 3] = [MAIL, "openid", "email"];

fn app() -> String {
    format!("client_id = \"{GOOGLE_CLIENT}\"\nclient_secret = \"{GOOGLE_SECRET}\"")
}

async fn office(registrations: Registrations) -> Office {
    Office::start(Vendor::Google, registrations, &app()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consent_asks_for_mail_offline_and_the_code_comes_back_with_its_verifier_and_the_secret() {
    let office = office(Registrations::default()).await;
    office.account(ALICE, json!({})).await;
    let token = office.portreeve.add_token(ALICE).await;
    let url = office.authorize(ALICE, &ASKED).await;

    assert_eq!(
        &url[..url::Position::AfterPath],
        "https://accounts.google.com/o/oauth2/v2/auth"
    );
    let [state, nonce, challenge] = ["state", "nonce", "code_challenge"].map(|name| random(&url, name));
    let asked = [
        ("client_id", GOOGLE_CLIENT),
        ("redirect_uri", super::BACK),
        ("response_type", "code"),
        ("scope", "https://mail.google.com/ openid email"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("state", &state),
        ("nonce", &nonce),
        ("login_hint", ALICE),
        ("access_type", "offline"),
        ("prompt", "consent"),
    ];
    assert_query(&url, &asked);
    let visits = office.recorded.requests_to("/o/oauth2/v2/auth").await;
    assert_eq!(visits.len(), 2);

    let exchange = office.only("/token").await;
    assert_posted_to(&exchange, "oauth2.googleapis.com");
    let (code, verifier) = (exchange.param("code"), exchange.param("code_verifier"));
    assert_eq!(challenge_of(verifier), challenge);
    exchange.assert_form(&[
        ("grant_type", "authorization_code"),
        ("code", code),
        ("code_verifier", verifier),
        ("redirect_uri", super::BACK),
        ("client_id", GOOGLE_CLIENT),
        ("client_secret", GOOGLE_SECRET),
    ]);

    // The mailbox was tried before the grant was kept, and it opens now without another request.
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    assert_eq!(office.recorded.requests_to("/token").await.len(), 1);
    let shown = office.shown(ALICE).await;
    assert_eq!(
        (&shown["state"], shown.get("grantEnds")),
        (&json!("active"), None),
        "{shown}"
    );
    for secret in [code, verifier, &state, GOOGLE_SECRET] {
        assert!(!office.portreeve.log().contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_scope_is_asked_for_whatever_is_served() {
    let more = [Protocol::Smtp, Protocol::Pop3];
    let office = Office::start_serving(&more, Vendor::Google, Registrations::default(), &app()).await;
    office.account(ALICE, json!({})).await;
    let url = office.begin_code(ALICE).await;
    assert_eq!(param(&url, "scope"), "https://mail.google.com/ openid email");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_names_no_scope_and_what_was_not_rotated_is_used_again() {
    let office = office(Registrations::default()).await;
    let grant = office.recorded.mint(Vendor::Google, ALICE, MAIL).await;
    office
        .account(ALICE, json!({ "oauth2": { "refreshToken": grant.refresh_token } }))
        .await;
    let token = office.portreeve.add_token(ALICE).await;
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    let refresh = office.only("/token").await;
    assert_posted_to(&refresh, "oauth2.googleapis.com");
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", grant.refresh_token.as_str()),
        ("client_id", GOOGLE_CLIENT),
        ("client_secret", GOOGLE_SECRET),
    ];
    refresh.assert_form(&form);

    // The same token again, once what was had of it has been given away.
    let expired = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
    let path = format!("/v1/account/{ALICE}");
    let (status, answer) = office.portreeve.ask(Method::PUT, &path, Some(&expired)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    let refreshes = office.recorded.requests_to("/token").await;
    assert_eq!(refreshes.len(), 2);
    refreshes[1].assert_form(&form);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_grant_of_an_app_in_testing_is_shown() {
    let testing = Registrations {
        google_is_testing: true,
        ..Registrations::default()
    };
    let office = office(testing).await;
    office.account(ALICE, json!({})).await;
    let before = Timestamp::now();
    office.authorize(ALICE, &ASKED).await;
    let shown = office.shown(ALICE).await;
    let ends: Timestamp = shown["grantEnds"]
        .as_str()
        .expect("it is shown")
        .parse()
        .expect("a time");
    let life = ends.as_second() - before.as_second();
    assert!((604_799..604_899).contains(&life), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_google_says_of_scopes_is_a_hint_and_the_mailbox_decides() {
    let office = office(Registrations::default()).await;
    office.account(ALICE, json!({})).await;
    let url = office.begin_code(ALICE).await;
    let back = office.decide(&url, ALICE, &["openid", "email"]).await;
    let (status, answer) = office.complete(&back).await;
    // This mailbox opens to every token; one that does not is tested with a server that looks at scopes.
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
    assert!(office.recorded.requests_to("/revoke").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_consent_is_told_by_the_address_that_signed_in() {
    let office = office(Registrations::default()).await;
    office.account(ALICE, json!({})).await;
    let url = office.begin_code(ALICE).await;
    let back = office.decide(&url, super::BOB, &ASKED).await;
    let (status, answer) = office.complete(&back).await;
    assert_eq!((status, &answer["code"]), (403, &json!("wrong_mailbox")), "{answer}");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(message.contains(ALICE) && message.contains(super::BOB), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_account_gives_its_grant_back() {
    let office = office(Registrations::default()).await;
    let grant = office.recorded.mint(Vendor::Google, ALICE, MAIL).await;
    office
        .account(ALICE, json!({ "oauth2": { "refreshToken": grant.refresh_token } }))
        .await;
    assert_eq!(office.portreeve.delete(&format!("/v1/account/{ALICE}")).await.0, 200);
    let revocation = until(PATIENCE, "the grant is given back", async || {
        let mut requests = office.recorded.requests_to("/revoke").await;
        requests.retain(|request| request.status.is_some());
        requests.pop()
    })
    .await;
    assert_posted_to(&revocation, "oauth2.googleapis.com");
    // Google wants `token` alone; the rest is RFC 7009's (§2.1).
    revocation.assert_form(&[
        ("token", &grant.refresh_token),
        ("token_type_hint", "refresh_token"),
        ("client_id", GOOGLE_CLIENT),
        ("client_secret", GOOGLE_SECRET),
    ]);
    assert_eq!(revocation.status, Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_told_that_google_has_no_codes_for_mail() {
    let office = office(Registrations::default()).await;
    office.account(ALICE, json!({})).await;
    let (status, answer) = begin_device(&office).await;
    assert_eq!((status, &answer["code"]), (400, &json!("flow_not_offered")), "{answer}");
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("no device codes for mail") && message.contains("browser"),
        "{message}"
    );
    assert!(office.recorded.requests_to("/device/code").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_own_refusal_of_a_device_is_told_with_what_to_do() {
    let table = app() + "\ndevice_url = \"https://oauth2.googleapis.com/device/code\"";
    let office = Office::start(Vendor::Google, Registrations::default(), &table).await;
    office.account(ALICE, json!({})).await;
    let (status, answer) = begin_device(&office).await;
    assert_eq!((status, &answer["code"]), (502, &json!("exchange_failed")), "{answer}");
    let message = answer["message"].as_str().unwrap_or_default();
    for words in [
        "invalid_scope",
        "Invalid device flow scope: https://mail.google.com/",
        "does not know a scope",
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let request = office.only("/device/code").await;
    assert_posted_to(&request, "oauth2.googleapis.com");
    // limited-input-device, step 1: an id and scopes; the desktop app's secret does no harm.
    assert_eq!(request.param("client_id"), GOOGLE_CLIENT);
    assert_eq!(request.param("scope"), "https://mail.google.com/ openid email");
}

async fn begin_device(office: &Office) -> (u16, Value) {
    let path = format!("/v1/account/{ALICE}/authorize");
    let body = json!({ "flow": "device" });
    office.portreeve.ask(Method::POST, &path, Some(&body)).await
}
