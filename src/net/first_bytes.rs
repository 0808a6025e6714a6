//! What the first bytes of a client give away, where they are not of the protocol that it was expected to speak.
//!
//! This only ever explains: what the bytes mean is decided by whoever speaks the protocol, and nothing is believed for them.

use super::proxy_protocol::V2_SIGNATURE;

/// What a stream seems to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// A TLS handshake record (RFC 8446 §5.1).
    Tls,
    /// A PROXY protocol header of either version.
    ProxyHeader,
    /// Something else, such as a mail protocol's command.
    Other,
    /// So far the beginning of one of the above: more bytes will tell, [`FIRST_BYTES`] at the latest.
    Undecided,
}

impl FirstBytes {
    /// Judges by what has come so far, however it was cut.
    pub fn of(bytes: &[u8]) -> Self {
        let known = PROXY_BEGINNINGS.map(|beginning| (beginning, Self::ProxyHeader));
        let mut known = known.into_iter().chain([(&TLS_HANDSHAKE[..], Self::Tls)]);
        known
            .find_map(|(beginning, meaning)| match bytes {
                _ if bytes.starts_with(beginning) => Some(meaning),
                _ if beginning.starts_with(bytes) => Some(Self::Undecided),
                _ => None,
            })
            .unwrap_or(Self::Other)
    }
}

/// Whether a connection that is to be TLS may go on with `bytes`, of which one is enough.
pub fn is_tls_record(bytes: &[u8]) -> bool {
    bytes.first() == TLS_HANDSHAKE.first()
}

/// Bytes that [`FirstBytes::of`] needs to see at most.
pub const FIRST_BYTES: usize = 16;

/// What a PROXY header begins with. In version 1 it is a word more than "PROXY": that alone may be the tag of an IMAP command
/// (RFC 9051 §2.2.1).
const PROXY_BEGINNINGS: [&[u8]; 4] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", V2_SIGNATURE];

/// A record of type handshake (RFC 8446 §5.1), of any version that TLS has ever had.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_begins_with_is_recognised() {
        for (bytes, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00"[..], FirstBytes::Tls),
            (b"\x16\x03", FirstBytes::Tls),
            (b"\x16", FirstBytes::Undecided),
            (b"\x16\x04", FirstBytes::Other),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\r\n", FirstBytes::ProxyHeader),
            (b"PROXY TCP6 2001:db8::7 ", FirstBytes::ProxyHeader),
            (b"PROXY UNKNOWN\r\n", FirstBytes::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C", FirstBytes::ProxyHeader),
            (b"PROXY NOOP\r\n", FirstBytes::Other),
            (b"PROXY TCP5 ", FirstBytes::Other),
            (b"\r\n\r\nA1 NOOP\r\n", FirstBytes::Other),
            (b"A1 LOGIN alice secret\r\n", FirstBytes::Other),
            (b"EHLO client\r\n", FirstBytes::Other),
            (b"GET / HTTP/1.1\r\n", FirstBytes::Other),
        ] {
            assert_eq!(FirstBytes::of(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
            let seen = bytes.get(..FIRST_BYTES).unwrap_or(bytes);
            assert_eq!(FirstBytes::of(seen), expected, "{:?}", String::from_utf8_lossy(seen));
        }
    }

    #[test]
    fn the_beginning_of_a_beginning_is_undecided_and_never_as_long_as_what_is_looked_at() {
        for beginning in PROXY_BEGINNINGS.into_iter().chain([&TLS_HANDSHAKE[..]]) {
            for length in 0..beginning.len() {
                let cut = FirstBytes::of(&beginning[..length]);
                assert_eq!(cut, FirstBytes::Undecided, "{length} of {beginning:?}");
            }
            assert!(beginning.len() <= FIRST_BYTES, "{beginning:?}");
        }
    }
}
