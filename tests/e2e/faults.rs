//! Whatever a token endpoint does wrong: what the client is told, what the administrator sees, and how the account recovers.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::bed::{Bed, until};
use crate::support::dovecot::Dovecot;
use crate::support::portreeve::{Endpoint, Setup};
use crate::support::protocol::Protocol;
use crate::support::provider::{Fault, Provider, ProviderOptions, Rotation};
use crate::support::upstream::Security;

const UNAVAILABLE: &str = "NO [UNAVAILABLE] The mailbox cannot be reached for now, try again later";
const GRANT_GONE: &str = "NO [CONTACTADMIN] Mailbox authorization has expired, authorize the account again";
const APP_REFUSED: &str = "NO [CONTACTADMIN] The proxy's OAuth application is refused, tell the administrator";

#[tokio::test]
async fn trouble_that_may_pass_is_told_as_such_and_passes() {
    let bed = start(ProviderOptions::default()).await;
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!("http://{}/token", elsewhere.local_addr().unwrap());
    let error_in_200 = Fault::ErrorIn200 {
        error: "temporarily_unavailable".to_owned(),
    };
    let temporary = [
        (Fault::TemporarilyUnavailable, "temporarily_unavailable"),
        (Fault::ServerError, "server_error"),
        (Fault::Html502, "http_502"),
        (error(400, "something_new"), "something_new"),
        (custom(400, json!({})), "http_400"),
        (error(503, "invalid_grant"), "invalid_grant"),
        (Fault::Html200, "bad_answer"),
        (error_in_200, "temporarily_unavailable"),
        (Fault::HugeBody, "answer_too_long"),
        (Fault::Drop, "network"),
        (Fault::Hang, "timeout"),
        (Fault::Redirect { location }, "http_302"),
    ]
    .map(|(fault, code)| (fault, code, UNAVAILABLE, "unavailable"));
    // The app may be accepted again without a change of the proxy's configuration.
    let app = [
        (Fault::InvalidClient, "invalid_client"),
        (error(400, "unauthorized_client"), "unauthorized_client"),
        (error(400, "invalid_scope"), "invalid_scope"),
    ]
    .map(|(fault, code)| (fault, code, APP_REFUSED, "app_refused"));
    let cases = temporary.into_iter().chain(app).enumerate();
    let passed = cases.map(async |(number, case)| passes(&bed, &format!("user{number}"), case).await);
    assert_eq!(join_all(passed).await.len(), 15);

    let nobody = elsewhere.accept().unwrap_err();
    assert_eq!(
        nobody.kind(),
        ErrorKind::WouldBlock,
        "a redirect was followed: {nobody}"
    );
    let refreshes = async |outcome: &str| bed.metric("portreeve_oauth_refreshes_total", outcome).await;
    let ok = refreshes(r#"outcome="ok""#).await;
    let temporary = refreshes(r#"outcome="temporary""#).await;
    let app = refreshes(r#"outcome="app_refused""#).await;
    assert_eq!(ok, 15.0);
    assert!(temporary >= 12.0 && app >= 3.0, "{temporary} {app}");
    assert_eq!(refreshes("").await, ok + temporary + app, "no other outcome");
    let log = bed.portreeve.log();
    for request in bed.provider.requests().await {
        assert!(!log.contains(&request.params["refresh_token"]));
        assert!(!log.contains(&request.params["client_secret"]));
    }
    bed.until_no_sessions().await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_waited_for() {
    let bed = start(ProviderOptions::default()).await;
    let token = bed.account("down").await;
    bed.provider.stop().await;
    assert_eq!(bed.login("down", &token).await, UNAVAILABLE);
    assert_failing(&bed, "down", "connect").await;
    bed.provider.restart().await;
    bed.until_logged_in("down", &token, UNAVAILABLE).await;
    assert_recovered(&bed, "down").await;
}

#[tokio::test]
async fn the_wait_that_a_provider_asks_for_is_kept_and_new_credentials_end_it() {
    let bed = start(ProviderOptions::default()).await;
    let token = bed.account("soon").await;
    bed.provider
        .fault_next(1, Fault::TooManyRequests { retry_after: 3 })
        .await;
    assert_eq!(bed.login("soon", &token).await, UNAVAILABLE);
    let shown = assert_failing(&bed, "soon", "slow_down").await;
    assert!(
        wait_of(&shown) >= Duration::from_secs(3),
        "the provider's wait is longer than ours: {shown}"
    );
    let due = time(&shown["nextTry"]);
    bed.until_logged_in("soon", &token, UNAVAILABLE).await;
    assert!(Timestamp::now() >= due, "{shown}");
    assert_eq!(bed.provider.counters("soon").await.requests, 2, "nothing in between");
    assert_recovered(&bed, "soon").await;

    let token = bed.account("late").await;
    let fault = Fault::TooManyRequests { retry_after: 86_400 };
    bed.provider.fault_next(1, fault).await;
    assert_eq!(bed.login("late", &token).await, UNAVAILABLE);
    let shown = assert_failing(&bed, "late", "slow_down").await;
    assert_eq!(wait_of(&shown), Duration::from_secs(3600), "an hour at most: {shown}");
    bed.authorize_again("late").await;
    assert_eq!(bed.shown("late").await["state"], "new");
    assert_eq!(bed.login("late", &token).await, "OK late authenticated");
    assert_recovered(&bed, "late").await;
}

#[tokio::test]
async fn a_grant_that_is_gone_waits_for_a_person_and_for_nothing_else() {
    let bed = start(ProviderOptions::default()).await;
    let error_in_200 = Fault::ErrorIn200 {
        error: "invalid_grant".to_owned(),
    };
    let microsoft = json!({
        "error": "invalid_request",
        "error_description": "AADSTS700082: The refresh token has expired due to inactivity.",
        "error_codes": [700_082],
    });
    let cases = [
        (Fault::InvalidGrant, "invalid_grant"),
        (error_in_200, "invalid_grant"),
        (error(400, "interaction_required"), "interaction_required"),
        (custom(400, microsoft), "invalid_request"),
    ];
    for (number, (fault, code)) in cases.into_iter().enumerate() {
        let user = format!("gone{number}");
        let token = bed.account(&user).await;
        bed.provider.fault(fault).await;
        assert_eq!(bed.login(&user, &token).await, GRANT_GONE);
        bed.provider.clear_faults().await;
        assert_needs_authorization(&bed, &user, code).await;
        // Nobody asks the provider again, though it would answer now.
        assert_eq!(bed.login(&user, &token).await, GRANT_GONE);
        assert_eq!(bed.provider.counters(&user).await.requests, 1);
        bed.authorize_again(&user).await;
        assert_eq!(
            bed.login(&user, &token).await,
            format!("OK {user} authenticated"),
            "{code}"
        );
        assert_recovered(&bed, &user).await;
    }
    assert_eq!(
        bed.metric("portreeve_oauth_refreshes_total", r#"outcome="grant_refused""#)
            .await,
        4.0
    );
    assert_eq!(
        bed.metric("portreeve_logins_total", r#"outcome="needs_authorization""#)
            .await,
        8.0
    );
}

#[tokio::test]
async fn a_grant_that_was_withdrawn_leaves_live_sessions_alone_and_is_remembered_by_the_next_start() {
    let mut bed = start(ProviderOptions::default()).await;
    let token = bed.account("withdrawn").await;
    let mut live = bed.portreeve.logged_in("withdrawn", &token).await;
    assert!(bed.provider.revoke_grants("withdrawn").await > 0);
    assert_eq!(bed.login("withdrawn", &token).await, GRANT_GONE);
    let before = assert_needs_authorization(&bed, "withdrawn", "invalid_grant").await;
    assert!(live.command("NOOP").await.is_ok(), "{}", live.transcript());
    until(PATIENCE, "the status names the account", async || {
        let status = bed.portreeve.read("/v1/status").await;
        (status["attention"][0]["account"] == "withdrawn").then_some(())
    })
    .await;
    let verified = bed.portreeve.post("/v1/account/withdrawn/verify", &json!({})).await;
    assert_eq!(verified["ok"], false, "{verified}");
    assert!(verified.to_string().contains("invalid_grant"), "{verified}");

    // The state is written behind the reply; a stop in order writes what is still due.
    restart(&mut bed).await;
    assert_eq!(bed.shown("withdrawn").await, before);
    assert_eq!(bed.login("withdrawn", &token).await, GRANT_GONE);
    bed.authorize_again("withdrawn").await;
    assert_eq!(bed.login("withdrawn", &token).await, "OK withdrawn authenticated");
}

#[tokio::test]
async fn the_refresh_token_outlives_every_refusal() {
    let bed = start(ProviderOptions::default()).await;
    let grant = bed.provider.mint("kept").await;
    bed.portreeve.add_account("kept", &grant).await;
    let token = bed.portreeve.add_token("kept").await;
    bed.provider.fault_next(1, Fault::InvalidGrant).await;
    assert_eq!(bed.login("kept", &token).await, GRANT_GONE);
    // The same grant, given again: what the provider said was wrong, and nothing was spoilt by it.
    let body = json!({ "oauth2": { "refreshToken": grant.refresh_token } });
    let (status, answer) = bed.portreeve.ask(Method::PUT, "/v1/account/kept", Some(&body)).await;
    assert_eq!((status, &answer["state"]), (200, &json!("new")), "{answer}");
    assert_eq!(bed.login("kept", &token).await, "OK kept authenticated");
}

#[tokio::test]
async fn a_rotated_token_lost_in_transit_costs_a_person_work_only_where_reuse_is_punished() {
    let bed = start(ProviderOptions::default()).await;
    let strict = bed.account("strict").await;
    bed.provider.fault_next(1, Fault::Lost).await;
    assert_eq!(bed.login("strict", &strict).await, UNAVAILABLE);
    // The next attempt is due by itself, and is taken for theft.
    bed.until_state("strict", "needs-authorization").await;
    let shown = assert_needs_authorization(&bed, "strict", "invalid_grant").await;
    assert_ne!(shown["lastError"]["message"], "", "{shown}");
    assert_eq!(bed.login("strict", &strict).await, GRANT_GONE);
    bed.authorize_again("strict").await;
    assert_eq!(bed.login("strict", &strict).await, "OK strict authenticated");

    bed.provider.rotate(Rotation::Lenient).await;
    let lenient = bed.account("lenient").await;
    bed.provider.fault_next(1, Fault::Lost).await;
    assert_eq!(bed.login("lenient", &lenient).await, UNAVAILABLE);
    assert_failing(&bed, "lenient", "network").await;
    // Nobody asks: the account recovers by itself.
    bed.until_state("lenient", "active").await;
    assert_eq!(bed.login("lenient", &lenient).await, "OK lenient authenticated");
    assert_eq!(bed.provider.counters("lenient").await.refreshes, 2);
}

#[tokio::test]
async fn an_app_that_is_refused_is_the_administrators_trouble_and_a_reload_ends_it() {
    let provider = Provider::start(ProviderOptions::default()).await;
    let dovecot = Dovecot::start(&provider).await;
    let mut wrong = provider.endpoints().clone();
    wrong.client_secret = "not the secret".to_owned();
    let imaps = Endpoint::new(Protocol::Imap, dovecot.imaps(), Security::Implicit);
    let portreeve = Setup::default()
        .provider_at(&wrong, &[imaps], &dovecot.ca_file())
        .start()
        .await;
    let bed = Bed {
        provider,
        postfix: None,
        dovecot,
        portreeve,
        protocols: vec![Protocol::Imap],
    };
    let token = bed.account("app").await;
    assert_eq!(bed.login("app", &token).await, APP_REFUSED);
    assert_failing(&bed, "app", "invalid_client").await;
    // Waits grow with each attempt that somebody asks for, until one is long enough to tell a reload from its end.
    let shown = until(PATIENCE, "the wait is long", async || {
        assert_eq!(bed.login("app", &token).await, APP_REFUSED);
        let shown = bed.shown("app").await;
        (shown["nextTry"].is_string() && wait_of(&shown) >= Duration::from_secs(4)).then_some(shown)
    })
    .await;
    assert_eq!(shown["state"], "failing", "never needs-authorization");
    assert_eq!(bed.login("app", &token).await, APP_REFUSED);

    bed.portreeve
        .write_config(Setup::default().provider(&bed.provider, &bed.dovecot).text());
    bed.portreeve.reload();
    // Nobody logs in meanwhile: who reloads sees at once whether it helped.
    assert_recovered(&bed, "app").await;
    assert!(Timestamp::now() < time(&shown["nextTry"]), "the reload ended the wait");
    assert_eq!(bed.login("app", &token).await, "OK app authenticated");
    let refused = r#"outcome="app_refused""#;
    assert!(bed.metric("portreeve_oauth_refreshes_total", refused).await >= 3.0);
    assert!(bed.metric("portreeve_logins_total", refused).await >= 2.0);
}

/// A bed whose proxy does not wait long for token endpoints that hang.
async fn start(options: ProviderOptions) -> Bed {
    Bed::start(options, "[limits]\ntoken_request_timeout = \"1s\"").await
}

/// Ends the proxy in order and starts it again.
async fn restart(bed: &mut Bed) {
    let process = bed.portreeve.process();
    process.signal(rustix::process::Signal::TERM);
    assert!(process.wait().await.success(), "{}", process.log_tail());
    bed.portreeve.spawn();
    bed.portreeve.until_ready().await;
}

/// Shows that a fault is noted as a code, told as a refusal and recorded with its reason, and that it is over when the
/// provider has got over it.
async fn passes(bed: &Bed, user: &str, (fault, code, refusal, reason): (Fault, &str, &str, &str)) {
    let token = bed.account(user).await;
    bed.provider.fault_of(user, fault).await;
    assert_eq!(bed.login(user, &token).await, refusal, "{code}");
    assert_failing(bed, user, code).await;
    let usage = bed
        .portreeve
        .read(&format!("/v1/usage?account={user}&outcome=denied"))
        .await;
    assert_eq!(usage["events"][0]["reason"], reason, "{usage}");
    bed.provider.clear_faults_of(user).await;
    bed.until_logged_in(user, &token, refusal).await;
    assert_recovered(bed, user).await;
}

/// The account is `failing` with `code`, and the next attempt is due within the bounds of the back-off.
async fn assert_failing(bed: &Bed, user: &str, code: &str) -> Value {
    // While an attempt is on its way none is due.
    let shown = bed
        .until_shown(user, PATIENCE, |shown| shown["nextTry"].is_string())
        .await;
    assert_eq!(shown["state"], "failing", "{shown}");
    assert_eq!(shown["lastError"]["code"], code, "{shown}");
    assert_ne!(shown["lastError"]["message"], "", "{shown}");
    assert!(wait_of(&shown) >= Duration::from_secs(1), "{shown}");
    shown
}

async fn assert_needs_authorization(bed: &Bed, user: &str, code: &str) -> Value {
    let shown = bed.shown(user).await;
    assert_eq!(shown["state"], "needs-authorization", "{shown}");
    assert_eq!(shown["lastError"]["code"], code, "{shown}");
    assert_ne!(shown["lastError"]["message"], "", "{shown}");
    assert_eq!(shown.get("nextTry"), None, "{shown}");
    shown
}

/// The account is `active` and nothing is left of the trouble. An upstream's acceptance is noted behind the client's reply.
async fn assert_recovered(bed: &Bed, user: &str) {
    let shown = bed.until_state(user, "active").await;
    assert_eq!(shown.get("lastError"), None, "{shown}");
    assert_eq!(shown.get("nextTry"), None, "{shown}");
}

/// How long the account rests after its last error.
fn wait_of(shown: &Value) -> Duration {
    let wait = time(&shown["nextTry"]).duration_since(time(&shown["lastError"]["time"]));
    Duration::try_from(wait).unwrap_or_else(|_| panic!("the next try is before the last error: {shown}"))
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(status: u16, error: &str) -> Fault {
    custom(status, json!({ "error": error }))
}

fn custom(status: u16, body: Value) -> Fault {
    Fault::Custom { status, body }
}
