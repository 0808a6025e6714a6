//! Where a goodbye would be understood in a relayed SMTP session: [`SmtpBoundaries`].
//!
//! A `421` may come instead of any reply (RFC 5321 §3.8), so it is understood where the client has an answer to all that it
//! said and is about to say something new: no reply outstanding, both streams at the beginning of a line, and the client not
//! within the text of a message or a chunk. So commands and replies are counted against each other, and what is no command is
//! skipped:
//!
//! ```text
//! Command ──(DATA)──> Invitation ──(354)──> Message ──(CRLF . CRLF: one reply more)──> Command
//!    │ ^                  └──(4xx, 5xx)──> Command
//!    │ └──(its octets)──┐
//!    └──(BDAT n)──> Chunk
//! ```
//!
//! Nothing is buffered: of a command its first letters are kept and the size that BDAT announces, of a reply its code.
//!
//! **In doubt there is no boundary,** and there will be none; the session then ends without a word, which every client
//! survives. That is: after AUTH and STARTTLS, which have exchanges of their own and no business behind a login; where client
//! and upstream could disagree on where a line or a command ends (bare CR or LF, an empty line, a leading space, too long a line);
//! where a client sends a message before it is invited to; where a chunk is refused by an upstream that may not know the
//! command; where the upstream says more than it was asked; and once it has said goodbye itself.

use std::sync::LazyLock;

use memchr::{memchr, memmem};

use crate::limits::UPSTREAM_LINE_BYTES_MAX;
use crate::proto::dialogue::Boundaries;

/// Follows both directions of a relayed session. Less than 100 bytes; allocates nothing.
#[derive(Debug, Default)]
pub struct SmtpBoundaries {
    client: ClientStream,
    upstream: UpstreamStream,
    replies: Outstanding,
    /// Whether there will be no boundary any more. Nothing is looked at from then on.
    is_lost: bool,
}

impl SmtpBoundaries {
    /// For a session whose login has just been answered: both streams are at the beginning of a line.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Boundaries for SmtpBoundaries {
    fn watch_client(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            self.is_lost = self.client.watch(bytes, &mut self.replies).is_err();
        }
    }

    fn watch_upstream(&mut self, bytes: &[u8]) {
        if !self.is_lost {
            let followed = self.upstream.watch(bytes, &mut self.client, &mut self.replies);
            self.is_lost = followed.is_err();
        }
    }

    fn at_boundary(&self) -> bool {
        !self.is_lost && self.replies.0 == 0 && self.client.is_between_commands() && self.upstream.is_between_replies()
    }
}

/// The streams cannot be followed any more.
#[derive(Debug)]
struct Lost;

/// Replies that the upstream owes.
#[derive(Debug, Default)]
struct Outstanding(u32);

impl Outstanding {
    fn owe(&mut self) -> Result<(), Lost> {
        self.0 = self.0.checked_add(1).ok_or(Lost)?;
        Ok(())
    }

    /// Whether the reply that came was the last one owed.
    fn settle(&mut self) -> Result<bool, Lost> {
        self.0 = self.0.checked_sub(1).ok_or(Lost)?;
        Ok(self.0 == 0)
    }
}

/// The client's side.
#[derive(Debug, Default)]
struct ClientStream {
    place: ClientPlace,
    has_sent_chunks: bool,
}

#[derive(Debug)]
enum ClientPlace {
    Command(CommandLine),
    /// Behind DATA, up to its reply: the last one that is owed, since DATA ends a group of commands (RFC 2920 §3.1).
    Invitation,
    /// In the text of a message; how many bytes of its end were just seen.
    Message(usize),
    /// In a chunk (RFC 3030) of which so many octets are still to come: never none.
    Chunk(u64),
}

impl Default for ClientPlace {
    fn default() -> Self {
        Self::Command(CommandLine::default())
    }
}

impl ClientStream {
    fn watch(&mut self, mut bytes: &[u8], replies: &mut Outstanding) -> Result<(), Lost> {
        while !bytes.is_empty() {
            bytes = match &mut self.place {
                ClientPlace::Command(line) => {
                    let Some((part, behind)) = split_at_lf(bytes) else {
                        return line.extend(bytes);
                    };
                    line.extend(part)?;
                    let command = line.end()?;
                    self.on_command(command, replies)?;
                    behind
                }
                // A message, or commands: the upstream's reply will tell, and it is too early to know.
                ClientPlace::Invitation => return Err(Lost),
                ClientPlace::Message(seen) => {
                    let Some(behind) = behind_end_of_message(seen, bytes) else {
                        return Ok(());
                    };
                    replies.owe()?;
                    self.place = ClientPlace::default();
                    behind
                }
                ClientPlace::Chunk(octets) => {
                    let skipped = usize::try_from(*octets).unwrap_or(usize::MAX).min(bytes.len());
                    *octets -= skipped as u64;
                    if *octets == 0 {
                        self.place = ClientPlace::default();
                    }
                    bytes.get(skipped..).unwrap_or_default()
                }
            };
        }
        Ok(())
    }

    fn on_command(&mut self, command: Command, replies: &mut Outstanding) -> Result<(), Lost> {
        replies.owe()?;
        self.place = match command {
            Command::Data => ClientPlace::Invitation,
            Command::Chunk(octets) => {
                self.has_sent_chunks = true;
                match octets {
                    0 => ClientPlace::default(),
                    _ => ClientPlace::Chunk(octets),
                }
            }
            Command::Other => ClientPlace::default(),
        };
        Ok(())
    }

    /// Heeds a reply. `is_last`: none is owed any more.
    fn on_reply(&mut self, code: u16, is_last: bool) -> Result<(), Lost> {
        let answers_data = is_last && matches!(self.place, ClientPlace::Invitation);
        match code {
            // The session ends: there is nothing left to say.
            221 | 421 => return Err(Lost),
            354 if answers_data => self.place = ClientPlace::Message(LINE_START),
            400.. if answers_data => self.place = ClientPlace::default(),
            // Something that is not followed here has been agreed.
            300..=399 => return Err(Lost),
            _ if answers_data => return Err(Lost),
            // "Unknown", "syntax": of BDAT, maybe, and then its octets are taken for commands.
            500..=502 | 504 if self.has_sent_chunks => return Err(Lost),
            _ => {}
        }
        Ok(())
    }

    fn is_between_commands(&self) -> bool {
        matches!(&self.place, ClientPlace::Command(line) if line.length == 0)
    }
}

/// A command line so far, without LF.
#[derive(Debug, Default)]
struct CommandLine {
    /// In upper case.
    verb: [u8; VERB_BYTES],
    length: usize,
    ends_in_cr: bool,
    size: ChunkSize,
}

/// What of a command matters.
#[derive(Debug)]
enum Command {
    Data,
    /// BDAT, with the octets that follow.
    Chunk(u64),
    Other,
}

/// The argument of BDAT so far (RFC 3030 §2).
#[derive(Debug, Default, Clone, Copy)]
enum ChunkSize {
    #[default]
    Missing,
    Digits {
        count: u8,
        octets: u64,
    },
    /// Something follows it: LAST, or spaces.
    Ended(u64),
    Malformed,
}

impl CommandLine {
    fn extend(&mut self, part: &[u8]) -> Result<(), Lost> {
        for byte in part {
            // A bare CR ends a line for some.
            if self.ends_in_cr || self.length == COMMAND_LINE_BYTES_MAX {
                return Err(Lost);
            }
            if let Some(letter) = self.verb.get_mut(self.length) {
                *letter = byte.to_ascii_uppercase();
            } else if self.verb == *b"BDAT " {
                self.size = self.size.and_then(*byte);
            }
            self.length += 1;
            self.ends_in_cr = *byte == b'\r';
        }
        Ok(())
    }

    /// The line has ended with LF.
    fn end(&self) -> Result<Command, Lost> {
        // An empty line is answered by some and ignored by others, as spaces before a verb are.
        if !self.ends_in_cr || !self.verb.first().is_some_and(u8::is_ascii_uppercase) {
            return Err(Lost);
        }
        let (verb, behind) = self.verb.split_first_chunk::<4>().ok_or(Lost)?;
        if behind.first().is_some_and(u8::is_ascii_uppercase) {
            return match self.verb == *b"START" {
                true => Err(Lost),
                false => Ok(Command::Other),
            };
        }
        match verb {
            b"AUTH" => Err(Lost),
            b"DATA" => Ok(Command::Data),
            b"BDAT" => match self.size {
                ChunkSize::Digits { octets, .. } | ChunkSize::Ended(octets) => Ok(Command::Chunk(octets)),
                ChunkSize::Missing | ChunkSize::Malformed => Err(Lost),
            },
            _ => Ok(Command::Other),
        }
    }
}

impl ChunkSize {
    fn and_then(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Ended(octets), _) | (Self::Digits { octets, .. }, b' ' | b'\r') => Self::Ended(octets),
            (Self::Missing, b'0'..=b'9') => Self::Digits {
                count: 1,
                octets: u64::from(byte - b'0'),
            },
            (Self::Digits { count, octets }, b'0'..=b'9') if count < CHUNK_DIGITS_MAX => Self::Digits {
                count: count + 1,
                octets: octets * 10 + u64::from(byte - b'0'),
            },
            _ => Self::Malformed,
        }
    }
}

/// The upstream's side: replies of one or more lines.
#[derive(Debug, Default)]
struct UpstreamStream {
    /// The first bytes of the line at hand: code and separator.
    head: [u8; HEAD_BYTES],
    length: usize,
    ends_in_cr: bool,
    /// The code of a reply that goes on.
    begun: Option<u16>,
}

impl UpstreamStream {
    fn watch(&mut self, mut bytes: &[u8], client: &mut ClientStream, replies: &mut Outstanding) -> Result<(), Lost> {
        while !bytes.is_empty() {
            let Some((part, behind)) = split_at_lf(bytes) else {
                return self.extend(bytes);
            };
            self.extend(part)?;
            if let Some(code) = self.end_line()? {
                let is_last = replies.settle()?;
                client.on_reply(code, is_last)?;
            }
            bytes = behind;
        }
        Ok(())
    }

    fn extend(&mut self, part: &[u8]) -> Result<(), Lost> {
        let Some(last) = part.last() else {
            return Ok(());
        };
        let free = self.head.iter_mut().skip(self.length);
        free.zip(part).for_each(|(slot, byte)| *slot = *byte);
        self.length += part.len();
        self.ends_in_cr = *last == b'\r';
        match self.length > UPSTREAM_LINE_BYTES_MAX {
            true => Err(Lost),
            false => Ok(()),
        }
    }

    /// The line has ended with LF. The reply's code, if it was its last line.
    fn end_line(&mut self) -> Result<Option<u16>, Lost> {
        let ends_in_crlf = self.ends_in_cr;
        let [class, tens, units, separator] = self.head;
        let length = self.length;
        (self.length, self.ends_in_cr) = (0, false);
        let is_code = (b'2'..=b'5').contains(&class) && tens.is_ascii_digit() && units.is_ascii_digit();
        // The shortest is a code and CR.
        if !ends_in_crlf || !is_code || length < HEAD_BYTES {
            return Err(Lost);
        }
        let code = [class, tens, units]
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        if self.begun.is_some_and(|begun| begun != code) {
            return Err(Lost);
        }
        let goes_on = match separator {
            b'-' => true,
            b' ' => false,
            b'\r' if length == HEAD_BYTES => false,
            _ => return Err(Lost),
        };
        self.begun = goes_on.then_some(code);
        Ok((!goes_on).then_some(code))
    }

    fn is_between_replies(&self) -> bool {
        self.length == 0 && self.begun.is_none()
    }
}

/// What follows the end of a message, if it ends in `bytes`; `seen` is how much of the end stood before. Only CRLF . CRLF is
/// an end to everybody: if the upstream takes something else for one, it will reply without being asked.
fn behind_end_of_message<'a>(seen: &mut usize, bytes: &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = bytes;
    while *seen > 0 {
        let (byte, behind) = rest.split_first()?;
        *seen = match END_OF_MESSAGE.get(*seen) == Some(byte) {
            true => *seen + 1,
            // Wherever it fails, only this byte can begin it anew.
            false => usize::from(END_OF_MESSAGE.first() == Some(byte)),
        };
        rest = behind;
        if *seen == END_OF_MESSAGE.len() {
            return Some(rest);
        }
    }
    if let Some(at) = END_FINDER.find(rest) {
        return rest.get(at + END_OF_MESSAGE.len()..);
    }
    *seen = (1..END_OF_MESSAGE.len())
        .rev()
        .find(|count| END_OF_MESSAGE.get(..*count).is_some_and(|begin| rest.ends_with(begin)))
        .unwrap_or(0);
    None
}

fn split_at_lf(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'\n', bytes)?;
    let (line, behind) = bytes.split_at(at);
    Some((line, behind.get(1..).unwrap_or_default()))
}

/// RFC 5321 §4.1.1.4.
const END_OF_MESSAGE: &[u8] = b"\r\n.\r\n";

/// How much of the end was seen where a line begins: the CRLF of the command counts, so that an empty message is `.` CRLF.
const LINE_START: usize = 2;

static END_FINDER: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(END_OF_MESSAGE));

/// As many letters as tell DATA and BDAT from longer words.
const VERB_BYTES: usize = 5;

/// A code, and what follows it.
const HEAD_BYTES: usize = 4;

/// Any number with so many digits fits into 64 bits.
const CHUNK_DIGITS_MAX: u8 = 19;

/// Bytes of a command line without LF. RFC 5321 §4.5.3.1.4 knows 512 octets and whatever an extension adds; Dovecot's
/// submission service takes about 1,024, and what becomes of a longer line differs between upstreams.
const COMMAND_LINE_BYTES_MAX: usize = 1000;

#[cfg(test)]
#[path = "boundary_tests.rs"]
mod tests;
