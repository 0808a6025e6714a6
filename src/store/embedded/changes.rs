//! The operations on a [`Draft`]: what each checks and which records and indexes it keeps in step. Only the writer's thread
//! runs them, so that a check and the write that relies on it cannot be parted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec;
use super::draft::Draft;
use super::meta;
use super::tables::Table;
use crate::limits::TOKENS_PER_ACCOUNT_MAX;
use crate::store::{AccountRecord, StoreError, TokenId, TokenRecord, TokenUse, UpstreamId, UpstreamRecord, keys};

/// Writes a new account.
pub(super) fn create_account(draft: &mut Draft<'_>, record: &AccountRecord, sealed: Vec<u8>) -> Result<(), StoreError> {
    if account(draft, &record.account)?.is_some() {
        return Err(StoreError::Conflict(ACCOUNT_ID));
    }
    check_sharing(draft, record)?;
    let names = renamed(draft, None, Some(record))?;
    let bytes = codec::encode_ranked(record, draft.counts.next_rank())?;
    put_names(draft, names)?;
    put_sharer(draft, None, Some(record));
    draft.put(Table::Accounts, record.account.as_bytes(), bytes);
    draft.put(Table::Secrets, record.account.as_bytes(), sealed);
    draft.counts.add(record.state);
    Ok(())
}

/// Replaces an account and, where given, its secrets.
pub(super) fn replace_account(
    draft: &mut Draft<'_>,
    record: &AccountRecord,
    sealed: Option<Vec<u8>>,
) -> Result<(), StoreError> {
    let bytes = account_bytes(draft, &record.account)?.ok_or(StoreError::NotFound("account"))?;
    let before: AccountRecord = codec::decode("an account", &bytes)?;
    let rank = codec::rank("an account", &bytes)?;
    check_sharing(draft, record)?;
    // Those that share its grant go where it goes, and cannot share what is shared itself.
    if record.shares_grant_of.is_some() || record.provider != before.provider {
        check_unshared(draft, &record.account)?;
    }
    let names = renamed(draft, Some(&before), Some(record))?;
    let bytes = codec::encode_ranked(record, rank)?;
    put_names(draft, names)?;
    put_sharer(draft, Some(&before), Some(record));
    draft.put(Table::Accounts, record.account.as_bytes(), bytes);
    if let Some(sealed) = sealed {
        draft.put(Table::Secrets, record.account.as_bytes(), sealed);
    }
    draft.counts.subtract(before.state);
    draft.counts.add(record.state);
    Ok(())
}

/// Deletes an account, its secrets and its tokens.
pub(super) fn remove_account(draft: &mut Draft<'_>, id: &str) -> Result<Vec<TokenId>, StoreError> {
    let before = account(draft, id)?.ok_or(StoreError::NotFound("account"))?;
    check_unshared(draft, id)?;
    let names = renamed(draft, Some(&before), None)?;
    let tokens: Vec<TokenId> = draft
        .keys(Table::AccountTokens, &keys::account_prefix(id))?
        .iter()
        .filter_map(|key| keys::token_of(key))
        .collect();
    put_names(draft, names)?;
    put_sharer(draft, Some(&before), None);
    draft.delete(Table::Accounts, id.as_bytes());
    draft.delete(Table::Secrets, id.as_bytes());
    draft.counts.subtract(before.state);
    for token in &tokens {
        delete_token(draft, token, Some(id));
        // Whatever a token made is among the account's own, so that no entry of the index is left over.
        for key in draft.keys(Table::TokenChildren, &token.0)? {
            draft.delete(Table::TokenChildren, key);
        }
    }
    Ok(tokens)
}

/// Writes a new access token.
pub(super) fn create_token(draft: &mut Draft<'_>, token: &TokenRecord) -> Result<(), StoreError> {
    if draft.value(Table::Tokens, &token.id.0)?.is_some() {
        return Err(StoreError::Conflict("the access token"));
    }
    if let Some(owner) = &token.account {
        account(draft, owner)?.ok_or(StoreError::NotFound("account"))?;
        let has = draft.keys(Table::AccountTokens, &keys::account_prefix(owner))?.len();
        if has >= TOKENS_PER_ACCOUNT_MAX {
            return Err(StoreError::TooManyTokens);
        }
    }
    if let Some(parent) = &token.parent {
        let maker = self::token(draft, parent)?.ok_or(StoreError::NotFound("token"))?;
        if maker.account.is_none() || maker.account != token.account {
            return Err(StoreError::NotFound("token"));
        }
    }
    let bytes = codec::encode_ranked(token, draft.counts.next_rank())?;
    draft.put(Table::Tokens, token.id.0, bytes);
    if let Some(owner) = &token.account {
        draft.put(Table::AccountTokens, keys::account_token(owner, &token.id), []);
    }
    if let Some(parent) = &token.parent {
        draft.put(Table::TokenChildren, keys::token_child(parent, &token.id), []);
    }
    draft.counts.tokens += 1;
    Ok(())
}

/// Deletes an access token and all that it made, and that those made. Returns what was deleted, the token itself first;
/// nothing where it does not exist.
pub(super) fn remove_token(draft: &mut Draft<'_>, id: &TokenId) -> Result<Vec<TokenRecord>, StoreError> {
    let mut gone: Vec<TokenRecord> = token(draft, id)?.into_iter().collect();
    let mut next = 0;
    // A maker exists before what it makes, so that the line of makers has an end.
    while let Some(maker) = gone.get(next).map(|token| token.id) {
        for key in draft.keys(Table::TokenChildren, &maker.0)? {
            let child = keys::token_of(&key);
            gone.extend(child.map(|child| token(draft, &child)).transpose()?.flatten());
        }
        next += 1;
    }
    for token in &gone {
        delete_token(draft, &token.id, token.account.as_deref());
        if let Some(parent) = &token.parent {
            draft.delete(Table::TokenChildren, keys::token_child(parent, &token.id));
        }
    }
    Ok(gone)
}

/// Notes the last accepted use of a token, unless the token has been deleted meanwhile.
pub(super) fn note_token_use(draft: &mut Draft<'_>, id: &TokenId, last: &TokenUse) -> Result<(), StoreError> {
    if draft.value(Table::Tokens, &id.0)?.is_some() {
        draft.put(Table::TokenUses, id.0, codec::encode(last)?);
    }
    Ok(())
}

/// Keeps what upstreams were heard to do, and forgets others.
pub(super) fn keep_upstreams(
    draft: &mut Draft<'_>,
    heard: &[UpstreamRecord],
    forgotten: &[UpstreamId],
) -> Result<(), StoreError> {
    for id in forgotten {
        draft.delete(Table::Meta, keys::upstream(id));
    }
    for record in heard {
        draft.put(Table::Meta, keys::upstream(&record.id), codec::encode(record)?);
    }
    Ok(())
}

/// Who bears a name, ids and e-mail addresses folded alike.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Bearers {
    /// The account whose e-mail it is.
    pub(super) email: Option<String>,
    /// The accounts whose id it is; several, where their ids differ in case alone.
    ids: Vec<String>,
}

impl Bearers {
    fn remove(&mut self, account: &str) {
        self.ids.retain(|id| id != account);
        if self.email.as_deref() == Some(account) {
            self.email = None;
        }
    }

    fn is_another_s_email(&self, account: &str) -> bool {
        self.email.as_deref().is_some_and(|bearer| bearer != account)
    }

    fn is_another_s_id(&self, account: &str) -> bool {
        self.ids.iter().any(|id| id != account)
    }
}

/// The entries of [`Table::Names`] that change when an account turns from `before` into `after`.
///
/// # Errors
/// [`StoreError::Conflict`] where `after` takes a name of another account.
fn renamed(
    draft: &Draft<'_>,
    before: Option<&AccountRecord>,
    after: Option<&AccountRecord>,
) -> Result<BTreeMap<String, Bearers>, StoreError> {
    let mut names = BTreeMap::new();
    for record in before.into_iter().chain(after) {
        for name in [Some(&record.account), record.email.as_ref()].into_iter().flatten() {
            if !meta::is_keyable(name) {
                return Err(StoreError::Unwritable(
                    "a name is empty or too long to be kept".to_owned(),
                ));
            }
            let name = keys::folded(name);
            let mut bearers = match draft.value(Table::Names, name.as_bytes())? {
                Some(bytes) => codec::decode("a name", &bytes)?,
                None => Bearers::default(),
            };
            bearers.remove(&record.account);
            names.insert(name, bearers);
        }
    }
    if let Some(after) = after {
        let id = names.entry(keys::folded(&after.account)).or_default();
        if id.is_another_s_email(&after.account) {
            return Err(StoreError::Conflict(ACCOUNT_ID));
        }
        id.ids.push(after.account.clone());
        if let Some(email) = &after.email {
            let email = names.entry(keys::folded(email)).or_default();
            if email.is_another_s_email(&after.account) || email.is_another_s_id(&after.account) {
                return Err(StoreError::Conflict(EMAIL));
            }
            email.email = Some(after.account.clone());
        }
    }
    Ok(names)
}

fn put_names(draft: &mut Draft<'_>, names: BTreeMap<String, Bearers>) -> Result<(), StoreError> {
    for (name, bearers) in names {
        if bearers.email.is_none() && bearers.ids.is_empty() {
            draft.delete(Table::Names, name);
        } else {
            draft.put(Table::Names, name, codec::encode(&bearers)?);
        }
    }
    Ok(())
}

/// The accounts that share the grant of `owner`.
fn sharers(draft: &Draft<'_>, owner: &str) -> Result<Vec<String>, StoreError> {
    let keys = draft.keys(Table::Sharers, &keys::account_prefix(owner))?;
    Ok(keys.iter().filter_map(|key| keys::sharer_of(key)).collect())
}

/// Refuses what would leave others without the grant that they share.
fn check_unshared(draft: &Draft<'_>, owner: &str) -> Result<(), StoreError> {
    let sharers = sharers(draft, owner)?;
    if sharers.is_empty() {
        return Ok(());
    }
    Err(StoreError::GrantShared(sharers.join(", ")))
}

/// Refuses a record whose grant is to be one that it cannot share.
fn check_sharing(draft: &Draft<'_>, record: &AccountRecord) -> Result<(), StoreError> {
    let Some(owner) = &record.shares_grant_of else {
        return Ok(());
    };
    match account(draft, owner)? {
        Some(owner) if owner.can_share_with(record) => Ok(()),
        _ => Err(StoreError::NotShareable),
    }
}

/// Keeps the index of sharers in step when an account turns from `before` into `after`.
fn put_sharer(draft: &mut Draft<'_>, before: Option<&AccountRecord>, after: Option<&AccountRecord>) {
    let key = |record: &AccountRecord| {
        let owner = record.shares_grant_of.as_ref()?;
        Some(keys::sharer(owner, &record.account))
    };
    let (before, after) = (before.and_then(key), after.and_then(key));
    if before == after {
        return;
    }
    if let Some(key) = before {
        draft.delete(Table::Sharers, key);
    }
    if let Some(key) = after {
        draft.put(Table::Sharers, key, []);
    }
}

fn account(draft: &Draft<'_>, id: &str) -> Result<Option<AccountRecord>, StoreError> {
    let bytes = account_bytes(draft, id)?;
    bytes.map(|bytes| codec::decode("an account", &bytes)).transpose()
}

fn account_bytes(draft: &Draft<'_>, id: &str) -> Result<Option<Vec<u8>>, StoreError> {
    if !meta::is_keyable(id) {
        return Ok(None);
    }
    draft.value(Table::Accounts, id.as_bytes())
}

fn token(draft: &Draft<'_>, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
    let bytes = draft.value(Table::Tokens, &id.0)?;
    bytes.map(|bytes| codec::decode("an access token", &bytes)).transpose()
}

fn delete_token(draft: &mut Draft<'_>, id: &TokenId, account: Option<&str>) {
    draft.delete(Table::Tokens, id.0);
    draft.delete(Table::TokenUses, id.0);
    if let Some(account) = account {
        draft.delete(Table::AccountTokens, keys::account_token(account, id));
    }
    draft.counts.tokens = draft.counts.tokens.saturating_sub(1);
}

const ACCOUNT_ID: &str = "the account id";
const EMAIL: &str = "the e-mail address";
