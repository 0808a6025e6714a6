//! Consent end to end: the command line and the admin API, the certified provider's own pages, and a mailbox that opens.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::shell::{Shell, assert_in_order};
use crate::support::visitor::Visitor;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const ALL_SCOPES: [&str; 4] = ["openid", "email", "mail", "offline_access"];
const REDIRECT: &str = "http://localhost:4711/";

/// A provider that tells who consented, its mailboxes, and a proxy with an account that nobody has authorized.
struct Bed {
    portreeve: Portreeve,
    _dovecot: Dovecot,
    provider: Provider,
}

impl Bed {
    async fn start() -> Bed {
        Bed::start_at(None).await
    }

    /// The same with the mailboxes said to be at another port.
    async fn start_at(port: Option<u16>) -> Bed {
        let provider = Provider::start(ProviderOptions::default()).await;
        let dovecot = Dovecot::start(&provider).await;
        let endpoints = provider.endpoints();
        let toml = format!(
            r#"
[provider.{PROVIDER}]
issuer = "{}"
client_id = "{}"
client_secret = "{}"
scopes = ["openid", "email", "mail", "offline_access"]
ca_file = "{}"
imap = {{ host = "localhost", port = {}, tls = "implicit" }}
"#,
            endpoints.issuer,
            endpoints.client_id,
            endpoints.client_secret,
            dovecot.ca_file().display(),
            port.unwrap_or_else(|| dovecot.imaps().port()),
        );
        let portreeve = Setup::default().with(&toml).start().await;
        let bed = Bed {
            portreeve,
            _dovecot: dovecot,
            provider,
        };
        let account = json!({ "account": ALICE, "email": ALICE, "provider": PROVIDER });
        bed.portreeve.post("/v1/account", &account).await;
        bed
    }

    fn shell(&self) -> Shell {
        Shell::at(self.portreeve.socket())
    }

    fn authorize(&self, arguments: &[&str]) -> Process {
        let arguments = [&["account", "authorize", ALICE], arguments].concat();
        Process::spawn("authorize", &mut self.shell().command(&arguments))
    }

    /// Begins a code flow, and says where the browser is to go.
    async fn begin(&self) -> String {
        let path = format!("/v1/account/{ALICE}/authorize");
        let body = json!({ "flow": "code", "redirectUri": REDIRECT });
        let begun = self.portreeve.post(&path, &body).await;
        begun["url"].as_str().expect("a URL").to_owned()
    }

    async fn complete(&self, redirected: &Url) -> (u16, Value) {
        let body = json!({ "url": redirected.as_str() });
        self.portreeve.ask(Method::POST, "/v1/authorize", Some(&body)).await
    }

    async fn progress(&self) -> Value {
        self.portreeve.read(&format!("/v1/account/{ALICE}/authorize")).await
    }

    /// Whether a mail program can log in with a new access token.
    async fn assert_open(&self) {
        assert_eq!(self.portreeve.account_state(ALICE).await, "active");
        let token = self.portreeve.add_token(ALICE).await;
        let mut imap = self.portreeve.logged_in(ALICE, &token).await;
        assert!(imap.command("SELECT INBOX").await.is_ok());
    }
}

/// Where the command wants a browser to go.
pub async fn url_of(process: &Process) -> String {
    let line = process.stdout_line(|line| line.starts_with("Open this URL: ")).await;
    line.trim_start_matches("Open this URL: ").to_owned()
}

/// Consents as `user` to `scopes`, and says where the browser is sent.
async fn consent(url: &str, user: &str, scopes: &[&str]) -> Url {
    Visitor::new().consent(url, user, scopes).await.elsewhere()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_that_comes_back_opens_the_mailbox_and_is_told_so() {
    let bed = Bed::start().await;
    let mut command = bed.authorize(&["--no-browser"]);
    let back = consent(&url_of(&command).await, ALICE, &ALL_SCOPES).await;
    assert_eq!(back.host_str(), Some("localhost"));
    // Somebody else's request, before the right one, ends nothing.
    let mut wrong = back.clone();
    wrong.set_query(Some("code=c&state=guessed"));
    assert_eq!(Visitor::new().open(wrong.as_str()).await.page().status, 404);
    let page = Visitor::new().open(back.as_str()).await.page();
    assert_eq!(page.status, 200, "{page:?}\n{}", bed.portreeve.log());
    assert!(page.html.contains("The mailbox is open"), "{page:?}");
    assert!(command.wait().await.success(), "{}", command.log_tail());
    command.until_output_ends().await;
    let told = command.stdout();
    assert!(told.contains("Authorized alice@example.com"), "{told}");
    bed.assert_open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_pasted_does_the_same_and_scripts_read_each_step() {
    let bed = Bed::start().await;
    let mut command = bed.authorize(&["--paste", "--json"]);
    let line = command.stdout_line(|line| line.contains("\"event\":\"url\"")).await;
    let asked: Value = serde_json::from_str(&line).expect("JSON");
    let back = consent(asked["url"].as_str().expect("a URL"), ALICE, &ALL_SCOPES).await;
    command.write_line(back.as_str());
    assert!(command.wait().await.success(), "{}", command.log_tail());
    command.until_output_ends().await;
    let told = command.stdout();
    let last: Value = serde_json::from_str(told.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        last,
        json!({ "event": "authorized", "account": ALICE, "state": "active" })
    );
    bed.assert_open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_that_is_typed_on_another_device_does_the_same() {
    let bed = Bed::start().await;
    let mut command = bed.authorize(&["--device"]);
    let code = command.stdout_line(|line| line.starts_with("Code: ")).await;
    let code = code.trim_start_matches("Code: ");
    assert_eq!(bed.progress().await, json!({ "flow": "device", "state": "pending" }));
    let mut visitor = Visitor::new();
    let entry = visitor.open(&url_of(&command).await).await.page();
    let confirm = visitor.submit(&entry, &[("user_code", code)]).await.page();
    let login = visitor.submit(&confirm, &[]).await.page();
    let fields = [("answer", "login"), ("user", ALICE)];
    let asked = visitor.submit(&login, &fields).await.page();
    let mut fields = vec![("answer", "allow")];
    fields.extend(ALL_SCOPES.map(|scope| ("scope", scope)));
    visitor.submit(&asked, &fields).await.page();
    assert!(
        command.wait().await.success(),
        "{}\n{}",
        command.log_tail(),
        bed.portreeve.log()
    );
    assert_eq!(bed.progress().await, json!({ "flow": "device", "state": "done" }));
    bed.assert_open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_less_than_was_asked_for_is_refused_and_nothing_is_stored() {
    let bed = Bed::start().await;
    for (user, scopes, status, code, says) in [
        (ALICE, &[][..], 403, "denied", "Authorize the account again"),
        (
            ALICE,
            &["openid", "email", "offline_access"],
            403,
            "partial_consent",
            "mail",
        ),
        (BOB, &ALL_SCOPES, 403, "wrong_mailbox", BOB),
    ] {
        let back = consent(&bed.begin().await, user, scopes).await;
        let (answered, refusal) = bed.complete(&back).await;
        assert_eq!((answered, refusal["code"].as_str()), (status, Some(code)), "{refusal}");
        let message = refusal["message"].as_str().expect("text");
        assert!(message.contains(says), "{message}");
        let progress = bed.progress().await;
        assert_eq!(progress["state"], "failed");
        assert_eq!(progress["error"]["code"], code);
        assert_eq!(bed.portreeve.account_state(ALICE).await, "new", "{code}");
        // A state is good once, whatever came of it.
        let (answered, refusal) = bed.complete(&back).await;
        assert_eq!((answered, refusal["code"].as_str()), (404, Some("unknown_state")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_consent_leaves_a_grant_that_works_as_it_was() {
    let bed = Bed::start().await;
    let back = consent(&bed.begin().await, ALICE, &ALL_SCOPES).await;
    assert_eq!(
        bed.complete(&back).await,
        (200, json!({ "account": ALICE, "state": "active" }))
    );
    let back = consent(&bed.begin().await, BOB, &ALL_SCOPES).await;
    assert_eq!(bed.complete(&back).await.0, 403);
    bed.assert_open().await;
    assert_eq!(
        bed.provider.revocations().await.len(),
        0,
        "it might have been the one that works"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_cannot_be_reached_is_no_success_and_the_grant_is_kept() {
    let bed = Bed::start_at(Some(free_port())).await;
    let back = consent(&bed.begin().await, ALICE, &ALL_SCOPES).await;
    let (status, refusal) = bed.complete(&back).await;
    assert_eq!(
        (status, refusal["code"].as_str()),
        (503, Some("login_unavailable")),
        "{refusal}"
    );
    let message = refusal["message"].as_str().expect("text");
    assert!(message.contains("it is kept"), "{message}");
    assert_eq!(bed.portreeve.account_state(ALICE).await, "new");
    let account = bed.portreeve.read(&format!("/v1/account/{ALICE}")).await;
    assert!(account["expires"].is_string(), "the grant is not there: {account}");
    assert_eq!(bed.provider.revocations().await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_nobody_answers_ends_with_the_reason() {
    let bed = Bed::start().await;
    let shell = bed.shell();
    let begun = std::time::Instant::now();
    let printed = shell.run(&["account", "authorize", ALICE, "--no-browser", "--timeout", "1s"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
    assert_eq!(printed.code, 1);
    assert!(printed.stderr.contains("nobody consented within 1 s"), "{printed:?}");
    // What else there is was said before anybody waited; the testbed's provider gives codes, too.
    let ways = ["Open this URL: ", "--paste", "--device", "ssh -L "];
    assert_in_order(&printed.stdout, &ways);
    let printed = shell.run_with(&["account", "authorize", ALICE, "--paste", "--json"], "no address\n");
    assert_eq!(printed.code, 1, "{printed:?}");
    let printed = shell.run(&["account", "authorize", "nobody@example.com", "--no-browser"]);
    assert_eq!(
        (printed.code, printed.stderr.as_str()),
        (1, "portreeve: no such account 'nobody@example.com'\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_own_token_may_authorize_that_account_alone() {
    let bed = Bed::start().await;
    bed.portreeve
        .post(
            "/v1/account",
            &json!({ "account": BOB, "email": BOB, "provider": PROVIDER }),
        )
        .await;
    let body = json!({ "account": BOB, "scopes": ["api"], "description": "Bob's own" });
    let token = bed.portreeve.create_token(&body).await;
    let back = consent(&bed.begin().await, ALICE, &ALL_SCOPES).await;
    let mut command = bed.shell().command(&["account", "authorize", ALICE, "--no-browser"]);
    let output = command.env("PORTREEVE_TOKEN", &token).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    // Alice's flow was left for those who may complete it.
    let http = reqwest::Client::builder().unix_socket(bed.portreeve.socket()).build();
    let request = http.expect("a client").post("http://localhost/v1/authorize");
    let answer = request
        .bearer_auth(&token)
        .json(&json!({ "url": back.as_str() }))
        .send()
        .await;
    assert_eq!(answer.expect("an answer").status(), 404);
    assert_eq!(bed.complete(&back).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_need_the_public_side() {
    let bed = Bed::start().await;
    let body = json!({ "account": ALICE, "provider": PROVIDER });
    let (status, refusal) = bed
        .portreeve
        .ask(Method::POST, "/v1/authentication/form", Some(&body))
        .await;
    assert_eq!(status, 400);
    assert!(
        refusal["message"].as_str().expect("text").contains("web.listen"),
        "{refusal}"
    );
}
