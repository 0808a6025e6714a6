//! What is refused, and in which words.

use super::*;

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
fn refused_logins_are_delayed_unless_that_is_turned_off() {
    let delay = |text: &str| {
        let parsed = parse(None, text, &user()).unwrap();
        assert_eq!(parsed.warnings, Vec::<String>::new());
        parsed.limits.auth_failure_delay.as_secs()
    };
    assert_eq!(delay(""), 15);
    assert_eq!(delay("[limits]\nauth_failure_delay = \"0s\"\n"), 0);
}
