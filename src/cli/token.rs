//! `portreeve token`: access tokens.

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::daemon::{answer, client};
use super::output::{cell, clean, confirm, deletion, page_footer, print, print_pairs, print_table, table};
use super::token_id::resolve;
use super::value::{PageArgs, moment_ahead};
use super::{Failure, Globals};
use crate::admin::client::{Client, segment};
use crate::admin::types::{Deleted, ListenerView, StatusView, TokenCreated, TokenView, TokensPage};
use crate::clock::Timestamp;
use crate::config::ListenerTls;
use crate::proto::Protocol;
use crate::store::TokenForm;

/// `token`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with access tokens.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make a token; it is shown this once, with settings for a mail program
    Create(CreateArgs),
    /// List the tokens
    List {
        /// Of this account, by id or e-mail address
        #[arg(long)]
        account: Option<String>,
        /// Part of a description, an account or an id
        query: Option<String>,
        /// Which page.
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one token's settings and last use
    Show {
        /// Id, or the beginning of it (6 digits or more)
        id: String,
    },
    /// Delete a token with all that it made, and end the sessions that they opened
    Delete {
        /// Id, or the beginning of it (6 digits or more)
        id: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `token create`
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Account, by id or e-mail address
    #[arg(long, required_unless_present = "root")]
    pub account: Option<String>,
    /// What it is for: imap-proxy, smtp, pop3, api, metrics
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        value_delimiter = ',',
        default_value = "imap-proxy"
    )]
    pub scopes: Vec<String>,
    /// A short token, for devices whose password field ends at 20 characters; upper and lower case mean the same in it
    #[arg(long)]
    pub short: bool,
    /// Scope that it may give to tokens which it makes, beside its own; for tokens with the scope api
    #[arg(long = "may-grant", value_name = "SCOPE", value_delimiter = ',')]
    pub may_grant: Vec<String>,
    /// Label
    #[arg(long, default_value = "", hide_default_value = true)]
    pub description: String,
    /// Address or range that it may be used from; may be given again
    #[arg(long = "address", value_name = "CIDR", value_delimiter = ',')]
    pub addresses: Vec<String>,
    /// When it ends: a time, or how long from now (90d)
    #[arg(long, value_name = "TIME", value_parser = moment_ahead)]
    pub expires: Option<Timestamp>,
    /// A root token, for the admin API: it may do everything
    #[arg(long, conflicts_with_all = ["account", "scopes", "may_grant"])]
    pub root: bool,
}

/// Runs `token`.
///
/// # Errors
/// As every command.
pub(crate) async fn run(arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let client = client(globals);
    match arguments.action {
        Action::Create(arguments) => create(&client, &arguments, globals).await,
        Action::List { account, query, page } => {
            let mut parameters = page.query();
            parameters.extend(account.map(|account| ("account", account)));
            parameters.extend(query.map(|query| ("query", query)));
            list(&client, &parameters, globals).await
        }
        Action::Show { id } => show(&client, &id, globals).await,
        Action::Delete { id, yes } => delete(&client, &id, yes, globals).await,
    }
}

async fn create(client: &Client, arguments: &CreateArgs, globals: &Globals) -> Result<(), Failure> {
    let created = answer(client.create::<TokenCreated>("/v1/token", &arguments.body())).await?;
    if globals.json {
        return print(&created.raw);
    }
    let TokenCreated { token, id } = &created.value;
    let hint = if arguments.short {
        " Upper and lower case mean the same in it."
    } else {
        ""
    };
    print(&format!(
        "Token: {token}\nId:    {id}\n\nThe token is shown this once only.{hint}"
    ))?;
    let Some(account) = arguments.account.as_deref().filter(|_| !arguments.root) else {
        return Ok(());
    };
    // The token exists and has been shown: settings that cannot be told are no failure.
    match answer(client.read::<StatusView>("/v1/status", &[])).await {
        Ok(status) => {
            let status = status.value;
            let settings = settings(&arguments.scopes, &status.listeners, &status.hostname, account, token);
            settings.iter().try_for_each(|block| print(block))
        }
        Err(_) => Ok(()),
    }
}

async fn list(client: &Client, parameters: &[(&str, String)], globals: &Globals) -> Result<(), Failure> {
    let listed = answer(client.read::<TokensPage>("/v1/tokens", parameters)).await?;
    if globals.json {
        return print(&listed.raw);
    }
    let TokensPage { head, tokens } = listed.value;
    if tokens.is_empty() {
        return print("No access tokens. Make one: portreeve token create --account ACCOUNT --scope imap-proxy,smtp");
    }
    let mut table = table(&["ACCOUNT", "SCOPES", "DESCRIPTION", "LAST USE", "EXPIRES", "ID"]);
    for token in &tokens {
        table.add_row([
            cell(Some(token.account.as_deref().unwrap_or("(root)"))),
            cell(Some(&token.scopes.join(","))),
            cell(Some(&token.description)),
            cell(token.access.map(|access| access.time.to_string()).as_deref()),
            cell(token.expires.map(|time| time.to_string()).as_deref()),
            cell(Some(&token.id.to_string())),
        ]);
    }
    print_table(&table)?;
    page_footer(&head, "tokens").map_or(Ok(()), |footer| print(&footer))
}

async fn show(client: &Client, id: &str, globals: &Globals) -> Result<(), Failure> {
    let path = format!("/v1/tokens/{}", segment(&resolve(client, id).await?));
    let shown = answer(client.read::<TokenView>(&path, &[])).await?;
    if globals.json {
        return print(&shown.raw);
    }
    let token = &shown.value;
    let addresses = token.restrictions.as_ref().map(|restrictions| {
        let addresses: Vec<String> = restrictions.addresses.iter().map(ToString::to_string).collect();
        addresses.join(", ")
    });
    print_pairs(&[
        ("id", Some(token.id.to_string())),
        (
            "account",
            Some(token.account.clone().unwrap_or_else(|| "(root)".to_owned())),
        ),
        (
            "form",
            (token.form == TokenForm::Short).then(|| "short (20 characters)".to_owned()),
        ),
        ("made by", token.parent.map(|parent| parent.to_string())),
        ("scopes", Some(token.scopes.join(", "))),
        (
            "may grant",
            Some(token.may_grant.join(", ")).filter(|scopes| !scopes.is_empty()),
        ),
        (
            "description",
            Some(token.description.clone()).filter(|text| !text.is_empty()),
        ),
        ("addresses", addresses.filter(|text| !text.is_empty())),
        ("metadata", token.metadata.as_ref().map(Value::to_string)),
        ("expires", token.expires.map(|time| time.to_string())),
        ("created", Some(token.created.to_string())),
        (
            "last use",
            token.access.map(|access| format!("{} from {}", access.time, access.ip)),
        ),
    ])
}

async fn delete(client: &Client, id: &str, yes: bool, globals: &Globals) -> Result<(), Failure> {
    let id = resolve(client, id).await?;
    if !yes && !confirm("Delete this token with all that it made, and end their sessions?")? {
        return Err(Failure::failed("nothing was deleted"));
    }
    let path = format!("/v1/token/{}", segment(&id));
    let deleted = answer(client.delete::<Deleted>(&path)).await?;
    if globals.json {
        return print(&deleted.raw);
    }
    print(&deletion("Deleted", deleted.value))
}

impl CreateArgs {
    fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("description".to_owned(), self.description.as_str().into());
        if let Some(account) = self.account.as_deref().filter(|_| !self.root) {
            body.insert("account".to_owned(), account.into());
            body.insert("scopes".to_owned(), json!(self.scopes));
        }
        if self.short {
            body.insert("form".to_owned(), json!(TokenForm::Short));
        }
        if !self.may_grant.is_empty() {
            body.insert("mayGrant".to_owned(), json!(self.may_grant));
        }
        if !self.addresses.is_empty() {
            body.insert("restrictions".to_owned(), json!({"addresses": self.addresses}));
        }
        if let Some(expires) = self.expires {
            body.insert("expires".to_owned(), json!(expires));
        }
        body.into()
    }
}

/// What to enter in a mail program, a block for each listener that the token may be used at.
fn settings(scopes: &[String], listeners: &[ListenerView], hostname: &str, account: &str, token: &str) -> Vec<String> {
    let usable = listeners.iter().filter(|listener| {
        let scope = match listener.protocol {
            Protocol::Imap => "imap-proxy",
            protocol => protocol.name(),
        };
        scopes.iter().any(|given| given == scope)
    });
    usable
        .map(|listener| {
            let ip = listener.address.ip();
            let host = if ip.is_unspecified() { hostname.to_owned() } else { ip.to_string() };
            let security = match listener.tls {
                ListenerTls::Off => "none",
                ListenerTls::Starttls => "STARTTLS",
                ListenerTls::Implicit => "SSL/TLS",
            };
            format!(
                "\n{}\n  host       {host}\n  port       {}\n  security   {security}\n  user name  {}\n  password   {token}",
                listener.protocol.name().to_uppercase(),
                listener.address.port(),
                clean(account),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_for_the_listeners_that_the_token_opens() {
        let listener = |protocol, address: &str, tls| ListenerView {
            protocol,
            address: address.parse().unwrap(),
            tls,
        };
        let listeners = [
            listener(Protocol::Imap, "0.0.0.0:993", ListenerTls::Implicit),
            listener(Protocol::Imap, "127.0.0.1:2993", ListenerTls::Off),
            listener(Protocol::Smtp, "127.0.0.1:2525", ListenerTls::Starttls),
            listener(Protocol::Pop3, "[::1]:2995", ListenerTls::Off),
        ];
        let scopes = ["imap-proxy".to_owned(), "api".to_owned()];
        assert_eq!(
            settings(&scopes, &listeners, "mail.example.com", "example", "6cad"),
            [
                "\nIMAP\n  host       mail.example.com\n  port       993\n  security   SSL/TLS\n  user name  example\n  \
                 password   6cad",
                "\nIMAP\n  host       127.0.0.1\n  port       2993\n  security   none\n  user name  example\n  \
                 password   6cad",
            ]
        );
        let scopes = ["smtp".to_owned(), "pop3".to_owned()];
        assert_eq!(
            settings(&scopes, &listeners, "mail.example.com", "example", "6cad"),
            [
                "\nSMTP\n  host       127.0.0.1\n  port       2525\n  security   STARTTLS\n  user name  example\n  \
                 password   6cad",
                "\nPOP3\n  host       ::1\n  port       2995\n  security   none\n  user name  example\n  \
                 password   6cad",
            ]
        );
    }
}
