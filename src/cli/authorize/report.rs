//! What `account authorize` prints while it goes on: lines for people and scripts, or one JSON object a line.

use std::io::{self, IsTerminal as _};

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use serde::Serialize;

use super::elsewhere::Elsewhere;
use crate::admin::types::{CodeFlowView, DeviceFlowView};
use crate::cli::output::{clean, print};
use crate::cli::{Exit, Failure};
use crate::clock::Timestamp;
use crate::metrics::names::state_label;
use crate::store::AccountState;

/// Where and how it is printed.
pub(super) struct Report {
    json: bool,
    /// Whether a browser may be opened.
    may_open: bool,
    is_terminal: bool,
}

/// What happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(super) enum Event<'a> {
    /// A browser is to open this.
    Url { url: &'a str, expires: Timestamp },
    /// A code is to be typed on another device.
    Code {
        user_code: &'a str,
        verification_uri: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        verification_uri_complete: Option<&'a str>,
        expires: Timestamp,
        interval: u64,
    },
    /// The mailbox is open.
    Authorized { account: &'a str, state: AccountState },
    /// It is not.
    Failed { code: &'a str, message: &'a str },
}

impl Report {
    pub(super) fn new(json: bool, no_browser: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            json,
            may_open: is_terminal && !no_browser && has_screen(),
            is_terminal,
        }
    }

    /// Sends the owner's browser to the provider: opens it where there is one, and says where in any case.
    ///
    /// # Errors
    /// Those of [`print()`].
    pub(super) fn ask(&self, begun: &CodeFlowView) -> Result<(), Failure> {
        self.tell(&Event::Url {
            url: begun.url.as_str(),
            expires: begun.expires,
        })?;
        if self.may_open
            && let Err(error) = open::that_detached(begun.url.as_str())
        {
            tracing::debug!(%error, "no browser could be opened");
        }
        Ok(())
    }

    /// Says what else can be done, before anybody waits in vain: where no browser is opened here, there may be none.
    ///
    /// # Errors
    /// Those of [`print()`].
    pub(super) fn tell_elsewhere(&self, elsewhere: &Elsewhere, port: u16) -> Result<(), Failure> {
        match self.json || self.may_open {
            true => Ok(()),
            false => print(&elsewhere.words(port)),
        }
    }

    /// Shows the owner a code, large and as a picture where somebody looks at a terminal.
    ///
    /// # Errors
    /// Those of [`print()`].
    pub(super) fn show_code(&self, begun: &DeviceFlowView) -> Result<(), Failure> {
        if self.is_terminal && !self.json {
            print(&large(&clean(&begun.user_code)))?;
            let target = begun
                .verification_uri_complete
                .as_ref()
                .unwrap_or(&begun.verification_uri);
            if let Some(picture) = picture(target) {
                print(&picture)?;
            }
        }
        self.tell(&Event::Code {
            user_code: &begun.user_code,
            verification_uri: &begun.verification_uri,
            verification_uri_complete: begun.verification_uri_complete.as_deref(),
            expires: begun.expires,
            interval: begun.interval,
        })
    }

    /// Tells what happened.
    ///
    /// # Errors
    /// Those of [`print()`].
    pub(super) fn tell(&self, event: &Event<'_>) -> Result<(), Failure> {
        if self.json {
            let line = serde_json::to_string(event).map_err(|error| Failure::failed(error.to_string()))?;
            return print(&line);
        }
        print(&event.words())
    }

    /// Tells why the mailbox is not open, and ends the command.
    ///
    /// # Errors
    /// Always: that is how it ends.
    pub(super) fn fail(&self, code: &str, message: &str) -> Result<(), Failure> {
        if self.json {
            self.tell(&Event::Failed { code, message })?;
            return Err(Failure::told(Exit::Failed));
        }
        Err(Failure::failed(clean(message)))
    }
}

impl Event<'_> {
    fn words(&self) -> String {
        match self {
            Self::Url { url, .. } => format!("Open this URL: {}", clean(url)),
            Self::Code {
                user_code,
                verification_uri,
                ..
            } => format!("Code: {}\nOpen this URL: {}", clean(user_code), clean(verification_uri)),
            Self::Authorized { account, state } => {
                format!(
                    "Authorized {}: the mailbox is open ({}).",
                    clean(account),
                    state_label(*state)
                )
            }
            Self::Failed { message, .. } => clean(message),
        }
    }
}

/// Whether there is a screen that a browser could be opened on.
fn has_screen() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// A code in a frame, its characters apart, so that it can be read from where the other device is.
fn large(code: &str) -> String {
    let spaced: Vec<String> = code.chars().map(String::from).collect();
    let spaced = spaced.join(" ");
    let width = spaced.chars().count() + 6;
    let (bar, blank) = ("═".repeat(width), " ".repeat(width));
    let bold = console::style(spaced).bold();
    format!("\n  ╔{bar}╗\n  ║{blank}║\n  ║   {bold}   ║\n  ║{blank}║\n  ╚{bar}╝")
}

/// A QR code of `text`, two modules to a character. Light on dark, as terminals are; cameras read either.
fn picture(text: &str) -> Option<String> {
    let code = QrCode::new(text).ok()?;
    let picture = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Some(format!("\n{picture}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_get_one_object_a_line_with_the_event_first() {
        let time = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let cases = [
            (
                Event::Url {
                    url: "https://id.example.com/auth",
                    expires: time,
                },
                r#"{"event":"url","url":"https://id.example.com/auth","expires":"2026-01-01T00:00:00.000Z"}"#,
                "Open this URL: https://id.example.com/auth",
            ),
            (
                Event::Code {
                    user_code: "AB-CD",
                    verification_uri: "https://id.example.com/device",
                    verification_uri_complete: None,
                    expires: time,
                    interval: 5,
                },
                r#"{"event":"code","userCode":"AB-CD","verificationUri":"https://id.example.com/device","expires":"2026-01-01T00:00:00.000Z","interval":5}"#,
                "Code: AB-CD\nOpen this URL: https://id.example.com/device",
            ),
            (
                Event::Authorized {
                    account: "ada",
                    state: AccountState::Active,
                },
                r#"{"event":"authorized","account":"ada","state":"active"}"#,
                "Authorized ada: the mailbox is open (active).",
            ),
            (
                Event::Failed {
                    code: "denied",
                    message: "no",
                },
                r#"{"event":"failed","code":"denied","message":"no"}"#,
                "no",
            ),
        ];
        for (event, json, words) in cases {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
            assert_eq!(event.words(), words);
        }
    }

    #[test]
    fn a_code_stands_alone_in_its_frame() {
        let text = large("AB");
        assert!(text.contains("A B"), "{text}");
        let widths: Vec<usize> = console::strip_ansi_codes(&text)
            .lines()
            .skip(1)
            .map(|line| line.chars().count())
            .collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn a_picture_is_square_and_of_half_blocks() {
        let picture = picture("https://id.example.com/device?user_code=AB-CD").unwrap();
        let lines: Vec<&str> = picture.trim_matches('\n').lines().collect();
        let width = lines[0].chars().count();
        assert!(lines.iter().all(|line| line.chars().count() == width));
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(picture.chars().all(|c| " █▀▄\n".contains(c)));
    }
}
