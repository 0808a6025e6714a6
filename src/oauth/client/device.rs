//! The device flow (RFC 8628): a code that the owner types on another device, and polling until that is done.

use std::time::Duration;

use super::{Exchange, OAuthClient};
use crate::clock;
use crate::config::Provider;
use crate::oauth::answer::{self, Asked, Response};
use crate::oauth::device::{self, DeviceCode, DevicePoll};
use crate::oauth::identity::Expected;
use crate::oauth::request;
use crate::oauth::{Step, TokenError};

impl OAuthClient {
    /// Asks `provider` for a device code. `timeout` bounds the whole exchange.
    ///
    /// # Errors
    /// [`TokenError`]; `no_endpoint` where the provider offers no device codes.
    pub async fn begin_device(&self, provider: &Provider, timeout: Duration) -> Result<DeviceCode, TokenError> {
        let exchange = self.begin(provider, Step::DeviceCode, timeout)?;
        let begun = exchange.begin_device().await;
        begun.map_err(|error| exchange.place(error))
    }

    /// Asks whether the owner has decided. `timeout` bounds the whole exchange.
    ///
    /// Dropping the future may lose the grant, which is given once; so callers run it to its end.
    ///
    /// # Errors
    /// [`TokenError`], where asking again would bring nothing: `access_denied` and `expired_token` are the owner's doing.
    pub async fn poll_device(
        &self,
        provider: &Provider,
        code: &DeviceCode,
        timeout: Duration,
    ) -> Result<DevicePoll, TokenError> {
        let exchange = self.begin(provider, Step::DevicePoll, timeout)?;
        let polled = exchange.poll_device(code).await;
        polled.map_err(|error| exchange.place(error))
    }
}

impl Exchange<'_> {
    async fn begin_device(&self) -> Result<DeviceCode, TokenError> {
        let app = self.app;
        let told = self.endpoint(app.device_url.as_ref(), |metadata| {
            metadata.device_authorization_endpoint.as_ref()
        });
        let Some(url) = told.await? else {
            let message = "the provider offers no device codes for mail; authorize in a browser, or give device_url";
            return Err(TokenError::app("no_endpoint", message));
        };
        let proof = self.proof().await?;
        let request = request::device_code(self.caller(proof.as_ref()), &url);
        let read = |response: &Response<'_>, asked: Asked<'_>| device::read(response, clock::now(), asked, &app.scopes);
        self.ask(&url, request, read).await
    }

    async fn poll_device(&self, code: &DeviceCode) -> Result<DevicePoll, TokenError> {
        let url = self.token_url().await?;
        let proof = self.proof().await?;
        let request = request::device_poll(self.caller(proof.as_ref()), &url, &code.device_code);
        // The owner is told by the same id_token as after a code; what the issuer is called only discovery would tell.
        let expected = Expected {
            issuer: None,
            client_id: &self.app.client_id,
            nonce: None,
        };
        let read = |response: &Response<'_>, asked: Asked<'_>| {
            answer::read_consented(response, clock::now(), asked, &expected)
        };
        device::poll(self.ask(&url, request, read).await)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::{get, post};

    use super::*;
    use crate::config::{OAuthApp, test_support};
    use crate::oauth::TokenErrorKind;
    use crate::oauth::client::test_support::{TIMEOUT, client, serve};

    /// The answers that are still to be given, and the forms that came.
    #[derive(Clone)]
    struct Script {
        answers: Arc<Mutex<Vec<(StatusCode, &'static str)>>>,
        forms: Arc<Mutex<Vec<String>>>,
    }

    async fn serve_script(answers: &[(StatusCode, &'static str)]) -> (Provider, Script) {
        let metadata = async |headers: HeaderMap| {
            let base = format!("http://{}", headers["host"].to_str().unwrap());
            format!(
                r#"{{"issuer":"{base}","token_endpoint":"{base}/token","device_authorization_endpoint":"{base}/device"}}"#
            )
        };
        let answer = async |State(script): State<Script>, form: String| {
            script.forms.lock().unwrap().push(form);
            script.answers.lock().unwrap().remove(0)
        };
        let script = Script {
            answers: Arc::new(Mutex::new(answers.to_vec())),
            forms: Arc::default(),
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/device", post(answer))
            .route("/token", post(answer))
            .with_state(script.clone());
        let app = OAuthApp {
            issuer: Some(serve(router).await),
            scopes: vec!["mail".to_owned(), "offline_access".to_owned()],
            identity_scopes: vec!["openid".to_owned()],
            ..test_support::app()
        };
        (test_support::provider("example", Some(app)), script)
    }

    const CODE: &str =
        r#"{"device_code":"d1","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device"}"#;

    #[tokio::test]
    async fn a_device_is_polled_for_until_its_owner_has_decided() {
        let (provider, script) = serve_script(&[
            (StatusCode::OK, CODE),
            (StatusCode::BAD_REQUEST, r#"{"error":"authorization_pending"}"#),
            (StatusCode::BAD_REQUEST, r#"{"error":"slow_down"}"#),
            (StatusCode::BAD_GATEWAY, "<html>"),
            (StatusCode::OK, r#"{"access_token":"a1","refresh_token":"r1"}"#),
        ])
        .await;
        let client = client();
        let code = client.begin_device(&provider, TIMEOUT).await.unwrap();
        assert_eq!(code.scopes, ["mail", "offline_access"]);
        let poll = async || client.poll_device(&provider, &code, TIMEOUT).await.unwrap();
        assert!(matches!(poll().await, DevicePoll::Pending));
        assert!(matches!(poll().await, DevicePoll::SlowDown));
        assert!(matches!(poll().await, DevicePoll::SlowDown));
        assert!(matches!(poll().await, DevicePoll::Granted(_)));
        let forms = script.forms.lock().unwrap();
        assert_eq!(forms[0], "scope=mail+offline_access+openid&client_id=app");
        let polled = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&device_code=d1&client_id=app";
        assert!(forms[1..].iter().all(|form| form == polled), "{forms:?}");
    }

    #[tokio::test]
    async fn denial_and_expiry_end_it() {
        for (body, code) in [
            (r#"{"error":"access_denied"}"#, "access_denied"),
            (r#"{"error":"expired_token"}"#, "expired_token"),
            (r#"{"error":"code_expired"}"#, "expired_token"),
            (r#"{"error":"bad_verification_code"}"#, "bad_verification_code"),
        ] {
            let (provider, _) = serve_script(&[(StatusCode::OK, CODE), (StatusCode::BAD_REQUEST, body)]).await;
            let client = client();
            let begun = client.begin_device(&provider, TIMEOUT).await.unwrap();
            let error = client.poll_device(&provider, &begun, TIMEOUT).await.unwrap_err();
            assert_eq!((error.kind, error.code.as_str()), (TokenErrorKind::Grant, code));
        }
    }

    #[tokio::test]
    async fn silence_asks_to_be_polled_less_often() {
        let base = serve(Router::new().route("/token", post(std::future::pending::<()>))).await;
        let app = OAuthApp {
            token_url: base.join("token").ok(),
            ..test_support::app()
        };
        let provider = test_support::provider("example", Some(app));
        let code = DeviceCode {
            device_code: "d1".into(),
            user_code: "A".to_owned(),
            verification_uri: "https://example.com".to_owned(),
            verification_uri_complete: None,
            expires_in: TIMEOUT,
            interval: TIMEOUT,
            scopes: Vec::new(),
        };
        let polled = client().poll_device(&provider, &code, Duration::from_millis(50)).await;
        assert!(matches!(polled, Ok(DevicePoll::SlowDown)));
    }

    #[tokio::test]
    async fn a_provider_without_device_codes_says_what_else_there_is() {
        let app = OAuthApp {
            token_url: "https://id.example.com/token".parse().ok(),
            ..test_support::app()
        };
        let provider = test_support::provider("example", Some(app));
        let error = client().begin_device(&provider, TIMEOUT).await.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (TokenErrorKind::App, "no_endpoint"));
    }
}
