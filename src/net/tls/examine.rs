//! Looking at files before anything is set up with them: whether each is what it should be, and whether they belong together.

use std::path::Path;

use rustls::server::ParsedCertificate;

use super::source::{load_files, read_key, unreadable_leaf, unusable_key};
use super::{CertificateFiles, SystemRoots, TlsSetupError, provider, read_certificates};

/// Looks at a PEM chain. Blocks on the file.
///
/// # Errors
/// [`TlsSetupError`], if it cannot be read, holds no certificate, or one that cannot be read comes first.
pub fn examine_chain(cert_file: &Path) -> Result<(), TlsSetupError> {
    let chain = read_certificates(cert_file)?;
    let leaf = chain.first().map(ParsedCertificate::try_from).transpose();
    leaf.map(drop).map_err(|error| unreadable_leaf(cert_file, &error))
}

/// Looks at the PEM key of a certificate. Blocks on the file.
///
/// # Errors
/// [`TlsSetupError`], if it cannot be read, holds no key, an encrypted one, or one of a kind that nobody can use.
pub fn examine_key(key_file: &Path) -> Result<(), TlsSetupError> {
    let key = read_key(key_file)?;
    let loaded = provider().key_provider.load_private_key(key);
    loaded.map(drop).map_err(|error| unusable_key(key_file, &error))
}

/// Looks whether a chain and a key belong together. Blocks on the files.
///
/// # Errors
/// [`TlsSetupError`], also where one of the two is not good by itself.
pub fn examine_pair(files: &CertificateFiles) -> Result<(), TlsSetupError> {
    load_files(files).map(drop)
}

/// Looks at a file of trust anchors. Blocks on the file.
///
/// # Errors
/// [`TlsSetupError`], if it cannot be read or holds no usable certificate.
pub fn examine_anchors(ca_file: &Path) -> Result<(), TlsSetupError> {
    SystemRoots::none().client_config(Some(ca_file)).map(drop)
}
