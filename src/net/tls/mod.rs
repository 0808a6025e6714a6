//! TLS on both legs: [`UpstreamTls`] verifies upstreams, [`ServerTls`] shows certificates to clients.
//!
//! Both use rustls with aws-lc-rs, TLS 1.2 and 1.3, and no ALPN: the mail protocols' identifiers are registered (RFC 8314
//! does not ask for them) but some upstreams close when they see one they do not expect.
//!
//! A failure is a [`TlsError`] (of one connection) or a [`TlsSetupError`] (of the configuration); both say what to do.

pub(super) mod chain;
mod client;
mod client_problem;
mod examine;
mod private_ca;
mod remedy;
mod server;
mod source;
pub(super) mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, CertificateError};

pub use client::{SystemRoots, UpstreamTls};
pub use client_problem::ClientProblem;
pub use examine::{examine_anchors, examine_chain, examine_key, examine_pair};
pub use private_ca::{AuthorityFacts, CertificateNames, FormerCertificate, PrivateCa, PrivateCertificate};
pub use remedy::remedy_at_end_of;
pub use server::ServerTls;
pub use source::{CertificateFiles, CertificateSource};

use crate::limits::PEM_FILE_BYTES_MAX;

use remedy::with_remedy;

/// Why a connection has no TLS. The text is for the operator's log.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The configured host cannot be checked against a certificate.
    #[error("'{0}' is neither a host name nor an address")]
    HostName(String),
    /// The handshake did not end in time.
    #[error("the TLS handshake was not finished within {}", crate::span::Span(*.0))]
    TimedOut(Duration),
    /// The upstream's certificate is not to be trusted.
    #[error("{0}")]
    Certificate(String),
    /// The peers do not understand each other.
    #[error("{0}")]
    Protocol(String),
    /// A client cannot or does not want to.
    #[error("{what}")]
    Client {
        /// Whose trouble it is.
        problem: ClientProblem,
        /// What happened.
        what: String,
    },
    /// The connection broke.
    #[error("the connection broke during the TLS handshake: {0}")]
    Io(io::Error),
}

/// Why certificates, keys or trust anchors cannot be used. The text names the file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file of the private CA cannot be written.
    #[error("cannot write {}: {error}", file.display())]
    Write {
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
    /// A listener with TLS needs a certificate.
    #[error("no certificate is configured for a listener with TLS; give it files, or self_signed = true")]
    NoCertificate,
    /// The cryptographic library refuses.
    #[error("TLS cannot be set up: {0}")]
    Library(rustls::Error),
}

impl TlsError {
    /// Reads what went wrong out of a failed handshake with the upstream `peer`: "imap.example.com".
    fn from_handshake(error: io::Error, peer: &str) -> Self {
        let Some(reason) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Self::Protocol(with_remedy(
                    format_args!("{peer} closed the connection during the TLS handshake"),
                    remedy::BEGINNING,
                )),
                _ => Self::Io(error),
            };
        };
        match reason {
            rustls::Error::InvalidCertificate(reason) => Self::Certificate(certificate_problem(reason, peer)),
            rustls::Error::InvalidMessage(_) => Self::Protocol(with_remedy(
                format_args!("{peer} does not speak TLS here"),
                remedy::BEGINNING,
            )),
            rustls::Error::AlertReceived(
                AlertDescription::ProtocolVersion
                | AlertDescription::HandshakeFailure
                | AlertDescription::InsufficientSecurity,
            )
            | rustls::Error::PeerIncompatible(_) => Self::Protocol(with_remedy(
                format_args!(
                    "{peer} has no TLS version or cipher in common with the proxy ({})",
                    words::of_error(reason)
                ),
                remedy::VERSION,
            )),
            rustls::Error::AlertReceived(alert) => {
                let alert = words::of_error(&rustls::Error::AlertReceived(*alert));
                Self::Protocol(format!("{peer} refused the TLS handshake: {alert}"))
            }
            reason => Self::Protocol(format!("TLS with {peer} failed: {}", words::of_error(reason))),
        }
    }
}

/// What is wrong with an upstream's certificate, and the remedy.
fn certificate_problem(reason: &CertificateError, peer: &str) -> String {
    match reason {
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => with_remedy(
            format_args!("the upstream's certificate names no host at all, so not {peer} either"),
            remedy::NAME,
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let presented = name_list(presented);
            with_remedy(
                format_args!("the upstream's certificate is for {presented}, not for {peer}"),
                remedy::NAME,
            )
        }
        CertificateError::NotValidForName => with_remedy(
            format_args!("the upstream's certificate is not for {peer}"),
            remedy::NAME,
        ),
        CertificateError::UnknownIssuer => with_remedy(
            format_args!("the certificate of {peer} is signed by an authority that is not trusted here"),
            remedy::ISSUER,
        ),
        CertificateError::BadSignature => with_remedy(
            format_args!("the certificate of {peer} is not signed by the trusted authority that it names"),
            remedy::AUTHORITY,
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => with_remedy(
            format_args!(
                "the certificate of {peer} has expired: {}",
                words::of_certificate(reason)
            ),
            remedy::TIME,
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => with_remedy(
            format_args!(
                "the certificate of {peer} is not valid yet: {}",
                words::of_certificate(reason)
            ),
            remedy::TIME,
        ),
        reason => format!(
            "the certificate of {peer} cannot be verified: {}",
            words::of_certificate(reason)
        ),
    }
}

/// The first few names of a certificate: one of a hosting company may have hundreds. They come as `DnsName("a.example")` and
/// `IpAddress(192.0.2.1)`.
fn name_list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names
        .iter()
        .take(SHOWN)
        .map(|name| {
            let inner = name.split_once('(').and_then(|(_, inner)| inner.strip_suffix(')'));
            inner.unwrap_or(name).trim_matches('"')
        })
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => shown,
        Some(more) => format!("{shown} and {more} more names"),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The text of a PEM file, bounded.
fn read_pem(file: &Path) -> Result<Vec<u8>, TlsSetupError> {
    let failed = |error| TlsSetupError::Read {
        file: file.to_owned(),
        error,
    };
    let size = std::fs::metadata(file).map_err(failed)?.len();
    if size > PEM_FILE_BYTES_MAX {
        return Err(content(
            file,
            format!("is larger than {PEM_FILE_BYTES_MAX} bytes; is it a PEM file?"),
        ));
    }
    std::fs::read(file).map_err(failed)
}

/// The certificates of a PEM file, at least one.
fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    let pem = read_pem(file)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| {
            content(
                file,
                "is not valid PEM: a block has no end, or holds what is not base64",
            )
        })?;
    if certificates.is_empty() {
        return Err(content(
            file,
            "holds no certificate (a PEM block 'BEGIN CERTIFICATE' is expected)",
        ));
    }
    Ok(certificates)
}

fn content(file: &Path, problem: impl ToString) -> TlsSetupError {
    TlsSetupError::Content {
        file: file.to_owned(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_names_are_told_without_their_types() {
        let names = |names: &[&str]| name_list(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(
            names(&[
                "DnsName(\"imap.example.com\")",
                "IpAddress(127.0.0.1)",
                "IpAddress(::1)"
            ]),
            "imap.example.com, 127.0.0.1, ::1"
        );
        assert_eq!(names(&["DnsName(\"a\")"; 7]), "a, a, a, a, a and 2 more names");
    }
}
