//! One change of an account at a time: whoever reads, merges and writes would lose the work of another who does so at once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use tokio::sync::{Mutex, MutexGuard};

/// Who changes which account. Accounts share a fixed number of places, so that nothing grows with them; two that meet in one
/// wait for each other, which costs time only.
#[derive(Debug)]
pub struct Changes {
    places: [Mutex<()>; PLACES],
    hasher: RandomState,
}

impl Changes {
    /// Waits until nobody else changes `account`. Others wait until what is returned is dropped.
    pub async fn begin(&self, account: &str) -> MutexGuard<'_, ()> {
        let count = u64::try_from(PLACES).unwrap_or(u64::MAX);
        let place = usize::try_from(self.hasher.hash_one(account) % count).unwrap_or_default();
        let place = self.places.get(place).expect("a remainder is below its divisor");
        place.lock().await
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            places: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }
}

/// More than requests can be in progress at a socket ([`crate::limits::ADMIN_CONNECTIONS_MAX`]), so that strangers seldom
/// meet.
const PLACES: usize = 256;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn an_account_is_changed_by_one_at_a_time() {
        let changes = Changes::default();
        let first = changes.begin("ada").await;
        assert!(changes.begin("ada").now_or_never().is_none());
        drop(first);
        assert!(changes.begin("ada").now_or_never().is_some());
    }
}
