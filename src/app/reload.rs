//! Reloading: the configuration on SIGHUP, and what is read anew then.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::{App, Machine, admission_limits, fit_descriptors, master_key, providers};
use crate::config::{self, Config};
use crate::secret::{ExposeSecret, SecretString};
use crate::store::seal::Sealer;

impl App {
    /// Reads the configuration and the certificates again. A bad configuration is refused and the old one stays.
    pub(super) async fn reload(&mut self) {
        let old = self.services.config();
        let running = old.clone();
        let read = tokio::task::spawn_blocking(move || {
            config::reload(running.source.as_deref(), &Machine::DAEMON, &running.listeners)
        });
        let read = read.await;
        let new = match read {
            Ok(Ok(new)) => new,
            Ok(Err(refused)) => return error!("the new configuration is refused, the old one stays:\n{refused}"),
            Err(panicked) => return error!(%panicked, "the configuration could not be read, the old one stays"),
        };
        if let Some(problem) = self.key_problem(&old, &new).await {
            return error!("the new configuration is refused, the old one stays:\n{problem}");
        }
        match providers::vanished(&self.services.store, &old, &new).await {
            Ok(None) => {}
            Ok(Some(vanished)) => return error!("the new configuration is refused, the old one stays: {vanished}"),
            Err(error) => return error!(%error, "the accounts cannot be read, the old configuration stays"),
        }
        for warning in &new.warnings {
            warn!("{warning}");
        }
        let kept = keep_what_needs_a_restart(&old, &new);
        for key in what_differs(&kept, &new) {
            warn!("{key} has changed; it takes effect at the next start");
        }
        let new = Arc::new(fit_descriptors(kept));
        self.admission.change_limits(admission_limits(&new));
        self.services.trust.reload();
        self.config.send_replace(new.clone());
        self.certificates.reload(new).await;
        info!("configuration reloaded");
    }
}

impl App {
    /// Why the next start would refuse the master key of `new`: there are accounts, and another key sealed their secrets.
    async fn key_problem(&self, old: &Config, new: &Config) -> Option<String> {
        let store = &self.services.store;
        let counts = store.account_states().await.ok()?;
        let is_elsewhere = old.server.state_dir != new.server.state_dir;
        if is_elsewhere || counts.iter().all(|(_, count)| *count == 0) {
            return None;
        }
        let (source, state_dir) = (master_key(new), new.server.state_dir.clone());
        let read = tokio::task::spawn_blocking(move || source.read(&state_dir)).await;
        match read.ok()? {
            Err(error) => Some(format!("secrets: {error}")),
            Ok(key) if Sealer::new(&key).derive_key(COMPARED) == store.derive_key(COMPARED) => None,
            Ok(_) => Some(
                "secrets: the master key is not the one that sealed the account secrets in this store, so that the next start \
                 would refuse it"
                    .to_owned(),
            ),
        }
    }
}

/// The purpose of the keys by which it is told whether two master keys are the same.
const COMPARED: &str = "comparison of master keys";

/// `new`, but with all that was bound, opened or set up at the start as it is in `old`.
fn keep_what_needs_a_restart(old: &Config, new: &Config) -> Config {
    let mut kept = new.clone();
    kept.server.state_dir.clone_from(&old.server.state_dir);
    kept.server.worker_threads = old.server.worker_threads;
    kept.secrets = old.secrets.clone();
    kept.admin.socket.clone_from(&old.admin.socket);
    kept.admin.socket_mode = old.admin.socket_mode;
    kept.admin.listen.clone_from(&old.admin.listen);
    kept.metrics_listen = old.metrics_listen;
    kept.log = old.log.clone();
    kept.listeners.clone_from(&old.listeners);
    kept.web = old.web.clone();
    kept.certificates.clone_from(&old.certificates);
    kept
}

/// The keys in which the two differ, as `table.key`, or `listener` as a whole.
fn what_differs(kept: &Config, new: &Config) -> Vec<String> {
    let (kept_table, new_table) = (kept.to_table(), new.to_table());
    let mut keys = Vec::new();
    for (name, table) in &new_table {
        differing_keys(name, kept_table.get(name), Some(table), &mut keys);
    }
    for (name, table) in &kept_table {
        if !new_table.contains_key(name) {
            differing_keys(name, Some(table), None, &mut keys);
        }
    }
    // A table shows that there is a secret, never which.
    let both_given = kept.secrets.master_key.is_some() && new.secrets.master_key.is_some();
    if both_given && exposed(kept.secrets.master_key.as_ref()) != exposed(new.secrets.master_key.as_ref()) {
        keys.push("secrets.master_key".to_owned());
    }
    keys.sort();
    keys
}

/// Collects the keys of one table whose values differ; the table's own name, where one of the two is no table.
fn differing_keys(name: &str, one: Option<&toml::Value>, other: Option<&toml::Value>, keys: &mut Vec<String>) {
    if one == other {
        return;
    }
    let (Some(toml::Value::Table(one)), Some(toml::Value::Table(other))) = (one, other) else {
        return keys.push(name.to_owned());
    };
    let mut inside: Vec<&String> = one.keys().chain(other.keys()).collect();
    inside.sort();
    inside.dedup();
    let differing = inside.into_iter().filter(|key| one.get(*key) != other.get(*key));
    keys.extend(differing.map(|key| format!("{name}.{key}")));
}

fn exposed(secret: Option<&SecretString>) -> Option<&str> {
    secret.map(ExposeSecret::expose_secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessEnvironment;

    fn config(text: &str) -> Config {
        config::parse(None, text, &ProcessEnvironment).unwrap()
    }

    #[test]
    fn what_nothing_is_bound_to_takes_effect_without_a_word() {
        let with = |root_token: &str, rest: &str| config(&format!("[admin]\nroot_token = \"{root_token}\"\n{rest}"));
        let (old_token, new_token) = ("1".repeat(64), "2".repeat(64));
        let old = with(&old_token, "[server]\ndrain_timeout = \"1s\"\n");
        let new = with(
            &new_token,
            "[server]\ndrain_timeout = \"7s\"\nhostname = \"other.example\"\n\
             [store]\nusage_events_max = 7\n[limits]\nbad_commands_max = 7\n",
        );
        let kept = keep_what_needs_a_restart(&old, &new);
        assert_eq!(exposed(kept.admin.root_token.as_ref()), Some(new_token.as_str()));
        assert_eq!(kept.server.drain_timeout.as_secs(), 7);
        assert_eq!(kept.server.hostname, "other.example");
        assert_eq!(what_differs(&kept, &new), Vec::<String>::new());
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let key = |letter: &str| format!("[secrets]\nmaster_key = \"{}=\"\n", letter.repeat(43));
        let old = config(&key("A"));
        let new = config(&format!(
            "{}[server]\nstate_dir = \"/elsewhere\"\n[admin]\nsocket = \"/elsewhere.sock\"\n[log]\nlevel = \"debug\"\n\
             [metrics]\nlisten = \"\"\n[[listener]]\nprotocol = \"imap\"\naddress = \"127.0.0.1:9\"\n\
             [web]\nlisten = \"127.0.0.1:10\"\npublic_url = \"http://localhost:10\"\ncertificate = \"\"\n",
            key("E"),
        ));
        let kept = keep_what_needs_a_restart(&old, &new);
        assert_eq!(kept.server.state_dir, old.server.state_dir);
        assert_eq!(
            what_differs(&kept, &new),
            [
                "admin.socket",
                "listener",
                "log.level",
                "metrics.listen",
                "secrets.master_key",
                "server.state_dir",
                "web.certificate",
                "web.listen",
                "web.public_url",
            ]
        );
    }

    #[test]
    fn scopes_follow_the_listeners_that_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let write = |client_id: &str, protocols: &[&str]| {
            let mut text = format!("[provider.microsoft]\nclient_id = \"{client_id}\"\n");
            for protocol in protocols {
                text += &format!("[[listener]]\nprotocol = \"{protocol}\"\n");
            }
            std::fs::write(&path, text).unwrap();
        };
        let app = |config: &Config| {
            let app = config.providers["microsoft"].oauth.clone().unwrap();
            (app.client_id, app.scopes, app.refresh_scopes)
        };
        write("old", &["imap"]);
        let old = config::load(Some(&path), &ProcessEnvironment).unwrap();
        let (_, for_imap, _) = app(&old);
        write("new", &["imap", "smtp"]);
        let new = config::reload(Some(&path), &ProcessEnvironment, &old.listeners).unwrap();
        let kept = keep_what_needs_a_restart(&old, &new);
        assert_eq!(app(&kept), ("new".to_owned(), for_imap.clone(), for_imap.clone()));
        assert_eq!(what_differs(&kept, &new), ["listener"]);
        let (_, after_restart, _) = app(&config::load(Some(&path), &ProcessEnvironment).unwrap());
        assert!(after_restart.len() > for_imap.len(), "{after_restart:?}");
    }
}
