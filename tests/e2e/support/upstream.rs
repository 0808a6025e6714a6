//! An upstream that a test plays itself, line by line: it waits where a real one would answer.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::net::TcpListener;

use super::certs::Authority;
use super::wire::Wire;
use super::{PATIENCE, open_directory};

/// A listening socket on loopback, a certificate for it, and nobody who answers by himself.
pub struct Upstream {
    listener: TcpListener,
    address: SocketAddr,
    security: Security,
    authority: Authority,
    directory: TempDir,
}

/// How an upstream's connections begin; `name` is the word of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// In clear, and so they stay.
    Off,
    /// In clear, until the test goes on inside TLS.
    StartTls,
    /// With a TLS handshake.
    Implicit,
}

impl Upstream {
    /// Listens on a free port of 127.0.0.1.
    pub async fn listen(security: Security) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let authority = Authority::new();
        let directory = open_directory();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("the authority can be written");
        Upstream {
            address: listener.local_addr().expect("it is bound"),
            listener,
            security,
            authority,
            directory,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How its connections begin.
    pub fn security(&self) -> Security {
        self.security
    }

    /// The authority behind its certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// That authority's file.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The next connection, inside TLS where it begins with that.
    pub async fn accept(&self) -> Wire {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept()).await;
        let (stream, _) = accepted
            .expect("nobody connects to the upstream")
            .expect("a connection can be accepted");
        let leg = Wire::accepted(stream);
        match self.security {
            Security::Implicit => leg.secured_as_upstream(&self.authority).await,
            Security::Off | Security::StartTls => leg,
        }
    }
}

impl Security {
    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Security::Off => "off",
            Security::StartTls => "starttls",
            Security::Implicit => "implicit",
        }
    }

    /// The security of that name.
    pub fn by_name(name: &str) -> Option<Security> {
        [Security::Off, Security::StartTls, Security::Implicit]
            .into_iter()
            .find(|security| security.name() == name)
    }
}
