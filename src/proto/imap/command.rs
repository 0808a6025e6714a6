//! The grammar of the commands that a client may send before its login (RFC 9051 §9, RFC 3501 §9, RFC 2971, RFC 4959).
//!
//! [`parse`] sees complete commands only, as [`crate::proto::framing`] cut them, so that "incomplete" is no case here. No rule
//! calls itself: however deep a client nests its parentheses, the parser's stack does not grow.
//!
//! More is accepted than the grammar has where real clients need it and no meaning is in doubt: atoms with any visible
//! characters in LOGIN, 8-bit characters in atoms and quoted strings, several spaces between arguments and spaces at the
//! end. How it fails: [`BadCommand`], with the tag where there is one, and the reason for the client.

use std::borrow::Cow;

use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take, take_while, take_while1};
use nom::character::complete::{char, digit1, line_ending, one_of};
use nom::combinator::{all_consuming, eof, map, map_opt, opt, peek, recognize, value, verify};
use nom::multi::{fold_many0, many0, many0_count};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};
use zeroize::Zeroizing;

use crate::limits::{ID_FIELD_BYTES_MAX, ID_PAIRS_MAX, ID_VALUE_BYTES_MAX};
use crate::proto::dialogue::ClientIdentity;

/// A command and the tag that its reply carries.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The client's tag.
    pub tag: Tag,
    /// What is asked for.
    pub body: Body,
}

/// A command's tag: visible ASCII, free of what the grammar forbids there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(Box<str>);

/// A command without its tag.
#[derive(PartialEq, Eq)]
pub enum Body {
    /// `CAPABILITY`
    Capability,
    /// `NOOP`
    Noop,
    /// `LOGOUT`
    Logout,
    /// `STARTTLS`
    StartTls,
    /// `ID`; without pairs where the client said `NIL`, or nothing that could be used.
    Id(ClientIdentity),
    /// `LOGIN`
    Login {
        /// The user name as it was sent.
        user: Zeroizing<Vec<u8>>,
        /// The password as it was sent.
        secret: Zeroizing<Vec<u8>>,
    },
    /// `AUTHENTICATE`
    Authenticate {
        /// The mechanism's name as it was sent.
        mechanism: Box<str>,
        /// The initial response in base64, or `=` (RFC 4959 §3).
        initial: Option<Zeroizing<Vec<u8>>>,
    },
    /// A command that has a meaning after the login only.
    AfterLogin,
}

/// What is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCommand {
    /// The tag, if there is a valid one.
    pub tag: Option<Tag>,
    /// What is wrong, for the client.
    pub reason: &'static str,
}

impl Tag {
    /// The tag's characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Never shows a secret.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(identity) => f.debug_tuple("Id").field(identity).finish(),
            Self::Authenticate { mechanism, .. } => write!(f, "Authenticate({mechanism:?})"),
            Self::Capability => f.write_str("Capability"),
            Self::Noop => f.write_str("Noop"),
            Self::Logout => f.write_str("Logout"),
            Self::StartTls => f.write_str("StartTls"),
            Self::Login { .. } => f.write_str("Login"),
            Self::AfterLogin => f.write_str("AfterLogin"),
        }
    }
}

/// Reads a complete command, without its line's end.
///
/// # Errors
/// [`BadCommand`] if it is malformed or unknown.
pub fn parse(frame: &[u8]) -> Result<Command, BadCommand> {
    let Ok((rest, tag)) = command_tag(frame) else {
        return Err(BadCommand {
            tag: None,
            reason: "A command begins with a tag",
        });
    };
    match body(rest) {
        Ok(body) => Ok(Command { tag, body }),
        Err(reason) => Err(BadCommand { tag: Some(tag), reason }),
    }
}

/// The tag of a command of which only the begin is known.
pub fn tag_of(begin: &[u8]) -> Option<Tag> {
    terminated(command_tag, space1).parse(begin).ok().map(|(_, tag)| tag)
}

/// The tag of a command of which only the begin is known, if it is to log in. Its arguments are not looked at; its name is read
/// by the rule that [`parse`] reads it by, so that neither sees a login where the other sees none.
pub fn login_tag_of(begin: &[u8]) -> Option<Tag> {
    let (_, (tag, name)) = (command_tag, command_name).parse(begin).ok()?;
    let logs_in = name.eq_ignore_ascii_case(b"LOGIN") || name.eq_ignore_ascii_case(b"AUTHENTICATE");
    logs_in.then_some(tag)
}

/// Whether a command that begins so is an `ID`.
pub fn is_identity(begin: &[u8]) -> bool {
    let parsed: Parsed<'_, _> = (command_tag, command_name).parse(begin);
    parsed.is_ok_and(|(_, (_, name))| name.eq_ignore_ascii_case(b"ID"))
}

type Parsed<'a, T> = IResult<&'a [u8], T>;

fn body(input: &[u8]) -> Result<Body, &'static str> {
    let Ok((arguments, name)) = command_name(input) else {
        return Err("A command is missing behind the tag");
    };
    let name = name.to_ascii_uppercase();
    match name.as_slice() {
        b"CAPABILITY" => bare(arguments, Body::Capability, "CAPABILITY takes no arguments"),
        b"NOOP" => bare(arguments, Body::Noop, "NOOP takes no arguments"),
        b"LOGOUT" => bare(arguments, Body::Logout, "LOGOUT takes no arguments"),
        b"STARTTLS" => bare(arguments, Body::StartTls, "STARTTLS takes no arguments"),
        b"ID" => identity(arguments).ok_or("ID takes NIL or a list of fields and values"),
        b"LOGIN" => whole(login, arguments, "LOGIN takes a user name and a password"),
        b"AUTHENTICATE" => whole(
            authenticate,
            arguments,
            "AUTHENTICATE takes a mechanism and an initial response",
        ),
        name if AFTER_LOGIN.contains(&name) => Ok(Body::AfterLogin),
        _ => Err("Unknown command"),
    }
}

fn bare(arguments: &[u8], body: Body, reason: &'static str) -> Result<Body, &'static str> {
    whole(|input| Ok((input, ())), arguments, reason).map(|()| body)
}

/// Runs a rule over all the arguments.
fn whole<'a, T>(
    rule: impl Fn(&'a [u8]) -> Parsed<'a, T>,
    arguments: &'a [u8],
    reason: &'static str,
) -> Result<T, &'static str> {
    match all_consuming(terminated(rule, space0)).parse(arguments) {
        Ok((_, parsed)) => Ok(parsed),
        Err(_) => Err(reason),
    }
}

/// `tag = 1*<any ASTRING-CHAR except "+">`
fn command_tag(input: &[u8]) -> Parsed<'_, Tag> {
    let is_tag = |byte: u8| byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(&byte);
    map_opt(take_while1(is_tag), |tag| {
        std::str::from_utf8(tag).ok().map(|tag| Tag(tag.into()))
    })
    .parse(input)
}

/// A command's name, and the space before it.
fn command_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    preceded(space1, atom_name).parse(input)
}

/// The grammar knows no tabs.
fn space1(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(|byte| byte == b' ').parse(input)
}

fn space0(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(|byte| byte == b' ').parse(input)
}

/// A command's or mechanism's name.
fn atom_name(input: &[u8]) -> Parsed<'_, &[u8]> {
    take_while1(|byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)).parse(input)
}

/// `login = "LOGIN" SP userid SP password`
fn login(input: &[u8]) -> Parsed<'_, Body> {
    map(
        (preceded(space1, astring), preceded(space1, astring)),
        |(user, secret)| Body::Login { user, secret },
    )
    .parse(input)
}

/// `authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp]`
fn authenticate(input: &[u8]) -> Parsed<'_, Body> {
    let mechanism = map_opt(atom_name, |name| std::str::from_utf8(name).ok().map(Box::from));
    let initial = take_while1(|byte: u8| byte.is_ascii_graphic());
    map(
        (preceded(space1, mechanism), opt(preceded(space1, initial))),
        |(mechanism, initial)| Body::Authenticate {
            mechanism,
            initial: initial.map(|response: &[u8]| Zeroizing::new(response.to_vec())),
        },
    )
    .parse(input)
}

/// `id = "ID" SP ("(" [field SP value *(SP field SP value)] ")" / "NIL")` (RFC 2971 §4), and whatever else programs send: no
/// argument at all, tabs between the strings, a backslash that escapes nothing, a string too many, more or longer ones than
/// allowed, controls. What is odd is dropped, and so is what stands after a place that cannot be read: a client that cannot
/// say who it is may log in all the same. `None`: not even a list.
fn identity(arguments: &[u8]) -> Option<Body> {
    let arguments = arguments.trim_ascii();
    if arguments.is_empty() || arguments.eq_ignore_ascii_case(b"NIL") {
        return Some(Body::Id(ClientIdentity::default()));
    }
    let list = arguments.strip_prefix(b"(")?.strip_suffix(b")")?;
    let strings = many0(id_string)
        .parse(list)
        .map_or_else(|_| Vec::new(), |(_, strings)| strings);
    let pairs = strings.chunks_exact(2).filter_map(|pair| match pair {
        [IdString::Text(field), value] => {
            let field = fitting(field, ID_FIELD_BYTES_MAX)?;
            match value {
                IdString::Nil => Some((field, None)),
                IdString::Text(value) => Some((field, Some(fitting(value, ID_VALUE_BYTES_MAX)?))),
            }
        }
        _ => None,
    });
    let pairs = pairs.take(ID_PAIRS_MAX).collect();
    Some(Body::Id(ClientIdentity { pairs }))
}

/// A string in the list of an `ID`.
#[derive(Debug, Clone)]
enum IdString {
    Nil,
    Text(Vec<u8>),
}

fn id_string(input: &[u8]) -> Parsed<'_, IdString> {
    let white = take_while(|byte: u8| byte.is_ascii_whitespace());
    let bare = take_while1(|byte: u8| byte > b' ' && byte != 0x7f && !b"(){\"".contains(&byte));
    let text = alt((
        lenient_quoted,
        map(literal, |text| text.to_vec()),
        map(bare, |text: &[u8]| text.to_vec()),
    ));
    let nil = terminated(tag_no_case("NIL"), peek(alt((recognize(one_of(" \t")), eof))));
    preceded(white, alt((value(IdString::Nil, nil), map(text, IdString::Text)))).parse(input)
}

/// A quoted string in which a backslash that escapes nothing is itself.
fn lenient_quoted(input: &[u8]) -> Parsed<'_, Vec<u8>> {
    let plain = take_while1(|byte: u8| !b"\"\\".contains(&byte));
    let escaped = preceded(char('\\'), recognize(one_of("\"\\")));
    let piece = alt((plain, escaped, tag("\\")));
    let text = fold_many0(piece, Vec::new, |mut text, piece: &[u8]| {
        text.extend_from_slice(piece);
        text
    });
    delimited(char('"'), text, char('"')).parse(input)
}

/// What may be told to others: of at most `bytes_max`, free of controls.
fn fitting(text: &[u8], bytes_max: usize) -> Option<String> {
    let is_fit = text.len() <= bytes_max && !text.iter().any(u8::is_ascii_control);
    is_fit.then(|| String::from_utf8_lossy(text).into_owned())
}

/// `astring`, and besides atoms of any visible or 8-bit characters.
fn astring(input: &[u8]) -> Parsed<'_, Zeroizing<Vec<u8>>> {
    alt((quoted, literal, map(atom, |atom| Zeroizing::new(atom.to_vec())))).parse(input)
}

fn atom(input: &[u8]) -> Parsed<'_, &[u8]> {
    let visible = take_while1(|byte: u8| byte > b' ' && byte != 0x7f);
    verify(visible, |atom: &[u8]| {
        !atom.starts_with(b"\"") && !atom.starts_with(b"{")
    })
    .parse(input)
}

/// `DQUOTE *QUOTED-CHAR DQUOTE`; a backslash escapes only itself and the quote.
fn quoted(input: &[u8]) -> Parsed<'_, Zeroizing<Vec<u8>>> {
    let plain = take_while1(|byte: u8| !b"\"\\\r\n\0".contains(&byte));
    let escaped = recognize((char('\\'), one_of("\"\\")));
    let text = recognize(many0_count(alt((plain, escaped))));
    map(delimited(char('"'), text, char('"')), |text: &[u8]| {
        Zeroizing::new(unescape(text).into_owned())
    })
    .parse(input)
}

/// Takes the backslashes away that escape what follows them.
fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    // As much room as can be needed: a buffer that grew would leave parts of a secret behind.
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        plain.extend(if byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    Cow::Owned(plain)
}

/// `"{" number ["+"] "}" CRLF *CHAR8`; framing has seen to it that the bytes are there.
fn literal(input: &[u8]) -> Parsed<'_, Zeroizing<Vec<u8>>> {
    let size = map_opt(digit1, |digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let (rest, size) = terminated(delimited(char('{'), size, (opt(char('+')), char('}'))), line_ending).parse(input)?;
    map(take(size), |text: &[u8]| Zeroizing::new(text.to_vec())).parse(rest)
}

/// The commands of RFC 9051 §6.3 and §6.4, RFC 3501, and the extensions that clients use right after a login.
const AFTER_LOGIN: &[&[u8]] = &[
    b"APPEND",
    b"CHECK",
    b"CLOSE",
    b"COMPRESS",
    b"COPY",
    b"CREATE",
    b"DELETE",
    b"DELETEACL",
    b"ENABLE",
    b"EXAMINE",
    b"EXPUNGE",
    b"FETCH",
    b"GETACL",
    b"GETANNOTATION",
    b"GETMETADATA",
    b"GETQUOTA",
    b"GETQUOTAROOT",
    b"IDLE",
    b"LIST",
    b"LISTRIGHTS",
    b"LSUB",
    b"MOVE",
    b"MYRIGHTS",
    b"NAMESPACE",
    b"NOTIFY",
    b"RENAME",
    b"SEARCH",
    b"SELECT",
    b"SETACL",
    b"SETMETADATA",
    b"SETQUOTA",
    b"SORT",
    b"STATUS",
    b"STORE",
    b"SUBSCRIBE",
    b"THREAD",
    b"UID",
    b"UNAUTHENTICATE",
    b"UNSELECT",
    b"UNSUBSCRIBE",
    b"XLIST",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A parsed command in a notation that tests can be written in.
    fn shown(frame: &[u8]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match parse(frame) {
            Ok(Command { tag, body }) => {
                let body = match body {
                    Body::Login { user, secret } => format!("login <{}> <{}>", text(&user), text(&secret)),
                    Body::Authenticate { mechanism, initial } => {
                        format!("authenticate {mechanism} {:?}", initial.map(|response| text(&response)))
                    }
                    Body::Id(identity) => format!("id {:?}", identity.pairs),
                    body => format!("{body:?}"),
                };
                format!("{} {body}", tag.as_str())
            }
            Err(BadCommand { tag, reason }) => format!("{} bad: {reason}", tag.as_ref().map_or("*", Tag::as_str)),
        }
    }

    #[test]
    fn commands_without_arguments_are_known_in_any_case() {
        for (frame, expected) in [
            ("A CAPABILITY", "A Capability"),
            ("a.1 noop", "a.1 Noop"),
            ("A]-~ LogOut ", "A]-~ Logout"),
            ("0 starttls", "0 StartTls"),
            ("A  NOOP", "A Noop"),
            ("A SELECT INBOX", "A AfterLogin"),
            ("A uid fetch 1:* (FLAGS)", "A AfterLogin"),
            ("A NOOP x", "A bad: NOOP takes no arguments"),
            ("A XYZZY", "A bad: Unknown command"),
            ("A NOOP\0", "A bad: NOOP takes no arguments"),
            ("A", "A bad: A command is missing behind the tag"),
            ("A ", "A bad: A command is missing behind the tag"),
            ("A (", "A bad: A command is missing behind the tag"),
            ("", "* bad: A command begins with a tag"),
            (" NOOP", "* bad: A command begins with a tag"),
            ("+ NOOP", "* bad: A command begins with a tag"),
            ("* NOOP", "* bad: A command begins with a tag"),
            ("\u{e4} NOOP", "* bad: A command begins with a tag"),
            ("GET / HTTP/1.1", "GET bad: A command is missing behind the tag"),
        ] {
            assert_eq!(shown(frame.as_bytes()), expected, "{frame:?}");
        }
    }

    #[test]
    fn login_takes_atoms_quoted_strings_and_literals() {
        for (frame, expected) in [
            ("A LOGIN joe secret", "A login <joe> <secret>"),
            (
                "A login joe@example.com a%b*c(d)",
                "A login <joe@example.com> <a%b*c(d)>",
            ),
            (r#"A LOGIN "joe" "se cret""#, "A login <joe> <se cret>"),
            (r#"A LOGIN "a\"b\\c" """#, r#"A login <a"b\c> <>"#),
            ("A LOGIN {3}\r\njoe {6+}\r\nsecret", "A login <joe> <secret>"),
            ("A LOGIN {3+}\njoe \"x\" ", "A login <joe> <x>"),
            ("A LOGIN {0}\r\n {4}\r\na\r\nb", "A login <> <a\r\nb>"),
            ("A LOGIN \"jürgen\" {2}\r\nü", "A login <jürgen> <ü>"),
            ("A LOGIN jürgen x", "A login <jürgen> <x>"),
            ("A LOGIN ü ü", "A login <ü> <ü>"),
        ] {
            assert_eq!(shown(frame.as_bytes()), expected, "{frame:?}");
        }
    }

    #[test]
    fn a_malformed_login_is_bad() {
        for arguments in [
            "",
            " ",
            " joe",
            " joe ",
            " joe secret x",
            " \"joe secret",
            r#" "a\b" x"#,
            " \"a\"b",
            " \"a\rb\" c",
            " \"a\0\" c",
            " {3}\r\njoe",
            "\tjoe x",
            " joe\tx",
            " {3joe x",
            " {3}joe x",
            "\tjoe x\u{7f}",
            " joe {2}\r\nx",
        ] {
            let frame = format!("A LOGIN{arguments}");
            assert_eq!(
                shown(frame.as_bytes()),
                "A bad: LOGIN takes a user name and a password",
                "{frame:?}"
            );
        }
    }

    #[test]
    fn authenticate_takes_a_mechanism_and_perhaps_a_response() {
        let bad = "A bad: AUTHENTICATE takes a mechanism and an initial response";
        for (frame, expected) in [
            ("A AUTHENTICATE PLAIN", "A authenticate PLAIN None"),
            (
                "A authenticate plain AGEAYg==",
                "A authenticate plain Some(\"AGEAYg==\")",
            ),
            ("A AUTHENTICATE X-A_B =", "A authenticate X-A_B Some(\"=\")"),
            ("A AUTHENTICATE", bad),
            ("A AUTHENTICATE PLAIN a b", bad),
            ("A AUTHENTICATE \"PLAIN\"", bad),
        ] {
            assert_eq!(shown(frame.as_bytes()), expected, "{frame:?}");
        }
    }

    #[test]
    fn id_takes_nil_or_bounded_pairs_and_drops_what_is_odd() {
        let bad = "A bad: ID takes NIL or a list of fields and values";
        let kept = r#"A id [("a", Some("b"))]"#;
        let pairs = |count: usize| format!("A ID ({})", vec![r#""k" "v""#; count].join(" "));
        for (frame, expected) in [
            ("A ID NIL".to_owned(), "A id []".to_owned()),
            ("A ID nil".into(), "A id []".into()),
            ("A ID ()".into(), "A id []".into()),
            (
                r#"A ID ("name" "Mutt \"2\"" "os" NIL)"#.into(),
                r#"A id [("name", Some("Mutt \"2\"")), ("os", None)]"#.into(),
            ),
            (
                "A ID ({4}\r\nname {7+}\r\nOutlook)".into(),
                r#"A id [("name", Some("Outlook"))]"#.into(),
            ),
            (pairs(30), format!("A id {:?}", vec![("k", Some("v")); 30])),
            (pairs(40), format!("A id {:?}", vec![("k", Some("v")); 30])),
            (format!("A ID (\"{}\" NIL \"a\" \"b\")", "k".repeat(31)), kept.into()),
            (
                format!("A ID (\"k\" \"{}\" \"a\" \"b\")", "v".repeat(1025)),
                kept.into(),
            ),
            ("A ID (\"k\" {2}\r\n\r\n \"a\" \"b\")".into(), kept.into()),
            ("A ID (\"a\" \"b\" \"k\")".into(), kept.into()),
            ("A ID (\"k\")".into(), "A id []".into()),
            ("A ID".into(), "A id []".into()),
            ("A ID ".into(), "A id []".into()),
            ("A ID (NIL \"v\" \"a\" \"b\")".into(), kept.into()),
            ("A ID (\"k\" \"v\tw\" \"a\"\t\"b\")".into(), kept.into()),
            ("A ID\t(\"a\" \"b\" )".into(), kept.into()),
            ("A ID (a b)".into(), kept.into()),
            ("A ID (\"a\"\"b\")".into(), kept.into()),
            (
                r#"A ID ("os" "C:\Windows\\x")"#.into(),
                r#"A id [("os", Some("C:\\Windows\\x"))]"#.into(),
            ),
            // After a place that cannot be read nothing is.
            (r#"A ID ("a" "b" "k" "C:\")"#.into(), kept.into()),
            (r#"A ID ("a" "b" ("k" "v"))"#.into(), kept.into()),
            (
                r#"A ID ("NILS" NILS)"#.into(),
                r#"A id [("NILS", Some("NILS"))]"#.into(),
            ),
            ("A ID (\"k\" \"v\"".into(), bad.into()),
            ("A ID \"k\" \"v\"".into(), bad.into()),
            ("A ID x".into(), bad.into()),
            (format!("A ID {}", "(".repeat(8000)), bad.into()),
            (format!("A ID ({}", "\"a\" (".repeat(1000)), bad.into()),
        ] {
            assert_eq!(shown(frame.as_bytes()), expected, "{frame:?}");
        }
    }

    #[test]
    fn an_identity_is_known_by_its_begin() {
        for (begin, expected) in [
            ("A ID (\"x", true),
            ("A id", true),
            ("A IDLE", false),
            ("A LOGIN ID", false),
            ("ID x", false),
            ("A", false),
        ] {
            assert_eq!(is_identity(begin.as_bytes()), expected, "{begin}");
        }
    }

    #[test]
    fn a_login_is_known_by_its_begin() {
        for (begin, expected) in [
            ("A LOGIN joe {8}", Some("A")),
            ("b authenticate PLAIN", Some("b")),
            ("A LOGINX joe", None),
            ("A LOGIN", Some("A")),
            ("A LOGIN\tjoe", Some("A")),
            ("A\tLOGIN joe", None),
            ("A NOOP", None),
            ("LOGIN joe x", None),
        ] {
            assert_eq!(
                login_tag_of(begin.as_bytes()).as_ref().map(Tag::as_str),
                expected,
                "{begin}"
            );
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        for frame in ["A LOGIN joe s3cret", "A AUTHENTICATE PLAIN s3cret"] {
            assert!(!format!("{:?}", parse(frame.as_bytes())).contains("s3cret"), "{frame}");
        }
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/imap_command.txt"))]

        #[test]
        fn every_form_of_login_reads_back(user in "[^\\pC]{1,30}", secret in "[^\\pC]{0,30}", form in 0..4_u8) {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let literal = |text: &str| format!("{{{}}}\r\n{text}", text.len());
            let frame = match form {
                0 => format!("A LOGIN {} {}", quote(&user), quote(&secret)),
                1 => format!("A LOGIN {} {}", literal(&user), literal(&secret)),
                2 => format!("A LOGIN {} {}", quote(&user), literal(&secret)),
                _ => format!("A LOGIN {} {}", literal(&user), quote(&secret)),
            };
            prop_assert_eq!(shown(frame.as_bytes()), format!("A login <{user}> <{secret}>"));
        }

        #[test]
        fn any_bytes_are_a_command_or_bad(
            name in prop::sample::select(vec!["", "A ", "A LOGIN ", "A AUTHENTICATE ", "A ID (", "A LOGIN \"", "A NOOP"]),
            arguments in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b" \"\\{}()\r\n1\t".to_vec())], 0..40),
        ) {
            let frame = [name.as_bytes(), &arguments].concat();
            let login = login_tag_of(&frame);
            if let Ok(Command { tag, body }) = parse(&frame) {
                prop_assert!(frame.starts_with(tag.as_str().as_bytes()));
                let logs_in = matches!(body, Body::Login { .. } | Body::Authenticate { .. });
                prop_assert_eq!(login, logs_in.then_some(tag));
            }
        }
    }
}
