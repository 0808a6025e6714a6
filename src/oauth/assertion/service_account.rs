//! Google's JSON key of a service account, and the assertion by which it speaks for a user of its domain
//! (developers.google.com/identity/protocols/oauth2/service-account; RFC 7523 §2.1).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::key::{Naming, PrivateKey};
use super::{AssertionError, content, seconds, text_of};
use crate::clock::Timestamp;
use crate::limits::SERVICE_ACCOUNT_ASSERTION_LIFE;
use crate::secret::SecretString;

/// A service account, as its key file tells it.
pub(in crate::oauth) struct ServiceAccount {
    file: PathBuf,
    client_email: String,
    key: PrivateKey,
    key_id: Option<String>,
    /// Where it asks for tokens.
    pub(in crate::oauth) token_uri: Option<Url>,
}

/// The file, as far as it matters; all of it optional, so that what is missing can be named.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
    /// What a file of an OAuth client holds instead.
    installed: Option<serde::de::IgnoredAny>,
    web: Option<serde::de::IgnoredAny>,
}

/// What it says for a user.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
}

impl ServiceAccount {
    /// Reads a key file. Blocks.
    ///
    /// # Errors
    /// [`AssertionError`].
    pub(in crate::oauth) fn read(file: &Path) -> Result<Self, AssertionError> {
        let text = text_of(file)?;
        Self::from_json(file, &text).map_err(|problem| content(file, problem))
    }

    fn from_json(file: &Path, text: &str) -> Result<Self, String> {
        // The parser's own error might quote what it met.
        let raw: Raw = serde_json::from_str(text).map_err(|error| {
            let at = format!("line {}, column {}", error.line(), error.column());
            format!("is not the JSON key of a service account ({at})")
        })?;
        if raw.installed.is_some() || raw.web.is_some() {
            return Err(
                "is the file of an OAuth client; a service account's key is made under its Keys, as JSON".to_owned(),
            );
        }
        if raw.kind.is_some_and(|kind| kind != "service_account") {
            return Err("is of another type than service_account".to_owned());
        }
        let missing = |member| format!("has no {member}; give the JSON key of a service account as Google made it");
        let client_email = raw.client_email.filter(|email| !email.is_empty());
        let private_key = Zeroizing::new(raw.private_key.ok_or_else(|| missing("private_key"))?);
        let key = PrivateKey::from_pem(&private_key).map_err(|problem| format!("private_key: {problem}"))?;
        if !key.is_rsa() {
            return Err("private_key: is not of RSA, as a service account's is".to_owned());
        }
        let token_uri = raw.token_uri.as_deref().map(Url::parse).transpose();
        Ok(Self {
            file: file.to_owned(),
            client_email: client_email.ok_or_else(|| missing("client_email"))?,
            key,
            key_id: raw.private_key_id.filter(|id| !id.is_empty()),
            token_uri: token_uri.map_err(|error| format!("token_uri: is not a URL ({error})"))?,
        })
    }

    /// Signs something with the key: some are good for nothing else than being read.
    ///
    /// # Errors
    /// [`AssertionError`], if the key cannot sign.
    pub(super) fn try_key(&self) -> Result<(), AssertionError> {
        let signed = self.key.sign(&Naming::None, &()).map(drop);
        signed.map_err(|problem| content(&self.file, format!("private_key: {problem}")))
    }

    /// The assertion that asks the token endpoint `audience` for a token of `user` with `scopes`, at the moment `now`.
    ///
    /// # Errors
    /// [`AssertionError`], if the key cannot sign.
    pub(in crate::oauth) fn assertion(
        &self,
        scopes: &[String],
        audience: &str,
        user: &str,
        now: Timestamp,
    ) -> Result<SecretString, AssertionError> {
        let now = seconds(now);
        let claims = Claims {
            iss: &self.client_email,
            scope: &scopes.join(" "),
            aud: audience,
            sub: user,
            iat: now,
            exp: now.saturating_add(SERVICE_ACCOUNT_ASSERTION_LIFE.as_secs()),
        };
        let naming = self.key_id.clone().map_or(Naming::None, Naming::Id);
        let signed = self.key.sign(&naming, &claims);
        signed.map_err(|problem| content(&self.file, format!("private_key: {problem}")))
    }
}
