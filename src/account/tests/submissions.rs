//! The limit of submissions at once: who waits for a slot, for how long, and that nobody is forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::support::{World, account, config, password, session, submission};
use crate::config::{Config, Provider};
use crate::fault::FaultKind;
use crate::limits::{SUBMISSION_SLOT_WAIT, SUBMISSION_WAITERS_MAX};
use crate::proto::session::Goodbye;
use crate::store::{AccountState, TokenId};

/// The configuration with a limit of submissions at `example`, and room for more sessions than that.
fn limited(submissions_max: Option<usize>) -> Config {
    let mut config = config();
    config.limits.sessions_per_account_max = 4;
    let provider = Provider {
        submissions_max,
        ..Provider::clone(&config.providers["example"])
    };
    config.providers.insert("example".to_owned(), Arc::new(provider));
    config
}

async fn world(submissions_max: usize) -> World {
    let world = World::with(password("secret")).await;
    world.config.send_replace(Arc::new(limited(Some(submissions_max))));
    world
}

/// Lets every other task go on until all of them wait.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_submission_beyond_the_limit_waits_for_another_to_end() {
    let world = world(1).await;
    let first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let begun = Instant::now();
    let waiting = world.submit(&submission(&world, 2).await);
    sleep(Duration::from_secs(3)).await;
    assert!(!waiting.is_finished());
    drop(first);
    let _second = waiting.await.unwrap().unwrap();
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_submission_that_finds_no_slot_hears_of_the_limit() {
    let world = world(1).await;
    let _first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let begun = Instant::now();
    let fault = world
        .submit(&submission(&world, 2).await)
        .await
        .unwrap()
        .expect_err("the slot is taken");
    assert_eq!(fault.kind, FaultKind::AccountLimit);
    assert!(fault.detail.starts_with("1 submissions are live"), "{fault}");
    let waited = begun.elapsed();
    assert!(waited >= SUBMISSION_SLOT_WAIT && waited < SUBMISSION_SLOT_WAIT + Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn slots_go_to_those_who_wait_in_the_order_of_their_coming() {
    let world = world(1).await;
    let first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let mut waiting = Vec::new();
    for token in 2..5 {
        waiting.push(world.submit(&submission(&world, token).await));
        settle().await;
    }
    let mut held = first;
    for next in waiting {
        drop(held);
        held = next.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_gave_up_takes_no_slot() {
    let world = world(1).await;
    let first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let gone = world.submit(&submission(&world, 2).await);
    settle().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let waiting = world.submit(&submission(&world, 3).await);
    settle().await;
    let begun = Instant::now();
    drop(first);
    let _third = waiting.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn other_protocols_do_not_wait_but_count_among_all_sessions() {
    let world = world(1).await;
    let _submission = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let mut readers = Vec::new();
    for token in 2..5 {
        let (live, _) = session(&world, token).await;
        readers.push(world.accounts.open_session("ada", live).await.unwrap());
    }
    let (live, _) = session(&world, 5).await;
    let fault = world.accounts.open_session("ada", live).await.unwrap_err();
    assert_eq!(fault.detail, "4 sessions are live, 4 are allowed");
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_can_be_served() {
    let world = world(1).await;
    let _first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let live = submission(&world, 2).await;
    let waiting = (0..SUBMISSION_WAITERS_MAX)
        .map(|_| world.submit(&live))
        .collect::<Vec<_>>();
    settle().await;
    let begun = Instant::now();
    let fault = world.submit(&live).await.unwrap().unwrap_err();
    assert_eq!((fault.kind, begun.elapsed()), (FaultKind::AccountLimit, Duration::ZERO));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap_err().kind, FaultKind::AccountLimit);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lifted_lets_all_in() {
    let world = world(1).await;
    let _first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let waiting = [submission(&world, 2).await, submission(&world, 3).await];
    let waiting = waiting.map(|live| world.submit(&live));
    settle().await;
    world.config.send_replace(Arc::new(limited(None)));
    let begun = Instant::now();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_waits_hears_at_once_that_the_account_is_disabled_or_deleted_or_the_proxy_stops() {
    for (ending, expected) in [
        ("disabled", FaultKind::AccountDisabled),
        ("deleted", FaultKind::UnknownCredentials),
        ("stopped", FaultKind::Unavailable),
    ] {
        let world = world(1).await;
        let (live, mut heard) = session(&world, 1).await;
        let live = crate::account::LiveSession {
            protocol: crate::proto::Protocol::Smtp,
            ..live
        };
        let _first = world.submit(&live).await.unwrap().unwrap();
        let waiting = world.submit(&submission(&world, 2).await);
        settle().await;
        let begun = Instant::now();
        match ending {
            "disabled" => {
                let mut record = account("ada");
                record.state = AccountState::Disabled;
                world.accounts.replace(record, None).await.unwrap();
                assert_eq!(heard.recv().await, Some(Goodbye::AccountDeleted));
            }
            "deleted" => drop(world.accounts.remove("ada").await.unwrap()),
            _ => world.accounts.drain().await,
        }
        let fault = waiting.await.unwrap().unwrap_err();
        assert_eq!(fault.kind, expected, "{ending}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{ending}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_deleted_while_its_login_waits_opens_no_session() {
    let world = world(1).await;
    let first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let waiting = world.submit(&submission(&world, 2).await);
    settle().await;
    world
        .store
        .kept
        .lock()
        .unwrap()
        .tokens
        .retain(|token| *token != TokenId([2; 32]));
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap_err().kind, FaultKind::UnknownCredentials);
    // Its slot is free again.
    let _third = world.submit(&submission(&world, 3).await).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_dies_leaves_slots_counted_and_its_waiters_served() {
    let world = world(1).await;
    let first = world.submit(&submission(&world, 1).await).await.unwrap().unwrap();
    let waiting = world.submit(&submission(&world, 2).await);
    settle().await;
    world.accounts.kill_supervisor("ada");
    sleep(Duration::from_secs(2)).await;
    assert!(!waiting.is_finished(), "the first still holds the slot");
    let begun = Instant::now();
    drop(first);
    let _second = waiting.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
