//! An access token itself: made here, shown once, then only ever hashed.

use rand::TryRngCore;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::limits::ACCESS_TOKEN_BYTES;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{TokenId, decode_hex};

/// An access token: 32 random bytes as 64 lower-case hex digits. Debug output does not show it.
#[derive(Debug)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// A new token and its id.
    ///
    /// # Panics
    /// If the operating system has no random bytes: there is no safe way to go on then.
    pub fn mint() -> (Self, TokenId) {
        let mut bytes = Zeroizing::new([0; ACCESS_TOKEN_BYTES]);
        rand::rngs::OsRng
            .try_fill_bytes(bytes.as_mut_slice())
            .expect("the operating system has random bytes once it has started");
        // A TokenId has the same form as a token, and so the same digits.
        let mut raw = TokenId(*bytes);
        let token = Self(raw.to_string().into());
        raw.0.zeroize();
        let id = token.id();
        (token, id)
    }

    /// `text` as a token, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = decode_hex(text)?;
        bytes.zeroize();
        Some(Self(text.into()))
    }

    /// Its id, the SHA-256 of its 64 digits: what `printf %s TOKEN | sha256sum` prints.
    pub fn id(&self) -> TokenId {
        id_of(self.0.expose_secret())
    }

    /// The 64 digits, to be shown to whoever had the token made.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The id that `text` would have as a token.
pub(super) fn id_of(text: &str) -> TokenId {
    TokenId(Sha256::digest(text.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_sha_256_of_the_digits() {
        let text = "0".repeat(64);
        assert_eq!(
            AccessToken::parse(&text).unwrap().id().to_string(),
            "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55"
        );
    }

    #[test]
    fn a_minted_token_has_the_form_of_one_and_is_new() {
        let (token, id) = AccessToken::mint();
        let parsed = AccessToken::parse(token.reveal()).unwrap();
        assert_eq!(parsed.id(), id);
        assert_ne!(AccessToken::mint().1, id);
        assert!(!format!("{token:?}").contains(token.reveal()));
    }

    #[test]
    fn what_has_another_form_is_no_token() {
        let good = "a".repeat(64);
        for text in [
            "",
            "a",
            &"a".repeat(63),
            &format!("{good}a"),
            &good.to_uppercase(),
            &"g".repeat(64),
            &format!(" {}", "a".repeat(63)),
            &"é".repeat(32),
        ] {
            assert!(AccessToken::parse(text).is_none(), "{text}");
        }
    }
}
