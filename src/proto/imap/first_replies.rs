//! Recognises, in the first replies of a relayed upstream, what an operator ought to know.
//!
//! Sees bytes, cut anywhere, until a few commands are completed or [`BYTES_MAX`] bytes have passed, and costs nothing from
//! then on. It follows no literals: what it could mistake for a reply is a line of a mail among the first bytes, and the
//! worst that comes of it is a wrong line in a log.

use crate::proto::dialogue::UpstreamRemark;

/// Watches for `BAD User is authenticated but not connected`.
#[derive(Debug)]
pub(super) struct FirstReplies {
    place: Place,
    bytes_left: u16,
    completions_left: u8,
    is_seen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    /// In a tag, or in the `*` of an untagged response.
    Tag,
    /// So many bytes of [`NOT_CONNECTED`] have matched.
    Matched(u8),
    Skip,
}

impl FirstReplies {
    pub(super) fn new() -> Self {
        Self {
            place: Place::LineStart,
            bytes_left: BYTES_MAX,
            completions_left: COMPLETIONS_MAX,
            is_seen: false,
        }
    }

    /// The upstream's next bytes.
    pub(super) fn watch(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.bytes_left == 0 {
                return;
            }
            self.bytes_left -= 1;
            self.step(*byte);
        }
    }

    /// What was recognised, once.
    pub(super) fn take_remark(&mut self) -> Option<UpstreamRemark> {
        std::mem::take(&mut self.is_seen).then_some(UpstreamRemark::NotConnected)
    }

    fn step(&mut self, byte: u8) {
        self.place = match (self.place, byte) {
            (_, b'\n') => Place::LineStart,
            (Place::LineStart, b'*' | b'+') => Place::Tag,
            (Place::LineStart, _) => match self.completions_left.checked_sub(1) {
                Some(left) => {
                    self.completions_left = left;
                    Place::Tag
                }
                None => self.end(),
            },
            (Place::Tag, b' ') => Place::Matched(0),
            (Place::Tag, _) => Place::Tag,
            (Place::Matched(count), _) if expected(count).is_some_and(|it| it.eq_ignore_ascii_case(&byte)) => {
                match expected(count + 1) {
                    Some(_) => Place::Matched(count + 1),
                    None => {
                        self.is_seen = true;
                        self.end()
                    }
                }
            }
            (Place::Matched(_) | Place::Skip, _) => Place::Skip,
        };
    }

    fn end(&mut self) -> Place {
        self.bytes_left = 0;
        Place::Skip
    }
}

fn expected(at: u8) -> Option<&'static u8> {
    NOT_CONNECTED.get(usize::from(at))
}

const NOT_CONNECTED: &[u8] = b"BAD User is authenticated but not connected";

/// Bytes that are looked at. A long folder list, which a client may ask for first, goes beyond; so does every mailbox that is
/// connected.
const BYTES_MAX: u16 = 4096;

/// Completed commands that are looked at. Clients begin with ID, CAPABILITY, ENABLE or NAMESPACE, which Exchange answers
/// even then; and the OK of the login may be among the bytes.
const COMPLETIONS_MAX: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn remark(stream: &[u8], piece: usize) -> Option<UpstreamRemark> {
        let mut replies = FirstReplies::new();
        stream.chunks(piece).for_each(|bytes| replies.watch(bytes));
        let remark = replies.take_remark();
        assert_eq!(replies.take_remark(), None, "a remark is taken once");
        remark
    }

    const BAD: &str = "A5 BAD User is authenticated but not connected.\r\n";

    #[test]
    fn an_unconnected_mailbox_is_recognised_behind_a_few_replies() {
        for before in [
            "",
            "A OK ada authenticated\r\n",
            "* ID NIL\r\nA1 OK\r\nA2 OK x\r\n* 1 BAD\r\nA3 OK\r\n+ \r\nA4 OK \r\n",
        ] {
            let stream = format!("{before}{BAD}");
            assert_eq!(
                remark(stream.as_bytes(), 4096),
                Some(UpstreamRemark::NotConnected),
                "{before}"
            );
        }
    }

    #[test]
    fn nothing_is_made_of_other_replies_or_of_later_ones() {
        for stream in [
            "A OK User is authenticated but not connected\r\n".to_owned(),
            "A BAD User is authenticated\r\nbut not connected\r\n".to_owned(),
            format!("{}{BAD}", "A OK x\r\n".repeat(usize::from(COMPLETIONS_MAX))),
            format!("{}{BAD}", "* LIST () \"/\" x\r\n".repeat(300)),
        ] {
            assert_eq!(remark(stream.as_bytes(), 4096), None, "{stream}");
        }
    }

    proptest! {
        #[test]
        fn every_split_recognises_the_same(
            lines in proptest::collection::vec(prop_oneof![
                Just(BAD), Just("* OK x\r\n"), Just("A OK\r\n"), Just("A NO x\r\n"), Just(" \r\n"), Just("+ x"), Just("A BAD User is")
            ], 0..12),
            piece in 1usize..60,
        ) {
            let stream = lines.concat();
            prop_assert_eq!(remark(stream.as_bytes(), piece), remark(stream.as_bytes(), usize::MAX));
        }
    }
}
