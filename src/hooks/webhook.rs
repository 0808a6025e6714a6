//! The hook that is a URL: the event is posted as JSON, signed over exactly the bytes that are sent.
//!
//! `X-Portreeve-Signature` is `sha256=` and the hex HMAC-SHA256 (RFC 2104) of the body under `hooks.webhook_secret`; without a
//! secret there is none. `X-Portreeve-Event` names the event, and `X-Portreeve-Delivery` the delivery, alike in every try, so
//! that a receiver can tell a repetition.

use hmac::{Hmac, Mac};
use http::{Method, Request, header};
use sha2::Sha256;
use tokio::time::sleep;
use url::Url;

use super::event::Event;
use crate::config::is_loopback_host;
use crate::limits::{WEBHOOK_TIMEOUT, WEBHOOK_TRIES, WEBHOOK_WAIT};
use crate::net::http::{Destination, Http, Route};
use crate::secret::{ExposeSecret, SecretString};

/// Where events are posted.
pub(super) struct Webhook<'a> {
    pub(super) url: &'a Url,
    pub(super) secret: Option<&'a SecretString>,
}

/// How one post ended.
enum Outcome {
    /// The receiver has taken it.
    Taken,
    /// It may be taken another time.
    Passing(String),
    /// It will not be taken.
    Refused(u16),
}

impl Webhook<'_> {
    /// Posts one event, several times where that may help. How that ends is logged.
    pub(super) async fn deliver(&self, http: &Http, event: &Event, body: &[u8]) {
        let (account, name) = (event.account(), event.event);
        let delivery = format!("{:032x}", rand::random::<u128>());
        let mut wait = WEBHOOK_WAIT;
        for attempt in 1..=WEBHOOK_TRIES {
            match self.post(http, name, &delivery, body).await {
                Outcome::Taken => return tracing::debug!(account, delivery, event = name, "an event was posted"),
                Outcome::Refused(status) => {
                    return tracing::warn!(account, delivery, status, event = name, "the webhook refuses an event");
                }
                Outcome::Passing(error) if attempt == WEBHOOK_TRIES => {
                    tracing::warn!(
                        account,
                        delivery,
                        error,
                        event = name,
                        "an event cannot be posted and is lost"
                    );
                }
                Outcome::Passing(error) => {
                    tracing::debug!(
                        account,
                        delivery,
                        error,
                        event = name,
                        "an event cannot be posted for now"
                    );
                    sleep(wait).await;
                    wait = wait.saturating_mul(WAIT_GROWTH);
                }
            }
        }
    }

    async fn post(&self, http: &Http, event: &str, delivery: &str, body: &[u8]) -> Outcome {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-portreeve-event", event)
            .header("x-portreeve-delivery", delivery);
        if let Some(secret) = self.secret {
            request = request.header("x-portreeve-signature", signature(secret, body));
        }
        let request = match request.body(body.to_vec()) {
            Ok(request) => request,
            Err(error) => return Outcome::Passing(error.to_string()),
        };
        let is_local = self.url.host_str().is_some_and(is_loopback_host);
        let destination = Destination {
            ca_file: None,
            route: if is_local { Route::Loopback } else { Route::System },
        };
        // What the receiver answers beside its status is of no interest.
        match http.send(request, &destination, 0, WEBHOOK_TIMEOUT).await {
            Ok(reply) => judge(reply.status),
            Err(error) => Outcome::Passing(error.to_string()),
        }
    }
}

/// What a status says of another try.
fn judge(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        408 | 429 | 500..=599 => Outcome::Passing(format!("the answer has status {status}")),
        _ => Outcome::Refused(status),
    }
}

fn signature(secret: &SecretString, body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes());
    let mut mac = mac.expect("HMAC takes keys of every length (RFC 2104 §2)");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let mut text = String::from("sha256=");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

const WAIT_GROWTH: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_known_answer_of_rfc_4231() {
        // RFC 4231 §4.3: the key is "Jefe".
        let signed = signature(&"Jefe".into(), b"what do ya want for nothing?");
        assert_eq!(
            signed,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for (status, passing) in [
            (301, false),
            (404, false),
            (408, true),
            (410, false),
            (429, true),
            (503, true),
        ] {
            assert_eq!(matches!(judge(status), Outcome::Passing(_)), passing, "{status}");
        }
        assert!(matches!(judge(204), Outcome::Taken));
    }
}
