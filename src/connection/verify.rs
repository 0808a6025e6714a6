//! `account verify`: walks the way of a login step by step and says which step failed and what to do.

use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Services;
use super::open::{self, Leg};
use super::try_login;
use crate::account::{Place, UpstreamTarget, meaning};
use crate::clock;
use crate::config::{Config, UpstreamTls};
use crate::fault::{Fault, FaultKind};
use crate::net::dial::dial;
use crate::net::stream::Stream;
use crate::proto::{CredentialSecret, Protocol};
use crate::store::AccountRecord;

/// One step of a verification.
#[derive(Debug, Clone)]
pub struct Step {
    /// `dns`, `connect`, `tls`, `token` or `login`.
    pub name: &'static str,
    /// The protocol it concerns; the token concerns all.
    pub protocol: Option<Protocol>,
    /// How it went.
    pub result: StepResult,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What was found, in words.
    pub message: String,
}

/// How one step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepResult {
    /// As it should.
    Ok,
    /// It did not work.
    Failed,
    /// Not tried, because an earlier step failed or it does not apply.
    Skipped,
}

/// Walks DNS → TCP → TLS → token → login for `account`, as a session of each protocol would that a listener serves and the
/// account's provider, or the account itself, has an endpoint for; of every protocol with an endpoint where no listener
/// serves any of them.
///
/// What is found out counts as it does for a session: the account's state follows the upstreams' answers, and what they say
/// at EHLO is promised to clients. A protocol that nobody can log in with is left alone, for a provider grants it no token.
///
/// A protocol that fails does not stop the next. The token, which concerns all, is a step of the first that gets so far. With
/// STARTTLS the handshake is part of the login, so the step `tls` is skipped and says so.
pub async fn verify(services: &Services, account: &AccountRecord) -> Vec<Step> {
    let mut walk = Walk {
        protocol: Protocol::Imap,
        token: Token::NotTried,
        steps: Vec::new(),
        begun: clock::instant(),
    };
    let protocols = walked(&services.config(), account);
    for (index, protocol) in protocols.iter().enumerate() {
        walk.protocol = *protocol;
        let first = walk.steps.len();
        if walk.walk(services, account).await.is_none() {
            walk.skip_rest(first, index + 1 == protocols.len());
        }
    }
    walk.steps
}

/// The protocols that are walked for `account`, in their order.
pub fn walked(config: &Config, account: &AccountRecord) -> Vec<Protocol> {
    let is_served = |protocol: &Protocol| config.listeners.iter().any(|listener| listener.protocol == *protocol);
    let mut offered = vec![Protocol::Imap, Protocol::Smtp, Protocol::Pop3];
    offered.retain(|protocol| Place::find(account, config, *protocol).is_ok());
    if offered.iter().any(is_served) {
        offered.retain(is_served);
    }
    if offered.is_empty() {
        // Its failure says why there is nothing to walk.
        offered.push(Protocol::Imap);
    }
    offered
}

/// A verification under way.
struct Walk {
    protocol: Protocol,
    token: Token,
    steps: Vec<Step>,
    begun: Instant,
}

/// How the step `token` went, which is taken once for all protocols.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    NotTried,
    Good,
    Failed,
}

impl Walk {
    /// `None`: a step failed.
    async fn walk(&mut self, services: &Services, account: &AccountRecord) -> Option<()> {
        let limits = services.config().limits.clone();
        let place = match Place::find(account, &services.config(), self.protocol) {
            Ok(place) => place,
            Err(fault) => {
                self.note("dns", StepResult::Failed, fault.detail);
                return None;
            }
        };
        let (host, port) = (place.endpoint.host.clone(), place.endpoint.port);
        let resolved = resolve(&host, port, limits.upstream_connect_timeout).await;
        self.step("dns", resolved, |addresses| format!("{host} is {addresses}"))?;

        let tcp = dial(&host, port, limits.upstream_connect_timeout)
            .await
            .map_err(|error| error.to_string());
        let tcp = self.step("connect", tcp, |_| format!("connected to {host}:{port}"))?;
        let leg = Leg {
            address: tcp.peer_addr().ok(),
            stream: Stream::from(tcp),
        };
        let leg = self
            .secure(services, leg, &place, limits.upstream_connect_timeout)
            .await?;
        let target = self.token(services, account).await?;
        let login = try_login::log_in(services, self.protocol, leg, &target, limits.login_timeout).await;
        if let Err(Fault {
            kind: FaultKind::UpstreamRefused(refusal),
            ..
        }) = &login
        {
            services
                .accounts
                .report_refused(&account.account, target.grant, self.protocol, refusal);
        } else if login.is_ok() {
            services
                .accounts
                .report_accepted(&account.account, target.grant, self.protocol);
        }
        let login = login.map_err(|fault| match meaning::of_fault(self.protocol, &fault) {
            Some(meaning) => format!("{fault}; {}", meaning.text),
            None => fault.to_string(),
        });
        let logged_in = self.step("login", login, |_| format!("logged in as {}", target.credential.user))?;
        try_login::leave(logged_in.leg, self.protocol).await;
        Some(())
    }

    /// What to log in with. The step `token` is noted the first time; later it can only fail as a part of the login.
    async fn token(&mut self, services: &Services, account: &AccountRecord) -> Option<UpstreamTarget> {
        if self.token == Token::Failed {
            return None;
        }
        let target = services
            .accounts
            .credential_to_verify(&account.account, self.protocol)
            .await
            .map_err(|fault| fault.to_string());
        if self.token == Token::Good {
            return match target {
                Ok(target) => Some(target),
                Err(message) => self.step("login", Err(message), |_| String::new()),
            };
        }
        let target = self.step("token", target, |target| match target.credential.secret {
            CredentialSecret::OAuth { .. } => "an OAuth token is there and good".to_owned(),
            CredentialSecret::Password(_) => "a password is stored".to_owned(),
        });
        self.token = if target.is_some() { Token::Good } else { Token::Failed };
        target
    }

    /// Notes the steps that a protocol did not get to, of which the steps from `first` on are. The token is left to the next
    /// protocol, if there is one.
    fn skip_rest(&mut self, first: usize, is_last: bool) {
        let walked: Vec<_> = self.steps.iter().skip(first).map(|step| step.name).collect();
        for name in STEPS.into_iter().filter(|name| !walked.contains(name)) {
            if name != "token" || (is_last && self.token == Token::NotTried) {
                self.note(name, StepResult::Skipped, "an earlier step failed".to_owned());
            }
        }
    }

    /// The step `tls`: the handshake where the endpoint begins with it.
    async fn secure(&mut self, services: &Services, leg: Leg, place: &Place, limit: Duration) -> Option<Leg> {
        let why = match place.endpoint.tls {
            UpstreamTls::Implicit => {
                let host = &place.endpoint.host;
                let secured = open::secure(leg, &place.provider, host, &services.trust, limit).await;
                return self.step("tls", secured.map_err(|fault| fault.detail), |leg| {
                    leg.stream.tls_summary().unwrap_or_default()
                });
            }
            UpstreamTls::Starttls => "STARTTLS: done as a part of the login",
            UpstreamTls::Off => "off by configuration",
        };
        self.note("tls", StepResult::Skipped, why.to_owned());
        Some(leg)
    }

    /// Notes how a step went; passes on what it gave.
    fn step<T>(
        &mut self,
        name: &'static str,
        outcome: Result<T, String>,
        describe: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match outcome {
            Ok(value) => {
                let message = describe(&value);
                self.note(name, StepResult::Ok, message);
                Some(value)
            }
            Err(message) => {
                self.note(name, StepResult::Failed, message);
                None
            }
        }
    }

    fn note(&mut self, name: &'static str, result: StepResult, message: String) {
        let now = clock::instant();
        let ms = u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX);
        self.begun = now;
        let protocol = (name != "token").then_some(self.protocol);
        self.steps.push(Step {
            name,
            protocol,
            result,
            ms,
            message,
        });
    }
}

/// The addresses of `host`, in words.
async fn resolve(host: &str, port: u16, limit: Duration) -> Result<String, String> {
    match timeout(limit, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses
            .map(|address| address.ip().to_string())
            .collect::<Vec<_>>()
            .join(", ")),
        Ok(Err(error)) => Err(format!(
            "{host} cannot be resolved: {error}; check the endpoint's host name and DNS"
        )),
        Err(_) => Err(format!("no answer from DNS for {host}")),
    }
}

/// The steps in their order.
const STEPS: [&str; 5] = ["dns", "connect", "tls", "token", "login"];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;

    use super::*;
    use crate::account::tests::support::{World, account, config, password};
    use crate::config::{Endpoint, Listener, ListenerTls, PlaintextAuth, Provider};
    use crate::connection::Trust;
    use crate::net::tls::SystemRoots;
    use crate::store::{AccountState, EndpointOverride};
    use crate::usage::UsageLog;

    /// A configuration whose listeners serve `served`; its provider has IMAP alone.
    fn serving(served: &[Protocol]) -> Config {
        let mut config = config();
        let listener = |protocol: &Protocol| Listener {
            protocol: *protocol,
            addresses: vec![],
            tls: ListenerTls::Off,
            certificates: vec![],
            plaintext_auth: PlaintextAuth::Loopback,
            proxy_protocol_from: vec![],
            provider: None,
        };
        config.listeners = served.iter().map(listener).collect();
        config
    }

    #[test]
    fn protocols_are_walked_that_are_offered_and_served() {
        use Protocol::{Imap, Pop3, Smtp};
        let mut record = account("ada");
        let own = |user: Option<&str>| EndpointOverride {
            endpoint: user.is_none().then(|| Endpoint {
                host: "own.example.com".to_owned(),
                port: 1,
                tls: UpstreamTls::Implicit,
            }),
            user: user.map(str::to_owned),
        };
        record.smtp = Some(own(None));
        // A name alone makes no endpoint where the provider has none.
        record.pop3 = Some(own(Some("name")));
        assert_eq!(walked(&serving(&[Pop3, Smtp]), &record), [Smtp]);
        assert_eq!(walked(&serving(&[Imap]), &record), [Imap]);
        record.pop3 = Some(own(None));
        assert_eq!(walked(&serving(&[Pop3, Smtp, Imap]), &record), [Imap, Smtp, Pop3]);
        assert_eq!(walked(&serving(&[Pop3]), &record), [Pop3]);
        assert_eq!(walked(&serving(&[]), &record), [Imap, Smtp, Pop3], "none is served");
        record.provider = "gone".to_owned();
        assert_eq!(walked(&serving(&[Imap, Smtp]), &record), [Imap], "its failure tells");
    }

    #[test]
    fn a_protocol_that_fails_leaves_the_token_to_the_next() {
        let mut walk = Walk {
            protocol: Protocol::Imap,
            token: Token::NotTried,
            steps: Vec::new(),
            begun: clock::instant(),
        };
        walk.note("dns", StepResult::Failed, String::new());
        walk.skip_rest(0, false);
        walk.protocol = Protocol::Smtp;
        let first = walk.steps.len();
        walk.note("dns", StepResult::Ok, String::new());
        walk.note("connect", StepResult::Failed, String::new());
        walk.skip_rest(first, true);
        let names: Vec<_> = walk
            .steps
            .iter()
            .map(|step| (step.protocol, step.name, step.result))
            .collect();
        let (imap, smtp) = (Some(Protocol::Imap), Some(Protocol::Smtp));
        assert_eq!(
            names,
            [
                (imap, "dns", StepResult::Failed),
                (imap, "connect", StepResult::Skipped),
                (imap, "tls", StepResult::Skipped),
                (imap, "login", StepResult::Skipped),
                (smtp, "dns", StepResult::Ok),
                (smtp, "connect", StepResult::Failed),
                (smtp, "tls", StepResult::Skipped),
                (None, "token", StepResult::Skipped),
                (smtp, "login", StepResult::Skipped),
            ]
        );
    }

    /// An upstream in clear for one submission, which has `8BITMIME` and takes every password.
    async fn submission_upstream() -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let (reading, mut writing) = tcp.split();
            let mut lines = BufReader::new(reading).lines();
            writing.write_all(b"220 up.example.com ESMTP\r\n").await.unwrap();
            while let Ok(Some(line)) = lines.next_line().await {
                let reply = match line.split(' ').next().unwrap() {
                    "EHLO" => "250-up.example.com\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n",
                    "AUTH" => "235 2.7.0 welcome\r\n",
                    _ => "502 5.5.1 what\r\n",
                };
                writing.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            tls: UpstreamTls::Off,
        }
    }

    #[tokio::test]
    async fn what_is_served_alone_is_walked_and_what_its_upstream_can_do_is_learned() {
        let world = World::with(password("5ecret")).await;
        let mut config = serving(&[Protocol::Smtp]);
        let provider = Provider {
            smtp: Some(submission_upstream().await),
            ..Provider::clone(&config.providers["example"])
        };
        config.providers.insert("example".to_owned(), Arc::new(provider));
        world.config.send_replace(Arc::new(config));
        let services = Services::new(
            world.store.clone(),
            world.accounts.clone(),
            UsageLog::new(world.store.clone()),
            world.config.subscribe(),
            Trust::new(SystemRoots::load()),
        );
        let promised = || services.extensions.promised(&services.config(), Some("example"));
        assert!(promised().is_empty());
        let steps = verify(&services, &account("ada")).await;
        let walked: Vec<_> = steps
            .iter()
            .map(|step| (step.name, step.protocol, step.result))
            .collect();
        let smtp = Some(Protocol::Smtp);
        assert_eq!(
            walked,
            [
                ("dns", smtp, StepResult::Ok),
                ("connect", smtp, StepResult::Ok),
                ("tls", smtp, StepResult::Skipped),
                ("token", None, StepResult::Ok),
                ("login", smtp, StepResult::Ok),
            ],
            "{steps:?}"
        );
        assert_eq!(world.state().await, AccountState::Active);
        assert_eq!(*promised(), ["8BITMIME"]);
    }
}
