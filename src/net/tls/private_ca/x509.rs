//! What is read out of the authority's own certificates, and put into them (RFC 5280).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::TryRngCore as _;
use rcgen::{CertificateParams, SerialNumber};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use crate::clock::Timestamp;
use crate::limits::CERTIFICATE_BACKDATING;

/// What counts of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// The subject's name, where it has this one attribute and no other.
    pub(super) common_name: Option<String>,
    /// SubjectPublicKeyInfo in DER.
    pub(super) public_key: Vec<u8>,
    pub(super) life: Life,
    pub(super) is_ca: bool,
    pub(super) hosts: BTreeSet<String>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// From when to when a certificate is valid; in X.509 the last second belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum IssueError {
    #[error("a certificate cannot be made: {0}")]
    Library(#[from] rcgen::Error),
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] rand::rand_core::OsError),
}

impl Life {
    /// A life of `length` from `now` on, which began a little earlier for clients whose clock is slow.
    pub(super) fn from(now: Timestamp, length: Duration) -> Self {
        Self {
            not_before: now.before(CERTIFICATE_BACKDATING),
            not_after: now.after(length),
        }
    }

    /// The moment at which a third of the life is left.
    pub(super) fn last_third(self) -> Timestamp {
        self.not_after.before(self.not_after.since(self.not_before) / 3)
    }

    pub(super) fn write_into(self, parameters: &mut CertificateParams) {
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let seconds = |moment: Timestamp| Duration::from_secs((moment.as_millis() / 1000).min(LAST_SECOND));
        parameters.not_before = epoch + seconds(self.not_before);
        parameters.not_after = epoch + seconds(self.not_after);
    }
}

/// Reads a certificate in DER.
///
/// # Errors
/// In words, what is wrong with it.
pub(super) fn read(der: &[u8]) -> Result<Facts, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("the certificate cannot be read: {error}");
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|error| unreadable(&error))?;
    let mut facts = Facts {
        common_name: None,
        public_key: certificate.public_key().raw.to_owned(),
        life: Life {
            not_before: moment(certificate.validity().not_before),
            not_after: moment(certificate.validity().not_after),
        },
        is_ca: certificate.is_ca(),
        hosts: BTreeSet::new(),
        addresses: BTreeSet::new(),
    };
    if certificate.subject().iter_attributes().count() == 1 {
        let mut names = certificate.subject().iter_common_name();
        facts.common_name = names.next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?;
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(host) => {
                facts.hosts.insert((*host).to_owned());
            }
            GeneralName::IPAddress(octets) => facts.addresses.extend(address(octets)),
            _ => {}
        }
    }
    Ok(facts)
}

/// SHA-256 as `openssl x509 -fingerprint -sha256` prints it: upper-case hex, octets parted by colons.
pub(super) fn fingerprint(der: &[u8]) -> String {
    let octets: Vec<String> = Sha256::digest(der).iter().map(|octet| format!("{octet:02X}")).collect();
    octets.join(":")
}

/// A certificate as a PEM file (RFC 7468).
pub(super) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (column, character) in text.chars().enumerate() {
        if column > 0 && column % PEM_LINE_CHARS == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

/// A random serial number. The library's own is made of the key, so that a renewed certificate would have the former's, and
/// some clients refuse two certificates of one issuer with the same number.
///
/// # Errors
/// If the system gives no random numbers.
pub(super) fn serial_number() -> Result<SerialNumber, IssueError> {
    let mut octets = [0; SERIAL_OCTETS];
    rand::rngs::OsRng.try_fill_bytes(&mut octets)?;
    // Positive, and not shortened by a leading zero (RFC 5280 §4.1.2.2).
    octets[0] = octets[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

/// A moment before 1970 counts as 1970.
fn moment(time: ASN1Time) -> Timestamp {
    let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

/// Characters of a common name (RFC 5280 appendix A.1, `ub-common-name`).
pub(super) const COMMON_NAME_CHARS_MAX: usize = 64;

const SERIAL_OCTETS: usize = 16;

/// Characters of a line in PEM (RFC 7468 §2).
const PEM_LINE_CHARS: usize = 64;

/// 9999-01-01: what X.509 can say ends that year (RFC 5280 §4.1.2.5.2).
const LAST_SECOND: u64 = 253_370_764_800;
