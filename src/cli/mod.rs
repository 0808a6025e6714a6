//! The command line: what can be typed, and where it goes.
//!
//! One file holds one command with its arguments and its `run`; here they are only put together. A command talks to the
//! daemon through [`crate::admin::client`], never to the store. It fails with a [`Failure`], whose [`Exit`] is the process's
//! exit code (INTERFACE §2): no other place ends the process.
//!
//! A further command is one file with `Args` and `run(args, &Globals) -> Result<(), Failure>`, one variant of [`Command`],
//! and one arm in `dispatch`.

pub mod account;
pub mod authorize;
pub mod config;
pub mod demo;
pub mod exit;
pub mod import;
pub mod output;
pub mod serve;
pub mod sessions;
pub mod status;
pub mod token;
pub mod usage;
pub mod value;

mod daemon;
#[cfg(test)]
mod daemon_tests;
mod token_id;
mod usage_lines;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

pub use exit::{Exit, Failure};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "portreeve", version, about, long_about = LONG_ABOUT, after_help = EXAMPLES)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command that talks to the daemon.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// The daemon's admin socket; by default that of the configuration
    #[arg(long, global = true, value_name = "PATH", env = "PORTREEVE_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Globals {
    /// The admin socket to talk to.
    pub fn socket(&self) -> PathBuf {
        let given = self.socket.clone().filter(|path| !path.as_os_str().is_empty());
        given.unwrap_or_else(|| crate::config::client_socket(&crate::config::ProcessEnvironment))
    }
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Serve(serve::Args),
    /// Show the main job with nothing configured, against a built-in provider and mailbox
    Demo(demo::Args),
    /// Check or show the configuration
    Config(config::Args),
    /// Add, list, check and remove mailboxes
    Account(Box<account::Args>),
    /// Make, list and delete access tokens
    Token(token::Args),
    /// Show what happened with accounts and tokens
    Usage(usage::Args),
    /// List and end live sessions
    Sessions(sessions::Args),
    /// Show how the daemon is and which accounts need attention
    Status(status::Args),
}

/// Parses `arguments`, the program's name first, runs the command, and answers the process's exit code.
pub fn run<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments).and_then(refuse_json_where_there_is_none) {
        Ok(cli) => cli,
        Err(error) => {
            let printed = error.print();
            if error.use_stderr() {
                return Exit::Usage.into();
            }
            // `--help` and `--version` come this way too, for standard output.
            return match printed.map_err(output::untold) {
                Ok(()) => Exit::Done.into(),
                Err(failure) => {
                    failure.print();
                    failure.exit.into()
                }
            };
        }
    };
    match dispatch(cli) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Config(arguments) => config::run(&arguments, &cli.globals),
        Command::Account(arguments) => block_on(account::run(*arguments, &cli.globals)),
        Command::Token(arguments) => block_on(token::run(arguments, &cli.globals)),
        Command::Usage(arguments) => block_on(usage::run(arguments, &cli.globals)),
        Command::Sessions(arguments) => block_on(sessions::run(arguments, &cli.globals)),
        Command::Status(arguments) => block_on(status::run(arguments, &cli.globals)),
    }
}

/// Runs a command that talks to the daemon: one thread is enough to wait for it.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?
        .block_on(command)
}

/// `serve` and `demo` have no answer that JSON could be of: what they print is a log and a transcript.
fn refuse_json_where_there_is_none(cli: Cli) -> Result<Cli, clap::Error> {
    let name = match cli.command {
        Command::Serve(_) => "serve",
        Command::Demo(_) => "demo",
        Command::Config(_)
        | Command::Account(_)
        | Command::Token(_)
        | Command::Usage(_)
        | Command::Sessions(_)
        | Command::Status(_) => return Ok(cli),
    };
    if cli.globals.json {
        let message = format!("the argument '--json' cannot be used with '{name}'");
        return Err(Cli::command().error(ErrorKind::ArgumentConflict, message));
    }
    Ok(cli)
}

const LONG_ABOUT: &str = "A mail proxy for programs that know only a user name and a password. They log in here with a \
generated access token; portreeve holds the mailbox's real credentials, keeps its OAuth2 grant fresh, logs in at the \
provider and hands over the session.";

const EXAMPLES: &str = "\
Examples:
  portreeve demo --once              see one login through the proxy, with nothing configured
  portreeve serve                    run the daemon on the defaults
  portreeve config check             say what is wrong with the configuration

Exit codes:
  0 done   1 refused or failed   2 usage   69 daemon not reachable   78 bad configuration";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_may_stand_behind_it() {
        let cli = Cli::try_parse_from(["portreeve", "config", "show", "--json", "--socket", "/run/x.sock"]).unwrap();
        assert!(cli.globals.json);
        assert_eq!(cli.globals.socket(), PathBuf::from("/run/x.sock"));
    }

    #[test]
    fn json_is_refused_where_there_is_none() {
        for name in ["serve", "demo"] {
            let cli = Cli::try_parse_from(["portreeve", name, "--json"]).unwrap();
            let error = refuse_json_where_there_is_none(cli).unwrap_err();
            assert_eq!(error.exit_code(), 2);
        }
    }
}
