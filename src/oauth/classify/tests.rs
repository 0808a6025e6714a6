use super::*;
use Trouble::{App, Grant, Passing};

fn of(code: &str, numbers: &[u64]) -> Option<Trouble> {
    verdict(Vendor::Other, Step::Refresh, code, numbers, "").trouble
}

#[test]
fn a_number_refines_the_code_beside_it_and_does_not_overrule_it() {
    for (code, numbers, expected) in [
        // What says no more than that something is malformed is what the code says.
        ("invalid_grant", &[9_002_313][..], Some(Grant)),
        ("invalid_request", &[9_002_313], Some(App)),
        ("invalid_grant", &[900_144], Some(Grant)),
        ("new_code", &[9_002_313], Some(App)),
        ("invalid_client", &[70000], Some(App)),
        ("invalid_scope", &[70000], Some(App)),
        // Credentials that are not valid, and then why.
        ("invalid_grant", &[70002, 50126], Some(Grant)),
        ("invalid_grant", &[70002, 70008], Some(Grant)),
        ("invalid_client", &[70002, 50012], Some(App)),
        // A bag of a code, and a number that is exact.
        ("invalid_grant", &[50053], Some(Passing)),
        ("invalid_grant", &[90094], Some(App)),
        ("invalid_request", &[50173], Some(Grant)),
        ("interaction_required", &[90094], Some(App)),
        // These codes name the app, whatever the number: no owner can mend that.
        ("invalid_client", &[50076], Some(App)),
        ("unauthorized_client", &[65001], Some(App)),
        ("invalid_scope", &[65001], Some(App)),
        ("temporarily_unavailable", &[70043], Some(Passing)),
        ("server_error", &[90033], Some(Passing)),
        ("Invalid_Grant", &[1], Some(Grant)),
        ("new_code", &[70043], Some(Grant)),
        ("new_code", &[1], None),
        ("new_code", &[], None),
    ] {
        assert_eq!(of(code, numbers), expected, "{code} {numbers:?}");
    }
}

#[test]
fn the_number_that_tells_most_is_kept() {
    let number = |code: &str, numbers: &[u64]| verdict(Vendor::Microsoft, Step::Refresh, code, numbers, "").number;
    assert_eq!(number("invalid_grant", &[70002, 50126]), Some(50126));
    assert_eq!(number("invalid_grant", &[123_456, 70043]), Some(70043));
    assert_eq!(number("invalid_grant", &[9_002_313]), Some(9_002_313));
    assert_eq!(number("invalid_grant", &[123_456]), Some(123_456));
    assert_eq!(number("invalid_grant", &[]), None);
}

#[test]
fn nobody_can_authorize_an_apps_own_grant_again() {
    for (step, expected) in [
        (Step::Refresh, Grant),
        (Step::Exchange, Grant),
        (Step::Password, Grant),
        (Step::ClientCredentials, App),
        (Step::ServiceAccount, App),
    ] {
        let verdict = verdict(Vendor::Other, step, "invalid_grant", &[], "Invalid JWT Signature.");
        assert_eq!(verdict.trouble, Some(expected), "{step:?}");
    }
}

#[test]
fn a_vendors_own_codes_are_known_where_it_is_that_vendor() {
    for (vendor, code, expected) in [
        (Vendor::Yahoo, "INVALID_REFRESH_TOKEN", Some(Grant)),
        (Vendor::Other, "INVALID_REFRESH_TOKEN", Some(Grant)),
        (Vendor::Yahoo, "TOKEN_EXPIRED", Some(Grant)),
        (Vendor::Other, "TOKEN_EXPIRED", None),
        (Vendor::Yahoo, "ACCOUNT_NOT_AUTHORIZED", Some(Grant)),
        (Vendor::Yahoo, "INVALID_CLIENT_SECRET", Some(App)),
        (Vendor::Yahoo, "INVALID_CALLBACK", Some(App)),
        (Vendor::Yahoo, "INVALID_GRANT", Some(Grant)),
        (Vendor::Yahoo, "ERROR_HANDLING_REQUEST", Some(Passing)),
        (Vendor::Yandex, "bad_verification_code", Some(Grant)),
        (Vendor::Yandex, "Basic auth required", Some(App)),
        (Vendor::MailRu, "token not found", Some(Grant)),
        (Vendor::Zoho, "invalid_code", Some(Grant)),
        (Vendor::Zoho, "Access Denied", Some(Passing)),
        (Vendor::Zoho, "access_denied", Some(Grant)),
        (Vendor::Other, "something_new", None),
    ] {
        let verdict = verdict(vendor, Step::Refresh, code, &[], "");
        assert_eq!(verdict.trouble, expected, "{vendor:?} {code}");
    }
}

#[test]
fn a_refusal_of_scopes_is_told_from_one_of_the_grant() {
    let unauthorized = "AADSTS70000: The request was denied because one or more scopes requested are unauthorized or expired. \
                        The user must first sign in and grant the client application access to the requested scope.";
    for (code, numbers, words, expected) in [
        ("invalid_grant", &[70000][..], unauthorized, true),
        (
            "invalid_grant",
            &[70000],
            "AADSTS70000: Provided grant is invalid or malformed.",
            false,
        ),
        ("invalid_grant", &[65001], "AADSTS65001: not consented", true),
        ("invalid_request", &[90023], "AADSTS90023: Invalid STS request.", true),
        ("invalid_grant", &[90023], "AADSTS90023: Invalid STS request.", true),
        ("invalid_scope", &[], "refresh token missing requested scope", true),
        ("consent_required", &[], "", true),
        ("invalid_grant", &[], "consent_required: no", true),
        ("invalid_grant", &[], "Token has been expired or revoked.", false),
        ("invalid_client", &[], "not allowed for the scope", false),
        ("invalid_request", &[], "a parameter is missing", false),
    ] {
        let verdict = verdict(Vendor::Other, Step::Refresh, code, numbers, words);
        assert_eq!(verdict.is_about_scopes, expected, "{code} {words}");
    }
}
