//! `portreeve account authorize`: asks the mailbox's owner for consent, and waits until the mailbox is open.
//!
//! ```text
//!   code    url ──> the owner's browser ──> redirect ──┬─ listener on this machine ─┐
//!                                                      └─ pasted (--paste) ─────────┴──> daemon: exchange, login ──> done
//!   device  code ──> another device ──> the daemon polls the provider, this command the daemon ────────────────────> done
//! ```
//! The daemon does the work and decides; this only carries URLs to and fro. Success is told after the daemon has logged in to
//! the mailbox, here and in the browser. Whoever interrupts the command leaves the account as it was, unless the owner has
//! come back already: then the daemon goes on to the end.

mod device;
mod elsewhere;
mod listener;
mod page;
mod paste;
mod report;

use std::time::Duration;

use serde_json::json;
use tokio::signal::ctrl_c;
use tokio::time::timeout;
use url::Url;

use self::elsewhere::Elsewhere;
use self::listener::{Listener, Words};
use self::report::{Event, Report};
use super::daemon::answer;
use super::output::wait;
use super::{Exit, Failure, Globals};
use crate::admin::client::{Client, ClientError, segment};
use crate::admin::types::{AccountView, AuthorizationOutcome, CodeFlowView, ProviderView, StatusView};

/// `account authorize`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id or e-mail address
    pub account: String,
    /// Open no browser; print the URL, and wait for a browser on this machine to come back
    #[arg(long)]
    pub no_browser: bool,
    /// Read the address that the browser was sent back to from standard input, where it runs on another machine
    #[arg(long, conflicts_with = "device")]
    pub paste: bool,
    /// Print a code to be typed on another device
    #[arg(long)]
    pub device: bool,
    /// How long to wait for the owner
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

/// Why the mailbox is not open.
enum Refusal {
    /// The daemon said so: its code and its words.
    Told { code: String, message: String },
    /// The way to it failed.
    Failure(Failure),
}

/// Which way the owner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Listen,
    Paste,
    Device,
}

/// Runs `account authorize`.
///
/// # Errors
/// As every command; 1 with the reason where the mailbox is not open at the end.
pub(super) async fn run(client: &Client, arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let report = Report::new(globals.json, arguments.no_browser);
    let asked = async {
        let path = format!("/v1/account/{}", segment(&arguments.account));
        let account = answer(client.read::<AccountView>(&path, &[])).await?.value;
        let path = format!("/v1/account/{}/authorize", segment(&account.account));
        let status = status(client).await;
        match way(&arguments, provider_of(status.as_ref(), &account.provider)) {
            Way::Listen => {
                let elsewhere = Elsewhere::new(&account, status.as_ref());
                listen(client, &path, &report, &elsewhere).await
            }
            Way::Paste => paste(client, &path, &report).await,
            Way::Device => device::run(client, &path, &account.account, &report).await,
        }
    };
    let limit = arguments.timeout;
    let outcome = tokio::select! {
        outcome = timeout(limit, Box::pin(asked)) => outcome.unwrap_or_else(|_| Err(too_late(limit))),
        _ = ctrl_c() => Err(Failure::failed("interrupted; begin again when it suits you").into()),
    };
    match outcome {
        Ok(done) => report.tell(&Event::Authorized {
            account: &done.account,
            state: done.state,
        }),
        Err(Refusal::Told { code, message }) => report.fail(&code, &message),
        Err(Refusal::Failure(failure)) if globals.json && failure.exit == Exit::Failed => {
            report.fail("failed", &failure.message)
        }
        Err(Refusal::Failure(failure)) => Err(failure),
    }
}

/// What the daemon tells of itself, if this caller may see it.
async fn status(client: &Client) -> Option<StatusView> {
    let status = client.read::<StatusView>("/v1/status", &[]).await;
    status.ok().map(|status| status.value)
}

fn provider_of<'a>(status: Option<&'a StatusView>, name: &str) -> Option<&'a ProviderView> {
    status?.providers.iter().find(|known| known.name == name)
}

/// As it was asked for, else as the provider's owners are usually asked. A caller who may not see that is asked in a browser.
fn way(arguments: &Args, provider: Option<&ProviderView>) -> Way {
    if arguments.device {
        return Way::Device;
    }
    if arguments.paste {
        return Way::Paste;
    }
    if arguments.no_browser {
        return Way::Listen;
    }
    match provider.and_then(|provider| provider.grant.as_deref()) {
        Some("device") => Way::Device,
        _ => Way::Listen,
    }
}

/// The browser comes back to this machine.
async fn listen(
    client: &Client,
    path: &str,
    report: &Report,
    elsewhere: &Elsewhere,
) -> Result<AuthorizationOutcome, Refusal> {
    let mut listener = Listener::bind().await?;
    let begun = begin(client, path, &listener.redirect_uri()).await?;
    listener.expect(state_of(&begun.url)?);
    report.ask(&begun)?;
    report.tell_elsewhere(elsewhere, listener.port())?;
    let redirected = wait("waiting for the browser to come back", listener.come_back()).await?;
    let outcome = complete(client, redirected.as_str()).await;
    listener.answer(Words::of(&outcome)).await;
    outcome
}

/// The browser is elsewhere, and its owner copies the address.
async fn paste(client: &Client, path: &str, report: &Report) -> Result<AuthorizationOutcome, Refusal> {
    // The port is one where nobody on this machine listens; on the browser's own it hardly matters.
    let redirect_uri = Listener::bind().await?.redirect_uri();
    let begun = begin(client, path, &redirect_uri).await?;
    report.ask(&begun)?;
    let redirected = paste::read(&state_of(&begun.url)?).await?;
    complete(client, redirected.as_str()).await
}

async fn begin(client: &Client, path: &str, redirect_uri: &str) -> Result<CodeFlowView, Refusal> {
    let body = json!({"flow": "code", "redirectUri": redirect_uri});
    Ok(
        wait("waiting for the daemon", client.create::<CodeFlowView>(path, &body))
            .await?
            .value,
    )
}

async fn complete(client: &Client, redirected: &str) -> Result<AuthorizationOutcome, Refusal> {
    let body = json!({"url": redirected});
    let completed = wait("trying the mailbox", client.create("/v1/authorize", &body)).await;
    Ok(completed?.value)
}

/// The state that a browser must bring back, from the URL that it is sent to.
fn state_of(url: &Url) -> Result<String, Failure> {
    let mut pairs = url.query_pairs();
    let state = pairs
        .find(|(name, _)| name == "state")
        .map(|(_, state)| state.into_owned());
    state.ok_or_else(|| Failure::failed("the daemon's answer cannot be understood: its URL has no state"))
}

fn too_late(limit: Duration) -> Refusal {
    Refusal::Told {
        code: "expired".to_owned(),
        message: format!(
            "nobody consented within {}; begin again, and give --timeout if more time is needed",
            crate::span::Span(limit)
        ),
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(body) => Self::Told {
                code: body.code,
                message: body.message,
            },
            error => Self::Failure(error.into()),
        }
    }
}
