//! The rows. Each is from its provider's own documentation; hosts and scopes change rarely, and then here.

use super::{Preset, PresetEndpoint, PresetOAuth, PresetScopes, RefreshScopes};
use crate::config::{UpstreamTls, UserRule};
use crate::proto::Mechanism;

/// Every preset; of several clouds the usual one first.
pub(super) const PRESETS: &[Preset] = &[
    GOOGLE,
    MICROSOFT,
    MICROSOFT_GCC_HIGH,
    MICROSOFT_DOD,
    MICROSOFT_CHINA,
    ICLOUD,
];

/// Gmail and Google Workspace (developers.google.com/workspace/gmail/imap/imap-smtp). The device flow is closed to the mail
/// scope. "Too many simultaneous connections" is its answer to the sixteenth session.
const GOOGLE: Preset = Preset {
    name: "google",
    cloud: "",
    oauth: Some(PresetOAuth {
        authorize_url: "https://accounts.google.com/o/oauth2/v2/auth",
        token_url: "https://oauth2.googleapis.com/token",
        device_url: None,
        scopes: PresetScopes {
            imap: "https://mail.google.com/",
            smtp: "https://mail.google.com/",
            pop3: "https://mail.google.com/",
            common: &[],
        },
        identity: &["openid", "email"],
        app: &["https://mail.google.com/"],
        // Without the first there is no refresh token, without the second only at the very first consent.
        parameters: &[("access_type", "offline"), ("prompt", "consent")],
        revocation_url: Some("https://oauth2.googleapis.com/revoke"),
        refresh: RefreshScopes::Unnamed,
    }),
    sasl: &[Mechanism::OAuthBearer, Mechanism::XOAuth2],
    imap: Some(implicit("imap.gmail.com", 993)),
    smtp: Some(implicit("smtp.gmail.com", 465)),
    pop3: Some(implicit("pop.gmail.com", 995)),
    sessions_per_account_max: Some(15),
    submissions_max: None,
    domains: &["gmail.com", "googlemail.com"],
    imap_user: UserRule::Address,
    advice: "Create an OAuth client of type \"Desktop app\" in a Google Cloud project of your own, with the scope \
             https://mail.google.com/, and publish the app: in Testing, Google ends every grant after seven days.",
};

/// Microsoft 365 and Outlook.com (learn.microsoft.com/exchange/client-developer/legacy-protocols), worldwide and GCC.
/// "432 4.3.2 Concurrent connections limit exceeded" is its answer to the fourth submission.
const MICROSOFT: Preset = Preset {
    name: "microsoft",
    cloud: "global",
    oauth: Some(PresetOAuth {
        authorize_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
        token_url: "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
        device_url: Some("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/devicecode"),
        scopes: PresetScopes {
            imap: "https://outlook.office.com/IMAP.AccessAsUser.All",
            smtp: "https://outlook.office.com/SMTP.Send",
            pop3: "https://outlook.office.com/POP.AccessAsUser.All",
            common: &["offline_access"],
        },
        identity: MICROSOFT_IDENTITY,
        app: &["https://outlook.office365.com/.default"],
        parameters: &[],
        revocation_url: None,
        refresh: RefreshScopes::Consented,
    }),
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("outlook.office365.com", 993)),
    smtp: Some(starttls("smtp.office365.com", 587)),
    pop3: Some(implicit("outlook.office365.com", 995)),
    sessions_per_account_max: None,
    submissions_max: Some(3),
    domains: &["outlook.com", "hotmail.com", "live.com", "msn.com"],
    imap_user: UserRule::Address,
    advice: "Register an app in your directory (Entra ID), add http://localhost as a redirect URI of a mobile and desktop \
             application, allow public client flows, and give it the delegated permissions IMAP.AccessAsUser.All, \
             POP.AccessAsUser.All and SMTP.Send of Office 365 Exchange Online; an administrator consents to it once.",
};

/// The cloud of the United States' government. GCC without "High" is the global cloud.
const MICROSOFT_GCC_HIGH: Preset = Preset {
    cloud: "gcc-high",
    oauth: Some(US_GOVERNMENT),
    imap: Some(implicit("outlook.office365.us", 993)),
    smtp: Some(starttls("smtp.office365.us", 587)),
    pop3: Some(implicit("outlook.office365.us", 995)),
    domains: &[],
    ..MICROSOFT
};

/// The cloud of the United States' Department of Defense: the same login, other hosts.
const MICROSOFT_DOD: Preset = Preset {
    cloud: "dod",
    oauth: Some(US_GOVERNMENT),
    imap: Some(implicit("outlook-dod.office365.us", 993)),
    smtp: Some(starttls("outlook-dod.office365.us", 587)),
    pop3: Some(implicit("outlook-dod.office365.us", 995)),
    domains: &[],
    ..MICROSOFT
};

/// The cloud that 21Vianet operates.
const MICROSOFT_CHINA: Preset = Preset {
    cloud: "china",
    oauth: Some(PresetOAuth {
        authorize_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/authorize",
        token_url: "https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/token",
        device_url: Some("https://login.partner.microsoftonline.cn/{tenant}/oauth2/v2.0/devicecode"),
        scopes: PresetScopes {
            imap: "https://partner.outlook.cn/IMAP.AccessAsUser.All",
            smtp: "https://partner.outlook.cn/SMTP.Send",
            pop3: "https://partner.outlook.cn/POP.AccessAsUser.All",
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
    ..MICROSOFT
};

/// Not of a mail resource: they may stand beside its scopes (learn.microsoft.com/entra/identity-platform/scopes-oidc).
const MICROSOFT_IDENTITY: &[&str] = &["openid", "email", "profile"];

const US_GOVERNMENT: PresetOAuth = PresetOAuth {
    authorize_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/authorize",
    token_url: "https://login.microsoftonline.us/{tenant}/oauth2/v2.0/token",
    device_url: Some("https://login.microsoftonline.us/{tenant}/oauth2/v2.0/devicecode"),
    scopes: PresetScopes {
        imap: "https://outlook.office365.us/IMAP.AccessAsUser.All",
        smtp: "https://outlook.office365.us/SMTP.Send",
        pop3: "https://outlook.office365.us/POP.AccessAsUser.All",
        common: &["offline_access"],
    },
    identity: MICROSOFT_IDENTITY,
    app: &["https://outlook.office365.us/.default"],
    parameters: &[],
    revocation_url: None,
    refresh: RefreshScopes::Consented,
};

/// iCloud Mail (support.apple.com/102525): app-specific passwords only, no POP3, and for IMAP the name without the domain.
const ICLOUD: Preset = Preset {
    name: "icloud",
    cloud: "",
    oauth: None,
    sasl: &[],
    imap: Some(implicit("imap.mail.me.com", 993)),
    smtp: Some(starttls("smtp.mail.me.com", 587)),
    pop3: None,
    sessions_per_account_max: None,
    submissions_max: None,
    domains: &["icloud.com", "me.com", "mac.com"],
    imap_user: UserRule::LocalPart,
    advice: "Make an app-specific password at account.apple.com, under Sign-In and Security.",
};

const fn implicit(host: &'static str, port: u16) -> PresetEndpoint {
    PresetEndpoint {
        host,
        port,
        tls: UpstreamTls::Implicit,
    }
}

const fn starttls(host: &'static str, port: u16) -> PresetEndpoint {
    PresetEndpoint {
        host,
        port,
        tls: UpstreamTls::Starttls,
    }
}
