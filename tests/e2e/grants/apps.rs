//! Grants that nobody consents to in a browser: of an app that opens mailboxes by itself, of a service account, by password.

use std::collections::BTreeMap;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::json;

use super::{ALICE, BOB, account, assert_opens, bed};
use crate::support::open_directory;
use crate::support::portreeve::{Portreeve, Setup};
use crate::support::provider::{AppAuth, Endpoints, ProviderOptions, ServiceAccount};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_app_with_a_secret_opens_many_mailboxes() {
    let bed = bed(ProviderOptions::default(), |endpoints| {
        app(endpoints) + &format!("\nclient_secret = \"{}\"", endpoints.client_secret)
    })
    .await;
    for user in [ALICE, BOB] {
        let token = account(&bed, user, json!({})).await;
        assert_opens(&bed, user, &token).await;
    }
    // Where the organization does not let it in, the upstream says so.
    let chief = account(&bed, "chief@private.example", json!({})).await;
    let reply = bed.login("chief@private.example", &chief).await;
    assert!(reply.starts_with("NO [AUTHENTICATIONFAILED] "), "{reply}");
    for request in bed.provider.requests().await {
        let names: Vec<&str> = request.params.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["client_id", "client_secret", "grant_type", "scope"],
            "{request:?}"
        );
        assert_eq!(request.params["grant_type"], "client_credentials");
        assert_eq!(request.params["scope"], "mail");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_shows_who_it_is_by_its_key_or_by_its_certificate() {
    let key = rsa_key();
    let certificate = CertificateParams::default()
        .self_signed(&key)
        .expect("a key can sign itself");
    let directory = open_directory();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("key.pem"), key.serialize_pem()).expect("the key can be written");
    std::fs::write(path("certificate.pem"), certificate.pem()).expect("the certificate can be written");
    let by_key = format!("client_key_file = \"{}\"", path("key.pem"));
    let by_certificate = format!("{by_key}\nclient_certificate_file = \"{}\"", path("certificate.pem"));
    for (public_pem, alg, settings) in [
        (key.public_key_pem(), "RS256", by_key),
        (certificate.pem(), "PS256", by_certificate),
    ] {
        let options = ProviderOptions {
            app_auth: AppAuth::PrivateKeyJwt { public_pem, alg },
            ..ProviderOptions::default()
        };
        let bed = bed(options, |endpoints| app(endpoints) + "\n" + &settings).await;
        for user in [ALICE, BOB] {
            let token = account(&bed, user, json!({})).await;
            assert_opens(&bed, user, &token).await;
        }
        let requests = bed.provider.requests().await;
        assert!(
            requests
                .iter()
                .all(|request| !request.params.contains_key("client_secret"))
        );
        let mut assertions: Vec<&str> = requests
            .iter()
            .map(|each| each.params["client_assertion"].as_str())
            .collect();
        assertions.dedup();
        assert_eq!(assertions.len(), requests.len(), "an assertion is used once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_speaks_for_the_users_of_its_domain() {
    let key = rsa_key();
    let options = ProviderOptions {
        service_account: Some(ServiceAccount {
            email: "robot@project.example".to_owned(),
            public_key: key.public_key_pem(),
            scopes: vec!["mail".to_owned()],
            domain: Some("example.com".to_owned()),
        }),
        ..ProviderOptions::default()
    };
    let directory = open_directory();
    let file = directory.path().join("robot.json");
    let text = json!({
        "type": "service_account", "client_email": "robot@project.example", "private_key_id": "1",
        "private_key": key.serialize_pem(), "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(&file, text.to_string()).expect("the key can be written");
    let bed = bed(options, |endpoints| {
        format!(
            "grant = \"service_account\"\nservice_account_file = \"{}\"\ntoken_url = \"{}\"\nscopes = [\"mail\"]",
            file.display(),
            endpoints.token_url
        )
    })
    .await;
    for user in [ALICE, BOB] {
        let token = account(&bed, user, json!({})).await;
        assert_opens(&bed, user, &token).await;
    }
    let stranger = account(&bed, "alice@elsewhere.example", json!({})).await;
    let reply = bed.login("alice@elsewhere.example", &stranger).await;
    assert!(reply.starts_with("NO [CONTACTADMIN] "), "{reply}");
    for request in bed.provider.requests().await {
        let names: Vec<&str> = request.params.keys().map(String::as_str).collect();
        assert_eq!(names, ["assertion", "grant_type"], "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_gives_a_grant_where_the_provider_takes_it() {
    let options = ProviderOptions {
        passwords: BTreeMap::from([(ALICE.to_owned(), "se cret".to_owned())]),
        ..ProviderOptions::default()
    };
    let bed = bed(options, |endpoints| {
        format!("{}\ngrant = \"password\"", super::consenting(endpoints))
    })
    .await;
    let token = account(&bed, ALICE, json!({ "password": "se cret" })).await;
    assert_opens(&bed, ALICE, &token).await;
    let requests = bed.provider.requests().await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!(requests[0].params["grant_type"], "password");
    assert_eq!(requests[0].params["username"], ALICE);

    let wrong = account(&bed, BOB, json!({ "password": "wrong" })).await;
    assert_eq!(bed.login(BOB, &wrong).await, super::GRANT_GONE);
    assert_eq!(bed.shown(BOB).await["state"], "needs-authorization");
    assert!(!bed.portreeve.log().contains("se cret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_not_taken_to_the_token_endpoints_of_google_and_microsoft() {
    for provider in ["google", "microsoft"] {
        let setup = Setup::default().with(&format!(
            "[provider.{provider}]\nclient_id = \"app\"\nclient_secret = \"s\"\ngrant = \"password\""
        ));
        let mut portreeve = Portreeve::prepare(&setup);
        portreeve.spawn();
        assert_eq!(portreeve.process().wait().await.code(), Some(78), "{provider}");
        portreeve.process().until_output_ends().await;
        let log = portreeve.log();
        let said = format!("provider.{provider}.grant");
        assert!(log.contains(&said) && log.contains("use code"), "{log}");
    }
}

/// The table of an app that opens mailboxes by itself, but for what proves that it is the app.
fn app(endpoints: &Endpoints) -> String {
    format!(
        "grant = \"client_credentials\"\ntoken_url = \"{}\"\nclient_id = \"{}\"\nscopes = [\"mail\"]",
        endpoints.token_url, endpoints.app_client_id
    )
}

fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key can be made")
}
