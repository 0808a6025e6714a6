//! Metrics: every name and label once in [`names`], their rendering as Prometheus text in [`render`].
//!
//! Other rooms call the functions of [`names`] and never spell a metric's name. No account name, address or token may become
//! a label: labels come from closed sets (protocols, outcomes, states) and from the providers of the configuration.

pub mod names;
pub mod render;
