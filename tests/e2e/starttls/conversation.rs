//! What an upstream says up to its login and beyond, by itself or with an attacker's words in places, and what it hears.

use tokio_rustls::TlsAcceptor;

use crate::support::certs::Authority;
use crate::support::protocol::Protocol;
use crate::support::wire::Wire;

/// What an attacker says in an upstream's place. `{tag}` is that of the command.
pub enum Said {
    /// Instead of the greeting.
    Greeting(&'static str),
    /// Instead of the list of what can be done.
    Offer(&'static str),
    /// Instead of the answer to the command that TLS begins with.
    Answer(&'static str),
}

/// What an upstream says at each step; `{tag}` is that of what it was asked.
pub struct Conversation {
    /// As soon as it is connected to.
    pub greeting: &'static str,
    /// What it can do, in clear.
    pub offer: &'static str,
    /// What it says to the command that TLS begins with.
    pub answer: &'static str,
    then: Then,
    /// What it can do inside TLS.
    pub inside: &'static str,
}

/// What an upstream does having answered.
pub enum Then {
    /// Goes on inside TLS, where it lets everybody in.
    Serve,
    /// Hears to the end whatever comes.
    Listen,
    /// Closes.
    Close,
    /// Says this in clear, in a piece of its own.
    Inject(&'static str),
    /// Says this in clear once TLS has begun.
    InjectIntoHandshake(&'static str),
    /// Goes on inside TLS with some certificate.
    Tls(TlsAcceptor),
}

impl Conversation {
    /// That of an upstream that nobody meddles with.
    pub fn honest(protocol: Protocol) -> Conversation {
        let (greeting, offer, answer, inside) = match protocol {
            Protocol::Imap => (
                "* OK ready\r\n",
                "* CAPABILITY IMAP4rev1 STARTTLS\r\n{tag} OK done\r\n",
                "{tag} OK go on\r\n",
                "* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\n{tag} OK done\r\n",
            ),
            Protocol::Smtp => (
                "220 upstream.example.com ESMTP\r\n",
                "250-upstream.example.com\r\n250 STARTTLS\r\n",
                "220 2.0.0 go on\r\n",
                "250-upstream.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n",
            ),
            Protocol::Pop3 => (
                "+OK ready\r\n",
                "+OK\r\nSTLS\r\nUIDL\r\n.\r\n",
                "+OK go on\r\n",
                "+OK\r\nSASL PLAIN\r\nUIDL\r\n.\r\n",
            ),
        };
        Conversation {
            greeting,
            offer,
            answer,
            then: Then::Serve,
            inside,
        }
    }

    /// The same with an attacker's words in a place.
    pub fn with(mut self, said: &Said) -> Conversation {
        match said {
            Said::Greeting(text) => self.greeting = text,
            Said::Offer(text) => self.offer = text,
            Said::Answer(text) => self.answer = text,
        }
        self
    }

    /// The same with another sequel.
    pub fn then(self, then: Then) -> Conversation {
        Conversation { then, ..self }
    }

    /// Plays it on a leg, to the end.
    pub async fn play(&self, leg: Wire, authority: &Authority) -> Heard {
        let mut heard = Heard::default();
        let Some((mut leg, asked)) = self.play_in_clear(leg, &mut heard).await else {
            return heard;
        };
        match &self.then {
            Then::Serve => {
                let leg = leg.secured_as_upstream(authority).await;
                self.serve(leg, &mut heard).await;
            }
            Then::Listen => heard.in_clear_or_tls = leg.rest().await,
            Then::Close => drop(leg),
            Then::Inject(text) => {
                leg.send(tagged(text, &asked).as_bytes()).await;
                heard.in_clear_or_tls = leg.rest().await;
            }
            Then::InjectIntoHandshake(text) => {
                heard.in_clear_or_tls = leg.octets(1).await;
                leg.send(tagged(text, &asked).as_bytes()).await;
                heard.in_clear_or_tls.extend(leg.rest().await);
            }
            Then::Tls(acceptor) => {
                if let Ok(leg) = leg.try_secured_as_upstream(acceptor).await {
                    heard
                        .inside
                        .push(String::from_utf8_lossy(&leg.rest().await).into_owned());
                }
            }
        }
        heard
    }

    /// Plays it up to the answer to STARTTLS. `None`: the proxy did not come so far.
    async fn play_in_clear(&self, mut leg: Wire, heard: &mut Heard) -> Option<(Wire, String)> {
        leg.send(self.greeting.as_bytes()).await;
        loop {
            let line = leg.line_or_end().await?;
            heard.in_clear.push(line.clone());
            let is_asked_for_tls = line.ends_with("STARTTLS") || line == "STLS";
            let said = if is_asked_for_tls { self.answer } else { self.offer };
            leg.send(tagged(said, &line).as_bytes()).await;
            if is_asked_for_tls {
                return Some((leg, line));
            }
        }
    }

    /// Lets the proxy in.
    async fn serve(&self, mut leg: Wire, heard: &mut Heard) {
        while let Some(line) = leg.line_or_end().await {
            let command = line.to_ascii_uppercase();
            let said = match command.split(' ').collect::<Vec<_>>().as_slice() {
                [_, "CAPABILITY"] | ["EHLO", _] | ["CAPA"] => self.inside,
                [tag, "AUTHENTICATE", ..] if tag.starts_with('P') => "{tag} OK [CAPABILITY IMAP4rev1] logged in\r\n",
                ["AUTH", _, _] => "235 2.7.0 logged in\r\n",
                ["AUTH", _] => "+ \r\n",
                _ => "+OK logged in\r\n",
            };
            heard.inside.push(line.clone());
            leg.send(tagged(said, &line).as_bytes()).await;
        }
    }
}

/// What an upstream has heard.
#[derive(Default)]
pub struct Heard {
    /// Line by line, before it was asked for TLS.
    pub in_clear: Vec<String>,
    /// Whatever came then to one that did not go on inside TLS.
    pub in_clear_or_tls: Vec<u8>,
    /// What came inside TLS, line by line.
    pub inside: Vec<String>,
}

impl Heard {
    /// Outside TLS nothing was said but what everybody may hear.
    pub fn expect_nothing_in_clear(&self, story: &str) {
        for line in &self.in_clear {
            let words: Vec<&str> = line.split(' ').collect();
            let is_harmless = match words.as_slice() {
                [_, "STARTTLS" | "CAPABILITY" | "LOGOUT"] | ["EHLO", "[127.0.0.1]"] => true,
                [word] => ["STARTTLS", "STLS", "CAPA", "QUIT"].contains(word),
                _ => false,
            };
            assert!(is_harmless, "{story}: {line:?} was said in clear");
        }
        let rest = &self.in_clear_or_tls;
        let farewells = [&b""[..], b"QUIT\r\n", b"P2 LOGOUT\r\n"];
        assert!(
            rest.starts_with(b"\x16\x03") || rest.starts_with(b"\x15\x03") || farewells.contains(&rest.as_slice()),
            "{story}: {:?} was said in clear",
            String::from_utf8_lossy(rest)
        );
    }
}

/// What is said to a command, with its tag.
fn tagged(said: &str, command: &str) -> String {
    let tag = command.split(' ').next().unwrap_or_default();
    said.replace("{tag}", tag)
}
