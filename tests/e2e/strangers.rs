//! What strangers cost: refused logins wait, are few events and few lines, and others notice nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::imap::Imap;
use crate::support::mailbox::Mailbox;
use crate::support::portreeve::{PROVIDER, Portreeve, Setup};
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread")]
async fn refused_logins_wait_beyond_their_client_s_and_their_account_s_budget_and_good_ones_never() {
    let bed = Bed::start("auth_failures_max = 1000\nauth_failure_delay = \"300ms\"").await;
    let mut first = bed.from(9).await;
    for _ in 0..10 {
        first.refused().await;
    }
    assert_eq!(bed.delays().await, 0.0, "nothing is delayed yet");
    assert_eq!(bed.delayed().await, json!({ "addresses": 1, "accounts": 0 }));
    let begun = Instant::now();
    first.refused().await;
    assert!(begun.elapsed() >= DELAY, "{:?}", begun.elapsed());
    assert_eq!(bed.delays().await, 1.0);

    // Another client has a budget of its own, until the account's is used up as well.
    let mut second = bed.from(10).await;
    for _ in 0..9 {
        second.refused().await;
    }
    assert_eq!(bed.delays().await, 1.0);
    assert_eq!(bed.delayed().await, json!({ "addresses": 1, "accounts": 1 }));
    let mut third = bed.from(11).await;
    let begun = Instant::now();
    third.refused().await;
    assert!(begun.elapsed() >= DELAY, "{:?}", begun.elapsed());
    assert_eq!(bed.delays().await, 2.0);

    // The owner is not locked out, even from there, and where the token was good nothing waits.
    assert!(first.imap.login("example", &bed.token).await.is_ok());
    let mut again = bed.from(9).await;
    again.refused().await;
    assert_eq!(bed.delays().await, 2.0);

    let events = bed.portreeve.read("/v1/usage?outcome=denied&account=example").await;
    let counts: Vec<_> = events["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| (event["remoteAddress"].clone(), event["count"].clone()))
        .collect();
    let expected = [("127.0.0.11", 1), ("127.0.0.10", 9), ("127.0.0.9", 12)];
    assert_eq!(counts, expected.map(|(address, count)| (json!(address), json!(count))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_that_outlasts_the_client_s_time_ends_with_it() {
    let bed = Bed::start("auth_failures_max = 1000\nauth_failure_delay = \"60s\"\npre_auth_timeout = \"2s\"").await;
    let mut client = bed.from(9).await;
    let begun = Instant::now();
    for _ in 0..12 {
        client.refused().await;
    }
    // The refusal is told as what it is, as the last that this connection hears but its farewell.
    assert_eq!(
        client.imap.line().await,
        "* BYE Disconnected for inactivity during login"
    );
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_only_connects_keeps_nobody_out_and_drives_out_nobody_who_has_logged_in() {
    let bed = Bed::start("sessions_max = 4").await;
    let mut crowd = Vec::new();
    for _ in 0..4 {
        let stranger = bed.from(9).await.imap;
        assert!(stranger.greeting().starts_with("* OK "), "{}", stranger.greeting());
        crowd.push(stranger);
    }
    let mut owners = Vec::new();
    for number in 0..4 {
        let mut owner = bed.from(8).await.imap;
        // The oldest of those that are left, and no other.
        let mut oldest = crowd.remove(0);
        assert_eq!(
            oldest.line().await,
            "* BYE [LIMIT] Too many sessions, and this one has not logged in"
        );
        oldest.expect_end().await;
        for stranger in &mut crowd {
            assert!(stranger.command("NOOP").await.is_ok(), "{}", stranger.transcript());
        }
        assert!(
            owner.login("example", &bed.token).await.is_ok(),
            "{}",
            owner.transcript()
        );
        owners.push(owner);
        assert_eq!(bed.turned_away("gave_way").await, f64::from(number + 1));
    }

    let mut refused = bed.from(10).await.imap;
    assert_eq!(refused.greeting(), "* BYE [LIMIT] Too many sessions, try again later");
    refused.expect_end().await;
    assert_eq!(bed.turned_away("sessions_max").await, 1.0);
    for owner in &mut owners {
        assert!(owner.command("NOOP").await.is_ok(), "{}", owner.transcript());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenth_of_the_places_is_for_logins() {
    let bed = Bed::start("sessions_max = 10").await;
    let mut crowd = Vec::new();
    for _ in 0..10 {
        crowd.push(bed.from(9).await.imap);
    }
    assert!(crowd[0].line().await.starts_with("* BYE [LIMIT] "));
    assert!(
        crowd[1].login("example", &bed.token).await.is_ok(),
        "{}",
        crowd[1].transcript()
    );
    // The login has left its place to the next.
    let next = bed.from(9).await.imap;
    assert!(next.greeting().starts_with("* OK "), "{}", next.greeting());
    assert_eq!(bed.turned_away("gave_way").await, 1.0);
}

/// 16 connections of a stranger do their worst for 6 s, or for as many seconds as `PORTREEVE_HOSTILE_SECONDS` says, while an
/// owner logs in again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_stranger_delays_nobody_and_fills_neither_log_nor_store() {
    let seconds = std::env::var("PORTREEVE_HOSTILE_SECONDS");
    let seconds = seconds.map_or(6, |text| text.parse().expect("seconds are a number"));
    // Short delays, so that there are many refusals.
    let mut bed = Bed::start("auth_failure_delay = \"50ms\"").await;
    let before = bed.logins_of_owner(Instant::now() + Duration::from_secs(1)).await;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut stranger = JoinSet::new();
    for number in 0..STRANGERS {
        let address = bed.portreeve.imap();
        stranger.spawn(async move {
            let mut done = 0;
            while Instant::now() < until {
                done += match number % 2 {
                    0 => guess(address).await,
                    _ => pour(address).await,
                };
            }
            done
        });
    }
    let during = bed.logins_of_owner(until).await;
    let work: usize = stranger.join_all().await.into_iter().sum();
    let (calm, pressed) = (p99(&before), p99(&during));
    println!(
        "login p99: {calm:?} without the stranger ({} logins), {pressed:?} beside {work} of its commands ({} logins)",
        before.len(),
        during.len()
    );
    assert!(pressed < calm * 20 + Duration::from_secs(5), "{calm:?} {pressed:?}");

    let denied = bed.portreeve.read("/v1/usage?outcome=denied").await;
    let events = denied["events"].as_array().expect("a list");
    let refused: u64 = events.iter().filter_map(|event| event["count"].as_u64()).sum();
    let minutes = usize::try_from(seconds / 60).expect("not long") + 2;
    assert!(refused > 50 && events.len() <= minutes, "{denied}");
    let lines = bed.portreeve.log();
    let lines = lines.lines().filter(|line| line.contains(STRANGER)).count();
    assert!(
        lines <= 4 * minutes,
        "{lines} lines of the stranger\n{}",
        bed.portreeve.log()
    );

    // However few may be kept, the strangers drive out none of the owner's.
    bed.restart("[store]\nusage_events_max = 4\n").await;
    let kept = crate::support::bed::until(crate::support::PATIENCE, "the log is swept", async || {
        let usage = bed.portreeve.read("/v1/usage").await;
        (usage["total"].as_u64()? <= 5).then_some(usage)
    })
    .await;
    let kinds: Vec<_> = kept["events"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|event| event["kind"].as_str())
        .collect();
    assert!(kinds.contains(&Some("login")), "{kept}");
}

/// Three refused logins on a connection.
async fn guess(address: SocketAddr) -> usize {
    let mut client = Imap::connect_from(local(9), address).await;
    for number in 0..3 {
        client
            .send_line(&format!("A{number} LOGIN example {}", "0".repeat(64)))
            .await;
        client.line().await;
    }
    3
}

/// As many commands as a connection takes, a thousand at once and up to a hundred thousand.
async fn pour(address: SocketAddr) -> usize {
    let wire = Wire::dial(Some(local(9)), address, None).await;
    let noops = "A NOOP\r\nA CAPABILITY\r\n".repeat(500);
    wire.flood(noops.as_bytes(), 100 * noops.len()).await.len()
}

fn p99(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len().saturating_mul(99).div_ceil(100) - 1]
}

fn local(host: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, host), 0).into()
}

/// A proxy with one account.
struct Bed {
    portreeve: Portreeve,
    token: String,
    mailbox: Mailbox,
}

/// A client that is refused.
struct Client {
    imap: Imap,
}

impl Bed {
    async fn start(limits: &str) -> Bed {
        let mailbox = Mailbox::serve().await;
        let setup = Setup::default().with(&configuration(&mailbox, &format!("[limits]\n{limits}\n")));
        let portreeve = setup.start().await;
        let account = json!({ "account": "example", "provider": PROVIDER, "user": "example", "password": "pw" });
        portreeve.post("/v1/account", &account).await;
        let token = portreeve.add_token("example").await;
        Bed {
            portreeve,
            token,
            mailbox,
        }
    }

    async fn restart(&mut self, toml: &str) {
        self.portreeve.process().signal(rustix::process::Signal::TERM);
        assert!(self.portreeve.process().wait().await.success());
        self.portreeve.write_config(&configuration(&self.mailbox, toml));
        self.portreeve.spawn();
        self.portreeve.until_ready().await;
    }

    /// A client at 127.0.0.`host`.
    async fn from(&self, host: u8) -> Client {
        Client {
            imap: Imap::connect_from(local(host), self.portreeve.imap()).await,
        }
    }

    /// How long the owner's logins took, one after the other.
    async fn logins_of_owner(&self, until: Instant) -> Vec<Duration> {
        let mut times = Vec::new();
        while Instant::now() < until || times.is_empty() {
            let mut client = self.from(8).await.imap;
            let begun = Instant::now();
            assert!(
                client.login("example", &self.token).await.is_ok(),
                "{}",
                client.transcript()
            );
            times.push(begun.elapsed());
            client.command("LOGOUT").await;
        }
        times
    }

    async fn delays(&self) -> f64 {
        self.portreeve
            .metric("portreeve_refusals_delayed_total", "side=\"imap\"")
            .await
    }

    /// How many connections were refused or ended for a reason.
    async fn turned_away(&self, reason: &str) -> f64 {
        let labels = format!("protocol=\"imap\",reason=\"{reason}\"");
        self.portreeve
            .metric("portreeve_connections_refused_total", &labels)
            .await
    }

    async fn delayed(&self) -> Value {
        self.portreeve.read("/v1/status").await["delayed"].clone()
    }
}

impl Client {
    /// Tries a token that does not exist.
    async fn refused(&mut self) {
        let reply = self.imap.login("example", &"0".repeat(64)).await.tagged;
        assert!(reply.starts_with("NO [AUTHENTICATIONFAILED]"), "{reply}");
    }
}

fn configuration(mailbox: &Mailbox, toml: &str) -> String {
    format!(
        r#"
[log]
level = "info"
format = "text"
{toml}
[provider.{PROVIDER}]
imap = {{ host = "127.0.0.1", port = {}, tls = "off" }}
"#,
        mailbox.address().port(),
    )
}

const STRANGER: &str = "127.0.0.9";
const STRANGERS: usize = 16;
const DELAY: Duration = Duration::from_millis(300);
