//! What an upstream's `-ERR` to a login means: whether it blames the credential, and what the client may be told.
//!
//! | the upstream says | becomes |
//! |---|---|
//! | `[AUTH]` (RFC 3206 §5) | refused with that code, the credential blamed |
//! | `[SYS/PERM]` (RFC 3206 §4), `[IN-USE]` (RFC 2449 §8.1.2) | refused with that code, the credential not blamed |
//! | `[SYS/TEMP]`, any other `[SYS]`, `[LOGIN-DELAY]` (RFC 2449 §8.1.1) | unavailable |
//! | no or an unknown code, before the upstream was told anything of the credential | unavailable: it dislikes the command |
//! | no or an unknown code: a text that blames the credential (`Authentication failure: unknown user name or bad password.`, Microsoft's answer to an expired token) | refused without code, the credential blamed |
//! | no or an unknown code: any other text (`Protocol error. Connection is closed. 10`) | unavailable: nobody is asked for a new password for words that are not understood |
//!
//! A refusal without a code always blames the credential, so that the reply to the client, which then says `AUTH`, never asks
//! a user for a new password because of a temporary trouble. Which texts blame it is in `phrases`. Codes are hierarchies
//! (RFC 2449 §8): what follows a known one with a slash refines it.

use super::response::Refused;
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamRefusal, UpstreamWords};
use crate::proto::phrases;
use crate::proto::redaction::Redaction;

/// What the refused command told the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The name of a mechanism only.
    Mechanism,
    /// The login name, or more.
    Credential,
}

/// The fault that an `-ERR` to a login stands for. `command` is the command, for the operator.
pub(super) fn refusal(refused: &Refused<'_>, told: Told, redaction: &Redaction, command: &str) -> Fault {
    let text = redaction.clean(refused.text);
    let code = refused.code.map(|code| redaction.clean(code).to_ascii_uppercase());
    let words = UpstreamWords::new(LoginStep::Login, code.clone(), text.clone());
    let fault = match judge(code.as_deref(), &text, told) {
        Verdict::Refused {
            code,
            blames_credential,
        } => Fault::with_detail(
            FaultKind::UpstreamRefused(UpstreamRefusal {
                code: code.map(str::to_owned),
                text,
                blames_credential,
            }),
            format_args!("in answer to {command}"),
        ),
        Verdict::Unavailable => {
            let code = code.map(|code| format!("[{code}] ")).unwrap_or_default();
            Fault::unavailable(format_args!("upstream answers {command} with -ERR {code}{text}"))
        }
    };
    fault.for_words(words)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Refused {
        code: Option<&'static str>,
        blames_credential: bool,
    },
    Unavailable,
}

fn judge(code: Option<&str>, text: &str, told: Told) -> Verdict {
    let refused = |code, blames_credential| Verdict::Refused {
        code,
        blames_credential,
    };
    let levels: Vec<&str> = code.iter().flat_map(|code| code.split('/')).collect();
    match levels.as_slice() {
        ["AUTH", ..] if phrases::is_passing(text) => Verdict::Unavailable,
        ["AUTH", ..] => refused(Some("AUTH"), true),
        ["SYS", "PERM", ..] => refused(Some("SYS/PERM"), false),
        ["IN-USE", ..] => refused(Some("IN-USE"), false),
        ["SYS" | "LOGIN-DELAY", ..] => Verdict::Unavailable,
        _ if told == Told::Credential && phrases::blames_credential(text) => refused(None, true),
        _ => Verdict::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_real_providers_are_judged() {
        let refused = |code, blames_credential| Verdict::Refused {
            code,
            blames_credential,
        };
        for (code, text, expected) in [
            (Some("AUTH"), "Temporary authentication failure", Verdict::Unavailable),
            (
                Some("AUTH"),
                "Username and password not accepted.",
                refused(Some("AUTH"), true),
            ),
            (Some("AUTH"), "Authentication failed.", refused(Some("AUTH"), true)),
            (Some("AUTH/EXPIRED"), "x", refused(Some("AUTH"), true)),
            (
                Some("SYS/PERM"),
                "Your account is not enabled for POP access. Please visit your Gmail settings page",
                refused(Some("SYS/PERM"), false),
            ),
            (
                Some("IN-USE"),
                "Do you have another POP session running?",
                refused(Some("IN-USE"), false),
            ),
            (Some("IN-USE"), "Too many connections", refused(Some("IN-USE"), false)),
            (
                Some("SYS/TEMP"),
                "Temporary authentication failure.",
                Verdict::Unavailable,
            ),
            (Some("SYS/TEMP/DISK"), "x", Verdict::Unavailable),
            (Some("SYS"), "x", Verdict::Unavailable),
            (
                Some("LOGIN-DELAY"),
                "minimum time between mail checks violation",
                Verdict::Unavailable,
            ),
            (
                None,
                "Authentication failure: unknown user name or bad password.",
                refused(None, true),
            ),
            (
                None,
                "Logon failure: unknown user name or bad password.",
                refused(None, true),
            ),
            (None, "authentication failed", refused(None, true)),
            // What is not understood is nobody's fault.
            (None, "", Verdict::Unavailable),
            (None, "Protocol error. Connection is closed. 10", Verdict::Unavailable),
            (
                None,
                "login failure or POP3 disabled, try later. sc=x",
                Verdict::Unavailable,
            ),
            (Some("X-ODD"), "invalid password", refused(None, true)),
            (Some("X-ODD"), "Too many logins", Verdict::Unavailable),
            (None, "Server Unavailable. 21", Verdict::Unavailable),
            (
                None,
                "Request is throttled. Suggested Backoff Time: 299998 milliseconds",
                Verdict::Unavailable,
            ),
            (None, "maildrop is already in use", Verdict::Unavailable),
        ] {
            assert_eq!(judge(code, text, Told::Credential), expected, "{code:?} {text}");
        }
    }

    #[test]
    fn a_mechanism_that_is_not_liked_is_not_the_credentials_fault() {
        for text in [
            "Unrecognized authentication type",
            "Protocol error. 14",
            "unknown command",
        ] {
            assert_eq!(judge(None, text, Told::Mechanism), Verdict::Unavailable, "{text}");
        }
        // An upstream that says so means it.
        for (code, blames_credential) in [("AUTH", true), ("SYS/PERM", false), ("IN-USE", false)] {
            let expected = Verdict::Refused {
                code: Some(code),
                blames_credential,
            };
            assert_eq!(judge(Some(code), "no", Told::Mechanism), expected);
        }
    }

    #[test]
    fn a_refusal_carries_the_cleaned_words_and_the_command() {
        let mut redaction = Redaction::default();
        redaction.add(b"c2VjcmV0LXRva2Vu");
        let answer = |code: Option<&'static [u8]>, text: &'static [u8]| {
            refusal(&Refused { code, text }, Told::Credential, &redaction, "AUTH XOAUTH2")
        };
        let refused = answer(Some(b"auth"), b"no c2VjcmV0LXRva2Vu \xff\x1b");
        let words =
            |code: &str, text: &str| UpstreamWords::new(LoginStep::Login, Some(code.to_owned()), text.to_owned());
        assert_eq!(
            refused,
            Fault::with_detail(
                FaultKind::UpstreamRefused(UpstreamRefusal {
                    code: Some("AUTH".to_owned()),
                    text: "no [REDACTED] ?".to_owned(),
                    blames_credential: true,
                }),
                "in answer to AUTH XOAUTH2",
            )
            .for_words(words("AUTH", "no [REDACTED] ?"))
        );
        assert_eq!(
            answer(Some(b"SYS/TEMP"), b"later"),
            Fault::unavailable("upstream answers AUTH XOAUTH2 with -ERR [SYS/TEMP] later")
                .for_words(words("SYS/TEMP", "later"))
        );
    }
}
