//! One end of a session as bytes: plain TCP, or TLS over it.
//!
//! A [`Stream`] is small (TLS state is boxed), so that it can be moved through futures without being copied into each of
//! them. `poll_shutdown` half-closes: with TLS a `close_notify` goes first, then the FIN; reading goes on.
//!
//! An end of file without `close_notify` is reported as a plain end of file, since mail programs and upstreams alike close
//! that way. What truncation could do is bounded by the protocols, whose messages tell where they end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::tls::{chain, words};
use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};

/// An established connection with a client or an upstream.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Plain(TcpStream),
    /// The proxy is TLS's server: a client's leg.
    Accepted(Box<server::TlsStream<TcpStream>>),
    /// The proxy is TLS's client: an upstream's leg.
    Connected(Box<client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the bytes are protected by TLS.
    pub fn is_tls(&self) -> bool {
        !matches!(self.0, Kind::Plain(_))
    }

    /// TLS version, cipher suite and whether the session was resumed, for logs; `None` in clear.
    pub fn tls_summary(&self) -> Option<String> {
        let (version, suite, kind) = match &self.0 {
            Kind::Plain(_) => return None,
            Kind::Accepted(tls) => {
                let session = tls.get_ref().1;
                (
                    session.protocol_version(),
                    session.negotiated_cipher_suite(),
                    session.handshake_kind(),
                )
            }
            Kind::Connected(tls) => {
                let session = tls.get_ref().1;
                (
                    session.protocol_version(),
                    session.negotiated_cipher_suite(),
                    session.handshake_kind(),
                )
            }
        };
        let resumed = match kind {
            Some(rustls::HandshakeKind::Resumed) => " resumed",
            _ => "",
        };
        Some(format!("{}{resumed}", words::of_session(version?, suite?)))
    }

    /// The certificates that the upstream showed, in words; `None` in clear and on a client's leg, which shows none.
    pub fn chain_summary(&self) -> Option<String> {
        match &self.0 {
            Kind::Plain(_) | Kind::Accepted(_) => None,
            Kind::Connected(tls) => tls.get_ref().1.peer_certificates().map(chain::summary),
        }
    }

    /// The peer's address.
    ///
    /// # Errors
    /// The system's, if the connection is already gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// The plain connection, so that TLS can be begun on it (STARTTLS); `None` if it is TLS already.
    pub fn into_tcp(self) -> Option<TcpStream> {
        match self.0 {
            Kind::Plain(tcp) => Some(tcp),
            Kind::Accepted(_) | Kind::Connected(_) => None,
        }
    }

    /// Writes `words`, half-closes, then reads and discards until the peer closes too: closing with bytes unread would make
    /// the kernel send a reset, which can overtake the words. Gives up quietly after `within`.
    pub async fn part(mut self, words: &[u8], within: Duration) {
        let parting = async {
            self.write_all(words).await?;
            self.flush().await?;
            self.shutdown().await?;
            let mut discarded = [0; 1024];
            while self.read(&mut discarded).await? > 0 {}
            io::Result::Ok(())
        };
        if let Ok(Err(error)) = tokio::time::timeout(within, parting).await {
            tracing::debug!(%error, "the peer left before the last words");
        }
    }

    fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(tcp) => tcp,
            Kind::Accepted(tls) => tls.get_ref().0,
            Kind::Connected(tls) => tls.get_ref().0,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self(Kind::Plain(tcp))
    }
}

impl From<server::TlsStream<TcpStream>> for Stream {
    fn from(tls: server::TlsStream<TcpStream>) -> Self {
        Self(Kind::Accepted(Box::new(tls)))
    }
}

impl From<client::TlsStream<TcpStream>> for Stream {
    fn from(tls: client::TlsStream<TcpStream>) -> Self {
        Self(Kind::Connected(Box::new(tls)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let outcome = match &mut self.0 {
            Kind::Plain(tcp) => return Pin::new(tcp).poll_read(cx, buf),
            Kind::Accepted(tls) => ready!(Pin::new(tls.as_mut()).poll_read(cx, buf)),
            Kind::Connected(tls) => ready!(Pin::new(tls.as_mut()).poll_read(cx, buf)),
        };
        Poll::Ready(match outcome {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::debug!("the peer closed without close_notify");
                Ok(())
            }
            outcome => outcome,
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Kind::Accepted(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Kind::Connected(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Kind::Accepted(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Kind::Connected(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = match &mut self.0 {
            Kind::Plain(tcp) => ready!(Pin::new(tcp).poll_shutdown(cx)),
            Kind::Accepted(tls) => ready!(Pin::new(tls.as_mut()).poll_shutdown(cx)),
            Kind::Connected(tls) => ready!(Pin::new(tls.as_mut()).poll_shutdown(cx)),
        };
        Poll::Ready(match outcome {
            // A peer that has reset or closed already needs no FIN.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            outcome => outcome,
        })
    }
}

/// Sets what every mail connection wants: no delay for small writes (a command waits for its answer), and keepalive, since
/// an idle session may be silent for half an hour.
///
/// # Errors
/// The system's, if the connection is already gone.
pub(super) fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::test_support::{Wire, pair};

    #[tokio::test]
    async fn half_closing_leaves_the_other_direction_open() {
        for wire in [Wire::Plain, Wire::Tls] {
            let (mut near, mut far) = pair(wire).await;
            near.write_all(b"question").await.unwrap();
            near.shutdown().await.unwrap();
            let mut heard = Vec::new();
            far.read_to_end(&mut heard).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            far.shutdown().await.unwrap();
            let mut answer = Vec::new();
            near.read_to_end(&mut answer).await.unwrap();
            assert_eq!(
                (heard.as_slice(), answer.as_slice()),
                (&b"question"[..], &b"answer"[..])
            );
        }
    }

    #[tokio::test]
    async fn a_peer_that_closes_without_close_notify_has_simply_ended() {
        let (mut near, far) = pair(Wire::Tls).await;
        drop(far);
        assert_eq!(near.read(&mut [0; 16]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn last_words_arrive_though_the_peers_own_bytes_were_never_read() {
        for wire in [Wire::Plain, Wire::Tls] {
            let (near, mut far) = pair(wire).await;
            far.write_all(&[b'x'; 9000]).await.unwrap();
            far.flush().await.unwrap();
            let hearing = async {
                let mut heard = Vec::new();
                far.read_to_end(&mut heard).await.unwrap();
                drop(far);
                heard
            };
            let (heard, ()) = tokio::join!(hearing, near.part(b"* BYE\r\n", Duration::from_secs(10)));
            assert_eq!(heard, b"* BYE\r\n");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parting_from_a_peer_that_stays_is_bounded() {
        let (near, far) = pair(Wire::Plain).await;
        near.part(b"* BYE\r\n", Duration::from_secs(1)).await;
        drop(far);
    }

    #[tokio::test]
    async fn a_tls_stream_tells_its_version_and_a_plain_one_can_be_taken_back() {
        let (near, far) = pair(Wire::Tls).await;
        assert!(far.is_tls() && near.tls_summary().unwrap().contains("TLS 1.3 TLS_"));
        assert!(near.into_tcp().is_none());
        let (near, far) = pair(Wire::Plain).await;
        assert!(!far.is_tls() && near.tls_summary().is_none());
        assert!(near.into_tcp().is_some());
    }
}
