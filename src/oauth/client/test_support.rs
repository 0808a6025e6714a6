//! Providers on this machine, for the tests of this client.

use std::time::Duration;

use axum::Router;
use url::Url;

use super::OAuthClient;
use crate::config::{ClientAuth, OAuthApp, Provider, test_support};
use crate::net::http::Http;
use crate::net::tls::SystemRoots;

/// Long enough that no test meets it by chance.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `router` on a free port of this machine and returns its base URL.
pub(super) async fn serve(router: Router) -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A provider with a confidential app.
pub(super) fn provider(token_url: Option<Url>, issuer: Option<Url>) -> Provider {
    let app = OAuthApp {
        token_url,
        issuer,
        client_secret: Some("s3cr3t".into()),
        client_auth: ClientAuth::Post,
        ..test_support::app()
    };
    test_support::provider("example", Some(app))
}

/// A client that trusts nobody.
pub(super) fn client() -> OAuthClient {
    OAuthClient::new(Http::new(SystemRoots::none()))
}
