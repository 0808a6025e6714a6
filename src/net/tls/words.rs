//! What rustls says, in words: many of its own texts are the names of its types.

use std::fmt::Debug;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::{CertificateError, Error, ProtocolVersion, SupportedCipherSuite};

use crate::clock::Timestamp;

/// An error, as words that go after a colon.
pub(super) fn of_error(error: &Error) -> String {
    match error {
        Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "a message came that does not belong there".to_owned()
        }
        Error::InvalidMessage(why) => format!("a message cannot be read ({})", named(why)),
        Error::PeerIncompatible(why) => named(why),
        Error::PeerMisbehaved(why) => format!("the rules of TLS were broken ({})", named(why)),
        Error::AlertReceived(alert) => named(alert),
        Error::InvalidCertificate(why) => of_certificate(why),
        error => error.to_string(),
    }
}

/// Why a certificate is not good.
pub(super) fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => format!("it was valid until {}", time(not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => format!("it is valid from {}", time(not_before)),
        CertificateError::BadEncoding => "it is damaged".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not made for servers".to_owned()
        }
        error => named(error),
    }
}

/// A version of TLS and a cipher suite, as the RFCs and IANA call them.
pub(in crate::net) fn of_session(version: ProtocolVersion, suite: SupportedCipherSuite) -> String {
    let version = match version {
        ProtocolVersion::TLSv1_2 => "TLS 1.2".to_owned(),
        ProtocolVersion::TLSv1_3 => "TLS 1.3".to_owned(),
        other => named(other),
    };
    let suite = format!("{:?}", suite.suite());
    // rustls tells those of TLS 1.3 apart by a name of its own.
    format!("{version} {}", suite.replace("TLS13_", "TLS_"))
}

fn time(time: &UnixTime) -> Timestamp {
    Timestamp::EPOCH.after(Duration::from_secs(time.as_secs()))
}

/// The words of a type's name: `NoCipherSuitesInCommon` is "no cipher suites in common", `UnknownCA` is "unknown CA".
fn named(variant: impl Debug) -> String {
    let shown = format!("{variant:?}");
    let name = shown
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    let mut words = String::new();
    let mut before = None;
    for letter in name.chars() {
        let begins = letter.is_ascii_uppercase() && before.is_some_and(|before: char| !before.is_ascii_uppercase());
        if begins {
            words.push(' ');
        }
        words.push(letter);
        before = Some(letter);
    }
    let lower = |word: &str| match word {
        "Tls12" => "TLS 1.2".to_owned(),
        "Tls13" => "TLS 1.3".to_owned(),
        word if word.len() > 1 && word.chars().all(|c| c.is_ascii_uppercase()) => word.to_owned(),
        word => word.to_lowercase(),
    };
    words.split(' ').map(lower).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use rustls::{AlertDescription, PeerIncompatible};

    use super::*;

    #[test]
    fn names_of_types_become_words() {
        for (error, words) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "handshake failure",
            ),
            (Error::AlertReceived(AlertDescription::UnknownCA), "unknown CA"),
            (
                Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
                "no cipher suites in common",
            ),
            (
                Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled),
                "TLS 1.2 not offered or enabled",
            ),
            (
                Error::InvalidCertificate(CertificateError::UnhandledCriticalExtension),
                "unhandled critical extension",
            ),
            (
                Error::InvalidCertificate(CertificateError::BadEncoding),
                "it is damaged",
            ),
        ] {
            assert_eq!(of_error(&error), words);
        }
        let moment = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = CertificateError::ExpiredContext {
            time: moment(1_800_000_000),
            not_after: moment(978_307_200),
        };
        assert_eq!(of_certificate(&expired), "it was valid until 2001-01-01T00:00:00.000Z");
    }
}
