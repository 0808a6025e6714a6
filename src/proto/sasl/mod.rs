//! SASL (RFC 4422) as every protocol here speaks it: the same messages, framed by each protocol in its own way.
//!
//! [`client`] is the exchange with a mail program, in which a generated access token stands in the password's or bearer's
//! place; [`upstream`] is the exchange with a provider. What may not live here: lines, tags and reply codes.
//!
//! How it fails: what cannot be decoded is malformed and costs its sender one command; a name that no account can have is
//! refused like an unknown one. Neither touches any other session.

pub mod client;
pub mod upstream;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::Mechanism;
use super::session::LoginRequest;
use crate::fault::{Fault, FaultKind};
use crate::limits::SASL_MESSAGE_BYTES_MAX;

/// Why credentials are refused before anybody looks them up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfitCredentials {
    /// The login name, where it can be shown.
    pub user: Option<String>,
    /// The refusal. To the client it looks as any unknown name or token does.
    pub fault: Box<Fault>,
}

/// The credentials as a request to check them. `user` is `None` where the mechanism leaves the name to the token.
///
/// # Errors
/// A name that is empty or not UTF-8, or has control characters (CR, LF, NUL and `\x01` among them): no account has such a
/// name, and none such may reach a line of a protocol (nginx CVE-2026-28753). A secret that is not UTF-8.
pub fn login_request(
    user: Option<&[u8]>,
    secret: &[u8],
    mechanism: Option<Mechanism>,
) -> Result<LoginRequest, UnfitCredentials> {
    let unfit = |user: Option<&str>, detail: &str| UnfitCredentials {
        user: user.map(str::to_owned),
        fault: Box::new(Fault::with_detail(FaultKind::UnknownCredentials, detail)),
    };
    let user = user
        .map(|name| std::str::from_utf8(name).map_err(|_| unfit(None, "the login name is not UTF-8")))
        .transpose()?;
    if user.is_some_and(|name| name.is_empty() || name.contains(char::is_control)) {
        return Err(unfit(None, "the login name is empty or has control characters"));
    }
    let secret = std::str::from_utf8(secret).map_err(|_| unfit(user, "the secret is not UTF-8"))?;
    Ok(LoginRequest {
        user: user.map(str::to_owned),
        secret: secret.to_owned().into(),
        mechanism,
    })
}

/// Decodes a message, with or without padding (RFC 4648 §3.2 leaves it to the user of base64, and clients differ).
/// `None` if it is not base64, or longer than [`SASL_MESSAGE_BYTES_MAX`].
pub fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if text.len() > SASL_MESSAGE_BYTES_MAX.div_ceil(3) * 4 {
        return None;
    }
    // The room is exact or larger from the begin: a buffer that grew would leave parts of a secret behind.
    let mut message = Zeroizing::new(Vec::with_capacity(text.len()));
    BASE64.decode_vec(text, &mut message).ok()?;
    (message.len() <= SASL_MESSAGE_BYTES_MAX).then_some(message)
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_decode_with_and_without_padding_and_nothing_else_does() {
        for (text, expected) in [
            ("", Some(&b""[..])),
            ("AGEAYg==", Some(b"\0a\0b")),
            ("AGEAYg", Some(b"\0a\0b")),
            ("AGEAYg=", Some(b"\0a\0b")),
            ("AGEAY", None),
            ("AGEA Yg==", None),
            ("AGEA\rYg==", None),
            ("=", None),
            ("*", None),
            ("_-_-", None),
            ("AGEAYh==", None),
        ] {
            assert_eq!(
                decode(text.as_bytes()).as_deref().map(Vec::as_slice),
                expected,
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_message_over_the_cap_is_not_decoded() {
        let fits = "A".repeat(SASL_MESSAGE_BYTES_MAX / 3 * 4);
        assert!(decode(fits.as_bytes()).is_some());
        assert!(decode((fits + "AAAA").as_bytes()).is_none());
    }

    #[test]
    fn names_that_no_account_can_have_are_refused() {
        for name in [
            &b""[..],
            b"a\0",
            b"a\rb",
            b"a\nb",
            b"a\x01auth=Bearer x",
            b"\x7f",
            b"\xff",
            "a\u{85}".as_bytes(),
        ] {
            let unfit = login_request(Some(name), b"secret", None).unwrap_err();
            assert_eq!(unfit.fault.kind, FaultKind::UnknownCredentials, "{name:?}");
            assert_eq!(unfit.user, None);
        }
        assert_eq!(
            login_request(Some(b"joe"), b"\xff", None).unwrap_err().user.as_deref(),
            Some("joe")
        );
        let request = login_request(Some("jürgen@bücher.example".as_bytes()), b"", None).unwrap();
        assert_eq!(request.user.as_deref(), Some("jürgen@bücher.example"));
    }
}
