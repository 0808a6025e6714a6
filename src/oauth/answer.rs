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
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Bound on what a grant's life may be said to be: ten years, beyond which nobody plans.
const GRANT_LIFE_MAX: Duration = Duration::from_secs(3653 * 24 * 3600);

/// Scopes that open no mailbox (OpenID Connect Core §5.4, §11).
const NOT_MISSED: [&str; 6] = ["openid", "profile", "email", "address", "phone", "offline_access"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::UPSTREAM_TEXT_CHARS_MAX;
    use crate::secret::ExposeSecret;

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
    const GRANT: TokenErrorKind = TokenErrorKind::Grant;
    const APP: TokenErrorKind = TokenErrorKind::App;
    const PASSING: TokenErrorKind = TokenErrorKind::Temporary { retry_after: None };

    fn read_body(status: u16, body: &str) -> Result<TokenAnswer, TokenError> {
        let response = Response {
            status,
            retry_after: None,
            body: body.as_bytes(),
        };
        read(&response, NOW, &["r-secret", "app secret"])
    }

    #[test]
    fn the_life_of_a_token_is_understood_in_every_form_that_providers_send() {
        let year = 366 * 24 * 3600;
        let cases = [
            (r#","expires_in":3599"#, 3599),
            (r#","expires_in":"3599""#, 3599),
            (r#","expires_in":" 60 ""#, 60),
            (r#","expires_in":3599.9"#, 3599),
            (r#","expires_in":null"#, 3600),
            (r#","expires_in":"soon""#, 3600),
            (r#","expires_in":"NaN""#, 3600),
            (r#","expires_in":[]"#, 3600),
            ("", 3600),
            (r#","ext_expires_in":7"#, 3600),
            (r#","expires_in":0"#, 1),
            (r#","expires_in":-5"#, 1),
            (r#","expires_in":1e300"#, year),
            (r#","expires_in":"inf""#, year),
            (r#","expires_in":18446744073709551616"#, year),
        ];
        for (member, seconds) in cases {
            let answer = read_body(200, &format!(r#"{{"access_token":"a","token_type":"Bearer"{member}}}"#)).unwrap();
            assert_eq!(answer.expires_in, Duration::from_secs(seconds), "{member}");
        }
    }

    #[test]
    fn a_rotated_refresh_token_is_taken_and_a_missing_one_keeps_the_old() {
        let cases = [
            (r#""refresh_token":"r2""#, Some("r2")),
            (r#""refresh_token":"r 2""#, Some("r 2")),
            (r#""refresh_token":"""#, None),
            (r#""refresh_token":null"#, None),
            (r#""scope":"mail""#, None),
        ];
        for (member, expected) in cases {
            let answer = read_body(200, &format!(r#"{{"access_token":"a.b-c",{member}}}"#)).unwrap();
            assert_eq!(answer.access_token.expose_secret(), "a.b-c");
            let refresh_token = answer.refresh_token.as_ref().map(ExposeSecret::expose_secret);
            assert_eq!(refresh_token, expected, "{member}");
        }
    }

    #[test]
    fn what_was_granted_and_when_it_ends_is_read_where_it_is_told() {
        let owned = |scopes: &[&str]| Some(scopes.iter().map(ToString::to_string).collect::<Vec<_>>());
        let cases = [
            (
                r#""scope":"mail offline_access""#,
                owned(&["mail", "offline_access"]),
                None,
            ),
            (r#""scope":" mail  send ""#, owned(&["mail", "send"]), None),
            (r#""scope":"""#, None, None),
            (r#""scope":["mail"]"#, None, None),
            (r#""refresh_token_expires_in":604799"#, None, Some(604_799)),
            (r#""refresh_token_expires_in":"86399""#, None, Some(86_399)),
            (r#""refresh_expires_in":1800"#, None, Some(1800)),
            (r#""refresh_expires_in":0"#, None, None),
            (r#""refresh_expires_in":-1"#, None, None),
            (r#""refresh_expires_in":1e300"#, None, Some(3653 * 86_400)),
            (
                r#""refresh_token_expires_in":null,"refresh_expires_in":5"#,
                None,
                Some(5),
            ),
        ];
        for (member, scopes, ends_in) in cases {
            let answer = read_body(200, &format!(r#"{{"access_token":"a",{member}}}"#)).unwrap();
            assert_eq!(answer.scopes, scopes, "{member}");
            assert_eq!(answer.ends_in, ends_in.map(Duration::from_secs), "{member}");
        }
    }

    #[test]
    fn a_scope_is_missed_if_mail_needs_it_and_the_answer_leaves_it_out() {
        let asked = [
            "https://o/IMAP",
            "https://o/SMTP.Send",
            "offline_access",
            "openid",
            "email",
        ];
        let asked = asked.map(str::to_owned);
        let cases = [
            (r#""scope":"https://o/imap https://o/SMTP.Send""#, vec![]),
            (r#""scope":"https://o/IMAP openid""#, vec!["https://o/SMTP.Send"]),
            (r#""scope":"email""#, vec!["https://o/IMAP", "https://o/SMTP.Send"]),
            // RFC 6749 §5.1: an answer that does not tell grants what was asked.
            (r#""x":1"#, vec![]),
        ];
        for (member, missing) in cases {
            let answer = read_body(200, &format!(r#"{{"access_token":"a",{member}}}"#)).unwrap();
            assert_eq!(answer.missing(&asked).collect::<Vec<_>>(), missing, "{member}");
        }
    }

    #[test]
    fn a_refusal_by_way_of_the_browser_is_classified_as_one_of_the_token_endpoint() {
        let cases = [
            ("access_denied", "", GRANT),
            ("consent_required", "AADSTS90094: an administrator must consent", APP),
            ("access_denied", "AADSTS65004: the user declined", GRANT),
            ("unauthorized_client", "", APP),
            ("server_error", "", PASSING),
            ("new_code", "", PASSING),
        ];
        for (code, description, kind) in cases {
            let error = refused(code, description);
            assert_eq!((error.kind, error.code.as_str()), (kind, code), "{description}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn what_was_to_be_done_is_done_with_status_200_only() {
        let read = |status, body: &str| {
            let response = Response {
                status,
                retry_after: None,
                body: body.as_bytes(),
            };
            read_done(&response, NOW, &[])
        };
        read(200, "").unwrap();
        read(200, "<html>").unwrap();
        assert_eq!(read(503, "").unwrap_err().kind, PASSING);
        assert_eq!(read(204, "").unwrap_err().code, "http_204");
        let error = read(400, r#"{"error":"unsupported_token_type"}"#).unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (APP, "unsupported_token_type"));
    }

    #[test]
    fn what_cannot_be_a_bearer_token_is_refused_as_passing_trouble() {
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(CREDENTIAL_BYTES_MAX + 1));
        let bodies = [
            r"{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":"a\u0001b"}"#,
            r#"{"access_token":"a\r\nb"}"#,
            r#"{"access_token":"a b"}"#,
            r#"{"access_token":"ä"}"#,
            r#"{"access_token":"a","refresh_token":"r\n"}"#,
            r#"{"access_token":"a","refresh_token":9}"#,
            r#"{"access_token":"a","token_type":"mac"}"#,
            r#"{"access_token":"a","token_type":1}"#,
            r#"["access_token"]"#,
            "<html>Welcome to Example Wi-Fi</html>",
            "access_token=a&token_type=bearer",
            "",
            &long,
        ];
        for body in bodies {
            let error = read_body(200, body).unwrap_err();
            assert_eq!((error.kind, error.code.as_str()), (PASSING, "bad_answer"), "{body:.80}");
        }
    }

    #[test]
    fn an_answer_over_the_limit_is_refused_unread() {
        let body = format!(r#"{{"access_token":"a","x":"{}"}}"#, "x".repeat(TOKEN_ANSWER_BYTES_MAX));
        assert_eq!(read_body(200, &body).unwrap_err().code, "answer_too_long");
        assert!(
            read_body(200, &format!("{}{{}}", "[".repeat(60_000))).is_err(),
            "nesting is bounded"
        );
    }

    #[test]
    fn errors_are_the_grants_the_apps_or_passing() {
        let entra = |code: &str, text: &str| format!(r#"{{"error":"{code}","error_description":"{text}"}}"#);
        let cases: &[(u16, String, TokenErrorKind, &str)] = &[
            (400, r#"{"error":"invalid_grant"}"#.into(), GRANT, "invalid_grant"),
            (200, r#"{"error":"invalid_grant"}"#.into(), GRANT, "invalid_grant"),
            (401, r#"{"error":"invalid_grant"}"#.into(), GRANT, "invalid_grant"),
            (
                400,
                r#"{"error":"interaction_required"}"#.into(),
                GRANT,
                "interaction_required",
            ),
            (400, r#"{"error":"consent_required"}"#.into(), GRANT, "consent_required"),
            (400, r#"{"error":"login_required"}"#.into(), GRANT, "login_required"),
            (401, r#"{"error":"invalid_client"}"#.into(), APP, "invalid_client"),
            (
                400,
                r#"{"error":"unauthorized_client"}"#.into(),
                APP,
                "unauthorized_client",
            ),
            (400, r#"{"error":"invalid_scope"}"#.into(), APP, "invalid_scope"),
            (
                400,
                r#"{"error":"unsupported_grant_type"}"#.into(),
                APP,
                "unsupported_grant_type",
            ),
            (401, String::new(), APP, "http_401"),
            (401, "<html>".into(), APP, "http_401"),
            (401, r#"{"error":"whatever"}"#.into(), APP, "whatever"),
            (
                400,
                r#"{"error":"temporarily_unavailable"}"#.into(),
                PASSING,
                "temporarily_unavailable",
            ),
            (400, r#"{"error":"server_error"}"#.into(), PASSING, "server_error"),
            (400, r#"{"error":"slow_down"}"#.into(), PASSING, "slow_down"),
            (400, r#"{"error":"something_new"}"#.into(), PASSING, "something_new"),
            (400, "<html>Bad Request</html>".into(), PASSING, "http_400"),
            (400, r#"{"message":"no"}"#.into(), PASSING, "http_400"),
            (400, r#"{"error":7}"#.into(), PASSING, "http_400"),
            (302, String::new(), PASSING, "http_302"),
            (403, "Forbidden".into(), PASSING, "http_403"),
            (408, String::new(), PASSING, "http_408"),
            (429, r#"{"error":"invalid_grant"}"#.into(), PASSING, "invalid_grant"),
            (500, r#"{"error":"invalid_client"}"#.into(), PASSING, "invalid_client"),
            (503, "<html>".into(), PASSING, "http_503"),
            (
                400,
                entra("invalid_grant", "AADSTS70043: expired"),
                GRANT,
                "invalid_grant",
            ),
            (
                400,
                entra("invalid_grant", "AADSTS50053: locked"),
                PASSING,
                "invalid_grant",
            ),
            (400, entra("invalid_grant", "AADSTS90094: admin"), APP, "invalid_grant"),
            (
                400,
                entra("unauthorized_client", "AADSTS700016: no app"),
                APP,
                "unauthorized_client",
            ),
            (
                401,
                entra("invalid_client", "AADSTS7000222: expired keys"),
                APP,
                "invalid_client",
            ),
            (
                400,
                entra("invalid_client", "AADSTS50076: MFA"),
                GRANT,
                "invalid_client",
            ),
            (
                400,
                r#"{"error":"invalid_request","error_codes":[50173]}"#.into(),
                GRANT,
                "invalid_request",
            ),
            (
                403,
                r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"no"}}"#.into(),
                PASSING,
                "PERMISSION_DENIED",
            ),
        ];
        for (status, body, kind, code) in cases {
            let error = read_body(*status, body).unwrap_err();
            assert_eq!((error.kind, error.code.as_str()), (*kind, *code), "{status} {body}");
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_bounded() {
        let seconds = Duration::from_secs;
        let cases = [
            ("120", Some(seconds(120))),
            (" 0 ", Some(seconds(0))),
            ("99999999999999999999999", Some(RETRY_AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(seconds(60))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(seconds(0))),
            ("Sun, 06 Nov 2094 08:00:00 GMT", None), // not a Sunday
            ("Sat, 06 Nov 2094 08:00:00 GMT", Some(RETRY_AFTER_MAX)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ];
        for (field, expected) in cases {
            assert_eq!(retry_after(field, NOW), expected, "{field}");
        }
        let response = Response {
            status: 429,
            retry_after: Some("7"),
            body: b"",
        };
        let kind = read(&response, NOW, &[]).unwrap_err().kind;
        assert_eq!(
            kind,
            TokenErrorKind::Temporary {
                retry_after: Some(seconds(7))
            }
        );
    }

    #[test]
    fn a_refusal_repeats_no_secret() {
        let jwt = format!("eyJ0eXAiOiJKV1Qi.{}.sig", "x".repeat(60));
        let body = format!(r#"{{"error":"invalid_grant","error_description":"no such token: r-secret {jwt}"}}"#);
        assert_eq!(
            read_body(400, &body).unwrap_err().message,
            "no such token: [REDACTED] [REDACTED]"
        );
    }

    proptest! {
        #[test]
        fn no_answer_makes_a_message_that_repeats_a_secret(status in 100u16..600, text in "\\PC{0,40}", code in "\\PC{0,20}") {
            let body = serde_json::json!({"error": format!("{code}r-secret"), "error_description": format!("{text}r-secret{text}")});
            let error = read_body(status, &body.to_string()).unwrap_err();
            prop_assert!(!error.message.contains("r-secret") && !error.code.contains("r-secret"));
            prop_assert!(error.message.chars().count() <= UPSTREAM_TEXT_CHARS_MAX);
        }

        #[test]
        fn no_bytes_break_the_reader(status: u16, body: Vec<u8>, field in "\\PC{0,40}") {
            let response = Response { status, retry_after: Some(&field), body: &body };
            if let Ok(answer) = read(&response, NOW, &[]) {
                prop_assert!(answer.expires_in <= TOKEN_LIFE_MAX && answer.expires_in >= TOKEN_LIFE_MIN);
            }
        }
    }
}
