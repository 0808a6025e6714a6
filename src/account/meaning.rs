//! What the refusals of the large providers mean: cause and remedy in words, for the log and for the account's last error.
//! Pure. The client hears the upstream's own words and nothing of this. Who must act, and when to try again, is not decided
//! here: for an upstream's refusal by the account's supervisor, for a token endpoint's in [`crate::oauth`].
//!
//! Providers refuse a login for settings of the mailbox or the tenant with the very codes of a wrong password. Such a row says
//! that the credential is good all the same, so that an account whose other protocols work is not sent to its owner for a
//! new consent that would change nothing.

use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::oauth::TokenError;
use crate::proto::Protocol;

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Cause and remedy, as a phrase for an operator.
    pub text: &'static str,
    /// What is wrong.
    pub trouble: Trouble,
}

/// What is wrong where an upstream refuses a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The token, the password or the consent behind it.
    Credential,
    /// A setting at the provider, for this protocol.
    Setting,
    /// It is too much at once, or too early.
    Load,
}

/// What a refusal of a login means, where that is known.
pub fn of_refusal(protocol: Protocol, refusal: &UpstreamRefusal) -> Option<&'static Meaning> {
    find(
        protocol,
        &format!("{} {}", refusal.code.as_deref().unwrap_or_default(), refusal.text),
    )
}

/// What a failed login means, where an upstream's words are the cause and known; those of a passing trouble are in its detail.
pub fn of_fault(protocol: Protocol, fault: &Fault) -> Option<&'static Meaning> {
    match &fault.kind {
        FaultKind::UpstreamRefused(refusal) => of_refusal(protocol, refusal),
        FaultKind::Unavailable => find(protocol, &fault.detail),
        _ => None,
    }
}

/// What a token endpoint's refusal of a refresh means, where that is known and its own words do not say what to do.
pub fn of_token_error(error: &TokenError) -> Option<&'static str> {
    let words = error.to_string().to_ascii_lowercase();
    let row = TOKEN_ROWS.iter().find(|(phrase, _)| words.contains(phrase));
    row.map(|(_, text)| *text)
}

fn find(protocol: Protocol, words: &str) -> Option<&'static Meaning> {
    let words = words.to_ascii_lowercase();
    let row = ROWS.iter().find(|row| {
        (row.protocols.is_empty() || row.protocols.contains(&protocol))
            && row.phrases.iter().all(|phrase| words.contains(phrase))
    });
    row.map(|row| &row.meaning)
}

/// One row: all `phrases`, in lower case, in the upstream's code and text, at any of `protocols` (none: at all of them).
struct Row {
    protocols: &'static [Protocol],
    phrases: &'static [&'static str],
    meaning: Meaning,
}

const fn row(
    protocols: &'static [Protocol],
    phrases: &'static [&'static str],
    trouble: Trouble,
    text: &'static str,
) -> Row {
    Row {
        protocols,
        phrases,
        meaning: Meaning { text, trouble },
    }
}

const IMAP: &[Protocol] = &[Protocol::Imap];
const SMTP: &[Protocol] = &[Protocol::Smtp];
const POP3: &[Protocol] = &[Protocol::Pop3];
const ALL: &[Protocol] = &[];

/// The first row that fits counts, so that the more particular stand first.
static ROWS: &[Row] = &[
    // Exchange Online (learn.microsoft.com/exchange, "Enable or disable authenticated client SMTP submission").
    row(
        SMTP,
        &["smtpclientauthentication is disabled for the tenant"],
        Trouble::Setting,
        "SMTP AUTH is switched off for the whole organization; its administrator can enable it there \
         (Set-TransportConfig -SmtpClientAuthenticationDisabled $false) or for this mailbox alone \
         (Set-CASMailbox -SmtpClientAuthenticationDisabled $false)",
    ),
    row(
        SMTP,
        &["smtpclientauthentication is disabled for the mailbox"],
        Trouble::Setting,
        "SMTP AUTH is switched off for this mailbox; its administrator can enable \"Authenticated SMTP\" among its e-mail apps \
         (Set-CASMailbox -SmtpClientAuthenticationDisabled $false). A shared mailbox without a licence sends as a delegate: \
         set smtp.user",
    ),
    row(
        ALL,
        &["basic authentication is disabled"],
        Trouble::Setting,
        "the provider takes no passwords any more; authorize the account with OAuth2",
    ),
    row(
        ALL,
        &["basic authentication is not supported"],
        Trouble::Setting,
        "the provider takes no passwords any more; authorize the account with OAuth2",
    ),
    row(
        SMTP,
        &["5.7.139", "user credentials were incorrect"],
        Trouble::Credential,
        "the token or the login name is not accepted: the token lacks the scope SMTP.Send, it is another user's than smtp.user \
         or user says, or the password is wrong",
    ),
    row(
        SMTP,
        &["5.7.139", "security defaults"],
        Trouble::Setting,
        "the organization's security defaults refuse passwords; authorize the account with OAuth2",
    ),
    row(
        SMTP,
        &["5.7.139"],
        Trouble::Setting,
        "a policy of the organization refuses this login over SMTP; its administrator finds the reason in the sign-in log",
    ),
    row(
        SMTP,
        &["535", "5.7.3 "],
        Trouble::Credential,
        "the token is not accepted for this mailbox: it lacks the scope SMTP.Send, it is another user's, or the mailbox has no \
         licence to send; a shared mailbox sends as a delegate: set smtp.user",
    ),
    row(
        IMAP,
        &["user is authenticated but not connected"],
        Trouble::Setting,
        "the token is good, but the mailbox cannot be opened: IMAP is switched off for it, it has no licence, or the token's \
         user has no access to the mailbox that user names",
    ),
    row(
        SMTP,
        &["432", "concurrent connections limit exceeded"],
        Trouble::Load,
        "more submissions at once than the provider allows to one mailbox, perhaps by other programs beside this proxy; lower \
         submissions_max for this provider",
    ),
    // Gmail (support.google.com/mail/answer/7126229).
    row(
        ALL,
        &["534", "5.7.9"],
        Trouble::Credential,
        "Google wants OAuth2 or an app password instead of the account's own password",
    ),
    row(
        ALL,
        &["application-specific password required"],
        Trouble::Credential,
        "Google wants OAuth2 or an app password instead of the account's own password",
    ),
    row(
        SMTP,
        &["535", "badcredentials"],
        Trouble::Credential,
        "the token or the app password is not accepted: it has been revoked, it is another user's, or it lacks the scope \
         https://mail.google.com/",
    ),
    row(
        ALL,
        &["lookup failed"],
        Trouble::Credential,
        "Google finds no mailbox that the token may open: it lacks the scope https://mail.google.com/, or it is another user's",
    ),
    row(
        POP3,
        &["sys/perm", "not enabled"],
        Trouble::Setting,
        "POP is switched off for this mailbox; its owner can enable it in the mailbox's settings",
    ),
    row(
        POP3,
        &["pop", "not enabled"],
        Trouble::Setting,
        "POP is switched off for this mailbox; its owner can enable it in the mailbox's settings",
    ),
    row(
        IMAP,
        &["imap", "not enabled"],
        Trouble::Setting,
        "IMAP is switched off for this mailbox; its owner can enable it in the mailbox's settings",
    ),
];

/// A phrase, in lower case, in a token endpoint's code and message, and what it means; the first that fits counts.
///
/// Microsoft's consent is for each scope (AADSTS65001), and a refresh that names one more is refused as a whole, so that the
/// mailbox is lost for the protocols that were consented to as well. Others refuse it as RFC 6749 §6 and §5.2 have it.
static TOKEN_ROWS: &[(&str, &str)] = &[
    ("aadsts65001:", NOT_CONSENTED),
    ("consent_required", NOT_CONSENTED),
    (
        "invalid_scope",
        "the refresh asks for a scope that the provider does not know or that was not consented to: correct the provider's \
         scopes and send SIGHUP, or authorize the account again for all of them",
    ),
];

const NOT_CONSENTED: &str = "consent is missing for a scope that the refresh asks for: authorize the account again, for every \
     protocol that the listeners serve, or set the provider's scopes to what was consented to, send SIGHUP and give the account \
     its refresh token again";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::TokenErrorKind;

    fn refusal(code: &str, text: &str) -> UpstreamRefusal {
        UpstreamRefusal {
            code: Some(code.to_owned()).filter(|code| !code.is_empty()),
            text: text.to_owned(),
            blames_credential: true,
        }
    }

    #[test]
    fn refusals_of_real_providers_have_a_meaning() {
        use Trouble::{Credential, Load, Setting};
        let unsuccessful = "Authentication unsuccessful";
        for (protocols, code, text, trouble, word) in [
            (
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled",
                Setting,
                "Set-TransportConfig",
            ),
            (
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled",
                Setting,
                "for this mailbox",
            ),
            (
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, the user credentials were incorrect.",
                Credential,
                "SMTP.Send",
            ),
            (
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, basic authentication is disabled.",
                Setting,
                "takes no passwords",
            ),
            (
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, user is locked by your organization's security defaults policy.",
                Setting,
                "security defaults",
            ),
            (
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully.",
                Setting,
                "sign-in log",
            ),
            (
                SMTP,
                "550 5.7.30",
                "Basic authentication is not supported for Client Submission.",
                Setting,
                "takes no passwords",
            ),
            (SMTP, "535 5.7.3", unsuccessful, Credential, "smtp.user"),
            (
                IMAP,
                "",
                "User is authenticated but not connected.",
                Setting,
                "IMAP is switched off",
            ),
            (
                SMTP,
                "432 4.3.2",
                "STOREDRV.ClientSubmit; sender thread limit exceeded; Concurrent connections limit exceeded.",
                Load,
                "submissions_max",
            ),
            (
                SMTP,
                "534 5.7.9",
                "Application-specific password required. For more information, go to https://support.google.com/mail/?p=InvalidSecondFactor",
                Credential,
                "app password",
            ),
            (
                IMAP,
                "ALERT",
                "Application-specific password required: https://support.google.com/accounts/answer/185833 (Failure)",
                Credential,
                "app password",
            ),
            (
                SMTP,
                "535 5.7.8",
                "Username and Password not accepted. For more information, go to https://support.google.com/mail/?p=BadCredentials",
                Credential,
                "https://mail.google.com/",
            ),
            (IMAP, "", "Lookup failed", Credential, "no mailbox"),
            (
                POP3,
                "SYS/PERM",
                "Your account is not enabled for POP access. Please visit your Gmail settings page",
                Setting,
                "POP is switched off",
            ),
            (POP3, "", "POP access is not enabled", Setting, "POP is switched off"),
            (
                IMAP,
                "ALERT",
                "Your account is not enabled for IMAP use. Please visit your Gmail settings page (Failure)",
                Setting,
                "IMAP is switched off",
            ),
        ] {
            for protocol in protocols {
                let meaning = of_refusal(*protocol, &refusal(code, text)).unwrap_or_else(|| panic!("{text}"));
                assert_eq!(meaning.trouble, trouble, "{text}");
                assert!(meaning.text.contains(word), "{text}: {}", meaning.text);
            }
        }
    }

    #[test]
    fn what_is_not_known_has_no_meaning() {
        for (protocol, code, text) in [
            (Protocol::Imap, "AUTHENTICATIONFAILED", "Invalid credentials (Failure)"),
            (Protocol::Smtp, "535 5.7.8", "Error: authentication failed"),
            (Protocol::Pop3, "AUTH", "no"),
            // What is SMTP's means nothing at IMAP.
            (
                Protocol::Imap,
                "",
                "SmtpClientAuthentication is disabled for the Tenant",
            ),
        ] {
            assert_eq!(of_refusal(protocol, &refusal(code, text)), None, "{text}");
        }
    }

    #[test]
    fn a_passing_trouble_is_told_by_its_detail() {
        let fault = Fault::unavailable("upstream answers AUTH with 432 4.3.2 Concurrent connections limit exceeded");
        assert_eq!(of_fault(Protocol::Smtp, &fault).unwrap().trouble, Trouble::Load);
        assert_eq!(of_fault(Protocol::Smtp, &Fault::new(FaultKind::TokenExpired)), None);
    }

    #[test]
    fn a_scope_that_was_not_consented_to_is_told_with_both_remedies() {
        let not_consented = "AADSTS65001: The user or administrator has not consented to use the application with ID \
                             '00000000-0000-0000-0000-000000000000' named 'portreeve'. Send an interactive authorization \
                             request for this user and resource.";
        for (code, message, words) in [
            (
                "invalid_grant",
                not_consented,
                &["authorize the account again", "set the provider's scopes"][..],
            ),
            (
                "invalid_grant",
                "consent_required: no",
                &["authorize the account again", "set the provider's scopes"],
            ),
            ("consent_required", "no", &["consent is missing"]),
            (
                "invalid_scope",
                "AADSTS70011: The scope is not valid.",
                &["correct the provider's scopes"],
            ),
            ("invalid_scope", not_consented, &["consent is missing"]),
            ("invalid_grant", "AADSTS70043: The refresh token has expired.", &[]),
            ("invalid_grant", "AADSTS650011: no such number", &[]),
            ("invalid_grant", "Token has been expired or revoked.", &[]),
        ] {
            let error = TokenError {
                kind: TokenErrorKind::Grant,
                code: code.to_owned(),
                message: message.to_owned(),
            };
            let meaning = of_token_error(&error);
            assert_eq!(meaning.is_some(), !words.is_empty(), "{error}");
            let text = meaning.unwrap_or_default();
            assert!(words.iter().all(|word| text.contains(word)), "{error}: {text}");
        }
    }

    #[test]
    fn phrases_are_in_lower_case_and_meanings_in_one_line() {
        let of_tokens = TOKEN_ROWS
            .iter()
            .map(|(phrase, text)| (std::slice::from_ref(phrase), *text));
        for (phrases, text) in ROWS.iter().map(|row| (row.phrases, row.meaning.text)).chain(of_tokens) {
            assert!(!phrases.is_empty());
            assert!(phrases.iter().all(|phrase| phrase.to_ascii_lowercase() == **phrase));
            assert!(!text.contains('\n') && !text.contains("  "), "{text}");
        }
    }
}
