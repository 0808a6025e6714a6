//! From a provider's answer to a grant that is kept: what is judged, in which order, and what becomes of a grant that fails.

use std::sync::Arc;

use super::{AuthorizeError, Authorizer, Completed, Subject};
use crate::account::meaning;
use crate::clock::{self, Timestamp};
use crate::config::Provider;
use crate::connection;
use crate::fault::{Fault, FaultKind};
use crate::oauth::{TokenAnswer, TokenSource as _};
use crate::proto::{CredentialSecret, Protocol};
use crate::secret::{SecretString, duplicate};
use crate::store::{AccountRecord, AccountSecrets, AccountState, Grant};

impl Authorizer {
    /// Keeps what `answer` brought for `subject`, if it is worth keeping; `asked` are the scopes that mail needs.
    ///
    /// # Errors
    /// [`AuthorizeError`]. The grant has then been given back to the provider where it has such a thing, except after
    /// [`AuthorizeError::LoginUnavailable`], which keeps it.
    pub(super) async fn keep(
        &self,
        subject: &Subject,
        provider: &Arc<Provider>,
        answer: TokenAnswer,
        asked: &[String],
    ) -> Result<Completed, AuthorizeError> {
        let refresh_token = answer.refresh_token.as_ref().map(duplicate);
        let outcome = self.judge_and_keep(subject, answer, asked).await;
        let is_kept = matches!(outcome, Ok(_) | Err(AuthorizeError::LoginUnavailable(_)));
        if !is_kept && let Some(refresh_token) = refresh_token {
            self.give_back(subject, provider, &refresh_token).await;
        }
        if let Err(error) = &outcome {
            let (account, code) = (&subject.account, error.code());
            tracing::info!(%account, provider = %provider.name, code, %error, "a consent came to nothing");
        }
        outcome
    }

    async fn judge_and_keep(
        &self,
        subject: &Subject,
        answer: TokenAnswer,
        asked: &[String],
    ) -> Result<Completed, AuthorizeError> {
        if answer.refresh_token.is_none() {
            return Err(AuthorizeError::NoRefreshToken);
        }
        let missing: Vec<String> = answer.missing(asked).map(str::to_owned).collect();
        if !missing.is_empty() {
            return Err(AuthorizeError::MissingScopes(missing));
        }
        let now = clock::now();
        let stored = self.shared.services.store.account(&subject.account).await?;
        let record = authorized(stored, subject, now)?;
        check_identity(&record, subject, &answer)?;
        let login = self.try_login(&record, &answer.access_token).await;
        let completed = Completed {
            account: record.account.clone(),
            email: record.email.clone(),
            state: AccountState::Active,
            return_to: None,
        };
        match login {
            Ok(protocol) => {
                self.store(subject, answer, AccountState::Active, now).await?;
                tracing::info!(account = %completed.account, %protocol, "a consent was given, and opens the mailbox");
                Ok(completed)
            }
            Err(fault) if fault.kind == FaultKind::Unavailable => {
                self.store(subject, answer, AccountState::New, now).await?;
                Err(AuthorizeError::LoginUnavailable(fault.detail))
            }
            Err(Fault { kind, detail }) => Err(AuthorizeError::LoginRefused(match kind {
                FaultKind::UpstreamRefused(refusal) if detail.is_empty() => refusal.text,
                FaultKind::UpstreamRefused(refusal) => format!("{}; {detail}", refusal.text),
                kind => kind.to_string(),
            })),
        }
    }

    /// Logs in over the protocols that are served, in their order, until one lets us in, and says which.
    ///
    /// # Errors
    /// The first refusal; trouble that may pass only where nothing else is known.
    async fn try_login(&self, record: &AccountRecord, access_token: &SecretString) -> Result<Protocol, Fault> {
        let services = &self.shared.services;
        let mut first: Option<Fault> = None;
        for protocol in connection::walked(&services.config(), record) {
            let secret = CredentialSecret::OAuth {
                token: duplicate(access_token),
                generation: 0,
            };
            let tried = connection::try_login(services, record, protocol, secret).await;
            let mut fault = match tried {
                Ok(()) => return Ok(protocol),
                Err(fault) => fault,
            };
            if let Some(meaning) = meaning::of_fault(protocol, &fault) {
                fault.detail = match fault.kind {
                    // Its own words are in the kind.
                    FaultKind::UpstreamRefused(_) => meaning.explanation.to_string(),
                    _ => format!("{}; {}", fault.detail, meaning.explanation),
                };
            } else if let FaultKind::UpstreamRefused(_) = fault.kind {
                fault.detail.clear();
            }
            let is_better = first.as_ref().is_none_or(|first| first.kind == FaultKind::Unavailable);
            if is_better {
                first = Some(fault);
            }
        }
        Err(first.unwrap_or_else(|| Fault::new(FaultKind::ProtocolNotOffered)))
    }

    /// Writes the grant, durably. One change at a time: an administrator's own must not be lost.
    async fn store(
        &self,
        subject: &Subject,
        answer: TokenAnswer,
        state: AccountState,
        now: Timestamp,
    ) -> Result<(), AuthorizeError> {
        let services = &self.shared.services;
        let _turn = self.shared.changes.begin(&subject.account).await;
        let stored = services.store.account(&subject.account).await?;
        let is_new = stored.is_none();
        let mut record = authorized(stored, subject, now)?;
        if record.state != AccountState::Disabled {
            record.state = state;
        }
        let secrets = AccountSecrets {
            grant: Some(grant(answer, now)),
            password: None,
        };
        if is_new {
            services.accounts.create(record, secrets).await?;
        } else {
            services.accounts.replace(record, Some(secrets)).await?;
        }
        Ok(())
    }

    /// Gives a grant back that nobody will use. That it fails costs nothing but a stale entry at the provider.
    async fn give_back(&self, subject: &Subject, provider: &Provider, refresh_token: &SecretString) {
        let timeout = self.shared.services.config().limits.token_request_timeout;
        if let Err(error) = self.shared.oauth.revoke(provider, refresh_token, timeout).await {
            tracing::info!(account = %subject.account, %error, "a grant that is not used could not be given back");
        }
    }
}

/// The account's record with the consent at `now`: a new one where there is none.
fn authorized(
    stored: Option<AccountRecord>,
    subject: &Subject,
    now: Timestamp,
) -> Result<AccountRecord, AuthorizeError> {
    let Some(mut record) = stored else {
        return Ok(AccountRecord {
            account: subject.account.clone(),
            email: subject.mailbox().map(str::to_owned),
            name: None,
            provider: subject.provider.clone(),
            user: None,
            imap: None,
            smtp: None,
            pop3: None,
            shares_grant_of: None,
            authorized: Some(now),
            state: AccountState::New,
            last_error: None,
            created: now,
            updated: now,
        });
    };
    if record.provider != subject.provider {
        return Err(AuthorizeError::AccountChanged);
    }
    // It has a grant of its own from now on.
    record.shares_grant_of = None;
    record.last_error = None;
    record.authorized = Some(now);
    record.updated = now;
    Ok(record)
}

/// Whether the one who signed in is the one whose mailbox it is. An account with a login name of its own is opened by
/// somebody else's grant (a shared mailbox), which only the login can judge.
fn check_identity(record: &AccountRecord, subject: &Subject, answer: &TokenAnswer) -> Result<(), AuthorizeError> {
    let asked = record.email.as_deref().or_else(|| subject.mailbox());
    let (Some(identity), Some(asked), None) = (&answer.identity, asked, &record.user) else {
        return Ok(());
    };
    let mut addresses = identity.addresses().peekable();
    let Some(given) = addresses.peek().copied().map(str::to_owned) else {
        return Ok(());
    };
    if addresses.any(|address| address.to_lowercase() == asked.to_lowercase()) {
        return Ok(());
    }
    Err(AuthorizeError::WrongMailbox {
        asked: asked.to_owned(),
        given,
    })
}

fn grant(answer: TokenAnswer, now: Timestamp) -> Grant {
    Grant {
        refresh_token: answer.refresh_token,
        access_token: Some(answer.access_token),
        obtained: Some(now),
        expires: Some(now.after(answer.expires_in)),
        scope: answer.scopes.map(|scopes| scopes.join(" ")),
        user: answer.user,
        ends: answer.ends_in.map(|life| now.after(life)),
        ends_told: answer.ends_in.map(|_| now),
        warned_of: None,
    }
}
