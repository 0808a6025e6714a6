//! IMAP (RFC 9051, RFC 3501): a folder with the same files as every protocol has.
//!
//! [`client`] is the client leg before the relay, [`command`] its grammar, [`reply`] what it says. What may not live here:
//! sockets, clocks, and what an access token or an account is.

pub mod client;
pub mod command;
pub mod reply;
