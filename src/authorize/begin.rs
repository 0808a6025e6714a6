//! The beginnings: a code flow, a device flow, a hosted link, and a code flow by such a link.

use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::error::{AuthorizeError, LinkProblem};
use super::flows::hash;
use super::judgement::mailbox;
use super::links::{Link, Payload};
use super::progress::FlowKind;
use super::{Authorizer, Consent, lock};
use crate::clock::{self, Timestamp};
use crate::config::{Config, GrantType, Provider};
use crate::limits::RETURN_URL_BYTES_MAX;
use crate::oauth::{CodeRequest, Explanation, GrantLife, RedirectUri, TokenError, explain, is_url_allowed};
use crate::store::AccountRecord;

/// Whose mailbox a consent is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The account's id. The account need not exist yet where a link is made for it.
    pub account: String,
    /// The mailbox's address.
    pub email: Option<String>,
    /// The provider's name in the configuration.
    pub provider: String,
}

/// A code flow that has begun.
#[derive(Debug, Clone)]
pub struct CodeBegun {
    /// Where the owner's browser goes.
    pub url: Url,
    /// Until when it must have come back.
    pub expires: Timestamp,
}

/// A device flow that has begun, and is polled from now on.
#[derive(Debug, Clone)]
pub struct DeviceBegun {
    /// What the owner types.
    pub user_code: String,
    /// Where: a URL.
    pub verification_uri: String,
    /// The URL that holds the code already, where the provider has such.
    pub verification_uri_complete: Option<String>,
    /// Until when it must have been typed.
    pub expires: Timestamp,
    /// How often the provider is asked.
    pub interval: Duration,
}

/// What a hosted link is to be made of.
#[derive(Debug, Clone)]
pub struct LinkOrder {
    /// Whose mailbox it is for.
    pub subject: Subject,
    /// Where the browser is sent after success.
    pub return_to: Option<Url>,
}

impl Authorizer {
    /// Begins a code flow for `record`'s mailbox, whose browser comes back to `redirect_uri`: a loopback address of whoever
    /// asks, or this program's own public one.
    ///
    /// # Errors
    /// [`AuthorizeError::Field`], [`AuthorizeError::FlowNotOffered`], [`AuthorizeError::Conflict`],
    /// [`AuthorizeError::ExchangeFailed`] if the provider does not tell where owners consent.
    pub async fn begin_code(
        &self,
        record: &AccountRecord,
        redirect_uri: &RedirectUri,
    ) -> Result<CodeBegun, AuthorizeError> {
        let config = self.shared.services.config();
        check_redirect(redirect_uri.url(), &config)?;
        let consent = self.consent(record, &config, None)?;
        self.begin(consent, redirect_uri, mailbox(record), None).await
    }

    /// Begins a device flow for `record`'s mailbox, in the place of the one that is in progress for it.
    ///
    /// # Errors
    /// As [`Authorizer::begin_code`].
    pub async fn begin_device(&self, record: &AccountRecord) -> Result<DeviceBegun, AuthorizeError> {
        let config = self.shared.services.config();
        let consent = self.consent(record, &config, None)?;
        let timeout = config.limits.token_request_timeout;
        let asked = self.shared.oauth.begin_device(&consent.provider, timeout).await;
        let code = asked.map_err(not_begun)?;
        let begun = DeviceBegun {
            user_code: code.user_code.clone(),
            verification_uri: code.verification_uri.clone(),
            verification_uri_complete: code.verification_uri_complete.clone(),
            expires: clock::now().after(code.expires_in),
            interval: code.interval,
        };
        self.poll(consent, code);
        Ok(begun)
    }

    /// Makes a hosted link: a URL that its reader can consent by, once, within 24 hours.
    ///
    /// # Errors
    /// [`AuthorizeError::FlowNotOffered`] where the public side is turned off or the provider needs no consent;
    /// [`AuthorizeError::Field`], [`AuthorizeError::Conflict`], and those of the store.
    pub async fn link(&self, order: LinkOrder) -> Result<Url, AuthorizeError> {
        let config = self.shared.services.config();
        if config.web.listen.is_none() {
            let text =
                "hosted links are served by the public side, which is turned off; set web.listen and web.public_url";
            return Err(AuthorizeError::FlowNotOffered(text.to_owned()));
        }
        if let Some(url) = &order.return_to {
            check_return(url)?;
        }
        let known = self.known(&order.subject).await?;
        let Subject {
            account,
            email,
            provider,
        } = order.subject;
        let payload = Payload {
            account,
            email,
            provider,
            return_to: order.return_to,
            issued: clock::now(),
            created: known.as_ref().map(|record| record.created),
        };
        let record = known.unwrap_or_else(|| new_record(&payload, payload.issued));
        askable(&record, &config)?;
        let token = lock(&self.shared.links).make(&payload).map_err(|error| {
            tracing::error!(%error, "a hosted link cannot be made");
            AuthorizeError::Defect
        })?;
        let page = config.web.page(&format!("authorize/{token}"));
        page.ok_or(AuthorizeError::Defect)
    }

    /// Reads the hosted link of `token`, without consuming it: mail scanners and browsers fetch what nobody has clicked.
    ///
    /// # Errors
    /// [`AuthorizeError::Link`], and those of the store.
    pub async fn open_link(&self, token: &str) -> Result<Subject, AuthorizeError> {
        let (_, record) = self.open(token).await?;
        Ok(Subject {
            email: mailbox(&record).map(str::to_owned),
            ..Subject::of(&record)
        })
    }

    /// The same, with what it is for as that is now.
    async fn open(&self, token: &str) -> Result<(Link, AccountRecord), AuthorizeError> {
        let now = clock::now();
        let link = self.shared.open_link(token, now)?;
        let known = self.shared.services.store.account(&link.payload.account).await?;
        link.check(known.as_ref())?;
        let record = known.unwrap_or_else(|| new_record(&link.payload, now));
        Ok((link, record))
    }

    /// Begins a code flow by the hosted link of `token` for the browser that keeps `browser`, and says where that browser is to
    /// go. Only the same browser can complete it.
    ///
    /// # Errors
    /// As [`Authorizer::begin_code`], and [`AuthorizeError::Link`].
    pub async fn begin_link(&self, token: &str, browser: &[u8]) -> Result<Url, AuthorizeError> {
        let (link, record) = self.open(token).await?;
        let config = self.shared.services.config();
        let redirect_uri = config.web.redirect_url().ok_or(LinkProblem::Gone)?.into();
        let consent = self.consent(&record, &config, Some(link))?;
        let begun = self.begin(consent, &redirect_uri, mailbox(&record), Some(hash(browser)));
        Ok(begun.await?.url)
    }

    async fn begin(
        &self,
        consent: Consent,
        redirect_uri: &RedirectUri,
        login_hint: Option<&str>,
        browser: Option<[u8; 32]>,
    ) -> Result<CodeBegun, AuthorizeError> {
        let timeout = self.shared.services.config().limits.token_request_timeout;
        let oauth = &self.shared.oauth;
        let asked = oauth
            .begin_code(&consent.provider, redirect_uri, login_hint, timeout)
            .await;
        let CodeRequest { url, pending } = asked.map_err(not_begun)?;
        let (account, number) = (consent.account.clone(), consent.number);
        let expires = lock(&self.shared.flows).insert(consent, pending, browser, clock::now());
        lock(&self.shared.latest).begin(&account, number, FlowKind::Code, expires);
        Ok(CodeBegun { url, expires })
    }

    fn consent(&self, record: &AccountRecord, config: &Config, link: Option<Link>) -> Result<Consent, AuthorizeError> {
        self.refuse_if_stopping()?;
        Ok(Consent {
            account: record.account.clone(),
            provider: askable(record, config)?,
            created: link.is_none().then_some(record.created),
            link,
            number: self.next_number(),
        })
    }

    /// The account that a link is to be for, where it exists.
    async fn known(&self, subject: &Subject) -> Result<Option<AccountRecord>, AuthorizeError> {
        let store = &self.shared.services.store;
        let known = store.account(&subject.account).await?;
        match (&known, &subject.email) {
            (Some(record), _) if record.provider != subject.provider => Err(AuthorizeError::Field {
                field: "provider",
                problem: format!("the account's is '{}'; change the account first", record.provider),
            }),
            (None, Some(email)) if store.account_by_login(email).await?.is_some() => {
                let text = "the e-mail address is another account's; make the link for that one";
                Err(AuthorizeError::Conflict(text.to_owned()))
            }
            _ => Ok(known),
        }
    }
}

impl Subject {
    /// What an account that exists is.
    pub fn of(record: &AccountRecord) -> Self {
        Self {
            account: record.account.clone(),
            email: record.email.clone(),
            provider: record.provider.clone(),
        }
    }
}

/// The account that a link adds.
pub(super) fn new_record(payload: &Payload, now: Timestamp) -> AccountRecord {
    AccountRecord {
        email: payload.email.clone(),
        ..AccountRecord::new(payload.account.clone(), payload.provider.clone(), now)
    }
}

/// The provider of `record`, if its owners are asked for consent.
///
/// # Errors
/// [`AuthorizeError::FlowNotOffered`] and [`AuthorizeError::Conflict`], which say what to do instead.
pub(super) fn askable(record: &AccountRecord, config: &Config) -> Result<Arc<Provider>, AuthorizeError> {
    let refuse = |text: String| Err(AuthorizeError::FlowNotOffered(text));
    let name = &record.provider;
    if let Some(owner) = &record.shares_grant_of {
        let text = format!("this account uses the grant of {owner}; authorize that one");
        return Err(AuthorizeError::Conflict(text));
    }
    let Some(provider) = config.providers.get(name) else {
        return refuse(format!("provider '{name}' is not configured"));
    };
    let Some(app) = &provider.oauth else {
        return refuse(format!(
            "provider '{name}' has no OAuth app configured, so its mailboxes are opened by passwords; give one with \
             portreeve account update --password-file, or configure [provider.{name}] client_id"
        ));
    };
    match app.grant {
        GrantType::Code | GrantType::Device => Ok(Arc::clone(provider)),
        GrantType::ClientCredentials | GrantType::ServiceAccount { .. } => refuse(format!(
            "the app of provider '{name}' opens its mailboxes by itself; there is nobody to ask"
        )),
        GrantType::Password => refuse(format!(
            "provider '{name}' takes the mailbox's own password; give it with portreeve account update --password-file"
        )),
        GrantType::External(_) => refuse(format!(
            "the tokens of provider '{name}' come from an external program, which is where consent is given"
        )),
    }
}

/// Where a browser may come back to. Providers compare it word for word with what is registered: Microsoft but for the port of
/// `localhost`, Google but for the port and path of this machine's addresses.
fn check_redirect(url: &Url, config: &Config) -> Result<(), AuthorizeError> {
    let is_plain = url.query().is_none() && url.fragment().is_none() && has_no_user(url);
    // RFC 8252 §7.3, §8.3: a program on the owner's own machine, whatever its port.
    let is_local = url.scheme() == "http" && matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let is_public = config.web.listen.is_some() && config.web.redirect_url().as_ref() == Some(url);
    if is_plain && (is_local || is_public) {
        return Ok(());
    }
    let problem = "must be http on the machine where the browser runs, such as http://localhost:8000/, or \
                   <web.public_url>/oauth/callback";
    Err(AuthorizeError::Field {
        field: "redirectUri",
        problem: problem.to_owned(),
    })
}

/// Where a browser may be sent at the end.
fn check_return(url: &Url) -> Result<(), AuthorizeError> {
    if is_url_allowed(url, false) && has_no_user(url) && url.as_str().len() <= RETURN_URL_BYTES_MAX {
        return Ok(());
    }
    Err(AuthorizeError::Field {
        field: "redirectUrl",
        problem: format!(
            "must be https, or http on this machine, without a user, of at most {RETURN_URL_BYTES_MAX} bytes"
        ),
    })
}

fn has_no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// Why a flow did not even begin.
fn not_begun(error: TokenError) -> AuthorizeError {
    if error.code == "no_endpoint" {
        return AuthorizeError::FlowNotOffered(error.message);
    }
    let meaning = meaning_of(&error);
    AuthorizeError::ExchangeFailed { error, meaning }
}

/// What a provider's refusal means while a grant is being asked for.
pub(super) fn meaning_of(error: &TokenError) -> Option<Explanation> {
    let now = clock::now();
    let life = GrantLife {
        consented: Some(now),
        held_since: now,
        last_good: None,
    };
    explain::of_token_error(error, life, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::tests::support;
    use crate::authorize::tests::web;
    use crate::config::{External, OAuthApp, test_support};

    #[test]
    fn browsers_come_back_to_this_machine_or_to_the_public_redirect() {
        let config = Config {
            web: web(),
            ..support::config()
        };
        for (given, is_right) in [
            ("http://localhost:4711/", true),
            ("http://localhost:4711/callback", true),
            ("http://127.0.0.1:4711/", true),
            ("http://[::1]:4711/", true),
            ("https://mail.example.com/oauth/callback", true),
            ("https://mail.example.com/other", false),
            ("https://localhost:4711/", false),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("http://10.0.0.1/", false),
            ("http://user@localhost/", false),
            ("http://localhost/?code=c", false),
            ("http://localhost/#f", false),
            ("urn:ietf:wg:oauth:2.0:oob", false),
            ("javascript:alert(1)", false),
        ] {
            let given = Url::parse(given).unwrap();
            assert_eq!(check_redirect(&given, &config).is_ok(), is_right, "{given}");
        }
        let public = web().redirect_url().unwrap();
        assert!(
            check_redirect(&public, &support::config()).is_err(),
            "the public side is off"
        );
    }

    #[test]
    fn browsers_are_sent_on_where_nobody_listens_in() {
        let long = format!("https://app.example.com/{}", "a".repeat(RETURN_URL_BYTES_MAX));
        for (given, is_right) in [
            ("https://app.example.com/done?x=1", true),
            ("http://localhost:3000/done", true),
            ("http://app.example.com/done", false),
            ("https://user:secret@app.example.com/", false),
            ("javascript:alert(1)", false),
            ("data:text/html,x", false),
            (&long, false),
        ] {
            let url = Url::parse(given).unwrap();
            assert_eq!(check_return(&url).is_ok(), is_right, "{given:.60}");
        }
    }

    #[test]
    fn owners_are_asked_only_where_there_is_something_to_ask() {
        let key_file = "/key.json".into();
        let command = External::Command(vec!["token".to_owned()]);
        let cases = [
            (Some(GrantType::Code), None),
            (Some(GrantType::Device), None),
            (Some(GrantType::ClientCredentials), Some("by itself")),
            (Some(GrantType::ServiceAccount { key_file }), Some("by itself")),
            (Some(GrantType::Password), Some("password")),
            (Some(GrantType::External(command)), Some("external")),
            (None, Some("no OAuth app")),
        ];
        for (grant, refused) in cases {
            let app = grant.clone().map(|grant| OAuthApp {
                grant,
                ..test_support::app()
            });
            let mut config = support::config();
            let provider = test_support::provider("example", app);
            config.providers.insert("example".to_owned(), Arc::new(provider));
            match (askable(&support::account("ada"), &config), refused) {
                (Ok(_), None) => {}
                (Err(error), Some(says)) => assert!(error.to_string().contains(says), "{error}"),
                (outcome, _) => panic!("{grant:?}: {outcome:?}"),
            }
        }
        let mut record = support::account("ada");
        record.shares_grant_of = Some("bob".to_owned());
        let error = askable(&record, &support::config()).unwrap_err();
        assert_eq!(error.code(), "conflict");
        record.shares_grant_of = None;
        record.provider = "gone".to_owned();
        let error = askable(&record, &support::config()).unwrap_err();
        assert!(error.to_string().contains("not configured"), "{error}");
    }
}
