//! `portreeve demo`: the main job with nothing configured.

/// `demo`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit after the transcript
    #[arg(long)]
    pub once: bool,
}
