//! The bed's Postfix and Dovecot's POP3, without the proxy: what the tests of submission and of POP3
//! take for granted is shown here.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::dovecot::Dovecot;
use crate::support::pop3::{Pop3, is_ok};
use crate::support::postfix::{Postfix, UTF8_DOMAIN};
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::smtp::Smtp;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";

struct Mail {
    provider: Provider,
    postfix: Postfix,
    dovecot: Dovecot,
}

impl Mail {
    async fn start() -> Mail {
        let provider = Provider::start(ProviderOptions::default()).await;
        let dovecot = Dovecot::start_with_passwords(&provider, &[(BOB, "secret")]).await;
        let postfix = Postfix::start(&dovecot).await;
        Mail {
            provider,
            postfix,
            dovecot,
        }
    }

    async fn over_starttls(&self) -> Smtp {
        let mut clear = Smtp::connect(self.postfix.submission()).await;
        clear.ehlo().await;
        let mut upgraded = clear.starttls(self.dovecot.authority()).await;
        upgraded.ehlo().await;
        upgraded
    }

    /// The mailbox's messages, once there are this many.
    async fn messages(&self, mailbox: &str, number: usize) -> Vec<Vec<u8>> {
        until(PATIENCE, "what was sent is delivered", async || {
            let messages = self.dovecot.messages(mailbox);
            (messages.len() >= number).then_some(messages)
        })
        .await
    }
}

#[tokio::test]
async fn postfix_takes_oauth_tokens_and_passwords_inside_tls_only() {
    let mail = Mail::start().await;
    let grant = mail.provider.mint(ALICE).await;

    let local = SocketAddr::from(([127, 0, 0, 9], 0));
    let mut clear = Smtp::connect_from(local, mail.postfix.submission()).await;
    assert_eq!(clear.greeting().code, 220);
    mail.postfix.logged("connect from unknown[127.0.0.9]").await;
    let offer = clear.ehlo().await;
    assert!(offer.has_line("STARTTLS"), "{offer:?}");
    assert!(!offer.lines.iter().any(|line| line.starts_with("AUTH")), "{offer:?}");
    let mut upgraded = clear.starttls(mail.dovecot.authority()).await;
    let offer = upgraded.ehlo().await;
    for line in [
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "CHUNKING",
        "ENHANCEDSTATUSCODES",
        "SIZE 62914560",
        "AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER",
    ] {
        assert!(offer.has_line(line), "{line}: {offer:?}");
    }
    assert_eq!(upgraded.command(&format!("MAIL FROM:<{ALICE}>")).await.code, 250);
    assert_eq!(upgraded.command(&format!("RCPT TO:<{BOB}>")).await.code, 554);
    assert_eq!(upgraded.command("RSET").await.code, 250);
    let login = upgraded.auth_xoauth2(ALICE, &grant.access_token).await;
    assert_eq!(login.reply.code, 235, "{login:?}");

    let mut tls = Smtp::connect_tls(mail.postfix.smtps(), mail.dovecot.authority()).await;
    tls.ehlo().await;
    let login = tls.auth_oauthbearer(ALICE, &grant.access_token).await;
    assert_eq!(login.reply.code, 235, "{login:?}");
    let mut tls = mail.over_starttls().await;
    assert_eq!(tls.auth_plain(BOB, "secret").await.reply.code, 235);
}

#[tokio::test]
async fn postfix_refuses_with_the_challenge_of_the_mechanism() {
    let mail = Mail::start().await;
    let expired = mail.provider.mint_with_life(ALICE, -60).await;

    let mut smtp = mail.over_starttls().await;
    let refused = smtp.auth_xoauth2(ALICE, &expired.access_token).await;
    assert_eq!(
        refused.challenge.as_deref(),
        Some(r#"{"status":"401","schemes":"bearer","scope":"mail"}"#)
    );
    assert_eq!(refused.reply.code, 535, "{refused:?}");
    assert!(refused.reply.lines[0].starts_with("5.7.8"), "{refused:?}");
    let refused = smtp.auth_oauthbearer(ALICE, &expired.access_token).await;
    assert_eq!(refused.challenge.as_deref(), Some(r#"{"status":"invalid_token"}"#));
    assert_eq!(refused.reply.code, 535, "{refused:?}");
}

#[tokio::test]
async fn what_is_submitted_lies_in_the_mailbox() {
    let mail = Mail::start().await;
    let message = b"From: bob@example.com\r\nSubject: one\r\n\r\n.one\r\n\xff\xfe\r\n";

    let mut smtp = mail.over_starttls().await;
    smtp.auth_plain(BOB, "secret").await;
    let taken = smtp.submit(BOB, ALICE, message).await;
    assert_eq!(taken.code, 250, "{taken:?}");
    let delivered = &mail.messages(ALICE, 1).await[0];
    let body = b"\r\n\r\n.one\r\n\xff\xfe\r\n";
    assert!(delivered.ends_with(body), "{}", String::from_utf8_lossy(delivered));

    smtp.command(&format!("MAIL FROM:<{BOB}>")).await;
    let elsewhere = smtp.command("RCPT TO:<somebody@elsewhere.example>").await;
    assert_eq!(elsewhere.code, 550, "{elsewhere:?}");
}

#[tokio::test]
async fn addresses_beyond_ascii_and_delivery_reports_work() {
    let mail = Mail::start().await;
    let mut smtp = mail.over_starttls().await;
    smtp.auth_plain(BOB, "secret").await;

    let sender = smtp
        .command("MAIL FROM:<jörg@example.com> SMTPUTF8 BODY=8BITMIME RET=HDRS ENVID=one")
        .await;
    assert_eq!(sender.code, 250, "{sender:?}");
    let recipient = smtp
        .command(&format!("RCPT TO:<αλφα@{UTF8_DOMAIN}> NOTIFY=SUCCESS"))
        .await;
    assert_eq!(recipient.code, 250, "{recipient:?}");
    smtp.command("DATA").await;
    smtp.send_line("Subject: Grüße\r\n\r\nÄ\r\n.").await;
    assert_eq!(smtp.reply().await.code, 250);
    let delivered = &mail.messages(UTF8_DOMAIN, 1).await[0];
    let delivered = String::from_utf8_lossy(delivered).into_owned();
    assert!(delivered.ends_with("Subject: Grüße\n\nÄ\n"), "{delivered}");

    smtp.command(&format!("MAIL FROM:<{BOB}> RET=HDRS ENVID=two")).await;
    smtp.command(&format!("RCPT TO:<{ALICE}> NOTIFY=SUCCESS")).await;
    smtp.command("DATA").await;
    smtp.send_line("Subject: two\r\n\r\ntwo\r\n.").await;
    assert_eq!(smtp.reply().await.code, 250);
    let report = &mail.messages(BOB, 1).await[0];
    let report = String::from_utf8_lossy(report);
    assert!(report.contains("Original-Envelope-Id: two"), "{report}");
}

#[tokio::test]
async fn dovecot_serves_pop3_in_clear_with_stls_and_with_tls() {
    let mail = Mail::start().await;
    let grant = mail.provider.mint(ALICE).await;
    let message = b"Subject: one\r\n\r\n.\r\n..two\r\n\xff\xfe\r\n";
    mail.dovecot.deliver(ALICE, message);

    let mut clear = Pop3::connect(mail.dovecot.pop3()).await;
    assert!(is_ok(clear.greeting()), "{}", clear.greeting());
    assert!(clear.list("CAPA").await.contains(&"STLS".to_owned()));
    let login = clear.auth_xoauth2(ALICE, &grant.access_token).await;
    assert!(is_ok(&login.status), "{login:?}");
    assert_eq!(clear.retr(1).await, message);

    let local = SocketAddr::from(([127, 0, 0, 9], 0));
    let clear = Pop3::connect_from(local, mail.dovecot.pop3()).await;
    let mut upgraded = clear.starttls(mail.dovecot.authority()).await;
    let login = upgraded.auth_oauthbearer(ALICE, &grant.access_token).await;
    assert!(is_ok(&login.status), "{login:?}");
    mail.dovecot.logged("rip=127.0.0.9").await;

    let mut tls = Pop3::connect_tls(mail.dovecot.pop3s(), mail.dovecot.authority()).await;
    let refused = tls.auth_xoauth2(BOB, &grant.access_token).await;
    assert!(refused.status.starts_with("-ERR [AUTH]"), "{refused:?}");
    assert!(refused.challenge.is_some(), "{refused:?}");
    assert!(is_ok(&tls.login(BOB, "secret").await), "{}", tls.transcript());
    let mut tls = Pop3::connect_tls(mail.dovecot.pop3s(), mail.dovecot.authority()).await;
    let login = tls.auth_plain(BOB, "secret").await;
    assert!(is_ok(&login.status), "{login:?}");
}

#[tokio::test]
async fn postfix_leaves_nothing_behind() {
    let mail = Mail::start().await;
    let queue = mail.postfix.queue_directory();
    let pid = std::fs::read_to_string(queue.join("pid/master.pid")).expect("it runs");
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());
    drop(mail);
    assert!(!queue.exists());
    assert!(!process.exists());
}
