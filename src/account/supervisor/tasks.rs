//! The tasks that a supervisor starts. Each reports its end, also if it panics, and none is ever cancelled: they run on if
//! the supervisor ends, and what they report is lost only with it.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use ractor::{ActorRef, MessagingErr, RpcReplyPort};
use tokio::task::JoinHandle;

use super::{Message, Supervised};
use crate::account::shared::Shared;
use crate::account::writes::Replacement;
use crate::account::{Accounts, UpstreamTarget};
use crate::clock;
use crate::fault::{Fault, FaultKind};
use crate::metrics::names;
use crate::oauth::{Revocation, TokenError};
use crate::proto::Protocol;
use crate::secret::SecretString;
use crate::store::{StoreError, TokenId};

/// Refreshes the grant that is held, as soon as the provider has room for one more request of ours.
pub(super) fn refresh(state: &Supervised, grant: u64) {
    let myself = state.myself.clone();
    let shared = Arc::clone(&state.shared);
    let config = state.config();
    let account = state.held.record.account.clone();
    let name = state.held.record.provider.clone();
    let provider = config.providers.get(&name).cloned();
    let basis = state.held.basis();
    let timeout = config.limits.token_request_timeout;
    let limiter = shared.limiter(&name);
    let (for_removed, account_id, provider_name) = (Arc::clone(&shared), account.clone(), name.clone());
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
        let message = match result {
            Ok(None) => Message::NotSent { grant },
            Ok(Some(answer)) => Message::Refreshed {
                grant,
                result: Ok(answer),
            },
            Err(error) => Message::Refreshed {
                grant,
                result: Err(error),
            },
        };
        let Err(MessagingErr::SendErr(undelivered)) = myself.send_message(message) else {
            return;
        };
        tracing::debug!("a refresh outlived the supervisor of its account");
        if let Message::Refreshed { result: Ok(answer), .. } = undelivered
            && let Some(rotated) = answer.refresh_token
            && let Ok(None) = for_removed.store.account(&account_id).await
        {
            // The account was removed meanwhile, and gave back a refresh token that this one had replaced.
            revoke(&for_removed, &account_id, &provider_name, rotated);
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

/// Writes what is held.
pub(super) fn save(state: &Supervised) {
    let (myself, store) = (state.myself.clone(), state.shared.store.clone());
    let (record, secrets) = (state.held.record.clone(), state.held.secrets.clone());
    tokio::spawn(async move {
        let result = or_panicked(store.replace_account(record, secrets)).await;
        report(&myself, Message::Saved(result));
    });
}

/// Writes what the account is after a replacement.
pub(super) fn replace(state: &Supervised, replacement: Box<Replacement>) {
    let (myself, store) = (state.myself.clone(), state.shared.store.clone());
    let (record, secrets) = state.held.after(&replacement);
    tokio::spawn(async move {
        let result = or_panicked(store.replace_account(record.clone(), secrets)).await;
        report(&myself, Message::Replaced(replacement, Box::new(record), result));
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
