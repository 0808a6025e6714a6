//! Mail programs that read by POP3, as people use them: what they have read is byte for byte what
//! lies in the mailbox, past the proxy and through each of its doors.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::support::bed::Bed;
use crate::support::open_directory;
use crate::support::portreeve::Setup;
use crate::support::programs::{Door, python, run};
use crate::support::protocol::Protocol;
use crate::support::provider::ProviderOptions;
use crate::support::upstream::Security;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads() {
    let mailbox = Mailbox::start(XOAUTH2).await;
    for door in mailbox.doors() {
        for (number, message) in (1..).zip(&mailbox.messages) {
            let folder = open_directory();
            let file = folder.path().join("message");
            let mut command = door.curl();
            command.arg("--output").arg(&file);
            mailbox.run(command.arg(format!("{}/{number}", door.url("pop3")))).await;
            let read = fs::read(file).expect("curl has written it");
            assert!(read == *message, "message {number} differs, {door:?}");
        }
    }
    mailbox.assert_mechanism().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poplib_reads() {
    let mailbox = Mailbox::start(OAUTHBEARER).await;
    let expected: Vec<String> = mailbox.messages.iter().map(|message| digest(message)).collect();
    for door in mailbox.doors() {
        let read = mailbox.run(&mut python("pop.py", &door.order())).await;
        assert_eq!(read.lines().collect::<Vec<_>>(), expected, "{door:?}");
    }
    mailbox.assert_mechanism().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetchmail_reads() {
    let mailbox = Mailbox::start(XOAUTH2).await;
    for door in mailbox.doors() {
        let folder = open_directory();
        let file = folder.path().join("fetchmailrc");
        fs::write(&file, fetchmailrc(&door, folder.path())).expect("fetchmail's orders can be written");
        // It holds a password: fetchmail wants nobody else to be able to read it.
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        let mut command = Command::new("fetchmail");
        command
            .env("FETCHMAILHOME", folder.path())
            .arg("--fetchmailrc")
            .arg(&file);
        mailbox.run(&mut command).await;
        assert_same(read_folder(&folder.path().join("read")), mailbox.with_lf(), &door);
    }
    mailbox.assert_mechanism().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn getmail_reads() {
    let mailbox = Mailbox::start(OAUTHBEARER).await;
    // It has no STLS.
    for door in mailbox
        .doors()
        .into_iter()
        .filter(|door| door.tls != Security::StartTls)
    {
        let folder = open_directory();
        let orders = getmailrc(&door, folder.path());
        fs::write(folder.path().join("getmailrc"), orders).expect("getmail's orders can be written");
        let mut command = Command::new("getmail");
        command.arg("--getmaildir").arg(folder.path()).arg("--quiet");
        mailbox.run(&mut command).await;
        assert_same(read_folder(&folder.path().join("read")), mailbox.with_lf(), &door);
    }
    mailbox.assert_mechanism().await;
}

/// A mailbox, and the doors to it.
struct Mailbox {
    bed: Bed,
    /// By which the proxy logs in upstream.
    mechanism: &'static str,
    token: String,
    messages: Vec<Vec<u8>>,
}

impl Mailbox {
    async fn start(mechanism: &'static str) -> Mailbox {
        let setup = Setup::default().with_provider(&format!("sasl = [{mechanism:?}]"));
        let bed = Bed::start_whole_on(setup, ProviderOptions::default(), &[(USER, PASSWORD)]).await;
        let messages = messages();
        bed.dovecot.fill(USER, messages.iter().map(Vec::as_slice));
        Mailbox {
            token: bed.account(USER).await,
            bed,
            mechanism,
            messages,
        }
    }

    /// First the way past the proxy.
    fn doors(&self) -> Vec<Door> {
        let past_the_proxy = Door {
            address: self.bed.dovecot.pop3s(),
            tls: Security::Implicit,
            ca_file: self.bed.dovecot.ca_file(),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        let mut doors = vec![past_the_proxy];
        doors.extend(self.bed.doors(Protocol::Pop3, USER, &self.token));
        doors
    }

    /// Runs a mail program.
    async fn run(&self, command: &mut Command) -> String {
        run("the mail program", command, || self.bed.log()).await
    }

    /// The proxy has logged in by its mechanism, and by no other.
    async fn assert_mechanism(&self) {
        let dovecot = &self.bed.dovecot;
        dovecot.logged(&format!("method={}, ", self.mechanism)).await;
        let other = [XOAUTH2, OAUTHBEARER]
            .into_iter()
            .find(|other| *other != self.mechanism);
        let other = format!("method={}, ", other.expect("there are two"));
        assert!(!dovecot.log().contains(&other), "{}", dovecot.log());
    }

    /// The messages as programs write them into files.
    fn with_lf(&self) -> Vec<Vec<u8>> {
        let lines = |message: &Vec<u8>| {
            let lines = message.split_inclusive(|byte| *byte == b'\n');
            let line = |line: &[u8]| [line.strip_suffix(b"\r\n").unwrap_or(line), b"\n"].concat();
            lines.map(line).collect::<Vec<_>>().concat()
        };
        self.messages.iter().map(lines).collect()
    }
}

fn fetchmailrc(door: &Door, folder: &Path) -> String {
    let security = match door.tls {
        Security::Off => r#"sslproto """#.to_owned(),
        Security::StartTls => format!(
            r#"sslproto "TLS1.2+" sslcertck sslcertfile "{}""#,
            door.ca_file.display()
        ),
        Security::Implicit => format!(r#"ssl sslcertck sslcertfile "{}""#, door.ca_file.display()),
    };
    format!(
        "set no syslog\nset idfile \"{folder}/ids\"\nset pidfile \"{folder}/pid\"\nset invisible\n\
         poll localhost protocol pop3 service {port}\n  user \"{user}\" password \"{password}\"\n  \
         {security}\n  fetchall keep no rewrite no mimedecode\n  mda \"{keeping}\"\n",
        folder = folder.display(),
        port = door.address.port(),
        user = door.user,
        password = door.password,
        keeping = keeping(folder),
    )
}

fn getmailrc(door: &Door, folder: &Path) -> String {
    let (kind, authority) = match door.tls {
        Security::Implicit => (
            "SimplePOP3SSLRetriever",
            format!("ca_certs = {}\n", door.ca_file.display()),
        ),
        Security::Off | Security::StartTls => ("SimplePOP3Retriever", String::new()),
    };
    // Root may have it deliver by another program only.
    format!(
        "[retriever]\ntype = {kind}\nserver = localhost\nport = {port}\nusername = {user}\npassword = {password}\n\
         {authority}\n[destination]\ntype = MDA_external\npath = /bin/sh\narguments = (\"-c\", \"{keeping}\")\n\
         allow_root_commands = true\n\n[options]\nread_all = true\ndelivered_to = false\nreceived = false\n",
        port = door.address.port(),
        user = door.user,
        password = door.password,
        keeping = keeping(folder),
    )
}

/// What delivers a message for a program, from its standard input into a file of its own in `read`.
fn keeping(folder: &Path) -> String {
    let read = folder.join("read");
    fs::create_dir(&read).expect("a folder can be made");
    format!("cat >$(mktemp {}/XXXXXX)", read.display())
}

/// The files of a folder in no particular order.
fn read_folder(folder: &Path) -> Vec<Vec<u8>> {
    fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .map(|path| fs::read(path).expect("it can be read"))
        .collect()
}

fn assert_same(mut read: Vec<Vec<u8>>, mut expected: Vec<Vec<u8>>, door: &Door) {
    read.sort();
    expected.sort();
    assert_eq!(read.len(), expected.len(), "messages, {door:?}");
    for (read, expected) in read.iter().zip(&expected) {
        let differs = read.iter().zip(expected).position(|(read, expected)| read != expected);
        assert_eq!(differs, None, "{}, {door:?}", excerpt(read));
        assert_eq!(read.len(), expected.len(), "{}, {door:?}", excerpt(read));
    }
}

fn excerpt(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[..message.len().min(1000)]).into_owned()
}

/// Some that a protocol of lines and dots has to treat with care, and one of 5 MB. All their lines end in CRLF.
fn messages() -> Vec<Vec<u8>> {
    let large: String = (0..70_000)
        .map(|number| format!(".{number:07} {}\r\n", "z".repeat(number % 130)))
        .collect();
    let bodies: [&[u8]; 5] = [
        b"One.\r\n",
        b".\r\n..\r\n.dot\r\n \r\ntrailing \t\r\n+OK\r\n-ERR\r\n",
        b"\xff\xfe\xe4 Gr\xc3\xbc\xc3\x9fe\r\n",
        b"\r\n\r\nTwo empty lines before, one behind.\r\n\r\n",
        large.as_bytes(),
    ];
    let message = |(number, body): (usize, &&[u8])| {
        let header = format!(
            "Return-Path: <bed@example.com>\r\nFrom: bed@example.com\r\nTo: alice@example.com\r\n\
             Subject: number {number}\r\nMessage-ID: <{number}@example.com>\r\n\r\n"
        );
        [header.as_bytes(), body].concat()
    };
    (1..).zip(&bodies).map(message).collect()
}

/// What the script prints of each message.
fn digest(message: &[u8]) -> String {
    let hash = Sha256::digest(message);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} {hex}", message.len())
}

const USER: &str = "alice@example.com";
const PASSWORD: &str = "past-the-proxy";
const XOAUTH2: &str = "XOAUTH2";
const OAUTHBEARER: &str = "OAUTHBEARER";
