//! Metrics: every name and label once in [`names`], their rendering as Prometheus text in [`render`].

pub mod names;
pub mod render;
