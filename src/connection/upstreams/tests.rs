//! What is promised, of which accounts at which upstreams; what is kept; and questions over sockets.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::account::tests::support::{World, account, password};
use crate::config::{self, Endpoint, ProcessEnvironment, UpstreamTls};
use crate::connection::{Services, Trust};
use crate::net::tls::SystemRoots;
use crate::proto::{Credential, CredentialSecret};
use crate::store::{AccountRecord, AccountSecrets, EndpointOverride};
use crate::usage::UsageLog;

const PROVIDERS: &str = r#"
    [provider.one]
    smtp = { host = "one.example.com", port = 587, tls = "starttls" }
    imap = { host = "one.example.com", port = 993, tls = "implicit" }
    [provider.two]
    smtp = { host = "two.example.com", port = 587, tls = "starttls" }
    pop3 = { host = "two.example.com", port = 995, tls = "implicit" }
    [provider.unused]
    smtp = { host = "unused.example.com", port = 587, tls = "starttls" }
"#;

fn config(text: &str) -> Arc<Config> {
    Arc::new(config::parse(None, text, &ProcessEnvironment).unwrap())
}

fn of(provider: &str, name: &str) -> AccountRecord {
    AccountRecord {
        provider: provider.to_owned(),
        email: Some(format!("{name}@example.com")),
        ..account(name)
    }
}

/// A world with these accounts, in which the roll is called.
async fn world(config: &Arc<Config>, accounts: &[AccountRecord]) -> World {
    let world = World::with_record(of("gone", "nobody"), password("5ecret")).await;
    world.config.send_replace(Arc::clone(config));
    for record in accounts {
        world.accounts.create(record.clone(), password("5ecret")).await.unwrap();
    }
    tokio::spawn(crate::account::roll::keep(
        world.accounts.clone(),
        std::future::pending(),
    ));
    world.accounts.roll().complete().await;
    world
}

fn target(config: &Config, provider: &str, endpoint: Option<Endpoint>) -> UpstreamTarget {
    let provider = config.providers[provider].clone();
    UpstreamTarget {
        credential: Credential {
            user: "joe@example.com".to_owned(),
            secret: CredentialSecret::Password("5ecret".to_owned().into()),
        },
        endpoint: endpoint.or(provider.smtp.clone()).unwrap(),
        provider,
        grant: 0,
    }
}

fn learn(upstreams: &Upstreams, target: &UpstreamTarget, lines: &[&str]) {
    let said = Said {
        moment: Moment::BeforeLogin,
        lines: lines.iter().map(|&line| line.to_owned()).collect(),
    };
    upstreams.learn(target, Protocol::Smtp, &said);
}

#[tokio::test]
async fn every_upstream_that_accounts_are_at_counts_and_no_other() {
    let config = config(PROVIDERS);
    let world = world(&config, &[of("one", "ada"), of("two", "bob")]).await;
    let (upstreams, roll) = (Upstreams::default(), world.accounts.roll());
    let promised = || upstreams.promised(roll, &config, Protocol::Smtp, None);
    assert!(promised().is_empty());
    learn(
        &upstreams,
        &target(&config, "one", None),
        &["SIZE 2000", "8BITMIME", "DSN", "STARTTLS"],
    );
    assert!(promised().is_empty(), "the other was not heard");
    learn(&upstreams, &target(&config, "two", None), &["DSN", "SIZE 1000"]);
    assert_eq!(
        *promised(),
        ["SIZE 1000", "DSN"],
        "what has no account holds nobody back"
    );
    let first = promised();
    learn(
        &upstreams,
        &target(&config, "two", None),
        &["DSN", "SIZE 1000", "X-NEW"],
    );
    assert!(Arc::ptr_eq(&first, &promised()), "it is computed once");
    learn(&upstreams, &target(&config, "two", None), &["8BITMIME"]);
    assert_eq!(*promised(), ["8BITMIME"], "the latest counts");

    // A listener with a provider counts that provider's.
    let of_provider = |name| upstreams.promised(roll, &config, Protocol::Smtp, Some(name));
    assert_eq!(*of_provider("one"), ["SIZE 2000", "8BITMIME", "DSN"]);
    for name in ["unused", "gone"] {
        assert!(of_provider(name).is_empty(), "{name}");
    }
    // Another protocol's upstreams are others.
    assert!(upstreams.promised(roll, &config, Protocol::Imap, None).is_empty());
    assert_eq!(
        *upstreams.promised(roll, &config, Protocol::Pop3, None),
        ["TOP", "UIDL"]
    );

    // An account that comes later counts at once.
    world
        .accounts
        .create(of("unused", "eve"), AccountSecrets::default())
        .await
        .unwrap();
    assert!(promised().is_empty());
    world.accounts.remove("eve").await.unwrap();
    let mut changes = roll.watch();
    while promised().is_empty() {
        changes.changed().await.unwrap();
    }
    assert_eq!(*promised(), ["8BITMIME"]);
}

#[tokio::test]
async fn an_accounts_own_endpoint_is_an_upstream_too() {
    let config = config(PROVIDERS);
    let own = Endpoint {
        host: "own.example.com".to_owned(),
        port: 465,
        tls: UpstreamTls::Implicit,
    };
    let mut record = of("one", "own");
    record.smtp = Some(EndpointOverride {
        endpoint: Some(own.clone()),
        user: None,
    });
    let world = world(&config, &[of("one", "ada"), record]).await;
    let (upstreams, roll) = (Upstreams::default(), world.accounts.roll());
    let promised = || upstreams.promised(roll, &config, Protocol::Smtp, Some("one"));
    learn(&upstreams, &target(&config, "one", None), &["8BITMIME", "DSN"]);
    assert!(promised().is_empty());
    learn(&upstreams, &target(&config, "one", Some(own)), &["DSN"]);
    assert_eq!(*promised(), ["DSN"]);
}

#[tokio::test]
async fn a_changed_endpoint_is_another_upstream() {
    let before = config(PROVIDERS);
    let world = world(&before, &[of("one", "ada")]).await;
    let (upstreams, roll) = (Upstreams::default(), world.accounts.roll());
    learn(&upstreams, &target(&before, "one", None), &["8BITMIME"]);
    assert_eq!(*upstreams.promised(roll, &before, Protocol::Smtp, None), ["8BITMIME"]);
    let after = config(&PROVIDERS.replace("one.example.com", "new.example.com"));
    assert!(upstreams.promised(roll, &after, Protocol::Smtp, None).is_empty());
    learn(&upstreams, &target(&after, "one", None), &["8BITMIME"]);
    assert_eq!(*upstreams.promised(roll, &after, Protocol::Smtp, None), ["8BITMIME"]);
}

fn id(host: &str) -> UpstreamId {
    UpstreamId {
        provider: "one".to_owned(),
        protocol: Protocol::Smtp,
        endpoint: Endpoint {
            host: host.to_owned(),
            port: 587,
            tls: UpstreamTls::Starttls,
        },
    }
}

#[tokio::test]
async fn an_upstream_is_asked_at_once_then_daily_and_after_a_failure_with_growing_waits() {
    let (upstreams, one) = (Upstreams::default(), id("one"));
    let used = HashSet::from([one.clone()]);
    let now = clock::instant();
    upstreams.enlist(&used, now);
    assert_eq!(upstreams.take_due(now, 0), []);
    assert_eq!(upstreams.take_due(now, 9), std::slice::from_ref(&one));
    upstreams.enlist(&used, now);
    assert_eq!(upstreams.take_due(now, 9), [], "one question at a time");

    let fail = || upstreams.answered(&one, Err(Fault::unavailable("it is down")));
    let wait = || {
        upstreams
            .next_due()
            .unwrap()
            .saturating_duration_since(clock::instant())
    };
    let mut waits = Vec::new();
    for _ in 0..9 {
        fail();
        waits.push(wait().as_secs_f64().ceil());
    }
    assert_eq!(
        waits,
        [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0, 3600.0]
    );
    assert!(upstreams.unkept().0.is_empty());

    upstreams.answered(&one, Ok(Some(vec!["DSN".to_owned()])));
    let hours = wait().as_secs_f64() / 3600.0;
    assert!((21.5..26.5).contains(&hours), "{hours}");
    let (records, _) = upstreams.unkept();
    upstreams.on_kept(&records, 0);
    assert!(upstreams.unkept().0.is_empty(), "it is written once");
    upstreams.answered(&one, Ok(Some(vec!["dsn".to_owned(), "AUTH PLAIN".to_owned()])));
    assert!(upstreams.unkept().0.is_empty(), "nothing has changed");
    fail();
    let known = upstreams.lock();
    assert_eq!(
        known.state(one.clone()).can.unwrap(),
        ["DSN"],
        "what was known is known still"
    );
    assert_eq!(known.state(one).error.unwrap(), "it is down");
}

#[tokio::test]
async fn what_was_kept_is_known_after_a_restart_and_asked_again_when_it_is_a_day_old() {
    let before = Upstreams::default();
    before.answered(&id("one"), Ok(Some(vec!["DSN".to_owned()])));
    before.answered(&id("two"), Ok(None));
    let (mut records, _) = before.unkept();
    records.sort_by_key(|record| record.id.endpoint.host.clone());
    records[1].asked = clock::now().before(UPSTREAM_QUESTION_INTERVAL * 2);

    let after = Upstreams::default();
    after.load(records);
    assert_eq!(after.lock().state(id("one")).can.unwrap(), ["DSN"]);
    let used = HashSet::from([id("one"), id("two")]);
    let now = clock::instant();
    after.enlist(&used, now);
    assert_eq!(after.take_due(now, 9), [id("two")]);
    assert!(after.unkept().0.is_empty());

    // Of what nobody uses any more, the fresh stays for a day: its account may be about to be added.
    after.answered(&id("two"), Err(Fault::unavailable("gone")));
    after.enlist(&HashSet::new(), now);
    assert_eq!(after.unkept().1, [id("two")]);
    assert_eq!(after.next_due(), None);
    after.on_kept(&[], 1);
    assert!(after.unkept().1.is_empty());
}

#[tokio::test]
async fn there_are_never_more_than_can_be_held() {
    let upstreams = Upstreams::default();
    let used: HashSet<_> = (0..=UPSTREAMS_KNOWN_MAX)
        .map(|number| id(&number.to_string()))
        .collect();
    upstreams.enlist(&used, clock::instant());
    upstreams.answered(&id("another"), Ok(Some(vec!["DSN".to_owned()])));
    assert_eq!(upstreams.lock().by_id.len(), UPSTREAMS_KNOWN_MAX);
}

/// An upstream in clear that answers what it is asked before a login; says what it was told.
async fn submission() -> (Endpoint, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, said) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let (reading, mut writing) = tcp.split();
            let mut lines = BufReader::new(reading).lines();
            writing.write_all(b"220 up.example.com ESMTP\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                let reply = if line.starts_with("EHLO") {
                    "250-up\r\n250-8BITMIME\r\n250 DSN\r\n"
                } else {
                    "221 bye\r\n"
                };
                sender.send(line).unwrap();
                writing.write_all(reply.as_bytes()).await.unwrap();
            }
        }
    });
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port,
        tls: UpstreamTls::Off,
    };
    (endpoint, said)
}

#[tokio::test]
async fn upstreams_of_accounts_are_asked_at_the_start_without_a_login_and_others_are_not() {
    let (endpoint, mut said) = submission().await;
    let (unused, mut unused_said) = submission().await;
    let table = |name: &str, port: u16| {
        format!("[provider.{name}]\nsmtp = {{ host = \"127.0.0.1\", port = {port}, tls = \"off\" }}\n")
    };
    let config = config(&(table("one", endpoint.port) + &table("unused", unused.port)));
    let world = world(&config, &[of("one", "ada")]).await;
    let services = Services::new(
        world.store.clone(),
        world.accounts.clone(),
        UsageLog::new(world.store.clone()),
        world.config.subscribe(),
        Trust::new(SystemRoots::load()),
    );
    let listener = config
        .listeners
        .iter()
        .find(|listener| listener.protocol == Protocol::Smtp)
        .unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let asking = tokio::spawn(ask_upstreams(Arc::clone(&services), async { drop(stopped.await) }));
    assert!(said.recv().await.unwrap().starts_with("EHLO "));
    assert_eq!(said.recv().await.unwrap(), "QUIT");
    assert_eq!(*services.promised(&config, listener).await, ["8BITMIME", "DSN"]);
    let states = services.upstreams.states(world.accounts.roll(), &config);
    let told: Vec<_> = states
        .iter()
        .map(|state| (state.id.provider.as_str(), state.can.clone()))
        .collect();
    assert_eq!(told, [("one", Some(vec!["8BITMIME".to_owned(), "DSN".to_owned()]))]);
    drop(stop);
    asking.await.unwrap();
    assert!(unused_said.try_recv().is_err());
    assert!(said.try_recv().is_err(), "it is asked once");
}
