//! POP3's words for asking an upstream what it can do; see [`crate::proto::probe`].

use super::response::{ReplyFramer, Response};
use super::upstream::note_promisable;
use crate::fault::Fault;
use crate::proto::probe::{Answer, Asked, Dialect};
use crate::proto::redaction::Redaction;

/// CAPA.
#[derive(Default)]
pub(in crate::proto) struct Pop3Dialect {
    replies: ReplyFramer,
    /// The list so far, behind the `+OK` to CAPA.
    listed: Option<Vec<String>>,
}

impl Dialect for Pop3Dialect {
    fn push(&mut self, bytes: &[u8]) {
        self.replies.push(bytes);
    }

    fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    fn answer(&mut self, to: Asked) -> Result<Option<Answer>, Fault> {
        while let Some(line) = self.replies.next_line().map_err(Fault::unavailable)? {
            let line = line.as_bytes();
            if let Some(listed) = &mut self.listed {
                if line == b"." {
                    return Ok(self.listed.take().map(Answer::List));
                }
                note_promisable(listed, line);
                continue;
            }
            match (Response::parse(line), to) {
                (Some(Response::Ok(_)), Asked::Question) => self.listed = Some(Vec::new()),
                (Some(Response::Ok(_)), Asked::Greeting | Asked::StartTls) => return Ok(Some(Answer::Yes)),
                // RFC 1939 knows no CAPA.
                (Some(Response::Err(_)), Asked::Question) => return Ok(Some(Answer::NoList)),
                _ => {
                    let said = Redaction::default().clean(line);
                    return Err(Fault::unavailable(format_args!("upstream says {}: {said}", to.name())));
                }
            }
        }
        Ok(None)
    }

    fn question(&self) -> String {
        "CAPA\r\n".to_owned()
    }

    fn starttls(&self) -> &'static str {
        "STLS\r\n"
    }
}
