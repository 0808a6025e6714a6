//! The exchange with a mail program: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login-00), OAUTHBEARER (RFC 7628) and
//! XOAUTH2 (Google's).
//!
//! ```text
//! begin ──initial response──────────────────────────────┐
//!   └──none──> Ask ──respond──> (LOGIN: Ask ──respond──>) Login | Unfit | Malformed | Cancelled
//! ```
//! An exchange is consumed by each response, so that it can neither be answered twice nor go on behind its end.

use memchr::{memchr, memchr_iter};
use zeroize::Zeroizing;

use super::{UnfitCredentials, decode, login_request};
use crate::fault::{Fault, FaultKind};
use crate::proto::Mechanism;
use crate::proto::session::LoginRequest;

/// An exchange that waits for the client's next response.
pub struct Exchange(Awaiting);

/// What an exchange has come to.
pub enum Outcome {
    /// Send the challenge, which is in base64 already, and hand the client's line to the exchange.
    Ask(&'static str, Exchange),
    /// The credentials are complete.
    Login(LoginRequest),
    /// The credentials are complete, and refused without a check.
    Unfit(UnfitCredentials),
    /// The response is none of the mechanism's. The reason is for the client.
    Malformed(&'static str),
    /// The client cancelled.
    Cancelled,
}

enum Awaiting {
    PlainMessage,
    LoginUser,
    LoginPassword { user: Zeroizing<Vec<u8>> },
    OAuthBearerMessage,
    XOAuth2Message,
}

impl Exchange {
    /// Begins an exchange. `initial` is the initial response in base64 where the client gave one; `=` stands for an empty one
    /// (RFC 4959 §3, RFC 4954 §4, RFC 5034 §4).
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Outcome {
        let (challenge, exchange) = match mechanism {
            Mechanism::Plain => (EMPTY, Self(Awaiting::PlainMessage)),
            Mechanism::Login => (USERNAME, Self(Awaiting::LoginUser)),
            Mechanism::OAuthBearer => (EMPTY, Self(Awaiting::OAuthBearerMessage)),
            Mechanism::XOAuth2 => (EMPTY, Self(Awaiting::XOAuth2Message)),
        };
        match (initial, mechanism) {
            (None, _) | (Some(b"="), Mechanism::Login) => Outcome::Ask(challenge, exchange),
            (Some(b"="), _) => exchange.respond(b""),
            (Some(response), _) => exchange.respond(response),
        }
    }

    /// Takes the client's response in base64, or `*`.
    pub fn respond(self, response: &[u8]) -> Outcome {
        if response == b"*" {
            return Outcome::Cancelled;
        }
        let Some(message) = decode(response) else {
            return Outcome::Malformed("The response is not base64");
        };
        match self.0 {
            Awaiting::PlainMessage => plain(&message),
            Awaiting::LoginUser => Outcome::Ask(PASSWORD, Self(Awaiting::LoginPassword { user: message })),
            Awaiting::LoginPassword { user } => request(Some(&user), &message, Mechanism::Login),
            Awaiting::OAuthBearerMessage => oauth_bearer(&message),
            Awaiting::XOAuth2Message => xoauth2(&message),
        }
    }
}

/// The challenge, in base64, that a refusal for `kind` begins with, and that the client answers with any line before it gets
/// the failure itself. `None` for mechanisms that fail at once, and for temporary trouble, which is told at once, so that no
/// client takes it for a bad token.
pub fn refusal_challenge(mechanism: Mechanism, kind: &FaultKind) -> Option<&'static str> {
    match mechanism {
        _ if kind.is_temporary() => None,
        Mechanism::Plain | Mechanism::Login => None,
        // {"status":"invalid_token"}  (RFC 7628 §3.2.2)
        Mechanism::OAuthBearer => Some("eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0="),
        // {"status":"400","schemes":"Bearer","scope":"mail"}
        Mechanism::XOAuth2 => Some("eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJtYWlsIn0="),
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(message: &[u8]) -> Outcome {
    let mut parts = message.splitn(3, |&byte| byte == 0);
    let (Some(authorization), Some(user), Some(secret)) = (parts.next(), parts.next(), parts.next()) else {
        return Outcome::Malformed("The response is not one of PLAIN");
    };
    if memchr(0, secret).is_some() {
        return Outcome::Malformed("The response is not one of PLAIN");
    }
    match request(Some(user), secret, Mechanism::Plain) {
        Outcome::Login(given) if !authorization.is_empty() && authorization != user => {
            Outcome::Unfit(UnfitCredentials {
                user: given.user,
                fault: Box::new(Fault::with_detail(
                    FaultKind::UnknownCredentials,
                    "the authorization identity differs from the authentication identity",
                )),
            })
        }
        outcome => outcome,
    }
}

/// `n,a=<user>,\x01host=…\x01port=…\x01auth=Bearer <token>\x01\x01` (RFC 7628 §3.1; the header is RFC 5801's).
fn oauth_bearer(message: &[u8]) -> Outcome {
    const MALFORMED: Outcome = Outcome::Malformed("The response is not one of OAUTHBEARER");
    let Some(header_end) = memchr(1, message) else {
        return MALFORMED;
    };
    let (header, pairs) = message.split_at(header_end);
    let mut fields = header.split(|&byte| byte == b',');
    // Channel binding ("p=") is not offered; "y" and "n" say that the client will do without.
    let (Some(b"n" | b"y"), Some(identity), Some(b""), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return MALFORMED;
    };
    let user = match identity.strip_prefix(b"a=") {
        Some(name) => match unescape_saslname(name) {
            Some(name) => Some(name),
            None => return MALFORMED,
        },
        None if identity.is_empty() => None,
        None => return MALFORMED,
    };
    match bearer(pairs) {
        Some(token) => request(user.as_deref(), token, Mechanism::OAuthBearer),
        None => MALFORMED,
    }
}

/// `user=<user>\x01auth=Bearer <token>\x01\x01`; keys that some providers add are passed over.
fn xoauth2(message: &[u8]) -> Outcome {
    let user = message
        .split(|&byte| byte == 1)
        .find_map(|pair| pair.strip_prefix(b"user="));
    match (user, bearer(message)) {
        (Some(user), Some(token)) => request(Some(user), token, Mechanism::XOAuth2),
        _ => Outcome::Malformed("The response is not one of XOAUTH2"),
    }
}

/// The token of the pair `auth=Bearer <token>`; the scheme's name knows no case (RFC 9110 §11.1).
fn bearer(pairs: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let value = pairs
        .split(|&byte| byte == 1)
        .find_map(|pair| pair.strip_prefix(b"auth="))?;
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

/// Undoes `=2C` and `=3D`, the only escapes of a saslname (RFC 5801 §4).
fn unescape_saslname(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    for at in memchr_iter(b'=', name) {
        // Where the escape stands in what is left.
        let at = at - (name.len() - rest.len());
        let (before, escape) = rest.split_at_checked(at)?;
        plain.extend_from_slice(before);
        let (escape, after) = escape.split_at_checked(ESCAPE_BYTES)?;
        plain.push(match escape {
            b"=2C" => b',',
            b"=3D" => b'=',
            _ => return None,
        });
        rest = after;
    }
    plain.extend_from_slice(rest);
    (!plain.is_empty()).then_some(plain)
}

fn request(user: Option<&[u8]>, secret: &[u8], mechanism: Mechanism) -> Outcome {
    match login_request(user, secret, Some(mechanism)) {
        Ok(request) => Outcome::Login(request),
        Err(unfit) => Outcome::Unfit(unfit),
    }
}

const ESCAPE_BYTES: usize = 3;
const EMPTY: &str = "";
/// `Username:`
const USERNAME: &str = "VXNlcm5hbWU6";
/// `Password:`
const PASSWORD: &str = "UGFzc3dvcmQ6";

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;
    use crate::secret::ExposeSecret;

    /// An outcome in a notation that tests can be written in.
    fn shown(outcome: Outcome) -> String {
        match outcome {
            Outcome::Ask(challenge, _) => format!("ask {challenge}"),
            Outcome::Login(request) => {
                format!(
                    "login {} {}",
                    request.user.as_deref().unwrap_or("-"),
                    request.secret.expose_secret()
                )
            }
            Outcome::Unfit(unfit) => format!("unfit {}", unfit.user.as_deref().unwrap_or("-")),
            Outcome::Malformed(_) => "malformed".to_owned(),
            Outcome::Cancelled => "cancelled".to_owned(),
        }
    }

    /// What a message comes to, both as initial response and after an empty challenge.
    fn outcome_of(mechanism: Mechanism, message: &[u8]) -> String {
        let encoded = BASE64_STANDARD.encode(message);
        let initial = if encoded.is_empty() { "=" } else { &encoded };
        let at_once = shown(Exchange::begin(mechanism, Some(initial.as_bytes())));
        let Outcome::Ask("", exchange) = Exchange::begin(mechanism, None) else {
            panic!("{mechanism:?} begins with an empty challenge")
        };
        assert_eq!(shown(exchange.respond(encoded.as_bytes())), at_once);
        at_once
    }

    #[test]
    fn plain_takes_its_three_parts() {
        for (message, expected) in [
            ("\0joe\0secret", "login joe secret"),
            ("joe\0joe\0secret", "login joe secret"),
            ("root\0joe\0secret", "unfit joe"),
            ("\0joe\0", "login joe "),
            ("\0\0secret", "unfit -"),
            ("\0joe", "malformed"),
            ("joe", "malformed"),
            ("", "malformed"),
            ("\0joe\0sec\0ret", "malformed"),
            ("\0joe\r\nA\0secret", "unfit -"),
            ("\0joe\x01\0secret", "unfit -"),
            ("\0jürgen\0secret", "login jürgen secret"),
        ] {
            assert_eq!(
                outcome_of(Mechanism::Plain, message.as_bytes()),
                expected,
                "{message:?}"
            );
        }
    }

    #[test]
    fn oauthbearer_takes_its_header_and_its_bearer() {
        for (message, expected) in [
            (
                "n,a=joe@example.com,\x01host=h\x01port=993\x01auth=Bearer tok\x01\x01",
                "login joe@example.com tok",
            ),
            ("n,a=joe,\x01auth=bearer tok\x01\x01", "login joe tok"),
            ("y,a=joe,\x01auth=Bearer tok\x01\x01", "login joe tok"),
            ("n,,\x01auth=Bearer tok\x01\x01", "login - tok"),
            ("n,a=a=2Cb=3Dc,\x01auth=Bearer tok\x01\x01", "login a,b=c tok"),
            ("n,a=a=2cb,\x01auth=Bearer tok\x01\x01", "malformed"),
            ("n,a=a=,\x01auth=Bearer tok\x01\x01", "malformed"),
            ("n,a=,\x01auth=Bearer tok\x01\x01", "malformed"),
            ("n,b=joe,\x01auth=Bearer tok\x01\x01", "malformed"),
            ("p=tls-unique,a=joe,\x01auth=Bearer tok\x01\x01", "malformed"),
            ("n,a=joe\x01auth=Bearer tok\x01\x01", "malformed"),
            ("n,a=joe,\x01auth=Basic tok\x01\x01", "malformed"),
            ("n,a=joe,\x01auth=Bear", "malformed"),
            ("n,a=joe,\x01\x01", "malformed"),
            ("\x01", "malformed"),
            ("", "malformed"),
            ("n,a=joe\r\n,\x01auth=Bearer tok\x01\x01", "unfit -"),
        ] {
            assert_eq!(
                outcome_of(Mechanism::OAuthBearer, message.as_bytes()),
                expected,
                "{message:?}"
            );
        }
    }

    #[test]
    fn xoauth2_takes_its_user_and_its_bearer() {
        for (message, expected) in [
            (
                "user=joe@example.com\x01auth=Bearer tok\x01\x01",
                "login joe@example.com tok",
            ),
            ("user=joe\x01auth=BEARER tok\x01vendor=v\x01\x01", "login joe tok"),
            ("user=\x01auth=Bearer tok\x01\x01", "unfit -"),
            ("auth=Bearer tok\x01\x01", "malformed"),
            ("user=joe\x01\x01", "malformed"),
            ("user=joe\nA\x01auth=Bearer tok\x01\x01", "unfit -"),
            ("", "malformed"),
        ] {
            assert_eq!(
                outcome_of(Mechanism::XOAuth2, message.as_bytes()),
                expected,
                "{message:?}"
            );
        }
    }

    #[test]
    fn login_asks_for_name_and_password() {
        for initial in [None, Some(&b"="[..])] {
            let Outcome::Ask("VXNlcm5hbWU6", exchange) = Exchange::begin(Mechanism::Login, initial) else {
                panic!("LOGIN asks for the name")
            };
            let Outcome::Ask("UGFzc3dvcmQ6", exchange) = exchange.respond(b"am9l") else {
                panic!("LOGIN asks for the password")
            };
            assert_eq!(shown(exchange.respond(b"c2VjcmV0")), "login joe secret");
        }
        let Outcome::Ask("UGFzc3dvcmQ6", exchange) = Exchange::begin(Mechanism::Login, Some(b"am9l")) else {
            panic!("LOGIN takes the name as initial response")
        };
        assert_eq!(shown(exchange.respond(b"c2VjcmV0")), "login joe secret");
    }

    #[test]
    fn a_star_cancels_and_what_is_not_base64_is_malformed() {
        for mechanism in Mechanism::ALL {
            for (response, expected) in [(&b"*"[..], "cancelled"), (b"**", "malformed"), (b"a b", "malformed")] {
                let Outcome::Ask(_, exchange) = Exchange::begin(mechanism, None) else {
                    panic!("{mechanism:?} asks")
                };
                assert_eq!(shown(exchange.respond(response)), expected);
            }
        }
    }

    #[test]
    fn refusals_begin_with_the_challenge_that_clients_expect() {
        let decoded = |mechanism| {
            refusal_challenge(mechanism, &FaultKind::TokenExpired)
                .map(|text| String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap())
        };
        assert_eq!(
            decoded(Mechanism::OAuthBearer).as_deref(),
            Some(r#"{"status":"invalid_token"}"#)
        );
        assert_eq!(
            decoded(Mechanism::XOAuth2).as_deref(),
            Some(r#"{"status":"400","schemes":"Bearer","scope":"mail"}"#)
        );
        assert_eq!((decoded(Mechanism::Plain), decoded(Mechanism::Login)), (None, None));
    }

    #[test]
    fn temporary_trouble_is_told_at_once() {
        for mechanism in Mechanism::ALL {
            assert_eq!(refusal_challenge(mechanism, &FaultKind::Unavailable), None);
        }
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/sasl_client.txt"))]

        #[test]
        fn escaped_names_come_back(name in "[^\\pC]{1,40}", token in "[0-9a-f]{64}") {
            let escaped = name.replace('=', "=3D").replace(',', "=2C");
            let message = format!("n,a={escaped},\x01auth=Bearer {token}\x01\x01");
            prop_assert_eq!(outcome_of(Mechanism::OAuthBearer, message.as_bytes()), format!("login {name} {token}"));
        }

        #[test]
        fn no_name_that_is_let_through_can_break_out_of_a_line(
            name in "[a-c\\x00-\\x20\\x7f-\\u{a0}]{0,6}",
            mechanism in prop::sample::select(vec![Mechanism::Plain, Mechanism::OAuthBearer, Mechanism::XOAuth2]),
        ) {
            let message = match mechanism {
                Mechanism::Plain => format!("\0{name}\0tok"),
                Mechanism::OAuthBearer => format!("n,a={name},\x01auth=Bearer tok\x01\x01"),
                _ => format!("user={name}\x01auth=Bearer tok\x01\x01"),
            };
            let encoded = BASE64_STANDARD.encode(message);
            if let Outcome::Login(request) = Exchange::begin(mechanism, Some(encoded.as_bytes())) {
                prop_assert!(!request.user.unwrap().contains(char::is_control));
            }
        }

        #[test]
        fn any_message_has_an_outcome(message in prop::collection::vec(any::<u8>(), 0..200)) {
            for mechanism in [Mechanism::Plain, Mechanism::OAuthBearer, Mechanism::XOAuth2] {
                outcome_of(mechanism, &message);
            }
        }
    }
}
