//! The first bytes of a client that speaks the wrong thing to a port: what its administrator should hear of it.
//!
//! TLS to a port that begins in clear, clear text to a port that begins with TLS, a PROXY header from somebody who is not
//! trusted with one: each looks like a broken program from the client's side, and like noise from here. What it probably is
//! becomes one line in the log, now and then ([`Complaints`]), and the connection is closed, since nothing can come of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::Services;
use crate::account::SessionId;
use crate::limits::CLOSE_DRAIN;
use crate::metrics::names;
use crate::net::complaints::Complaints;
use crate::net::first_bytes::{FIRST_BYTES, FirstBytes, is_tls_record};
use crate::net::proxy_protocol::HeaderError;
use crate::net::stream::Stream;
use crate::net::tls::{ClientProblem, ServerTls, TlsError};
use crate::proto::Protocol;

/// A client whose first bytes are still to come.
pub(super) struct Opening {
    pub(super) services: Arc<Services>,
    pub(super) protocol: Protocol,
    pub(super) session: SessionId,
    pub(super) remote: SocketAddr,
    /// The load balancer that speaks for the client.
    pub(super) balancer: Option<SocketAddr>,
    /// What has come in clear, up to [`FIRST_BYTES`].
    pub(super) seen: Vec<u8>,
}

/// What a client's first bytes in clear are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Too few to tell: they may be heard, and the next ones have to be judged too.
    Undecided,
    /// A mail protocol's, for all that can be said here.
    InPlace,
    /// No mail protocol's; what they seem to be has been logged.
    OutOfPlace,
}

/// What was said of misunderstandings lately, each kind on its own.
#[derive(Debug, Default)]
pub(super) struct Hints {
    said: Mutex<HashMap<Misunderstanding, Complaints>>,
}

/// The ways in which a port is misunderstood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Misunderstanding {
    /// TLS to a port that begins in clear.
    TlsToClear,
    /// Clear text to a port that begins with TLS.
    ClearToTls,
    /// Nothing at all to a port that begins with TLS.
    SilentToTls,
    /// A PROXY header from somebody who is not trusted with one.
    ProxyHeader,
    /// No usable PROXY header from somebody who must send one.
    Unannounced,
    /// TLS that the client cannot or does not want to speak with us.
    Tls(ClientProblem),
}

impl Opening {
    /// Begins TLS from the first byte. `None`: there is none, and why has been logged.
    pub(super) async fn accept_tls(&self, tls: &ServerTls, mut tcp: TcpStream, within: Duration) -> Option<Stream> {
        let (session, remote) = (self.session, self.remote);
        let begun = Instant::now();
        let mut first = [0];
        match timeout(within, tcp.peek(&mut first)).await {
            // It has left, which the handshake would find no better words for.
            Ok(Ok(0) | Err(_)) => {
                debug!(%session, %remote, "the client left before TLS");
                return None;
            }
            // One byte may come alone, and the rest of the record behind it.
            Ok(Ok(_)) if is_tls_record(&first) => {}
            Ok(Ok(_)) => {
                // Whatever it is, there will be no TLS: its bytes can be taken, for as long as they do not say what it is.
                let reading = read_beginning(&mut tcp);
                let beginning = timeout(within.saturating_sub(begun.elapsed()), reading).await;
                self.on_no_tls(beginning.unwrap_or(FirstBytes::Undecided));
                Stream::from(tcp).part(b"", CLOSE_DRAIN).await;
                return None;
            }
            Err(_) => {
                if let Some(unsaid) = self.may_say(Misunderstanding::SilentToTls) {
                    let protocol = self.protocol;
                    info!(
                        %session, %remote, %protocol, unsaid,
                        "a client sent nothing to a port that begins with TLS: it may be waiting for a greeting in clear; \
                         choose SSL/TLS in its settings, or another port"
                    );
                }
                return None;
            }
        }
        match tls.accept(tcp, within.saturating_sub(begun.elapsed())).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                self.services.hints.on_no_tls(self.protocol, session, remote, &error);
                None
            }
        }
    }

    /// Judges what begins in clear by the bytes that have come next, until it has said anything but
    /// [`Beginning::Undecided`].
    pub(super) fn on_clear_bytes(&mut self, arrived: &[u8]) -> Beginning {
        let room = FIRST_BYTES.saturating_sub(self.seen.len());
        self.seen.extend(arrived.iter().take(room));
        match FirstBytes::of(&self.seen) {
            FirstBytes::Undecided => return Beginning::Undecided,
            FirstBytes::Other => return Beginning::InPlace,
            FirstBytes::ProxyHeader => self.on_proxy_header(),
            FirstBytes::Tls => {
                if let Some(unsaid) = self.may_say(Misunderstanding::TlsToClear) {
                    let (session, remote, protocol) = (self.session, self.remote, self.protocol);
                    info!(
                        %session, %remote, %protocol, unsaid,
                        "a client began TLS on a port without it: let it use the port of a listener with tls = \"implicit\", \
                         or choose STARTTLS, or no encryption, in its settings, as this listener has it"
                    );
                }
            }
        }
        Beginning::OutOfPlace
    }

    /// A client of a port that begins with TLS began with something else.
    fn on_no_tls(&self, beginning: FirstBytes) {
        match beginning {
            FirstBytes::ProxyHeader => self.on_proxy_header(),
            FirstBytes::Tls | FirstBytes::Other | FirstBytes::Undecided => {
                if let Some(unsaid) = self.may_say(Misunderstanding::ClearToTls) {
                    let (session, remote, protocol) = (self.session, self.remote, self.protocol);
                    info!(
                        %session, %remote, %protocol, unsaid,
                        "a client spoke in clear to a port that begins with TLS: choose SSL/TLS in its settings, or the port \
                         of a listener with tls = \"off\" or \"starttls\""
                    );
                }
            }
        }
    }

    /// An address in such a header is not believed, and what comes behind it is meant for somebody who would.
    fn on_proxy_header(&self) {
        names::connections_refused(self.protocol, PROXY_PROTOCOL).increment(1);
        let Some(unsaid) = self.may_say(Misunderstanding::ProxyHeader) else {
            return;
        };
        let (session, remote, protocol) = (self.session, self.remote, self.protocol);
        match self.balancer {
            None => info!(
                %session, %remote, %protocol, unsaid,
                "refused a PROXY protocol header: the listener's proxy_protocol_from does not name this address; add it if it \
                 is your load balancer's"
            ),
            Some(balancer) => info!(
                %session, %remote, %balancer, %protocol, unsaid,
                "refused a second PROXY protocol header: the client sent one of its own behind the load balancer's"
            ),
        }
    }

    fn may_say(&self, what: Misunderstanding) -> Option<u64> {
        self.services.hints.may_say(what)
    }
}

impl Hints {
    /// A load balancer did not say whom it speaks for, so that its connection was closed.
    pub(super) fn on_unannounced(&self, protocol: Protocol, peer: SocketAddr, error: &HeaderError) {
        if let HeaderError::Silent = error {
            // A health check that only connects. It was refused nothing.
            return debug!(%peer, %protocol, "a load balancer connected and {error}");
        }
        names::connections_refused(protocol, PROXY_PROTOCOL).increment(1);
        if let Some(unsaid) = self.may_say(Misunderstanding::Unannounced) {
            warn!(
                %peer, %protocol, unsaid,
                "a connection from an address in the listener's proxy_protocol_from {error}; it has been closed"
            );
        }
    }

    /// A client began TLS, and there is none.
    pub(super) fn on_no_tls(&self, protocol: Protocol, session: SessionId, remote: SocketAddr, error: &TlsError) {
        let problem = error.client_problem();
        names::connections_refused(protocol, problem.label()).increment(1);
        let hint = problem.hint().and_then(|hint| {
            let unsaid = self.may_say(Misunderstanding::Tls(problem))?;
            Some((hint, unsaid))
        });
        match hint {
            Some((hint, unsaid)) => info!(%session, %remote, %protocol, %error, unsaid, "{hint}"),
            None => debug!(%session, %remote, %error, "no TLS with the client"),
        }
    }

    /// Whether this may be spoken of now, and how often it was not.
    fn may_say(&self, what: Misunderstanding) -> Option<u64> {
        // Each complaint is whole after every operation, so a panic elsewhere while it was held does no harm here.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.entry(what).or_default().may_say(Instant::now())
    }
}

/// Takes bytes until they say what they are, or no more come.
async fn read_beginning(tcp: &mut TcpStream) -> FirstBytes {
    let mut first = [0; FIRST_BYTES];
    let mut taken = 0;
    loop {
        let beginning = FirstBytes::of(first.get(..taken).unwrap_or_default());
        if beginning != FirstBytes::Undecided {
            return beginning;
        }
        match tcp.read(first.get_mut(taken..).unwrap_or_default()).await {
            Ok(0) | Err(_) => return beginning,
            Ok(count) => taken += count,
        }
    }
}

/// The reason, as a metric's label, of a connection that is refused for its PROXY header or the lack of one.
const PROXY_PROTOCOL: &str = "proxy_protocol";
