//! Opening the upstream leg: the account's credential, the dial, and TLS where the endpoint begins with it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::trust::Trust;
use crate::account::UpstreamTarget;
use crate::clock;
use crate::config::{Endpoint, Provider, UpstreamTls};
use crate::fault::Fault;
use crate::metrics::names;
use crate::net::dial::dial;
use crate::net::stream::Stream;
use crate::proto::Protocol;
use crate::proto::session::{UpstreamReady, UpstreamSecurity};

/// An open upstream leg, not logged in.
pub(super) struct Leg {
    /// The connection.
    pub(super) stream: Stream,
    /// The upstream's address.
    pub(super) address: Option<SocketAddr>,
}

/// Dials `target` and establishes TLS where the endpoint begins with it. `limit` is for each of the two.
///
/// # Errors
/// Temporary trouble, with what failed and what to do about it in the detail.
pub(super) async fn open(
    target: &UpstreamTarget,
    protocol: Protocol,
    trust: &Trust,
    limit: Duration,
) -> Result<Leg, Fault> {
    open_at(&target.provider, &target.endpoint, protocol, trust, limit).await
}

/// The same where there is nothing to present.
///
/// # Errors
/// As [`open()`].
pub(super) async fn open_at(
    provider: &Provider,
    endpoint: &Endpoint,
    protocol: Protocol,
    trust: &Trust,
    limit: Duration,
) -> Result<Leg, Fault> {
    let begun = clock::instant();
    let tcp = dial(&endpoint.host, endpoint.port, limit)
        .await
        .map_err(Fault::unavailable)?;
    let leg = Leg {
        address: tcp.peer_addr().ok(),
        stream: Stream::from(tcp),
    };
    let leg = match endpoint.tls {
        UpstreamTls::Implicit => secure(leg, provider, &endpoint.host, trust, limit).await?,
        UpstreamTls::Starttls | UpstreamTls::Off => leg,
    };
    let seconds = clock::instant().saturating_duration_since(begun).as_secs_f64();
    names::upstream_connect_duration(protocol, &provider.name).record(seconds);
    Ok(leg)
}

/// Does the TLS handshake on an open leg.
///
/// # Errors
/// Temporary trouble, with the cause in the detail.
pub(super) async fn secure(
    leg: Leg,
    provider: &Provider,
    host: &str,
    trust: &Trust,
    limit: Duration,
) -> Result<Leg, Fault> {
    let tls = trust.towards(provider).await?;
    let tcp = leg
        .stream
        .into_tcp()
        .ok_or_else(|| Fault::unavailable("the leg is protected by TLS already"))?;
    let stream = tls.connect(tcp, host, limit).await.map_err(Fault::unavailable)?;
    Ok(Leg {
        stream,
        address: leg.address,
    })
}

/// What the session machine needs to know of a leg as [`open()`] leaves it.
pub(super) fn ready(target: &UpstreamTarget) -> UpstreamReady {
    UpstreamReady {
        credential: target.credential.clone(),
        mechanisms: target.provider.sasl.clone(),
        host: target.endpoint.host.clone(),
        port: target.endpoint.port,
        security: security(&target.endpoint),
        forwarded: None,
    }
}

/// How a leg is protected as [`open()`] leaves it.
pub(super) fn security(endpoint: &Endpoint) -> UpstreamSecurity {
    match endpoint.tls {
        UpstreamTls::Implicit => UpstreamSecurity::Secured,
        UpstreamTls::Starttls => UpstreamSecurity::StartTls,
        UpstreamTls::Off => UpstreamSecurity::Clear,
    }
}

/// A buffer to read a leg into before the relay.
pub(super) fn buffer() -> Box<[u8]> {
    vec![0; READ_BYTES].into_boxed_slice()
}

/// Writes all of `bytes` and flushes them.
pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Bytes read at once from a leg before the relay: logins are small.
const READ_BYTES: usize = 4096;
