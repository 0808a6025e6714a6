//! The grammar of the commands that a client may send before its login (RFC 5321 §4.1, RFC 4954 §4, RFC 3030 §2).
//!
//! [`parse`] sees complete lines only, as [`crate::proto::framing`] cut them, so that "incomplete" is no case here. White space
//! at the end of a line is nothing (RFC 5321 §4.1.1). What a command that needs a login says behind its name is not looked at,
//! except for the size of a BDAT, whose octets follow without waiting for leave.
//!
//! How it fails: [`BadCommand`], with the reason for the client.

use nom::bytes::complete::{tag_no_case, take_while, take_while_m_n, take_while1};
use nom::character::complete::digit1;
use nom::combinator::{all_consuming, map, map_opt, opt};
use nom::sequence::preceded;
use nom::{IResult, Parser};
use zeroize::Zeroizing;

/// A command.
#[derive(PartialEq, Eq)]
pub enum Command {
    /// `EHLO`. The client's name for itself is of no use: upstreams hear the proxy's.
    Ehlo,
    /// `HELO`
    Helo,
    /// `NOOP`
    Noop,
    /// `RSET`
    Rset,
    /// `QUIT`
    Quit,
    /// `HELP`
    Help,
    /// `VRFY`
    Vrfy,
    /// `STARTTLS`
    StartTls,
    /// `AUTH`
    Auth {
        /// The mechanism's name as it was sent.
        mechanism: Box<str>,
        /// The initial response in base64, or `=` (RFC 4954 §4).
        initial: Option<Zeroizing<Vec<u8>>>,
    },
    /// `BDAT`, which needs a login, and behind which so many octets stand that are no commands (RFC 3030 §2). A size too large
    /// for the machine counts as the largest.
    Chunk {
        /// Octets behind the line.
        octets: u64,
    },
    /// A command that needs a login.
    AfterLogin,
    /// A command that RFC 5321 knows and that this proxy does not carry out.
    Unimplemented,
}

/// What is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadCommand {
    /// The line does not begin with a name.
    Nameless,
    /// The name is unknown.
    Unknown,
    /// The arguments are wrong, in the words for the client.
    Arguments(&'static str),
}

/// Never shows a secret.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auth { mechanism, .. } => write!(f, "Auth({mechanism:?})"),
            Self::Chunk { octets } => write!(f, "Chunk({octets})"),
            Self::Ehlo => f.write_str("Ehlo"),
            Self::Helo => f.write_str("Helo"),
            Self::Noop => f.write_str("Noop"),
            Self::Rset => f.write_str("Rset"),
            Self::Quit => f.write_str("Quit"),
            Self::Help => f.write_str("Help"),
            Self::Vrfy => f.write_str("Vrfy"),
            Self::StartTls => f.write_str("StartTls"),
            Self::AfterLogin => f.write_str("AfterLogin"),
            Self::Unimplemented => f.write_str("Unimplemented"),
        }
    }
}

/// Reads a complete command line, without its end.
///
/// # Errors
/// [`BadCommand`] if it is malformed or unknown.
pub fn parse(line: &[u8]) -> Result<Command, BadCommand> {
    let (name, arguments) = name_and_arguments(line).ok_or(BadCommand::Nameless)?;
    match name.to_ascii_uppercase().as_slice() {
        b"EHLO" => given(arguments, Command::Ehlo, "EHLO takes the name of the client"),
        b"HELO" => given(arguments, Command::Helo, "HELO takes the name of the client"),
        // RFC 5321 §4.1.1.8 and §4.1.1.9: a parameter is of no effect.
        b"HELP" => Ok(Command::Help),
        b"NOOP" => Ok(Command::Noop),
        b"RSET" => bare(arguments, Command::Rset, "RSET takes no parameters"),
        b"QUIT" => bare(arguments, Command::Quit, "QUIT takes no parameters"),
        b"VRFY" => given(arguments, Command::Vrfy, "VRFY takes a name"),
        b"STARTTLS" => bare(arguments, Command::StartTls, "STARTTLS takes no parameters"),
        b"AUTH" => whole(auth, arguments, "AUTH takes a mechanism and an initial response"),
        b"BDAT" => whole(chunk, arguments, "BDAT takes a size, and LAST"),
        b"MAIL" | b"RCPT" | b"DATA" | b"BURL" => Ok(Command::AfterLogin),
        b"EXPN" | b"ETRN" | b"TURN" | b"ATRN" | b"SEND" | b"SOML" | b"SAML" => Ok(Command::Unimplemented),
        _ => Err(BadCommand::Unknown),
    }
}

/// Whether the line is to log in. Its arguments are not looked at; its name is read by the rule that [`parse`] reads it by, so
/// that neither sees a login where the other sees none.
pub fn is_auth(line: &[u8]) -> bool {
    name_and_arguments(line).is_some_and(|(name, _)| name.eq_ignore_ascii_case(b"AUTH"))
}

type Parsed<'a, T> = IResult<&'a [u8], T>;

/// The name, and what follows with the space before it.
fn name_and_arguments(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = without_white_space_at_end(line);
    let name: Parsed<'_, &[u8]> = take_while1(|byte| byte != b' ').parse(line);
    let (arguments, name) = name.ok()?;
    Some((name, arguments))
}

fn without_white_space_at_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
    end.and_then(|end| line.get(..=end)).unwrap_or_default()
}

fn bare(arguments: &[u8], command: Command, reason: &'static str) -> Result<Command, BadCommand> {
    arguments
        .is_empty()
        .then_some(command)
        .ok_or(BadCommand::Arguments(reason))
}

fn given(arguments: &[u8], command: Command, reason: &'static str) -> Result<Command, BadCommand> {
    (!arguments.is_empty())
        .then_some(command)
        .ok_or(BadCommand::Arguments(reason))
}

/// Runs a rule over all the arguments.
fn whole<'a>(
    rule: impl Parser<&'a [u8], Output = Command, Error = nom::error::Error<&'a [u8]>>,
    arguments: &'a [u8],
    reason: &'static str,
) -> Result<Command, BadCommand> {
    match all_consuming(rule).parse(arguments) {
        Ok((_, command)) => Ok(command),
        Err(_) => Err(BadCommand::Arguments(reason)),
    }
}

fn space1(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(|byte| byte == b' ').parse(input)
}

/// `"AUTH" SP sasl-mech [SP initial-response]` (RFC 4954 §8); a mechanism's name has at most 20 characters (RFC 4422 §3.1).
fn auth(input: &[u8]) -> Parsed<'_, Command> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let mechanism = map_opt(take_while_m_n(1, MECHANISM_BYTES_MAX, is_name), |name| {
        std::str::from_utf8(name).ok().map(Box::from)
    });
    let initial = take_while1(|byte: u8| byte.is_ascii_graphic());
    map(
        (preceded(space1, mechanism), opt(preceded(space1, initial))),
        |(mechanism, initial)| Command::Auth {
            mechanism,
            initial: initial.map(|response: &[u8]| Zeroizing::new(response.to_vec())),
        },
    )
    .parse(input)
}

/// `"BDAT" SP chunk-size [SP end-marker]` (RFC 3030 §2).
fn chunk(input: &[u8]) -> Parsed<'_, Command> {
    let octets = map(digit1, |digits: &[u8]| {
        digits.iter().fold(0_u64, |size, digit| {
            size.saturating_mul(10).saturating_add(u64::from(digit - b'0'))
        })
    });
    let last = (space1, tag_no_case("LAST"), take_while(|byte| byte == b' '));
    map((preceded(space1, octets), opt(last)), |(octets, _)| Command::Chunk {
        octets,
    })
    .parse(input)
}

const MECHANISM_BYTES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::testing::proptest_config;

    /// A line in a notation that tests can be written in.
    fn shown(line: &[u8]) -> String {
        match parse(line) {
            Ok(Command::Auth { mechanism, initial }) => {
                let initial = initial.map(|response| String::from_utf8_lossy(&response).into_owned());
                format!("auth {mechanism} {initial:?}")
            }
            Ok(command) => format!("{command:?}"),
            Err(BadCommand::Arguments(reason)) => format!("bad: {reason}"),
            Err(bad) => format!("{bad:?}"),
        }
    }

    #[test]
    fn commands_are_known_in_any_case_and_with_white_space_at_their_end() {
        for (line, expected) in [
            ("EHLO client.example", "Ehlo"),
            ("ehlo [IPv6:::1]", "Ehlo"),
            ("EHLO j\u{fc}rgens pc", "Ehlo"),
            ("Helo x \t", "Helo"),
            ("NOOP", "Noop"),
            ("noop whatever", "Noop"),
            ("RSET  ", "Rset"),
            ("QUIT", "Quit"),
            ("HELP", "Help"),
            ("HELP MAIL", "Help"),
            ("VRFY joe", "Vrfy"),
            ("StartTLS", "StartTls"),
            ("MAIL FROM:<a@b> SIZE=5", "AfterLogin"),
            ("rcpt TO:<a@b>", "AfterLogin"),
            ("DATA", "AfterLogin"),
            ("BURL imap://x LAST", "AfterLogin"),
            ("BDAT 5", "Chunk(5)"),
            ("bdat 0 last", "Chunk(0)"),
            ("BDAT 99999999999999999999999 LAST ", "Chunk(18446744073709551615)"),
            ("EXPN list", "Unimplemented"),
            ("ETRN x", "Unimplemented"),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_command_is_told_apart() {
        for (line, expected) in [
            ("", "Nameless"),
            (" ", "Nameless"),
            (" NOOP", "Nameless"),
            ("XYZZY", "Unknown"),
            ("NOOP\0", "Unknown"),
            ("AUTH=LOGIN", "Unknown"),
            ("AUTH\tPLAIN", "Unknown"),
            ("\u{e4}", "Unknown"),
            ("POST / HTTP/1.1", "Unknown"),
            ("EHLO", "bad: EHLO takes the name of the client"),
            ("EHLO ", "bad: EHLO takes the name of the client"),
            ("HELO", "bad: HELO takes the name of the client"),
            ("VRFY", "bad: VRFY takes a name"),
            ("STARTTLS now", "bad: STARTTLS takes no parameters"),
            ("RSET x", "bad: RSET takes no parameters"),
            ("QUIT x", "bad: QUIT takes no parameters"),
            ("BDAT", "bad: BDAT takes a size, and LAST"),
            ("BDAT -1", "bad: BDAT takes a size, and LAST"),
            ("BDAT 5LAST", "bad: BDAT takes a size, and LAST"),
            ("BDAT 5 FIRST", "bad: BDAT takes a size, and LAST"),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn auth_takes_a_mechanism_and_an_initial_response() {
        for (line, expected) in [
            ("AUTH PLAIN", "auth PLAIN None"),
            ("auth plain AGpvZQB0b2s=", "auth plain Some(\"AGpvZQB0b2s=\")"),
            ("AUTH  LOGIN  am9l ", "auth LOGIN Some(\"am9l\")"),
            ("AUTH XOAUTH2 =", "auth XOAUTH2 Some(\"=\")"),
            ("AUTH SCRAM-SHA-256-PLUS n", "auth SCRAM-SHA-256-PLUS Some(\"n\")"),
            (
                "AUTH PLAIN \u{fc}",
                "bad: AUTH takes a mechanism and an initial response",
            ),
            ("AUTH PLAIN a b", "bad: AUTH takes a mechanism and an initial response"),
            ("AUTH", "bad: AUTH takes a mechanism and an initial response"),
            (
                "AUTH ABCDEFGHIJKLMNOPQRSTU",
                "bad: AUTH takes a mechanism and an initial response",
            ),
            ("AUTH PL/AIN", "bad: AUTH takes a mechanism and an initial response"),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let command = parse(b"AUTH PLAIN 5ecret").unwrap();
        assert_eq!(format!("{command:?}"), "Auth(\"PLAIN\")");
    }

    proptest! {
        #![proptest_config(proptest_config("proptest-regressions/smtp_command.txt"))]

        #[test]
        fn any_line_is_parsed_or_refused_and_a_login_is_known_before_its_arguments(
            line in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..64),
                "(AUTH|auth|BDAT|EHLO|DATA)[ \\t]{0,2}[ -~]{0,30}".prop_map(String::into_bytes),
            ],
        ) {
            let parsed = parse(&line);
            if matches!(parsed, Ok(Command::Auth { .. })) {
                prop_assert!(is_auth(&line));
            } else if is_auth(&line) {
                prop_assert!(matches!(parsed, Err(BadCommand::Arguments(_))));
            }
        }
    }
}
