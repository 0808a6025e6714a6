//! Builds usage events from what a session knows, and gives them to the store.

use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::metrics::names;
use crate::proto::Protocol;
use crate::store::{SharedStore, TokenId, TokenUse, UsageEvent, UsageKind};

/// Writes usage events. Cheap to clone; no call waits for anything.
#[derive(Clone)]
pub struct UsageLog {
    store: SharedStore,
}

/// What every event of a session says of it.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// What is spoken.
    pub protocol: Protocol,
    /// The client's address.
    pub remote_address: IpAddr,
    /// What the client said it is (IMAP ID); printable and bounded.
    pub client: Option<String>,
}

/// What a session moved while it was logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from the client to the upstream.
    pub up: u64,
    /// Bytes from the upstream to the client.
    pub down: u64,
    /// For how long it was logged in.
    pub duration: Duration,
}

impl UsageLog {
    /// A log in `store`.
    pub fn new(store: SharedStore) -> Self {
        Self { store }
    }

    /// A client has been told that it is logged in. Also the last accepted use of its token.
    pub fn login(&self, facts: &SessionFacts, account: &str, token: TokenId, now: Timestamp) {
        let last = TokenUse {
            time: now,
            ip: facts.remote_address,
        };
        self.store.record_token_use(token, last);
        self.record(event(
            UsageKind::Login,
            facts,
            Some(account.to_owned()),
            Some(token),
            now,
        ));
    }

    /// A login was refused; the store counts those of one address, account and reason together. `account` and `token` are
    /// those that were named, where they exist (see [`crate::access::Denied`]); `reason` is the label of a
    /// [`crate::fault::FaultKind`].
    pub fn denied(
        &self,
        facts: &SessionFacts,
        account: Option<String>,
        token: Option<TokenId>,
        reason: &str,
        now: Timestamp,
    ) {
        self.record(UsageEvent {
            reason: Some(reason.to_owned()),
            count: Some(1),
            ..event(UsageKind::Denied, facts, account, token, now)
        });
    }

    /// A logged-in session ended, for `reason`.
    pub fn end(
        &self,
        facts: &SessionFacts,
        account: &str,
        token: TokenId,
        traffic: Traffic,
        reason: &str,
        now: Timestamp,
    ) {
        self.record(UsageEvent {
            reason: Some(reason.to_owned()),
            bytes_up: Some(traffic.up),
            bytes_down: Some(traffic.down),
            duration_ms: Some(u64::try_from(traffic.duration.as_millis()).unwrap_or(u64::MAX)),
            ..event(UsageKind::End, facts, Some(account.to_owned()), Some(token), now)
        });
    }

    /// An account's state changed; `reason` names the new one, and the error that it is for.
    pub fn state(&self, account: &str, reason: String, now: Timestamp) {
        self.record(UsageEvent {
            time: now,
            kind: UsageKind::State,
            protocol: None,
            account: Some(account.to_owned()),
            token: None,
            remote_address: None,
            client: None,
            reason: Some(reason),
            count: None,
            bytes_up: None,
            bytes_down: None,
            duration_ms: None,
        });
    }

    fn record(&self, event: UsageEvent) {
        names::usage_events(event.kind).increment(1);
        self.store.record_usage(event);
    }
}

fn event(
    kind: UsageKind,
    facts: &SessionFacts,
    account: Option<String>,
    token: Option<TokenId>,
    time: Timestamp,
) -> UsageEvent {
    UsageEvent {
        time,
        kind,
        protocol: Some(facts.protocol),
        account,
        token,
        remote_address: Some(facts.remote_address),
        client: facts.client.clone(),
        reason: None,
        count: None,
        bytes_up: None,
        bytes_down: None,
        duration_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;
    use crate::store::{Page, Store, TokenRecord, UsageFilter};

    #[tokio::test]
    async fn a_session_s_life_is_read_back_newest_first() {
        let parent = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&parent.path().join("state"), &MasterKeySource::Generated).unwrap();
        let id = TokenId([1; 32]);
        let token = serde_json::json!({"id": id, "scopes": ["*"], "created": Timestamp::EPOCH});
        store
            .create_token(serde_json::from_value::<TokenRecord>(token).unwrap())
            .await
            .unwrap();

        let log = UsageLog::new(store.clone());
        let facts = SessionFacts {
            protocol: Protocol::Imap,
            remote_address: [192, 0, 2, 1].into(),
            client: Some("Thunderbird".to_owned()),
        };
        let at = Timestamp::from_millis;
        let traffic = Traffic {
            up: 10,
            down: 2_000,
            duration: Duration::from_millis(1_500),
        };
        log.denied(&facts, Some("example".to_owned()), None, "unknown_credentials", at(1));
        log.login(&facts, "example", id, at(2));
        log.end(&facts, "example", id, traffic, "client_closed", at(3));

        let all = Page { page: 0, size: 10 };
        let listing = store.usage(&UsageFilter::default(), all).await.unwrap();
        let shown: Vec<_> = listing
            .entries
            .iter()
            .map(|event| serde_json::to_value(event).unwrap())
            .collect();
        let common = |kind: &str, time: u64| {
            serde_json::json!({
                "time": at(time), "kind": kind, "protocol": "imap", "account": "example", "token": id,
                "remoteAddress": "192.0.2.1", "client": "Thunderbird",
            })
        };
        let mut expected = [common("end", 3), common("login", 2), common("denied", 1)];
        expected[0]["reason"] = "client_closed".into();
        expected[0]["bytesUp"] = 10.into();
        expected[0]["bytesDown"] = 2_000.into();
        expected[0]["durationMs"] = 1_500.into();
        expected[2]["reason"] = "unknown_credentials".into();
        expected[2]["count"] = 1.into();
        expected[2]["token"] = serde_json::Value::Null;
        assert_eq!(shown, expected);

        let last = store.token_use(&id).await.unwrap().unwrap();
        assert_eq!((last.time, last.ip), (at(2), facts.remote_address));
    }
}
