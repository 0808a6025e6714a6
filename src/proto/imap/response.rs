//! Responses of an upstream around its login: cut out of the stream first, then parsed.
//!
//! [`ResponseFramer`] finds where a response ends, literals included, in linear time whatever the pieces it comes in;
//! [`Response::parse`] runs on complete responses only. Both know no state of a login. A response that is too long or has no
//! form of RFC 9051 §7 is an error; one that is not complete yet is not.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memchr2};
use nom::branch::alt;
use nom::bytes::complete::{tag, tag_no_case, take_till, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, eof, map, opt, peek, rest, value, verify};
use nom::sequence::{delimited, pair, preceded, terminated};
use nom::{IResult, Parser};

use crate::limits::{UPSTREAM_LINE_BYTES_MAX, UPSTREAM_LOGIN_BYTES_MAX};

/// Cuts what an upstream sends into complete responses.
#[derive(Debug, Default)]
pub(super) struct ResponseFramer {
    buffer: BytesMut,
    /// Where the search for the next LF goes on. Beyond the buffer while a literal is incomplete.
    scanned: usize,
    /// Where the line that is being searched began: at 0, or behind a literal.
    line_start: usize,
    /// Bytes of all responses that were cut out.
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

impl ResponseFramer {
    /// Adds what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete response with its line end, or `None` until more arrives. A line ends with LF, so that what a
    /// lenient client would take for two lines is never passed on as one.
    pub(super) fn next_response(&mut self) -> Result<Option<Bytes>, TooLong> {
        loop {
            let Some(unscanned) = self.buffer.get(self.scanned..) else {
                return Ok(None);
            };
            let Some(at) = memchr(b'\n', unscanned) else {
                self.scanned = self.buffer.len();
                return match self.buffer.len() - self.line_start {
                    0..=UPSTREAM_LINE_BYTES_MAX => Ok(None),
                    _ => Err(TooLong::Line),
                };
            };
            let end = self.scanned + at + 1;
            let line = self.buffer.get(self.line_start..end).unwrap_or_default();
            if line.len() > UPSTREAM_LINE_BYTES_MAX {
                return Err(TooLong::Line);
            }
            let literal = announced_literal(line).filter(|_| carries_literals(&self.buffer));
            let due = literal.map_or(end, |octets| end.saturating_add(octets));
            if self.taken.saturating_add(due) > UPSTREAM_LOGIN_BYTES_MAX {
                return Err(TooLong::Login);
            }
            if literal.is_some() {
                (self.scanned, self.line_start) = (due, due);
                continue;
            }
            (self.scanned, self.line_start) = (0, 0);
            self.taken += end;
            return Ok(Some(self.buffer.split_to(end).freeze()));
        }
    }

    /// Whether nothing is buffered.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Everything behind the responses that were cut out.
    pub(super) fn take_surplus(&mut self) -> Bytes {
        (self.scanned, self.line_start) = (0, 0);
        self.buffer.split().freeze()
    }
}

/// One response (RFC 9051 §7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// `+`, with whatever follows it.
    Continuation(&'a [u8]),
    /// A command's completion.
    Tagged(&'a [u8], Condition<'a>),
    /// An untagged status response.
    Untagged(Condition<'a>),
    /// `* CAPABILITY`.
    Capability(Capabilities<'a>),
    /// `* ID`.
    Identity,
    /// Any other untagged response.
    Data,
}

/// A status response's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition<'a> {
    pub(super) status: Status,
    pub(super) code: Option<Code<'a>>,
    pub(super) text: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Bad,
    Bye,
    Preauth,
}

/// A response code: `[NAME arguments]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code<'a> {
    pub(super) name: &'a [u8],
    pub(super) arguments: &'a [u8],
}

/// A capability list: atoms between spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities<'a>(pub(super) &'a [u8]);

impl<'a> Response<'a> {
    /// Parses a complete response; `None` if it has none of the forms.
    pub(super) fn parse(response: &'a [u8]) -> Option<Self> {
        let line = without_line_end(response);
        let (_, parsed) = all_consuming(any_response).parse(line).ok()?;
        // Only data can hold a literal. Anywhere else a CR, LF or NUL is there to be misread by somebody.
        let clean = matches!(parsed, Self::Data | Self::Identity)
            || (memchr2(b'\r', b'\n', line).is_none() && memchr(0, line).is_none());
        clean.then_some(parsed)
    }
}

impl<'a> Condition<'a> {
    /// The capability list in the response code, if it has one.
    pub(super) fn capabilities(&self) -> Option<Capabilities<'a>> {
        let code = self.code.filter(|code| code.is("CAPABILITY"))?;
        (!code.arguments.is_empty()).then_some(Capabilities(code.arguments))
    }

    /// Whether the response code is ALERT, whose text "MUST be presented to the user" (RFC 9051 §7.1).
    pub(super) fn is_alert(&self) -> bool {
        self.code.is_some_and(|code| code.is("ALERT"))
    }
}

impl Condition<'_> {
    /// Whether an untagged one says something for the mailbox's owner: an alert, Gmail's link to log in by, a warning.
    pub(super) fn is_for_owner(&self) -> bool {
        self.status == Status::No || self.is_alert() || self.code.is_some_and(|code| code.is("WEBALERT"))
    }
}

impl Code<'_> {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl<'a> Capabilities<'a> {
    /// Whether the capability `name` is in the list, in any case of letters.
    pub(super) fn offers(&self, name: &str) -> bool {
        self.names().any(|atom| atom.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The capabilities, in the order given.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.split(|byte| *byte == b' ').filter(|atom| !atom.is_empty())
    }
}

/// A response without its line end.
pub(super) fn without_line_end(response: &[u8]) -> &[u8] {
    let line = response.strip_suffix(b"\n").unwrap_or(response);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether a response that begins with `head` may hold literals: untagged data may, a status response, a completion and a
/// continuation end in text, where braces mean nothing.
pub(super) fn carries_literals(head: &[u8]) -> bool {
    head.strip_prefix(b"* ")
        .is_some_and(|content| peek(status).parse(content).is_err())
}

/// The octets of the literal that a line announces at its end: `{n}`, `{n+}`, `~{n}` (RFC 9051 §4.3, RFC 7888).
fn announced_literal(line: &[u8]) -> Option<usize> {
    let marker = without_line_end(line).strip_suffix(b"}")?;
    let marker = marker.strip_suffix(b"+").unwrap_or(marker);
    let brace = memchr::memrchr(b'{', marker)?;
    let digits = std::str::from_utf8(marker.get(brace + 1..)?).ok()?;
    // `parse` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    digits.parse().ok()
}

fn any_response(input: &[u8]) -> IResult<&[u8], Response<'_>> {
    alt((
        map(preceded((char('+'), opt(char(' '))), rest), Response::Continuation),
        preceded(tag("* "), untagged),
        map(
            pair(
                terminated(take_while1(is_tag_byte), char(' ')),
                verify(condition, |condition| {
                    matches!(condition.status, Status::Ok | Status::No | Status::Bad)
                }),
            ),
            |(name, condition)| Response::Tagged(name, condition),
        ),
    ))
    .parse(input)
}

fn untagged(input: &[u8]) -> IResult<&[u8], Response<'_>> {
    alt((
        map(condition, Response::Untagged),
        map(preceded(tag_no_case("CAPABILITY "), rest), |list| {
            Response::Capability(Capabilities(list))
        }),
        value(Response::Identity, (tag_no_case("ID "), rest)),
        value(Response::Data, verify(rest, |data: &[u8]| !data.is_empty())),
    ))
    .parse(input)
}

fn condition(input: &[u8]) -> IResult<&[u8], Condition<'_>> {
    map(
        (status, opt(char(' ')), opt(terminated(code, opt(char(' ')))), rest),
        |(status, _, code, text)| Condition { status, code, text },
    )
    .parse(input)
}

/// A status word that ends where it should. Some upstreams send no text behind it.
fn status(input: &[u8]) -> IResult<&[u8], Status> {
    terminated(
        alt((
            value(Status::Ok, tag_no_case("OK")),
            value(Status::No, tag_no_case("NO")),
            value(Status::Bad, tag_no_case("BAD")),
            value(Status::Bye, tag_no_case("BYE")),
            value(Status::Preauth, tag_no_case("PREAUTH")),
        )),
        peek(alt((tag(" "), tag("\r"), tag("\n"), eof))),
    )
    .parse(input)
}

fn code(input: &[u8]) -> IResult<&[u8], Code<'_>> {
    map(
        delimited(
            char('['),
            pair(
                take_while1(|byte: u8| byte.is_ascii_graphic() && byte != b']'),
                opt(preceded(char(' '), take_till(|byte| byte == b']'))),
            ),
            char(']'),
        ),
        |(name, arguments)| Code {
            name,
            arguments: arguments.unwrap_or_default(),
        },
    )
    .parse(input)
}

fn is_tag_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'+' | b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<TooLong>, Vec<u8>) {
        let mut framer = ResponseFramer::default();
        let mut responses = Vec::new();
        for bytes in stream.chunks(piece.max(1)) {
            framer.push(bytes);
            loop {
                match framer.next_response() {
                    Ok(Some(response)) => responses.push(response.to_vec()),
                    Ok(None) => break,
                    Err(error) => return (responses, Some(error), Vec::new()),
                }
            }
        }
        (responses, None, framer.take_surplus().to_vec())
    }

    #[test]
    fn a_response_is_cut_with_its_literals() {
        let stream = b"* ID (\"name\" {5}\r\na\r\n\r\n {0}\r\n)\r\nA OK {3}\r\n* OK {3}\r\n* LIST {9999";
        let (responses, error, surplus) = cut(stream, stream.len());
        assert_eq!(error, None);
        assert_eq!(
            responses,
            [
                &b"* ID (\"name\" {5}\r\na\r\n\r\n {0}\r\n)\r\n"[..],
                b"A OK {3}\r\n",
                b"* OK {3}\r\n"
            ]
        );
        assert_eq!(surplus, b"* LIST {9999");
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_kept() {
        let line = [b"* OK ".as_slice(), &[b'x'; UPSTREAM_LINE_BYTES_MAX]].concat();
        assert_eq!(cut(&line, 100).1, Some(TooLong::Line));
        assert_eq!(cut(b"* LIST {4294967295}\r\n", 1).1, Some(TooLong::Login));
        assert_eq!(cut(b"* LIST {18446744073709551615}\r\n", 1).1, Some(TooLong::Login));
        assert_eq!(cut(&b"* OK still here\r\n".repeat(5000), 4096).1, Some(TooLong::Login));
    }

    #[test]
    fn responses_parse_to_what_they_say() {
        let condition = |status, code, text| Condition { status, code, text };
        let code = |name, arguments| Some(Code { name, arguments });
        let table: [(&[u8], Response<'_>); 13] = [
            (b"+\r\n", Response::Continuation(b"")),
            (b"+ \r\n", Response::Continuation(b"")),
            (b"+ eyJ9\r\n", Response::Continuation(b"eyJ9")),
            (b"* OK\r\n", Response::Untagged(condition(Status::Ok, None, b""))),
            (
                b"* ok [CAPABILITY IMAP4rev1 ID] hi\r\n",
                Response::Untagged(condition(Status::Ok, code(b"CAPABILITY", b"IMAP4rev1 ID"), b"hi")),
            ),
            (b"* BYE [x\r\n", Response::Untagged(condition(Status::Bye, None, b"[x"))),
            (
                b"P1 NO [ALERT] no\r\n",
                Response::Tagged(b"P1", condition(Status::No, code(b"ALERT", b""), b"no")),
            ),
            (b"P1 BAD\n", Response::Tagged(b"P1", condition(Status::Bad, None, b""))),
            (
                b"* PREAUTH hi\r\n",
                Response::Untagged(condition(Status::Preauth, None, b"hi")),
            ),
            (
                b"* capability IMAP4rev1\r\n",
                Response::Capability(Capabilities(b"IMAP4rev1")),
            ),
            (b"* ID NIL\r\n", Response::Identity),
            (b"* OKAY\r\n", Response::Data),
            (b"* LIST {2}\r\n\r\n \r\n", Response::Data),
        ];
        for (bytes, expected) in table {
            assert_eq!(Response::parse(bytes).as_ref(), Some(&expected), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bytes in [
            &b"\r\n"[..],
            b"* \r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"+OK POP3 ready\r\nx\r\n",
            b"P1 BYE\r\n",
            b"P1\r\n",
            b"* OK a\rb\r\n",
            b"P1 OK a\0b\r\n",
        ] {
            assert_eq!(Response::parse(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_capability_is_found_as_a_whole_word_in_any_case() {
        let list = Capabilities(b"IMAP4rev1 auth=XOAUTH2  SASL-IRX ");
        assert!(list.offers("AUTH=XOAUTH2") && !list.offers("SASL-IR") && !list.offers(""));
    }

    proptest! {
        #[test]
        fn every_split_cuts_the_same_responses(
            stream in proptest::collection::vec(
                prop_oneof![
                    Just(b"* LIST {3}\r\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"A OK {1}\r\n".to_vec()),
                    Just(b"{2}\r\n".to_vec()), Just(b"* ".to_vec()), proptest::collection::vec(any::<u8>(), 0..12)
                ], 0..24),
            piece in 1usize..40,
        ) {
            let stream = stream.concat();
            prop_assert_eq!(cut(&stream, piece), cut(&stream, stream.len()));
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Response::parse(&bytes);
        }
    }
}
