//! What follows from `web.public_url`: where the routes are, which cookie is set, what a request of our own pages looks like.
//!
//! The `Host` of a request counts for nothing here. What browsers are told to use is in the configuration.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::port::BROWSER_BYTES;
use crate::config::is_loopback_host;
use crate::limits::{WEB_COOKIE_LIFE, WEB_HSTS_LIFE};

/// The public side as browsers see it.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// Its URL, without a query.
    url: Url,
    /// The URL's path without a slash at its end: empty where the site has a host of its own.
    prefix: String,
}

impl Site {
    pub(super) fn new(public_url: &Url) -> Self {
        let mut url = public_url.clone();
        url.set_query(None);
        url.set_fragment(None);
        let prefix = url.path().trim_end_matches('/').to_owned();
        Self { url, prefix }
    }

    /// The path of `route` below the public URL.
    pub(super) fn route(&self, route: &str) -> String {
        format!("{}{route}", self.prefix)
    }

    /// The host, for people.
    pub(super) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The URL that a provider sent a browser to, from the query that came with it.
    pub(super) fn redirected(&self, query: Option<&str>) -> Url {
        let mut url = self.url.clone();
        url.set_path(&self.route(CALLBACK));
        url.set_query(query);
        url
    }

    /// Whether a request that changes something may come from one of our own pages; one that another site had the browser
    /// send must not.
    ///
    /// Browsers since 2023 tell by `Sec-Fetch-Site`. Others tell by `Origin`, which is `null` where they keep the origin to
    /// themselves: that could be anybody's. A request with neither is not a browser's.
    pub(super) fn is_own(&self, headers: &HeaderMap) -> bool {
        let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        let is_ours = origin.is_none_or(|origin| origin == self.url.origin().ascii_serialization().as_bytes());
        match headers.get(FETCH_SITE).map(HeaderValue::as_bytes) {
            Some(b"same-origin" | b"none") => is_ours || origin == Some(b"null"),
            Some(_) => false,
            None => is_ours,
        }
    }

    /// What the browser keeps, as its request shows it.
    pub(super) fn browser(&self, headers: &HeaderMap) -> Option<[u8; BROWSER_BYTES]> {
        let fields = headers.get_all(header::COOKIE).iter();
        let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
        let mut named = pairs.filter_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
            (name == self.cookie_name()).then_some(value)
        });
        URL_SAFE_NO_PAD.decode(named.next()?).ok()?.try_into().ok()
    }

    /// The secret that a browser is to keep for the consent that it begins. One with a `__Host-` cookie keeps what it has, so
    /// that consents begun in two of its tabs can both be completed; another's could have been set by a neighbouring site.
    pub(super) fn browser_to_begin(
        &self,
        headers: &HeaderMap,
        fresh: impl FnOnce() -> [u8; BROWSER_BYTES],
    ) -> [u8; BROWSER_BYTES] {
        let kept = self.browser(headers).filter(|_| self.cookie_name() == HOST_COOKIE);
        kept.unwrap_or_else(fresh)
    }

    /// `Set-Cookie` for `browser`. `Lax`, since the provider's redirect is another site's and must bring it along.
    pub(super) fn set_cookie(&self, browser: &[u8; BROWSER_BYTES]) -> String {
        let secure = if self.is_https() { "; Secure" } else { "" };
        format!(
            "{}={}; Path={}/; Max-Age={}{secure}; HttpOnly; SameSite=Lax",
            self.cookie_name(),
            URL_SAFE_NO_PAD.encode(browser),
            self.prefix,
            WEB_COOKIE_LIFE.as_secs(),
        )
    }

    /// `Strict-Transport-Security`, where it may be asked for: it would bind every port of a developer's `localhost`.
    pub(super) fn strict_transport(&self) -> Option<String> {
        let is_named = self.url.domain().is_some_and(|domain| !is_loopback_host(domain));
        (self.is_https() && is_named).then(|| format!("max-age={}", WEB_HSTS_LIFE.as_secs()))
    }

    /// Where a form may lead. Chromium holds the whole chain of redirects behind a form to this, and behind the provider's
    /// first address there are others that nobody here can know: an organisation's own sign-in, for one. So it is any site
    /// over TLS, and what OAuth allows without: this very machine, or, where we have no TLS ourselves, anything.
    pub(super) fn form_targets(&self) -> &'static str {
        if self.is_https() {
            "'self' https: http://localhost:* http://127.0.0.1:*"
        } else {
            "'self' https: http:"
        }
    }

    fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The prefixes bind browsers to keep others from setting it (RFC 6265bis §4.1.3); the stronger one wants the path `/`.
    fn cookie_name(&self) -> &'static str {
        match (self.is_https(), self.prefix.is_empty()) {
            (true, true) => HOST_COOKIE,
            (true, false) => "__Secure-portreeve",
            (false, _) => "portreeve",
        }
    }
}

/// The provider's redirect comes here.
pub(super) const CALLBACK: &str = "/oauth/callback";

const HOST_COOKIE: &str = "__Host-portreeve";
const FETCH_SITE: &str = "sec-fetch-site";

#[cfg(test)]
mod tests {
    use super::*;

    fn site(url: &str) -> Site {
        Site::new(&Url::parse(url).unwrap())
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn routes_and_the_redirect_are_below_the_public_path() {
        for (url, route, redirected) in [
            (
                "https://mail.example.com",
                "/authorize",
                "https://mail.example.com/oauth/callback?a=%2F&b",
            ),
            (
                "https://mail.example.com/",
                "/authorize",
                "https://mail.example.com/oauth/callback?a=%2F&b",
            ),
            (
                "https://example.com/mail/",
                "/mail/authorize",
                "https://example.com/mail/oauth/callback?a=%2F&b",
            ),
            (
                "http://127.0.0.1:8080/a/b",
                "/a/b/authorize",
                "http://127.0.0.1:8080/a/b/oauth/callback?a=%2F&b",
            ),
        ] {
            let site = site(url);
            assert_eq!(site.route("/authorize"), route);
            assert_eq!(site.redirected(Some("a=%2F&b")).as_str(), redirected);
        }
        assert_eq!(site("https://x.example").redirected(None).query(), None);
    }

    #[test]
    fn the_cookie_is_as_strict_as_the_public_url_allows() {
        let value = "A".repeat(43);
        for (url, expected) in [
            (
                "https://mail.example.com",
                format!("__Host-portreeve={value}; Path=/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"),
            ),
            (
                "https://example.com/mail",
                format!("__Secure-portreeve={value}; Path=/mail/; Max-Age=3600; Secure; HttpOnly; SameSite=Lax"),
            ),
            (
                "http://localhost:8080",
                format!("portreeve={value}; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
            ),
        ] {
            assert_eq!(site(url).set_cookie(&[0; BROWSER_BYTES]), expected);
        }
    }

    #[test]
    fn what_a_browser_keeps_is_read_back_and_nothing_else_is() {
        let site = site("https://mail.example.com");
        let secret = [7; BROWSER_BYTES];
        let set = site.set_cookie(&secret);
        let pair = set.split(';').next().unwrap();
        let value = pair.split_once('=').unwrap().1;
        for (fields, found) in [
            (vec![pair.to_owned()], true),
            (vec![format!("a=b; {pair}; c=d")], true),
            (vec!["a=b".to_owned(), pair.to_owned()], true),
            (vec![], false),
            (vec![format!("portreeve={value}")], false),
            (vec![format!("x__Host-portreeve={value}")], false),
            (vec![format!("{pair}AA")], false),
            (vec![pair.trim_end_matches(value).to_owned() + "AAAA"], false),
            (vec!["__Host-portreeve=".to_owned()], false),
            (vec!["__Host-portreeve".to_owned()], false),
            (vec![";;=;".to_owned()], false),
        ] {
            let fields: Vec<_> = fields.iter().map(|field| ("cookie", field.as_str())).collect();
            assert_eq!(site.browser(&headers(&fields)), found.then_some(secret), "{fields:?}");
        }
    }

    #[test]
    fn only_a_cookie_that_no_neighbour_can_set_is_kept_for_a_second_consent() {
        let (old, new) = ([7; BROWSER_BYTES], [8; BROWSER_BYTES]);
        for (url, expected) in [
            ("https://mail.example.com", old),
            ("https://example.com/mail", new),
            ("http://localhost", new),
        ] {
            let site = site(url);
            let set = site.set_cookie(&old);
            let kept = headers(&[("cookie", set.split(';').next().unwrap())]);
            assert_eq!(site.browser(&kept), Some(old));
            assert_eq!(site.browser_to_begin(&kept, || new), expected, "{url}");
            assert_eq!(site.browser_to_begin(&HeaderMap::new(), || new), new);
        }
    }

    #[test]
    fn a_post_that_another_site_has_sent_is_not_our_own() {
        let site = site("https://mail.example.com/x");
        let ours = ("origin", "https://mail.example.com");
        for (fields, is_own) in [
            (vec![("sec-fetch-site", "same-origin"), ours], true),
            // Chromium and Firefox, for a form on a page without a referrer.
            (vec![("sec-fetch-site", "same-origin"), ("origin", "null")], true),
            (vec![("sec-fetch-site", "none")], true),
            (
                vec![("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")],
                false,
            ),
            (vec![("sec-fetch-site", "cross-site"), ours], false),
            (vec![("sec-fetch-site", "same-site"), ("origin", "null")], false),
            (vec![("sec-fetch-site", "")], false),
            (vec![ours], true),
            (vec![("origin", "null")], false),
            (vec![("origin", "http://mail.example.com")], false),
            (vec![("origin", "https://mail.example.com:8443")], false),
            (vec![("origin", "https://mail.example.com.evil.example")], false),
            (vec![("host", "evil.example")], true),
        ] {
            assert_eq!(site.is_own(&headers(&fields)), is_own, "{fields:?}");
        }
    }

    #[test]
    fn strict_transport_is_asked_for_by_name_and_over_tls_only() {
        let asked = |url| site(url).strict_transport();
        assert_eq!(asked("https://mail.example.com"), Some("max-age=31536000".to_owned()));
        for url in [
            "http://localhost",
            "https://localhost",
            "https://192.0.2.1",
            "https://[::1]",
        ] {
            assert_eq!(asked(url), None, "{url}");
        }
    }
}
