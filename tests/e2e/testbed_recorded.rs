//! The recorded Google and Microsoft of the bed, without the proxy: that they are as peculiar as the real ones are
//! documented to be, and refuse what those refuse.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use reqwest::{Certificate, Client, Proxy};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::support::browser::{Browser, Person};
use crate::support::dovecot::Dovecot;
use crate::support::imap::Imap;
use crate::support::provider_options::ServiceAccount;
use crate::support::recorded::{
    Ahead, GOOGLE_CLIENT, GOOGLE_SECRET, MICROSOFT_CLIENT, MICROSOFT_SECRET, Proof, Recorded, Registrations, Vendor,
    Verdict,
};
use crate::support::visitor::Visitor;

const ALICE: &str = "alice@example.com";
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";
const BACK: &str = "http://localhost:54321/";
const GMAIL: &str = "openid email https://mail.google.com/";
const OUTLOOK: &str = "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send \
                       offline_access openid email profile";
const MICROSOFT_TOKEN: &str = "/common/oauth2/v2.0/token";

fn challenge() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// Logs in, agrees to these scopes, and returns what the browser was sent back with.
async fn consent(url: &str, params: &[(&str, &str)], user: &str, scopes: &str) -> Url {
    let url = Url::parse_with_params(url, params).unwrap();
    let mut visitor = Visitor::new();
    let page = visitor.open(url.as_str()).await.page();
    let mut fields = vec![("user", user), ("answer", "allow")];
    fields.extend(scopes.split(' ').map(|scope| ("scope", scope)));
    visitor.submit(&page, &fields).await.elsewhere()
}

fn param(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(each, _)| each == name);
    found.unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

async fn post(url: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let http = Client::builder().no_proxy().build().unwrap();
    post_with(&http, url, form).await
}

async fn post_with(http: &Client, url: &str, form: &[(&str, &str)]) -> (u16, Value) {
    let mut body = url::form_urlencoded::Serializer::new(String::new());
    body.extend_pairs(form);
    let request = http
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(body.finish()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// What Google tells those who come back with a code of these parameters.
async fn google_tokens(recorded: &Recorded, access: &[(&str, &str)]) -> Value {
    let challenge = challenge();
    let mut params = vec![
        ("client_id", GOOGLE_CLIENT),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", GMAIL),
        ("state", "the state"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    params.extend(access);
    let back = consent(&format!("{}/o/oauth2/v2/auth", recorded.url()), &params, ALICE, GMAIL).await;
    assert_eq!(param(&back, "iss"), "https://accounts.google.com");
    assert_eq!(param(&back, "scope"), GMAIL);
    let code = param(&back, "code");
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("client_id", GOOGLE_CLIENT),
        ("client_secret", GOOGLE_SECRET),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ];
    let (status, answer) = post(&format!("{}/token", recorded.url()), &form).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

#[tokio::test]
async fn google_gives_a_refresh_token_for_offline_access_with_consent_only_and_does_not_rotate_it() {
    let recorded = Recorded::start(Registrations {
        google_is_testing: true,
        ..Registrations::default()
    })
    .await;
    let online = google_tokens(&recorded, &[]).await;
    assert!(online.get("refresh_token").is_none(), "{online}");
    let silent = google_tokens(&recorded, &[("access_type", "offline")]).await;
    assert!(silent.get("refresh_token").is_none(), "{silent}");
    let offline = google_tokens(&recorded, &[("access_type", "offline"), ("prompt", "consent")]).await;
    assert_eq!(offline["scope"], GMAIL);
    assert_eq!(offline["refresh_token_expires_in"], 604_799);
    assert!(offline["id_token"].is_string(), "{offline}");

    let token_url = format!("{}/token", recorded.url());
    let refresh_token = offline["refresh_token"].as_str().unwrap();
    let mut form = vec![
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh_token),
        ("client_id", GOOGLE_CLIENT),
    ];
    let (status, answer) = post(&token_url, &form).await;
    assert_eq!(
        (status, &answer["error_description"]),
        (400, &json!("client_secret is missing."))
    );
    form.push(("client_secret", GOOGLE_SECRET));
    let (status, answer) = post(&token_url, &form).await;
    assert_eq!(status, 200, "{answer}");
    assert!(answer.get("refresh_token").is_none(), "{answer}");

    recorded.answer_next(1, "/token", &Ahead::Google("invalid_rapt")).await;
    let (status, answer) = post(&token_url, &form).await;
    assert_eq!((status, &answer["error_subtype"]), (400, &json!("invalid_rapt")));
    let (status, answer) = post(&format!("{}/revoke", recorded.url()), &[("token", refresh_token)]).await;
    assert_eq!((status, answer), (200, json!({})));
    let (_, answer) = post(&token_url, &form).await;
    assert_eq!(answer["error_description"], "Token has been expired or revoked.");
    recorded.requests_to("/token").await.last().unwrap().assert_form(&form);
}

#[tokio::test]
async fn google_refuses_mail_to_devices_and_what_is_not_registered_on_a_page() {
    let recorded = Recorded::start(Registrations::default()).await;
    let device_url = format!("{}/device/code", recorded.url());
    let (status, answer) = post(&device_url, &[("client_id", GOOGLE_CLIENT), ("scope", GMAIL)]).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_scope")));
    let harmless = [("client_id", GOOGLE_CLIENT), ("scope", "openid email")];
    assert_eq!(post(&device_url, &harmless).await.0, 200);

    let params = [
        ("client_id", GOOGLE_CLIENT),
        ("redirect_uri", "https://elsewhere.example/"),
        ("response_type", "code"),
        ("scope", GMAIL),
    ];
    let url = Url::parse_with_params(&format!("{}/o/oauth2/v2/auth", recorded.url()), params).unwrap();
    let page = Visitor::new().open(url.as_str()).await.page();
    assert_eq!(page.status, 400);
    assert!(page.html.contains("redirect_uri_mismatch"), "{page:?}");
    let back = json!({ "error": "access_denied" });
    recorded.answer_next(1, "/o/oauth2/v2/auth", &Ahead::Back(back)).await;
    let sent = Visitor::new().open(&format!("{url}&state=the+state")).await.elsewhere();
    assert_eq!(
        (param(&sent, "error"), param(&sent, "state")),
        ("access_denied".into(), "the state".into())
    );
}

#[tokio::test]
async fn the_real_names_are_reached_through_the_proxy_and_a_mailbox_opens() {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let recorded = Recorded::start(Registrations {
        google_service_account: Some(ServiceAccount {
            email: "robot@project.iam.gserviceaccount.com".to_owned(),
            public_key: key.public_key_pem(),
            scopes: vec!["https://mail.google.com/".to_owned()],
            domain: Some("example.com".to_owned()),
        }),
        ..Registrations::default()
    })
    .await;
    let ca = Certificate::from_pem(&std::fs::read(recorded.ca_file()).unwrap()).unwrap();
    let http = Client::builder()
        .proxy(Proxy::all(recorded.proxy_url()).unwrap())
        .tls_certs_only([ca])
        .build()
        .unwrap();
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": "robot@project.iam.gserviceaccount.com", "scope": "https://mail.google.com/", "sub": ALICE,
        "aud": "https://oauth2.googleapis.com/token", "iat": now, "exp": now + 3600,
    });
    let signer = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap();
    let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &signer).unwrap();
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", assertion.as_str()),
    ];
    let (status, answer) = post_with(&http, "https://oauth2.googleapis.com/token", &form).await;
    assert_eq!(status, 200, "{answer}");
    let access_token = answer["access_token"].as_str().unwrap();
    assert!(access_token.len() > 1000);
    let request = &recorded.requests_to("/token").await[0];
    assert_eq!(
        (request.scheme.as_str(), request.host.as_str()),
        ("https", "oauth2.googleapis.com")
    );
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.status),
        ("POST", "/token", Some(200))
    );
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert!(http.get("https://example.com/").send().await.is_err());

    let dovecot = Dovecot::start_asking(recorded.introspection_url(), "none", &[]).await;
    let mut imap = Imap::connect(dovecot.imap()).await;
    assert!(imap.authenticate_xoauth2(ALICE, access_token).await.reply.is_ok());
    recorded.revoke(Vendor::Google, ALICE).await;
    let mut imap = Imap::connect(dovecot.imap()).await;
    assert!(!imap.authenticate_xoauth2(ALICE, access_token).await.reply.is_ok());
}

#[tokio::test]
async fn a_browser_reaches_the_real_names_too() {
    let recorded = Recorded::start(Registrations::default()).await;
    let browser = Browser::start_behind(recorded.proxy_url(), &[&recorded.ca_file()]).await;
    let owner = browser.open(Person::default()).await;
    let params = [
        ("client_id", GOOGLE_CLIENT),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", "https://mail.google.com/"),
        ("login_hint", ALICE),
    ];
    let url = Url::parse_with_params("https://accounts.google.com/o/oauth2/v2/auth", params).unwrap();
    let page = owner.goto(url.as_str()).await;
    assert_eq!((page.status, page.title.as_str()), (200, "Sign in with Google"));
    recorded.requests_to("/o/oauth2/v2/auth").await[0].assert_query(&params);
}

async fn microsoft_code(recorded: &Recorded, scopes: &str) -> String {
    let challenge = challenge();
    let params = [
        ("client_id", MICROSOFT_CLIENT),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", OUTLOOK),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let url = format!("{}/common/oauth2/v2.0/authorize", recorded.url());
    param(&consent(&url, &params, ALICE, scopes).await, "code")
}

fn redemption(code: &str) -> Vec<(&str, &str)> {
    vec![
        ("grant_type", "authorization_code"),
        ("client_id", MICROSOFT_CLIENT),
        ("code", code),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
        ("scope", OUTLOOK),
    ]
}

#[tokio::test]
async fn microsoft_names_what_was_granted_without_offline_access_and_rotates_leniently() {
    let recorded = Recorded::start(Registrations::default()).await;
    let url = format!("{}{MICROSOFT_TOKEN}", recorded.url());
    let code = microsoft_code(&recorded, &OUTLOOK.replace("https://outlook.office.com/SMTP.Send ", "")).await;
    let (status, answer) = post(&url, &redemption(&code)).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["scope"],
        "https://outlook.office.com/IMAP.AccessAsUser.All openid email profile"
    );
    assert_eq!(
        (&answer["expires_in"], &answer["ext_expires_in"]),
        (&json!(4799), &json!(4799))
    );
    assert!(answer["access_token"].as_str().unwrap().len() > 1500);
    let (_, again) = post(&url, &redemption(&code)).await;
    assert_eq!(again["error_codes"], json!([54005]));

    let first = answer["refresh_token"].as_str().unwrap();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", MICROSOFT_CLIENT),
        ("refresh_token", first),
        (
            "scope",
            "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
        ),
    ];
    for _ in 0..2 {
        let (status, answer) = post(&url, &form).await;
        assert_eq!(status, 200, "{answer}");
        assert_ne!(answer["refresh_token"], first);
    }
    let mut mixed = form.to_vec();
    mixed[3].1 = "https://outlook.office.com/SMTP.Send https://graph.microsoft.com/Mail.Send";
    assert_eq!(post(&url, &mixed).await.1["error_codes"], json!([28000]));
    recorded.revoke(Vendor::Microsoft, ALICE).await;
    assert_eq!(post(&url, &form).await.1["error_codes"], json!([70000]));
}

#[tokio::test]
async fn microsoft_refuses_by_number_with_all_that_comes_with_it() {
    let recorded = Recorded::start(Registrations::default()).await;
    let url = format!("{}{MICROSOFT_TOKEN}", recorded.url());
    let grant = recorded.mint(Vendor::Microsoft, ALICE, OUTLOOK).await;
    assert_eq!(grant.expires_in, 4799);
    assert_ne!(grant.access_token, "");
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", MICROSOFT_CLIENT),
        ("refresh_token", grant.refresh_token.as_str()),
    ];
    for number in [
        50034, 50076, 50079, 50126, 50173, 50194, 53003, 54005, 65001, 70000, 70008, 70011, 70016, 70043, 700_016,
        700_025, 700_082, 7_000_215, 7_000_218, 7_000_222, 90094,
    ] {
        recorded.answer_next(1, MICROSOFT_TOKEN, &Ahead::Aadsts(number)).await;
        let (status, answer) = post(&url, &form).await;
        assert!([400, 401].contains(&status), "{answer}");
        assert_eq!(answer["error_codes"], json!([number]));
        let text = answer["error_description"].as_str().unwrap();
        assert!(text.starts_with(&format!("AADSTS{number}: ")), "{text}");
        for part in ["Trace ID: ", "Correlation ID: ", "Timestamp: "] {
            assert!(text.contains(part), "{text}");
        }
        for member in ["error", "timestamp", "trace_id", "correlation_id", "error_uri"] {
            assert!(answer[member].is_string(), "{member}: {answer}");
        }
    }
    assert_eq!(post(&url, &form).await.0, 200);

    let odd = json!({ "error": "throttled" });
    recorded
        .answer_next(2, MICROSOFT_TOKEN, &Ahead::Json(429, odd.clone()))
        .await;
    assert_eq!(post(&url, &form).await, (429, odd.clone()));
    assert_eq!(post(&url, &form).await, (429, odd));
    recorded
        .answer_next(1, MICROSOFT_TOKEN, &Ahead::Text(502, "<h1>Bad Gateway</h1>"))
        .await;
    let http = Client::builder().no_proxy().build().unwrap();
    let answer = http.post(&url).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap().as_str()),
        (502, "<h1>Bad Gateway</h1>")
    );
}

#[tokio::test]
async fn microsoft_wants_no_secret_of_a_public_client_and_one_of_another() {
    let mut with_secret = vec![("grant_type", "refresh_token"), ("client_id", MICROSOFT_CLIENT)];
    with_secret.push(("client_secret", MICROSOFT_SECRET));
    let recorded = Recorded::start(Registrations::default()).await;
    let (status, answer) = post(&format!("{}{MICROSOFT_TOKEN}", recorded.url()), &with_secret).await;
    assert_eq!((status, &answer["error_codes"]), (401, &json!([700_025])));

    let recorded = Recorded::start(Registrations {
        microsoft_proof: Proof::Secret,
        ..Registrations::default()
    })
    .await;
    let url = format!("{}{MICROSOFT_TOKEN}", recorded.url());
    assert_eq!(post(&url, &with_secret[..2]).await.1["error_codes"], json!([7_000_218]));
    let mut app = with_secret.clone();
    app[0].1 = "client_credentials";
    app.push(("scope", "https://outlook.office365.com/.default"));
    assert_eq!(post(&url, &app).await.1["error_codes"], json!([50059]));
    let url = format!("{}/contoso.onmicrosoft.com/oauth2/v2.0/token", recorded.url());
    let (status, answer) = post(&url, &app).await;
    assert_eq!((status, &answer["expires_in"]), (200, &json!(3599)));
    assert!(
        answer.get("refresh_token").is_none() && answer.get("scope").is_none(),
        "{answer}"
    );
    app[3].1 = "https://outlook.office365.com/IMAP.AccessAsApp";
    assert_eq!(post(&url, &app).await.1["error_codes"], json!([1_002_012]));
    app[2].1 = "wrong";
    assert_eq!(post(&url, &app).await.1["error_codes"], json!([7_000_215]));
}

#[tokio::test]
async fn microsoft_takes_an_assertion_of_the_certificate_that_it_names_for_its_own_endpoint() {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let recorded = Recorded::start(Registrations {
        microsoft_proof: Proof::Certificate(certificate.pem()),
        ..Registrations::default()
    })
    .await;
    let path = "contoso.onmicrosoft.com/oauth2/v2.0/token";
    let host = recorded.url().trim_start_matches("http://");
    let ask = async |audience: &str, algorithm, thumbprint: &str| {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "aud": audience, "iss": MICROSOFT_CLIENT, "sub": MICROSOFT_CLIENT, "jti": "one", "nbf": now, "exp": now + 600,
        });
        let mut header = Header::new(algorithm);
        header.x5t_s256 = Some(thumbprint.to_owned());
        let signer = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap();
        let assertion = jsonwebtoken::encode(&header, &claims, &signer).unwrap();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", MICROSOFT_CLIENT),
            ("scope", "https://outlook.office365.com/.default"),
            (
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ),
            ("client_assertion", assertion.as_str()),
        ];
        post(&format!("http://{host}/{path}"), &form).await
    };
    let thumbprint = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
    let audience = format!("https://{host}/{path}");
    for algorithm in [Algorithm::RS256, Algorithm::PS256] {
        let (status, answer) = ask(&audience, algorithm, &thumbprint).await;
        assert_eq!(status, 200, "{answer}");
    }
    for (audience, thumbprint) in [
        ("https://elsewhere.example/", thumbprint.as_str()),
        (&audience, "another"),
    ] {
        let (status, answer) = ask(audience, Algorithm::PS256, thumbprint).await;
        assert_eq!((status, &answer["error_codes"]), (401, &json!([700_027])));
    }
}

#[tokio::test]
async fn microsofts_devices_wait_are_declined_and_come_too_late() {
    let recorded = Recorded::start(Registrations {
        device_interval: 1,
        ..Registrations::default()
    })
    .await;
    let begin = async || {
        let form = [("client_id", MICROSOFT_CLIENT), ("scope", OUTLOOK)];
        let (status, codes) = post(&format!("{}/common/oauth2/v2.0/devicecode", recorded.url()), &form).await;
        assert_eq!(status, 200, "{codes}");
        assert!(codes.get("verification_uri_complete").is_none(), "{codes}");
        assert_eq!(codes["interval"], 1);
        assert!(
            codes["message"]
                .as_str()
                .unwrap()
                .contains(codes["user_code"].as_str().unwrap())
        );
        codes
    };
    let poll = async |codes: &Value| {
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("client_id", MICROSOFT_CLIENT),
            ("device_code", codes["device_code"].as_str().unwrap()),
        ];
        post(&format!("{}{MICROSOFT_TOKEN}", recorded.url()), &form).await.1
    };
    let codes = begin().await;
    let user_code = codes["user_code"].as_str().unwrap();
    assert_eq!(poll(&codes).await["error"], "authorization_pending");
    let slow_down = json!({ "error": "slow_down" });
    recorded
        .answer_next(1, MICROSOFT_TOKEN, &Ahead::Json(400, slow_down.clone()))
        .await;
    assert_eq!(poll(&codes).await, slow_down);
    recorded.decide(user_code, Verdict::Allow(ALICE)).await;
    let tokens = poll(&codes).await;
    assert!(
        tokens["refresh_token"].is_string() && tokens["id_token"].is_string(),
        "{tokens}"
    );
    let request = recorded.requests_to(MICROSOFT_TOKEN).await.into_iter().last().unwrap();
    assert_eq!(request.param("client_id"), MICROSOFT_CLIENT);

    for (verdict, error) in [
        (Verdict::Decline, "authorization_declined"),
        (Verdict::Expire, "expired_token"),
    ] {
        let codes = begin().await;
        recorded.decide(codes["user_code"].as_str().unwrap(), verdict).await;
        assert_eq!(poll(&codes).await["error"], error);
    }
}
