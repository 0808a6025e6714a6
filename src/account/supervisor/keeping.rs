//! Keeping the grant and telling of it: renewals that nobody waits for, warnings, changes of state, another way to tokens.

use std::time::Duration;

use ractor::RpcReplyPort;

use super::held::Way;
use super::{Supervised, Waiter, tasks};
use crate::account::keeping;
use crate::account::notice::{News, Notice};
use crate::account::refresh::Input;
use crate::clock::Timestamp;
use crate::shell;
use crate::store::AccountState;

impl Supervised {
    /// Renews the grant if it is due. That it is, is looked at again: whoever asks has read the store, which may be behind.
    pub(super) fn on_keep_alive(&mut self, until_next: Duration, reply: RpcReplyPort<()>, now: Timestamp) {
        self.warn_of_end(now);
        if self.is_renewal_due(now, until_next) {
            let waiter = Waiter::Keeper(reply);
            return self.decide(Input::KeepAlive { waiter }, now);
        }
        // Whoever walks the accounts is told of trouble by its log.
        drop(reply.send(()));
    }

    fn is_renewal_due(&self, now: Timestamp, until_next: Duration) -> bool {
        let record = &self.held.record;
        let grant = self.held.secrets.grant.as_ref();
        let grant = grant.filter(|grant| self.held.way == Way::Grant && grant.refresh_token.is_some());
        let config = self.config();
        let provider = config.providers.get(&record.provider);
        let app = provider.and_then(|provider| provider.oauth.as_ref());
        let (Some(grant), Some(app)) = (grant, app) else {
            return false;
        };
        let since = keeping::last_renewed(grant, record.created, now);
        let due = keeping::due(&record.account, grant, since, app.keep_alive);
        record.state != AccountState::Disabled && due <= now.after(until_next)
    }

    /// Tells once that the grant will end in spite of all renewals.
    pub(super) fn warn_of_end(&mut self, now: Timestamp) {
        let Some(ends) = self.held.ending(now) else {
            return;
        };
        let Some(grant) = self
            .held
            .secrets
            .grant
            .as_mut()
            .filter(|grant| keeping::is_unwarned(grant))
        else {
            return;
        };
        grant.warned_of = Some(ends);
        // Kept, so that nobody is told again after every restart.
        tasks::note_warning(self, ends);
        let (account, provider) = (&self.held.record.account, &self.held.record.provider);
        tracing::warn!(%account, %provider, %ends, "the grant ends soon; its owner must authorize the account again");
        self.shared
            .publish(Notice::of(&self.held.record, News::GrantEnding { ends }, now));
    }

    /// Tells of the state, if it is not the one that it was.
    pub(super) fn publish_state(&self, before: AccountState, now: Timestamp) {
        let record = &self.held.record;
        if record.state == before {
            return;
        }
        let news = News::State {
            from: before,
            to: record.state,
            error: record.last_error.clone(),
            remedy: self.remedy(record.state),
        };
        self.shared.publish(Notice::of(record, news, now));
    }

    /// What somebody must do who can, beyond what the error says.
    pub(super) fn remedy(&self, state: AccountState) -> Option<String> {
        if state != AccountState::NeedsAuthorization {
            return None;
        }
        let account = shell::word(&self.held.record.account);
        Some(match self.held.way {
            Way::Grant if self.held.uses_oauth() || self.held.password().is_none() => format!(
                "Its owner must authorize the account again: portreeve account authorize {account}, or give it another \
                 refresh token: portreeve account update {account} --refresh-token-file FILE"
            ),
            Way::Grant | Way::App | Way::Password | Way::Sharing => format!(
                "The account needs the mailbox's present password: portreeve account update {account} --password-file FILE"
            ),
        })
    }

    /// Goes another way to tokens if the configuration or the record now says so, and forgets what was wrong with the former. Not
    /// while an answer is on its way: it may bring a rotated refresh token, which belongs to the grant that was sent.
    pub(super) fn follow_config(&mut self, now: Timestamp) {
        let way = Way::of(&self.held.record, &self.config());
        if way == self.held.way || !self.in_flight.is_empty() {
            return;
        }
        self.held.way = way;
        if self.held.record.state == AccountState::NeedsAuthorization {
            self.note(AccountState::New, None);
        }
        self.on_other_grant(now);
    }

    /// What is held now is another grant, or none.
    pub(super) fn on_other_grant(&mut self, now: Timestamp) {
        let times = self.held.token_times(now);
        let renewal = self.held.renewal();
        self.decide(Input::GrantReplaced { times, renewal }, now);
    }
}
