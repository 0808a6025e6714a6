//! What an upstream's refusal means: whether it blames the credential, and what the client may be told.
//!
//! | the upstream answers AUTH with | becomes |
//! |---|---|
//! | `4xx`, any enhanced code `4.x.x`: `454 4.7.0`, `421`, `432 4.3.2` (Exchange Online's limit of connections) | unavailable |
//! | any text of throttling or of a passing trouble: `535 5.7.0 Too many bad auth attempts` | unavailable |
//! | `530`, `538`: it wants TLS first | unavailable |
//! | `535 5.7.139` (Exchange Online: SMTP AUTH is off for the mailbox or tenant, a policy forbids it) | refused, the credential not blamed |
//! | the same, with a text that says the credential was wrong | refused, the credential blamed |
//! | `535` otherwise: `5.7.8`, `5.7.3`, no enhanced code | refused, the credential blamed |
//! | `534`: a login in the browser or an app password is needed (Gmail), the mechanism is too weak (RFC 4954 §6) | refused, the credential not blamed |
//! | `525` the mailbox is disabled (RFC 5248), `550` to `554`: a policy (`550 5.7.30`, basic authentication is retired) | refused; the text decides whether the credential is blamed |
//! | any other: `500` to `504`, `555` | unavailable: the upstream did not get as far as the credential |
//!
//! A refusal is passed on with its code, so that `535 5.7.139` keeps its meaning. What passes is never passed on: `432` means
//! something else to a client (RFC 4954 §6), and with a `5xx` it would ask its user for a new password. A fresh token would
//! not help where the credential is not blamed.

use super::response::Reply;
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamRefusal, UpstreamWords};
use crate::proto::Mechanism;
use crate::proto::phrases;
use crate::proto::redaction::Redaction;

/// The fault that a final reply other than `235` to AUTH stands for.
pub(super) fn refusal(reply: &Reply, redaction: &Redaction, mechanism: Mechanism) -> Fault {
    let (code, text) = (reply.full_code(), redaction.clean(&reply.text()));
    let refused = mechanism.name();
    let words = UpstreamWords::new(LoginStep::Login, Some(code.clone()), text.clone());
    let fault = match judge(reply.code, reply.enhanced_code(), &text) {
        Verdict::Refused { blames_credential } => Fault::with_detail(
            FaultKind::UpstreamRefused(UpstreamRefusal {
                code: Some(code),
                text,
                blames_credential,
            }),
            format_args!("in answer to AUTH {refused}"),
        ),
        Verdict::Unavailable => Fault::unavailable(format_args!("upstream answers AUTH {refused} with {code} {text}")),
    };
    fault.for_words(words)
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Refused { blames_credential: bool },
    Unavailable,
}

fn judge(code: u16, enhanced: Option<&str>, text: &str) -> Verdict {
    match (code, enhanced) {
        (..500, _) => Verdict::Unavailable,
        _ if phrases::is_passing(text) => Verdict::Unavailable,
        // All of its texts begin with "Authentication unsuccessful".
        (535, Some("5.7.139")) => Verdict::Refused {
            blames_credential: WRONG_CREDENTIAL_PHRASES
                .iter()
                .any(|phrase| text.to_ascii_lowercase().contains(phrase)),
        },
        (535, _) => Verdict::Refused {
            blames_credential: true,
        },
        (534, _) => Verdict::Refused {
            blames_credential: false,
        },
        (525 | 550..=554, _) => Verdict::Refused {
            blames_credential: phrases::blames_credential(text),
        },
        _ => Verdict::Unavailable,
    }
}

/// What Exchange Online says with `5.7.139` where not a policy but the credential is at fault, in lower case.
const WRONG_CREDENTIAL_PHRASES: [&str; 2] = ["credentials were incorrect", "password has expired"];

#[cfg(test)]
mod tests {
    use super::super::response::ReplyFramer;
    use super::*;

    fn reply(stream: &str) -> Reply {
        let mut framer = ReplyFramer::default();
        framer.push(stream.as_bytes());
        framer.next_reply().unwrap().unwrap()
    }

    const BLAMED: Verdict = Verdict::Refused {
        blames_credential: true,
    };
    const NOT_BLAMED: Verdict = Verdict::Refused {
        blames_credential: false,
    };

    #[test]
    fn refusals_of_real_providers_are_judged() {
        let table = [
            ("535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6\r\n", BLAMED),
            (
                "535-5.7.8 Username and Password not accepted.\r\n535 5.7.8 https://x\r\n",
                BLAMED,
            ),
            ("535 5.7.3 Authentication unsuccessful [AM0PR01CA0001]\r\n", BLAMED),
            ("535 Authentication credentials invalid\r\n", BLAMED),
            ("535\r\n", BLAMED),
            (
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.\r\n",
                NOT_BLAMED,
            ),
            (
                "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria\r\n",
                NOT_BLAMED,
            ),
            (
                "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. [X]\r\n",
                BLAMED,
            ),
            (
                "535 5.7.0 (#MBR1240) Too many bad auth attempts\r\n",
                Verdict::Unavailable,
            ),
            ("535 5.7.0 Temporary authentication failure\r\n", Verdict::Unavailable),
            (
                "534-5.7.9 Application-specific password required.\r\n534 5.7.9 x\r\n",
                NOT_BLAMED,
            ),
            (
                "534-5.7.14 <https://x> Please log in via your web browser\r\n534 5.7.14 x\r\n",
                NOT_BLAMED,
            ),
            ("525 5.7.13 User account disabled\r\n", NOT_BLAMED),
            (
                "550 5.7.30 Basic authentication is not supported for Client Submission.\r\n",
                NOT_BLAMED,
            ),
            ("554 5.7.0 Authentication failed\r\n", BLAMED),
            ("554 5.7.0 Too many errors\r\n", Verdict::Unavailable),
            ("535 5.7.0 Invalid login or password\r\n", BLAMED),
            (
                "535 5.7.8 Error: authentication failed: Connection lost to authentication server\r\n",
                Verdict::Unavailable,
            ),
            ("535 Internal authentication failure\r\n", Verdict::Unavailable),
            ("550 5.1.1 no such thing\r\n", NOT_BLAMED),
            (
                "454 4.7.0 Too many login attempts, please try again later.\r\n",
                Verdict::Unavailable,
            ),
            (
                "454 4.7.0 Temporary authentication failure: Connection lost\r\n",
                Verdict::Unavailable,
            ),
            (
                "432 4.3.2 Concurrent connections limit exceeded.\r\n",
                Verdict::Unavailable,
            ),
            ("421 4.4.2 timeout\r\n", Verdict::Unavailable),
            ("435 password\r\n", Verdict::Unavailable),
            (
                "530 5.7.0 Must issue a STARTTLS command first\r\n",
                Verdict::Unavailable,
            ),
            ("538 5.7.11 Encryption required\r\n", Verdict::Unavailable),
            ("500 5.5.6 Line too long, password\r\n", Verdict::Unavailable),
            ("501 5.5.4 Invalid base64 data\r\n", Verdict::Unavailable),
            ("502 5.5.1 what?\r\n", Verdict::Unavailable),
            ("503 5.5.1 Already authenticated\r\n", Verdict::Unavailable),
            ("504 5.7.4 Unrecognized authentication type\r\n", Verdict::Unavailable),
        ];
        for (stream, expected) in table {
            let reply = reply(stream);
            let text = String::from_utf8(reply.text()).unwrap();
            assert_eq!(judge(reply.code, reply.enhanced_code(), &text), expected, "{stream}");
        }
    }

    #[test]
    fn a_passing_trouble_is_never_a_refusal() {
        for code in 400..500 {
            for text in ["", "password", "invalid credentials"] {
                assert_eq!(judge(code, None, text), Verdict::Unavailable, "{code} {text}");
            }
        }
    }

    #[test]
    fn code_and_text_are_kept_clean_and_free_of_what_was_sent() {
        let mut redaction = Redaction::default();
        redaction.add(b"ya29.secret-token");
        let reply = reply("535-5.7.8 bad \x1btoken\r\n535-5.7.8  ya29.secret-token\r\n535 5.7.8 there\r\n");
        let fault = refusal(&reply, &redaction, Mechanism::XOAuth2);
        assert_eq!(fault.detail, "in answer to AUTH XOAUTH2");
        let FaultKind::UpstreamRefused(refusal) = fault.kind else {
            panic!("{fault:?}");
        };
        assert_eq!(refusal.code.as_deref(), Some("535 5.7.8"));
        assert_eq!(refusal.text, "bad  token [REDACTED] there");

        let unavailable = super::refusal(
            &self::reply("454 4.7.0 ya29.secret-token\r\n"),
            &redaction,
            Mechanism::XOAuth2,
        );
        assert_eq!(unavailable.kind, FaultKind::Unavailable);
        assert_eq!(
            unavailable.detail,
            "upstream answers AUTH XOAUTH2 with 454 4.7.0 [REDACTED]"
        );
        let said = unavailable.said.unwrap();
        assert_eq!(
            (said.code.as_deref(), said.text.as_str()),
            (Some("454 4.7.0"), "[REDACTED]")
        );
    }
}
