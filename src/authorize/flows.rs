//! The code flows in progress. Pure: time is an argument.
//!
//! A flow is found by its state alone, which is 256 bits that only the owner's browser brings back. It is taken once, by the
//! right state and, where a link began it, by the right browser; anything else leaves it where it is. Whoever begins flows
//! without end only displaces their own account's.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Subject;
use super::link::Payload;
use crate::clock::Timestamp;
use crate::limits::{CODE_FLOWS_MAX, CODE_FLOWS_PER_ACCOUNT_MAX};
use crate::oauth::{PendingCode, Redirect};

/// Flows in progress, oldest first.
#[derive(Debug, Default)]
pub(super) struct Flows {
    waiting: VecDeque<CodeFlow>,
}

/// One flow in progress.
#[derive(Debug)]
pub(super) struct CodeFlow {
    /// Its number on the board.
    pub(super) number: u64,
    /// Whose mailbox it is for.
    pub(super) subject: Subject,
    /// What is kept of the authorization request.
    pub(super) pending: PendingCode,
    /// The browser that alone can complete it; `None`: whoever brings the state.
    pub(super) browser: Option<Browser>,
    /// The link that began it.
    pub(super) link: Option<Payload>,
    /// Until when it waits.
    pub(super) expires: Timestamp,
}

/// A browser, by the SHA-256 of what it keeps.
#[derive(Debug, Clone)]
pub(super) struct Browser([u8; 32]);

/// Who brings a redirect.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bearer<'a> {
    /// What their browser keeps.
    pub browser: Option<&'a [u8]>,
    /// The one account whose flows they may complete; `None`: all.
    pub own: Option<&'a str>,
}

impl Browser {
    pub(super) fn of(kept: &[u8]) -> Self {
        Self(Sha256::digest(kept).into())
    }

    fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Flows {
    /// Adds a flow. The oldest of its account, or of all, makes room where there is none.
    pub(super) fn add(&mut self, flow: CodeFlow, now: Timestamp) {
        self.waiting.retain(|waiting| now < waiting.expires);
        let is_same = |waiting: &CodeFlow| waiting.subject.account == flow.subject.account;
        let of_account = self.waiting.iter().filter(|waiting| is_same(waiting)).count();
        if of_account >= CODE_FLOWS_PER_ACCOUNT_MAX
            && let Some(oldest) = self.waiting.iter().position(is_same)
        {
            self.waiting.remove(oldest);
        }
        if self.waiting.len() >= CODE_FLOWS_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(flow);
    }

    /// Takes the flow that `redirect` belongs to. `None`: there is none (any more), or it is another browser's, and then it
    /// stays.
    pub(super) fn take(&mut self, redirect: &Redirect, bearer: &Bearer<'_>, now: Timestamp) -> Option<CodeFlow> {
        let browser = bearer.browser.map(Browser::of);
        let is_it = |waiting: &CodeFlow| {
            let is_browser = match (&waiting.browser, &browser) {
                (None, _) => true,
                (Some(bound), Some(browser)) => bound.is(browser),
                (Some(_), None) => false,
            };
            let is_own = bearer.own.is_none_or(|own| waiting.subject.account == own);
            waiting.pending.is_state_of(redirect) && is_browser && is_own && now < waiting.expires
        };
        let place = self.waiting.iter().position(is_it)?;
        self.waiting.remove(place)
    }
}
