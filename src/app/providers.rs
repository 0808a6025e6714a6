//! Accounts whose provider the configuration does not have: a slip in the file must not put mailboxes out of order in silence.

use std::collections::BTreeMap;

use tracing::warn;

use crate::config::Config;
use crate::limits::PAGE_SIZE_MAX;
use crate::store::{SharedStore, StoreError};

/// Warns of accounts whose provider is not configured. They stay, and cannot be logged in to.
pub(super) async fn warn_of_missing(store: &SharedStore, config: &Config) {
    match accounts_of(store, |provider| !config.providers.contains_key(provider)).await {
        Ok(missing) => {
            if let Some(words) = in_words(&missing) {
                warn!("{words}; they cannot be logged in to until it is there again");
            }
        }
        Err(error) => warn!(%error, "it cannot be told whether all accounts have their providers"),
    }
}

/// The providers of accounts that `old` has and `new` has not, in words; `None` if there are none.
pub(super) async fn vanished(store: &SharedStore, old: &Config, new: &Config) -> Result<Option<String>, StoreError> {
    let has_vanished = |provider: &str| old.providers.contains_key(provider) && !new.providers.contains_key(provider);
    if !old.providers.keys().any(|provider| has_vanished(provider)) {
        return Ok(None);
    }
    Ok(in_words(&accounts_of(store, has_vanished).await?))
}

/// How many accounts there are of each provider that `is_meant`.
async fn accounts_of(
    store: &SharedStore,
    is_meant: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, usize>, StoreError> {
    let mut found = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.accounts_after(after.as_deref(), PAGE_SIZE_MAX).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.account.clone());
        for account in page {
            if is_meant(&account.provider) {
                *found.entry(account.provider).or_default() += 1;
            }
        }
    }
}

fn in_words(providers: &BTreeMap<String, usize>) -> Option<String> {
    let words = providers.iter().map(|(provider, count)| match count {
        1 => format!("provider '{provider}' is not configured, but 1 account is of it"),
        count => format!("provider '{provider}' is not configured, but {count} accounts are of it"),
    });
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::{self, ProcessEnvironment};
    use crate::store::embedded::EmbeddedStore;
    use crate::store::master_key::MasterKeySource;
    use crate::store::{AccountRecord, AccountSecrets};

    fn with(providers: &[&str]) -> Config {
        let tables: String = providers
            .iter()
            .map(|name| format!("[provider.{name}]\nimap = {{ host = \"imap.x.example\", port = 993 }}\n"))
            .collect();
        config::parse(None, &tables, &ProcessEnvironment).unwrap()
    }

    #[tokio::test]
    async fn providers_of_accounts_that_vanish_are_named_and_others_are_nobodys_business() {
        let parent = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&parent.path().join("state"), &MasterKeySource::Generated).unwrap();
        let store: SharedStore = store;
        for (id, provider) in [("a", "one"), ("b", "one"), ("c", "two"), ("d", "never")] {
            let record = AccountRecord::new(id.to_owned(), provider.to_owned(), Timestamp::EPOCH);
            store.create_account(record, AccountSecrets::default()).await.unwrap();
        }
        let old = with(&["one", "two", "idle"]);
        assert_eq!(vanished(&store, &old, &with(&["one", "two"])).await.unwrap(), None);
        assert_eq!(
            vanished(&store, &old, &with(&[])).await.unwrap().unwrap(),
            "provider 'one' is not configured, but 2 accounts are of it; provider 'two' is not configured, but 1 account \
             is of it"
        );
    }
}
