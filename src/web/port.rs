//! What the public side asks of the rest of the program, and every way in which that can end.

use async_trait::async_trait;
use url::Url;

/// Whoever knows links and consents. Secrets among its arguments (a link, a browser's secret, the redirect with its code)
/// are compared by it in constant time, and never logged.
#[async_trait]
pub trait ConsentPort: Send + Sync + 'static {
    /// Reads a link, without consuming it: mail scanners and browsers fetch what nobody has clicked.
    ///
    /// # Errors
    /// What is wrong with it.
    async fn open(&self, link: &str) -> Result<Invitation, LinkProblem>;

    /// Begins the consent that a link is for, bound to the browser that keeps `browser`, and says where it is to go.
    ///
    /// # Errors
    /// [`Problem::Link`], [`Problem::ProviderTrouble`] or [`Problem::Internal`].
    async fn begin(&self, link: &str, browser: [u8; BROWSER_BYTES]) -> Result<Url, Problem>;

    /// Completes a consent from the URL to which the provider sent the browser, with what that browser keeps: exchanges the
    /// code, logs in to the mailbox, and stores the grant. Once begun it must be let run to its end, since a code can be
    /// exchanged once.
    ///
    /// # Errors
    /// Each as its own page.
    async fn complete(&self, redirected: &Url, browser: Option<[u8; BROWSER_BYTES]>) -> Result<Granted, Problem>;
}

/// What a link asks its reader for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The account's id.
    pub account: String,
    /// The mailbox's address, where it is known.
    pub email: Option<String>,
    /// The provider's name in the configuration.
    pub provider_name: String,
    /// What people call the provider.
    pub provider_title: String,
}

/// A consent that was given, exchanged and tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The account's id.
    pub account: String,
    /// The mailbox's address, where it is known.
    pub email: Option<String>,
    /// Where whoever made the link wants the browser to go.
    pub return_to: Option<Url>,
}

/// What can be wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkProblem {
    /// It was not made here, or has been changed.
    Forged,
    /// Its time is over, or what it was for is gone.
    Expired,
    /// Its owner has consented since it was made.
    Used,
    /// It could not be looked at: a defect or trouble of this program, which is to be logged where it was met.
    Internal,
}

/// How a consent can fail. Texts are shown to the mailbox's owner: they are written for people and hold no internal
/// address, no path, no token and no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// The link.
    Link(LinkProblem),
    /// The redirect belongs to no consent in progress, or to one of another browser.
    UnknownFlow,
    /// The owner, or the provider in their place, said no.
    Denied,
    /// Not everything that is needed was granted.
    MissingScopes(Vec<String>),
    /// Somebody else signed in than was asked for.
    WrongMailbox {
        /// The address that was asked for.
        asked: String,
        /// The address that signed in.
        given: String,
    },
    /// The permission was given, but the mailbox does not let us in with it.
    LoginRefused {
        /// Why, and what to do, in words.
        reason: String,
    },
    /// The permission was given, but the mailbox could not be reached to try it.
    MailboxUnreachable {
        /// Whether the permission is used nevertheless; else what the account had before stays.
        is_kept: bool,
    },
    /// The provider does not answer, or not as it should.
    ProviderTrouble,
    /// A defect or trouble of this program, which is to be logged where it was met.
    Internal,
}

impl From<LinkProblem> for Problem {
    fn from(problem: LinkProblem) -> Self {
        Self::Link(problem)
    }
}

/// Bytes of what a browser keeps to show that it is the one that began: 256 bits, so that guessing is hopeless.
pub const BROWSER_BYTES: usize = 32;
