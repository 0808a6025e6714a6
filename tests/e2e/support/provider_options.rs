//! How the testbed's OAuth2 provider starts, and who is registered there.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

/// How a provider starts; the default is an hour's access tokens and strict rotation.
#[derive(Debug)]
pub struct ProviderOptions {
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
    /// How long access tokens live.
    pub access_token_seconds: u32,
    /// How the proxy's client shows who it is.
    pub client_auth: ClientAuth,
    /// Where that client may have users sent back to, beside `/`, `/callback` and `/oauth/callback` of any port on loopback.
    pub redirect_uris: Vec<String>,
    /// How long a device code is good.
    pub device_code_seconds: u32,
    /// How long a device has to wait between two polls.
    pub device_interval_seconds: u32,
    /// How the client that acts for itself shows who it is.
    pub app_auth: AppAuth,
    /// Who may be logged in by password.
    pub passwords: BTreeMap<String, String>,
    /// Who may stand in for users, if anybody.
    pub service_account: Option<ServiceAccount>,
}

impl ProviderOptions {
    /// The order that starts it on a port.
    pub fn order(&self, port: u16) -> Value {
        let mut order = json!({
            "port": port,
            "rotation": self.rotation,
            "access_token_seconds": self.access_token_seconds,
            "client_auth": self.client_auth,
            "redirect_uris": self.redirect_uris,
            "device_code_seconds": self.device_code_seconds,
            "device_interval": self.device_interval_seconds,
            "passwords": self.passwords,
            "service_account": self.service_account,
        });
        match &self.app_auth {
            AppAuth::Post => order["app_auth"] = json!("post"),
            AppAuth::PrivateKeyJwt { public_pem, alg } => {
                order["app_auth"] = json!("private_key_jwt");
                order["app_key"] = json!(public_pem);
                order["app_alg"] = json!(alg);
            }
        }
        order
    }
}

impl Default for ProviderOptions {
    fn default() -> ProviderOptions {
        ProviderOptions {
            rotation: Rotation::Strict,
            access_token_seconds: 3600,
            client_auth: ClientAuth::Post,
            redirect_uris: Vec::new(),
            device_code_seconds: 600,
            device_interval_seconds: 1,
            app_auth: AppAuth::Post,
            passwords: BTreeMap::new(),
            service_account: None,
        }
    }
}

/// How the proxy's client shows who it is at the token endpoint; no other way is accepted.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// The secret is a form parameter.
    Post,
    /// The secret is in an HTTP Basic header.
    Basic,
    /// A public client, without a secret.
    None,
}

/// How the client that acts for itself shows who it is; no other way is accepted.
#[derive(Clone, Debug)]
pub enum AppAuth {
    /// The secret is a form parameter.
    Post,
    /// A signed assertion (RFC 7523 §2.2).
    PrivateKeyJwt {
        /// The public key, or a certificate, which the assertion must then name by `x5t#S256`.
        public_pem: String,
        /// The algorithm of the signature, such as `RS256`.
        alg: &'static str,
    },
}

/// A service account to which users were delegated.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceAccount {
    /// The issuer of its assertions.
    pub email: String,
    /// What they are verified by, PEM.
    pub public_key: String,
    /// What it may ask for.
    pub scopes: Vec<String>,
    /// Whose users it may stand in for.
    pub domain: Option<String>,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// It stays the only one.
    Off,
    /// Each refresh gives a new one; the old ones stay good.
    Lenient,
    /// Each refresh gives a new one; the use of an old one revokes the whole grant.
    Strict,
}
