//! Yahoo and what it runs for others. Its OAuth for mail is for apps that Yahoo approved one by one, so that app passwords are the
//! usual way; with an approved `client_id` these presets have the rest.

use super::implicit;
use crate::config::UserRule;
use crate::config::preset::{Preset, PresetOAuth, PresetScopes, RefreshScopes};
use crate::proto::Mechanism;

/// Yahoo Mail (help.yahoo.com/kb/SLN4075.html; api.login.yahoo.com/.well-known/openid-configuration).
pub(super) const YAHOO: Preset = Preset {
    name: "yahoo",
    title: "Yahoo",
    cloud: "",
    oauth: Some(PresetOAuth {
        authorize_url: "https://api.login.yahoo.com/oauth2/request_auth",
        token_url: "https://api.login.yahoo.com/oauth2/get_token",
        issuer: None,
        device_url: None,
        revocation_url: Some("https://api.login.yahoo.com/oauth2/revoke"),
        scopes: MAIL,
        identity: &[],
        app: &[],
        parameters: &[],
        refresh: RefreshScopes::Unnamed,
    }),
    passwords: true,
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("imap.mail.yahoo.com", 993)),
    smtp: Some(implicit("smtp.mail.yahoo.com", 465)),
    pop3: Some(implicit("pop.mail.yahoo.com", 995)),
    sessions_per_account_max: None,
    submissions_max: None,
    domains: &[
        "yahoo.com",
        "yahoo.co.nz",
        "yahoo.co.uk",
        "yahoo.com.ar",
        "yahoo.com.au",
        "yahoo.com.br",
        "yahoo.com.mx",
        "yahoo.de",
        "yahoo.es",
        "yahoo.fr",
        "yahoo.it",
        "yahoo.se",
        "myyahoo.com",
        "rocketmail.com",
        "ymail.com",
    ],
    mx: &["yahoodns.net"],
    imap_user: UserRule::Address,
    user: UserRule::Address,
    advice: "By password: turn on two-step verification and generate an app password at \
             https://login.yahoo.com/account/security. By OAuth: only with an app that Yahoo approved for mail, whose client_id \
             and client_secret go into [provider.yahoo] and whose redirect URI must be https.",
};

/// AOL Mail: Yahoo's, under its own names.
pub(super) const AOL: Preset = Preset {
    name: "aol",
    title: "AOL",
    oauth: Some(PresetOAuth {
        authorize_url: "https://api.login.aol.com/oauth2/request_auth",
        token_url: "https://api.login.aol.com/oauth2/get_token",
        issuer: None,
        device_url: None,
        revocation_url: None,
        scopes: MAIL,
        identity: &[],
        app: &[],
        parameters: &[],
        refresh: RefreshScopes::Unnamed,
    }),
    imap: Some(implicit("imap.aol.com", 993)),
    smtp: Some(implicit("smtp.aol.com", 465)),
    pop3: Some(implicit("pop.aol.com", 995)),
    domains: &[
        "aol.com",
        "aol.co.nz",
        "aol.co.uk",
        "aol.com.ar",
        "aol.com.au",
        "aol.com.br",
        "aol.com.mx",
        "aol.de",
        "aol.es",
        "aol.fr",
        "aol.it",
        "aol.se",
        "aim.com",
        "compuserve.com",
        "cs.com",
        "netscape.com",
        "netscape.net",
        "verizon.net",
        "wmconnect.com",
    ],
    mx: &["mail.gm0.yahoodns.net"],
    advice: "By password: turn on two-step verification and generate an app password at \
             https://login.aol.com/account/security. By OAuth: only with an app that Yahoo approved for mail, whose client_id and \
             client_secret go into [provider.aol] and whose redirect URI must be https.",
    ..YAHOO
};

/// AT&T Mail: Yahoo's servers, and no OAuth for apps of others.
pub(super) const ATT: Preset = Preset {
    name: "att",
    title: "AT&T",
    oauth: None,
    sasl: &[],
    imap: Some(implicit("imap.mail.att.net", 993)),
    smtp: Some(implicit("smtp.mail.att.net", 465)),
    pop3: Some(implicit("inbound.att.net", 995)),
    domains: &[
        "att.net",
        "ameritech.net",
        "bellsouth.net",
        "currently.com",
        "flash.net",
        "nvbell.net",
        "pacbell.net",
        "prodigy.net",
        "sbcglobal.net",
        "snet.net",
        "swbell.net",
        "wans.net",
    ],
    mx: &[],
    advice: "Make a secure mail key in the profile of your AT&T account, under sign-in info, and give it as the password.",
    ..YAHOO
};

/// Reading and writing, which one scope covers for all three protocols.
const MAIL: PresetScopes = PresetScopes {
    imap: Some("mail-w"),
    smtp: Some("mail-w"),
    pop3: Some("mail-w"),
    common: &[],
};
