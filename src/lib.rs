//! portreeve: a mail proxy. Clients log in with a generated access token; portreeve holds the mailbox's real credentials,
//! keeps its OAuth2 grant fresh, logs in upstream and hands over the session.
//!
//! Where to begin reading: `docs/architecture.md`, then [`proto::session`] for what a session is, [`connection`] for who
//! drives it, and [`account`] for who owns the credential.

pub mod access;
pub mod account;
pub mod admin;
pub mod app;
pub mod authorize;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod demo;
pub mod fault;
pub mod hooks;
pub mod host;
pub mod limits;
pub mod metrics;
pub mod net;
pub mod oauth;
pub mod process;
pub mod proto;
pub mod recognize;
pub mod secret;
pub mod sentence;
pub mod shell;
pub mod span;
pub mod store;
pub mod telemetry;
pub mod usage;
pub mod web;
