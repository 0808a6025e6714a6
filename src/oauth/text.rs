//! Texts from outside, which reach a log or an administrator only in this form.

use crate::limits::UPSTREAM_TEXT_CHARS_MAX;

/// Makes a text from outside fit for a log line and an administrator's eyes: controls become spaces, `secrets` and whatever
/// looks like a token are taken out, and its length is bounded.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    let mut cleaned = text
        .chars()
        .map(|c| if is_plain(c) { c } else { ' ' })
        .collect::<String>();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let encoded = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
        cleaned = cleaned.replace(&encoded, REDACTED).replace(secret, REDACTED);
    }
    let words = cleaned.split_whitespace().map(redact_long_runs).collect::<Vec<_>>();
    words.join(" ").chars().take(UPSTREAM_TEXT_CHARS_MAX).collect()
}

/// Whether a character is text, and shows where it stands.
pub(super) fn is_plain(c: char) -> bool {
    // Beside controls: line and paragraph separators, and what reorders or hides text on a terminal.
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Takes out of `word` every run of characters that is long enough to be a token. A UUID, by which a provider's support
/// finds a request, is shorter.
fn redact_long_runs(word: &str) -> String {
    let mut kept = String::with_capacity(word.len());
    let mut run = String::new();
    for c in word.chars().map(Some).chain([None]) {
        match c {
            Some(c) if c.is_ascii_alphanumeric() || "-._~+/=%".contains(c) => run.push(c),
            other => {
                kept.push_str(if run.len() > TOKEN_LIKE_CHARS_MIN {
                    REDACTED
                } else {
                    &run
                });
                run.clear();
                kept.extend(other);
            }
        }
    }
    kept
}

/// What stands where a secret was taken out.
const REDACTED: &str = "[REDACTED]";

/// A run of token characters longer than this is taken for a token: more than the 36 of a UUID.
const TOKEN_LIKE_CHARS_MIN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cleaned_bounded_and_free_of_secrets() {
        let jwt = format!("eyJ0eXAiOiJKV1Qi.{}.sig", "x".repeat(60));
        let cases = [
            (
                "AADSTS70043: expired.\r\nTrace ID: 2f3b7d7e-0d3e-4f43-8c9d-3b7d7e0d3e4f",
                "AADSTS70043: expired. Trace ID: 2f3b7d7e-0d3e-4f43-8c9d-3b7d7e0d3e4f",
            ),
            ("bad token r-secret!", "bad token [REDACTED]!"),
            ("secret=app+secret and app secret", "secret=[REDACTED] and [REDACTED]"),
            (&format!("token {jwt}, sorry"), "token [REDACTED], sorry"),
            ("a\u{1b}[31mb\u{202e}c\u{0}d", "a [31mb c d"),
        ];
        for (text, expected) in cases {
            assert_eq!(clean(text, &["r-secret", "app secret", ""]), expected);
        }
        assert_eq!(
            clean(&"wörd ".repeat(1000), &[]).chars().count(),
            UPSTREAM_TEXT_CHARS_MAX
        );
    }
}
