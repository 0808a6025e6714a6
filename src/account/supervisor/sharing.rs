//! One grant for several mailboxes: what is asked of the account that owns it, and answered to those that share it.
//!
//! A sharer's own policy has no token and decides nothing. It asks the owner's supervisor for each login, so that there is still
//! one refresh for each grant and the owner alone knows its generations; where the mailbox is, which sessions may live on it
//! and what its upstream says of the credential stay the sharer's own.

use ractor::RpcReplyPort;

use super::held::Way;
use super::{Supervised, Waiter, tasks};
use crate::account::UpstreamTarget;
use crate::account::refresh::Input;
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind};
use crate::proto::{CredentialSecret, Protocol};

impl Supervised {
    /// Asks the owner of the grant on behalf of a login. Whoever asked is answered by [`Self::on_lent`].
    pub(super) fn borrow(
        &self,
        protocol: Protocol,
        refused: Option<u64>,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
    ) {
        match &self.held.record.shares_grant_of {
            Some(owner) => tasks::borrow(self, owner.clone(), protocol, refused, reply),
            None => drop(reply.send(Err(Fault::with_detail(FaultKind::Internal, "it shares no grant")))),
        }
    }

    pub(super) fn on_lent(
        &self,
        protocol: Protocol,
        secret: Result<CredentialSecret, Fault>,
        reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
    ) {
        // Where that is, is looked up now: the account may have been replaced meanwhile.
        let target = secret.and_then(|secret| {
            let place = self.place(protocol)?;
            Ok(place.with_secret(secret, self.refresher.grant()))
        });
        // Whoever has hung up meanwhile needs no answer.
        drop(reply.send(target));
    }

    /// An account that shares this one's grant asks. That this one is disabled, or has no such protocol, is no matter of its.
    pub(super) fn on_lend(
        &mut self,
        refused: Option<u64>,
        reply: RpcReplyPort<Result<CredentialSecret, Fault>>,
        now: Timestamp,
    ) {
        self.last_used = now;
        if !self.held.has_tokens() {
            return drop(reply.send(Err(self.nothing_to_lend())));
        }
        let waiter = Waiter::Sharer(reply);
        self.decide(Input::Asked { waiter, refused }, now);
    }

    /// Why a sharer gets nothing of an account whose grant is gone.
    pub(super) fn nothing_to_lend(&self) -> Fault {
        let account = &self.held.record.account;
        let what = match self.held.way {
            Way::Sharing => "shares another's grant itself",
            Way::Grant | Way::App | Way::Password => "has no OAuth grant",
        };
        let detail = format!("the account '{account}', whose grant is shared, {what}");
        Fault::with_detail(FaultKind::AuthorizationGone, detail)
    }
}
