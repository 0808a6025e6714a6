//! TLS towards upstreams: one set-up for each set of trust anchors, shared by all sessions, so that handshakes resume.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::Provider;
use crate::fault::Fault;
use crate::net::tls::{SystemRoots, UpstreamTls};

/// The TLS set-ups in use.
pub struct Trust {
    system: SystemRoots,
    known: Mutex<Known>,
}

impl Trust {
    /// Trust in the system's anchors; those of providers are read when they are first needed.
    pub fn new(system: SystemRoots) -> Self {
        Self {
            system,
            known: Mutex::default(),
        }
    }

    /// What to shake hands with `provider`'s upstreams with. The file is read on a thread where that may take its time, so
    /// that a slow disk holds up those who need this file and nobody else.
    ///
    /// # Errors
    /// Temporary trouble, if its `ca_file` cannot be read or holds no certificate.
    pub(super) async fn towards(&self, provider: &Provider) -> Result<UpstreamTls, Fault> {
        let (generation, known) = {
            let known = self.lock();
            (known.generation, known.by_ca_file.get(&provider.ca_file).cloned())
        };
        if let Some(tls) = known {
            return Ok(tls);
        }
        let (system, ca_file) = (self.system.clone(), provider.ca_file.clone());
        let read = tokio::task::spawn_blocking(move || UpstreamTls::new(&system, ca_file.as_deref())).await;
        let tls = read.map_err(Fault::unavailable)?.map_err(Fault::unavailable)?;
        let mut known = self.lock();
        if known.generation != generation {
            // What was read may be older than the reload: good enough for this login, not for the next.
            return Ok(tls);
        }
        // Another login may have read the same file meanwhile: its set-up stays, since the sessions to resume are in it.
        Ok(known.by_ca_file.entry(provider.ca_file.clone()).or_insert(tls).clone())
    }

    /// Forgets what was read, so that changed files count from now on.
    pub fn reload(&self) {
        let mut known = self.lock();
        known.generation = known.generation.wrapping_add(1);
        known.by_ca_file.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is known is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What has been read. The lock around it is held for a look-up, never while a file is read.
#[derive(Default)]
struct Known {
    /// Counts the reloads, so that one which comes while a file is read is not undone.
    generation: u64,
    /// The set-ups in use, by the provider's `ca_file`.
    by_ca_file: HashMap<Option<PathBuf>, UpstreamTls>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ProcessEnvironment};

    fn provider(ca_file: &std::path::Path) -> std::sync::Arc<Provider> {
        let text = format!(
            "[provider.test]\nimap = {{ host = \"localhost\", port = 993, tls = \"implicit\" }}\nca_file = \"{}\"\n",
            ca_file.display()
        );
        let config = config::parse(None, &text, &ProcessEnvironment).unwrap();
        config.providers.get("test").unwrap().clone()
    }

    #[tokio::test]
    async fn a_file_is_read_once_until_the_next_reload() {
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        let trust = Trust::new(SystemRoots::load());
        let provider = provider(&ca_file);
        trust.towards(&provider).await.map(drop).unwrap_err();

        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&ca_file, key.cert.pem()).unwrap();
        trust.towards(&provider).await.map(drop).unwrap();
        std::fs::remove_file(&ca_file).unwrap();
        trust.towards(&provider).await.map(drop).unwrap();
        trust.reload();
        let fault = trust.towards(&provider).await.map(drop).unwrap_err();
        assert!(format!("{fault:?}").contains("ca.pem"), "{fault:?}");
    }
}
