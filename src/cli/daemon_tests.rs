//! Commands against a daemon in memory, as they are typed: what they do there, and how they exit.

use std::path::Path;

use clap::Parser as _;

use super::{Cli, Exit, Failure, dispatch};
use crate::admin::test_support::{Daemon, session, step};
use crate::admin::types::StepResult;
use crate::secret::ExposeSecret;
use crate::store::StoreError;

/// Runs a command line on a thread of its own, because it starts its own runtime.
async fn portreeve(socket: &Path, line: &str) -> Result<(), Failure> {
    let socket = socket.display().to_string();
    let arguments: Vec<String> = ["portreeve", "--socket", &socket]
        .into_iter()
        .chain(line.split_whitespace())
        .map(str::to_owned)
        .collect();
    let cli = Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line}: {error}"));
    tokio::task::spawn_blocking(|| dispatch(cli)).await.unwrap()
}

async fn exit_of(socket: &Path, line: &str) -> Exit {
    match portreeve(socket, line).await {
        Ok(()) => Exit::Done,
        Err(failure) => failure.exit,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_added_with_its_secret_from_a_file_and_its_provider_guessed() {
    let daemon = Daemon::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("refresh-token");
    std::fs::write(&file, "a refresh token\n").unwrap();
    let line = format!("account add user@example.com --refresh-token-file {}", file.display());
    portreeve(&daemon.socket, &line).await.unwrap();
    {
        let accounts = daemon.world.accounts.lock().unwrap();
        let (record, secrets) = &accounts[0];
        assert_eq!(
            (
                record.account.as_str(),
                record.email.as_deref(),
                record.provider.as_str()
            ),
            ("user@example.com", Some("user@example.com"), "example")
        );
        let grant = secrets.grant.as_ref().unwrap();
        assert_eq!(grant.refresh_token.as_ref().unwrap().expose_secret(), "a refresh token");
    }
    let again = portreeve(&daemon.socket, &line).await.unwrap_err();
    assert_eq!(
        (again.exit, again.message.as_str()),
        (Exit::Failed, "account is taken by another account")
    );
    assert_eq!(
        exit_of(&daemon.socket, "account add user@example.net").await,
        Exit::Usage
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_reaches_the_daemon() {
    let daemon = Daemon::start().await;
    portreeve(&daemon.socket, "account add example --provider example")
        .await
        .unwrap();
    portreeve(
        &daemon.socket,
        "token create --account example --address 127.0.0.1,::1 --expires 90d",
    )
    .await
    .unwrap();
    let token = daemon.world.tokens.lock().unwrap()[0].clone();
    assert_eq!(token.scopes, ["imap-proxy"]);
    assert_eq!(token.restrictions.unwrap().addresses.len(), 2);
    assert!(token.expires.is_some());
    daemon.world.sessions.lock().unwrap().push(session(7, "example"));
    for line in [
        "status",
        "account list",
        "account list exam --json",
        "account show example",
        "account update example --name Example --disable",
        "account verify example",
        "token list --account example",
        &format!("token show {}", token.id),
        "usage --account example --since 1h",
        "sessions list",
        "sessions close 7",
        &format!("token delete {} --yes", token.id),
        "account remove example --yes",
        "token create --root --json",
    ] {
        assert_eq!(portreeve(&daemon.socket, line).await, Ok(()), "{line}");
    }
    assert!(daemon.world.accounts.lock().unwrap().is_empty());
    assert_eq!(daemon.world.tokens.lock().unwrap()[0].scopes, ["*"]);
    for line in ["account show example", "token delete x --yes", "sessions close 7"] {
        assert_eq!(exit_of(&daemon.socket, line).await, Exit::Failed, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_and_an_unready_daemon_show_in_the_exit_code() {
    let daemon = Daemon::start().await;
    portreeve(&daemon.socket, "account add example --provider example")
        .await
        .unwrap();
    *daemon.world.verification.lock().unwrap() = vec![step("dns", StepResult::Failed, "no such host")];
    assert_eq!(exit_of(&daemon.socket, "account verify example").await, Exit::Failed);
    *daemon.world.trouble.lock().unwrap() = Some(StoreError::Closed);
    assert_eq!(exit_of(&daemon.socket, "status").await, Exit::Failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_exit_code_is_69_and_the_socket_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    for line in ["status", "account list", "token list", "usage", "sessions list"] {
        let failure = portreeve(&socket, line).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{line}");
        assert!(failure.message.contains(&socket.display().to_string()), "{failure}");
    }
}
