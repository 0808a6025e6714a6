//! Where clients are served: each address on its own, what is served when nothing was said, and the certificate that a client
//! calls for once it begins TLS in the middle.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::certs::{Authority, Leaf};
use crate::support::portreeve::{Portreeve, Setup};
use crate::support::ports::free_port;
use crate::support::protocol::Protocol;
use crate::support::shell::Shell;
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_address_of_a_listener_is_served_of_either_family() {
    let mut toml = String::new();
    let mut served = Vec::new();
    for protocol in PROTOCOLS {
        let (port, any) = (free_port(), free_port());
        let addresses = [
            format!("127.0.0.1:{port}"),
            format!("127.0.0.2:{port}"),
            format!("[::1]:{port}"),
        ];
        toml += &listener(protocol, &addresses);
        // Each family stands for itself, though `[::]` could have stood for both.
        toml += &listener(protocol, &[format!("0.0.0.0:{any}"), format!("[::]:{any}")]);
        let reached = [format!("127.0.0.9:{any}"), format!("[::1]:{any}")];
        served.extend(addresses.into_iter().chain(reached).map(|address| (protocol, address)));
    }
    let portreeve = Setup::default().with(&toml).start().await;
    for (protocol, address) in served {
        expect_greeting(protocol, &address).await;
    }
    assert!(!portreeve.log().contains("cannot listen"), "{}", portreeve.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_the_machine_lacks_is_a_warning_and_the_others_are_served() {
    let mut toml = String::new();
    let mut ports = Vec::new();
    for protocol in PROTOCOLS {
        let port = free_port();
        let missing = [format!("192.0.2.1:{port}"), format!("[2001:db8::1]:{port}")];
        toml += &listener(protocol, &[&missing[..], &[format!("[::1]:{port}")]].concat());
        ports.push((protocol, port));
    }
    let portreeve = Setup::default().with(&toml).start().await;
    for (protocol, port) in ports {
        expect_greeting(protocol, &format!("[::1]:{port}")).await;
        for missing in [format!("192.0.2.1:{port}"), format!("[2001:db8::1]:{port}")] {
            let log = portreeve.log();
            let warning = format!("cannot listen on {missing}: ");
            let warned = log
                .lines()
                .find(|line| line.contains(&warning) && line.contains("WARN"));
            let warned = warned.unwrap_or_else(|| panic!("{missing} is not missed: {log}"));
            assert!(warned.contains("the listener's other addresses are served"), "{warned}");
        }
    }
}

/// A network of its own without IPv6, where this machine lets a test have one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_one_family_serves_the_other() {
    let mut network = vec!["unshare", "--net"];
    if !rustix::process::geteuid().is_root() {
        network.insert(1, "--map-root-user");
    }
    let script = "ip link set lo up && echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6 && exec \"$@\"";
    network.extend(["sh", "-c", script, "sh"]);
    let permitted = Command::new(network[0]).args(&network[1..]).arg("true").output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        return println!("NOT TRIED: this machine lets nobody have a network; the test of missing addresses stands in");
    }
    let (port, only) = (free_port(), free_port());
    let (missing, there) = (format!("[::1]:{port}"), format!("127.0.0.1:{port}"));
    let toml = [
        listener(Protocol::Imap, &[missing.clone(), there.clone()]),
        listener(Protocol::Pop3, &[format!("127.0.0.1:{only}")]),
    ];
    let mut portreeve = Portreeve::prepare(&Setup::default().with(&toml.concat()));
    portreeve.spawn_under(&network);
    portreeve.until_ready().await;
    let served = portreeve.read("/v1/status").await["listeners"].to_string();
    assert!(served.contains(&there) && !served.contains(&missing), "{served}");
    let warning = format!("cannot listen on {missing}: ");
    assert!(portreeve.log().contains(&warning), "{}", portreeve.log());
}

#[test]
fn each_protocol_has_its_default_port_on_loopback() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("portreeve.toml");
    let shown = |text: &str| {
        fs::write(&file, text).expect("it can be written");
        let name = file.display().to_string();
        let shell = Shell::at(folder.path().join("admin.sock"));
        let config = shell.done(&["config", "show", "--json", "--config", &name]).json();
        let listeners = config["listener"].as_array().expect("a list").clone();
        let summary = |one: &serde_json::Value| format!("{} {} {}", one["protocol"], one["address"], one["tls"]);
        listeners.iter().map(summary).collect::<Vec<_>>()
    };
    let defaults = [
        r#""imap" ["127.0.0.1:2993"] "off""#,
        r#""smtp" ["127.0.0.1:2525"] "off""#,
        r#""pop3" ["127.0.0.1:2995"] "off""#,
    ];
    assert_eq!(shown(""), defaults);
    // A listener that says no address has its protocol's, and where one is given there is no other.
    for (protocol, default) in ["imap", "smtp", "pop3"].into_iter().zip(defaults) {
        assert_eq!(shown(&format!("[[listener]]\nprotocol = \"{protocol}\"\n")), [default]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_begins_tls_in_the_middle_is_shown_the_certificate_that_it_calls_for() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let names = ["first.example.test", "second.example.test"];
    let authority = Authority::new();
    let mut toml = String::new();
    let mut issued = Vec::new();
    for (name, file) in names.into_iter().zip(["first", "second"]) {
        let Leaf {
            certificate_pem,
            key_pem,
        } = authority.issue(&[name, "localhost"]);
        let path = |kind: &str| folder.path().join(format!("{file}.{kind}")).display().to_string();
        fs::write(path("pem"), &certificate_pem).expect("it can be written");
        fs::write(path("key"), key_pem).expect("it can be written");
        toml += &format!(
            "[certificate.{file}]\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
            path("pem"),
            path("key")
        );
        issued.push(CertificateDer::from_pem_slice(certificate_pem.as_bytes()).expect("it was just issued"));
    }
    let mut doors = Vec::new();
    for protocol in PROTOCOLS {
        let address = format!("127.0.0.1:{}", free_port());
        toml += &listener(protocol, std::slice::from_ref(&address));
        toml += "tls = \"starttls\"\ncertificate = [\"first\", \"second\"]\n";
        doors.push((protocol, address));
    }
    let portreeve = Setup::default().with(&toml).start().await;
    for (protocol, address) in doors {
        for (called, shown) in [
            ("first.example.test", 0),
            ("second.example.test", 1),
            ("SECOND.example.test", 1),
            // The first is for everybody else.
            ("localhost", 0),
        ] {
            let mut client = expect_greeting(protocol, &address).await;
            client.send_line(starttls(protocol)).await;
            client.line().await;
            let certificate = client.certificate_shown_to(called, authority.client_config()).await;
            assert_eq!(certificate, issued[shown], "{protocol:?} {called}\n{}", portreeve.log());
        }
    }
}

/// A listener's table, open for more.
fn listener(protocol: Protocol, addresses: &[String]) -> String {
    let protocol = protocol.name();
    format!("[[listener]]\nprotocol = \"{protocol}\"\naddress = {addresses:?}\n")
}

/// A client that has been greeted.
async fn expect_greeting(protocol: Protocol, address: &str) -> Wire {
    let address: SocketAddr = address.parse().expect("an address");
    let mut client = Wire::connect(address).await;
    let greeting = client.line().await;
    let expected = match protocol {
        Protocol::Imap => "* OK [CAPABILITY ",
        Protocol::Smtp => "220 localhost ESMTP ",
        Protocol::Pop3 => "+OK ",
    };
    assert!(greeting.starts_with(expected), "{greeting}");
    client
}

fn starttls(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "A STARTTLS",
        Protocol::Smtp => "STARTTLS",
        Protocol::Pop3 => "STLS",
    }
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3];
