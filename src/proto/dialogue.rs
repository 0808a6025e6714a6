//! What a protocol must know how to do, for the session machine to run on it.
//!
//! [`ClientDialogue`] talks with a mail program until it is logged in; [`UpstreamDialogue`] logs in on the upstream leg;
//! [`Boundaries`] watches a relayed stream only as far as a goodbye needs it.

use std::fmt;

use bytes::Bytes;

use super::Length;
use super::promise::Said;
use super::session::{LoginRequest, UpstreamReady};
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamRefusal, UpstreamWords};

/// What a mail program says it is (IMAP `ID`, RFC 2971), to be passed on to the upstream. Free of CR, LF and NUL, and within
/// [`crate::limits::ID_PAIRS_MAX`], [`crate::limits::ID_FIELD_BYTES_MAX`] and [`crate::limits::ID_VALUE_BYTES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientIdentity {
    /// Field and value, in the order given; `None` is `NIL`.
    pub pairs: Vec<(String, Option<String>)>,
}

/// The client leg of a session before its relay: feed what arrives, then take steps until there is none.
///
/// The dialogue counts bad commands and refused logins, and ends the session when there are too many.
pub trait ClientDialogue: Send {
    /// The connection is open: greet. What the client sent before is answered behind the greeting.
    fn handle_opened(&mut self);
    /// The client sent bytes. While a login waits for its outcome they are kept, and nothing is done with them.
    fn handle_bytes(&mut self, bytes: &[u8]);
    /// The client will send no more. What it has sent is still answered.
    fn handle_eof(&mut self);
    /// The TLS handshake that [`ClientStep::Secure`] asked for succeeded: what was said in clear is forgotten.
    fn handle_secured(&mut self);
    /// The login of the last [`ClientStep::Login`] is refused: tell the client why, and go on with its next command.
    fn handle_refused(&mut self, fault: &Fault);
    /// The next thing to do. None follows a [`ClientStep::Login`] before its outcome, a
    /// [`ClientStep::Secure`] before `handle_secured`, or a [`ClientStep::End`].
    fn poll_step(&mut self) -> Option<ClientStep>;
    /// The login of the last [`ClientStep::Login`] succeeded: the reply, which names `account` and stands behind the
    /// upstream's own words `for_client`, and what the client has sent since.
    fn into_accepted(self: Box<Self>, account: &str, for_client: &[u8]) -> Accepted;
    /// What the client hears when the session ends for `kind` without its own doing.
    fn farewell(&self, kind: &FaultKind) -> Bytes;
    /// Bytes of the client that are kept.
    fn buffered(&self) -> usize;
    /// Whether the client will send no more.
    fn is_at_eof(&self) -> bool;
    /// Where the dialogue is: "waiting for a command".
    fn state_name(&self) -> &'static str;
}

/// What a [`ClientDialogue`] wants done.
pub enum ClientStep {
    /// Write to the client.
    Send(Bytes),
    /// Do the TLS handshake, then call `handle_secured`. Nothing that the client sent in clear is left: a dialogue that has
    /// bytes behind STARTTLS ends with [`FaultKind::StartTlsInjection`] instead.
    Secure,
    /// The client told who it is.
    Identified(ClientIdentity),
    /// The client gave credentials. Answered by `handle_refused` or `into_accepted`.
    Login(LoginRequest),
    /// The client tried to log in and was refused at once.
    LoginRefused {
        /// The login name that was given, if any.
        user: Option<String>,
        /// Why.
        fault: Fault,
    },
    /// The session is to end, all having been said. The last step.
    End(Fault),
}

/// What follows from a login that succeeded.
pub struct Accepted {
    /// For the client, before the relay begins.
    pub to_client: Bytes,
    /// What the client pipelined behind its login, byte for byte.
    pub to_upstream: Bytes,
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
    /// What the upstream says it can do, inside TLS where there is TLS. At most once for each moment.
    Learned(Said),
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
            Self::Learned(said) => f.debug_tuple("Learned").field(said).finish(),
            Self::LoggedIn(greeted) => f.debug_tuple("LoggedIn").field(greeted).finish(),
            Self::Failed(fault) => f.debug_tuple("Failed").field(fault).finish(),
        }
    }
}

/// What an upstream sent around a successful login.
#[derive(Clone, PartialEq, Eq, Default)]
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

/// Watches nothing: a session of a protocol that has no word for a goodbye just ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Boundaries for Unwatched {
    fn watch_client(&mut self, _bytes: &[u8]) {}

    fn watch_upstream(&mut self, _bytes: &[u8]) {}

    fn at_boundary(&self) -> bool {
        false
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

impl UpstreamRemark {
    /// What it comes to as the outcome of the login. Nobody's credential is to blame.
    pub fn fault(self) -> Fault {
        match self {
            Self::NotConnected => {
                let text = "User is authenticated but not connected";
                let refusal = UpstreamRefusal {
                    code: None,
                    text: text.to_owned(),
                    blames_credential: false,
                };
                Fault::with_detail(
                    FaultKind::UpstreamRefused(refusal),
                    "in one of the first replies after the login",
                )
                .for_words(UpstreamWords::new(LoginStep::Login, None, text.to_owned()))
            }
        }
    }
}

// What goes over a wire may hold a secret: these types show its length only.

impl fmt::Debug for ClientStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => f.debug_tuple("Send").field(&Length(bytes.len())).finish(),
            Self::Secure => f.write_str("Secure"),
            Self::Identified(identity) => f.debug_tuple("Identified").field(identity).finish(),
            Self::Login(request) => f.debug_tuple("Login").field(request).finish(),
            Self::LoginRefused { user, fault } => f
                .debug_struct("LoginRefused")
                .field("user", user)
                .field("fault", fault)
                .finish(),
            Self::End(fault) => f.debug_tuple("End").field(fault).finish(),
        }
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("to_client", &Length(self.to_client.len()))
            .field("to_upstream", &Length(self.to_upstream.len()))
            .finish()
    }
}

impl fmt::Debug for UpstreamGreeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamGreeted")
            .field("for_client", &Length(self.for_client.len()))
            .field("surplus", &Length(self.surplus.len()))
            .finish()
    }
}
