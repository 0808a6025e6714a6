//! What may be promised to a client before its login, of upstreams that it is not connected to yet.
//!
//! Many clients look before they log in and keep to what they saw. So they are told what every upstream that their login may
//! lead to was heard to have. It is an allow-list for each protocol, in its `promise` or `extensions`: a word that nobody here
//! has heard of may be one that a proxy breaks. Pure; who asks upstreams, and remembers, is `connection`.

use serde::{Deserialize, Serialize};

use super::{Protocol, imap, pop3, smtp};

/// What an upstream said it can do, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When it said so: a list before the login is another than one after it (RFC 9051 §6.1.1).
    pub moment: Moment,
    /// In the protocol's own words, a line or an atom each; printable, bounded.
    pub lines: Vec<String>,
}

/// When an upstream said what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// To somebody who is not logged in; inside TLS where there is TLS.
    BeforeLogin,
    /// To somebody who is.
    AfterLogin,
}

/// What is known of one upstream, as far as it may be promised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// What it told before its login.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before_login: Vec<String>,
    /// What it told after one, where it ever did (IMAP). Exchange tells more then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after_login: Option<Vec<String>>,
}

impl Told {
    /// Takes in what the upstream has just said. A list is compared with the last of the same moment. What has come or gone
    /// in one from before the login has done so after it, too: the upstream was changed.
    pub fn hear(&mut self, protocol: Protocol, said: &Said) {
        let lines = promisable(protocol, &said.lines);
        match said.moment {
            Moment::AfterLogin => self.after_login = Some(lines),
            Moment::BeforeLogin => {
                if let Some(after) = &mut self.after_login {
                    let before = &self.before_login;
                    after.retain(|line| lines.contains(line) || !before.contains(line));
                    let new: Vec<_> = lines.iter().filter(|line| !before.contains(line)).collect();
                    let missing: Vec<_> = new.into_iter().filter(|line| !after.contains(line)).cloned().collect();
                    after.extend(missing);
                }
                self.before_login = lines;
            }
        }
    }

    /// What it can do for those who are logged in, for all that is known.
    pub fn lines(&self) -> &[String] {
        self.after_login.as_ref().unwrap_or(&self.before_login)
    }
}

/// What a client may be told before its login, where it may lead to any of `upstreams`; `None` is one that has not said
/// anything yet.
pub fn shared(protocol: Protocol, upstreams: &[Option<&Told>]) -> Vec<String> {
    match protocol {
        Protocol::Pop3 => pop3::promise::shared(upstreams),
        Protocol::Imap | Protocol::Smtp => {
            let Some(told) = upstreams.iter().copied().collect::<Option<Vec<_>>>() else {
                return Vec::new();
            };
            match protocol {
                Protocol::Smtp => {
                    let sets: Vec<_> = told
                        .iter()
                        .map(|told| smtp::extensions::Extensions::parse(told.lines()))
                        .collect();
                    smtp::extensions::Extensions::shared(&sets).lines()
                }
                _ if told.is_empty() => Vec::new(),
                _ => named(&imap::promise::NAMES, |name| {
                    told.iter().all(|told| has(told.lines(), name))
                }),
            }
        }
    }
}

/// What of `lines` may be promised, each once, in the order in which it is told.
fn promisable(protocol: Protocol, lines: &[String]) -> Vec<String> {
    match protocol {
        Protocol::Imap => named(&imap::promise::NAMES, |name| has(lines, name)),
        Protocol::Smtp => smtp::extensions::Extensions::parse(lines).lines(),
        Protocol::Pop3 => named(&pop3::promise::NAMES, |name| has(lines, name)),
    }
}

/// The names of `table` that are wanted, in its order.
pub(super) fn named(table: &[&str], is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let wanted = table.iter().filter(|name| is_wanted(name));
    wanted.map(|&name| name.to_owned()).collect()
}

/// Whether one of `lines` begins with the word `name`, in any case of letters.
pub(super) fn has(lines: &[String], name: &str) -> bool {
    lines.iter().any(|line| {
        let word = line.split(' ').next().unwrap_or_default();
        word.eq_ignore_ascii_case(name)
    })
}

#[cfg(test)]
mod tests {
    use super::Moment::{AfterLogin, BeforeLogin};
    use super::Protocol::{Imap, Pop3, Smtp};
    use super::*;

    fn told(protocol: Protocol, said: &[(Moment, &[&str])]) -> Told {
        let mut told = Told::default();
        for (moment, lines) in said {
            told.hear(
                protocol,
                &Said {
                    moment: *moment,
                    lines: lines.iter().map(|&line| line.to_owned()).collect(),
                },
            );
        }
        told
    }

    fn promised(protocol: Protocol, upstreams: &[Option<&Told>]) -> String {
        shared(protocol, upstreams).join(" ")
    }

    #[test]
    fn an_imap_client_is_told_what_every_upstream_has_and_nothing_else() {
        let gmail = [
            "IMAP4rev1",
            "UNSELECT",
            "IDLE",
            "NAMESPACE",
            "QUOTA",
            "ID",
            "XLIST",
            "CHILDREN",
            "X-GM-EXT-1",
            "AUTH=XOAUTH2",
        ];
        let more = [
            "uidplus",
            "COMPRESS=DEFLATE",
            "ENABLE",
            "MOVE",
            "CONDSTORE",
            "SPECIAL-USE",
            "IDLE",
            "IDLE",
            "LIST-EXTENDED",
        ];
        let one = told(Imap, &[(BeforeLogin, &gmail)]);
        let other = told(Imap, &[(BeforeLogin, &more)]);
        let nothing = told(Imap, &[(BeforeLogin, &["IMAP4rev1", "IDLES", "STARTTLS"])]);
        for (upstreams, expected) in [
            (&[Some(&one)][..], "IDLE NAMESPACE UNSELECT CHILDREN"),
            (&[Some(&other)], "IDLE UIDPLUS MOVE SPECIAL-USE"),
            (&[Some(&one), Some(&other)], "IDLE"),
            (&[Some(&one), Some(&nothing)], ""),
            (&[Some(&one), None], ""),
            (&[None], ""),
            (&[], ""),
        ] {
            assert_eq!(promised(Imap, upstreams), expected, "{upstreams:?}");
        }
    }

    #[test]
    fn what_was_last_told_after_a_login_counts_and_is_compared_with_its_own_kind() {
        // Exchange tells of MOVE to those who are logged in.
        let exchange = [
            (BeforeLogin, &["IDLE", "UIDPLUS"][..]),
            (AfterLogin, &["IDLE", "UIDPLUS", "MOVE"]),
        ];
        let same_again: (Moment, &[&str]) = (BeforeLogin, &["IDLE", "UIDPLUS"]);
        for (then, expected) in [
            (same_again, "IDLE UIDPLUS MOVE"),
            ((BeforeLogin, &["IDLE"]), "IDLE MOVE"),
            (
                (BeforeLogin, &["IDLE", "UIDPLUS", "CHILDREN"]),
                "IDLE UIDPLUS MOVE CHILDREN",
            ),
            ((AfterLogin, &["IDLE"]), "IDLE"),
            ((AfterLogin, &[]), ""),
        ] {
            let told = told(Imap, &[&exchange[..], &[then]].concat());
            assert_eq!(promised(Imap, &[Some(&told)]), expected, "{then:?}");
        }
        let hides_all = told(
            Imap,
            &[(BeforeLogin, &["IMAP4rev1"]), (AfterLogin, &["IDLE", "CHILDREN"])],
        );
        assert_eq!(promised(Imap, &[Some(&hides_all)]), "IDLE CHILDREN");
    }

    #[test]
    fn pop3s_universal_commands_are_told_unless_an_upstream_was_heard_without_them() {
        let gmail = told(
            Pop3,
            &[(
                BeforeLogin,
                &[
                    "USER",
                    "RESP-CODES",
                    "EXPIRE 0",
                    "LOGIN-DELAY 300",
                    "TOP",
                    "UIDL",
                    "UTF8",
                ],
            )],
        );
        let dovecot = told(
            Pop3,
            &[(
                BeforeLogin,
                &["CAPA", "top", "UIDL", "RESP-CODES", "PIPELINING", "STLS", "SASL PLAIN"],
            )],
        );
        let old = told(Pop3, &[(BeforeLogin, &["USER", "TOP"])]);
        for (upstreams, expected) in [
            (&[Some(&gmail)][..], "TOP UIDL"),
            (&[Some(&dovecot)], "TOP UIDL PIPELINING"),
            (&[Some(&dovecot), Some(&gmail)], "TOP UIDL"),
            (&[Some(&dovecot), None], "TOP UIDL"),
            (&[Some(&old), None], "TOP"),
            (&[], "TOP UIDL"),
        ] {
            assert_eq!(promised(Pop3, upstreams), expected, "{upstreams:?}");
        }
    }

    #[test]
    fn smtp_is_promised_as_its_extensions_say() {
        let one = told(
            Smtp,
            &[(BeforeLogin, &["SIZE 2000", "8BITMIME", "DSN", "STARTTLS", "AUTH PLAIN"])],
        );
        let other = told(Smtp, &[(BeforeLogin, &["dsn", "SIZE 1000"])]);
        assert_eq!(one.lines(), ["SIZE 2000", "8BITMIME", "DSN"]);
        assert_eq!(shared(Smtp, &[Some(&one), Some(&other)]), ["SIZE 1000", "DSN"]);
        assert!(shared(Smtp, &[Some(&one), None]).is_empty());
        assert!(shared(Smtp, &[]).is_empty());
    }

    #[test]
    fn what_is_kept_reads_back_and_an_empty_record_is_one() {
        let told = told(Imap, &[(BeforeLogin, &["IDLE"]), (AfterLogin, &["MOVE"])]);
        let kept = serde_json::to_string(&told).unwrap();
        assert_eq!(kept, r#"{"beforeLogin":["IDLE"],"afterLogin":["MOVE"]}"#);
        assert_eq!(serde_json::from_str::<Told>(&kept).unwrap(), told);
        assert_eq!(serde_json::from_str::<Told>("{}").unwrap(), Told::default());
    }
}
