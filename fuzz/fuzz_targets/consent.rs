//! Whatever comes back of a consent — the redirected URL, an id_token, a device code's answer: never a panic, and nothing of it
//! longer than it may be.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::clock::Timestamp;
use portreeve::oauth::answer::{Asked, Response};
use portreeve::oauth::{Outcome, Redirect, Step, Vendor, device, identity};
use url::Url;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fuzz_target!(|input: (&str, &str, u16, &[u8])| {
    let (query, id_token, status, body) = input;
    let mut url = Url::parse("http://localhost:8000/").expect("a URL");
    url.set_query(Some(query));
    if let Ok(redirect) = Redirect::read(&url) {
        assert!(!redirect.state.is_empty());
        if let Outcome::Refused { code, .. } = &redirect.outcome {
            assert!(!code.chars().any(char::is_control));
        }
    }

    let expected = identity::Expected {
        issuer: Some("https://id.example.com"),
        client_id: "app",
        nonce: None,
    };
    if let Ok(Some(identity)) = identity::read(&id_token.into(), &expected, NOW) {
        assert!(identity.addresses().all(|address| address.contains('@')));
    }

    let response = Response {
        status,
        retry_after: None,
        body,
    };
    let asked = Asked {
        step: Step::DeviceCode,
        vendor: Vendor::Other,
        secrets: &["s3cr3t"],
    };
    if let Ok(code) = device::read(&response, NOW, asked, &["mail".to_owned()]) {
        assert!(!code.user_code.chars().any(char::is_control));
        assert!(code.expires_in.as_secs() >= 1 && code.interval.as_secs() >= 1);
    }
});
