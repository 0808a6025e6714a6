//! OAuth2 towards providers: what to ask their token endpoints, what their answers mean, and who they are.
//!
//! [`request`], [`redirect`], [`answer`], [`identity`], [`device`], [`discovery`], `scopes`, `classify` and [`explain`] are pure and
//! meet no socket; `assertion` reads keys and signs with them; [`client`] sends and receives, and runs the programs of others. Who
//! the providers are is configuration, presets included. Nothing here keeps a token: that is [`crate::account`]'s.
//!
//! Everything that can go wrong is a [`TokenError`] whose kind says what a retry would need: nothing but time, another
//! app configuration, or a person. Its facts say how it came about; its message is for people alone.

pub mod answer;
mod assertion;
mod classify;
pub mod client;
pub mod device;
pub mod discovery;
mod error;
pub mod explain;
mod external;
pub mod identity;
pub mod redirect;
pub mod request;
mod scopes;
mod text;
mod vendor;

use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use crate::config::{Provider, is_loopback_host};
use crate::secret::SecretString;

pub use answer::TokenAnswer;
pub use assertion::{examine_app_key, examine_service_account};
pub use client::{CodeRequest, OAuthClient, PendingCode};
pub use device::{DeviceCode, DevicePoll};
pub use error::{AnsweredBy, Obstacle, Step, TokenError, TokenErrorFacts, TokenErrorKind};
pub use explain::{Explanation, GrantLife};
pub use identity::Identity;
pub use redirect::{Outcome, Redirect, RedirectError, RedirectUri};
pub use scopes::{missing_scopes, protocol_of};
pub use vendor::Vendor;

/// What an account has to obtain an OAuth access token with; which of it counts is the provider's way of granting
/// ([`crate::config::GrantType`]).
#[derive(Debug, Clone)]
pub struct Basis {
    /// The account's id, for external programs.
    pub account: String,
    /// The mailbox: the subject of a service account's assertion, the name beside a password.
    pub user: String,
    /// The grant's refresh token.
    pub refresh_token: Option<SecretString>,
    /// The mailbox's password at the provider.
    pub password: Option<SecretString>,
    /// The access token that there is. It is not sent: no message may repeat it.
    pub access_token: Option<SecretString>,
    /// The scopes that the provider said it granted, where it did.
    pub granted: Option<Vec<String>>,
    /// Whether a refresh names no scopes, for the provider has refused them where they were named.
    pub names_no_scopes: bool,
}

/// What came of giving a grant back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The provider knows it no more.
    Done,
    /// The provider has no such thing (Microsoft): the owner ends it on the provider's pages, or it dies of disuse.
    NotOffered,
}

/// Where OAuth access tokens come from: [`client::OAuthClient`], or a scripted provider in tests.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a new access token from `provider`. `timeout` bounds the whole exchange.
    ///
    /// Dropping the future may lose a rotated refresh token, so callers run it to its end.
    async fn obtain(&self, provider: &Provider, basis: &Basis, timeout: Duration) -> Result<TokenAnswer, TokenError>;

    /// Gives the grant of `refresh_token` back to `provider` (RFC 7009). `timeout` bounds the whole exchange.
    ///
    /// # Errors
    /// [`TokenError`], if the grant may still be good.
    async fn revoke(
        &self,
        _provider: &Provider,
        _refresh_token: &SecretString,
        _timeout: Duration,
    ) -> Result<Revocation, TokenError> {
        Ok(Revocation::NotOffered)
    }

    /// The configuration or the files that it names may have changed: forget what was derived from them.
    fn reload(&self) {}
}

/// Whether secrets may be sent to `url`: over https, or over http to a loopback host or where an administrator allowed it.
pub fn is_url_allowed(url: &Url, allow_insecure: bool) -> bool {
    match url.scheme() {
        "https" => url.has_host(),
        "http" => url.has_host() && (allow_insecure || is_loopback(url)),
        _ => false,
    }
}

/// Whether `url` names this machine: `localhost` (RFC 6761 §6.3) or a loopback address.
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_over_https_or_stay_on_this_machine() {
        let cases = [
            ("https://id.example.com/token", false, true),
            ("http://id.example.com/token", false, false),
            ("http://id.example.com/token", true, true),
            ("http://localhost:8080/token", false, true),
            ("http://idp.localhost/token", false, true),
            ("http://127.0.0.9/token", false, true),
            ("http://[::1]:1/token", false, true),
            ("http://[::ffff:127.0.0.1]/token", false, true),
            ("http://127.0.0.1.example.com/token", false, false),
            ("http://localhost.example.com/token", false, false),
            ("http://10.0.0.1/token", false, false),
            ("ftp://localhost/token", true, false),
            ("file:///etc/passwd", true, false),
        ];
        for (url, allow_insecure, allowed) in cases {
            assert_eq!(
                is_url_allowed(&Url::parse(url).unwrap(), allow_insecure),
                allowed,
                "{url}"
            );
        }
    }
}
