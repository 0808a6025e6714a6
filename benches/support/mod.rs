//! What the benches of the relay share: a throw-away certificate, TLS on both sides of it, and who runs where.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use portreeve::clock;
use portreeve::net::stream::Stream;
use portreeve::net::tls::{CertificateFiles, ServerTls, SystemRoots, UpstreamTls};
use tokio::net::TcpStream;

/// The name that every leg is connected by.
const HOST: &str = "localhost";

/// Nothing in a bench takes longer.
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Whether the figures count: `cargo bench` without `--test`. Otherwise it is only shown that the bench runs.
pub(crate) fn is_measuring() -> bool {
    let is_given = |flag: &str| std::env::args().any(|argument| argument == flag);
    is_given("--bench") && !is_given("--test")
}

/// A self-signed ECDSA P-256 certificate and its key, in files.
pub(crate) struct Identity {
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
}

impl Identity {
    /// The files in `directory`.
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self {
            cert_file: directory.join("cert.pem"),
            key_file: directory.join("key.pem"),
        }
    }

    /// Makes the files.
    pub(crate) fn issue(directory: &Path) -> Outcome<Self> {
        let identity = Self::in_directory(directory);
        let issued = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])?;
        std::fs::write(&identity.cert_file, issued.cert.pem())?;
        std::fs::write(&identity.key_file, issued.signing_key.serialize_pem())?;
        Ok(identity)
    }

    pub(crate) fn server(&self) -> Outcome<ServerTls> {
        let files = CertificateFiles {
            cert_file: self.cert_file.clone(),
            key_file: self.key_file.clone(),
        };
        Ok(ServerTls::load(vec![files.into()], clock::now())?)
    }

    pub(crate) fn client(&self) -> Outcome<UpstreamTls> {
        Ok(UpstreamTls::new(&SystemRoots::none(), Some(&self.cert_file))?)
    }
}

/// TLS, or none, as the accepting side.
pub(crate) async fn accept(tls: Option<&ServerTls>, tcp: TcpStream) -> Outcome<Stream> {
    tcp.set_nodelay(true)?;
    match tls {
        Some(tls) => Ok(tls.accept(tcp, WITHIN).await?),
        None => Ok(tcp.into()),
    }
}

/// TLS, or none, as the connecting side.
pub(crate) async fn connect(tls: Option<&UpstreamTls>, port: u16) -> Outcome<Stream> {
    let tcp = portreeve::net::dial::dial("127.0.0.1", port, WITHIN).await?;
    match tls {
        Some(tls) => Ok(tls.connect(tcp, HOST, WITHIN).await?),
        None => Ok(tcp.into()),
    }
}
