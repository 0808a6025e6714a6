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
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Said {
        Client(String),
        Upstream(String),
    }

    fn client(text: &str) -> Said {
        Said::Client(text.to_owned())
    }

    fn upstream(text: &str) -> Said {
        Said::Upstream(text.to_owned())
    }

    /// Whether there is a boundary after each thing said, each fed in pieces.
    fn watch(said: &[Said], piece: usize) -> Vec<bool> {
        let mut boundaries = ImapBoundaries::new();
        said.iter()
            .map(|said| {
                match said {
                    Said::Client(text) => text.as_bytes().chunks(piece).for_each(|it| boundaries.watch_client(it)),
                    Said::Upstream(text) => text
                        .as_bytes()
                        .chunks(piece)
                        .for_each(|it| boundaries.watch_upstream(it)),
                }
                boundaries.at_boundary()
            })
            .collect()
    }

    fn check(table: &[(Said, bool)]) {
        let said: Vec<Said> = table.iter().map(|(said, _)| said.clone()).collect();
        let expected: Vec<bool> = table.iter().map(|(_, expected)| *expected).collect();
        for piece in 1..80 {
            assert_eq!(watch(&said, piece), expected, "in pieces of {piece}: {said:?}");
        }
    }

    #[test]
    fn the_state_is_small() {
        assert!(size_of::<ImapBoundaries>() < 100, "{}", size_of::<ImapBoundaries>());
    }

    #[test]
    fn a_boundary_is_behind_a_complete_response() {
        check(&[
            (upstream(""), true),
            (upstream("* OK hi"), false),
            (upstream("\r"), false),
            (upstream("\n"), true),
            (upstream("+ idling\r\n"), true),
            (upstream("* 1 EXISTS\n"), false),
            (upstream("\r\n"), true),
        ]);
    }

    #[test]
    fn there_is_no_boundary_within_a_response_with_literals() {
        check(&[
            (upstream("* 1 FETCH (BODY[1] {12}\r\n"), false),
            (upstream("\r\n* OK x\r\n\r\n"), false),
            (upstream(" BODY[2] ~{2}\r\n"), false),
            (upstream("\r\n"), false),
            (upstream(" BODY[3] {0}\r\n"), false),
            (upstream(")\r\n"), true),
            (upstream("* 2 FETCH (ENVELOPE (\"a {3}\" NIL {3+}\r\n"), false),
            (upstream("{9}"), false),
            (upstream("\r\n"), true),
        ]);
    }

    #[test]
    fn braces_that_announce_nothing_are_text() {
        check(&[
            (upstream("* LIST () \"/\" {}\r\n"), true),
            (upstream("* LIST () \"/\" {x1}\r\n"), true),
            (upstream("* LIST () \"/\" {1+2}\r\n"), true),
            (upstream("* LIST () \"/\" {1} \r\n"), true),
            (upstream("* LIST () \"/\" {10000000000000000000}\r\n"), true),
            (upstream("* LIST () \"/\" {{2}\r\n"), false),
            (upstream("..\r\n"), true),
        ]);
    }

    #[test]
    fn a_text_that_looks_like_a_literal_ends_all_boundaries() {
        for text in ["A OK see {3}\r\n", "* NO see {3}\r\n", "+ {3}\r\n", "* BYE {3}\r\n"] {
            check(&[(upstream(text), false), (upstream("* OK\r\n"), false)]);
        }
    }

    #[test]
    fn once_compress_is_agreed_there_is_no_boundary() {
        for command in ["A COMPRESS DEFLATE\r\n", "A compress deflate\n", "A  CoMpReSs"] {
            check(&[
                (client("A NOOP\r\nB IDLE\r\nDONE\r\n"), true),
                (client(command), false),
                (upstream("* 1 EXISTS\r\n"), false),
                (upstream("A OK deflating\r\n"), false),
                (upstream("A NO not\r\n"), false),
            ]);
        }
        check(&[
            (client("A APPEND COMPRESS {3+}\r\n"), true),
            (client("abc\r\n"), true),
            (client("B COMPRESS\r\n"), false),
        ]);
    }

    #[test]
    fn a_refused_compress_changes_nothing() {
        for refusal in ["A NO not today\r\n", "A bad what?\r\n", "A BAD\r\n"] {
            check(&[
                (client("A COMPRESS DEFLATE\r\n"), false),
                (upstream("* LIST {6}\r\nA NO x\r\n"), false),
                (upstream("B NO not this\r\n"), false),
                (upstream(refusal), true),
                (client("A NOOP\r\n"), true),
                (client("B COMPRESS DEFLATE\r\n"), false),
                (upstream("B OK deflating\r\n"), false),
            ]);
        }
    }

    #[test]
    fn where_the_answer_to_compress_is_in_doubt_boundaries_end() {
        let lost = |command: &str, answer: &str| {
            check(&[(client(command), false), (upstream(answer), false)]);
        };
        lost("A COMPRESS DEFLATE\r\n", "A MAYBE\r\n");
        lost("A COMPRESS DEFLATE\r\n", "A NOTED\r\n");
        lost("A COMPRESS DEFLATE\r\nB NOOP\r\n", "A NO\r\n");
        lost("A COMPRESS DEFLATE", "A NO too early\r\n");
        lost("A COMPRESS {7+}\r\nDEFLATE\r\n", "A NO not\r\n");
        lost("0123456789abc COMPRESS DEFLATE\r\n", "0123456789abc NO not\r\n");
        check(&[
            (client("0123456789ab COMPRESS DEFLATE\r\n"), false),
            (upstream("0123456789ab NO not\r\n"), true),
        ]);
    }

    #[test]
    fn the_word_elsewhere_is_not_the_command() {
        check(&[
            (client("A LIST \"\" COMPRESS\r\nCOMPRESS NOOP\r\nB COMPRES S\r\n"), true),
            (client("A APPEND x {23}\r\n"), true),
            (upstream("+ go\r\n"), true),
            (client("\r\nA COMPRESS DEFLATE\r\n."), true),
            (client(" ~{22+}\r\n\r\nA COMPRESS DEFLATE\r\n"), true),
            (client("\r\n"), true),
            (client("B AUTHENTICATE XOAUTH2\r\nCOMPRESS\r\n"), true),
        ]);
    }

    #[test]
    fn a_refused_literal_is_followed_by_a_command() {
        check(&[
            (client("A APPEND x {400}\r\n"), true),
            (upstream("* 1 EXISTS\r\nAA NO x\r\nB OK x\r\n"), true),
            (upstream("* LIST {6}\r\nA NO x\r\n"), true),
            (upstream("A NO [TOOBIG] no\r\n"), true),
            (client("A COMPRESS DEFLATE\r\n"), false),
        ]);
        check(&[
            (client("A LOGIN {0}\r\n"), true),
            (upstream("A BAD no\r\n"), true),
            (client("A COMPRESS DEFLATE\r\n"), false),
        ]);
        // Too late: the literal has begun, so the client has to finish it.
        check(&[
            (client("A APPEND x {22}\r\n\r\n"), true),
            (upstream("A NO no\r\n"), true),
            (client("A COMPRESS DEFLATE\r\n"), true),
            (client("\r\nA COMPRESS DEFLATE\r\n"), false),
        ]);
        // A literal that does not wait is not taken back.
        check(&[
            (client("A APPEND x {21+}\r\n"), true),
            (upstream("A NO no\r\n"), true),
            (client("\r\nA COMPRESS DEFLATE\n\r\n"), true),
        ]);
    }

    #[test]
    fn where_the_sides_could_disagree_on_a_literal_boundaries_end() {
        check(&[(client("A APPEND x {3}\n"), false)]);
        check(&[(client("0123456789abcdef APPEND x {3}\r\n"), false)]);
        check(&[(client("0123456789abcde APPEND x {3}\r\n"), true)]);
    }

    #[test]
    fn an_unconnected_mailbox_is_remarked_even_where_there_is_no_boundary() {
        let mut boundaries = ImapBoundaries::new();
        boundaries.watch_client(b"A COMPRESS DEFLATE\r\n");
        boundaries.watch_upstream(b"A BAD User is authenticated but not connected.\r\n");
        assert_eq!(boundaries.take_remark(), Some(UpstreamRemark::NotConnected));
        assert_eq!(boundaries.take_remark(), None);
    }

    /// The octets that a line announces, found the plain way.
    fn announced(line: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(line).ok()?.strip_suffix('}')?;
        let digits = text.get(text.rfind('{')? + 1..)?;
        let digits = digits.strip_suffix('+').unwrap_or(digits);
        let is_number = (1..=19).contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
        is_number.then(|| digits.parse().unwrap())
    }

    /// Whether an upstream that sent all of `stream` is at a boundary, found with the whole stream at hand.
    fn model(mut stream: &[u8]) -> bool {
        'response: loop {
            if stream.is_empty() {
                return true;
            }
            let mut is_continued = false;
            loop {
                let Some(end) = stream.windows(2).position(|pair| pair == b"\r\n") else {
                    return false;
                };
                let (line, behind) = (&stream[..end], &stream[end + 2..]);
                let Some(octets) = announced(line) else {
                    stream = behind;
                    continue 'response;
                };
                let text = String::from_utf8_lossy(line).into_owned();
                let word = text
                    .strip_prefix("* ")
                    .and_then(|text| text.split(['\r', '\n', ' ']).next());
                if !is_continued && word.is_none_or(|it| ["OK", "NO", "BAD", "BYE", "PREAUTH"].contains(&it)) {
                    return false;
                }
                if behind.len() <= octets {
                    return false;
                }
                stream = &behind[octets..];
                is_continued = true;
            }
        }
    }

    fn fragments() -> impl Strategy<Value = String> {
        let fragments = [
            "* 1 FETCH (BODY[] {3}\r\n",
            "* OK x {3}\r\n",
            "A OK\r\n",
            "{0}\r\n",
            "~{2}\r\n",
            "{11+}\r\n",
            "{5}",
            "\r\n",
            "\r",
            "\n",
            "* ",
            "abc",
            "{",
            "12",
            "+",
            "}",
            "* LIST () \"/\" x\r\n",
            " )\r\n",
            "* OKAY {1}\r\n",
            "00000000000000000001",
        ];
        proptest::collection::vec(proptest::sample::select(fragments.to_vec()), 0..16).prop_map(|all| all.concat())
    }

    fn exchanges() -> impl Strategy<Value = Vec<Said>> {
        let commands = [
            "A NOOP\r\n",
            "A APPEND x {7}\r\n",
            "B APPEND x {0}\r\n",
            "A APPEND x {3+}\r\n",
            "abc",
            "\r\n",
            "A COMPRESS X\r\n",
            "DONE\r\n",
            "{2}\r\n",
            "A\n",
        ];
        let replies = [
            "A OK x\r\n",
            "A NO x\r\n",
            "B NO x\r\n",
            "+ \r\n",
            "* LIST {4}\r\n",
            "ab",
            "\r\n",
            "A BAD",
        ];
        proptest::collection::vec(
            prop_oneof![
                proptest::sample::select(commands.to_vec()).prop_map(client),
                proptest::sample::select(replies.to_vec()).prop_map(upstream),
            ],
            0..24,
        )
    }

    proptest! {
        #[test]
        fn the_upstreams_boundaries_are_the_models(stream in fragments(), piece in 1usize..40) {
            let mut boundaries = ImapBoundaries::new();
            let mut seen = 0;
            for bytes in stream.as_bytes().chunks(piece) {
                boundaries.watch_upstream(bytes);
                seen += bytes.len();
                prop_assert_eq!(boundaries.at_boundary(), model(&stream.as_bytes()[..seen]), "after {}", seen);
            }
        }

        #[test]
        fn every_split_of_both_directions_comes_to_the_same(said in exchanges(), piece in 1usize..12) {
            prop_assert_eq!(watch(&said, piece), watch(&said, usize::MAX));
        }

        #[test]
        fn arbitrary_bytes_are_followed_the_same_in_any_pieces(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1usize..40,
        ) {
            let (mut whole, mut split) = (ImapBoundaries::new(), ImapBoundaries::new());
            whole.watch_client(&bytes);
            whole.watch_upstream(&bytes);
            bytes.chunks(piece).for_each(|it| split.watch_client(it));
            bytes.chunks(piece).for_each(|it| split.watch_upstream(it));
            prop_assert_eq!(whole.at_boundary(), split.at_boundary());
        }
    }
}
