//! The keys under which an ordered store keeps its records.
//!
//! A key that joins an account with something else separates the two by the byte 0xFF, which no UTF-8 text contains: no
//! account's keys begin with another's, whatever its id. Numbers are big-endian, so that their order is the order of bytes.

use super::{TokenId, UpstreamId};
use crate::clock::Timestamp;
use crate::config::UpstreamTls;

/// Bytes of the longest name that is kept: an e-mail address of [`crate::limits::LABEL_CHARS_MAX`] characters, which may
/// grow when it is folded. Engines limit their keys (fjall: 64 KiB), so that longer names are refused before they get there.
pub(super) const NAME_BYTES_MAX: usize = 8 * 1024;

/// A name as it is compared without regard to case (Unicode's lower case).
pub(super) fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// What the keys of everything that belongs to an account begin with.
pub(super) fn account_prefix(account: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(account.len() + 1 + TOKEN_ID_BYTES);
    key.extend_from_slice(account.as_bytes());
    key.push(SEPARATOR);
    key
}

/// The key of a token among its account's.
pub(super) fn account_token(account: &str, token: &TokenId) -> Vec<u8> {
    let mut key = account_prefix(account);
    key.extend_from_slice(&token.0);
    key
}

/// The token that a key of [`account_token`] ends with.
pub(super) fn token_of(key: &[u8]) -> Option<TokenId> {
    key.last_chunk::<TOKEN_ID_BYTES>().copied().map(TokenId)
}

/// The key of an account among those that share another's grant.
pub(super) fn sharer(owner: &str, sharer: &str) -> Vec<u8> {
    let mut key = account_prefix(owner);
    key.extend_from_slice(sharer.as_bytes());
    key
}

/// The account that a key of [`sharer`] ends with.
pub(super) fn sharer_of(key: &[u8]) -> Option<String> {
    let separator = key.iter().position(|byte| *byte == SEPARATOR)?;
    let (_, sharer) = key.split_at_checked(separator + 1)?;
    std::str::from_utf8(sharer).ok().map(str::to_owned)
}

/// What the key of every upstream begins with.
pub(super) const UPSTREAMS: &[u8] = b"upstream/";

/// The key of an upstream. No host has a slash, so that no two share one.
pub(super) fn upstream(id: &UpstreamId) -> Vec<u8> {
    let (provider, protocol, endpoint) = (&id.provider, id.protocol, &id.endpoint);
    let tls = match endpoint.tls {
        UpstreamTls::Implicit => "implicit",
        UpstreamTls::Starttls => "starttls",
        UpstreamTls::Off => "off",
    };
    let name = format!("{protocol}/{provider}/{}:{}/{tls}", endpoint.host, endpoint.port);
    [UPSTREAMS, name.as_bytes()].concat()
}

/// The key of an event, alone (an empty `prefix`) or among its account's or its token's.
pub(super) fn sequence(prefix: &[u8], sequence: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + size_of::<u64>());
    key.extend_from_slice(prefix);
    key.extend_from_slice(&sequence.to_be_bytes());
    key
}

/// The sequence number that a key of [`sequence`] ends with.
pub(super) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().copied().map(u64::from_be_bytes)
}

/// The number of an event at `time` that follows the event numbered `last`: it is higher than `last`, and at least
/// [`sequence_floor`] of its time, even where the clock was set back. So every event since a moment is found above the
/// moment's floor, without an index by time.
pub(super) fn next_sequence(last: u64, time: Timestamp) -> u64 {
    last.saturating_add(1).max(sequence_floor(time))
}

/// A number that no event at `time` or later is below.
pub(super) fn sequence_floor(time: Timestamp) -> u64 {
    time.as_millis().min(u64::MAX >> EVENTS_PER_MILLISECOND_BITS) << EVENTS_PER_MILLISECOND_BITS
}

const SEPARATOR: u8 = 0xFF;
const TOKEN_ID_BYTES: usize = 32;

/// A million events fit in a millisecond before numbers run ahead of time; 44 bits are left for the time: until 2527.
const EVENTS_PER_MILLISECOND_BITS: u32 = 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_parts_make_different_keys(a: String, b: String, x: u64, y: u64) {
            let same = a == b && x == y;
            prop_assert_eq!(sequence(&account_prefix(&a), x) == sequence(&account_prefix(&b), y), same);
            let (s, t) = (TokenId([x as u8; 32]), TokenId([y as u8; 32]));
            prop_assert_eq!(account_token(&a, &s) == account_token(&b, &t), a == b && s == t);
        }

        #[test]
        fn no_account_s_keys_begin_with_another_s(a: String, suffix: String) {
            let longer = format!("{a}{suffix}");
            let begins = account_prefix(&longer).starts_with(&account_prefix(&a));
            prop_assert_eq!(begins, suffix.is_empty());
        }

        #[test]
        fn an_account_s_keys_are_in_the_order_of_their_numbers(account: String, x: u64, y: u64) {
            let prefix = account_prefix(&account);
            prop_assert_eq!(sequence(&prefix, x).cmp(&sequence(&prefix, y)), x.cmp(&y));
            prop_assert_eq!(sequence_of(&sequence(&prefix, x)), Some(x));
        }

        #[test]
        fn a_token_is_read_back_from_its_key(account: String, id: [u8; 32]) {
            prop_assert_eq!(token_of(&account_token(&account, &TokenId(id))), Some(TokenId(id)));
        }

        #[test]
        fn every_event_since_a_moment_is_numbered_above_its_floor(
            times in prop::collection::vec(0..2_000_000_000_000_u64, 1..50),
            since in 0..2_000_000_000_000_u64,
        ) {
            let mut last = 0;
            for time in times {
                let number = next_sequence(last, Timestamp::from_millis(time));
                prop_assert!(number > last);
                prop_assert!(time < since || number >= sequence_floor(Timestamp::from_millis(since)));
                last = number;
            }
        }
    }
}
