//! The daemon's own certificate authority (`self_signed = true`): made once, trusted by clients, renewed without changing
//! what they trust.
//!
//! ```text
//! <state_dir>/tls/    0700; every file 0600, complete or not there
//!   ca.pem  ca.key    the authority; made at a start where neither is there, never replaced by another
//!   ca-former.pem     its former certificate, once it has been renewed
//!   leaf-NAME.pem  leaf-NAME.key    what it issued for [certificate.NAME]; made anew whenever `leaf` finds a reason
//! ```
//! Clients trust the authority by hand, so a new one would lock them all out: files that are missing, garbled or do not
//! belong together are an error that says what to do. A renewal keeps name and key. What the authority issues verifies with
//! the former certificate as well as with the new one, so that clients can be given the new one while both are good.

mod disk;
mod leaf;
mod x509;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{TlsSetupError, content, read_certificates, read_pem};
use crate::clock::Timestamp;
use crate::limits::{PRIVATE_CA_LIFE, PRIVATE_CA_RENEWED_AHEAD};

pub use leaf::{CertificateNames, PrivateCertificate};

/// The authority in one state directory.
#[derive(Debug)]
pub struct PrivateCa {
    directory: PathBuf,
    facts: Mutex<AuthorityFacts>,
}

/// What clients need to know of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// The file that clients are given to trust.
    pub path: PathBuf,
    /// The certificate's SHA-256, as `openssl x509 -fingerprint -sha256` prints it.
    pub fingerprint: String,
    /// When it ends.
    pub expires: Timestamp,
    /// The certificate before a renewal, as long as clients can still trust that one.
    pub former: Option<FormerCertificate>,
}

/// The authority's certificate before it was renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerCertificate {
    /// As [`AuthorityFacts::fingerprint`].
    pub fingerprint: String,
    /// When it ends: by then clients need the new one.
    pub expires: Timestamp,
}

impl PrivateCa {
    /// The authority under `state_dir`, which is made where there is none; `hostname` becomes part of its name. Logs what
    /// clients need to know. Blocks on files.
    ///
    /// # Errors
    /// Names the file that cannot be read or written, is garbled, or does not belong to the other, and what to do.
    pub fn open(state_dir: &Path, hostname: &str, now: Timestamp) -> Result<Self, TlsSetupError> {
        let directory = state_dir.join(DIRECTORY);
        disk::make_directory(&directory)?;
        // What cannot be looked at counts as there: it is an error, never a reason to make another.
        let is_there = |name: &str| directory.join(name).try_exists().unwrap_or(true);
        if !is_there(CERTIFICATE_FILE) && !is_there(KEY_FILE) {
            create(&directory, hostname, now)?;
        }
        let authority = Authority::current(&directory, now)?;
        let facts = authority.facts(&directory);
        let life = authority.life;
        let ca = Self {
            directory,
            facts: Mutex::new(facts),
        };
        ca.tell(life, now);
        Ok(ca)
    }

    /// What clients need to know at `now`, as of when the authority was last needed.
    pub fn facts(&self, now: Timestamp) -> AuthorityFacts {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        AuthorityFacts {
            former: facts.former.filter(|former| now < former.expires),
            ..facts
        }
    }

    /// The authority as its files have it now, renewed if that is due.
    fn authority(&self, now: Timestamp) -> Result<Authority, TlsSetupError> {
        let authority = Authority::current(&self.directory, now)?;
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = authority.facts(&self.directory);
        Ok(authority)
    }

    /// Logs what clients need to know, and what is doubtful.
    fn tell(&self, life: x509::Life, now: Timestamp) {
        let facts = self.facts(now);
        info!(path = %facts.path.display(), sha256 = %facts.fingerprint, expires = %facts.expires, "CA for clients to trust");
        if let Some(former) = facts.former {
            warn!(
                sha256 = %former.fingerprint, expires = %former.expires,
                "the CA has been renewed: clients that trust its former certificate need the new one before that ends"
            );
        }
        if now < life.not_before {
            // It is not renewed for that: on a machine that starts without the time of day, it would be at every start.
            warn!(
                from = %life.not_before,
                "the CA is not valid yet: is this machine's clock right? If the clock was ahead when the CA was renewed, put \
                 {FORMER_FILE} in the place of {CERTIFICATE_FILE}"
            );
        }
    }

    /// The files whose change means that the authority has changed.
    fn files(&self) -> [PathBuf; 2] {
        [CERTIFICATE_FILE, KEY_FILE].map(|name| self.directory.join(name))
    }
}

/// The authority, ready to sign.
struct Authority {
    certificate: CertificateDer<'static>,
    name: String,
    life: x509::Life,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn current(directory: &Path, now: Timestamp) -> Result<Self, TlsSetupError> {
        let authority = Self::read(directory)?;
        if now < authority.renewal() {
            return Ok(authority);
        }
        authority.renew(directory, now)?;
        Self::read(directory)
    }

    fn read(directory: &Path) -> Result<Self, TlsSetupError> {
        let (certificate_file, key_file) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
        let certificates = read_certificates(&certificate_file).map_err(|error| broken(&certificate_file, error))?;
        let certificate = certificates
            .into_iter()
            .next()
            .expect("a list that is read is not empty");
        let key = read_key(&key_file)?;
        let facts = x509::read(&certificate).map_err(|problem| refused(&certificate_file, problem))?;
        let name = facts.common_name.filter(|name| name.starts_with(NAME) && facts.is_ca);
        let Some(name) = name else {
            return Err(refused(&certificate_file, "holds no CA of portreeve's making"));
        };
        if facts.public_key != key.subject_public_key_info() {
            let problem = format!(
                "the key does not belong to the certificate in {}",
                certificate_file.display()
            );
            return Err(refused(&key_file, problem));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|error| refused(&certificate_file, error))?;
        Ok(Self {
            certificate,
            name,
            life: facts.life,
            issuer,
        })
    }

    /// From when a new certificate is due.
    fn renewal(&self) -> Timestamp {
        self.life.not_after.before(PRIVATE_CA_RENEWED_AHEAD)
    }

    /// Makes a new certificate with the same name and key. The former one is kept, because clients trust it until it ends.
    fn renew(&self, directory: &Path, now: Timestamp) -> Result<(), TlsSetupError> {
        let path = directory.join(CERTIFICATE_FILE);
        let renewed = certificate(&self.name, self.issuer.key(), now).map_err(|error| content(&path, error))?;
        // IMPORTANT: before the new one. A crash in between leaves an authority that is due, and is renewed at the next look.
        disk::replace(&directory.join(FORMER_FILE), x509::pem(&self.certificate).as_bytes())?;
        disk::replace(&path, renewed.pem().as_bytes())?;
        warn!(
            path = %path.display(), sha256 = %x509::fingerprint(renewed.der()), former_expires = %self.life.not_after,
            "the CA has been renewed, its key is the same: give clients the new certificate before the former ends"
        );
        Ok(())
    }

    fn facts(&self, directory: &Path) -> AuthorityFacts {
        AuthorityFacts {
            path: directory.join(CERTIFICATE_FILE),
            fingerprint: x509::fingerprint(&self.certificate),
            expires: self.life.not_after,
            former: self.former(directory),
        }
    }

    /// The former certificate, if there is one. It only serves to warn, so one that cannot be read is none.
    fn former(&self, directory: &Path) -> Option<FormerCertificate> {
        let certificate = read_certificates(&directory.join(FORMER_FILE))
            .ok()?
            .into_iter()
            .next()?;
        let facts = x509::read(&certificate).ok()?;
        let is_of_this = facts.public_key == self.issuer.key().subject_public_key_info();
        (is_of_this && certificate != self.certificate).then(|| FormerCertificate {
            fingerprint: x509::fingerprint(&certificate),
            expires: facts.life.not_after,
        })
    }
}

/// Makes the authority's key and certificate, where neither file may be yet.
fn create(directory: &Path, hostname: &str, now: Timestamp) -> Result<(), TlsSetupError> {
    let (certificate_file, key_file) = (directory.join(CERTIFICATE_FILE), directory.join(KEY_FILE));
    let key = KeyPair::generate().map_err(|error| content(&key_file, x509::IssueError::from(error)))?;
    // The key's own digest keeps the names of two installations apart: a client that trusts both must not mix them up.
    let id: String = x509::fingerprint(&key.subject_public_key_info())
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(ID_CHARS)
        .collect();
    let room = x509::COMMON_NAME_CHARS_MAX - NAME.len() - ID_CHARS - 1;
    let hostname: String = hostname.chars().take(room).collect();
    let name = format!("{NAME}{hostname} {}", id.to_ascii_lowercase());
    let certificate = certificate(&name, &key, now).map_err(|error| content(&certificate_file, error))?;
    let key = Zeroizing::new(key.serialize_pem());
    disk::create_both(
        (&key_file, key.as_bytes()),
        (&certificate_file, certificate.pem().as_bytes()),
    )?;
    info!(path = %certificate_file.display(), %name, "a private CA has been made");
    Ok(())
}

/// A certificate of the authority, over its own key.
fn certificate(name: &str, key: &KeyPair, now: Timestamp) -> Result<rcgen::Certificate, x509::IssueError> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    // It signs leaves and nothing that could sign further (RFC 5280 §4.2.1.9).
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    x509::Life::from(now, PRIVATE_CA_LIFE).write_into(&mut parameters);
    parameters.serial_number = Some(x509::serial_number()?);
    Ok(parameters.self_signed(key)?)
}

fn read_key(file: &Path) -> Result<KeyPair, TlsSetupError> {
    let pem = Zeroizing::new(read_pem(file).map_err(|error| broken(file, error))?);
    disk::refuse_exposed(file)?;
    // The parser's own error might quote a line of the key.
    str::from_utf8(&pem)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok())
        .ok_or_else(|| refused(file, "holds no private key that can be used"))
}

/// The error of a file of the authority's, with the remedy.
fn broken(file: &Path, error: TlsSetupError) -> TlsSetupError {
    match error {
        TlsSetupError::Read { error, .. } => refused(file, format!("cannot be read: {error}")),
        TlsSetupError::Content { problem, .. } => refused(file, problem),
        other => other,
    }
}

fn refused(file: &Path, problem: impl std::fmt::Display) -> TlsSetupError {
    content(
        file,
        format!(
            "{problem}; restore {CERTIFICATE_FILE} and {KEY_FILE} from a backup, or remove both to have a new CA made at the \
             next start, which clients must then be given"
        ),
    )
}

/// Under the state directory.
const DIRECTORY: &str = "tls";
const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const FORMER_FILE: &str = "ca-former.pem";

/// How the authority's name begins.
const NAME: &str = "portreeve private CA ";
const ID_CHARS: usize = 8;

#[cfg(test)]
mod tests;
