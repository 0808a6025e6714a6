//! TLS towards upstreams: whom to trust, and session resumption.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{TlsError, TlsSetupError, content, provider, read_certificates};
use crate::net::stream::Stream;

/// The system's trust anchors, read once and shared by the providers' hosts and token endpoints.
#[derive(Debug, Clone)]
pub struct SystemRoots(Arc<RootCertStore>);

/// TLS towards one provider's hosts. Cheap to clone: clones share the configuration and the resumption cache, which is why
/// there is one for each provider and not one for each session (a resumed handshake costs half).
#[derive(Clone)]
pub struct UpstreamTls {
    connector: TlsConnector,
}

impl SystemRoots {
    /// Reads the system's store (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured). Blocks on files. What cannot be read is
    /// logged and left out: a provider may do with its `ca_file` alone.
    pub fn load() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "some of the system's trust anchors cannot be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::warn!(
                "the system has no trust anchors (is ca-certificates installed?): only ca_file can be trusted"
            );
        }
        tracing::debug!(added, ignored, "system trust anchors read");
        Self(Arc::new(roots))
    }

    /// No anchors: only a provider's `ca_file` counts.
    pub fn none() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// What a TLS client is set up with that trusts these, and the certificates in `ca_file` beside them. Blocks on the
    /// file.
    ///
    /// # Errors
    /// If `ca_file` cannot be read or holds no usable certificate, or the cryptographic library refuses.
    pub fn client_config(&self, ca_file: Option<&Path>) -> Result<ClientConfig, TlsSetupError> {
        let roots = match ca_file {
            None => self.0.clone(),
            Some(file) => {
                let mut roots = RootCertStore::clone(&self.0);
                for certificate in read_certificates(file)? {
                    roots
                        .add(certificate)
                        .map_err(|error| content(file, format!("holds a certificate that cannot be used: {error}")))?;
                }
                Arc::new(roots)
            }
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Library)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }
}

impl UpstreamTls {
    /// Trusts `system`, and the certificates in `ca_file` beside it. Blocks on the file.
    ///
    /// # Errors
    /// Those of [`SystemRoots::client_config`].
    pub fn new(system: &SystemRoots, ca_file: Option<&Path>) -> Result<Self, TlsSetupError> {
        let config = system.client_config(ca_file)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Does the handshake on `tcp` and checks that the upstream is `host`. Dropping the future closes the connection.
    ///
    /// # Errors
    /// By kind, with the remedy in the text; [`TlsError::TimedOut`] after `within`.
    pub async fn connect(&self, tcp: TcpStream, host: &str, within: Duration) -> Result<Stream, TlsError> {
        let name = ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
            .map_err(|_| TlsError::HostName(host.to_owned()))?;
        // Boxed: a handshake's state is large, and this future becomes part of the login's.
        let handshake = Box::pin(self.connector.connect(name, tcp));
        match tokio::time::timeout(within, handshake).await {
            Ok(Ok(tls)) => Ok(tls.into()),
            Ok(Err(error)) => Err(TlsError::from_handshake(error, host)),
            Err(_) => Err(TlsError::TimedOut(within)),
        }
    }
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTls").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::test_support::{Issued, tcp_pair};

    const WITHIN: Duration = Duration::from_secs(20);

    async fn connect_to(issued: &Issued, trusted: &Issued, host: &str) -> Result<Stream, TlsError> {
        let upstream = UpstreamTls::new(&SystemRoots::none(), Some(&trusted.cert_file())).unwrap();
        let server = issued.server_tls();
        let (near, far) = tcp_pair().await;
        let (connected, _) = tokio::join!(upstream.connect(near, host, WITHIN), server.accept(far, WITHIN));
        connected
    }

    #[tokio::test]
    async fn an_upstream_is_trusted_by_ca_file_and_name() {
        let issued = Issued::new(&["imap.example.com"]);
        assert!(connect_to(&issued, &issued, "imap.example.com").await.unwrap().is_tls());
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused_with_both_names() {
        let issued = Issued::new(&["imap.example.com"]);
        let error = connect_to(&issued, &issued, "mail.example.org").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the upstream's certificate is for imap.example.com, not for mail.example.org; correct the endpoint's host, or have \
             the upstream show a certificate for it"
        );
    }

    #[tokio::test]
    async fn an_unknown_authority_is_refused_with_the_remedy() {
        let shown = Issued::new(&["localhost"]);
        for (trusted, expected) in [
            (Issued::by("Another Authority", &["localhost"]), "not trusted here"),
            (Issued::new(&["localhost"]), "present certificate"),
        ] {
            let text = connect_to(&shown, &trusted, "localhost").await.unwrap_err().to_string();
            assert!(text.contains("ca_file") && text.contains(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn an_expired_certificate_is_refused_by_that_name() {
        let issued = Issued::expired(&["localhost"]);
        let text = connect_to(&issued, &issued, "localhost").await.unwrap_err().to_string();
        assert!(text.contains("has expired"), "{text}");
    }

    #[tokio::test]
    async fn a_port_that_speaks_in_clear_is_recognised() {
        let issued = Issued::new(&["localhost"]);
        let upstream = UpstreamTls::new(&SystemRoots::none(), Some(&issued.cert_file())).unwrap();
        let (near, mut far) = tcp_pair().await;
        far.write_all(b"* OK IMAP4rev1 ready\r\n").await.unwrap();
        let text = upstream
            .connect(near, "localhost", WITHIN)
            .await
            .unwrap_err()
            .to_string();
        assert!(text.contains("starttls"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_is_bounded_in_time() {
        let issued = Issued::new(&["localhost"]);
        let upstream = UpstreamTls::new(&SystemRoots::none(), Some(&issued.cert_file())).unwrap();
        let (near, _far) = tcp_pair().await;
        let error = upstream.connect(near, "localhost", WITHIN).await.unwrap_err();
        assert!(matches!(error, TlsError::TimedOut(_)), "{error}");
    }

    #[tokio::test]
    async fn a_second_session_resumes_the_first() {
        let issued = Issued::new(&["localhost"]);
        let upstream = UpstreamTls::new(&SystemRoots::none(), Some(&issued.cert_file())).unwrap();
        let server = issued.server_tls();
        let mut summaries = Vec::new();
        for _ in 0..2 {
            let (near, far) = tcp_pair().await;
            let (near, far) = tokio::join!(upstream.connect(near, "localhost", WITHIN), server.accept(far, WITHIN));
            let (mut near, mut far) = (near.unwrap(), far.unwrap());
            // TLS 1.3 sends its tickets behind the handshake: they are seen with the first bytes.
            far.write_all(b"x").await.unwrap();
            near.read_exact(&mut [0]).await.unwrap();
            summaries.push(near.tls_summary().unwrap());
        }
        assert!(
            !summaries[0].contains("resumed") && summaries[1].ends_with("resumed"),
            "{summaries:?}"
        );
    }

    #[test]
    fn a_bad_ca_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let refused = |file: &Path| {
            UpstreamTls::new(&SystemRoots::none(), Some(file))
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&file).starts_with(&format!("cannot read {}", file.display())));
        std::fs::write(&file, "not a certificate").unwrap();
        assert!(refused(&file).contains("holds no certificate"));
    }
}
