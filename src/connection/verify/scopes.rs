//! The scopes that a grant has against those that its provider's mail protocols need. Pure.

use super::Finding;
use crate::config::{GrantType, OAuthApp};
use crate::oauth;
use crate::proto::Protocol;
use crate::shell;

/// What the scopes come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scopes {
    /// Nothing is missing, as far as is known; in words.
    Enough(String),
    /// There are none to compare; in words, why.
    None(String),
    /// Some are missing.
    Missing {
        /// Which, and what to do.
        finding: Finding,
        /// The protocols that they are for; none: all.
        closed: Vec<Protocol>,
    },
}

impl Scopes {
    /// What is missing where a login over `protocol` is refused, for all that the provider told.
    pub(super) fn want(&self, protocol: Protocol) -> Option<&Finding> {
        match self {
            Self::Missing { finding, closed } if closed.is_empty() || closed.contains(&protocol) => Some(finding),
            Self::Enough(_) | Self::None(_) | Self::Missing { .. } => None,
        }
    }
}

/// Compares what the provider said that it `granted` to `account` with what `app` asks for.
pub(super) fn compare(account: &str, app: &OAuthApp, granted: Option<&str>) -> Scopes {
    match app.grant {
        GrantType::ClientCredentials | GrantType::ServiceAccount { .. } => {
            return Scopes::None(
                "the app itself is authorized: the provider's administrator has granted its scopes".to_owned(),
            );
        }
        GrantType::External(_) => {
            return Scopes::None("the grant is kept by another program, which does not tell its scopes".to_owned());
        }
        GrantType::Code | GrantType::Device | GrantType::Password => {}
    }
    // What a refresh names is what its answer tells of: of several resources, those of one.
    let asked = match app.refresh_scopes.as_slice() {
        [] => app.scopes.as_slice(),
        named => named,
    };
    let Some(granted) = granted else {
        // RFC 6749 §5.1: the scope may be left out of the answer where it is as it was asked for.
        return Scopes::Enough(
            "the provider does not say which scopes it granted, which means those that were asked for".to_owned(),
        );
    };
    let granted: Vec<String> = granted.split_ascii_whitespace().map(str::to_owned).collect();
    let missing: Vec<&str> = oauth::missing_scopes(asked, &granted).collect();
    if missing.is_empty() {
        return Scopes::Enough(format!("granted: {}", granted.join(" ")));
    }
    let mut closed = Vec::new();
    let mut named = Vec::new();
    for scope in &missing {
        match oauth::protocol_of(scope) {
            Some(protocol) => {
                named.push(format!("{scope} (for {})", protocol.name().to_ascii_uppercase()));
                closed.push(protocol);
            }
            None => named.push(format!("{scope} (for the mailbox)")),
        }
    }
    if closed.len() < missing.len() {
        // One of them is for all protocols.
        closed.clear();
    }
    Scopes::Missing {
        finding: Finding::new(
            format!(
                "the grant lacks {}, as the provider tells it; granted: {}",
                named.join(", "),
                granted.join(" ")
            ),
            format!(
                "Authorize the account again and leave every box ticked: portreeve account authorize {}",
                shell::word(account)
            ),
        ),
        closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::test_support;

    const OUTLOOK: [&str; 3] = [
        "https://outlook.office.com/IMAP.AccessAsUser.All",
        "https://outlook.office.com/SMTP.Send",
        "https://outlook.office.com/POP.AccessAsUser.All",
    ];

    fn app(scopes: &[&str]) -> OAuthApp {
        OAuthApp {
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..test_support::app()
        }
    }

    #[test]
    fn missing_scopes_are_named_with_their_protocols_and_the_remedy() {
        let app = app(&[OUTLOOK[0], OUTLOOK[1], OUTLOOK[2], "offline_access"]);
        let scopes = compare("ada", &app, Some("https://outlook.office.com/IMAP.AccessAsUser.All"));
        let Scopes::Missing { finding, closed } = &scopes else {
            panic!("{scopes:?}");
        };
        assert!(
            finding.message.starts_with(&format!(
                "the grant lacks {} (for SMTP), {} (for POP3), as the provider tells it; granted: {}",
                OUTLOOK[1], OUTLOOK[2], OUTLOOK[0]
            )),
            "{finding:?}"
        );
        assert!(
            finding
                .remedy
                .as_deref()
                .unwrap()
                .ends_with("portreeve account authorize ada"),
            "{finding:?}"
        );
        assert_eq!(*closed, [Protocol::Smtp, Protocol::Pop3]);
        assert_eq!(scopes.want(Protocol::Imap), None);
        assert_eq!(scopes.want(Protocol::Smtp), Some(finding));
        assert_eq!(scopes.want(Protocol::Pop3), Some(finding));
    }

    #[test]
    fn the_command_of_the_remedy_can_be_pasted_whatever_the_accounts_id() {
        let app = app(&[OUTLOOK[0]]);
        let Scopes::Missing { finding, .. } = compare("$HOME of ada", &app, Some("openid")) else {
            panic!("a scope is missing");
        };
        let remedy = finding.remedy.unwrap();
        assert!(
            remedy.ends_with(": portreeve account authorize '$HOME of ada'"),
            "{remedy}"
        );
    }

    #[test]
    fn a_scope_for_the_whole_mailbox_concerns_all_protocols() {
        let scopes = compare("ada", &app(&["https://mail.google.com/"]), Some("openid email"));
        assert!(
            scopes.want(Protocol::Imap).is_some() && scopes.want(Protocol::Smtp).is_some(),
            "{scopes:?}"
        );
        let scopes = compare("ada", &app(&["mail", "mail:smtp"]), Some("openid"));
        assert!(
            scopes.want(Protocol::Imap).is_some() && scopes.want(Protocol::Smtp).is_some(),
            "{scopes:?}"
        );
    }

    #[test]
    fn what_was_granted_or_not_told_is_enough() {
        for (asked, granted) in [
            (
                &["https://mail.google.com/"][..],
                Some("openid https://mail.google.com/"),
            ),
            (&["MAIL"], Some("mail")),
            // They are asked for by themselves and told otherwise, or not at all.
            (&["mail", "offline_access", "openid", "email", "profile"], Some("mail")),
            (&["mail"], None),
            (&[], Some("mail")),
            (&OUTLOOK[..1], Some("IMAP.AccessAsUser.All")),
            (
                &OUTLOOK[..1],
                Some("https://outlook.office365.com/IMAP.AccessAsUser.All"),
            ),
        ] {
            let scopes = compare("ada", &app(asked), granted);
            assert!(matches!(scopes, Scopes::Enough(_)), "{asked:?} {granted:?}: {scopes:?}");
            assert_eq!(scopes.want(Protocol::Imap), None);
        }
    }

    #[test]
    fn a_refreshs_own_scopes_are_what_counts_where_it_names_some() {
        let mut app = app(&["a/imap", "b/other"]);
        app.refresh_scopes = vec!["a/imap".to_owned()];
        assert!(matches!(compare("ada", &app, Some("a/imap")), Scopes::Enough(_)));
    }

    #[test]
    fn a_grant_of_the_apps_own_has_none_to_compare() {
        let mut app = app(&["https://outlook.office365.com/.default"]);
        app.grant = GrantType::ClientCredentials;
        assert!(matches!(compare("ada", &app, Some("x")), Scopes::None(_)));
        app.grant = GrantType::ServiceAccount {
            key_file: "/nonexistent".into(),
        };
        assert!(matches!(compare("ada", &app, None), Scopes::None(_)));
    }
}
