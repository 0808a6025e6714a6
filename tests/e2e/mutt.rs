//! mutt and neomutt, which insist on STARTTLS and are given the proxy's own certificate authority to
//! trust: what they read is what lies in the mailbox, and what they send arrives.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use crate::support::bed::until;
use crate::support::desk::{Desk, MAILBOX, Settings};
use crate::support::process::Process;
use crate::support::template::fill;
use crate::support::{PATIENCE, open_directory, require_installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutt_reads_and_sends_through_starttls() {
    reads_and_sends_through_starttls("mutt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neomutt_reads_and_sends_through_starttls() {
    reads_and_sends_through_starttls("neomutt").await;
}

async fn reads_and_sends_through_starttls(program: &'static str) {
    let desk = Desk::start().await;
    let messages = [
        b"From: a@example.com\r\nSubject: short\r\n\r\nA1 OK done\r\n.\r\n\xc3\xa4 \xff\r\n".to_vec(),
        [
            b"From: a@example.com\r\nSubject: long\r\n\r\n".as_slice(),
            &b"A line of many.\r\n".repeat(LINES),
        ]
        .concat(),
    ];
    desk.bed.dovecot.fill(MAILBOX, messages.iter().map(Vec::as_slice));

    let mutt = Mutt::prepare(program, &desk.settings);
    assert!(
        mutt.read().await == with_unix_lines(&messages.concat()),
        "{}",
        desk.log()
    );
    let (status, said) = mutt.send().await;
    assert!(status.success(), "{said}\n{}", desk.log());
    let arrived = until(PATIENCE, "the message arrives", async || {
        desk.bed
            .dovecot
            .messages(MAILBOX)
            .pop()
            .filter(|message| !messages.contains(message))
    })
    .await;
    let sent = String::from_utf8(arrived).expect("UTF-8, as it was written");
    let (header, body) = sent.split_once("\r\n\r\n").expect("a header and a body");
    assert_eq!(body.replace("\r\n", "\n"), BODY);
    for line in [
        "From: Alice <alice@example.com>",
        "To: alice@example.com",
        "Subject: Sent by a mutt",
    ] {
        assert!(header.lines().any(|other| other == line), "{line}: {header}");
    }

    let mut settings = desk.settings.clone();
    settings.ca_file = None;
    let (status, said) = Mutt::prepare(program, &settings).send().await;
    assert!(!status.success(), "it trusts nobody here: {said}");
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
                ("TRUST", &trust.unwrap_or_default()),
                ("DIRECTORY", &path),
            ],
        );
        fs::write(mutt.directory.path().join("muttrc"), muttrc).expect("settings can be written");
        mutt
    }

    /// All messages of the mailbox, one behind the other, with the line ends of Unix.
    async fn read(&self) -> Vec<u8> {
        let path = self.directory.path();
        let words = [("DIRECTORY", &*path.display().to_string())];
        let orders = path.join("read");
        fs::write(&orders, fill(include_str!("../testbed/mutt/read.in"), &words)).expect("orders can be written");
        // It wants a terminal.
        let mut command = Command::new("script");
        let on_terminal = format!("{} -n -F {}", self.program, orders.display());
        command.args(["--quiet", "--return", "--command", &on_terminal, "/dev/null"]);
        let (status, said) = self.run(&mut command).await;
        assert!(status.success(), "{said}");
        fs::read(path.join("messages")).unwrap_or_else(|error| panic!("{error}\n{said}"))
    }

    /// Sends [`BODY`] to the mailbox itself.
    async fn send(&self) -> (ExitStatus, String) {
        let path = self.directory.path();
        fs::write(path.join("body"), BODY).expect("the body can be written");
        let mut command = Command::new("sh");
        command.current_dir(path).arg("-c").arg(format!(
            "exec {} -n -F muttrc -s 'Sent by a mutt' -- {MAILBOX} <body",
            self.program
        ));
        self.run(&mut command).await
    }

    /// How the program ended, and what it said.
    async fn run(&self, command: &mut Command) -> (ExitStatus, String) {
        command
            .env("HOME", self.directory.path())
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8");
        let mut process = Process::spawn(self.program, command);
        let status = process.wait().await;
        process.until_output_ends().await;
        (status, process.log_tail())
    }
}

/// Without the carriage returns of line ends.
fn with_unix_lines(message: &[u8]) -> Vec<u8> {
    let lines = message.split_inclusive(|byte| *byte == b'\n');
    let ended = lines.map(|line| match line.strip_suffix(b"\r\n") {
        Some(line) => [line, b"\n"].concat(),
        None => line.to_vec(),
    });
    ended.flatten().collect()
}

/// With a line that ends a message where its dot is not doubled.
const BODY: &str = "Grüße\n.\n..\nQUIT\nFrom here on\n";
/// Some hundred kilobytes, which come in several pieces.
const LINES: usize = 20_000;
