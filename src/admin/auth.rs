//! Who calls the admin API, and what they may do.
//!
//! On the Unix socket the kernel vouches for the peer's user: the daemon's own and root are root callers. Everybody else,
//! and everybody on TCP, presents a token. A caller who presents one acts with its rights only, whoever they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, header};

use super::error::ApiError;
use super::state::AdminState;
use crate::access::{self, Bearer, Line, Scope};
use crate::clock::Timestamp;
use crate::fault::{Fault, FaultKind};
use crate::secret::{self, SecretString};
use crate::store::TokenUse;

/// The other end of a connection, as the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process on this machine, and the user it ran as when it connected.
    Unix {
        /// The user, where the system could tell.
        uid: Option<u32>,
    },
    /// A TCP client.
    Tcp(SocketAddr),
}

/// Somebody who has shown who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// May do everything.
    Root,
    /// Holds an access token.
    Token(Box<Line>),
}

impl Caller {
    /// Refuses all but root callers.
    pub(super) fn require_root(&self) -> Result<(), ApiError> {
        match self {
            Self::Root => Ok(()),
            Self::Token(_) => Err(ApiError::forbidden("this takes a root token (scope *)")),
        }
    }

    /// Refuses callers that may not act on `account`, whether or not it exists.
    pub(super) fn require_account(&self, account: Option<&str>) -> Result<(), ApiError> {
        match self.own_account()? {
            None => Ok(()),
            Some(own) if account == Some(own) => Ok(()),
            Some(_) => Err(ApiError::forbidden("this token is for its own account only")),
        }
    }

    /// The one account that this caller may act on; `None`: all.
    pub(super) fn own_account(&self) -> Result<Option<&str>, ApiError> {
        match self {
            Self::Root => Ok(None),
            // A token of no account that is not root's can do nothing: no account has an empty id.
            Self::Token(line) if line.grants(Scope::Api) => Ok(Some(line.token.account.as_deref().unwrap_or_default())),
            Self::Token(_) => Err(ApiError::forbidden("this takes a token with the scope api")),
        }
    }

    /// The one account whose entries this caller may list, where `asked` are asked for; `None`: all accounts' entries.
    pub(super) fn visible_account(&self, asked: Option<String>) -> Result<Option<String>, ApiError> {
        match (self.own_account()?, asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.to_owned())),
            (Some(_), Some(asked)) => {
                self.require_account(Some(&asked))?;
                Ok(Some(asked))
            }
        }
    }

    /// Refuses callers that may not read the metrics.
    pub(super) fn require_metrics(&self) -> Result<(), ApiError> {
        match self {
            Self::Root => Ok(()),
            Self::Token(line) if line.grants(Scope::Metrics) => Ok(()),
            Self::Token(_) => Err(ApiError::forbidden("this takes a token with the scope metrics")),
        }
    }
}

/// Finds out who calls.
///
/// # Errors
/// 401 for nobody known, 403 for a token that is not accepted from this address; those of the store.
pub(super) async fn authenticate(
    state: &AdminState,
    peer: Peer,
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Caller, ApiError> {
    let Some(token) = bearer(headers)? else {
        let own_uid = rustix::process::geteuid().as_raw();
        return if is_admitted(peer, own_uid) {
            Ok(Caller::Root)
        } else {
            Err(ApiError::unauthorized(
                "unauthorized",
                "send a token: Authorization: Bearer <token>",
            ))
        };
    };
    // A process on this machine counts as the loopback address that it could have called from as well.
    let address = match peer {
        Peer::Unix { .. } => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Peer::Tcp(address) => address.ip().to_canonical(),
    };
    let root = state.config.borrow().admin.root_token.as_ref().map(secret::duplicate);
    let presented = SecretString::from(token);
    let bearer = access::recognize(state.store.as_ref(), root.as_ref(), &presented, address, now).await;
    match bearer.map_err(refused)? {
        Bearer::ConfiguredRoot => Ok(Caller::Root),
        Bearer::Token(line) => {
            if let Peer::Tcp(_) = peer {
                state
                    .store
                    .record_token_use(line.token.id, TokenUse { time: now, ip: address });
            }
            Ok(caller_of(line))
        }
    }
}

/// Whether the kernel's word alone makes `peer` a root caller.
fn is_admitted(peer: Peer, own_uid: u32) -> bool {
    match peer {
        Peer::Unix { uid: Some(uid) } => uid == own_uid || uid == 0,
        Peer::Unix { uid: None } | Peer::Tcp(_) => false,
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let malformed = || ApiError::unauthorized("unauthorized", "only Authorization: Bearer <token> is understood");
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Some(token.trim()))
    } else {
        Err(malformed())
    }
}

fn refused(fault: Fault) -> ApiError {
    match fault.kind {
        FaultKind::AddressNotAllowed => ApiError::forbidden("this token is not accepted from this address"),
        FaultKind::TokenExpired => ApiError::unauthorized("invalid_token", "the token has expired"),
        FaultKind::UnknownCredentials => ApiError::unauthorized("invalid_token", "unknown token"),
        _ => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", fault.detail),
    }
}

fn caller_of(line: Box<Line>) -> Caller {
    if line.token.account.is_none() && line.grants(Scope::All) {
        Caller::Root
    } else {
        Caller::Token(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_own_user_and_root_are_admitted_by_the_kernels_word() {
        let tcp = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 1)));
        for (peer, admitted) in [
            (Peer::Unix { uid: Some(1000) }, true),
            (Peer::Unix { uid: Some(0) }, true),
            (Peer::Unix { uid: Some(1001) }, false),
            (Peer::Unix { uid: None }, false),
            (tcp, false),
        ] {
            assert_eq!(is_admitted(peer, 1000), admitted, "{peer:?}");
        }
    }

    #[test]
    fn only_the_bearer_scheme_is_understood() {
        let headers = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            headers
        };
        assert_eq!(bearer(&HeaderMap::new()).unwrap(), None);
        assert_eq!(bearer(&headers("Bearer abc")).unwrap(), Some("abc"));
        assert_eq!(bearer(&headers("bearer  abc")).unwrap(), Some("abc"));
        for value in ["Basic YTpi", "abc", ""] {
            assert!(bearer(&headers(value)).is_err(), "{value}");
        }
    }
}
