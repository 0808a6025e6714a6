//! From a file, or none, to a [`Config`]: the order of reading and checking.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::report::{ConfigError, Place, Problem, Report, text};
use super::{Config, Listener, document, listener, locate, provider, secret, sections, web};
use crate::proto::Protocol;

/// Finds and reads the configuration: the file named by `explicit`, else by `PORTREEVE_CONFIG`, else the user's, else the
/// system's, else none and the defaults (INTERFACE §3). Blocks while it reads files.
///
/// # Errors
/// [`ConfigError::Unreadable`] for the file itself, [`ConfigError::Invalid`] with all that is wrong in it.
pub fn load(explicit: Option<&Path>, environment: &dyn Environment) -> Result<Config, ConfigError> {
    read(explicit, environment, None)
}

/// As [`load`], for a program that goes on with `listeners` whatever the file says of them now: presets ask for the scopes of
/// what those serve. A grant for less would be refused, for the sake of a protocol that nobody can use before the next start.
///
/// # Errors
/// As [`load`].
pub fn reload(
    explicit: Option<&Path>,
    environment: &dyn Environment,
    listeners: &[Listener],
) -> Result<Config, ConfigError> {
    let served: Vec<_> = listeners.iter().map(|listener| listener.protocol).collect();
    read(explicit, environment, Some(&served))
}

fn read(
    explicit: Option<&Path>,
    environment: &dyn Environment,
    served: Option<&[Protocol]>,
) -> Result<Config, ConfigError> {
    let Some((path, content)) = locate::config_file(explicit, environment)? else {
        return check(None, None, "", environment, served);
    };
    let text = match std::str::from_utf8(&content.bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = content.bytes.iter().take(error.valid_up_to());
            let line = before.filter(|byte| **byte == b'\n').count().saturating_add(1);
            let message = "is not UTF-8, which TOML is written in".to_owned();
            let problem = Problem {
                file: Some(path),
                line: Some(line),
                key: String::new(),
                message,
            };
            return Err(ConfigError::Invalid(vec![problem]));
        }
    };
    check(Some(&path), Some(content.mode), text, environment, served)
}

/// Reads `text` as a configuration that came from `source`.
///
/// # Errors
/// [`ConfigError::Invalid`] with all that is wrong in it.
pub fn parse(source: Option<&Path>, text: &str, environment: &dyn Environment) -> Result<Config, ConfigError> {
    check(source, None, text, environment, None)
}

/// Where a command finds the daemon if nobody says: at the configuration's own `admin.socket`, else at its default.
///
/// A configuration that this user cannot read, or that is wrong, counts as none: the command then says that it reaches no
/// daemon, and the daemon itself says what is wrong with its file.
pub fn client_socket(environment: &dyn Environment) -> PathBuf {
    let found = locate::config_file(None, environment).ok().flatten();
    let (path, content) = found.unzip();
    let file = content
        .and_then(|content| String::from_utf8(content.bytes).ok())
        .unwrap_or_default();
    let mut check = Check::new(Report::new(None, &file), path.as_deref(), environment);
    let raw = document::read(&file, &mut check.report);
    if let Some(given) = text(&raw.admin.socket) {
        return check.beside_file(given);
    }
    let state_dir = match text(&raw.server.state_dir) {
        Some(given) => Some(check.beside_file(given)),
        None => locate::state_dir(environment),
    };
    locate::admin_socket(environment, &state_dir.unwrap_or_default())
}

/// `served`: the protocols whose scopes presets ask for, where they are not those of the listeners in `text`.
fn check(
    source: Option<&Path>,
    mode: Option<u32>,
    text: &str,
    environment: &dyn Environment,
    served: Option<&[Protocol]>,
) -> Result<Config, ConfigError> {
    let mut check = Check::new(Report::new(source, text), source, environment);
    let raw = document::read(text, &mut check.report);
    check.whole = check.report.is_clean();
    let server = sections::server(&mut check, &raw.server);
    let admin = sections::admin(&mut check, &raw.admin, &server);
    let metrics_listen = sections::metrics_listen(&mut check, &raw.metrics);
    if check.whole {
        listener::refuse_shared_addresses(&mut check, &raw, &admin.listen, metrics_listen);
    }
    let served = served.map_or_else(|| listener::served(&raw), <[Protocol]>::to_vec);
    let providers = provider::providers(&mut check, &raw.provider, &served);
    let secrets = sections::secrets(&mut check, &raw.secrets, &server);
    let mut config = Config {
        source: source.map(Path::to_owned),
        warnings: Vec::new(),
        server,
        store: sections::store(&mut check, &raw.store),
        secrets,
        admin,
        metrics_listen,
        log: sections::log(&mut check, &raw.log),
        limits: sections::limits(&mut check, &raw.limits),
        web: web::web(&mut check, &raw),
        hooks: web::hooks(&mut check, &raw.hooks),
        listeners: listener::listeners(&mut check, &raw, &providers),
        certificates: listener::certificates(&mut check, &raw.certificate),
        providers,
    };
    if let (Some(path), Some(mode), true) = (source, mode, check.secrets_in_file) {
        secret::warn_if_public(&mut check, path, mode);
    }
    config.warnings = check.report.finish()?;
    Ok(config)
}

/// What every check of a table may use.
pub(super) struct Check<'e> {
    pub(super) report: Report<'e>,
    pub(super) environment: &'e dyn Environment,
    /// Whether the file itself holds a secret.
    pub(super) secrets_in_file: bool,
    /// Whether every table could be read. Only then can it be said that something is missing from one or the other.
    pub(super) whole: bool,
    directory: PathBuf,
}

impl<'e> Check<'e> {
    fn new(report: Report<'e>, source: Option<&Path>, environment: &'e dyn Environment) -> Self {
        let directory = source.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        Self {
            report,
            environment,
            secrets_in_file: false,
            whole: true,
            directory,
        }
    }

    /// A path of the file: a relative one begins at the file's own directory, wherever the daemon was started.
    pub(super) fn beside_file(&self, given: &str) -> PathBuf {
        self.directory.join(given)
    }

    /// Refuses a table's name that could not stand in a metric's label or an account's record.
    pub(super) fn require_name(&mut self, section: &str, place: Place, name: &str) {
        let usable = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(usable) {
            let message =
                format!("a name is 1 to {NAME_BYTES_MAX} lower-case letters, digits, hyphens and underscores");
            self.report.refuse(place, section, message);
        }
    }
}

/// Bytes of a provider's or a certificate's name.
const NAME_BYTES_MAX: usize = 64;
