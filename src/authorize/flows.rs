//! The code flows in progress: begun, and waiting for a browser to come back. Pure; time is an argument.
//!
//! ```text
//!   begin ──insert──> pending ──take: right state, right caller, right address, in time──> completed, once
//!                        │ └─ anything else leaves it as it is, for whoever is right
//!                        └─ expired, or pushed out by newer ones
//! ```
//! A flow is found by the SHA-256 of its state, so that how long a look-up takes tells nothing of any state; whoever guesses
//! must guess 256 bits. There are at most [`CODE_FLOWS_MAX`], and [`CODE_FLOWS_PER_ACCOUNT_MAX`] of one account: the oldest
//! goes.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::Url;

use super::error::AuthorizeError;
use super::{Consent, Via};
use crate::clock::Timestamp;
use crate::limits::{CODE_FLOW_LIFE, CODE_FLOWS_MAX, CODE_FLOWS_PER_ACCOUNT_MAX};
use crate::oauth::{PendingCode, Redirect};
use crate::secret::ExposeSecret;

/// All code flows in progress.
#[derive(Debug, Default)]
pub(super) struct Flows {
    flows: HashMap<Hash, Flow>,
}

/// One code flow in progress.
#[derive(Debug)]
pub(super) struct Flow {
    /// What it is for.
    pub(super) consent: Consent,
    /// What the exchange needs.
    pub(super) pending: PendingCode,
    /// The browser that must bring it back: the hash of what it keeps; `None`: whoever may act on the account.
    pub(super) browser: Option<Hash>,
    /// When it ends.
    pub(super) expires: Timestamp,
}

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// The SHA-256 of `bytes`.
pub(super) fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

impl Flows {
    /// Adds a flow that begins `now`, and returns when it ends.
    pub(super) fn insert(
        &mut self,
        consent: Consent,
        pending: PendingCode,
        browser: Option<Hash>,
        now: Timestamp,
    ) -> Timestamp {
        // Those that are over stay for a while, so that whoever comes late hears that.
        self.flows.retain(|_, flow| now < flow.expires.after(CODE_FLOW_LIFE));
        let of_account = |flow: &Flow| flow.consent.account == consent.account;
        if self.flows.values().filter(|flow| of_account(flow)).count() >= CODE_FLOWS_PER_ACCOUNT_MAX {
            self.remove_oldest(of_account);
        }
        if self.flows.len() >= CODE_FLOWS_MAX {
            self.remove_oldest(|_| true);
        }
        let expires = now.after(CODE_FLOW_LIFE);
        let key = hash(pending.state.expose_secret().as_bytes());
        let flow = Flow {
            consent,
            pending,
            browser,
            expires,
        };
        self.flows.insert(key, flow);
        expires
    }

    /// Takes the flow that `redirect` belongs to, which was read from `url` and came `via` somebody. Whoever is not right for
    /// it leaves it in its place.
    ///
    /// # Errors
    /// [`AuthorizeError::UnknownState`], also where the flow is another caller's or browser's;
    /// [`AuthorizeError::WrongRedirect`]; [`AuthorizeError::Expired`].
    pub(super) fn take(
        &mut self,
        redirect: &Redirect,
        url: &Url,
        via: &Via,
        now: Timestamp,
    ) -> Result<Flow, AuthorizeError> {
        let key = hash(redirect.state.as_bytes());
        let flow = self.flows.get(&key).ok_or(AuthorizeError::UnknownState)?;
        if !flow.pending.is_state_of(redirect) || !flow.is_for(via) {
            return Err(AuthorizeError::UnknownState);
        }
        if !is_same_place(url, flow.pending.redirect_uri.url()) {
            return Err(AuthorizeError::WrongRedirect(
                flow.pending.redirect_uri.as_str().to_owned(),
            ));
        }
        let flow = self.flows.remove(&key).ok_or(AuthorizeError::UnknownState)?;
        if now >= flow.expires {
            return Err(AuthorizeError::Expired);
        }
        Ok(flow)
    }

    fn remove_oldest(&mut self, of: impl Fn(&Flow) -> bool) {
        let candidates = self.flows.iter().filter(|(_, flow)| of(flow));
        let oldest = candidates
            .min_by_key(|(_, flow)| flow.consent.number)
            .map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.flows.remove(&key);
        }
    }
}

impl Flow {
    /// Whether the flow is one that may be completed this way. A browser's flow is that browser's alone, so that nobody can
    /// have another person's consent completed; one that the admin API began is also good for the public redirect, which is
    /// where its caller may have sent the browser.
    fn is_for(&self, via: &Via) -> bool {
        match (via, &self.browser) {
            (Via::Api { own }, None) => own.as_ref().is_none_or(|own| *own == self.consent.account),
            (Via::Api { .. }, Some(_)) => false,
            (Via::Browser(_), None) => true,
            (Via::Browser(kept), Some(expected)) => {
                let kept = kept.map(|kept| hash(&kept));
                kept.is_some_and(|kept| kept.ct_eq(expected).into())
            }
        }
    }
}

/// Whether `url` is `redirect_uri` but for its query and fragment.
fn is_same_place(url: &Url, redirect_uri: &Url) -> bool {
    let place = |url: &Url| {
        let mut url = url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    place(url) == place(redirect_uri)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authorize::tests::consent;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn pending(state: &str) -> PendingCode {
        PendingCode {
            state: state.into(),
            verifier: "v".into(),
            nonce: None,
            redirect_uri: Url::parse("http://localhost:4711/").unwrap().into(),
            issuer: None,
            scopes: Vec::new(),
        }
    }

    /// The URL that a browser brings for `state`, and what it says.
    fn back(state: &str) -> (Url, Redirect) {
        let url = Url::parse(&format!("http://localhost:4711/?code=c&state={state}")).unwrap();
        let redirect = Redirect::read(&url).unwrap();
        (url, redirect)
    }

    fn take(flows: &mut Flows, state: &str, via: &Via, now: Timestamp) -> Result<String, &'static str> {
        let (url, redirect) = back(state);
        let taken = flows.take(&redirect, &url, via, now);
        taken.map(|flow| flow.consent.account).map_err(|error| error.code())
    }

    fn api(own: Option<&str>) -> Via {
        Via::Api {
            own: own.map(str::to_owned),
        }
    }

    #[test]
    fn a_flow_is_completed_once() {
        let mut flows = Flows::default();
        let expires = flows.insert(consent("ada", 1), pending("s1"), None, START);
        assert_eq!(expires, START.after(CODE_FLOW_LIFE));
        assert_eq!(take(&mut flows, "s2", &api(None), START), Err("unknown_state"));
        assert_eq!(take(&mut flows, "s1", &api(None), START), Ok("ada".to_owned()));
        assert_eq!(take(&mut flows, "s1", &api(None), START), Err("unknown_state"));
    }

    #[test]
    fn only_who_is_right_for_a_flow_takes_it_and_others_leave_it_there() {
        let mine = [7; 32];
        let cases = [
            // The browser that began it; who comes; whether that is right.
            (None, api(None), true),
            (None, api(Some("ada")), true),
            (None, api(Some("bob")), false),
            (None, Via::Browser(None), true),
            (Some(mine), Via::Browser(Some(mine)), true),
            (Some(mine), Via::Browser(Some([8; 32])), false),
            (Some(mine), Via::Browser(None), false),
            (Some(mine), api(None), false),
            (Some(mine), api(Some("ada")), false),
        ];
        for (browser, via, is_right) in cases {
            let mut flows = Flows::default();
            flows.insert(consent("ada", 1), pending("s"), browser.map(|kept| hash(&kept)), START);
            let taken = take(&mut flows, "s", &via, START);
            assert_eq!(taken.is_ok(), is_right, "{browser:?} {via:?}");
            let right = browser.map_or(api(None), |kept| Via::Browser(Some(kept)));
            assert_eq!(take(&mut flows, "s", &right, START).is_ok(), !is_right, "{via:?}");
        }
    }

    #[test]
    fn a_url_of_another_place_is_refused_and_the_flow_stays() {
        let mut flows = Flows::default();
        flows.insert(consent("ada", 1), pending("s"), None, START);
        for place in [
            "http://localhost:4712/?code=c&state=s",
            "http://127.0.0.1:4711/?code=c&state=s",
            "http://localhost:4711/callback?code=c&state=s",
            "https://localhost:4711/?code=c&state=s",
        ] {
            let url = Url::parse(place).unwrap();
            let error = flows.take(&Redirect::read(&url).unwrap(), &url, &api(None), START);
            let error = error.unwrap_err();
            assert!(matches!(error, AuthorizeError::WrongRedirect(_)), "{place}: {error}");
        }
        assert!(take(&mut flows, "s", &api(None), START).is_ok());
    }

    #[test]
    fn a_flow_that_took_too_long_is_over() {
        let mut flows = Flows::default();
        for state in ["early", "late"] {
            flows.insert(consent("ada", 1), pending(state), None, START);
        }
        let end = START.after(CODE_FLOW_LIFE);
        let before = end.before(Duration::from_millis(1));
        assert_eq!(take(&mut flows, "early", &api(None), before), Ok("ada".to_owned()));
        assert_eq!(take(&mut flows, "late", &api(None), end), Err("expired"));
    }

    #[test]
    fn newer_flows_push_out_the_oldest_of_their_account_and_then_of_all() {
        let mut flows = Flows::default();
        flows.insert(consent("bob", 0), pending("bob"), None, START);
        for number in 1..=CODE_FLOWS_PER_ACCOUNT_MAX + 1 {
            flows.insert(
                consent("ada", number as u64),
                pending(&format!("ada{number}")),
                None,
                START,
            );
        }
        assert_eq!(take(&mut flows, "ada1", &api(None), START), Err("unknown_state"));
        assert!(take(&mut flows, "ada2", &api(None), START).is_ok());
        for number in 0..CODE_FLOWS_MAX {
            let account = format!("account{number}");
            flows.insert(consent(&account, 100 + number as u64), pending(&account), None, START);
        }
        assert_eq!(flows.flows.len(), CODE_FLOWS_MAX);
        assert_eq!(take(&mut flows, "bob", &api(None), START), Err("unknown_state"));
        assert!(take(&mut flows, "account0", &api(None), START).is_ok());
    }

    #[test]
    fn flows_that_are_long_over_are_forgotten() {
        let mut flows = Flows::default();
        flows.insert(consent("ada", 1), pending("s"), None, START);
        flows.insert(consent("bob", 2), pending("t"), None, START.after(2 * CODE_FLOW_LIFE));
        assert_eq!(flows.flows.len(), 1);
    }
}
