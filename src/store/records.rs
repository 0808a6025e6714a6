//! The records that a store keeps.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::Timestamp;
use crate::config::{Endpoint, UpstreamTls};
use crate::limits::{DENIED_SHARE, TOKEN_ID_SHORT_DIGITS};
use crate::proto::Protocol;
use crate::secret::SecretString;

/// An account as it is kept, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountRecord {
    /// Its id: 1–256 characters, case-sensitive.
    pub account: String,
    /// Its e-mail address, the other name that clients may log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A label for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The login name at the upstream, where it is neither the e-mail nor the id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it has of its own for IMAP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imap: Option<EndpointOverride>,
    /// What it has of its own for SMTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<EndpointOverride>,
    /// What it has of its own for POP3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop3: Option<EndpointOverride>,
    /// The account whose grant opens this mailbox too; it has none of its own then (shared mailboxes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares_grant_of: Option<String>,
    /// When its owner last consented through portreeve. Links that were made before are void.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorized: Option<Timestamp>,
    /// Its state.
    pub state: AccountState,
    /// The last error that concerned its credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<AccountError>,
    /// The logins that have failed since one last succeeded. Written now and then while it only grows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// When it was added.
    pub created: Timestamp,
    /// When an administrator last changed it.
    pub updated: Timestamp,
}

impl AccountRecord {
    /// What it has of its own for `protocol`.
    pub fn own(&self, protocol: Protocol) -> Option<&EndpointOverride> {
        match protocol {
            Protocol::Imap => self.imap.as_ref(),
            Protocol::Smtp => self.smtp.as_ref(),
            Protocol::Pop3 => self.pop3.as_ref(),
        }
    }

    /// Whether `sharer` may use this account's grant: it is no other provider's, and at first hand.
    pub fn can_share_with(&self, sharer: &Self) -> bool {
        self.account != sharer.account && self.provider == sharer.provider && self.shares_grant_of.is_none()
    }
}

impl AccountRecord {
    /// An account that has nothing yet but an id at a provider.
    pub fn new(account: String, provider: String, now: Timestamp) -> Self {
        Self {
            account,
            email: None,
            name: None,
            provider,
            user: None,
            imap: None,
            smtp: None,
            pop3: None,
            shares_grant_of: None,
            authorized: None,
            state: AccountState::New,
            last_error: None,
            failures: None,
            created: now,
            updated: now,
        }
    }
}

/// What an account has of its own for one protocol: an endpoint, a login name, or both, but not neither.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EndpointFields", into = "EndpointFields")]
pub struct EndpointOverride {
    /// Where the mailbox is, instead of the provider's endpoint.
    pub endpoint: Option<Endpoint>,
    /// The login name for this protocol, where it differs.
    pub user: Option<String>,
}

/// An [`EndpointOverride`] as it is written: `host`, `port` and `tls` all or none.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EndpointFields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<UpstreamTls>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
}

impl TryFrom<EndpointFields> for EndpointOverride {
    type Error = &'static str;

    fn try_from(fields: EndpointFields) -> Result<Self, Self::Error> {
        let EndpointFields { host, port, tls, user } = fields;
        let endpoint = match (host, port, tls) {
            (Some(host), Some(port), Some(tls)) => Some(Endpoint { host, port, tls }),
            (None, None, None) if user.is_some() => None,
            _ => return Err("give host, port and tls, a user alone, or all of them"),
        };
        Ok(Self { endpoint, user })
    }
}

impl From<EndpointOverride> for EndpointFields {
    fn from(own: EndpointOverride) -> Self {
        let (host, port, tls) = own.endpoint.map_or((None, None, None), |endpoint| {
            (Some(endpoint.host), Some(endpoint.port), Some(endpoint.tls))
        });
        Self {
            host,
            port,
            tls,
            user: own.user,
        }
    }
}

/// The states of INTERFACE §4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountState {
    /// Added, its credential not used yet.
    New,
    /// Its credential worked when it was last used.
    Active,
    /// The grant is gone or the password refused: a person must act.
    NeedsAuthorization,
    /// Temporary trouble, or the OAuth app itself is refused.
    Failing,
    /// Switched off.
    Disabled,
}

/// The last error that concerned an account's credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountError {
    /// A short code: the provider's (`invalid_grant`), or ours (`timeout`).
    pub code: String,
    /// What was said and what it means, for an administrator.
    pub message: String,
    /// What to do about it, where that is known: a sentence without its full stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// When it happened.
    pub time: Timestamp,
}

/// Logins that failed one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// When the first of them did.
    pub since: Timestamp,
}

/// An account's secrets. Debug output shows none of them.
#[derive(Debug, Clone, Default)]
pub struct AccountSecrets {
    /// The OAuth2 grant.
    pub grant: Option<Grant>,
    /// The password, for a mailbox that takes one.
    pub password: Option<SecretString>,
}

/// An OAuth2 grant as it is kept.
#[derive(Debug, Clone, Default)]
pub struct Grant {
    /// The refresh token.
    pub refresh_token: Option<SecretString>,
    /// The OAuth access token.
    pub access_token: Option<SecretString>,
    /// When the access token was obtained.
    pub obtained: Option<Timestamp>,
    /// When the access token ends.
    pub expires: Option<Timestamp>,
    /// The scopes that were granted, parted by spaces (RFC 6749 §3.3), where the provider told.
    pub scope: Option<String>,
    /// Whether its refreshes name no scopes, for the provider has refused them where they were named. A new consent asks anew.
    pub names_no_scopes: bool,
    /// The login name that goes with the access token, where whoever gave it says so (an external program).
    pub user: Option<String>,
    /// When the grant itself ends, where the provider told: whatever is done, or unless it is renewed before.
    pub ends: Option<Timestamp>,
    /// When the provider first told that end, or moved it there. With `ends`, the life that the grant was given.
    pub ends_told: Option<Timestamp>,
    /// The end that somebody has been warned of.
    pub warned_of: Option<Timestamp>,
}

/// The SHA-256 of an access token, which names it everywhere. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 32]);

/// An access token as it is kept: never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    /// Its id.
    pub id: TokenId,
    /// The account it is for; `None` for a root token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// How it is written.
    #[serde(default, skip_serializing_if = "TokenForm::is_hex")]
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
    #[serde(default)]
    pub description: String,
    /// Where it may be used from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restrictions: Option<Restrictions>,
    /// The administrator's own note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was created.
    pub created: Timestamp,
}

impl TokenRecord {
    /// A token with nothing but what it is for, which anybody else has made than a token.
    pub fn new(id: TokenId, account: Option<String>, scopes: Vec<String>, now: Timestamp) -> Self {
        Self {
            id,
            account,
            form: TokenForm::Hex,
            parent: None,
            scopes,
            may_grant: Vec::new(),
            description: String::new(),
            restrictions: None,
            metadata: None,
            expires: None,
            created: now,
        }
    }
}

/// How an access token is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenForm {
    /// 64 lower-case hex digits.
    #[default]
    Hex,
    /// 20 digits of Crockford's base32, for devices whose password field is short.
    Short,
}

impl TokenForm {
    fn is_hex(&self) -> bool {
        *self == Self::Hex
    }
}

/// Where an access token may be used from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restrictions {
    /// The address ranges; empty: anywhere.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
}

/// An accepted use of an access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// When.
    pub time: Timestamp,
    /// From where.
    pub ip: IpAddr,
}

/// Something that happened with an account or a token (INTERFACE §4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageEvent {
    /// When.
    pub time: Timestamp,
    /// What.
    pub kind: UsageKind,
    /// Over which protocol; `None` for what concerns the account itself.
    pub protocol: Option<Protocol>,
    /// The account's id; `None` where a refused login named no account that exists.
    pub account: Option<String>,
    /// The access token's id; `None` where a refused login presented none that exists.
    pub token: Option<TokenId>,
    /// The client's address; `None` where there is no client.
    pub remote_address: Option<IpAddr>,
    /// What the client said it is (IMAP ID).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Why a login was refused or a session ended: a label of [`crate::fault::FaultKind`] or of an end. Of a change of state:
    /// the new state, and the code of the error that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many refused logins one event of kind `denied` stands for: those of one address, account and reason within a
    /// minute. Events of earlier versions stand for one each, and do not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Bytes from the client to the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes from the upstream to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// How long the session was logged in, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// The kinds of usage events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageKind {
    /// A client logged in.
    Login,
    /// A login was refused.
    Denied,
    /// A logged-in session ended.
    End,
    /// An account's state changed.
    State,
}

impl UsageKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Login, Self::Denied, Self::End, Self::State];

    /// Whose number is limited together with this kind's. Strangers cause refused logins as often as they like; what they
    /// cause must not drive out what the owners of accounts did.
    pub const fn class(self) -> UsageClass {
        match self {
            Self::Denied => UsageClass::Strangers,
            Self::Login | Self::End | Self::State => UsageClass::Owners,
        }
    }
}

/// Kinds of usage events that are swept together, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UsageClass {
    /// What those who hold an accepted token did, and what became of accounts.
    Owners,
    /// What anybody can cause.
    Strangers,
}

impl UsageClass {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Owners, Self::Strangers];

    /// How many events of this class may be kept where `usage_events_max` is configured. Those of strangers come on top.
    pub const fn events_max(self, usage_events_max: u64) -> u64 {
        match self {
            Self::Owners => usage_events_max,
            Self::Strangers => usage_events_max.div_ceil(DENIED_SHARE),
        }
    }
}

impl TokenId {
    /// Its first digits, by which people tell tokens apart and commands find them.
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        digits.truncate(TOKEN_ID_SHORT_DIGITS);
        digits
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        decode_hex(text)
            .map(Self)
            .ok_or_else(|| "expected 64 lower-case hex digits".to_owned())
    }
}

impl Serialize for TokenId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Reads 64 lower-case hex digits, the form of access tokens and of their ids.
pub fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes().as_chunks::<2>();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.0) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
