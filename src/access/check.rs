//! Whether a login or a call is admitted.
//!
//! A token is looked up by its hash, so that how long a comparison takes tells nothing about any token. The account and the
//! token are both looked up whatever comes of either, so that an unknown user costs what a known one does.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::scope::Scope;
use super::token::{AccessToken, id_of};
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{AccountRecord, AccountState, Restrictions, Store, StoreError, TokenId, TokenRecord};

/// An admitted login.
#[derive(Debug, Clone)]
pub struct Authenticated {
    /// The account it is for.
    pub account: AccountRecord,
    /// The token that was presented.
    pub token: TokenRecord,
}

/// A refused login, and what it is filed under in the usage log.
#[derive(Debug, Clone)]
pub struct Denied {
    /// Why.
    pub fault: Fault,
    /// The account that was named, if it exists.
    pub account: Option<String>,
    /// The token that was presented, if it exists.
    pub token: Option<TokenId>,
}

/// What a caller of the admin API has shown; what it may do is for `admin` to say.
#[derive(Debug, Clone)]
pub enum Bearer {
    /// The root token of the configuration.
    ConfiguredRoot,
    /// An access token of the store.
    Token(Box<TokenRecord>),
}

/// Admits a login to mail: the account id or e-mail `user` (`None`: the token's own account) with an access token in the
/// password's place, for `scope`, from `address`.
///
/// # Errors
/// In the order of INTERFACE §5's table: [`FaultKind::UnknownCredentials`], [`FaultKind::ForeignToken`],
/// [`FaultKind::ScopeMissing`], [`FaultKind::AddressNotAllowed`], [`FaultKind::TokenExpired`]; then
/// [`FaultKind::AccountDisabled`]. [`FaultKind::Unavailable`] where the store cannot be read.
pub async fn authenticate(
    store: &dyn Store,
    user: Option<&str>,
    secret: &SecretString,
    scope: Scope,
    address: IpAddr,
    now: Timestamp,
) -> Result<Authenticated, Denied> {
    let token = presented_token(store, secret).await.map_err(Denied::from)?;
    // Without a user name it is the token that names the account.
    let named = match (user, token.as_ref().and_then(|token| token.account.as_deref())) {
        (Some(user), _) => store.account_by_login(user).await,
        (None, Some(owner)) => store.account(owner).await,
        (None, None) => Ok(None),
    };
    let named = named.map_err(Denied::from)?;

    let denied = |kind: FaultKind| Denied {
        fault: Fault::new(kind),
        account: named.as_ref().map(|account| account.account.clone()),
        token: token.as_ref().map(|token| token.id),
    };
    let (Some(account), Some(token)) = (&named, &token) else {
        return Err(denied(FaultKind::UnknownCredentials));
    };
    let Some(owner) = &token.account else {
        // A root token is for the admin API alone.
        return Err(denied(FaultKind::UnknownCredentials));
    };
    if *owner != account.account {
        return Err(denied(FaultKind::ForeignToken));
    }
    if !scope.is_granted_by(&token.scopes) {
        return Err(denied(FaultKind::ScopeMissing));
    }
    check_use(token, address, now).map_err(denied)?;
    if account.state == AccountState::Disabled {
        return Err(denied(FaultKind::AccountDisabled));
    }
    Ok(Authenticated {
        account: account.clone(),
        token: token.clone(),
    })
}

/// Recognises a caller of the admin API by the bearer token `secret`, from `address`. `root` is the root token of the
/// configuration.
///
/// # Errors
/// [`FaultKind::UnknownCredentials`], [`FaultKind::AddressNotAllowed`], [`FaultKind::TokenExpired`];
/// [`FaultKind::Unavailable`] where the store cannot be read.
pub async fn recognize(
    store: &dyn Store,
    root: Option<&SecretString>,
    secret: &SecretString,
    address: IpAddr,
    now: Timestamp,
) -> Result<Bearer, Fault> {
    if root.is_some_and(|root| is_same(root, secret)) {
        return Ok(Bearer::ConfiguredRoot);
    }
    let token = presented_token(store, secret).await.map_err(Fault::unavailable)?;
    let token = token.ok_or_else(|| Fault::new(FaultKind::UnknownCredentials))?;
    check_use(&token, address, now).map_err(Fault::new)?;
    Ok(Bearer::Token(Box::new(token)))
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        Self {
            fault: Fault::unavailable(error),
            account: None,
            token: None,
        }
    }
}

/// The record of the token that `secret` is. What has not the form of a token is looked up like one that has, but is none.
async fn presented_token(store: &dyn Store, secret: &SecretString) -> Result<Option<TokenRecord>, StoreError> {
    let presented = secret.expose_secret();
    let record = store.token(&id_of(presented)).await?;
    Ok(record.filter(|_| AccessToken::parse(presented).is_some()))
}

/// Whether the token may be used from `address` and at `now`.
fn check_use(token: &TokenRecord, address: IpAddr, now: Timestamp) -> Result<(), FaultKind> {
    let restrictions = token.restrictions.as_ref();
    if !restrictions.is_none_or(|restrictions| allows(restrictions, address)) {
        return Err(FaultKind::AddressNotAllowed);
    }
    if token.expires.is_some_and(|expires| expires <= now) {
        return Err(FaultKind::TokenExpired);
    }
    Ok(())
}

fn allows(restrictions: &Restrictions, address: IpAddr) -> bool {
    let address = address.to_canonical();
    let mut ranges = restrictions.addresses.iter().map(|range| canonical(*range));
    restrictions.addresses.is_empty() || ranges.any(|range| range.contains(&address))
}

/// A range of IPv4-mapped addresses (RFC 4291 §2.5.5.2) as the range of IPv4 addresses that is meant.
fn canonical(range: IpNet) -> IpNet {
    let IpNet::V6(v6) = range else {
        return range;
    };
    let mapped = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED_PREFIX_BITS));
    mapped
        .and_then(|(address, bits)| Ipv4Net::new(address, bits).ok())
        .map_or(range, IpNet::V4)
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
fn is_same(a: &SecretString, b: &SecretString) -> bool {
    let digest = |secret: &SecretString| Sha256::digest(secret.expose_secret().as_bytes());
    digest(a).ct_eq(&digest(b)).into()
}

const MAPPED_PREFIX_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::store::AccountSecrets;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    struct House {
        _directory: TempDir,
        store: Arc<EmbeddedStore>,
    }

    impl House {
        async fn new() -> Self {
            let parent = tempfile::tempdir().unwrap();
            let store = EmbeddedStore::open(&parent.path().join("state"), &MasterKeySource::Generated).unwrap();
            for (id, email, state) in [
                ("example", Some("User@x.example"), "active"),
                ("other", None, "new"),
                ("off", None, "disabled"),
            ] {
                let record = serde_json::json!({
                    "account": id, "email": email, "provider": "p", "state": state,
                    "created": NOW, "updated": NOW,
                });
                let record = serde_json::from_value(record).unwrap();
                store.create_account(record, AccountSecrets::default()).await.unwrap();
            }
            Self {
                _directory: parent,
                store,
            }
        }

        async fn token(
            &self,
            account: Option<&str>,
            scopes: &[&str],
            ranges: &[&str],
            expires: Option<u64>,
        ) -> SecretString {
            let (token, id) = AccessToken::mint();
            let record = TokenRecord {
                id,
                account: account.map(str::to_owned),
                scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
                description: String::new(),
                restrictions: Some(Restrictions {
                    addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
                }),
                metadata: None,
                expires: expires.map(Timestamp::from_millis),
                created: NOW,
            };
            self.store.create_token(record).await.unwrap();
            token.reveal().into()
        }

        async fn login(&self, user: Option<&str>, secret: &SecretString, from: &str) -> Result<Authenticated, Denied> {
            let from = from.parse().unwrap();
            authenticate(self.store.as_ref(), user, secret, Scope::ImapProxy, from, NOW).await
        }
    }

    #[tokio::test]
    async fn an_account_is_named_by_its_id_its_e_mail_or_its_token() {
        let house = House::new().await;
        let secret = house.token(Some("example"), &["imap-proxy"], &[], None).await;
        for user in [Some("example"), Some("USER@x.example"), None] {
            let admitted = house.login(user, &secret, "192.0.2.1").await.unwrap();
            assert_eq!(admitted.account.account, "example");
            assert_eq!(admitted.token.id, id_of(secret.expose_secret()));
        }
    }

    #[tokio::test]
    async fn the_first_reason_in_the_table_is_the_one_that_is_given() {
        let house = House::new().await;
        let narrow = &["127.0.0.1/32"][..];
        // Each has all the troubles that come later in the table, too.
        let worst = house.token(Some("example"), &["smtp"], narrow, Some(0)).await;
        let scoped = house.token(Some("example"), &["imap-proxy"], narrow, Some(0)).await;
        let expired = house
            .token(Some("example"), &["imap-proxy"], &[], Some(NOW.as_millis()))
            .await;
        let disabled = house
            .token(Some("off"), &["imap-proxy"], &[], Some(NOW.as_millis() + 1))
            .await;
        let root = house.token(None, &["*"], &[], None).await;
        let unknown: SecretString = "0".repeat(64).into();
        for (user, secret, kind, account, is_known) in [
            ("nobody", &worst, FaultKind::UnknownCredentials, None, true),
            ("Example", &worst, FaultKind::UnknownCredentials, None, true),
            (
                "example",
                &unknown,
                FaultKind::UnknownCredentials,
                Some("example"),
                false,
            ),
            (
                "example",
                &"sesame".into(),
                FaultKind::UnknownCredentials,
                Some("example"),
                false,
            ),
            ("example", &root, FaultKind::UnknownCredentials, Some("example"), true),
            ("other", &worst, FaultKind::ForeignToken, Some("other"), true),
            ("example", &worst, FaultKind::ScopeMissing, Some("example"), true),
            (
                "user@x.example",
                &scoped,
                FaultKind::AddressNotAllowed,
                Some("example"),
                true,
            ),
            ("example", &expired, FaultKind::TokenExpired, Some("example"), true),
            ("off", &disabled, FaultKind::AccountDisabled, Some("off"), true),
        ] {
            let denied = house.login(Some(user), secret, "192.0.2.1").await.unwrap_err();
            assert_eq!(denied.fault.kind, kind, "{user}");
            assert_eq!(denied.account.as_deref(), account, "{user} {kind}");
            assert_eq!(
                denied.token,
                is_known.then(|| id_of(secret.expose_secret())),
                "{user} {kind}"
            );
        }
    }

    #[tokio::test]
    async fn a_root_token_without_a_user_name_cannot_log_in() {
        let house = House::new().await;
        let root = house.token(None, &["*"], &[], None).await;
        let denied = house.login(None, &root, "192.0.2.1").await.unwrap_err();
        assert_eq!(denied.fault.kind, FaultKind::UnknownCredentials);
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_read_is_a_temporary_trouble() {
        let house = House::new().await;
        let secret = house.token(Some("example"), &["imap-proxy"], &[], None).await;
        house.store.close().await.unwrap();
        let denied = house.login(Some("example"), &secret, "192.0.2.1").await.unwrap_err();
        assert_eq!(denied.fault.kind, FaultKind::Unavailable);
    }

    #[test]
    fn ranges_hold_addresses_of_their_family_and_mapped_ones() {
        for (ranges, address, expected) in [
            (&[][..], "192.0.2.1", true),
            (&["127.0.0.1/32"], "127.0.0.1", true),
            (&["127.0.0.1/32"], "::ffff:127.0.0.1", true),
            (&["127.0.0.1/32"], "127.0.0.9", false),
            (&["127.0.0.1/32"], "::1", false),
            (&["10.1.2.3/8"], "10.200.0.1", true),
            (&["2001:db8::/32", "192.0.2.0/24"], "2001:db8:1::1", true),
            (&["2001:db8::/32", "192.0.2.0/24"], "192.0.2.255", true),
            (&["2001:db8::/32", "192.0.2.0/24"], "192.0.3.0", false),
            (&["::ffff:192.0.2.0/120"], "192.0.2.7", true),
            (&["::ffff:192.0.2.0/120"], "192.0.3.7", false),
            (&["::ffff:0:0/96"], "192.0.3.7", true),
            (&["::/0"], "192.0.3.7", false),
            (&["0.0.0.0/0"], "::1", false),
        ] {
            let restrictions = Restrictions {
                addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            };
            let allowed = allows(&restrictions, address.parse().unwrap());
            assert_eq!(allowed, expected, "{ranges:?} {address}");
        }
    }

    #[tokio::test]
    async fn a_bearer_is_the_configured_root_token_or_one_of_the_store() {
        let house = House::new().await;
        let root: SecretString = "from a file".into();
        let api = house.token(Some("example"), &["api"], &["127.0.0.0/8"], None).await;
        let local = "127.0.0.1".parse().unwrap();
        let shown = recognize(house.store.as_ref(), Some(&root), &root, local, NOW).await;
        assert!(matches!(shown, Ok(Bearer::ConfiguredRoot)), "{shown:?}");
        let shown = recognize(house.store.as_ref(), Some(&root), &api, local, NOW).await;
        assert!(
            matches!(&shown, Ok(Bearer::Token(token)) if token.id == id_of(api.expose_secret())),
            "{shown:?}"
        );
    }

    #[tokio::test]
    async fn a_bearer_with_an_unknown_expired_or_misplaced_token_is_refused() {
        let house = House::new().await;
        let expired = house.token(None, &["*"], &[], Some(1)).await;
        let local = house.token(None, &["*"], &["127.0.0.1/32"], None).await;
        let unknown: SecretString = "from a file".into();
        for (secret, kind) in [
            (&unknown, FaultKind::UnknownCredentials),
            (&expired, FaultKind::TokenExpired),
            (&local, FaultKind::AddressNotAllowed),
        ] {
            let remote = "192.0.2.1".parse().unwrap();
            let refused = recognize(house.store.as_ref(), None, secret, remote, NOW).await;
            assert_eq!(refused.unwrap_err().kind, kind);
        }
    }
}
