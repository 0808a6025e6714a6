//! Sockets and TLS: everything that moves bytes between the proxy and the world, and nothing that understands them.
//!
//! ```text
//!  listener ──admission──> Stream ──┐                                  ┌── Stream <── tls::UpstreamTls <── dial
//!  (bind, accept)  (tls::ServerTls) └──────────── relay ───────────────┘
//! ```
//!
//! No protocol lives here: a relay watches its bytes through [`crate::proto::dialogue::Boundaries`] and does not know what
//! for. `rustls`, the HTTP client and hyper's server are named here and nowhere else. Failures are values whose text
//! tells an operator what to do; only `listener` logs on its own, since there is nobody to hand an accept error to.

pub mod admission;
pub mod complaints;
pub mod dial;
pub mod dns;
pub mod first_bytes;
pub mod http;
pub mod http_server;
pub mod listener;
pub mod proxy_protocol;
pub mod relay;
pub mod resolve;
pub mod stream;
pub mod tls;

#[cfg(test)]
pub(crate) mod test_support;
