//! Keys for the tests of assertions, and a reading of what was signed with them.

use std::path::PathBuf;

use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::Value;
use tempfile::TempDir;

/// An RSA key.
pub(in crate::oauth) fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()
}

/// A certificate of `key`, in PEM, and its DER.
pub(in crate::oauth) fn certificate(key: &KeyPair) -> (String, Vec<u8>) {
    let parameters = CertificateParams::new(["app.example.com".to_owned()]).unwrap();
    let certificate = parameters.self_signed(key).unwrap();
    (certificate.pem(), certificate.der().to_vec())
}

/// The JSON key of a service account as Google makes it.
pub(in crate::oauth) fn service_account(key: &KeyPair, token_uri: &str) -> String {
    serde_json::json!({
        "type": "service_account",
        "project_id": "mail-project",
        "private_key_id": "5f1e0c",
        "private_key": key.serialize_pem(),
        "client_email": "proxy@mail-project.iam.gserviceaccount.com",
        "client_id": "114810918273645",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    })
    .to_string()
}

/// Writes a file of this content.
pub(in crate::oauth) fn file(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let file = directory.path().join(name);
    std::fs::write(&file, content).unwrap();
    file
}

/// The header and claims of an assertion, whose signature by `key` and whose audience are checked.
pub(in crate::oauth) fn verified(jwt: &str, key: &KeyPair, algorithm: Algorithm, audience: &str) -> (Header, Value) {
    let pem = key.public_key_pem();
    let key = match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => DecodingKey::from_ed_pem(pem.as_bytes()),
        _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&[audience]);
    let token = decode::<Value>(jwt, &key.unwrap(), &validation).unwrap();
    (token.header, token.claims)
}
