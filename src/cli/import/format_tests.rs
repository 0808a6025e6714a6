use proptest::prelude::*;

use super::super::table;
use super::*;

/// Written by emailproxy 2026.7.3 itself, for apps and tokens that never were.
const WRITTEN: &str = include_str!("../../../tests/fixtures/emailproxy/emailproxy.config");

const SECTION: &str = "[a@example.com]\npermission_url = https://id.example.com/auth\n\
    token_url = https://id.example.com/token\noauth2_scope = mail\nclient_id = app\n";

#[test]
fn what_emailproxy_wrote_is_read() {
    let foreign = read(WRITTEN, None).unwrap();
    let names: Vec<&str> = foreign.accounts.iter().map(|account| account.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "alice@example.com",
            "bob@gmail.com",
            "carol@catch-all.example",
            "robot@example.com"
        ]
    );
    assert_eq!(foreign.catch_alls, ["@catch-all.example"]);

    let alice = settings(&foreign, "alice@example.com");
    assert_eq!(alice.app.token_url.path(), "/common/oauth2/v2.0/token");
    assert_eq!(
        alice.app.client_id.as_deref(),
        Some("00000000-1111-2222-3333-444444444444")
    );
    assert_eq!((alice.app.flow, &alice.app.proof), (Flow::Code, &Proof::Secret));
    assert_eq!(alice.app.scopes.len(), 4);
    assert_eq!(alice.grant.as_ref().unwrap().iterations, 1_200_000);

    // No rounds are stated: those of old versions.
    let bob = settings(&foreign, "bob@gmail.com");
    assert_eq!(bob.grant.as_ref().unwrap().iterations, 100_000);

    // All but the grant is the domain's.
    let carol = settings(&foreign, "carol@catch-all.example");
    assert_eq!(
        carol.app.scopes,
        ["https://outlook.office365.com/IMAP.AccessAsUser.All", "offline_access"]
    );
    assert_eq!((carol.app.flow, &carol.app.proof), (Flow::Code, &Proof::None));
    assert_eq!(carol.grant.as_ref().unwrap().iterations, 870_000);

    let robot = settings(&foreign, "robot@example.com");
    assert_eq!(robot.app.flow, Flow::ClientCredentials);
    let certificate = Proof::Certificate {
        certificate: "/etc/emailproxy/robot.pem".to_owned(),
        key: "/etc/emailproxy/robot.key".to_owned(),
    };
    assert_eq!((&robot.app.proof, &robot.grant), (&certificate, &None));

    let servers: Vec<String> = foreign
        .servers
        .iter()
        .map(|server| format!("{} {}:{} {:?}", server.protocol, server.host, server.port, server.tls))
        .collect();
    assert_eq!(
        servers,
        [
            "imap outlook.office365.com:993 Implicit",
            "pop3 outlook.office365.com:995 Implicit",
            "smtp smtp.gmail.com:465 Implicit",
            "smtp smtp-mail.outlook.com:587 Starttls",
        ]
    );
}

#[test]
fn the_file_is_read_as_python_reads_it() {
    let text = "; a comment\n[DEFAULT]\ntoken_url = https://id.example.com/token\n\
        [a@example.com]\nPermission_URL : https://id.example.com/auth?a=b\n# a comment\n\
        oauth2_scope = mail\n  offline_access\nclient_id = app;1 # 2\nclient_secret =\n\
        [emailproxy]\nallow_catch_all_accounts = no\n[@example.com]\ndevice = x\n";
    let foreign = read(text, None).unwrap();
    let app = settings(&foreign, "a@example.com").app;
    assert_eq!(app.permission_url.as_deref(), Some("https://id.example.com/auth?a=b"));
    assert_eq!(app.scopes, ["mail", "offline_access"]);
    assert_eq!(app.client_id.as_deref(), Some("app;1 # 2"));
    assert_eq!(app.proof, Proof::None, "an empty secret is none");
}

#[test]
fn a_domains_section_counts_only_where_catch_all_accounts_are_allowed() {
    let text = |allowed: &str| {
        format!(
            "[emailproxy]\nallow_catch_all_accounts = {allowed}\n[@]\nclient_id = all\npermission_url = x\n\
             [@example.com]\ntoken_url = https://id.example.com/token\n[a@example.com]\nclient_id = own\n"
        )
    };
    let allowed = read(&text("On"), None).unwrap();
    assert_eq!(
        settings(&allowed, "a@example.com").app.client_id.as_deref(),
        Some("own")
    );
    let forbidden = read(&text("False"), None).unwrap();
    assert_eq!(forbidden.accounts[0].settings, Err(Problem::Missing("permission_url")));
}

#[test]
fn an_account_that_makes_no_sense_does_not_keep_the_others_out() {
    for (bad, problem) in [
        ("[b@example.com]\n", Problem::Missing("permission_url")),
        (
            "[b@example.com]\npermission_url = x\nclient_id = x\n",
            Problem::Missing("token_url"),
        ),
        (
            "[b@example.com]\npermission_url = x\nclient_id = x\ntoken_url = not a URL\n",
            Problem::Value {
                option: "token_url",
                expected: "a URL",
            },
        ),
        (
            "[b@example.com]\npermission_url = x\nclient_id = x\ntoken_url = https://x/\nrefresh_token = x\n",
            Problem::Missing("token_salt"),
        ),
        (
            "[b@example.com]\npermission_url = x\nclient_id = x\ntoken_url = https://x/\nrefresh_token = x\n\
             token_salt = x\ntoken_iterations = 99999999999\n",
            Problem::Value {
                option: "token_iterations",
                expected: "a number",
            },
        ),
    ] {
        let foreign = read(&format!("{bad}{SECTION}"), None).unwrap();
        settings(&foreign, "a@example.com");
        assert_eq!(foreign.accounts[1].settings.as_ref().unwrap_err(), &problem);
    }
}

#[test]
fn tokens_may_be_kept_in_a_file_of_their_own() {
    let cache = "[a@example.com]\nrefresh_token = sealed\ntoken_salt = salt\nclient_id = ignored\n\
        [new@example.com]\nrefresh_token = sealed\ntoken_salt = salt\n[IMAP-1]\nserver_address = x\nserver_port = 1\n";
    let foreign = read(SECTION, Some(cache)).unwrap();
    assert_eq!(foreign.accounts.len(), 1, "nobody may be new");
    assert_eq!(foreign.servers, []);
    let account = settings(&foreign, "a@example.com");
    assert_eq!(account.app.client_id.as_deref(), Some("app"));
    assert_eq!(account.grant.unwrap().token, "sealed");
}

#[test]
fn another_kind_of_file_is_refused() {
    assert_eq!(read("", None).unwrap_err(), FormatError::NoAccounts);
    assert_eq!(
        read("[@example.com]\na = b\n", None).unwrap_err(),
        FormatError::NoAccounts
    );
    assert!(matches!(read("[a@example.com\n", None), Err(FormatError::Syntax(_))));
    let many: String = (0..=IMPORT_ACCOUNTS_MAX)
        .map(|number| format!("[{number}@example.com]\n"))
        .collect();
    assert_eq!(read(&many, None).unwrap_err(), FormatError::TooManyAccounts);
}

#[test]
fn no_error_tells_a_value_of_the_file() {
    for text in [
        "[a@example.com]\nclient_secret = hush\n[broken",
        "[a@example.com]\nclient_secret = hush\n= hush\n",
        "[a@example.com]\npermission_url = x\nclient_id = hush\ntoken_url = hush\n",
    ] {
        let told = match read(text, None) {
            Err(error) => error.to_string(),
            Ok(foreign) => foreign.accounts[0].settings.as_ref().unwrap_err().to_string(),
        };
        assert!(!told.contains("hush"), "{told}");
    }
}

proptest! {
    #[test]
    fn hostile_files_are_read_or_refused(text in "(?s).{0,400}", lines in prop::collection::vec(line(), 0..40)) {
        for text in [text, lines.concat()] {
            if let Ok(foreign) = read(&text, Some(&text)) {
                prop_assert!(!foreign.accounts.is_empty());
                // What the tables are printed from is as foreign.
                for table in table::tables(&foreign) {
                    let parsed = table.toml.parse::<toml::Table>();
                    prop_assert!(parsed.is_ok(), "{:?}: {}", parsed, table.toml);
                }
            }
        }
    }

    #[test]
    fn what_stands_in_a_section_is_what_is_read(
        client_id in "[!-~]([ -~]{0,30}[!-~])?",
        scopes in prop::collection::vec("[!-~]{1,12}", 1..5),
        port in 1_u16..,
    ) {
        let text = format!(
            "[IMAP-1993]\nserver_address = h\nserver_port = {port}\n[a@b]\npermission_url = https://x/\n\
             token_url = https://x/\nclient_id = {client_id}\noauth2_scope = {}\n", scopes.join(" ")
        );
        let foreign = read(&text, None).unwrap();
        let app = settings(&foreign, "a@b").app;
        prop_assert_eq!(app.client_id, Some(client_id));
        prop_assert_eq!(app.scopes, scopes);
        prop_assert_eq!(foreign.servers[0].port, port);
    }
}

/// A line such as the file has, or nearly.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "a@example.com",
        "b@",
        "@",
        "@example.com",
        "IMAP-1",
        "SMTP-99999",
        "POP-",
        "emailproxy",
        "DEFAULT",
        "[",
        "]@[",
    ]);
    let option = prop::sample::select(vec![
        "permission_url",
        "token_url",
        "oauth2_scope",
        "oauth2_flow",
        "client_id",
        "client_secret",
        "token_salt",
        "token_iterations",
        "refresh_token",
        "server_address",
        "server_port",
        "allow_catch_all_accounts",
        "",
    ]);
    let value = prop_oneof![
        Just("https://login.microsoftonline.com/common/oauth2/v2.0/token".to_owned()),
        Just("https://[::1]:1/\u{7f}".to_owned()),
        Just("True".to_owned()),
        Just("device".to_owned()),
        Just("service_account".to_owned()),
        "[ -~\u{0}äß\"\\\\]{0,20}",
        any::<u32>().prop_map(|number| number.to_string()),
    ];
    prop_oneof![
        name.prop_map(|name| format!("[{name}]\n")),
        (option, value).prop_map(|(option, value)| format!("{option} = {value}\n")),
        "[ \t]{0,3}.{0,10}\n",
    ]
}

fn settings(foreign: &Foreign, name: &str) -> Settings {
    let account = foreign.accounts.iter().find(|account| account.name == name).unwrap();
    account.settings.clone().unwrap()
}
