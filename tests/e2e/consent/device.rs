//! The flow by device: a code that the owner types in elsewhere, while the daemon asks the provider how it went.

use serde_json::{Value, json};

use super::bed::{ALICE, ALL_SCOPES, BOB, Consent, DENIED, EXPIRED, PARTIAL_CONSENT, Plan, WRONG_MAILBOX};
use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::provider::{Fault, ProviderOptions};
use crate::support::visitor::Visitor;

/// Begins a flow by device.
pub async fn begin(consent: &Consent, account: &str) -> Value {
    let path = format!("/v1/account/{account}/authorize");
    consent.bed.portreeve.post(&path, &json!({ "flow": "device" })).await
}

/// Types the code in and lets `user` grant these scopes, or deny.
pub async fn type_in(begun: &Value, user: &str, scopes: &[&str]) {
    let mut visitor = Visitor::new();
    let code = begun["userCode"].as_str().expect("a code is text");
    let entry = begun["verificationUri"].as_str().expect("a URL is text");
    let entry = visitor.open(entry).await.page();
    let confirm = visitor.submit(&entry, &[("user_code", code)]).await.page();
    assert!(confirm.html.contains(code), "{confirm:?}");
    let login = visitor.submit(&confirm, &[]).await.page();
    let consent = visitor
        .submit(&login, &[("answer", "login"), ("user", user)])
        .await
        .page();
    let mut fields: Vec<(&str, &str)> = scopes.iter().map(|scope| ("scope", *scope)).collect();
    fields.push(("answer", if scopes.is_empty() { "deny" } else { "allow" }));
    visitor.submit(&consent, &fields).await.page();
}

/// How the account's flow ended.
async fn end(consent: &Consent, account: &str) -> Value {
    until(PATIENCE, "the flow has ended", async || {
        let progress = consent.progress(account).await;
        assert_eq!(progress["flow"], "device", "{progress}");
        (progress["state"] != "pending").then_some(progress)
    })
    .await
}

#[tokio::test]
async fn a_code_that_is_typed_elsewhere_opens_the_mailbox_and_a_new_one_takes_its_place() {
    let consent = Plan::default().start().await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let missing = format!("/v1/account/{ALICE}/authorize");
    assert_eq!(
        consent.bed.portreeve.ask(reqwest::Method::GET, &missing, None).await.0,
        404
    );

    let first = begin(&consent, ALICE).await;
    let begun = begin(&consent, ALICE).await;
    assert_ne!(first["userCode"], begun["userCode"]);
    assert_eq!(begun["interval"], 1, "{begun}");
    let expires: jiff::Timestamp = begun["expires"].as_str().expect("a time").parse().expect("a time");
    let life = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((500..=600).contains(&life), "{begun}");
    let complete = begun["verificationUriComplete"].as_str().expect("a URL is text");
    assert!(complete.ends_with(begun["userCode"].as_str().expect("text")), "{begun}");
    assert_eq!(
        consent.progress(ALICE).await,
        json!({ "flow": "device", "state": "pending" })
    );

    // Nobody asks after the first any more.
    type_in(&first, ALICE, &ALL_SCOPES).await;
    type_in(&begun, ALICE, &ALL_SCOPES).await;
    assert_eq!(end(&consent, ALICE).await, json!({ "flow": "device", "state": "done" }));
    let requests = consent.bed.provider.requests().await;
    let granted: Vec<_> = requests.iter().filter(|request| request.carried_out).collect();
    assert_eq!(granted.len(), 1, "{requests:?}");
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "active");
    consent.assert_opens(ALICE, &token).await;
    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn a_device_slows_down_when_it_is_told_to_and_waits_trouble_out() {
    let consent = Plan::default().start().await;
    let token = consent.add_account(ALICE, &json!({})).await;
    // The provider means it: polled as fast as before it would refuse again.
    consent.bed.provider.fault_next(1, Fault::SlowDown).await;
    let begun = begin(&consent, ALICE).await;
    type_in(&begun, ALICE, &ALL_SCOPES).await;
    assert_eq!(end(&consent, ALICE).await["state"], "done");
    let requests = consent.bed.provider.requests().await;
    let polls: Vec<(Option<&str>, bool)> = requests
        .iter()
        .map(|request| (request.fault.as_deref(), request.carried_out))
        .collect();
    assert_eq!(polls, [(Some("slow_down"), false), (None, true)]);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn a_device_is_told_why_it_waits_in_vain() {
    let consent = Plan {
        provider: ProviderOptions {
            device_code_seconds: 3,
            ..ProviderOptions::default()
        },
        ..Plan::default()
    }
    .start()
    .await;
    let of_alice = consent.authorized(ALICE).await;
    for account in ["late", "partial", BOB] {
        consent.add_account(account, &json!({})).await;
    }
    let late = begin(&consent, "late").await;
    assert_eq!(late["interval"], 1);
    consent.bed.provider.device_codes_live(600).await;

    let denied = begin(&consent, ALICE).await;
    let wrong = begin(&consent, BOB).await;
    let partial = begin(&consent, "partial").await;
    type_in(&denied, ALICE, &[]).await;
    type_in(&wrong, ALICE, &ALL_SCOPES).await;
    type_in(&partial, "partial", &["openid", "email", "offline_access"]).await;
    for (account, (_, code), words) in [
        (ALICE, DENIED, "was not given"),
        (BOB, WRONG_MAILBOX, "alice@example.com signed in"),
        ("partial", PARTIAL_CONSENT, "mail"),
        ("late", EXPIRED, "the time"),
    ] {
        let progress = end(&consent, account).await;
        assert_eq!(
            (&progress["state"], &progress["error"]["code"]),
            (&json!("failed"), &json!(code)),
            "{progress}"
        );
        let message = progress["error"]["message"].as_str().expect("a message is text");
        assert!(message.contains(words), "{message}");
    }
    consent.assert_opens(ALICE, &of_alice).await;
}
