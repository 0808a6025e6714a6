//! OpenID Connect Discovery 1.0, and RFC 8414 as far as it agrees with it: an issuer tells its endpoints. Pure: where
//! to ask and what the answer means.

use serde::Deserialize;
use url::Url;

use super::answer::{Response, answered_by};
use super::error::TokenError;
use super::{is_loopback, is_url_allowed};
use crate::host::is_reached_here;
use crate::limits::TOKEN_ANSWER_BYTES_MAX;

/// Where `issuer` publishes its metadata (OpenID Connect Discovery 1.0 §4: after the issuer's path).
pub fn metadata_url(issuer: &Url) -> Url {
    let mut url = issuer.clone();
    let path = format!(
        "{}/.well-known/openid-configuration",
        issuer.path().trim_end_matches('/')
    );
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    url
}

/// What an issuer tells of itself, as far as it matters here. Every URL is one that secrets may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The issuer's own name for itself, word for word.
    pub issuer: String,
    /// Where tokens are issued.
    pub token_endpoint: Url,
    /// Where owners consent.
    pub authorization_endpoint: Option<Url>,
    /// Where device codes are issued (RFC 8628 §4).
    pub device_authorization_endpoint: Option<Url>,
    /// Where tokens are given back (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Whether an answer to an authorization request always names the issuer (RFC 9207 §3).
    pub names_itself: bool,
}

/// Reads an issuer's metadata.
///
/// # Errors
/// [`TokenError`], temporary: if the document is not there or not readable, is another issuer's (§4.3: the two must be
/// identical, or one provider could direct secrets meant for another), or names an endpoint that secrets may not go to: one in
/// clear, or on this machine where the issuer is not.
pub fn read(issuer: &Url, allow_insecure: bool, response: &Response<'_>) -> Result<Metadata, TokenError> {
    if response.status != 200 || response.body.len() > TOKEN_ANSWER_BYTES_MAX {
        let message = format!("the issuer's metadata cannot be read (HTTP {})", response.status);
        return Err(unreadable(response, &message));
    }
    let Ok(document) = serde_json::from_slice::<Document>(response.body) else {
        let message = "the issuer's metadata is not what OpenID Connect Discovery describes";
        return Err(unreadable(response, message));
    };
    // A trailing slash is the one difference forgiven: URL parsing adds it to a bare host.
    if document.issuer.trim_end_matches('/') != issuer.as_str().trim_end_matches('/') {
        return Err(failed("the metadata is another issuer's"));
    }
    let is_local = is_loopback(issuer);
    let url = |what: &str, given: &str| match Url::parse(given) {
        // Whoever can change the document shall not have us talk to what listens on this machine.
        Ok(url) if !is_local && url.host_str().is_some_and(is_reached_here) => Err(failed(&format!(
            "the {what} endpoint in the issuer's metadata is on this machine, which the issuer is not"
        ))),
        Ok(url) if is_url_allowed(&url, allow_insecure) => Ok(url),
        Ok(_) => Err(failed(&format!(
            "the {what} endpoint in the issuer's metadata is not https"
        ))),
        Err(_) => Err(failed(&format!(
            "the {what} endpoint in the issuer's metadata is not a URL"
        ))),
    };
    let optional = |what, given: Option<String>| given.map(|given| url(what, &given)).transpose();
    Ok(Metadata {
        token_endpoint: url("token", &document.token_endpoint)?,
        authorization_endpoint: optional("authorization", document.authorization_endpoint)?,
        device_authorization_endpoint: optional("device authorization", document.device_authorization_endpoint)?,
        revocation_endpoint: optional("revocation", document.revocation_endpoint)?,
        names_itself: document.authorization_response_iss_parameter_supported,
        issuer: document.issuer,
    })
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: String,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

fn unreadable(response: &Response<'_>, message: &str) -> TokenError {
    let mut error = failed(message);
    error.facts.status = Some(response.status);
    error.facts.answered_by = answered_by(response);
    error
}

fn failed(message: &str) -> TokenError {
    TokenError::temporary("discovery", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn metadata_lies_behind_the_issuers_path() {
        for (issuer, expected) in [
            (
                "https://id.example.com",
                "https://id.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com/",
                "https://id.example.com/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com/t/1",
                "https://id.example.com/t/1/.well-known/openid-configuration",
            ),
            (
                "https://id.example.com/t/1/",
                "https://id.example.com/t/1/.well-known/openid-configuration",
            ),
        ] {
            assert_eq!(metadata_url(&url(issuer)).as_str(), expected);
        }
    }

    #[test]
    fn only_the_issuers_own_metadata_with_a_safe_endpoint_is_believed() {
        let issuer = url("https://id.example.com");
        let good = r#"{"issuer":"https://id.example.com","token_endpoint":"https://t.example.com/token","x":1}"#;
        let cases = [
            (200, good, Some("https://t.example.com/token")),
            (404, good, None),
            (302, good, None),
            (200, "<html>", None),
            (200, r#"{"issuer":"https://id.example.com"}"#, None),
            (
                200,
                r#"{"issuer":"https://evil.example","token_endpoint":"https://t.example.com/token"}"#,
                None,
            ),
            (
                200,
                r#"{"issuer":"https://id.example.com","token_endpoint":"http://t.example.com/token"}"#,
                None,
            ),
            (
                200,
                r#"{"issuer":"https://id.example.com","token_endpoint":"/token"}"#,
                None,
            ),
            (
                200,
                r#"{"issuer":"https://id.example.com/","token_endpoint":"http://localhost/t"}"#,
                None,
            ),
        ];
        for (status, body, expected) in cases {
            let response = Response {
                status,
                retry_after: None,
                body: body.as_bytes(),
            };
            let endpoint = read(&issuer, false, &response).map(|metadata| metadata.token_endpoint);
            assert_eq!(endpoint.as_ref().ok().map(Url::as_str), expected, "{status} {body}");
            if let Err(error) = endpoint {
                assert_eq!(error.code, "discovery");
            }
        }
    }

    #[test]
    fn an_issuer_elsewhere_names_no_endpoint_on_this_machine() {
        let endpoint_of = |issuer: &str, member: &str, endpoint: &str| {
            let token = if member == "token_endpoint" {
                endpoint
            } else {
                "https://t.example.com/"
            };
            let body = serde_json::json!({"issuer": issuer, "token_endpoint": token, member: endpoint}).to_string();
            let response = Response {
                status: 200,
                retry_after: None,
                body: body.as_bytes(),
            };
            read(&url(issuer), true, &response)
                .map(drop)
                .map_err(|error| error.message)
        };
        for member in [
            "token_endpoint",
            "authorization_endpoint",
            "device_authorization_endpoint",
            "revocation_endpoint",
        ] {
            for endpoint in [
                "http://127.0.0.1:3000/v1/token",
                "https://localhost/",
                "http://admin.localhost:9464/",
                "http://[::ffff:127.0.0.1]/",
                "http://0.0.0.0:3000/",
                "http://2130706433/",
            ] {
                let refused = endpoint_of("https://id.example.com", member, endpoint).unwrap_err();
                assert!(
                    refused.contains("is on this machine, which the issuer is not"),
                    "{endpoint}: {refused}"
                );
                endpoint_of("http://localhost:8080", member, endpoint).unwrap();
            }
            endpoint_of("https://id.example.com", member, "https://login.example.net/").unwrap();
        }
    }
}
