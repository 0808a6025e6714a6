//! When OAuth tokens are refreshed: once for all who ask, ahead of need, after a refusal upstream, and never in vain.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::PATIENCE;
use crate::support::bed::{Bed, until};
use crate::support::imap::Imap;
use crate::support::provider::{Fault, ProviderOptions, Rotation};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_logins_at_once_share_one_refresh() {
    let bed = Bed::start(
        ProviderOptions::default(),
        "[limits]\nsessions_per_account_max = 300\nsessions_per_ip_max = 300",
    )
    .await;
    let token = bed.account_with_life("many", -60).await;
    let mut connections = Vec::new();
    for _ in 0..200 {
        connections.push(bed.portreeve.connect().await);
    }
    // Answered so late that all of them are waiting by then.
    bed.provider.fault(Fault::Slow { milliseconds: 1000 }).await;
    let mut logins = JoinSet::new();
    for mut connection in connections {
        let token = token.clone();
        logins.spawn(async move {
            let reply = connection.login("many", &token).await;
            (connection, reply.tagged)
        });
    }
    let sessions = logins.join_all().await;
    for (session, reply) in &sessions {
        assert_eq!(reply, "OK many authenticated", "{}", session.transcript());
    }
    let counters = bed.provider.counters("many").await;
    assert_eq!((counters.requests, counters.refreshes), (1, 1), "{counters:?}");
    let refreshes = "portreeve_oauth_refreshes_total";
    assert_eq!(bed.metric(refreshes, r#"outcome="ok""#).await, 1.0);
    assert_eq!(bed.metric(refreshes, "").await, 1.0);
    assert_eq!(bed.metric("portreeve_logins_total", r#"outcome="ok""#).await, 200.0);
    until(PATIENCE, "all sessions are counted in the relay", async || {
        (bed.metric("portreeve_sessions", r#"phase="relay""#).await == 200.0).then_some(())
    })
    .await;
    drop(sessions);
    bed.until_no_sessions().await;
}

#[tokio::test]
async fn a_token_revoked_at_the_provider_is_replaced_once_and_at_most_once_a_minute() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let token = bed.account("revoked").await;
    assert_eq!(bed.login("revoked", &token).await, "OK revoked authenticated");
    assert_eq!(bed.provider.counters("revoked").await.refreshes, 1);

    // Several sessions find out at once and share the one retry.
    assert!(bed.provider.revoke_access_tokens("revoked").await > 0);
    let logins = (0..10).map(async |_| bed.login("revoked", &token).await);
    for reply in join_all(logins).await {
        assert_eq!(reply, "OK revoked authenticated");
    }
    assert_eq!(bed.provider.counters("revoked").await.requests, 2);

    // Again within the minute: no other token is to be had yet, so that the upstream's refusal stands, and is noted.
    assert!(bed.provider.revoke_access_tokens("revoked").await > 0);
    for _ in 0..3 {
        assert_eq!(
            bed.login("revoked", &token).await,
            "NO [AUTHENTICATIONFAILED] Authentication failed."
        );
    }
    assert_eq!(bed.provider.counters("revoked").await.requests, 2);
    assert_eq!(bed.shown("revoked").await["lastError"]["code"], "upstream_refused");

    bed.authorize_again("revoked").await;
    assert_eq!(bed.login("revoked", &token).await, "OK revoked authenticated");
    assert_eq!(bed.shown("revoked").await.get("lastError"), None);
}

#[tokio::test]
async fn a_live_session_has_its_token_renewed_ahead_of_need_and_used_on_through_trouble() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    // Renewed 30 s after it was obtained, the least there is, with a quarter of its life to go.
    let token = bed.account_with_life("live", 40).await;
    let idle = bed.account_with_life("idle", 40).await;
    assert_eq!(bed.login("idle", &idle).await, "OK idle authenticated");
    let mut session = bed.portreeve.logged_in("live", &token).await;
    assert_eq!(bed.provider.counters_of_all().await.requests, 0, "the token is fresh");

    bed.provider.fault(Fault::ServerError).await;
    let shown = bed
        .until_shown("live", RENEWAL_PATIENCE, |shown| shown["state"] == "failing")
        .await;
    assert_eq!(shown["lastError"]["code"], "server_error", "{shown}");
    assert_eq!(bed.login("live", &token).await, "OK live authenticated", "{shown}");
    assert!(session.command("NOOP").await.is_ok(), "{}", session.transcript());
    assert_eq!(bed.provider.counters("live").await.refreshes, 0);

    bed.provider.clear_faults().await;
    let shown = bed.until_state("live", "active").await;
    assert_eq!(bed.provider.counters("live").await.refreshes, 1);
    assert_eq!(shown.get("lastError"), None, "{shown}");
    assert_eq!(bed.login("live", &token).await, "OK live authenticated");
    assert_eq!(bed.provider.counters("live").await.refreshes, 1);
    assert_eq!(
        bed.provider.counters("idle").await.requests,
        0,
        "nobody is logged in there"
    );
    drop(session);
    bed.until_no_sessions().await;
}

#[tokio::test]
async fn neither_a_client_that_hangs_up_nor_a_login_that_times_out_cancels_a_refresh() {
    let bed = Bed::start(ProviderOptions::default(), "[limits]\nlogin_timeout = \"1s\"").await;
    let token = bed.account("gone").await;
    drop(begin_login(&bed, "gone", &token).await);
    assert_eq!(
        bed.login("gone", &token).await,
        "NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later"
    );
    bed.until_no_sessions().await;
    assert_eq!(
        bed.provider.counters("gone").await.in_flight,
        1,
        "it is still on its way"
    );
    bed.until_state("gone", "active").await;
    assert_eq!(bed.login("gone", &token).await, "OK gone authenticated");
    assert_eq!(bed.provider.counters("gone").await.requests, 1);
}

#[tokio::test]
async fn an_account_is_changed_and_deleted_while_it_is_refreshed() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    tokio::join!(
        a_grant_replaced_meanwhile_gives_way_to_the_new_one(&bed),
        a_grant_given_again_meanwhile_keeps_what_the_refresh_rotated(&bed),
        an_account_deleted_meanwhile_stays_deleted(&bed),
    );
    bed.until_no_sessions().await;
}

async fn a_grant_replaced_meanwhile_gives_way_to_the_new_one(bed: &Bed) {
    let token = bed.account("other").await;
    let mut waiting = begin_login(bed, "other", &token).await;
    bed.authorize_again("other").await;
    assert!(waiting.reply("A").await.is_ok(), "{}", waiting.transcript());
    let counters = bed.provider.counters("other").await;
    assert_eq!(
        (counters.requests, counters.in_flight),
        (2, 1),
        "the old one is not waited for"
    );
    until(PATIENCE, "the old refresh has ended", async || {
        (bed.provider.counters("other").await.in_flight == 0).then_some(())
    })
    .await;
    // Were the old answer taken for the new grant's, the use of its refresh token would show here.
    assert_eq!(bed.login("other", &token).await, "OK other authenticated");
    assert!(bed.provider.revoke_access_tokens("other").await > 0);
    assert_eq!(bed.login("other", &token).await, "OK other authenticated");
    assert_eq!(bed.provider.counters("other").await.refreshes, 3);
}

async fn a_grant_given_again_meanwhile_keeps_what_the_refresh_rotated(bed: &Bed) {
    let grant = bed.provider.mint("same").await;
    bed.portreeve.add_account("same", &grant).await;
    let token = bed.portreeve.add_token("same").await;
    let mut waiting = begin_login(bed, "same", &token).await;
    let body = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
    let (status, answer) = bed.portreeve.ask(Method::PUT, "/v1/account/same", Some(&body)).await;
    assert_eq!(status, 200, "{answer}");
    assert!(waiting.reply("A").await.is_ok(), "{}", waiting.transcript());
    assert!(bed.provider.revoke_access_tokens("same").await > 0);
    assert_eq!(bed.login("same", &token).await, "OK same authenticated");
    assert_eq!(bed.provider.counters("same").await.refreshes, 2);
}

async fn an_account_deleted_meanwhile_stays_deleted(bed: &Bed) {
    let token = bed.account("away").await;
    let mut waiting = begin_login(bed, "away", &token).await;
    assert_eq!(bed.portreeve.delete("/v1/account/away").await.0, 200);
    // The login may find the account gone before the goodbye reaches it.
    let mut last = waiting.line().await;
    if last == format!("A {UNKNOWN}") {
        last = waiting.line().await;
    }
    assert!(last.starts_with("* BYE "), "{}", waiting.transcript());
    waiting.expect_end().await;
    until(PATIENCE, "the refresh has ended", async || {
        (bed.provider.counters("away").await.in_flight == 0).then_some(())
    })
    .await;
    assert_eq!(bed.portreeve.ask(Method::GET, "/v1/account/away", None).await.0, 404);
    assert_eq!(bed.login("away", &token).await, UNKNOWN);
}

#[tokio::test]
async fn a_refresh_in_flight_is_waited_for_at_the_stop_and_what_it_rotated_is_on_disk() {
    let mut bed = Bed::start(ProviderOptions::default(), "").await;
    let token = bed.account("stop").await;
    let mut waiting = begin_login(&bed, "stop", &token).await;
    let process = bed.portreeve.process();
    process.signal(Signal::TERM);
    let goodbye = waiting.line().await;
    assert!(goodbye.starts_with("* BYE "), "{goodbye}");
    waiting.expect_end().await;
    let status = process.wait().await;
    assert!(status.success(), "{}", process.log_tail());
    assert_eq!(bed.provider.counters("stop").await.refreshes, 1);

    bed.portreeve.spawn();
    bed.portreeve.until_ready().await;
    assert_eq!(bed.login("stop", &token).await, "OK stop authenticated");
    assert_eq!(
        bed.provider.counters("stop").await.requests,
        1,
        "its access token is kept"
    );
    // The provider punishes the use of any but the last refresh token.
    assert!(bed.provider.revoke_access_tokens("stop").await > 0);
    assert_eq!(bed.login("stop", &token).await, "OK stop authenticated");
    assert_eq!(bed.provider.counters("stop").await.refreshes, 2);
}

#[tokio::test]
async fn a_rotated_grant_survives_a_power_cut_right_after_the_login() {
    let mut bed = Bed::start(ProviderOptions::default(), "").await;
    let token = bed.account("cut").await;
    for refreshes in 1..=3 {
        assert_eq!(bed.login("cut", &token).await, "OK cut authenticated");
        bed.portreeve.kill();
        bed.portreeve.spawn();
        bed.portreeve.until_ready().await;
        assert_eq!(bed.provider.counters("cut").await.refreshes, refreshes);
        assert!(bed.provider.revoke_access_tokens("cut").await > 0);
    }
}

#[tokio::test]
async fn answers_are_read_as_providers_write_them() {
    let options = ProviderOptions {
        rotation: Rotation::Off,
        access_token_seconds: 7200,
        ..ProviderOptions::default()
    };
    let bed = Bed::start(options, "").await;
    let cases = [
        ("number", None, 7200),
        ("string", Some(Fault::ExpiresInString), 7200),
        ("absent", Some(Fault::ExpiresInAbsent), 3600),
    ];
    for (user, fault, seconds) in cases {
        let token = bed.account(user).await;
        if let Some(fault) = fault {
            bed.provider.fault_next(1, fault).await;
        }
        let before = jiff::Timestamp::now();
        assert_eq!(bed.login(user, &token).await, format!("OK {user} authenticated"));
        let shown = bed.shown(user).await;
        let expires: jiff::Timestamp = shown["expires"].as_str().unwrap().parse().unwrap();
        let life = expires.duration_since(before).as_secs();
        // What the refresh and the login took is not part of the life.
        let patience = i64::try_from(PATIENCE.as_secs()).unwrap();
        assert!((seconds - 1..seconds + patience).contains(&life), "{user}: {shown}");
    }

    // Without a new refresh token the old one is used again.
    let token = bed.account("old").await;
    bed.provider.fault_of("old", Fault::RefreshTokenAbsent).await;
    assert_eq!(bed.login("old", &token).await, "OK old authenticated");
    assert!(bed.provider.revoke_access_tokens("old").await > 0);
    assert_eq!(bed.login("old", &token).await, "OK old authenticated");
    let requests = bed.provider.requests().await;
    let of_old = requests.iter().filter(|request| request.user.as_deref() == Some("old"));
    let used: Vec<&String> = of_old.map(|request| &request.params["refresh_token"]).collect();
    assert_eq!(used.len(), 2);
    assert_eq!(used[0], used[1]);
}

/// A connection that waits for the answer to its LOGIN because a refresh is on its way, which takes two seconds.
async fn begin_login(bed: &Bed, user: &str, token: &str) -> Imap {
    bed.provider.fault_of(user, Fault::Slow { milliseconds: 2000 }).await;
    let mut imap = bed.portreeve.connect().await;
    imap.send_line(&format!("A LOGIN {user} {token}")).await;
    until(PATIENCE, "a refresh is on its way", async || {
        (bed.provider.counters(user).await.in_flight == 1).then_some(())
    })
    .await;
    bed.provider.clear_faults_of(user).await;
    imap
}

const UNKNOWN: &str = "NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user";
/// Longer than the least time between a token and its renewal.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(60);
