//! `account verify` against real mailboxes: each step as it should be, and each failing in its turn with what to do about it.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::bed::Bed;
use crate::support::certs::Authority;
use crate::support::dovecot::Dovecot;
use crate::support::open_directory;
use crate::support::portreeve::{Endpoint, PROVIDER, Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::postfix::Postfix;
use crate::support::protocol::Protocol;
use crate::support::provider::{Fault, Provider, ProviderOptions};
use crate::support::shell::{Shell, assert_in_order};
use crate::support::upstream::{Security, Upstream};
use crate::support::wire::Wire;

const BOB: &str = "bob@bed.test";
const ALICE: &str = "alice@bed.test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_is_well_over_three_protocols() {
    let bed = Bed::start_whole(ProviderOptions::default(), "", &[]).await;
    bed.account(ALICE).await;
    bed.dovecot.deliver(ALICE, b"Subject: one\r\n\r\nOne.\r\n");
    let report = verified(&bed.portreeve, ALICE, true).await;
    assert_eq!(
        outcomes(&report),
        [
            "imap dns ok",
            "imap connect ok",
            "imap tls ok",
            "- token ok",
            "- scopes ok",
            "imap login ok",
            "imap command ok",
            "smtp dns ok",
            "smtp connect ok",
            "smtp tls ok",
            "smtp login ok",
            "smtp command ok",
            "pop3 dns ok",
            "pop3 connect ok",
            "pop3 tls ok",
            "pop3 login ok",
            "pop3 command ok",
        ],
        "{report}\n{}",
        bed.log()
    );
    assert_eq!(report["account"], ALICE);
    for (protocol, name, words) in [
        ("imap", "dns", &["localhost is ", "127.0.0.1"][..]),
        ("imap", "connect", &["connected to localhost:"]),
        (
            "imap",
            "tls",
            &["TLS 1.3 TLS_", "issued by CN=portreeve testbed CA", "good until 4096"],
        ),
        ("-", "token", &["refreshed, until 20"]),
        ("-", "scopes", &["granted:", "mail"]),
        ("imap", "login", &["logged in as alice@bed.test"]),
        ("imap", "command", &["INBOX is open and has 1 message"]),
        // By STARTTLS.
        (
            "smtp",
            "tls",
            &["TLS 1.3 TLS_", "issued by CN=portreeve testbed CA", "good until 4096"],
        ),
        ("smtp", "command", &["MAIL FROM:<alice@bed.test> is accepted"]),
        ("pop3", "command", &["the maildrop is open and has 1 message"]),
    ] {
        let step = step(&report, protocol, name);
        let message = step["message"].as_str().unwrap();
        assert!(words.iter().all(|word| message.contains(word)), "{step}");
    }

    // What was refreshed for the first is still good for the second.
    let report = verified(&bed.portreeve, ALICE, true).await;
    let message = step(&report, "-", "token")["message"].to_string();
    assert!(message.contains("still good, until 20"), "{message}");
    assert_eq!(bed.provider.counters(ALICE).await.refreshes, 1);
    assert_eq!(bed.shown(ALICE).await["state"], "active");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_is_literally_what_the_contract_says() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    bed.account(ALICE).await;
    let shell = Shell::at(bed.portreeve.socket());
    let printed = shell.run(&["account", "verify", ALICE, "--json"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let report = printed.json();
    assert_eq!(keys(&report), ["account", "ok", "steps"]);
    assert_eq!((&report["account"], &report["ok"]), (&json!(ALICE), &json!(true)));
    let names: Vec<&str> = steps(&report)
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["dns", "connect", "tls", "token", "scopes", "login", "command"]);
    for step in steps(&report) {
        assert_eq!(keys(step), ["message", "ms", "name", "protocol", "result"], "{step}");
        let is_shared = ["token", "scopes"].contains(&step["name"].as_str().unwrap());
        assert_eq!(step["protocol"], if is_shared { Value::Null } else { json!("imap") });
        assert!(step["ms"].is_u64() && step["message"].is_string(), "{step}");
        assert_eq!(step["result"], "ok");
    }
    let printed = shell.run(&["account", "verify", ALICE]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert_in_order(
        &printed.stdout,
        &[
            "PROTOCOL", "STEP", "RESULT", "MS", "MESSAGE", "dns", "token", "scopes", "login", "command",
        ],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_there_and_a_port_that_is_closed_are_told_apart() {
    let closed = free_port();
    let portreeve = with_password("imap.invalid", 993, Security::Implicit, None).await;
    let report = verified(&portreeve, "bob", false).await;
    assert_failed_at(&report, "dns", "imap.invalid cannot be resolved", "DNS");
    assert_eq!(
        outcomes(&report),
        [
            "imap dns failed",
            "imap connect skipped",
            "imap tls skipped",
            "- token skipped",
            "- scopes skipped",
            "imap login skipped",
            "imap command skipped",
        ]
    );
    let portreeve = with_password("localhost", closed, Security::Implicit, None).await;
    let report = verified(&portreeve, "bob", false).await;
    assert_failed_at(&report, "connect", "refused", "port");
    assert_eq!(step(&report, "imap", "tls")["result"], "skipped");

    // On a terminal the remedy stands below the step that it is for.
    let printed = Shell::at(portreeve.socket()).run(&["account", "verify", "bob"]);
    assert_eq!(printed.code, 1, "{printed:?}");
    assert_in_order(
        &printed.stdout,
        &["connect", "failed", "refused", "→ Check the endpoint's host", "skipped"],
    );
    assert_eq!(printed.stderr, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_not_good_is_told_with_what_is_wrong_with_it() {
    let authority = Authority::new();
    let directory = open_directory();
    let (ca_file, other) = (directory.path().join("ca.pem"), directory.path().join("other.pem"));
    std::fs::write(&ca_file, authority.pem()).unwrap();
    std::fs::write(&other, Authority::new().pem()).unwrap();
    let (good, of_another) = (authority.issue_for_loopback(), authority.issue(&["imap.example.test"]));
    let expired = authority.issue_until(&["localhost"], 2001);
    for (leaf, ca_file, problem, remedy) in [
        (
            &good,
            None,
            "an authority that is not trusted here",
            "set the provider's ca_file",
        ),
        (
            &good,
            Some(&other),
            "not signed by the trusted authority",
            "present certificate",
        ),
        (
            &of_another,
            Some(&ca_file),
            "is for imap.example.test, not for localhost",
            "Correct the endpoint's host",
        ),
        (&expired, Some(&ca_file), "has expired", "clock set right"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let portreeve = with_password("localhost", port, Security::Implicit, ca_file.map(PathBuf::as_path)).await;
        let shown = async {
            let (stream, _) = listener.accept().await.unwrap();
            Wire::accepted(stream).try_secured_as_upstream(&leaf.acceptor()).await
        };
        let (report, shown) = tokio::join!(verified(&portreeve, "bob", false), shown);
        // In TLS 1.3 the upstream has done its part when the proxy refuses.
        drop(shown);
        assert_failed_at(&report, "tls", problem, remedy);
        let skipped = ["token", "scopes", "login", "command"];
        let skipped = steps(&report)
            .iter()
            .filter(|step| skipped.contains(&step["name"].as_str().unwrap()));
        assert_eq!(
            skipped.filter(|step| step["result"] == "skipped").count(),
            4,
            "{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starttls_is_a_step_before_the_token_and_the_login_goes_on_behind_it() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start(&provider).await;
    let endpoints = [
        Endpoint::new(Protocol::Imap, dovecot.imap(), Security::StartTls),
        Endpoint::new(Protocol::Pop3, dovecot.pop3(), Security::StartTls),
    ];
    let portreeve = Setup::default()
        .listening(Protocol::Pop3)
        .provider_at(provider.endpoints(), &endpoints, &dovecot.ca_file())
        .start()
        .await;
    portreeve.add_account(ALICE, &provider.mint(ALICE).await).await;
    let report = verified(&portreeve, ALICE, true).await;
    assert_eq!(
        outcomes(&report),
        [
            "imap dns ok",
            "imap connect ok",
            "imap tls ok",
            "- token ok",
            "- scopes ok",
            "imap login ok",
            "imap command ok",
            "pop3 dns ok",
            "pop3 connect ok",
            "pop3 tls ok",
            "pop3 login ok",
            "pop3 command ok",
        ],
        "{report}\n{}",
        dovecot.log()
    );
    for protocol in ["imap", "pop3"] {
        let message = step(&report, protocol, "tls")["message"].as_str().unwrap();
        assert!(
            message.starts_with("TLS 1.3 TLS_") && message.contains("good until 4096"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_behind_starttls_that_is_not_good_and_a_starttls_that_is_withheld_are_failed_tls() {
    let upstream = Upstream::listen(Security::StartTls).await;
    let port = upstream.address().port();
    let portreeve = with_password("localhost", port, Security::StartTls, None).await;
    let untrusted = async {
        let mut leg = upstream.accept().await;
        leg.send_line("* OK [CAPABILITY IMAP4rev1 STARTTLS] ready").await;
        assert_eq!(leg.line().await, "P1 STARTTLS");
        leg.send_line("P1 OK go").await;
        // In TLS 1.3 the upstream has done its part when the proxy refuses.
        drop(leg.try_secured_as_upstream(&upstream.authority().acceptor()).await);
    };
    let (report, ()) = tokio::join!(verified(&portreeve, "bob", false), untrusted);
    assert_failed_at(
        &report,
        "tls",
        "an authority that is not trusted here",
        "set the provider's ca_file",
    );
    let behind = [
        "- token skipped",
        "- scopes skipped",
        "imap login skipped",
        "imap command skipped",
    ];
    assert_eq!(outcomes(&report)[3..], behind, "{report}");

    let withheld = async {
        let mut leg = upstream.accept().await;
        leg.send_line("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready").await;
        assert_eq!(leg.line().await, "P1 STARTTLS");
        leg.send_line("P1 BAD unknown command").await;
        leg.expect_end().await;
    };
    let (report, ()) = tokio::join!(verified(&portreeve, "bob", false), withheld);
    assert_failed_at(
        &report,
        "tls",
        "upstream refuses STARTTLS: unknown command",
        "set the endpoint's tls to \"implicit\"",
    );
    assert_eq!(outcomes(&report)[3..], behind, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_server_of_an_authority_that_is_not_the_providers_fails_at_tls() {
    let directory = open_directory();
    let other = directory.path().join("other.pem");
    std::fs::write(&other, Authority::new().pem()).unwrap();
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start(&provider).await;
    let postfix = Postfix::start(&dovecot).await;
    let submission = Endpoint::new(Protocol::Smtp, postfix.submission(), Security::StartTls);
    let portreeve = Setup::default()
        .listening(Protocol::Smtp)
        .provider_at(provider.endpoints(), &[submission], &other)
        .start()
        .await;
    portreeve.add_account(ALICE, &provider.mint(ALICE).await).await;
    let report = verified(&portreeve, ALICE, false).await;
    assert_failed_at(
        &report,
        "tls",
        "not signed by the trusted authority",
        "set the provider's ca_file to its present certificate",
    );
    assert_eq!(step(&report, "smtp", "login")["result"], "skipped");
    assert_eq!(provider.counters(ALICE).await.refreshes, 0, "no token was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_gone_is_explained() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    bed.account(ALICE).await;
    bed.provider.revoke_grants(ALICE).await;
    let report = verified(&bed.portreeve, ALICE, false).await;
    assert_failed_at(&report, "token", "the grant is gone", "Authorize the account again");
    assert_eq!(step(&report, "-", "scopes")["result"], "skipped");
    assert_eq!(step(&report, "imap", "login")["result"], "skipped");
    let shown = bed.shown(ALICE).await;
    assert_eq!(shown["state"], "needs-authorization");
    let message = shown["lastError"]["message"].as_str().unwrap();
    assert!(message.ends_with("or given to another app"), "{message}");
    assert!(
        shown["lastError"]["remedy"]
            .as_str()
            .unwrap()
            .starts_with("Authorize the account again")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_microsoft_and_google_say_is_explained() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let aadsts = |number: u32, words: &str, error: &str| {
        let body = json!({
            "error": error,
            "error_description": format!("AADSTS{number}: {words} Trace ID: 0000 Correlation ID: 0000"),
            "error_codes": [number],
        });
        (400, body)
    };
    let google = |error: &str, description: &str| (400, json!({ "error": error, "error_description": description }));
    let cases = [
        (
            aadsts(
                50076,
                "Due to a configuration change made by your administrator.",
                "interaction_required",
            ),
            "wants multi-factor authentication",
            "pass the second factor",
            "needs-authorization",
        ),
        (
            aadsts(
                700_082,
                "The refresh token has expired due to inactivity.",
                "invalid_grant",
            ),
            "not used for too long",
            "keep_alive",
            "needs-authorization",
        ),
        (
            aadsts(
                7_000_222,
                "The provided client secret keys are expired.",
                "invalid_client",
            ),
            "secret has expired",
            "new secret",
            "failing",
        ),
        (
            aadsts(90094, "The grant requires administrator permission.", "invalid_grant"),
            "needs an administrator's consent",
            "Grant admin consent",
            "failing",
        ),
        (
            google("invalid_grant", "Token has been expired or revoked."),
            // What Google means by it is Google's alone.
            "the grant is gone",
            "publish the app",
            "needs-authorization",
        ),
        (
            google(
                "admin_policy_enforced",
                "Access to your account data is restricted by policies.",
            ),
            "administrator does not allow this app",
            "trust the app",
            "needs-authorization",
        ),
        (
            (
                401,
                json!({ "error": "deleted_client", "error_description": "The OAuth client was deleted." }),
            ),
            "deleted at the provider",
            "Restore it",
            "failing",
        ),
    ];
    for (place, ((status, body), cause, remedy, state)) in cases.into_iter().enumerate() {
        let user = format!("user{place}@bed.test");
        bed.account(&user).await;
        // What explains them goes on in the same sentence.
        let words = body["error_description"]
            .as_str()
            .unwrap()
            .trim_end_matches('.')
            .to_owned();
        bed.provider.fault_of(&user, Fault::Custom { status, body }).await;
        let report = verified(&bed.portreeve, &user, false).await;
        assert_failed_at(&report, "token", cause, remedy);
        let message = step(&report, "-", "token")["message"].as_str().unwrap();
        assert!(message.contains(&words), "the provider's own words stay: {message}");
        let shown = bed.shown(&user).await;
        assert_eq!(shown["state"], state, "{shown}");
        let told = |field: &str| shown["lastError"][field].as_str().unwrap().to_owned();
        assert!(
            told("message").starts_with(&words) && told("message").contains(cause),
            "{shown}"
        );
        assert!(told("remedy").contains(remedy), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_endpoint_that_cannot_be_reached_is_named_with_how_far_one_gets() {
    let upstream = Upstream::listen(Security::Off).await;
    let (port, closed) = (upstream.address().port(), free_port());
    // It listens, and what it shows nobody trusts.
    let untrusted = Authority::new();
    let untrusted_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secure = untrusted_listener.local_addr().unwrap().port();
    for (url, host, phase) in [
        ("https://login.invalid/token".to_owned(), "login.invalid", "(DNS)"),
        (format!("http://localhost:{closed}/token"), "localhost", "(TCP)"),
        (format!("https://localhost:{secure}/token"), "localhost", "(TLS)"),
    ] {
        let portreeve = Setup::default()
            .with(&format!(
                "[provider.{PROVIDER}]\nimap = {{ host = \"localhost\", port = {port}, tls = \"off\" }}\n\
                 token_url = \"{url}\"\nclient_id = \"x\"\nclient_secret = \"y\"\nscopes = [\"mail\"]\n"
            ))
            .start()
            .await;
        let body = json!({ "account": "eve", "provider": PROVIDER, "oauth2": { "refreshToken": "r1" } });
        portreeve.post("/v1/account", &body).await;
        let accepting = async {
            // One from the walk to the mailbox, and one to the token endpoint where that listens.
            let _mailbox = upstream.accept().await;
            if phase == "(TLS)" {
                let (stream, _) = untrusted_listener.accept().await.unwrap();
                let acceptor = untrusted.acceptor();
                drop(Wire::accepted(stream).try_secured_as_upstream(&acceptor).await);
            }
        };
        let (report, ()) = tokio::join!(verified(&portreeve, "eve", false), accepting);
        assert_failed_at(
            &report,
            "token",
            &format!("the token endpoint {host} cannot be used {phase}"),
            "token_url",
        );
        assert_eq!(step(&report, "imap", "login")["result"], "skipped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_says_of_scopes_condemns_nothing_that_opens() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    bed.account(ALICE).await;
    let grant = bed.provider.mint(ALICE).await;
    // As it tells it, consent was given for the identity alone.
    let answer = |access_token: &str| Fault::Custom {
        status: 200,
        body: json!({
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": 3600,
            "scope": "openid email",
        }),
    };
    bed.provider.fault_of(ALICE, answer(&grant.access_token)).await;
    let report = verified(&bed.portreeve, ALICE, true).await;
    let told = "the grant lacks mail (for the mailbox), as the provider tells it; granted: openid email";
    let message = step(&report, "-", "scopes")["message"].as_str().unwrap();
    assert!(message.starts_with(told), "{message}");
    assert_eq!(step(&report, "imap", "command")["result"], "ok");

    // Where it does not open, that is why.
    bed.account(BOB).await;
    bed.provider.fault_of(BOB, answer("of-no-use")).await;
    let report = verified(&bed.portreeve, BOB, false).await;
    let scopes = step(&report, "-", "scopes");
    assert_eq!(
        (&scopes["result"], &scopes["message"]),
        (&json!("failed"), &json!(told))
    );
    let remedy = scopes["remedy"].as_str().unwrap();
    assert!(
        remedy.ends_with(&format!("portreeve account authorize {BOB}")),
        "{remedy}"
    );
    assert_eq!(step(&report, "imap", "login")["result"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_withdrawn_is_replaced_once_as_for_a_login() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    bed.account(ALICE).await;
    verified(&bed.portreeve, ALICE, true).await;
    let before = bed.provider.counters(ALICE).await.refreshes;
    assert!(bed.provider.revoke_access_tokens(ALICE).await > 0);
    let report = verified(&bed.portreeve, ALICE, true).await;
    assert_eq!(step(&report, "imap", "login")["result"], "ok");
    assert_eq!(bed.provider.counters(ALICE).await.refreshes, before + 1);
    assert_eq!(bed.until_state(ALICE, "active").await.get("lastError"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_and_a_mailbox_that_is_not_connected_are_told_apart() {
    let upstream = Upstream::listen(Security::Implicit).await;
    let port = upstream.address().port();
    let portreeve = with_password("localhost", port, Security::Implicit, Some(&upstream.ca_file())).await;
    let refusing = async {
        let mut leg = upstream.accept().await;
        leg.send_line("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready")
            .await;
        let login = leg.line().await;
        let tag = login.split(' ').next().unwrap();
        leg.send_line(&format!("{tag} NO Lookup failed")).await;
        leg.expect_end().await;
    };
    let (report, ()) = tokio::join!(verified(&portreeve, "bob", false), refusing);
    assert_failed_at(&report, "login", "Google finds no mailbox", "Check the account's user");
    assert_eq!(step(&report, "imap", "command")["result"], "skipped");
    assert_eq!(step(&report, "-", "scopes")["message"], "a password has no scopes");

    let not_connected = async {
        let mut leg = upstream.accept().await;
        leg.send_line("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready")
            .await;
        let login = leg.line().await;
        let tag = login.split(' ').next().unwrap();
        leg.send_line(&format!("{tag} OK [CAPABILITY IMAP4rev1] AUTHENTICATE completed."))
            .await;
        assert_eq!(leg.line().await, "V1 EXAMINE INBOX");
        leg.send_line("V1 BAD User is authenticated but not connected.").await;
        assert_eq!(leg.line().await, "Z LOGOUT");
        leg.expect_end().await;
    };
    let (report, ()) = tokio::join!(verified(&portreeve, "bob", false), not_connected);
    assert_eq!(step(&report, "imap", "login")["result"], "ok");
    assert_failed_at(
        &report,
        "command",
        "BAD User is authenticated but not connected; the token is good, but the mailbox cannot be opened",
        "switch IMAP on",
    );
}

/// A proxy whose only mailbox, `bob`'s, takes a password at this endpoint.
async fn with_password(host: &str, port: u16, tls: Security, ca_file: Option<&Path>) -> Portreeve {
    let tls = tls.name();
    let ca_file = ca_file.map_or_else(String::new, |file| format!("ca_file = \"{}\"\n", file.display()));
    let portreeve = Setup::default()
        .with(&format!(
            "[provider.{PROVIDER}]\nimap = {{ host = \"{host}\", port = {port}, tls = \"{tls}\" }}\n{ca_file}"
        ))
        .start()
        .await;
    let body = json!({ "account": "bob", "provider": PROVIDER, "password": "a password" });
    portreeve.post("/v1/account", &body).await;
    portreeve
}

/// The report of a verification; whether all is well is as `expected`, and only what failed has a remedy.
async fn verified(portreeve: &Portreeve, account: &str, expected: bool) -> Value {
    let path = format!("/v1/account/{account}/verify");
    let (status, report) = portreeve.ask(Method::POST, &path, None).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["ok"], expected, "{report}\n{}", portreeve.log());
    for step in steps(&report) {
        assert_eq!(step.get("remedy").is_some(), step["result"] == "failed", "{step}");
    }
    report
}

fn steps(report: &Value) -> &[Value] {
    report["steps"].as_array().expect("a list")
}

/// Protocol, name and result of each step; `-` for what concerns all protocols.
fn outcomes(report: &Value) -> Vec<String> {
    let of = |step: &Value| {
        let protocol = step["protocol"].as_str().unwrap_or("-");
        let text = |field: &str| step[field].as_str().expect("text").to_owned();
        format!("{protocol} {} {}", text("name"), text("result"))
    };
    steps(report).iter().map(of).collect()
}

fn step<'a>(report: &'a Value, protocol: &str, name: &str) -> &'a Value {
    let is_it = |step: &&Value| step["name"] == name && step["protocol"].as_str().unwrap_or("-") == protocol;
    let found = steps(report).iter().find(is_it);
    found.unwrap_or_else(|| panic!("no step {name} of {protocol}: {report}"))
}

/// That exactly one step failed, and which, with what words.
fn assert_failed_at(report: &Value, name: &str, problem: &str, remedy: &str) {
    let failed: Vec<&Value> = steps(report).iter().filter(|step| step["result"] == "failed").collect();
    let [step] = failed.as_slice() else {
        panic!("not one step failed: {report}");
    };
    assert_eq!(step["name"], name, "{step}");
    assert!(step["message"].as_str().unwrap().contains(problem), "{problem}: {step}");
    assert!(step["remedy"].as_str().unwrap().contains(remedy), "{remedy}: {step}");
}

/// The names of an object's members, in alphabetical order.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}
