//! Any answer of a token endpoint: never a panic, never a life out of bounds, never a message that repeats a secret.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::clock::Timestamp;
use portreeve::oauth::answer::{Asked, Response, read};
use portreeve::oauth::{Step, Vendor};

fuzz_target!(|input: (u16, Option<&str>, &[u8])| {
    let (status, retry_after, body) = input;
    let response = Response {
        status,
        retry_after,
        body,
    };
    let asked = Asked {
        step: Step::Refresh,
        vendor: Vendor::Other,
        secrets: &["s3cr3t-refresh-token"],
    };
    match read(&response, Timestamp::from_millis(1_700_000_000_000), asked) {
        Ok(answer) => assert!((1..=366 * 24 * 3600).contains(&answer.expires_in.as_secs())),
        Err(error) => {
            assert!(!error.message.contains("s3cr3t-refresh-token"));
            assert!(error.message.chars().count() <= 600);
        }
    }
});
