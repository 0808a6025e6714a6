//! Provider, Dovecot and proxy in one piece, and Postfix where mail is sent: for tests of what becomes of an account.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::PATIENCE;
use super::dovecot::Dovecot;
use super::portreeve::{Endpoint, PROVIDER, Portreeve, Setup};
use super::postfix::Postfix;
use super::process::tail;
use super::programs::Door;
use super::protocol::Protocol;
use super::provider::{Provider, ProviderOptions};
use super::upstream::Security;

/// A proxy whose only provider is the testbed's, with mailboxes for any user.
pub struct Bed {
    /// The OAuth2 provider.
    pub provider: Provider,
    /// The upstream of submission, if the bed has it. It stands before Dovecot here because it asks that about logins, and
    /// therefore ends first.
    pub postfix: Option<Postfix>,
    /// The upstream of IMAP and POP3.
    pub dovecot: Dovecot,
    /// The proxy.
    pub portreeve: Portreeve,
    /// What the tokens of its accounts are for.
    pub protocols: Vec<Protocol>,
}

impl Bed {
    /// Starts them for IMAP; `toml` is added to the proxy's configuration.
    pub async fn start(options: ProviderOptions, toml: &str) -> Bed {
        let provider = Provider::start(options).await;
        let dovecot = Dovecot::start(&provider).await;
        let portreeve = Setup::default().with(toml).provider(&provider, &dovecot).start().await;
        Bed {
            provider,
            postfix: None,
            dovecot,
            portreeve,
            protocols: vec![Protocol::Imap],
        }
    }

    /// Starts them for all three protocols: submission to Postfix by STARTTLS as is its way, the others by implicit TLS, and
    /// listeners of SMTP and POP3 of every kind. The users with passwords are those who may go past the proxy.
    pub async fn start_whole(options: ProviderOptions, toml: &str, users: &[(&str, &str)]) -> Bed {
        Bed::start_whole_on(Setup::default().with(toml), options, users).await
    }

    /// The same with more of the proxy's setup chosen.
    pub async fn start_whole_on(setup: Setup, options: ProviderOptions, users: &[(&str, &str)]) -> Bed {
        let provider = Provider::start(options).await;
        let dovecot = Dovecot::start_with_passwords(&provider, users).await;
        let postfix = Postfix::start(&dovecot).await;
        let endpoints = [
            Endpoint::new(Protocol::Imap, dovecot.imaps(), Security::Implicit),
            Endpoint::new(Protocol::Smtp, postfix.submission(), Security::StartTls),
            Endpoint::new(Protocol::Pop3, dovecot.pop3s(), Security::Implicit),
        ];
        let portreeve = setup
            .listening(Protocol::Smtp)
            .listening(Protocol::Pop3)
            .provider_at(provider.endpoints(), &endpoints, &dovecot.ca_file())
            .start()
            .await;
        Bed {
            provider,
            postfix: Some(postfix),
            dovecot,
            portreeve,
            protocols: vec![Protocol::Imap, Protocol::Smtp, Protocol::Pop3],
        }
    }

    /// Adds an account that has nothing but a refresh token; returns an access token for it, for all that the bed speaks.
    pub async fn account(&self, user: &str) -> String {
        let grant = self.provider.mint(user).await;
        self.portreeve.add_account(user, &grant).await;
        self.portreeve.add_token_for(user, &self.protocols).await
    }

    /// Adds an account whose OAuth access token has this many seconds to live; returns an access token for it.
    pub async fn account_with_life(&self, user: &str, seconds: i64) -> String {
        let grant = self.provider.mint_with_life(user, seconds).await;
        let expires = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let oauth2 = json!({
            "refreshToken": grant.refresh_token,
            "accessToken": grant.access_token,
            "expires": expires.to_string(),
        });
        let body = json!({ "account": user, "provider": PROVIDER, "user": user, "oauth2": oauth2 });
        self.portreeve.post("/v1/account", &body).await;
        self.portreeve.add_token(user).await
    }

    /// Gives an account a new grant, as an administrator would.
    pub async fn authorize_again(&self, user: &str) {
        let grant = self.provider.mint(user).await;
        let body = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
        let path = format!("/v1/account/{user}");
        let (status, answer) = self.portreeve.ask(Method::PUT, &path, Some(&body)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The listeners of a protocol, in clear, with STARTTLS and with implicit TLS, for mail programs.
    pub fn doors(&self, protocol: Protocol, user: &str, token: &str) -> [Door; 3] {
        [Security::Off, Security::StartTls, Security::Implicit].map(|tls| Door {
            address: self.portreeve.door(protocol, tls),
            tls,
            ca_file: self.portreeve.ca_file(),
            user: user.to_owned(),
            password: token.to_owned(),
        })
    }

    /// The upstream of submission, which a whole bed has.
    pub fn postfix(&self) -> &Postfix {
        self.postfix.as_ref().expect("the bed is whole")
    }

    /// What the proxy and the upstreams have logged, for the message of a failure.
    pub fn log(&self) -> String {
        let postfix = self.postfix.as_ref().map(Postfix::log).unwrap_or_default();
        let logs = [
            ("portreeve", self.portreeve.log()),
            ("dovecot", self.dovecot.log()),
            ("postfix", postfix),
        ];
        logs.map(|(name, log)| format!("--- {name}\n{}\n", tail(&log))).concat()
    }

    /// The tagged answer to a login on a connection of its own, which then ends.
    pub async fn login(&self, user: &str, token: &str) -> String {
        self.portreeve.connect().await.login(user, token).await.tagged
    }

    /// Tries to log in until it succeeds; every refusal on the way must be `refusal`.
    pub async fn until_logged_in(&self, user: &str, token: &str, refusal: &str) {
        until(PATIENCE, "a login succeeds", async || {
            let reply = self.login(user, token).await;
            if reply != format!("OK {user} authenticated") {
                assert_eq!(reply, refusal, "{}", self.portreeve.log());
                return None;
            }
            Some(())
        })
        .await;
    }

    /// An account as the admin API shows it.
    pub async fn shown(&self, user: &str) -> Value {
        self.portreeve.read(&format!("/v1/account/{user}")).await
    }

    /// Waits until the account is in `state`; returns how it is shown then.
    pub async fn until_state(&self, user: &str, state: &str) -> Value {
        self.until_shown(user, PATIENCE, |shown| shown["state"] == state).await
    }

    /// Waits until the account is shown as `is_wanted` wants it.
    pub async fn until_shown(&self, user: &str, patience: Duration, is_wanted: impl Fn(&Value) -> bool) -> Value {
        until(patience, "the account is as it should be", async || {
            let shown = self.shown(user).await;
            is_wanted(&shown).then_some(shown)
        })
        .await
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        self.portreeve.metric(name, labels).await
    }

    /// Waits until the gauge of live sessions is at zero.
    pub async fn until_no_sessions(&self) {
        until(PATIENCE, "no session is left", async || {
            (self.metric("portreeve_sessions", "").await == 0.0).then_some(())
        })
        .await;
    }
}

/// Asks again and again until there is an answer.
pub async fn until<T>(patience: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

const POLL: Duration = Duration::from_millis(20);
