//! The documented examples, what `config show` writes, and that every key is documented.

use super::*;

#[test]
fn the_documented_example_is_read_in_full() {
    let stage = Stage { root: true, ..user() }
        .with("CREDENTIALS_DIRECTORY", "/cred")
        .file("/cred/google.secret", "g-secret\n", 0o400)
        .file("/cred/webhook.secret", "w-secret\n", 0o400);
    let config = parse(Some(Path::new("/etc/portreeve/portreeve.toml")), &whole(), &stage).unwrap();
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
fn the_documented_examples_pass_as_they_are_without_a_file_of_anybodys() {
    const MINIMAL: &str = include_str!("../../../docs/portreeve.minimal.toml");
    assert_eq!(MINIMAL.lines().count(), 10);
    for (text, provider) in [(EXAMPLE, "example"), (MINIMAL, "google")] {
        let stage = user();
        let config = parse(Some(Path::new("/etc/portreeve/portreeve.toml")), text, &stage).unwrap();
        assert_eq!(config.warnings, Vec::<String>::new());
        assert!(config.providers[provider].oauth.is_some());
        let examined = stage.examined.take();
        let [state_dir, key] = examined.as_slice() else {
            panic!("nothing else is looked at: {examined:?}")
        };
        assert!(
            state_dir.starts_with("StateDirectory(") && key.starts_with("GeneratedKey "),
            "{examined:?}"
        );
    }
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
    let documentation = include_str!("../../../docs/configuration.md");
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
    let configuration = include_str!("../../../docs/configuration.md");
    let providers = include_str!("../../../docs/providers.md");
    for known in known_providers() {
        assert!(configuration.contains(&format!("`{}`", known.name)), "{}", known.name);
        let title = known.title.replace(" provider", "");
        assert!(providers.contains(&title), "{title}");
    }
}
