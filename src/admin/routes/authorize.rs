//! Consent: flows that an administrator or a script begins, and links for mailboxes' owners.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};

use super::{CallerOf, Shared, accounts};
use crate::admin::error::ApiError;
use crate::admin::extract::{Body, PathId};
use crate::admin::types::{
    AuthorizationOutcome, CodeFlowView, DeviceFlowView, FlowBegun, FlowName, FlowView, LinkMade, NewFlow, NewLink,
    RedirectedUrl,
};
use crate::admin::validate;
use crate::authorize::{AuthorizeError, Blame, LinkOrder};
use crate::oauth::is_loopback;

pub(super) async fn begin(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
    Body(new): Body<NewFlow>,
) -> Result<Json<FlowBegun>, ApiError> {
    let record = accounts::find(&state, &caller, &account).await?;
    let begun = match (new.flow, new.redirect_uri) {
        (FlowName::Code, Some(redirect_uri)) => {
            // Who comes back to the public side is bound to no browser of the caller's, and may be anybody.
            if !is_loopback(redirect_uri.url()) {
                caller.require_root()?;
            }
            let begun = state.consent.begin_code(&record, &redirect_uri).await?;
            FlowBegun::Code(CodeFlowView::from(begun))
        }
        (FlowName::Code, None) => {
            let problem = "is missing: where the browser comes back to, such as http://localhost:8000/";
            return Err(ApiError::field("redirectUri", problem));
        }
        (FlowName::Device, None) => FlowBegun::Device(DeviceFlowView::from(state.consent.begin_device(&record).await?)),
        (FlowName::Device, Some(_)) => {
            return Err(ApiError::field("redirectUri", "belongs to the flow code"));
        }
    };
    Ok(Json(begun))
}

/// How the account's latest flow stands.
pub(super) async fn progress(
    State(state): Shared,
    Extension(caller): CallerOf,
    PathId(account): PathId,
) -> Result<Json<FlowView>, ApiError> {
    let record = accounts::find(&state, &caller, &account).await?;
    let progress = state.consent.progress(&record.account);
    let progress = progress.ok_or_else(|| ApiError::not_found("flow"))?;
    Ok(Json(FlowView::from(progress)))
}

/// Completes a code flow. Whose it is, its state tells; the caller must be allowed to act on that account.
pub(super) async fn complete(
    State(state): Shared,
    Extension(caller): CallerOf,
    Body(redirected): Body<RedirectedUrl>,
) -> Result<Json<AuthorizationOutcome>, ApiError> {
    let own = caller.own_account()?.map(str::to_owned);
    let completed = state.consent.complete(&redirected.url, own.as_deref()).await?;
    Ok(Json(AuthorizationOutcome {
        account: completed.account,
        state: completed.state,
    }))
}

/// A link that leads an owner through consent. The account need not exist yet.
pub(super) async fn link(
    State(state): Shared,
    Extension(caller): CallerOf,
    Body(new): Body<NewLink>,
) -> Result<Json<LinkMade>, ApiError> {
    caller.require_root()?;
    let stored = state.store.account_by_login(&new.account).await?;
    let config = state.config.borrow().clone();
    let subject = validate::link_subject(&new, stored, &config)?;
    let order = LinkOrder {
        subject,
        return_to: new.redirect_url,
    };
    let url = state.consent.link(order).await?;
    Ok(Json(LinkMade { url }))
}

impl From<AuthorizeError> for ApiError {
    fn from(error: AuthorizeError) -> Self {
        let status = match error.blame() {
            Blame::Request => StatusCode::BAD_REQUEST,
            Blame::Absence => StatusCode::NOT_FOUND,
            Blame::Time => StatusCode::GONE,
            Blame::Conflict => StatusCode::CONFLICT,
            Blame::Owner => StatusCode::FORBIDDEN,
            Blame::Upstream => StatusCode::BAD_GATEWAY,
            Blame::Trouble => StatusCode::SERVICE_UNAVAILABLE,
            Blame::Proxy => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.code(), error.to_string())
    }
}
