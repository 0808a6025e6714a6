//! The admin API: HTTP/1.1 and JSON on a Unix socket, and the same on `admin.listen` (INTERFACE §4).
//!
//! This room alone names the web framework. It holds no state of its own but whose turn it is to change an account: it reads
//! and changes the store, and asks the accounts, the live sessions and who knows providers through the ports of [`state`].
//!
//! ```text
//! socket ──Peer──> serve ──> gate: who calls? ──Caller──> routes ──> store, AccountControl, SessionControl
//! ```
//!
//! Every refusal is an [`error::ApiError`], one JSON shape. A request that changes something runs to its end even if its
//! caller hangs up, so that a deleted token's sessions end in any case. Bodies and paths never reach a log: a path may hold
//! a token, so the log names the route's template instead.

pub mod client;
pub mod error;
pub mod serve;
pub mod socket;
pub mod state;
pub mod types;

mod auth;
mod extract;
mod readiness;
mod routes;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
mod validate;

pub use readiness::Readiness;
pub use serve::{Sockets, serve};
pub use state::{AccountControl, AdminState, ConsentControl, Recognition, SessionControl};
