//! The public side and the webhook.

use super::*;

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
