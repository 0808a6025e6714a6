//! A private key in PEM, and signing with it. Pure.

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header, encode};
use serde::Serialize;

use crate::secret::SecretString;

/// A private key: RSA, EC on P-256 or P-384, or Ed25519.
pub(super) struct PrivateKey(EncodingKey);

/// How an assertion's header says which key it was signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Naming {
    /// Not at all: whoever checks it tries the app's keys.
    None,
    /// By its certificate's thumbprint (RFC 7515 §4.1.8).
    Certificate(String),
    /// By its id (§4.1.4).
    Id(String),
}

impl PrivateKey {
    /// Reads the first private key of a PEM text; what stands around it, a certificate or attributes, is passed over.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right.
    pub(super) fn from_pem(text: &str) -> Result<Self, &'static str> {
        let Some((label, block)) = private_block(text) else {
            return Err(if text.contains("-----BEGIN CERTIFICATE-----") {
                "holds a certificate and no private key; give it as client_certificate_file, and here the key"
            } else if text.contains("PUBLIC KEY-----") {
                "holds a public key; the private one is needed to sign"
            } else {
                "holds no private key (a PEM block 'BEGIN PRIVATE KEY' is expected)"
            });
        };
        // RFC 7468 §11; RFC 1421 §4.6.1.1 for keys of the older form.
        if label == "ENCRYPTED PRIVATE KEY" || block.contains("Proc-Type: 4,ENCRYPTED") {
            return Err("the key is encrypted; store it without a passphrase, readable for the daemon alone");
        }
        let block = block.as_bytes();
        let known = match label {
            "PRIVATE KEY" => EncodingKey::from_rsa_pem(block)
                .or_else(|_| EncodingKey::from_ec_pem(block))
                .or_else(|_| EncodingKey::from_ed_pem(block)),
            "RSA PRIVATE KEY" => EncodingKey::from_rsa_pem(block),
            "EC PRIVATE KEY" => {
                return Err(
                    "holds an EC key in the form of SEC 1; turn it into PKCS #8 by 'openssl pkcs8 -topk8 -nocrypt'",
                );
            }
            "OPENSSH PRIVATE KEY" => {
                return Err(
                    "holds a key of OpenSSH; make one of RSA, EC (P-256, P-384) or Ed25519 by 'openssl genpkey'",
                );
            }
            _ => return Err("holds a key that is not of RSA, EC (P-256, P-384) or Ed25519"),
        };
        let key =
            known.map_err(|_| "the key cannot be read; it is damaged, or not of RSA, EC (P-256, P-384) or Ed25519")?;
        Ok(Self(key))
    }

    pub(super) fn is_rsa(&self) -> bool {
        self.0.family() == AlgorithmFamily::Rsa
    }

    /// Signs `claims`.
    ///
    /// # Errors
    /// Why this key cannot.
    pub(super) fn sign(&self, naming: &Naming, claims: &impl Serialize) -> Result<SecretString, &'static str> {
        for algorithm in self.algorithms(naming) {
            let mut header = Header::new(*algorithm);
            match naming {
                Naming::None => {}
                Naming::Certificate(thumbprint) => header.x5t_s256 = Some(thumbprint.clone()),
                Naming::Id(id) => header.kid = Some(id.clone()),
            }
            if let Ok(signed) = encode(&header, claims, &self.0) {
                return Ok(signed.into());
            }
        }
        Err(match self.0.family() {
            AlgorithmFamily::Rsa => {
                "the key cannot sign; it is damaged, of less than 2048 bits, or in another form than its \
                                     PEM label says"
            }
            AlgorithmFamily::Ec => "the key cannot sign; it is damaged, or of another curve than P-256 and P-384",
            AlgorithmFamily::Ed | AlgorithmFamily::Hmac => "the key cannot sign; it is damaged",
        })
    }

    /// What it may sign with; of an EC key only the one that belongs to its curve works.
    fn algorithms(&self, naming: &Naming) -> &'static [Algorithm] {
        match (self.0.family(), naming) {
            // Microsoft's "should" (learn.microsoft.com/entra/identity-platform/certificate-credentials), which goes with a
            // thumbprint of SHA-256; its RS256 was for those of SHA-1.
            (AlgorithmFamily::Rsa, Naming::Certificate(_)) => &[Algorithm::PS256],
            // What everybody knows (OpenID Connect Core §15.1), and all that Google takes.
            (AlgorithmFamily::Rsa, _) => &[Algorithm::RS256],
            (AlgorithmFamily::Ec, _) => &[Algorithm::ES256, Algorithm::ES384],
            (AlgorithmFamily::Ed, _) => &[Algorithm::EdDSA],
            (AlgorithmFamily::Hmac, _) => &[],
        }
    }
}

/// The label and the whole of the first PEM block of a private key.
fn private_block(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    loop {
        let (_, begun) = rest.split_once(BEGIN)?;
        let (label, after) = begun.split_once("-----")?;
        if label.ends_with("PRIVATE KEY") {
            let end = format!("-----END {label}-----");
            let (body, _) = after.split_once(&end)?;
            let start = text.len().checked_sub(begun.len() + BEGIN.len())?;
            let length = BEGIN.len() + label.len() + "-----".len() + body.len() + end.len();
            return text.get(start..start + length).map(|block| (label, block));
        }
        rest = after;
    }
}

const BEGIN: &str = "-----BEGIN ";
