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

/// The presets that need no table.
const ALWAYS_THERE: [&str; 15] = [
    "aol", "att", "comcast", "fastmail", "gmx", "gmx-com", "google", "icloud", "mailru", "other", "seznam", "webde",
    "yahoo", "yandex", "zoho",
];

const EXAMPLE: &str = include_str!("../../docs/portreeve.example.toml");

/// The example without the secrets that lie in other files.
fn readable() -> String {
    EXAMPLE
        .replace(
            "client_secret_file = \"google.secret\"",
            "client_secret = \"[redacted]\"",
        )
        .replace(
            "webhook_secret_file = \"webhook.secret\"",
            "webhook_secret = \"[redacted]\"",
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
    let names: Vec<_> = config.providers.keys().map(String::as_str).collect();
    assert_eq!(names, ALWAYS_THERE);
    let takes_passwords = |one: &Provider| one.oauth.is_none() && one.passwords && one.is_always_there();
    assert!(config.providers.values().all(|one| takes_passwords(one)));
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
        .file("/cred/google.secret", "g-secret\n", 0o400)
        .file("/cred/webhook.secret", "w-secret\n", 0o400);
    let config = parse(Some(Path::new("/etc/portreeve/portreeve.toml")), EXAMPLE, &stage).unwrap();
    let of_the_file = config.providers.values().filter(|provider| !provider.is_always_there());
    let named: Vec<_> = of_the_file.map(|provider| provider.name.as_str()).collect();
    assert_eq!(named, ["example", "google", "helper", "microsoft", "workspace"]);
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
            "[provider.nosuch]\nclient_id = \"x\"",
            "portreeve.toml:1: provider.nosuch: is not a preset of this version, which are aol, att, comcast, fastmail, gmx, \
             gmx-com, google, icloud, mailru, microsoft, other, seznam, webde, yahoo, yandex, zoho; give its endpoints in full",
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
        ("[provider.microsoft]".to_owned(), ":1: provider.microsoft.client_id: is missing"),
        ("[provider.google]\nclient_secret = \"s\"".to_owned(), ":1: provider.google.client_id: is missing"),
        ("[provider.icloud]\nclient_id = \"x\"".to_owned(), ":1: provider.icloud.token_url: is missing"),
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
fn a_preset_takes_passwords_until_an_app_is_given_and_is_shown_as_what_it_is() {
    let text =
        "[provider.google]\nsessions_per_account_max = 5\n[provider.yahoo]\nclient_id = \"x\"\nclient_secret = \"s\"\n";
    let config = read(text).unwrap();
    let [google, yahoo, fastmail] = ["google", "yahoo", "fastmail"].map(|name| &config.providers[name]);
    assert!(google.oauth.is_none() && google.passwords && !google.is_always_there());
    assert_eq!(google.imap.as_ref().unwrap().host, "imap.gmail.com");
    let app = yahoo.oauth.as_ref().unwrap();
    assert_eq!(
        (app.scopes.as_slice(), app.client_auth),
        (&["mail-w".to_owned()][..], ClientAuth::Post)
    );
    assert!(yahoo.passwords && fastmail.is_always_there());
    let shown = config.to_toml();
    assert!(!shown.contains("fastmail"), "what nobody wrote is not shown: {shown}");
    let again = parse(None, &shown, &user()).unwrap();
    assert!(again.providers["google"].oauth.is_none());
    assert_eq!(again.to_toml(), shown);
    assert!(!read("[provider.microsoft]\nclient_id = \"x\"").unwrap().providers["microsoft"].passwords);
}

#[test]
fn a_grant_is_read_with_what_it_takes() {
    let grant = |text: &str| {
        let config = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let again = parse(Some(Path::new("portreeve.toml")), &config.to_toml(), &user()).unwrap();
        assert_eq!(again.to_toml(), config.to_toml());
        let apps = |config: &Config| {
            let mut providers = config.providers.values();
            providers.find_map(|provider| provider.oauth.clone()).unwrap()
        };
        let app = apps(&config);
        assert_eq!(apps(&again).grant, app.grant, "what is shown reads back as the same");
        app
    };
    let own = |rest: &str| format!("[provider.own]\nimap = {{ host = \"imap.test\" }}\n{rest}");
    let app = grant("[provider.google]\nclient_id = \"x\"");
    assert_eq!(
        (app.grant, app.keep_alive),
        (GrantType::Code, Duration::from_secs(30 * 86_400))
    );
    assert_eq!(
        app.revocation_url.unwrap().as_str(),
        "https://oauth2.googleapis.com/revoke"
    );
    let app = grant("[provider.yandex]\nclient_id = \"x\"\ngrant = \"device\"\nkeep_alive = \"7d\"");
    assert_eq!(
        (app.grant, app.keep_alive),
        (GrantType::Device, Duration::from_secs(7 * 86_400))
    );
    let app = grant(
        "[provider.microsoft]\nclient_id = \"x\"\ntenant = \"contoso.com\"\ngrant = \"client_credentials\"\n\
         client_key_file = \"./app.key\"\nclient_certificate_file = \"./app.pem\"",
    );
    assert_eq!(app.grant, GrantType::ClientCredentials);
    assert_eq!(app.scopes, ["https://outlook.office365.com/.default"]);
    assert_eq!(app.client_auth, ClientAuth::PrivateKeyJwt);
    let key = app.client_key.unwrap();
    assert_eq!(
        (key.key_file, key.certificate_file),
        ("./app.key".into(), Some("./app.pem".into()))
    );
    let app = grant("[provider.google]\ngrant = \"service_account\"\nservice_account_file = \"/etc/p/sa.json\"");
    assert_eq!(
        app.grant,
        GrantType::ServiceAccount {
            key_file: "/etc/p/sa.json".into()
        }
    );
    assert_eq!(
        (app.client_id.as_str(), app.scopes.as_slice()),
        ("", &["https://mail.google.com/".to_owned()][..])
    );
    let app = grant(&own(
        "client_id = \"x\"\ntoken_url = \"https://t.test/\"\ngrant = \"password\"",
    ));
    assert_eq!(app.grant, GrantType::Password);
    let app = grant("[provider.google]\ngrant = \"external\"\ntoken_command = [\"pizauth\", \"show\", \"{account}\"]");
    let command = ["pizauth", "show", "{account}"].map(str::to_owned);
    assert_eq!(app.grant, GrantType::External(External::Command(command.into())));
    let app = grant(&own(
        "grant = \"external\"\ntoken_url_external = \"http://127.0.0.1:9000/token\"",
    ));
    assert_eq!(
        app.grant,
        GrantType::External(External::Url("http://127.0.0.1:9000/token".parse().unwrap()))
    );
}

#[test]
fn a_grant_that_cannot_work_is_refused() {
    let own = |rest: &str| format!("[provider.own]\nimap = {{ host = \"imap.test\" }}\n{rest}");
    let app = |rest: &str| own(&format!("client_id = \"x\"\ntoken_url = \"https://t.test/\"\n{rest}"));
    let preset = |name: &str, rest: &str| format!("[provider.{name}]\nclient_id = \"x\"\n{rest}");
    for (text, wanted) in [
        (
            app("grant = \"implicit\""),
            ":5: provider.own.grant: \"implicit\" is not allowed; use one of code, device, client_",
        ),
        (
            preset("google", "grant = \"password\""),
            ":3: provider.google.grant: password is for providers of your own",
        ),
        (
            preset("microsoft", "grant = \"password\""),
            ":3: provider.microsoft.grant: password is for providers of your own",
        ),
        (
            preset("google", "grant = \"device\""),
            ":3: provider.google.grant: there is no device_url",
        ),
        (
            app("grant = \"device\""),
            ":5: provider.own.grant: there is no device_url",
        ),
        (
            preset("google", "client_secret = \"s\"\ngrant = \"client_credentials\""),
            ":4: provider.google.grant: this provider lets no app into mailboxes by itself",
        ),
        (
            preset("microsoft", "grant = \"client_credentials\"\ntenant = \"contoso.com\""),
            ":3: provider.microsoft.grant: client_credentials need a client_secret, or client_key_file",
        ),
        (
            preset("microsoft", "client_secret = \"s\"\ngrant = \"client_credentials\""),
            ":4: provider.microsoft.tenant: client_credentials are of one tenant",
        ),
        (
            preset(
                "microsoft",
                "client_secret = \"s\"\ngrant = \"client_credentials\"\ntenant = \"organizations\"",
            ),
            ":5: provider.microsoft.tenant: client_credentials are of one tenant",
        ),
        (
            "[provider.google]\ngrant = \"service_account\"".to_owned(),
            ":2: provider.google.service_account_file: is missing; give the JSON key",
        ),
        (
            preset(
                "microsoft",
                "grant = \"service_account\"\nservice_account_file = \"/k\"",
            ),
            ":3: provider.microsoft.grant: service_account is Google's",
        ),
        (
            preset("google", "service_account_file = \"/k\""),
            ":3: provider.google.service_account_file: is for grant = \"service_account\" only",
        ),
        (
            preset("google", "token_command = [\"x\"]"),
            ":3: provider.google.token_command: is for grant = \"external\" only",
        ),
        (
            own("grant = \"external\""),
            ":3: provider.own.token_command: is missing; give token_command or token_url_ext",
        ),
        (
            own("grant = \"external\"\ntoken_command = [\"\", \"x\"]"),
            ":4: provider.own.token_command: begins with nothing",
        ),
        (
            own("grant = \"external\"\ntoken_command = [\"helpers/{account}\"]"),
            ":4: provider.own.token_command: begins with {account}: an account's name would choose the program",
        ),
        (
            own("grant = \"external\"\ntoken_command = [\"x\", \"a\\u0000b\"]"),
            ":4: provider.own.token_command: holds a NUL",
        ),
        (
            own("grant = \"external\"\ntoken_command = [\"x\"]\ntoken_url_external = \"https://t.test/\""),
            ":5: provider.own.token_url_external: is given beside token_command",
        ),
        (
            own("grant = \"external\"\nallow_insecure = true\ntoken_url_external = \"http://t.test/\""),
            ":5: provider.own.token_url_external: must be https; http is for loopback hosts\n",
        ),
        (
            app("client_certificate_file = \"/c\""),
            ":5: provider.own.client_certificate_file: goes with client_key_file",
        ),
        (
            app("client_auth = \"private_key_jwt\""),
            ":5: provider.own.client_auth: private_key_jwt needs client_key_file",
        ),
        (
            app("client_key_file = \"/k\"\nclient_secret = \"s\""),
            ":1: provider.own.client_auth: \"private_key_jwt\" does not go with a client_secret",
        ),
        (
            app("client_key_file = \"app.key\""),
            ":5: provider.own.client_key_file: a name without a slash is looked up in",
        ),
        (
            app("revocation_url = \"http://t.test/\""),
            ":5: provider.own.revocation_url: must be https",
        ),
        (
            app("keep_alive = \"0s\""),
            ":5: provider.own.keep_alive: \"0s\" is not allowed",
        ),
    ] {
        let refusal = format!("{}\n", refusal(&text));
        assert!(refusal.contains(wanted), "wanted {wanted}\ngot {refusal}");
    }
}

#[test]
fn a_program_is_looked_for_in_the_path_or_beside_the_file() {
    let commands = |given: &str| {
        let text = format!(
            "[hooks]\ncommand = [\"{given}\"]\n[provider.google]\ngrant = \"external\"\ntoken_command = [\"{given}\", \"./as is\"]"
        );
        let config = parse(Some(Path::new("/etc/p/portreeve.toml")), &text, &user()).unwrap();
        let again = parse(None, &config.to_toml(), &user()).unwrap();
        assert_eq!(again.hooks.command, config.hooks.command);
        let grant = config.providers["google"].oauth.clone().unwrap().grant;
        let GrantType::External(External::Command(helper)) = grant else {
            panic!("a command was given")
        };
        assert_eq!(
            (&helper[..1], helper[1].as_str()),
            (&config.hooks.command[..], "./as is")
        );
        helper[0].clone()
    };
    assert_eq!(commands("pizauth"), "pizauth");
    assert_eq!(commands("/usr/bin/helper"), "/usr/bin/helper");
    assert_eq!(commands("bin/helper"), "/etc/p/bin/helper");
}

#[test]
fn the_public_side_is_off_until_it_is_told_where_to_listen_and_how_it_is_reached() {
    let web = |text: &str| read(text).map(|config| (config.web, config.warnings));
    let (off, _) = web("").unwrap();
    assert_eq!((off.listen, off.redirect_url()), (None, None));
    let served = "[certificate.default]\nself_signed = true\n[web]\nlisten = \"0.0.0.0:8443\"\n";
    let (on, warnings) = web(&format!("{served}public_url = \"https://mail.example.com\"")).unwrap();
    assert_eq!(
        (on.listen, on.certificate.as_deref()),
        (Some("0.0.0.0:8443".parse().unwrap()), Some("default"))
    );
    assert_eq!(warnings, Vec::<String>::new());
    let plain = "[web]\nlisten = \"127.0.0.1:8080\"\ncertificate = \"\"\npublic_url = \"http://localhost:8080\"";
    assert_eq!(web(plain).unwrap().0.certificate, None);
    let behind =
        "[web]\nlisten = \"10.0.0.1:8080\"\ncertificate = \"\"\npublic_url = \"https://m.test\"\ntrusted_proxies = ";
    let (behind_one, _) = web(&format!("{behind}\"10.0.0.2\"")).unwrap();
    assert_eq!(behind_one.trusted_proxies, ["10.0.0.2/32".parse().unwrap()]);
    let (_, warnings) = web(&format!("{behind}[\"0.0.0.0/0\"]")).unwrap();
    assert!(
        warnings[0].starts_with("web.trusted_proxies 0.0.0.0/0: any client"),
        "{warnings:?}"
    );
    for (text, wanted) in [
        (
            "[web]\nlisten = \"127.0.0.1:8443\"",
            ":2: web.public_url: is missing; give the URL",
        ),
        (
            "[web]\nlisten = \"localhost\"",
            ":2: web.listen: \"localhost\" is not allowed",
        ),
        (
            "[web]\nlisten = \"127.0.0.1:8443\"\npublic_url = \"https://m.test\"",
            ":2: web.certificate: there is no [certificate.default]; give it files",
        ),
        (
            "[web]\nlisten = \"127.0.0.1:8443\"\npublic_url = \"https://m.test\"\ncertificate = \"other\"",
            ":4: web.certificate: there is no [certificate.other]",
        ),
        (
            "[web]\nlisten = \"0.0.0.0:8443\"\npublic_url = \"https://m.test\"\ncertificate = \"\"",
            ":4: web.certificate: plain HTTP is for loopback addresses, or behind a proxy",
        ),
        (
            "[web]\npublic_url = \"http://mail.example.com\"",
            ":2: web.public_url: must be https; http is for loopback hosts",
        ),
        (
            "[web]\npublic_url = \"https://m.test/?a=b\"",
            ":2: web.public_url: must not have a query",
        ),
        (
            "[web]\npublic_url = \"https://m.test/#a\"",
            ":2: web.public_url: must not have a fragment",
        ),
        (
            "[web]\npublic_url = \"https://u:p@m.test/\"",
            ":2: web.public_url: must not hold a user name",
        ),
        (
            "[web]\npublic_url = \"mailto:a@b.test\"",
            ":2: web.public_url: must be https",
        ),
        (
            "[web]\ntrusted_proxies = \"proxy\"",
            ":2: web.trusted_proxies: \"proxy\" is not allowed; use address ranges",
        ),
        (
            "[web]\nlisten = \"127.0.0.1:2993\"",
            "listener.address: 127.0.0.1:2993 is given more than once",
        ),
        (
            "[web]\nlisten = \"127.0.0.1:9464\"",
            ":2: web.listen: 127.0.0.1:9464 is given more than once",
        ),
        (
            "[web]\ncertificates = \"default\"",
            ":2: web.certificates: unknown key \"certificates\"; use one of listen, public_url",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(wanted), "wanted {wanted}\ngot {refusal}");
    }
}

#[test]
fn pages_lie_below_the_public_url_whatever_its_path() {
    for (given, redirect) in [
        ("https://mail.example.com", "https://mail.example.com/oauth/callback"),
        ("https://mail.example.com/", "https://mail.example.com/oauth/callback"),
        (
            "https://example.com:8443/mail",
            "https://example.com:8443/mail/oauth/callback",
        ),
        (
            "https://example.com/mail/portreeve//",
            "https://example.com/mail/portreeve/oauth/callback",
        ),
        ("http://localhost:8080", "http://localhost:8080/oauth/callback"),
    ] {
        let config = read(&format!("[web]\npublic_url = \"{given}\"")).unwrap();
        assert_eq!(config.web.redirect_url().unwrap().as_str(), redirect);
        let again = parse(None, &config.to_toml(), &user()).unwrap();
        assert_eq!(again.web.redirect_url(), config.web.redirect_url());
    }
}

#[test]
fn hooks_name_a_program_and_a_url_whose_posts_are_signed() {
    let stage = user()
        .with("HOOK", "from-env")
        .file("/etc/p/hook", "from-file\n", 0o600);
    let hooks = |secret: &str| {
        let text = format!("[hooks]\nwebhook_url = \"https://hooks.test/T/0\"\n{secret}");
        let config = parse(Some(Path::new("/etc/p/portreeve.toml")), &text, &stage).unwrap();
        (
            config
                .hooks
                .webhook_secret
                .map(|secret| secret.expose_secret().to_owned()),
            config.warnings,
        )
    };
    for (line, secret) in [
        ("webhook_secret = \"inline\"", "inline"),
        ("webhook_secret_file = \"./hook\"", "from-file"),
        ("webhook_secret_env = \"HOOK\"", "from-env"),
    ] {
        assert_eq!(hooks(line), (Some(secret.to_owned()), vec![]));
    }
    let (none, warnings) = hooks("");
    assert_eq!(none, None);
    assert_eq!(
        warnings,
        ["hooks.webhook_url has no webhook_secret: its posts are not signed"]
    );
    for (text, wanted) in [
        (
            "[hooks]\nwebhook_url = \"http://hooks.test/\"",
            ":2: hooks.webhook_url: must be https; http is for loopback hosts",
        ),
        ("[hooks]\ncommand = [\"\"]", ":2: hooks.command: begins with nothing"),
        ("[hooks]\ncommand = \"notify\"", ":2: hooks.command: "),
        (
            "[hooks]\nwebhook_secret = \"a\"\nwebhook_secret_env = \"HOME\"",
            ":3: hooks.webhook_secret: is given more than once",
        ),
    ] {
        let refusal = refusal(text);
        assert!(refusal.contains(wanted), "wanted {wanted}\ngot {refusal}");
    }
}

#[test]
fn what_a_url_may_hide_is_not_shown() {
    let secret = "5ecret-5ecret";
    let config = read(&format!(
        "[hooks]\nwebhook_url = \"https://hooks.test/services/{secret}\"\nwebhook_secret = \"{secret}\"\n\
         [provider.own]\nimap = {{ host = \"imap.test\" }}\ngrant = \"external\"\n\
         token_url_external = \"https://helper.test/token?key={secret}\"\n\
         [provider.two]\nimap = {{ host = \"imap.test\" }}\nclient_id = \"x\"\ntoken_url = \"https://t.test/?code={secret}\"\n"
    ))
    .unwrap();
    let shown = config.to_toml();
    assert!(!shown.contains(secret) && !config.to_json().contains(secret), "{shown}");
    for expected in [
        "webhook_url = \"https://hooks.test/[redacted]\"",
        "token_url_external = \"https://helper.test/token?[redacted]\"",
        "token_url = \"https://t.test/?[redacted]\"",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let again = parse(None, &shown, &user()).unwrap();
    assert_eq!(again.to_toml(), shown);
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
fn refused_logins_are_delayed_unless_that_is_turned_off() {
    let delay = |text: &str| {
        let parsed = parse(None, text, &user()).unwrap();
        assert_eq!(parsed.warnings, Vec::<String>::new());
        parsed.limits.auth_failure_delay.as_secs()
    };
    assert_eq!(delay(""), 15);
    assert_eq!(delay("[limits]\nauth_failure_delay = \"0s\"\n"), 0);
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
    let text = readable();
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
        ("web", "web.zzz = 1"),
        ("hooks", "hooks.zzz = 1"),
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
    assert!(keys > 80, "{keys}");
}

#[test]
fn every_preset_is_documented() {
    let configuration = include_str!("../../docs/configuration.md");
    let providers = include_str!("../../docs/providers.md");
    for known in known_providers() {
        assert!(configuration.contains(&format!("`{}`", known.name)), "{}", known.name);
        let title = known.title.replace(" provider", "");
        assert!(providers.contains(&title), "{title}");
    }
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
