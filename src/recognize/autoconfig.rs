//! Autoconfig files in Mozilla's form (wiki.mozilla.org/Thunderbird:Autoconfiguration): an XML document that names a domain's
//! servers.
//!
//! Only what came over https counts, and of it only servers with TLS that take a password or OAuth2; what a hostile document
//! may do beyond that is be refused. It has no DTD, so it has no entities of its own, and its size and its number of elements are
//! bounded before anything is made of them.

use http::{Method, Request, header};
use roxmltree::{Document, Node, ParsingOptions};
use url::{Host, Url};

use super::{Places, Server, Servers};
use crate::config::{Endpoint, UpstreamTls, is_loopback_host};
use crate::limits::{AUTOCONFIG_BYTES_MAX, AUTOCONFIG_NODES_MAX, LABEL_CHARS_MAX, RECOGNITION_STEP_TIMEOUT};
use crate::net::dns::is_host_name;
use crate::net::http::{Destination, Http, Route};

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// The servers, at least one.
    pub(super) servers: Servers,
    /// Whether any of them takes a password.
    pub(super) passwords: bool,
}

/// Why a document names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it is longer than {AUTOCONFIG_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is not XML that can be read: {0}")]
    NotXml(String),
    #[error("it names no server with TLS")]
    NoServer,
}

/// The first file that names servers, with its URL less the query.
pub(super) async fn find(http: &Http, places: &Places, domain: &str, email: &str) -> Option<(String, File)> {
    for place in &places.urls {
        let Some(url) = url(place, domain, email) else { continue };
        let mut shown = url.clone();
        shown.set_query(None);
        match fetch(http, places, &url).await.and_then(|body| {
            let file = read(&body, domain, email);
            file.map_err(|error| error.to_string())
        }) {
            Ok(file) => return Some((shown.into(), file)),
            Err(problem) => tracing::debug!(url = %shown, problem, "no autoconfig file"),
        }
    }
    None
}

/// The URL of a place. The address is encoded: nothing of it may become a parameter of its own.
fn url(place: &str, domain: &str, email: &str) -> Option<Url> {
    let encoded: String = url::form_urlencoded::byte_serialize(email.as_bytes()).collect();
    let url = Url::parse(&place.replace("{domain}", domain).replace("{email}", &encoded)).ok()?;
    (url.scheme() == "https").then_some(url)
}

async fn fetch(http: &Http, places: &Places, url: &Url) -> Result<Vec<u8>, String> {
    let request = Request::builder().method(Method::GET).uri(url.as_str());
    let request = request
        .header(header::ACCEPT, "text/xml, application/xml")
        .body(Vec::new());
    let request = request.map_err(|error| error.to_string())?;
    let route = match url.host_str().is_some_and(is_loopback_host) {
        true => Route::Loopback,
        false => Route::System,
    };
    let destination = Destination {
        ca_file: places.ca_file.clone(),
        route,
    };
    let sent = http.send(request, &destination, AUTOCONFIG_BYTES_MAX, RECOGNITION_STEP_TIMEOUT);
    // Boxed: a request's state is large, and this future becomes part of another request's.
    let reply = Box::pin(sent).await.map_err(|error| error.to_string())?;
    match reply.status {
        200 => Ok(reply.body.to_vec()),
        status => Err(format!("HTTP {status}")),
    }
}

/// Reads a document for a mailbox.
pub(super) fn read(body: &[u8], domain: &str, email: &str) -> Result<File, Unusable> {
    if body.len() > AUTOCONFIG_BYTES_MAX {
        return Err(Unusable::TooLong);
    }
    let text = std::str::from_utf8(body).map_err(|error| Unusable::NotXml(error.to_string()))?;
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: AUTOCONFIG_NODES_MAX,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| Unusable::NotXml(error.to_string()))?;
    let provider = child(document.root_element(), "emailProvider").ok_or(Unusable::NoServer)?;
    let mut file = File {
        servers: Servers::default(),
        passwords: false,
    };
    for element in provider.children().filter(Node::is_element) {
        let slot = match (element.tag_name().name(), element.attribute("type")) {
            ("incomingServer", Some("imap")) => &mut file.servers.imap,
            ("incomingServer", Some("pop3")) => &mut file.servers.pop3,
            ("outgoingServer", Some("smtp")) => &mut file.servers.smtp,
            _ => continue,
        };
        // They stand in the order of preference.
        if let (None, Some(found)) = (&slot, server(element, domain, email)) {
            *slot = Some(found);
            file.passwords |= takes(element, PASSWORD);
        }
    }
    match file.servers.is_empty() {
        true => Err(Unusable::NoServer),
        false => Ok(file),
    }
}

/// A server, if it is one that a login may go to at all.
fn server(element: Node<'_, '_>, domain: &str, email: &str) -> Option<Server> {
    let tls = match text(element, "socketType")? {
        "SSL" => UpstreamTls::Implicit,
        "STARTTLS" => UpstreamTls::Starttls,
        _ => return None,
    };
    if !takes(element, PASSWORD) && !takes(element, "OAuth2") {
        return None;
    }
    let host = filled(text(element, "hostname")?, domain, email).to_ascii_lowercase();
    // An address would be nothing that a certificate is for, and "2130706433" is one in disguise.
    let is_name = is_host_name(&host) && matches!(Host::parse(&host), Ok(Host::Domain(_)));
    let port = text(element, "port")?.parse().ok().filter(|port| *port != 0)?;
    if !is_name || is_loopback_host(&host) {
        return None;
    }
    let user = text(element, "username").map(|user| filled(user, domain, email));
    let user = user.filter(|user| user != email);
    if user.as_ref().is_some_and(|user| !is_login_name(user)) {
        return None;
    }
    Some(Server {
        endpoint: Endpoint { host, port, tls },
        user,
    })
}

/// Replaces the placeholders of Mozilla's form.
fn filled(text: &str, domain: &str, email: &str) -> String {
    let local = email.rsplit_once('@').map_or(email, |(local, _)| local);
    text.replace("%EMAILADDRESS%", email)
        .replace("%EMAILLOCALPART%", local)
        .replace("%EMAILDOMAIN%", domain)
}

/// A placeholder that nobody knows is no name.
fn is_login_name(user: &str) -> bool {
    let is_bounded = (1..=LABEL_CHARS_MAX).contains(&user.chars().count());
    is_bounded && !user.contains('%') && !user.chars().any(char::is_control)
}

fn takes(element: Node<'_, '_>, way: &str) -> bool {
    let mut ways = element.children().filter(|node| node.has_tag_name("authentication"));
    ways.any(|node| node.text().is_some_and(|text| text.trim() == way))
}

fn child<'a, 'i>(element: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    element.children().find(|node| node.has_tag_name(name))
}

fn text<'a>(element: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let text = child(element, name)?.text()?.trim();
    (!text.is_empty()).then_some(text)
}

/// A password in clear, which TLS protects.
const PASSWORD: &str = "password-cleartext";
