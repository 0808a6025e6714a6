//! What the refusals of the large providers mean: cause and remedy in words, for the log, for the account's last error and for
//! `account verify`. Pure. The client hears the upstream's own words and nothing of this. Who must act, and when to try again,
//! is not decided here: for an upstream's refusal by the account's supervisor, for a token endpoint's in [`crate::oauth`].
//!
//! Providers refuse a login for settings of the mailbox or the tenant with the very codes of a wrong password. Such a row says
//! that the credential is good all the same, so that an account whose other protocols work is not sent to its owner for a
//! new consent that would change nothing.

use crate::clock::Timestamp;
use crate::fault::{CredentialForm, Fault, FaultKind, LoginStep, UpstreamRefusal, UpstreamWords};
use crate::oauth::{Explanation, GrantLife, TokenError, explain};
use crate::proto::Protocol;
use crate::sentence::explained;
use crate::store::{AccountRecord, AccountSecrets};

/// What a refusal means.
#[derive(Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Cause and remedy, for an operator.
    pub explanation: Explanation,
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
    of_words(
        protocol,
        &format!("{} {}", refusal.code.as_deref().unwrap_or_default(), refusal.text),
    )
}

/// What a failed login means, where an upstream's words are the cause and known: what it said for the mailbox's owner first,
/// then its answer, then how far the login had come when it said no.
pub fn of_fault(protocol: Protocol, fault: &Fault) -> Option<&'static Meaning> {
    match (&fault.kind, &fault.said) {
        (FaultKind::UpstreamRefused(_) | FaultKind::Unavailable, Some(said)) => of_said(protocol, said),
        (FaultKind::UpstreamRefused(refusal), None) => of_refusal(protocol, refusal),
        _ => None,
    }
}

fn of_said(protocol: Protocol, said: &UpstreamWords) -> Option<&'static Meaning> {
    let answer = format!("{} {}", said.code.as_deref().unwrap_or_default(), said.text);
    let mut all = said.alerts.iter().map(String::as_str).chain([answer.as_str()]);
    all.find_map(|words| of_words(protocol, words))
        .or_else(|| of_step(said))
}

/// What it means to be refused so early, whatever is said.
fn of_step(said: &UpstreamWords) -> Option<&'static Meaning> {
    match said.step {
        LoginStep::Greeting if said.code.as_ref().is_some_and(|code| code.starts_with('5')) => Some(&TURNED_AWAY),
        LoginStep::Greeting => Some(&TURNED_AWAY_FOR_NOW),
        LoginStep::Mechanism(CredentialForm::Token) => Some(&NO_MECHANISM_FOR_TOKENS),
        LoginStep::Mechanism(CredentialForm::Password) => Some(&NO_MECHANISM_FOR_PASSWORDS),
        LoginStep::Capabilities | LoginStep::StartTls | LoginStep::Login => None,
    }
}

/// What an upstream's words mean, its code included.
pub fn of_words(protocol: Protocol, words: &str) -> Option<&'static Meaning> {
    let words = words.to_ascii_lowercase();
    let row = ROWS.iter().find(|row| {
        (row.protocols.is_empty() || row.protocols.contains(&protocol))
            && row.phrases.iter().all(|phrase| words.contains(phrase))
    });
    row.map(|row| &row.meaning)
}

/// A token endpoint's refusal at the moment `now` for an account's last error: the provider's words first, then what they mean
/// where that is known; and what to do about it. `record` and `secrets` are the account's, as it was refused.
pub fn of_token_error(
    error: &TokenError,
    record: &AccountRecord,
    secrets: &AccountSecrets,
    now: Timestamp,
) -> (String, Option<String>) {
    let life = GrantLife {
        consented: record.authorized,
        held_since: record.updated,
        last_good: secrets.grant.as_ref().and_then(|grant| grant.obtained),
    };
    match explain::of_token_error(error, life, now) {
        Some(known) => {
            let message = explained(&error.message, known.cause);
            (message, Some(known.remedy.to_owned()))
        }
        None => (error.message.clone(), None),
    }
}

/// One row: all `phrases`, in lower case, in the upstream's code and text, at any of `protocols` (none: at all of them).
struct Row {
    protocols: &'static [Protocol],
    phrases: &'static [&'static str],
    meaning: Meaning,
}

const fn meaning(trouble: Trouble, cause: &'static str, remedy: &'static str) -> Meaning {
    let explanation = Explanation { cause, remedy };
    Meaning { explanation, trouble }
}

const fn row(
    protocols: &'static [Protocol],
    phrases: &'static [&'static str],
    trouble: Trouble,
    cause: &'static str,
    remedy: &'static str,
) -> Row {
    Row {
        protocols,
        phrases,
        meaning: meaning(trouble, cause, remedy),
    }
}

const IMAP: &[Protocol] = &[Protocol::Imap];
const SMTP: &[Protocol] = &[Protocol::Smtp];
const POP3: &[Protocol] = &[Protocol::Pop3];
const ALL: &[Protocol] = &[];

/// A greeting of `421`, `* BYE`, `-ERR`.
static TURNED_AWAY_FOR_NOW: Meaning = meaning(
    Trouble::Load,
    "the server refuses connections for now: it is busy or in maintenance, or has had too many from this address",
    "Wait: it is tried again with the next login. If it goes on, ask the provider whether it holds this proxy's address back",
);

/// A greeting of `554` (RFC 5321 §3.1).
static TURNED_AWAY: Meaning = meaning(
    Trouble::Load,
    "the server takes no connections from this address, or is none for submission",
    "Check the endpoint's host and port, and ask the provider whether it blocks this proxy's address",
);

static NO_MECHANISM_FOR_TOKENS: Meaning = meaning(
    Trouble::Setting,
    "the server does not offer a login by OAuth2 (XOAUTH2 or OAUTHBEARER) here",
    "Check that the endpoint's host is the provider's own and not a filter or another provider's, and that the provider's sasl \
     names what is offered. Where there is no OAuth2, give the account an app password instead: portreeve account update \
     ACCOUNT --password-file -",
);

static NO_MECHANISM_FOR_PASSWORDS: Meaning = meaning(
    Trouble::Setting,
    "the server does not offer a login by password here",
    "Check the endpoint's host, port and tls: many servers take passwords inside TLS only. Where the provider wants OAuth2, \
     authorize the account with it",
);

/// The first row that fits counts, so that the more particular stand first.
static ROWS: &[Row] = &[
    // Exchange Online (learn.microsoft.com/exchange, "Enable or disable authenticated client SMTP submission").
    row(
        SMTP,
        &["smtpclientauthentication is disabled for the tenant"],
        Trouble::Setting,
        "SMTP AUTH is switched off for the whole organization",
        "Have its administrator enable it there (Set-TransportConfig -SmtpClientAuthenticationDisabled $false) or for this \
         mailbox alone (Set-CASMailbox -SmtpClientAuthenticationDisabled $false)",
    ),
    row(
        SMTP,
        &["smtpclientauthentication is disabled for the mailbox"],
        Trouble::Setting,
        "SMTP AUTH is switched off for this mailbox",
        "Have its administrator enable \"Authenticated SMTP\" among its e-mail apps (Set-CASMailbox \
         -SmtpClientAuthenticationDisabled $false). A shared mailbox without a licence sends as a delegate: set smtp.user",
    ),
    row(
        ALL,
        &["basic authentication is disabled"],
        Trouble::Setting,
        "the provider takes no passwords any more",
        "Authorize the account with OAuth2",
    ),
    // From the end of December 2026 off by default for existing tenants, and for all new ones.
    row(
        SMTP,
        &["basic authentication is not supported for client submission"],
        Trouble::Setting,
        "Microsoft takes no passwords for sending any more: basic authentication for SMTP is off by default for every \
         organization from the end of December 2026, and for good later",
        "Authorize the account with OAuth2 (portreeve account authorize), with SMTP among what the listeners serve. Until then \
         an administrator of the organization may switch it on again",
    ),
    row(
        ALL,
        &["5.7.30"],
        Trouble::Setting,
        "the provider takes no passwords any more",
        "Authorize the account with OAuth2",
    ),
    row(
        ALL,
        &["basic authentication is not supported"],
        Trouble::Setting,
        "the provider takes no passwords any more",
        "Authorize the account with OAuth2",
    ),
    row(
        SMTP,
        &["5.7.139", "user credentials were incorrect"],
        Trouble::Credential,
        "the token or the login name is not accepted: the token lacks the scope SMTP.Send, it is another user's than smtp.user \
         or user says, or the password is wrong",
        "Check smtp.user and user, and authorize the account again with SMTP among what the listeners serve",
    ),
    row(
        SMTP,
        &["5.7.139", "security defaults"],
        Trouble::Setting,
        "the organization's security defaults refuse passwords",
        "Authorize the account with OAuth2",
    ),
    row(
        SMTP,
        &["5.7.139", "conditional access"],
        Trouble::Setting,
        "a Conditional Access policy of the organization refuses this login over SMTP",
        "Have its administrator find the policy in the sign-in log and allow this app",
    ),
    row(
        SMTP,
        &["5.7.139"],
        Trouble::Setting,
        "a policy of the organization refuses this login over SMTP",
        "Have its administrator find the reason in the sign-in log",
    ),
    row(
        SMTP,
        &["535", "5.7.3 "],
        Trouble::Credential,
        "the token is not accepted for this mailbox: it lacks the scope SMTP.Send, it is another user's, or the mailbox has no \
         licence to send",
        "Authorize the account again with SMTP among what the listeners serve. A shared mailbox sends as a delegate: set smtp.user",
    ),
    row(
        IMAP,
        &["user is authenticated but not connected"],
        Trouble::Setting,
        "the token is good, but the mailbox cannot be opened: IMAP is switched off for it, it has no licence, or the token's \
         user has no access to the mailbox that user names",
        "Have the administrator switch IMAP on for the mailbox (Set-CASMailbox -ImapEnabled $true), check its licence, and give \
         the user full access to a shared one",
    ),
    row(
        SMTP,
        &["432", "concurrent connections limit exceeded"],
        Trouble::Load,
        "more submissions at once than the provider allows to one mailbox, perhaps by other programs beside this proxy",
        "Lower submissions_max for this provider",
    ),
    row(
        ALL,
        &["request is throttled"],
        Trouble::Load,
        "the provider is asked too much by this mailbox and refuses for a while",
        "Wait: logins go on by themselves when the time that it asks for is over. If it comes back, let fewer programs look into \
         the mailbox, or less often",
    ),
    row(
        ALL,
        &["accesstokenexpired"],
        Trouble::Load,
        "the provider ends a session when the OAuth access token that it began with ends",
        "Let the mail program connect again, which it does by itself: it gets a fresh token",
    ),
    row(
        ALL,
        &["too many simultaneous connections"],
        Trouble::Load,
        "more connections at once than the provider allows to one mailbox (Gmail 15), other programs' included",
        "Close some, or lower sessions_per_account_max for this provider so that the proxy keeps below the limit",
    ),
    // Gmail (support.google.com/mail/answer/7126229).
    row(
        ALL,
        &["webalert"],
        Trouble::Setting,
        "Google wants the mailbox's owner to log in with a browser before it lets programs in again",
        "Have the owner open the link that it gives, log in there and confirm; then let the mail program try again",
    ),
    row(
        ALL,
        &["log in via your web browser"],
        Trouble::Setting,
        "Google wants the mailbox's owner to log in with a browser before it lets programs in again",
        "Have the owner log in with a browser and confirm that it was them; then let the mail program try again",
    ),
    row(
        ALL,
        &["web login required"],
        Trouble::Setting,
        "the provider wants the mailbox's owner to log in with a browser before it lets programs in again",
        "Have the owner log in with a browser and confirm that it was them; then let the mail program try again",
    ),
    row(
        ALL,
        &["534", "5.7.9"],
        Trouble::Credential,
        "Google wants OAuth2 or an app password instead of the account's own password",
        "Authorize the account with OAuth2, or give it an app password (myaccount.google.com/apppasswords)",
    ),
    row(
        ALL,
        &["application-specific password required"],
        Trouble::Credential,
        "Google wants OAuth2 or an app password instead of the account's own password",
        "Authorize the account with OAuth2, or give it an app password (myaccount.google.com/apppasswords)",
    ),
    row(
        SMTP,
        &["535", "badcredentials"],
        Trouble::Credential,
        "the token or the app password is not accepted: it has been revoked, it is another user's, or it lacks the scope \
         https://mail.google.com/",
        "Check the account's user, and authorize it again with that scope",
    ),
    row(
        ALL,
        &["lookup failed"],
        Trouble::Credential,
        "Google finds no mailbox that the token may open: it lacks the scope https://mail.google.com/, or it is another user's",
        "Check the account's user, and authorize it again with that scope",
    ),
    row(
        POP3,
        &["sys/perm", "not enabled"],
        Trouble::Setting,
        "POP is switched off for this mailbox",
        "Have its owner enable it in the mailbox's settings",
    ),
    row(
        POP3,
        &["pop", "not enabled"],
        Trouble::Setting,
        "POP is switched off for this mailbox",
        "Have its owner enable it in the mailbox's settings",
    ),
    row(
        IMAP,
        &["imap", "not enabled"],
        Trouble::Setting,
        "IMAP is switched off for this mailbox",
        "Have its owner enable it in the mailbox's settings",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::tests::support::{account, refresh_token};
    use crate::oauth::{TokenErrorKind, Vendor};

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
                "December 2026",
            ),
            (SMTP, "550 5.7.30", "No.", Setting, "takes no passwords"),
            (
                IMAP,
                "WEBALERT https://accounts.google.com/signin/continue",
                "Web login required.",
                Setting,
                "open the link",
            ),
            (
                SMTP,
                "534 5.7.14",
                "<https://accounts.google.com/signin/continue> Please log in via your web browser and then try again.",
                Setting,
                "with a browser",
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
                SMTP,
                "535 5.7.139",
                "Authentication unsuccessful, access has been blocked by Conditional Access policies.",
                Setting,
                "allow this app",
            ),
            (
                IMAP,
                "ALERT",
                "Too many simultaneous connections. (Failure)",
                Load,
                "sessions_per_account_max",
            ),
            (
                IMAP,
                "",
                "Request is throttled. Suggested Backoff Time: 299961 milliseconds",
                Load,
                "go on by themselves",
            ),
            (
                IMAP,
                "",
                "Session invalidated - AccessTokenExpired",
                Load,
                "connect again",
            ),
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
                assert!(
                    meaning.explanation.to_string().contains(word),
                    "{text}: {}",
                    meaning.explanation
                );
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
    fn a_passing_trouble_is_told_by_the_upstreams_words_and_never_by_the_log() {
        let text = "Concurrent connections limit exceeded";
        let logged = Fault::unavailable(format!("upstream answers AUTH with 432 4.3.2 {text}"));
        assert_eq!(of_fault(Protocol::Smtp, &logged), None);
        let said = UpstreamWords::new(LoginStep::Login, Some("432 4.3.2".to_owned()), text.to_owned());
        let fault = Fault::unavailable("x").for_words(said);
        assert_eq!(of_fault(Protocol::Smtp, &fault).unwrap().trouble, Trouble::Load);
        assert_eq!(of_fault(Protocol::Smtp, &Fault::new(FaultKind::TokenExpired)), None);
    }

    #[test]
    fn an_alert_that_came_before_tells_more_than_the_refusal() {
        let no = |code: &str, text: &str| {
            let said = UpstreamWords::new(LoginStep::Login, Some(code.to_owned()), text.to_owned());
            let link = "NO [WEBALERT https://accounts.google.com/signin/continue] Web login required.";
            Fault::unavailable("x")
                .for_words(said)
                .after_alerts(vec![link.to_owned()])
        };
        for fault in [
            no(
                "ALERT",
                "Please log in via your web browser: https://support.google.com/ (Failure)",
            ),
            no("AUTHENTICATIONFAILED", "Invalid credentials (Failure)"),
        ] {
            let meaning = of_fault(Protocol::Imap, &fault).unwrap();
            assert!(meaning.explanation.remedy.contains("open the link"), "{meaning:?}");
        }
    }

    #[test]
    fn whoever_is_turned_away_early_is_told_what_that_means() {
        use LoginStep::{Capabilities, Greeting, Mechanism};
        for (step, code, text, word) in [
            (Greeting, Some("421 4.7.0"), "no", Some("refuses connections for now")),
            (
                Greeting,
                None,
                "Server shutting down",
                Some("refuses connections for now"),
            ),
            (
                Greeting,
                Some("554 5.7.1"),
                "no",
                Some("takes no connections from this address"),
            ),
            (
                Greeting,
                Some("421 4.3.2"),
                "Concurrent connections limit exceeded",
                Some("refuses connections for now"),
            ),
            (Greeting, None, "Request is throttled.", Some("asked too much")),
            (Mechanism(CredentialForm::Token), None, "AUTH=PLAIN", Some("OAuth2")),
            (
                Mechanism(CredentialForm::Password),
                None,
                "AUTH=XOAUTH2",
                Some("by password"),
            ),
            (Capabilities, Some("421 4.7.0"), "no", None),
        ] {
            let said = UpstreamWords::new(step, code.map(str::to_owned), text.to_owned());
            let fault = Fault::unavailable("x").for_words(said);
            let told = of_fault(Protocol::Smtp, &fault).map(|meaning| meaning.explanation.to_string());
            assert_eq!(told.is_some(), word.is_some(), "{told:?}");
            assert!(told.unwrap_or_default().contains(word.unwrap_or_default()), "{text}");
        }
    }

    #[test]
    fn a_token_endpoints_words_go_before_what_they_mean() {
        let mut record = account("ada");
        let secrets = refresh_token("r");
        let now = Timestamp::from_millis(DAY_MS * 100);
        record.updated = now;
        let told = |record: &AccountRecord, secrets: &AccountSecrets, code: &str, message: &str| {
            let number = message.starts_with("AADSTS65001").then_some(65001);
            let mut error = TokenError::new(TokenErrorKind::Grant, code, message);
            error.facts.number = number;
            error.facts.vendor = number.map_or(Vendor::Google, |_| Vendor::Microsoft);
            let (message, remedy) = of_token_error(&error, record, secrets, now);
            format!("{message}. {}", remedy.unwrap_or_default())
        };
        let not_consented = "AADSTS65001: The user or administrator has not consented to use the application.";
        let text = told(&record, &secrets, "invalid_grant", not_consented);
        assert!(
            text.starts_with(&format!("{}; consent is missing", not_consented.trim_end_matches('.'))),
            "{text}"
        );
        for remedy in ["Authorize the account again", "set the provider's scopes"] {
            assert!(text.contains(remedy), "{text}");
        }
        assert_eq!(told(&record, &secrets, "http_400", "no"), "no. ", "what is not known");

        // The account tells how the grant has lived.
        let revoked = "Token has been expired or revoked.";
        let text = told(&record, &secrets, "invalid_grant", revoked);
        assert!(text.contains("an app's whose publishing status is Testing"), "{text}");
        record.authorized = Some(Timestamp::from_millis(DAY_MS * 93));
        let text = told(&record, &secrets, "invalid_grant", revoked);
        assert!(text.contains("seven days after its consent"), "{text}");
        let mut secrets = secrets;
        secrets.grant.as_mut().unwrap().obtained = Some(now);
        record.authorized = Some(Timestamp::from_millis(DAY_MS * 90));
        let text = told(&record, &secrets, "invalid_grant", revoked);
        assert!(!text.contains("Testing"), "{text}");
    }

    const DAY_MS: u64 = 24 * 3600 * 1000;

    #[test]
    fn phrases_are_in_lower_case_and_meanings_a_phrase_and_a_sentence() {
        let by_step = [
            &TURNED_AWAY_FOR_NOW,
            &TURNED_AWAY,
            &NO_MECHANISM_FOR_TOKENS,
            &NO_MECHANISM_FOR_PASSWORDS,
        ];
        let by_words = ROWS.iter().map(|row| &row.meaning);
        for Meaning { explanation, .. } in by_words.chain(by_step) {
            let Explanation { cause, remedy } = explanation;
            assert!(!format!("{cause}{remedy}").contains(['\n']), "{cause}");
            assert!(!format!("{cause} {remedy}").contains("  "), "{cause}");
            assert!(remedy.starts_with(char::is_uppercase), "{remedy}");
            assert!(!cause.ends_with('.') && !remedy.ends_with('.'), "{cause}");
        }
        for row in ROWS {
            assert!(!row.phrases.is_empty());
            assert!(row.phrases.iter().all(|phrase| phrase.to_ascii_lowercase() == **phrase));
        }
    }
}
