//! The roll: which kinds of accounts there are, as far as their upstreams are concerned.
//!
//! What may be promised to a client depends on every upstream that an account is at, and must cost nothing at each connection.
//! So what accounts have in common is kept once: their provider, and the endpoints that they have of their own. It is written
//! by a walk over all accounts, at the start and whenever an account may have been the last of its kind; new kinds are added
//! at once. A disabled account is at no upstream.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::accounts::Accounts;
use crate::clock;
use crate::config::{Config, Endpoint};
use crate::limits::{KEEPING_PAGE, ROLL_REST_FACTOR, ROLL_REST_MIN};
use crate::proto::Protocol;
use crate::store::{AccountRecord, AccountState, StoreError, UpstreamId};

/// Which kinds of accounts there are.
#[derive(Debug)]
pub struct Roll {
    kinds: Mutex<Kinds>,
    /// Counts the changes.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Kinds {
    enrolled: HashSet<Kind>,
    /// What was added while a walk is under way, which may have passed it.
    added: Vec<Kind>,
    /// Whether all accounts have been walked over since the start.
    is_complete: bool,
    /// Whether one of a kind may have been the last.
    is_stale: bool,
}

/// What accounts may have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    provider: String,
    imap: Option<Endpoint>,
    smtp: Option<Endpoint>,
    pop3: Option<Endpoint>,
}

impl Default for Roll {
    fn default() -> Self {
        Self {
            kinds: Mutex::default(),
            version: watch::Sender::new(0),
        }
    }
}

impl Roll {
    /// The upstreams for `protocol` that accounts are at under `config`: of one provider, or of all. `None` until the first
    /// walk is over.
    pub fn upstreams(
        &self,
        config: &Config,
        protocol: Protocol,
        provider: Option<&str>,
    ) -> Option<HashSet<UpstreamId>> {
        let kinds = self.lock();
        let wanted = kinds.enrolled.iter();
        let wanted = wanted.filter(|kind| provider.is_none_or(|provider| kind.provider == provider));
        let upstreams = wanted.filter_map(|kind| kind.upstream(config, protocol)).collect();
        kinds.is_complete.then_some(upstreams)
    }

    /// Hears of changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// How often it has changed.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// Waits until the first walk is over.
    pub async fn complete(&self) {
        // It lives as long as its sender.
        self.watch().wait_for(|_| self.lock().is_complete).await.ok();
    }

    /// There is this account, as it is now.
    pub(super) fn note(&self, record: &AccountRecord) {
        if record.state == AccountState::Disabled {
            return;
        }
        let kind = Kind::of(record);
        let mut kinds = self.lock();
        if kinds.enrolled.contains(&kind) {
            return;
        }
        kinds.added.push(kind.clone());
        kinds.enrolled.insert(kind);
        drop(kinds);
        self.version.send_modify(|version| *version += 1);
    }

    /// An account was changed or removed.
    pub(super) fn note_gone(&self) {
        self.lock().is_stale = true;
        self.version.send_modify(|version| *version += 1);
    }

    fn begin_walk(&self) {
        let mut kinds = self.lock();
        (kinds.is_stale, kinds.added) = (false, Vec::new());
    }

    fn end_walk(&self, walked: HashSet<Kind>) {
        let mut kinds = self.lock();
        kinds.enrolled = walked;
        let added = std::mem::take(&mut kinds.added);
        kinds.enrolled.extend(added);
        kinds.is_complete = true;
        drop(kinds);
        self.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        // What is enrolled is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn of(record: &AccountRecord) -> Self {
        let own = |own: &Option<crate::store::EndpointOverride>| own.as_ref().and_then(|own| own.endpoint.clone());
        Self {
            provider: record.provider.clone(),
            imap: own(&record.imap),
            smtp: own(&record.smtp),
            pop3: own(&record.pop3),
        }
    }

    /// Where such accounts are for `protocol`, as [`Place::find`](super::Place::find) finds it.
    fn upstream(&self, config: &Config, protocol: Protocol) -> Option<UpstreamId> {
        let provider = config.providers.get(&self.provider)?;
        let own = match protocol {
            Protocol::Imap => &self.imap,
            Protocol::Smtp => &self.smtp,
            Protocol::Pop3 => &self.pop3,
        };
        let endpoint = own.as_ref().or_else(|| provider.endpoint(protocol))?;
        Some(UpstreamId {
            provider: self.provider.clone(),
            protocol,
            endpoint: endpoint.clone(),
        })
    }
}

/// Keeps the roll of `accounts` until `stop` is ready.
pub async fn keep(accounts: Accounts, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut changes = accounts.roll().watch();
    loop {
        let begun = clock::instant();
        if let Err(error) = accounts.call_the_roll().await {
            tracing::debug!(%error, "not all accounts could be looked at for their upstreams");
            accounts.roll().lock().is_stale = true;
        }
        // However many accounts there are and however often they change, this is a small part of the machine's work.
        let took = clock::instant().saturating_duration_since(begun);
        let rest = (took * ROLL_REST_FACTOR).max(ROLL_REST_MIN);
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(rest) => {}
        }
        tokio::select! {
            () = &mut stop => return,
            stale = changes.wait_for(|_| accounts.roll().lock().is_stale) => if stale.is_err() {
                return;
            },
        }
    }
}

impl Accounts {
    /// Which kinds of accounts there are.
    pub fn roll(&self) -> &Roll {
        &self.shared.roll
    }

    async fn call_the_roll(&self) -> Result<(), StoreError> {
        self.roll().begin_walk();
        let (mut walked, mut after) = (HashSet::new(), None);
        loop {
            let page = self.store().accounts_after(after.as_deref(), KEEPING_PAGE).await?;
            let Some(last) = page.last() else {
                self.roll().end_walk(walked);
                return Ok(());
            };
            after = Some(last.account.clone());
            let enabled = page.iter().filter(|record| record.state != AccountState::Disabled);
            walked.extend(enabled.map(Kind::of));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::tests::support::{account, config};
    use crate::config::UpstreamTls;
    use crate::store::EndpointOverride;

    fn hosts(roll: &Roll, provider: Option<&str>) -> Option<Vec<String>> {
        let upstreams = roll.upstreams(&config(), Protocol::Imap, provider)?;
        let mut hosts: Vec<_> = upstreams.into_iter().map(|upstream| upstream.endpoint.host).collect();
        hosts.sort();
        Some(hosts)
    }

    #[test]
    fn upstreams_are_those_of_accounts_with_their_own_endpoints() {
        let roll = Roll::default();
        assert_eq!(hosts(&roll, None), None, "not walked yet");
        roll.begin_walk();
        let ada = account("ada");
        let mut own = account("own");
        own.imap = Some(EndpointOverride {
            endpoint: Some(Endpoint {
                host: "own.example.com".to_owned(),
                port: 993,
                tls: UpstreamTls::Implicit,
            }),
            user: None,
        });
        let mut stranger = account("stranger");
        stranger.provider = "gone".to_owned();
        let mut disabled = account("disabled");
        disabled.state = AccountState::Disabled;
        disabled.imap = own.imap.clone();
        for record in [&ada, &stranger, &disabled] {
            roll.note(record);
        }
        roll.end_walk(HashSet::new());
        assert_eq!(
            hosts(&roll, None).unwrap(),
            ["imap.example.com"],
            "added while it was walked"
        );
        roll.note(&own);
        assert_eq!(hosts(&roll, None).unwrap(), ["imap.example.com", "own.example.com"]);
        assert_eq!(hosts(&roll, Some("example")).unwrap().len(), 2);
        assert_eq!(hosts(&roll, Some("icloud")).unwrap(), Vec::<String>::new());
        assert!(roll.upstreams(&config(), Protocol::Pop3, None).unwrap().is_empty());

        roll.note_gone();
        assert!(roll.lock().is_stale);
        roll.begin_walk();
        roll.end_walk(HashSet::from([Kind::of(&ada)]));
        assert_eq!(
            hosts(&roll, None).unwrap(),
            ["imap.example.com"],
            "the last of its kind is gone"
        );
    }

    #[test]
    fn a_kind_that_is_there_changes_nothing() {
        let roll = Roll::default();
        roll.note(&account("ada"));
        let mut changes = roll.watch();
        roll.note(&account("bob"));
        assert!(!changes.has_changed().unwrap());
        roll.note_gone();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
    }
}
