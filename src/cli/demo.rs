//! `portreeve demo`: the main job with nothing configured.

use super::{Failure, serve};

/// `demo`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit after the transcript
    #[arg(long)]
    pub once: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// What kept it from its end, in words.
pub(super) fn run(arguments: &Args) -> Result<(), Failure> {
    serve::runtime(None)?.block_on(Box::pin(crate::demo::run(arguments.once)))
}
