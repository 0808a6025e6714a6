//! Whether a login or a call is admitted.
//!
//! A token is looked up by its hash, so that how long a comparison takes tells nothing about any token. The account and the
//! token are both looked up whatever comes of either, so that an unknown user costs what a known one does.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::lineage::Line;
use super::scope::Scope;
use super::token::{AccessToken, id_of};
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{AccountRecord, AccountState, Store, StoreError, TokenId, TokenRecord};

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
    Token(Box<Line>),
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
    let owner = token.as_ref().and_then(|line| line.token.account.as_deref());
    let named = match (user, owner) {
        (Some(user), _) => store.account_by_login(user).await,
        (None, Some(owner)) => store.account(owner).await,
        (None, None) => Ok(None),
    };
    let named = named.map_err(Denied::from)?;

    let denied = |kind: FaultKind| Denied {
        fault: Fault::new(kind),
        account: named.as_ref().map(|account| account.account.clone()),
        token: token.as_ref().map(|line| line.token.id),
    };
    let (Some(account), Some(line)) = (&named, &token) else {
        return Err(denied(FaultKind::UnknownCredentials));
    };
    let Some(owner) = &line.token.account else {
        // A root token is for the admin API alone.
        return Err(denied(FaultKind::UnknownCredentials));
    };
    if *owner != account.account {
        return Err(denied(FaultKind::ForeignToken));
    }
    if !line.grants(scope) {
        return Err(denied(FaultKind::ScopeMissing));
    }
    line.check_use(address, now).map_err(denied)?;
    if account.state == AccountState::Disabled {
        return Err(denied(FaultKind::AccountDisabled));
    }
    Ok(Authenticated {
        account: account.clone(),
        token: line.token.clone(),
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
    token.check_use(address, now).map_err(Fault::new)?;
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

/// The token that `secret` is, with its makers. What has not the form of a token is looked up like one that has, but is none.
async fn presented_token(store: &dyn Store, secret: &SecretString) -> Result<Option<Line>, StoreError> {
    let presented = secret.expose_secret();
    let token = AccessToken::parse(presented);
    let id = token.as_ref().map_or_else(|| id_of(presented), AccessToken::id);
    let record = store.token(&id).await?.filter(|_| token.is_some());
    match record {
        Some(record) => Line::of(store, record).await,
        None => Ok(None),
    }
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
fn is_same(a: &SecretString, b: &SecretString) -> bool {
    let digest = |secret: &SecretString| Sha256::digest(secret.expose_secret().as_bytes());
    digest(a).ct_eq(&digest(b)).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::limits::TOKEN_GENERATIONS_MAX;
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;
    use crate::store::{AccountSecrets, Restrictions, TokenForm};

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
            let restrictions = Restrictions {
                addresses: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            };
            let settings = TokenRecord {
                restrictions: Some(restrictions),
                expires: expires.map(Timestamp::from_millis),
                ..blank(account, scopes)
            };
            self.made(settings, TokenForm::Hex).await.0
        }

        /// A token with these settings, and its id.
        async fn made(&self, settings: TokenRecord, form: TokenForm) -> (SecretString, TokenId) {
            let (token, id) = AccessToken::mint(form);
            self.store
                .create_token(TokenRecord { id, form, ..settings })
                .await
                .unwrap();
            (token.reveal().into(), id)
        }

        async fn login(&self, user: Option<&str>, secret: &SecretString, from: &str) -> Result<Authenticated, Denied> {
            let from = from.parse().unwrap();
            authenticate(self.store.as_ref(), user, secret, Scope::ImapProxy, from, NOW).await
        }
    }

    fn blank(account: Option<&str>, scopes: &[&str]) -> TokenRecord {
        let scopes = scopes.iter().map(|&scope| scope.to_owned()).collect();
        TokenRecord::new(TokenId([0; 32]), account.map(str::to_owned), scopes, NOW)
    }

    #[tokio::test]
    async fn a_short_token_opens_in_any_case_and_what_is_like_it_does_not() {
        let house = House::new().await;
        let settings = blank(Some("example"), &["imap-proxy"]);
        let (secret, id) = house.made(settings, TokenForm::Short).await;
        let shown = secret.expose_secret();
        let lower = shown.to_lowercase();
        let parted: String = shown.chars().flat_map(|digit| [digit, '-']).collect();
        for written in [shown, &lower, &parted] {
            let admitted = house
                .login(Some("example"), &written.into(), "192.0.2.1")
                .await
                .unwrap();
            assert_eq!((admitted.token.id, admitted.token.form), (id, TokenForm::Short));
        }
        for other in [lower.as_str().split_at(1).1, &format!("{shown}0"), &format!("{shown} ")] {
            let denied = house
                .login(Some("example"), &other.into(), "192.0.2.1")
                .await
                .unwrap_err();
            assert_eq!(
                (denied.fault.kind, denied.token),
                (FaultKind::UnknownCredentials, None),
                "{other}"
            );
        }
    }

    #[tokio::test]
    async fn a_token_can_do_no_more_than_its_makers_whatever_its_record_says() {
        let house = House::new().await;
        let from_example = |scopes: &[&str], parent| TokenRecord {
            parent,
            ..blank(Some("example"), scopes)
        };
        let maker = TokenRecord {
            may_grant: vec!["imap-proxy".to_owned()],
            restrictions: Some(Restrictions {
                addresses: vec!["127.0.0.0/8".parse().unwrap()],
            }),
            expires: Some(Timestamp::from_millis(NOW.as_millis() + 1)),
            ..from_example(&["api"], None)
        };
        let (_, maker) = house.made(maker, TokenForm::Hex).await;
        let (api, between) = house
            .made(from_example(&["api", "smtp"], Some(maker)), TokenForm::Hex)
            .await;
        let (secret, id) = house
            .made(from_example(&["imap-proxy", "smtp"], Some(between)), TokenForm::Short)
            .await;

        let login = async |scope, from: &str, now| {
            let from = from.parse().unwrap();
            let admitted = authenticate(house.store.as_ref(), None, &secret, scope, from, now).await;
            admitted.map(drop).map_err(|denied| denied.fault.kind)
        };
        let (here, later) = ("127.0.0.1", Timestamp::from_millis(NOW.as_millis() + 1));
        assert_eq!(
            login(Scope::ImapProxy, here, NOW).await,
            Err(FaultKind::ScopeMissing),
            "the one between"
        );
        assert_eq!(
            login(Scope::Smtp, here, NOW).await,
            Err(FaultKind::ScopeMissing),
            "the first"
        );
        let shown = recognize(house.store.as_ref(), None, &api, here.parse().unwrap(), NOW)
            .await
            .unwrap();
        assert!(
            matches!(&shown, Bearer::Token(line) if line.grants(Scope::Api) && !line.grants(Scope::Smtp)),
            "{shown:?}"
        );
        for (from, now, kind) in [
            ("192.0.2.1", NOW, FaultKind::AddressNotAllowed),
            (here, later, FaultKind::TokenExpired),
        ] {
            let refused = recognize(house.store.as_ref(), None, &api, from.parse().unwrap(), now).await;
            assert_eq!(refused.unwrap_err().kind, kind);
        }
        let gone = house.store.remove_token(&maker).await.unwrap();
        assert_eq!(gone.last().map(|token| token.id), Some(id));
        assert_eq!(
            login(Scope::ImapProxy, here, NOW).await,
            Err(FaultKind::UnknownCredentials)
        );
    }

    #[tokio::test]
    async fn a_token_whose_maker_could_not_make_it_counts_as_unknown() {
        let house = House::new().await;
        let (_, no_maker) = house
            .made(blank(Some("example"), &["imap-proxy"]), TokenForm::Hex)
            .await;
        let mut parent = no_maker;
        for generation in 0..=TOKEN_GENERATIONS_MAX + 1 {
            let is_first = generation == 0;
            let child = TokenRecord {
                parent: (!is_first).then_some(parent),
                ..blank(Some("example"), &["api", "imap-proxy"])
            };
            let (secret, id) = house.made(child, TokenForm::Hex).await;
            parent = id;
            let admitted = house.login(Some("example"), &secret, "192.0.2.1").await;
            assert_eq!(admitted.is_ok(), generation <= TOKEN_GENERATIONS_MAX, "{generation}");
        }
        let child = TokenRecord {
            parent: Some(no_maker),
            ..blank(Some("example"), &["imap-proxy"])
        };
        let (secret, _) = house.made(child, TokenForm::Hex).await;
        let denied = house.login(Some("example"), &secret, "192.0.2.1").await.unwrap_err();
        assert_eq!(denied.fault.kind, FaultKind::UnknownCredentials);
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
            matches!(&shown, Ok(Bearer::Token(line)) if line.token.id == id_of(api.expose_secret())),
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
