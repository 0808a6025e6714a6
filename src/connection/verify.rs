//! `account verify`: walks the way of a login step by step and says which step failed and what to do.
//!
//! ```text
//! for each protocol: dns → connect → tls → (token → scopes, once) → login → command
//! ```
//!
//! How it fails: a step that fails is a [`Finding`], and the steps behind it, which it leaves untried, are skipped.

mod command;
mod finding;
mod scopes;

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::Services;
use super::open::{self, Leg};
use super::try_login::{self, LoggedIn};
use crate::account::{Place, UpstreamTarget, VisitLease};
use crate::clock::{self, Timestamp};
use crate::config::{Config, Provider, UpstreamTls};
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamWords};
use crate::net::dial::dial;
use crate::net::resolve::resolve as addresses_of;
use crate::net::stream::Stream;
use crate::proto::{CredentialSecret, Protocol};
use crate::store::AccountRecord;

use finding::Finding;
use scopes::Scopes;

/// One step of a verification.
#[derive(Debug, Clone)]
pub struct Step {
    /// `dns`, `connect`, `tls`, `token`, `scopes`, `login` or `command`.
    pub name: &'static str,
    /// The protocol it concerns; the token and its scopes concern all.
    pub protocol: Option<Protocol>,
    /// How it went.
    pub result: StepResult,
    /// How long it took, in milliseconds.
    pub ms: u64,
    /// What was found, in words.
    pub message: String,
    /// What to do about it, where it failed.
    pub remedy: Option<String>,
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

/// Walks DNS → TCP → TLS → token → scopes → login → first command for `account`, as a session of each protocol would that a
/// listener serves and the account's provider, or the account itself, has an endpoint for; of every protocol with an endpoint
/// where no listener serves any of them.
///
/// What is found out counts as it does for a session: the account's state follows the upstreams' answers, and what they say
/// at EHLO is promised to clients. A protocol that nobody can log in with is left alone, for a provider grants it no token.
///
/// A protocol that fails does not stop the next. The token and its scopes, which concern all, are steps of the first that gets
/// so far. A token that an upstream refuses is replaced once, as for a session. One verification of an account is under way at a
/// time, and its logins are among those that the account may have at once. A STARTTLS is done before the token, as the step `tls`; the login goes on behind it on the same connection.
pub async fn verify(services: &Services, account: &AccountRecord) -> Vec<Step> {
    let _turn = services.verifications.begin(&account.account).await;
    let protocols = walked(&services.config(), account);
    let mut walk = Walk::new();
    for (index, protocol) in protocols.iter().enumerate() {
        walk.protocol = *protocol;
        walk.begun = clock::instant();
        let first = walk.steps.len();
        if Box::pin(walk.walk(services, account)).await.is_none() {
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
    /// When the step began that is under way.
    begun: Instant,
}

/// How the steps `token` and `scopes` went, which are taken once for all protocols.
enum Token {
    NotTried,
    Good(Scopes),
    Failed,
}

impl Walk {
    fn new() -> Self {
        Self {
            protocol: Protocol::Imap,
            token: Token::NotTried,
            steps: Vec::new(),
            begun: clock::instant(),
        }
    }

    /// `None`: a step failed.
    async fn walk(&mut self, services: &Services, account: &AccountRecord) -> Option<()> {
        let limits = services.config().limits.clone();
        let place = match Place::find(account, &services.config(), self.protocol) {
            Ok(place) => place,
            Err(fault) => return self.fail("dns", Finding::of_place(fault)),
        };
        let leg = self.connect(&place, limits.upstream_connect_timeout).await?;
        let leg = self.secure(services, account, leg, &place).await?;
        let target = self.credential(services, account, &place.provider).await?;
        let (mut logged_in, _visit) = self
            .log_in(services, account, leg, &target, limits.login_timeout)
            .await?;
        let sender = sender(account, &target.credential.user);
        let given = command::give(&mut logged_in, self.protocol, sender, limits.login_timeout).await;
        if let Err(words) = &given {
            let said = UpstreamWords::new(LoginStep::Login, None, words.clone());
            let fault = Fault::unavailable(words).for_words(said);
            let throttles = &services.throttles;
            throttles.note(&account.account, self.protocol, &fault, clock::instant());
        }
        let protocol = self.protocol;
        let given = given.map_err(|words| Finding::of_command(protocol, words));
        let given = self.step("command", given, Clone::clone).map(drop);
        try_login::leave(logged_in.leg, self.protocol).await;
        given
    }

    /// The steps `dns` and `connect`.
    async fn connect(&mut self, place: &Place, limit: Duration) -> Option<Leg> {
        let (host, port) = (&place.endpoint.host, place.endpoint.port);
        let resolved = resolve(host, port, limit).await;
        self.step("dns", resolved, |addresses| format!("{host} is {addresses}"))?;
        let tcp = dial(host, port, limit).await.map_err(|error| {
            let remedy = "Check the endpoint's host and port, and the firewalls towards it";
            Finding::new(error.to_string(), remedy)
        });
        let tcp = self.step("connect", tcp, |tcp| match tcp.peer_addr() {
            Ok(address) => format!("connected to {host}:{port} at {}", address.ip()),
            Err(_) => format!("connected to {host}:{port}"),
        })?;
        Some(Leg {
            address: tcp.peer_addr().ok(),
            stream: Stream::from(tcp),
        })
    }

    /// The step `tls`: the handshake, at once or by STARTTLS.
    async fn secure(&mut self, services: &Services, account: &AccountRecord, leg: Leg, place: &Place) -> Option<Leg> {
        let (limits, protocol) = (services.config().limits.clone(), self.protocol);
        let secured = match place.endpoint.tls {
            UpstreamTls::Implicit => {
                let (host, limit) = (&place.endpoint.host, limits.upstream_connect_timeout);
                let secured = open::secure(leg, &place.provider, host, &services.trust, limit).await;
                secured.map_err(Finding::of_tls)
            }
            UpstreamTls::Starttls => {
                let secured = try_login::upgrade(services, protocol, leg, place, limits.login_timeout).await;
                secured.map_err(|fault| {
                    // What is said in clear may be that the mailbox is to be left alone.
                    let throttles = &services.throttles;
                    throttles.note(&account.account, protocol, &fault, clock::instant());
                    Finding::of_starttls(protocol, fault)
                })
            }
            UpstreamTls::Off => {
                let why = "off by configuration".to_owned();
                self.note("tls", StepResult::Skipped, why, None);
                return Some(leg);
            }
        };
        self.step("tls", secured, |leg| {
            let (how, chain) = (leg.stream.tls_summary(), leg.stream.chain_summary());
            let parts = [how, chain].into_iter().flatten().collect::<Vec<_>>();
            parts.join("; ")
        })
    }

    /// What to log in with. The steps `token` and `scopes` are noted the first time; later a token can only fail as a part of
    /// the login.
    async fn credential(
        &mut self,
        services: &Services,
        account: &AccountRecord,
        provider: &Provider,
    ) -> Option<UpstreamTarget> {
        if matches!(self.token, Token::Failed) {
            return None;
        }
        let before = expiry(services, account).await;
        let accounts = &services.accounts;
        let target = accounts
            .credential_to_verify(&account.account, self.protocol, None)
            .await;
        let target = target.map_err(|fault| Finding::of_credential(&account.account, provider, fault));
        if let Token::Good(_) = &self.token {
            return match target {
                Ok(target) => Some(target),
                Err(finding) => self.fail("login", finding),
            };
        }
        let after = expiry(services, account).await;
        let Some(target) = self.step("token", target, |target| describe(target, before, after)) else {
            self.token = Token::Failed;
            return None;
        };
        let scopes = self.scopes(services, account, &target).await;
        self.token = Token::Good(scopes);
        Some(target)
    }

    /// The step `scopes`. It fails only when a login does for which the provider says that a scope is missing.
    async fn scopes(&mut self, services: &Services, account: &AccountRecord, target: &UpstreamTarget) -> Scopes {
        let scopes = match (&target.credential.secret, &target.provider.oauth) {
            (CredentialSecret::OAuth { .. }, Some(app)) => {
                let status = services.accounts.status(&account.account).await;
                let granted = status.ok().and_then(|status| status.scope);
                scopes::compare(&account.account, app, granted.as_deref())
            }
            _ => Scopes::None("a password has no scopes".to_owned()),
        };
        match &scopes {
            Scopes::Enough(message) => self.note("scopes", StepResult::Ok, message.clone(), None),
            Scopes::None(message) => self.note("scopes", StepResult::Skipped, message.clone(), None),
            Scopes::Missing { finding, .. } => {
                let message = format!("{}; the logins show whether it matters", finding.message);
                self.note("scopes", StepResult::Ok, message, None);
            }
        }
        scopes
    }

    /// The step `login`; what it comes to is reported to the account.
    async fn log_in(
        &mut self,
        services: &Services,
        account: &AccountRecord,
        leg: Leg,
        target: &UpstreamTarget,
        within: Duration,
    ) -> Option<(LoggedIn, VisitLease)> {
        let (id, protocol) = (&account.account, self.protocol);
        let visit = match services.accounts.open_visit(id, protocol).await {
            Ok(visit) => visit,
            Err(fault) if fault.kind == FaultKind::AccountLimit => {
                self.note(
                    "login",
                    StepResult::Skipped,
                    format!("not tried: {}", fault.detail),
                    None,
                );
                return None;
            }
            Err(fault) => return self.fail("login", Finding::of_login(protocol, &fault)),
        };
        let throttles = &services.throttles;
        let login = match throttles.check(id, protocol, clock::instant()) {
            Ok(()) => match try_login::log_in(services, protocol, leg, target, within).await {
                Err(refusal) => self.once_more(services, account, target, refusal, within).await,
                done => done,
            },
            Err(fault) => Err(fault),
        };
        match &login {
            Ok(_) => services.accounts.report_accepted(id, target.grant, protocol),
            Err(fault) => {
                throttles.note(id, protocol, fault, clock::instant());
                services.accounts.report_failed(id, Some(target.grant), protocol, fault);
                self.condemn_scopes(fault);
            }
        }
        let login = login.map_err(|fault| Finding::of_login(protocol, &fault));
        let logged_in = self.step("login", login, |_| format!("logged in as {}", target.credential.user));
        logged_in.map(|logged_in| (logged_in, visit))
    }

    /// What a session does with an OAuth token that its upstream refuses: once with a fresh one, on another connection. Where there
    /// is none, the `refusal` stays.
    async fn once_more(
        &self,
        services: &Services,
        account: &AccountRecord,
        target: &UpstreamTarget,
        refusal: Fault,
        within: Duration,
    ) -> Result<LoggedIn, Fault> {
        let refused = match (&refusal.kind, &target.credential.secret) {
            (FaultKind::UpstreamRefused(words), CredentialSecret::OAuth { generation, .. })
                if words.blames_credential =>
            {
                *generation
            }
            _ => return Err(refusal),
        };
        let (protocol, accounts) = (self.protocol, &services.accounts);
        let fresh = accounts
            .credential_to_verify(&account.account, protocol, Some(refused))
            .await;
        let Ok(fresh) = fresh else { return Err(refusal) };
        let limit = services.config().limits.upstream_connect_timeout;
        let leg = Box::pin(open::open(&fresh, protocol, &services.trust, limit)).await?;
        try_login::log_in(services, protocol, leg, &fresh, within).await
    }

    /// The provider said that a scope is missing, and the upstream that the credential is not good.
    fn condemn_scopes(&mut self, fault: &Fault) {
        let is_blamed = matches!(&fault.kind, FaultKind::UpstreamRefused(words) if words.blames_credential);
        let Token::Good(scopes) = &self.token else { return };
        let Some(finding) = scopes.want(self.protocol).filter(|_| is_blamed).cloned() else {
            return;
        };
        if let Some(step) = self.steps.iter_mut().find(|step| step.name == "scopes") {
            (step.result, step.message, step.remedy) = (StepResult::Failed, finding.message, finding.remedy);
        }
    }

    /// Notes the steps that a protocol did not get to, of which the steps from `first` on are. What concerns all protocols is
    /// left to the next, if there is one.
    fn skip_rest(&mut self, first: usize, is_last: bool) {
        let walked: Vec<_> = self.steps.iter().skip(first).map(|step| step.name).collect();
        let is_noted = |name: &str| self.steps.iter().any(|step| step.name == name);
        let of_all = SHARED.map(|name| (name, is_noted(name)));
        for name in STEPS.into_iter().filter(|name| !walked.contains(name)) {
            let shared = of_all.iter().find(|(shared, _)| *shared == name);
            let is_due = match shared {
                None => true,
                // Whoever tried the token has to say what became of the scopes.
                Some((_, is_noted)) => !is_noted && (is_last || matches!(self.token, Token::Failed)),
            };
            if is_due {
                self.begun = clock::instant();
                self.note(name, StepResult::Skipped, "an earlier step failed".to_owned(), None);
            }
        }
    }

    /// Notes how a step went; passes on what it gave.
    fn step<T>(
        &mut self,
        name: &'static str,
        outcome: Result<T, Finding>,
        describe: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match outcome {
            Ok(value) => {
                let message = describe(&value);
                self.note(name, StepResult::Ok, message, None);
                Some(value)
            }
            Err(finding) => self.fail(name, finding),
        }
    }

    fn fail<T>(&mut self, name: &'static str, finding: Finding) -> Option<T> {
        self.note(name, StepResult::Failed, finding.message, finding.remedy);
        None
    }

    fn note(&mut self, name: &'static str, result: StepResult, message: String, remedy: Option<String>) {
        let now = clock::instant();
        let ms = u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX);
        self.begun = now;
        let protocol = (!SHARED.contains(&name)).then_some(self.protocol);
        self.steps.push(Step {
            name,
            protocol,
            result,
            ms,
            message,
            remedy,
        });
    }
}

/// The address that `account` sends from: its own, else the name that it logs in with.
fn sender<'a>(account: &'a AccountRecord, user: &'a str) -> &'a str {
    account.email.as_deref().unwrap_or(user)
}

/// When the account's OAuth access token ends, as far as is known.
async fn expiry(services: &Services, account: &AccountRecord) -> Option<Timestamp> {
    let status = services.accounts.status(&account.account).await;
    status.ok().and_then(|status| status.expires)
}

/// What there is to log in with, in words; its end is known `before` it was asked for and `after`.
fn describe(target: &UpstreamTarget, before: Option<Timestamp>, after: Option<Timestamp>) -> String {
    let how = match target.credential.secret {
        CredentialSecret::Password(_) => return "a password is stored".to_owned(),
        CredentialSecret::OAuth { .. } if before == after => "the OAuth access token is still good",
        CredentialSecret::OAuth { .. } => "the OAuth access token was refreshed",
    };
    after.map_or_else(|| how.to_owned(), |end| format!("{how}, until {end}"))
}

/// The addresses of `host`, in words.
async fn resolve(host: &str, port: u16, limit: Duration) -> Result<String, Finding> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let problem = match timeout(limit, addresses_of(bare, port)).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            if !addresses.is_empty() {
                return Ok(addresses.join(", "));
            }
            format!("{host} has no address")
        }
        Ok(Err(error)) => format!("{host} cannot be resolved: {error}"),
        Err(_) => format!("no answer from DNS for {host}"),
    };
    Err(Finding::new(
        problem,
        "Check the endpoint's host name, and this machine's DNS",
    ))
}

/// The steps in their order.
const STEPS: [&str; 7] = ["dns", "connect", "tls", "token", "scopes", "login", "command"];

/// Those that concern all protocols.
const SHARED: [&str; 2] = ["token", "scopes"];

#[cfg(test)]
mod tests;
