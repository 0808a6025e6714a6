//! Every metric's name and labels, once. All are documented in `docs/operations.md`.

/// Connections that a limit kept out, by `protocol` and `reason` (see [`crate::net::admission::Refusal::label`]).
pub const CONNECTIONS_REFUSED_TOTAL: &str = "portreeve_connections_refused_total";

/// Bytes relayed, by `protocol` and `direction` (`up` from clients, `down` from upstreams).
pub const RELAYED_BYTES_TOTAL: &str = "portreeve_relayed_bytes_total";
