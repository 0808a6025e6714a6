//! An account's secrets as bytes, between [`AccountSecrets`] and the seal.
//!
//! A list of fields, each a tag (1 byte), a length (4 bytes, big-endian) and a value. Written by hand rather than with serde,
//! because every copy of a secret has to be wiped and a general serializer leaves some in its scratch space.

use zeroize::Zeroizing;

use super::{AccountSecrets, Grant};
use crate::clock::Timestamp;
use crate::secret::{ExposeSecret, SecretString};

/// The bytes of `secrets`, in a buffer that never moved and is wiped when dropped.
pub(super) fn encode(secrets: &AccountSecrets) -> Zeroizing<Vec<u8>> {
    let grant = secrets.grant.as_ref();
    let texts = [
        (REFRESH_TOKEN, grant.and_then(|grant| grant.refresh_token.as_ref())),
        (ACCESS_TOKEN, grant.and_then(|grant| grant.access_token.as_ref())),
        (PASSWORD, secrets.password.as_ref()),
    ];
    let plain = [
        (SCOPE, grant.and_then(|grant| grant.scope.as_deref())),
        (USER, grant.and_then(|grant| grant.user.as_deref())),
    ];
    let times = [
        (OBTAINED, grant.and_then(|grant| grant.obtained)),
        (EXPIRES, grant.and_then(|grant| grant.expires)),
        (ENDS, grant.and_then(|grant| grant.ends)),
        (ENDS_TOLD, grant.and_then(|grant| grant.ends_told)),
        (WARNED_OF, grant.and_then(|grant| grant.warned_of)),
    ];
    let text_bytes: usize = texts
        .iter()
        .filter_map(|(_, text)| Some(text.as_ref()?.expose_secret().len()))
        .sum();
    let plain_bytes: usize = plain.iter().filter_map(|(_, text)| Some(text.as_ref()?.len())).sum();
    let text_bytes = text_bytes + plain_bytes;

    // IMPORTANT: the capacity must suffice, or growing leaves a copy behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        text_bytes + FIELDS_MAX * (HEADER_BYTES + size_of::<u64>()),
    ));
    if grant.is_some() {
        push(&mut bytes, GRANT, &[]);
    }
    if grant.is_some_and(|grant| grant.names_no_scopes) {
        push(&mut bytes, NAMES_NO_SCOPES, &[]);
    }
    for (tag, text) in texts {
        if let Some(text) = text {
            push(&mut bytes, tag, text.expose_secret().as_bytes());
        }
    }
    for (tag, text) in plain {
        if let Some(text) = text {
            push(&mut bytes, tag, text.as_bytes());
        }
    }
    for (tag, time) in times {
        if let Some(time) = time {
            push(&mut bytes, tag, &time.as_millis().to_be_bytes());
        }
    }
    bytes
}

/// The secrets in `bytes`; `None` where [`encode`] did not make them, or a newer version's did.
pub(super) fn decode(mut bytes: &[u8]) -> Option<AccountSecrets> {
    let mut secrets = AccountSecrets::default();
    while let Some((tag, rest)) = bytes.split_first() {
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        bytes = rest;
        match *tag {
            GRANT => secrets.grant = Some(Grant::default()),
            PASSWORD => secrets.password = Some(text(value)?),
            REFRESH_TOKEN => secrets.grant.as_mut()?.refresh_token = Some(text(value)?),
            ACCESS_TOKEN => secrets.grant.as_mut()?.access_token = Some(text(value)?),
            OBTAINED => secrets.grant.as_mut()?.obtained = Some(time(value)?),
            EXPIRES => secrets.grant.as_mut()?.expires = Some(time(value)?),
            SCOPE => secrets.grant.as_mut()?.scope = Some(std::str::from_utf8(value).ok()?.to_owned()),
            USER => secrets.grant.as_mut()?.user = Some(std::str::from_utf8(value).ok()?.to_owned()),
            NAMES_NO_SCOPES => secrets.grant.as_mut()?.names_no_scopes = true,
            ENDS => secrets.grant.as_mut()?.ends = Some(time(value)?),
            ENDS_TOLD => secrets.grant.as_mut()?.ends_told = Some(time(value)?),
            WARNED_OF => secrets.grant.as_mut()?.warned_of = Some(time(value)?),
            _ => return None,
        }
    }
    Some(secrets)
}

fn push(bytes: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let length = u32::try_from(value.len()).expect("credentials are limited to CREDENTIAL_BYTES_MAX");
    bytes.push(tag);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(value);
}

fn text(value: &[u8]) -> Option<SecretString> {
    std::str::from_utf8(value).ok().map(SecretString::from)
}

fn time(value: &[u8]) -> Option<Timestamp> {
    value
        .try_into()
        .ok()
        .map(u64::from_be_bytes)
        .map(Timestamp::from_millis)
}

/// Tags are part of the format on disk: none is ever given another meaning.
const GRANT: u8 = 1;
const REFRESH_TOKEN: u8 = 2;
const ACCESS_TOKEN: u8 = 3;
const OBTAINED: u8 = 4;
const EXPIRES: u8 = 5;
const PASSWORD: u8 = 6;
const SCOPE: u8 = 7;
const ENDS: u8 = 8;
const ENDS_TOLD: u8 = 9;
const WARNED_OF: u8 = 10;
const USER: u8 = 11;
const NAMES_NO_SCOPES: u8 = 12;

const FIELDS_MAX: usize = 12;
const HEADER_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::embedded::tests::{any_secrets, revealed};

    proptest! {
        #[test]
        fn secrets_read_back_as_they_were_in_a_buffer_that_did_not_grow(secrets in any_secrets()) {
            let bytes = encode(&secrets);
            prop_assert_eq!(revealed(&decode(&bytes).unwrap()), revealed(&secrets));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_field_cut_short_or_unknown_is_refused() {
        let bytes = encode(&AccountSecrets {
            grant: None,
            password: Some("sesame".into()),
        });
        assert!(decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(decode(&[99, 0, 0, 0, 0]).is_none());
    }
}
