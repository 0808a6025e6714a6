//! What an SMTP client is told. The reply to every kind of fault is a total function of the kind ([`refusal`]); the codes are
//! part of the contract with users and their scripts (INTERFACE §5).
//!
//! All but the greeting and the answers to HELO and EHLO have an enhanced status code (RFC 2034 §4, RFC 3463). What may not
//! live here: deciding whether to refuse. No reply names an internal address, path or error.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;

use super::command::BadCommand;
use super::extensions;
use crate::fault::{FaultKind, UpstreamRefusal};
use crate::proto::named;
use crate::proto::session::{Goodbye, Offer};

/// The reply to a login refused for `kind`, without line end: `535 5.7.8 …`. The codes are those of RFC 4954 §6.
pub fn refusal(kind: &FaultKind) -> Cow<'static, str> {
    Cow::Borrowed(match kind {
        FaultKind::UnknownCredentials => "535 5.7.8 Access denied, failed to authenticate user",
        FaultKind::ForeignToken => "535 5.7.8 Access denied, invalid username",
        FaultKind::ScopeMissing => "535 5.7.8 Access denied, invalid scope",
        FaultKind::AddressNotAllowed => "535 5.7.8 Access denied, traffic not accepted from this IP",
        FaultKind::TokenExpired => "535 5.7.8 Access denied, token has expired",
        FaultKind::PlaintextRefused => "538 5.7.11 Logging in without TLS is not allowed here",
        FaultKind::AuthorizationGone => "535 5.7.8 Mailbox authorization has expired, authorize the account again",
        FaultKind::AppRefused => "535 5.7.8 The proxy's OAuth application is refused, tell the administrator",
        FaultKind::AccountDisabled => "535 5.7.8 The account is disabled, tell the administrator",
        FaultKind::ProtocolNotOffered => "535 5.7.8 The account's provider does not offer SMTP",
        FaultKind::Unavailable | FaultKind::Internal => {
            "454 4.7.0 The mailbox cannot be reached for now, try again later"
        }
        FaultKind::AccountLimit => "454 4.7.0 The account has too many sessions, close another one",
        FaultKind::ProxyLimit => "454 4.7.0 The proxy has too many sessions, try again later",
        FaultKind::UpstreamRefused(refusal) => return Cow::Owned(upstream_refusal(refusal)),
        FaultKind::Malformed => "500 5.5.2 Malformed command",
        FaultKind::TooManyBadCommands => "500 5.5.1 Too many bad commands",
        FaultKind::TooManyCommands => "503 5.5.1 Too many commands before a login",
        FaultKind::TooManyFailures => "535 5.7.8 Too many failed logins",
        // SMTP has no literals.
        FaultKind::LineTooLong | FaultKind::LiteralTooLong => "500 5.5.2 The command line is too long",
        FaultKind::StartTlsInjection => "503 5.5.1 Nothing may follow STARTTLS in clear",
        FaultKind::PreAuthTimeout => "454 4.7.0 The login took too long",
        FaultKind::ClientGone => "454 4.7.0 The connection is closing",
    })
}

/// The farewell, line end included, of a session that ends for `kind` before its login.
pub fn farewell(kind: &FaultKind) -> &'static str {
    match kind {
        FaultKind::TooManyBadCommands => "421 4.7.0 Too many bad commands\r\n",
        FaultKind::TooManyCommands => "421 4.7.0 Too many commands before a login\r\n",
        FaultKind::TooManyFailures => "421 4.7.0 Too many failed logins\r\n",
        FaultKind::LineTooLong | FaultKind::LiteralTooLong => "421 4.7.0 The command line is too long\r\n",
        FaultKind::StartTlsInjection => "421 4.7.0 Nothing may follow STARTTLS in clear\r\n",
        FaultKind::PreAuthTimeout => "421 4.4.2 Disconnected for inactivity during login\r\n",
        FaultKind::AccountLimit | FaultKind::ProxyLimit => "421 4.7.0 Too many sessions, try again later\r\n",
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
        | FaultKind::Internal => "421 4.3.0 The session is closed\r\n",
    }
}

/// The farewell to a session that did nothing wrong.
pub fn goodbye(goodbye: Goodbye) -> Bytes {
    Bytes::from_static(match goodbye {
        Goodbye::TokenDeleted => b"421 4.7.0 The access token was revoked\r\n",
        Goodbye::AccountDeleted => b"421 4.7.0 The account was removed or disabled\r\n",
        Goodbye::ClosedByAdmin => b"421 4.3.2 The session was closed by the administrator\r\n",
        Goodbye::ShuttingDown => b"421 4.3.2 The proxy is shutting down\r\n",
        Goodbye::Idle => b"421 4.4.2 Disconnected for inactivity\r\n",
        Goodbye::GaveWay => b"421 4.7.0 Too many sessions, and this one has not logged in\r\n",
    })
}

/// The reply to what is no command, without line end.
pub fn bad_command(bad: BadCommand) -> Cow<'static, str> {
    match bad {
        BadCommand::Nameless => Cow::Borrowed("500 5.5.2 A line begins with a command's name"),
        BadCommand::Unknown => Cow::Borrowed("500 5.5.1 Unknown command"),
        BadCommand::Arguments(reason) => Cow::Owned(format!("501 5.5.4 {reason}")),
    }
}

/// The greeting (RFC 5321 §4.2, RFC 6409 §3.1).
pub fn greeting(hostname: &str) -> String {
    format!("220 {hostname} ESMTP Portreeve ready\r\n")
}

/// The answer to HELO.
pub fn helo(hostname: &str) -> String {
    format!("250 {hostname}\r\n")
}

/// The answer to EHLO (RFC 5321 §4.1.1.1): what is promised of the upstream, then what the proxy itself does. OAUTHBEARER and
/// XOAUTH2 are accepted but not told, so that password-only programs are not led astray.
pub fn ehlo(hostname: &str, remote: IpAddr, offer: Offer, promised: &[String]) -> String {
    let mut lines = vec![match remote {
        // RFC 5321 §4.1.3.
        IpAddr::V4(remote) => format!("{hostname} greets [{remote}]"),
        IpAddr::V6(remote) => format!("{hostname} greets [IPv6:{remote}]"),
    }];
    // Whoever made the list, nothing goes out that this proxy would break.
    lines.extend(
        promised
            .iter()
            .filter(|line| extensions::may_be_promised(line))
            .cloned(),
    );
    if offer.has_starttls() {
        lines.push("STARTTLS".to_owned());
    }
    if offer.login {
        lines.push("AUTH PLAIN LOGIN".to_owned());
    }
    let last = lines.len() - 1;
    let numbered = lines.iter().enumerate().map(|(number, line)| {
        let separator = if number == last { ' ' } else { '-' };
        format!("250{separator}{line}\r\n")
    });
    numbered.collect()
}

/// The reply to a login that succeeded: `235 2.7.0 example authenticated`.
pub fn authenticated(account: &str) -> String {
    let account = named(account);
    format!("235 2.7.0 {account} authenticated\r\n")
}

/// The upstream's own words. They come cleaned; what could end the line, or is no code of a failure, is dropped here again, so
/// that this function is safe by itself. An upstream that gives no enhanced code is lent one, since the client may have been
/// promised them.
fn upstream_refusal(refusal: &UpstreamRefusal) -> String {
    let given = refusal.code.as_deref().and_then(ReplyCode::of);
    let code = given.unwrap_or(if refusal.blames_credential { REFUSED } else { TRY_LATER });
    let text: String = refusal
        .text
        .chars()
        .filter(|&character| character.is_ascii_graphic() || character == ' ')
        .take(REPLY_TEXT_BYTES_MAX)
        .collect();
    match text.trim() {
        "" => format!("{code} The mailbox's provider refused the login"),
        text => format!("{code} {text}"),
    }
}

/// The code of a failure, with its enhanced status code: `535 5.7.139`.
#[derive(Debug, Clone, Copy)]
struct ReplyCode<'a> {
    basic: &'a str,
    enhanced: &'a str,
}

/// An upstream refused the credential, and did not say how.
const REFUSED: ReplyCode<'_> = ReplyCode {
    basic: "535",
    enhanced: "5.7.8",
};

/// Something is amiss that may pass.
const TRY_LATER: ReplyCode<'_> = ReplyCode {
    basic: "454",
    enhanced: "4.7.0",
};

impl<'a> ReplyCode<'a> {
    /// The code that an upstream gave. `None` if it is not that of a failure.
    fn of(code: &'a str) -> Option<Self> {
        let (basic, enhanced) = match code.split_once(' ') {
            Some((basic, enhanced)) => (basic, Some(enhanced)),
            None => (code, None),
        };
        let class = basic.chars().next().filter(|class| matches!(class, '4' | '5'))?;
        if basic.len() != BASIC_DIGITS || !basic.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // The upstream closes behind a 421 (RFC 5321 §3.8), and this connection stays.
        let basic = if basic == "421" { TRY_LATER.basic } else { basic };
        let lent = match (basic, class) {
            ("535", _) => REFUSED.enhanced,
            (_, '4') => TRY_LATER.enhanced,
            _ => "5.7.0",
        };
        let enhanced = enhanced.filter(|enhanced| is_enhanced(enhanced, class)).unwrap_or(lent);
        Some(Self { basic, enhanced })
    }
}

impl std::fmt::Display for ReplyCode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.basic, self.enhanced)
    }
}

/// `class "." subject "." detail`, each of at most three digits (RFC 3463 §2), of the class that the reply's code has.
fn is_enhanced(code: &str, class: char) -> bool {
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = code.split('.');
    let (Some(given), Some(subject), Some(detail), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    given.chars().eq([class]) && is_number(subject) && is_number(detail)
}

const BASIC_DIGITS: usize = 3;

/// A reply line has at most 512 octets with its code and end (RFC 5321 §4.5.3.1.5).
const REPLY_TEXT_BYTES_MAX: usize = 512 - "535 5.777.777 \r\n".len();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
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
    fn every_row_of_the_table_has_its_literal_code() {
        for (kind, expected) in [
            (
                FaultKind::UnknownCredentials,
                "535 5.7.8 Access denied, failed to authenticate user",
            ),
            (FaultKind::ForeignToken, "535 5.7.8 Access denied, invalid username"),
            (FaultKind::ScopeMissing, "535 5.7.8 Access denied, invalid scope"),
            (
                FaultKind::AddressNotAllowed,
                "535 5.7.8 Access denied, traffic not accepted from this IP",
            ),
            (FaultKind::TokenExpired, "535 5.7.8 Access denied, token has expired"),
            (
                FaultKind::PlaintextRefused,
                "538 5.7.11 Logging in without TLS is not allowed here",
            ),
            (
                FaultKind::AuthorizationGone,
                "535 5.7.8 Mailbox authorization has expired, authorize the account again",
            ),
            (
                FaultKind::AppRefused,
                "535 5.7.8 The proxy's OAuth application is refused, tell the administrator",
            ),
            (
                FaultKind::AccountDisabled,
                "535 5.7.8 The account is disabled, tell the administrator",
            ),
            (
                FaultKind::ProtocolNotOffered,
                "535 5.7.8 The account's provider does not offer SMTP",
            ),
            (
                FaultKind::Unavailable,
                "454 4.7.0 The mailbox cannot be reached for now, try again later",
            ),
            (
                FaultKind::AccountLimit,
                "454 4.7.0 The account has too many sessions, close another one",
            ),
            (
                FaultKind::ProxyLimit,
                "454 4.7.0 The proxy has too many sessions, try again later",
            ),
            (FaultKind::Malformed, "500 5.5.2 Malformed command"),
            (FaultKind::LineTooLong, "500 5.5.2 The command line is too long"),
        ] {
            assert_eq!(refusal(&kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn an_upstream_is_quoted_as_far_as_it_makes_a_reply() {
        for (code, text, blames_credential, expected) in [
            (
                Some("535 5.7.139"),
                "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
                false,
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
            ),
            (Some("535 5.7.3"), "Unsuccessful", true, "535 5.7.3 Unsuccessful"),
            (Some("454 4.7.0"), "Too many", false, "454 4.7.0 Too many"),
            (Some("432 4.7.12"), "Change it", false, "432 4.7.12 Change it"),
            // The code is lent.
            (Some("535"), "Bad", true, "535 5.7.8 Bad"),
            (Some("534"), "Weak", true, "534 5.7.0 Weak"),
            (Some("454"), "Later", false, "454 4.7.0 Later"),
            (None, "Bad", true, "535 5.7.8 Bad"),
            (None, "Later", false, "454 4.7.0 Later"),
            (Some("535 4.7.0"), "Of two classes", true, "535 5.7.8 Of two classes"),
            // The client's connection does not close.
            (Some("421 4.7.66"), "Busy", false, "454 4.7.66 Busy"),
            (Some("421"), "Busy", false, "454 4.7.0 Busy"),
            // No failures.
            (Some("235 2.7.0"), "Come in", true, "535 5.7.8 Come in"),
            (
                Some("334"),
                "",
                false,
                "454 4.7.0 The mailbox's provider refused the login",
            ),
            (Some("5355"), "x", false, "454 4.7.0 x"),
            (Some(""), "x", true, "535 5.7.8 x"),
            (Some("535 5.7.8\r\n235"), "x", true, "535 5.7.8 x"),
            (Some("535 5.7.8"), "a\r\n235 b\u{fc}\u{85}", true, "535 5.7.8 a235 b"),
        ] {
            assert_eq!(
                refusal(&refused(code, text, blames_credential)),
                expected,
                "{code:?} {text:?}"
            );
        }
    }

    #[test]
    fn what_is_no_command_has_its_code() {
        for (bad, expected) in [
            (BadCommand::Nameless, "500 5.5.2 A line begins with a command's name"),
            (BadCommand::Unknown, "500 5.5.1 Unknown command"),
            (
                BadCommand::Arguments("VRFY takes a name"),
                "501 5.5.4 VRFY takes a name",
            ),
        ] {
            assert_eq!(bad_command(bad), expected);
        }
    }

    #[test]
    fn ehlo_tells_what_may_be_done() {
        let remote: IpAddr = "127.0.0.1".parse().unwrap();
        let promised: Vec<String> = [
            "SIZE 1000",
            "STARTTLS",
            "AUTH CRAM-MD5",
            "8BITMIME",
            "BURL imap",
            "XCLIENT ADDR",
        ]
        .map(str::to_owned)
        .into();
        for (security, login, promised, expected) in [
            (
                ClientSecurity::Clear,
                false,
                &[][..],
                "250 p.example greets [127.0.0.1]\r\n",
            ),
            (
                ClientSecurity::Secured,
                true,
                &promised,
                "250-p.example greets [127.0.0.1]\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN\r\n",
            ),
            (
                ClientSecurity::StartTls,
                false,
                &[],
                "250-p.example greets [127.0.0.1]\r\n250 STARTTLS\r\n",
            ),
            (
                ClientSecurity::StartTls,
                true,
                &[],
                "250-p.example greets [127.0.0.1]\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n",
            ),
        ] {
            assert_eq!(ehlo("p.example", remote, Offer { security, login }, promised), expected);
        }
        assert!(ehlo("p", "::1".parse().unwrap(), OPEN, &[]).starts_with("250-p greets [IPv6:::1]\r\n"));
    }

    #[test]
    fn every_farewell_is_one_line_of_421() {
        let goodbyes = [
            Goodbye::TokenDeleted,
            Goodbye::AccountDeleted,
            Goodbye::ClosedByAdmin,
            Goodbye::ShuttingDown,
            Goodbye::Idle,
            Goodbye::GaveWay,
        ];
        let farewells = [
            FaultKind::TooManyBadCommands,
            FaultKind::TooManyCommands,
            FaultKind::TooManyFailures,
            FaultKind::LineTooLong,
            FaultKind::StartTlsInjection,
            FaultKind::PreAuthTimeout,
            FaultKind::ProxyLimit,
            FaultKind::Unavailable,
        ];
        let goodbyes = goodbyes.map(goodbye);
        let farewells = farewells.iter().map(|kind| farewell(kind).as_bytes());
        for line in farewells.chain(goodbyes.iter().map(|goodbye| &goodbye[..])) {
            let line = std::str::from_utf8(line).unwrap();
            assert!(
                line.starts_with("421 4.") && line.ends_with("\r\n") && line.lines().count() == 1,
                "{line}"
            );
        }
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/smtp_reply.txt"))]

        #[test]
        fn nothing_that_an_upstream_says_makes_more_than_one_line_of_a_failure(
            code in prop::option::of("([2-5][0-9]{2}( [2-5]\\.[0-9]\\.[0-9]{1,3})?)|[\\x00-\\x7f]{0,10}"),
            text in "[\\x00-\\u{ff}]{0,20}|x{600}",
            blames_credential: bool,
        ) {
            let reply = refusal(&refused(code.as_deref(), &text, blames_credential)).into_owned();
            prop_assert!(reply.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert!(reply.starts_with(['4', '5']) && !reply.starts_with("421") && reply.len() <= 510);
            let enhanced = reply.split(' ').nth(1).unwrap();
            prop_assert!(is_enhanced(enhanced, reply.chars().next().unwrap()));
        }

        #[test]
        fn no_account_id_ends_the_line(account in "[\\x00-\\u{ff}]{0,20}") {
            prop_assert_eq!(authenticated(&account).matches(['\r', '\n']).count(), 2);
        }
    }
}
