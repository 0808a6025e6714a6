//! Access tokens: what a mail client uses as its password here.

use std::fmt::Write;

use rand::RngCore;
use sha2::{Digest, Sha256};

use crate::limits::ACCESS_TOKEN_BYTES;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{TokenId, decode_hex};

/// An access token: 32 random bytes, written as 64 lower-case hex digits.
#[derive(Debug)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// A new token and its id.
    pub fn mint() -> (Self, TokenId) {
        let mut bytes = [0; ACCESS_TOKEN_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        let mut text = String::with_capacity(2 * ACCESS_TOKEN_BYTES);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        let token = Self(text.into());
        let id = token.id();
        (token, id)
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        decode_hex(text).map(|_| Self(text.to_owned().into()))
    }

    /// Its id.
    pub fn id(&self) -> TokenId {
        TokenId(Sha256::digest(self.0.expose_secret()).into())
    }

    /// The 64 hex digits, to be shown this once.
    pub fn reveal(self) -> SecretString {
        self.0
    }
}

/// What an access token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in INTERFACE §4")]
pub enum Scope {
    ImapProxy,
    Smtp,
    Pop3,
    Api,
    Metrics,
    Root,
}

impl Scope {
    /// Reads a scope's name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "imap-proxy" => Self::ImapProxy,
            "smtp" => Self::Smtp,
            "pop3" => Self::Pop3,
            "api" => Self::Api,
            "metrics" => Self::Metrics,
            "*" => Self::Root,
            _ => return None,
        })
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImapProxy => "imap-proxy",
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
            Self::Api => "api",
            Self::Metrics => "metrics",
            Self::Root => "*",
        }
    }
}
