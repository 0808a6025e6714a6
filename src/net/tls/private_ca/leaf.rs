//! What the authority issues for one `[certificate.NAME]`: kept on the disk as long as it fits, made anew when it does not.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use tracing::info;
use zeroize::Zeroizing;

use super::super::source::{CertificateFiles, client_verdict, load_files};
use super::super::{TlsSetupError, content};
use super::{Authority, PrivateCa, disk, x509};
use crate::clock::Timestamp;
use crate::limits::PRIVATE_LEAF_LIFE;

/// A certificate of the daemon's own authority.
#[derive(Debug, Clone)]
pub struct PrivateCertificate {
    /// Who issues it.
    pub ca: Arc<PrivateCa>,
    /// Its name in the configuration, which becomes part of its files' names.
    pub name: String,
    /// Whom it is for.
    pub names: CertificateNames,
}

/// The hosts and addresses by which clients may call the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateNames {
    hosts: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl CertificateNames {
    /// This machine's own names (`localhost`, 127.0.0.1, ::1), those of `hosts` that a client could check, and those of
    /// `addresses` that name an address.
    pub fn new<'a>(hosts: impl IntoIterator<Item = &'a str>, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut names = Self {
            hosts: BTreeSet::from([LOCALHOST.to_owned()]),
            addresses: BTreeSet::from([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        };
        for host in hosts {
            let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
            match ServerName::try_from(host.as_str()) {
                Ok(ServerName::DnsName(_)) => {
                    names.hosts.insert(host);
                }
                Ok(ServerName::IpAddress(address)) => {
                    names.addresses.insert(address.into());
                }
                _ => {}
            }
        }
        names.addresses.extend(addresses);
        names.addresses.retain(|address| !address.is_unspecified());
        names
    }
}

impl PrivateCertificate {
    /// The certificate and its key, and when to look again. Makes them where what is on the disk does not fit.
    ///
    /// # Errors
    /// Those of the authority, or that the files cannot be written.
    pub(in super::super) fn load(&self, now: Timestamp) -> Result<(CertifiedKey, Timestamp), TlsSetupError> {
        let authority = self.ca.authority(now)?;
        let (certified, life) = match self.on_disk(&authority, now) {
            Ok(found) => found,
            Err(reason) => {
                self.issue(&authority, now)?;
                info!(certificate = %self.name, %reason, "certificate issued by the private CA");
                self.on_disk(&authority, now)
                    .map_err(|problem| content(&self.leaf_files().cert_file, format!("was just made, and {problem}")))?
            }
        };
        Ok((certified, life.last_third().min(authority.renewal())))
    }

    /// The files whose change means that there is something to load.
    pub(in super::super) fn files(&self) -> Vec<PathBuf> {
        let leaf = self.leaf_files();
        [leaf.cert_file, leaf.key_file]
            .into_iter()
            .chain(self.ca.files())
            .collect()
    }

    fn leaf_files(&self) -> CertificateFiles {
        let file = |extension: &str| self.ca.directory.join(format!("leaf-{}.{extension}", self.name));
        CertificateFiles {
            cert_file: file("pem"),
            key_file: file("key"),
        }
    }

    /// What is on the disk, if it is as it would be made now.
    fn on_disk(&self, authority: &Authority, now: Timestamp) -> Result<(CertifiedKey, x509::Life), Anew> {
        let files = self.leaf_files();
        if !files.cert_file.exists() && !files.key_file.exists() {
            return Err(Anew::Absent);
        }
        match disk::exposed(&files.key_file) {
            Ok(None) => {}
            Ok(Some(mode)) => return Err(Anew::Exposed(mode)),
            Err(error) => return Err(Anew::Unusable(error.to_string())),
        }
        let certified = load_files(&files).map_err(|error| Anew::Unusable(error.to_string()))?;
        let leaf = certified
            .end_entity_cert()
            .map_err(|error| Anew::Unusable(error.to_string()))?;
        let facts = x509::read(leaf).map_err(Anew::Unusable)?;
        if let Some(reason) = anew(&facts, &self.names, now) {
            return Err(reason);
        }
        // What `anew` cannot see: who signed it.
        match client_verdict(leaf, &authority.certificate, LOCALHOST, now) {
            Ok(()) => Ok((certified, facts.life)),
            Err(verdict) => Err(Anew::Untrusted(verdict.to_string())),
        }
    }

    fn issue(&self, authority: &Authority, now: Timestamp) -> Result<(), TlsSetupError> {
        let files = self.leaf_files();
        let make = || -> Result<_, x509::IssueError> {
            let key = KeyPair::generate()?;
            let certificate = self.parameters(now)?.signed_by(&key, &authority.issuer)?;
            Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
        };
        let (certificate, key) = make().map_err(|error| content(&files.cert_file, error))?;
        // A crash between the two leaves a pair that does not match, which is a reason to make it anew.
        disk::replace(&files.key_file, key.as_bytes())?;
        disk::replace(&files.cert_file, certificate.as_bytes())
    }

    fn parameters(&self, now: Timestamp) -> Result<CertificateParams, x509::IssueError> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        // For people who look at it; clients go by the alternative names (RFC 6125 §6.4.4).
        parameters.distinguished_name.push(DnType::CommonName, SUBJECT);
        for host in &self.names.hosts {
            parameters
                .subject_alt_names
                .push(SanType::DnsName(host.as_str().try_into()?));
        }
        let addresses = self.names.addresses.iter().copied();
        parameters.subject_alt_names.extend(addresses.map(SanType::IpAddress));
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Some clients refuse a certificate of a private authority that does not say whose key signed it.
        parameters.use_authority_key_identifier_extension = true;
        x509::Life::from(now, PRIVATE_LEAF_LIFE).write_into(&mut parameters);
        parameters.serial_number = Some(x509::serial_number()?);
        Ok(parameters)
    }
}

/// Why a leaf is made anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Anew {
    /// There is none.
    Absent,
    /// What there is cannot be read.
    Unusable(String),
    /// Others than the daemon's user can read its key, whose file has this mode.
    Exposed(u32),
    /// It is for other names than the configuration's.
    Names,
    /// A third of its life is left, or less.
    Ends,
    /// It was made by a clock that was ahead.
    NotYetValid,
    /// Clients that trust the authority would refuse it.
    Untrusted(String),
}

impl fmt::Display for Anew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is none yet"),
            Self::Unusable(problem) => f.write_str(problem),
            Self::Exposed(mode) => write!(
                f,
                "the key of the present one can be reached by other users (mode {mode:04o})"
            ),
            Self::Names => f.write_str("the configuration's names have changed"),
            Self::Ends => f.write_str("the present one nears its end"),
            Self::NotYetValid => f.write_str("the present one is not valid yet"),
            Self::Untrusted(verdict) => write!(f, "clients would refuse the present one: {verdict}"),
        }
    }
}

/// Whether, by its dates and names, a leaf has to be made anew.
pub(super) fn anew(facts: &x509::Facts, names: &CertificateNames, now: Timestamp) -> Option<Anew> {
    if facts.hosts != names.hosts || facts.addresses != names.addresses {
        Some(Anew::Names)
    } else if now < facts.life.not_before {
        Some(Anew::NotYetValid)
    } else if now >= facts.life.last_third() {
        Some(Anew::Ends)
    } else {
        None
    }
}

/// In every leaf.
const LOCALHOST: &str = "localhost";

const SUBJECT: &str = "portreeve";
