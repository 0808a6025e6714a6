//! Grants that owners give: by code, on a device, as a refresh token given by hand; how they are rotated, shared, given back,
//! and end.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use super::{ALICE, GRANT_GONE, account, assert_opens, bed, consenting, refreshing};
use crate::support::PATIENCE;
use crate::support::bed::{Bed, until};
use crate::support::portreeve::PROVIDER;
use crate::support::protocol::Protocol;
use crate::support::provider::{ProviderOptions, Rotation};
use crate::support::smtp::Smtp;
use crate::support::upstream::Security;
use crate::support::visitor::Visitor;

const ALL_SCOPES: [&str; 4] = ["openid", "email", "mail", "offline_access"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_opens_the_mailbox() {
    let bed = bed(ProviderOptions::default(), consenting).await;
    let token = account(&bed, ALICE, json!({})).await;
    let body = json!({ "flow": "code", "redirectUri": "http://localhost:54321/callback" });
    let begun = bed.portreeve.post(&flow_of(ALICE), &body).await;
    let url = begun["url"].as_str().expect("a URL is text");
    let back: Url = Visitor::new().consent(url, ALICE, &ALL_SCOPES).await.elsewhere();
    let done = bed.portreeve.post("/v1/authorize", &json!({ "url": back })).await;
    assert_eq!(done, json!({ "account": ALICE, "state": "active" }));
    assert_opens(&bed, ALICE, &token).await;
    let counters = bed.provider.counters_of_all().await;
    assert_eq!(
        (counters.requests, counters.by_grant_type["authorization_code"]),
        (1, 1)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_devices_code_opens_the_mailbox() {
    let bed = bed(ProviderOptions::default(), consenting).await;
    let token = account(&bed, ALICE, json!({})).await;
    let begun = bed.portreeve.post(&flow_of(ALICE), &json!({ "flow": "device" })).await;
    let text = |member: &str| {
        begun[member]
            .as_str()
            .unwrap_or_else(|| panic!("{member}: {begun}"))
            .to_owned()
    };
    assert!(text("verificationUriComplete").ends_with(&text("userCode")), "{begun}");

    let mut visitor = Visitor::new();
    let entry = visitor.open(&text("verificationUri")).await.page();
    let confirm = visitor.submit(&entry, &[("user_code", &text("userCode"))]).await.page();
    let login = visitor.submit(&confirm, &[]).await.page();
    let fields = [("answer", "login"), ("user", ALICE)];
    let consent = visitor.submit(&login, &fields).await.page();
    let mut fields: Vec<_> = ALL_SCOPES.iter().map(|scope| ("scope", *scope)).collect();
    fields.push(("answer", "allow"));
    visitor.submit(&consent, &fields).await.page();

    let flow = until(PATIENCE, "the flow has ended", async || {
        let flow = bed.portreeve.read(&flow_of(ALICE)).await;
        (flow["state"] != "pending").then_some(flow)
    })
    .await;
    assert_eq!(flow, json!({ "flow": "device", "state": "done" }));
    assert_opens(&bed, ALICE, &token).await;
    assert_eq!(bed.provider.counters(ALICE).await.refreshes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_given_by_hand_follows_every_kind_of_rotation_as_access_tokens_expire() {
    for rotation in [Rotation::Strict, Rotation::Lenient, Rotation::Off] {
        let options = ProviderOptions {
            rotation,
            access_token_seconds: 2,
            ..ProviderOptions::default()
        };
        let bed = bed(options, refreshing).await;
        let grant = bed.provider.mint_with_life(ALICE, -1).await;
        let oauth2 = json!({ "refreshToken": grant.refresh_token });
        let token = account(&bed, ALICE, json!({ "oauth2": oauth2 })).await;
        for _ in 0..2 {
            assert_opens(&bed, ALICE, &token).await;
            // Longer than an access token lives.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        assert_opens(&bed, ALICE, &token).await;

        let mut used: Vec<String> = Vec::new();
        for request in bed.provider.requests().await {
            assert_eq!(request.status, Some(200), "{rotation:?}: {request:?}");
            used.push(request.params["refresh_token"].clone());
        }
        assert!(used.len() >= 3, "{rotation:?}: {used:?}");
        assert_eq!(used[0], grant.refresh_token);
        let is_rotated = !matches!(rotation, Rotation::Off);
        let changes = used.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(
            changes,
            if is_rotated { used.len() - 1 } else { 0 },
            "{rotation:?}: {used:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grant_opens_a_shared_mailbox_whose_mail_is_sent_by_its_owner() {
    let bed = bed(ProviderOptions::default(), refreshing).await;
    let grant = bed.provider.mint_with_life(ALICE, -1).await;
    let oauth2 = json!({ "refreshToken": grant.refresh_token });
    let own = account(&bed, ALICE, json!({ "oauth2": oauth2 })).await;
    let shared = json!({
        "oauth2": { "sharesGrantOf": ALICE }, "user": "shared@example.com", "smtp": { "user": ALICE },
    });
    let team = account(&bed, "team", shared).await;
    bed.dovecot
        .deliver("shared@example.com", b"Subject: for all of us\r\n\r\nHello.\r\n");

    let mut imap = bed.portreeve.logged_in("team", &team).await;
    let selected = imap.command("SELECT INBOX").await;
    let has_one = selected.untagged.iter().any(|line| line == b"* 1 EXISTS");
    assert!(has_one, "{}", imap.transcript());
    assert_opens(&bed, "team", &team).await;
    bed.postfix().logged(&format!("sasl_username={ALICE}")).await;
    assert!(!bed.postfix().log().contains("sasl_username=shared@example.com"));
    assert_opens(&bed, ALICE, &own).await;
    assert_eq!(bed.provider.counters(ALICE).await.requests, 1);

    // It is the one grant that goes, for both.
    assert!(bed.provider.revoke_grants(ALICE).await > 0);
    assert_eq!(bed.login("team", &team).await, GRANT_GONE);
    assert_eq!(bed.login(ALICE, &own).await, GRANT_GONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_accounts_refresh_token_is_given_back_as_rfc_7009_says() {
    let bed = bed(ProviderOptions::default(), refreshing).await;
    let grant = bed.provider.mint_with_life(ALICE, -1).await;
    let oauth2 = json!({ "refreshToken": grant.refresh_token });
    let token = account(&bed, ALICE, json!({ "oauth2": oauth2 })).await;
    assert_opens(&bed, ALICE, &token).await;
    assert_eq!(bed.portreeve.delete(&format!("/v1/account/{ALICE}")).await.0, 200);
    let revocation = until(PATIENCE, "it is given back", async || {
        let mut revocations = bed.provider.revocations().await;
        revocations.retain(|request| request.status.is_some());
        revocations.pop()
    })
    .await;
    assert_eq!((revocation.method.as_str(), revocation.status), ("POST", Some(200)));
    // The one that came of the last refresh, since this provider rotates.
    assert_ne!(revocation.params["token"], grant.refresh_token);
    assert_eq!(revocation.params["token_type_hint"], "refresh_token");
    assert_eq!(revocation.params["client_id"], bed.provider.endpoints().client_id);
    let refreshed = bed.provider.refresh(&revocation.params["token"]).await;
    assert_eq!(refreshed.expect("an answer comes").text("error"), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_gone_is_told_alike_over_all_protocols_until_there_is_another() {
    let bed = bed(ProviderOptions::default(), refreshing).await;
    let token = with_expired(&bed).await;
    assert!(bed.provider.revoke_grants(ALICE).await > 0);
    assert_eq!(bed.login(ALICE, &token).await, GRANT_GONE);
    let mut smtp = Smtp::connect(bed.portreeve.door(Protocol::Smtp, Security::Off)).await;
    smtp.ehlo().await;
    let reply = smtp.auth_plain(ALICE, &token).await.reply;
    assert_eq!(reply.code, 535, "{reply:?}");
    let mut pop3 = crate::support::pop3::Pop3::connect(bed.portreeve.door(Protocol::Pop3, Security::Off)).await;
    let status = pop3.login(ALICE, &token).await;
    assert!(status.starts_with("-ERR [SYS/PERM] "), "{status}");
    let shown = bed.until_state(ALICE, "needs-authorization").await;
    assert_eq!(shown["lastError"]["code"], "invalid_grant", "{shown}");

    let grant = bed.provider.mint_with_life(ALICE, -1).await;
    let body = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
    let path = format!("/v1/account/{ALICE}");
    let (status, answer): (u16, Value) = bed.portreeve.ask(Method::PUT, &path, Some(&body)).await;
    assert_eq!(status, 200, "{answer}");
    assert_opens(&bed, ALICE, &token).await;
}

async fn with_expired(bed: &Bed) -> String {
    let grant = bed.provider.mint_with_life(ALICE, -1).await;
    let body = json!({ "account": ALICE, "provider": PROVIDER, "oauth2": { "refreshToken": grant.refresh_token } });
    bed.portreeve.post("/v1/account", &body).await;
    bed.portreeve.add_token_for(ALICE, &bed.protocols).await
}

fn flow_of(account: &str) -> String {
    format!("/v1/account/{account}/authorize")
}
