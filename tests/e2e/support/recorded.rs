//! Google and Microsoft, whose real servers are out of reach, as `tests/testbed/node/recorded.mjs` plays them: by their
//! documented paths and parameters, with answers of the shapes that they give.
//!
//! Whoever takes [`Recorded::proxy_url`] for its HTTPS proxy and trusts [`Recorded::ca_file`] talks to them under their
//! real names; others are told the plain URLs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::certs::Authority;
use super::process::Process;
use super::provider_options::ServiceAccount;
use super::{open_directory, project_file, require_installed};

/// Running recorded servers; they end when dropped.
pub struct Recorded {
    doors: Doors,
    http: reqwest::Client,
    // Declared before its directory, hence ended before that is removed.
    process: Process,
    directory: TempDir,
}

/// What is registered with the two.
#[derive(Clone, Debug)]
pub struct Registrations {
    /// Google's app is still in testing, so that its refresh tokens end after seven days.
    pub google_is_testing: bool,
    /// The service account to which a Workspace domain delegated its mail.
    pub google_service_account: Option<ServiceAccount>,
    /// How Microsoft's app shows who it is.
    pub microsoft_proof: Proof,
    /// Where both send users back to, beside loopback.
    pub redirect_uris: Vec<String>,
    /// What Microsoft's devices are told to wait between two polls, in seconds.
    pub device_interval: u32,
}

/// How Microsoft's app shows who it is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Not at all: it is a public client.
    None,
    /// By [`MICROSOFT_SECRET`].
    Secret,
    /// By the key of this certificate, PEM.
    Certificate(String),
}

/// Whose servers.
#[derive(Clone, Copy, Debug)]
pub enum Vendor {
    /// Google's.
    Google,
    /// Microsoft's.
    Microsoft,
}

/// An answer that is given ahead of what would be answered.
#[derive(Clone, Debug)]
pub enum Ahead {
    /// Google refuses with what `REFUSALS` of `google.mjs` calls it, such as `invalid_rapt`.
    Google(&'static str),
    /// Microsoft refuses with this number, such as 700082.
    Aadsts(u32),
    /// JSON, word for word.
    Json(u16, Value),
    /// A page instead of JSON.
    Text(u16, &'static str),
    /// The browser is sent back with these parameters and the state.
    Back(Value),
}

/// What the user of a device says who has typed in its code.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'a> {
    /// Yes, I am this one.
    Allow(&'a str),
    /// No.
    Decline,
    /// Nothing, until the code was not good any more.
    Expire,
}

/// A request as it came in.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedRequest {
    /// `https` through the proxy, else `http`.
    pub scheme: String,
    /// The host, without the port of `https`.
    pub host: String,
    /// The HTTP method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query's parameters in their order.
    pub query: Vec<(String, String)>,
    /// The headers; the names are in lower case.
    pub headers: BTreeMap<String, String>,
    /// The form's parameters in their order.
    pub form: Vec<(String, String)>,
    /// The status of the answer.
    pub status: Option<u16>,
}

/// The tokens of a user who has agreed.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedGrant {
    /// Good for refreshes.
    pub refresh_token: String,
    /// What the upstream accepts.
    pub access_token: String,
    /// Its life, in seconds.
    pub expires_in: i64,
}

impl Recorded {
    /// Starts both and waits until they answer.
    pub async fn start(registrations: Registrations) -> Recorded {
        require_installed(&project_file("tests/testbed/node/node_modules/.installed-from"));
        // An error means that another test of this process has installed it: the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = open_directory();
        let authority = Authority::new();
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("the authority can be written");
        let leaf = authority.issue(&HOSTS);
        let mut options = registrations.options();
        options["certificate"] = json!(leaf.certificate_pem);
        options["key"] = json!(leaf.key_pem);
        let process = Process::spawn(
            "recorded",
            Command::new(project_file("tests/testbed/node/node"))
                .arg(project_file("tests/testbed/node/recorded.mjs"))
                .arg(options.to_string()),
        );
        let line = process.stdout_line(|line| line.starts_with('{')).await;
        Recorded {
            doors: serde_json::from_str(&line).expect("it names its doors"),
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("an HTTP client can be made"),
            process,
            directory,
        }
    }

    /// The plain door to both: `<url>/token` is Google's, `<url>/common/oauth2/v2.0/token` Microsoft's.
    pub fn url(&self) -> &str {
        &self.doors.url
    }

    /// The proxy that leads to both under their real names.
    pub fn proxy_url(&self) -> &str {
        &self.doors.proxy_url
    }

    /// Who vouches for those names.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Where Dovecot hears whose an access token is; it need not show who it is.
    pub fn introspection_url(&self) -> &str {
        &self.doors.introspection_url
    }

    /// A new grant, as consent in a browser would give it.
    pub async fn mint(&self, vendor: Vendor, user: &str, scope: &str) -> RecordedGrant {
        let order = json!({ "vendor": vendor.name(), "user": user, "scope": scope });
        self.order("mint", order).await
    }

    /// Revokes everything that a user granted.
    pub async fn revoke(&self, vendor: Vendor, user: &str) {
        let order = json!({ "vendor": vendor.name(), "user": user });
        self.order::<Value>("revoke", order).await;
    }

    /// Gives this answer to the next `count` requests of a path, whatever they ask for.
    pub async fn answer_next(&self, count: u32, path: &str, ahead: &Ahead) {
        let mut order = ahead.order();
        order["count"] = json!(count);
        order["path"] = json!(path);
        self.order::<Value>("next", order).await;
    }

    /// Has the user of a Microsoft device type in its code.
    pub async fn decide(&self, user_code: &str, verdict: Verdict<'_>) {
        let (verdict, user) = match verdict {
            Verdict::Allow(user) => ("allow", user),
            Verdict::Decline => ("decline", ""),
            Verdict::Expire => ("expire", ""),
        };
        let order = json!({ "user_code": user_code, "verdict": verdict, "user": user });
        self.order::<Value>("decide", order).await;
    }

    /// Every request to a path so far, oldest first. A browser behind the proxy has paths of its own to ask for.
    pub async fn requests_to(&self, path: &str) -> Vec<RecordedRequest> {
        let requests: Vec<RecordedRequest> = self.order("requests", json!({})).await;
        requests.into_iter().filter(|request| request.path == path).collect()
    }

    async fn order<T: DeserializeOwned>(&self, order: &str, body: Value) -> T {
        let url = format!("{}/{order}", self.doors.control_url);
        let answer = match self.http.post(url).json(&body).send().await {
            Ok(answer) => answer,
            Err(error) => panic!("recorded: {order}: {error}\n{}", self.process.log_tail()),
        };
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let log = self.process.log_tail();
        assert!(status.is_success(), "recorded: {order}: {status} {text}\n{log}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{order}: {error}: {text}"))
    }
}

impl Default for Registrations {
    fn default() -> Registrations {
        Registrations {
            google_is_testing: false,
            google_service_account: None,
            microsoft_proof: Proof::None,
            redirect_uris: Vec::new(),
            device_interval: 5,
        }
    }
}

impl Registrations {
    fn options(&self) -> Value {
        let mut microsoft = json!({
            "client_id": MICROSOFT_CLIENT,
            "redirect_uris": self.redirect_uris,
            "device_interval": self.device_interval,
        });
        match &self.microsoft_proof {
            Proof::None => {}
            Proof::Secret => microsoft["client_secret"] = json!(MICROSOFT_SECRET),
            Proof::Certificate(pem) => microsoft["certificate"] = json!(pem),
        }
        let google = json!({
            "client_id": GOOGLE_CLIENT,
            "client_secret": GOOGLE_SECRET,
            "testing": self.google_is_testing,
            "service_account": self.google_service_account,
            "redirect_uris": self.redirect_uris,
        });
        json!({ "google": google, "microsoft": microsoft })
    }
}

impl Vendor {
    fn name(self) -> &'static str {
        match self {
            Vendor::Google => "google",
            Vendor::Microsoft => "microsoft",
        }
    }
}

impl Ahead {
    fn order(&self) -> Value {
        match self {
            Ahead::Google(name) => json!({ "google": name }),
            Ahead::Aadsts(number) => json!({ "aadsts": number }),
            Ahead::Json(status, body) => json!({ "status": status, "json": body }),
            Ahead::Text(status, text) => json!({ "status": status, "text": text }),
            Ahead::Back(params) => json!({ "back": params }),
        }
    }
}

impl RecordedRequest {
    /// Exactly these parameters were sent in the form, in any order: neither another nor one of them twice.
    pub fn assert_form(&self, expected: &[(&str, &str)]) {
        assert_eq!(sorted(&self.form), sorted_literals(expected), "{self:?}");
    }

    /// The same of the query.
    pub fn assert_query(&self, expected: &[(&str, &str)]) {
        assert_eq!(sorted(&self.query), sorted_literals(expected), "{self:?}");
    }

    /// A parameter of query or form; panics where there is none.
    pub fn param(&self, name: &str) -> &str {
        let mut params = self.query.iter().chain(&self.form);
        let found = params.find(|(each, _)| each == name);
        found.map_or_else(|| panic!("no {name}: {self:?}"), |(_, value)| value)
    }
}

fn sorted(params: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs: Vec<(&str, &str)> = params
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    sorted_literals(&pairs)
}

fn sorted_literals<'a>(params: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut params = params.to_vec();
    params.sort_unstable();
    params
}

#[derive(Debug, Deserialize)]
struct Doors {
    url: String,
    proxy_url: String,
    control_url: String,
    introspection_url: String,
}

/// Google's desktop app.
pub const GOOGLE_CLIENT: &str = "1234567890-portreeve.apps.googleusercontent.com";
/// Its secret, which Google gives to desktop apps too.
pub const GOOGLE_SECRET: &str = "GOCSPX-of-the-testbed";
/// Microsoft's app.
pub const MICROSOFT_CLIENT: &str = "00001111-aaaa-2222-bbbb-3333cccc4444";
/// Its secret, if it is not a public client.
pub const MICROSOFT_SECRET: &str = "8Q~of-the-testbed";

/// Those that are played.
const HOSTS: [&str; 7] = [
    "accounts.google.com",
    "oauth2.googleapis.com",
    "www.googleapis.com",
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
    "login.chinacloudapi.cn",
];
