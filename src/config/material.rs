//! What a configuration names besides itself: files and programs, each of which must be there and be what it is named for.
//!
//! To read a certificate, a key or the store's master key takes rooms above this one. So a check hands what was named to its
//! [`Environment`](super::Environment), which looks at it and says what is wrong; the check knows file, line and key.

use std::path::Path;

use super::load::Check;
use super::report::Place;

/// One thing that a configuration names.
#[derive(Debug, Clone, Copy)]
pub enum Material<'a> {
    /// A PEM chain, leaf first.
    Chain(&'a Path),
    /// The unencrypted PEM key of a chain.
    Key(&'a Path),
    /// A chain and a key, each good by itself, which must belong together.
    Pair {
        /// The chain.
        cert_file: &'a Path,
        /// The key.
        key_file: &'a Path,
    },
    /// PEM trust anchors.
    Anchors(&'a Path),
    /// The key that an OAuth app signs its assertions with.
    AppKey(&'a Path),
    /// Google's JSON key of a service account.
    ServiceAccount(&'a Path),
    /// The store's master key.
    MasterKey(&'a Path),
    /// The master key that is made in a state directory at the first start, and so need not be there yet.
    GeneratedKey {
        /// The state directory.
        state_dir: &'a Path,
    },
    /// The state directory, which need not be there yet.
    StateDirectory(&'a Path),
    /// A program: a path where it has a slash, else a name to be looked for.
    Program {
        /// Its path or name.
        program: &'a str,
        /// The `PATH` to look in, where it is not the daemon's own.
        search: Option<&'a str>,
    },
}

impl Check<'_> {
    /// Has `material`, which is named by `key`, looked at; whether it is as it should be. What is wrong is noted.
    pub(super) fn examine(&mut self, key: &str, at: Place, material: &Material<'_>) -> bool {
        match self.environment.examine(material) {
            Ok(()) => true,
            Err(problem) => {
                self.report.refuse(at, key, problem);
                false
            }
        }
    }

    /// Has a chain and its key looked at: each by itself, so that both are told of, and then whether they belong together.
    pub(super) fn examine_pair(&mut self, chain: (&str, Place, &Path), key: (&str, Place, &Path)) {
        let (chain_key, chain_at, cert_file) = chain;
        let (key_key, key_at, key_file) = key;
        let chain_is_good = self.examine(chain_key, chain_at, &Material::Chain(cert_file));
        let key_is_good = self.examine(key_key, key_at.clone(), &Material::Key(key_file));
        if chain_is_good && key_is_good {
            self.examine(key_key, key_at, &Material::Pair { cert_file, key_file });
        }
    }
}
