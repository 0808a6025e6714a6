//! Power cuts: the proxy is killed at random moments while accounts, tokens and rotated grants are written, and whatever
//! it had acknowledged is there after each start.
//!
//! The grants rotate strictly: the use of a refresh token that was used before revokes the whole grant. So a refresh whose
//! outcome was acknowledged, by a login that succeeded, and then forgotten, shows as a lost grant. A kill between the
//! provider's rotation and the commit loses a grant too, and no proxy could prevent that: such a refresh is in doubt, and
//! a loss is let pass only where one was. Where the provider lets a refresh token that was used be used again, as it does for
//! answers that never arrive, no grant is lost at all.
//!
//! `PORTREEVE_TEST_KILLS` says how often to kill instead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::PATIENCE;
use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{Admin, PROVIDER, Portreeve, Setup};
use crate::support::provider::{Provider, ProviderOptions, Rotation};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_lose_nothing_that_was_acknowledged() {
    survive(Rotation::Strict, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_grants_rotate_cost_nobody_a_consent_where_the_provider_is_lenient() {
    let tally = survive(Rotation::Lenient, 40).await;
    assert!(!tally.contains_key(LOST), "{tally:?}");
}

/// Kills the proxy so often; what was acknowledged meanwhile.
async fn survive(rotation: Rotation, kills: usize) -> BTreeMap<&'static str, usize> {
    let kills = std::env::var("PORTREEVE_TEST_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(kills);
    let seed = std::env::var("PORTREEVE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random::<u64>);
    println!("PORTREEVE_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let provider = Arc::new(
        Provider::start(ProviderOptions {
            rotation,
            // Whoever logs in a second later needs a refresh, and so a rotation.
            access_token_seconds: 1,
            ..ProviderOptions::default()
        })
        .await,
    );
    let dovecot = Dovecot::start(&provider).await;
    let mut portreeve = Setup::default().provider(&provider, &dovecot).start().await;
    let mut users: Vec<User> = (0..USERS)
        .map(|number| User::new(number, StdRng::seed_from_u64(rng.random())))
        .collect();
    let tally = Arc::new(Tally::default());
    let mut starts = Vec::new();

    for _ in 0..kills {
        let running: Vec<_> = users
            .drain(..)
            .map(|mut user| {
                let proxy = Proxy {
                    admin: portreeve.admin(),
                    imap: portreeve.imap(),
                    provider: Arc::clone(&provider),
                    tally: Arc::clone(&tally),
                };
                tokio::spawn(async move {
                    while user.act(&proxy).await.is_ok() {}
                    user
                })
            })
            .collect();
        // The moment of the kill is what the test is about; nothing is waited for here.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..KILL_WITHIN_MS))).await;
        portreeve.kill();
        for user in running {
            users.push(user.await.expect("a user finds nothing that is missing"));
        }
        let begun = Instant::now();
        portreeve.spawn();
        portreeve.until_ready().await;
        starts.push(begun.elapsed());
        settle(&portreeve, &provider, &mut users).await;
        if users.iter().any(User::is_in_doubt) {
            tally.count(UNDER_WAY);
        }
    }

    provider.access_tokens_live(3600).await;
    let proxy = Proxy {
        admin: portreeve.admin(),
        imap: portreeve.imap(),
        provider: Arc::clone(&provider),
        tally: Arc::clone(&tally),
    };
    let mut accounts = 0;
    for user in &mut users {
        accounts += user.accounts.len();
        user.log_in_everywhere(&proxy).await;
    }
    starts.sort_unstable();
    let refreshes = provider.counters_of_all().await.refreshes;
    let tally = tally.counts.lock().expect("no holder panics").clone();
    println!(
        "{kills} kills, {rotation:?} rotation, {accounts} accounts at the end, {refreshes} refreshes; a start took {:?}, at most {:?}; {tally:?}",
        starts[kills / 2],
        starts[kills - 1],
    );
    // Otherwise the kills have met nobody at work.
    assert!(tally["login"] >= kills && refreshes as usize >= kills, "{tally:?}");
    assert!(tally[UNDER_WAY] * 4 >= kills, "{tally:?}");
    assert!(starts[kills / 2] < START_MAX, "{starts:?}");
    tally
}

/// Reads what is there after a start, compares it with what was acknowledged, and takes over what was in doubt.
async fn settle(portreeve: &Portreeve, provider: &Provider, users: &mut [User]) {
    // What the dead proxy asked for is carried out by now, or never.
    let deadline = Instant::now() + PATIENCE;
    while provider.counters_of_all().await.in_flight > 0 {
        assert!(Instant::now() < deadline, "the provider does not come to an end");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let accounts = list(portreeve, "accounts", "account").await;
    let tokens = list(portreeve, "tokens", "id").await;
    for user in users.iter_mut() {
        user.accounts.retain(|name, account| {
            let is_there = accounts.contains_key(name);
            match account.existence {
                Existence::Acknowledged => assert!(is_there, "account {name} was acknowledged and is gone"),
                Existence::Doubtful => {}
            }
            account.tokens.retain(|id, existence| {
                let token = tokens.get(id);
                if is_there && *existence == Existence::Acknowledged {
                    let token = token.unwrap_or_else(|| panic!("token {id} of {name} was acknowledged and is gone"));
                    assert_eq!(token["account"], name.as_str());
                }
                assert!(
                    is_there || token.is_none(),
                    "token {id} has outlived its account {name}"
                );
                *existence = Existence::Acknowledged;
                token.is_some()
            });
            account.secrets.retain(|id, _| account.tokens.contains_key(id));
            account.existence = Existence::Acknowledged;
            is_there
        });
        for name in &user.deleted_accounts {
            assert!(
                user.accounts.contains_key(name) || !accounts.contains_key(name),
                "{name} was deleted and is back"
            );
        }
        for id in &user.deleted_tokens {
            assert!(!tokens.contains_key(id), "token {id} was deleted and is back");
        }
        for (name, account) in &mut user.accounts {
            if let Refresh::Doubtful(refreshes) = &mut account.refresh {
                *refreshes = provider.counters(name).await.refreshes;
            }
        }
    }
    // Nothing is there that nobody asked for; tokens whose creation was cut short have ids that nobody knows.
    let known = |name: &String| users.iter().any(|user| user.accounts.contains_key(name));
    assert!(accounts.keys().all(known), "{:?}", accounts.keys());
    for token in tokens.values() {
        assert!(known(&token["account"].as_str().expect("text").to_owned()), "{token}");
    }
}

/// Everything of a listing, by its field `key`.
async fn list(portreeve: &Portreeve, what: &str, key: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for page in 0.. {
        let answer = portreeve.read(&format!("/v1/{what}?pageSize=1000&page={page}")).await;
        for entry in answer[what].as_array().expect("a list") {
            all.insert(entry[key].as_str().expect("text").to_owned(), entry.clone());
        }
        if page + 1 >= answer["pages"].as_u64().expect("a number") {
            assert_eq!(answer["total"], json!(all.len()), "the count agrees with the list");
            break;
        }
    }
    all
}

/// One who uses the proxy, one thing after the other, and keeps a book of what was acknowledged.
struct User {
    number: usize,
    rng: StdRng,
    created: usize,
    accounts: BTreeMap<String, Account>,
    deleted_accounts: Vec<String>,
    deleted_tokens: Vec<String>,
}

struct Account {
    existence: Existence,
    refresh: Refresh,
    /// By id.
    tokens: BTreeMap<String, Existence>,
    /// The tokens themselves, by id.
    secrets: BTreeMap<String, String>,
}

/// Whether a change has been acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existence {
    Acknowledged,
    Doubtful,
}

/// Whether the outcome of the last refresh has been acknowledged, by a login that succeeded.
#[derive(Clone, Copy, Debug)]
enum Refresh {
    Acknowledged,
    /// With how many the provider had carried out when the proxy was dead.
    Doubtful(u32),
}

/// What the users share of one life of the proxy.
struct Proxy {
    admin: Admin,
    imap: SocketAddr,
    provider: Arc<Provider>,
    tally: Arc<Tally>,
}

/// What was acknowledged, by kind.
#[derive(Default)]
struct Tally {
    counts: Mutex<BTreeMap<&'static str, usize>>,
}

impl Tally {
    fn count(&self, what: &'static str) {
        *self.counts.lock().expect("no holder panics").entry(what).or_default() += 1;
    }
}

/// The proxy is dead.
struct Killed;

impl User {
    fn new(number: usize, rng: StdRng) -> User {
        User {
            number,
            rng,
            created: 0,
            accounts: BTreeMap::new(),
            deleted_accounts: Vec::new(),
            deleted_tokens: Vec::new(),
        }
    }

    /// Whether a kill has met a refresh of an account's on its way.
    fn is_in_doubt(&self) -> bool {
        let mut refreshes = self.accounts.values().map(|account| account.refresh);
        refreshes.any(|refresh| matches!(refresh, Refresh::Doubtful(_)))
    }

    /// Does one thing at random.
    async fn act(&mut self, proxy: &Proxy) -> Result<(), Killed> {
        let names: Vec<String> = self.accounts.keys().cloned().collect();
        let Some(name) = names.choose(&mut self.rng) else {
            return self.create_account(proxy).await;
        };
        match self.rng.random_range(0..100) {
            0..15 if names.len() < ACCOUNTS_MAX => self.create_account(proxy).await,
            15..20 => self.delete_account(proxy, name).await,
            20..35 => self.create_token(proxy, name).await,
            35..45 => self.delete_token(proxy, name).await,
            _ => self.log_in(proxy, name).await,
        }
    }

    async fn create_account(&mut self, proxy: &Proxy) -> Result<(), Killed> {
        self.created += 1;
        let name = format!("user{}-{}", self.number, self.created);
        let grant = proxy.provider.mint(&name).await;
        let account = Account {
            existence: Existence::Doubtful,
            refresh: Refresh::Acknowledged,
            tokens: BTreeMap::new(),
            secrets: BTreeMap::new(),
        };
        self.accounts.insert(name.clone(), account);
        let oauth2 = json!({ "refreshToken": grant.refresh_token });
        let body = json!({ "account": name, "provider": PROVIDER, "user": name, "oauth2": oauth2 });
        proxy
            .change("account created", Method::POST, "/v1/account", Some(&body))
            .await?;
        self.account(&name).existence = Existence::Acknowledged;
        Ok(())
    }

    async fn delete_account(&mut self, proxy: &Proxy, name: &str) -> Result<(), Killed> {
        self.account(name).existence = Existence::Doubtful;
        // Ids are never used again, so that a deletion that was carried out unheard is as good as one that was heard.
        self.deleted_accounts.push(name.to_owned());
        proxy
            .change("account deleted", Method::DELETE, &format!("/v1/account/{name}"), None)
            .await?;
        let account = self.accounts.remove(name).expect("it is in the book");
        self.deleted_tokens.extend(account.tokens.into_keys());
        Ok(())
    }

    async fn create_token(&mut self, proxy: &Proxy, name: &str) -> Result<(), Killed> {
        let body = json!({ "account": name, "scopes": ["imap-proxy"], "description": "kill" });
        let answer = proxy
            .change("token created", Method::POST, "/v1/token", Some(&body))
            .await?;
        let text = |field: &str| answer[field].as_str().expect("text").to_owned();
        let account = self.account(name);
        account.tokens.insert(text("id"), Existence::Acknowledged);
        account.secrets.insert(text("id"), text("token"));
        Ok(())
    }

    async fn delete_token(&mut self, proxy: &Proxy, name: &str) -> Result<(), Killed> {
        let Some(id) = self.account(name).tokens.keys().next().cloned() else {
            return Ok(());
        };
        self.account(name).tokens.insert(id.clone(), Existence::Doubtful);
        proxy
            .change("token deleted", Method::DELETE, &format!("/v1/token/{id}"), None)
            .await?;
        let account = self.account(name);
        account.tokens.remove(&id);
        account.secrets.remove(&id);
        self.deleted_tokens.push(id);
        Ok(())
    }

    async fn log_in(&mut self, proxy: &Proxy, name: &str) -> Result<(), Killed> {
        let Some(token) = self.account(name).secrets.values().next().cloned() else {
            return self.create_token(proxy, name).await;
        };
        let before = self.account(name).refresh;
        if let Refresh::Acknowledged = before {
            self.account(name).refresh = Refresh::Doubtful(u32::MAX);
        }
        let answer = log_in(proxy.imap, name, &token).await?;
        if answer.starts_with("OK") {
            proxy.tally.count("login");
            self.account(name).refresh = match before {
                // Where the provider has not carried out another one since, the old access token was still good.
                Refresh::Doubtful(refreshes) if proxy.provider.counters(name).await.refreshes == refreshes => before,
                _ => Refresh::Acknowledged,
            };
        } else if answer.starts_with("NO [CONTACTADMIN] Mailbox authorization") {
            assert!(
                matches!(before, Refresh::Doubtful(_)),
                "the grant of {name} is lost, though its last refresh was acknowledged"
            );
            proxy.tally.count(LOST);
            self.authorize_again(proxy, name).await?;
        } else {
            // Access tokens live for a second only: the upstream may find one expired.
            assert!(
                answer.starts_with("NO [") && !answer.contains("Access denied"),
                "{name}: {answer}"
            );
            proxy.tally.count("login refused for now");
        }
        Ok(())
    }

    async fn authorize_again(&mut self, proxy: &Proxy, name: &str) -> Result<(), Killed> {
        let grant = proxy.provider.mint(name).await;
        let body = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
        proxy
            .change(
                "authorized again",
                Method::PUT,
                &format!("/v1/account/{name}"),
                Some(&body),
            )
            .await?;
        self.account(name).refresh = Refresh::Acknowledged;
        Ok(())
    }

    /// After the last kill: every account, with every token.
    async fn log_in_everywhere(&mut self, proxy: &Proxy) {
        let names: Vec<String> = self.accounts.keys().cloned().collect();
        for name in names {
            let refused_at_first = self.log_in(proxy, &name).await;
            assert!(refused_at_first.is_ok(), "the proxy is alive");
            for token in self.account(&name).secrets.values() {
                let answer = log_in(proxy.imap, &name, token).await.ok().expect("the proxy is alive");
                assert!(answer.starts_with("OK"), "{name}: {answer}");
            }
        }
    }

    fn account(&mut self, name: &str) -> &mut Account {
        self.accounts.get_mut(name).expect("it is in the book")
    }
}

impl Proxy {
    /// Changes something; whatever is answered must be a success.
    async fn change(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Killed> {
        let (status, answer) = self.admin.try_ask(method, path, body).await.map_err(|_| Killed)?;
        assert_eq!(status, 200, "{what}: {path}: {answer}");
        self.tally.count(what);
        Ok(answer)
    }
}

/// Logs in and hangs up; the tagged answer without its tag.
async fn log_in(proxy: SocketAddr, user: &str, token: &str) -> Result<String, Killed> {
    let talk = async {
        let mut stream = BufReader::new(TcpStream::connect(proxy).await?);
        let command = format!("A LOGIN {user} {token}\r\n");
        stream.get_mut().write_all(command.as_bytes()).await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = line.strip_prefix("A ") {
                return Ok(answer.trim_end().to_owned());
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, talk).await;
    answer.expect("a login is answered").map_err(|_: std::io::Error| Killed)
}

/// Of a grant that needs a new consent.
const LOST: &str = "grant lost with its refresh in flight";
/// Of a kill that met a login whose refresh had not been acknowledged.
const UNDER_WAY: &str = "kill with a refresh under way";
/// Who use the proxy at once.
const USERS: usize = 6;
/// What one of them keeps at most.
const ACCOUNTS_MAX: usize = 4;
/// A start and the first refreshes lie within this.
const KILL_WITHIN_MS: u64 = 250;
/// A start after a kill is a matter of milliseconds; a debug build on a loaded machine is forgiven this much.
const START_MAX: Duration = Duration::from_secs(2);
