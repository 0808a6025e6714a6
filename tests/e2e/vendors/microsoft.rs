//! What Microsoft is sent (learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow, v2-oauth2-device-code).

use serde_json::{Value, json};

use super::{ALICE, AUTHORIZED, Office, assert_posted_to, assert_query, challenge_of, param, random};
use crate::support::pop3::{self, Pop3};
use crate::support::protocol::Protocol;
use crate::support::recorded::{MICROSOFT_CLIENT, MICROSOFT_SECRET, Proof, Registrations, Vendor, Verdict};
use crate::support::upstream::Security;

const LOGIN: &str = "login.microsoftonline.com";
const TOKEN: &str = "/common/oauth2/v2.0/token";
const DEVICE: &str = "/common/oauth2/v2.0/devicecode";
const IMAP: &str = "https://outlook.office.com/IMAP.AccessAsUser.All";
const REFRESHED: &str = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access";
const ASKED: &str = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access openid email profile";

fn app() -> String {
    format!("client_id = \"{MICROSOFT_CLIENT}\"")
}

async fn office() -> Office {
    let quick = Registrations {
        device_interval: 1,
        ..Registrations::default()
    };
    Office::start(Vendor::Microsoft, quick, &app()).await
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consent_asks_for_outlooks_scopes_and_a_public_client_sends_no_secret() {
    let office = office().await;
    office.account(ALICE, json!({})).await;
    let token = office.portreeve.add_token(ALICE).await;
    let url = office.authorize(ALICE, &words(ASKED)).await;

    let endpoint = "https://login.microsoftonline.com/common/oauth2/v2.0/authorize";
    assert_eq!(&url[..url::Position::AfterPath], endpoint);
    let [state, nonce, challenge] = ["state", "nonce", "code_challenge"].map(|name| random(&url, name));
    // `response_mode` is `query` by default where a code is asked for.
    assert_query(
        &url,
        &[
            ("client_id", MICROSOFT_CLIENT),
            ("response_type", "code"),
            ("redirect_uri", super::BACK),
            ("scope", ASKED),
            ("state", &state),
            ("nonce", &nonce),
            ("login_hint", ALICE),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ],
    );

    let exchange = office.only(TOKEN).await;
    assert_posted_to(&exchange, LOGIN);
    let (code, verifier) = (exchange.param("code"), exchange.param("code_verifier"));
    assert_eq!(challenge_of(verifier), challenge);
    exchange.assert_form(&[
        ("client_id", MICROSOFT_CLIENT),
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", super::BACK),
        ("code_verifier", verifier),
    ]);
    // `offline_access` is never named in the answer, and not missed: the refresh token is there.
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    assert_eq!(office.recorded.requests_to(TOKEN).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_what_is_asked_for_in_one_consent_that_opens_pop3_too() {
    let more = [Protocol::Smtp, Protocol::Pop3];
    let office = Office::start_serving(&more, Vendor::Microsoft, Registrations::default(), &app()).await;
    office.account(ALICE, json!({})).await;
    let token = office.portreeve.add_token_for(ALICE, &[Protocol::Pop3]).await;
    let asked = format!(
        "{IMAP} https://outlook.office.com/SMTP.Send https://outlook.office.com/POP.AccessAsUser.All offline_access \
         openid email profile"
    );
    let url = office.authorize(ALICE, &words(&asked)).await;
    let mut named = words(&asked);
    let scope = param(&url, "scope");
    let mut sent = words(&scope);
    named.sort_unstable();
    sent.sort_unstable();
    assert_eq!(sent, named);
    let mut pop3 = Pop3::connect(office.portreeve.door(Protocol::Pop3, Security::Off)).await;
    let status = pop3.login(ALICE, &token).await;
    assert!(pop3::is_ok(&status), "{status}\n{}", office.dovecot.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confidential_app_sends_its_secret_to_its_tenant() {
    let confidential = Registrations {
        microsoft_proof: Proof::Secret,
        ..Registrations::default()
    };
    let table = app() + &format!("\nclient_secret = \"{MICROSOFT_SECRET}\"\ntenant = \"contoso.onmicrosoft.com\"");
    let office = Office::start(Vendor::Microsoft, confidential, &table).await;
    office.account(ALICE, json!({})).await;
    let url = office.authorize(ALICE, &words(ASKED)).await;
    assert_eq!(url.path(), "/contoso.onmicrosoft.com/oauth2/v2.0/authorize");
    let exchange = office.only("/contoso.onmicrosoft.com/oauth2/v2.0/token").await;
    assert_posted_to(&exchange, LOGIN);
    let (code, verifier) = (exchange.param("code"), exchange.param("code_verifier"));
    exchange.assert_form(&[
        ("client_id", MICROSOFT_CLIENT),
        ("client_secret", MICROSOFT_SECRET),
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", super::BACK),
        ("code_verifier", verifier),
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_names_one_resources_scopes_and_the_next_takes_the_token_that_came() {
    let office = office().await;
    let grant = office.recorded.mint(Vendor::Microsoft, ALICE, ASKED).await;
    office
        .account(ALICE, json!({ "oauth2": { "refreshToken": grant.refresh_token } }))
        .await;
    let token = office.portreeve.add_token(ALICE).await;
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    let refresh = office.only(TOKEN).await;
    assert_posted_to(&refresh, LOGIN);
    refresh.assert_form(&[
        ("client_id", MICROSOFT_CLIENT),
        ("grant_type", "refresh_token"),
        ("refresh_token", &grant.refresh_token),
        ("scope", REFRESHED),
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_for_less_than_is_served_still_opens_what_it_was_given_for() {
    let office = office().await;
    let token = office.granted(ALICE, ASKED).await;
    // Microsoft refuses as a whole what names a scope that was not consented to.
    let missing = crate::support::recorded::Ahead::Aadsts(65001);
    office.recorded.answer_next(1, TOKEN, &missing).await;
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    let requests = office.recorded.requests_to(TOKEN).await;
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].param("scope"), REFRESHED);
    let (client, refresh_token) = (requests[0].param("client_id"), requests[0].param("refresh_token"));
    requests[1].assert_form(&[
        ("client_id", client),
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_asks_for_a_code_and_polls_until_its_owner_agrees() {
    let office = office().await;
    office.account(ALICE, json!({})).await;
    let token = office.portreeve.add_token(ALICE).await;
    let begun = begin_device(&office).await;
    assert_eq!(begun["verificationUri"], "https://login.microsoft.com/device");
    assert!(begun.get("verificationUriComplete").is_none(), "{begun}");
    assert_eq!(begun["interval"], 1);
    let request = office.only(DEVICE).await;
    assert_posted_to(&request, LOGIN);
    request.assert_form(&[("client_id", MICROSOFT_CLIENT), ("scope", ASKED)]);

    let user_code = begun["userCode"].as_str().expect("a code is text");
    office.recorded.decide(user_code, Verdict::Allow(ALICE)).await;
    assert_eq!(
        office.flow_ended(ALICE).await,
        json!({ "flow": "device", "state": "done" })
    );
    let polls = office.recorded.requests_to(TOKEN).await;
    let device_code = polls[0].param("device_code");
    for poll in &polls {
        assert_posted_to(poll, LOGIN);
        poll.assert_form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", MICROSOFT_CLIENT),
            ("device_code", device_code),
        ]);
    }
    assert_eq!(office.login(ALICE, &token).await, AUTHORIZED);
    assert_eq!(office.shown(ALICE).await["state"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_owner_declines_or_lets_the_code_expire_is_told_so() {
    let office = office().await;
    office.account(ALICE, json!({})).await;
    for (verdict, code) in [(Verdict::Decline, "denied"), (Verdict::Expire, "expired")] {
        let begun = begin_device(&office).await;
        let user_code = begun["userCode"].as_str().expect("a code is text");
        office.recorded.decide(user_code, verdict).await;
        let flow = office.flow_ended(ALICE).await;
        assert_eq!(
            (&flow["state"], &flow["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{flow}"
        );
        if code == "denied" {
            assert!(!flow.to_string().contains("refresh token"), "{flow}");
        }
        assert_eq!(office.shown(ALICE).await["state"], "new");
    }
}

async fn begin_device(office: &Office) -> Value {
    let path = format!("/v1/account/{ALICE}/authorize");
    office.portreeve.post(&path, &json!({ "flow": "device" })).await
}
