use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::leaf::{Anew, anew};
use super::*;
use crate::clock;
use crate::limits::{CERTIFICATE_BACKDATING, PRIVATE_LEAF_LIFE};
use crate::net::test_support::tcp_pair;
use crate::net::tls::{CertificateSource, ServerTls, SystemRoots, UpstreamTls};

const DAY: Duration = Duration::from_secs(24 * 3600);
const WITHIN: Duration = Duration::from_secs(20);

/// 2026-01-31T12:00:00Z
fn start() -> Timestamp {
    Timestamp::parse("2026-01-31T12:00:00Z").unwrap()
}

fn names(hostname: &str) -> CertificateNames {
    CertificateNames::new([hostname], ["192.0.2.7".parse().unwrap(), "0.0.0.0".parse().unwrap()])
}

/// A state directory with an authority in it.
struct Installed {
    state: TempDir,
    ca: Arc<PrivateCa>,
}

impl Installed {
    fn at(now: Timestamp) -> Self {
        let state = tempfile::tempdir().unwrap();
        let ca = Arc::new(PrivateCa::open(state.path(), "mail.example.com", now).unwrap());
        Self { state, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.path().join("tls").join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn open(&self, now: Timestamp) -> Result<AuthorityFacts, String> {
        PrivateCa::open(self.state.path(), "other.example.com", now)
            .map(|ca| ca.facts(now))
            .map_err(|error| error.to_string())
    }

    fn facts(&self, name: &str) -> x509::Facts {
        x509::read(&read_certificates(&self.path(name)).unwrap()[0]).unwrap()
    }

    fn certificate(&self, hostname: &str) -> PrivateCertificate {
        PrivateCertificate {
            ca: self.ca.clone(),
            name: "default".to_owned(),
            names: names(hostname),
        }
    }

    fn load(&self, hostname: &str, now: Timestamp) -> Result<Timestamp, String> {
        let loaded = self.certificate(hostname).load(now);
        loaded.map(|(_, due)| due).map_err(|error| error.to_string())
    }
}

#[test]
fn a_new_authority_is_made_once_and_is_for_the_daemons_user_alone() {
    let installed = Installed::at(start());
    installed.load("mail.example.com", start()).unwrap();
    let mode = |name: &str| fs::metadata(installed.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(""), 0o700);
    for name in ["ca.pem", "ca.key", "leaf-default.pem", "leaf-default.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    assert_eq!(
        fs::read_dir(installed.path("")).unwrap().count(),
        4,
        "nothing is left over"
    );

    let before = (installed.text("ca.pem"), installed.text("ca.key"));
    assert_eq!(installed.open(start().after(DAY)).unwrap(), installed.ca.facts(start()));
    assert_eq!((installed.text("ca.pem"), installed.text("ca.key")), before);
    let other = Installed::at(start());
    assert_ne!(other.facts("ca.pem").common_name, installed.facts("ca.pem").common_name);
}

#[test]
fn the_authority_s_certificate_says_what_it_is() {
    let installed = Installed::at(start());
    let facts = installed.facts("ca.pem");
    let name = facts.common_name.unwrap();
    assert!(name.starts_with("portreeve private CA mail.example.com "), "{name}");
    assert!(facts.is_ca);
    assert_eq!(facts.life.not_before, start().before(CERTIFICATE_BACKDATING));
    assert_eq!(facts.life.not_after, start().after(3650 * DAY));
    assert_eq!(installed.ca.facts(start()).expires, facts.life.not_after);

    let long = tempfile::tempdir().unwrap();
    PrivateCa::open(long.path(), &"h".repeat(253), start()).unwrap();
    let certificate = &read_certificates(&long.path().join("tls/ca.pem")).unwrap()[0];
    let name = x509::read(certificate).unwrap().common_name.unwrap();
    assert_eq!(name.len(), x509::COMMON_NAME_CHARS_MAX);
}

#[test]
fn a_leaf_is_for_the_configuration_s_names_and_specific_addresses() {
    let installed = Installed::at(start());
    installed.load("Mail.Example.com.", start()).unwrap();
    let facts = installed.facts("leaf-default.pem");
    let hosts: Vec<_> = facts.hosts.iter().map(String::as_str).collect();
    assert_eq!(hosts, ["localhost", "mail.example.com"]);
    let addresses: Vec<_> = facts.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1", "192.0.2.7", "::1"]);
    assert_eq!(facts.life.not_after, start().after(PRIVATE_LEAF_LIFE));
    assert!(!facts.is_ca);

    for (hostname, hosts) in [
        ("[2001:db8::1]", 1),
        ("not a name", 1),
        ("localhost", 1),
        ("a.example", 2),
    ] {
        installed.load(hostname, start()).unwrap();
        let facts = installed.facts("leaf-default.pem");
        assert_eq!(facts.hosts.len(), hosts, "{hostname}");
        let is_address = hostname.starts_with('[');
        assert_eq!(
            facts.addresses.contains(&"2001:db8::1".parse().unwrap()),
            is_address,
            "{hostname}"
        );
    }
}

#[test]
fn a_leaf_is_made_anew_for_its_dates_and_names() {
    let life = x509::Life {
        not_before: start(),
        not_after: start().after(90 * DAY),
    };
    let wanted = names("mail.example.com");
    let facts = |hosts: &[&str], addresses: &[&str]| x509::Facts {
        common_name: None,
        public_key: Vec::new(),
        life,
        is_ca: false,
        hosts: hosts.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let hosts = ["localhost", "mail.example.com"];
    let addresses = ["127.0.0.1", "::1", "192.0.2.7"];
    let second = Duration::from_secs(1);
    for (facts, now, expected) in [
        (facts(&hosts, &addresses), start(), None),
        (facts(&hosts, &addresses), start().after(60 * DAY).before(second), None),
        (facts(&hosts, &addresses), start().after(60 * DAY), Some(Anew::Ends)),
        (facts(&hosts, &addresses), start().after(100 * DAY), Some(Anew::Ends)),
        (
            facts(&hosts, &addresses),
            start().before(second),
            Some(Anew::NotYetValid),
        ),
        (facts(&hosts[..1], &addresses), start(), Some(Anew::Names)),
        (
            facts(&["localhost", "mail.example.com", "old.example.com"], &addresses),
            start(),
            Some(Anew::Names),
        ),
        (facts(&hosts, &addresses[..2]), start(), Some(Anew::Names)),
    ] {
        assert_eq!(anew(&facts, &wanted, now), expected, "{facts:?} at {now}");
    }
}

#[test]
fn a_leaf_stays_until_there_is_a_reason() {
    let installed = Installed::at(start());
    let due = installed.load("mail.example.com", start()).unwrap();
    let first = installed.text("leaf-default.pem");
    assert_eq!(installed.load("mail.example.com", due.before(DAY)).unwrap(), due);
    assert_eq!(installed.text("leaf-default.pem"), first, "nothing has changed");

    installed.load("mail.example.com", due).unwrap();
    let renewed = installed.text("leaf-default.pem");
    assert_ne!(renewed, first, "its last third has begun");

    installed.load("other.example.com", due).unwrap();
    let renamed = installed.text("leaf-default.pem");
    assert_ne!(renamed, renewed, "the names have changed");

    fs::remove_file(installed.path("leaf-default.key")).unwrap();
    installed.load("other.example.com", due).unwrap();
    assert_ne!(installed.text("leaf-default.pem"), renamed, "its key is gone");

    let unexposed = installed.text("leaf-default.key");
    fs::set_permissions(installed.path("leaf-default.key"), fs::Permissions::from_mode(0o644)).unwrap();
    installed.load("other.example.com", due).unwrap();
    assert_ne!(
        installed.text("leaf-default.key"),
        unexposed,
        "others could read its key"
    );
    let mode = fs::metadata(installed.path("leaf-default.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let stranger = Installed::at(start());
    stranger.load("other.example.com", due).unwrap();
    for name in ["leaf-default.pem", "leaf-default.key"] {
        fs::copy(stranger.path(name), installed.path(name)).unwrap();
    }
    installed.load("other.example.com", due).unwrap();
    assert_ne!(
        installed.text("leaf-default.pem"),
        stranger.text("leaf-default.pem"),
        "another CA signed it"
    );
}

#[test]
fn a_renewed_authority_keeps_its_name_and_key_and_tells_of_the_former() {
    let installed = Installed::at(start());
    let end = installed.ca.facts(start()).expires;
    let second = Duration::from_secs(1);
    let old = installed.open(end.before(90 * DAY + second)).unwrap();
    assert_eq!((&old, old.former.as_ref()), (&installed.ca.facts(start()), None));

    let before = installed.facts("ca.pem");
    let renewed = installed.open(end.before(90 * DAY)).unwrap();
    let after = installed.facts("ca.pem");
    assert_eq!(
        (&after.common_name, &after.public_key),
        (&before.common_name, &before.public_key)
    );
    assert_eq!(renewed.expires, end.before(90 * DAY).after(3650 * DAY));
    let former = renewed.former.as_ref().unwrap();
    assert_eq!((&former.fingerprint, former.expires), (&old.fingerprint, end));
    assert_ne!(renewed.fingerprint, old.fingerprint);

    assert_eq!(installed.open(end.before(second)).unwrap(), renewed);
    assert_eq!(
        installed.open(end).unwrap().former,
        None,
        "nobody can trust it any more"
    );

    fs::rename(installed.path("ca-former.pem"), installed.path("ca.pem")).unwrap();
    assert_eq!(
        installed.open(start()).unwrap(),
        old,
        "the former in its place is what it was"
    );
    let ended = installed.open(end.after(DAY)).unwrap();
    assert_eq!((ended.expires, ended.former), (end.after(3651 * DAY), None));
    assert_eq!(installed.facts("ca.pem").public_key, before.public_key);
}

#[tokio::test]
async fn what_it_issues_verifies_with_the_former_certificate_and_with_the_renewed_one() {
    // Handshakes are judged by the real clock: the authority is as old as makes it due today.
    let now = clock::now();
    let installed = Installed::at(now.before(3600 * DAY));
    let source = CertificateSource::Private(installed.certificate("mail.example.com"));
    let server = ServerTls::load(vec![source], now).unwrap();
    assert!(installed.ca.facts(now).former.is_some());
    for authority in ["ca.pem", "ca-former.pem"] {
        let client = UpstreamTls::new(&SystemRoots::none(), Some(&installed.path(authority))).unwrap();
        for host in ["mail.example.com", "localhost", "127.0.0.1", "[::1]", "192.0.2.7"] {
            let (near, far) = tcp_pair().await;
            let (near, _far) = tokio::join!(client.connect(near, host, WITHIN), server.accept(far, WITHIN));
            assert!(near.unwrap().is_tls(), "{authority}, {host}");
        }
    }
}

#[test]
fn a_look_renews_what_is_due_and_tells_a_failure_once() {
    let installed = Installed::at(start());
    let source = CertificateSource::Private(installed.certificate("mail.example.com"));
    let server = ServerTls::load(vec![source], start()).unwrap();
    let due = start().after(61 * DAY);
    assert!(!server.look(start().after(DAY)).unwrap());
    let first = installed.text("leaf-default.pem");

    let authority = installed.text("ca.pem");
    fs::write(installed.path("ca.pem"), "").unwrap();
    let told = server.look(due).unwrap_err().to_string();
    assert!(told.contains("ca.pem: holds no certificate"), "{told}");
    assert!(!server.look(due).unwrap(), "a failure is told once");
    assert_eq!(installed.text("leaf-default.pem"), first);

    fs::write(installed.path("ca.pem"), authority).unwrap();
    assert!(server.look(due).unwrap());
    assert_ne!(installed.text("leaf-default.pem"), first);
    assert!(!server.look(due).unwrap(), "what the daemon wrote itself is no change");
}

#[test]
fn an_authority_that_is_not_whole_is_never_replaced() {
    let stranger = Installed::at(start());
    type Harm = fn(&Installed, &Installed);
    let cases: [(&str, Harm); 7] = [
        ("ca.pem: cannot be read", |harmed, _| {
            fs::remove_file(harmed.path("ca.pem")).unwrap()
        }),
        ("ca.key: cannot be read", |harmed, _| {
            fs::remove_file(harmed.path("ca.key")).unwrap()
        }),
        ("ca.pem: holds no certificate", |harmed, _| {
            fs::write(harmed.path("ca.pem"), "").unwrap()
        }),
        ("ca.key: holds no private key", |harmed, _| {
            fs::write(harmed.path("ca.key"), "").unwrap()
        }),
        ("ca.pem: the certificate cannot be read", |harmed, _| {
            let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            fs::write(harmed.path("ca.pem"), garbled).unwrap();
        }),
        ("ca.key: the key does not belong", |harmed, stranger| {
            fs::copy(stranger.path("ca.key"), harmed.path("ca.key")).unwrap();
        }),
        ("ca.pem: holds no CA of portreeve's making", |harmed, _| {
            harmed.load("localhost", start()).unwrap();
            fs::copy(harmed.path("leaf-default.pem"), harmed.path("ca.pem")).unwrap();
        }),
    ];
    for (expected, harm) in cases {
        let harmed = Installed::at(start());
        harm(&harmed, &stranger);
        let files = || ["ca.pem", "ca.key"].map(|name| fs::read(harmed.path(name)).ok());
        let before = files();
        let told = harmed.open(start()).unwrap_err();
        assert!(told.contains(expected) && told.contains("backup"), "{told}");
        assert_eq!(files(), before, "{expected}");
    }

    let harmed = Installed::at(start());
    fs::set_permissions(harmed.path("ca.key"), fs::Permissions::from_mode(0o640)).unwrap();
    let told = harmed.open(start()).unwrap_err();
    assert!(told.contains("ca.key") && told.contains("chmod 600"), "{told}");
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let installed = Installed::at(start());
    fs::set_permissions(installed.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let told = installed.open(start()).unwrap_err();
    assert!(told.contains("mode 0755") && told.contains("chmod 700"), "{told}");
}

#[test]
fn two_serial_numbers_differ() {
    let (one, other) = (x509::serial_number().unwrap(), x509::serial_number().unwrap());
    assert_ne!(one.to_bytes(), other.to_bytes());
}

#[test]
fn a_certificate_survives_the_way_into_pem_and_back() {
    let installed = Installed::at(start());
    let certificate = &read_certificates(&installed.path("ca.pem")).unwrap()[0];
    assert_eq!(x509::pem(certificate), installed.text("ca.pem"));
}
