//! Access tokens that somebody else's program keeps: a command that prints them, or a URL that answers with them.

use http::{Method, Request, header};
use url::Url;

use super::Exchange;
use super::command::{self, CommandError};
use crate::clock;
use crate::config::{Provider, Variables};
use crate::limits::TOKEN_ANSWER_BYTES_MAX;
use crate::oauth::answer::TokenAnswer;
use crate::oauth::text::clean_complaint;
use crate::oauth::{Basis, TokenError, external, is_url_allowed};
use crate::secret::ExposeSecret;

impl Exchange<'_> {
    /// Runs a command, in whose arguments `{account}` stands for the account's id, with `env` in its environment.
    pub(super) async fn by_command(
        &self,
        command: &[String],
        env: &Variables,
        basis: &Basis,
    ) -> Result<TokenAnswer, TokenError> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(TokenError::app("token_command", "there is no token_command"));
        };
        let arguments = arguments_for(arguments, &basis.account)?;
        let limit = self.deadline.left();
        match command::run(program, &arguments, env, TOKEN_ANSWER_BYTES_MAX, limit).await {
            Ok(output) => external::read(&output, clock::now()),
            Err(error @ CommandError::NotThere(_)) => Err(TokenError::app("token_command", error.to_string())),
            Err(error @ CommandError::TimedOut(_)) => Err(TokenError::temporary("timeout", error.to_string())),
            Err(CommandError::Failed {
                status,
                output,
                complaint,
            }) => {
                // Whatever it printed before it failed may be a token.
                let printed = output.expose_secret().split_whitespace();
                let printed = printed.filter(|word| word.len() >= PRINTED_TOKEN_CHARS_MIN);
                let held = self.held.iter().flatten().map(|held| held.expose_secret());
                let secrets: Vec<&str> = printed.chain(held).collect();
                let complaint = clean_complaint(&String::from_utf8_lossy(&complaint), &secrets);
                let message = match complaint.is_empty() {
                    true => format!("the token command ended with {status}, without a word"),
                    false => format!("the token command ended with {status}: {complaint}"),
                };
                Err(TokenError::temporary("token_command", message))
            }
            Err(error) => Err(TokenError::temporary("token_command", error.to_string())),
        }
    }

    /// Asks a URL.
    pub(super) async fn by_url(&self, url: &Url, basis: &Basis) -> Result<TokenAnswer, TokenError> {
        // Whatever the provider's own URLs may be: the answer is a token in clear.
        if !is_url_allowed(url, false) {
            let message = "token_url_external must be https, or http on a loopback host";
            return Err(TokenError::app("insecure_url", message));
        }
        let url = question(url, &basis.account, self.provider);
        let request = Request::builder().method(Method::GET).uri(url.as_str());
        let request = request.header(header::ACCEPT, "application/json").body(Vec::new());
        let request = request.map_err(|error| TokenError::app("bad_app", error.to_string()))?;
        let reply = self.send(&url, request).await?;
        external::read_response(&reply.response(), clock::now())
    }
}

/// `arguments` with the account's id in place of `{account}`. An id that would make an option of an argument that is none is
/// refused: whoever may name accounts must not choose what the command does.
fn arguments_for(arguments: &[String], account: &str) -> Result<Vec<String>, TokenError> {
    let replace = |argument: &String| {
        let replaced = argument.replace(ACCOUNT, account);
        if replaced.starts_with('-') && !argument.starts_with('-') {
            let message = "the account's id begins with '-', which the token command would take for an option";
            return Err(TokenError::app("token_command", message));
        }
        Ok(replaced)
    };
    arguments.iter().map(replace).collect()
}

/// `url` with `account` and `proto` behind the query that it has. A token serves all protocols; the first is named that the
/// provider offers.
fn question(url: &Url, account: &str, provider: &Provider) -> Url {
    let mut url = url.clone();
    let endpoints = [
        ("imap", &provider.imap),
        ("smtp", &provider.smtp),
        ("pop3", &provider.pop3),
    ];
    let offered = endpoints.iter().find(|(_, endpoint)| endpoint.is_some());
    let mut query = url.query_pairs_mut();
    query.append_pair("account", account);
    query.extend_pairs(offered.map(|(protocol, _)| ("proto", *protocol)));
    drop(query);
    url
}

const ACCOUNT: &str = "{account}";

/// Characters from which on a word that a failing command printed is taken for a token. Shorter ones are words.
const PRINTED_TOKEN_CHARS_MIN: usize = 16;

#[cfg(test)]
mod tests;
