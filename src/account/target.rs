//! Where an account's mailbox is, and under which name its owner is known there. Pure.

use std::sync::Arc;

use crate::config::{Config, Endpoint, Provider};
use crate::fault::{Fault, FaultKind};
use crate::proto::{Credential, CredentialSecret, Protocol};
use crate::store::{AccountRecord, EndpointOverride};

/// Where to connect and what to present there.
#[derive(Debug, Clone)]
pub struct UpstreamTarget {
    /// What to present.
    pub credential: Credential,
    /// The provider, for its mechanisms and trust anchors.
    pub provider: Arc<Provider>,
    /// Where to connect: the account's own endpoint, else the provider's.
    pub endpoint: Endpoint,
    /// Which of the account's credentials this is; goes with what is reported of it later.
    pub grant: u64,
}

/// An [`UpstreamTarget`] without its secret.
#[derive(Debug, Clone)]
pub struct Place {
    /// The login name at the upstream.
    pub user: String,
    /// The provider, for its mechanisms and trust anchors.
    pub provider: Arc<Provider>,
    /// Where to connect: the account's own endpoint, else the provider's.
    pub endpoint: Endpoint,
}

impl Place {
    /// Where `record`'s mailbox is for `protocol`.
    ///
    /// # Errors
    /// [`FaultKind::ProtocolNotOffered`] if its provider is not configured or has no such endpoint.
    pub fn find(record: &AccountRecord, config: &Config, protocol: Protocol) -> Result<Self, Fault> {
        let missing = |what: String| Fault::with_detail(FaultKind::ProtocolNotOffered, what);
        let Some(provider) = config.providers.get(&record.provider) else {
            return Err(missing(format!("provider '{}' is not configured", record.provider)));
        };
        let own = record.own(protocol);
        let endpoint = own
            .and_then(|own| own.endpoint.as_ref())
            .or_else(|| provider.endpoint(protocol))
            .cloned()
            .ok_or_else(|| missing(format!("provider '{}' has no {protocol} endpoint", provider.name)))?;
        Ok(Self {
            user: user(record, own, provider, protocol),
            provider: Arc::clone(provider),
            endpoint,
        })
    }

    /// Logs in under the name that came with an access token, if one did, unless `record` gives another.
    pub(super) fn with_user_of_token(self, record: &AccountRecord, protocol: Protocol, named: Option<&str>) -> Self {
        match named {
            Some(user) if given_user(record, record.own(protocol)).is_none() => Self {
                user: user.to_owned(),
                ..self
            },
            _ => self,
        }
    }

    /// Completes this place with a secret.
    pub(crate) fn with_secret(self, secret: CredentialSecret, grant: u64) -> UpstreamTarget {
        UpstreamTarget {
            credential: Credential {
                user: self.user,
                secret,
            },
            provider: self.provider,
            endpoint: self.endpoint,
            grant,
        }
    }
}

/// The name that the account gives for the protocol or for all of them, else what its provider makes of its address.
fn user(record: &AccountRecord, own: Option<&EndpointOverride>, provider: &Provider, protocol: Protocol) -> String {
    if let Some(given) = given_user(record, own) {
        return given.clone();
    }
    let address = record.email.as_ref().unwrap_or(&record.account);
    let rule = match protocol {
        Protocol::Imap => provider.imap_user,
        Protocol::Smtp | Protocol::Pop3 => provider.user,
    };
    rule.apply(address).to_owned()
}

/// The name that the account itself gives.
fn given_user<'a>(record: &'a AccountRecord, own: Option<&'a EndpointOverride>) -> Option<&'a String> {
    own.and_then(|own| own.user.as_ref()).or(record.user.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::tests::support::{account, config};
    use crate::config::{UpstreamTls, UserRule};

    fn own(user: Option<&str>) -> EndpointOverride {
        EndpointOverride {
            endpoint: Some(Endpoint {
                host: "own.example.com".to_owned(),
                port: 1993,
                tls: UpstreamTls::Starttls,
            }),
            user: user.map(str::to_owned),
        }
    }

    #[test]
    fn the_most_particular_name_wins() {
        let mut record = account("ada");
        let named = |record: &AccountRecord| Place::find(record, &config(), Protocol::Imap).unwrap().user;
        record.email = None;
        assert_eq!(named(&record), "ada");
        record.email = Some("ada@example.com".to_owned());
        assert_eq!(named(&record), "ada@example.com");
        record.user = Some("shared@example.com".to_owned());
        assert_eq!(named(&record), "shared@example.com");
        record.imap = Some(own(None));
        assert_eq!(named(&record), "shared@example.com");
        record.imap = Some(own(Some("imap-name")));
        assert_eq!(named(&record), "imap-name");
    }

    #[test]
    fn a_name_for_one_protocol_leaves_the_providers_endpoint_and_the_other_protocols() {
        let mut record = account("shared");
        let mut config = config();
        let provider = Provider {
            smtp: Some(Endpoint {
                host: "smtp.example.com".to_owned(),
                port: 587,
                tls: UpstreamTls::Starttls,
            }),
            ..Provider::clone(&config.providers["example"])
        };
        config.providers.insert("example".to_owned(), Arc::new(provider));
        record.smtp = Some(EndpointOverride {
            endpoint: None,
            user: Some("delegate@example.com".to_owned()),
        });
        let place = |protocol| {
            let place = Place::find(&record, &config, protocol).unwrap();
            (place.user, place.endpoint.host)
        };
        let named = |user: &str, host: &str| (user.to_owned(), host.to_owned());
        assert_eq!(place(Protocol::Smtp), named("delegate@example.com", "smtp.example.com"));
        assert_eq!(place(Protocol::Imap), named("shared@example.com", "imap.example.com"));
        record.pop3.clone_from(&record.smtp);
        let fault = Place::find(&record, &config, Protocol::Pop3).unwrap_err();
        assert_eq!(fault.kind, FaultKind::ProtocolNotOffered);
    }

    #[test]
    fn the_name_that_comes_with_a_token_gives_way_to_one_that_the_account_gives() {
        let mut record = account("ada");
        let named = |record: &AccountRecord, named| {
            let place = Place::find(record, &config(), Protocol::Imap).unwrap();
            place.with_user_of_token(record, Protocol::Imap, named).user
        };
        assert_eq!(named(&record, None), "ada@example.com");
        assert_eq!(named(&record, Some("ada.l@example.com")), "ada.l@example.com");
        record.imap = Some(own(Some("imap-name")));
        assert_eq!(named(&record, Some("ada.l@example.com")), "imap-name");
    }

    #[test]
    fn icloud_is_given_the_local_part_unless_a_name_was_given() {
        let mut record = account("ada");
        record.provider = "icloud".to_owned();
        record.email = Some("ada@icloud.com".to_owned());
        assert_eq!(Place::find(&record, &config(), Protocol::Imap).unwrap().user, "ada");
        record.user = Some("ada@icloud.com".to_owned());
        assert_eq!(
            Place::find(&record, &config(), Protocol::Imap).unwrap().user,
            "ada@icloud.com"
        );
    }

    #[test]
    fn a_provider_tells_what_it_takes_for_submission_and_pop3_too() {
        let record = account("ada");
        let mut config = config();
        let endpoint = own(None).endpoint;
        let provider = Provider {
            smtp: endpoint.clone(),
            pop3: endpoint,
            user: UserRule::LocalPart,
            ..Provider::clone(&config.providers["example"])
        };
        config.providers.insert("example".to_owned(), Arc::new(provider));
        let named = |protocol| Place::find(&record, &config, protocol).unwrap().user;
        let names = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3].map(named);
        assert_eq!(names, ["ada@example.com", "ada", "ada"]);
    }

    #[test]
    fn the_accounts_own_endpoint_goes_before_the_providers() {
        let mut record = account("ada");
        let place = |record: &AccountRecord, protocol| Place::find(record, &config(), protocol);
        assert_eq!(
            place(&record, Protocol::Imap).unwrap().endpoint.host,
            "imap.example.com"
        );
        record.imap = Some(own(None));
        let endpoint = place(&record, Protocol::Imap).unwrap().endpoint;
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port, endpoint.tls),
            ("own.example.com", 1993, UpstreamTls::Starttls)
        );
        assert_eq!(
            place(&record, Protocol::Pop3).unwrap_err().kind,
            FaultKind::ProtocolNotOffered
        );
        record.provider = "gone".to_owned();
        let fault = place(&record, Protocol::Imap).unwrap_err();
        assert_eq!(fault.kind, FaultKind::ProtocolNotOffered);
        assert_eq!(fault.detail, "provider 'gone' is not configured");
    }
}
