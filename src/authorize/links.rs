//! Hosted links: what they hold, and which of them are spent. Pure but for the randomness of the seal; time is an argument.
//!
//! A link's token is sealed, by a key that comes from the store's master key: nobody can make or change one, nor read in it
//! what an address bar, a history or a log would show, and it is good beyond a restart.
//!
//! ```text
//!   made ──open──> good ──completed──> used         (its id is remembered, and the account's record says when)
//!                   │ └─ failed, denied: still good
//!                   ├─ 24 hours ──> expired
//!                   └─ the account was removed, or is another by now ──> gone
//! ```

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::error::LinkProblem;
use super::flows::{Hash, hash};
use crate::clock::Timestamp;
use crate::limits::{LINK_BYTES_MAX, LINK_LIFE, SPENT_LINKS_MAX};
use crate::store::AccountRecord;
use crate::store::master_key::MasterKey;
use crate::store::seal::{SealError, Sealer};

/// What a link is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payload {
    /// The account's id.
    #[serde(rename = "a")]
    pub(super) account: String,
    /// The mailbox's address, where one was given or is known.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    /// The provider's name in the configuration.
    #[serde(rename = "p")]
    pub(super) provider: String,
    /// Where the browser goes at the end.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(super) return_to: Option<Url>,
    /// When it was made.
    #[serde(rename = "i")]
    pub(super) issued: Timestamp,
    /// When the account was added that it is for; `None`: the link adds it.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<Timestamp>,
}

/// A link that was opened.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// What it is for.
    pub(super) payload: Payload,
    /// Its token's hash, by which it is spent.
    id: Hash,
}

/// Makes and opens links.
pub(super) struct Links {
    sealer: Sealer,
    /// The ids of links that have done their work, and when they would have ended.
    spent: HashMap<Hash, Timestamp>,
}

impl Links {
    /// Links sealed with `key`.
    pub(super) fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            sealer: Sealer::new(&MasterKey::from_bytes(**key)),
            spent: HashMap::new(),
        }
    }

    /// Makes the token of a link. No two are alike, since the seal is random.
    ///
    /// # Errors
    /// [`SealError`], if the system has no random bytes.
    pub(super) fn make(&self, payload: &Payload) -> Result<String, SealError> {
        let plain = serde_json::to_vec(payload).map_err(|_| SealError::Malformed)?;
        let sealed = self.sealer.seal(SPACE, &[], Zeroizing::new(plain))?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Opens the link of `token` at the moment `now`. Opening consumes nothing.
    ///
    /// # Errors
    /// [`LinkProblem`], but [`LinkProblem::Gone`], for which see [`Link::check`].
    pub(super) fn open(&self, token: &str, now: Timestamp) -> Result<Link, LinkProblem> {
        if token.len() > LINK_BYTES_MAX {
            return Err(LinkProblem::Forged);
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| LinkProblem::Forged)?;
        let plain = self.sealer.open(SPACE, &[], &sealed).map_err(|_| LinkProblem::Forged)?;
        let payload: Payload = serde_json::from_slice(&plain).map_err(|_| LinkProblem::Forged)?;
        let link = Link {
            payload,
            id: hash(&sealed),
        };
        if now >= link.expires() {
            return Err(LinkProblem::Expired);
        }
        if self.is_spent(&link) {
            return Err(LinkProblem::Used);
        }
        Ok(link)
    }

    /// Whether `link` has done its work.
    pub(super) fn is_spent(&self, link: &Link) -> bool {
        self.spent.contains_key(&link.id)
    }

    /// `link` has done its work.
    pub(super) fn spend(&mut self, link: &Link, now: Timestamp) {
        self.spent.retain(|_, expires| now < *expires);
        if self.spent.len() >= SPENT_LINKS_MAX {
            // The account's record still tells that this one was used.
            let oldest = self
                .spent
                .iter()
                .min_by_key(|(_, expires)| **expires)
                .map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.spent.remove(&oldest);
            }
        }
        self.spent.insert(link.id, link.expires());
    }
}

impl Link {
    /// Whether the link is still good for `record`, which is the account's now.
    ///
    /// # Errors
    /// [`LinkProblem::Used`] where its owner has consented since it was made, by this link or otherwise;
    /// [`LinkProblem::Gone`] where the account was removed, or is another.
    pub(super) fn check(&self, record: Option<&AccountRecord>) -> Result<(), LinkProblem> {
        let Payload {
            provider,
            issued,
            created,
            ..
        } = &self.payload;
        let Some(record) = record else {
            return if created.is_some() {
                Err(LinkProblem::Gone)
            } else {
                Ok(())
            };
        };
        if record.authorized.is_some_and(|authorized| authorized >= *issued) {
            return Err(LinkProblem::Used);
        }
        let is_another = created.is_some_and(|created| created != record.created);
        if is_another || record.provider != *provider {
            return Err(LinkProblem::Gone);
        }
        Ok(())
    }

    fn expires(&self) -> Timestamp {
        self.payload.issued.after(LINK_LIFE)
    }
}

/// What the seal is bound to, beside its key.
const SPACE: &str = "hosted link";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::account::tests::support::account;

    const MADE: Timestamp = Timestamp::from_millis(1_000_000);

    fn links(key: u8) -> Links {
        Links::new(&Zeroizing::new([key; 32]))
    }

    fn payload() -> Payload {
        Payload {
            account: "ada".to_owned(),
            email: Some("ada@example.com".to_owned()),
            provider: "example".to_owned(),
            return_to: Url::parse("https://app.example.com/done").ok(),
            issued: MADE,
            created: None,
        }
    }

    #[test]
    fn a_link_opens_as_it_was_made_and_as_often_as_one_likes() {
        let links = links(1);
        let token = links.make(&payload()).unwrap();
        assert!(
            token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        );
        for _ in 0..2 {
            assert_eq!(links.open(&token, MADE).unwrap().payload, payload());
        }
        assert!(!token.contains("ada"));
        assert_ne!(links.make(&payload()).unwrap(), token);
    }

    #[test]
    fn a_link_of_another_key_or_none_at_all_is_forged() {
        let token = links(2).make(&payload()).unwrap();
        let long = "A".repeat(LINK_BYTES_MAX + 1);
        for token in [token.as_str(), "", "AAAA", "a b", "ä", &long] {
            assert_eq!(
                links(1).open(token, MADE).unwrap_err(),
                LinkProblem::Forged,
                "{token:.40}"
            );
        }
    }

    #[test]
    fn a_link_is_good_for_a_day() {
        let links = links(1);
        let token = links.make(&payload()).unwrap();
        let end = MADE.after(LINK_LIFE);
        assert!(links.open(&token, end.before(Duration::from_millis(1))).is_ok());
        assert_eq!(links.open(&token, end).unwrap_err(), LinkProblem::Expired);
    }

    #[test]
    fn a_spent_link_is_used_and_another_for_the_same_is_not() {
        let mut links = links(1);
        let (token, other) = (links.make(&payload()).unwrap(), links.make(&payload()).unwrap());
        let link = links.open(&token, MADE).unwrap();
        links.spend(&link, MADE);
        assert!(links.is_spent(&link));
        assert_eq!(links.open(&token, MADE).unwrap_err(), LinkProblem::Used);
        assert!(links.open(&other, MADE).is_ok());
        // Once it has ended by itself there is no need to remember it.
        let other = links.open(&other, MADE).unwrap();
        links.spend(&other, MADE.after(LINK_LIFE));
        assert!(!links.is_spent(&link));
    }

    #[test]
    fn what_has_become_of_the_account_decides_too() {
        let links = links(1);
        let created = MADE.before(Duration::from_secs(60));
        let link = |created| {
            let token = links.make(&Payload { created, ..payload() }).unwrap();
            links.open(&token, MADE).unwrap()
        };
        let record = |authorized, provider: &str| AccountRecord {
            created,
            authorized,
            provider: provider.to_owned(),
            ..account("ada")
        };
        let earlier = Some(MADE.before(Duration::from_millis(1)));
        let cases = [
            (link(None), None, Ok(())),
            (link(Some(created)), None, Err(LinkProblem::Gone)),
            (link(Some(created)), Some(record(None, "example")), Ok(())),
            (link(Some(created)), Some(record(earlier, "example")), Ok(())),
            (
                link(Some(created)),
                Some(record(Some(MADE), "example")),
                Err(LinkProblem::Used),
            ),
            (link(None), Some(record(Some(MADE), "example")), Err(LinkProblem::Used)),
            (link(None), Some(record(None, "example")), Ok(())),
            (link(Some(created)), Some(record(None, "other")), Err(LinkProblem::Gone)),
            (link(Some(MADE)), Some(record(None, "example")), Err(LinkProblem::Gone)),
        ];
        for (index, (link, record, expected)) in cases.into_iter().enumerate() {
            assert_eq!(link.check(record.as_ref()), expected, "case {index}");
        }
    }

    proptest! {
        #[test]
        fn any_changed_character_is_noticed(at: prop::sample::Index, with in "[A-Za-z0-9_-]") {
            let links = links(1);
            let token = links.make(&payload()).unwrap();
            let at = at.index(token.len());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(links.open(&changed, MADE).is_ok(), changed == token);
        }
    }
}
