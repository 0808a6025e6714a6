//! Every way of having a grant, end to end: against a certified provider, until the access token that comes of it has opened a
//! mailbox of Dovecot's over IMAP and POP3 and handed in mail at Postfix.

mod apps;
mod consented;
mod external;

use serde_json::{Value, json};

use crate::support::bed::Bed;
use crate::support::dovecot::Dovecot;
use crate::support::pop3::{self, Pop3};
use crate::support::portreeve::{Endpoint, PROVIDER, Setup};
use crate::support::postfix::Postfix;
use crate::support::protocol::Protocol;
use crate::support::provider::{Endpoints, Provider, ProviderOptions};
use crate::support::smtp::Smtp;
use crate::support::upstream::Security;

const ALICE: &str = "alice@example.com";
const BOB: &str = "bob@example.com";
const GRANT_GONE: &str = "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again";

/// A bed of all three protocols. `table` is what the provider's table holds beside its hosts.
async fn bed(options: ProviderOptions, table: impl FnOnce(&Endpoints) -> String) -> Bed {
    let provider = Provider::start(options).await;
    let dovecot = Dovecot::start(&provider).await;
    let postfix = Postfix::start(&dovecot).await;
    let endpoints: String = [
        Endpoint::new(Protocol::Imap, dovecot.imaps(), Security::Implicit),
        Endpoint::new(Protocol::Smtp, postfix.submission(), Security::StartTls),
        Endpoint::new(Protocol::Pop3, dovecot.pop3s(), Security::Implicit),
    ]
    .iter()
    .map(Endpoint::to_toml)
    .collect();
    let table = table(provider.endpoints());
    let ca_file = dovecot.ca_file();
    let setup = Setup::default().listening(Protocol::Smtp).listening(Protocol::Pop3);
    let setup = setup.with(&format!(
        "[provider.{PROVIDER}]\n{table}\nca_file = \"{}\"\n{endpoints}",
        ca_file.display()
    ));
    Bed {
        portreeve: setup.start().await,
        provider,
        postfix: Some(postfix),
        dovecot,
        protocols: vec![Protocol::Imap, Protocol::Smtp, Protocol::Pop3],
    }
}

/// The table of an app that acts for those who consent.
fn consenting(endpoints: &Endpoints) -> String {
    let Endpoints {
        authorize_url,
        token_url,
        device_url,
        revocation_url,
        client_id,
        client_secret,
        ..
    } = endpoints;
    format!(
        "authorize_url = \"{authorize_url}\"\ntoken_url = \"{token_url}\"\ndevice_url = \"{device_url}\"\n\
         revocation_url = \"{revocation_url}\"\nclient_id = \"{client_id}\"\nclient_secret = \"{client_secret}\"\n\
         scopes = [\"openid\", \"email\", \"mail\", \"offline_access\"]"
    )
}

/// The same for grants that come from elsewhere, and that are for mail alone.
fn refreshing(endpoints: &Endpoints) -> String {
    consenting(endpoints).replace("\"openid\", \"email\", ", "")
}

/// Adds an account with these settings; returns an access token for all protocols.
async fn account(bed: &Bed, account: &str, settings: Value) -> String {
    let mut body = json!({ "account": account, "provider": PROVIDER });
    for (name, value) in settings.as_object().expect("settings are an object") {
        body[name] = value.clone();
    }
    bed.portreeve.post("/v1/account", &body).await;
    bed.portreeve.add_token_for(account, &bed.protocols).await
}

/// The mailbox opens over IMAP and POP3, and mail can be handed in.
async fn assert_opens(bed: &Bed, account: &str, token: &str) {
    let reply = bed.login(account, token).await;
    assert_eq!(reply, format!("OK {account} authenticated"), "{}", bed.log());
    let mut pop3 = Pop3::connect(bed.portreeve.door(Protocol::Pop3, Security::Off)).await;
    let status = pop3.login(account, token).await;
    assert!(pop3::is_ok(&status), "{status}\n{}", bed.log());
    let mut smtp = Smtp::connect(bed.portreeve.door(Protocol::Smtp, Security::Off)).await;
    smtp.ehlo().await;
    let reply = smtp.auth_plain(account, token).await.reply;
    assert_eq!(reply.code, 235, "{reply:?}\n{}", bed.log());
    let message = format!("From: {ALICE}\r\nTo: {BOB}\r\nSubject: hello\r\n\r\nHello.\r\n");
    let reply = smtp.submit(ALICE, BOB, message.as_bytes()).await;
    assert_eq!(reply.code, 250, "{reply:?}\n{}", bed.log());
}
