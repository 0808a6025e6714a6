//! Towards clients: what an attacker puts behind the command that TLS begins with would be taken for the client's word inside
//! TLS (CVE-2011-0411). The session ends instead, nothing of it is answered, and it is counted.

use serde_json::json;

use super::{ACCOUNT, Dialect, IMAP, POP3, SMTP, plain};
use crate::support::PATIENCE;
use crate::support::bed::until;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::upstream::{Security, Upstream};
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_injected_into_imap_counts() {
    let attacks = [
        "B CAPABILITY",
        "B NOOP",
        "B LOGIN example {token}",
        "B STARTTLS",
        "B LOGIN {7+}",
    ];
    nothing_injected_counts(&IMAP, &attacks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_injected_into_smtp_counts() {
    let attacks = [
        "EHLO attacker.example.com",
        "AUTH PLAIN {plain}",
        "EHLO attacker.example.com\r\nAUTH PLAIN {plain}\r\nMAIL FROM:<attacker@example.com>\r\n\
         RCPT TO:<attacker@example.com>\r\nDATA",
        "RSET",
        "STARTTLS",
    ];
    nothing_injected_counts(&SMTP, &attacks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_injected_into_pop3_counts() {
    let attacks = [
        "CAPA",
        "USER example",
        "USER example\r\nPASS {token}",
        "AUTH PLAIN",
        "STLS",
    ];
    nothing_injected_counts(&POP3, &attacks).await;
}

/// Where an injection stands. What is before `|` comes with a command whose reply is waited for, and so in a segment of its own.
const WITH_THE_COMMAND: &[(&str, &str)] = &[
    ("in the same segment", "{starttls}\r\n{attack}\r\n"),
    ("without its end", "{starttls}\r\n{attack}"),
    ("behind other commands", "{noop}\r\n{starttls}\r\n{attack}\r\n"),
    ("behind a split command", "{head}|{tail}\r\n{attack}\r\n"),
    ("behind a split end of line", "{starttls}\r|\n{attack}\r\n"),
    ("one octet", "{starttls}\r\n{first}"),
    ("an empty line", "{starttls}\r\n\r\n"),
    ("the command again", "{starttls}\r\n{starttls}\r\n"),
    ("the begin of TLS", "{starttls}\r\n\x16\x03\x01"),
];

async fn nothing_injected_counts(dialect: &Dialect, attacks: &[&str]) {
    let bed = Bed::start(dialect).await;
    let mut injections = 0;
    for attack in attacks.iter().map(|attack| bed.filled(attack)) {
        for (place, script) in WITH_THE_COMMAND {
            let story = format!("{place}: {attack:?}");
            let heard = bed.inject(script, &attack).await;
            assert!(
                heard.ends_with("\r\n") && heard.lines().count() == 1,
                "{story}: {heard:?}"
            );
            assert!(heard.contains("Nothing may follow"), "{story}: {heard:?}");
            injections += 1;
        }
        bed.expect_no_answer_before_the_handshake(&attack).await;
        bed.expect_no_handshake_behind(&attack).await;
        bed.expect_nothing_behind_pieces(&attack).await;
        injections += 3;
    }
    let labels = format!("protocol=\"{}\",reason=\"starttls_injection\"", dialect.protocol.name());
    until(PATIENCE, "all injections are counted", async || {
        let counted = bed
            .portreeve
            .metric("portreeve_connections_refused_total", &labels)
            .await;
        (counted == f64::from(injections)).then_some(())
    })
    .await;
    let usage = bed.portreeve.read("/v1/usage").await;
    assert_eq!(usage["total"], 0, "nobody logged in, or tried to: {usage}");
    bed.expect_no_tls_before_the_command().await;
    bed.expect_service().await;
}

/// A proxy with a listener that begins TLS at the client's command.
struct Bed<'a> {
    dialect: &'a Dialect,
    portreeve: Portreeve,
    upstream: Upstream,
    token: String,
}

impl<'a> Bed<'a> {
    async fn start(dialect: &'a Dialect) -> Bed<'a> {
        let upstream = Upstream::listen(Security::Off).await;
        let (protocol, port) = (dialect.protocol, upstream.address().port());
        let portreeve = Setup::default()
            .with(&format!(
                "[provider.{PROVIDER}]\n{} = {{ host = \"127.0.0.1\", port = {port}, tls = \"off\" }}",
                protocol.name()
            ))
            .listening(protocol)
            .start()
            .await;
        let account = json!({ "account": ACCOUNT, "provider": PROVIDER, "password": "pw" });
        portreeve.post("/v1/account", &account).await;
        let token = portreeve.add_token_for(ACCOUNT, &[protocol]).await;
        Bed {
            dialect,
            portreeve,
            upstream,
            token,
        }
    }

    /// An attack with its credentials, which are good: he has an account of his own.
    fn filled(&self, attack: &str) -> String {
        let attack = attack.replace("{token}", &self.token);
        attack.replace("{plain}", &plain(ACCOUNT, &self.token))
    }

    /// A client that has been greeted.
    async fn client(&self) -> Wire {
        let mut client = Wire::connect(self.portreeve.door(self.dialect.protocol, Security::StartTls)).await;
        self.dialect.meet(&mut client).await;
        client
    }

    /// Plays a script of [`WITH_THE_COMMAND`]; what is heard behind the replies to harmless commands.
    async fn inject(&self, script: &str, attack: &str) -> String {
        let Dialect { starttls, noop, .. } = self.dialect;
        let (head, tail) = starttls.split_at(starttls.len() / 2);
        let first = attack.get(..1).expect("an attack begins with ASCII");
        let parts = [
            ("{starttls}", *starttls),
            ("{noop}", *noop),
            ("{head}", head),
            ("{tail}", tail),
            ("{first}", first),
            ("{attack}", attack),
        ];
        let script = parts
            .iter()
            .fold(script.to_owned(), |script, (name, text)| script.replace(name, text));
        let mut client = self.client().await;
        let script = match script.split_once('|') {
            Some((before, behind)) => {
                client.send(format!("{noop}\r\n{before}").as_bytes()).await;
                self.dialect.reply(&mut client).await;
                behind.to_owned()
            }
            None => script,
        };
        client.send(script.as_bytes()).await;
        if script.starts_with(noop) {
            self.dialect.reply(&mut client).await;
        }
        text(client).await
    }

    /// A client that has heard that TLS may begin.
    async fn invited(&self) -> Wire {
        let mut client = self.client().await;
        client.send_line(self.dialect.starttls).await;
        let reply = self.dialect.reply(&mut client).await;
        assert!(reply.starts_with(self.dialect.accepted), "{reply}");
        client
    }

    /// In clear, in the handshake's place.
    async fn expect_no_answer_before_the_handshake(&self, attack: &str) {
        let mut client = self.invited().await;
        client.send_line(attack).await;
        assert_eq!(text(client).await, "", "{attack:?}");
    }

    /// In clear before the handshake, which the client begins none the wiser.
    async fn expect_no_handshake_behind(&self, attack: &str) {
        let mut client = self.invited().await;
        client.send_line(attack).await;
        let authority = self.portreeve.authority();
        let secured = client.try_secured(authority.client_config()).await;
        assert!(secured.is_err(), "{attack:?} was taken, or swallowed");
    }

    /// As fast as segments follow one another: before the proxy has answered the command, or just after.
    async fn expect_nothing_behind_pieces(&self, attack: &str) {
        let mut client = self.client().await;
        client.send_line(self.dialect.starttls).await;
        client.send_line(attack).await;
        let heard = text(client).await;
        let is_refusal = heard.contains("Nothing may follow");
        assert!(
            heard.lines().count() == 1 && (is_refusal || heard.starts_with(self.dialect.accepted)),
            "{heard:?}"
        );
    }

    /// TLS that begins with the connection is not this port's, and the log says so.
    async fn expect_no_tls_before_the_command(&self) {
        let client = Wire::connect(self.portreeve.door(self.dialect.protocol, Security::StartTls)).await;
        let secured = client.try_secured(self.portreeve.authority().client_config()).await;
        assert!(secured.is_err());
        until(PATIENCE, "the misunderstanding is logged", async || {
            let log = self.portreeve.log();
            log.contains("a client began TLS on a port without it").then_some(())
        })
        .await;
    }

    /// A client that nobody meddles with is served, with an upstream of its own.
    async fn expect_service(&self) {
        let client = self.invited().await;
        let mut client = client.secured(self.portreeve.authority().client_config()).await;
        self.dialect.greet(&mut client).await;
        let login = async {
            let reply = self.dialect.login(&mut client, ACCOUNT, &self.token).await;
            assert!(reply.starts_with(self.dialect.unavailable), "{reply}");
        };
        // Only those who log in are connected to it.
        let upstream = async { self.upstream.accept().await.send_end().await };
        tokio::join!(login, upstream);
    }
}

async fn text(client: Wire) -> String {
    String::from_utf8(client.rest().await).expect("nothing but text is said in clear")
}
