//! Requests as text.

mod presets;

use super::*;
use crate::config::test_support;

fn app(client_auth: ClientAuth, secret: Option<&str>, scopes: &[&str]) -> OAuthApp {
    OAuthApp {
        client_id: "app id".to_owned(),
        client_secret: secret.map(Into::into),
        client_auth,
        scopes: vec!["consented".to_owned()],
        refresh_scopes: scopes.iter().map(ToString::to_string).collect(),
        ..test_support::app()
    }
}

fn caller(app: &OAuthApp) -> Caller<'_> {
    Caller { app, assertion: None }
}

fn built(app: &OAuthApp) -> (String, Option<String>) {
    let url = Url::parse("https://id.example.com/token?tenant=1").unwrap();
    let scopes: Vec<&str> = app.refresh_scopes.iter().map(String::as_str).collect();
    let request = refresh(caller(app), &url, &"r/1+&=".into(), &scopes).unwrap();
    assert_eq!(request.http.uri(), "https://id.example.com/token?tenant=1");
    assert_eq!(request.http.method(), "POST");
    assert_eq!(
        request.http.headers()["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(request.http.headers()["accept"], "application/json");
    let authorization = request.http.headers().get("authorization");
    (
        String::from_utf8(request.http.body().clone()).unwrap(),
        authorization.map(|value| value.to_str().unwrap().to_owned()),
    )
}

#[test]
fn each_way_of_authenticating_puts_the_secret_where_it_belongs() {
    const GRANT: &str = "grant_type=refresh_token&refresh_token=r%2F1%2B%26%3D";
    assert_eq!(
        built(&app(ClientAuth::Post, Some("s e"), &["mail", "offline_access"])),
        (
            format!("{GRANT}&scope=mail+offline_access&client_id=app+id&client_secret=s+e"),
            None
        )
    );
    // RFC 6749 §2.3.1: id and secret are form-encoded before they are joined: "app+id:s+e".
    assert_eq!(
        built(&app(ClientAuth::Basic, Some("s e"), &[])),
        (GRANT.to_owned(), Some("Basic YXBwK2lkOnMrZQ==".to_owned()))
    );
    assert_eq!(
        built(&app(ClientAuth::None, Some("s e"), &["mail"])),
        (format!("{GRANT}&scope=mail&client_id=app+id"), None)
    );
    assert_eq!(
        built(&app(ClientAuth::Post, None, &[])),
        (format!("{GRANT}&client_id=app+id"), None)
    );
}

#[test]
fn debug_output_shows_nothing_of_a_request() {
    let url = Url::parse("https://id.example.com/token").unwrap();
    let app = app(ClientAuth::Basic, Some("hunter2"), &[]);
    let request = refresh(caller(&app), &url, &"r1".into(), &[]).unwrap();
    assert_eq!(
        format!("{request:?} {request}"),
        "TokenRequest([REDACTED]) the request, not sent"
    );
}
