//! `/v1/account…`: mailboxes.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use futures_util::future::join_all;
use tokio::time::timeout;

use super::recognize::provider_of;
use super::{CallerOf, Shared};
use crate::admin::error::ApiError;
use crate::admin::extract::{Body, Parameters, PathId};
use crate::admin::state::AdminState;
use crate::admin::types::{
    AccountChange, AccountCreated, AccountView, AccountsPage, Deleted, NewAccount, NewGrant, PageHead, StepResult,
    VerifyReport,
};
use crate::admin::validate;
use crate::clock;
use crate::store::{AccountRecord, Deletion, Listing, Page};

pub(super) async fn create(
    State(state): Shared,
    Extension(caller): CallerOf,
    Body(mut new): Body<NewAccount>,
) -> Result<Json<AccountCreated>, ApiError> {
    caller.require_root()?;
    if new.provider.is_none() {
        let provider = provider_of(&state, &new.account, new.email.as_deref()).await?;
        new.provider = Some(provider);
    }
    let config = state.config.borrow().clone();
    let owner = owner(&state, new.oauth2.as_ref()).await?;
    let (record, secrets) = validate::new_account(new, owner, &config, clock::now())?;
    let created = AccountCreated {
        account: record.account.clone(),
        state: record.state,
    };
    state.accounts.create(record, secrets).await?;
    Ok(Json(created))
}

pub(super) async fn list(
    State(state): Shared,
    Extension(caller): CallerOf,
    mut parameters: Parameters,
) -> Result<Json<AccountsPage>, ApiError> {
    let query = parameters.take("query");
    let page = parameters.page()?;
    parameters.finish()?;
    let listing = match caller.own_account()? {
        None => state.store.accounts(query.as_deref(), page).await?,
        Some(own) => only(state.store.account(own).await?, query.as_deref(), page),
    };
    let accounts = join_all(listing.entries.into_iter().map(|record| view(&state, record))).await;
    Ok(Json(AccountsPage {
        head: PageHead::new(page, listing.total),
        accounts,
    }))
}

pub(super) async fn read(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
) -> Result<Json<AccountView>, ApiError> {
    let record = find(&state, &caller, &account).await?;
    Ok(Json(view(&state, record).await))
}

pub(super) async fn change(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
    Body(change): Body<AccountChange>,
) -> Result<Json<AccountView>, ApiError> {
    let named = find(&state, &caller, &account).await?;
    let _turn = state.changes.begin(&named.account).await;
    // Again: somebody else may have changed it while its turn was waited for.
    let record = find(&state, &caller, &named.account).await?;
    if validate::needs_root(&change) {
        caller.require_root()?;
    }
    let config = state.config.borrow().clone();
    let owner = owner(&state, change.oauth2.as_ref()).await?;
    let (record, secrets) = validate::changed_account(record, change, owner, &config, clock::now())?;
    state.accounts.replace(record.clone(), secrets).await?;
    Ok(Json(view(&state, record).await))
}

pub(super) async fn remove(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
) -> Result<Json<Deleted>, ApiError> {
    caller.require_root()?;
    let named = find(&state, &caller, &account).await?;
    // A consent that is being completed for it ends first, so that its grant is given back with the account's.
    let _turn = state.changes.begin(&named.account).await;
    let record = find(&state, &caller, &named.account).await?;
    state.accounts.remove(&record.account).await?;
    Ok(Json(Deleted::from(&*state.store, Deletion::Account(&record.account))))
}

pub(super) async fn verify(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
) -> Result<Json<VerifyReport>, ApiError> {
    let record = find(&state, &caller, &account).await?;
    let steps = state.accounts.verify(&record.account).await;
    Ok(Json(VerifyReport {
        account: record.account,
        ok: steps.iter().all(|step| step.result != StepResult::Failed),
        steps,
    }))
}

/// The account that `name` names by id or e-mail, if `caller` may act on it.
pub(super) async fn find(
    state: &AdminState,
    caller: &crate::admin::auth::Caller,
    name: &str,
) -> Result<AccountRecord, ApiError> {
    let record = state.store.account_by_login(name).await?;
    caller.require_account(record.as_ref().map(|record| record.account.as_str()))?;
    record.ok_or_else(|| ApiError::no_such("account", name))
}

/// The account whose grant is to be shared, where one is named and exists. Of accounts that change meanwhile, the store has the
/// last word.
async fn owner(state: &AdminState, oauth2: Option<&NewGrant>) -> Result<Option<AccountRecord>, ApiError> {
    match oauth2.and_then(|oauth2| oauth2.shares_grant_of.as_ref()) {
        Some(name) => Ok(state.store.account_by_login(name).await?),
        None => Ok(None),
    }
}

async fn view(state: &AdminState, record: AccountRecord) -> AccountView {
    // Of an account that is too busy to answer, what the store knows is shown.
    let status = timeout(STATUS_TIMEOUT, state.accounts.status(&record.account)).await;
    AccountView::new(record, status.ok().flatten())
}

/// The listing of a caller who sees one account only.
fn only(record: Option<AccountRecord>, query: Option<&str>, page: Page) -> Listing<AccountRecord> {
    let wanted = query.unwrap_or_default().to_lowercase();
    let matches = |record: &AccountRecord| {
        let fields = [Some(&record.account), record.email.as_ref(), record.name.as_ref()];
        fields
            .into_iter()
            .flatten()
            .any(|field| field.to_lowercase().contains(&wanted))
    };
    let entries: Vec<AccountRecord> = record.into_iter().filter(matches).collect();
    Listing {
        total: entries.len() as u64,
        entries: if page.page == 0 { entries } else { Vec::new() },
    }
}

/// How long an account may take to tell its status; it answers in microseconds unless it waits for the disk.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
