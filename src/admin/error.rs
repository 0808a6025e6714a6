//! Refusals of the admin API: one JSON shape for all of them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::access::AccessToken;
use crate::limits::{ACCOUNT_ID_CHARS_MAX, TOKEN_ID_SHORT_DIGITS};
use crate::store::StoreError;

/// A refusal: `{"statusCode","error","message","code"}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What it is about, for programs: snake case, never changed once released.
    pub code: String,
    /// What it is about, for people. Names the field where one is to blame; holds no secret.
    pub message: String,
}

/// The JSON of an [`ApiError`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// The HTTP status.
    pub status_code: u16,
    /// Its name.
    pub error: String,
    /// What it is about, for people.
    pub message: String,
    /// What it is about, for programs.
    pub code: String,
}

impl ApiError {
    /// A refusal with this status, code and message.
    pub fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
        }
    }

    /// 400: the value of `field` cannot be accepted.
    pub fn field(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            format!("{field}: {problem}"),
        )
    }

    /// 404: there is no such `what` (`account`, `token`, `session`) as was asked for by `name`.
    pub fn no_such(what: &str, name: &str) -> Self {
        let mut error = Self::not_found(what);
        error.message = format!("no such {what} '{}'", shown(name));
        error
    }

    /// 404: the `what` that is asked for has gone meanwhile, or is the only one that there could be.
    pub fn not_found(what: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("{what}_not_found"),
            format!("no such {what}"),
        )
    }

    /// 403: the caller is known but may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 401: the caller is not known.
    pub fn unauthorized(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, message)
    }

    /// The JSON that callers see.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            status_code: self.status.as_u16(),
            error: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            message: self.message.clone(),
            code: self.code.clone(),
        }
    }
}

/// A name as it came from a caller, for people: clean, bounded, and without a token that was put in a name's place.
pub(super) fn shown(name: &str) -> String {
    let chars_max = match AccessToken::parse(name) {
        Some(_) => TOKEN_ID_SHORT_DIGITS,
        None => ACCOUNT_ID_CHARS_MAX,
    };
    let mut shown: String = name.chars().take(chars_max).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown.escape_debug().to_string()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 §3: the challenge names the error only where a token was presented.
            let challenge = if self.code == "invalid_token" {
                "Bearer realm=\"portreeve\", error=\"invalid_token\""
            } else {
                "Bearer realm=\"portreeve\""
            };
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::NotFound(what) => Self::not_found(what),
            StoreError::GrantShared(_) => Self::new(StatusCode::CONFLICT, "grant_shared", message),
            StoreError::NotShareable => Self::field("oauth2.sharesGrantOf", message),
            StoreError::TooManyTokens => Self::new(StatusCode::CONFLICT, "too_many_tokens", message),
            StoreError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", message),
            StoreError::Unwritable(_) | StoreError::Closed => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message)
            }
            StoreError::Locked(_)
            | StoreError::Unreadable(_)
            | StoreError::Incomplete(_)
            | StoreError::MasterKey(_)
            | StoreError::Exposed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", message),
        }
    }
}
