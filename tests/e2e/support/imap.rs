//! A small IMAP client that hides nothing: lines as they were sent, literals byte for byte.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::ClientConfig;

use super::certs::Authority;
use super::wire::Wire;

/// One connection, in clear or over TLS.
pub struct Imap {
    wire: Wire,
    greeting: String,
    tags: u32,
}

impl Imap {
    /// Connects in clear and reads the greeting.
    pub async fn connect(address: SocketAddr) -> Imap {
        Imap::over(Wire::connect(address).await).await
    }

    /// As [`Imap::connect`], from a given local address such as 127.0.0.9.
    pub async fn connect_from(local: SocketAddr, address: SocketAddr) -> Imap {
        Imap::over(Wire::dial(Some(local), address, None).await).await
    }

    /// Connects with implicit TLS, trusting `authority`, and reads the greeting.
    pub async fn connect_tls(address: SocketAddr, authority: &Authority) -> Imap {
        Imap::connect_tls_as(address, authority.client_config()).await
    }

    /// Connects with implicit TLS as `client` would, and reads the greeting.
    pub async fn connect_tls_as(address: SocketAddr, client: Arc<ClientConfig>) -> Imap {
        Imap::over(Wire::connect(address).await.secured(client).await).await
    }

    /// Leaves the greeting to be read as a line.
    pub fn on(wire: Wire) -> Imap {
        Imap {
            wire,
            greeting: String::new(),
            tags: 0,
        }
    }

    async fn over(mut wire: Wire) -> Imap {
        let greeting = wire.line().await;
        Imap {
            greeting,
            ..Imap::on(wire)
        }
    }

    /// Sends STARTTLS and goes on inside TLS.
    pub async fn starttls(mut self, authority: &Authority) -> Imap {
        let reply = self.command("STARTTLS").await;
        assert!(reply.is_ok(), "STARTTLS refused\n{}", self.transcript());
        self.wire = self.wire.secured(authority.client_config()).await;
        self
    }

    /// The greeting's line.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// One whole response: its lines and the literals between them, byte for byte, without the last
    /// CRLF.
    pub async fn response(&mut self) -> Vec<u8> {
        let mut response = Vec::new();
        loop {
            let line = self.line().await;
            response.extend_from_slice(line.as_bytes());
            let Some(octets) = literal_octets(&line) else {
                return response;
            };
            response.extend_from_slice(b"\r\n");
            response.extend(self.octets(octets).await);
        }
    }

    /// Sends a command under a tag of its own and reads up to its tagged reply.
    pub async fn command(&mut self, command: &str) -> Reply {
        let tag = self.next_tag();
        self.send_line(&format!("{tag} {command}")).await;
        self.reply(&tag).await
    }

    /// Reads up to the reply with this tag.
    pub async fn reply(&mut self, tag: &str) -> Reply {
        let mut untagged = Vec::new();
        loop {
            let response = self.response().await;
            let text = String::from_utf8_lossy(&response);
            match text.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                Some(tagged) => {
                    let tagged = tagged.to_owned();
                    return Reply { untagged, tagged };
                }
                None => untagged.push(response),
            }
        }
    }

    /// LOGIN with quoted strings.
    pub async fn login(&mut self, user: &str, password: &str) -> Reply {
        self.command(&format!("LOGIN {} {}", quoted(user), quoted(password)))
            .await
    }

    /// AUTHENTICATE PLAIN with an initial response.
    pub async fn authenticate_plain(&mut self, user: &str, password: &str) -> SaslReply {
        self.authenticate("PLAIN", &format!("\0{user}\0{password}"), "").await
    }

    /// AUTHENTICATE XOAUTH2; a challenge is answered with an empty line.
    pub async fn authenticate_xoauth2(&mut self, user: &str, token: &str) -> SaslReply {
        let response = format!("user={user}\x01auth=Bearer {token}\x01\x01");
        self.authenticate("XOAUTH2", &response, "").await
    }

    /// AUTHENTICATE OAUTHBEARER; a challenge is answered with `AQ==` (RFC 7628 §3.2.3).
    pub async fn authenticate_oauthbearer(&mut self, user: &str, token: &str) -> SaslReply {
        let response = format!("n,a={user},\x01auth=Bearer {token}\x01\x01");
        self.authenticate("OAUTHBEARER", &response, "AQ==").await
    }

    /// AUTHENTICATE with an initial response, and one line for the challenge of a refusal.
    pub async fn authenticate(&mut self, mechanism: &str, response: &str, answer_to_challenge: &str) -> SaslReply {
        let tag = self.next_tag();
        let response = BASE64.encode(response);
        self.send_line(&format!("{tag} AUTHENTICATE {mechanism} {response}"))
            .await;
        let mut untagged = Vec::new();
        let mut challenge = None;
        loop {
            let line = self.line().await;
            if let Some(encoded) = line.strip_prefix("+ ") {
                let decoded = BASE64.decode(encoded).expect("a challenge is base64");
                challenge = Some(String::from_utf8_lossy(&decoded).into_owned());
                self.send_line(answer_to_challenge).await;
            } else if let Some(tagged) = line.strip_prefix(&format!("{tag} ")) {
                let tagged = tagged.to_owned();
                return SaslReply {
                    challenge,
                    reply: Reply { untagged, tagged },
                };
            } else {
                untagged.push(line.into_bytes());
            }
        }
    }

    /// A whole message of the selected mailbox, by its sequence number, byte for byte.
    pub async fn fetch_body(&mut self, number: usize) -> Vec<u8> {
        let tag = self.next_tag();
        self.send_line(&format!("{tag} FETCH {number} BODY.PEEK[]")).await;
        let mut body = None;
        loop {
            let line = self.line().await;
            if line.starts_with(&format!("{tag} ")) {
                return body.unwrap_or_else(|| panic!("no body\n{}", self.transcript()));
            }
            if let Some(octets) = literal_octets(&line) {
                body = Some(self.octets(octets).await);
            }
        }
    }

    /// APPEND with a synchronising literal.
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> Reply {
        let tag = self.next_tag();
        let octets = message.len();
        self.send_line(&format!("{tag} APPEND {mailbox} {{{octets}}}")).await;
        let go_on = self.line().await;
        assert!(go_on.starts_with('+'), "APPEND refused: {go_on}");
        self.send(message).await;
        self.send_line("").await;
        self.reply(&tag).await
    }

    /// A tag that this connection has not used.
    pub fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("T{}", self.tags)
    }
}

impl Deref for Imap {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for Imap {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// The answer to a command.
#[derive(Debug)]
pub struct Reply {
    /// The untagged responses before it, literals included.
    pub untagged: Vec<Vec<u8>>,
    /// The tagged line, without its tag.
    pub tagged: String,
}

impl Reply {
    /// Whether the command succeeded.
    pub fn is_ok(&self) -> bool {
        self.tagged.starts_with("OK")
    }

    /// The untagged responses as text, one each.
    pub fn untagged_text(&self) -> Vec<String> {
        let text = |response: &Vec<u8>| String::from_utf8_lossy(response).into_owned();
        self.untagged.iter().map(text).collect()
    }
}

/// The answer to AUTHENTICATE.
#[derive(Debug)]
pub struct SaslReply {
    /// The challenge, decoded, if there was one.
    pub challenge: Option<String>,
    /// What came after it.
    pub reply: Reply,
}

/// The size of the literal that a line announces at its end.
fn literal_octets(line: &str) -> Option<usize> {
    let (_, announced) = line.strip_suffix('}')?.rsplit_once('{')?;
    announced.parse().ok()
}

/// A quoted string (RFC 3501 §4.3).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
