//! Where a certificate comes from: an administrator's files, or the daemon's own authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore};

use super::private_ca::PrivateCertificate;
use super::{TlsSetupError, content, provider, read_certificates, read_pem, words};
use crate::clock::Timestamp;

/// Where a certificate and the key that goes with it come from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// An administrator's files.
    Files(CertificateFiles),
    /// The daemon's own authority, which makes them.
    Private(PrivateCertificate),
}

/// A certificate to show and the key that goes with it, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// A PEM chain, leaf first.
    pub cert_file: PathBuf,
    /// Its PEM key, unencrypted.
    pub key_file: PathBuf,
}

/// What a source gave.
pub(super) struct Loaded {
    pub(super) certified: Arc<CertifiedKey>,
    /// What its files looked like.
    pub(super) seen: Appearance,
    /// When it has to be loaded again even if no file changes.
    pub(super) due: Option<Timestamp>,
}

/// What files look like from outside; one that is missing looks like nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Appearance(Vec<Option<(SystemTime, u64)>>);

impl CertificateSource {
    /// Reads the certificate, or makes it where that is the daemon's business. Blocks on files.
    pub(super) fn load(&self, now: Timestamp) -> Result<Loaded, TlsSetupError> {
        match self {
            Self::Files(files) => {
                // IMPORTANT: looked at before they are read, so that a change in between is seen at the next look.
                let seen = self.appearance();
                let certified = load_files(files)?;
                if let Some(problem) = date_problem(&certified, now) {
                    tracing::warn!(file = %files.cert_file.display(), "clients will refuse the certificate: {problem}");
                }
                Ok(Loaded {
                    certified: Arc::new(certified),
                    seen,
                    due: None,
                })
            }
            Self::Private(certificate) => {
                let (certified, due) = certificate.load(now)?;
                Ok(Loaded {
                    certified: Arc::new(certified),
                    // Looked at afterwards: the files are the daemon's own, and loading them may have been writing them.
                    seen: self.appearance(),
                    due: Some(due),
                })
            }
        }
    }

    /// What the files look like now.
    pub(super) fn appearance(&self) -> Appearance {
        let look = |file: &Path| {
            let metadata = std::fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Appearance(match self {
            Self::Files(files) => vec![look(&files.cert_file), look(&files.key_file)],
            Self::Private(certificate) => certificate.files().iter().map(|file| look(file)).collect(),
        })
    }
}

impl CertificateFiles {
    /// The first certificate, in DER, once it is known that the key is its own. Blocks on files.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn leaf(&self) -> Result<Vec<u8>, TlsSetupError> {
        let certified = load_files(self)?;
        let leaf = certified.end_entity_cert().map_err(TlsSetupError::Library)?;
        Ok(leaf.as_ref().to_vec())
    }
}

impl From<CertificateFiles> for CertificateSource {
    fn from(files: CertificateFiles) -> Self {
        Self::Files(files)
    }
}

/// The certificate in `files`, with its key.
pub(super) fn load_files(files: &CertificateFiles) -> Result<CertifiedKey, TlsSetupError> {
    let chain = read_certificates(&files.cert_file)?;
    let key = read_key(&files.key_file)?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => content(
            &files.key_file,
            format!(
                "the key does not belong to the first certificate in {}",
                files.cert_file.display()
            ),
        ),
        error @ rustls::Error::InvalidCertificate(_) => unreadable_leaf(&files.cert_file, &error),
        error => unusable_key(&files.key_file, &error),
    })
}

pub(super) fn unreadable_leaf(cert_file: &Path, error: &rustls::Error) -> TlsSetupError {
    let reason = words::of_error(error);
    content(cert_file, format!("the first certificate cannot be read: {reason}"))
}

pub(super) fn unusable_key(key_file: &Path, error: &rustls::Error) -> TlsSetupError {
    content(key_file, format!("the key cannot be used: {}", words::of_error(error)))
}

pub(super) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    let pem = zeroize::Zeroizing::new(read_pem(file)?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        // The parser's own error might quote a line of the key.
        let is_encrypted = memchr::memmem::find(&pem, b"ENCRYPTED").is_some();
        content(
            file,
            if is_encrypted {
                "the key is encrypted; store it without a passphrase, readable for the daemon alone"
            } else {
                "holds no private key (a PEM block 'BEGIN PRIVATE KEY' is expected)"
            },
        )
    })
}

/// What a client that trusts `anchor` alone would say of `leaf` when it calls for `name` at `now`.
///
/// # Errors
/// Why it would refuse.
pub(super) fn client_verdict(
    leaf: &CertificateDer<'_>,
    anchor: &CertificateDer<'_>,
    name: &'static str,
    now: Timestamp,
) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(anchor.clone().into_owned())?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let name = ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()));
    verifier.verify_server_cert(leaf, &[], &name, &[], now).map(drop)
}

/// What a client would say of the leaf's dates. The verifier looks at the dates before it looks for an issuer, so whom it
/// trusts does not matter, and the leaf itself serves as anchor.
fn date_problem(certified: &CertifiedKey, now: Timestamp) -> Option<String> {
    let leaf = certified.end_entity_cert().ok()?;
    match client_verdict(leaf, leaf, "localhost", now) {
        Err(rustls::Error::InvalidCertificate(
            reason @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        )) => Some(words::of_certificate(&reason)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::net::test_support::Issued;

    #[test]
    fn an_expired_certificate_is_noticed_whoever_signed_it() {
        let problem = |issued: Issued| date_problem(&load_files(&issued.files()).unwrap(), clock::now());
        let expired = problem(Issued::expired(&["localhost"])).unwrap();
        assert!(expired.starts_with("it was valid until "), "{expired}");
        assert_eq!(problem(Issued::new(&["localhost"])), None);
    }
}
