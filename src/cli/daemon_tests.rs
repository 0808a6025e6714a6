//! Commands against a daemon in memory, as they are typed: what they do there, and how they exit.

use std::path::Path;

use clap::Parser as _;

use super::{Cli, Exit, Failure, dispatch};
use crate::admin::test_support::{Daemon, session, step};
use crate::admin::types::StepResult;
use crate::net::dns::test_support::{NameServer, mx, srv};
use crate::secret::ExposeSecret;
use crate::store::{EndpointOverride, StoreError};

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
async fn an_account_is_added_with_its_secret_from_a_file_and_its_provider_recognised() {
    let names = NameServer::start(Vec::new()).await;
    let daemon = Daemon::start_with_dns(names.dns()).await;
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
async fn what_a_domain_publishes_chooses_a_provider_but_servers_only_if_somebody_agrees() {
    let names = NameServer::start(vec![
        mx("customer.test", 10, "aspmx.l.google.com."),
        mx("office.test", 10, "office-test.mail.protection.outlook.com."),
        srv("_imaps._tcp.own.test", (0, 1, 993), "imap.own.test."),
        srv("_submission._tcp.own.test", (0, 1, 587), "smtp.own.test."),
    ])
    .await;
    let daemon = Daemon::start_with_dns(names.dns()).await;
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("password");
    std::fs::write(&file, "an app password\n").unwrap();
    let add = async |rest: &str| {
        let line = format!("account add {rest} --password-file {}", file.display());
        portreeve(&daemon.socket, &line).await
    };
    add("ada@customer.test").await.unwrap();
    let refused = add("ada@office.test").await.unwrap_err();
    assert_eq!(refused.exit, Exit::Failed);
    let why =
        "office.test is Microsoft's (MX office-test.mail.protection.outlook.com), but provider 'microsoft' is not";
    assert!(refused.message.starts_with(why), "{refused}");
    let refused = add("ada@own.test").await.unwrap_err();
    assert!(
        refused
            .message
            .contains("imap imap.own.test:993, smtp smtp.own.test:587; nothing was added"),
        "{refused}"
    );
    add("ada@own.test --accept-found --smtp mine.own.test:465")
        .await
        .unwrap();
    add("eve@nothing.test --imap imap.nothing.test:993").await.unwrap();
    let accounts = daemon.world.accounts.lock().unwrap();
    let added: Vec<_> = accounts
        .iter()
        .map(|(record, _)| {
            let place = |own: &Option<EndpointOverride>| {
                let endpoint = own.as_ref().and_then(|own| own.endpoint.as_ref());
                endpoint
                    .map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port))
                    .unwrap_or_default()
            };
            [
                record.account.clone(),
                record.provider.clone(),
                place(&record.imap),
                place(&record.smtp),
            ]
        })
        .collect();
    assert_eq!(
        added,
        [
            ["ada@customer.test", "google", "", ""],
            ["ada@own.test", "other", "imap.own.test:993", "mine.own.test:465"],
            ["eve@nothing.test", "other", "imap.nothing.test:993", ""],
        ]
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
