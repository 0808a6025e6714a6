//! What the proxy says to an upstream in each mechanism: initial responses, ready for a base64 line.
//!
//! Only encoding lives here; which mechanism is used, and how its line is framed, is the protocol's business. A value that
//! would change the meaning of a message is refused, never cleaned: a login under a mangled name helps nobody.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::proto::Mechanism;
use crate::proto::session::UpstreamReady;
use crate::secret::{ExposeSecret, SecretString};

/// A mechanism's message in base64, wiped when dropped.
pub type EncodedResponse = Zeroizing<String>;

/// A value that cannot be put into a message. Says which one, never what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// The login name is empty or holds a control character.
    #[error("the upstream login name is empty or holds a control character")]
    User,
    /// The password is empty or holds a character that the mechanism or command cannot carry.
    #[error("the upstream password is empty or holds a character that cannot be sent")]
    Password,
    /// The OAuth token is empty or holds a character outside RFC 6749's `VSCHAR`.
    #[error("the OAuth access token is empty or not printable ASCII")]
    Token,
    /// The host name is empty or holds a control character.
    #[error("the upstream host name is empty or holds a control character")]
    Host,
}

/// What `mechanism` says in one message for the credential of `ready`.
///
/// # Errors
/// As the mechanism's own function. LOGIN, which has two messages, says what PLAIN says.
pub fn message(mechanism: Mechanism, ready: &UpstreamReady) -> Result<EncodedResponse, Unsendable> {
    let user = &ready.credential.user;
    let secret = ready.credential.secret.exposable();
    match mechanism {
        Mechanism::XOAuth2 => xoauth2(user, secret),
        Mechanism::OAuthBearer => oauthbearer(user, &ready.host, ready.port, secret),
        Mechanism::Plain | Mechanism::Login => plain(user, secret),
    }
}

/// PLAIN (RFC 4616 §2), without an authorization identity.
///
/// # Errors
/// [`Unsendable::User`], and [`Unsendable::Password`] where it is empty or holds NUL, which separates the fields.
pub fn plain(user: &str, password: &SecretString) -> Result<EncodedResponse, Unsendable> {
    let password = password.expose_secret();
    check_user(user)?;
    if password.is_empty() || password.contains('\0') {
        return Err(Unsendable::Password);
    }
    Ok(encode(&["\0", user, "\0", password]))
}

/// LOGIN (draft-murchison-sasl-login): the answers to its two prompts.
///
/// # Errors
/// As [`plain`], so that what can be logged in with does not depend on the mechanism.
pub fn login(user: &str, password: &SecretString) -> Result<[EncodedResponse; 2], Unsendable> {
    plain(user, password)?;
    Ok([encode(&[user]), encode(&[password.expose_secret()])])
}

/// XOAUTH2, as Google specifies it and others follow.
///
/// # Errors
/// [`Unsendable::User`] or [`Unsendable::Token`].
pub fn xoauth2(user: &str, token: &SecretString) -> Result<EncodedResponse, Unsendable> {
    check_user(user)?;
    let token = checked_token(token)?;
    Ok(encode(&["user=", user, "\x01auth=Bearer ", token, "\x01\x01"]))
}

/// OAUTHBEARER (RFC 7628 §3.1): a GS2 header that names the user, then host, port and token.
///
/// # Errors
/// [`Unsendable::User`], [`Unsendable::Host`] or [`Unsendable::Token`].
pub fn oauthbearer(user: &str, host: &str, port: u16, token: &SecretString) -> Result<EncodedResponse, Unsendable> {
    check_user(user)?;
    if host.is_empty() || host.contains(char::is_control) {
        return Err(Unsendable::Host);
    }
    let token = checked_token(token)?;
    // A `saslname` escapes what ends it in the GS2 header (RFC 5801 §4).
    let name = user.replace('=', "=3D").replace(',', "=2C");
    let port = port.to_string();
    Ok(encode(&[
        "n,a=",
        &name,
        ",\x01host=",
        host,
        "\x01port=",
        &port,
        "\x01auth=Bearer ",
        token,
        "\x01\x01",
    ]))
}

/// What answers a challenge behind the whole credential, in base64; `None` for a login without SASL.
///
/// For a refused OAUTHBEARER that is `\x01` (RFC 7628 §3.2.3), for a refused XOAUTH2 an empty line. A login that knows no such
/// challenge is cancelled (RFC 9051 §6.2.2, RFC 4954 §4, RFC 5034 §4).
pub fn challenge_answer(mechanism: Option<Mechanism>) -> &'static str {
    match mechanism {
        Some(Mechanism::OAuthBearer) => "AQ==",
        Some(Mechanism::XOAuth2) => "",
        Some(Mechanism::Plain | Mechanism::Login) | None => "*",
    }
}

fn check_user(user: &str) -> Result<(), Unsendable> {
    if user.is_empty() || user.contains(char::is_control) {
        return Err(Unsendable::User);
    }
    Ok(())
}

/// RFC 6749 appendix A.12: an access token is one or more `VSCHAR`.
fn checked_token(token: &SecretString) -> Result<&str, Unsendable> {
    let token = token.expose_secret();
    if token.is_empty() || !token.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(Unsendable::Token);
    }
    Ok(token)
}

/// Joins and encodes. The joined message has its final capacity from the start, so that growing leaves no copy behind.
fn encode(parts: &[&str]) -> EncodedResponse {
    let mut message = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        message.push_str(part);
    }
    Zeroizing::new(STANDARD.encode(message.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(response: &EncodedResponse) -> String {
        String::from_utf8(STANDARD.decode(response.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn oauthbearer_is_the_example_of_rfc_7628() {
        let token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==".to_owned().into();
        let response = oauthbearer("user@example.com", "server.example.com", 143, &token).unwrap();
        assert_eq!(
            response.as_str(),
            "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRj\
             Mk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
        );
    }

    #[test]
    fn xoauth2_is_the_example_of_google() {
        let token = "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg".to_owned().into();
        let response = xoauth2("someuser@example.com", &token).unwrap();
        assert_eq!(
            response.as_str(),
            "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZ\
             Mjl0Q2cBAQ=="
        );
    }

    #[test]
    fn plain_is_the_example_of_rfc_4616() {
        assert_eq!(
            decoded(&plain("tim", &"tanstaaftanstaaf".to_owned().into()).unwrap()),
            "\0tim\0tanstaaftanstaaf"
        );
    }

    #[test]
    fn login_answers_two_prompts_and_refuses_what_plain_refuses() {
        let [user, password] = login("tim", &"tanstaaftanstaaf".to_owned().into()).unwrap();
        assert_eq!(
            (decoded(&user).as_str(), decoded(&password).as_str()),
            ("tim", "tanstaaftanstaaf")
        );
        assert_eq!(login("", &"x".to_owned().into()).unwrap_err(), Unsendable::User);
        assert_eq!(
            login("tim", &"x\0".to_owned().into()).unwrap_err(),
            Unsendable::Password
        );
    }

    #[test]
    fn a_saslname_escapes_comma_and_equals_sign() {
        let response = oauthbearer("a,b=c", "h", 1, &"t".to_owned().into()).unwrap();
        assert!(decoded(&response).starts_with("n,a=a=2Cb=3Dc,\x01host=h"));
    }

    #[test]
    fn values_that_would_change_the_message_are_refused() {
        let good: SecretString = "token".to_owned().into();
        for user in ["", "a\x01auth=Bearer x", "a\0b", "a\rb", "a\nb", "a\u{85}b"] {
            assert_eq!(plain(user, &good).unwrap_err(), Unsendable::User);
            assert_eq!(xoauth2(user, &good).unwrap_err(), Unsendable::User);
            assert_eq!(oauthbearer(user, "h", 1, &good).unwrap_err(), Unsendable::User);
        }
        for token in ["", "a\x01b", "a\0", "a\r\n", "ü"] {
            let token = token.to_owned().into();
            assert_eq!(xoauth2("u", &token).unwrap_err(), Unsendable::Token);
            assert_eq!(oauthbearer("u", "h", 1, &token).unwrap_err(), Unsendable::Token);
        }
        assert_eq!(oauthbearer("u", "h\x01", 1, &good).unwrap_err(), Unsendable::Host);
        for password in ["", "a\0b"] {
            assert_eq!(
                plain("u", &password.to_owned().into()).unwrap_err(),
                Unsendable::Password
            );
        }
    }

    proptest! {
        #[test]
        fn no_field_of_oauthbearer_can_reach_into_another(user in "\\PC{1,40}", token in "[ -~]{1,60}") {
            let response = oauthbearer(&user, "imap.example.com", 993, &token.clone().into()).unwrap();
            let message = decoded(&response);
            let fields: Vec<&str> = message.split('\x01').collect();
            prop_assert_eq!(fields.len(), 6);
            prop_assert_eq!(fields[0].matches(',').count(), 2);
            let name = fields[0].strip_prefix("n,a=").unwrap().strip_suffix(',').unwrap();
            prop_assert_eq!(name.replace("=2C", ",").replace("=3D", "="), user);
            prop_assert_eq!(fields[3], format!("auth=Bearer {token}"));
        }
    }
}
