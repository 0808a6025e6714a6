//! Replies of an upstream around its login: cut out of the stream, every line of them, and read (RFC 5321 §4.2).
//!
//! [`ReplyFramer`] gathers the lines of a reply in linear time whatever the pieces it comes in, and knows no state of a login.
//! A line may end in a bare LF; what is wrong otherwise is an error: a line that is no reply's, lines of one reply with
//! different codes, too long a line, too many of them. A reply that is not complete yet is none.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::limits::{UPSTREAM_LINE_BYTES_MAX, UPSTREAM_LOGIN_BYTES_MAX, UPSTREAM_REPLY_LINES_MAX};

/// Cuts what an upstream sends into complete replies.
#[derive(Debug, Default)]
pub(super) struct ReplyFramer {
    buffer: BytesMut,
    /// No LF lies before this place of the buffer.
    scanned: usize,
    /// Bytes of all lines that were cut out.
    taken: usize,
    /// The lines so far of a reply that goes on.
    begun: Option<Reply>,
}

/// One reply: a code, and the text of each of its lines without code, separator and line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    /// Never empty.
    lines: Vec<Bytes>,
}

/// Why a stream cannot be cut any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyError {
    /// See [`UPSTREAM_LINE_BYTES_MAX`].
    #[error("a line is longer than {UPSTREAM_LINE_BYTES_MAX} bytes")]
    LineTooLong,
    /// See [`UPSTREAM_LOGIN_BYTES_MAX`].
    #[error("more than {UPSTREAM_LOGIN_BYTES_MAX} bytes were sent before the login was done")]
    TooMuch,
    /// See [`UPSTREAM_REPLY_LINES_MAX`].
    #[error("a reply has more than {UPSTREAM_REPLY_LINES_MAX} lines")]
    TooManyLines,
    /// RFC 5321 §4.2.1: the code is the same on every line.
    #[error("the lines of a reply have different codes")]
    MixedCodes,
    /// A line that is no reply's. It may be an echo of what was sent, so that it is not in the message.
    #[error("this is no reply of SMTP")]
    Malformed(Bytes),
}

impl ReplyFramer {
    /// Adds what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete reply, or `None` until more arrives.
    ///
    /// # Errors
    /// Any [`ReplyError`], after which nothing more should be cut.
    pub(super) fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        while let Some(line) = self.next_line()? {
            let Some((code, is_last, text)) = reply_line(&line) else {
                return Err(ReplyError::Malformed(line));
            };
            let text = line.slice_ref(text);
            let mut reply = self.begun.take().unwrap_or(Reply {
                code,
                lines: Vec::new(),
            });
            if reply.code != code {
                return Err(ReplyError::MixedCodes);
            }
            if reply.lines.len() == UPSTREAM_REPLY_LINES_MAX {
                return Err(ReplyError::TooManyLines);
            }
            reply.lines.push(text);
            if is_last {
                return Ok(Some(reply));
            }
            self.begun = Some(reply);
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, ReplyError> {
        let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr(b'\n', unscanned) else {
            self.scanned = self.buffer.len();
            return match self.scanned {
                0..=UPSTREAM_LINE_BYTES_MAX => Ok(None),
                _ => Err(ReplyError::LineTooLong),
            };
        };
        let end = self.scanned + at + 1;
        if end > UPSTREAM_LINE_BYTES_MAX {
            return Err(ReplyError::LineTooLong);
        }
        self.scanned = 0;
        self.taken += end;
        if self.taken > UPSTREAM_LOGIN_BYTES_MAX {
            return Err(ReplyError::TooMuch);
        }
        let line = self.buffer.split_to(end).freeze();
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        Ok(Some(line.slice_ref(text)))
    }

    /// Whether nothing is buffered, not even a part of a reply.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.begun.is_none()
    }

    /// Everything behind the replies that were cut out.
    pub(super) fn take_surplus(&mut self) -> Bytes {
        self.scanned = 0;
        self.buffer.split().freeze()
    }
}

impl Reply {
    /// The text of each line.
    pub(super) fn lines(&self) -> &[Bytes] {
        &self.lines
    }

    /// The code and, where the text begins with one that fits it, the enhanced status code (RFC 2034 §4): `535 5.7.8`.
    pub(super) fn full_code(&self) -> String {
        match self.enhanced_code() {
            Some(enhanced) => format!("{} {enhanced}", self.code),
            None => self.code.to_string(),
        }
    }

    /// The enhanced status code (RFC 3463) of the first line.
    pub(super) fn enhanced_code(&self) -> Option<&str> {
        self.lines.first().and_then(|line| self.split(line).0)
    }

    /// The text of all lines in one, without enhanced status codes.
    pub(super) fn text(&self) -> Vec<u8> {
        let lines: Vec<&[u8]> = self
            .lines
            .iter()
            .map(|line| self.split(line).1.trim_ascii())
            .filter(|text| !text.is_empty())
            .collect();
        lines.join(&b' ')
    }

    /// A line's enhanced status code, if it has one of the reply's class, and what follows.
    fn split<'a>(&self, line: &'a [u8]) -> (Option<&'a str>, &'a [u8]) {
        let (word, behind) = match memchr(b' ', line) {
            Some(at) => line.split_at(at),
            None => (line, &[][..]),
        };
        match std::str::from_utf8(word).ok().filter(|word| self.is_enhanced(word)) {
            Some(word) => (Some(word), behind),
            None => (None, line),
        }
    }

    /// RFC 3463 §2: class, subject of up to three digits, detail of up to three digits.
    fn is_enhanced(&self, word: &str) -> bool {
        let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let class = (self.code / 100).to_string();
        let mut parts = word.split('.');
        parts.next() == Some(class.as_str())
            && parts.next().is_some_and(is_number)
            && parts.next().is_some_and(is_number)
            && parts.next().is_none()
    }
}

/// The code of a reply's line, whether it is the last one, and its text. Some upstreams end a line behind the code.
fn reply_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (code, behind) = line.split_at_checked(3)?;
    let is_code =
        code.iter().all(u8::is_ascii_digit) && code.first().is_some_and(|class| (b'2'..=b'5').contains(class));
    let code = std::str::from_utf8(code).ok().filter(|_| is_code)?.parse().ok()?;
    match behind {
        [] => Some((code, true, behind)),
        [b' ', text @ ..] => Some((code, true, text)),
        [b'-', text @ ..] => Some((code, false, text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that is cut from `stream` in pieces of `piece` bytes: replies as text, then how it ended.
    fn cut(stream: &[u8], piece: usize) -> (Vec<Reply>, Result<Vec<u8>, ReplyError>) {
        let mut framer = ReplyFramer::default();
        let mut replies = Vec::new();
        for bytes in stream.chunks(piece.max(1)) {
            framer.push(bytes);
            loop {
                match framer.next_reply() {
                    Ok(Some(reply)) => replies.push(reply),
                    Ok(None) => break,
                    Err(error) => return (replies, Err(error)),
                }
            }
        }
        (replies, Ok(framer.take_surplus().to_vec()))
    }

    fn one(stream: &str) -> Reply {
        let (mut replies, end) = cut(stream.as_bytes(), usize::MAX);
        assert_eq!((replies.len(), end), (1, Ok(Vec::new())));
        replies.remove(0)
    }

    #[test]
    fn replies_have_one_code_and_the_text_of_each_line() {
        let reply = one("250-mx.example.com at your service\r\n250-SIZE 35882577\n250 AUTH PLAIN\r\n");
        assert_eq!(reply.code, 250);
        assert_eq!(
            reply.lines(),
            ["mx.example.com at your service", "SIZE 35882577", "AUTH PLAIN"]
        );
        assert_eq!(one("235\r\n").lines(), [""]);
        assert_eq!(one("334 \r\n").lines(), [""]);
        assert_eq!(one("334\r\n").lines(), [""]);
    }

    #[test]
    fn an_enhanced_status_code_is_recognised_where_it_fits_the_reply() {
        let table = [
            (
                "535 5.7.8 Error: authentication failed\r\n",
                "535 5.7.8",
                "Error: authentication failed",
            ),
            (
                "535-5.7.8 Username and Password not accepted. For\r\n535 5.7.8  https://example.com/ ab1\r\n",
                "535 5.7.8",
                "Username and Password not accepted. For https://example.com/ ab1",
            ),
            ("535 5.7.139 off\r\n", "535 5.7.139", "off"),
            ("535 5.7.8\r\n", "535 5.7.8", ""),
            ("535 4.7.8 no\r\n", "535", "4.7.8 no"),
            ("535 5.7 no\r\n", "535", "5.7 no"),
            ("535 5.7.8.1 no\r\n", "535", "5.7.8.1 no"),
            ("535 5.7.1234 no\r\n", "535", "5.7.1234 no"),
            ("535 #5.7.8 no\r\n", "535", "#5.7.8 no"),
            ("535\r\n", "535", ""),
        ];
        for (stream, code, text) in table {
            let reply = one(stream);
            assert_eq!((reply.full_code().as_str(), &reply.text()[..]), (code, text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for line in [
            "", "25", "2500", "250x", "* OK hi", "+OK hi", "150 x", "650 x", "2a0 x", "-250 x",
        ] {
            let (replies, end) = cut(format!("{line}\r\n").as_bytes(), usize::MAX);
            assert_eq!((replies.len(), end), (0, Err(ReplyError::Malformed(Bytes::from(line)))));
        }
        let mixed = cut(b"250-x\r\n235 x\r\n", usize::MAX);
        assert_eq!(mixed, (Vec::new(), Err(ReplyError::MixedCodes)));
    }

    #[test]
    fn lines_are_bounded_in_length_and_number() {
        let mut lines = "250-x\r\n".repeat(UPSTREAM_REPLY_LINES_MAX - 1);
        lines.push_str("250 x\r\n");
        assert_eq!(one(&lines).lines().len(), UPSTREAM_REPLY_LINES_MAX);
        let endless = format!("250-x\r\n{lines}");
        assert_eq!(cut(endless.as_bytes(), 7), (Vec::new(), Err(ReplyError::TooManyLines)));

        let line = format!("250 {}\r\n", "x".repeat(UPSTREAM_LINE_BYTES_MAX - 6));
        assert_eq!(one(&line).code, 250);
        let long = format!("250 x{}", "x".repeat(UPSTREAM_LINE_BYTES_MAX));
        for piece in [1, 8192, usize::MAX] {
            assert_eq!(cut(long.as_bytes(), piece), (Vec::new(), Err(ReplyError::LineTooLong)));
            let much = line.repeat(9);
            assert_eq!(cut(much.as_bytes(), piece).1, Err(ReplyError::TooMuch));
        }
    }

    proptest! {
        #[test]
        fn every_split_cuts_the_same_replies(
            stream in proptest::collection::vec(
                prop_oneof![
                    Just(b"250-x\r\n".to_vec()), Just(b"250 5.7.8 x\r\n".to_vec()), Just(b"235\n".to_vec()),
                    Just(b"334 e30=\r\n".to_vec()), Just(b"\r".to_vec()), proptest::collection::vec(any::<u8>(), 0..6)
                ], 0..24),
            piece in 1usize..40,
        ) {
            let stream = stream.concat();
            let (whole, split) = (cut(&stream, stream.len()), cut(&stream, piece));
            prop_assert_eq!(&whole.0, &split.0);
            // What follows an error is nobody's, and no surplus.
            prop_assert_eq!(whole.1, split.1);
        }
    }
}
