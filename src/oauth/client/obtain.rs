//! Access tokens for accounts, by the provider's way of granting.

use std::path::Path;

use url::Url;

use super::Exchange;
use crate::clock;
use crate::config::{External, GrantType};
use crate::oauth::answer::{self, Asked, Response, TokenAnswer};
use crate::oauth::assertion::ServiceAccount;
use crate::oauth::request::{self, TokenRequest};
use crate::oauth::{Basis, Step, TokenError, TokenErrorKind, scopes};
use crate::secret::SecretString;

impl Exchange<'_> {
    /// Obtains a new access token.
    pub(super) async fn obtain(&self, basis: &Basis) -> Result<TokenAnswer, TokenError> {
        match &self.app.grant {
            GrantType::Code | GrantType::Device => match &basis.refresh_token {
                Some(refresh_token) => self.refresh(refresh_token, basis).await,
                None => Err(TokenError::app("no_grant", "the account has no refresh token")),
            },
            GrantType::ClientCredentials => self.by_client_credentials().await,
            GrantType::ServiceAccount { key_file } => self.by_service_account(key_file, &basis.user).await,
            GrantType::Password => self.by_password(basis).await,
            GrantType::External(External::Command(command)) => self.by_command(command, &self.app.env, basis).await,
            GrantType::External(External::Url(url)) => self.by_url(url, basis).await,
        }
    }

    /// Refreshes a grant (RFC 6749 §6).
    async fn refresh(&self, refresh_token: &SecretString, basis: &Basis) -> Result<TokenAnswer, TokenError> {
        let step = Step::Refresh;
        let exchange = Self { step, ..*self };
        let refreshed = exchange.refresh_in_time(refresh_token, basis).await;
        refreshed.map_err(|error| exchange.place(error))
    }

    async fn refresh_in_time(&self, refresh_token: &SecretString, basis: &Basis) -> Result<TokenAnswer, TokenError> {
        let url = self.token_url().await?;
        let ask = async |scopes: &[&str]| {
            // Each its own: an assertion may be good once (RFC 7523 §3, item 7).
            let proof = self.proof().await?;
            let request = request::refresh(self.caller(proof.as_ref()), &url, refresh_token, scopes);
            self.ask_for_token(&url, request).await
        };
        let named = match basis.names_no_scopes {
            true => Vec::new(),
            false => scopes::of_refresh(self.app, self.vendor, basis.granted.as_deref()),
        };
        let first = match ask(&named).await {
            Err(error) if !named.is_empty() && error.is_refusal_of_scopes() => error,
            Err(error) => return Err(error),
            Ok(mut answer) => {
                let granted = basis.granted.as_deref().unwrap_or_default();
                let told = answer.scopes.take();
                answer.scopes = told.map(|told| scopes::after_refresh(told, granted, &named));
                return Ok(answer);
            }
        };
        if self.deadline.left().is_zero() {
            return Err(first);
        }
        // The grant's own scopes still open what they opened before, whatever is served now. Nothing was rotated, since the
        // endpoint refused.
        let (account, provider) = (&basis.account, &self.provider.name);
        tracing::info!(%account, %provider, error = %first, "the scopes of a refresh are refused; asking without them");
        match ask(&[]).await {
            Ok(answer) => Ok(TokenAnswer {
                had_without_scopes: true,
                ..answer
            }),
            Err(second) => Err(worse_of(first, second)),
        }
    }

    /// Asks as the app itself, which may open the mailboxes (RFC 6749 §4.4).
    async fn by_client_credentials(&self) -> Result<TokenAnswer, TokenError> {
        let url = self.token_url().await?;
        let proof = self.proof().await?;
        let request = request::client_credentials(self.caller(proof.as_ref()), &url);
        let answer = self.ask_for_token(&url, request).await?;
        Ok(without_refresh_token(answer))
    }

    /// Has a service account speak for `user` (RFC 7523 §2.1).
    async fn by_service_account(&self, key_file: &Path, user: &str) -> Result<TokenAnswer, TokenError> {
        let file = key_file.to_owned();
        let account = self.blocking(move || ServiceAccount::read(&file)).await?;
        let url = match self.app.token_url.as_ref().or(account.token_uri.as_ref()) {
            Some(url) => url.clone(),
            None => self.token_url().await?,
        };
        self.require_allowed(&url)?;
        let (scopes, audience, user) = (self.app.scopes.clone(), url.clone(), user.to_owned());
        // Signing takes a millisecond of the processor.
        let assertion = self
            .blocking(move || account.assertion(&scopes, audience.as_str(), &user, clock::now()))
            .await?;
        let is_known = !self.app.client_id.is_empty();
        let proof = if is_known { self.proof().await? } else { None };
        let caller = is_known.then(|| self.caller(proof.as_ref()));
        let request = request::service_account(caller, &url, &assertion);
        let answer = self.ask_for_token(&url, request).await?;
        Ok(without_refresh_token(answer))
    }

    /// Asks with the mailbox's own name and password (RFC 6749 §4.3), unless a refresh token still does. The password is sent
    /// as seldom as can be: it is good for more than mail.
    async fn by_password(&self, basis: &Basis) -> Result<TokenAnswer, TokenError> {
        match (&basis.refresh_token, &basis.password) {
            (None, None) => {
                let message = "the account has neither a password nor a refresh token";
                Err(TokenError::app("no_grant", message))
            }
            (Some(refresh_token), None) => self.refresh(refresh_token, basis).await,
            (None, Some(password)) => self.log_in(&basis.user, password).await,
            (Some(refresh_token), Some(password)) => match self.refresh(refresh_token, basis).await {
                Err(error) if error.kind == TokenErrorKind::Grant && !self.deadline.left().is_zero() => {
                    tracing::debug!(account = %basis.account, %error, "the grant is gone; asking with the password");
                    self.log_in(&basis.user, password).await
                }
                answer => answer,
            },
        }
    }

    async fn log_in(&self, user: &str, password: &SecretString) -> Result<TokenAnswer, TokenError> {
        let url = self.token_url().await?;
        let proof = self.proof().await?;
        let request = request::password(self.caller(proof.as_ref()), &url, user, password);
        self.ask_for_token(&url, request).await
    }

    async fn ask_for_token(&self, url: &Url, request: Result<TokenRequest, String>) -> Result<TokenAnswer, TokenError> {
        let read = |response: &Response<'_>, asked: Asked<'_>| answer::read(response, clock::now(), asked);
        self.ask(url, request, read).await
    }
}

/// What to make of a refresh that was refused for its scopes, and then without any. The first refusal says what is missing, and
/// is not made better by a second, unless that one blames the grant itself, or nobody.
fn worse_of(first: TokenError, second: TokenError) -> TokenError {
    match second.kind {
        TokenErrorKind::Temporary { .. } => second,
        TokenErrorKind::Grant if first.kind != TokenErrorKind::Grant => second,
        TokenErrorKind::Grant | TokenErrorKind::App => first,
    }
}

/// RFC 6749 §4.4.3: there should be none, and whoever can ask at any time keeps no further secret.
fn without_refresh_token(answer: TokenAnswer) -> TokenAnswer {
    TokenAnswer {
        refresh_token: None,
        ends_in: None,
        ..answer
    }
}

#[cfg(test)]
mod tests;
