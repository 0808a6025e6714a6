//! What a failed step found: the trouble in words, and what to do about it. Pure.

use crate::account::meaning;
use crate::config::{OAuthApp, Provider};
use crate::fault::{Fault, FaultKind};
use crate::net::tls;
use crate::oauth::explain;
use crate::proto::Protocol;
use crate::sentence::explained;
use crate::shell;

/// What a failed step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What is wrong, the peer's own words included.
    pub(super) message: String,
    /// What to do about it, where that is known.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// Why there is no such endpoint.
    pub(super) fn of_place(fault: Fault) -> Self {
        let remedy = "Configure the provider with this endpoint, or give the account one of its own, then send SIGHUP";
        Self::new(fault.detail, remedy)
    }

    /// What an endpoint's own words about TLS are.
    pub(super) fn of_tls(fault: Fault) -> Self {
        match tls::remedy_at_end_of(&fault.detail) {
            Some((problem, remedy)) => Self::new(problem, sentence(remedy)),
            None => Self::new(
                fault.detail,
                "Check host, port and tls of the endpoint, and what stands between: a proxy, a firewall",
            ),
        }
    }

    /// Why a STARTTLS at `protocol` did not come to TLS: for its handshake, or for what was said before.
    pub(super) fn of_starttls(protocol: Protocol, fault: Fault) -> Self {
        if tls::remedy_at_end_of(&fault.detail).is_some() {
            return Self::of_tls(fault);
        }
        if meaning::of_fault(protocol, &fault).is_some() {
            return Self::of_login(protocol, &fault);
        }
        Self::new(
            fault.detail,
            "If this port begins with TLS, set the endpoint's tls to \"implicit\"; else check its port, and whether something \
             between here and the upstream keeps STARTTLS from it",
        )
    }

    /// Why `account` has no credential to present.
    pub(super) fn of_credential(account: &str, provider: &Provider, fault: Fault) -> Self {
        let Fault {
            kind, detail, remedy, ..
        } = fault;
        let message = match detail.is_empty() {
            true => kind.to_string(),
            false => detail,
        };
        if let Some(remedy) = remedy {
            return Self::new(message, remedy);
        }
        if let Some(remedy) = explain::remedy_at_end_of(&message) {
            let message = message.strip_suffix(remedy).unwrap_or(&message);
            let message = message.trim_end_matches(". ");
            let message = provider
                .oauth
                .as_ref()
                .map_or_else(|| message.to_owned(), |app| with_token_endpoint(app, message));
            return Self::new(message, remedy);
        }
        let remedy = match kind {
            FaultKind::AuthorizationGone => {
                format!(
                    "Authorize the account (portreeve account authorize {}), or give it new credentials",
                    shell::word(account)
                )
            }
            FaultKind::AppRefused => "Check the provider's OAuth app: client_id, client_secret, client_auth".to_owned(),
            FaultKind::AccountDisabled => {
                format!(
                    "Enable the account: portreeve account update {} --enable",
                    shell::word(account)
                )
            }
            _ => "Wait: it is tried again by itself".to_owned(),
        };
        Self::new(message, remedy)
    }

    /// Why a login at `protocol` failed.
    pub(super) fn of_login(protocol: Protocol, fault: &Fault) -> Self {
        if let Some(known) = meaning::of_fault(protocol, fault) {
            let known = known.explanation;
            return Self::new(explained(fault, known.cause), known.remedy);
        }
        let text = fault.to_string();
        if let Some((problem, remedy)) = tls::remedy_at_end_of(&text) {
            return Self::new(problem, sentence(remedy));
        }
        let remedy = match &fault.kind {
            FaultKind::UpstreamRefused(refusal) if refusal.blames_credential => {
                "Check that the account's user is the mailbox's login name; then authorize it again, or give it the right password"
            }
            FaultKind::UpstreamRefused(_) => {
                "Ask the provider or its administrator; it is not the credential that is refused"
            }
            _ => "Try again later; if it goes on, check host, port and tls of the endpoint",
        };
        Self::new(text, remedy)
    }

    /// Why the first command at `protocol` failed, in the upstream's `words`.
    pub(super) fn of_command(protocol: Protocol, words: String) -> Self {
        match meaning::of_words(protocol, &words) {
            Some(known) => {
                let known = known.explanation;
                Self::new(explained(words, known.cause), known.remedy)
            }
            None => Self::new(
                words,
                "The login is accepted, but not what comes next: ask the provider's administrator about this mailbox",
            ),
        }
    }
}

/// Says in a `message` of a token endpoint that cannot be reached which host that is and how far one gets.
fn with_token_endpoint(app: &OAuthApp, message: &str) -> String {
    let Some((_, rest)) = message.split_once("the token endpoint: ") else {
        return message.to_owned();
    };
    let url = app.token_url.as_ref().or(app.issuer.as_ref());
    let host = url.and_then(|url| url.host_str()).unwrap_or("of the provider");
    let lower = rest.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    // The words are those of the HTTP client's causes, innermost last.
    let phase = match () {
        () if says(&["dns error", "failed to lookup", "name or service not known"]) => "DNS",
        () if says(&["certificate", "handshake", "tls", "unknownissuer"]) => "TLS",
        () if says(&["tcp connect", "connection refused", "unreachable", "reset"]) => "TCP",
        () if says(&["no answer within"]) => "no answer",
        () => "HTTP",
    };
    format!("the token endpoint {host} cannot be used ({phase}): {rest}")
}

/// A phrase as a sentence.
fn sentence(phrase: &str) -> String {
    let mut chars = phrase.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}
