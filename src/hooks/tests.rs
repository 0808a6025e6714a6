//! Hooks with a real program and a real receiver over loopback.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::account::News;
use crate::account::tests::support;
use crate::clock::Timestamp;
use crate::net::tls::SystemRoots;
use crate::store::{AccountError, AccountState};

fn notice(account: &str) -> Notice {
    let time = Timestamp::parse("2026-01-31T12:00:00Z").unwrap();
    Notice {
        time,
        account: account.to_owned(),
        email: Some("ada@example.com".to_owned()),
        provider: "example".to_owned(),
        news: News::State {
            from: AccountState::Active,
            to: AccountState::NeedsAuthorization,
            error: Some(AccountError {
                code: "invalid_grant".to_owned(),
                message: "gone".to_owned(),
                remedy: None,
                time,
            }),
            remedy: Some("authorize it again".to_owned()),
        },
    }
}

fn ending() -> Notice {
    let ends = Timestamp::parse("2026-02-03T12:00:00Z").unwrap();
    Notice {
        news: News::GrantEnding { ends },
        ..notice("ada")
    }
}

/// Hooks that run until [`Running::stop`].
struct Running {
    notices: broadcast::Sender<Notice>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    _config: watch::Sender<Arc<Config>>,
}

impl Running {
    fn start(hooks: config::Hooks) -> Self {
        let settings = Config {
            hooks,
            ..support::config()
        };
        let (config, watched) = watch::channel(Arc::new(settings));
        let (notices, received) = broadcast::channel(64);
        let (stop, stopped) = oneshot::channel();
        let hooks = Hooks::new(watched, Http::new(SystemRoots::load()));
        let task = tokio::spawn(hooks.run(received, async move {
            let _ = stopped.await;
        }));
        Self {
            notices,
            stop,
            task,
            _config: config,
        }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

fn script(directory: &TempDir, text: &str) -> String {
    let path = directory.path().join("hook");
    std::fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_command_reads_each_event_once_and_what_came_before_the_stop_is_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let program = script(&directory, "cat >>\"$1\"; echo 'noise; $(rm -rf x)' >&2; exit 3\n");
    let running = Running::start(config::Hooks {
        command: vec![program, told.to_str().unwrap().to_owned()],
        ..config::Hooks::default()
    });
    running.notices.send(notice("a \"quoted\" $(id)")).unwrap();
    running.notices.send(ending()).unwrap();
    running.stop().await;
    let mut told = lines(&told);
    told.sort_by_key(|event| event["event"].to_string());
    assert_eq!(
        told,
        [
            serde_json::json!({
                "event": "account.state", "time": "2026-01-31T12:00:00.000Z", "account": "a \"quoted\" $(id)",
                "email": "ada@example.com", "provider": "example", "from": "active", "to": "needs-authorization",
                "lastError": {"code": "invalid_grant", "message": "gone"}, "remedy": "authorize it again",
            }),
            serde_json::json!({
                "event": "grant.ending", "time": "2026-01-31T12:00:00.000Z", "account": "ada", "email": "ada@example.com",
                "provider": "example", "ends": "2026-02-03T12:00:00.000Z",
            }),
        ]
    );
}

#[tokio::test]
async fn a_command_sees_nothing_of_the_daemons_environment_but_what_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let program = script(&directory, "env >\"$1\"\n");
    let running = Running::start(config::Hooks {
        command: vec![program, told.to_str().unwrap().to_owned()],
        env: [("HOOK_KEY".to_owned(), "s3cret".into())].into_iter().collect(),
        ..config::Hooks::default()
    });
    running.notices.send(ending()).unwrap();
    running.stop().await;
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
        "the tests have more in theirs"
    );
    let text = std::fs::read_to_string(&told).unwrap();
    let mut names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    // What a shell makes itself.
    names.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_", "LANG", "HOME"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["HOOK_KEY", "PATH"]);
    assert!(text.contains("HOOK_KEY=s3cret\n"), "{text}");
}

#[tokio::test]
async fn a_command_that_cannot_be_started_or_does_not_read_stops_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for command in [
        vec!["/nonexistent/hook".to_owned()],
        vec![script(&directory, "exit 0\n")],
    ] {
        let running = Running::start(config::Hooks {
            command,
            ..config::Hooks::default()
        });
        for _ in 0..20 {
            running.notices.send(notice("ada")).unwrap();
        }
        running.stop().await;
    }
}

/// What the receiver of webhooks hears, and with what statuses it answers.
struct Receiver {
    url: String,
    posts: mpsc::UnboundedReceiver<(HeaderMap, Bytes)>,
}

type Answers = (
    mpsc::UnboundedSender<(HeaderMap, Bytes)>,
    Arc<std::sync::Mutex<Vec<u16>>>,
);

impl Receiver {
    /// Answers with `statuses`, the last one first, and then with 200.
    async fn start(statuses: &[u16]) -> Self {
        let (sender, posts) = mpsc::unbounded_channel();
        let answers: Answers = (sender, Arc::new(std::sync::Mutex::new(statuses.to_vec())));
        let routes = Router::new()
            .route("/hook", axum::routing::post(Self::post))
            .with_state(answers);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", socket.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(socket, routes).await });
        Self { url, posts }
    }

    async fn post(State((posts, statuses)): State<Answers>, headers: HeaderMap, body: Bytes) -> StatusCode {
        posts.send((headers, body)).unwrap();
        let status = statuses.lock().unwrap().pop().unwrap_or(200);
        StatusCode::from_u16(status).unwrap()
    }

    fn hooks(&self) -> config::Hooks {
        config::Hooks {
            webhook_url: Some(self.url.parse().unwrap()),
            webhook_secret: Some("s3cret".into()),
            ..config::Hooks::default()
        }
    }

    /// The next post, whose signature is checked.
    async fn next(&mut self) -> (HeaderMap, serde_json::Value) {
        let (headers, body) = self.posts.recv().await.unwrap();
        let signature = headers["x-portreeve-signature"].to_str().unwrap();
        let digest = crate::store::decode_hex(signature.strip_prefix("sha256=").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(&body);
        mac.verify_slice(&digest).unwrap();
        (headers, serde_json::from_slice(&body).unwrap())
    }
}

#[tokio::test]
async fn a_webhook_is_signed_and_tried_again_under_the_same_delivery() {
    let mut receiver = Receiver::start(&[503]).await;
    let running = Running::start(receiver.hooks());
    running.notices.send(notice("ada")).unwrap();
    let (first, body) = receiver.next().await;
    assert_eq!(
        (first["content-type"].as_bytes(), body["account"].as_str()),
        (&b"application/json"[..], Some("ada"))
    );
    assert_eq!(first["x-portreeve-event"], "account.state");
    let (second, again) = receiver.next().await;
    assert_eq!(
        (&first["x-portreeve-delivery"], &body),
        (&second["x-portreeve-delivery"], &again)
    );
    running.stop().await;
    assert!(receiver.posts.try_recv().is_err(), "it was taken");
}

#[tokio::test]
async fn what_a_webhook_refuses_is_not_tried_again() {
    let mut receiver = Receiver::start(&[410]).await;
    let running = Running::start(receiver.hooks());
    running.notices.send(ending()).unwrap();
    let (headers, body) = receiver.next().await;
    assert_eq!(headers["x-portreeve-event"], "grant.ending");
    assert_eq!(body["ends"], "2026-02-03T12:00:00.000Z");
    running.stop().await;
    assert!(receiver.posts.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_is_not_there_is_given_up_after_three_tries() {
    // A port that was free a moment ago.
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", socket.local_addr().unwrap()).parse().unwrap();
    drop(socket);
    let running = Running::start(config::Hooks {
        webhook_url: Some(url),
        ..config::Hooks::default()
    });
    let begun = tokio::time::Instant::now();
    running.notices.send(notice("ada")).unwrap();
    tokio::task::yield_now().await;
    running.stop().await;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(6) && took < HOOKS_DRAIN, "{took:?}");
}
