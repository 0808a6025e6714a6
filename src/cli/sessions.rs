//! `portreeve sessions`: live sessions.

use clap::Subcommand;

use super::daemon::{answer, client};
use super::output::{cell, page_footer, print, print_table, table};
use super::value::PageArgs;
use super::{Failure, Globals};
use crate::admin::client::segment;
use crate::admin::types::{Closed, SessionsPage};

/// `sessions`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with live sessions.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List the live sessions
    List {
        /// Of this account, by id or e-mail address
        #[arg(long)]
        account: Option<String>,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// End a session
    Close {
        /// Id
        id: String,
    },
}

/// Runs `sessions`.
///
/// # Errors
/// As every command.
pub(crate) async fn run(arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let client = client(globals);
    match arguments.action {
        Action::List { account, page } => {
            let mut parameters = page.query();
            parameters.extend(account.map(|account| ("account", account)));
            let listed = answer(client.read::<SessionsPage>("/v1/sessions", &parameters)).await?;
            if globals.json {
                return print(&listed.raw);
            }
            print_sessions(&listed.value)
        }
        Action::Close { id } => {
            let path = format!("/v1/session/{}", segment(&id));
            let closed = answer(client.delete::<Closed>(&path)).await?;
            if globals.json {
                return print(&closed.raw);
            }
            print("Closed.")
        }
    }
}

fn print_sessions(page: &SessionsPage) -> Result<(), Failure> {
    if page.sessions.is_empty() {
        return print("No live sessions.");
    }
    let mut table = table(&[
        "ID", "PROTOCOL", "ACCOUNT", "REMOTE", "CLIENT", "PHASE", "SINCE", "UP", "DOWN",
    ]);
    for session in &page.sessions {
        table.add_row([
            cell(Some(&session.id)),
            cell(Some(session.protocol.name())),
            cell(session.account.as_deref()),
            cell(Some(&session.remote_address.to_string())),
            cell(session.client.as_deref()),
            cell(Some(&session.phase)),
            cell(Some(&session.since.to_string())),
            cell(Some(&session.bytes_up.to_string())),
            cell(Some(&session.bytes_down.to_string())),
        ]);
    }
    print_table(&table)?;
    page_footer(&page.head, "sessions").map_or(Ok(()), |footer| print(&footer))
}
