//! `portreeve account`: mailboxes.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Subcommand;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::{Map, Value, json};

use super::daemon::{answer, client};
use super::output::{cell, clean, confirm, deletion, page_footer, print, print_pairs, print_table, state_cell, table};
use super::value::{PageArgs, secret};
use super::{Exit, Failure, Globals, authorize, import};
use crate::access::Scope;
use crate::admin::client::{Client, segment};
use crate::admin::types::{
    AccountCreated, AccountView, AccountsPage, Deleted, ProviderView, RecognitionView, StatusView, StepResult,
    VerifyReport, VerifyStep,
};
use crate::metrics::names::state_label;
use crate::proto::Protocol;
use crate::secret::Maker;
use crate::store::EndpointOverride;

/// `account`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with accounts.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Add a mailbox; its provider is guessed from the address
    Add(Box<AddArgs>),
    /// Take over the mailboxes of another program
    Import(import::Args),
    /// Change a mailbox, or give it new credentials
    Update(Box<UpdateArgs>),
    /// List the mailboxes
    List {
        /// Part of an id, a name or an e-mail address
        query: Option<String>,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one mailbox
    Show {
        /// Id or e-mail address
        account: String,
    },
    /// Ask the mailbox's owner for consent, in a browser or on another device
    Authorize(authorize::Args),
    /// Try everything that a login needs, step by step
    Verify {
        /// Id or e-mail address
        account: String,
    },
    /// Delete a mailbox with its credentials and access tokens, and end its sessions
    Remove {
        /// Id or e-mail address
        account: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `account add`
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// The id; an e-mail address is its own id
    #[arg(value_name = "EMAIL-OR-ID")]
    pub account: String,
    /// What is known of it.
    #[command(flatten)]
    pub fields: Fields,
    /// Use the servers that its domain names in DNS or by an autoconfig file, without asking
    #[arg(long)]
    pub accept_found: bool,
}

/// `account update`
#[derive(Debug, clap::Args)]
pub struct UpdateArgs {
    /// Id or e-mail address
    pub account: String,
    /// What is to change.
    #[command(flatten)]
    pub fields: Fields,
    /// Refuse logins from now on
    #[arg(long, conflicts_with = "enable")]
    pub disable: bool,
    /// Accept logins again
    #[arg(long)]
    pub enable: bool,
}

/// What is told of an account. Secrets come from files, never from arguments.
#[derive(Debug, Default, clap::Args)]
pub struct Fields {
    /// Provider, a name of the configuration; without it, the address tells
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// E-mail address, the other name to log in with
    #[arg(long)]
    pub email: Option<String>,
    /// Label
    #[arg(long)]
    pub name: Option<String>,
    /// Login name at the provider, where it is not the e-mail address (shared mailboxes)
    #[arg(long)]
    pub user: Option<String>,
    /// File with the OAuth2 refresh token; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
    pub refresh_token_file: Option<PathBuf>,
    /// File with the password; - for standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Account whose grant opens this mailbox, too (shared mailboxes)
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["refresh_token_file", "password_file"])]
    pub shares_grant_of: Option<String>,
    /// Another IMAP endpoint than the provider's
    #[arg(long, value_name = "HOST:PORT[/implicit|starttls|off]")]
    pub imap: Option<String>,
    /// Another SMTP endpoint than the provider's
    #[arg(long, value_name = "HOST:PORT[/implicit|starttls|off]")]
    pub smtp: Option<String>,
    /// Another POP3 endpoint than the provider's
    #[arg(long, value_name = "HOST:PORT[/implicit|starttls|off]")]
    pub pop3: Option<String>,
    /// Login name for IMAP alone, where it differs
    #[arg(long, value_name = "USER")]
    pub imap_user: Option<String>,
    /// Login name for SMTP alone, where it differs (who sends for a shared mailbox)
    #[arg(long, value_name = "USER")]
    pub smtp_user: Option<String>,
    /// Login name for POP3 alone, where it differs
    #[arg(long, value_name = "USER")]
    pub pop3_user: Option<String>,
}

/// The provider of accounts that name all their servers themselves.
const NO_PROVIDER: &str = "other";

/// Runs `account`.
///
/// # Errors
/// As every command; 1 where a step of `verify` failed.
pub(crate) async fn run(arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let client = client(globals);
    match arguments.action {
        Action::Add(arguments) => add(&client, *arguments, globals).await,
        Action::Import(arguments) => import::run(&client, arguments, globals).await,
        Action::Update(arguments) => update(&client, *arguments, globals).await,
        Action::List { query, page } => list(&client, query, &page, globals).await,
        Action::Show { account } => show(&client, &account, globals).await,
        Action::Authorize(arguments) => authorize::run(&client, arguments, globals).await,
        Action::Verify { account } => verify(&client, &account, globals).await,
        Action::Remove { account, yes } => remove(&client, &account, yes, globals).await,
    }
}

async fn add(client: &Client, arguments: AddArgs, globals: &Globals) -> Result<(), Failure> {
    let AddArgs {
        account,
        mut fields,
        accept_found,
    } = arguments;
    if fields.email.is_none() && account.contains('@') {
        fields.email = Some(account.clone());
    }
    let status = answer(client.read::<StatusView>("/v1/status", &[])).await?.value;
    let finding = match &fields.provider {
        Some(_) => None,
        None => Some(recognize(client, fields.email.as_deref(), &status.providers).await?),
    };
    let mut found = Map::new();
    if let Some(finding) = &finding {
        fields.provider = Some(chosen_provider(finding, &fields, &status.providers)?);
        if finding.provider.is_none() {
            found = found_servers(finding, &fields, accept_found)?;
        }
        if !globals.json {
            print(&format!("{}.", clean(&finding.found)))?;
        }
    }
    let scopes = useful_scopes(fields.provider.as_deref().unwrap_or_default(), &fields, &found, &status);
    let mut body = fields.body()?;
    for (protocol, server) in found {
        merge(&mut body, &protocol, server);
    }
    body.insert("account".to_owned(), account.into());
    let created = answer(client.create::<AccountCreated>("/v1/account", &body.into())).await?;
    if globals.json {
        return print(&created.raw);
    }
    let account = clean(&created.value.account);
    let credential = credential_steps(&account, &fields, finding.as_ref(), &status.providers);
    print(&format!(
        "Added {account}.\n\n{}\
         Check it:             portreeve account verify {account}\n\
         Let a program log in: portreeve token create --account {account} --scope {scopes}",
        credential.map(|steps| format!("{steps}\n")).unwrap_or_default()
    ))
}

async fn update(client: &Client, arguments: UpdateArgs, globals: &Globals) -> Result<(), Failure> {
    let mut body = arguments.fields.body()?;
    if arguments.disable || arguments.enable {
        body.insert("disabled".to_owned(), arguments.disable.into());
    }
    if body.is_empty() {
        return Err(Failure::usage("nothing to change; see portreeve account update --help"));
    }
    let path = format!("/v1/account/{}", segment(&arguments.account));
    if arguments.fields.is_partial() {
        let account = answer(client.read::<AccountView>(&path, &[])).await?;
        keep_overrides(&mut body, &account.value);
    }
    let changed = answer(client.change::<AccountView>(&path, &body.into())).await?;
    if globals.json {
        return print(&changed.raw);
    }
    print_account(&changed.value)
}

async fn list(client: &Client, query: Option<String>, page: &PageArgs, globals: &Globals) -> Result<(), Failure> {
    let mut parameters = page.query();
    parameters.extend(query.map(|query| ("query", query)));
    let listed = answer(client.read::<AccountsPage>("/v1/accounts", &parameters)).await?;
    if globals.json {
        return print(&listed.raw);
    }
    let AccountsPage { head, accounts } = listed.value;
    if accounts.is_empty() {
        return print("No accounts. Add one: portreeve account add EMAIL");
    }
    let mut table = table(&["ACCOUNT", "EMAIL", "PROVIDER", "STATE", "LAST ERROR"]);
    for account in &accounts {
        let error = account.last_error.as_ref().map(|error| error.code.as_str());
        table.add_row([
            cell(Some(&account.account)),
            cell(account.email.as_deref()),
            cell(Some(&account.provider)),
            state_cell(account.state),
            cell(error),
        ]);
    }
    print_table(&table)?;
    page_footer(&head, "accounts").map_or(Ok(()), |footer| print(&footer))
}

async fn show(client: &Client, account: &str, globals: &Globals) -> Result<(), Failure> {
    let path = format!("/v1/account/{}", segment(account));
    let shown = answer(client.read::<AccountView>(&path, &[])).await?;
    if globals.json {
        return print(&shown.raw);
    }
    print_account(&shown.value)
}

async fn verify(client: &Client, account: &str, globals: &Globals) -> Result<(), Failure> {
    let path = format!("/v1/account/{}/verify", segment(account));
    let report = answer(client.create::<VerifyReport>(&path, &json!({}))).await?;
    if globals.json {
        print(&report.raw)?;
    } else {
        print_table(&verification(&report.value.steps))?;
    }
    if report.value.ok {
        Ok(())
    } else {
        Err(Failure::told(Exit::Failed))
    }
}

async fn remove(client: &Client, account: &str, yes: bool, globals: &Globals) -> Result<(), Failure> {
    let question = format!("Delete {}, its credentials and its access tokens?", clean(account));
    if !yes && !confirm(&question)? {
        return Err(Failure::failed("nothing was deleted"));
    }
    let path = format!("/v1/account/{}", segment(account));
    let deleted = answer(client.delete::<Deleted>(&path)).await?;
    if globals.json {
        return print(&deleted.raw);
    }
    print(&deletion(&format!("Deleted {}", clean(account)), deleted.value))
}

impl Fields {
    /// The JSON of a request, without the fields that were not given.
    fn body(&self) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        for (name, value) in [
            ("provider", &self.provider),
            ("email", &self.email),
            ("name", &self.name),
            ("user", &self.user),
        ] {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.as_str().into());
            }
        }
        if let Some(path) = &self.refresh_token_file {
            let token = secret(path, "refresh token", Maker::Machine)?;
            body.insert("oauth2".to_owned(), json!({"refreshToken": token}));
        }
        if let Some(owner) = &self.shares_grant_of {
            body.insert("oauth2".to_owned(), json!({"sharesGrantOf": owner}));
        }
        if let Some(path) = &self.password_file {
            body.insert("password".to_owned(), secret(path, "password", Maker::Person)?.into());
        }
        for (protocol, endpoint, user) in self.overrides() {
            let mut own = match endpoint {
                Some(endpoint) => parse_endpoint(protocol, endpoint)?,
                None => Map::new(),
            };
            if let Some(user) = user {
                own.insert("user".to_owned(), user.into());
            }
            if !own.is_empty() {
                body.insert(protocol.name().to_owned(), own.into());
            }
        }
        Ok(body)
    }

    /// What is given for one protocol alone: an endpoint, a login name, or both.
    fn overrides(&self) -> [(Protocol, Option<&str>, Option<&str>); 3] {
        [
            (Protocol::Imap, self.imap.as_deref(), self.imap_user.as_deref()),
            (Protocol::Smtp, self.smtp.as_deref(), self.smtp_user.as_deref()),
            (Protocol::Pop3, self.pop3.as_deref(), self.pop3_user.as_deref()),
        ]
    }

    /// Whether any server is named.
    fn names_a_server(&self) -> bool {
        self.overrides().into_iter().any(|(_, endpoint, _)| endpoint.is_some())
    }

    /// Whether only a part of what an account may have for one protocol is given, so that the rest is to be kept.
    fn is_partial(&self) -> bool {
        let mut overrides = self.overrides().into_iter();
        overrides.any(|(_, endpoint, user)| endpoint.is_some() != user.is_some())
    }
}

/// Keeps what the account has for a protocol and `body` does not say: a change replaces it as a whole.
fn keep_overrides(body: &mut Map<String, Value>, account: &AccountView) {
    for (protocol, own) in [
        (Protocol::Imap, &account.imap),
        (Protocol::Smtp, &account.smtp),
        (Protocol::Pop3, &account.pop3),
    ] {
        let (Some(Value::Object(given)), Some(Value::Object(kept))) =
            (body.get_mut(protocol.name()), own.as_ref().map(|own| json!(own)))
        else {
            continue;
        };
        for (name, value) in kept {
            given.entry(name).or_insert(value);
        }
    }
}

/// Reads `HOST:PORT[/TLS]`.
fn parse_endpoint(protocol: Protocol, text: &str) -> Result<Map<String, Value>, Failure> {
    let (address, tls) = text.split_once('/').unwrap_or((text, "implicit"));
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)))
        .ok_or_else(|| {
            Failure::usage(format!(
                "--{protocol} '{text}' is not HOST:PORT[/implicit|starttls|off]"
            ))
        })?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fields = [("host", host.into()), ("port", port.into()), ("tls", tls.into())];
    Ok(fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect())
}

/// What the daemon finds out of the address.
async fn recognize(
    client: &Client,
    email: Option<&str>,
    providers: &[ProviderView],
) -> Result<RecognitionView, Failure> {
    let Some(email) = email else {
        return Err(unrecognized("there is no e-mail address", providers));
    };
    let parameters = [("email", email.to_owned())];
    let found = client.read::<RecognitionView>("/v1/recognize", &parameters);
    Ok(answer(found).await?.value)
}

fn unrecognized(why: &str, providers: &[ProviderView]) -> Failure {
    let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
    Failure::usage(format!(
        "cannot tell the provider: {why}; choose one with --provider ({}), or name the servers with --imap, --smtp and --pop3",
        names.join(", ")
    ))
}

/// The provider that was found, if it is configured; else the one that stands for servers of their own, where there are any.
fn chosen_provider(finding: &RecognitionView, fields: &Fields, providers: &[ProviderView]) -> Result<String, Failure> {
    let found = clean(&finding.found);
    match &finding.provider {
        Some(provider) if finding.configured => Ok(provider.clone()),
        Some(provider) => {
            let advice = finding.advice.as_deref().map(|advice| format!(". {}", clean(advice)));
            Err(Failure::failed(format!(
                "{found}, but provider '{}' is not configured{}",
                clean(provider),
                advice.unwrap_or_default()
            )))
        }
        None if fields.names_a_server() || !servers_of(finding).is_empty() => Ok(NO_PROVIDER.to_owned()),
        None => Err(unrecognized(&found, providers)),
    }
}

/// The servers that the domain names, for those protocols that the caller names none for; and only if the caller, who has seen
/// them, wants them. Nobody but a person can tell whether they may be given the mailbox's password.
fn found_servers(
    finding: &RecognitionView,
    fields: &Fields,
    accept_found: bool,
) -> Result<Map<String, Value>, Failure> {
    let mut servers = servers_of(finding);
    for (protocol, endpoint, _) in fields.overrides() {
        if endpoint.is_some() {
            servers.remove(protocol.name());
        }
    }
    if servers.is_empty() || accept_found {
        return Ok(servers);
    }
    let found = clean(&finding.found);
    // Without a terminal `confirm` takes silence for consent, which is not enough here.
    if std::io::stdin().is_terminal() && confirm(&format!("{found}. Use these servers?"))? {
        return Ok(servers);
    }
    Err(Failure::failed(format!(
        "{found}; nothing was added. If these are the right servers, say so with --accept-found; else name them with --imap, \
         --smtp and --pop3"
    )))
}

fn servers_of(finding: &RecognitionView) -> Map<String, Value> {
    let servers = [
        (Protocol::Imap, &finding.imap),
        (Protocol::Smtp, &finding.smtp),
        (Protocol::Pop3, &finding.pop3),
    ];
    servers
        .into_iter()
        .filter_map(|(protocol, server)| Some((protocol.name().to_owned(), json!(server.as_ref()?))))
        .collect()
}

/// Adds what was found for a protocol to what the caller said of it, which counts.
fn merge(body: &mut Map<String, Value>, protocol: &str, server: Value) {
    match (body.get_mut(protocol), server) {
        (Some(Value::Object(given)), Value::Object(found)) => {
            for (name, value) in found {
                given.entry(name).or_insert(value);
            }
        }
        (_, server) => {
            body.insert(protocol.to_owned(), server);
        }
    }
}

/// How the account gets what it logs in with, where it was given nothing and needs something.
fn credential_steps(
    account: &str,
    fields: &Fields,
    finding: Option<&RecognitionView>,
    providers: &[ProviderView],
) -> Option<String> {
    let is_given =
        fields.refresh_token_file.is_some() || fields.password_file.is_some() || fields.shares_grant_of.is_some();
    if is_given {
        return None;
    }
    let provider = providers
        .iter()
        .find(|known| Some(&known.name) == fields.provider.as_ref());
    let grant = provider
        .filter(|provider| provider.oauth2)
        .and_then(|provider| provider.grant.as_deref());
    let passwords = match grant {
        // The app, or somebody else's program, has all that it takes.
        Some("client_credentials" | "service_account" | "external") => return None,
        Some("password") => true,
        Some(_) => finding.is_some_and(|finding| finding.passwords),
        None => finding.is_none_or(|finding| finding.passwords),
    };
    let consents = grant.is_some_and(|grant| grant != "password");
    let advice = finding
        .and_then(|finding| finding.advice.as_deref())
        .filter(|_| grant.is_none());
    let mut steps: Vec<String> = advice
        .map(|advice| format!("{}\n", clean(advice)))
        .into_iter()
        .collect();
    if consents {
        steps.push(format!("Let its owner consent: portreeve account authorize {account}"));
    }
    if passwords {
        let how = if consents {
            "Or give a password:  "
        } else {
            "Give it its password:"
        };
        steps.push(format!("{how} portreeve account update {account} --password-file -"));
    }
    Some(steps.join("\n"))
}

/// The scopes of what a program can log in to, as `token create` takes them: what the provider, or the account with an
/// endpoint of its own, offers and listeners serve; all that is offered where they serve none of it.
fn useful_scopes(provider: &str, fields: &Fields, found: &Map<String, Value>, status: &StatusView) -> String {
    let known = status.providers.iter().find(|known| known.name == provider);
    let own = fields.overrides().into_iter();
    let offered: Vec<Protocol> = own
        .filter(|(protocol, endpoint, _)| {
            let is_own = endpoint.is_some() || found.contains_key(protocol.name());
            is_own || known.is_some_and(|known| known.protocols.contains(protocol))
        })
        .map(|(protocol, ..)| protocol)
        .collect();
    let is_served = |protocol: &Protocol| status.listeners.iter().any(|listener| listener.protocol == *protocol);
    let is_any_served = offered.iter().any(is_served);
    let useful = offered.iter().filter(|protocol| !is_any_served || is_served(protocol));
    let scopes: Vec<&str> = useful.map(|protocol| Scope::of(*protocol).name()).collect();
    scopes.join(",")
}

fn print_account(account: &AccountView) -> Result<(), Failure> {
    let time = |time: Option<crate::clock::Timestamp>| time.map(|time| time.to_string());
    let endpoint = |own: &Option<EndpointOverride>| {
        let own = own.as_ref()?;
        let place = own
            .endpoint
            .as_ref()
            .map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
        let user = own.user.as_ref().map(|user| format!("as {user}"));
        Some(place.into_iter().chain(user).collect::<Vec<_>>().join(" "))
    };
    let error = account.last_error.as_ref();
    print_pairs(&[
        ("account", Some(account.account.clone())),
        ("e-mail", account.email.clone()),
        ("name", account.name.clone()),
        ("provider", Some(account.provider.clone())),
        ("user", account.user.clone()),
        ("imap", endpoint(&account.imap)),
        ("smtp", endpoint(&account.smtp)),
        ("pop3", endpoint(&account.pop3)),
        ("shares grant of", account.shares_grant_of.clone()),
        ("state", Some(state_label(account.state).to_owned())),
        (
            "last error",
            error.map(|error| format!("{}: {} ({})", error.code, error.message, error.time)),
        ),
        ("next try", time(account.next_try)),
        ("token expires", time(account.expires)),
        ("grant ends", time(account.grant_ends)),
        ("created", time(Some(account.created))),
        ("updated", time(Some(account.updated))),
    ])
}

/// A line for each step, and below one that failed what to do.
fn verification(steps: &[VerifyStep]) -> Table {
    let mut table = table(&["PROTOCOL", "STEP", "RESULT", "MS", "MESSAGE"]);
    for step in steps {
        table.add_row([
            cell(step.protocol.map(Protocol::name)),
            cell(Some(&step.name)),
            result_cell(step.result),
            Cell::new(step.ms).set_alignment(CellAlignment::Right),
            cell(Some(&step.message)),
        ]);
        if let Some(remedy) = &step.remedy {
            let remedy = Cell::new(format!("→ {}", clean(remedy)));
            table.add_row([Cell::new(""), Cell::new(""), Cell::new(""), Cell::new(""), remedy]);
        }
    }
    table
}

fn result_cell(result: StepResult) -> Cell {
    match result {
        StepResult::Ok => Cell::new("ok").fg(comfy_table::Color::Green),
        StepResult::Failed => Cell::new("failed").fg(comfy_table::Color::Red),
        StepResult::Skipped => Cell::new("skipped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(rest: Value) -> RecognitionView {
        let mut finding = json!({
            "email": "ada@example.org", "provider": null, "how": "none", "found": "example.org is nobody's",
            "configured": false, "oauth2": false, "passwords": false,
        });
        finding
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        serde_json::from_value(finding).unwrap()
    }

    fn provider(name: &str, oauth2: bool) -> ProviderView {
        ProviderView {
            name: name.to_owned(),
            domains: Vec::new(),
            oauth2,
            grant: oauth2.then(|| "code".to_owned()),
            protocols: vec![Protocol::Imap],
            client_id: None,
            token_url: None,
            issuer: None,
        }
    }

    #[test]
    fn a_shared_grant_stands_in_the_place_of_one() {
        let fields = Fields {
            shares_grant_of: Some("alice@example.com".to_owned()),
            ..Fields::default()
        };
        let body = Value::from(fields.body().unwrap());
        assert_eq!(body, json!({"oauth2": {"sharesGrantOf": "alice@example.com"}}));
    }

    #[test]
    fn a_provider_is_taken_if_it_is_configured_and_else_told_with_what_there_is_to_do() {
        let providers = [provider("example", true), provider("other", false)];
        let none = Fields::default();
        let named = Fields {
            imap: Some("imap.example.org:993".to_owned()),
            ..Fields::default()
        };
        let chosen = |rest: Value, fields: &Fields| chosen_provider(&finding(rest), fields, &providers);
        let configured = json!({"provider": "example", "configured": true});
        assert_eq!(chosen(configured, &none).unwrap(), "example");
        let server = json!({"imap": {"host": "imap.example.org", "port": 993, "tls": "implicit"}});
        assert_eq!(chosen(server, &none).unwrap(), "other");
        assert_eq!(chosen(json!({}), &named).unwrap(), "other");
        let failure = chosen(json!({}), &none).unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (
                Exit::Usage,
                "cannot tell the provider: example.org is nobody's; choose one with --provider (example, other), or name the \
                 servers with --imap, --smtp and --pop3"
            )
        );
        let absent = json!({"provider": "microsoft", "found": "a.test is Microsoft's", "advice": "Register an app."});
        let failure = chosen(absent, &none).unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (
                Exit::Failed,
                "a.test is Microsoft's, but provider 'microsoft' is not configured. Register an app."
            )
        );
    }

    #[test]
    fn servers_that_were_found_are_used_only_where_somebody_said_so_and_named_no_other() {
        let found = finding(json!({
            "imap": {"host": "imap.example.org", "port": 993, "tls": "implicit", "user": "ada"},
            "smtp": {"host": "smtp.example.org", "port": 587, "tls": "starttls"},
        }));
        let fields = Fields {
            smtp: Some("mine.example.org:465".to_owned()),
            imap_user: Some("lovelace".to_owned()),
            ..Fields::default()
        };
        let servers = found_servers(&found, &fields, true).unwrap();
        assert_eq!(servers.keys().collect::<Vec<_>>(), ["imap"]);
        let mut body = fields.body().unwrap();
        for (protocol, server) in servers {
            merge(&mut body, &protocol, server);
        }
        assert_eq!(
            Value::from(body),
            json!({
                "imap": {"host": "imap.example.org", "port": 993, "tls": "implicit", "user": "lovelace"},
                "smtp": {"host": "mine.example.org", "port": 465, "tls": "implicit"},
            })
        );
        if !std::io::stdin().is_terminal() {
            let failure = found_servers(&found, &fields, false).unwrap_err();
            assert!(failure.message.contains("nothing was added"), "{failure}");
        }
        let all_named = Fields {
            imap: Some("mine.example.org:993".to_owned()),
            ..fields
        };
        assert!(found_servers(&found, &all_named, false).unwrap().is_empty());
    }

    #[test]
    fn an_account_without_a_credential_is_told_how_it_gets_one() {
        let providers = [provider("google", true), provider("icloud", false)];
        let of = |name: &str, password: bool| Fields {
            provider: Some(name.to_owned()),
            password_file: password.then(|| PathBuf::from("-")),
            ..Fields::default()
        };
        let steps = |fields: &Fields, finding: Option<&RecognitionView>| {
            credential_steps("ada", fields, finding, &providers).unwrap_or_default()
        };
        assert_eq!(
            steps(&of("google", false), None),
            "Let its owner consent: portreeve account authorize ada"
        );
        let both = finding(json!({"passwords": true, "advice": "Make an app password."}));
        assert_eq!(
            steps(&of("google", false), Some(&both)),
            "Let its owner consent: portreeve account authorize ada\n\
             Or give a password:   portreeve account update ada --password-file -"
        );
        assert_eq!(
            steps(&of("icloud", false), Some(&both)),
            "Make an app password.\n\nGive it its password: portreeve account update ada --password-file -"
        );
        assert_eq!(steps(&of("icloud", true), Some(&both)), "");
        for (grant, expected) in [
            ("client_credentials", ""),
            ("external", ""),
            (
                "password",
                "Give it its password: portreeve account update ada --password-file -",
            ),
        ] {
            let mut by_itself = provider("google", true);
            by_itself.grant = Some(grant.to_owned());
            let steps = credential_steps("ada", &of("google", false), Some(&both), &[by_itself]);
            assert_eq!(steps.unwrap_or_default(), expected, "{grant}");
        }
    }

    #[test]
    fn a_new_accounts_hint_names_the_scopes_of_what_is_offered_and_served() {
        use Protocol::{Imap, Pop3, Smtp};
        let status = |offered: &[Protocol], served: &[Protocol]| -> StatusView {
            let listeners: Vec<_> = served
                .iter()
                .map(|protocol| json!({"protocol": protocol, "address": "127.0.0.1:1", "tls": "off"}))
                .collect();
            serde_json::from_value(json!({
                "status": "ok", "version": "1", "hostname": "mail.example.com",
                "started": "2026-01-01T00:00:00Z", "uptimeSeconds": 1, "listeners": listeners,
                "providers": [{"name": "example", "domains": [], "oauth2": true, "protocols": offered}],
                "accounts": {
                    "total": 0, "new": 0, "active": 0, "needs-authorization": 0, "failing": 0, "disabled": 0,
                },
                "attention": [], "tokens": 0, "sessions": 0,
            }))
            .unwrap()
        };
        let own_pop3 = Fields {
            pop3: Some("pop.example.com:995".to_owned()),
            smtp_user: Some("delegate@example.com".to_owned()),
            ..Fields::default()
        };
        let none = Fields::default();
        for (offered, served, fields, expected) in [
            (
                &[Imap, Smtp, Pop3][..],
                &[Pop3, Imap, Smtp][..],
                &none,
                "imap-proxy,smtp,pop3",
            ),
            (&[Imap, Smtp], &[Imap, Smtp, Pop3], &none, "imap-proxy,smtp"),
            (&[Smtp], &[Imap, Smtp, Pop3], &none, "smtp"),
            (&[Imap, Smtp], &[Smtp], &none, "smtp"),
            (&[Imap], &[Imap, Smtp, Pop3], &own_pop3, "imap-proxy,pop3"),
            (&[Imap, Smtp], &[Pop3], &none, "imap-proxy,smtp"),
        ] {
            assert_eq!(
                useful_scopes("example", fields, &Map::new(), &status(offered, served)),
                expected
            );
        }
    }

    #[test]
    fn an_endpoint_is_a_host_a_port_and_perhaps_its_tls() {
        for (text, host, port, tls) in [
            ("imap.example.com:993", "imap.example.com", 993, "implicit"),
            ("127.0.0.1:1143/off", "127.0.0.1", 1143, "off"),
            ("[::1]:143/starttls", "::1", 143, "starttls"),
        ] {
            assert_eq!(
                Value::from(parse_endpoint(Protocol::Imap, text).unwrap()),
                json!({"host": host, "port": port, "tls": tls})
            );
        }
        for text in ["imap.example.com", "imap.example.com:70000", ""] {
            let failure = parse_endpoint(Protocol::Smtp, text).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{text}");
            assert!(failure.message.starts_with("--smtp '"), "{}", failure.message);
        }
    }

    #[test]
    fn a_login_name_for_one_protocol_needs_no_endpoint() {
        let fields = Fields {
            smtp_user: Some("delegate@example.com".to_owned()),
            pop3: Some("pop.example.com:995".to_owned()),
            pop3_user: Some("other".to_owned()),
            ..Fields::default()
        };
        assert!(fields.is_partial());
        assert_eq!(
            Value::from(fields.body().unwrap()),
            json!({
                "smtp": {"user": "delegate@example.com"},
                "pop3": {"host": "pop.example.com", "port": 995, "tls": "implicit", "user": "other"},
            })
        );
        let whole = Fields {
            smtp: fields.pop3.clone(),
            ..fields
        };
        assert!(!whole.is_partial());
    }

    #[test]
    fn what_a_change_does_not_say_of_a_protocol_is_kept() {
        let account: AccountView = serde_json::from_value(json!({
            "account": "shared", "provider": "example", "state": "active",
            "created": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
            "imap": {"user": "imap-name"},
            "smtp": {"host": "own.example.com", "port": 587, "tls": "starttls", "user": "old"},
        }))
        .unwrap();
        let mut body = Map::from_iter([
            ("smtp".to_owned(), json!({"user": "new"})),
            ("pop3".to_owned(), json!({"user": "name"})),
        ]);
        keep_overrides(&mut body, &account);
        assert_eq!(
            Value::from(body),
            json!({
                "smtp": {"host": "own.example.com", "port": 587, "tls": "starttls", "user": "new"},
                "pop3": {"user": "name"},
            })
        );
    }
}
