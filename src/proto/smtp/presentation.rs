//! How the proxy presents itself and the mailbox's credential to an upstream: the name in EHLO, the choice of a mechanism
//! among what is offered, and the lines of `AUTH`.
//!
//! Everything is composed in one go, so that the credential is gone when the lines are there; they wipe themselves. What
//! cannot be said in the protocol is a fault, never said differently.

use std::collections::VecDeque;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::response::Reply;
use crate::fault::Fault;
use crate::proto::presentation::{SecretBytes, first_offered, token_mechanisms, unsendable};
use crate::proto::redaction::Redaction;
use crate::proto::sasl::upstream::{login, message};
use crate::proto::session::UpstreamReady;
use crate::proto::{CredentialSecret, Mechanism};
use crate::secret::ExposeSecret;

/// A credential, put into the words of the protocol.
pub(super) struct Presentation {
    pub(super) mechanism: Mechanism,
    /// What to write at once: `AUTH`, with the initial response where it fits.
    pub(super) opening: SecretBytes,
    /// What to write for each `334` that follows.
    pub(super) rest: VecDeque<SecretBytes>,
    /// What the upstream must not be heard saying.
    pub(super) redaction: Redaction,
}

impl Presentation {
    /// Puts the credential of `ready` into the words that an upstream understands which offers `offered`.
    pub(super) fn compose(ready: &UpstreamReady, offered: &Offered) -> Result<Self, Fault> {
        let mechanism = choose(ready, offered)?;
        let secret = ready.credential.secret.exposable();
        let mut redaction = Redaction::default();
        redaction.add(secret.expose_secret().as_bytes());
        let mut lines = VecDeque::new();
        match mechanism {
            Mechanism::Login => {
                let [user, password] = login(&ready.credential.user, secret).map_err(unsendable)?;
                redaction.add(password.as_bytes());
                lines.extend([line(user.as_bytes()), line(password.as_bytes())]);
            }
            Mechanism::Plain | Mechanism::OAuthBearer | Mechanism::XOAuth2 => {
                let response = message(mechanism, ready).map_err(unsendable)?;
                redaction.add(response.as_bytes());
                lines.push_back(line(response.as_bytes()));
            }
        }
        let command = format!("AUTH {}", mechanism.name());
        // LOGIN's user name could go along too, but not every upstream of it takes an initial response.
        let fits = |response: &SecretBytes| command.len() + 1 + response.len() <= COMMAND_LINE_OCTETS_MAX;
        let goes_along = mechanism != Mechanism::Login && lines.front().is_some_and(fits);
        let initial = goes_along.then(|| lines.pop_front()).flatten();
        let opening = match initial {
            Some(response) => Zeroizing::new([command.as_bytes(), b" ", &response].concat()),
            None => line(command.as_bytes()),
        };
        Ok(Self {
            mechanism,
            opening,
            rest: lines,
            redaction,
        })
    }
}

/// The mechanisms in an EHLO reply.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offered(Vec<String>);

impl Offered {
    /// What `reply`, to EHLO, offers: `AUTH` (RFC 4954 §3), and `AUTH=`, as old upstreams write it for older clients.
    pub(super) fn in_reply(reply: &Reply) -> Self {
        let lists = reply.lines().iter().skip(1).filter_map(|keyword| {
            let (name, list) = keyword.split_at_checked("AUTH".len())?;
            let list = list.strip_prefix(b" ").or_else(|| list.strip_prefix(b"="))?;
            name.eq_ignore_ascii_case(b"AUTH").then_some(list)
        });
        let names = lists
            .flat_map(|list| list.split(|byte| *byte == b' '))
            .filter(|name| !name.is_empty())
            .map(|name| Redaction::default().clean(name).to_ascii_uppercase());
        Self(names.collect())
    }

    fn offers(&self, mechanism: Mechanism) -> bool {
        self.0.iter().any(|name| name == mechanism.name())
    }
}

/// What the proxy calls itself in EHLO (RFC 5321 §4.1.1.1): its name if that is a domain name with a dot in it, an address
/// as a literal, and else the literal of loopback, which claims nothing and is taken where a lone label is refused.
pub(super) fn ehlo_name(hostname: &str) -> String {
    let bare = hostname.strip_prefix('[').and_then(|bare| bare.strip_suffix(']'));
    let bare = bare.unwrap_or(hostname);
    match bare.strip_prefix("IPv6:").unwrap_or(bare).parse() {
        Ok(IpAddr::V4(address)) => format!("[{address}]"),
        Ok(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
        Err(_) if is_domain(hostname) => hostname.to_owned(),
        Err(_) => "[127.0.0.1]".to_owned(),
    }
}

fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= crate::limits::HOST_BYTES_MAX && name.contains('.') && name.split('.').all(is_label)
}

/// For a token the first of its provider's mechanisms that is offered, for a password PLAIN or else LOGIN.
fn choose(ready: &UpstreamReady, offered: &Offered) -> Result<Mechanism, Fault> {
    let by_password = [Mechanism::Plain, Mechanism::Login];
    let wanted: Vec<Mechanism> = match ready.credential.secret {
        CredentialSecret::Password(_) => by_password.to_vec(),
        CredentialSecret::OAuth { .. } => token_mechanisms(ready),
    };
    first_offered(
        ready,
        &wanted,
        |mechanism| offered.offers(mechanism),
        || logins(offered),
    )
}

/// The ways to log in that are offered, for the log.
fn logins(offered: &Offered) -> String {
    match offered.0.is_empty() {
        true => "no AUTH at all".to_owned(),
        false => format!("AUTH {}", Redaction::default().clean(offered.0.join(" ").as_bytes())),
    }
}

/// Joins without growing, so that no copy of a secret is left behind.
fn line(text: &[u8]) -> SecretBytes {
    Zeroizing::new([text, b"\r\n"].concat())
}

/// RFC 5321 §4.5.3.1.4, CRLF included. A longer AUTH command is to be sent without its initial response (RFC 4954 §4);
/// upstreams that take no more refuse it, or worse, take the rest for another command.
const COMMAND_LINE_OCTETS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::super::response::ReplyFramer;
    use super::*;
    use crate::fault::{FaultKind, LoginStep};
    use crate::proto::testing::login::{password_secret, ready, token_secret};

    fn offered(keywords: &[&str]) -> Offered {
        let mut framer = ReplyFramer::default();
        framer.push(b"250-mx.example.com AUTH LOGIN\r\n");
        for keyword in keywords {
            framer.push(format!("250-{keyword}\r\n").as_bytes());
        }
        framer.push(b"250 HELP\r\n");
        Offered::in_reply(&framer.next_reply().unwrap().unwrap())
    }

    fn writes(ready: &UpstreamReady, keywords: &[&str]) -> Vec<String> {
        let composed = Presentation::compose(ready, &offered(keywords)).unwrap();
        std::iter::once(&composed.opening)
            .chain(&composed.rest)
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn mechanisms_are_read_in_both_forms_and_never_from_the_first_line() {
        for (keywords, expected) in [
            (&["AUTH LOGIN PLAIN XOAUTH2"][..], &["LOGIN", "PLAIN", "XOAUTH2"][..]),
            (&["auth xoauth2", "AUTH=LOGIN  PLAIN"], &["XOAUTH2", "LOGIN", "PLAIN"]),
            (&["AUTH"], &[]),
            (&["AUTHX PLAIN", "XAUTH PLAIN", "SIZE 1", "AU"], &[]),
            (&[], &[]),
        ] {
            assert_eq!(offered(keywords).0, expected, "{keywords:?}");
        }
    }

    #[test]
    fn the_providers_order_decides_among_what_is_offered() {
        use Mechanism::{Login, OAuthBearer, XOAuth2};
        let gmail = "AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH";
        for (order, keyword, expected) in [
            (&[OAuthBearer, XOAuth2][..], gmail, "AUTH OAUTHBEARER bixhP"),
            (&[XOAuth2, OAuthBearer], gmail, "AUTH XOAUTH2 dXNlc"),
            (&[OAuthBearer, XOAuth2], "AUTH LOGIN XOAUTH2", "AUTH XOAUTH2 dXNlc"),
            (&[Login, XOAuth2], "AUTH LOGIN XOAUTH2", "AUTH XOAUTH2 dXNlc"),
        ] {
            let [write] = &writes(&ready("a@b", token_secret("tok"), order), &[keyword])[..] else {
                panic!("one write expected");
            };
            assert!(write.starts_with(expected), "{write}");
        }
    }

    #[test]
    fn the_initial_response_goes_along_only_within_512_octets() {
        let mut seen = Vec::new();
        for length in 300..400 {
            let ready = ready("a@b", token_secret(&"t".repeat(length)), &[Mechanism::XOAuth2]);
            match &writes(&ready, &["AUTH XOAUTH2"])[..] {
                [whole] => {
                    assert!(whole.len() <= 512, "{}", whole.len());
                    seen.push(whole.len());
                }
                [command, blob] => {
                    assert_eq!(command, "AUTH XOAUTH2\r\n");
                    assert!("AUTH XOAUTH2 ".len() + blob.len() > 512);
                    seen.push(0);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(seen.contains(&511) && seen.is_sorted_by_key(|length| *length == 0) && seen.contains(&0));
    }

    #[test]
    fn a_password_goes_by_plain_or_else_by_login() {
        let ready = ready("tim", password_secret("pw"), &[Mechanism::XOAuth2]);
        assert_eq!(writes(&ready, &["AUTH LOGIN PLAIN"]), ["AUTH PLAIN AHRpbQBwdw==\r\n"]);
        assert_eq!(
            writes(&ready, &["AUTH=LOGIN"]),
            ["AUTH LOGIN\r\n", "dGlt\r\n", "cHc=\r\n"]
        );
    }

    #[test]
    fn what_is_not_offered_is_named_and_is_nobodys_password() {
        let oauth = ready("a", token_secret("t"), &[Mechanism::OAuthBearer, Mechanism::XOAuth2]);
        let by_password = ready("a", password_secret("p"), &[]);
        for (ready, keywords, detail) in [
            (
                &oauth,
                &["AUTH PLAIN LOGIN"][..],
                "login needs OAUTHBEARER or XOAUTH2, but the upstream offers AUTH PLAIN LOGIN",
            ),
            (
                &oauth,
                &[],
                "login needs OAUTHBEARER or XOAUTH2, but the upstream offers no AUTH at all",
            ),
            (
                &by_password,
                &["AUTH XOAUTH2"],
                "login needs PLAIN or LOGIN, but the upstream offers AUTH XOAUTH2",
            ),
        ] {
            let fault = Presentation::compose(ready, &offered(keywords)).err().unwrap();
            assert_eq!((fault.kind, fault.detail.as_str()), (FaultKind::Unavailable, detail));
            let form = ready.credential.secret.form();
            assert_eq!(fault.said.unwrap().step, LoginStep::Mechanism(form));
        }
    }

    #[test]
    fn what_cannot_be_sent_is_a_defect_of_ours() {
        for (user, secret, keyword) in [
            ("a\r\nDATA", password_secret("x"), "AUTH PLAIN"),
            ("a\r\nDATA", password_secret("x"), "AUTH LOGIN"),
            ("a", password_secret("x\0"), "AUTH LOGIN"),
            ("a", token_secret("x\r\n"), "AUTH XOAUTH2"),
        ] {
            let ready = ready(user, secret, &[Mechanism::XOAuth2]);
            let fault = Presentation::compose(&ready, &offered(&[keyword])).err().unwrap();
            assert_eq!(fault.kind, FaultKind::Internal);
        }
    }

    #[test]
    fn the_name_in_ehlo_is_a_domain_or_an_address_literal() {
        let long = format!("{}.example", "a".repeat(64));
        for (hostname, expected) in [
            ("mail.example.com", "mail.example.com"),
            ("192.0.2.7", "[192.0.2.7]"),
            ("[192.0.2.7]", "[192.0.2.7]"),
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("localhost", "[127.0.0.1]"),
            ("", "[127.0.0.1]"),
            ("mail_1.example.com", "[127.0.0.1]"),
            ("-a.example.com", "[127.0.0.1]"),
            ("a..b", "[127.0.0.1]"),
            ("bücher.example", "[127.0.0.1]"),
            ("a.example\r\nAUTH", "[127.0.0.1]"),
            (&long, "[127.0.0.1]"),
        ] {
            assert_eq!(ehlo_name(hostname), expected, "{hostname:?}");
        }
    }
}
