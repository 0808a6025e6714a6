//! Microsoft, in each of its clouds.

use super::{implicit, starttls};
use crate::config::UserRule;
use crate::config::preset::{Preset, PresetOAuth, PresetScopes, RefreshScopes};
use crate::proto::Mechanism;

/// Microsoft 365 and Outlook.com (learn.microsoft.com/exchange/client-developer/legacy-protocols), worldwide and GCC.
/// "432 4.3.2 Concurrent connections limit exceeded" is its answer to the fourth submission. Personal mailboxes are documented
/// with smtp-mail.outlook.com, and smtp.office365.com takes them, too (Mozilla's database lists both for hotmail.com).
pub(super) const MICROSOFT: Preset = Preset {
    name: "microsoft",
    title: "Microsoft",
    cloud: "global",
    oauth: Some(PresetOAuth {
        authorize_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        token_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        issuer: None,
        device_url: Some("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode"),
        scopes: PresetScopes {
            imap: Some("https://outlook.office.com/IMAP.AccessAsUser.All"),
            smtp: Some("https://outlook.office.com/SMTP.Send"),
            pop3: Some("https://outlook.office.com/POP.AccessAsUser.All"),
            common: &["offline_access"],
        },
        identity: MICROSOFT_IDENTITY,
        app: &["https://outlook.office365.com/.default"],
        parameters: &[],
        revocation_url: None,
        refresh: RefreshScopes::Consented,
    }),
    passwords: false,
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("outlook.office365.com", 993)),
    smtp: Some(starttls("smtp.office365.com", 587)),
    pop3: Some(implicit("outlook.office365.com", 995)),
    sessions_per_account_max: None,
    submissions_max: Some(3),
    domains: &["outlook.com", "hotmail.com", "live.com", "msn.com", "windowslive.com"],
    mx: &["protection.outlook.com", "mx.microsoft"],
    imap_user: UserRule::Address,
    user: UserRule::Address,
    advice: "It takes no passwords, only OAuth: register an app in a directory (Entra ID), add http://localhost as a redirect \
             URI for mobile and desktop applications, allow public client flows, give it the delegated permissions \
             IMAP.AccessAsUser.All, POP.AccessAsUser.All and SMTP.Send of Office 365 Exchange Online, and set client_id in \
             [provider.microsoft]. In an organization an administrator consents to it once.",
};

/// The cloud of the United States' government. GCC without "High" is the global cloud.
pub(super) const MICROSOFT_GCC_HIGH: Preset = Preset {
    cloud: "gcc-high",
    oauth: Some(US_GOVERNMENT),
    imap: Some(implicit("outlook.office365.us", 993)),
    smtp: Some(starttls("smtp.office365.us", 587)),
    pop3: Some(implicit("outlook.office365.us", 995)),
    domains: &[],
    mx: &[],
    ..MICROSOFT
};

/// The cloud of the United States' Department of Defense: the same login, other hosts.
pub(super) const MICROSOFT_DOD: Preset = Preset {
    cloud: "dod",
    oauth: Some(US_GOVERNMENT),
    imap: Some(implicit("outlook-dod.office365.us", 993)),
    smtp: Some(starttls("outlook-dod.office365.us", 587)),
    pop3: Some(implicit("outlook-dod.office365.us", 995)),
    domains: &[],
    mx: &[],
    ..MICROSOFT
};

/// The cloud that 21Vianet operates.
pub(super) const MICROSOFT_CHINA: Preset = Preset {
    cloud: "china",
    oauth: Some(PresetOAuth {
        authorize_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/authorize",
        token_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/token",
        issuer: None,
        device_url: Some("https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/devicecode"),
        scopes: PresetScopes {
            imap: Some("https://partner.outlook.cn/IMAP.AccessAsUser.All"),
            smtp: Some("https://partner.outlook.cn/SMTP.Send"),
            pop3: Some("https://partner.outlook.cn/POP.AccessAsUser.All"),
            common: &["offline_access"],
        },
        identity: MICROSOFT_IDENTITY,
        app: &["https://partner.outlook.cn/.default"],
        parameters: &[],
        revocation_url: None,
        refresh: RefreshScopes::Consented,
    }),
    imap: Some(implicit("partner.outlook.cn", 993)),
    smtp: Some(starttls("partner.outlook.cn", 587)),
    pop3: Some(implicit("partner.outlook.cn", 995)),
    domains: &[],
    mx: &[],
    ..MICROSOFT
};

/// Not of a mail resource: they may stand beside its scopes (learn.microsoft.com/entra/identity-platform/scopes-oidc).
const MICROSOFT_IDENTITY: &[&str] = &["openid", "email", "profile"];

const US_GOVERNMENT: PresetOAuth = PresetOAuth {
    authorize_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/authorize",
    token_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/token",
    issuer: None,
    device_url: Some("https://login.microsoftonline.us/{tenant}/oauth2/v2.0/devicecode"),
    scopes: PresetScopes {
        imap: Some("https://outlook.office365.us/IMAP.AccessAsUser.All"),
        smtp: Some("https://outlook.office365.us/SMTP.Send"),
        pop3: Some("https://outlook.office365.us/POP.AccessAsUser.All"),
        common: &["offline_access"],
    },
    identity: MICROSOFT_IDENTITY,
    app: &["https://outlook.office365.us/.default"],
    parameters: &[],
    revocation_url: None,
    refresh: RefreshScopes::Consented,
};
