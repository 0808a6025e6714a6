//! A page for everything that can go wrong: what happened, what it means, what its reader can do.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::{Mood, Page, document, scopes, shown};
use crate::web::port::{LinkProblem, Problem};
use crate::web::site::Site;

/// Why there is nothing better to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::web) enum Trouble {
    /// The consent failed.
    Consent(Problem),
    /// There is no such page.
    NoSuchPage,
    /// The page is there, but not for this method.
    WrongMethod,
    /// Another site had the browser send this.
    CrossSite,
    /// The request's body is too large, or did not come in time.
    BadBody(StatusCode),
    /// The client's address has asked too often.
    TooManyRequests {
        /// How long it is to wait.
        wait: Duration,
    },
    /// The result is not there in time; the work goes on.
    TakesLong,
}

/// The page for `trouble`.
pub(in crate::web) fn trouble(site: &Site, trouble: &Trouble) -> Response {
    let Words { status, heading, body } = words(trouble);
    let page = Page {
        status,
        document: document(site, Mood::Bad, heading, &body),
        form_targets: None,
    };
    let mut response = page.into_response();
    if let Trouble::TooManyRequests { wait } = trouble {
        let seconds = wait.as_secs().saturating_add(1);
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

struct Words {
    status: StatusCode,
    heading: &'static str,
    body: Markup,
}

impl Words {
    /// `happened`: what is the case. `remedy`: what the reader can do.
    fn new(status: StatusCode, heading: &'static str, happened: &str, remedy: &str) -> Self {
        Self::with(status, heading, &html! { p { (happened) } }, remedy)
    }

    fn with(status: StatusCode, heading: &'static str, happened: &Markup, remedy: &str) -> Self {
        let body = html! {
            (happened)
            h2 { "What you can do" }
            p { (remedy) }
        };
        Self { status, heading, body }
    }
}

fn words(trouble: &Trouble) -> Words {
    match trouble {
        Trouble::Consent(problem) => of_consent(problem),
        Trouble::NoSuchPage => Words::new(
            StatusCode::NOT_FOUND,
            "There is no such page",
            "Nothing is shown here but what the links lead to that this service sends.",
            "Open the link that you were sent, as a whole.",
        ),
        Trouble::WrongMethod => Words::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "This cannot be done here",
            "The page does not take such a request. Nothing has been changed.",
            "Open the link that you were sent in a browser.",
        ),
        Trouble::CrossSite => Words::new(
            StatusCode::FORBIDDEN,
            "This came from another site",
            "Connecting a mailbox begins with the button on this service's own page, and the request did not come from there, or \
             the browser does not say so. Nothing has been changed.",
            "Open the link that you were sent and press the button there, with a browser that is up to date.",
        ),
        Trouble::BadBody(status) => Words::new(
            *status,
            "The request could not be read",
            "It was too large, or took too long to arrive. Nothing has been changed.",
            "Open the link that you were sent once more.",
        ),
        Trouble::TooManyRequests { .. } => Words::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many requests",
            "Your network has asked this service too often within a short time. This request has changed nothing.",
            "Wait a minute, then try again.",
        ),
        Trouble::TakesLong => Words::new(
            StatusCode::GATEWAY_TIMEOUT,
            "This takes longer than it should",
            "The provider or the mailbox has not answered yet. The work goes on, and it may still succeed.",
            "Ask the person who sent you the link whether the mailbox is connected, before you open the link again.",
        ),
    }
}

fn of_consent(problem: &Problem) -> Words {
    match problem {
        Problem::Link(link) => of_link(*link),
        Problem::UnknownFlow => Words::new(
            StatusCode::BAD_REQUEST,
            "This sign-in cannot be completed",
            "It took too long, was completed before, or was begun in another browser. This visit has changed nothing.",
            "Open the link that you were sent again, in this browser, and stay in it until the end. The browser must accept \
             cookies of this service.",
        ),
        Problem::Denied => Words::new(
            StatusCode::FORBIDDEN,
            "Permission was not given",
            "You, or the provider in your place, said no. The mailbox has not been connected, and nothing has been changed.",
            "If you did want to give it, open the link again and agree. If the provider says that an administrator has to \
             approve, ask the administrator of your organisation, and then open the link again.",
        ),
        Problem::MissingScopes(missing) => Words::with(
            StatusCode::FORBIDDEN,
            "Part of the permission is missing",
            &missing_scopes(missing),
            "Open the link again, and on the provider's page leave every box ticked.",
        ),
        Problem::WrongMailbox { asked, given } => Words::with(
            StatusCode::CONFLICT,
            "Another mailbox signed in",
            &wrong_mailbox(asked, given),
            "Sign out at the provider, or choose \"use another account\" there. Then open the link again and sign in with the \
             mailbox that is asked for.",
        ),
        Problem::LoginRefused { reason } => Words::with(
            StatusCode::FORBIDDEN,
            "The mailbox refused the login",
            &html! {
                p { "You gave the permission, but the mailbox does not let this service in:" }
                p { strong { (shown(reason)) } }
            },
            "If you can change that yourself, do, and open the link again. Otherwise show this page to the administrator of \
             the mailbox, or to the person who sent you the link.",
        ),
        Problem::MailboxUnreachable { is_kept } => unreachable(*is_kept),
        Problem::ProviderTrouble => Words::new(
            StatusCode::BAD_GATEWAY,
            "The provider does not answer as it should",
            "The mailbox has not been connected. The trouble is between this service and the provider, not with you.",
            "Open the link again in a few minutes. If that does not help, tell the person who sent it.",
        ),
        Problem::Internal => internal(),
    }
}

fn of_link(problem: LinkProblem) -> Words {
    match problem {
        LinkProblem::Forged => Words::new(
            StatusCode::NOT_FOUND,
            "This link is not valid",
            "It was not made by this service, or a part of it is missing or changed. Nothing has been changed.",
            "Copy the whole link from the message that it came in. If that does not help, ask the person who sent it for a new \
             one.",
        ),
        LinkProblem::Expired => Words::new(
            StatusCode::GONE,
            "This link has expired",
            "Links are good for a limited time, and this one's is over. Nothing has been changed.",
            "Ask the person who sent it for a new one.",
        ),
        LinkProblem::Used => Words::new(
            StatusCode::GONE,
            "This link has been used",
            "A link is good for one connection, and the mailbox has been connected since this one was made.",
            "If that was you, nothing more is needed. If it was not, tell the person who sent the link. They can also send a \
             new one.",
        ),
        LinkProblem::Internal => internal(),
    }
}

fn unreachable(is_kept: bool) -> Words {
    let (happened, remedy) = if is_kept {
        (
            "You gave the permission, and it has been kept. Only the login to the mailbox could not be tried, because its server \
             does not answer.",
            "Nothing, for now: the permission is used as soon as the mailbox can be reached. If the mailbox does not work later \
             today, tell the person who sent you the link.",
        )
    } else {
        (
            "You gave the permission, but the login to the mailbox could not be tried, because its server does not answer. So \
             the permission has not been kept; if the mailbox was connected before, it still is.",
            "Open the link again later. If that does not help, tell the person who sent it.",
        )
    };
    let heading = "The mailbox cannot be reached now";
    Words::new(StatusCode::SERVICE_UNAVAILABLE, heading, happened, remedy)
}

fn internal() -> Words {
    Words::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "Something went wrong here",
        "This service has a problem of its own. The mailbox may not have been connected.",
        "Open the link again in a few minutes. If that does not help, tell the person who sent it.",
    )
}

fn missing_scopes(missing: &[String]) -> Markup {
    html! {
        p { "The mailbox has not been connected, because it cannot be used without these permissions, which were not given:" }
        ul {
            @for scope in missing.iter().take(SCOPES_SHOWN_MAX) {
                li {
                    @match scopes::in_words(scope) {
                        Some(words) => (words),
                        None => { "the permission that the provider calls " (shown(scope)) },
                    }
                }
            }
        }
    }
}

fn wrong_mailbox(asked: &str, given: &str) -> Markup {
    html! {
        p { "The mailbox has not been connected, because the one that signed in is not the one that was asked for." }
        dl {
            dt { "Asked for" }
            dd { (shown(asked)) }
            dt { "Signed in" }
            dd { (shown(given)) }
        }
    }
}

/// A provider has few scopes; a page stays short whatever the port says.
const SCOPES_SHOWN_MAX: usize = 32;
