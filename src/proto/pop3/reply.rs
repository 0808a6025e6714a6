//! What a POP3 client is told. The reply to every kind of fault is a total function of the kind ([`refusal`]); the texts are
//! part of the contract with users and their scripts, and the same as IMAP's.
//!
//! What may not live here: deciding whether to refuse. No reply names an internal address, path or error.

use std::borrow::Cow;

use super::promise::NAMES;
use crate::fault::{FaultKind, UpstreamRefusal};
use crate::proto::named;
use crate::proto::session::Offer;

/// The reply to a login refused for `kind`, without line end: `-ERR [AUTH] …`. Codes are those of RFC 2449 §8.1 and RFC 3206,
/// and stand only where the client has something to learn from one.
pub fn refusal(kind: &FaultKind) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        FaultKind::UnknownCredentials => "-ERR [AUTH] Access denied, failed to authenticate user",
        FaultKind::ForeignToken => "-ERR [AUTH] Access denied, invalid username",
        FaultKind::ScopeMissing => "-ERR [AUTH] Access denied, invalid scope",
        FaultKind::AddressNotAllowed => "-ERR [AUTH] Access denied, traffic not accepted from this IP",
        FaultKind::TokenExpired => "-ERR [AUTH] Access denied, token has expired",
        FaultKind::PlaintextRefused => "-ERR [AUTH] Logging in without TLS is not allowed here",
        FaultKind::AuthorizationGone => {
            "-ERR [SYS/PERM] Mailbox authorization has expired, authorize the account again"
        }
        FaultKind::AppRefused => "-ERR [SYS/PERM] The proxy's OAuth application is refused, tell the administrator",
        FaultKind::AccountDisabled => "-ERR [SYS/PERM] The account is disabled, tell the administrator",
        FaultKind::ProtocolNotOffered => "-ERR [SYS/PERM] The account's provider does not offer POP3",
        FaultKind::Unavailable | FaultKind::Internal => {
            "-ERR [SYS/TEMP] The mailbox cannot be reached for now, try again later"
        }
        FaultKind::AccountLimit => "-ERR [IN-USE] The account has too many sessions, close another one",
        FaultKind::ProxyLimit => "-ERR [IN-USE] The proxy has too many sessions, try again later",
        FaultKind::UpstreamRefused(refusal) => return Cow::Owned(upstream_refusal(refusal)),
        FaultKind::Malformed => "-ERR Malformed command",
        FaultKind::TooManyBadCommands => "-ERR Too many bad commands",
        FaultKind::TooManyCommands => "-ERR Too many commands before a login",
        FaultKind::TooManyFailures => "-ERR [AUTH] Too many failed logins",
        FaultKind::LineTooLong | FaultKind::LiteralTooLong => "-ERR The command line is too long",
        FaultKind::StartTlsInjection => "-ERR Nothing may follow STLS in clear",
        FaultKind::PreAuthTimeout => "-ERR [SYS/TEMP] The login took too long",
        FaultKind::ClientGone => "-ERR [SYS/TEMP] The connection is closing",
    })
}

/// The greeting (RFC 1939 §4). It has no `<…>`: that would be a timestamp, and an offer of APOP (§7).
pub const GREETING: &str = "+OK Portreeve POP3 proxy ready\r\n";

/// What a client hears in the greeting's place when there are too many sessions.
pub const TOO_MANY_SESSIONS: &str = "-ERR [IN-USE] The proxy has too many sessions, try again later\r\n";

/// The capabilities before login (RFC 2449 §5), the whole multi-line reply, with what is promised of the upstream. OAUTHBEARER
/// and XOAUTH2 are accepted but not told, so that password-only programs are not led astray.
pub fn capabilities(offer: Offer, promised: &[String]) -> String {
    let login = if offer.login {
        "USER\r\nSASL PLAIN LOGIN\r\n"
    } else {
        ""
    };
    let stls = if offer.has_starttls() { "STLS\r\n" } else { "" };
    // Whoever made the list, nothing goes out that this proxy would break.
    let promised = promised.iter().filter(|name| NAMES.contains(&name.as_str()));
    let promised: String = promised.flat_map(|name| [name.as_str(), "\r\n"]).collect();
    format!(
        "+OK Capabilities follow\r\n{login}{stls}RESP-CODES\r\nAUTH-RESP-CODE\r\n{promised}IMPLEMENTATION portreeve\r\n.\r\n"
    )
}

/// The mechanisms that a bare AUTH asks for: those of [`capabilities`].
pub fn mechanisms(offer: Offer) -> &'static str {
    match offer.login {
        true => "+OK Mechanisms follow\r\nPLAIN\r\nLOGIN\r\n.\r\n",
        false => "+OK Mechanisms follow\r\n.\r\n",
    }
}

/// The reply to a login that succeeded: `+OK example authenticated`.
pub fn authenticated(account: &str) -> String {
    let account = named(account);
    format!("+OK {account} authenticated\r\n")
}

/// The upstream's own words. They come cleaned; what could end the line or the code is dropped here again, so that this
/// function is safe by itself.
fn upstream_refusal(refusal: &UpstreamRefusal) -> String {
    let is_code = |character: char| character.is_ascii_graphic() && character != ']' && character != '[';
    let code: String = refusal
        .code
        .iter()
        .flat_map(|code| code.chars())
        .filter(|&c| is_code(c))
        .collect();
    let code = match code.as_str() {
        "" if refusal.blames_credential => "AUTH",
        "" => "SYS/TEMP",
        code => code,
    };
    let text: String = refusal
        .text
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    match text.trim() {
        "" => format!("-ERR [{code}] The mailbox's provider refused the login"),
        text => format!("-ERR [{code}] {text}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::imap;
    use crate::proto::session::ClientSecurity;

    fn refused(code: Option<&str>, text: &str, blames_credential: bool) -> FaultKind {
        FaultKind::UpstreamRefused(UpstreamRefusal {
            code: code.map(str::to_owned),
            text: text.to_owned(),
            blames_credential,
        })
    }

    #[test]
    fn every_row_of_the_table_has_its_literal_code() {
        for (kind, expected) in [
            (FaultKind::UnknownCredentials, "-ERR [AUTH] "),
            (FaultKind::ForeignToken, "-ERR [AUTH] "),
            (FaultKind::ScopeMissing, "-ERR [AUTH] "),
            (FaultKind::AddressNotAllowed, "-ERR [AUTH] "),
            (FaultKind::TokenExpired, "-ERR [AUTH] "),
            (FaultKind::PlaintextRefused, "-ERR [AUTH] "),
            (FaultKind::AuthorizationGone, "-ERR [SYS/PERM] "),
            (FaultKind::AppRefused, "-ERR [SYS/PERM] "),
            (FaultKind::AccountDisabled, "-ERR [SYS/PERM] "),
            (FaultKind::ProtocolNotOffered, "-ERR [SYS/PERM] "),
            (FaultKind::Unavailable, "-ERR [SYS/TEMP] "),
            (FaultKind::Internal, "-ERR [SYS/TEMP] "),
            (FaultKind::AccountLimit, "-ERR [IN-USE] "),
            (FaultKind::ProxyLimit, "-ERR [IN-USE] "),
            (refused(Some("AUTH"), "No", true), "-ERR [AUTH] No"),
            (refused(None, "Bad password.", true), "-ERR [AUTH] Bad password."),
            (refused(Some("IN-USE"), "Locked", false), "-ERR [IN-USE] Locked"),
            (
                refused(Some("SYS/PERM"), "Not enabled", false),
                "-ERR [SYS/PERM] Not enabled",
            ),
            // A temporary trouble is never reported as a wrong password.
            (refused(None, "Try later", false), "-ERR [SYS/TEMP] Try later"),
            (refused(Some("X]\r\n+OK "), "a\r\nb", true), "-ERR [X+OK] ab"),
            (
                refused(Some(""), "", true),
                "-ERR [AUTH] The mailbox's provider refused the login",
            ),
            (FaultKind::Malformed, "-ERR Malformed"),
            (FaultKind::LineTooLong, "-ERR The command line is too long"),
        ] {
            assert!(refusal(&kind).starts_with(expected), "{kind:?}: {}", refusal(&kind));
        }
    }

    #[test]
    fn the_text_behind_a_code_is_that_of_imap() {
        let text = |reply: &str| reply.split_once("] ").map(|(_, text)| text.to_owned());
        for kind in [
            FaultKind::UnknownCredentials,
            FaultKind::ForeignToken,
            FaultKind::ScopeMissing,
            FaultKind::AddressNotAllowed,
            FaultKind::TokenExpired,
            FaultKind::PlaintextRefused,
            FaultKind::AuthorizationGone,
            FaultKind::AppRefused,
            FaultKind::AccountDisabled,
            FaultKind::Unavailable,
            FaultKind::AccountLimit,
            FaultKind::ProxyLimit,
            FaultKind::TooManyFailures,
            refused(None, "", true),
        ] {
            assert_eq!(text(&refusal(&kind)), text(&imap::reply::refusal(&kind)), "{kind:?}");
        }
    }

    #[test]
    fn a_client_without_a_place_hears_of_the_limit() {
        assert_eq!(TOO_MANY_SESSIONS, format!("{}\r\n", refusal(&FaultKind::ProxyLimit)));
    }

    #[test]
    fn the_greeting_is_no_offer_of_apop() {
        assert!(GREETING.starts_with("+OK ") && GREETING.ends_with("\r\n") && !GREETING.contains(['<', '>']));
    }

    #[test]
    fn capabilities_tell_what_may_be_done_on_the_connection_as_it_is() {
        let told = |security, login| capabilities(Offer { security, login }, &[]);
        let (before, after) = (
            "+OK Capabilities follow\r\n",
            "RESP-CODES\r\nAUTH-RESP-CODE\r\nIMPLEMENTATION portreeve\r\n.\r\n",
        );
        for (security, login, between) in [
            (ClientSecurity::Secured, true, "USER\r\nSASL PLAIN LOGIN\r\n"),
            (ClientSecurity::StartTls, true, "USER\r\nSASL PLAIN LOGIN\r\nSTLS\r\n"),
            (ClientSecurity::StartTls, false, "STLS\r\n"),
            (ClientSecurity::Clear, false, ""),
        ] {
            assert_eq!(told(security, login), format!("{before}{between}{after}"));
            let listed = mechanisms(Offer { security, login });
            assert_eq!(listed.contains("\r\nPLAIN\r\nLOGIN\r\n"), login);
            assert!(listed.starts_with("+OK") && listed.ends_with("\r\n.\r\n"));
        }
    }

    #[test]
    fn what_is_promised_of_the_upstream_stands_before_the_implementation() {
        let promised = ["TOP", "UIDL", "UTF8", "X\r\n."].map(str::to_owned);
        let told = capabilities(Offer::SECURED, &promised);
        assert!(
            told.ends_with("AUTH-RESP-CODE\r\nTOP\r\nUIDL\r\nIMPLEMENTATION portreeve\r\n.\r\n"),
            "{told}"
        );
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/pop3_reply.txt"))]

        #[test]
        fn nothing_that_an_upstream_says_ends_the_line(
            code in prop::option::of("[\\x00-\\x7f]{0,10}"),
            text in "[\\x00-\\u{ff}]{0,20}",
            blames_credential: bool,
        ) {
            let reply = refusal(&refused(code.as_deref(), &text, blames_credential)).into_owned();
            prop_assert!(!reply.contains(char::is_control));
            prop_assert!(reply.starts_with("-ERR [") && reply.contains("] "));
        }

        #[test]
        fn no_account_id_ends_the_line(account in "[\\x00-\\u{ff}]{0,20}") {
            prop_assert_eq!(authenticated(&account).matches(['\r', '\n']).count(), 2);
        }
    }
}
