//! Cuts a client's stream into complete lines or IMAP commands, before any grammar looks at it.
//!
//! What lives here: where a command ends, and the caps on how long it may be. What may not: the meaning of a command, and
//! replies. [`Framer::poll_line`] serves the protocols and exchanges that know only lines, and what a POP3 upstream says;
//! [`Framer::poll_command`] also follows IMAP's literals (RFC 9051 §4.3, RFC 7888).
//!
//! Every byte is looked at once: the place up to which the stream is known is kept between calls, so that a peer who sends
//! one byte at a time costs no more than one who sends all at once, and every split of a stream is cut alike. A literal's
//! announced size is compared with the caps and never allocated. Bytes are wiped when they leave the buffer, since some of
//! them are a login's secret.
//!
//! A line may end in a bare LF: old clients and people with `nc` send it.
//!
//! How it fails: a line over its cap, or a literal over its cap that the client sends without waiting for leave, makes the
//! rest of the stream unintelligible; after [`Cut::Lost`] nothing more is cut. A synchronising literal over its cap is
//! only refused ([`Cut::Refused`]), since the client waits and can be told.

use std::fmt;

use bytes::Bytes;
use memchr::memchr;
use zeroize::{Zeroize, Zeroizing};

/// Follows one client's stream.
pub struct Framer {
    limits: FrameLimits,
    /// What has arrived and not left yet, behind `start` bytes that have left and are wiped.
    buffer: Vec<u8>,
    start: usize,
    command: Progress,
    longer: Option<Longer>,
    is_lost: bool,
}

/// Commands that may be longer than [`FrameLimits`] allows to the others.
#[derive(Debug, Clone, Copy)]
pub struct Longer {
    /// Whether a command that begins so is one of them.
    pub is_longer: fn(&[u8]) -> bool,
    /// Bytes of all of its lines and literals together. No literal may be larger than others' for that.
    pub bytes_max: usize,
}

/// Caps on a command.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Bytes of a line without its end. In a command with literals: of all its lines together.
    pub line_bytes_max: usize,
    /// Bytes of one literal.
    pub literal_bytes_max: usize,
}

/// What was cut off the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Cut {
    /// A complete line or command.
    Frame(Frame),
    /// The command so far ends with the announcement of a synchronising literal within the caps, and the client waits for
    /// leave to send it. Whoever does not want it calls [`Framer::drop_command`].
    Announced,
    /// The command so far announced a synchronising literal over the caps. It has been dropped; the stream goes on.
    Refused(Frame),
    /// The command so far went over a cap in a way after which the stream cannot be trusted. The last cut.
    Lost(Overlong, Frame),
}

/// Which cap was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlong {
    /// [`FrameLimits::line_bytes_max`].
    Line,
    /// [`FrameLimits::literal_bytes_max`], or all literals of one command together.
    Literal,
}

/// A line went over [`FrameLimits::line_bytes_max`]; the stream cannot be trusted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineTooLong;

/// A line or command without its last line's end; literals stand in it as they were sent. Wiped when dropped.
#[derive(PartialEq, Eq)]
pub struct Frame(Zeroizing<Vec<u8>>);

/// How far the current command is known. All places count from its first byte.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// No line end that matters lies before this place.
    scanned: usize,
    /// Where the current line begins: at the command's begin or behind a literal.
    line_begin: usize,
    /// Bytes of the lines before the current one.
    line_bytes: usize,
    /// Bytes of all literals announced.
    literal_bytes: usize,
    /// Where the literal that is being received ends.
    literal_end: Option<usize>,
    /// Whether it is one of the [`Longer`] ones; asked once, when that matters.
    is_longer: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Line,
    Command,
}

/// A literal's announcement at the end of a line.
struct Announcement {
    bytes: usize,
    waits: bool,
}

impl Framer {
    /// A framer at the begin of a stream.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            start: 0,
            command: Progress::default(),
            longer: None,
            is_lost: false,
        }
    }

    /// The same with commands that may be longer than others.
    #[must_use]
    pub fn with_longer(mut self, longer: Longer) -> Self {
        self.longer = Some(longer);
        self
    }

    /// Takes in what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_lost {
            return;
        }
        self.make_room(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete line.
    ///
    /// # Errors
    /// [`LineTooLong`], after which nothing more is cut.
    pub fn poll_line(&mut self) -> Option<Result<Frame, LineTooLong>> {
        Some(match self.poll(Unit::Line)? {
            Cut::Frame(line) => Ok(line),
            // Without literals, this is the only thing that can go wrong with a line.
            Cut::Lost(..) | Cut::Refused(_) | Cut::Announced => Err(LineTooLong),
        })
    }

    /// The next complete IMAP command, or what is to be known of an unfinished one.
    pub fn poll_command(&mut self) -> Option<Cut> {
        self.poll(Unit::Command)
    }

    /// The command so far, after [`Cut::Announced`]: up to the announced literal.
    pub fn command_so_far(&self) -> &[u8] {
        self.live(0, self.command.scanned)
    }

    /// Drops the command so far, after [`Cut::Announced`]: its literal will not be sent.
    pub fn drop_command(&mut self) {
        self.consume(self.command.scanned);
    }

    /// Lets go of at most `count` bytes that have arrived behind the last cut, because they are no lines; says how many
    /// there were.
    pub fn discard(&mut self, count: usize) -> usize {
        let gone = count.min(self.buffered());
        self.consume(gone);
        gone
    }

    /// Bytes held.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// What has arrived behind the last cut, untouched.
    pub fn into_rest(self) -> Bytes {
        Bytes::copy_from_slice(self.live(0, self.buffered()))
    }

    fn poll(&mut self, unit: Unit) -> Option<Cut> {
        loop {
            if self.is_lost || !self.pass_literal() {
                return None;
            }
            let Some(found) = memchr(b'\n', self.live(self.command.scanned, self.buffered())) else {
                self.command.scanned = self.buffered();
                return self
                    .line_is_overlong(self.command.scanned, unit)
                    .then(|| self.lose(Overlong::Line, self.limits.line_bytes_max));
            };
            let line_feed = self.command.scanned + found;
            if self.line_is_overlong(line_feed, unit) {
                return Some(self.lose(Overlong::Line, self.limits.line_bytes_max));
            }
            self.command.scanned = line_feed + 1;
            let end = self.line_end(line_feed);
            let line = self.live(self.command.line_begin, end);
            let announced = if unit == Unit::Command {
                Announcement::at_end_of(line)
            } else {
                None
            };
            let Some(announced) = announced else {
                return Some(Cut::Frame(self.take(end)));
            };
            if let Some(cut) = self.announce(&announced, end) {
                return Some(cut);
            }
        }
    }

    /// Moves on to the line behind the literal that is being received. False while the literal is incomplete.
    fn pass_literal(&mut self) -> bool {
        let Some(end) = self.command.literal_end else {
            return true;
        };
        if self.buffered() < end {
            return false;
        }
        self.command.literal_end = None;
        self.command.line_begin = end;
        self.command.scanned = end;
        true
    }

    /// Judges a literal announced by the line that ends at `end`. `None`: go on, it is on its way.
    fn announce(&mut self, announced: &Announcement, end: usize) -> Option<Cut> {
        let in_all = self.command.literal_bytes.saturating_add(announced.bytes);
        let all_max = self.limits.literal_bytes_max.saturating_mul(LITERALS_FULL_SIZED);
        let bytes = self.command.line_bytes + (end - self.command.line_begin);
        if announced.bytes > self.limits.literal_bytes_max
            || (in_all > all_max && !self.fits_longer(bytes.saturating_add(in_all), end))
        {
            return Some(if announced.waits {
                Cut::Refused(self.take(end))
            } else {
                self.lose(Overlong::Literal, end)
            });
        }
        self.command.line_bytes += end - self.command.line_begin;
        self.command.literal_bytes = in_all;
        self.command.literal_end = Some(self.command.scanned + announced.bytes);
        announced.waits.then_some(Cut::Announced)
    }

    /// The place of the line end whose LF is, or would be, at `line_feed`.
    fn line_end(&self, line_feed: usize) -> usize {
        match self.live(self.command.line_begin, line_feed) {
            [.., b'\r'] => line_feed - 1,
            _ => line_feed,
        }
    }

    fn line_is_overlong(&mut self, line_feed: usize, unit: Unit) -> bool {
        let bytes = self.command.line_bytes + self.line_end(line_feed) - self.command.line_begin;
        let in_all = bytes.saturating_add(self.command.literal_bytes);
        bytes > self.limits.line_bytes_max && !(unit == Unit::Command && self.fits_longer(in_all, line_feed))
    }

    /// Whether the command, of which `known` bytes are there, is one that may have so many `bytes`.
    fn fits_longer(&mut self, bytes: usize, known: usize) -> bool {
        let Some(Longer { is_longer, bytes_max }) = self.longer else {
            return false;
        };
        // By its first bytes alone, so that it does not matter how many more have arrived.
        let begin = known.min(self.limits.line_bytes_max);
        let is_one = match self.command.is_longer {
            Some(is_one) => is_one,
            None => is_longer(self.live(0, begin)),
        };
        self.command.is_longer = Some(is_one);
        is_one && bytes <= bytes_max
    }

    /// Gives the stream up. The frame ends at `end`, which has arrived by now however the stream was split.
    fn lose(&mut self, overlong: Overlong, end: usize) -> Cut {
        self.is_lost = true;
        let frame = Frame::copy_of(self.live(0, end));
        self.consume(self.buffered());
        Cut::Lost(overlong, frame)
    }

    /// Takes the command up to `end` out of the buffer, and all that is scanned with it.
    fn take(&mut self, end: usize) -> Frame {
        let frame = Frame::copy_of(self.live(0, end));
        self.consume(self.command.scanned);
        frame
    }

    fn live(&self, from: usize, to: usize) -> &[u8] {
        self.buffer.get(self.start + from..self.start + to).unwrap_or_default()
    }

    /// Lets the first `count` bytes go, wiped.
    fn consume(&mut self, count: usize) {
        self.command = Progress::default();
        let end = self.start + count;
        if let Some(gone) = self.buffer.get_mut(self.start..end) {
            gone.zeroize();
        }
        self.start = end;
        if self.start >= self.buffer.len() {
            // A client that waits holds no memory.
            self.buffer = Vec::new();
            self.start = 0;
        }
    }

    /// Makes room for `more` bytes without leaving unwiped copies behind, as a growing `Vec` would. Doubles, and moves
    /// bytes only when at least as many have left or arrived since: linear over a stream.
    fn make_room(&mut self, more: usize) {
        let held = self.buffered();
        if self.buffer.len() + more <= self.buffer.capacity() {
            return;
        }
        let mut grown = Vec::with_capacity((held + more).max(held * 2));
        grown.extend_from_slice(self.live(0, held));
        self.buffer.zeroize();
        self.buffer = grown;
        self.start = 0;
    }
}

impl Drop for Framer {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

impl fmt::Debug for Framer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framer")
            .field("buffered", &self.buffered())
            .field("command", &self.command)
            .field("is_lost", &self.is_lost)
            .finish_non_exhaustive()
    }
}

impl Frame {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn copy_of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

impl Announcement {
    /// `{n}` or `{n+}` at the end of `line`. A size too large for the machine counts as the largest.
    fn at_end_of(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"}")?;
        let (line, waits) = match line.strip_suffix(b"+") {
            Some(line) => (line, false),
            None => (line, true),
        };
        let digits = line
            .rsplit(|byte| !byte.is_ascii_digit())
            .next()
            .filter(|digits| !digits.is_empty())?;
        let before = line.get(..line.len() - digits.len())?;
        before.ends_with(b"{").then(|| Self {
            bytes: digits.iter().fold(0_usize, |size, digit| {
                size.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
            }),
            waits,
        })
    }
}

/// Literals of the full size that one command may carry: LOGIN has two.
const LITERALS_FULL_SIZED: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: FrameLimits = FrameLimits {
        line_bytes_max: 32,
        literal_bytes_max: 8,
    };

    #[test]
    fn debug_output_shows_nothing_of_a_frame() {
        let mut framer = Framer::new(LIMITS);
        framer.push(b"A LOGIN x s3cret\r\nA LOGIN s3cret");
        let shown = format!("{framer:?} {:?} {framer:?}", framer.poll_command());
        assert!(shown.contains("bytes)") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn what_is_discarded_is_no_line_and_what_follows_is_one() {
        let mut framer = Framer::new(LIMITS);
        framer.push(b"BDAT 8\r\nQUIT\r\n");
        assert!(matches!(framer.poll_line(), Some(Ok(line)) if line.as_bytes() == b"BDAT 8"));
        assert_eq!(framer.discard(8), 6, "no more than has arrived");
        framer.push(b"xxNOOP\r\n");
        assert_eq!(framer.discard(2), 2, "no more than was asked for");
        assert!(matches!(framer.poll_line(), Some(Ok(line)) if line.as_bytes() == b"NOOP"));
        assert_eq!(framer.buffered(), 0);
    }

    /// All cuts of a stream that arrives in `pieces`, in a notation that tests can be written in.
    fn cuts(pieces: &[&[u8]], unit: Unit) -> Vec<String> {
        let mut framer = Framer::new(LIMITS);
        let mut cuts = Vec::new();
        for piece in pieces {
            framer.push(piece);
            while let Some(cut) = framer.poll(unit) {
                cuts.push(match cut {
                    Cut::Frame(frame) => String::from_utf8_lossy(frame.as_bytes()).into_owned(),
                    Cut::Announced => "announced".to_owned(),
                    Cut::Refused(frame) => format!("refused {}", String::from_utf8_lossy(frame.as_bytes())),
                    Cut::Lost(overlong, frame) => {
                        format!("lost {overlong:?} {}", String::from_utf8_lossy(frame.as_bytes()))
                    }
                });
            }
        }
        cuts
    }

    #[test]
    fn commands_are_cut_at_line_ends_outside_literals() {
        for (stream, expected) in [
            ("A NOOP\r\nB NOOP\r\n", &["A NOOP", "B NOOP"][..]),
            ("A NOOP\nB NOOP\n", &["A NOOP", "B NOOP"]),
            ("\r\n\n", &["", ""]),
            ("A NOOP\r", &[]),
            ("A\rB\r\n", &["A\rB"]),
            ("A {3}\r\n", &["announced"]),
            ("A {3}\r\nx\r\n y\r\n", &["announced", "A {3}\r\nx\r\n y"]),
            ("A {3+}\r\n\n\n\n y\r\n", &["A {3+}\r\n\n\n\n y"]),
            ("A {0}\r\n {0+}\n\nB\n", &["announced", "A {0}\r\n {0+}\n", "B"]),
            ("A {3+}\r\nab", &[]),
            ("A ~{1+}\r\n\0\r\n", &["A ~{1+}\r\n\0"]),
        ] {
            assert_eq!(cuts(&[stream.as_bytes()], Unit::Command), expected, "{stream:?}");
        }
    }

    #[test]
    fn what_only_looks_like_a_literal_is_none() {
        for stream in [
            "A {}\r\n",
            "A {+}\r\n",
            "A {-1}\r\n",
            "A {1 }\r\n",
            "A 1}\r\n",
            "A {1++}\r\n",
            "A {1}x\r\n",
        ] {
            assert_eq!(
                cuts(&[stream.as_bytes()], Unit::Command),
                [stream.trim_end()],
                "{stream:?}"
            );
        }
    }

    #[test]
    fn a_line_over_its_cap_is_an_error_and_the_last() {
        let mut framer = Framer::new(LIMITS);
        framer.push(b"USER joe\r\n");
        framer.push(&[b'x'; 33]);
        assert_eq!(framer.poll_line(), Some(Ok(Frame::copy_of(b"USER joe"))));
        assert_eq!(framer.poll_line(), Some(Err(LineTooLong)));
        framer.push(b"\r\nUSER joe\r\n");
        assert_eq!((framer.poll_line(), framer.buffered()), (None, 0));
    }

    #[test]
    fn lines_know_no_literals() {
        assert_eq!(cuts(&[b"A {3}\r\nabc\r\n"], Unit::Line), ["A {3}", "abc"]);
    }

    #[test]
    fn what_goes_over_a_cap_is_refused_or_ends_the_stream() {
        let long = "x".repeat(33);
        let full = "x".repeat(32);
        for (stream, expected) in [
            (format!("{full}\r\n"), vec![full.clone()]),
            (format!("{full}\r"), vec![]),
            (long.clone(), vec![format!("lost Line {full}")]),
            (format!("{long}\r\nA NOOP\r\n"), vec![format!("lost Line {full}")]),
            // The lines of one command count together.
            (
                format!("{} {{1+}}\r\n1{}\r\n", "x".repeat(14), "y".repeat(14)),
                vec![format!("lost Line {} {{1+}}\r\n1{}", "x".repeat(14), "y".repeat(10))],
            ),
            ("A {9}\r\nB\r\n".into(), vec!["refused A {9}".into(), "B".into()]),
            ("A {9+}\r\nB\r\n".into(), vec!["lost Literal A {9+}".into()]),
            (
                "A {4294967296}\r\nB\r\n".into(),
                vec!["refused A {4294967296}".into(), "B".into()],
            ),
            (
                "A {99999999999999999999}\r\n".into(),
                vec!["refused A {99999999999999999999}".into()],
            ),
            // Two literals of full size fit, a byte more does not.
            (
                "A {8+}\n12345678{8+}\n12345678{1}\nB\n".into(),
                vec!["refused A {8+}\n12345678{8+}\n12345678{1}".into(), "B".into()],
            ),
        ] {
            assert_eq!(cuts(&[stream.as_bytes()], Unit::Command), expected, "{stream:?}");
        }
    }

    #[test]
    fn a_longer_command_has_room_for_its_lines_and_literals_and_no_other_has() {
        let longer = Longer {
            is_longer: |begin| begin.starts_with(b"L "),
            bytes_max: 100,
        };
        let cuts_of = |stream: &str, piece: usize| {
            let mut framer = Framer::new(LIMITS).with_longer(longer);
            let mut seen = Vec::new();
            for bytes in stream.as_bytes().chunks(piece) {
                framer.push(bytes);
                while let Some(cut) = framer.poll_command() {
                    seen.push(match cut {
                        Cut::Frame(frame) => format!("frame of {}", frame.as_bytes().len()),
                        Cut::Announced => "announced".to_owned(),
                        Cut::Refused(_) => "refused".to_owned(),
                        Cut::Lost(overlong, _) => format!("lost {overlong:?}"),
                    });
                }
            }
            seen
        };
        let line = |bytes: usize| format!("L {}\r\n", "x".repeat(bytes - 2));
        let literals = |count: usize| format!("L{}\r\n", " {8+}\r\n12345678".repeat(count));
        for (stream, expected) in [
            (line(100) + "A NOOP\r\n", &["frame of 100", "frame of 6"][..]),
            (line(101), &["lost Line"]),
            (line(100).replace('L', "A"), &["lost Line"]),
            // More literals than others may have; each has 13 bytes, its line end not counted.
            (literals(5), &["frame of 76"]),
            (literals(9), &["lost Literal"]),
            (literals(3).replace('L', "A"), &["lost Literal"]),
            ("L {9}\r\n".to_owned(), &["refused"]),
            ("L {8}\r\n".to_owned(), &["announced"]),
        ] {
            for piece in 1..40 {
                assert_eq!(cuts_of(&stream, piece), expected, "{stream:?} in pieces of {piece}");
            }
        }
        // In an exchange of lines every one is as short as any.
        let mut framer = Framer::new(LIMITS).with_longer(longer);
        framer.push(line(40).as_bytes());
        assert_eq!(framer.poll_line(), Some(Err(LineTooLong)));
    }

    #[test]
    fn a_dropped_command_leaves_the_stream_in_step() {
        let mut framer = Framer::new(LIMITS);
        framer.push(b"A LOGIN u {8}\r\nB NOOP\r\nrest");
        assert_eq!(framer.poll_command(), Some(Cut::Announced));
        assert_eq!(framer.command_so_far(), b"A LOGIN u {8}\r\n");
        framer.drop_command();
        assert_eq!(framer.poll_command(), Some(Cut::Frame(Frame::copy_of(b"B NOOP"))));
        assert_eq!(framer.into_rest(), "rest");
    }

    #[test]
    fn memory_follows_what_is_held_and_not_what_is_announced() {
        let mut framer = Framer::new(FrameLimits {
            line_bytes_max: 8192,
            literal_bytes_max: usize::MAX,
        });
        framer.push(b"A LOGIN {4294967295+}\r\n");
        assert_eq!(framer.poll_command(), None);
        assert!(framer.buffer.capacity() < 1024);
        let mut framer = Framer::new(LIMITS);
        for _ in 0..100_000 {
            framer.push(b"A NOOP\r\n");
            assert!(framer.poll_command().is_some());
        }
        assert_eq!(framer.buffer.capacity(), 0);
    }

    /// Streams that are made of what framing cares about, so that most of them reach deep.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let token = prop::sample::select(vec![
            "A NOOP", "\r\n", "\n", "\r", "{3}\r\n", "{8+}\r\n", "{9}\r\n", "{9+}\r\n", "abc", "{", "}",
        ]);
        prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(crate::proto::testing::proptest_config("proptest-regressions/framing.txt"))]

        #[test]
        fn every_split_is_cut_like_the_whole(stream in stream(), splits in prop::collection::vec(0..200_usize, 0..6)) {
            let mut places: Vec<usize> = splits.into_iter().map(|place| place.min(stream.len())).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let pieces: Vec<&[u8]> = places.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            for unit in [Unit::Command, Unit::Line] {
                let whole = cuts(&[&stream], unit);
                prop_assert_eq!(&cuts(&pieces, unit), &whole);
                prop_assert_eq!(&cuts(&bytes, unit), &whole);
            }
        }

        #[test]
        fn no_byte_is_lost_or_invented_within_the_caps(lines in prop::collection::vec("[ -z]{0,32}", 0..20)) {
            let stream = lines.join("\r\n") + "\r\n";
            let expected: Vec<&str> = stream.trim_end_matches('\n').split('\n').map(|line| line.trim_end_matches('\r')).collect();
            prop_assert_eq!(cuts(&[stream.as_bytes()], Unit::Line), expected);
        }
    }
}
