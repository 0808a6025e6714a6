//! Values that must not be seen: they are wiped when dropped and print as `[REDACTED]`.
//!
//! Whoever copies a secret from a web page or a file takes more along easily; [`oddity`] notices.
//!
//! The types are those of the `secrecy` crate; this module is the only one that names it, so that every place where a
//! secret is opened can be found by searching for [`ExposeSecret`].

pub use secrecy::{ExposeSecret, SecretString};

/// Copies a secret. Named, because each copy is one more place that has to be wiped.
pub fn duplicate(secret: &SecretString) -> SecretString {
    secret.expose_secret().to_owned().into()
}

/// Who made a value up, which tells what it cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A program: a client id, a client's secret, a token. Their alphabet has neither spaces at the ends nor quotes around
    /// them (RFC 6749, appendix A).
    Machine,
    /// A person, who may have put anything into a password that can be typed on one line.
    Person,
}

/// What tells of `text` that more was copied than was meant, or less, in words that go after the name of its field.
pub fn oddity(text: &str, made_by: Maker) -> Option<&'static str> {
    if text.starts_with(BYTE_ORDER_MARK) {
        return Some("begins with a byte order mark; save it as UTF-8 without one");
    }
    if text.ends_with(['\r', '\n']) {
        return Some("has a line end at its end");
    }
    if text.contains(['\r', '\n']) {
        return Some("holds a line end");
    }
    if text.contains('\0') {
        return Some("holds a NUL");
    }
    if made_by == Maker::Person {
        return None;
    }
    if text.starts_with(char::is_whitespace) {
        return Some("has a space at its beginning");
    }
    if text.ends_with(char::is_whitespace) {
        return Some("has a space at its end");
    }
    if is_quoted(text) {
        return Some("stands in quotes; leave them out");
    }
    let is_unseen = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | BYTE_ORDER_MARK);
    text.contains(is_unseen)
        .then_some("holds a character that cannot be seen; type it anew, or copy it from another place")
}

/// `text` without the line end that a file has after its only line.
pub fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn is_quoted(text: &str) -> bool {
    let mut ends = text.chars();
    let pair = (ends.next(), ends.next_back());
    QUOTES.iter().any(|(open, close)| pair == (Some(*open), Some(*close)))
}

/// U+FEFF at the beginning of a text, as some editors write it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Quotes as programs and office suites write them.
const QUOTES: [(char, char); 7] = [
    ('"', '"'),
    ('\'', '\''),
    ('`', '`'),
    ('\u{201c}', '\u{201d}'),
    ('\u{201e}', '\u{201c}'),
    ('\u{2018}', '\u{2019}'),
    ('\u{ab}', '\u{bb}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_with_a_token_is_noticed() {
        for (text, expected) in [
            ("1//0g-refresh", None),
            ("a token of two words", None),
            ("\"", None),
            ("it's", None),
            ("id ", Some("has a space at its end")),
            ("\u{a0}id", Some("has a space at its beginning")),
            ("\"1//0g\"", Some("stands in quotes; leave them out")),
            ("\u{201c}1//0g\u{201d}", Some("stands in quotes; leave them out")),
            (
                "\u{feff}1//0g",
                Some("begins with a byte order mark; save it as UTF-8 without one"),
            ),
            ("1//0g\n", Some("has a line end at its end")),
            ("1//\r\n0g", Some("holds a line end")),
            ("1//\u{0}0g", Some("holds a NUL")),
            (
                "1//\u{200b}0g",
                Some("holds a character that cannot be seen; type it anew, or copy it from another place"),
            ),
        ] {
            assert_eq!(oddity(text, Maker::Machine), expected, "{text:?}");
        }
    }

    #[test]
    fn a_password_may_hold_what_can_be_typed_on_a_line() {
        for text in [" spaced ", "\"quoted\"", "tab\there", "pass\u{7f}wört", "\u{200b}"] {
            assert_eq!(oddity(text, Maker::Person), None, "{text:?}");
        }
        for text in ["\u{feff}password", "password\r", "two\nlines", "a\u{0}b"] {
            assert!(oddity(text, Maker::Person).is_some(), "{text:?}");
        }
    }

    #[test]
    fn one_line_end_goes_and_no_more() {
        for (text, expected) in [
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\r", "a"),
            ("a\n\n", "a\n"),
            ("a \n", "a "),
            ("\n", ""),
        ] {
            assert_eq!(without_line_end(text), expected, "{text:?}");
        }
    }
}
