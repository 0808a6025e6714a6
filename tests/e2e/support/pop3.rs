//! A small POP3 client that hides nothing: status lines as they were sent, messages byte for byte.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::certs::Authority;
use super::wire::Wire;

/// One connection, in clear or over TLS.
pub struct Pop3 {
    wire: Wire,
    greeting: String,
}

impl Pop3 {
    /// Connects in clear and reads the greeting.
    pub async fn connect(address: SocketAddr) -> Pop3 {
        Pop3::greeted(Wire::connect(address).await).await
    }

    /// As [`Pop3::connect`], from a given local address such as 127.0.0.9.
    pub async fn connect_from(local: SocketAddr, address: SocketAddr) -> Pop3 {
        Pop3::greeted(Wire::dial(Some(local), address, None).await).await
    }

    /// Connects with implicit TLS, trusting `authority`, and reads the greeting.
    pub async fn connect_tls(address: SocketAddr, authority: &Authority) -> Pop3 {
        Pop3::greeted(Wire::dial(None, address, Some(authority)).await).await
    }

    /// Reads the greeting on a connection that somebody else has made.
    pub async fn greeted(mut wire: Wire) -> Pop3 {
        let greeting = wire.line().await;
        Pop3 { wire, greeting }
    }

    /// Sends STLS and goes on inside TLS.
    pub async fn starttls(mut self, authority: &Authority) -> Pop3 {
        let status = self.command("STLS").await;
        assert!(is_ok(&status), "STLS refused\n{}", self.transcript());
        self.wire = self.wire.secured(authority.client_config()).await;
        self
    }

    /// The greeting's line.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Sends a command and reads its status line.
    pub async fn command(&mut self, command: &str) -> String {
        self.send_line(command).await;
        self.line().await
    }

    /// Sends a command that succeeds with a multi-line response; its lines without the dots doubled in transit and without
    /// the status line.
    pub async fn list(&mut self, command: &str) -> Vec<String> {
        let lines = self.multiline(command).await;
        let text = |line: &Vec<u8>| String::from_utf8_lossy(line).into_owned();
        lines.iter().map(text).collect()
    }

    /// A whole message by its number, byte for byte.
    pub async fn retr(&mut self, number: usize) -> Vec<u8> {
        let mut message = Vec::new();
        for line in self.multiline(&format!("RETR {number}")).await {
            message.extend_from_slice(&line);
            message.extend_from_slice(b"\r\n");
        }
        message
    }

    /// USER and PASS; the last status line.
    pub async fn login(&mut self, user: &str, password: &str) -> String {
        let status = self.command(&format!("USER {user}")).await;
        if !is_ok(&status) {
            return status;
        }
        self.command(&format!("PASS {password}")).await
    }

    /// AUTH PLAIN in two steps.
    pub async fn auth_plain(&mut self, user: &str, password: &str) -> SaslReply {
        self.auth("PLAIN", &format!("\0{user}\0{password}"), "").await
    }

    /// AUTH XOAUTH2 in two steps; a challenge is answered with an empty line.
    pub async fn auth_xoauth2(&mut self, user: &str, token: &str) -> SaslReply {
        let response = format!("user={user}\x01auth=Bearer {token}\x01\x01");
        self.auth("XOAUTH2", &response, "").await
    }

    /// AUTH OAUTHBEARER in two steps; a challenge is answered with `AQ==` (RFC 7628 §3.2.3).
    pub async fn auth_oauthbearer(&mut self, user: &str, token: &str) -> SaslReply {
        let response = format!("n,a={user},\x01auth=Bearer {token}\x01\x01");
        self.auth("OAUTHBEARER", &response, "AQ==").await
    }

    /// AUTH whose response follows the first, empty challenge, and one line for the challenge of a refusal.
    pub async fn auth(&mut self, mechanism: &str, response: &str, answer_to_challenge: &str) -> SaslReply {
        let mut status = self.command(&format!("AUTH {mechanism}")).await;
        let mut challenge = None;
        if status.trim_end() == "+" {
            status = self.command(&BASE64.encode(response)).await;
        }
        if let Some(encoded) = status.strip_prefix("+ ") {
            let decoded = BASE64.decode(encoded).expect("a challenge is base64");
            challenge = Some(String::from_utf8_lossy(&decoded).into_owned());
            status = self.command(answer_to_challenge).await;
        }
        SaslReply { challenge, status }
    }

    async fn multiline(&mut self, command: &str) -> Vec<Vec<u8>> {
        let status = self.command(command).await;
        assert!(is_ok(&status), "{command}: {status}\n{}", self.transcript());
        let mut lines = Vec::new();
        loop {
            let mut line = self.line_octets().await;
            if line == b"." {
                return lines;
            }
            if line.starts_with(b".") {
                line.remove(0);
            }
            lines.push(line);
        }
    }
}

impl Deref for Pop3 {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Pop3 {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// The answer to AUTH.
#[derive(Debug)]
pub struct SaslReply {
    /// The challenge, decoded, if there was one.
    pub challenge: Option<String>,
    /// The status line after it.
    pub status: String,
}

/// Whether a status line says that a command succeeded.
pub fn is_ok(status: &str) -> bool {
    status == "+OK" || status.starts_with("+OK ")
}
