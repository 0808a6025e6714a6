//! What the tests of several protocol modules share.

pub(crate) mod boundaries;
pub(crate) mod login;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::test_runner::{Config, FileFailurePersistence};

use super::dialogue::{ClientDialogue, ClientIdentity, DialUpstream, UpstreamDialogue, UpstreamGreeted, UpstreamStep};
use super::imap::client::ImapClient;
use super::pop3::client::Pop3Client;
use super::session::{ClientSecurity, Session, SessionContext, SessionLimits, UpstreamReady, UpstreamSecurity};
use super::smtp::client::SmtpClient;
use super::{Credential, CredentialSecret, Dialogues, Mechanism, Protocol};
use crate::fault::{Fault, FaultKind, UpstreamRefusal};

/// The default configuration, with the seeds of failures kept in `file` below the repository's root, where they are
/// committed together.
pub(crate) fn proptest_config(file: &'static str) -> Config {
    Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        ..Config::default()
    }
}

/// The default limits of the configuration.
pub(crate) fn context() -> SessionContext {
    SessionContext {
        protocol: Protocol::Imap,
        remote_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        hostname: "proxy.example".into(),
        security: ClientSecurity::Clear,
        plaintext_login: true,
        promised: Arc::default(),
        limits: SessionLimits {
            pre_auth_timeout: Duration::from_secs(60),
            login_timeout: Duration::from_secs(30),
            command_line_bytes_max: 8192,
            literal_bytes_max: 4096,
            bad_commands_max: 10,
            pre_auth_commands_max: 100,
            auth_failures_max: 3,
        },
    }
}

/// An IMAP session towards a [`ScriptedUpstream`].
pub(crate) fn imap_session(context: &SessionContext, now: Instant) -> Session {
    let greeted = UpstreamGreeted {
        for_client: Bytes::from_static(b"* CAPABILITY IMAP4rev1 IDLE\r\n"),
        surplus: Bytes::from_static(b"* 1 EXISTS\r\n"),
    };
    scripted_session(context, Box::new(ImapClient::new(context)), greeted, now)
}

/// An SMTP session towards a [`ScriptedUpstream`].
pub(crate) fn smtp_session(context: &SessionContext, now: Instant) -> Session {
    scripted_session(
        context,
        Box::new(SmtpClient::new(context)),
        UpstreamGreeted::default(),
        now,
    )
}

/// A POP3 session towards a [`ScriptedUpstream`].
pub(crate) fn pop3_session(context: &SessionContext, now: Instant) -> Session {
    scripted_session(
        context,
        Box::new(Pop3Client::new(context)),
        UpstreamGreeted::default(),
        now,
    )
}

/// A session towards a [`ScriptedUpstream`] that says this around its login.
fn scripted_session(
    context: &SessionContext,
    client: Box<dyn ClientDialogue>,
    greeted: UpstreamGreeted,
    now: Instant,
) -> Session {
    let upstream = Box::new(Script { greeted });
    Session::with_dialogues(context, Dialogues { client, upstream }, now)
}

/// An open upstream leg with an OAuth token of that generation.
pub(crate) fn ready(generation: u64, security: UpstreamSecurity) -> UpstreamReady {
    UpstreamReady {
        forwarded: None,
        credential: Credential {
            user: "joe@example.com".to_owned(),
            secret: CredentialSecret::OAuth {
                token: OAUTH_TOKEN.to_owned().into(),
                generation,
            },
        },
        mechanisms: vec![Mechanism::XOAuth2],
        host: "imap.example.com".to_owned(),
        port: 993,
        security,
    }
}

/// The OAuth token of [`ready`].
pub(crate) const OAUTH_TOKEN: &str = "ya29.0auth";

/// Makes [`ScriptedUpstream`]s.
struct Script {
    greeted: UpstreamGreeted,
}

impl DialUpstream for Script {
    fn dialogue(&self, ready: UpstreamReady, identity: Option<ClientIdentity>) -> Box<dyn UpstreamDialogue> {
        let identity = identity.map_or(0, |identity| identity.pairs.len());
        let first = match ready.security {
            UpstreamSecurity::StartTls => UpstreamStep::Send(Bytes::from_static(b"STARTTLS\r\n")),
            _ => UpstreamStep::Send(format!("login {} id {identity}\r\n", ready.credential.user).into()),
        };
        Box::new(ScriptedUpstream {
            next: Some(first),
            greeted: self.greeted.clone(),
        })
    }
}

/// A dialogue that does what the upstream's bytes say: `OK` lets the client in, `NO` blames its credential, `BUSY` does not,
/// `TLS` begins the handshake, and anything else is a challenge.
struct ScriptedUpstream {
    next: Option<UpstreamStep>,
    greeted: UpstreamGreeted,
}

impl UpstreamDialogue for ScriptedUpstream {
    fn handle_bytes(&mut self, bytes: &[u8]) {
        let refused = |blames_credential| {
            UpstreamStep::Failed(Fault::new(FaultKind::UpstreamRefused(UpstreamRefusal {
                code: None,
                text: "Not you".to_owned(),
                blames_credential,
            })))
        };
        self.next = Some(match bytes {
            b"OK" => UpstreamStep::LoggedIn(self.greeted.clone()),
            b"NO" => refused(true),
            b"BUSY" => refused(false),
            b"TLS" => UpstreamStep::Secure,
            other => UpstreamStep::Challenged(String::from_utf8_lossy(other).into_owned()),
        });
    }

    fn handle_eof(&mut self) {
        self.next = Some(UpstreamStep::Failed(Fault::unavailable("the upstream closed")));
    }

    fn handle_secured(&mut self) {
        self.next = Some(UpstreamStep::Send(Bytes::from_static(b"login inside TLS\r\n")));
    }

    fn poll_step(&mut self) -> Option<UpstreamStep> {
        self.next.take()
    }

    fn state_name(&self) -> &'static str {
        "waiting for the upstream's answer to AUTHENTICATE"
    }
}
