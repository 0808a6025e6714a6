//! Any bytes as a command: parsed or refused, without a secret in debug output, and with a tag that stands in the input.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::limits::{ID_FIELD_BYTES_MAX, ID_PAIRS_MAX, ID_VALUE_BYTES_MAX};
use portreeve::proto::imap::command::{self, Body, Command};

fuzz_target!(|frame: &[u8]| {
    let _ = command::tag_of(frame);
    let login = command::login_tag_of(frame);
    match command::parse(frame) {
        Ok(Command { tag, body }) => {
            assert!(frame.starts_with(tag.as_str().as_bytes()));
            assert!(tag.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            match body {
                Body::Id(identity) => {
                    assert!(identity.pairs.len() <= ID_PAIRS_MAX);
                    for (field, value) in identity.pairs {
                        // What is not UTF-8 grows threefold at most.
                        assert!(field.len() <= 3 * ID_FIELD_BYTES_MAX);
                        assert!(value.iter().all(|value| value.len() <= 3 * ID_VALUE_BYTES_MAX));
                        assert!(!field.contains(['\r', '\n', '\0']));
                        assert!(!value.iter().any(|value| value.contains(['\r', '\n', '\0'])));
                    }
                }
                // Whatever logs in is known as such before its arguments are looked at.
                Body::Login { .. } | Body::Authenticate { .. } => assert_eq!(login, Some(tag)),
                _ => assert_eq!(login, None),
            }
        }
        Err(bad) => assert!(bad.tag.is_none_or(|tag| frame.starts_with(tag.as_str().as_bytes()))),
    }
});
