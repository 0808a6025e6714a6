//! `/v1/usage`: what happened with accounts and tokens.

use axum::extract::State;
use axum::{Extension, Json};

use super::{CallerOf, Shared};
use crate::admin::error::ApiError;
use crate::admin::extract::Parameters;
use crate::admin::state::AdminState;
use crate::admin::types::{EventsPage, PageHead};
use crate::clock::Timestamp;
use crate::store::{Page, UsageFilter, UsageKind};

pub(super) async fn list(
    State(state): Shared,
    Extension(caller): CallerOf,
    mut parameters: Parameters,
) -> Result<Json<EventsPage>, ApiError> {
    let account = resolve_account(&state, parameters.take("account")).await?;
    let filter = UsageFilter {
        account: caller.visible_account(account)?,
        token: parameters.take_parsed("token", str::parse)?,
        since: parameters.take_parsed("since", Timestamp::parse)?,
        until: parameters.take_parsed("until", Timestamp::parse)?,
        kind: parameters.take_parsed("outcome", kind)?,
    };
    let page = parameters.page()?;
    parameters.finish()?;
    page_of(&state, &filter, page).await
}

/// One page of the events that `filter` lets through.
pub(super) async fn page_of(
    state: &AdminState,
    filter: &UsageFilter,
    page: Page,
) -> Result<Json<EventsPage>, ApiError> {
    let listing = state.store.usage(filter, page).await?;
    Ok(Json(EventsPage {
        head: PageHead::new(page, listing.total),
        events: listing.entries,
    }))
}

/// The id of the account that a filter names by id or e-mail. What names no account stands for itself: events outlive their
/// account.
pub(super) async fn resolve_account(state: &AdminState, name: Option<String>) -> Result<Option<String>, ApiError> {
    let Some(name) = name else { return Ok(None) };
    let record = state.store.account_by_login(&name).await?;
    Ok(Some(record.map_or(name, |record| record.account)))
}

fn kind(text: &str) -> Result<UsageKind, String> {
    match text {
        "login" => Ok(UsageKind::Login),
        "denied" => Ok(UsageKind::Denied),
        "end" => Ok(UsageKind::End),
        "state" => Ok(UsageKind::State),
        _ => Err(format!(
            "'{}' is not one of: login, denied, end, state",
            text.escape_debug()
        )),
    }
}
