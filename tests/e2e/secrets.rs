//! Secrets stay secret: a whole life of accounts and tokens, and then a search for every credential that went through it,
//! in the logs at their loudest, in every answer, and in every byte that was stored.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::dovecot::Dovecot;
use crate::support::host::Host;
use crate::support::portreeve::{Endpoint, PROVIDER, Portreeve, Setup};
use crate::support::protocol::Protocol;
use crate::support::provider::{Fault, Provider, ProviderOptions};
use crate::support::shell::Shell;
use crate::support::upstream::Security;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_written_as_text_holds_a_secret() {
    live_and_search("text").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_written_as_json_holds_a_secret() {
    live_and_search("json").await;
}

/// Goes through everything that touches a credential, and searches.
async fn live_and_search(log_format: &str) {
    let mut life = Life::begin(log_format).await;
    life.accounts().await;
    life.logins().await;
    life.refused_logins().await;
    life.trouble_at_the_provider().await;
    life.refusals_of_the_upstream().await;
    life.mistakes_of_administrators().await;
    life.change_and_delete().await;
    life.end().await;
}

/// A proxy that logs all it can, and what was learnt of its secrets and of what it says.
struct Life {
    portreeve: Portreeve,
    provider: Provider,
    host: Host,
    // Holds the authority that the provider's table names.
    _dovecot: Dovecot,
    /// By a name for the message of a failure.
    secrets: BTreeMap<String, Vec<u8>>,
    /// All that the proxy has answered, with where.
    answers: Vec<(String, String)>,
    /// Access tokens, by account.
    tokens: BTreeMap<String, String>,
}

impl Life {
    async fn begin(log_format: &str) -> Life {
        let provider = Provider::start(ProviderOptions {
            // Every login a second later needs a refresh.
            access_token_seconds: 1,
            ..ProviderOptions::default()
        })
        .await;
        let host = Host::start().await;
        let dovecot = Dovecot::start(&provider).await;
        let in_clear = Endpoint::new(Protocol::Imap, host.address(), Security::Off);
        let portreeve = Setup::default()
            .with(&format!("[log]\nlevel = \"{LOUDEST}\"\nformat = \"{log_format}\""))
            .provider_at(provider.endpoints(), &[in_clear], &dovecot.ca_file())
            .start()
            .await;
        let mut life = Life {
            portreeve,
            provider,
            host,
            _dovecot: dovecot,
            secrets: BTreeMap::new(),
            answers: Vec::new(),
            tokens: BTreeMap::new(),
        };
        let client_secret = life.provider.endpoints().client_secret.clone();
        life.keep("the app's secret", &client_secret);
        let key = fs::read_to_string(life.portreeve.state_dir().join("master.key")).expect("it was generated");
        life.secrets.insert(
            "the master key".to_owned(),
            STANDARD.decode(key.trim()).expect("it is base64"),
        );
        life
    }

    async fn accounts(&mut self) {
        for account in ["alice", "bob"] {
            let grant = self.provider.mint(account).await;
            self.keep(&format!("the first refresh token of {account}"), &grant.refresh_token);
            self.keep(
                &format!("the first OAuth access token of {account}"),
                &grant.access_token,
            );
            let mut oauth2 = json!({ "refreshToken": grant.refresh_token });
            if account == "bob" {
                oauth2["accessToken"] = json!(grant.access_token);
                oauth2["expires"] = json!("2099-01-01T00:00:00Z");
            }
            let body = json!({ "account": account, "provider": PROVIDER, "user": account, "oauth2": oauth2 });
            assert_eq!(self.ask(Method::POST, "/v1/account", Some(&body)).await, 200);
        }
        self.keep("the password of carol", PASSWORD);
        let body = json!({ "account": "carol", "provider": PROVIDER, "user": "carol", "password": PASSWORD });
        assert_eq!(self.ask(Method::POST, "/v1/account", Some(&body)).await, 200);
        for account in ["alice", "bob", "carol"] {
            let token = if account == "carol" {
                let short = json!({ "account": account, "scopes": ["imap-proxy"], "form": "short" });
                let shown = self.portreeve.create_token(&short).await;
                self.keep("the access token of carol, as it was shown", &shown);
                shown.to_lowercase()
            } else {
                self.portreeve.add_token(account).await
            };
            self.keep(&format!("the access token of {account}"), &token);
            self.tokens.insert(account.to_owned(), token);
        }
        let root = json!({ "scopes": ["*"], "description": "root" });
        let root = self.portreeve.create_token(&root).await;
        self.keep("the root token", &root);
    }

    /// Every form of SASL, for every account.
    async fn logins(&mut self) {
        for (account, token) in self.tokens.clone() {
            for form in FORMS {
                let answer = self.log_in(form, &account, &token).await;
                assert!(
                    answer.contains(&format!("OK {account} authenticated")),
                    "{form}: {answer}"
                );
            }
            assert_eq!(
                self.ask(Method::POST, &format!("/v1/account/{account}/verify"), None)
                    .await,
                200
            );
        }
    }

    /// The same with tokens that are wrong, of another, or in the wrong place.
    async fn refused_logins(&mut self) {
        let of_bob = self.tokens["bob"].clone();
        let wrong = of_bob.chars().rev().collect::<String>();
        self.keep("a wrong token", &wrong);
        for form in FORMS {
            for (user, password) in [
                ("alice", of_bob.as_str()),
                ("alice", &wrong),
                ("nobody", &wrong),
                // Typed into the other's field.
                (&of_bob, "bob"),
                (&of_bob, &of_bob),
            ] {
                let answer = self.log_in(form, user, password).await;
                assert!(answer.contains("NO [AUTHENTICATIONFAILED]"), "{form}: {answer}");
            }
        }
        for line in [
            format!("A {of_bob}"),
            format!("{of_bob} LOGIN"),
            format!("A LOGIN alice {of_bob} {of_bob}"),
            format!("A AUTHENTICATE {of_bob}"),
            format!("A AUTHENTICATE PLAIN {of_bob}!"),
            format!("A AUTHENTICATE PLAIN {}", STANDARD.encode(&of_bob)),
            format!(
                "A AUTHENTICATE XOAUTH2 {}",
                STANDARD.encode(format!("user=bob\x01auth={of_bob}"))
            ),
            format!("A LOGIN {{{}}}", of_bob),
            format!("A LOGIN \"{of_bob}"),
        ] {
            let mut client = self.portreeve.connect().await;
            client.send_line(&line).await;
            client.send_end().await;
            while let Some(reply) = client.line_or_end().await {
                // A tag is the client's own, and has to be repeated.
                let reply = reply.strip_prefix(&of_bob).unwrap_or(&reply).to_owned();
                self.answers.push(("a malformed login".to_owned(), reply));
            }
        }
    }

    /// The provider repeats what it was sent, in every place of its error.
    async fn trouble_at_the_provider(&mut self) {
        for (number, error) in ["temporarily_unavailable", "invalid_client", "invalid_grant"]
            .iter()
            .enumerate()
        {
            let account = format!("dave{number}");
            let grant = self.provider.mint(&account).await;
            self.keep(&format!("the refresh token of {account}"), &grant.refresh_token);
            let oauth2 = json!({ "refreshToken": grant.refresh_token });
            let body = json!({ "account": account, "provider": PROVIDER, "user": account, "oauth2": oauth2 });
            assert_eq!(self.ask(Method::POST, "/v1/account", Some(&body)).await, 200);
            let token = self.portreeve.add_token(&account).await;
            self.keep(&format!("the access token of {account}"), &token);
            let echo = format!(
                "you sent refresh_token={0}&client_secret={1}, in base64 {2}",
                grant.refresh_token,
                self.provider.endpoints().client_secret,
                STANDARD.encode(&grant.refresh_token),
            );
            for body in [
                json!({ "error": error, "error_description": echo }),
                json!({ "error": grant.refresh_token, "error_description": echo, "error_uri": echo }),
                json!({ "error": error, "error_description": echo, "refresh_token": grant.refresh_token }),
            ] {
                self.provider.fault(Fault::Custom { status: 400, body }).await;
                let answer = self.log_in("LOGIN", &account, &token).await;
                assert!(answer.contains("NO ["), "{answer}");
                assert_eq!(
                    self.ask(Method::POST, &format!("/v1/account/{account}/verify"), None)
                        .await,
                    200
                );
                // New credentials end a back-off, so that the next error is heard too.
                let change = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
                assert_eq!(
                    self.ask(Method::PUT, &format!("/v1/account/{account}"), Some(&change))
                        .await,
                    200
                );
            }
            let redirect = Fault::Redirect {
                location: format!("http://127.0.0.1:9/{}", grant.refresh_token),
            };
            for fault in [Fault::HugeBody, Fault::Html200, Fault::Drop, redirect] {
                self.provider.fault(fault).await;
                self.log_in("LOGIN", &account, &token).await;
                let change = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
                assert_eq!(
                    self.ask(Method::PUT, &format!("/v1/account/{account}"), Some(&change))
                        .await,
                    200
                );
            }
            self.ask(Method::GET, &format!("/v1/account/{account}"), None).await;
            self.provider.clear_faults().await;
        }
        self.ask(Method::GET, "/v1/accounts", None).await;
        self.ask(Method::GET, "/v1/status", None).await;
    }

    /// The upstream repeats what it was sent.
    async fn refusals_of_the_upstream(&mut self) {
        self.host.refuse(true);
        for account in ["alice", "carol"] {
            let token = self.tokens[account].clone();
            let answer = self.log_in("LOGIN", account, &token).await;
            assert!(
                answer.contains("NO [AUTHENTICATIONFAILED] what a credential"),
                "{answer}"
            );
            self.ask(Method::POST, &format!("/v1/account/{account}/verify"), None)
                .await;
            self.ask(Method::GET, &format!("/v1/account/{account}"), None).await;
        }
        self.host.refuse(false);
    }

    /// Requests with credentials where they do not belong.
    async fn mistakes_of_administrators(&mut self) {
        let token = self.tokens["alice"].clone();
        let secret = self.provider.mint("mallory").await.refresh_token;
        self.keep("a misplaced refresh token", &secret);
        for body in [
            json!({ "account": "x", "provider": PROVIDER, "oauth2": secret }),
            json!({ "account": "x", "provider": PROVIDER, "oauth2": { "refreshToken": [secret] } }),
            json!({ "account": "x", "provider": PROVIDER, "oauth2": { "refreshToken": { "value": secret } } }),
            json!({ "account": "x", "provider": PROVIDER, "oauth2": { "refreshToken": format!("{secret}\n") } }),
            json!({ "account": "x", "provider": PROVIDER, "oauth2": { "refreshToken": "x", "expires": secret } }),
            json!({ "account": "x", "provider": PROVIDER, "oauth2": { "accessToken": secret, "refreshTokens": secret } }),
            json!({ "account": "x", "provider": PROVIDER, "password": [secret] }),
            json!({ "account": "x", "provider": PROVIDER, "password": secret, "oauth2": { "refreshToken": secret } }),
            json!([secret]),
            json!(secret),
        ] {
            let status = self.ask(Method::POST, "/v1/account", Some(&body)).await;
            assert!((400..500).contains(&status), "{status}: {body}");
            self.ask(Method::PUT, "/v1/account/alice", Some(&body)).await;
        }
        for path in [
            format!("/v1/token/{token}/what"),
            format!("/v1/tokens/{token}"),
            format!("/v1/tokens/{token}/log"),
            format!("/v1/usage?token={token}"),
            format!("/v1/tokens?query={token}"),
            format!("/v1/account/{token}"),
            format!("/v1/session/{token}"),
            format!("/{token}"),
        ] {
            self.ask(Method::GET, &path, None).await;
            self.ask(Method::POST, &path, None).await;
        }
    }

    async fn change_and_delete(&mut self) {
        let grant = self.provider.mint("alice").await;
        self.keep("the second refresh token of alice", &grant.refresh_token);
        let change = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
        assert_eq!(self.ask(Method::PUT, "/v1/account/alice", Some(&change)).await, 200);
        self.keep("the second password of carol", OTHER_PASSWORD);
        let change = json!({ "password": OTHER_PASSWORD });
        assert_eq!(self.ask(Method::PUT, "/v1/account/carol", Some(&change)).await, 200);
        for path in [
            "/v1/accounts",
            "/v1/tokens",
            "/v1/usage",
            "/v1/sessions",
            "/v1/status",
            "/metrics",
        ] {
            assert_eq!(self.ask(Method::GET, path, None).await, 200);
        }
        for account in ["alice", "carol"] {
            let token = self.tokens[account].clone();
            let answer = self.log_in("LOGIN", account, &token).await;
            assert!(answer.contains("OK"), "{answer}");
        }
        self.search_files();
        let token = self.tokens["alice"].clone();
        assert_eq!(self.ask(Method::DELETE, &format!("/v1/token/{token}"), None).await, 200);
        assert_eq!(self.ask(Method::DELETE, &format!("/v1/token/{token}"), None).await, 404);
        assert_eq!(self.ask(Method::DELETE, "/v1/account/carol", None).await, 200);
    }

    /// Takes in what only others know of the secrets, ends the proxy, and searches everything.
    async fn end(mut self) {
        let requests = self.provider.requests().await;
        assert!(requests.len() > 10, "tokens were refreshed");
        for (number, request) in requests.into_iter().enumerate() {
            self.keep(
                &format!("the refresh token of request {number}"),
                &request.params["refresh_token"],
            );
        }
        let heard = self.host.heard();
        for (number, line) in heard.iter().enumerate() {
            if let Some(token) = bearer_in(line) {
                self.keep(&format!("the OAuth access token of line {number}"), &token);
            }
        }
        assert!(
            self.secrets
                .keys()
                .any(|name| name.starts_with("the OAuth access token of line"))
        );
        let config = self.portreeve.config_file().display().to_string();
        let shell = Shell::at(self.portreeve.socket());
        for arguments in [
            &["config", "show", "--config", &config][..],
            &["config", "show", "--json", "--config", &config],
            &["config", "check", "--config", &config],
            &["account", "list"],
            &["token", "list", "--json"],
            &["usage", "--json"],
        ] {
            self.answers.push((arguments.join(" "), shell.done(arguments).stdout));
        }
        self.search_files();
        self.portreeve.process().signal(Signal::TERM);
        assert_eq!(self.portreeve.process().wait().await.code(), Some(0));
        self.portreeve.process().until_output_ends().await;
        self.search_files();

        let log = self.portreeve.process().stderr();
        assert!(log.contains("TRACE"), "the log is at its loudest");
        assert!(log.contains("login refused"));
        let needles = self.needles();
        let logged = log.lines().map(|line| ("the log", line));
        let answered = self
            .answers
            .iter()
            .map(|(place, answer)| (place.as_str(), answer.as_str()));
        let found: Vec<String> = logged
            .chain(answered)
            .flat_map(|(place, text)| {
                let in_it = needles
                    .iter()
                    .filter(move |(_, needles)| holds(text.as_bytes(), needles));
                in_it.map(move |(name, _)| format!("{name} is in {place}: {text}"))
            })
            .collect();
        assert!(found.is_empty(), "{}", found.join("\n"));
        assert_eq!(self.portreeve.process().stdout(), "");
    }

    /// Searches every byte under the state directory.
    fn search_files(&self) {
        let files = files_under(&self.portreeve.state_dir());
        let needles = self.needles();
        let mut searched = 0;
        for file in files.iter().filter(|file| !file.ends_with("master.key")) {
            // One that has just been deleted by a compaction has nothing to hide any more.
            let Ok(content) = fs::read(file) else { continue };
            searched += content.len();
            for (name, needles) in &needles {
                assert!(!holds(&content, needles), "{name} is in {}", file.display());
            }
        }
        assert!(searched > 1000, "the store is there: {files:?}");
    }

    /// Every secret in all the forms in which it is looked for.
    fn needles(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        let forms = |(name, secret): (&String, &Vec<u8>)| (name.clone(), forms_of(secret));
        self.secrets.iter().map(forms).collect()
    }

    fn keep(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 16, "{name} is too short to be told from chance");
        self.secrets.insert(name.to_owned(), secret.as_bytes().to_vec());
        if let Some(bytes) = decode_hex(secret) {
            self.secrets.insert(format!("{name}, as bytes"), bytes);
        }
    }

    /// Asks the admin API, keeps what it says, and returns the status.
    async fn ask(&mut self, method: Method, path: &str, body: Option<&Value>) -> u16 {
        let (status, answer) = self.portreeve.ask(method.clone(), path, body).await;
        self.answers.push((format!("{method} {path}"), answer.to_string()));
        status
    }

    /// Logs in, keeps what is answered, and hangs up.
    async fn log_in(&mut self, form: &str, user: &str, password: &str) -> String {
        let mut client = self.portreeve.connect().await;
        let plain = STANDARD.encode(format!("\0{user}\0{password}"));
        let bearer = STANDARD.encode(format!("n,a={user},\x01auth=Bearer {password}\x01\x01"));
        let xoauth2 = STANDARD.encode(format!("user={user}\x01auth=Bearer {password}\x01\x01"));
        let lines = match form {
            "LOGIN" => vec![format!("A LOGIN {user} {password}")],
            "LOGIN, literals" => {
                let (one, two) = (user.len(), password.len());
                vec![format!("A LOGIN {{{one}+}}\r\n{user} {{{two}+}}\r\n{password}")]
            }
            "PLAIN" => vec![format!("A AUTHENTICATE PLAIN {plain}")],
            "PLAIN, asked" => vec!["A AUTHENTICATE PLAIN".to_owned(), plain],
            "SASL LOGIN" => vec![
                "A AUTHENTICATE LOGIN".to_owned(),
                STANDARD.encode(user),
                STANDARD.encode(password),
            ],
            "OAUTHBEARER" => vec![format!("A AUTHENTICATE OAUTHBEARER {bearer}")],
            "XOAUTH2" => vec![format!("A AUTHENTICATE XOAUTH2 {xoauth2}")],
            "XOAUTH2, asked" => vec!["A AUTHENTICATE XOAUTH2".to_owned(), xoauth2],
            other => panic!("no such form: {other}"),
        };
        let mut lines = lines.into_iter();
        let mut said = String::new();
        client.send_line(&lines.next().expect("there is one")).await;
        loop {
            let line = client.line().await;
            said.push_str(&line);
            said.push('\n');
            if line.starts_with('+') {
                client.send_line(&lines.next().unwrap_or_default()).await;
            } else if line.starts_with("A ") {
                break;
            }
        }
        self.answers.push((format!("{form} of {user}"), said.clone()));
        said
    }
}

/// The OAuth access token in a line that an upstream was sent.
pub fn bearer_in(line: &str) -> Option<String> {
    let message = STANDARD.decode(line.rsplit(' ').next()?).ok()?;
    let message = String::from_utf8(message).ok()?;
    let (_, token) = message.split_once("auth=Bearer ")?;
    Some(token.trim_end_matches('\x01').to_owned())
}

pub fn holds(text: &[u8], needles: &[Vec<u8>]) -> bool {
    needles
        .iter()
        .any(|needle| memchr::memmem::find(text, needle).is_some())
}

/// A secret as it is, in hexadecimal, and in base64 at each place that it may have among other bytes, in both alphabets.
pub fn forms_of(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_vec(), hex.to_ascii_uppercase().into_bytes(), hex.into_bytes()];
    for before in 0..3 {
        let bytes = [&[0; 3][..before], secret].concat();
        // The first characters hold bits of what stands before, the last perhaps of what comes behind.
        let first = (before * 8).div_ceil(6);
        let end = bytes.len() * 8 / 6;
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            forms.push(text.as_bytes()[first..end].to_vec());
        }
    }
    forms
}

#[test]
fn the_search_finds_what_is_there() {
    let secret = "0123456789abcdefghij+/>?";
    let needles = forms_of(secret.as_bytes());
    for before in 0..5 {
        for behind in 0..4 {
            let text = format!("{}{secret}{}", "x".repeat(before), "y".repeat(behind));
            assert!(holds(text.as_bytes(), &needles));
            assert!(holds(STANDARD.encode(&text).as_bytes(), &needles), "{before} {behind}");
            assert!(
                holds(URL_SAFE_NO_PAD.encode(&text).as_bytes(), &needles),
                "{before} {behind}"
            );
        }
    }
    assert!(!holds(b"0123456789abcdefghij", &needles));
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

pub fn files_under(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("it can be read");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths
        .flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] })
        .collect()
}

/// Everything of ours, and the libraries that handle credentials.
const LOUDEST: &str = "trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,tokio_rustls=trace,axum=trace,\
                       tower=trace,ractor=trace,fjall=trace,lsm_tree=trace,mio=trace";
const FORMS: [&str; 8] = [
    "LOGIN",
    "LOGIN, literals",
    "PLAIN",
    "PLAIN, asked",
    "SASL LOGIN",
    "OAUTHBEARER",
    "XOAUTH2",
    "XOAUTH2, asked",
];
const PASSWORD: &str = "correct-horse-battery-staple";
const OTHER_PASSWORD: &str = "another-horse-another-staple";
