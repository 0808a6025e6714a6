//! Sends what [`super::request`] builds, and hands the answers to those who read them.
//!
//! An answer is read up to [`TOKEN_ANSWER_BYTES_MAX`]. Nothing is sent twice, but for a refresh whose scopes were refused: it is
//! asked once more without naming any. `code` and `device` are the two ways to a consent, `obtain`
//! the ways to an access token from then on, of which `external` leaves it to others.

mod code;
mod command;
mod device;
mod external;
mod obtain;
#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{Method, Request, header};
use url::Url;

pub use code::{CodeRequest, PendingCode};

use super::answer::{self, Asked, Response, TokenAnswer};
use super::assertion::{self, AssertionError};
use super::discovery::Metadata;
use super::request::{Caller, TokenRequest};
use super::text::clean;
use super::vendor::Vendor;
use super::{
    AnsweredBy, Basis, Obstacle, Revocation, Step, TokenError, TokenSource, discovery, is_loopback, is_url_allowed,
    request,
};
use crate::clock;
use crate::config::{ClientAuth, GrantType, OAuthApp, Provider};
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

/// One exchange with a provider: a few requests that share a time limit.
#[derive(Debug, Clone, Copy)]
struct Exchange<'a> {
    client: &'a OAuthClient,
    provider: &'a Provider,
    app: &'a OAuthApp,
    vendor: Vendor,
    step: Step,
    deadline: Deadline,
    /// Secrets of the account's that no request need hold, and no message repeats.
    held: [Option<&'a SecretString>; 3],
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

    /// Begins an exchange for `step`, which may take `timeout` in all.
    fn begin<'a>(&'a self, provider: &'a Provider, step: Step, timeout: Duration) -> Result<Exchange<'a>, TokenError> {
        let vendor = Vendor::of(provider);
        let Some(app) = &provider.oauth else {
            let error = TokenError::app("no_app", "the provider has no OAuth app configured");
            return Err(error.at(step, vendor));
        };
        Ok(Exchange {
            client: self,
            provider,
            app,
            vendor,
            step,
            deadline: Deadline::begin(timeout),
            held: [None; 3],
        })
    }

    fn issuers(&self) -> MutexGuard<'_, HashMap<Url, Discovered>> {
        // Nothing under this lock can leave the map half-changed.
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TokenSource for OAuthClient {
    async fn obtain(&self, provider: &Provider, basis: &Basis, timeout: Duration) -> Result<TokenAnswer, TokenError> {
        let exchange = self.begin(provider, step_of(provider), timeout)?;
        let held = [&basis.refresh_token, &basis.access_token, &basis.password].map(Option::as_ref);
        let obtained = Exchange { held, ..exchange }.obtain(basis).await;
        obtained.map_err(|error| exchange.place(error))
    }

    async fn revoke(
        &self,
        provider: &Provider,
        refresh_token: &SecretString,
        timeout: Duration,
    ) -> Result<Revocation, TokenError> {
        let exchange = self.begin(provider, Step::Revocation, timeout)?;
        let revoked = exchange.revoke(refresh_token).await;
        revoked.map_err(|error| exchange.place(error))
    }

    fn reload(&self) {
        self.http.reload();
        self.issuers().clear();
    }
}

/// What obtaining an access token of `provider`'s is.
fn step_of(provider: &Provider) -> Step {
    match provider.oauth.as_ref().map(|app| &app.grant) {
        None | Some(GrantType::Code | GrantType::Device) => Step::Refresh,
        Some(GrantType::ClientCredentials) => Step::ClientCredentials,
        Some(GrantType::ServiceAccount { .. }) => Step::ServiceAccount,
        Some(GrantType::Password) => Step::Password,
        Some(GrantType::External(_)) => Step::External,
    }
}

impl Exchange<'_> {
    /// An error with the place where it came about.
    fn place(&self, error: TokenError) -> TokenError {
        error.at(self.step, self.vendor)
    }

    /// What the provider's issuer tells of itself; `None` where the provider has no issuer.
    async fn metadata(&self) -> Result<Option<Arc<Metadata>>, TokenError> {
        let Some(issuer) = &self.app.issuer else {
            return Ok(None);
        };
        let known = self.client.issuers().get(issuer).cloned();
        if let Some(known) = known
            && clock::instant().duration_since(known.at) < DISCOVERY_LIFE
        {
            return Ok(Some(known.metadata));
        }
        let url = discovery::metadata_url(issuer);
        let request = Request::builder().method(Method::GET).uri(url.as_str());
        let request = request.header(header::ACCEPT, "application/json").body(Vec::new());
        let request = request.map_err(|error| TokenError::app("bad_app", error.to_string()))?;
        let reply = self.send(&url, request).await?;
        let metadata = Arc::new(discovery::read(issuer, self.app.allow_insecure, &reply.response())?);
        let discovered = Discovered {
            metadata: Arc::clone(&metadata),
            at: clock::instant(),
        };
        self.client.issuers().insert(issuer.clone(), discovered);
        Ok(Some(metadata))
    }

    /// Where the provider issues tokens.
    async fn token_url(&self) -> Result<Url, TokenError> {
        let url = self
            .endpoint(self.app.token_url.as_ref(), |metadata| Some(&metadata.token_endpoint))
            .await?;
        url.ok_or_else(|| TokenError::app("no_endpoint", "the provider has neither a token_url nor an issuer"))
    }

    /// An endpoint: as configured, else as the issuer tells; `None` where neither does.
    async fn endpoint(
        &self,
        configured: Option<&Url>,
        told: impl Fn(&Metadata) -> Option<&Url>,
    ) -> Result<Option<Url>, TokenError> {
        if let Some(url) = configured {
            return Ok(Some(url.clone()));
        }
        let metadata = self.metadata().await?;
        Ok(metadata.and_then(|metadata| told(&metadata).cloned()))
    }

    /// What proves that the app is the app, where it authenticates by assertions. For the token endpoint, whichever is asked:
    /// its URL names the authorization server (RFC 7523 §3, item 3; OpenID Connect Core §9).
    async fn proof(&self) -> Result<Option<SecretString>, TokenError> {
        let key = match (self.app.client_auth, &self.app.client_key) {
            (ClientAuth::PrivateKeyJwt, Some(key)) => key.clone(),
            _ => return Ok(None),
        };
        let audience = self.token_url().await?;
        let client_id = self.app.client_id.clone();
        let sign = move || assertion::of_client(&key, &client_id, audience.as_str(), clock::now());
        self.blocking(sign).await.map(Some)
    }

    /// The app as an endpoint gets to see it.
    fn caller<'c>(&'c self, proof: Option<&'c SecretString>) -> Caller<'c> {
        Caller {
            app: self.app,
            assertion: proof,
        }
    }

    /// Does what waits for files or takes long, where that holds nobody up.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AssertionError> + Send + 'static,
    ) -> Result<T, TokenError> {
        let limit = self.deadline.left();
        match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
            Ok(Ok(done)) => done.map_err(|error| TokenError::app("key_file", error.to_string())),
            Ok(Err(error)) => Err(TokenError::temporary("internal", error.to_string())),
            // A key on a file system that hangs.
            Err(_) => Err(TokenError::temporary("timeout", "the key's file was not read in time")),
        }
    }

    /// Sends a request and has `read` read the answer.
    async fn ask<T>(
        &self,
        url: &Url,
        request: Result<TokenRequest, String>,
        read: impl FnOnce(&Response<'_>, Asked<'_>) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let request = request.map_err(|message| TokenError::app("bad_app", message))?;
        let sent = request.secrets();
        let reply = self.send(url, request.http).await?;
        let held = self.held.into_iter().flatten().chain(self.app.client_secret.as_ref());
        let secrets = sent.iter().chain(held).map(ExposeSecret::expose_secret);
        let secrets: Vec<&str> = secrets.collect();
        let asked = Asked {
            step: self.step,
            vendor: self.vendor,
            secrets: &secrets,
        };
        read(&reply.response(), asked)
    }

    async fn send(&self, url: &Url, request: Request<Vec<u8>>) -> Result<Reply, TokenError> {
        self.require_allowed(url)?;
        let destination = Destination {
            ca_file: self.provider.ca_file.clone(),
            route: if is_loopback(url) {
                Route::Loopback
            } else {
                Route::System
            },
        };
        let http = &self.client.http;
        let sent = http.send(request, &destination, TOKEN_ANSWER_BYTES_MAX, self.deadline.left());
        sent.await.map_err(failed)
    }

    fn require_allowed(&self, url: &Url) -> Result<(), TokenError> {
        if is_url_allowed(url, self.app.allow_insecure) {
            return Ok(());
        }
        let message = "the provider's OAuth URLs must be https, or http on a loopback host";
        Err(TokenError::app("insecure_url", message))
    }

    /// Gives a refresh token back (RFC 7009).
    async fn revoke(&self, refresh_token: &SecretString) -> Result<Revocation, TokenError> {
        let configured = self.app.revocation_url.as_ref();
        let endpoint = self.endpoint(configured, |metadata| metadata.revocation_endpoint.as_ref());
        let Some(url) = endpoint.await? else {
            return Ok(Revocation::NotOffered);
        };
        let proof = self.proof().await?;
        let request = request::revocation(self.caller(proof.as_ref()), &url, refresh_token);
        let read = |response: &Response<'_>, asked: Asked<'_>| answer::read_done(response, clock::now(), asked);
        match self.ask(&url, request, read).await {
            // §2.2: a token that is not valid is no error, since it is as revoked as it can be; Google says so nevertheless.
            Err(error) if error.code == "invalid_token" => Ok(Revocation::Done),
            done => done.map(|()| Revocation::Done),
        }
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
    let (code, answered_by) = match &error {
        HttpError::TimedOut(_) => ("timeout", AnsweredBy::Nobody),
        HttpError::Connect(_) => ("connect", AnsweredBy::Nobody),
        HttpError::ProxyLogin(_) => ("connect", AnsweredBy::Obstacle(Obstacle::Login)),
        HttpError::ProxyRefused(_) => ("connect", AnsweredBy::Obstacle(Obstacle::Proxy)),
        HttpError::Broken(_) => ("network", AnsweredBy::Nobody),
        HttpError::Trust(_) => ("trust", AnsweredBy::Nobody),
        HttpError::Internal(_) => ("internal", AnsweredBy::Nobody),
    };
    let mut failed = TokenError::temporary(code, clean(&format!("the token endpoint: {error}"), &[]));
    failed.facts.answered_by = answered_by;
    failed
}

/// How long an issuer's metadata is believed. Endpoints move rarely, and a reload asks anew.
const DISCOVERY_LIFE: Duration = Duration::from_secs(3600);
