use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::account::tests::support::{World, account, config, password, refresh_token};
use crate::config::{Endpoint, Listener, ListenerTls, PlaintextAuth, Provider};
use crate::connection::Trust;
use crate::fault::{LoginStep, UpstreamWords};
use crate::net::tls::SystemRoots;
use crate::oauth::{TokenError, TokenErrorKind};
use crate::store::{AccountSecrets, AccountState, EndpointOverride, Grant};
use crate::usage::UsageLog;

/// A configuration whose listeners serve `served`; its provider has IMAP alone.
fn serving(served: &[Protocol]) -> Config {
    let mut config = config();
    let listener = |protocol: &Protocol| Listener {
        protocol: *protocol,
        addresses: vec![],
        tls: ListenerTls::Off,
        certificates: vec![],
        plaintext_auth: PlaintextAuth::Loopback,
        proxy_protocol_from: vec![],
        provider: None,
    };
    config.listeners = served.iter().map(listener).collect();
    config
}

#[test]
fn protocols_are_walked_that_are_offered_and_served() {
    use Protocol::{Imap, Pop3, Smtp};
    let mut record = account("ada");
    let own = |user: Option<&str>| EndpointOverride {
        endpoint: user.is_none().then(|| Endpoint {
            host: "own.example.com".to_owned(),
            port: 1,
            tls: UpstreamTls::Implicit,
        }),
        user: user.map(str::to_owned),
    };
    record.smtp = Some(own(None));
    // A name alone makes no endpoint where the provider has none.
    record.pop3 = Some(own(Some("name")));
    assert_eq!(walked(&serving(&[Pop3, Smtp]), &record), [Smtp]);
    assert_eq!(walked(&serving(&[Imap]), &record), [Imap]);
    record.pop3 = Some(own(None));
    assert_eq!(walked(&serving(&[Pop3, Smtp, Imap]), &record), [Imap, Smtp, Pop3]);
    assert_eq!(walked(&serving(&[Pop3]), &record), [Pop3]);
    assert_eq!(walked(&serving(&[]), &record), [Imap, Smtp, Pop3], "none is served");
    record.provider = "gone".to_owned();
    assert_eq!(walked(&serving(&[Imap, Smtp]), &record), [Imap], "its failure tells");
}

#[test]
fn a_protocol_that_fails_leaves_the_token_to_the_next() {
    let mut walk = Walk::new();
    walk.note("dns", StepResult::Failed, String::new(), None);
    walk.skip_rest(0, false);
    walk.protocol = Protocol::Smtp;
    let first = walk.steps.len();
    walk.note("dns", StepResult::Ok, String::new(), None);
    walk.note("connect", StepResult::Failed, String::new(), None);
    walk.skip_rest(first, true);
    let names: Vec<_> = walk
        .steps
        .iter()
        .map(|step| (step.protocol, step.name, step.result))
        .collect();
    let (imap, smtp) = (Some(Protocol::Imap), Some(Protocol::Smtp));
    assert_eq!(
        names,
        [
            (imap, "dns", StepResult::Failed),
            (imap, "connect", StepResult::Skipped),
            (imap, "tls", StepResult::Skipped),
            (imap, "login", StepResult::Skipped),
            (imap, "command", StepResult::Skipped),
            (smtp, "dns", StepResult::Ok),
            (smtp, "connect", StepResult::Failed),
            (smtp, "tls", StepResult::Skipped),
            (None, "token", StepResult::Skipped),
            (None, "scopes", StepResult::Skipped),
            (smtp, "login", StepResult::Skipped),
            (smtp, "command", StepResult::Skipped),
        ]
    );
}

/// An upstream in clear for one submission, which has `8BITMIME` and takes every password.
async fn submission_upstream() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        // One after the other.
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let (reading, mut writing) = tcp.split();
            let mut lines = BufReader::new(reading).lines();
            writing.write_all(b"220 up.example.com ESMTP\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                let reply = match line.split(' ').next().unwrap() {
                    "EHLO" => "250-up.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n",
                    "AUTH" => "235 2.7.0 welcome\r\n",
                    "MAIL" | "RSET" => "250 2.1.0 fine\r\n",
                    _ => "502 5.5.1 what\r\n",
                };
                if writing.write_all(reply.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
        tls: UpstreamTls::Off,
    }
}

#[tokio::test]
async fn what_is_served_alone_is_walked_and_what_its_upstream_can_do_is_learned() {
    let world = World::with(password("5ecret")).await;
    let mut config = serving(&[Protocol::Smtp]);
    let provider = Provider {
        smtp: Some(submission_upstream().await),
        ..Provider::clone(&config.providers["example"])
    };
    config.providers.insert("example".to_owned(), Arc::new(provider));
    world.config.send_replace(Arc::new(config));
    let services = services(&world);
    let accounts = world.accounts.clone();
    tokio::spawn(crate::account::roll::keep(accounts.clone(), std::future::pending()));
    accounts.roll().complete().await;
    let promised = || {
        let config = services.config();
        services
            .upstreams
            .promised(accounts.roll(), &config, Protocol::Smtp, Some("example"))
    };
    assert!(promised().is_empty());
    let steps = verify(&services, &account("ada")).await;
    let walked: Vec<_> = steps
        .iter()
        .map(|step| (step.name, step.protocol, step.result))
        .collect();
    let smtp = Some(Protocol::Smtp);
    assert_eq!(
        walked,
        [
            ("dns", smtp, StepResult::Ok),
            ("connect", smtp, StepResult::Ok),
            ("tls", smtp, StepResult::Skipped),
            ("token", None, StepResult::Ok),
            ("scopes", None, StepResult::Skipped),
            ("login", smtp, StepResult::Ok),
            ("command", smtp, StepResult::Ok),
        ],
        "{steps:?}"
    );
    assert_eq!(world.state().await, AccountState::Active);
    assert_eq!(*promised(), ["8BITMIME"]);
}

#[tokio::test]
async fn a_starttls_that_is_refused_fails_as_tls_and_nothing_comes_behind_it() {
    let world = World::with(password("5ecret")).await;
    let endpoint = Endpoint {
        tls: UpstreamTls::Starttls,
        ..submission_upstream().await
    };
    world
        .config
        .send_replace(Arc::new(asking(&[Protocol::Smtp], &endpoint, &[])));
    let steps = verify(&services(&world), &account("ada")).await;
    let results: Vec<_> = steps.iter().map(|step| (step.name, step.result)).collect();
    assert_eq!(
        results,
        [
            ("dns", StepResult::Ok),
            ("connect", StepResult::Ok),
            ("tls", StepResult::Failed),
            ("token", StepResult::Skipped),
            ("scopes", StepResult::Skipped),
            ("login", StepResult::Skipped),
            ("command", StepResult::Skipped),
        ],
        "{steps:?}"
    );
    assert_eq!(steps[2].message, "upstream refuses STARTTLS: 502 5.5.1 what");
    let remedy = steps[2].remedy.as_deref().unwrap();
    assert!(remedy.contains("set the endpoint's tls to \"implicit\""), "{remedy}");
    assert_eq!(world.state().await, AccountState::New, "nobody was asked to log in");
}

/// What `services` needs beside the world.
fn services(world: &World) -> Arc<Services> {
    Services::new(
        world.store.clone(),
        world.accounts.clone(),
        UsageLog::new(world.store.clone()),
        world.config.subscribe(),
        Trust::new(SystemRoots::load()),
    )
}

/// A grant whose OAuth access token is good, with these scopes.
fn granted(scope: Option<&str>) -> AccountSecrets {
    AccountSecrets {
        grant: Some(Grant {
            refresh_token: Some("r1".into()),
            access_token: Some("a1".into()),
            obtained: Some(clock::now()),
            expires: Some(clock::now().after(Duration::from_secs(3600))),
            scope: scope.map(str::to_owned),
            ..Grant::default()
        }),
        password: None,
    }
}

/// A configuration whose provider has both `endpoints` in clear and asks for these scopes.
fn asking(served: &[Protocol], endpoint: &Endpoint, scopes: &[&str]) -> Config {
    let mut config = serving(served);
    let mut provider = Provider::clone(&config.providers["example"]);
    provider.imap = Some(endpoint.clone());
    provider.smtp = Some(endpoint.clone());
    let app = provider.oauth.as_mut().unwrap();
    app.scopes = scopes.iter().map(ToString::to_string).collect();
    app.refresh_scopes = Vec::new();
    config.providers.insert("example".to_owned(), Arc::new(provider));
    config
}

#[tokio::test]
async fn a_scope_that_the_provider_leaves_out_is_told_and_keeps_no_protocol_from_its_login() {
    let world = World::with(granted(Some("mail:imap openid"))).await;
    let endpoint = submission_upstream().await;
    let config = asking(
        &[Protocol::Imap, Protocol::Smtp],
        &endpoint,
        &["mail:imap", "mail:smtp"],
    );
    world.config.send_replace(Arc::new(config));
    let steps = verify(&services(&world), &account("ada")).await;
    let of = |name: &str, protocol: Option<Protocol>| {
        let mut found = steps
            .iter()
            .filter(|step| step.name == name && step.protocol == protocol);
        let step = found.next().unwrap_or_else(|| panic!("{name}: {steps:?}"));
        assert!(found.next().is_none(), "{name}: {steps:?}");
        step
    };
    let scopes = of("scopes", None);
    assert_eq!((scopes.result, scopes.remedy.as_deref()), (StepResult::Ok, None));
    assert!(scopes.message.contains("mail:smtp (for SMTP)"), "{scopes:?}");
    assert!(
        scopes.message.ends_with("the logins show whether it matters"),
        "{scopes:?}"
    );
    assert!(of("token", None).message.contains("still good, until"), "{steps:?}");
    // The upstream speaks SMTP, and knows no login: that it is asked at all is what counts.
    assert_eq!(of("login", Some(Protocol::Imap)).result, StepResult::Failed);
    assert_ne!(of("login", Some(Protocol::Smtp)).result, StepResult::Skipped);
}

#[tokio::test]
async fn a_refusal_of_the_grant_is_explained_and_skips_all_that_needs_it() {
    let mut world = World::with(refresh_token("r1")).await;
    let endpoint = submission_upstream().await;
    let config = asking(&[Protocol::Imap, Protocol::Smtp], &endpoint, &["mail"]);
    world.config.send_replace(Arc::new(config));
    let services = services(&world);
    let walking = tokio::spawn(async move { verify(&services, &account("ada")).await });
    let words = "AADSTS70043: The refresh token has expired.";
    let mut error = TokenError::new(TokenErrorKind::Grant, "invalid_grant", words);
    error.facts.number = Some(70043);
    world.request().await.fail(error);
    let steps = walking.await.unwrap();
    let failed: Vec<_> = steps.iter().filter(|step| step.result == StepResult::Failed).collect();
    let [token] = failed.as_slice() else {
        panic!("{steps:?}");
    };
    assert_eq!(token.name, "token");
    assert_eq!(
        token.message,
        "invalid_grant: AADSTS70043: The refresh token has expired; the organization's sign-in frequency has ended the grant"
    );
    assert_eq!(
        token.remedy.as_deref(),
        Some("Authorize the account again; an administrator can exempt this app from that Conditional Access policy")
    );
    let scopes: Vec<_> = steps.iter().filter(|step| step.name == "scopes").collect();
    assert_eq!(scopes.len(), 1, "{steps:?}");
    assert_eq!(scopes[0].result, StepResult::Skipped);
    let position = |name: &str| steps.iter().position(|step| step.name == name);
    assert_eq!(position("scopes"), position("token").map(|at| at + 1));
}

#[tokio::test]
async fn a_mailbox_that_is_to_be_left_alone_is() {
    let world = World::with(password("5ecret")).await;
    let endpoint = submission_upstream().await;
    world
        .config
        .send_replace(Arc::new(asking(&[Protocol::Smtp], &endpoint, &[])));
    let services = services(&world);
    let text = "Request is throttled. Suggested Backoff Time: 60000 milliseconds".to_owned();
    let throttled = Fault::unavailable("no").for_words(UpstreamWords::new(LoginStep::Login, None, text));
    services
        .throttles
        .note("ada", Protocol::Smtp, &throttled, clock::instant());
    let steps = verify(&services, &account("ada")).await;
    let login = steps.iter().find(|step| step.name == "login").unwrap();
    assert_eq!(login.result, StepResult::Failed);
    assert!(login.message.contains("left alone for another"), "{login:?}");
    assert!(login.remedy.as_deref().unwrap().starts_with("Wait"), "{login:?}");
}
