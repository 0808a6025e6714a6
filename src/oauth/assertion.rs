//! Assertions: short statements, signed with a private key, by which an app proves that it is the app (RFC 7523 §2.2) or a
//! service account asks for a user's token (§2.1).
//!
//! What they are signed with is a file, which is read at each use so that it can be replaced; so everything here blocks. It
//! fails by naming the file and what is wrong with it, never with anything of its content.

mod key;
mod service_account;
#[cfg(test)]
pub(super) mod test_support;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

pub(super) use service_account::ServiceAccount;

use self::key::{Naming, PrivateKey};
use super::request;
use crate::clock::Timestamp;
use crate::config::ClientKey;
use crate::limits::{CLIENT_ASSERTION_LIFE, SECRET_FILE_BYTES_MAX};
use crate::net::tls::{CertificateFiles, TlsSetupError};
use crate::secret::{ExposeSecret, SecretString};

/// Why there is no assertion. The text names the file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub(super) enum AssertionError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file's content is not what it should be.
    #[error("{}: {problem}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The certificate cannot be used, or the key is not its own.
    #[error(transparent)]
    Certificate(#[from] TlsSetupError),
}

/// What an app says of itself (RFC 7523 §3; OpenID Connect Core §9).
#[derive(Serialize)]
struct ClientClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    jti: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
}

/// The assertion by which the app `client_id` proves to the token endpoint `audience` that it is the app, at the moment `now`.
/// Blocks on files.
///
/// # Errors
/// [`AssertionError`].
pub(super) fn of_client(
    key: &ClientKey,
    client_id: &str,
    audience: &str,
    now: Timestamp,
) -> Result<SecretString, AssertionError> {
    let file = &key.key_file;
    let signed_with = PrivateKey::from_pem(&text_of(file)?).map_err(|problem| content(file, problem))?;
    let naming = match &key.certificate_file {
        Some(certificate_file) => Naming::Certificate(thumbprint(file, certificate_file)?),
        None => Naming::None,
    };
    let id = request::random();
    let now = seconds(now);
    let claims = ClientClaims {
        iss: client_id,
        sub: client_id,
        aud: audience,
        jti: id.expose_secret(),
        iat: now,
        nbf: now,
        exp: now.saturating_add(CLIENT_ASSERTION_LIFE.as_secs()),
    };
    signed_with
        .sign(&naming, &claims)
        .map_err(|problem| content(file, problem))
}

/// Looks at the key of an app before anybody needs it, and signs something with it: some keys are good for nothing else than
/// being read. Blocks on the file.
///
/// # Errors
/// What is wrong with the file, and what would be right.
pub fn examine_app_key(file: &Path) -> Result<(), String> {
    let examined = text_of(file).and_then(|text| {
        let key = PrivateKey::from_pem(&text).map_err(|problem| content(file, problem))?;
        key.sign(&Naming::None, &()).map_err(|problem| content(file, problem))
    });
    examined.map(drop).map_err(|error| error.to_string())
}

/// Looks at the key file of a service account in the same way. Blocks on the file.
///
/// # Errors
/// What is wrong with the file, and what would be right.
pub fn examine_service_account(file: &Path) -> Result<(), String> {
    let examined = ServiceAccount::read(file).and_then(|account| account.try_key());
    examined.map_err(|error| error.to_string())
}

/// The name of a key by its certificate (RFC 7515 §4.1.8).
fn thumbprint(key_file: &Path, certificate_file: &Path) -> Result<String, AssertionError> {
    let files = CertificateFiles {
        cert_file: certificate_file.to_owned(),
        key_file: key_file.to_owned(),
    };
    Ok(URL_SAFE_NO_PAD.encode(Sha256::digest(files.leaf()?)))
}

/// The text of a file that holds a key.
fn text_of(file: &Path) -> Result<Zeroizing<String>, AssertionError> {
    let failed = |error| AssertionError::Read {
        file: file.to_owned(),
        error,
    };
    let mut bytes = Zeroizing::new(Vec::new());
    let opened = File::open(file).map_err(failed)?;
    let mut bounded = opened.take(SECRET_FILE_BYTES_MAX.saturating_add(1));
    let read = bounded.read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > SECRET_FILE_BYTES_MAX {
        let problem = format!("is larger than {SECRET_FILE_BYTES_MAX} bytes; is it a key?");
        return Err(content(file, problem));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(content(file, NOT_TEXT)),
    }
}

fn content(file: &Path, problem: impl Into<String>) -> AssertionError {
    AssertionError::Content {
        file: file.to_owned(),
        problem: problem.into(),
    }
}

/// A moment as a NumericDate (RFC 7519 §2).
fn seconds(moment: Timestamp) -> u64 {
    moment.as_millis() / 1000
}

const NOT_TEXT: &str = "is not text: a key in DER or PKCS #12 has to be turned into PEM, by 'openssl pkcs8 -topk8 -nocrypt \
                        -inform DER' or 'openssl pkcs12 -nocerts -nodes'";
