//! TLS towards clients: certificates by SNI, replaced while sessions go on.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::source::{Appearance, CertificateSource, Loaded};
use super::{TlsError, TlsSetupError, provider};
use crate::clock::Timestamp;
use crate::net::stream::Stream;

/// TLS of one listener. Cheap to clone: clones share certificates and ticket keys.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    certificates: Arc<Certificates>,
}

impl ServerTls {
    /// Loads the certificates; the client's SNI chooses among them, and the first is shown where it chooses none. Blocks on
    /// files. A certificate that clients will refuse for its dates is used all the same, with a warning: it must not keep
    /// the others, or the daemon, from starting.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: not readable, no certificate, no key, a key that is encrypted or belongs
    /// to another certificate; of the private CA, not writable.
    pub fn load(sources: Vec<CertificateSource>, now: Timestamp) -> Result<Self, TlsSetupError> {
        let loaded = load_all(&sources, now)?;
        let certificates = Arc::new(Certificates {
            watched: Mutex::new(Watched {
                sources,
                seen: loaded.seen,
                due: loaded.due,
                failure: None,
            }),
            shown: RwLock::new(loaded.shown),
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
            Ok(Err(error)) => Err(TlsError::from_client(error)),
            Err(_) => Err(TlsError::TimedOut(within)),
        }
    }

    /// Loads the certificates from `sources` from now on; handshakes use what they hold, sessions go on untouched. Blocks on
    /// files.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; the certificates in use then stay, and [`ServerTls::look`] tries again.
    pub fn reload(&self, sources: Vec<CertificateSource>, now: Timestamp) -> Result<(), TlsSetupError> {
        let mut watched = self.certificates.watch();
        watched.sources = sources;
        self.certificates.replace(&mut watched, now).inspect_err(|error| {
            watched.failure = Some(error.to_string());
        })
    }

    /// Loads the certificates again if a file has changed since the last look or one is to be renewed, and tells whether it
    /// did. Cheap enough for every few seconds. Blocks on files.
    ///
    /// # Errors
    /// As [`ServerTls::reload`]. What goes wrong is tried again at every look, and told when it was not the same before: a
    /// pair that is caught half written comes right by itself.
    pub fn look(&self, now: Timestamp) -> Result<bool, TlsSetupError> {
        let mut watched = self.certificates.watch();
        let is_due = watched.due.is_some_and(|due| now >= due);
        let has_changed = || {
            watched
                .sources
                .iter()
                .zip(&watched.seen)
                .any(|(one, seen)| one.appearance() != *seen)
        };
        if watched.failure.is_none() && !is_due && !has_changed() {
            return Ok(false);
        }
        match self.certificates.replace(&mut watched, now) {
            Ok(()) => Ok(true),
            Err(error) => {
                let text = error.to_string();
                let told = watched.failure.replace(text.clone());
                if told == Some(text) { Ok(false) } else { Err(error) }
            }
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// The certificates in use, and where they come from.
struct Certificates {
    /// Held while files are read; a handshake does not need it.
    watched: Mutex<Watched>,
    shown: RwLock<Chain>,
}

/// Certificates with their keys, the default first.
type Chain = Arc<[Arc<CertifiedKey>]>;

/// Where the certificates come from, and what is known of their sources.
struct Watched {
    sources: Vec<CertificateSource>,
    /// What the sources' files looked like when they were loaded, in the same order.
    seen: Vec<Appearance>,
    /// When one of them has to be loaded again even if no file changes.
    due: Option<Timestamp>,
    /// What went wrong when they were last loaded.
    failure: Option<String>,
}

impl Certificates {
    fn watch(&self) -> MutexGuard<'_, Watched> {
        // What is watched is whole after every step, so a panic elsewhere while it was held does no harm here.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, watched: &mut Watched, now: Timestamp) -> Result<(), TlsSetupError> {
        let loaded = load_all(&watched.sources, now)?;
        watched.seen = loaded.seen;
        watched.due = loaded.due;
        watched.failure = None;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = loaded.shown;
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chain = self.shown.read().unwrap_or_else(PoisonError::into_inner).clone();
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
        f.debug_struct("Certificates").finish_non_exhaustive()
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

/// What all sources gave.
struct AllLoaded {
    shown: Chain,
    seen: Vec<Appearance>,
    due: Option<Timestamp>,
}

fn load_all(sources: &[CertificateSource], now: Timestamp) -> Result<AllLoaded, TlsSetupError> {
    if sources.is_empty() {
        return Err(TlsSetupError::NoCertificate);
    }
    let loaded: Vec<Loaded> = sources
        .iter()
        .map(|source| source.load(now))
        .collect::<Result<_, _>>()?;
    Ok(AllLoaded {
        shown: loaded.iter().map(|one| one.certified.clone()).collect(),
        due: loaded.iter().filter_map(|one| one.due).min(),
        seen: loaded.into_iter().map(|one| one.seen).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::net::test_support::{Issued, tcp_pair};
    use crate::net::tls::{CertificateFiles, SystemRoots, UpstreamTls};

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
        let server = ServerTls::load(vec![first.files().into(), second.files().into()], clock::now()).unwrap();
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
        assert!(!server.look(clock::now()).unwrap());

        let new = Issued::new(&["localhost", "longer.example.com"]);
        std::fs::copy(new.cert_file(), old.cert_file()).unwrap();
        let text = server.look(clock::now()).unwrap_err().to_string();
        assert!(text.contains("does not belong"), "{text}");
        assert!(!server.look(clock::now()).unwrap(), "a failure is told once");
        assert!(is_shown(&server, &before, "localhost").await);

        std::fs::copy(new.key_file(), old.key_file()).unwrap();
        server.reload(vec![old.files().into()], clock::now()).unwrap();
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
            let text = ServerTls::load(vec![CertificateFiles { cert_file, key_file }.into()], clock::now())
                .unwrap_err()
                .to_string();
            assert!(text.contains(expected), "{text} should contain {expected}");
        }
        assert!(matches!(
            ServerTls::load(Vec::new(), clock::now()),
            Err(TlsSetupError::NoCertificate)
        ));
    }
}
