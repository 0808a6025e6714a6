//! Programs of the administrator's that the daemon starts: a command's words, and what its environment holds.
//!
//! The daemon's own environment may hold secrets that are nobody else's business, so that a program gets little of it:
//! `PATH`, `HOME` and `LANG`, and the [`Variables`] that its table names (`crate::process`).

use std::collections::BTreeMap;
use std::fmt;

use super::load::Check;
use super::material::Material;
use super::raw::{Key, Value};
use super::report::{place, quoted};
use crate::limits::{ENV_BYTES_MAX, ENV_VARIABLES_MAX};
use crate::secret::{ExposeSecret as _, SecretString, duplicate};

/// Environment variables for a program, by name. Their values never print: many of them are secrets.
#[derive(Clone, Default)]
pub struct Variables(BTreeMap<String, SecretString>);

impl Variables {
    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.0.iter();
        all.map(|(name, value)| (name.as_str(), value.expose_secret()))
    }

    /// The `PATH` that is given, if one is.
    pub(super) fn search(&self) -> Option<&str> {
        self.0.get("PATH").map(|path| path.expose_secret())
    }

    /// As the file would say it, with `[redacted]` for what may be a secret; `None` where there is nothing to say.
    pub(super) fn to_raw(&self) -> Option<BTreeMap<String, Value>> {
        let shown = |(name, value): (&str, &str)| {
            let value = match is_plain(name) {
                true => Value::Shown(value.to_owned()),
                false => Value::redacted(),
            };
            (name.to_owned(), value)
        };
        (!self.0.is_empty()).then(|| self.iter().map(shown).collect())
    }
}

impl FromIterator<(String, SecretString)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, SecretString)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Check<'_> {
    /// A program and its arguments, none where it is refused. A program with a slash in its name is a path of the file; any
    /// other is looked for in the `PATH` that it will have.
    pub(super) fn command(&mut self, key: &str, given: &Key<Vec<String>>, env: &Variables) -> Vec<String> {
        let mut command = given.as_ref().map(|given| given.get_ref().clone()).unwrap_or_default();
        let Some(program) = command.first_mut() else {
            return command;
        };
        if program.contains('/') {
            *program = self.beside_file(program).display().to_string();
        }
        let message = match program.as_str() {
            "" => Some("begins with nothing; give a program and its arguments, each as a string of its own"),
            _ => {
                (command.iter().any(|word| word.contains('\0'))).then_some("holds a NUL, which no program can be given")
            }
        };
        if let Some(message) = message {
            self.report.refuse(place(given), key, message);
            return Vec::new();
        }
        if let Some(program) = command.first() {
            let search = env.search();
            self.examine(key, place(given), &Material::Program { program, search });
        }
        command
    }

    /// The variables of `key`, each by itself a name and a value that an environment can hold.
    pub(super) fn variables(&mut self, key: &str, given: &Key<BTreeMap<String, Value>>) -> Variables {
        let Some(table) = given else {
            return Variables::default();
        };
        let mut variables = BTreeMap::new();
        if table.get_ref().len() > ENV_VARIABLES_MAX {
            let message = format!("has more than {ENV_VARIABLES_MAX} variables");
            self.report.refuse(place(given), key, message);
            return Variables::default();
        }
        for (name, value) in table.get_ref() {
            let Value::Hidden(value) = value else { continue };
            let text = value.0.expose_secret();
            let message = match text {
                _ if !is_name(name) => format!(
                    "{} is no name of a variable; use letters, digits and underscores, with no digit at the beginning",
                    quoted(name)
                ),
                _ if text.contains('\0') => format!("{name} holds a NUL, which no environment can"),
                _ if text.len() > ENV_BYTES_MAX => format!("{name} has more than {ENV_BYTES_MAX} bytes"),
                _ => {
                    self.secrets_in_file |= !is_plain(name);
                    variables.insert(name.clone(), duplicate(&value.0));
                    continue;
                }
            };
            self.report.refuse(place(given), key, message);
        }
        Variables(variables)
    }
}

/// A name as POSIX has it (IEEE Std 1003.1, 3.216 Name).
fn is_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_word) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a variable is known to hold no secret, so that it may be shown.
fn is_plain(name: &str) -> bool {
    let is_known = PLAIN.contains(&name);
    is_known || name.starts_with("LC_") || name.starts_with("XDG_")
}

const PLAIN: [&str; 12] = [
    "PATH",
    "HOME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "USER",
    "LOGNAME",
    "SHELL",
    "TMPDIR",
    "GNUPGHOME",
    "PASSWORD_STORE_DIR",
    "CREDENTIALS_DIRECTORY",
];
