//! Reads the answer of a token endpoint: status, headers and body in, [`TokenAnswer`] or [`TokenError`] out.
//!
//! Real answers stray from RFC 6749 §5: `expires_in` is a string or missing, errors come with status 200, a gateway puts an
//! HTML page in between. What cannot be understood is temporary trouble, because it says nothing about the grant. Nothing
//! of an answer reaches a log but what [`TokenError::message`] holds: cleaned, bounded, and without anything that is or
//! looks like a secret.

use std::time::Duration;

use serde_json::{Map, Value};

use super::classify::{self, Trouble};
use super::error::{TokenError, TokenErrorKind};
use super::identity::{self, Expected, Identity};
use super::text::clean;
use crate::clock::Timestamp;
use crate::limits::{
    CONSENTED_SCOPES_MAX, CREDENTIAL_BYTES_MAX, OAUTH_TOKEN_LIFE_DEFAULT, RETRY_AFTER_MAX, TOKEN_ANSWER_BYTES_MAX,
};
use crate::secret::SecretString;

/// A new access token.
#[derive(Debug, Clone)]
pub struct TokenAnswer {
    /// The access token: visible ASCII.
    pub access_token: SecretString,
    /// The refresh token that replaces the one used; `None`: that one stays valid (RFC 6749 §6).
    pub refresh_token: Option<SecretString>,
    /// How long the access token lives, from the moment of the answer.
    pub expires_in: Duration,
    /// What it is good for, where the answer tells; `None`: for what was asked (RFC 6749 §5.1).
    pub scopes: Option<Vec<String>>,
    /// How long the refresh token lives, where the answer tells that it ends.
    pub ends_in: Option<Duration>,
    /// Whose mailbox it is, if the answer to a consent holds an id_token.
    pub identity: Option<Identity>,
    /// The login name that goes with the token, where an external program says that it is another than the mailbox's.
    pub user: Option<String>,
}

/// An HTTP response, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` field, if there was one in ASCII.
    pub retry_after: Option<&'a str>,
    /// The body, or as much of it as was read: a body longer than [`TOKEN_ANSWER_BYTES_MAX`] is refused.
    pub body: &'a [u8],
}

impl TokenAnswer {
    /// An access token for `expires_in`, with nothing besides.
    pub fn bearer(access_token: SecretString, expires_in: Duration) -> Self {
        Self {
            access_token,
            refresh_token: None,
            expires_in,
            scopes: None,
            ends_in: None,
            identity: None,
            user: None,
        }
    }

    /// Which of the scopes that were `asked` for the owner did not consent to, as far as the answer tells.
    pub fn missing<'a>(&'a self, asked: &'a [String]) -> impl Iterator<Item = &'a str> {
        let granted = self.scopes.as_deref();
        granted.into_iter().flat_map(|granted| missing_scopes(asked, granted))
    }
}

/// Which of the scopes that were `asked` for are not among those `granted`. What only asks for an identity or a refresh token
/// is not missed: providers leave it out (Microsoft `offline_access`) or write it otherwise (Google `email`).
pub fn missing_scopes<'a>(asked: &'a [String], granted: &'a [String]) -> impl Iterator<Item = &'a str> {
    let is_granted = |scope: &str| granted.iter().any(|given| given.eq_ignore_ascii_case(scope));
    let asked = asked.iter().map(String::as_str);
    asked.filter(move |scope| !NOT_MISSED.contains(scope) && !is_granted(scope))
}

/// Reads `response` at the moment `now`. `secrets` are what the request held; no message repeats them.
///
/// # Errors
/// [`TokenError`], for everything that is not a usable bearer token.
pub fn read(response: &Response<'_>, now: Timestamp, secrets: &[&str]) -> Result<TokenAnswer, TokenError> {
    issued(response, now, secrets).map(|(answer, _)| answer)
}

/// Reads the answer to an owner's consent, which may tell who the owner is.
///
/// # Errors
/// As [`read`], and temporary if the id_token is one of another app or another consent.
pub fn read_consented(
    response: &Response<'_>,
    now: Timestamp,
    secrets: &[&str],
    expected: &Expected<'_>,
) -> Result<TokenAnswer, TokenError> {
    let (mut answer, id_token) = issued(response, now, secrets)?;
    if let Some(id_token) = id_token {
        answer.identity = identity::read(&id_token, expected, now)?;
    }
    Ok(answer)
}

/// Reads the answer of an endpoint that has nothing to say but whether it did as it was asked (RFC 7009 §2.2).
///
/// # Errors
/// [`TokenError`], for every status but 200.
pub fn read_done(response: &Response<'_>, now: Timestamp, secrets: &[&str]) -> Result<(), TokenError> {
    if response.status == 200 {
        return Ok(());
    }
    match members(response, now, secrets) {
        Ok(_) => Err(without_object(response, now)),
        Err(error) => Err(error),
    }
}

/// The members of an answer that is a JSON object, has status 200 and tells no error.
///
/// # Errors
/// [`TokenError`], for every other.
pub(super) fn members(
    response: &Response<'_>,
    now: Timestamp,
    secrets: &[&str],
) -> Result<Map<String, Value>, TokenError> {
    if response.body.len() > TOKEN_ANSWER_BYTES_MAX {
        return Err(unusable(response, now, "answer_too_long", "the answer is too long"));
    }
    let members = match serde_json::from_slice(response.body) {
        Ok(Value::Object(members)) => members,
        Ok(_) | Err(_) => return Err(without_object(response, now)),
    };
    match members.get("error") {
        None | Some(Value::Null) if response.status == 200 => Ok(members),
        None | Some(Value::Null) => Err(without_object(response, now)),
        Some(error) => Err(refusal(response, now, error, &members, secrets)),
    }
}

/// The refusal that an authorization endpoint sent by way of the browser (RFC 6749 §4.1.2.1). `code` and `description` are
/// clean already.
pub(super) fn refused(code: &str, description: &str) -> TokenError {
    let trouble = classify::aadsts_numbers(description)
        .find_map(classify::of_aadsts)
        .or_else(|| classify::of_code(code))
        .unwrap_or(Trouble::Passing);
    let message = if description.is_empty() {
        "the provider refused to authorize the mailbox"
    } else {
        description
    };
    TokenError {
        kind: match trouble {
            Trouble::Grant => TokenErrorKind::Grant,
            Trouble::App => TokenErrorKind::App,
            Trouble::Passing => TokenErrorKind::Temporary { retry_after: None },
        },
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// How long a `Retry-After` field asks to wait (RFC 9110 §10.2.3): seconds, or a date in the form that senders must use
/// (§5.6.7; the two obsolete forms are not read). At most [`RETRY_AFTER_MAX`].
pub fn retry_after(field: &str, now: Timestamp) -> Option<Duration> {
    let field = field.trim();
    if !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = field.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = Timestamp::from_http_date(field)?;
    Some(date.since(now).min(RETRY_AFTER_MAX))
}

/// A new access token, and the id_token beside it.
type Issued = (TokenAnswer, Option<SecretString>);

fn issued(response: &Response<'_>, now: Timestamp, secrets: &[&str]) -> Result<Issued, TokenError> {
    let members = members(response, now, secrets)?;
    success(members).map_err(|what| {
        let message = format!("the answer has {what}");
        unusable(response, now, "bad_answer", &message)
    })
}

fn success(mut members: Map<String, Value>) -> Result<Issued, &'static str> {
    // RFC 6749 §7.1: a token of a type that is not understood must not be used. Some providers leave the type out.
    match members.get("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(_) => return Err("a token type that is not Bearer"),
    }
    let Some(Value::String(access_token)) = members.remove("access_token") else {
        return Err("no access token");
    };
    if !is_token(&access_token, b'!') {
        return Err("an access token that cannot be one");
    }
    let refresh_token = match members.remove("refresh_token") {
        None | Some(Value::Null) => None,
        Some(Value::String(token)) if token.is_empty() => None,
        // RFC 6749 appendix A.17: a refresh token may hold spaces.
        Some(Value::String(token)) if is_token(&token, b' ') => Some(SecretString::from(token)),
        Some(_) => return Err("a refresh token that cannot be one"),
    };
    let id_token = match members.remove("id_token") {
        Some(Value::String(token)) => Some(SecretString::from(token)),
        _ => None,
    };
    // Google and Microsoft name it the one way, Keycloak the other.
    let refresh_token_life = ["refresh_token_expires_in", "refresh_expires_in"];
    let answer = TokenAnswer {
        access_token: access_token.into(),
        refresh_token,
        expires_in: life(members.get("expires_in")),
        scopes: members.get("scope").and_then(Value::as_str).and_then(scopes),
        ends_in: refresh_token_life.iter().find_map(|name| end(members.get(*name))),
        identity: None,
        user: None,
    };
    Ok((answer, id_token))
}

/// The life of an access token from `expires_in`, which may be missing.
pub(super) fn life(expires_in: Option<&Value>) -> Duration {
    seconds(expires_in).map_or(OAUTH_TOKEN_LIFE_DEFAULT, bounded_life)
}

/// A token's life of `seconds`, within what is plausible.
pub(super) fn bounded_life(seconds: f64) -> Duration {
    let bounded = seconds.clamp(TOKEN_LIFE_MIN.as_secs_f64(), TOKEN_LIFE_MAX.as_secs_f64());
    Duration::from_secs_f64(bounded.floor())
}

/// The life of a refresh token, if it ends: Keycloak writes 0 for one that does not.
fn end(life: Option<&Value>) -> Option<Duration> {
    let seconds = seconds(life).filter(|seconds| *seconds >= 1.0)?;
    Some(Duration::from_secs_f64(
        seconds.floor().min(GRANT_LIFE_MAX.as_secs_f64()),
    ))
}

/// A time in seconds, which comes as a number, a number in a string, or not at all.
pub(super) fn seconds(member: Option<&Value>) -> Option<f64> {
    let seconds = match member? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    seconds.filter(|seconds| !seconds.is_nan())
}

/// The scopes of an answer (RFC 6749 §3.3), as far as they are ones.
fn scopes(text: &str) -> Option<Vec<String>> {
    let scopes = text.split_ascii_whitespace().filter(|scope| is_token(scope, b'!'));
    let scopes: Vec<_> = scopes.take(CONSENTED_SCOPES_MAX).map(str::to_owned).collect();
    (!scopes.is_empty()).then_some(scopes)
}

/// Whether `token` may be used as one: of a bearable length, and without characters below `lowest` or beyond ASCII.
pub(super) fn is_token(token: &str, lowest: u8) -> bool {
    !token.is_empty()
        && token.len() <= CREDENTIAL_BYTES_MAX
        && token.bytes().all(|byte| (lowest..=b'~').contains(&byte))
}

/// A refusal with an `error` member, whatever the status.
fn refusal(
    response: &Response<'_>,
    now: Timestamp,
    error: &Value,
    members: &Map<String, Value>,
    secrets: &[&str],
) -> TokenError {
    // Google's API gateways answer with an object in place of the code.
    let (code, description) = match error {
        Value::String(code) => (code.as_str(), text(members, "error_description")),
        Value::Object(inner) => (text(inner, "status"), text(inner, "message")),
        _ => ("", ""),
    };
    let numbers = members.get("error_codes").and_then(Value::as_array);
    let numbers = numbers.into_iter().flatten().filter_map(Value::as_u64);
    let aadsts = numbers.chain(classify::aadsts_numbers(description));
    let trouble = if is_temporary_status(response.status) {
        Trouble::Passing
    } else {
        let by_number = aadsts.filter_map(classify::of_aadsts).next();
        let unknown = if response.status == 401 {
            Trouble::App
        } else {
            Trouble::Passing
        };
        by_number.or_else(|| classify::of_code(code)).unwrap_or(unknown)
    };
    let subtype = ["error_subtype", "suberror"].map(|name| text(members, name));
    let parts = [subtype[0], subtype[1], description];
    let parts = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let message = if parts.is_empty() {
        format!("the token endpoint refused the request (HTTP {})", response.status)
    } else {
        clean(&parts.join(": "), secrets)
    };
    let code = clean_code(code, secrets);
    TokenError {
        kind: kind(trouble, response, now),
        code: if code.is_empty() {
            format!("http_{}", response.status)
        } else {
            code
        },
        message,
    }
}

/// An error code, made fit as [`clean`] makes a text.
pub(super) fn clean_code(code: &str, secrets: &[&str]) -> String {
    clean(code, secrets).chars().take(CODE_CHARS_MAX).collect()
}

/// An answer that is not RFC 6749's at all: an HTML page, nothing, a redirect.
fn without_object(response: &Response<'_>, now: Timestamp) -> TokenError {
    let what = match response.status {
        200 => "is not what RFC 6749 describes",
        300..=399 => "is a redirect, which is not followed",
        _ if response.body.is_empty() => "is empty",
        _ => "does not say why",
    };
    let message = format!("the answer {what} (HTTP {})", response.status);
    match response.status {
        200 => unusable(response, now, "bad_answer", &message),
        // RFC 6749 §5.2: the client authentication failed.
        401 => TokenError::app("http_401", message),
        status => unusable(response, now, &format!("http_{status}"), &message),
    }
}

/// An answer of which nothing is to be had but the attempt to ask again.
pub(super) fn unusable(response: &Response<'_>, now: Timestamp, code: &str, message: &str) -> TokenError {
    TokenError {
        kind: kind(Trouble::Passing, response, now),
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

fn kind(trouble: Trouble, response: &Response<'_>, now: Timestamp) -> TokenErrorKind {
    match trouble {
        Trouble::Grant => TokenErrorKind::Grant,
        Trouble::App => TokenErrorKind::App,
        Trouble::Passing => TokenErrorKind::Temporary {
            retry_after: response.retry_after.and_then(|field| retry_after(field, now)),
        },
    }
}

fn is_temporary_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> &'a str {
    members.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Characters of an error code. RFC 6749's longest has 22.
const CODE_CHARS_MAX: usize = 64;

/// Bounds on what `expires_in` may claim. Nothing lives shorter than a second; Yandex's tokens live a year.
const TOKEN_LIFE_MIN: Duration = Duration::from_secs(1);
pub(super) const TOKEN_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Bound on what a grant's life may be said to be: ten years, beyond which nobody plans.
const GRANT_LIFE_MAX: Duration = Duration::from_secs(3653 * 24 * 3600);

/// Scopes that open no mailbox (OpenID Connect Core §5.4, §11).
const NOT_MISSED: [&str; 6] = ["openid", "profile", "email", "address", "phone", "offline_access"];

#[cfg(test)]
mod tests;
