//! The authorizer, as the admin API and the public side reach it.
//!
//! The admin API's callers hear what happened word for word. The public side's are owners, or strangers: they hear which of
//! its pages is true, and the rest goes to the log.

use async_trait::async_trait;
use url::Url;

use crate::admin::ConsentControl;
use crate::authorize::{
    self, AuthorizeError, Authorizer, Bearer, CodeBegun, Completed, DeviceBegun, LinkOrder, Progress,
};
use crate::store::AccountRecord;
use crate::web::{BROWSER_BYTES, ConsentPort, Granted, Invitation, LinkProblem, Problem};

#[async_trait]
impl ConsentControl for Authorizer {
    async fn begin_code(&self, account: &AccountRecord, redirect_uri: &Url) -> Result<CodeBegun, AuthorizeError> {
        Authorizer::begin_code(self, account, redirect_uri).await
    }

    async fn begin_device(&self, account: &AccountRecord) -> Result<DeviceBegun, AuthorizeError> {
        Authorizer::begin_device(self, account).await
    }

    async fn complete(&self, redirected: &Url, own: Option<&str>) -> Result<Completed, AuthorizeError> {
        let bearer = Bearer { browser: None, own };
        Authorizer::complete(self, redirected, bearer).await
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
        let subject = self.open_link(link).await.map_err(link_problem)?;
        Ok(Invitation {
            email: subject.mailbox().map(str::to_owned),
            account: subject.account,
            provider_title: self.title(&subject.provider),
            provider_name: subject.provider,
        })
    }

    async fn begin(&self, link: &str, browser: [u8; BROWSER_BYTES]) -> Result<Url, Problem> {
        self.begin_link(link, &browser).await.map_err(problem)
    }

    async fn complete(&self, redirected: &Url, browser: Option<[u8; BROWSER_BYTES]>) -> Result<Granted, Problem> {
        let bearer = Bearer {
            browser: browser.as_ref().map(<[u8; BROWSER_BYTES]>::as_slice),
            own: None,
        };
        let completed = Authorizer::complete(self, redirected, bearer).await.map_err(problem)?;
        Ok(Granted {
            account: completed.account,
            email: completed.email,
            return_to: completed.return_to,
        })
    }
}

fn link_problem(problem: authorize::LinkProblem) -> LinkProblem {
    match problem {
        authorize::LinkProblem::Forged => LinkProblem::Forged,
        authorize::LinkProblem::Expired | authorize::LinkProblem::Gone => LinkProblem::Expired,
        authorize::LinkProblem::Used => LinkProblem::Used,
        authorize::LinkProblem::Unknown(error) => {
            tracing::error!(%error, "a link could not be checked");
            LinkProblem::Internal
        }
    }
}

/// The page that tells the truth about `error`.
fn problem(error: AuthorizeError) -> Problem {
    match error {
        AuthorizeError::Link(link) => Problem::Link(link_problem(link)),
        AuthorizeError::UnknownFlow | AuthorizeError::Expired | AuthorizeError::Redirect(_) => Problem::UnknownFlow,
        AuthorizeError::Denied(_) => Problem::Denied,
        AuthorizeError::MissingScopes(scopes) => Problem::MissingScopes(scopes),
        AuthorizeError::WrongMailbox { asked, given } => Problem::WrongMailbox { asked, given },
        AuthorizeError::LoginRefused(reason) => Problem::LoginRefused { reason },
        AuthorizeError::LoginUnavailable(_) => Problem::MailboxUnreachable { is_kept: true },
        AuthorizeError::Provider(_) | AuthorizeError::NoRefreshToken | AuthorizeError::Busy => {
            tracing::warn!(%error, "a provider does not give consent as it should");
            Problem::ProviderTrouble
        }
        AuthorizeError::UnknownProvider(_)
        | AuthorizeError::OtherProvider(_)
        | AuthorizeError::PasswordsOnly(_)
        | AuthorizeError::NoConsent(_)
        | AuthorizeError::RedirectUri
        | AuthorizeError::WebOff
        | AuthorizeError::AccountChanged
        | AuthorizeError::Store(_)
        | AuthorizeError::Internal(_) => {
            tracing::error!(%error, "a consent by link failed");
            Problem::Internal
        }
    }
}
