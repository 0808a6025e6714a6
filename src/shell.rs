//! Commands that are printed for people to paste: what stands in them must mean itself to a shell.

use std::borrow::Cow;

/// `text` as one word of a POSIX shell's command: as it is where that does, else quoted.
pub fn word(text: &str) -> String {
    // Only a NUL could not be quoted, and no command can hold one.
    let text = text.replace('\0', "");
    shlex::try_quote(&text).map_or_else(|_| "''".to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_are_left_as_they_are() {
        for text in ["ada", "user@example.com", "a.b-c_d/e+f"] {
            assert_eq!(word(text), text);
        }
        assert_eq!(word(""), "''");
        assert_eq!(word("a\0b"), "ab");
    }

    #[test]
    fn a_shell_reads_each_word_as_it_was() {
        let words = [
            "Ada's mailbox",
            "$HOME",
            "a b",
            "`id`",
            "\"x\" \\ !1",
            "*",
            "~",
            "#x",
            "größe",
            "a;b&c|d>e",
            "'",
        ];
        let quoted: Vec<String> = words.iter().map(|text| word(text)).collect();
        let script = format!("printf '%s\\n' {}", quoted.join(" "));
        let output = Command::new("sh").arg("-c").arg(script).output().unwrap();
        let read = String::from_utf8(output.stdout).unwrap();
        assert_eq!(read.lines().collect::<Vec<_>>(), words);
    }

    proptest! {
        #[test]
        fn a_word_is_split_back_into_itself(text in "[^\\x00]*") {
            prop_assert_eq!(shlex::split(&word(&text)), Some(vec![text]));
        }
    }
}
