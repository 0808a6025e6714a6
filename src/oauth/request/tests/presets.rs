//! What Google and Microsoft are sent, parameter by parameter, against their documentation: every parameter of each request is
//! named here, so that one too many fails as one too few does.
//!
//! - developers.google.com/identity/protocols/oauth2/native-app (consent, exchange, refresh, revocation) and
//!   …/oauth2/service-account (assertions)
//! - learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow, v2-oauth2-device-code,
//!   v2-oauth2-client-creds-grant-flow and certificate-credentials
//!
//! The providers are what a configuration makes of their presets.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::*;
use crate::clock;
use crate::config::{self, Environment, FileContent, GrantType, Provider};
use crate::oauth::assertion::test_support::{self, certificate, file, rsa_key, verified};
use crate::oauth::assertion::{self, ServiceAccount};
use crate::oauth::{RedirectUri, Vendor, scopes};

const GOOGLE: &str = r#"
[provider.google]
client_id = "1234.apps.googleusercontent.com"
client_secret = "GOCSPX-s3cr3t"
"#;

const MICROSOFT: &str = r#"
[provider.microsoft]
client_id = "00001111-aaaa-2222-bbbb-3333cccc4444"
"#;

const GOOGLE_ID: &str = "1234.apps.googleusercontent.com";
const MICROSOFT_ID: &str = "00001111-aaaa-2222-bbbb-3333cccc4444";
const MAIL: &str = "https://mail.google.com/";
const MICROSOFT_MAIL: &str = "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/POP.AccessAsUser.All \
                              https://outlook.office.com/SMTP.Send";
const JWT_BEARER_CLIENT: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A machine on which nothing is set and every file that is named can be read.
struct Bare;

impl Environment for Bare {
    fn variable(&self, _name: &str) -> Option<OsString> {
        None
    }

    fn is_root(&self) -> bool {
        true
    }

    fn hostname(&self) -> String {
        "mail.test".to_owned()
    }

    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<FileContent> {
        Ok(FileContent {
            bytes: std::fs::read(path)?,
            mode: 0o600,
        })
    }
}

fn provider(name: &str, text: &str) -> Arc<Provider> {
    Arc::clone(&config::parse(None, text, &Bare).unwrap().providers[name])
}

fn app(provider: &Provider) -> &OAuthApp {
    provider.oauth.as_ref().unwrap()
}

fn by_secret(app: &OAuthApp) -> Caller<'_> {
    Caller { app, assertion: None }
}

type Parameters = BTreeMap<String, String>;

/// Parameters, with the scopes in the order of the alphabet: theirs has no meaning (RFC 6749 §3.3).
fn parameters(pairs: impl IntoIterator<Item = (String, String)>) -> Parameters {
    let pairs = pairs.into_iter().collect::<Vec<_>>();
    let parameters: Parameters = pairs.iter().cloned().map(sorted).collect();
    assert_eq!(parameters.len(), pairs.len(), "a parameter twice (RFC 6749 §3.1, §3.2)");
    parameters
}

fn sorted((name, value): (String, String)) -> (String, String) {
    if name != "scope" {
        return (name, value);
    }
    let mut scopes = value.split(' ').collect::<Vec<_>>();
    scopes.sort_unstable();
    (name, scopes.join(" "))
}

fn expected(pairs: &[(&str, &str)]) -> Parameters {
    parameters(
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

/// The parameters of a form, which goes to `url` as forms go and with no credentials in its header.
fn posted(request: Result<TokenRequest, String>, url: &str) -> Parameters {
    let TokenRequest { http } = request.unwrap();
    assert_eq!((http.method().as_str(), http.uri().to_string().as_str()), ("POST", url));
    assert_eq!(http.headers()["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(http.headers()["accept"], "application/json");
    assert!(!http.headers().contains_key("authorization"));
    parameters(form_urlencoded::parse(http.body()).into_owned())
}

fn callback() -> RedirectUri {
    RedirectUri::parse("http://localhost:4711/callback").unwrap()
}

/// The parameters of an authorization request to `url`, but for the three that nobody could guess, which are checked.
fn asked(app: &OAuthApp, url: &str) -> Parameters {
    let endpoint = app.authorize_url.as_ref().unwrap();
    let Authorization {
        url: request,
        state,
        verifier,
        nonce,
    } = authorization(app, endpoint, &callback(), Some("ada@example.com"));
    assert_eq!(request.as_str().split('?').next(), Some(url));
    let mut parameters = parameters(request.query_pairs().into_owned());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose_secret()));
    let nonce = nonce.unwrap();
    for (name, value) in [
        ("state", state.expose_secret()),
        ("nonce", nonce.expose_secret()),
        ("code_challenge", challenge.as_str()),
    ] {
        assert_eq!(parameters.remove(name).as_deref(), Some(value));
    }
    parameters
}

#[test]
fn google_is_asked_for_a_consent_and_has_it_exchanged_refreshed_and_revoked() {
    let provider = provider("google", GOOGLE);
    let app = app(&provider);
    assert_eq!(app.grant, GrantType::Code);
    let consent = asked(app, "https://accounts.google.com/o/oauth2/v2/auth");
    let wanted = expected(&[
        ("client_id", GOOGLE_ID),
        ("redirect_uri", "http://localhost:4711/callback"),
        ("response_type", "code"),
        ("scope", &format!("{MAIL} openid email")),
        ("code_challenge_method", "S256"),
        ("access_type", "offline"),
        ("prompt", "consent"),
        ("login_hint", "ada@example.com"),
    ]);
    assert_eq!(consent, wanted);

    let token_url = app.token_url.as_ref().unwrap();
    let exchange = code_exchange(
        by_secret(app),
        token_url,
        &"4/code".into(),
        &"verifier".into(),
        &callback(),
    );
    let wanted = expected(&[
        ("grant_type", "authorization_code"),
        ("code", "4/code"),
        ("code_verifier", "verifier"),
        ("redirect_uri", "http://localhost:4711/callback"),
        ("client_id", GOOGLE_ID),
        ("client_secret", "GOCSPX-s3cr3t"),
    ]);
    assert_eq!(posted(exchange, "https://oauth2.googleapis.com/token"), wanted);

    let refreshed = refresh(
        by_secret(app),
        token_url,
        &"1//r1".into(),
        &scopes::of_refresh(app, Vendor::of(&provider), None),
    );
    let wanted = expected(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", "1//r1"),
        ("client_id", GOOGLE_ID),
        ("client_secret", "GOCSPX-s3cr3t"),
    ]);
    assert_eq!(posted(refreshed, "https://oauth2.googleapis.com/token"), wanted);

    // Google's page names the token alone; the rest is RFC 7009's, which its discovery document promises.
    let revoked = revocation(by_secret(app), app.revocation_url.as_ref().unwrap(), &"1//r1".into());
    let wanted = expected(&[
        ("token", "1//r1"),
        ("token_type_hint", "refresh_token"),
        ("client_id", GOOGLE_ID),
        ("client_secret", "GOCSPX-s3cr3t"),
    ]);
    assert_eq!(posted(revoked, "https://oauth2.googleapis.com/revoke"), wanted);
    assert_eq!(app.device_url, None, "closed to the mail scope");
}

#[test]
fn google_is_shown_a_service_accounts_assertion_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let key = rsa_key();
    let token_uri = "https://oauth2.googleapis.com/token";
    let key_file = file(&directory, "sa.json", test_support::service_account(&key, token_uri));
    let text = format!(
        "[provider.google]\ngrant = \"service_account\"\nservice_account_file = \"{}\"\n",
        key_file.display()
    );
    let provider = provider("google", &text);
    let app = app(&provider);
    let GrantType::ServiceAccount { key_file } = &app.grant else {
        unreachable!("{:?}", app.grant)
    };
    let token_url = app.token_url.as_ref().unwrap();
    let account = ServiceAccount::read(key_file).unwrap();
    let now = clock::now();
    let assertion = account
        .assertion(&app.scopes, token_url.as_str(), "ada@example.com", now)
        .unwrap();
    let form = posted(service_account(None, token_url, &assertion), token_uri);
    let wanted = expected(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", assertion.expose_secret()),
    ]);
    assert_eq!(form, wanted);
    let (header, claims) = verified(&form["assertion"], &key, Algorithm::RS256, token_uri);
    assert_eq!(
        (header.typ.as_deref(), header.kid.as_deref()),
        (Some("JWT"), Some("5f1e0c"))
    );
    let seconds = now.as_millis() / 1000;
    let wanted = json!({
        "iss": "proxy@mail-project.iam.gserviceaccount.com", "scope": MAIL, "aud": token_uri, "sub": "ada@example.com",
        "iat": seconds, "exp": seconds + 3600,
    });
    assert_eq!(claims, wanted);
}

#[test]
fn microsoft_is_asked_for_a_consent_and_has_it_exchanged_and_refreshed() {
    let provider = provider("microsoft", MICROSOFT);
    let app = app(&provider);
    let consent = asked(app, "https://login.microsoftonline.com/common/oauth2/v2.0/authorize");
    let wanted = expected(&[
        ("client_id", MICROSOFT_ID),
        ("redirect_uri", "http://localhost:4711/callback"),
        ("response_type", "code"),
        (
            "scope",
            &format!("{MICROSOFT_MAIL} offline_access openid email profile"),
        ),
        ("code_challenge_method", "S256"),
        ("login_hint", "ada@example.com"),
    ]);
    assert_eq!(consent, wanted);

    let url = "https://login.microsoftonline.com/common/oauth2/v2.0/token";
    let token_url = app.token_url.as_ref().unwrap();
    let exchange = code_exchange(
        by_secret(app),
        token_url,
        &"0.code".into(),
        &"verifier".into(),
        &callback(),
    );
    let wanted = expected(&[
        ("grant_type", "authorization_code"),
        ("code", "0.code"),
        ("code_verifier", "verifier"),
        ("redirect_uri", "http://localhost:4711/callback"),
        ("client_id", MICROSOFT_ID),
    ]);
    assert_eq!(posted(exchange, url), wanted);

    let refreshed = refresh(
        by_secret(app),
        token_url,
        &"0.r1".into(),
        &scopes::of_refresh(app, Vendor::of(&provider), None),
    );
    let wanted = expected(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", "0.r1"),
        ("scope", &format!("{MICROSOFT_MAIL} offline_access")),
        ("client_id", MICROSOFT_ID),
    ]);
    assert_eq!(posted(refreshed, url), wanted);
    assert_eq!(app.revocation_url, None, "there is none");
}

#[test]
fn microsoft_is_asked_for_a_device_code_and_polled() {
    let provider = provider("microsoft", &format!("{MICROSOFT}grant = \"device\"\n"));
    let app = app(&provider);
    let begun = device_code(by_secret(app), app.device_url.as_ref().unwrap());
    let wanted = expected(&[
        ("client_id", MICROSOFT_ID),
        (
            "scope",
            &format!("{MICROSOFT_MAIL} offline_access openid email profile"),
        ),
    ]);
    let url = "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode";
    assert_eq!(posted(begun, url), wanted);

    let polled = device_poll(by_secret(app), app.token_url.as_ref().unwrap(), &"D1".into());
    let wanted = expected(&[
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("client_id", MICROSOFT_ID),
        ("device_code", "D1"),
    ]);
    assert_eq!(
        posted(polled, "https://login.microsoftonline.com/common/oauth2/v2.0/token"),
        wanted
    );
}

#[test]
fn microsoft_lets_an_app_in_by_a_secret_in_each_of_its_clouds() {
    let clouds = [
        (
            "global",
            "login.microsoftonline.com",
            "https://outlook.office365.com/.default",
        ),
        (
            "gcc-high",
            "login.microsoftonline.us",
            "https://outlook.office365.us/.default",
        ),
        (
            "dod",
            "login.microsoftonline.us",
            "https://outlook.office365.us/.default",
        ),
        (
            "china",
            "login.partner.microsoftonline.cn",
            "https://partner.outlook.cn/.default",
        ),
    ];
    for (cloud, host, scope) in clouds {
        let text = format!(
            "{MICROSOFT}grant = \"client_credentials\"\ntenant = \"contoso.com\"\ncloud = \"{cloud}\"\nclient_secret = \"s3~cr3t\"\n"
        );
        let provider = provider("microsoft", &text);
        let app = app(&provider);
        let request = client_credentials(by_secret(app), app.token_url.as_ref().unwrap());
        let wanted = expected(&[
            ("client_id", MICROSOFT_ID),
            ("scope", scope),
            ("client_secret", "s3~cr3t"),
            ("grant_type", "client_credentials"),
        ]);
        assert_eq!(
            posted(request, &format!("https://{host}/contoso.com/oauth2/v2.0/token")),
            wanted
        );
    }
}

#[test]
fn microsoft_lets_an_app_in_by_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let key = rsa_key();
    let (pem, der) = certificate(&key);
    let text = format!(
        "{MICROSOFT}grant = \"client_credentials\"\ntenant = \"contoso.com\"\nclient_key_file = \"{}\"\nclient_certificate_file = \"{}\"\n",
        file(&directory, "key.pem", key.serialize_pem()).display(),
        file(&directory, "cert.pem", pem).display(),
    );
    let provider = provider("microsoft", &text);
    let app = app(&provider);
    let (token_url, now) = (app.token_url.as_ref().unwrap(), clock::now());
    let proof = assertion::of_client(
        app.client_key.as_ref().unwrap(),
        &app.client_id,
        token_url.as_str(),
        now,
    )
    .unwrap();
    let caller = Caller {
        app,
        assertion: Some(&proof),
    };
    let url = "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token";
    let form = posted(client_credentials(caller, token_url), url);
    let wanted = expected(&[
        ("client_id", MICROSOFT_ID),
        ("scope", "https://outlook.office365.com/.default"),
        ("client_assertion_type", JWT_BEARER_CLIENT),
        ("client_assertion", proof.expose_secret()),
        ("grant_type", "client_credentials"),
    ]);
    assert_eq!(form, wanted);
    let (header, claims) = verified(&form["client_assertion"], &key, Algorithm::PS256, url);
    assert_eq!(header.typ.as_deref(), Some("JWT"));
    assert_eq!(header.x5t_s256, Some(URL_SAFE_NO_PAD.encode(Sha256::digest(der))));
    assert_eq!((header.x5t, header.kid), (None, None));
    let seconds = now.as_millis() / 1000;
    let wanted = json!({
        "aud": url, "iss": MICROSOFT_ID, "sub": MICROSOFT_ID, "jti": claims["jti"], "iat": seconds, "nbf": seconds,
        "exp": seconds + 300,
    });
    assert_eq!(claims, wanted);

    let refreshed = posted(refresh(caller, token_url, &"0.r1".into(), &[]), url);
    let wanted = expected(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", "0.r1"),
        ("client_id", MICROSOFT_ID),
        ("client_assertion_type", JWT_BEARER_CLIENT),
        ("client_assertion", proof.expose_secret()),
    ]);
    assert_eq!(refreshed, wanted);
}
