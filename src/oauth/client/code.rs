//! The authorization code flow (RFC 6749 §4.1) with PKCE (RFC 7636): a URL for the owner's browser, and the exchange of what
//! the browser brings back.

use std::time::Duration;

use subtle::ConstantTimeEq;
use url::Url;

use super::{Exchange, OAuthClient};
use crate::clock;
use crate::config::Provider;
use crate::oauth::answer::{self, Asked, Response, TokenAnswer};
use crate::oauth::identity::Expected;
use crate::oauth::redirect::{Outcome, Redirect, RedirectUri};
use crate::oauth::request::{self, Authorization};
use crate::oauth::{Step, TokenError};
use crate::secret::{ExposeSecret, SecretString};

/// An authorization request.
#[derive(Debug, Clone)]
pub struct CodeRequest {
    /// Where the owner's browser goes.
    pub url: Url,
    /// What is kept until it comes back.
    pub pending: PendingCode,
}

/// What is kept of an authorization request until the owner's browser comes back.
#[derive(Debug, Clone)]
pub struct PendingCode {
    /// What the browser must bring back: 256 bits, by which the flow is found.
    pub state: SecretString,
    /// What the code is exchanged with (RFC 7636 §4.5).
    pub verifier: SecretString,
    /// What the id_token must repeat, where one was asked for.
    pub nonce: Option<SecretString>,
    /// Where the browser was told to come back to, word for word.
    pub redirect_uri: RedirectUri,
    /// Who was asked, where the provider's issuer is known.
    pub issuer: Option<String>,
    /// The scopes that were asked for, as far as mail needs them.
    pub scopes: Vec<String>,
}

impl PendingCode {
    /// Whether `redirect` brings this flow's state. Takes the same time whatever differs.
    pub fn is_state_of(&self, redirect: &Redirect) -> bool {
        let (mine, brought) = (self.state.expose_secret().as_bytes(), redirect.state.as_bytes());
        mine.ct_eq(brought).into()
    }
}

impl OAuthClient {
    /// Makes an authorization request, to be answered at `redirect_uri`. `login_hint` is the mailbox, for the provider's login
    /// page. `timeout` bounds what asking the issuer takes, if it must be asked.
    ///
    /// # Errors
    /// [`TokenError`]; `no_endpoint` where it is not known where owners consent.
    pub async fn begin_code(
        &self,
        provider: &Provider,
        redirect_uri: &RedirectUri,
        login_hint: Option<&str>,
        timeout: Duration,
    ) -> Result<CodeRequest, TokenError> {
        let exchange = self.begin(provider, Step::Consent, timeout)?;
        let begun = exchange.begin_code(redirect_uri, login_hint).await;
        begun.map_err(|error| exchange.place(error))
    }

    /// Exchanges what the browser brought back. `timeout` bounds the whole exchange.
    ///
    /// Dropping the future may lose the grant, for a code is good once; so callers run it to its end.
    ///
    /// # Errors
    /// [`TokenError`]: the provider's refusal, by way of the browser or of its token endpoint, or ours where the redirect
    /// belongs to another flow (`wrong_state`) or comes from another issuer (`wrong_issuer`).
    pub async fn exchange_code(
        &self,
        provider: &Provider,
        pending: &PendingCode,
        redirect: &Redirect,
        timeout: Duration,
    ) -> Result<TokenAnswer, TokenError> {
        let exchange = self.begin(provider, Step::Exchange, timeout)?;
        let exchanged = exchange.exchange_code(pending, redirect).await;
        exchanged.map_err(|error| exchange.place(error))
    }
}

impl Exchange<'_> {
    async fn begin_code(
        &self,
        redirect_uri: &RedirectUri,
        login_hint: Option<&str>,
    ) -> Result<CodeRequest, TokenError> {
        // The issuer's own name is needed when the browser comes back, even if the endpoint is known without it.
        let metadata = self.metadata().await?;
        let metadata = metadata.as_deref();
        let told = metadata.and_then(|metadata| metadata.authorization_endpoint.as_ref());
        let Some(url) = self.app.authorize_url.as_ref().or(told) else {
            let message =
                "it is not known where owners of mailboxes consent; give authorize_url, or an issuer that tells it";
            return Err(TokenError::app("no_endpoint", message));
        };
        self.require_allowed(url)?;
        let Authorization {
            url,
            state,
            verifier,
            nonce,
        } = request::authorization(self.app, url, redirect_uri, login_hint);
        let pending = PendingCode {
            state,
            verifier,
            nonce,
            redirect_uri: redirect_uri.clone(),
            issuer: metadata.map_or_else(
                || self.app.known_issuer.map(str::to_owned),
                |metadata| Some(metadata.issuer.clone()),
            ),
            scopes: self.app.scopes.clone(),
        };
        Ok(CodeRequest { url, pending })
    }

    async fn exchange_code(&self, pending: &PendingCode, redirect: &Redirect) -> Result<TokenAnswer, TokenError> {
        if !pending.is_state_of(redirect) {
            let message = "the browser came back from another authorization; begin anew";
            return Err(TokenError::temporary("wrong_state", message));
        }
        self.require_issuer(pending, redirect).await?;
        let code = match &redirect.outcome {
            Outcome::Code(code) => code,
            Outcome::Refused { code, description } => return Err(answer::refused(self.vendor, code, description)),
        };
        let url = self.token_url().await?;
        let proof = self.proof().await?;
        let request = request::code_exchange(
            self.caller(proof.as_ref()),
            &url,
            code,
            &pending.verifier,
            &pending.redirect_uri,
        );
        let expected = Expected {
            issuer: pending.issuer.as_deref(),
            client_id: &self.app.client_id,
            nonce: pending.nonce.as_ref(),
        };
        let read = |response: &Response<'_>, asked: Asked<'_>| {
            answer::read_consented(response, clock::now(), asked, &expected)
        };
        self.ask(&url, request, read).await
    }

    /// Refuses what comes from another issuer than the one that was asked (RFC 9207 §2.4): a code must not reach a token
    /// endpoint that it was not meant for. An issuer that nothing is known of cannot be compared with anything.
    async fn require_issuer(&self, pending: &PendingCode, redirect: &Redirect) -> Result<(), TokenError> {
        let Some(issuer) = &pending.issuer else {
            return Ok(());
        };
        let message = match &redirect.issuer {
            Some(named) if named == issuer => return Ok(()),
            Some(_) => "the browser came back from another issuer than the one that was asked",
            None => {
                let metadata = self.metadata().await?;
                if !metadata.is_some_and(|metadata| metadata.names_itself) {
                    return Ok(());
                }
                "the issuer always names itself in its answer, and this answer names none"
            }
        };
        Err(TokenError::temporary("wrong_issuer", message))
    }
}

#[cfg(test)]
mod tests;
