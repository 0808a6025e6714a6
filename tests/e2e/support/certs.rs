//! A certificate authority for one test, and what it issues.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// A private authority; nothing on the machine trusts it until told to.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one, with keys of its own.
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "portreeve testbed CA");
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a CA can sign itself");
        Authority { issuer }
    }

    /// The authority's own certificate, which clients are given to trust.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for servers on this machine: localhost, 127.0.0.1 and ::1.
    pub fn issue_for_loopback(&self) -> Leaf {
        self.issue(&["localhost", "127.0.0.1", "::1"])
    }

    /// A server certificate for the given host names and addresses.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_until(names, 4096)
    }

    /// The same, which ends with the begin of a year.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Leaf {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("the names are valid");
        params.distinguished_name.push(DnType::CommonName, "portreeve testbed");
        // Without it, Apple's and some other TLS stacks refuse a certificate of a private authority.
        params.use_authority_key_identifier_extension = true;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("the CA can sign");
        Leaf {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// A TLS server on this machine, with a certificate of this authority.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.issue_for_loopback().acceptor()
    }

    /// A TLS client that trusts this authority and no other.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        client_trusting(&self.pem())
    }
}

/// A TLS client that trusts the authority with this certificate and no other.
pub fn client_trusting(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is a certificate"))
        .expect("a CA's certificate is one");
    Arc::new(
        ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// An issued certificate and its key.
pub struct Leaf {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
}

impl Leaf {
    /// A TLS server with this certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).expect("it was just issued");
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("it was just made");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is the certificate's");
        TlsAcceptor::from(Arc::new(config))
    }
}
