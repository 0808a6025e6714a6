//! The daemon's life: what it refuses to start on, signals, reloads, limits, a full disk, and its end.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::support::bed::until;
use crate::support::certs::Authority;
use crate::support::host::{FLOW, Host};
use crate::support::imap::Imap;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::shell::Shell;
use crate::support::{PATIENCE, open_directory};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused_and_the_first_unharmed() {
    let bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    let mut session = bed.portreeve.logged_in("alice", &token).await;
    let elsewhere = open_directory();
    let other_state = elsewhere.path().join("state");
    let other_socket = elsewhere.path().join("admin.sock");

    let same_everything = bed.portreeve.config_file();
    let refused = end_of_serve(&same_everything).await;
    let state_dir = bed.portreeve.state_dir().display().to_string();
    refused.expect(1, &[&state_dir, "in use by another portreeve"]);
    let refused = serve_with(elsewhere.path(), &bed.portreeve.state_dir(), &other_socket).await;
    refused.expect(1, &[&state_dir, "in use by another portreeve"]);
    let refused = serve_with(elsewhere.path(), &other_state, &bed.portreeve.socket()).await;
    let socket = bed.portreeve.socket().display().to_string();
    refused.expect(1, &[&socket, "is running"]);

    assert!(session.command("NOOP").await.is_ok());
    bed.portreeve.logged_in("alice", &token).await;
    assert_eq!(bed.portreeve.read("/readyz").await["status"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_can_reach_is_refused() {
    let directory = open_directory();
    let state = directory.path().join("state");
    let socket = directory.path().join("admin.sock");
    for mode in [0o755, 0o750, 0o701] {
        fs::create_dir_all(&state).expect("it can be made");
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).expect("it is ours");
        let refused = serve_with(directory.path(), &state, &socket).await;
        refused.expect(78, &[&state.display().to_string(), "chmod 700"]);
        assert!(
            !state.join("master.key").exists(),
            "nothing is put where others can read it"
        );
    }

    let mut bed = Bed::start("").await;
    bed.add_account("alice").await;
    bed.stop().await;
    let key = bed.portreeve.state_dir().join("master.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let refused = end_of_serve(&bed.portreeve.config_file()).await;
    refused.expect(78, &[&key.display().to_string(), "chmod 600"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_directories_are_for_the_daemon_s_user_alone() {
    let bed = Bed::start("").await;
    bed.add_account("alice").await;
    let state = bed.portreeve.state_dir();
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let files = files_under(&state);
    assert!(files.len() > 1, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&bed.portreeve.socket()), 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_records_are_never_given_another_master_key() {
    let mut bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    bed.stop().await;
    let config = bed.portreeve.config_file();
    let key = bed.portreeve.state_dir().join("master.key");
    let content = fs::read(&key).expect("it was generated");

    fs::remove_file(&key).expect("it is ours");
    let refused = end_of_serve(&config).await;
    refused.expect(78, &[&key.display().to_string(), "missing"]);
    assert!(!key.exists(), "no new key is made");

    let other = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
    fs::write(&key, other).expect("it can be written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let refused = end_of_serve(&config).await;
    refused.expect(78, &[&key.display().to_string(), "not the one"]);
    assert_eq!(fs::read_to_string(&key).expect("it is there"), other);

    fs::write(&key, "no key at all\n").expect("it can be written");
    end_of_serve(&config).await.expect(78, &["32 bytes in base64"]);

    fs::write(&key, content).expect("it can be written");
    bed.start_again().await;
    bed.portreeve.logged_in("alice", &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_later_is_refused_by_name() {
    let directory = open_directory();
    for (later, names) in [("[store]\nbackend = \"postgres\"\n", ["store.backend", "postgres"])] {
        let config = directory.path().join("portreeve.toml");
        let state = directory.path().join("state");
        fs::write(
            &config,
            format!("[server]\nstate_dir = \"{}\"\n{later}", state.display()),
        )
        .expect("it can be written");
        end_of_serve(&config).await.expect(78, &names);
        assert!(!state.exists(), "nothing is begun on a bad configuration");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_says_goodbye_to_the_quiet_and_lets_the_busy_go_on_for_a_while() {
    let mut bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    let mut waiting = bed.portreeve.connect().await;
    let mut idle = bed.portreeve.logged_in("alice", &token).await;
    let mut busy = bed.portreeve.logged_in("alice", &token).await;
    busy.send_line(&format!("B {FLOW}")).await;
    busy.line().await;

    let signalled = Instant::now();
    bed.portreeve.process().signal(Signal::TERM);
    // A busy client keeps reading meanwhile.
    let reading = tokio::spawn(async move {
        loop {
            let line = busy.line().await;
            if line.starts_with("* BYE ") {
                busy.expect_end().await;
                return Instant::now();
            }
            assert_eq!(line, "* OK still here");
        }
    });
    assert_eq!(waiting.line().await, "* BYE The proxy is shutting down");
    waiting.expect_end().await;
    let (status, answer) = bed.portreeve.ask(Method::GET, "/readyz", None).await;
    assert_eq!((status, &answer["code"]), (503, &json!("not_ready")), "{answer}");
    assert_eq!(bed.portreeve.read("/healthz").await["status"], "ok");
    assert!(
        tokio::net::TcpStream::connect(bed.portreeve.imap()).await.is_err(),
        "nobody is accepted any more"
    );
    assert_eq!(idle.line().await, "* BYE The proxy is shutting down");
    idle.expect_end().await;
    let parted = reading.await.expect("the busy session ends in order");
    assert!(
        parted - signalled >= DRAIN_TIMEOUT,
        "it may go on for the time to drain"
    );
    let ended = bed.portreeve.process().wait().await;
    assert_eq!(ended.code(), Some(0), "{}", bed.portreeve.log());
    assert!(!bed.portreeve.socket().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_with_no_sessions_ends_at_once() {
    let mut bed = Bed::start(&server_table("1h")).await;
    bed.portreeve.process().signal(Signal::INT);
    assert_eq!(bed.portreeve.process().wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_at_once() {
    let mut bed = Bed::start(&server_table("1h")).await;
    let token = bed.add_account("alice").await;
    let mut busy = bed.portreeve.logged_in("alice", &token).await;
    busy.send_line(&format!("B {FLOW}")).await;
    busy.line().await;
    bed.portreeve.process().signal(Signal::TERM);
    bed.portreeve
        .process()
        .stderr_line(|line| line.contains("stopping"))
        .await;
    assert!(bed.portreeve.process().is_running());
    bed.portreeve.process().signal(Signal::TERM);
    // An hour is not waited for, or this runs out of patience.
    assert!(
        bed.portreeve.process().wait().await.code().is_some(),
        "it ends by itself"
    );
    while busy.line_or_end().await.is_some() {}
    bed.start_again().await;
    bed.portreeve.logged_in("alice", &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_applies_a_good_configuration_and_refuses_a_bad_one() {
    let mut bed = Bed::start("[limits]\nsessions_per_ip_max = 2\n").await;
    let token = bed.add_account("alice").await;
    let mut session = bed.portreeve.logged_in("alice", &token).await;
    let of_second = json!({ "account": "carol", "provider": "second", "password": "x" });
    let (status, answer) = bed.portreeve.ask(Method::POST, "/v1/account", Some(&of_second)).await;
    assert_eq!(status, 400, "{answer}");

    bed.configure("[limits]\nsessions_per_ip_max = 3\nsessions_per_ip_maxx = 3\n");
    bed.portreeve.reload();
    let process = bed.portreeve.process();
    process.stderr_line(|line| line.contains("the old one stays")).await;
    process.stderr_line(|line| line.contains("sessions_per_ip_maxx")).await;
    let second = bed.portreeve.connect().await;
    let third = bed.portreeve.connect().await;
    assert!(
        third.greeting().starts_with("* BYE "),
        "the old limit holds: {}",
        third.greeting()
    );
    drop(third);

    bed.configure(&format!(
        "[limits]\nsessions_per_ip_max = 3\n{}",
        bed.host.provider_named("second")
    ));
    bed.portreeve.reload();
    bed.portreeve
        .process()
        .stderr_line(|line| line.contains("configuration reloaded"))
        .await;
    let third = bed.portreeve.connect().await;
    assert!(third.greeting().starts_with("* OK "), "{}", third.greeting());
    let fourth = bed.portreeve.connect().await;
    assert!(fourth.greeting().starts_with("* BYE "), "{}", fourth.greeting());
    bed.portreeve.post("/v1/account", &of_second).await;
    assert!(session.command("NOOP").await.is_ok());
    drop((second, third, fourth));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_a_start_and_a_reload_refuse_the_same_and_tell_all_of_it() {
    let mut bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    bed.configure(
        "[secrets]\nmaster_key_file = \"./no.key\"\n[hooks]\ncommand = [\"./no-program\"]\n\
         [certificate.more]\ncert_file = \"no-chain.pem\"\nkey_file = \"key.pem\"\n\
         [provider.more]\nimap = { host = \"imap.example.com\" }\nca_file = \"certificate.toml\"\n\
         grant = \"external\"\ntoken_command = [\"no-such-program\"]\n\
         [provider.google]\ngrant = \"service_account\"\nservice_account_file = \"./no.json\"\n",
    );
    let keys = [
        "secrets.master_key_file",
        "hooks.command",
        "certificate.more.cert_file",
        "provider.more.ca_file",
        "provider.more.token_command",
        "provider.google.service_account_file",
    ];
    let config = bed.portreeve.config_file();
    let name = config.display().to_string();
    let checked = Shell::at(bed.portreeve.socket()).run(&["config", "check", "--config", &name]);
    assert_eq!(checked.code, 78, "{checked:?}");
    let told: Vec<_> = checked
        .stderr
        .lines()
        .map(|line| line.trim_start_matches("portreeve: "))
        .collect();
    assert_eq!(told.len(), keys.len(), "{told:#?}");
    for (line, key) in told.iter().zip(keys) {
        let place = line.strip_prefix(&format!("{name}:")).expect("each names the file");
        let (number, rest) = place.split_once(": ").expect("and the line");
        assert!(number.parse::<u32>().is_ok() && rest.starts_with(key), "{line}");
    }
    end_of_serve(&config).await.expect(78, &told);
    bed.portreeve.reload();
    let process = bed.portreeve.process();
    process.stderr_line(|line| line.contains("the old one stays")).await;
    for line in told {
        process.stderr_line(|logged| logged.contains(line)).await;
    }
    // A key that is good by itself, but not the one that sealed what is there.
    bed.configure("[secrets]\nmaster_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"\n");
    bed.portreeve.reload();
    let process = bed.portreeve.process();
    process
        .stderr_line(|line| line.contains("is not the one that sealed"))
        .await;
    bed.portreeve.logged_in("alice", &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_replaces_the_root_token() {
    let tcp = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let admin_of =
        |token: &str| format!("[admin]\nsocket = \"{{socket}}\"\nlisten = [\"{tcp}\"]\nroot_token = \"{token}\"\n");
    let (old, new) = ("1".repeat(64), "2".repeat(64));
    let mut bed = Bed::start(&admin_of(&old)).await;
    let status_for = async |token: &str| {
        let request = reqwest::Client::new().get(format!("http://{tcp}/v1/accounts"));
        let answer = request.bearer_auth(token).send().await;
        answer.expect("the admin API answers").status().as_u16()
    };
    assert_eq!((status_for(&old).await, status_for(&new).await), (200, 401));
    bed.configure(&admin_of(&new));
    bed.portreeve.reload();
    bed.portreeve
        .process()
        .stderr_line(|line| line.contains("configuration reloaded"))
        .await;
    assert_eq!((status_for(&old).await, status_for(&new).await), (401, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sighup_during_the_start_is_obeyed_after_it() {
    let host = Host::start().await;
    let mut portreeve = Portreeve::prepare(&Setup::default().with(&host.provider()));
    portreeve.spawn();
    portreeve.process().stderr_line(|line| line.contains("listening")).await;
    portreeve.reload();
    let process = portreeve.process();
    process
        .stderr_line(|line| line.contains("configuration reloaded"))
        .await;
    portreeve.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_are_shown_while_sessions_go_on() {
    let mut bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    let imaps = bed.portreeve.imaps();
    let mut session = Imap::connect_tls(imaps, bed.portreeve.authority()).await;
    assert!(session.login("alice", &token).await.is_ok());

    let authority = Authority::new();
    let leaf = authority.issue_for_loopback();
    let files = bed.portreeve.config_file();
    let folder = files.parent().expect("it lies in a folder");
    fs::write(folder.join("certificate.pem"), leaf.certificate_pem).expect("it can be written");
    bed.portreeve.reload();
    let process = bed.portreeve.process();
    process
        .stderr_line(|line| line.contains("certificate.default.key_file: ") && line.contains("does not belong"))
        .await;
    Imap::connect_tls(imaps, bed.portreeve.authority()).await;

    fs::write(folder.join("key.pem"), leaf.key_pem).expect("it can be written");
    bed.portreeve.reload();
    let process = bed.portreeve.process();
    process
        .stderr_line(|line| line.contains("certificates read again"))
        .await;
    let mut renewed = Imap::connect_tls(imaps, &authority).await;
    assert!(renewed.login("alice", &token).await.is_ok());
    assert!(session.command("NOOP").await.is_ok(), "the old session goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_seen_at_once_and_survives_a_stop() {
    let mut bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    let mut session = bed.portreeve.logged_in("alice", &token).await;
    bed.until_usage(&["login"]).await;
    assert!(!bed.portreeve.connect().await.login("alice", "wrong").await.is_ok());
    bed.until_usage(&["denied", "login"]).await;
    let sessions = bed.portreeve.read("/v1/sessions").await;
    let of_alice = &sessions["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|it| it["account"] == "alice");
    let shown = of_alice.expect("it is live");
    assert_eq!(
        (&shown["protocol"], &shown["phase"]),
        (&json!("imap"), &json!("relay")),
        "{shown}"
    );
    assert!(
        shown["remoteAddress"].as_str().expect("text").starts_with("127.0.0.1:"),
        "{shown}"
    );

    bed.portreeve.process().signal(Signal::TERM);
    assert!(session.line().await.starts_with("* BYE "));
    assert_eq!(bed.portreeve.process().wait().await.code(), Some(0));
    bed.start_again().await;
    assert_eq!(bed.usage().await, ["end", "denied", "login"]);
    let tokens = bed.portreeve.read("/v1/tokens").await;
    assert_eq!(tokens["tokens"][0]["access"]["ip"], "127.0.0.1", "{tokens}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_kept_up_to_its_count() {
    let mut bed = Bed::start("").await;
    let token = bed.add_account("alice").await;
    for _ in 0..6 {
        assert!(!bed.portreeve.connect().await.login("alice", "wrong").await.is_ok());
    }
    let sessions = [
        bed.portreeve.logged_in("alice", &token).await,
        bed.portreeve.logged_in("alice", &token).await,
        bed.portreeve.logged_in("alice", &token).await,
    ];
    // The events come a moment behind the replies.
    until(PATIENCE, "every login is on record", async || {
        let usage = bed.portreeve.read("/v1/usage").await;
        (usage["total"] == 4 && usage["events"][3]["count"] == 6).then_some(())
    })
    .await;
    bed.stop().await;
    drop(sessions);
    bed.configure("[store]\nusage_events_max = 3\n");
    bed.start_again().await;
    let deadline = Instant::now() + PATIENCE;
    while bed.usage().await.len() > 4 {
        assert!(Instant::now() < deadline, "{:?}", bed.usage().await);
        tokio::time::sleep(POLL).await;
    }
    let kept = ["end", "end", "end", "denied"];
    assert_eq!(
        bed.usage().await,
        kept,
        "the newest stay, and refused logins count by themselves"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_are_told_and_ended() {
    let bed = Bed::start("[limits]\nidle_timeout = \"2s\"\n").await;
    let token = bed.add_account("alice").await;
    let mut busy = bed.portreeve.logged_in("alice", &token).await;
    busy.send_line(&format!("B {FLOW}")).await;
    let mut session = bed.portreeve.logged_in("alice", &token).await;
    let begun = Instant::now();
    assert_eq!(session.line().await, "* BYE Disconnected for inactivity");
    session.expect_end().await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(busy.line().await, "* OK still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_address_are_limited() {
    let bed = Bed::start("[limits]\nsessions_per_ip_max = 2\n").await;
    let first = bed.portreeve.connect().await;
    let _second = bed.portreeve.connect().await;
    let mut third = bed.portreeve.connect().await;
    assert!(third.greeting().starts_with("* BYE [LIMIT] "), "{}", third.greeting());
    third.expect_end().await;
    let of_another = Imap::connect_from(([127, 0, 0, 9], 0).into(), bed.portreeve.imap()).await;
    assert!(of_another.greeting().starts_with("* OK "));
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while !bed.portreeve.connect().await.greeting().starts_with("* OK ") {
        assert!(Instant::now() < deadline, "the place of one that left is free again");
        tokio::time::sleep(POLL).await;
    }
    let metrics = bed.portreeve.metrics().await;
    let refused = "portreeve_connections_refused_total{protocol=\"imap\",reason=\"sessions_per_ip_max\"}";
    assert!(metrics.contains(refused), "{metrics}");
}

/// A small disk of its own, where this machine lets a test mount one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_survived() {
    let mut mount = vec!["unshare", "--mount"];
    if !rustix::process::geteuid().is_root() {
        mount.insert(1, "--map-root-user");
    }
    let permitted = Command::new(mount[0])
        .args(&mount[1..])
        .args(["sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        // The other kind of trouble with writing is tried below, without any privilege.
        return println!("NOT TRIED: this machine lets nobody mount a disk; a_disk_that_fails_is_survived stands in");
    }
    let host = Host::start().await;
    let mut portreeve = Portreeve::prepare(&Setup::default().with(&host.provider()));
    let state = portreeve.state_dir().display().to_string();
    let script = r#"mkdir -p "$0" && mount -t tmpfs -o size=128m,mode=0700 tmpfs "$0" && exec "$@""#;
    portreeve.spawn_under(&[&mount[..], &["sh", "-c", script, &state]].concat());
    portreeve.until_ready().await;
    let bed = &mut Bed { host, portreeve };
    let token = bed.add_account("alice").await;
    let kept = bed.add_doomed("dora").await;
    let owed = bed.add_doomed("emil").await;

    // The disk is only in the daemon's own mount namespace.
    let ballast = PathBuf::from(format!("/proc/{}/root{state}/ballast", bed.portreeve.process().id()));
    let mut file = fs::File::create(&ballast).expect("the disk takes a file");
    let full = std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("the disk is small");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull, "{full}");
    // Room is kept for deletions; once it is used up, too, they are in force without the disk.
    bed.expect_deletion(&kept, &json!({ "deleted": true })).await;
    let taken = std::io::copy(&mut std::io::repeat(0), &mut file).expect_err("the disk is small");
    assert_eq!(taken.kind(), std::io::ErrorKind::StorageFull, "{taken}");
    bed.expect_deletion(&owed, &json!({ "deleted": true, "durable": false }))
        .await;
    bed.expect_no_writes_but_logins(&token).await;
    fs::remove_file(&ballast).expect("it is ours");
    drop(file);
    bed.expect_recovery(&token).await;
}

/// Every write that makes a file longer fails from one moment on, half-way through whatever is being done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_is_survived() {
    let host = Host::start().await;
    let mut portreeve = Portreeve::prepare(&Setup::default().with(&host.provider()));
    portreeve.spawn_under(&["sh", "-c", r#"trap "" XFSZ; exec "$@""#, "sh"]);
    portreeve.until_ready().await;
    let bed = &mut Bed { host, portreeve };
    let token = bed.add_account("alice").await;
    let owed = bed.add_doomed("emil").await;

    let usual = getrlimit(Resource::Fsize);
    bed.limit_files(Rlimit {
        current: Some(0),
        ..usual
    });
    bed.expect_deletion(&owed, &json!({ "deleted": true, "durable": false }))
        .await;
    bed.expect_no_writes_but_logins(&token).await;
    bed.limit_files(usual);
    bed.expect_recovery(&token).await;
    bed.stop().await;
    bed.start_again().await;
    bed.portreeve.logged_in("alice", &token).await;
    assert_eq!(
        bed.portreeve.read("/v1/accounts").await["total"],
        1,
        "what was owed is written"
    );
}

/// An account that is going to be deleted.
struct Doomed {
    account: &'static str,
    token: String,
}

/// A proxy and an upstream that lets everybody in.
struct Bed {
    host: Host,
    portreeve: Portreeve,
}

impl Bed {
    async fn start(config: &str) -> Bed {
        let host = Host::start().await;
        let mut portreeve = Portreeve::prepare(&Setup::default());
        portreeve.write_config(&chosen(&host, &portreeve, config));
        portreeve.spawn();
        portreeve.until_ready().await;
        Bed { host, portreeve }
    }

    /// Replaces what the test chose of the configuration.
    fn configure(&self, config: &str) {
        self.portreeve
            .write_config(&chosen(&self.host, &self.portreeve, config));
    }

    /// Ends the daemon as a service manager would.
    async fn stop(&mut self) {
        self.portreeve.process().signal(Signal::TERM);
        let ended = self.portreeve.process().wait().await;
        assert_eq!(ended.code(), Some(0), "{}", self.portreeve.log());
    }

    async fn start_again(&mut self) {
        self.portreeve.spawn();
        self.portreeve.until_ready().await;
    }

    /// Adds an account with a password; an access token of it.
    async fn add_account(&self, account: &str) -> String {
        let body = json!({ "account": account, "provider": PROVIDER, "user": account, "password": "sesame" });
        self.portreeve.post("/v1/account", &body).await;
        self.portreeve.add_token(account).await
    }

    async fn add_doomed(&self, account: &'static str) -> Doomed {
        let token = self.add_account(account).await;
        Doomed { account, token }
    }

    /// Deletes an account: whatever the disk says, its session ends, its token is refused and nothing shows it any more.
    async fn expect_deletion(&self, doomed: &Doomed, answer: &Value) {
        let Doomed { account, token } = doomed;
        let mut session = self.portreeve.logged_in(account, token).await;
        let path = format!("/v1/account/{account}");
        let deleted = self.portreeve.delete(&path).await;
        assert_eq!(deleted, (200, answer.clone()), "{}", self.portreeve.log());
        let begun = Instant::now();
        assert!(session.line().await.starts_with("* BYE "), "{}", session.transcript());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        let refused = self.portreeve.connect().await.login(account, token).await.tagged;
        assert!(refused.starts_with("NO [AUTHENTICATIONFAILED]"), "{refused}");
        assert_eq!(self.portreeve.ask(Method::GET, &path, None).await.0, 404);
        assert_eq!(self.portreeve.delete(&path).await.0, 404);
    }

    /// The kinds of the usage events, newest first.
    async fn usage(&self) -> Vec<String> {
        let usage = self.portreeve.read("/v1/usage").await;
        let events = usage["events"].as_array().expect("a list");
        let kind = |event: &Value| event["kind"].as_str().expect("text").to_owned();
        events.iter().map(kind).collect()
    }

    /// Waits until these are all: an event is told a moment after the reply that it is about.
    async fn until_usage(&self, kinds: &[&str]) {
        until(PATIENCE, "usage is told", async || {
            (self.usage().await == kinds).then_some(())
        })
        .await;
    }

    /// Bounds the length of the files that the daemon writes.
    fn limit_files(&mut self, limit: Rlimit) {
        let pid = i32::try_from(self.portreeve.process().id())
            .ok()
            .and_then(Pid::from_raw);
        prlimit(pid, Resource::Fsize, limit).expect("a child may be limited");
    }

    /// Nothing can be written: changes are refused in words, `/readyz` says so, and those who have a token get in.
    async fn expect_no_writes_but_logins(&self, token: &str) {
        let carol = json!({ "account": "carol", "provider": PROVIDER, "password": "x" });
        let of_alice = json!({ "account": "alice", "scopes": ["imap-proxy"], "description": "too late" });
        for (method, path, body) in [
            (Method::POST, "/v1/account", Some(&carol)),
            (Method::POST, "/v1/token", Some(&of_alice)),
        ] {
            let (status, answer) = self.portreeve.ask(method.clone(), path, body).await;
            assert_eq!(
                (status, &answer["code"]),
                (503, &json!("store_unavailable")),
                "{method} {path}: {answer}"
            );
            let message = answer["message"].as_str().expect("text");
            assert!(message.starts_with("cannot write to the store: "), "{message}");
        }
        let (status, answer) = self.portreeve.ask(Method::GET, "/readyz", None).await;
        assert_eq!(status, 503, "{answer}");
        assert_eq!(self.portreeve.read("/healthz").await["status"], "ok");
        let mut session = self.portreeve.logged_in("alice", token).await;
        assert!(session.command("NOOP").await.is_ok());
        assert_eq!(self.portreeve.read("/v1/accounts").await["total"], 1);
        assert_eq!(self.portreeve.read("/v1/tokens").await["total"], 1);
        self.portreeve.read("/v1/usage").await;
        assert_eq!(self.portreeve.read("/v1/status").await["status"], "unready");
    }

    /// Writes succeed again, without a restart, and nothing of before is lost.
    async fn expect_recovery(&mut self, token: &str) {
        self.portreeve.until_ready().await;
        self.portreeve.logged_in("alice", token).await;
        let of_now = self.portreeve.add_token("alice").await;
        self.portreeve.logged_in("alice", &of_now).await;
        let deadline = Instant::now() + PATIENCE;
        while !self.usage().await.contains(&"login".to_owned()) {
            assert!(Instant::now() < deadline, "usage events are kept again");
            tokio::time::sleep(POLL).await;
        }
        let log = self.portreeve.log();
        assert!(log.contains("the store takes no writes for now"), "{log}");
        assert!(log.contains("the store takes writes again"), "{log}");
    }
}

/// What `config` says with the upstream's provider; `{state}` in it is the state directory, `{socket}` the admin socket.
fn chosen(host: &Host, portreeve: &Portreeve, config: &str) -> String {
    let config = config
        .replace("{state}", &portreeve.state_dir().display().to_string())
        .replace("{socket}", &portreeve.socket().display().to_string());
    format!("{config}\n{}", host.provider())
}

/// The table of the server with another time to drain than the bed's own.
fn server_table(drain_timeout: &str) -> String {
    format!("[server]\nhostname = \"localhost\"\nstate_dir = \"{{state}}\"\ndrain_timeout = \"{drain_timeout}\"\n")
}

/// How a daemon ended that could not start.
struct Ended {
    code: Option<i32>,
    stderr: String,
}

impl Ended {
    /// With this exit code and each of these words in what it said.
    fn expect(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing: {}", self.stderr);
        }
    }
}

/// Starts a daemon that is expected to refuse.
async fn end_of_serve(config: &Path) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portreeve"));
    let mut process = Process::spawn("a refused portreeve", command.arg("serve").arg("--config").arg(config));
    let code = process.wait().await.code();
    process.until_output_ends().await;
    Ended {
        code,
        stderr: process.stderr(),
    }
}

/// The same with a configuration of little more than these places.
async fn serve_with(folder: &Path, state: &Path, socket: &Path) -> Ended {
    let config = folder.join("portreeve.toml");
    let text = format!(
        "[server]\nstate_dir = \"{}\"\n[admin]\nsocket = \"{}\"\n[metrics]\nlisten = \"\"\n[[listener]]\nprotocol = \
         \"imap\"\naddress = \"127.0.0.1:0\"\n",
        state.display(),
        socket.display(),
    );
    fs::write(&config, text).expect("it can be written");
    end_of_serve(&config).await
}

/// Every file under a directory.
fn files_under(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("it can be read");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths
        .flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] })
        .collect()
}

/// That of the bed's own configuration.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(10);
