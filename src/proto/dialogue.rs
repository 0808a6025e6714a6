//! What a protocol must know how to do, for the session machine to run on it.
//!
//! [`UpstreamDialogue`] logs in on the upstream leg; [`Boundaries`] watches a relayed stream only as far as a goodbye needs it.

use std::fmt;

use bytes::Bytes;

use super::session::UpstreamReady;
use crate::fault::Fault;

/// What a mail program says it is (IMAP `ID`, RFC 2971), to be passed on to the upstream. Free of CR, LF and NUL, and within
/// [`crate::limits::ID_PAIRS_MAX`], [`crate::limits::ID_FIELD_BYTES_MAX`] and [`crate::limits::ID_VALUE_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdentity {
    /// Field and value, in the order given; `None` is `NIL`.
    pub pairs: Vec<(String, Option<String>)>,
}

/// The upstream leg of one login attempt: feed what arrives, then take steps until there is none.
pub trait UpstreamDialogue: Send {
    /// The upstream sent bytes.
    fn handle_bytes(&mut self, bytes: &[u8]);
    /// The upstream will send no more.
    fn handle_eof(&mut self);
    /// The TLS handshake that [`UpstreamStep::Secure`] asked for succeeded.
    fn handle_secured(&mut self);
    /// The next thing to do.
    fn poll_step(&mut self) -> Option<UpstreamStep>;
    /// Where the login is, for a time-out's message: "waiting for the greeting".
    fn state_name(&self) -> &'static str;
}

/// What an [`UpstreamDialogue`] wants done. Printing one shows of what it sends the length only: it may be a credential.
pub enum UpstreamStep {
    /// Write to the upstream.
    Send(Bytes),
    /// Do the TLS handshake, then call `handle_secured`.
    Secure,
    /// The upstream explained its refusal with a SASL challenge; decoded, cleaned and bounded. For the log.
    Challenged(String),
    /// The mailbox is open. The last step.
    LoggedIn(UpstreamGreeted),
    /// The login has failed. The last step.
    Failed(Fault),
}

impl fmt::Debug for UpstreamStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Self::Secure => f.write_str("Secure"),
            Self::Challenged(text) => f.debug_tuple("Challenged").field(text).finish(),
            Self::LoggedIn(greeted) => f.debug_tuple("LoggedIn").field(greeted).finish(),
            Self::Failed(fault) => f.debug_tuple("Failed").field(fault).finish(),
        }
    }
}

/// What an upstream sent around a successful login.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpstreamGreeted {
    /// Complete untagged responses for the client, CRLF included, in the protocol's form: the capability list after login
    /// exactly once, `[ALERT]`s and whatever else came inside TLS around the login.
    pub for_client: Bytes,
    /// Bytes that the upstream sent behind its answer; they come first in the relay.
    pub surplus: Bytes,
}

/// Makes the upstream leg's dialogue. One for each protocol.
pub trait DialUpstream {
    /// A dialogue that logs in with what `ready` holds, and tells the upstream who the client is.
    fn dialogue(&self, ready: UpstreamReady, identity: Option<ClientIdentity>) -> Box<dyn UpstreamDialogue>;
}

/// Watches a relayed session for the places where a goodbye would be understood. Sees every byte once, in the order of each
/// direction, in pieces cut anywhere; allocates nothing and looks at no byte twice.
pub trait Boundaries: Send {
    /// Bytes of the client on their way to the upstream.
    fn watch_client(&mut self, bytes: &[u8]);
    /// Bytes of the upstream on their way to the client.
    fn watch_upstream(&mut self, bytes: &[u8]);
    /// Whether the client, having received all that was watched, would understand a goodbye now.
    fn at_boundary(&self) -> bool;
    /// What the upstream's first replies gave away, once. Costs nothing where there is nothing to say.
    fn take_remark(&mut self) -> Option<UpstreamRemark> {
        None
    }
}

/// Something about a relayed session that its upstream says to the client, and that an operator ought to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamRemark {
    /// `BAD User is authenticated but not connected` (Exchange Online): the login was accepted, but there is no mailbox
    /// behind it. IMAP is off for the mailbox, the login name is another's whose mailbox it may not open, or it is
    /// overloaded.
    NotConnected,
}
