//! The OAuth2 provider of the testbed (`tests/testbed/node/provider.mjs`) and the orders it takes.

use std::collections::BTreeMap;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::process::Process;
pub use super::provider_options::{AppAuth, ClientAuth, ProviderOptions, Rotation, ServiceAccount};
use super::{ports, project_file, require_installed};

/// A running provider; it ends when dropped.
pub struct Provider {
    endpoints: Endpoints,
    client_auth: ClientAuth,
    http: reqwest::Client,
    process: Process,
}

impl Provider {
    /// Starts a provider and waits until it answers.
    pub async fn start(options: ProviderOptions) -> Provider {
        require_installed(&project_file("tests/testbed/node/node_modules/.installed-from"));
        // An error means that another test of this process has installed it: the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client_auth = options.client_auth;
        let options = options.order(ports::free_port());
        let process = Process::spawn(
            "provider",
            Command::new(project_file("tests/testbed/node/node"))
                .arg(project_file("tests/testbed/node/provider.mjs"))
                .arg(options.to_string()),
        );
        let line = process.stdout_line(|line| line.starts_with('{')).await;
        Provider {
            client_auth,
            endpoints: serde_json::from_str(&line).expect("the provider names its endpoints"),
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("an HTTP client can be made"),
            process,
        }
    }

    /// Where it listens, and the client that the proxy is registered as.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// A new grant of `user`, as consent in a browser would give it, with a good access token.
    pub async fn mint(&self, user: &str) -> Grant {
        self.order("mint", json!({ "user": user })).await
    }

    /// A new grant whose access token has this many seconds to live; below zero, it has expired.
    pub async fn mint_with_life(&self, user: &str, access_token_seconds: i64) -> Grant {
        let order = json!({ "user": user, "access_token_seconds": access_token_seconds });
        self.order("mint", order).await
    }

    /// Changes how refresh tokens are rotated from here on.
    pub async fn rotate(&self, rotation: Rotation) {
        self.order::<Value>("options", json!({ "rotation": rotation })).await;
    }

    /// Changes how long the access tokens issued from here on live.
    pub async fn access_tokens_live(&self, seconds: u32) {
        self.order::<Value>("options", json!({ "access_token_seconds": seconds }))
            .await;
    }

    /// Switches a fault on for all token requests until [`Provider::clear_faults`].
    pub async fn fault(&self, fault: Fault) {
        self.order::<Value>("fault", json!(fault)).await;
    }

    /// Switches a fault on for the next `count` token requests.
    pub async fn fault_next(&self, count: u32, fault: Fault) {
        let mut order = json!(fault);
        order["count"] = json!(count);
        self.order::<Value>("fault", order).await;
    }

    /// Switches a fault on for the token requests of one user until [`Provider::clear_faults_of`].
    pub async fn fault_of(&self, user: &str, fault: Fault) {
        let mut order = json!(fault);
        order["user"] = json!(user);
        self.order::<Value>("fault", order).await;
    }

    /// Switches a user's own faults off; requests that they left hanging are cut.
    pub async fn clear_faults_of(&self, user: &str) {
        self.order::<Value>("clear-faults", json!({ "user": user })).await;
    }

    /// Switches all faults off; requests that were left hanging are cut.
    pub async fn clear_faults(&self) {
        self.order::<Value>("clear-faults", json!({})).await;
    }

    /// Revokes one access token. True if it was there.
    pub async fn revoke_access_token(&self, access_token: &str) -> bool {
        let order = json!({ "access_token": access_token });
        self.order::<Revoked>("revoke-access-token", order).await.revoked > 0
    }

    /// Revokes all access tokens of a user, whose refresh tokens stay good. Says how many.
    pub async fn revoke_access_tokens(&self, user: &str) -> u32 {
        self.order::<Revoked>("revoke-access-tokens", json!({ "user": user }))
            .await
            .revoked
    }

    /// Revokes everything that a user granted. Says how many grants and tokens that was.
    pub async fn revoke_grants(&self, user: &str) -> u32 {
        self.order::<Revoked>("revoke-grants", json!({ "user": user }))
            .await
            .revoked
    }

    /// What token requests have come in for a user; requests with a refresh token that the provider
    /// does not know belong to no user.
    pub async fn counters(&self, user: &str) -> Counters {
        self.order("counters", json!({ "user": user })).await
    }

    /// What token requests have come in at all.
    pub async fn counters_of_all(&self) -> Counters {
        self.order("counters", json!({})).await
    }

    /// Every token request so far, oldest first, secrets included.
    pub async fn requests(&self) -> Vec<Request> {
        self.order("log", json!({})).await
    }

    /// Every authorization request so far, which a browser brought, oldest first.
    pub async fn authorization_requests(&self) -> Vec<Request> {
        self.order("visits", json!({ "path": "/auth" })).await
    }

    /// Every request for a device code so far, oldest first.
    pub async fn device_requests(&self) -> Vec<Request> {
        self.order("visits", json!({ "path": "/device/auth" })).await
    }

    /// Every token that was given back so far, oldest first.
    pub async fn revocations(&self) -> Vec<Request> {
        self.order("visits", json!({ "path": "/token/revocation" })).await
    }

    /// Registers where the proxy's client may have users sent back to, beside paths of its on loopback.
    pub async fn redirect_to(&self, uris: &[&str]) {
        self.order::<Value>("options", json!({ "redirect_uris": uris })).await;
    }

    /// Changes how long the device codes issued from here on are good.
    pub async fn device_codes_live(&self, seconds: u32) {
        self.order::<Value>("options", json!({ "device_code_seconds": seconds }))
            .await;
    }

    /// Refuses connections to the issuer until [`Provider::restart`]; those open are cut.
    /// Introspection, and so Dovecot, goes on working.
    pub async fn stop(&self) {
        self.order::<Value>("stop", json!({})).await;
    }

    /// Listens again, on the same port and with everything remembered.
    pub async fn restart(&self) {
        self.order::<Value>("start", json!({})).await;
    }

    /// Refreshes as the proxy would, for tests of the bed itself.
    ///
    /// # Errors
    ///
    /// When no whole HTTP answer arrives.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Answer, reqwest::Error> {
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        self.post_as_proxy(&self.endpoints.token_url, &form).await
    }

    /// Posts a form as the proxy's client, which shows who it is in the way that it is registered for.
    ///
    /// # Errors
    ///
    /// When no whole HTTP answer arrives.
    pub async fn post_as_proxy(&self, url: &str, form: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
        let Endpoints {
            client_id,
            client_secret,
            ..
        } = &self.endpoints;
        let mut form = form.to_vec();
        let mut request = self.http.post(url);
        match self.client_auth {
            ClientAuth::Basic => request = request.basic_auth(client_id, Some(client_secret)),
            ClientAuth::Post => form.extend([("client_id", client_id.as_str()), ("client_secret", client_secret)]),
            ClientAuth::None => form.push(("client_id", client_id)),
        }
        answer_to(request, &form).await
    }

    /// Posts a form as it is.
    ///
    /// # Errors
    ///
    /// When no whole HTTP answer arrives.
    pub async fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
        answer_to(self.http.post(url), form).await
    }

    async fn order<T: DeserializeOwned>(&self, order: &str, body: Value) -> T {
        let url = format!("{}/{order}", self.endpoints.control_url);
        let answer = match self.http.post(url).json(&body).send().await {
            Ok(answer) => answer,
            Err(error) => panic!("provider: {order}: {error}\n{}", self.process.log_tail()),
        };
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert!(
            status.is_success(),
            "provider: {order}: {status} {text}\n{}",
            self.process.log_tail()
        );
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{order}: {error}: {text}"))
    }
}

/// What the provider says when it is ready.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoints {
    /// The issuer, which serves OpenID discovery.
    pub issuer: String,
    /// Where a browser asks for consent.
    pub authorize_url: String,
    /// The token endpoint, which the faults apply to.
    pub token_url: String,
    /// Where a device asks for a code.
    pub device_url: String,
    /// Where tokens are given back.
    pub revocation_url: String,
    /// Where Dovecot checks access tokens.
    pub introspection_url: String,
    /// Where orders are taken.
    control_url: String,
    /// The client that grants are made for.
    pub client_id: String,
    /// Its secret, which [`ClientAuth::None`] does without.
    pub client_secret: String,
    /// The client that acts for itself; its secret, if it has one, is the same.
    pub app_client_id: String,
}

/// A user's consent.
#[derive(Clone, Debug, Deserialize)]
pub struct Grant {
    /// Good for refreshes until it is rotated.
    pub refresh_token: String,
    /// What the upstream accepts, unless it was minted expired.
    pub access_token: String,
    /// Its life from now, below zero if it has expired.
    pub expires_in: i64,
}

/// What goes wrong at the token endpoint.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// 400 `invalid_grant`.
    InvalidGrant,
    /// 400 `temporarily_unavailable`.
    TemporarilyUnavailable,
    /// 401 `invalid_client`.
    InvalidClient,
    /// 400 `slow_down`; of a device code it is meant, too: polled as fast as before it is refused again.
    SlowDown,
    /// 429 with `Retry-After`, in seconds.
    TooManyRequests {
        /// The header's value.
        retry_after: u32,
    },
    /// 500 with a JSON error.
    ServerError,
    /// 200 with an HTML page.
    #[serde(rename = "html_200")]
    Html200,
    /// 502 with an HTML page.
    #[serde(rename = "html_502")]
    Html502,
    /// 200 with a JSON error.
    #[serde(rename = "error_in_200")]
    ErrorIn200 {
        /// The error code.
        error: String,
    },
    /// 200 with a good answer of more than 64 KiB.
    HugeBody,
    /// 302 to some other place.
    Redirect {
        /// Where to.
        location: String,
    },
    /// Any JSON answer.
    Custom {
        /// The HTTP status.
        status: u16,
        /// The JSON body.
        body: Value,
    },
    /// No answer, and the connection stays open.
    Hang,
    /// No answer, and the connection is closed.
    Drop,
    /// Carried out, and answered late.
    Slow {
        /// How late.
        milliseconds: u32,
    },
    /// Carried out and rotated, but the answer never arrives: the connection is closed.
    Lost,
    /// Carried out; `expires_in` is a string.
    ExpiresInString,
    /// Carried out; the answer has no `expires_in`.
    ExpiresInAbsent,
    /// Carried out; the answer has no `refresh_token`.
    RefreshTokenAbsent,
}

/// Counts of token requests.
#[derive(Debug, Deserialize)]
pub struct Counters {
    /// All of them, refused ones too.
    pub requests: u32,
    /// The same by `grant_type`.
    pub by_grant_type: BTreeMap<String, u32>,
    /// Refreshes that were carried out.
    pub refreshes: u32,
    /// Requests that have come in and were not answered yet.
    pub in_flight: u32,
    /// The most there ever were at once.
    pub in_flight_max: u32,
}

/// One request, as it came in.
#[derive(Debug, Deserialize)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// `authorization`, `content-type`, `accept` and `user-agent`, where given.
    pub headers: BTreeMap<String, String>,
    /// The parameters of query and form.
    pub params: BTreeMap<String, String>,
    /// At the token endpoint: whose refresh token, code or password it was.
    pub user: Option<String>,
    /// The fault that it met.
    pub fault: Option<String>,
    /// The status of the answer; none while there is none, or when it was cut off.
    pub status: Option<u16>,
    /// Whether the provider did what was asked: at the token endpoint, whether it issued a token.
    pub carried_out: bool,
}

async fn answer_to(request: reqwest::RequestBuilder, form: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let request = request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.finish());
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = answer.text().await?;
    Ok(Answer {
        status,
        retry_after,
        body,
    })
}

/// An answer of the provider.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The `Retry-After` header, in seconds.
    pub retry_after: Option<u32>,
    /// The body, as it is.
    pub body: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A string member of the body; empty if there is none.
    pub fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_default().to_owned()
    }
}

#[derive(Deserialize)]
struct Revoked {
    revoked: u32,
}
