//! The store from outside its writer: names, secrets on disk, durability, a full disk, keys, the format's fixture.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::clock;
use crate::limits::TOKENS_PER_ACCOUNT_MAX;
use crate::proto::Protocol;
use crate::secret::{ExposeSecret, SecretString};
use crate::store::{Grant, Loss, Restrictions, UsageClass, UsageKind};

mod damage;
mod deletion;
mod model;

pub(super) const ALL: Page = Page { page: 0, size: 1000 };

// ── What tests are made of ─────────────────────────────────────────────────────────────────────────────────────────────

/// Secrets of any shape.
pub(in crate::store) fn any_secrets() -> impl Strategy<Value = AccountSecrets> {
    let text = || prop::option::of(any::<String>().prop_map(SecretString::from));
    let time = || prop::option::of(any::<u64>().prop_map(Timestamp::from_millis));
    let plain = || prop::option::of(any::<String>());
    let texts = (text(), text(), plain(), plain());
    let times = prop::array::uniform5(time());
    let grant = (texts, times, any::<bool>()).prop_map(|(texts, times, names_no_scopes)| {
        let (refresh_token, access_token, scope, user) = texts;
        let [obtained, expires, ends, ends_told, warned_of] = times;
        Grant {
            refresh_token,
            access_token,
            obtained,
            expires,
            scope,
            names_no_scopes,
            user,
            ends,
            ends_told,
            warned_of,
        }
    });
    (prop::option::of(grant), text()).prop_map(|(grant, password)| AccountSecrets { grant, password })
}

/// Secrets in a form that can be compared.
pub(in crate::store) fn revealed(secrets: &AccountSecrets) -> String {
    let text = |secret: &Option<SecretString>| secret.as_ref().map(|text| text.expose_secret().to_owned());
    let grant = secrets.grant.as_ref().map(|grant| {
        let texts = (text(&grant.refresh_token), text(&grant.access_token));
        let ends = (grant.ends, grant.ends_told, grant.warned_of);
        let plain = (grant.scope.clone(), grant.names_no_scopes, grant.user.clone());
        (texts, grant.obtained, grant.expires, plain, ends)
    });
    format!("{grant:?} {:?}", text(&secrets.password))
}

pub(super) fn state_dir() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    directory
}

pub(super) fn open(directory: &Path) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(directory, &MasterKeySource::Generated).unwrap()
}

pub(super) fn account(id: &str, email: Option<&str>, created: u64) -> AccountRecord {
    AccountRecord {
        email: email.map(str::to_owned),
        name: Some(format!("Mailbox of {id}")),
        ..AccountRecord::new(id.to_owned(), "example".to_owned(), Timestamp::from_millis(created))
    }
}

fn password(text: &str) -> AccountSecrets {
    AccountSecrets {
        grant: None,
        password: Some(text.into()),
    }
}

fn token(id: u8, account: Option<&str>) -> TokenRecord {
    TokenRecord {
        description: format!("token {id}"),
        restrictions: Some(Restrictions {
            addresses: vec!["127.0.0.0/8".parse().unwrap()],
        }),
        metadata: Some(serde_json::json!({"owner": id})),
        ..TokenRecord::new(
            TokenId([id; 32]),
            account.map(str::to_owned),
            vec!["imap-proxy".to_owned()],
            Timestamp::from_millis(u64::from(id)),
        )
    }
}

fn child(id: u8, account: &str, parent: u8) -> TokenRecord {
    TokenRecord {
        parent: Some(TokenId([parent; 32])),
        ..token(id, Some(account))
    }
}

pub(super) fn event(time: u64, account: Option<&str>, token: Option<u8>) -> UsageEvent {
    UsageEvent {
        time: Timestamp::from_millis(time),
        kind: if token.is_some() {
            UsageKind::Login
        } else {
            UsageKind::Denied
        },
        protocol: Some(Protocol::Imap),
        account: account.map(str::to_owned),
        token: token.map(|id| TokenId([id; 32])),
        remote_address: Some([127, 0, 0, 1].into()),
        client: None,
        reason: None,
        count: None,
        bytes_up: None,
        bytes_down: None,
        duration_ms: None,
    }
}

fn last_use(time: u64) -> TokenUse {
    TokenUse {
        time: Timestamp::from_millis(time),
        ip: [127, 0, 0, 1].into(),
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A copy as a power loss would leave it: what was not written is not there.
pub(super) fn copy(from: &Path) -> TempDir {
    let to = state_dir();
    for file in files(from) {
        let target = to.path().join(file.strip_prefix(from).unwrap());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(target.parent().unwrap())
            .unwrap();
        fs::copy(&file, &target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
    }
    to
}

// ── Names, listings, groups ────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn of_many_that_want_one_name_at_once_exactly_one_gets_it() {
    let directory = state_dir();
    let store = open(directory.path());
    let records = (0..50).map(|number| account(&format!("id{number}"), Some("One@X.example"), number));
    let outcomes = join_all(records.map(|record| store.create_account(record, AccountSecrets::default()))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(store.accounts(None, ALL).await.unwrap().total, 1);
    assert!(store.account_by_login("ONE@x.EXAMPLE").await.unwrap().is_some());
}

#[tokio::test]
async fn a_conflict_names_what_is_taken() {
    let directory = state_dir();
    let store = open(directory.path());
    store
        .create_account(account("a", Some("a@x.example"), 1), AccountSecrets::default())
        .await
        .unwrap();
    for (id, email, expected) in [
        ("a", None, "the account id is taken by another account"),
        ("A@X.example", None, "the account id is taken by another account"),
        (
            "b",
            Some("A@x.example"),
            "the e-mail address is taken by another account",
        ),
        ("b", Some("A"), "the e-mail address is taken by another account"),
    ] {
        let outcome = store
            .create_account(account(id, email, 2), AccountSecrets::default())
            .await;
        assert_eq!(outcome.unwrap_err().to_string(), expected, "{id} {email:?}");
    }
}

#[tokio::test]
async fn a_grant_that_is_shared_stays_where_it_is() {
    let directory = state_dir();
    let store = open(directory.path());
    let sharing = |id: &str, owner: &str| AccountRecord {
        shares_grant_of: Some(owner.to_owned()),
        ..account(id, None, 2)
    };
    let none = AccountSecrets::default;
    store.create_account(account("owner", None, 1), none()).await.unwrap();
    for refused in [
        sharing("a", "nobody"),
        sharing("a", "a"),
        AccountRecord {
            provider: "other".to_owned(),
            ..sharing("a", "owner")
        },
    ] {
        let outcome = store.create_account(refused, none()).await;
        assert!(matches!(outcome, Err(StoreError::NotShareable)), "{outcome:?}");
    }
    for id in ["a", "b"] {
        store.create_account(sharing(id, "owner"), none()).await.unwrap();
    }
    let outcome = store.create_account(sharing("c", "a"), none()).await;
    assert!(
        matches!(outcome, Err(StoreError::NotShareable)),
        "at second hand: {outcome:?}"
    );

    let moved = AccountRecord {
        provider: "other".to_owned(),
        ..account("owner", None, 1)
    };
    store.create_account(account("first", None, 1), none()).await.unwrap();
    for outcome in [
        store.remove_account("owner").await.map(drop),
        store.replace_account(moved.clone(), none()).await,
        store.replace_account(sharing("owner", "first"), none()).await,
    ] {
        let refused = outcome.unwrap_err().to_string();
        assert_eq!(refused, "its grant is shared by a, b; give them another first");
    }
    // One that gets a grant of its own shares no more; nor does one that is gone, or shares another's.
    store.replace_account(account("a", None, 2), none()).await.unwrap();
    store.replace_account(sharing("b", "first"), none()).await.unwrap();
    store.replace_account(moved, none()).await.unwrap();
    store.remove_account("owner").await.unwrap();
    assert!(store.remove_account("first").await.is_err());
    store.remove_account("b").await.unwrap();
    store.remove_account("first").await.unwrap();
}

#[tokio::test]
async fn a_walk_meets_every_account_once_in_the_order_of_ids() {
    let directory = state_dir();
    let store = open(directory.path());
    for number in 0..7_u64 {
        let record = account(&format!("id{number}"), None, 100 - number);
        store.create_account(record, AccountSecrets::default()).await.unwrap();
    }
    let mut met = Vec::new();
    loop {
        let page = store.accounts_after(met.last().map(String::as_str), 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        met.extend(page.into_iter().map(|record| record.account));
    }
    let expected: Vec<String> = (0..7).map(|number| format!("id{number}")).collect();
    assert_eq!(met, expected);
}

#[test]
fn an_event_that_an_earlier_version_wrote_is_read_and_one_of_a_state_is_written_with_null() {
    let login = r#"{"time":"2026-01-31T12:00:00.000Z","kind":"login","protocol":"imap","account":"a","token":null,"remoteAddress":"192.0.2.1"}"#;
    let event: UsageEvent = serde_json::from_str(login).unwrap();
    assert_eq!(
        (event.protocol, event.remote_address),
        (Some(Protocol::Imap), Some([192, 0, 2, 1].into()))
    );
    assert_eq!(serde_json::to_string(&event).unwrap(), login);
    let state = UsageEvent {
        kind: UsageKind::State,
        protocol: None,
        remote_address: None,
        reason: Some("active".to_owned()),
        ..event
    };
    let written = r#"{"time":"2026-01-31T12:00:00.000Z","kind":"state","protocol":null,"account":"a","token":null,"remoteAddress":null,"reason":"active"}"#;
    assert_eq!(serde_json::to_string(&state).unwrap(), written);
    assert_eq!(serde_json::from_str::<UsageEvent>(written).unwrap(), state);
}

#[tokio::test]
async fn listings_are_searched_without_regard_to_case() {
    let directory = state_dir();
    let store = open(directory.path());
    for (number, id) in ["alpha", "Beta", "gamma"].into_iter().enumerate() {
        let record = account(id, Some(&format!("{id}@X.example")), u64::try_from(number).unwrap());
        store.create_account(record, AccountSecrets::default()).await.unwrap();
    }
    store.create_token(token(1, Some("Beta"))).await.unwrap();
    for (query, expected) in [("BETA", 1), ("x.EXAMPLE", 3), ("mailbox OF g", 1), ("nobody", 0)] {
        assert_eq!(
            store.accounts(Some(query), ALL).await.unwrap().total,
            expected,
            "{query}"
        );
    }
    for (query, expected) in [("beta", 1), ("TOKEN 1", 1), ("0101", 1), ("0202", 0)] {
        assert_eq!(
            store.tokens(None, Some(query), ALL).await.unwrap().total,
            expected,
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_token_goes_with_all_that_it_made_and_leaves_nothing_behind() {
    let directory = state_dir();
    let store = open(directory.path());
    for id in ["a", "b"] {
        store
            .create_account(account(id, None, 1), AccountSecrets::default())
            .await
            .unwrap();
    }
    let of_nobody = [child(2, "a", 9), child(2, "b", 1)];
    let tokens = [
        token(1, Some("a")),
        child(2, "a", 1),
        child(3, "a", 2),
        child(4, "a", 1),
        token(5, Some("a")),
        child(6, "a", 5),
    ];
    for token in tokens {
        store.create_token(token).await.unwrap();
    }
    for token in of_nobody.map(|token| TokenRecord {
        id: TokenId([7; 32]),
        ..token
    }) {
        let refused = store.create_token(token).await;
        assert!(matches!(refused, Err(StoreError::NotFound("token"))), "{refused:?}");
    }
    let ids = |gone: Vec<TokenRecord>| gone.iter().map(|token| token.id.0[0]).collect::<Vec<_>>();
    assert_eq!(ids(store.remove_token(&TokenId([1; 32])).await.unwrap()), [1, 2, 4, 3]);
    assert!(store.remove_token(&TokenId([1; 32])).await.unwrap().is_empty());
    assert_eq!(store.token_count().await.unwrap(), 2);
    assert_eq!(store.tokens(Some("a"), None, ALL).await.unwrap().total, 2);
    // A deleted maker makes nothing more, and its id can be another's.
    let refused = store.create_token(child(2, "a", 1)).await;
    assert!(matches!(refused, Err(StoreError::NotFound("token"))), "{refused:?}");
    store.create_token(token(1, Some("a"))).await.unwrap();
    assert_eq!(ids(store.remove_token(&TokenId([1; 32])).await.unwrap()), [1]);
    assert_eq!(store.remove_account("a").await.unwrap().len(), 2);
    let tables = store.shared.tables().unwrap();
    for table in [Table::Tokens, Table::AccountTokens, Table::TokenChildren] {
        assert!(tables.view().is_empty(table).unwrap(), "{table:?}");
    }
}

#[tokio::test]
async fn an_account_has_a_limit_of_tokens() {
    let directory = state_dir();
    let store = open(directory.path());
    for id in ["a", "b"] {
        let record = account(id, None, 1);
        store.create_account(record, AccountSecrets::default()).await.unwrap();
    }
    let numbered = |number: usize, account: &str| {
        let mut record = token(1, Some(account));
        record.id.0[..8].copy_from_slice(&number.to_be_bytes());
        record
    };
    let created = (0..TOKENS_PER_ACCOUNT_MAX).map(|number| store.create_token(numbered(number, "a")));
    assert!(join_all(created).await.iter().all(Result::is_ok));
    let refused = store.create_token(numbered(TOKENS_PER_ACCOUNT_MAX, "a")).await;
    assert!(matches!(refused, Err(StoreError::TooManyTokens)), "{refused:?}");
    let other = numbered(TOKENS_PER_ACCOUNT_MAX, "b");
    store.create_token(other).await.unwrap();
    store.remove_token(&numbered(3, "a").id).await.unwrap();
    store.create_token(numbered(3, "a")).await.unwrap();
}

#[tokio::test]
async fn listings_are_newest_first_within_a_millisecond_too() {
    let directory = state_dir();
    let store = open(directory.path());
    let names = ["b", "c", "a", "d"];
    let none = AccountSecrets::default;
    for id in names {
        store.create_account(account(id, None, 1), none()).await.unwrap();
    }
    // A change leaves an account in its place.
    store.replace_account(account("c", None, 1), none()).await.unwrap();
    let listed = store.accounts(None, ALL).await.unwrap().entries;
    let listed: Vec<String> = listed.into_iter().map(|record| record.account).collect();
    assert_eq!(listed, ["d", "a", "c", "b"]);

    let numbers = [3, 1, 4, 2];
    for number in numbers {
        let mut record = token(number, Some("a"));
        record.created = Timestamp::from_millis(7);
        store.create_token(record).await.unwrap();
    }
    for account in [Some("a"), None] {
        let listed = store.tokens(account, None, ALL).await.unwrap().entries;
        let listed: Vec<u8> = listed.into_iter().map(|(token, _)| token.id.0[0]).collect();
        assert_eq!(listed, [2, 4, 1, 3], "{account:?}");
    }
    for _ in 0..3 {
        store.record_usage(event(5, Some("a"), None));
    }
    store.record_usage(event(5, Some("b"), None));
    let events = store.usage(&UsageFilter::default(), ALL).await.unwrap().entries;
    assert_eq!(events[0].account.as_deref(), Some("b"), "the last that was recorded");
}

#[tokio::test]
async fn a_name_that_cannot_be_a_key_is_refused_or_unknown() {
    let directory = state_dir();
    let store = open(directory.path());
    for name in [String::new(), "x".repeat(100_000)] {
        let outcome = store
            .create_account(account(&name, None, 1), AccountSecrets::default())
            .await;
        assert!(matches!(outcome, Err(StoreError::Unwritable(_))));
        assert_eq!(store.account_by_login(&name).await.unwrap(), None);
        assert!(store.account_secrets(&name).await.unwrap().is_none());
    }
}

// ── Secrets and keys ───────────────────────────────────────────────────────────────────────────────────────────────────

/// `secret` as it is, and as base64 shows it at each of the three positions it can have: without the first and last
/// characters, which depend on its neighbours.
fn needles(secret: &str) -> Vec<Vec<u8>> {
    let mut needles = vec![secret.as_bytes().to_vec()];
    for lead in 0..3 {
        let padded = [&b"\0\0\0"[..lead], secret.as_bytes()].concat();
        let encoded = STANDARD.encode(padded).trim_end_matches('=').to_owned();
        needles.push(encoded.as_bytes()[4..encoded.len() - 4].to_vec());
    }
    needles
}

fn is_in(directory: &Path, needle: &[u8]) -> bool {
    let finder = memchr::memmem::Finder::new(needle);
    files(directory)
        .iter()
        .any(|file| finder.find(&fs::read(file).unwrap()).is_some())
}

#[tokio::test]
async fn no_secret_is_found_in_the_files() {
    let directory = state_dir();
    let store = open(directory.path());
    let secrets = [
        "correct-horse-battery-staple",
        "1//refresh-token-of-the-mailbox",
        "ya29.access-token-of-the-mailbox",
    ];
    let [first, refresh, access] = secrets;
    let grant = Grant {
        refresh_token: Some(refresh.into()),
        access_token: Some(access.into()),
        ..Grant::default()
    };
    store
        .create_account(account("visible-in-clear", None, 1), password(first))
        .await
        .unwrap();
    let replacement = AccountSecrets {
        grant: Some(grant),
        password: None,
    };
    store
        .replace_account(account("visible-in-clear", None, 1), replacement)
        .await
        .unwrap();
    assert!(
        is_in(directory.path(), b"visible-in-clear"),
        "the search must be able to find something"
    );
    let check = |when: &str| {
        for needle in secrets.iter().flat_map(|secret| needles(secret)) {
            assert!(
                !is_in(directory.path(), &needle),
                "{when}: {}",
                String::from_utf8_lossy(&needle)
            );
        }
    };
    check("open");
    store.remove_account("visible-in-clear").await.unwrap();
    check("removed");
    store.close().await.unwrap();
    check("closed");
}

#[tokio::test]
async fn a_secret_moved_to_another_account_does_not_open() {
    let directory = state_dir();
    let store = open(directory.path());
    for id in ["a", "b"] {
        store.create_account(account(id, None, 1), password(id)).await.unwrap();
    }
    let tables = store.shared.tables().unwrap();
    let stolen = tables.value(Table::Secrets, b"a").unwrap().unwrap().to_vec();
    let writes = tables::Writes::of(Table::Secrets, b"b", stolen);
    tables.commit(writes, tables::Durability::Synced).unwrap();
    assert!(matches!(
        store.account_secrets("b").await,
        Err(StoreError::Unreadable(_))
    ));
    assert!(store.account_secrets("a").await.is_ok());
}

async fn with_sealed_record() -> TempDir {
    let directory = state_dir();
    let store = open(directory.path());
    store
        .create_account(account("a", None, 1), password("sesame"))
        .await
        .unwrap();
    store.close().await.unwrap();
    directory
}

fn refusal(directory: &Path, key: &MasterKeySource) -> String {
    match EmbeddedStore::open(directory, key) {
        Err(StoreError::MasterKey(text)) => text,
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_refused_and_none_is_made_while_records_are_sealed() {
    let directory = with_sealed_record().await;
    let key = directory.path().join("master.key");
    let right = fs::read(&key).unwrap();

    fs::remove_file(&key).unwrap();
    assert!(refusal(directory.path(), &MasterKeySource::Generated).contains("restore the file from a backup"));
    assert!(!key.exists());

    let other = state_dir();
    let other_key = other.path().join("key");
    assert!(refusal(directory.path(), &MasterKeySource::File(other_key.clone())).contains("is missing"));
    fs::write(&other_key, STANDARD.encode([7; 32])).unwrap();
    fs::set_permissions(&other_key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refusal(directory.path(), &MasterKeySource::File(other_key.clone())).contains("is not the one"));

    fs::write(&other_key, right).unwrap();
    let store = EmbeddedStore::open(directory.path(), &MasterKeySource::File(other_key.clone())).unwrap();
    let secrets = store.account_secrets("a").await.unwrap().unwrap();
    assert_eq!(revealed(&secrets), revealed(&password("sesame")));
}

#[tokio::test]
async fn a_lost_key_is_replaced_once_nothing_is_sealed_with_it() {
    let directory = with_sealed_record().await;
    let store = open(directory.path());
    store.remove_account("a").await.unwrap();
    store.close().await.unwrap();
    fs::remove_file(directory.path().join("master.key")).unwrap();

    let store = open(directory.path());
    store
        .create_account(account("b", None, 1), password("new"))
        .await
        .unwrap();
    store.close().await.unwrap();
    assert!(open(directory.path()).account_secrets("b").await.unwrap().is_some());
}

#[test]
fn a_configured_key_that_is_not_there_is_never_made() {
    let directory = state_dir();
    let key = directory.path().join("elsewhere.key");
    assert!(
        refusal(directory.path(), &MasterKeySource::File(key.clone())).contains("head -c 32 /dev/urandom | base64")
    );
    assert!(!key.exists());
}

#[tokio::test]
async fn everything_under_the_state_directory_is_private() {
    let parent = state_dir();
    let directory = parent.path().join("state");
    let store = open(&directory);
    store
        .create_account(account("a", None, 1), password("sesame"))
        .await
        .unwrap();
    store.close().await.unwrap();
    for file in files(&directory) {
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
    }
}

// ── Durability, locks, a full disk ─────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let directory = state_dir();
    let store = open(directory.path());
    store
        .create_account(account("a", Some("a@x.example"), 1), password("first"))
        .await
        .unwrap();
    store
        .replace_account(account("a", Some("a@x.example"), 1), password("rotated"))
        .await
        .unwrap();
    store.create_token(token(1, Some("a"))).await.unwrap();
    store.record_usage(event(1, Some("a"), Some(1)));
    store.usage(&UsageFilter::default(), ALL).await.unwrap();

    let left_behind = copy(directory.path());
    let revived = open(left_behind.path());
    let secrets = revived.account_secrets("a").await.unwrap().unwrap();
    assert_eq!(revealed(&secrets), revealed(&password("rotated")));
    assert_eq!(
        revived.token(&TokenId([1; 32])).await.unwrap(),
        Some(token(1, Some("a")))
    );
    assert_eq!(revived.usage(&UsageFilter::default(), ALL).await.unwrap().total, 1);
    assert_eq!(revived.token_count().await.unwrap(), 1);
}

/// Changes the password to `password` if it is `from`.
fn amendment(from: &'static str, password: &'static str) -> Amendment {
    Box::new(move |secrets| {
        let is_from = secrets
            .password
            .as_ref()
            .is_some_and(|kept| kept.expose_secret() == from);
        secrets.password = Some(password.into());
        is_from
    })
}

#[tokio::test]
async fn credentials_are_amended_as_they_are_by_then_and_the_record_without_them() {
    let directory = state_dir();
    let store = open(directory.path());
    store
        .create_account(account("a", None, 1), password("one"))
        .await
        .unwrap();
    // In one commit, each sees what those before it write.
    let replaced = store.replace_account(account("a", None, 1), password("two"));
    let (late, first, second) = (
        store.amend_secrets("a", amendment("one", "never")),
        store.amend_secrets("a", amendment("two", "three")),
        store.amend_secrets("a", amendment("three", "four")),
    );
    let (replaced, late, first, second) = tokio::join!(replaced, late, first, second);
    replaced.unwrap();
    assert_eq!((late.unwrap(), first.unwrap(), second.unwrap()), (false, true, true));

    let mut record = account("a", Some("a@x.example"), 1);
    record.state = AccountState::Failing;
    store.amend_account(record.clone(), None).await.unwrap();
    assert_eq!(store.account("a").await.unwrap(), Some(record.clone()));
    store
        .amend_account(record.clone(), Some(amendment("one", "never")))
        .await
        .unwrap();
    let kept = store.account_secrets("a").await.unwrap().unwrap();
    assert_eq!(revealed(&kept), revealed(&password("four")));
    store
        .amend_account(record, Some(amendment("four", "five")))
        .await
        .unwrap();

    let revived = copy(directory.path());
    let revived = open(revived.path());
    let kept = revived.account_secrets("a").await.unwrap().unwrap();
    assert_eq!(revealed(&kept), revealed(&password("five")));
    assert_eq!(
        revived.account_by_login("a@x.example").await.unwrap().unwrap().account,
        "a"
    );

    let unknown = store.amend_secrets("b", amendment("one", "two")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))), "{unknown:?}");
    let unknown = store.amend_account(account("b", None, 1), None).await;
    assert!(matches!(unknown, Err(StoreError::NotFound(_))), "{unknown:?}");
}

#[test]
fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let directory = state_dir();
    let _first = open(directory.path());
    let error = EmbeddedStore::open(directory.path(), &MasterKeySource::Generated)
        .err()
        .unwrap();
    assert!(matches!(&error, StoreError::Locked(path) if *path == directory.path().display().to_string()));
    assert!(error.to_string().contains("stop that one first"), "{error}");
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let directory = state_dir();
    let store = open(directory.path());
    store.close().await.unwrap();
    assert!(matches!(store.health(), Err(StoreError::Closed)));
    assert!(matches!(
        store.create_token(token(1, None)).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.token(&TokenId([1; 32])).await, Err(StoreError::Closed)));
    assert!(matches!(
        store.usage(&UsageFilter::default(), ALL).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(store.close().await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_store_of_a_newer_format_is_refused() {
    let directory = state_dir();
    let store = open(directory.path());
    let writes = tables::Writes::of(Table::Meta, b"format", b"2".to_vec());
    store
        .shared
        .tables()
        .unwrap()
        .commit(writes, tables::Durability::Synced)
        .unwrap();
    store.close().await.unwrap();
    let error = EmbeddedStore::open(directory.path(), &MasterKeySource::Generated)
        .err()
        .unwrap();
    assert!(error.to_string().contains("format 2"), "{error}");
}

/// Tries until it works, for as long as is reasonable.
async fn until<F: Future<Output = bool>>(what: &str, attempt: impl Fn() -> F) {
    let deadline = clock::instant() + Duration::from_secs(20);
    while !attempt().await {
        assert!(clock::instant() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_reads_until_there_is_room() {
    let directory = state_dir();
    let store = open(directory.path());
    store.create_token(token(1, None)).await.unwrap();

    store.shared.set_reserve(u64::MAX);
    let outcome = store.create_token(token(2, None)).await;
    assert!(matches!(outcome, Err(StoreError::Unwritable(_))), "{outcome:?}");
    assert!(matches!(store.health(), Err(StoreError::Unwritable(_))));
    store.record_usage(event(1, None, None));
    assert_eq!(store.usage(&UsageFilter::default(), ALL).await.unwrap().total, 0);
    assert!(store.token(&TokenId([1; 32])).await.unwrap().is_some());
    assert!(store.token(&TokenId([2; 32])).await.unwrap().is_none());

    store.shared.set_reserve(0);
    until(
        "the store notices that there is room, though nobody writes",
        async || store.health().is_ok(),
    )
    .await;
    store.create_token(token(2, None)).await.unwrap();
}

#[tokio::test]
async fn a_failed_disk_is_recovered_from_without_a_restart() {
    let directory = state_dir();
    let store = open(directory.path());
    store
        .create_account(account("a", None, 1), password("sesame"))
        .await
        .unwrap();
    store.create_token(token(1, Some("a"))).await.unwrap();

    let tables = directory.path().join("store/keyspaces");
    let away = directory.path().join("away");
    fs::rename(&tables, &away).unwrap();
    store.shared.tables().unwrap().rotate().unwrap();
    until("the failed flush is noticed", async || {
        store.create_token(token(2, Some("a"))).await.is_err() || store.remove_token(&TokenId([2; 32])).await.is_err()
    })
    .await;
    assert!(matches!(store.health(), Err(StoreError::Unwritable(_))));
    assert!(store.token(&TokenId([1; 32])).await.unwrap().is_some());

    let _ = fs::remove_dir_all(&tables);
    fs::rename(&away, &tables).unwrap();
    until("the store is opened again", async || store.health().is_ok()).await;
    store.create_token(token(3, Some("a"))).await.unwrap();
    let secrets = store.account_secrets("a").await.unwrap().unwrap();
    assert_eq!(revealed(&secrets), revealed(&password("sesame")));
}

// ── The format ─────────────────────────────────────────────────────────────────────────────────────────────────────────

async fn fill(store: &EmbeddedStore) {
    let mut full = account("example", Some("User@X.example"), 1_700_000_000_000);
    full.user = Some("shared@x.example".to_owned());
    full.imap =
        serde_json::from_value(serde_json::json!({"host": "imap.x.example", "port": 993, "tls": "implicit"})).ok();
    full.state = AccountState::Failing;
    full.last_error = Some(crate::store::AccountError {
        code: "timeout".to_owned(),
        message: "the token endpoint did not answer".to_owned(),
        remedy: None,
        time: Timestamp::from_millis(1_700_000_001_000),
    });
    let grant = Grant {
        refresh_token: Some("refresh".into()),
        access_token: Some("access".into()),
        obtained: Some(Timestamp::from_millis(1_700_000_000_000)),
        expires: Some(Timestamp::from_millis(1_700_003_600_000)),
        ..Grant::default()
    };
    let secrets = AccountSecrets {
        grant: Some(grant),
        password: Some("password".into()),
    };
    store.create_account(full, secrets).await.unwrap();
    store.create_token(token(1, Some("example"))).await.unwrap();
    store.create_token(token(2, None)).await.unwrap();
    store.record_token_use(TokenId([1; 32]), last_use(1_700_000_002_000));
    store.record_usage(event(1_700_000_002_000, Some("example"), Some(1)));
}

async fn contents(store: &EmbeddedStore) -> String {
    let usage = store.usage(&UsageFilter::default(), ALL).await.unwrap();
    let accounts = store.accounts(None, ALL).await.unwrap();
    let tokens = store.tokens(None, None, ALL).await.unwrap();
    let secrets = store.account_secrets("example").await.unwrap().unwrap();
    format!("{accounts:#?}\n{tokens:#?}\n{usage:#?}\n{}", revealed(&secrets))
}

/// The fixture was written by `fill` with the first version, and opened and closed once more, which cuts the journal down
/// from the 64 MiB that fjall allots. It stays as it is; a newer format gets another one.
#[tokio::test]
async fn a_store_written_by_version_1_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1");
    let directory = copy(&fixture);
    let old = open(directory.path());
    let fresh_directory = state_dir();
    let fresh = open(fresh_directory.path());
    fill(&fresh).await;
    assert_eq!(contents(&old).await, contents(&fresh).await);
    assert!(old.account_by_login("user@x.EXAMPLE").await.unwrap().is_some());
    old.replace_account(account("example", None, 1), password("new"))
        .await
        .unwrap();
}
