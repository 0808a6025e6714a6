//! `portreeve account import`: takes over the accounts of email-oauth2-proxy, with their grants where the old password is
//! given.
//!
//! ```text
//! file ──> format ──> accounts ──> provider ──> unlock ──> POST /v1/account ──> one row each
//!                        └──────> table (--print-config)
//! ```
//! Each account stands for itself: one that makes no sense, whose password is wrong or that the daemon refuses becomes a
//! failed row, and the others go on. Nothing of a secret is printed, and what is opened is wiped once the daemon has it.

mod format;
mod provider;
mod report;
mod table;
mod unlock;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};
use zeroize::{Zeroize as _, Zeroizing};

use super::daemon::answer;
use super::output::{clean, wait};
use super::value::secret;
use super::{Exit, Failure, Globals};
use crate::admin::client::{Client, ClientError, segment};
use crate::admin::types::{AccountCreated, AccountView, ProviderView, StatusView};
use crate::limits::IMPORT_FILE_BYTES_MAX;
use crate::secret::{ExposeSecret as _, Maker, SecretString, duplicate};
use format::{Foreign, ForeignAccount, SealedGrant, Settings};
use report::{Outcome, Row};

/// `account import`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose file it is
    #[arg(long, value_enum, value_name = "PROGRAM")]
    pub from: Source,
    /// Its configuration; the program must not run on beside portreeve with the same grants
    pub file: PathBuf,
    /// File that holds the tokens, where that program was run with --cache-store
    #[arg(long, value_name = "FILE")]
    pub cache_store: Option<PathBuf>,
    /// File with the password that the mail programs used, of all accounts; - for standard input. Without it each is asked
    /// for on a terminal
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Provider of the configuration for all accounts, instead of the one that each one's token URL tells
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// Give the grants to accounts that exist, too
    #[arg(long)]
    pub replace: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print first the provider tables that the daemon's configuration needs
    #[arg(long)]
    pub print_config: bool,
}

/// A program whose accounts can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// email-oauth2-proxy, whose file is called emailproxy.config
    Emailproxy,
}

/// Runs `account import`.
///
/// # Errors
/// 2 where a file cannot be opened or the provider is unknown, 69 without a daemon; 1 where the file is of another kind, or
/// any account failed.
pub(super) async fn run(client: &Client, arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let Source::Emailproxy = arguments.from;
    let foreign = read(&arguments)?;
    if arguments.print_config {
        for table in table::tables(&foreign) {
            report::print_provider_table(&table, globals.json)?;
        }
    }
    let status = answer(client.read::<StatusView>("/v1/status", &[])).await?.value;
    if let Some(name) = &arguments.provider {
        require_provider(name, &status.providers)?;
    }
    let password = match &arguments.password_file {
        Some(path) => Passwords::Same(secret(path, "old password", Maker::Person)?.into()),
        None if io::stdin().is_terminal() => Passwords::Asked,
        None => Passwords::None,
    };
    let import = Import {
        client,
        providers: &status.providers,
        password,
        arguments: &arguments,
    };
    let mut rows = Vec::new();
    for account in &foreign.accounts {
        rows.push(import.account(account).await);
    }
    rows.extend(foreign.catch_alls.iter().map(|name| Row {
        account: name.clone(),
        provider: None,
        outcome: Outcome::Skipped,
        has_grant: false,
        message: "settings that other accounts fall back to, no mailbox".to_owned(),
    }));
    report::print_rows(&rows, globals.json)?;
    if rows.iter().any(|row| row.outcome == Outcome::Failed) {
        return Err(Failure::told(Exit::Failed));
    }
    Ok(())
}

fn read(arguments: &Args) -> Result<Foreign, Failure> {
    let config = read_file(&arguments.file)?;
    let cache = arguments.cache_store.as_deref().map(read_file).transpose()?;
    let foreign = format::read(&config, cache.as_deref().map(String::as_str));
    foreign.map_err(|error| Failure::failed(format!("{} {error}", arguments.file.display())))
}

fn read_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let place = path.display();
    let mut bytes = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(IMPORT_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::usage(format!("cannot read {place}: {error}")))?;
    if bytes.len() as u64 > IMPORT_FILE_BYTES_MAX {
        return Err(Failure::failed(format!(
            "{place} is longer than {IMPORT_FILE_BYTES_MAX} bytes"
        )));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::failed(format!("{place} is not UTF-8"))),
    }
}

fn require_provider(name: &str, providers: &[ProviderView]) -> Result<(), Failure> {
    if providers.iter().any(|provider| provider.name == name) {
        return Ok(());
    }
    let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
    Err(Failure::usage(format!(
        "no provider is called {}; the daemon has {}",
        clean(name),
        names.join(", ")
    )))
}

/// Where the old passwords come from.
enum Passwords {
    /// All accounts have this one.
    Same(SecretString),
    /// A person types each.
    Asked,
    /// Nobody knows them.
    None,
}

/// What importing an account takes.
struct Import<'a> {
    client: &'a Client,
    providers: &'a [ProviderView],
    password: Passwords,
    arguments: &'a Args,
}

/// What happened, in words, or why nothing did.
type Told = (Outcome, bool, String);

impl Import<'_> {
    async fn account(&self, account: &ForeignAccount) -> Row {
        let mut provider = None;
        let (outcome, has_grant, message) = match &account.settings {
            Ok(settings) => match self.provider(settings) {
                Ok(chosen) => {
                    provider = Some(chosen.name.clone());
                    self.known_account(&account.name, settings, chosen).await
                }
                Err(message) => Err(message),
            },
            Err(problem) => Err(problem.to_string()),
        }
        .unwrap_or_else(|message| (Outcome::Failed, false, message));
        Row {
            account: account.name.clone(),
            provider,
            outcome,
            has_grant,
            message,
        }
    }

    fn provider(&self, settings: &Settings) -> Result<&ProviderView, String> {
        let named = self.arguments.provider.as_ref();
        match named.and_then(|name| self.providers.iter().find(|provider| provider.name == *name)) {
            Some(named) => Ok(named),
            None => provider::choose(&settings.app, self.providers),
        }
    }

    async fn known_account(&self, name: &str, settings: &Settings, provider: &ProviderView) -> Result<Told, String> {
        let path = format!("/v1/account/{}", segment(name));
        let found = wait("waiting for the daemon", self.client.read::<AccountView>(&path, &[])).await;
        let exists = match found {
            Ok(_) => true,
            Err(ClientError::Refused(refusal)) if refusal.status_code == 404 => false,
            Err(error) => return Err(error.to_string()),
        };
        if exists && !self.arguments.replace {
            return Ok((
                Outcome::Skipped,
                false,
                "exists; --replace gives it the grant".to_owned(),
            ));
        }
        if let Some(difference) = provider::difference(&settings.app, provider) {
            return Err(format!(
                "{difference}: configure that app (--print-config), or choose another provider with --provider"
            ));
        }
        let grant = match &settings.grant {
            Some(sealed) => self.open(name, sealed).await?,
            None => None,
        };
        if grant.is_some() && !provider::is_same_app(&settings.app, provider) {
            return Err(other_app(settings, provider));
        }
        match (exists, grant) {
            (true, None) => Ok((
                Outcome::Skipped,
                false,
                format!("exists, and {}", without_grant(settings)),
            )),
            (true, Some(grant)) => self.replace(&path, &grant).await,
            (false, grant) => self.create(name, settings, provider, grant.as_ref()).await,
        }
    }

    /// The grant, where somebody knows the password.
    async fn open(&self, name: &str, sealed: &SealedGrant) -> Result<Option<SecretString>, String> {
        let password = match &self.password {
            Passwords::Same(password) => duplicate(password),
            Passwords::Asked => match ask(name).map_err(|error| format!("cannot ask for the password: {error}"))? {
                Some(password) => password,
                None => return Ok(None),
            },
            Passwords::None => return Ok(None),
        };
        let sealed = sealed.clone();
        // Seconds of arithmetic, beside which the spinner goes on.
        let opening = tokio::task::spawn_blocking(move || unlock::unlock(&sealed, &password));
        let opened = wait("opening the refresh token", opening).await;
        let opened = opened.map_err(|_| "opening its refresh token failed".to_owned())?;
        opened.map(Some).map_err(|error| error.to_string())
    }

    async fn create(
        &self,
        name: &str,
        settings: &Settings,
        provider: &ProviderView,
        grant: Option<&SecretString>,
    ) -> Result<Told, String> {
        let message = match grant {
            Some(_) => "with its grant".to_owned(),
            None if provider.needs_consent() => {
                let name = clean(name);
                let name = crate::shell::word(&name);
                format!("{}: portreeve account authorize {name}", without_grant(settings))
            }
            None => "its provider needs no consent".to_owned(),
        };
        if self.arguments.dry_run {
            return Ok((Outcome::Planned, grant.is_some(), message));
        }
        let mut body = json!({"account": name, "email": name, "provider": provider.name});
        if let Some(grant) = grant {
            put_grant(&mut body, grant);
        }
        let request = self.client.create::<AccountCreated>("/v1/account", &body);
        let created = wait("waiting for the daemon", request).await;
        wipe_grant(&mut body);
        match created {
            Ok(_) => Ok((Outcome::Imported, grant.is_some(), message)),
            // Not its id, which was looked for, but another account's e-mail.
            Err(ClientError::Refused(refusal)) if refusal.status_code == 409 => {
                Ok((Outcome::Skipped, false, refusal.message))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn replace(&self, path: &str, grant: &SecretString) -> Result<Told, String> {
        let message = "exists; its grant is replaced".to_owned();
        if self.arguments.dry_run {
            return Ok((Outcome::Planned, true, message));
        }
        let mut body = json!({});
        put_grant(&mut body, grant);
        let request = self.client.change::<AccountView>(path, &body);
        let changed = wait("waiting for the daemon", request).await;
        wipe_grant(&mut body);
        changed.map_err(|error| error.to_string())?;
        Ok((Outcome::Imported, true, message))
    }
}

/// Asks for an account's old password; nothing typed means that it is not known.
fn ask(name: &str) -> io::Result<Option<SecretString>> {
    write!(
        io::stderr(),
        "password by which the mail program logs in as {} (empty: without its grant): ",
        clean(name)
    )?;
    let password = console::Term::stderr().read_secure_line()?;
    Ok((!password.is_empty()).then(|| password.into()))
}

/// Why there is no grant.
fn without_grant(settings: &Settings) -> &'static str {
    match settings.grant {
        Some(_) => "without its grant, for want of the old password",
        None => "without a grant, since the file has none",
    }
}

fn other_app(settings: &Settings, provider: &ProviderView) -> String {
    let unknown = "none".to_owned();
    format!(
        "its grant is bound to the app {}, and provider {} has {}: configure that app (--print-config), or import without the \
         password and authorize again",
        settings.app.client_id.as_ref().unwrap_or(&unknown),
        provider.name,
        provider.client_id.as_ref().unwrap_or(&unknown)
    )
}

fn put_grant(body: &mut Value, grant: &SecretString) {
    if let Value::Object(body) = body {
        body.insert("oauth2".to_owned(), json!({"refreshToken": grant.expose_secret()}));
    }
}

fn wipe_grant(body: &mut Value) {
    if let Some(Value::String(token)) = body.pointer_mut("/oauth2/refreshToken") {
        token.zeroize();
    }
}
