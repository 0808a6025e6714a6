//! One client session as a typed state machine: `Greeting → Auth → UpstreamConnect → Relay`, or `Closed` from anywhere.
//!
//! **The driving contract.** Feed one [`Input`] with [`Session::handle`], then take actions with [`Session::poll_action`]
//! until it returns `None`, carrying them out in order; only then feed the next input. Wake the session with
//! [`Input::DeadlinePassed`] when [`Session::deadline`] has passed. While [`Session::wants_client_bytes`] is false, do not
//! read from the client: that is the backpressure on what it may pipeline. Behind [`Action::AbandonLogin`] no answer of the
//! abandoned attempt may be fed any more, since it could be taken for the answer to a later one.
//!
//! Here are the types that a driver meets; the machine is in `machine`, its states in `phases`. The whole table of states and
//! inputs, with a diagram, is `docs/lifecycle.md`, which a test keeps true.

mod machine;
mod phases;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use self::machine::Session;
use super::promise::Said;
use super::{Credential, Length, Mechanism, Protocol};
use crate::fault::Fault;
use crate::secret::SecretString;

/// What is known of a session when its client has been accepted.
#[derive(Debug, Clone)]
pub struct SessionContext {
    /// The protocol of the listener.
    pub protocol: Protocol,
    /// The client's address, IPv4-mapped ones already made IPv4.
    pub remote_address: IpAddr,
    /// The name in greetings.
    pub hostname: Arc<str>,
    /// How the client's leg is protected when the session begins.
    pub security: ClientSecurity,
    /// Whether a login may be given in clear.
    pub plaintext_login: bool,
    /// What every upstream that this session may lead to is known to do, in the protocol's own words; see
    /// [`promise`](super::promise). Empty where nothing is known.
    pub promised: Arc<[String]>,
    /// Bounds on what the client may send and how long it may take.
    pub limits: SessionLimits,
}

impl SessionContext {
    /// What the client may do as the connection begins: log in inside TLS, or in clear where that is allowed.
    pub fn offer(&self) -> Offer {
        Offer {
            security: self.security,
            login: self.plaintext_login || self.security == ClientSecurity::Secured,
        }
    }
}

/// What a client may do on the connection as it is, which its capabilities tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// How the connection is protected.
    pub security: ClientSecurity,
    /// Whether a login is allowed.
    pub login: bool,
}

impl Offer {
    /// The offer once STARTTLS has been done.
    pub const SECURED: Self = Self {
        security: ClientSecurity::Secured,
        login: true,
    };

    /// Whether STARTTLS is offered.
    pub fn has_starttls(self) -> bool {
        self.security == ClientSecurity::StartTls
    }
}

/// How a client's leg is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientSecurity {
    /// TLS is established.
    Secured,
    /// In clear, and STARTTLS is offered.
    StartTls,
    /// In clear.
    Clear,
}

/// The configured bounds that concern the phases before the relay.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// From accept to the end of login's input.
    pub pre_auth_timeout: Duration,
    /// From the client's credentials to their answer.
    pub login_timeout: Duration,
    /// Bytes of a command line.
    pub command_line_bytes_max: usize,
    /// Bytes of a literal before login.
    pub literal_bytes_max: usize,
    /// Malformed commands before the session is ended.
    pub bad_commands_max: u32,
    /// Commands that are fine but bring no login nearer, before the session is ended.
    pub pre_auth_commands_max: u32,
    /// Refused logins before the session is ended.
    pub auth_failures_max: u32,
}

/// Where a session is, as metrics and the admin API tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The connection is not open yet.
    Greeting,
    /// The client has not logged in, or its token is being checked.
    Auth,
    /// The upstream leg is being opened and logged in on.
    UpstreamConnect,
    /// Bytes move between the legs, and the session has nothing more to do.
    Relay,
    /// The session has ended.
    Closed,
}

impl Phase {
    /// The value of the metric label `phase`, and of the field in the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Auth => "auth",
            Self::UpstreamConnect => "upstream_connect",
            Self::Relay => "relay",
            Self::Closed => "closed",
        }
    }
}

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The session acted on it or took note of it.
    Taken,
    /// It means nothing here, and may come at any time: a deadline that has moved, bytes behind the end.
    NoOp,
    /// It cannot come here unless the driving contract was broken. It is ignored.
    Invalid,
}

/// What a session is told.
pub enum Input<'a> {
    /// The connection is open (and TLS established where the listener begins with it).
    Opened,
    /// The client sent bytes.
    ClientBytes(&'a [u8]),
    /// The client will send no more.
    ClientEof,
    /// The answer to [`Action::SecureClient`]. A handshake that fails ends the connection, and nothing can be said about it.
    ClientSecured,
    /// The answer to [`Action::CheckLogin`].
    LoginChecked(Result<Admission, Fault>),
    /// The answer to [`Action::ConnectUpstream`]: the leg is open, with TLS where the endpoint begins with it. After a refused
    /// token, [`crate::fault::FaultKind::UpstreamRefused`] says that there is no other to present.
    UpstreamConnected(Result<UpstreamReady, Fault>),
    /// The upstream sent bytes.
    UpstreamBytes(&'a [u8]),
    /// The upstream will send no more.
    UpstreamEof,
    /// The answer to [`Action::SecureUpstream`].
    UpstreamSecured(Result<(), Fault>),
    /// The moment of [`Session::deadline`] has passed.
    DeadlinePassed,
    /// The session is to end before it is relayed: the client hears `text` as a farewell.
    Goodbye(Goodbye),
}

/// Why a session that did nothing wrong is ended by the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodbye {
    /// The access token was deleted or rotated away.
    TokenDeleted,
    /// The account was deleted or disabled.
    AccountDeleted,
    /// An administrator closed the session.
    ClosedByAdmin,
    /// The proxy shuts down.
    ShuttingDown,
    /// Nothing moved for the idle time-out.
    Idle,
    /// It had not logged in, and a newcomer needed its place.
    GaveWay,
}

impl Goodbye {
    /// The value of a usage event's `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TokenDeleted => "token_deleted",
            Self::AccountDeleted => "account_deleted",
            Self::ClosedByAdmin => "closed_by_admin",
            Self::ShuttingDown => "shutting_down",
            Self::Idle => "idle",
            Self::GaveWay => "gave_way",
        }
    }
}

/// What a session wants done. Carried out in the order given.
pub enum Action {
    /// Write to the client.
    SendClient(Bytes),
    /// Do the TLS handshake on the client's leg, all that is due having been written; answer with [`Input::ClientSecured`].
    /// What the client sent in clear and has not been read yet must fail the handshake.
    SecureClient,
    /// Check the credentials that the client gave; answer with [`Input::LoginChecked`].
    CheckLogin(LoginRequest),
    /// Obtain the admitted account's credential and open the upstream leg; answer with [`Input::UpstreamConnected`]. An
    /// upstream leg that is still open is dropped first.
    ConnectUpstream {
        /// The generation of the OAuth token that an upstream has just refused, so that a fresh one is obtained.
        refused: Option<u64>,
    },
    /// Write to the upstream.
    SendUpstream(Bytes),
    /// Do the TLS handshake on the upstream leg; answer with [`Input::UpstreamSecured`].
    SecureUpstream,
    /// The login attempt is over without a relay: drop what is still in flight for it, be it a check, a connect or the upstream
    /// leg. The client is told by other actions, and may try again.
    AbandonLogin,
    /// Something an operator or a metric wants to know.
    Report(Report),
    /// Hand over: write these bytes, then move bytes between the legs until one ends. The last action.
    BeginRelay {
        /// Bytes for the client that come before the upstream's next ones.
        to_client: Bytes,
        /// Bytes that the client pipelined behind its login.
        to_upstream: Bytes,
    },
    /// Write what is due, half-close, drain for at most [`crate::limits::CLOSE_DRAIN`], close; drop what is in flight and the
    /// upstream leg at once. The last action.
    Close,
}

/// The credentials of a client's login attempt.
#[derive(Debug)]
pub struct LoginRequest {
    /// The login name. `None` where OAUTHBEARER leaves it to the token (RFC 7628 §3.1).
    pub user: Option<String>,
    /// What was given as password or bearer.
    pub secret: SecretString,
    /// How it was given; `None` for the protocol's own login command.
    pub mechanism: Option<Mechanism>,
}

/// An admitted login.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The account's id, as it is named in the reply.
    pub account: String,
}

/// An open upstream leg and what is needed to log in on it.
#[derive(Debug)]
pub struct UpstreamReady {
    /// What to present.
    pub credential: Credential,
    /// The mechanisms to use for OAuth, in order of preference.
    pub mechanisms: Vec<Mechanism>,
    /// The endpoint's host name, for OAUTHBEARER.
    pub host: String,
    /// The endpoint's port, for OAUTHBEARER.
    pub port: u16,
    /// How the leg is protected.
    pub security: UpstreamSecurity,
    /// For whom the proxy speaks, where this upstream is told.
    pub forwarded: Option<ForwardedClient>,
}

/// The client that an upstream is told of which trusts the proxy with that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardedClient {
    /// The client's address, as it counts.
    pub remote: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// The session's id, by which the logs of both can be brought together.
    pub session: String,
}

/// How an upstream leg is protected when the protocol begins on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamSecurity {
    /// TLS is established.
    Secured,
    /// STARTTLS must be done before anything else is believed or said.
    StartTls,
    /// TLS is established by a STARTTLS that is over: the upstream has greeted, and what it said in clear is forgotten.
    Upgraded,
    /// In clear, by configuration.
    Clear,
}

/// What happened in a session, for logs, metrics and usage events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The client told its identity (IMAP `ID`); a printable, bounded rendering.
    ClientIdentified(String),
    /// A login was refused or failed. Each login attempt ends with exactly one of this or [`Report::LoggedIn`].
    LoginRefused {
        /// The login name that was given, if any.
        user: Option<String>,
        /// Why.
        fault: Fault,
    },
    /// The client has been told that it is logged in.
    LoggedIn,
    /// The session ends before a relay, for this reason. At most once, and not for [`Input::Goodbye`], whose sender knows.
    Ended(Fault),
    /// An upstream explained its refusal with a SASL challenge; decoded, cleaned and bounded.
    UpstreamChallenge(String),
    /// What the upstream says it can do, once for each moment of a login.
    UpstreamSaid(Said),
    /// An upstream refused a fresh OAuth token; one retry with another follows.
    RetryingWithFreshToken(String),
}

// What goes over a wire may hold a secret: these types show its length only.

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened => f.write_str("Opened"),
            Self::ClientBytes(bytes) => f.debug_tuple("ClientBytes").field(&Length(bytes.len())).finish(),
            Self::ClientEof => f.write_str("ClientEof"),
            Self::ClientSecured => f.write_str("ClientSecured"),
            Self::LoginChecked(result) => f.debug_tuple("LoginChecked").field(result).finish(),
            Self::UpstreamConnected(result) => f.debug_tuple("UpstreamConnected").field(result).finish(),
            Self::UpstreamBytes(bytes) => f.debug_tuple("UpstreamBytes").field(&Length(bytes.len())).finish(),
            Self::UpstreamEof => f.write_str("UpstreamEof"),
            Self::UpstreamSecured(result) => f.debug_tuple("UpstreamSecured").field(result).finish(),
            Self::DeadlinePassed => f.write_str("DeadlinePassed"),
            Self::Goodbye(goodbye) => f.debug_tuple("Goodbye").field(goodbye).finish(),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SendClient(bytes) => f.debug_tuple("SendClient").field(&Length(bytes.len())).finish(),
            Self::SecureClient => f.write_str("SecureClient"),
            Self::CheckLogin(request) => f.debug_tuple("CheckLogin").field(request).finish(),
            Self::ConnectUpstream { refused } => f.debug_struct("ConnectUpstream").field("refused", refused).finish(),
            Self::SendUpstream(bytes) => f.debug_tuple("SendUpstream").field(&Length(bytes.len())).finish(),
            Self::SecureUpstream => f.write_str("SecureUpstream"),
            Self::AbandonLogin => f.write_str("AbandonLogin"),
            Self::Report(report) => f.debug_tuple("Report").field(report).finish(),
            Self::BeginRelay { to_client, to_upstream } => f
                .debug_struct("BeginRelay")
                .field("to_client", &Length(to_client.len()))
                .field("to_upstream", &Length(to_upstream.len()))
                .finish(),
            Self::Close => f.write_str("Close"),
        }
    }
}
