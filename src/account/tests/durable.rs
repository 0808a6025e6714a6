//! What a refresh brings outlives its supervisor, a full disk, and whatever an administrator orders meanwhile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::support::{World, account, password, refresh_token};
use super::{kind, refreshed, token, token_of, trouble};
use crate::fault::FaultKind;
use crate::oauth::TokenErrorKind;
use crate::store::{AccountState, Store};

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_dies_loses_no_answer_and_presents_no_refresh_token_twice() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    asked.abort();
    assert!(asked.await.is_err());
    let asked = world.ask(None);
    let request = world.request().await;
    world.accounts.kill_supervisor("ada");
    request.succeed("a1", Some("r2"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r2");

    // Nobody waits, and still it is kept.
    let (_, generation) = token_of(&world).await;
    let asked = world.ask(Some(generation));
    let request = world.request().await;
    assert_eq!(request.refresh_token, "r2");
    asked.abort();
    world.accounts.kill_supervisor("ada");
    request.succeed("a2", Some("r3"), 3600);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.stored(), "r3");
    assert_eq!(token_of(&world).await.0, "a2");
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_dies_while_its_answer_is_written_is_followed_by_one_that_has_it() {
    let mut world = World::with(refresh_token("r1")).await;
    let gate = world.store.hold_writes();
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    sleep(Duration::from_secs(1)).await;
    world.accounts.kill_supervisor("ada");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.stored(), "r1");
    assert!(world.requests.try_recv().is_err());
    gate.add_permits(10);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r2");
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn no_login_waits_for_a_full_disk_however_often_the_grant_rotates() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let mut refused = None;
    for rotation in 1..=40 {
        let asked = world.ask(refused);
        let request = world.request().await;
        assert_eq!(request.refresh_token, format!("r{rotation}"));
        let (access, next) = (format!("a{rotation}"), format!("r{}", rotation + 1));
        // So short a life that each login needs another.
        request.succeed(&access, Some(&next), 0);
        let asked = asked.await.unwrap();
        assert_eq!(token(&asked).0, access);
        refused = None;
        assert!(world.accounts.health().unwrap_err().contains("1 accounts"));
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(world.stored(), "r1");
    world.store.is_full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.stored(), "r41");
    assert_eq!(world.accounts.health(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_refuses_outlives_the_supervisor_and_is_written_without_one() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    world.accounts.kill_supervisor("ada");
    assert!(world.accounts.health().is_err(), "still unready");
    assert_eq!(token_of(&world).await.0, "a1");
    let generation = token_of(&world).await.1;
    let asked = world.ask(Some(generation));
    let request = world.request().await;
    assert_eq!(request.refresh_token, "r2");
    request.succeed("a2", Some("r3"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a2");
    world.accounts.kill_supervisor("ada");
    world.store.is_full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.stored(), "r3");
    assert_eq!(world.accounts.health(), Ok(()));
    assert_eq!(token_of(&world).await.0, "a2");
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn an_unused_supervisor_does_not_end_before_its_grant_is_written() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    asked.await.unwrap().unwrap();
    sleep(Duration::from_secs(3000)).await;
    assert!(world.accounts.is_supervised("ada"));
    world.store.is_full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(3000)).await;
    assert_eq!(world.stored(), "r2");
    assert!(!world.accounts.is_supervised("ada"));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_changes_while_an_answer_is_written_undoes_nothing_of_it() {
    let mut world = World::with(refresh_token("r1")).await;
    let gate = world.store.hold_writes();
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    sleep(Duration::from_secs(1)).await;
    let mut record = account("ada");
    record.name = Some("Ada".to_owned());
    let accounts = world.accounts.clone();
    let change = tokio::spawn(async move { accounts.replace(record, None).await });
    sleep(Duration::from_secs(1)).await;
    gate.add_permits(10);
    change.await.unwrap().unwrap();
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r2");
    let record = world.store.account("ada").await.unwrap().unwrap();
    assert_eq!(record.name.as_deref(), Some("Ada"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_does_not_undo_new_credentials_that_are_just_written() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let old = world.request().await;
    let gate = world.store.hold_writes();
    let accounts = world.accounts.clone();
    let change = tokio::spawn(async move { accounts.replace(account("ada"), Some(refresh_token("r9"))).await });
    sleep(Duration::from_secs(1)).await;
    // Its write comes after the replacement's, and before the supervisor has heard of that.
    old.succeed("a2", Some("r2"), 3600);
    sleep(Duration::from_secs(1)).await;
    gate.add_permits(10);
    change.await.unwrap().unwrap();
    drop(asked);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(world.stored(), "r9");
    let asked = world.ask(None);
    let request = world.request().await;
    assert_eq!(request.refresh_token, "r9");
    request.succeed("a10", Some("r10"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a10");
    assert_eq!(world.stored(), "r10");
}

#[tokio::test(start_paused = true)]
async fn putting_again_what_the_disk_has_instead_of_what_it_refused_loses_no_rotation() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    asked.await.unwrap().unwrap();
    world.store.is_full.store(false, Ordering::SeqCst);
    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r1")))
        .await
        .unwrap();
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.stored(), "r2");
    assert_eq!(token_of(&world).await.0, "a1");
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn new_credentials_end_the_attempts_to_write_the_old_ones() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    asked.await.unwrap().unwrap();
    world.store.is_full.store(false, Ordering::SeqCst);
    world
        .accounts
        .replace(account("ada"), Some(password("pw")))
        .await
        .unwrap();
    assert_eq!(world.accounts.health(), Ok(()));
    sleep(Duration::from_secs(100)).await;
    let secrets = world.store.account_secrets("ada").await.unwrap().unwrap();
    assert!(secrets.grant.is_none() && secrets.password.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_account_removed_from_a_full_disk_leaves_nothing_to_write() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    asked.await.unwrap().unwrap();
    world.accounts.remove("ada").await.unwrap();
    assert_eq!(world.revoked.recv().await.as_deref(), Some("r2"));
    world.store.is_full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.accounts.health(), Ok(()));
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::UnknownCredentials);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_what_a_dead_supervisor_asked_for() {
    let mut world = World::with(refresh_token("r1")).await;
    drop(world.ask(None));
    let request = world.request().await;
    world.accounts.kill_supervisor("ada");
    let accounts = world.accounts.clone();
    let mut drained = tokio::spawn(async move { accounts.drain().await });
    let early = tokio::time::timeout(Duration::from_secs(1), &mut drained).await;
    assert!(early.is_err());
    request.succeed("a1", Some("r2"), 3600);
    drained.await.unwrap();
    assert_eq!(world.stored(), "r2");
}

#[tokio::test(start_paused = true)]
async fn stopping_tries_at_once_to_write_what_the_disk_refused() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    asked.await.unwrap().unwrap();
    sleep(Duration::from_secs(100)).await;
    world.store.is_full.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    world.accounts.drain().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(world.stored(), "r2");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_a_dead_supervisor_missed_is_asked_for_again_by_the_next() {
    let (mut world, generation) = refreshed().await;
    let asked = world.ask(Some(generation));
    let request = world.request().await;
    world.accounts.kill_supervisor("ada");
    request.fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    let again = world.request().await;
    assert_eq!(again.refresh_token, "r2");
    again.fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AuthorizationGone);
    assert_eq!(world.state().await, AccountState::NeedsAuthorization);
}
