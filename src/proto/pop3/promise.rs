//! What a POP3 client may be told before its login, beside what the proxy itself does; see [`crate::proto::promise`].
//!
//! RFC 2449 has a capability announced in both states alike, and clients (Jakarta Mail) ask once, before their login.

use crate::proto::promise::{Told, has, named};

/// The capabilities that may be promised, in the order in which they are told.
///
/// Left out with a reason: `UTF8` and `LANG` are commands before the login too, which the proxy does not have (RFC 6856 §2).
/// `EXPIRE` and `LOGIN-DELAY` are a mailbox's rules, not abilities, and may be each user's own (RFC 2449 §6.5, §6.7).
/// `RESP-CODES`, `AUTH-RESP-CODE`, `USER`, `SASL`, `STLS` and `IMPLEMENTATION` are the proxy's own.
pub(in crate::proto) const NAMES: [&str; 3] = [TOP, UIDL, "PIPELINING"];

/// Optional by the letter (RFC 1939 §7), and there with every provider. A client that misses UIDL fetches all mail again and
/// again; one that is told of it wrongly hears an error, once.
const UNIVERSAL: [&str; 2] = [TOP, UIDL];

/// RFC 2449 §6.1.
const TOP: &str = "TOP";

/// RFC 2449 §6.8.
const UIDL: &str = "UIDL";

/// What all `upstreams` have. What is universal is missing only where one was heard without it.
pub(in crate::proto) fn shared(upstreams: &[Option<&Told>]) -> Vec<String> {
    named(&NAMES, |name| {
        let is_universal = UNIVERSAL.contains(&name);
        let is_known = is_universal || !upstreams.is_empty();
        is_known
            && upstreams
                .iter()
                .all(|told| told.map_or(is_universal, |told| has(told.lines(), name)))
    })
}
