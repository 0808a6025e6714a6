//! A secret `x` in its three forms: `x` in the file, `x_file` beside it, `x_env` in the environment (INTERFACE §3).

use std::path::{Path, PathBuf};

use super::environment;
use super::load::Check;
use super::raw::{Key, Secret};
use super::report::{Place, place, text};
use crate::limits::SECRET_FILE_BYTES_MAX;
use crate::secret::{ExposeSecret as _, Maker, SecretString, oddity, without_line_end};

/// The three forms in which one secret may be given.
pub(super) struct Forms<'r> {
    /// The table, for messages.
    pub(super) section: &'r str,
    /// The secret's name: `x`.
    pub(super) name: &'r str,
    /// `x`
    pub(super) value: &'r Key<Secret>,
    /// `x_file`
    pub(super) file: &'r Key<String>,
    /// `x_env`
    pub(super) variable: &'r Key<String>,
    /// Who made it up, which tells what it cannot hold.
    pub(super) made_by: Maker,
}

/// The secret, if one of its forms is given.
pub(super) fn resolve(check: &mut Check<'_>, forms: &Forms<'_>) -> Option<SecretString> {
    let inline = forms
        .value
        .as_ref()
        .map(|secret| &secret.get_ref().0)
        .filter(|secret| !is_empty(secret));
    let (file, variable) = (text(forms.file), text(forms.variable));
    let given = usize::from(inline.is_some()) + usize::from(file.is_some()) + usize::from(variable.is_some());
    if given > 1 {
        let name = forms.name;
        let last = place(forms.variable).or_else(|| place(forms.file));
        let message = format!("is given more than once; use one of {name}, {name}_file and {name}_env");
        check.report.refuse(last, forms.key(""), message);
        return None;
    }
    if let Some(file) = file {
        return from_file(check, forms, file);
    }
    if let Some(variable) = variable {
        return from_variable(check, forms, variable);
    }
    let secret = inline?;
    check.secrets_in_file = true;
    accept(
        check,
        forms,
        forms.key(""),
        place(forms.value),
        crate::secret::duplicate(secret),
    )
}

/// The path that `x_file` names: one without a slash is a credential that the service manager hands over
/// (systemd.exec(5), `LoadCredential=`), any other is taken from the configuration file's own directory.
pub(super) fn path(check: &mut Check<'_>, key: &str, at: Place, given: &str) -> Option<PathBuf> {
    if given.contains('/') {
        return Some(check.beside_file(given));
    }
    let directory = environment::path(check.environment, "CREDENTIALS_DIRECTORY");
    if directory.is_none() {
        let message = "a name without a slash is looked up in $CREDENTIALS_DIRECTORY, which is not set; \
                       write ./NAME for a file beside the configuration";
        check.report.refuse(at, key, message);
    }
    directory.map(|directory| directory.join(given))
}

impl Forms<'_> {
    /// The full name of one form: `admin.root_token` with `""`, `admin.root_token_file` with `"_file"`.
    fn key(&self, form: &str) -> String {
        format!("{}.{}{form}", self.section, self.name)
    }
}

fn from_file(check: &mut Check<'_>, forms: &Forms<'_>, given: &str) -> Option<SecretString> {
    let (key, at) = (forms.key("_file"), place(forms.file));
    let path = path(check, &key, at.clone(), given)?;
    let content = match check.environment.read(&path, SECRET_FILE_BYTES_MAX) {
        Ok(content) => content,
        Err(error) => {
            check
                .report
                .refuse(at, key, format!("cannot read {}: {error}", path.display()));
            return None;
        }
    };
    warn_if_public(check, &path, content.mode);
    match String::from_utf8(content.bytes) {
        Ok(text) => usable(check, forms, key, at, text.into(), "the file"),
        Err(_) => {
            check
                .report
                .refuse(at, key, format!("{} is not UTF-8 text", path.display()));
            None
        }
    }
}

fn from_variable(check: &mut Check<'_>, forms: &Forms<'_>, given: &str) -> Option<SecretString> {
    let (key, at) = (forms.key("_env"), place(forms.variable));
    match check.environment.variable(given).map(std::ffi::OsString::into_string) {
        Some(Ok(text)) => usable(check, forms, key, at, text.into(), "the environment variable"),
        Some(Err(_)) => {
            check
                .report
                .refuse(at, key, "the environment variable is not UTF-8 text");
            None
        }
        None => {
            check
                .report
                .refuse(at, key, "names an environment variable that is not set");
            None
        }
    }
}

/// The secret without the one line end that editors and `echo` put after it, unless nothing remains.
fn usable(
    check: &mut Check<'_>,
    forms: &Forms<'_>,
    key: String,
    at: Place,
    text: SecretString,
    origin: &str,
) -> Option<SecretString> {
    let trimmed = without_line_end(text.expose_secret());
    if trimmed.is_empty() {
        check.report.refuse(at, key, format!("{origin} is empty"));
        return None;
    }
    accept(check, forms, key, at, trimmed.to_owned().into())
}

/// The secret, if nothing about it tells that more than the secret was copied.
fn accept(
    check: &mut Check<'_>,
    forms: &Forms<'_>,
    key: String,
    at: Place,
    secret: SecretString,
) -> Option<SecretString> {
    if let Some(oddity) = oddity(secret.expose_secret(), forms.made_by) {
        check.report.refuse(at, key, oddity);
        return None;
    }
    Some(secret)
}

/// Warns of a secret that every user of the machine can read. A group may be meant: `root:portreeve 0640` is common.
pub(super) fn warn_if_public(check: &mut Check<'_>, path: &Path, mode: u32) {
    if mode & MODE_OTHERS_READ != 0 {
        let warning = format!(
            "{} holds a secret and every user can read it; chmod o-rwx it",
            path.display()
        );
        check.report.warn(warning);
    }
}

/// Whether nothing was given: as everywhere in the file, an empty string is no value.
pub(super) fn is_empty(secret: &SecretString) -> bool {
    secret.expose_secret().is_empty()
}

/// `S_IROTH`
const MODE_OTHERS_READ: u32 = 0o004;
