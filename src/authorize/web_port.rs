//! What the public side asks for: reading a link, and beginning by it.

use url::Url;

use super::error::AuthorizeError;
use super::Authorizer;

/// What a link asks its reader for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The account's id.
    pub account: String,
    /// The mailbox's address, where it is known.
    pub email: Option<String>,
    /// The provider's name in the configuration.
    pub provider: String,
}

impl Authorizer {
    /// Reads the hosted link of `token`, without consuming it: mail scanners and browsers fetch what nobody has clicked.
    ///
    /// # Errors
    /// [`AuthorizeError::Link`], and those of the store.
    pub async fn open_link(&self, token: &str) -> Result<LinkView, AuthorizeError> {
        let (_, record) = self.open(token).await?;
        Ok(LinkView {
            email: super::judgement::mailbox(&record).map(str::to_owned),
            account: record.account,
            provider: record.provider,
        })
    }

    /// Begins a consent by a hosted link for the browser that keeps `browser`, and says where that browser is to go. Only the
    /// same browser can complete it.
    ///
    /// # Errors
    /// [`AuthorizeError::Link`], and what a code flow can fail by.
    pub async fn begin_link(&self, token: &str, browser: &[u8]) -> Result<Url, AuthorizeError> {
        self.begin_by_link(token, browser).await
    }
}
