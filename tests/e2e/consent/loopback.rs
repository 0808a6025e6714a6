//! `portreeve account authorize` with a real browser on the same machine: the owner clicks through the provider's pages and is
//! sent back to the command's own listener, or types a code in that the command shows.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::net::TcpStream;
use url::Url;

use super::bed::{ALICE, Consent, Plan, allow};
use super::looks::look;
use crate::authorize::url_of;
use crate::support::browser::{Browser, Person, Tab};
use crate::support::process::Process;
use crate::support::shell::Shell;

/// Starts the command for the account of [`ALICE`].
fn authorize(consent: &Consent, arguments: &[&str]) -> Process {
    let arguments = [&["account", "authorize", ALICE], arguments].concat();
    let shell = Shell::at(consent.bed.portreeve.socket());
    Process::spawn("authorize", &mut shell.command(&arguments))
}

/// Where the provider is to send the browser back to, and with which state.
fn asked_for(url: &str) -> (Url, String) {
    let url = Url::parse(url).expect("a URL");
    let parameters: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let redirect = Url::parse(&parameters["redirect_uri"]).expect("a URL");
    assert_eq!((redirect.scheme(), redirect.host_str()), ("http", Some("localhost")));
    (redirect, parameters["state"].clone())
}

/// What the browser had to complain of but the provider's pages, which have no icon, and have been left in a hurry.
async fn complaints(consent: &Consent, reader: &Tab<'_>) -> Vec<String> {
    let of_provider = format!("({}/", consent.bed.provider.endpoints().issuer);
    let mut complaints = reader.complaints().await;
    complaints.retain(|complaint| !complaint.contains(&of_provider));
    complaints
}

/// Nobody but the provider and the command is asked for anything, and the command is told of no page before.
async fn assert_nobody_else_is_asked(consent: &Consent, owner: &Tab<'_>, redirect: &Url) {
    let issuer = format!("{}/", consent.bed.provider.endpoints().issuer);
    let requests = owner.requests().await;
    let (back, others): (Vec<_>, Vec<_>) = requests
        .iter()
        .partition(|request| request.url.starts_with(redirect.as_str()));
    assert_eq!(back.len(), 1, "{requests:?}");
    for request in others {
        assert!(request.url.starts_with(&issuer), "{request:?}");
    }
}

/// What is not the redirect of this flow is told that there is nothing, and ends nothing.
async fn strangers_are_sent_away(consent: &Consent, browser: &Browser, redirect: &Url, state: &str) {
    let stranger = browser.open(Person::default()).await;
    for (url, name) in [
        (format!("{redirect}?code=c&state=guessed"), "loopback-wrong-state"),
        (
            format!("{redirect}elsewhere?code=c&state={state}"),
            "loopback-wrong-path",
        ),
    ] {
        let shown = stranger.goto(&url).await;
        look(&stranger, &shown, 404, name, &["Not found", "begin again"]).await;
    }
    for complaint in complaints(consent, &stranger).await {
        assert!(complaint.contains("status of 404"), "{complaint}");
    }
    stranger.close().await;
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "new");
    assert_eq!(consent.exchanges().await.len(), 0, "no code was taken from a stranger");
}

#[tokio::test]
async fn an_owner_comes_back_to_the_command_and_hears_of_success_once_the_mailbox_has_opened() {
    let consent = Plan::default().start().await;
    let browser = Browser::start(&[]).await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let mut command = authorize(&consent, &["--no-browser"]);
    let url = url_of(&command).await;
    let (redirect, state) = asked_for(&url);
    strangers_are_sent_away(&consent, &browser, &redirect, &state).await;
    assert!(command.is_running(), "{}", command.log_tail());

    let owner = browser.open(Person::default()).await;
    owner.goto(&url).await;
    let done = allow(&owner, ALICE, &[]).await;
    assert!(done.url.starts_with(redirect.as_str()), "{done:?}");
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "active");
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(done.headers[name], value, "{done:?}");
    }
    assert!(command.wait().await.success(), "{}", command.log_tail());
    command.until_output_ends().await;
    let told = command.stdout();
    assert!(told.contains("Authorized alice@example.com"), "{told}");
    // The page stays readable though nobody is there any more who could serve anything to it.
    let port = redirect.port().expect("a port");
    assert!(TcpStream::connect(("localhost", port)).await.is_err());
    let words = ["The mailbox is open", ALICE, "You can close this window"];
    look(&owner, &done, 200, "loopback-open", &words).await;
    assert_eq!(complaints(&consent, &owner).await, Vec::<String>::new());
    assert_nobody_else_is_asked(&consent, &owner, &redirect).await;

    consent.assert_opens(ALICE, &token).await;
    assert_eq!(consent.exchanges().await.len(), 1);
    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn an_owner_who_declines_is_told_so_at_both_ends_and_the_grant_before_goes_on() {
    let consent = Plan::default().start().await;
    let browser = Browser::start(&[]).await;
    let token = consent.authorized(ALICE).await;
    let mut command = authorize(&consent, &["--no-browser"]);
    let url = url_of(&command).await;
    let (redirect, _) = asked_for(&url);

    let owner = browser.open(Person::default()).await;
    owner.goto(&url).await;
    owner.fill("role=textbox[name=\"User name\"]", ALICE).await;
    owner.follow("role=button[name=\"Log in\"]").await;
    let denied = owner.follow("role=button[name=\"Deny\"]").await;
    assert!(denied.url.starts_with(redirect.as_str()), "{denied:?}");
    assert_eq!(command.wait().await.code(), Some(1), "{}", command.log_tail());
    command.until_output_ends().await;
    let told = command.stderr();
    assert!(told.contains("was not given"), "{told}");
    let words = ["The mailbox is not open", "was not given"];
    look(&owner, &denied, 502, "loopback-denied", &words).await;
    for complaint in complaints(&consent, &owner).await {
        assert!(complaint.contains("status of 502"), "{complaint}");
    }
    assert_nobody_else_is_asked(&consent, &owner, &redirect).await;

    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn an_owner_types_the_code_in_that_the_command_shows() {
    let consent = Plan::default().start().await;
    let browser = Browser::start(&[]).await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let mut command = authorize(&consent, &["--device"]);
    let code = command.stdout_line(|line| line.starts_with("Code: ")).await;
    let code = code.trim_start_matches("Code: ");

    let owner = browser.open(Person::default()).await;
    owner.goto(&url_of(&command).await).await;
    owner.fill("input[name=\"user_code\"]", code).await;
    let confirm = owner.follow("role=button[name=\"Continue\"]").await;
    assert_eq!(confirm.title, "Is this the code?", "{confirm:?}");
    let asked = owner.text("main").await;
    assert!(asked.contains(code), "{asked}");
    assert!(command.is_running(), "{}", command.log_tail());
    owner.follow("role=button[name=\"Continue\"]").await;
    let done = allow(&owner, ALICE, &[]).await;
    assert_eq!((done.status, done.title.as_str()), (200, "Done"));
    assert!(command.wait().await.success(), "{}", command.log_tail());
    command.until_output_ends().await;
    let told = command.stdout();
    assert!(told.contains("Authorized alice@example.com"), "{told}");

    consent.assert_opens(ALICE, &token).await;
    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
}
