//! Reads the answer of a token endpoint: status, headers and body in, [`TokenAnswer`] or [`TokenError`] out.
//!
//! Real answers stray from RFC 6749 §5: `expires_in` is a string or missing, errors come with status 200, a gateway puts an
//! HTML page in between. What cannot be understood is temporary trouble, because it says nothing about the grant. Nothing
//! of an answer reaches a log but what [`TokenError::message`] holds: cleaned, bounded, and without any secret that the request
//! held. What decides anything is in [`TokenError::facts`].

use std::time::Duration;

use serde_json::{Map, Value};

use super::classify::{self, Trouble, Verdict};
use super::error::{AnsweredBy, Obstacle, Step, TokenError, TokenErrorFacts, TokenErrorKind};
use super::identity::{self, Expected, Identity};
use super::scopes::missing_scopes;
use super::text::clean;
use super::vendor::Vendor;
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
    /// Whether the endpoint gave it only once no scopes were named any more, so that the next refresh need not name them.
    pub had_without_scopes: bool,
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

/// What was asked, as far as reading the answer needs it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What is being done.
    pub step: Step,
    /// Whose endpoint answers.
    pub vendor: Vendor,
    /// What the request held, or what is held beside it. No message repeats any of them.
    pub secrets: &'a [&'a str],
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
            had_without_scopes: false,
        }
    }

    /// Which of the scopes that were `asked` for the owner did not consent to, as far as the answer tells.
    pub fn missing<'a>(&'a self, asked: &'a [String]) -> impl Iterator<Item = &'a str> {
        let granted = self.scopes.as_deref();
        granted.into_iter().flat_map(|granted| missing_scopes(asked, granted))
    }
}

/// Reads `response` at the moment `now`.
///
/// # Errors
/// [`TokenError`], for everything that is not a usable bearer token.
pub fn read(response: &Response<'_>, now: Timestamp, asked: Asked<'_>) -> Result<TokenAnswer, TokenError> {
    issued(response, now, asked).map(|(answer, _)| answer)
}

/// Reads the answer to an owner's consent, which may tell who the owner is.
///
/// # Errors
/// As [`read`], and temporary if the id_token is one of another app or another consent.
pub fn read_consented(
    response: &Response<'_>,
    now: Timestamp,
    asked: Asked<'_>,
    expected: &Expected<'_>,
) -> Result<TokenAnswer, TokenError> {
    let (mut answer, id_token) = issued(response, now, asked)?;
    if let Some(id_token) = id_token {
        answer.identity = identity::read(&id_token, expected, now)?;
    }
    Ok(answer)
}

/// Reads the answer of an endpoint that has nothing to say but whether it did as it was asked (RFC 7009 §2.2).
///
/// # Errors
/// [`TokenError`], for every status but 200.
pub fn read_done(response: &Response<'_>, now: Timestamp, asked: Asked<'_>) -> Result<(), TokenError> {
    if response.status == 200 {
        return Ok(());
    }
    match members(response, now, asked) {
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
    asked: Asked<'_>,
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
        Some(error) => Err(refusal(response, now, error, &members, asked)),
    }
}

/// The refusal that `vendor`'s authorization endpoint sent by way of the browser (RFC 6749 §4.1.2.1). `code` and `description`
/// are clean already.
pub(super) fn refused(vendor: Vendor, code: &str, description: &str) -> TokenError {
    let numbers: Vec<u64> = classify::aadsts_numbers(description).collect();
    let verdict = classify::verdict(vendor, Step::Consent, code, &numbers, description);
    let message = if description.is_empty() {
        "the provider refused to authorize the mailbox"
    } else {
        description
    };
    let kind = match verdict.trouble {
        Some(Trouble::Grant) => TokenErrorKind::Grant,
        Some(Trouble::App) => TokenErrorKind::App,
        Some(Trouble::Passing) | None => TokenErrorKind::Temporary { retry_after: None },
    };
    let mut error = TokenError::new(kind, code, message).at(Step::Consent, vendor);
    error.facts.answered_by = AnsweredBy::Provider;
    error.facts.number = verdict.number;
    error.facts.is_about_scopes = verdict.is_about_scopes;
    error
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

fn issued(response: &Response<'_>, now: Timestamp, asked: Asked<'_>) -> Result<Issued, TokenError> {
    let members = members(response, now, asked)?;
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
        had_without_scopes: false,
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
    asked: Asked<'_>,
) -> TokenError {
    // Google's API gateways answer with an object in place of the code.
    let (code, description) = match error {
        Value::String(code) => (code.as_str(), text(members, "error_description")),
        Value::Object(inner) => (text(inner, "status"), text(inner, "message")),
        _ => ("", ""),
    };
    let numbers = members.get("error_codes").and_then(Value::as_array);
    let numbers = numbers.into_iter().flatten().filter_map(Value::as_u64);
    let numbers: Vec<u64> = numbers
        .take(NUMBERS_MAX)
        .chain(classify::aadsts_numbers(description))
        .collect();
    let subtypes = ["error_subtype", "suberror"].map(|name| text(members, name));
    let parts = [subtypes[0], subtypes[1], description];
    let words = parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(": ");
    let Verdict {
        trouble,
        number,
        is_about_scopes,
    } = classify::verdict(asked.vendor, asked.step, code, &numbers, &words);
    let trouble = match trouble {
        _ if is_temporary_status(response.status) => Trouble::Passing,
        Some(trouble) => trouble,
        // RFC 6749 §5.2: the client authentication failed.
        None if response.status == 401 => Trouble::App,
        None => Trouble::Passing,
    };
    let message = if words.is_empty() {
        format!("the token endpoint refused the request (HTTP {})", response.status)
    } else {
        clean(&words, asked.secrets)
    };
    let code = clean_code(code, asked.secrets);
    TokenError {
        kind: kind(trouble, response, now),
        code: if code.is_empty() {
            format!("http_{}", response.status)
        } else {
            code
        },
        message,
        facts: TokenErrorFacts {
            step: Some(asked.step),
            vendor: asked.vendor,
            answered_by: AnsweredBy::Provider,
            status: Some(response.status),
            number,
            is_about_scopes,
        },
    }
}

/// An error code, made fit as [`clean`] makes a text.
pub(super) fn clean_code(code: &str, secrets: &[&str]) -> String {
    clean(code, secrets).chars().take(CODE_CHARS_MAX).collect()
}

/// An answer that is not RFC 6749's at all: an HTML page, nothing, a redirect.
fn without_object(response: &Response<'_>, now: Timestamp) -> TokenError {
    let answered_by = answered_by(response);
    let what = match answered_by {
        AnsweredBy::Obstacle(Obstacle::Login) => "asks for a login to something between",
        AnsweredBy::Obstacle(Obstacle::Redirect) => "is a redirect, which is not followed",
        AnsweredBy::Obstacle(Obstacle::Page) => "is a page for people",
        _ if response.status == 200 => "is not what RFC 6749 describes",
        _ if response.body.is_empty() => "is empty",
        _ => "does not say why",
    };
    let message = format!("the answer {what} (HTTP {})", response.status);
    let mut error = match response.status {
        200 => unusable(response, now, "bad_answer", &message),
        // RFC 6749 §5.2: the client authentication failed.
        401 => TokenError::app("http_401", message),
        status => unusable(response, now, &format!("http_{status}"), &message),
    };
    error.facts.status = Some(response.status);
    error.facts.answered_by = answered_by;
    error
}

/// Who gave an answer that is no OAuth endpoint's.
pub(super) fn answered_by(response: &Response<'_>) -> AnsweredBy {
    let is_page = response.body.trim_ascii_start().starts_with(b"<");
    match response.status {
        // RFC 9110 §15.5.8: a proxy; RFC 6585 §6: the network's own door.
        407 | 511 => AnsweredBy::Obstacle(Obstacle::Login),
        300..=399 => AnsweredBy::Obstacle(Obstacle::Redirect),
        status if is_temporary_status(status) => AnsweredBy::Gateway,
        404 | 405 | 410 => AnsweredBy::Obstacle(Obstacle::Nothing),
        // RFC 7725: by order of somebody.
        403 | 451 => AnsweredBy::Obstacle(Obstacle::Refusal),
        _ if is_page => AnsweredBy::Obstacle(Obstacle::Page),
        _ => AnsweredBy::Gateway,
    }
}

/// An answer of which nothing is to be had but the attempt to ask again.
pub(super) fn unusable(response: &Response<'_>, now: Timestamp, code: &str, message: &str) -> TokenError {
    let mut error = TokenError::new(kind(Trouble::Passing, response, now), code, message);
    error.facts.status = Some(response.status);
    error.facts.answered_by = AnsweredBy::Provider;
    error
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

/// Numbers that are read of an `error_codes` member, in which Microsoft has one.
const NUMBERS_MAX: usize = 16;

/// Characters of an error code. RFC 6749's longest has 22.
const CODE_CHARS_MAX: usize = 64;

/// Bounds on what `expires_in` may claim. Nothing lives shorter than a second; Yandex's tokens live a year.
const TOKEN_LIFE_MIN: Duration = Duration::from_secs(1);
pub(super) const TOKEN_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Bound on what a grant's life may be said to be: ten years, beyond which nobody plans.
const GRANT_LIFE_MAX: Duration = Duration::from_secs(3653 * 24 * 3600);

#[cfg(test)]
mod tests;
