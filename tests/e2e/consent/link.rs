//! The hosted link in a real browser: from the page behind it to the provider and back, and what does not get that far.

use serde_json::{Value, json};

use super::bed::{ALICE, BOB, Consent, Plan, Web, allow, follow_to_end, press};
use crate::support::browser::{Browser, Colors, Person, Screen, Tab};
use crate::support::portreeve::PROVIDER;
use crate::support::visitor::Visitor;

const CONNECT: &str = "Connect your mailbox - localhost";
const CONNECTED: &str = "Your mailbox is connected - localhost";
const INCOMPLETE: &str = "This sign-in cannot be completed - localhost";
const USED: &str = "This link has been used - localhost";

/// A consent, and a browser that trusts its public side.
async fn with_browser(plan: Plan) -> (Consent, Browser) {
    let consent = plan.start().await;
    let browser = Browser::start(&[&consent.authority().await]).await;
    (consent, browser)
}

/// What the browser keeps for the public side: no more than one cookie.
async fn kept(owner: &Tab<'_>) -> Option<Value> {
    let mut cookies = owner.cookies().await;
    cookies.retain(|cookie| cookie["domain"] == "localhost");
    assert!(cookies.len() < 2, "{cookies:?}");
    cookies.pop()
}

/// Where the button has led: the authorization request, which anybody's browser can make.
async fn authorization(owner: &Tab<'_>) -> String {
    let requests = owner.requests().await;
    let mut to_provider = requests.iter().filter(|request| request.url.contains("/auth?"));
    to_provider
        .next_back()
        .expect("the button leads to the provider")
        .url
        .clone()
}

#[tokio::test]
async fn an_owner_is_led_through_consent_and_hears_of_success_once_the_mailbox_has_opened() {
    let (consent, browser) = with_browser(Plan::default()).await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    let owner = browser.open(Person::default()).await;

    let page = owner.goto(&link).await;
    assert_eq!((page.status, page.title.as_str()), (200, CONNECT));
    let text = owner.text("main").await;
    for named in [ALICE, PROVIDER, "localhost"] {
        assert!(text.contains(named), "{text}");
    }
    for (name, value) in [
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(page.headers[name], value, "{page:?}");
    }
    let policy = &page.headers["content-security-policy"];
    assert!(
        policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(kept(&owner).await, None, "nothing is kept of those who only look");

    press(&owner).await;
    let cookie = kept(&owner).await.expect("the button leaves a cookie");
    assert_eq!(cookie["name"], "__Host-portreeve");
    assert_eq!((&cookie["secure"], &cookie["httpOnly"]), (&json!(true), &json!(true)));
    assert_eq!((&cookie["sameSite"], &cookie["path"]), (&json!("Lax"), &json!("/")));
    let asked = &consent.bed.provider.authorization_requests().await[0].params;
    assert_eq!(asked["redirect_uri"], format!("{}oauth/callback", consent.public_url));
    assert_eq!(asked["login_hint"], ALICE);
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "new");

    let done = allow(&owner, ALICE, &[]).await;
    assert_eq!((done.status, done.title.as_str()), (200, CONNECTED));
    assert_eq!(done.headers["cache-control"], "no-store");
    assert!(owner.text("main").await.contains("a login to the mailbox worked"));
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "active");
    consent.assert_opens(ALICE, &token).await;
    assert_no_complaints(&consent, &owner).await;
    assert_nothing_is_told_to_others(&consent, &owner, &link).await;

    // The same redirect once more, and the same link.
    let again = owner.reload().await;
    assert_eq!((again.status, again.title.as_str()), (400, INCOMPLETE));
    let again = owner.goto(&link).await;
    assert_eq!((again.status, again.title.as_str()), (410, USED));
    assert_eq!(consent.exchanges().await.len(), 1);
    assert!(consent.bed.provider.revoke_access_tokens(ALICE).await > 0);
    consent.assert_opens(ALICE, &token).await;
}

/// The browser has nothing to complain of but the provider's pages, which have no icon, and have been left in a hurry.
async fn assert_no_complaints(consent: &Consent, owner: &Tab<'_>) {
    let of_provider = format!("({}/", consent.bed.provider.endpoints().issuer);
    let mut complaints = owner.complaints().await;
    complaints.retain(|complaint| !complaint.contains(&of_provider));
    assert_eq!(complaints, Vec::<String>::new());
}

/// Nobody but the two is asked for anything, and the provider does not hear of the link.
async fn assert_nothing_is_told_to_others(consent: &Consent, owner: &Tab<'_>, link: &str) {
    let secret = link.rsplit('/').next().expect("a link has a path");
    let issuer = &consent.bed.provider.endpoints().issuer;
    let requests = owner.requests().await;
    assert!(requests.len() > 5, "{requests:?}");
    for request in requests {
        let is_ours = request.url.starts_with(consent.public_url.as_str());
        assert!(is_ours || request.url.starts_with(&format!("{issuer}/")), "{request:?}");
        let referrer = request.headers.get("referer").map(String::as_str).unwrap_or_default();
        assert!(!referrer.starts_with(consent.public_url.as_str()), "{request:?}");
        let is_told = format!("{request:?}").contains(secret);
        assert!(is_ours || !is_told, "{request:?}");
    }
}

#[tokio::test]
async fn a_link_makes_an_account_without_scripts_or_tls_and_sends_its_owner_on() {
    let plan = Plan {
        web: Web::Clear,
        ..Plan::default()
    };
    let consent = plan.start().await;
    let browser = Browser::start(&[]).await;
    let target = format!(
        "{}/.well-known/openid-configuration",
        consent.bed.provider.endpoints().issuer
    );
    let order =
        json!({ "account": "carol", "email": "carol@example.com", "provider": PROVIDER, "redirectUrl": target });
    for bad in [
        "http://example.com/",
        "javascript:alert(1)",
        "https://user@example.com/",
    ] {
        let mut order = order.clone();
        order["redirectUrl"] = json!(bad);
        let path = "/v1/authentication/form";
        let (status, answer) = consent
            .bed
            .portreeve
            .ask(reqwest::Method::POST, path, Some(&order))
            .await;
        assert_eq!(status, 400, "{bad}: {answer}");
    }
    let link = consent.link(&order).await;
    let phone = Person {
        screen: Screen::Phone,
        colors: Colors::Dark,
        scripts: false,
    };
    let owner = browser.open(phone).await;
    owner.goto(&link).await;
    let text = owner.text("main").await;
    assert!(
        text.contains("carol@example.com") && text.contains("Its name at this service"),
        "{text}"
    );
    press(&owner).await;
    let cookie = kept(&owner).await.expect("the button leaves a cookie");
    assert_eq!(
        (&cookie["name"], &cookie["httpOnly"]),
        (&json!("portreeve"), &json!(true))
    );
    assert_eq!((&cookie["secure"], &cookie["sameSite"]), (&json!(false), &json!("Lax")));
    let unknown = consent
        .bed
        .portreeve
        .ask(reqwest::Method::GET, "/v1/account/carol", None)
        .await;
    assert_eq!(unknown.0, 404, "there is no account before there is a grant");

    let done = allow(&owner, "carol@example.com", &[]).await;
    assert_eq!(done.url, format!("{target}?account=carol&state=active"));
    assert_no_complaints(&consent, &owner).await;
    assert_nothing_is_told_to_others(&consent, &owner, &link).await;
    let shown = consent.bed.shown("carol").await;
    assert_eq!(
        (&shown["state"], &shown["email"]),
        (&json!("active"), &json!("carol@example.com")),
        "{shown}"
    );
    let token = consent.bed.portreeve.add_token("carol").await;
    consent.assert_opens("carol", &token).await;
}

#[tokio::test]
async fn whoever_only_looks_uses_nothing_up() {
    let (consent, browser) = with_browser(Plan::default()).await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    let owner = browser.open(Person::default()).await;
    let ahead = owner.prefetch(&link).await;
    assert_eq!((ahead.status, ahead.headers["sec-purpose"].as_str()), (200, "prefetch"));
    let scanner = consent.stranger().await;
    for request in [
        scanner.get(&link),
        scanner.head(&link),
        scanner.get(&link).header("sec-purpose", "prefetch;prerender"),
    ] {
        let answer = request.send().await.expect("an answer comes");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers().get("set-cookie"), None);
    }
    for (status, request) in [
        (403, scanner.post(&link).header("sec-fetch-site", "cross-site")),
        (403, scanner.post(&link).header("origin", "https://example.com")),
        (405, scanner.put(&link)),
        (405, scanner.request(reqwest::Method::OPTIONS, &link)),
    ] {
        let answer = request.send().await.expect("an answer comes");
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers().get("location"), None);
    }

    // The redirect, too, is worth nothing to those who did not begin.
    owner.goto(&link).await;
    press(&owner).await;
    let url = authorization(&owner).await;
    let scopes = super::bed::ALL_SCOPES;
    let redirected = Visitor::new().consent(&url, ALICE, &scopes).await.elsewhere();
    for (status, request) in [
        (405, scanner.head(redirected.clone())),
        (400, scanner.get(redirected.clone())),
        (400, scanner.get(redirected.clone()).header("sec-purpose", "prefetch")),
    ] {
        assert_eq!(request.send().await.expect("an answer comes").status(), status);
    }
    assert_eq!(consent.exchanges().await.len(), 0);
    let done = owner.goto(redirected.as_str()).await;
    assert_eq!((done.status, done.title.as_str()), (200, CONNECTED));
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn only_the_browser_that_began_can_come_back_and_a_link_connects_once() {
    let (consent, browser) = with_browser(Plan::default()).await;
    consent.add_account(ALICE, &json!({})).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    let (owner, other) = (
        browser.open(Person::default()).await,
        browser.open(Person::default()).await,
    );
    owner.goto(&link).await;
    press(&owner).await;
    let url = authorization(&owner).await;
    let scopes = super::bed::ALL_SCOPES;
    let redirected = Visitor::new().consent(&url, ALICE, &scopes).await.elsewhere();

    // First without any cookie, then with that of a consent of its own.
    for is_begun in [false, true] {
        if is_begun {
            other.goto(&link).await;
            press(&other).await;
        }
        let page = other.goto(redirected.as_str()).await;
        assert_eq!((page.status, page.title.as_str()), (400, INCOMPLETE));
    }
    assert_eq!(consent.bed.provider.counters_of_all().await.requests, 0);
    assert_eq!(consent.bed.portreeve.account_state(ALICE).await, "new");

    let url = authorization(&other).await;
    let of_other = Visitor::new().consent(&url, ALICE, &scopes).await.elsewhere();
    let done = owner.goto(redirected.as_str()).await;
    assert_eq!((done.status, done.title.as_str()), (200, CONNECTED));
    let late = other.goto(of_other.as_str()).await;
    assert_eq!((late.status, late.title.as_str()), (410, USED));
    assert_eq!(
        consent.exchanges().await.len(),
        1,
        "nothing is asked for that nobody may keep"
    );
}

#[tokio::test]
async fn impatient_fingers_do_no_harm() {
    let (consent, browser) = with_browser(Plan::default()).await;
    let token = consent.add_account(ALICE, &json!({})).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    let owner = browser.open(Person::default()).await;
    owner.goto(&link).await;
    assert_eq!(owner.follow_twice("role=button").await.title, "Log in");
    assert_eq!(owner.back().await.title, CONNECT);
    press(&owner).await;
    let done = allow(&owner, ALICE, &[]).await;
    assert_eq!((done.status, done.title.as_str()), (200, CONNECTED));
    owner.back().await;
    assert_no_complaints(&consent, &owner).await;
    assert_eq!(consent.exchanges().await.len(), 1);
    consent.assert_opens(ALICE, &token).await;
}

#[tokio::test]
async fn a_link_that_does_not_stand_leads_nowhere() {
    let (consent, browser) = with_browser(Plan::default()).await;
    for account in [ALICE, BOB] {
        consent.add_account(account, &json!({})).await;
    }
    let of_alice = consent.link(&json!({ "account": ALICE })).await;
    let of_bob = consent.link(&json!({ "account": BOB })).await;
    let made_twice = consent.link(&json!({ "account": ALICE })).await;
    assert_ne!(made_twice, of_alice);

    let base = format!("{}authorize/", consent.public_url);
    let secret = of_alice.strip_prefix(&base).expect("the link is below the public URL");
    let changed = |place: usize| {
        let mut changed = secret.as_bytes().to_vec();
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        String::from_utf8(changed).expect("it is ASCII")
    };
    let mut forged: Vec<String> = [0, 1, 30, secret.len() / 2, secret.len() - 20, secret.len() - 1]
        .map(changed)
        .into();
    let other = of_bob.strip_prefix(&base).expect("the link is below the public URL");
    forged.extend([
        secret[..secret.len() - 1].to_owned(),
        secret[1..].to_owned(),
        format!("{secret}A"),
        format!("{secret}{other}"),
        format!("{}{}", &secret[..secret.len() / 2], &other[other.len() / 2..]),
        "x".to_owned(),
        "%ff".to_owned(),
        "%2e%2e%2fx".to_owned(),
    ]);
    let stranger = consent.stranger().await;
    for forged in forged {
        let url = format!("{base}{forged}");
        for request in [stranger.get(&url), stranger.post(&url)] {
            let answer = request.send().await.expect("an answer comes");
            assert_eq!(answer.status(), 404, "{forged}");
        }
    }

    // Whoever gave the mailbox in another way since has no need of it; and what is gone cannot be given.
    let redirected = consent.answered(ALICE, ALICE, &super::bed::ALL_SCOPES).await;
    assert_eq!(consent.complete(&redirected).await.0, 200);
    assert_eq!(consent.bed.portreeve.delete(&format!("/v1/account/{BOB}")).await.0, 200);
    for (link, title) in [
        (&of_alice, USED),
        (&made_twice, USED),
        (&of_bob, "This link has expired - localhost"),
    ] {
        let visitor = browser.open(Person::default()).await;
        let page = visitor.goto(link).await;
        assert_eq!((page.status, page.title.as_str()), (410, title));
        assert_eq!(visitor.count("role=button").await, 0);
        let pressed = stranger.post(link).send().await.expect("an answer comes");
        assert_eq!(pressed.status(), 410);
    }
    assert_eq!(
        consent.bed.provider.authorization_requests().await.len(),
        1,
        "that of the API"
    );

    // An account that is authorized already can be authorized anew, by a link made since.
    let owner = browser.open(Person::default()).await;
    let link = consent.link(&json!({ "account": ALICE })).await;
    assert_eq!(follow_to_end(&owner, &link, ALICE).await.title, CONNECTED);
}
