//! Mail programs: how each is told where to log in, and running one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::Process;
use super::project_file;
use super::upstream::Security;

/// Where a mail program is told to log in, and as whom.
#[derive(Clone, Debug)]
pub struct Door {
    /// On 127.0.0.1.
    pub address: SocketAddr,
    /// How the connection begins.
    pub tls: Security,
    /// Who signed the certificate there, which is for localhost.
    pub ca_file: PathBuf,
    /// The login name.
    pub user: String,
    /// Or the access token.
    pub password: String,
}

impl Door {
    /// What the scripts of the testbed are told.
    pub fn order(&self) -> Value {
        json!({
            "host": "localhost",
            "port": self.address.port(),
            "tls": self.tls.name(),
            "ca": self.ca_file,
            "user": self.user,
            "password": self.password,
        })
    }

    /// curl, logging in there; what it does there is yet to be said.
    pub fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail-early", "--user"])
            .arg(format!("{}:{}", self.user, self.password));
        if self.tls != Security::Off {
            command.arg("--ssl-reqd").arg("--cacert").arg(&self.ca_file);
        }
        command
    }

    /// Its address for curl; `scheme` is that of the protocol in clear.
    pub fn url(&self, scheme: &str) -> String {
        let s = if self.tls == Security::Implicit { "s" } else { "" };
        format!("{scheme}{s}://localhost:{}", self.address.port())
    }
}

/// A script of the testbed in Python, with its order.
pub fn python(script: &str, order: &Value) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(project_file("tests/testbed/python").join(script))
        .arg(order.to_string());
    command
}

/// A script of the testbed for Node, with its order.
pub fn node(script: &str, order: &Value) -> Command {
    let mut command = Command::new(project_file("tests/testbed/node/node"));
    command
        .arg(project_file("tests/testbed/node").join(script))
        .arg(order.to_string());
    command
}

/// The same command with a file as its standard input.
pub fn reading(file: &Path, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"file=$1; shift; exec "$@" <"$file""#, "sh"]);
    shell.arg(file).arg(command.get_program()).args(command.get_args());
    shell
}

/// Runs a mail program, which must succeed, and returns what it printed. What it says and `log` gives are the message of a
/// failure.
pub async fn run(name: &str, command: &mut Command, log: impl Fn() -> String) -> String {
    let mut process = Process::spawn(name, command);
    let deadline = Instant::now() + RUNNING;
    while process.is_running() && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
    let status = process.wait().await;
    assert!(status.success(), "{status}: {}\n{}", process.log_tail(), log());
    // Its output is whole once its last line is known to have been read.
    process.until_output_ends().await;
    process.stdout()
}

/// Far longer than a loaded two-core machine needs for a mailbox.
const RUNNING: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
