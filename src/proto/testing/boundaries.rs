//! What the tests of relay watchers share: exchanges as tables, fed in pieces of every size.

use crate::proto::dialogue::Boundaries;

/// What one side of a relayed session says.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Client(String),
    Upstream(String),
}

pub(crate) fn client(text: &str) -> Said {
    Said::Client(text.to_owned())
}

pub(crate) fn upstream(text: &str) -> Said {
    Said::Upstream(text.to_owned())
}

/// Whether `boundaries`, which are new, see one after each thing said, each fed in pieces.
pub(crate) fn watch(mut boundaries: impl Boundaries, said: &[Said], piece: usize) -> Vec<bool> {
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

/// Asserts that there is a boundary after each thing said or not, as the table has it, whatever the pieces.
pub(crate) fn check<B: Boundaries>(new: fn() -> B, table: &[(Said, bool)]) {
    let said: Vec<Said> = table.iter().map(|(said, _)| said.clone()).collect();
    let expected: Vec<bool> = table.iter().map(|(_, expected)| *expected).collect();
    for piece in 1..PIECES {
        assert_eq!(watch(new(), &said, piece), expected, "in pieces of {piece}: {said:?}");
    }
}

/// Longer than any text in the tables' more delicate places.
const PIECES: usize = 80;
