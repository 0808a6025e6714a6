//! Access tokens: what mail programs use as their password here, and who may call the admin API.
//!
//! Pure over the store: [`authenticate`] admits a login to mail, [`authorize`] a caller of the admin API. Neither records
//! anything; that is for `usage`.

mod check;
mod scope;
mod token;

pub use check::{Authenticated, Caller, Denied, authenticate, authorize};
pub use scope::{Scope, ScopeError, check_scopes};
pub use token::AccessToken;
