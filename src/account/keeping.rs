//! Keeping grants that nobody uses: each is renewed before it dies of disuse, and its owner is warned before it ends in spite
//! of that.
//!
//! `due` and `warning` decide and are pure. [`keep`] walks the store now and then and asks the supervisors of the accounts
//! whose time has come; they renew by the same single request as for a login, and keep what it brought in the same way.
//!
//! How it fails: a renewal that fails for now is due again at the next walk, and the account's own back-off decides whether it
//! is sent. A walk that the store cuts short is made up for by the next.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::accounts::Accounts;
use super::supervisor::{Message, Way};
use crate::clock::{self, Timestamp};
use crate::config::Config;
use crate::limits::{
    GRANT_WARNING, KEEPING_IN_FLIGHT_MAX, KEEPING_INTERVAL_MAX, KEEPING_INTERVAL_MIN, KEEPING_PACE, KEEPING_PAGE,
    KEEPING_START,
};
use crate::store::{AccountRecord, AccountState, Grant, StoreError};

/// When the grant of `account` is to be renewed though nobody needs a token. `since` is when it was last renewed or, if it never
/// was, when the account was added.
///
/// Between 80 and 100 % of `keep_alive`, at a place that is the account's own, so that accounts that were added together are
/// not renewed together. A grant that ends unless it is renewed is so before half of its life is over, when [`warning`] would
/// begin at the latest.
pub(super) fn due(account: &str, grant: &Grant, since: Timestamp, keep_alive: Duration) -> Timestamp {
    let place = place(account);
    let due = since.after(keep_alive.mul_f64(0.8 + 0.2 * place));
    match life(grant) {
        Some(life) => due.min(since.after(life.mul_f64(0.3 + 0.1 * place))),
        None => due,
    }
}

/// When the grant of an account that was `created` then was last renewed, or given. One of a time to come was written by a clock
/// that was wrong: nobody knows how old it is, and it is renewed rather than waited for.
pub(super) fn last_renewed(grant: &Grant, created: Timestamp, now: Timestamp) -> Timestamp {
    let last = grant.obtained.unwrap_or(created);
    if last > now.after(CLOCK_ERROR_MAX) {
        Timestamp::EPOCH
    } else {
        last
    }
}

/// From when on somebody should know that the grant ends: three days before, or a fifth of its life if that is more, but never in
/// the first half of it, for a provider may count in minutes and move the end with every renewal.
pub(super) fn warning(grant: &Grant) -> Option<Timestamp> {
    let ends = grant.ends?;
    let lead = match life(grant) {
        Some(life) => GRANT_WARNING.max(life / 5).min(life / 2),
        None => GRANT_WARNING,
    };
    Some(ends.before(lead))
}

/// When the grant ends, if that is to be told at `now`.
pub(super) fn ending(grant: &Grant, now: Timestamp) -> Option<Timestamp> {
    grant.ends.filter(|_| warning(grant).is_some_and(|from| from <= now))
}

/// Whether nobody has been told of the end yet. One that moved by less than a day is the same.
pub(super) fn is_unwarned(grant: &Grant) -> bool {
    let is_other = |of: Timestamp| grant.ends.is_some_and(|ends| ends.since(of) > SAME_END);
    grant.warned_of.is_none_or(is_other)
}

/// Takes over the end that an answer told at `now`, if it told one. An end that a renewal moves is one that the next renewal will
/// move, too; one that stays (Google's of an app in testing) is the end of the very first grant.
pub(super) fn note_end(grant: &mut Grant, ends_in: Option<Duration>, now: Timestamp) {
    if grant.ends.is_some() {
        // A consent is where its end was told first.
        grant.ends_told = grant.ends_told.or(grant.obtained);
    }
    let Some(ends) = ends_in.map(|ends_in| now.after(ends_in)) else {
        return;
    };
    let Some(known) = grant.ends else {
        (grant.ends, grant.ends_told) = (Some(ends), Some(now));
        return;
    };
    // The same end is told with another rounding each time.
    if ends.since(known) > END_ROUNDING {
        (grant.ends, grant.ends_told) = (Some(ends), Some(now));
    } else if known.since(ends) > END_ROUNDING {
        grant.ends = Some(ends);
    }
}

/// The life that the grant was given, where that is known.
fn life(grant: &Grant) -> Option<Duration> {
    let told = grant.ends_told.or(grant.obtained)?;
    Some(grant.ends?.since(told))
}

/// The account's own place between 0 and 1, the same in every run.
fn place(account: &str) -> f64 {
    let digest = Sha256::digest(account.as_bytes());
    let number = digest.first_chunk().copied().map_or(0, u32::from_be_bytes);
    f64::from(number) / f64::from(u32::MAX)
}

/// Walks the accounts until `stop` is ready. A renewal on its way then is not cancelled: it is its supervisor's.
pub async fn keep(accounts: Accounts, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut wait = interval(&accounts.config()).min(KEEPING_START);
    loop {
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(wait) => {}
        }
        // Asked each time, so that a reload of the configuration counts.
        wait = interval(&accounts.config());
        tokio::select! {
            () = &mut stop => return,
            walked = accounts.walk(wait) => if let Err(error) = walked {
                tracing::warn!(%error, "not all accounts could be looked at for grants to renew");
            },
        }
    }
}

/// How long to wait between two walks: a small part of what the most impatient provider allows.
fn interval(config: &Config) -> Duration {
    let apps = config.providers.values().filter_map(|provider| provider.oauth.as_ref());
    let least = apps.map(|app| app.keep_alive / 20).min();
    let least = least.unwrap_or(KEEPING_INTERVAL_MAX);
    least.clamp(KEEPING_INTERVAL_MIN, KEEPING_INTERVAL_MAX)
}

impl Accounts {
    /// Looks at every account once. What is due before the next walk, `until_next` from now, is renewed in this one.
    async fn walk(&self, until_next: Duration) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store().accounts_after(after.as_deref(), KEEPING_PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.account.clone());
            stream::iter(page)
                .for_each_concurrent(KEEPING_IN_FLIGHT_MAX, |record| async move {
                    self.look_after(&record, until_next).await;
                })
                .await;
        }
    }

    async fn look_after(&self, record: &AccountRecord, until_next: Duration) {
        let account = &record.account;
        let Some((grant, keep_alive)) = self.kept_grant(record).await else {
            return self.note_ending(account, None);
        };
        let now = clock::now();
        let ending = ending(&grant, now);
        self.note_ending(account, ending);
        let since = last_renewed(&grant, record.created, now);
        let is_due = due(account, &grant, since, keep_alive) <= now.after(until_next);
        let is_to_be_told = ending.is_some() && is_unwarned(&grant);
        if !is_due && !is_to_be_told {
            return;
        }
        // However many are due at once, after a long time out of service: one after the other.
        tokio::time::sleep(KEEPING_PACE).await;
        if let Err(error) = self.ask_to_keep(account, until_next).await {
            tracing::debug!(account, %error, "a grant is not kept alive for now");
        }
    }

    /// The grant of an account, if it is one to be kept alive, and how often the provider wants to see it.
    async fn kept_grant(&self, record: &AccountRecord) -> Option<(Grant, Duration)> {
        if matches!(record.state, AccountState::NeedsAuthorization | AccountState::Disabled) {
            return None;
        }
        let config = self.config();
        if Way::of(record, &config) != Way::Grant {
            return None;
        }
        let keep_alive = config.providers.get(&record.provider)?.oauth.as_ref()?.keep_alive;
        let secrets = self.store().account_secrets(&record.account).await;
        let secrets = secrets.inspect_err(|error| {
            tracing::warn!(account = %record.account, %error, "an account's grant cannot be looked at");
        });
        let grant = secrets.ok()??.grant?;
        grant.refresh_token.is_some().then_some((grant, keep_alive))
    }

    async fn ask_to_keep(&self, account: &str, until_next: Duration) -> Result<(), StoreError> {
        let timeout = self.config().limits.token_request_timeout + KEEPING_INTERVAL_MAX;
        let question = |reply| Message::KeepAlive { until_next, reply };
        Ok(self.ask(account, timeout, question).await?)
    }
}

/// By how much a time on the disk may be ahead of the clock, for two clocks that are both about right.
pub(super) const CLOCK_ERROR_MAX: Duration = Duration::from_secs(300);

/// Ends that are further apart are two.
const END_ROUNDING: Duration = Duration::from_secs(60);

/// Nobody is warned twice of an end that moved by less.
const SAME_END: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_grant_from_a_time_to_come_is_renewed_rather_than_waited_for() {
        let (now, year) = (
            Timestamp::from_millis(1_700_000_000_000),
            Duration::from_secs(365 * 86_400),
        );
        let obtained = |at| Grant {
            obtained: Some(at),
            ..Grant::default()
        };
        let is_due = |grant: &Grant| {
            let since = last_renewed(grant, now.before(Duration::from_secs(60)), now);
            due("ada", grant, since, Duration::from_secs(30 * 86_400)) <= now
        };
        assert!(is_due(&obtained(now.after(year))));
        assert!(is_due(&obtained(now.before(year))));
        assert!(!is_due(&obtained(now.after(Duration::from_secs(1)))));
        assert!(!is_due(&Grant::default()));
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn at(days: u32) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).after(DAY * days)
    }

    fn grant(ends: Option<Timestamp>, told: Option<Timestamp>) -> Grant {
        Grant {
            ends,
            ends_told: told,
            obtained: told,
            ..Grant::default()
        }
    }

    proptest! {
        #[test]
        fn every_grant_is_renewed_in_the_last_fifth_of_the_time_allowed(account: String, seconds in 1_u64..10_000_000) {
            let keep_alive = Duration::from_secs(seconds);
            let due = due(&account, &Grant::default(), at(0), keep_alive);
            prop_assert!(at(0).after(keep_alive.mul_f64(0.8)) <= due && due <= at(0).after(keep_alive));
        }

        #[test]
        fn a_grant_that_moves_its_end_is_renewed_before_anybody_is_warned(
            account: String, life in 1_u64..50_000_000, keep_alive in 1_u64..10_000_000,
        ) {
            let life = Duration::from_secs(life);
            let grant = grant(Some(at(0).after(life)), Some(at(0)));
            let due = due(&account, &grant, at(0), Duration::from_secs(keep_alive));
            prop_assert!(due < warning(&grant).unwrap());
        }
    }

    #[test]
    fn accounts_added_together_are_spread_evenly_and_alike_in_every_run() {
        let keep_alive = DAY * 30;
        let mut of_day = [0; 6];
        for number in 0..6000 {
            let due = due(
                &format!("user{number}@example.com"),
                &Grant::default(),
                at(0),
                keep_alive,
            );
            let day = due.since(at(24)).as_secs() / DAY.as_secs();
            of_day[usize::try_from(day).unwrap().min(5)] += 1;
        }
        assert!(of_day.iter().all(|count| (850..1150).contains(count)), "{of_day:?}");
        assert_eq!(format!("{:.6}", place("ada@example.com")), "0.710884");
    }

    #[test]
    fn a_warning_comes_three_days_or_a_fifth_of_a_life_ahead_but_never_in_its_first_half() {
        for (life, lead) in [
            (DAY * 7, DAY * 3),
            (DAY * 90, DAY * 18),
            (DAY * 4, DAY * 2),
            (Duration::from_secs(1800), Duration::from_secs(900)),
        ] {
            let ends = at(0).after(life);
            assert_eq!(warning(&grant(Some(ends), Some(at(0)))), Some(ends.before(lead)));
        }
        assert_eq!(warning(&grant(None, None)), None);
        assert_eq!(
            warning(&grant(Some(at(10)), None)),
            Some(at(7)),
            "nobody knows since when"
        );
        let week = grant(Some(at(7)), Some(at(0)));
        assert_eq!((ending(&week, at(3)), ending(&week, at(4))), (None, Some(at(7))));
    }

    #[test]
    fn an_end_that_stays_is_the_first_grants_and_one_that_moves_begins_anew() {
        let mut grant = grant(Some(at(7)), None);
        grant.obtained = Some(at(0));
        note_end(&mut grant, None, at(1));
        assert_eq!(
            (grant.ends, grant.ends_told),
            (Some(at(7)), Some(at(0))),
            "told by the consent alone"
        );
        grant.obtained = Some(at(1));
        let second = Duration::from_secs(1);
        note_end(&mut grant, Some(DAY * 6 + second), at(1));
        assert_eq!(
            (grant.ends, grant.ends_told),
            (Some(at(7)), Some(at(0))),
            "rounded otherwise"
        );
        note_end(&mut grant, Some(DAY * 7), at(1));
        assert_eq!((grant.ends, grant.ends_told), (Some(at(8)), Some(at(1))), "it moves");
        note_end(&mut grant, Some(DAY), at(2));
        assert_eq!(
            (grant.ends, grant.ends_told),
            (Some(at(3)), Some(at(1))),
            "it was cut short"
        );
    }

    #[test]
    fn a_person_is_warned_once_of_an_end_and_again_of_another() {
        let mut grant = grant(Some(at(7)), Some(at(0)));
        assert!(is_unwarned(&grant));
        grant.warned_of = Some(at(7));
        assert!(!is_unwarned(&grant));
        grant.ends = Some(at(7).after(Duration::from_secs(3600)));
        assert!(!is_unwarned(&grant));
        grant.ends = Some(at(14));
        assert!(is_unwarned(&grant));
    }
}
