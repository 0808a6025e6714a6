//! What clients are told before they log in: what every upstream can do, asked of real servers without a login.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::bed::{Bed, until};
use crate::support::imap::Imap;
use crate::support::pop3::Pop3;
use crate::support::portreeve::Setup;
use crate::support::process::Process;
use crate::support::programs::run;
use crate::support::protocol::Protocol;
use crate::support::provider::ProviderOptions;
use crate::support::smtp::Smtp;
use crate::support::upstream::Security;
use crate::support::wire::Wire;
use crate::support::{PATIENCE, open_directory};

/// Programs that look before they log in, each as the first client there ever was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_client_is_told_what_the_upstreams_can_do_and_so_is_the_first_after_a_restart() {
    let mut bed = Bed::start_whole_on(Setup::default(), ProviderOptions::default(), &[]).await;
    let token = bed.account(ALICE).await;
    restart(&mut bed).await;
    until(PATIENCE, "the upstreams were asked", async || {
        let status = bed.portreeve.read("/v1/status").await;
        let upstreams = status["upstreams"].as_array().cloned().unwrap_or_default();
        let is_known = |upstream: &Value| upstream["capabilities"].is_array() && upstream["asked"].is_string();
        (upstreams.len() == 3 && upstreams.iter().all(is_known)).then_some(())
    })
    .await;
    assert_told(&bed).await;
    assert_eq!(bed.metric("portreeve_logins_total", "").await, 0.0, "{}", bed.log());

    // It is in the store: nobody is asked again, and nobody has to wait.
    restart(&mut bed).await;
    assert_told(&bed).await;
    assert!(
        !bed.portreeve.log().contains("learned what an upstream can do"),
        "{}",
        bed.log()
    );

    let folder = open_directory();
    let password = folder.path().join("password");
    std::fs::write(&password, &token).expect("the password can be written");
    let mut msmtp = Command::new("sh");
    msmtp.args([
        "-c",
        r#"printf 'Subject: hi\r\n\r\nhi\r\n' | exec msmtp --host=localhost --auth=plain --tls=off --port="$1" --user="$2" \
           --passwordeval="cat $3" --from="$2" --dsn-notify=success --dsn-return=headers -- bob@example.com"#,
        "sh",
        &bed.portreeve.door(Protocol::Smtp, Security::Off).port().to_string(),
        ALICE,
        &password.display().to_string(),
    ]);
    run("msmtp", &mut msmtp, || bed.log()).await;
}

async fn restart(bed: &mut Bed) {
    bed.portreeve.process().signal(Signal::TERM);
    bed.portreeve.process().wait().await;
    bed.portreeve.spawn();
    bed.portreeve.until_ready().await;
}

async fn assert_told(bed: &Bed) {
    let imap = bed.portreeve.connect().await;
    let beginning = "* OK [CAPABILITY IMAP4rev1 LITERAL- SASL-IR ID AUTH=PLAIN AUTH=LOGIN IDLE";
    assert!(imap.greeting().starts_with(beginning), "{}", imap.greeting());
    let mut pop3 = Pop3::connect(bed.portreeve.door(Protocol::Pop3, Security::Off)).await;
    let told = pop3.list("CAPA").await;
    for name in ["TOP", "UIDL", "PIPELINING"] {
        assert!(told.iter().any(|line| line == name), "{told:?}");
    }
    let mut smtp = Smtp::connect(bed.portreeve.door(Protocol::Smtp, Security::Off)).await;
    let told = smtp.ehlo().await;
    for line in ["DSN", "SMTPUTF8", "8BITMIME", "SIZE 62914560"] {
        assert!(told.has_line(line), "{told:?}");
    }
}

/// Dovecot tells IDLE to whoever asks, and so much more behind the login that what is promised then is its own list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_brings_what_is_told_before_the_next_up_to_date() {
    let bed = Bed::start(ProviderOptions::default(), "").await;
    let token = bed.account(ALICE).await;
    let mut first = bed.portreeve.logged_in(ALICE, &token).await;
    let own = first.command("CAPABILITY").await.untagged_text().concat();
    let second: Imap = bed.portreeve.connect().await;
    for name in [
        "IDLE",
        "NAMESPACE",
        "UIDPLUS",
        "MOVE",
        "UNSELECT",
        "CHILDREN",
        "SPECIAL-USE",
    ] {
        let word = format!(" {name}");
        assert_eq!(
            second.greeting().contains(&word),
            own.contains(&word),
            "{name}: {own}\n{}",
            second.greeting()
        );
    }
    assert!(second.greeting().contains(" MOVE"), "{}", second.greeting());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_cannot_or_does_not_want_to_speak_tls_is_told_of_in_its_own_terms() {
    let portreeve = Setup::default().listening(Protocol::Pop3).start().await;
    let imaps = format!("localhost:{}", portreeve.imaps().port());
    let stls = format!(
        "localhost:{}",
        portreeve.door(Protocol::Pop3, Security::StartTls).port()
    );
    for (arguments, reason, protocol, hint) in [
        (
            &["-connect", &imaps, "-tls1_2", "-cipher", "AES128-SHA@SECLEVEL=0"][..],
            "tls_ciphers",
            "imap",
            "a client has no TLS cipher in common",
        ),
        (
            &["-connect", &stls, "-starttls", "pop3", "-verify_return_error"],
            "tls_certificate",
            "pop3",
            "a client does not trust this listener's certificate",
        ),
    ] {
        let mut openssl = Command::new("openssl");
        Process::spawn("openssl", openssl.arg("s_client").args(arguments))
            .wait()
            .await;
        assert_counted(&portreeve, protocol, reason, hint).await;
    }
    // OpenSSL of today does not speak TLS 1.1 any more.
    let mut old = Wire::connect(portreeve.imaps()).await;
    old.send(TLS_1_1_HELLO).await;
    let alert = old.rest().await;
    assert_eq!(alert[..2], [0x15, 3], "a TLS alert: {alert:?}");
    assert_counted(
        &portreeve,
        "imap",
        "tls_version",
        "a client speaks no TLS newer than 1.1",
    )
    .await;
    assert!(
        !portreeve.log().contains("have the upstream speak"),
        "{}",
        portreeve.log()
    );
}

async fn assert_counted(portreeve: &crate::support::portreeve::Portreeve, protocol: &str, reason: &str, hint: &str) {
    let labels = format!("protocol=\"{protocol}\",reason=\"{reason}\"");
    until(PATIENCE, "the refusal is counted and told", async || {
        let count = portreeve.metric("portreeve_connections_refused_total", &labels).await;
        let log = portreeve.log();
        let line = log.lines().find(|line| line.contains(hint));
        (count >= 1.0 && line.is_some_and(|line| line.contains("INFO"))).then_some(())
    })
    .await;
}

/// A ClientHello whose last version is TLS 1.1, with RSA and AES-CBC, and no extensions.
const TLS_1_1_HELLO: &[u8] = &[
    0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 0, 0, 2, 0, 0x2f, 1, 0,
];

const ALICE: &str = "alice@example.com";
