//! The store's side of a supervisor: what is written when, and what administrators order.

use ractor::RpcReplyPort;

use super::held::Way;
use super::{Runs, Supervised, tasks};
use crate::account::writes::{Credentials, Order, Replacement, Write};
use crate::clock::Timestamp;
use crate::proto::session::Goodbye;
use crate::store::{AccountRecord, AccountState, StoreError, TokenId};

impl Supervised {
    /// A save of the record ended.
    pub(super) fn on_saved(&mut self, result: &Result<(), StoreError>, now: Timestamp) {
        self.writes.on_saved(result, now);
        if let Err(StoreError::NotFound(_)) = result {
            tracing::error!(account = %self.held.record.account, "an account has vanished from the store");
            self.held.record.failures = None;
            self.register().end(None, Goodbye::AccountDeleted);
            self.shared.retire(&self.held.record.account, &self.slot);
            return self.myself.stop(None);
        }
        if let Err(error) = result {
            tracing::error!(account = %self.held.record.account, %error, "an account cannot be written; it is kept in memory");
        }
    }

    pub(super) fn on_order(&mut self, order: Order) {
        let order = match order {
            Order::Replace(mut replacement) => {
                let is_refreshing = self.in_flight.contains(&self.refresher.grant());
                if let Credentials::New(secrets) = replacement.credentials {
                    // What is on its way, or not written yet, belongs to this very grant: it must not be lost.
                    let is_same = (is_refreshing && self.held.has_refresh_token_of(&secrets))
                        || self.slot.grants.is_refused_grant_of(&secrets);
                    replacement.credentials = match is_same {
                        true => Credentials::NewBesideGrant(secrets),
                        false => Credentials::New(secrets),
                    };
                }
                Order::Replace(replacement)
            }
            Order::Remove(reply) => Order::Remove(reply),
        };
        self.writes.order(order);
    }

    pub(super) fn on_replaced(
        &mut self,
        replacement: Replacement,
        written: &AccountRecord,
        result: Result<(), StoreError>,
        now: Timestamp,
    ) {
        self.writes.on_order_ended();
        if result.is_ok() {
            let Replacement {
                record, credentials, ..
            } = replacement;
            let has_new_grant = matches!(credentials, Credentials::New(_));
            self.held.replace(record, credentials);
            if self.held.record.failures.is_none() {
                self.runs = Runs::default();
            }
            if self.held.record != *written {
                // Its state changed while it was being written.
                self.writes.mark();
            }
            if has_new_grant {
                self.slot.grants.replaced(&self.held.secrets);
                self.shared.note_unsaved(&self.held.record.account, false);
                self.held.way = Way::of(&self.held.record, &self.config());
                self.on_other_grant(now);
            }
            if self.held.record.state == AccountState::Disabled {
                self.register().end(None, Goodbye::AccountDeleted);
            }
        }
        drop(replacement.reply.send(result));
    }

    pub(super) fn on_removed(
        &mut self,
        reply: RpcReplyPort<Result<Vec<TokenId>, StoreError>>,
        result: Result<Vec<TokenId>, StoreError>,
    ) {
        self.writes.on_order_ended();
        if result.is_ok() {
            self.give_grant_back();
            self.held.record.failures = None;
            self.register().end(None, Goodbye::AccountDeleted);
            self.shared.retire(&self.held.record.account, &self.slot);
            // Waiters and later orders are dropped with the state: their askers find no account any more.
            self.myself.stop(None);
        }
        drop(reply.send(result));
    }

    /// Has the provider forget the grant of an account that has been removed. An app's is not the account's to give back.
    fn give_grant_back(&mut self) {
        let grant = self.held.secrets.grant.take();
        let refresh_token = grant.and_then(|grant| grant.refresh_token);
        if let Some(refresh_token) = refresh_token.filter(|_| self.held.way != Way::App) {
            let record = &self.held.record;
            tasks::revoke(&self.shared, &record.account, &record.provider, refresh_token);
        }
    }

    /// Starts the next write, if there is one.
    pub(super) fn write(&mut self, now: Timestamp) {
        match self.writes.next(now) {
            None => {}
            Some(Write::Save) => tasks::save(self),
            Some(Write::Order(Order::Replace(replacement))) => tasks::replace(self, replacement),
            Some(Write::Order(Order::Remove(reply))) => tasks::remove(self, reply),
        }
    }
}
