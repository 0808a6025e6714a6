//! `portreeve account`: mailboxes.

mod add;
mod fields;

use clap::Subcommand;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::json;

use super::daemon::{answer, client};
use super::output::{
    cell, clean, confirm, deletion, failures_in_words, page_footer, print, print_pairs, print_table, state_cell, table,
};
use super::value::PageArgs;
use super::{Exit, Failure, Globals, authorize, import};
use crate::admin::client::{Client, segment};
use crate::admin::types::{AccountView, AccountsPage, Deleted, StepResult, VerifyReport, VerifyStep};
use crate::metrics::names::state_label;
use crate::proto::Protocol;
use crate::store::EndpointOverride;

pub use fields::Fields;

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

/// Runs `account`.
///
/// # Errors
/// As every command; 1 where a step of `verify` failed.
pub(crate) async fn run(arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let client = client(globals);
    match arguments.action {
        Action::Add(arguments) => add::add(&client, *arguments, globals).await,
        Action::Import(arguments) => import::run(&client, arguments, globals).await,
        Action::Update(arguments) => update(&client, *arguments, globals).await,
        Action::List { query, page } => list(&client, query, &page, globals).await,
        Action::Show { account } => show(&client, &account, globals).await,
        Action::Authorize(arguments) => authorize::run(&client, arguments, globals).await,
        Action::Verify { account } => verify(&client, &account, globals).await,
        Action::Remove { account, yes } => remove(&client, &account, yes, globals).await,
    }
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
        fields::keep_overrides(&mut body, &account.value);
    }
    let changed = answer(client.change::<AccountView>(&path, &body.into())).await?;
    if globals.json {
        return print(&changed.raw);
    }
    for choice in arguments.fields.choices() {
        print(&format!("{choice}."))?;
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
        ("what to do", error.and_then(|error| error.remedy.clone())),
        ("failed logins", account.failures.map(failures_in_words)),
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
