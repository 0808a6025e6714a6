//! The JSON of the admin API: what callers send and what they get. The command line reads the same types.
//!
//! Field names are camelCase, times RFC 3339 in UTC. A field that INTERFACE §4 marks with `?` is left out where there is
//! nothing to tell; any other one is `null` then. Requests refuse fields that they do not know, and fields given twice.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::account::AccountStatus;
use crate::authorize::{CodeBegun, DeviceBegun, FlowKind, Progress, Stage};
use crate::clock::Timestamp;
use crate::config::{ListenerTls, UpstreamTls};
use crate::oauth::RedirectUri;
use crate::proto::Protocol;
use crate::recognize::{Finding, How, Server, Servers};
use crate::secret::SecretString;
use crate::store::{
    AccountError, AccountRecord, AccountState, Deletion, EndpointOverride, Failures, Restrictions, Store, TokenForm,
    TokenId, TokenRecord, TokenUse, UsageEvent,
};

/// The body of `POST /v1/account`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAccount {
    /// The id.
    pub account: String,
    /// The e-mail address, the other name that clients may log in with.
    pub email: Option<String>,
    /// A label for people.
    pub name: Option<String>,
    /// A provider of the configuration; without one, it is recognised by the address.
    pub provider: Option<String>,
    /// The login name at the upstream, where it is not the e-mail.
    pub user: Option<String>,
    /// An OAuth2 grant.
    pub oauth2: Option<NewGrant>,
    /// A password, instead of a grant.
    #[serde(default, deserialize_with = "optional_secret")]
    pub password: Option<SecretString>,
    /// Its own IMAP endpoint or login name, instead of the provider's.
    pub imap: Option<EndpointOverride>,
    /// Its own SMTP endpoint or login name, instead of the provider's.
    pub smtp: Option<EndpointOverride>,
    /// Its own POP3 endpoint or login name, instead of the provider's.
    pub pop3: Option<EndpointOverride>,
}

/// An OAuth2 grant as it is given.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewGrant {
    /// The refresh token.
    #[serde(default, deserialize_with = "optional_secret")]
    pub refresh_token: Option<SecretString>,
    /// An OAuth access token that is used until it ends.
    #[serde(default, deserialize_with = "optional_secret")]
    pub access_token: Option<SecretString>,
    /// When the access token ends.
    pub expires: Option<Timestamp>,
    /// Instead of all that: the account, by id or e-mail, whose grant opens this mailbox, too.
    pub shares_grant_of: Option<String>,
}

/// The body of `PUT /v1/account/{account}`: fields that are given are changed, `null` clears those that may be absent, and
/// the rest stays. Credentials are replaced as a whole and cannot be taken away, because a grant is never deleted by half.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AccountChange {
    /// The id; it cannot be changed, and is accepted where it is the path's.
    pub account: Option<String>,
    /// The e-mail address.
    #[serde(deserialize_with = "given")]
    pub email: Option<Option<String>>,
    /// A label for people.
    #[serde(deserialize_with = "given")]
    pub name: Option<Option<String>>,
    /// A provider of the configuration.
    #[serde(deserialize_with = "given")]
    pub provider: Option<String>,
    /// The login name at the upstream.
    #[serde(deserialize_with = "given")]
    pub user: Option<Option<String>>,
    /// A new OAuth2 grant; ends `needs-authorization` and any back-off.
    #[serde(deserialize_with = "given")]
    pub oauth2: Option<NewGrant>,
    /// A new password; ends `needs-authorization`.
    #[serde(deserialize_with = "secret")]
    pub password: Option<SecretString>,
    /// Its own IMAP endpoint or login name, instead of the provider's.
    #[serde(deserialize_with = "given")]
    pub imap: Option<Option<EndpointOverride>>,
    /// Its own SMTP endpoint or login name, instead of the provider's.
    #[serde(deserialize_with = "given")]
    pub smtp: Option<Option<EndpointOverride>>,
    /// Its own POP3 endpoint or login name, instead of the provider's.
    #[serde(deserialize_with = "given")]
    pub pop3: Option<Option<EndpointOverride>>,
    /// Switches the account off (`true`) or on again (`false`).
    #[serde(deserialize_with = "given")]
    pub disabled: Option<bool>,
}

/// The answer to `POST /v1/account`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountCreated {
    /// The id.
    pub account: String,
    /// Always `new`.
    pub state: AccountState,
}

/// One account, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountView {
    /// The id.
    pub account: String,
    /// The e-mail address.
    pub email: Option<String>,
    /// A label for people.
    pub name: Option<String>,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The login name at the upstream, where it is not the e-mail.
    pub user: Option<String>,
    /// Its own IMAP endpoint or login name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imap: Option<EndpointOverride>,
    /// Its own SMTP endpoint or login name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<EndpointOverride>,
    /// Its own POP3 endpoint or login name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop3: Option<EndpointOverride>,
    /// The account whose grant opens this mailbox, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_grant_of: Option<String>,
    /// The state.
    pub state: AccountState,
    /// The last error that concerned its credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<AccountError>,
    /// The logins that have failed since one last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// When the next refresh is due, after one that failed for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// When the OAuth access token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When the grant itself ends, where the provider told: its owner must authorize the account again before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ends: Option<Timestamp>,
    /// When it was added.
    pub created: Timestamp,
    /// When an administrator last changed it.
    pub updated: Timestamp,
}

/// The answer to `POST /v1/account/{account}/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The id.
    pub account: String,
    /// Whether no step failed.
    pub ok: bool,
    /// The steps in the order in which they were taken.
    pub steps: Vec<VerifyStep>,
}

/// One step of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyStep {
    /// What was tried: `dns`, `connect`, `tls`, `token`, `scopes`, `login` or `command`.
    pub name: String,
    /// The protocol that it concerns; the token and its scopes concern all.
    pub protocol: Option<Protocol>,
    /// How it went.
    pub result: StepResult,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What was found.
    pub message: String,
    /// What to do, where it failed and that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// How a step of a verification went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepResult {
    /// As it should.
    Ok,
    /// Not.
    Failed,
    /// It was not tried, because an earlier step failed or it does not apply.
    Skipped,
}

/// The body of `POST /v1/account/{account}/authorize`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewFlow {
    /// Which way.
    pub flow: FlowName,
    /// Where the browser comes back to; of the flow `code` alone.
    #[serde(default, deserialize_with = "redirect_uri")]
    pub redirect_uri: Option<RedirectUri>,
}

/// The ways of consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowName {
    /// A browser that comes back (RFC 6749 §4.1).
    Code,
    /// A code that is typed on another device (RFC 8628).
    Device,
}

/// The answer to `POST /v1/account/{account}/authorize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlowBegun {
    /// Of the flow `device`.
    Device(DeviceFlowView),
    /// Of the flow `code`.
    Code(CodeFlowView),
}

/// A code flow that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeFlowView {
    /// Where the owner's browser goes.
    pub url: Url,
    /// Until when it may come back.
    pub expires: Timestamp,
}

/// A device flow that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceFlowView {
    /// What the owner types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_uri_complete: Option<String>,
    /// Until when.
    pub expires: Timestamp,
    /// Seconds between the daemon's questions to the provider.
    pub interval: u64,
}

/// The answer to `GET /v1/account/{account}/authorize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Which way.
    pub flow: FlowName,
    /// How it stands.
    pub state: FlowStage,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<FlowError>,
}

/// How a flow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowStage {
    /// The owner has not decided yet.
    Pending,
    /// The grant was kept, and it opens the mailbox.
    Done,
    /// It came to nothing, or not to all that was wanted.
    Failed,
}

/// Why a flow failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowError {
    /// For programs, as in the refusals of `POST /v1/authorize`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The body of `POST /v1/authorize`. It has no Debug output: the URL holds the code.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedirectedUrl {
    /// The URL to which the provider sent the browser.
    pub url: Url,
}

/// The answer to `POST /v1/authorize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizationOutcome {
    /// The account's id.
    pub account: String,
    /// Its state.
    pub state: AccountState,
}

/// The body of `POST /v1/authentication/form`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewLink {
    /// The account, by id or e-mail; one that does not exist is added once its owner has consented.
    pub account: String,
    /// The mailbox's address, for an account that does not exist.
    pub email: Option<String>,
    /// A provider of the configuration; an account that exists has one already.
    pub provider: Option<String>,
    /// Where the owner's browser is sent after success.
    pub redirect_url: Option<Url>,
}

/// The answer to `POST /v1/authentication/form`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkMade {
    /// The link.
    pub url: Url,
}

/// The body of `POST /v1/token`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// The account, by id or e-mail; without one, a root token is made.
    pub account: Option<String>,
    /// How it is written; 64 hex digits if nothing is said.
    pub form: Option<TokenForm>,
    /// What it may be used for.
    pub scopes: Option<Vec<String>>,
    /// The scopes that it may give to tokens which it makes, beside its own.
    pub may_grant: Option<Vec<String>>,
    /// A label for people.
    pub description: Option<String>,
    /// Where it may be used from.
    pub restrictions: Option<NewRestrictions>,
    /// When it ends: a time to come.
    pub expires: Option<Timestamp>,
    /// The administrator's own note.
    pub metadata: Option<serde_json::Value>,
}

/// Where a new token may be used from.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRestrictions {
    /// Address ranges (`127.0.0.0/8`) or single addresses; empty: anywhere.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// The answer to `POST /v1/token`, the only one that holds a token.
#[derive(Serialize, Deserialize)]
pub struct TokenCreated {
    /// The token.
    pub token: String,
    /// Its id.
    pub id: TokenId,
}

impl fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCreated")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// One access token, never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// The account it is for; `null` for a root token.
    pub account: Option<String>,
    /// How it is written.
    #[serde(default)]
    pub form: TokenForm,
    /// The token that made it, with which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TokenId>,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// The scopes that it may give to tokens which it makes, beside its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_grant: Vec<String>,
    /// A label for people.
    pub description: String,
    /// Where it may be used from; `null`: anywhere.
    pub restrictions: Option<Restrictions>,
    /// The administrator's own note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was created.
    pub created: Timestamp,
    /// Its last accepted use.
    pub access: Option<TokenUse>,
}

/// One live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id, a decimal number that this run of the daemon uses once.
    pub id: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The account, once a client has logged in.
    pub account: Option<String>,
    /// The access token's id, once a client has logged in.
    pub token: Option<TokenId>,
    /// The client's address.
    pub remote_address: SocketAddr,
    /// The listener's address.
    pub local_address: SocketAddr,
    /// The upstream's address, once its leg is open.
    pub upstream_address: Option<SocketAddr>,
    /// What the client said it is (IMAP ID).
    pub client: Option<String>,
    /// The phase it is in.
    pub phase: String,
    /// When the client was accepted.
    pub since: Timestamp,
    /// Bytes from the client to the upstream.
    pub bytes_up: u64,
    /// Bytes from the upstream to the client.
    pub bytes_down: u64,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Always `true`.
    pub deleted: bool,
    /// `false` where the deletion is in force, but the disk has not taken it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<bool>,
}

impl Deleted {
    /// The answer to a deletion that `store` may yet owe to the disk.
    pub fn from(store: &dyn Store, deletion: Deletion<'_>) -> Self {
        Self {
            deleted: true,
            durable: store.owes(deletion).then_some(false),
        }
    }
}

/// What was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Always `true`.
    pub closed: bool,
}

/// Where in a list a page stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PageHead {
    /// Entries on all pages.
    pub total: u64,
    /// This page, counted from 0.
    pub page: usize,
    /// How many pages there are.
    pub pages: u64,
    /// Entries of a full page.
    pub page_size: usize,
}

/// A page of accounts, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountsPage {
    /// Where it stands.
    #[serde(flatten)]
    pub head: PageHead,
    /// The accounts.
    pub accounts: Vec<AccountView>,
}

/// A page of access tokens, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokensPage {
    /// Where it stands.
    #[serde(flatten)]
    pub head: PageHead,
    /// The tokens.
    pub tokens: Vec<TokenView>,
}

/// A page of usage events, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsPage {
    /// Where it stands.
    #[serde(flatten)]
    pub head: PageHead,
    /// The events.
    pub events: Vec<UsageEvent>,
}

/// A page of live sessions, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsPage {
    /// Where it stands.
    #[serde(flatten)]
    pub head: PageHead,
    /// The sessions.
    pub sessions: Vec<SessionView>,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// `ok`, `draining`, or `unready` with the reason in `problem`.
    pub status: Health,
    /// Why it is not `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The daemon's version.
    pub version: String,
    /// The name in greetings.
    pub hostname: String,
    /// When the daemon started.
    pub started: Timestamp,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// The listeners as they are bound.
    pub listeners: Vec<ListenerView>,
    /// The public side, if it is turned on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<WebView>,
    /// The daemon's own CA, if a listener uses a certificate of it (`self_signed = true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<CertificateAuthorityView>,
    /// The providers of the configuration.
    pub providers: Vec<ProviderView>,
    /// What the upstreams can do that accounts are at: at most [`crate::limits::STATUS_UPSTREAMS_MAX`] of them. Clients are
    /// told before their login what all of a protocol have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<UpstreamView>,
    /// How many accounts there are, in all and in each state.
    pub accounts: AccountCounts,
    /// Accounts that need somebody: at most [`crate::limits::STATUS_ATTENTION_MAX`] of them.
    pub attention: Vec<AttentionView>,
    /// How many access tokens there are.
    pub tokens: u64,
    /// How many sessions are live.
    pub sessions: u64,
    /// Whose refused logins are delayed at present.
    #[serde(default)]
    pub delayed: DelayedView,
}

/// How many were refused so often that the answers to further refused logins are delayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelayedView {
    /// Client addresses (IPv6: networks of 64 bits).
    pub addresses: usize,
    /// Login names.
    pub accounts: usize,
}

/// Whether the daemon takes new sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It does.
    Ok,
    /// It is stopping.
    Draining,
    /// Something that it needs does not work.
    Unready,
}

/// A listener as it is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerView {
    /// What is spoken.
    pub protocol: Protocol,
    /// Where.
    pub address: SocketAddr,
    /// TLS towards clients.
    pub tls: ListenerTls,
}

/// The public side (`[web]`) as it is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebView {
    /// Where.
    pub address: SocketAddr,
    /// Whether TLS is spoken there; without it, it is for loopback or behind a proxy.
    pub tls: bool,
    /// How browsers reach it, without a slash at its end.
    pub public_url: String,
}

/// The daemon's own CA, which clients are given to trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAuthorityView {
    /// The certificate's file, on the daemon's machine.
    pub path: PathBuf,
    /// The certificate's SHA-256: upper-case hex, octets parted by colons.
    pub fingerprint: String,
    /// When the certificate ends.
    pub expires: Timestamp,
    /// After a renewal, until it ends: the certificate before, which clients may still trust instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<FormerCertificateView>,
}

/// The CA's certificate before it was renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerCertificateView {
    /// As [`CertificateAuthorityView::fingerprint`].
    pub fingerprint: String,
    /// When it ends: clients that trust it need the new one by then.
    pub expires: Timestamp,
}

/// An upstream that accounts are at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamView {
    /// What is spoken there.
    pub protocol: Protocol,
    /// The provider whose accounts are there.
    pub provider: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How it is protected.
    pub tls: UpstreamTls,
    /// What it can do, as far as clients may be told of it before their login; absent until it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// When it last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Timestamp>,
    /// Why it could not be asked, the last time that it was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A provider, as far as `account add` and `account import` need it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderView {
    /// Its name.
    pub name: String,
    /// E-mail domains by which it is recognised.
    pub domains: Vec<String>,
    /// Whether it takes OAuth2 grants; passwords are taken in any case.
    pub oauth2: bool,
    /// How its access tokens are had, as `provider.grant` says it, where it has an OAuth app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Whether it is known to give codes for other devices (RFC 8628).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub device: bool,
    /// What it has endpoints for.
    pub protocols: Vec<Protocol>,
    /// The id of its OAuth app, to which grants are bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Where its tokens are asked for, where that is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<Url>,
    /// Whose discovery document tells where, else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Url>,
}

impl ProviderView {
    /// Whether an owner has to consent before there is anything to log in with.
    pub fn needs_consent(&self) -> bool {
        matches!(self.grant.as_deref(), Some("code" | "device"))
    }
}

/// The answer to `GET /v1/recognize`: whose mailbox an address is, and what is needed to have it here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecognitionView {
    /// The address.
    pub email: String,
    /// The provider, by its name in the configuration, or the name that its table would have.
    pub provider: Option<String>,
    /// By what it was found.
    pub how: RecognizedBy,
    /// The same in words.
    pub found: String,
    /// Whether the provider is configured.
    pub configured: bool,
    /// Whether the provider has an OAuth app, so that an owner can consent.
    pub oauth2: bool,
    /// Whether a password is taken, as far as is known.
    pub passwords: bool,
    /// What there is to do at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// An IMAP server that the domain names, of no known provider. It is not to be trusted before a person has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imap: Option<EndpointOverride>,
    /// Likewise for submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<EndpointOverride>,
    /// Likewise for POP3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop3: Option<EndpointOverride>,
}

/// By what a provider or its servers were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecognizedBy {
    /// The domain is the provider's.
    Domain,
    /// The domain's mail goes to the provider.
    Mx,
    /// The domain's SRV records name servers.
    Srv,
    /// An autoconfig file names servers.
    Autoconfig,
    /// Nothing was found.
    None,
}

/// How many accounts there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the number of accounts in the state of its name")]
pub struct AccountCounts {
    /// In all.
    pub total: u64,
    pub new: u64,
    pub active: u64,
    pub needs_authorization: u64,
    pub failing: u64,
    pub disabled: u64,
}

/// An account that needs somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttentionView {
    /// Its id.
    pub account: String,
    /// `needs-authorization` or `failing`; any other where its grant ends soon, or where one protocol fails and another is good.
    pub state: AccountState,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<AccountError>,
    /// The logins that have failed since one last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// When its grant ends, if that is soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_ends: Option<Timestamp>,
}

impl AccountView {
    /// What an administrator sees of `record`; `status` is newer than what the record says.
    pub(super) fn new(record: AccountRecord, status: Option<AccountStatus>) -> Self {
        let status = status.unwrap_or(AccountStatus {
            state: record.state,
            last_error: record.last_error,
            failures: record.failures,
            next_try: None,
            expires: None,
            scope: None,
            grant_ends: None,
        });
        Self {
            account: record.account,
            email: record.email,
            name: record.name,
            provider: record.provider,
            user: record.user,
            imap: record.imap,
            smtp: record.smtp,
            pop3: record.pop3,
            shares_grant_of: record.shares_grant_of,
            state: status.state,
            last_error: status.last_error,
            failures: status.failures,
            next_try: status.next_try,
            expires: status.expires,
            grant_ends: status.grant_ends,
            created: record.created,
            updated: record.updated,
        }
    }
}

impl From<CodeBegun> for CodeFlowView {
    fn from(begun: CodeBegun) -> Self {
        Self {
            url: begun.url,
            expires: begun.expires,
        }
    }
}

impl From<DeviceBegun> for DeviceFlowView {
    fn from(begun: DeviceBegun) -> Self {
        Self {
            user_code: begun.user_code,
            verification_uri: begun.verification_uri,
            verification_uri_complete: begun.verification_uri_complete,
            expires: begun.expires,
            interval: begun.interval.as_secs(),
        }
    }
}

impl From<Progress> for FlowView {
    fn from(progress: Progress) -> Self {
        let (state, error) = match progress.stage {
            Stage::Pending => (FlowStage::Pending, None),
            Stage::Done(_) => (FlowStage::Done, None),
            Stage::Failed(error) => {
                let error = FlowError {
                    code: error.code().to_owned(),
                    message: error.to_string(),
                };
                (FlowStage::Failed, Some(error))
            }
        };
        Self {
            flow: match progress.flow {
                FlowKind::Code => FlowName::Code,
                FlowKind::Device => FlowName::Device,
            },
            state,
            error,
        }
    }
}

impl RecognitionView {
    /// What was found of `email`.
    pub fn new(email: &str, finding: Finding) -> Self {
        let server = |server: Option<Server>| {
            server.map(|server| EndpointOverride {
                endpoint: Some(server.endpoint),
                user: server.user,
            })
        };
        let Servers { imap, smtp, pop3 } = finding.servers;
        Self {
            email: email.to_owned(),
            provider: finding.provider,
            how: match finding.how {
                How::Domain => RecognizedBy::Domain,
                How::Mx => RecognizedBy::Mx,
                How::Srv => RecognizedBy::Srv,
                How::Autoconfig => RecognizedBy::Autoconfig,
                How::None => RecognizedBy::None,
            },
            found: finding.found,
            configured: finding.configured,
            oauth2: finding.oauth2,
            passwords: finding.passwords,
            advice: finding.advice,
            imap: server(imap),
            smtp: server(smtp),
            pop3: server(pop3),
        }
    }
}

impl TokenView {
    /// What an administrator sees of `record`.
    pub(super) fn new(record: TokenRecord, access: Option<TokenUse>) -> Self {
        Self {
            id: record.id,
            account: record.account,
            form: record.form,
            parent: record.parent,
            scopes: record.scopes,
            may_grant: record.may_grant,
            description: record.description,
            restrictions: record.restrictions,
            metadata: record.metadata,
            expires: record.expires,
            created: record.created,
            access,
        }
    }
}

impl PageHead {
    /// The head of page `page` of a list with `total` entries.
    pub(super) fn new(page: crate::store::Page, total: u64) -> Self {
        Self {
            total,
            page: page.page,
            pages: total.div_ceil(page.size.max(1) as u64),
            page_size: page.size,
        }
    }
}

/// A field that may be absent. Where `T` is an `Option`, `null` is told from absent; else `null` is refused.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn redirect_uri<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RedirectUri>, D::Error> {
    let given = Option::<String>::deserialize(deserializer)?;
    let read = given.map(|given| RedirectUri::parse(&given));
    read.transpose().map_err(serde::de::Error::custom)
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Some(String::deserialize(deserializer)?.into()))
}

fn optional_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Into::into))
}
