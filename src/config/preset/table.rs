//! The rows. Each is from its provider's own documentation, or from what Mozilla's mail programs are set up with (the database
//! at autoconfig.thunderbird.net and Thunderbird's list of OAuth providers); hosts and scopes change rarely, and then here.

mod by_arrangement;
mod microsoft;
mod passwords;
mod yahoo;

use super::{Preset, PresetEndpoint, PresetOAuth, PresetScopes, RefreshScopes};
use crate::config::{UpstreamTls, UserRule};
use crate::proto::Mechanism;
use by_arrangement::{COMCAST, FASTMAIL, MAILRU, SEZNAM, YANDEX};
use microsoft::{MICROSOFT, MICROSOFT_CHINA, MICROSOFT_DOD, MICROSOFT_GCC_HIGH};
use passwords::{GMX, GMX_COM, ICLOUD, OTHER, WEBDE, ZOHO};
use yahoo::{AOL, ATT, YAHOO};

/// Every preset; of several clouds the usual one first.
pub(super) const PRESETS: &[Preset] = &[
    GOOGLE,
    MICROSOFT,
    MICROSOFT_GCC_HIGH,
    MICROSOFT_DOD,
    MICROSOFT_CHINA,
    YAHOO,
    AOL,
    ATT,
    FASTMAIL,
    COMCAST,
    YANDEX,
    MAILRU,
    SEZNAM,
    ICLOUD,
    ZOHO,
    GMX,
    GMX_COM,
    WEBDE,
    OTHER,
];

/// Gmail and Google Workspace (developers.google.com/workspace/gmail/imap/imap-smtp). The device flow is closed to the mail
/// scope. "Too many simultaneous connections" is its answer to the sixteenth session.
const GOOGLE: Preset = Preset {
    name: "google",
    title: "Google",
    cloud: "",
    oauth: Some(PresetOAuth {
        authorize_url: "https://accounts.google.com/o/oauth2/v2/auth",
        token_url: "https://oauth2.googleapis.com/token",
        issuer: Some("https://accounts.google.com"),
        device_url: None,
        scopes: PresetScopes {
            imap: Some("https://mail.google.com/"),
            smtp: Some("https://mail.google.com/"),
            pop3: Some("https://mail.google.com/"),
            common: &[],
        },
        identity: &["openid", "email"],
        app: &[],
        // Without the first there is no refresh token, without the second only at the very first consent.
        parameters: &[("access_type", "offline"), ("prompt", "consent")],
        revocation_url: Some("https://oauth2.googleapis.com/revoke"),
        refresh: RefreshScopes::Unnamed,
    }),
    passwords: true,
    sasl: &[Mechanism::OAuthBearer, Mechanism::XOAuth2],
    imap: Some(implicit("imap.gmail.com", 993)),
    smtp: Some(implicit("smtp.gmail.com", 465)),
    pop3: Some(implicit("pop.gmail.com", 995)),
    sessions_per_account_max: Some(15),
    submissions_max: None,
    domains: &["gmail.com", "googlemail.com"],
    mx: &["google.com", "googlemail.com"],
    imap_user: UserRule::Address,
    user: UserRule::Address,
    advice: "By password: turn on 2-Step Verification and make an app password at https://myaccount.google.com/apppasswords. \
             By OAuth: create a client of type \"Desktop app\" in a Google Cloud project of your own, with the scope \
             https://mail.google.com/, and set client_id and client_secret in [provider.google]; publish the app, for in \
             Testing Google ends every grant after seven days.",
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
