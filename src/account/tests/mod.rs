//! Accounts as their callers see them, on a paused clock, over a store in memory and a provider that the test plays.

mod durable;
mod failures;
mod grants;
mod submissions;
pub(crate) mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use support::{Asked, World, account, config, password, refresh_token, session};
use tokio::time::{Instant, sleep};

use crate::clock;
use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::limits::REFRESHES_PER_PROVIDER_MAX;
use crate::oauth::{TokenError, TokenErrorKind};
use crate::proto::session::Goodbye;
use crate::proto::{CredentialSecret, Protocol};
use crate::secret::ExposeSecret;
use crate::store::{AccountSecrets, AccountState, Grant, Store, StoreError, TokenId};

fn token(asked: &Asked) -> (&str, u64) {
    match &asked.as_ref().unwrap().credential.secret {
        CredentialSecret::OAuth { token, generation } => (token.expose_secret(), *generation),
        CredentialSecret::Password(password) => (password.expose_secret(), 0),
    }
}

fn kind(asked: Asked) -> FaultKind {
    asked.unwrap_err().kind
}

fn trouble(kind: TokenErrorKind, code: &str) -> TokenError {
    TokenError::new(kind, code, "says the provider")
}

const PASSING: TokenErrorKind = TokenErrorKind::Temporary { retry_after: None };

fn refusal() -> UpstreamRefusal {
    UpstreamRefusal {
        code: Some("AUTHENTICATIONFAILED".to_owned()),
        text: "Invalid credentials".to_owned(),
        blames_credential: true,
    }
}

fn refused(refusal: UpstreamRefusal) -> Fault {
    Fault::new(FaultKind::UpstreamRefused(refusal))
}

fn is_still_refused(asked: Asked) -> bool {
    matches!(kind(asked), FaultKind::UpstreamRefused(refusal) if refusal.blames_credential)
}

/// Nothing but an access token, good for `life` seconds.
fn access_token(token: &str, life: u64) -> AccountSecrets {
    AccountSecrets {
        grant: Some(Grant {
            refresh_token: None,
            access_token: Some(token.into()),
            obtained: Some(clock::now()),
            expires: Some(clock::now().after(Duration::from_secs(life))),
            ..Grant::default()
        }),
        password: None,
    }
}

/// Refreshes once, so that `a1` is the current token, good for an hour.
async fn refreshed() -> (World, u64) {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    let asked = asked.await.unwrap();
    assert_eq!(token(&asked).0, "a1");
    let generation = token(&asked).1;
    (world, generation)
}

#[tokio::test(start_paused = true)]
async fn two_hundred_logins_cause_one_refresh() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = (0..200).map(|_| world.ask(None)).collect::<Vec<_>>();
    let request = world.request().await;
    assert_eq!(request.refresh_token, "r1");
    request.succeed("a1", Some("r2"), 3600);
    for asked in asked {
        assert_eq!(token(&asked.await.unwrap()).0, "a1");
    }
    assert!(world.requests.try_recv().is_err());
    assert_eq!(
        (world.state().await, world.stored().as_str()),
        (AccountState::Active, "r2")
    );
    assert_eq!((world.store.grant_writes(), world.store.writes()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rotated_grant_is_on_disk_before_its_token_is_used() {
    let mut world = World::with(refresh_token("r1")).await;
    let gate = world.store.hold_writes();
    let mut asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    assert!(tokio::time::timeout(Duration::from_secs(5), &mut asked).await.is_err());
    gate.add_permits(1);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r2");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_cancels_no_refresh() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let request = world.request().await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    request.succeed("a1", Some("r2"), 3600);
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r2");
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_refuses_is_used_from_memory_and_written_later() {
    let mut world = World::with(refresh_token("r1")).await;
    world.store.is_full.store(true, Ordering::SeqCst);
    let asked = world.ask(None);
    world.request().await.succeed("a1", Some("r2"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r1");
    assert!(world.accounts.health().unwrap_err().contains("1 accounts"));
    sleep(Duration::from_secs(20)).await;
    assert!(world.store.grant_writes() > 3, "the write is tried again and again");
    assert!(world.accounts.health().is_err());
    world.store.is_full.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(world.stored(), "r2");
    assert_eq!(world.accounts.health(), Ok(()));
    let writes = (world.store.grant_writes(), world.store.writes());
    sleep(Duration::from_secs(600)).await;
    assert_eq!((world.store.grant_writes(), world.store.writes()), writes);
}

#[tokio::test(start_paused = true)]
async fn a_missing_consent_is_told_with_its_remedy_behind_the_providers_own_words() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let mut refused = TokenError::new(TokenErrorKind::Grant, "invalid_grant", "AADSTS65001: not consented to.");
    refused.facts.number = Some(65001);
    world.request().await.fail(refused);
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AuthorizationGone);
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.state, AccountState::NeedsAuthorization);
    let error = status.last_error.unwrap();
    assert_eq!(error.code, "invalid_grant");
    let words = "AADSTS65001: not consented to; consent is missing for a scope";
    assert!(error.message.starts_with(words), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_gone_needs_a_person_and_a_put_heals_it_at_once() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AuthorizationGone);
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(
        (status.state, status.next_try),
        (AccountState::NeedsAuthorization, None)
    );
    assert_eq!(status.last_error.unwrap().code, "invalid_grant");
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    assert!(world.requests.try_recv().is_err());

    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r9")))
        .await
        .unwrap();
    assert_eq!(world.state().await, AccountState::New);
    let asked = world.ask(None);
    let request = world.request().await;
    assert_eq!(request.refresh_token, "r9");
    request.succeed("a9", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a9");
    assert_eq!(world.stored(), "r9", "a missing refresh token keeps the old");
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn needs_authorization_outlives_a_restart() {
    let mut record = account("ada");
    record.state = AccountState::NeedsAuthorization;
    let mut world = World::with_record(record, refresh_token("r1")).await;
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn passing_trouble_is_backed_off_from_and_recovers_by_itself() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.fail(trouble(PASSING, "http_503"));
    let fault = asked.await.unwrap().unwrap_err();
    assert_eq!(
        (fault.kind, fault.detail.as_str()),
        (FaultKind::Unavailable, "http_503: says the provider")
    );
    assert_eq!(world.state().await, AccountState::Failing);
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::Unavailable);
    assert!(
        world.requests.try_recv().is_err(),
        "within the back-off nothing is sent"
    );
    // Nobody asks: the next attempt comes all the same.
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "a1");
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn the_same_trouble_again_is_not_written_again() {
    let mut world = World::with(refresh_token("r1")).await;
    drop(world.ask(None));
    for _ in 0..5 {
        world.request().await.fail(trouble(PASSING, "http_503"));
    }
    world.request().await.fail(trouble(PASSING, "timeout"));
    world.request().await.succeed("a1", None, 3600);
    world.ask(None).await.unwrap().unwrap();
    assert_eq!((world.store.grant_writes(), world.store.writes()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_waited_for() {
    let mut world = World::with(refresh_token("r1")).await;
    let retry_after = Some(Duration::from_secs(90));
    let begun = Instant::now();
    let asked = world.ask(None);
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::Temporary { retry_after }, "http_429"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::Unavailable);
    let next_try = world.accounts.status("ada").await.unwrap().next_try.unwrap();
    assert!(next_try.since(clock::now()) > Duration::from_secs(85));
    world.request().await.succeed("a1", None, 3600);
    assert!(begun.elapsed() >= Duration::from_secs(90) && begun.elapsed() < Duration::from_secs(92));
}

#[tokio::test(start_paused = true)]
async fn a_refused_app_fails_the_account_until_its_settings_change() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::App, "invalid_client"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AppRefused);
    assert_eq!(world.state().await, AccountState::Failing);
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AppRefused);
    world.config.send_replace(Arc::new(config()));
    while world.accounts.status("ada").await.unwrap().next_try.is_some() {
        tokio::task::yield_now().await;
    }
    let asked = world.ask(None);
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
}

#[tokio::test(start_paused = true)]
async fn a_provider_task_that_panics_is_passing_trouble() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.break_down();
    assert_eq!(kind(asked.await.unwrap()), FaultKind::Unavailable);
    world.request().await.succeed("a1", None, 3600);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_not_overwritten_by_the_old_grants_refresh() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let old = world.request().await;
    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r9")))
        .await
        .unwrap();
    let new = world.request().await;
    assert_eq!(new.refresh_token, "r9");
    old.succeed("a2", Some("r2"), 3600);
    new.succeed("a10", Some("r10"), 3600);
    assert_eq!(
        token(&asked.await.unwrap()).0,
        "a10",
        "who waited gets the new grant's token"
    );
    assert_eq!(world.stored(), "r10");
    old_failure_changes_nothing(&mut world).await;
}

async fn old_failure_changes_nothing(world: &mut World) {
    let (_, generation) = token_of(world).await;
    let asked = world.ask(Some(generation));
    let old = world.request().await;
    world
        .accounts
        .replace(account("ada"), Some(refresh_token("r11")))
        .await
        .unwrap();
    let new = world.request().await;
    old.fail(trouble(TokenErrorKind::Grant, "invalid_grant"));
    new.succeed("a12", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a12");
    assert_eq!(world.state().await, AccountState::Active);
}

async fn token_of(world: &World) -> (String, u64) {
    let asked = world.ask(None).await.unwrap();
    let (token, generation) = token(&asked);
    (token.to_owned(), generation)
}

#[tokio::test(start_paused = true)]
async fn a_password_put_during_a_refresh_serves_who_waited_where_the_mailbox_is_now() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let old = world.request().await;
    let mut record = account("ada");
    record.user = Some("countess".to_owned());
    world.accounts.replace(record, Some(password("pw"))).await.unwrap();
    let asked = asked.await.unwrap();
    assert_eq!(token(&asked).0, "pw");
    assert_eq!(asked.as_ref().unwrap().credential.user, "countess");
    old.succeed("a2", Some("r2"), 3600);
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "pw");
    assert_eq!(world.state().await, AccountState::New);
}

#[tokio::test(start_paused = true)]
async fn putting_the_same_grant_again_loses_no_rotation_on_its_way() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let request = world.request().await;
    let mut record = account("ada");
    record.name = Some("Ada".to_owned());
    world.accounts.replace(record, Some(refresh_token("r1"))).await.unwrap();
    request.succeed("a2", Some("r2"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a2");
    assert_eq!(world.stored(), "r2");
    assert_eq!(
        world.store.account("ada").await.unwrap().unwrap().name.as_deref(),
        Some("Ada")
    );
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_the_store_refuses_changes_nothing() {
    let (mut world, _) = refreshed().await;
    world.store.create_account(account("bob"), password("x")).await.unwrap();
    let mut record = account("ada");
    record.email = Some("bob@example.com".to_owned());
    let refused = world.accounts.replace(record, Some(refresh_token("r9"))).await;
    assert!(matches!(refused, Err(StoreError::Conflict("e-mail"))));
    assert_eq!(token_of(&world).await.0, "a1");
    let unknown = world.accounts.replace(account("eve"), None).await;
    assert!(matches!(unknown, Err(StoreError::NotFound("account"))));
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_record_changes_without_its_credentials_or_state() {
    let (mut world, _) = refreshed().await;
    let mut record = account("ada");
    record.user = Some("shared@example.com".to_owned());
    world.accounts.replace(record, None).await.unwrap();
    let asked = world.ask(None).await.unwrap().unwrap();
    assert_eq!(asked.credential.user, "shared@example.com");
    assert_eq!(
        (world.state().await, world.stored().as_str()),
        (AccountState::Active, "r2")
    );
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once_a_minute() {
    let (mut world, first) = refreshed().await;
    let asked = world.ask(Some(first));
    world.request().await.succeed("a2", None, 3600);
    let asked = asked.await.unwrap();
    let (fresh, second) = token(&asked);
    assert_eq!(fresh, "a2");
    assert_eq!(
        token(&world.ask(Some(first)).await.unwrap()).0,
        "a2",
        "a newer one is there already"
    );
    let grant = asked.as_ref().unwrap().grant;
    // Another session still got in; that changes nothing for a token refused since.
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    assert!(is_still_refused(world.ask(Some(second)).await.unwrap()));
    assert!(world.requests.try_recv().is_err());
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.state, AccountState::Failing);
    let message = status.last_error.unwrap().message;
    assert_eq!(
        message,
        "the upstream refuses the credential: [AUTHENTICATIONFAILED] Invalid credentials"
    );
    sleep(Duration::from_secs(61)).await;
    let asked = world.ask(Some(second));
    world.request().await.succeed("a3", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a3");
    assert_eq!(
        world.state().await,
        AccountState::Failing,
        "a refresh does not heal what the upstream refuses"
    );
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_that_cannot_be_refreshed_is_refused_and_the_account_says_so() {
    let world = World::with(access_token("a1", 3600)).await;
    let asked = world.ask(None).await.unwrap();
    let (grant, generation) = (asked.as_ref().unwrap().grant, token(&asked).1);
    assert!(is_still_refused(world.ask(Some(generation)).await.unwrap()));
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(
        (status.state, status.last_error.unwrap().code.as_str(), status.next_try),
        (AccountState::Failing, "upstream_refused", None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_does_not_blame_the_credential_is_not_held_against_it() {
    let world = World::with(password("pw")).await;
    let throttled = UpstreamRefusal {
        blames_credential: false,
        ..refusal()
    };
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(throttled));
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(
        (status.state, status.last_error.unwrap().code.as_str()),
        (AccountState::Failing, "upstream_unavailable")
    );
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "pw");
}

#[tokio::test(start_paused = true)]
async fn a_setting_of_the_upstreams_is_told_and_closes_no_other_protocol() {
    let world = World::with(password("secret")).await;
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    let disabled = UpstreamRefusal {
        code: Some("535 5.7.139".to_owned()),
        text: "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.".to_owned(),
        blames_credential: true,
    };
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Smtp, &refused(disabled));
    // A mailbox that is read meanwhile says nothing of sending.
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.state, AccountState::Active);
    let error = status.last_error.unwrap();
    assert_eq!(error.code, "smtp_refused");
    let words = "the upstream refuses the login over smtp: [535 5.7.139] Authentication unsuccessful, \
                 SmtpClientAuthentication is disabled for the Mailbox; SMTP AUTH is switched off for this mailbox";
    assert!(error.message.starts_with(words), "{}", error.message);
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "secret");
    world.accounts.report_accepted("ada", grant, Protocol::Smtp);
    assert_eq!(world.accounts.status("ada").await.unwrap().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_password_that_one_protocol_takes_is_not_lost_by_another_that_never_did() {
    let world = World::with(password("secret")).await;
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Smtp, &refused(refusal()));
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.state, AccountState::Active);
    assert_eq!(status.last_error.unwrap().code, "smtp_refused");
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "secret");
    // Where it was accepted before, it has been changed.
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.state, AccountState::NeedsAuthorization);
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_does_not_hide_a_setting_of_the_upstreams() {
    let (mut world, _) = refreshed().await;
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    let not_connected = UpstreamRefusal {
        code: None,
        text: "User is authenticated but not connected.".to_owned(),
        blames_credential: true,
    };
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(not_connected));
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.last_error.unwrap().code, "imap_refused");
    let (live, _heard) = session(&world, 1).await;
    let _lease = world.accounts.open_session("ada", live).await.unwrap();
    world.request().await.succeed("a2", None, 3600);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(token_of(&world).await.0, "a2");
    let status = world.accounts.status("ada").await.unwrap();
    assert_eq!(status.state, AccountState::Failing);
    assert_eq!(status.last_error.unwrap().code, "imap_refused");
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_while_a_session_is_live_and_not_after() {
    let (mut world, _) = refreshed().await;
    let begun = Instant::now();
    let (live, _heard) = session(&world, 1).await;
    let lease = world.accounts.open_session("ada", live).await.unwrap();
    world.request().await.succeed("a2", None, 3600);
    let renewed = begun.elapsed().as_secs();
    assert!((2690..=2881).contains(&renewed), "{renewed}");
    drop(lease);
    sleep(Duration::from_secs(7200)).await;
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn sessions_are_limited_and_end_with_their_token_or_account() {
    let (world, _) = refreshed().await;
    let (first, mut first_heard) = session(&world, 1).await;
    let (second, mut second_heard) = session(&world, 2).await;
    let (third, _) = session(&world, 3).await;
    let first = world.accounts.open_session("ada", first).await.unwrap();
    let _second = world.accounts.open_session("ada", second).await.unwrap();
    let fault = world.accounts.open_session("ada", third.clone()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::AccountLimit);
    drop(first);
    let third_lease = world.accounts.open_session("ada", third).await.unwrap();
    world.accounts.token_removed("ada", &TokenId([2; 32]));
    assert_eq!(second_heard.recv().await, Some(Goodbye::TokenDeleted));
    assert!(first_heard.try_recv().is_err());
    drop(third_lease);
    assert_eq!(world.accounts.remove("ada").await.unwrap().len(), 3);
    assert_eq!(second_heard.recv().await, Some(Goodbye::AccountDeleted));
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::UnknownCredentials);
    assert!(matches!(
        world.accounts.remove("ada").await,
        Err(StoreError::NotFound(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_verification_takes_one_of_the_accounts_places_and_waits_for_none() {
    let (world, _) = refreshed().await;
    let visit = world.accounts.open_visit("ada", Protocol::Imap).await.unwrap();
    let (first, _) = session(&world, 1).await;
    let (second, _) = session(&world, 2).await;
    let _first = world.accounts.open_session("ada", first).await.unwrap();
    let fault = world.accounts.open_session("ada", second.clone()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::AccountLimit);
    drop(visit);
    let _second = world.accounts.open_session("ada", second).await.unwrap();
    let fault = world.accounts.open_visit("ada", Protocol::Imap).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::AccountLimit);
    assert_eq!(
        fault.detail,
        "2 sessions are live, which is all that the account may have at once"
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_of_an_account_that_vanished_from_the_store_end() {
    let (world, _) = refreshed().await;
    let (live, mut heard) = session(&world, 1).await;
    let _lease = world.accounts.open_session("ada", live).await.unwrap();
    world.store.kept.lock().unwrap().accounts.remove("ada");
    // Its next write finds out.
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    assert_eq!(heard.recv().await, Some(Goodbye::AccountDeleted));
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::UnknownCredentials);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_token_was_deleted_meanwhile_is_not_opened() {
    let (world, _) = refreshed().await;
    let (live, _heard) = session(&world, 1).await;
    world.store.remove_token(&live.token).await.unwrap();
    let fault = world.accounts.open_session("ada", live).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::UnknownCredentials);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_account_serves_nobody_and_says_goodbye() {
    let (world, _) = refreshed().await;
    let (live, mut heard) = session(&world, 1).await;
    let _lease = world.accounts.open_session("ada", live.clone()).await.unwrap();
    let mut record = account("ada");
    record.state = AccountState::Disabled;
    world.accounts.replace(record, None).await.unwrap();
    assert_eq!(heard.recv().await, Some(Goodbye::AccountDeleted));
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AccountDisabled);
    assert_eq!(
        world.accounts.open_session("ada", live).await.unwrap_err().kind,
        FaultKind::AccountDisabled
    );
    world.accounts.replace(account("ada"), None).await.unwrap();
    assert_eq!(token_of(&world).await.0, "a1");
}

#[tokio::test(start_paused = true)]
async fn a_password_is_handed_out_until_the_upstream_refuses_it() {
    let world = World::with(password("pw")).await;
    let asked = world.ask(None).await.unwrap();
    assert_eq!(token(&asked).0, "pw");
    let grant = asked.as_ref().unwrap().grant;
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    assert_eq!(world.state().await, AccountState::Active);
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "pw");
    assert_eq!(world.store.writes(), 1);
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    assert_eq!(world.state().await, AccountState::NeedsAuthorization);
    world
        .accounts
        .replace(account("ada"), Some(password("pw2")))
        .await
        .unwrap();
    // A session that tried the old one comes late with its bad news.
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "pw2");
}

#[tokio::test(start_paused = true)]
async fn a_verification_tries_a_refused_password_and_heals_the_account() {
    let world = World::with(password("pw")).await;
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    let asked = world.accounts.credential_to_verify("ada", Protocol::Imap, None).await;
    assert_eq!(token(&asked).0, "pw");
    assert_eq!(world.state().await, AccountState::NeedsAuthorization);
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    assert_eq!(token(&world.ask(None).await.unwrap()).0, "pw");
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn an_access_token_without_a_refresh_token_serves_to_its_end() {
    let world = World::with(access_token("a1", 100)).await;
    assert_eq!(token_of(&world).await.0, "a1");
    sleep(Duration::from_secs(101)).await;
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::AuthorizationGone);
    assert_eq!(world.state().await, AccountState::NeedsAuthorization);
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_a_refresh_and_its_commit() {
    let mut world = World::with(refresh_token("r1")).await;
    let gate = world.store.hold_writes();
    let asked = world.ask(None);
    let request = world.request().await;
    let accounts = world.accounts.clone();
    let mut drained = tokio::spawn(async move { accounts.drain().await });
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut drained)
            .await
            .is_err()
    );
    request.succeed("a1", Some("r2"), 3600);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), &mut drained)
            .await
            .is_err()
    );
    // The grant, and after it the state.
    gate.add_permits(2);
    drained.await.unwrap();
    assert_eq!(world.stored(), "r2");
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(kind(world.ask(None).await.unwrap()), FaultKind::Unavailable);
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_on_a_provider_that_never_answers() {
    let mut world = World::with(refresh_token("r1")).await;
    drop(world.ask(None));
    let _request = world.request().await;
    let begun = Instant::now();
    world.accounts.drain().await;
    assert_eq!(begun.elapsed().as_secs(), 25);
}

#[tokio::test(start_paused = true)]
async fn stopping_sends_no_refresh_that_waits_for_its_turn() {
    let mut world = World::with(refresh_token("r1")).await;
    let mut asked = vec![world.ask(None)];
    let mut requests = vec![world.request().await];
    for number in 1..=REFRESHES_PER_PROVIDER_MAX {
        let (accounts, id) = (world.accounts.clone(), format!("user{number}"));
        let created = accounts.create(account(&id), refresh_token("r1")).await;
        created.unwrap();
        asked.push(tokio::spawn(async move {
            accounts.credential(&id, Protocol::Imap, None).await
        }));
        if number < REFRESHES_PER_PROVIDER_MAX {
            requests.push(world.request().await);
        }
    }
    // The last one waits for a turn.
    sleep(Duration::from_secs(1)).await;
    assert!(world.requests.try_recv().is_err());
    let accounts = world.accounts.clone();
    let drained = tokio::spawn(async move { accounts.drain().await });
    sleep(Duration::from_secs(1)).await;
    for request in requests {
        request.succeed("a2", Some("r2"), 3600);
    }
    drained.await.unwrap();
    assert!(world.requests.try_recv().is_err());
    assert_eq!(kind(asked.pop().unwrap().await.unwrap()), FaultKind::Unavailable);
    for asked in asked {
        assert_eq!(token(&asked.await.unwrap()).0, "a2");
    }
    let last = format!("user{REFRESHES_PER_PROVIDER_MAX}");
    let last = world.store.account(&last).await.unwrap().unwrap();
    assert_eq!(last.state, AccountState::New, "stopping is no trouble of its own");
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_nobody_uses_ends_and_comes_back_when_needed() {
    let (mut world, _) = refreshed().await;
    sleep(Duration::from_secs(2000)).await;
    assert!(!world.accounts.is_supervised("ada"));
    assert_eq!(
        token_of(&world).await.0,
        "a1",
        "from the store, without another refresh"
    );
    assert!(world.accounts.is_supervised("ada"));
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_refused_app_keeps_no_supervisor_of_an_unused_account() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world
        .request()
        .await
        .fail(trouble(TokenErrorKind::App, "invalid_client"));
    assert_eq!(kind(asked.await.unwrap()), FaultKind::AppRefused);
    sleep(Duration::from_secs(2000)).await;
    assert!(world.requests.try_recv().is_err());
    assert!(!world.accounts.is_supervised("ada"));
    let asked = world.ask(None);
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.state().await, AccountState::Active);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_account_leaves_nothing_behind() {
    let world = World::with(refresh_token("r1")).await;
    let asked = world.accounts.credential("eve", Protocol::Imap, None).await;
    assert_eq!(kind(asked), FaultKind::UnknownCredentials);
    assert!(!world.accounts.is_supervised("eve"));
    assert!(matches!(
        world.accounts.status("eve").await,
        Err(StoreError::NotFound(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_protocol_that_the_provider_lacks_costs_no_refresh() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.accounts.credential("ada", Protocol::Smtp, None).await;
    assert_eq!(kind(asked), FaultKind::ProtocolNotOffered);
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_dies_is_replaced_and_its_sessions_are_still_known() {
    let (mut world, _) = refreshed().await;
    let (first, mut heard) = session(&world, 1).await;
    let (second, _) = session(&world, 2).await;
    let (third, _) = session(&world, 3).await;
    let first = world.accounts.open_session("ada", first).await.unwrap();
    let _second = world.accounts.open_session("ada", second).await.unwrap();
    world.accounts.kill_supervisor("ada");
    let fault = world.accounts.open_session("ada", third.clone()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::AccountLimit);
    assert_eq!(token_of(&world).await.0, "a1");
    world.accounts.token_removed("ada", &TokenId([1; 32]));
    assert_eq!(heard.recv().await, Some(Goodbye::TokenDeleted));
    drop(first);
    world.accounts.open_session("ada", third).await.unwrap();
    assert!(world.requests.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_supervisor_that_dies_is_served_by_the_next_with_what_was_asked_for() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    let request = world.request().await;
    world.accounts.kill_supervisor("ada");
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(world.requests.try_recv().is_err(), "r1 is not presented again");
    request.succeed("a1", Some("r2"), 3600);
    assert_eq!(token(&asked.await.unwrap()).0, "a1");
    assert_eq!(world.stored(), "r2");
    assert!(world.requests.try_recv().is_err());
}
