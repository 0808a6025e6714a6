//! Asks upstreams what they can do, without a login: each that an account is at, when the program first meets it and daily.
//!
//! ```text
//! roll, configuration ──> enlist ──due──> question (a connection, TLS, Probe) ──answer──> Upstreams ──> store
//! ```
//! Nobody waits for it: neither the start, nor readiness, nor a client. One question is on its way to an upstream at a time, and
//! a few in all. An upstream of an account that was just added is left alone for a moment: its first login tells the same.
//!
//! How it fails: an upstream that does not answer is asked again after a wait that doubles; the log tells of it once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, warn};

use super::used;
use crate::clock;
use crate::connection::Services;
use crate::connection::open::{self, Leg};
use crate::connection::try_login::leave;
use crate::fault::Fault;
use crate::limits::{UPSTREAM_KEEP_INTERVAL, UPSTREAM_QUESTION_TIMEOUT, UPSTREAM_QUESTIONS_MAX, UPSTREAM_SETTLING};
use crate::proto::probe::{Probe, ProbeStep};
use crate::store::UpstreamId;

/// Why upstreams are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Those of accounts that were there before.
    Known,
    /// Those of accounts that may have just been added.
    New,
}

/// Keeps what is known of upstreams until `stop` is ready.
pub async fn ask_upstreams(services: Arc<Services>, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    let upstreams = &services.upstreams;
    match services.store.upstreams().await {
        Ok(records) => upstreams.load(records),
        Err(error) => {
            warn!(%error, "what upstreams can do cannot be read; they are asked anew");
            upstreams.load(Vec::new());
        }
    }
    let (mut config, mut roll) = (services.config.clone(), services.accounts.roll().watch());
    let mut questions = JoinSet::new();
    let mut look = Look::Known;
    let mut may_keep_from = clock::instant();
    loop {
        let now = clock::instant();
        if let Some(used) = used(services.accounts.roll(), &services.config()) {
            let wait = if look == Look::New {
                UPSTREAM_SETTLING
            } else {
                Duration::ZERO
            };
            upstreams.enlist(&used, now + wait);
            look = Look::New;
        }
        let room = UPSTREAM_QUESTIONS_MAX.saturating_sub(questions.len());
        for id in upstreams.take_due(now, room) {
            questions.spawn(ask(Arc::clone(&services), id));
        }
        let mut wake = if questions.len() < UPSTREAM_QUESTIONS_MAX {
            upstreams.next_due()
        } else {
            None
        };
        if now >= may_keep_from {
            keep(&services).await;
            may_keep_from = clock::instant() + UPSTREAM_KEEP_INTERVAL;
        } else {
            wake = Some(wake.map_or(may_keep_from, |wake| wake.min(may_keep_from)));
        }
        tokio::select! {
            () = &mut stop => break,
            changed = config.changed() => {
                look = Look::Known;
                if changed.is_err() {
                    break;
                }
            }
            Ok(()) = roll.changed() => {}
            Some(_) = questions.join_next() => {}
            () = upstreams.news.notified() => {}
            () = async {
                match wake {
                    Some(wake) => sleep_until(wake.into()).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    }
    keep(&services).await;
}

/// Brings the store up to date.
async fn keep(services: &Services) {
    let (records, forgotten) = services.upstreams.unkept();
    if records.is_empty() && forgotten.is_empty() {
        return;
    }
    let count = forgotten.len();
    match services.store.keep_upstreams(records.clone(), forgotten).await {
        Ok(()) => services.upstreams.on_kept(&records, count),
        Err(error) => debug!(%error, "what upstreams can do is not kept for now"),
    }
}

/// Asks one upstream.
async fn ask(services: Arc<Services>, id: UpstreamId) {
    // Boxed: the handshake of a STARTTLS is a part of it.
    let question = Box::pin(question(&services, &id));
    let answer = timeout(UPSTREAM_QUESTION_TIMEOUT, question).await;
    let answer = answer.unwrap_or_else(|_| Err(Fault::unavailable("the upstream did not answer in time")));
    let (answer, leg) = match answer {
        Ok((lines, leg)) => (Ok(lines), Some(leg)),
        Err(fault) => (Err(fault), None),
    };
    services.upstreams.answered(&id, answer);
    if let Some(leg) = leg {
        leave(leg, id.protocol).await;
    }
}

/// One question on a connection of its own, which comes back with the answer.
async fn question(services: &Services, id: &UpstreamId) -> Result<(Option<Vec<String>>, Leg), Fault> {
    let config = services.config();
    let gone = || Fault::unavailable("the provider is not configured any more");
    let provider = config.providers.get(&id.provider).ok_or_else(gone)?;
    let limit = config.limits.upstream_connect_timeout;
    let (endpoint, trust) = (&id.endpoint, &services.trust);
    let mut leg = open::open_at(provider, endpoint, id.protocol, trust, limit).await?;
    let mut probe = Probe::new(id.protocol, open::security(endpoint), &config.server.hostname);
    let mut buffer = open::buffer();
    loop {
        while let Some(step) = probe.poll_step() {
            match step {
                ProbeStep::Send(bytes) => open::send(&mut leg.stream, &bytes).await.map_err(Fault::unavailable)?,
                ProbeStep::Secure => {
                    leg = open::secure(leg, provider, &endpoint.host, trust, limit).await?;
                    probe.handle_secured();
                }
                ProbeStep::Told(lines) => return Ok((lines, leg)),
                ProbeStep::Failed(fault) => return Err(fault),
            }
        }
        match leg.stream.read(&mut buffer).await.map_err(Fault::unavailable)? {
            0 => probe.handle_eof(),
            count => probe.handle_bytes(buffer.get(..count).unwrap_or_default()),
        }
    }
}
