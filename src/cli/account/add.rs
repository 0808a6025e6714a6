//! `portreeve account add`: whose mailbox it is, where its servers are, and what is left to do.

use std::io::IsTerminal as _;

use serde_json::{Map, Value, json};

use super::{AddArgs, Fields};
use crate::access::Scope;
use crate::admin::client::Client;
use crate::admin::types::{AccountCreated, ProviderView, RecognitionView, StatusView};
use crate::cli::daemon::answer;
use crate::cli::output::{clean, confirm, print};
use crate::cli::{Failure, Globals};
use crate::proto::Protocol;
use crate::shell;

/// The provider of accounts that name all their servers themselves.
const NO_PROVIDER: &str = "other";

/// Adds a mailbox, and tells what is left to do.
///
/// # Errors
/// As every command; also where nobody can tell the provider.
pub(super) async fn add(client: &Client, arguments: AddArgs, globals: &Globals) -> Result<(), Failure> {
    let AddArgs {
        account,
        mut fields,
        accept_found,
    } = arguments;
    if fields.email.is_none() && account.contains('@') {
        fields.email = Some(account.clone());
    }
    let status = answer(client.read::<StatusView>("/v1/status", &[])).await?.value;
    let finding = match &fields.provider {
        Some(_) => None,
        None => Some(recognize(client, fields.email.as_deref(), &status.providers).await?),
    };
    let mut found = Map::new();
    if let Some(finding) = &finding {
        fields.provider = Some(chosen_provider(finding, &fields, &status.providers)?);
        if finding.provider.is_none() {
            found = found_servers(finding, &fields, accept_found)?;
        }
        if !globals.json {
            print(&format!("{}.", clean(&finding.found)))?;
        }
    }
    let scopes = useful_scopes(fields.provider.as_deref().unwrap_or_default(), &fields, &found, &status);
    let mut body = fields.body()?;
    for (protocol, server) in found {
        merge(&mut body, &protocol, server);
    }
    body.insert("account".to_owned(), account.into());
    let created = answer(client.create::<AccountCreated>("/v1/account", &body.into())).await?;
    if globals.json {
        return print(&created.raw);
    }
    for choice in fields.choices() {
        print(&format!("{choice}."))?;
    }
    let account = clean(&created.value.account);
    let word = shell::word(&account);
    let credential = credential_steps(&word, &fields, finding.as_ref(), &status.providers);
    print(&format!(
        "Added {account}.\n\n{}\
         Check it:             portreeve account verify {word}\n\
         Let a program log in: portreeve token create --account {word} --scope {scopes}",
        credential.map(|steps| format!("{steps}\n")).unwrap_or_default()
    ))
}

/// What the daemon finds out of the address.
async fn recognize(
    client: &Client,
    email: Option<&str>,
    providers: &[ProviderView],
) -> Result<RecognitionView, Failure> {
    let Some(email) = email else {
        return Err(unrecognized("there is no e-mail address", providers));
    };
    let parameters = [("email", email.to_owned())];
    let found = client.read::<RecognitionView>("/v1/recognize", &parameters);
    Ok(answer(found).await?.value)
}

fn unrecognized(why: &str, providers: &[ProviderView]) -> Failure {
    let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
    Failure::usage(format!(
        "cannot tell the provider: {why}; choose one with --provider ({}), or name the servers with --imap, --smtp and --pop3",
        names.join(", ")
    ))
}

/// The provider that was found, if it is configured; else the one that stands for servers of their own, where there are any.
fn chosen_provider(finding: &RecognitionView, fields: &Fields, providers: &[ProviderView]) -> Result<String, Failure> {
    let found = clean(&finding.found);
    match &finding.provider {
        Some(provider) if finding.configured => Ok(provider.clone()),
        Some(provider) => {
            let advice = finding.advice.as_deref().map(|advice| format!(". {}", clean(advice)));
            Err(Failure::failed(format!(
                "{found}, but provider '{}' is not configured{}",
                clean(provider),
                advice.unwrap_or_default()
            )))
        }
        None if fields.names_a_server() || !servers_of(finding).is_empty() => Ok(NO_PROVIDER.to_owned()),
        None => Err(unrecognized(&found, providers)),
    }
}

/// The servers that the domain names, for those protocols that the caller names none for; and only if the caller, who has seen
/// them, wants them. Nobody but a person can tell whether they may be given the mailbox's password.
fn found_servers(
    finding: &RecognitionView,
    fields: &Fields,
    accept_found: bool,
) -> Result<Map<String, Value>, Failure> {
    let mut servers = servers_of(finding);
    for (protocol, endpoint, _) in fields.overrides() {
        if endpoint.is_some() {
            servers.remove(protocol.name());
        }
    }
    if servers.is_empty() || accept_found {
        return Ok(servers);
    }
    let found = clean(&finding.found);
    // Without a terminal `confirm` takes silence for consent, which is not enough here.
    if std::io::stdin().is_terminal() && confirm(&format!("{found}. Use these servers?"))? {
        return Ok(servers);
    }
    Err(Failure::failed(format!(
        "{found}; nothing was added. If these are the right servers, say so with --accept-found; else name them with --imap, \
         --smtp and --pop3"
    )))
}

fn servers_of(finding: &RecognitionView) -> Map<String, Value> {
    let servers = [
        (Protocol::Imap, &finding.imap),
        (Protocol::Smtp, &finding.smtp),
        (Protocol::Pop3, &finding.pop3),
    ];
    servers
        .into_iter()
        .filter_map(|(protocol, server)| Some((protocol.name().to_owned(), json!(server.as_ref()?))))
        .collect()
}

/// Adds what was found for a protocol to what the caller said of it, which counts.
fn merge(body: &mut Map<String, Value>, protocol: &str, server: Value) {
    match (body.get_mut(protocol), server) {
        (Some(Value::Object(given)), Value::Object(found)) => {
            for (name, value) in found {
                given.entry(name).or_insert(value);
            }
        }
        (_, server) => {
            body.insert(protocol.to_owned(), server);
        }
    }
}

/// How the account gets what it logs in with, where it was given nothing and needs something. `account` is a word for a shell.
fn credential_steps(
    account: &str,
    fields: &Fields,
    finding: Option<&RecognitionView>,
    providers: &[ProviderView],
) -> Option<String> {
    let is_given =
        fields.refresh_token_file.is_some() || fields.password_file.is_some() || fields.shares_grant_of.is_some();
    if is_given {
        return None;
    }
    let provider = providers
        .iter()
        .find(|known| Some(&known.name) == fields.provider.as_ref());
    let grant = provider
        .filter(|provider| provider.oauth2)
        .and_then(|provider| provider.grant.as_deref());
    let passwords = match grant {
        // The app, or somebody else's program, has all that it takes.
        Some("client_credentials" | "service_account" | "external") => return None,
        Some("password") => true,
        Some(_) => finding.is_some_and(|finding| finding.passwords),
        None => finding.is_none_or(|finding| finding.passwords),
    };
    let consents = grant.is_some_and(|grant| grant != "password");
    let advice = finding
        .and_then(|finding| finding.advice.as_deref())
        .filter(|_| grant.is_none());
    let mut steps: Vec<String> = advice
        .map(|advice| format!("{}\n", clean(advice)))
        .into_iter()
        .collect();
    if consents {
        steps.push(format!("Let its owner consent: portreeve account authorize {account}"));
    }
    if passwords {
        let how = if consents {
            "Or give a password:  "
        } else {
            "Give it its password:"
        };
        steps.push(format!("{how} portreeve account update {account} --password-file -"));
    }
    Some(steps.join("\n"))
}

/// The scopes of what a program can log in to, as `token create` takes them: what the provider, or the account with an
/// endpoint of its own, offers and listeners serve; all that is offered where they serve none of it.
fn useful_scopes(provider: &str, fields: &Fields, found: &Map<String, Value>, status: &StatusView) -> String {
    let known = status.providers.iter().find(|known| known.name == provider);
    let own = fields.overrides().into_iter();
    let offered: Vec<Protocol> = own
        .filter(|(protocol, endpoint, _)| {
            let is_own = endpoint.is_some() || found.contains_key(protocol.name());
            is_own || known.is_some_and(|known| known.protocols.contains(protocol))
        })
        .map(|(protocol, ..)| protocol)
        .collect();
    let is_served = |protocol: &Protocol| status.listeners.iter().any(|listener| listener.protocol == *protocol);
    let is_any_served = offered.iter().any(is_served);
    let useful = offered.iter().filter(|protocol| !is_any_served || is_served(protocol));
    let scopes: Vec<&str> = useful.map(|protocol| Scope::of(*protocol).name()).collect();
    scopes.join(",")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::cli::Exit;

    fn finding(rest: Value) -> RecognitionView {
        let mut finding = json!({
            "email": "ada@example.org", "provider": null, "how": "none", "found": "example.org is nobody's",
            "configured": false, "oauth2": false, "passwords": false,
        });
        finding
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        serde_json::from_value(finding).unwrap()
    }

    fn provider(name: &str, oauth2: bool) -> ProviderView {
        ProviderView {
            name: name.to_owned(),
            domains: Vec::new(),
            oauth2,
            grant: oauth2.then(|| "code".to_owned()),
            device: false,
            protocols: vec![Protocol::Imap],
            client_id: None,
            token_url: None,
            issuer: None,
        }
    }

    #[test]
    fn a_provider_is_taken_if_it_is_configured_and_else_told_with_what_there_is_to_do() {
        let providers = [provider("example", true), provider("other", false)];
        let none = Fields::default();
        let named = Fields {
            imap: Some("imap.example.org:993".to_owned()),
            ..Fields::default()
        };
        let chosen = |rest: Value, fields: &Fields| chosen_provider(&finding(rest), fields, &providers);
        let configured = json!({"provider": "example", "configured": true});
        assert_eq!(chosen(configured, &none).unwrap(), "example");
        let server = json!({"imap": {"host": "imap.example.org", "port": 993, "tls": "implicit"}});
        assert_eq!(chosen(server, &none).unwrap(), "other");
        assert_eq!(chosen(json!({}), &named).unwrap(), "other");
        let failure = chosen(json!({}), &none).unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (
                Exit::Usage,
                "cannot tell the provider: example.org is nobody's; choose one with --provider (example, other), or name the \
                 servers with --imap, --smtp and --pop3"
            )
        );
        let absent = json!({"provider": "microsoft", "found": "a.test is Microsoft's", "advice": "Register an app."});
        let failure = chosen(absent, &none).unwrap_err();
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (
                Exit::Failed,
                "a.test is Microsoft's, but provider 'microsoft' is not configured. Register an app."
            )
        );
    }

    #[test]
    fn servers_that_were_found_are_used_only_where_somebody_said_so_and_named_no_other() {
        let found = finding(json!({
            "imap": {"host": "imap.example.org", "port": 993, "tls": "implicit", "user": "ada"},
            "smtp": {"host": "smtp.example.org", "port": 587, "tls": "starttls"},
        }));
        let fields = Fields {
            smtp: Some("mine.example.org:465".to_owned()),
            imap_user: Some("lovelace".to_owned()),
            ..Fields::default()
        };
        let servers = found_servers(&found, &fields, true).unwrap();
        assert_eq!(servers.keys().collect::<Vec<_>>(), ["imap"]);
        let mut body = fields.body().unwrap();
        for (protocol, server) in servers {
            merge(&mut body, &protocol, server);
        }
        assert_eq!(
            Value::from(body),
            json!({
                "imap": {"host": "imap.example.org", "port": 993, "tls": "implicit", "user": "lovelace"},
                "smtp": {"host": "mine.example.org", "port": 465, "tls": "implicit"},
            })
        );
        if !std::io::stdin().is_terminal() {
            let failure = found_servers(&found, &fields, false).unwrap_err();
            assert!(failure.message.contains("nothing was added"), "{failure}");
        }
        let all_named = Fields {
            imap: Some("mine.example.org:993".to_owned()),
            ..fields
        };
        assert!(found_servers(&found, &all_named, false).unwrap().is_empty());
    }

    #[test]
    fn an_account_without_a_credential_is_told_how_it_gets_one() {
        let providers = [provider("google", true), provider("icloud", false)];
        let of = |name: &str, password: bool| Fields {
            provider: Some(name.to_owned()),
            password_file: password.then(|| PathBuf::from("-")),
            ..Fields::default()
        };
        let steps = |fields: &Fields, finding: Option<&RecognitionView>| {
            credential_steps("ada", fields, finding, &providers).unwrap_or_default()
        };
        assert_eq!(
            steps(&of("google", false), None),
            "Let its owner consent: portreeve account authorize ada"
        );
        let both = finding(json!({"passwords": true, "advice": "Make an app password."}));
        assert_eq!(
            steps(&of("google", false), Some(&both)),
            "Let its owner consent: portreeve account authorize ada\n\
             Or give a password:   portreeve account update ada --password-file -"
        );
        assert_eq!(
            steps(&of("icloud", false), Some(&both)),
            "Make an app password.\n\nGive it its password: portreeve account update ada --password-file -"
        );
        assert_eq!(steps(&of("icloud", true), Some(&both)), "");
        for (grant, expected) in [
            ("client_credentials", ""),
            ("external", ""),
            (
                "password",
                "Give it its password: portreeve account update ada --password-file -",
            ),
        ] {
            let mut by_itself = provider("google", true);
            by_itself.grant = Some(grant.to_owned());
            let steps = credential_steps("ada", &of("google", false), Some(&both), &[by_itself]);
            assert_eq!(steps.unwrap_or_default(), expected, "{grant}");
        }
    }

    #[test]
    fn a_new_accounts_hint_names_the_scopes_of_what_is_offered_and_served() {
        use Protocol::{Imap, Pop3, Smtp};
        let status = |offered: &[Protocol], served: &[Protocol]| -> StatusView {
            let listeners: Vec<_> = served
                .iter()
                .map(|protocol| json!({"protocol": protocol, "address": "127.0.0.1:1", "tls": "off"}))
                .collect();
            serde_json::from_value(json!({
                "status": "ok", "version": "1", "hostname": "mail.example.com",
                "started": "2026-01-01T00:00:00Z", "uptimeSeconds": 1, "listeners": listeners,
                "providers": [{"name": "example", "domains": [], "oauth2": true, "protocols": offered}],
                "accounts": {
                    "total": 0, "new": 0, "active": 0, "needs-authorization": 0, "failing": 0, "disabled": 0,
                },
                "attention": [], "tokens": 0, "sessions": 0,
            }))
            .unwrap()
        };
        let own_pop3 = Fields {
            pop3: Some("pop.example.com:995".to_owned()),
            smtp_user: Some("delegate@example.com".to_owned()),
            ..Fields::default()
        };
        let none = Fields::default();
        for (offered, served, fields, expected) in [
            (
                &[Imap, Smtp, Pop3][..],
                &[Pop3, Imap, Smtp][..],
                &none,
                "imap-proxy,smtp,pop3",
            ),
            (&[Imap, Smtp], &[Imap, Smtp, Pop3], &none, "imap-proxy,smtp"),
            (&[Smtp], &[Imap, Smtp, Pop3], &none, "smtp"),
            (&[Imap, Smtp], &[Smtp], &none, "smtp"),
            (&[Imap], &[Imap, Smtp, Pop3], &own_pop3, "imap-proxy,pop3"),
            (&[Imap, Smtp], &[Pop3], &none, "imap-proxy,smtp"),
        ] {
            assert_eq!(
                useful_scopes("example", fields, &Map::new(), &status(offered, served)),
                expected
            );
        }
    }
}
