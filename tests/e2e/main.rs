//! The end-to-end tests: one binary, one module per subject.
//!
//! They run against real servers, started per test on free ports under a temporary directory (see
//! `support`). Where the testbed is not installed they fail and say how to install it; they never
//! pass by being skipped.

mod support;
mod testbed;
