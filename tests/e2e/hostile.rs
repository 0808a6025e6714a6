//! Bad input from clients that are not logged in: they get the replies of the table, the proxy's memory stays bounded, and
//! a session beside them notices nothing.

use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::PATIENCE;
use crate::support::imap::Imap;
use crate::support::mailbox::Mailbox;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn mutated_streams_get_replies_of_the_table_and_an_end() {
    let seed: u64 = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().expect("a seed is a number"),
        Err(_) => rand::random::<u32>().into(),
    };
    println!("{SEED_VARIABLE}={seed} repeats this run");
    let bed = Bed::start("").await;
    let (address, token) = (bed.portreeve.imap(), bed.token.clone());
    let mut attackers = JoinSet::new();
    for attacker in 0..ATTACKERS {
        let token = token.clone();
        attackers.spawn(async move {
            for number in (attacker..STREAMS).step_by(ATTACKERS) {
                // A generator for each stream: what a stream is does not depend on who was faster.
                let mut random = StdRng::seed_from_u64(seed + number as u64);
                let stream = mutated(&mut random, &token);
                let leaves_early = random.random_ratio(1, 10);
                if let Err(what) = attack(address, &stream, leaves_early).await {
                    panic!("seed {seed}, stream {number} ({}): {what}", stream.escape_ascii());
                }
            }
        });
    }
    while let Some(attacker) = attackers.join_next().await {
        attacker.expect("every stream is answered");
    }
    bed.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_lines_and_literals_are_refused_without_being_kept() {
    let bed = Bed::start("").await;
    let too_long = ["BAD The command line is too long", "* BYE The command line is too long"];
    let too_big = ["NO [TOOBIG] The literal is too large", "* BYE The literal is too large"];
    for (start, tag, replies) in [
        ("A LOGIN ", "A", too_long),
        ("", "*", too_long),
        ("A AUTHENTICATE PLAIN\r\n", "A", too_long),
        ("A LOGIN {4294967296+}\r\n", "A", too_big),
        ("A LOGIN example {4294967296+}\r\n", "A", too_big),
        ("A LOGIN {99999999999999999999999999+}\r\n", "A", too_big),
    ] {
        for over_tls in [false, true] {
            let mut heard = bed.flood(start, over_tls).await;
            heard.retain(|line| !line.starts_with('+'));
            let [refusal, farewell] = replies;
            assert_eq!(heard, [format!("{tag} {refusal}"), farewell.to_owned()], "{start:?}");
        }
    }
    bed.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronising_literal_of_4_gb_is_refused_and_the_session_goes_on() {
    let bed = Bed::start("").await;
    for announced in ["4294967296", "18446744073709551616", "99999999999999999999999999"] {
        let mut client = bed.portreeve.connect().await;
        for command in ["LOGIN", "LOGIN example", "ID", "NOOP"] {
            client.send_line(&format!("A {command} {{{announced}}}")).await;
            assert_eq!(client.line().await, "A NO [TOOBIG] The literal is too large");
        }
        assert!(client.command("NOOP").await.is_ok());
    }
    bed.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parentheses_by_the_hundred_thousand_are_a_bad_command() {
    // With room for such a line it gets past the framing, to the grammar.
    let bed = Bed::start("command_line_bytes_max = 300000").await;
    let parentheses = "(".repeat(100_000);
    for command in ["ID ", "LOGIN ", "AUTHENTICATE ", "NOOP ", ""] {
        let mut client = bed.portreeve.connect().await;
        let closed = format!("{command}{parentheses}{}", ")".repeat(100_000));
        for line in [format!("{command}{parentheses}"), closed] {
            client.send_line(&format!("A {line}")).await;
            let reply = client.line().await;
            // What is odd in an ID is dropped.
            if command == "ID " && reply.starts_with("* ID ") {
                assert!(client.line().await.starts_with("A OK "));
            } else {
                assert!(reply.starts_with("A BAD "), "{command}: {reply}");
            }
        }
        assert!(client.command("NOOP").await.is_ok());
    }
    bed.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_keep_nobody_out_and_are_sent_away_in_time() {
    let bed = Bed::start("pre_auth_timeout = \"8s\"").await;
    let mut silent = Vec::new();
    let mut half_open = Vec::new();
    for _ in 0..SILENT {
        silent.push(bed.portreeve.connect().await);
        half_open.push(begin_handshake(bed.portreeve.imaps()).await);
    }
    let mut beside = bed.portreeve.logged_in("example", &bed.token).await;
    let mut beside_tls = Imap::connect_tls(bed.portreeve.imaps(), bed.portreeve.authority()).await;
    let reply = beside_tls.login("example", &bed.token).await;
    assert!(reply.is_ok(), "{}", beside_tls.transcript());

    for client in &mut silent {
        assert_eq!(client.line().await, "* BYE Disconnected for inactivity during login");
        client.expect_end().await;
    }
    for client in &mut half_open {
        let mut heard = Vec::new();
        let ended = timeout(PATIENCE, client.read_to_end(&mut heard)).await;
        ended.expect("a handshake that does not go on is given up").ok();
        assert_eq!(heard, b"", "TLS has nothing to say before the client's hello");
    }
    for client in [&mut beside, &mut beside_tls] {
        assert!(client.command("NOOP").await.is_ok());
    }
    bed.finish().await;
}

/// A proxy whose limits let one address do its worst, and a session that is logged in.
struct Bed {
    portreeve: Portreeve,
    token: String,
    bystander: Bystander,
    resident_before: u64,
    _mailbox: Mailbox,
}

impl Bed {
    async fn start(limits: &str) -> Bed {
        rlimit::increase_nofile_limit(u64::MAX).expect("the soft limit of descriptors can be raised");
        let mailbox = Mailbox::serve().await;
        let setup = Setup::default().with(&format!(
            r#"
[log]
level = "info"
format = "text"
[limits]
sessions_per_ip_max = 5000
sessions_per_account_max = 1000
{limits}
[provider.{PROVIDER}]
imap = {{ host = "127.0.0.1", port = {}, tls = "off" }}
"#,
            mailbox.address().port(),
        ));
        let mut portreeve = setup.start().await;
        let account = json!({ "account": "example", "provider": PROVIDER, "user": "example", "password": "pw" });
        portreeve.post("/v1/account", &account).await;
        let token = portreeve.add_token("example").await;
        let bystander = Bystander::begin(portreeve.logged_in("example", &token).await);
        let pid = portreeve.process().id();
        Bed {
            resident_before: memory_kb(pid, "VmRSS"),
            portreeve,
            token,
            bystander,
            _mailbox: mailbox,
        }
    }

    /// Sends `start` and then 100 MB without a line end, as far as the proxy takes them; the lines that came back behind
    /// the greeting.
    async fn flood(&self, start: &str, over_tls: bool) -> Vec<String> {
        let authority = over_tls.then(|| self.portreeve.authority());
        let address = match authority {
            Some(_) => self.portreeve.imaps(),
            None => self.portreeve.imap(),
        };
        let mut client = Wire::dial(None, address, authority).await;
        client.line().await;
        client.send(start.as_bytes()).await;
        client.flood(&[b'x'; 64 * 1024], FLOOD_BYTES).await
    }

    /// What must hold after any attack.
    async fn finish(mut self) {
        let mut late = self.portreeve.logged_in("example", &self.token).await;
        assert!(late.command("NOOP").await.is_ok());
        let answers = self.bystander.end().await;
        assert!(answers > 0, "the bystander was never answered");
        let process = self.portreeve.process();
        assert!(process.is_running(), "{}", process.log_tail());
        let peak = memory_kb(process.id(), "VmHWM");
        let growth = peak.saturating_sub(self.resident_before);
        println!("memory grew by {growth} KB at most; the bystander had {answers} answers");
        assert!(growth < GROWTH_KB_MAX, "memory grew by {growth} KB");
        let log = self.portreeve.log();
        assert!(!log.contains("panic") && !log.contains(" ERROR "), "{log}");
    }
}

/// A logged-in session that keeps asking, and is answered, whatever goes on beside it.
struct Bystander {
    order: oneshot::Sender<()>,
    asking: JoinHandle<usize>,
}

impl Bystander {
    fn begin(mut session: Imap) -> Bystander {
        let (order, mut ordered) = oneshot::channel();
        let asking = tokio::spawn(async move {
            let mut pace = interval(BYSTANDER_PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut answers = 0;
            while ordered.try_recv().is_err() {
                pace.tick().await;
                assert!(session.command("NOOP").await.is_ok(), "{}", session.transcript());
                answers += 1;
            }
            answers
        });
        Bystander { order, asking }
    }

    async fn end(self) -> usize {
        // A bystander that is gone says why when it is awaited.
        self.order.send(()).ok();
        self.asking.await.expect("the bystander was served to the end")
    }
}

/// A figure of `/proc/PID/status`.
fn memory_kb(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let figure = line.and_then(|text| text.split_whitespace().next());
    figure.expect("the kernel tells it").parse().expect("it is a number")
}

/// Connects and sends the first half of a ClientHello's record.
async fn begin_handshake(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("the listener accepts");
    stream
        .write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03])
        .await
        .expect("the proxy reads");
    stream
}

/// Plays one stream: sends it, ends, and checks what came back.
async fn attack(address: SocketAddr, stream: &[u8], leaves_early: bool) -> Result<(), String> {
    let conversation = async {
        let mut client = TcpStream::connect(address).await?;
        // The proxy may have said farewell before it has seen all.
        client.write_all(stream).await.ok();
        if leaves_early {
            return Ok(None);
        }
        client.shutdown().await.ok();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await?;
        std::io::Result::Ok(Some(heard))
    };
    let heard = match timeout(PATIENCE, conversation).await {
        Ok(Ok(Some(heard))) => heard,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("no end".to_owned()),
    };
    judge(&String::from_utf8_lossy(&heard))
}

/// Whether these are whole replies, and each is one that the table knows.
fn judge(heard: &str) -> Result<(), String> {
    let Some(lines) = heard.strip_suffix("\r\n") else {
        return Err(format!("an unfinished line: {heard:?}"));
    };
    let mut lines = lines.split("\r\n");
    if !lines
        .next()
        .is_some_and(|greeting| greeting.starts_with("* OK [CAPABILITY "))
    {
        return Err(format!("no greeting: {heard:?}"));
    }
    let mut after_bye = false;
    for line in lines {
        let (tag, reply) = line.split_once(' ').unwrap_or((line, ""));
        let known = match tag {
            "+" => !after_bye,
            "*" => !after_bye && UNTAGGED.iter().any(|known| reply.starts_with(known)),
            _ => TAGGED.iter().any(|known| reply.starts_with(known)) && (!after_bye || reply.starts_with("OK LOGOUT")),
        };
        if !known {
            return Err(format!("{line:?} in {heard:?}"));
        }
        if reply == "OK example authenticated" {
            // The rest is the upstream's.
            return Ok(());
        }
        after_bye |= tag == "*" && reply.starts_with("BYE ");
    }
    Ok(())
}

/// A conversation that has been tampered with.
fn mutated(random: &mut StdRng, token: &str) -> Vec<u8> {
    let mut stream = conversation(random, token);
    for _ in 0..random.random_range(1..=6) {
        let place = random.random_range(0..=stream.len());
        let end = (place + random.random_range(0..40)).min(stream.len());
        match random.random_range(0..7) {
            0 if place < stream.len() => stream[place] ^= 1 << random.random_range(0..8),
            1 => drop(stream.drain(place..end)),
            2 => {
                let repeated = stream[place..end].repeat(random.random_range(1..200));
                stream.splice(place..place, repeated);
            }
            3 => stream.truncate(place),
            4 => {
                let other = conversation(random, token);
                stream.splice(place.., other);
            }
            5 => {
                let noise: Vec<u8> = (0..random.random_range(1..64)).map(|_| random.random()).collect();
                stream.splice(place..place, noise);
            }
            _ => {
                let marks = MARKS.choose(random).expect("there are marks");
                stream.splice(place..place, marks.bytes());
            }
        }
    }
    stream
}

/// A few commands in a row, as clients send them.
fn conversation(random: &mut StdRng, token: &str) -> Vec<u8> {
    let mut stream = String::new();
    for number in 0..random.random_range(1..=4) {
        let command = COMMANDS.choose(random).expect("there are commands");
        stream.push_str(&format!("A{number} {}\r\n", command.replace("TOKEN", token)));
    }
    stream.into_bytes()
}

const COMMANDS: [&str; 16] = [
    "CAPABILITY",
    "NOOP",
    "LOGOUT",
    "STARTTLS",
    "ID NIL",
    "ID (\"name\" \"mail program\" \"version\" NIL)",
    "LOGIN example TOKEN",
    "LOGIN \"exam\\\"ple\" \"TOKEN\"",
    "LOGIN {7}\r\nexample {64}\r\nTOKEN",
    "LOGIN {7+}\r\nexample {64+}\r\nTOKEN",
    "AUTHENTICATE PLAIN AGV4YW1wbGUAcGFzc3dvcmQ=",
    "AUTHENTICATE PLAIN\r\nAGV4YW1wbGUAcGFzc3dvcmQ=",
    "AUTHENTICATE LOGIN\r\nZXhhbXBsZQ==\r\ncGFzc3dvcmQ=",
    "AUTHENTICATE XOAUTH2 dXNlcj1leGFtcGxlAWF1dGg9QmVhcmVyIGFiYwEB\r\n",
    "AUTHENTICATE OAUTHBEARER\r\nbixhPWV4YW1wbGUsAWF1dGg9QmVhcmVyIGFiYwEB\r\nAQ==",
    "SELECT INBOX",
];

const MARKS: [&str; 18] = [
    "{4294967296}\r\n",
    "{4294967296+}\r\n",
    "{18446744073709551616}\r\n",
    "{4096+}\r\n",
    "{0}\r\n",
    "{-1}\r\n",
    "~{5+}\r\n",
    "((((((((((((((((",
    "\"",
    "\\",
    "\r",
    "\n",
    "\r\n\r\n",
    "\0",
    "*\r\n",
    "=\r\n",
    "ÿ",
    "\u{1}\u{1}",
];

/// Without a tag that can be told, a refusal has none.
const UNTAGGED: [&str; 5] = ["CAPABILITY IMAP4rev1 ", "ID (", "BAD ", "NO [TOOBIG] ", "BYE "];

const TAGGED: [&str; 6] = [
    "OK ",
    "BAD ",
    "NO [AUTHENTICATIONFAILED] Access denied, ",
    "NO [TOOBIG] ",
    "NO [CANNOT] ",
    "NO [LIMIT] ",
];

const SEED_VARIABLE: &str = "PORTREEVE_TEST_SEED";
const STREAMS: usize = 10_000;
const ATTACKERS: usize = 64;
const SILENT: usize = 1_000;
const FLOOD_BYTES: usize = 100_000_000;
const GROWTH_KB_MAX: u64 = 64 * 1024;
const BYSTANDER_PACE: Duration = Duration::from_millis(10);
