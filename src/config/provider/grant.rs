//! How access tokens are had: `provider.grant`, with the keys, files and programs that each way takes.

use std::path::{Path, PathBuf};

use super::{Material, Reader};
use crate::config::preset::PresetOAuth;
use crate::config::raw::Key;
use crate::config::report::{place, text};
use crate::config::{ClientAuth, ClientKey, External, GrantType, OAuthApp, Variables, secret};
use crate::limits::SECRET_FILE_BYTES_MAX;

impl Reader<'_, '_, '_> {
    /// Refuses a grant that its provider does not give, or that lacks what it takes.
    pub(super) fn check_grant(&mut self, app: &OAuthApp, preset: Option<&PresetOAuth>) {
        let raw = self.raw;
        let (key, at, message) = match &app.grant {
            GrantType::ClientCredentials if app.client_auth == ClientAuth::None => (
                "grant",
                place(&raw.grant),
                "client_credentials need a client_secret, or client_key_file: the app itself is what is trusted",
            ),
            GrantType::ClientCredentials if preset.is_some() && app.scopes.is_empty() => (
                "grant",
                place(&raw.grant),
                "this provider lets no app into mailboxes by itself; use code",
            ),
            GrantType::ClientCredentials
                if preset
                    .zip(app.token_url.as_ref())
                    .is_some_and(|(preset, url)| preset.is_of_no_tenant(url)) =>
            {
                (
                    "tenant",
                    place(&raw.tenant).or_else(|| place(&raw.grant)),
                    "client_credentials are of one tenant: give its id or a domain of it",
                )
            }
            GrantType::Device if app.device_url.is_none() && app.issuer.is_none() => (
                "grant",
                place(&raw.grant),
                "there is no device_url, nor an issuer that could tell it; use code, which can be pasted where there is no browser",
            ),
            GrantType::Password if preset.is_some() => (
                "grant",
                place(&raw.grant),
                "password is for providers of your own, which must be known to take it; use code",
            ),
            GrantType::ServiceAccount { .. } if preset.is_some() && self.section != "provider.google" => (
                "grant",
                place(&raw.grant),
                "service_account is Google's; use [provider.google], or a provider of your own",
            ),
            _ => return,
        };
        self.refuse(at, key, message);
    }

    /// How access tokens are had, with what that takes.
    pub(super) fn grant(&mut self, env: &Variables) -> GrantType {
        let raw = self.raw;
        let kinds = [
            "code",
            "device",
            "client_credentials",
            "service_account",
            "password",
            "external",
        ];
        let kinds = kinds.map(|kind| (kind, kind));
        let key = format!("{}.grant", self.section);
        let kind = self.check.report.choice(&key, &raw.grant, "code", &kinds);
        for (name, at, owner) in [
            (
                "service_account_file",
                place(&raw.service_account_file),
                "service_account",
            ),
            ("token_command", place(&raw.token_command), "external"),
            ("token_url_external", place(&raw.token_url_external), "external"),
        ] {
            if at.is_some() && kind != owner {
                self.refuse(at, name, format!("is for grant = \"{owner}\" only"));
            }
        }
        if raw.env.is_some() && raw.token_command.is_none() {
            self.refuse(place(&raw.env), "env", "is for token_command only");
        }
        match kind {
            "device" => GrantType::Device,
            "client_credentials" => GrantType::ClientCredentials,
            "service_account" => {
                let key_file = self.key_path("service_account_file", &raw.service_account_file);
                if key_file.is_none() {
                    let message = "is missing; give the JSON key of the service account";
                    self.refuse(place(&raw.grant), "service_account_file", message);
                }
                if let Some(file) = &key_file {
                    let material = Material::ServiceAccount(file);
                    self.examine("service_account_file", &raw.service_account_file, &material);
                }
                GrantType::ServiceAccount {
                    key_file: key_file.unwrap_or_default(),
                }
            }
            "password" => GrantType::Password,
            "external" => GrantType::External(self.external(env)),
            _ => GrantType::Code,
        }
    }

    /// Where an external program gives tokens: one of two ways.
    fn external(&mut self, env: &Variables) -> External {
        let raw = self.raw;
        let full = format!("{}.token_command", self.section);
        let given = raw.token_command.as_ref().and_then(|given| given.get_ref().first());
        let command = if given.is_some_and(|program| program.contains("{account}")) {
            let message = "begins with {account}: an account's name would choose the program";
            self.refuse(place(&raw.token_command), "token_command", message);
            Vec::new()
        } else {
            self.check.command(&full, &raw.token_command, env)
        };
        let url = self.url_of("token_url_external", &raw.token_url_external, false);
        match (command.first(), url) {
            (Some(_), Some(_)) => {
                let message = "is given beside token_command; use one of the two";
                self.refuse(place(&raw.token_url_external), "token_url_external", message);
            }
            (None, Some(url)) => return External::Url(url),
            (None, None) if given.is_none() && text(&raw.token_url_external).is_none() => {
                let message = "is missing; give token_command or token_url_external";
                self.refuse(place(&raw.grant), "token_command", message);
            }
            _ => {}
        }
        External::Command(command)
    }

    /// What the app signs its assertions with.
    pub(super) fn client_key(&mut self) -> Option<ClientKey> {
        let raw = self.raw;
        let certificate_file = self.path("client_certificate_file", &raw.client_certificate_file);
        match self.key_path("client_key_file", &raw.client_key_file) {
            Some(key_file) => {
                self.examine_client_key(&key_file, certificate_file.as_deref());
                Some(ClientKey {
                    key_file,
                    certificate_file,
                })
            }
            None => {
                if certificate_file.is_some() {
                    let message = "goes with client_key_file, the certificate's private key";
                    self.refuse(place(&raw.client_certificate_file), "client_certificate_file", message);
                }
                None
            }
        }
    }

    /// Has the app's key and its certificate looked at, each by itself and then together.
    fn examine_client_key(&mut self, key_file: &Path, certificate_file: Option<&Path>) {
        let raw = self.raw;
        let is_good = self.examine("client_key_file", &raw.client_key_file, &Material::AppKey(key_file));
        let Some(cert_file) = certificate_file else { return };
        let key = &raw.client_certificate_file;
        if self.examine("client_certificate_file", key, &Material::Chain(cert_file)) && is_good {
            self.examine("client_certificate_file", key, &Material::Pair { cert_file, key_file });
        }
    }

    /// A file that holds a key, which nobody else should be able to read.
    fn key_path(&mut self, name: &str, key: &Key<String>) -> Option<PathBuf> {
        let path = self.path(name, key)?;
        // One that cannot be read is told of where it is looked at.
        if let Ok(content) = self.check.environment.read(&path, SECRET_FILE_BYTES_MAX) {
            secret::warn_if_public(self.check, &path, content.mode);
        }
        Some(path)
    }

    /// A file that is read when it is used.
    fn path(&mut self, name: &str, key: &Key<String>) -> Option<PathBuf> {
        let given = text(key)?;
        let full = format!("{}.{name}", self.section);
        secret::path(self.check, &full, place(key), given)
    }
}
