//! How access tokens are had.

use super::*;

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
