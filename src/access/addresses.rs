//! Where an access token may be used from.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::store::Restrictions;

/// Whether `restrictions` let `address` in.
pub(super) fn allows(restrictions: Option<&Restrictions>, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let ranges = ranges(restrictions);
    ranges.is_empty() || ranges.iter().any(|range| range.contains(&address))
}

/// Whether every address that `inner` lets in is one that `outer` lets in.
pub(super) fn is_within(inner: Option<&Restrictions>, outer: Option<&Restrictions>) -> bool {
    // Neighbours that make up a larger range are joined, so that it is one range that holds another.
    let outer = IpNet::aggregate(&ranges(outer));
    let inner = ranges(inner);
    let holds = |range: &IpNet| outer.iter().any(|allowed| allowed.contains(range));
    outer.is_empty() || (!inner.is_empty() && inner.iter().all(holds))
}

/// The ranges; none: anywhere.
fn ranges(restrictions: Option<&Restrictions>) -> Vec<IpNet> {
    let addresses = restrictions.map(|restrictions| restrictions.addresses.as_slice());
    addresses.unwrap_or_default().iter().copied().map(canonical).collect()
}

/// A range of IPv4-mapped addresses (RFC 4291 §2.5.5.2) as the range of IPv4 addresses that is meant.
fn canonical(range: IpNet) -> IpNet {
    let IpNet::V6(v6) = range else {
        return range;
    };
    let mapped = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED_PREFIX_BITS));
    mapped
        .and_then(|(address, bits)| Ipv4Net::new(address, bits).ok())
        .map_or(range, IpNet::V4)
}

const MAPPED_PREFIX_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn restrictions(ranges: &[&str]) -> Restrictions {
        Restrictions {
            addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn ranges_hold_addresses_of_their_family_and_mapped_ones() {
        for (ranges, address, expected) in [
            (&[][..], "192.0.2.1", true),
            (&["127.0.0.1/32"], "127.0.0.1", true),
            (&["127.0.0.1/32"], "::ffff:127.0.0.1", true),
            (&["127.0.0.1/32"], "127.0.0.9", false),
            (&["127.0.0.1/32"], "::1", false),
            (&["10.1.2.3/8"], "10.200.0.1", true),
            (&["2001:db8::/32", "192.0.2.0/24"], "2001:db8:1::1", true),
            (&["2001:db8::/32", "192.0.2.0/24"], "192.0.2.255", true),
            (&["2001:db8::/32", "192.0.2.0/24"], "192.0.3.0", false),
            (&["::ffff:192.0.2.0/120"], "192.0.2.7", true),
            (&["::ffff:192.0.2.0/120"], "192.0.3.7", false),
            (&["::ffff:0:0/96"], "192.0.3.7", true),
            (&["::/0"], "192.0.3.7", false),
            (&["0.0.0.0/0"], "::1", false),
        ] {
            let allowed = allows(Some(&restrictions(ranges)), address.parse().unwrap());
            assert_eq!(allowed, expected, "{ranges:?} {address}");
        }
        assert!(allows(None, "192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn ranges_are_within_others_if_nothing_of_them_is_outside() {
        for (inner, outer, expected) in [
            (&["10.0.0.0/8"][..], &[][..], true),
            (&[], &[], true),
            (&[], &["0.0.0.0/0", "::/0"], false),
            (&["10.1.0.0/16"], &["10.0.0.0/8"], true),
            (&["10.0.0.0/8"], &["10.0.0.0/8"], true),
            (&["10.0.0.0/7"], &["10.0.0.0/8"], false),
            (&["10.0.0.0/8"], &["10.128.0.0/9", "10.0.0.0/9"], true),
            (&["10.1.0.0/16", "192.0.2.1/32"], &["10.0.0.0/8"], false),
            (&["::ffff:10.1.0.0/112"], &["10.0.0.0/8"], true),
            (&["::1/128"], &["127.0.0.0/8"], false),
            (&["2001:db8:1::/48"], &["127.0.0.0/8", "2001:db8::/32"], true),
        ] {
            let within = is_within(Some(&restrictions(inner)), Some(&restrictions(outer)));
            assert_eq!(within, expected, "{inner:?} in {outer:?}");
        }
        assert!(is_within(None, None));
        assert!(!is_within(None, Some(&restrictions(&["::1/128"]))));
    }
}
