//! The ends: from what an owner answered to a mailbox that opens, or to the reason why not.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use url::Url;

use super::begin::{meaning_of, new_record};
use super::device::{Ending, Next, Schedule};
use super::error::{AuthorizeError, LinkProblem};
use super::flows::Flow;
use super::judgement::{Judged, Owner, judge, mailbox};
use super::progress::FlowKind;
use super::{Authorizer, Completed, Consent, Via, lock};
use crate::account::meaning;
use crate::clock::{self, Timestamp};
use crate::connection::{try_login, walked};
use crate::fault::{Fault, FaultKind};
use crate::oauth::{self, DeviceCode, DevicePoll, Redirect, Revocation, TokenAnswer, TokenError, TokenSource};
use crate::proto::{CredentialSecret, Protocol};
use crate::secret::{self, SecretString};
use crate::store::{AccountRecord, AccountSecrets, AccountState, Grant};

/// How a login with a fresh grant went.
enum Trial {
    /// The mailbox is open.
    Open,
    /// It is not, and another try would change nothing.
    Refused(AuthorizeError),
    /// It could not be found out.
    Unavailable(String),
}

/// An account as it is to be stored.
struct Subject {
    record: AccountRecord,
    /// Whether it is in the store.
    is_known: bool,
    /// Whether it has a refresh token that another consent gave.
    has_grant: bool,
    /// Whether it has a password.
    has_password: bool,
}

impl Subject {
    /// Whether what is stored may still open the mailbox.
    fn may_open(&self) -> bool {
        let is_lost = self.record.state == AccountState::NeedsAuthorization;
        (self.has_grant || self.has_password) && !is_lost
    }
}

impl Authorizer {
    /// Completes the code flow that `redirected` belongs to: exchanges the code, logs in to the mailbox, stores the grant. Runs
    /// to its end even if the caller goes away.
    ///
    /// # Errors
    /// Why the mailbox is not open; nothing is stored then, but see [`AuthorizeError::LoginUnavailable`].
    pub async fn complete(&self, redirected: &Url, via: &Via) -> Result<Completed, AuthorizeError> {
        self.refuse_if_stopping()?;
        let redirect = Redirect::read(redirected)?;
        let flow = lock(&self.shared.flows).take(&redirect, redirected, via, clock::now())?;
        let Consent { account, number, .. } = &flow.consent;
        lock(&self.shared.latest).come_back(account, *number);
        let this = self.clone();
        self.to_its_end(async move {
            let outcome = this.complete_code(&flow, &redirect).await;
            this.tell(&flow.consent, &outcome);
            outcome
        })
        .await
    }

    /// Polls for `code` from now on, in a task of its own.
    pub(super) fn poll(&self, consent: Consent, code: DeviceCode) {
        let schedule = Schedule::new(&code, clock::now());
        let ended = lock(&self.shared.devices).insert(&consent.account, consent.number);
        lock(&self.shared.latest).begin(&consent.account, consent.number, FlowKind::Device, schedule.expires());
        let this = self.clone();
        self.spawn(async move {
            let outcome = match this.await_device(&consent, &code, schedule, ended).await {
                Ok(answer) => this.finish(&consent, answer, &code.scopes).await,
                Err(error) => Err(error),
            };
            lock(&this.shared.devices).remove(&consent.account, consent.number);
            this.tell(&consent, &outcome);
        });
    }

    /// Waits until the owner has decided. A poll that was sent is waited for, since its answer may hold the grant.
    async fn await_device(
        &self,
        consent: &Consent,
        code: &DeviceCode,
        mut schedule: Schedule,
        mut ended: watch::Receiver<Option<Ending>>,
    ) -> Result<TokenAnswer, AuthorizeError> {
        loop {
            let (wait, is_last) = match schedule.next(clock::now()) {
                Next::Poll(wait) => (wait, false),
                Next::Expire(wait) => (wait, true),
            };
            tokio::select! {
                biased;
                why = ended_before_its_time(&mut ended) => return Err(why.into()),
                () = sleep(wait) => {}
            }
            if is_last {
                return Err(AuthorizeError::Expired);
            }
            let polled = self
                .shared
                .oauth
                .poll_device(&consent.provider, code, self.timeout())
                .await;
            match polled.map_err(refused)? {
                DevicePoll::Pending => {}
                DevicePoll::SlowDown => schedule.on_slow_down(),
                DevicePoll::Granted(answer) => {
                    lock(&self.shared.latest).come_back(&consent.account, consent.number);
                    return Ok(answer);
                }
            }
        }
    }

    async fn complete_code(&self, flow: &Flow, redirect: &Redirect) -> Result<Completed, AuthorizeError> {
        // Before the exchange, too: what a link cannot use any more the provider need not issue.
        self.subject_of(&flow.consent, clock::now()).await?;
        let oauth = &self.shared.oauth;
        let provider = &flow.consent.provider;
        let exchanged = oauth.exchange_code(provider, &flow.pending, redirect, self.timeout());
        let answer = exchanged.await.map_err(refused)?;
        self.finish(&flow.consent, answer, &flow.pending.scopes).await
    }

    /// What becomes of an answer, whichever flow brought it.
    async fn finish(
        &self,
        consent: &Consent,
        answer: TokenAnswer,
        asked: &[String],
    ) -> Result<Completed, AuthorizeError> {
        // IMPORTANT: to the end of this function. An administrator's change between the reading and the storing of the record
        // would be lost, and of two consents by one link both would count.
        let _turn = self.shared.changes.begin(&consent.account).await;
        let now = clock::now();
        let subject = self.subject_of(consent, now).await?;
        let Judged { grant, owner, left_out } = judge(answer, asked, &subject.record, now)?;
        match self.try_grant(&subject.record, &grant, &left_out).await {
            Trial::Open => self.keep_proved(consent, subject, grant, now).await,
            Trial::Refused(error) => {
                self.give_back(consent, &subject, grant, owner);
                Err(error)
            }
            Trial::Unavailable(said) => {
                // What nobody has seen work does not take the place of what works, nor somebody else's that of what may.
                let is_confirmed = owner == Owner::Confirmed && subject.record.state != AccountState::Active;
                let is_kept = is_confirmed || !subject.may_open();
                if is_kept {
                    self.keep_untried(subject, grant, now).await?;
                }
                Err(AuthorizeError::LoginUnavailable { said, is_kept })
            }
        }
    }

    /// The account that `consent` is for, as it is now.
    async fn subject_of(&self, consent: &Consent, now: Timestamp) -> Result<Subject, AuthorizeError> {
        let store = &self.shared.services.store;
        let known = store.account(&consent.account).await?;
        if let Some(link) = &consent.link {
            if lock(&self.shared.links).is_spent(link) {
                return Err(LinkProblem::Used.into());
            }
            link.check(known.as_ref())?;
        }
        let is_known = known.is_some();
        let record = match (known, &consent.link) {
            (Some(record), _) => record,
            (None, Some(link)) => new_record(&link.payload, now),
            (None, None) => return Err(AuthorizeError::AccountGone),
        };
        // Of the same id, but another: its owner consented to something else.
        let is_another = consent.created.is_some_and(|created| created != record.created);
        if is_another || record.provider != consent.provider.name || record.shares_grant_of.is_some() {
            let text = "the account was changed while its owner was asked; begin again";
            return Err(AuthorizeError::Conflict(text.to_owned()));
        }
        let secrets = store.account_secrets(&consent.account).await?.unwrap_or_default();
        Ok(Subject {
            record,
            is_known,
            has_grant: secrets.grant.is_some_and(|grant| grant.refresh_token.is_some()),
            has_password: secrets.password.is_some(),
        })
    }

    /// Logs in with `grant`, as the first protocol does that is served and offered. Where that one is switched off for this
    /// mailbox, the next one tells whether the grant is good. So do those for which the provider says that it left scopes out:
    /// what it says so is wrong where they open.
    async fn try_grant(&self, record: &AccountRecord, grant: &Grant, left_out: &[String]) -> Trial {
        let services = &self.shared.services;
        let is_left_out = |protocol| left_out.iter().any(|scope| oauth::protocol_of(scope) == Some(protocol));
        let (mut is_open, mut refusal) = (false, None);
        for protocol in walked(&services.config(), record) {
            if is_open && !is_left_out(protocol) {
                continue;
            }
            let Some(token) = &grant.access_token else {
                return Trial::Refused(AuthorizeError::Defect);
            };
            let secret = CredentialSecret::OAuth {
                token: secret::duplicate(token),
                generation: 0,
            };
            match Box::pin(try_login(services, record, protocol, secret)).await {
                Ok(()) => is_open = true,
                Err(fault) => match trial_of(protocol, &fault) {
                    Verdict::Setting(error) => refusal = refusal.or(Some(error)),
                    Verdict::Final(Trial::Refused(_)) if !left_out.is_empty() => {
                        return Trial::Refused(AuthorizeError::PartialConsent(left_out.to_vec()));
                    }
                    // It was to be tried for the hint alone.
                    Verdict::Final(_) if is_open => {}
                    Verdict::Final(trial) => return trial,
                },
            }
        }
        match is_open {
            true => Trial::Open,
            false => Trial::Refused(refusal.unwrap_or(AuthorizeError::Defect)),
        }
    }

    /// Stores a grant with which a login has succeeded.
    async fn keep_proved(
        &self,
        consent: &Consent,
        mut subject: Subject,
        grant: Grant,
        now: Timestamp,
    ) -> Result<Completed, AuthorizeError> {
        subject.record.authorized = Some(now);
        // Who has switched an account off says when it is on again.
        if subject.record.state != AccountState::Disabled {
            subject.record.state = AccountState::Active;
        }
        let record = self.store(subject, grant, now).await?;
        if let Some(link) = &consent.link {
            lock(&self.shared.links).spend(link, now);
        }
        let return_to = consent.link.as_ref().and_then(|link| link.payload.return_to.clone());
        Ok(Completed {
            email: mailbox(&record).map(str::to_owned),
            return_to: return_to.map(|url| told(url, &record)),
            state: record.state,
            account: record.account,
        })
    }

    /// Stores a grant of which nobody knows yet whether it opens the mailbox.
    async fn keep_untried(&self, mut subject: Subject, grant: Grant, now: Timestamp) -> Result<(), AuthorizeError> {
        if subject.record.state != AccountState::Disabled {
            subject.record.state = AccountState::New;
        }
        self.store(subject, grant, now).await.map(drop)
    }

    async fn store(&self, subject: Subject, grant: Grant, now: Timestamp) -> Result<AccountRecord, AuthorizeError> {
        let accounts = &self.shared.services.accounts;
        let mut record = subject.record;
        record.last_error = None;
        record.updated = now;
        let secrets = AccountSecrets {
            grant: Some(grant),
            password: None,
        };
        if subject.is_known {
            accounts.replace(record.clone(), Some(secrets)).await?;
        } else {
            accounts.create(record.clone(), secrets).await?;
        }
        Ok(record)
    }

    /// Gives a grant back that opens nothing, without waiting. Only one that is surely of no use to anybody: providers end
    /// with it every grant of the same person to the same app (Google does), and that may be one that another consent gave,
    /// of this account or, where it is not known who signed in, of another.
    fn give_back(&self, consent: &Consent, subject: &Subject, grant: Grant, owner: Owner) {
        let Some(token) = grant
            .refresh_token
            .filter(|_| owner == Owner::Confirmed && !subject.has_grant)
        else {
            return;
        };
        let (this, consent) = (self.clone(), consent.clone());
        self.spawn(async move { this.revoke(&consent, &token).await });
    }

    async fn revoke(&self, consent: &Consent, token: &SecretString) {
        let Consent { account, provider, .. } = consent;
        match self.shared.oauth.revoke(provider, token, self.timeout()).await {
            Ok(Revocation::Done) => tracing::info!(account, "a grant that opens nothing was given back"),
            Ok(Revocation::NotOffered) => {}
            Err(error) => tracing::warn!(account, %error, "a grant that opens nothing could not be given back"),
        }
    }

    /// Tells whoever waits, and the log.
    fn tell(&self, consent: &Consent, outcome: &Result<Completed, AuthorizeError>) {
        let Consent {
            account,
            number,
            provider,
            ..
        } = consent;
        let provider = provider.name.as_str();
        match outcome {
            Ok(_) => tracing::info!(account, provider, "authorized: the mailbox is open"),
            Err(error) => tracing::warn!(account, provider, code = error.code(), %error, "not authorized"),
        }
        let outcome = outcome.as_ref().map(|completed| completed.state).map_err(Clone::clone);
        lock(&self.shared.latest).end(account, *number, outcome);
    }

    fn timeout(&self) -> Duration {
        self.shared.services.config().limits.token_request_timeout
    }
}

/// What a failed login says of the grant.
enum Verdict {
    /// Nothing: this protocol is switched off for the mailbox.
    Setting(AuthorizeError),
    /// This.
    Final(Trial),
}

fn trial_of(protocol: Protocol, fault: &Fault) -> Verdict {
    let meaning = meaning::of_fault(protocol, fault);
    let trouble = meaning.map(|meaning| meaning.trouble);
    let said = match (&fault.kind, &fault.said) {
        (FaultKind::Unavailable, Some(words)) if !words.text.is_empty() => words.text.clone(),
        (FaultKind::UpstreamRefused(refusal), _) => refusal.text.clone(),
        (FaultKind::ProtocolNotOffered, _) => fault.detail.clone(),
        // What went wrong on the way is for the log: owners of mailboxes are shown no internal addresses.
        (kind, _) => kind.to_string(),
    };
    if fault.kind.is_temporary() || trouble == Some(meaning::Trouble::Load) {
        tracing::warn!(%protocol, %fault, "a fresh grant cannot be tried");
        return Verdict::Final(Trial::Unavailable(said));
    }
    let error = AuthorizeError::LoginRefused {
        said,
        meaning: meaning.map(|meaning| meaning.explanation),
    };
    if trouble == Some(meaning::Trouble::Setting) {
        Verdict::Setting(error)
    } else {
        Verdict::Final(Trial::Refused(error))
    }
}

/// A provider's refusal.
fn refused(error: TokenError) -> AuthorizeError {
    let meaning = meaning_of(&error);
    AuthorizeError::of_exchange(error, meaning)
}

/// `url`, told what became of the account.
fn told(mut url: Url, record: &AccountRecord) -> Url {
    let state = crate::metrics::names::state_label(record.state);
    url.query_pairs_mut()
        .append_pair("account", &record.account)
        .append_pair("state", state);
    url
}

/// Waits until a device flow must end. One whose sender is gone was replaced.
async fn ended_before_its_time(ended: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match ended.wait_for(Option::is_some).await {
        Ok(why) => (*why).unwrap_or(Ending::Replaced),
        Err(_) => Ending::Replaced,
    }
}
