//! `portreeve serve`: the daemon in the foreground.

use std::path::PathBuf;

use super::Failure;
use crate::config::{self, Config, ProcessEnvironment};
use crate::telemetry;

/// `serve`
#[derive(Debug, clap::Args)]
#[command(after_help = "Without a configuration the daemon serves IMAP on 127.0.0.1:2993. \
SIGTERM ends it once its sessions have ended or the drain time-out is over; SIGHUP reloads the configuration.")]
pub struct Args {
    /// The configuration; by default $PORTREEVE_CONFIG, the user's, the system's, or none
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Reads the configuration, sets up logging, and logs what is doubtful: what comes before the daemon itself.
///
/// # Errors
/// [`super::Exit::Configuration`] for a bad configuration.
pub fn prepare(arguments: &Args) -> Result<Config, Failure> {
    let config = config::load(arguments.config.as_deref(), &ProcessEnvironment)?;
    telemetry::init(&config.log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match &config.source {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::info!("no configuration file, running on the defaults"),
    }
    Ok(config)
}
