//! What may be promised to a client of upstreams that it is not connected to yet (RFC 5321 §2.2).
//!
//! A client asks EHLO before it logs in, and keeps to the answer: it sends `BODY=8BITMIME`, `SMTPUTF8` or a message of 30 MB to
//! whichever upstream its login leads to. So it is told what every such upstream is known to honour, and nothing else: an
//! allow-list, since a keyword that nobody here has heard of may be one that a proxy breaks. Pure; who remembers what was
//! learned is `connection`.

use std::collections::BTreeMap;

/// The extensions of one upstream, or those that several share, as far as they may be promised.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions(BTreeMap<Keyword, Parameter>);

/// A keyword that may be promised, in the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Keyword {
    Size,
    EightBitMime,
    SmtpUtf8,
    Pipelining,
    EnhancedStatusCodes,
    Dsn,
    Chunking,
    BinaryMime,
    DeliverBy,
    MtPriority,
}

/// What stands behind a keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parameter {
    None,
    /// Octets of the largest message. `SIZE` alone and `SIZE 0` know no largest (RFC 1870 §4) and are [`Parameter::None`].
    Size(u64),
    /// To be passed on as it is.
    Text(String),
}

/// How several upstreams' parameters become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// The keyword has none; what a newer standard may have added is not promised.
    Bare,
    /// The smallest.
    Size,
    /// The keyword is promised only where they are the same.
    Same,
}

impl Extensions {
    /// Reads the lines of an EHLO response behind its first, without code and line end: `SIZE 35882577`. What may not be
    /// promised is left out; of a keyword that comes twice the first counts.
    pub fn parse(lines: &[impl AsRef<str>]) -> Self {
        let mut extensions = BTreeMap::new();
        for line in lines {
            if let Some((keyword, parameter)) = read(line.as_ref()) {
                extensions.entry(keyword).or_insert(parameter);
            }
        }
        Self(extensions).without_the_unfounded()
    }

    /// What all of them honour. Of no upstream at all nothing is known.
    pub fn shared<'a>(upstreams: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut upstreams = upstreams.into_iter();
        let first = upstreams.next().cloned().unwrap_or_default();
        upstreams
            .fold(first, |shared, upstream| shared.and(upstream))
            .without_the_unfounded()
    }

    /// The lines for an EHLO response.
    pub fn lines(&self) -> Vec<String> {
        let line = |(keyword, parameter): (&Keyword, &Parameter)| match parameter {
            Parameter::None => keyword.name().to_owned(),
            Parameter::Size(octets) => format!("{} {octets}", keyword.name()),
            Parameter::Text(text) => format!("{} {text}", keyword.name()),
        };
        self.0.iter().map(line).collect()
    }

    fn and(mut self, other: &Self) -> Self {
        self.0.retain(|keyword, parameter| {
            let Some(theirs) = other.0.get(keyword) else {
                return false;
            };
            match (&*parameter, theirs) {
                (Parameter::Size(ours), Parameter::Size(theirs)) => *parameter = Parameter::Size(*ours.min(theirs)),
                (Parameter::None, Parameter::Size(_)) => *parameter = theirs.clone(),
                (Parameter::Size(_), Parameter::None) => {}
                (ours, theirs) => return ours == theirs,
            }
            true
        });
        self
    }

    /// Drops what rests on another extension that is missing: without BDAT no message can be sent as BINARYMIME (RFC 3030
    /// §3), and SMTPUTF8 comes with 8BITMIME (RFC 6531 §3.1).
    fn without_the_unfounded(mut self) -> Self {
        for (keyword, ground) in [
            (Keyword::BinaryMime, Keyword::Chunking),
            (Keyword::SmtpUtf8, Keyword::EightBitMime),
        ] {
            if !self.0.contains_key(&ground) {
                self.0.remove(&keyword);
            }
        }
        self
    }
}

/// Whether a client that was promised `promised` may not be let through to an upstream that says `learned`. A missing BDAT is
/// more than a broken promise: the upstream would take the octets of a message, which may be a stranger's, for commands. All
/// else that is missing the upstream refuses in its own words.
pub fn is_chunking_broken(promised: &[String], learned: &[String]) -> bool {
    let has_chunking = |lines: &[String]| Extensions::parse(lines).0.contains_key(&Keyword::Chunking);
    has_chunking(promised) && !has_chunking(learned)
}

/// Whether a line of an EHLO response names an extension that may be promised, so that telling it breaks nothing.
pub fn may_be_promised(line: &str) -> bool {
    read(line).is_some()
}

impl Keyword {
    const ALL: [Self; 10] = [
        Self::Size,
        Self::EightBitMime,
        Self::SmtpUtf8,
        Self::Pipelining,
        Self::EnhancedStatusCodes,
        Self::Dsn,
        Self::Chunking,
        Self::BinaryMime,
        Self::DeliverBy,
        Self::MtPriority,
    ];

    // Left out with a reason: STARTTLS and AUTH are the proxy's own. BURL makes the upstream fetch from an IMAP server with
    // a login that the client does not have. XCLIENT, XFORWARD and ETRN are for servers. REQUIRETLS speaks of every leg, and
    // the client's may be in clear (RFC 8689 §2). The dates of FUTURERELEASE and the numbers of LIMITS may have changed by
    // the time of the session. HELP, EXPN and VRFY need no promise.
    const fn name(self) -> &'static str {
        match self {
            Self::Size => "SIZE",
            Self::EightBitMime => "8BITMIME",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Pipelining => "PIPELINING",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::Dsn => "DSN",
            Self::Chunking => "CHUNKING",
            Self::BinaryMime => "BINARYMIME",
            Self::DeliverBy => "DELIVERBY",
            Self::MtPriority => "MT-PRIORITY",
        }
    }

    const fn rule(self) -> Rule {
        match self {
            Self::Size => Rule::Size,
            Self::EightBitMime
            | Self::SmtpUtf8
            | Self::Pipelining
            | Self::EnhancedStatusCodes
            | Self::Dsn
            | Self::Chunking
            | Self::BinaryMime => Rule::Bare,
            // RFC 2852 §2: the least time; RFC 6710 §2: the name of a profile.
            Self::DeliverBy | Self::MtPriority => Rule::Same,
        }
    }
}

/// One line; `None` for what may not be promised.
fn read(line: &str) -> Option<(Keyword, Parameter)> {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    let keyword = Keyword::ALL
        .into_iter()
        .find(|keyword| name.eq_ignore_ascii_case(keyword.name()))?;
    let given = rest.trim();
    let parameter = match keyword.rule() {
        Rule::Bare => Parameter::None,
        // What is no number says as little as none.
        Rule::Size => match given.parse() {
            Ok(0) | Err(_) => Parameter::None,
            Ok(octets) => Parameter::Size(octets),
        },
        Rule::Same if given.is_empty() => Parameter::None,
        Rule::Same if given.len() <= PARAMETER_BYTES_MAX && given.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Parameter::Text(given.to_ascii_uppercase())
        }
        Rule::Same => return None,
    };
    Some((keyword, parameter))
}

/// Bytes of a parameter that is passed on. A profile's or a number's name is far shorter.
const PARAMETER_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::testing::proptest_config;

    const GMAIL: &[&str] = &[
        "SIZE 35882577",
        "8BITMIME",
        "AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH",
        "ENHANCEDSTATUSCODES",
        "PIPELINING",
        "CHUNKING",
        "SMTPUTF8",
    ];
    const OUTLOOK: &[&str] = &[
        "SIZE 157286400",
        "PIPELINING",
        "DSN",
        "ENHANCEDSTATUSCODES",
        "AUTH LOGIN XOAUTH2",
        "8BITMIME",
        "BINARYMIME",
        "CHUNKING",
        "SMTPUTF8",
    ];

    fn shared(upstreams: &[&[&str]]) -> Vec<String> {
        let upstreams: Vec<Extensions> = upstreams.iter().map(|lines| Extensions::parse(lines)).collect();
        Extensions::shared(&upstreams).lines()
    }

    #[test]
    fn a_promised_bdat_must_be_there() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let (with, without) = (lines(&["SIZE 10", "chunking"]), lines(&["SIZE 10"]));
        assert!(is_chunking_broken(&with, &without));
        assert!(!is_chunking_broken(&with, &with));
        assert!(!is_chunking_broken(&without, &without));
        assert!(!is_chunking_broken(&[], &with));
    }

    #[test]
    fn only_what_may_be_promised_is_read() {
        for (lines, expected) in [
            (
                GMAIL,
                &[
                    "SIZE 35882577",
                    "8BITMIME",
                    "SMTPUTF8",
                    "PIPELINING",
                    "ENHANCEDSTATUSCODES",
                    "CHUNKING",
                ][..],
            ),
            (
                &[
                    "STARTTLS",
                    "AUTH PLAIN",
                    "AUTH=PLAIN",
                    "BURL imap",
                    "XCLIENT NAME",
                    "XFORWARD NAME",
                    "ETRN",
                    "VRFY",
                    "HELP",
                    "X-EXPS GSSAPI",
                    "LIMITS RCPTMAX=5",
                    "REQUIRETLS",
                    "FUTURERELEASE 1 2",
                    "",
                    " ",
                    "SIZES 5",
                ],
                &[],
            ),
            (&["8bitmime", "pipelining x"], &["8BITMIME", "PIPELINING"]),
            (&["SIZE"], &["SIZE"]),
            (&["SIZE 0"], &["SIZE"]),
            (&["SIZE abc"], &["SIZE"]),
            (&["SIZE  5 "], &["SIZE 5"]),
            (&["SIZE 5", "SIZE 7"], &["SIZE 5"]),
            (&["SIZE 99999999999999999999999"], &["SIZE"]),
            (&["BINARYMIME"], &[]),
            (&["SMTPUTF8"], &[]),
            (
                &["DELIVERBY 240", "MT-PRIORITY mixer"],
                &["DELIVERBY 240", "MT-PRIORITY MIXER"],
            ),
            (&["DELIVERBY a\u{1}b", "MT-PRIORITY a b"], &[]),
        ] {
            assert_eq!(shared(&[lines]), expected, "{lines:?}");
        }
    }

    #[test]
    fn only_what_all_have_is_shared_and_size_is_the_smallest() {
        let none: &[&str] = &[];
        for (upstreams, expected) in [
            (
                &[GMAIL, OUTLOOK][..],
                &[
                    "SIZE 35882577",
                    "8BITMIME",
                    "SMTPUTF8",
                    "PIPELINING",
                    "ENHANCEDSTATUSCODES",
                    "CHUNKING",
                ][..],
            ),
            (
                &[OUTLOOK, OUTLOOK],
                &[
                    "SIZE 157286400",
                    "8BITMIME",
                    "SMTPUTF8",
                    "PIPELINING",
                    "ENHANCEDSTATUSCODES",
                    "DSN",
                    "CHUNKING",
                    "BINARYMIME",
                ],
            ),
            (&[], none),
            (&[GMAIL, none], none),
            (&[&["SIZE 0"], &["SIZE"]], &["SIZE"]),
            (&[&["SIZE"], &["SIZE 7"], &["SIZE 9"]], &["SIZE 7"]),
            (&[&["SIZE 7"], &["8BITMIME"]], none),
            (&[&["CHUNKING", "BINARYMIME"], &["CHUNKING"]], &["CHUNKING"]),
            (&[&["CHUNKING", "BINARYMIME"], &["BINARYMIME"]], none),
            (&[&["DELIVERBY 5"], &["DELIVERBY 5"]], &["DELIVERBY 5"]),
            (&[&["DELIVERBY 5"], &["DELIVERBY 6"]], none),
            (&[&["DELIVERBY 5"], &["DELIVERBY"]], none),
        ] {
            assert_eq!(shared(upstreams), expected, "{upstreams:?}");
        }
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "(SIZE|size|8BITMIME|SMTPUTF8|CHUNKING|BINARYMIME|DSN|DELIVERBY|STARTTLS|AUTH|X-ANY)( [0-9]{0,3})?",
            "[\\x00-\\u{ff}]{0,12}",
        ]
    }

    proptest! {
        #![proptest_config(proptest_config("proptest-regressions/smtp_extensions.txt"))]

        #[test]
        fn what_is_shared_is_every_upstreams_in_any_order_and_fit_for_a_line(
            mut upstreams in prop::collection::vec(prop::collection::vec(line(), 0..8), 1..5),
        ) {
            let sets: Vec<Extensions> = upstreams.iter().map(|lines| Extensions::parse(lines)).collect();
            let shared = Extensions::shared(&sets);
            for set in &sets {
                prop_assert_eq!(&Extensions::shared([&shared, set]), &shared, "it adds nothing to what one has");
            }
            upstreams.reverse();
            let reversed: Vec<Extensions> = upstreams.iter().map(|lines| Extensions::parse(lines)).collect();
            prop_assert_eq!(&Extensions::shared(&reversed), &shared);
            let lines = shared.lines();
            prop_assert!(lines.iter().all(|line| may_be_promised(line) && !line.contains(char::is_control)));
            prop_assert_eq!(Extensions::parse(&lines), shared);
        }
    }
}
