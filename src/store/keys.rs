//! The keys under which an ordered store keeps its records.
//!
//! A key that joins an account with something else separates the two by the byte 0xFF, which no UTF-8 text contains: no
//! account's keys begin with another's, whatever its id. Numbers are big-endian, so that their order is the order of bytes.

use super::{TokenId, UpstreamId, UsageKind};
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

/// The key of a token among those that another one made.
pub(super) fn token_child(parent: &TokenId, child: &TokenId) -> Vec<u8> {
    [parent.0, child.0].concat()
}

/// The token that a key of [`account_token`] or [`token_child`] ends with.
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

/// What the keys of the events of one kind begin with: among all (an empty `owner`), or among its account's or its token's.
/// Event keys of the first version had no kind; their numbers begin below [`FIRST_KIND`], so that the two can be told apart.
pub(super) fn series(owner: &[u8], kind: UsageKind) -> Vec<u8> {
    let mut key = Vec::with_capacity(owner.len() + 1 + size_of::<u64>());
    key.extend_from_slice(owner);
    key.push(match kind {
        UsageKind::Login => FIRST_KIND,
        UsageKind::Denied => FIRST_KIND + 1,
        UsageKind::End => FIRST_KIND + 2,
        UsageKind::State => FIRST_KIND + 3,
    });
    key
}

/// The key of an event in its series.
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

/// The millisecond that a number belongs to: the one whose [`sequence_floor`] is the highest that is not above it.
pub(super) fn millisecond_of(sequence: u64) -> u64 {
    sequence >> EVENTS_PER_MILLISECOND_BITS
}

/// The lowest number of the millisecond `time`, unless numbers run ahead of the clock.
pub(super) fn sequence_floor(time: Timestamp) -> u64 {
    time.as_millis().min(u64::MAX >> EVENTS_PER_MILLISECOND_BITS) << EVENTS_PER_MILLISECOND_BITS
}

const SEPARATOR: u8 = 0xFF;

/// The first byte that stands for a kind of event. Numbers of events begin with it after the year 2248.
pub(super) const FIRST_KIND: u8 = 0x80;

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
        fn a_number_belongs_to_the_millisecond_that_it_was_made_for(time in 0..1_u64 << 44, events in 0..1_u64 << 20) {
            let number = sequence_floor(Timestamp::from_millis(time)) + events;
            prop_assert_eq!(millisecond_of(number), time);
        }
    }
}
