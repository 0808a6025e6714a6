//! IMAP4rev1 and IMAP4rev2 (RFC 3501, RFC 9051): a folder with the same files as every protocol has.
//!
//! [`client`] is the client leg before the relay, [`command`] its grammar, [`reply`] what it says; [`upstream`] logs in on the
//! other leg, and [`boundary`] watches the relay. What may not live here: sockets, clocks, and what an access token or an
//! account is.

pub mod boundary;
pub mod client;
pub mod command;
mod first_replies;
mod login;
mod presentation;
pub(in crate::proto) mod probe;
pub(in crate::proto) mod promise;
mod refusal;
pub mod reply;
mod response;
pub mod upstream;
