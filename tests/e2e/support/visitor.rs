//! A browser without a screen, scripts or patience: it keeps cookies, follows redirects on the provider's own pages, and
//! fills in forms. Where the provider sends it elsewhere it stops and says where to.

use reqwest::{Client, Method, StatusCode};
use url::Url;

/// One visitor, with cookies of its own.
pub struct Visitor {
    http: Client,
    cookies: Vec<Cookie>,
}

/// Where a visitor is.
#[derive(Debug)]
pub enum Place {
    /// On a page.
    Page(Page),
    /// Sent to another place, which it has not visited.
    Elsewhere(Url),
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Where it was found.
    pub url: Url,
    /// The HTTP status.
    pub status: u16,
    /// Its HTML.
    pub html: String,
}

struct Cookie {
    name: String,
    path: String,
    value: String,
}

impl Visitor {
    /// Somebody who was never there.
    pub fn new() -> Visitor {
        // An error means that another test of this process has installed it: the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("an HTTP client can be made");
        Visitor {
            http,
            cookies: Vec::new(),
        }
    }

    /// Opens a page, and follows where it leads within its own origin.
    pub async fn open(&mut self, url: &str) -> Place {
        self.go(Method::GET, Url::parse(url).expect("a URL"), None).await
    }

    /// Sends the page's form: its hidden fields, and these.
    pub async fn submit(&mut self, page: &Page, fields: &[(&str, &str)]) -> Place {
        let action = page.tags("form").next().and_then(|form| attribute(form, "action"));
        let target = page.url.join(&action.unwrap_or_default()).expect("an action is a URL");
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for input in page.tags("input") {
            let (name, value) = (attribute(input, "name"), attribute(input, "value"));
            if attribute(input, "type").as_deref() == Some("hidden") {
                form.append_pair(&name.unwrap_or_default(), &value.unwrap_or_default());
            }
        }
        form.extend_pairs(fields);
        self.go(Method::POST, target, Some(form.finish())).await
    }

    /// Logs in as `user` and grants `scopes`, or refuses where there are none. Says where that leads.
    pub async fn consent(&mut self, url: &str, user: &str, scopes: &[&str]) -> Place {
        let login = self.open(url).await.page();
        let consent = self.submit(&login, &[("answer", "login"), ("user", user)]).await.page();
        let mut fields: Vec<(&str, &str)> = scopes.iter().map(|scope| ("scope", *scope)).collect();
        fields.push(("answer", if scopes.is_empty() { "deny" } else { "allow" }));
        self.submit(&consent, &fields).await
    }

    async fn go(&mut self, method: Method, url: Url, form: Option<String>) -> Place {
        let origin = url.origin();
        let (mut method, mut url, mut form) = (method, url, form);
        loop {
            let mut request = self
                .http
                .request(method, url.clone())
                .header("cookie", self.cookies_for(&url));
            if let Some(form) = form.take() {
                request = request
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form);
            }
            let answer = request.send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
            self.remember(&answer, &url);
            let status = answer.status();
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
            let Some(location) = location.filter(|_| status.is_redirection()) else {
                return Place::Page(Page {
                    url,
                    status: status.as_u16(),
                    html: answer.text().await.unwrap_or_default(),
                });
            };
            assert_ne!(status, StatusCode::TEMPORARY_REDIRECT, "a form would be sent again");
            url = url.join(location).expect("a location is a URL");
            method = Method::GET;
            if url.origin() != origin {
                return Place::Elsewhere(url);
            }
        }
    }

    fn cookies_for(&self, url: &Url) -> String {
        let is_sent = |cookie: &&Cookie| url.path().starts_with(&cookie.path);
        let pair = |cookie: &Cookie| format!("{}={}", cookie.name, cookie.value);
        let pairs: Vec<String> = self.cookies.iter().filter(is_sent).map(pair).collect();
        pairs.join("; ")
    }

    fn remember(&mut self, answer: &reqwest::Response, url: &Url) {
        for header in answer.headers().get_all("set-cookie") {
            let header = header.to_str().expect("a cookie is text");
            let mut parts = header.split("; ");
            let (name, value) = parts
                .next()
                .and_then(|pair| pair.split_once('='))
                .expect("a cookie has a name");
            let path = parts.find_map(|part| part.strip_prefix("path=")).unwrap_or(url.path());
            self.cookies.retain(|cookie| cookie.name != name || cookie.path != path);
            // One without a value is one to forget.
            if !value.is_empty() {
                self.cookies.push(Cookie {
                    name: name.to_owned(),
                    path: path.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
    }
}

impl Place {
    /// The page that the visitor must be on.
    pub fn page(self) -> Page {
        match self {
            Place::Page(page) => page,
            Place::Elsewhere(url) => panic!("sent to {url} instead of a page"),
        }
    }

    /// The place that the visitor must have been sent to.
    pub fn elsewhere(self) -> Url {
        match self {
            Place::Elsewhere(url) => url,
            Place::Page(page) => panic!("a page instead of being sent elsewhere: {page:?}"),
        }
    }
}

impl Page {
    /// The value of the first input of that name.
    pub fn value_of(&self, name: &str) -> Option<String> {
        let input = self
            .tags("input")
            .find(|input| attribute(input, "name").as_deref() == Some(name))?;
        attribute(input, "value")
    }

    /// The values of all boxes that are ticked.
    pub fn ticked(&self) -> Vec<String> {
        let boxes = self.tags("input").filter(|input| input.contains(" checked"));
        boxes.filter_map(|input| attribute(input, "value")).collect()
    }

    fn tags(&self, name: &str) -> impl Iterator<Item = &str> {
        let open = format!("<{name} ");
        let starts: Vec<usize> = self.html.match_indices(&open).map(|(start, _)| start).collect();
        starts
            .into_iter()
            .filter_map(|start| self.html[start..].split('>').next())
    }
}

/// An attribute of a tag, which is written with double quotes.
fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    let value = rest.split('"').next()?;
    Some(unescape(value))
}

/// Undoes the numeric references in which the provider writes what could be markup.
fn unescape(text: &str) -> String {
    let mut parts = text.split("&#");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once(';').expect("a reference ends");
        plain.extend(code.parse().ok().and_then(char::from_u32));
        plain.push_str(rest);
    }
    plain
}
