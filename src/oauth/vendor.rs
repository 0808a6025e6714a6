//! Whose token endpoint it is, as far as its own ways of refusing are known. Pure.

use url::Url;

use crate::config::Provider;

/// Who runs a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vendor {
    /// Google.
    Google,
    /// Microsoft, in each of its clouds.
    Microsoft,
    /// Yahoo, and what it runs for AOL and AT&T.
    Yahoo,
    /// Yandex.
    Yandex,
    /// Mail.ru.
    MailRu,
    /// Zoho, which has no preset with OAuth, but whose endpoint somebody may configure.
    Zoho,
    /// Somebody whose codes are RFC 6749's, as far as is known.
    #[default]
    Other,
}

impl Vendor {
    /// Who runs the token endpoint of `provider`: a preset's vendor wherever its URLs lead, else by the endpoint's host.
    pub fn of(provider: &Provider) -> Self {
        let by_name = PRESETS.iter().find(|(name, _)| *name == provider.name);
        if let Some((_, vendor)) = by_name {
            return *vendor;
        }
        let app = provider.oauth.as_ref();
        let urls = app.into_iter().flat_map(|app| [&app.token_url, &app.issuer]);
        urls.flatten().find_map(Self::by_host).unwrap_or_default()
    }

    fn by_host(url: &Url) -> Option<Self> {
        let host = url.host_str()?;
        let is_of = |domain: &str| {
            host.strip_suffix(domain)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let row = HOSTS.iter().find(|(domain, _)| is_of(domain));
        row.map(|(_, vendor)| *vendor)
    }
}

/// The presets whose vendors have codes of their own.
const PRESETS: &[(&str, Vendor)] = &[
    ("google", Vendor::Google),
    ("microsoft", Vendor::Microsoft),
    ("yahoo", Vendor::Yahoo),
    ("aol", Vendor::Yahoo),
    ("att", Vendor::Yahoo),
    ("yandex", Vendor::Yandex),
    ("mailru", Vendor::MailRu),
];

/// Domains of token endpoints, past and present.
const HOSTS: &[(&str, Vendor)] = &[
    ("oauth2.googleapis.com", Vendor::Google),
    ("www.googleapis.com", Vendor::Google),
    ("accounts.google.com", Vendor::Google),
    ("microsoftonline.com", Vendor::Microsoft),
    ("microsoftonline.us", Vendor::Microsoft),
    ("partner.microsoftonline.cn", Vendor::Microsoft),
    ("chinacloudapi.cn", Vendor::Microsoft),
    ("login.windows.net", Vendor::Microsoft),
    ("login.live.com", Vendor::Microsoft),
    ("login.yahoo.com", Vendor::Yahoo),
    ("login.aol.com", Vendor::Yahoo),
    ("oauth.yandex.com", Vendor::Yandex),
    ("oauth.yandex.ru", Vendor::Yandex),
    ("mail.ru", Vendor::MailRu),
    ("accounts.zoho.com", Vendor::Zoho),
    ("accounts.zoho.eu", Vendor::Zoho),
    ("accounts.zoho.in", Vendor::Zoho),
    ("accounts.zoho.com.au", Vendor::Zoho),
    ("accounts.zoho.jp", Vendor::Zoho),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OAuthApp, test_support};

    #[test]
    fn a_vendor_is_known_by_its_preset_or_by_the_host_of_its_endpoint() {
        let of = |name: &str, token_url: Option<&str>, issuer: Option<&str>| {
            let app = OAuthApp {
                token_url: token_url.map(|url| url.parse().unwrap()),
                issuer: issuer.map(|url| url.parse().unwrap()),
                ..test_support::app()
            };
            Vendor::of(&test_support::provider(name, Some(app)))
        };
        assert_eq!(of("att", None, None), Vendor::Yahoo);
        assert_eq!(
            of("microsoft", Some("http://127.0.0.1:1/token"), None),
            Vendor::Microsoft
        );
        for (token_url, vendor) in [
            (
                "https://login.microsoftonline.com/common/oauth2/v2.0/token",
                Vendor::Microsoft,
            ),
            (
                "https://login.partner.microsoftonline.cn/x/oauth2/v2.0/token",
                Vendor::Microsoft,
            ),
            ("https://oauth2.googleapis.com/token", Vendor::Google),
            ("https://api.login.yahoo.com/oauth2/get_token", Vendor::Yahoo),
            ("https://accounts.zoho.eu/oauth/v2/token", Vendor::Zoho),
            ("https://o2.mail.ru/token", Vendor::MailRu),
            ("https://hotmail.ru/token", Vendor::Other),
            ("https://id.example.com/token", Vendor::Other),
        ] {
            assert_eq!(of("own", Some(token_url), None), vendor, "{token_url}");
        }
        assert_eq!(of("own", None, Some("https://accounts.google.com")), Vendor::Google);
        assert_eq!(Vendor::of(&test_support::provider("own", None)), Vendor::Other);
    }
}
