//! Logins that fail, as an administrator sees them: state, last error, how many and since when.

use std::time::Duration;

use tokio::time::sleep;

use super::support::{World, account, password, refresh_token};
use super::{PASSING, refusal, refused, token_of, trouble};
use crate::account::AccountStatus;
use crate::clock;
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamRefusal, UpstreamWords};
use crate::proto::Protocol;
use crate::store::{AccountSecrets, AccountState, Store};

async fn status(world: &World) -> AccountStatus {
    world.accounts.status("ada").await.unwrap()
}

fn unavailable() -> Fault {
    refused(UpstreamRefusal {
        code: None,
        text: "Server Unavailable. 15".to_owned(),
        blames_credential: false,
    })
}

/// A world whose account has a password, and the number of that grant.
async fn world() -> (World, u64) {
    let world = World::with(password("pw")).await;
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    (world, grant)
}

#[tokio::test(start_paused = true)]
async fn a_run_of_failed_logins_shows_whoever_is_to_blame_and_a_success_ends_it() {
    let (world, grant) = world().await;
    let begun = clock::now();
    let faults = [
        unavailable(),
        refused(UpstreamRefusal {
            code: Some("OVERQUOTA".to_owned()),
            text: "Mailbox is full".to_owned(),
            blames_credential: false,
        }),
        Fault::unavailable("the upstream greets with 421 4.3.2 Service not active"),
        Fault::unavailable("the upstream greets with 554 no"),
        Fault::unavailable("the upstream offers none of the mechanisms that are configured"),
        Fault::unavailable("cannot connect to imap.example.com:993: connection refused"),
    ];
    for fault in faults.iter().chain(&faults) {
        world.accounts.report_failed("ada", Some(grant), Protocol::Imap, fault);
        assert_eq!(status(&world).await.state, AccountState::Failing, "{fault}");
    }
    let shown = status(&world).await;
    let failures = shown.failures.unwrap();
    assert_eq!(failures.count, 12);
    assert!(failures.since >= begun && failures.since <= clock::now().after(Duration::from_secs(60)));
    let error = shown.last_error.unwrap();
    assert_eq!(error.code, "upstream_unavailable");
    assert_eq!(
        error.message,
        "a login failed: cannot connect to imap.example.com:993: connection refused"
    );
    assert_eq!(world.accounts.failing(), [("ada".to_owned(), failures)]);
    assert_eq!(token_of(&world).await.0, "pw", "the password is not blamed");

    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    let shown = status(&world).await;
    assert_eq!(
        (shown.state, shown.last_error, shown.failures),
        (AccountState::Active, None, None)
    );
    assert_eq!(world.accounts.failing(), []);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_failed_logins_writes_once_a_minute() {
    let (world, grant) = world().await;
    for second in 1..=600 {
        for _ in 0..10 {
            world
                .accounts
                .report_failed("ada", Some(grant), Protocol::Imap, &unavailable());
        }
        assert_eq!(status(&world).await.failures.unwrap().count, second * 10);
        sleep(Duration::from_secs(1)).await;
    }
    let writes = world.store.writes();
    assert!((10..=12).contains(&writes), "{writes}");
    let kept = world.store.account("ada").await.unwrap().unwrap();
    assert!(kept.failures.unwrap().count > 5000, "{kept:?}");
    // What is known by then is not lost by stopping.
    world.accounts.drain().await;
    let kept = world.store.account("ada").await.unwrap().unwrap();
    assert_eq!(kept.failures.unwrap().count, 6000);
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_opens_and_fails_in_turns_writes_once_a_second() {
    let (world, grant) = world().await;
    for _ in 0..100 {
        world
            .accounts
            .report_failed("ada", Some(grant), Protocol::Imap, &unavailable());
        world.accounts.report_accepted("ada", grant, Protocol::Imap);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status(&world).await.state, AccountState::Active);
    let writes = world.store.writes();
    assert!((3..=7).contains(&writes), "{writes}");
    sleep(Duration::from_secs(2)).await;
    let kept = world.store.account("ada").await.unwrap().unwrap();
    assert_eq!((kept.state, kept.failures), (AccountState::Active, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_the_clients_doing_is_not_the_accounts() {
    let (world, grant) = world().await;
    for kind in [
        FaultKind::UnknownCredentials,
        FaultKind::ForeignToken,
        FaultKind::ScopeMissing,
        FaultKind::AddressNotAllowed,
        FaultKind::TokenExpired,
        FaultKind::PlaintextRefused,
        FaultKind::AccountLimit,
        FaultKind::ProxyLimit,
        FaultKind::ClientGone,
        FaultKind::PreAuthTimeout,
    ] {
        world
            .accounts
            .report_failed("ada", Some(grant), Protocol::Imap, &Fault::new(kind));
    }
    let shown = status(&world).await;
    assert_eq!(
        (shown.state, shown.last_error, shown.failures),
        (AccountState::New, None, None)
    );
    assert_eq!(world.store.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_protocol_that_fails_leaves_the_state_to_one_that_is_good_and_still_shows() {
    let (world, grant) = world().await;
    world.accounts.report_accepted("ada", grant, Protocol::Imap);
    for _ in 0..3 {
        world
            .accounts
            .report_failed("ada", Some(grant), Protocol::Smtp, &Fault::unavailable("421 too busy"));
        world.accounts.report_accepted("ada", grant, Protocol::Imap);
    }
    let shown = status(&world).await;
    assert_eq!(shown.state, AccountState::Active);
    assert_eq!(shown.failures.unwrap().count, 3);
    let error = shown.last_error.unwrap();
    assert_eq!(error.message, "a login over smtp failed: 421 too busy");
    assert_eq!(world.accounts.failing().len(), 1);
    // When the other fails, too, nothing is good any more.
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &unavailable());
    assert_eq!(status(&world).await.state, AccountState::Failing);
    world.accounts.report_accepted("ada", grant, Protocol::Smtp);
    let shown = status(&world).await;
    assert_eq!((shown.state, shown.failures.unwrap().count), (AccountState::Active, 1));
    assert!(shown.last_error.unwrap().message.contains("Server Unavailable. 15"));
}

#[tokio::test(start_paused = true)]
async fn what_a_new_mailbox_is_refused_for_shows_though_the_credential_is_good() {
    let (world, grant) = world().await;
    let words = "User is authenticated but not connected.".to_owned();
    let said = UpstreamWords::new(LoginStep::Login, None, words);
    let not_connected = Fault::unavailable("upstream answers AUTHENTICATE with BAD").for_words(said);
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &not_connected);
    let shown = status(&world).await;
    assert_eq!(shown.state, AccountState::Failing);
    let error = shown.last_error.unwrap();
    assert_eq!(error.code, "imap_refused");
    assert!(
        error
            .message
            .contains("the token is good, but the mailbox cannot be opened"),
        "{error:?}"
    );
    assert!(error.remedy.unwrap().contains("-ImapEnabled $true"));
}

#[tokio::test(start_paused = true)]
async fn logins_that_have_nothing_to_present_are_counted_and_told() {
    let world = World::with(AccountSecrets::default()).await;
    for _ in 0..3 {
        let fault = world.ask(None).await.unwrap().unwrap_err();
        world.accounts.report_failed("ada", None, Protocol::Imap, &fault);
    }
    let shown = status(&world).await;
    assert_eq!(
        (shown.state, shown.failures.unwrap().count),
        (AccountState::NeedsAuthorization, 3)
    );
    let error = shown.last_error.unwrap();
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("no_credentials", "the account has no credentials")
    );
    assert!(error.remedy.unwrap().contains("portreeve account authorize ada"));
    world
        .accounts
        .replace(account("ada"), Some(password("pw")))
        .await
        .unwrap();
    let shown = status(&world).await;
    assert_eq!(
        (shown.state, shown.last_error, shown.failures),
        (AccountState::New, None, None)
    );
}

#[tokio::test(start_paused = true)]
async fn trouble_with_the_grant_keeps_its_error_while_logins_fail_for_it() {
    let mut world = World::with(refresh_token("r1")).await;
    let asked = world.ask(None);
    world.request().await.fail(trouble(PASSING, "http_503"));
    let fault = asked.await.unwrap().unwrap_err();
    world.accounts.report_failed("ada", None, Protocol::Imap, &fault);
    world.accounts.report_failed("ada", None, Protocol::Imap, &fault);
    let shown = status(&world).await;
    assert_eq!((shown.state, shown.failures.unwrap().count), (AccountState::Failing, 2));
    assert_eq!(shown.last_error.unwrap().code, "http_503");
    world.request().await.succeed("a1", None, 3600);
    assert_eq!(token_of(&world).await.0, "a1");
    let shown = status(&world).await;
    assert_eq!(
        (shown.state, shown.last_error, shown.failures),
        (AccountState::Active, None, None)
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_after_a_restart_and_ends_with_the_account() {
    let (world, grant) = world().await;
    for _ in 0..5 {
        world
            .accounts
            .report_failed("ada", Some(grant), Protocol::Imap, &unavailable());
    }
    sleep(Duration::from_secs(61)).await;
    world.accounts.kill_supervisor("ada");
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &unavailable());
    assert_eq!(status(&world).await.failures.unwrap().count, 6);
    // What another grant was refused for is over with it, and comes too late.
    world
        .accounts
        .replace(account("ada"), Some(password("other")))
        .await
        .unwrap();
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &refused(refusal()));
    let shown = status(&world).await;
    assert_eq!((shown.state, shown.failures), (AccountState::New, None));
    let grant = world.ask(None).await.unwrap().unwrap().grant;
    world
        .accounts
        .report_failed("ada", Some(grant), Protocol::Imap, &unavailable());
    assert_eq!(status(&world).await.failures.unwrap().count, 1);
    assert_eq!(world.accounts.failing().len(), 1);
    world.accounts.remove("ada").await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(world.accounts.failing(), []);
}
