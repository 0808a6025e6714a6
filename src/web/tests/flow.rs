//! What each request does: a link, its button, the way back, and everything else.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::limits::WEB_REQUEST_TIMEOUT;

#[tokio::test]
async fn however_often_a_link_is_fetched_nothing_is_begun_and_no_cookie_is_set() {
    let side = Side::start().await;
    for fields in [
        &[][..],
        &[("Sec-Purpose", "prefetch")],
        &[("User-Agent", "a mail scanner")],
    ] {
        for method in ["GET", "HEAD"] {
            let reply = side.ask(method, "/authorize/t0ken", fields).await;
            assert_eq!((reply.status, reply.field("set-cookie")), (200, None));
            assert_eq!(reply.body.is_empty(), method == "HEAD");
            assert_protected(&reply);
        }
    }
    assert_eq!(side.asked(), vec![Asked::Open("t0ken".to_owned()); 6]);
}

#[tokio::test]
async fn the_button_binds_the_browser_and_sends_it_to_the_provider() {
    let side = Side::start().await;
    let reply = side.press("t0ken").await;
    assert_eq!(reply.status, 303);
    assert_eq!(
        reply.field("location"),
        Some("https://id.example.com/authorize?state=s3cret")
    );
    assert_protected(&reply);
    let cookie = reply.field("set-cookie").unwrap().to_owned();
    assert!(cookie.starts_with("__Host-portreeve="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );

    let pair = cookie.split(';').next().unwrap();
    side.ask("GET", "/oauth/callback?code=c0de&state=s3cret", &[("Cookie", pair)])
        .await;
    let asked = side.asked();
    let Asked::Begin(link, browser) = &asked[0] else {
        panic!("{asked:?}")
    };
    assert_eq!(link, "t0ken");
    let redirected = "https://mail.example.com/oauth/callback?code=c0de&state=s3cret".to_owned();
    assert_eq!(asked[1], Asked::Complete(redirected, Some(*browser)));

    side.press("t0ken").await;
    let asked = side.asked();
    assert!(
        matches!(&asked[2], Asked::Begin(_, other) if other != browser),
        "a new browser, a new secret"
    );
}

#[tokio::test]
async fn success_returns_to_whoever_made_the_link_if_they_asked_for_it() {
    let side = Side::start().await;
    for (return_to, status, location) in [
        (
            "https://app.example/done?x=1",
            303,
            Some("https://app.example/done?x=1"),
        ),
        ("javascript:alert(1)", 200, None),
        ("data:text/html,x", 200, None),
    ] {
        *side.port.completed.lock().unwrap() = Ok(granted(Some(return_to)));
        let reply = side.get("/oauth/callback?code=c0de&state=s3cret").await;
        assert_eq!(
            (reply.status, reply.field("location")),
            (status, location),
            "{return_to}"
        );
        assert_protected(&reply);
    }
}

#[tokio::test]
async fn a_post_that_another_site_sends_begins_nothing() {
    let side = Side::start().await;
    for (name, value) in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
    ] {
        let reply = side
            .ask("POST", "/authorize/t0ken", &[(name, value), ("Content-Length", "0")])
            .await;
        assert_eq!(reply.status, 403, "{name}: {value}");
        assert_eq!(reply.field("set-cookie"), None);
        assert_page(&reply);
    }
    assert_eq!(side.asked(), []);
}

#[tokio::test]
async fn other_paths_and_methods_have_a_page_and_reach_nothing() {
    let side = Side::start().await;
    for (method, path, status, allow) in [
        ("GET", "/", 404, None),
        ("GET", "/authorize", 404, None),
        ("GET", "/authorize/", 404, None),
        ("GET", "/authorize/a/b", 404, None),
        ("GET", "/v1/accounts", 404, None),
        ("GET", "/../etc/passwd", 404, None),
        ("POST", "/", 404, None),
        ("PUT", "/authorize/t0ken", 405, Some("GET,HEAD,POST")),
        ("OPTIONS", "/authorize/t0ken", 405, Some("GET,HEAD,POST")),
        ("POST", "/oauth/callback?state=s3cret", 405, Some("GET,HEAD")),
    ] {
        let reply = side.ask(method, path, &[("Content-Length", "0")]).await;
        assert_eq!((reply.status, reply.field("allow")), (status, allow), "{method} {path}");
        assert_page(&reply);
    }
    let head = side.ask("HEAD", "/oauth/callback?code=c0de&state=s3cret", &[]).await;
    assert_eq!(
        (head.status, head.field("allow"), head.body.as_str()),
        (405, Some("GET"), "")
    );
    assert_eq!(side.asked(), []);
}

#[tokio::test]
async fn search_engines_are_asked_to_stay_away() {
    let reply = Side::start().await.get("/robots.txt").await;
    assert_eq!(
        (reply.status, reply.body.as_str()),
        (200, "User-agent: *\nDisallow: /\n")
    );
    assert_protected(&reply);
}

#[tokio::test]
async fn routes_lie_below_the_public_urls_path() {
    let side = Side::at("https://example.com/:mail/", &[]).await;
    assert_eq!(side.get("/:mail/authorize/t0ken").await.status, 200);
    assert_eq!(side.get("/authorize/t0ken").await.status, 404);
    let begun = side.ask("POST", "/:mail/authorize/t0ken", OWN).await;
    let cookie = begun.field("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Secure-portreeve=") && cookie.contains("; Path=/:mail/;"),
        "{cookie}"
    );
    side.get("/:mail/oauth/callback?state=s3cret").await;
    let redirected = "https://example.com/:mail/oauth/callback?state=s3cret".to_owned();
    assert_eq!(side.asked().last(), Some(&Asked::Complete(redirected, None)));
}

#[tokio::test(start_paused = true)]
async fn a_consent_that_takes_long_goes_on_behind_an_answer_that_claims_nothing() {
    let side = Side::start().await;
    *side.port.takes.lock().unwrap() = WEB_REQUEST_TIMEOUT + Duration::from_secs(5);
    let reply = side.get("/oauth/callback?code=c0de&state=s3cret").await;
    assert_eq!(reply.status, 504);
    assert_page(&reply);
    assert!(reply.text().contains("The work goes on"), "{}", reply.text());
    let port = side.port.clone();
    assert_eq!(*port.ended.lock().unwrap(), 0);
    side.stop().await;
    assert_eq!(*port.ended.lock().unwrap(), 1, "a stop waits for it");
}

#[tokio::test]
async fn a_browser_that_hangs_up_does_not_stop_a_consent() {
    let side = Side::start().await;
    *side.port.takes.lock().unwrap() = Duration::from_millis(100);
    let mut stream = side.connect().await;
    stream
        .write_all(b"GET /oauth/callback?code=c0de HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    while side.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    let port = side.port.clone();
    side.stop().await;
    assert_eq!(*port.ended.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_defect_is_a_page_and_not_an_end() {
    let side = Side::start().await;
    *side.port.is_defective.lock().unwrap() = true;
    let reply = side.get("/oauth/callback?code=c0de").await;
    assert_eq!(reply.status, 500);
    assert_sound(&reply);
    assert_eq!(side.get("/robots.txt").await.status, 200);
}
