//! The admin API over its real sockets, request by request, each answer literally.

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::test_support::{Daemon, ROOT_TOKEN, login, session, step};
use super::types::StepResult;
use crate::clock::{self, Timestamp};
use crate::limits::{ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_CONNECTIONS_PER_IP_MAX};
use crate::net::dns::test_support::{NameServer, mx, srv};
use crate::secret::ExposeSecret;
use crate::store::{AccountError, AccountState, Failures, StoreError};

/// A raw answer.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

/// Sends bytes, reads to the end. The request must ask for the connection to be closed.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Reply {
    // A daemon that refuses a body early may close before all of it is written: the answer is what counts.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Reply {
        status: head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0),
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

fn request(method: &Method, path: &str, token: Option<&str>, content_type: Option<&str>, body: &str) -> String {
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    let content_type = content_type.map_or(String::new(), |kind| format!("Content-Type: {kind}\r\n"));
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}{content_type}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Daemon {
    /// Asks as the daemon's own user.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let content_type = body.as_ref().map(|_| "application/json");
        let body = body.map_or(String::new(), |body| body.to_string());
        let reply = self.raw(&request(&method, path, None, content_type, &body)).await;
        (reply.status, reply.json())
    }

    /// Asks as the daemon's own user and expects success.
    async fn done(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn raw(&self, request: &str) -> Reply {
        exchange(UnixStream::connect(&self.socket).await.unwrap(), request).await
    }

    /// Asks over TCP, with a token or without.
    async fn ask_tcp(&self, method: Method, path: &str, token: Option<&str>, body: &str) -> Reply {
        let content_type = (!body.is_empty()).then_some("application/json");
        let stream = TcpStream::connect(self.tcp).await.unwrap();
        exchange(stream, &request(&method, path, token, content_type, body)).await
    }

    async fn add_account(&self, account: &str, email: Option<&str>) {
        let new = json!({"account": account, "email": email, "provider": "example"});
        self.done(Method::POST, "/v1/account", Some(new)).await;
    }

    /// Gives the account servers of its own for what its provider does not have.
    async fn serve_all(&self, account: &str) {
        let own = json!({"host": "own.example.com", "port": 465, "tls": "implicit"});
        let change = json!({"smtp": own, "pop3": own});
        self.done(Method::PUT, &format!("/v1/account/{account}"), Some(change))
            .await;
    }

    async fn add_token(&self, account: &str, scopes: &[&str]) -> (String, String) {
        let new = json!({"account": account, "scopes": scopes, "description": "d"});
        let created = self.done(Method::POST, "/v1/token", Some(new)).await;
        let text = |field: &str| created[field].as_str().unwrap().to_owned();
        (text("token"), text("id"))
    }
}

fn error(status: u16, name: &str, code: &str, message: &str) -> (u16, Value) {
    (
        status,
        json!({"statusCode": status, "error": name, "message": message, "code": code}),
    )
}

/// Replaces the times in an answer, which differ from run to run, once they have been found to be times.
fn without_times(mut answer: Value) -> Value {
    for field in ["created", "updated"] {
        if let Some(time) = answer.get_mut(field) {
            Timestamp::parse(time.as_str().unwrap()).unwrap();
            *time = json!("…");
        }
    }
    answer
}

#[tokio::test]
async fn an_account_is_added_read_changed_and_deleted() {
    let daemon = Daemon::start().await;
    let new = json!({
        "account": "example", "email": "user@example.com", "name": "User", "provider": "example",
        "oauth2": {"refreshToken": "secret refresh token"},
        "imap": {"host": "127.0.0.1", "port": 1143, "tls": "off"},
    });
    let created = daemon.done(Method::POST, "/v1/account", Some(new)).await;
    assert_eq!(created, json!({"account": "example", "state": "new"}));

    let expected = json!({
        "account": "example", "email": "user@example.com", "name": "User", "provider": "example", "user": null,
        "imap": {"host": "127.0.0.1", "port": 1143, "tls": "off"},
        "state": "new", "created": "…", "updated": "…",
    });
    for name in ["example", "USER%40example.com"] {
        let read = daemon.done(Method::GET, &format!("/v1/account/{name}"), None).await;
        assert_eq!(without_times(read), expected, "{name}");
    }

    let change =
        json!({"name": null, "imap": null, "user": "shared@example.com", "smtp": {"user": "delegate@example.com"}});
    let changed = daemon.done(Method::PUT, "/v1/account/example", Some(change)).await;
    let expected = json!({
        "account": "example", "email": "user@example.com", "name": null, "provider": "example",
        "user": "shared@example.com", "smtp": {"user": "delegate@example.com"},
        "state": "new", "created": "…", "updated": "…",
    });
    assert_eq!(without_times(changed), expected);
    assert!(daemon.world.replaced_secrets.lock().unwrap().is_none());

    let deleted = daemon.done(Method::DELETE, "/v1/account/example", None).await;
    assert_eq!(deleted, json!({"deleted": true}));
    for method in [Method::GET, Method::DELETE] {
        assert_eq!(
            daemon.ask(method, "/v1/account/example", None).await,
            error(404, "Not Found", "account_not_found", "no such account 'example'")
        );
    }
}

#[tokio::test]
async fn new_credentials_replace_the_old_ones_and_end_needs_authorization() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    {
        let mut accounts = daemon.world.accounts.lock().unwrap();
        accounts[0].0.state = AccountState::NeedsAuthorization;
        accounts[0].0.last_error = Some(AccountError {
            code: "invalid_grant".to_owned(),
            message: "the grant is gone".to_owned(),
            remedy: None,
            time: Timestamp::EPOCH,
        });
    }
    let read = daemon.done(Method::GET, "/v1/account/a", None).await;
    assert_eq!(read["state"], "needs-authorization");
    assert_eq!(
        read["lastError"],
        json!({"code": "invalid_grant", "message": "the grant is gone", "time": "1970-01-01T00:00:00.000Z"})
    );

    let change = json!({"oauth2": {"refreshToken": "r2", "accessToken": "a2", "expires": "2030-01-01T00:00:00Z"}});
    let changed = daemon.done(Method::PUT, "/v1/account/a", Some(change)).await;
    assert_eq!(changed["state"], "new");
    assert_eq!(changed.get("lastError"), None);
    let secrets = daemon.world.replaced_secrets.lock().unwrap().clone().unwrap();
    let grant = secrets.grant.unwrap();
    assert_eq!(grant.refresh_token.unwrap().expose_secret(), "r2");
    assert_eq!(grant.expires, Some(Timestamp::parse("2030-01-01T00:00:00Z").unwrap()));

    let disable = json!({"disabled": true});
    let changed = daemon.done(Method::PUT, "/v1/account/a", Some(disable)).await;
    assert_eq!(changed["state"], "disabled");
    let changed = daemon
        .done(Method::PUT, "/v1/account/a", Some(json!({"password": "p"})))
        .await;
    assert_eq!(changed["state"], "disabled");
    let changed = daemon
        .done(Method::PUT, "/v1/account/a", Some(json!({"disabled": false})))
        .await;
    assert_eq!(changed["state"], "new");
}

#[tokio::test]
async fn an_address_is_recognised_and_servers_that_its_domain_names_are_only_told() {
    let names = NameServer::start(vec![
        mx("customer.test", 10, "aspmx.l.google.com."),
        srv("_imaps._tcp.own.test", (0, 1, 993), "imap.own.test."),
    ])
    .await;
    let daemon = Daemon::start_with_dns(names.dns()).await;
    let recognized = async |email: &str| {
        let path = format!("/v1/recognize?email={email}");
        daemon.done(Method::GET, &path, None).await
    };
    assert_eq!(
        recognized("user%40Example.com").await,
        json!({
            "email": "user@Example.com", "provider": "example", "how": "domain", "found": "example.com is provider example's",
            "configured": true, "oauth2": true, "passwords": true,
        })
    );
    let mut customer = recognized("user@customer.test").await;
    assert!(customer["advice"].take().as_str().unwrap().contains("app password"));
    assert_eq!(
        customer,
        json!({
            "email": "user@customer.test", "provider": "google", "how": "mx",
            "found": "customer.test is Google's (MX aspmx.l.google.com)",
            "configured": true, "oauth2": false, "passwords": true, "advice": null,
        })
    );
    assert_eq!(
        recognized("user@own.test").await,
        json!({
            "email": "user@own.test", "provider": null, "how": "srv",
            "found": "own.test names its servers in DNS (SRV): imap imap.own.test:993",
            "configured": false, "oauth2": false, "passwords": true,
            "imap": {"host": "imap.own.test", "port": 993, "tls": "implicit"},
        })
    );
    assert_eq!(recognized("user@none.test").await["how"], "none");
    for (path, message) in [
        ("/v1/recognize", "email: expected an address such as user@example.com"),
        (
            "/v1/recognize?email=nobody",
            "email: expected an address such as user@example.com",
        ),
        ("/v1/recognize?email=a@b.test&x=1", "x: unknown parameter"),
    ] {
        let refused = error(400, "Bad Request", "invalid_request", message);
        assert_eq!(daemon.ask(Method::GET, path, None).await, refused);
    }
    daemon.add_account("a", None).await;
    let (token, _) = daemon.add_token("a", &["api"]).await;
    let reply = daemon
        .ask_tcp(Method::GET, "/v1/recognize?email=a@b.test", Some(&token), "")
        .await;
    assert_eq!(reply.status, 403, "{}", reply.body);
}

#[tokio::test]
async fn an_account_without_a_provider_gets_the_one_that_its_address_tells() {
    let names = NameServer::start(vec![
        mx("customer.test", 10, "aspmx.l.google.com."),
        mx("office.test", 10, "office-test.mail.protection.outlook.com."),
        srv("_imaps._tcp.own.test", (0, 1, 993), "imap.own.test."),
    ])
    .await;
    let daemon = Daemon::start_with_dns(names.dns()).await;
    for (body, provider) in [
        (json!({"account": "user@example.com"}), "example"),
        (
            json!({"account": "b", "email": "user@customer.test", "password": "p"}),
            "google",
        ),
    ] {
        let created = daemon.done(Method::POST, "/v1/account", Some(body)).await;
        let path = format!("/v1/account/{}", created["account"].as_str().unwrap());
        assert_eq!(daemon.done(Method::GET, &path, None).await["provider"], provider);
    }
    for (body, wanted) in [
        (
            json!({"account": "c"}),
            "provider: is needed where there is no e-mail address to tell it by",
        ),
        (json!({"account": "c", "email": "nobody"}), "email: expected an address"),
        (
            json!({"account": "c", "email": "user@office.test"}),
            "provider: office.test is Microsoft's (MX office-test.mail.protection.outlook.com), but 'microsoft' is not \
             configured. It takes no passwords",
        ),
        // Servers that DNS names are no provider.
        (
            json!({"account": "c", "email": "user@own.test", "password": "p"}),
            "provider: own.test is no known provider's, neither by name nor by its MX records",
        ),
    ] {
        let (status, answer) = daemon.ask(Method::POST, "/v1/account", Some(body)).await;
        let message = answer["message"].as_str().unwrap();
        assert!(status == 400 && message.starts_with(wanted), "{message}");
    }
}

#[tokio::test]
async fn an_account_shares_the_grant_of_another_until_it_has_its_own() {
    let daemon = Daemon::start().await;
    daemon.add_account("owner", Some("owner@example.com")).await;
    let sharing = |owner: &str| json!({"sharesGrantOf": owner});
    let new = json!({"account": "team", "provider": "example", "oauth2": sharing("OWNER@example.com")});
    daemon.done(Method::POST, "/v1/account", Some(new)).await;
    let shown = daemon.done(Method::GET, "/v1/account/team", None).await;
    assert_eq!(shown["sharesGrantOf"], "owner", "{shown}");

    let problem = |message: &str| {
        error(
            400,
            "Bad Request",
            "invalid_request",
            &format!("oauth2.sharesGrantOf: {message}"),
        )
    };
    for (oauth2, message) in [
        (sharing("nobody"), "there is no account 'nobody'"),
        (sharing("team"), "'team' shares a grant itself; name 'owner'"),
        (
            json!({"sharesGrantOf": "owner", "refreshToken": "r"}),
            "stands alone; the grant is the other account's",
        ),
    ] {
        let new = json!({"account": "b", "provider": "example", "oauth2": oauth2});
        assert_eq!(
            daemon.ask(Method::POST, "/v1/account", Some(new)).await,
            problem(message)
        );
    }
    let itself = json!({"oauth2": sharing("team")});
    assert_eq!(
        daemon.ask(Method::PUT, "/v1/account/team", Some(itself)).await,
        problem("an account cannot share its own grant")
    );
    // Whoever may only act for one account must not give it the grant of another.
    let (token, _) = daemon.add_token("team", &["api"]).await;
    let body = json!({"oauth2": sharing("owner")}).to_string();
    assert_eq!(
        daemon
            .ask_tcp(Method::PUT, "/v1/account/team", Some(&token), &body)
            .await
            .status,
        403
    );
    let own = json!({"oauth2": {"refreshToken": "r"}});
    let changed = daemon.done(Method::PUT, "/v1/account/team", Some(own)).await;
    assert_eq!(changed.get("sharesGrantOf"), None, "{changed}");
}

#[tokio::test]
async fn a_grant_that_ends_soon_needs_attention_whatever_the_accounts_state() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    daemon.add_account("b", None).await;
    let ends = Timestamp::parse("2026-02-03T12:00:00Z").unwrap();
    let ending = ["b", "removed meanwhile"].map(|account| (account.to_owned(), ends));
    *daemon.world.ending.lock().unwrap() = ending.to_vec();
    let status = daemon.done(Method::GET, "/v1/status", None).await;
    assert_eq!(
        status["attention"],
        json!([{"account": "b", "state": "new", "grantEnds": "2026-02-03T12:00:00.000Z"}])
    );
}

#[tokio::test]
async fn an_account_whose_logins_fail_needs_attention_whatever_its_state() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    daemon.add_account("b", None).await;
    let since = Timestamp::parse("2026-02-03T12:00:00Z").unwrap();
    let failing = ["b", "removed meanwhile"].map(|account| (account.to_owned(), Failures { count: 12, since }));
    *daemon.world.failing.lock().unwrap() = failing.to_vec();
    let failures = json!({"count": 12, "since": "2026-02-03T12:00:00.000Z"});
    let status = daemon.done(Method::GET, "/v1/status", None).await;
    assert_eq!(
        status["attention"],
        json!([{"account": "b", "state": "new", "failures": failures}])
    );

    let mut accounts = daemon.world.accounts.lock().unwrap().clone();
    accounts[0].0.state = AccountState::Failing;
    accounts[0].0.failures = Some(Failures { count: 12, since });
    accounts[0].0.last_error = Some(AccountError {
        code: "imap_refused".to_owned(),
        message: "not connected".to_owned(),
        remedy: Some("Have it switched on".to_owned()),
        time: since,
    });
    *daemon.world.accounts.lock().unwrap() = accounts;
    let read = daemon.done(Method::GET, "/v1/account/a", None).await;
    assert_eq!(read["failures"], failures);
    assert_eq!(read["lastError"]["remedy"], "Have it switched on");
    let status = daemon.done(Method::GET, "/v1/status", None).await;
    assert_eq!(status["attention"][0]["lastError"]["remedy"], "Have it switched on");
    assert_eq!(status["attention"][0]["failures"], failures);
}

#[tokio::test]
async fn a_refused_account_names_the_field() {
    let daemon = Daemon::start().await;
    daemon.add_account("taken", None).await;
    let refused = |message: &str| error(400, "Bad Request", "invalid_request", message);
    for (body, expected) in [
        (
            json!({"account": " a", "provider": "example"}),
            refused("account: 1 to 256 characters, no control characters, no space at either end"),
        ),
        (
            json!({"account": "a", "provider": "nobody"}),
            refused(
                "provider: 'nobody' is not configured; known: aol, att, comcast, example, fastmail, gmx, gmx-com, google, \
                 icloud, mailru, other, seznam, webde, yahoo, yandex, zoho",
            ),
        ),
        (
            json!({"account": "a", "provider": "example", "email": "nobody"}),
            refused("email: expected an address such as user@example.com"),
        ),
        (
            json!({"account": "a", "provider": "example", "oauth2": {"accessToken": "x"}, "password": "p"}),
            refused("password: give either oauth2 or a password, not both"),
        ),
        (
            json!({"account": "a", "provider": "example", "oauth2": {}}),
            refused("oauth2: give a refreshToken, an accessToken or both, or sharesGrantOf alone"),
        ),
        (
            json!({"account": "a", "provider": "icloud", "oauth2": {"refreshToken": "x"}}),
            refused("oauth2: the provider takes passwords only"),
        ),
        (
            json!({"account": "a", "provider": "example", "password": "a\r\nb"}),
            refused("password: holds a line end"),
        ),
        (
            json!({"account": "a", "provider": "example", "imap": {"host": "h", "port": 143, "tls": "off"}}),
            refused("imap.tls: off is for loopback hosts only; use implicit or starttls"),
        ),
        (
            json!({"account": "a", "provider": "example", "smtp": {"host": "h", "user": "u"}}),
            refused("smtp: give host, port and tls, a user alone, or all of them at line 1 column 67"),
        ),
        (
            json!({"account": "a", "provider": "example", "pop3": {}}),
            refused("pop3: give host, port and tls, a user alone, or all of them at line 1 column 24"),
        ),
        (
            json!({"account": "a", "provider": "example", "smtp": {"user": "two\nlines"}}),
            refused("smtp.user: must not contain control characters"),
        ),
        (
            json!({"account": "taken", "provider": "example"}),
            error(409, "Conflict", "conflict", "account is taken by another account"),
        ),
    ] {
        assert_eq!(daemon.ask(Method::POST, "/v1/account", Some(body)).await, expected);
    }
    let rename = json!({"account": "other"});
    assert_eq!(
        daemon.ask(Method::PUT, "/v1/account/taken", Some(rename)).await,
        refused("account: an account's id cannot be changed")
    );
}

#[tokio::test]
async fn lists_have_pages_newest_first() {
    let daemon = Daemon::start().await;
    assert_eq!(
        daemon.done(Method::GET, "/v1/accounts", None).await,
        json!({"total": 0, "page": 0, "pages": 0, "pageSize": 20, "accounts": []})
    );
    for account in ["one", "two", "three"] {
        daemon.add_account(account, None).await;
    }
    let names = |list: &Value| -> Vec<String> {
        let accounts = list["accounts"].as_array().unwrap();
        accounts
            .iter()
            .map(|entry| entry["account"].as_str().unwrap().to_owned())
            .collect()
    };
    let list = daemon.done(Method::GET, "/v1/accounts?page=1&pageSize=2", None).await;
    assert_eq!(names(&list), ["one"]);
    assert_eq!(
        (&list["total"], &list["page"], &list["pages"], &list["pageSize"]),
        (&json!(3), &json!(1), &json!(2), &json!(2))
    );
    let list = daemon.done(Method::GET, "/v1/accounts?query=t", None).await;
    assert_eq!(names(&list), ["three", "two"]);
    assert_eq!(
        daemon.ask(Method::GET, "/v1/accounts?page=x", None).await,
        error(
            400,
            "Bad Request",
            "invalid_request",
            "page: 'x' is not a page, which are counted from 0"
        )
    );
}

#[tokio::test]
async fn a_verification_tells_each_step() {
    let daemon = Daemon::start().await;
    daemon.add_account("a b", None).await;
    *daemon.world.verification.lock().unwrap() = vec![
        step("dns", StepResult::Ok, "two addresses"),
        step("connect", StepResult::Failed, "connection refused: check the port"),
        step("tls", StepResult::Skipped, "no connection"),
    ];
    assert_eq!(
        daemon.done(Method::POST, "/v1/account/a%20b/verify", None).await,
        json!({"account": "a b", "ok": false, "steps": [
            {"name": "dns", "protocol": "imap", "result": "ok", "ms": 1, "message": "two addresses"},
            {"name": "connect", "protocol": "imap", "result": "failed", "ms": 1, "message": "connection refused: check the port"},
            {"name": "tls", "protocol": "imap", "result": "skipped", "ms": 1, "message": "no connection"},
        ]})
    );
}

#[tokio::test]
async fn a_token_is_shown_once_and_listed_without_itself() {
    let daemon = Daemon::start().await;
    daemon.add_account("example", Some("user@example.com")).await;
    let new = json!({
        "account": "user@example.com", "scopes": ["imap-proxy", "imap-proxy"], "description": "laptop",
        "restrictions": {"addresses": ["127.0.0.1", "2001:db8::/32"]},
        "expires": "2030-01-01T00:00:00Z", "metadata": {"owner": 1},
    });
    let created = daemon.done(Method::POST, "/v1/tokens", Some(new)).await;
    let (token, id) = (created["token"].as_str().unwrap(), created["id"].as_str().unwrap());
    assert_eq!(created.as_object().unwrap().len(), 2);
    assert_eq!((token.len(), id.len()), (64, 64));

    let expected = json!({
        "id": id, "account": "example", "form": "hex", "scopes": ["imap-proxy"], "description": "laptop",
        "restrictions": {"addresses": ["127.0.0.1/32", "2001:db8::/32"]}, "metadata": {"owner": 1},
        "expires": "2030-01-01T00:00:00.000Z", "created": "…", "access": null,
    });
    for name in [id, token] {
        let read = daemon.done(Method::GET, &format!("/v1/tokens/{name}"), None).await;
        assert_eq!(without_times(read), expected);
    }
    for path in [
        "/v1/tokens",
        "/v1/tokens?account=example&query=lap",
        "/v1/tokens?account=user@example.com",
        "/v1/tokens/account/example",
    ] {
        let list = daemon.done(Method::GET, path, None).await;
        assert_eq!(list["total"], 1, "{path}");
        assert_eq!(without_times(list["tokens"][0].clone()), expected, "{path}");
    }

    let removed = daemon.done(Method::DELETE, &format!("/v1/token/{token}"), None).await;
    assert_eq!(removed, json!({"deleted": true}));
    let ended = daemon.world.ended_tokens.lock().unwrap().clone();
    assert_eq!(ended, [("example".to_owned(), id.parse().unwrap())]);
    let short = |text: &str| text.chars().take(8).collect::<String>();
    let spoilt = token.replacen(char::is_alphanumeric, "", 1);
    for (path, shown) in [
        (format!("/v1/token/{id}"), short(id)),
        (format!("/v1/tokens/{id}"), short(id)),
        (format!("/v1/token/{token}"), short(token)),
        ("/v1/token/x".to_owned(), "x".to_owned()),
        // What was meant to be a token is not repeated.
        (format!("/v1/token/{spoilt}"), short(&spoilt)),
        // The beginning of the id that it would have.
        (format!("/v1/token/{}", "O".repeat(20)), "a7d351f3".to_owned()),
    ] {
        assert_eq!(
            daemon.ask(Method::DELETE, &path, None).await,
            error(404, "Not Found", "token_not_found", &format!("no such token '{shown}'"))
        );
    }
}

#[tokio::test]
async fn a_short_token_is_asked_for_and_found_however_it_is_written() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    let new = json!({"account": "a", "scopes": ["api"], "form": "short"});
    let created = daemon.done(Method::POST, "/v1/token", Some(new)).await;
    let (token, id) = (created["token"].as_str().unwrap(), created["id"].as_str().unwrap());
    assert_eq!((token.len(), id.len()), (20, 64));
    assert!(
        token
            .chars()
            .all(|digit| "0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(digit)),
        "{token}"
    );
    let lower = token.to_lowercase();
    for name in [id, token, &lower] {
        let read = daemon.done(Method::GET, &format!("/v1/tokens/{name}"), None).await;
        assert_eq!((&read["id"], &read["form"]), (&json!(id), &json!("short")));
    }
    let reply = daemon.ask_tcp(Method::GET, "/v1/account/a", Some(&lower), "").await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    daemon.done(Method::DELETE, &format!("/v1/token/{lower}"), None).await;
    let reply = daemon.ask_tcp(Method::GET, "/v1/account/a", Some(token), "").await;
    assert_eq!(reply.status, 401, "{}", reply.body);
    let new = json!({"account": "a", "scopes": ["api"], "form": "tiny"});
    let (status, refused) = daemon.ask(Method::POST, "/v1/token", Some(new)).await;
    let message = refused["message"].as_str().unwrap();
    assert_eq!(status, 400);
    assert!(
        message.starts_with("form: unknown variant `tiny`, expected `hex` or `short`"),
        "{message}"
    );
}

#[tokio::test]
async fn a_token_that_a_token_makes_can_do_no_more_and_ends_with_it() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    daemon.serve_all("a").await;
    let maker = json!({
        "account": "a", "scopes": ["api"], "mayGrant": ["imap-proxy", "metrics", "imap-proxy"],
        "restrictions": {"addresses": ["127.0.0.0/8"]}, "expires": "2099-01-01T00:00:00Z",
    });
    let maker = daemon.done(Method::POST, "/v1/token", Some(maker)).await;
    let (maker, maker_id) = (maker["token"].as_str().unwrap(), maker["id"].as_str().unwrap());
    let shown = daemon.done(Method::GET, &format!("/v1/tokens/{maker_id}"), None).await;
    assert_eq!(shown["mayGrant"], json!(["imap-proxy", "metrics"]));
    assert!(shown.get("parent").is_none(), "{shown}");

    let make = async |maker: &str, body: Value| {
        let reply = daemon
            .ask_tcp(Method::POST, "/v1/token", Some(maker), &body.to_string())
            .await;
        (reply.status, reply.json())
    };
    let forbidden = |message: &str| error(403, "Forbidden", "forbidden", message);
    for (body, message) in [
        (
            json!({"account": "a", "scopes": ["imap-proxy", "smtp"]}),
            "scopes[1]: this token may not grant 'smtp'; it may grant api, imap-proxy, metrics",
        ),
        (
            json!({"account": "a", "scopes": ["api"], "mayGrant": ["api"]}),
            "mayGrant[0]: this token may not grant 'api'; it may grant imap-proxy, metrics",
        ),
        (
            json!({"account": "a", "scopes": ["api"], "restrictions": {"addresses": ["0.0.0.0/0"]}}),
            "restrictions.addresses: must be within those of the token that asks",
        ),
        (
            json!({"account": "a", "scopes": ["api"], "expires": "2099-01-01T00:00:00.001Z"}),
            "expires: must not be after 2099-01-01T00:00:00.000Z, when the token that asks ends",
        ),
    ] {
        assert_eq!(make(maker, body).await, forbidden(message));
    }

    let (status, child) = make(
        maker,
        json!({"account": "a", "scopes": ["api"], "mayGrant": ["imap-proxy"]}),
    )
    .await;
    assert_eq!(status, 200, "{child}");
    let body = json!({"account": "a", "scopes": ["imap-proxy"], "metadata": 1, "form": "short"});
    let (status, grandchild) = make(child["token"].as_str().unwrap(), body).await;
    assert_eq!(status, 200, "{grandchild}");
    let path = format!("/v1/tokens/{}", grandchild["id"].as_str().unwrap());
    let shown = daemon.done(Method::GET, &path, None).await;
    assert_eq!(
        (&shown["parent"], &shown["expires"], &shown["restrictions"]),
        (
            &child["id"],
            &json!("2099-01-01T00:00:00.000Z"),
            &json!({"addresses": ["127.0.0.0/8"]})
        )
    );

    daemon
        .done(Method::DELETE, &format!("/v1/token/{maker_id}"), None)
        .await;
    let ended = daemon.world.ended_tokens.lock().unwrap().clone();
    let gone = [
        maker_id,
        child["id"].as_str().unwrap(),
        grandchild["id"].as_str().unwrap(),
    ];
    assert_eq!(ended, gone.map(|id| ("a".to_owned(), id.parse().unwrap())));
    assert_eq!(daemon.done(Method::GET, "/v1/tokens", None).await["total"], 0);
}

#[tokio::test]
async fn a_token_that_was_made_by_a_token_is_refused_with_its_maker() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    let maker = json!({"account": "a", "scopes": ["api"], "expires": "2099-01-01T00:00:00Z"});
    let maker = daemon.done(Method::POST, "/v1/token", Some(maker)).await;
    let body = json!({"account": "a", "scopes": ["api"]}).to_string();
    let child = daemon
        .ask_tcp(Method::POST, "/v1/token", maker["token"].as_str(), &body)
        .await
        .json();
    let ask = async || {
        let reply = daemon
            .ask_tcp(Method::GET, "/v1/account/a", child["token"].as_str(), "")
            .await;
        (reply.status, reply.json()["message"].clone())
    };
    assert_eq!(ask().await.0, 200);
    // As if the maker's end had been brought forward, and the record of the other not.
    daemon.world.tokens.lock().unwrap()[0].expires = Some(Timestamp::EPOCH);
    assert_eq!(ask().await, (401, json!("the token has expired")));
    daemon.world.tokens.lock().unwrap().remove(0);
    assert_eq!(ask().await, (401, json!("unknown token")));
}

#[tokio::test]
async fn a_refused_token_names_the_field() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    let refused = |message: &str| error(400, "Bad Request", "invalid_request", message);
    for (body, expected) in [
        (
            json!({"account": "b", "scopes": ["api"]}),
            error(404, "Not Found", "account_not_found", "no such account 'b'"),
        ),
        (
            json!({"account": "e\u{1b}".to_owned() + &"x".repeat(300), "scopes": ["api"]}),
            error(
                404,
                "Not Found",
                "account_not_found",
                &format!("no such account 'e\\u{{1b}}{}…'", "x".repeat(254)),
            ),
        ),
        (
            json!({"account": "ab".repeat(32), "scopes": ["api"]}),
            error(404, "Not Found", "account_not_found", "no such account 'abababab…'"),
        ),
        (
            json!({"account": "a", "scopes": ["api"], "expires": "2020-01-01T00:00:00Z"}),
            refused(
                "expires: 2020-01-01T00:00:00.000Z is past; give a time to come, or none for a token without an end",
            ),
        ),
        (
            json!({"account": "a", "scopes": ["imap-proxy", "pop3"]}),
            refused(
                "scopes[1]: the provider 'example' has no POP3 for this mailbox; leave 'pop3' out, or give the account a \
                 server of its own: portreeve account update a --pop3 HOST:PORT",
            ),
        ),
        (
            json!({"account": "a", "scopes": ["imap-proxy"], "mayGrant": ["imap-proxy"]}),
            refused("mayGrant: is for tokens with the scope api, which make others"),
        ),
        (
            json!({"account": "a", "scopes": ["api"], "mayGrant": ["imap-proxy", "*"]}),
            refused("mayGrant[1]: '*' is for root tokens, which have no account"),
        ),
        (
            json!({"account": "a", "scopes": ["api"], "mayGrant": ["imap"]}),
            refused("mayGrant[0]: unknown scope 'imap'; allowed are imap-proxy, smtp, pop3, api and metrics"),
        ),
        (
            json!({"mayGrant": ["api"]}),
            refused("mayGrant: a root token may give everything"),
        ),
        (
            json!({"account": "a"}),
            refused("scopes: give 1 to 16 of: imap-proxy, smtp, pop3, api, metrics"),
        ),
        (
            json!({"account": "a", "scopes": ["api", "*"]}),
            refused("scopes[1]: '*' is for root tokens, which have no account"),
        ),
        (
            json!({"scopes": ["api"]}),
            refused("scopes: a token without an account is a root token, whose scopes are [\"*\"]"),
        ),
        (
            json!({"account": "a", "scopes": ["api"], "restrictions": {"addresses": ["10.0.0.0/33"]}}),
            refused("restrictions.addresses[0]: '10.0.0.0/33' is neither an address nor a range such as 192.0.2.0/24"),
        ),
        (
            json!({"account": "a", "scopes": ["api"], "metadata": "x".repeat(16 * 1024)}),
            refused("metadata: may have at most 16384 bytes"),
        ),
    ] {
        assert_eq!(daemon.ask(Method::POST, "/v1/token", Some(body)).await, expected);
    }
}

#[tokio::test]
async fn usage_is_filtered_and_told_for_one_token() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    let (_, id) = daemon.add_token("a", &["imap-proxy"]).await;
    let noon = Timestamp::parse("2026-01-01T12:00:00Z").unwrap();
    let mut event = login("a", noon);
    event.token = Some(id.parse().unwrap());
    daemon.world.events.lock().unwrap().extend([login("gone", noon), event]);

    let expected = json!({
        "time": "2026-01-01T12:00:00.000Z", "kind": "login", "protocol": "imap", "account": "a", "token": id,
        "remoteAddress": "127.0.0.1",
    });
    for path in [
        format!("/v1/tokens/{id}/log"),
        format!("/v1/usage?token={id}"),
        "/v1/usage?account=a&outcome=login&since=2026-01-01T12:00:00Z".to_owned(),
    ] {
        assert_eq!(
            daemon.done(Method::GET, &path, None).await,
            json!({"total": 1, "page": 0, "pages": 1, "pageSize": 20, "events": [expected.clone()]}),
            "{path}"
        );
    }
    for (path, total) in [
        ("/v1/usage", 2),
        ("/v1/usage?account=gone", 1),
        ("/v1/usage?outcome=denied", 0),
        ("/v1/usage?until=2026-01-01T12:00:00Z", 0),
    ] {
        assert_eq!(daemon.done(Method::GET, path, None).await["total"], total, "{path}");
    }
    for (path, message) in [
        (
            "/v1/usage?outcome=ok",
            "outcome: 'ok' is not one of: login, denied, end, state",
        ),
        (
            "/v1/usage?since=now",
            "since: 'now' is not an RFC 3339 time such as 2026-01-31T12:00:00Z",
        ),
        ("/v1/usage?token=x", "token: expected 64 lower-case hex digits"),
    ] {
        assert_eq!(
            daemon.ask(Method::GET, path, None).await,
            error(400, "Bad Request", "invalid_request", message)
        );
    }
}

#[tokio::test]
async fn live_sessions_are_listed_and_ended() {
    let daemon = Daemon::start().await;
    daemon.world.sessions.lock().unwrap().push(session(5, "a"));
    assert_eq!(
        daemon.done(Method::GET, "/v1/sessions", None).await,
        json!({"total": 1, "page": 0, "pages": 1, "pageSize": 20, "sessions": [{
            "id": "5", "protocol": "imap", "account": "a", "token": "07".repeat(32),
            "remoteAddress": "127.0.0.1:50000", "localAddress": "127.0.0.1:2993", "upstreamAddress": null,
            "client": "Thunderbird", "phase": "relay", "since": "1970-01-01T00:00:00.000Z",
            "bytesUp": 10, "bytesDown": 20,
        }]})
    );
    let closed = daemon.done(Method::DELETE, "/v1/session/5", None).await;
    assert_eq!(closed, json!({"closed": true}));
    for id in ["5", "x"] {
        assert_eq!(
            daemon.ask(Method::DELETE, &format!("/v1/session/{id}"), None).await,
            error(
                404,
                "Not Found",
                "session_not_found",
                &format!("no such session '{id}'")
            )
        );
    }
}

#[tokio::test]
async fn health_readiness_and_status_tell_how_the_daemon_is() {
    let daemon = Daemon::start().await;
    daemon.add_account("a", None).await;
    daemon.world.accounts.lock().unwrap()[0].0.state = AccountState::Failing;
    assert_eq!(
        daemon.done(Method::GET, "/healthz", None).await,
        json!({"status": "ok"})
    );
    assert_eq!(daemon.done(Method::GET, "/readyz", None).await, json!({"status": "ok"}));

    let mut status = daemon.done(Method::GET, "/v1/status", None).await;
    assert!(status["uptimeSeconds"].take().is_u64());
    let providers = status["providers"].as_array_mut().unwrap();
    assert!(
        providers
            .iter()
            .any(|one| one["name"] == "google" && one["oauth2"] == false)
    );
    providers.retain(|one| ["example", "icloud"].contains(&one["name"].as_str().unwrap()));
    assert_eq!(
        status,
        json!({
            "status": "ok", "version": env!("CARGO_PKG_VERSION"), "hostname": "mail.example.com",
            "started": "2026-01-01T00:00:00.000Z", "uptimeSeconds": null,
            "listeners": [{"protocol": "imap", "address": "127.0.0.1:2993", "tls": "off"}],
            "providers": [
                {
                    "name": "example", "domains": ["example.com"], "oauth2": true, "grant": "code", "protocols": ["imap"],
                    "clientId": "app", "tokenUrl": "https://id.example.com/token",
                },
                {
                    "name": "icloud", "domains": ["icloud.com", "me.com", "mac.com"], "oauth2": false,
                    "protocols": ["imap", "smtp"],
                },
            ],
            "accounts": {
                "total": 1, "new": 0, "active": 0, "needs-authorization": 0, "failing": 1, "disabled": 0,
            },
            "attention": [{"account": "a", "state": "failing"}],
            "tokens": 0, "upstreams": [{
                "protocol": "smtp", "provider": "example", "host": "smtp.example.com", "port": 587, "tls": "starttls",
                "capabilities": ["SIZE 1000", "DSN"], "asked": "1970-01-01T00:00:01.000Z",
            }],
            "sessions": 0,
            "delayed": { "addresses": 0, "accounts": 0 },
        })
    );

    let authority = json!({
        "path": "/state/tls/ca.pem", "fingerprint": "AA:BB", "expires": "2036-01-01T00:00:00.000Z",
        "former": {"fingerprint": "CC:DD", "expires": "2026-03-01T00:00:00.000Z"},
    });
    *daemon.world.authority.lock().unwrap() = Some(serde_json::from_value(authority.clone()).unwrap());
    let status = daemon.done(Method::GET, "/v1/status", None).await;
    assert_eq!(status["certificateAuthority"], authority);

    let web = json!({"address": "0.0.0.0:8443", "tls": true, "publicUrl": "https://mail.example.com"});
    *daemon.world.web.lock().unwrap() = Some(serde_json::from_value(web.clone()).unwrap());
    assert_eq!(daemon.done(Method::GET, "/v1/status", None).await["web"], web);

    *daemon.world.trouble.lock().unwrap() = Some(StoreError::Unwritable("disk full".to_owned()));
    let message = "cannot write to the store: disk full";
    assert_eq!(
        daemon.ask(Method::GET, "/readyz", None).await,
        error(503, "Service Unavailable", "not_ready", message)
    );
    assert_eq!(
        daemon.done(Method::GET, "/healthz", None).await,
        json!({"status": "ok"})
    );
    let status = daemon.done(Method::GET, "/v1/status", None).await;
    assert_eq!(
        (&status["status"], &status["problem"]),
        (&json!("unready"), &json!(message))
    );
    let new = json!({"account": "b", "provider": "example"});
    assert_eq!(
        daemon.ask(Method::POST, "/v1/account", Some(new)).await,
        error(503, "Service Unavailable", "store_unavailable", message)
    );

    daemon.draining.send(true).unwrap();
    assert_eq!(
        daemon.ask(Method::GET, "/readyz", None).await,
        error(503, "Service Unavailable", "not_ready", "stopping")
    );
}

#[tokio::test]
async fn every_refusal_has_the_same_shape() {
    let daemon = Daemon::start().await;
    for path in ["/", "/openapi.json", "/v1/tokens/x/rotate", "/v1/account/x/authorise"] {
        assert_eq!(
            daemon.ask(Method::POST, path, None).await,
            error(404, "Not Found", "route_not_found", "no such route"),
            "{path}"
        );
    }
    let reply = daemon
        .raw(&request(&Method::PATCH, "/v1/account/a", None, None, ""))
        .await;
    assert_eq!(
        (reply.status, reply.json()),
        error(
            405,
            "Method Not Allowed",
            "method_not_allowed",
            "this route does not take PATCH"
        )
    );
    assert!(reply.head.contains("\r\nallow: "), "{}", reply.head);

    let reply = daemon
        .raw(&request(&Method::POST, "/v1/account", None, Some("text/plain"), "{}"))
        .await;
    assert_eq!(
        (reply.status, reply.json()),
        error(
            415,
            "Unsupported Media Type",
            "unsupported_media_type",
            "the body must be JSON, sent with Content-Type: application/json"
        )
    );
    // What curl sends unless it is told otherwise, and what sends nothing.
    for content_type in [Some("application/x-www-form-urlencoded"), None] {
        let reply = daemon
            .raw(&request(&Method::POST, "/v1/account", None, content_type, "{}"))
            .await;
        let message = reply.json()["message"].to_string();
        assert_eq!(reply.status, 400, "{message}");
        assert!(message.contains("missing field `account`"), "{message}");
    }
    let huge = "x".repeat(ADMIN_BODY_BYTES_MAX + 1);
    let json_type = Some("application/json; charset=utf-8");
    let reply = daemon
        .raw(&request(&Method::POST, "/v1/account", None, json_type, &huge))
        .await;
    assert_eq!(
        (reply.status, reply.json()),
        error(
            413,
            "Payload Too Large",
            "body_too_large",
            "the body may have at most 262144 bytes"
        )
    );
    let reply = daemon
        .raw(&request(&Method::POST, "/v1/token", None, json_type, "{\"a\":1}"))
        .await;
    assert_eq!(reply.status, 400);
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("a: unknown field `a`, expected one of `account`"),
        "{message}"
    );
    assert_eq!(
        daemon.ask(Method::GET, "/v1/account/%ff", None).await,
        error(
            400,
            "Bad Request",
            "invalid_request",
            "the id in the path must be percent-encoded UTF-8"
        )
    );
}

#[tokio::test]
async fn tokens_that_are_guessed_over_tcp_use_up_the_client_s_budget() {
    let daemon = Daemon::start().await;
    for number in 0..crate::limits::AUTH_FAILURES_FREE_CLIENT {
        let guess = format!("{number:064x}");
        assert_eq!(
            daemon
                .ask_tcp(Method::GET, "/v1/accounts", Some(&guess), "")
                .await
                .status,
            401
        );
        // To send none is no guess.
        assert_eq!(daemon.ask_tcp(Method::GET, "/v1/accounts", None, "").await.status, 401);
    }
    let delayed = async || daemon.done(Method::GET, "/v1/status", None).await["delayed"]["addresses"].clone();
    assert_eq!(delayed().await, 1);
    let begun = clock::instant();
    assert_eq!(
        daemon
            .ask_tcp(Method::GET, "/v1/accounts", Some("guess"), "")
            .await
            .status,
        401
    );
    assert!(clock::instant().duration_since(begun) >= crate::limits::AUTH_FAILURE_FIRST_DELAY);
}

#[tokio::test]
async fn tcp_always_takes_a_token() {
    let daemon = Daemon::start().await;
    for path in ["/healthz", "/metrics", "/v1/accounts", "/nowhere"] {
        let reply = daemon.ask_tcp(Method::GET, path, None, "").await;
        assert_eq!(
            (reply.status, reply.json()),
            error(
                401,
                "Unauthorized",
                "unauthorized",
                "send a token: Authorization: Bearer <token>"
            ),
            "{path}"
        );
        assert!(
            reply.head.contains("www-authenticate: bearer realm=\"portreeve\""),
            "{}",
            reply.head
        );
    }
    for token in ["x", &"0".repeat(64)] {
        let reply = daemon.ask_tcp(Method::GET, "/v1/accounts", Some(token), "").await;
        assert_eq!(
            (reply.status, reply.json()),
            error(401, "Unauthorized", "invalid_token", "unknown token")
        );
    }
    let reply = daemon.ask_tcp(Method::GET, "/v1/accounts", Some(ROOT_TOKEN), "").await;
    assert_eq!(reply.status, 200);
    let created = daemon.done(Method::POST, "/v1/token", Some(json!({}))).await;
    let root = created["token"].as_str().unwrap();
    assert_eq!(
        daemon.ask_tcp(Method::GET, "/v1/status", Some(root), "").await.status,
        200
    );
    let used = daemon.done(Method::GET, &format!("/v1/tokens/{root}"), None).await;
    assert_eq!(
        (&used["scopes"], &used["access"]["ip"]),
        (&json!(["*"]), &json!("127.0.0.1"))
    );
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_say_and_no_more() {
    let daemon = Daemon::start().await;
    daemon.add_account("own", Some("own@example.com")).await;
    daemon.add_account("foreign", None).await;
    let (api, api_id) = daemon.add_token("own", &["api"]).await;
    let (metrics, _) = daemon.add_token("own", &["metrics"]).await;
    let (mail, _) = daemon.add_token("own", &["imap-proxy"]).await;
    let (_, foreign_id) = daemon.add_token("foreign", &["imap-proxy"]).await;
    daemon
        .world
        .sessions
        .lock()
        .unwrap()
        .extend([session(1, "own"), session(2, "foreign")]);

    let foreign_token = format!("/v1/tokens/{foreign_id}");
    let own_token = format!("/v1/tokens/{api_id}");
    // method, path, body, then the status for the tokens: api of "own", metrics, imap-proxy.
    for (method, path, body, expected) in [
        (Method::GET, "/healthz", "", [200, 200, 200]),
        (Method::GET, "/metrics", "", [403, 200, 403]),
        (Method::GET, "/v1/status", "", [403, 403, 403]),
        (Method::GET, "/v1/accounts", "", [200, 403, 403]),
        (Method::GET, "/v1/account/own", "", [200, 403, 403]),
        (Method::GET, "/v1/account/foreign", "", [403, 403, 403]),
        (Method::GET, "/v1/account/unknown", "", [403, 403, 403]),
        (Method::PUT, "/v1/account/own", r#"{"name":"n"}"#, [200, 403, 403]),
        (Method::PUT, "/v1/account/own", r#"{"password":"p"}"#, [200, 403, 403]),
        (
            Method::PUT,
            "/v1/account/own",
            r#"{"imap":{"host":"evil.example","port":993,"tls":"implicit"}}"#,
            [403, 403, 403],
        ),
        (Method::PUT, "/v1/account/foreign", r#"{"name":"n"}"#, [403, 403, 403]),
        (
            Method::POST,
            "/v1/account",
            r#"{"account":"x","provider":"example"}"#,
            [403, 403, 403],
        ),
        (Method::DELETE, "/v1/account/own", "", [403, 403, 403]),
        (Method::POST, "/v1/account/own/verify", "", [200, 403, 403]),
        (
            Method::POST,
            "/v1/token",
            r#"{"account":"own","scopes":["api"]}"#,
            [200, 403, 403],
        ),
        (
            Method::POST,
            "/v1/token",
            r#"{"account":"foreign","scopes":["api"]}"#,
            [403, 403, 403],
        ),
        (Method::POST, "/v1/token", "{}", [403, 403, 403]),
        (Method::GET, "/v1/tokens", "", [200, 403, 403]),
        (Method::GET, "/v1/tokens?account=own@example.com", "", [200, 403, 403]),
        (Method::GET, "/v1/tokens?account=foreign", "", [403, 403, 403]),
        (Method::GET, "/v1/tokens/account/foreign", "", [403, 403, 403]),
        (Method::GET, own_token.as_str(), "", [200, 403, 403]),
        (Method::GET, foreign_token.as_str(), "", [403, 403, 403]),
        (Method::DELETE, foreign_token.as_str(), "", [403, 403, 403]),
        (Method::GET, "/v1/usage", "", [200, 403, 403]),
        (Method::GET, "/v1/usage?account=foreign", "", [403, 403, 403]),
        (Method::GET, "/v1/sessions", "", [200, 403, 403]),
        (Method::DELETE, "/v1/session/2", "", [403, 403, 403]),
        (Method::DELETE, "/v1/session/1", "", [200, 403, 403]),
    ] {
        for (token, expected) in [&api, &metrics, &mail].into_iter().zip(expected) {
            let reply = daemon.ask_tcp(method.clone(), path, Some(token), body).await;
            assert_eq!(reply.status, expected, "{method} {path}: {}", reply.body);
        }
        // The same token on the Unix socket, from the daemon's own user: its rights, no more.
        if path == "/v1/status" {
            let reply = daemon.raw(&request(&method, path, Some(&api), None, "")).await;
            assert_eq!(reply.status, 403);
        }
    }
    let list = daemon.ask_tcp(Method::GET, "/v1/accounts", Some(&api), "").await.json();
    assert_eq!(
        (&list["total"], &list["accounts"][0]["account"]),
        (&json!(1), &json!("own"))
    );
}

#[tokio::test]
async fn expired_and_restricted_tokens_are_refused() {
    let daemon = Daemon::start().await;
    let root = async |extra: Value| {
        let created = daemon.done(Method::POST, "/v1/token", Some(extra)).await;
        created["token"].as_str().unwrap().to_owned()
    };
    let expired = root(json!({"expires": "2099-01-01T00:00:00Z"})).await;
    daemon.world.tokens.lock().unwrap()[0].expires = Some(Timestamp::EPOCH);
    let elsewhere = root(json!({"restrictions": {"addresses": ["192.0.2.0/24"]}})).await;
    let here = root(json!({"restrictions": {"addresses": ["192.0.2.0/24", "127.0.0.1"]}})).await;
    for (token, expected) in [
        (
            &expired,
            error(401, "Unauthorized", "invalid_token", "the token has expired"),
        ),
        (
            &elsewhere,
            error(
                403,
                "Forbidden",
                "forbidden",
                "this token is not accepted from this address",
            ),
        ),
    ] {
        let reply = daemon.ask_tcp(Method::GET, "/v1/accounts", Some(token), "").await;
        assert_eq!((reply.status, reply.json()), expected);
    }
    assert_eq!(
        daemon
            .ask_tcp(Method::GET, "/v1/accounts", Some(&here), "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn the_metrics_port_serves_the_metrics_and_nothing_else() {
    let daemon = Daemon::start().await;
    let get = async |path: &str| {
        let stream = TcpStream::connect(daemon.metrics).await.unwrap();
        exchange(stream, &request(&Method::GET, path, None, None, "")).await
    };
    let reply = get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.head.contains("content-type: text/plain; version=0.0.4"),
        "{}",
        reply.head
    );
    assert!(reply.body.contains("portreeve_build_info{version="), "{}", reply.body);
    for path in ["/v1/accounts", "/healthz"] {
        assert_eq!(get(path).await.status, 404, "{path}");
    }
    let over_socket = daemon.raw(&request(&Method::GET, "/metrics", None, None, "")).await;
    assert_eq!(over_socket.status, 200);
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_removes_the_socket() {
    let daemon = Daemon::start().await;
    let socket = daemon.socket.clone();
    let mut idle = UnixStream::connect(&socket).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    daemon.stop().await;
    assert!(!socket.exists());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(UnixStream::connect(&socket).await.is_err());
}

#[tokio::test]
async fn one_address_cannot_take_all_connections_over_tcp_and_the_unix_socket_has_no_shares() {
    let daemon = Daemon::start().await;
    let probe = request(&Method::GET, "/healthz", Some(ROOT_TOKEN), None, "");
    let connect = async |from: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(daemon.tcp).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..ADMIN_CONNECTIONS_PER_IP_MAX {
        held.push(connect("127.0.0.1").await);
    }
    assert_eq!(exchange(connect("127.0.0.1").await, &probe).await.status, 0);
    assert_eq!(exchange(connect("127.0.0.2").await, &probe).await.status, 200);
    // The place is free as soon as the daemon has seen the connection end.
    drop(held.pop());
    while exchange(connect("127.0.0.1").await, &probe).await.status != 200 {
        tokio::task::yield_now().await;
    }
    let mut local = Vec::new();
    for _ in 1..ADMIN_CONNECTIONS_MAX {
        local.push(UnixStream::connect(&daemon.socket).await.unwrap());
    }
    assert_eq!(daemon.raw(&probe).await.status, 200);
}
