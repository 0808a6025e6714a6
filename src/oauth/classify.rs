//! What a provider's error code means: who has to do something before another attempt can succeed.
//!
//! A wrong "grant" makes a person authorize a mailbox again for nothing; a wrong "temporary" merely tries again in five
//! minutes. So a code is the grant's only if it says so, and what is unknown is temporary.
//!
//! Three things are looked at: the code, by RFC 6749 and by the vendor's own list; the vendor's number, which refines the code
//! beside it and does not overrule it; and the step, for nobody can authorize an app's own grant again.

mod aadsts;

use super::error::Step;
use super::vendor::Vendor;

pub(super) use aadsts::{aadsts_numbers, is_general, of_aadsts};

/// Whose trouble an error code is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The grant is gone: a person must act.
    Grant,
    /// The OAuth app, as configured here or registered there, is refused.
    App,
    /// It may pass.
    Passing,
}

/// What a refusal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whose trouble it is; `None`: nothing of it is known.
    pub(super) trouble: Option<Trouble>,
    /// The number that tells most of it, where there are any.
    pub(super) number: Option<u64>,
    /// Whether scopes were refused.
    pub(super) is_about_scopes: bool,
}

/// What a refusal of `vendor`'s in `step` comes to: by its code, the numbers beside it in their order, and its words, as they
/// came.
pub(super) fn verdict(vendor: Vendor, step: Step, code: &str, numbers: &[u64], words: &str) -> Verdict {
    let code = code.to_ascii_lowercase();
    let words = words.to_ascii_lowercase();
    let by_code = of_code(vendor, &code);
    let refines = |number: &&u64| match (of_aadsts(**number), by_code) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(_), Some(_)) if is_general(**number) => false,
        (Some(by_number), Some(by_code)) => may_refine(&code, by_code, by_number),
    };
    let refining = numbers.iter().find(refines).copied();
    let trouble = refining.and_then(of_aadsts).or(by_code);
    let known = || numbers.iter().find(|number| of_aadsts(**number).is_some());
    let number = refining.or_else(|| known().or_else(|| numbers.first()).copied());
    Verdict {
        trouble: trouble.map(|trouble| at_step(step, trouble)),
        number,
        is_about_scopes: is_about_scopes(&code, numbers, &words),
    }
}

/// Whether a refusal says of itself that it passes.
pub(super) fn is_passing(vendor: Vendor, code: &str, number: Option<u64>) -> bool {
    of_code(vendor, &code.to_ascii_lowercase()) == Some(Trouble::Passing)
        || number.and_then(of_aadsts) == Some(Trouble::Passing)
}

/// Whether a number may say of a refusal that it is `by_number`'s trouble, where its code says that it is `by_code`'s.
fn may_refine(code: &str, by_code: Trouble, by_number: Trouble) -> bool {
    match by_code {
        // Microsoft's servers say this of all that is wrong with what was presented, and of what may pass.
        Trouble::Grant => true,
        // This one says nothing yet. The others name the app, and then no number makes an owner act.
        Trouble::App => code == "invalid_request" || by_number != Trouble::Grant,
        Trouble::Passing => by_number == Trouble::Passing,
    }
}

/// An app's own grant and a service account's are nobody's to authorize again: whoever runs the app has to mend it.
pub(super) fn at_step(step: Step, trouble: Trouble) -> Trouble {
    match (step, trouble) {
        (Step::ClientCredentials | Step::ServiceAccount, Trouble::Grant) => Trouble::App,
        (_, trouble) => trouble,
    }
}

/// Whether a refusal is one of the scopes that were named, rather than of what was presented. `words` are in lower case.
fn is_about_scopes(code: &str, numbers: &[u64], words: &str) -> bool {
    let speaks_of_scopes = words.contains("scope");
    match code {
        "invalid_scope" | "consent_required" | "insufficient_scope" => true,
        _ if numbers.iter().any(|number| ABOUT_SCOPES.contains(number)) => true,
        // AADSTS70000 where one of them is "unauthorized or expired"; others' words for the same.
        "invalid_grant" | "invalid_request" | "interaction_required" => {
            speaks_of_scopes || words.contains("consent_required")
        }
        _ => false,
    }
}

/// AADSTS numbers of scopes that were not consented to, do not exist or do not go together: 65001 where no consent was given,
/// 90023 where personal accounts are asked for what they have not.
const ABOUT_SCOPES: [u64; 7] = [65001, 90023, 28002, 28003, 70011, 650_053, 700_022];

/// The meaning of the `error` member of an answer, in lower case, or `None` if the code is unknown: the vendor's own, else RFC
/// 6749 §4.1.2.1, §5.2; RFC 7009 §2.2.1; RFC 8628 §3.5; OpenID Connect Core §3.1.2.6; RFC 8707 §2.
pub(super) fn of_code(vendor: Vendor, code: &str) -> Option<Trouble> {
    if let Some(trouble) = of_vendors_code(vendor, code) {
        return Some(trouble);
    }
    let trouble = match code {
        "invalid_grant"
        | "interaction_required"
        | "login_required"
        | "consent_required"
        | "account_selection_required"
        | "access_denied"
        | "expired_token"
        | "admin_policy_enforced" => Trouble::Grant,
        // Nobody's standard, but nothing else can be meant.
        "invalid_refresh_token" | "expired_refresh_token" | "refresh_token_expired" | "refresh_token_revoked" => {
            Trouble::Grant
        }
        "invalid_client"
        | "unauthorized_client"
        | "invalid_scope"
        | "invalid_target"
        | "invalid_resource"
        | "invalid_request"
        | "invalid_client_secret"
        | "invalid_redirect_uri"
        | "unsupported_grant_type"
        | "unsupported_response_type"
        | "unsupported_token_type"
        | "disabled_client"
        | "deleted_client"
        | "redirect_uri_mismatch"
        | "org_internal" => Trouble::App,
        "temporarily_unavailable" | "server_error" | "slow_down" | "rate_limit_exceeded" | "internal_failure" => {
            Trouble::Passing
        }
        _ => return None,
    };
    Some(trouble)
}

/// The meaning of a code that only `vendor` uses so, in lower case.
///
/// Fastmail's, Comcast's and Seznam's documentation has no code beside RFC 6749's.
fn of_vendors_code(vendor: Vendor, code: &str) -> Option<Trouble> {
    let trouble = match (vendor, code) {
        // developer.yahoo.com/oauth2/guide/errors and …/openid_connect/troubleshooting.html, where they are in capitals.
        (Vendor::Yahoo, "token_expired" | "expired_token" | "invalid_token" | "account_not_authorized") => {
            Trouble::Grant
        }
        (Vendor::Yahoo, "invalid_authorization_code" | "underage_user") => Trouble::Grant,
        (
            Vendor::Yahoo,
            "invalid_consumer_key"
            | "deleted_consumer_key"
            | "disabled_consumer_key"
            | "unsupported_redirect_uri"
            | "bad_redirect_uri"
            | "invalid_callback"
            | "invalid_callback_url"
            | "invalid_param"
            | "invalid_input"
            | "invalid_response_type"
            | "parameter_absent"
            | "parameter_rejected"
            | "params_maxlength_exceeded"
            | "param_too_long"
            | "unsupported_over_http"
            | "version_rejected",
        ) => Trouble::App,
        (Vendor::Yahoo, "internal_error" | "error_handling_request") => Trouble::Passing,
        // yandex.com/dev/id/doc/en/codes/screen-code-oauth, where the last two are sentences.
        (Vendor::Yandex, "bad_verification_code") => Trouble::Grant,
        (Vendor::Yandex, "basic auth required" | "malformed authorization header") => Trouble::App,
        (Vendor::MailRu, "token not found") => Trouble::Grant,
        // Zoho's name for a code or a refresh token that is not good, and for too many requests in a row.
        (Vendor::Zoho, "invalid_code") => Trouble::Grant,
        (Vendor::Zoho, "access denied") => Trouble::Passing,
        _ => return None,
    };
    Some(trouble)
}

#[cfg(test)]
mod tests;
