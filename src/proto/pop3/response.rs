//! Replies of an upstream around its login: one line each (RFC 1939 §3), but for the list that follows CAPA.
//!
//! [`ReplyFramer`] cuts lines out of the stream and bounds them; [`Response::parse`] runs on complete lines only. Both know
//! no state of a login. A stream that is too long is an error; a line that is not complete yet is not.

use bytes::Bytes;
use memchr::{memchr, memchr2};
use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, eof, map, opt, peek, rest};
use nom::sequence::{delimited, pair, preceded, terminated};
use nom::{IResult, Parser};

use crate::limits::{UPSTREAM_LINE_BYTES_MAX, UPSTREAM_LOGIN_BYTES_MAX};
use crate::proto::Mechanism;
use crate::proto::framing::{Frame, FrameLimits, Framer, LineTooLong};

/// Cuts what an upstream sends into lines.
#[derive(Debug)]
pub(super) struct ReplyFramer {
    framer: Framer,
    /// Bytes of all lines that were cut out.
    taken: usize,
}

/// Why a stream cannot be cut any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooLong {
    /// See [`UPSTREAM_LINE_BYTES_MAX`].
    #[error("a line is longer than {UPSTREAM_LINE_BYTES_MAX} bytes")]
    Line,
    /// See [`UPSTREAM_LOGIN_BYTES_MAX`].
    #[error("more than {UPSTREAM_LOGIN_BYTES_MAX} bytes were sent before the login was done")]
    Login,
}

impl ReplyFramer {
    /// Adds what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.framer.push(bytes);
    }

    /// The next complete line without its end, or `None` until more arrives.
    pub(super) fn next_line(&mut self) -> Result<Option<Frame>, TooLong> {
        match self.framer.poll_line() {
            None => Ok(None),
            Some(Err(LineTooLong)) => Err(TooLong::Line),
            Some(Ok(line)) => {
                self.taken += line.as_bytes().len() + LINE_END_BYTES;
                match self.taken {
                    0..=UPSTREAM_LOGIN_BYTES_MAX => Ok(Some(line)),
                    _ => Err(TooLong::Login),
                }
            }
        }
    }

    /// Whether nothing is buffered.
    pub(super) fn is_empty(&self) -> bool {
        self.framer.buffered() == 0
    }

    /// Everything behind the lines that were cut out.
    pub(super) fn take_surplus(&mut self) -> Bytes {
        std::mem::take(self).framer.into_rest()
    }
}

impl Default for ReplyFramer {
    fn default() -> Self {
        Self {
            framer: Framer::new(FrameLimits {
                line_bytes_max: UPSTREAM_LINE_BYTES_MAX,
                literal_bytes_max: 0,
            }),
            taken: 0,
        }
    }
}

/// One status indicator (RFC 1939 §3), or a continuation (RFC 5034 §4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// `+OK`, with whatever follows it.
    Ok(&'a [u8]),
    /// `-ERR`
    Err(Refused<'a>),
    /// `+`, with whatever follows it.
    Continuation(&'a [u8]),
}

/// An `-ERR`'s content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused<'a> {
    /// The response code (RFC 2449 §8), as in `SYS/TEMP`.
    pub(super) code: Option<&'a [u8]>,
    pub(super) text: &'a [u8],
}

impl<'a> Response<'a> {
    /// Parses a complete line; `None` if it has none of the forms.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        // A control character that ends a line for somebody is there to be misread.
        if memchr2(b'\r', b'\n', line).is_some() || memchr(0, line).is_some() {
            return None;
        }
        let ok = map(preceded((tag("+OK"), indicator_end), rest), Self::Ok);
        let err = map(preceded((tag("-ERR"), indicator_end), refused), Self::Err);
        let continuation = map(preceded((char('+'), indicator_end), rest), Self::Continuation);
        all_consuming(alt((ok, err, continuation)))
            .parse(line)
            .ok()
            .map(|(_, response)| response)
    }
}

type Parsed<'a, T> = IResult<&'a [u8], T>;

/// An indicator ends with a space, or with the line.
fn indicator_end(input: &[u8]) -> Parsed<'_, ()> {
    alt((map(char(' '), |_| ()), map(eof, |_| ()))).parse(input)
}

/// `["[" resp-level *("/" resp-level) "]"] text`
fn refused(input: &[u8]) -> Parsed<'_, Refused<'_>> {
    let code = take_while1(|byte: u8| byte.is_ascii_graphic() && byte != b']' && byte != b'[');
    let code = terminated(
        delimited(char('['), code, char(']')),
        alt((map(char(' '), |_| ()), peek(map(rest, |_| ())))),
    );
    map(pair(opt(code), rest), |(code, text)| Refused { code, text }).parse(input)
}

/// What an upstream says about its logins in the answer to CAPA.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Offered {
    /// The arguments of SASL (RFC 5034 §3); `None` where there was no such line.
    sasl: Option<Vec<Vec<u8>>>,
    /// Whether USER and PASS may be used (RFC 2449 §6.3).
    user: bool,
    /// Whether it may be told of the client (Dovecot).
    xclient: bool,
}

impl Offered {
    /// Takes in a line of the list.
    pub(super) fn add(&mut self, line: &[u8]) {
        let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
        match words.next() {
            Some(name) if name.eq_ignore_ascii_case(b"SASL") => {
                let names = words.map(<[u8]>::to_vec);
                self.sasl.get_or_insert_default().extend(names);
            }
            Some(name) if name.eq_ignore_ascii_case(b"USER") => self.user = true,
            Some(name) if name.eq_ignore_ascii_case(b"XCLIENT") => self.xclient = true,
            _ => {}
        }
    }

    /// Whether the upstream lists mechanisms at all.
    pub(super) fn tells_mechanisms(&self) -> bool {
        self.sasl.is_some()
    }

    /// Whether `mechanism` is listed.
    pub(super) fn lists(&self, mechanism: Mechanism) -> bool {
        let is_it = |name: &Vec<u8>| name.eq_ignore_ascii_case(mechanism.name().as_bytes());
        self.sasl.iter().flatten().any(is_it)
    }

    /// Whether XCLIENT is listed.
    pub(super) fn lists_xclient(&self) -> bool {
        self.xclient
    }

    /// Whether USER is listed.
    pub(super) fn lists_user(&self) -> bool {
        self.user
    }

    /// What is listed of all that concerns logins, as it would stand in the list, for an operator; not clean yet.
    pub(super) fn rendered(&self) -> Vec<u8> {
        let user = self.user.then_some(&b"USER"[..]);
        let sasl = self.sasl.as_ref().map(|names| {
            let words: Vec<&[u8]> = std::iter::once(&b"SASL"[..])
                .chain(names.iter().map(Vec::as_slice))
                .collect();
            words.join(&b' ')
        });
        [user.map(<[u8]>::to_vec), sasl]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(&b", "[..])
    }
}

/// CR and LF; an upstream that ends its lines with LF alone is counted a little too high.
const LINE_END_BYTES: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn err<'a>(code: Option<&'a str>, text: &'a str) -> Response<'a> {
        Response::Err(Refused {
            code: code.map(str::as_bytes),
            text: text.as_bytes(),
        })
    }

    #[test]
    fn lines_of_real_upstreams_are_read() {
        for (line, expected) in [
            ("+OK", Response::Ok(b"")),
            (
                "+OK Gpop ready for requests from 192.0.2.1 x",
                Response::Ok(b"Gpop ready for requests from 192.0.2.1 x"),
            ),
            (
                "+OK <1896.697170952@dbc.example>",
                Response::Ok(b"<1896.697170952@dbc.example>"),
            ),
            ("+", Response::Continuation(b"")),
            ("+ ", Response::Continuation(b"")),
            ("+ e30=", Response::Continuation(b"e30=")),
            ("+ OK", Response::Continuation(b"OK")),
            ("-ERR", err(None, "")),
            (
                "-ERR [AUTH] Username and password not accepted.",
                err(Some("AUTH"), "Username and password not accepted."),
            ),
            (
                "-ERR [SYS/PERM] Your account is not enabled for POP access",
                err(Some("SYS/PERM"), "Your account is not enabled for POP access"),
            ),
            ("-ERR [IN-USE]", err(Some("IN-USE"), "")),
            ("-ERR [AUTH]no space", err(Some("AUTH"), "no space")),
            (
                "-ERR Authentication failure: unknown user name or bad password.",
                err(None, "Authentication failure: unknown user name or bad password."),
            ),
            ("-ERR [] x", err(None, "[] x")),
            ("-ERR [a b] x", err(None, "[a b] x")),
            ("-ERR [AUTH", err(None, "[AUTH")),
        ] {
            assert_eq!(Response::parse(line.as_bytes()), Some(expected), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_none() {
        for line in [
            "",
            "* OK hi",
            "220 smtp",
            "+OKAY",
            "-ERROR",
            "ok",
            " +OK",
            "-OK",
            "+\tx",
            "+OK a\rb",
            "-ERR a\0b",
            "HTTP/1.1 400 Bad Request",
        ] {
            assert_eq!(Response::parse(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn a_list_is_read_for_what_concerns_logins() {
        let read = |lines: &[&str]| {
            let mut offered = Offered::default();
            lines.iter().for_each(|line| offered.add(line.as_bytes()));
            offered
        };
        let gmail = read(&[
            "USER",
            "RESP-CODES",
            "EXPIRE 0",
            "TOP",
            "SASL PLAIN XOAUTH2 OAUTHBEARER",
        ]);
        assert!(gmail.lists_user() && gmail.tells_mechanisms() && gmail.lists(Mechanism::XOAuth2));
        assert!(!gmail.lists(Mechanism::Login));
        assert_eq!(gmail.rendered(), b"USER, SASL PLAIN XOAUTH2 OAUTHBEARER");
        let twice = read(&["sasl plain", "SASL  xoauth2 "]);
        assert!(twice.lists(Mechanism::Plain) && twice.lists(Mechanism::XOAuth2) && !twice.lists_user());
        assert!(read(&["SASL"]).tells_mechanisms() && !read(&["SASLX PLAIN", "", "TOP"]).tells_mechanisms());
        assert_eq!(read(&["TOP"]).rendered(), b"");
    }

    #[test]
    fn lines_and_logins_are_bounded() {
        let mut framer = ReplyFramer::default();
        framer.push(&[b'x'; UPSTREAM_LINE_BYTES_MAX + 1]);
        assert_eq!(framer.next_line(), Err(TooLong::Line));

        let mut framer = ReplyFramer::default();
        let line = [&b"x".repeat(1022)[..], b"\r\n"].concat();
        for _ in 0..UPSTREAM_LOGIN_BYTES_MAX / line.len() {
            framer.push(&line);
            assert!(framer.next_line().unwrap().is_some());
        }
        framer.push(b"\r\n");
        assert_eq!(framer.next_line(), Err(TooLong::Login));
    }

    proptest! {
        #[test]
        fn any_line_is_a_response_or_none(
            begin in prop::sample::select(vec!["", "+", "+OK", "-ERR", "-ERR [", "-ERR [SYS/TEMP] "]),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let line = [begin.as_bytes(), &rest].concat();
            if let Some(Response::Err(Refused { code: Some(code), .. })) = Response::parse(&line) {
                prop_assert!(!code.is_empty() && code.iter().all(u8::is_ascii_graphic));
            }
        }
    }
}
