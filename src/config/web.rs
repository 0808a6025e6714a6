//! `[web]` and `[hooks]`: what the daemon shows to browsers, and whom it tells of accounts' troubles.

use url::Url;

use super::listener::{CERTIFICATE_DEFAULT, believed};
use super::load::Check;
use super::raw::{self, Key};
use super::report::{place, text};
use super::secret::{self, Forms};
use super::{Hooks, Web};
use crate::host::is_loopback_host;
use crate::secret::Maker;

/// `[web]`
pub(super) fn web(check: &mut Check<'_>, file: &raw::File) -> Web {
    let raw = &file.web;
    let listen = text(&raw.listen).and_then(|given| check.report.address("web.listen", place(&raw.listen), given));
    let public_url = url(check, "web.public_url", &raw.public_url);
    if let Some(url) = &public_url
        && url.query().is_some()
    {
        check.report.refuse(
            place(&raw.public_url),
            "web.public_url",
            "must not have a query; links and the redirect are paths below it",
        );
    }
    if text(&raw.listen).is_some() && text(&raw.public_url).is_none() {
        let message =
            "is missing; give the URL under which browsers reach web.listen, such as https://mail.example.com";
        check.report.refuse(place(&raw.listen), "web.public_url", message);
    }
    let web = Web {
        listen,
        public_url,
        certificate: certificate(file),
        trusted_proxies: believed(check, "web.trusted_proxies", &raw.trusted_proxies),
    };
    if web.listen.is_some() {
        check_protection(check, file, &web);
    }
    web
}

/// The certificate's name: `default` where none is given, none where it is given as nothing.
fn certificate(file: &raw::File) -> Option<String> {
    let given = file.web.certificate.as_ref().map(|given| given.get_ref().as_str());
    let name = given.unwrap_or(CERTIFICATE_DEFAULT);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Consent must not be given over a line that others read: TLS here, or a proxy that has it.
fn check_protection(check: &mut Check<'_>, file: &raw::File, web: &Web) {
    let at = place(&file.web.certificate).or_else(|| place(&file.web.listen));
    match &web.certificate {
        Some(name) if check.whole && !file.certificate.contains_key(name) => {
            let message = format!(
                "there is no [certificate.{name}]; give it files, or self_signed = true, or certificate = \"\" for plain HTTP \
                 on loopback or behind a proxy"
            );
            check.report.refuse(at, "web.certificate", message);
        }
        Some(_) => {}
        None => {
            let is_local = web.listen.is_some_and(|address| address.ip().is_loopback());
            if !is_local && web.trusted_proxies.is_empty() {
                let message = "plain HTTP is for loopback addresses, or behind a proxy that trusted_proxies names";
                check.report.refuse(at, "web.certificate", message);
            }
        }
    }
}

/// `[hooks]`
pub(super) fn hooks(check: &mut Check<'_>, raw: &raw::Hooks) -> Hooks {
    let forms = Forms {
        section: "hooks",
        name: "webhook_secret",
        value: &raw.webhook_secret,
        file: &raw.webhook_secret_file,
        variable: &raw.webhook_secret_env,
        made_by: Maker::Person,
    };
    let webhook_secret = secret::resolve(check, &forms);
    let webhook_url = url(check, "hooks.webhook_url", &raw.webhook_url);
    if webhook_url.is_some() && webhook_secret.is_none() {
        check
            .report
            .warn("hooks.webhook_url has no webhook_secret: its posts are not signed".to_owned());
    }
    let env = check.variables("hooks.env", &raw.env);
    Hooks {
        command: check.command("hooks.command", &raw.command, &env),
        env,
        webhook_url,
        webhook_secret,
    }
}

/// A URL over which only a loopback host is reached in clear.
fn url(check: &mut Check<'_>, key: &str, raw: &Key<String>) -> Option<Url> {
    let given = text(raw)?;
    let message = match Url::parse(given) {
        Err(error) => format!("is not a URL ({error}); use one such as https://mail.example.com"),
        Ok(url) => match url.scheme() {
            _ if !url.username().is_empty() || url.password().is_some() => {
                "must not hold a user name or a password".to_owned()
            }
            _ if url.fragment().is_some() => "must not have a fragment".to_owned(),
            "https" if url.has_host() => return Some(url),
            "http" if url.host_str().is_some_and(is_loopback_host) => return Some(url),
            _ => "must be https; http is for loopback hosts".to_owned(),
        },
    };
    check.report.refuse(place(raw), key, message);
    None
}
