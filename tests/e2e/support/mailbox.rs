//! An upstream in clear that lets everybody in and says OK to every command: for tests about what stands before it.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The upstream; it ends with this value.
pub struct Mailbox {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Mailbox {
    /// Serves on a free port of 127.0.0.1.
    pub async fn serve() -> Mailbox {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let accepting = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection can be accepted");
                // One whose proxy is gone has nobody left to answer.
                tokio::spawn(async move { converse(stream).await.ok() });
            }
        });
        Mailbox { address, accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn converse(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(GREETING).await?;
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).await? > 0 {
        let tag = line.split(|byte| b" \r\n".contains(byte)).next().unwrap_or_default();
        let answer = [tag, b" OK done\r\n"].concat();
        line.clear();
        stream.write_all(&answer).await?;
    }
    Ok(())
}

const GREETING: &[u8] = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n";
