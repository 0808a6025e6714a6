//! Logging: what is written where, and in which form. Metrics are in [`crate::metrics`].
//!
//! Everything goes to standard error, under its lock and without a buffer of ours: a line is either written or not yet
//! there, and nothing is lost when the process is killed. The price is that a reader of standard error that stops reading
//! holds up whoever logs; a service manager's journal does not. Sessions log one summary line each, at `info`, and details
//! at `debug`.

use std::io::{self, IsTerminal};

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// An object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` cannot be read.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// Something else in the process logs already.
    #[error("logging is set up already: {0}")]
    Occupied(#[from] TryInitError),
}

/// A `log.level` that names no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not allowed; use one of off, error, warn, info, debug, trace, or a list such as \"info,rustls=debug\""
)]
pub struct InvalidFilter(String);

/// Sets up logging for the process, once.
///
/// # Errors
/// [`TelemetryError::Filter`] where `log.level` names no level, [`TelemetryError::Occupied`] at a second call.
pub fn init(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter(level)?;
    let terminal = io::stderr().is_terminal();
    let text = match format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(text && terminal);
    let lines = if text {
        lines.boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()?;
    Ok(())
}

/// Reads `log.level`: a level, or levels for targets, separated by commas.
///
/// A level alone is for this program. The libraries it stands on are heard from `warn` up: what they say below that is
/// theirs to choose, and some of it repeats bytes from the wire, where secrets are. To hear them, name them.
///
/// # Errors
/// [`InvalidFilter`] with the part that is no level.
pub fn filter(level: &str) -> Result<Targets, InvalidFilter> {
    let mut targets = Targets::new();
    for part in level.split(',').map(str::trim) {
        let invalid = || InvalidFilter(part.chars().take(PART_CHARS_MAX).collect());
        let (target, level) = match part.split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, part),
        };
        let (_, level) = LEVELS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(level))
            .ok_or_else(invalid)?;
        targets = match target {
            None => targets
                .with_target(env!("CARGO_PKG_NAME"), *level)
                .with_default((*level).min(LevelFilter::WARN)),
            Some("") => return Err(invalid()),
            Some(target) => targets.with_target(target, *level),
        };
    }
    Ok(targets)
}

const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// Characters of a bad level that its error repeats.
const PART_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn a_level_alone_is_for_this_program_and_libraries_stay_quiet() {
        let filter = filter("trace").unwrap();
        assert!(filter.would_enable("portreeve::net", &Level::TRACE));
        assert!(filter.would_enable("hyper::proto", &Level::WARN));
        assert!(!filter.would_enable("hyper::proto", &Level::INFO));
        let filter = super::filter("error").unwrap();
        assert!(!filter.would_enable("portreeve", &Level::WARN));
        assert!(!filter.would_enable("hyper", &Level::WARN));
        assert!(!super::filter("off").unwrap().would_enable("portreeve", &Level::ERROR));
    }

    #[test]
    fn a_target_has_the_level_that_is_named_for_it() {
        let filter = filter("WARN, rustls=debug,portreeve::net=trace").unwrap();
        assert!(filter.would_enable("rustls::conn", &Level::DEBUG));
        assert!(filter.would_enable("portreeve::net::dial", &Level::TRACE));
        assert!(!filter.would_enable("portreeve::store", &Level::INFO));
    }

    #[test]
    fn what_names_no_level_is_refused() {
        for bad in ["", "verbose", "portreeve", "info,", "=info", "rustls=loud"] {
            assert!(filter(bad).is_err(), "{bad:?}");
        }
    }
}
