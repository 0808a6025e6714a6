//! Scopes: which a refresh names, and which a grant lacks. Pure.
//!
//! What a provider says of scopes is a hint. Microsoft writes them with or without their resource, and the resource under
//! another of its names; so two are the same if they may be.

use super::vendor::Vendor;
use crate::config::OAuthApp;
use crate::limits::CONSENTED_SCOPES_MAX;
use crate::proto::Protocol;

/// Which of the scopes that were `asked` for are not among those `granted`. What only asks for an identity or a refresh token
/// is not missed: providers leave it out (Microsoft `offline_access`) or write it otherwise (Google `email`).
pub fn missing_scopes<'a>(asked: &'a [String], granted: &'a [String]) -> impl Iterator<Item = &'a str> {
    let asked = asked.iter().map(String::as_str);
    asked.filter(move |scope| !NOT_MISSED.contains(scope) && !is_granted(scope, granted))
}

/// The protocol that a scope is for. Providers that have one for each name it so: `…/SMTP.Send`, `…/protocol-imap`,
/// `mail:imap_full`.
pub fn protocol_of(scope: &str) -> Option<Protocol> {
    let last = scope.rsplit('/').next().unwrap_or(scope).to_ascii_lowercase();
    let named = [
        ("imap", Protocol::Imap),
        ("smtp", Protocol::Smtp),
        ("pop", Protocol::Pop3),
    ];
    let mut named = named.into_iter().filter(|(name, _)| last.contains(name));
    named.next().map(|(_, protocol)| protocol)
}

/// The scopes that a refresh names (RFC 6749 §6): of those that the provider's app asks for the ones that were `granted`, as far
/// as the provider said so; none stands for the grant's own.
///
/// Where it said nothing, only Microsoft is told any: they choose the resource that the token is for. So they do where it calls
/// all of them by names that mean nothing here.
pub(super) fn of_refresh<'a>(app: &'a OAuthApp, vendor: Vendor, granted: Option<&[String]>) -> Vec<&'a str> {
    let asked = app.refresh_scopes.iter().map(String::as_str);
    let all = || match vendor {
        Vendor::Microsoft => asked.clone().collect(),
        _ => Vec::new(),
    };
    let Some(granted) = granted else { return all() };
    // Microsoft never lists it, and gives no refresh token to a request without it.
    let is_always_granted = |scope: &str| vendor == Vendor::Microsoft && scope == "offline_access";
    let opens = |scope: &&str| !NOT_MISSED.contains(scope) && is_granted(scope, granted);
    if !asked.clone().any(|scope| opens(&scope)) {
        return all();
    }
    let named = asked.filter(|scope| is_granted(scope, granted) || is_always_granted(scope));
    named.collect()
}

/// What a grant is for after a refresh that `named` some of its scopes: those that the answer `told`, and those that were `granted`
/// before and not asked for. An answer tells of its access token (RFC 6749 §5.1), and the grant stays what it was (§6).
pub(super) fn after_refresh(mut told: Vec<String>, granted: &[String], named: &[&str]) -> Vec<String> {
    for scope in granted {
        let was_asked = named.is_empty() || named.iter().any(|named| is_same(named, scope));
        if !was_asked && !is_granted(scope, &told) && told.len() < CONSENTED_SCOPES_MAX {
            told.push(scope.clone());
        }
    }
    told
}

fn is_granted(scope: &str, granted: &[String]) -> bool {
    granted.iter().any(|given| is_same(scope, given))
}

/// Whether two names may be of one scope: they are alike but for case and a slash at the end, or one has no resource and is the
/// other's last part, or their resources are one.
fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    if one.eq_ignore_ascii_case(other) {
        return true;
    }
    let (one_resource, one_name) = split(one);
    let (other_resource, other_name) = split(other);
    let is_one_resource = match (one_resource, other_resource) {
        (Some(one), Some(other)) => is_outlook(one) && is_outlook(other),
        // A resource by itself is no scope of another's: https://mail.google.com.
        (Some(_), None) | (None, Some(_)) => true,
        (None, None) => false,
    };
    is_one_resource && one_name.eq_ignore_ascii_case(other_name)
}

/// A scope's resource and its name there.
fn split(scope: &str) -> (Option<&str>, &str) {
    match scope.rsplit_once('/') {
        Some((resource, name)) if resource.contains("://") && !resource.ends_with("//") => (Some(resource), name),
        _ => (None, scope),
    }
}

/// Whether a resource is Exchange Online.
fn is_outlook(resource: &str) -> bool {
    let host = resource.strip_prefix("https://").unwrap_or_default();
    OUTLOOK.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Names of Exchange Online, in each of Microsoft's clouds.
const OUTLOOK: [&str; 6] = [
    "outlook.office.com",
    "outlook.office365.com",
    "outlook.office365.us",
    "outlook-dod.office365.us",
    "partner.outlook.cn",
    "ps.outlook.com",
];

/// Scopes that open no mailbox (OpenID Connect Core §5.4, §11).
const NOT_MISSED: [&str; 6] = ["openid", "profile", "email", "address", "phone", "offline_access"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_support;

    const OUTLOOK_IMAP: &str = "https://outlook.office.com/IMAP.AccessAsUser.All";
    const OUTLOOK_SMTP: &str = "https://outlook.office.com/SMTP.Send";

    fn owned(scopes: &[&str]) -> Vec<String> {
        scopes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_scopes_name_tells_its_protocol() {
        for (scope, expected) in [
            (OUTLOOK_IMAP, Some(Protocol::Imap)),
            (OUTLOOK_SMTP, Some(Protocol::Smtp)),
            ("https://outlook.office.com/POP.AccessAsUser.All", Some(Protocol::Pop3)),
            ("https://www.fastmail.com/dev/protocol-pop", Some(Protocol::Pop3)),
            ("mail:imap_full", Some(Protocol::Imap)),
            ("mail:smtp", Some(Protocol::Smtp)),
            ("mail-w", None),
            ("https://mail.google.com/", None),
            ("https://email.comcast.net/", None),
        ] {
            assert_eq!(protocol_of(scope), expected, "{scope}");
        }
    }

    #[test]
    fn a_scope_is_the_same_however_a_provider_writes_it() {
        for (asked, granted, is_missing) in [
            ("mail", "mail", false),
            ("mail", "Mail", false),
            ("mail", "send", true),
            (OUTLOOK_IMAP, "IMAP.AccessAsUser.All", false),
            (
                OUTLOOK_IMAP,
                "https://outlook.office365.com/IMAP.AccessAsUser.All",
                false,
            ),
            (OUTLOOK_IMAP, "https://graph.microsoft.com/IMAP.AccessAsUser.All", true),
            (OUTLOOK_IMAP, "https://outlook.office.com/SMTP.Send", true),
            ("SMTP.Send", OUTLOOK_SMTP, false),
            ("https://mail.google.com/", "https://mail.google.com", false),
            ("https://mail.google.com/", "mail.google.com", true),
            ("https://one.example/mail", "https://other.example/mail", true),
            ("openid", "mail", false),
            ("offline_access", "mail", false),
        ] {
            let (asked, granted) = (owned(&[asked]), owned(&[granted]));
            let is_missed = missing_scopes(&asked, &granted).next().is_some();
            assert_eq!(is_missed, is_missing, "{asked:?} {granted:?}");
        }
    }

    #[test]
    fn a_scope_that_a_refresh_did_not_name_stays_granted() {
        for (told, granted, named, after) in [
            (
                &["imap"][..],
                &["imap", "smtp"][..],
                &["imap"][..],
                &["imap", "smtp"][..],
            ),
            // It was asked for, and is no more.
            (&["imap"], &["imap", "smtp"], &["imap", "smtp"], &["imap"]),
            (&["imap", "more"], &["imap", "smtp"], &[], &["imap", "more"]),
            (
                &["SMTP.Send"],
                &[OUTLOOK_SMTP, OUTLOOK_IMAP],
                &[OUTLOOK_SMTP],
                &["SMTP.Send", OUTLOOK_IMAP],
            ),
            (&["imap"], &[], &["imap"], &["imap"]),
        ] {
            let scopes = after_refresh(owned(told), &owned(granted), named);
            assert_eq!(scopes, after, "{told:?} {granted:?} {named:?}");
        }
    }

    #[test]
    fn a_refresh_names_nothing_that_was_not_granted() {
        let microsoft = &[OUTLOOK_IMAP, OUTLOOK_SMTP, "offline_access"][..];
        type Case<'a> = (Vendor, &'a [&'a str], Option<&'a [&'a str]>, &'a [&'a str]);
        let cases: [Case<'_>; 12] = [
            // Nothing is known: only of Microsoft's several resources one must be chosen.
            (Vendor::Other, &["mail", "offline_access"], None, &[]),
            (Vendor::Google, &[], None, &[]),
            (Vendor::Microsoft, microsoft, None, microsoft),
            // As it was told.
            (Vendor::Other, &["mail", "offline_access"], Some(&["mail"]), &["mail"]),
            (
                Vendor::Other,
                &["mail", "offline_access"],
                Some(&["offline_access", "openid", "mail"]),
                &["mail", "offline_access"],
            ),
            (Vendor::Other, &["mail", "send"], Some(&["send", "more"]), &["send"]),
            (
                Vendor::Microsoft,
                microsoft,
                Some(&[OUTLOOK_IMAP]),
                &[OUTLOOK_IMAP, "offline_access"],
            ),
            (
                Vendor::Microsoft,
                microsoft,
                Some(&["SMTP.Send", "https://outlook.office365.com/IMAP.AccessAsUser.All"]),
                microsoft,
            ),
            // As it was told in words that are not understood.
            (Vendor::Microsoft, microsoft, Some(&["Everything"]), microsoft),
            (
                Vendor::Other,
                &["mail", "offline_access"],
                Some(&["urn:x:mailbox"]),
                &[],
            ),
            (
                Vendor::Other,
                &["mail", "offline_access"],
                Some(&["offline_access"]),
                &[],
            ),
            (Vendor::Google, &[], Some(&["https://mail.google.com/"]), &[]),
        ];
        for (vendor, asked, granted, named) in cases {
            let app = OAuthApp {
                refresh_scopes: owned(asked),
                ..test_support::app()
            };
            let granted = granted.map(owned);
            assert_eq!(
                of_refresh(&app, vendor, granted.as_deref()),
                named,
                "{vendor:?} {asked:?} {granted:?}"
            );
        }
    }
}
