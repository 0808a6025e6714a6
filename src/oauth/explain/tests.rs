use super::super::classify::Trouble;
use super::*;
use crate::oauth::answer;
use crate::oauth::error::Obstacle;

const PASSING: TokenErrorKind = TokenErrorKind::Temporary { retry_after: None };
const DAY: Duration = Duration::from_secs(24 * 3600);
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// What `vendor` refuses in `step`, as it is read.
fn refused(vendor: Vendor, step: Step, code: &str, message: &str) -> TokenError {
    let body = serde_json::json!({ "error": code, "error_description": message }).to_string();
    let response = answer::Response {
        status: 400,
        retry_after: None,
        body: body.as_bytes(),
    };
    let asked = answer::Asked {
        step,
        vendor,
        secrets: &[],
    };
    answer::read(&response, NOW, asked).unwrap_err()
}

/// One of a refresh, by the vendor whose words these are; or of ours.
fn error(code: &str, message: &str) -> TokenError {
    let vendor = if message.contains("AADSTS") {
        Vendor::Microsoft
    } else {
        Vendor::Google
    };
    match code {
        "timeout" | "connect" | "network" | "trust" => TokenError::temporary(code, message).at(Step::Refresh, vendor),
        _ => refused(vendor, Step::Refresh, code, message),
    }
}

/// A grant whose consent nobody saw.
fn handed() -> GrantLife {
    GrantLife {
        consented: None,
        held_since: NOW,
        last_good: None,
    }
}

fn explained(code: &str, message: &str) -> Option<Explanation> {
    of_token_error(&error(code, message), handed(), NOW)
}

#[test]
fn each_number_of_microsofts_is_explained_by_what_it_is() {
    // The number, a word of its cause, and one of its remedy.
    for (number, cause, remedy) in [
        (50011, "redirect URI", "http://localhost"),
        (50012, "assertion", "client_key_file"),
        (50020, "another tenant", "tenant"),
        (50034, "not known in this tenant", "address"),
        (50053, "locked", "Wait"),
        (50055, "password has expired", "new password"),
        (50056, "password is wrong", "password"),
        (50057, "disabled", "enable"),
        (50058, "sign in", "Authorize"),
        (50059, "which tenant", "tenant"),
        (50072, "register", "mfasetup"),
        (50074, "multi-factor", "second factor"),
        (50076, "multi-factor", "second factor"),
        (50078, "has expired", "Authorize"),
        (50079, "register", "mfasetup"),
        (50089, "revoked", "Authorize"),
        (50097, "devices", "Conditional Access"),
        (50105, "not assigned", "assign"),
        (50125, "password", "office.com"),
        (50126, "password is wrong", "password"),
        (50128, "which tenant", "tenant"),
        (50129, "devices", "Conditional Access"),
        (50131, "Conditional Access", "sign-in log"),
        (50132, "password was changed", "Authorize"),
        (50133, "password was changed", "Authorize"),
        (50135, "password", "office.com"),
        (50140, "stay signed in", "Authorize"),
        (50144, "password has expired", "new password"),
        (50158, "second factor", "check"),
        (50173, "revoked", "Authorize"),
        (50194, "one tenant", "multitenant"),
        (50196, "too often", "another program"),
        (51004, "not known in this tenant", "address"),
        (53000, "compliant devices", "Conditional Access"),
        (53001, "devices", "Conditional Access"),
        (53002, "approved apps", "exempt"),
        (53003, "Conditional Access", "sign-in log"),
        (53004, "register", "mfasetup"),
        (53011, "risk", "unblock"),
        (54005, "used before", "once only"),
        (65001, "consent is missing", "every protocol"),
        (65002, "Microsoft's own apps", "client_id"),
        (65004, "declined", "accept"),
        (65005, "does not list", "Exchange Online"),
        (70000, "not valid", "this app"),
        (70001, "disabled", "enable"),
        (70002, "secret is wrong", "value"),
        (70003, "in this way", "grant"),
        (70008, "not used for too long", "keep_alive"),
        (70011, "scope", "scopes"),
        (70012, "trouble of its own", "Wait"),
        (70016, "has not entered", "enter the code"),
        (70018, "wrong device code", "as shown"),
        (70019, "expired", "within the time"),
        (70043, "sign-in frequency", "exempt"),
        (90002, "no tenant", "cloud"),
        (90006, "trouble of its own", "Wait"),
        (90012, "trouble of its own", "Wait"),
        (90024, "trouble of its own", "Wait"),
        (90033, "trouble of its own", "Wait"),
        (90055, "asked too much", "Wait"),
        (90093, "refuses the request", "consent"),
        (90094, "administrator's consent", "Grant admin consent"),
        (90095, "administrator's consent", "Grant admin consent"),
        (28002, "scope", "scopes"),
        (500_011, "Exchange Online", "tenant"),
        (500_113, "redirect URI", "/oauth/callback"),
        (500_208, "kind", "consumers"),
        (501_481, "another attempt", "last"),
        (530_032, "Conditional Access", "sign-in log"),
        (530_034, "risk", "unblock"),
        (530_035, "security defaults", "browser"),
        (650_052, "Exchange Online", "tenant"),
        (650_053, "does not exist", "IMAP.AccessAsUser.All"),
        (650_056, "does not list", "consent"),
        (650_057, "does not list", "Exchange Online"),
        (700_003, "devices", "such a device"),
        (700_005, "another tenant", "same"),
        (700_011, "not known in this tenant", "client_id"),
        (700_016, "not known in this tenant", "client_id"),
        (700_022, "more than one resource", "Graph"),
        (700_025, "public client", "Remove client_secret"),
        (700_027, "assertion", "client_certificate_file"),
        (700_030, "assertion", "client_certificate_file"),
        (700_082, "not used for too long", "keep_alive"),
        (700_084, "24 hours", "Mobile and desktop"),
        (900_144, "incomplete", "token_url"),
        (7_000_112, "disabled", "enable"),
        (7_000_215, "secret is wrong", "value"),
        (7_000_218, "no secret was sent", "Allow public client flows"),
        (7_000_222, "secret has expired", "new secret"),
        (7_000_229, "service principal", "consent"),
        (9_001_023, "common", "tenant"),
        (9_002_313, "malformed", "token_url"),
        (9_002_331, "personal accounts only", "\"consumers\""),
        (9_002_332, "work accounts only", "organization"),
        (9_002_346, "personal accounts only", "\"consumers\""),
        (90130, "work accounts only", "\"organizations\""),
        (90009, "for itself", "scopes"),
        (90014, "incomplete", "token_url"),
        (90023, "scope", "consumers"),
        (90072, "another tenant", "tenant"),
        (28003, "scope", "scopes"),
        (500_200, "personal account", "work account"),
        (700_023, "another endpoint", "token_url"),
        (700_024, "clock", "NTP"),
        (900_023, "no tenant", "cloud"),
        (7_000_012, "another tenant", "authorize"),
        (7_000_216, "no secret was sent", "client_secret"),
    ] {
        let known = of_aadsts(number).unwrap_or_else(|| panic!("{number} is not explained"));
        let known = known.in_step(Some(Step::Refresh));
        assert!(known.cause.contains(cause), "{number}: {known}");
        assert!(known.remedy.contains(remedy), "{number}: {known}");
        // Whatever the code beside it is, where that leaves anything to be said.
        let message = format!("AADSTS{number}: some words. Trace ID: 0");
        assert_eq!(explained("something_new", &message), Some(known), "{number}");
        if !classify::is_general(number) {
            assert_eq!(explained("invalid_grant", &message), Some(known), "{number}");
        }
    }
}

#[test]
fn what_is_explained_is_classified_and_the_other_way_round() {
    // Classified by Microsoft's error pages, which say no more of them than the words that come with the error.
    const WORDS_ENOUGH: [u64; 11] = [
        28000, 70044, 90025, 500_014, 530_031, 530_033, 530_036, 700_081, 9_002_326, 9_002_327, 0,
    ];
    let ranges = [
        10_000..100_000,
        500_000..1_000_000,
        7_000_000..7_001_000,
        9_000_000..9_003_000,
    ];
    for number in ranges.into_iter().flatten() {
        let is_classified = classify::of_aadsts(number).is_some();
        let is_known = of_aadsts(number).is_some() || WORDS_ENOUGH.contains(&number);
        assert_eq!(is_classified, is_known, "{number}");
    }
    let numbers: Vec<u64> = AADSTS.iter().flat_map(|(numbers, _)| *numbers).copied().collect();
    let distinct: std::collections::BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(distinct.len(), numbers.len(), "each number is in one row");

    // The codes that no endpoint sends.
    const OURS: [&str; 4] = ["timeout", "connect", "network", "trust"];
    // At a poll alone, where it is a device code's.
    const POLLS: [&str; 1] = ["bad_verification_code"];
    for (code, _) in CODES.iter().filter(|(code, _)| !POLLS.contains(code)) {
        let is_classified = classify::of_code(Vendor::Other, code).is_some();
        assert_ne!(is_classified, OURS.contains(code), "{code}");
    }
    for (vendor, code, _) in VENDORS {
        assert!(classify::of_code(*vendor, code).is_some(), "{vendor:?} {code}");
    }
}

#[test]
fn who_must_act_is_who_the_remedy_speaks_to() {
    let troubles = |wanted: Trouble| {
        let rows = AADSTS.iter().filter(move |(numbers, _)| {
            let mut numbers = numbers.iter();
            numbers.all(|number| classify::of_aadsts(*number) == Some(wanted))
        });
        rows.map(|(_, known)| known.in_step(None))
    };
    for known in troubles(Trouble::Passing) {
        assert!(known.remedy.starts_with("Wait"), "{known}");
    }
    for known in troubles(Trouble::App) {
        assert!(
            !known.remedy.starts_with("Authorize") && !known.remedy.starts_with("Wait"),
            "{known}"
        );
    }
    let all = AADSTS.iter().all(|(numbers, _)| {
        let first = classify::of_aadsts(numbers[0]);
        numbers.iter().all(|number| classify::of_aadsts(*number) == first)
    });
    assert!(all, "the numbers of a row are the same person's trouble");
}

#[test]
fn each_code_of_the_standards_and_of_google_is_explained() {
    for (code, message, cause, remedy) in [
        (
            "invalid_grant",
            "grant request is invalid",
            "the grant is gone",
            "Authorize",
        ),
        ("Invalid_Grant", "no", "the grant is gone", "Authorize"),
        ("interaction_required", "no", "sign in again", "Authorize"),
        ("login_required", "no", "sign in again", "Authorize"),
        ("account_selection_required", "no", "choose an account", "Authorize"),
        ("consent_required", "no", "consent is missing", "Authorize"),
        (
            "invalid_grant",
            "consent_required: no",
            "consent is missing",
            "Authorize",
        ),
        ("access_denied", "The user denied", "declined", "test users"),
        ("expired_token", "no", "device code has expired", "within the time"),
        (
            "invalid_client",
            "The OAuth client was not found.",
            "client id or secret",
            "client_auth",
        ),
        (
            "unauthorized_client",
            "Unauthorized",
            "may not use this grant",
            "registration",
        ),
        ("invalid_scope", "no", "scope", "SIGHUP"),
        ("invalid_target", "no", "resource", "scopes"),
        ("invalid_request", "no", "malformed", "token_url"),
        ("unsupported_grant_type", "no", "in this way", "grant"),
        ("temporarily_unavailable", "no", "overloaded", "Wait"),
        ("server_error", "no", "trouble of its own", "Wait"),
        ("internal_failure", "no", "trouble of its own", "Wait"),
        ("slow_down", "no", "too often", "Wait"),
        ("rate_limit_exceeded", "no", "too often", "Wait"),
        ("timeout", "no answer", "did not answer in time", "firewall"),
        ("connect", "refused", "no connection", "HTTPS_PROXY"),
        ("network", "broke", "broke", "proxy"),
        ("trust", "cannot read", "ca_file", "SIGHUP"),
        (
            "admin_policy_enforced",
            "no",
            "administrator does not allow",
            "trust the app",
        ),
        ("org_internal", "no", "its own organization", "External"),
        (
            "disabled_client",
            "The OAuth client was disabled.",
            "disabled",
            "console",
        ),
        ("deleted_client", "The OAuth client was deleted.", "deleted", "Restore"),
        ("redirect_uri_mismatch", "Bad Request", "redirect URI", "Desktop app"),
        (
            "invalid_grant",
            "invalid_rapt: reauth related error (invalid_rapt)",
            "session control",
            "reauthentication",
        ),
        (
            "unauthorized_client",
            "Client is unauthorized to retrieve access tokens using this method, or client not authorized for any of the scopes \
             requested.",
            "domain-wide delegation",
            "Admin console",
        ),
        ("invalid_grant", "Invalid email or User ID", "does not exist", "address"),
        ("invalid_grant", "Account has been deleted", "deleted", "Remove"),
        (
            "invalid_grant",
            "Token has been expired or revoked.",
            "six months",
            "Testing",
        ),
        (
            "invalid_grant",
            "Token has been expired or revoked.",
            "Testing",
            "Authorize",
        ),
        ("invalid_grant", "Bad Request", "Testing", "Authorize"),
    ] {
        let known = explained(code, message).unwrap_or_else(|| panic!("{code} is not explained"));
        // The last of these names the console without the word that the row looks for.
        let remedy = if remedy == "Testing" { "publish the app" } else { remedy };
        assert!(known.cause.contains(cause), "{code}: {known}");
        assert!(known.remedy.contains(remedy), "{code}: {known}");
    }
    assert_eq!(explained("something_new", "AADSTS1: and no more"), None);
    assert_eq!(explained("invalid_grant_2", "no"), None);
}

#[test]
fn an_unknown_number_leaves_the_word_to_the_code() {
    let known = explained("invalid_grant", "AADSTS123456: something new").unwrap();
    assert!(known.cause.starts_with("the grant is gone"), "{known}");
    let known = explained("invalid_grant", "AADSTS123456: new. AADSTS70043: The token has expired").unwrap();
    assert!(known.cause.contains("sign-in frequency"), "{known}");
}

#[test]
fn a_google_grant_that_ends_after_seven_days_tells_of_testing() {
    let of = |life: GrantLife| {
        let revoked = error("invalid_grant", "Token has been expired or revoked.");
        of_token_error(&revoked, life, NOW).unwrap()
    };
    let days_ago = |days: f64| NOW.before(DAY.mul_f64(days));
    let life = |consented: Option<f64>, held: f64, last_good: Option<f64>| GrantLife {
        consented: consented.map(days_ago),
        held_since: days_ago(held),
        last_good: last_good.map(days_ago),
    };
    for (consented, held, last_good, expected) in [
        // Used all the time, and over when the seven days were.
        (Some(7.0), 7.0, Some(0.04), GOOGLE_TESTING),
        // Its last access token was had within the slack after its end.
        (Some(7.1), 7.1, Some(0.05), GOOGLE_TESTING),
        // Idle since the second day, and found dead in the fifth week.
        (Some(30.0), 30.0, Some(28.0), GOOGLE_TESTING),
        // Never used again.
        (Some(8.0), 8.0, None, GOOGLE_TESTING),
        // Too early for that.
        (Some(2.0), 2.0, Some(0.04), GOOGLE_GONE),
        (Some(6.5), 6.5, Some(0.04), GOOGLE_GONE),
        // It has lived longer than any in Testing.
        (Some(90.0), 90.0, Some(0.04), GOOGLE_GONE),
        (None, 90.0, Some(0.04), GOOGLE_GONE),
        // Given by hand, so that nobody knows how old it was.
        (None, 1.0, Some(0.04), GOOGLE_TESTING_OR_GONE),
        (None, 30.0, None, GOOGLE_TESTING_OR_GONE),
    ] {
        let known = of(life(consented, held, last_good));
        assert_eq!(known, expected, "{consented:?} {held} {last_good:?}");
    }
    // Microsoft's grants know no such end.
    let microsoft = error(
        "invalid_grant",
        "AADSTS70008: The refresh token has expired due to inactivity.",
    );
    let known = of_token_error(&microsoft, life(Some(7.0), 7.0, Some(0.04)), NOW).unwrap();
    assert!(!known.to_string().contains("Testing"), "{known}");
}

#[test]
fn explanations_are_a_phrase_and_a_sentence_and_are_found_again_at_the_end_of_a_text() {
    for known in all() {
        let text = known.to_string();
        assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        let first = |text: &str| text.chars().next().unwrap();
        assert!(first(known.remedy).is_uppercase(), "{text}");
        assert!(
            !first(known.cause).is_uppercase()
                || ["Exchange", "Yahoo", "Yandex"]
                    .iter()
                    .any(|name| known.cause.starts_with(name)),
            "{text}"
        );
        assert!(!known.cause.ends_with('.') && !known.remedy.ends_with('.'), "{text}");
        let told = format!("invalid_grant: the provider's words; {text}");
        let found = remedy_at_end_of(&told).unwrap();
        assert!(known.remedy.ends_with(found), "{text}");
        assert_eq!(remedy_at_end_of(&format!("{told} and more")), None);
    }
    for (phrase, _, _) in PHRASES {
        assert_eq!(*phrase, phrase.to_ascii_lowercase());
    }
}

#[test]
fn an_owner_who_declines_is_not_taken_for_a_token_that_is_not_valid() {
    let declined = "AADSTS70000: The end user denied the authorization request.";
    let known = explained("access_denied", declined).unwrap();
    assert!(known.cause.contains("declined"), "{known}");
    let known = explained("invalid_grant", declined).unwrap();
    assert!(known.cause.contains("refresh token"), "{known}");
}

/// What `vendor` refuses in `step`, in words.
fn in_step(vendor: Vendor, step: Step, code: &str, message: &str) -> String {
    let error = refused(vendor, step, code, message);
    of_token_error(&error, handed(), NOW)
        .unwrap_or_else(|| panic!("{step:?} {code} {message}"))
        .to_string()
}

#[test]
fn a_number_that_says_little_is_explained_by_the_code_beside_it() {
    let malformed = "AADSTS9002313: Invalid request. Request is malformed or invalid.";
    for (step, code, cause, remedy) in [
        (
            Step::Refresh,
            "invalid_grant",
            "the refresh token is damaged",
            "the whole refresh token",
        ),
        (
            Step::Exchange,
            "invalid_grant",
            "the authorization code is damaged",
            "the whole of the address",
        ),
        (
            Step::DevicePoll,
            "invalid_grant",
            "the device code is damaged",
            "within the time",
        ),
        (Step::Refresh, "invalid_request", "incomplete or malformed", "token_url"),
    ] {
        let text = in_step(Vendor::Microsoft, step, code, malformed);
        assert!(text.contains(cause) && text.contains(remedy), "{step:?} {code}: {text}");
    }
    let expired = "AADSTS70002: Error validating credentials. AADSTS50126: Invalid username or password.";
    let text = in_step(Vendor::Microsoft, Step::Password, "invalid_grant", expired);
    assert!(
        text.contains("password is wrong") && !text.contains("browser"),
        "{text}"
    );
}

#[test]
fn what_is_refused_is_what_was_presented() {
    let invalid = "AADSTS70000: The provided value for the input parameter is not valid.";
    let expired = "AADSTS70008: The provided authorization code or refresh token has expired.";
    for (vendor, step, code, message, cause) in [
        (
            Vendor::Microsoft,
            Step::Refresh,
            "invalid_grant",
            invalid,
            "the refresh token is not valid",
        ),
        (
            Vendor::Microsoft,
            Step::Exchange,
            "invalid_grant",
            invalid,
            "the authorization code is not valid",
        ),
        (
            Vendor::Microsoft,
            Step::DevicePoll,
            "invalid_grant",
            invalid,
            "the device code is not valid",
        ),
        (
            Vendor::Microsoft,
            Step::Refresh,
            "invalid_grant",
            expired,
            "not used for too long",
        ),
        (
            Vendor::Microsoft,
            Step::Exchange,
            "invalid_grant",
            expired,
            "the authorization code has expired",
        ),
        (Vendor::Other, Step::Refresh, "invalid_grant", "no", "the grant is gone"),
        (
            Vendor::Other,
            Step::Exchange,
            "invalid_grant",
            "no",
            "the authorization code is not good",
        ),
        (
            Vendor::Google,
            Step::Exchange,
            "invalid_grant",
            "Bad Request",
            "the authorization code is not good",
        ),
        (
            Vendor::Other,
            Step::Refresh,
            "invalid_grant",
            "Bad Request",
            "the grant is gone: expired",
        ),
        (
            Vendor::Other,
            Step::Password,
            "invalid_grant",
            "no",
            "password is wrong",
        ),
        (
            Vendor::Yahoo,
            Step::Refresh,
            "INVALID_REFRESH_TOKEN",
            "",
            "the refresh token is not good",
        ),
        (
            Vendor::Yahoo,
            Step::Refresh,
            "ACCOUNT_NOT_AUTHORIZED",
            "",
            "not authorized this app",
        ),
        (Vendor::Yandex, Step::Refresh, "unauthorized_client", "", "not approved"),
        (
            Vendor::Other,
            Step::Refresh,
            "unauthorized_client",
            "",
            "may not use this grant",
        ),
    ] {
        let text = in_step(vendor, step, code, message);
        assert!(
            text.starts_with(cause) || text.contains(cause),
            "{vendor:?} {step:?} {code}: {text}"
        );
    }
    let about_scopes =
        "AADSTS70000: The request was denied because one or more scopes requested are unauthorized or expired.";
    let text = in_step(Vendor::Microsoft, Step::Refresh, "invalid_grant", about_scopes);
    assert!(text.contains("consent is missing for a scope"), "{text}");
}

#[test]
fn a_service_accounts_refusal_is_explained_by_what_whoever_runs_it_can_do() {
    for (code, message, cause, remedy) in [
        ("invalid_grant", "Invalid JWT Signature.", "key", "service_account_file"),
        (
            "invalid_grant",
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp \
             values in the JWT claim.",
            "clock",
            "NTP",
        ),
        (
            "invalid_grant",
            "Invalid grant: account not found",
            "does not exist",
            "key",
        ),
        ("invalid_grant", "Robot is disabled.", "is disabled", "enable it"),
        (
            "invalid_grant",
            "Not a valid email or user ID.",
            "mailbox that does not exist",
            "address",
        ),
        (
            "access_denied",
            "Requested client not authorized.",
            "domain-wide delegation",
            "Admin console",
        ),
        ("invalid_grant", "something new", "assertion", "key file"),
        (
            "invalid_scope",
            "Some requested scopes were invalid.",
            "scope",
            "scopes",
        ),
    ] {
        let error = refused(Vendor::Google, Step::ServiceAccount, code, message);
        assert_eq!(error.kind, TokenErrorKind::App, "{message}");
        let text = in_step(Vendor::Google, Step::ServiceAccount, code, message);
        assert!(text.contains(cause) && text.contains(remedy), "{message}: {text}");
    }
    // The same words of an owner's account are not about a service account.
    let text = in_step(Vendor::Google, Step::Refresh, "invalid_grant", "account not found");
    assert!(!text.contains("service account"), "{text}");
}

#[test]
fn a_token_source_is_explained_by_what_its_keeper_can_do() {
    for (kind, code, cause, remedy) in [
        (
            TokenErrorKind::Grant,
            "http_404",
            "no token for this account",
            "authorized again where",
        ),
        (TokenErrorKind::App, "bad_answer", "is no token", "accessToken"),
        (TokenErrorKind::App, "http_401", "who asks", "token_url_external"),
        (TokenErrorKind::App, "http_302", "redirects", "where it leads"),
        (PASSING, "token_command", "fails", "as the daemon's user"),
        (PASSING, "token_expired", "has ended", "clock"),
        (PASSING, "timeout", "token source did not answer", "token command"),
        (PASSING, "connect", "to the token source", "token_url_external"),
    ] {
        let error = TokenError::new(kind, code, "words").at(Step::External, Vendor::Google);
        let known = of_token_error(&error, handed(), NOW).unwrap_or_else(|| panic!("{code}"));
        assert!(
            known.cause.contains(cause) && known.remedy.contains(remedy),
            "{code}: {known}"
        );
    }
}

#[test]
fn an_app_that_is_not_for_personal_accounts_has_no_wrong_secret() {
    let words = "AADSTS70002: The client does not exist or is not enabled for consumers.";
    let text = in_step(Vendor::Microsoft, Step::Refresh, "unauthorized_client", words);
    assert!(text.contains("personal accounts") && !text.contains("secret"), "{text}");
}

#[test]
fn nobody_is_told_to_authorize_what_no_owner_can() {
    let steps = [
        Step::ClientCredentials,
        Step::ServiceAccount,
        Step::Password,
        Step::External,
    ];
    let numbers = AADSTS
        .iter()
        .map(|(_, known)| known)
        .chain(BESIDE.iter().map(|(_, _, known)| known));
    let codes = CODES
        .iter()
        .map(|(_, known)| known)
        .chain(VENDORS.iter().map(|(_, _, known)| known));
    let phrases = PHRASES.iter().map(|(_, _, known)| known);
    for known in numbers.chain(codes).chain(phrases) {
        for step in steps {
            assert!(!step.has_owner());
            let told = known.in_step(Some(step));
            assert!(!told.remedy.contains("uthorize the account"), "{step:?}: {told}");
            assert!(!told.remedy.contains("authorize it"), "{step:?}: {told}");
        }
    }
}

#[test]
fn what_stands_in_the_providers_place_is_named() {
    for (status, body, cause, remedy) in [
        (407, "", "wants a login", "HTTPS_PROXY"),
        (511, "<html>", "wants a login", "log this machine in"),
        (302, "", "redirect", "token_url"),
        (
            200,
            " <!DOCTYPE html><title>Welcome</title>",
            "web page",
            "let portreeve pass",
        ),
        (400, "<html>", "web page", "let portreeve pass"),
        (
            403,
            "<html>Blocked by policy",
            "refuses the request",
            "let portreeve pass",
        ),
        (403, "Forbidden", "refuses the request", "let portreeve pass"),
        (404, "not found", "no token endpoint at this URL", "token_url"),
        (401, "", "who asks", "client_secret"),
        (429, "", "too often", "Wait"),
        (503, "<html>", "trouble of its own", "Wait"),
    ] {
        let response = answer::Response {
            status,
            retry_after: None,
            body: body.as_bytes(),
        };
        let asked = answer::Asked {
            step: Step::Refresh,
            vendor: Vendor::Other,
            secrets: &[],
        };
        let error = answer::read(&response, NOW, asked).unwrap_err();
        let known = of_token_error(&error, handed(), NOW).unwrap_or_else(|| panic!("{status} {body}"));
        assert!(
            known.cause.contains(cause) && known.remedy.contains(remedy),
            "{status} {body}: {known}"
        );
        let is_obstacle = matches!(error.facts.answered_by, AnsweredBy::Obstacle(_));
        assert_eq!(
            is_obstacle,
            !known.remedy.starts_with("Wait") && status != 401,
            "{status} {body}"
        );
    }
    // What a proxy says to CONNECT is no answer of the endpoint's.
    for (obstacle, cause, remedy) in [
        (Obstacle::Login, "wants a login", "HTTPS_PROXY"),
        (Obstacle::Proxy, "HTTPS_PROXY", "NO_PROXY"),
    ] {
        let mut error = TokenError::temporary("connect", "tunnel error").at(Step::Refresh, Vendor::Google);
        error.facts.answered_by = AnsweredBy::Obstacle(obstacle);
        let known = of_token_error(&error, handed(), NOW).unwrap();
        assert!(known.cause.contains(cause) && known.remedy.contains(remedy), "{known}");
    }
}

#[test]
fn a_status_that_passes_is_not_explained_as_an_end() {
    let body = br#"{"error":"invalid_grant","error_description":"AADSTS70043: expired"}"#;
    let response = answer::Response {
        status: 503,
        retry_after: None,
        body,
    };
    let asked = answer::Asked {
        step: Step::Refresh,
        vendor: Vendor::Microsoft,
        secrets: &[],
    };
    let error = answer::read(&response, NOW, asked).unwrap_err();
    let known = of_token_error(&error, handed(), NOW).unwrap();
    assert!(known.remedy.starts_with("Wait"), "{known}");
}
