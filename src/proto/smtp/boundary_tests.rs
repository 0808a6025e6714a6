//! Exchanges as tables, and a model that keeps whole lines.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::proto::testing::boundaries::{self, Said, client, upstream};

fn check(table: &[(Said, bool)]) {
    boundaries::check(SmtpBoundaries::new, table);
}

fn watch(said: &[Said], piece: usize) -> Vec<bool> {
    boundaries::watch(SmtpBoundaries::new(), said, piece)
}

/// After `said`, boundaries have ended for good.
fn check_lost(said: &[Said]) {
    let mut said = said.to_vec();
    said.extend([client("NOOP\r\n"), upstream("250 ok\r\n"), upstream("250 ok\r\n")]);
    for piece in 1..60 {
        let seen = watch(&said, piece);
        assert_eq!(seen[seen.len() - 4..], [false; 4], "in pieces of {piece}: {said:?}");
    }
}

#[test]
fn the_state_is_small() {
    assert!(size_of::<SmtpBoundaries>() < 100, "{}", size_of::<SmtpBoundaries>());
}

#[test]
fn a_boundary_is_where_every_command_has_its_reply() {
    check(&[
        (client(""), true),
        (client("MAIL FROM:<a@b>"), false),
        (client("\r\n"), false),
        (upstream("250"), false),
        (upstream(" 2.1.0 ok\r"), false),
        (upstream("\n"), true),
        (client("EHLO x\r\n"), false),
        (upstream("250-mx\r\n250-SIZE 1\r\n"), false),
        (upstream("250 HELP\r\n"), true),
        (client("NOOP\r\nRSET\r\nVRFY x\r\n"), false),
        (upstream("250 ok\r\n250\r\n"), false),
        (upstream("502 no\r\n"), true),
    ]);
}

#[test]
fn there_is_no_boundary_within_a_message() {
    check(&[
        (client("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"), false),
        (upstream("250 ok\r\n250 ok\r\n"), false),
        (upstream("354 go on\r\n"), false),
        (client("Subject: x\r\n\r\nQUIT\r\n..\r\n.x\r\n.\r"), false),
        (client("x\r\n\r\n\r\n."), false),
        (client("\r\n"), false),
        (upstream("250 2.0.0 queued\r\n"), true),
        (client("data\r\n"), false),
        (upstream("354 \r\n"), false),
        (client(".\r\nMAIL FROM:<>\r\n"), false),
        (upstream("250 queued\r\n"), false),
        (upstream("250 ok\r\n"), true),
    ]);
}

#[test]
fn what_ends_a_message_to_some_only_is_its_text() {
    for text in [
        "\n.\n",
        "\n.\r\n",
        "x\r\n.\n",
        "\r.\r",
        "\r.\r\n",
        "x\r\n.\r\r\n",
        "x.\r\n",
    ] {
        let head = [client("DATA\r\n"), upstream("354 go\r\n")];
        let still_in_it = [
            client(text),
            client("NOOP\r\n"),
            client("\r\n.\r\n"),
            upstream("250 ok\r\n"),
        ];
        let expected = [false, false, false, false, false, true];
        let said: Vec<Said> = head.iter().chain(&still_in_it).cloned().collect();
        for piece in 1..10 {
            assert_eq!(watch(&said, piece), expected, "{text:?}");
        }
        // An upstream that took it for the end gives itself away.
        check_lost(&[head.as_slice(), &[client(text), upstream("250 queued\r\n")]].concat());
    }
}

#[test]
fn a_refused_message_is_followed_by_commands() {
    check(&[
        (client("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"), false),
        (upstream("250 ok\r\n550 no\r\n"), false),
        (upstream("503 5.5.1 no valid recipients\r\n"), true),
        (client("RSET\r\n"), false),
        (upstream("250 ok\r\n"), true),
    ]);
}

#[test]
fn a_message_that_was_not_invited_ends_all_boundaries() {
    check_lost(&[client("DATA\r\nSubject: x\r\n")]);
    check_lost(&[
        client("MAIL FROM:<a@b>\r\nDATA\r\n"),
        upstream("250 ok\r\n"),
        client("x"),
        upstream("354 go\r\n"),
        client("\r\n.\r\n"),
    ]);
    check_lost(&[client("DATA\r\n"), upstream("250 what?\r\n")]);
    check_lost(&[client("DATA\r\n"), upstream("334 what?\r\n")]);
}

#[test]
fn there_is_no_boundary_within_a_chunk() {
    check(&[
        (client("BDAT 12\r\n"), false),
        (client("\r\nBDAT 500\r"), false),
        (upstream("250 early\r\n"), false),
        (client("\n"), true),
        (client("bdat 3 LAST\r\nab"), false),
        (client("cBDAT 0\r\nBDAT 007\r\n1234567"), false),
        (upstream("250 1\r\n250 2\r\n"), false),
        (upstream("552 too much\r\n"), true),
        (client("BDAT 18446744073709551616\r\n"), false),
    ]);
}

#[test]
fn a_chunk_of_unknown_size_or_fate_ends_all_boundaries() {
    for command in [
        "BDAT",
        "BDAT ",
        "BDAT x",
        "BDAT -1",
        "BDAT 1x",
        "BDAT\t1",
        "BDAT 12345678901234567890",
    ] {
        check_lost(&[client(&format!("{command}\r\n")), upstream("250 ok\r\n")]);
    }
    for reply in ["500 what?", "501 hm", "502 no", "504 no"] {
        check_lost(&[client("BDAT 3 LAST\r\nabc"), upstream(&format!("{reply}\r\n"))]);
    }
    check(&[
        (client("BDAT 3 LAST\r\nabc"), false),
        (upstream("503 no transaction\r\n"), true),
    ]);
}

#[test]
fn exchanges_that_are_not_followed_end_all_boundaries() {
    for command in ["AUTH PLAIN x", "auth", "STARTTLS", "starttls", "StartTLS x"] {
        check_lost(&[client(&format!("{command}\r\n")), upstream("503 no\r\n")]);
    }
    check_lost(&[client("XEXCH50 9 2\r\n"), upstream("354 send\r\n")]);
    check_lost(&[client("X\r\n"), upstream("334 go\r\n")]);
    check(&[
        (client("AUTHX\r\nDATABASE\r\nSTARS\r\nBDATA 1\r\n"), false),
        (upstream("500 x\r\n500 x\r\n500 x\r\n500 x\r\n"), true),
    ]);
}

#[test]
fn where_the_sides_could_disagree_on_a_line_boundaries_end() {
    for line in [
        "NOOP\n",
        "\r\n",
        "\n",
        " NOOP\r\n",
        "\tNOOP\r\n",
        "1\r\n",
        "NO\rOP\r\n",
        "NOOP\r\r\n",
    ] {
        check_lost(&[client(line), upstream("250 ok\r\n")]);
    }
    let long = format!("MAIL {}\r\n", "x".repeat(COMMAND_LINE_BYTES_MAX));
    check_lost(&[client(&long), upstream("250 ok\r\n")]);
    let fits = format!("{}\r\n", "x".repeat(COMMAND_LINE_BYTES_MAX - 1));
    check(&[(client(&fits), false), (upstream("250 ok\r\n"), true)]);
    for reply in [
        "250 ok\n",
        "\r\n",
        "25\r\n",
        "2500\r\n",
        "250x\r\n",
        "150 x\r\n",
        "650 x\r\n",
        "* OK\r\n",
    ] {
        check_lost(&[client("NOOP\r\n"), upstream(reply)]);
    }
    check_lost(&[client("NOOP\r\n"), upstream("250-x\r\n251 x\r\n")]);
    let long = format!("250 {}\r\n", "x".repeat(UPSTREAM_LINE_BYTES_MAX));
    check_lost(&[client("NOOP\r\n"), upstream(&long)]);
}

#[test]
fn an_upstream_that_speaks_unasked_or_says_goodbye_ends_all_boundaries() {
    check_lost(&[upstream("250 surplus\r\n")]);
    check_lost(&[upstream("421 4.4.2 timeout\r\n")]);
    check_lost(&[client("NOOP\r\n"), upstream("250 ok\r\n421 bye\r\n")]);
    check_lost(&[client("NOOP\r\n"), upstream("421-bye\r\n421 bye\r\n")]);
    check_lost(&[client("QUIT\r\n"), upstream("221 bye\r\n")]);
    check_lost(&[client("DATA\r\n"), upstream("354 go\r\n"), upstream("421 too slow\r\n")]);
    check(&[(upstream("421"), false), (upstream("-"), false)]);
}

/// The same, with whole lines in hand and a queue of the commands that wait for a reply.
#[derive(Default)]
struct Model {
    from_client: String,
    from_upstream: String,
    waiting: VecDeque<String>,
    is_in_message: bool,
    chunk: usize,
    has_chunks: bool,
    is_lost: bool,
}

impl Model {
    fn say(&mut self, said: &Said) {
        match said {
            Said::Client(text) => self.from_client.push_str(text),
            Said::Upstream(text) => self.from_upstream.push_str(text),
        }
        let followed = match said {
            Said::Client(_) => self.client(),
            Said::Upstream(_) => self.upstream(),
        };
        self.is_lost |= followed.is_none();
    }

    fn client(&mut self) -> Option<()> {
        while !self.from_client.is_empty() {
            if self.waiting.back().is_some_and(|last| last == "DATA") {
                return None;
            }
            if self.is_in_message {
                // The line end before the message is a part of the text here.
                let Some(at) = self.from_client.find("\r\n.\r\n") else {
                    return Some(());
                };
                self.from_client.drain(..at + 5);
                self.is_in_message = false;
                self.waiting.push_back("text".to_owned());
                continue;
            }
            if self.chunk > 0 {
                let octets = self.chunk.min(self.from_client.len());
                self.from_client.drain(..octets);
                self.chunk -= octets;
                continue;
            }
            let Some((line, _)) = self.from_client.split_once('\n') else {
                return Some(());
            };
            let line = line.to_owned();
            self.from_client.drain(..=line.len());
            let line = line.strip_suffix('\r').filter(|line| !line.contains('\r'))?;
            let line = line.to_ascii_uppercase();
            let verb: String = line.chars().take_while(char::is_ascii_alphabetic).collect();
            match verb.as_str() {
                "" | "AUTH" | "STARTTLS" => return None,
                "BDAT" => {
                    self.has_chunks = true;
                    self.chunk = line.split(' ').nth(1)?.parse().ok()?;
                }
                _ => {}
            }
            self.waiting.push_back(verb);
        }
        Some(())
    }

    fn upstream(&mut self) -> Option<()> {
        while let Some(end) = self.complete_reply() {
            let reply: String = self.from_upstream.drain(..end).collect();
            if reply
                .lines()
                .any(|line| !matches!(line.as_bytes().get(3), None | Some(b' ' | b'-')))
            {
                return None;
            }
            let mut codes = reply.lines().map(|line| line.get(..3));
            let code: u16 = codes.next()??.parse().ok()?;
            if !reply.lines().all(|line| line.get(..3) == reply.get(..3)) || !(200..600).contains(&code) {
                return None;
            }
            let command = self.waiting.pop_front()?;
            match (command.as_str(), code) {
                (_, 221 | 421) => return None,
                ("DATA", 354) => {
                    self.is_in_message = true;
                    self.from_client.push_str("\r\n");
                }
                ("DATA", 400..) => {}
                ("DATA", _) | (_, 300..=399) => return None,
                (_, 500 | 501 | 502 | 504) if self.has_chunks => return None,
                _ => {}
            }
        }
        Some(())
    }

    fn complete_reply(&self) -> Option<usize> {
        let mut end = 0;
        for line in self.from_upstream.split_inclusive("\r\n") {
            end += line.len();
            if !line.ends_with("\r\n") {
                return None;
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(end);
            }
        }
        None
    }

    fn at_boundary(&self) -> bool {
        !self.is_lost
            && !self.is_in_message
            && self.chunk == 0
            && self.waiting.is_empty()
            && self.from_client.is_empty()
            && self.from_upstream.is_empty()
    }
}

fn exchanges() -> impl Strategy<Value = Vec<Said>> {
    let commands = [
        "NOOP\r\n",
        "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n",
        "DATA\r\n",
        "data\r\n",
        ".\r\n",
        "x\r\n.\r\n",
        "\r\n",
        "a",
        "\r",
        ".",
        "\n",
        "BDAT 3\r\n",
        "BDAT 0 LAST\r\n",
        "BDAT 5 LAST\r\nabcde",
        "RSET\r\n",
        "AUTH PLAIN\r\n",
    ];
    let replies = [
        "250 ok\r\n",
        "250 ok\r\n",
        "250-a\r\n250 b\r\n",
        "250-a\r\n",
        "250",
        " x\r\n",
        "354 go\r\n",
        "354 go\r\n",
        "503 no\r\n",
        "500 what\r\n",
        "221 bye\r\n",
        "251 x\r\n",
    ];
    // Conversations that go well are more than others.
    let turns = [
        ("NOOP\r\n", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
        ("x\r\n.\r\n", "250 queued\r\n"),
        ("MAIL\r\nRCPT\r\nDATA\r\n", "250 ok\r\n250 ok\r\n354 go\r\n"),
        ("BDAT 4\r\n\r\n.\r", "250 ok\r\n"),
        ("DATA\r\n", "554 no\r\n"),
    ];
    let turn = prop_oneof![
        1 => proptest::sample::select(commands.to_vec()).prop_map(|text| vec![client(text)]),
        1 => proptest::sample::select(replies.to_vec()).prop_map(|text| vec![upstream(text)]),
        6 => proptest::sample::select(turns.to_vec()).prop_map(|(said, reply)| vec![client(said), upstream(reply)]),
    ];
    proptest::collection::vec(turn, 0..16).prop_map(|turns| turns.concat())
}

proptest! {
    #[test]
    fn boundaries_are_the_models(said in exchanges(), piece in 1usize..12) {
        let mut model = Model::default();
        let modelled: Vec<bool> = said.iter().map(|said| { model.say(said); model.at_boundary() }).collect();
        prop_assert_eq!(watch(&said, piece), modelled);
    }

    #[test]
    fn a_message_ends_where_its_end_is_first_found(
        text in "[\r\n.x]{0,60}",
        piece in 1usize..12,
    ) {
        let whole = format!("\r\n{text}");
        let expected = whole.find("\r\n.\r\n").map(|at| at + 5 - 2);
        let mut boundaries = SmtpBoundaries::new();
        boundaries.watch_client(b"DATA\r\n");
        boundaries.watch_upstream(b"354 go\r\n");
        let end = expected.unwrap_or(text.len());
        text.as_bytes()[..end].chunks(piece).for_each(|bytes| boundaries.watch_client(bytes));
        boundaries.watch_upstream(b"250 queued\r\n");
        prop_assert_eq!(boundaries.at_boundary(), expected.is_some());
    }

    #[test]
    fn arbitrary_bytes_are_followed_the_same_in_any_pieces(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        piece in 1usize..40,
    ) {
        let (mut whole, mut split) = (SmtpBoundaries::new(), SmtpBoundaries::new());
        whole.watch_client(&bytes);
        whole.watch_upstream(&bytes);
        bytes.chunks(piece).for_each(|it| split.watch_client(it));
        bytes.chunks(piece).for_each(|it| split.watch_upstream(it));
        prop_assert_eq!(whole.at_boundary(), split.at_boundary());
    }
}
