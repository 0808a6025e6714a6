//! The store: a durable insert alone and in a crowd, the read on the path of every login, and usage events.

use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use portreeve::access::AccessToken;
use portreeve::clock::Timestamp;
use portreeve::proto::Protocol;
use portreeve::store::embedded::EmbeddedStore;
use portreeve::store::master_key::MasterKeySource;
use portreeve::store::{Page, Store, TokenForm, TokenId, TokenRecord, UsageEvent, UsageFilter, UsageKind};
use tokio::runtime::Runtime;

fn record(id: TokenId) -> TokenRecord {
    TokenRecord {
        description: "bench".to_owned(),
        ..TokenRecord::new(id, None, vec!["*".to_owned()], Timestamp::EPOCH)
    }
}

fn event(time: u64) -> UsageEvent {
    UsageEvent {
        time: Timestamp::from_millis(time),
        kind: UsageKind::Login,
        protocol: Some(Protocol::Imap),
        account: Some("user@example.com".to_owned()),
        token: Some(TokenId([7; 32])),
        remote_address: Some([192, 0, 2, 1].into()),
        client: Some("Thunderbird 140.0".to_owned()),
        reason: None,
        count: None,
        bytes_up: None,
        bytes_down: None,
        duration_ms: None,
    }
}

fn open(directory: &tempfile::TempDir) -> Arc<EmbeddedStore> {
    EmbeddedStore::open(&directory.path().join("state"), &MasterKeySource::Generated).expect("a fresh store opens")
}

fn durable_inserts(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    let mut group = c.benchmark_group("store");
    for crowd in [1_u64, 64] {
        group.throughput(Throughput::Elements(crowd));
        group.bench_function(format!("durable_insert/{crowd}"), |b| {
            b.to_async(&runtime).iter_batched(
                || {
                    (0..crowd)
                        .map(|_| record(AccessToken::mint(TokenForm::Hex).1))
                        .collect::<Vec<_>>()
                },
                |records| async {
                    for outcome in join_all(records.into_iter().map(|record| store.create_token(record))).await {
                        outcome.expect("the disk takes it");
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn warm_read(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    let id = AccessToken::mint(TokenForm::Hex).1;
    runtime
        .block_on(store.create_token(record(id)))
        .expect("the disk takes it");
    c.bench_function("store/token_read", |b| {
        b.to_async(&runtime)
            .iter(|| async { store.token(&id).await.expect("it can be read").is_some() });
    });
}

fn usage(c: &mut Criterion) {
    const EVENTS: u64 = 1000;
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(&directory);
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(EVENTS));
    group.bench_function("usage_recorded_and_seen", |b| {
        let newest = Page { page: 0, size: 1 };
        let none = UsageFilter {
            token: Some(TokenId([0; 32])),
            ..UsageFilter::default()
        };
        b.to_async(&runtime).iter(|| async {
            for time in 0..EVENTS {
                store.record_usage(event(time));
            }
            // An empty listing, which waits until the events are written.
            store.usage(&none, newest).await.expect("it can be read").total
        });
    });
    group.finish();
}

criterion_group!(benches, durable_inserts, warm_read, usage);
criterion_main!(benches);
