//! A small SMTP client that hides nothing: replies with all their lines, as they were sent.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::certs::Authority;
use super::wire::Wire;

/// One connection, in clear or over TLS.
pub struct Smtp {
    wire: Wire,
    greeting: Reply,
}

impl Smtp {
    /// Connects in clear and reads the greeting.
    pub async fn connect(address: SocketAddr) -> Smtp {
        Smtp::greeted(Wire::connect(address).await).await
    }

    /// As [`Smtp::connect`], from a given local address such as 127.0.0.9.
    pub async fn connect_from(local: SocketAddr, address: SocketAddr) -> Smtp {
        Smtp::greeted(Wire::dial(Some(local), address, None).await).await
    }

    /// Connects with implicit TLS, trusting `authority`, and reads the greeting.
    pub async fn connect_tls(address: SocketAddr, authority: &Authority) -> Smtp {
        Smtp::greeted(Wire::dial(None, address, Some(authority)).await).await
    }

    /// Reads the greeting on a connection that somebody else has made.
    pub async fn greeted(mut wire: Wire) -> Smtp {
        let greeting = read_reply(&mut wire).await;
        Smtp { wire, greeting }
    }

    /// Sends STARTTLS and goes on inside TLS, where EHLO has to be said again (RFC 3207 §4.2).
    pub async fn starttls(mut self, authority: &Authority) -> Smtp {
        let reply = self.command("STARTTLS").await;
        assert_eq!(reply.code, 220, "STARTTLS refused\n{}", self.transcript());
        self.wire = self.wire.secured(authority.client_config()).await;
        self
    }

    /// The greeting.
    pub fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// Reads a reply, all its lines.
    pub async fn reply(&mut self) -> Reply {
        read_reply(&mut self.wire).await
    }

    /// Sends a command and reads its reply.
    pub async fn command(&mut self, command: &str) -> Reply {
        self.send_line(command).await;
        self.reply().await
    }

    /// EHLO; its reply.
    pub async fn ehlo(&mut self) -> Reply {
        self.command("EHLO client.example.com").await
    }

    /// AUTH PLAIN with an initial response.
    pub async fn auth_plain(&mut self, user: &str, password: &str) -> SaslReply {
        self.auth("PLAIN", &format!("\0{user}\0{password}"), "").await
    }

    /// AUTH XOAUTH2; a challenge is answered with an empty line.
    pub async fn auth_xoauth2(&mut self, user: &str, token: &str) -> SaslReply {
        let response = format!("user={user}\x01auth=Bearer {token}\x01\x01");
        self.auth("XOAUTH2", &response, "").await
    }

    /// AUTH OAUTHBEARER; a challenge is answered with `AQ==` (RFC 7628 §3.2.3).
    pub async fn auth_oauthbearer(&mut self, user: &str, token: &str) -> SaslReply {
        let response = format!("n,a={user},\x01auth=Bearer {token}\x01\x01");
        self.auth("OAUTHBEARER", &response, "AQ==").await
    }

    /// AUTH with an initial response, and one line for the challenge of a refusal.
    pub async fn auth(&mut self, mechanism: &str, response: &str, answer_to_challenge: &str) -> SaslReply {
        let line = format!("AUTH {mechanism} {}", BASE64.encode(response));
        let mut reply = self.command(&line).await;
        let mut challenge = None;
        if reply.code == 334 {
            let decoded = BASE64.decode(&reply.lines[0]).expect("a challenge is base64");
            challenge = Some(String::from_utf8_lossy(&decoded).into_owned());
            reply = self.command(answer_to_challenge).await;
        }
        SaslReply { challenge, reply }
    }

    /// Submits a message whose lines end in CRLF; the reply to its end. Every step before must succeed.
    pub async fn submit(&mut self, sender: &str, recipient: &str, message: &[u8]) -> Reply {
        let commands = [
            (format!("MAIL FROM:<{sender}>"), 250),
            (format!("RCPT TO:<{recipient}>"), 250),
            ("DATA".to_owned(), 354),
        ];
        for (command, code) in commands {
            let reply = self.command(&command).await;
            assert_eq!(reply.code, code, "{command}\n{}", self.transcript());
        }
        self.send(&stuffed(message)).await;
        self.reply().await
    }
}

impl Deref for Smtp {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Smtp {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// A reply (RFC 5321 §4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code, the same in all lines.
    pub code: u16,
    /// The text of each line.
    pub lines: Vec<String>,
}

impl Reply {
    /// Whether one of the lines is this, as an extension is of EHLO's reply.
    pub fn has_line(&self, line: &str) -> bool {
        self.lines.iter().any(|there| there == line)
    }
}

/// The answer to AUTH.
#[derive(Debug)]
pub struct SaslReply {
    /// The challenge, decoded, if there was one.
    pub challenge: Option<String>,
    /// What came after it.
    pub reply: Reply,
}

async fn read_reply(wire: &mut Wire) -> Reply {
    let mut lines = Vec::new();
    loop {
        let line = wire.line().await;
        let code = line.get(..3).and_then(|code| code.parse().ok());
        let code = code.unwrap_or_else(|| panic!("no reply: {line:?}\n{}", wire.transcript()));
        lines.push(line.get(4..).unwrap_or_default().to_owned());
        if line.as_bytes().get(3) != Some(&b'-') {
            return Reply { code, lines };
        }
    }
}

/// A message as DATA carries it: dots doubled where they begin a line, and its end (RFC 5321 §4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed.extend_from_slice(b".\r\n");
    stuffed
}
