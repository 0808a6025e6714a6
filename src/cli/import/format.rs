//! What a configuration of email-oauth2-proxy says: its text in, typed accounts and servers out.
//!
//! The file is read as Python's `configparser` reads it, without interpolation: names of sections as they stand, names of
//! options in any case, comments on lines of their own, `[DEFAULT]` behind every section. A section whose name holds an `@`
//! is an account; one that begins with `@` is what accounts of a domain, or all, fall back to where catch-all accounts are
//! allowed; `IMAP-1993` and the like are servers. A file that is not of this form is refused as a whole; an account that
//! makes no sense is kept with its reason, so that the others come through. No error holds a value of the file.
//!
//! Nothing is decrypted here, and of an app's secret no more is kept than that there is one.

use std::collections::BTreeMap;

use configparser::ini::{Ini, IniDefault};
use url::Url;
use zeroize::Zeroize as _;

use crate::config::UpstreamTls;
use crate::limits::IMPORT_ACCOUNTS_MAX;
use crate::proto::Protocol;

/// Everything that matters of a configuration.
#[derive(Debug)]
pub(super) struct Foreign {
    /// The accounts, by name.
    pub(super) accounts: Vec<ForeignAccount>,
    /// Sections that accounts of a domain fall back to, and that are no accounts themselves.
    pub(super) catch_alls: Vec<String>,
    /// Where its mail servers are.
    pub(super) servers: Vec<Server>,
}

/// One account's section.
#[derive(Debug)]
pub(super) struct ForeignAccount {
    /// The section's name, which is the login name at the provider too.
    pub(super) name: String,
    /// What it says, or why that makes no sense.
    pub(super) settings: Result<Settings, Problem>,
}

/// What an account's section says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// The OAuth app.
    pub(super) app: App,
    /// The refresh token, if there is one.
    pub(super) grant: Option<SealedGrant>,
}

/// The OAuth app of an account: those of the same app share a provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct App {
    /// Where tokens are asked for.
    pub(super) token_url: Url,
    /// Where an owner consents, or a device asks for a code.
    pub(super) permission_url: Option<String>,
    /// The app's id; `None` for a Google service account.
    pub(super) client_id: Option<String>,
    /// How the app shows who it is.
    pub(super) proof: Proof,
    /// How tokens are had.
    pub(super) flow: Flow,
    /// What is asked for.
    pub(super) scopes: Vec<String>,
}

/// How an app shows who it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    /// Not at all: a public client.
    None,
    /// By a secret, in clear or encrypted, which stays in the file.
    Secret,
    /// By assertions, with these files.
    Certificate {
        /// The certificate.
        certificate: String,
        /// Its key.
        key: String,
    },
    /// By Google's JSON key in this file; `None`: the key stands in the configuration itself.
    ServiceAccount(Option<String>),
}

/// `oauth2_flow`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flow {
    /// An owner consents in a browser.
    Code,
    /// An owner types a code.
    Device,
    /// The app may open the mailboxes by itself.
    ClientCredentials,
    /// A Google service account speaks for the mailbox.
    ServiceAccount,
    /// The mailbox's own name and password.
    Password,
}

impl Flow {
    /// What `provider.grant` calls it.
    pub(super) fn grant(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Device => "device",
            Self::ClientCredentials => "client_credentials",
            Self::ServiceAccount => "service_account",
            Self::Password => "password",
        }
    }
}

/// A refresh token as it is kept: a Fernet token, with what its key is derived from besides the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealedGrant {
    /// The Fernet token.
    pub(super) token: String,
    /// The salt, in base64.
    pub(super) salt: String,
    /// The rounds of PBKDF2, as stated.
    pub(super) iterations: u32,
}

/// A mail server that was connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// What it speaks.
    pub(super) protocol: Protocol,
    /// Its name or address.
    pub(super) host: String,
    /// Its port.
    pub(super) port: u16,
    /// How connections to it begin.
    pub(super) tls: UpstreamTls,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    /// It is no ini file.
    #[error("is not a configuration of email-oauth2-proxy: {0}")]
    Syntax(String),
    /// It names no account.
    #[error("has no account: no section is named after an e-mail address")]
    NoAccounts,
    /// It names more than any real one.
    #[error("has more than {IMPORT_ACCOUNTS_MAX} accounts")]
    TooManyAccounts,
}

/// Why an account's section makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    /// An option that every account needs is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An option's value cannot be what it should.
    #[error("{option} is not {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// What it should be.
        expected: &'static str,
    },
}

/// Reads a configuration and, where tokens were kept apart (`--cache-store`), the file that holds them.
///
/// # Errors
/// Where either is no such file, or has no account or too many.
pub(super) fn read(config: &str, cache: Option<&str>) -> Result<Foreign, FormatError> {
    let mut sections = Sections::read(config)?;
    if let Some(cache) = cache {
        sections.merge(Sections::read(cache)?);
    }
    let names: Vec<String> = sections.0.keys().filter(|name| name.contains('@')).cloned().collect();
    if names.len() > IMPORT_ACCOUNTS_MAX {
        return Err(FormatError::TooManyAccounts);
    }
    let (catch_alls, names): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| name.starts_with('@'));
    if names.is_empty() {
        return Err(FormatError::NoAccounts);
    }
    let accounts = names.into_iter().map(|name| ForeignAccount {
        settings: Account::of(&sections, &name).settings(),
        name,
    });
    Ok(Foreign {
        accounts: accounts.collect(),
        catch_alls,
        servers: sections.servers(),
    })
}

/// The file's sections, each with its options. Wiped when dropped, since an app's secret may stand among them in clear; what
/// the parser itself lets go of is out of reach.
struct Sections(BTreeMap<String, BTreeMap<String, String>>);

impl Sections {
    fn read(text: &str) -> Result<Self, FormatError> {
        let mut dialect = IniDefault::default();
        dialect.default_section = DEFAULT_SECTION.to_owned();
        dialect.case_sensitive = true;
        dialect.multiline = true;
        dialect.enable_inline_comments = false;
        let mut ini = Ini::new_from_defaults(dialect);
        ini.read(text.to_owned()).map_err(FormatError::Syntax)?;
        let sections = std::mem::take(ini.get_mut_map()).into_iter();
        Ok(Self(
            sections
                .map(|(name, options)| {
                    // An option without a value is an error to Python; here it is one that was not given.
                    let given = options
                        .into_iter()
                        .filter_map(|(option, value)| Some((option.to_lowercase(), value?)));
                    (name, given.filter(|(_, value)| !value.is_empty()).collect())
                })
                .collect(),
        ))
    }

    /// Takes over from a cache what emailproxy does: tokens and what belongs to them, of accounts; accounts that the
    /// configuration lacks only where catch-all accounts are allowed.
    fn merge(&mut self, mut cache: Self) {
        let allows_new = self.allows_catch_all();
        for (name, options) in std::mem::take(&mut cache.0) {
            if !name.contains('@') || !(allows_new || self.0.contains_key(&name)) {
                continue;
            }
            let cached = options
                .into_iter()
                .filter(|(option, _)| CACHED.contains(&option.as_str()));
            self.0.entry(name).or_default().extend(cached);
        }
    }

    /// An option of a section, or of `[DEFAULT]`.
    fn option(&self, section: &str, option: &str) -> Option<&str> {
        let own = |section: &str| self.0.get(section).and_then(|options| options.get(option));
        let value = match self.0.contains_key(section) {
            true => own(section).or_else(|| own(DEFAULT_SECTION)),
            false => None,
        };
        value.map(String::as_str)
    }

    fn flag(&self, section: &str, option: &str) -> bool {
        let value = self.option(section, option).unwrap_or_default();
        ["1", "yes", "true", "on"]
            .iter()
            .any(|yes| value.eq_ignore_ascii_case(yes))
    }

    fn allows_catch_all(&self) -> bool {
        self.flag(GLOBAL_SECTION, "allow_catch_all_accounts")
    }

    /// Those of the sections of servers that say where theirs is.
    fn servers(&self) -> Vec<Server> {
        let server = |name: &String| {
            let (kind, local_port) = name.split_once('-')?;
            let protocol = match kind {
                "IMAP" => Protocol::Imap,
                "POP" => Protocol::Pop3,
                "SMTP" => Protocol::Smtp,
                _ => return None,
            };
            local_port.parse::<u16>().ok()?;
            // Only submission knows STARTTLS, first under another name; the rest is TLS from the first byte.
            let is_upgraded = protocol == Protocol::Smtp
                && match self.option(name, "server_starttls") {
                    Some(_) => self.flag(name, "server_starttls"),
                    None => self.flag(name, "starttls"),
                };
            Some(Server {
                protocol,
                host: self.option(name, "server_address")?.to_owned(),
                port: self.option(name, "server_port")?.parse().ok()?,
                tls: if is_upgraded {
                    UpstreamTls::Starttls
                } else {
                    UpstreamTls::Implicit
                },
            })
        };
        self.0.keys().filter_map(server).collect()
    }
}

impl Drop for Sections {
    fn drop(&mut self) {
        for value in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            value.zeroize();
        }
    }
}

/// The options of an account: its own, else those that it falls back to.
struct Account<'a> {
    sections: &'a Sections,
    /// Most particular first.
    chain: Vec<String>,
}

impl<'a> Account<'a> {
    fn of(sections: &'a Sections, name: &str) -> Self {
        let mut chain = vec![name.to_owned()];
        if sections.allows_catch_all() {
            let domain = name.rsplit('@').next().unwrap_or_default();
            chain.extend([format!("@{domain}"), "@".to_owned()]);
        }
        Self { sections, chain }
    }

    fn option(&self, option: &str) -> Option<&'a str> {
        let mut found = self
            .chain
            .iter()
            .filter_map(|section| self.sections.option(section, option));
        found.next()
    }

    fn required(&self, option: &'static str) -> Result<&'a str, Problem> {
        self.option(option).ok_or(Problem::Missing(option))
    }

    fn settings(&self) -> Result<Settings, Problem> {
        Ok(Settings {
            app: self.app()?,
            grant: self.grant()?,
        })
    }

    fn app(&self) -> Result<App, Problem> {
        let flow = self.flow()?;
        let token_url = Url::parse(self.required("token_url")?).ok().filter(Url::has_host);
        let client_id = self.required("client_id")?;
        let scopes = self.option("oauth2_scope").unwrap_or_default().split_whitespace();
        Ok(App {
            token_url: token_url.ok_or(Problem::Value {
                option: "token_url",
                expected: "a URL",
            })?,
            permission_url: self.option("permission_url").map(str::to_owned),
            // Of a service account it only says where the key is.
            client_id: (flow != Flow::ServiceAccount).then(|| client_id.to_owned()),
            proof: self.proof(flow, client_id),
            flow,
            scopes: scopes.map(str::to_owned).collect(),
        })
    }

    /// Where there is a page to consent on, that is where consent comes from, whatever else is said.
    fn flow(&self) -> Result<Flow, Problem> {
        match (self.option("permission_url"), self.option("oauth2_flow")) {
            (Some(_), Some("device")) => Ok(Flow::Device),
            (Some(_), _) => Ok(Flow::Code),
            (None, Some("client_credentials")) => Ok(Flow::ClientCredentials),
            (None, Some("service_account")) => Ok(Flow::ServiceAccount),
            (None, Some("password")) => Ok(Flow::Password),
            (None, None) => Err(Problem::Missing("permission_url")),
            (None, Some(_)) => Err(Problem::Value {
                option: "oauth2_flow",
                expected: "one of client_credentials, service_account, password, and permission_url is missing",
            }),
        }
    }

    fn proof(&self, flow: Flow, client_id: &str) -> Proof {
        let secret = self.option("client_secret");
        if flow == Flow::ServiceAccount {
            let key_file = secret.filter(|_| client_id == "file");
            return Proof::ServiceAccount(key_file.map(str::to_owned));
        }
        let files = self.option("jwt_certificate_path").zip(self.option("jwt_key_path"));
        match files {
            _ if secret.is_some() || self.option("client_secret_encrypted").is_some() => Proof::Secret,
            Some((certificate, key)) => Proof::Certificate {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            },
            None => Proof::None,
        }
    }

    /// The refresh token stands in the account's own section only; what seals it may be inherited.
    fn grant(&self) -> Result<Option<SealedGrant>, Problem> {
        let own = self
            .chain
            .first()
            .and_then(|own| self.sections.option(own, "refresh_token"));
        let Some(token) = own else {
            return Ok(None);
        };
        let iterations = match self.option("token_iterations") {
            Some(text) => text.parse().map_err(|_| Problem::Value {
                option: "token_iterations",
                expected: "a number",
            })?,
            None => super::unlock::LEGACY_ITERATIONS,
        };
        Ok(Some(SealedGrant {
            token: token.to_owned(),
            salt: self.required("token_salt")?.to_owned(),
            iterations,
        }))
    }
}

/// Whose options stand behind those of every section.
const DEFAULT_SECTION: &str = "DEFAULT";

/// Where the proxy's own settings are.
const GLOBAL_SECTION: &str = "emailproxy";

/// The options that a cache may give.
const CACHED: [&str; 5] = [
    "refresh_token",
    "token_salt",
    "token_iterations",
    "client_secret_encrypted",
    "last_activity",
];

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
