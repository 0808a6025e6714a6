//! Each way of granting against a token endpoint on this machine: what is asked, and what becomes of the answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use jsonwebtoken::Algorithm;
use tempfile::TempDir;

use super::*;
use crate::config::{ClientAuth, ClientKey, OAuthApp, Provider, test_support};
use crate::oauth::assertion::test_support::{file, rsa_key, service_account, verified};
use crate::oauth::client::test_support::{TIMEOUT, client, serve};
use crate::oauth::{Revocation, TokenSource};
use crate::secret::ExposeSecret;

const PASSING: TokenErrorKind = TokenErrorKind::Temporary { retry_after: None };
const TOKENS: (u16, &str) = (200, r#"{"access_token":"a1","refresh_token":"r2","expires_in":600}"#);
const GONE: (u16, &str) = (400, r#"{"error":"invalid_grant"}"#);

/// A token endpoint with the answers that are still to be given, the last of them for ever, and the forms that came.
#[derive(Clone)]
struct Endpoint {
    url: Url,
    answers: Arc<Mutex<Vec<(u16, &'static str)>>>,
    forms: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    async fn serve(answers: &[(u16, &'static str)]) -> Self {
        let answer = async |State(endpoint): State<Self>, form: String| {
            endpoint.forms.lock().unwrap().push(form);
            let mut answers = endpoint.answers.lock().unwrap();
            let (status, body) = if answers.len() > 1 {
                answers.remove(0)
            } else {
                answers[0]
            };
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let mut endpoint = Self {
            url: Url::parse("http://localhost/").unwrap(),
            answers: Arc::new(Mutex::new(answers.to_vec())),
            forms: Arc::default(),
        };
        let router = Router::new()
            .route("/token", post(answer))
            .route("/revoke", post(answer));
        let base = serve(router.with_state(endpoint.clone())).await;
        endpoint.url = base.join("token").unwrap();
        endpoint
    }

    fn provider(&self, app: OAuthApp) -> Provider {
        let app = OAuthApp {
            token_url: Some(self.url.clone()),
            revocation_url: self.url.join("revoke").ok(),
            ..app
        };
        test_support::provider("example", Some(app))
    }

    fn forms(&self) -> Vec<String> {
        self.forms.lock().unwrap().clone()
    }

    /// The parameters of the only form that came.
    fn form(&self) -> BTreeMap<String, String> {
        let forms = self.forms();
        assert_eq!(forms.len(), 1, "{forms:?}");
        parameters(&forms[0])
    }
}

fn parameters(form: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(form.as_bytes()).into_owned().collect()
}

fn basis(refresh_token: Option<&str>, password: Option<&str>) -> Basis {
    Basis {
        account: "ada".to_owned(),
        user: "ada@example.com".to_owned(),
        refresh_token: refresh_token.map(Into::into),
        password: password.map(Into::into),
        access_token: None,
        granted: None,
        names_no_scopes: false,
    }
}

fn app(grant: GrantType) -> OAuthApp {
    OAuthApp {
        grant,
        client_secret: Some("s3cr3t".into()),
        client_auth: ClientAuth::Post,
        scopes: vec!["mail".to_owned(), "send".to_owned()],
        ..test_support::app()
    }
}

#[tokio::test]
async fn an_app_asks_for_itself_and_keeps_no_refresh_token() {
    let endpoint = Endpoint::serve(&[TOKENS]).await;
    let provider = endpoint.provider(app(GrantType::ClientCredentials));
    let answer = client().obtain(&provider, &basis(None, None), TIMEOUT).await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "a1");
    assert!(answer.refresh_token.is_none());
    assert_eq!(
        endpoint.forms(),
        ["grant_type=client_credentials&scope=mail+send&client_id=app&client_secret=s3cr3t"]
    );
}

#[tokio::test]
async fn a_password_is_sent_where_no_refresh_token_does_it() {
    const PASSWORD: &str = "grant_type=password&username=ada%40example.com&password=hunter+2&scope=mail+send&client_id=app&client_secret=s3cr3t";
    const REFRESH: &str = "grant_type=refresh_token&refresh_token=r1&client_id=app&client_secret=s3cr3t";
    const BUSY: (u16, &str) = (503, "");
    let cases: [(_, _, &[_], Result<(), TokenErrorKind>, &[&str]); 7] = [
        (None, Some("hunter 2"), &[TOKENS], Ok(()), &[PASSWORD]),
        (Some("r1"), Some("hunter 2"), &[TOKENS], Ok(()), &[REFRESH]),
        (Some("r1"), None, &[TOKENS], Ok(()), &[REFRESH]),
        (
            Some("r1"),
            Some("hunter 2"),
            &[GONE, TOKENS],
            Ok(()),
            &[REFRESH, PASSWORD],
        ),
        (
            Some("r1"),
            Some("hunter 2"),
            &[GONE],
            Err(TokenErrorKind::Grant),
            &[REFRESH, PASSWORD],
        ),
        (Some("r1"), Some("hunter 2"), &[BUSY], Err(PASSING), &[REFRESH]),
        (None, None, &[TOKENS], Err(TokenErrorKind::App), &[]),
    ];
    for (refresh_token, password, answers, outcome, forms) in cases {
        let endpoint = Endpoint::serve(answers).await;
        let provider = endpoint.provider(app(GrantType::Password));
        let basis = basis(refresh_token, password);
        let answer = client().obtain(&provider, &basis, TIMEOUT).await;
        assert_eq!(answer.map(drop).map_err(|error| error.kind), outcome, "{forms:?}");
        assert_eq!(endpoint.forms(), forms);
    }
}

#[tokio::test]
async fn a_refusal_does_not_repeat_the_password() {
    let endpoint = Endpoint::serve(&[(400, r#"{"error":"invalid_grant","error_description":"not hunter2"}"#)]).await;
    let provider = endpoint.provider(app(GrantType::Password));
    let error = client().obtain(&provider, &basis(None, Some("hunter2")), TIMEOUT).await;
    assert_eq!(error.unwrap_err().message, "not [REDACTED]");
}

fn service_app(key_file: std::path::PathBuf) -> OAuthApp {
    OAuthApp {
        client_id: String::new(),
        client_secret: None,
        client_auth: ClientAuth::None,
        ..app(GrantType::ServiceAccount { key_file })
    }
}

#[tokio::test]
async fn a_service_account_asks_where_its_key_says_unless_the_provider_says_otherwise() {
    let directory = TempDir::new().unwrap();
    let key = rsa_key();
    let (configured, named) = (Endpoint::serve(&[TOKENS]).await, Endpoint::serve(&[TOKENS]).await);
    let key_file = file(&directory, "sa.json", service_account(&key, named.url.as_str()));
    let mut provider = configured.provider(service_app(key_file));
    for endpoint in [&configured, &named] {
        let answer = client().obtain(&provider, &basis(None, None), TIMEOUT).await.unwrap();
        assert_eq!(answer.access_token.expose_secret(), "a1");
        assert!(answer.refresh_token.is_none());
        let form = endpoint.form();
        assert_eq!(form.keys().collect::<Vec<_>>(), ["assertion", "grant_type"]);
        assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
        let (_, claims) = verified(&form["assertion"], &key, Algorithm::RS256, endpoint.url.as_str());
        assert_eq!(claims["sub"], "ada@example.com");
        assert_eq!(claims["scope"], "mail send");
        provider.oauth.as_mut().unwrap().token_url = None;
    }
}

#[tokio::test]
async fn a_service_accounts_key_is_read_at_each_use_and_sends_nothing_in_clear() {
    let directory = TempDir::new().unwrap();
    let (key, other) = (rsa_key(), rsa_key());
    let endpoint = Endpoint::serve(&[TOKENS]).await;
    let uri = endpoint.url.as_str();
    let key_file = file(&directory, "sa.json", service_account(&key, uri));
    let provider = endpoint.provider(service_app(key_file.clone()));
    let client = client();
    client.obtain(&provider, &basis(None, None), TIMEOUT).await.unwrap();
    file(&directory, "sa.json", service_account(&other, uri));
    client.obtain(&provider, &basis(None, None), TIMEOUT).await.unwrap();
    let forms = endpoint.forms();
    verified(&parameters(&forms[0])["assertion"], &key, Algorithm::RS256, uri);
    verified(&parameters(&forms[1])["assertion"], &other, Algorithm::RS256, uri);

    file(
        &directory,
        "sa.json",
        service_account(&other, "http://id.example.com/token"),
    );
    let mut elsewhere = provider.clone();
    elsewhere.oauth.as_mut().unwrap().token_url = None;
    let error = client
        .obtain(&elsewhere, &basis(None, None), TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (TokenErrorKind::App, "insecure_url"));

    std::fs::remove_file(&key_file).unwrap();
    let error = client.obtain(&provider, &basis(None, None), TIMEOUT).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (TokenErrorKind::App, "key_file"));
    assert!(error.message.contains("sa.json"), "{error}");
}

#[tokio::test]
async fn an_app_with_a_key_proves_itself_to_every_endpoint_with_an_assertion_of_its_own() {
    let directory = TempDir::new().unwrap();
    let key = rsa_key();
    let endpoint = Endpoint::serve(&[TOKENS]).await;
    let app = |grant| OAuthApp {
        client_secret: None,
        client_auth: ClientAuth::PrivateKeyJwt,
        client_key: Some(ClientKey {
            key_file: file(&directory, "key.pem", key.serialize_pem()),
            certificate_file: None,
        }),
        ..app(grant)
    };
    let client = client();
    for (grant, basis) in [
        (GrantType::Code, basis(Some("r1"), None)),
        (GrantType::ClientCredentials, basis(None, None)),
        (GrantType::Password, basis(None, Some("hunter2"))),
    ] {
        client
            .obtain(&endpoint.provider(app(grant)), &basis, TIMEOUT)
            .await
            .unwrap();
    }
    let provider = endpoint.provider(app(GrantType::Code));
    let revoked = client.revoke(&provider, &"r1".into(), TIMEOUT).await.unwrap();
    assert_eq!(revoked, Revocation::Done);
    let forms = endpoint.forms();
    assert_eq!(forms.len(), 4);
    let mut ids = std::collections::HashSet::new();
    for form in &forms {
        let form = parameters(form);
        assert_eq!(form["client_id"], "app");
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(form["client_assertion_type"], kind);
        assert!(!form.contains_key("client_secret"));
        let (_, claims) = verified(&form["client_assertion"], &key, Algorithm::RS256, endpoint.url.as_str());
        assert!(ids.insert(claims["jti"].to_string()));
    }
}
