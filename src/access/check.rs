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

/// A refused login or call, and what it is filed under in the usage log.
#[derive(Debug, Clone)]
pub struct Denied {
    /// Why.
    pub fault: Fault,
    /// The account that was named, if it exists.
    pub account: Option<String>,
    /// The token that was presented, if it exists.
    pub token: Option<TokenId>,
}

/// An admitted caller of the admin API.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token it presented; `None` for the root token of the configuration.
    pub token: Option<TokenId>,
    /// The account its token is for; `None` for a root token.
    pub account: Option<String>,
    scopes: Vec<String>,
}

impl Caller {
    /// Whether everything is open to it.
    pub fn is_root(&self) -> bool {
        self.account.is_none() && Scope::All.is_granted_by(&self.scopes)
    }

    /// Whether it may use the admin API for `account`.
    pub fn may_manage(&self, account: &str) -> bool {
        self.is_root() || (self.account.as_deref() == Some(account) && Scope::Api.is_granted_by(&self.scopes))
    }

    /// Whether it may read the metrics.
    pub fn may_read_metrics(&self) -> bool {
        self.is_root() || Scope::Metrics.is_granted_by(&self.scopes)
    }
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
    check_use(token, Some(address), now).map_err(denied)?;
    if account.state == AccountState::Disabled {
        return Err(denied(FaultKind::AccountDisabled));
    }
    Ok(Authenticated {
        account: account.clone(),
        token: token.clone(),
    })
}

/// Admits a caller of the admin API, which presents `secret` as its bearer token, from `address` (`None` on a Unix socket,
/// where a token restricted to addresses is of no use). `root` is the root token of the configuration. What the caller may
/// do is for [`Caller`] to say.
///
/// # Errors
/// [`FaultKind::UnknownCredentials`], [`FaultKind::AddressNotAllowed`], [`FaultKind::TokenExpired`];
/// [`FaultKind::Unavailable`] where the store cannot be read.
pub async fn authorize(
    store: &dyn Store,
    root: Option<&SecretString>,
    secret: &SecretString,
    address: Option<IpAddr>,
    now: Timestamp,
) -> Result<Caller, Denied> {
    if root.is_some_and(|root| is_same(root, secret)) {
        return Ok(Caller {
            token: None,
            account: None,
            scopes: vec![Scope::All.name().to_owned()],
        });
    }
    let token = presented_token(store, secret).await.map_err(Denied::from)?;
    let denied = |kind: FaultKind| Denied {
        fault: Fault::new(kind),
        account: token.as_ref().and_then(|token| token.account.clone()),
        token: token.as_ref().map(|token| token.id),
    };
    let Some(token) = &token else {
        return Err(denied(FaultKind::UnknownCredentials));
    };
    check_use(token, address, now).map_err(denied)?;
    Ok(Caller {
        token: Some(token.id),
        account: token.account.clone(),
        scopes: token.scopes.clone(),
    })
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
fn check_use(token: &TokenRecord, address: Option<IpAddr>, now: Timestamp) -> Result<(), FaultKind> {
    if !token
        .restrictions
        .as_ref()
        .is_none_or(|restrictions| allows(restrictions, address))
    {
        return Err(FaultKind::AddressNotAllowed);
    }
    if token.expires.is_some_and(|expires| expires <= now) {
        return Err(FaultKind::TokenExpired);
    }
    Ok(())
}

fn allows(restrictions: &Restrictions, address: Option<IpAddr>) -> bool {
    let address = address.map(|address| address.to_canonical());
    restrictions.addresses.is_empty()
        || address.is_some_and(|address| {
            restrictions
                .addresses
                .iter()
                .any(|range| canonical(*range).contains(&address))
        })
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
            (&[][..], Some("192.0.2.1"), true),
            (&[], None, true),
            (&["127.0.0.1/32"], Some("127.0.0.1"), true),
            (&["127.0.0.1/32"], Some("::ffff:127.0.0.1"), true),
            (&["127.0.0.1/32"], Some("127.0.0.9"), false),
            (&["127.0.0.1/32"], Some("::1"), false),
            (&["127.0.0.1/32"], None, false),
            (&["10.1.2.3/8"], Some("10.200.0.1"), true),
            (&["2001:db8::/32", "192.0.2.0/24"], Some("2001:db8:1::1"), true),
            (&["2001:db8::/32", "192.0.2.0/24"], Some("192.0.2.255"), true),
            (&["2001:db8::/32", "192.0.2.0/24"], Some("192.0.3.0"), false),
            (&["::ffff:192.0.2.0/120"], Some("192.0.2.7"), true),
            (&["::ffff:192.0.2.0/120"], Some("192.0.3.7"), false),
            (&["::ffff:0:0/96"], Some("192.0.3.7"), true),
            (&["::/0"], Some("192.0.3.7"), false),
            (&["0.0.0.0/0"], Some("::1"), false),
        ] {
            let restrictions = Restrictions {
                addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            };
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(allows(&restrictions, address), expected, "{ranges:?} {address:?}");
        }
    }

    #[tokio::test]
    async fn a_caller_may_do_what_its_token_says() {
        let house = House::new().await;
        let file_token: SecretString = "from a file".into();
        let root = house.token(None, &["*"], &[], None).await;
        let api = house.token(Some("example"), &["api"], &[], None).await;
        let metrics = house.token(Some("example"), &["metrics"], &[], None).await;
        let mail = house.token(Some("example"), &["imap-proxy"], &[], None).await;
        for (secret, is_root, own, foreign, reads_metrics) in [
            (&file_token, true, true, true, true),
            (&root, true, true, true, true),
            (&api, false, true, false, false),
            (&metrics, false, false, false, true),
            (&mail, false, false, false, false),
        ] {
            let caller = authorize(house.store.as_ref(), Some(&file_token), secret, None, NOW)
                .await
                .unwrap();
            assert_eq!(caller.is_root(), is_root);
            assert_eq!(caller.may_manage("example"), own);
            assert_eq!(caller.may_manage("other"), foreign);
            assert_eq!(caller.may_read_metrics(), reads_metrics);
        }
    }

    #[tokio::test]
    async fn a_caller_with_an_unknown_expired_or_misplaced_token_is_refused() {
        let house = House::new().await;
        let expired = house.token(None, &["*"], &[], Some(1)).await;
        let local = house.token(None, &["*"], &["127.0.0.1/32"], None).await;
        let remote = Some("192.0.2.1".parse().unwrap());
        for (secret, address, kind) in [
            (&"from a file".into(), None, FaultKind::UnknownCredentials),
            (&expired, None, FaultKind::TokenExpired),
            (&local, remote, FaultKind::AddressNotAllowed),
            (&local, None, FaultKind::AddressNotAllowed),
        ] {
            let denied = authorize(house.store.as_ref(), None, secret, address, NOW)
                .await
                .unwrap_err();
            assert_eq!(denied.fault.kind, kind);
        }
    }
}
