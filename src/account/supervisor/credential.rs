//! The credential's side of a supervisor: who asks for it, how refreshes end, what upstreams say of it.

use ractor::RpcReplyPort;

use super::failures::{self, Whose};
use super::held::Way;
use super::{Purpose, Refreshed, Supervised, Waiter, tasks};
use crate::account::UpstreamTarget;
use crate::account::grants::Kept;
use crate::account::meaning;
use crate::account::refresh::{Action, Answer, Failure, Input};
use crate::account::target::Place;
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::oauth::{TokenError, TokenErrorKind};
use crate::proto::{CredentialSecret, Protocol};
use crate::secret::duplicate;
use crate::store::{AccountError, AccountState};

impl Supervised {
    pub(super) fn on_asked(
        &mut self,
        protocol: Protocol,
        purpose: Purpose,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
        now: Timestamp,
    ) {
        self.last_used = now;
        // A protocol that the provider lacks costs no refresh.
        if let Err(fault) = self.place(protocol) {
            return drop(reply.send(Err(fault)));
        }
        let (Purpose::Login { refused } | Purpose::Verification { refused }) = purpose;
        if self.held.way == Way::Sharing {
            return self.borrow(protocol, refused, reply);
        }
        if self.held.uses_oauth() {
            let waiter = Waiter::Login { protocol, reply };
            return self.decide(Input::Asked { waiter, refused }, now);
        }
        drop(reply.send(self.password_target(protocol, purpose)));
    }

    /// What is presented where no OAuth token is.
    fn password_target(&self, protocol: Protocol, purpose: Purpose) -> Result<UpstreamTarget, Fault> {
        let place = self.place(protocol)?;
        let is_login = matches!(purpose, Purpose::Login { .. });
        let is_refused = self.held.record.state == AccountState::NeedsAuthorization && is_login;
        match self.held.password() {
            Some(_) if is_refused => Err(self.authorization_gone()),
            Some(password) => {
                let secret = CredentialSecret::Password(duplicate(password));
                Ok(place.with_secret(secret, self.refresher.grant()))
            }
            None => Err(Fault::with_detail(
                FaultKind::AuthorizationGone,
                "the account has no credentials",
            )),
        }
    }

    pub(super) fn place(&self, protocol: Protocol) -> Result<Place, Fault> {
        if self.held.record.state == AccountState::Disabled {
            return Err(Fault::new(FaultKind::AccountDisabled));
        }
        Place::find(&self.held.record, &self.config(), protocol)
    }

    /// Lets the policy decide, and carries out what it wants.
    pub(super) fn decide(&mut self, input: Input<Waiter>, now: Timestamp) {
        for action in self.refresher.handle(input, now, rand::random()) {
            match action {
                Action::Send { grant } => self.send_refresh(grant),
                Action::Answer(waiter, answer) => self.answer(waiter, answer),
                Action::Defect(what) => {
                    let state = self.refresher.state_name();
                    tracing::error!(account = %self.held.record.account, state, "defect in the refresh policy: {what}");
                }
            }
        }
    }

    fn answer(&mut self, waiter: Waiter, answer: Answer) {
        if answer == Answer::NeedsAuthorization
            && self.held.has_tokens()
            && self.held.record.state != AccountState::NeedsAuthorization
        {
            // IMPORTANT: before the answer, whose fault carries the error.
            let now = self.clock.now();
            let error = AccountError {
                code: "no_refresh_token".to_owned(),
                message: "the access token has ended".to_owned(),
                remedy: None,
                time: now,
            };
            self.note(AccountState::NeedsAuthorization, Some(error));
        }
        // Whoever has hung up meanwhile needs no answer.
        match waiter {
            Waiter::Login { protocol, reply } => match self.held.way {
                // Another's grant took the place of its own, or a password did, while a refresh was waited for. The policy knows
                // nothing of either, so that nothing can be concluded from its answer.
                Way::Sharing => self.borrow(protocol, None, reply),
                _ if !self.held.uses_oauth() => {
                    let purpose = Purpose::Login { refused: None };
                    drop(reply.send(self.password_target(protocol, purpose)));
                }
                Way::Grant | Way::App | Way::Password => {
                    let target = self.secret(answer).and_then(|secret| {
                        let named = self.held.token_user();
                        let place = self
                            .place(protocol)?
                            .with_user_of_token(&self.held.record, protocol, named);
                        Ok(place.with_secret(secret, self.refresher.grant()))
                    });
                    drop(reply.send(target));
                }
            },
            Waiter::Sharer(reply) if self.held.has_tokens() => drop(reply.send(self.secret(answer))),
            Waiter::Sharer(reply) => drop(reply.send(Err(self.nothing_to_lend()))),
            Waiter::Keeper(reply) => drop(reply.send(())),
        }
    }

    /// What the policy's answer comes to.
    fn secret(&self, answer: Answer) -> Result<CredentialSecret, Fault> {
        match (answer, self.held.access_token()) {
            (Answer::Token, Some(token)) => Ok(CredentialSecret::OAuth {
                token: duplicate(token),
                generation: self.refresher.generation(),
            }),
            (Answer::Token, None) => Err(Fault::with_detail(FaultKind::Internal, "no token where one is usable")),
            (Answer::Unavailable, _) => Err(Fault::unavailable(self.held.last_error())),
            (Answer::AppRefused, _) => Err(Fault::with_detail(FaultKind::AppRefused, self.held.last_error())),
            (Answer::NeedsAuthorization, _) => Err(self.authorization_gone()),
            (Answer::StillRefused, _) => Err(Fault::new(FaultKind::UpstreamRefused(still_refused()))),
        }
    }

    fn authorization_gone(&self) -> Fault {
        Fault::with_detail(FaultKind::AuthorizationGone, self.held.last_error())
    }

    pub(super) fn on_refreshed(&mut self, grant: u64, result: Result<Refreshed, TokenError>, now: Timestamp) {
        self.in_flight.retain(|sent| *sent != grant);
        if grant != self.refresher.grant() {
            tracing::debug!(account = %self.held.record.account, "a refresh ended whose grant has been replaced");
            return;
        }
        match result {
            Ok(Refreshed {
                kept: Kept::AccountGone,
                ..
            }) => {
                // Whoever removed it is about to say so.
                let failure = Failure::Temporary { retry_after: None };
                self.decide(Input::Failed { grant, failure }, now);
            }
            Ok(refreshed) => {
                let Some(times) = self.held.take_grant(refreshed.grant, now) else {
                    tracing::error!(account = %self.held.record.account, "defect: a refresh brought no access token");
                    return;
                };
                tracing::debug!(account = %self.held.record.account, life = %crate::span::Span(times.life()), "OAuth token refreshed");
                self.note_refreshed();
                self.warn_of_end(now);
                // Used at once, whatever the disk says of it: the one before may be good no more.
                self.decide(Input::Succeeded { grant, times }, now);
            }
            Err(error) => {
                let (state, failure) = match error.kind {
                    // Nobody can authorize anything for an app: whoever mends it does so elsewhere, and it is tried again.
                    TokenErrorKind::Grant if self.held.way == Way::App => (AccountState::Failing, Failure::App),
                    TokenErrorKind::Grant => (AccountState::NeedsAuthorization, Failure::Grant),
                    TokenErrorKind::App => (AccountState::Failing, Failure::App),
                    TokenErrorKind::Temporary { retry_after } => {
                        (AccountState::Failing, Failure::Temporary { retry_after })
                    }
                };
                // IMPORTANT: before the waiters are answered, for their faults carry the error.
                let (message, remedy) = meaning::of_token_error(&error, &self.held.record, &self.held.secrets, now);
                let error = AccountError {
                    code: error.code,
                    message,
                    remedy,
                    time: now,
                };
                self.note(state, Some(error));
                self.decide(Input::Failed { grant, failure }, now);
            }
        }
    }

    /// The program stops. That is no trouble of the account's, so that its state stays.
    pub(super) fn on_not_sent(&mut self, grant: u64, now: Timestamp) {
        self.in_flight.retain(|sent| *sent != grant);
        let failure = Failure::Temporary { retry_after: None };
        self.decide(Input::Failed { grant, failure }, now);
    }

    fn send_refresh(&mut self, grant: u64) {
        self.in_flight.push(grant);
        tasks::refresh(self, grant);
    }

    pub(super) fn on_accepted(&mut self, grant: u64, protocol: Protocol) {
        if grant != self.refresher.grant() {
            return;
        }
        self.note_accepted_over(protocol);
        self.runs.end(protocol);
        let is_over = match self.held.record.state {
            AccountState::New | AccountState::Active => true,
            // A token accepted upstream says nothing of a refresh that fails.
            AccountState::Failing => self.held.has_upstreams_error() || self.refresher.is_untroubled(),
            AccountState::NeedsAuthorization => !self.held.has_tokens(),
            AccountState::Disabled => false,
        };
        if is_over {
            // What fails over another protocol goes on to be told.
            let error = self.runs.last_error().cloned();
            self.note(AccountState::Active, error);
        }
        self.note_failures();
    }

    /// A login failed, and the client has been told.
    pub(super) fn on_failed(&mut self, grant: Option<u64>, protocol: Protocol, fault: &Fault, now: Timestamp) {
        let is_former = grant.is_some_and(|grant| grant != self.refresher.grant());
        if is_former || self.shared.is_draining() || self.held.record.state == AccountState::Disabled {
            return;
        }
        let Some(mut whose) = Whose::of(protocol, fault) else {
            return;
        };
        if whose == Whose::Credential && self.is_good_elsewhere(protocol) {
            whose = Whose::Setting;
        }
        let error = (grant.is_some() && whose != Whose::Grant).then(|| whose.error(protocol, fault, now));
        self.runs.add(protocol, error.clone(), now);
        match error {
            Some(error) => self.note_upstreams(whose, protocol, error),
            None if self.held.way != Way::Sharing => self.note_nothing_to_present(fault, now),
            // Trouble with another's grant is that one's, and shown with it.
            None => {}
        }
        self.note_failures();
    }

    /// An upstream failed a login. An account whose grant is in trouble keeps that trouble's error.
    fn note_upstreams(&mut self, whose: Whose, protocol: Protocol, error: AccountError) {
        let is_grants = match self.held.record.state {
            AccountState::NeedsAuthorization => true,
            AccountState::Failing => !self.held.has_upstreams_error(),
            AccountState::New | AccountState::Active | AccountState::Disabled => false,
        };
        if is_grants {
            return;
        }
        let state = match whose {
            Whose::Credential if !self.held.uses_oauth() => AccountState::NeedsAuthorization,
            Whose::Setting | Whose::Moment | Whose::Grant if self.is_good_over_another(protocol) => {
                AccountState::Active
            }
            Whose::Credential | Whose::Setting | Whose::Moment | Whose::Grant => AccountState::Failing,
        };
        self.note(state, Some(error));
    }

    /// A login failed for want of something to present, which a refresh that failed has told already, if there was one.
    fn note_nothing_to_present(&mut self, fault: &Fault, now: Timestamp) {
        if !matches!(self.held.record.state, AccountState::New | AccountState::Active) {
            return;
        }
        let (state, code) = match fault.kind {
            FaultKind::AuthorizationGone => (AccountState::NeedsAuthorization, "no_credentials"),
            _ => (AccountState::Failing, "unavailable"),
        };
        let error = AccountError {
            code: code.to_owned(),
            message: failures::detail(fault),
            remedy: fault.remedy.as_deref().map(str::to_owned),
            time: now,
        };
        self.note(state, Some(error));
    }

    /// Shows how many logins have failed. While it only grows it is written now and then.
    fn note_failures(&mut self) {
        let failures = self.runs.total();
        let before = std::mem::replace(&mut self.held.record.failures, failures);
        if before.is_some() != failures.is_some() {
            self.writes.mark();
        } else if before != failures {
            self.writes.mark_later(self.clock.now());
        }
    }

    fn note_accepted_over(&mut self, protocol: Protocol) {
        let grant = self.refresher.grant();
        if self.accepted.0 != grant {
            self.accepted = (grant, Vec::new());
        }
        if !self.accepted.1.contains(&protocol) {
            self.accepted.1.push(protocol);
        }
    }

    /// Whether the credential has been accepted over another protocol and never over this one: it is this protocol that is
    /// closed to it, by its login name, a scope that it lacks or a setting, and the others must not be closed for that.
    fn is_good_elsewhere(&self, protocol: Protocol) -> bool {
        let (grant, accepted) = &self.accepted;
        *grant == self.refresher.grant() && !accepted.is_empty() && !accepted.contains(&protocol)
    }

    /// Whether another protocol is good now.
    fn is_good_over_another(&self, protocol: Protocol) -> bool {
        let (grant, accepted) = &self.accepted;
        let is_good = |other: &Protocol| *other != protocol && !self.runs.is_failing(*other);
        *grant == self.refresher.grant() && accepted.iter().any(is_good)
    }

    /// A refresh that succeeds does not heal a mailbox whose upstream refuses the fresh tokens, nor change its settings.
    fn note_refreshed(&mut self) {
        self.runs.end_without_error();
        if !self.held.has_upstreams_error() {
            self.note(AccountState::Active, None);
        }
        self.note_failures();
    }

    /// Takes note of a state, and has it written if it is another.
    pub(super) fn note(&mut self, state: AccountState, mut error: Option<AccountError>) {
        if let Some(error) = error.as_mut().filter(|error| error.remedy.is_none()) {
            error.remedy = self.remedy(state);
        }
        if self.held.note(state, error) {
            self.writes.mark();
        }
    }
}

/// What is told of a token that was refused and cannot be replaced now. Who asks knows the upstream's own words.
fn still_refused() -> UpstreamRefusal {
    UpstreamRefusal {
        code: None,
        text: "The mailbox refuses the credential, and there is no other".to_owned(),
        blames_credential: true,
    }
}
