//! A relayed session in any pieces: boundaries do not depend on how it was cut, and none is seen within a line.
//!
//! The first byte chooses the protocol by its highest bit and is otherwise the size of the pieces. The rest are turns: a byte
//! whose lowest bit is the direction and whose others are the length, then the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::dialogue::Boundaries;
use portreeve::proto::imap::boundary::ImapBoundaries;
use portreeve::proto::smtp::boundary::SmtpBoundaries;

fuzz_target!(|data: &[u8]| {
    let [choice, turns @ ..] = data else { return };
    let piece = usize::from(choice & 0x7f).max(1);
    match choice & 0x80 {
        0 => follow(ImapBoundaries::new(), ImapBoundaries::new(), piece, turns),
        _ => follow(SmtpBoundaries::new(), SmtpBoundaries::new(), piece, turns),
    }
});

fn follow(mut whole: impl Boundaries, mut split: impl Boundaries, piece: usize, mut turns: &[u8]) {
    let mut upstream_last = Vec::new();
    while let [turn, rest @ ..] = turns {
        let (said, behind) = rest.split_at(usize::from(turn >> 1).min(rest.len()));
        if turn & 1 == 0 {
            whole.watch_client(said);
            said.chunks(piece).for_each(|bytes| split.watch_client(bytes));
        } else {
            whole.watch_upstream(said);
            said.chunks(piece).for_each(|bytes| split.watch_upstream(bytes));
            upstream_last.extend_from_slice(said);
        }
        assert_eq!(whole.at_boundary(), split.at_boundary());
        assert!(!whole.at_boundary() || upstream_last.is_empty() || upstream_last.ends_with(b"\r\n"));
        turns = behind;
    }
    assert_eq!(whole.take_remark(), split.take_remark());
}
