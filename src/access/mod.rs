//! Access tokens: what mail programs use as their password here, and who may call the admin API.
//!
//! Pure over the store: [`authenticate`] admits a login to mail, [`recognize`] tells who calls the admin API. Neither records
//! anything; that is for `usage`. What refusals cost those who cause them is said by [`Budgets`].

mod addresses;
mod check;
mod failures;
mod lineage;
mod scope;
mod short;
mod token;

pub use check::{Authenticated, Bearer, Denied, authenticate, recognize};
pub use failures::{Budgets, DelayedCounts};
pub use lineage::{BeyondMaker, Line};
pub use scope::{Scope, ScopeError};
pub use token::AccessToken;
