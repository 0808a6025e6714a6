//! STARTTLS and STLS under attack, for all three protocols: the cases of "Why TLS is better without STARTTLS" (Poddebniak,
//! Ising, Böck, Schinzel; USENIX Security 2021), towards clients and towards upstreams.
//!
//! Whoever sits in the middle may say and withhold whatever he likes before TLS begins. None of it may count inside TLS, and
//! no credential may be said to him. What clients and upstreams say without an attacker is in the transcripts.

mod clients;
mod conversation;
mod upstreams;

use crate::support::protocol::Protocol;
use crate::support::wire::Wire;

/// How a protocol is spoken where the three differ.
struct Dialect {
    protocol: Protocol,
    /// The command that TLS begins with.
    starttls: &'static str,
    /// How its acceptance begins.
    accepted: &'static str,
    /// A command that changes nothing.
    noop: &'static str,
    /// What has to be said before anything else.
    hello: Option<&'static str>,
    /// How a login's temporary refusal begins.
    unavailable: &'static str,
}

/// Of these, `S`, `N` and `L` are tags.
const IMAP: Dialect = Dialect {
    protocol: Protocol::Imap,
    starttls: "S STARTTLS",
    accepted: "S OK ",
    noop: "N NOOP",
    hello: None,
    unavailable: "L NO [UNAVAILABLE] ",
};

const SMTP: Dialect = Dialect {
    protocol: Protocol::Smtp,
    starttls: "STARTTLS",
    accepted: "220 ",
    noop: "NOOP",
    hello: Some("EHLO client.example.com"),
    unavailable: "454 4.7.0 ",
};

const POP3: Dialect = Dialect {
    protocol: Protocol::Pop3,
    starttls: "STLS",
    accepted: "+OK",
    noop: "NOOP",
    hello: None,
    unavailable: "-ERR [SYS/TEMP] ",
};

impl Dialect {
    /// Reads the greeting and says hello, where that is due.
    async fn meet(&self, client: &mut Wire) {
        self.reply(client).await;
        self.greet(client).await;
    }

    /// Says hello, where that is due; inside TLS it is due again.
    async fn greet(&self, client: &mut Wire) {
        if let Some(hello) = self.hello {
            client.send_line(hello).await;
            self.reply(client).await;
        }
    }

    /// Logs in with an access token; the reply.
    async fn login(&self, client: &mut Wire, user: &str, token: &str) -> String {
        let line = match self.protocol {
            Protocol::Imap => format!("L LOGIN {user} {token}"),
            Protocol::Smtp => format!("AUTH PLAIN {}", plain(user, token)),
            Protocol::Pop3 => {
                client.send_line(&format!("USER {user}")).await;
                self.reply(client).await;
                format!("PASS {token}")
            }
        };
        client.send_line(&line).await;
        self.reply(client).await
    }

    /// A reply: its last line, which is not untagged unless it is a greeting.
    async fn reply(&self, client: &mut Wire) -> String {
        loop {
            let line = client.line().await;
            let goes_on = match self.protocol {
                Protocol::Imap => line.starts_with("* CAPABILITY "),
                Protocol::Smtp => line.as_bytes().get(3) == Some(&b'-'),
                Protocol::Pop3 => false,
            };
            if !goes_on {
                return line;
            }
        }
    }
}

/// The response of PLAIN, in base64.
fn plain(user: &str, password: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("\0{user}\0{password}"))
}

/// The account of these tests, whose name at its provider is [`MAILBOX`].
const ACCOUNT: &str = "example";
const MAILBOX: &str = "mailbox";
