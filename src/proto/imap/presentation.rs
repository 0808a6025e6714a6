//! How the proxy presents itself and the mailbox's credential to an upstream: the `ID` command, the choice of a mechanism
//! among what is offered, and the bytes of `AUTHENTICATE` or `LOGIN`.
//!
//! Everything is composed in one go, so that the credential is gone when the bytes are there; they wipe themselves. What
//! cannot be said in the protocol is a fault, never said differently.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use super::response::Capabilities;
use crate::fault::Fault;
use crate::limits::{ID_PAIRS_MAX, ID_UPSTREAM_BYTES_MAX};
use crate::proto::dialogue::ClientIdentity;
use crate::proto::presentation::{
    SecretBytes, check_arguments, first_offered, not_offered, token_mechanisms, unsendable,
};
use crate::proto::redaction::Redaction;
use crate::proto::sasl::upstream::{EncodedResponse, Unsendable, message};
use crate::proto::session::{ForwardedClient, UpstreamReady};
use crate::proto::{CredentialSecret, Mechanism};
use crate::secret::{ExposeSecret, SecretString};

/// A credential, put into the words of the protocol.
pub(super) struct Presentation {
    /// The mechanism; `None` for the LOGIN command.
    pub(super) mechanism: Option<Mechanism>,
    /// What to write at once: the command, with as much of the credential as may follow without being invited.
    pub(super) opening: SecretBytes,
    /// What to write for each `+` that follows.
    pub(super) rest: VecDeque<SecretBytes>,
    /// What the upstream must not be heard saying.
    pub(super) redaction: Redaction,
}

impl Presentation {
    /// Puts the credential of `ready` into the words that an upstream with the capabilities `offered` understands.
    pub(super) fn compose(tag: &str, ready: &UpstreamReady, offered: Capabilities<'_>) -> Result<Self, Fault> {
        match (&ready.credential.secret, choose(ready, offered)?) {
            (CredentialSecret::Password(password), None) => {
                login_command(tag, &ready.credential.user, password, offered).map_err(unsendable)
            }
            (CredentialSecret::Password(secret) | CredentialSecret::OAuth { token: secret, .. }, mechanism) => {
                let mechanism = mechanism.unwrap_or(Mechanism::Plain);
                let response = message(mechanism, ready).map_err(unsendable)?;
                Ok(authenticate(tag, mechanism, &response, secret, offered))
            }
        }
    }
}

/// The `ID` command (RFC 2971) for the mail program behind the proxy, or for the proxy where that one said nothing. A field
/// that a quoted string cannot carry is left out, and so is one that is the proxy's to say, and what would make the line too
/// long. An upstream that is told of clients hears first for whom the proxy speaks, in the fields that Dovecot takes from those
/// it trusts (`login_trusted_networks`).
pub(super) fn identify(tag: &str, identity: Option<&ClientIdentity>, forwarded: Option<&ForwardedClient>) -> String {
    let pairs = identity
        .iter()
        .flat_map(|identity| &identity.pairs)
        .filter(|(field, _)| !is_proxys(field))
        .filter_map(|(field, value)| {
            let value = value.as_deref().map_or_else(|| Some("NIL".to_owned()), quoted)?;
            Some(format!("{} {value}", quoted(field)?))
        });
    let mut said = String::new();
    for pair in forwarded
        .into_iter()
        .flat_map(forwarded_pairs)
        .chain(pairs)
        .take(ID_PAIRS_MAX)
    {
        if said.len() + pair.len() < ID_UPSTREAM_BYTES_MAX {
            let space = if said.is_empty() { "" } else { " " };
            said += &format!("{space}{pair}");
        }
    }
    if said.is_empty() {
        format!(
            "{tag} ID (\"name\" \"portreeve\" \"version\" \"{}\")\r\n",
            env!("CARGO_PKG_VERSION")
        )
    } else {
        format!("{tag} ID ({said})\r\n")
    }
}

/// The fields that tell of the client.
fn forwarded_pairs(client: &ForwardedClient) -> impl Iterator<Item = String> {
    let pairs = [
        ("x-originating-ip", client.remote.ip().to_canonical().to_string()),
        ("x-originating-port", client.remote.port().to_string()),
        ("x-connected-ip", client.local.ip().to_canonical().to_string()),
        ("x-connected-port", client.local.port().to_string()),
        ("x-session-id", client.session.clone()),
    ];
    pairs
        .into_iter()
        .filter_map(|(field, value)| Some(format!("{} {}", quoted(field)?, quoted(&value)?)))
}

/// Whether `field` is one by which a proxy tells a server that trusts it whom it speaks for (Dovecot: `x-originating-ip`,
/// `x-connected-ip`, `x-session-id`, `x-forward-…`; others: `remote-…`). A client that sent one would speak with this proxy's
/// authority.
fn is_proxys(field: &str) -> bool {
    let field = field.trim().to_ascii_lowercase();
    [
        "x-",
        "remote-",
        "local-",
        "originating-",
        "connected-",
        "forward",
        "proxy-",
        "session-",
        "client-ip",
    ]
    .iter()
    .any(|prefix| field.starts_with(prefix))
}

/// The mechanism to use; `None` for the LOGIN command, which only a password can take.
fn choose(ready: &UpstreamReady, offered: Capabilities<'_>) -> Result<Option<Mechanism>, Fault> {
    let is_offered = |mechanism: Mechanism| offered.offers(&format!("AUTH={}", mechanism.name()));
    match ready.credential.secret {
        CredentialSecret::OAuth { .. } => {
            first_offered(ready, &token_mechanisms(ready), is_offered, || logins(offered)).map(Some)
        }
        CredentialSecret::Password(_) if is_offered(Mechanism::Plain) => Ok(Some(Mechanism::Plain)),
        CredentialSecret::Password(_) if offered.offers("LOGINDISABLED") => {
            Err(not_offered(ready, "PLAIN or LOGIN", &logins(offered)))
        }
        CredentialSecret::Password(_) => Ok(None),
    }
}

/// The ways to log in that are offered, for the log.
fn logins(offered: Capabilities<'_>) -> String {
    let offers: Vec<&[u8]> = offered
        .names()
        .filter(|atom| {
            atom.get(..5)
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"AUTH="))
                || atom.eq_ignore_ascii_case(b"LOGINDISABLED")
        })
        .collect();
    match offers.is_empty() {
        true => "no mechanism at all".to_owned(),
        false => Redaction::default().clean(&offers.join(&b' ')),
    }
}

fn authenticate(
    tag: &str,
    mechanism: Mechanism,
    response: &EncodedResponse,
    secret: &SecretString,
    offered: Capabilities<'_>,
) -> Presentation {
    let command = format!("{tag} AUTHENTICATE {}", mechanism.name());
    let mut redaction = Redaction::default();
    redaction.add(response.as_bytes());
    redaction.add(secret.expose_secret().as_bytes());
    let response = response.as_bytes();
    // RFC 4959: an initial response is only for those who say that they take one.
    let (opening, rest) = if offered.offers("SASL-IR") {
        (joined(&[command.as_bytes(), b" ", response, b"\r\n"]), VecDeque::new())
    } else {
        let opening = joined(&[command.as_bytes(), b"\r\n"]);
        (opening, VecDeque::from([joined(&[response, b"\r\n"])]))
    };
    Presentation {
        mechanism: Some(mechanism),
        opening,
        rest,
        redaction,
    }
}

/// The LOGIN command (RFC 9051 §6.2.3), each argument a quoted string, or a literal where it is not ASCII.
fn login_command(
    tag: &str,
    user: &str,
    password: &SecretString,
    offered: Capabilities<'_>,
) -> Result<Presentation, Unsendable> {
    let password = password.expose_secret();
    check_arguments(user, password)?;
    let mut redaction = Redaction::default();
    redaction.add(password.as_bytes());
    let mut writes = VecDeque::new();
    let mut line = joined(&[tag.as_bytes(), b" LOGIN"]);
    for argument in [user, password] {
        let argument_quoted = quoted(argument).map(Zeroizing::new);
        if let Some(text) = argument_quoted {
            redaction.add(text.as_bytes());
            line = joined(&[&line, b" ", text.as_bytes()]);
            continue;
        }
        let size = argument.len();
        if waits_for_invitation(size, offered) {
            writes.push_back(joined(&[&line, format!(" {{{size}}}\r\n").as_bytes()]));
            line = joined(&[argument.as_bytes()]);
        } else {
            line = joined(&[&line, format!(" {{{size}+}}\r\n").as_bytes(), argument.as_bytes()]);
        }
    }
    writes.push_back(joined(&[&line, b"\r\n"]));
    Ok(Presentation {
        mechanism: None,
        opening: writes.pop_front().unwrap_or_default(),
        rest: writes,
        redaction,
    })
}

/// Whether a literal of `size` bytes must be announced and then waited with (RFC 7888).
fn waits_for_invitation(size: usize, offered: Capabilities<'_>) -> bool {
    !(offered.offers("LITERAL+") || (offered.offers("LITERAL-") && size <= LITERAL_MINUS_BYTES_MAX))
}

/// `text` as a quoted string, if it is printable ASCII.
fn quoted(text: &str) -> Option<String> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    // Room for every character escaped, so that growing leaves no copy of a password behind.
    let mut quoted = String::with_capacity(text.len() * 2 + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    Some(quoted)
}

/// Joins without growing, for the same reason.
fn joined(parts: &[&[u8]]) -> SecretBytes {
    Zeroizing::new(parts.concat())
}

/// RFC 7888 §5: the longest non-synchronising literal that LITERAL- allows.
const LITERAL_MINUS_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultKind;
    use crate::proto::testing::login::{forwarded_client, password_secret, ready, token_secret};

    fn writes(ready: &UpstreamReady, offered: &str) -> Vec<String> {
        let composed = Presentation::compose("P2", ready, Capabilities(offered.as_bytes())).unwrap();
        std::iter::once(&composed.opening)
            .chain(&composed.rest)
            .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_providers_order_decides_among_what_is_offered() {
        use Mechanism::{OAuthBearer, XOAuth2};
        let gmail = "IMAP4rev1 SASL-IR AUTH=XOAUTH2 AUTH=PLAIN AUTH=OAUTHBEARER";
        for (order, offered, expected) in [
            (&[OAuthBearer, XOAuth2][..], gmail, "P2 AUTHENTICATE OAUTHBEARER bixhP"),
            (&[XOAuth2, OAuthBearer][..], gmail, "P2 AUTHENTICATE XOAUTH2 dXNlc"),
            (
                &[OAuthBearer, XOAuth2][..],
                "auth=xoauth2 sasl-ir",
                "P2 AUTHENTICATE XOAUTH2 dXNlc",
            ),
        ] {
            let [write] = &writes(&ready("a@b", token_secret("tok"), order), offered)[..] else {
                panic!("one write expected");
            };
            assert!(write.starts_with(expected), "{write}");
        }
    }

    #[test]
    fn without_sasl_ir_the_response_waits() {
        assert_eq!(
            writes(&ready("a", token_secret("tok"), &[Mechanism::XOAuth2]), "AUTH=XOAUTH2"),
            ["P2 AUTHENTICATE XOAUTH2\r\n", "dXNlcj1hAWF1dGg9QmVhcmVyIHRvawEB\r\n"]
        );
    }

    #[test]
    fn what_is_not_offered_is_named_and_is_nobodys_password() {
        let ready = ready("a", token_secret("tok"), &[Mechanism::OAuthBearer, Mechanism::XOAuth2]);
        for (offered, said) in [
            ("IMAP4rev1 AUTH=PLAIN LOGINDISABLED", "AUTH=PLAIN LOGINDISABLED"),
            ("IMAP4rev1", "no mechanism at all"),
        ] {
            let fault = Presentation::compose("P2", &ready, Capabilities(offered.as_bytes()))
                .err()
                .unwrap();
            assert_eq!(fault.kind, FaultKind::Unavailable);
            assert_eq!(
                fault.detail,
                format!("login needs OAUTHBEARER or XOAUTH2, but the upstream offers {said}")
            );
        }
    }

    #[test]
    fn a_password_goes_by_plain_or_else_by_login() {
        let table: [(&str, &str, &str, &[&str]); 6] = [
            (
                "tim",
                "pw",
                "AUTH=PLAIN SASL-IR LOGINDISABLED",
                &["P2 AUTHENTICATE PLAIN AHRpbQBwdw==\r\n"],
            ),
            ("tim", "pw", "IMAP4rev1", &["P2 LOGIN \"tim\" \"pw\"\r\n"]),
            ("t\"m", "p\\w x", "IMAP4rev1", &["P2 LOGIN \"t\\\"m\" \"p\\\\w x\"\r\n"]),
            ("tüm", "pä", "IMAP4rev1", &["P2 LOGIN {4}\r\n", "tüm {3}\r\n", "pä\r\n"]),
            ("tim", "pä", "LITERAL-", &["P2 LOGIN \"tim\" {3+}\r\npä\r\n"]),
            ("tim", "pä\t", "LITERAL+", &["P2 LOGIN \"tim\" {4+}\r\npä\t\r\n"]),
        ];
        for (user, secret, offered, expected) in table {
            assert_eq!(writes(&ready(user, password_secret(secret), &[]), offered), expected);
        }
    }

    #[test]
    fn what_login_cannot_carry_is_refused() {
        for (user, secret, offered) in [
            ("a\r\nB NOOP", "x", "IMAP4rev1"),
            ("a", "x\r\nB NOOP", "IMAP4rev1"),
            ("a", "x\0", "IMAP4rev1"),
            ("a\n", "x", "AUTH=PLAIN"),
            ("a", "x\0", "AUTH=PLAIN"),
        ] {
            let ready = ready(user, password_secret(secret), &[]);
            let fault = Presentation::compose("P2", &ready, Capabilities(offered.as_bytes()))
                .err()
                .unwrap();
            assert_eq!(fault.kind, FaultKind::Internal, "{user:?} {secret:?}");
        }
        let disabled = Presentation::compose(
            "P2",
            &ready("a", password_secret("x"), &[]),
            Capabilities(b"LOGINDISABLED"),
        );
        assert_eq!(disabled.err().unwrap().kind, FaultKind::Unavailable);
    }

    #[test]
    fn the_clients_identity_is_passed_on_and_ours_stands_in() {
        let identity = ClientIdentity {
            pairs: vec![
                ("name".to_owned(), Some("Mail \"9\" \\".to_owned())),
                ("os".to_owned(), None),
                ("vendor".to_owned(), Some("Bücher".to_owned())),
            ],
        };
        assert_eq!(
            identify("P1", Some(&identity), None),
            "P1 ID (\"name\" \"Mail \\\"9\\\" \\\\\" \"os\" NIL)\r\n"
        );
        let forged = |field: &str| ClientIdentity {
            pairs: vec![
                (field.to_owned(), Some("192.0.2.1".to_owned())),
                ("name".to_owned(), Some("Mutt".to_owned())),
            ],
        };
        for field in [
            "x-originating-ip",
            "X-Originating-IP",
            " x-connected-ip",
            "x-session-id",
            "x-proxy-ttl",
            "remote-ip",
            "Forward-x",
        ] {
            assert_eq!(
                identify("P1", Some(&forged(field)), None),
                "P1 ID (\"name\" \"Mutt\")\r\n",
                "{field}"
            );
        }
        let long = ClientIdentity {
            pairs: vec![("k".to_owned(), Some("v".repeat(1000))); 30],
        };
        let line = identify("P1", Some(&long), None);
        assert!(
            line.len() <= 8192 && line.matches("vvv \"k\"").count() == 0,
            "{}",
            line.len()
        );
        assert_eq!(line.matches("\"k\"").count(), 7);
        let ours = identify("P1", None, None);
        assert!(
            ours.starts_with("P1 ID (\"name\" \"portreeve\" \"version\" \"0."),
            "{ours}"
        );
        assert_eq!(identify("P1", Some(&ClientIdentity::default()), None), ours);
    }

    #[test]
    fn an_upstream_that_is_told_of_clients_hears_the_true_address_and_not_the_clients_word_for_it() {
        let client = forwarded_client("[2001:db8::7]:40001");
        let identity = ClientIdentity {
            pairs: vec![
                ("x-originating-ip".to_owned(), Some("192.0.2.1".to_owned())),
                ("name".to_owned(), Some("Mutt".to_owned())),
            ],
        };
        assert_eq!(
            identify("P1", Some(&identity), Some(&client)),
            "P1 ID (\"x-originating-ip\" \"2001:db8::7\" \"x-originating-port\" \"40001\" \"x-connected-ip\" \"127.0.0.1\" \
             \"x-connected-port\" \"993\" \"x-session-id\" \"17\" \"name\" \"Mutt\")\r\n"
        );
        let many = ClientIdentity {
            pairs: vec![("k".to_owned(), None); 30],
        };
        let line = identify("P1", Some(&many), Some(&client));
        assert_eq!(line.matches("NIL").count(), 25, "30 in all");
    }
}
