//! Debian's Thunderbird without a screen, on a prepared profile, driven from inside: Marionette, its
//! remote control, runs `tests/testbed/thunderbird/drive.js` in the program's own privileged context.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::desk::Settings;
use super::process::Process;
use super::template::fill;
use super::{PATIENCE, open_directory, require_installed};

/// A running Thunderbird with one account, which demands STARTTLS for reading and for sending.
pub struct Thunderbird {
    marionette: Marionette,
    // Declared before its directory, hence ended before that is removed.
    process: Process,
    _directory: TempDir,
}

/// A message as its writer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// A mailbox with or without a name.
    pub from: &'a str,
    /// Where it goes.
    pub to: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// Its text; lines end in CRLF.
    pub body: &'a str,
}

impl Thunderbird {
    /// Starts it, and has it trust the authority and remember the password. Nothing connects to
    /// the mail servers yet.
    pub async fn start(settings: &Settings) -> Thunderbird {
        require_installed(Path::new(PROGRAM));
        let directory = open_directory();
        let (profile, home) = (directory.path().join("profile"), directory.path().join("home"));
        fs::create_dir(&profile).expect("the profile can be made");
        fs::create_dir(&home).expect("the home can be made");
        fs::write(profile.join("user.js"), preferences(settings)).expect("preferences can be written");
        let mut command = Command::new("env");
        command
            .arg(format!("HOME={}", home.display()))
            .arg(PROGRAM)
            .args([
                "--headless",
                "--no-remote",
                "--marionette",
                "--remote-allow-system-access",
                "--profile",
            ])
            .arg(&profile);
        let mut process = Process::spawn_leashed("thunderbird", &command);
        let port = marionettes_port(&profile, &mut process).await;
        let mut thunderbird = Thunderbird {
            marionette: Marionette::connect(port).await,
            process,
            _directory: directory,
        };
        if let Some(ca_file) = &settings.ca_file {
            let pem = fs::read_to_string(ca_file).expect("the authority can be read");
            let authority: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            thunderbird.must("trust", json!({ "authority": authority })).await;
        }
        let login = json!({ "user": settings.user, "password": settings.password });
        thunderbird.must("remember", login).await;
        thunderbird
    }

    /// The messages of the inbox in their order, byte for byte, as soon as there are so many of them.
    ///
    /// # Errors
    ///
    /// Says why Thunderbird cannot read the inbox.
    pub async fn try_read(&mut self, count: usize) -> Result<Vec<Vec<u8>>, String> {
        let messages = self.act("read", json!({ "count": count })).await?;
        let messages = messages.as_array().expect("the messages are a list");
        let decode = |message: &Value| BASE64_STANDARD.decode(message.as_str()?).ok();
        let decoded: Option<Vec<Vec<u8>>> = messages.iter().map(decode).collect();
        Ok(decoded.expect("each message is base64"))
    }

    /// As [`Thunderbird::try_read`], which must succeed.
    pub async fn read(&mut self, count: usize) -> Vec<Vec<u8>> {
        match self.try_read(count).await {
            Ok(messages) => messages,
            Err(why) => panic!("thunderbird cannot read: {why}\n{}", self.process.log_tail()),
        }
    }

    /// Sends a message, which must succeed.
    pub async fn send(&mut self, draft: Draft<'_>) {
        let Draft {
            from,
            to,
            subject,
            body,
        } = draft;
        let order = json!({ "from": from, "to": to, "subject": subject, "body": body });
        self.must("send", order).await;
    }

    /// Ends it as its user would: with its sessions logged out.
    pub async fn quit(mut self) {
        let flags = json!({ "flags": ["eAttemptQuit"] });
        let quit = self.marionette.command("Marionette:Quit", flags).await;
        quit.unwrap_or_else(|error| panic!("thunderbird does not quit: {error}"));
        let status = self.process.wait().await;
        assert!(status.success(), "{}", self.process.log_tail());
    }

    async fn must(&mut self, action: &str, order: Value) -> Value {
        match self.act(action, order).await {
            Ok(done) => done,
            Err(why) => panic!("thunderbird cannot {action}: {why}\n{}", self.process.log_tail()),
        }
    }

    /// Runs one action of `drive.js`.
    async fn act(&mut self, action: &str, order: Value) -> Result<Value, String> {
        let script = json!({ "script": DRIVE, "args": [action, order] });
        let answer = self.marionette.command("WebDriver:ExecuteAsyncScript", script).await?;
        match answer["value"].get("done") {
            Some(done) => Ok(done.clone()),
            None => Err(answer["value"]["failed"].to_string()),
        }
    }
}

/// The wire of Marionette's protocol 3: JSON behind its length in decimal and a colon. A command is
/// `[0, id, name, parameters]`, its answer `[1, id, error, result]`.
struct Marionette {
    stream: BufReader<TcpStream>,
    last_id: u32,
}

impl Marionette {
    /// Connects and enters the privileged context.
    async fn connect(port: u16) -> Marionette {
        let stream = TcpStream::connect(("127.0.0.1", port)).await;
        let mut marionette = Marionette {
            stream: BufReader::new(stream.expect("marionette listens where it says")),
            last_id: 0,
        };
        let greeting = marionette.receive().await;
        assert_eq!(greeting["marionetteProtocol"], 3, "{greeting}");
        let milliseconds = u64::try_from((2 * PATIENCE).as_millis()).expect("it is short");
        for (name, parameters) in [
            ("WebDriver:NewSession", json!({ "capabilities": {} })),
            ("Marionette:SetContext", json!({ "value": "chrome" })),
            ("WebDriver:SetTimeouts", json!({ "script": milliseconds })),
        ] {
            let answer = marionette.command(name, parameters).await;
            answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        marionette
    }

    /// Gives a command and waits for its answer.
    async fn command(&mut self, name: &str, parameters: Value) -> Result<Value, String> {
        self.last_id += 1;
        let command = json!([0, self.last_id, name, parameters]).to_string();
        let sent = self
            .stream
            .write_all(format!("{}:{command}", command.len()).as_bytes())
            .await;
        sent.map_err(|error| format!("{name}: {error}"))?;
        // Longer than a script may take, so that Thunderbird itself says what took too long.
        let answer = tokio::time::timeout(3 * PATIENCE, self.receive()).await;
        let answer = answer.map_err(|_| format!("{name}: no answer"))?;
        assert_eq!(answer[1], self.last_id, "another command's answer: {answer}");
        match &answer[2] {
            Value::Null => Ok(answer[3].clone()),
            error => Err(error.to_string()),
        }
    }

    async fn receive(&mut self) -> Value {
        let mut length = Vec::new();
        let read = self.stream.read_until(b':', &mut length).await;
        read.expect("thunderbird speaks to the end");
        let length = std::str::from_utf8(&length)
            .ok()
            .and_then(|text| text.strip_suffix(':'));
        let length: usize = length.and_then(|text| text.parse().ok()).expect("a length comes first");
        let mut message = vec![0; length];
        let read = self.stream.read_exact(&mut message).await;
        read.expect("thunderbird speaks to the end");
        serde_json::from_slice(&message).expect("it speaks JSON")
    }
}

fn preferences(settings: &Settings) -> String {
    let Settings {
        imap_port,
        smtp_port,
        user,
        ..
    } = settings;
    fill(
        include_str!("../../testbed/thunderbird/user.js.in"),
        &[
            ("IMAP_PORT", &imap_port.to_string()),
            ("SMTP_PORT", &smtp_port.to_string()),
            ("USER", user),
        ],
    )
}

/// Thunderbird chooses a free port and says it in a file.
async fn marionettes_port(profile: &Path, process: &mut Process) -> u16 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = fs::read_to_string(profile.join("MarionetteActivePort")).ok();
        if let Some(port) = said.and_then(|text| text.trim().parse().ok()) {
            return port;
        }
        let is_fine = process.is_running() && Instant::now() < deadline;
        assert!(is_fine, "thunderbird does not start\n{}", process.log_tail());
        tokio::time::sleep(POLL).await;
    }
}

const PROGRAM: &str = "/usr/bin/thunderbird";
const DRIVE: &str = include_str!("../../testbed/thunderbird/drive.js");
const POLL: Duration = Duration::from_millis(20);
