//! Usage events for people: a line each, in columns under a header.

use std::collections::HashMap;
use std::time::Duration;

use super::output::clean;
use crate::proto::Protocol;
use crate::span::Span;
use crate::store::{TokenId, UsageEvent, UsageKind};

/// Puts events into columns. A column is as wide as the widest that it has held: what comes later in the same run may widen it.
#[derive(Debug)]
pub(super) struct Lines {
    /// What the tokens that were met are for; `None` where nothing is known.
    descriptions: HashMap<TokenId, Option<String>>,
    widths: [usize; COLUMNS],
}

impl Lines {
    /// Lines that have only a header yet.
    pub(super) fn new() -> Self {
        Self {
            descriptions: HashMap::new(),
            widths: HEADER.map(|name| name.chars().count()),
        }
    }

    /// The tokens of `events` of which it is not known yet what they are for.
    pub(super) fn unknown(&self, events: &[UsageEvent]) -> Vec<TokenId> {
        let mut unknown: Vec<TokenId> = events.iter().filter_map(|event| event.token).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.retain(|token| !self.descriptions.contains_key(token));
        unknown
    }

    /// Takes note of what a token is for.
    pub(super) fn describe(&mut self, token: TokenId, description: Option<String>) {
        self.descriptions
            .insert(token, description.filter(|text| !text.is_empty()));
    }

    /// The header, for columns that are as wide as `events` need.
    pub(super) fn header(&mut self, events: &[UsageEvent]) -> String {
        for event in events {
            let row = self.row(event);
            self.widen(&row);
        }
        self.join(&HEADER.map(str::to_owned), "DETAILS")
    }

    /// One event.
    pub(super) fn line(&mut self, event: &UsageEvent) -> String {
        let row = self.row(event);
        self.widen(&row);
        self.join(&row, &details(event))
    }

    fn row(&self, event: &UsageEvent) -> [String; COLUMNS] {
        let kind = match event.kind {
            UsageKind::Login => "login",
            UsageKind::Denied => "denied",
            UsageKind::End => "end",
            UsageKind::State => "state",
        };
        let none = || "-".to_owned();
        [
            event.time.to_string(),
            kind.to_owned(),
            event.protocol.map_or("-", Protocol::name).to_owned(),
            clean(event.account.as_deref().unwrap_or("-")),
            event.token.map_or_else(none, |token| self.name(&token)),
            event.remote_address.map_or_else(none, |address| address.to_string()),
        ]
    }

    /// A token's short id, and what it is for.
    fn name(&self, token: &TokenId) -> String {
        let Some(Some(description)) = self.descriptions.get(token) else {
            return token.short();
        };
        let mut shown: String = clean(description).chars().take(DESCRIPTION_CHARS_MAX).collect();
        if description.chars().count() > DESCRIPTION_CHARS_MAX {
            shown.push('…');
        }
        format!("{} {shown}", token.short())
    }

    fn widen(&mut self, row: &[String; COLUMNS]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }

    fn join(&self, row: &[String; COLUMNS], details: &str) -> String {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(row) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line.push_str(details);
        line.trim_end().to_owned()
    }
}

/// What else is known of an event.
fn details(event: &UsageEvent) -> String {
    let millis = |millis: u64| Span(Duration::from_millis(millis)).to_string();
    let details = [
        ("reason", event.reason.as_deref().map(clean)),
        (
            "count",
            event.count.filter(|count| *count > 1).map(|count| count.to_string()),
        ),
        ("client", event.client.as_deref().map(clean)),
        ("up", event.bytes_up.map(|bytes| bytes.to_string())),
        ("down", event.bytes_down.map(|bytes| bytes.to_string())),
        ("after", event.duration_ms.map(millis)),
    ];
    let details = details.into_iter();
    let details = details.filter_map(|(name, value)| value.map(|value| format!("{name}={value}")));
    details.collect::<Vec<_>>().join("  ")
}

const COLUMNS: usize = 6;
const HEADER: [&str; COLUMNS] = ["TIME", "KIND", "PROTOCOL", "ACCOUNT", "TOKEN", "ADDRESS"];

/// Characters of a token's description that are shown beside its events.
const DESCRIPTION_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::test_support::login;
    use crate::clock::Timestamp;

    fn event() -> UsageEvent {
        login("a", Timestamp::from_millis(1_000_000))
    }

    #[test]
    fn events_stand_in_columns_with_what_their_tokens_are_for() {
        let mut long = event();
        long.account = Some("somebody@example.com".to_owned());
        long.token = Some(TokenId([0xab; 32]));
        let mut refused = event();
        (refused.kind, refused.token) = (UsageKind::Denied, None);
        refused.reason = Some("unknown_credentials".to_owned());
        let mut coalesced = refused.clone();
        (refused.count, coalesced.count) = (Some(1), Some(17));
        let events = [event(), long, refused, coalesced];
        let mut lines = Lines::new();
        assert_eq!(lines.unknown(&events), [TokenId([7; 32]), TokenId([0xab; 32])]);
        lines.describe(TokenId([7; 32]), Some("scanner upstairs".to_owned()));
        lines.describe(TokenId([0xab; 32]), None);
        assert!(lines.unknown(&events).is_empty());
        let mut printed = vec![lines.header(&events)];
        printed.extend(events.iter().map(|event| lines.line(event)));
        assert_eq!(
            printed,
            [
                "TIME                      KIND    PROTOCOL  ACCOUNT               TOKEN                      ADDRESS    DETAILS",
                "1970-01-01T00:16:40.000Z  login   imap      a                     07070707 scanner upstairs  127.0.0.1",
                "1970-01-01T00:16:40.000Z  login   imap      somebody@example.com  abababab                   127.0.0.1",
                "1970-01-01T00:16:40.000Z  denied  imap      a                     -                          127.0.0.1  \
                 reason=unknown_credentials",
                "1970-01-01T00:16:40.000Z  denied  imap      a                     -                          127.0.0.1  \
                 reason=unknown_credentials  count=17",
            ]
        );
    }

    #[test]
    fn a_change_of_state_has_neither_a_protocol_nor_a_client() {
        let mut event = event();
        event.kind = UsageKind::State;
        (event.protocol, event.remote_address, event.token) = (None, None, None);
        event.reason = Some("needs-authorization: invalid_grant".to_owned());
        assert_eq!(
            Lines::new().line(&event),
            "1970-01-01T00:16:40.000Z  state  -         a        -      -        reason=needs-authorization: invalid_grant"
        );
    }

    #[test]
    fn an_event_is_one_line_whatever_the_client_said() {
        let mut event = event();
        event.client = Some("evil\r\n\u{1b}[2J".to_owned());
        event.bytes_up = Some(7);
        event.duration_ms = Some(61_000);
        let mut lines = Lines::new();
        lines.describe(TokenId([7; 32]), Some(format!("{}\n", "ü".repeat(50))));
        assert_eq!(
            lines.line(&event),
            format!(
                "1970-01-01T00:16:40.000Z  login  imap      a        07070707 {}…  127.0.0.1  \
                 client=evil\u{fffd}\u{fffd}\u{fffd}[2J  up=7  after=1 min 1 s",
                "ü".repeat(40)
            )
        );
    }
}
