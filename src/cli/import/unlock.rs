//! Opens what email-oauth2-proxy sealed: Fernet tokens, whose key PBKDF2-HMAC-SHA256 makes of the password that the account's
//! mail program used.
//!
//! Work and sizes are bounded, because the file says how much of both there is. A key that does not fit and a token that was
//! tampered with cannot be told apart, and need not be.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use fernet::Fernet;
use zeroize::{Zeroize as _, Zeroizing};

use super::format::SealedGrant;
use crate::limits::{CREDENTIAL_BYTES_MAX, IMPORT_ITERATIONS_MAX, IMPORT_SALT_BYTES_MAX, IMPORT_SEALED_BYTES_MAX};
use crate::secret::{ExposeSecret as _, SecretString};

/// Why a grant cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnlockError {
    /// The password is another, or the token was damaged.
    #[error("the password does not open its refresh token")]
    WrongPassword,
    /// The file wants more work than any real one.
    #[error("its token_iterations are not between 1 and {IMPORT_ITERATIONS_MAX}")]
    Iterations,
    /// The salt is no base64, or far too long.
    #[error("its token_salt cannot be read, so that no password opens its refresh token")]
    Salt,
    /// What is sealed is longer than any real refresh token.
    #[error("its refresh token is longer than {CREDENTIAL_BYTES_MAX} bytes")]
    TooLong,
    /// What was sealed is no refresh token (RFC 6749, appendix A.17).
    #[error("its refresh token is not printable ASCII")]
    NotAToken,
}

/// The refresh token behind a seal. Takes as long as the file wants, up to some seconds.
///
/// # Errors
/// See [`UnlockError`].
pub(super) fn unlock(grant: &SealedGrant, password: &SecretString) -> Result<SecretString, UnlockError> {
    if grant.token.len() > IMPORT_SEALED_BYTES_MAX {
        return Err(UnlockError::TooLong);
    }
    if !(1..=IMPORT_ITERATIONS_MAX).contains(&grant.iterations) {
        return Err(UnlockError::Iterations);
    }
    let salt = BASE64_STANDARD.decode(&grant.salt).map_err(|_| UnlockError::Salt)?;
    if salt.is_empty() || salt.len() > IMPORT_SALT_BYTES_MAX {
        return Err(UnlockError::Salt);
    }
    let mut tried = Vec::new();
    // What the file states nearly always fits. emailproxy itself tries the other two besides, since its versions differ.
    for iterations in [grant.iterations, ITERATIONS, LEGACY_ITERATIONS] {
        if tried.contains(&iterations) {
            continue;
        }
        tried.push(iterations);
        if let Ok(opened) = key(password, &salt, iterations)?.decrypt(&grant.token) {
            return refresh_token(opened);
        }
    }
    Err(UnlockError::WrongPassword)
}

fn key(password: &SecretString, salt: &[u8], iterations: u32) -> Result<Fernet, UnlockError> {
    let mut key = Zeroizing::new([0; FERNET_KEY_BYTES]);
    let password = password.expose_secret().as_bytes();
    let iterations = NonZeroU32::new(iterations).ok_or(UnlockError::Iterations)?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, key.as_mut());
    let encoded = Zeroizing::new(BASE64_URL_SAFE.encode(key.as_ref()));
    // It cannot fail: the key has Fernet's length.
    Fernet::new(&encoded).ok_or(UnlockError::WrongPassword)
}

fn refresh_token(opened: Vec<u8>) -> Result<SecretString, UnlockError> {
    let mut text = String::from_utf8(opened).map_err(|error| {
        error.into_bytes().zeroize();
        UnlockError::NotAToken
    })?;
    let refusal = if text.len() > CREDENTIAL_BYTES_MAX {
        UnlockError::TooLong
    } else if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        UnlockError::NotAToken
    } else {
        return Ok(text.into());
    };
    text.zeroize();
    Err(refusal)
}

/// The rounds by which emailproxy seals since January 2025.
const ITERATIONS: u32 = 1_200_000;

/// The rounds of files that state none: those of emailproxy before October 2023.
pub(super) const LEGACY_ITERATIONS: u32 = 100_000;

/// Two keys of AES-128's length: to sign, and to encrypt.
const FERNET_KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::format;

    #[test]
    fn what_emailproxy_sealed_is_opened_by_the_password_it_had() {
        for (name, password, token) in [
            ("alice@example.com", "alice-password", "refresh-token-of-alice"),
            // Old versions stated no rounds.
            (
                "bob@gmail.com",
                "Größe 100%; # not a comment",
                "1//refresh-token-of-bob",
            ),
            ("carol@catch-all.example", "carol-password", "refresh-token-of-carol"),
        ] {
            let opened = unlock(&written(name), &password.into()).unwrap();
            assert_eq!(opened.expose_secret(), token);
        }
    }

    #[test]
    fn rounds_that_were_not_stated_are_tried_besides() {
        // As after a hand-edited file: emailproxy opens it all the same.
        let grant = SealedGrant {
            iterations: 1,
            ..written("bob@gmail.com")
        };
        assert!(unlock(&grant, &"Größe 100%; # not a comment".into()).is_ok());
    }

    #[test]
    fn another_password_and_a_damaged_token_open_nothing() {
        let grant = written("bob@gmail.com");
        assert_eq!(failure(&grant), UnlockError::WrongPassword);
        let flipped: String = grant.token.chars().rev().collect();
        let cut = grant
            .token
            .strip_suffix("=")
            .unwrap_or(&grant.token)
            .replacen('A', "B", 3);
        for token in ["", "gAAAAA", "not base64 ☃", &flipped, &cut] {
            let damaged = SealedGrant {
                token: token.to_owned(),
                iterations: 1,
                ..grant.clone()
            };
            let opened = unlock(&damaged, &"Größe 100%; # not a comment".into());
            assert_eq!(opened.unwrap_err(), UnlockError::WrongPassword, "{token}");
        }
    }

    #[test]
    fn a_file_cannot_ask_for_endless_work() {
        let grant = written("bob@gmail.com");
        for iterations in [0, IMPORT_ITERATIONS_MAX + 1, u32::MAX] {
            assert_eq!(
                failure(&SealedGrant {
                    iterations,
                    ..grant.clone()
                }),
                UnlockError::Iterations
            );
        }
        for salt in ["", "?", &BASE64_STANDARD.encode([0; IMPORT_SALT_BYTES_MAX + 1])] {
            let salt = salt.to_owned();
            assert_eq!(failure(&SealedGrant { salt, ..grant.clone() }), UnlockError::Salt);
        }
        let token = "A".repeat(IMPORT_SEALED_BYTES_MAX + 1);
        assert_eq!(failure(&SealedGrant { token, ..grant }), UnlockError::TooLong);
    }

    #[test]
    fn what_is_sealed_must_be_a_refresh_token_that_the_daemon_takes() {
        let longest = "x".repeat(CREDENTIAL_BYTES_MAX);
        assert!(sealed(longest.as_bytes()).token.len() <= IMPORT_SEALED_BYTES_MAX);
        for (content, outcome) in [
            (longest.as_bytes(), None),
            (b"" as &[u8], Some(UnlockError::NotAToken)),
            (b"a\r\nb", Some(UnlockError::NotAToken)),
            (b"\xff\xfe", Some(UnlockError::NotAToken)),
            (
                "x".repeat(CREDENTIAL_BYTES_MAX + 1).as_bytes(),
                Some(UnlockError::TooLong),
            ),
        ] {
            assert_eq!(unlock(&sealed(content), &"password".into()).err(), outcome);
        }
    }

    fn failure(grant: &SealedGrant) -> UnlockError {
        unlock(grant, &"wrong".into()).unwrap_err()
    }

    fn sealed(content: &[u8]) -> SealedGrant {
        SealedGrant {
            token: key(&"password".into(), b"salt", 1).unwrap().encrypt(content),
            salt: BASE64_STANDARD.encode("salt"),
            iterations: 1,
        }
    }

    fn written(name: &str) -> SealedGrant {
        let text = include_str!("../../../tests/fixtures/emailproxy/emailproxy.config");
        let accounts = format::read(text, None).unwrap().accounts;
        let account = accounts.into_iter().find(|account| account.name == name).unwrap();
        account.settings.unwrap().grant.unwrap()
    }
}
