//! Google and Microsoft by their presets' own URLs, which lead to the bed's recorded servers through an HTTPS proxy: what is
//! sent to them, parameter by parameter as their documentation wants it, and what becomes of an account whatever they answer.
//!
//! The documentation: developers.google.com/identity/protocols/oauth2 (native-app, limited-input-device, service-account) and
//! learn.microsoft.com/entra/identity-platform (v2-oauth2-auth-code-flow, v2-oauth2-device-code,
//! v2-oauth2-client-creds-grant-flow, certificate-credentials).

mod apps;
mod google;
mod microsoft;
mod refusals;
mod route;

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use url::Url;

use crate::support::bed::until;
use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{Endpoint, Portreeve, Setup};
use crate::support::protocol::Protocol;
use crate::support::recorded::{Recorded, RecordedRequest, Registrations, Vendor};
use crate::support::upstream::Security;
use crate::support::visitor::{Page, Visitor};
use crate::support::{PATIENCE, open_directory};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

/// Where the owners of these tests come back to: a program on their own machine, named as the command line does it, since
/// Microsoft compares it with a registered `http://localhost`, which has no path.
const BACK: &str = "http://localhost:54321";

const AUTHORIZED: &str = "OK alice@example.com authenticated";
const GRANT_GONE: &str = "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again";
const APP_REFUSED: &str = "NO [CONTACTADMIN] The proxy's OAuth application is refused, tell the administrator";

/// The proxy with one provider, whose OAuth is the vendor's and whose mailboxes are a Dovecot's.
struct Office {
    recorded: Recorded,
    dovecot: Dovecot,
    portreeve: Portreeve,
    vendor: Vendor,
    _trusted: TempDir,
}

impl Office {
    /// Starts everything for IMAP. `table` is what is in the provider's table beside endpoints and trust.
    async fn start(vendor: Vendor, registrations: Registrations, table: &str) -> Office {
        Office::start_serving(&[], vendor, registrations, table).await
    }

    /// The same with listeners for more protocols.
    async fn start_serving(more: &[Protocol], vendor: Vendor, registrations: Registrations, table: &str) -> Office {
        let recorded = Recorded::start(registrations).await;
        let dovecot = Dovecot::start_asking(recorded.introspection_url(), "none", &[]).await;
        let trusted = open_directory();
        let bundle = trusted.path().join("trusted.pem");
        std::fs::write(&bundle, both(&recorded.ca_file(), &dovecot.ca_file())).expect("the bundle can be written");
        let endpoints: String = [
            Endpoint::new(Protocol::Imap, dovecot.imaps(), Security::Implicit),
            Endpoint::new(Protocol::Pop3, dovecot.pop3s(), Security::Implicit),
        ]
        .iter()
        .map(Endpoint::to_toml)
        .collect();
        let name = name_of(vendor);
        let setup = more.iter().fold(Setup::default(), |setup, each| setup.listening(*each));
        let setup = setup.with(&format!(
            "[provider.{name}]\n{table}\nca_file = \"{}\"\n{endpoints}",
            bundle.display()
        ));
        let mut portreeve = Portreeve::prepare(&setup);
        let https_proxy = format!("HTTPS_PROXY={}", recorded.proxy_url());
        portreeve.spawn_under(&[
            "env",
            "-u",
            "NO_PROXY",
            "-u",
            "no_proxy",
            "-u",
            "https_proxy",
            &https_proxy,
        ]);
        portreeve.until_ready().await;
        Office {
            recorded,
            dovecot,
            portreeve,
            vendor,
            _trusted: trusted,
        }
    }

    /// Adds an account without a credential; `settings` are added to it.
    async fn account(&self, account: &str, settings: Value) {
        let mut body = json!({ "account": account, "provider": name_of(self.vendor) });
        for (name, value) in settings.as_object().expect("settings are an object") {
            body[name] = value.clone();
        }
        self.portreeve.post("/v1/account", &body).await;
    }

    /// Adds an account with a grant for `scope`; returns an access token for it.
    async fn granted(&self, account: &str, scope: &str) -> String {
        let grant = self.recorded.mint(self.vendor, account, scope).await;
        let oauth2 = json!({ "refreshToken": grant.refresh_token });
        self.account(account, json!({ "oauth2": oauth2 })).await;
        self.portreeve.add_token(account).await
    }

    /// Begins a code flow; the URL for the owner's browser.
    async fn begin_code(&self, account: &str) -> Url {
        let body = json!({ "flow": "code", "redirectUri": BACK });
        let path = format!("/v1/account/{account}/authorize");
        let begun = self.portreeve.post(&path, &body).await;
        Url::parse(begun["url"].as_str().expect("a URL is text")).expect("it is a URL")
    }

    /// Where the owner's browser is sent who sees the vendor's page and agrees to `scopes`, or to nothing.
    async fn decide(&self, url: &Url, user: &str, scopes: &[&str]) -> Url {
        let mut visitor = Visitor::new();
        let page = self.page(&mut visitor, url).await;
        let mut fields = vec![
            ("user", user),
            ("answer", if scopes.is_empty() { "deny" } else { "allow" }),
        ];
        fields.extend(scopes.iter().map(|scope| ("scope", *scope)));
        visitor.submit(&page, &fields).await.elsewhere()
    }

    /// The vendor's page by the plain door, for a visitor who takes no proxy.
    async fn page(&self, visitor: &mut Visitor, url: &Url) -> Page {
        visitor.open(&self.plain(url)).await.page()
    }

    fn plain(&self, url: &Url) -> String {
        let origin = url.origin().ascii_serialization();
        url.as_str().replacen(&origin, self.recorded.url(), 1)
    }

    /// What comes of the redirected URL.
    async fn complete(&self, back: &Url) -> (u16, Value) {
        let body = json!({ "url": back });
        self.portreeve.ask(Method::POST, "/v1/authorize", Some(&body)).await
    }

    /// Consents as the owner, from the URL to the grant that opens the mailbox. Returns the URL.
    async fn authorize(&self, account: &str, scopes: &[&str]) -> Url {
        let url = self.begin_code(account).await;
        let back = self.decide(&url, account, scopes).await;
        let (status, answer) = self.complete(&back).await;
        let expected = json!({ "account": account, "state": "active" });
        assert_eq!((status, answer), (200, expected), "{}", self.portreeve.log());
        url
    }

    /// The tagged answer to an IMAP login.
    async fn login(&self, account: &str, token: &str) -> String {
        self.portreeve.connect().await.login(account, token).await.tagged
    }

    /// An account as it is shown.
    async fn shown(&self, account: &str) -> Value {
        self.portreeve.read(&format!("/v1/account/{account}")).await
    }

    /// How the account's latest flow ended.
    async fn flow_ended(&self, account: &str) -> Value {
        let path = format!("/v1/account/{account}/authorize");
        until(PATIENCE, "the flow has ended", async || {
            let flow = self.portreeve.read(&path).await;
            (flow["state"] != "pending").then_some(flow)
        })
        .await
    }

    /// The only request to a path so far.
    async fn only(&self, path: &str) -> RecordedRequest {
        let mut requests = self.recorded.requests_to(path).await;
        assert_eq!(requests.len(), 1, "{requests:?}\n{}", self.portreeve.log());
        requests.remove(0)
    }
}

/// A request to a token endpoint as all of them must be: to the vendor's own name, over TLS, a form, and JSON wanted.
fn assert_posted_to(request: &RecordedRequest, host: &str) {
    let there = (request.scheme.as_str(), request.host.as_str(), request.method.as_str());
    assert_eq!(there, ("https", host, "POST"), "{request:?}");
    assert_eq!(request.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(request.headers["accept"], "application/json");
    assert!(request.query.is_empty(), "{request:?}");
    assert!(!request.headers.contains_key("authorization"), "{request:?}");
}

/// The parameter of a URL that is 256 random bits.
fn random(url: &Url, name: &str) -> String {
    let value = param(url, name);
    assert_eq!(
        BASE64_URL_SAFE_NO_PAD.decode(&value).map(|bytes| bytes.len()),
        Ok(32),
        "{name}: {value}"
    );
    value
}

fn param(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(each, _)| each == name);
    found.unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

/// A URL's parameters in order of their names.
fn sorted_query(url: &Url) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = url.query_pairs().into_owned().collect();
    pairs.sort_unstable();
    pairs
}

/// The URL has exactly these parameters.
fn assert_query(url: &Url, expected: &[(&str, &str)]) {
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    expected.sort_unstable();
    assert_eq!(sorted_query(url), expected);
}

/// RFC 7636 §4.2, by S256.
fn challenge_of(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier))
}

fn claims(jwt: &str) -> (Value, Value) {
    let part = |number: usize| {
        let part = jwt.split('.').nth(number).expect("a JWT has three parts");
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
    };
    (part(0), part(1))
}

fn name_of(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Google => "google",
        Vendor::Microsoft => "microsoft",
    }
}

fn both(one: &Path, other: &Path) -> String {
    let read = |path: &Path| std::fs::read_to_string(path).expect("a certificate can be read");
    read(one) + &read(other)
}
