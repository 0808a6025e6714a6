//! Builds the requests to a provider's endpoints, without sending them.
//!
//! The `oauth2` crate knows the forms (RFC 6749 §2.3.1, §4, §6; RFC 7636; RFC 8628 §3.1); it is handed an HTTP client that
//! gives the finished request back instead of sending it, so that the crate's own reading of answers, which refuses what real
//! providers send, is never reached, and so that a request can be tested as text. A few forms are filled in here: the crate
//! would poll for a device code in a loop of its own, revokes at https only, and knows no assertion as a grant.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, header};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, DeviceAuthorizationUrl, ErrorResponse,
    HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError,
    ResourceOwnerPassword, ResourceOwnerUsername, Scope, StandardDeviceAuthorizationResponse, SyncHttpClient, TokenUrl,
};
use url::Url;
use url::form_urlencoded::{self, byte_serialize};

use super::redirect::RedirectUri;
use crate::config::{ClientAuth, OAuthApp};
use crate::secret::{ExposeSecret, SecretString};

/// A finished request to an endpoint. Debug output shows none of its content, which is secrets throughout.
pub struct TokenRequest {
    /// The request, body and all.
    pub http: HttpRequest,
}

impl TokenRequest {
    /// Every value in it that is not for everybody's eyes, so that an answer which repeats one can be hidden.
    pub(super) fn secrets(&self) -> Vec<SecretString> {
        let form = form_urlencoded::parse(self.http.body());
        let sent = form.filter(|(name, _)| !PUBLIC_PARAMETERS.contains(&name.as_ref()));
        let header = self.http.headers().get(header::AUTHORIZATION);
        let credentials = header.and_then(|value| value.to_str().ok()?.split_once(' '));
        sent.map(|(_, value)| SecretString::from(value.into_owned()))
            .chain(credentials.map(|(_, credentials)| credentials.to_owned().into()))
            .collect()
    }
}

/// The app as an endpoint gets to see it.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The app.
    pub app: &'a OAuthApp,
    /// What proves that it is the app, where it authenticates by assertions (RFC 7523 §2.2).
    pub assertion: Option<&'a SecretString>,
}

/// An authorization request (RFC 6749 §4.1.1), and what its answer is checked with.
#[derive(Debug, Clone)]
pub struct Authorization {
    /// Where the owner's browser goes.
    pub url: Url,
    /// What the answer must repeat: 256 bits.
    pub state: SecretString,
    /// What the code can be exchanged with (RFC 7636 §4.1): 256 bits.
    pub verifier: SecretString,
    /// What the id_token must repeat (OpenID Connect Core §3.1.2.1), where one is asked for.
    pub nonce: Option<SecretString>,
}

/// The request that asks an owner for consent.
pub fn authorization(
    app: &OAuthApp,
    authorize_url: &Url,
    redirect_uri: &RedirectUri,
    login_hint: Option<&str>,
) -> Authorization {
    let client = BasicClient::new(ClientId::new(app.client_id.clone()))
        .set_auth_uri(AuthUrl::from_url(authorize_url.clone()))
        .set_redirect_uri(redirect(redirect_uri));
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let scopes = consent_scopes(app);
    let nonce = scopes.contains(&OPENID).then(random);
    let mut request = client
        .authorize_url(|| CsrfToken::new_random_len(RANDOM_BYTES))
        .add_scopes(scopes.iter().map(|scope| Scope::new((*scope).to_owned())))
        .set_pkce_challenge(challenge);
    for (name, value) in &app.authorize_parameters {
        request = request.add_extra_param(*name, *value);
    }
    // OpenID Connect Core §11: without it, a refresh token need not be given, and providers hold to that whether or not openid is
    // asked for. Who knows no prompt ignores it (RFC 6749 §3.1). Google and Microsoft, whose presets tell what
    // they want, have their own ways.
    let is_generic = app.authorize_parameters.is_empty() && app.identity_scopes.is_empty();
    if is_generic && scopes.contains(&"offline_access") {
        request = request.add_extra_param("prompt", "consent");
    }
    if let Some(nonce) = &nonce {
        request = request.add_extra_param("nonce", nonce.expose_secret().to_owned());
    }
    if let Some(login_hint) = login_hint {
        request = request.add_extra_param("login_hint", login_hint.to_owned());
    }
    let (url, state) = request.url();
    Authorization {
        url,
        state: state.into_secret().into(),
        verifier: verifier.into_secret().into(),
        nonce,
    }
}

/// A redirect as providers are told of it: word for word.
fn redirect(uri: &RedirectUri) -> RedirectUrl {
    let text = RedirectUrl::new(uri.as_str().to_owned());
    text.unwrap_or_else(|_| RedirectUrl::from_url(uri.url().clone()))
}

/// The request that exchanges a code (RFC 6749 §4.1.3, RFC 7636 §4.5).
///
/// # Errors
/// A message, if the app's values cannot be put into a request; so with the others.
pub fn code_exchange(
    caller: Caller<'_>,
    token_url: &Url,
    code: &SecretString,
    verifier: &SecretString,
    redirect_uri: &RedirectUri,
) -> Result<TokenRequest, String> {
    let client = caller.client().set_token_uri(TokenUrl::from_url(token_url.clone()));
    let mut request = client
        .exchange_code(AuthorizationCode::new(code.expose_secret().to_owned()))
        .set_pkce_verifier(PkceCodeVerifier::new(verifier.expose_secret().to_owned()))
        .set_redirect_uri(Cow::Owned(redirect(redirect_uri)));
    for (name, value) in caller.proof() {
        request = request.add_extra_param(name, value);
    }
    handed_back(request.request(&HandBack))
}

/// The request that refreshes a grant (RFC 6749 §6) for `scopes`; none of them stands for the grant's own.
///
/// # Errors
/// As [`code_exchange`].
pub fn refresh(
    caller: Caller<'_>,
    token_url: &Url,
    refresh_token: &SecretString,
    scopes: &[&str],
) -> Result<TokenRequest, String> {
    let client = caller.client().set_token_uri(TokenUrl::from_url(token_url.clone()));
    let token = RefreshToken::new(refresh_token.expose_secret().to_owned());
    let mut request = client
        .exchange_refresh_token(&token)
        .add_scopes(scopes.iter().map(|scope| Scope::new((*scope).to_owned())));
    for (name, value) in caller.proof() {
        request = request.add_extra_param(name, value);
    }
    handed_back(request.request(&HandBack))
}

/// The request for a device code (RFC 8628 §3.1).
///
/// # Errors
/// As [`code_exchange`].
pub fn device_code(caller: Caller<'_>, device_url: &Url) -> Result<TokenRequest, String> {
    let client = caller
        .client()
        .set_device_authorization_url(DeviceAuthorizationUrl::from_url(device_url.clone()));
    let scopes = consent_scopes(caller.app);
    let mut request = client
        .exchange_device_code()
        .add_scopes(scopes.iter().map(|scope| Scope::new((*scope).to_owned())));
    for (name, value) in caller.proof() {
        request = request.add_extra_param(name, value);
    }
    handed_back::<StandardDeviceAuthorizationResponse, _>(request.request(&HandBack))
}

/// The request that asks whether the owner has typed the code (RFC 8628 §3.4).
///
/// # Errors
/// As [`code_exchange`].
pub fn device_poll(caller: Caller<'_>, token_url: &Url, device_code: &SecretString) -> Result<TokenRequest, String> {
    let grant_type = "urn:ietf:params:oauth:grant-type:device_code";
    let parameters = [("grant_type", grant_type), ("device_code", device_code.expose_secret())];
    form(Some(caller), token_url, &parameters)
}

/// The request by which the app asks for itself (RFC 6749 §4.4.2).
///
/// # Errors
/// As [`code_exchange`].
pub fn client_credentials(caller: Caller<'_>, token_url: &Url) -> Result<TokenRequest, String> {
    let client = caller.client().set_token_uri(TokenUrl::from_url(token_url.clone()));
    let scopes = caller.app.scopes.iter().cloned().map(Scope::new);
    let mut request = client.exchange_client_credentials().add_scopes(scopes);
    for (name, value) in caller.proof() {
        request = request.add_extra_param(name, value);
    }
    handed_back(request.request(&HandBack))
}

/// The request that hands over the owner's own name and password (RFC 6749 §4.3.2).
///
/// # Errors
/// As [`code_exchange`].
pub fn password(
    caller: Caller<'_>,
    token_url: &Url,
    user: &str,
    password: &SecretString,
) -> Result<TokenRequest, String> {
    let client = caller.client().set_token_uri(TokenUrl::from_url(token_url.clone()));
    let user = ResourceOwnerUsername::new(user.to_owned());
    let password = ResourceOwnerPassword::new(password.expose_secret().to_owned());
    let mut request = client
        .exchange_password(&user, &password)
        .add_scopes(caller.app.scopes.iter().cloned().map(Scope::new));
    for (name, value) in caller.proof() {
        request = request.add_extra_param(name, value);
    }
    handed_back(request.request(&HandBack))
}

/// The request that presents a service account's assertion (RFC 7523 §2.1), which tells scopes and subject itself. Whoever
/// presents it need not be known: `caller` is `None` where there is no client id (§3.1).
///
/// # Errors
/// As [`code_exchange`].
pub fn service_account(
    caller: Option<Caller<'_>>,
    token_url: &Url,
    assertion: &SecretString,
) -> Result<TokenRequest, String> {
    let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer";
    let parameters = [("grant_type", grant_type), ("assertion", assertion.expose_secret())];
    form(caller, token_url, &parameters)
}

/// The request that gives a refresh token back (RFC 7009 §2.1).
///
/// # Errors
/// As [`code_exchange`].
pub fn revocation(caller: Caller<'_>, url: &Url, refresh_token: &SecretString) -> Result<TokenRequest, String> {
    let token = refresh_token.expose_secret();
    form(
        Some(caller),
        url,
        &[("token", token), ("token_type_hint", "refresh_token")],
    )
}

impl<'a> Caller<'a> {
    /// The `oauth2` crate's idea of the app.
    fn client(self) -> BasicClient {
        let client =
            BasicClient::new(ClientId::new(self.app.client_id.clone())).set_auth_type(match self.app.client_auth {
                ClientAuth::Basic => AuthType::BasicAuth,
                ClientAuth::Post | ClientAuth::None | ClientAuth::PrivateKeyJwt => AuthType::RequestBody,
            });
        match self.secret() {
            Some(secret) => client.set_client_secret(ClientSecret::new(secret.to_owned())),
            None => client,
        }
    }

    /// The app's secret, where it is to be sent.
    fn secret(self) -> Option<&'a str> {
        match self.app.client_auth {
            ClientAuth::Post | ClientAuth::Basic => self.app.client_secret.as_ref().map(ExposeSecret::expose_secret),
            // A public client must not send a secret even if one is configured: Microsoft refuses it (AADSTS700025).
            ClientAuth::None | ClientAuth::PrivateKeyJwt => None,
        }
    }

    /// The assertion's parameters (RFC 7523 §2.2).
    fn proof(self) -> impl Iterator<Item = (&'static str, String)> {
        let assertion = self.assertion.map(|assertion| assertion.expose_secret().to_owned());
        assertion.into_iter().flat_map(|assertion| {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
            [("client_assertion_type", kind), ("client_assertion", assertion)]
        })
    }
}

/// The scopes that an owner is asked for, each once.
fn consent_scopes(app: &OAuthApp) -> Vec<&str> {
    let mut scopes: Vec<&str> = Vec::new();
    for scope in app.scopes.iter().chain(&app.identity_scopes) {
        if !scopes.contains(&scope.as_str()) {
            scopes.push(scope);
        }
    }
    scopes
}

/// A form for an endpoint, authenticated as `caller` (RFC 6749 §2.3.1), or not at all.
fn form(caller: Option<Caller<'_>>, url: &Url, parameters: &[(&str, &str)]) -> Result<TokenRequest, String> {
    let mut body = form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(parameters);
    let mut request = Request::builder().method(Method::POST).uri(url.as_str());
    request = request
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    if let Some(caller) = caller {
        let (id, secret) = (&caller.app.client_id, caller.secret());
        match (caller.app.client_auth, secret) {
            (ClientAuth::Basic, Some(secret)) => {
                let part = |part: &str| byte_serialize(part.as_bytes()).collect::<String>();
                let credentials = STANDARD.encode(format!("{}:{}", part(id), part(secret)));
                request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
            }
            (_, secret) => {
                body.append_pair("client_id", id);
                body.extend_pairs(secret.map(|secret| ("client_secret", secret)));
            }
        }
        body.extend_pairs(caller.proof());
    }
    match request.body(body.finish().into_bytes()) {
        Ok(http) => Ok(TokenRequest { http }),
        Err(_) => Err(INVALID.to_owned()),
    }
}

fn handed_back<T, E>(outcome: Result<T, RequestTokenError<TokenRequest, E>>) -> Result<TokenRequest, String>
where
    E: ErrorResponse + 'static,
{
    match outcome {
        Err(RequestTokenError::Request(request)) => Ok(request),
        Err(_) | Ok(_) => Err(INVALID.to_owned()),
    }
}

/// A value that nobody can guess.
pub(super) fn random() -> SecretString {
    CsrfToken::new_random_len(RANDOM_BYTES).into_secret().into()
}

/// Bytes of what nobody may guess: as many as SHA-256 keeps of a verifier (RFC 7636 §7.1).
const RANDOM_BYTES: u32 = 32;

/// Parameters whose values tell what is wrong where an answer repeats them.
const PUBLIC_PARAMETERS: [&str; 8] = [
    "grant_type",
    "client_id",
    "scope",
    "redirect_uri",
    "username",
    "client_assertion_type",
    "token_type_hint",
    "resource",
];

/// The scope that makes a request one of OpenID Connect.
const OPENID: &str = "openid";

const INVALID: &str = "the app's settings do not make a valid request";

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRequest([REDACTED])")
    }
}

impl fmt::Display for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request, not sent")
    }
}

impl std::error::Error for TokenRequest {}

/// The HTTP client that sends nothing: its "error" is the request.
struct HandBack;

impl SyncHttpClient for HandBack {
    type Error = TokenRequest;

    fn call(&self, request: HttpRequest) -> Result<HttpResponse, TokenRequest> {
        Err(TokenRequest { http: request })
    }
}

#[cfg(test)]
mod tests;
