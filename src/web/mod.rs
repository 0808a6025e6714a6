//! The public side: hosted links and the provider's redirect, for browsers (`[web]`, INTERFACE §3).
//!
//! ```text
//! browser ──TLS──> serve ──> gate: whose address? how often? ──> routes ──ConsentPort──> authorize
//!                                                                  └──> pages (HTML, no script)
//! ```
//!
//! What lives here speaks HTTP and HTML and knows nothing of OAuth: it reads a link and asks, begins and completes through
//! [`ConsentPort`], and turns every [`Problem`] into its page. A GET of a link changes nothing, since mail scanners and
//! browsers fetch what nobody has clicked; the POST behind its button begins. Everybody in the world may connect, so all that
//! a client can stretch is bounded: connections, headers, bodies, time, requests for each address. Links, codes and cookies
//! are secrets, so the log names a request by its route's template, and no page repeats them.

mod client;
mod pages;
mod port;
mod routes;
mod serve;
mod site;
#[cfg(test)]
mod tests;
mod throttle;

pub(crate) use pages::{STYLE, content_security_policy};
pub use port::{BROWSER_BYTES, ConsentPort, Granted, Invitation, LinkProblem, Problem};
pub use serve::{BindError, Bound, serve};
