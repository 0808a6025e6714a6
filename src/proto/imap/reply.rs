//! What an IMAP client is told. The reply to every kind of fault is a total function of the kind ([`refusal`]); the texts are
//! part of the contract with users and their scripts.
//!
//! What may not live here: deciding whether to refuse. No reply names an internal address, path or error.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;

use super::command::Tag;
use super::promise::NAMES;
use crate::fault::{FaultKind, UpstreamRefusal};
use crate::proto::named;
use crate::proto::session::{Goodbye, Offer};

/// The tagged reply to a login refused for `kind`, without tag and line end: `NO [EXPIRED] …`. Codes are those of RFC 5530.
pub fn refusal(kind: &FaultKind) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        FaultKind::UnknownCredentials => "NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user",
        FaultKind::ForeignToken => "NO [AUTHENTICATIONFAILED] Access denied, invalid username",
        FaultKind::ScopeMissing => "NO [AUTHENTICATIONFAILED] Access denied, invalid scope",
        FaultKind::AddressNotAllowed => "NO [AUTHENTICATIONFAILED] Access denied, traffic not accepted from this IP",
        FaultKind::TokenExpired => "NO [EXPIRED] Access denied, token has expired",
        FaultKind::PlaintextRefused => "NO [PRIVACYREQUIRED] Logging in without TLS is not allowed here",
        FaultKind::AuthorizationGone => {
            "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again"
        }
        FaultKind::AppRefused => "NO [CONTACTADMIN] The proxy's OAuth application is refused, tell the administrator",
        FaultKind::AccountDisabled => "NO [CONTACTADMIN] The account is disabled, tell the administrator",
        FaultKind::ProtocolNotOffered => "NO [CONTACTADMIN] The account's provider does not offer IMAP",
        FaultKind::Unavailable | FaultKind::Internal => {
            "NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later"
        }
        FaultKind::AccountLimit => "NO [LIMIT] The account has too many sessions, close another one",
        FaultKind::ProxyLimit => "NO [LIMIT] The proxy has too many sessions, try again later",
        FaultKind::UpstreamRefused(refusal) => return Cow::Owned(upstream_refusal(refusal)),
        FaultKind::Malformed => "BAD Malformed command",
        FaultKind::TooManyBadCommands => "BAD Too many bad commands",
        FaultKind::TooManyCommands => "BAD Too many commands before a login",
        FaultKind::TooManyFailures => "NO [AUTHENTICATIONFAILED] Too many failed logins",
        FaultKind::LineTooLong => "BAD The command line is too long",
        FaultKind::LiteralTooLong => "NO [TOOBIG] The literal is too large",
        FaultKind::StartTlsInjection => "BAD Nothing may follow STARTTLS in clear",
        FaultKind::PreAuthTimeout => "NO [UNAVAILABLE] The login took too long",
        FaultKind::ClientGone => "NO [UNAVAILABLE] The connection is closing",
    })
}

/// The farewell, line end included, of a session that ends for `kind` before its login.
pub fn farewell(kind: &FaultKind) -> &'static str {
    match kind {
        FaultKind::TooManyBadCommands => "* BYE Too many bad commands\r\n",
        FaultKind::TooManyCommands => "* BYE Too many commands before a login\r\n",
        FaultKind::TooManyFailures => "* BYE Too many failed logins\r\n",
        FaultKind::LineTooLong => "* BYE The command line is too long\r\n",
        FaultKind::LiteralTooLong => "* BYE The literal is too large\r\n",
        FaultKind::StartTlsInjection => "* BYE Nothing may follow STARTTLS in clear\r\n",
        FaultKind::PreAuthTimeout => "* BYE Disconnected for inactivity during login\r\n",
        FaultKind::AccountLimit | FaultKind::ProxyLimit => "* BYE [LIMIT] Too many sessions, try again later\r\n",
        FaultKind::UnknownCredentials
        | FaultKind::ForeignToken
        | FaultKind::ScopeMissing
        | FaultKind::AddressNotAllowed
        | FaultKind::TokenExpired
        | FaultKind::PlaintextRefused
        | FaultKind::AuthorizationGone
        | FaultKind::AppRefused
        | FaultKind::AccountDisabled
        | FaultKind::ProtocolNotOffered
        | FaultKind::Unavailable
        | FaultKind::UpstreamRefused(_)
        | FaultKind::Malformed
        | FaultKind::ClientGone
        | FaultKind::Internal => "* BYE The session is closed\r\n",
    }
}

/// The farewell to a session that did nothing wrong.
pub fn goodbye(goodbye: Goodbye) -> Bytes {
    Bytes::from_static(match goodbye {
        Goodbye::TokenDeleted => b"* BYE The access token was revoked\r\n",
        Goodbye::AccountDeleted => b"* BYE The account was removed or disabled\r\n",
        Goodbye::ClosedByAdmin => b"* BYE The session was closed by the administrator\r\n",
        Goodbye::ShuttingDown => b"* BYE The proxy is shutting down\r\n",
        Goodbye::Idle => b"* BYE Disconnected for inactivity\r\n",
        Goodbye::GaveWay => b"* BYE [LIMIT] Too many sessions, and this one has not logged in\r\n",
    })
}

/// The greeting (RFC 9051 §7.1.1), with what [`capabilities`] tells.
pub fn greeting(offer: Offer, promised: &[String], remote: IpAddr) -> String {
    let capabilities = capabilities(offer, promised);
    format!("* OK [CAPABILITY {capabilities}] Portreeve IMAP proxy ready for requests from {remote}\r\n")
}

/// The capabilities before login. `LITERAL-` because a literal is bounded; OAUTHBEARER and XOAUTH2 are accepted but not told,
/// so that password-only programs are not led astray. Behind what the proxy does stands what is promised of the upstream: some
/// clients look for IDLE here and nowhere else.
pub fn capabilities(offer: Offer, promised: &[String]) -> String {
    let own = match (offer.has_starttls(), offer.login) {
        (false, true) => "IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN",
        (false, false) => "IMAP4rev1 LITERAL- SASL-IR ID LOGINDISABLED",
        (true, true) => "IMAP4rev1 LITERAL- SASL-IR ID STARTTLS AUTH=PLAIN AUTH=LOGIN",
        (true, false) => "IMAP4rev1 LITERAL- SASL-IR ID STARTTLS LOGINDISABLED",
    };
    // Whoever made the list, nothing goes out that this proxy would break.
    let promised = promised.iter().map(String::as_str).filter(|name| NAMES.contains(name));
    std::iter::once(own).chain(promised).collect::<Vec<_>>().join(" ")
}

/// The proxy's own identity (RFC 2971).
pub fn identity() -> &'static str {
    concat!(
        "* ID (\"name\" \"portreeve\" \"version\" \"",
        env!("CARGO_PKG_VERSION"),
        "\")\r\n"
    )
}

/// The reply to a login that succeeded: `A OK example authenticated`.
pub fn authenticated(tag: Option<&Tag>, account: &str) -> String {
    let account = named(account);
    format!("{} OK {account} authenticated\r\n", tag.map_or("*", Tag::as_str))
}

/// A response of the upstream's that the client is to see, without its `* `. It comes cleaned; what could end the line is
/// dropped here again.
pub fn untagged(said: &str) -> String {
    let said: String = said.chars().filter(|character| !character.is_control()).collect();
    format!("* {said}\r\n")
}

/// The upstream's own words. They come cleaned; what could end the line or the code is dropped here again, so that this
/// function is safe by itself.
fn upstream_refusal(refusal: &UpstreamRefusal) -> String {
    let is_code = |character: char| character.is_ascii_graphic() && character != ']' && character != '[';
    let code: String = refusal
        .code
        .iter()
        .flat_map(|code| code.chars())
        .filter(|&c| is_code(c) || c == ' ')
        .collect();
    let code = match code.trim() {
        "" if refusal.blames_credential => "AUTHENTICATIONFAILED",
        "" => "UNAVAILABLE",
        code => code,
    };
    let text: String = refusal
        .text
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    match text.trim() {
        "" => format!("NO [{code}] The mailbox's provider refused the login"),
        text => format!("NO [{code}] {text}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::imap::command;
    use crate::proto::session::ClientSecurity;

    const OPEN: Offer = Offer {
        security: ClientSecurity::Clear,
        login: true,
    };

    fn refused(code: Option<&str>, text: &str, blames_credential: bool) -> FaultKind {
        FaultKind::UpstreamRefused(UpstreamRefusal {
            code: code.map(str::to_owned),
            text: text.to_owned(),
            blames_credential,
        })
    }

    #[test]
    fn every_row_of_the_table_has_its_literal_reply() {
        for (kind, expected) in [
            (
                FaultKind::UnknownCredentials,
                "NO [AUTHENTICATIONFAILED] Access denied, failed to authenticate user",
            ),
            (
                FaultKind::ForeignToken,
                "NO [AUTHENTICATIONFAILED] Access denied, invalid username",
            ),
            (
                FaultKind::ScopeMissing,
                "NO [AUTHENTICATIONFAILED] Access denied, invalid scope",
            ),
            (
                FaultKind::AddressNotAllowed,
                "NO [AUTHENTICATIONFAILED] Access denied, traffic not accepted from this IP",
            ),
            (FaultKind::TokenExpired, "NO [EXPIRED] Access denied, token has expired"),
            (
                FaultKind::AuthorizationGone,
                "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again",
            ),
            (
                FaultKind::AppRefused,
                "NO [CONTACTADMIN] The proxy's OAuth application is refused, tell the administrator",
            ),
            (
                refused(Some("AUTHENTICATIONFAILED"), "Invalid credentials (Failure)", true),
                "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)",
            ),
            (
                refused(None, "AUTHENTICATE failed.", true),
                "NO [AUTHENTICATIONFAILED] AUTHENTICATE failed.",
            ),
            (refused(Some("LIMIT"), "Too many", false), "NO [LIMIT] Too many"),
            // A temporary trouble is never reported as a wrong password.
            (refused(None, "Try later", false), "NO [UNAVAILABLE] Try later"),
            (refused(Some("X]\r\nA OK"), "a\r\nb", true), "NO [XA OK] ab"),
            (
                refused(Some(""), "", true),
                "NO [AUTHENTICATIONFAILED] The mailbox's provider refused the login",
            ),
        ] {
            assert_eq!(refusal(&kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn every_row_whose_text_is_free_has_its_literal_code() {
        for (kind, expected) in [
            (FaultKind::PlaintextRefused, "NO [PRIVACYREQUIRED] "),
            (FaultKind::AccountDisabled, "NO [CONTACTADMIN] "),
            (FaultKind::ProtocolNotOffered, "NO [CONTACTADMIN] "),
            (FaultKind::Unavailable, "NO [UNAVAILABLE] "),
            (FaultKind::Internal, "NO [UNAVAILABLE] "),
            (FaultKind::AccountLimit, "NO [LIMIT] "),
            (FaultKind::ProxyLimit, "NO [LIMIT] "),
            (FaultKind::Malformed, "BAD "),
            (FaultKind::LineTooLong, "BAD "),
            (FaultKind::LiteralTooLong, "NO [TOOBIG] "),
        ] {
            assert!(refusal(&kind).starts_with(expected), "{kind:?}: {}", refusal(&kind));
        }
    }

    #[test]
    fn no_account_id_reads_as_a_response_code() {
        let reply = |account| {
            authenticated(
                command::parse(b"A NOOP").ok().map(|command| command.tag).as_ref(),
                account,
            )
        };
        assert_eq!(reply("[x"), "A OK \"[x\" authenticated\r\n");
        assert_eq!(reply("[ALERT] x"), "A OK \"[ALERT] x\" authenticated\r\n");
        assert_eq!(reply("x[y]"), "A OK x[y] authenticated\r\n");
        assert_eq!(reply("\r[x"), "A OK \"[x\" authenticated\r\n");
        assert_eq!(
            crate::proto::pop3::reply::authenticated("[AUTH] x"),
            "+OK \"[AUTH] x\" authenticated\r\n"
        );
    }

    #[test]
    fn the_greeting_is_that_of_the_contract() {
        assert_eq!(
            greeting(OPEN, &[], "127.0.0.1".parse().unwrap()),
            "* OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN] \
             Portreeve IMAP proxy ready for requests from 127.0.0.1\r\n"
        );
        let disabled = greeting(Offer { login: false, ..OPEN }, &[], "::1".parse().unwrap());
        assert!(disabled.contains("LOGINDISABLED") && !disabled.contains("AUTH="));
        assert!(disabled.ends_with("from ::1\r\n"));
    }

    #[test]
    fn what_is_promised_of_the_upstream_comes_behind_what_the_proxy_does() {
        let promised = ["IDLE", "MOVE", "COMPRESS=DEFLATE", "X] \r\n"].map(str::to_owned);
        assert_eq!(
            capabilities(OPEN, &promised),
            "IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN IDLE MOVE"
        );
        let told = greeting(OPEN, &promised, "127.0.0.1".parse().unwrap());
        assert!(told.starts_with("* OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN IDLE MOVE] P"));
    }

    #[test]
    fn every_farewell_is_one_bye_line() {
        let goodbyes = [
            Goodbye::TokenDeleted,
            Goodbye::AccountDeleted,
            Goodbye::ClosedByAdmin,
            Goodbye::ShuttingDown,
            Goodbye::Idle,
            Goodbye::GaveWay,
        ];
        for line in goodbyes.map(goodbye) {
            let line = std::str::from_utf8(&line).unwrap();
            assert!(
                line.starts_with("* BYE ") && line.ends_with("\r\n") && line.lines().count() == 1,
                "{line}"
            );
        }
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/imap_reply.txt"))]

        #[test]
        fn nothing_that_an_upstream_says_ends_the_line(
            code in prop::option::of("[\\x00-\\x7f]{0,10}"),
            text in "[\\x00-\\u{ff}]{0,20}",
            blames_credential: bool,
        ) {
            let reply = refusal(&refused(code.as_deref(), &text, blames_credential)).into_owned();
            prop_assert!(!reply.contains(char::is_control));
            prop_assert!(reply.starts_with("NO [") && reply.contains("] "));
        }

        #[test]
        fn no_alert_ends_the_line(said in "[\\x00-\\u{ff}]{0,20}") {
            prop_assert_eq!(untagged(&said).matches(['\r', '\n']).count(), 2);
        }

        #[test]
        fn no_account_id_ends_the_line(account in "[\\x00-\\u{ff}]{0,20}") {
            let reply = authenticated(None, &account);
            prop_assert_eq!(reply.matches(['\r', '\n']).count(), 2);
        }
    }
}
