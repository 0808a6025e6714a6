//! The one HTTP client: sends token requests and reads at most [`TOKEN_ANSWER_BYTES_MAX`] of an answer. Nothing else in the
//! crate names `reqwest`.
//!
//! Redirects are not followed (a token endpoint that redirects would be handed the refresh token elsewhere) and nothing is
//! sent twice (a rotating refresh token may be used once), but for a refresh that named a scope without consent: it is asked
//! again for the grant's own scopes. A request over the network goes through the proxy that
//! `HTTPS_PROXY` and `NO_PROXY` name; one to a loopback host never does.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::header::RETRY_AFTER;
use url::Url;
use zeroize::Zeroizing;

use super::answer::{self, Response, TokenAnswer, TokenError, TokenErrorKind};
use super::request::TokenRequest;
use super::{TokenSource, discovery, is_loopback, is_url_allowed, request};
use crate::clock;
use crate::config::{OAuthApp, Provider};
use crate::limits::TOKEN_ANSWER_BYTES_MAX;
use crate::net::tls::SystemRoots;
use crate::secret::{ExposeSecret, SecretString};

/// Sends token requests. Cheap to clone; clones share connections and caches.
#[derive(Debug, Clone)]
pub struct TokenClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    system: SystemRoots,
    clients: Mutex<HashMap<Trust, reqwest::Client>>,
    endpoints: Mutex<HashMap<Url, Discovered>>,
}

/// What distinguishes one HTTP client from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Trust {
    ca_file: Option<PathBuf>,
    route: Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Route {
    /// To this machine, past any proxy.
    Loopback,
    /// As the environment says.
    System,
}

#[derive(Debug, Clone)]
struct Discovered {
    token_url: Url,
    at: Instant,
}

/// What came back: the answer's parts that [`Response`] borrows.
struct Received {
    status: u16,
    retry_after: Option<String>,
    body: Zeroizing<Vec<u8>>,
}

impl TokenClient {
    /// A client that trusts `system`, and has connected to nothing yet.
    pub fn new(system: SystemRoots) -> Self {
        Self {
            shared: Arc::new(Shared {
                system,
                clients: Mutex::default(),
                endpoints: Mutex::default(),
            }),
        }
    }

    async fn endpoint(&self, app: &OAuthApp, provider: &Provider, timeout: Duration) -> Result<Url, TokenError> {
        if let Some(url) = &app.token_url {
            return Ok(url.clone());
        }
        let Some(issuer) = &app.issuer else {
            return Err(TokenError::app(
                "no_endpoint",
                "the provider has neither a token_url nor an issuer",
            ));
        };
        let known = lock(&self.shared.endpoints).get(issuer).cloned();
        if let Some(known) = known
            && clock::instant().duration_since(known.at) < DISCOVERY_LIFE
        {
            return Ok(known.token_url);
        }
        let url = discovery::metadata_url(issuer);
        check(&url, app)?;
        let client = self.client(provider, &url).await?;
        let received = receive(client.get(url), timeout).await?;
        let token_url = discovery::token_endpoint(issuer, app.allow_insecure, &received.response())?;
        let at = clock::instant();
        let discovered = Discovered {
            token_url: token_url.clone(),
            at,
        };
        lock(&self.shared.endpoints).insert(issuer.clone(), discovered);
        Ok(token_url)
    }

    /// Asks `url` for a refresh, for `scopes` or the grant's own.
    async fn ask(
        &self,
        provider: &Provider,
        app: &OAuthApp,
        url: &Url,
        refresh_token: &SecretString,
        scopes: &[String],
        timeout: Duration,
    ) -> Result<TokenAnswer, TokenError> {
        let TokenRequest { http } =
            request::refresh(app, url, refresh_token, scopes).map_err(|message| TokenError::app("bad_app", message))?;
        let client = self.client(provider, url).await?;
        if timeout.is_zero() {
            return Err(timed_out(timeout));
        }
        let (head, body) = http.into_parts();
        let received = receive(client.post(url.clone()).headers(head.headers).body(body), timeout).await?;
        let mut secrets = vec![refresh_token.expose_secret()];
        secrets.extend(app.client_secret.as_ref().map(ExposeSecret::expose_secret));
        answer::read(&received.response(), clock::now(), &secrets)
    }

    /// The HTTP client for a provider's trust anchors, made on first use.
    async fn client(&self, provider: &Provider, url: &Url) -> Result<reqwest::Client, TokenError> {
        let trust = Trust {
            ca_file: provider.ca_file.clone(),
            route: if is_loopback(url) {
                Route::Loopback
            } else {
                Route::System
            },
        };
        if let Some(client) = lock(&self.shared.clients).get(&trust) {
            return Ok(client.clone());
        }
        let (system, wanted) = (self.shared.system.clone(), trust.clone());
        let client = tokio::task::spawn_blocking(move || build(&system, &wanted))
            .await
            .map_err(|error| TokenError::temporary("internal", error.to_string()))?
            .map_err(|message| TokenError::temporary("trust", message))?;
        lock(&self.shared.clients).insert(trust, client.clone());
        Ok(client)
    }
}

#[async_trait]
impl TokenSource for TokenClient {
    async fn refresh(
        &self,
        provider: &Provider,
        refresh_token: &SecretString,
        timeout: Duration,
    ) -> Result<TokenAnswer, TokenError> {
        let Some(app) = &provider.oauth else {
            return Err(TokenError::app("no_app", "the provider has no OAuth app configured"));
        };
        let begun = clock::instant();
        let url = self.endpoint(app, provider, timeout).await?;
        check(&url, app)?;
        // What finding the endpoint took is not to be had again: whoever stops waits for one `timeout`.
        let left = || timeout.saturating_sub(clock::instant().saturating_duration_since(begun));
        let scopes = app.refresh_scopes.as_slice();
        let answer = self.ask(provider, app, &url, refresh_token, scopes, left()).await;
        match answer {
            // A grant that was given for less than is served now: its own scopes still open what they opened before. Nothing
            // was rotated, since the endpoint refused.
            Err(error) if !scopes.is_empty() && error.is_for_want_of_consent() && !left().is_zero() => {
                tracing::info!(provider = %provider.name, %error, "refreshing for the scopes that the grant has");
                let own = self.ask(provider, app, &url, refresh_token, &[], left()).await;
                // The first refusal says what is missing, and is not made better by a second.
                own.map_err(|second| match second.kind {
                    TokenErrorKind::Temporary { .. } => second,
                    TokenErrorKind::Grant | TokenErrorKind::App => error,
                })
            }
            answer => answer,
        }
    }

    fn reload(&self) {
        lock(&self.shared.clients).clear();
        lock(&self.shared.endpoints).clear();
    }
}

impl Received {
    fn response(&self) -> Response<'_> {
        Response {
            status: self.status,
            retry_after: self.retry_after.as_deref(),
            body: &self.body,
        }
    }
}

fn check(url: &Url, app: &OAuthApp) -> Result<(), TokenError> {
    if is_url_allowed(url, app.allow_insecure) {
        return Ok(());
    }
    Err(TokenError::app(
        "insecure_url",
        "the provider's OAuth URLs must be https, or http on a loopback host",
    ))
}

fn build(system: &SystemRoots, trust: &Trust) -> Result<reqwest::Client, String> {
    let tls = system
        .client_config(trust.ca_file.as_deref())
        .map_err(|error| error.to_string())?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("portreeve/", env!("CARGO_PKG_VERSION")))
        // A connection for each request: one kept may have been closed meanwhile, and then nobody could tell whether a
        // rotation had been carried out. An account asks about once an hour.
        .pool_max_idle_per_host(0);
    let builder = match trust.route {
        Route::Loopback => builder.no_proxy(),
        Route::System => builder,
    };
    builder.build().map_err(|error| causes(&error))
}

/// Sends a request and reads its answer up to the limit, all within `timeout`.
async fn receive(request: reqwest::RequestBuilder, timeout: Duration) -> Result<Received, TokenError> {
    let mut response = request
        .timeout(timeout)
        .send()
        .await
        .map_err(|error| failed(error, timeout))?;
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let mut received = Received {
        status: response.status().as_u16(),
        retry_after: retry_after.map(str::to_owned),
        body: Zeroizing::default(),
    };
    // What lies beyond the limit is never read; one byte more than the limit marks the body as too long.
    while received.body.len() <= TOKEN_ANSWER_BYTES_MAX {
        let Some(chunk) = response.chunk().await.map_err(|error| failed(error, timeout))? else {
            break;
        };
        let room = (TOKEN_ANSWER_BYTES_MAX + 1).saturating_sub(received.body.len());
        received.body.extend(chunk.iter().take(room));
    }
    Ok(received)
}

fn failed(error: reqwest::Error, timeout: Duration) -> TokenError {
    let error = error.without_url();
    if error.is_timeout() {
        return timed_out(timeout);
    }
    let code = if error.is_connect() { "connect" } else { "network" };
    TokenError::temporary(code, answer::clean(&causes(&error), &[]))
}

fn timed_out(timeout: Duration) -> TokenError {
    let message = format!(
        "the token endpoint did not answer within {}",
        humantime::format_duration(timeout)
    );
    TokenError::temporary("timeout", message)
}

/// An error with its causes, for the outermost of `reqwest`'s never tells what happened.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing under these locks can leave a value half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    use super::*;
    use crate::config::{ClientAuth, UserRule};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Serves `router` on a free port of this machine and returns its base URL.
    async fn serve(router: Router) -> Url {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn provider(token_url: Option<Url>, issuer: Option<Url>) -> Provider {
        Provider {
            name: "example".to_owned(),
            oauth: Some(OAuthApp {
                authorize_url: None,
                device_url: None,
                token_url,
                issuer,
                client_id: "app".to_owned(),
                client_secret: Some("s3cr3t".into()),
                client_auth: ClientAuth::Post,
                scopes: vec![],
                refresh_scopes: vec![],
                allow_insecure: false,
            }),
            sasl: vec![],
            imap: None,
            smtp: None,
            pop3: None,
            ca_file: None,
            sessions_per_account_max: None,
            submissions_max: None,
            domains: vec![],
            imap_user: UserRule::Address,
        }
    }

    async fn refresh(provider: &Provider, timeout: Duration) -> Result<TokenAnswer, TokenError> {
        TokenClient::new(SystemRoots::none())
            .refresh(provider, &"r1".into(), timeout)
            .await
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
        let client = TokenClient::new(SystemRoots::none());
        for _ in 0..3 {
            client.refresh(&provider, &"r1".into(), TIMEOUT).await.unwrap();
        }
        asked.try_recv().unwrap();
        assert!(asked.try_recv().is_err());
        client.reload();
        client.refresh(&provider, &"r1".into(), TIMEOUT).await.unwrap();
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
