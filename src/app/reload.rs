//! Reloading: the configuration on SIGHUP, certificates then and whenever their files change.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{App, admission_limits, fit_descriptors};
use crate::config::{self, Config, ProcessEnvironment};

impl App {
    /// Reads the configuration and the certificates again. A bad configuration is refused and the old one stays.
    pub(super) async fn reload(&mut self) {
        let source = self.services.config().source.clone();
        let read = tokio::task::spawn_blocking(move || config::load(source.as_deref(), &ProcessEnvironment)).await;
        let new = match read {
            Ok(Ok(new)) => new,
            Ok(Err(refused)) => return error!("the new configuration is refused, the old one stays:\n{refused}"),
            Err(panicked) => return error!(%panicked, "the configuration could not be read, the old one stays"),
        };
        for warning in &new.warnings {
            warn!("{warning}");
        }
        let old = self.services.config();
        let new = Arc::new(fit_descriptors(keep_what_needs_a_restart(&old, new)));
        self.admission.change_limits(admission_limits(&new));
        self.services.trust.reload();
        self.config.send_replace(new);
        for certificates in &self.certificates {
            let certificates = certificates.clone();
            report(tokio::task::spawn_blocking(move || certificates.reload().map(|()| true)).await);
        }
        info!("configuration reloaded");
    }

    /// Reads certificates whose files have changed.
    pub(super) async fn refresh_certificates(&self) {
        for certificates in &self.certificates {
            let certificates = certificates.clone();
            report(tokio::task::spawn_blocking(move || certificates.reload_if_changed()).await);
        }
    }
}

/// What was bound or opened at the start stays as it is; a change to it is named.
fn keep_what_needs_a_restart(old: &Config, mut new: Config) -> Config {
    let (was, is) = (old.to_table(), new.to_table());
    for table in [
        "server",
        "admin",
        "metrics",
        "log",
        "secrets",
        "listener",
        "certificate",
    ] {
        if was.get(table) != is.get(table) {
            warn!("[{table}] has changed; it takes effect at the next start");
        }
    }
    new.server = old.server.clone();
    new.admin = old.admin.clone();
    new.metrics_listen = old.metrics_listen;
    new.log = old.log.clone();
    new.secrets = old.secrets.clone();
    new.listeners.clone_from(&old.listeners);
    new.certificates.clone_from(&old.certificates);
    new
}

fn report<E: std::fmt::Display>(reloaded: Result<Result<bool, E>, tokio::task::JoinError>) {
    match reloaded {
        Ok(Ok(true)) => info!("certificates read again"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => error!(%error, "certificates could not be read, the old ones stay"),
        Err(error) => error!(%error, "certificates could not be read, the old ones stay"),
    }
}
