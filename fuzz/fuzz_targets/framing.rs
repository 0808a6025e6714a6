//! Any stream, cut anywhere: the cuts are those of the whole stream, and no more is kept than one command.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::framing::{Cut, FrameLimits, Framer};

const LIMITS: FrameLimits = FrameLimits {
    line_bytes_max: 64,
    literal_bytes_max: 32,
};

/// The lines and literals of one command, their ends, and the piece that has just been fed.
const HELD_MAX: usize = 64 + 2 * 32 + 64 * 2 + 256;

fuzz_target!(|data: &[u8]| {
    // The first byte says how long the pieces are.
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let whole = cuts([stream].into_iter());
    let pieces = cuts(stream.chunks(usize::from(size).max(1)));
    assert_eq!(whole, pieces);
});

fn cuts<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Cut> {
    let mut framer = Framer::new(LIMITS);
    let mut cuts = Vec::new();
    for piece in pieces {
        framer.push(piece);
        while let Some(cut) = framer.poll_command() {
            // Every third announced literal is not wanted.
            if cut == Cut::Announced && cuts.len() % 3 == 2 {
                framer.drop_command();
            }
            cuts.push(cut);
        }
        assert!(framer.buffered() <= HELD_MAX.max(piece.len()));
    }
    cuts
}
