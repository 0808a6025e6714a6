//! Values that must not be seen: they are wiped when dropped and print as `[REDACTED]`.
//!
//! The types are those of the `secrecy` crate; this module is the only one that names it, so that every place where a
//! secret is opened can be found by searching for [`ExposeSecret`].

pub use secrecy::{ExposeSecret, SecretString};

/// Copies a secret. Named, because each copy is one more place that has to be wiped.
pub fn duplicate(secret: &SecretString) -> SecretString {
    secret.expose_secret().to_owned().into()
}
