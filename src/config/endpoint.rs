//! `provider.imap`, `provider.smtp`, `provider.pop3`: where an upstream is.

use std::net::IpAddr;

use super::load::Check;
use super::raw::{self, Key};
use super::report::{place, quoted, text};
use super::{Endpoint, UpstreamTls};
use crate::host::is_loopback_host;
use crate::limits::HOST_BYTES_MAX;
use crate::proto::Protocol;

/// The endpoint in the table `section`, which is `provider.NAME.PROTOCOL`; `None` where it is absent or has no host.
pub(super) fn endpoint(
    check: &mut Check<'_>,
    section: &str,
    protocol: Protocol,
    key: &Key<raw::Endpoint>,
) -> Option<Endpoint> {
    let given = key.as_ref()?;
    let (report, raw) = (&mut check.report, given.get_ref());
    let name = |field: &str| format!("{section}.{field}");
    let modes = [
        ("implicit", UpstreamTls::Implicit),
        ("starttls", UpstreamTls::Starttls),
        ("off", UpstreamTls::Off),
    ];
    let tls = report.choice(&name("tls"), &raw.tls, UpstreamTls::Implicit, &modes);
    let default = u32::from(default_port(protocol, tls));
    let port = report.number(&name("port"), &raw.port, default, 1..=u32::from(u16::MAX));
    let Some(host) = text(&raw.host) else {
        report.refuse(
            Some(given.span()),
            name("host"),
            "is missing; give a host name or an address",
        );
        return None;
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let named = host.len() <= HOST_BYTES_MAX
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if !named && address.parse::<IpAddr>().is_err() {
        let message = format!(
            "{} is not allowed; use a host name or an address without a port",
            quoted(host)
        );
        report.refuse(place(&raw.host), name("host"), message);
    }
    let insecure = raw.allow_insecure.as_ref().is_some_and(|given| *given.get_ref());
    if tls == UpstreamTls::Off && !insecure && !is_loopback_host(address) {
        let message = "\"off\" is for loopback hosts; use one of implicit, starttls, \
                       or set allow_insecure = true in the same table";
        report.refuse(place(&raw.tls), name("tls"), message);
    }
    let port = u16::try_from(port).expect("the number was checked to be a port");
    Some(Endpoint {
        host: address.to_owned(),
        port,
        tls,
    })
}

/// The registered port of a protocol (RFC 8314 §7, RFC 6409 §3.1).
const fn default_port(protocol: Protocol, tls: UpstreamTls) -> u16 {
    match (protocol, tls) {
        (Protocol::Imap, UpstreamTls::Implicit) => 993,
        (Protocol::Imap, _) => 143,
        (Protocol::Smtp, UpstreamTls::Implicit) => 465,
        (Protocol::Smtp, _) => 587,
        (Protocol::Pop3, UpstreamTls::Implicit) => 995,
        (Protocol::Pop3, _) => 110,
    }
}
