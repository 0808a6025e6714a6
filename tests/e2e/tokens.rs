//! Access tokens of both forms, and those that tokens make: over sockets, against real servers.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::imap::Imap;
use crate::support::pop3::{Pop3, is_ok};
use crate::support::protocol::Protocol;
use crate::support::provider::ProviderOptions;
use crate::support::smtp::Smtp;
use crate::support::upstream::Security;

const ALICE: &str = "alice@bed.test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_token_logs_in_over_every_protocol_and_mechanism_in_any_case() {
    let bed = Bed::start_whole(ProviderOptions::default(), "", &[]).await;
    bed.account(ALICE).await;
    let body = json!({ "account": ALICE, "scopes": ["imap-proxy", "smtp", "pop3"], "form": "short" });
    let shown = bed.portreeve.create_token(&body).await;
    assert_eq!(shown.len(), 20, "fits the password field of a scanner");
    let lower = shown.to_lowercase();
    let mixed = format!("{}-{}", &lower[..10], &shown[10..]);

    let address = bed.portreeve.imap();
    for token in [&shown, &lower, &mixed] {
        let reply = Imap::connect(address).await.login(ALICE, token).await;
        assert!(reply.is_ok(), "{}\n{}", reply.tagged, bed.log());
    }
    let mut imap = Imap::connect(address).await;
    assert!(
        imap.authenticate_plain(ALICE, &lower).await.reply.is_ok(),
        "{}",
        imap.transcript()
    );
    let mut imap = Imap::connect(address).await;
    assert!(
        imap.authenticate_xoauth2(ALICE, &mixed).await.reply.is_ok(),
        "{}",
        imap.transcript()
    );
    let mut imap = Imap::connect(address).await;
    let reply = imap.authenticate_oauthbearer(ALICE, &lower).await.reply;
    assert!(reply.is_ok(), "{}", imap.transcript());

    let address = bed.portreeve.door(Protocol::Smtp, Security::Off);
    for mechanism in ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"] {
        let mut smtp = Smtp::connect(address).await;
        smtp.ehlo().await;
        let reply = match mechanism {
            "PLAIN" => smtp.auth_plain(ALICE, &lower).await.reply,
            "LOGIN" => smtp.auth("LOGIN", ALICE, &BASE64.encode(&mixed)).await.reply,
            "XOAUTH2" => smtp.auth_xoauth2(ALICE, &lower).await.reply,
            _ => smtp.auth_oauthbearer(ALICE, &mixed).await.reply,
        };
        assert_eq!(reply.code, 235, "{mechanism}: {}\n{}", smtp.transcript(), bed.log());
    }

    let address = bed.portreeve.door(Protocol::Pop3, Security::Off);
    for token in [&lower, &mixed] {
        let status = Pop3::connect(address).await.login(ALICE, token).await;
        assert!(is_ok(&status), "{status}\n{}", bed.log());
    }
    for mechanism in ["PLAIN", "XOAUTH2", "OAUTHBEARER"] {
        let mut pop3 = Pop3::connect(address).await;
        let status = match mechanism {
            "PLAIN" => pop3.auth_plain(ALICE, &mixed).await.status,
            "XOAUTH2" => pop3.auth_xoauth2(ALICE, &lower).await.status,
            _ => pop3.auth_oauthbearer(ALICE, &lower).await.status,
        };
        assert!(is_ok(&status), "{mechanism}: {}", pop3.transcript());
    }

    // One that is not quite it is refused like any other, and deleting it by itself ends what it opened.
    let wrong = format!("{}{}", &shown[..19], if shown.ends_with('7') { '8' } else { '7' });
    let refused = bed.login(ALICE, &wrong).await;
    assert_eq!(
        refused,
        "NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user"
    );
    let mut live = bed.portreeve.logged_in(ALICE, &lower).await;
    let (status, answer) = bed.portreeve.delete(&format!("/v1/token/{lower}")).await;
    assert_eq!((status, answer), (200, json!({ "deleted": true })));
    assert!(live.line().await.starts_with("* BYE "));
    assert_eq!(bed.login(ALICE, &shown).await, refused);
    let log = bed.portreeve.log().to_lowercase();
    assert!(!log.contains(&lower) && !log.contains(&mixed.to_lowercase()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_maker_ends_what_it_made_and_their_sessions_within_a_second() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let own = bed.account(ALICE).await;
    let admin = bed.portreeve.admin();
    let maker = json!({ "account": ALICE, "scopes": ["api"], "mayGrant": ["imap-proxy"] });
    let maker = bed.portreeve.post("/v1/token", &maker).await;
    let made = async |maker: &Value, body: Value| {
        let maker = maker["token"].as_str().expect("a token is text");
        let (status, made) = admin.ask_as(maker, Method::POST, "/v1/token", Some(&body)).await;
        assert_eq!(status, 200, "{made}");
        made
    };
    let child = made(
        &maker,
        json!({ "account": ALICE, "scopes": ["api", "imap-proxy"], "mayGrant": ["imap-proxy"] }),
    )
    .await;
    let grandchild = made(
        &child,
        json!({ "account": ALICE, "scopes": ["imap-proxy"], "form": "short" }),
    )
    .await;
    let text = |token: &Value| token["token"].as_str().expect("a token is text").to_owned();

    let mut sessions = vec![
        bed.portreeve.logged_in(ALICE, &text(&child)).await,
        bed.portreeve.logged_in(ALICE, &text(&grandchild)).await,
    ];
    let mut other = bed.portreeve.logged_in(ALICE, &own).await;
    let begun = Instant::now();
    let (status, _) = bed.portreeve.delete(&format!("/v1/token/{}", text(&maker))).await;
    assert_eq!(status, 200);
    for session in &mut sessions {
        assert!(session.line().await.starts_with("* BYE "), "{}", session.transcript());
        session.expect_end().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(
        other.command("NOOP").await.is_ok(),
        "what the maker did not make goes on"
    );
    let left = bed.portreeve.read("/v1/tokens").await;
    assert_eq!(left["total"], 1, "{left}");
    for token in [&child, &grandchild] {
        let refused = bed.login(ALICE, &text(token)).await;
        assert_eq!(
            refused,
            "NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user"
        );
    }
}
