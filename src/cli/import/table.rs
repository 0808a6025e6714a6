//! The tables `[provider.…]` that the daemon's configuration needs for the apps of a foreign one. Without any secret: where
//! there is one, the table names a file to put it into.
//!
//! A preset's table says what only the administrator knows; any other one is complete, as far as the file tells which of its
//! servers are the provider's.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::format::{App, Flow, Foreign, Proof, Server};
use super::provider::{host, preset, tenant};
use crate::cli::output::clean;
use crate::config::{KnownProvider, UpstreamTls};
use crate::proto::Protocol;

/// A table, and the name that it gives the provider.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ProviderTable {
    /// The provider's name.
    pub(super) provider: String,
    /// The TOML.
    pub(super) toml: String,
}

/// Accounts of one app, and all that their owners consented to.
struct Users<'a> {
    names: Vec<&'a str>,
    scopes: Vec<&'a str>,
}

/// One table for each app.
pub(super) fn tables(foreign: &Foreign) -> Vec<ProviderTable> {
    let apps = apps(foreign);
    let is_only = apps.len() == 1;
    let mut tables: Vec<ProviderTable> = Vec::new();
    for (app, users) in &apps {
        let known = preset(app);
        let wanted = known.map_or_else(|| name_of(&host(&app.token_url)), |known| known.name.to_owned());
        let is_taken = |name: &str| tables.iter().any(|table| table.provider == name);
        // A second app of a preset has no preset: that completes the table of its own name only.
        let known = known.filter(|_| !is_taken(&wanted));
        let numbered = (2..).map(|number| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        let provider = names.find(|name| !is_taken(name)).unwrap_or(wanted);
        let servers: Vec<&Server> = match known {
            Some(_) => Vec::new(),
            None => (foreign.servers.iter())
                .filter(|server| is_only || belongs(server, app, users))
                .collect(),
        };
        let toml = toml(&provider, app, users, known, &servers);
        tables.push(ProviderTable { provider, toml });
    }
    tables
}

/// The apps, those with the most accounts first, so that of several at one preset the most used gets its name.
fn apps(foreign: &Foreign) -> Vec<(App, Users<'_>)> {
    let mut apps = BTreeMap::new();
    for account in &foreign.accounts {
        let Ok(settings) = &account.settings else { continue };
        let mut app = settings.app.clone();
        app.scopes.clear();
        let users = apps.entry(app).or_insert_with(|| Users {
            names: Vec::new(),
            scopes: Vec::new(),
        });
        users.names.push(&account.name);
        for scope in &settings.app.scopes {
            if !users.scopes.contains(&scope.as_str()) {
                users.scopes.push(scope);
            }
        }
    }
    let mut apps: Vec<(App, Users<'_>)> = apps.into_iter().collect();
    apps.sort_by_key(|(_, users)| (Reverse(users.names.len()), users.names.first().copied()));
    apps
}

fn toml(provider: &str, app: &App, users: &Users<'_>, known: Option<KnownProvider>, servers: &[&Server]) -> String {
    let mut lines = Lines(String::new());
    lines.comment(&format!("for {}", listed(&users.names)));
    let _ = writeln!(lines.0, "[provider.{provider}]");
    if let Some(id) = &app.client_id {
        lines.text("client_id", id);
    }
    proof(&mut lines, provider, app);
    match known {
        Some(known) if known.name == "microsoft" => {
            // The tenant is what the URL's path begins with, if it is not the preset's default.
            if let Some(tenant) = tenant(&app.token_url) {
                lines.text("tenant", tenant);
            }
            if known.cloud != "global" {
                lines.text("cloud", known.cloud);
            }
        }
        Some(_) => {}
        None => endpoints(&mut lines, app),
    }
    if app.flow != Flow::Code {
        lines.text("grant", app.flow.grant());
    }
    if !users.scopes.is_empty() {
        let scopes = users.scopes.iter().map(|scope| (*scope).to_owned().into()).collect();
        lines.value("scopes", &toml::Value::Array(scopes));
    }
    if known.is_none() {
        mail_servers(&mut lines, servers);
    }
    lines.0
}

fn proof(lines: &mut Lines, provider: &str, app: &App) {
    match &app.proof {
        Proof::None => {}
        Proof::Secret => {
            lines.comment("put the app's client_secret into this file, readable by the daemon alone");
            lines.text("client_secret_file", &format!("/etc/portreeve/{provider}.secret"));
        }
        Proof::Certificate { certificate, key } => {
            lines.text("client_auth", "private_key_jwt");
            lines.text("client_certificate_file", certificate);
            lines.text("client_key_file", key);
        }
        Proof::ServiceAccount(Some(file)) => lines.text("service_account_file", file),
        Proof::ServiceAccount(None) => {
            lines.comment("put the JSON key that stands in client_secret into this file, readable by the daemon alone");
            lines.text("service_account_file", &format!("/etc/portreeve/{provider}.json"));
        }
    }
}

fn endpoints(lines: &mut Lines, app: &App) {
    lines.text("token_url", app.token_url.as_str());
    match (&app.permission_url, app.flow) {
        (Some(url), Flow::Device) => lines.text("device_url", url),
        (Some(url), _) => lines.text("authorize_url", url),
        (None, _) => {}
    }
}

fn mail_servers(lines: &mut Lines, servers: &[&Server]) {
    if servers.is_empty() {
        lines.comment("the file does not tell which of its servers are this provider's:");
        lines.comment("imap = { host = \"…\", port = 993, tls = \"implicit\" }");
    }
    for protocol in [Protocol::Imap, Protocol::Smtp, Protocol::Pop3] {
        for (index, server) in servers.iter().filter(|server| server.protocol == protocol).enumerate() {
            let tls = match server.tls {
                UpstreamTls::Implicit => "implicit",
                UpstreamTls::Starttls => "starttls",
                UpstreamTls::Off => "off",
            };
            let line = format!(
                "{protocol} = {{ host = {}, port = {}, tls = \"{tls}\" }}",
                toml::Value::from(server.host.as_str()),
                server.port
            );
            match index {
                0 => lines.line(&line),
                _ => lines.comment(&format!("or {line}")),
            }
        }
    }
}

/// Whether a server is one of the app's provider, or of the domain of one of its accounts.
fn belongs(server: &Server, app: &App, users: &Users<'_>) -> bool {
    let domain = organization(&server.host);
    let of_users = users.names.iter().filter_map(|name| name.rsplit_once('@'));
    domain == organization(&host(&app.token_url)) || of_users.map(|(_, host)| organization(host)).any(|of| of == domain)
}

/// The last two labels of a host's name, by which the servers of one organization are usually alike.
fn organization(host: &str) -> String {
    let labels: Vec<&str> = host.rsplit('.').take(2).collect();
    labels.join(".").to_lowercase()
}

/// A name for the provider at a host: the label before the last, of which a name may have all that a TOML key takes bare.
fn name_of(host: &str) -> String {
    let label = host.rsplit('.').nth(1).unwrap_or_default();
    let is_name = label.starts_with(|c: char| c.is_ascii_lowercase())
        && label
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if is_name {
        label.to_owned()
    } else {
        "imported".to_owned()
    }
}

/// A few names, and how many more there are.
fn listed(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN).copied().collect();
    let more = names.len() - shown.len();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}

struct Lines(String);

impl Lines {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn comment(&mut self, text: &str) {
        self.line(&format!("# {}", clean(text)));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.value(key, &value.into());
    }

    fn value(&mut self, key: &str, value: &toml::Value) {
        self.line(&format!("{key} = {value}"));
    }
}

/// Accounts that a table names before it only counts them.
const NAMES_SHOWN: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::format;

    #[test]
    fn a_presets_table_says_what_only_the_administrator_knows() {
        let tables = tables_of(
            "[IMAP-1993]\nserver_address = outlook.office365.com\nserver_port = 993\n\
             [a@example.com]\npermission_url = https://login.microsoftonline.com/contoso/oauth2/v2.0/authorize\n\
             token_url = https://login.microsoftonline.com/contoso/oauth2/v2.0/token\n\
             oauth2_scope = https://outlook.office.com/IMAP.AccessAsUser.All offline_access\n\
             client_id = an-app\nclient_secret = hush-hush\n\
             [b@example.com]\ntoken_url = https://login.microsoftonline.com/contoso/oauth2/v2.0/token\n\
             oauth2_flow = client_credentials\nclient_id = other-app\njwt_certificate_path = /c.pem\njwt_key_path = /k.pem\n\
             oauth2_scope = https://outlook.office365.com/.default\n",
        );
        let [first, second] = tables.as_slice() else {
            panic!("{tables:?}")
        };
        assert_eq!(
            (first.provider.as_str(), first.toml.as_str()),
            (
                "microsoft",
                "# for a@example.com\n[provider.microsoft]\nclient_id = \"an-app\"\n\
                 # put the app's client_secret into this file, readable by the daemon alone\n\
                 client_secret_file = \"/etc/portreeve/microsoft.secret\"\ntenant = \"contoso\"\n\
                 scopes = [\"https://outlook.office.com/IMAP.AccessAsUser.All\", \"offline_access\"]\n"
            )
        );
        // The second app of the same provider is told in full.
        assert_eq!(second.provider, "microsoft-2");
        for line in [
            "client_auth = \"private_key_jwt\"",
            "client_certificate_file = \"/c.pem\"",
            "client_key_file = \"/k.pem\"",
            "token_url = \"https://login.microsoftonline.com/contoso/oauth2/v2.0/token\"",
            "grant = \"client_credentials\"",
        ] {
            assert!(second.toml.lines().any(|one| one == line), "{line}: {}", second.toml);
        }
    }

    #[test]
    fn an_unknown_providers_table_is_complete_and_counts_as_configuration() {
        let tables = tables_of(
            "[IMAP-1993]\nserver_address = imap.example.com\nserver_port = 993\n\
             [SMTP-1587]\nserver_address = smtp.example.com\nserver_port = 587\nserver_starttls = True\n\
             [IMAP-2993]\nserver_address = imap.other.test\nserver_port = 993\n\
             [a@example.com]\npermission_url = https://id.example.com/auth\ntoken_url = https://id.example.com/token\n\
             client_id = an \"app\"\noauth2_scope = mail\n\
             [b@example.com]\npermission_url = https://id.example.com/auth\ntoken_url = https://id.example.com/token\n\
             client_id = an \"app\"\noauth2_scope = mail offline_access\n\
             [c@other.test]\npermission_url = https://10.1.1.1/auth\ntoken_url = https://10.1.1.1/token\nclient_id = x\n\
             oauth2_scope = mail\n",
        );
        let [example, other] = tables.as_slice() else {
            panic!("{tables:?}")
        };
        assert_eq!(other.provider, "imported");
        assert_eq!(example.provider, "example");
        assert!(
            example.toml.starts_with("# for a@example.com, b@example.com\n"),
            "{}",
            example.toml
        );
        let both = format!("{}{}", other.toml, example.toml);
        let config = crate::config::parse(None, &both, &crate::config::ProcessEnvironment).unwrap();
        let provider = &config.providers["example"];
        let app = provider.oauth.as_ref().unwrap();
        assert_eq!(app.client_id, "an \"app\"");
        assert_eq!(app.scopes, ["mail", "offline_access"]);
        assert_eq!(
            app.authorize_url.as_ref().unwrap().as_str(),
            "https://id.example.com/auth"
        );
        assert_eq!(provider.imap.as_ref().unwrap().host, "imap.example.com");
        let smtp = provider.smtp.as_ref().unwrap();
        assert_eq!(
            (smtp.host.as_str(), smtp.port, smtp.tls),
            ("smtp.example.com", 587, UpstreamTls::Starttls)
        );
        assert_eq!(
            config.providers["imported"].imap.as_ref().unwrap().host,
            "imap.other.test"
        );
    }

    #[test]
    fn a_service_accounts_table_names_the_key_file_and_never_the_key() {
        let section = |client_id: &str, secret: &str| {
            format!(
                "[a@example.com]\ntoken_url = https://oauth2.googleapis.com/token\noauth2_flow = service_account\n\
                 oauth2_scope = https://mail.google.com/\nclient_id = {client_id}\nclient_secret = {secret}\n"
            )
        };
        let file = tables_of(&section("file", "/etc/key.json"));
        assert!(
            file[0]
                .toml
                .contains("service_account_file = \"/etc/key.json\"\ngrant = \"service_account\"\n")
        );
        let key = tables_of(&section("key", "{\"private_key\": \"hush-hush\"}"));
        assert!(
            key[0]
                .toml
                .contains("service_account_file = \"/etc/portreeve/google.json\"")
        );
        assert!(!key[0].toml.contains("hush"), "{}", key[0].toml);
        assert!(!key[0].toml.contains("client_id"), "{}", key[0].toml);
    }

    fn tables_of(text: &str) -> Vec<ProviderTable> {
        tables(&format::read(text, None).unwrap())
    }
}
