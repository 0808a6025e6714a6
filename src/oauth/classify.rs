//! What a provider's error code means: who has to do something before another attempt can succeed.
//!
//! A wrong "grant" makes a person authorize a mailbox again for nothing; a wrong "temporary" merely tries again in five
//! minutes. So a code is the grant's only if it says so, and what is unknown is temporary.

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

/// The meaning of the `error` member of an answer (RFC 6749 §4.1.2.1, §5.2; RFC 7009 §2.2.1; RFC 8628 §3.5; OpenID Connect Core §3.1.2.6; RFC 8707 §2), or `None`
/// if the code is unknown.
pub(super) fn of_code(code: &str) -> Option<Trouble> {
    let code = code.to_ascii_lowercase();
    let trouble = match code.as_str() {
        "invalid_grant"
        | "interaction_required"
        | "login_required"
        | "consent_required"
        | "account_selection_required"
        | "access_denied"
        | "expired_token"
        | "admin_policy_enforced" => Trouble::Grant,
        "invalid_client"
        | "unauthorized_client"
        | "invalid_scope"
        | "invalid_target"
        | "invalid_request"
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

/// The meaning of a Microsoft Entra error number (learn.microsoft.com/entra/identity-platform/reference-error-codes), which
/// is more exact than the `error` beside it; `None` if the number says nothing about that.
pub(super) fn of_aadsts(number: u64) -> Option<Trouble> {
    let trouble = match number {
        // The account: gone, disabled, or its password changed or expired.
        50034 | 50055 | 50056 | 50057 | 50125 | 50126 | 50133 | 50135 | 50144 | 50173 | 51004 => Trouble::Grant,
        // A sign-in with more than the grant carries: multi-factor, a managed device, another policy of the tenant.
        50058 | 50072 | 50074 | 50076 | 50078 | 50079 | 50097 | 50105 | 50129 | 50131 | 50132 | 50140 | 50158 => {
            Trouble::Grant
        }
        53000..=53004 | 53011 | 530_031..=530_036 => Trouble::Grant,
        // Consent was not given or has been taken back.
        65001 | 65004 => Trouble::Grant,
        // The refresh token or the code: used up, expired, revoked, too old for the sign-in frequency, or another's.
        50089 | 54005 | 70000 | 70008 | 70018 | 70019 | 70043 | 70044 => Trouble::Grant,
        501_481 | 700_003 | 700_005 | 700_081 | 700_082 | 700_084 => Trouble::Grant,
        // The app is unknown, disabled or not consented to as a whole in this tenant. An administrator's consent (90094)
        // makes the same grant work again, so that the mailbox's owner need not act.
        700_011 | 700_016 | 7_000_112 | 7_000_229 | 650_052 | 650_056 | 650_057 | 500_011 | 500_014 => Trouble::App,
        90093..=90095 => Trouble::App,
        // It is asked for in a tenant that is not there, or not its own.
        50020 | 50059 | 50128 | 50194 | 90002 | 500_208 | 9_001_023 | 9_002_332 => Trouble::App,
        // Its secret, its redirect URI or the way it authenticates is wrong.
        50011 | 50012 | 70002 | 500_113 | 700_025 | 700_027 | 700_030 => Trouble::App,
        7_000_215 | 7_000_218 | 7_000_222 | 9_002_326 | 9_002_327 => Trouble::App,
        // What it asks for is.
        28000 | 28002 | 65002 | 65005 | 70001 | 70003 | 70011 | 650_053 | 700_022 | 900_144 | 9_002_313 => Trouble::App,
        // Microsoft calls these transient, or they lift by themselves (50053: locked for a while after bad passwords; 70016:
        // the owner has not typed the device code yet).
        50053 | 50196 | 70012 | 70016 | 90006 | 90012 | 90024 | 90025 | 90033 | 90055 => Trouble::Passing,
        _ => return None,
    };
    Some(trouble)
}

/// The numbers behind `AADSTS` in a text, in their order.
pub(super) fn aadsts_numbers(text: &str) -> impl Iterator<Item = u64> {
    text.split("AADSTS").skip(1).filter_map(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_wherever_they_stand_in_a_text() {
        let text = "AADSTS70043: The token has expired. AADSTS50076 and AADSTS, AADSTSx, AADSTS99999999999999999999999";
        assert_eq!(aadsts_numbers(text).collect::<Vec<_>>(), [70043, 50076]);
    }

    #[test]
    fn only_codes_that_say_so_cost_a_person_work() {
        for number in [
            50034, 50076, 50079, 50126, 50173, 53003, 54005, 65001, 70000, 70008, 70043, 700_082, 700_084,
        ] {
            assert_eq!(of_aadsts(number), Some(Trouble::Grant), "{number}");
        }
        for number in [
            700_016, 7_000_215, 7_000_218, 7_000_222, 700_025, 70011, 90094, 650_053, 50194, 50011,
        ] {
            assert_eq!(of_aadsts(number), Some(Trouble::App), "{number}");
        }
        for number in [50053, 50196, 70016, 90033, 90055] {
            assert_eq!(of_aadsts(number), Some(Trouble::Passing), "{number}");
        }
        assert_eq!(of_aadsts(1), None);
        assert_eq!(of_code("Invalid_Grant"), Some(Trouble::Grant));
        assert_eq!(of_code("something_new"), None);
    }
}
