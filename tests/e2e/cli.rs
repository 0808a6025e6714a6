//! The command line as a person or a script uses it: the built program, its output and its exit codes.

use serde_json::{Value, json};

use crate::support::dovecot::Dovecot;
use crate::support::open_directory;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::process::Process;
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::shell::{Shell, assert_in_order, only_token_in};

const ALICE: &str = "alice@bed.test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_is_added_used_and_removed() {
    let bed = Bed::start().await;
    let shell = bed.shell();
    let grant = bed.provider.mint(ALICE).await;

    // The provider is guessed from the address, and the refresh token never stands in an argument.
    let added = shell.done_with(
        &["account", "add", ALICE, "--refresh-token-file", "-", "--json"],
        &format!("{}\n", grant.refresh_token),
    );
    assert_eq!(added.json(), json!({ "account": ALICE, "state": "new" }));
    let account = shell.done(&["account", "show", ALICE, "--json"]).json();
    assert_eq!(account["provider"], PROVIDER);
    assert_eq!(account["email"], ALICE);
    assert_eq!(account["state"], "new");
    assert!(!account.to_string().contains(&grant.refresh_token));

    let report = shell.done(&["account", "verify", ALICE, "--json"]).json();
    let results: Vec<(&str, &str)> = report["steps"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|step| {
            let text = |field: &str| step[field].as_str().expect("text");
            (text("name"), text("result"))
        })
        .collect();
    assert_eq!(
        results,
        [
            ("dns", "ok"),
            ("connect", "ok"),
            ("tls", "ok"),
            ("token", "ok"),
            ("scopes", "ok"),
            ("login", "ok"),
            ("command", "ok")
        ]
    );
    let verified = shell.done(&["account", "verify", ALICE]).stdout;
    assert_in_order(
        &verified,
        &["dns", "connect", "tls", "token", "scopes", "login", "command"],
    );

    let listed = shell.done(&["account", "list", "--json"]).json();
    assert_eq!((&listed["total"], &listed["page"]), (&json!(1), &json!(0)));
    assert_eq!(listed["accounts"][0]["account"], ALICE);
    assert_eq!(listed["accounts"][0]["state"], "active");
    let listed = shell.done(&["account", "list"]).stdout;
    assert_in_order(&listed, &[ALICE, "active"]);

    let shown = shell.done(&["status", "--json"]).json();
    assert_eq!(shown["accounts"]["total"], 1);
    assert_eq!(shown["listeners"].as_array().map(Vec::len), Some(3), "{shown}");
    assert!(
        shell
            .done(&["status"])
            .stdout
            .contains(&bed.portreeve.imap().to_string())
    );

    let removed = shell.done(&["account", "remove", ALICE, "--json"]).json();
    assert_eq!(removed, json!({ "deleted": true }));
    let gone = shell.run(&["account", "show", ALICE]);
    assert_eq!((gone.code, gone.stdout.as_str()), (1, ""));
    assert_eq!(gone.stderr, format!("portreeve: no such account '{ALICE}'\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_created_used_watched_and_deleted() {
    let bed = Bed::start().await;
    let shell = bed.shell();
    bed.portreeve.add_account(ALICE, &bed.provider.mint(ALICE).await).await;

    // For people: the token once, with what a mail program wants to know.
    let created = shell.done(&["token", "create", "--account", ALICE, "--scope", "imap-proxy"]);
    let token = only_token_in(&created.stdout);
    assert!(
        created.stdout.contains(&bed.portreeve.imap().port().to_string()),
        "{created:?}"
    );

    let created = shell.done(&[
        "token",
        "create",
        "--account",
        ALICE,
        "--scope",
        "imap-proxy",
        "--address",
        "127.0.0.1",
        "--description",
        "a script",
        "--json",
    ]);
    let created = created.json();
    let (second, id) = (text(&created, "token"), text(&created, "id"));
    assert_eq!((second.len(), id.len()), (64, 64));
    let shown = shell.done(&["token", "show", id, "--json"]).json();
    assert_eq!(shown["account"], ALICE);
    assert_eq!(shown["scopes"], json!(["imap-proxy"]));
    assert_eq!(shown["description"], "a script");
    assert_eq!(shown["restrictions"], json!({ "addresses": ["127.0.0.1/32"] }));
    assert_eq!(shown["access"], Value::Null);
    assert!(!shown.to_string().contains(second));

    // Somebody watches while the tokens are used.
    let mut watch = Process::spawn("usage", &mut shell.command(&["usage", "--follow", "--json"]));
    let mut session = bed.portreeve.logged_in(ALICE, &token).await;
    let login: Value = json_line(&watch, "login").await;
    assert_eq!(login["account"], ALICE);
    assert_eq!(login["protocol"], "imap");
    let mut refused = bed.portreeve.connect().await;
    assert!(!refused.login(ALICE, "wrong").await.is_ok());
    assert_eq!(json_line(&watch, "denied").await["account"], ALICE);

    let sessions = shell.done(&["sessions", "list", "--json"]).json();
    let of_alice: Vec<&Value> = sessions["sessions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|session| session["account"] == ALICE)
        .collect();
    assert_eq!(of_alice.len(), 1, "{sessions}");
    let number = text(of_alice[0], "id");
    assert_in_order(&shell.done(&["sessions", "list"]).stdout, &[number, ALICE]);
    let closed = shell.done(&["sessions", "close", number, "--json"]).json();
    assert_eq!(closed, json!({ "closed": true }));
    assert!(session.line().await.starts_with("* BYE "));
    session.expect_end().await;
    drop(session);
    assert!(
        json_line(&watch, "end").await["durationMs"].is_u64(),
        "{}",
        watch.stdout()
    );
    assert_eq!(shell.run(&["sessions", "close", number]).code, 1, "it has ended");
    watch.kill();

    let usage = shell.done(&["usage", "--account", ALICE, "--json"]).json();
    let kinds: Vec<&str> = usage["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| text(event, "kind"))
        .collect();
    assert_eq!(kinds, ["end", "denied", "login"], "newest first");
    let short = &id[..8];
    let told = shell.done(&["usage"]).stdout;
    assert_in_order(&told, &["TIME", "TOKEN", "ADDRESS", "login", ALICE]);
    assert_eq!(told.lines().count(), 4, "a header and three events: {told}");
    bed.portreeve.logged_in(ALICE, second).await;
    let told = shell.done(&["usage", "--token", short]).stdout;
    assert_in_order(&told, &["login", ALICE, &format!("{short} a script"), "127.0.0.1"]);
    assert!(!told.contains("denied"), "{told}");

    let listed = shell.done(&["token", "list", "--account", ALICE, "--json"]).json();
    assert_eq!(listed["total"], 2);
    assert_in_order(&shell.done(&["token", "list"]).stdout, &["a script"]);
    assert_eq!(shell.done(&["token", "show", short, "--json"]).json()["id"], id);
    assert_eq!(shell.run(&["token", "show", &id[..5]]).code, 2);
    let deleted = shell.done(&["token", "delete", short, "--json"]).json();
    assert_eq!(deleted, json!({ "deleted": true }));
    // A token may be deleted by itself as well as by its id.
    shell.done(&["token", "delete", &token]);
    assert_eq!(shell.done(&["token", "list", "--json"]).json()["total"], 0);
    let gone = shell.run(&["token", "delete", id]);
    assert_eq!(
        (gone.code, gone.stderr),
        (1, format!("portreeve: no such token '{short}'\n"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_token_and_one_that_makes_others_are_created_and_shown() {
    let bed = Bed::start().await;
    let shell = bed.shell();
    bed.portreeve.add_account(ALICE, &bed.provider.mint(ALICE).await).await;
    let create = ["token", "create", "--account", ALICE];
    let created = shell.done(&[&create[..], &["--short"]].concat()).stdout;
    assert_in_order(
        &created,
        &["Token: ", "Upper and lower case mean the same", "IMAP", "password"],
    );
    let token = created
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("Token: "))
        .expect("a token");
    assert_eq!(token.len(), 20);
    let shown = shell.done(&["token", "show", &token.to_lowercase()]).stdout;
    assert_in_order(&shown, &["form", "short (20 characters)", "scopes", "imap-proxy"]);

    let maker = [&create[..], &["--scope", "api", "--may-grant", "imap-proxy", "--json"]].concat();
    let maker = shell.done(&maker).json();
    let mut child = shell.command(&[&create[..], &["--json"]].concat());
    let child = child
        .env("PORTREEVE_TOKEN", text(&maker, "token"))
        .output()
        .expect("it runs");
    let child: Value = serde_json::from_slice(&child.stdout).expect("a token");
    assert_in_order(
        &shell.done(&["token", "show", text(&maker, "id")]).stdout,
        &["may grant", "imap-proxy"],
    );
    let shown = shell.done(&["token", "show", text(&child, "id")]).stdout;
    assert_in_order(&shown, &["made by", text(&maker, "id")]);

    for (arguments, field) in [
        (&["--expires", "2020-01-01T00:00:00Z"][..], "expires: 2020-01-01"),
        (&["--scope", "pop3"], "has no POP3 for this mailbox; leave 'pop3' out"),
        (&["--may-grant", "smtp"], "mayGrant: is for tokens with the scope api"),
    ] {
        let refused = shell.run(&[&create[..], arguments].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
        assert!(refused.stderr.contains(field), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_says_which_step_failed() {
    let portreeve = Setup::default()
        .with(&format!(
            "[provider.{PROVIDER}]\nimap = {{ host = \"localhost\", port = {}, tls = \"implicit\" }}\n",
            free_port(),
        ))
        .start()
        .await;
    let shell = Shell::at(portreeve.socket());
    shell.done_with(
        &[
            "account",
            "add",
            "bob",
            "--provider",
            PROVIDER,
            "--user",
            "bob",
            "--password-file",
            "-",
        ],
        "a password\n",
    );
    let verified = shell.run(&["account", "verify", "bob", "--json"]);
    assert_eq!(verified.code, 1);
    let report = verified.json();
    let result = |step: &str| {
        let steps = report["steps"].as_array().expect("a list");
        let step = steps.iter().find(|it| it["name"] == step);
        step.map(|step| text(step, "result").to_owned())
    };
    assert_eq!(result("dns").as_deref(), Some("ok"));
    assert_eq!(result("connect").as_deref(), Some("failed"));
    assert_eq!(result("login").as_deref(), Some("skipped"));
    let verified = shell.run(&["account", "verify", "bob"]);
    assert_eq!(verified.code, 1);
    assert_in_order(&verified.stdout, &["dns", "connect"]);
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let nowhere = open_directory();
    let shell = Shell::at(nowhere.path().join("admin.sock"));
    let commands: [&[&str]; 7] = [
        &["status"],
        &["account", "list"],
        &["token", "list"],
        &["usage"],
        &["sessions", "list"],
        &["account", "remove", "x"],
        &["token", "create", "--account", "x", "--scope", "imap-proxy"],
    ];
    for command in commands {
        let unreachable = shell.run(command);
        assert_eq!(unreachable.code, 69, "{command:?}: {unreachable:?}");
        assert!(unreachable.stderr.contains("admin.sock"), "{unreachable:?}");
        assert_eq!(unreachable.stdout, "");
    }
    for command in [
        &[][..],
        &["no-such-command"],
        &["account"],
        &["account", "show"],
        &["token", "create", "--what"],
    ] {
        assert_eq!(shell.run(command).code, 2, "{command:?}");
    }
    for command in [&["--help"][..], &["--version"], &["token", "create", "--help"]] {
        assert_eq!(shell.run(command).code, 0, "{command:?}");
    }
    assert!(shell.run(&["--version"]).stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_daemon_refuses_is_told_with_exit_code_1() {
    let portreeve = Setup::default().start().await;
    let shell = Shell::at(portreeve.socket());
    let unknown = "0".repeat(64);
    for command in [
        &["account", "show", "nobody"][..],
        &["account", "remove", "nobody"],
        &["account", "verify", "nobody"],
        &["token", "create", "--account", "nobody", "--scope", "imap-proxy"],
        &["token", "show", &unknown],
        &["token", "delete", &unknown],
        &["sessions", "close", "1"],
    ] {
        let refused = shell.run(command);
        assert_eq!(refused.code, 1, "{command:?}: {refused:?}");
        assert!(refused.stderr.starts_with("portreeve: "), "{command:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{command:?}");
    }
    let unclear = shell.run_with(&["account", "add", "a@unknown.test", "--password-file", "-"], "x");
    assert_eq!(unclear.code, 2, "no provider is known for the address: {unclear:?}");
    assert!(unclear.stderr.contains("--provider"), "{unclear:?}");
}

#[test]
fn a_bad_configuration_is_told_with_its_place_and_exit_code_78() {
    let folder = open_directory();
    let shell = Shell::at(folder.path().join("admin.sock"));
    let file = folder.path().join("bad.toml");
    let name = file.display().to_string();
    std::fs::write(&file, "[limits]\nsessions_max = 5\nlogin_timeuot = \"3s\"\n").expect("it can be written");
    for command in [
        &["config", "check", "--config", &name][..],
        &["serve", "--config", &name],
    ] {
        let refused = shell.run(command);
        assert_eq!(refused.code, 78, "{command:?}: {refused:?}");
        assert_in_order(&refused.stderr, &["bad.toml", "3", "login_timeuot"]);
    }
    let refused = shell.run(&["config", "check", "--json", "--config", &name]);
    assert_eq!(refused.code, 78);
    assert_eq!(refused.json()["ok"], false);
    let missing = folder.path().join("missing.toml").display().to_string();
    assert_eq!(shell.run(&["config", "check", "--config", &missing]).code, 78);

    std::fs::write(&file, "[store]\nbackend = \"postgres\"\n").expect("it can be written");
    let refused = shell.run(&["config", "check", "--config", &name]);
    assert_eq!(refused.code, 78, "it is not built yet, and so refused by name");
    assert!(refused.stderr.contains("postgres"), "{refused:?}");
}

#[test]
fn the_configuration_is_checked_and_shown_without_its_secrets() {
    let folder = open_directory();
    let shell = Shell::at(folder.path().join("admin.sock"));
    let file = folder.path().join("portreeve.toml");
    let name = file.display().to_string();
    let config =
        "[limits]\nsessions_max = 123\n[provider.google]\nclient_id = \"an-app\"\nclient_secret = \"hush-hush\"\n";
    std::fs::write(&file, config).expect("it can be written");

    let checked = shell.done(&["config", "check", "--json", "--config", &name]).json();
    assert_eq!(checked["ok"], true);
    assert_eq!(checked["file"], name.as_str());
    shell.done(&["config", "check", "--config", &name]);
    let shown = shell.done(&["config", "show", "--config", &name]).stdout;
    assert!(shown.contains("sessions_max = 123"), "{shown}");
    assert!(shown.contains("an-app") && !shown.contains("hush-hush"), "{shown}");
    let shown = shell.done(&["config", "show", "--json", "--config", &name]);
    assert!(!shown.stdout.contains("hush-hush"), "{shown:?}");
    let shown = shown.json();
    assert_eq!(shown["limits"]["sessions_max"], 123);
    assert_eq!(
        shown["limits"]["command_line_bytes_max"], 8192,
        "defaults are shown too"
    );
}

/// A mailbox at a provider that is recognised by its domain.
struct Bed {
    portreeve: Portreeve,
    _dovecot: Dovecot,
    provider: Provider,
}

impl Bed {
    async fn start() -> Bed {
        let provider = Provider::start(ProviderOptions::default()).await;
        let dovecot = Dovecot::start(&provider).await;
        let portreeve = Setup::default()
            .provider(&provider, &dovecot)
            // Goes on in the provider's table.
            .with("domains = [\"bed.test\"]")
            .start()
            .await;
        Bed {
            portreeve,
            _dovecot: dovecot,
            provider,
        }
    }

    fn shell(&self) -> Shell {
        Shell::at(self.portreeve.socket())
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field}: {value}"))
}

/// The event of this kind that `usage --follow --json` prints, one a line.
async fn json_line(watch: &Process, kind: &str) -> Value {
    let line = watch
        .stdout_line(|line| serde_json::from_str(line).is_ok_and(|event: Value| event["kind"] == kind))
        .await;
    serde_json::from_str(&line).expect("it was just parsed")
}
