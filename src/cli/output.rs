//! Standard output of commands.

use std::io::{self, Write as _};

use super::{Exit, Failure};

/// Prints `text` and a newline.
///
/// # Errors
/// A reader that has gone (`portreeve … | head`) ends the command quietly; anything else is told.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::told(Exit::Failed)),
        Err(error) => Err(Failure::failed(format!("cannot write to standard output: {error}"))),
    }
}
