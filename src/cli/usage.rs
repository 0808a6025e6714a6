//! `portreeve usage`: what happened with accounts and tokens, oldest first, as a log is read.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;

use super::daemon::{answer, client};
use super::output::print;
use super::token_id::resolve_id;
use super::usage_lines::Lines;
use super::value::moment_ago;
use super::{Failure, Globals};
use crate::admin::client::Client;
use crate::admin::types::{EventsPage, TokenView};
use crate::clock::Timestamp;
use crate::limits::PAGE_SIZE_MAX;
use crate::store::UsageEvent;

/// `usage`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of this account, by id or e-mail address
    #[arg(long)]
    pub account: Option<String>,
    /// Of the token with this id, or with the one id that begins so (6 digits or more)
    #[arg(long, value_name = "ID")]
    pub token: Option<String>,
    /// From this time on, or from this long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = moment_ago)]
    pub since: Option<Timestamp>,
    /// Before this time, or before this long ago
    #[arg(long, value_name = "TIME", value_parser = moment_ago)]
    pub until: Option<Timestamp>,
    /// login, denied, end or state
    #[arg(long)]
    pub outcome: Option<String>,
    /// The newest events, at most so many
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=PAGE_SIZE_MAX as u64))]
    pub limit: u64,
    /// Go on with events as they happen; with --json, one object a line
    #[arg(long, short, conflicts_with = "until")]
    pub follow: bool,
}

/// Runs `usage`.
///
/// # Errors
/// As every command.
pub(crate) async fn run(mut arguments: Args, globals: &Globals) -> Result<(), Failure> {
    let client = client(globals);
    if let Some(typed) = &arguments.token {
        arguments.token = Some(resolve_id(&client, typed).await?.to_string());
    }
    let mut query = arguments.filters();
    query.extend(arguments.since.map(|time| ("since", time.to_string())));
    query.push(("pageSize", arguments.limit.to_string()));
    let page = answer(client.read::<EventsPage>("/v1/usage", &query)).await?;
    if globals.json && !arguments.follow {
        return print(&page.raw);
    }
    let mut follower = Follower::new(&page.value, arguments.since);
    let mut events = page.value.events;
    events.reverse();
    if events.is_empty() && !arguments.follow {
        return print("No events.");
    }
    let mut printer = if globals.json {
        Printer::Json
    } else {
        Printer::Lines(Box::new(Lines::new()))
    };
    printer.begin(&client, &events).await?;
    if !arguments.follow {
        return Ok(());
    }
    loop {
        sleep(POLL_INTERVAL).await;
        let window = window(&client, &arguments, follower.since()).await?;
        printer.go_on(&client, &follower.fresh(window)).await?;
    }
}

/// All events from `since` on, oldest first.
async fn window(client: &Client, arguments: &Args, since: Option<Timestamp>) -> Result<Vec<UsageEvent>, Failure> {
    loop {
        let mut events = Vec::new();
        let mut total = None;
        for number in 0.. {
            let mut query = arguments.filters();
            query.extend(since.map(|time| ("since", time.to_string())));
            query.push(("page", number.to_string()));
            query.push(("pageSize", PAGE_SIZE_MAX.to_string()));
            let page = answer(client.read::<EventsPage>("/v1/usage", &query)).await?.value;
            // Events that came between two pages have shifted the second: begin again.
            if *total.get_or_insert(page.head.total) != page.head.total {
                break;
            }
            events.extend(page.events);
            if number + 1 >= page.head.pages {
                events.reverse();
                return Ok(events);
            }
        }
    }
}

/// Tells events that have been seen from new ones. Events have no number of their own, and one may be recorded a little after
/// its time, so that each look goes back by [`OVERLAP`] and equal events are counted.
#[derive(Debug)]
struct Follower {
    /// Nothing before this is asked for again.
    floor: Option<Timestamp>,
    newest: Option<Timestamp>,
    seen: HashMap<String, usize>,
}

impl Follower {
    /// Begins behind the first page, which has been shown.
    fn new(page: &EventsPage, since: Option<Timestamp>) -> Self {
        let is_whole = page.head.total == page.events.len() as u64;
        let oldest = page.events.last().map(|event| event.time);
        let floor = if is_whole {
            since
        } else {
            // What was left off the page must not come back: look only at times that the page holds completely.
            oldest.map(|time| time.after(Duration::from_millis(1)))
        };
        let mut follower = Self {
            floor,
            newest: None,
            seen: HashMap::new(),
        };
        let shown = page.events.iter().rev().cloned();
        let shown: Vec<UsageEvent> = shown
            .filter(|event| floor.is_none_or(|floor| event.time >= floor))
            .collect();
        let _ = follower.fresh(shown);
        follower
    }

    /// From when on events are to be asked for.
    fn since(&self) -> Option<Timestamp> {
        let overlap = self.newest.map(|newest| newest.before(OVERLAP));
        overlap.max(self.floor)
    }

    /// The events of `window` that are new; `window` is everything from [`Self::since`] on, oldest first.
    fn fresh(&mut self, window: Vec<UsageEvent>) -> Vec<UsageEvent> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut fresh = Vec::new();
        for event in window {
            let key = serde_json::to_string(&event).unwrap_or_default();
            let count = counts.entry(key.clone()).or_default();
            *count += 1;
            self.newest = self.newest.max(Some(event.time));
            if *count > self.seen.get(&key).copied().unwrap_or(0) {
                fresh.push(event);
            }
        }
        self.seen = counts;
        fresh
    }
}

impl Args {
    /// The filters of the query, without its range of time.
    fn filters(&self) -> Vec<(&'static str, String)> {
        [
            ("account", &self.account),
            ("token", &self.token),
            ("outcome", &self.outcome),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.clone().map(|value| (name, value)))
        .chain(self.until.map(|time| ("until", time.to_string())))
        .collect()
    }
}

/// Where events are printed.
enum Printer {
    /// One JSON object a line.
    Json,
    /// Columns for people.
    Lines(Box<Lines>),
}

impl Printer {
    /// Prints what there is at the beginning, under a header where that is for people.
    async fn begin(&mut self, client: &Client, events: &[UsageEvent]) -> Result<(), Failure> {
        if let Self::Lines(lines) = self {
            describe_tokens(client, lines, events).await;
            print(&lines.header(events))?;
        }
        self.go_on(client, events).await
    }

    /// Prints further events.
    async fn go_on(&mut self, client: &Client, events: &[UsageEvent]) -> Result<(), Failure> {
        match self {
            Self::Json => events.iter().try_for_each(|event| {
                let line = serde_json::to_string(event).map_err(|error| Failure::failed(error.to_string()))?;
                print(&line)
            }),
            Self::Lines(lines) => {
                describe_tokens(client, lines, events).await;
                events.iter().try_for_each(|event| print(&lines.line(event)))
            }
        }
    }
}

/// Finds out what the tokens of `events` are for. Of one that has been deleted nothing is known.
async fn describe_tokens(client: &Client, lines: &mut Lines, events: &[UsageEvent]) {
    for token in lines.unknown(events) {
        let view = client.read::<TokenView>(&format!("/v1/tokens/{token}"), &[]).await;
        lines.describe(token, view.ok().map(|view| view.value.description));
    }
}

/// How often new events are asked for.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How much later than its own time an event may turn up.
const OVERLAP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::test_support::login;
    use crate::admin::types::PageHead;

    fn at(millis: u64) -> UsageEvent {
        login("a", Timestamp::from_millis(1_000_000 + millis))
    }

    fn first_page(total: u64, newest_first: Vec<UsageEvent>) -> EventsPage {
        EventsPage {
            head: PageHead {
                total,
                page: 0,
                pages: 1,
                page_size: 50,
            },
            events: newest_first,
        }
    }

    #[test]
    fn following_shows_each_event_once_even_if_two_are_equal_or_one_is_late() {
        let mut follower = Follower::new(&first_page(2, vec![at(10), at(5)]), None);
        assert_eq!(follower.fresh(vec![at(5), at(10)]), []);
        assert_eq!(follower.fresh(vec![at(5), at(10), at(10)]), [at(10)]);
        assert_eq!(
            follower.fresh(vec![at(5), at(7), at(10), at(10), at(20)]),
            [at(7), at(20)]
        );
        assert_eq!(follower.fresh(vec![at(5), at(7), at(10), at(10), at(20)]), []);
    }

    #[test]
    fn what_a_first_page_left_off_does_not_come_back() {
        let follower = Follower::new(&first_page(9, vec![at(10), at(5)]), None);
        assert_eq!(follower.since(), Some(at(6).time));
        let mut follower = follower;
        assert_eq!(follower.fresh(vec![at(10), at(11)]), [at(11)]);
    }

    #[test]
    fn each_look_goes_back_a_little_but_not_before_what_was_asked_for() {
        let since = Timestamp::from_millis(1_000_000);
        let mut follower = Follower::new(&first_page(0, Vec::new()), Some(since));
        assert_eq!(follower.since(), Some(since));
        follower.fresh(vec![at(60_000)]);
        assert_eq!(follower.since(), Some(at(55_000).time));
    }
}
