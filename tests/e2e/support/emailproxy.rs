//! The real email-oauth2-proxy, in front of the testbed's Dovecot: a mail program logs in with a password of its choice, an
//! owner consents in a browser, and the configuration then holds the grant, sealed by that password.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::dovecot::Dovecot;
use super::imap::Imap;
use super::ports::free_port;
use super::process::Process;
use super::provider::Provider;
use super::visitor::Visitor;
use super::{open_directory, project_file, require_installed};

/// A running proxy, and its configuration.
pub struct EmailProxy {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    certificates: PathBuf,
}

impl EmailProxy {
    /// Starts it for `accounts` of the testbed's provider; `settings` stand in its own section.
    pub async fn start(provider: &Provider, dovecot: &Dovecot, accounts: &[&str], settings: &str) -> EmailProxy {
        let mut proxy = EmailProxy {
            process: None,
            directory: open_directory(),
            port: free_port(),
            certificates: dovecot.ca_file(),
        };
        let (local, server) = (proxy.port, dovecot.imaps().port());
        let mut config = format!(
            "[IMAP-{local}]\nlocal_address = 127.0.0.1\nserver_address = localhost\nserver_port = {server}\n\n\
             [emailproxy]\n{settings}\n"
        );
        let oauth = provider.endpoints();
        for account in accounts {
            config += &format!(
                "\n[{account}]\npermission_url = {}\ntoken_url = {}\noauth2_scope = mail offline_access\n\
                 redirect_uri = http://127.0.0.1:{}/callback\nuse_pkce = True\nclient_id = {}\nclient_secret = {}\n",
                oauth.authorize_url,
                oauth.token_url,
                free_port(),
                oauth.client_id,
                oauth.client_secret
            );
        }
        std::fs::write(proxy.config_file(), config).expect("the configuration can be written");
        proxy.run().await;
        proxy
    }

    /// Its configuration, as it is now.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("emailproxy.config")
    }

    /// Logs in as a mail program does for the first time, and consents as the mailbox's owner does.
    pub async fn authorize(&mut self, account: &str, password: &str) {
        let mut mail_program = self.connect().await;
        let owner = async {
            let process = self.process.as_ref().expect("it runs");
            let asked = format!("to authenticate account {account}: ");
            let line = process.stdout_line(|line| line.contains(&asked)).await;
            let (_, url) = line.split_once(&asked).expect("the line was chosen by it");
            // Google and Microsoft need no `prompt` to give a refresh token; the testbed's provider does.
            let url = format!("{url}&prompt=consent");
            let mut visitor = Visitor::new();
            let redirect = visitor.consent(&url, account, &["mail", "offline_access"]).await;
            visitor.open(redirect.elsewhere().as_str()).await.page()
        };
        let (reply, page) = tokio::join!(mail_program.login(account, password), owner);
        assert_eq!(page.status, 200, "{page:?}");
        assert!(reply.is_ok(), "{reply:?}\n{}", self.log());
    }

    /// Ends it: grants that it goes on to use are used twice.
    pub fn stop(&mut self) {
        self.process = None;
    }

    async fn run(&mut self) {
        let site = project_file("tests/testbed/python/site");
        require_installed(&site.join(".installed-from"));
        let mut command = Command::new("python3");
        command
            .args([
                "-u",
                "-m",
                "emailproxy",
                "--no-gui",
                "--local-server-auth",
                "--config-file",
            ])
            .arg(self.config_file())
            .current_dir(self.directory.path())
            .env("PYTHONPATH", site)
            .env("SSL_CERT_FILE", &self.certificates)
            .env("no_proxy", "*");
        let process = Process::spawn("emailproxy", &mut command);
        process
            .stdout_line(|line| line.contains("listening for authentication requests"))
            .await;
        self.process = Some(process);
    }

    async fn connect(&self) -> Imap {
        Imap::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).await
    }

    fn log(&self) -> String {
        self.process.as_ref().map(Process::log_tail).unwrap_or_default()
    }
}
