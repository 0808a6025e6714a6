//! Mail programs as people use them, on a real Dovecot that takes OAuth2 only of the proxy: what they
//! read through the proxy, over TLS and in clear, is byte for byte what lies in the mailbox.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{Portreeve, Setup};
use crate::support::process::Process;
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::{PATIENCE, open_directory, project_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imaplib_reads_2000_messages_from_1_kb_to_20_mb() {
    let messages = two_thousand_messages();
    let bed = Bed::start(&messages).await;
    let expected = digests(&messages);
    for door in bed.doors() {
        let read = bed.run("imaplib", &mut python(&door.order())).await;
        assert_same_lines(&read, &expected, &door);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads_100_mb() {
    let messages = hundred_megabytes();
    let bed = Bed::start(&messages).await;
    for door in bed.doors() {
        let folder = open_directory();
        let mut config = String::new();
        for number in 1..=messages.len() {
            let output = folder.path().join(number.to_string());
            config += &format!(
                "url = \"{};MAILINDEX={number}\"\noutput = \"{}\"\n",
                door.url(),
                output.display()
            );
        }
        let file = folder.path().join("config");
        fs::write(&file, config).expect("curl's orders can be written");
        bed.run("curl", door.curl().arg("--config").arg(&file)).await;
        for (number, message) in (1..).zip(&messages) {
            let read = fs::read(folder.path().join(number.to_string())).expect("curl has written it");
            assert!(read == *message, "message {number} differs, {door:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imapflow_reads_100_mb_compressed() {
    let messages = hundred_megabytes();
    let bed = Bed::start(&messages).await;
    let expected = digests(&messages);
    for door in bed.doors() {
        let read = bed.run("imapflow", &mut imapflow(&door.order())).await;
        assert_same_lines(&read, &expected, &door);
    }
    bed.assert_compressed(2, &messages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mbsync_reads_100_mb_compressed() {
    let messages = hundred_megabytes();
    let bed = Bed::start(&messages).await;
    let directly = bed.mbsync(&bed.dovecots_own_door()).await;
    assert_eq!(directly.len(), messages.len());
    for door in bed.doors() {
        let read = bed.mbsync(&door).await;
        assert!(read == directly, "what mbsync wrote differs, {door:?}");
    }
    bed.assert_compressed(2, &messages).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_of_20_mb_arrives() {
    let message = message(7, 20 << 20);
    let bed = Bed::start(&[]).await;
    let folder = open_directory();
    let file = folder.path().join("message");
    fs::write(&file, &message).expect("the message can be written");
    for door in bed.doors() {
        bed.run("curl", door.curl().arg("--upload-file").arg(&file).arg(door.url()))
            .await;
        let mut order = door.order();
        order["append"] = json!(file);
        bed.run("imaplib", &mut python(&order)).await;
    }
    let appended = bed.dovecot.messages(MAILBOX);
    assert_eq!(appended.len(), 4);
    assert!(appended.iter().all(|appended| *appended == message));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sees_new_mail() {
    let bed = Bed::start(&[message(1, 2000)]).await;
    let new = message(2, 3000);
    for door in bed.doors() {
        let mut order = door.order();
        order["idle"] = json!(true);
        let mut client = Process::spawn("imapflow", &mut imapflow(&order));
        client.stdout_line(|line| line == "idling").await;
        bed.dovecot.deliver(MAILBOX, &new);
        client.stdout_line(|line| line == digest(&new)).await;
        assert!(client.wait().await.success(), "{}", client.log_tail());
    }
}

/// A mailbox and the proxy before it.
struct Bed {
    portreeve: Portreeve,
    dovecot: Dovecot,
    /// Dovecot asks it about every token.
    _provider: Provider,
    token: String,
}

/// Where a mail program is told to log in, and as whom.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    /// `None`: in clear.
    ca_file: Option<PathBuf>,
    user: &'static str,
    password: String,
}

impl Bed {
    async fn start(messages: &[Vec<u8>]) -> Bed {
        let provider = Provider::start(ProviderOptions::default()).await;
        let dovecot = Dovecot::start_with_passwords(&provider, &[(MAILBOX, PASSWORD)]).await;
        dovecot.fill(MAILBOX, messages.iter().map(Vec::as_slice));
        let portreeve = Setup::default().provider(&provider, &dovecot).start().await;
        portreeve.add_account(MAILBOX, &provider.mint(MAILBOX).await).await;
        let token = portreeve.add_token(MAILBOX).await;
        Bed {
            portreeve,
            dovecot,
            _provider: provider,
            token,
        }
    }

    /// The proxy's listener with TLS, and the one in clear.
    fn doors(&self) -> [Door; 2] {
        let door = |address, ca_file| Door {
            address,
            ca_file,
            user: MAILBOX,
            password: self.token.clone(),
        };
        [
            door(self.portreeve.imaps(), Some(self.portreeve.ca_file())),
            door(self.portreeve.imap(), None),
        ]
    }

    /// The way past the proxy.
    fn dovecots_own_door(&self) -> Door {
        Door {
            address: self.dovecot.imap(),
            ca_file: None,
            user: MAILBOX,
            password: PASSWORD.to_owned(),
        }
    }

    /// Runs a mail program, which must succeed, and returns what it printed.
    async fn run(&self, name: &str, command: &mut Command) -> String {
        let mut process = Process::spawn(name, command);
        let deadline = Instant::now() + READING;
        while process.is_running() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        let status = process.wait().await;
        assert!(status.success(), "{}\n{}", process.log_tail(), self.portreeve.log());
        // Its output is whole once its last line is known to have been read.
        process.until_output_ends().await;
        process.stdout()
    }

    /// What mbsync makes of the mailbox, by UID, without the header lines that it adds.
    async fn mbsync(&self, door: &Door) -> BTreeMap<u32, Vec<u8>> {
        let folder = open_directory();
        let file = folder.path().join("mbsyncrc");
        fs::write(&file, door.mbsyncrc(folder.path())).expect("mbsync's orders can be written");
        let mut command = Command::new("mbsync");
        command.arg("--config").arg(&file).args(["--quiet", "mailbox"]);
        self.run("mbsync", &mut command).await;
        let entries = ["new", "cur"].map(|part| fs::read_dir(folder.path().join("inbox").join(part)));
        entries
            .into_iter()
            .flat_map(|entries| entries.expect("mbsync has made a Maildir"))
            .map(|entry| entry.expect("it can be read").path())
            .map(|path| (uid_of(&path), without_tuid(&fs::read(&path).expect("it can be read"))))
            .collect()
    }

    /// Shows by the usage events that the sessions were compressed end to end: far fewer bytes came
    /// through the proxy than the mailbox holds.
    async fn assert_compressed(&self, sessions: usize, messages: &[Vec<u8>]) {
        let plain: usize = messages.iter().map(Vec::len).sum();
        let deadline = Instant::now() + PATIENCE;
        let ends = loop {
            let usage = self.portreeve.read("/v1/usage?pageSize=100").await;
            let events = usage["events"].as_array().expect("a list").clone();
            let ends: Vec<Value> = events.into_iter().filter(|event| event["kind"] == "end").collect();
            if ends.len() >= sessions {
                break ends;
            }
            assert!(Instant::now() < deadline, "sessions have no end: {usage}");
            tokio::time::sleep(POLL).await;
        };
        for end in ends {
            let down = usize::try_from(end["bytesDown"].as_u64().expect("it is counted")).expect("it fits");
            assert!(down > 0 && down < plain / 2, "{end}");
        }
    }
}

impl Door {
    fn curl(&self) -> Command {
        let mut command = Command::new("curl");
        let user = format!("{}:{}", self.user, self.password);
        command.args(["--silent", "--show-error", "--fail-early", "--user", &user]);
        if let Some(ca_file) = &self.ca_file {
            command.arg("--cacert").arg(ca_file);
        }
        command
    }

    fn url(&self) -> String {
        let scheme = if self.ca_file.is_some() { "imaps" } else { "imap" };
        format!("{scheme}://localhost:{}/INBOX", self.address.port())
    }

    fn order(&self) -> Value {
        json!({
            "host": "localhost",
            "port": self.address.port(),
            "ca": self.ca_file,
            "user": self.user,
            "password": self.password,
        })
    }

    fn mbsyncrc(&self, folder: &Path) -> String {
        let security = match &self.ca_file {
            Some(ca_file) => format!("SSLType IMAPS\nCertificateFile {}", ca_file.display()),
            None => "SSLType None".to_owned(),
        };
        format!(
            "FSync no\n\nIMAPAccount far\nHost localhost\nPort {port}\nUser {user}\nPass {password}\n\
             AuthMechs LOGIN\nSystemCertificates no\n{security}\n\nIMAPStore far\nAccount far\n\n\
             MaildirStore near\nInbox {folder}/inbox\n\n\
             Channel mailbox\nFar :far:\nNear :near:\nCreate Near\nSync Pull\nSyncState *\n",
            port = self.address.port(),
            user = self.user,
            password = self.password,
            folder = folder.display(),
        )
    }
}

fn python(order: &Value) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(project_file("tests/testbed/python/client.py"))
        .arg(order.to_string());
    command
}

fn imapflow(order: &Value) -> Command {
    let mut command = Command::new(project_file("tests/testbed/node/node"));
    command
        .arg(project_file("tests/testbed/node/client.mjs"))
        .arg(order.to_string());
    command
}

/// The UID in a file name of mbsync's: `….host,U=17:2,S`.
fn uid_of(path: &Path) -> u32 {
    let name = path.file_name().and_then(|name| name.to_str()).expect("ASCII");
    let uid = name
        .split_once(",U=")
        .and_then(|(_, rest)| rest.split(':').next()?.parse().ok());
    uid.unwrap_or_else(|| panic!("no UID in {name}"))
}

/// Takes out the line by which mbsync recognises what it has copied; it is another one each time.
fn without_tuid(message: &[u8]) -> Vec<u8> {
    let line = b"X-TUID: ";
    let Some(start) = message.windows(line.len()).position(|window| window == line) else {
        return message.to_vec();
    };
    let end = message[start..].iter().position(|byte| *byte == b'\n');
    let end = start + end.expect("a header line ends") + 1;
    [&message[..start], &message[end..]].concat()
}

/// One of 20 MB, and fewer the larger they are; 142 MB in all.
fn two_thousand_messages() -> Vec<Vec<u8>> {
    let sizes = (0..2000).map(|number: usize| match number {
        1000 => 20 << 20,
        500 => 10 << 20,
        _ if number % 250 == 3 => 4 << 20,
        _ if number % 66 == 7 => 1 << 20,
        _ if number % 12 == 5 => 200 << 10,
        _ => 1000 + number * 9,
    });
    let messages: Vec<Vec<u8>> = (0..).zip(sizes).map(|(number, size)| message(number, size)).collect();
    assert_eq!(messages.len(), 2000);
    assert_eq!(messages.iter().map(Vec::len).max(), Some(20 << 20));
    messages
}

fn hundred_megabytes() -> Vec<Vec<u8>> {
    (0..50).map(|number| message(number, 2 << 20)).collect()
}

/// A message of exactly this many octets, unlike any other number's, with some that must not be
/// taken for the protocol's. All its lines end in CRLF.
fn message(number: usize, octets: usize) -> Vec<u8> {
    let mut message = format!(
        "From: bed@example.com\r\nSubject: number {number}\r\nMessage-ID: <{number}.{octets}@example.com>\r\n\r\n"
    )
    .into_bytes();
    message.extend_from_slice(b"A1 OK done\r\n* BYE\r\n)\r\n+ go on {3}\r\n\xff\xfe\xe4\r\n..\r\n");
    let lines: Vec<Vec<u8>> = (0..LINES)
        .map(|line| format!("{number:06} {line:03} {}\r\n", &TEXT[line % 7..]).into_bytes())
        .collect();
    let mut next = lines.iter().cycle();
    while message.len() + TEXT.len() + 20 < octets {
        message.extend_from_slice(next.next().expect("a cycle has no end"));
    }
    message.resize(octets - 2, b'.');
    message.extend_from_slice(b"\r\n");
    message
}

/// What the scripts print of each message.
fn digest(message: &[u8]) -> String {
    let hash = Sha256::digest(message);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {hex}", message.len())
}

fn digests(messages: &[Vec<u8>]) -> Vec<String> {
    messages.iter().map(|message| digest(message)).collect()
}

fn assert_same_lines(read: &str, expected: &[String], door: &Door) {
    let read: Vec<&str> = read.lines().collect();
    assert_eq!(read.len(), expected.len(), "messages, {door:?}");
    let differs = read.iter().zip(expected).position(|(read, expected)| read != expected);
    assert_eq!(differs, None, "the first message that differs, {door:?}");
}

const MAILBOX: &str = "alice";
const PASSWORD: &str = "past-the-proxy";
const TEXT: &str = "Wer ein Postfach hat, der hat auch Post, und wer Post hat, liest sie.";
const LINES: usize = 997;
/// Far longer than a loaded two-core machine needs for a hundred megabytes.
const READING: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
