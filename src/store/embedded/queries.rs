//! Listings: scans of a [`View`], for a thread that may block.

use std::ops::Deref;

use super::codec;
use super::tables::{Table, Tables, View};
use crate::clock::Timestamp;
use crate::store::{AccountRecord, Listing, Page, StoreError, TokenId, TokenRecord, TokenUse, UpstreamRecord, keys};

/// Accounts, newest first; see [`crate::store::Store::accounts`].
pub(super) fn accounts(tables: &Tables, query: Option<&str>, page: Page) -> Result<Listing<AccountRecord>, StoreError> {
    let view = tables.view();
    let query = Query::new(query);
    let mut found = Vec::new();
    for entry in view.entries(Table::Accounts) {
        let (key, value) = entry?;
        let record: AccountRecord = codec::decode("an account", &value)?;
        let texts = [Some(&record.account), record.name.as_ref(), record.email.as_ref()];
        if query.matches(texts.into_iter().flatten().map(String::as_str)) {
            found.push((record.created, codec::rank("an account", &value)?, key));
        }
    }
    newest_first(found, page).try_map(|key| value(&view, Table::Accounts, "an account", &key))
}

/// Accounts in the order of their ids; see [`crate::store::Store::accounts_after`].
pub(super) fn accounts_after(
    tables: &Tables,
    after: Option<&str>,
    count: usize,
) -> Result<Vec<AccountRecord>, StoreError> {
    let view = tables.view();
    let entries = view
        .entries_behind(Table::Accounts, after.map(str::as_bytes))
        .take(count);
    entries.map(|entry| codec::decode("an account", &entry?.1)).collect()
}

/// What upstreams were heard to do; see [`crate::store::Store::upstreams`].
pub(super) fn upstreams(tables: &Tables) -> Result<Vec<UpstreamRecord>, StoreError> {
    let view = tables.view();
    let keys = view.keys(Table::Meta, keys::UPSTREAMS);
    keys.map(|key| value(&view, Table::Meta, "what an upstream can do", &key?))
        .collect()
}

/// The accounts that share a grant; see [`crate::store::Store::sharers`].
pub(super) fn sharers(tables: &Tables, owner: &str) -> Result<Vec<String>, StoreError> {
    let view = tables.view();
    let mut sharers = Vec::new();
    for key in view.keys(Table::Sharers, &keys::account_prefix(owner)) {
        sharers.extend(keys::sharer_of(&key?));
    }
    Ok(sharers)
}

/// Access tokens, newest first; see [`crate::store::Store::tokens`].
pub(super) fn tokens(
    tables: &Tables,
    account: Option<&str>,
    query: Option<&str>,
    page: Page,
) -> Result<Listing<(TokenRecord, Option<TokenUse>)>, StoreError> {
    let view = tables.view();
    let query = Query::new(query);
    let mut found = Vec::new();
    let mut consider = |bytes: &[u8]| {
        let record: TokenRecord = codec::decode("an access token", bytes)?;
        let id = record.id.to_string();
        let texts = [record.account.as_deref(), Some(&record.description), Some(&id)];
        if query.matches(texts.into_iter().flatten()) {
            found.push((record.created, codec::rank("an access token", bytes)?, record.id));
        }
        Ok::<(), StoreError>(())
    };
    match account {
        Some(account) => {
            for key in view.keys(Table::AccountTokens, &keys::account_prefix(account)) {
                if let Some(id) = keys::token_of(&key?) {
                    consider(&bytes(&view, Table::Tokens, "an access token", &id.0)?)?;
                }
            }
        }
        None => {
            for entry in view.entries(Table::Tokens) {
                consider(&entry?.1)?;
            }
        }
    }
    newest_first(found, page).try_map(|id: TokenId| {
        let record = value(&view, Table::Tokens, "an access token", &id.0)?;
        let last = view.value(Table::TokenUses, &id.0)?;
        let last = last
            .map(|bytes| codec::decode("a token's last use", &bytes))
            .transpose()?;
        Ok((record, last))
    })
}

/// What a listing's entries must contain, without regard to case.
struct Query(Option<String>);

impl Query {
    fn new(query: Option<&str>) -> Self {
        Self(query.map(keys::folded))
    }

    fn matches<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        match &self.0 {
            None => true,
            Some(query) => texts.into_iter().any(|text| keys::folded(text).contains(query)),
        }
    }
}

impl<K> Listing<K> {
    fn try_map<T>(self, read: impl FnMut(K) -> Result<T, StoreError>) -> Result<Listing<T>, StoreError> {
        Ok(Listing {
            total: self.total,
            entries: self.entries.into_iter().map(read).collect::<Result<_, _>>()?,
        })
    }
}

/// The keys of one page of what was `found`: when it was made, its rank, its key. Entries of the same moment without a rank,
/// as an earlier version wrote them, are in the order of their keys.
fn newest_first<K: Ord>(mut found: Vec<(Timestamp, u64, K)>, page: Page) -> Listing<K> {
    found.sort_unstable_by(|(a, m, x), (b, n, y)| (b, n).cmp(&(a, m)).then_with(|| x.cmp(y)));
    let wanted = span(page);
    Listing {
        total: u64::try_from(found.len()).unwrap_or(u64::MAX),
        entries: found
            .into_iter()
            .skip(wanted.start)
            .take(wanted.len())
            .map(|(.., key)| key)
            .collect(),
    }
}

fn span(page: Page) -> std::ops::Range<usize> {
    let start = page.page.saturating_mul(page.size);
    start..start.saturating_add(page.size)
}

fn value<T: serde::de::DeserializeOwned>(
    view: &View<'_>,
    table: Table,
    what: &'static str,
    key: &[u8],
) -> Result<T, StoreError> {
    codec::decode(what, &bytes(view, table, what, key)?)
}

fn bytes(
    view: &View<'_>,
    table: Table,
    what: &'static str,
    key: &[u8],
) -> Result<impl Deref<Target = [u8]>, StoreError> {
    let bytes = view.value(table, key)?;
    bytes.ok_or_else(|| StoreError::Unreadable(format!("an index names {what} that is not there")))
}
