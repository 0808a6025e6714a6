//! TLS towards upstreams: one set-up for each set of trust anchors, shared by all sessions, so that handshakes resume.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::config::Provider;
use crate::net::tls::{SystemRoots, TlsSetupError, UpstreamTls};

/// The TLS set-ups in use, by the provider's `ca_file`.
pub struct Trust {
    system: SystemRoots,
    by_ca_file: Mutex<HashMap<Option<PathBuf>, UpstreamTls>>,
}

impl Trust {
    /// Trust in the system's anchors; those of providers are read when they are first needed.
    pub fn new(system: SystemRoots) -> Self {
        Self {
            system,
            by_ca_file: Mutex::default(),
        }
    }

    /// What to shake hands with `provider`'s upstreams with.
    ///
    /// # Errors
    /// If its `ca_file` cannot be read or holds no certificate.
    pub(super) fn towards(&self, provider: &Provider) -> Result<UpstreamTls, TlsSetupError> {
        let mut by_ca_file = self.by_ca_file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = by_ca_file.get(&provider.ca_file) {
            return Ok(tls.clone());
        }
        let tls = UpstreamTls::new(&self.system, provider.ca_file.as_deref())?;
        by_ca_file.insert(provider.ca_file.clone(), tls.clone());
        Ok(tls)
    }

    /// Forgets what was read, so that changed files count from now on.
    pub fn reload(&self) {
        self.by_ca_file.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
