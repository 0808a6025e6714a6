//! Postfix 3.7 as the upstream of submission: logins are checked by a Dovecot, whose mailboxes get
//! what is sent; nothing leaves the machine.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::dovecot::Dovecot;
use super::process::{Process, tail};
use super::template::fill;
use super::{PATIENCE, open_directory, ports, project_file, require_installed};

/// A running Postfix; it ends, and its queue is removed, when dropped.
pub struct Postfix {
    // Declared first, hence ended before its directory is removed.
    process: Process,
    submission: SocketAddr,
    smtps: SocketAddr,
    directory: TempDir,
}

/// Mail for this domain needs no SMTPUTF8 of Dovecot, which has none: whoever the recipient is, it lies in the mailbox of
/// this name, with LF line ends.
pub const UTF8_DOMAIN: &str = "utf8.example";

impl Postfix {
    /// Starts a Postfix for those who can log in to `dovecot`, with the same certificate. Mail to USER@example.com lies in
    /// the mailbox USER@example.com; other domains are refused.
    pub async fn start(dovecot: &Dovecot) -> Postfix {
        require_installed(Path::new("/usr/lib/postfix/sbin/master"));
        let directory = open_directory();
        let base = directory.path();
        let submission = SocketAddr::from(([127, 0, 0, 1], ports::free_port()));
        let smtps = SocketAddr::from(([127, 0, 0, 1], ports::free_port()));
        let (mail_uid, mail_gid) = dovecot.mail_owner();
        let main = fill(
            include_str!("../../testbed/postfix/main.cf.in"),
            &[
                ("BASE", &base.display().to_string()),
                ("CERTIFICATE", &dovecot.certificate_file().display().to_string()),
                ("KEY", &dovecot.key_file().display().to_string()),
                ("SASL_SOCKET", &dovecot.sasl_socket().display().to_string()),
                ("LMTP_PORT", &dovecot.lmtp().port().to_string()),
                ("MAIL", &dovecot.mail_directory().display().to_string()),
                ("MAIL_UID", &mail_uid.to_string()),
                ("MAIL_GID", &mail_gid.to_string()),
                ("UTF8_DOMAIN", UTF8_DOMAIN),
            ],
        );
        let services = fill(
            include_str!("../../testbed/postfix/master.cf.in"),
            &[
                ("SUBMISSION_PORT", &submission.port().to_string()),
                ("SMTPS_PORT", &smtps.port().to_string()),
            ],
        );
        write_of_old(&base.join("main.cf"), &main);
        fs::write(base.join("master.cf"), services).expect("the services can be written");
        // Made by us, it is ours to read.
        fs::write(base.join("postfix.log"), "").expect("the log can be begun");
        let postfix = Postfix {
            process: Process::spawn_ending_with_stdin("postfix", &mut as_root(base)),
            submission,
            smtps,
            directory,
        };
        postfix.wait_until_ready().await;
        postfix
    }

    /// The address of the port that begins in clear and takes AUTH after STARTTLS.
    pub fn submission(&self) -> SocketAddr {
        self.submission
    }

    /// The address of the port with implicit TLS.
    pub fn smtps(&self) -> SocketAddr {
        self.smtps
    }

    /// All that Postfix has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("postfix.log")).unwrap_or_default()
    }

    /// Waits until Postfix's log contains `text`.
    pub async fn logged(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            let log = tail(&self.log());
            assert!(Instant::now() < deadline, "postfix does not log {text:?}\n{log}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Where its queue is.
    pub fn queue_directory(&self) -> PathBuf {
        self.directory.path().join("queue")
    }

    /// Its ports are bound by the master process before anything else is served.
    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.smtps).await.is_err() {
            assert!(
                Instant::now() < deadline,
                "postfix does not listen; it needs root, or sudo without a password\n{}\n{}",
                self.process.log_tail(),
                tail(&self.log())
            );
            tokio::time::sleep(POLL).await;
        }
    }
}

/// What runs Postfix on the configuration in this directory, by sudo unless this is root.
fn as_root(base: &Path) -> Command {
    let run = project_file("tests/testbed/postfix/run");
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new(run)
    } else {
        let sudo = Path::new("/usr/bin/sudo");
        assert!(
            sudo.exists(),
            "Postfix starts as root: run the tests as root, or install sudo"
        );
        let mut sudo = Command::new("sudo");
        sudo.arg("--non-interactive").arg(run);
        sudo
    };
    command.arg(base);
    command
}

/// Writes a file that was last changed long ago. A younger configuration Postfix would read again and again for two seconds,
/// until it is sure that nobody still writes it.
fn write_of_old(path: &Path, text: &str) {
    fs::write(path, text).expect("the configuration can be written");
    let file = File::options().write(true).open(path).expect("it was just written");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("it is ours");
}

const POLL: Duration = Duration::from_millis(10);
