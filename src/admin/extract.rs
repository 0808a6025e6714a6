//! What is read from a request: its JSON body, its query, the id in its path. Each refuses in the API's own error shape.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::limits::{ADMIN_BODY_BYTES_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::store::Page;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// The single id in a request's path, percent-decoded.
pub(super) struct PathId(pub(super) String);

/// The query's parameters. A route takes those it knows; [`Parameters::finish`] refuses the rest.
pub(super) struct Parameters(BTreeMap<String, String>);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !may_be_json(&request) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be JSON, sent with Content-Type: application/json",
            ));
        }
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    format!("the body may have at most {ADMIN_BODY_BYTES_MAX} bytes"),
                ),
                _ => ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", "the body could not be read"),
            })?;
        parse_json(&bytes).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "the id in the path must be percent-encoded UTF-8",
            )),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            let value = decode(value)?;
            if parameters.insert(name.clone(), value).is_some() {
                return Err(ApiError::field(&name, "given twice"));
            }
        }
        Ok(Self(parameters))
    }

    /// The value of `name`; an empty one counts as absent, so that a form's empty fields do no harm.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// The value of `name`, read by `parse`.
    pub(super) fn take_parsed<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ApiError> {
        self.take(name)
            .map(|value| parse(&value).map_err(|problem| ApiError::field(name, problem)))
            .transpose()
    }

    /// The page that is asked for.
    pub(super) fn page(&mut self) -> Result<Page, ApiError> {
        let page = self.take_parsed("page", |text| {
            text.parse()
                .map_err(|_| format!("'{text}' is not a page, which are counted from 0"))
        })?;
        let size = self.take_parsed("pageSize", |text| match text.parse() {
            Ok(size @ 1..=PAGE_SIZE_MAX) => Ok(size),
            _ => Err(format!("'{text}' is not a number from 1 to {PAGE_SIZE_MAX}")),
        })?;
        Ok(Page {
            page: page.unwrap_or(0),
            size: size.unwrap_or(PAGE_SIZE_DEFAULT),
        })
    }

    /// Refuses what no one has taken.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            Some(name) => Err(ApiError::field(&name, "unknown parameter")),
            None => Ok(()),
        }
    }
}

/// Reads a JSON document, all of it. The error names the field and the place.
fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        // A document that breaks off leaves the field's name open: `oauth2.?`.
        let field = match path.trim_end_matches('?').trim_end_matches('.') {
            "" => "body",
            field => field,
        };
        let problem = error.inner().to_string();
        if may_be_secret(field) {
            ApiError::field(field, without_quotation(&problem))
        } else {
            ApiError::field(field, problem)
        }
    })?;
    deserializer.end().map_err(|problem| ApiError::field("body", problem))?;
    Ok(value)
}

/// Whether what was given for `field` may be a credential, in its place or in another's; a redirected `url` holds a code.
fn may_be_secret(field: &str) -> bool {
    ["body", "oauth2", "password", "url"].iter().any(|place| {
        field
            .strip_prefix(place)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// `problem` without the value that it quotes. The names of fields, in backticks, stay.
fn without_quotation(problem: &str) -> String {
    // The mark that comes first is the one that quotes; the other may stand in the value.
    let mark = problem.chars().find(|character| matches!(character, '"' | '\''));
    let quotation = mark.and_then(|mark| problem.split_once(mark).zip(problem.rsplit_once(mark)));
    match quotation {
        Some(((before, _), (_, behind))) => format!("{before}[REDACTED]{behind}"),
        None => problem.to_owned(),
    }
}

/// Whether the body is announced as JSON, or as nothing in particular: `curl -d` calls every body a form unless it is told
/// otherwise. That a web page could send a form unasked does no harm: no page reaches a Unix socket, and over TCP a bearer
/// token is needed, which no form carries.
fn may_be_json(request: &Request) -> bool {
    let Some(content_type) = request.headers().get(header::CONTENT_TYPE) else {
        return true;
    };
    let essence = content_type
        .to_str()
        .ok()
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    ["application/json", "application/x-www-form-urlencoded"]
        .iter()
        .any(|accepted| essence.eq_ignore_ascii_case(accepted))
}

/// Decodes a part of a query as `application/x-www-form-urlencoded`.
fn decode(text: &str) -> Result<String, ApiError> {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| ApiError::field("query", "must be percent-encoded UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{AccountChange, NewAccount, NewToken};

    fn refusal<T: DeserializeOwned>(json: &str) -> String {
        match parse_json::<T>(json.as_bytes()) {
            Ok(_) => panic!("accepted {json}"),
            Err(error) => error.message,
        }
    }

    #[test]
    fn a_refused_body_names_the_field_and_the_place() {
        for (message, expected) in [
            (
                refusal::<NewAccount>("{"),
                "body: EOF while parsing an object at line 1 column 1",
            ),
            (
                refusal::<NewAccount>("{} x"),
                "body: missing field `account` at line 1 column 2",
            ),
            (
                refusal::<NewAccount>(r#"{"account":1}"#),
                "account: invalid type: integer `1`, expected a string at line 1 column 12",
            ),
            (
                refusal::<NewAccount>(r#"{"account":"a","account":"b"}"#),
                "body: duplicate field `account` at line 1 column 24",
            ),
            (
                refusal::<NewAccount>(r#"{"oauth2":{"refreshToken":"x""#),
                "oauth2: EOF while parsing an object at line 1 column 29",
            ),
            (
                refusal::<NewAccount>(r#"{"imap":{"port":70000}}"#),
                "imap.port: invalid value: integer `70000`, expected u16 at line 1 column 21",
            ),
            (
                refusal::<NewToken>(r#"{"restrictions":{"addreses":[]}}"#),
                "restrictions.addreses: unknown field `addreses`, expected `addresses` at line 1 column 27",
            ),
            (
                refusal::<NewToken>(r#"{"scopes":["a",2]}"#),
                "scopes[1]: invalid type: integer `2`, expected a string at line 1 column 16",
            ),
            (
                refusal::<NewToken>(r#"{"expires":"soon"}"#),
                "expires: 'soon' is not an RFC 3339 time such as 2026-01-31T12:00:00Z at line 1 column 18",
            ),
            (
                refusal::<AccountChange>(r#"{"oauth2":null}"#),
                "oauth2: invalid type: null, expected struct NewGrant at line 1 column 14",
            ),
        ] {
            assert_eq!(message, expected);
        }
        assert!(refusal::<NewToken>(r#"{"token":"x"}"#).starts_with("token: unknown field `token`, expected one of"));
    }

    #[test]
    fn a_credential_in_the_wrong_place_is_not_repeated() {
        for (json, expected) in [
            (
                r#"{"oauth2":"se\"cr'et"}"#,
                "oauth2: invalid type: string [REDACTED], expected struct NewGrant at line 1 column 21",
            ),
            (
                r#"{"oauth2":{"expires":"s'e\"c\"ret"}}"#,
                "oauth2.expires: [REDACTED] is not an RFC 3339 time such as 2026-01-31T12:00:00Z at line 1 column 35",
            ),
            (
                r#""secret""#,
                "body: invalid type: string [REDACTED], expected struct NewAccount at line 1 column 8",
            ),
        ] {
            assert_eq!(refusal::<NewAccount>(json), expected);
        }
        let refused = refusal::<NewAccount>(r#"{"password":["secret"]}"#);
        assert!(refused.starts_with("password: invalid type: sequence"), "{refused}");
    }

    #[test]
    fn debug_output_of_a_body_shows_no_credential() {
        let json = br#"{"account":"a","provider":"p","password":"s3cret",
                        "oauth2":{"refreshToken":"s3cret","accessToken":"s3cret"}}"#;
        let new: NewAccount = parse_json(json).unwrap();
        let change: AccountChange = parse_json(json).unwrap();
        let shown = format!("{new:?} {change:?}");
        assert!(shown.contains("REDACTED") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn an_absent_field_differs_from_null_where_null_clears() {
        let change: AccountChange = parse_json(br#"{"email":null}"#).unwrap();
        assert_eq!(change.email, Some(None));
        assert_eq!(change.name, None);
    }

    #[test]
    fn a_query_is_decoded_and_strict() {
        let mut parameters = Parameters::parse("query=a%2Bb+c&account=&page=2&pageSize=1000").unwrap();
        assert_eq!(parameters.take("query").as_deref(), Some("a+b c"));
        assert_eq!(parameters.take("account"), None);
        assert_eq!(parameters.page().unwrap(), Page { page: 2, size: 1000 });
        parameters.finish().unwrap();

        for (query, message) in [
            ("page=-1", "page: '-1' is not a page, which are counted from 0"),
            ("pageSize=0", "pageSize: '0' is not a number from 1 to 1000"),
            ("pageSize=1001", "pageSize: '1001' is not a number from 1 to 1000"),
            ("q=1", "q: unknown parameter"),
            ("page=1&page=2", "page: given twice"),
            ("query=%ff", "query: must be percent-encoded UTF-8"),
        ] {
            let refused = Parameters::parse(query).and_then(|mut parameters| {
                parameters.page()?;
                parameters.finish()
            });
            assert_eq!(refused.unwrap_err().message, message, "{query}");
        }
    }
}
