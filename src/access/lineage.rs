//! Tokens that tokens make: one can do no more than its maker, and ends with it (INTERFACE §4).
//!
//! What is asked for is held against the maker when the token is made (`bind`), and whoever presents it is held against all
//! makers in its line once more ([`Line`]), so that neither an older record nor a maker that has ended leaves a way around.

use std::net::IpAddr;

use super::addresses;
use super::scope::Scope;
use crate::clock::Timestamp;
use crate::fault::FaultKind;
use crate::limits::TOKEN_GENERATIONS_MAX;
use crate::store::{Store, StoreError, TokenRecord};

/// An access token and those that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The token itself.
    pub token: TokenRecord,
    /// Its maker first, then that one's, and so on.
    makers: Vec<TokenRecord>,
}

/// What a token asks for that its maker may not give. The text is for whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeyondMaker {
    /// A scope.
    #[error("{field}: this token may not grant '{scope}'; it may grant {}", list(.allowed))]
    Scope {
        /// The field that holds it.
        field: String,
        /// Which.
        scope: String,
        /// What would do.
        allowed: Vec<String>,
    },
    /// Addresses.
    #[error("restrictions.addresses: must be within those of the token that asks")]
    Addresses,
    /// A later end.
    #[error("expires: must not be after {0}, when the token that asks ends")]
    Expires(Timestamp),
    /// One more generation.
    #[error("this token comes from {TOKEN_GENERATIONS_MAX} others, one after the other, and may make no more")]
    Generations,
}

impl Line {
    /// The line of `token`; `None` if one of it is gone, is of another account, or is none that may make tokens: such a token
    /// counts as deleted.
    pub(super) async fn of(store: &dyn Store, token: TokenRecord) -> Result<Option<Self>, StoreError> {
        let mut makers = Vec::new();
        let mut parent = token.parent;
        while let Some(id) = parent {
            let Some(maker) = store.token(&id).await? else {
                return Ok(None);
            };
            let may_make = maker.account == token.account && Scope::Api.is_granted_by(&maker.scopes);
            if !may_make || makers.len() >= TOKEN_GENERATIONS_MAX {
                return Ok(None);
            }
            parent = maker.parent;
            makers.push(maker);
        }
        Ok(Some(Self { token, makers }))
    }

    /// A token that no token made.
    #[cfg(test)]
    pub(crate) fn first(token: TokenRecord) -> Self {
        let makers = Vec::new();
        Self { token, makers }
    }

    /// Whether the token has `scope`, and none of its makers would have been wrong to give it.
    pub fn grants(&self, scope: Scope) -> bool {
        let could_give = |maker: &TokenRecord| {
            scope.is_granted_by(&maker.scopes) || maker.may_grant.iter().any(|name| name == scope.name())
        };
        scope.is_granted_by(&self.token.scopes) && self.makers.iter().all(could_give)
    }

    /// Whether the token, and with it each of its makers, may be used from `address` and at `now`.
    pub(super) fn check_use(&self, address: IpAddr, now: Timestamp) -> Result<(), FaultKind> {
        let mut all = std::iter::once(&self.token).chain(&self.makers);
        if !all
            .clone()
            .all(|token| addresses::allows(token.restrictions.as_ref(), address))
        {
            return Err(FaultKind::AddressNotAllowed);
        }
        if all.any(|token| token.expires.is_some_and(|expires| expires <= now)) {
            return Err(FaultKind::TokenExpired);
        }
        Ok(())
    }

    /// Makes `new`, which this token asks for, one of its own: what was left open (addresses, an end) becomes the maker's.
    ///
    /// # Errors
    /// [`BeyondMaker`] for the first thing that this token may not give.
    pub fn bind(&self, new: &mut TokenRecord) -> Result<(), BeyondMaker> {
        let maker = &self.token;
        if self.makers.len() >= TOKEN_GENERATIONS_MAX {
            return Err(BeyondMaker::Generations);
        }
        let own = maker.scopes.iter().chain(&maker.may_grant).cloned();
        check_scopes("scopes", &new.scopes, &own.collect::<Vec<_>>())?;
        check_scopes("mayGrant", &new.may_grant, &maker.may_grant)?;
        let is_open = |token: &TokenRecord| token.restrictions.as_ref().is_none_or(|it| it.addresses.is_empty());
        if is_open(new) {
            new.restrictions.clone_from(&maker.restrictions);
        } else if !addresses::is_within(new.restrictions.as_ref(), maker.restrictions.as_ref()) {
            return Err(BeyondMaker::Addresses);
        }
        match (new.expires, maker.expires) {
            (Some(asked), Some(end)) if asked > end => return Err(BeyondMaker::Expires(end)),
            (None, end) => new.expires = end,
            (Some(_), _) => {}
        }
        new.parent = Some(maker.id);
        Ok(())
    }
}

fn check_scopes(field: &str, asked: &[String], allowed: &[String]) -> Result<(), BeyondMaker> {
    match asked.iter().enumerate().find(|(_, scope)| !allowed.contains(scope)) {
        None => Ok(()),
        Some((index, scope)) => Err(BeyondMaker::Scope {
            field: format!("{field}[{index}]"),
            scope: scope.clone(),
            allowed: allowed.to_vec(),
        }),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Restrictions, TokenId};

    const NOON: Timestamp = Timestamp::from_millis(1_000_000);

    fn names(scopes: &[&str]) -> Vec<String> {
        scopes.iter().map(|scope| (*scope).to_owned()).collect()
    }

    fn token(id: u8, scopes: &[&str]) -> TokenRecord {
        TokenRecord::new(TokenId([id; 32]), Some("a".to_owned()), names(scopes), NOON)
    }

    fn within(ranges: &[&str]) -> Option<Restrictions> {
        let addresses = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Some(Restrictions { addresses })
    }

    fn maker() -> Line {
        Line::first(TokenRecord {
            may_grant: names(&["imap-proxy", "pop3"]),
            restrictions: within(&["10.0.0.0/8"]),
            expires: Some(NOON),
            ..token(1, &["api", "smtp"])
        })
    }

    #[test]
    fn a_token_takes_over_from_its_maker_what_it_leaves_open() {
        for open in [None, within(&[])] {
            let mut new = TokenRecord {
                restrictions: open,
                ..token(2, &["imap-proxy"])
            };
            maker().bind(&mut new).unwrap();
            assert_eq!(new.parent, Some(TokenId([1; 32])));
            assert_eq!((new.restrictions, new.expires), (within(&["10.0.0.0/8"]), Some(NOON)));
        }
        let mut unbound = maker();
        (unbound.token.restrictions, unbound.token.expires) = (None, None);
        let mut new = TokenRecord {
            restrictions: within(&["192.0.2.1/32"]),
            expires: Some(NOON),
            ..token(2, &["smtp"])
        };
        let asked = new.clone();
        unbound.bind(&mut new).unwrap();
        assert_eq!(
            new,
            TokenRecord {
                parent: Some(TokenId([1; 32])),
                ..asked
            }
        );
    }

    #[test]
    fn a_token_that_asks_for_more_than_its_maker_may_give_names_what() {
        let asked = token(2, &["api"]);
        for (new, expected) in [
            (
                token(2, &["api", "metrics"]),
                "scopes[1]: this token may not grant 'metrics'; it may grant api, smtp, imap-proxy, pop3",
            ),
            (
                TokenRecord {
                    may_grant: names(&["pop3", "smtp"]),
                    ..asked.clone()
                },
                "mayGrant[1]: this token may not grant 'smtp'; it may grant imap-proxy, pop3",
            ),
            (
                TokenRecord {
                    restrictions: within(&["10.1.0.0/16", "11.0.0.0/8"]),
                    ..asked.clone()
                },
                "restrictions.addresses: must be within those of the token that asks",
            ),
            (
                TokenRecord {
                    expires: Some(Timestamp::from_millis(1_000_001)),
                    ..asked.clone()
                },
                "expires: must not be after 1970-01-01T00:16:40.000Z, when the token that asks ends",
            ),
        ] {
            let refused = maker().bind(&mut new.clone()).unwrap_err();
            assert_eq!(refused.to_string(), expected);
        }
        let mut last = maker();
        last.makers = vec![token(9, &["api"]); TOKEN_GENERATIONS_MAX];
        assert_eq!(last.bind(&mut asked.clone()), Err(BeyondMaker::Generations));
    }

    #[test]
    fn what_a_maker_could_not_give_is_not_granted_whatever_the_record_says() {
        let line = Line {
            token: token(3, &["imap-proxy", "smtp", "metrics", "api"]),
            makers: vec![
                TokenRecord {
                    may_grant: names(&["imap-proxy"]),
                    ..token(2, &["api", "smtp"])
                },
                TokenRecord {
                    may_grant: names(&["imap-proxy"]),
                    ..token(1, &["api"])
                },
            ],
        };
        for (scope, expected) in [
            (Scope::ImapProxy, true),
            (Scope::Api, true),
            (Scope::Smtp, false),
            (Scope::Metrics, false),
            (Scope::Pop3, false),
        ] {
            assert_eq!(line.grants(scope), expected, "{scope}");
        }
    }

    fn any_scopes() -> impl Strategy<Value = Vec<String>> {
        let all = names(&["imap-proxy", "smtp", "pop3", "api", "metrics"]);
        prop::sample::subsequence(all, 0..5)
    }

    fn any_token() -> impl Strategy<Value = TokenRecord> {
        let ranges = prop::sample::subsequence(vec!["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "::1/128"], 0..4);
        let times = prop::option::of((0..4_u64).prop_map(Timestamp::from_millis));
        (any_scopes(), any_scopes(), ranges, times).prop_map(|(scopes, may_grant, ranges, expires)| TokenRecord {
            scopes,
            may_grant,
            restrictions: within(&ranges),
            expires,
            ..token(2, &[])
        })
    }

    proptest! {
        #[test]
        fn what_is_made_never_opens_what_its_maker_could_not_open_or_give(
            maker in any_token(),
            mut asked in prop::collection::vec(any_token(), 1..4),
            from in prop::sample::select(vec!["10.1.0.1", "10.2.0.1", "10.200.0.1", "::1", "192.0.2.1"]),
            now in 0..4_u64,
        ) {
            let (from, now) = (from.parse().unwrap(), Timestamp::from_millis(now));
            let mut line = Line::first(maker.clone());
            for new in &mut asked {
                if line.bind(new).is_err() {
                    continue;
                }
                let first = Line::first(maker.clone());
                let alone = Line::first(new.clone());
                // The record alone says no more than the maker does, without the check of the whole line.
                prop_assert!(alone.check_use(from, now).is_err() || first.check_use(from, now).is_ok());
                for scope in &new.scopes {
                    prop_assert!(maker.scopes.contains(scope) || maker.may_grant.contains(scope));
                }
                line.makers.insert(0, std::mem::replace(&mut line.token, new.clone()));
                for scope in &new.scopes {
                    prop_assert!(line.grants(scope.parse().unwrap()), "{scope} was given");
                }
            }
        }
    }
}
