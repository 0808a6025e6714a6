//! What is wrong with a configuration, and the checks of single values that find it.
//!
//! A check never stops the reading: it notes the problem, answers the default, and the next value is looked at, so that one
//! run tells everything. [`Report::finish`] lets nothing through once a problem was noted. No value of a key that holds a
//! secret is ever repeated, nor is a line of the file.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use toml::Spanned;

use super::raw::{Key, OneOrMany};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file can be read and is wrong.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

impl ConfigError {
    /// The problems, one by one.
    pub fn problems(&self) -> Vec<Problem> {
        match self {
            Self::Invalid(problems) => problems.clone(),
            Self::Unreadable { path, source } => {
                vec![Problem {
                    file: Some(path.clone()),
                    line: None,
                    key: String::new(),
                    message: source.to_string(),
                }]
            }
        }
    }
}

/// One thing that is wrong: `portreeve.toml:12: listener.tls: "ssl" is not allowed; use one of off, implicit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file; absent where the trouble is in a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The key with its tables, joined by dots; empty for trouble with the file as a whole.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, _) => f.write_str("configuration: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A place in the file; `None` where the value is not from the file.
pub(super) type Place = Option<Range<usize>>;

/// The place of a key that may be absent.
pub(super) fn place<T>(key: &Key<T>) -> Place {
    key.as_ref().map(Spanned::span)
}

/// The text of a key, where it is given and not empty.
pub(super) fn text(key: &Key<String>) -> Option<&str> {
    key.as_ref()
        .map(|value| value.get_ref().as_str())
        .filter(|text| !text.is_empty())
}

/// Collects what is wrong, and what is only doubtful, while a file is read.
pub(super) struct Report<'t> {
    source: Option<&'t Path>,
    text: &'t str,
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl<'t> Report<'t> {
    /// A report about `text`, which came from `source`.
    pub(super) fn new(source: Option<&'t Path>, text: &'t str) -> Self {
        Self {
            source,
            text,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Notes that the value of `key` is refused.
    pub(super) fn refuse(&mut self, place: Place, key: impl Into<String>, message: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let line = place.map(|range| self.line(range.start));
            // Names of tables are the author's own: a terminal shall not obey them.
            let (key, message) = (key.into().replace(char::is_control, "?"), message.into());
            self.problems.push(Problem {
                file: self.source.map(Path::to_owned),
                line,
                key,
                message,
            });
        }
    }

    /// Notes something that an administrator should know and that does not stand in the way.
    pub(super) fn warn(&mut self, warning: String) {
        if self.warnings.len() < PROBLEMS_MAX {
            self.warnings.push(warning);
        }
    }

    /// Whether nothing was refused so far.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The warnings, if nothing was refused.
    ///
    /// # Errors
    /// Every problem, in the order of the file.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ConfigError> {
        if self.problems.is_empty() {
            return Ok(self.warnings);
        }
        self.problems.sort_by_key(|problem| problem.line);
        Err(ConfigError::Invalid(self.problems))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, name: &str, key: &Key<String>, default: T, choices: &[(&str, T)]) -> T {
        let Some(given) = text(key) else { return default };
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == given) {
            return *value;
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        self.refuse(
            place(key),
            name,
            format!("{} is not allowed; use one of {}", quoted(given), words.join(", ")),
        );
        default
    }

    /// A whole number within `range`.
    pub(super) fn number(&mut self, name: &str, key: &Key<i64>, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(given) = key else { return default };
        match u32::try_from(*given.get_ref()) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let allowed = format!("use a whole number from {} to {}", range.start(), range.end());
                self.refuse(
                    place(key),
                    name,
                    format!("{} is not allowed; {allowed}", given.get_ref()),
                );
                default
            }
        }
    }

    /// A whole number within `range` that counts things in memory.
    pub(super) fn count(&mut self, name: &str, key: &Key<i64>, default: u32, range: RangeInclusive<u32>) -> usize {
        usize::try_from(self.number(name, key, default, range)).unwrap_or(usize::MAX)
    }

    /// A length of time within `range`.
    pub(super) fn duration(
        &mut self,
        name: &str,
        key: &Key<String>,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let Some(given) = text(key) else { return default };
        match humantime::parse_duration(given) {
            Ok(duration) if range.contains(&duration) => duration,
            _ => {
                let (from, to) = (
                    humantime::format_duration(*range.start()),
                    humantime::format_duration(*range.end()),
                );
                let message = format!(
                    "{} is not allowed; use a length of time such as \"30s\", from {from} to {to}",
                    quoted(given)
                );
                self.refuse(place(key), name, message);
                default
            }
        }
    }

    /// An address with its port.
    pub(super) fn address(&mut self, name: &str, place: Place, given: &str) -> Option<SocketAddr> {
        let address = given.parse().ok();
        if address.is_none() {
            let message = format!(
                "{} is not allowed; use an address and a port such as \"127.0.0.1:2993\" or \"[::1]:2993\"",
                quoted(given)
            );
            self.refuse(place, name, message);
        }
        address
    }

    /// One or several addresses with their ports.
    pub(super) fn addresses(&mut self, name: &str, key: &Key<OneOrMany>) -> Vec<SocketAddr> {
        let Some(given) = key else { return Vec::new() };
        given
            .get_ref()
            .given()
            .filter_map(|one| self.address(name, place(key), one))
            .collect()
    }

    /// The line, from 1, of a byte of the text.
    fn line(&self, offset: usize) -> usize {
        self.text
            .bytes()
            .take(offset)
            .filter(|byte| *byte == b'\n')
            .count()
            .saturating_add(1)
    }
}

/// A value as an error may repeat it: escaped, and not at full length where it is long.
pub(super) fn quoted(value: &str) -> String {
    let mut shown: String = value.chars().take(QUOTED_CHARS_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// Problems as lines of text.
struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// Problems noted in one run; who made more of them will run it again anyway.
const PROBLEMS_MAX: usize = 50;

/// Characters of a value that an error repeats.
const QUOTED_CHARS_MAX: usize = 80;
