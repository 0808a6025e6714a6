//! All that a whole mail program needs: a mailbox, submission, and the proxy before both.

use serde_json::json;

use super::dovecot::Dovecot;
use super::portreeve::{Portreeve, Setup};
use super::ports::free_port;
use super::provider::{Provider, ProviderOptions};
use super::settings::Settings;

/// A proxy whose one account is [`MAILBOX`], at a provider that takes nothing but OAuth2.
pub struct Desk {
    /// The proxy.
    pub portreeve: Portreeve,
    /// Where the mail lies.
    pub dovecot: Dovecot,
    /// Dovecot asks it about every token.
    _provider: Provider,
}

/// The account's id, its login name at the provider, and its address.
pub const MAILBOX: &str = "alice@example.com";

impl Desk {
    /// Starts everything; `toml` is added to the proxy's configuration.
    pub async fn start(toml: &str) -> Desk {
        let provider = Provider::start(ProviderOptions::default()).await;
        let dovecot = Dovecot::start(&provider).await;
        let portreeve = Setup::default().with(toml).provider(&provider, &dovecot).start().await;
        portreeve.add_account(MAILBOX, &provider.mint(MAILBOX).await).await;
        Desk {
            portreeve,
            dovecot,
            _provider: provider,
        }
    }

    /// The same with listeners for reading and sending that let nobody in before STARTTLS, and that
    /// have their certificate from the proxy's own authority. Returns what a user is told of them.
    pub async fn with_starttls() -> (Desk, Settings) {
        let (imap_port, smtp_port) = (free_port(), free_port());
        let mut toml = "[certificate.own]\nself_signed = true\n".to_owned();
        for (protocol, port) in [("imap", imap_port), ("smtp", smtp_port)] {
            toml += &format!(
                "[[listener]]\nprotocol = \"{protocol}\"\naddress = \"127.0.0.1:{port}\"\n\
                 tls = \"starttls\"\ncertificate = \"own\"\nplaintext_auth = \"never\"\n"
            );
        }
        let desk = Desk::start(&toml).await;
        let status = desk.portreeve.read("/v1/status").await;
        let ca_file = status["certificateAuthority"]["path"].as_str();
        let ca_file = ca_file.unwrap_or_else(|| panic!("no authority: {status}"));
        let settings = Settings {
            imap_port,
            smtp_port,
            user: MAILBOX.to_owned(),
            password: desk.token().await,
            ca_file: Some(ca_file.into()),
        };
        (desk, settings)
    }

    /// An access token for reading and sending.
    async fn token(&self) -> String {
        let body = json!({
            "account": MAILBOX,
            "scopes": ["imap-proxy", "smtp"],
            "description": "a mail program",
        });
        self.portreeve.create_token(&body).await
    }
}
