//! `[[listener]]` and `[certificate.*]`, and what must agree between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use toml::Spanned;

use super::load::Check;
use super::raw::Key;
use super::report::{Place, place, quoted, text};
use super::{Certificate, Listener, ListenerTls, PlaintextAuth, Provider, environment, raw};
use crate::proto::Protocol;

/// The listeners; where none is given, one of each protocol on the loopback address.
pub(super) fn listeners(
    check: &mut Check<'_>,
    file: &raw::File,
    providers: &BTreeMap<String, Arc<Provider>>,
) -> Vec<Listener> {
    if file.listener.is_empty() {
        return PROTOCOLS.map(default_listener).into();
    }
    let given = file.listener.iter();
    given
        .map(|one| listener(check, one.get_ref(), file, providers))
        .collect()
}

/// The protocols that the listeners serve; all of them where none is given. One that does not exist is refused elsewhere.
pub(super) fn served(file: &raw::File) -> Vec<Protocol> {
    if file.listener.is_empty() {
        return PROTOCOLS.into();
    }
    let given = file.listener.iter().map(|one| text(&one.get_ref().protocol));
    let given: Vec<_> = given
        .map(|protocol| protocol.unwrap_or(Protocol::Imap.name()))
        .collect();
    let mut protocols: Vec<_> = PROTOCOLS.into();
    protocols.retain(|protocol| given.contains(&protocol.name()));
    protocols
}

fn default_listener(protocol: Protocol) -> Listener {
    Listener {
        protocol,
        addresses: vec![default_address(protocol)],
        tls: ListenerTls::Off,
        certificates: vec![CERTIFICATE_DEFAULT.to_owned()],
        plaintext_auth: PlaintextAuth::Loopback,
        proxy_protocol_from: Vec::new(),
        provider: None,
    }
}

fn listener(
    check: &mut Check<'_>,
    raw: &raw::Listener,
    file: &raw::File,
    providers: &BTreeMap<String, Arc<Provider>>,
) -> Listener {
    let protocols = PROTOCOLS.map(|protocol| (protocol.name(), protocol));
    let protocol = check
        .report
        .choice("listener.protocol", &raw.protocol, Protocol::Imap, &protocols);
    let addresses = match &raw.address {
        Some(given) if given.get_ref().given().next().is_some() => {
            check.report.addresses("listener.address", &raw.address)
        }
        _ => vec![default_address(protocol)],
    };
    let modes = [
        ("off", ListenerTls::Off),
        ("starttls", ListenerTls::Starttls),
        ("implicit", ListenerTls::Implicit),
    ];
    let tls = check.report.choice("listener.tls", &raw.tls, ListenerTls::Off, &modes);
    let rules = [
        ("never", PlaintextAuth::Never),
        ("loopback", PlaintextAuth::Loopback),
        ("always", PlaintextAuth::Always),
    ];
    let plaintext_auth = check.report.choice(
        "listener.plaintext_auth",
        &raw.plaintext_auth,
        PlaintextAuth::Loopback,
        &rules,
    );
    Listener {
        protocol,
        addresses,
        tls,
        certificates: certificate_names(check, raw, tls, &file.certificate),
        plaintext_auth,
        proxy_protocol_from: proxy_protocol_from(check, raw),
        provider: provider(check, raw, protocol, file, providers),
    }
}

/// Where a listener without an address listens (INTERFACE §3).
const fn default_address(protocol: Protocol) -> SocketAddr {
    let port = match protocol {
        Protocol::Imap => 2993,
        Protocol::Smtp => 2525,
        Protocol::Pop3 => 2995,
    };
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
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
    if tls != ListenerTls::Off && check.whole {
        let mode = text(&raw.tls).unwrap_or_default();
        let at = place(&raw.certificate).or_else(|| place(&raw.tls));
        for name in names.iter().filter(|name| !certificates.contains_key(*name)) {
            let message = format!(
                "there is no [certificate.{name}], which tls = \"{mode}\" needs; give it files, or self_signed = true"
            );
            check.report.refuse(at.clone(), "listener.certificate", message);
        }
    }
    names
}

/// The peers that are believed when they say, by a PROXY header, whom they speak for.
fn proxy_protocol_from(check: &mut Check<'_>, raw: &raw::Listener) -> Vec<IpNet> {
    believed(check, "listener.proxy_protocol_from", &raw.proxy_protocol_from)
}

/// The peers of `key`, which are believed when they say whom they speak for.
pub(super) fn believed(check: &mut Check<'_>, key: &str, raw: &Key<raw::OneOrMany>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for text in raw.iter().flat_map(|given| given.get_ref().given()) {
        let Some(range) = address_range(text) else {
            let message = format!(
                "{} is not allowed; use address ranges such as \"10.0.0.0/8\", or single addresses",
                quoted(text)
            );
            check.report.refuse(place(raw), key, message);
            continue;
        };
        if range.prefix_len() == 0 {
            check.report.warn(format!(
                "{key} {range}: any client that reaches the listener may claim any address; name the load balancers alone"
            ));
        }
        ranges.push(range);
    }
    ranges
}

/// Reads a range or a single address. Ranges of IPv4-mapped addresses (RFC 4291 §2.5.5.2) become IPv4, because that is how
/// clients are seen.
pub fn address_range(text: &str) -> Option<IpNet> {
    let range = match text.parse::<IpNet>() {
        Ok(range) => range,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    let IpNet::V6(v6) = range else { return Some(range) };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).ok().map(IpNet::V4),
        _ => Some(range),
    }
}

/// The provider whose EHLO extensions an SMTP listener advertises.
fn provider(
    check: &mut Check<'_>,
    raw: &raw::Listener,
    protocol: Protocol,
    file: &raw::File,
    providers: &BTreeMap<String, Arc<Provider>>,
) -> Option<String> {
    let given = text(&raw.provider)?;
    let message = match providers.get(given) {
        _ if protocol != Protocol::Smtp => "is for smtp listeners only".to_owned(),
        Some(provider) if provider.smtp.is_some() => return Some(given.to_owned()),
        Some(_) => format!("provider {given} has no smtp endpoint; give it one, or name another provider"),
        // A table that is wrong makes no provider, and was complained of already.
        None if !check.whole || file.provider.contains_key(given) => return None,
        None => format!("there is no [provider.{}]", given.escape_debug()),
    };
    check.report.refuse(place(&raw.provider), "listener.provider", message);
    None
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
    if let Some(address) = text(&raw.web.listen).and_then(|given| given.parse().ok()) {
        claim(check, "web.listen", place(&raw.web.listen), address);
    }
    for listener in &raw.listener {
        let key = &listener.get_ref().address;
        let mut given = key.iter().flat_map(|given| given.get_ref().given()).peekable();
        if given.peek().is_none() {
            let protocol = text(&listener.get_ref().protocol);
            let mut protocols = PROTOCOLS.into_iter();
            // A protocol that does not exist is refused for itself.
            if let Some(protocol) = protocols.find(|one| one.name() == protocol.unwrap_or("imap")) {
                claim(
                    check,
                    "listener.address",
                    Some(listener.span()),
                    default_address(protocol),
                );
            }
        }
        for address in given.filter_map(|given| given.parse().ok()) {
            claim(check, "listener.address", place(key), address);
        }
    }
    if raw.listener.is_empty() {
        for protocol in PROTOCOLS {
            claim(check, "listener.address", None, default_address(protocol));
        }
    }
}

/// `[certificate.*]`. The files are looked at here, and read where TLS is set up, again and again as they change.
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
    check.examine_pair(
        (&format!("{section}.cert_file"), place(&raw.cert_file), &cert_file),
        (&format!("{section}.key_file"), place(&raw.key_file), &key_file),
    );
    Some(Certificate::Files { cert_file, key_file })
}

/// A key is a secret: under a service manager that hands over credentials, a bare name is one of them.
fn key_file(check: &Check<'_>, given: &str) -> PathBuf {
    match environment::path(check.environment, "CREDENTIALS_DIRECTORY") {
        Some(directory) if !given.contains('/') => directory.join(given),
        _ => check.beside_file(given),
    }
}

pub(super) const CERTIFICATE_DEFAULT: &str = "default";

/// What a listener may speak, the default first.
const PROTOCOLS: [Protocol; 3] = [Protocol::Imap, Protocol::Smtp, Protocol::Pop3];
