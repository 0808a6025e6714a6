//! From a host's name to its addresses, by the system's resolver; the names of this machine stay on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::host::is_localhost;

/// The addresses of `host`, a name or an address without brackets, each with `port`, in the resolver's order.
///
/// # Errors
/// What the resolver says.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(host) {
        return Ok(OWN.map(|address| SocketAddr::new(address, port)).into());
    }
    Ok(lookup_host((host, port)).await?.collect())
}

/// The addresses of this machine's own names. Most that listens here does so on the first.
const OWN: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_this_machine_are_not_asked_for() {
        // No resolver but this one would know the second.
        for name in ["localhost", "made-up-by-nobody.localhost", "LOCALHOST."] {
            let found = resolve(name, 7).await.unwrap();
            let expected = ["127.0.0.1:7", "[::1]:7"].map(|address| address.parse().unwrap());
            assert_eq!(found, expected, "{name}");
        }
        let found = resolve("192.0.2.1", 7).await.unwrap();
        assert_eq!(found, ["192.0.2.1:7".parse().unwrap()]);
    }
}
