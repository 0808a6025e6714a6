//! One connection and its lines, whatever protocol they speak: as they were sent, and all of them in
//! the message when a test fails. Either side of a conversation may be played on it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::PATIENCE;
use super::certs::Authority;
use super::process::tail;

/// A connection in clear or over TLS.
pub struct Wire {
    stream: Box<dyn Stream>,
    /// Received, but not yet taken.
    buffer: Vec<u8>,
    transcript: String,
}

impl Wire {
    /// Connects in clear.
    pub async fn connect(address: SocketAddr) -> Wire {
        Wire::dial(None, address, None).await
    }

    /// Connects, from a given local address such as 127.0.0.9 and over TLS trusting `authority` where these are given.
    pub async fn dial(local: Option<SocketAddr>, address: SocketAddr, authority: Option<&Authority>) -> Wire {
        let stream = dial(address, local).await;
        stream.set_nodelay(true).expect("a connected socket takes it");
        let wire = Wire::on(stream);
        match authority {
            Some(authority) => wire.secured(authority.client_config()).await,
            None => wire,
        }
    }

    /// The other side of an accepted connection: a test that plays an upstream.
    pub fn accepted(stream: TcpStream) -> Wire {
        Wire::on(stream)
    }

    /// A connection that somebody else has made.
    pub fn on(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Wire {
        Wire {
            stream: Box::new(stream),
            buffer: Vec::new(),
            transcript: String::new(),
        }
    }

    /// Goes on inside TLS, as a client that trusts what `client` says; what was said stays in the transcript.
    pub async fn secured(mut self, client: Arc<ClientConfig>) -> Wire {
        assert_eq!(self.buffer, b"", "plaintext before the handshake");
        let transcript = std::mem::take(&mut self.transcript);
        match self.try_secured(client).await {
            Ok(wire) => Wire { transcript, ..wire },
            Err(error) => panic!("TLS handshake: {error}\n{}", tail(&transcript)),
        }
    }

    /// The same where it may not come to that; whatever came in clear before is taken for the other side's TLS.
    ///
    /// # Errors
    ///
    /// Those of the handshake.
    pub async fn try_secured(self, client: Arc<ClientConfig>) -> io::Result<Wire> {
        let name = ServerName::try_from("localhost").expect("a valid name");
        let handshake = TlsConnector::from(client).connect(name, self.stream);
        let stream = tokio::time::timeout(PATIENCE, handshake).await;
        stream.expect("the other side shakes hands or not").map(Wire::on)
    }

    /// Goes on inside TLS, calling for `name`, and says which certificate it is shown.
    pub async fn certificate_shown_to(self, name: &str, client: Arc<ClientConfig>) -> CertificateDer<'static> {
        assert_eq!(self.buffer, b"", "plaintext before the handshake");
        let name = ServerName::try_from(name.to_owned()).expect("a valid name");
        let handshake = TlsConnector::from(client).connect(name, self.stream);
        let stream = tokio::time::timeout(PATIENCE, handshake).await;
        let stream = stream
            .expect("the other side shakes hands")
            .expect("its certificate is good");
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        shown.expect("a certificate was shown").clone()
    }

    /// Goes on inside TLS, as the upstream, with what `authority` issues.
    pub async fn secured_as_upstream(mut self, authority: &Authority) -> Wire {
        let transcript = std::mem::take(&mut self.transcript);
        match self.try_secured_as_upstream(&authority.acceptor()).await {
            Ok(wire) => Wire { transcript, ..wire },
            Err(error) => panic!("TLS handshake: {error}\n{}", tail(&transcript)),
        }
    }

    /// The same with any certificate.
    ///
    /// # Errors
    ///
    /// Those of the handshake: the other side does not want the certificate.
    pub async fn try_secured_as_upstream(self, acceptor: &TlsAcceptor) -> io::Result<Wire> {
        assert_eq!(self.buffer, b"", "plaintext before the handshake");
        let stream = tokio::time::timeout(PATIENCE, acceptor.accept(self.stream)).await;
        stream.expect("the other side shakes hands or not").map(Wire::on)
    }

    /// What was said so far, `C:` (sent) and `S:` (received), for the message of an assertion.
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

    /// The next line without its CRLF. Panics at the end of the stream.
    pub async fn line(&mut self) -> String {
        String::from_utf8_lossy(&self.line_octets().await).into_owned()
    }

    /// The next line without its CRLF, byte for byte. Panics at the end of the stream.
    pub async fn line_octets(&mut self) -> Vec<u8> {
        match self.line_octets_or_end().await {
            Some(line) => line,
            None => panic!("closed instead of a line\n{}", tail(&self.transcript)),
        }
    }

    /// The next line without its CRLF, or `None` at the end of the stream.
    pub async fn line_or_end(&mut self) -> Option<String> {
        let line = self.line_octets_or_end().await?;
        Some(String::from_utf8_lossy(&line).into_owned())
    }

    async fn line_octets_or_end(&mut self) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            let fresh = self.buffer.get(searched..).unwrap_or_default();
            if let Some(end) = fresh.windows(2).position(|pair| pair == b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..searched + end + 2).collect();
                self.note("S", &line);
                line.truncate(line.len() - 2);
                return Some(line);
            }
            searched = self.buffer.len().saturating_sub(1);
            if !self.receive().await {
                return None;
            }
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

    /// All that still comes before the end of the stream, TLS records too.
    pub async fn rest(mut self) -> Vec<u8> {
        while self.receive().await {}
        self.buffer
    }

    /// Waits for the end of the stream; panics if anything but that comes.
    pub async fn expect_end(&mut self) {
        if let Some(line) = self.line_or_end().await {
            panic!("{line:?} instead of the end\n{}", tail(&self.transcript));
        }
        assert_eq!(self.buffer, b"", "an unfinished line at the end");
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

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
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

const READ_OCTETS: usize = 64 * 1024;
/// How much of what is sent or received at once the transcript keeps.
const NOTED_OCTETS: usize = 400;
