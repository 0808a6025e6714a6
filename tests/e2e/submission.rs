//! Mail programs that send, as people use them: what lies in the mailbox is byte for byte what the
//! same program delivers when it talks to the upstream itself, less the fields that trace the way.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;

use crate::support::bed::{Bed, until};
use crate::support::portreeve::Setup;
use crate::support::postfix::UTF8_DOMAIN;
use crate::support::programs::{Door, node, python, reading, run};
use crate::support::protocol::Protocol;
use crate::support::provider::ProviderOptions;
use crate::support::smtp::Smtp;
use crate::support::upstream::Security;
use crate::support::{PATIENCE, open_directory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn msmtp_sends() {
    let letters = [
        Letter::plain(),
        Letter::eight_bit(),
        Letter::reported(),
        Letter::large(),
    ];
    assert_sends(msmtp, XOAUTH2, &letters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaks_sends_pipelined() {
    let letters = [Letter::plain(), Letter::eight_bit(), Letter::large()];
    assert_sends(swaks, OAUTHBEARER, &letters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_sends() {
    let letters = [
        Letter::plain(),
        Letter::eight_bit(),
        Letter::beyond_ascii(),
        Letter::large(),
    ];
    assert_sends(curl, XOAUTH2, &letters).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn smtplib_sends() {
    assert_sends(smtplib, OAUTHBEARER, &Letter::all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodemailer_sends() {
    assert_sends(nodemailer, XOAUTH2, &Letter::all()).await;
}

/// Has a program send the letters straight to the upstream, and through every door of a proxy that logs in there by a mechanism.
async fn assert_sends(program: fn(&Door, &Letter, &Draft) -> Command, mechanism: &'static str, letters: &[Letter]) {
    let post = Post::start(mechanism).await;
    let reference = post.past_the_proxy();
    let doors = post.bed.doors(Protocol::Smtp, SENDER, &post.token);
    for letter in letters {
        let directly = post.send(program, &reference, letter).await;
        assert!(directly.message == letter.delivered(), "{}", excerpt(&directly.message));
        if let Some(report) = &directly.report {
            assert!(report.contains(&"Action: relayed".to_owned()), "{report:?}");
        }
        for door in &doors {
            let sent = post.send(program, door, letter).await;
            assert!(sent.message == directly.message, "{}, {door:?}", excerpt(&sent.message));
            assert_eq!(sent.report, directly.report, "{door:?}");
        }
    }
    let login = format!("sasl_method={mechanism}, sasl_username={SENDER}");
    let logins = post.bed.postfix().log().matches(&login).count();
    assert_eq!(logins, doors.len() * letters.len(), "{}", post.bed.log());
}

/// A whole bed and what letters need.
struct Post {
    bed: Bed,
    token: String,
    folder: TempDir,
    drafts: AtomicUsize,
}

/// What came of a letter.
struct Sent {
    /// The message, less the fields that trace its way.
    message: Vec<u8>,
    /// What the delivery report says that does not depend on when and where, if one was asked for.
    report: Option<Vec<String>>,
}

impl Post {
    async fn start(mechanism: &'static str) -> Post {
        let setup = Setup::default().with_provider(&format!("sasl = [{mechanism:?}]"));
        let bed = Bed::start_whole_on(setup, ProviderOptions::default(), &[(SENDER, PASSWORD)]).await;
        let token = bed.account(SENDER).await;
        // From here on the proxy knows what it may promise.
        let mut first = Smtp::connect(bed.portreeve.door(Protocol::Smtp, Security::Off)).await;
        first.ehlo().await;
        let login = first.auth_plain(SENDER, &token).await;
        assert_eq!(login.reply.code, 235, "{}\n{}", first.transcript(), bed.log());
        Post {
            bed,
            token,
            folder: open_directory(),
            drafts: AtomicUsize::new(0),
        }
    }

    fn past_the_proxy(&self) -> Door {
        Door {
            address: self.bed.postfix().submission(),
            tls: Security::StartTls,
            ca_file: self.bed.dovecot.ca_file(),
            user: SENDER.to_owned(),
            password: PASSWORD.to_owned(),
        }
    }

    /// Has a program send a letter, and takes it out of the mailbox.
    async fn send(&self, program: fn(&Door, &Letter, &Draft) -> Command, door: &Door, letter: &Letter) -> Sent {
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = Draft {
            message: self.folder.path().join(format!("{number}.eml")),
            passwords: self.folder.path().join("password"),
        };
        fs::write(&draft.message, &letter.message).expect("the message can be written");
        fs::write(&draft.passwords, &door.password).expect("the password can be written");
        let mut command = program(door, letter, &draft);
        run("the mail program", &mut command, || self.bed.log()).await;
        let message = self.take(letter.mailbox).await;
        let report = match letter.is_reported {
            true => Some(facts_of(&self.take(SENDER).await)),
            false => None,
        };
        Sent {
            message: without_trace(&message),
            report,
        }
    }

    /// The only message of a mailbox, once it is there; the mailbox is empty then.
    async fn take(&self, mailbox: &str) -> Vec<u8> {
        let mut messages = until(PATIENCE, "what was sent is delivered", async || {
            let messages = self.bed.dovecot.take(mailbox);
            (!messages.is_empty()).then_some(messages)
        })
        .await;
        assert_eq!(messages.len(), 1, "messages in the mailbox of {mailbox}");
        messages.remove(0)
    }
}

/// Files for the program that sends a letter.
struct Draft {
    /// The message, with CRLF line ends.
    message: PathBuf,
    /// The password alone.
    passwords: PathBuf,
}

/// What is sent, and to whom.
struct Letter {
    message: Vec<u8>,
    from: &'static str,
    to: &'static str,
    /// Where it is found.
    mailbox: &'static str,
    /// The program is to say that it is not 7-bit, if it can.
    is_eight_bit: bool,
    /// A report of the delivery is asked for.
    is_reported: bool,
}

impl Letter {
    fn of(body: &[u8]) -> Letter {
        let header = "From: Alice <alice@example.com>\r\nTo: Bob <bob@example.com>\r\nSubject: a letter\r\n\
             Date: Mon, 02 Nov 2026 10:00:00 +0100\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nX-Folded: one\r\n\ttwo  \r\n\r\n";
        Letter {
            message: [header.as_bytes(), body].concat(),
            from: SENDER,
            to: RECIPIENT,
            mailbox: RECIPIENT,
            is_eight_bit: false,
            is_reported: false,
        }
    }

    /// Lines that a sender has to treat with care.
    fn plain() -> Letter {
        let longest = "x".repeat(998);
        Letter::of(
            format!(".\r\n..\r\n.dot\r\n \r\ntrailing \t\r\nFrom here\r\n250 OK\r\n{longest}\r\nQUIT\r\n").as_bytes(),
        )
    }

    fn eight_bit() -> Letter {
        Letter {
            is_eight_bit: true,
            ..Letter::of("Grüße aus Köln, αβγ, 日本\r\n".as_bytes())
        }
    }

    fn beyond_ascii() -> Letter {
        Letter {
            from: "jörg@example.com",
            to: "αλφα@utf8.example",
            mailbox: UTF8_DOMAIN,
            ..Letter::eight_bit()
        }
    }

    fn reported() -> Letter {
        Letter {
            is_reported: true,
            ..Letter::of(b"Tell me.\r\n")
        }
    }

    /// 20 MB.
    fn large() -> Letter {
        let mut body = Vec::with_capacity(LARGE_OCTETS + 100);
        let mut number = 0;
        while body.len() < LARGE_OCTETS {
            body.extend_from_slice(format!(".{number:07} {}\r\n", "y".repeat(number % 70)).as_bytes());
            number += 1;
        }
        Letter::of(&body)
    }

    fn all() -> [Letter; 5] {
        [
            Letter::plain(),
            Letter::eight_bit(),
            Letter::beyond_ascii(),
            Letter::reported(),
            Letter::large(),
        ]
    }

    /// The message as it lies in its mailbox.
    fn delivered(&self) -> Vec<u8> {
        if self.mailbox != UTF8_DOMAIN {
            return self.message.clone();
        }
        let text = String::from_utf8(self.message.clone()).expect("it is UTF-8");
        text.replace("\r\n", "\n").into_bytes()
    }
}

fn msmtp(door: &Door, letter: &Letter, draft: &Draft) -> Command {
    let mut command = Command::new("msmtp");
    command
        .args(["--host=localhost", "--auth=plain", "--set-date-header=off"])
        .arg(format!("--port={}", door.address.port()))
        .arg(format!("--user={}", door.user))
        .arg(format!("--passwordeval=cat {}", draft.passwords.display()))
        .arg(format!("--from={}", letter.from));
    match door.tls {
        Security::Off => command.arg("--tls=off"),
        Security::StartTls => command.args(["--tls=on", "--tls-starttls=on"]),
        Security::Implicit => command.args(["--tls=on", "--tls-starttls=off"]),
    };
    if door.tls != Security::Off {
        command.arg(format!("--tls-trust-file={}", door.ca_file.display()));
    }
    if letter.is_reported {
        command.args(["--dsn-notify=success", "--dsn-return=headers"]);
    }
    command.arg("--").arg(letter.to);
    reading(&draft.message, &command)
}

fn swaks(door: &Door, letter: &Letter, draft: &Draft) -> Command {
    // It adds the CRLF before the final dot whether or not there is one.
    let message = letter.message.strip_suffix(b"\r\n").expect("the last line ends");
    fs::write(&draft.message, message).expect("the message can be written");
    let mut command = Command::new("swaks");
    command
        .args([
            "--server",
            "127.0.0.1",
            "--auth",
            "PLAIN",
            "--pipeline",
            "--silent",
            "2",
        ])
        .arg("--port")
        .arg(door.address.port().to_string())
        .args(["--auth-user", &door.user, "--auth-password", &door.password])
        .args(["--from", letter.from, "--to", letter.to])
        .arg("--data")
        .arg(format!("@{}", draft.message.display()));
    match door.tls {
        Security::Off => {}
        Security::StartTls => drop(command.arg("--tls")),
        Security::Implicit => drop(command.arg("--tls-on-connect")),
    }
    if door.tls != Security::Off {
        command.arg("--tls-verify").arg("--tls-ca-path").arg(&door.ca_file);
    }
    command
}

fn curl(door: &Door, letter: &Letter, draft: &Draft) -> Command {
    let mut command = door.curl();
    command
        .arg(door.url("smtp"))
        .args(["--mail-from", letter.from, "--mail-rcpt", letter.to])
        .arg("--upload-file")
        .arg(&draft.message);
    command
}

fn smtplib(door: &Door, letter: &Letter, draft: &Draft) -> Command {
    let mut mail_options = Vec::new();
    let mut rcpt_options = Vec::new();
    if letter.is_eight_bit {
        mail_options.push("BODY=8BITMIME");
    }
    if !letter.to.is_ascii() {
        mail_options.push("SMTPUTF8");
    }
    if letter.is_reported {
        mail_options.extend(["RET=HDRS", "ENVID=an+2Benvelope"]);
        rcpt_options.extend(["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@example.com"]);
    }
    let mut order = door.order();
    order["from"] = json!(letter.from);
    order["to"] = json!(letter.to);
    order["message"] = json!(draft.message);
    order["mail_options"] = json!(mail_options);
    order["rcpt_options"] = json!(rcpt_options);
    python("submit.py", &order)
}

fn nodemailer(door: &Door, letter: &Letter, draft: &Draft) -> Command {
    let mut order = door.order();
    order["from"] = json!(letter.from);
    order["to"] = json!(letter.to);
    order["message"] = json!(draft.message);
    order["eight_bit"] = json!(letter.is_eight_bit);
    if letter.is_reported {
        order["dsn"] =
            json!({ "id": "an+envelope", "return": "full", "notify": ["success"], "recipient": "first@example.com" });
    }
    node("submit.mjs", &order)
}

/// A message without the header fields that say which way it came.
fn without_trace(message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(message.len());
    let mut lines = message.split_inclusive(|byte| *byte == b'\n');
    let mut is_kept = true;
    for line in lines.by_ref() {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            is_kept = !TRACE.iter().any(|name| line.starts_with(name.as_bytes()));
        }
        if is_kept {
            kept.extend_from_slice(line);
        }
        if line.trim_ascii().is_empty() {
            break;
        }
    }
    kept.extend(lines.flatten());
    kept
}

/// The lines of a delivery report (RFC 3464) that say what was asked for and what was done, and what it returns.
fn facts_of(report: &[u8]) -> Vec<String> {
    let report = String::from_utf8_lossy(report);
    let facts = report
        .lines()
        .filter(|line| FACTS.iter().any(|name| line.starts_with(name)));
    facts.map(str::to_owned).collect()
}

fn excerpt(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[..message.len().min(2000)]).into_owned()
}

const SENDER: &str = "alice@example.com";
const RECIPIENT: &str = "bob@example.com";
const PASSWORD: &str = "past-the-proxy";
const XOAUTH2: &str = "XOAUTH2";
const OAUTHBEARER: &str = "OAUTHBEARER";
const LARGE_OCTETS: usize = 20 << 20;
const TRACE: [&str; 4] = ["Received:", "Return-Path:", "Delivered-To:", "X-Original-To:"];
const FACTS: [&str; 6] = [
    "Original-Envelope-Id:",
    "Original-Recipient:",
    "Final-Recipient:",
    "Action:",
    "Content-Type: message/rfc822",
    "Content-Type: text/rfc822-headers",
];
