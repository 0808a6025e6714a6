//! SRV records of a domain's mail services (RFC 6186, RFC 8314 §5.1).

use futures_util::future::join_all;

use super::{Server, Servers};
use crate::config::{Endpoint, UpstreamTls, is_loopback_host};
use crate::limits::RECOGNITION_STEP_TIMEOUT;
use crate::net::dns::{Dns, Srv};
use crate::proto::Protocol;

/// The servers that `domain` names; what failed is told in `troubles`.
pub(super) async fn servers(dns: &Dns, domain: &str, troubles: &mut Vec<String>) -> Servers {
    let names = SERVICES.map(|(label, ..)| format!("{label}._tcp.{domain}"));
    let answers = join_all(names.iter().map(|name| dns.srv(name, RECOGNITION_STEP_TIMEOUT))).await;
    let mut servers = Servers::default();
    let mut failed = None;
    for ((_, protocol, tls), answer) in SERVICES.into_iter().zip(answers) {
        match answer {
            Ok(places) => take(&mut servers, protocol, tls, places),
            // One is enough: they all ask the same name servers.
            Err(error) => failed = Some(error),
        }
    }
    troubles.extend(failed.map(|error| format!("its SRV records cannot be asked for: {error}")));
    servers
}

/// Takes the first of `places` that a domain may name, which this machine is not, unless a better service has named one
/// already.
fn take(servers: &mut Servers, protocol: Protocol, tls: UpstreamTls, places: Vec<Srv>) {
    let slot = match protocol {
        Protocol::Imap => &mut servers.imap,
        Protocol::Smtp => &mut servers.smtp,
        Protocol::Pop3 => &mut servers.pop3,
    };
    let mut places = places.into_iter().filter(|place| !is_loopback_host(&place.host));
    if let (None, Some(Srv { port, host, .. })) = (&slot, places.next()) {
        *slot = Some(Server {
            endpoint: Endpoint { host, port, tls },
            user: None,
        });
    }
}

/// The services, those with TLS from the first byte before those with STARTTLS (RFC 8314 §3). POP3 with STARTTLS, which hardly
/// anybody has, is left out.
const SERVICES: [(&str, Protocol, UpstreamTls); 5] = [
    ("_imaps", Protocol::Imap, UpstreamTls::Implicit),
    ("_imap", Protocol::Imap, UpstreamTls::Starttls),
    ("_submissions", Protocol::Smtp, UpstreamTls::Implicit),
    ("_submission", Protocol::Smtp, UpstreamTls::Starttls),
    ("_pop3s", Protocol::Pop3, UpstreamTls::Implicit),
];
