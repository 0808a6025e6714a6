//! The built program at a terminal: commands with their output and exit codes.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Somebody at a terminal whose daemon is behind this socket.
pub struct Shell {
    socket: PathBuf,
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub struct Printed {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Shell {
    /// A shell whose commands talk to the daemon behind `socket`.
    pub fn at(socket: PathBuf) -> Shell {
        Shell { socket }
    }

    /// The command, for those that do not end by themselves.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
        command.args(arguments).env("PORTREEVE_SOCKET", &self.socket);
        for name in [
            "PORTREEVE_CONFIG",
            "XDG_CONFIG_HOME",
            "STATE_DIRECTORY",
            "RUNTIME_DIRECTORY",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Printed {
        self.run_with(arguments, "")
    }

    /// The same with something on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Printed {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that reads nothing may have ended already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("it can be waited for");
        Printed {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Runs a command, which must succeed.
    pub fn done(&self, arguments: &[&str]) -> Printed {
        self.done_with(arguments, "")
    }

    /// The same with something on its standard input.
    pub fn done_with(&self, arguments: &[&str], input: &str) -> Printed {
        let printed = self.run_with(arguments, input);
        assert_eq!(printed.code, 0, "{arguments:?}: {printed:?}");
        printed
    }
}

impl Printed {
    /// Standard output, which must be one JSON value.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The access token that is printed, which must be one and the same wherever it stands. Its id may stand beside it.
pub fn only_token_in(printed: &str) -> String {
    let mut tokens: Vec<&str> = printed
        .split(|character: char| !character.is_ascii_hexdigit())
        .filter(|word| word.len() == 64)
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    let ids: Vec<String> = tokens
        .iter()
        .map(|token| format!("{:x}", Sha256::digest(token)))
        .collect();
    tokens.retain(|word| !ids.iter().any(|id| id == word));
    assert_eq!(tokens.len(), 1, "{printed}");
    tokens[0].to_owned()
}

/// Each of `parts` stands behind the one before it.
pub fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else {
            panic!("{part:?} is not in its place: {text}");
        };
        rest = behind;
    }
}
