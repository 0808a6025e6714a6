//! From what a caller sends to the records that are kept: everything is checked here, and a refusal names the field.

use super::error::{ApiError, shown};
use super::types::{AccountChange, NewAccount, NewGrant, NewLink, NewRestrictions, NewToken};
use crate::access::{Scope, ScopeError};
use crate::authorize::Subject;
use crate::clock::Timestamp;
use crate::config::{Config, Endpoint, Provider, UpstreamTls, address_range, is_loopback_host};
use crate::limits::{
    ACCOUNT_ID_CHARS_MAX, CREDENTIAL_BYTES_MAX, HOST_BYTES_MAX, LABEL_CHARS_MAX, TOKEN_ADDRESSES_MAX,
    TOKEN_METADATA_BYTES_MAX, TOKEN_SCOPES_MAX,
};
use crate::secret::{ExposeSecret, Maker, SecretString, oddity};
use crate::shell;
use crate::store::{
    AccountRecord, AccountSecrets, AccountState, EndpointOverride, Grant, Restrictions, TokenId, TokenRecord,
};

/// The record and the secrets of a new account; `owner` is the account whose grant it is to share, if there is one of that name.
///
/// # Errors
/// 400 naming the field.
pub(super) fn new_account(
    new: NewAccount,
    owner: Option<AccountRecord>,
    config: &Config,
    now: Timestamp,
) -> Result<(AccountRecord, AccountSecrets), ApiError> {
    let provider = new.provider.ok_or_else(|| ApiError::field("provider", "is needed"))?;
    let mut record = AccountRecord {
        email: new.email,
        name: new.name,
        user: new.user,
        imap: new.imap,
        smtp: new.smtp,
        pop3: new.pop3,
        ..AccountRecord::new(new.account, provider, now)
    };
    check_new_account_id(&record.account)?;
    check_record(&record)?;
    let provider = known_provider(&record.provider, config)?;
    share(&mut record, new.oauth2.as_ref(), owner)?;
    let secrets = credentials(new.oauth2, new.password, Some(provider), now)?.unwrap_or_default();
    Ok((record, secrets))
}

/// What `record` becomes by `change`, and its new credentials, if any are given; `owner` as for [`new_account`].
///
/// # Errors
/// 400 naming the field.
pub(super) fn changed_account(
    mut record: AccountRecord,
    change: AccountChange,
    owner: Option<AccountRecord>,
    config: &Config,
    now: Timestamp,
) -> Result<(AccountRecord, Option<AccountSecrets>), ApiError> {
    if change.account.is_some_and(|account| account != record.account) {
        return Err(ApiError::field("account", "an account's id cannot be changed"));
    }
    set(&mut record.email, change.email);
    set(&mut record.name, change.name);
    set(&mut record.user, change.user);
    set(&mut record.imap, change.imap);
    set(&mut record.smtp, change.smtp);
    set(&mut record.pop3, change.pop3);
    if let Some(provider) = change.provider {
        known_provider(&provider, config)?;
        record.provider = provider;
    }
    check_record(&record)?;
    let provider = config.providers.get(&record.provider).map(AsRef::as_ref);
    // Credentials of its own take the place of another's.
    if change.oauth2.is_some() || change.password.is_some() {
        record.shares_grant_of = None;
    }
    share(&mut record, change.oauth2.as_ref(), owner)?;
    let secrets = credentials(change.oauth2, change.password, provider, now)?;
    let was_disabled = record.state == AccountState::Disabled;
    match change.disabled {
        Some(true) => record.state = AccountState::Disabled,
        Some(false) if was_disabled => record.state = AccountState::New,
        Some(false) | None => {}
    }
    if secrets.is_some() {
        record.last_error = None;
        if record.state != AccountState::Disabled {
            record.state = AccountState::New;
        }
    }
    record.updated = now;
    Ok((record, secrets))
}

/// Whose mailbox a link is for: that of the account that was found by the name, else of one that is yet to be added.
///
/// # Errors
/// 400 naming the field.
pub(super) fn link_subject(new: &NewLink, stored: Option<AccountRecord>, config: &Config) -> Result<Subject, ApiError> {
    if let Some(record) = stored {
        if new.email.is_some() && !is_same_address(new.email.as_deref(), record.email.as_deref()) {
            return Err(ApiError::field("email", "the account exists, with another address"));
        }
        let mut subject = Subject::of(&record);
        // Another provider than the account's is refused where the link is made.
        subject.provider = new.provider.clone().unwrap_or(subject.provider);
        return Ok(subject);
    }
    check_new_account_id(&new.account)?;
    if let Some(email) = &new.email {
        check_email(email)?;
    }
    let provider = new.provider.as_ref();
    let provider = provider.ok_or_else(|| {
        let name = shown(&new.account);
        ApiError::field("provider", format!("is missing, and there is no account '{name}'"))
    })?;
    known_provider(provider, config)?;
    Ok(Subject {
        account: new.account.clone(),
        email: new.email.clone(),
        provider: provider.clone(),
    })
}

fn is_same_address(one: Option<&str>, other: Option<&str>) -> bool {
    one.map(str::to_lowercase) == other.map(str::to_lowercase)
}

/// What of a change takes a root caller: everything that decides where the account's credential is sent, or whose it is.
/// Else whoever holds an account's own `api` token could have its grant sent to a host of theirs.
pub(super) fn needs_root(change: &AccountChange) -> bool {
    change.email.is_some()
        || change.provider.is_some()
        || change.user.is_some()
        || change.imap.is_some()
        || change.smtp.is_some()
        || change.pop3.is_some()
        || change.disabled.is_some()
        || change
            .oauth2
            .as_ref()
            .is_some_and(|oauth2| oauth2.shares_grant_of.is_some())
}

/// The record of a new token of `account` (`None`: a root token), which gets its `id` from whoever makes it.
///
/// # Errors
/// 400 naming the field.
pub(super) fn new_token(
    new: NewToken,
    id: TokenId,
    account: Option<&AccountRecord>,
    config: &Config,
    now: Timestamp,
) -> Result<TokenRecord, ApiError> {
    let scopes = scopes(&new)?;
    if let Some(account) = account {
        check_served(&scopes, account, config)?;
    }
    let may_grant = may_grant(&new, &scopes)?;
    if let Some(expires) = new.expires.filter(|expires| *expires <= now) {
        return Err(ApiError::field(
            "expires",
            format!("{expires} is past; give a time to come, or none for a token without an end"),
        ));
    }
    let restrictions = new.restrictions.as_ref().map(restrictions).transpose()?;
    let description = new.description.unwrap_or_default();
    check_label("description", &description)?;
    if let Some(metadata) = &new.metadata
        && metadata.to_string().len() > TOKEN_METADATA_BYTES_MAX
    {
        return Err(ApiError::field(
            "metadata",
            format!("may have at most {TOKEN_METADATA_BYTES_MAX} bytes"),
        ));
    }
    Ok(TokenRecord {
        form: new.form.unwrap_or_default(),
        may_grant,
        description,
        restrictions,
        metadata: new.metadata,
        expires: new.expires,
        ..TokenRecord::new(id, account.map(|account| account.account.clone()), scopes, now)
    })
}

fn scopes(new: &NewToken) -> Result<Vec<String>, ApiError> {
    let root = vec![Scope::All.name().to_owned()];
    let given = match (&new.account, &new.scopes) {
        (None, None) => return Ok(root),
        (None, Some(scopes)) if *scopes == root => return Ok(root),
        (None, Some(_)) => {
            return Err(ApiError::field(
                "scopes",
                "a token without an account is a root token, whose scopes are [\"*\"]",
            ));
        }
        (Some(_), given) => given.as_deref().unwrap_or_default(),
    };
    if given.is_empty() || given.len() > TOKEN_SCOPES_MAX {
        return Err(ApiError::field(
            "scopes",
            format!("give 1 to {TOKEN_SCOPES_MAX} of: {SCOPES_OF_ACCOUNTS}"),
        ));
    }
    names("scopes", given)
}

/// The scopes that a token of an account may give to others.
fn may_grant(new: &NewToken, scopes: &[String]) -> Result<Vec<String>, ApiError> {
    let refused = |problem: &str| Err(ApiError::field(MAY_GRANT, problem));
    let given = new.may_grant.as_deref().unwrap_or_default();
    if given.is_empty() {
        return Ok(Vec::new());
    }
    if new.account.is_none() {
        return refused("a root token may give everything");
    }
    if !Scope::Api.is_granted_by(scopes) {
        return refused("is for tokens with the scope api, which make others");
    }
    if given.len() > TOKEN_SCOPES_MAX {
        return refused(&format!("give at most {TOKEN_SCOPES_MAX} of: {SCOPES_OF_ACCOUNTS}"));
    }
    names(MAY_GRANT, given)
}

/// Refuses a scope whose protocol the account's mailbox does not have. Where its provider is not configured nothing is known
/// of that.
fn check_served(scopes: &[String], account: &AccountRecord, config: &Config) -> Result<(), ApiError> {
    let Some(provider) = config.providers.get(&account.provider) else {
        return Ok(());
    };
    for (index, scope) in scopes.iter().enumerate() {
        let Some(protocol) = scope.parse().ok().and_then(Scope::protocol) else {
            continue;
        };
        let own = account.own(protocol).and_then(|own| own.endpoint.as_ref());
        if own.is_none() && provider.endpoint(protocol).is_none() {
            let (upper, lower) = (protocol.name().to_uppercase(), protocol.name());
            return Err(ApiError::field(
                &format!("scopes[{index}]"),
                format!(
                    "the provider '{}' has no {upper} for this mailbox; leave '{scope}' out, or give the account a server \
                     of its own: portreeve account update {} --{lower} HOST:PORT",
                    provider.name,
                    shell::word(&account.account)
                ),
            ));
        }
    }
    Ok(())
}

/// The scopes `given` in a `field`, each once.
fn names(field: &str, given: &[String]) -> Result<Vec<String>, ApiError> {
    let mut scopes: Vec<String> = Vec::with_capacity(given.len());
    for (index, scope) in given.iter().enumerate() {
        let field = || format!("{field}[{index}]");
        match scope.parse() {
            Ok(Scope::All) => {
                return Err(ApiError::field(
                    &field(),
                    "'*' is for root tokens, which have no account",
                ));
            }
            Ok(known) if scopes.iter().any(|taken| taken == known.name()) => {}
            Ok(known) => scopes.push(known.name().to_owned()),
            Err(error @ (ScopeError::Unknown(_) | ScopeError::Narrowed(_))) => {
                return Err(ApiError::field(&field(), error));
            }
        }
    }
    Ok(scopes)
}

fn restrictions(new: &NewRestrictions) -> Result<Restrictions, ApiError> {
    if new.addresses.len() > TOKEN_ADDRESSES_MAX {
        return Err(ApiError::field(
            "restrictions.addresses",
            format!("may have at most {TOKEN_ADDRESSES_MAX} entries"),
        ));
    }
    let addresses = new.addresses.iter().enumerate().map(|(index, text)| {
        address_range(text).ok_or_else(|| {
            ApiError::field(
                &format!("restrictions.addresses[{index}]"),
                format!(
                    "'{}' is neither an address nor a range such as 192.0.2.0/24",
                    text.escape_debug()
                ),
            )
        })
    });
    Ok(Restrictions {
        addresses: addresses.collect::<Result<_, _>>()?,
    })
}

fn credentials(
    oauth2: Option<NewGrant>,
    password: Option<SecretString>,
    provider: Option<&Provider>,
    now: Timestamp,
) -> Result<Option<AccountSecrets>, ApiError> {
    match (oauth2, password) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(ApiError::field(
            "password",
            "give either oauth2 or a password, not both",
        )),
        (None, Some(password)) => {
            check_credential("password", &password, Maker::Person)?;
            Ok(Some(AccountSecrets {
                grant: None,
                password: Some(password),
            }))
        }
        (Some(new), None) => {
            if provider.is_some_and(|provider| provider.oauth.is_none()) {
                return Err(ApiError::field("oauth2", "the provider takes passwords only"));
            }
            if new.shares_grant_of.is_some() {
                check_sharing_alone(&new)?;
                return Ok(Some(AccountSecrets::default()));
            }
            Ok(Some(AccountSecrets {
                grant: Some(grant(new, now)?),
                password: None,
            }))
        }
    }
}

/// Whoever shares a grant brings none.
fn check_sharing_alone(new: &NewGrant) -> Result<(), ApiError> {
    if new.refresh_token.is_some() || new.access_token.is_some() || new.expires.is_some() {
        return Err(ApiError::field(
            SHARES_GRANT_OF,
            "stands alone; the grant is the other account's",
        ));
    }
    Ok(())
}

/// Makes `record` share the grant that `oauth2` names.
fn share(record: &mut AccountRecord, oauth2: Option<&NewGrant>, owner: Option<AccountRecord>) -> Result<(), ApiError> {
    let Some(named) = oauth2.and_then(|oauth2| oauth2.shares_grant_of.as_ref()) else {
        return Ok(());
    };
    let refused = |problem: String| Err(ApiError::field(SHARES_GRANT_OF, problem));
    let named = named.escape_debug();
    match owner {
        None => refused(format!("there is no account '{named}'")),
        Some(owner) if owner.account == record.account => refused("an account cannot share its own grant".to_owned()),
        Some(owner) if owner.provider != record.provider => refused(format!(
            "'{named}' is at the provider '{}', this account at '{}'",
            owner.provider, record.provider
        )),
        Some(AccountRecord {
            shares_grant_of: Some(first),
            ..
        }) => refused(format!(
            "'{named}' shares a grant itself; name '{}'",
            first.escape_debug()
        )),
        Some(owner) => {
            record.shares_grant_of = Some(owner.account);
            Ok(())
        }
    }
}

fn grant(new: NewGrant, now: Timestamp) -> Result<Grant, ApiError> {
    if let Some(token) = &new.refresh_token {
        check_credential("oauth2.refreshToken", token, Maker::Machine)?;
    }
    if let Some(token) = &new.access_token {
        check_credential("oauth2.accessToken", token, Maker::Machine)?;
    }
    match (&new.refresh_token, &new.access_token, new.expires) {
        (None, None, _) => Err(ApiError::field(
            "oauth2",
            "give a refreshToken, an accessToken or both, or sharesGrantOf alone",
        )),
        (_, None, Some(_)) => Err(ApiError::field("oauth2.expires", "belongs to an accessToken")),
        (_, access_token, _) => Ok(Grant {
            obtained: access_token.is_some().then_some(now),
            refresh_token: new.refresh_token,
            access_token: new.access_token,
            expires: new.expires,
            ..Grant::default()
        }),
    }
}

fn known_provider<'a>(name: &str, config: &'a Config) -> Result<&'a Provider, ApiError> {
    config.providers.get(name).map(AsRef::as_ref).ok_or_else(|| {
        let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "none: add [provider.NAME] to the configuration".to_owned()
        } else {
            known.join(", ")
        };
        ApiError::field(
            "provider",
            format!("'{}' is not configured; known: {known}", name.escape_debug()),
        )
    })
}

/// The id of an account that is yet to be. The reply to a login names it where a mail program looks for a response code.
fn check_new_account_id(id: &str) -> Result<(), ApiError> {
    check_account_id(id)?;
    match id.starts_with('[') {
        true => Err(ApiError::field(
            "account",
            "may not begin with '[': mail programs would take it for a response code",
        )),
        false => Ok(()),
    }
}

fn check_account_id(id: &str) -> Result<(), ApiError> {
    let length = id.chars().count();
    let is_allowed =
        (1..=ACCOUNT_ID_CHARS_MAX).contains(&length) && !id.chars().any(char::is_control) && id.trim() == id;
    if is_allowed {
        Ok(())
    } else {
        Err(ApiError::field(
            "account",
            format!("1 to {ACCOUNT_ID_CHARS_MAX} characters, no control characters, no space at either end"),
        ))
    }
}

fn check_record(record: &AccountRecord) -> Result<(), ApiError> {
    if let Some(email) = &record.email {
        check_email(email)?;
    }
    if let Some(name) = &record.name {
        check_label("name", name)?;
    }
    if let Some(user) = &record.user {
        check_login_name("user", user)?;
    }
    for (field, own) in [("imap", &record.imap), ("smtp", &record.smtp), ("pop3", &record.pop3)] {
        if let Some(own) = own {
            check_override(field, own)?;
        }
    }
    Ok(())
}

/// Checks that a text can be an e-mail address.
///
/// # Errors
/// 400 naming `email`.
pub(super) fn check_email(email: &str) -> Result<(), ApiError> {
    check_label("email", email)?;
    let is_address = email
        .rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if is_address && !email.chars().any(char::is_whitespace) {
        Ok(())
    } else {
        Err(ApiError::field("email", "expected an address such as user@example.com"))
    }
}

fn check_override(field: &str, own: &EndpointOverride) -> Result<(), ApiError> {
    if let Some(endpoint) = &own.endpoint {
        check_endpoint(field, endpoint)?;
    }
    match &own.user {
        Some(user) => check_login_name(&format!("{field}.user"), user),
        None => Ok(()),
    }
}

fn check_endpoint(field: &str, endpoint: &Endpoint) -> Result<(), ApiError> {
    let host = &endpoint.host;
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(|c| c.is_ascii_graphic()) {
        return Err(ApiError::field(
            &format!("{field}.host"),
            "expected a host name or an address",
        ));
    }
    if endpoint.port == 0 {
        return Err(ApiError::field(&format!("{field}.port"), "expected 1 to 65535"));
    }
    if endpoint.tls == UpstreamTls::Off && !is_loopback_host(host) {
        return Err(ApiError::field(
            &format!("{field}.tls"),
            "off is for loopback hosts only; use implicit or starttls",
        ));
    }
    Ok(())
}

/// A login name goes into SASL messages, whose separators are control characters.
fn check_login_name(field: &str, name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::field(field, "must not be empty"));
    }
    check_label(field, name)
}

fn check_label(field: &str, label: &str) -> Result<(), ApiError> {
    if label.chars().count() > LABEL_CHARS_MAX {
        return Err(ApiError::field(
            field,
            format!("may have at most {LABEL_CHARS_MAX} characters"),
        ));
    }
    if label.chars().any(char::is_control) {
        return Err(ApiError::field(field, "must not contain control characters"));
    }
    Ok(())
}

/// A NUL would end a PLAIN message early, and a line break would end a command (RFC 4616 §2): none is part of a credential. Nor
/// is what was copied with it: no upstream would say more of that than "wrong password", or "invalid grant".
fn check_credential(field: &str, credential: &SecretString, made_by: Maker) -> Result<(), ApiError> {
    let text = credential.expose_secret();
    if text.is_empty() || text.len() > CREDENTIAL_BYTES_MAX {
        return Err(ApiError::field(
            field,
            format!("expected 1 to {CREDENTIAL_BYTES_MAX} bytes"),
        ));
    }
    oddity(text, made_by).map_or(Ok(()), |oddity| Err(ApiError::field(field, oddity)))
}

fn set<T>(target: &mut Option<T>, change: Option<Option<T>>) {
    if let Some(value) = change {
        *target = value;
    }
}

/// The scopes that a token of an account may have.
const MAY_GRANT: &str = "mayGrant";

const SCOPES_OF_ACCOUNTS: &str = "imap-proxy, smtp, pop3, api, metrics";

const SHARES_GRANT_OF: &str = "oauth2.sharesGrantOf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_ids_are_bounded_and_clean() {
        let longest = "ä".repeat(ACCOUNT_ID_CHARS_MAX);
        for id in ["a", "user@example.com", "Größe 1", "a/b?c", &longest] {
            check_account_id(id).unwrap();
        }
        let too_long = format!("{longest}a");
        for id in ["", " a", "a ", "a\nb", "a\u{85}b", "\u{a0}a", &too_long] {
            assert!(check_account_id(id).is_err(), "{id:?}");
        }
        for id in ["[x", "[ALERT] x"] {
            check_account_id(id).unwrap();
            let refusal = format!("{:?}", check_new_account_id(id).unwrap_err());
            assert!(refusal.contains("response code"), "{refusal}");
        }
        check_new_account_id("x[y]").unwrap();
    }

    #[test]
    fn ranges_and_single_addresses_are_read_as_clients_are_seen() {
        for (text, expected) in [
            ("127.0.0.0/8", Some("127.0.0.0/8")),
            ("127.0.0.1", Some("127.0.0.1/32")),
            ("::1", Some("::1/128")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("::ffff:192.0.2.0/120", Some("192.0.2.0/24")),
            ("::ffff:192.0.2.1", Some("192.0.2.1/32")),
            ("127.0.0.0/33", None),
            ("localhost", None),
            ("", None),
        ] {
            let read = address_range(text).map(|range| range.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_endpoint_in_clear_is_for_loopback_only() {
        let endpoint = |host: &str, tls| Endpoint {
            host: host.to_owned(),
            port: 993,
            tls,
        };
        check_endpoint("imap", &endpoint("127.0.0.2", UpstreamTls::Off)).unwrap();
        check_endpoint("imap", &endpoint("localhost", UpstreamTls::Off)).unwrap();
        check_endpoint("imap", &endpoint("imap.example.com", UpstreamTls::Implicit)).unwrap();
        let refused = check_endpoint("imap", &endpoint("imap.example.com", UpstreamTls::Off)).unwrap_err();
        assert!(refused.message.starts_with("imap.tls: "), "{refused}");
        assert!(check_endpoint("imap", &endpoint("two words", UpstreamTls::Implicit)).is_err());
    }

    #[test]
    fn a_credential_that_could_end_a_command_early_is_refused() {
        let check = |text: &str, made_by| check_credential("password", &text.to_owned().into(), made_by);
        for text in ["", "a\0b", "a\r\nb"] {
            assert!(check(text, Maker::Person).is_err(), "{text:?}");
        }
        check("pass word\u{7f}ü", Maker::Person).unwrap();
    }

    #[test]
    fn a_credential_with_what_was_copied_beside_it_is_refused_by_its_field() {
        let new = |oauth2: serde_json::Value| serde_json::from_value::<NewGrant>(oauth2).unwrap();
        let refusal = |oauth2| grant(new(oauth2), Timestamp::EPOCH).unwrap_err().message;
        for (token, oddity) in [
            ("\"1//0g\"", "stands in quotes; leave them out"),
            (
                "\u{feff}1//0g",
                "begins with a byte order mark; save it as UTF-8 without one",
            ),
            ("1//0g\n", "has a line end at its end"),
            (" 1//0g", "has a space at its beginning"),
        ] {
            let expected = format!("oauth2.refreshToken: {oddity}");
            assert_eq!(refusal(serde_json::json!({"refreshToken": token})), expected);
            let expected = format!("oauth2.accessToken: {oddity}");
            assert_eq!(refusal(serde_json::json!({"accessToken": token})), expected);
        }
        let password = |text: &str| credentials(None, Some(text.to_owned().into()), None, Timestamp::EPOCH);
        let refused = password("secret\n").unwrap_err();
        assert_eq!(refused.message, "password: has a line end at its end");
        password(" \"sec ret\" ").unwrap();
    }
}
