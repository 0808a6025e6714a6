//! Message submission (RFC 6409) with AUTH (RFC 4954) and STARTTLS (RFC 3207): a folder with the same files as every protocol
//! has.
//!
//! [`client`] is the client leg before the relay, [`command`] its grammar, [`reply`] what it says; [`extensions`] is what may be
//! promised of an upstream that nobody has been connected to yet. [`upstream`] logs in on the other leg, and [`boundary`]
//! watches the relay. What may not live here: sockets, clocks, and what an access token or an account is.

pub mod boundary;
pub mod client;
pub mod command;
pub mod extensions;
mod presentation;
pub(in crate::proto) mod probe;
mod refusal;
pub mod reply;
mod response;
pub mod upstream;
