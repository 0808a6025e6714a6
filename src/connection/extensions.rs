//! What upstreams said they can do, remembered for the clients who come next (SMTP; see [`crate::proto::smtp::extensions`]).
//!
//! A client asks what it may do before anybody knows which account it will log in to. So it is told what the listener's
//! provider honours, or what all providers share that it could be led to. Each login on a provider's own endpoint, a client's
//! or that of `account verify`, brings that provider's set up to date; an account's own endpoint is nobody else's, teaches
//! nothing and is not counted.
//!
//! Of a provider that was not contacted since the start, or since its endpoint was changed, nothing is promised: whatever
//! EHLO line one could think of, there are servers that do not honour it. A provider that is always there (icloud) counts from
//! its first contact on, since it would silence all others where nobody uses it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tracing::debug;

use crate::account::UpstreamTarget;
use crate::config::{Config, Endpoint, Provider};
use crate::proto::smtp::extensions::Extensions;

/// What providers' upstreams are known to honour. Gone with the process: the first login on each provider brings it back.
#[derive(Debug, Default)]
pub(super) struct KnownExtensions {
    known: Mutex<Known>,
}

/// The lock around it is held for a look-up; after a change, once for as long as it takes to compare the sets.
#[derive(Debug, Default)]
struct Known {
    /// By the provider's name; one for each provider of the configurations there have been.
    by_provider: HashMap<String, Learned>,
    /// What all providers share, and of which configuration.
    shared: Option<(Weak<Config>, Arc<[String]>)>,
}

#[derive(Debug)]
struct Learned {
    /// Who said it.
    endpoint: Endpoint,
    extensions: Extensions,
    lines: Arc<[String]>,
}

impl KnownExtensions {
    /// An upstream said what it can do, as it was logged in on for `target`.
    pub(super) fn learn(&self, target: &UpstreamTarget, lines: &[String]) {
        let (provider, endpoint) = (&target.provider, &target.endpoint);
        if provider.smtp.as_ref() != Some(endpoint) {
            return;
        }
        let extensions = Extensions::parse(lines);
        let mut known = self.lock();
        if known
            .of(provider)
            .is_some_and(|learned| learned.extensions == extensions)
        {
            return;
        }
        let lines: Arc<[String]> = extensions.lines().into();
        debug!(
            provider = provider.name,
            extensions = lines.join(", "),
            "learned what the upstream can do"
        );
        let learned = Learned {
            endpoint: endpoint.clone(),
            extensions,
            lines,
        };
        known.by_provider.insert(provider.name.clone(), learned);
        known.shared = None;
    }

    /// The lines for EHLO on a listener that is for `provider`, or for all of the configuration's.
    pub(super) fn promised(&self, config: &Arc<Config>, provider: Option<&str>) -> Arc<[String]> {
        let mut known = self.lock();
        if let Some(name) = provider {
            let learned = config.providers.get(name).and_then(|provider| known.of(provider));
            return learned.map(|learned| learned.lines.clone()).unwrap_or_default();
        }
        if let Some((of, lines)) = &known.shared
            && Weak::as_ptr(of) == Arc::as_ptr(config)
        {
            return lines.clone();
        }
        let lines = known.shared_by(config);
        // The weak reference keeps the address from being another configuration's.
        known.shared = Some((Arc::downgrade(config), lines.clone()));
        lines
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // What is known is whole after every operation, so a panic elsewhere while it was held does no harm here.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What was learned of the provider's endpoint as it is configured.
    fn of(&self, provider: &Provider) -> Option<&Learned> {
        let learned = self.by_provider.get(&provider.name)?;
        (provider.smtp.as_ref() == Some(&learned.endpoint)).then_some(learned)
    }

    fn shared_by(&self, config: &Config) -> Arc<[String]> {
        let nothing = Extensions::default();
        let with_smtp = config.providers.values().filter(|provider| provider.smtp.is_some());
        let upstreams = with_smtp.filter_map(|provider| match self.of(provider) {
            Some(learned) => Some(&learned.extensions),
            None => (!provider.is_always_there()).then_some(&nothing),
        });
        Extensions::shared(upstreams).lines().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, ProcessEnvironment};
    use crate::proto::{Credential, CredentialSecret};

    const BOTH: &str = r#"
        [provider.one]
        smtp = { host = "one.example.com", port = 587, tls = "starttls" }
        [provider.two]
        smtp = { host = "two.example.com", port = 587, tls = "starttls" }
        [provider.reader]
        imap = { host = "three.example.com", port = 993, tls = "implicit" }
    "#;

    fn config(text: &str) -> Arc<Config> {
        Arc::new(config::parse(None, text, &ProcessEnvironment).unwrap())
    }

    /// What is presented at the provider's own endpoint.
    fn target(config: &Config, provider: &str) -> UpstreamTarget {
        let provider = config.providers[provider].clone();
        UpstreamTarget {
            credential: Credential {
                user: "joe@example.com".to_owned(),
                secret: CredentialSecret::Password("5ecret".to_owned().into()),
            },
            endpoint: provider.smtp.clone().unwrap(),
            provider,
            grant: 0,
        }
    }

    fn learn(known: &KnownExtensions, target: &UpstreamTarget, lines: &[&str]) {
        let lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
        known.learn(target, &lines);
    }

    #[test]
    fn nothing_is_promised_before_every_configured_provider_was_contacted() {
        let (known, config) = (KnownExtensions::default(), config(BOTH));
        assert!(known.promised(&config, None).is_empty());
        learn(
            &known,
            &target(&config, "one"),
            &["SIZE 2000", "8BITMIME", "DSN", "STARTTLS"],
        );
        assert!(known.promised(&config, None).is_empty(), "the other was not contacted");
        learn(&known, &target(&config, "two"), &["DSN", "SIZE 1000"]);
        assert_eq!(*known.promised(&config, None), ["SIZE 1000", "DSN"]);
        learn(&known, &target(&config, "two"), &["8BITMIME"]);
        assert_eq!(*known.promised(&config, None), ["8BITMIME"], "the latest counts");
    }

    #[test]
    fn a_listener_with_a_provider_promises_what_that_one_honours() {
        let (known, config) = (KnownExtensions::default(), config(BOTH));
        learn(&known, &target(&config, "one"), &["8BITMIME"]);
        assert_eq!(*known.promised(&config, Some("one")), ["8BITMIME"]);
        assert!(known.promised(&config, Some("two")).is_empty());
        assert!(known.promised(&config, Some("gone")).is_empty());
    }

    #[test]
    fn what_is_shared_is_computed_once() {
        let (known, config) = (KnownExtensions::default(), config(BOTH));
        for provider in ["one", "two"] {
            learn(&known, &target(&config, provider), &["8BITMIME"]);
        }
        let first = known.promised(&config, None);
        learn(&known, &target(&config, "two"), &["8BITMIME", "X-NEW"]);
        assert!(Arc::ptr_eq(&first, &known.promised(&config, None)));
    }

    #[test]
    fn an_accounts_own_endpoint_teaches_nothing() {
        let (known, config) = (KnownExtensions::default(), config(BOTH));
        let mut own = target(&config, "one");
        own.endpoint.host = "own.example.com".to_owned();
        learn(&known, &own, &["8BITMIME"]);
        assert!(known.promised(&config, Some("one")).is_empty());
    }

    #[test]
    fn a_changed_endpoint_is_another_upstream() {
        let (known, before) = (KnownExtensions::default(), config(BOTH));
        for provider in ["one", "two"] {
            learn(&known, &target(&before, provider), &["8BITMIME"]);
        }
        assert_eq!(*known.promised(&before, None), ["8BITMIME"]);
        let after = config(&BOTH.replace("two.example.com", "new.example.com"));
        assert!(known.promised(&after, None).is_empty());
        assert_eq!(*known.promised(&after, Some("one")), ["8BITMIME"]);
        learn(&known, &target(&after, "two"), &["8BITMIME"]);
        assert_eq!(*known.promised(&after, None), ["8BITMIME"]);
    }

    #[test]
    fn a_provider_that_nobody_configured_counts_from_its_first_contact_on() {
        let known = KnownExtensions::default();
        let config = config("[provider.one]\nsmtp = { host = \"one.example.com\", port = 587, tls = \"starttls\" }\n");
        learn(&known, &target(&config, "one"), &["8BITMIME", "DSN"]);
        assert_eq!(*known.promised(&config, None), ["8BITMIME", "DSN"]);
        learn(&known, &target(&config, "icloud"), &["8BITMIME"]);
        assert_eq!(*known.promised(&config, None), ["8BITMIME"]);
    }
}
