//! IMAP's words for asking an upstream what it can do; see [`crate::proto::probe`].

use super::login::listed;
use super::response::{Response, ResponseFramer, Status, without_line_end};
use super::upstream::promisable;
use crate::fault::Fault;
use crate::proto::probe::{Answer, Asked, Dialect};
use crate::proto::redaction::Redaction;

/// CAPABILITY, where the greeting does not tell.
#[derive(Default)]
pub(in crate::proto) struct ImapDialect {
    responses: ResponseFramer,
    /// The list that came before the completion.
    listed: Option<Vec<String>>,
}

impl Dialect for ImapDialect {
    fn push(&mut self, bytes: &[u8]) {
        self.responses.push(bytes);
    }

    fn is_empty(&self) -> bool {
        self.responses.is_empty()
    }

    fn answer(&mut self, to: Asked) -> Result<Option<Answer>, Fault> {
        while let Some(bytes) = self.responses.next_response().map_err(Fault::unavailable)? {
            let unexpected = || {
                let said = Redaction::default().clean(without_line_end(&bytes));
                Fault::unavailable(format_args!("upstream says {}: {said}", to.name()))
            };
            let response = Response::parse(&bytes).ok_or_else(unexpected)?;
            match (&response, to) {
                (Response::Untagged(condition), Asked::Greeting) if condition.status == Status::Ok => {
                    let list = condition.capabilities().map(promisable);
                    return Ok(Some(list.map_or(Answer::Yes, Answer::List)));
                }
                (Response::Tagged(TAG, condition), Asked::StartTls | Asked::Question)
                    if condition.status == Status::Ok =>
                {
                    let list = condition.capabilities().map(promisable).or(self.listed.take());
                    return Ok(Some(match list {
                        Some(list) if to == Asked::Question => Answer::List(list),
                        _ => Answer::Yes,
                    }));
                }
                (Response::Untagged(condition), _) if condition.status == Status::Bye => return Err(unexpected()),
                (Response::Tagged(..) | Response::Continuation(_), _) | (_, Asked::Greeting) => {
                    return Err(unexpected());
                }
                (Response::Capability(_) | Response::Untagged(_), Asked::Question) => {
                    self.listed = listed(&response).map(promisable).or(self.listed.take());
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn question(&self) -> String {
        "P CAPABILITY\r\n".to_owned()
    }

    fn starttls(&self) -> &'static str {
        "P STARTTLS\r\n"
    }
}

/// The tag of both commands, of which one is outstanding at a time.
const TAG: &[u8] = b"P";
