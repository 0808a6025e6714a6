//! What is kept of upstreams: what each was heard to do.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::{Endpoint, UpstreamTls};
use crate::proto::Protocol;
use crate::proto::promise::Told;

/// An upstream: an endpoint of one protocol, as a provider's accounts reach it. One that two providers name is two: each has
/// its own trust anchors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamId {
    /// The provider's name in the configuration.
    pub provider: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is: the provider's endpoint, or an account's own.
    pub endpoint: Endpoint,
}

/// What an upstream was heard to do, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
pub struct UpstreamRecord {
    /// Which it is.
    pub id: UpstreamId,
    /// What it told; `None` where it was asked and does not answer such questions.
    pub told: Option<Told>,
    /// When it was last heard.
    pub asked: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    provider: String,
    protocol: Protocol,
    host: String,
    port: u16,
    tls: UpstreamTls,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<Told>,
    asked: Timestamp,
}

impl From<Fields> for UpstreamRecord {
    fn from(fields: Fields) -> Self {
        let Fields {
            provider,
            protocol,
            host,
            port,
            tls,
            told,
            asked,
        } = fields;
        let endpoint = Endpoint { host, port, tls };
        Self {
            id: UpstreamId {
                provider,
                protocol,
                endpoint,
            },
            told,
            asked,
        }
    }
}

impl From<UpstreamRecord> for Fields {
    fn from(record: UpstreamRecord) -> Self {
        let UpstreamRecord { id, told, asked } = record;
        let Endpoint { host, port, tls } = id.endpoint;
        Self {
            provider: id.provider,
            protocol: id.protocol,
            host,
            port,
            tls,
            told,
            asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::proto::promise::{Moment, Said};
    use crate::store::Store;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;

    fn record(provider: &str, protocol: Protocol, tls: UpstreamTls) -> UpstreamRecord {
        let mut told = Told::default();
        let said = Said {
            moment: Moment::BeforeLogin,
            lines: vec!["UIDL".to_owned()],
        };
        told.hear(Protocol::Pop3, &said);
        UpstreamRecord {
            id: UpstreamId {
                provider: provider.to_owned(),
                protocol,
                endpoint: Endpoint {
                    host: "::1".to_owned(),
                    port: 995,
                    tls,
                },
            },
            told: Some(told),
            asked: Timestamp::from_millis(5),
        }
    }

    #[tokio::test]
    async fn what_upstreams_can_do_is_read_again_and_each_is_another_for_another_provider_protocol_or_tls() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let open = || EmbeddedStore::open(directory.path(), &MasterKeySource::Generated).unwrap();
        let store = open();
        assert_eq!(store.upstreams().await.unwrap(), []);
        let mut kept = vec![
            record("one", Protocol::Pop3, UpstreamTls::Implicit),
            record("one", Protocol::Pop3, UpstreamTls::Starttls),
            record("one", Protocol::Imap, UpstreamTls::Implicit),
            record("one/pop3", Protocol::Pop3, UpstreamTls::Off),
        ];
        store.keep_upstreams(kept.clone(), Vec::new()).await.unwrap();
        let gone = kept.remove(1).id;
        kept[0].told = None;
        store.keep_upstreams(vec![kept[0].clone()], vec![gone]).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let mut read = open().upstreams().await.unwrap();
        let order = |record: &UpstreamRecord| format!("{:?}", record.id);
        read.sort_by_key(order);
        kept.sort_by_key(order);
        assert_eq!(read, kept);
    }
}
