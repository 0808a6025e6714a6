//! Presets: what is publicly known of the large providers, as data.
//!
//! A preset fills in what a `[provider.NAME]` table leaves out. It never holds an app's id: each installation registers its
//! own. A provider that is not here is configured by hand.

mod table;

use crate::config::{ClientAuth, UpstreamTls};
use crate::proto::{Mechanism, Protocol};

/// What is known of a provider, in one of its clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name of the table that it completes.
    pub name: &'static str,
    /// Its value of `provider.cloud`; empty where the provider has but one.
    pub cloud: &'static str,
    /// Its OAuth endpoints; `None`: it takes passwords only.
    pub oauth: Option<PresetOAuth>,
    /// OAuth mechanisms in order of preference.
    pub sasl: &'static [Mechanism],
    /// Its IMAP endpoint.
    pub imap: Option<PresetEndpoint>,
    /// Its SMTP endpoint.
    pub smtp: Option<PresetEndpoint>,
    /// Its POP3 endpoint.
    pub pop3: Option<PresetEndpoint>,
    /// Sessions it allows to one account, where it says so.
    pub sessions_per_account_max: Option<usize>,
    /// E-mail domains that are its own.
    pub domains: &'static [&'static str],
    /// What it takes as the login name for IMAP.
    pub imap_user: UserRule,
}

/// A preset's OAuth2 side. `{tenant}` in a URL stands for the configured tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresetOAuth {
    /// Where the mailbox's owner consents.
    pub authorize_url: &'static str,
    /// Where tokens are obtained and refreshed.
    pub token_url: &'static str,
    /// Where the device flow begins, if it is open to mail scopes.
    pub device_url: Option<&'static str>,
    /// How an app authenticates where the table does not say.
    pub client_auth: ClientAuth,
    /// The scope for IMAP.
    pub imap_scope: &'static str,
    /// The scope for SMTP.
    pub smtp_scope: &'static str,
    /// The scope for POP3.
    pub pop3_scope: &'static str,
    /// Scopes to ask for beside a protocol's when a mailbox is authorized.
    pub common_scopes: &'static [&'static str],
    /// Scopes to ask for when refreshing. Empty: the grant's own, which is the default of RFC 6749 §6.
    pub refresh_scopes: &'static [&'static str],
}

/// Where a preset's protocol is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresetEndpoint {
    /// Host name.
    pub host: &'static str,
    /// TCP port.
    pub port: u16,
    /// How it is protected.
    pub tls: UpstreamTls,
}

/// What a provider takes as login name, where an account names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserRule {
    /// The e-mail address.
    Address,
    /// What stands before its `@`.
    LocalPart,
}

impl Preset {
    /// The endpoint for `protocol`, if the provider has one.
    pub fn endpoint(&self, protocol: Protocol) -> Option<PresetEndpoint> {
        match protocol {
            Protocol::Imap => self.imap,
            Protocol::Smtp => self.smtp,
            Protocol::Pop3 => self.pop3,
        }
    }
}

impl PresetOAuth {
    /// The scope that a protocol needs.
    pub fn scope(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Imap => self.imap_scope,
            Protocol::Smtp => self.smtp_scope,
            Protocol::Pop3 => self.pop3_scope,
        }
    }

    /// The token endpoint for `tenant`, which is ignored by providers without tenants.
    pub fn token_url_for(&self, tenant: &str) -> String {
        self.token_url.replace(TENANT, tenant)
    }
}

impl UserRule {
    /// The login name made of an address.
    pub fn apply(self, address: &str) -> &str {
        match self {
            Self::Address => address,
            Self::LocalPart => address.rsplit_once('@').map_or(address, |(local, _)| local),
        }
    }
}

/// The preset called `name`, in its first cloud where it has several.
pub fn preset(name: &str) -> Option<&'static Preset> {
    table::PRESETS.iter().find(|preset| preset.name == name)
}

/// The preset called `name` in the cloud called `cloud`.
pub fn preset_in_cloud(name: &str, cloud: &str) -> Option<&'static Preset> {
    table::PRESETS
        .iter()
        .find(|preset| preset.name == name && preset.cloud == cloud)
}

/// The names of a preset's clouds, for an error message; empty where it has but one.
pub fn clouds(name: &str) -> impl Iterator<Item = &'static str> {
    let rows = table::PRESETS.iter().filter(move |preset| preset.name == name);
    rows.map(|preset| preset.cloud).filter(|cloud| !cloud.is_empty())
}

/// The preset whose own domain `domain` is, without regard to case.
pub fn by_domain(domain: &str) -> Option<&'static Preset> {
    let is_own = |preset: &&Preset| preset.domains.iter().any(|own| own.eq_ignore_ascii_case(domain));
    table::PRESETS.iter().find(is_own)
}

/// The placeholder for the tenant in a preset's URLs.
pub const TENANT: &str = "{tenant}";

/// The tenant where a table names none: any work, school or personal account.
pub const TENANT_DEFAULT: &str = "common";

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    #[test]
    fn presets_are_found_by_name_cloud_and_domain() {
        assert_eq!(preset("google").unwrap().imap.unwrap().host, "imap.gmail.com");
        assert_eq!(preset("microsoft").unwrap().cloud, "global");
        assert_eq!(preset("nobody"), None);
        assert_eq!(by_domain("GMail.com").unwrap().name, "google");
        assert_eq!(by_domain("outlook.com").unwrap().name, "microsoft");
        assert_eq!(by_domain("example.com"), None);
        assert_eq!(
            clouds("microsoft").collect::<Vec<_>>(),
            ["global", "gcc-high", "dod", "china"]
        );
        assert_eq!(clouds("google").count(), 0);
        let dod = preset_in_cloud("microsoft", "dod").unwrap();
        assert_eq!(dod.imap.unwrap().host, "outlook-dod.office365.us");
    }

    #[test]
    fn every_url_is_https_once_the_tenant_is_filled_in() {
        for preset in table::PRESETS {
            let Some(oauth) = preset.oauth else { continue };
            let token_url = oauth.token_url_for("organizations");
            assert!(!token_url.contains(['{', '}']), "{token_url}");
            assert_eq!(Url::parse(&token_url).unwrap().scheme(), "https");
            for url in [Some(oauth.authorize_url), oauth.device_url].into_iter().flatten() {
                assert_eq!(Url::parse(&url.replace(TENANT, "common")).unwrap().scheme(), "https");
            }
        }
    }

    #[test]
    fn a_refresh_asks_for_the_scopes_of_one_resource_only() {
        // Microsoft refuses a request that names scopes of several (AADSTS28000).
        for preset in table::PRESETS {
            let scopes = preset.oauth.map_or(&[][..], |oauth| oauth.refresh_scopes);
            let resources = scopes.iter().filter_map(|scope| Url::parse(scope).ok());
            let hosts = resources.filter_map(|url| url.host_str().map(str::to_owned));
            assert!(
                hosts.collect::<std::collections::HashSet<_>>().len() <= 1,
                "{}",
                preset.name
            );
        }
    }

    #[test]
    fn icloud_takes_the_local_part() {
        let rule = preset("icloud").unwrap().imap_user;
        assert_eq!(rule.apply("ada@icloud.com"), "ada");
        assert_eq!(rule.apply("ada"), "ada");
        assert_eq!(
            preset("google").unwrap().imap_user.apply("ada@gmail.com"),
            "ada@gmail.com"
        );
    }
}
