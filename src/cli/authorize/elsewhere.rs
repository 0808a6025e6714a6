//! What can be done where the browser that is to come back runs on another machine.

use crate::admin::types::{AccountView, StatusView};
use crate::cli::output::clean;
use crate::shell;

/// The other ways to the same consent.
pub(super) struct Elsewhere {
    account: String,
    /// The name of this machine, as far as it is known.
    host: Option<String>,
    /// What codes for other devices are, where the provider may give them.
    codes: Option<&'static str>,
}

impl Elsewhere {
    /// For `account`, as the daemon tells of itself; a caller who may not see that hears of codes only where they fail.
    pub(super) fn new(account: &AccountView, status: Option<&StatusView>) -> Self {
        let codes = match super::provider_of(status, &account.provider) {
            Some(provider) if provider.device => Some(GIVES_CODES),
            // Only its discovery document would tell.
            Some(provider) if provider.issuer.is_some() => Some(MAY_GIVE_CODES),
            _ => None,
        };
        Self {
            account: clean(&account.account),
            host: status.map(|status| clean(&status.hostname)),
            codes,
        }
    }

    /// A line for each way; `port` is where the browser comes back to.
    pub(super) fn words(&self, port: u16) -> String {
        let command = format!("portreeve account authorize {}", shell::word(&self.account));
        let host = self.host.as_deref().unwrap_or("THIS-MACHINE");
        let mut ways = vec![(
            format!("{command} --paste"),
            "paste the address that the browser ends at",
        )];
        ways.extend(self.codes.map(|what| (format!("{command} --device"), what)));
        let tunnel = format!("ssh -L {port}:localhost:{port} {}", shell::word(host));
        ways.push((tunnel, "or, on the machine with the browser, then open the URL there"));
        let width = ways
            .iter()
            .map(|(way, _)| way.chars().count())
            .max()
            .unwrap_or_default();
        let lines = ways.iter().map(|(way, what)| format!("\n  {way:width$}   {what}"));
        format!(
            "The browser must run on this machine, for it comes back to port {port} here. If it runs elsewhere:{}",
            lines.collect::<String>()
        )
    }
}

const GIVES_CODES: &str = "type a code on any other device";
const MAY_GIVE_CODES: &str = "type a code on any other device, if the provider gives codes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_a_command_to_paste() {
        let mut elsewhere = Elsewhere {
            account: "it's mine".to_owned(),
            host: Some("mail.example.com".to_owned()),
            codes: Some(GIVES_CODES),
        };
        assert_eq!(
            elsewhere.words(4711),
            "The browser must run on this machine, for it comes back to port 4711 here. If it runs elsewhere:\n  \
             portreeve account authorize 'it'\\''s mine' --paste    paste the address that the browser ends at\n  \
             portreeve account authorize 'it'\\''s mine' --device   type a code on any other device\n  \
             ssh -L 4711:localhost:4711 mail.example.com           or, on the machine with the browser, then open the URL there"
        );
        elsewhere.codes = None;
        elsewhere.host = None;
        let words = elsewhere.words(4711);
        assert!(
            !words.contains("--device") && words.contains(" THIS-MACHINE "),
            "{words}"
        );
    }
}
