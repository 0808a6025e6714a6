//! Configuration files of servers and mail programs with words to fill in.

/// Replaces each `@WORD@` of a template: capitals, digits and underscores between at signs, which
/// may stand elsewhere as they like. Every word of the template must be given, and every word
/// given must be in it.
pub fn fill(template: &str, words: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut used = vec![false; words.len()];
    let mut parts = template.split('@').peekable();
    while let Some(part) = parts.next() {
        text.push_str(part);
        let Some(word) = parts.peek() else { break };
        if is_word(word) {
            let place = words.iter().position(|(name, _)| name == word);
            let place = place.unwrap_or_else(|| panic!("@{word}@ is not filled in"));
            used[place] = true;
            text.push_str(words[place].1);
            parts.next();
        } else {
            text.push('@');
        }
    }
    let unused = used.iter().position(|used| !used).map(|place| words[place].0);
    assert_eq!(unused, None, "a word that the template does not have");
    text
}

fn is_word(part: &str) -> bool {
    !part.is_empty()
        && part
            .bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

#[test]
fn words_are_filled_in_and_other_at_signs_stay() {
    let filled = fill(
        "a@b.c @ONE@@TWO_2@ x@y @ ONE @ONE@@",
        &[("ONE", "1"), ("TWO_2", "@ONE@")],
    );
    assert_eq!(filled, "a@b.c 1@ONE@ x@y @ ONE 1@");
}
