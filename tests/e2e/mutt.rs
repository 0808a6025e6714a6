//! mutt and neomutt, which insist on STARTTLS and trust one certificate authority: what they read
//! is what lies in the mailbox, and what they send arrives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::dovecot::Dovecot;
use crate::support::process::Process;
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::settings::Settings;
use crate::support::template::fill;
use crate::support::{open_directory, project_file, require_installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutt_reads_directly() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start_with_passwords(&provider, &[("alice@example.com", "secret")]).await;
    let messages = [
        b"Subject: one\r\n\r\nOne\r\n".to_vec(),
        [b"Subject: two\r\n\r\n".as_slice(), &b"x y\r\n".repeat(200_000)].concat(),
    ];
    dovecot.fill("alice@example.com", messages.iter().map(Vec::as_slice));
    let settings = Settings {
        imap_port: dovecot.imap().port(),
        smtp_port: 9,
        user: "alice@example.com".to_owned(),
        password: "secret".to_owned(),
        ca_file: Some(dovecot.ca_file()),
    };
    for program in ["mutt", "neomutt"] {
        let mutt = Mutt::prepare(program, &settings);
        assert!(mutt.read().await == without_carriage_returns(&messages.concat()));
    }
}

/// One of the two programs with its settings.
struct Mutt {
    program: &'static str,
    directory: TempDir,
}

impl Mutt {
    fn prepare(program: &'static str, settings: &Settings) -> Mutt {
        require_installed(&Path::new("/usr/bin").join(program));
        let directory = open_directory();
        let mutt = Mutt { program, directory };
        let Settings { user, password, .. } = settings;
        let path = mutt.directory.path().display().to_string();
        let trust = settings
            .ca_file
            .as_ref()
            .map(|file| format!("set ssl_ca_certificates_file = \"{}\"", file.display()));
        let muttrc = fill(
            include_str!("../testbed/mutt/muttrc.in"),
            &[
                ("USER", user),
                ("USER_IN_URL", &user.replace('@', "%40")),
                ("PASSWORD", password),
                ("IMAP_PORT", &settings.imap_port.to_string()),
                ("SMTP_PORT", &settings.smtp_port.to_string()),
                ("IMAP_AUTHENTICATOR", "login"),
                ("TRUST", &trust.unwrap_or_default()),
                ("DIRECTORY", &path),
            ],
        );
        fs::write(mutt.muttrc(), muttrc).expect("settings can be written");
        mutt
    }

    /// All messages of the mailbox, one behind the other, with the line ends of Unix.
    async fn read(&self) -> Vec<u8> {
        let path = self.directory.path();
        let orders = fill(
            include_str!("../testbed/mutt/read.in"),
            &[("DIRECTORY", &path.display().to_string())],
        );
        let file = path.join("read");
        fs::write(&file, orders).expect("orders can be written");
        // It wants a terminal.
        let mut command = self.command("script");
        let on_terminal = format!("{} -n -F {}", self.program, file.display());
        command.args(["--quiet", "--return", "--command", &on_terminal, "/dev/null"]);
        let mut process = Process::spawn(self.program, &mut command);
        let status = process.wait().await;
        assert!(status.success(), "{}", process.log_tail());
        let messages = fs::read(path.join("messages"));
        messages.unwrap_or_else(|error| panic!("{error}\n{}", process.log_tail()))
    }

    fn muttrc(&self) -> PathBuf {
        self.directory.path().join("muttrc")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.directory.path())
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

fn without_carriage_returns(message: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(message).replace("\r\n", "\n").into_bytes()
}
