//! Where things are when nothing says so.

use super::*;

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
