//! The PROXY protocol (haproxy's `proxy-protocol.txt`, versions 1 and 2): whom a load balancer speaks for.
//!
//! [`receive`] takes exactly the header's bytes off a connection: it looks at what has arrived, lets [`HeaderReader`] say how
//! much of that is the header's, and reads so much. What follows, a TLS ClientHello in the same segment for example, stays in
//! the socket for whoever comes next. The reader is a pure function of the bytes, however they are cut; `ppp`, which is named
//! here and nowhere else, reads what a complete header says.
//!
//! | header | means |
//! |---|---|
//! | v1 TCP4, TCP6; v2 PROXY of TCP over IPv4, IPv6 | the source address is the client's |
//! | v1 UNKNOWN; v2 LOCAL | a health check: the peer speaks for itself |
//! | v2 PROXY of anything else that the specification knows (unspecified, Unix sockets, datagrams) | the same, its §2.2 being that a receiver falls back to the real endpoints |
//! | anything else, or nothing within [`PROXY_HEADER_TIMEOUT`] | a [`HeaderError`]: the connection must be closed |
//!
//! Type-length-values behind the addresses are skipped, the checksum among them: TCP has its own.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::limits::{PROXY_HEADER_TIMEOUT, PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The peer itself, as without a header.
    Peer,
    /// The client that the peer speaks for; an IPv4-mapped address is already made IPv4.
    Client(SocketAddr),
}

/// Why a connection has no usable header. The text is for the operator's log and speaks of the peer.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// It hung up, or broke off, without a byte, as the simplest health checks do.
    #[error("closed without sending anything")]
    Silent,
    /// It speaks something else.
    #[error("did not begin with a PROXY protocol header")]
    Missing,
    /// The header is longer than any that makes sense.
    #[error("sent a PROXY protocol header of more than {0} bytes")]
    TooLong(usize),
    /// The header is not what the specification describes.
    #[error("sent a malformed PROXY protocol header of version {version}: {problem}")]
    Malformed {
        /// 1 or 2.
        version: u8,
        /// What is wrong with it.
        problem: String,
    },
    /// It hung up within the header.
    #[error("closed within its PROXY protocol header")]
    Cut,
    /// The header did not come in time.
    #[error("sent no complete PROXY protocol header within {}", crate::span::Span(*.0))]
    TimedOut(Duration),
    /// The connection broke.
    #[error("lost the connection before its PROXY protocol header was complete: {0}")]
    Io(#[from] io::Error),
}

/// Takes the header that `tcp` must begin with, and nothing behind it.
///
/// # Errors
/// By kind; [`HeaderError::TimedOut`] after [`PROXY_HEADER_TIMEOUT`]. Bytes may have been taken, so that the connection is good
/// for nothing but to be closed.
pub async fn receive(tcp: &mut TcpStream) -> Result<Source, HeaderError> {
    match tokio::time::timeout(PROXY_HEADER_TIMEOUT, take_header(tcp)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(HeaderError::TimedOut(PROXY_HEADER_TIMEOUT)),
    }
}

async fn take_header(tcp: &mut TcpStream) -> Result<Source, HeaderError> {
    let mut reader = HeaderReader::default();
    let mut seen = [0; PEEK_BYTES];
    loop {
        let count = match tcp.peek(&mut seen).await {
            // How most balancers end a check that only connects: without the lingering of a proper close.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && reader.bytes.is_empty() => 0,
            looked => looked?,
        };
        let arrived = seen.get_mut(..count).unwrap_or_default();
        if arrived.is_empty() {
            return Err(reader.on_end());
        }
        let (taken, source) = match reader.push(arrived)? {
            Progress::Partial => (count, None),
            Progress::Complete { taken, source } => (taken, Some(source)),
        };
        // Everything looked at is taken unless it ends the header, so that the next look waits for more. These bytes have
        // arrived: this does not wait.
        tcp.read_exact(arrived.get_mut(..taken).unwrap_or_default()).await?;
        if let Some(source) = source {
            return Ok(source);
        }
    }
}

/// Collects one header.
#[derive(Debug, Default)]
pub struct HeaderReader {
    bytes: Vec<u8>,
}

/// How far a [`HeaderReader`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All of the bytes were the header's, and more are wanted.
    Partial,
    /// The header is complete.
    Complete {
        /// How many of the bytes last given were its own.
        taken: usize,
        /// What it says.
        source: Source,
    },
}

/// The two forms of a header, by their first bytes.
enum Form {
    Open,
    V1,
    V2,
}

impl HeaderReader {
    /// Hears the next bytes of the stream. Not to be called again once it has answered anything but [`Progress::Partial`].
    ///
    /// # Errors
    /// As soon as the bytes can be no header any more.
    pub fn push(&mut self, arrived: &[u8]) -> Result<Progress, HeaderError> {
        for (taken, byte) in (1..).zip(arrived) {
            self.bytes.push(*byte);
            if let Some(source) = self.read()? {
                return Ok(Progress::Complete { taken, source });
            }
        }
        Ok(Progress::Partial)
    }

    /// What it means that the stream has ended here.
    fn on_end(&self) -> HeaderError {
        if self.bytes.is_empty() {
            HeaderError::Silent
        } else {
            HeaderError::Cut
        }
    }

    /// The header, if the last byte has completed it.
    fn read(&self) -> Result<Option<Source>, HeaderError> {
        match self.form()? {
            Form::Open => Ok(None),
            Form::V1 if self.bytes.last() == Some(&b'\n') => read_v1(&self.bytes).map(Some),
            Form::V1 if self.bytes.len() < PROXY_V1_BYTES_MAX => Ok(None),
            Form::V1 => Err(HeaderError::TooLong(PROXY_V1_BYTES_MAX)),
            Form::V2 => {
                let Some((fixed, block)) = self.bytes.split_first_chunk::<V2_FIXED_BYTES>() else {
                    return Ok(None);
                };
                let &[.., high, low] = fixed;
                let length = usize::from(u16::from_be_bytes([high, low]));
                if V2_FIXED_BYTES + length > PROXY_V2_BYTES_MAX {
                    return Err(HeaderError::TooLong(PROXY_V2_BYTES_MAX));
                }
                if block.len() < length {
                    return Ok(None);
                }
                read_v2(&self.bytes, fixed).map(Some)
            }
        }
    }

    fn form(&self) -> Result<Form, HeaderError> {
        let bytes = self.bytes.as_slice();
        if bytes.starts_with(V1_BEGINNING) {
            Ok(Form::V1)
        } else if bytes.starts_with(V2_SIGNATURE) {
            Ok(Form::V2)
        } else if V1_BEGINNING.starts_with(bytes) || V2_SIGNATURE.starts_with(bytes) {
            Ok(Form::Open)
        } else {
            Err(HeaderError::Missing)
        }
    }
}

/// Reads a line that ends in LF.
fn read_v1(line: &[u8]) -> Result<Source, HeaderError> {
    // "The receiver must ignore anything presented before the CRLF" (§2.1); `ppp` has room for four words.
    if line.starts_with(V1_UNKNOWN) && line.ends_with(b"\r\n") {
        return Ok(Source::Peer);
    }
    let header = v1::Header::try_from(line).map_err(|error| malformed(1, &error))?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => Source::Peer,
        v1::Addresses::Tcp4(tcp) => client((tcp.source_address, tcp.source_port)),
        v1::Addresses::Tcp6(tcp) => client((tcp.source_address, tcp.source_port)),
    })
}

/// Reads a complete binary header; `fixed` is its beginning.
fn read_v2(header: &[u8], fixed: &[u8; V2_FIXED_BYTES]) -> Result<Source, HeaderError> {
    // "Discard the protocol block including the family which is ignored" (§2.2); `ppp` wants a family that it knows.
    if let [.., V2_LOCAL, _, _, _] = fixed {
        return Ok(Source::Peer);
    }
    let header = v2::Header::try_from(header).map_err(|error| malformed(2, &error))?;
    Ok(match (header.protocol, header.addresses) {
        (v2::Protocol::Stream, v2::Addresses::IPv4(tcp)) => client((tcp.source_address, tcp.source_port)),
        (v2::Protocol::Stream, v2::Addresses::IPv6(tcp)) => client((tcp.source_address, tcp.source_port)),
        _ => Source::Peer,
    })
}

fn client(address: impl Into<SocketAddr>) -> Source {
    let address = address.into();
    Source::Client(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

fn malformed(version: u8, problem: &impl ToString) -> HeaderError {
    HeaderError::Malformed {
        version,
        problem: problem.to_string(),
    }
}

/// What a header of version 2 begins with (§2.2).
pub const V2_SIGNATURE: &[u8] = v2::PROTOCOL_PREFIX;

/// What a header of version 1 begins with.
const V1_BEGINNING: &[u8] = b"PROXY ";

/// What a header of version 1 begins with that tells nothing.
const V1_UNKNOWN: &[u8] = b"PROXY UNKNOWN ";

/// Bytes of a header of version 2 before the block whose length they tell (§2.2).
const V2_FIXED_BYTES: usize = 16;

/// Version 2, command LOCAL (§2.2).
const V2_LOCAL: u8 = 0x20;

/// Bytes looked at in one go: what the specification designs headers to fit in (§2).
const PEEK_BYTES: usize = 536;

#[cfg(test)]
mod tests;
