//! The usage log: what happened with accounts and tokens, for administrators. Written without waiting, kept for a while.

mod log;
pub mod retention;

pub use log::{SessionFacts, Traffic, UsageLog};
