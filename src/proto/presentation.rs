//! What presenting a mailbox's credential to an upstream has in common in every protocol: the choice among what is offered,
//! what a line can carry, and the faults of a login that cannot be begun.
//!
//! The words themselves are each protocol's own `presentation`; what mechanisms say is in
//! [`sasl::upstream`](super::sasl::upstream).

use zeroize::Zeroizing;

use super::Mechanism;
use super::sasl::upstream::Unsendable;
use super::session::UpstreamReady;
use crate::fault::{Fault, FaultKind, LoginStep, UpstreamWords};

/// Bytes that hold a secret and wipe themselves.
pub(in crate::proto) type SecretBytes = Zeroizing<Vec<u8>>;

/// The mechanisms by which a token may go, in the provider's order.
pub(in crate::proto) fn token_mechanisms(ready: &UpstreamReady) -> Vec<Mechanism> {
    let known = ready.mechanisms.iter().copied();
    // LOGIN is no mechanism for tokens: nobody is known to take one that way.
    known.filter(|mechanism| *mechanism != Mechanism::Login).collect()
}

/// The first of `wanted` that is offered.
///
/// # Errors
/// [`not_offered`], with what `offers` tells.
pub(in crate::proto) fn first_offered(
    ready: &UpstreamReady,
    wanted: &[Mechanism],
    is_offered: impl Fn(Mechanism) -> bool,
    offers: impl FnOnce() -> String,
) -> Result<Mechanism, Fault> {
    let found = wanted.iter().copied().find(|mechanism| is_offered(*mechanism));
    found.ok_or_else(|| {
        let names: Vec<&str> = wanted.iter().map(|mechanism| mechanism.name()).collect();
        not_offered(ready, &names.join(" or "), &offers())
    })
}

/// Not the credential's fault, and nothing that a user could type would help; so the client is told to come again. `offers`
/// is for the log: printable and bounded.
pub(in crate::proto) fn not_offered(ready: &UpstreamReady, needed: &str, offers: &str) -> Fault {
    let step = LoginStep::Mechanism(ready.credential.secret.form());
    Fault::unavailable(format_args!("login needs {needed}, but the upstream offers {offers}"))
        .for_words(UpstreamWords::new(step, None, offers.to_owned()))
}

/// What cannot be sent should never have been stored.
pub(in crate::proto) fn unsendable(error: Unsendable) -> Fault {
    Fault::with_detail(FaultKind::Internal, error)
}

/// That neither argument of a command that carries a password as it is would end its line.
///
/// # Errors
/// [`Unsendable::User`], and [`Unsendable::Password`].
pub(in crate::proto) fn check_arguments(user: &str, password: &str) -> Result<(), Unsendable> {
    let is_sendable = |text: &str| !text.is_empty() && !text.contains(['\0', '\r', '\n']);
    match (is_sendable(user), is_sendable(password)) {
        (true, true) => Ok(()),
        (false, _) => Err(Unsendable::User),
        (true, false) => Err(Unsendable::Password),
    }
}
