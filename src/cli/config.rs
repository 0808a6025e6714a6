//! `portreeve config`: what the daemon would run on, without a daemon.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Exit, Failure, Globals, output};
use crate::app::Machine;
use crate::config::{self, Config};

/// `config`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file; by default the one that the daemon would read
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do with it.
    #[command(subcommand)]
    pub action: Action,
}

/// `config check`, `config show`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Action {
    /// Say what is wrong with the configuration, all of it at once
    Check,
    /// Print the configuration in effect, without its secrets
    Show,
}

/// Runs `config`.
///
/// # Errors
/// [`Exit::Configuration`] with every problem.
pub fn run(arguments: &Args, globals: &Globals) -> Result<(), Failure> {
    let loaded = config::load(arguments.config.as_deref(), &Machine::ADMINISTRATOR);
    match (arguments.action, globals.json) {
        (Action::Check, true) => {
            let (answer, exit) = match &loaded {
                Ok(config) => (
                    json!({"ok": true, "file": config.source, "warnings": config.warnings}),
                    None,
                ),
                Err(error) => (
                    json!({"ok": false, "problems": error.problems()}),
                    Some(Exit::Configuration),
                ),
            };
            output::print(&answer.to_string())?;
            exit.map_or(Ok(()), |exit| Err(Failure::told(exit)))
        }
        (Action::Check, false) => {
            let config = loaded?;
            warn(&config);
            match &config.source {
                Some(file) => output::print(&format!("{}: ok", file.display())),
                None => output::print("no configuration file; the defaults are ok"),
            }
        }
        (Action::Show, true) => output::print(&loaded?.to_json()),
        (Action::Show, false) => {
            let config = loaded?;
            warn(&config);
            output::print(&config.to_toml())
        }
    }
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        // A warning that nobody can read changes nothing about the answer.
        let _ = writeln!(std::io::stderr(), "portreeve: warning: {warning}");
    }
}
