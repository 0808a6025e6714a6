//! Answers as real providers give them, and as nobody should.

use proptest::prelude::*;

use super::*;
use crate::limits::UPSTREAM_TEXT_CHARS_MAX;
use crate::secret::ExposeSecret;

const NOW: Timestamp = Timestamp::from_millis(784_111_777_000); // Sun, 06 Nov 1994 08:49:37 GMT
const GRANT: TokenErrorKind = TokenErrorKind::Grant;
const APP: TokenErrorKind = TokenErrorKind::App;
const PASSING: TokenErrorKind = TokenErrorKind::Temporary { retry_after: None };

fn asked<'a>(secrets: &'a [&'a str]) -> Asked<'a> {
    Asked {
        step: Step::Refresh,
        vendor: Vendor::Other,
        secrets,
    }
}

fn read_body(status: u16, body: &str) -> Result<TokenAnswer, TokenError> {
    let response = Response {
        status,
        retry_after: None,
        body: body.as_bytes(),
    };
    read(&response, NOW, asked(&["r-secret", "app secret"]))
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
        let error = refused(Vendor::Other, code, description);
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
        read_done(&response, NOW, asked(&[]))
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
        (400, entra("invalid_client", "AADSTS50076: MFA"), APP, "invalid_client"),
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
    let kind = read(&response, NOW, asked(&[])).unwrap_err().kind;
    assert_eq!(
        kind,
        TokenErrorKind::Temporary {
            retry_after: Some(seconds(7))
        }
    );
}

#[test]
fn a_refusal_repeats_no_secret() {
    let body = r#"{"error":"invalid_grant","error_description":"no such token: r-secret app%20secret"}"#;
    let error = read_body(400, body).unwrap_err();
    assert_eq!(error.message, "no such token: [REDACTED] [REDACTED]");
}

#[test]
fn a_refusal_shows_the_scope_and_the_redirect_that_it_names() {
    for words in [
        "The scope https://outlook.office.com/IMAP.AccessAsUser.Everything.All is not valid",
        "redirect_uri https://mail.example.com/tenants/one/oauth/callback does not match",
    ] {
        let body = serde_json::json!({ "error": "invalid_request", "error_description": words }).to_string();
        assert_eq!(read_body(400, &body).unwrap_err().message, words);
    }
}

#[test]
fn a_refusal_tells_its_facts_beside_its_words() {
    let body = r#"{"error":"invalid_grant","error_description":"AADSTS65001: no consent","error_codes":[65001]}"#;
    let facts = read_body(400, body).unwrap_err().facts;
    let expected = TokenErrorFacts {
        step: Some(Step::Refresh),
        vendor: Vendor::Other,
        answered_by: AnsweredBy::Provider,
        status: Some(400),
        number: Some(65001),
        is_about_scopes: true,
    };
    assert_eq!(facts, expected);
    let facts = read_body(302, "").unwrap_err().facts;
    assert_eq!(facts.answered_by, AnsweredBy::Obstacle(Obstacle::Redirect));
    assert_eq!((facts.status, facts.number), (Some(302), None));
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
        if let Ok(answer) = read(&response, NOW, asked(&[])) {
            prop_assert!(answer.expires_in <= TOKEN_LIFE_MAX && answer.expires_in >= TOKEN_LIFE_MIN);
        }
    }
}
