//! Random operations on the store and on maps in memory: both must tell the same, before and after the store is reopened.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create(usize, Option<usize>),
    Replace(usize, Option<usize>),
    Remove(usize),
    CreateToken(u8, Option<usize>, Option<u8>),
    RemoveToken(u8),
    UseToken(u8, u64),
    Event(u64, UsageKind, Option<usize>, Option<u8>),
    Sweep(u64, u64),
    Reopen,
}

/// Names that collide with each other in every way that matters.
const NAMES: [&str; 6] = ["a", "A", "a@x.example", "A@X.example", "b", "ß@x.example"];

fn any_step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    let token = || 1..6_u8;
    // The clock is read out of order, and now and then it is set back.
    let time = || prop_oneof![0..9_u64, 5_000..5_009_u64];
    let kind = prop::sample::select(UsageKind::ALL.to_vec());
    prop_oneof![
        6 => (name(), prop::option::of(name())).prop_map(|(id, email)| Step::Create(id, email)),
        3 => (name(), prop::option::of(name())).prop_map(|(id, email)| Step::Replace(id, email)),
        2 => name().prop_map(Step::Remove),
        4 => (token(), prop::option::of(name()), prop::option::of(token()))
            .prop_map(|(id, account, parent)| Step::CreateToken(id, account, parent)),
        2 => token().prop_map(Step::RemoveToken),
        3 => (token(), 0..9_u64).prop_map(|(id, time)| Step::UseToken(id, time)),
        8 => (time(), kind, prop::option::of(name()), prop::option::of(token()))
            .prop_map(|(time, kind, account, token)| Step::Event(time, kind, account, token)),
        1 => (time(), 0..9_u64).prop_map(|(age, count)| Step::Sweep(age, count)),
        1 => Just(Step::Reopen),
    ]
}

struct Model {
    /// From when the times of events count: not long ago, so that windows of refusals stay open.
    start: u64,
    accounts: BTreeMap<String, (AccountRecord, String)>,
    tokens: BTreeMap<TokenId, TokenRecord>,
    uses: BTreeMap<TokenId, TokenUse>,
    events: Vec<UsageEvent>,
    last_time: Timestamp,
    /// When refusals of an account began to be counted in one event.
    windows: BTreeMap<(Option<String>, Option<String>), Timestamp>,
}

impl Model {
    /// Adds an event. Refused logins of one account, all from one address, are counted in the first of them.
    fn record(&mut self, event: UsageEvent) {
        let time = |event: &UsageEvent, last: Timestamp| {
            let is_disordered = event.time < last && last.since(event.time) <= Duration::from_secs(1);
            if is_disordered { last } else { event.time }
        };
        if event.kind == UsageKind::Denied {
            let key = (event.account.clone(), event.reason.clone());
            if let Some(begun) = self.windows.get(&key)
                && *begun <= event.time
            {
                let counted = self
                    .events
                    .iter_mut()
                    .rev()
                    .find(|counted| counted.kind == UsageKind::Denied && counted.account == event.account);
                let counted = counted.unwrap();
                counted.count = Some(counted.count.unwrap() + 1);
                return;
            }
            self.windows.insert(key, time(&event, self.last_time));
        }
        let time = time(&event, self.last_time);
        self.last_time = time;
        self.events.push(UsageEvent { time, ..event });
    }

    fn takes_a_name(&self, record: &AccountRecord) -> bool {
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        self.accounts
            .values()
            .filter(|(other, _)| other.account != record.account)
            .any(|(other, _)| {
                let theirs = other.email.as_deref();
                let ours = record.email.as_deref();
                theirs.is_some_and(|email| same(email, &record.account))
                    || ours.is_some_and(|email| same(email, &other.account))
                    || theirs.zip(ours).is_some_and(|(a, b)| same(a, b))
            })
    }

    /// Whether the token has no maker, or one of its own account.
    fn can_be_made(&self, token: &TokenRecord) -> bool {
        token.parent.is_none_or(|parent| {
            let maker = self.tokens.get(&parent);
            token.account.is_some() && maker.is_some_and(|maker| maker.account == token.account)
        })
    }

    /// Removes a token and what it made; what is gone is in the order of ids.
    fn remove_token(&mut self, id: TokenId) -> Vec<TokenRecord> {
        let mut gone = BTreeMap::new();
        gone.extend(self.tokens.remove_entry(&id));
        loop {
            let is_orphan = |token: &&TokenRecord| token.parent.is_some_and(|parent| gone.contains_key(&parent));
            let Some(orphan) = self.tokens.values().find(is_orphan).map(|token| token.id) else {
                break;
            };
            gone.extend(self.tokens.remove_entry(&orphan));
        }
        self.uses.retain(|id, _| !gone.contains_key(id));
        gone.into_values().collect()
    }

    fn sweep(&mut self, cutoff: Timestamp, events_max: u64) -> u64 {
        let before = self.events.len();
        for class in UsageClass::ALL {
            let events_max = usize::try_from(class.events_max(events_max)).unwrap();
            let is_of_class = |event: &UsageEvent| event.kind.class() == class;
            let mut left = self.events.iter().filter(|event| is_of_class(event)).count();
            while let Some(oldest) = self.events.iter().position(is_of_class)
                && (left > events_max || self.events[oldest].time < cutoff)
            {
                self.events.remove(oldest);
                left -= 1;
            }
        }
        u64::try_from(before - self.events.len()).unwrap()
    }
}

async fn take(step: &Step, store: &mut Arc<EmbeddedStore>, model: &mut Model, directory: &Path, number: u64) {
    match step.clone() {
        Step::Create(id, email) => {
            let record = account(NAMES[id], email.map(|at| NAMES[at]), number);
            let outcome = store
                .create_account(record.clone(), password(&number.to_string()))
                .await;
            if model.accounts.contains_key(NAMES[id]) || model.takes_a_name(&record) {
                assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
            } else {
                outcome.unwrap();
                model
                    .accounts
                    .insert(record.account.clone(), (record, number.to_string()));
            }
        }
        Step::Replace(id, email) => {
            let mut record = account(NAMES[id], email.map(|at| NAMES[at]), number);
            record.state = AccountState::Active;
            let outcome = store
                .replace_account(record.clone(), password(&number.to_string()))
                .await;
            if !model.accounts.contains_key(NAMES[id]) {
                assert!(matches!(outcome, Err(StoreError::NotFound(_))), "{outcome:?}");
            } else if model.takes_a_name(&record) {
                assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
            } else {
                outcome.unwrap();
                model
                    .accounts
                    .insert(record.account.clone(), (record, number.to_string()));
            }
        }
        Step::Remove(id) => {
            let outcome = store.remove_account(NAMES[id]).await;
            if model.accounts.remove(NAMES[id]).is_none() {
                assert!(matches!(outcome, Err(StoreError::NotFound(_))), "{outcome:?}");
                return;
            }
            let gone: BTreeSet<TokenId> = outcome.unwrap().into_iter().collect();
            let belongs = |token: &TokenRecord| token.account.as_deref() == Some(NAMES[id]);
            let expected = model
                .tokens
                .values()
                .filter(|token| belongs(token))
                .map(|token| token.id)
                .collect();
            assert_eq!(gone, expected);
            model.tokens.retain(|_, token| !belongs(token));
            model.uses.retain(|id, _| !gone.contains(id));
        }
        Step::CreateToken(id, owner, parent) => {
            let mut record = token(id, owner.map(|at| NAMES[at]));
            record.parent = parent.map(|parent| TokenId([parent; 32]));
            let outcome = store.create_token(record.clone()).await;
            if model.tokens.contains_key(&record.id) {
                assert!(matches!(outcome, Err(StoreError::Conflict(_))), "{outcome:?}");
            } else if owner.is_some_and(|at| !model.accounts.contains_key(NAMES[at])) {
                assert!(matches!(outcome, Err(StoreError::NotFound("account"))), "{outcome:?}");
            } else if !model.can_be_made(&record) {
                assert!(matches!(outcome, Err(StoreError::NotFound("token"))), "{outcome:?}");
            } else {
                outcome.unwrap();
                model.tokens.insert(record.id, record);
            }
        }
        Step::RemoveToken(id) => {
            let id = TokenId([id; 32]);
            let mut gone = store.remove_token(&id).await.unwrap();
            assert_eq!(gone.first(), model.tokens.get(&id));
            gone.sort_by_key(|token| token.id);
            assert_eq!(gone, model.remove_token(id));
        }
        Step::UseToken(id, time) => {
            let id = TokenId([id; 32]);
            store.record_token_use(id, last_use(time));
            if model.tokens.contains_key(&id) {
                model.uses.insert(id, last_use(time));
            }
        }
        Step::Event(time, kind, owner, token) => {
            // A token that was accepted was for its own account; a refused one may have been presented for any.
            let is_refused = kind == UsageKind::Denied;
            let owner = match token {
                Some(id) if !is_refused => Some(NAMES[usize::from(id)]),
                _ => owner.map(|at| NAMES[at]),
            };
            let event = UsageEvent {
                kind,
                count: is_refused.then_some(1),
                ..event(model.start + time, owner, token)
            };
            store.record_usage(event.clone());
            model.record(event);
        }
        Step::Sweep(cutoff, count) => {
            let now = Timestamp::from_millis(model.start + 10_000);
            let retention = Duration::from_millis(10_000 - cutoff);
            let swept = store.sweep_usage(now, retention, count).await.unwrap();
            assert_eq!(swept, model.sweep(Timestamp::from_millis(model.start + cutoff), count));
            model.windows.clear();
            store.close().await.unwrap();
            *store = open(directory);
        }
        Step::Reopen => {
            store.close().await.unwrap();
            assert!(matches!(store.account("a").await, Err(StoreError::Closed)));
            *store = open(directory);
            model.windows.clear();
        }
    }
}

async fn compare(store: &EmbeddedStore, model: &Model) {
    let at = |millis: u64| Timestamp::from_millis(model.start + millis);
    // The barrier within makes token uses visible too.
    for filter in [
        UsageFilter::default(),
        UsageFilter {
            account: Some("a".to_owned()),
            ..UsageFilter::default()
        },
        UsageFilter {
            token: Some(TokenId([1; 32])),
            ..UsageFilter::default()
        },
        UsageFilter {
            account: Some("A".to_owned()),
            token: Some(TokenId([2; 32])),
            ..UsageFilter::default()
        },
        UsageFilter {
            account: Some(NAMES[3].to_owned()),
            token: Some(TokenId([3; 32])),
            since: Some(at(2)),
            ..UsageFilter::default()
        },
        UsageFilter {
            since: Some(at(4)),
            kind: Some(UsageKind::Denied),
            ..UsageFilter::default()
        },
        UsageFilter {
            until: Some(at(4)),
            ..UsageFilter::default()
        },
        UsageFilter {
            account: Some("b".to_owned()),
            since: Some(at(4)),
            until: Some(at(5_004)),
            ..UsageFilter::default()
        },
    ] {
        let expected: Vec<_> = model
            .events
            .iter()
            .rev()
            .filter(|event| filter.matches(event))
            .cloned()
            .collect();
        let page = Page { page: 1, size: 2 };
        let listing = store.usage(&filter, page).await.unwrap();
        assert_eq!(listing.total, u64::try_from(expected.len()).unwrap(), "{filter:?}");
        let second: Vec<_> = expected.iter().skip(2).take(2).cloned().collect();
        assert_eq!(listing.entries, second, "{filter:?}");
        assert_eq!(store.usage(&filter, ALL).await.unwrap().entries, expected, "{filter:?}");
    }

    for name in NAMES {
        let exact = model.accounts.get(name);
        let by_email = model.accounts.values().find(|(record, _)| {
            record
                .email
                .as_ref()
                .is_some_and(|email| email.to_lowercase() == name.to_lowercase())
        });
        assert_eq!(
            store.account(name).await.unwrap().as_ref(),
            exact.map(|(record, _)| record)
        );
        assert_eq!(
            store.account_by_login(name).await.unwrap().as_ref(),
            exact.or(by_email).map(|(record, _)| record)
        );
        let secrets = store
            .account_secrets(name)
            .await
            .unwrap()
            .map(|secrets| revealed(&secrets));
        assert_eq!(secrets, exact.map(|(_, secret)| revealed(&password(secret))));

        let listed = store.tokens(Some(name), None, ALL).await.unwrap();
        let mut expected: Vec<_> = model
            .tokens
            .values()
            .filter(|token| token.account.as_deref() == Some(name))
            .cloned()
            .collect();
        expected.reverse();
        assert_eq!(
            listed
                .entries
                .iter()
                .map(|(token, _)| token.clone())
                .collect::<Vec<_>>(),
            expected
        );
    }

    let listed = store.accounts(None, ALL).await.unwrap();
    let mut expected: Vec<_> = model.accounts.values().map(|(record, _)| record.clone()).collect();
    expected.sort_by_key(|record| std::cmp::Reverse(record.created));
    assert_eq!(listed.entries, expected);
    let listed = store.tokens(None, None, ALL).await.unwrap();
    let expected: Vec<_> = model
        .tokens
        .values()
        .rev()
        .map(|token| (token.clone(), model.uses.get(&token.id).copied()))
        .collect();
    assert_eq!(listed.entries, expected);
    assert_eq!(
        store.token_count().await.unwrap(),
        u64::try_from(model.tokens.len()).unwrap()
    );
    for (state, count) in store.account_states().await.unwrap() {
        let expected = model
            .accounts
            .values()
            .filter(|(record, _)| record.state == state)
            .count();
        assert_eq!(count, u64::try_from(expected).unwrap(), "{state:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_a_map_in_memory_does(steps in prop::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = state_dir();
            let mut store = open(directory.path());
            let mut model = Model {
                start: clock::now().as_millis() - 20_000,
                accounts: BTreeMap::new(),
                tokens: BTreeMap::new(),
                uses: BTreeMap::new(),
                events: Vec::new(),
                last_time: Timestamp::EPOCH,
                windows: BTreeMap::new(),
            };
            for (number, step) in steps.iter().enumerate() {
                take(step, &mut store, &mut model, directory.path(), u64::try_from(number).unwrap()).await;
            }
            compare(&store, &model).await;
            store.close().await.unwrap();
            compare(&open(directory.path()), &model).await;
        });
    }
}
