//! Providers whose OAuth for mail takes an app that they know, and that take passwords made for programs besides.

use super::implicit;
use crate::config::UserRule;
use crate::config::preset::{Preset, PresetOAuth, PresetScopes, RefreshScopes};
use crate::proto::Mechanism;

/// Fastmail (fastmail.com/dev). Its token endpoint is called `refresh` for codes, too. PKCE is required, and sent to everybody.
pub(super) const FASTMAIL: Preset = Preset {
    name: "fastmail",
    title: "Fastmail",
    cloud: "",
    oauth: Some(PresetOAuth {
        authorize_url: "https://api.fastmail.com/oauth/authorize",
        token_url: "https://api.fastmail.com/oauth/refresh",
        issuer: None,
        device_url: None,
        revocation_url: Some("https://api.fastmail.com/oauth/revoke"),
        scopes: PresetScopes {
            imap: Some("https://www.fastmail.com/dev/protocol-imap"),
            smtp: Some("https://www.fastmail.com/dev/protocol-smtp"),
            pop3: Some("https://www.fastmail.com/dev/protocol-pop"),
            common: &[],
        },
        identity: &[],
        app: &[],
        parameters: &[],
        refresh: RefreshScopes::Unnamed,
    }),
    passwords: true,
    sasl: &[Mechanism::OAuthBearer, Mechanism::XOAuth2],
    imap: Some(implicit("imap.fastmail.com", 993)),
    smtp: Some(implicit("smtp.fastmail.com", 465)),
    pop3: Some(implicit("pop.fastmail.com", 995)),
    sessions_per_account_max: None,
    submissions_max: None,
    domains: &["fastmail.com", "fastmail.fm"],
    mx: &["messagingengine.com"],
    imap_user: UserRule::Address,
    user: UserRule::Address,
    advice: "By password: make an app password with access to mail, under Settings, Privacy & Security, Manage app passwords. By \
             OAuth: Fastmail registers apps when asked by e-mail; set the client_id it gives in [provider.fastmail].",
};

/// Comcast, whose mailboxes are called Xfinity.
pub(super) const COMCAST: Preset = Preset {
    name: "comcast",
    title: "Comcast",
    oauth: Some(PresetOAuth {
        authorize_url: "https://oauth.xfinity.com/oauth/authorize",
        token_url: "https://oauth.xfinity.com/oauth/token",
        issuer: None,
        revocation_url: None,
        scopes: PresetScopes {
            imap: Some("https://email.comcast.net/"),
            smtp: Some("https://email.comcast.net/"),
            pop3: Some("https://email.comcast.net/"),
            common: &["profile", "openid"],
        },
        ..NOTHING_BUT_MAIL
    }),
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("imap.comcast.net", 993)),
    smtp: Some(implicit("smtp.comcast.net", 465)),
    pop3: Some(implicit("pop.comcast.net", 995)),
    domains: &["comcast.net"],
    mx: &["comcast.net"],
    advice: "By password: allow third-party access in the security settings of Xfinity's webmail, and give the mailbox's own \
             password. By OAuth: only with an app that Comcast registered; set its client_id in [provider.comcast].",
    ..FASTMAIL
};

/// Yandex Mail (yandex.com/dev/id/doc; yandex.ru/support/mail-business/web/security/oauth.html): tokens for IMAP and SMTP, by
/// XOAUTH2, whose continuation request is a bare `+`. Its way to give a token back is not RFC 7009's.
pub(super) const YANDEX: Preset = Preset {
    name: "yandex",
    title: "Yandex",
    oauth: Some(PresetOAuth {
        authorize_url: "https://oauth.yandex.com/authorize",
        token_url: "https://oauth.yandex.com/token",
        issuer: None,
        device_url: Some("https://oauth.yandex.com/device/code"),
        revocation_url: None,
        scopes: PresetScopes {
            imap: Some("mail:imap_full"),
            smtp: Some("mail:smtp"),
            pop3: None,
            common: &[],
        },
        ..NOTHING_BUT_MAIL
    }),
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("imap.yandex.com", 993)),
    smtp: Some(implicit("smtp.yandex.com", 465)),
    pop3: Some(implicit("pop.yandex.com", 995)),
    domains: &[
        "yandex.com",
        "yandex.by",
        "yandex.kz",
        "yandex.ru",
        "yandex.ua",
        "narod.ru",
        "ya.ru",
    ],
    mx: &["mx.yandex.net", "mx.yandex.ru"],
    advice: "In the mailbox's settings, under Email clients, allow IMAP. By password: make an app password for mail at \
             https://id.yandex.com/security/app-passwords. By OAuth: register an app at https://oauth.yandex.com with mail:imap_full \
             and mail:smtp, and set its client_id and client_secret in [provider.yandex].",
    ..FASTMAIL
};

/// Mail.ru, with the domains of the same mailboxes.
pub(super) const MAILRU: Preset = Preset {
    name: "mailru",
    title: "Mail.ru",
    oauth: Some(PresetOAuth {
        authorize_url: "https://o2.mail.ru/login",
        token_url: "https://o2.mail.ru/token",
        issuer: None,
        revocation_url: None,
        scopes: PresetScopes {
            imap: Some("mail.imap"),
            smtp: Some("mail.imap"),
            pop3: None,
            common: &[],
        },
        ..NOTHING_BUT_MAIL
    }),
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("imap.mail.ru", 993)),
    smtp: Some(implicit("smtp.mail.ru", 465)),
    pop3: Some(implicit("pop.mail.ru", 995)),
    domains: &["mail.ru", "bk.ru", "inbox.ru", "internet.ru", "list.ru"],
    mx: &["mail.ru"],
    advice: "By password: make a password for external applications in the mailbox's security settings. By OAuth: register an app \
             at https://o2.mail.ru/app/ and ask Mail.ru for access to mail.imap; set client_id and client_secret in \
             [provider.mailru].",
    ..FASTMAIL
};

/// Seznam Email, with the domains of the same mailboxes.
pub(super) const SEZNAM: Preset = Preset {
    name: "seznam",
    title: "Seznam",
    oauth: Some(PresetOAuth {
        authorize_url: "https://login.seznam.cz/api/v1/oauth/auth",
        token_url: "https://login.seznam.cz/api/v1/oauth/token",
        issuer: None,
        revocation_url: None,
        scopes: PresetScopes {
            imap: Some("email"),
            smtp: Some("email"),
            pop3: Some("email"),
            common: &["identity"],
        },
        ..NOTHING_BUT_MAIL
    }),
    sasl: &[Mechanism::XOAuth2],
    imap: Some(implicit("imap.seznam.cz", 993)),
    smtp: Some(implicit("smtp.seznam.cz", 465)),
    pop3: Some(implicit("pop3.seznam.cz", 995)),
    domains: &["seznam.cz", "email.cz"],
    mx: &["seznam.cz"],
    advice: "By password: allow IMAP in the mailbox's settings; with two-factor login, make an application password there. By OAuth: \
             register an app at https://vyvojari.seznam.cz/oauth/admin and set its client_id and client_secret in \
             [provider.seznam].",
    ..FASTMAIL
};

/// What is left where an app can do nothing by itself and a consent asks for mail alone.
const NOTHING_BUT_MAIL: PresetOAuth = PresetOAuth {
    authorize_url: "",
    token_url: "",
    issuer: None,
    device_url: None,
    revocation_url: None,
    scopes: PresetScopes {
        imap: None,
        smtp: None,
        pop3: None,
        common: &[],
    },
    identity: &[],
    app: &[],
    parameters: &[],
    refresh: RefreshScopes::Unnamed,
};
