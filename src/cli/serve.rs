//! `portreeve serve`: the daemon in the foreground.

use std::path::PathBuf;

use tokio::runtime::Runtime;

use super::Failure;
use crate::app::{App, Machine, Signals};
use crate::config::{self, Config};
use crate::store::Loss;
use crate::telemetry;

/// `serve`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a configuration the daemon serves IMAP on 127.0.0.1:2993, SMTP on \
127.0.0.1:2525 and POP3 on 127.0.0.1:2995. \
SIGTERM ends it once its sessions have ended or the drain time-out is over; SIGHUP reloads the configuration."
)]
pub struct Args {
    /// The configuration; by default $PORTREEVE_CONFIG, the user's, the system's, or none
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Start although records are missing from the store, with what is left
    #[arg(long)]
    pub accept_loss: bool,
}

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// [`super::Exit::Configuration`] for a bad configuration; what could not be started, in words.
pub fn run(arguments: &Args) -> Result<(), Failure> {
    let config = prepare(arguments)?;
    let loss = if arguments.accept_loss {
        Loss::Accepted
    } else {
        Loss::Refused
    };
    let runtime = runtime(config.server.worker_threads)?;
    let ended = runtime.block_on(async {
        let signals = Signals::listen()?;
        Box::pin(App::start(config, loss))
            .await?
            .run_until_signal(signals)
            .await
    });
    // What a second signal leaves behind must not hold up the end.
    runtime.shutdown_background();
    ended
}

/// A runtime with `threads` workers, or one for each core.
pub(super) fn runtime(threads: Option<usize>) -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))
}

/// Reads the configuration, sets up logging, and logs what is doubtful: what comes before the daemon itself.
///
/// # Errors
/// [`super::Exit::Configuration`] for a bad configuration.
fn prepare(arguments: &Args) -> Result<Config, Failure> {
    let config = config::load(arguments.config.as_deref(), &Machine::DAEMON)?;
    telemetry::init(&config.log.level, config.log.format)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match &config.source {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::info!("no configuration file, running on the defaults"),
    }
    Ok(config)
}
