//! Whether what a provider issued is what was asked for: for good, and for this mailbox. Pure.
//!
//! Whether it is for all of the mail, the login at the mailbox tells, which is tried next: what the provider says of scopes is a
//! hint where to look.

use super::error::AuthorizeError;
use crate::clock::Timestamp;
use crate::oauth::TokenAnswer;
use crate::store::{AccountRecord, Grant};

/// A grant that may be tried.
#[derive(Debug)]
pub(super) struct Judged {
    /// What is to be kept, with the access token to try.
    pub(super) grant: Grant,
    /// Whose it is, as far as the provider told.
    pub(super) owner: Owner,
    /// The scopes that the provider left out as it told which it granted.
    pub(super) left_out: Vec<String>,
}

/// Whose a grant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The mailbox's own, as the provider says.
    Confirmed,
    /// The provider did not say, or it is a person who opens another's mailbox.
    Unknown,
}

/// Judges the `answer`, which came `now`, to a consent for `record`'s mailbox that `asked` for these scopes.
///
/// # Errors
/// [`AuthorizeError::PartialConsent`], [`AuthorizeError::NoRefreshToken`], [`AuthorizeError::WrongMailbox`].
pub(super) fn judge(
    answer: TokenAnswer,
    asked: &[String],
    record: &AccountRecord,
    now: Timestamp,
) -> Result<Judged, AuthorizeError> {
    let left_out: Vec<String> = answer.missing(asked).map(str::to_owned).collect();
    if answer.refresh_token.is_none() {
        let unlasting = unlasting(&answer, asked).map(str::to_owned);
        let missing: Vec<String> = left_out.into_iter().chain(unlasting).collect();
        return Err(match missing.is_empty() {
            true => AuthorizeError::NoRefreshToken,
            false => AuthorizeError::PartialConsent(missing),
        });
    }
    let owner = owner(&answer, record)?;
    let ends = answer.ends_in.map(|life| now.after(life));
    let grant = Grant {
        refresh_token: answer.refresh_token,
        access_token: Some(answer.access_token),
        obtained: Some(now),
        expires: Some(now.after(answer.expires_in)),
        scope: answer.scopes.map(|scopes| scopes.join(" ")),
        names_no_scopes: false,
        user: answer.user,
        ends,
        ends_told: ends.map(|_| now),
        warned_of: None,
    };
    Ok(Judged { grant, owner, left_out })
}

/// The scope for which the answer has no refresh token, where it tells that the owner did not grant that.
fn unlasting<'a>(answer: &TokenAnswer, asked: &'a [String]) -> Option<&'a str> {
    let granted = answer.scopes.as_ref().filter(|_| answer.refresh_token.is_none())?;
    let is_offline = |scope: &&str| scope.eq_ignore_ascii_case(OFFLINE_ACCESS);
    let is_granted = granted.iter().map(String::as_str).any(|scope| is_offline(&scope));
    asked
        .iter()
        .map(String::as_str)
        .find(is_offline)
        .filter(|_| !is_granted)
}

/// The mailbox that a consent is for, where it has an address: what is shown to its owner and to the provider.
pub(super) fn mailbox(record: &AccountRecord) -> Option<&str> {
    let id = Some(&record.account).filter(|id| id.contains('@'));
    record.email.as_ref().or(id).map(String::as_str)
}

fn owner(answer: &TokenAnswer, record: &AccountRecord) -> Result<Owner, AuthorizeError> {
    // A shared mailbox is opened by somebody else's grant, and the login tells whether they may.
    if record.user.is_some() {
        return Ok(Owner::Unknown);
    }
    let (Some(identity), Some(asked)) = (&answer.identity, mailbox(record)) else {
        return Ok(Owner::Unknown);
    };
    let mut names = identity.addresses();
    let Some(given) = names.next() else {
        return Ok(Owner::Unknown);
    };
    let is_asked = |name: &str| name.to_lowercase() == asked.to_lowercase();
    if is_asked(given) || names.any(is_asked) {
        return Ok(Owner::Confirmed);
    }
    Err(AuthorizeError::WrongMailbox {
        asked: asked.to_owned(),
        given: given.to_owned(),
    })
}

/// OpenID Connect Core 1.0 §11: asks for a refresh token.
const OFFLINE_ACCESS: &str = "offline_access";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::account::tests::support::account;
    use crate::oauth::Identity;
    use crate::secret::ExposeSecret;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn answer() -> TokenAnswer {
        TokenAnswer {
            refresh_token: Some("r".into()),
            ..TokenAnswer::bearer("a".into(), Duration::from_secs(3600))
        }
    }

    fn named(email: Option<&str>, preferred_username: Option<&str>, upn: Option<&str>) -> TokenAnswer {
        TokenAnswer {
            identity: Some(Identity {
                subject: "1".to_owned(),
                email: email.map(str::to_owned),
                preferred_username: preferred_username.map(str::to_owned),
                upn: upn.map(str::to_owned),
            }),
            ..answer()
        }
    }

    fn scopes(of: &[&str]) -> Vec<String> {
        of.iter().map(|scope| (*scope).to_owned()).collect()
    }

    #[test]
    fn what_is_kept_is_what_was_issued() {
        let issued = TokenAnswer {
            scopes: Some(scopes(&["mail", "openid"])),
            ends_in: Some(Duration::from_secs(7200)),
            ..answer()
        };
        let judged = judge(issued, &scopes(&["mail"]), &account("ada"), NOW).unwrap();
        let grant = judged.grant;
        assert_eq!(grant.refresh_token.unwrap().expose_secret(), "r");
        assert_eq!(grant.access_token.unwrap().expose_secret(), "a");
        assert_eq!(grant.obtained, Some(NOW));
        assert_eq!(grant.expires, Some(NOW.after(Duration::from_secs(3600))));
        assert_eq!(grant.ends, Some(NOW.after(Duration::from_secs(7200))));
        assert_eq!(grant.scope.as_deref(), Some("mail openid"));
        assert_eq!(judged.owner, Owner::Unknown);
    }

    #[test]
    fn a_grant_without_a_refresh_token_is_none() {
        let issued = TokenAnswer::bearer("a".into(), Duration::from_secs(3600));
        let error = judge(issued, &[], &account("ada"), NOW).unwrap_err();
        assert_eq!(error.code(), "no_refresh_token");
    }

    #[test]
    fn an_owner_who_does_not_grant_offline_access_is_told_so() {
        let asked = scopes(&["mail", "offline_access"]);
        for (asked, granted, told) in [
            (&asked, Some(scopes(&["mail"])), "partial_consent"),
            (&asked, Some(scopes(&["openid"])), "partial_consent"),
            (&asked, Some(scopes(&["mail", "offline_access"])), "no_refresh_token"),
            (&asked, None, "no_refresh_token"),
            (&scopes(&["mail"]), Some(scopes(&["mail"])), "no_refresh_token"),
        ] {
            let issued = TokenAnswer {
                scopes: granted.clone(),
                ..TokenAnswer::bearer("a".into(), Duration::from_secs(3600))
            };
            let error = judge(issued, asked, &account("ada"), NOW).unwrap_err();
            assert_eq!(error.code(), told, "{asked:?} {granted:?}");
        }
    }

    #[test]
    fn what_the_provider_says_of_scopes_is_a_hint() {
        let asked = scopes(&["imap", "smtp", "offline_access"]);
        let cases: [(Option<&[&str]>, &[&str]); 5] = [
            (None, &[]),
            (Some(&["smtp", "imap"]), &[]),
            (Some(&["IMAP", "smtp", "email"]), &[]),
            (Some(&["imap"]), &["smtp"]),
            (Some(&["openid"]), &["imap", "smtp"]),
        ];
        for (granted, left_out) in cases {
            let issued = TokenAnswer {
                scopes: granted.map(scopes),
                ..answer()
            };
            let judged = judge(issued, &asked, &account("ada"), NOW).unwrap();
            assert_eq!(judged.left_out, left_out, "{granted:?}");
        }
        // Microsoft's own ways to name what it grants.
        let asked = scopes(&["https://outlook.office.com/IMAP.AccessAsUser.All"]);
        for granted in [
            "IMAP.AccessAsUser.All",
            "https://outlook.office365.com/IMAP.AccessAsUser.All",
        ] {
            let issued = TokenAnswer {
                scopes: Some(scopes(&[granted])),
                ..answer()
            };
            let judged = judge(issued, &asked, &account("ada"), NOW).unwrap();
            assert!(judged.left_out.is_empty(), "{granted}");
        }
    }

    #[test]
    fn who_signed_in_must_be_the_mailbox_where_the_provider_tells() {
        let ada = account("ada");
        let by_id = AccountRecord {
            email: None,
            ..account("ada@example.com")
        };
        let nameless = AccountRecord {
            email: None,
            ..account("ada")
        };
        let shared = AccountRecord {
            user: Some("sales@example.com".to_owned()),
            ..account("ada")
        };
        let (confirmed, unknown) = (Ok(Owner::Confirmed), Ok(Owner::Unknown));
        let cases = [
            (&ada, answer(), unknown),
            (&ada, named(None, None, None), unknown),
            (&ada, named(None, Some("Ada Lovelace"), None), unknown),
            (&ada, named(Some("Ada@Example.com"), None, None), confirmed),
            (
                &ada,
                named(Some("ada@personal.example"), Some("ada@example.com"), None),
                confirmed,
            ),
            (&ada, named(None, None, Some("ada@example.com")), confirmed),
            (&ada, named(Some("bob@example.com"), None, None), Err("bob@example.com")),
            (&by_id, named(Some("ada@example.com"), None, None), confirmed),
            (
                &by_id,
                named(Some("bob@example.com"), None, None),
                Err("bob@example.com"),
            ),
            (&nameless, named(Some("bob@example.com"), None, None), unknown),
            (&shared, named(Some("bob@example.com"), None, None), unknown),
        ];
        for (index, (record, issued, expected)) in cases.into_iter().enumerate() {
            match judge(issued, &[], record, NOW) {
                Ok(judged) => assert_eq!(Ok(judged.owner), expected, "case {index}"),
                Err(AuthorizeError::WrongMailbox { asked, given }) => {
                    assert_eq!(asked, "ada@example.com");
                    assert_eq!(Err(given.as_str()), expected, "case {index}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}
