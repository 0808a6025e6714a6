//! Access tokens for accounts, by the provider's way of granting.

use super::Exchange;
use crate::clock;
use crate::oauth::answer::{self, Response, TokenAnswer};
use crate::oauth::request::{self, Caller};
use crate::oauth::{Basis, TokenError, TokenErrorKind};
use crate::secret::SecretString;

impl Exchange<'_> {
    /// Obtains a new access token.
    pub(super) async fn obtain(&self, basis: &Basis) -> Result<TokenAnswer, TokenError> {
        match &basis.refresh_token {
            Some(refresh_token) => self.refresh(refresh_token).await,
            None => Err(TokenError::app("no_grant", "the account has no refresh token")),
        }
    }

    /// Refreshes a grant (RFC 6749 §6).
    async fn refresh(&self, refresh_token: &SecretString) -> Result<TokenAnswer, TokenError> {
        let url = self.token_url().await?;
        let ask = async |scopes: &[String]| {
            let caller = Caller {
                app: self.app,
                assertion: None,
            };
            let request = request::refresh(caller, &url, refresh_token, scopes);
            let read = |response: &Response<'_>, secrets: &[&str]| answer::read(response, clock::now(), secrets);
            self.ask(&url, request, &[refresh_token], read).await
        };
        let scopes = self.app.refresh_scopes.as_slice();
        match ask(scopes).await {
            // A grant that was given for less than is served now: its own scopes still open what they opened before. Nothing
            // was rotated, since the endpoint refused.
            Err(error) if !scopes.is_empty() && error.is_for_want_of_consent() && !self.deadline.left().is_zero() => {
                tracing::info!(provider = %self.provider.name, %error, "refreshing for the scopes that the grant has");
                // The first refusal says what is missing, and is not made better by a second.
                ask(&[]).await.map_err(|second| match second.kind {
                    TokenErrorKind::Temporary { .. } => second,
                    TokenErrorKind::Grant | TokenErrorKind::App => error,
                })
            }
            answer => answer,
        }
    }
}
