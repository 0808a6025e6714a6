//! Consent in every way and out of it, and then a search for all that was secret on the way: in the log at its loudest, in the
//! pages, and in every byte that was stored.

use std::collections::BTreeMap;
use std::fs;

use serde_json::json;
use url::Url;

use super::bed::{ALICE, ALL_SCOPES, BOB, Consent, Plan, allow, press};
use crate::secrets::{bearer_in, files_under, forms_of, holds};
use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::browser::{Browser, Person, Tab};
use crate::support::host::Host;
use crate::support::visitor::Visitor;

/// What was learnt of the secrets, by a name for the message of a failure, and what browsers and scripts were told.
#[derive(Default)]
struct Search {
    secrets: BTreeMap<String, String>,
    said: Vec<(String, String)>,
}

impl Search {
    fn keep(&mut self, name: &str, secret: &str) {
        assert!(
            secret.len() >= 16,
            "{name} is too short to be told from chance: {secret}"
        );
        self.secrets
            .insert(format!("{name} {}", self.secrets.len()), secret.to_owned());
    }

    /// Keeps the parameters of a URL by which browsers are sent to and fro.
    fn keep_parameters(&mut self, url: &Url) {
        for (name, value) in url.query_pairs() {
            if ["state", "code", "nonce"].contains(&name.as_ref()) {
                self.keep(&name, &value);
            }
        }
    }

    /// Keeps what a browser went through, and the page that it sees at the end.
    async fn keep_visit(&mut self, owner: &Tab<'_>) {
        for request in owner.requests().await {
            self.keep_parameters(&Url::parse(&request.url).expect("a URL"));
        }
        for cookie in owner.cookies().await {
            if cookie["domain"] == "localhost" {
                self.keep("the cookie", cookie["value"].as_str().expect("a value is text"));
            }
        }
        self.said.push(("a page".to_owned(), owner.html().await));
    }

    /// Keeps what the provider was sent.
    async fn keep_ledger(&mut self, consent: &Consent) {
        let provider = &consent.bed.provider;
        self.keep("the app's secret", &provider.endpoints().client_secret);
        for request in provider.requests().await.iter().chain(&provider.revocations().await) {
            for name in ["code", "code_verifier", "refresh_token", "device_code", "token"] {
                if let Some(value) = request.params.get(name) {
                    self.keep(name, value);
                }
            }
        }
    }

    fn run(&self, consent: &Consent) {
        let log = consent.bed.portreeve.log();
        assert!(log.contains("TRACE"), "the log is at its loudest");
        let lines = log.lines().map(|line| ("the log".to_owned(), line.as_bytes().to_vec()));
        let said = self
            .said
            .iter()
            .map(|(place, text)| (place.clone(), text.clone().into_bytes()));
        let files = files_under(&consent.bed.portreeve.state_dir());
        let stored = files
            .iter()
            .filter(|file| !file.ends_with("master.key"))
            // One that has just been deleted by a compaction has nothing to hide any more.
            .filter_map(|file| Some((file.display().to_string(), fs::read(file).ok()?)));
        let needles: Vec<_> = self
            .secrets
            .iter()
            .map(|(name, secret)| (name, forms_of(secret.as_bytes())))
            .collect();
        let places: Vec<(String, Vec<u8>)> = lines.chain(said).chain(stored).collect();
        let mut found = Vec::new();
        for (place, text) in &places {
            let in_it = needles.iter().filter(|(_, needles)| holds(text, needles));
            found.extend(in_it.map(|(name, _)| format!("{name} is in {place}: {}", String::from_utf8_lossy(text))));
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_code_state_link_cookie_or_token_is_told_or_kept_in_the_clear() {
    let plan = Plan {
        toml: "[log]\nlevel = \"trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,tokio_rustls=trace,\
               axum=trace,tower=trace,fjall=trace,lsm_tree=trace\"\nformat = \"text\"",
        ..Plan::default()
    };
    let consent = plan.start().await;
    // It tells what it was logged in with.
    let host = Host::start().await;
    let at_host = json!({ "imap": { "host": "localhost", "port": host.address().port(), "tls": "off" } });
    consent.add_account(ALICE, &at_host).await;
    consent.add_account(BOB, &json!({})).await;
    let mut search = Search::default();
    by_code(&consent, &mut search).await;
    by_device(&consent, &mut search).await;
    by_link(&consent, &mut search).await;

    search.keep_ledger(&consent).await;
    let tokens: Vec<String> = host.heard().iter().filter_map(|line| bearer_in(line)).collect();
    assert!(tokens.len() >= 3, "every consent was tried: {tokens:?}");
    for token in tokens {
        search.keep("an OAuth access token", &token);
    }
    for name in [
        "code",
        "code_verifier",
        "device_code",
        "state",
        "the cookie",
        "the link",
    ] {
        assert!(
            search.secrets.keys().any(|key| key.starts_with(name)),
            "no {name} was seen"
        );
    }
    search.run(&consent);
}

/// Given, replayed, denied, and another's.
async fn by_code(consent: &Consent, search: &mut Search) {
    for (user, scopes) in [(ALICE, &ALL_SCOPES[..]), (ALICE, &[]), (BOB, &ALL_SCOPES)] {
        let begun = consent.begin_code(ALICE).await;
        search.keep_parameters(&Url::parse(&begun).expect("a URL"));
        let redirected = Visitor::new().consent(&begun, user, scopes).await.elsewhere();
        search.keep_parameters(&redirected);
        for _ in 0..2 {
            let (_, answer) = consent.complete(&redirected).await;
            search.said.push(("an answer".to_owned(), answer.to_string()));
        }
    }
    // Where they do not belong.
    let redirected = consent.answered(ALICE, ALICE, &ALL_SCOPES).await;
    search.keep_parameters(&redirected);
    let doubled = Url::parse(&format!("{redirected}&{}", redirected.query().expect("it has one"))).expect("a URL");
    for body in [
        json!({ "url": doubled }),
        json!({ "url": redirected, "more": redirected }),
        json!({ "url": [redirected] }),
        json!(redirected),
        json!({ "url": redirected.query() }),
    ] {
        let path = "/v1/authorize";
        let (status, answer) = consent
            .bed
            .portreeve
            .ask(reqwest::Method::POST, path, Some(&body))
            .await;
        assert!((400..500).contains(&status), "{status}: {body}");
        search.said.push(("an answer".to_owned(), answer.to_string()));
    }
}

async fn by_device(consent: &Consent, search: &mut Search) {
    let begun = super::device::begin(consent, ALICE).await;
    super::device::type_in(&begun, ALICE, &ALL_SCOPES).await;
    let done = until(PATIENCE, "the device has its grant", async || {
        let progress = consent.progress(ALICE).await;
        (progress["state"] == "done").then_some(progress)
    });
    search.said.push(("an answer".to_owned(), done.await.to_string()));
}

/// Another's, given, and used; forged, and with a redirect that was replayed.
async fn by_link(consent: &Consent, search: &mut Search) {
    let browser = Browser::start(&[&consent.authority().await]).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    let secret = link.rsplit('/').next().expect("a link has a path");
    search.keep("the link", secret);
    for user in [BOB, ALICE] {
        let owner = browser.open(Person::default()).await;
        owner.goto(&link).await;
        search.said.push(("a page".to_owned(), owner.html().await));
        press(&owner).await;
        allow(&owner, user, &[]).await;
        search.keep_visit(&owner).await;
        owner.reload().await;
        search.keep_visit(&owner).await;
        owner.goto(&link).await;
        search.keep_visit(&owner).await;
        owner.goto(&format!("{link}A")).await;
        search.keep_visit(&owner).await;
        owner.goto(&format!("{}elsewhere/{secret}", consent.public_url)).await;
        search.keep_visit(&owner).await;
    }
}
