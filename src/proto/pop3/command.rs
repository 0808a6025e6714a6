//! The grammar of the commands that a client may send before its login (RFC 1939 §9, RFC 2449 §3, RFC 5034 §4, RFC 2595 §4).
//!
//! [`parse`] sees complete lines only, as [`crate::proto::framing`] cut them, so that "incomplete" is no case here.
//!
//! More is accepted than the grammar has where real clients need it and no meaning is in doubt: several spaces between
//! arguments, spaces at the end of a line, 8-bit characters in names and passwords, and lines beyond the 255 octets of
//! RFC 2449. How it fails: [`BadCommand`], with the reason for the client.

use nom::bytes::complete::{take_while, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, map, map_opt, opt, rest, verify};
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};
use zeroize::Zeroizing;

/// A command.
#[derive(PartialEq, Eq)]
pub enum Command {
    /// `CAPA`
    Capa,
    /// `USER`, with the name as it was sent.
    User(Vec<u8>),
    /// `PASS`, with the password as it was sent.
    Pass(Zeroizing<Vec<u8>>),
    /// `AUTH` without a mechanism: which are there? Older than RFC 5034, and still sent.
    Mechanisms,
    /// `AUTH` with a mechanism.
    Auth {
        /// The mechanism's name as it was sent.
        mechanism: Box<str>,
        /// The initial response in base64, or `=` (RFC 5034 §4).
        initial: Option<Zeroizing<Vec<u8>>>,
    },
    /// `STLS`
    Stls,
    /// `NOOP`, which RFC 1939 has after the login only; some clients keep a connection alive with it before.
    Noop,
    /// `QUIT`
    Quit,
    /// `APOP`, which no greeting of ours invites to.
    Apop,
    /// A command that has a meaning after the login only.
    AfterLogin,
}

/// What is no command: what is wrong with it, for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadCommand(pub &'static str);

/// Never shows a secret.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auth { mechanism, .. } => write!(f, "Auth({mechanism:?})"),
            Self::Capa => f.write_str("Capa"),
            Self::User(_) => f.write_str("User"),
            Self::Pass(_) => f.write_str("Pass"),
            Self::Mechanisms => f.write_str("Mechanisms"),
            Self::Stls => f.write_str("Stls"),
            Self::Noop => f.write_str("Noop"),
            Self::Quit => f.write_str("Quit"),
            Self::Apop => f.write_str("Apop"),
            Self::AfterLogin => f.write_str("AfterLogin"),
        }
    }
}

/// Reads a complete line, without its end.
///
/// # Errors
/// [`BadCommand`] if it is malformed or unknown.
pub fn parse(line: &[u8]) -> Result<Command, BadCommand> {
    let Ok((arguments, keyword)) = keyword(line) else {
        return Err(BadCommand("A command begins with a keyword"));
    };
    match keyword.to_ascii_uppercase().as_slice() {
        b"CAPA" => bare(arguments, Command::Capa, "CAPA takes no arguments"),
        b"USER" => whole(user, arguments, "USER takes a name"),
        b"PASS" => whole(pass, arguments, "PASS takes a password"),
        b"AUTH" => whole(auth, arguments, "AUTH takes a mechanism and an initial response"),
        b"STLS" => bare(arguments, Command::Stls, "STLS takes no arguments"),
        b"NOOP" => bare(arguments, Command::Noop, "NOOP takes no arguments"),
        b"QUIT" => bare(arguments, Command::Quit, "QUIT takes no arguments"),
        b"APOP" => Ok(Command::Apop),
        name if AFTER_LOGIN.contains(&name) => Ok(Command::AfterLogin),
        _ => Err(BadCommand("Unknown command")),
    }
}

/// Whether a line is to log in: USER, PASS, or AUTH with anything behind it. Its arguments are not looked at; its keyword is
/// read by the rule that [`parse`] reads it by, so that neither sees a login where the other sees none.
pub fn is_login(line: &[u8]) -> bool {
    let Ok((arguments, keyword)) = keyword(line) else {
        return false;
    };
    let is = |name: &[u8]| keyword.eq_ignore_ascii_case(name);
    is(b"USER") || is(b"PASS") || (is(b"AUTH") && !arguments.iter().all(|&byte| byte == b' '))
}

type Parsed<'a, T> = IResult<&'a [u8], T>;

fn bare(arguments: &[u8], command: Command, reason: &'static str) -> Result<Command, BadCommand> {
    whole(|input| Ok((input, ())), arguments, reason).map(|()| command)
}

/// Runs a rule over all the arguments.
fn whole<'a, T>(
    rule: impl Fn(&'a [u8]) -> Parsed<'a, T>,
    arguments: &'a [u8],
    reason: &'static str,
) -> Result<T, BadCommand> {
    match all_consuming(terminated(rule, space0)).parse(arguments) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(BadCommand(reason)),
    }
}

/// `keyword = 3*4VCHAR`; what extensions call themselves is as long as they like.
fn keyword(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(|byte: u8| byte.is_ascii_graphic()).parse(input)
}

/// The grammar knows no tabs.
fn space1(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(|byte| byte == b' ').parse(input)
}

fn space0(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(|byte| byte == b' ').parse(input)
}

/// `USER name`. Account ids may have spaces inside, but none at their ends.
fn user(input: &[u8]) -> Parsed<'_, Command> {
    let name = map(rest, without_trailing_spaces);
    map(
        preceded(space1, verify(name, |name: &[u8]| !name.is_empty())),
        |name: &[u8]| Command::User(name.to_vec()),
    )
    .parse(input)
}

fn without_trailing_spaces(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    name.get(..end).unwrap_or_default()
}

/// `PASS string`. All behind the first space is the password, other spaces included (RFC 1939 §7).
fn pass(input: &[u8]) -> Parsed<'_, Command> {
    map(
        preceded(char(' '), verify(rest, |password: &[u8]| !password.is_empty())),
        |password: &[u8]| Command::Pass(Zeroizing::new(password.to_vec())),
    )
    .parse(input)
}

/// `AUTH [mechanism [initial-response]]`
fn auth(input: &[u8]) -> Parsed<'_, Command> {
    let mechanism = map_opt(
        take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)),
        |name| std::str::from_utf8(name).ok().map(Box::from),
    );
    let initial = take_while1(|byte: u8| byte.is_ascii_graphic());
    let arguments = (preceded(space1, mechanism), opt(preceded(space1, initial)));
    map(opt(arguments), |arguments: Option<(Box<str>, Option<&[u8]>)>| {
        arguments.map_or(Command::Mechanisms, |(mechanism, initial)| Command::Auth {
            mechanism,
            initial: initial.map(|response| Zeroizing::new(response.to_vec())),
        })
    })
    .parse(input)
}

/// The commands of RFC 1939's transaction state, but for NOOP and QUIT.
const AFTER_LOGIN: &[&[u8]] = &[b"DELE", b"LIST", b"RETR", b"RSET", b"STAT", b"TOP", b"UIDL"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A parsed command in a notation that tests can be written in.
    fn shown(line: &[u8]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match parse(line) {
            Ok(Command::User(name)) => format!("user <{}>", text(&name)),
            Ok(Command::Pass(password)) => format!("pass <{}>", text(&password)),
            Ok(Command::Auth { mechanism, initial }) => {
                format!("auth {mechanism} {:?}", initial.map(|response| text(&response)))
            }
            Ok(command) => format!("{command:?}"),
            Err(BadCommand(reason)) => format!("bad: {reason}"),
        }
    }

    #[test]
    fn commands_are_known_in_any_case() {
        for (line, expected) in [
            ("CAPA", "Capa"),
            ("capa ", "Capa"),
            ("Stls", "Stls"),
            ("noop", "Noop"),
            ("quit  ", "Quit"),
            ("APOP joe c4c9334bac560ecc979e58001b3e22fb", "Apop"),
            ("STAT", "AfterLogin"),
            ("top 1 0", "AfterLogin"),
            ("NOOP x", "bad: NOOP takes no arguments"),
            ("STLS\0", "bad: STLS takes no arguments"),
            ("STLS now", "bad: STLS takes no arguments"),
            ("XTND XMIT", "bad: Unknown command"),
            ("GET / HTTP/1.1", "bad: Unknown command"),
            ("", "bad: A command begins with a keyword"),
            (" NOOP", "bad: A command begins with a keyword"),
            ("\u{e4}", "bad: A command begins with a keyword"),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_password_is_the_rest_of_its_line() {
        for (line, expected) in [
            ("USER joe", "user <joe>"),
            ("user  joe@example.com ", "user <joe@example.com>"),
            ("USER team inbox", "user <team inbox>"),
            ("USER jürgen", "user <jürgen>"),
            ("USER", "bad: USER takes a name"),
            ("USER  ", "bad: USER takes a name"),
            ("USER\tjoe", "bad: USER takes a name"),
            ("PASS secret", "pass <secret>"),
            ("PASS  se cret  ", "pass < se cret  >"),
            ("pass pässwörd", "pass <pässwörd>"),
            ("PASS  ", "pass < >"),
            ("PASS ", "bad: PASS takes a password"),
            ("PASS", "bad: PASS takes a password"),
            ("PASS\tx", "bad: PASS takes a password"),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn auth_takes_a_mechanism_and_perhaps_a_response() {
        let bad = "bad: AUTH takes a mechanism and an initial response";
        for (line, expected) in [
            ("AUTH", "Mechanisms"),
            ("auth ", "Mechanisms"),
            ("AUTH PLAIN", "auth PLAIN None"),
            ("auth plain AGEAYg==", "auth plain Some(\"AGEAYg==\")"),
            ("AUTH X-A_B =", "auth X-A_B Some(\"=\")"),
            ("AUTH PLAIN a b", bad),
            ("AUTH \"PLAIN\"", bad),
            ("AUTH\tPLAIN", bad),
        ] {
            assert_eq!(shown(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn a_login_is_known_by_its_begin() {
        for (line, expected) in [
            ("USER joe", true),
            ("user", true),
            ("Pass x", true),
            ("AUTH PLAIN", true),
            ("AUTH \"", true),
            ("AUTH", false),
            ("AUTH  ", false),
            ("USERX joe", false),
            (" USER joe", false),
            ("APOP joe x", false),
            ("NOOP", false),
        ] {
            assert_eq!(is_login(line.as_bytes()), expected, "{line:?}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        for line in ["PASS s3cret", "USER s3cret", "AUTH PLAIN s3cret"] {
            assert!(!format!("{:?}", parse(line.as_bytes())).contains("s3cret"), "{line}");
        }
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/pop3_command.txt"))]

        #[test]
        fn every_password_reads_back(password in "[^\\pC]{1,40}") {
            prop_assert_eq!(shown(format!("PASS {password}").as_bytes()), format!("pass <{password}>"));
        }

        #[test]
        fn any_bytes_are_a_command_or_bad(
            name in prop::sample::select(vec!["", "USER ", "PASS ", "AUTH ", "AUTH PLAIN ", "CAPA", "user", " "]),
            arguments in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b" \"=\r\n\t\0".to_vec())], 0..40),
        ) {
            let line = [name.as_bytes(), &arguments].concat();
            let login = is_login(&line);
            if let Ok(command) = parse(&line) {
                let logs_in = matches!(command, Command::User(_) | Command::Pass(_) | Command::Auth { .. });
                prop_assert_eq!(login, logs_in);
            }
        }
    }
}
