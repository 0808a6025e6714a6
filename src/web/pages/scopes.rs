//! What a missing scope would have allowed, in words.

/// `scope` for somebody who does not know what a scope is; `None` for one that is not known here.
pub(super) fn in_words(scope: &str) -> Option<&'static str> {
    // Microsoft's have the resource in front, which differs between its clouds.
    let short = match scope.strip_prefix("https://") {
        Some(rest) if rest.starts_with("outlook.") => rest.rsplit('/').next().unwrap_or(scope),
        _ => scope,
    };
    WORDS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(short))
        .map(|(_, words)| *words)
}

const WORDS: &[(&str, &str)] = &[
    ("https://mail.google.com/", "to read, send and delete mail"),
    ("IMAP.AccessAsUser.All", "to read and sort mail (IMAP)"),
    ("POP.AccessAsUser.All", "to fetch mail (POP)"),
    ("SMTP.Send", "to send mail (SMTP)"),
    ("offline_access", "to stay connected while you are away"),
    ("openid", "to see who signs in"),
    ("email", "to see the e-mail address that signs in"),
    ("profile", "to see the name that signs in"),
    ("mail-r", "to read mail"),
    ("mail-w", "to read, send and delete mail"),
    ("mail", "to use mail"),
    ("mail:imap_full", "to read and sort mail (IMAP)"),
    ("mail:imap_ro", "to read mail (IMAP)"),
    ("mail:smtp", "to send mail (SMTP)"),
    ("mail.imap", "to read and sort mail (IMAP)"),
    (
        "https://www.fastmail.com/dev/protocol-imap",
        "to read and sort mail (IMAP)",
    ),
    ("https://www.fastmail.com/dev/protocol-pop", "to fetch mail (POP)"),
    ("https://www.fastmail.com/dev/protocol-smtp", "to send mail (SMTP)"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_scopes_have_words_whichever_cloud_they_are_of() {
        for (scope, words) in [
            (
                "https://outlook.office.com/IMAP.AccessAsUser.All",
                Some("to read and sort mail (IMAP)"),
            ),
            ("https://outlook.office365.us/SMTP.Send", Some("to send mail (SMTP)")),
            ("https://outlook.office.com/smtp.send", Some("to send mail (SMTP)")),
            ("https://mail.google.com/", Some("to read, send and delete mail")),
            ("offline_access", Some("to stay connected while you are away")),
            ("https://evil.example/openid", None),
            ("urn:something", None),
            ("", None),
        ] {
            assert_eq!(in_words(scope), words, "{scope}");
        }
    }
}
