//! `/v1/recognize`: whose mailbox an address is.

use axum::extract::State;
use axum::{Extension, Json};

use super::{CallerOf, Shared};
use crate::admin::error::ApiError;
use crate::admin::extract::Parameters;
use crate::admin::state::AdminState;
use crate::admin::types::RecognitionView;
use crate::admin::validate;
use crate::recognize::Reach;

pub(super) async fn recognize(
    State(state): Shared,
    Extension(caller): CallerOf,
    mut parameters: Parameters,
) -> Result<Json<RecognitionView>, ApiError> {
    // It makes the daemon ask around in the network.
    caller.require_root()?;
    let email = parameters.take("email");
    parameters.finish()?;
    let email = email.ok_or_else(|| ApiError::field("email", "expected an address such as user@example.com"))?;
    validate::check_email(&email)?;
    Ok(Json(state.recognition.recognize(&email, Reach::Servers).await))
}

/// The provider of a new account that names none, if it is a configured one.
///
/// # Errors
/// 400 naming the field, with what was found.
pub(super) async fn provider_of(state: &AdminState, account: &str, email: Option<&str>) -> Result<String, ApiError> {
    let refused = |problem: &str| ApiError::field("provider", problem);
    let email = email.or(Some(account).filter(|account| account.contains('@')));
    let email = email.ok_or_else(|| refused("is needed where there is no e-mail address to tell it by"))?;
    validate::check_email(email)?;
    let finding = state.recognition.recognize(email, Reach::Provider).await;
    match (finding.provider, finding.configured) {
        (Some(provider), true) => Ok(provider),
        (Some(provider), false) => {
            let advice = finding.advice.map(|advice| format!(". {advice}")).unwrap_or_default();
            Err(refused(&format!(
                "{}, but '{provider}' is not configured{advice}",
                finding.found
            )))
        }
        (None, _) => Err(refused(&finding.found)),
    }
}
