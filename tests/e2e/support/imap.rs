//! A small IMAP client that hides nothing: lines as they were sent, literals byte for byte, and the
//! whole conversation in the message when a test fails.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::PATIENCE;
use super::certs::Authority;
use super::process::tail;

/// One connection, in clear or over TLS.
pub struct Imap {
    stream: Box<dyn Stream>,
    /// Received, but not yet taken.
    buffer: Vec<u8>,
    greeting: String,
    tags: u32,
    transcript: String,
}

impl Imap {
    /// Connects in clear and reads the greeting.
    pub async fn connect(address: SocketAddr) -> Imap {
        Imap::over(Box::new(dial(address, None).await)).await
    }

    /// As [`Imap::connect`], from a given local address such as 127.0.0.9.
    pub async fn connect_from(local: SocketAddr, address: SocketAddr) -> Imap {
        Imap::over(Box::new(dial(address, Some(local)).await)).await
    }

    /// Connects with implicit TLS, trusting `authority`, and reads the greeting.
    pub async fn connect_tls(address: SocketAddr, authority: &Authority) -> Imap {
        let stream = secure(Box::new(dial(address, None).await), authority).await;
        Imap::over(stream).await
    }

    /// Connects, in clear or trusting `authority`, and leaves the greeting to be read as a line.
    pub async fn connect_unread(local: Option<SocketAddr>, address: SocketAddr, authority: Option<&Authority>) -> Imap {
        let stream = dial(address, local).await;
        stream.set_nodelay(true).expect("a connected socket takes it");
        match authority {
            Some(authority) => Imap::on(secure(Box::new(stream), authority).await),
            None => Imap::on(Box::new(stream)),
        }
    }

    /// The other side of an accepted connection: a test that plays a server.
    pub fn accepted(stream: TcpStream) -> Imap {
        Imap::on(Box::new(stream))
    }

    /// Goes on inside TLS, as the server, with what `authority` issues.
    pub async fn secured_as_server(self, authority: &Authority) -> Imap {
        assert_eq!(self.buffer, b"", "plaintext before the handshake");
        let handshake = authority.acceptor().accept(self.stream);
        match tokio::time::timeout(PATIENCE, handshake).await {
            Ok(Ok(stream)) => Imap::on(Box::new(stream)),
            Ok(Err(error)) => panic!("TLS handshake: {error}"),
            Err(_) => panic!("no TLS handshake in time"),
        }
    }

    async fn over(stream: Box<dyn Stream>) -> Imap {
        let mut imap = Imap::on(stream);
        imap.greeting = imap.line().await;
        imap
    }

    /// Leaves the greeting to be read as a line.
    pub fn on(stream: Box<dyn Stream>) -> Imap {
        Imap {
            stream,
            buffer: Vec::new(),
            greeting: String::new(),
            tags: 0,
            transcript: String::new(),
        }
    }

    /// Sends STARTTLS and goes on inside TLS.
    pub async fn starttls(mut self, authority: &Authority) -> Imap {
        let reply = self.command("STARTTLS").await;
        assert!(reply.is_ok(), "STARTTLS refused\n{}", tail(&self.transcript));
        assert!(self.buffer.is_empty(), "plaintext after the reply to STARTTLS");
        self.stream = secure(self.stream, authority).await;
        self
    }

    /// The greeting's line.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// What was said so far, `C:` and `S:`, for the message of an assertion.
    pub fn transcript(&self) -> String {
        tail(&self.transcript)
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.note("C", bytes);
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("cannot send: {error}\n{}", tail(&self.transcript)),
            Err(_) => panic!("cannot send in time\n{}", tail(&self.transcript)),
        }
    }

    /// Sends `piece` again and again, as far as the other side takes it, up to `octets` in all; meanwhile reads to the end of
    /// the stream and returns its lines.
    pub async fn flood(self, piece: &[u8], octets: usize) -> Vec<String> {
        let (mut receiving, mut sending) = tokio::io::split(self.stream);
        let mut heard = self.buffer;
        let flood = async {
            // An error means that the other side has had enough.
            for _ in 0..octets / piece.len() {
                if sending.write_all(piece).await.is_err() {
                    return;
                }
            }
            sending.shutdown().await.ok();
        };
        // A reset is an end too: the other side need not read a flood to its end.
        let hearing = async { receiving.read_to_end(&mut heard).await.ok() };
        let both = async { tokio::join!(flood, hearing) };
        if tokio::time::timeout(PATIENCE, both).await.is_err() {
            panic!("a flood without an end\n{}", tail(&self.transcript));
        }
        let heard = String::from_utf8_lossy(&heard);
        heard.split_terminator("\r\n").map(str::to_owned).collect()
    }

    /// Sends a line; the CRLF is added.
    pub async fn send_line(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes()).await;
    }

    /// Ends this side's half of the connection; the other's goes on.
    pub async fn send_end(&mut self) {
        self.note("C", b"<end>");
        // An error means that the other side is gone already, and is seen when it is read.
        let _ = self.stream.shutdown().await;
    }

    /// The next line without its CRLF. Panics at the end of the stream.
    pub async fn line(&mut self) -> String {
        match self.line_or_end().await {
            Some(line) => line,
            None => panic!("closed instead of a line\n{}", tail(&self.transcript)),
        }
    }

    /// The next line without its CRLF, or `None` at the end of the stream.
    pub async fn line_or_end(&mut self) -> Option<String> {
        let mut searched = 0;
        loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) = fresh.windows(2).position(|pair| pair == b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..searched + end + 2).collect();
                self.note("S", &line);
                line.truncate(line.len() - 2);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
            searched = self.buffer.len().saturating_sub(1);
            if !self.receive().await {
                return None;
            }
        }
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

    /// Exactly this many bytes.
    pub async fn octets(&mut self, octets: usize) -> Vec<u8> {
        while self.buffer.len() < octets {
            let more = self.receive().await;
            assert!(more, "closed within a literal\n{}", tail(&self.transcript));
        }
        self.buffer.drain(..octets).collect()
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
                return body.unwrap_or_else(|| panic!("no body\n{}", tail(&self.transcript)));
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

    /// Waits for the end of the stream; panics if anything but that comes.
    pub async fn expect_end(&mut self) {
        if let Some(line) = self.line_or_end().await {
            panic!("{line:?} instead of the end\n{}", tail(&self.transcript));
        }
        assert_eq!(self.buffer, b"", "an unfinished line at the end");
    }

    /// A tag that this connection has not used.
    pub fn next_tag(&mut self) -> String {
        self.tags += 1;
        format!("T{}", self.tags)
    }

    /// Reads what there is. False at the end of the stream; a reset is one too.
    async fn receive(&mut self) -> bool {
        self.buffer.reserve(READ_OCTETS);
        match tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(octets)) => octets > 0,
            Ok(Err(_)) => false,
            Err(_) => panic!("nothing comes\n{}", tail(&self.transcript)),
        }
    }

    fn note(&mut self, who: &str, bytes: &[u8]) {
        let shown = bytes.get(..NOTED_OCTETS).unwrap_or(bytes);
        let text = String::from_utf8_lossy(shown);
        for line in text.trim_end().split("\r\n") {
            self.transcript.push_str(&format!("{who}: {line}\n"));
        }
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

/// A stream of either kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn dial(address: SocketAddr, local: Option<SocketAddr>) -> TcpStream {
    let connected = async {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(local) = local {
            socket.bind(local)?;
        }
        socket.connect(address).await
    };
    match tokio::time::timeout(PATIENCE, connected).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => panic!("cannot connect to {address}: {error}"),
        Err(_) => panic!("cannot connect to {address} in time"),
    }
}

/// Begins TLS as a client that trusts `authority`.
pub async fn secure(stream: Box<dyn Stream>, authority: &Authority) -> Box<dyn Stream> {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(authority.client_config()).connect(name, stream);
    match tokio::time::timeout(PATIENCE, handshake).await {
        Ok(Ok(stream)) => Box::new(stream),
        Ok(Err(error)) => panic!("TLS handshake: {error}"),
        Err(_) => panic!("no TLS handshake in time"),
    }
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

const READ_OCTETS: usize = 64 * 1024;
/// How much of what is sent or received at once the transcript keeps.
const NOTED_OCTETS: usize = 400;
