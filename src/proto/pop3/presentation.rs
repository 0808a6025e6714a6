//! How the proxy presents the mailbox's credential to an upstream: the choice among what is offered, and the lines of `AUTH`,
//! or of `USER` and `PASS`.
//!
//! Everything is composed in one go, so that the credential is gone when the lines are there; they wipe themselves. A SASL
//! response never stands in the line of its `AUTH`, which may not be longer than 255 octets (RFC 5034 §4), and Exchange
//! Online takes it in two steps only. What cannot be said in the protocol is a fault, never said differently.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::response::Offered;
use crate::fault::Fault;
use crate::proto::presentation::{
    SecretBytes, check_arguments, first_offered, not_offered, token_mechanisms, unsendable,
};
use crate::proto::redaction::Redaction;
use crate::proto::sasl::upstream::{Unsendable, login as sasl_login, message};
use crate::proto::session::UpstreamReady;
use crate::proto::{CredentialSecret, Mechanism};
use crate::secret::ExposeSecret;

/// By which commands a login is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `AUTH` with a mechanism.
    Sasl(Mechanism),
    /// `USER` and `PASS`.
    UserPass,
}

impl Way {
    /// The commands, for an operator.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sasl(Mechanism::Plain) => "AUTH PLAIN",
            Self::Sasl(Mechanism::Login) => "AUTH LOGIN",
            Self::Sasl(Mechanism::OAuthBearer) => "AUTH OAUTHBEARER",
            Self::Sasl(Mechanism::XOAuth2) => "AUTH XOAUTH2",
            Self::UserPass => "USER and PASS",
        }
    }
}

/// A credential, put into the words of the protocol.
pub(super) struct Presentation {
    pub(super) way: Way,
    /// What to write at once: a line without a secret.
    pub(super) opening: SecretBytes,
    /// What to write then, a line each time the upstream asks to go on. Never empty.
    pub(super) rest: VecDeque<SecretBytes>,
    /// What the upstream must not be heard saying.
    pub(super) redaction: Redaction,
}

impl Presentation {
    /// Puts the credential of `ready` into the words that an upstream understands which offers `offered`; `None` where it
    /// does not tell.
    pub(super) fn compose(ready: &UpstreamReady, offered: Option<&Offered>) -> Result<Self, Fault> {
        match choose(ready, offered)? {
            Way::UserPass => user_pass(ready),
            Way::Sasl(Mechanism::Login) => login(ready),
            Way::Sasl(mechanism) => sasl(mechanism, ready),
        }
        .map_err(unsendable)
    }
}

fn choose(ready: &UpstreamReady, offered: Option<&Offered>) -> Result<Way, Fault> {
    match &ready.credential.secret {
        CredentialSecret::OAuth { .. } => choose_for_token(ready, offered),
        CredentialSecret::Password(password) => choose_for_password(
            ready,
            check_arguments(&ready.credential.user, password.expose_secret()).is_ok(),
            offered,
        ),
    }
}

/// The provider's order decides among what is listed; where nothing is listed, its first.
fn choose_for_token(ready: &UpstreamReady, offered: Option<&Offered>) -> Result<Way, Fault> {
    let listed = offered.filter(|offered| offered.tells_mechanisms());
    let is_offered = |mechanism| listed.is_none_or(|offered| offered.lists(mechanism));
    first_offered(ready, &token_mechanisms(ready), is_offered, || logins(offered)).map(Way::Sasl)
}

/// PLAIN where it is listed. Else USER and PASS, which the oldest servers know and CAPA need not be known for; but a list
/// without USER forbids them. LOGIN is the last resort, for passwords that fit on no line too.
fn choose_for_password(ready: &UpstreamReady, fits_on_a_line: bool, offered: Option<&Offered>) -> Result<Way, Fault> {
    let lists = |mechanism| offered.is_some_and(|offered| offered.lists(mechanism));
    let takes_user = offered.is_none_or(Offered::lists_user);
    if lists(Mechanism::Plain) {
        Ok(Way::Sasl(Mechanism::Plain))
    } else if takes_user && (fits_on_a_line || !lists(Mechanism::Login)) {
        Ok(Way::UserPass)
    } else if lists(Mechanism::Login) {
        Ok(Way::Sasl(Mechanism::Login))
    } else {
        Err(not_offered(ready, "PLAIN, USER or LOGIN", &logins(offered)))
    }
}

/// The ways to log in that are offered, for the log.
fn logins(offered: Option<&Offered>) -> String {
    let offers = Redaction::default().clean(&offered.map(Offered::rendered).unwrap_or_default());
    match offers.is_empty() {
        true => "no login at all".to_owned(),
        false => offers,
    }
}

/// `AUTH` with a mechanism of one message, sent when the upstream asks for it.
fn sasl(mechanism: Mechanism, ready: &UpstreamReady) -> Result<Presentation, Unsendable> {
    let response = message(mechanism, ready)?;
    let mut redaction = Redaction::default();
    redaction.add(response.as_bytes());
    redaction.add(ready.credential.secret.exposable().expose_secret().as_bytes());
    Ok(Presentation {
        way: Way::Sasl(mechanism),
        opening: line(&["AUTH ", mechanism.name()]),
        rest: VecDeque::from([line(&[&response])]),
        redaction,
    })
}

/// `AUTH LOGIN`: the name and the password, each for a prompt (draft-murchison-sasl-login-00).
fn login(ready: &UpstreamReady) -> Result<Presentation, Unsendable> {
    let password = ready.credential.secret.exposable();
    let [user, encoded] = sasl_login(&ready.credential.user, password)?;
    let mut redaction = Redaction::default();
    redaction.add(encoded.as_bytes());
    redaction.add(password.expose_secret().as_bytes());
    Ok(Presentation {
        way: Way::Sasl(Mechanism::Login),
        opening: line(&["AUTH ", Mechanism::Login.name()]),
        rest: VecDeque::from([line(&[&user]), line(&[&encoded])]),
        redaction,
    })
}

/// `USER` and `PASS` (RFC 1939 §7).
fn user_pass(ready: &UpstreamReady) -> Result<Presentation, Unsendable> {
    let user = &ready.credential.user;
    let password = ready.credential.secret.exposable().expose_secret();
    check_arguments(user, password)?;
    let mut redaction = Redaction::default();
    redaction.add(password.as_bytes());
    Ok(Presentation {
        way: Way::UserPass,
        opening: line(&["USER ", user]),
        rest: VecDeque::from([line(&["PASS ", password])]),
        redaction,
    })
}

/// Joins without growing, so that no copy of a secret is left behind, and ends the line.
fn line(parts: &[&str]) -> SecretBytes {
    let end = std::iter::once(&"\r\n");
    let parts: Vec<&[u8]> = parts.iter().chain(end).map(|part| part.as_bytes()).collect();
    Zeroizing::new(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;
    use crate::proto::testing::login::{password_secret, ready, token_secret};

    /// A list of capabilities between commas; `-` where none is known.
    fn composed(ready: &UpstreamReady, offered: &str) -> Result<Vec<String>, Fault> {
        let mut list = Offered::default();
        offered.split(',').for_each(|line| list.add(line.as_bytes()));
        let composed = Presentation::compose(ready, (offered != "-").then_some(&list))?;
        let writes = std::iter::once(&composed.opening).chain(&composed.rest);
        Ok(writes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).collect())
    }

    #[test]
    fn the_providers_order_decides_among_what_is_listed_and_the_response_waits() {
        use Mechanism::{OAuthBearer, XOAuth2};
        let bearer = "bixhPWEsAWhvc3Q9bWFpbC5leGFtcGxlLmNvbQFwb3J0PTk5MwFhdXRoPUJlYXJlciB0b2sBAQ==\r\n";
        let xoauth2 = "dXNlcj1hAWF1dGg9QmVhcmVyIHRvawEB\r\n";
        for (order, offered, expected) in [
            (
                &[OAuthBearer, XOAuth2][..],
                "SASL PLAIN XOAUTH2 OAUTHBEARER",
                ["AUTH OAUTHBEARER\r\n", bearer],
            ),
            (
                &[XOAuth2, OAuthBearer],
                "SASL PLAIN XOAUTH2 OAUTHBEARER",
                ["AUTH XOAUTH2\r\n", xoauth2],
            ),
            (
                &[OAuthBearer, XOAuth2],
                "USER,sasl xoauth2",
                ["AUTH XOAUTH2\r\n", xoauth2],
            ),
            (&[XOAuth2, OAuthBearer], "USER,TOP", ["AUTH XOAUTH2\r\n", xoauth2]),
            (&[OAuthBearer, XOAuth2], "-", ["AUTH OAUTHBEARER\r\n", bearer]),
        ] {
            assert_eq!(
                composed(&ready("a", token_secret("tok"), order), offered).unwrap(),
                expected,
                "{offered}"
            );
        }
    }

    #[test]
    fn what_is_not_offered_is_named_and_is_nobodys_password() {
        let with_token = ready("a", token_secret("tok"), &[Mechanism::OAuthBearer, Mechanism::XOAuth2]);
        let with_password = ready("a", password_secret("x"), &[]);
        for (ready, offered, said) in [
            (
                &with_token,
                "USER,SASL PLAIN",
                "OAUTHBEARER or XOAUTH2, but the upstream offers USER, SASL PLAIN",
            ),
            (
                &with_token,
                "SASL",
                "OAUTHBEARER or XOAUTH2, but the upstream offers SASL",
            ),
            (
                &with_password,
                "SASL XOAUTH2",
                "PLAIN, USER or LOGIN, but the upstream offers SASL XOAUTH2",
            ),
            (
                &with_password,
                "TOP",
                "PLAIN, USER or LOGIN, but the upstream offers no login at all",
            ),
        ] {
            let fault = composed(ready, offered).unwrap_err();
            assert_eq!(
                (fault.kind, fault.detail),
                (FaultKind::Unavailable, format!("login needs {said}"))
            );
        }
    }

    #[test]
    fn a_password_goes_by_plain_or_else_by_user_and_pass_or_else_by_login() {
        let user_pass = ["USER tim", "PASS p w"].map(|line| format!("{line}\r\n")).to_vec();
        let plain = ["AUTH PLAIN", "AHRpbQBwIHc="]
            .map(|line| format!("{line}\r\n"))
            .to_vec();
        let login = ["AUTH LOGIN", "dGlt", "cCB3"]
            .map(|line| format!("{line}\r\n"))
            .to_vec();
        for (offered, expected) in [
            ("USER,SASL LOGIN PLAIN", &plain),
            ("SASL PLAIN", &plain),
            ("USER", &user_pass),
            ("USER,SASL LOGIN", &user_pass),
            ("-", &user_pass),
            ("SASL LOGIN", &login),
        ] {
            assert_eq!(
                &composed(&ready("tim", password_secret("p w"), &[]), offered).unwrap(),
                expected,
                "{offered}"
            );
        }
        let broken = composed(&ready("tim", password_secret("p\r\nw"), &[]), "USER,SASL LOGIN").unwrap();
        assert_eq!(broken, ["AUTH LOGIN\r\n", "dGlt\r\n", "cA0Kdw==\r\n"]);
    }

    #[test]
    fn what_a_line_cannot_carry_is_refused() {
        for (user, secret, offered) in [
            ("a\r\nQUIT", "x", "USER"),
            ("a", "x\r\nQUIT", "USER"),
            ("a", "x\0", "-"),
            ("", "x", "-"),
            ("a", "", "USER"),
            ("a\n", "x", "SASL PLAIN"),
            ("a", "x\0", "SASL PLAIN"),
            ("a\n", "x", "SASL LOGIN"),
            ("a", "", "SASL LOGIN"),
        ] {
            let fault = composed(&ready(user, password_secret(secret), &[]), offered).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Internal, "{user:?} {secret:?}");
        }
    }
}
