//! Refreshing against servers on this machine: what is sent, what is read, what fails how.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response as Page};
use axum::routing::{get, post};
use tokio::sync::mpsc;

use super::test_support::{TIMEOUT, client, provider, serve};
use super::*;
use crate::oauth::TokenErrorKind;

fn basis() -> Basis {
    Basis {
        account: "ada".to_owned(),
        user: "ada@example.com".to_owned(),
        refresh_token: Some("r1".into()),
        password: None,
        access_token: None,
        granted: None,
        names_no_scopes: false,
    }
}

async fn refresh(provider: &Provider, timeout: Duration) -> Result<TokenAnswer, TokenError> {
    client().obtain(provider, &basis(), timeout).await
}

async fn refresh_against(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> Result<TokenAnswer, TokenError> {
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

/// What comes of a refresh, named scopes and all, against answers to requests that name scopes and to those that do not; and
/// the forms that came.
async fn refresh_scoped(
    basis: &Basis,
    scoped: (u16, &'static str),
    unscoped: (u16, &'static str),
) -> (Result<TokenAnswer, TokenError>, Vec<String>) {
    let (seen, mut forms) = mpsc::unbounded_channel();
    let answer = async move |State(seen): State<mpsc::UnboundedSender<String>>, form: String| {
        let (status, body) = if form.contains("scope=") { scoped } else { unscoped };
        seen.send(form).unwrap();
        (StatusCode::from_u16(status).unwrap(), body)
    };
    let base = serve(Router::new().route("/token", post(answer)).with_state(seen)).await;
    let mut provider = provider(base.join("token").ok(), None);
    let app = provider.oauth.as_mut().unwrap();
    app.refresh_scopes = ["imap", "smtp", "offline_access"].map(str::to_owned).to_vec();
    let answer = client().obtain(&provider, basis, TIMEOUT).await;
    let mut came = Vec::new();
    while let Ok(form) = forms.try_recv() {
        came.push(form);
    }
    (answer, came)
}

/// A grant of which the provider said that it is for both.
fn granted() -> Basis {
    Basis {
        granted: Some(vec!["imap".to_owned(), "smtp".to_owned()]),
        ..basis()
    }
}

const UNAUTHORIZED_SCOPES: &str = r#"{"error":"invalid_grant","error_codes":[70000],"error_description":
    "AADSTS70000: The request was denied because one or more scopes requested are unauthorized or expired."}"#;
const GOOD: (u16, &str) = (200, r#"{"access_token":"a2","expires_in":3600}"#);

#[tokio::test]
async fn scopes_that_are_refused_are_left_out_at_once_and_from_then_on() {
    for (status, body) in [
        (400, UNAUTHORIZED_SCOPES),
        (
            400,
            r#"{"error":"invalid_scope","error_description":"refresh token missing requested scope"}"#,
        ),
        (
            400,
            r#"{"error":"invalid_request","error_description":"AADSTS90023: Invalid STS request."}"#,
        ),
        (
            400,
            r#"{"error":"invalid_grant","error_description":"AADSTS65001: The user has not consented."}"#,
        ),
        (401, r#"{"error":"consent_required"}"#),
    ] {
        let (answer, forms) = refresh_scoped(&granted(), (status, body), GOOD).await;
        let answer = answer.unwrap();
        assert_eq!(answer.access_token.expose_secret(), "a2");
        assert!(answer.had_without_scopes, "{body}");
        assert_eq!(forms.len(), 2, "{forms:?}");
        assert!(forms[0].contains("&scope=imap+smtp&"), "{forms:?}");
        assert!(!forms[1].contains("scope="), "{forms:?}");
    }
    let known = Basis {
        names_no_scopes: true,
        ..granted()
    };
    let (answer, forms) = refresh_scoped(&known, (400, UNAUTHORIZED_SCOPES), GOOD).await;
    assert!(!answer.unwrap().had_without_scopes);
    assert_eq!(forms.len(), 1, "{forms:?}");
}

#[tokio::test]
async fn a_refusal_that_may_have_used_up_the_grant_or_is_not_of_scopes_is_the_last() {
    for (status, body) in [
        (400, r#"{"error":"invalid_grant"}"#),
        (400, r#"{"error":"invalid_client"}"#),
        (503, UNAUTHORIZED_SCOPES),
        (429, r#"{"error":"invalid_scope"}"#),
        (200, r#"{"error":"invalid_scope"}"#),
    ] {
        let (answer, forms) = refresh_scoped(&granted(), (status, body), GOOD).await;
        answer.unwrap_err();
        assert_eq!(forms.len(), 1, "{status} {body}");
    }
    // None were named: there is nothing to leave out.
    let (answer, forms) = refresh_scoped(&basis(), GOOD, (400, UNAUTHORIZED_SCOPES)).await;
    answer.unwrap_err();
    assert_eq!(forms.len(), 1, "{forms:?}");
}

#[tokio::test]
async fn of_two_refusals_the_one_that_blames_the_grant_counts_and_else_the_first() {
    const GONE: (u16, &str) = (400, r#"{"error":"invalid_grant","error_description":"gone"}"#);
    const SCOPE: (u16, &str) = (400, r#"{"error":"invalid_scope","error_description":"missing"}"#);
    for (scoped, unscoped, code, kind) in [
        ((400, UNAUTHORIZED_SCOPES), GONE, "invalid_grant", TokenErrorKind::Grant),
        (SCOPE, GONE, "invalid_grant", TokenErrorKind::Grant),
        (SCOPE, SCOPE, "invalid_scope", TokenErrorKind::App),
        (
            (400, UNAUTHORIZED_SCOPES),
            SCOPE,
            "invalid_grant",
            TokenErrorKind::Grant,
        ),
        (
            SCOPE,
            (503, ""),
            "http_503",
            TokenErrorKind::Temporary { retry_after: None },
        ),
    ] {
        let (answer, forms) = refresh_scoped(&granted(), scoped, unscoped).await;
        let error = answer.unwrap_err();
        assert_eq!((error.code.as_str(), error.kind), (code, kind), "{error}");
        assert_eq!(forms.len(), 2, "{forms:?}");
    }
    let (answer, _) = refresh_scoped(&granted(), (400, UNAUTHORIZED_SCOPES), GONE).await;
    let first = answer.unwrap_err();
    assert!(first.facts.is_about_scopes, "{first}");
}

#[tokio::test]
async fn an_error_knows_the_step_and_the_vendor_and_repeats_nothing_that_is_held() {
    let held = Basis {
        access_token: Some("old-access-token".into()),
        password: Some("hunter 2".into()),
        ..granted()
    };
    let body = r#"{"error":"invalid_grant","error_description":"not r1x, old-access-token, hunter+2, s3cr3t or app"}"#;
    let (answer, _) = refresh_scoped(&held, (400, body), GOOD).await;
    let error = answer.unwrap_err();
    assert_eq!(error.message, "not r1x, [REDACTED], [REDACTED], [REDACTED] or app");
    assert_eq!(error.facts.step, Some(Step::Refresh));
    let nowhere = provider(Url::parse("http://id.example.com/token").ok(), None);
    let error = refresh(&nowhere, TIMEOUT).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.facts.step),
        ("insecure_url", Some(Step::Refresh))
    );
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

/// What comes of revoking at an endpoint that answers so, and the form that it got.
async fn revoke_against(status: StatusCode, body: &'static str) -> (Result<Revocation, TokenError>, String) {
    let (seen, mut forms) = mpsc::unbounded_channel();
    let answer = async move |State(seen): State<mpsc::UnboundedSender<String>>, form: String| {
        seen.send(form).unwrap();
        (status, body)
    };
    let base = serve(Router::new().route("/revoke", post(answer)).with_state(seen)).await;
    let mut provider = provider(None, None);
    provider.oauth.as_mut().unwrap().revocation_url = base.join("revoke").ok();
    let done = client().revoke(&provider, &"r1".into(), TIMEOUT).await;
    (done, forms.recv().await.unwrap())
}

#[tokio::test]
async fn a_grant_is_given_back_where_the_provider_takes_it() {
    let (done, form) = revoke_against(StatusCode::OK, "").await;
    assert_eq!(done.unwrap(), Revocation::Done);
    assert_eq!(
        form,
        "token=r1&token_type_hint=refresh_token&client_id=app&client_secret=s3cr3t"
    );
    // Google's words for a grant that is gone already.
    let gone = r#"{"error":"invalid_token","error_description":"Token expired or revoked"}"#;
    let (done, _) = revoke_against(StatusCode::BAD_REQUEST, gone).await;
    assert_eq!(done.unwrap(), Revocation::Done);
    let passwords = provider("https://id.example.com/token".parse().ok(), None);
    let none = client().revoke(&passwords, &"r1".into(), TIMEOUT).await;
    assert_eq!(none.unwrap(), Revocation::NotOffered);
}

#[tokio::test]
async fn a_grant_that_may_still_be_good_is_not_said_to_be_gone() {
    let (done, _) = revoke_against(StatusCode::BAD_REQUEST, r#"{"error":"unsupported_token_type"}"#).await;
    assert_eq!(done.unwrap_err().kind, TokenErrorKind::App);
    let (done, _) = revoke_against(StatusCode::SERVICE_UNAVAILABLE, "").await;
    assert_eq!(done.unwrap_err().kind, TokenErrorKind::Temporary { retry_after: None });
}
