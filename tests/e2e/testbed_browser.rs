//! The bed's browser, without the proxy: what the tests of the hosted link and of the loopback flow take for granted of it.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::browser::{Browser, Colors, Person, Screen};
use crate::support::certs::Authority;
use crate::support::open_directory;
use crate::support::provider::{Provider, ProviderOptions};

const PAGE: &str = r#"<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>A page</title><style>
@media (prefers-color-scheme: dark) { .light { display: none } }
@media (prefers-color-scheme: light) { .dark { display: none } }
@media (max-width: 400px) { .wide { display: none } }
</style></head><body><main><h1>A page</h1>
<p class="light">by day</p><p class="dark">by night</p><p class="wide">on a desk</p>
<p id="script">without scripts</p><script>document.getElementById("script").textContent = "with scripts"</script>
<img src="/picture.png"></main></body></html>"#;

/// An HTTPS server whose every page is the same; its address ends with itself.
async fn serve(authority: &Authority) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = authority.acceptor();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok_and(|octets| octets > 2) {
                    line.clear();
                }
                let length = PAGE.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\
                     content-security-policy: img-src 'none'\r\nset-cookie: name=value\r\nconnection: close\r\n\r\n{PAGE}"
                );
                stream.get_mut().write_all(answer.as_bytes()).await.ok();
                stream.get_mut().shutdown().await.ok();
            });
        }
    });
    (format!("https://localhost:{port}/"), tasks)
}

#[tokio::test]
async fn a_page_is_seen_as_its_reader_would_over_tls_that_is_verified() {
    let authority = Authority::new();
    let directory = open_directory();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let (url, _server) = serve(&authority).await;
    let browser = Browser::start(&[&ca_file]).await;

    let desk = browser.open(Person::default()).await;
    let shown = desk.goto(&url).await;
    assert_eq!(
        (shown.url.as_str(), shown.title.as_str(), shown.status),
        (url.as_str(), "A page", 200)
    );
    assert_eq!(shown.headers["content-type"], "text/html");
    let text = desk.text("main").await;
    for seen in ["by day", "on a desk", "with scripts"] {
        assert!(text.contains(seen), "{text}");
    }
    let violations = desk.axe().await;
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!((violations[0].id.as_str(), violations[0].nodes.len()), ("image-alt", 1));
    assert!(!violations[0].help.is_empty());
    let complaints = desk.complaints().await;
    assert!(complaints[0].contains("violates"), "{complaints:?}");
    assert_eq!(desk.cookies().await[0]["name"], "name");
    let ahead = desk.prefetch(&format!("{url}ahead?a=1&b=2")).await;
    assert_eq!((ahead.status, ahead.headers["sec-purpose"].as_str()), (200, "prefetch"));
    let request = &desk.requests().await[0];
    assert_eq!((request.method.as_str(), request.url.as_str()), ("GET", url.as_str()));
    assert!(request.headers.contains_key("user-agent"), "{request:?}");
    desk.close().await;

    let phone = Person {
        screen: Screen::Phone,
        colors: Colors::Dark,
        scripts: false,
    };
    let phone = browser.open(phone).await;
    assert_eq!(phone.cookies().await, Vec::<serde_json::Value>::new());
    phone.goto(&url).await;
    let text = phone.text("main").await;
    assert!(text.contains("by night") && text.contains("without scripts"), "{text}");
    assert!(!text.contains("on a desk"), "{text}");
    let picture = directory.path().join("phone.png");
    phone.screenshot(&picture).await;
    assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG"));
}

#[tokio::test]
#[should_panic(expected = "ERR_CERT_AUTHORITY_INVALID")]
async fn a_stranger_is_not_trusted() {
    let (url, _server) = serve(&Authority::new()).await;
    let browser = Browser::start(&[]).await;
    browser.open(Person::default()).await.goto(&url).await;
}

#[tokio::test]
async fn consent_is_clicked_through_with_and_without_scripts() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let browser = Browser::start(&[]).await;
    // Where a user is sent back to: any page will do, so it is one of the provider's own.
    let back = format!("{}/.well-known/openid-configuration", provider.endpoints().issuer);
    provider.redirect_to(&[&back]).await;
    let url = url::Url::parse_with_params(
        &provider.endpoints().authorize_url,
        [
            ("response_type", "code"),
            ("client_id", "portreeve"),
            ("redirect_uri", back.as_str()),
            ("scope", "mail"),
            ("login_hint", "alice@example.com"),
            ("code_challenge", "an-s256-challenge-of-forty-three-characters"),
            ("code_challenge_method", "S256"),
        ],
    )
    .unwrap();
    for scripts in [true, false] {
        let person = Person {
            scripts,
            ..Person::default()
        };
        let owner = browser.open(person).await;
        let login = owner.goto(url.as_str()).await;
        assert_eq!(login.title, "Log in");
        owner.fill("role=textbox[name=\"User name\"]", "bob@example.com").await;
        let consent = owner.follow("role=button[name=\"Log in\"]").await;
        assert_eq!(consent.title, "Allow access?");
        let text = owner.text("main").await;
        assert!(text.contains("bob@example.com"), "{text}");
        assert_eq!(owner.count("role=checkbox").await, 1);
        owner.tick("role=checkbox[name=\"mail\"]", !scripts).await;
        let allowed = owner.follow("role=button[name=\"Allow\"]").await;
        assert!(allowed.url.starts_with(&back), "{allowed:?}");
        let answer = if scripts { "error=access_denied" } else { "code=" };
        assert!(allowed.url.contains(answer), "{allowed:?}");
        owner.reload().await;
        assert!(owner.html().await.contains("authorization_endpoint"));
    }
}
