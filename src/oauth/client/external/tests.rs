//! Programs and URLs that give tokens.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::get;
use tokio::sync::mpsc;

use super::*;
use crate::config::{Endpoint, External, GrantType, OAuthApp, UpstreamTls, test_support};
use crate::oauth::client::test_support::{TIMEOUT, client, serve};
use crate::oauth::{TokenErrorKind, TokenSource};
use crate::secret::ExposeSecret;

const PASSING: TokenErrorKind = TokenErrorKind::Temporary { retry_after: None };

fn provider(external: External) -> Provider {
    let app = OAuthApp {
        grant: GrantType::External(external),
        client_id: String::new(),
        ..test_support::app()
    };
    test_support::provider("example", Some(app))
}

fn command(words: &[&str]) -> Provider {
    provider(External::Command(words.iter().map(ToString::to_string).collect()))
}

fn basis(account: &str) -> Basis {
    Basis {
        account: account.to_owned(),
        user: "ada@example.com".to_owned(),
        refresh_token: None,
        password: None,
        access_token: None,
        granted: None,
        names_no_scopes: false,
    }
}

async fn obtain(provider: &Provider, account: &str) -> Result<TokenAnswer, TokenError> {
    client().obtain(provider, &basis(account), TIMEOUT).await
}

/// What comes of a shell's script, which is a program like any other here.
async fn run(script: &str) -> Result<TokenAnswer, TokenError> {
    obtain(&command(&["/bin/sh", "-c", script]), "ada").await
}

#[tokio::test]
async fn a_command_prints_the_token() {
    let answer = run("echo ya29.token").await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "ya29.token");
    let answer = run(r#"echo '{"user":"shared@example.com","accessToken":"t","expires":"2999-01-01T00:00:00Z"}'"#)
        .await
        .unwrap();
    assert_eq!(answer.user.as_deref(), Some("shared@example.com"));
    // Nothing waits for an input that never comes, and complaints of a program that succeeds are its own affair.
    let answer = run("cat; echo warning >&2; echo t").await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "t");
}

#[tokio::test]
async fn a_command_has_its_own_environment_and_what_its_table_names() {
    let script = r#"printf '{"user":"%s","accessToken":"%s"}' "${CARGO_MANIFEST_DIR:-clean}" "$TOKEN""#;
    let mut provider = command(&["/bin/sh", "-c", script]);
    let app = provider.oauth.as_mut().unwrap();
    app.env = [("TOKEN".to_owned(), "t0ken".into())].into_iter().collect();
    let answer = obtain(&provider, "ada").await.unwrap();
    assert_eq!(answer.user.as_deref(), Some("clean"));
    assert_eq!(answer.access_token.expose_secret(), "t0ken");
}

#[tokio::test]
async fn the_accounts_id_reaches_the_command_as_it_is_and_meets_no_shell() {
    let script = r#"printf '{"user":"%s","accessToken":"t"}' "$1""#;
    let provider = command(&["/bin/sh", "-c", script, "sh", "<{account}>"]);
    let account = "a b; $(touch x) 'ö' {account}*";
    let answer = obtain(&provider, account).await.unwrap();
    assert_eq!(answer.user, Some(format!("<{account}>")));
}

#[tokio::test]
async fn an_account_cannot_make_an_option_of_its_id() {
    let printing = command(&["/bin/echo", "{account}"]);
    assert_eq!(
        obtain(&printing, "token").await.unwrap().access_token.expose_secret(),
        "token"
    );
    let error = obtain(&printing, "--help").await.unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str()),
        (TokenErrorKind::App, "token_command")
    );
    let meant = command(&["/bin/echo", "--account={account}"]);
    let answer = obtain(&meant, "--help").await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "--account=--help");
}

#[tokio::test]
async fn a_command_that_fails_is_quoted_without_its_secrets() {
    let token = format!("ya29.{}", "x".repeat(60));
    let script = format!("echo output-secret; printf 'no grant\\033[2J for %s\\n' {token} >&2; exit 3");
    let error = run(&script).await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (PASSING, "token_command"));
    assert_eq!(
        error.message,
        "the token command ended with exit status: 3: no grant [2J for [REDACTED]"
    );
    let error = run("exit 1").await.unwrap_err();
    assert!(error.message.ends_with("exit status: 1, without a word"), "{error}");
    let error = run("kill -9 $$").await.unwrap_err();
    assert!(error.message.contains("signal: 9"), "{error}");
}

#[tokio::test]
async fn what_a_command_says_beyond_any_token_is_not_kept() {
    let error = run("head -c 1000000 /dev/zero | tr '\\0' a").await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (TokenErrorKind::App, "bad_answer"));
    assert!(error.message.contains("too long"), "{error}");
    let error = run("head -c 1000000 /dev/zero >&2; exit 1").await.unwrap_err();
    assert_eq!(error.code, "token_command");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_the_configurations_trouble() {
    for program in ["/nonexistent/helper", "/etc/passwd"] {
        let error = obtain(&command(&[program]), "ada").await.unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (TokenErrorKind::App, "token_command")
        );
        assert!(error.message.contains("cannot be started"), "{error}");
    }
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_passing_trouble() {
    let provider = command(&["/bin/sleep", "60"]);
    let error = client()
        .obtain(&provider, &basis("ada"), Duration::from_millis(50))
        .await;
    let error = error.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (PASSING, "timeout"));
}

#[tokio::test]
async fn what_a_command_leaves_running_does_not_hold_its_answer_up() {
    // The sleeper has the output open for twice as long as there is time.
    let answer = run("sleep 20 & echo t").await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "t");
}

#[tokio::test]
async fn a_command_that_is_given_up_is_killed_with_all_that_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    // A process of the command's own has the pipe open until it dies.
    let script = r#"(echo begun; exec sleep 60) > "$0" & wait"#;
    let provider = command(&["/bin/sh", "-c", script, pipe.to_str().unwrap()]);
    let asking = tokio::spawn(async move { obtain(&provider, "ada").await });
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let reading = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead, BufReader, Read};
        let mut pipe = BufReader::new(std::fs::File::open(pipe).unwrap());
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        begun.send(line).unwrap();
        // Ends when nobody has the pipe open for writing any more.
        pipe.read_to_end(&mut Vec::new()).unwrap()
    });
    assert_eq!(has_begun.await.unwrap(), "begun\n");
    asking.abort();
    let rest = tokio::time::timeout(TIMEOUT, reading)
        .await
        .expect("the sleeper lives on");
    assert_eq!(rest.unwrap(), 0);
}

/// What comes of a URL that answers so, and the question that it got.
async fn ask(status: StatusCode, body: &'static str) -> (Result<TokenAnswer, TokenError>, Uri) {
    let (seen, mut questions) = mpsc::unbounded_channel();
    let answer = async move |State(seen): State<mpsc::UnboundedSender<Uri>>, headers: HeaderMap, uri: Uri| {
        assert_eq!(headers["accept"], "application/json");
        seen.send(uri).unwrap();
        (status, body)
    };
    let base = serve(Router::new().route("/token", get(answer)).with_state(seen)).await;
    let mut provider = provider(External::Url(base.join("token?key=k%26").unwrap()));
    let endpoint = |host: &str| Endpoint {
        host: host.to_owned(),
        port: 465,
        tls: UpstreamTls::Implicit,
    };
    provider.smtp = Some(endpoint("smtp.example.com"));
    provider.pop3 = Some(endpoint("pop.example.com"));
    let answer = obtain(&provider, "ada & bob").await;
    (answer, questions.recv().await.unwrap())
}

#[tokio::test]
async fn a_url_is_asked_for_the_account_and_the_first_protocol() {
    let body = r#"{"user":"shared@example.com","accessToken":"t","expires":"2999-01-01T00:00:00Z"}"#;
    let (answer, question) = ask(StatusCode::OK, body).await;
    let answer = answer.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "t");
    assert_eq!(answer.user.as_deref(), Some("shared@example.com"));
    assert_eq!(question, "/token?key=k%26&account=ada+%26+bob&proto=smtp");
}

#[tokio::test]
async fn what_a_url_refuses_is_somebodys_or_passes() {
    let cases = [
        (StatusCode::NOT_FOUND, TokenErrorKind::Grant, "http_404"),
        (StatusCode::UNAUTHORIZED, TokenErrorKind::App, "http_401"),
        (StatusCode::SERVICE_UNAVAILABLE, PASSING, "http_503"),
        (StatusCode::OK, TokenErrorKind::App, "bad_answer"),
    ];
    for (status, kind, code) in cases {
        let (answer, _) = ask(status, "<html>").await;
        let error = answer.unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (kind, code));
    }
}

#[tokio::test]
async fn a_url_in_clear_is_of_this_machine_whatever_the_provider_allows() {
    let mut provider = provider(External::Url("http://tokens.example.com/".parse().unwrap()));
    provider.oauth.as_mut().unwrap().allow_insecure = true;
    let error = obtain(&provider, "ada").await.unwrap_err();
    assert_eq!((error.kind, error.code.as_str()), (TokenErrorKind::App, "insecure_url"));
}
