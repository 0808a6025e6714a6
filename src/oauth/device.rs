//! Reads the answer of a device authorization endpoint (RFC 8628 §3.2).

use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::answer::{self, Asked, Response, TokenAnswer, is_token, unusable};
use super::classify;
use super::error::{AnsweredBy, TokenError, TokenErrorKind};
use super::text::is_plain;
use crate::clock::Timestamp;
use crate::limits::{
    DEVICE_CODE_LIFE_DEFAULT, DEVICE_CODE_LIFE_MAX, DEVICE_POLL_INTERVAL_DEFAULT, DEVICE_POLL_INTERVAL_MAX,
    REDIRECT_BYTES_MAX, USER_CODE_CHARS_MAX,
};
use crate::secret::SecretString;

/// A device code: what the owner types, where, and what is polled with meanwhile.
#[derive(Debug, Clone)]
pub struct DeviceCode {
    /// What is polled with.
    pub device_code: SecretString,
    /// What the owner types.
    pub user_code: String,
    /// Where: a URL.
    pub verification_uri: String,
    /// The URL that holds the code already, where the provider has such.
    pub verification_uri_complete: Option<String>,
    /// How long there is time, from the moment of the answer.
    pub expires_in: Duration,
    /// How long to wait between two polls.
    pub interval: Duration,
    /// The scopes that were asked for, as far as mail needs them.
    pub scopes: Vec<String>,
}

/// What a poll brought.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one at a time, for a moment")]
pub enum DevicePoll {
    /// The owner has not decided yet.
    Pending,
    /// Neither; from now on there must be five seconds more between two polls (RFC 8628 §3.5). Also where the endpoint is
    /// not to be reached for now.
    SlowDown,
    /// The owner consented.
    Granted(TokenAnswer),
}

/// Reads `response` at the moment `now`, to a request for `scopes`.
///
/// # Errors
/// [`TokenError`], for everything that an owner could not do anything with.
pub fn read(
    response: &Response<'_>,
    now: Timestamp,
    asked: Asked<'_>,
    scopes: &[String],
) -> Result<DeviceCode, TokenError> {
    let members = answer::members(response, now, asked)?;
    code(&members, scopes).map_err(|what| {
        let message = format!("the answer has {what}");
        unusable(response, now, "bad_answer", &message)
    })
}

fn code(members: &Map<String, Value>, scopes: &[String]) -> Result<DeviceCode, &'static str> {
    let text = |name| members.get(name).and_then(Value::as_str);
    let device_code = text("device_code").filter(|code| is_token(code, b'!'));
    let user_code = text("user_code")
        .filter(|code| (1..=USER_CODE_CHARS_MAX).contains(&code.chars().count()) && code.chars().all(is_plain));
    // The second is Google's spelling, which is older than the RFC.
    let verification_uri = text("verification_uri").or_else(|| text("verification_url"));
    let lasts = |name: &str, default, max| {
        let seconds = answer::seconds(members.get(name)).filter(|seconds| *seconds >= 1.0);
        seconds.map_or(default, |seconds| {
            Duration::from_secs_f64(seconds.min(f64::from(u32::MAX))).min(max)
        })
    };
    Ok(DeviceCode {
        device_code: device_code.ok_or("no device code")?.to_owned().into(),
        user_code: user_code.ok_or("no code for the owner")?.to_owned(),
        verification_uri: verification_uri
            .filter(|uri| is_for_a_browser(uri))
            .ok_or("no URL for the owner")?
            .to_owned(),
        verification_uri_complete: text("verification_uri_complete")
            .filter(|uri| is_for_a_browser(uri))
            .map(str::to_owned),
        expires_in: lasts("expires_in", DEVICE_CODE_LIFE_DEFAULT, DEVICE_CODE_LIFE_MAX),
        interval: lasts("interval", DEVICE_POLL_INTERVAL_DEFAULT, DEVICE_POLL_INTERVAL_MAX),
        scopes: scopes.to_vec(),
    })
}

/// What becomes of a refusal to a poll (RFC 8628 §3.5).
///
/// # Errors
/// [`TokenError`], where polling again would bring nothing: `access_denied` and `expired_token` are the owner's doing.
pub(super) fn poll(outcome: Result<TokenAnswer, TokenError>) -> Result<DevicePoll, TokenError> {
    let mut error = match outcome {
        Ok(answer) => return Ok(DevicePoll::Granted(answer)),
        Err(error) => error,
    };
    let code = error.code.to_ascii_lowercase();
    if code == "authorization_pending" {
        return Ok(DevicePoll::Pending);
    }
    let is_passing = matches!(error.kind, TokenErrorKind::Temporary { .. }) && !is_final(&error);
    if code == "slow_down" || is_passing {
        // A client that meets a connection time-out must poll less often, and goes on.
        return Ok(DevicePoll::SlowDown);
    }
    if let Some((_, standard)) = SAME_CODES.iter().find(|(vendors, _)| *vendors == code) {
        (*standard).clone_into(&mut error.code);
        error.kind = TokenErrorKind::Grant;
    }
    Err(error)
}

/// Whether an error that is not known to blame anybody is the last word all the same. Every refusal is that does not say that
/// it passes (§3.5), and so is an answer that cannot be used: it may have held the tokens, and there is no second one.
fn is_final(error: &TokenError) -> bool {
    let facts = error.facts;
    match facts.status {
        Some(200) => true,
        None | Some(408 | 425 | 429 | 500..) => false,
        Some(_) => {
            facts.answered_by == AnsweredBy::Provider && !classify::is_passing(facts.vendor, &error.code, facts.number)
        }
    }
}

/// Vendors' names for what RFC 8628 §3.5 calls otherwise, or does not name: a device code that is not known (any more).
const SAME_CODES: &[(&str, &str)] = &[
    // learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code; the second of its older endpoint.
    ("authorization_declined", "access_denied"),
    ("code_expired", "expired_token"),
    ("expired", "expired_token"),
    ("device_code_expired", "expired_token"),
    // Microsoft's, GitHub's and Yandex's; then GitHub's alone.
    ("bad_verification_code", "bad_verification_code"),
    ("incorrect_device_code", "bad_verification_code"),
    ("invalid_device_code", "bad_verification_code"),
];

fn is_for_a_browser(uri: &str) -> bool {
    let known = Url::parse(uri).is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
    known && uri.len() <= REDIRECT_BYTES_MAX && uri.chars().all(is_plain) && !uri.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::Step;
    use crate::oauth::vendor::Vendor;
    use crate::secret::ExposeSecret;

    const ASKED: Asked<'_> = Asked {
        step: Step::DevicePoll,
        vendor: Vendor::Other,
        secrets: &[],
    };

    fn read_body(body: &str) -> Result<DeviceCode, TokenError> {
        let response = Response {
            status: 200,
            retry_after: None,
            body: body.as_bytes(),
        };
        read(&response, Timestamp::EPOCH, ASKED, &["mail".to_owned()])
    }

    #[test]
    fn a_device_code_is_read_as_the_rfc_and_as_google_and_microsoft_write_it() {
        let rfc = r#"{"device_code":"GmRh","user_code":"WDJB-MJHT","verification_uri":"https://example.com/device",
            "verification_uri_complete":"https://example.com/device?user_code=WDJB-MJHT","expires_in":1800,"interval":7}"#;
        let code = read_body(rfc).unwrap();
        assert_eq!(code.device_code.expose_secret(), "GmRh");
        assert_eq!(
            (code.user_code.as_str(), code.verification_uri.as_str()),
            ("WDJB-MJHT", "https://example.com/device")
        );
        assert_eq!(
            code.verification_uri_complete.as_deref(),
            Some("https://example.com/device?user_code=WDJB-MJHT")
        );
        assert_eq!(
            (code.expires_in, code.interval),
            (Duration::from_secs(1800), Duration::from_secs(7))
        );
        assert_eq!(code.scopes, ["mail"]);
        let google = r#"{"device_code":"4/4-GMMh","expires_in":"1800","user_code":"GQVQ-JKEC",
            "verification_url":"https://www.google.com/device"}"#;
        let code = read_body(google).unwrap();
        assert_eq!(code.verification_uri, "https://www.google.com/device");
        assert_eq!(
            (code.expires_in, code.interval),
            (Duration::from_secs(1800), Duration::from_secs(5))
        );
        let microsoft = r#"{"user_code":"C4X6GZ","device_code":"CAQABIQEA","verification_uri":"https://microsoft.com/devicelogin",
            "interval":5,"message":"To sign in, use a web browser"}"#;
        assert_eq!(read_body(microsoft).unwrap().expires_in, DEVICE_CODE_LIFE_DEFAULT);
    }

    #[test]
    fn what_an_owner_could_not_use_is_refused() {
        let with = |user_code: &str, uri: &str| {
            serde_json::json!({"device_code": "d", "user_code": user_code, "verification_uri": uri}).to_string()
        };
        read_body(&with("A B", "http://localhost/d")).unwrap();
        for body in [
            "{}".to_owned(),
            with("", "https://example.com"),
            with("A\u{1b}[2J", "https://example.com"),
            with(&"A".repeat(65), "https://example.com"),
            with("A", "javascript:alert(1)"),
            with("A", "https://exa mple.com"),
            with("A", "https://example.com/\u{202e}"),
            with("A", "example.com"),
        ] {
            assert_eq!(read_body(&body).unwrap_err().code, "bad_answer", "{body}");
        }
        let endless = r#"{"device_code":"d","user_code":"A","verification_uri":"https://a.example","expires_in":1e300,"interval":1e9}"#;
        let code = read_body(endless).unwrap();
        assert_eq!(
            (code.expires_in, code.interval),
            (DEVICE_CODE_LIFE_MAX, DEVICE_POLL_INTERVAL_MAX)
        );
    }

    #[test]
    fn a_poll_goes_on_until_there_is_a_decision() {
        let cases = [
            (400, r#"{"error":"authorization_pending"}"#, "pending"),
            (428, r#"{"error":"authorization_pending"}"#, "pending"),
            (
                400,
                r#"{"error":"authorization_pending","error_description":"AADSTS70016: pending"}"#,
                "pending",
            ),
            (400, r#"{"error":"slow_down"}"#, "slow"),
            (429, r#"{"error":"slow_down"}"#, "slow"),
            (503, "<html>", "slow"),
            (200, r#"{"access_token":"a"}"#, "granted"),
            (400, r#"{"error":"access_denied"}"#, "access_denied"),
            (400, r#"{"error":"authorization_declined"}"#, "access_denied"),
            (400, r#"{"error":"expired_token"}"#, "expired_token"),
            // Microsoft's older endpoint, Yandex, GitHub, and what RFC 8628 §3.5 says of codes that it does not name.
            (400, r#"{"error":"code_expired"}"#, "expired_token"),
            (400, r#"{"error":"bad_verification_code"}"#, "bad_verification_code"),
            (400, r#"{"error":"incorrect_device_code"}"#, "bad_verification_code"),
            (400, r#"{"error":"invalid_grant"}"#, "invalid_grant"),
            (400, r#"{"error":"something_new"}"#, "something_new"),
            (400, r#"{"error":"temporarily_unavailable"}"#, "slow"),
            (429, r#"{"error":"something_new"}"#, "slow"),
            (403, "<html>", "slow"),
            (400, r#"{"error":"invalid_client"}"#, "invalid_client"),
            (200, "<html>", "bad_answer"),
        ];
        for (status, body, expected) in cases {
            let response = Response {
                status,
                retry_after: None,
                body: body.as_bytes(),
            };
            let polled = match poll(answer::read(&response, Timestamp::EPOCH, ASKED)) {
                Ok(DevicePoll::Pending) => "pending".to_owned(),
                Ok(DevicePoll::SlowDown) => "slow".to_owned(),
                Ok(DevicePoll::Granted(_)) => "granted".to_owned(),
                Err(error) => {
                    let owners = [
                        "access_denied",
                        "expired_token",
                        "bad_verification_code",
                        "invalid_grant",
                    ];
                    let is_owners = owners.contains(&error.code.as_str());
                    assert_eq!(error.kind == TokenErrorKind::Grant, is_owners, "{error}");
                    error.code
                }
            };
            assert_eq!(polled, expected, "{status} {body}");
        }
        let no_answer = TokenError::temporary("timeout", "no answer");
        assert!(matches!(poll(Err(no_answer)), Ok(DevicePoll::SlowDown)));
    }
}
