//! A relayed session in any pieces: boundaries do not depend on how it was cut, and none is seen within a line.
//!
//! The first byte is the size of the pieces. The rest are turns: a byte whose lowest bit is the direction and whose others
//! are the length, then the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::dialogue::Boundaries;
use portreeve::proto::imap::boundary::ImapBoundaries;

fuzz_target!(|data: &[u8]| {
    let [piece, turns @ ..] = data else { return };
    let piece = usize::from(*piece).max(1);
    let (mut whole, mut split) = (ImapBoundaries::new(), ImapBoundaries::new());
    let mut upstream_last = Vec::new();
    let mut turns = turns;
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
});
