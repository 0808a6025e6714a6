//! Where a goodbye would be understood in a relayed IMAP session: [`ImapBoundaries`].
//!
//! A `* BYE` may stand wherever the upstream has just completed a response line, unless the client no longer reads lines
//! because COMPRESS was agreed. So the upstream's lines are followed, and the client's only as far as a COMPRESS among them
//! has to be seen: both by looking for line ends, skipping literals without looking into them. Nothing is buffered but the
//! beginning of a line that is cut.
//!
//! What the client's side needs no states for: IDLE is ended by a line that has no second word, and the lines of
//! AUTHENTICATE have none either, so that neither can be taken for COMPRESS nor hide one.
//!
//! A synchronising literal may be refused by the upstream; then what follows is no literal but the next command. So until
//! its first byte is seen, a completion with the command's tag takes it back.
//!
//! Whether COMPRESS is agreed is the upstream's answer to it. Until then a client sends nothing more (RFC 4978 §3) and there
//! is no boundary; a refusal gives it back.
//!
//! **In doubt there is no boundary,** and there will be none: behind a COMPRESS that was not clearly refused, and where client
//! and upstream could disagree on what a literal is. The session then ends without a word, which every client survives.

use memchr::memchr;

use super::first_replies::FirstReplies;
use super::response::carries_literals;
use crate::proto::dialogue::{Boundaries, UpstreamRemark};

/// Follows both directions of a relayed session. Less than 100 bytes; allocates nothing.
#[derive(Debug)]
pub struct ImapBoundaries {
    upstream: UpstreamStream,
    client: ClientStream,
    first_replies: FirstReplies,
    /// Whether there will be no boundary any more. Nothing is looked at from then on.
    is_lost: bool,
}

impl ImapBoundaries {
    /// For a session whose login has just been answered: both streams are at the beginning of a line.
    pub fn new() -> Self {
        Self {
            upstream: UpstreamStream::default(),
            client: ClientStream::default(),
            first_replies: FirstReplies::new(),
            is_lost: false,
        }
    }
}

impl Default for ImapBoundaries {
    fn default() -> Self {
        Self::new()
    }
}

impl Boundaries for ImapBoundaries {
    fn watch_client(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            self.is_lost = self.client.watch(bytes).is_err();
        }
    }

    fn watch_upstream(&mut self, bytes: &[u8]) {
        self.first_replies.watch(bytes);
        if !self.is_lost {
            self.is_lost = self.upstream.watch(bytes, &mut self.client).is_err();
        }
    }

    fn at_boundary(&self) -> bool {
        !self.is_lost && self.upstream.line.place == Place::Start && self.client.word != Word::Compress
    }

    fn take_remark(&mut self) -> Option<UpstreamRemark> {
        self.first_replies.take_remark()
    }
}

/// The stream cannot be followed any more.
#[derive(Debug)]
struct Lost;

/// The upstream's side: lines that end with CRLF, literals in untagged data.
#[derive(Debug, Default)]
struct UpstreamStream {
    line: Line,
    /// The beginning of a line that was cut; empty where the line at hand is whole.
    head: Head,
    /// Whether the line goes on behind a literal.
    is_continued: bool,
}

impl UpstreamStream {
    fn watch(&mut self, mut bytes: &[u8], client: &mut ClientStream) -> Result<(), Lost> {
        loop {
            bytes = self.line.skip_literal(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            let Some((line, behind)) = split_at_lf(bytes) else {
                self.head.extend(bytes);
                self.line.follow(bytes);
                return Ok(());
            };
            self.line.follow(line);
            match self.line.place {
                Place::TextCr => {
                    if client.awaits_answer() && !self.is_continued {
                        client.on_response(self.head.of(line))?;
                    }
                    self.start_line();
                }
                Place::MarkerCr => {
                    // A text that looks like a literal: RFC 9051 knows none there, but some clients do.
                    if !self.is_continued && !carries_literals(self.head.of(line)) {
                        return Err(Lost);
                    }
                    self.line.place = Place::Literal;
                    self.head.clear();
                    self.is_continued = true;
                }
                // A bare LF ends no line.
                _ => {
                    self.head.extend(line);
                    self.head.extend(b"\n");
                    self.line.place = Place::Text;
                }
            }
            bytes = behind;
        }
    }

    fn start_line(&mut self) {
        self.line.place = Place::Start;
        self.head.clear();
        self.is_continued = false;
    }
}

/// The client's side: commands, and the literals in them.
#[derive(Debug, Default)]
struct ClientStream {
    line: Line,
    /// The tag of the command at hand.
    tag: Head,
    word: Word,
    /// Whether a literal was announced that the upstream may refuse: a synchronising one, none of whose bytes was seen.
    may_be_refused: bool,
}

/// Which part of a command is looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Word {
    #[default]
    Tag,
    /// The command's name, of which so many bytes are those of COMPRESS.
    Name(u8),
    /// What follows COMPRESS, up to its answer.
    Compress,
    /// What need not be looked at.
    Other,
}

impl ClientStream {
    fn watch(&mut self, mut bytes: &[u8]) -> Result<(), Lost> {
        loop {
            if !bytes.is_empty() {
                self.may_be_refused = false;
            }
            bytes = self.line.skip_literal(bytes);
            if bytes.is_empty() {
                return Ok(());
            }
            // A client's bare LF is taken for a line end, as lenient upstreams do.
            let (line, behind) = match split_at_lf(bytes) {
                Some((line, behind)) => (line, Some(behind)),
                None => (bytes, None),
            };
            if self.awaits_compress() {
                // It may be compressed already, or a command.
                return Err(Lost);
            }
            self.read_words(line)?;
            self.line.follow(line);
            let Some(behind) = behind else {
                return Ok(());
            };
            match self.line.place {
                Place::MarkerCr => self.on_literal()?,
                // Lenient upstreams would take this for a literal, strict ones would not.
                Place::Marker => return Err(Lost),
                _ if self.word == Word::Compress => self.line.place = Place::Start,
                _ => self.start_line(),
            }
            bytes = behind;
        }
    }

    /// Whether the upstream's answer to the command at hand matters.
    fn awaits_answer(&self) -> bool {
        self.may_be_refused || self.word == Word::Compress
    }

    /// Whether COMPRESS was sent in whole and is not answered.
    fn awaits_compress(&self) -> bool {
        self.word == Word::Compress && self.line.place == Place::Start
    }

    /// Heeds a response, of which at least [`HEAD_BYTES_MAX`] bytes are given if it has as many.
    fn on_response(&mut self, line: &[u8]) -> Result<(), Lost> {
        let Some(answer) = self.tag.answer_in(line) else {
            return Ok(());
        };
        let is_refusal = REFUSALS.iter().any(|refusal| {
            let status = answer.get(..refusal.len());
            status.is_some_and(|status| status.eq_ignore_ascii_case(refusal))
        });
        if self.word == Word::Compress && !(self.awaits_compress() && is_refusal) {
            return Err(Lost);
        }
        self.may_be_refused = false;
        self.start_line();
        Ok(())
    }

    fn on_literal(&mut self) -> Result<(), Lost> {
        if self.word == Word::Compress {
            return Err(Lost);
        }
        self.line.place = Place::Literal;
        self.word = Word::Other;
        self.may_be_refused = self.line.is_synchronising;
        match self.may_be_refused && self.tag.is_full() {
            // Its refusal could not be told from another command's.
            true => Err(Lost),
            false => Ok(()),
        }
    }

    fn start_line(&mut self) {
        self.line.place = Place::Start;
        self.tag.clear();
        self.word = Word::Tag;
    }

    fn on_compress(&mut self) -> Result<(), Lost> {
        self.word = Word::Compress;
        match usize::from(self.tag.length) > COMPRESS_TAG_BYTES_MAX {
            // Its answer could not be told from another command's.
            true => Err(Lost),
            false => Ok(()),
        }
    }

    /// Looks at as much of a command as is needed to tell whether it is COMPRESS.
    fn read_words(&mut self, line: &[u8]) -> Result<(), Lost> {
        for byte in line {
            match (self.word, *byte) {
                (Word::Compress | Word::Other, _) => return Ok(()),
                (Word::Tag, b' ') => self.word = Word::Name(0),
                (Word::Tag, byte) => self.tag.extend(&[byte]),
                (Word::Name(0), b' ') => {}
                (Word::Name(count), byte) => {
                    let expected = COMPRESS.get(usize::from(count));
                    self.word = match expected.is_some_and(|letter| letter.eq_ignore_ascii_case(&byte)) {
                        true => Word::Name(count + 1),
                        false => Word::Other,
                    };
                    if self.word == Word::Name(COMPRESS_BYTES) {
                        self.on_compress()?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// How far a line has come: whether what was seen last could be the end of one that announces a literal.
#[derive(Debug, Default)]
struct Line {
    place: Place,
    is_synchronising: bool,
    digits: u8,
    /// The number in the marker; then the bytes of the literal that are still to be skipped.
    octets: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing of the line was seen.
    #[default]
    Start,
    Text,
    TextCr,
    /// `{`, and digits.
    Digits,
    /// `{n+`
    Plus,
    /// `{n}` or `{n+}`
    Marker,
    /// The same and CR.
    MarkerCr,
    /// In a literal.
    Literal,
}

impl Line {
    /// Skips what of `bytes` is literal. A literal has ended only when something follows it, so that an empty one can still
    /// be refused.
    fn skip_literal<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if self.place != Place::Literal || bytes.is_empty() {
            return bytes;
        }
        let skipped = usize::try_from(self.octets).unwrap_or(usize::MAX).min(bytes.len());
        self.octets -= skipped as u64;
        if self.octets == 0 {
            self.place = Place::Text;
        }
        bytes.get(skipped..).unwrap_or_default()
    }

    /// Follows `text`, which holds no LF. Only what is near its end can matter.
    fn follow(&mut self, text: &[u8]) {
        let Some(cut) = text.len().checked_sub(MARKER_BYTES_MAX) else {
            text.iter().for_each(|byte| self.step(*byte));
            return;
        };
        self.place = Place::Text;
        match text {
            [.., b'}', b'\r'] => {}
            [.., b'\r'] => {
                self.place = Place::TextCr;
                return;
            }
            _ => {}
        }
        let near_end = text.get(cut..).unwrap_or_default();
        near_end.iter().for_each(|byte| self.step(*byte));
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (_, b'{') => {
                (self.digits, self.octets) = (0, 0);
                Place::Digits
            }
            (Place::Digits, b'0'..=b'9') if self.digits < LITERAL_DIGITS_MAX => {
                self.digits += 1;
                self.octets = self.octets * 10 + u64::from(byte - b'0');
                Place::Digits
            }
            (Place::Digits, b'+') if self.digits > 0 => Place::Plus,
            (Place::Digits, b'}') if self.digits > 0 => {
                self.is_synchronising = true;
                Place::Marker
            }
            (Place::Plus, b'}') => {
                self.is_synchronising = false;
                Place::Marker
            }
            (Place::Marker, b'\r') => Place::MarkerCr,
            (_, b'\r') => Place::TextCr,
            _ => Place::Text,
        };
    }
}

/// The first bytes of something.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    length: u8,
}

impl Head {
    fn extend(&mut self, bytes: &[u8]) {
        let free = self.bytes.iter_mut().skip(usize::from(self.length));
        for (slot, byte) in free.zip(bytes) {
            *slot = *byte;
            self.length += 1;
        }
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn is_full(&self) -> bool {
        usize::from(self.length) == HEAD_BYTES_MAX
    }

    /// The beginning of a line of which `rest` was seen last: kept here if it was cut, else `rest` itself.
    fn of<'a>(&'a mut self, rest: &'a [u8]) -> &'a [u8] {
        if self.length == 0 {
            return rest;
        }
        self.extend(rest);
        self.as_bytes()
    }

    /// What stands behind this tag in a line that begins with `line`, if it completes the command with this tag.
    fn answer_in<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        line.strip_prefix(self.as_bytes())?.strip_prefix(b" ")
    }
}

fn split_at_lf(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'\n', bytes)?;
    let (line, behind) = bytes.split_at(at);
    Some((line, behind.get(1..).unwrap_or_default()))
}

/// RFC 4978.
const COMPRESS: &[u8] = b"COMPRESS";

const COMPRESS_BYTES: u8 = 8;

/// What refuses a command.
const REFUSALS: [&[u8]; 2] = [b"NO ", b"BAD"];

/// Enough for `* PREAUTH `, and for a tag with a space behind it. Tags of real clients have up to 10 bytes.
const HEAD_BYTES_MAX: usize = 16;

/// Leaves room behind the tag for a space and a refusal.
const COMPRESS_TAG_BYTES_MAX: usize = HEAD_BYTES_MAX - 4;

/// Digits of a `number64` (RFC 9051 §9); any number with so many fits into 64 bits.
const LITERAL_DIGITS_MAX: u8 = 19;

/// `{`, digits, `+`, `}` and CR.
const MARKER_BYTES_MAX: usize = LITERAL_DIGITS_MAX as usize + 4;

#[cfg(test)]
#[path = "boundary_tests.rs"]
mod tests;
