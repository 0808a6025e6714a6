//! Texts from outside, which reach a log or an administrator only in this form.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::limits::UPSTREAM_TEXT_CHARS_MAX;

/// Makes a text from outside fit for a log line and an administrator's eyes: controls become spaces, every one of the
/// `secrets` is taken out in whatever form it stands there, and its length is bounded.
///
/// Nothing is taken out for its looks: a scope and a redirect URI are as long as a token, and tell what is wrong.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    let mut cleaned = plain(text);
    for secret in secrets.iter().map(|secret| plain(secret)) {
        cleaned = match secret.chars().count() {
            0 => cleaned,
            // So short that it stands in half of all words by chance.
            1..SECRET_CHARS_MIN => without(&cleaned, |run| run == secret),
            _ => forms(&secret).fold(cleaned, |text, form| replace_ignoring_escape_case(&text, &form)),
        };
    }
    let is_piece = |part: &str| {
        let part = part.trim_end_matches('.');
        part.len() >= PIECE_CHARS_MIN && secrets.iter().any(|secret| secret.contains(part))
    };
    cleaned = without(&cleaned, |run| run.split('=').any(is_piece));
    bounded(&cleaned)
}

/// Does the same with what a program of somebody else's complains of, which may hold secrets that nobody here knows: whatever
/// is long enough to be a token is taken out as well.
pub(super) fn clean_complaint(text: &str, secrets: &[&str]) -> String {
    let text = plain(text);
    clean(&without(&text, |run| run.len() > TOKEN_LIKE_CHARS_MIN), secrets)
}

/// Whether a character is text, and shows where it stands.
pub(super) fn is_plain(c: char) -> bool {
    // Beside controls: line and paragraph separators, and what reorders or hides text on a terminal.
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { ' ' }).collect()
}

fn bounded(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>();
    words.join(" ").chars().take(UPSTREAM_TEXT_CHARS_MAX).collect()
}

/// A secret as an answer may repeat it: as it is, as a form or a URL writes it, and in base64, which is how a header has it.
fn forms(secret: &str) -> impl Iterator<Item = String> {
    let in_form = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect::<String>();
    let in_url = in_form.replace('+', "%20");
    // The longest first, or a part of it would be left.
    [
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        in_url,
        in_form,
        secret.to_owned(),
    ]
    .into_iter()
}

/// `text` without `form`; the case of a percent-encoding's digits does not count (RFC 3986 §6.2.2.1).
fn replace_ignoring_escape_case(text: &str, form: &str) -> String {
    let replaced = text.replace(form, REDACTED);
    if form.contains('%') {
        return replaced.replace(&lower_escapes(form), REDACTED);
    }
    replaced
}

fn lower_escapes(form: &str) -> String {
    let mut left = 0_u8;
    let lowered = form.chars().map(|c| {
        if c == '%' {
            left = 2;
            return c;
        }
        let is_digit = left > 0;
        left = left.saturating_sub(1);
        if is_digit { c.to_ascii_lowercase() } else { c }
    });
    lowered.collect()
}

/// `text` without the runs of token characters that are `hidden`.
fn without(text: &str, hidden: impl Fn(&str) -> bool) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars().map(Some).chain([None]) {
        match c {
            Some(c) if c.is_ascii_alphanumeric() || "-._~+/=%".contains(c) => run.push(c),
            other => {
                kept.push_str(if hidden(&run) { REDACTED } else { &run });
                run.clear();
                kept.extend(other);
            }
        }
    }
    kept
}

/// What stands where a secret was taken out.
const REDACTED: &str = "[REDACTED]";

/// Characters from which on a secret is looked for inside of words, too.
const SECRET_CHARS_MIN: usize = 4;

/// Characters from which on a piece of a secret is as good as taken for it: some endpoints repeat a token's beginning.
const PIECE_CHARS_MIN: usize = 12;

/// A run of token characters longer than this is taken for a token where no secret is known: more than the 36 of a UUID.
const TOKEN_LIKE_CHARS_MIN: usize = 40;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_cleaned_bounded_and_free_of_secrets() {
        let cases = [
            (
                "AADSTS70043: expired.\r\nTrace ID: 2f3b7d7e-0d3e-4f43-8c9d-3b7d7e0d3e4f",
                "AADSTS70043: expired. Trace ID: 2f3b7d7e-0d3e-4f43-8c9d-3b7d7e0d3e4f",
            ),
            ("bad token r-secret!", "bad token [REDACTED]!"),
            ("bad tokenr-secretx!", "bad token[REDACTED]x!"),
            ("secret=app+secret and app secret", "secret=[REDACTED] and [REDACTED]"),
            ("secret=app%20secret", "secret=[REDACTED]"),
            (
                "1//0g%2F%3d and 1%2F%2F0g and 1%2f%2f0g",
                "[REDACTED]%2F%3d and [REDACTED] and [REDACTED]",
            ),
            ("Basic YXBwIHNlY3JldA== refused", "Basic [REDACTED]== refused"),
            ("a\u{1b}[31mb\u{202e}c\u{0}d", "a [31mb c d"),
            ("ab is short, cab is not it", "[REDACTED] is short, cab is not it"),
            ("it begins with EwB4A8l6BAAU6k7", "it begins with [REDACTED]"),
            ("token=EwB4A8l6BAAU6k7.", "[REDACTED]"),
            ("it begins with EwB4A8", "it begins with EwB4A8"),
        ];
        for (text, expected) in cases {
            let secrets = [
                "r-secret",
                "app secret",
                "",
                "1//0g",
                "ab",
                "EwB4A8l6BAAU6k7kIQmnJOGzDJgKmDOMcQ",
            ];
            assert_eq!(clean(text, &secrets), expected);
        }
        assert_eq!(
            clean(&"wörd ".repeat(1000), &[]).chars().count(),
            UPSTREAM_TEXT_CHARS_MAX
        );
    }

    #[test]
    fn what_is_long_and_no_secret_is_shown() {
        for text in [
            "the scope https://outlook.office365.com/IMAP.AccessAsUser.All.Of.Everything.There.Is is not valid",
            "redirect_uri https://mail.example.com/a/rather/long/path/to/oauth/callback?tenant=everybody does not match",
            "client 0123456789012-abcdefghijklmnopqrstuvwxyz012345.apps.googleusercontent.com is disabled",
        ] {
            assert_eq!(clean(text, &["r-secret"]), text);
        }
    }

    #[test]
    fn a_programs_complaint_shows_nothing_that_could_be_a_token() {
        let jwt = format!("eyJ0eXAiOiJKV1Qi.{}.sig", "x".repeat(60));
        let complaint = format!("cannot use {jwt}: r-secret is gone\n");
        assert_eq!(
            clean_complaint(&complaint, &["r-secret"]),
            "cannot use [REDACTED]: [REDACTED] is gone"
        );
    }

    proptest! {
        #[test]
        fn no_form_of_a_secret_gets_through(secret in "[ -~]{4,40}", before in "\\PC{0,20}", after in "\\PC{0,20}") {
            prop_assume!(!secret.trim().is_empty() && !REDACTED.contains(secret.as_str()));
            for form in forms(&secret).collect::<Vec<_>>() {
                let shown = clean(&format!("{before}{form}{after}"), &[&secret]);
                prop_assert!(!shown.contains(&form) || REDACTED.contains(&form), "{form:?} is in {shown:?}");
            }
        }
    }
}
