//! IMAP4rev1 and IMAP4rev2 (RFC 3501, RFC 9051).

pub mod boundary;
mod first_replies;
mod login;
mod presentation;
mod redaction;
mod refusal;
mod response;
pub mod upstream;
