//! The demo's mailbox: an IMAP upstream with one message that lets nobody in but with OAuth2.
//!
//! It speaks as much of RFC 3501 as `curl`, `openssl s_client` and a curious person need to look around; it changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::Certificates;
use super::provider::Provider;
use crate::clock;
use crate::net::stream::Stream;
use crate::net::tls::{CertificateFiles, ServerTls};

/// Serves the mailbox over TLS on a free loopback port.
pub(super) async fn serve(provider: Arc<Provider>, files: &Certificates) -> io::Result<SocketAddr> {
    let files = CertificateFiles {
        cert_file: files.chain.clone().into(),
        key_file: files.key.clone().into(),
    };
    let tls = ServerTls::load(vec![files.into()], clock::now()).map_err(io::Error::other)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (provider, tls) = (provider.clone(), tls.clone());
            tokio::spawn(async move {
                let stream = tls.accept(tcp, HANDSHAKE_TIMEOUT).await.map_err(io::Error::other)?;
                Conversation {
                    connection: BufReader::new(stream),
                    provider,
                    selected: false,
                    user: None,
                }
                .run()
                .await
            });
        }
    });
    Ok(address)
}

/// One connection to the mailbox.
struct Conversation {
    connection: BufReader<Stream>,
    provider: Arc<Provider>,
    user: Option<String>,
    selected: bool,
}

impl Conversation {
    async fn run(mut self) -> io::Result<()> {
        self.send("* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=OAUTHBEARER AUTH=XOAUTH2] the demo's mailbox\r\n")
            .await?;
        while let Some(line) = self.line().await? {
            let mut words = line.splitn(3, ' ');
            let (tag, command) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let arguments = words.next().unwrap_or_default().to_ascii_uppercase();
            match command.to_ascii_uppercase().as_str() {
                "LOGOUT" => return self.send(&format!("* BYE until next time\r\n{tag} OK done\r\n")).await,
                "AUTHENTICATE" => self.authenticate(tag, line.splitn(4, ' ').nth(3)).await?,
                "UID" if arguments.starts_with("FETCH ") => self.fetch(tag, &arguments).await?,
                "FETCH" => self.fetch(tag, &arguments).await?,
                "IDLE" if self.user.is_some() => self.idle(tag).await?,
                command => {
                    let reply = self.reply(tag, command, &arguments);
                    self.send(&reply).await?;
                }
            }
        }
        Ok(())
    }

    /// The answer to a command that needs no more than itself.
    fn reply(&mut self, tag: &str, command: &str, arguments: &str) -> String {
        let authenticated = self.user.is_some();
        let untagged = match command {
            "CAPABILITY" => format!("* CAPABILITY {}\r\n", self.capabilities()),
            "ID" => "* ID (\"name\" \"portreeve demo mailbox\")\r\n".to_owned(),
            "NOOP" => String::new(),
            _ if !authenticated => return format!("{tag} BAD log in first\r\n"),
            "LIST" | "LSUB" => format!("* {command} () \"/\" INBOX\r\n"),
            "NAMESPACE" => "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n".to_owned(),
            "STATUS" => "* STATUS INBOX (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 1 UNSEEN 0)\r\n".to_owned(),
            "SELECT" | "EXAMINE" => {
                self.selected = true;
                "* 1 EXISTS\r\n* 0 RECENT\r\n* FLAGS (\\Seen)\r\n* OK [UIDVALIDITY 1] valid\r\n* OK [UIDNEXT 2] next\r\n"
                    .to_owned()
            }
            "SEARCH" => "* SEARCH 1\r\n".to_owned(),
            "UID" if arguments.starts_with("SEARCH") => "* SEARCH 1\r\n".to_owned(),
            "CLOSE" | "UNSELECT" => {
                self.selected = false;
                String::new()
            }
            _ => return format!("{tag} BAD the demo's mailbox does not know {command}\r\n"),
        };
        let code = if matches!(command, "SELECT" | "EXAMINE") {
            "[READ-ONLY] "
        } else {
            ""
        };
        format!("{untagged}{tag} OK {code}{command} done\r\n")
    }

    /// XOAUTH2 or OAUTHBEARER, with or without an initial response.
    async fn authenticate(&mut self, tag: &str, initial: Option<&str>) -> io::Result<()> {
        let response = match initial {
            Some(response) => response.to_owned(),
            None => {
                self.send("+ \r\n").await?;
                self.line().await?.unwrap_or_default()
            }
        };
        match credentials(&response) {
            Some((user, token)) if self.provider.admits(&user, &token) => {
                self.user = Some(user);
                let capabilities = self.capabilities();
                self.send(&format!("{tag} OK [CAPABILITY {capabilities}] welcome\r\n"))
                    .await
            }
            _ => {
                let challenge = BASE64.encode(r#"{"status":"invalid_token","schemes":"bearer","scope":"mail"}"#);
                self.send(&format!("+ {challenge}\r\n")).await?;
                self.line().await?;
                self.send(&format!(
                    "{tag} NO [AUTHENTICATIONFAILED] the token is not good (any more)\r\n"
                ))
                .await
            }
        }
    }

    async fn fetch(&mut self, tag: &str, arguments: &str) -> io::Result<()> {
        if !self.selected {
            return self.send(&format!("{tag} BAD select a mailbox first\r\n")).await;
        }
        let size = MESSAGE.len();
        let header = MESSAGE.find("\r\n\r\n").map_or(size, |end| end + 4);
        let mut items = vec!["UID 1".to_owned()];
        if arguments.contains("FLAGS") {
            items.push("FLAGS (\\Seen)".to_owned());
        }
        if arguments.contains("RFC822.SIZE") {
            items.push(format!("RFC822.SIZE {size}"));
        }
        if arguments.contains("BODY[HEADER") || arguments.contains("BODY.PEEK[HEADER") {
            items.push(format!(
                "BODY[HEADER] {{{header}}}\r\n{}",
                MESSAGE.get(..header).unwrap_or_default()
            ));
        } else if arguments.contains("BODY[") || arguments.contains("BODY.PEEK[") || arguments.contains("RFC822") {
            items.push(format!("BODY[] {{{size}}}\r\n{MESSAGE}"));
        }
        self.send(&format!("* 1 FETCH ({})\r\n{tag} OK FETCH done\r\n", items.join(" ")))
            .await
    }

    async fn idle(&mut self, tag: &str) -> io::Result<()> {
        self.send("+ idling\r\n").await?;
        self.line().await?;
        self.send(&format!("{tag} OK IDLE done\r\n")).await
    }

    fn capabilities(&self) -> &'static str {
        match self.user {
            Some(_) => "IMAP4rev1 ID IDLE NAMESPACE UNSELECT",
            None => "IMAP4rev1 SASL-IR ID AUTH=OAUTHBEARER AUTH=XOAUTH2",
        }
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        (&mut self.connection)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        Ok((!line.is_empty()).then_some(line))
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        self.connection.write_all(text.as_bytes()).await?;
        self.connection.flush().await
    }
}

/// User and token of an XOAUTH2 or an OAUTHBEARER response (RFC 7628 §3.1).
fn credentials(response: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64.decode(response).ok()?).ok()?;
    let mut user = None;
    let mut token = None;
    for part in decoded.split(['\x01', ',']) {
        if let Some(name) = part.strip_prefix("user=").or_else(|| part.strip_prefix("a=")) {
            user = Some(name.to_owned());
        } else if let Some(bearer) = part.strip_prefix("auth=Bearer ") {
            token = Some(bearer.to_owned());
        }
    }
    Some((user?, token?))
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

const LINE_BYTES_MAX: u64 = 64 * 1024;

const MESSAGE: &str = "From: portreeve <portreeve@demo.invalid>\r\n\
To: example@demo.invalid\r\n\
Subject: It works\r\n\
Date: Thu, 01 Jan 2026 12:00:00 +0000\r\n\
Message-ID: <it-works@demo.invalid>\r\n\
MIME-Version: 1.0\r\n\
Content-Type: text/plain; charset=utf-8\r\n\
\r\n\
You read this through portreeve. The mail program knows an access token only;\r\n\
the mailbox behind it was opened with OAuth2.\r\n";
