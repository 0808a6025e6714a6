//! The configuration as its reader meets it: whole files in, a [`Config`] or named problems out.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::secret::ExposeSecret as _;

/// An environment made of tables.
#[derive(Default)]
struct Stage {
    variables: HashMap<String, String>,
    files: HashMap<PathBuf, (String, u32)>,
    unreadable: Vec<PathBuf>,
    root: bool,
}

impl Stage {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(mut self, path: &str, content: &str, mode: u32) -> Self {
        self.files.insert(path.into(), (content.to_owned(), mode));
        self
    }
}

impl Environment for Stage {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).map(OsString::from)
    }

    fn is_root(&self) -> bool {
        self.root
    }

    fn hostname(&self) -> String {
        "mail.test".to_owned()
    }

    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<FileContent> {
        if self.unreadable.iter().any(|unreadable| unreadable == path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (text, mode) = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(FileContent {
            bytes: text.clone().into_bytes(),
            mode: *mode,
        })
    }
}

fn user() -> Stage {
    Stage::default().with("HOME", "/home/ada")
}

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(Some(Path::new("portreeve.toml")), text, &user())
}

/// The problems of a text, as they are printed.
fn refusal(text: &str) -> String {
    read(text).expect_err("the configuration is wrong").to_string()
}

const EXAMPLE: &str = include_str!("../../docs/portreeve.example.toml");

/// The example without the secret that lies in another file.
fn readable() -> String {
    EXAMPLE.replace(
        "client_secret_file = \"google.secret\"",
        "client_secret = \"[redacted]\"",
    )
}

#[test]
fn nothing_given_means_the_defaults() {
    let config = load(None, &user()).unwrap();
    assert_eq!(config.source, None);
    assert_eq!(config.server.hostname, "mail.test");
    assert_eq!(config.server.state_dir, Path::new("/home/ada/.local/state/portreeve"));
    assert_eq!(
        config.admin.socket,
        Path::new("/home/ada/.local/state/portreeve/admin.sock")
    );
    assert_eq!(config.admin.socket_mode, 0o600);
    assert_eq!(config.metrics_listen, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(31 * 60));
    let listeners = config.listeners.iter();
    let served: Vec<_> = listeners
        .map(|one| (one.protocol, one.addresses[0].to_string(), one.tls))
        .collect();
    let wanted = [
        (Protocol::Imap, "127.0.0.1:2993"),
        (Protocol::Smtp, "127.0.0.1:2525"),
        (Protocol::Pop3, "127.0.0.1:2995"),
    ];
    assert_eq!(
        served,
        wanted.map(|(protocol, address)| (protocol, address.to_owned(), ListenerTls::Off))
    );
    assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["icloud"]);
    assert!(config.providers["icloud"].oauth.is_none() && config.providers["icloud"].is_always_there());
}

#[test]
fn the_first_file_in_the_order_is_read() {
    let named = |text: &str| format!("server.hostname = \"{text}\"");
    let stage = user()
        .file("/given.toml", &named("given"), 0o600)
        .file("/variable.toml", &named("variable"), 0o600)
        .file("/home/ada/.config/portreeve/portreeve.toml", &named("home"), 0o600)
        .file("/xdg/portreeve/portreeve.toml", &named("xdg"), 0o600)
        .file("/etc/portreeve/portreeve.toml", &named("etc"), 0o600);
    let hostname =
        |explicit: Option<&str>, stage: &Stage| load(explicit.map(Path::new), stage).unwrap().server.hostname;
    assert_eq!(hostname(None, &stage), "home");
    let stage = stage.with("XDG_CONFIG_HOME", "/xdg");
    assert_eq!(hostname(None, &stage), "xdg");
    let stage = stage.with("PORTREEVE_CONFIG", "/variable.toml");
    assert_eq!(hostname(None, &stage), "variable");
    assert_eq!(hostname(Some("/given.toml"), &stage), "given");
    let elsewhere = Stage::default()
        .with("HOME", "/home/eve")
        .file("/etc/portreeve/portreeve.toml", &named("etc"), 0);
    assert_eq!(hostname(None, &elsewhere), "etc");
}

#[test]
fn a_file_that_was_named_must_be_there_and_one_that_is_there_must_be_readable() {
    let error = load(Some(Path::new("/no.toml")), &user()).unwrap_err();
    assert!(error.to_string().starts_with("/no.toml: "), "{error}");
    let stage = Stage {
        unreadable: vec!["/etc/portreeve/portreeve.toml".into()],
        ..user()
    };
    assert!(matches!(load(None, &stage), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn directories_follow_the_service_manager_then_root_then_xdg() {
    let socket_and_state = |stage: &Stage| {
        let config = load(None, stage).unwrap();
        assert_eq!(client_socket(stage), config.admin.socket);
        (
            config.admin.socket.display().to_string(),
            config.server.state_dir.display().to_string(),
        )
    };
    let stage = user()
        .with("XDG_RUNTIME_DIR", "/run/user/7")
        .with("XDG_STATE_HOME", "/state");
    assert_eq!(
        socket_and_state(&stage),
        ("/run/user/7/portreeve/admin.sock".into(), "/state/portreeve".into())
    );
    let stage = Stage { root: true, ..stage };
    assert_eq!(
        socket_and_state(&stage),
        ("/run/portreeve/admin.sock".into(), "/var/lib/portreeve".into())
    );
    let stage = stage
        .with("RUNTIME_DIRECTORY", "/run/x")
        .with("STATE_DIRECTORY", "/var/lib/a:/var/lib/b");
    assert_eq!(
        socket_and_state(&stage),
        ("/run/x/admin.sock".into(), "/var/lib/a".into())
    );
    let error = load(None, &Stage::default()).unwrap_err().to_string();
    assert!(error.contains("server.state_dir: give a directory"), "{error}");
}

#[test]
fn the_client_finds_the_socket_of_the_configuration_even_if_the_rest_is_wrong() {
    let path = "/etc/portreeve/portreeve.toml";
    let stage = user().file(path, "admin.socket = \"/run/mine.sock\"\nserver.bogus = 1", 0o644);
    assert_eq!(client_socket(&stage), Path::new("/run/mine.sock"));
    let stage = user().file(path, "[server]\nstate_dir = \"/srv/state\"", 0o644);
    assert_eq!(client_socket(&stage), Path::new("/srv/state/admin.sock"));
}

#[test]
fn the_documented_example_is_read_in_full() {
    let stage = Stage { root: true, ..user() }
        .with("CREDENTIALS_DIRECTORY", "/cred")
        .file("/cred/google.secret", "g-secret\n", 0o400);
    let config = parse(Some(Path::new("/etc/portreeve/portreeve.toml")), EXAMPLE, &stage).unwrap();
    assert_eq!(
        config.providers.keys().collect::<Vec<_>>(),
        ["example", "google", "icloud", "microsoft"]
    );
    let google = config.providers["google"].oauth.as_ref().unwrap();
    assert_eq!(google.client_secret.as_ref().unwrap().expose_secret(), "g-secret");
    assert_eq!(google.client_auth, ClientAuth::Post);
    assert_eq!(
        google.token_url.as_ref().unwrap().as_str(),
        "https://oauth2.googleapis.com/token"
    );
    let microsoft = &config.providers["microsoft"];
    assert_eq!(microsoft.sasl, [Mechanism::XOAuth2]);
    assert_eq!(microsoft.submissions_max, Some(3));
    assert_eq!(microsoft.oauth.as_ref().unwrap().client_auth, ClientAuth::None);
    let example = &config.providers["example"];
    assert_eq!(
        example.oauth.as_ref().unwrap().issuer.as_ref().unwrap().as_str(),
        "https://id.example.com/"
    );
    assert_eq!(example.imap.as_ref().unwrap().host, "imap.example.com");
}

#[test]
fn what_comes_later_is_refused_by_name() {
    for (text, wanted) in [
        (
            "[store]\nbackend = \"postgres\"",
            "portreeve.toml:2: store.backend: \"postgres\" is not in this version",
        ),
        (
            "[provider.yahoo]\nclient_id = \"x\"",
            "portreeve.toml:1: provider.yahoo: is not a preset of this version, which are google, icloud, microsoft; \
             give its endpoints in full",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(wanted), "{refusal}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_line_its_key_and_what_is_allowed() {
    for (text, wanted) in [
        (
            "[[listener]]\ntls = \"ssl\"",
            ":2: listener.tls: \"ssl\" is not allowed; use one of off, starttls, implicit",
        ),
        (
            "[[listener]]\nprotocol = \"nntp\"",
            ":2: listener.protocol: \"nntp\" is not allowed; use one of imap, smtp, pop3",
        ),
        (
            "[[listener]]\nproxy_protocol_from = [\"10.0.0.0/8\", \"10.0.0.0/33\"]",
            ":2: listener.proxy_protocol_from: \"10.0.0.0/33\" is not allowed; use address ranges",
        ),
        (
            "[server]\nhostnam = \"x\"",
            ":2: server.hostnam: unknown key \"hostnam\"; use one of hostname, state_dir, ",
        ),
        ("\n[sever]", ":2: sever: unknown table; use one of server, store,"),
        ("server = 1", ":1: server: expected a table, found an integer"),
        (
            "listener = 1",
            ":1: listener: expected a list of tables; begin each with [[listener]]",
        ),
        ("[listener]\ntls = \"off\"", ":1: listener: expected a list of tables"),
        (
            "[limits]\nidle_timeout = 60",
            ":2: limits.idle_timeout: expected a string, found an integer",
        ),
        (
            "[limits]\nsessions_max = \"9\"",
            ":2: limits.sessions_max: expected a whole number, found a string",
        ),
        (
            "[limits]\nsessions_max = -1",
            ":2: limits.sessions_max: -1 is not allowed; use a whole number from 1 to ",
        ),
        (
            "[limits]\nsessions_per_account_max = 0",
            ":2: limits.sessions_per_account_max: 0 is not allowed",
        ),
        (
            "[limits]\nlogin_timeout = \"0s\"",
            ":2: limits.login_timeout: \"0s\" is not allowed; use a length of time",
        ),
        (
            "[limits]\nlogin_timeout = \"soon\"",
            ":2: limits.login_timeout: \"soon\" is not allowed; use a length",
        ),
        (
            "[[listener]]\naddress = 3",
            ":2: listener.address: expected a string or a list of strings, found an int",
        ),
        (
            "[[listener]]\naddress = \"localhost\"",
            ":2: listener.address: \"localhost\" is not allowed; use an address",
        ),
        (
            "[log]\nlevel = \"loud\"",
            ":2: log.level: \"loud\" is not allowed; use one of off, error, warn,",
        ),
        (
            "[log]\nformat = \"xml\"",
            ":2: log.format: \"xml\" is not allowed; use one of auto, text, json",
        ),
        (
            "[admin]\nsocket_mode = \"0800\"",
            ":2: admin.socket_mode: \"0800\" is not allowed; use octal mode bits",
        ),
        (
            "[admin]\nsocket_mode = \"1777\"",
            ":2: admin.socket_mode: \"1777\" is not allowed",
        ),
        (
            "[provider.\"A b\"]\nimap.host = \"x\"",
            ":1: provider.A b: a name is 1 to 64 lower-case letters",
        ),
        (
            "[provider.google]\nclient_id = \"x\"\nimap = {hst = 1}",
            ":3: provider.google.imap.hst: unknown key \"hst\"",
        ),
        ("[server\n", ":1: unclosed table, expected `]`"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(&format!("portreeve.toml{wanted}")), "{refusal}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_the_order_of_the_file() {
    let refusal = refusal(
        "[limits]\nlogin_timeout = \"0s\"\nsessions_max = 0\n[server]\nbogus = 1\n[log]\nformat = \"x\"\n\
         [[listener]]\nwrong = 1\n[[listener]]\ntls = \"x\"\n[provider.one]\nextra = 1\n[provider.two]\nclient_id = \"\"\n",
    );
    let lines: Vec<_> = refusal.lines().map(|line| line.split(": ").next().unwrap()).collect();
    let wanted = [2, 3, 5, 7, 9, 11, 13, 14].map(|line| format!("portreeve.toml:{line}"));
    assert_eq!(lines, wanted, "{refusal}");
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    let provider = |rest: &str| format!("[provider.own]\nimap = {{ host = \"imap.test\" }}\n{rest}");
    for (text, wanted) in [
        (
            "[[listener]]\ntls = \"implicit\"".to_owned(),
            "listener.certificate: there is no [certificate.default], which tls = \"implicit\" needs",
        ),
        (
            "[[listener]]\ntls = \"starttls\"".to_owned(),
            "listener.certificate: there is no [certificate.default], which tls = \"starttls\" needs",
        ),
        (
            "[[listener]]\nprotocol = \"smtp\"\n[[listener]]\nprotocol = \"pop3\"\naddress = \"127.0.0.1:2525\"".to_owned(),
            ":5: listener.address: 127.0.0.1:2525 is given more than once",
        ),
        ("[admin]\nlisten = \"127.0.0.1:2995\"".to_owned(), "listener.address: 127.0.0.1:2995 is given more than once"),
        ("[[listener]]\nprovider = \"icloud\"".to_owned(), ":2: listener.provider: is for smtp listeners only"),
        (
            "[[listener]]\nprotocol = \"pop3\"\nprovider = \"icloud\"".to_owned(),
            ":3: listener.provider: is for smtp listeners only",
        ),
        (
            "[[listener]]\nprotocol = \"smtp\"\nprovider = \"none\"".to_owned(),
            ":3: listener.provider: there is no [provider.none]",
        ),
        (
            provider("[[listener]]\nprotocol = \"smtp\"\nprovider = \"own\""),
            ":5: listener.provider: provider own has no smtp endpoint",
        ),
        ("[[listener]]\n[[listener]]\naddress = \"127.0.0.1:2993\"".to_owned(), "127.0.0.1:2993 is given more than once"),
        ("[admin]\nlisten = \"127.0.0.1:9464\"".to_owned(), "127.0.0.1:9464 is given more than once"),
        ("[certificate.default]\ncert_file = \"c\"".to_owned(), ":1: certificate.default.key_file: is missing; give the path of a PEM file, or self_signed = true"),
        ("[certificate.default]\nself_signed = false".to_owned(), ":1: certificate.default.cert_file: is missing"),
        (
            "[certificate.default]\nself_signed = true\nkey_file = \"k\"".to_owned(),
            ":3: certificate.default.key_file: is given beside self_signed = true; a certificate is one or the other",
        ),
        ("[provider.google]".to_owned(), ":1: provider.google.client_id: is missing"),
        (provider("client_id = \"x\""), ":1: provider.own.token_url: is missing; give token_url, or issuer"),
        (provider("token_url = \"https://t.test/\""), "provider.own.client_id: is missing"),
        (
            provider("client_id = \"x\"\ntoken_url = \"http://t.test/\""),
            ":4: provider.own.token_url: must be https; http is for loopback hosts, or with allow_insecure = true",
        ),
        (provider("client_id = \"x\"\nissuer = \"ftp://t.test/\""), "provider.own.issuer: must be https"),
        (provider("client_id = \"x\"\nissuer = \"https://u:p@t.test/\""), "issuer: must not hold a user name"),
        (
            provider("client_id = \"x\"\nissuer = \"https://t.test\"\nclient_auth = \"basic\""),
            ":5: provider.own.client_auth: post and basic need a client_secret",
        ),
        (
            provider("client_id = \"x\"\nissuer = \"https://t.test\"\nclient_secret = \"s\"\nclient_auth = \"none\""),
            "client_auth: \"none\" does not go with a client_secret",
        ),
        (
            provider("client_id = \"x\"\nissuer = \"https://t.test\"\nsasl = []"),
            ":5: provider.own.sasl: must name at least one of OAUTHBEARER, XOAUTH2",
        ),
        (
            provider("client_id = \"x\"\nissuer = \"https://t.test\"\nclient_secret = \"s\"\nclient_secret_env = \"S\""),
            ":6: provider.own.client_secret: is given more than once",
        ),
        (provider("sasl = [\"PLAIN\"]"), "provider.own.sasl: \"PLAIN\" is not allowed; use OAUTHBEARER, XOAUTH2"),
        (provider("tenant = \"x\""), "provider.own.tenant: is for [provider.microsoft] only"),
        (provider("sessions_per_account_max = 0"), "provider.own.sessions_per_account_max: 0 is not allowed"),
        (provider("domains = [\"a@b\"]"), "provider.own.domains: \"a@b\" is not allowed"),
        (
            "[provider.own]\nimap = { host = \"imap.test\", tls = \"off\" }".to_owned(),
            ":2: provider.own.imap.tls: \"off\" is for loopback hosts",
        ),
        ("[provider.own]\nimap = { port = 1 }".to_owned(), ":2: provider.own.imap.host: is missing"),
        (
            "[provider.own]\nimap = { host = \"a.test:993\" }".to_owned(),
            "provider.own.imap.host: \"a.test:993\" is not allowed; use a host name or an address without a port",
        ),
        (
            "[provider.microsoft]\nclient_id = \"x\"\ntenant = \"../x\"".to_owned(),
            "provider.microsoft.tenant: \"../x\" is not allowed",
        ),
        (
            "[provider.a]\nimap.host = \"a\"\ndomains = [\"X.test\"]\n[provider.b]\nimap.host = \"b\"\ndomains = [\"x.TEST\"]"
                .to_owned(),
            ":6: provider.b.domains: \"x.test\" belongs to provider a already",
        ),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.contains(wanted), "wanted {wanted}\ngot {refusal}");
    }
}

#[test]
fn a_listener_is_read_with_all_that_it_says() {
    let config = read(
        "[[listener]]\nprotocol = \"smtp\"\naddress = [\"0.0.0.0:587\", \"[::]:587\"]\ntls = \"starttls\"\n\
         proxy_protocol_from = [\"10.0.0.0/8\", \"192.0.2.7\", \"2001:db8::1\", \"::ffff:10.1.0.0/112\"]\nprovider = \"icloud\"\n\
         [[listener]]\nprotocol = \"pop3\"\n[[listener]]\n[[listener]]\nprotocol = \"smtp\"\nproxy_protocol_from = \"10.1.2.3\"\n\
         [certificate.default]\ncert_file = \"c\"\nkey_file = \"k\"\n",
    )
    .unwrap();
    assert_eq!(config.warnings, Vec::<String>::new());
    let ports = |one: &Listener| one.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    let [submission, pop3, imap, behind] = config.listeners.as_slice() else {
        panic!("four listeners")
    };
    assert_eq!(
        (submission.protocol, submission.tls),
        (Protocol::Smtp, ListenerTls::Starttls)
    );
    assert_eq!(ports(submission), ["0.0.0.0:587", "[::]:587"]);
    assert_eq!(submission.provider.as_deref(), Some("icloud"));
    let ranges = |one: &Listener| {
        let ranges = one.proxy_protocol_from.iter();
        ranges.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        ranges(submission),
        ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::1/128", "10.1.0.0/16"]
    );
    assert_eq!(
        (pop3.protocol, ports(pop3)),
        (Protocol::Pop3, vec!["127.0.0.1:2995".to_owned()])
    );
    assert_eq!(
        (imap.protocol, ports(imap)),
        (Protocol::Imap, vec!["127.0.0.1:2993".to_owned()])
    );
    assert_eq!(
        (ports(behind), ranges(behind)),
        (vec!["127.0.0.1:2525".to_owned()], vec!["10.1.2.3/32".to_owned()])
    );
    let again = parse(None, &config.to_toml(), &user()).unwrap();
    assert_eq!(again.to_toml(), config.to_toml());
}

#[test]
fn believing_everybodys_proxy_header_is_warned_of() {
    let warnings = |range: &str| {
        let text = format!("[[listener]]\nproxy_protocol_from = \"{range}\"");
        read(&text).unwrap().warnings
    };
    assert_eq!(warnings("10.0.0.0/8"), Vec::<String>::new());
    for everybody in ["0.0.0.0/0", "::/0"] {
        assert!(warnings(everybody)[0].contains("may claim any address"));
    }
}

#[test]
fn a_provider_that_is_wrong_is_not_also_missing() {
    let refusal = refusal("[[listener]]\nprotocol = \"smtp\"\nprovider = \"own\"\n[provider.own]\n");
    assert!(!refusal.contains("listener.provider"), "{refusal}");
}

#[test]
fn what_stays_on_the_machine_or_is_called_insecure_may_be_in_clear() {
    let config = read(
        "[provider.local]\nimap = { host = \"127.0.0.1\", port = 1143, tls = \"off\" }\nclient_id = \"x\"\n\
         token_url = \"http://localhost:8080/token\"\n\
         [provider.lab]\nimap = { host = \"imap.lab\", tls = \"off\", allow_insecure = true }\nclient_id = \"x\"\n\
         token_url = \"http://id.lab/token\"\nallow_insecure = true\n\
         [provider.plain]\nimap = { host = \"imap.plain\", tls = \"starttls\" }\n",
    )
    .unwrap();
    assert_eq!(config.providers["local"].imap.as_ref().unwrap().tls, UpstreamTls::Off);
    assert!(config.providers["lab"].oauth.as_ref().unwrap().allow_insecure);
    let plain = &config.providers["plain"];
    assert!(
        plain.oauth.is_none(),
        "without a key of OAuth a provider takes passwords"
    );
    assert_eq!(plain.imap.as_ref().unwrap().port, 143);
}

#[test]
fn a_cloud_and_a_tenant_choose_microsofts_hosts() {
    let config = read("[provider.microsoft]\nclient_id = \"x\"\ntenant = \"contoso.cn\"\ncloud = \"china\"").unwrap();
    let microsoft = &config.providers["microsoft"];
    let app = microsoft.oauth.as_ref().unwrap();
    let token_url = app.token_url.as_ref().unwrap().as_str();
    assert_eq!(
        token_url,
        "https://login.partner.microsoftonline.cn/contoso.cn/oauth2/v2.0/token"
    );
    assert_eq!(app.scopes[0], "https://partner.outlook.cn/IMAP.AccessAsUser.All");
    assert_eq!(microsoft.imap.as_ref().unwrap().host, "partner.outlook.cn");
}

#[test]
fn a_refresh_names_the_scopes_of_the_table_or_what_the_preset_knows_to_work() {
    let scopes = |text: &str| {
        let config = read(text).unwrap();
        let again = parse(None, &config.to_toml(), &user()).unwrap();
        let of = |config: &Config| {
            let app = config.providers.values().find_map(|provider| provider.oauth.clone());
            app.map(|app| (app.scopes, app.refresh_scopes)).unwrap()
        };
        assert_eq!(of(&again), of(&config), "what is shown reads back as the same");
        of(&config)
    };
    let (consented, refreshed) = scopes("[provider.google]\nclient_id = \"x\"");
    assert_eq!(consented, ["https://mail.google.com/"]);
    assert!(refreshed.is_empty());
    let (consented, refreshed) = scopes("[provider.microsoft]\nclient_id = \"x\"");
    assert_eq!((consented.len(), &refreshed), (4, &consented));
    for table in [
        "google]",
        "own]\nimap = { host = \"imap.test\" }\ntoken_url = \"https://t.test/\"",
    ] {
        let (consented, refreshed) = scopes(&format!("[provider.{table}\nclient_id = \"x\"\nscopes = [\"mail\"]"));
        assert_eq!(
            (consented, refreshed),
            (vec!["mail".to_owned()], vec!["mail".to_owned()])
        );
    }
}

#[test]
fn consent_is_asked_for_what_listeners_serve() {
    let scopes = |listeners: &[&str], given: &str| {
        let mut text = format!("[provider.microsoft]\nclient_id = \"x\"\n{given}\n");
        for (index, listener) in listeners.iter().enumerate() {
            text.push_str(&format!(
                "[[listener]]\naddress = \"127.0.0.1:{}\"\n{listener}\n",
                3000 + index
            ));
        }
        let config = read(&text).unwrap();
        config.providers["microsoft"].oauth.clone().unwrap().scopes
    };
    let (imap, pop3, smtp) = ("IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send");
    for (listeners, expected) in [
        (&[][..], &[imap, pop3, smtp][..]),
        // A listener without a protocol is one of IMAP.
        (&[""], &[imap]),
        (&["protocol = \"smtp\"", "protocol = \"imap\""], &[imap, smtp]),
        (&["protocol = \"pop3\"", "protocol = \"pop3\""], &[pop3]),
    ] {
        let asked = scopes(listeners, "");
        let mut expected: Vec<_> = expected
            .iter()
            .map(|scope| format!("https://outlook.office.com/{scope}"))
            .collect();
        expected.push("offline_access".to_owned());
        assert_eq!(asked, expected, "{listeners:?}");
        assert_eq!(scopes(listeners, "scopes = [\"own\"]"), ["own"]);
    }
}

#[test]
fn a_preset_tells_what_it_takes_as_login_name() {
    let config =
        read("[provider.google]\nclient_id = \"x\"\n[provider.icloud]\nimap = { host = \"p01.test\" }").unwrap();
    assert_eq!(config.providers["icloud"].imap_user.apply("ada@icloud.com"), "ada");
    assert_eq!(config.providers["icloud"].imap_user.apply("ada"), "ada");
    assert_eq!(
        config.providers["google"].imap_user.apply("ada@gmail.com"),
        "ada@gmail.com"
    );
}

#[test]
fn a_providers_own_domain_is_taken_from_the_preset_nobody_asked_for() {
    let config = read("[provider.own]\nimap.host = \"a.test\"\ndomains = [\"me.com\"]").unwrap();
    assert_eq!(config.providers["icloud"].domains, ["icloud.com", "mac.com"]);
    let again = parse(None, &config.to_toml(), &user()).unwrap();
    assert_eq!(again.to_toml(), config.to_toml());
    let config = read("[provider.google]\nclient_id = \"x\"\ndomains = [\"Example.com\"]").unwrap();
    assert_eq!(
        config.providers["google"].domains,
        ["gmail.com", "googlemail.com", "example.com"]
    );
}

#[test]
fn a_secret_comes_from_the_file_beside_the_credentials_directory_or_the_environment() {
    let secret = |line: &str, stage: &Stage| {
        let text = format!("[provider.google]\nclient_id = \"x\"\n{line}");
        let config = parse(Some(Path::new("/etc/p/portreeve.toml")), &text, stage);
        config.map(|config| {
            let app = config.providers["google"].oauth.clone().unwrap();
            (app.client_secret.unwrap().expose_secret().to_owned(), config.warnings)
        })
    };
    let stage = user()
        .with("CREDENTIALS_DIRECTORY", "/cred")
        .with("SECRET", "from-env")
        .file("/cred/name", "from-cred\r\n", 0o400)
        .file("/etc/p/sub/s", "from-relative", 0o640)
        .file("/abs/s", "from-absolute\n", 0o644)
        .file("/abs/empty", "\n", 0o600);
    assert_eq!(secret("client_secret = \"inline\"", &stage).unwrap().0, "inline");
    assert_eq!(secret("client_secret_file = \"name\"", &stage).unwrap().0, "from-cred");
    assert_eq!(secret("client_secret_env = \"SECRET\"", &stage).unwrap().0, "from-env");
    assert_eq!(
        secret("client_secret_file = \"sub/s\"", &stage).unwrap(),
        ("from-relative".to_owned(), vec![])
    );
    let (absolute, warnings) = secret("client_secret_file = \"/abs/s\"", &stage).unwrap();
    assert_eq!(absolute, "from-absolute");
    assert_eq!(
        warnings,
        ["/abs/s holds a secret and every user can read it; chmod o-rwx it"]
    );
    for (line, wanted) in [
        (
            "client_secret_file = \"/abs/empty\"",
            "client_secret_file: the file is empty",
        ),
        (
            "client_secret_file = \"/abs/none\"",
            "client_secret_file: cannot read /abs/none: ",
        ),
        (
            "client_secret_env = \"NONE\"",
            "client_secret_env: names an environment variable that is not set",
        ),
    ] {
        let refusal = secret(line, &stage).unwrap_err().to_string();
        assert!(refusal.contains(wanted), "{refusal}");
    }
    let refusal = secret("client_secret_file = \"name\"", &user())
        .unwrap_err()
        .to_string();
    assert!(
        refusal.contains("looked up in $CREDENTIALS_DIRECTORY, which is not set"),
        "{refusal}"
    );
}

#[test]
fn a_delay_that_has_no_effect_is_warned_of() {
    let warnings = |delay: &str| {
        let text = format!("[limits]\nauth_failure_delay = \"{delay}\"\n");
        parse(None, &text, &user()).unwrap().warnings
    };
    assert_eq!(warnings("0s"), Vec::<String>::new());
    assert_eq!(
        warnings("5s"),
        ["limits.auth_failure_delay has no effect in this version"]
    );
}

#[test]
fn a_configuration_that_holds_a_secret_and_is_public_is_warned_of() {
    let text = "[provider.google]\nclient_id = \"x\"\nclient_secret = \"s\"";
    let warnings = |mode| {
        load(Some(Path::new("/c.toml")), &user().file("/c.toml", text, mode))
            .unwrap()
            .warnings
    };
    assert_eq!(warnings(0o640), Vec::<String>::new());
    assert_eq!(warnings(0o644).len(), 1);
}

#[test]
fn root_tokens_and_master_keys_are_checked_for_their_form() {
    let token = "0123456789abcdef".repeat(4);
    let config = read(&format!("[admin]\nroot_token = \"{token}\"")).unwrap();
    assert_eq!(config.admin.root_token.unwrap().expose_secret(), token);
    let short = refusal("[admin]\nroot_token = \"5ecret\"");
    assert_eq!(
        short,
        "portreeve.toml:2: admin.root_token: must be 64 lower-case hexadecimal digits"
    );
    let short = refusal("[secrets]\nmaster_key = \"5ecret\"");
    assert_eq!(
        short,
        "portreeve.toml:2: secrets.master_key: must be 32 bytes in base64"
    );
    let both = refusal("[secrets]\nmaster_key_env = \"K\"\nmaster_key_file = \"/k\"");
    assert!(both.contains("secrets.master_key: is given more than once"), "{both}");
    let config = read("[secrets]\nmaster_key_file = \"/k\"").unwrap();
    assert_eq!(config.secrets.master_key_file.unwrap(), Path::new("/k"));
}

#[test]
fn no_secret_is_in_an_error_in_debug_output_or_in_what_is_shown() {
    let secret = "5ecret-5ecret";
    for text in [
        format!("[provider.google]\nclient_secret = \"{secret}\nclient_id = 1"),
        format!("[provider.google]\nclient_secret = {secret}"),
        format!("[provider.google]\nclient_secret = [\"{secret}\"]"),
        format!("[provider.google]\nclient_secret.x = \"{secret}\""),
        format!("[provider]\nclient_secret = \"{secret}\""),
        format!("provider = \"{secret}\""),
        format!("[provider.google]\nclient_id = [\"{secret}\"]"),
        format!("[provider.google]\nclient_id = \"x\"\nsessions_per_account_max = \"{secret}\""),
        format!("[provider.google]\nclient_id = \"x\"\ntoken_url = \"https://{secret}@t.test/\""),
        format!("[admin]\nroot_token = \"{secret}\""),
        format!("[secrets]\nmaster_key = \"{secret}\""),
        format!("[[listener]]\naddress = {{ client_secret = \"{secret}\" }}"),
    ] {
        let error = read(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(secret), "{text}: {error:?}");
    }
    let config = read(&format!(
        "[provider.google]\nclient_id = \"x\"\nclient_secret = \"{secret}\""
    ))
    .unwrap();
    let shown = [config.to_toml(), config.to_json(), format!("{config:?}")].join("\n");
    assert!(!shown.contains(secret));
    assert!(shown.contains("client_secret = \"[redacted]\""), "{shown}");
}

#[test]
fn what_is_shown_reads_back_as_the_same() {
    let stage = Stage { root: true, ..user() };
    let text = EXAMPLE.replace(
        "client_secret_file = \"google.secret\"",
        "client_secret = \"[redacted]\"",
    );
    let given = parse(Some(Path::new("/etc/portreeve/portreeve.toml")), &text, &stage).unwrap();
    let bare = user();
    for config in [given, parse(None, "", &bare).unwrap()] {
        let again = parse(None, &config.to_toml(), &bare).unwrap();
        assert_eq!(again.to_toml(), config.to_toml());
        let strip = |config: Config| {
            format!(
                "{:?}",
                Config {
                    source: None,
                    warnings: Vec::new(),
                    ..config
                }
            )
        };
        assert_eq!(strip(again), strip(config));
    }
}

#[test]
fn every_key_is_documented() {
    let documentation = include_str!("../../docs/configuration.md");
    let mut keys = 0;
    for (table, text) in [
        ("server", "server.zzz = 1"),
        ("store", "store.zzz = 1"),
        ("secrets", "secrets.zzz = 1"),
        ("admin", "admin.zzz = 1"),
        ("metrics", "metrics.zzz = 1"),
        ("log", "log.zzz = 1"),
        ("limits", "limits.zzz = 1"),
        ("listener", "[[listener]]\nzzz = 1"),
        ("certificate", "certificate.a.zzz = 1"),
        ("provider", "provider.google.zzz = 1"),
        ("imap", "provider.google.imap.zzz = 1"),
    ] {
        let refusal = refusal(text);
        let line = refusal.lines().find(|line| line.contains("unknown key")).unwrap();
        for key in line.split("use one of ").nth(1).unwrap().split(", ") {
            keys += 1;
            assert!(
                documentation.contains(&format!("| `{key}` |")),
                "{table}.{key} is not in docs/configuration.md"
            );
        }
    }
    assert!(keys > 60, "{keys}");
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn what_is_left_of_a_mutated_example_is_shown_so_that_it_reads_back(at in 0..EXAMPLE.len(), with in "[\\[\\]={}\"#.,\\n0-9a-z]{0,4}", cut in 0..40_usize) {
        let example = readable();
        let text: String = example.chars().take(at).chain(with.chars()).chain(example.chars().skip(at + cut)).collect();
        if let Ok(config) = read(&text) {
            let shown = config.to_toml();
            prop_assert_eq!(parse(None, &shown, &user()).map(|again| again.to_toml()).map_err(|e| e.to_string()), Ok(shown));
        }
    }

    #[test]
    fn any_bytes_in_the_file_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        struct Bytes(Vec<u8>);
        impl Environment for Bytes {
            fn variable(&self, _: &str) -> Option<OsString> { None }
            fn is_root(&self) -> bool { true }
            fn hostname(&self) -> String { String::new() }
            fn read(&self, _: &Path, _: u64) -> io::Result<FileContent> {
                Ok(FileContent { bytes: self.0.clone(), mode: 0o600 })
            }
        }
        let _ = load(Some(Path::new("/c")), &Bytes(bytes));
    }
}
