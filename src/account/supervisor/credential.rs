//! The credential's side of a supervisor: who asks for it, how refreshes end, what upstreams say of it.

use ractor::RpcReplyPort;

use super::held::{UPSTREAM_REFUSED, Way, setting_code};
use super::{Purpose, Refreshed, Supervised, Waiter, tasks};
use crate::account::UpstreamTarget;
use crate::account::grants::Kept;
use crate::account::meaning::{self, Meaning, Trouble};
use crate::account::refresh::{Action, Answer, Failure, Input};
use crate::account::target::Place;
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind, UpstreamRefusal};
use crate::oauth::{TokenError, TokenErrorKind};
use crate::proto::{CredentialSecret, Protocol};
use crate::secret::duplicate;
use crate::sentence::explained;
use crate::store::AccountState;

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
        let refused = match purpose {
            Purpose::Login { refused } => refused,
            Purpose::Verification => None,
        };
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
        let is_refused = self.held.record.state == AccountState::NeedsAuthorization && purpose != Purpose::Verification;
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
            self.note(
                AccountState::NeedsAuthorization,
                Some(("no_refresh_token", "the access token has ended")),
                now,
            );
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
                self.note_refreshed(now);
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
                let message = meaning::of_token_error(&error, &self.held.record, &self.held.secrets, now);
                self.note(state, Some((&error.code, &message)), now);
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
        let is_over = match self.held.record.state {
            AccountState::New => true,
            // A token accepted upstream says nothing of a refresh that fails.
            AccountState::Failing => self.held.is_failing_upstream() || self.refresher.is_untroubled(),
            AccountState::NeedsAuthorization => !self.held.has_tokens(),
            AccountState::Active => self.held.is_refused_by_setting(Some(protocol)),
            AccountState::Disabled => false,
        };
        if is_over {
            let now = self.clock.now();
            self.note(AccountState::Active, None, now);
        }
    }

    pub(super) fn on_refused(&mut self, grant: u64, protocol: Protocol, refusal: &UpstreamRefusal, now: Timestamp) {
        if grant != self.refresher.grant() {
            return;
        }
        let meaning = meaning::of_refusal(protocol, refusal);
        let message = told(protocol, refusal, meaning);
        match meaning.map(|meaning| meaning.trouble) {
            Some(Trouble::Load) => {}
            Some(Trouble::Credential) | None if refusal.blames_credential && !self.is_good_elsewhere(protocol) => {
                self.on_credential_refused(&message, now);
            }
            None if refusal.blames_credential => self.on_setting(protocol, &message, now),
            Some(Trouble::Setting | Trouble::Credential) => self.on_setting(protocol, &message, now),
            None => {}
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

    /// The upstream does not serve the mailbox over `protocol`. The credential is good, so that the state stays, and an
    /// account that is in trouble besides keeps that trouble's error.
    fn on_setting(&mut self, protocol: Protocol, message: &str, now: Timestamp) {
        let state = self.held.record.state;
        if matches!(state, AccountState::New | AccountState::Active) {
            self.note(state, Some((setting_code(protocol), message)), now);
        }
    }

    fn on_credential_refused(&mut self, message: &str, now: Timestamp) {
        let state = if self.held.uses_oauth() {
            AccountState::Failing
        } else {
            AccountState::NeedsAuthorization
        };
        self.note(state, Some((UPSTREAM_REFUSED, message)), now);
    }

    fn note_refreshed(&mut self, now: Timestamp) {
        // A refresh that succeeds does not heal a mailbox whose upstream refuses the fresh tokens, nor change its settings.
        let is_upstreams = self.held.is_failing_upstream()
            || (self.held.record.state == AccountState::Active && self.held.is_refused_by_setting(None));
        if !is_upstreams {
            self.note(AccountState::Active, None, now);
        }
    }

    /// Takes note of a state, and has it written if it is another.
    pub(super) fn note(&mut self, state: AccountState, error: Option<(&str, &str)>, now: Timestamp) {
        if self.held.note(state, error, now) {
            self.writes.mark();
        }
    }
}

/// A refusal for the account's last error: the upstream's own words first, then what they mean.
fn told(protocol: Protocol, refusal: &UpstreamRefusal, meaning: Option<&Meaning>) -> String {
    let code = refusal.code.as_ref().map_or(String::new(), |code| format!("[{code}] "));
    let what = match meaning.map(|meaning| meaning.trouble) {
        Some(Trouble::Setting | Trouble::Load) => "login",
        Some(Trouble::Credential) | None => "credential",
    };
    let at = match protocol {
        Protocol::Imap => "",
        Protocol::Smtp => " over smtp",
        Protocol::Pop3 => " over pop3",
    };
    let told = format!("the upstream refuses the {what}{at}: {code}{}", refusal.text);
    meaning.map_or(told.clone(), |meaning| explained(&told, meaning.explanation))
}

/// What is told of a token that was refused and cannot be replaced now. Who asks knows the upstream's own words.
fn still_refused() -> UpstreamRefusal {
    UpstreamRefusal {
        code: None,
        text: "The mailbox refuses the credential, and there is no other".to_owned(),
        blames_credential: true,
    }
}
