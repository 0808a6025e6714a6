//! Sends what [`super::request`] builds, and hands the answers to those who read them.
//!
//! An answer is read up to [`TOKEN_ANSWER_BYTES_MAX`]. Nothing is sent twice, but for a refresh that named a scope without
//! consent: it is asked again for the grant's own scopes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{Method, Request, header};
use url::Url;

use super::answer::{self, Response, TokenAnswer, TokenError, TokenErrorKind};
use super::discovery::Metadata;
use super::request::TokenRequest;
use super::{Basis, TokenSource, discovery, is_loopback, is_url_allowed, request};
use crate::clock;
use crate::config::{OAuthApp, Provider};
use crate::limits::TOKEN_ANSWER_BYTES_MAX;
use crate::net::http::{Destination, Http, HttpError, Reply, Route};
use crate::secret::{ExposeSecret, SecretString};

/// Sends requests to providers. Cheap to clone; clones share what issuers told.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    http: Http,
    issuers: Arc<Mutex<HashMap<Url, Discovered>>>,
}

#[derive(Debug, Clone)]
struct Discovered {
    metadata: Arc<Metadata>,
    at: Instant,
}

/// What is left of the time that an exchange may take in all.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    begun: Instant,
    limit: Duration,
}

impl OAuthClient {
    /// A client that sends by `http`.
    pub fn new(http: Http) -> Self {
        Self {
            http,
            issuers: Arc::default(),
        }
    }

    /// What the provider's issuer tells of itself; `None` where the provider has no issuer.
    async fn metadata(
        &self,
        provider: &Provider,
        app: &OAuthApp,
        deadline: Deadline,
    ) -> Result<Option<Arc<Metadata>>, TokenError> {
        let Some(issuer) = &app.issuer else {
            return Ok(None);
        };
        let known = self.issuers().get(issuer).cloned();
        if let Some(known) = known
            && clock::instant().duration_since(known.at) < DISCOVERY_LIFE
        {
            return Ok(Some(known.metadata));
        }
        let url = discovery::metadata_url(issuer);
        let request = Request::builder().method(Method::GET).uri(url.as_str());
        let request = request.header(header::ACCEPT, "application/json").body(Vec::new());
        let request = request.map_err(|error| TokenError::app("bad_app", error.to_string()))?;
        let reply = self.send(provider, app, &url, request, deadline).await?;
        let metadata = Arc::new(discovery::read(issuer, app.allow_insecure, &reply.response())?);
        let discovered = Discovered {
            metadata: Arc::clone(&metadata),
            at: clock::instant(),
        };
        self.issuers().insert(issuer.clone(), discovered);
        Ok(Some(metadata))
    }

    /// Where the provider issues tokens.
    async fn token_url(&self, provider: &Provider, app: &OAuthApp, deadline: Deadline) -> Result<Url, TokenError> {
        if let Some(url) = &app.token_url {
            return Ok(url.clone());
        }
        let metadata = self.metadata(provider, app, deadline).await?;
        metadata
            .map(|metadata| metadata.token_endpoint.clone())
            .ok_or_else(|| TokenError::app("no_endpoint", "the provider has neither a token_url nor an issuer"))
    }

    /// Sends a token request and reads its answer. `secrets` are what it holds beside the app's own.
    async fn ask(
        &self,
        provider: &Provider,
        app: &OAuthApp,
        url: &Url,
        request: Result<TokenRequest, String>,
        secrets: &[&SecretString],
        deadline: Deadline,
    ) -> Result<TokenAnswer, TokenError> {
        let TokenRequest { http } = request.map_err(|message| TokenError::app("bad_app", message))?;
        let reply = self.send(provider, app, url, http, deadline).await?;
        let secrets = secrets.iter().copied().chain(app.client_secret.as_ref());
        let secrets: Vec<&str> = secrets.map(ExposeSecret::expose_secret).collect();
        answer::read(&reply.response(), clock::now(), &secrets)
    }

    async fn send(
        &self,
        provider: &Provider,
        app: &OAuthApp,
        url: &Url,
        request: Request<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<Reply, TokenError> {
        if !is_url_allowed(url, app.allow_insecure) {
            let message = "the provider's OAuth URLs must be https, or http on a loopback host";
            return Err(TokenError::app("insecure_url", message));
        }
        let destination = Destination {
            ca_file: provider.ca_file.clone(),
            route: if is_loopback(url) {
                Route::Loopback
            } else {
                Route::System
            },
        };
        let sent = self
            .http
            .send(request, &destination, TOKEN_ANSWER_BYTES_MAX, deadline.left());
        sent.await.map_err(failed)
    }

    /// Refreshes a grant (RFC 6749 §6).
    async fn refresh(
        &self,
        provider: &Provider,
        app: &OAuthApp,
        refresh_token: &SecretString,
        deadline: Deadline,
    ) -> Result<TokenAnswer, TokenError> {
        let url = self.token_url(provider, app, deadline).await?;
        let ask = async |scopes: &[String]| {
            let request = request::refresh(app, &url, refresh_token, scopes);
            self.ask(provider, app, &url, request, &[refresh_token], deadline).await
        };
        let scopes = app.refresh_scopes.as_slice();
        match ask(scopes).await {
            // A grant that was given for less than is served now: its own scopes still open what they opened before. Nothing
            // was rotated, since the endpoint refused.
            Err(error) if !scopes.is_empty() && error.is_for_want_of_consent() && !deadline.left().is_zero() => {
                tracing::info!(provider = %provider.name, %error, "refreshing for the scopes that the grant has");
                // The first refusal says what is missing, and is not made better by a second.
                ask(&[]).await.map_err(|second| match second.kind {
                    TokenErrorKind::Temporary { .. } => second,
                    TokenErrorKind::Grant | TokenErrorKind::App => error,
                })
            }
            answer => answer,
        }
    }

    fn issuers(&self) -> MutexGuard<'_, HashMap<Url, Discovered>> {
        // Nothing under this lock can leave the map half-changed.
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenSource for OAuthClient {
    async fn revoke(&self, _: &Provider, _: &SecretString, _: Duration) -> Result<super::Revocation, TokenError> {
        Ok(super::Revocation::NotOffered)
    }

    async fn obtain(&self, provider: &Provider, basis: &Basis, timeout: Duration) -> Result<TokenAnswer, TokenError> {
        let Some(app) = &provider.oauth else {
            return Err(TokenError::app("no_app", "the provider has no OAuth app configured"));
        };
        let deadline = Deadline::begin(timeout);
        match &basis.refresh_token {
            Some(refresh_token) => self.refresh(provider, app, refresh_token, deadline).await,
            None => Err(TokenError::app("no_grant", "the account has no refresh token")),
        }
    }

    fn reload(&self) {
        self.http.reload();
        self.issuers().clear();
    }
}

impl Deadline {
    fn begin(limit: Duration) -> Self {
        Self {
            begun: clock::instant(),
            limit,
        }
    }

    /// What finding an endpoint took is not to be had again: whoever stops waits for one `limit`.
    fn left(self) -> Duration {
        let passed = clock::instant().saturating_duration_since(self.begun);
        self.limit.saturating_sub(passed)
    }
}

impl Reply {
    fn response(&self) -> Response<'_> {
        Response {
            status: self.status,
            retry_after: self.retry_after.as_deref(),
            body: &self.body,
        }
    }
}

fn failed(error: HttpError) -> TokenError {
    let code = match &error {
        HttpError::TimedOut(_) => "timeout",
        HttpError::Connect(_) => "connect",
        HttpError::Broken(_) => "network",
        HttpError::Trust(_) => "trust",
        HttpError::Internal(_) => "internal",
    };
    TokenError::temporary(code, answer::clean(&format!("the token endpoint: {error}"), &[]))
}

/// How long an issuer's metadata is believed. Endpoints move rarely, and a reload asks anew.
const DISCOVERY_LIFE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Redirect, Response as Page};
    use axum::routing::{get, post};
    use tokio::sync::mpsc;

    use std::path::PathBuf;

    use super::*;
    use crate::config::{ClientAuth, test_support};
    use crate::net::tls::SystemRoots;

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Serves `router` on a free port of this machine and returns its base URL.
    async fn serve(router: Router) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn provider(token_url: Option<Url>, issuer: Option<Url>) -> Provider {
        let app = OAuthApp {
            token_url,
            issuer,
            client_secret: Some("s3cr3t".into()),
            client_auth: ClientAuth::Post,
            ..test_support::app()
        };
        test_support::provider("example", Some(app))
    }

    fn client() -> OAuthClient {
        OAuthClient::new(Http::new(SystemRoots::none()))
    }

    fn basis() -> Basis {
        Basis {
            account: "ada".to_owned(),
            user: "ada@example.com".to_owned(),
            refresh_token: Some("r1".into()),
            password: None,
        }
    }

    async fn refresh(provider: &Provider, timeout: Duration) -> Result<TokenAnswer, TokenError> {
        client().obtain(provider, &basis(), timeout).await
    }

    async fn refresh_against(
        answer: impl IntoResponse + Clone + Send + Sync + 'static,
    ) -> Result<TokenAnswer, TokenError> {
        let base = serve(Router::new().route("/token", post(async move || answer.clone()))).await;
        refresh(&provider(base.join("token").ok(), None), TIMEOUT).await
    }

    #[tokio::test]
    async fn a_refresh_sends_the_form_and_reads_the_answer() {
        let (seen, mut bodies) = mpsc::unbounded_channel();
        let answer = async |State(seen): State<mpsc::UnboundedSender<String>>, headers: HeaderMap, body: String| {
            assert_eq!(headers["accept"], "application/json");
            seen.send(body).unwrap();
            r#"{"access_token":"a2","refresh_token":"r2","expires_in":"120","token_type":"bearer"}"#
        };
        let base = serve(Router::new().route("/token", post(answer)).with_state(seen)).await;
        let answer = refresh(&provider(base.join("token").ok(), None), TIMEOUT)
            .await
            .unwrap();
        assert_eq!(answer.access_token.expose_secret(), "a2");
        assert_eq!(answer.refresh_token.unwrap().expose_secret(), "r2");
        assert_eq!(answer.expires_in, Duration::from_secs(120));
        assert_eq!(
            bodies.recv().await.unwrap(),
            "grant_type=refresh_token&refresh_token=r1&client_id=app&client_secret=s3cr3t"
        );
    }

    #[tokio::test]
    async fn a_grant_for_less_than_is_served_is_refreshed_for_what_it_has() {
        let (seen, mut bodies) = mpsc::unbounded_channel();
        let answer = async |State(seen): State<mpsc::UnboundedSender<String>>, body: String| {
            seen.send(body.clone()).unwrap();
            if body.contains("scope=") {
                let refusal =
                    r#"{"error":"invalid_grant","error_description":"AADSTS65001: The user has not consented."}"#;
                return (StatusCode::BAD_REQUEST, refusal);
            }
            (StatusCode::OK, r#"{"access_token":"a2","expires_in":3600}"#)
        };
        let base = serve(Router::new().route("/token", post(answer)).with_state(seen)).await;
        let mut provider = provider(base.join("token").ok(), None);
        let app = provider.oauth.as_mut().unwrap();
        app.refresh_scopes = vec!["imap".to_owned(), "smtp".to_owned()];
        let answer = refresh(&provider, TIMEOUT).await.unwrap();
        assert_eq!(answer.access_token.expose_secret(), "a2");
        assert!(bodies.recv().await.unwrap().contains("&scope=imap+smtp&"));
        assert!(!bodies.recv().await.unwrap().contains("scope="));
        assert!(bodies.try_recv().is_err(), "a third request");
    }

    #[tokio::test]
    async fn a_refusal_of_the_grants_own_scopes_keeps_the_first_words() {
        let answer = async |body: String| {
            let refusal = if body.contains("scope=") {
                r#"{"error":"invalid_grant","error_description":"AADSTS65001: The user has not consented."}"#
            } else {
                r#"{"error":"invalid_grant","error_description":"AADSTS70000: no."}"#
            };
            (StatusCode::BAD_REQUEST, refusal)
        };
        let base = serve(Router::new().route("/token", post(answer))).await;
        let mut provider = provider(base.join("token").ok(), None);
        provider.oauth.as_mut().unwrap().refresh_scopes = vec!["imap".to_owned()];
        let error = refresh(&provider, TIMEOUT).await.unwrap_err();
        assert!(error.is_for_want_of_consent(), "{error}");
    }

    #[tokio::test]
    async fn status_and_retry_after_survive() {
        let error = refresh_against((StatusCode::TOO_MANY_REQUESTS, [("retry-after", "17")], "busy")).await;
        let retry_after = Some(Duration::from_secs(17));
        assert_eq!(error.unwrap_err().kind, TokenErrorKind::Temporary { retry_after });
        let error = refresh_against((StatusCode::UNAUTHORIZED, "")).await.unwrap_err();
        assert_eq!(error.kind, TokenErrorKind::App);
        let error = refresh_against((StatusCode::BAD_REQUEST, r#"{"error":"invalid_grant"}"#))
            .await
            .unwrap_err();
        assert_eq!(error.kind, TokenErrorKind::Grant);
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let (seen, mut requests) = mpsc::unbounded_channel();
        let elsewhere = async |State(seen): State<mpsc::UnboundedSender<String>>, request: Request| {
            seen.send(request.uri().to_string()).unwrap();
        };
        let router = Router::new()
            .route("/token", post(async || Redirect::temporary("/elsewhere")))
            .route("/elsewhere", post(elsewhere))
            .with_state(seen);
        let base = serve(router).await;
        let error = refresh(&provider(base.join("token").ok(), None), TIMEOUT)
            .await
            .unwrap_err();
        assert_eq!(error.code, "http_307");
        assert!(requests.try_recv().is_err());
    }

    #[tokio::test]
    async fn an_endless_answer_is_read_up_to_the_limit() {
        let endless = async || -> Page {
            let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
            axum::body::Body::from_stream(chunks).into_response()
        };
        let base = serve(Router::new().route("/token", post(endless))).await;
        let error = refresh(&provider(base.join("token").ok(), None), TIMEOUT)
            .await
            .unwrap_err();
        assert_eq!(error.code, "answer_too_long");
    }

    #[tokio::test]
    async fn silence_and_a_closed_port_are_passing_trouble() {
        let base = serve(Router::new().route("/token", post(std::future::pending::<()>))).await;
        let error = refresh(&provider(base.join("token").ok(), None), Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(error.code, "timeout");
        // A port that was just given back: nobody listens there.
        let address = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let url = Url::parse(&format!("http://{address}/token")).unwrap();
        let error = refresh(&provider(Some(url), None), TIMEOUT).await.unwrap_err();
        assert_eq!(error.code, "connect");
        assert_eq!(error.kind, TokenErrorKind::Temporary { retry_after: None });
    }

    #[tokio::test]
    async fn an_issuer_is_asked_once_for_its_endpoint() {
        let (seen, mut asked) = mpsc::unbounded_channel();
        let metadata = async |State(seen): State<mpsc::UnboundedSender<()>>, headers: HeaderMap| {
            seen.send(()).unwrap();
            let host = headers["host"].to_str().unwrap().to_owned();
            format!(r#"{{"issuer":"http://{host}","token_endpoint":"http://{host}/token"}}"#)
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/token", post(async || r#"{"access_token":"a"}"#))
            .with_state(seen);
        let provider = provider(None, Some(serve(router).await));
        let client = client();
        for _ in 0..3 {
            client.obtain(&provider, &basis(), TIMEOUT).await.unwrap();
        }
        asked.try_recv().unwrap();
        assert!(asked.try_recv().is_err());
        client.reload();
        client.obtain(&provider, &basis(), TIMEOUT).await.unwrap();
        asked.try_recv().unwrap();
    }

    #[tokio::test]
    async fn finding_the_endpoint_and_asking_it_share_one_time_limit() {
        async fn pass_six_seconds() {
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(6)).await;
            tokio::time::resume();
        }
        let metadata = async |headers: HeaderMap| {
            pass_six_seconds().await;
            let host = headers["host"].to_str().unwrap().to_owned();
            format!(r#"{{"issuer":"http://{host}","token_endpoint":"http://{host}/token"}}"#)
        };
        let silent = async || {
            pass_six_seconds().await;
            std::future::pending::<()>().await;
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/token", post(silent));
        let provider = provider(None, Some(serve(router).await));
        let begun = clock::instant();
        assert_eq!(refresh(&provider, TIMEOUT).await.unwrap_err().code, "timeout");
        let took = clock::instant().duration_since(begun);
        assert!(took < Duration::from_secs(15), "{took:?}");
    }

    #[tokio::test]
    async fn what_is_misconfigured_is_the_apps_trouble_or_says_what_is_missing() {
        let mut passwords_only = provider(None, None);
        passwords_only.oauth = None;
        assert_eq!(refresh(&passwords_only, TIMEOUT).await.unwrap_err().code, "no_app");
        assert_eq!(
            refresh(&provider(None, None), TIMEOUT).await.unwrap_err().code,
            "no_endpoint"
        );
        let insecure = provider(Url::parse("http://id.example.com/token").ok(), None);
        assert_eq!(refresh(&insecure, TIMEOUT).await.unwrap_err().code, "insecure_url");
        let mut no_file = provider(Url::parse("https://127.0.0.1:1/token").ok(), None);
        no_file.ca_file = Some("/nonexistent/ca.pem".into());
        let error = refresh(&no_file, TIMEOUT).await.unwrap_err();
        assert_eq!(error.code, "trust");
        assert!(error.message.contains("/nonexistent/ca.pem"));
    }

    /// Serves one TLS connection with a certificate of its own, which is written to the returned file.
    async fn serve_tls(directory: &std::path::Path) -> (Url, PathBuf) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca_file = directory.join("ca.pem");
        std::fs::write(&ca_file, signed.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/token", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await.unwrap();
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"access_token\":\"a\"}";
                stream.write_all(answer).await.unwrap();
            }
        });
        (Url::parse(&url).unwrap(), ca_file)
    }

    #[tokio::test]
    async fn a_certificate_is_trusted_if_the_providers_ca_file_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (url, ca_file) = serve_tls(directory.path()).await;
        let mut provider = provider(Some(url), None);
        let error = refresh(&provider, TIMEOUT).await.unwrap_err();
        assert_eq!(error.code, "connect");
        assert!(error.message.contains("certificate"), "{}", error.message);
        provider.ca_file = Some(ca_file);
        let answer = refresh(&provider, TIMEOUT).await.unwrap();
        assert_eq!(answer.access_token.expose_secret(), "a");
    }
}
