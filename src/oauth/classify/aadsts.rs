//! Microsoft Entra's error numbers (learn.microsoft.com/entra/identity-platform/reference-error-codes, and its error pages).

use super::Trouble;

/// The meaning of a number; `None` if it says nothing about whose trouble it is.
pub(in crate::oauth) fn of_aadsts(number: u64) -> Option<Trouble> {
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
        501_481 | 700_003 | 700_005 | 700_081 | 700_082 | 700_084 | 7_000_012 => Trouble::Grant,
        // The app is unknown, disabled or not consented to as a whole in this tenant. An administrator's consent (90094)
        // makes the same grant work again, so that the mailbox's owner need not act.
        700_011 | 700_016 | 7_000_112 | 7_000_229 | 650_052 | 650_056 | 650_057 | 500_011 | 500_014 => Trouble::App,
        90093..=90095 => Trouble::App,
        // It is asked for in a tenant that is not there, or not its own.
        50020 | 50059 | 50128 | 50194 | 90002 | 90072 | 90130 | 500_200 | 500_208 | 900_023 => Trouble::App,
        9_001_023 | 9_002_331 | 9_002_332 | 9_002_346 => Trouble::App,
        // Its secret, its redirect URI or the way it authenticates is wrong.
        50011 | 50012 | 70002 | 500_113 | 700_023 | 700_024 | 700_025 | 700_027 | 700_030 => Trouble::App,
        7_000_215 | 7_000_216 | 7_000_218 | 7_000_222 | 9_002_326 | 9_002_327 => Trouble::App,
        // What it asks for is.
        28000 | 28002 | 28003 | 65002 | 65005 | 70001 | 70003 | 70011 | 90009 | 90014 | 90023 => Trouble::App,
        650_053 | 700_022 | 900_144 | 9_002_313 => Trouble::App,
        // Microsoft calls these transient, or they lift by themselves (50053: locked for a while after bad passwords; 70016:
        // the owner has not typed the device code yet).
        50053 | 50196 | 70012 | 70016 | 90006 | 90012 | 90024 | 90025 | 90033 | 90055 => Trouble::Passing,
        _ => return None,
    };
    Some(trouble)
}

/// Whether a number says no more than that something is wrong with the request or with what it presents: the code beside it
/// then says whose trouble that is. 70002 precedes the number that tells why.
pub(in crate::oauth) fn is_general(number: u64) -> bool {
    matches!(number, 70000 | 70002 | 90014 | 90023 | 900_144 | 9_002_313)
}

/// The numbers behind `AADSTS` in a text, in their order.
pub(in crate::oauth) fn aadsts_numbers(text: &str) -> impl Iterator<Item = u64> {
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
    fn only_numbers_that_say_so_cost_a_person_work() {
        for number in [
            50034, 50076, 50079, 50126, 50173, 53003, 54005, 65001, 70000, 70008, 70043, 700_082, 700_084,
        ] {
            assert_eq!(of_aadsts(number), Some(Trouble::Grant), "{number}");
        }
        for number in [
            700_016, 7_000_215, 7_000_218, 7_000_222, 700_025, 70011, 90094, 650_053, 50194, 50011, 9_002_331, 90130,
            90009,
        ] {
            assert_eq!(of_aadsts(number), Some(Trouble::App), "{number}");
        }
        for number in [50053, 50196, 70016, 90033, 90055] {
            assert_eq!(of_aadsts(number), Some(Trouble::Passing), "{number}");
        }
        assert_eq!(of_aadsts(1), None);
    }
}
