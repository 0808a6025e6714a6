//! Runs of failed logins: how many in a row over which protocol, whose doing they are, and what is shown of them. Pure.
//!
//! A run ends with a login that succeeds over its protocol. One that fails over a protocol while another is good leaves the
//! account's state alone: it is that protocol which is closed.

use super::held::{UPSTREAM_REFUSED, UPSTREAM_UNAVAILABLE, is_upstreams, setting_code};
use crate::account::meaning::{self, Trouble};
use crate::clock::Timestamp;
use crate::fault::{Blame, Fault, FaultKind, LoginStep};
use crate::proto::Protocol;
use crate::sentence::explained;
use crate::store::{AccountError, AccountRecord, Failures};

/// The runs that go on, at most one for each protocol and one of which nobody knows any more over which it was.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    protocol: Option<Protocol>,
    failures: Failures,
    /// What the upstream said last; `None` where it was never asked.
    error: Option<AccountError>,
}

/// What a failed login says of its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The credential is refused.
    Credential,
    /// The upstream does not serve the mailbox over this protocol, until somebody acts.
    Setting,
    /// The upstream cannot be had, or not now. It is what everything unknown is.
    Moment,
    /// There was nothing to present.
    Grant,
}

impl Whose {
    /// Whose doing `fault` is. `None`: the client's, or nothing that concerns the account.
    pub(super) fn of(protocol: Protocol, fault: &Fault) -> Option<Self> {
        let trouble = meaning::of_fault(protocol, fault).map(|meaning| meaning.trouble);
        Some(match (&fault.kind, trouble) {
            (FaultKind::AuthorizationGone | FaultKind::AppRefused, _) => Self::Grant,
            (FaultKind::AccountDisabled | FaultKind::ProxyLimit | FaultKind::ProtocolNotOffered, _) => return None,
            (kind, _) if kind.blame() == Blame::Client => return None,
            (_, Some(Trouble::Load)) => Self::Moment,
            (_, Some(Trouble::Setting)) => Self::Setting,
            (FaultKind::UpstreamRefused(refusal), Some(Trouble::Credential) | None) if refusal.blames_credential => {
                Self::Credential
            }
            (_, Some(Trouble::Credential)) => Self::Setting,
            (kind @ FaultKind::UpstreamRefused(_), None) if !kind.is_temporary() => Self::Setting,
            (_, None) => Self::Moment,
        })
    }

    /// The error to be shown for it.
    pub(super) fn error(self, protocol: Protocol, fault: &Fault, now: Timestamp) -> AccountError {
        let meaning = meaning::of_fault(protocol, fault);
        let code = match self {
            Self::Credential => UPSTREAM_REFUSED,
            Self::Setting => setting_code(protocol),
            Self::Moment | Self::Grant => UPSTREAM_UNAVAILABLE,
        };
        let told = match words(fault) {
            Some(words) => format!("the upstream refuses the {}{}: {words}", self.what(), over(protocol)),
            None => format!("a login{} failed: {}", over(protocol), detail(fault)),
        };
        let cause = meaning.map(|meaning| meaning.explanation.cause.to_owned());
        let more = said_before(fault).into_iter().chain(cause);
        let remedy = meaning.map(|meaning| meaning.explanation.remedy.to_owned());
        AccountError {
            code: code.to_owned(),
            message: more.fold(told, explained),
            remedy: remedy.or_else(|| fault.remedy.as_deref().map(str::to_owned)),
            time: now,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Setting | Self::Moment | Self::Grant => "login",
        }
    }
}

impl Runs {
    /// What is known of the runs of an account that is read from the store.
    pub(super) fn of(record: &AccountRecord) -> Self {
        let error = record.last_error.as_ref().filter(|error| is_upstreams(&error.code));
        let told = error.map(|error| Failures {
            count: 1,
            since: error.time,
        });
        let run = record.failures.or(told).map(|failures| Run {
            protocol: error.and_then(|error| {
                let mut protocols = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3].into_iter();
                protocols.find(|protocol| error.code == setting_code(*protocol))
            }),
            failures,
            error: error.cloned(),
        });
        Self {
            runs: run.into_iter().collect(),
        }
    }

    /// One more login failed over `protocol`, with what the upstream said if it was asked.
    pub(super) fn add(&mut self, protocol: Protocol, error: Option<AccountError>, now: Timestamp) {
        let is_it = |run: &&mut Run| run.protocol.is_none_or(|known| known == protocol);
        match self.runs.iter_mut().find(is_it) {
            Some(run) => {
                run.protocol = Some(protocol);
                run.failures.count = run.failures.count.saturating_add(1);
                if error.is_some() {
                    run.error = error;
                }
            }
            None => self.runs.push(Run {
                protocol: Some(protocol),
                failures: Failures { count: 1, since: now },
                error,
            }),
        }
    }

    /// A login over `protocol` succeeded.
    pub(super) fn end(&mut self, protocol: Protocol) {
        self.runs
            .retain(|run| run.protocol.is_some_and(|failing| failing != protocol));
    }

    /// There is a credential again: whatever failed for want of one is over.
    pub(super) fn end_without_error(&mut self) {
        self.runs.retain(|run| run.error.is_some());
    }

    /// Whether logins over `protocol` fail.
    pub(super) fn is_failing(&self, protocol: Protocol) -> bool {
        self.runs.iter().any(|run| run.protocol == Some(protocol))
    }

    /// What is to be shown of all of them.
    pub(super) fn total(&self) -> Option<Failures> {
        let failures = self.runs.iter().map(|run| run.failures);
        failures.reduce(|one, other| Failures {
            count: one.count.saturating_add(other.count),
            since: one.since.min(other.since),
        })
    }

    /// What an upstream said last.
    pub(super) fn last_error(&self) -> Option<&AccountError> {
        let errors = self.runs.iter().filter_map(|run| run.error.as_ref());
        errors.max_by_key(|error| error.time)
    }
}

/// The upstream's own words, if a login failed for them: its answer, not what was found wanting in it.
fn words(fault: &Fault) -> Option<String> {
    let (code, text) = match (&fault.kind, &fault.said) {
        (FaultKind::UpstreamRefused(refusal), _) => (&refusal.code, &refusal.text),
        (_, Some(said)) if !matches!(said.step, LoginStep::Mechanism(_)) => (&said.code, &said.text),
        _ => return None,
    };
    let code = code.as_ref().map(|code| format!("[{code}]"));
    let words: Vec<String> = code
        .into_iter()
        .chain([text.clone()].into_iter().filter(|text| !text.is_empty()))
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// What the upstream said for the mailbox's owner before it refused.
fn said_before(fault: &Fault) -> Option<String> {
    let alerts = fault.alerts();
    (!alerts.is_empty()).then(|| format!("before that it said: {}", alerts.join("; ")))
}

/// What went wrong, for an operator.
pub(super) fn detail(fault: &Fault) -> String {
    match fault.detail.as_str() {
        "" => fault.kind.to_string(),
        detail => detail.to_owned(),
    }
}

fn over(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Imap => "",
        Protocol::Smtp => " over smtp",
        Protocol::Pop3 => " over pop3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{CredentialForm, UpstreamRefusal, UpstreamWords};

    /// What is answered at this step, with neither the credential nor anything else blamed.
    fn said(step: LoginStep, code: &str, text: &str) -> Fault {
        let code = Some(code.to_owned()).filter(|code| !code.is_empty());
        Fault::unavailable("upstream answers something").for_words(UpstreamWords::new(step, code, text.to_owned()))
    }

    fn refused(code: &str, text: &str, blames_credential: bool) -> Fault {
        Fault::new(FaultKind::UpstreamRefused(UpstreamRefusal {
            code: Some(code.to_owned()).filter(|code| !code.is_empty()),
            text: text.to_owned(),
            blames_credential,
        }))
    }

    #[test]
    fn whatever_is_not_sure_is_of_the_moment() {
        let (imap, smtp) = (Protocol::Imap, Protocol::Smtp);
        for (protocol, fault, expected) in [
            (imap, refused("", "Server Unavailable. 15", false), Some(Whose::Moment)),
            (imap, refused("OVERQUOTA", "full", false), Some(Whose::Moment)),
            (
                smtp,
                Fault::unavailable("greets with 421 too busy"),
                Some(Whose::Moment),
            ),
            (
                imap,
                Fault::unavailable("offers none of OAUTHBEARER, XOAUTH2"),
                Some(Whose::Moment),
            ),
            (imap, Fault::new(FaultKind::Internal), Some(Whose::Moment)),
            (
                imap,
                refused("", "Request is throttled. Suggested Backoff Time: 5", true),
                Some(Whose::Moment),
            ),
            (imap, refused("CONTACTADMIN", "no", false), Some(Whose::Setting)),
            (
                imap,
                refused("", "User is authenticated but not connected.", true),
                Some(Whose::Setting),
            ),
            (
                imap,
                said(LoginStep::Login, "", "User is authenticated but not connected."),
                Some(Whose::Setting),
            ),
            (
                smtp,
                said(LoginStep::Greeting, "421 4.3.2", "busy"),
                Some(Whose::Moment),
            ),
            (smtp, said(LoginStep::Greeting, "554 5.7.1", "no"), Some(Whose::Moment)),
            (imap, said(LoginStep::Login, "INUSE", "later"), Some(Whose::Moment)),
            (
                imap,
                said(LoginStep::Mechanism(CredentialForm::Token), "", "AUTH=PLAIN"),
                Some(Whose::Setting),
            ),
            (
                imap,
                refused("AUTHENTICATIONFAILED", "no", true),
                Some(Whose::Credential),
            ),
            (imap, Fault::new(FaultKind::AuthorizationGone), Some(Whose::Grant)),
            (imap, Fault::new(FaultKind::AppRefused), Some(Whose::Grant)),
            (imap, Fault::new(FaultKind::UnknownCredentials), None),
            (imap, Fault::new(FaultKind::ForeignToken), None),
            (imap, Fault::new(FaultKind::AccountLimit), None),
            (imap, Fault::new(FaultKind::ProxyLimit), None),
            (imap, Fault::new(FaultKind::AccountDisabled), None),
            (imap, Fault::new(FaultKind::ClientGone), None),
        ] {
            assert_eq!(Whose::of(protocol, &fault), expected, "{fault}");
        }
    }

    #[test]
    fn an_error_says_what_was_said_and_beside_it_what_to_do() {
        let now = Timestamp::from_millis(5);
        let fault = said(LoginStep::Login, "", "User is authenticated but not connected.");
        let error = Whose::Setting.error(Protocol::Imap, &fault, now);
        assert_eq!((error.code.as_str(), error.time), ("imap_refused", now));
        let words = "the upstream refuses the login: User is authenticated but not connected; the token is good, but";
        assert!(error.message.starts_with(words), "{}", error.message);
        assert!(error.remedy.unwrap().contains("Set-CASMailbox"));
        let fault = refused("", "Server Unavailable. 15", false);
        let error = Whose::Moment.error(Protocol::Smtp, &fault, now);
        assert_eq!(error.code, "upstream_unavailable");
        assert_eq!(
            error.message,
            "the upstream refuses the login over smtp: Server Unavailable. 15"
        );
        assert_eq!(error.remedy, None);
        let alert = "OK [ALERT] Your mailbox moves tonight".to_owned();
        let fault = Fault::unavailable("connection reset")
            .after_alerts(vec![alert])
            .with_remedy("Wait");
        let error = Whose::Moment.error(Protocol::Pop3, &fault, now);
        assert_eq!(
            error.message,
            "a login over pop3 failed: connection reset; before that it said: OK [ALERT] Your mailbox moves tonight"
        );
        assert_eq!(error.remedy.as_deref(), Some("Wait"));
    }

    #[test]
    fn runs_are_counted_by_protocol_and_shown_as_one() {
        let at = Timestamp::from_millis;
        let error = |millis: u64| Some(Whose::Moment.error(Protocol::Imap, &Fault::unavailable(millis), at(millis)));
        let mut runs = Runs::default();
        assert_eq!((runs.total(), runs.last_error()), (None, None));
        runs.add(Protocol::Imap, error(3), at(3));
        runs.add(Protocol::Imap, None, at(4));
        runs.add(Protocol::Smtp, error(5), at(5));
        let total = |count, since| {
            Some(Failures {
                count,
                since: at(since),
            })
        };
        assert_eq!((runs.total(), runs.last_error()), (total(3, 3), error(5).as_ref()));
        runs.end(Protocol::Smtp);
        assert_eq!((runs.total(), runs.last_error()), (total(2, 3), error(3).as_ref()));
        assert!(runs.is_failing(Protocol::Imap) && !runs.is_failing(Protocol::Smtp));
        runs.end_without_error();
        runs.end(Protocol::Pop3);
        assert_eq!(runs.total(), total(2, 3));
        runs.end(Protocol::Imap);
        assert_eq!(runs.total(), None);
    }

    #[test]
    fn a_run_goes_on_after_a_restart() {
        let mut record = AccountRecord::new("ada".to_owned(), "example".to_owned(), Timestamp::EPOCH);
        let since = Timestamp::from_millis(7);
        record.failures = Some(Failures { count: 4, since });
        let mut runs = Runs::of(&record);
        runs.add(Protocol::Pop3, None, Timestamp::from_millis(9));
        assert_eq!(runs.total(), Some(Failures { count: 5, since }));
        runs.end(Protocol::Pop3);
        assert_eq!(runs.total(), None);
        // One of a setting is that protocol's.
        let fault = refused(
            "535 5.7.139",
            "SmtpClientAuthentication is disabled for the Mailbox.",
            true,
        );
        record.last_error = Some(Whose::Setting.error(Protocol::Smtp, &fault, since));
        let mut runs = Runs::of(&record);
        runs.end(Protocol::Imap);
        assert_eq!(runs.total(), record.failures);
        assert_eq!(runs.last_error(), record.last_error.as_ref());
    }
}
