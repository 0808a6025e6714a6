//! POP3 (RFC 1939, RFC 2449, RFC 5034): a folder with the same files as every protocol has.
//!
//! [`client`] is the client leg before the relay, [`command`] its grammar, [`reply`] what it says; [`upstream`] logs in on the
//! other leg. Nothing watches the relay: POP3 has no word for a goodbye, and a session that has to end just ends
//! (RFC 1939 §3). What may not live here: sockets, clocks, and what an access token or an account is.

pub mod client;
pub mod command;
mod presentation;
pub(in crate::proto) mod probe;
pub(in crate::proto) mod promise;
mod refusal;
pub mod reply;
mod response;
pub mod upstream;
