//! Who sent a request, where reverse proxies stand in between.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The address that counts as the client's: the peer's, unless the peer is trusted to tell. Then it is the right-most entry
/// of `X-Forwarded-For` that is not itself trusted: each proxy adds at the right whom it heard from, and whatever stands
/// further left was said by somebody who is not believed.
///
/// An entry that is no address ends the search, so that the proxy which passed it on counts.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return client;
    }
    // Several fields are one list (RFC 9110 §5.3), the last field at its right end.
    let fields = headers.get_all(FORWARDED_FOR).iter().rev();
    let entries = fields.flat_map(|field| field.as_bytes().rsplit(|byte| *byte == b','));
    for entry in entries {
        let Some(address) = std::str::from_utf8(entry).ok().and_then(address) else {
            break;
        };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

/// An entry's address. Some proxies add the port.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.trim_start_matches('[').trim_end_matches(']');
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| entry.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

const FORWARDED_FOR: &str = "x-forwarded-for";

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_right_most_entry_that_is_not_a_proxys_own_counts_and_only_proxies_are_asked() {
        let trusted = ["127.0.0.1/32", "10.0.0.0/8", "2001:db8:1::/48"].map(|range| range.parse().unwrap());
        for (peer, fields, expected) in [
            ("192.0.2.1", &[] as &[&str], "192.0.2.1"),
            // Whoever is not a proxy is not believed.
            ("192.0.2.1", &["203.0.113.5"], "192.0.2.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            ("::ffff:127.0.0.1", &["203.0.113.5"], "203.0.113.5"),
            // The client itself sent the left part.
            ("127.0.0.1", &["127.0.0.1, 198.51.100.9, 203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", &["198.51.100.9", "203.0.113.5"], "203.0.113.5"),
            // A chain of proxies.
            ("127.0.0.1", &["198.51.100.9, 203.0.113.5, 10.1.2.3"], "203.0.113.5"),
            ("127.0.0.1", &["203.0.113.5", "10.1.2.3", "10.9.9.9"], "203.0.113.5"),
            // A request of a proxy's own.
            ("127.0.0.1", &["10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &["203.0.113.5:51234"], "203.0.113.5"),
            ("127.0.0.1", &["[2001:db8::7]:51234"], "2001:db8::7"),
            ("127.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("2001:db8:1::1", &["2001:db8::7"], "2001:db8::7"),
            ("127.0.0.1", &["::ffff:203.0.113.5"], "203.0.113.5"),
            // What cannot be read is not skipped: the one who passed it on counts.
            ("127.0.0.1", &["203.0.113.5, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.5, garbage, 10.1.2.3"], "10.1.2.3"),
            ("127.0.0.1", &["203.0.113.5,"], "127.0.0.1"),
            ("127.0.0.1", &[""], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.5 10.1.2.3"], "127.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(FORWARDED_FOR, HeaderValue::from_str(field).unwrap());
            }
            let found = client(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found.to_string(), expected, "{peer} {fields:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_address() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_bytes(b"203.0.113.5, \xff").unwrap());
        let trusted = ["127.0.0.1/32".parse().unwrap()];
        let found = client("127.0.0.1".parse().unwrap(), &headers, &trusted);
        assert_eq!(found.to_string(), "127.0.0.1");
    }
}
