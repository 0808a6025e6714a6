//! Exchanges as tables, and any bytes in any pieces.

use super::*;
use crate::proto::testing::boundaries::{self, Said, client, upstream};
use proptest::prelude::*;

fn check(table: &[(Said, bool)]) {
    boundaries::check(ImapBoundaries::new, table);
}

fn watch(said: &[Said], piece: usize) -> Vec<bool> {
    boundaries::watch(ImapBoundaries::new(), said, piece)
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
