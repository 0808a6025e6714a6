//! The routes of INTERFACE §4 and what stands before all of them.

mod accounts;
mod authorize;
mod health;
mod recognize;
mod sessions;
mod tokens;
mod usage;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use tokio::time::timeout;

use super::auth::{Caller, Peer, authenticate};
use super::error::ApiError;
use super::state::AdminState;
use crate::clock;
use crate::limits::{ADMIN_BODY_BYTES_MAX, ADMIN_REQUEST_TIMEOUT};
use crate::metrics::names;
use crate::net::admission::client_of;
use crate::net::http_server::{log_outcome, route_of};

/// What the handlers share.
type Shared = State<Arc<AdminState>>;

/// Who calls, as [`gate`] found out.
type CallerOf = Extension<Caller>;

/// The whole admin API.
pub(super) fn admin(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/v1/account", post(accounts::create))
        .route("/v1/accounts", get(accounts::list))
        .route(
            "/v1/account/{account}",
            get(accounts::read).put(accounts::change).delete(accounts::remove),
        )
        .route("/v1/account/{account}/verify", post(accounts::verify))
        .route(
            "/v1/account/{account}/authorize",
            post(authorize::begin).get(authorize::progress),
        )
        .route("/v1/authorize", post(authorize::complete))
        .route("/v1/authentication/form", post(authorize::link))
        .route("/v1/token", post(tokens::create))
        .route("/v1/tokens", post(tokens::create).get(tokens::list))
        .route("/v1/token/{token}", delete(tokens::remove))
        .route("/v1/tokens/{token}", get(tokens::read).delete(tokens::remove))
        .route("/v1/tokens/{token}/log", get(tokens::log))
        .route("/v1/tokens/account/{account}", get(tokens::list_of_account))
        .route("/v1/usage", get(usage::list))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/session/{session}", delete(sessions::close))
        .route("/v1/recognize", get(recognize::recognize))
        .route("/v1/status", get(health::status))
        .route("/healthz", get(health::alive))
        .route(READY_ROUTE, get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), gate))
        .with_state(state)
}

/// What `metrics.listen` serves: the metrics, to everybody who can reach it, and nothing else.
pub(super) fn metrics_only(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/metrics", get(health::open_metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

/// Stands before every route, known or not: finds out who calls, bounds the time, logs the outcome.
async fn gate(State(state): Shared, Extension(peer): Extension<Peer>, mut request: Request, next: Next) -> Response {
    let begun = clock::instant();
    let method = request.method().clone();
    let route = route_of(&request);
    let response = match authenticate(&state, peer, request.headers(), clock::now()).await {
        Ok(caller) => {
            if let Peer::Tcp(address) = peer {
                state.failures.accepted(client_of(address.ip()), clock::instant());
            }
            request.extensions_mut().insert(caller);
            run(request, next).await
        }
        Err(error) => {
            let refusal = error.into_response();
            if matches!(refusal.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                hold_back(&state, peer, request.headers()).await;
            }
            refusal
        }
    };
    // Probes come every few seconds, and what they find is told when it changes.
    if route == READY_ROUTE {
        tracing::debug!(status = response.status().as_u16(), "probed for readiness");
    } else {
        log_outcome("admin", &method, &route, response.status(), begun);
    }
    response
}

/// Holds back the refusal of a token that came over TCP, as those of mail clients are.
async fn hold_back(state: &AdminState, peer: Peer, headers: &HeaderMap) {
    let Peer::Tcp(address) = peer else { return };
    if !headers.contains_key(header::AUTHORIZATION) {
        return;
    }
    let cap = state.config.borrow().limits.auth_failure_delay;
    let delay = state
        .failures
        .refused(client_of(address.ip()), None, cap, clock::instant());
    if !delay.is_zero() {
        names::refusals_delayed("admin").increment(1);
        tokio::time::sleep(delay).await;
    }
}

/// Runs the handler within its time. One that may change something runs to its end even if its caller hangs up or has
/// waited long enough.
async fn run(request: Request, next: Next) -> Response {
    let changes = !request.method().is_safe();
    let handler = next.run(request);
    let outcome = if changes {
        timeout(ADMIN_REQUEST_TIMEOUT, tokio::spawn(handler)).await
    } else {
        timeout(ADMIN_REQUEST_TIMEOUT, handler).await.map(Ok)
    };
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(panicked)) => {
            tracing::error!(%panicked, "an admin request ended by a defect");
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "a defect of this program",
            )
            .into_response()
        }
        Err(_) => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            format!("no result within {}", crate::span::Span(ADMIN_REQUEST_TIMEOUT)),
        )
        .into_response(),
    }
}

/// Where readiness is probed.
const READY_ROUTE: &str = "/readyz";

async fn unknown_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "route_not_found", "no such route")
}

async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        format!("this route does not take {method}"),
    )
}
