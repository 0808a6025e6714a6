//! Which access token is meant by what was typed: its id, the beginning of its id (INTERFACE §2), or the token itself.

use super::Failure;
use super::daemon::answer;
use super::output::clean;
use crate::admin::client::{Client, segment};
use crate::admin::types::{TokenView, TokensPage};
use crate::limits::{PAGE_SIZE_MAX, TOKEN_ID_PREFIX_MIN, TOKEN_ID_SHORT_DIGITS};
use crate::store::TokenId;

/// What the API is to be asked for: the whole id, where `typed` is the beginning of one; else what was typed.
///
/// # Errors
/// 2 for a beginning that is too short, 1 for one that several ids have; those of the daemon.
pub(super) async fn resolve(client: &Client, typed: &str) -> Result<String, Failure> {
    let is_hex = typed.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hex || typed.parse::<TokenId>().is_ok() {
        return Ok(typed.to_owned());
    }
    if typed.len() < TOKEN_ID_PREFIX_MIN {
        return Err(Failure::usage(format!(
            "'{typed}' is too short: give {TOKEN_ID_PREFIX_MIN} digits of the token's id or more"
        )));
    }
    match &*beginning_with(client, typed).await? {
        // The API says so, or finds that it is a short token which looks like that.
        [] => Ok(typed.to_owned()),
        [token] => Ok(token.id.to_string()),
        several => Err(Failure::failed(ambiguous(typed, several))),
    }
}

/// The id of the token that is meant, for a filter: of a whole id it does not matter whether its token still exists.
///
/// A token itself has the form of an id, so that the daemon is asked in any case.
///
/// # Errors
/// As [`resolve`].
pub(super) async fn resolve_id(client: &Client, typed: &str) -> Result<TokenId, Failure> {
    let resolved = resolve(client, typed).await?;
    match view(client, &resolved).await {
        Ok(token) => Ok(token.id),
        Err(failure) => resolved.parse().map_err(|_| failure),
    }
}

/// The token that the API knows by `name`.
///
/// # Errors
/// Those of the daemon.
async fn view(client: &Client, name: &str) -> Result<TokenView, Failure> {
    let path = format!("/v1/tokens/{}", segment(name));
    Ok(answer(client.read::<TokenView>(&path, &[])).await?.value)
}

/// The tokens whose ids begin with `digits`; not all of them where there are several.
async fn beginning_with(client: &Client, digits: &str) -> Result<Vec<TokenView>, Failure> {
    let mut found = Vec::new();
    for page in 0.. {
        let query = [
            ("query", digits.to_owned()),
            ("page", page.to_string()),
            ("pageSize", PAGE_SIZE_MAX.to_string()),
        ];
        let listed = answer(client.read::<TokensPage>("/v1/tokens", &query)).await?.value;
        // A description may hold the digits as well.
        let matching = listed.tokens.into_iter();
        found.extend(matching.filter(|token| token.id.to_string().starts_with(digits)));
        if found.len() > 1 || page + 1 >= listed.head.pages {
            break;
        }
    }
    Ok(found)
}

fn ambiguous(digits: &str, several: &[TokenView]) -> String {
    let shown = (digits.len() + MORE_DIGITS).max(TOKEN_ID_SHORT_DIGITS);
    let mut lines = format!("several tokens' ids begin with '{digits}'; give more digits:");
    for token in several.iter().take(CANDIDATES_MAX) {
        let id: String = token.id.to_string().chars().take(shown).collect();
        lines.push_str(&format!("\n  {id}  {}", clean(&token.description)));
    }
    lines
}

/// Digits that are shown of an ambiguous id beyond those that were given, and for how many tokens.
const MORE_DIGITS: usize = 4;
const CANDIDATES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::client::Target;
    use crate::admin::test_support::Daemon;
    use crate::admin::types::TokenCreated;
    use crate::clock::Timestamp;
    use crate::store::TokenRecord;

    /// A daemon with tokens of these ids, given by their first and last byte.
    async fn daemon(ids: &[(u8, u8)]) -> (Daemon, Client) {
        let daemon = Daemon::start().await;
        let client = Client::new(Target::Socket(daemon.socket.clone()), None);
        for (first, last) in ids {
            let mut id = [*first; 32];
            id[31] = *last;
            let record = TokenRecord {
                description: format!("ends in {last}; not {}", "ab".repeat(3)),
                ..TokenRecord::new(TokenId(id), None, vec!["*".to_owned()], Timestamp::EPOCH)
            };
            daemon.world.tokens.lock().unwrap().push(record);
        }
        (daemon, client)
    }

    #[tokio::test]
    async fn a_beginning_finds_the_one_token_that_has_it() {
        let (_daemon, client) = daemon(&[(0xcd, 1), (0xef, 2), (0xef, 3)]).await;
        let whole = format!("{}01", "cd".repeat(31));
        for typed in ["cdcdcd", "cdcdcdcdc", whole.split_at(63).0, &whole] {
            assert_eq!(resolve(&client, typed).await.unwrap(), whole, "{typed}");
            assert_eq!(resolve_id(&client, typed).await.unwrap().to_string(), whole, "{typed}");
        }
        let failure = resolve(&client, "cdcdc").await.unwrap_err();
        assert_eq!(failure.exit, crate::cli::Exit::Usage);
        assert_eq!(
            failure.message,
            "'cdcdc' is too short: give 6 digits of the token's id or more"
        );
        let failure = resolve(&client, "efefef").await.unwrap_err();
        assert_eq!(
            failure.message,
            "several tokens' ids begin with 'efefef'; give more digits:\n  efefefefef  ends in 3; not ababab\n  \
             efefefefef  ends in 2; not ababab"
        );
    }

    #[tokio::test]
    async fn what_is_no_beginning_of_an_id_is_for_the_api_to_judge() {
        let (daemon, client) = daemon(&[(0xcd, 1)]).await;
        for typed in ["ababab", "no token", "CDCDCD"] {
            assert_eq!(resolve(&client, typed).await.unwrap(), typed);
            let failure = resolve_id(&client, typed).await.unwrap_err();
            assert_eq!(failure.message, format!("no such token '{typed}'"));
        }
        // The id of a token that was deleted, for the events that are left of it.
        let gone = "0".repeat(64);
        assert_eq!(resolve_id(&client, &gone).await.unwrap().to_string(), gone);
        for form in ["short", "hex"] {
            let body = json!({"form": form});
            let made = client.create::<TokenCreated>("/v1/token", &body).await.unwrap().value;
            assert_eq!(resolve_id(&client, &made.token).await.unwrap(), made.id, "{form}");
        }
        drop(daemon);
    }
}
