//! The tasks that a supervisor starts. Each reports its end, also if it panics, and none is ever cancelled: they run on if
//! the supervisor ends, and what they report is lost only with it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{ActorRef, RpcReplyPort};
use tokio::task::JoinHandle;

use super::{Message, Refreshed, Supervised};
use crate::account::grants::{self, Kept, UnderWay};
use crate::account::shared::Shared;
use crate::account::writes::{Credentials, Replacement};
use crate::account::{Accounts, UpstreamTarget};
use crate::clock::{self, Timestamp};
use crate::fault::{Fault, FaultKind};
use crate::metrics::names;
use crate::oauth::{Revocation, TokenError};
use crate::proto::Protocol;
use crate::secret::{SecretString, duplicate};
use crate::store::{Amendment, StoreError, TokenId};

/// Refreshes the grant that is held, as soon as the provider has room for one more request of ours, and keeps what that brings.
pub(super) fn refresh(state: &Supervised, grant: u64) {
    // IMPORTANT: from now on, not from when the task runs first.
    let under_way = UnderWay::begin(&state.slot);
    let (myself, clock) = (state.myself.clone(), state.clock);
    let held = state.held.secrets.grant.clone().unwrap_or_default();
    let shared = Arc::clone(&state.shared);
    let config = state.config();
    let account = state.held.record.account.clone();
    let name = state.held.record.provider.clone();
    let provider = config.providers.get(&name).cloned();
    let basis = state.held.basis();
    let timeout = config.limits.token_request_timeout;
    let limiter = shared.limiter(&name);
    let (for_keeping, account_id, provider_name) = (Arc::clone(&shared), account.clone(), name.clone());
    let request = async move {
        let Some(provider) = provider else {
            return Err(TokenError::app(
                "no_provider",
                format!("provider '{name}' is not configured"),
            ));
        };
        // The semaphore is never closed; without a permit the request is sent all the same.
        let _permit = limiter.acquire().await.ok();
        if shared.is_draining() {
            // Whoever stops waits for as long as one request takes, and this one would begin late.
            return Ok(None);
        }
        tracing::debug!(%account, provider = %provider.name, "refreshing the OAuth token");
        let begun = clock::instant();
        let result = shared.tokens.obtain(&provider, &basis, timeout).await;
        let took = clock::instant().saturating_duration_since(begun);
        let outcome = result.as_ref().map_or_else(TokenError::label, |_| names::OUTCOME_OK);
        names::oauth_refreshes(&name, outcome).increment(1);
        names::oauth_refresh_duration(&name).record(took.as_secs_f64());
        result.map(Some)
    };
    tokio::spawn(async move {
        let result = AssertUnwindSafe(Box::pin(request)).catch_unwind().await;
        let result = result.unwrap_or_else(|panic| Err(TokenError::temporary("internal", what(&*panic))));
        let mut rotated = None;
        let message = match result {
            Ok(None) => Message::NotSent { grant },
            Ok(Some(answer)) => {
                rotated = answer.refresh_token.as_ref().map(duplicate);
                let renewed = grants::renewed(held, answer, clock.now());
                // IMPORTANT: before anybody is told, and here: this task runs on if the supervisor ends.
                let kept = under_way.keep(&for_keeping, &account_id, &renewed).await;
                Message::Refreshed {
                    grant,
                    result: Ok(Refreshed { grant: renewed, kept }),
                }
            }
            Err(error) => Message::Refreshed {
                grant,
                result: Err(error),
            },
        };
        drop(under_way);
        let is_gone = matches!(
            &message,
            Message::Refreshed {
                result: Ok(Refreshed {
                    kept: Kept::AccountGone,
                    ..
                }),
                ..
            }
        );
        let is_delivered = myself.send_message(message).is_ok();
        if !is_delivered {
            tracing::debug!("a refresh outlived the supervisor of its account");
        }
        let Some(rotated) = rotated else { return };
        if is_gone || (!is_delivered && matches!(for_keeping.store.account(&account_id).await, Ok(None))) {
            // The account was removed meanwhile, and gave back a refresh token that this one had replaced.
            revoke(&for_keeping, &account_id, &provider_name, rotated);
        }
    });
}

/// Writes that somebody has been warned of the end of the grant that is held. Tried once: where it
/// fails, they are warned again after a restart.
pub(super) fn note_warning(state: &Supervised, ends: Timestamp) {
    let (store, account) = (state.shared.store.clone(), state.held.record.account.clone());
    let warned = state.held.refresh_token().map(duplicate);
    let amendment: Amendment = Box::new(move |secrets| match &mut secrets.grant {
        Some(grant) if grants::is_named(grant, warned.as_ref()) => {
            grant.warned_of = Some(ends);
            true
        }
        _ => false,
    });
    tokio::spawn(async move {
        if let Err(error) = or_panicked(store.amend_secrets(&account, amendment)).await {
            tracing::debug!(%account, %error, "that the grant's end was told is not written");
        }
    });
}

/// Asks the account `owner` for what to present, and has the asker's supervisor answer with it.
pub(super) fn borrow(
    state: &Supervised,
    owner: String,
    protocol: Protocol,
    refused: Option<u64>,
    reply: RpcReplyPort<Result<UpstreamTarget, Fault>>,
) {
    let myself = state.myself.clone();
    let accounts = Accounts::of(&state.shared);
    tokio::spawn(async move {
        let secret = AssertUnwindSafe(Box::pin(accounts.lend(&owner, refused)))
            .catch_unwind()
            .await;
        let secret = secret.unwrap_or_else(|panic| Err(Fault::with_detail(FaultKind::Internal, what(&*panic))));
        let message = Message::Lent {
            protocol,
            secret,
            reply,
        };
        report(&myself, message);
    });
}

/// Gives the grant of a removed account back to its provider: once, for nobody waits, and what the provider refuses to forget
/// ends by itself some day.
pub(super) fn revoke(shared: &Arc<Shared>, account: &str, provider: &str, refresh_token: SecretString) {
    let config = shared.config();
    let Some(provider) = config.providers.get(provider).cloned() else {
        return;
    };
    let (shared, account) = (Arc::clone(shared), account.to_owned());
    tokio::spawn(async move {
        // The semaphore is never closed; without a permit the request is sent all the same.
        let _permit = shared.revocations.acquire().await.ok();
        let timeout = config.limits.token_request_timeout;
        let provider_name = &provider.name;
        match shared.tokens.revoke(&provider, &refresh_token, timeout).await {
            Ok(Revocation::Done) => {
                tracing::info!(%account, provider = %provider_name, "the removed account's grant is revoked")
            }
            Ok(Revocation::NotOffered) => tracing::info!(
                %account,
                provider = %provider_name,
                "the provider offers no way to revoke the removed account's grant; its owner can do so there"
            ),
            Err(error) => tracing::warn!(
                %account,
                provider = %provider_name,
                %error,
                "the removed account's grant could not be revoked; its owner can do so at the provider"
            ),
        }
    });
}

/// Writes the record that is held. The disk has the credentials already.
pub(super) fn save(state: &Supervised) {
    let (myself, store) = (state.myself.clone(), state.shared.store.clone());
    let record = state.held.record.clone();
    tokio::spawn(async move {
        let result = or_panicked(store.amend_account(record, None)).await;
        report(&myself, Message::Saved(result));
    });
}

/// Writes what the account is after a replacement. The grant that stays is left as the disk has it: a refresh may just have
/// written another.
pub(super) fn replace(state: &Supervised, replacement: Box<Replacement>) {
    let (myself, store) = (state.myself.clone(), state.shared.store.clone());
    let record = state.held.after(&replacement);
    tokio::spawn(async move {
        let written = record.clone();
        let write = match &replacement.credentials {
            Credentials::Kept => store.amend_account(record, None),
            Credentials::New(secrets) => store.replace_account(record, secrets.clone()),
            Credentials::NewBesideGrant(secrets) => {
                let password = secrets.password.clone();
                let amendment: Amendment = Box::new(move |kept| {
                    kept.password = password;
                    true
                });
                store.amend_account(record, Some(amendment))
            }
        };
        let result = or_panicked(write).await;
        report(&myself, Message::Replaced(replacement, Box::new(written), result));
    });
}

/// Deletes the account.
pub(super) fn remove(state: &Supervised, reply: RpcReplyPort<Result<Vec<TokenId>, StoreError>>) {
    let (myself, store) = (state.myself.clone(), state.shared.store.clone());
    let account = state.held.record.account.clone();
    tokio::spawn(async move {
        let result = or_panicked(store.remove_account(&account)).await;
        report(&myself, Message::Removed(reply, result));
    });
}

/// Wakes the supervisor after a while.
pub(super) fn wake(myself: ActorRef<Message>, after: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        report(&myself, Message::TimeCame);
    })
}

async fn or_panicked<T>(operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let result = AssertUnwindSafe(operation).catch_unwind().await;
    result.unwrap_or_else(|panic| Err(StoreError::Unwritable(what(&*panic))))
}

fn report(supervisor: &ActorRef<Message>, message: Message) {
    if supervisor.send_message(message).is_err() {
        tracing::debug!("a task of an account's supervisor outlived it");
    }
}

fn what(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("defect: {}", text.unwrap_or("a panic"))
}
