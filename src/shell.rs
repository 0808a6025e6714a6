//! Words of commands that a person is told to paste into a shell.

use std::borrow::Cow;

/// `text` as one word of a POSIX shell, as it is where that is safe: whatever an account is called, no part of its name is an
/// option, a second command or a pattern (IEEE Std 1003.1, Shell Command Language, 2.2).
pub fn word(text: &str) -> Cow<'_, str> {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"@%+:,./_-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_safe) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_safe_stays_as_it_is_and_the_rest_is_quoted() {
        for (text, expected) in [
            ("ada@example.com", "ada@example.com"),
            ("user+tag@example.com", "user+tag@example.com"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$(id)", "'$(id)'"),
            ("~root", "'~root'"),
            ("Größe", "'Größe'"),
            ("a;b&c|d", "'a;b&c|d'"),
        ] {
            assert_eq!(word(text), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_shell_reads_back_what_was_meant(text in "[ -~äß€'\"$`\\\\]{0,30}") {
            let script = format!("printf %s {}", word(&text));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
