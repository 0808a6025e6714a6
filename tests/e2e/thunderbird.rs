//! Thunderbird, which insists on STARTTLS and is given the proxy's own certificate authority to trust:
//! it reads the mailbox and sends, both through the proxy.

use crate::support::desk::{Desk, MAILBOX};
use crate::support::thunderbird::{Draft, Thunderbird};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thunderbird_reads_the_mailbox_and_sends_to_it_through_starttls() {
    let desk = Desk::start().await;
    let messages = [
        b"From: a@example.com\r\nSubject: short\r\n\r\nA1 OK done\r\n.\r\n\xc3\xa4 \xff\r\n".to_vec(),
        [
            b"From: a@example.com\r\nSubject: long\r\n\r\n".as_slice(),
            &b"A line of many.\r\n".repeat(LINES),
        ]
        .concat(),
    ];
    desk.bed.dovecot.fill(MAILBOX, messages.iter().map(Vec::as_slice));

    let mut thunderbird = Thunderbird::start(&desk.settings).await;
    assert!(thunderbird.read(2).await == messages, "{}", desk.log());
    thunderbird.send(DRAFT).await;
    let read = thunderbird.read(3).await;
    thunderbird.quit().await;

    assert!(
        read == desk.bed.dovecot.messages(MAILBOX),
        "what it reads is what has arrived"
    );
    let sent = String::from_utf8(read[2].clone()).expect("UTF-8, as it was written");
    let (header, body) = sent.split_once("\r\n\r\n").expect("a header and a body");
    assert_eq!(body, DRAFT.body);
    for line in [
        "From: Alice <alice@example.com>",
        "To: Alice <alice@example.com>",
        "Subject: Sent by Thunderbird",
        "User-Agent: Mozilla Thunderbird",
    ] {
        assert!(header.lines().any(|other| other == line), "{line}: {header}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thunderbird_that_was_not_given_the_authority_reads_nothing() {
    let desk = Desk::start().await;
    let mut settings = desk.settings.clone();
    desk.bed.dovecot.fill(MAILBOX, [b"Subject: hidden\r\n\r\n".as_slice()]);
    settings.ca_file = None;
    let mut thunderbird = Thunderbird::start(&settings).await;
    let refused = thunderbird.try_read(1).await.expect_err("it trusts nobody here");
    assert!(refused.contains(UNKNOWN_ISSUER), "{refused}");
}

const DRAFT: Draft<'_> = Draft {
    from: "Alice <alice@example.com>",
    to: "Alice <alice@example.com>",
    subject: "Sent by Thunderbird",
    body: "Grüße\r\n.\r\n..\r\nQUIT\r\nFrom here on\r\n",
};
/// Some hundred kilobytes, which come in several pieces.
const LINES: usize = 20_000;
/// `SEC_ERROR_UNKNOWN_ISSUER` as Mozilla numbers its errors.
const UNKNOWN_ISSUER: &str = "0x805a1ff3";
