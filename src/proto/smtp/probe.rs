//! SMTP's words for asking an upstream what it can do; see [`crate::proto::probe`].

use super::presentation::ehlo_name;
use super::response::ReplyFramer;
use super::upstream::{OK, SERVICE_READY, keywords};
use crate::fault::Fault;
use crate::proto::probe::{Answer, Asked, Dialect};
use crate::proto::redaction::Redaction;

/// EHLO.
pub(in crate::proto) struct SmtpDialect {
    replies: ReplyFramer,
    /// The proxy's own name.
    name: String,
}

impl SmtpDialect {
    /// The words of a proxy whose own name is `hostname`.
    pub(in crate::proto) fn new(hostname: &str) -> Self {
        Self {
            replies: ReplyFramer::default(),
            name: ehlo_name(hostname),
        }
    }
}

impl Dialect for SmtpDialect {
    fn push(&mut self, bytes: &[u8]) {
        self.replies.push(bytes);
    }

    fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    fn answer(&mut self, to: Asked) -> Result<Option<Answer>, Fault> {
        let Some(reply) = self.replies.next_reply().map_err(Fault::unavailable)? else {
            return Ok(None);
        };
        match (to, reply.code) {
            (Asked::Greeting | Asked::StartTls, SERVICE_READY) => Ok(Some(Answer::Yes)),
            (Asked::Question, OK) => Ok(Some(Answer::List(keywords(&reply)))),
            _ => {
                let (code, said) = (reply.full_code(), Redaction::default().clean(&reply.text()));
                Err(Fault::unavailable(format_args!(
                    "upstream says {code} {said}, {}",
                    to.name()
                )))
            }
        }
    }

    fn question(&self) -> String {
        format!("EHLO {}\r\n", self.name)
    }

    fn starttls(&self) -> &'static str {
        "STARTTLS\r\n"
    }

    /// RFC 3207 §4: EHLO comes first.
    fn introduces_itself(&self) -> bool {
        true
    }
}
