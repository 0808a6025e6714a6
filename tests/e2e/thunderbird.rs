//! Thunderbird.

use crate::support::dovecot::Dovecot;
use crate::support::provider::{Provider, ProviderOptions};
use crate::support::settings::Settings;
use crate::support::thunderbird::Thunderbird;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_reads_directly() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start_with_passwords(&provider, &[("alice@example.com", "secret")]).await;
    let messages = [
        b"Subject: one\r\n\r\nOne\r\n".to_vec(),
        [b"Subject: two\r\n\r\n".as_slice(), &b"x y\r\n".repeat(200_000)].concat(),
    ];
    dovecot.fill("alice@example.com", messages.iter().map(Vec::as_slice));
    let mut settings = Settings {
        imap_port: dovecot.imap().port(),
        smtp_port: 9,
        user: "alice@example.com".to_owned(),
        password: "secret".to_owned(),
        ca_file: Some(dovecot.ca_file()),
    };
    let mut thunderbird = Thunderbird::start(&settings).await;
    assert!(thunderbird.read(2).await == messages);
    thunderbird.quit().await;
    settings.ca_file = None;
    let mut thunderbird = Thunderbird::start(&settings).await;
    let refused = thunderbird.try_read(2).await.expect_err("it trusts nobody");
    assert!(refused.contains(UNKNOWN_ISSUER), "{refused}");
}

/// SEC_ERROR_UNKNOWN_ISSUER among Mozilla's error codes.
const UNKNOWN_ISSUER: &str = "0x805a1ff3";
