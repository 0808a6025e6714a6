//! What keeps a client from TLS with us: in whose terms, as which label, and what its administrator can do.

use std::fmt;
use std::io;

use rustls::{AlertDescription, PeerIncompatible};

use super::TlsError;

/// What keeps a client from TLS, as far as somebody can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientProblem {
    /// It speaks no version that we speak.
    Version,
    /// It has none of our ciphers or ways to agree on keys.
    Ciphers,
    /// It does not trust the certificate.
    Certificate,
    /// Anything else: mostly somebody who only looked.
    Other,
}

impl ClientProblem {
    /// The value of the metric label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Version => "tls_version",
            Self::Ciphers => "tls_ciphers",
            Self::Certificate => "tls_certificate",
            Self::Other => "tls_failed",
        }
    }

    /// What an administrator should hear of it, in the client's terms.
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Self::Version => Some(
                "a client speaks no TLS newer than 1.1, and this proxy speaks 1.2 and 1.3: update the device, or give it a \
                 listener with tls = \"off\" and plaintext_auth = \"always\" on a network that you trust",
            ),
            Self::Ciphers => Some(
                "a client has no TLS cipher in common with this proxy, which needs ECDHE with AES-GCM or ChaCha20 (no CBC, no \
                 RSA key exchange): update the device or its settings, or give it a listener with tls = \"off\" and \
                 plaintext_auth = \"always\" on a network that you trust",
            ),
            Self::Certificate => Some(
                "a client does not trust this listener's certificate: have it use a host name that the certificate is for, let \
                 it trust the authority that signed it (with self_signed = true the file that 'portreeve status' names as the \
                 CA), and see that cert_file holds the intermediate certificates too",
            ),
            Self::Other => None,
        }
    }
}

impl TlsError {
    /// Reads what went wrong out of a failed handshake with a client.
    pub(super) fn from_client(error: io::Error) -> Self {
        let Some(reason) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => other("the client closed the connection during the TLS handshake"),
                _ => Self::Io(error),
            };
        };
        match reason {
            rustls::Error::PeerIncompatible(
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // It came with TLS 1.2 (RFC 5246 §7.4.1.4.1), and is missed before the version is looked at.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
            )
            | rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => Self::Client {
                problem: ClientProblem::Version,
                what: format!("the client offers neither TLS 1.2 nor 1.3 ({reason})"),
            },
            rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
            ) => Self::Client {
                problem: ClientProblem::Ciphers,
                what: format!("the client has no cipher in common with the proxy ({reason})"),
            },
            rustls::Error::AlertReceived(alert) => match name_of_distrust(*alert) {
                Some(name) => Self::Client {
                    problem: ClientProblem::Certificate,
                    what: format!("the client refused the certificate with the alert {name}"),
                },
                None => other(format_args!("the client refused the TLS handshake ({reason})")),
            },
            rustls::Error::InvalidMessage(_) => other("the client does not speak TLS here"),
            reason => other(format_args!("TLS with the client failed: {reason}")),
        }
    }

    /// What kept the client from TLS.
    pub fn client_problem(&self) -> ClientProblem {
        match self {
            Self::Client { problem, .. } => *problem,
            _ => ClientProblem::Other,
        }
    }
}

fn other(what: impl fmt::Display) -> TlsError {
    TlsError::Client {
        problem: ClientProblem::Other,
        what: what.to_string(),
    }
}

/// The alerts (RFC 8446 §6.2) by which a client says that it does not take the certificate. Which one is the library's taste.
const fn name_of_distrust(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::UnknownCA => Some("unknown_ca"),
        AlertDescription::CertificateUnknown => Some("certificate_unknown"),
        AlertDescription::BadCertificate => Some("bad_certificate"),
        AlertDescription::CertificateExpired => Some("certificate_expired"),
        AlertDescription::UnsupportedCertificate => Some("unsupported_certificate"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::net::test_support::{Issued, tcp_pair};
    use crate::net::tls::{SystemRoots, UpstreamTls};

    const WITHIN: Duration = Duration::from_secs(20);

    /// A ClientHello of TLS 1.0 to 1.2, whose last version is `minor` as on the wire, with `ciphers`.
    fn hello(minor: u8, ciphers: &[u16]) -> Vec<u8> {
        let ciphers: Vec<u8> = ciphers.iter().flat_map(|cipher| cipher.to_be_bytes()).collect();
        // supported_groups x25519 and secp256r1, ec_point_formats uncompressed.
        let mut extensions = vec![0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17, 0, 11, 0, 2, 1, 0];
        if minor == 3 {
            // signature_algorithms ecdsa and rsa.
            extensions.extend([0, 13, 0, 6, 0, 4, 4, 3, 4, 1]);
        }
        let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let mut body = vec![3, minor];
        body.extend([7; 32]);
        body.push(0);
        body.extend(length(&ciphers));
        body.extend(&ciphers);
        body.extend([1, 0]);
        body.extend(length(&extensions));
        body.extend(&extensions);
        let mut handshake = vec![1, 0];
        handshake.extend(length(&body));
        handshake.extend(&body);
        let mut record = vec![0x16, 3, 1];
        record.extend(length(&handshake));
        record.extend(&handshake);
        record
    }

    async fn problem_with(first: &[u8]) -> (ClientProblem, String) {
        let server = Issued::new(&["localhost"]).server_tls();
        let (mut near, far) = tcp_pair().await;
        near.write_all(first).await.unwrap();
        near.shutdown().await.unwrap();
        let error = server.accept(far, WITHIN).await.map(drop).unwrap_err();
        (error.client_problem(), error.to_string())
    }

    #[tokio::test]
    async fn an_old_device_is_told_by_its_hello() {
        const ECDHE_ECDSA_AES128_CBC: u16 = 0xc009;
        const RSA_AES128_CBC: u16 = 0x002f;
        const RSA_AES128_GCM: u16 = 0x009c;
        for (minor, ciphers, expected) in [
            (1, &[RSA_AES128_CBC][..], ClientProblem::Version),
            (2, &[ECDHE_ECDSA_AES128_CBC, RSA_AES128_CBC], ClientProblem::Version),
            (3, &[ECDHE_ECDSA_AES128_CBC], ClientProblem::Ciphers),
            (3, &[RSA_AES128_CBC, RSA_AES128_GCM], ClientProblem::Ciphers),
        ] {
            let (problem, text) = problem_with(&hello(minor, ciphers)).await;
            assert_eq!(problem, expected, "{text}");
            assert!(!text.contains("upstream") && text.contains("client"), "{text}");
        }
    }

    #[tokio::test]
    async fn who_only_looks_is_no_device_to_care_for() {
        for first in [
            &b"\x16\x03\x01"[..],
            b"\x16\x03\x01\x00\x02\x01\x00",
            b"GET / HTTP/1.0\r\n\r\n",
        ] {
            let (problem, text) = problem_with(first).await;
            assert_eq!((problem, problem.hint()), (ClientProblem::Other, None), "{text}");
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_trust_the_certificate_is_heard() {
        let (shown, trusted) = (
            Issued::by("Another Authority", &["localhost"]),
            Issued::new(&["localhost"]),
        );
        let client = UpstreamTls::new(&SystemRoots::none(), Some(&trusted.cert_file())).unwrap();
        let server = shown.server_tls();
        let (near, far) = tcp_pair().await;
        let (near, far) = tokio::join!(client.connect(near, "localhost", WITHIN), server.accept(far, WITHIN));
        assert!(near.is_err());
        let error = far.map(drop).unwrap_err();
        assert_eq!(error.client_problem(), ClientProblem::Certificate, "{error}");
        assert_eq!(
            error.to_string(),
            "the client refused the certificate with the alert unknown_ca"
        );
    }

    #[test]
    fn labels_and_hints_are_each_problems_own() {
        let all = [
            ClientProblem::Version,
            ClientProblem::Ciphers,
            ClientProblem::Certificate,
            ClientProblem::Other,
        ];
        let labels = all.map(ClientProblem::label);
        assert_eq!(labels, ["tls_version", "tls_ciphers", "tls_certificate", "tls_failed"]);
        for hint in all.into_iter().filter_map(ClientProblem::hint) {
            assert!(hint.starts_with("a client ") && !hint.contains("upstream"), "{hint}");
        }
    }
}
