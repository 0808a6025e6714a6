//! Every kind of page as its readers meet it, on a desk and on a phone, by day and by night: what it says, that everybody can
//! read it (axe), and pictures under `target/consent-pages` to be looked at.

use std::path::PathBuf;

use serde_json::json;

use super::bed::{ALICE, ALL_SCOPES, BOB, Consent, Plan, allow, press};
use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::browser::{Browser, Colors, Person, Screen, Shown, Tab};
use crate::support::portreeve::PROVIDER;
use crate::support::project_file;
use crate::support::provider::Fault;

/// Looks at the page in view on every screen and in all colours.
pub async fn look(reader: &Tab<'_>, shown: &Shown, status: u16, name: &str, words: &[&str]) {
    assert_eq!(shown.status, status, "{name}: {shown:?}");
    let text = reader.text("main").await;
    for words in words {
        assert!(text.contains(words), "{name}: {words} is not in {text}");
    }
    for screen in [Screen::Desktop, Screen::Phone] {
        for colors in [Colors::Light, Colors::Dark] {
            reader.look(screen, colors).await;
            let violations = reader.axe().await;
            assert!(violations.is_empty(), "{name}, {screen:?}, {colors:?}: {violations:?}");
            let file = format!("{name}-{}-{}.png", screen.name(), colors.name());
            reader.screenshot(&pictures().join(file)).await;
        }
    }
}

fn pictures() -> PathBuf {
    let directory = project_file("target/consent-pages");
    std::fs::create_dir_all(&directory).expect("the directory can be made");
    directory
}

/// Somebody new opens a link and presses its button.
async fn begin<'a>(browser: &'a Browser, link: &str) -> Tab<'a> {
    let owner = browser.open(Person::default()).await;
    owner.goto(link).await;
    press(&owner).await;
    owner
}

#[tokio::test]
async fn every_page_says_what_is_true_and_can_be_read_by_everybody() {
    let mut consent = Plan::default().start().await;
    let browser = Browser::start(&[&consent.authority().await]).await;
    // It holds a grant that none of what follows may touch.
    let token = consent.authorized(ALICE).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    what_owners_refuse(&consent, &browser, &link).await;
    what_others_refuse(&mut consent, &browser, &link).await;
    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
    // Each failure leaves the link as it was.
    let owner = begin(&browser, &link).await;
    let done = allow(&owner, ALICE, &[]).await;
    look(&owner, &done, 200, "connected", &[ALICE, "There is nothing left to do"]).await;
    what_leads_nowhere(&consent, &browser, &link).await;
    too_many_requests(&consent, &browser).await;
}

async fn what_owners_refuse(consent: &Consent, browser: &Browser, link: &str) {
    let owner = browser.open(Person::default()).await;
    let ask = owner.goto(link).await;
    look(&owner, &ask, 200, "ask", &[ALICE, PROVIDER, "Continue to testbed"]).await;
    owner.close().await;
    let long = format!("{}@{}example.com", "a".repeat(64), "subdomain.".repeat(10));
    let unwieldy = json!({ "account": "x".repeat(200), "email": long, "provider": PROVIDER });
    let owner = browser.open(Person::default()).await;
    let ask = owner.goto(&consent.link(&unwieldy).await).await;
    look(&owner, &ask, 200, "ask-long", &[&long]).await;
    owner.close().await;

    let owner = begin(browser, link).await;
    owner.fill("role=textbox[name=\"User name\"]", ALICE).await;
    owner.follow("role=button[name=\"Log in\"]").await;
    let denied = owner.follow("role=button[name=\"Deny\"]").await;
    look(&owner, &denied, 403, "denied", &["Permission was not given"]).await;
    owner.close().await;

    let owner = begin(browser, link).await;
    let partial = allow(&owner, ALICE, &["mail", "offline_access"]).await;
    let words = [
        "Part of the permission is missing",
        "to use mail",
        "to stay connected while you are away",
    ];
    look(&owner, &partial, 403, "partial", &words).await;
    owner.close().await;

    let owner = begin(browser, link).await;
    let wrong = allow(&owner, BOB, &[]).await;
    look(
        &owner,
        &wrong,
        409,
        "wrong-mailbox",
        &["Another mailbox signed in", ALICE, BOB],
    )
    .await;
    owner.close().await;
}

async fn what_others_refuse(consent: &mut Consent, browser: &Browser, link: &str) {
    consent.add_account("shared", &json!({ "user": BOB })).await;
    let shared = consent.link(&json!({ "account": "shared" })).await;
    let owner = begin(browser, &shared).await;
    let refused = allow(&owner, ALICE, &[]).await;
    let words = ["The mailbox refused the login", "Authentication failed"];
    look(&owner, &refused, 403, "login-refused", &words).await;
    owner.close().await;

    let owner = begin(browser, link).await;
    consent.bed.provider.fault_next(1, Fault::ServerError).await;
    let trouble = allow(&owner, ALICE, &[]).await;
    look(
        &owner,
        &trouble,
        502,
        "provider-trouble",
        &["The provider does not answer as it should"],
    )
    .await;
    owner.close().await;

    let carol = "carol@example.com";
    let token = consent.add_account(carol, &json!({})).await;
    let of_carol = consent.link(&json!({ "account": carol })).await;
    let redirected = consent.answered("shared", BOB, &ALL_SCOPES).await;
    assert_eq!(consent.complete(&redirected).await.0, 200);
    let shared = consent.link(&json!({ "account": "shared" })).await;
    consent.lose_upstream().await;
    let owner = begin(browser, &of_carol).await;
    let unreachable = allow(&owner, carol, &[]).await;
    let words = ["The mailbox cannot be reached now", "it has been kept"];
    look(&owner, &unreachable, 503, "mailbox-unreachable", &words).await;
    owner.close().await;
    // Whose it is cannot be told, and the account has one that works.
    let owner = begin(browser, &shared).await;
    let unreachable = allow(&owner, BOB, &[]).await;
    let words = ["The mailbox cannot be reached now", "has not been kept"];
    look(&owner, &unreachable, 503, "mailbox-unreachable-not-kept", &words).await;
    owner.close().await;
    consent.reach_upstream().await;
    let refusal = "NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later";
    consent.bed.until_logged_in(carol, &token, refusal).await;
}

async fn what_leads_nowhere(consent: &Consent, browser: &Browser, link: &str) {
    consent.add_account(BOB, &json!({})).await;
    let gone = consent.link(&json!({ "account": BOB })).await;
    assert_eq!(consent.bed.portreeve.delete(&format!("/v1/account/{BOB}")).await.0, 200);
    let public = |path: &str| consent.public_url.join(path).expect("a URL").to_string();
    let reader = browser.open(Person::default()).await;
    for (url, status, name, words) in [
        (link.to_owned(), 410, "used", "This link has been used"),
        (gone, 410, "expired", "This link has expired"),
        (public("authorize/abc.def"), 404, "forged", "This link is not valid"),
        (
            public("oauth/callback?state=abc&code=def"),
            400,
            "unknown",
            "cannot be completed",
        ),
        (public("oauth/callback"), 400, "nothing-brought", "cannot be completed"),
        (public("elsewhere"), 404, "no-such-page", "There is no such page"),
    ] {
        let shown = reader.goto(&url).await;
        look(&reader, &shown, status, name, &[words, "What you can do"]).await;
    }
}

async fn too_many_requests(consent: &Consent, browser: &Browser) {
    let stranger = consent.stranger().await;
    let robots = consent.public_url.join("robots.txt").expect("a URL");
    let reader = browser.open(Person::default()).await;
    let shown = until(PATIENCE, "the address has asked too often", async || {
        while stranger
            .get(robots.clone())
            .send()
            .await
            .expect("an answer comes")
            .status()
            != 429
        {}
        let shown = reader.goto(robots.as_str()).await;
        // A second is enough for one request more.
        (shown.status == 429).then_some(shown)
    })
    .await;
    assert!(shown.headers.contains_key("retry-after"), "{shown:?}");
    look(&reader, &shown, 429, "too-many-requests", &["Wait a minute"]).await;
}
