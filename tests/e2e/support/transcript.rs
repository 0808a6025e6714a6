//! Conversations on the wire as text files: what they look like, and how one is played. The protocol
//! is that of the file's folder, and so are the proxy's listeners and the upstream's endpoint.
//!
//! ```text
//! # a comment
//! | [limits]                      a line of the proxy's configuration
//! @ account example password=pw   an order to the bed, see `orders.rs`
//! == title                        a new scene: new clients, the same proxy
//! C: A NOOP                       the client's line; C2: is a second client of the scene
//! C~ A NO                         the same without CRLF
//! S: A OK …                       the proxy's line to the client; … ends a beginning
//! U> {=tag} CAPABILITY            the proxy's line to the upstream, which the test plays
//! U< {tag} OK done                the upstream's line
//! ```
//!
//! `<connect>`, `<tls>` and `<end>` in a line's place stand for what they name, and `C: <gone>` for a client that closes
//! without reading; `U> <connect>` takes
//! the proxy's next connection, and behind `C: <tls>` or `U> <tls>` that leg goes on inside TLS. Within a line `⏎` is CRLF, `␀` NUL and `␁` 0x01, `␠` a space at
//! the end; `{name}` is what an order or a `{=name}` (up to the next space) has called so;
//! `{base64 …}` and `{repeat 9 x}` are what they say. Every line is played in its turn: what a side
//! says must be read before the next thing is done, so that silence is shown too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::orders::Bed;
use super::protocol::Protocol;
use super::wire::Wire;

/// Plays a transcript of a protocol; panics, naming the line, where the conversation goes another way.
pub async fn play(protocol: Protocol, name: &str, text: &str) {
    let mut stage = Stage {
        bed: Bed::of(protocol),
        clients: BTreeMap::new(),
        leg: None,
        earlier_legs: Vec::new(),
    };
    for (number, line) in text.lines().enumerate() {
        let Some(line) = Line::parse(line) else {
            panic!("{name}.txt:{}: neither of the kinds of lines: {line}", number + 1);
        };
        let place = Place(format!("{name}.txt:{}: {line:?}", number + 1));
        stage.play(line).await;
        drop(place);
    }
    stage.bed.expect_no_secrets_logged();
}

/// Says where a transcript was when a line of it failed.
struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- in {}", self.0);
        }
    }
}

/// The clients and the upstream leg of the current scene, and what lies behind all scenes.
struct Stage {
    bed: Bed,
    clients: BTreeMap<u32, Wire>,
    /// The latest upstream leg; those before it stay open in `earlier_legs` until the scene ends.
    leg: Option<Wire>,
    earlier_legs: Vec<Wire>,
}

impl Stage {
    async fn play(&mut self, line: Line<'_>) {
        match line {
            Line::Nothing => {}
            Line::Config(text) => self.bed.configure(text),
            Line::Scene => {
                self.clients.clear();
                self.leg = None;
                self.earlier_legs.clear();
                self.bed.forget_client();
            }
            Line::Order("upstream lets in") => self.let_in().await,
            Line::Order("greeted") => self.greet(1).await,
            Line::Order("greeted 2") => self.greet(2).await,
            Line::Order("greeted 3") => self.greet(3).await,
            Line::Order(order) => self.bed.obey(order).await,
            Line::FromClient(client, said) => self.play_client(client, said).await,
            Line::ToClient(client, said) => {
                let line = self.client(client).await;
                match said {
                    Said::End => line.expect_end().await,
                    said => {
                        let heard = line.line().await;
                        self.expect(&heard, said);
                    }
                }
            }
            Line::ToUpstream(said) => self.hear_upstream(said).await,
            Line::FromUpstream(said) => self.play_upstream(said).await,
        }
    }

    async fn client(&mut self, number: u32) -> &mut Wire {
        if !self.clients.contains_key(&number) {
            let client = self.bed.connect().await;
            self.clients.insert(number, client);
        }
        self.clients.get_mut(&number).expect("it was just inserted")
    }

    async fn play_client(&mut self, number: u32, said: Said<'_>) {
        if said == Said::Gone {
            drop(self.clients.remove(&number));
            return;
        }
        let bytes = self.bed.words().wire(said);
        let is_bytewise = self.bed.is_bytewise();
        let client = self.client(number).await;
        match said {
            Said::End => client.send_end().await,
            Said::Connect => {}
            Said::Tls => self.secure_client(number).await,
            _ if is_bytewise => {
                for byte in bytes {
                    client.send(&[byte]).await;
                }
            }
            _ => client.send(&bytes).await,
        }
    }

    async fn secure_client(&mut self, number: u32) {
        let client = self.clients.remove(&number).expect("it was there a line ago");
        let client = client.secured(self.bed.client_tls()).await;
        self.clients.insert(number, client);
    }

    async fn hear_upstream(&mut self, said: Said<'_>) {
        if said == Said::Connect {
            self.earlier_legs.extend(self.leg.take());
            self.leg = Some(self.bed.upstream().accept().await);
            return;
        }
        let leg = self.leg.as_mut().expect("a leg begins with `U> <connect>`");
        match said {
            Said::End => leg.expect_end().await,
            Said::Tls => {
                let leg = self.leg.take().expect("it was there a line ago");
                self.leg = Some(leg.secured_as_upstream(self.bed.upstream().authority()).await);
            }
            said => {
                let heard = leg.line().await;
                self.expect(&heard, said);
            }
        }
    }

    async fn play_upstream(&mut self, said: Said<'_>) {
        let bytes = self.bed.words().wire(said);
        let leg = self.leg.as_mut().expect("a leg begins with `U> <connect>`");
        match said {
            Said::End => leg.send_end().await,
            _ => leg.send(&bytes).await,
        }
    }

    /// What most scenes need no words for: an upstream in clear that takes whatever credential comes.
    async fn let_in(&mut self) {
        for line in letting_in(self.bed.protocol()) {
            let line = Line::parse(line).expect("it is one of the kinds");
            Box::pin(self.play(line)).await;
        }
    }

    /// What a client does before anything else, where it is not what a scene is about: it reads the greeting, and submission
    /// has its EHLO answered.
    async fn greet(&mut self, number: u32) {
        let protocol = self.bed.protocol();
        let client = self.client(number).await;
        client.line().await;
        if protocol == Protocol::Smtp {
            client.send_line("EHLO client.example.com").await;
            while client.line().await.starts_with("250-") {}
        }
    }

    fn expect(&mut self, heard: &str, said: Said<'_>) {
        let Said::Line(expected) = said else {
            panic!("{said:?} cannot be expected");
        };
        let expected_words = self.bed.words().fill(expected);
        if !self.bed.words_mut().learn(&expected_words, heard) {
            let mut story = format!("expected: {expected_words}\n   heard: {heard}\n");
            for (number, client) in &self.clients {
                let _ = write!(story, "--- client {number}\n{}", client.transcript());
            }
            if let Some(leg) = &self.leg {
                let _ = write!(story, "--- upstream, which is C here\n{}", leg.transcript());
            }
            panic!("{story}\n--- the proxy's log\n{}", self.bed.log());
        }
    }
}

/// The lines that `@ upstream lets in` stands for.
fn letting_in(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Imap => &[
            "U> <connect>",
            "U< * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2] ready",
            "U> {=login} AUTHENTICATE …",
            "U< {login} OK [CAPABILITY IMAP4rev1 IDLE COMPRESS=DEFLATE] logged in",
        ],
        Protocol::Smtp => &[
            "U> <connect>",
            "U< 220 upstream.example.com ESMTP",
            "U> EHLO …",
            "U< 250-upstream.example.com⏎250-PIPELINING⏎250-8BITMIME⏎250 AUTH PLAIN XOAUTH2",
            "U> AUTH …",
            "U< 235 2.7.0 logged in",
        ],
        Protocol::Pop3 => &[
            "U> <connect>",
            "U< +OK ready",
            "U> CAPA",
            "U< +OK⏎SASL PLAIN XOAUTH2⏎TOP⏎UIDL⏎.",
            "U> AUTH …",
            "U< + ",
            "U> …",
            "U< +OK logged in",
        ],
    }
}

/// One line of a transcript.
#[derive(Debug)]
enum Line<'a> {
    Nothing,
    Config(&'a str),
    Order(&'a str),
    Scene,
    FromClient(u32, Said<'a>),
    ToClient(u32, Said<'a>),
    ToUpstream(Said<'a>),
    FromUpstream(Said<'a>),
}

/// What is said in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said<'a> {
    Line(&'a str),
    Piece(&'a str),
    Connect,
    Tls,
    End,
    /// A client closes without reading what has come.
    Gone,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Line<'a>> {
        if line.is_empty() || line.starts_with('#') {
            return Some(Line::Nothing);
        }
        let (who, said) = line.split_once(' ').unwrap_or((line, ""));
        let (side, number) = match who.strip_suffix([':', '~']) {
            Some(who) => match who.split_at_checked(1)? {
                (side, "") => (side, 1),
                (side, number) => (side, number.parse().ok()?),
            },
            None => (who, 0),
        };
        Some(match (side, who.ends_with('~')) {
            ("|", _) => Line::Config(said),
            ("@", _) => Line::Order(said),
            ("==", _) => Line::Scene,
            ("C", true) => Line::FromClient(number, Said::Piece(said)),
            ("C", false) => Line::FromClient(number, Said::parse(said)),
            ("S", false) => Line::ToClient(number, Said::parse(said)),
            ("U>", _) => Line::ToUpstream(Said::parse(said)),
            ("U<", _) => Line::FromUpstream(Said::parse(said)),
            _ => return None,
        })
    }
}

impl<'a> Said<'a> {
    fn parse(said: &'a str) -> Said<'a> {
        match said {
            "<connect>" => Said::Connect,
            "<tls>" => Said::Tls,
            "<end>" => Said::End,
            "<gone>" => Said::Gone,
            line => Said::Line(line),
        }
    }
}

/// The placeholders that have a meaning so far.
#[derive(Default)]
pub struct Words(BTreeMap<String, String>);

impl Words {
    /// Gives a placeholder its meaning.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Fills in what is known; a `{=name}`, a literal's `{5}` and whatever else is in braces stays.
    pub fn fill(&self, text: &str) -> String {
        let mut filled = text
            .replace('⏎', "\r\n")
            .replace('␀', "\0")
            .replace('␁', "\x01")
            .replace('␠', " ");
        for (name, value) in &self.0 {
            filled = filled.replace(&format!("{{{name}}}"), value);
        }
        while let Some((before, argument, after)) = function(&filled, "{repeat ") {
            let (times, what) = argument.split_once(' ').expect("{repeat TIMES WHAT}");
            let times = times.parse().expect("a number of times");
            filled = format!("{before}{}{after}", what.repeat(times));
        }
        while let Some((before, argument, after)) = function(&filled, "{base64 ") {
            filled = format!("{before}{}{after}", BASE64.encode(argument));
        }
        filled
    }

    /// Whether `heard` is what the filled-in text `expected` stands for; its `{=name}`s get their meaning.
    fn learn(&mut self, expected: &str, heard: &str) -> bool {
        let (mut expected, mut heard) = (expected, heard);
        while let Some((before, name, after)) = function(expected, "{=") {
            let Some(rest) = heard.strip_prefix(before) else {
                return false;
            };
            let (value, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
            self.set(name, value);
            (expected, heard) = (after, rest);
        }
        match expected.strip_suffix('…') {
            Some(beginning) => heard.starts_with(beginning),
            None => heard == expected,
        }
    }

    /// The octets of what is said.
    fn wire(&self, said: Said<'_>) -> Vec<u8> {
        match said {
            Said::Line(line) => (self.fill(line) + "\r\n").into_bytes(),
            Said::Piece(piece) => self.fill(piece).into_bytes(),
            Said::Connect | Said::Tls | Said::End | Said::Gone => Vec::new(),
        }
    }
}

/// The text before the first `opening`, what stands between it and its closing brace, and the rest.
fn function<'a>(text: &'a str, opening: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let (before, rest) = text.split_once(opening)?;
    let (argument, after) = rest.split_once('}')?;
    Some((before, argument, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_and_literals_stay() {
        let mut words = Words::default();
        words.set("token", "abc");
        assert_eq!(words.fill("A LOGIN {5} {token}⏎"), "A LOGIN {5} abc\r\n");
        assert_eq!(words.fill("{base64 ␀u␀{token}} {repeat 3 x}"), "AHUAYWJj xxx");
        assert_eq!(words.fill("{base64 {repeat 3 x}}"), "eHh4");
    }

    #[test]
    fn what_is_heard_is_compared_whole_unless_the_line_says_otherwise() {
        let mut words = Words::default();
        assert!(words.learn("A OK", "A OK"));
        assert!(!words.learn("A OK", "A OK done"));
        assert!(words.learn("A OK …", "A OK done"));
        assert!(!words.learn("A OK …", "A NO done"));
    }

    #[test]
    fn what_is_heard_is_learnt_up_to_the_next_space() {
        let mut words = Words::default();
        assert!(words.learn("{=tag} AUTHENTICATE {=mechanism} …", "P1 AUTHENTICATE PLAIN AAA"));
        assert_eq!(words.fill("{tag} {mechanism}"), "P1 PLAIN");
        assert!(!words.learn("* {=what} one", "* OK two"));
    }
}
