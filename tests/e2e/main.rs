//! The end-to-end tests: one binary, one module per subject.
//!
//! They run against real servers, started per test on free ports under a temporary directory (see
//! `support`). Where the testbed is not installed they fail and say how to install it; they never
//! pass by being skipped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    unreachable_pub,
    reason = "a failure here is a failed test, and the modules of a test are public to nobody"
)]

mod authorize;
mod bad_luck;
mod capabilities;
mod certificates;
mod cli;
mod clients;
mod consent;
mod demo;
mod durability;
mod faults;
mod grants;
mod haproxy;
mod hostile;
mod import;
mod keeping;
mod lifecycle;
mod listeners;
mod live_relay;
mod mutt;
mod pop3_programs;
mod proxy_protocol;
mod refresh;
mod secrets;
mod seed;
mod starttls;
mod strangers;
mod submission;
mod support;
mod testbed;
mod testbed_browser;
mod testbed_consent;
mod testbed_mail;
mod testbed_recorded;
mod thunderbird;
mod tokens;
mod transcripts;
mod vendors;
mod verify;
mod web;
