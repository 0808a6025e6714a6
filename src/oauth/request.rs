//! Builds token requests, without sending them.
//!
//! The `oauth2` crate knows the forms (RFC 6749 §2.3.1, §6); it is handed an HTTP client that gives the finished request
//! back instead of sending it, so that the crate's own reading of answers, which refuses what real providers send, is never
//! reached, and so that a request can be tested as text.

use std::fmt;

use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, Scope,
    SyncHttpClient, TokenUrl,
};
use url::Url;

use crate::config::{ClientAuth, OAuthApp};
use crate::secret::{ExposeSecret, SecretString};

/// A finished request to a token endpoint. Debug output shows none of its content, which is secrets throughout.
pub struct TokenRequest {
    /// The request, body and all.
    pub http: HttpRequest,
}

/// The request that refreshes a grant (RFC 6749 §6) for `scopes`; none of them stands for the grant's own.
///
/// # Errors
/// A message, if the app's values cannot be put into a request.
pub fn refresh(
    app: &OAuthApp,
    token_url: &Url,
    refresh_token: &SecretString,
    scopes: &[String],
) -> Result<TokenRequest, String> {
    let mut client = BasicClient::new(ClientId::new(app.client_id.clone()))
        .set_token_uri(TokenUrl::from_url(token_url.clone()))
        .set_auth_type(match app.client_auth {
            ClientAuth::Basic => AuthType::BasicAuth,
            ClientAuth::Post | ClientAuth::None | ClientAuth::PrivateKeyJwt => AuthType::RequestBody,
        });
    // A public client must not send a secret even if one is configured: Microsoft refuses it (AADSTS700025).
    if let (ClientAuth::Post | ClientAuth::Basic, Some(secret)) = (app.client_auth, &app.client_secret) {
        client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
    }
    let token = RefreshToken::new(refresh_token.expose_secret().to_owned());
    let outcome = client
        .exchange_refresh_token(&token)
        .add_scopes(scopes.iter().cloned().map(Scope::new))
        .request(&HandBack);
    match outcome {
        Err(RequestTokenError::Request(request)) => Ok(request),
        Err(_) | Ok(_) => Err("the app's settings do not make a valid request".to_owned()),
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRequest([REDACTED])")
    }
}

impl fmt::Display for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request, not sent")
    }
}

impl std::error::Error for TokenRequest {}

/// The HTTP client that sends nothing: its "error" is the request.
struct HandBack;

impl SyncHttpClient for HandBack {
    type Error = TokenRequest;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, TokenRequest> {
        Err(TokenRequest { http: request })
    }
}

#[cfg(test)]
mod tests {
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

    fn built(app: &OAuthApp) -> (String, Option<String>) {
        let url = Url::parse("https://id.example.com/token?tenant=1").unwrap();
        let request = refresh(app, &url, &"r/1+&=".into(), &app.refresh_scopes).unwrap();
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
        let request = refresh(&app(ClientAuth::Basic, Some("hunter2"), &[]), &url, &"r1".into(), &[]).unwrap();
        assert_eq!(
            format!("{request:?} {request}"),
            "TokenRequest([REDACTED]) the request, not sent"
        );
    }
}
