//! Deletions on a disk that is full: durable in the room that is kept for them, and in force without it.

use super::*;
use crate::store::{Deletion, Deletions, SharedStore};

async fn filled(directory: &Path) -> (Arc<EmbeddedStore>, Arc<Deletions>) {
    let engine = open(directory);
    let store = Deletions::over(Arc::clone(&engine) as SharedStore);
    for id in ["a", "b"] {
        store
            .create_account(account(id, Some(&format!("{id}@x.example")), 1), password("sesame"))
            .await
            .unwrap();
    }
    for (id, owner) in [(1, "a"), (2, "a"), (3, "b")] {
        store.create_token(token(id, Some(owner))).await.unwrap();
    }
    (engine, store)
}

fn id(id: u8) -> TokenId {
    TokenId([id; 32])
}

#[tokio::test]
async fn on_a_full_disk_a_deletion_is_durable_in_the_room_that_is_kept_for_it() {
    let directory = state_dir();
    let (engine, store) = filled(directory.path()).await;
    engine.shared.set_reserve(u64::MAX);
    assert!(store.create_token(token(9, Some("b"))).await.is_err());
    assert_eq!(store.remove_token(&id(1)).await.unwrap().len(), 1);
    assert!(!store.owes(Deletion::Token(&id(1))));
    store.remove_account("b").await.unwrap();
    assert!(!store.owes(Deletion::Account("b")));
    assert!(store.health().is_err(), "nothing else can be written");

    let killed = copy(directory.path());
    let reopened = open(killed.path());
    assert!(reopened.token(&id(1)).await.unwrap().is_none());
    assert!(reopened.account("b").await.unwrap().is_none());
    assert!(reopened.token(&id(2)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_deletion_that_cannot_be_written_is_in_force_everywhere_and_written_first_when_there_is_room() {
    let directory = state_dir();
    let (engine, store) = filled(directory.path()).await;
    engine.shared.set_reserve(u64::MAX);
    engine.shared.set_deletion_room(u64::MAX);

    assert_eq!(store.remove_token(&id(1)).await.unwrap()[0].id, id(1));
    assert!(store.owes(Deletion::Token(&id(1))));
    assert!(store.token(&id(1)).await.unwrap().is_none());
    assert!(store.token_use(&id(1)).await.unwrap().is_none());
    assert!(
        store.remove_token(&id(1)).await.unwrap().is_empty(),
        "it is deleted already"
    );
    assert_eq!(store.token_count().await.unwrap(), 2);
    let listed = store.tokens(Some("a"), None, Page { page: 0, size: 1 }).await.unwrap();
    assert_eq!((listed.total, listed.entries[0].0.id), (1, id(2)));

    assert_eq!(store.remove_account("b").await.unwrap(), [id(3)]);
    assert!(store.owes(Deletion::Account("b")));
    assert!(store.account("b").await.unwrap().is_none());
    assert!(store.account_by_login("B@X.example").await.unwrap().is_none());
    assert!(store.account_secrets("b").await.unwrap().is_none());
    assert!(store.token(&id(3)).await.unwrap().is_none());
    assert_eq!(store.accounts(None, ALL).await.unwrap().total, 1);
    assert_eq!(store.accounts_after(None, 9).await.unwrap().len(), 1);
    assert_eq!(store.token_count().await.unwrap(), 1);
    let accounts: u64 = store
        .account_states()
        .await
        .unwrap()
        .iter()
        .map(|(_, count)| count)
        .sum();
    assert_eq!(accounts, 1);
    assert!(matches!(store.remove_account("b").await, Err(StoreError::NotFound(_))));
    let replaced = store.replace_account(account("b", None, 2), password("other")).await;
    assert!(matches!(replaced, Err(StoreError::NotFound(_))), "{replaced:?}");

    // The engine still holds both, until there is room: then they go before anything else is written.
    assert!(engine.token(&id(1)).await.unwrap().is_some());
    assert!(engine.account("b").await.unwrap().is_some());
    engine.shared.set_reserve(0);
    engine.shared.set_deletion_room(0);
    store
        .create_account(account("b", None, 3), password("new"))
        .await
        .unwrap();
    assert!(engine.token(&id(1)).await.unwrap().is_none());
    assert!(!store.owes(Deletion::Token(&id(1))) && !store.owes(Deletion::Account("b")));
    assert!(store.account("b").await.unwrap().is_some(), "the new one");
    assert!(store.token(&id(3)).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_token_made_goes_with_it_though_the_disk_takes_neither() {
    let directory = state_dir();
    let (engine, store) = filled(directory.path()).await;
    for (id, maker) in [(4, 1), (5, 4), (6, 2)] {
        store.create_token(child(id, "a", maker)).await.unwrap();
    }
    engine.shared.set_reserve(u64::MAX);
    engine.shared.set_deletion_room(u64::MAX);
    let gone = store.remove_token(&id(1)).await.unwrap();
    assert_eq!(
        gone.iter().map(|token| token.id).collect::<Vec<_>>(),
        [id(1), id(4), id(5)]
    );
    for gone in [1, 4, 5] {
        assert!(store.token(&id(gone)).await.unwrap().is_none(), "{gone}");
    }
    assert!(store.token(&id(6)).await.unwrap().is_some());
    assert_eq!(store.token_count().await.unwrap(), 3);
    engine.shared.set_reserve(0);
    engine.shared.set_deletion_room(0);
    store.create_token(token(7, Some("a"))).await.unwrap();
    assert!(engine.token(&id(5)).await.unwrap().is_none());
    assert_eq!(store.token_count().await.unwrap(), 4);
}

#[tokio::test]
async fn a_deletion_that_is_owed_is_written_though_nobody_else_writes() {
    let directory = state_dir();
    let (engine, store) = filled(directory.path()).await;
    engine.shared.set_reserve(u64::MAX);
    engine.shared.set_deletion_room(u64::MAX);
    store.remove_token(&id(1)).await.unwrap();
    engine.shared.set_deletion_room(0);
    until("it is written by itself", async || !store.owes(Deletion::Token(&id(1)))).await;
    assert!(engine.token(&id(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn an_owner_of_a_shared_grant_stays_on_a_full_disk_too_and_goes_after_its_sharer() {
    let directory = state_dir();
    let (engine, store) = filled(directory.path()).await;
    let sharer = AccountRecord {
        shares_grant_of: Some("a".to_owned()),
        ..account("c", None, 1)
    };
    store.create_account(sharer, AccountSecrets::default()).await.unwrap();
    engine.shared.set_reserve(u64::MAX);
    engine.shared.set_deletion_room(u64::MAX);
    assert!(matches!(
        store.remove_account("a").await,
        Err(StoreError::GrantShared(_))
    ));
    assert!(store.account("a").await.unwrap().is_some());
    store.remove_account("c").await.unwrap();
    store.remove_account("a").await.unwrap();
    engine.shared.set_deletion_room(0);
    until("both are written", async || !store.owes(Deletion::Account("a"))).await;
    assert!(engine.account("a").await.unwrap().is_none() && engine.account("c").await.unwrap().is_none());
}

#[tokio::test]
async fn a_disk_that_hangs_makes_the_store_unready_while_it_does() {
    let directory = state_dir();
    let engine = open(directory.path());
    let began = clock::instant() - Duration::from_secs(6);
    engine.shared.set_busy(Some(began));
    let health = engine.health().unwrap_err().to_string();
    assert!(health.contains("longer than 5 s"), "{health}");
    engine.shared.set_busy(Some(clock::instant()));
    engine.health().unwrap();
}
