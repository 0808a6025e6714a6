//! Assertions, with signatures checked, and what is said of files that cannot sign any.

use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::Algorithm;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ECDSA_P521_SHA512, PKCS_ED25519};
use serde_json::json;

use super::test_support::{certificate, file, rsa_key, service_account, verified};
use super::*;
use crate::clock;

const TOKEN_URL: &str = "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token";

fn key_of(algorithm: &'static rcgen::SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

fn client_key(key_file: PathBuf, certificate_file: Option<PathBuf>) -> ClientKey {
    ClientKey {
        key_file,
        certificate_file,
    }
}

/// A PEM block around `der`.
fn block(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap());
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.collect::<Vec<_>>().join("\n")
    )
}

/// The inner key of an RSA key of 2048 bits in PKCS #8, whose wrapping takes 26 bytes.
fn pkcs1(key: &KeyPair) -> String {
    block("RSA PRIVATE KEY", &key.serialized_der()[26..])
}

#[test]
fn each_kind_of_key_signs_in_its_own_way_and_is_named_by_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let cases = [
        (rsa_key(), Algorithm::RS256, Algorithm::PS256),
        (key_of(&PKCS_ECDSA_P256_SHA256), Algorithm::ES256, Algorithm::ES256),
        (key_of(&PKCS_ECDSA_P384_SHA384), Algorithm::ES384, Algorithm::ES384),
        (key_of(&PKCS_ED25519), Algorithm::EdDSA, Algorithm::EdDSA),
    ];
    for (key, bare, certified) in cases {
        let key_file = file(&directory, "key.pem", key.serialize_pem());
        let (pem, der) = certificate(&key);
        let certificate_file = file(&directory, "cert.pem", pem);
        let now = clock::now();
        let sign = |certificate_file| {
            let signed = of_client(&client_key(key_file.clone(), certificate_file), "app", TOKEN_URL, now);
            signed.unwrap().expose_secret().to_owned()
        };
        let (header, claims) = verified(&sign(None), &key, bare, TOKEN_URL);
        assert_eq!((header.typ.as_deref(), header.x5t_s256), (Some("JWT"), None));
        let seconds = now.as_millis() / 1000;
        let id = claims["jti"].as_str().unwrap();
        assert_eq!(id.len(), 43, "256 bits");
        let expected = json!({
            "iss": "app", "sub": "app", "aud": TOKEN_URL, "jti": id, "iat": seconds, "nbf": seconds, "exp": seconds + 300,
        });
        assert_eq!(claims, expected);
        let signed = sign(Some(certificate_file));
        let (header, claims) = verified(&signed, &key, certified, TOKEN_URL);
        assert_eq!(header.x5t_s256, Some(URL_SAFE_NO_PAD.encode(Sha256::digest(der))));
        assert_eq!((header.x5t, header.kid), (None, None));
        assert_ne!(claims["jti"], id, "an assertion is used once");
    }
}

#[test]
fn a_key_is_found_among_whatever_stands_around_it() {
    let directory = tempfile::tempdir().unwrap();
    let key = rsa_key();
    let (pem, _) = certificate(&key);
    let exported = format!(
        "Bag Attributes\n    friendlyName: app\n{pem}Key Attributes: <No Attributes>\n{}",
        key.serialize_pem()
    );
    for text in [exported, pkcs1(&key), key.serialize_pem().replace('\n', "\r\n")] {
        let key_file = file(&directory, "key.pem", text);
        let signed = of_client(&client_key(key_file, None), "app", TOKEN_URL, clock::now()).unwrap();
        verified(signed.expose_secret(), &key, Algorithm::RS256, TOKEN_URL);
    }
}

/// What is said of a key file with this content.
fn refusal(content: impl AsRef<[u8]>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let key_file = file(&directory, "app-key.pem", content);
    let error = of_client(&client_key(key_file, None), "app", TOKEN_URL, clock::now()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("app-key.pem: "), "{error}");
    error
}

#[test]
fn a_file_that_cannot_sign_is_named_with_what_is_wrong_and_nothing_of_it_is_told() {
    const BODY: &[u8] = b"a body that must not be told to anybody";
    let rsa = rsa_key();
    let p256 = key_of(&PKCS_ECDSA_P256_SHA256);
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let cases = [
        (String::new(), "holds no private key"),
        ("hunter2".to_owned(), "holds no private key"),
        (certificate(&rsa).0, "holds a certificate and no private key"),
        (rsa.public_key_pem(), "holds a public key"),
        (block("ENCRYPTED PRIVATE KEY", BODY), "is encrypted"),
        (legacy.to_owned(), "is encrypted"),
        (block("EC PRIVATE KEY", BODY), "SEC 1"),
        (
            block("EC PARAMETERS", BODY) + &block("EC PRIVATE KEY", BODY),
            "openssl pkcs8 -topk8 -nocrypt",
        ),
        (block("OPENSSH PRIVATE KEY", BODY), "OpenSSH"),
        (block("DSA PRIVATE KEY", BODY), "not of RSA, EC"),
        (block("PRIVATE KEY", BODY), "cannot be read"),
        (
            rsa.serialize_pem().replace("-----END", "-----FIN"),
            "holds no private key",
        ),
        (block("PRIVATE KEY", &rsa.serialized_der()[..900]), "cannot be read"),
        (block("PRIVATE KEY", &rsa.serialized_der()[26..]), "cannot be read"),
        (
            block("RSA PRIVATE KEY", rsa.serialized_der()),
            "another form than its PEM label says",
        ),
        (
            block("RSA PRIVATE KEY", p256.serialized_der()),
            "another form than its PEM label says",
        ),
        (
            key_of(&PKCS_ECDSA_P521_SHA512).serialize_pem(),
            "of another curve than P-256 and P-384",
        ),
    ];
    for (content, expected) in &cases {
        let error = refusal(content);
        assert!(error.contains(expected), "{expected}: {error}");
        let told = content.lines().filter(|line| line.len() > 3 && !line.starts_with('-'));
        for line in told {
            assert!(!error.contains(line), "{error}");
        }
    }
    assert!(refusal(rsa.serialized_der()).contains("is not text"));
    assert!(refusal("A".repeat(65_537)).contains("larger than 65536 bytes"));
    let missing = client_key("/nonexistent/app-key.pem".into(), None);
    let error = of_client(&missing, "app", TOKEN_URL, clock::now())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot read /nonexistent/app-key.pem: "), "{error}");
}

#[test]
fn a_key_and_a_certificate_that_do_not_belong_together_are_told_apart_here() {
    let directory = tempfile::tempdir().unwrap();
    let key_file = file(&directory, "app-key.pem", rsa_key().serialize_pem());
    let other = file(&directory, "app-cert.pem", certificate(&rsa_key()).0);
    let none = file(&directory, "no-cert.pem", "hunter2");
    for (certificate_file, expected) in [(other, "does not belong"), (none, "holds no certificate")] {
        let key = client_key(key_file.clone(), Some(certificate_file));
        let error = of_client(&key, "app", TOKEN_URL, clock::now()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_service_account_speaks_for_a_user_for_an_hour_at_most() {
    let directory = tempfile::tempdir().unwrap();
    let key = rsa_key();
    let uri = "https://oauth2.googleapis.com/token";
    let account = ServiceAccount::read(&file(&directory, "sa.json", service_account(&key, uri))).unwrap();
    assert_eq!(account.token_uri.as_ref().map(url::Url::as_str), Some(uri));
    let now = clock::now();
    let scopes = ["https://mail.google.com/".to_owned(), "more".to_owned()];
    let signed = account.assertion(&scopes, uri, "ada@example.com", now).unwrap();
    let (header, claims) = verified(signed.expose_secret(), &key, Algorithm::RS256, uri);
    assert_eq!(
        (header.typ.as_deref(), header.kid.as_deref()),
        (Some("JWT"), Some("5f1e0c"))
    );
    let seconds = now.as_millis() / 1000;
    let expected = json!({
        "iss": "proxy@mail-project.iam.gserviceaccount.com", "scope": "https://mail.google.com/ more", "aud": uri,
        "sub": "ada@example.com", "iat": seconds, "exp": seconds + 3600,
    });
    assert_eq!(claims, expected);
}

#[test]
fn a_file_that_is_no_service_accounts_says_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let whole: serde_json::Value =
        serde_json::from_str(&service_account(&rsa_key(), "https://x.example/token")).unwrap();
    let with = |member: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        changed[member] = value;
        changed.to_string()
    };
    let cases = [
        (String::new(), "is not the JSON key"),
        ("{\"private_key\": \"hunter2".to_owned(), "line 1, column"),
        (
            json!({"installed": {"client_id": "1"}}).to_string(),
            "is the file of an OAuth client",
        ),
        (
            json!({"web": {"client_id": "1"}}).to_string(),
            "is the file of an OAuth client",
        ),
        (
            with("type", json!("authorized_user")),
            "another type than service_account",
        ),
        (with("private_key", json!(null)), "has no private_key"),
        (with("client_email", json!("")), "has no client_email"),
        (
            with("private_key", json!("hunter2")),
            "private_key: holds no private key",
        ),
        (
            with("private_key", json!(key_of(&PKCS_ED25519).serialize_pem())),
            "private_key: is not of RSA",
        ),
        (with("token_uri", json!("hunter2")), "token_uri: is not a URL"),
        (with("token_uri", json!(7)), "is not the JSON key"),
    ];
    for (content, expected) in cases {
        let error = ServiceAccount::read(&file(&directory, "sa.json", content))
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("sa.json: ") && error.contains(expected),
            "{expected}: {error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
    let whole = with("private_key_id", json!(null));
    assert!(ServiceAccount::read(&file(&directory, "sa.json", whole)).is_ok());
}
