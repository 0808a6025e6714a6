//! Secrets: where they come from, what is odd about them, and that they show nowhere.

use super::*;

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
        .with("ODD", " from-env")
        .file("/abs/quoted", "\"in-quotes\"\r\n", 0o600)
        .file("/abs/marked", "\u{feff}marked", 0o600)
        .file("/abs/two", "one\n\n", 0o600)
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
            "client_secret_file = \"/abs/quoted\"",
            ":3: provider.google.client_secret_file: stands in quotes; leave them out",
        ),
        (
            "client_secret_file = \"/abs/marked\"",
            "client_secret_file: begins with a byte order mark",
        ),
        (
            "client_secret_file = \"/abs/two\"",
            "client_secret_file: has a line end at its end",
        ),
        (
            "client_secret_env = \"ODD\"",
            "client_secret_env: has a space at its beginning",
        ),
        (
            "client_secret = \"inline \"",
            ":3: provider.google.client_secret: has a space at its end",
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
fn a_client_id_with_what_stood_around_it_is_refused() {
    for (client_id, oddity) in [
        ("0000-1111 ", "\"0000-1111 \" has a space at its end"),
        ("\u{a0}0000", "has a space at its beginning"),
        ("'0000'", "stands in quotes; leave them out"),
        ("0000\u{200b}", "holds a character that cannot be seen"),
        ("0000\\n", "has a line end at its end"),
    ] {
        let text = format!("[provider.google]\nclient_id = \"{client_id}\"");
        let refusal = refusal(&text);
        assert!(
            refusal.starts_with("portreeve.toml:2: provider.google.client_id: "),
            "{refusal}"
        );
        assert!(refusal.contains(oddity) && refusal.lines().count() == 1, "{refusal}");
    }
}

#[test]
fn a_persons_secret_may_hold_spaces_and_quotes_but_no_line_end() {
    let hooks = |secret: &str| read(&format!("[hooks]\nwebhook_secret = \"{secret}\""));
    let secret = hooks(" \\\"two words\\\" ").unwrap().hooks.webhook_secret.unwrap();
    assert_eq!(secret.expose_secret(), " \"two words\" ");
    let refusal = hooks("two\\nlines").unwrap_err().to_string();
    assert_eq!(refusal, "portreeve.toml:2: hooks.webhook_secret: holds a line end");
}
