//! What a client may not stretch: how often, how much, how long, how many.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use super::*;
use crate::config;
use crate::limits::{
    WEB_BODY_BYTES_MAX, WEB_CONNECTIONS_PER_IP_MAX, WEB_HEADER_BYTES_MAX, WEB_INPUT_TIMEOUT, WEB_REQUESTS_BURST,
};

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_how_long_to_wait() {
    let side = Side::start().await;
    let mut last = side.get("/authorize/t0ken").await;
    for _ in 0..2 * WEB_REQUESTS_BURST {
        last = side
            .ask("GET", "/authorize/t0ken", &[("X-Forwarded-For", "203.0.113.5")])
            .await;
    }
    assert_eq!((last.status, last.field("retry-after")), (429, Some("1")));
    assert_page(&last);
    let opened = side.asked().len();
    side.press("t0ken").await;
    assert!(opened < 2 * WEB_REQUESTS_BURST as usize);
    assert_eq!(
        side.asked()
            .iter()
            .filter(|asked| matches!(asked, Asked::Begin(..)))
            .count(),
        0
    );
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_of_its_clients_has_a_limit_of_its_own() {
    let side = Side::at("https://mail.example.com", &["127.0.0.1/32"]).await;
    let ask = async |client: &str| {
        let fields = [("X-Forwarded-For", client)];
        side.ask("GET", "/robots.txt", &fields).await.status
    };
    for _ in 0..2 * WEB_REQUESTS_BURST {
        ask("198.51.100.9, 203.0.113.5").await;
    }
    assert_eq!(
        ask("198.51.100.1, 203.0.113.5").await,
        429,
        "what the client wrote itself does not count"
    );
    assert_eq!(ask("203.0.113.6").await, 200);
}

#[tokio::test]
async fn what_is_too_large_or_malformed_is_refused() {
    let side = Side::start().await;
    let large = "x".repeat(WEB_BODY_BYTES_MAX + 1);
    let post = format!(
        "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{large}",
        large.len()
    );
    let reply = Reply::parse(&side.raw(post.as_bytes()).await);
    assert_eq!(reply.status, 413);
    assert_page(&reply);
    let header = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(2 * WEB_HEADER_BYTES_MAX)
    );
    for (request, expected) in [
        (header.as_str(), "431"),
        ("GET / HTTP/9.9\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n", "400"),
        (
            "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            "400",
        ),
        (
            "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\nxx",
            "400",
        ),
    ] {
        let answer = side.raw(request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{request:.60}: {answer:?}"
        );
    }
    assert_eq!(side.asked(), []);
}

#[tokio::test]
async fn a_connection_is_good_for_one_request() {
    let side = Side::start().await;
    let two = "GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".repeat(2);
    let answer = side.raw(two.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn slow_headers_and_slow_bodies_are_cut_in_time() {
    let side = Side::start().await;
    let begun = tokio::time::Instant::now();
    assert_eq!(side.raw(b"GET / HTTP/1.1\r\nHost:").await, "");
    let half = "POST /authorize/t0ken HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx";
    assert_eq!(Reply::parse(&side.raw(half.as_bytes()).await).status, 408);
    let took = begun.elapsed();
    assert!(
        took >= 2 * WEB_INPUT_TIMEOUT && took < 2 * WEB_INPUT_TIMEOUT + Duration::from_secs(2),
        "{took:?}"
    );
    assert_eq!(side.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_request_that_never_comes_whole() {
    let side = Side::start().await;
    let mut stream = side.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let begun = tokio::time::Instant::now();
    side.stop().await;
    assert!(begun.elapsed() < WEB_INPUT_TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let side = Side::start().await;
    let mut held = Vec::new();
    for _ in 0..WEB_CONNECTIONS_PER_IP_MAX {
        let mut stream = side.connect().await;
        stream.write_all(b"GET / HT").await.unwrap();
        held.push(stream);
    }
    let refused = side.raw(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(refused, "");
    drop(held.pop());
    // The place is free as soon as the side has seen the connection end.
    while side
        .raw(b"GET /robots.txt HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .is_empty()
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_taken_address_is_told_with_the_key_that_names_it() {
    let side = Side::start().await;
    let settings = config::Web {
        listen: Some(side.address),
        public_url: Some(Url::parse("https://mail.example.com").unwrap()),
        ..config::Web::default()
    };
    let text = Bound::open(&settings, None).unwrap_err().to_string();
    let expected = format!("web.listen: cannot listen on {}", side.address);
    assert!(text.starts_with(&expected), "{text}");
    assert!(Bound::open(&config::Web::default(), None).unwrap().is_none());
}
