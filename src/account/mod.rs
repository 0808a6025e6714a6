//! Accounts: who owns a mailbox's credential, keeps it fresh, and knows the sessions that live on it.

pub mod refresh;
