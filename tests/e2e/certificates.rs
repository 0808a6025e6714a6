//! Certificates towards clients: the private CA as clients meet it, the choice by SNI, and replacements under live sessions.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use crate::support::certs::{Leaf, client_trusting};
use crate::support::host::Host;
use crate::support::imap::Imap;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::shell::Shell;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_trust_the_authority_that_status_names_are_served() {
    let bed = Bed::start("mail.example.test", "\"own\"").await;
    let status = bed.portreeve.read("/v1/status").await;
    let authority = &status["certificateAuthority"];
    let path = bed.ca_file();
    assert_eq!(authority["path"], path.display().to_string());
    let printed = openssl_x509(&path, &["-noout", "-fingerprint", "-sha256"]);
    let (_, fingerprint) = printed.trim().split_once('=').expect("a name and a value");
    assert_eq!(authority["fingerprint"], fingerprint);
    assert_eq!(authority.get("former"), None);
    let told = Shell::at(bed.portreeve.socket()).done(&["status"]).stdout;
    let line = format!("CA to trust    {} (SHA-256 {fingerprint}, until ", path.display());
    assert!(told.contains(&line), "{told}");
    let log = bed.portreeve.log();
    assert!(
        log.contains(fingerprint) && log.contains(&path.display().to_string()),
        "{log}"
    );

    let extensions = openssl_x509(&path, &["-noout", "-text"]);
    for expected in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "Public-Key: (256 bit)",
        "CN = portreeve private CA mail.example.test ",
    ] {
        assert!(extensions.contains(expected), "{expected}: {extensions}");
    }
    for name in ["localhost", "mail.example.test"] {
        bed.served(name).expect_verified(&["-verify_hostname", name]);
    }
    for address in ["127.0.0.1", "::1"] {
        bed.served("localhost").expect_verified(&["-verify_ip", address]);
    }
    let refused = bed
        .served("localhost")
        .verify(&["-verify_hostname", "other.example.test"]);
    assert!(refused.contains("hostname mismatch"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_the_authority_and_what_it_has_issued() {
    let mut bed = Bed::start("mail.example.test", "\"own\"").await;
    let before = (bed.authority(), bed.served("localhost").certificate);
    bed.portreeve.process().signal(Signal::TERM);
    assert_eq!(bed.portreeve.process().wait().await.code(), Some(0));
    bed.portreeve.spawn();
    bed.portreeve.until_ready().await;
    assert_eq!((bed.authority(), bed.served("localhost").certificate), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_hostname_gets_a_certificate_without_ending_live_sessions() {
    let mut bed = Bed::start("old.example.test", "\"own\"").await;
    let authority = bed.authority();
    let mut session = bed.logged_in(&authority).await;
    bed.served("localhost")
        .expect_verified(&["-verify_hostname", "old.example.test"]);

    bed.configure("new.example.test", "\"own\"");
    bed.portreeve.reload();
    bed.portreeve
        .process()
        .stderr_line(|line| line.contains("configuration reloaded"))
        .await;
    bed.served("localhost")
        .expect_verified(&["-verify_hostname", "new.example.test"]);
    let refused = bed
        .served("localhost")
        .verify(&["-verify_hostname", "old.example.test"]);
    assert!(refused.contains("hostname mismatch"), "{refused}");
    assert_eq!(bed.authority(), authority);
    assert!(session.command("NOOP").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_chooses_by_sni_between_the_administrators_certificate_and_the_private_one() {
    let bed = Bed::start("mail.example.test", "[\"own\", \"filed\"]").await;
    let of_files = fs::read_to_string(bed.cert_file()).expect("it was written");
    let own = bed.served("mail.example.test");
    own.expect_verified(&["-verify_hostname", "mail.example.test"]);
    assert_eq!(bed.served("filed.example.test").certificate.trim(), of_files.trim());
    assert_eq!(
        bed.served("unknown.example.test").certificate,
        own.certificate,
        "the first is the default"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_files_are_served_by_themselves_without_ending_live_sessions() {
    let mut bed = Bed::start("mail.example.test", "\"filed\"").await;
    let authority = bed.portreeve.authority().pem();
    let mut session = bed.logged_in(&authority).await;

    let before = bed.served("localhost").certificate;
    bed.write_files();
    let replaced = fs::read_to_string(bed.cert_file()).expect("it was written");
    assert_ne!(before.trim(), replaced.trim());
    bed.portreeve
        .process()
        .stderr_line(|line| line.contains("certificates read again"))
        .await;
    assert_eq!(bed.served("localhost").certificate.trim(), replaced.trim());
    assert!(session.command("NOOP").await.is_ok());
    bed.logged_in(&authority).await;
    let status = bed.portreeve.read("/v1/status").await;
    assert_eq!(status.get("certificateAuthority"), None, "nobody uses it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_not_whole_is_an_error_that_says_what_to_do() {
    let mut bed = Bed::start("mail.example.test", "\"own\"").await;
    bed.portreeve.process().signal(Signal::TERM);
    bed.portreeve.process().wait().await;
    let key_file = bed.ca_file().with_extension("key");
    fs::write(&key_file, "no key at all\n").expect("it is ours");
    bed.portreeve.spawn();
    assert_eq!(bed.portreeve.process().wait().await.code(), Some(78));
    bed.portreeve.process().until_output_ends().await;
    let log = bed.portreeve.log();
    let expected = format!(
        "{}: holds no private key that can be used; restore ca.pem",
        key_file.display()
    );
    assert!(log.contains(&expected), "{log}");
    assert_eq!(fs::read_to_string(&key_file).expect("it is there"), "no key at all\n");
}

/// A proxy with a certificate of its private CA (`own`), one of files (`filed`), and a TLS listener of the test's.
struct Bed {
    host: Host,
    portreeve: Portreeve,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Bed {
    async fn start(hostname: &str, certificate: &str) -> Bed {
        let mut bed = Bed {
            host: Host::start().await,
            portreeve: Portreeve::prepare(&Setup::default()),
            folder: tempfile::tempdir().expect("a temporary directory can be made"),
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
        };
        bed.write_files();
        bed.configure(hostname, certificate);
        bed.portreeve.spawn();
        bed.portreeve.until_ready().await;
        let body = json!({ "account": USER, "provider": PROVIDER, "user": USER, "password": "sesame" });
        bed.portreeve.post("/v1/account", &body).await;
        bed
    }

    fn configure(&self, hostname: &str, certificate: &str) {
        let Bed {
            host,
            portreeve,
            address,
            ..
        } = self;
        self.portreeve.write_config(&format!(
            r#"
[server]
hostname = "{hostname}"
state_dir = "{state}"
[certificate.own]
self_signed = true
[certificate.filed]
cert_file = "{cert_file}"
key_file = "{key_file}"
[[listener]]
protocol = "imap"
address = "{address}"
tls = "implicit"
certificate = {certificate}
{provider}
"#,
            state = portreeve.state_dir().display(),
            cert_file = self.cert_file().display(),
            key_file = self.key_file().display(),
            provider = host.provider(),
        ));
    }

    /// Writes a new certificate and its key, in place of those that may be there.
    fn write_files(&self) {
        let Leaf {
            certificate_pem,
            key_pem,
        } = self.portreeve.authority().issue(&["filed.example.test", "localhost"]);
        fs::write(self.cert_file(), certificate_pem).expect("it can be written");
        fs::write(self.key_file(), key_pem).expect("it can be written");
    }

    fn cert_file(&self) -> PathBuf {
        self.folder.path().join("filed.pem")
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("filed.key")
    }

    fn ca_file(&self) -> PathBuf {
        self.portreeve.state_dir().join("tls/ca.pem")
    }

    /// The private CA's certificate.
    fn authority(&self) -> String {
        fs::read_to_string(self.ca_file()).expect("it was made")
    }

    /// A session over TLS that trusts `authority`, logged in.
    async fn logged_in(&self, authority: &str) -> Imap {
        let token = self.portreeve.add_token(USER).await;
        let mut session = Imap::connect_tls_as(self.address, client_trusting(authority)).await;
        let reply = session.login(USER, &token).await;
        assert!(reply.is_ok(), "{}", session.transcript());
        session
    }

    /// What a client that calls for `name` is shown.
    fn served(&self, name: &str) -> Served {
        let mut served = Served {
            address: self.address,
            ca_file: self.ca_file(),
            name: name.to_owned(),
            certificate: String::new(),
        };
        let printed = served.s_client(&[]);
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
        let from = printed
            .find(begin)
            .unwrap_or_else(|| panic!("no certificate: {printed}"));
        let until = printed.find(end).expect("what begins ends") + end.len();
        printed[from..until].clone_into(&mut served.certificate);
        served
    }
}

/// What a client is shown that calls for a name.
struct Served {
    address: SocketAddr,
    ca_file: PathBuf,
    name: String,
    /// The leaf, in PEM.
    certificate: String,
}

impl Served {
    /// A client that trusts the private CA and checks what `arguments` say gets through.
    fn expect_verified(&self, arguments: &[&str]) {
        let printed = self.verify(arguments);
        assert!(
            printed.contains("Verify return code: 0 (ok)"),
            "{arguments:?}: {printed}"
        );
    }

    fn verify(&self, arguments: &[&str]) -> String {
        let ca_file = self.ca_file.display().to_string();
        self.s_client(&[&["-CAfile", &ca_file, "-verify_return_error"], arguments].concat())
    }

    fn s_client(&self, arguments: &[&str]) -> String {
        let connect = [
            "s_client",
            "-connect",
            &self.address.to_string(),
            "-servername",
            &self.name,
        ]
        .map(str::to_owned);
        openssl(connect.iter().map(String::as_str).chain(arguments.iter().copied()))
    }
}

fn openssl_x509(file: &Path, arguments: &[&str]) -> String {
    let file = file.display().to_string();
    openssl(["x509", "-in", &file].into_iter().chain(arguments.iter().copied()))
}

/// Both outputs of a run of `openssl` with nothing to read.
fn openssl<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("openssl is installed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

const USER: &str = "alice";
