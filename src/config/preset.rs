//! The providers whose hosts, endpoints and scopes are known, as data.
//!
//! No client id is among it: each installation registers its own app. What a table `[provider.NAME]` gives takes the place
//! of what is here, but for domains, which are added.

use super::{Endpoint, UpstreamTls};
use crate::proto::Mechanism;

/// What is known of a provider.
#[derive(Debug, Clone)]
pub struct Preset {
    /// The name that selects it: `[provider.NAME]`.
    pub name: &'static str,
    /// Its IMAP endpoint.
    pub imap: Option<Endpoint>,
    /// Its submission endpoint.
    pub smtp: Option<Endpoint>,
    /// Its POP3 endpoint.
    pub pop3: Option<Endpoint>,
    /// Its OAuth endpoints; `None` where it takes passwords only.
    pub oauth: Option<PresetOAuth>,
    /// OAuth mechanisms in order of preference.
    pub sasl: &'static [Mechanism],
    /// Sessions that it allows for one mailbox, where it says so.
    pub sessions_per_account_max: Option<usize>,
    /// Submission sessions that it allows at once for one mailbox, where it says so.
    pub submissions_max: Option<usize>,
    /// Domains of its mailboxes.
    pub domains: &'static [&'static str],
}

/// The OAuth side of a [`Preset`].
#[derive(Debug, Clone)]
pub struct PresetOAuth {
    /// Where a mailbox's owner consents.
    pub authorize_url: String,
    /// Where tokens are issued and refreshed.
    pub token_url: String,
    /// Where a device code is asked for (RFC 8628), if that works for mail.
    pub device_url: Option<String>,
    /// The scopes that mail needs.
    pub scopes: Vec<String>,
}

/// The names of all presets, for messages.
pub const NAMES: &[&str] = &["google", "icloud", "microsoft"];

/// Gmail and Google Workspace. The device endpoint refuses the mail scope, so none is given.
pub fn google() -> Preset {
    Preset {
        name: "google",
        imap: implicit("imap.gmail.com", 993),
        smtp: implicit("smtp.gmail.com", 465),
        pop3: implicit("pop.gmail.com", 995),
        oauth: Some(PresetOAuth {
            authorize_url: "https://accounts.google.com/o/oauth2/v2/auth".to_owned(),
            token_url: "https://oauth2.googleapis.com/token".to_owned(),
            device_url: None,
            scopes: vec!["https://mail.google.com/".to_owned()],
        }),
        sasl: &[Mechanism::OAuthBearer, Mechanism::XOAuth2],
        // "Too many simultaneous connections" is its answer to the sixteenth.
        sessions_per_account_max: Some(15),
        submissions_max: None,
        domains: &["gmail.com", "googlemail.com"],
    }
}

/// Microsoft 365 and Outlook.com, in one of its clouds. Tokens are for one resource, which the scopes name.
pub fn microsoft(tenant: &str, cloud: MicrosoftCloud) -> Preset {
    let MicrosoftHosts {
        login,
        mail,
        smtp,
        resource,
    } = cloud.hosts();
    let endpoint = |name: &str| format!("https://{login}/{tenant}/oauth2/v2.0/{name}");
    let scopes = ["IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "SMTP.Send"];
    Preset {
        name: "microsoft",
        imap: implicit(mail, 993),
        smtp: Some(Endpoint {
            host: smtp.to_owned(),
            port: 587,
            tls: UpstreamTls::Starttls,
        }),
        pop3: implicit(mail, 995),
        oauth: Some(PresetOAuth {
            authorize_url: endpoint("authorize"),
            token_url: endpoint("token"),
            device_url: Some(endpoint("devicecode")),
            scopes: scopes
                .iter()
                .map(|scope| format!("https://{resource}/{scope}"))
                .chain(["offline_access".to_owned()])
                .collect(),
        }),
        sasl: &[Mechanism::XOAuth2],
        sessions_per_account_max: None,
        // "432 4.3.2 Concurrent connections limit exceeded" is its answer to the fourth.
        submissions_max: Some(3),
        domains: &["outlook.com", "hotmail.com", "live.com", "msn.com"],
    }
}

/// iCloud Mail: app-specific passwords only, and no POP3.
pub fn icloud() -> Preset {
    Preset {
        name: "icloud",
        imap: implicit("imap.mail.me.com", 993),
        smtp: Some(Endpoint {
            host: "smtp.mail.me.com".to_owned(),
            port: 587,
            tls: UpstreamTls::Starttls,
        }),
        pop3: None,
        oauth: None,
        sasl: &[],
        sessions_per_account_max: None,
        submissions_max: None,
        domains: &["icloud.com", "me.com", "mac.com"],
    }
}

/// `provider.cloud`: which of Microsoft's separate networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MicrosoftCloud {
    /// The worldwide one, GCC included.
    Global,
    /// US Government GCC High.
    GccHigh,
    /// US Department of Defense.
    Dod,
    /// 21Vianet.
    China,
}

struct MicrosoftHosts {
    login: &'static str,
    mail: &'static str,
    smtp: &'static str,
    resource: &'static str,
}

impl MicrosoftCloud {
    const fn hosts(self) -> MicrosoftHosts {
        match self {
            Self::Global => MicrosoftHosts {
                login: "login.microsoftonline.com",
                mail: "outlook.office365.com",
                smtp: "smtp.office365.com",
                resource: "outlook.office.com",
            },
            Self::GccHigh => MicrosoftHosts {
                login: "login.microsoftonline.us",
                mail: "outlook.office365.us",
                smtp: "smtp.office365.us",
                resource: "outlook.office365.us",
            },
            Self::Dod => MicrosoftHosts {
                login: "login.microsoftonline.us",
                mail: "outlook-dod.office365.us",
                smtp: "outlook-dod.office365.us",
                resource: "outlook.office365.us",
            },
            Self::China => MicrosoftHosts {
                login: "login.partner.microsoftonline.cn",
                mail: "partner.outlook.cn",
                smtp: "partner.outlook.cn",
                resource: "partner.outlook.cn",
            },
        }
    }
}

fn implicit(host: &str, port: u16) -> Option<Endpoint> {
    Some(Endpoint {
        host: host.to_owned(),
        port,
        tls: UpstreamTls::Implicit,
    })
}
