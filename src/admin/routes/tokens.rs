//! `/v1/token…` and `/v1/tokens…`: access tokens.

use axum::extract::State;
use axum::{Extension, Json};

use super::{CallerOf, Shared, accounts, usage};
use crate::access::AccessToken;
use crate::admin::auth::Caller;
use crate::admin::error::ApiError;
use crate::admin::extract::{Body, Parameters, PathId};
use crate::admin::state::AdminState;
use crate::admin::types::{Deleted, EventsPage, NewToken, PageHead, TokenCreated, TokenView, TokensPage};
use crate::admin::validate;
use crate::clock;
use crate::store::{Deletion, TokenRecord, UsageFilter};

pub(super) async fn create(
    State(state): Shared,
    Extension(caller): CallerOf,
    Body(new): Body<NewToken>,
) -> Result<Json<TokenCreated>, ApiError> {
    let account = match &new.account {
        Some(name) => Some(accounts::find(&state, &caller, name).await?.account),
        None => {
            caller.require_root()?;
            None
        }
    };
    let settings = validate::token_settings(&new)?;
    let (token, id) = AccessToken::mint();
    let record = TokenRecord {
        id,
        account,
        scopes: settings.scopes,
        description: settings.description,
        restrictions: settings.restrictions,
        metadata: new.metadata,
        expires: new.expires,
        created: clock::now(),
    };
    state.store.create_token(record).await?;
    Ok(Json(TokenCreated {
        token: token.reveal().to_owned(),
        id,
    }))
}

pub(super) async fn list(
    State(state): Shared,
    Extension(caller): CallerOf,
    mut parameters: Parameters,
) -> Result<Json<TokensPage>, ApiError> {
    let account = usage::resolve_account(&state, parameters.take("account")).await?;
    let account = caller.visible_account(account)?;
    page_of(&state, account.as_deref(), parameters).await
}

pub(super) async fn list_of_account(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
    parameters: Parameters,
) -> Result<Json<TokensPage>, ApiError> {
    let record = accounts::find(&state, &caller, &account).await?;
    page_of(&state, Some(&record.account), parameters).await
}

pub(super) async fn read(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(token): PathId,
) -> Result<Json<TokenView>, ApiError> {
    let record = find(&state, &caller, &token).await?;
    let access = state.store.token_use(&record.id).await?;
    Ok(Json(TokenView::new(record, access)))
}

pub(super) async fn log(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(token): PathId,
    mut parameters: Parameters,
) -> Result<Json<EventsPage>, ApiError> {
    let record = find(&state, &caller, &token).await?;
    let page = parameters.page()?;
    parameters.finish()?;
    let filter = UsageFilter {
        token: Some(record.id),
        ..UsageFilter::default()
    };
    usage::page_of(&state, &filter, page).await
}

pub(super) async fn remove(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(token): PathId,
) -> Result<Json<Deleted>, ApiError> {
    let record = find(&state, &caller, &token).await?;
    let removed = state
        .store
        .remove_token(&record.id)
        .await?
        .ok_or_else(|| ApiError::not_found("token"))?;
    // IMPORTANT: after the deletion, so that no session can begin with the token once its sessions have been ended.
    if let Some(account) = removed.account {
        state.accounts.token_removed(&account, removed.id).await;
    }
    Ok(Json(Deleted::from(&*state.store, Deletion::Token(&record.id))))
}

/// The token that `name` names, by its id or as the token itself, if `caller` may act on it.
async fn find(state: &AdminState, caller: &Caller, name: &str) -> Result<TokenRecord, ApiError> {
    caller.own_account()?;
    let record = match name.parse() {
        Ok(id) => match state.store.token(&id).await? {
            Some(record) => Some(record),
            None => match AccessToken::parse(name) {
                Some(token) => state.store.token(&token.id()).await?,
                None => None,
            },
        },
        Err(_) => None,
    };
    let record = record.ok_or_else(|| ApiError::not_found("token"))?;
    caller.require_account(record.account.as_deref())?;
    Ok(record)
}

async fn page_of(
    state: &AdminState,
    account: Option<&str>,
    mut parameters: Parameters,
) -> Result<Json<TokensPage>, ApiError> {
    let query = parameters.take("query");
    let page = parameters.page()?;
    parameters.finish()?;
    let listing = state.store.tokens(account, query.as_deref(), page).await?;
    let tokens = listing.entries.into_iter();
    Ok(Json(TokensPage {
        head: PageHead::new(page, listing.total),
        tokens: tokens.map(|(record, access)| TokenView::new(record, access)).collect(),
    }))
}
