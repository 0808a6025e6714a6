//! `/healthz`, `/readyz`, `/metrics` and `/v1/status`: how the daemon is.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use super::{CallerOf, Shared};
use crate::admin::error::ApiError;
use crate::admin::state::AdminState;
use crate::admin::types::{AccountCounts, AttentionView, DelayedView, Health, ProviderView, StatusView};
use crate::clock;
use crate::limits::{PAGE_SIZE_MAX, STATUS_ATTENTION_MAX, STATUS_UPSTREAMS_MAX};
use crate::metrics::names;
use crate::metrics::render::CONTENT_TYPE;
use crate::proto::Protocol;
use crate::store::{AccountRecord, AccountState, Page, StoreError};

pub(super) async fn alive() -> Json<serde_json::Value> {
    Json(json!({"status": "ok"}))
}

pub(super) async fn ready(State(state): Shared) -> Result<Json<serde_json::Value>, ApiError> {
    let (health, problem) = health(&state);
    let problem = (health != Health::Ok).then(|| problem.unwrap_or_default());
    state.readiness.note(problem.as_deref());
    match problem {
        None => Ok(Json(json!({"status": "ok"}))),
        Some(problem) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", problem)),
    }
}

pub(super) async fn metrics(state: Shared, Extension(caller): CallerOf) -> Result<Response, ApiError> {
    caller.require_metrics()?;
    open_metrics(state).await
}

/// The metrics, without asking who calls.
pub(super) async fn open_metrics(State(state): Shared) -> Result<Response, ApiError> {
    let counts = account_counts(&state).await?;
    for (account_state, count) in [
        (AccountState::New, counts.new),
        (AccountState::Active, counts.active),
        (AccountState::NeedsAuthorization, counts.needs_authorization),
        (AccountState::Failing, counts.failing),
        (AccountState::Disabled, counts.disabled),
    ] {
        names::accounts(account_state).set(count as f64);
    }
    names::grants_ending().set(state.accounts.ending().len() as f64);
    names::access_tokens().set(state.store.token_count().await? as f64);
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.render()).into_response())
}

pub(super) async fn status(State(state): Shared, Extension(caller): CallerOf) -> Result<Json<StatusView>, ApiError> {
    caller.require_root()?;
    let config = state.config.borrow().clone();
    let accounts = account_counts(&state).await?;
    let (health, problem) = health(&state);
    let delayed = state.failures.delayed(clock::instant());
    let protocols = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3];
    let providers = config.providers.values().map(|provider| ProviderView {
        name: provider.name.clone(),
        domains: provider.domains.clone(),
        oauth2: provider.oauth.is_some(),
        grant: provider.oauth.as_ref().map(|app| app.grant.name().to_owned()),
        device: provider.oauth.as_ref().is_some_and(|app| app.device_url.is_some()),
        protocols: protocols
            .into_iter()
            .filter(|protocol| provider.endpoint(*protocol).is_some())
            .collect(),
        client_id: (provider.oauth.as_ref().map(|app| app.client_id.clone())).filter(|id| !id.is_empty()),
        token_url: provider.oauth.as_ref().and_then(|app| app.token_url.clone()),
        issuer: provider.oauth.as_ref().and_then(|app| app.issuer.clone()),
    });
    let upstreams = state.accounts.upstreams().into_iter().take(STATUS_UPSTREAMS_MAX);
    Ok(Json(StatusView {
        status: health,
        problem,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: config.server.hostname.clone(),
        started: state.started,
        uptime_seconds: clock::now().since(state.started).as_secs(),
        listeners: state.sessions.listeners(),
        web: state.sessions.web(),
        certificate_authority: state.sessions.certificate_authority(),
        providers: providers.collect(),
        upstreams: upstreams.collect(),
        attention: attention(&state, &accounts).await?,
        accounts,
        tokens: state.store.token_count().await?,
        sessions: state.sessions.list(None, Page { page: 0, size: 1 }).await.total,
        delayed: DelayedView {
            addresses: delayed.addresses,
            accounts: delayed.accounts,
        },
    }))
}

/// Whether the daemon takes new sessions, and why not.
fn health(state: &AdminState) -> (Health, Option<String>) {
    if *state.draining.borrow() {
        return (Health::Draining, Some("stopping".to_owned()));
    }
    let store = state.store.health().map_err(|error| error.to_string());
    match store.and_then(|()| state.accounts.health()) {
        Ok(()) => (Health::Ok, None),
        Err(problem) => (Health::Unready, Some(problem)),
    }
}

async fn account_counts(state: &AdminState) -> Result<AccountCounts, StoreError> {
    let mut counts = AccountCounts::default();
    for (account_state, count) in state.store.account_states().await? {
        let place = match account_state {
            AccountState::New => &mut counts.new,
            AccountState::Active => &mut counts.active,
            AccountState::NeedsAuthorization => &mut counts.needs_authorization,
            AccountState::Failing => &mut counts.failing,
            AccountState::Disabled => &mut counts.disabled,
        };
        *place += count;
        counts.total += count;
    }
    Ok(counts)
}

/// The accounts that need somebody: those in trouble, then those over one of whose protocols logins fail, then those whose
/// grants end soon. Reads no further than the last one in trouble.
async fn attention(state: &AdminState, counts: &AccountCounts) -> Result<Vec<AttentionView>, StoreError> {
    let wanted = usize::try_from(counts.needs_authorization + counts.failing)
        .unwrap_or(usize::MAX)
        .min(STATUS_ATTENTION_MAX);
    let mut found = Vec::with_capacity(wanted);
    let mut page = Page {
        page: 0,
        size: PAGE_SIZE_MAX,
    };
    while found.len() < wanted {
        let records = state.store.accounts(None, page).await?.entries;
        if records.is_empty() {
            break;
        }
        let needy = records
            .into_iter()
            .filter(|record| matches!(record.state, AccountState::NeedsAuthorization | AccountState::Failing))
            .map(of_attention);
        found.extend(needy.take(wanted - found.len()));
        page.page += 1;
    }
    for (account, failures) in state.accounts.failing() {
        if let Some(known) = attended(state, &mut found, &account).await? {
            known.failures = Some(failures);
        }
    }
    for (account, ends) in state.accounts.ending() {
        if let Some(known) = attended(state, &mut found, &account).await? {
            known.grant_ends = Some(ends);
        }
    }
    Ok(found)
}

/// The entry of `account`, which is added if there is room; `None` without room or without such an account.
async fn attended<'a>(
    state: &AdminState,
    found: &'a mut Vec<AttentionView>,
    account: &str,
) -> Result<Option<&'a mut AttentionView>, StoreError> {
    if let Some(known) = found.iter().position(|known| known.account == account) {
        return Ok(found.get_mut(known));
    }
    if found.len() >= STATUS_ATTENTION_MAX {
        return Ok(None);
    }
    let Some(record) = state.store.account(account).await? else {
        return Ok(None);
    };
    found.push(of_attention(record));
    Ok(found.last_mut())
}

fn of_attention(record: AccountRecord) -> AttentionView {
    AttentionView {
        account: record.account,
        state: record.state,
        last_error: record.last_error,
        failures: record.failures,
        grant_ends: None,
    }
}
