//! The first command after a login, which shows that there is a mailbox behind it: providers let somebody in and refuse only
//! then (Exchange Online's "User is authenticated but not connected").
//!
//! It changes nothing: `EXAMINE` opens read-only (RFC 9051 §6.3.3), `MAIL` is taken back by `RSET` (RFC 5321 §4.1.1.5), and
//! `STAT` only counts (RFC 1939 §5).

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::connection::open;
use crate::connection::try_login::LoggedIn;
use crate::limits::{UPSTREAM_LINE_BYTES_MAX, UPSTREAM_LOGIN_BYTES_MAX, UPSTREAM_TEXT_CHARS_MAX};
use crate::net::stream::Stream;
use crate::proto::Protocol;
use crate::proto::framing::{FrameLimits, Framer, LineTooLong};

/// A command, until its reply is complete.
#[derive(Debug)]
struct Command {
    protocol: Protocol,
    line: String,
    /// Messages that the upstream counts, where it tells.
    messages: Option<u64>,
}

/// A leg that commands are given on.
struct Conversation<'a> {
    stream: &'a mut Stream,
    framer: Framer,
    heard: usize,
}

/// Gives the first command on a leg that is logged in, as `sender` where mail would be sent. Says what came of it, in words.
///
/// # Errors
/// In words: the upstream's refusal, or that no whole answer came `within` the time.
pub(super) async fn give(
    logged_in: &mut LoggedIn,
    protocol: Protocol,
    sender: &str,
    within: Duration,
) -> Result<String, String> {
    let mut command = Command::first(protocol, sender);
    let line = command.line.clone();
    let mut conversation = Conversation::on(logged_in);
    let exchange = async {
        let outcome = conversation.ask(&line, |answer| command.handle_line(answer)).await?;
        if protocol == Protocol::Smtp && outcome.is_ok() {
            // Whatever it answers, QUIT ends the transaction too.
            conversation
                .ask("RSET", |answer| ends_reply(answer).then_some(()))
                .await?;
        }
        outcome
    };
    let answered = timeout(within, exchange).await;
    answered.unwrap_or_else(|_| Err(format!("no answer to {} in time", without_tag(&line))))
}

impl<'a> Conversation<'a> {
    fn on(logged_in: &'a mut LoggedIn) -> Self {
        let mut framer = Framer::new(FrameLimits {
            line_bytes_max: UPSTREAM_LINE_BYTES_MAX,
            literal_bytes_max: 0,
        });
        framer.push(&std::mem::take(&mut logged_in.surplus));
        Self {
            stream: &mut logged_in.leg.stream,
            framer,
            heard: 0,
        }
    }

    /// Sends `line` and hands the answer's lines to `read` until that has made something of them.
    async fn ask<T>(&mut self, line: &str, mut read: impl FnMut(&[u8]) -> Option<T>) -> Result<T, String> {
        let broken = |error: std::io::Error| format!("the connection broke: {error}");
        let asked = without_tag(line);
        open::send(self.stream, format!("{line}\r\n").as_bytes())
            .await
            .map_err(broken)?;
        let mut buffer = open::buffer();
        loop {
            while let Some(line) = self.framer.poll_line() {
                let line = line.map_err(|LineTooLong| format!("the answer to {asked} has too long a line"))?;
                if let Some(made) = read(line.as_bytes()) {
                    return Ok(made);
                }
            }
            let count = self.stream.read(&mut buffer).await.map_err(broken)?;
            self.heard += count;
            if count == 0 || self.heard > UPSTREAM_LOGIN_BYTES_MAX {
                return Err(format!("no whole answer to {asked}"));
            }
            self.framer.push(buffer.get(..count).unwrap_or_default());
        }
    }
}

impl Command {
    fn first(protocol: Protocol, sender: &str) -> Self {
        let line = match protocol {
            Protocol::Imap => format!("{TAG} EXAMINE INBOX"),
            Protocol::Smtp => format!("MAIL FROM:<{}>", reverse_path(sender)),
            Protocol::Pop3 => "STAT".to_owned(),
        };
        Self {
            protocol,
            line,
            messages: None,
        }
    }

    /// `None`: the reply goes on.
    fn handle_line(&mut self, line: &[u8]) -> Option<Result<String, String>> {
        let line = String::from_utf8_lossy(line);
        match self.protocol {
            Protocol::Imap => self.handle_imap(&line),
            Protocol::Smtp => self.handle_smtp(&line),
            Protocol::Pop3 => Some(self.handle_pop3(&line)),
        }
    }

    fn handle_imap(&mut self, line: &str) -> Option<Result<String, String>> {
        if let Some(untagged) = line.strip_prefix("* ") {
            if untagged.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("BYE")) {
                return Some(Err(self.refused(untagged)));
            }
            if let Some((count, word)) = untagged.split_once(' ')
                && word.eq_ignore_ascii_case("EXISTS")
            {
                self.messages = count.parse().ok();
            }
            return None;
        }
        let (tag, answer) = line.split_once(' ')?;
        if tag != TAG {
            return None;
        }
        let is_ok = answer.get(..2).is_some_and(|word| word.eq_ignore_ascii_case("OK"));
        Some(if is_ok {
            Ok(self.done("INBOX"))
        } else {
            Err(self.refused(answer))
        })
    }

    fn handle_smtp(&self, line: &str) -> Option<Result<String, String>> {
        if !ends_reply(line.as_bytes()) {
            return None;
        }
        Some(if line.starts_with('2') {
            Ok(format!("{} is accepted", self.line))
        } else {
            Err(self.refused(line))
        })
    }

    fn handle_pop3(&mut self, line: &str) -> Result<String, String> {
        let Some(answer) = line.strip_prefix("+OK") else {
            return Err(self.refused(line));
        };
        self.messages = answer.split_whitespace().next().and_then(|count| count.parse().ok());
        Ok(self.done("the maildrop"))
    }

    fn done(&self, what: &str) -> String {
        match self.messages {
            Some(1) => format!("{what} is open and has 1 message"),
            Some(count) => format!("{what} is open and has {count} messages"),
            None => format!("{what} is open"),
        }
    }

    fn refused(&self, words: &str) -> String {
        let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
        let words: String = plain.take(UPSTREAM_TEXT_CHARS_MAX).collect();
        format!("the upstream answers {} with {words}", without_tag(&self.line))
    }
}

/// Whether a line is the last of an SMTP reply: all others have a hyphen behind the code (RFC 5321 §4.2.1).
fn ends_reply(line: &[u8]) -> bool {
    line.get(3) != Some(&b'-')
}

/// A command as it is told.
fn without_tag(line: &str) -> &str {
    line.strip_prefix(TAG).unwrap_or(line).trim_start()
}

/// The address as MAIL takes it; the null one (RFC 5321 §4.5.5) where there is none that every server could read.
fn reverse_path(address: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"<>\"\\".contains(&byte);
    let is_address = address.contains('@') && address.bytes().all(is_plain);
    if is_address { address } else { "" }
}

const TAG: &str = "V1";

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(protocol: Protocol, lines: &[&str]) -> Option<Result<String, String>> {
        let mut command = Command::first(protocol, "ada@example.com");
        let mut outcomes: Vec<_> = lines.iter().map(|line| command.handle_line(line.as_bytes())).collect();
        let last = outcomes.pop()?;
        assert!(outcomes.iter().all(Option::is_none), "{lines:?}");
        last
    }

    #[test]
    fn a_reply_is_read_to_its_end_and_judged() {
        use Protocol::{Imap, Pop3, Smtp};
        for (protocol, lines, expected) in [
            (
                Imap,
                &["* FLAGS (\\Seen)", "* 3 EXISTS", "* 0 RECENT", "V1 OK [READ-ONLY] done"][..],
                Ok("INBOX is open and has 3 messages"),
            ),
            (
                Imap,
                &["* 1 exists", "V1 ok done"],
                Ok("INBOX is open and has 1 message"),
            ),
            (Imap, &["V2 OK not ours", "V1 OK done"], Ok("INBOX is open")),
            (
                Imap,
                &["V1 BAD User is authenticated but not connected."],
                Err("the upstream answers EXAMINE INBOX with BAD User is authenticated but not connected."),
            ),
            (
                Imap,
                &["* 1 EXISTS", "* BYE Session invalidated - AccessTokenExpired"],
                Err("the upstream answers EXAMINE INBOX with BYE Session invalidated - AccessTokenExpired"),
            ),
            (Smtp, &["250 2.1.0 Ok"], Ok("MAIL FROM:<ada@example.com> is accepted")),
            (
                Smtp,
                &["250-first", "250 last"],
                Ok("MAIL FROM:<ada@example.com> is accepted"),
            ),
            (
                Smtp,
                &["550-5.7.60 SMTP;", "550 5.7.60 no right to send as this sender"],
                Err("the upstream answers MAIL FROM:<ada@example.com> with 550 5.7.60 no right to send as this sender"),
            ),
            (Pop3, &["+OK 2 320"], Ok("the maildrop is open and has 2 messages")),
            (Pop3, &["+OK"], Ok("the maildrop is open")),
            (
                Pop3,
                &["-ERR [SYS/TEMP] later\u{1b}[2J"],
                Err("the upstream answers STAT with -ERR [SYS/TEMP] later [2J"),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(answer(protocol, lines), Some(expected), "{lines:?}");
        }
        for (protocol, lines) in [(Imap, &["* 3 EXISTS"][..]), (Imap, &["V1"]), (Smtp, &["250-first"])] {
            assert_eq!(answer(protocol, lines), None, "{lines:?}");
        }
    }

    #[test]
    fn mail_is_given_an_address_that_cannot_end_its_line() {
        for (address, expected) in [
            ("ada@example.com", "ada@example.com"),
            ("ada+tag@[127.0.0.1]", "ada+tag@[127.0.0.1]"),
            ("ada", ""),
            ("ada@example.com>\r\nDATA", ""),
            ("ada b@example.com", ""),
            ("adä@example.com", ""),
            ("", ""),
        ] {
            assert_eq!(reverse_path(address), expected, "{address}");
        }
    }
}
