//! What the two are sent by apps that nobody consents to in a browser (v2-oauth2-client-creds-grant-flow and
//! certificate-credentials; developers.google.com/identity/protocols/oauth2/service-account).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{ALICE, AUTHORIZED, BOB, Office, assert_posted_to, claims};
use crate::support::open_directory;
use crate::support::provider_options::ServiceAccount;
use crate::support::recorded::{Ahead, MICROSOFT_CLIENT, MICROSOFT_SECRET, Proof, Registrations, Vendor};

const TENANT: &str = "contoso.onmicrosoft.com";
const TOKEN: &str = "/contoso.onmicrosoft.com/oauth2/v2.0/token";
const SCOPE: &str = "https://outlook.office365.com/.default";
const ROBOT: &str = "robot@project.iam.gserviceaccount.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn microsofts_app_with_a_secret_asks_for_the_default_scope_of_its_tenant() {
    let table = app() + &format!("\nclient_secret = \"{MICROSOFT_SECRET}\"");
    let office = office(Proof::Secret, &table).await;
    for user in [ALICE, BOB] {
        office.account(user, json!({})).await;
        let token = office.portreeve.add_token(user).await;
        let reply = office.login(user, &token).await;
        assert_eq!(reply, format!("OK {user} authenticated"), "{}", office.portreeve.log());
    }
    for request in office.recorded.requests_to(TOKEN).await {
        assert_posted_to(&request, "login.microsoftonline.com");
        request.assert_form(&[
            ("client_id", MICROSOFT_CLIENT),
            ("scope", SCOPE),
            ("client_secret", MICROSOFT_SECRET),
            ("grant_type", "client_credentials"),
        ]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn microsofts_app_with_a_certificate_sends_an_assertion_that_names_it() {
    let key = rsa_key();
    let certificate = CertificateParams::default()
        .self_signed(&key)
        .expect("a key can sign itself");
    let directory = open_directory();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("key.pem"), key.serialize_pem()).expect("the key can be written");
    std::fs::write(path("certificate.pem"), certificate.pem()).expect("the certificate can be written");
    let table = format!(
        "{}\nclient_auth = \"private_key_jwt\"\nclient_key_file = \"{}\"\nclient_certificate_file = \"{}\"",
        app(),
        path("key.pem"),
        path("certificate.pem")
    );
    let office = office(Proof::Certificate(certificate.pem()), &table).await;
    office.account(ALICE, json!({})).await;
    let token = office.portreeve.add_token(ALICE).await;
    assert_eq!(
        office.login(ALICE, &token).await,
        AUTHORIZED,
        "{}",
        office.portreeve.log()
    );

    let request = office.only(TOKEN).await;
    assert_posted_to(&request, "login.microsoftonline.com");
    let assertion = request.param("client_assertion");
    request.assert_form(&[
        ("client_id", MICROSOFT_CLIENT),
        ("scope", SCOPE),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion),
        ("grant_type", "client_credentials"),
    ]);
    let (header, claims) = claims(assertion);
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
    assert_eq!(header, json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
    let endpoint = "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token";
    assert_eq!(
        (&claims["aud"], &claims["iss"]),
        (&json!(endpoint), &json!(MICROSOFT_CLIENT))
    );
    assert_eq!(claims["sub"], MICROSOFT_CLIENT);
    assert!(claims["jti"].as_str().is_some_and(|id| id.len() >= 22), "{claims}");
    let time = |name: &str| claims[name].as_i64().unwrap_or_else(|| panic!("{name}: {claims}"));
    assert!(time("nbf") <= time("iat"), "{claims}");
    // "Short: 5-10 minutes after nbf at most."
    assert!((1..=600).contains(&(time("exp") - time("nbf"))), "{claims}");
    assert!(
        (time("iat") - jiff::Timestamp::now().as_second()).abs() < 60,
        "{claims}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_service_account_speaks_for_a_user_by_a_signed_assertion() {
    let key = rsa_key();
    let (office, _directory) = workspace(&key).await;
    for user in [ALICE, BOB] {
        office.account(user, json!({})).await;
        let token = office.portreeve.add_token(user).await;
        let reply = office.login(user, &token).await;
        assert_eq!(reply, format!("OK {user} authenticated"), "{}", office.portreeve.log());
    }
    let requests = office.recorded.requests_to("/token").await;
    assert_eq!(requests.len(), 2);
    for (request, user) in requests.iter().zip([ALICE, BOB]) {
        assert_posted_to(request, "oauth2.googleapis.com");
        let assertion = request.param("assertion");
        request.assert_form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion),
        ]);
        let (header, claims) = claims(assertion);
        assert_eq!(header, json!({ "alg": "RS256", "typ": "JWT", "kid": "0123abcd" }));
        let (iat, exp) = (
            claims["iat"].as_i64().expect("a time"),
            claims["exp"].as_i64().expect("a time"),
        );
        assert!((1..=3600).contains(&(exp - iat)), "{claims}");
        let expected = json!({
            "iss": ROBOT, "scope": "https://mail.google.com/", "aud": "https://oauth2.googleapis.com/token",
            "sub": user, "iat": iat, "exp": exp,
        });
        assert_eq!(claims, expected);
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_audience(&["https://oauth2.googleapis.com/token"]);
        let public = DecodingKey::from_rsa_pem(key.public_key_pem().as_bytes()).expect("it is a key");
        jsonwebtoken::decode::<Value>(assertion, &public, &validation).expect("the signature is the key's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegation_that_google_does_not_know_is_the_administrators_to_make() {
    let (office, _directory) = workspace(&rsa_key()).await;
    office.account(ALICE, json!({})).await;
    let token = office.portreeve.add_token(ALICE).await;
    let said = "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of \
                the scopes requested.";
    let refusal = json!({ "error": "unauthorized_client", "error_description": said });
    office
        .recorded
        .answer_next(1, "/token", &Ahead::Json(401, refusal))
        .await;
    assert_eq!(office.login(ALICE, &token).await, super::APP_REFUSED);
    let shown = office.shown(ALICE).await;
    assert_eq!(
        (&shown["state"], &shown["lastError"]["code"]),
        (&json!("failing"), &json!("unauthorized_client"))
    );
    let told = |field: &str| shown["lastError"][field].as_str().unwrap_or_default().to_owned();
    assert!(
        told("message").contains("domain-wide delegation") && told("remedy").contains("Admin console"),
        "{shown}"
    );
}

fn app() -> String {
    format!("client_id = \"{MICROSOFT_CLIENT}\"\ntenant = \"{TENANT}\"\ngrant = \"client_credentials\"")
}

async fn office(microsoft_proof: Proof, table: &str) -> Office {
    let registrations = Registrations {
        microsoft_proof,
        ..Registrations::default()
    };
    Office::start(Vendor::Microsoft, registrations, table).await
}

/// Google with a service account whose key file, as Google makes it, is all that the proxy is given.
async fn workspace(key: &KeyPair) -> (Office, tempfile::TempDir) {
    let registrations = Registrations {
        google_service_account: Some(ServiceAccount {
            email: ROBOT.to_owned(),
            public_key: key.public_key_pem(),
            scopes: vec!["https://mail.google.com/".to_owned()],
            domain: Some("example.com".to_owned()),
        }),
        ..Registrations::default()
    };
    let directory = open_directory();
    let file = directory.path().join("robot.json");
    let text = json!({
        "type": "service_account", "project_id": "project", "private_key_id": "0123abcd",
        "private_key": key.serialize_pem(), "client_email": ROBOT, "client_id": "1234567890",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    });
    std::fs::write(&file, text.to_string()).expect("the key can be written");
    let table = format!(
        "grant = \"service_account\"\nservice_account_file = \"{}\"",
        file.display()
    );
    (Office::start(Vendor::Google, registrations, &table).await, directory)
}

fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key can be made")
}
