//! Device flows (RFC 8628): the owner types a code elsewhere while the daemon asks whether they have.
//!
//! One flow for each account: a new one ends the old, whose task notices before its next question. Trouble with the network
//! is waited out; only the owner, the provider or time ends a flow.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::{AuthorizeError, Authorizer, Completed, DeviceBegun, FlowKind, Subject};
use crate::clock::{self, Timestamp};
use crate::config::Provider;
use crate::limits::{DEVICE_FLOW_LIFE_MAX, DEVICE_INTERVAL_MAX};
use crate::oauth::{DeviceCode, DevicePoll, TokenErrorKind};
use crate::store::AccountRecord;

/// A device flow in progress.
struct Flow {
    number: u64,
    subject: Subject,
    provider: Arc<Provider>,
    code: DeviceCode,
    expires: Timestamp,
    _place: OwnedSemaphorePermit,
}

impl Authorizer {
    /// Begins a device flow, and asks the provider from then on how it went.
    ///
    /// # Errors
    /// [`AuthorizeError`]; [`AuthorizeError::Provider`] where the provider has no such flow.
    pub async fn begin_device(&self, account: &AccountRecord) -> Result<DeviceBegun, AuthorizeError> {
        let provider = self.consenting(&account.provider)?;
        let place = Arc::clone(&self.shared.device_places).try_acquire_owned();
        let place = place.map_err(|_| AuthorizeError::Busy)?;
        let timeout = self.shared.services.config().limits.token_request_timeout;
        let code = self.shared.oauth.begin_device(&provider, timeout);
        let code = code.await.map_err(AuthorizeError::Provider)?;
        let now = clock::now();
        let expires = now.after(code.expires_in.min(DEVICE_FLOW_LIFE_MAX));
        let number = self.board().begin(&account.account, FlowKind::Device, expires, now);
        let begun = DeviceBegun {
            user_code: code.user_code.clone(),
            verification_uri: code.verification_uri.clone(),
            verification_uri_complete: code.verification_uri_complete.clone(),
            expires,
            interval: code.interval.as_secs(),
        };
        let flow = Flow {
            number,
            subject: Subject::of(account),
            provider,
            code,
            expires,
            _place: place,
        };
        let this = self.clone();
        tokio::spawn(Box::pin(async move { this.wait_for_owner(flow).await }));
        Ok(begun)
    }

    async fn wait_for_owner(&self, flow: Flow) {
        let account = &flow.subject.account;
        if let Some(outcome) = self.ask_until_decided(&flow).await {
            self.board().end(account, flow.number, &outcome, clock::now());
        }
    }

    /// `None`: another flow has taken this one's place.
    async fn ask_until_decided(&self, flow: &Flow) -> Option<Result<Completed, AuthorizeError>> {
        let mut interval = flow.code.interval;
        loop {
            sleep(interval).await;
            if !self.board().is_waited_for(&flow.subject.account, flow.number) {
                return None;
            }
            if clock::now() >= flow.expires {
                return Some(Err(AuthorizeError::Expired));
            }
            let timeout = self.shared.services.config().limits.token_request_timeout;
            match self.shared.oauth.poll_device(&flow.provider, &flow.code, timeout).await {
                Ok(DevicePoll::Pending) => {}
                Ok(DevicePoll::SlowDown) => interval = slower(interval),
                Ok(DevicePoll::Granted(answer)) => {
                    let kept = self.keep(&flow.subject, &flow.provider, answer, &flow.code.scopes);
                    return Some(kept.await);
                }
                Err(error) if matches!(error.kind, TokenErrorKind::Temporary { .. }) => interval = slower(interval),
                Err(error) => return Some(Err(AuthorizeError::of_exchange(error))),
            }
        }
    }
}

/// RFC 8628 §3.5: five seconds more, from then on.
fn slower(interval: Duration) -> Duration {
    interval.saturating_add(Duration::from_secs(5)).min(DEVICE_INTERVAL_MAX)
}
