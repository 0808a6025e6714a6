//! Providers for the tests of other rooms, which change what matters to them.

use std::time::Duration;

use super::{ClientAuth, GrantType, OAuthApp, Origin, Provider, UserRule, Variables};

/// A public client without endpoints or scopes.
pub(crate) fn app() -> OAuthApp {
    OAuthApp {
        grant: GrantType::Code,
        env: Variables::default(),
        token_url: None,
        issuer: None,
        known_issuer: None,
        authorize_url: None,
        device_url: None,
        revocation_url: None,
        client_id: "app".to_owned(),
        client_secret: None,
        client_auth: ClientAuth::None,
        client_key: None,
        scopes: Vec::new(),
        identity_scopes: Vec::new(),
        authorize_parameters: Vec::new(),
        refresh_scopes: Vec::new(),
        allow_insecure: false,
        keep_alive: Duration::from_secs(30 * 86_400),
    }
}

/// A provider without endpoints.
pub(crate) fn provider(name: &str, oauth: Option<OAuthApp>) -> Provider {
    Provider {
        name: name.to_owned(),
        origin: Origin::Table,
        oauth,
        passwords: true,
        sasl: Vec::new(),
        imap: None,
        smtp: None,
        pop3: None,
        ca_file: None,
        forward_client_address: false,
        sessions_per_account_max: None,
        submissions_max: None,
        domains: Vec::new(),
        imap_user: UserRule::Address,
        user: UserRule::Address,
        advice: None,
    }
}
