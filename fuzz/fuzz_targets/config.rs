//! Any bytes as a configuration file: read or refused, never a panic; and what was read is shown so that it reads back.

#![no_main]

use std::ffi::OsString;
use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use portreeve::config::{self, Environment, FileContent};

/// A machine on which the configuration is the only file.
struct Bare<'a>(&'a [u8]);

impl Environment for Bare<'_> {
    fn variable(&self, _name: &str) -> Option<OsString> {
        None
    }

    fn is_root(&self) -> bool {
        true
    }

    fn hostname(&self) -> String {
        "fuzz".to_owned()
    }

    fn read(&self, path: &Path, _bytes_max: u64) -> io::Result<FileContent> {
        if path != Path::new("/portreeve.toml") {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(FileContent {
            bytes: self.0.to_vec(),
            mode: 0o600,
        })
    }
}

fuzz_target!(|bytes: &[u8]| {
    let machine = Bare(bytes);
    match config::load(Some(Path::new("/portreeve.toml")), &machine) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            // A token and a key are checked for their form, which `[redacted]` does not have.
            if config.admin.root_token.is_none() && config.secrets.master_key.is_none() {
                let shown = config.to_toml();
                let again = config::parse(None, &shown, &machine).expect("what is shown can be read");
                assert_eq!(again.to_toml(), shown);
            }
        }
    }
});
