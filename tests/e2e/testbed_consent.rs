//! The bed's provider as users, devices, applications and service accounts meet it, without the proxy: what the tests of
//! every grant take for granted is shown here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::support::dovecot::Dovecot;
use crate::support::imap::Imap;
use crate::support::provider::{Answer, AppAuth, Fault, Provider, ProviderOptions, ServiceAccount};
use crate::support::visitor::Visitor;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more";
const CALLBACK: &str = "http://127.0.0.1:12345/callback";
const ALL_SCOPES: [&str; 4] = ["openid", "email", "mail", "offline_access"];

async fn provider() -> Provider {
    Provider::start(ProviderOptions::default()).await
}

/// The URL that a browser is sent to; each of `changes` replaces a parameter, or removes it where it is empty.
fn authorization(provider: &Provider, changes: &[(&str, &str)]) -> String {
    let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let mut params: BTreeMap<&str, &str> = BTreeMap::from([
        ("response_type", "code"),
        ("client_id", "portreeve"),
        ("redirect_uri", CALLBACK),
        ("scope", "openid email mail offline_access"),
        ("state", "the state"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("prompt", "consent"),
    ]);
    params.extend(changes.iter().copied());
    params.retain(|_, value| !value.is_empty());
    Url::parse_with_params(&provider.endpoints().authorize_url, params)
        .expect("a URL")
        .into()
}

fn query(url: &Url) -> BTreeMap<String, String> {
    url.query_pairs().into_owned().collect()
}

async fn exchange(provider: &Provider, code: &str) -> Answer {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    let answer = provider.post_as_proxy(&provider.endpoints().token_url, &form).await;
    answer.expect("an answer comes")
}

async fn ask_for_token(provider: &Provider, form: &[(&str, &str)]) -> Answer {
    let answer = provider.post(&provider.endpoints().token_url, form).await;
    answer.expect("an answer comes")
}

/// The claims of a JWT that came from the provider itself.
fn claims(jwt: &str) -> Value {
    let part = jwt.split('.').nth(1).expect("a JWT has claims");
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

async fn opens(dovecot: &Dovecot, mailbox: &str, access_token: &str) -> bool {
    let mut imap = Imap::connect(dovecot.imap()).await;
    let reply = imap.authenticate_xoauth2(mailbox, access_token).await.reply;
    let is_refused = reply.tagged.starts_with("NO [AUTHENTICATIONFAILED]");
    assert!(reply.is_ok() || is_refused, "{reply:?}");
    reply.is_ok()
}

#[tokio::test]
async fn consent_gives_a_code_for_tokens_and_tells_whose_they_are() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let url = authorization(&provider, &[("login_hint", ALICE)]);

    let mut visitor = Visitor::new();
    let login = visitor.open(&url).await.page();
    assert_eq!(login.value_of("user").as_deref(), Some(ALICE));
    let fields = [("answer", "login"), ("user", ALICE)];
    let consent = visitor.submit(&login, &fields).await.page();
    assert_eq!(consent.ticked(), ALL_SCOPES);
    let mut fields = vec![("answer", "allow")];
    fields.extend(ALL_SCOPES.map(|scope| ("scope", scope)));
    let back = visitor.submit(&consent, &fields).await.elsewhere();

    assert!(back.as_str().starts_with(&format!("{CALLBACK}?")), "{back}");
    let answer = query(&back);
    assert_eq!(answer["state"], "the state");
    assert_eq!(answer["iss"], provider.endpoints().issuer);
    let tokens = exchange(&provider, &answer["code"]).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    assert_eq!(tokens.text("scope"), "openid email mail offline_access");
    let identity = claims(&tokens.text("id_token"));
    assert_eq!(identity["email"], ALICE);
    assert_eq!(identity["aud"], "portreeve");
    assert!(opens(&dovecot, ALICE, &tokens.text("access_token")).await);
    assert_ne!(tokens.text("refresh_token"), "");

    let requests = provider.authorization_requests().await;
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].params["login_hint"], ALICE);
    assert_eq!(requests[0].params["code_challenge_method"], "S256");
    let exchanges = provider.requests().await;
    assert_eq!(exchanges[0].user.as_deref(), Some(ALICE));
    assert_eq!(exchanges[0].params["code_verifier"], VERIFIER);
}

#[tokio::test]
async fn a_code_is_worth_nothing_without_its_verifier_or_a_second_time() {
    let provider = provider().await;
    let url = authorization(&provider, &[("code_challenge", ""), ("code_challenge_method", "")]);
    let refused = query(&Visitor::new().open(&url).await.elsewhere());
    assert_eq!(refused["error"], "invalid_request", "{refused:?}");

    let url = authorization(&provider, &[]);
    let back = Visitor::new().consent(&url, ALICE, &ALL_SCOPES).await.elsewhere();
    let code = &query(&back)["code"];
    let without = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", CALLBACK),
    ];
    let answer = provider.post_as_proxy(&provider.endpoints().token_url, &without).await;
    assert_eq!(answer.expect("an answer comes").text("error"), "invalid_grant");

    let back = Visitor::new().consent(&url, ALICE, &ALL_SCOPES).await.elsewhere();
    let code = &query(&back)["code"];
    let tokens = exchange(&provider, code).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    assert_eq!(exchange(&provider, code).await.text("error"), "invalid_grant");
    let refreshed = provider.refresh(&tokens.text("refresh_token")).await;
    assert_eq!(refreshed.expect("an answer comes").text("error"), "invalid_grant");
}

#[tokio::test]
async fn what_is_not_ticked_is_not_granted() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let url = authorization(&provider, &[]);

    let partly = Visitor::new()
        .consent(&url, ALICE, &["openid", "email"])
        .await
        .elsewhere();
    let tokens = exchange(&provider, &query(&partly)["code"]).await;
    assert_eq!(tokens.text("scope"), "openid email");
    assert!(tokens.json().get("refresh_token").is_none());
    assert!(!opens(&dovecot, ALICE, &tokens.text("access_token")).await);

    let denied = query(&Visitor::new().consent(&url, ALICE, &[]).await.elsewhere());
    assert_eq!(denied["error"], "access_denied");
    assert_eq!(denied["state"], "the state");
    assert_eq!(denied["iss"], provider.endpoints().issuer);
}

#[tokio::test]
async fn a_user_may_be_another_than_the_one_hinted_at() {
    let provider = provider().await;
    let url = authorization(&provider, &[("login_hint", ALICE)]);
    for (user, email) in [(BOB, BOB), ("carol", "carol@example.com")] {
        let back = Visitor::new().consent(&url, user, &ALL_SCOPES).await.elsewhere();
        let tokens = exchange(&provider, &query(&back)["code"]).await;
        assert_eq!(claims(&tokens.text("id_token"))["email"], email);
    }
}

#[tokio::test]
async fn users_are_sent_back_to_loopback_and_to_what_is_registered_only() {
    let provider = provider().await;
    let public = "https://localhost:8443/oauth/callback";
    for loopback in [
        "http://localhost:1/",
        "http://127.0.0.1:2/callback",
        "http://[::1]:3/oauth/callback",
    ] {
        let url = authorization(&provider, &[("redirect_uri", loopback)]);
        let back = Visitor::new().consent(&url, ALICE, &ALL_SCOPES).await.elsewhere();
        assert!(back.as_str().starts_with(loopback), "{back}");
    }
    for stranger in [public, "http://127.0.0.1:2/elsewhere", "https://example.com/callback"] {
        let url = authorization(&provider, &[("redirect_uri", stranger)]);
        assert_eq!(Visitor::new().open(&url).await.page().status, 400, "{stranger}");
    }
    provider.redirect_to(&[public]).await;
    let url = authorization(&provider, &[("redirect_uri", public)]);
    let back = Visitor::new().consent(&url, ALICE, &ALL_SCOPES).await.elsewhere();
    assert!(back.as_str().starts_with(public), "{back}");
}

/// A device and the codes that it was given.
struct Device {
    provider: Provider,
    codes: Answer,
}

impl Device {
    async fn start(options: ProviderOptions) -> Device {
        Device::at(Provider::start(options).await).await
    }

    /// Asks for new codes.
    async fn again(self) -> Device {
        Device::at(self.provider).await
    }

    async fn at(provider: Provider) -> Device {
        let form = [("scope", "openid email mail offline_access")];
        let codes = provider.post_as_proxy(&provider.endpoints().device_url, &form).await;
        let codes = codes.expect("an answer comes");
        assert_eq!(codes.status, 200, "{codes:?}");
        Device { provider, codes }
    }

    async fn poll(&self) -> Answer {
        let code = self.codes.text("device_code");
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", code.as_str()),
        ];
        let answer = self
            .provider
            .post_as_proxy(&self.provider.endpoints().token_url, &form)
            .await;
        answer.expect("an answer comes")
    }

    /// Types the code in and lets `user` grant these scopes, or deny.
    async fn visit(&self, user: &str, scopes: &[&str]) -> String {
        let mut visitor = Visitor::new();
        let entry = visitor.open(&self.codes.text("verification_uri")).await.page();
        let code = self.codes.text("user_code");
        let confirm = visitor.submit(&entry, &[("user_code", &code)]).await.page();
        assert!(confirm.html.contains(&code), "{confirm:?}");
        let login = visitor.submit(&confirm, &[]).await.page();
        let consent = visitor
            .submit(&login, &[("answer", "login"), ("user", user)])
            .await
            .page();
        let mut fields: Vec<(&str, &str)> = scopes.iter().map(|scope| ("scope", *scope)).collect();
        fields.push(("answer", if scopes.is_empty() { "deny" } else { "allow" }));
        visitor.submit(&consent, &fields).await.page().html
    }
}

#[tokio::test]
async fn a_device_waits_for_its_user_and_no_faster_than_it_was_told() {
    let device = Device::start(ProviderOptions::default()).await;
    assert_eq!(device.codes.json()["interval"], 1);
    assert_eq!(device.codes.json()["expires_in"], 600);
    let complete = device.codes.text("verification_uri_complete");
    assert!(complete.ends_with(&device.codes.text("user_code")), "{complete}");
    assert_eq!(device.poll().await.text("error"), "authorization_pending");
    assert_eq!(device.poll().await.text("error"), "slow_down");

    let done = device.visit(ALICE, &ALL_SCOPES).await;
    assert!(done.contains("Go back to your device"), "{done}");
    // The refusal above has made it five seconds more.
    let slowed = Instant::now();
    let interval = Duration::from_secs(6);
    tokio::time::sleep(interval).await;
    let tokens = device.poll().await;
    assert!(slowed.elapsed() >= interval);
    assert_eq!(tokens.status, 200, "{tokens:?}");
    assert_eq!(claims(&tokens.text("id_token"))["email"], ALICE);
    assert_ne!(tokens.text("refresh_token"), "");
    assert_eq!(
        device.provider.device_requests().await[0].params["client_id"],
        "portreeve"
    );
}

#[tokio::test]
async fn a_device_is_told_to_slow_down_that_it_was_denied_and_that_it_waited_too_long() {
    let quick = || ProviderOptions {
        device_interval_seconds: 0,
        ..ProviderOptions::default()
    };
    let device = Device::start(quick()).await;
    device.provider.fault_next(1, Fault::SlowDown).await;
    let slow_down = device.poll().await;
    assert_eq!((slow_down.status, slow_down.text("error").as_str()), (400, "slow_down"));

    let device = Device::start(quick()).await;
    let done = device.visit(ALICE, &[]).await;
    assert!(!done.contains("Go back to your device"), "{done}");
    assert_eq!(device.poll().await.text("error"), "access_denied");

    device.provider.device_codes_live(1).await;
    let device = device.again().await;
    let mut answer = device.poll().await.text("error");
    while answer == "authorization_pending" {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = device.poll().await.text("error");
    }
    assert_eq!(answer, "expired_token");
}

#[tokio::test]
async fn an_application_opens_the_mailboxes_it_may_and_a_user_the_own_and_shared_ones() {
    let provider = provider().await;
    let dovecot = Dovecot::start(&provider).await;
    let endpoints = provider.endpoints();
    let mut form = vec![
        ("grant_type", "client_credentials"),
        ("client_id", endpoints.app_client_id.as_str()),
        ("scope", "mail"),
        ("client_secret", "wrong"),
    ];
    assert_eq!(ask_for_token(&provider, &form).await.text("error"), "invalid_client");
    form.pop();
    form.push(("client_secret", &endpoints.client_secret));
    let tokens = ask_for_token(&provider, &form).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    assert!(tokens.json().get("refresh_token").is_none());

    let of_app = tokens.text("access_token");
    assert!(opens(&dovecot, ALICE, &of_app).await);
    assert!(opens(&dovecot, BOB, &of_app).await);
    assert!(!opens(&dovecot, "chief@private.example", &of_app).await);
    let of_alice = provider.mint(ALICE).await.access_token;
    assert!(opens(&dovecot, "shared@example.com", &of_alice).await);
    assert!(!opens(&dovecot, BOB, &of_alice).await);
}

fn rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key can be made")
}

fn sign(key: &KeyPair, header: &Header, claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).expect("it is a key");
    jsonwebtoken::encode(header, claims, &key).expect("claims can be signed")
}

async fn ask_with_assertion(provider: &Provider, key: &KeyPair, header: &Header) -> Answer {
    let endpoints = provider.endpoints();
    let now = jiff::Timestamp::now().as_second();
    let claims = json!({
        "iss": endpoints.app_client_id, "sub": endpoints.app_client_id, "aud": endpoints.token_url,
        "iat": now, "exp": now + 300, "jti": rand::random::<u64>().to_string(),
    });
    let assertion = sign(key, header, &claims);
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "mail"),
        ("client_id", endpoints.app_client_id.as_str()),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion.as_str()),
    ];
    ask_for_token(provider, &form).await
}

#[tokio::test]
async fn an_application_shows_who_it_is_by_key_or_by_the_certificate_that_it_names() {
    let key = rsa_key();
    let with = async |public_pem: String, alg| {
        let app_auth = AppAuth::PrivateKeyJwt { public_pem, alg };
        Provider::start(ProviderOptions {
            app_auth,
            ..ProviderOptions::default()
        })
        .await
    };
    let provider = with(key.public_key_pem(), "RS256").await;
    let rs256 = Header::new(Algorithm::RS256);
    assert_eq!(ask_with_assertion(&provider, &key, &rs256).await.status, 200);
    let stranger = ask_with_assertion(&provider, &rsa_key(), &rs256).await;
    assert_eq!(stranger.text("error"), "invalid_client");

    let certificate = CertificateParams::default()
        .self_signed(&key)
        .expect("a key can sign itself");
    let provider = with(certificate.pem(), "PS256").await;
    let mut ps256 = Header::new(Algorithm::PS256);
    let nameless = ask_with_assertion(&provider, &key, &ps256).await;
    assert_eq!(nameless.text("error"), "invalid_client", "{nameless:?}");
    ps256.x5t_s256 = Some(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der())));
    let named = ask_with_assertion(&provider, &key, &ps256).await;
    assert_eq!(named.status, 200, "{named:?}");
}

#[tokio::test]
async fn a_service_account_stands_in_for_the_users_of_its_domain() {
    let key = rsa_key();
    let provider = Provider::start(ProviderOptions {
        service_account: Some(ServiceAccount {
            email: "robot@project.example".to_owned(),
            public_key: key.public_key_pem(),
            scopes: vec!["mail".to_owned()],
            domain: Some("example.com".to_owned()),
        }),
        ..ProviderOptions::default()
    })
    .await;
    let dovecot = Dovecot::start(&provider).await;
    let now = jiff::Timestamp::now().as_second();
    let ask = async |key: &KeyPair, changes: Value| {
        let mut claims = json!({
            "iss": "robot@project.example", "scope": "mail", "aud": provider.endpoints().token_url,
            "sub": ALICE, "iat": now, "exp": now + 3600,
        });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let assertion = sign(key, &Header::new(Algorithm::RS256), &claims);
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", assertion.as_str()),
        ];
        ask_for_token(&provider, &form).await
    };

    let tokens = ask(&key, json!({})).await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    assert_eq!(tokens.json()["expires_in"], 3600);
    assert!(tokens.json().get("refresh_token").is_none());
    assert!(opens(&dovecot, ALICE, &tokens.text("access_token")).await);
    assert!(!opens(&dovecot, BOB, &tokens.text("access_token")).await);

    let refusals = [
        (json!({ "exp": now + 3601 }), "invalid_grant"),
        (json!({ "exp": now - 1, "iat": now - 3601 }), "invalid_grant"),
        (json!({ "aud": "https://elsewhere.example/token" }), "invalid_grant"),
        (json!({ "iss": "other@project.example" }), "invalid_grant"),
        (json!({ "sub": "alice@elsewhere.example" }), "invalid_grant"),
        (json!({ "scope": "mail calendar" }), "unauthorized_client"),
        (json!({ "scope": "" }), "invalid_scope"),
    ];
    for (changes, error) in refusals {
        let refused = ask(&key, changes.clone()).await;
        assert_eq!(
            (refused.status, refused.text("error").as_str()),
            (400, error),
            "{changes}"
        );
    }
    let forged = ask(&rsa_key(), json!({})).await;
    assert_eq!(forged.text("error_description"), "Invalid JWT Signature.");
}

#[tokio::test]
async fn a_password_gives_tokens_to_those_who_have_one() {
    let provider = Provider::start(ProviderOptions {
        passwords: BTreeMap::from([(ALICE.to_owned(), "se cret".to_owned())]),
        ..ProviderOptions::default()
    })
    .await;
    let ask = async |user, password| {
        let form = [
            ("grant_type", "password"),
            ("username", user),
            ("password", password),
            ("scope", "mail offline_access"),
        ];
        let answer = provider.post_as_proxy(&provider.endpoints().token_url, &form).await;
        answer.expect("an answer comes")
    };
    let tokens = ask(ALICE, "se cret").await;
    assert_eq!(tokens.status, 200, "{tokens:?}");
    let refreshed = provider.refresh(&tokens.text("refresh_token")).await;
    assert_eq!(refreshed.expect("an answer comes").status, 200);
    for (user, password) in [(ALICE, "wrong"), (BOB, "se cret"), ("constructor", "")] {
        assert_eq!(ask(user, password).await.text("error"), "invalid_grant", "{user}");
    }
}

#[tokio::test]
async fn a_token_that_is_given_back_is_noted_and_its_grant_is_gone() {
    let provider = provider().await;
    let grant = provider.mint(ALICE).await;
    let form = [
        ("token", grant.refresh_token.as_str()),
        ("token_type_hint", "refresh_token"),
    ];
    let given_back = provider
        .post_as_proxy(&provider.endpoints().revocation_url, &form)
        .await;
    assert_eq!(given_back.expect("an answer comes").status, 200);
    let refreshed = provider.refresh(&grant.refresh_token).await;
    assert_eq!(refreshed.expect("an answer comes").text("error"), "invalid_grant");
    let revocations = provider.revocations().await;
    assert_eq!(revocations.len(), 1);
    assert_eq!(revocations[0].params["token"], grant.refresh_token);
    let revocation = &revocations[0];
    assert_eq!(
        (revocation.path.as_str(), revocation.status),
        ("/token/revocation", Some(200))
    );
}
