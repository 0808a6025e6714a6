//! How the two refuse, at a refresh and at a consent: whose trouble it is, what the account's state becomes, what its owner's
//! mail program hears, and that the account's last error tells cause and remedy.

use serde_json::{Value, json};

use super::{ALICE, APP_REFUSED, GRANT_GONE, Office};
use crate::support::recorded::{Ahead, GOOGLE_CLIENT, GOOGLE_SECRET, MICROSOFT_CLIENT, Registrations, Vendor};

const MICROSOFT_TOKEN: &str = "/common/oauth2/v2.0/token";
const OUTLOOK: &str = "https://outlook.office.com/IMAP.AccessAsUser.All offline_access openid email profile";
const GMAIL: &str = "https://mail.google.com/";

/// Whose trouble a refusal is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Owners,
    Apps,
    Nobodys,
}

use Whose::{Apps, Nobodys, Owners};

/// A number, the error beside it, whose trouble it is, and words of the cause and of the remedy.
const AADSTS: &[(u32, &str, Whose, &str, &str)] = &[
    (
        50034,
        "invalid_grant",
        Owners,
        "not known in this tenant",
        "Check the account's address",
    ),
    (50076, "invalid_grant", Owners, "multi-factor", "pass the second factor"),
    (
        50079,
        "invalid_grant",
        Owners,
        "register for multi-factor",
        "aka.ms/mfasetup",
    ),
    (
        50126,
        "invalid_grant",
        Owners,
        "password is wrong",
        "authorize it in a browser",
    ),
    (
        50173,
        "invalid_grant",
        Owners,
        "was revoked",
        "Authorize the account again",
    ),
    (
        50194,
        "invalid_request",
        Apps,
        "registered for one tenant",
        "Set the provider's tenant",
    ),
    (
        53003,
        "invalid_grant",
        Owners,
        "Conditional Access",
        "Have the administrator",
    ),
    (
        54005,
        "invalid_grant",
        Owners,
        "was used before",
        "Authorize the account again",
    ),
    (
        65001,
        "invalid_grant",
        Owners,
        "consent is missing",
        "Authorize the account again",
    ),
    (
        70000,
        "invalid_grant",
        Owners,
        "consent is missing for a scope",
        "Authorize the account again",
    ),
    (
        70008,
        "invalid_grant",
        Owners,
        "not used for too long",
        "Authorize the account again",
    ),
    (
        70011,
        "invalid_scope",
        Apps,
        "a scope that is asked for",
        "Correct the provider's scopes",
    ),
    (
        70016,
        "authorization_pending",
        Nobodys,
        "not entered the device code",
        "Wait",
    ),
    (
        70043,
        "invalid_grant",
        Owners,
        "sign-in frequency",
        "Authorize the account again",
    ),
    (
        90094,
        "access_denied",
        Apps,
        "administrator's consent",
        "grant consent to the app",
    ),
    (
        700_016,
        "unauthorized_client",
        Apps,
        "not known in this tenant",
        "client_id and tenant",
    ),
    (700_025, "invalid_client", Apps, "public client", "Remove client_secret"),
    (700_082, "invalid_grant", Owners, "not used for too long", "keep_alive"),
    (
        7_000_215,
        "invalid_client",
        Apps,
        "secret is wrong",
        "Copy the secret's value",
    ),
    (
        7_000_218,
        "invalid_client",
        Apps,
        "no secret was sent",
        "Allow public client flows",
    ),
    (
        7_000_222,
        "invalid_client",
        Apps,
        "secret has expired",
        "Make a new secret",
    ),
];

/// Those of them that refuse the scopes that a refresh names.
const SCOPES: [u32; 3] = [65001, 70000, 70011];

/// What `google.mjs` calls a refusal, and the same of it.
const GOOGLE: &[(&str, &str, Whose, &str, &str)] = &[
    (
        "expired_or_revoked",
        "invalid_grant",
        Owners,
        "seven days",
        "Authorize the account again",
    ),
    (
        "bad_request",
        "invalid_grant",
        Owners,
        "the grant is gone",
        "Authorize the account again",
    ),
    (
        "invalid_rapt",
        "invalid_grant",
        Owners,
        "session control",
        "Authorize the account again",
    ),
    (
        "admin_policy_enforced",
        "admin_policy_enforced",
        Owners,
        "administrator does not allow",
        "trust the app",
    ),
    (
        "unauthorized_client",
        "unauthorized_client",
        Apps,
        "may not use this grant",
        "Check the app's registration",
    ),
    (
        "unknown_client",
        "invalid_client",
        Apps,
        "client id or secret",
        "Correct client_id",
    ),
    (
        "wrong_secret",
        "invalid_client",
        Apps,
        "client id or secret",
        "client_secret",
    ),
    (
        "disabled_client",
        "disabled_client",
        Apps,
        "disabled the app",
        "console",
    ),
    (
        "deleted_client",
        "deleted_client",
        Apps,
        "has been deleted",
        "Restore it",
    ),
    (
        "rate_limited",
        "rate_limit_exceeded",
        Nobodys,
        "asked too often",
        "Wait",
    ),
    (
        "internal_failure",
        "internal_failure",
        Nobodys,
        "trouble of its own",
        "Wait",
    ),
];

async fn google() -> Office {
    let table = format!("client_id = \"{GOOGLE_CLIENT}\"\nclient_secret = \"{GOOGLE_SECRET}\"");
    Office::start(Vendor::Google, Registrations::default(), &table).await
}

async fn microsoft() -> Office {
    let table = format!("client_id = \"{MICROSOFT_CLIENT}\"");
    Office::start(Vendor::Microsoft, Registrations::default(), &table).await
}

/// One account is refused once by its refresh, and shows it.
async fn assert_refused(office: &Office, account: &str, token: &str, row: (&str, Whose, &str, &str)) {
    let (error, whose, cause, remedy) = row;
    let reply = office.login(account, token).await;
    let shown = office.shown(account).await;
    let (state, is_told) = match whose {
        Owners => ("needs-authorization", reply == GRANT_GONE),
        Apps => ("failing", reply == APP_REFUSED),
        Nobodys => ("failing", reply.starts_with("NO [UNAVAILABLE] ")),
    };
    assert!(is_told, "{account}: {reply}");
    assert_eq!(
        (&shown["state"], &shown["lastError"]["code"]),
        (&json!(state), &json!(error)),
        "{shown}"
    );
    assert_eq!(shown.get("nextTry").is_some(), whose != Owners, "{shown}");
    for (field, words) in [("message", cause), ("remedy", remedy)] {
        let told = shown["lastError"][field].as_str().unwrap_or_default();
        assert!(told.contains(words), "{account}: {words:?} is not in {told:?}");
    }
    assert_eq!(shown["failures"]["count"], 1, "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn microsofts_refusals_of_a_refresh_are_told_in_words() {
    let office = microsoft().await;
    for (number, error, whose, cause, remedy) in AADSTS {
        let account = format!("aadsts{number}@example.com");
        let token = office.granted(&account, OUTLOOK).await;
        // Where it is the scopes that are refused, the grant's own are tried as well.
        let times = if SCOPES.contains(number) { 2 } else { 1 };
        office
            .recorded
            .answer_next(times, MICROSOFT_TOKEN, &Ahead::Aadsts(*number))
            .await;
        assert_refused(&office, &account, &token, (error, *whose, cause, remedy)).await;
        let shown = office.shown(&account).await;
        let message = shown["lastError"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(&format!("AADSTS{number}: ")), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opened_the_mailbox_before_goes_on_opening_it_where_scopes_are_refused() {
    let office = microsoft().await;
    for number in SCOPES {
        let account = format!("scopes{number}@example.com");
        let token = office.granted(&account, OUTLOOK).await;
        office
            .recorded
            .answer_next(1, MICROSOFT_TOKEN, &Ahead::Aadsts(number))
            .await;
        let reply = office.login(&account, &token).await;
        assert_eq!(reply, format!("OK {account} authenticated"));
        assert_eq!(office.shown(&account).await["state"], "active");
    }
    let requests = office.recorded.requests_to(MICROSOFT_TOKEN).await;
    let named: Vec<bool> = requests
        .iter()
        .map(|request| request.form.iter().any(|(name, _)| name == "scope"))
        .collect();
    assert_eq!(named, [true, false, true, false, true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_refusals_of_a_refresh_are_told_in_words() {
    let office = google().await;
    for (name, error, whose, cause, remedy) in GOOGLE {
        let account = format!("{name}@example.com");
        let token = office.granted(&account, GMAIL).await;
        office.recorded.answer_next(1, "/token", &Ahead::Google(name)).await;
        assert_refused(&office, &account, &token, (error, *whose, cause, remedy)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_its_owner_withdrew_needs_authorization_until_there_is_a_new_one() {
    for (office, vendor, scope) in [
        (google().await, Vendor::Google, GMAIL),
        (microsoft().await, Vendor::Microsoft, OUTLOOK),
    ] {
        let token = office.granted(ALICE, scope).await;
        office.recorded.revoke(vendor, ALICE).await;
        assert_eq!(office.login(ALICE, &token).await, GRANT_GONE);
        assert_eq!(office.shown(ALICE).await["state"], "needs-authorization");
        let mut asked: Vec<&str> = scope.split(' ').collect();
        if let Vendor::Google = vendor {
            asked.extend(["openid", "email"]);
        }
        office.authorize(ALICE, &asked).await;
        assert_eq!(office.login(ALICE, &token).await, super::AUTHORIZED);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_who_denies_is_told_from_a_provider_that_refuses() {
    let office = microsoft().await;
    office.account(ALICE, json!({})).await;
    let url = office.begin_code(ALICE).await;
    let back = office.decide(&url, ALICE, &[]).await;
    let (status, answer) = office.complete(&back).await;
    assert_eq!((status, &answer["code"]), (403, &json!("denied")), "{answer}");
    assert_says(&answer, &["declined the consent", "Authorize the account again"]);

    let office = google().await;
    office.account(ALICE, json!({})).await;
    let url = office.begin_code(ALICE).await;
    let back = office.decide(&url, ALICE, &[]).await;
    let (status, answer) = office.complete(&back).await;
    assert_eq!((status, &answer["code"]), (403, &json!("denied")), "{answer}");
    assert_says(&answer, &["declined", "test users"]);

    // An administrator's policy comes back by way of the browser, too.
    let url = office.begin_code(ALICE).await;
    let policy = Ahead::Back(json!({ "error": "admin_policy_enforced" }));
    office.recorded.answer_next(1, "/o/oauth2/v2/auth", &policy).await;
    let mut visitor = crate::support::visitor::Visitor::new();
    let back = visitor.open(&office.plain(&url)).await.elsewhere();
    let (status, answer) = office.complete(&back).await;
    assert_eq!((status, &answer["code"]), (502, &json!("exchange_failed")), "{answer}");
    assert_says(
        &answer,
        &["admin_policy_enforced", "administrator does not allow", "trust the app"],
    );
    assert!(office.recorded.requests_to("/token").await.is_empty());
    assert_eq!(office.shown(ALICE).await["state"], "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_a_code_are_told_in_words_and_leave_the_account_as_it_was() {
    let office = microsoft().await;
    office.account(ALICE, json!({})).await;
    for (number, error, whose, cause, remedy) in AADSTS {
        let url = office.begin_code(ALICE).await;
        let back = office
            .decide(&url, ALICE, &OUTLOOK.split(' ').collect::<Vec<_>>())
            .await;
        office
            .recorded
            .answer_next(1, MICROSOFT_TOKEN, &Ahead::Aadsts(*number))
            .await;
        let (status, answer) = office.complete(&back).await;
        let expected = match (*error, *whose) {
            ("access_denied", _) => (403, json!("denied")),
            (_, Nobodys) => (503, json!("exchange_failed")),
            _ => (502, json!("exchange_failed")),
        };
        assert_eq!((status, answer["code"].clone()), expected, "{answer}");
        // A code that is refused is no refresh token.
        let cause = if *number == 70008 {
            "authorization code has expired"
        } else {
            *cause
        };
        assert_says(&answer, &[cause, remedy]);
        if *error != "access_denied" {
            assert_says(&answer, &[&format!("AADSTS{number}: ")]);
        }
        assert_eq!(office.shown(ALICE).await["state"], "new");
    }
}

fn assert_says(answer: &Value, words: &[&str]) {
    let message = answer["message"].as_str().unwrap_or_default();
    for words in words {
        assert!(message.contains(words), "{words:?} is not in {message:?}");
    }
}
