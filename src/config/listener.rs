//! `[[listener]]` and `[certificate.*]`, and what must agree between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use toml::Spanned;

use super::load::Check;
use super::report::{Place, place, quoted, text};
use super::{Certificate, Listener, ListenerTls, PlaintextAuth, environment, raw};
use crate::proto::Protocol;

/// The listeners; where none is given, IMAP on the loopback address.
pub(super) fn listeners(
    check: &mut Check<'_>,
    raw: &[Spanned<raw::Listener>],
    certificates: &BTreeMap<String, Spanned<raw::Certificate>>,
) -> Vec<Listener> {
    if raw.is_empty() {
        return vec![Listener {
            protocol: Protocol::Imap,
            addresses: vec![IMAP_DEFAULT],
            tls: ListenerTls::Off,
            certificates: vec![CERTIFICATE_DEFAULT.to_owned()],
            plaintext_auth: PlaintextAuth::Loopback,
        }];
    }
    raw.iter()
        .filter_map(|one| listener(check, one, certificates))
        .collect()
}

/// One listener; `None` where its protocol is not spoken, which was then noted.
fn listener(
    check: &mut Check<'_>,
    raw: &Spanned<raw::Listener>,
    certificates: &BTreeMap<String, Spanned<raw::Certificate>>,
) -> Option<Listener> {
    let raw = raw.get_ref();
    let protocol = protocol(check, raw);
    let addresses = match &raw.address {
        Some(given) if given.get_ref().given().next().is_some() => {
            check.report.addresses("listener.address", &raw.address)
        }
        _ => vec![IMAP_DEFAULT],
    };
    let tls = tls(check, raw);
    let names = certificate_names(check, raw, tls, certificates);
    let modes = [
        ("never", PlaintextAuth::Never),
        ("loopback", PlaintextAuth::Loopback),
        ("always", PlaintextAuth::Always),
    ];
    let plaintext_auth = check.report.choice(
        "listener.plaintext_auth",
        &raw.plaintext_auth,
        PlaintextAuth::Loopback,
        &modes,
    );
    proxy_protocol(check, raw);
    Some(Listener {
        protocol: protocol?,
        addresses,
        tls,
        certificates: names,
        plaintext_auth,
    })
}

fn protocol(check: &mut Check<'_>, raw: &raw::Listener) -> Option<Protocol> {
    let key = "listener.protocol";
    match text(&raw.protocol) {
        None | Some("imap") => return Some(Protocol::Imap),
        Some(later @ ("smtp" | "pop3")) => {
            let message = format!("\"{later}\" listeners are not in this version; use imap");
            check.report.refuse(place(&raw.protocol), key, message);
        }
        Some(other) => {
            let message = format!("{} is not allowed; use imap", quoted(other));
            check.report.refuse(place(&raw.protocol), key, message);
        }
    }
    None
}

fn tls(check: &mut Check<'_>, raw: &raw::Listener) -> ListenerTls {
    if text(&raw.tls) == Some("starttls") {
        let message = "\"starttls\" is not in this version for listeners; use one of off, implicit";
        check.report.refuse(place(&raw.tls), "listener.tls", message);
        return ListenerTls::Off;
    }
    let modes = [("off", ListenerTls::Off), ("implicit", ListenerTls::Implicit)];
    check.report.choice("listener.tls", &raw.tls, ListenerTls::Off, &modes)
}

/// The names of the listener's certificates, each of which must be defined where TLS is spoken.
fn certificate_names(
    check: &mut Check<'_>,
    raw: &raw::Listener,
    tls: ListenerTls,
    certificates: &BTreeMap<String, Spanned<raw::Certificate>>,
) -> Vec<String> {
    let mut names: Vec<_> = raw
        .certificate
        .iter()
        .flat_map(|given| given.get_ref().given())
        .map(str::to_owned)
        .collect();
    if names.is_empty() {
        names.push(CERTIFICATE_DEFAULT.to_owned());
    }
    if tls == ListenerTls::Implicit && check.whole {
        let at = place(&raw.certificate).or_else(|| place(&raw.tls));
        for name in names.iter().filter(|name| !certificates.contains_key(*name)) {
            let message = format!(
                "there is no [certificate.{name}], which tls = \"implicit\" needs; give it files, or self_signed = true"
            );
            check.report.refuse(at.clone(), "listener.certificate", message);
        }
    }
    names
}

fn proxy_protocol(check: &mut Check<'_>, raw: &raw::Listener) {
    let Some(given) = &raw.proxy_protocol_from else { return };
    let (key, at) = ("listener.proxy_protocol_from", place(&raw.proxy_protocol_from));
    let mut any = false;
    for range in given.get_ref().given() {
        any = true;
        if range.parse::<ipnet::IpNet>().is_err() && range.parse::<IpAddr>().is_err() {
            let message = format!(
                "{} is not allowed; use address ranges such as \"10.0.0.0/8\"",
                quoted(range)
            );
            check.report.refuse(at.clone(), key, message);
        }
    }
    if any {
        check.report.refuse(
            at,
            key,
            "the PROXY protocol is not in this version; leave the list empty",
        );
    }
}

/// Refuses an address that is listened on twice; port 0 asks the system for a free one each time.
pub(super) fn refuse_shared_addresses(
    check: &mut Check<'_>,
    raw: &raw::File,
    admin: &[SocketAddr],
    metrics: Option<SocketAddr>,
) {
    let mut taken = BTreeSet::new();
    let mut claim = |check: &mut Check<'_>, key: &str, at: Place, address: SocketAddr| {
        if address.port() != 0 && !taken.insert(address) {
            check.report.refuse(
                at,
                key,
                format!("{address} is given more than once; each address serves one purpose"),
            );
        }
    };
    for address in admin {
        claim(check, "admin.listen", place(&raw.admin.listen), *address);
    }
    if let Some(address) = metrics {
        claim(check, "metrics.listen", place(&raw.metrics.listen), address);
    }
    for listener in &raw.listener {
        let key = &listener.get_ref().address;
        let mut given = key.iter().flat_map(|given| given.get_ref().given()).peekable();
        if given.peek().is_none() {
            claim(check, "listener.address", Some(listener.span()), IMAP_DEFAULT);
        }
        for address in given.filter_map(|given| given.parse().ok()) {
            claim(check, "listener.address", place(key), address);
        }
    }
    if raw.listener.is_empty() {
        claim(check, "listener.address", None, IMAP_DEFAULT);
    }
}

/// `[certificate.*]`. The files themselves are read, or made, where TLS is set up, again and again as they change.
pub(super) fn certificates(
    check: &mut Check<'_>,
    raw: &BTreeMap<String, Spanned<raw::Certificate>>,
) -> BTreeMap<String, Certificate> {
    raw.iter()
        .filter_map(|(name, one)| Some((name.clone(), certificate(check, name, one)?)))
        .collect()
}

fn certificate(check: &mut Check<'_>, name: &str, raw: &Spanned<raw::Certificate>) -> Option<Certificate> {
    let section = format!("certificate.{name}");
    let (at, raw) = (Some(raw.span()), raw.get_ref());
    check.require_name(&section, at.clone(), name);
    if raw.self_signed.as_ref().is_some_and(|given| *given.get_ref()) {
        for (key, value) in [("cert_file", &raw.cert_file), ("key_file", &raw.key_file)] {
            if text(value).is_some() {
                let message = "is given beside self_signed = true; a certificate is one or the other";
                check.report.refuse(place(value), format!("{section}.{key}"), message);
            }
        }
        return Some(Certificate::SelfSigned);
    }
    for (key, value) in [("cert_file", &raw.cert_file), ("key_file", &raw.key_file)] {
        if text(value).is_none() {
            let message = "is missing; give the path of a PEM file, or self_signed = true instead of both files";
            check
                .report
                .refuse(place(value).or_else(|| at.clone()), format!("{section}.{key}"), message);
        }
    }
    let cert_file = check.beside_file(text(&raw.cert_file)?);
    let key_file = key_file(check, text(&raw.key_file)?);
    Some(Certificate::Files { cert_file, key_file })
}

/// A key is a secret: under a service manager that hands over credentials, a bare name is one of them.
fn key_file(check: &Check<'_>, given: &str) -> PathBuf {
    match environment::path(check.environment, "CREDENTIALS_DIRECTORY") {
        Some(directory) if !given.contains('/') => directory.join(given),
        _ => check.beside_file(given),
    }
}

const CERTIFICATE_DEFAULT: &str = "default";

const IMAP_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 2993);
