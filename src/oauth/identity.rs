//! Reads an id_token: who the owner is that consented (OpenID Connect Core §2).
//!
//! It comes straight from the token endpoint, over TLS, so that its signature need not be checked (§3.1.3.7, item 6). What it
//! says is compared with the mailbox that was asked for, and kept nowhere. Mail does without it: a token that cannot be read
//! tells nothing, and only one that was meant for another app or another consent refuses the answer that it came with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::error::TokenError;
use super::text::is_plain;
use crate::clock::Timestamp;
use crate::limits::{CLAIM_CHARS_MAX, CLOCK_SKEW_MAX};
use crate::secret::{ExposeSecret, SecretString};

/// Who an owner is, by what the provider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's own name for the owner.
    pub subject: String,
    /// The address.
    pub email: Option<String>,
    /// What the owner is called by: with Microsoft mostly the login name.
    pub preferred_username: Option<String>,
    /// Microsoft's login name of work accounts.
    pub upn: Option<String>,
}

/// What an id_token must agree with.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The issuer, where it is known. Of Microsoft's `common` it is not: each tenant is its own.
    pub issuer: Option<&'a str>,
    /// The app.
    pub client_id: &'a str,
    /// What the authorization request said, if it said any.
    pub nonce: Option<&'a SecretString>,
}

impl Identity {
    /// Every address by which the mailbox may be known.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        [&self.email, &self.preferred_username, &self.upn]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .filter(|name| name.contains('@'))
    }
}

/// Reads `id_token` at the moment `now`; `None` if there is nothing to learn from it.
///
/// # Errors
/// [`TokenError`], temporary, if it is one of another app or another consent (§3.1.3.7, items 3 and 11).
pub fn read(id_token: &SecretString, expected: &Expected<'_>, now: Timestamp) -> Result<Option<Identity>, TokenError> {
    let Some(claims) = claims(id_token.expose_secret()) else {
        tracing::debug!("the id_token cannot be read");
        return Ok(None);
    };
    if !is_for(claims.get("aud"), expected.client_id) {
        return Err(TokenError::temporary("bad_id_token", "the id_token is not this app's"));
    }
    if let Some(nonce) = expected.nonce
        && claims.get("nonce").and_then(Value::as_str) != Some(nonce.expose_secret())
    {
        let message = "the id_token is not the one of this consent";
        return Err(TokenError::temporary("bad_id_token", message));
    }
    if let Some(issuer) = expected.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        tracing::debug!("the id_token is another issuer's");
        return Ok(None);
    }
    if !is_in_time(claims.get("exp"), now) {
        tracing::debug!("the id_token has ended");
        return Ok(None);
    }
    let claim = |name| claims.get(name).and_then(Value::as_str).and_then(fit);
    // OpenID Connect Core §5.1. Some write it as a string; who says nothing vouches for the address.
    let is_unverified = matches!(claims.get("email_verified"), Some(Value::Bool(false)))
        || claims.get("email_verified").and_then(Value::as_str) == Some("false");
    Ok(claim("sub").map(|subject| Identity {
        subject,
        email: claim("email").filter(|_| !is_unverified),
        preferred_username: claim("preferred_username"),
        upn: claim("upn"),
    }))
}

/// The claims of a token in RFC 7515's compact form (§3.1).
fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Whether an `aud` claim, a string or several (RFC 7519 §4.1.3), names `client_id`.
fn is_for(audience: Option<&Value>, client_id: &str) -> bool {
    match audience {
        Some(Value::String(one)) => one == client_id,
        Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(client_id)),
        _ => false,
    }
}

fn is_in_time(end: Option<&Value>, now: Timestamp) -> bool {
    let end = end.and_then(Value::as_u64).map(|seconds| seconds.saturating_mul(1000));
    end.is_some_and(|end| Timestamp::from_millis(end).after(CLOCK_SKEW_MAX) > now)
}

/// A claim that is one line of text; others are left out.
fn fit(claim: &str) -> Option<String> {
    let fits = !claim.is_empty() && claim.chars().count() <= CLAIM_CHARS_MAX && claim.chars().all(is_plain);
    fits.then(|| claim.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn token(claims: &Value) -> SecretString {
        let encode = |part: &str| URL_SAFE_NO_PAD.encode(part);
        let header = encode(r#"{"alg":"RS256"}"#);
        format!("{header}.{}.{}", encode(&claims.to_string()), encode("signature")).into()
    }

    fn good() -> Value {
        json!({
            "iss": "https://id.example.com", "aud": "app", "exp": 1_800_000_060, "nonce": "n1", "sub": "42",
            "email": "ada@example.com", "preferred_username": "ada", "upn": "ada@corp.example.com", "name": "Ada"
        })
    }

    fn read_with(member: &str, value: Value) -> Result<Option<Identity>, String> {
        let mut claims = good();
        claims[member] = value;
        let nonce = "n1".into();
        let expected = Expected {
            issuer: Some("https://id.example.com"),
            client_id: "app",
            nonce: Some(&nonce),
        };
        read(&token(&claims), &expected, NOW).map_err(|error| error.code)
    }

    #[test]
    fn an_owner_is_told_by_the_claims_that_mail_knows() {
        // A subject as Microsoft makes them.
        let subject = "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ";
        let identity = read_with("sub", json!(subject)).unwrap().unwrap();
        assert_eq!(identity.subject, subject);
        let addresses: Vec<_> = identity.addresses().collect();
        assert_eq!(addresses, ["ada@example.com", "ada@corp.example.com"]);
    }

    #[test]
    fn a_token_of_another_app_or_consent_refuses_and_a_doubtful_one_tells_nothing() {
        let cases = [
            ("aud", json!(["other", "app"]), Ok(true)),
            ("aud", json!("other"), Err(())),
            ("aud", json!(["other"]), Err(())),
            ("aud", Value::Null, Err(())),
            ("nonce", json!("n2"), Err(())),
            ("nonce", Value::Null, Err(())),
            ("iss", json!("https://evil.example"), Ok(false)),
            ("exp", json!(1_799_999_701), Ok(true)),
            ("exp", json!(1_799_999_700), Ok(false)),
            ("exp", json!("soon"), Ok(false)),
            ("sub", json!(42), Ok(false)),
            ("sub", json!("x".repeat(257)), Ok(false)),
        ];
        for (member, value, expected) in cases {
            let read = read_with(member, value.clone());
            let told = read.map(|identity| identity.is_some());
            assert_eq!(
                told,
                expected.map_err(|()| "bad_id_token".to_owned()),
                "{member}: {value}"
            );
        }
    }

    #[test]
    fn a_claim_is_taken_only_as_one_line_of_text() {
        for value in [
            json!(7),
            json!(["a@b"]),
            json!("a@b\r\nc"),
            json!("a@b\u{202e}"),
            json!(""),
        ] {
            let identity = read_with("email", value.clone()).unwrap().unwrap();
            assert_eq!(identity.email, None, "{value}");
        }
    }

    #[test]
    fn without_an_issuer_or_a_nonce_neither_is_asked_for() {
        let expected = Expected {
            issuer: None,
            client_id: "app",
            nonce: None,
        };
        let mut claims = good();
        claims["iss"] = json!("https://login.microsoftonline.com/f3b7/v2.0");
        claims["nonce"] = Value::Null;
        assert!(read(&token(&claims), &expected, NOW).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,80}", payload: Vec<u8>) {
            let expected = Expected { issuer: None, client_id: "app", nonce: None };
            let made = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload));
            for token in [text, made] {
                // An audience is missing in all of them, so that none may tell who somebody is.
                prop_assert!(!matches!(read(&token.into(), &expected, NOW), Ok(Some(_))));
            }
        }
    }
}
