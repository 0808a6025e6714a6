//! Bad luck: disks that hang, clocks that are wrong for a moment, stores that are damaged, slips in a configuration, and readers
//! that go away. Full disks are among the daemon's life (`lifecycle`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bed::until;
use crate::support::dovecot::Dovecot;
use crate::support::host::Host;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::process::Process;
use crate::support::provider::{Fault, Provider, ProviderOptions};
use crate::support::{PATIENCE, open_directory, require_installed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_a_day_ahead_for_a_moment_delays_nothing() {
    require_installed(Path::new(FAKETIME));
    let directory = open_directory();
    let clock = directory.path().join("clock");
    fs::write(&clock, "+0").expect("it can be written");
    let fake = [
        format!("LD_PRELOAD={FAKETIME}"),
        format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ];
    let wrapper: Vec<&str> = ["env"].into_iter().chain(fake.iter().map(String::as_str)).collect();
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start(&provider).await;
    let mut portreeve = Portreeve::prepare(&Setup::default().provider(&provider, &dovecot));
    portreeve.spawn_under(&wrapper);
    portreeve.until_ready().await;
    let grant = provider.mint("ada").await;
    portreeve.add_account("ada", &grant).await;
    let token = portreeve.add_token("ada").await;

    provider.fault(Fault::ServerError).await;
    fs::write(&clock, "+86400").expect("it can be written");
    assert!(seconds_under(&wrapper) > seconds_now() + 80_000, "the clock is wrong");
    let refused = portreeve.connect().await.login("ada", &token).await.tagged;
    assert!(refused.starts_with("NO [UNAVAILABLE]"), "{refused}");
    fs::write(&clock, "+0").expect("it can be written");

    let shown = portreeve.read("/v1/account/ada").await;
    assert_eq!(shown["state"], "failing", "{shown}");
    let next: jiff::Timestamp = shown["nextTry"].as_str().expect("a time").parse().expect("RFC 3339");
    let ahead = next.as_second() - i64::try_from(seconds_now()).expect("a time of this century");
    assert!(ahead < 600, "{shown}");
    provider.clear_faults().await;
    until(PATIENCE, "the account works again", async || {
        let reply = portreeve.connect().await.login("ada", &token).await.tagged;
        (reply == "OK ada authenticated").then_some(())
    })
    .await;
    let shown = portreeve.read("/v1/account/ada").await;
    let expires: jiff::Timestamp = shown["expires"].as_str().expect("a time").parse().expect("RFC 3339");
    let life = expires.as_second() - i64::try_from(seconds_now()).expect("a time of this century");
    assert!((3000..=3700).contains(&life), "{shown}");
}

/// The seconds since the epoch as a program sees them that is started like the daemon.
fn seconds_under(wrapper: &[&str]) -> u64 {
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .args(["date", "+%s"])
        .output();
    let text = String::from_utf8(output.expect("date is there").stdout).expect("digits");
    text.trim().parse().expect("digits")
}

fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.expect("it is after 1970").as_secs()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_makes_unready_and_holds_up_neither_a_deletion_nor_the_end() {
    let directory = open_directory();
    let hold = directory.path().join("hold");
    let library = hanging_disk(directory.path());
    let host = Host::start().await;
    let mut portreeve = Portreeve::prepare(&Setup::default().with(&host.provider()));
    let preload = format!("LD_PRELOAD={}", library.display());
    let held = format!("PORTREEVE_TEST_HOLD={}", hold.display());
    portreeve.spawn_under(&["env", &preload, &held]);
    portreeve.until_ready().await;
    let (id, token) = add_account(&portreeve, "alice").await;
    let mut session = portreeve.logged_in("alice", &token).await;

    fs::write(&hold, "").expect("it can be written");
    let begun = Instant::now();
    let (status, answer) = portreeve.delete(&format!("/v1/token/{id}")).await;
    assert_eq!((status, answer), (200, json!({ "deleted": true, "durable": false })));
    assert!(session.line().await.starts_with("* BYE "), "{}", session.transcript());
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let refused = portreeve.connect().await.login("alice", &token).await.tagged;
    assert!(refused.starts_with("NO [AUTHENTICATIONFAILED]"), "{refused}");
    assert_eq!(portreeve.read("/v1/tokens").await["total"], 0);

    until(PATIENCE, "the daemon is unready", async || {
        let (status, answer) = portreeve.ask(Method::GET, "/readyz", None).await;
        let message = answer["message"].as_str().unwrap_or_default();
        (status == 503 && message.contains("longer than 5 s")).then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(portreeve.ask(Method::GET, "/readyz", None).await.0, 503);
    }
    let told = portreeve
        .log()
        .lines()
        .filter(|line| line.contains("not ready"))
        .count();
    assert_eq!(told, 1, "{}", portreeve.log());

    // With the bed's two seconds to drain, and the disk still silent.
    portreeve.process().signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(portreeve.process().wait().await.code(), Some(0), "{}", portreeve.log());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    fs::remove_file(&hold).expect("it is ours");
    portreeve.spawn();
    portreeve.until_ready().await;
    assert_eq!(portreeve.read("/v1/accounts").await["total"], 1);
}

/// A library that has every sync of a file wait for as long as a file is there.
fn hanging_disk(directory: &Path) -> PathBuf {
    let source = directory.join("hang.c");
    let library = directory.join("hang.so");
    let text = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static int after(const char *name, int file) {
  const char *hold = getenv("PORTREEVE_TEST_HOLD");
  while (hold && access(hold, F_OK) == 0) usleep(10000);
  int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  return sync(file);
}
int fsync(int file) { return after("fsync", file); }
int fdatasync(int file) { return after("fdatasync", file); }
"#;
    fs::write(&source, text).expect("it can be written");
    let output = Command::new("c++")
        .args(["-x", "c", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .expect("a compiler is part of the testbed");
    assert!(output.status.success(), "{output:?}");
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_store_is_refused_with_what_to_do_until_the_loss_is_accepted() {
    let host = Host::start().await;
    let mut portreeve = Setup::default().with(&host.provider()).start().await;
    add_account(&portreeve, "alice").await;
    let witness = portreeve.state_dir().join("store.witness");
    until(PATIENCE, "the witness knows of the token", async || {
        let says: Value = serde_json::from_slice(&fs::read(&witness).ok()?).ok()?;
        (says["tokens"] == 1).then_some(())
    })
    .await;
    portreeve.kill();

    let store = portreeve.state_dir().join("store");
    let journal = fs::read_dir(&store).expect("it is there").find_map(|entry| {
        let path = entry.expect("it can be read").path();
        path.extension().is_some_and(|kind| kind == "jnl").then_some(path)
    });
    let journal = journal.expect("a store has a journal");
    let mut bytes = fs::read(&journal).expect("it can be read");
    bytes[0] ^= 0xFF;
    fs::write(&journal, &bytes).expect("it can be written");
    let said = refusal(&portreeve).await;
    assert!(said.contains("1 of 1 accounts, 1 of 1 access tokens"), "{said}");
    assert!(said.contains("--accept-loss") && said.contains("backup"), "{said}");
    assert_eq!(
        fs::read(&journal).expect("it can be read"),
        bytes,
        "it is left as it was found"
    );

    let away = portreeve.state_dir().join("away");
    fs::rename(&store, &away).expect("it is ours");
    let said = refusal(&portreeve).await;
    assert!(said.contains("is missing") && said.contains("--accept-loss"), "{said}");
    fs::rename(&away, &store).expect("it is ours");

    let config = portreeve.config_file();
    let mut accepting = Process::spawn(
        "portreeve --accept-loss",
        Command::new(env!("CARGO_BIN_EXE_portreeve"))
            .args(["serve", "--accept-loss", "--config"])
            .arg(config),
    );
    accepting.stderr_line(|line| line.contains("records are missing")).await;
    accepting.stderr_line(|line| line.contains("ready")).await;
    assert_eq!(portreeve.read("/v1/accounts").await["total"], 0);
    accepting.signal(Signal::TERM);
    assert!(accepting.wait().await.success(), "{}", accepting.log_tail());
    portreeve.spawn();
    portreeve.until_ready().await;
}

/// What a daemon says that does not start.
async fn refusal(portreeve: &Portreeve) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
    let mut process = Process::spawn(
        "a refused portreeve",
        command.arg("serve").arg("--config").arg(portreeve.config_file()),
    );
    assert_eq!(process.wait().await.code(), Some(1), "{}", process.log_tail());
    process.until_output_ends().await;
    process.stderr()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_takes_an_accounts_provider_away_is_refused_and_a_start_warns() {
    let host = Host::start().await;
    let setup = Setup::default().with(&host.provider());
    let mut portreeve = setup.start().await;
    let (_, token) = add_account(&portreeve, "alice").await;
    portreeve.write_config("");
    portreeve.reload();
    let missing = format!("provider '{PROVIDER}' is not configured, but 1 account is of it");
    portreeve
        .process()
        .stderr_line(|line| line.contains("the new configuration is refused") && line.contains(&missing))
        .await;
    portreeve.logged_in("alice", &token).await;

    portreeve.kill();
    portreeve.spawn();
    portreeve.until_ready().await;
    portreeve.process().stderr_line(|line| line.contains(&missing)).await;
    portreeve.write_config(&host.provider());
    portreeve.reload();
    portreeve
        .process()
        .stderr_line(|line| line.contains("configuration reloaded"))
        .await;
    portreeve.logged_in("alice", &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_end_quietly_when_nobody_reads_on_and_say_so_when_the_disk_is_full() {
    let host = Host::start().await;
    let portreeve = Setup::default().with(&host.provider()).start().await;
    add_account(&portreeve, "alice").await;
    let socket = portreeve.socket().display().to_string();
    let commands = [
        format!("token list --socket {socket}"),
        format!("status --socket {socket}"),
        "config show".to_owned(),
        "demo --once".to_owned(),
        "demo".to_owned(),
    ];
    for command in &commands {
        let ended = shell(&format!("{{ \"$0\" {command}; echo $? >&3; }} 3>&2 | true"));
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(["0\n", "141\n"].contains(&&*stderr), "{command}: {stderr}");
    }
    for command in commands.iter().map(String::as_str).chain(["--help", "account --help"]) {
        let ended = shell(&format!("\"$0\" {command} > /dev/full"));
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{command}: {stderr}");
        assert!(
            stderr.starts_with("portreeve: cannot write to standard output: No space left on device"),
            "{command}: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{command}: {stderr}");
    }
}

fn shell(script: &str) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_portreeve")]);
    command.output().expect("sh is there")
}

/// Adds an account with a password; the id of an access token of it, and the token.
async fn add_account(portreeve: &Portreeve, account: &str) -> (String, String) {
    let body = json!({ "account": account, "provider": PROVIDER, "user": account, "password": "sesame" });
    portreeve.post("/v1/account", &body).await;
    let body = json!({ "account": account, "scopes": ["imap-proxy"], "description": "a test" });
    let made = portreeve.post("/v1/token", &body).await;
    let text = |field: &str| made[field].as_str().expect("text").to_owned();
    (text("id"), text("token"))
}

/// Debian's package `faketime`.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
