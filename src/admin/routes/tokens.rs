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
use crate::limits::TOKEN_ID_SHORT_DIGITS;
use crate::store::{Deletion, StoreError, TokenId, TokenRecord, UsageFilter};

pub(super) async fn create(
    State(state): Shared,
    Extension(caller): CallerOf,
    Body(new): Body<NewToken>,
) -> Result<Json<TokenCreated>, ApiError> {
    let account = match &new.account {
        Some(name) => Some(accounts::find(&state, &caller, name).await?),
        None => {
            caller.require_root()?;
            None
        }
    };
    let (token, id) = AccessToken::mint(new.form.unwrap_or_default());
    let config = state.config.borrow().clone();
    let mut record = validate::new_token(new, id, account.as_ref(), &config, clock::now())?;
    if let Caller::Token(maker) = &caller {
        let bound = maker.bind(&mut record);
        bound.map_err(|beyond| ApiError::forbidden(beyond.to_string()))?;
    }
    let created = state.store.create_token(record).await;
    created.map_err(|error| match error {
        // The caller's own, which has been deleted meanwhile.
        StoreError::NotFound("token") => ApiError::unauthorized("invalid_token", "unknown token"),
        error => error.into(),
    })?;
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
    delete(&state, &record.id).await.map(Json)
}

/// Deletes a token with all that it made, and ends their sessions.
async fn delete(state: &AdminState, id: &TokenId) -> Result<Deleted, ApiError> {
    let removed = state.store.remove_token(id).await?;
    if removed.is_empty() {
        return Err(ApiError::no_such("token", &id.short()));
    }
    // IMPORTANT: after the deletion, so that no session can begin with the tokens once their sessions have been ended.
    for token in removed {
        if let Some(account) = token.account {
            state.accounts.token_removed(&account, token.id).await;
        }
    }
    Ok(Deleted::from(&*state.store, Deletion::Token(id)))
}

/// The token that `name` names, by its id or as the token itself, if `caller` may act on it.
async fn find(state: &AdminState, caller: &Caller, name: &str) -> Result<TokenRecord, ApiError> {
    caller.own_account()?;
    let id: Option<TokenId> = name.parse().ok();
    let itself = AccessToken::parse(name).map(|token| token.id());
    let mut record = None;
    for id in id.iter().chain(&itself) {
        record = record.or(state.store.token(id).await?);
    }
    // Of what may be a token itself, or was meant to be one, the message holds no more than the beginning.
    let record = record.ok_or_else(|| {
        let shown = match id.or(itself) {
            Some(id) => id.short(),
            None => name.chars().take(TOKEN_ID_SHORT_DIGITS).collect(),
        };
        ApiError::no_such("token", &shown)
    })?;
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
