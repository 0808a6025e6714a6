//! The protocols, without I/O: bytes and facts in, actions out.
//!
//! Nothing here meets a socket, a clock, an actor, the store or TLS; the same inputs give the same actions, so that a whole
//! session can be tested as a table. [`session::Session`] is the machine that every protocol runs on; a protocol is one
//! folder that implements the traits of [`dialogue`], one variant of [`Protocol`], and one row in `docs/protocols.md`. What the
//! protocols do alike is in `client_leg` for their client legs, in `outbox`, `phrases`, `presentation` and `redaction` for their
//! upstream legs, and in [`sasl`] for both.

mod client_leg;
pub mod dialogue;
pub mod framing;
pub mod imap;
mod outbox;
mod phrases;
pub mod pop3;
mod presentation;
pub mod probe;
pub mod promise;
mod redaction;
pub mod sasl;
pub mod session;
pub mod smtp;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::dialogue::{Boundaries, ClientDialogue, DialUpstream, UpstreamDialogue};
use crate::fault::{CredentialForm, FaultKind};
use crate::secret::SecretString;

/// The two sides that a session of this protocol runs on.
pub struct Dialogues {
    /// The client leg.
    pub client: Box<dyn ClientDialogue>,
    /// Makes the upstream leg, anew for each attempt.
    pub upstream: Box<dyn DialUpstream + Send>,
}

/// The dialogues of the context's protocol.
pub fn dialogues(context: &session::SessionContext) -> Dialogues {
    match context.protocol {
        Protocol::Imap => Dialogues {
            client: Box::new(imap::client::ImapClient::new(context)),
            upstream: Box::new(imap::upstream::DialImap),
        },
        Protocol::Smtp => Dialogues {
            client: Box::new(smtp::client::SmtpClient::new(context)),
            upstream: Box::new(smtp::upstream::DialSmtp {
                hostname: context.hostname.clone(),
                promised: context.promised.clone(),
            }),
        },
        Protocol::Pop3 => Dialogues {
            client: Box::new(pop3::client::Pop3Client::new(context)),
            upstream: Box::new(pop3::upstream::DialPop3),
        },
    }
}

/// The upstream side alone, for a login without a client, by a proxy whose own name is `hostname`.
pub fn upstream_dialogue(
    protocol: Protocol,
    hostname: &str,
    ready: session::UpstreamReady,
) -> Box<dyn UpstreamDialogue> {
    match protocol {
        Protocol::Imap => imap::upstream::DialImap.dialogue(ready, None),
        Protocol::Smtp => Box::new(smtp::upstream::SmtpUpstream::new(ready, hostname)),
        Protocol::Pop3 => pop3::upstream::DialPop3.dialogue(ready, None),
    }
}

/// Who watches a relay of this protocol for the places of a goodbye.
pub fn boundaries(protocol: Protocol) -> Box<dyn Boundaries> {
    match protocol {
        Protocol::Imap => Box::new(imap::boundary::ImapBoundaries::new()),
        Protocol::Smtp => Box::new(smtp::boundary::SmtpBoundaries::new()),
        Protocol::Pop3 => Box::new(dialogue::Unwatched),
    }
}

/// What the client hears when the proxy ends a session that did nothing wrong, at a place where it would be understood. Empty
/// where the protocol just closes.
pub fn goodbye(protocol: Protocol, goodbye: session::Goodbye) -> Bytes {
    match protocol {
        Protocol::Imap => imap::reply::goodbye(goodbye),
        Protocol::Smtp => smtp::reply::goodbye(goodbye),
        // No word that nobody asked for (RFC 1939 §3).
        Protocol::Pop3 => Bytes::new(),
    }
}

/// What a client hears that is not admitted because there are too many sessions.
pub fn refusal(protocol: Protocol) -> Bytes {
    match protocol {
        Protocol::Imap => Bytes::from_static(imap::reply::farewell(&FaultKind::ProxyLimit).as_bytes()),
        Protocol::Smtp => Bytes::from_static(smtp::reply::farewell(&FaultKind::ProxyLimit).as_bytes()),
        Protocol::Pop3 => Bytes::from_static(pop3::reply::TOO_MANY_SESSIONS.as_bytes()),
    }
}

/// A mail protocol that clients may speak to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IMAP4rev1 and IMAP4rev2 (RFC 3501, RFC 9051).
    Imap,
    /// Message submission (RFC 6409).
    Smtp,
    /// POP3 (RFC 1939).
    Pop3,
}

impl Protocol {
    /// The name in configuration, metrics and the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Smtp => "smtp",
            Self::Pop3 => "pop3",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A SASL mechanism that this proxy speaks, towards clients or upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mechanism {
    /// RFC 4616.
    #[serde(rename = "PLAIN")]
    Plain,
    /// draft-murchison-sasl-login.
    #[serde(rename = "LOGIN")]
    Login,
    /// RFC 7628.
    #[serde(rename = "OAUTHBEARER")]
    OAuthBearer,
    /// Google's, before RFC 7628.
    #[serde(rename = "XOAUTH2")]
    XOAuth2,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Login, Self::OAuthBearer, Self::XOAuth2];

    /// The registered name (RFC 4422 §3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
        }
    }

    /// The mechanism of that name, in any case.
    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }
}

/// What a mailbox's owner, represented by the proxy, presents to an upstream.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The login name at the upstream.
    pub user: String,
    /// The secret that goes with it.
    pub secret: CredentialSecret,
}

/// The secret half of a [`Credential`].
#[derive(Debug, Clone)]
pub enum CredentialSecret {
    /// An OAuth access token.
    OAuth {
        /// The token.
        token: SecretString,
        /// Which of the account's tokens it is, counted up with each refresh, so that a refusal can be matched to it.
        generation: u64,
    },
    /// A password.
    Password(SecretString),
}

impl CredentialSecret {
    /// Of what form it is.
    pub(in crate::proto) fn form(&self) -> CredentialForm {
        match self {
            Self::OAuth { .. } => CredentialForm::Token,
            Self::Password(_) => CredentialForm::Password,
        }
    }

    /// The secret itself, whatever it is.
    pub(in crate::proto) fn exposable(&self) -> &SecretString {
        match self {
            Self::OAuth { token: secret, .. } | Self::Password(secret) => secret,
        }
    }
}

/// An account's id as the reply to its login names it. An id has no controls; if one ever had, it could still not end the line.
/// One that begins with a bracket would read as a response code (RFC 9051 §7.1, RFC 2449 §8), so that it is quoted.
fn named(account: &str) -> String {
    let account: String = account.chars().filter(|character| !character.is_control()).collect();
    match account.starts_with('[') {
        true => format!("\"{account}\""),
        false => account,
    }
}

/// Bytes in debug output: how many, and never which.
struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}
