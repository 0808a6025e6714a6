//! What the system's resolver cannot be asked for: MX and SRV records. Addresses are looked up by [`super::dial`].
//!
//! The name servers are those of the system, read anew for each question, since questions are rare and a machine's network
//! changes. Answers are not authenticated: whoever can forge them can name any host, so nothing secret may go where an answer
//! points before a person has seen it. They are bounded in number and in time, and a name that is no host name is left out.

#[cfg(test)]
pub(crate) mod test_support;

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use hickory_resolver::{Resolver, TokioResolver};
use tokio::time::timeout;

use crate::limits::{DNS_RECORDS_MAX, HOST_BYTES_MAX};

/// Asks the system's name servers. Cheap to clone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dns {
    server: Option<SocketAddr>,
}

/// Who takes mail for a domain (RFC 1035 §3.3.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mx {
    /// The lower, the sooner it is tried.
    pub preference: u16,
    /// A host, in lower case and without the final dot.
    pub host: String,
}

/// Where a service is (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The lower, the sooner it is tried.
    pub priority: u16,
    /// Among equals: the higher, the more often it is taken.
    pub weight: u16,
    /// A port, never 0.
    pub port: u16,
    /// A host, in lower case and without the final dot.
    pub host: String,
}

/// Why there is no answer. That there are no records is one.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The system's name servers are not known, or they failed.
    #[error("{0}")]
    Failed(String),
    /// They were silent.
    #[error("no answer within {}", crate::span::Span(*.0))]
    TimedOut(Duration),
}

impl Dns {
    /// Asks the name server at `server`, by UDP and TCP, instead of the system's.
    pub const fn at(server: SocketAddr) -> Self {
        Self { server: Some(server) }
    }

    /// The mail exchangers of `domain`, the first to be tried first.
    ///
    /// # Errors
    /// [`DnsError`]; none at all is an empty list.
    pub async fn mx(&self, domain: &str, within: Duration) -> Result<Vec<Mx>, DnsError> {
        let resolver = self.resolver()?;
        let answer = ask(resolver.mx_lookup(rooted(domain)), within).await?;
        let mut found: Vec<_> = records(answer.as_ref()).filter_map(mx).take(DNS_RECORDS_MAX).collect();
        found.sort_by(|a, b| (a.preference, &a.host).cmp(&(b.preference, &b.host)));
        Ok(found)
    }

    /// The places of the service `name`, such as `_imaps._tcp.example.com`, the first to be tried first. Among those of one
    /// priority RFC 2782 draws lots; here the one with the greatest weight comes first, so that people see the same each time.
    ///
    /// # Errors
    /// [`DnsError`]; none at all, and the record that says that there is no such service (its target is the root), are an
    /// empty list.
    pub async fn srv(&self, name: &str, within: Duration) -> Result<Vec<Srv>, DnsError> {
        let resolver = self.resolver()?;
        let answer = ask(resolver.srv_lookup(rooted(name)), within).await?;
        let mut found: Vec<_> = records(answer.as_ref()).filter_map(srv).take(DNS_RECORDS_MAX).collect();
        found.sort_by(|a, b| (a.priority, b.weight, &a.host).cmp(&(b.priority, a.weight, &b.host)));
        Ok(found)
    }

    fn resolver(&self) -> Result<TokioResolver, DnsError> {
        let failed = |error: NetError| DnsError::Failed(error.to_string());
        let builder = match self.server {
            None => Resolver::builder_tokio().map_err(failed)?,
            Some(server) => {
                let mut one = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut one.connections {
                    connection.port = server.port();
                }
                let config = ResolverConfig::from_name_servers(vec![one]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        builder.build().map_err(failed)
    }
}

/// With the final dot: the system's search list is for names that people type.
fn rooted(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

async fn ask(
    question: impl Future<Output = Result<Lookup, NetError>>,
    within: Duration,
) -> Result<Option<Lookup>, DnsError> {
    // Boxed: a resolver's state is large, and this future becomes part of a request's.
    match timeout(within, Box::pin(question)).await {
        Err(_) => Err(DnsError::TimedOut(within)),
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(error)) if error.is_no_records_found() => Ok(None),
        Ok(Err(NetError::Timeout)) => Err(DnsError::TimedOut(within)),
        Ok(Err(error)) => Err(DnsError::Failed(error.to_string())),
    }
}

fn records(answer: Option<&Lookup>) -> impl Iterator<Item = &RData> {
    let answers = answer.map(Lookup::answers).unwrap_or_default();
    answers.iter().map(|record| &record.data)
}

fn mx(data: &RData) -> Option<Mx> {
    let RData::MX(mx) = data else { return None };
    Some(Mx {
        preference: mx.preference,
        host: host(&mx.exchange)?,
    })
}

fn srv(data: &RData) -> Option<Srv> {
    let RData::SRV(srv) = data else { return None };
    Some(Srv {
        priority: srv.priority,
        weight: srv.weight,
        port: Some(srv.port).filter(|port| *port != 0)?,
        host: host(&srv.target)?,
    })
}

/// A name as a host's: `None` for the root, which stands for "no such service" (RFC 2782) and "no mail" (RFC 7505), and for
/// what no host is called.
fn host(name: &Name) -> Option<String> {
    let text = name.to_ascii().to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    is_host_name(text).then(|| text.to_owned())
}

/// Whether `text` is a host name of letters, digits, hyphens, underscores and dots.
pub fn is_host_name(text: &str) -> bool {
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(usable);
    (1..=HOST_BYTES_MAX).contains(&text.len()) && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::test_support::{NameServer, mx, srv};
    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn exchangers_come_in_the_order_of_their_preference() {
        let server = NameServer::start(vec![
            mx("example.com", 20, "Backup.Example.net."),
            mx("example.com", 10, "b.example.net."),
            mx("example.com", 10, "a.example.net."),
            // No host is called so; and the root alone says that there is no mail (RFC 7505).
            mx("example.com", 1, "a b.example.net."),
            mx("null.example.com", 0, "."),
        ])
        .await;
        let found = server.dns().mx("example.com", WITHIN).await.unwrap();
        let hosts: Vec<_> = found.iter().map(|mx| (mx.preference, mx.host.as_str())).collect();
        assert_eq!(
            hosts,
            [(10, "a.example.net"), (10, "b.example.net"), (20, "backup.example.net")]
        );
        assert_eq!(server.dns().mx("null.example.com", WITHIN).await.unwrap(), []);
        assert_eq!(server.dns().mx("none.example.com.", WITHIN).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_place_of_a_service_is_the_first_by_priority_and_then_by_weight() {
        let server = NameServer::start(vec![
            srv("_imaps._tcp.example.com", (10, 100, 993), "late.example.com."),
            srv("_imaps._tcp.example.com", (0, 1, 993), "light.example.com."),
            srv("_imaps._tcp.example.com", (0, 9, 1993), "heavy.example.com."),
            srv("_imaps._tcp.example.com", (0, 9, 0), "portless.example.com."),
            srv("_pop3s._tcp.example.com", (0, 0, 0), "."),
        ])
        .await;
        let found = server.dns().srv("_imaps._tcp.example.com", WITHIN).await.unwrap();
        let places: Vec<_> = found.iter().map(|srv| format!("{}:{}", srv.host, srv.port)).collect();
        assert_eq!(
            places,
            [
                "heavy.example.com:1993",
                "light.example.com:993",
                "late.example.com:993"
            ]
        );
        assert_eq!(server.dns().srv("_pop3s._tcp.example.com", WITHIN).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_answer_with_more_records_than_anybody_needs_is_cut() {
        let many = (0..200).map(|number| mx("example.com", number, &format!("m{number}.example.net.")));
        let server = NameServer::start(many.collect()).await;
        // What does not fit a datagram is asked for again by TCP, which this server does not speak: then there is no answer.
        let found = server.dns().mx("example.com", WITHIN).await.map(|found| found.len());
        assert!(found.is_err() || found.is_ok_and(|found| found <= DNS_RECORDS_MAX));
    }

    #[tokio::test]
    async fn a_server_that_is_silent_or_not_there_is_told_apart_from_one_without_records() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let dns = Dns::at(silent.local_addr().unwrap());
        let error = dns.mx("example.com", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, DnsError::TimedOut(_)), "{error:?}");
        let refusing = NameServer::start_refusing().await;
        let error = refusing.dns().mx("example.com", WITHIN).await.unwrap_err();
        assert!(matches!(error, DnsError::Failed(_)), "{error:?}");
    }

    #[test]
    fn host_names_are_told_from_other_texts() {
        let longest = ["a".repeat(63).as_str(); 3].join(".");
        for name in [
            "a",
            "mail.example.com",
            "_dmarc.example.com",
            "xn--bcher-kva.example",
            &longest,
        ] {
            assert!(is_host_name(name), "{name}");
        }
        let label = "a".repeat(64);
        let long = format!("{longest}.{}", "a".repeat(62));
        for name in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a/b",
            "a:1",
            "bücher.example",
            "a\0",
            &label,
            &long,
        ] {
            assert!(!is_host_name(name), "{name}");
        }
    }
}
