//! What an upstream's refusal means: whether it blames the credential, and what the client may be told.
//!
//! | the upstream says | becomes |
//! |---|---|
//! | `AUTHENTICATIONFAILED`, `AUTHORIZATIONFAILED`, `EXPIRED` (RFC 5530) | refused, the credential blamed |
//! | `LIMIT`, `CONTACTADMIN`, `NOPERM`, `OVERQUOTA`, `WEBALERT` | refused with that code, the credential not blamed |
//! | `ALERT` | refused with that code; the text decides whether the credential is blamed |
//! | `UNAVAILABLE`, `SERVERBUG`, `INUSE`, any other code of RFC 5530, a referral | unavailable |
//! | no or an unknown code: a text of throttling | unavailable |
//! | no or an unknown code: any other `NO`, or a `BAD` whose text names credentials | refused without code, the credential blamed |
//! | no or an unknown code: any other `BAD` | unavailable: the upstream did not get as far as the credential |
//!
//! A refusal without a code always blames the credential, so that the reply to the client, which then says
//! `AUTHENTICATIONFAILED`, never asks a user for a new password because of a temporary trouble. A plain `NO` has to be taken
//! that way: it is Microsoft's answer to an expired token and Gmail's to a token without the mail scope. A code that would
//! send the client elsewhere (RFC 2221) or speaks of the proxy's own connection is not passed on.

use super::response::{Condition, Status};
use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::proto::redaction::Redaction;

/// The fault that a tagged NO or BAD to a login stands for. `refused` is the command, for the operator.
pub(super) fn refusal(condition: &Condition<'_>, redaction: &Redaction, refused: &str) -> Fault {
    let text = redaction.clean(condition.text);
    let code = condition
        .code
        .map(|code| redaction.clean(code.name).to_ascii_uppercase());
    match judge(condition.status, code.as_deref(), &text) {
        Verdict::Refused {
            code,
            blames_credential,
        } => Fault::with_detail(
            FaultKind::UpstreamRefused(UpstreamRefusal {
                code: code.map(str::to_owned),
                text,
                blames_credential,
            }),
            format_args!("in answer to {refused}"),
        ),
        Verdict::Unavailable => Fault::unavailable(format_args!(
            "upstream answers {refused} with {} {}",
            rendered(condition.status, code.as_deref()),
            text
        )),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Refused {
        code: Option<&'a str>,
        blames_credential: bool,
    },
    Unavailable,
}

fn judge<'a>(status: Status, code: Option<&'a str>, text: &str) -> Verdict<'a> {
    let text = text.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    match code {
        Some("AUTHENTICATIONFAILED" | "AUTHORIZATIONFAILED" | "EXPIRED") => Verdict::Refused {
            code,
            blames_credential: true,
        },
        Some("LIMIT" | "CONTACTADMIN" | "NOPERM" | "OVERQUOTA" | "WEBALERT") => Verdict::Refused {
            code,
            blames_credential: false,
        },
        Some("ALERT") => Verdict::Refused {
            code,
            blames_credential: says(&CREDENTIAL_PHRASES) && !says(&THROTTLING_PHRASES),
        },
        Some(
            "UNAVAILABLE" | "SERVERBUG" | "INUSE" | "PRIVACYREQUIRED" | "CLIENTBUG" | "CANNOT" | "CORRUPTION"
            | "EXPUNGEISSUED" | "NONEXISTENT" | "ALREADYEXISTS" | "REFERRAL",
        ) => Verdict::Unavailable,
        _ if says(&THROTTLING_PHRASES) => Verdict::Unavailable,
        _ if status == Status::No || says(&CREDENTIAL_PHRASES) => Verdict::Refused {
            code: None,
            blames_credential: true,
        },
        _ => Verdict::Unavailable,
    }
}

fn rendered(status: Status, code: Option<&str>) -> String {
    let status = if status == Status::Bad { "BAD" } else { "NO" };
    code.map_or_else(|| status.to_owned(), |code| format!("{status} [{code}]"))
}

/// Texts by which providers without response codes say that it is too much or too early, in lower case (Gmail, Exchange
/// Online, Yahoo, Dovecot).
const THROTTLING_PHRASES: [&str; 10] = [
    "too many",
    "throttled",
    "suggested backoff",
    "backoff time",
    "try again later",
    "rate limit",
    "temporar",
    "server busy",
    "unavailable",
    "internal error",
];

/// Texts that speak of the credential, in lower case.
const CREDENTIAL_PHRASES: [&str; 6] = [
    "credential",
    "password",
    "authenticate failed",
    "authentication failed",
    "login failed",
    "invalid token",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_real_providers_are_judged() {
        let blamed = |code| Verdict::Refused {
            code,
            blames_credential: true,
        };
        let not_blamed = |code| Verdict::Refused {
            code,
            blames_credential: false,
        };
        use Status::{Bad, No};
        let table = [
            (
                No,
                Some("AUTHENTICATIONFAILED"),
                "Invalid credentials (Failure)",
                blamed(Some("AUTHENTICATIONFAILED")),
            ),
            (
                No,
                Some("EXPIRED"),
                "That password isn't valid any more",
                blamed(Some("EXPIRED")),
            ),
            (No, None, "AUTHENTICATE failed.", blamed(None)),
            (No, None, "Lookup failed", blamed(None)),
            (No, None, "LOGIN Login error password error", blamed(None)),
            (No, Some("X-OWN"), "no", blamed(None)),
            (Bad, None, "Invalid credentials", blamed(None)),
            (
                No,
                Some("ALERT"),
                "Invalid credentials (Failure)",
                blamed(Some("ALERT")),
            ),
            (
                No,
                Some("ALERT"),
                "Too many simultaneous connections. (Failure)",
                not_blamed(Some("ALERT")),
            ),
            (
                No,
                Some("ALERT"),
                "Please log in via your web browser",
                not_blamed(Some("ALERT")),
            ),
            (No, Some("LIMIT"), "LOGIN Rate limit hit.", not_blamed(Some("LIMIT"))),
            (No, Some("CONTACTADMIN"), "locked", not_blamed(Some("CONTACTADMIN"))),
            (
                No,
                Some("WEBALERT"),
                "Web login required.",
                not_blamed(Some("WEBALERT")),
            ),
            (
                Bad,
                None,
                "Request is throttled. Suggested Backoff Time: 299961 milliseconds",
                Verdict::Unavailable,
            ),
            (No, None, "Please try again later", Verdict::Unavailable),
            (
                No,
                Some("UNAVAILABLE"),
                "Temporary authentication failure.",
                Verdict::Unavailable,
            ),
            (No, Some("INUSE"), "locked", Verdict::Unavailable),
            (No, Some("SERVERBUG"), "oops", Verdict::Unavailable),
            (No, Some("REFERRAL"), "Try the other server", Verdict::Unavailable),
            (Bad, None, "Command unknown", Verdict::Unavailable),
        ];
        for (status, code, text, expected) in table {
            assert_eq!(judge(status, code, text), expected, "{status:?} {code:?} {text}");
        }
    }

    #[test]
    fn a_refusal_without_code_always_blames_the_credential() {
        for status in [Status::No, Status::Bad] {
            for text in [
                "",
                "x",
                "too many",
                "password",
                "try again later",
                "unavailable password",
            ] {
                for code in [None, Some("UNKNOWN"), Some("ALERT"), Some("LIMIT"), Some("INUSE")] {
                    if let Verdict::Refused {
                        code: None,
                        blames_credential,
                    } = judge(status, code, text)
                    {
                        assert!(blames_credential, "{status:?} {code:?} {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn text_and_code_are_clean_and_free_of_what_was_sent() {
        let mut redaction = Redaction::default();
        redaction.add(b"ya29.secret-token");
        let condition = Condition {
            status: Status::No,
            code: None,
            text: b"bad \x1btoken ya29.secret-token\xff",
        };
        let fault = refusal(&condition, &redaction, "AUTHENTICATE");
        let FaultKind::UpstreamRefused(refusal) = &fault.kind else {
            panic!("{fault:?}");
        };
        assert_eq!(refusal.text, "bad  token [REDACTED]");
    }
}
