//! Values on the command line that take more than a parser of clap's: moments, pages, secrets.

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use crate::clock::{self, Timestamp};
use crate::limits::CREDENTIAL_BYTES_MAX;
use crate::secret::{Maker, oddity, without_line_end};

use super::Failure;

/// Which page of a list.
#[derive(Debug, Clone, clap::Args)]
pub struct PageArgs {
    /// Page, counted from 0
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub page: usize,
    /// Entries of a page
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub page_size: usize,
}

impl PageArgs {
    /// The parameters of a query.
    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        vec![
            ("page", self.page.to_string()),
            ("pageSize", self.page_size.to_string()),
        ]
    }
}

/// A moment to come: a time, or how long from now (`90d`).
pub(super) fn moment_ahead(text: &str) -> Result<Timestamp, String> {
    moment(text, |now, duration| now.after(duration))
}

/// A moment that has been: a time, or how long ago (`2h`).
pub(super) fn moment_ago(text: &str) -> Result<Timestamp, String> {
    moment(text, |now, duration| now.before(duration))
}

fn moment(text: &str, from_now: impl FnOnce(Timestamp, std::time::Duration) -> Timestamp) -> Result<Timestamp, String> {
    match humantime::parse_duration(text) {
        Ok(duration) => Ok(from_now(clock::now(), duration)),
        Err(_) => Timestamp::parse(text).map_err(|_| {
            "expected a duration such as 90d, or an RFC 3339 time such as 2026-01-31T12:00:00Z".to_owned()
        }),
    }
}

/// Reads a secret from the file at `path`; `-` is standard input, which is asked for on a terminal, without echo. Secrets
/// are never arguments, because every user of the machine could read them there. One line end after it is none of it.
///
/// # Errors
/// Exit code 2, naming the file, also where more was copied than the secret.
pub(super) fn secret(path: &Path, prompt: &str, made_by: Maker) -> Result<String, Failure> {
    let text = if path == Path::new("-") {
        read_standard_input(prompt)
    } else {
        std::fs::File::open(path).and_then(read_bounded)
    };
    let text =
        text.map_err(|error| Failure::usage(format!("cannot read the {prompt} from {}: {error}", path.display())))?;
    let secret = without_line_end(&text);
    let problem = match secret {
        "" => Some("is empty"),
        secret => oddity(secret, made_by),
    };
    if let Some(problem) = problem {
        return Err(Failure::usage(format!(
            "the {prompt} from {} {problem}",
            path.display()
        )));
    }
    Ok(secret.to_owned())
}

fn read_standard_input(prompt: &str) -> io::Result<String> {
    if io::stdin().is_terminal() {
        write!(io::stderr(), "{prompt}: ")?;
        console::Term::stderr().read_secure_line()
    } else {
        read_bounded(io::stdin())
    }
}

/// Reads to the end, but no more than the daemon would accept and a line's end.
fn read_bounded(source: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(CREDENTIAL_BYTES_MAX as u64 + 2).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_moment_is_a_time_or_a_distance_from_now() {
        let time = Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(moment_ahead("2026-01-31T12:00:00Z").unwrap(), time);
        let day = Duration::from_secs(24 * 3600);
        let before = clock::now();
        assert!(moment_ahead("90d").unwrap() >= before.after(90 * day));
        assert!(moment_ago("90d").unwrap() <= clock::now().before(90 * day));
        assert!(moment_ahead("soon").unwrap_err().contains("90d"));
    }

    #[test]
    fn a_secret_is_read_from_its_file_without_the_lines_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "pass word \r\n").unwrap();
        let read = |made_by| secret(&path, "password", made_by);
        assert_eq!(read(Maker::Person).unwrap(), "pass word ");
        let odd = read(Maker::Machine).unwrap_err();
        assert!(odd.message.ends_with("password has a space at its end"), "{odd}");
        for (text, oddity) in [
            ("\n", "is empty"),
            ("password\n\n", "has a line end at its end"),
            (
                "\u{feff}password\n",
                "begins with a byte order mark; save it as UTF-8 without one",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let odd = read(Maker::Person).unwrap_err();
            assert_eq!(odd.exit, crate::cli::Exit::Usage);
            assert!(odd.message.ends_with(oddity), "{odd}");
        }
        let missing = secret(&directory.path().join("none"), "password", Maker::Person).unwrap_err();
        assert!(
            missing.message.starts_with("cannot read the password from "),
            "{missing}"
        );
    }
}
