//! The admin API's client, for the command line: one request, one connection.
//!
//! It speaks plain HTTP/1.1 on the Unix socket, or over TCP for an `http://` address, and knows nothing of TLS or proxies.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::error::ErrorBody;
use crate::limits::{ADMIN_ANSWER_BYTES_MAX, ADMIN_REQUEST_TIMEOUT};
use crate::secret::{ExposeSecret, SecretString};

/// Where the daemon is, and what to show it.
#[derive(Debug)]
pub struct Client {
    target: Target,
    token: Option<SecretString>,
}

/// Where an admin API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// On this Unix socket.
    Socket(PathBuf),
    /// At this `host:port`.
    Tcp(String),
}

/// An answer: the JSON as it came, and what it says.
#[derive(Debug)]
pub struct Answer<T> {
    /// The JSON as it came.
    pub raw: String,
    /// What it says.
    pub value: T,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon cannot be reached.
    #[error("cannot reach the daemon at {place}: {error}\n{}", advice(error))]
    Unreachable {
        /// The socket or address.
        place: String,
        /// What the system said.
        error: io::Error,
    },
    /// The daemon refused.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    /// What came is no answer of this API.
    #[error("the daemon's answer cannot be understood: {0}")]
    Malformed(String),
}

impl Client {
    /// A client of the API at `target`, which presents `token` if it is given.
    pub fn new(target: Target, token: Option<SecretString>) -> Self {
        Self { target, token }
    }

    /// Asks for `path` with the given query parameters.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Answer<T>, ClientError> {
        self.call(Method::GET, &with_query(path, query), None).await
    }

    /// Posts `body` to `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<Answer<T>, ClientError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Puts `body` to `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn change<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<Answer<T>, ClientError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Deletes what is at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ClientError> {
        self.call(Method::DELETE, path, None).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer<T>, ClientError> {
        let request = self.request(method, path, body)?;
        let exchange = async {
            match &self.target {
                Target::Socket(path) => exchange(UnixStream::connect(path).await?, request).await,
                Target::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
            }
        };
        let unreachable = |error| ClientError::Unreachable {
            place: self.target.to_string(),
            error,
        };
        let (status, bytes) = timeout(ADMIN_REQUEST_TIMEOUT + MARGIN, exchange)
            .await
            .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        read_answer(status, &bytes)
    }

    fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Request<Body>, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.host());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        request
            .body(body)
            .map_err(|error| ClientError::Malformed(error.to_string()))
    }

    fn host(&self) -> &str {
        match &self.target {
            Target::Socket(_) => "localhost",
            Target::Tcp(address) => address,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// `id` as one segment of a path.
pub fn segment(id: &str) -> String {
    utf8_percent_encode(id, ENCODED).to_string()
}

fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let pairs: Vec<String> = query
        .iter()
        .map(|(name, value)| format!("{name}={}", segment(value)))
        .collect();
    if pairs.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", pairs.join("&"))
    }
}

async fn exchange<S>(stream: S, request: Request<Body>) -> io::Result<(StatusCode, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let bytes = to_bytes(Body::new(response.into_body()), ADMIN_ANSWER_BYTES_MAX)
            .await
            .map_err(io::Error::other)?;
        Ok((status, bytes.to_vec()))
    };
    // The connection moves the bytes; its own error shows in the answer, which is what the caller waits for.
    let (_, answer) = tokio::join!(connection, answer);
    answer
}

fn read_answer<T: DeserializeOwned>(status: StatusCode, bytes: &[u8]) -> Result<Answer<T>, ClientError> {
    let malformed = |error: serde_json::Error| ClientError::Malformed(format!("{error} (status {status})"));
    if !status.is_success() {
        return Err(match serde_json::from_slice(bytes) {
            Ok(body) => ClientError::Refused(body),
            Err(error) => malformed(error),
        });
    }
    Ok(Answer {
        raw: String::from_utf8_lossy(bytes).into_owned(),
        value: serde_json::from_slice(bytes).map_err(malformed)?,
    })
}

/// What somebody can do who does not reach the daemon.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "Run this as the daemon's user or as root.",
        io::ErrorKind::TimedOut => "The daemon accepts connections but does not answer; see its log.",
        _ => "Start it with `portreeve serve`, or name its socket with --socket or PORTREEVE_SOCKET.",
    }
}

/// Everything but RFC 3986 §2.3's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How much longer than the daemon's own limit an answer is waited for.
const MARGIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_values_survive_the_way_through_a_path() {
        assert_eq!(
            segment("user+x@example.com/ä ?"),
            "user%2Bx%40example.com%2F%C3%A4%20%3F"
        );
        assert_eq!(with_query("/v1/usage", &[]), "/v1/usage");
        assert_eq!(
            with_query("/v1/usage", &[("account", "a&b".to_owned()), ("page", "0".to_owned())]),
            "/v1/usage?account=a%26b&page=0"
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let client = Client::new(Target::Socket(path.clone()), None);
        let error = client.read::<Value>("/v1/status", &[]).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains("portreeve serve"), "{text}");
    }
}
