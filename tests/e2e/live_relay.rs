//! Submission through the proxy is a live relay: what a client hears of its letters is what the upstream says of them, nothing
//! is taken in the upstream's place, and a session that ends says so only where it can be understood.

use std::time::Instant;

use crate::support::PATIENCE;
use crate::support::bed::{Bed, until};
use crate::support::portreeve::Setup;
use crate::support::protocol::Protocol;
use crate::support::provider::ProviderOptions;
use crate::support::smtp::Smtp;
use crate::support::upstream::Security;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_promised_what_the_upstream_was_heard_to_honour() {
    let relay = Relay::start(Setup::default()).await;
    let mut first = relay.connect().await;
    first.ehlo().await;
    relay.authenticate(&mut first).await;
    // Postfix's own list comes to whoever asks once more.
    let theirs = first.ehlo().await;
    assert!(theirs.lines[0].starts_with("mail.example.com"), "{theirs:?}");

    let mut second = relay.connect().await;
    let promised = second.ehlo().await.lines[1..].to_vec();
    let expected = [
        "SIZE 62914560",
        "8BITMIME",
        "SMTPUTF8",
        "PIPELINING",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "CHUNKING",
    ];
    assert_eq!(promised, [&expected[..], &["AUTH PLAIN LOGIN"]].concat());
    for line in expected {
        assert!(theirs.has_line(line), "{theirs:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verdict_is_the_upstreams_own() {
    let relay = Relay::start(Setup::default()).await;
    let mut direct = relay.past_the_proxy().await;
    let mut proxied = relay.logged_in().await;
    for (command, code) in [
        ("MAIL FROM:<alice@example.com> SIZE=62914561", 552),
        ("MAIL FROM:<alice@example.com", 501),
        ("RCPT TO:<bob@example.com>", 503),
        ("MAIL FROM:<alice@example.com> SIZE=1000 BODY=8BITMIME", 250),
        ("RCPT TO:<bob@elsewhere.example>", 550),
        ("DATA", 554),
        ("WHATEVER it is", 500),
        ("RSET", 250),
    ] {
        let verdict = direct.command(command).await;
        assert_eq!(verdict.code, code, "{command}: {verdict:?}");
        assert_eq!(proxied.command(command).await, verdict, "{command}");
    }
    assert_eq!(relay.bed.dovecot.messages(BOB), Vec::<Vec<u8>>::new());

    let accepted = proxied.submit(ALICE, BOB, b"Subject: one\r\n\r\none\r\n").await;
    let id = accepted.lines[0].strip_prefix("2.0.0 Ok: queued as ");
    let id = id.unwrap_or_else(|| panic!("{accepted:?}"));
    relay.bed.postfix().logged(&format!("{id}: removed")).await;
    assert_eq!(relay.bed.dovecot.messages(BOB).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_token_ends_a_submission_with_a_word_except_within_a_message() {
    let relay = Relay::start(Setup::default()).await;
    let mut idle = relay.logged_in().await;
    let mut in_envelope = relay.logged_in().await;
    let mut in_message = relay.logged_in().await;
    for smtp in [&mut in_envelope, &mut in_message] {
        for command in ["MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.com>"] {
            assert_eq!(smtp.command(command).await.code, 250, "{command}");
        }
    }
    assert_eq!(in_message.command("DATA").await.code, 354);
    in_message.send_line("Subject: half a letter\r\n\r\none").await;

    let (status, _) = relay.bed.portreeve.delete(&format!("/v1/token/{}", relay.token)).await;
    assert_eq!(status, 200);
    for smtp in [&mut idle, &mut in_envelope] {
        assert_eq!(smtp.line().await, "421 4.7.0 The access token was revoked");
        smtp.expect_end().await;
    }
    in_message.expect_end().await;
    relay.bed.postfix().logged("lost connection after DATA").await;
    relay.bed.until_no_sessions().await;
    assert_eq!(relay.bed.dovecot.messages(BOB), Vec::<Vec<u8>>::new());
    assert!(
        !relay.bed.postfix().log().contains("queue active"),
        "{}",
        relay.bed.log()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submission_beyond_the_limit_waits_for_another_to_end() {
    let relay = Relay::start(Setup::default().with_provider("submissions_max = 1")).await;
    let first = relay.logged_in().await;
    let mut second = relay.connect().await;
    second.ehlo().await;
    let pending = async { second.auth_plain(ALICE, &relay.token).await.reply };
    let ending = async {
        until(PATIENCE, "the second waits", async || {
            let log = relay.bed.portreeve.log();
            log.contains("a submission waits for another to end").then_some(())
        })
        .await;
        quit(first).await;
    };
    let (reply, ()) = tokio::join!(pending, ending);
    assert_eq!(reply.code, 235, "{reply:?}\n{}", relay.bed.log());

    let began = Instant::now();
    let mut third = relay.connect().await;
    third.ehlo().await;
    let refused = third.auth_plain(ALICE, &relay.token).await.reply;
    assert_eq!(refused.code, 454, "{refused:?}");
    assert!(refused.lines[0].starts_with("4.7.0 "), "{refused:?}");
    assert!(began.elapsed().as_secs() >= 4, "it did not wait for the second to end");
    assert_eq!(second.command("NOOP").await.code, 250);
    // The client may try again on the connection that it has.
    quit(second).await;
    relay.authenticate(&mut third).await;
}

/// A whole bed with an account that sends.
struct Relay {
    bed: Bed,
    token: String,
}

impl Relay {
    async fn start(setup: Setup) -> Relay {
        let bed = Bed::start_whole_on(setup, ProviderOptions::default(), &[(ALICE, PASSWORD)]).await;
        Relay {
            token: bed.account(ALICE).await,
            bed,
        }
    }

    /// A client of the proxy that has said nothing yet.
    async fn connect(&self) -> Smtp {
        Smtp::connect(self.bed.portreeve.door(Protocol::Smtp, Security::Off)).await
    }

    async fn authenticate(&self, smtp: &mut Smtp) {
        let login = smtp.auth_plain(ALICE, &self.token).await;
        assert_eq!(login.reply.code, 235, "{}\n{}", smtp.transcript(), self.bed.log());
    }

    async fn logged_in(&self) -> Smtp {
        let mut smtp = self.connect().await;
        smtp.ehlo().await;
        self.authenticate(&mut smtp).await;
        smtp
    }

    /// A client of Postfix itself, logged in.
    async fn past_the_proxy(&self) -> Smtp {
        let mut clear = Smtp::connect(self.bed.postfix().submission()).await;
        clear.ehlo().await;
        let mut smtp = clear.starttls(self.bed.dovecot.authority()).await;
        smtp.ehlo().await;
        assert_eq!(smtp.auth_plain(ALICE, PASSWORD).await.reply.code, 235);
        smtp
    }
}

async fn quit(mut smtp: Smtp) {
    assert_eq!(smtp.command("QUIT").await.code, 221);
    smtp.expect_end().await;
}

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const PASSWORD: &str = "past-the-proxy";
