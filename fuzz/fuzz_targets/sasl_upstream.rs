//! Any user, host and secret: a message that is made can be read back field by field.
//!
//! The input is user, host and secret, separated by LF; what lies behind goes to the secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::proto::sasl::upstream::{oauthbearer, plain, xoauth2};

/// Decodes base64 (RFC 4648 §4), which the encoder under test is not to check itself.
fn decoded(text: &str) -> String {
    let mut bits = 0u32;
    let mut count = 0;
    let mut bytes = Vec::new();
    for character in text.bytes().filter(|byte| *byte != b'=') {
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            other => panic!("not base64: {other}"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    String::from_utf8(bytes).expect("made of strings")
}

fuzz_target!(|data: &str| {
    let mut fields = data.splitn(3, '\n');
    let [user, host, secret] = [(); 3].map(|()| fields.next().unwrap_or_default());
    let sealed = secret.to_owned().into();
    if let Ok(response) = plain(user, &sealed) {
        assert_eq!(decoded(&response).split('\0').collect::<Vec<_>>(), ["", user, secret]);
    }
    if let Ok(response) = xoauth2(user, &sealed) {
        let message = decoded(&response);
        let fields: Vec<_> = message.split('\x01').collect();
        assert_eq!(
            fields,
            [&format!("user={user}"), &format!("auth=Bearer {secret}"), "", ""]
        );
    }
    if let Ok(response) = oauthbearer(user, host, 993, &sealed) {
        let message = decoded(&response);
        let fields: Vec<_> = message.split('\x01').collect();
        let [header, host_field, "port=993", auth, "", ""] = fields[..] else {
            panic!("{message:?}")
        };
        let name = header
            .strip_prefix("n,a=")
            .and_then(|it| it.strip_suffix(','))
            .expect("a GS2 header");
        assert!(!name.contains(','));
        assert_eq!(name.replace("=2C", ",").replace("=3D", "="), user);
        assert_eq!(
            (host_field, auth),
            (&*format!("host={host}"), &*format!("auth=Bearer {secret}"))
        );
    }
});
