//! The pages: what the mailbox's owner reads.
//!
//! Plain HTML without a script, for light and dark, for a phone and for a screen reader. Values are escaped by maud and
//! isolated by `bdi`, so that a name can neither bring markup along nor turn the words around it; long ones are cut. A page says what
//! is true at the moment it is written, and, where something went wrong, what its reader can do.

mod problem;
mod scopes;

use std::sync::LazyLock;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

pub(super) use problem::{Trouble, trouble};

use super::port::{Granted, Invitation};
use super::site::Site;
use crate::limits::WEB_TEXT_CHARS_MAX;

/// A page, with the status that goes with what it says.
pub(super) struct Page {
    status: StatusCode,
    document: Markup,
    /// Where its form may lead; `None` where it has none.
    form_targets: Option<&'static str>,
}

/// How a page begins.
#[derive(Clone, Copy)]
enum Mood {
    Ask,
    Good,
    Bad,
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let policy = content_security_policy(self.form_targets);
        let mut response = (self.status, self.document.into_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        );
        if let Ok(policy) = HeaderValue::try_from(policy) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

/// What a link leads to: who asks for what, and a button.
///
/// The form has no `action`, which means the page's own URL: a link's token is not repeated in the document.
pub(super) fn invitation(site: &Site, invitation: &Invitation) -> Page {
    let provider = shown(&invitation.provider_title);
    let mailbox = invitation.email.as_deref().unwrap_or(&invitation.account);
    let body = html! {
        p { "The mail service at " strong { (shown(site.host())) } " asks you for access to this mailbox:" }
        dl {
            dt { "Mailbox" }
            dd { (shown(mailbox)) }
            @if mailbox != invitation.account {
                dt { "Its name at this service" }
                dd { (shown(&invitation.account)) }
            }
            dt { "Provider" }
            dd { (provider) }
        }
        h2 { "What happens when you continue" }
        ol {
            li { (provider) " asks you to sign in, and shows what you are asked to allow. Sign in as " (shown(mailbox)) "." }
            li { "You come back here, and one login to the mailbox is tried." }
            li { "From then on, programs to which this service has given a key can use the mailbox." }
        }
        h2 { "What does not happen" }
        ul {
            li { "This service does not get to see your password." }
            li { "Connecting reads, sends and changes no mail." }
            li { "It is not for ever: you can withdraw the permission in your account at " (provider) " at any time." }
        }
        form method="post" {
            button type="submit" { "Continue to " (provider) }
        }
        p { "If you did not expect this, close the page. Nothing has been changed." }
    };
    let heading = "Connect your mailbox";
    Page {
        status: StatusCode::OK,
        document: document(site, Mood::Ask, heading, &body),
        form_targets: Some(site.form_targets()),
    }
}

/// The code was exchanged, and the mailbox let us in.
pub(super) fn granted(site: &Site, granted: &Granted) -> Page {
    let mailbox = granted.email.as_deref().unwrap_or(&granted.account);
    let body = html! {
        p { strong { (shown(mailbox)) } " is connected to the mail service at " (shown(site.host())) "." }
        p { "The permission has arrived, and a login to the mailbox worked. There is nothing left to do; you can close this page." }
    };
    Page {
        status: StatusCode::OK,
        document: document(site, Mood::Good, "Your mailbox is connected", &body),
        form_targets: None,
    }
}

fn document(site: &Site, mood: Mood, heading: &str, body: &Markup) -> Markup {
    let class = match mood {
        Mood::Ask => "ask",
        Mood::Good => "good",
        Mood::Bad => "bad",
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { (heading) " - " (site.host()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main class=(class) {
                    h1 { (heading) }
                    (body)
                }
                footer { "Portreeve at " (shown(site.host())) }
            }
        }
    }
}

/// A value that somebody else chose.
fn shown(value: &str) -> Markup {
    let mut characters = value.chars();
    let mut kept: String = characters.by_ref().take(WEB_TEXT_CHARS_MAX).collect();
    if characters.next().is_some() {
        kept.push('…');
    }
    html! { bdi { (kept) } }
}

/// Nothing may be loaded but our one style, nobody may frame the page, and its form leads to `form_targets` only.
pub(crate) fn content_security_policy(form_targets: Option<&str>) -> String {
    static STYLE_HASH: LazyLock<String> = LazyLock::new(|| STANDARD.encode(Sha256::digest(STYLE)));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action {}; frame-ancestors 'none'; base-uri 'none'",
        *STYLE_HASH,
        form_targets.unwrap_or("'none'"),
    )
}

/// The one style, for light and dark, that every page for an owner has.
pub(crate) const STYLE: &str = include_str!("style.css");
