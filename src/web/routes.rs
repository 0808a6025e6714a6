//! The routes below `web.public_url`, and what stands before all of them.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Extension, Router};
use governor::clock::DefaultClock;
use ipnet::IpNet;
use rand::TryRngCore;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use super::client::client;
use super::pages::{self, Trouble, trouble};
use super::port::{BROWSER_BYTES, ConsentPort, LinkProblem, Problem};
use super::site::{CALLBACK, Site};
use super::throttle::Throttle;
use crate::clock;
use crate::limits::{WEB_BODY_BYTES_MAX, WEB_CONNECTIONS_MAX, WEB_INPUT_TIMEOUT, WEB_REQUEST_TIMEOUT};
use crate::net::http_server::{log_outcome, route_of};

/// What the handlers share.
pub(super) struct Public {
    consent: Arc<dyn ConsentPort>,
    site: Site,
    trusted_proxies: Vec<IpNet>,
    throttle: Throttle,
    /// One permit for each consent that is being begun or completed; as many as there can be.
    in_progress: Arc<Semaphore>,
}

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

type Shared = State<Arc<Public>>;

impl Public {
    pub(super) fn new(public_url: &Url, trusted_proxies: Vec<IpNet>, consent: Arc<dyn ConsentPort>) -> Self {
        Self {
            consent,
            site: Site::new(public_url),
            trusted_proxies,
            throttle: Throttle::new(DefaultClock::default()),
            in_progress: Arc::new(Semaphore::new(WEB_CONNECTIONS_MAX)),
        }
    }

    /// Waits until no consent is being begun or completed, whether or not a browser waits for it.
    pub(super) async fn idle(&self) {
        let all = u32::try_from(WEB_CONNECTIONS_MAX).unwrap_or(u32::MAX);
        // Only a closed semaphore refuses, and this one is never closed.
        let _ = self.in_progress.acquire_many(all).await;
    }

    /// Runs `work` to its end even if the browser hangs up or has waited long enough: a code that was sent to the provider
    /// cannot be sent again.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let place = Arc::clone(&self.in_progress).acquire_owned().await;
        let task = tokio::spawn(async move {
            let _place = place;
            work.await
        });
        task.await.unwrap_or_else(|panicked| {
            tracing::error!(%panicked, "a consent ended by a defect");
            Err(Problem::Internal)
        })
    }

    fn trouble(&self, what: &Trouble) -> Response {
        trouble(&self.site, what)
    }
}

/// Everything that browsers can ask for.
pub(super) fn router(public: Arc<Public>) -> Router {
    let site = &public.site;
    Router::new()
        // The public URL's path is as the administrator gave it, and may begin with a colon.
        .without_v07_checks()
        .route(&site.route("/authorize/{link}"), get(invite).post(begin))
        // Whoever asks for the head only has not seen the outcome, and there is but one.
        .route(&site.route(CALLBACK), get(complete).head(head_of_redirect))
        .route("/robots.txt", get(robots))
        .fallback(no_such_page)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&public), gate))
        .with_state(public)
}

/// Stands before every route, known or not: counts the client's requests, bounds the time, sees to the headers, logs the
/// outcome.
async fn gate(State(public): Shared, Extension(peer): Extension<Peer>, request: Request, next: Next) -> Response {
    let begun = clock::instant();
    let method = request.method().clone();
    let route = route_of(&request);
    let client = client(peer.0, request.headers(), &public.trusted_proxies);
    let mut response = match public.throttle.count(client) {
        Ok(()) => match timeout(WEB_REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => public.trouble(&Trouble::TakesLong),
        },
        Err(wait) => public.trouble(&Trouble::TooManyRequests { wait }),
    };
    protect(&public.site, response.headers_mut());
    log_outcome("web", &method, &route, response.status(), begun);
    response
}

/// What every answer says, so that nothing is kept, framed, guessed or told to others.
fn protect(site: &Site, headers: &mut HeaderMap) {
    for (name, value) in PROTECTION {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY)
        && let Ok(policy) = HeaderValue::try_from(pages::content_security_policy(None))
    {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if let Some(value) = site.strict_transport().and_then(|value| value.try_into().ok()) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
}

/// Shows what a link is for. Changes nothing.
async fn invite(State(public): Shared, link: Result<Path<String>, PathRejection>) -> Response {
    // A path that is no text was not made here.
    let opened = match link {
        Ok(Path(link)) => public.consent.open(&link).await,
        Err(_) => Err(LinkProblem::Forged),
    };
    match opened {
        Ok(invitation) => pages::invitation(&public.site, &invitation).into_response(),
        Err(problem) => public.trouble(&Trouble::Consent(problem.into())),
    }
}

/// The page's button: begins the consent, and sends the browser to the provider.
async fn begin(
    State(public): Shared,
    link: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !public.site.is_own(&headers) {
        return public.trouble(&Trouble::CrossSite);
    }
    if let Err(status) = discard(body).await {
        return public.trouble(&Trouble::BadBody(status));
    }
    let browser = public.site.browser_to_begin(&headers, random);
    let consent = Arc::clone(&public.consent);
    let begun = match link {
        Ok(Path(link)) => {
            let work = async move { consent.begin(&link, browser).await };
            public.to_its_end(work).await
        }
        Err(_) => Err(LinkProblem::Forged.into()),
    };
    match begun {
        Ok(provider) => {
            let cookie = public.site.set_cookie(&browser);
            ([(header::SET_COOKIE, cookie)], Redirect::to(provider.as_str())).into_response()
        }
        Err(problem) => public.trouble(&Trouble::Consent(problem)),
    }
}

/// The provider has sent the browser back: completes the consent.
async fn complete(State(public): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let redirected = public.site.redirected(query.as_deref());
    let browser = public.site.browser(&headers);
    let consent = Arc::clone(&public.consent);
    let work = async move { consent.complete(&redirected, browser).await };
    match public.to_its_end(work).await {
        Ok(granted) => match &granted.return_to {
            Some(url) if matches!(url.scheme(), "https" | "http") => Redirect::to(url.as_str()).into_response(),
            _ => pages::granted(&public.site, &granted).into_response(),
        },
        Err(problem) => public.trouble(&Trouble::Consent(problem)),
    }
}

async fn head_of_redirect(State(public): Shared) -> Response {
    let mut response = public.trouble(&Trouble::WrongMethod);
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET"));
    response
}

/// Nothing here is for search engines.
async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /\n"
}

async fn no_such_page(State(public): Shared) -> Response {
    public.trouble(&Trouble::NoSuchPage)
}

async fn wrong_method(State(public): Shared) -> Response {
    public.trouble(&Trouble::WrongMethod)
}

/// Reads the body of a form that has no fields, so that the answer does not overtake it.
async fn discard(body: Body) -> Result<(), StatusCode> {
    match timeout(WEB_INPUT_TIMEOUT, to_bytes(body, WEB_BODY_BYTES_MAX)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// A secret for a browser to keep.
///
/// # Panics
/// If the operating system has no random bytes: there is no safe way to go on then.
fn random() -> [u8; BROWSER_BYTES] {
    let mut bytes = [0; BROWSER_BYTES];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system has random bytes once it has started");
    bytes
}

const PROTECTION: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Browsers that do not know frame-ancestors.
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
