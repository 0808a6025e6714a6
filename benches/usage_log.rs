//! The usage log at its full size: listings with any filter, a sweep of half of it, and durable writes beside the sweep.
//!
//! A run that only tests has a small log; `cargo bench --bench usage_log` fills it with a million events first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portreeve::access::AccessToken;
use portreeve::clock::Timestamp;
use portreeve::proto::Protocol;
use portreeve::store::embedded::EmbeddedStore;
use portreeve::store::master_key::MasterKeySource;
use portreeve::store::{Page, Store, TokenForm, TokenId, TokenRecord, UsageEvent, UsageFilter, UsageKind};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const ACCOUNTS: u64 = 1000;

/// Time between two events.
const STEP: Duration = Duration::from_secs(2);

fn main() -> Outcome<()> {
    let is_given = |flag: &str| std::env::args().any(|argument| argument == flag);
    let events = if is_given("--bench") && !is_given("--test") {
        1_000_000
    } else {
        3_000
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(events))
}

async fn measure(events: u64) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let state = directory.path().join("state");
    let store = EmbeddedStore::open(&state, &MasterKeySource::Generated)?;
    let begun = Instant::now();
    fill(&store, events).await?;
    println!("{events} events recorded in {:.1?}", begun.elapsed());
    listings(&store, events).await?;
    println!("durable write alone: {}", spread(&mut writes(&store, 200).await?));

    let (before, begun) = (writer_seconds(), Instant::now());
    let sweep = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store
                .sweep_usage(time(events), STEP * u32::try_from(events / 2).unwrap_or(0), events)
                .await
        })
    };
    let mut beside = Vec::new();
    while !sweep.is_finished() {
        beside.extend(writes(&store, 1).await?);
    }
    let swept = sweep.await??;
    println!(
        "{swept} events swept in {:.2?}, {:.2} s of the writer's CPU with {} durable writes beside it: {}",
        begun.elapsed(),
        writer_seconds() - before,
        beside.len(),
        spread(&mut beside)
    );
    listings(&store, events).await?;
    let (before, begun) = (writer_seconds(), Instant::now());
    let swept = store.sweep_usage(time(events), STEP, 0).await?;
    let took = begun.elapsed();
    println!(
        "{swept} more swept alone in {took:.2?}, {:.2} s of the writer's CPU",
        writer_seconds() - before
    );
    store.close().await?;
    let begun = Instant::now();
    EmbeddedStore::open(&state, &MasterKeySource::Generated)?
        .close()
        .await?;
    println!("opened and closed again in {:.2?}", begun.elapsed());
    Ok(())
}

async fn fill(store: &EmbeddedStore, events: u64) -> Outcome<()> {
    let none = UsageFilter {
        token: Some(TokenId([0; 32])),
        ..UsageFilter::default()
    };
    for number in 0..events {
        store.record_usage(event(number));
        if number % 2000 == 0 {
            store.usage(&none, Page { page: 0, size: 1 }).await?;
        }
    }
    Ok(())
}

/// The slowest of three of each kind of listing.
async fn listings(store: &EmbeddedStore, events: u64) -> Outcome<()> {
    let account = || Some(account(7));
    let span = (Some(time(events / 3)), Some(time(events * 2 / 3)));
    let filters = [
        ("all", UsageFilter::default()),
        (
            "an account's",
            UsageFilter {
                account: account(),
                ..UsageFilter::default()
            },
        ),
        (
            "a token's",
            UsageFilter {
                token: Some(token(7)),
                ..UsageFilter::default()
            },
        ),
        (
            "both",
            UsageFilter {
                account: account(),
                token: Some(token(7)),
                ..UsageFilter::default()
            },
        ),
        (
            "refusals",
            UsageFilter {
                kind: Some(UsageKind::Denied),
                ..UsageFilter::default()
            },
        ),
        (
            "a third of the time",
            UsageFilter {
                since: span.0,
                until: span.1,
                ..UsageFilter::default()
            },
        ),
        (
            "all of these",
            UsageFilter {
                account: account(),
                kind: Some(UsageKind::Login),
                since: span.0,
                until: span.1,
                token: Some(token(7)),
            },
        ),
    ];
    for (name, filter) in filters {
        let (mut first, mut middle) = (Duration::ZERO, Duration::ZERO);
        let mut total = 0;
        for _ in 0..3 {
            let begun = Instant::now();
            total = store.usage(&filter, Page { page: 0, size: 20 }).await?.total;
            first = first.max(begun.elapsed());
            let begun = Instant::now();
            let half = usize::try_from(total / 2 / 20)?;
            store.usage(&filter, Page { page: half, size: 20 }).await?;
            middle = middle.max(begun.elapsed());
        }
        println!("listing of {name} ({total}): first page {first:.2?}, middle {middle:.2?}");
    }
    Ok(())
}

/// How long each of so many durable writes took.
async fn writes(store: &EmbeddedStore, count: usize) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let record = TokenRecord {
            id: AccessToken::mint(TokenForm::Hex).1,
            ..serde_json::from_value(
                serde_json::json!({ "id": token(0), "scopes": ["*"], "created": Timestamp::EPOCH }),
            )?
        };
        let begun = Instant::now();
        store.create_token(record).await?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get((times.len() * percent / 100).min(times.len().saturating_sub(1)))
            .copied()
    };
    let [median, high, most] = [50, 99, 100].map(|percent| at(percent).unwrap_or_default());
    format!("median {median:.2?}, p99 {high:.2?}, longest {most:.2?}")
}

/// Processor time of the store's writer thread.
fn writer_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let ticks = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        let (name, fields) = stat.split_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = [11, 12].map(|field| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0));
        name.ends_with("(store-writer").then_some(ticks.iter().sum::<u64>())
    });
    // Linux counts in hundredths of a second towards programs, whatever the kernel's own tick is.
    ticks.sum::<u64>() as f64 / 100.0
}

fn event(number: u64) -> UsageEvent {
    let who = number % ACCOUNTS;
    let kind = match number / ACCOUNTS % 5 {
        0 | 2 => UsageKind::Login,
        1 | 3 => UsageKind::End,
        _ => UsageKind::Denied,
    };
    UsageEvent {
        time: time(number),
        kind,
        protocol: Some(Protocol::Imap),
        account: Some(account(who)),
        token: Some(token(who)),
        remote_address: Some([192, 0, 2, 1].into()),
        client: Some("Thunderbird 140.0".to_owned()),
        reason: None,
        count: (kind == UsageKind::Denied).then_some(1),
        bytes_up: (kind == UsageKind::End).then_some(number),
        bytes_down: (kind == UsageKind::End).then_some(number),
        duration_ms: (kind == UsageKind::End).then_some(number),
    }
}

fn time(number: u64) -> Timestamp {
    let start = Timestamp::from_millis(1_760_000_000_000);
    Timestamp::from_millis(start.as_millis() + number * u64::try_from(STEP.as_millis()).unwrap_or(0))
}

fn account(who: u64) -> String {
    format!("user{who}@example.com")
}

fn token(who: u64) -> TokenId {
    let mut id = [7; 32];
    if let Some(start) = id.first_chunk_mut() {
        *start = who.to_be_bytes();
    }
    TokenId(id)
}
