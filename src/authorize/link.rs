//! Hosted links: a signed invitation to consent. Pure but for what it remembers of links that have done their work.
//!
//! ```text
//! link = base64url( payload as JSON ) "." base64url( HMAC-SHA256( key, payload ) )
//! ```
//!
//! The key is derived from the store's master key, so that links survive a restart. A link is void once it led to a grant:
//! the account's record says when it was last authorized, and its nonce is remembered besides, for accounts that are deleted
//! and made anew. It is also void where the account it was made for is gone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use url::Url;
use zeroize::Zeroizing;

use super::{LinkOrder, Subject};
use crate::clock::Timestamp;
use crate::limits::LINK_BYTES_MAX;
use crate::store::AccountRecord;

/// What links are signed with.
pub(super) struct LinkKey(Zeroizing<[u8; 32]>);

/// Signs links, reads them, and remembers those that have done their work.
pub(super) struct Links {
    key: LinkKey,
    /// The nonces of links that led to a grant, until they would have expired.
    consumed: Mutex<HashMap<String, Timestamp>>,
}

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// The account's id.
    pub(super) account: String,
    email: Option<String>,
    provider: String,
    return_to: Option<Url>,
    /// Whether the account existed when the link was made.
    existed: bool,
    issued: Timestamp,
    expires: Timestamp,
    nonce: String,
}

/// What can be wrong with a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkProblem {
    /// It was not made here, or has been changed.
    #[error("the link was not made by this installation, or has been changed")]
    Forged,
    /// Its time is over.
    #[error("the link has expired; ask for a new one")]
    Expired,
    /// It led to a grant, or the account was authorized in another way since.
    #[error("the link has been used; ask for a new one if the mailbox must be authorized again")]
    Used,
    /// The account that it was made for is gone, or is another provider's now.
    #[error("what the link was made for is gone; ask for a new one")]
    Gone,
    /// It could not be looked at.
    #[error("the link cannot be checked now: {0}")]
    Unknown(String),
}

impl LinkKey {
    pub(super) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(key.clone())
    }

    fn mac(&self, text: &str) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        mac
    }
}

impl Links {
    pub(super) fn new(key: LinkKey) -> Self {
        Self {
            key,
            consumed: Mutex::default(),
        }
    }

    /// The link that says `payload`.
    pub(super) fn seal(&self, payload: &Payload) -> String {
        let json = serde_json::to_vec(payload).expect("strings and numbers make JSON");
        let body = URL_SAFE_NO_PAD.encode(json);
        let signature = URL_SAFE_NO_PAD.encode(self.key.mac(&body).finalize().into_bytes());
        format!("{body}.{signature}")
    }

    /// Reads a link.
    ///
    /// # Errors
    /// [`LinkProblem::Forged`], [`LinkProblem::Expired`], [`LinkProblem::Used`].
    pub(super) fn open(&self, link: &str, now: Timestamp) -> Result<Payload, LinkProblem> {
        if link.len() > LINK_BYTES_MAX {
            return Err(LinkProblem::Forged);
        }
        let (body, signature) = link.split_once('.').ok_or(LinkProblem::Forged)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| LinkProblem::Forged)?;
        // Takes the same time whatever differs.
        let verified = self.key.mac(body).verify_slice(&signature);
        verified.map_err(|_| LinkProblem::Forged)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| LinkProblem::Forged)?;
        let payload: Payload = serde_json::from_slice(&json).map_err(|_| LinkProblem::Forged)?;
        if now >= payload.expires {
            return Err(LinkProblem::Expired);
        }
        self.check(&payload)?;
        Ok(payload)
    }

    /// Whether a link that was read has not done its work since.
    ///
    /// # Errors
    /// [`LinkProblem::Used`].
    pub(super) fn check(&self, payload: &Payload) -> Result<(), LinkProblem> {
        if self.consumed().contains_key(&payload.nonce) {
            return Err(LinkProblem::Used);
        }
        Ok(())
    }

    /// Takes note that a link has done its work.
    pub(super) fn consume(&self, payload: &Payload) {
        let mut consumed = self.consumed();
        // Those that have expired since are refused for that.
        consumed.retain(|_, expires| payload.issued < *expires);
        consumed.insert(payload.nonce.clone(), payload.expires);
    }

    fn consumed(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        // Each change under this lock is a single call.
        self.consumed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Payload {
    /// What a link says that is made at `issued`.
    pub(super) fn new(order: LinkOrder, existed: bool, issued: Timestamp, expires: Timestamp) -> Self {
        let Subject {
            account,
            email,
            provider,
        } = order.subject;
        let nonce: [u8; NONCE_BYTES] = rand::random();
        Self {
            account,
            email,
            provider,
            return_to: order.return_to,
            existed,
            issued,
            expires,
            nonce: URL_SAFE_NO_PAD.encode(nonce),
        }
    }

    /// Whether the link still stands, as its account is now.
    ///
    /// # Errors
    /// [`LinkProblem::Used`], [`LinkProblem::Gone`].
    pub(super) fn check(&self, record: Option<&AccountRecord>) -> Result<(), LinkProblem> {
        match record {
            Some(record) if record.authorized.is_some_and(|at| at >= self.issued) => Err(LinkProblem::Used),
            Some(record) if record.provider != self.provider => Err(LinkProblem::Gone),
            // An account of the same id that is younger than the link is another one, unless the link was to make it.
            Some(record) if self.existed && record.created > self.issued => Err(LinkProblem::Gone),
            None if self.existed => Err(LinkProblem::Gone),
            Some(_) | None => Ok(()),
        }
    }

    /// Whose mailbox it is for.
    pub(super) fn subject(&self) -> Subject {
        Subject {
            account: self.account.clone(),
            email: self.email.clone(),
            provider: self.provider.clone(),
        }
    }

    /// Where the browser is sent after success.
    pub(super) fn return_to(&self) -> Option<Url> {
        self.return_to.clone()
    }
}

const NONCE_BYTES: usize = 16;
