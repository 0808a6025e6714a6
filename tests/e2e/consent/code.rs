//! The flow by code, as a command line or a script leads an owner through it: begun and completed over the admin API.

use serde_json::json;

use super::bed::{
    ALICE, ALL_SCOPES, BOB, Consent, DENIED, EXCHANGE_REFUSED, EXCHANGE_TROUBLE, LOGIN_REFUSED, LOGIN_UNAVAILABLE,
    PARTIAL_CONSENT, Plan, UNKNOWN_STATE, WRONG_ISSUER, WRONG_MAILBOX, refused,
};
use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::provider::Fault;

/// A consent over the API alone.
async fn consent() -> Consent {
    Plan::default().start().await
}

/// Replaces a parameter of a redirected URL.
fn with_parameter(url: &url::Url, name: &str, value: &str) -> url::Url {
    let mut pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let pair = pairs.iter_mut().find(|pair| pair.0 == name);
    value.clone_into(&mut pair.expect("the parameter is there").1);
    let mut changed = url.clone();
    changed.query_pairs_mut().clear().extend_pairs(pairs);
    changed
}

#[tokio::test]
async fn a_grant_by_code_opens_the_mailbox_and_goes_on_doing_so_through_rotation_and_a_restart() {
    let mut consent = consent().await;
    let token = consent.add_account(ALICE, &json!({})).await;
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "new");

    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    assert_eq!(
        consent.progress(ALICE).await,
        json!({ "flow": "code", "state": "pending" })
    );
    let (status, answer) = consent.complete(&redirected).await;
    assert_eq!(
        (status, &answer),
        (200, &json!({ "account": ALICE, "state": "active" }))
    );
    assert_eq!(
        consent.progress(ALICE).await,
        json!({ "flow": "code", "state": "done" })
    );
    let asked = &consent.bed.provider.authorization_requests().await[0].params;
    assert_eq!(asked["login_hint"], ALICE);
    assert_eq!(asked["code_challenge_method"], "S256");

    consent.assert_opens(ALICE, &token).await;
    let counters = consent.bed.provider.counters(ALICE).await;
    assert_eq!(
        (counters.requests, counters.refreshes),
        (1, 0),
        "the OAuth token of the exchange is used"
    );

    // A refresh token that was used before would revoke the grant: each of these needs the latest.
    for refreshes in 1..=2 {
        assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
        consent.assert_opens(ALICE, &token).await;
        assert_eq!(consent.bed.provider.counters(ALICE).await.refreshes, refreshes);
        consent.bed.portreeve.kill();
        consent.bed.portreeve.spawn();
        consent.bed.portreeve.until_ready().await;
    }

    // No flow survives its completion, nor a restart.
    for redirected in [redirected.clone(), with_parameter(&redirected, "code", "another")] {
        refused(&consent.complete(&redirected).await, UNKNOWN_STATE);
    }
    assert_eq!(consent.exchanges().await.len(), 1);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn the_documented_scopes_of_a_provider_of_ones_own_outlive_the_first_access_token() {
    let scopes = &["mail", "offline_access"];
    let plan = Plan {
        scopes,
        ..Plan::default()
    };
    let mut consent = plan.start().await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let redirected = consent.answered(ALICE, ALICE, scopes).await;
    let (status, answer) = consent.complete(&redirected).await;
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
    let asked = &consent.bed.provider.authorization_requests().await[0].params;
    assert_eq!(asked["prompt"], "consent", "without it there is no offline access");
    consent.assert_opens(ALICE, &token).await;
    for refreshes in 1..=2 {
        assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
        consent.assert_opens(ALICE, &token).await;
        assert_eq!(consent.bed.provider.counters(ALICE).await.refreshes, refreshes);
        // A token that an upstream refuses is replaced once a minute, but for a start in between.
        consent.bed.portreeve.kill();
        consent.bed.portreeve.spawn();
        consent.bed.portreeve.until_ready().await;
    }
}

#[tokio::test]
async fn a_redirect_that_is_replayed_forged_or_anothers_changes_nothing() {
    let consent = consent().await;
    let of_alice = consent.add_account(ALICE, &json!({})).await;
    consent.add_account(BOB, &json!({})).await;
    let api = json!({ "account": BOB, "scopes": ["api"], "description": "bob's own" });
    let api = consent.bed.portreeve.create_token(&api).await;

    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    let body = json!({ "url": redirected });
    refused(&consent.ask_as(&api, "/v1/authorize", &body).await, UNKNOWN_STATE);
    let flow = json!({ "flow": "device" });
    let (status, _) = consent
        .ask_as(&api, &format!("/v1/account/{ALICE}/authorize"), &flow)
        .await;
    assert!([403, 404].contains(&status), "{status}");
    let forged = with_parameter(&redirected, "state", &"A".repeat(43));
    refused(&consent.complete(&forged).await, UNKNOWN_STATE);
    assert_eq!(consent.bed.provider.counters_of_all().await.requests, 0);

    // None of them has used it up.
    let (status, answer) = consent.complete(&redirected).await;
    assert_eq!(status, 200, "{answer}");
    refused(&consent.complete(&redirected).await, UNKNOWN_STATE);
    assert_eq!(consent.exchanges().await.len(), 1);
    consent.assert_opens(ALICE, &of_alice).await;
    assert_eq!(consent.bed.portreeve.account_state(BOB).await, "new");
    assert_eq!(consent.given_back().await, Vec::<String>::new());
}

#[tokio::test]
async fn an_accounts_own_token_leads_its_owner_through_consent() {
    let consent = consent().await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let api = json!({ "account": ALICE, "scopes": ["api"], "description": "alice's own" });
    let api = consent.bed.portreeve.create_token(&api).await;
    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    let (status, answer) = consent
        .ask_as(&api, "/v1/authorize", &json!({ "url": redirected }))
        .await;
    assert_eq!((status, &answer["state"]), (200, &json!("active")), "{answer}");
    consent.assert_opens(ALICE, &token).await;
    // A link can be made for any mailbox, so it takes root.
    let link = json!({ "account": ALICE });
    let (status, _) = consent.ask_as(&api, "/v1/authentication/form", &link).await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn an_answer_in_the_name_of_another_issuer_never_reaches_the_token_endpoint() {
    let consent = consent().await;
    consent.add_account(ALICE, &json!({})).await;
    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    let strange = with_parameter(&redirected, "iss", "https://id.example.com");
    let message = refused(&consent.complete(&strange).await, WRONG_ISSUER);
    assert!(message.contains("another provider than was asked"), "{message}");
    assert_eq!(consent.bed.provider.counters_of_all().await.requests, 0);

    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    let mut nameless = redirected.clone();
    let pairs = redirected.query_pairs().filter(|(name, _)| name != "iss");
    nameless.query_pairs_mut().clear().extend_pairs(pairs);
    refused(&consent.complete(&nameless).await, WRONG_ISSUER);
    assert_eq!(consent.bed.provider.counters_of_all().await.requests, 0);
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "new");
}

#[tokio::test]
async fn what_the_owner_does_not_grant_is_told_and_leaves_the_old_grant_as_it_was() {
    let consent = consent().await;
    let token = consent.authorized(ALICE).await;
    consent.assert_opens(ALICE, &token).await;

    let redirected = consent.answered(ALICE, ALICE, &[]).await;
    refused(&consent.complete(&redirected).await, DENIED);
    let progress = consent.progress(ALICE).await;
    assert_eq!(
        (&progress["state"], &progress["error"]["code"]),
        (&json!("failed"), &json!(DENIED.1))
    );
    assert_eq!(consent.exchanges().await.len(), 1, "the first one's");

    let redirected = consent
        .answered(ALICE, ALICE, &["openid", "email", "offline_access"])
        .await;
    let message = refused(&consent.complete(&redirected).await, PARTIAL_CONSENT);
    assert!(
        message.contains("mail") && !message.contains("offline_access"),
        "{message}"
    );

    // Without this one there is no refresh token, and so nothing that lasts.
    let redirected = consent.answered(ALICE, ALICE, &["openid", "email", "mail"]).await;
    let message = refused(&consent.complete(&redirected).await, PARTIAL_CONSENT);
    assert!(message.contains("offline_access"), "{message}");

    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "active");
    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn a_grant_of_another_mailbox_is_not_kept_and_ends_neither_ones_own() {
    let consent = consent().await;
    let of_alice = consent.authorized(ALICE).await;
    let of_bob = consent.authorized(BOB).await;

    let redirected = consent.answered(ALICE, BOB, &ALL_SCOPES).await;
    let message = refused(&consent.complete(&redirected).await, WRONG_MAILBOX);
    assert!(message.contains(ALICE) && message.contains(BOB), "{message}");
    // There are providers that end all grants of the same person with the one that is given back.
    assert_eq!(consent.given_back().await, Vec::<String>::new());
    for (account, token) in [(ALICE, of_alice), (BOB, of_bob)] {
        assert_eq!(consent.bed.portreeve.account_state(account).await, "active");
        assert!(consent.bed.provider.revoke_access_tokens(account).await > 0);
        consent.assert_opens(account, &token).await;
    }
}

#[tokio::test]
async fn a_mailbox_that_refuses_the_login_is_not_taken_for_authorized() {
    // The provider tells no address: nothing but the mailbox itself shows whose grant it is.
    let scopes = &["openid", "mail", "offline_access"];
    let plan = Plan {
        scopes,
        ..Plan::default()
    };
    let consent = plan.start().await;
    consent.add_account(ALICE, &json!({})).await;
    consent.add_account("shared", &json!({ "user": BOB })).await;
    for (account, user) in [(ALICE, BOB), ("shared", ALICE)] {
        let redirected = consent.answered(account, user, scopes).await;
        let message = refused(&consent.complete(&redirected).await, LOGIN_REFUSED);
        assert!(message.contains("Authentication failed"), "{message}");
        assert_eq!(consent.bed.portreeve.account_state(account).await, "new");
    }
    assert_eq!(
        consent.given_back().await,
        Vec::<String>::new(),
        "whose they are is not known"
    );
    let redirected = consent.answered("shared", BOB, scopes).await;
    assert_eq!(consent.complete(&redirected).await.1["state"], "active");
}

#[tokio::test]
async fn a_grant_that_is_surely_of_no_use_is_given_back() {
    let consent = consent().await;
    // It is the mailbox's own, but the account logs in as another.
    let token = consent
        .add_account(ALICE, &json!({ "imap": consent.endpoint_of(BOB) }))
        .await;
    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    refused(&consent.complete(&redirected).await, LOGIN_REFUSED);
    let given_back = until(PATIENCE, "the grant is given back", async || {
        consent.given_back().await.pop()
    });
    let again = consent.bed.provider.refresh(&given_back.await).await;
    assert_eq!(again.expect("an answer comes").text("error"), "invalid_grant");
    assert!(consent.bed.login(ALICE, &token).await.starts_with("NO [CONTACTADMIN] "));
}

#[tokio::test]
async fn browsers_are_sent_back_to_the_owners_own_machine_or_to_the_public_side_only() {
    let consent = consent().await;
    consent.add_account(ALICE, &json!({})).await;
    let path = format!("/v1/account/{ALICE}/authorize");
    let own = consent.public_url.join("oauth/callback").expect("a URL");
    for good in [
        "http://127.0.0.1:1/",
        "http://[::1]:2/callback",
        "http://localhost:3/x",
        own.as_str(),
    ] {
        consent
            .bed
            .portreeve
            .post(&path, &json!({ "flow": "code", "redirectUri": good }))
            .await;
    }
    for bad in [
        "https://example.com/callback",
        "http://192.0.2.1/callback",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://user@example.com/",
        "https://localhost/callback",
        "http://localhost:1/#fragment",
        "com.example.app:/callback",
        "javascript:alert(1)",
    ] {
        let (status, answer) = consent
            .bed
            .portreeve
            .ask(
                reqwest::Method::POST,
                &path,
                Some(&json!({ "flow": "code", "redirectUri": bad })),
            )
            .await;
        assert_eq!(
            (status, &answer["error"]),
            (400, &json!("Bad Request")),
            "{bad}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_account_whose_grant_is_gone_becomes_active_by_consent() {
    let consent = consent().await;
    let token = consent.authorized(ALICE).await;
    consent.assert_opens(ALICE, &token).await;
    assert!(consent.bed.provider.revoke_grants(ALICE).await > 0);
    assert_eq!(
        consent.bed.login(ALICE, &token).await,
        "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again"
    );
    let shown = consent.bed.until_state(ALICE, "needs-authorization").await;
    assert_eq!(shown["lastError"]["code"], "invalid_grant", "{shown}");

    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    assert_eq!(consent.complete(&redirected).await.1["state"], "active");
    let shown = consent.bed.shown(ALICE).await;
    assert_eq!(
        (&shown["state"], shown.get("lastError")),
        (&json!("active"), None),
        "{shown}"
    );
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn a_grant_is_kept_where_the_mailbox_cannot_be_tried_and_used_once_it_can() {
    let mut consent = Plan::default().start_without_upstream().await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    let message = refused(&consent.complete(&redirected).await, LOGIN_UNAVAILABLE);
    assert!(message.contains("it is kept"), "{message}");
    assert_eq!(consent.given_back().await, Vec::<String>::new());
    let shown = consent.bed.shown(ALICE).await;
    assert_ne!(shown["state"], "active", "nothing has shown that it works: {shown}");
    assert_eq!(consent.progress(ALICE).await["error"]["code"], LOGIN_UNAVAILABLE.1);

    consent.reach_upstream().await;
    let refusal = "NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later";
    consent.bed.until_logged_in(ALICE, &token, refusal).await;
    consent.bed.until_state(ALICE, "active").await;
    assert_eq!(consent.bed.provider.counters(ALICE).await.requests, 1);
}

#[tokio::test]
async fn a_provider_that_fails_is_told_from_an_owner_who_refuses() {
    let consent = consent().await;
    consent.add_account(ALICE, &json!({})).await;
    for (fault, refusal) in [
        (Fault::ServerError, EXCHANGE_TROUBLE),
        (Fault::InvalidClient, EXCHANGE_REFUSED),
        (Fault::InvalidGrant, EXCHANGE_REFUSED),
    ] {
        let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
        consent.bed.provider.fault_next(1, fault).await;
        refused(&consent.complete(&redirected).await, refusal);
    }
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "new");
}
