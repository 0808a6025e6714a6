//! What upstreams were heard to do, and what clients are promised of it before their login (see [`crate::proto::promise`]).
//!
//! A client asks what it may do before anybody knows which account it will log in to. So it is told what every upstream has
//! that an account is at ([`Roll`]); of one that was not heard yet nothing is promised. A listener that is for one provider
//! counts that provider's accounts alone.
//!
//! Upstreams are heard in two ways: [`asking`] asks each without a login, at the start and daily, and every login brings what
//! is known up to date. It is kept in the store, so that the first client after a restart is told what the last one was.

mod asking;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::debug;

use crate::account::{Roll, UpstreamTarget};
use crate::clock::{self, Timestamp};
use crate::config::Config;
use crate::fault::Fault;
use crate::limits::{
    PROMISE_WAIT, UPSTREAM_ASKED_ROUNDING, UPSTREAM_QUESTION_INTERVAL, UPSTREAM_RETRY_MAX, UPSTREAM_RETRY_MIN,
    UPSTREAMS_KNOWN_MAX,
};
use crate::proto::Protocol;
use crate::proto::promise::{Moment, Said, Told, shared};
use crate::store::{UpstreamId, UpstreamRecord};

pub use asking::ask_upstreams;

/// What is known of upstreams.
#[derive(Debug, Default)]
pub struct Upstreams {
    known: Mutex<Known>,
    /// Something is to be kept.
    news: Notify,
    /// Whether what was kept has been read.
    is_loaded: watch::Sender<bool>,
    jitter: RandomState,
}

/// An upstream as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamState {
    /// Which it is.
    pub id: UpstreamId,
    /// What it can do, as far as clients may be promised it; `None` until it was heard.
    pub can: Option<Vec<String>>,
    /// When it was last heard.
    pub asked: Option<Timestamp>,
    /// Why it could not be asked, the last time that it was tried.
    pub error: Option<String>,
}

/// The lock around it is held for a look-up; after a change, once for as long as it takes to compare what is known.
#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<UpstreamId, Upstream>,
    /// Which are to be forgotten by the store.
    forgotten: Vec<UpstreamId>,
    /// Counts the changes of what was told.
    version: u64,
    /// What was promised last, until something of it changes.
    promises: HashMap<(Protocol, Option<String>), Promise>,
}

#[derive(Debug)]
struct Promise {
    config: Weak<Config>,
    roll: u64,
    known: u64,
    lines: Arc<[String]>,
}

/// What is known of one upstream.
#[derive(Debug, Default)]
struct Upstream {
    heard: Option<Heard>,
    /// What of it the store has.
    kept: Option<Heard>,
    /// When it is to be asked; `None` where nobody needs to know, and while it is being asked.
    due: Option<Instant>,
    is_being_asked: bool,
    /// How often in a row it could not be asked.
    failures: u32,
    error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    /// `None`: it does not answer such questions.
    told: Option<Told>,
    at: Timestamp,
}

impl Upstreams {
    /// An upstream said what it can do, as it was logged in on for `target`.
    pub(super) fn learn(&self, target: &UpstreamTarget, protocol: Protocol, said: &Said) {
        let id = UpstreamId {
            provider: target.provider.name.clone(),
            protocol,
            endpoint: target.endpoint.clone(),
        };
        self.hear(&id, Some(said));
    }

    /// The lines that a client is promised on a listener that is for `provider`, or for all.
    pub(super) fn promised(
        &self,
        roll: &Roll,
        config: &Arc<Config>,
        protocol: Protocol,
        provider: Option<&str>,
    ) -> Arc<[String]> {
        let of_roll = roll.version();
        let mut known = self.lock();
        let key = (protocol, provider.map(str::to_owned));
        let version = known.version;
        if let Some(promise) = known.promises.get(&key)
            && (promise.roll, promise.known) == (of_roll, version)
            && Weak::as_ptr(&promise.config) == Arc::as_ptr(config)
        {
            return promise.lines.clone();
        }
        let upstreams = roll.upstreams(config, protocol, provider).unwrap_or_default();
        let told: Vec<_> = upstreams.iter().map(|id| known.told(id)).collect();
        let lines: Arc<[String]> = shared(protocol, &told).into();
        let promise = Promise {
            // The weak reference keeps the address from being another configuration's.
            config: Arc::downgrade(config),
            roll: of_roll,
            known: version,
            lines: lines.clone(),
        };
        known.promises.insert(key, promise);
        lines
    }

    /// Waits until it is known what may be promised, in the first moments after the start; not for long.
    pub(super) async fn settled(&self, roll: &Roll) {
        let settled = async {
            roll.complete().await;
            // It lives as long as its sender.
            self.is_loaded.subscribe().wait_for(|is_loaded| *is_loaded).await.ok();
        };
        // What is not known by then is not promised.
        tokio::time::timeout(PROMISE_WAIT, settled).await.ok();
    }

    /// The upstreams that accounts are at under `config`, in order, for an administrator.
    pub fn states(&self, roll: &Roll, config: &Config) -> Vec<UpstreamState> {
        let used = used(roll, config).unwrap_or_default();
        let known = self.lock();
        let mut states: Vec<_> = used.into_iter().map(|id| known.state(id)).collect();
        drop(known);
        states.sort_by_cached_key(|state| {
            let id = &state.id;
            let (host, port) = (id.endpoint.host.clone(), id.endpoint.port);
            (id.protocol, id.provider.clone(), host, port)
        });
        states
    }

    /// Takes over what the store has kept. What was heard since is newer.
    fn load(&self, records: Vec<UpstreamRecord>) {
        let (now, today) = (clock::instant(), clock::now());
        let mut known = self.lock();
        for UpstreamRecord { id, told, asked } in records.into_iter().take(UPSTREAMS_KNOWN_MAX) {
            let wait = self.interval(&id).saturating_sub(today.since(asked));
            let upstream = known.by_id.entry(id).or_default();
            let kept = Heard { told, at: asked };
            upstream.kept = Some(kept.clone());
            if upstream.heard.is_none() {
                (upstream.heard, upstream.due) = (Some(kept), Some(now + wait));
            }
        }
        known.version += 1;
        drop(known);
        self.is_loaded.send_replace(true);
    }

    /// These are the upstreams that accounts are at; those among them that are new are to be asked at `due`. The others are
    /// not asked any more, and forgotten after a while.
    fn enlist(&self, used: &HashSet<UpstreamId>, due: Instant) {
        let today = clock::now();
        let mut known = self.lock();
        for id in used {
            if known.by_id.len() >= UPSTREAMS_KNOWN_MAX && !known.by_id.contains_key(id) {
                continue;
            }
            let upstream = known.by_id.entry(id.clone()).or_default();
            if upstream.due.is_none() && !upstream.is_being_asked {
                upstream.due = Some(due);
            }
        }
        let is_fresh = |heard: &Heard| today.since(heard.at) < UPSTREAM_QUESTION_INTERVAL;
        let mut forgotten = Vec::new();
        known.by_id.retain(|id, upstream| {
            if used.contains(id) {
                return true;
            }
            upstream.due = None;
            // A login that was tried before its account was added may have taught it.
            let stays = upstream.is_being_asked || upstream.heard.as_ref().is_some_and(is_fresh);
            if !stays && upstream.kept.is_some() {
                forgotten.push(id.clone());
            }
            stays
        });
        known.forgotten.extend(forgotten);
    }

    /// Up to `count` upstreams that are to be asked now. Each is to be reported by [`Upstreams::answered`].
    fn take_due(&self, now: Instant, count: usize) -> Vec<UpstreamId> {
        let mut known = self.lock();
        let due = known
            .by_id
            .iter_mut()
            .filter(|(_, upstream)| upstream.due.is_some_and(|due| due <= now));
        due.take(count)
            .map(|(id, upstream)| {
                (upstream.due, upstream.is_being_asked) = (None, true);
                id.clone()
            })
            .collect()
    }

    /// When the next upstream is to be asked.
    fn next_due(&self) -> Option<Instant> {
        self.lock().by_id.values().filter_map(|upstream| upstream.due).min()
    }

    /// What came of asking an upstream.
    fn answered(&self, id: &UpstreamId, answer: Result<Option<Vec<String>>, Fault>) {
        match answer {
            Ok(lines) => {
                let said = lines.map(|lines| Said {
                    moment: Moment::BeforeLogin,
                    lines,
                });
                self.hear(id, said.as_ref());
            }
            Err(fault) => self.on_failed(id, &fault),
        }
    }

    fn on_failed(&self, id: &UpstreamId, fault: &Fault) {
        let (provider, protocol, endpoint) = (&id.provider, id.protocol, &id.endpoint);
        let mut known = self.lock();
        let Some(upstream) = known.by_id.get_mut(id) else {
            return;
        };
        let doublings = upstream.failures.min(UPSTREAM_RETRY_DOUBLINGS_MAX);
        let wait = (UPSTREAM_RETRY_MIN * 2_u32.pow(doublings)).min(UPSTREAM_RETRY_MAX);
        upstream.is_being_asked = false;
        upstream.due = Some(clock::instant() + wait);
        upstream.failures += 1;
        upstream.error = Some(fault.detail.clone());
        let is_first = upstream.failures == 1;
        drop(known);
        let (host, port) = (&endpoint.host, endpoint.port);
        if is_first {
            tracing::info!(
                provider, %protocol, host, port, %fault,
                "an upstream could not be asked what it can do; it is asked again now and then, and by every login"
            );
        } else {
            debug!(provider, %protocol, host, port, %fault, "an upstream still could not be asked what it can do");
        }
    }

    /// An upstream was heard; without `said`, to say that it has nothing to say.
    fn hear(&self, id: &UpstreamId, said: Option<&Said>) {
        let (now, today) = (clock::instant(), clock::now());
        let next = now + self.interval(id);
        let mut known = self.lock();
        if known.by_id.len() >= UPSTREAMS_KNOWN_MAX && !known.by_id.contains_key(id) {
            return;
        }
        let upstream = known.by_id.entry(id.clone()).or_default();
        let before = upstream.heard.take();
        let mut told = before.as_ref().and_then(|heard| heard.told.clone());
        if let Some(said) = said {
            told.get_or_insert_default().hear(id.protocol, said);
        }
        let is_news = before.is_none_or(|before| before.told != told);
        upstream.heard = Some(Heard { told, at: today });
        (upstream.failures, upstream.error, upstream.is_being_asked) = (0, None, false);
        upstream.due = Some(next);
        let has_to_be_kept = upstream.has_to_be_kept();
        let can = is_news.then(|| upstream.lines().join(", "));
        if is_news {
            known.version += 1;
        }
        drop(known);
        if let Some(can) = can {
            let (provider, protocol, host) = (&id.provider, id.protocol, &id.endpoint.host);
            debug!(provider, %protocol, host, can, "learned what an upstream can do");
        }
        if has_to_be_kept {
            self.news.notify_one();
        }
    }

    /// What the store is to keep and to forget.
    fn unkept(&self) -> (Vec<UpstreamRecord>, Vec<UpstreamId>) {
        let known = self.lock();
        let unkept = known.by_id.iter().filter(|(_, upstream)| upstream.has_to_be_kept());
        let records = unkept.filter_map(|(id, upstream)| {
            let heard = upstream.heard.clone()?;
            Some(UpstreamRecord {
                id: id.clone(),
                told: heard.told,
                asked: heard.at,
            })
        });
        (records.collect(), known.forgotten.clone())
    }

    /// The store has done as [`Upstreams::unkept`] said.
    fn on_kept(&self, records: &[UpstreamRecord], forgotten: usize) {
        let mut known = self.lock();
        for UpstreamRecord { id, told, asked } in records {
            if let Some(upstream) = known.by_id.get_mut(id) {
                upstream.kept = Some(Heard {
                    told: told.clone(),
                    at: *asked,
                });
            }
        }
        known.forgotten.drain(..forgotten);
    }

    /// How long what an upstream said counts as fresh: a day, and a little more or less, so that upstreams which were heard
    /// together are not asked together.
    fn interval(&self, id: &UpstreamId) -> Duration {
        let tenths = self.jitter.hash_one(id) % JITTER_STEPS;
        let percent = JITTER_PERCENT_LEAST + u32::try_from(tenths).unwrap_or_default();
        UPSTREAM_QUESTION_INTERVAL * percent / 100
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is known is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn told(&self, id: &UpstreamId) -> Option<&Told> {
        self.by_id.get(id)?.heard.as_ref()?.told.as_ref()
    }

    fn state(&self, id: UpstreamId) -> UpstreamState {
        let upstream = self.by_id.get(&id);
        let heard = upstream.and_then(|upstream| upstream.heard.as_ref());
        UpstreamState {
            can: heard.map(|heard| heard.lines().to_vec()),
            asked: heard.map(|heard| heard.at),
            error: upstream.and_then(|upstream| upstream.error.clone()),
            id,
        }
    }
}

impl Upstream {
    fn lines(&self) -> &[String] {
        self.heard.as_ref().map_or(&[], Heard::lines)
    }

    /// Whether the store has something else, or has it from so long ago that it would be asked again after a restart.
    fn has_to_be_kept(&self) -> bool {
        match (&self.heard, &self.kept) {
            (Some(heard), Some(kept)) => heard.told != kept.told || heard.at.since(kept.at) >= UPSTREAM_ASKED_ROUNDING,
            (heard, _) => heard.is_some(),
        }
    }
}

impl Heard {
    fn lines(&self) -> &[String] {
        self.told.as_ref().map_or(&[], Told::lines)
    }
}

/// The upstreams that accounts are at, for the protocols of listeners; `None` until that is known.
fn used(roll: &Roll, config: &Config) -> Option<HashSet<UpstreamId>> {
    let served: HashSet<Protocol> = config.listeners.iter().map(|listener| listener.protocol).collect();
    let mut used = HashSet::new();
    for protocol in served {
        used.extend(roll.upstreams(config, protocol, None)?);
    }
    Some(used)
}

/// The wait reaches [`UPSTREAM_RETRY_MAX`] long before.
const UPSTREAM_RETRY_DOUBLINGS_MAX: u32 = 16;

/// From 90 to 110 per cent.
const JITTER_PERCENT_LEAST: u32 = 90;
const JITTER_STEPS: u64 = 21;

#[cfg(test)]
mod tests;
