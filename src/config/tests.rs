//! The configuration as its reader meets it: whole files in, a [`Config`] or named problems out.

mod documentation;
mod grants;
mod listeners;
mod materials;
mod places;
mod programs;
mod providers;
mod refusals;
mod secrets;
mod web;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::secret::ExposeSecret as _;

/// An environment made of tables.
#[derive(Default)]
struct Stage {
    variables: HashMap<String, String>,
    files: HashMap<PathBuf, (String, u32)>,
    unreadable: Vec<PathBuf>,
    root: bool,
    /// What has been looked at, and of that what is not as it should be.
    examined: RefCell<Vec<String>>,
    wrong: Vec<&'static str>,
}

impl Stage {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn file(mut self, path: &str, content: &str, mode: u32) -> Self {
        self.files.insert(path.into(), (content.to_owned(), mode));
        self
    }
}

impl Environment for Stage {
    fn variable(&self, name: &str) -> Option<OsString> {
        self.variables.get(name).map(OsString::from)
    }

    fn is_root(&self) -> bool {
        self.root
    }

    fn hostname(&self) -> String {
        "mail.test".to_owned()
    }

    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<FileContent> {
        if self.unreadable.iter().any(|unreadable| unreadable == path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (text, mode) = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(FileContent {
            bytes: text.clone().into_bytes(),
            mode: *mode,
        })
    }

    fn examine(&self, material: &Material<'_>) -> Result<(), String> {
        let seen = format!("{material:?}");
        let wrong = self.wrong.iter().find(|wrong| seen.contains(**wrong));
        let problem = wrong.map(|wrong| format!("{wrong} is wrong"));
        self.examined.borrow_mut().push(seen);
        problem.map_or(Ok(()), Err)
    }
}

fn user() -> Stage {
    Stage::default().with("HOME", "/home/ada")
}

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(Some(Path::new("portreeve.toml")), text, &user())
}

/// The problems of a text, as they are printed.
fn refusal(text: &str) -> String {
    read(text).expect_err("the configuration is wrong").to_string()
}

/// The presets that need no table.
const ALWAYS_THERE: [&str; 15] = [
    "aol", "att", "comcast", "fastmail", "gmx", "gmx-com", "google", "icloud", "mailru", "other", "seznam", "webde",
    "yahoo", "yandex", "zoho",
];

const EXAMPLE: &str = include_str!("../../docs/portreeve.example.toml");

/// The example with what it leaves to its reader: the keys and tables that have a '#' right before them.
fn whole() -> String {
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(left_out) if !left_out.starts_with(' ') && !left_out.is_empty() => left_out,
        _ => line,
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The whole example without the secrets that lie in other files.
fn readable() -> String {
    whole()
        .replace(
            "client_secret_file = \"google.secret\"",
            "client_secret = \"[redacted]\"",
        )
        .replace(
            "webhook_secret_file = \"webhook.secret\"",
            "webhook_secret = \"[redacted]\"",
        )
}

proptest! {
    #[test]
    fn no_input_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn what_is_left_of_a_mutated_example_is_shown_so_that_it_reads_back(at in 0..EXAMPLE.len(), with in "[\\[\\]={}\"#.,\\n0-9a-z]{0,4}", cut in 0..40_usize) {
        let example = readable();
        let at = at.min(example.chars().count());
        let text: String = example.chars().take(at).chain(with.chars()).chain(example.chars().skip(at + cut)).collect();
        if let Ok(config) = read(&text) {
            let shown = config.to_toml();
            prop_assert_eq!(parse(None, &shown, &user()).map(|again| again.to_toml()).map_err(|e| e.to_string()), Ok(shown));
        }
    }

    #[test]
    fn any_bytes_in_the_file_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        struct Bytes(Vec<u8>);
        impl Environment for Bytes {
            fn variable(&self, _: &str) -> Option<OsString> { None }
            fn is_root(&self) -> bool { true }
            fn hostname(&self) -> String { String::new() }
            fn read(&self, _: &Path, _: u64) -> io::Result<FileContent> {
                Ok(FileContent { bytes: self.0.clone(), mode: 0o600 })
            }
        }
        let _ = load(Some(Path::new("/c")), &Bytes(bytes));
    }
}
