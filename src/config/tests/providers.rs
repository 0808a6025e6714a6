//! Providers and presets.

use super::*;

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
