//! TLS towards clients: certificates by SNI, replaced while sessions go on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{TlsError, TlsSetupError, content, provider, read_certificates, read_pem};
use crate::net::stream::Stream;

/// TLS of one listener. Cheap to clone: clones share certificates and ticket keys.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
}

/// A certificate to show and the key that goes with it, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// A PEM chain, leaf first.
    pub cert_file: PathBuf,
    /// Its PEM key, unencrypted.
    pub key_file: PathBuf,
}

impl ServerTls {
    /// Reads the certificates; the client's SNI chooses among them, and the first is shown where it chooses none. Blocks on
    /// the files. A certificate that clients will refuse for its dates is used all the same, with a warning: it must not
    /// keep the others, or the daemon, from starting.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: not readable, no certificate, no key, a key that is encrypted or belongs
    /// to another certificate.
    pub fn load(files: Vec<CertificateFiles>) -> Result<Self, TlsSetupError> {
        let certificates = Arc::new(Certificates {
            seen: Mutex::new(files.iter().map(Fingerprint::of).collect()),
            chain: RwLock::new(load_all(&files)?),
            files,
        });
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Library)?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        config.ticketer = Ticketer::new().map_err(TlsSetupError::Library)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            certificates,
        })
    }

    /// Does the handshake with a client. Dropping the future closes the connection.
    ///
    /// # Errors
    /// By kind; [`TlsError::TimedOut`] after `within`. What clients do wrong is theirs: log it quietly.
    pub async fn accept(&self, tcp: TcpStream, within: Duration) -> Result<Stream, TlsError> {
        // Boxed: a handshake's state is large, and this future becomes part of the session's.
        let handshake = Box::pin(self.acceptor.accept(tcp));
        match tokio::time::timeout(within, handshake).await {
            Ok(Ok(tls)) => Ok(tls.into()),
            Ok(Err(error)) => Err(TlsError::from_handshake(error, "the client")),
            Err(_) => Err(TlsError::TimedOut(within)),
        }
    }

    /// Reads the files again; handshakes from now on use what they hold, sessions go on untouched. Blocks on the files.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; the certificates in use then stay.
    pub fn reload(&self) -> Result<(), TlsSetupError> {
        let fingerprints = self.certificates.fingerprints();
        self.certificates.replace(fingerprints)
    }

    /// Reloads if a file has changed since the last look, and tells whether it did. Cheap enough for every few seconds.
    ///
    /// # Errors
    /// As [`ServerTls::reload`], once for each change: a pair that is caught half written comes right at the next look.
    pub fn reload_if_changed(&self) -> Result<bool, TlsSetupError> {
        let fingerprints = self.certificates.fingerprints();
        let is_same = *self.certificates.seen.lock().unwrap_or_else(PoisonError::into_inner) == fingerprints;
        if is_same {
            return Ok(false);
        }
        self.certificates.replace(fingerprints).map(|()| true)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("files", &self.certificates.files)
            .finish_non_exhaustive()
    }
}

/// The certificates in use, and what their files looked like when they were read.
struct Certificates {
    files: Vec<CertificateFiles>,
    seen: Mutex<Vec<Fingerprint>>,
    chain: RwLock<Arc<[Arc<CertifiedKey>]>>,
}

impl Certificates {
    fn fingerprints(&self) -> Vec<Fingerprint> {
        self.files.iter().map(Fingerprint::of).collect()
    }

    /// `fingerprints` were taken before the files are read here, so that a change in between is seen at the next look.
    fn replace(&self, fingerprints: Vec<Fingerprint>) -> Result<(), TlsSetupError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = fingerprints;
        let loaded = load_all(&self.files)?;
        *self.chain.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chain = self.chain.read().unwrap_or_else(PoisonError::into_inner).clone();
        let named = hello
            .server_name()
            .filter(|_| chain.len() > 1)
            .and_then(|name| ServerName::try_from(name).ok())
            .and_then(|name| chain.iter().find(|certified| is_for(certified, &name)));
        named.or_else(|| chain.first()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// Whether a certificate's names, wildcards included, cover `name` (RFC 6125 §6.4, as clients will judge).
fn is_for(certified: &CertifiedKey, name: &ServerName<'_>) -> bool {
    certified
        .end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .and_then(|leaf| rustls::client::verify_server_name(&leaf, name))
        .is_ok()
}

/// What a pair of files looks like from outside; a file that is missing looks like nothing.
#[derive(Debug, PartialEq, Eq)]
struct Fingerprint([Option<(SystemTime, u64)>; 2]);

impl Fingerprint {
    fn of(files: &CertificateFiles) -> Self {
        let look = |file: &Path| {
            let metadata = std::fs::metadata(file).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self([look(&files.cert_file), look(&files.key_file)])
    }
}

fn load_all(files: &[CertificateFiles]) -> Result<Arc<[Arc<CertifiedKey>]>, TlsSetupError> {
    if files.is_empty() {
        return Err(TlsSetupError::NoCertificate);
    }
    files.iter().map(|files| load_one(files).map(Arc::new)).collect()
}

fn load_one(files: &CertificateFiles) -> Result<CertifiedKey, TlsSetupError> {
    let chain = read_certificates(&files.cert_file)?;
    let key = read_key(&files.key_file)?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => content(
            &files.key_file,
            format!(
                "the key does not belong to the first certificate in {}",
                files.cert_file.display()
            ),
        ),
        rustls::Error::InvalidCertificate(reason) => content(
            &files.cert_file,
            format!("the first certificate cannot be read: {reason:?}"),
        ),
        error => content(&files.key_file, format!("the key cannot be used: {error}")),
    })?;
    if let Some(problem) = date_problem(&certified, UnixTime::now()) {
        tracing::warn!(file = %files.cert_file.display(), "{problem}: clients will refuse it");
    }
    Ok(certified)
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
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

/// What a client would say of the leaf's dates. Asked of the verifier that clients of this kind use: it looks at the dates
/// before it looks for an issuer, so whom it trusts does not matter, and the leaf itself serves as anchor.
fn date_problem(certified: &CertifiedKey, now: UnixTime) -> Option<String> {
    let leaf = certified.end_entity_cert().ok()?;
    let mut roots = RootCertStore::empty();
    roots.add(leaf.clone()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .ok()?;
    let anyone = ServerName::try_from("localhost").ok()?;
    match verifier.verify_server_cert(leaf, &[], &anyone, &[], now) {
        Err(rustls::Error::InvalidCertificate(
            reason @ (CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }),
        )) => Some(reason.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_support::{Issued, tcp_pair};
    use crate::net::tls::{SystemRoots, UpstreamTls};

    const WITHIN: Duration = Duration::from_secs(20);

    /// Whether a client that trusts `trusted` alone gets through to `host`.
    async fn is_shown(server: &ServerTls, trusted: &Issued, host: &str) -> bool {
        let client = UpstreamTls::new(&SystemRoots::none(), Some(&trusted.cert_file())).unwrap();
        let (near, far) = tcp_pair().await;
        let (near, _far) = tokio::join!(client.connect(near, host, WITHIN), server.accept(far, WITHIN));
        near.is_ok()
    }

    #[tokio::test]
    async fn the_client_chooses_by_name_and_the_first_certificate_is_the_default() {
        let first = Issued::new(&["first.example", "localhost"]);
        let second = Issued::new(&["*.second.example"]);
        let server = ServerTls::load(vec![first.files(), second.files()]).unwrap();
        assert!(is_shown(&server, &first, "first.example").await);
        assert!(is_shown(&server, &second, "imap.second.example").await);
        assert!(is_shown(&server, &first, "localhost").await);
        assert!(!is_shown(&server, &second, "localhost").await);
    }

    #[tokio::test]
    async fn a_changed_file_is_seen_once_and_a_bad_one_leaves_the_old_certificate() {
        let old = Issued::new(&["localhost"]);
        let server = old.server_tls();
        let before = Issued::keep(&old);
        assert!(!server.reload_if_changed().unwrap());

        let new = Issued::new(&["localhost", "longer.example.com"]);
        std::fs::copy(new.cert_file(), old.cert_file()).unwrap();
        let text = server.reload_if_changed().unwrap_err().to_string();
        assert!(text.contains("does not belong"), "{text}");
        assert!(!server.reload_if_changed().unwrap(), "a failure is told once");
        assert!(is_shown(&server, &before, "localhost").await);

        std::fs::copy(new.key_file(), old.key_file()).unwrap();
        server.reload().unwrap();
        assert!(is_shown(&server, &new, "localhost").await);
        assert!(!is_shown(&server, &before, "localhost").await);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_by_its_name() {
        let (good, other) = (Issued::new(&["localhost"]), Issued::new(&["localhost"]));
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str, text: &str| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cases = [
            (directory.path().join("absent"), good.key_file(), "absent"),
            (written("empty", ""), good.key_file(), "empty: holds no certificate"),
            (
                written("garbled", garbled),
                good.key_file(),
                "garbled: the first certificate cannot be read",
            ),
            (good.cert_file(), written("nokey", ""), "nokey: holds no private key"),
            (
                good.cert_file(),
                written("locked", encrypted),
                "locked: the key is encrypted",
            ),
            (
                good.cert_file(),
                other.key_file(),
                "does not belong to the first certificate",
            ),
        ];
        for (cert_file, key_file, expected) in cases {
            let text = ServerTls::load(vec![CertificateFiles { cert_file, key_file }])
                .unwrap_err()
                .to_string();
            assert!(text.contains(expected), "{text} should contain {expected}");
        }
        assert!(matches!(ServerTls::load(Vec::new()), Err(TlsSetupError::NoCertificate)));
    }

    #[test]
    fn an_expired_certificate_is_noticed_whoever_signed_it() {
        let problem = |issued: Issued| date_problem(&load_one(&issued.files()).unwrap(), UnixTime::now());
        assert!(problem(Issued::expired(&["localhost"])).unwrap().contains("expired"));
        assert_eq!(problem(Issued::new(&["localhost"])), None);
    }
}
