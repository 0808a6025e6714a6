//! What a supervisor holds in memory: the account's record, its secrets, and how it comes by access tokens. Pure.

use crate::account::keeping;
use crate::account::refresh::{Renewal, TokenTimes};
use crate::account::writes::{Credentials, Replacement};
use crate::clock::Timestamp;
use crate::config::{Config, GrantType};
use crate::limits::OAUTH_TOKEN_LIFE_DEFAULT;
use crate::metrics::names::state_label;
use crate::oauth::Basis;
use crate::proto::Protocol;
use crate::secret::{ExposeSecret, SecretString, duplicate};
use crate::store::{AccountError, AccountRecord, AccountSecrets, AccountState, Grant};

/// An account's record and secrets.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) record: AccountRecord,
    pub(super) secrets: AccountSecrets,
    pub(super) way: Way,
}

/// How an account comes by access tokens. The configuration says so, and may come to say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::account) enum Way {
    /// By a grant of its own, if it has one.
    Grant,
    /// By its provider's app, a service account or an external program: it holds nothing itself.
    App,
    /// By its password.
    Password,
    /// From the account whose grant it shares.
    Sharing,
}

/// The code of an error that an upstream, not the token endpoint, is the cause of.
pub(in crate::account) const UPSTREAM_REFUSED: &str = "upstream_refused";

/// The code of an error that an upstream is the cause of for now.
pub(in crate::account) const UPSTREAM_UNAVAILABLE: &str = "upstream_unavailable";

/// The code of an error that is a setting of the upstream's for one protocol, while the credential itself is good.
pub(super) fn setting_code(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "imap_refused",
        Protocol::Smtp => "smtp_refused",
        Protocol::Pop3 => "pop3_refused",
    }
}

/// Whether `code` is of an error that an upstream is the cause of, and no token endpoint.
pub(in crate::account) fn is_upstreams(code: &str) -> bool {
    let mut protocols = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3].into_iter();
    matches!(code, UPSTREAM_REFUSED | UPSTREAM_UNAVAILABLE) || protocols.any(|protocol| code == setting_code(protocol))
}

impl Way {
    /// The way of `record`, as `config` has it.
    pub(in crate::account) fn of(record: &AccountRecord, config: &Config) -> Self {
        if record.shares_grant_of.is_some() {
            return Self::Sharing;
        }
        let provider = config.providers.get(&record.provider);
        match provider
            .and_then(|provider| provider.oauth.as_ref())
            .map(|app| &app.grant)
        {
            None | Some(GrantType::Code | GrantType::Device) => Self::Grant,
            Some(GrantType::ClientCredentials | GrantType::ServiceAccount { .. } | GrantType::External(_)) => Self::App,
            Some(GrantType::Password) => Self::Password,
        }
    }
}

impl Held {
    pub(super) fn new(record: AccountRecord, secrets: AccountSecrets, config: &Config) -> Self {
        let way = Way::of(&record, config);
        Self { record, secrets, way }
    }

    /// Whether the mailbox is reached with OAuth tokens rather than a password.
    pub(super) fn uses_oauth(&self) -> bool {
        let has_refresh_token = self.refresh_token().is_some();
        match self.way {
            Way::Grant => has_refresh_token || (self.access_token().is_some() && self.password().is_none()),
            Way::App => self.password().is_none(),
            Way::Password => has_refresh_token || self.access_token().is_some() || self.password().is_some(),
            Way::Sharing => true,
        }
    }

    /// Whether the account's own OAuth tokens are handed out: neither a password nor another's.
    pub(super) fn has_tokens(&self) -> bool {
        self.uses_oauth() && self.way != Way::Sharing
    }

    pub(super) fn password(&self) -> Option<&SecretString> {
        self.secrets.password.as_ref()
    }

    pub(super) fn access_token(&self) -> Option<&SecretString> {
        self.secrets.grant.as_ref()?.access_token.as_ref()
    }

    pub(super) fn refresh_token(&self) -> Option<&SecretString> {
        self.secrets.grant.as_ref()?.refresh_token.as_ref()
    }

    pub(super) fn renewal(&self) -> Renewal {
        let is_possible = match self.way {
            Way::Grant => self.refresh_token().is_some(),
            Way::App => self.password().is_none(),
            Way::Password => self.refresh_token().is_some() || self.password().is_some(),
            Way::Sharing => false,
        };
        match is_possible {
            true => Renewal::Possible,
            false => Renewal::Impossible,
        }
    }

    /// The access token's times. What an administrator left out is assumed: obtained now, good for an hour.
    pub(super) fn token_times(&self, now: Timestamp) -> Option<TokenTimes> {
        self.access_token()?;
        let grant = self.secrets.grant.as_ref()?;
        let obtained = grant.obtained.unwrap_or(now);
        let expires = grant.expires.unwrap_or(obtained.after(OAUTH_TOKEN_LIFE_DEFAULT));
        if obtained > now.after(keeping::CLOCK_ERROR_MAX) && self.renewal() == Renewal::Possible {
            // Written while the clock was wrong: when it ends is anybody's guess, and a new one can be had.
            return Some(TokenTimes {
                obtained: now,
                expires: now,
            });
        }
        Some(TokenTimes { obtained, expires })
    }

    /// The login name that came with the access token.
    pub(super) fn token_user(&self) -> Option<&str> {
        self.secrets.grant.as_ref()?.user.as_deref()
    }

    /// When the grant ends, if that was ever told.
    pub(super) fn grant_ends(&self) -> Option<Timestamp> {
        self.secrets.grant.as_ref()?.ends
    }

    /// The end of a grant that is to be told at `now`: of one that may still be used, to somebody who can do something.
    pub(super) fn ending(&self, now: Timestamp) -> Option<Timestamp> {
        let is_alive = !matches!(
            self.record.state,
            AccountState::NeedsAuthorization | AccountState::Disabled
        );
        let grant = self
            .secrets
            .grant
            .as_ref()
            .filter(|_| is_alive && self.way == Way::Grant)?;
        keeping::ending(grant, now)
    }

    /// When the access token ends, if that was ever told: the same whether a supervisor runs or the store is asked.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.secrets.grant.as_ref()?.expires
    }

    /// Whether `other` has the refresh token that is held.
    pub(super) fn has_refresh_token_of(&self, other: &AccountSecrets) -> bool {
        let other = other.grant.as_ref().and_then(|grant| grant.refresh_token.as_ref());
        match (self.refresh_token(), other) {
            (Some(mine), Some(other)) => mine.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }

    /// What a new access token is obtained with.
    pub(super) fn basis(&self) -> Basis {
        let record = &self.record;
        let user = record
            .user
            .as_ref()
            .or(record.email.as_ref())
            .unwrap_or(&record.account);
        let grant = self.secrets.grant.as_ref();
        Basis {
            account: record.account.clone(),
            user: user.clone(),
            refresh_token: self.refresh_token().map(duplicate),
            password: self.password().map(duplicate),
            access_token: self.access_token().map(duplicate),
            granted: grant
                .and_then(|grant| grant.scope.as_deref())
                .map(|scope| scope.split_ascii_whitespace().map(str::to_owned).collect()),
            names_no_scopes: grant.is_some_and(|grant| grant.names_no_scopes),
        }
    }

    /// Takes over the grant that a refresh brought, and says from when to when its access token is good.
    pub(super) fn take_grant(&mut self, mut grant: Grant, now: Timestamp) -> Option<TokenTimes> {
        // Whoever was warned while the refresh was under way is not warned again.
        let warned_of = self.secrets.grant.as_ref().and_then(|held| held.warned_of);
        grant.warned_of = grant.warned_of.max(warned_of);
        self.secrets.grant = Some(grant);
        self.token_times(now)
    }

    /// The record as it would be after `replacement`, as things are now.
    pub(super) fn after(&self, replacement: &Replacement) -> AccountRecord {
        self.merged(replacement.record.clone(), &replacement.credentials)
    }

    /// Takes over a replacement.
    pub(super) fn replace(&mut self, record: AccountRecord, credentials: Credentials) {
        self.record = self.merged(record, &credentials);
        match credentials {
            Credentials::Kept => {}
            Credentials::New(secrets) => self.secrets = secrets,
            Credentials::NewBesideGrant(secrets) => self.secrets.password = secrets.password,
        }
    }

    /// Takes note of a state. Says whether it is worth writing: not for the same error at another time. What an
    /// administrator disabled stays so.
    pub(super) fn note(&mut self, state: AccountState, error: Option<AccountError>) -> bool {
        if self.record.state == AccountState::Disabled {
            return false;
        }
        let code = |error: Option<&AccountError>| error.map(|error| error.code.clone());
        let is_other = self.record.state != state || code(self.record.last_error.as_ref()) != code(error.as_ref());
        if is_other {
            let (account, provider) = (&self.record.account, &self.record.provider);
            let (code, message) = error
                .as_ref()
                .map_or_else(Default::default, |error| (error.code.as_str(), error.message.as_str()));
            let remedy = error.as_ref().and_then(|error| error.remedy.as_deref());
            tracing::info!(%account, %provider, state = state_label(state), code, message, remedy, "account state changed");
        }
        self.record.state = state;
        self.record.last_error = error;
        is_other
    }

    /// Whether the last error is an upstream's.
    pub(super) fn has_upstreams_error(&self) -> bool {
        let error = self.record.last_error.as_ref();
        error.is_some_and(|error| is_upstreams(&error.code))
    }

    /// The last error, for the detail of a fault.
    pub(super) fn last_error(&self) -> String {
        match &self.record.last_error {
            Some(AccountError {
                code,
                message,
                remedy: Some(remedy),
                ..
            }) => format!("{code}: {message}. {remedy}"),
            Some(AccountError { code, message, .. }) => format!("{code}: {message}"),
            None => String::new(),
        }
    }

    /// A record from outside with what the supervisor knows better: the state and the error, unless new credentials or a
    /// change between enabled and disabled make them obsolete. New credentials are active already if they come with that state,
    /// for a login has proved them.
    fn merged(&self, mut record: AccountRecord, credentials: &Credentials) -> AccountRecord {
        let was_disabled = self.record.state == AccountState::Disabled;
        let is_disabled = record.state == AccountState::Disabled;
        let has_new = !matches!(credentials, Credentials::Kept);
        if has_new || (was_disabled && !is_disabled) {
            (record.last_error, record.failures) = (None, None);
            let is_proved = has_new && record.state == AccountState::Active;
            if !is_disabled && !is_proved {
                record.state = AccountState::New;
            }
        } else {
            record.last_error.clone_from(&self.record.last_error);
            record.failures = self.record.failures;
            if !is_disabled {
                record.state = self.record.state;
            }
        }
        record
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::Grant;

    #[test]
    fn a_token_that_was_written_by_a_clock_ahead_is_not_believed_to_last() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let with = |obtained: Timestamp, refresh_token: Option<&str>| Held {
            record: AccountRecord::new("ada".to_owned(), "example".to_owned(), now),
            secrets: AccountSecrets {
                grant: Some(Grant {
                    refresh_token: refresh_token.map(Into::into),
                    access_token: Some("access".into()),
                    obtained: Some(obtained),
                    expires: Some(obtained.after(OAUTH_TOKEN_LIFE_DEFAULT)),
                    ..Grant::default()
                }),
                password: None,
            },
            way: Way::Grant,
        };
        let day = Duration::from_secs(86_400);
        let ends = |held: Held| held.token_times(now).unwrap().expires;
        assert_eq!(ends(with(now.after(day), Some("refresh"))), now);
        assert!(ends(with(now.before(Duration::from_secs(60)), Some("refresh"))) > now);
        assert!(ends(with(now.after(day), None)) > now, "there is no other");
    }
}
