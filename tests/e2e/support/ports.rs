//! Free TCP ports for servers that must be told their port before they start.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port on 127.0.0.1 that nothing listens on and that no other caller in this process was given.
///
/// Ports come from below the range that the kernel hands out for outgoing connections: a server
/// that is stopped and started again would otherwise find its port taken by some client.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    // A random start keeps two test runs on one machine apart.
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..PORTS)));
    for _ in 0..PORTS {
        let port = FIRST_PORT + next.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST_PORT} to {}", FIRST_PORT + PORTS);
}

const FIRST_PORT: u16 = 12_000;
/// A power of two, so that the counter's wrap-around keeps the ports distinct. Ends below 32,768,
/// where Linux's `ip_local_port_range` begins.
const PORTS: u16 = 16_384;
