//! The authorizer, as the admin API and the public side reach it.
//!
//! The admin API's callers hear what happened word for word. The public side's are owners, or strangers: they hear which of
//! its pages is true, and the rest goes to the log.

use async_trait::async_trait;
use url::Url;

use crate::admin::ConsentControl;
use crate::authorize::{self, AuthorizeError, Authorizer, CodeBegun, Completed, DeviceBegun, LinkOrder, Progress, Via};
use crate::config;
use crate::oauth::RedirectUri;
use crate::sentence::explained;
use crate::store::AccountRecord;
use crate::web::{BROWSER_BYTES, ConsentPort, Granted, Invitation, LinkProblem, Problem};

#[async_trait]
impl ConsentControl for Authorizer {
    async fn begin_code(
        &self,
        account: &AccountRecord,
        redirect_uri: &RedirectUri,
    ) -> Result<CodeBegun, AuthorizeError> {
        Authorizer::begin_code(self, account, redirect_uri).await
    }

    async fn begin_device(&self, account: &AccountRecord) -> Result<DeviceBegun, AuthorizeError> {
        Authorizer::begin_device(self, account).await
    }

    async fn complete(&self, redirected: &Url, own: Option<&str>) -> Result<Completed, AuthorizeError> {
        let own = own.map(str::to_owned);
        Authorizer::complete(self, redirected, &Via::Api { own }).await
    }

    fn progress(&self, account: &str) -> Option<Progress> {
        Authorizer::progress(self, account)
    }

    async fn link(&self, order: LinkOrder) -> Result<Url, AuthorizeError> {
        Authorizer::link(self, order).await
    }
}

#[async_trait]
impl ConsentPort for Authorizer {
    async fn open(&self, link: &str) -> Result<Invitation, LinkProblem> {
        match self.open_link(link).await {
            Ok(subject) => Ok(Invitation {
                account: subject.account,
                email: subject.email,
                provider_title: title(&subject.provider),
                provider_name: subject.provider,
            }),
            Err(AuthorizeError::Link(problem)) => Err(problem.into()),
            Err(error) => {
                tracing::error!(%error, "a link could not be looked at");
                Err(LinkProblem::Internal)
            }
        }
    }

    async fn begin(&self, link: &str, browser: [u8; BROWSER_BYTES]) -> Result<Url, Problem> {
        self.begin_link(link, &browser).await.map_err(problem)
    }

    async fn complete(&self, redirected: &Url, browser: Option<[u8; BROWSER_BYTES]>) -> Result<Granted, Problem> {
        let completed = Authorizer::complete(self, redirected, &Via::Browser(browser)).await;
        let completed = completed.map_err(problem)?;
        Ok(Granted {
            account: completed.account,
            email: completed.email,
            return_to: completed.return_to,
        })
    }
}

impl From<authorize::LinkProblem> for LinkProblem {
    fn from(problem: authorize::LinkProblem) -> Self {
        match problem {
            authorize::LinkProblem::Forged => Self::Forged,
            authorize::LinkProblem::Expired | authorize::LinkProblem::Gone => Self::Expired,
            authorize::LinkProblem::Used => Self::Used,
        }
    }
}

/// What people call a provider: the preset's title, else its name in the configuration.
fn title(provider: &str) -> String {
    let known = config::known_providers().find(|known| known.name == provider);
    known.map_or(provider, |known| known.title).to_owned()
}

/// The page that tells the truth about `error`.
fn problem(error: AuthorizeError) -> Problem {
    match error {
        AuthorizeError::Link(problem) => Problem::Link(problem.into()),
        AuthorizeError::UnknownState
        | AuthorizeError::Expired
        | AuthorizeError::Replaced
        | AuthorizeError::BadRedirect(_)
        | AuthorizeError::WrongRedirect(_)
        | AuthorizeError::IssuerMismatch
        | AuthorizeError::Stopping => Problem::UnknownFlow,
        AuthorizeError::Denied { .. } => Problem::Denied,
        AuthorizeError::PartialConsent(scopes) => Problem::MissingScopes(scopes),
        AuthorizeError::WrongMailbox { asked, given } => Problem::WrongMailbox { asked, given },
        AuthorizeError::LoginRefused { said, meaning } => Problem::LoginRefused {
            reason: meaning.map_or_else(|| said.clone(), |meaning| explained(&said, meaning)),
        },
        AuthorizeError::LoginUnavailable { is_kept, .. } => Problem::MailboxUnreachable { is_kept },
        AuthorizeError::ExchangeFailed { .. } | AuthorizeError::NoRefreshToken => {
            tracing::warn!(%error, "a provider does not give consent as it should");
            Problem::ProviderTrouble
        }
        AuthorizeError::FlowNotOffered(_)
        | AuthorizeError::AccountGone
        | AuthorizeError::Conflict(_)
        | AuthorizeError::Field { .. }
        | AuthorizeError::Store(_)
        | AuthorizeError::Defect => {
            tracing::error!(%error, "a consent by a link failed");
            Problem::Internal
        }
    }
}
