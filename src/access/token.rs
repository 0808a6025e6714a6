//! An access token itself: made here, shown once, then only ever hashed.

use rand::TryRngCore;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::short;
use crate::limits::{ACCESS_TOKEN_BYTES, SHORT_TOKEN_DIGITS};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{TokenForm, TokenId, decode_hex};

/// An access token: 32 random bytes as 64 lower-case hex digits, or 20 random digits of base32 (`short`). Debug output
/// does not show it.
#[derive(Debug)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// A new token and its id.
    ///
    /// # Panics
    /// If the operating system has no random bytes: there is no safe way to go on then.
    pub fn mint(form: TokenForm) -> (Self, TokenId) {
        let token = Self(match form {
            TokenForm::Hex => {
                // A TokenId has the same form as a token, and so the same digits.
                let mut raw = TokenId(*random::<ACCESS_TOKEN_BYTES>());
                let digits = raw.to_string();
                raw.0.zeroize();
                digits.into()
            }
            TokenForm::Short => short::of_bytes(&random::<SHORT_TOKEN_DIGITS>()),
        });
        let id = token.id();
        (token, id)
    }

    /// `text` as a token, if it has the form of one: of a short one in any of the ways in which its digits may be written.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(mut bytes) = decode_hex(text) {
            bytes.zeroize();
            return Some(Self(text.into()));
        }
        short::read(text).map(Self)
    }

    /// Its id, the SHA-256 of its digits as it was shown: what `printf %s TOKEN | sha256sum` prints.
    pub fn id(&self) -> TokenId {
        id_of(self.0.expose_secret())
    }

    /// The digits, to be shown to whoever had the token made.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The id that `text` would have as a token.
pub(super) fn id_of(text: &str) -> TokenId {
    TokenId(Sha256::digest(text.as_bytes()).into())
}

fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    rand::rngs::OsRng
        .try_fill_bytes(bytes.as_mut_slice())
        .expect("the operating system has random bytes once it has started");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_sha_256_of_the_digits() {
        for (text, id) in [
            (
                "0".repeat(64),
                "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55",
            ),
            (
                "0".repeat(20),
                "a7d351f3de399c746064a53c69959ab10312a003ec63985bcd86fb6dc1c402d5",
            ),
        ] {
            assert_eq!(AccessToken::parse(&text).unwrap().id().to_string(), id);
        }
    }

    #[test]
    fn a_minted_token_has_the_form_of_one_and_is_new() {
        for (form, digits) in [(TokenForm::Hex, 64), (TokenForm::Short, 20)] {
            let (token, id) = AccessToken::mint(form);
            assert_eq!(token.reveal().len(), digits);
            let parsed = AccessToken::parse(token.reveal()).unwrap();
            assert_eq!((parsed.id(), parsed.reveal()), (id, token.reveal()));
            assert_ne!(AccessToken::mint(form).1, id);
            assert!(!format!("{token:?}").contains(token.reveal()));
        }
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
            &"a".repeat(19),
            &"a".repeat(21),
            &"u".repeat(20),
            &format!(" {}", "a".repeat(20)),
        ] {
            assert!(AccessToken::parse(text).is_none(), "{text}");
        }
    }
}
