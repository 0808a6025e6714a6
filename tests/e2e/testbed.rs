//! The bed itself, without the proxy: what the other tests take for granted of the provider and of
//! Dovecot is shown here, so that a fault of the bed is not mistaken for one of the proxy.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::json;

use crate::support::dovecot::Dovecot;
use crate::support::imap::{Imap, Reply};
use crate::support::process::Process;
use crate::support::provider::{Answer, ClientAuth, Fault, Provider, ProviderOptions, Rotation};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

async fn provider() -> Provider {
    Provider::start(ProviderOptions::default()).await
}

fn assert_ok(reply: &Reply) {
    assert!(reply.is_ok(), "{reply:?}");
}

fn assert_authentication_failed(reply: &Reply) {
    assert!(reply.tagged.starts_with("NO [AUTHENTICATIONFAILED]"), "{reply:?}");
}

async fn refresh(provider: &Provider, refresh_token: &str) -> Answer {
    provider.refresh(refresh_token).await.expect("an answer comes")
}

#[tokio::test]
async fn dovecot_takes_oauth_tokens_and_passwords_in_clear_with_starttls_and_with_tls() {
    let provider = provider().await;
    let dovecot = Dovecot::start_with_passwords(&provider, &[(BOB, "se cret\"")]).await;
    let grant = provider.mint(ALICE).await;

    let mut clear = Imap::connect(dovecot.imap()).await;
    assert!(clear.greeting().contains("STARTTLS"), "{}", clear.greeting());
    let xoauth2 = clear.authenticate_xoauth2(ALICE, &grant.access_token).await;
    assert_ok(&xoauth2.reply);

    let mut upgraded = Imap::connect(dovecot.imap()).await.starttls(dovecot.authority()).await;
    let oauthbearer = upgraded.authenticate_oauthbearer(ALICE, &grant.access_token).await;
    assert_ok(&oauthbearer.reply);

    let mut tls = Imap::connect_tls(dovecot.imaps(), dovecot.authority()).await;
    assert_ok(&tls.login(BOB, "se cret\"").await);
    let mut tls = Imap::connect_tls(dovecot.imaps(), dovecot.authority()).await;
    let plain = tls.authenticate_plain(BOB, "se cret\"").await;
    assert_ok(&plain.reply);
}

#[tokio::test]
async fn dovecot_refuses_with_the_challenge_of_the_mechanism() {
    let provider = provider().await;
    let dovecot = Dovecot::start_with_passwords(&provider, &[(BOB, "secret")]).await;
    let expired = provider.mint_with_life(ALICE, -60).await;
    assert_eq!(expired.expires_in, -60);
    let good = provider.mint(ALICE).await;

    let mut imap = Imap::connect(dovecot.imap()).await;
    let refused = imap.authenticate_xoauth2(ALICE, &expired.access_token).await;
    assert_eq!(
        refused.challenge.as_deref(),
        Some(r#"{"status":"401","schemes":"bearer","scope":"mail"}"#)
    );
    assert_authentication_failed(&refused.reply);

    let refused = imap.authenticate_oauthbearer(ALICE, &expired.access_token).await;
    assert_eq!(refused.challenge.as_deref(), Some(r#"{"status":"invalid_token"}"#));
    assert_authentication_failed(&refused.reply);

    let of_another = imap.authenticate_xoauth2(BOB, &good.access_token).await;
    assert_authentication_failed(&of_another.reply);
    assert_authentication_failed(&imap.login(BOB, "wrong").await);

    assert!(provider.revoke_access_token(&good.access_token).await);
    let mut imap = Imap::connect(dovecot.imap()).await;
    let revoked = imap.authenticate_xoauth2(ALICE, &good.access_token).await;
    assert_authentication_failed(&revoked.reply);
}

#[tokio::test]
async fn dovecot_takes_tokens_while_the_issuer_is_stopped() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let grant = provider.mint(ALICE).await;

    provider.stop().await;
    let error = provider.refresh(&grant.refresh_token).await.expect_err("it is stopped");
    assert!(error.is_connect(), "{error:?}");
    let mut imap = Imap::connect(dovecot.imap()).await;
    let accepted = imap.authenticate_xoauth2(ALICE, &grant.access_token).await;
    assert_ok(&accepted.reply);

    provider.restart().await;
    assert_eq!(refresh(&provider, &grant.refresh_token).await.status, 200);
}

#[tokio::test]
async fn mail_is_read_and_appended_byte_for_byte() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let grant = provider.mint(ALICE).await;
    let delivered = b"Subject: one\r\n\r\nOne {5}\r\nA1 OK\r\n\xff\xfe\r\n";
    let appended = [b"Subject: two\r\n\r\n".as_slice(), &vec![b'x'; 1 << 20], b"\r\n"].concat();

    dovecot.fill(ALICE, [delivered.as_slice()]);
    let mut imap = Imap::connect(dovecot.imap()).await;
    let login = imap.authenticate_xoauth2(ALICE, &grant.access_token).await;
    assert!(login.reply.tagged.contains(" IDLE "), "{login:?}");
    assert!(login.reply.tagged.contains("COMPRESS=DEFLATE"), "{login:?}");
    assert_ok(&imap.append("INBOX", &appended).await);
    assert_ok(&imap.command("SELECT INBOX").await);
    assert_eq!(imap.fetch_body(1).await, delivered);
    assert_eq!(imap.fetch_body(2).await, appended);
    assert_eq!(dovecot.messages(ALICE), [delivered.to_vec(), appended]);
}

#[tokio::test]
async fn curl_trusts_the_certificate_and_reads_a_message() {
    let provider = provider().await;
    let dovecot = Dovecot::start_with_passwords(&provider, &[(BOB, "secret")]).await;
    dovecot.deliver(BOB, b"Subject: hello\r\n\r\nHello.\r\n");

    let port = dovecot.imaps().port();
    let mut curl = Process::spawn(
        "curl",
        Command::new("curl")
            .args(["-sv", "--user", &format!("{BOB}:secret"), "--cacert"])
            .arg(dovecot.ca_file())
            .arg(format!("imaps://localhost:{port}/INBOX;MAILINDEX=1")),
    );
    curl.stderr_line(|line| line.contains("certificate verify ok")).await;
    curl.stdout_line(|line| line == "Hello.").await;
    assert!(curl.wait().await.success(), "{}", curl.log_tail());
}

#[tokio::test]
async fn the_client_sees_the_end_of_a_connection_and_chooses_where_it_comes_from() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let local = SocketAddr::from(([127, 0, 0, 9], 0));
    let mut imap = Imap::connect_from(local, dovecot.imap()).await;
    let logout = imap.command("LOGOUT").await;
    assert!(logout.untagged_text()[0].starts_with("* BYE"), "{}", imap.transcript());
    imap.expect_end().await;
    dovecot.logged("rip=127.0.0.9").await;
}

#[tokio::test]
async fn idle_sees_a_delivery() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let grant = provider.mint(ALICE).await;
    let mut imap = Imap::connect(dovecot.imap()).await;
    assert_ok(&imap.authenticate_xoauth2(ALICE, &grant.access_token).await.reply);
    assert_ok(&imap.command("SELECT INBOX").await);

    imap.send_line("I IDLE").await;
    assert!(imap.line().await.starts_with('+'));
    dovecot.deliver(ALICE, b"Subject: new\r\n\r\nNew.\r\n");
    assert_eq!(imap.line().await, "* 1 EXISTS");
    imap.send_line("DONE").await;
    assert_ok(&imap.reply("I").await);
}

#[tokio::test]
async fn a_mailbox_of_2000_messages_is_made_at_once() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let grant = provider.mint(ALICE).await;
    let messages: Vec<Vec<u8>> = (0..2000)
        .map(|number| format!("Subject: {number}\r\n\r\n{}\r\n", "x".repeat(number)).into_bytes())
        .collect();

    dovecot.fill(ALICE, messages.iter().map(Vec::as_slice));
    let mut imap = Imap::connect(dovecot.imap()).await;
    assert_ok(&imap.authenticate_xoauth2(ALICE, &grant.access_token).await.reply);
    let selected = imap.command("SELECT INBOX").await;
    assert!(
        selected.untagged_text().contains(&"* 2000 EXISTS".to_owned()),
        "{selected:?}"
    );
    assert_eq!(imap.fetch_body(2000).await, messages[1999]);
}

#[tokio::test]
async fn two_hundred_logins_at_once_succeed() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let token = provider.mint(ALICE).await.access_token;
    let logins: Vec<_> = (0..200)
        .map(|_| {
            let (address, token) = (dovecot.imap(), token.clone());
            tokio::spawn(async move {
                let mut imap = Imap::connect(address).await;
                let login = imap.authenticate_xoauth2(ALICE, &token).await;
                assert_ok(&login.reply);
                imap
            })
        })
        .collect();
    let mut sessions = Vec::new();
    for login in logins {
        sessions.push(login.await.expect("no login fails"));
    }
    assert_ok(&sessions[0].command("NOOP").await);
    assert_ok(&sessions[199].command("NOOP").await);
}

#[tokio::test]
async fn a_refresh_rotates_and_the_new_access_token_logs_in() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let grant = provider.mint_with_life(ALICE, -60).await;

    let answer = refresh(&provider, &grant.refresh_token).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["expires_in"], 3600);
    assert_ne!(answer.text("refresh_token"), grant.refresh_token);
    let mut imap = Imap::connect(dovecot.imap()).await;
    let login = imap.authenticate_xoauth2(ALICE, &answer.text("access_token")).await;
    assert_ok(&login.reply);

    let counters = provider.counters(ALICE).await;
    assert_eq!((counters.requests, counters.refreshes), (1, 1));
    assert_eq!((counters.in_flight, counters.in_flight_max), (0, 1));
    assert_eq!(counters.by_grant_type["refresh_token"], 1);
    assert_eq!(provider.counters(BOB).await.requests, 0);
}

#[tokio::test]
async fn every_token_request_is_logged_with_its_secrets() {
    let provider = provider().await;
    let endpoints = provider.endpoints();
    assert_eq!(endpoints.token_url, format!("{}/token", endpoints.issuer));
    let grant = provider.mint(ALICE).await;

    provider.fault_next(1, Fault::InvalidClient).await;
    refresh(&provider, "never issued").await;
    refresh(&provider, &grant.refresh_token).await;
    assert_eq!(provider.counters(ALICE).await.requests, 1);
    assert_eq!(provider.counters_of_all().await.requests, 2);
    let requests = provider.requests().await;
    assert_eq!(requests[0].params["refresh_token"], "never issued");
    assert_eq!(requests[0].user, None);
    assert_eq!(requests[0].fault.as_deref(), Some("invalid_client"));
    assert_eq!((requests[0].status, requests[0].carried_out), (Some(401), false));
    let request = &requests[1];
    assert_eq!(request.method, "POST");
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.params["client_secret"], endpoints.client_secret);
    assert_eq!(request.user.as_deref(), Some(ALICE));
    assert_eq!(request.fault, None);
    assert_eq!(request.params["refresh_token"], grant.refresh_token);
    assert_eq!((request.status, request.carried_out), (Some(200), true));
}

#[tokio::test]
async fn strict_rotation_revokes_the_grant_when_a_token_is_used_again() {
    let provider = provider().await;
    let grant = provider.mint(ALICE).await;

    let rotated = refresh(&provider, &grant.refresh_token).await.text("refresh_token");
    let reused = refresh(&provider, &grant.refresh_token).await;
    assert_eq!((reused.status, reused.text("error").as_str()), (400, "invalid_grant"));
    let after = refresh(&provider, &rotated).await;
    assert_eq!((after.status, after.text("error").as_str()), (400, "invalid_grant"));
}

#[tokio::test]
async fn lenient_rotation_leaves_used_tokens_good_and_none_keeps_the_only_one() {
    let provider = provider().await;
    let grant = provider.mint(ALICE).await;

    provider.rotate(Rotation::Lenient).await;
    let rotated = refresh(&provider, &grant.refresh_token).await.text("refresh_token");
    assert_ne!(rotated, grant.refresh_token);
    assert_eq!(refresh(&provider, &grant.refresh_token).await.status, 200);
    assert_eq!(refresh(&provider, &rotated).await.status, 200);

    provider.rotate(Rotation::Off).await;
    let same = refresh(&provider, &rotated).await;
    assert_eq!(same.text("refresh_token"), rotated);

    assert!(provider.revoke_grants(ALICE).await > 0);
    assert_eq!(refresh(&provider, &rotated).await.text("error"), "invalid_grant");
}

#[tokio::test]
async fn each_way_of_client_authentication_is_taken() {
    for client_auth in [ClientAuth::Post, ClientAuth::Basic, ClientAuth::None] {
        let provider = Provider::start(ProviderOptions {
            client_auth,
            ..ProviderOptions::default()
        })
        .await;
        let grant = provider.mint(ALICE).await;
        let answer = refresh(&provider, &grant.refresh_token).await;
        assert_eq!(answer.status, 200, "{client_auth:?}: {answer:?}");
        let request = &provider.requests().await[0];
        let has_header = request.headers.contains_key("authorization");
        assert_eq!(has_header, matches!(client_auth, ClientAuth::Basic));
        let has_secret = request.params.contains_key("client_secret");
        assert_eq!(has_secret, matches!(client_auth, ClientAuth::Post));
    }
}

#[tokio::test]
async fn access_tokens_live_as_long_as_told() {
    let provider = provider().await;
    let grant = provider.mint(ALICE).await;
    provider.access_tokens_live(7).await;
    let answer = refresh(&provider, &grant.refresh_token).await;
    assert_eq!(answer.json()["expires_in"], 7);
    assert_eq!(provider.revoke_access_tokens(ALICE).await, 2);
}

#[tokio::test]
async fn each_fault_that_answers_says_what_it_is_named_for_and_then_is_over() {
    let provider = provider().await;
    let refresh_token = provider.mint(ALICE).await.refresh_token;
    let custom = Fault::Custom {
        status: 403,
        body: json!({"error": "interaction_required"}),
    };
    let redirect = Fault::Redirect {
        location: "http://127.0.0.1:1/".to_owned(),
    };
    let in_200 = Fault::ErrorIn200 {
        error: "invalid_grant".to_owned(),
    };
    let faults = [
        (Fault::InvalidGrant, 400, "\"invalid_grant\""),
        (Fault::TemporarilyUnavailable, 400, "\"temporarily_unavailable\""),
        (Fault::InvalidClient, 401, "\"invalid_client\""),
        (Fault::ServerError, 500, "\"server_error\""),
        (Fault::Html200, 200, "<!DOCTYPE html>"),
        (Fault::Html502, 502, "<!DOCTYPE html>"),
        (in_200, 200, "\"error\":\"invalid_grant\""),
        (redirect, 302, ""),
        (custom, 403, "\"interaction_required\""),
    ];
    for (fault, status, text) in faults {
        provider.fault_next(1, fault.clone()).await;
        let answer = refresh(&provider, &refresh_token).await;
        assert_eq!(answer.status, status, "{fault:?}");
        assert!(answer.body.contains(text), "{fault:?}: {answer:?}");
    }
    provider.fault_next(1, Fault::TooManyRequests { retry_after: 17 }).await;
    let answer = refresh(&provider, &refresh_token).await;
    assert_eq!((answer.status, answer.retry_after), (429, Some(17)));
    provider.fault_next(1, Fault::HugeBody).await;
    assert!(refresh(&provider, &refresh_token).await.body.len() > 64 * 1024);

    // None of them was carried out, so the token has not been used up.
    assert_eq!(provider.counters(ALICE).await.refreshes, 0);
    assert_eq!(refresh(&provider, &refresh_token).await.status, 200);
}

#[tokio::test]
async fn faults_that_carry_the_refresh_out_change_only_the_answer() {
    let provider = provider().await;
    provider.rotate(Rotation::Lenient).await;
    let refresh_token = provider.mint(ALICE).await.refresh_token;

    provider.fault_next(1, Fault::ExpiresInString).await;
    let answer = refresh(&provider, &refresh_token).await;
    assert_eq!(answer.json()["expires_in"], "3600");
    provider.fault_next(1, Fault::ExpiresInAbsent).await;
    let answer = refresh(&provider, &refresh_token).await;
    assert!(answer.json().get("expires_in").is_none());
    assert_ne!(answer.text("access_token"), "");
    provider.fault_next(1, Fault::RefreshTokenAbsent).await;
    let answer = refresh(&provider, &refresh_token).await;
    assert!(answer.json().get("refresh_token").is_none());
    assert_ne!(answer.text("access_token"), "");

    let an_hour = Fault::Slow {
        milliseconds: 3_600_000,
    };
    provider.fault_next(1, an_hour).await;
    let carried_out = async {
        while provider.counters(ALICE).await.refreshes < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        answer = provider.refresh(&refresh_token) => panic!("not slow: {answer:?}"),
        () = carried_out => {}
    }
}

#[tokio::test]
async fn a_lost_answer_was_carried_out() {
    let provider = provider().await;
    let refresh_token = provider.mint(ALICE).await.refresh_token;

    provider.fault_next(1, Fault::Lost).await;
    provider.refresh(&refresh_token).await.expect_err("no answer arrives");
    assert_eq!(provider.counters(ALICE).await.refreshes, 1);
    let again = refresh(&provider, &refresh_token).await;
    assert_eq!(again.text("error"), "invalid_grant", "strict rotation sees the reuse");

    provider.rotate(Rotation::Lenient).await;
    let refresh_token = provider.mint(ALICE).await.refresh_token;
    provider.fault_next(1, Fault::Lost).await;
    provider.refresh(&refresh_token).await.expect_err("no answer arrives");
    assert_eq!(refresh(&provider, &refresh_token).await.status, 200);
}

#[tokio::test]
async fn a_fault_without_a_count_stays_until_cleared_and_hung_requests_are_then_cut() {
    let provider = provider().await;
    let refresh_token = provider.mint(ALICE).await.refresh_token;

    provider.fault(Fault::Drop).await;
    for _ in 0..3 {
        provider
            .refresh(&refresh_token)
            .await
            .expect_err("the connection is closed");
    }
    provider.clear_faults().await;

    provider.fault(Fault::Hang).await;
    let hanging = provider.refresh(&refresh_token);
    let clearing = async {
        while provider.counters(ALICE).await.in_flight == 0 {
            tokio::task::yield_now().await;
        }
        provider.clear_faults().await;
    };
    let (hung, ()) = tokio::join!(hanging, clearing);
    hung.expect_err("a hung request is never answered");
    assert_eq!(provider.counters(ALICE).await.refreshes, 0);
    assert_eq!(refresh(&provider, &refresh_token).await.status, 200);
}
