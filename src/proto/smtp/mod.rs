//! Message submission (RFC 6409): a folder with the same files as every protocol has.
//!
//! [`upstream`] logs in on the upstream leg, and [`boundary`] watches the relay. What may not live here: sockets, clocks, and
//! what an access token or an account is.

pub mod boundary;
mod presentation;
mod refusal;
mod response;
pub mod upstream;
