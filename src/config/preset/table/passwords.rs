//! Providers that take passwords only.

use super::{implicit, starttls};
use crate::config::UserRule;
use crate::config::preset::Preset;

/// iCloud Mail (support.apple.com/102525): app-specific passwords only, no POP3, and for IMAP the name without the domain. The full
/// address, which some mailboxes want there, is not tried after it: each login would be a refused one first, and those are
/// counted; an account names it as its `imap.user`.
pub(super) const ICLOUD: Preset = Preset {
    name: "icloud",
    title: "Apple",
    imap: Some(implicit("imap.mail.me.com", 993)),
    smtp: Some(starttls("smtp.mail.me.com", 587)),
    domains: &["icloud.com", "me.com", "mac.com"],
    mx: &["mail.icloud.com"],
    imap_user: UserRule::LocalPart,
    advice: "Make an app-specific password at https://account.apple.com, under Sign-In and Security. If IMAP refuses the name before \
             the @, give the full address as --imap-user; for a domain of your own, give the name of the iCloud address.",
    ..OTHER
};

/// Zoho Mail, in its data centre in the United States (zoho.com/mail/help/imap-access.html). Its OAuth is for its own API.
pub(super) const ZOHO: Preset = Preset {
    name: "zoho",
    title: "Zoho",
    imap: Some(implicit("imap.zoho.com", 993)),
    smtp: Some(implicit("smtp.zoho.com", 465)),
    pop3: Some(implicit("pop.zoho.com", 995)),
    domains: &["zoho.com", "zohomail.com"],
    mx: &["zoho.com"],
    advice: "Allow IMAP in the mailbox's settings, under Mail Accounts; with two-factor login, make an app password at \
             https://accounts.zoho.com, under Security. For a domain of your own give --imap imappro.zoho.com:993 and --smtp \
             smtppro.zoho.com:465; other data centres end in zoho.eu, zoho.in and so on.",
    ..OTHER
};

/// GMX of the German-speaking countries (hilfe.gmx.net/pop-imap).
pub(super) const GMX: Preset = Preset {
    name: "gmx",
    title: "GMX",
    imap: Some(implicit("imap.gmx.net", 993)),
    smtp: Some(implicit("mail.gmx.net", 465)),
    pop3: Some(implicit("pop.gmx.net", 995)),
    domains: &[
        "gmx.net", "gmx.at", "gmx.biz", "gmx.ch", "gmx.de", "gmx.eu", "gmx.info", "gmx.org",
    ],
    mx: &["gmx.net"],
    advice: GMX_ADVICE,
    ..OTHER
};

/// GMX of all other countries: the same company, other servers.
pub(super) const GMX_COM: Preset = Preset {
    name: "gmx-com",
    title: "GMX",
    imap: Some(implicit("imap.gmx.com", 993)),
    smtp: Some(implicit("mail.gmx.com", 465)),
    pop3: Some(implicit("pop.gmx.com", 995)),
    domains: &[
        "gmx.com",
        "gmx.ca",
        "gmx.co.uk",
        "gmx.es",
        "gmx.fr",
        "gmx.ie",
        "gmx.it",
        "gmx.li",
        "gmx.pt",
        "gmx.se",
        "gmx.us",
    ],
    mx: &["gmx.com"],
    advice: GMX_ADVICE,
    ..OTHER
};

/// WEB.DE (hilfe.web.de/pop-imap): the name without the domain, everywhere. Its POP3 refuses logins that are less than a quarter of
/// an hour apart.
pub(super) const WEBDE: Preset = Preset {
    name: "webde",
    title: "WEB.DE",
    imap: Some(implicit("imap.web.de", 993)),
    smtp: Some(implicit("smtp.web.de", 465)),
    pop3: Some(implicit("pop3.web.de", 995)),
    domains: &["web.de"],
    mx: &["web.de"],
    imap_user: UserRule::LocalPart,
    user: UserRule::LocalPart,
    advice: "Allow POP3 and IMAP in the mailbox's settings; with two-factor login, make an application-specific password there.",
    ..OTHER
};

/// No provider in particular: for accounts that name all their servers themselves.
pub(super) const OTHER: Preset = Preset {
    name: "other",
    title: "another provider",
    cloud: "",
    oauth: None,
    passwords: true,
    sasl: &[],
    imap: None,
    smtp: None,
    pop3: None,
    sessions_per_account_max: None,
    submissions_max: None,
    domains: &[],
    mx: &[],
    imap_user: UserRule::Address,
    user: UserRule::Address,
    advice: "Name the servers with --imap, --smtp and --pop3, and give the mailbox's password, or one made for programs.",
};

const GMX_ADVICE: &str = "Allow POP3 and IMAP in the mailbox's settings; with two-factor login, make an application-specific password \
                          there.";
