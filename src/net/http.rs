//! The one HTTP client. Nothing else in the crate names `reqwest`.
//!
//! It asks once and believes little: redirects are not followed (an endpoint that redirects would be handed a secret
//! elsewhere), nothing is sent twice (a refresh token that rotates may be used once), and an answer is read up to a limit.
//! A request over the network goes through the proxy that `HTTPS_PROXY` and `NO_PROXY` name; one to a loopback host never
//! does.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Request;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::RETRY_AFTER;
use zeroize::Zeroizing;

use super::resolve::resolve;
use super::tls::{SystemRoots, TlsSetupError};

/// Sends requests. Cheap to clone; clones share their set-up.
#[derive(Debug, Clone)]
pub struct Http {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    system: SystemRoots,
    clients: Mutex<HashMap<Destination, reqwest::Client>>,
}

/// Whom a request goes to, as far as that decides how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Trust anchors beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Which way.
    pub route: Route,
}

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// To this machine, past any proxy.
    Loopback,
    /// As the environment says.
    System,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` field, if there was one in ASCII.
    pub retry_after: Option<String>,
    /// The body up to one byte more than was wanted, by which it can be told that it is too long.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why nothing came back. The text is for an operator and holds no URL, for some put secrets in them.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The answer was not there in time.
    #[error("no answer within {}", crate::span::Span(*.0))]
    TimedOut(Duration),
    /// There is no connection.
    #[error("{0}")]
    Connect(String),
    /// The proxy on the way wants a login first (RFC 9110 §15.5.8).
    #[error("{0}")]
    ProxyLogin(String),
    /// The proxy on the way makes no tunnel to there.
    #[error("{0}")]
    ProxyRefused(String),
    /// The connection broke, or what was said on it is not HTTP.
    #[error("{0}")]
    Broken(String),
    /// The trust anchors cannot be used.
    #[error(transparent)]
    Trust(#[from] TlsSetupError),
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl Http {
    /// A client that trusts `system`, and has connected to nothing yet.
    pub fn new(system: SystemRoots) -> Self {
        Self {
            shared: Arc::new(Shared {
                system,
                clients: Mutex::default(),
            }),
        }
    }

    /// Sends `request` and reads up to `body_max` bytes of its answer, all within `timeout`. Dropping the future may leave
    /// the request carried out.
    ///
    /// # Errors
    /// [`HttpError`]; any status is a [`Reply`].
    pub async fn send(
        &self,
        request: Request<Vec<u8>>,
        destination: &Destination,
        body_max: usize,
        timeout: Duration,
    ) -> Result<Reply, HttpError> {
        let client = self.client(destination).await?;
        if timeout.is_zero() {
            return Err(HttpError::TimedOut(timeout));
        }
        let failed = |error| failed(error, timeout);
        let mut request = reqwest::Request::try_from(request).map_err(failed)?;
        *request.timeout_mut() = Some(timeout);
        let mut response = client.execute(request).await.map_err(failed)?;
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let mut reply = Reply {
            status: response.status().as_u16(),
            retry_after: retry_after.map(str::to_owned),
            body: Zeroizing::default(),
        };
        // What lies beyond the limit is never read; one byte more than the limit marks the body as too long.
        while reply.body.len() <= body_max {
            let Some(chunk) = response.chunk().await.map_err(failed)? else {
                break;
            };
            let room = (body_max + 1).saturating_sub(reply.body.len());
            reply.body.extend(chunk.iter().take(room));
        }
        Ok(reply)
    }

    /// Reads trust anchors again at the next request.
    pub fn reload(&self) {
        self.clients().clear();
    }

    /// The client for a destination, made on first use.
    async fn client(&self, destination: &Destination) -> Result<reqwest::Client, HttpError> {
        if let Some(client) = self.clients().get(destination) {
            return Ok(client.clone());
        }
        let (system, wanted) = (self.shared.system.clone(), destination.clone());
        let client = tokio::task::spawn_blocking(move || build(&system, &wanted))
            .await
            .map_err(|error| HttpError::Internal(error.to_string()))??;
        self.clients().insert(destination.clone(), client.clone());
        Ok(client)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<Destination, reqwest::Client>> {
        // Nothing under this lock can leave the map half-changed.
        self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn build(system: &SystemRoots, destination: &Destination) -> Result<reqwest::Client, HttpError> {
    let tls = system.client_config(destination.ca_file.as_deref())?;
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .dns_resolver(Arc::new(Resolver))
        .user_agent(concat!("portreeve/", env!("CARGO_PKG_VERSION")))
        // A connection for each request: one kept may have been closed meanwhile, and then nobody could tell whether a
        // rotation had been carried out. An account asks about once an hour.
        .pool_max_idle_per_host(0);
    let builder = match destination.route {
        Route::Loopback => builder.no_proxy(),
        Route::System => builder,
    };
    builder.build().map_err(|error| HttpError::Internal(causes(&error)))
}

/// Names are looked up as everywhere else.
struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // The port is that of the URL.
            let addresses: Addrs = Box::new(resolve(name.as_str(), 0).await?.into_iter());
            Ok(addresses)
        })
    }
}

fn failed(error: reqwest::Error, timeout: Duration) -> HttpError {
    let error = error.without_url();
    match () {
        () if error.is_timeout() => HttpError::TimedOut(timeout),
        () if error.is_connect() => not_connected(causes(&error)),
        () => HttpError::Broken(causes(&error)),
    }
}

/// Why there is no connection. What a proxy answered to CONNECT is told in no other way than in the words of `hyper-util`,
/// whose type for it is its own.
fn not_connected(causes: String) -> HttpError {
    match () {
        () if causes.contains("proxy authorization required") => HttpError::ProxyLogin(causes),
        () if causes.contains("tunnel error: unsuccessful") => HttpError::ProxyRefused(causes),
        () => HttpError::Connect(causes),
    }
}

/// An error with its causes, for the outermost of `reqwest`'s never tells what happened.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Why a request to a host beyond a proxy fails that answers CONNECT so.
    async fn failed_through_a_proxy(answer: &'static str) -> HttpError {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"CONNECT id.example.com:443 "));
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(SystemRoots::none().client_config(None).unwrap())
            .proxy(reqwest::Proxy::all(proxy).unwrap())
            .build()
            .unwrap();
        let sent = client.post("https://id.example.com/token").send().await;
        failed(sent.unwrap_err(), Duration::from_secs(10))
    }

    #[tokio::test]
    async fn a_proxy_that_makes_no_tunnel_is_told_from_a_host_that_is_not_there() {
        let wants_login =
            "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n";
        let error = failed_through_a_proxy(wants_login).await;
        assert!(matches!(error, HttpError::ProxyLogin(_)), "{error:?}");
        let error = failed_through_a_proxy("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(error, HttpError::ProxyRefused(_)), "{error:?}");
    }
}
