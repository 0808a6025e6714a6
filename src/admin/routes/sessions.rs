//! `/v1/session…`: live sessions.

use axum::extract::State;
use axum::{Extension, Json};

use super::{CallerOf, Shared, usage};
use crate::admin::error::ApiError;
use crate::admin::extract::{Parameters, PathId};
use crate::admin::types::{Closed, PageHead, SessionsPage};

pub(super) async fn list(
    State(state): Shared,
    Extension(caller): CallerOf,
    mut parameters: Parameters,
) -> Result<Json<SessionsPage>, ApiError> {
    let account = usage::resolve_account(&state, parameters.take("account")).await?;
    let account = caller.visible_account(account)?;
    let page = parameters.page()?;
    parameters.finish()?;
    let listing = state.sessions.list(account.as_deref(), page).await;
    Ok(Json(SessionsPage {
        head: PageHead::new(page, listing.total),
        sessions: listing.entries,
    }))
}

pub(super) async fn close(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(session): PathId,
) -> Result<Json<Closed>, ApiError> {
    let not_found = || ApiError::no_such("session", &session);
    let own = caller.own_account()?;
    let id: u64 = session.parse().map_err(|_| not_found())?;
    if own.is_some() {
        let session = state.sessions.find(id).await.ok_or_else(not_found)?;
        caller.require_account(session.account.as_deref())?;
    }
    if state.sessions.close(id).await {
        Ok(Json(Closed { closed: true }))
    } else {
        Err(not_found())
    }
}
