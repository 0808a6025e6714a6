//! Reads the address that a browser was sent back to, from whoever copied it.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use tokio::sync::oneshot;
use url::Url;

use crate::cli::Failure;
use crate::limits::REDIRECT_BYTES_MAX;
use crate::oauth::Redirect;

/// Reads the address of the flow with `state` from standard input. On a terminal a wrong one may be corrected.
///
/// # Errors
/// If there is none, or a script gave a wrong one.
pub(super) async fn read(state: &str) -> Result<Url, Failure> {
    loop {
        let line = line().await?;
        match check(&line, state) {
            Ok(url) => return Ok(url),
            Err(problem) if io::stdin().is_terminal() && !line.is_empty() => {
                // Nobody to tell it to would be nobody to read from.
                let _ = writeln!(io::stderr(), "{problem}");
            }
            Err(problem) => return Err(Failure::failed(problem)),
        }
    }
}

/// One line, empty at the end of the input. On a thread that nobody waits for: a read of a terminal cannot be given up.
async fn line() -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr(), "Paste the address that the browser was sent back to: ");
    }
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let bytes = REDIRECT_BYTES_MAX as u64 + 2;
        let read = io::stdin().lock().take(bytes).read_line(&mut line);
        // Whoever waited may have gone.
        let _ = tell.send(read.map(|_| line));
    });
    let read = told
        .await
        .map_err(|_| Failure::failed("standard input cannot be read"))?;
    read.map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))
}

/// The URL in `line`, if it is the redirect of the flow with `state`. The daemon has the last word.
fn check(line: &str, state: &str) -> Result<Url, String> {
    let text = line.trim();
    if text.is_empty() {
        return Err("no address was given".to_owned());
    }
    let url = Url::parse(text).map_err(|_| {
        "this is no address; copy all of it from the browser's address bar, from http:// to the end".to_owned()
    })?;
    let redirect = Redirect::read(&url).map_err(|error| error.to_string())?;
    if redirect.state == state {
        Ok(url)
    } else {
        Err("this address is of another authorization; copy the one that the browser shows now".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_this_flow_is_taken() {
        let right = "http://localhost:4711/?code=c&state=s";
        for line in [right.to_owned(), format!("  {right}\r\n")] {
            assert_eq!(check(&line, "s").unwrap().as_str(), right);
        }
        let denied = "http://localhost:4711/?error=access_denied&state=s";
        assert!(check(denied, "s").is_ok(), "a refusal is the daemon's to tell");
        for (line, says) in [
            ("", "no address was given"),
            ("4/0Ab_code", "no address; copy"),
            ("http://localhost:4711/", "state"),
            ("http://localhost:4711/?code=c&state=other", "another authorization"),
            ("http://localhost:4711/?state=s", "neither"),
        ] {
            let problem = check(line, "s").unwrap_err();
            assert!(problem.contains(says), "{line}: {problem}");
        }
    }
}
