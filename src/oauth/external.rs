//! Reads what an external token source says: `{"user"?, "accessToken", "expires"?}`, or a bare token on one line as oama,
//! pizauth and mutt_oauth2 print it. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use super::answer::{Response, TokenAnswer, bounded_life, is_token, unusable};
use super::error::{AnsweredBy, TokenError, TokenErrorKind};
use super::text::is_plain;
use crate::clock::Timestamp;
use crate::limits::{CLAIM_CHARS_MAX, OAUTH_TOKEN_LIFE_DEFAULT, TOKEN_ANSWER_BYTES_MAX};

/// Reads `output` at the moment `now`. Nothing of it is repeated in an error.
///
/// # Errors
/// [`TokenError`]: the configuration's (`bad_answer`) where it is no token, and temporary (`token_expired`) where the token has
/// ended already.
pub(super) fn read(output: &[u8], now: Timestamp) -> Result<TokenAnswer, TokenError> {
    let not_understood = |what: &str| TokenError::app("bad_answer", format!("the token source's answer {what}"));
    if output.len() > TOKEN_ANSWER_BYTES_MAX {
        return Err(not_understood("is too long"));
    }
    let text = std::str::from_utf8(output).map_err(|_| not_understood("is not text"))?;
    let text = text.trim();
    if !text.starts_with('{') {
        return match is_token(text, b'!') && is_bearer(text) {
            true => Ok(TokenAnswer::bearer(text.into(), OAUTH_TOKEN_LIFE_DEFAULT)),
            false if text.is_empty() => Err(not_understood("is empty")),
            false => Err(not_understood(
                "is neither a token on one line nor {\"user\", \"accessToken\", \"expires\"}",
            )),
        };
    }
    // The parser's own error might quote what it met.
    let members = serde_json::from_str(text).map_err(|_| not_understood("is not valid JSON"))?;
    let expires = expires(&members).map_err(not_understood)?;
    let answer = answer(members).map_err(not_understood)?;
    match expires {
        None => Ok(answer),
        Some(expires) if expires <= now => Err(TokenError::temporary(
            "token_expired",
            format!("the token source gave a token that ended at {expires}"),
        )),
        Some(expires) => Ok(TokenAnswer {
            expires_in: bounded_life(expires.since(now).as_secs_f64()),
            ..answer
        }),
    }
}

/// Reads the answer of a URL.
///
/// # Errors
/// [`TokenError`]: as [`read`], and by the status whoever has to act.
pub(super) fn read_response(response: &Response<'_>, now: Timestamp) -> Result<TokenAnswer, TokenError> {
    let status = response.status;
    let code = format!("http_{status}");
    let refused = |kind, what: &str| {
        let mut error = TokenError::new(kind, &code, format!("the token source {what} (HTTP {status})"));
        error.facts.status = Some(status);
        error.facts.answered_by = AnsweredBy::Provider;
        error
    };
    match status {
        200 => read(response.body, now),
        // Whoever keeps the grants there has none for this mailbox, or not for us: somebody has to authorize it there.
        403 | 404 | 410 => Err(refused(TokenErrorKind::Grant, "has no token for this account")),
        401 => Err(refused(TokenErrorKind::App, "wants to know who asks")),
        300..=399 => Err(refused(TokenErrorKind::App, "redirects, which is not followed")),
        408 | 425 | 429 | 500.. => Err(unusable(response, now, &code, "the token source has trouble for now")),
        _ => Err(refused(TokenErrorKind::App, "does not understand the question")),
    }
}

fn answer(mut members: Map<String, Value>) -> Result<TokenAnswer, &'static str> {
    let user = match members.remove("user") {
        None | Some(Value::Null) => None,
        Some(Value::String(user)) if is_user(&user) => Some(user),
        Some(_) => return Err("names a user that cannot be one"),
    };
    match members.remove("accessToken") {
        Some(Value::String(token)) if is_token(&token, b'!') => Ok(TokenAnswer {
            user,
            ..TokenAnswer::bearer(token.into(), OAUTH_TOKEN_LIFE_DEFAULT)
        }),
        Some(_) => Err("has an accessToken that cannot be one"),
        None => Err("has no accessToken"),
    }
}

/// When the token ends: RFC 3339, or seconds since 1970.
fn expires(members: &Map<String, Value>) -> Result<Option<Timestamp>, &'static str> {
    let seconds = match members.get("expires") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(time)) => {
            let time = Timestamp::parse(time).map_err(|_| "has an expires that is not RFC 3339")?;
            return Ok(Some(time));
        }
        Some(Value::Number(number)) => number.as_f64().filter(|seconds| *seconds >= 0.0),
        Some(_) => None,
    };
    let seconds = seconds.ok_or("has an expires that is neither a time nor a number")?;
    match Duration::try_from_secs_f64(seconds) {
        // Milliseconds would make the token live for ten thousands of years.
        Ok(since_1970) if since_1970 < SECONDS_MAX => Ok(Some(Timestamp::EPOCH.after(since_1970))),
        Ok(_) | Err(_) => Err("has an expires that lies too far ahead; it is a number of seconds since 1970"),
    }
}

/// Whether a text by itself can be a token (RFC 6750 §2.1, `b64token`): a page or a complaint is none.
fn is_bearer(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

fn is_user(user: &str) -> bool {
    !user.is_empty() && user.chars().count() <= CLAIM_CHARS_MAX && user.chars().all(is_plain)
}

/// The beginning of the year 2286: a number above is no date of a token in seconds.
const SECONDS_MAX: Duration = Duration::from_secs(10_000_000_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CREDENTIAL_BYTES_MAX;
    use crate::oauth::answer::TOKEN_LIFE_MAX;
    use crate::secret::ExposeSecret;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000); // 2027-01-15T08:00:00Z

    #[test]
    fn tokens_are_read_as_helpers_give_them() {
        let hour = Duration::from_secs(3600);
        let cases = [
            ("ya29.a0\n", "ya29.a0", hour, None),
            ("  EwB4/+=~.-_  \r\n", "EwB4/+=~.-_", hour, None),
            (r#"{"accessToken":"t"}"#, "t", hour, None),
            (r#"{"accessToken":"t","expires":null,"user":null}"#, "t", hour, None),
            (
                r#"{"user":"ada@example.com","accessToken":"t","expires":"2027-01-15T08:10:00Z","more":[1]}"#,
                "t",
                Duration::from_secs(600),
                Some("ada@example.com"),
            ),
            (
                r#"{"accessToken":"t","expires":"2027-01-15T09:10:00+01:00"}"#,
                "t",
                Duration::from_secs(600),
                None,
            ),
            (
                r#"{"accessToken":"t","expires":1800000090}"#,
                "t",
                Duration::from_secs(90),
                None,
            ),
            (
                r#"{"accessToken":"t","expires":1800000090.9}"#,
                "t",
                Duration::from_secs(90),
                None,
            ),
            (
                r#"{"accessToken":"t","expires":"9999-01-01T00:00:00Z"}"#,
                "t",
                TOKEN_LIFE_MAX,
                None,
            ),
        ];
        for (output, token, expires_in, user) in cases {
            let answer = read(output.as_bytes(), NOW).unwrap();
            assert_eq!(answer.access_token.expose_secret(), token, "{output}");
            assert_eq!(answer.expires_in, expires_in, "{output}");
            assert_eq!(answer.user.as_deref(), user, "{output}");
            assert!(answer.refresh_token.is_none());
        }
    }

    #[test]
    fn what_is_not_understood_is_the_configurations_trouble_and_is_not_repeated() {
        let long = "a".repeat(CREDENTIAL_BYTES_MAX + 1);
        let endless = " ".repeat(TOKEN_ANSWER_BYTES_MAX + 1);
        let cases: &[&[u8]] = &[
            b"",
            b" \n",
            b"first-secret\nsecond-secret",
            b"Error: no secret",
            b"se\xffcret",
            b"{\"accessToken\":\"secret",
            b"[\"secret\"]",
            b"{}",
            b"{\"access_token\":\"secret\"}",
            b"{\"accessToken\":\"\"}",
            b"{\"accessToken\":\"sec ret\"}",
            b"{\"accessToken\":7}",
            b"{\"accessToken\":\"secret\",\"user\":\"a\\u0001b\"}",
            b"{\"accessToken\":\"secret\",\"user\":\"\"}",
            b"{\"accessToken\":\"secret\",\"user\":1}",
            b"{\"accessToken\":\"secret\",\"expires\":\"tomorrow\"}",
            b"{\"accessToken\":\"secret\",\"expires\":1800000090000}",
            b"{\"accessToken\":\"secret\",\"expires\":1e300}",
            b"{\"accessToken\":\"secret\",\"expires\":-1}",
            b"{\"accessToken\":\"secret\",\"expires\":[]}",
            long.as_bytes(),
            endless.as_bytes(),
        ];
        for output in cases {
            let error = read(output, NOW).unwrap_err();
            let shown = String::from_utf8_lossy(output);
            assert_eq!(
                (error.kind, error.code.as_str()),
                (TokenErrorKind::App, "bad_answer"),
                "{shown:.60}"
            );
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_that_has_ended_is_none() {
        for expires in ["1800000000", "0", "\"2027-01-15T07:59:59Z\""] {
            let output = format!(r#"{{"accessToken":"t","expires":{expires}}}"#);
            let error = read(output.as_bytes(), NOW).unwrap_err();
            assert_eq!(error.kind, TokenErrorKind::Temporary { retry_after: None }, "{expires}");
            assert_eq!(error.code, "token_expired");
        }
    }

    #[test]
    fn a_status_says_who_has_to_act() {
        let passing = TokenErrorKind::Temporary {
            retry_after: Some(Duration::from_secs(7)),
        };
        let cases = [
            (403, TokenErrorKind::Grant),
            (404, TokenErrorKind::Grant),
            (410, TokenErrorKind::Grant),
            (302, TokenErrorKind::App),
            (400, TokenErrorKind::App),
            (401, TokenErrorKind::App),
            (429, passing),
            (500, passing),
            (503, passing),
        ];
        for (status, kind) in cases {
            let response = Response {
                status,
                retry_after: Some("7"),
                body: b"t",
            };
            let error = read_response(&response, NOW).unwrap_err();
            assert_eq!((error.kind, error.code), (kind, format!("http_{status}")));
        }
        let response = Response {
            status: 200,
            retry_after: None,
            body: b"t",
        };
        assert_eq!(read_response(&response, NOW).unwrap().access_token.expose_secret(), "t");
    }
}
