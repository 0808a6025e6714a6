//! What an upstream's refusal means: whether it blames the credential, and what the client may be told.
//!
//! | the upstream says | becomes |
//! |---|---|
//! | `AUTHENTICATIONFAILED`, `AUTHORIZATIONFAILED`, `EXPIRED` (RFC 5530) | refused, the credential blamed |
//! | `LIMIT`, `CONTACTADMIN`, `NOPERM`, `OVERQUOTA`, `WEBALERT` | refused with that code, the credential not blamed |
//! | `ALERT` | refused with that code; the text decides whether the credential is blamed |
//! | `UNAVAILABLE`, `SERVERBUG`, `INUSE`, any other code of RFC 5530, a referral | unavailable |
//! | no or an unknown code: a text that blames the credential (`AUTHENTICATE failed.`, Microsoft's answer to an expired token; `Lookup failed`, Gmail's to one without the mail scope) | refused without code, the credential blamed |
//! | no or an unknown code: any other text | unavailable: nobody is asked for a new password for words that are not understood |
//!
//! A refusal without a code always blames the credential, so that the reply to the client, which then says
//! `AUTHENTICATIONFAILED`, never asks a user for a new password because of a temporary trouble. Which texts blame it is in
//! `phrases`. A code that would send the client elsewhere (RFC 2221) or speaks of the proxy's own connection is not passed on.

use super::response::{Condition, Status};
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamRefusal, UpstreamWords};
use crate::proto::phrases;
use crate::proto::redaction::Redaction;

/// The fault that a tagged NO or BAD to a login stands for. `refused` is the command, for the operator.
pub(super) fn refusal(condition: &Condition<'_>, redaction: &Redaction, refused: &str) -> Fault {
    let text = redaction.clean(condition.text);
    let code = condition
        .code
        .map(|code| redaction.clean(code.name).to_ascii_uppercase());
    let link = condition
        .code
        .filter(|code| code.is("WEBALERT") && !code.arguments.is_empty());
    let words = UpstreamWords::new(LoginStep::Login, code.clone(), text.clone());
    let fault = match judge(code.as_deref(), &text) {
        Verdict::Refused {
            code,
            blames_credential,
        } => Fault::with_detail(
            FaultKind::UpstreamRefused(UpstreamRefusal {
                // A link is of no use without its address.
                code: match link {
                    Some(link) => Some(format!("WEBALERT {}", redaction.clean_line(link.arguments))),
                    None => code.map(str::to_owned),
                },
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
    };
    fault.for_words(words)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    Refused {
        code: Option<&'a str>,
        blames_credential: bool,
    },
    Unavailable,
}

fn judge<'a>(code: Option<&'a str>, text: &str) -> Verdict<'a> {
    match code {
        // Yahoo gives the code to those who come too often as well.
        Some("AUTHENTICATIONFAILED") if phrases::is_passing(text) => Verdict::Unavailable,
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
            blames_credential: phrases::blames_credential(text),
        },
        Some(
            "UNAVAILABLE" | "SERVERBUG" | "INUSE" | "PRIVACYREQUIRED" | "CLIENTBUG" | "CANNOT" | "CORRUPTION"
            | "EXPUNGEISSUED" | "NONEXISTENT" | "ALREADYEXISTS" | "REFERRAL",
        ) => Verdict::Unavailable,
        _ if phrases::blames_credential(text) => Verdict::Refused {
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

#[cfg(test)]
mod tests {
    use super::super::response::Code;
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
                "(#MBR1240) Too many bad auth attempts",
                Verdict::Unavailable,
            ),
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
            (No, Some("X-OWN"), "Invalid login or password", blamed(None)),
            // What is not understood is nobody's fault.
            (No, Some("X-OWN"), "no", Verdict::Unavailable),
            (No, None, "", Verdict::Unavailable),
            (No, None, "Web login required.", Verdict::Unavailable),
            (No, None, "Server Unavailable. 15", Verdict::Unavailable),
            (
                No,
                None,
                "Protocol error. Connection is closed. 10",
                Verdict::Unavailable,
            ),
            (
                Bad,
                None,
                "User is authenticated but not connected.",
                Verdict::Unavailable,
            ),
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
            let condition = Condition {
                status,
                code: code.map(|name: &str| Code {
                    name: name.as_bytes(),
                    arguments: b"",
                }),
                text: text.as_bytes(),
            };
            assert_eq!(judge(code, text), expected, "{status:?} {code:?} {text}");
            let said = refusal(&condition, &Redaction::default(), "LOGIN").said.unwrap();
            assert_eq!((said.code.as_deref(), said.text.as_str()), (code, text));
        }
    }

    #[test]
    fn a_refusal_without_code_always_blames_the_credential() {
        for text in [
            "",
            "x",
            "too many",
            "bad password",
            "login failed",
            "try again later",
            "unavailable: bad password",
        ] {
            for code in [None, Some("UNKNOWN"), Some("ALERT"), Some("LIMIT"), Some("INUSE")] {
                if let Verdict::Refused {
                    code: None,
                    blames_credential,
                } = judge(code, text)
                {
                    assert!(blames_credential, "{code:?} {text}");
                }
            }
        }
    }

    #[test]
    fn a_link_to_log_in_keeps_its_address() {
        let condition = Condition {
            status: Status::No,
            code: Some(Code {
                name: b"WEBALERT",
                arguments: b"https://accounts.example/continue?x=1",
            }),
            text: b"Web login required.",
        };
        let fault = refusal(&condition, &Redaction::default(), "LOGIN");
        let FaultKind::UpstreamRefused(refusal) = &fault.kind else {
            panic!("{fault:?}");
        };
        assert_eq!(
            refusal.code.as_deref(),
            Some("WEBALERT https://accounts.example/continue?x=1")
        );
        assert!(!refusal.blames_credential && !fault.kind.is_temporary());
    }

    #[test]
    fn text_and_code_are_clean_and_free_of_what_was_sent() {
        let mut redaction = Redaction::default();
        redaction.add(b"ya29.secret-token");
        let condition = Condition {
            status: Status::No,
            code: None,
            text: b"invalid \x1btoken is ya29.secret-token\xff, Login failed",
        };
        let fault = refusal(&condition, &redaction, "AUTHENTICATE");
        let FaultKind::UpstreamRefused(refusal) = &fault.kind else {
            panic!("{fault:?}");
        };
        assert_eq!(refusal.text, "invalid  token is [REDACTED] Login failed");
    }
}
