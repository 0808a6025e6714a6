//! Consents against an issuer on this machine.

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
use crate::oauth::RedirectUri;
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

fn callback() -> RedirectUri {
    RedirectUri::parse("http://localhost:4711/callback").unwrap()
}

fn redirect(query: &str) -> Redirect {
    let mut url = callback().url().clone();
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
