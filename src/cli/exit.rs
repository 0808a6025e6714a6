//! How a command ends: every exit code of INTERFACE §2, and what brings it about.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::telemetry::TelemetryError;

/// The process's exit codes. Those beyond 2 are of sysexits.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command did what it was told.
    Done = 0,
    /// It was refused, or it failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The daemon cannot be reached (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// The configuration is bad (`EX_CONFIG`).
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command that did not do what it was told, with what to tell its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong and, where that is known, what to do; empty where the user was told already.
    pub message: String,
}

impl Failure {
    /// Refused or failed: 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Failed,
            message: message.into(),
        }
    }

    /// A command line that parses and makes no sense: 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.into(),
        }
    }

    /// The daemon cannot be reached: 69.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Unreachable,
            message: message.into(),
        }
    }

    /// The configuration is bad: 78.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Configuration,
            message: message.into(),
        }
    }

    /// Ends with `exit`, the user having been told already.
    pub fn told(exit: Exit) -> Self {
        Self {
            exit,
            message: String::new(),
        }
    }

    /// Tells the user on standard error, if there is anything to tell.
    pub(super) fn print(&self) {
        if !self.message.is_empty() {
            // With standard error closed there is nobody left to tell; the exit code still says it.
            let _ = writeln!(std::io::stderr(), "portreeve: {}", self.message);
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::configuration(error.to_string())
    }
}

impl From<TelemetryError> for Failure {
    fn from(error: TelemetryError) -> Self {
        match error {
            TelemetryError::Filter(_) => Self::configuration(format!("log.level: {error}")),
            TelemetryError::Occupied(_) => Self::failed(error.to_string()),
        }
    }
}
