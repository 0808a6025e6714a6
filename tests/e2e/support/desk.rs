//! All that a whole mail program needs, which reads and sends and insists on STARTTLS: mailboxes,
//! submission, the proxy before both, and what the program's user types into it.

use std::path::PathBuf;

use super::bed::Bed;
use super::ports::free_port;
use super::protocol::Protocol;
use super::provider::ProviderOptions;

/// A bed with two listeners more, for reading and for sending, where nobody logs in before STARTTLS
/// and whose certificate is of the proxy's own authority.
pub struct Desk {
    /// The bed, whose account is [`MAILBOX`].
    pub bed: Bed,
    /// What the user of a mail program types into it.
    pub settings: Settings,
}

/// One mailbox on localhost, as the settings of a mail program name it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where mail is read, by IMAP.
    pub imap_port: u16,
    /// Where mail is handed in.
    pub smtp_port: u16,
    /// The login name, and the address of the mailbox.
    pub user: String,
    /// The password, which is an access token.
    pub password: String,
    /// The authority to trust beside those that the program knows by itself.
    pub ca_file: Option<PathBuf>,
}

/// The account's id, its login name at the provider, and its address.
pub const MAILBOX: &str = "alice@example.com";

impl Desk {
    /// Starts everything.
    pub async fn start() -> Desk {
        let (imap_port, smtp_port) = (free_port(), free_port());
        let mut toml = "[certificate.own]\nself_signed = true\n".to_owned();
        for (protocol, port) in [(Protocol::Imap, imap_port), (Protocol::Smtp, smtp_port)] {
            toml += &format!(
                "[[listener]]\nprotocol = \"{}\"\naddress = \"127.0.0.1:{port}\"\ntls = \"starttls\"\n\
                 certificate = \"own\"\nplaintext_auth = \"never\"\n",
                protocol.name()
            );
        }
        let bed = Bed::start_whole(ProviderOptions::default(), &toml, &[]).await;
        let status = bed.portreeve.read("/v1/status").await;
        let ca_file = status["certificateAuthority"]["path"].as_str();
        let ca_file = ca_file.unwrap_or_else(|| panic!("no authority: {status}"));
        let settings = Settings {
            imap_port,
            smtp_port,
            user: MAILBOX.to_owned(),
            password: bed.account(MAILBOX).await,
            ca_file: Some(ca_file.into()),
        };
        Desk { bed, settings }
    }

    /// What the proxy and the upstream of submission say, for the message of an assertion.
    pub fn log(&self) -> String {
        let postfix = self.bed.postfix.as_ref().expect("a whole bed has it");
        format!("{}\n--- postfix:\n{}", self.bed.portreeve.log(), postfix.log())
    }
}
