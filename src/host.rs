//! Hosts that are this machine, whatever DNS would say of them.

use std::net::IpAddr;

/// Whether a host is this machine's own, so that what is sent to it needs no TLS.
pub fn is_loopback_host(host: &str) -> bool {
    match address_of(host) {
        Some(address) => address.is_loopback(),
        None => is_localhost(host),
    }
}

/// Whether what is sent to a host stays on this machine: also where it goes to the address that stands for none, by which
/// Linux reaches itself.
pub fn is_reached_here(host: &str) -> bool {
    is_loopback_host(host) || address_of(host).is_some_and(|address| address.is_unspecified())
}

/// Whether a name is `localhost` or ends with it. Such names are for this machine alone and never looked up, or whoever runs
/// the DNS would get what was meant to stay (RFC 6761 §6.3).
pub fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

/// The address that a host is given as, with or without brackets; one that is IPv4 in IPv6 is IPv4.
fn address_of(host: &str) -> Option<IpAddr> {
    let bare = host.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others() {
        for (host, is_own) in [
            ("localhost", true),
            ("LocalHost.", true),
            ("idp.localhost", true),
            ("a.b.LOCALHOST.", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("::ffff:127.0.0.1", true),
            ("localhost.example.com", false),
            ("notlocalhost", false),
            ("127.0.0.1.example.com", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_host(host), is_own, "{host}");
            assert_eq!(is_reached_here(host), is_own || host == "0.0.0.0", "{host}");
        }
        assert!(is_reached_here("[::]"));
        assert!(!is_localhost("127.0.0.1"));
    }
}
