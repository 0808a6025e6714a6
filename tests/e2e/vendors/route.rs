//! Which way token requests go: through the proxy that `HTTPS_PROXY` names, unless `NO_PROXY` names their host. That the proxy
//! is taken at all is shown by every other test of the vendors.

use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;

use crate::support::PATIENCE;
use crate::support::portreeve::{Portreeve, Setup};
use crate::support::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_no_proxy_names_is_asked_past_the_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let mut portreeve = Portreeve::prepare(&Setup::default().with(&(table("near") + &table("far"))));
    let https_proxy = format!("HTTPS_PROXY=http://{}", proxy.local_addr().expect("it is bound"));
    portreeve.spawn_under(&[
        "env",
        "-u",
        "no_proxy",
        "-u",
        "https_proxy",
        "NO_PROXY=.near.test,other.test",
        &https_proxy,
    ]);
    portreeve.until_ready().await;

    // No resolver knows a name below `test` (RFC 6761 §6.2): past the proxy there is nothing.
    assert!(refused(&portreeve, "near").await.starts_with("NO [UNAVAILABLE]"));
    let error = portreeve.read("/v1/account/near").await;
    assert_eq!(error["lastError"]["code"], "connect", "{error}");
    let nobody = tokio::time::timeout(Duration::ZERO, proxy.accept()).await;
    assert!(nobody.is_err(), "the proxy was asked for near");

    let asked = async {
        let (stream, _) = proxy.accept().await.expect("a connection can be accepted");
        let mut wire = Wire::accepted(stream);
        let line = wire.line().await;
        wire.send(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
        line
    };
    let asked = tokio::time::timeout(PATIENCE, asked);
    let (asked, reply) = tokio::join!(asked, refused(&portreeve, "far"));
    assert_eq!(asked.expect("the proxy is asked"), "CONNECT id.far.test:443 HTTP/1.1");
    assert!(reply.starts_with("NO [UNAVAILABLE]"), "{reply}");
    let error = portreeve.read("/v1/account/far").await;
    let remedy = error["lastError"]["remedy"].as_str().unwrap_or_default();
    assert!(remedy.contains("NO_PROXY"), "{error}");
}

fn table(name: &str) -> String {
    format!(
        "[provider.{name}]\nclient_id = \"app\"\ntoken_url = \"https://id.{name}.test/token\"\n\
         imap = {{ host = \"localhost\", port = 993, tls = \"implicit\" }}\n"
    )
}

/// Logs in at an account of this provider, which needs a refresh first; the answer.
async fn refused(portreeve: &Portreeve, name: &str) -> String {
    let body = json!({ "account": name, "provider": name, "user": name, "oauth2": { "refreshToken": "r" } });
    portreeve.post("/v1/account", &body).await;
    let token = portreeve.add_token(name).await;
    portreeve.connect().await.login(name, &token).await.tagged
}
