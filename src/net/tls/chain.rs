//! The certificates that an upstream showed, in words for `account verify`.

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::clock::Timestamp;

/// Who each certificate of a chain is for, who issued it, and until when the first is good; the upstream's own first, as TLS
/// has it (RFC 8446 §4.4.2). What cannot be read is left out: the handshake has judged it.
pub(in crate::net) fn summary(chain: &[CertificateDer<'_>]) -> String {
    let read = chain
        .iter()
        .take(SHOWN_MAX)
        .map(|der| x509_parser::parse_x509_certificate(der));
    let certificates: Vec<X509Certificate<'_>> = read.filter_map(|read| Some(read.ok()?.1)).collect();
    let mut parts: Vec<String> = Vec::new();
    for (place, certificate) in certificates.iter().enumerate() {
        let (subject, issuer) = (certificate.subject().to_string(), certificate.issuer().to_string());
        let until = match place {
            0 => format!(", good until {}", until(certificate)),
            _ => String::new(),
        };
        let issued = if subject == issuer {
            "by itself"
        } else {
            &format!("by {}", named(&issuer))
        };
        parts.push(format!("{} issued {issued}{until}", named(&subject)));
    }
    parts.join("; ")
}

fn until(certificate: &X509Certificate<'_>) -> Timestamp {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

/// A name as it may be shown. A certificate need not have one beside its hosts.
fn named(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_control() { ' ' } else { c });
    let plain: String = plain.take(NAME_CHARS_MAX).collect();
    if plain.is_empty() {
        "(no name)".to_owned()
    } else {
        plain
    }
}

/// Certificates of a chain that are told. Real ones have up to four.
const SHOWN_MAX: usize = 5;

/// Characters of a name that are told.
const NAME_CHARS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn parameters(name: &str) -> CertificateParams {
        let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.not_after = rcgen::date_time_ymd(2030, 1, 2);
        parameters
    }

    #[test]
    fn a_chain_tells_who_issued_whom_and_until_when() {
        let key = KeyPair::generate().unwrap();
        let mut authority = parameters("An\nAuthority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let of_authority = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        let leaf = parameters("mail.example.com")
            .signed_by(&KeyPair::generate().unwrap(), &issuer)
            .unwrap();
        let chain = [leaf.der().clone(), of_authority.der().clone()];
        assert_eq!(
            summary(&chain),
            "CN=mail.example.com issued by CN=An Authority, good until 2030-01-02T00:00:00.000Z; CN=An Authority issued by itself"
        );
        assert_eq!(
            summary(&chain[1..]),
            "CN=An Authority issued by itself, good until 2030-01-02T00:00:00.000Z"
        );
        assert_eq!(summary(&[CertificateDer::from(&b"nonsense"[..])]), "");
        assert_eq!(summary(&[]), "");
    }
}
