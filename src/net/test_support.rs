//! Connected pairs and throw-away certificates for this module's tests.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::stream::Stream;
use super::tls::{CertificateFiles, ServerTls, SystemRoots, UpstreamTls};
use crate::clock;

/// What a pair of streams is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls,
}

/// A self-signed certificate and its key, in files of their own.
pub(crate) struct Issued {
    directory: TempDir,
}

impl Issued {
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::issue(names, |_| ())
    }

    /// One that goes by another subject's name.
    pub(crate) fn by(subject: &str, names: &[&str]) -> Self {
        Self::issue(names, |parameters| {
            parameters
                .distinguished_name
                .push(rcgen::DnType::CommonName, subject.to_owned());
        })
    }

    /// One whose time ended long ago.
    pub(crate) fn expired(names: &[&str]) -> Self {
        Self::issue(names, |parameters| {
            parameters.not_before = rcgen::date_time_ymd(2001, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// A copy that stays as it is when the original's files are changed.
    pub(crate) fn keep(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["cert.pem", "key.pem"] {
            std::fs::copy(self.directory.path().join(name), directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn issue(names: &[&str], adjust: impl Fn(&mut rcgen::CertificateParams)) -> Self {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        adjust(&mut parameters);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
        Self { directory }
    }

    pub(crate) fn cert_file(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    pub(crate) fn files(&self) -> CertificateFiles {
        CertificateFiles {
            cert_file: self.cert_file(),
            key_file: self.key_file(),
        }
    }

    pub(crate) fn server_tls(&self) -> ServerTls {
        ServerTls::load(vec![self.files().into()], clock::now()).unwrap()
    }
}

/// Two ends of one connection over loopback: the one that connected, and the one that accepted.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// The same as streams: the first is TLS's client, the second its server.
pub(crate) async fn pair(wire: Wire) -> (Stream, Stream) {
    let (near, far) = tcp_pair().await;
    match wire {
        Wire::Plain => (near.into(), far.into()),
        Wire::Tls => {
            let issued = Issued::new(&["localhost"]);
            let within = Duration::from_secs(60);
            let upstream = UpstreamTls::new(&SystemRoots::none(), Some(&issued.cert_file())).unwrap();
            let server = issued.server_tls();
            let (near, far) = tokio::join!(upstream.connect(near, "localhost", within), server.accept(far, within));
            (near.unwrap(), far.unwrap())
        }
    }
}
