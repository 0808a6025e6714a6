//! An upstream that answers by itself: it lets everybody in, says yes to every command, and sends without end when asked.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::portreeve::PROVIDER;

/// It ends, with its connections, when dropped.
pub struct Host {
    address: SocketAddr,
    book: Arc<Book>,
    _task: JoinSet<()>,
}

/// What a host has heard, and whether it lets anybody in.
#[derive(Default)]
struct Book {
    heard: Mutex<Vec<String>>,
    is_refusing: AtomicBool,
}

impl Host {
    /// Listens in clear on a free port of 127.0.0.1.
    pub async fn start() -> Host {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it is bound");
        let book = Arc::new(Book::default());
        let mut task = JoinSet::new();
        let shared = Arc::clone(&book);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let book = Arc::clone(&shared);
                connections.spawn(async move {
                    // An error is the end of the connection, which its client sees.
                    let _ = serve(stream, &book).await;
                });
            }
        });
        Host {
            address,
            book,
            _task: task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every line that was sent to it.
    pub fn heard(&self) -> Vec<String> {
        self.book.heard.lock().expect("no holder panics").clone()
    }

    /// Whether logins are refused from here on, with the whole command repeated in the refusal.
    pub fn refuse(&self, is_refusing: bool) {
        self.book.is_refusing.store(is_refusing, Ordering::Relaxed);
    }

    /// A provider for accounts with passwords whose mailboxes are here, as TOML.
    pub fn provider(&self) -> String {
        self.provider_named(PROVIDER)
    }

    /// The same under a name.
    pub fn provider_named(&self, name: &str) -> String {
        let port = self.address.port();
        format!("[provider.{name}]\nimap = {{ host = \"127.0.0.1\", port = {port}, tls = \"off\" }}\n")
    }
}

async fn serve(stream: TcpStream, book: &Book) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER] host\r\n";
    stream.get_mut().write_all(greeting.as_bytes()).await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        book.heard
            .lock()
            .expect("no holder panics")
            .push(line.trim_end().to_owned());
        let (tag, command) = line.trim_end().split_once(' ').unwrap_or(("*", ""));
        let upper = command.to_ascii_uppercase();
        let is_login = upper.starts_with("AUTHENTICATE");
        if is_login && book.is_refusing.load(Ordering::Relaxed) {
            let reply = format!("{tag} NO [AUTHENTICATIONFAILED] what a credential: {command}\r\n");
            stream.get_mut().write_all(reply.as_bytes()).await?;
            line.clear();
            continue;
        }
        if upper == FLOW {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                stream.get_mut().write_all(b"* OK still here\r\n").await?;
            }
        }
        let capabilities = if is_login { "[CAPABILITY IMAP4rev1] " } else { "" };
        let reply = format!("{tag} OK {capabilities}done\r\n");
        stream.get_mut().write_all(reply.as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

/// The command that makes the host send untagged responses until the connection ends.
pub const FLOW: &str = "XFLOW";
