//! Checking a login's access token among 10,000: what a login costs before anything is asked of an upstream.

use std::net::IpAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::future::join_all;
use portreeve::access::{AccessToken, Scope, authenticate};
use portreeve::clock::Timestamp;
use portreeve::secret::SecretString;
use portreeve::store::embedded::EmbeddedStore;
use portreeve::store::master_key::MasterKeySource;
use portreeve::store::{AccountRecord, AccountSecrets, AccountState, Restrictions, Store, TokenForm, TokenRecord};
use tokio::runtime::Runtime;

const TOKENS: usize = 10_000;

fn account(number: usize) -> AccountRecord {
    AccountRecord {
        email: Some(format!("user{number}@example.com")),
        state: AccountState::Active,
        ..AccountRecord::new(format!("account-{number}"), "example".to_owned(), Timestamp::EPOCH)
    }
}

async fn fill(store: &EmbeddedStore) -> Vec<(String, SecretString)> {
    let mut logins = Vec::with_capacity(TOKENS);
    let created = (0..TOKENS).map(|number| store.create_account(account(number), AccountSecrets::default()));
    for outcome in join_all(created).await {
        outcome.expect("the disk takes it");
    }
    let mut records = Vec::with_capacity(TOKENS);
    for number in 0..TOKENS {
        let (token, id) = AccessToken::mint(TokenForm::Hex);
        logins.push((format!("user{number}@example.com"), token.reveal().into()));
        records.push(TokenRecord {
            restrictions: Some(Restrictions {
                addresses: vec!["192.0.2.0/24".parse().expect("a range")],
            }),
            ..TokenRecord::new(
                id,
                Some(format!("account-{number}")),
                vec!["imap-proxy".to_owned()],
                Timestamp::EPOCH,
            )
        });
    }
    for outcome in join_all(records.into_iter().map(|record| store.create_token(record))).await {
        outcome.expect("the disk takes it");
    }
    logins
}

fn token_check(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let store =
        EmbeddedStore::open(&directory.path().join("state"), &MasterKeySource::Generated).expect("a fresh store opens");
    let logins = runtime.block_on(fill(&store));
    let unknown: SecretString = "0".repeat(64).into();
    let address: IpAddr = [192, 0, 2, 1].into();

    let mut turn = logins.iter().cycle();
    c.bench_function("token_check/admitted", |b| {
        b.to_async(&runtime).iter(|| {
            let (user, secret) = turn.next().expect("the cycle does not end");
            let store = &store;
            async move {
                let now = Timestamp::EPOCH;
                authenticate(store.as_ref(), Some(user), secret, Scope::ImapProxy, address, now)
                    .await
                    .is_ok()
            }
        });
    });
    c.bench_function("token_check/refused", |b| {
        b.to_async(&runtime).iter(|| async {
            let now = Timestamp::EPOCH;
            authenticate(store.as_ref(), Some("nobody"), &unknown, Scope::ImapProxy, address, now)
                .await
                .is_err()
        });
    });
}

criterion_group!(benches, token_check);
criterion_main!(benches);
