//! `portreeve account import`, with configurations that the real email-oauth2-proxy wrote.

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::emailproxy::EmailProxy;
use crate::support::portreeve::PROVIDER;
use crate::support::provider::ProviderOptions;
use crate::support::shell::{Printed, Shell, assert_in_order};

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const CAROL: &str = "carol@example.com";
const PASSWORD: &str = "the pass word that Alice's program had: ä%";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_of_emailproxy_log_in_with_the_grants_that_they_had_there() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let mut peer = EmailProxy::start(
        &bed.provider,
        &bed.dovecot,
        &[ALICE, BOB, CAROL],
        "encrypt_client_secret_on_first_use = True",
    )
    .await;
    peer.authorize(ALICE, PASSWORD).await;
    peer.authorize(BOB, "another").await;
    peer.stop();
    let file = peer.config_file().display().to_string();
    let written = std::fs::read_to_string(&file).expect("it can be read");
    assert_in_order(&written, &["refresh_token = gAAAA", "client_secret_encrypted = gAAAA"]);
    let shell = Shell::at(bed.portreeve.socket());
    let import = [
        "account",
        "import",
        "--from",
        "emailproxy",
        &file,
        "--password-file",
        "-",
    ];

    // A dry run opens what it can and changes nothing.
    let planned = shell.run_with(&[&import[..], &["--dry-run", "--json"]].concat(), PASSWORD);
    assert_eq!(
        results(&planned),
        [
            (ALICE, "planned", true),
            (BOB, "failed", false),
            (CAROL, "planned", false)
        ]
    );
    assert_eq!(shell.done(&["account", "list", "--json"]).json()["total"], 0);

    // Bob's password is another; he fails alone, and Carol never consented.
    let imported = shell.run_with(&[&import[..], &["--print-config"]].concat(), PASSWORD);
    assert_eq!(imported.code, 1, "{imported:?}");
    assert_in_order(
        &imported.stdout,
        &[
            "[provider.imported]",
            "client_id = \"portreeve\"",
            "client_secret_file = ",
            &format!(
                "imap = {{ host = \"localhost\", port = {}, tls = \"implicit\" }}",
                bed.dovecot.imaps().port()
            ),
            ALICE,
            "imported",
            "with its grant",
            BOB,
            "failed",
            "the password does not open its refresh token",
            CAROL,
            "imported",
            &format!("portreeve account authorize {CAROL}"),
        ],
    );
    assert_tells_no_secret(&imported, &bed.provider.endpoints().client_secret);

    let token = bed.portreeve.add_token(ALICE).await;
    bed.portreeve.logged_in(ALICE, &token).await;
    assert_eq!(bed.portreeve.account_state(ALICE).await, "active");
    assert_eq!(
        bed.portreeve.read(&format!("/v1/account/{ALICE}")).await["provider"],
        PROVIDER
    );
    assert!(!bed.portreeve.log().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accounts_that_exist_are_left_alone_unless_their_grant_is_to_be_replaced() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let mut peer = EmailProxy::start(&bed.provider, &bed.dovecot, &[ALICE], "").await;
    peer.authorize(ALICE, PASSWORD).await;
    peer.stop();
    let file = peer.config_file().display().to_string();
    let shell = Shell::at(bed.portreeve.socket());
    let import = ["account", "import", "--from", "emailproxy", &file, "--json"];

    // Without the password there is no grant to log in with.
    let imported = shell.done(&import);
    assert_eq!(results(&imported), [(ALICE, "imported", false)]);
    let token = bed.portreeve.add_token(ALICE).await;
    let refused = bed.portreeve.connect().await.login(ALICE, &token).await;
    assert!(!refused.is_ok(), "{refused:?}");

    let with_password = [&import[..], &["--password-file", "-"]].concat();
    let skipped = shell.done_with(&with_password, PASSWORD);
    assert_eq!(results(&skipped), [(ALICE, "skipped", false)]);
    let replaced = shell.done_with(&[&with_password[..], &["--replace"]].concat(), PASSWORD);
    assert_eq!(results(&replaced), [(ALICE, "imported", true)]);
    bed.portreeve.logged_in(ALICE, &token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_of_another_app_is_refused_before_anything_is_made_of_it() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let mut peer = EmailProxy::start(&bed.provider, &bed.dovecot, &[ALICE], "").await;
    peer.authorize(ALICE, PASSWORD).await;
    peer.stop();
    let file = peer.config_file();
    let written = std::fs::read_to_string(&file).expect("it can be read");
    std::fs::write(
        &file,
        written.replace("client_id = portreeve", "client_id = another-app"),
    )
    .expect("it can be written");
    let file = file.display().to_string();
    let shell = Shell::at(bed.portreeve.socket());
    let import = [
        "account",
        "import",
        "--from",
        "emailproxy",
        &file,
        "--json",
        "--password-file",
        "-",
    ];

    let failed = shell.run_with(&import, PASSWORD);
    assert_eq!(results(&failed), [(ALICE, "failed", false)]);
    assert_eq!(failed.code, 1);
    assert_in_order(&failed.stdout, &["another-app", PROVIDER, "portreeve"]);
    assert_eq!(shell.done(&["account", "list", "--json"]).json()["total"], 0);
    // Naming the provider chooses who asks for tokens, not whom the grant was given to.
    let named = shell.run_with(&[&import[..], &["--provider", PROVIDER]].concat(), PASSWORD);
    assert_eq!(results(&named), [(ALICE, "failed", false)]);
    let unknown = shell.run_with(&[&import[..], &["--provider", "nobody"]].concat(), PASSWORD);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert_in_order(&unknown.stderr, &["nobody", PROVIDER]);
}

/// Account, result and whether there is a grant, of each line of `--json`.
fn results(printed: &Printed) -> Vec<(&'static str, &'static str, bool)> {
    let known = |text: &Value, all: &[&'static str]| {
        let found = all.iter().find(|one| **one == *text);
        *found.unwrap_or_else(|| panic!("{text} is not expected: {printed:?}"))
    };
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {printed:?}"));
        (
            known(&row["account"], &[ALICE, BOB, CAROL]),
            known(&row["result"], &["imported", "planned", "skipped", "failed"]),
            row["grant"] == json!(true),
        )
    };
    printed.stdout.lines().map(row).collect()
}

fn assert_tells_no_secret(printed: &Printed, client_secret: &str) {
    for text in [&printed.stdout, &printed.stderr] {
        assert!(
            !text.contains(PASSWORD) && !text.contains(client_secret) && !text.contains("gAAAA"),
            "{text}"
        );
    }
}
