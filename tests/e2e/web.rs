//! The public side of a running daemon: its certificate, what it logs, how it starts, reloads and stops. What its pages say is
//! tested beside them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::json;

use crate::support::portreeve::{Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::shell::Shell;
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_cas_certificate_is_for_the_public_urls_host() {
    let side = Side::start("certificate = \"own\"").await;
    let ca_file = side.portreeve.state_dir().join("tls/ca.pem");
    let answer = side.curl(&ca_file, &["/authorize/t0ken"]);
    assert!(
        answer.starts_with("HTTP/1.1 404 ") && answer.contains("This link is not valid"),
        "{answer}"
    );
    assert!(
        answer.contains("strict-transport-security: max-age=31536000"),
        "{answer}"
    );

    let address = side.address.to_string();
    let public_url = side.public_url();
    let status = side.portreeve.read("/v1/status").await;
    assert_eq!(
        status["web"],
        json!({"address": address, "tls": true, "publicUrl": public_url})
    );
    assert_eq!(status["certificateAuthority"]["path"], ca_file.display().to_string());
    let told = Shell::at(side.portreeve.socket()).done(&["status"]).stdout;
    assert!(
        told.contains(&format!("{address} (TLS), public URL {public_url}\n")),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_codes_and_cookies_are_in_no_log_at_any_level() {
    let side = Side::start("certificate = \"filed\"\n[log]\nlevel = \"trace\"\nformat = \"text\"").await;
    let ca_file = side.portreeve.ca_file();
    let posted = side.curl(&ca_file, &["/authorize/s3cret-link", "--data", ""]);
    assert!(posted.starts_with("HTTP/1.1 404 "), "{posted}");
    let cookie = "Cookie: __Host-portreeve=s3cretcookie";
    let redirected = "/oauth/callback?code=s3cret-code&state=s3cret-state";
    let completed = side.curl(&ca_file, &[redirected, "--header", cookie]);
    assert!(
        completed.starts_with("HTTP/1.1 400 ") && completed.contains("another browser"),
        "{completed}"
    );
    side.curl(&ca_file, &["/s3cret-path"]);

    let log = side.portreeve.log();
    for named in [
        "route=\"/authorize/{link}\"",
        "route=\"/oauth/callback\"",
        "route=\"unknown route\"",
    ] {
        assert!(log.contains(named), "{named}: {log}");
    }
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_reads_the_certificate_and_names_what_needs_a_restart() {
    let mut side = Side::start("certificate = \"filed\"").await;
    let ca_file = side.portreeve.ca_file();
    assert!(side.curl(&ca_file, &["/"]).starts_with("HTTP/1.1 404 "));
    let before = side.shown();

    side.write_files();
    let chosen = side.config("certificate = \"filed\"").replace(":8443", ":9443");
    side.portreeve.write_config(&chosen);
    side.portreeve.reload();
    side.portreeve
        .process()
        .stderr_line(|line| line.contains("configuration reloaded"))
        .await;
    assert_ne!(side.shown(), before);
    assert!(side.curl(&ca_file, &["/"]).starts_with("HTTP/1.1 404 "));
    let log = side.portreeve.log();
    assert!(
        log.contains("web.public_url has changed; it takes effect at the next start"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_request_that_never_comes_whole() {
    let mut side = Side::start("certificate = \"\"").await;
    let mut idle = Wire::connect(side.address).await;
    idle.send(b"GET / HTTP/1.1\r\n").await;
    side.portreeve.process().signal(Signal::TERM);
    idle.expect_end().await;
    assert_eq!(side.portreeve.process().wait().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_address_stops_the_start_and_names_its_key() {
    let side = Side::start("certificate = \"\"").await;
    let mut second = Portreeve::prepare(&Setup::default().with(&side.config("certificate = \"\"")));
    second.spawn();
    assert_eq!(second.process().wait().await.code(), Some(1));
    second.process().until_output_ends().await;
    let log = second.log();
    assert!(
        log.contains(&format!("web.listen: cannot listen on {}", side.address)),
        "{log}"
    );
}

/// A daemon with a public side whose host is no name of this machine's.
struct Side {
    portreeve: Portreeve,
    folder: tempfile::TempDir,
    address: SocketAddr,
}

impl Side {
    /// `more`: what else is in `[web]`, and behind it.
    async fn start(more: &str) -> Side {
        let mut side = Side {
            portreeve: Portreeve::prepare(&Setup::default()),
            folder: tempfile::tempdir().expect("a temporary directory can be made"),
            address: SocketAddr::from(([127, 0, 0, 1], free_port())),
        };
        side.write_files();
        side.portreeve.write_config(&side.config(more));
        side.portreeve.spawn();
        side.portreeve.until_ready().await;
        side
    }

    fn config(&self, more: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            r#"
[certificate.own]
self_signed = true
[certificate.filed]
cert_file = "{folder}/filed.pem"
key_file = "{folder}/filed.key"
[web]
listen = "{address}"
public_url = "{public_url}"
{more}
"#,
            address = self.address,
            public_url = self.public_url(),
        )
    }

    fn public_url(&self) -> String {
        format!("https://{HOST}:8443")
    }

    /// Writes a new certificate and its key, in place of those that may be there.
    fn write_files(&self) {
        let leaf = self.portreeve.authority().issue(&[HOST]);
        let write = |name: &str, pem: &str| fs::write(self.folder.path().join(name), pem).expect("it can be written");
        write("filed.pem", &leaf.certificate_pem);
        write("filed.key", &leaf.key_pem);
    }

    /// The answer, head and body, to a client that trusts `ca_file` and calls for the host.
    fn curl(&self, ca_file: &Path, arguments: &[&str]) -> String {
        let (path, rest) = arguments.split_first().expect("a path");
        let port = self.address.port();
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--include", "--noproxy", "*", "--cacert"])
            .arg(ca_file)
            .args(["--resolve", &format!("{HOST}:{port}:127.0.0.1")])
            .args(rest)
            .arg(format!("https://{HOST}:{port}{path}"))
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The certificate that browsers are shown.
    fn shown(&self) -> String {
        let output = Command::new("openssl")
            .args(["s_client", "-connect", &self.address.to_string(), "-servername", HOST])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl is installed");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, rest) = printed.split_once("-----BEGIN CERTIFICATE-----").expect("one is shown");
        rest.split_once("-----END").expect("what begins ends").0.to_owned()
    }
}

const HOST: &str = "connect.example.test";
