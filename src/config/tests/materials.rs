//! Files and programs that a configuration names: each is looked at, and each that is wrong is told of with its key.

use super::*;

/// One of everything that names a file or a program.
const TEXT: &str = r#"
[server]
state_dir = "/state"
[secrets]
master_key_file = "/master.key"
[hooks]
command = ["/bin/tell"]
[certificate.default]
cert_file = "/chain.pem"
key_file = "/chain.key"
[provider.apart]
imap = { host = "imap.test" }
grant = "client_credentials"
client_id = "x"
token_url = "https://t.test/"
client_key_file = "/app.key"
client_certificate_file = "/app.pem"
ca_file = "/ca.pem"
[provider.google]
grant = "service_account"
service_account_file = "/service.json"
[provider.helper]
imap = { host = "imap.test" }
grant = "external"
token_command = ["/bin/helper"]
"#;

/// What [`TEXT`] names, where it does, and by which key.
const NAMED: [(&str, u32, &str); 10] = [
    ("/state", 3, "server.state_dir"),
    ("/master.key", 5, "secrets.master_key_file"),
    ("/bin/tell", 7, "hooks.command"),
    ("/chain.pem", 9, "certificate.default.cert_file"),
    ("/chain.key", 10, "certificate.default.key_file"),
    ("/app.key", 16, "provider.apart.client_key_file"),
    ("/app.pem", 17, "provider.apart.client_certificate_file"),
    ("/ca.pem", 18, "provider.apart.ca_file"),
    ("/service.json", 21, "provider.google.service_account_file"),
    ("/bin/helper", 25, "provider.helper.token_command"),
];

fn stage(wrong: &[&'static str]) -> Stage {
    Stage {
        wrong: wrong.to_vec(),
        ..user()
    }
}

fn check(stage: &Stage) -> Result<Config, ConfigError> {
    parse(Some(Path::new("portreeve.toml")), TEXT, stage)
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_line_and_key() {
    let stage = stage(&NAMED.map(|(wrong, ..)| wrong));
    let refusal = check(&stage).unwrap_err().to_string();
    let expected = NAMED.map(|(wrong, line, key)| format!("portreeve.toml:{line}: {key}: {wrong} is wrong"));
    assert_eq!(refusal.lines().collect::<Vec<_>>(), expected);
    // What is not good by itself is not compared with what it should fit.
    assert!(!stage.examined.take().iter().any(|seen| seen.starts_with("Pair")));
}

#[test]
fn any_of_them_alone_is_refused_and_none_is_not() {
    for (wrong, line, key) in NAMED {
        let refusal = check(&stage(&[wrong])).unwrap_err().to_string();
        assert_eq!(refusal, format!("portreeve.toml:{line}: {key}: {wrong} is wrong"));
    }
    let stage = stage(&[]);
    check(&stage).unwrap();
    let examined = stage.examined.take();
    assert_eq!(
        examined.iter().filter(|seen| seen.starts_with("Pair")).count(),
        2,
        "{examined:?}"
    );
}

#[test]
fn a_pair_that_does_not_belong_together_is_the_keys_fault() {
    let refusal = check(&stage(&["Pair"])).unwrap_err().to_string();
    let expected = [
        "portreeve.toml:10: certificate.default.key_file: Pair is wrong",
        "portreeve.toml:17: provider.apart.client_certificate_file: Pair is wrong",
    ];
    assert_eq!(refusal.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_reload_looks_at_what_a_start_looks_at() {
    let text = format!("{TEXT}[log]\nlevel = \"info\"\n");
    for (wrong, ..) in NAMED {
        let stage = stage(&[wrong]).file("/c.toml", &text, 0o600);
        let listeners = Vec::new();
        let reloaded = reload(Some(Path::new("/c.toml")), &stage, &listeners).unwrap_err();
        let started = load(Some(Path::new("/c.toml")), &stage).unwrap_err();
        assert_eq!(reloaded.to_string(), started.to_string());
    }
}
