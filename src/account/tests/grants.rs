//! Grants of every kind: those that need no secret of the account's, those that several mailboxes share, and what becomes of one
//! that nobody uses, that ends, or whose account is removed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::sleep;

use super::support::{World, account, app_of, config, password, refresh_token, session};
use super::{PASSING, kind, refreshed, refusal, refused, token, trouble};
use crate::account::{News, Notice, keeping};
use crate::clock;
use crate::config::{Config, External, GrantType};
use crate::fault::FaultKind;
use crate::oauth::TokenErrorKind;
use crate::proto::Protocol;
use crate::secret::ExposeSecret;
use crate::store::{AccountRecord, AccountSecrets, AccountState, Store, StoreError};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A world whose provider grants by `grant`.
async fn granting(grant: GrantType, secrets: AccountSecrets) -> World {
    let world = World::with(secrets).await;
    world.config.send_replace(Arc::new(with_grant(grant)));
    world
}

fn with_grant(grant: GrantType) -> Config {
    let mut config = config();
    app_of(&mut config).grant = grant;
    config
}

/// `bob`, who shares the grant of `ada`.
fn sharer() -> AccountRecord {
    AccountRecord {
        shares_grant_of: Some("ada".to_owned()),
        user: Some("shared@example.com".to_owned()),
        ..account("bob")
    }
}

async fn with_sharer(secrets: AccountSecrets) -> World {
    let world = World::with(secrets).await;
    world
        .accounts
        .create(sharer(), AccountSecrets::default())
        .await
        .unwrap();
    world
}

/// The changes of state that were told of so far, of whatever account.
fn changes(world: &mut World) -> Vec<(AccountState, AccountState)> {
    let mut changes = Vec::new();
    loop {
        match world.notices.try_recv() {
            Ok(Notice {
                news: News::State { from, to, .. },
                ..
            }) => changes.push((from, to)),
            Ok(_) => {}
            Err(TryRecvError::Empty) => return changes,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_of_an_apps_provider_needs_no_secret_of_its_own() {
    for grant in [
        GrantType::ClientCredentials,
        GrantType::ServiceAccount {
            key_file: "/key.json".into(),
        },
        GrantType::External(External::Command(vec!["helper".to_owned()])),
    ] {
        let mut world = granting(grant, AccountSecrets::default()).await;
        let asked = world.ask(None);
        let request = world.request().await;
        assert_eq!(
            (request.refresh_token.as_str(), request.user.as_str()),
            ("", "ada@example.com")
        );
        request.succeed("a1", None, 3600);
        let asked = asked.await.unwrap();
        assert_eq!(token(&asked).0, "a1");
        assert_eq!(world.state().await, AccountState::Active);
        // One that an upstream refuses is replaced, as every token that can be.
        let again = world.ask(Some(token(&asked).1));
        world.request().await.succeed("a2", None, 3600);
        assert_eq!(token(&again.await.unwrap()).0, "a2");
        assert!(world.accounts.remove("ada").await.is_ok());
        sleep(Duration::from_secs(1)).await;
        assert!(
            world.revoked.try_recv().is_err(),
            "the app's authority is not the account's"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_apps_provider_refuses_is_mended_elsewhere_and_tried_again() {
    let mut world = granting(GrantType::ClientCredentials, AccountSecrets::default()).await;
    let asked = world.ask(None);
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AppRefused);
    assert_eq!(world.state().await, AccountState::Failing);
    sleep(Duration::from_secs(5)).await;
    let asked = world.ask(None);
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_password_is_presented_itself_but_where_the_provider_wants_it_for_tokens() {
    for grant in [GrantType::Code, GrantType::Device, GrantType::ClientCredentials] {
        let mut world = granting(grant, password("pw")).await;
        assert_eq!(token(&world.ask(None).await.unwrap()).0, "pw");
        assert!(world.requests.try_recv().is_err());
    }
    let mut world = granting(GrantType::Password, password("pw")).await;
    let asked = world.ask(None);
    let request = world.request().await;
    assert_eq!(request.password, "pw");
    request.succeed("a1", None, 3600);
    let asked = asked.await.unwrap();
    assert_eq!(token(&asked).0, "a1");
    // Without a refresh token the password obtains the next.
    let again = world.ask(Some(token(&asked).1));
    let request = world.request().await;
    assert_eq!((request.password.as_str(), request.refresh_token.as_str()), ("pw", ""));
    request.fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    assert_eq!(kind(again.await.unwrap()), FaultKind::AuthorizationGone);
    assert_eq!(world.state().await, AccountState::NeedsAuthorization);
    world
        .accounts
        .replace(account("ada"), Some(password("new")))
        .await
        .unwrap();
    let asked = world.ask(None);
    let request = world.request().await;
    assert_eq!(request.password, "new");
    request.succeed("a3", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a3");
}

#[tokio::test(start_paused = true)]
async fn another_grant_in_the_configuration_counts_at_once_and_ends_what_was_wrong_before() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let gone = trouble(TokenErrorKind::Grant, "invalid_grant");
    world.request().await.fail(gone.clone());
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AuthorizationGone);

    world
        .config
        .send_replace(Arc::new(with_grant(GrantType::ClientCredentials)));
    let asked = world.ask(None);
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.state().await, AccountState::Active);

    // What is on its way belongs to the way on which it was sent: a rotated token is not lost by the change.
    world.config.send_replace(Arc::new(with_grant(GrantType::Code)));
    let (_, generation) = super::token_of(&world).await;
    let asked = world.ask(Some(generation));
    let request = world.request().await;
    world
        .config
        .send_replace(Arc::new(with_grant(GrantType::ClientCredentials)));
    sleep(Duration::from_secs(1)).await;
    request.succeed("a2", Some("r2"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a2");
    assert_eq!(world.stored(), "r2");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_a_login_has_proved_are_active_from_the_start() {
    let world = World::with(AccountSecrets::default()).await;
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    let mut record = account("ada");
    record.state = AccountState::Active;
    world.accounts.replace(record, Some(refresh_token("r1"))).await.unwrap();
    assert_eq!(world.state().await, AccountState::Active);
    let kept = world.store.account("ada").await.unwrap().unwrap();
    assert_eq!(kept.state, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn mailboxes_that_share_a_grant_share_its_refresh_and_nothing_else() {
    let mut world = with_sharer(refresh_token("r1")).await;
    let (ada, bob) = (world.ask(None), world.ask_of("bob", None));
    let request = world.request().await;
    tokio::task::yield_now().await;
    request.succeed("a1", Some("r2"), 3600);
    let (ada, bob) = (ada.await.unwrap(), bob.await.unwrap());
    assert_eq!((token(&ada), token(&bob)), (token(&ada), token(&ada)));
    assert_eq!(bob.as_ref().unwrap().credential.user, "shared@example.com");
    assert!(world.requests.try_recv().is_err());
    assert_eq!(
        (world.state_of("ada").await, world.state_of("bob").await),
        (AccountState::Active, AccountState::New)
    );

    // Reports and sessions are the sharer's own.
    let target = bob.unwrap();
    world.accounts.report_accepted("bob", target.grant, Protocol::Imap);
    assert_eq!(world.state_of("bob").await, AccountState::Active);
    for token in 1..=2 {
        let (live, _) = session(&world, token).await;
        std::mem::forget(world.accounts.open_session("bob", live).await.unwrap());
    }
    let (live, _) = session(&world, 3).await;
    world.accounts.open_session("ada", live).await.unwrap();
    world
        .accounts
        .report_failed("bob", Some(target.grant), Protocol::Imap, &refused(refusal()));
    assert_eq!(
        (world.state_of("ada").await, world.state_of("bob").await),
        (AccountState::Active, AccountState::Failing)
    );
}

#[tokio::test(start_paused = true)]
async fn a_sharers_refused_token_is_replaced_by_the_owners_generation_and_once() {
    let mut world = with_sharer(refresh_token("r1")).await;
    let asked = world.ask_of("bob", None);
    world.request().await.succeed("a1", None, 3600);
    let generation = token(&asked.await.unwrap()).1;
    let (bob, ada) = (world.ask_of("bob", Some(generation)), world.ask(Some(generation)));
    world.request().await.succeed("a2", None, 3600);
    assert_eq!(token(&bob.await.unwrap()).0, "a2");
    assert_eq!(token(&ada.await.unwrap()).0, "a2");
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_gone_is_gone_for_all_who_share_it() {
    let mut world = with_sharer(refresh_token("r1")).await;
    let bob = world.ask_of("bob", None);
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    let fault = bob.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, FaultKind::AuthorizationGone);
    assert!(
        fault.detail.starts_with("invalid_grant: says the provider; "),
        "{fault}"
    );
    let status = world.accounts.status("bob").await.unwrap();
    assert_eq!(status.state, AccountState::NeedsAuthorization);
    assert_eq!(status.last_error.unwrap().code, "invalid_grant");
    // And back for all of them.
    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r2")))
        .await
        .unwrap();
    let bob = world.ask_of("bob", None);
    world.request().await.succeed("a2", None, 3600);
    assert_eq!(token(&bob.await.unwrap()).0, "a2");
    assert_eq!(world.accounts.status("bob").await.unwrap().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_shared_grant_is_answered_whatever_becomes_of_its_owner() {
    let mut world = with_sharer(refresh_token("r1")).await;
    let bob = world.ask_of("bob", None);
    let request = world.request().await;
    // A password in the grant's place is no one else's.
    world
        .accounts
        .replace(account("ada"), Some(password("pw")))
        .await
        .unwrap();
    request.succeed("a1", None, 3600);
    let fault = bob.await.unwrap().unwrap_err();
    assert_eq!(fault.kind, FaultKind::AuthorizationGone);
    assert!(fault.detail.contains("has no OAuth grant"), "{}", fault.detail);

    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r2")))
        .await
        .unwrap();
    let bob = world.ask_of("bob", None);
    let request = world.request().await;
    world.accounts.kill_supervisor("ada");
    // Its successor lends what the request brings.
    request.succeed("a3", Some("r3"), 3600);
    assert_eq!(token(&bob.await.unwrap()).0, "a3");
    assert_eq!(world.stored(), "r3");
    assert!(world.requests.try_recv().is_err());

    // One who stops sharing while it waits is served from what is its own then.
    let generation = super::token_of(&world).await.1;
    let bob = world.ask_of("bob", Some(generation));
    let request = world.request().await;
    world
        .accounts
        .replace(account("bob"), Some(password("own")))
        .await
        .unwrap();
    request.succeed("a4", None, 3600);
    assert!(bob.await.unwrap().is_ok());
    assert_eq!(token(&world.ask_of("bob", None).await.unwrap()).0, "own");
}

#[tokio::test(start_paused = true)]
async fn a_disabled_owner_still_lends_and_a_disabled_sharer_gets_nothing() {
    let mut world = with_sharer(refresh_token("r1")).await;
    let mut record = account("ada");
    record.state = AccountState::Disabled;
    world.accounts.replace(record, None).await.unwrap();
    let bob = world.ask_of("bob", None);
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token(&bob.await.unwrap()).0, "a1");
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AccountDisabled);
    let mut record = sharer();
    record.state = AccountState::Disabled;
    world.accounts.replace(record, None).await.unwrap();
    assert_eq!(
        kind(world.ask_of("bob", None).await.unwrap()),
        FaultKind::AccountDisabled
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_accounts_grant_is_given_back_and_a_shared_one_is_not_removed() {
    let mut world = with_sharer(refresh_token("r1")).await;
    let refused = world.accounts.remove("ada").await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::GrantShared(names) if names == "bob"),
        "{refused}"
    );
    assert!(world.revoked.try_recv().is_err());
    world.accounts.remove("bob").await.unwrap();
    world.accounts.remove("ada").await.unwrap();
    assert_eq!(world.revoked.recv().await.as_deref(), Some("r1"));
    world.accounts.drain().await;
    assert!(world.revoked.try_recv().is_err(), "the sharer had nothing to give back");
}

#[tokio::test(start_paused = true)]
async fn what_a_refresh_brings_for_a_removed_account_is_given_back_too() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let request = world.request().await;
    world.accounts.remove("ada").await.unwrap();
    assert_eq!(world.revoked.recv().await.as_deref(), Some("r1"));
    request.succeed("a2", Some("r2"), 3600);
    assert_eq!(world.revoked.recv().await.as_deref(), Some("r2"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::UnknownCredentials);
}

#[tokio::test(start_paused = true)]
async fn a_grant_keeps_the_scopes_and_the_end_that_answers_tell() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.succeed_until("a1", None, 3600, Some(DAY * 30));
    let generation = token(&asked.await.unwrap()).1;
    let ends = world.accounts.status("ada").await.unwrap().grant_ends.unwrap();
    assert!(ends.since(clock::now()) > DAY * 29);
    // An answer that tells nothing leaves what is known.
    let asked = world.ask(Some(generation));
    world.request().await.succeed("a2", None, 3600);
    asked.await.unwrap().unwrap();
    assert_eq!(world.accounts.status("ada").await.unwrap().grant_ends, Some(ends));
    let kept = world
        .store
        .account_secrets("ada")
        .await
        .unwrap()
        .unwrap()
        .grant
        .unwrap();
    assert_eq!((kept.ends, kept.scope.as_deref()), (Some(ends), Some("mail")));
}

#[tokio::test(start_paused = true)]
async fn an_idle_grant_is_renewed_in_time_and_no_oftener() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    asked.await.unwrap().unwrap();
    let keeper = tokio::spawn(keeping::keep(world.accounts.clone(), std::future::pending()));
    for (refresh_token, rotated) in [("r2", "r3"), ("r3", "r4")] {
        age_grant(&world, DAY * 23);
        sleep(DAY).await;
        assert!(world.requests.try_recv().is_err(), "nothing is due before 80 %");
        age_grant(&world, DAY * 30);
        let request = world.request().await;
        assert_eq!(request.refresh_token, refresh_token);
        request.succeed("a2", Some(rotated), 3600);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(world.stored(), rotated);
    }
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn only_grants_that_can_be_kept_are_and_few_at_once() {
    let mut world = World::with(password("pw")).await;
    let create = |id: &str, secrets: AccountSecrets, state: AccountState| {
        let record = AccountRecord { state, ..account(id) };
        world.accounts.create(record, secrets)
    };
    create("gone", refresh_token("gone"), AccountState::NeedsAuthorization)
        .await
        .unwrap();
    create("off", refresh_token("off"), AccountState::Disabled)
        .await
        .unwrap();
    for number in 0..20 {
        let id = format!("user{number}");
        create(&id, refresh_token(&id), AccountState::Active).await.unwrap();
    }
    world
        .accounts
        .create(sharer(), AccountSecrets::default())
        .await
        .unwrap();
    let keeper = tokio::spawn(keeping::keep(world.accounts.clone(), std::future::pending()));
    let mut under_way = Vec::new();
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let request = world.request().await;
        seen.push(request.refresh_token.clone());
        under_way.push(request);
        sleep(Duration::from_secs(5)).await;
        while let Ok(request) = world.requests.try_recv() {
            seen.push(request.refresh_token.clone());
            under_way.push(request);
        }
        assert!(
            under_way.len() <= crate::limits::KEEPING_IN_FLIGHT_MAX,
            "{}",
            under_way.len()
        );
        under_way.drain(..).for_each(|request| request.succeed("a", None, 3600));
    }
    seen.sort();
    seen.dedup();
    assert!(
        seen.len() == 20 && seen.iter().all(|token| token.starts_with("user")),
        "{seen:?}"
    );
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_heals_by_the_accounts_own_back_off() {
    let mut world = World::with(refresh_token("r1")).await;
    let keeper = tokio::spawn(keeping::keep(world.accounts.clone(), std::future::pending()));
    world.request().await.fail(trouble(PASSING, "http_503"));
    world.request().await.succeed("a1", Some("r2"), 3600);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        (world.state().await, world.stored().as_str()),
        (AccountState::Active, "r2")
    );
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_known_end_is_told_once_and_shown_until_somebody_acts() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.succeed_until("a1", None, 3600, Some(DAY * 7));
    asked.await.unwrap().unwrap();
    assert_eq!(world.accounts.ending(), []);
    let keeper = tokio::spawn(keeping::keep(world.accounts.clone(), std::future::pending()));
    // Four days on, three before the end.
    set_grant(&world, |grant| {
        grant.obtained = grant.obtained.map(|time| time.before(DAY * 4));
        grant.ends_told = grant.ends_told.map(|time| time.before(DAY * 4));
        grant.ends = grant.ends.map(|time| time.before(DAY * 4));
    });
    world.accounts.kill_supervisor("ada");
    world.request().await.succeed_until("a2", None, 3600, Some(DAY * 3));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.accounts.ending().len(), 1);
    let endings = |world: &mut World| {
        let mut endings = 0;
        while let Ok(notice) = world.notices.try_recv() {
            endings += usize::from(matches!(notice.news, News::GrantEnding { .. }));
        }
        endings
    };
    assert_eq!(endings(&mut world), 1);
    // Neither time nor a restart tells it again.
    world.accounts.kill_supervisor("ada");
    sleep(Duration::from_secs(3 * 3600)).await;
    assert_eq!(endings(&mut world), 0);
    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r9")))
        .await
        .unwrap();
    assert_eq!(world.accounts.ending(), []);
    keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn every_change_of_state_is_told_with_its_cause_and_what_to_do() {
    let (mut world, generation) = refreshed().await;
    assert_eq!(changes(&mut world), [(AccountState::New, AccountState::Active)]);
    let asked = world.ask(Some(generation));
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AuthorizationGone);
    let notice = world.notices.recv().await.unwrap();
    assert_eq!(
        (
            notice.account.as_str(),
            notice.provider.as_str(),
            notice.email.as_deref()
        ),
        ("ada", "example", Some("ada@example.com"))
    );
    assert_eq!(
        notice.news.reason().as_deref(),
        Some("needs-authorization: invalid_grant")
    );
    let News::State {
        from,
        to,
        error,
        remedy,
    } = notice.news
    else {
        panic!("another notice")
    };
    assert_eq!((from, to), (AccountState::Active, AccountState::NeedsAuthorization));
    assert!(
        error
            .unwrap()
            .message
            .starts_with("says the provider; the grant is gone")
    );
    assert!(remedy.unwrap().contains("portreeve account authorize ada,"));
    // The same again is no change, and an administrator's is one.
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    let mut record = account("ada");
    record.state = AccountState::Disabled;
    world.accounts.replace(record, None).await.unwrap();
    assert_eq!(
        changes(&mut world),
        [(AccountState::NeedsAuthorization, AccountState::Disabled)]
    );
}

/// Makes the grant that is kept so old, as if the daemon had been out of service for that long.
fn age_grant(world: &World, age: Duration) {
    set_grant(world, |grant| grant.obtained = Some(clock::now().before(age)));
    if world.accounts.is_supervised("ada") {
        world.accounts.kill_supervisor("ada");
    }
}

fn set_grant(world: &World, change: impl FnOnce(&mut crate::store::Grant)) {
    let mut kept = world.store.kept.lock().unwrap();
    let grant = kept.accounts.get_mut("ada").unwrap().1.grant.as_mut().unwrap();
    change(grant);
    assert!(
        grant
            .refresh_token
            .as_ref()
            .is_some_and(|token| !token.expose_secret().is_empty())
    );
}
