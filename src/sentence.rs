//! Putting sentences of different authors together: a provider's ends with a full stop as often as not.

use std::fmt::Display;

/// `first` and what explains it, as one sentence: without the stop of its own that `first` may have at its end.
pub fn explained(first: impl Display, explanation: impl Display) -> String {
    let first = first.to_string();
    let first = first.trim_end_matches(['.', ';', ':', ',', ' ']);
    // A question is one, with what explains it in brackets.
    match first.ends_with(['?', '!']) {
        true => format!("{first} ({explanation})"),
        false => format!("{first}; {explanation}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stop_stands_before_what_goes_on() {
        for (first, expected) in [
            ("Access denied", "Access denied; it means no"),
            ("Access denied.", "Access denied; it means no"),
            ("Access denied. ", "Access denied; it means no"),
            ("Access denied...", "Access denied; it means no"),
            ("Who are you?", "Who are you? (it means no)"),
            ("see https://a.example/b.", "see https://a.example/b; it means no"),
        ] {
            assert_eq!(explained(first, "it means no"), expected);
        }
    }
}
