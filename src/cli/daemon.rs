//! The way to the daemon, for the commands that talk to it.

use super::output::wait;
use super::{Failure, Globals};
use crate::admin::client::{Answer, Client, ClientError, Target};

/// A client of the daemon that `globals` name. `PORTREEVE_TOKEN` is presented where it is set: on the socket of another
/// user's daemon, and for a `--socket http://HOST:PORT`, which is an `admin.listen` of the configuration.
pub(super) fn client(globals: &Globals) -> Client {
    let socket = globals.socket();
    let address = socket.to_str().and_then(|text| text.strip_prefix("http://"));
    let target = match address {
        Some(address) => Target::Tcp(address.trim_end_matches('/').to_owned()),
        None => Target::Socket(socket),
    };
    let token = std::env::var("PORTREEVE_TOKEN").ok().filter(|token| !token.is_empty());
    Client::new(target, token.map(Into::into))
}

/// Waits for an answer of the daemon.
///
/// # Errors
/// As the client's error maps to exit codes.
pub(super) async fn answer<T>(
    request: impl Future<Output = Result<Answer<T>, ClientError>>,
) -> Result<Answer<T>, Failure> {
    wait("waiting for the daemon", request).await.map_err(Failure::from)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self::unreachable(message),
            ClientError::Refused(_) | ClientError::Malformed(_) => Self::failed(message),
        }
    }
}
