//! Recognition against a name server and an https server on loopback, and its parsers against tables.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::autoconfig::{File, Unusable, read};
use super::*;
use crate::clock;
use crate::config::{self, ProcessEnvironment, UpstreamTls};
use crate::limits::{AUTOCONFIG_BYTES_MAX, AUTOCONFIG_NODES_MAX};
use crate::net::dns::test_support::{NameServer, mx, srv};
use crate::net::tls::{CertificateFiles, ServerTls, SystemRoots};

const EMAIL: &str = "ada@example.org";

fn config(text: &str) -> Config {
    config::parse(None, &format!("server.state_dir = \"/s\"\n{text}"), &ProcessEnvironment).unwrap()
}

/// One that finds no autoconfig file anywhere.
fn recognizer(dns: Dns) -> Recognizer {
    let nowhere = Places {
        urls: Vec::new(),
        ca_file: None,
    };
    Recognizer::new(dns, Http::new(SystemRoots::none()), nowhere)
}

fn server(host: &str, port: u16, tls: UpstreamTls, user: Option<&str>) -> Option<Server> {
    Some(Server {
        endpoint: Endpoint {
            host: host.to_owned(),
            port,
            tls,
        },
        user: user.map(str::to_owned),
    })
}

#[tokio::test]
async fn a_domain_tells_its_provider_without_a_question_to_anybody() {
    let config = config(
        "[provider.own]\nimap.host = \"imap.own.test\"\ndomains = [\"Own.test\", \"me.com\", \"bücher.example\"]\n\
         [provider.google]\nclient_id = \"x\"\n",
    );
    // Nobody answers there.
    let recognizer = recognizer(Dns::at("127.0.0.1:1".parse().unwrap()));
    for (email, provider, found, configured, oauth2, passwords) in [
        ("ada@own.test", "own", "own.test is provider own's", true, false, true),
        ("ada@ME.com.", "own", "me.com is provider own's", true, false, true),
        (
            "ada@bücher.example",
            "own",
            "xn--bcher-kva.example is provider own's",
            true,
            false,
            true,
        ),
        ("Ada.L@GMail.com", "google", "gmail.com is Google's", true, true, true),
        ("ada@icloud.com", "icloud", "icloud.com is Apple's", true, false, true),
        ("ada@web.de", "webde", "web.de is WEB.DE's", true, false, true),
        // Its only way in takes an app, so that it is not there without a table.
        (
            "ada@hotmail.com",
            "microsoft",
            "hotmail.com is Microsoft's",
            false,
            false,
            false,
        ),
    ] {
        let finding = recognizer.recognize(email, &config, Reach::Servers).await;
        assert_eq!((finding.how, finding.found.as_str()), (How::Domain, found));
        assert_eq!(
            (
                finding.provider.as_deref(),
                finding.configured,
                finding.oauth2,
                finding.passwords
            ),
            (Some(provider), configured, oauth2, passwords),
            "{email}"
        );
        assert_eq!(finding.advice.is_some(), provider != "own");
        assert!(finding.servers.is_empty());
    }
}

#[tokio::test]
async fn an_address_without_a_public_domain_is_nobodys() {
    let recognizer = recognizer(Dns::at("127.0.0.1:1".parse().unwrap()));
    for email in [
        "ada",
        "@example.org",
        "ada@localhost",
        "ada@mail.localhost",
        "ada@127.0.0.1",
        "ada@[::1]",
        "ada@2130706433",
        "ada@example.org/path?",
        "ada@exa mple.org",
        "ada@example..org",
    ] {
        let finding = recognizer.recognize(email, &config(""), Reach::Servers).await;
        assert_eq!(finding.how, How::None, "{email}");
        assert!(
            finding.found.starts_with("the address has no domain"),
            "{email}: {}",
            finding.found
        );
    }
}

#[tokio::test]
async fn exchangers_tell_the_provider_of_a_customers_domain() {
    let exchangers = [
        ("a.test", "aspmx.l.google.com."),
        ("b.test", "b-test.mail.protection.outlook.com."),
        ("c.test", "in1-smtp.messagingengine.com."),
        ("d.test", "mta5.am0.yahoodns.net."),
        ("e.test", "mx-aol.mail.gm0.yahoodns.net."),
        ("f.test", "mx.zoho.com."),
        ("g.test", "mx.yandex.net."),
        ("h.test", "mx01.mail.icloud.com."),
        ("i.test", "emx.mail.ru."),
        ("j.test", "mx00.emig.gmx.net."),
        // Names that only look alike.
        ("k.test", "aspmx.l.notgoogle.com."),
        ("l.test", "google.com.evil.test."),
    ];
    let mut records: Vec<_> = exchangers.iter().map(|(domain, host)| mx(domain, 10, host)).collect();
    // The first exchanger that anybody knows decides.
    records.extend([mx("a.test", 1, "filter.example.net."), mx("a.test", 90, "mx.zoho.com.")]);
    let server = NameServer::start(records).await;
    let recognizer = recognizer(server.dns());
    for (domain, provider) in [
        ("a.test", Some("google")),
        ("b.test", Some("microsoft")),
        ("c.test", Some("fastmail")),
        ("d.test", Some("yahoo")),
        ("e.test", Some("aol")),
        ("f.test", Some("zoho")),
        ("g.test", Some("yandex")),
        ("h.test", Some("icloud")),
        ("i.test", Some("mailru")),
        ("j.test", Some("gmx")),
        ("k.test", None),
        ("l.test", None),
        ("without.test", None),
    ] {
        let email = format!("ada@{domain}");
        let finding = recognizer.recognize(&email, &config(""), Reach::Provider).await;
        assert_eq!(finding.provider.as_deref(), provider, "{domain}");
        let how = if provider.is_some() { How::Mx } else { How::None };
        assert_eq!(finding.how, how, "{domain}");
    }
    let finding = recognizer.recognize("ada@A.test", &config(""), Reach::Provider).await;
    assert_eq!(finding.found, "a.test is Google's (MX aspmx.l.google.com)");
    assert!(finding.configured && finding.passwords && !finding.oauth2);
    let finding = recognizer.recognize("ada@b.test", &config(""), Reach::Provider).await;
    assert!(!finding.configured && finding.advice.unwrap().contains("client_id"));
    let with_app = config("[provider.microsoft]\nclient_id = \"x\"");
    let finding = recognizer.recognize("ada@b.test", &with_app, Reach::Provider).await;
    assert!(finding.configured && finding.oauth2 && !finding.passwords);
}

#[tokio::test]
async fn srv_records_tell_servers_which_are_told_and_given_no_provider() {
    let names = NameServer::start(vec![
        srv("_imaps._tcp.example.org", (0, 9, 993), "imap.localhost."),
        srv("_imaps._tcp.example.org", (0, 1, 993), "imap.example.org."),
        srv("_imap._tcp.example.org", (0, 1, 143), "worse.example.org."),
        srv("_submission._tcp.example.org", (0, 1, 587), "Smtp.Example.org."),
        srv("_pop3s._tcp.example.org", (0, 0, 0), "."),
        srv("_imaps._tcp.customer.test", (0, 1, 993), "imap.fastmail.com."),
        srv("_submissions._tcp.customer.test", (0, 1, 465), "smtp.fastmail.com."),
        srv("_imaps._tcp.half.test", (0, 1, 993), "imap.fastmail.com."),
        srv("_submissions._tcp.half.test", (0, 1, 465), "smtp.evil.test."),
    ])
    .await;
    let recognizer = recognizer(names.dns());
    let finding = recognizer.recognize(EMAIL, &config(""), Reach::Servers).await;
    assert_eq!(
        (finding.how, finding.provider, finding.configured),
        (How::Srv, None, false)
    );
    assert_eq!(
        finding.found,
        "example.org names its servers in DNS (SRV): imap imap.example.org:993, smtp smtp.example.org:587"
    );
    assert_eq!(
        finding.servers,
        Servers {
            imap: server("imap.example.org", 993, UpstreamTls::Implicit, None),
            smtp: server("smtp.example.org", 587, UpstreamTls::Starttls, None),
            pop3: None,
        }
    );
    // Who only wants a provider is not told of servers.
    let finding = recognizer.recognize(EMAIL, &config(""), Reach::Provider).await;
    assert_eq!((finding.how, finding.servers.is_empty()), (How::None, true));
    let finding = recognizer
        .recognize("ada@customer.test", &config(""), Reach::Servers)
        .await;
    assert_eq!((finding.how, finding.provider.as_deref()), (How::Srv, Some("fastmail")));
    assert!(
        finding.found.ends_with("smtp.fastmail.com:465, which are Fastmail's"),
        "{}",
        finding.found
    );
    assert!(finding.servers.is_empty(), "a provider's own configuration counts");
    // One foreign server among them, and they are nobody's.
    let finding = recognizer.recognize("ada@half.test", &config(""), Reach::Servers).await;
    assert_eq!(finding.provider, None);
    assert_eq!(finding.servers.named().count(), 2);
}

#[tokio::test]
async fn what_cannot_be_asked_is_told_and_is_no_failure() {
    let server = NameServer::start_refusing().await;
    let finding = recognizer(server.dns())
        .recognize(EMAIL, &config(""), Reach::Servers)
        .await;
    assert_eq!(finding.how, How::None);
    for expected in [
        "example.org is no known provider's, neither by name nor by its MX records",
        "; its MX records cannot be asked for: ",
        "; its SRV records cannot be asked for: ",
    ] {
        assert!(finding.found.contains(expected), "{}", finding.found);
    }
}

/// An https server of its own CA that answers each path as it is told to, and remembers what it was asked.
struct Website {
    port: u16,
    directory: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Website {
    async fn start(answers: &'static [(&'static str, &'static str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let files = CertificateFiles {
            cert_file: directory.path().join("cert.pem"),
            key_file: directory.path().join("key.pem"),
        };
        std::fs::write(&files.cert_file, parameters.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&files.key_file, key.serialize_pem()).unwrap();
        let tls = ServerTls::load(vec![files.into()], clock::now()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut stream) = tls.accept(tcp, Duration::from_secs(20)).await else {
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let found = answers.iter().find(|(path, _)| target.starts_with(path));
                let reply = found.map_or(
                    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                    |(_, body)| match body.strip_prefix("redirect ") {
                        Some(to) => format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"),
                        None => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                    },
                );
                seen.lock().unwrap().push(target);
                let _ = stream.write_all(reply.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            port,
            directory,
            asked,
            serving,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    fn places(&self, urls: &[String]) -> Places {
        Places {
            urls: urls.to_vec(),
            ca_file: Some(self.directory.path().join("cert.pem")),
        }
    }
}

impl Drop for Website {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

const FILE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<clientConfig version="1.1">
  <emailProvider id="example.org">
    <domain>example.org</domain>
    <incomingServer type="imap">
      <hostname>imap.%EMAILDOMAIN%</hostname><port>993</port><socketType>SSL</socketType>
      <username>%EMAILLOCALPART%</username><authentication>password-cleartext</authentication>
    </incomingServer>
    <outgoingServer type="smtp">
      <hostname>smtp.example.org</hostname><port>587</port><socketType>STARTTLS</socketType>
      <username>%EMAILADDRESS%</username><authentication>OAuth2</authentication>
      <authentication>password-cleartext</authentication>
    </outgoingServer>
  </emailProvider>
</clientConfig>"#;

fn expected() -> Servers {
    Servers {
        imap: server("imap.example.org", 993, UpstreamTls::Implicit, Some("ada")),
        smtp: server("smtp.example.org", 587, UpstreamTls::Starttls, None),
        pop3: None,
    }
}

#[tokio::test]
async fn an_autoconfig_file_is_fetched_from_the_first_place_that_has_one() {
    let website = Website::start(&[("/broken/", "<clientConfig"), ("/second/", FILE), ("/third/", FILE)]).await;
    let names = NameServer::start(Vec::new()).await;
    let places = website.places(&[
        website.url("/missing/{domain}?emailaddress={email}"),
        website.url("/broken/"),
        website.url("/second/{domain}?emailaddress={email}"),
        website.url("/third/"),
    ]);
    let recognizer = Recognizer::new(names.dns(), Http::new(SystemRoots::none()), places);
    let email = "ada+x&y=z@example.org";
    let finding = recognizer.recognize(email, &config(""), Reach::Servers).await;
    assert_eq!(
        (finding.how, finding.provider, finding.passwords),
        (How::Autoconfig, None, true)
    );
    assert_eq!(
        finding.found,
        format!(
            "https://localhost:{}/second/example.org names the servers of example.org: imap imap.example.org:993, smtp \
             smtp.example.org:587",
            website.port
        )
    );
    assert_eq!(finding.servers.imap.unwrap().user.as_deref(), Some("ada+x&y=z"));
    let asked = website.asked.lock().unwrap().clone();
    let query = "?emailaddress=ada%2Bx%26y%3Dz%40example.org";
    assert_eq!(
        asked,
        [
            format!("/missing/example.org{query}"),
            "/broken/".to_owned(),
            format!("/second/example.org{query}")
        ]
    );
}

#[tokio::test]
async fn a_file_counts_only_over_https_from_a_server_that_is_trusted_and_not_from_where_it_redirects_to() {
    let website = Website::start(&[("/redirect", "redirect /file"), ("/file", FILE)]).await;
    let names = NameServer::start(Vec::new()).await;
    let http = Http::new(SystemRoots::none());
    let how = async |places| {
        let recognizer = Recognizer::new(names.dns(), http.clone(), places);
        recognizer.recognize(EMAIL, &config(""), Reach::Servers).await.how
    };
    assert_eq!(how(website.places(&[website.url("/file")])).await, How::Autoconfig);
    assert_eq!(how(website.places(&[website.url("/redirect")])).await, How::None);
    let plain = website.url("/file").replace("https:", "http:");
    assert_eq!(how(website.places(&[plain])).await, How::None);
    let untrusted = Places {
        ca_file: None,
        ..website.places(&[website.url("/file")])
    };
    assert_eq!(how(untrusted).await, How::None);
}

#[test]
fn the_default_places_are_the_domains_own_and_last_a_database_that_hears_no_address() {
    let places = Places::default();
    assert!(places.urls.iter().all(|url| url.starts_with("https://")));
    assert_eq!(
        places.urls.last().unwrap(),
        "https://autoconfig.thunderbird.net/v1.1/{domain}"
    );
    assert!(
        places
            .urls
            .iter()
            .filter(|url| url.contains("{email}"))
            .all(|url| url.contains("autoconfig.{domain}"))
    );
}

fn parse(text: &str) -> Result<File, Unusable> {
    read(text.as_bytes(), "example.org", EMAIL)
}

#[test]
fn a_file_is_read_with_its_placeholders() {
    assert_eq!(
        parse(FILE),
        Ok(File {
            servers: expected(),
            passwords: true
        })
    );
    let oauth_alone = FILE.replace("password-cleartext", "OAuth2");
    assert_eq!(parse(&oauth_alone).map(|file| file.passwords), Ok(false));
    // The order of the file is the order of preference, among what may be used.
    let two = FILE.replace(
        "<domain>",
        "<incomingServer type=\"imap\"><hostname>plain.example.org</hostname><port>143</port><socketType>plain</socketType>\
         <authentication>password-cleartext</authentication></incomingServer>\
         <incomingServer type=\"imap\"><hostname>FIRST.example.org</hostname><port>993</port><socketType>SSL</socketType>\
         <authentication>password-cleartext</authentication></incomingServer><domain>",
    );
    let found = parse(&two).unwrap().servers.imap;
    assert_eq!(found, server("first.example.org", 993, UpstreamTls::Implicit, None));
}

#[test]
fn a_server_that_no_login_may_go_to_is_left_out() {
    for (what, with) in [
        ("<socketType>SSL</socketType>", "<socketType>plain</socketType>"),
        ("<socketType>SSL</socketType>", ""),
        ("<port>993</port>", "<port>0</port>"),
        ("<port>993</port>", "<port>99300</port>"),
        ("<port>993</port>", "<port>-1</port>"),
        ("imap.%EMAILDOMAIN%", "imap.example.org:993"),
        ("imap.%EMAILDOMAIN%", "imap.%UNKNOWN%"),
        ("imap.%EMAILDOMAIN%", "imap example.org"),
        ("imap.%EMAILDOMAIN%", "127.0.0.1"),
        ("imap.%EMAILDOMAIN%", "2130706433"),
        ("imap.%EMAILDOMAIN%", "localhost"),
        ("imap.%EMAILDOMAIN%", "a.localhost"),
        ("imap.%EMAILDOMAIN%", ""),
        ("%EMAILLOCALPART%", "%REALNAME%"),
        ("%EMAILLOCALPART%", "a&#10;b"),
        (
            "%EMAILLOCALPART%</username><authentication>password-cleartext",
            "%EMAILLOCALPART%</username><authentication>password-encrypted",
        ),
        (" type=\"imap\"", " type=\"exchange\""),
        (" type=\"imap\"", ""),
    ] {
        let text = FILE.replacen(what, with, 1);
        assert_ne!(text, FILE, "{what}");
        let servers = parse(&text).unwrap().servers;
        assert_eq!(
            servers,
            Servers {
                imap: None,
                ..expected()
            },
            "{what} -> {with}"
        );
    }
}

#[test]
fn a_hostile_document_is_refused() {
    let entities = FILE
        .replace(
            "<clientConfig",
            "<!DOCTYPE c [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY x SYSTEM \"file:///etc/passwd\">]>\
             <clientConfig",
        )
        .replace("smtp.example.org", "&b;");
    let deep = format!("<clientConfig>{}", "<a>".repeat(15_000));
    let closed = format!(
        "<clientConfig>{}{}</clientConfig>",
        "<a>".repeat(6000),
        "</a>".repeat(6000)
    );
    let wide = FILE.replace(
        "<domain>",
        &format!("{}<domain>", "<a/>".repeat(AUTOCONFIG_NODES_MAX as usize)),
    );
    let attributes = FILE.replace("<domain>", &format!("<domain {}>", "a=\"\" ".repeat(100)));
    for (name, text) in [
        ("entities", &entities),
        ("unknown entity", &FILE.replace("smtp.example.org", "&b;")),
        ("deep", &deep),
        ("deep and closed", &closed),
        ("wide", &wide),
        ("attributes given twice", &attributes),
        ("half", &FILE.chars().take(FILE.len() / 2).collect()),
        ("not XML", &"not found".to_owned()),
        ("nothing", &String::new()),
    ] {
        assert!(
            text.len() <= AUTOCONFIG_BYTES_MAX,
            "{name} is refused for what it is, not for its length"
        );
        assert!(
            matches!(parse(text), Err(Unusable::NotXml(_))),
            "{name}: {:?}",
            parse(text)
        );
    }
    let long = FILE.replace("<domain>", &format!("{}<domain>", " ".repeat(AUTOCONFIG_BYTES_MAX)));
    assert_eq!(parse(&long), Err(Unusable::TooLong));
    assert_eq!(parse("<html><body/></html>"), Err(Unusable::NoServer));
    assert_eq!(
        parse("<clientConfig><emailProvider/></clientConfig>"),
        Err(Unusable::NoServer)
    );
    let binary = read(b"<clientConfig>\xff</clientConfig>", "example.org", EMAIL);
    assert!(matches!(binary, Err(Unusable::NotXml(_))));
}

proptest::proptest! {
    #[test]
    fn no_mutation_of_a_file_panics_or_names_a_server_without_tls(at in 0..FILE.len(), with in "[<>&;%a-z0-9\"]{0,6}", cut in 0..40_usize) {
        let text: String = FILE.chars().take(at).chain(with.chars()).chain(FILE.chars().skip(at + cut)).collect();
        if let Ok(file) = parse(&text) {
            for (_, server) in file.servers.named() {
                proptest::prop_assert!(server.endpoint.tls != UpstreamTls::Off && is_host_name(&server.endpoint.host));
            }
        }
    }
}
