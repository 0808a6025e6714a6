//! `portreeve status`: how the daemon is, and who needs somebody.

use std::fmt::Write as _;
use std::time::Duration;

use super::daemon::{answer, client};
use super::output::{cell, failures_in_words, print, print_pairs, print_table, state_cell, table};
use super::{Exit, Failure, Globals};
use crate::admin::types::{AttentionView, CertificateAuthorityView, Health, StatusView, UpstreamView};
use crate::config::ListenerTls;
use crate::span::Span;

/// `status`
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs `status`.
///
/// # Errors
/// As every command; 1 where the daemon is not ready for sessions.
pub(crate) async fn run(_arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let status = answer(client(globals).read::<StatusView>("/v1/status", &[])).await?;
    if globals.json {
        print(&status.raw)?;
    } else {
        print_status(&status.value)?;
    }
    match status.value.status {
        Health::Ok | Health::Draining => Ok(()),
        Health::Unready => Err(Failure::told(Exit::Failed)),
    }
}

/// What clients are given to trust, and what they may trust still.
fn authority(ca: &CertificateAuthorityView) -> String {
    let mut text = format!(
        "{} (SHA-256 {}, until {})",
        ca.path.display(),
        ca.fingerprint,
        ca.expires
    );
    if let Some(former) = &ca.former {
        // Writing to a String cannot fail.
        write!(
            text,
            "; renewed: clients that trust the one before (SHA-256 {}) need it by {}",
            former.fingerprint, former.expires
        )
        .ok();
    }
    text
}

/// Why an account needs somebody.
fn why(account: &AttentionView) -> String {
    let error = account.last_error.as_ref();
    let error = error.map(|error| match &error.remedy {
        Some(remedy) => format!("{}: {}. {remedy}", error.code, error.message),
        None => format!("{}: {}", error.code, error.message),
    });
    let failures = account.failures.map(failures_in_words);
    let ends = account.grant_ends;
    let ends = ends.map(|ends| format!("its grant ends at {ends} unless its owner authorizes it again"));
    error
        .into_iter()
        .chain(failures)
        .chain(ends)
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the upstreams can do that accounts are at.
fn print_upstreams(upstreams: &[UpstreamView]) -> Result<(), Failure> {
    if upstreams.is_empty() {
        return Ok(());
    }
    print("\nUpstreams; clients are told before their login what all of a protocol have:")?;
    let mut table = table(&["PROTOCOL", "PROVIDER", "UPSTREAM", "CAN"]);
    for upstream in upstreams {
        let place = format!("{}:{}", upstream.host, upstream.port);
        table.add_row([
            cell(Some(upstream.protocol.name())),
            cell(Some(&upstream.provider)),
            cell(Some(&place)),
            cell(Some(&ability(upstream))),
        ]);
    }
    print_table(&table)
}

/// What an upstream can do, or why that is not known.
fn ability(upstream: &UpstreamView) -> String {
    let error = upstream.error.as_ref();
    match (&upstream.capabilities, error) {
        (None, None) => "not asked yet".to_owned(),
        (None, Some(error)) => format!("could not be asked: {error}"),
        (Some(can), _) if can.is_empty() => "nothing of this kind".to_owned(),
        (Some(can), None) => can.join(", "),
        (Some(can), Some(error)) => format!("{} (could not be asked again: {error})", can.join(", ")),
    }
}

fn print_status(status: &StatusView) -> Result<(), Failure> {
    let health = match (status.status, &status.problem) {
        (Health::Ok, _) => "ok".to_owned(),
        (Health::Draining, _) => "stopping".to_owned(),
        (Health::Unready, problem) => format!("not ready: {}", problem.as_deref().unwrap_or("no reason given")),
    };
    let counts = &status.accounts;
    let accounts = format!(
        "{} ({} active, {} new, {} need authorization, {} failing, {} disabled)",
        counts.total, counts.active, counts.new, counts.needs_authorization, counts.failing, counts.disabled
    );
    let uptime = Span(Duration::from_secs(status.uptime_seconds));
    let listeners: Vec<String> = status
        .listeners
        .iter()
        .map(|listener| {
            let tls = match listener.tls {
                ListenerTls::Off => "no TLS",
                ListenerTls::Starttls => "STARTTLS",
                ListenerTls::Implicit => "TLS",
            };
            format!("{} {} ({tls})", listener.protocol, listener.address)
        })
        .collect();
    let web = status.web.as_ref().map(|web| {
        let tls = if web.tls { "TLS" } else { "no TLS" };
        format!("{} ({tls}), public URL {}", web.address, web.public_url)
    });
    let delayed = &status.delayed;
    let is_delayed = delayed.addresses + delayed.accounts > 0;
    let delayed = format!(
        "refused logins from {} addresses and to {} accounts",
        delayed.addresses, delayed.accounts
    );
    print_pairs(&[
        ("status", Some(health)),
        ("version", Some(status.version.clone())),
        ("up for", Some(uptime.to_string())),
        ("listeners", Some(listeners.join(", "))),
        ("web", web),
        ("CA to trust", status.certificate_authority.as_ref().map(authority)),
        ("accounts", Some(accounts)),
        ("access tokens", Some(status.tokens.to_string())),
        ("live sessions", Some(status.sessions.to_string())),
        ("delayed", is_delayed.then_some(delayed)),
    ])?;
    print_upstreams(&status.upstreams)?;
    if status.attention.is_empty() {
        return Ok(());
    }
    print("\nThese accounts need attention:")?;
    let mut table = table(&["ACCOUNT", "STATE", "WHY"]);
    for account in &status.attention {
        table.add_row([
            cell(Some(&account.account)),
            state_cell(account.state),
            cell(Some(&why(account))),
        ]);
    }
    print_table(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::FormerCertificateView;
    use crate::clock::Timestamp;

    #[test]
    fn an_upstream_tells_what_it_can_do_or_why_that_is_not_known() {
        let mut upstream: UpstreamView = serde_json::from_value(serde_json::json!({
            "protocol": "pop3", "provider": "example", "host": "pop.example.com", "port": 995, "tls": "implicit",
        }))
        .unwrap();
        assert_eq!(ability(&upstream), "not asked yet");
        upstream.error = Some("it is down".to_owned());
        assert_eq!(ability(&upstream), "could not be asked: it is down");
        upstream.capabilities = Some(vec!["TOP".to_owned(), "UIDL".to_owned()]);
        assert_eq!(ability(&upstream), "TOP, UIDL (could not be asked again: it is down)");
        upstream.error = None;
        assert_eq!(ability(&upstream), "TOP, UIDL");
        upstream.capabilities = Some(Vec::new());
        assert_eq!(ability(&upstream), "nothing of this kind");
    }

    #[test]
    fn what_clients_are_to_trust_is_told_with_what_a_renewal_asks_of_them() {
        let mut ca = CertificateAuthorityView {
            path: "/state/tls/ca.pem".into(),
            fingerprint: "AA:BB".to_owned(),
            expires: Timestamp::parse("2036-01-01T00:00:00Z").unwrap(),
            former: None,
        };
        let plain = "/state/tls/ca.pem (SHA-256 AA:BB, until 2036-01-01T00:00:00.000Z)";
        assert_eq!(authority(&ca), plain);
        ca.former = Some(FormerCertificateView {
            fingerprint: "CC:DD".to_owned(),
            expires: Timestamp::parse("2026-03-01T00:00:00Z").unwrap(),
        });
        assert_eq!(
            authority(&ca),
            format!(
                "{plain}; renewed: clients that trust the one before (SHA-256 CC:DD) need it by 2026-03-01T00:00:00.000Z"
            )
        );
    }
}
