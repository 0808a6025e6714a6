//! The authorization code flow (RFC 6749 §4.1) with PKCE (RFC 7636): a URL for the owner's browser, and the exchange of what
//! the browser brings back.

use std::time::Duration;

use subtle::ConstantTimeEq;
use url::Url;

use super::{Exchange, OAuthClient};
use crate::clock;
use crate::config::Provider;
use crate::oauth::TokenError;
use crate::oauth::answer::{self, Response, TokenAnswer};
use crate::oauth::identity::Expected;
use crate::oauth::redirect::{Outcome, Redirect};
use crate::oauth::request::{self, Authorization, Caller};
use crate::secret::{ExposeSecret, SecretString};

/// An authorization request.
#[derive(Debug, Clone)]
pub struct CodeRequest {
    /// Where the owner's browser goes.
    pub url: Url,
    /// What is kept until it comes back.
    pub pending: PendingCode,
}

/// What is kept of an authorization request until the owner's browser comes back.
#[derive(Debug, Clone)]
pub struct PendingCode {
    /// What the browser must bring back: 256 bits, by which the flow is found.
    pub state: SecretString,
    /// What the code is exchanged with (RFC 7636 §4.5).
    pub verifier: SecretString,
    /// What the id_token must repeat, where one was asked for.
    pub nonce: Option<SecretString>,
    /// Where the browser was told to come back to, word for word.
    pub redirect_uri: Url,
    /// Who was asked, where the provider's issuer is known.
    pub issuer: Option<String>,
    /// The scopes that were asked for, as far as mail needs them.
    pub scopes: Vec<String>,
}

impl PendingCode {
    /// Whether `redirect` brings this flow's state. Takes the same time whatever differs.
    pub fn is_state_of(&self, redirect: &Redirect) -> bool {
        let (mine, brought) = (self.state.expose_secret().as_bytes(), redirect.state.as_bytes());
        mine.ct_eq(brought).into()
    }
}

impl OAuthClient {
    /// Makes an authorization request, to be answered at `redirect_uri`. `login_hint` is the mailbox, for the provider's login
    /// page. `timeout` bounds what asking the issuer takes, if it must be asked.
    ///
    /// # Errors
    /// [`TokenError`]; `no_endpoint` where it is not known where owners consent.
    pub async fn begin_code(
        &self,
        provider: &Provider,
        redirect_uri: &Url,
        login_hint: Option<&str>,
        timeout: Duration,
    ) -> Result<CodeRequest, TokenError> {
        let exchange = self.begin(provider, timeout)?;
        exchange.begin_code(redirect_uri, login_hint).await
    }

    /// Exchanges what the browser brought back. `timeout` bounds the whole exchange.
    ///
    /// Dropping the future may lose the grant, for a code is good once; so callers run it to its end.
    ///
    /// # Errors
    /// [`TokenError`]: the provider's refusal, by way of the browser or of its token endpoint, or ours where the redirect
    /// belongs to another flow (`wrong_state`) or comes from another issuer (`wrong_issuer`).
    pub async fn exchange_code(
        &self,
        provider: &Provider,
        pending: &PendingCode,
        redirect: &Redirect,
        timeout: Duration,
    ) -> Result<TokenAnswer, TokenError> {
        let exchange = self.begin(provider, timeout)?;
        exchange.exchange_code(pending, redirect).await
    }
}

impl Exchange<'_> {
    async fn begin_code(&self, redirect_uri: &Url, login_hint: Option<&str>) -> Result<CodeRequest, TokenError> {
        // The issuer's own name is needed when the browser comes back, even if the endpoint is known without it.
        let metadata = self.metadata().await?;
        let metadata = metadata.as_deref();
        let told = metadata.and_then(|metadata| metadata.authorization_endpoint.as_ref());
        let Some(url) = self.app.authorize_url.as_ref().or(told) else {
            let message =
                "it is not known where owners of mailboxes consent; give authorize_url, or an issuer that tells it";
            return Err(TokenError::app("no_endpoint", message));
        };
        self.require_allowed(url)?;
        let Authorization {
            url,
            state,
            verifier,
            nonce,
        } = request::authorization(self.app, url, redirect_uri, login_hint);
        let pending = PendingCode {
            state,
            verifier,
            nonce,
            redirect_uri: redirect_uri.clone(),
            issuer: metadata.map(|metadata| metadata.issuer.clone()),
            scopes: self.app.scopes.clone(),
        };
        Ok(CodeRequest { url, pending })
    }

    async fn exchange_code(&self, pending: &PendingCode, redirect: &Redirect) -> Result<TokenAnswer, TokenError> {
        if !pending.is_state_of(redirect) {
            let message = "the browser came back from another authorization; begin anew";
            return Err(TokenError::temporary("wrong_state", message));
        }
        self.require_issuer(pending, redirect).await?;
        let code = match &redirect.outcome {
            Outcome::Code(code) => code,
            Outcome::Refused { code, description } => return Err(answer::refused(code, description)),
        };
        let url = self.token_url().await?;
        let caller = Caller {
            app: self.app,
            assertion: None,
        };
        let request = request::code_exchange(caller, &url, code, &pending.verifier, &pending.redirect_uri);
        let expected = Expected {
            issuer: pending.issuer.as_deref(),
            client_id: &self.app.client_id,
            nonce: pending.nonce.as_ref(),
        };
        let read = |response: &Response<'_>, secrets: &[&str]| {
            answer::read_consented(response, clock::now(), secrets, &expected)
        };
        self.ask(&url, request, &[code, &pending.verifier], read).await
    }

    /// Refuses what comes from another issuer than the one that was asked (RFC 9207 §2.4): a code must not reach a token
    /// endpoint that it was not meant for. An issuer that nothing is known of cannot be compared with anything.
    async fn require_issuer(&self, pending: &PendingCode, redirect: &Redirect) -> Result<(), TokenError> {
        let Some(issuer) = &pending.issuer else {
            return Ok(());
        };
        let message = match &redirect.issuer {
            Some(named) if named == issuer => return Ok(()),
            Some(_) => "the browser came back from another issuer than the one that was asked",
            None => {
                let metadata = self.metadata().await?;
                if !metadata.is_some_and(|metadata| metadata.names_itself) {
                    return Ok(());
                }
                "the issuer always names itself in its answer, and this answer names none"
            }
        };
        Err(TokenError::temporary("wrong_issuer", message))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::{get, post};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::config::{OAuthApp, test_support};
    use crate::oauth::TokenErrorKind;
    use crate::oauth::client::test_support::{TIMEOUT, client, serve};

    /// What the provider of these tests was sent, and what it answers.
    #[derive(Clone, Default)]
    struct Issuer {
        forms: Arc<Mutex<Vec<String>>>,
        nonce: Arc<Mutex<String>>,
        names_itself: bool,
    }

    impl Issuer {
        async fn serve(self) -> Provider {
            let router = Router::new()
                .route("/.well-known/openid-configuration", get(metadata))
                .route("/token", post(token))
                .with_state(self);
            let app = OAuthApp {
                issuer: Some(serve(router).await),
                scopes: ["openid", "offline_access", "mail"].map(str::to_owned).to_vec(),
                ..test_support::app()
            };
            test_support::provider("example", Some(app))
        }
    }

    async fn metadata(State(issuer): State<Issuer>, headers: HeaderMap) -> String {
        let base = format!("http://{}", headers["host"].to_str().unwrap());
        json!({
            "issuer": base, "token_endpoint": format!("{base}/token"), "authorization_endpoint": format!("{base}/auth"),
            "authorization_response_iss_parameter_supported": issuer.names_itself,
        })
        .to_string()
    }

    async fn token(State(issuer): State<Issuer>, headers: HeaderMap, form: String) -> String {
        issuer.forms.lock().unwrap().push(form);
        let claims = json!({
            "iss": format!("http://{}", headers["host"].to_str().unwrap()), "aud": "app", "exp": 4_000_000_000_u64,
            "sub": "42", "email": "ada@example.com", "nonce": *issuer.nonce.lock().unwrap(),
        });
        let id_token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()));
        json!({
            "access_token": "a1", "refresh_token": "r1", "scope": "openid mail", "id_token": id_token,
            "refresh_token_expires_in": 604_799,
        })
        .to_string()
    }

    fn callback() -> Url {
        Url::parse("http://localhost:4711/callback").unwrap()
    }

    fn redirect(query: &str) -> Redirect {
        let mut url = callback();
        url.set_query(Some(query));
        Redirect::read(&url).unwrap()
    }

    fn parameter(url: &Url, name: &str) -> Option<String> {
        url.query_pairs()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    #[tokio::test]
    async fn a_consent_ends_with_tokens_and_an_identity() {
        let issuer = Issuer::default();
        let provider = issuer.clone().serve().await;
        let client = client();
        let CodeRequest { url, pending } = client
            .begin_code(&provider, &callback(), Some("ada@example.com"), TIMEOUT)
            .await
            .unwrap();
        assert_eq!(url.path(), "/auth");
        assert_eq!(parameter(&url, "state").as_deref(), Some(pending.state.expose_secret()));
        assert_eq!(parameter(&url, "login_hint").as_deref(), Some("ada@example.com"));
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(pending.verifier.expose_secret()));
        assert_eq!(parameter(&url, "code_challenge"), Some(challenge));
        let nonce = parameter(&url, "nonce").unwrap();
        nonce.clone_into(&mut issuer.nonce.lock().unwrap());
        let state = pending.state.expose_secret();
        let answer = client
            .exchange_code(
                &provider,
                &pending,
                &redirect(&format!("code=c1&state={state}")),
                TIMEOUT,
            )
            .await
            .unwrap();
        assert_eq!(answer.access_token.expose_secret(), "a1");
        assert_eq!(answer.refresh_token.as_ref().unwrap().expose_secret(), "r1");
        assert_eq!(answer.missing(&pending.scopes).count(), 0);
        assert_eq!(answer.ends_in, Some(Duration::from_secs(604_799)));
        assert_eq!(
            answer.identity.unwrap().addresses().collect::<Vec<_>>(),
            ["ada@example.com"]
        );
        let expected = format!(
            "grant_type=authorization_code&code=c1&code_verifier={}&client_id=app&redirect_uri=http%3A%2F%2Flocalhost%3A4711%2Fcallback",
            pending.verifier.expose_secret()
        );
        assert_eq!(*issuer.forms.lock().unwrap(), [expected]);
    }

    #[tokio::test]
    async fn two_consents_share_nothing_that_could_be_guessed() {
        let provider = Issuer::default().serve().await;
        let client = client();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..2 {
            let PendingCode {
                state, verifier, nonce, ..
            } = client
                .begin_code(&provider, &callback(), None, TIMEOUT)
                .await
                .unwrap()
                .pending;
            for secret in [state, verifier, nonce.unwrap()] {
                // 256 bits in base64 without padding.
                assert_eq!(secret.expose_secret().len(), 43);
                assert!(seen.insert(secret.expose_secret().to_owned()));
            }
        }
    }

    /// What becomes of a browser that comes back with `query`, in which `STATE` and `ISSUER` stand for the right ones.
    async fn come_back(issuer: Issuer, query: &str) -> (Result<TokenAnswer, TokenError>, usize) {
        let provider = issuer.clone().serve().await;
        let client = client();
        let begun = client.begin_code(&provider, &callback(), None, TIMEOUT).await.unwrap();
        let pending = begun.pending;
        let nonce = pending.nonce.as_ref().unwrap().expose_secret();
        if issuer.nonce.lock().unwrap().is_empty() {
            nonce.clone_into(&mut issuer.nonce.lock().unwrap());
        }
        let query = query
            .replace("STATE", pending.state.expose_secret())
            .replace("ISSUER", pending.issuer.as_deref().unwrap());
        let answer = client
            .exchange_code(&provider, &pending, &redirect(&query), TIMEOUT)
            .await;
        let asked = issuer.forms.lock().unwrap().len();
        (answer, asked)
    }

    #[tokio::test]
    async fn a_code_for_another_flow_or_from_another_issuer_reaches_no_token_endpoint() {
        let cases = [
            (false, "code=c&state=other", Some("wrong_state")),
            (
                false,
                "code=c&state=STATE&iss=https://evil.example",
                Some("wrong_issuer"),
            ),
            (
                true,
                "code=c&state=STATE&iss=https://evil.example",
                Some("wrong_issuer"),
            ),
            (true, "code=c&state=STATE", Some("wrong_issuer")),
            (true, "error=access_denied&state=STATE", Some("wrong_issuer")),
            (false, "code=c&state=STATE", None),
            (false, "code=c&state=STATE&iss=ISSUER", None),
            (true, "code=c&state=STATE&iss=ISSUER", None),
        ];
        for (names_itself, query, refused) in cases {
            let issuer = Issuer {
                names_itself,
                ..Issuer::default()
            };
            let (answer, asked) = come_back(issuer, query).await;
            assert_eq!(answer.err().map(|error| error.code).as_deref(), refused, "{query}");
            assert_eq!(asked, usize::from(refused.is_none()), "{query}");
        }
    }

    #[tokio::test]
    async fn a_refusal_says_whose_it_is_and_asks_for_nothing() {
        let query = "state=STATE&error=access_denied&error_description=The+owner+said+no";
        let (answer, asked) = come_back(Issuer::default(), query).await;
        let error = answer.unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (TokenErrorKind::Grant, "access_denied")
        );
        assert_eq!(error.message, "The owner said no");
        assert_eq!(asked, 0);
    }

    #[tokio::test]
    async fn an_id_token_of_another_consent_refuses_the_tokens_beside_it() {
        let issuer = Issuer {
            nonce: Arc::new(Mutex::new("another".to_owned())),
            ..Issuer::default()
        };
        let (answer, _) = come_back(issuer, "code=c&state=STATE").await;
        assert_eq!(answer.unwrap_err().code, "bad_id_token");
    }

    #[tokio::test]
    async fn a_code_that_the_provider_does_not_know_is_its_refusal() {
        let refuse = async || {
            (
                StatusCode::BAD_REQUEST,
                r#"{"error":"invalid_grant","error_description":"no code c-secret"}"#,
            )
        };
        let base = serve(Router::new().route("/token", post(refuse))).await;
        let app = OAuthApp {
            authorize_url: base.join("auth").ok(),
            token_url: base.join("token").ok(),
            ..test_support::app()
        };
        let provider = test_support::provider("example", Some(app));
        let client = client();
        let pending = client
            .begin_code(&provider, &callback(), None, TIMEOUT)
            .await
            .unwrap()
            .pending;
        assert!(pending.nonce.is_none() && pending.issuer.is_none());
        let query = format!(
            "code=c-secret&state={}&iss=https://nobody.knows",
            pending.state.expose_secret()
        );
        let error = client
            .exchange_code(&provider, &pending, &redirect(&query), TIMEOUT)
            .await
            .unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("invalid_grant", "no code [REDACTED]")
        );
    }

    #[tokio::test]
    async fn where_owners_consent_must_be_known_and_safe() {
        let mut app = test_support::app();
        app.token_url = Url::parse("https://id.example.com/token").ok();
        let error = async |app: &OAuthApp| {
            let provider = test_support::provider("example", Some(app.clone()));
            client()
                .begin_code(&provider, &callback(), None, TIMEOUT)
                .await
                .unwrap_err()
        };
        let unknown = error(&app).await;
        assert_eq!(
            (unknown.kind, unknown.code.as_str()),
            (TokenErrorKind::App, "no_endpoint")
        );
        assert!(unknown.message.contains("authorize_url"));
        app.authorize_url = Url::parse("http://id.example.com/auth").ok();
        assert_eq!(error(&app).await.code, "insecure_url");
    }
}
