//! What the user of a mail program types into it.

use std::path::PathBuf;

/// One mailbox at servers on localhost that offer STARTTLS, for a mail program that insists on it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where mail is read.
    pub imap_port: u16,
    /// Where mail is handed in.
    pub smtp_port: u16,
    /// The login name, and the address of the mailbox.
    pub user: String,
    /// The password, which may be an access token.
    pub password: String,
    /// The authority to trust beside those that the program knows by itself.
    pub ca_file: Option<PathBuf>,
}
