//! What an upstream says, made fit for a log or a client: printable ASCII, bounded, without the secrets it was sent.
//!
//! Some servers echo the command they refuse. So what was sent is remembered until its answer is there, and cut out of
//! whatever the upstream says meanwhile.

use memchr::memmem;
use zeroize::Zeroizing;

use crate::limits::{UPSTREAM_LINE_BYTES_MAX, UPSTREAM_TEXT_CHARS_MAX};

/// The beginnings of the secrets that were sent to an upstream; wiped when dropped. Prints nothing of them.
#[derive(Default)]
pub(in crate::proto) struct Redaction {
    needles: Vec<Zeroizing<Vec<u8>>>,
}

impl Redaction {
    /// Adds a secret in a form in which it was sent. Only its beginning is kept: it stands for the whole, and finds an echo
    /// that was cut short. A secret too short to tell from an ordinary word is not looked for.
    pub(in crate::proto) fn add(&mut self, secret: &[u8]) {
        let beginning = secret.get(..NEEDLE_BYTES_MAX).unwrap_or(secret);
        if beginning.len() >= NEEDLE_BYTES_MIN {
            self.needles.push(Zeroizing::new(beginning.to_vec()));
        }
    }

    /// Whether `bytes` hold one of the secrets.
    pub(in crate::proto) fn is_in(&self, bytes: &[u8]) -> bool {
        self.find(bytes).is_some()
    }

    /// `bytes` as printable ASCII of at most [`UPSTREAM_TEXT_CHARS_MAX`] characters, every secret up to the next space
    /// replaced.
    pub(in crate::proto) fn clean(&self, bytes: &[u8]) -> String {
        self.clean_to(UPSTREAM_TEXT_CHARS_MAX, bytes)
    }

    /// The same with as many characters as a line of an upstream may have: a link that is cut short opens nothing.
    pub(in crate::proto) fn clean_line(&self, bytes: &[u8]) -> String {
        self.clean_to(UPSTREAM_LINE_BYTES_MAX, bytes)
    }

    fn clean_to(&self, chars_max: usize, mut bytes: &[u8]) -> String {
        let mut text = String::new();
        while let Some(at) = self.find(bytes) {
            let (before, from_secret) = bytes.split_at(at);
            append_printable(&mut text, before);
            text.push_str(REPLACEMENT);
            let end = memchr::memchr(b' ', from_secret).unwrap_or(from_secret.len());
            bytes = from_secret.get(end..).unwrap_or_default();
        }
        append_printable(&mut text, bytes);
        text.truncate(chars_max);
        text.truncate(text.trim_end().len());
        text
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.needles
            .iter()
            .filter_map(|needle| memmem::find(bytes, needle))
            .min()
    }
}

/// Adds `bytes` with every control character as a space and everything beyond ASCII as a question mark. Stays ASCII, so that
/// truncating anywhere is sound.
fn append_printable(text: &mut String, bytes: &[u8]) {
    text.extend(bytes.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        0..=0x1f | 0x7f => ' ',
        _ => '?',
    }));
}

const REPLACEMENT: &str = "[REDACTED]";

/// Twelve bytes of a message before base64: more than the fixed beginning of any mechanism's.
const NEEDLE_BYTES_MAX: usize = 16;

/// Shorter ones would be found inside ordinary words, and the gap would tell more than the word.
const NEEDLE_BYTES_MIN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_printable_ascii_of_bounded_length() {
        let none = Redaction::default();
        assert_eq!(none.clean(b"a\x1b[31m\tb\xc3\xbc\r\n"), "a [31m b??");
        assert_eq!(none.clean(&[b'x'; 5000]).len(), UPSTREAM_TEXT_CHARS_MAX);
        assert_eq!(none.clean_line(&[b'x'; 5000]).len(), 5000);
        assert_eq!(none.clean_line(&[b'x'; 50_000]).len(), UPSTREAM_LINE_BYTES_MAX);
    }

    #[test]
    fn an_echoed_secret_is_cut_out_even_if_it_was_cut_short() {
        let mut redaction = Redaction::default();
        redaction.add(b"dXNlcj1hQGIuYwFhdXRoPUJlYXJlciB0b2tlbg==");
        redaction.add(b"abc");
        assert_eq!(
            redaction.clean(b"unknown: AUTHENTICATE dXNlcj1hQGIuYwFhdXRo... (abc) dXNlcj1hQGIuYwFh"),
            "unknown: AUTHENTICATE [REDACTED] (abc) [REDACTED]"
        );
        assert!(redaction.is_in(b"* OK dXNlcj1hQGIuYwFhdX") && !redaction.is_in(b"* OK abc"));
    }
}
