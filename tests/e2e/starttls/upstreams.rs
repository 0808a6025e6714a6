//! Towards upstreams: what is said before TLS counts for nothing, TLS that is refused, withheld or anybody else's ends the
//! login, and no credential is said outside TLS whatever the upstream says. The client hears of temporary trouble.

use serde_json::{Value, json};

use super::conversation::Said::{self, Answer, Greeting, Offer};
use super::conversation::{Conversation, Heard, Then};
use super::{ACCOUNT, Dialect, IMAP, MAILBOX, POP3, SMTP, plain};
use crate::support::certs::Authority;
use crate::support::portreeve::{Endpoint, PROVIDER, Portreeve, Setup};
use crate::support::upstream::{Security, Upstream};
use crate::support::wire::Wire;

/// Behind each of these nothing is to be believed.
const REFUSED_IN_IMAP: &[Said] = &[
    Greeting("* PREAUTH [CAPABILITY IMAP4rev1] welcome, whoever you are\r\n"),
    Greeting("* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] welcome\r\n"),
    Greeting("* BYE [ALERT] evil\r\n"),
    Greeting("P1 OK evil\r\n"),
    Answer("{tag} NO not today\r\n"),
    Answer("{tag} BAD unknown command\r\n"),
    Answer("{tag} NO [REFERRAL imap://;AUTH=*@evil.example.com/] evil\r\n"),
    Answer("{tag} BAD [ALERT] evil\r\n"),
    Answer("* BYE evil\r\n"),
    Answer("P9 OK not what was asked\r\n{tag} OK go on\r\n"),
    Answer("P2 OK [CAPABILITY IMAP4rev1] logged in\r\n{tag} OK go on\r\n"),
    Answer("+ go on\r\n{tag} OK go on\r\n"),
    Answer("{tag} PREAUTH go on\r\n"),
];

/// What an attacker says behind the word that TLS may begin: inside it, had it come later.
const INJECTED_INTO_IMAP: &[Said] = &[
    Answer("{tag} OK go on\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n"),
    Answer("{tag} OK go on\r\n* OK [ALERT] evil\r\n"),
    Answer("{tag} OK go on\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nP2 OK done\r\nP3 OK logged in\r\n"),
    Answer("{tag} OK go on\r\n* 1 FETCH (BODY[] {1000}\r\n"),
    Answer("{tag} OK go on\r\n*"),
    Answer("{tag} OK go on\r\n\r\n"),
];

const REFUSED_IN_SMTP: &[Said] = &[
    Greeting("554 5.3.2 evil\r\n"),
    Greeting("421 4.3.2 evil\r\n"),
    Greeting("250 evil\r\n"),
    Offer("250-upstream.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN XOAUTH2\r\n"),
    Offer("502 5.5.1 evil\r\n"),
    Offer("421 4.3.2 evil\r\n"),
    Answer("454 4.7.0 TLS not available\r\n"),
    Answer("500 5.5.1 unknown command\r\n"),
    Answer("501 5.5.4 no\r\n"),
    Answer("503 5.5.1 no\r\n"),
    Answer("554 5.7.0 no\r\n"),
    Answer("421 4.3.2 evil\r\n"),
    Answer("235 2.7.0 logged in\r\n"),
    Answer("250 go on\r\n"),
    Answer("334 go on\r\n"),
];

const INJECTED_INTO_SMTP: &[Said] = &[
    Answer("220 go on\r\n250-upstream.example.com\r\n250 AUTH PLAIN\r\n"),
    Answer("220 go on\r\n250 AUTH PLAIN\r\n235 2.7.0 logged in\r\n"),
    Answer("220-go\r\n220 on\r\n250 AUTH PLAIN\r\n"),
    Answer("220 go on\r\n2"),
    Answer("220 go on\r\n\r\n"),
];

const REFUSED_IN_POP3: &[Said] = &[
    Greeting("-ERR evil\r\n"),
    Greeting("* OK evil\r\n"),
    Answer("-ERR unknown command\r\n"),
    Answer("-ERR [SYS/PERM] evil\r\n"),
    Answer("-ERR [AUTH] evil\r\n"),
    Answer("+ go on\r\n"),
    Answer("OK go on\r\n"),
];

const INJECTED_INTO_POP3: &[Said] = &[
    Answer("+OK go on\r\n+OK\r\nSASL PLAIN\r\n.\r\n"),
    Answer("+OK go on\r\n+OK\r\nSASL PLAIN\r\n.\r\n+ \r\n+OK logged in\r\n"),
    Answer("+OK go on\r\n+"),
    Answer("+OK go on\r\n\r\n"),
];

/// What may be said in clear as long as nobody hears of it.
const IGNORED_IN_IMAP: &[Said] = &[
    Greeting("* OK [ALERT] evil\r\n"),
    Greeting("* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED XEVIL] evil\r\n"),
    Greeting("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=XEVIL] evil\r\n"),
    Answer("* OK [ALERT] evil\r\n{tag} OK evil\r\n"),
    Answer("* CAPABILITY IMAP4rev1 LOGINDISABLED XEVIL\r\n{tag} OK evil\r\n"),
    Answer("{tag} OK [CAPABILITY IMAP4rev1 LOGINDISABLED XEVIL] evil\r\n"),
    Answer("* FLAGS (\\evil)\r\n* 1 EXISTS\r\n* LIST () \"/\" evil\r\n{tag} OK evil\r\n"),
    Answer("* 1 FETCH (BODY[] {4}\r\nevil)\r\n{tag} OK evil\r\n"),
    Answer("* OK [REFERRAL imap://evil.example.com/] evil\r\n{tag} OK evil\r\n"),
    Answer("* NO evil\r\n* BAD evil\r\n{tag} OK evil\r\n"),
];

const IGNORED_IN_SMTP: &[Said] = &[
    Greeting("220-evil\r\n220 evil ESMTP\r\n"),
    Offer("250-evil\r\n250-SIZE 666\r\n250-XEVIL\r\n250-AUTH XEVIL\r\n250 STARTTLS\r\n"),
    Answer("220-evil\r\n220 evil\r\n"),
];

const IGNORED_IN_POP3: &[Said] = &[
    Greeting("+OK evil <1896.697170952@evil.example.com>\r\n"),
    Offer("+OK evil\r\nUSER\r\nSASL XEVIL\r\nXEVIL\r\nSTLS\r\n.\r\n"),
    Answer("+OK evil\r\n"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_is_said_to_an_imap_upstream_that_is_not_trusted() {
    nothing_is_said_outside_tls(&IMAP, REFUSED_IN_IMAP, INJECTED_INTO_IMAP, IGNORED_IN_IMAP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_is_said_to_an_smtp_upstream_that_is_not_trusted() {
    nothing_is_said_outside_tls(&SMTP, REFUSED_IN_SMTP, INJECTED_INTO_SMTP, IGNORED_IN_SMTP).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_is_said_to_a_pop3_upstream_that_is_not_trusted() {
    nothing_is_said_outside_tls(&POP3, REFUSED_IN_POP3, INJECTED_INTO_POP3, IGNORED_IN_POP3).await;
}

async fn nothing_is_said_outside_tls(dialect: &Dialect, refused: &[Said], injected: &[Said], ignored: &[Said]) {
    let bed = Bed::start(dialect, "").await;
    let conversation = || Conversation::honest(dialect.protocol);
    let names = ["localhost", "127.0.0.1"];
    let authority = bed.upstream.authority();
    for said in injected {
        // TLS could go on behind it, with a certificate that is as it should be.
        let then = Then::Tls(authority.issue(&names).acceptor());
        bed.expect_refused(conversation().with(said).then(then)).await;
    }
    for said in refused.iter().chain(injected) {
        bed.expect_refused(conversation().with(said).then(Then::Listen)).await;
    }
    for certificate in [
        Authority::new().issue(&names),
        authority.issue(&["upstream.example.com"]),
        authority.issue(&["127.0.0.1"]),
        authority.issue_until(&names, 2026),
    ] {
        bed.expect_refused(conversation().then(Then::Tls(certificate.acceptor())))
            .await;
    }
    let inside = conversation().inside;
    for then in [Then::Close, Then::Inject(inside), Then::InjectIntoHandshake(inside)] {
        bed.expect_refused(conversation().then(then)).await;
    }
    for said in ignored {
        bed.expect_ignored(conversation().with(said)).await;
    }
    let usage = bed.portreeve.read("/v1/usage?outcome=login").await;
    assert_eq!(usage["total"], ignored.len(), "{usage}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imap_upstream_that_withholds_tls_is_not_waited_for_for_ever() {
    tls_is_not_waited_for_for_ever(&IMAP, &[Greeting(""), Answer(""), Answer("* OK go on\r\n")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_smtp_upstream_that_withholds_tls_is_not_waited_for_for_ever() {
    let withheld = [Greeting(""), Offer(""), Answer(""), Answer("220-go on\r\n")];
    tls_is_not_waited_for_for_ever(&SMTP, &withheld).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pop3_upstream_that_withholds_tls_is_not_waited_for_for_ever() {
    tls_is_not_waited_for_for_ever(&POP3, &[Greeting(""), Answer(""), Answer("+OK")]).await;
}

async fn tls_is_not_waited_for_for_ever(dialect: &Dialect, withheld: &[Said]) {
    let bed = Bed::start(dialect, "[limits]\nlogin_timeout = \"1s\"").await;
    let conversation = || Conversation::honest(dialect.protocol).then(Then::Listen);
    for said in withheld {
        bed.expect_refused(conversation().with(said)).await;
    }
    // It says that TLS may begin, and then nothing.
    bed.expect_refused(conversation()).await;
}

/// A proxy whose upstream begins TLS at a command, and is in an attacker's hands.
struct Bed<'a> {
    dialect: &'a Dialect,
    portreeve: Portreeve,
    upstream: Upstream,
    token: String,
}

impl<'a> Bed<'a> {
    async fn start(dialect: &'a Dialect, toml: &str) -> Bed<'a> {
        let upstream = Upstream::listen(Security::StartTls).await;
        let protocol = dialect.protocol;
        let endpoint = Endpoint::new(protocol, upstream.address(), Security::StartTls).to_toml();
        let ca_file = upstream.ca_file();
        let portreeve = Setup::default()
            .with(&format!(
                "[provider.{PROVIDER}]\nca_file = \"{}\"\n{endpoint}{toml}",
                ca_file.display()
            ))
            .listening(protocol)
            .start()
            .await;
        let account = json!({ "account": ACCOUNT, "provider": PROVIDER, "user": MAILBOX, "password": PASSWORD });
        portreeve.post("/v1/account", &account).await;
        let token = portreeve.add_token_for(ACCOUNT, &[protocol]).await;
        // The proxy asks a new account's upstream what it can do. Unanswered, it leaves it alone for longer than a test takes.
        drop(upstream.accept().await);
        Bed {
            dialect,
            portreeve,
            upstream,
            token,
        }
    }

    /// The login fails for now, an event says so, and nothing was given away.
    async fn expect_refused(&self, conversation: Conversation) {
        let before = self.denials().await.len();
        let (story, reply, heard) = self.converse(&conversation).await;
        let Dialect { unavailable, .. } = self.dialect;
        assert!(reply.starts_with(unavailable), "{story}\n{}", self.portreeve.log());
        assert_eq!(heard.inside, Vec::<String>::new(), "{story}");
        heard.expect_nothing_in_clear(&story);
        let denials = self.denials().await;
        assert_eq!(denials.len(), before + 1, "{story}");
        assert_eq!(denials[0], "unavailable", "{story}");
    }

    /// The login succeeds inside TLS, and nobody hears what was said before.
    async fn expect_ignored(&self, conversation: Conversation) {
        let (story, reply, heard) = self.converse(&conversation).await;
        assert!(
            reply.ends_with("example authenticated"),
            "{story}\n{}",
            self.portreeve.log()
        );
        heard.expect_nothing_in_clear(&story);
        let credential = plain(MAILBOX, PASSWORD);
        let is_given = heard.inside.iter().any(|line| line.ends_with(&credential));
        assert!(is_given, "{story}: {:?}", heard.inside);
    }

    /// Plays a conversation for a client's login: all that was said, the reply, and what the upstream has heard.
    async fn converse(&self, conversation: &Conversation) -> (String, String, Heard) {
        let login = async {
            let mut client = Wire::connect(self.portreeve.door(self.dialect.protocol, Security::Off)).await;
            self.dialect.meet(&mut client).await;
            let reply = self.dialect.login(&mut client, ACCOUNT, &self.token).await;
            // A relay ends with its client.
            (reply, client.transcript())
        };
        let upstream = async {
            let leg = self.upstream.accept().await;
            conversation.play(leg, self.upstream.authority()).await
        };
        let ((reply, transcript), heard) = tokio::join!(login, upstream);
        let Conversation {
            greeting,
            offer,
            answer,
            ..
        } = conversation;
        let story = format!("{greeting:?}, {offer:?}, {answer:?}\n{transcript}");
        for word in ["EVIL", "evil", "SIZE"] {
            assert!(!transcript.contains(word), "{story}");
        }
        (story, reply, heard)
    }

    /// Why logins were refused, the newest first; those of a minute are counted in one event.
    async fn denials(&self) -> Vec<String> {
        let usage = self.portreeve.read("/v1/usage?outcome=denied&pageSize=100").await;
        let events = usage["events"].as_array().expect("a list");
        let reasons = |event: &Value| {
            let times = usize::try_from(event["count"].as_u64().expect("a count")).expect("a few");
            std::iter::repeat_n(event["reason"].as_str().expect("a reason").to_owned(), times)
        };
        events.iter().flat_map(reasons).collect()
    }
}

const PASSWORD: &str = "open sesame";
