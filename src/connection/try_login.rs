//! One login at an upstream without a client: what `account verify` does, and what shows that a consent opens the mailbox.
//!
//! How it fails: as a session's login would, by [`Fault`]; a refusal carries the upstream's own words. Nothing is reported to
//! the account's supervisor here, for the account may not exist yet.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::Services;
use super::open::{self, Leg};
use crate::account::{Place, UpstreamTarget};
use crate::fault::Fault;
use crate::limits::CLOSE_DRAIN;
use crate::proto::dialogue::{UpstreamDialogue, UpstreamStep};
use crate::proto::session::UpstreamSecurity;
use crate::proto::{self, CredentialSecret, Protocol};
use crate::secret::SecretString;
use crate::store::AccountRecord;

/// A leg on which a login succeeded.
pub(super) struct LoggedIn {
    /// The connection.
    pub(super) leg: Leg,
    /// What the upstream has sent behind its answer.
    pub(super) surplus: Bytes,
}

/// Logs in once with `secret` where `account`'s mailbox is for `protocol`, and leaves again. `account` need not be stored: it
/// is the record as it would be. Takes as long as connecting, TLS and a login may take, each with its own limit. Dropping the
/// future closes the connection.
///
/// # Errors
/// [`FaultKind::ProtocolNotOffered`](crate::fault::FaultKind::ProtocolNotOffered),
/// [`FaultKind::UpstreamRefused`](crate::fault::FaultKind::UpstreamRefused), and temporary trouble.
pub async fn try_login(
    services: &Services,
    account: &AccountRecord,
    protocol: Protocol,
    secret: CredentialSecret,
) -> Result<(), Fault> {
    let config = services.config();
    // Which grant of the account's this is, nobody asks: what comes of it is not reported.
    let target = Place::find(account, &config, protocol)?.with_secret(secret, 0);
    let limit = config.limits.upstream_connect_timeout;
    let leg = Box::pin(open::open(&target, protocol, &services.trust, limit)).await?;
    let logged_in = log_in(services, protocol, leg, &target, config.limits.login_timeout).await?;
    leave(logged_in.leg, protocol).await;
    Ok(())
}

/// Does the STARTTLS of `place` on an open leg, and stops there: nothing is needed to log in with, and nothing is told of it.
///
/// # Errors
/// Temporary trouble, which is what a STARTTLS that is refused and no answer after `within` are too.
pub(super) async fn upgrade(
    services: &Services,
    protocol: Protocol,
    leg: Leg,
    place: &Place,
    within: Duration,
) -> Result<Leg, Fault> {
    answered_in(within, Box::pin(secure_by_starttls(services, protocol, leg, place))).await
}

/// Logs in on an open leg, with STARTTLS where the endpoint wants it and [`upgrade`] has not done it.
///
/// # Errors
/// [`FaultKind::UpstreamRefused`](crate::fault::FaultKind::UpstreamRefused), and temporary trouble, which is what no answer
/// after `within` is too.
pub(super) async fn log_in(
    services: &Services,
    protocol: Protocol,
    leg: Leg,
    target: &UpstreamTarget,
    within: Duration,
) -> Result<LoggedIn, Fault> {
    // Boxed: the handshake of a STARTTLS is a part of it, and this future becomes part of others.
    answered_in(within, Box::pin(converse(services, protocol, leg, target))).await
}

async fn answered_in<T>(within: Duration, conversation: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let answered = timeout(within, conversation).await;
    answered.unwrap_or_else(|_| Err(Fault::unavailable("the upstream did not answer in time")))
}

/// Takes leave on a leg where nothing is going on. An upstream that does not hang up is not waited for.
pub(super) async fn leave(leg: Leg, protocol: Protocol) {
    let words: &[u8] = match protocol {
        Protocol::Imap => b"Z LOGOUT\r\n",
        Protocol::Smtp | Protocol::Pop3 => b"QUIT\r\n",
    };
    leg.stream.part(words, CLOSE_DRAIN).await;
}

async fn secure_by_starttls(
    services: &Services,
    protocol: Protocol,
    mut leg: Leg,
    place: &Place,
) -> Result<Leg, Fault> {
    let config = services.config();
    let limit = config.limits.upstream_connect_timeout;
    // It stands where the credential will be in the login's own dialogue. Nobody gets to say it: TLS comes first.
    let nothing = CredentialSecret::Password(SecretString::default());
    let target = place.clone().with_secret(nothing, 0);
    let mut dialogue = proto::upstream_dialogue(protocol, &config.server.hostname, open::ready(&target));
    let mut buffer = open::buffer();
    loop {
        while let Some(step) = dialogue.poll_step() {
            match step {
                UpstreamStep::Send(bytes) => open::send(&mut leg.stream, &bytes).await.map_err(Fault::unavailable)?,
                UpstreamStep::Secure => {
                    return open::secure(leg, &place.provider, &place.endpoint.host, &services.trust, limit).await;
                }
                UpstreamStep::Failed(fault) => return Err(fault),
                UpstreamStep::Challenged(_) | UpstreamStep::Learned(_) | UpstreamStep::LoggedIn(_) => {
                    return Err(Fault::unavailable("the endpoint is not one with STARTTLS"));
                }
            }
        }
        hear(&mut leg, &mut buffer, dialogue.as_mut()).await?;
    }
}

async fn converse(
    services: &Services,
    protocol: Protocol,
    mut leg: Leg,
    target: &UpstreamTarget,
) -> Result<LoggedIn, Fault> {
    let config = services.config();
    let limit = config.limits.upstream_connect_timeout;
    let mut ready = open::ready(target);
    if ready.security == UpstreamSecurity::StartTls && leg.stream.is_tls() {
        ready.security = UpstreamSecurity::Upgraded;
    }
    let mut dialogue = proto::upstream_dialogue(protocol, &config.server.hostname, ready);
    let mut buffer = open::buffer();
    loop {
        while let Some(step) = dialogue.poll_step() {
            match step {
                UpstreamStep::Send(bytes) => open::send(&mut leg.stream, &bytes).await.map_err(Fault::unavailable)?,
                UpstreamStep::Secure => {
                    let host = &target.endpoint.host;
                    leg = open::secure(leg, &target.provider, host, &services.trust, limit).await?;
                    dialogue.handle_secured();
                }
                UpstreamStep::Challenged(challenge) => {
                    tracing::debug!(%challenge, "the upstream explained its refusal");
                }
                UpstreamStep::Learned(said) => services.upstreams.learn(target, protocol, &said),
                UpstreamStep::LoggedIn(greeted) => {
                    let surplus = greeted.surplus;
                    return Ok(LoggedIn { leg, surplus });
                }
                UpstreamStep::Failed(fault) => return Err(fault),
            }
        }
        hear(&mut leg, &mut buffer, dialogue.as_mut()).await?;
    }
}

/// Hands on to `dialogue` what the upstream says next.
async fn hear(leg: &mut Leg, buffer: &mut [u8], dialogue: &mut dyn UpstreamDialogue) -> Result<(), Fault> {
    match leg.stream.read(buffer).await.map_err(Fault::unavailable)? {
        0 => dialogue.handle_eof(),
        count => dialogue.handle_bytes(buffer.get(..count).unwrap_or_default()),
    }
    Ok(())
}
