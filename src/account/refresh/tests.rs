//! The policy as known answers, as a table of states and events that is kept in the documentation, and against a model.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

type Machine = Refresher<u32>;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn at(seconds: u64) -> Timestamp {
    START.after(Duration::from_secs(seconds))
}

fn times(from: u64, life: u64) -> TokenTimes {
    TokenTimes {
        obtained: at(from),
        expires: at(from + life),
    }
}

fn asked(waiter: u32) -> Input<u32> {
    Input::Asked { waiter, refused: None }
}

fn refused(waiter: u32, machine: &Machine) -> Input<u32> {
    let refused = Some(machine.generation());
    Input::Asked { waiter, refused }
}

fn succeeded(machine: &Machine, times: TokenTimes) -> Input<u32> {
    let grant = machine.grant();
    Input::Succeeded { grant, times }
}

fn failed(machine: &Machine, failure: Failure) -> Input<u32> {
    let grant = machine.grant();
    Input::Failed { grant, failure }
}

const PASSING: Failure = Failure::Temporary { retry_after: None };

/// An account of which nothing but a refresh token is known.
fn new_account() -> Machine {
    Machine::new(None, Renewal::Possible, START, 0.0)
}

/// An account whose token, good for an hour, was obtained at the start.
fn fresh_account() -> Machine {
    Machine::new(Some(times(0, 3600)), Renewal::Possible, START, 0.0)
}

fn send(machine: &Machine) -> Action<u32> {
    let grant = machine.grant();
    Action::Send { grant }
}

#[test]
fn one_refresh_serves_all_who_ask() {
    let mut machine = new_account();
    assert_eq!(machine.handle(asked(1), START, 0.0), [send(&machine)]);
    for waiter in 2..=200 {
        assert_eq!(machine.handle(asked(waiter), START, 0.0), []);
    }
    let answers = machine.handle(succeeded(&machine, times(1, 3600)), at(1), 0.0);
    let everybody = (1..=200).map(|waiter| Action::Answer(waiter, Answer::Token));
    assert_eq!(answers, everybody.collect::<Vec<_>>());
    assert_eq!(
        machine.handle(asked(201), at(2), 0.0),
        [Action::Answer(201, Answer::Token)]
    );
}

#[test]
fn a_token_is_fresh_while_a_minute_or_a_tenth_of_its_life_remains() {
    for (life, last_fresh) in [(3600, 3539), (600, 539), (100, 89), (10, 8)] {
        let machine = || Machine::new(Some(times(0, life)), Renewal::Possible, START, 0.0);
        let fresh = machine().handle(asked(1), at(last_fresh), 0.0);
        assert_eq!(fresh, [Action::Answer(1, Answer::Token)], "{life}");
        assert_eq!(
            machine().handle(asked(1), at(last_fresh + 1), 0.0),
            [Action::Send { grant: 0 }],
            "{life}"
        );
    }
}

#[test]
fn a_token_from_the_future_is_not_trusted() {
    let mut machine = Machine::new(Some(times(500, 3600)), Renewal::Possible, START, 0.0);
    assert_eq!(machine.handle(asked(1), at(499), 0.0), [send(&machine)]);
}

#[test]
fn a_token_is_renewed_ahead_of_need_while_sessions_are_live() {
    // (life, when it is renewed without jitter, and with all of it)
    for (life, latest, earliest) in [
        (3600, 2880, 2700),
        (1800, 1200, 1110),
        (1199, 959, 899),
        (100, 80, 75),
        (2, 30, 30),
    ] {
        for (jitter, expected) in [(0.0, latest), (1.0, earliest)] {
            let mut machine = Machine::new(Some(times(0, life)), Renewal::Possible, START, jitter);
            assert_eq!(machine.deadline(), None);
            machine.handle(Input::SessionsLive, START, jitter);
            assert_eq!(machine.deadline().unwrap().since(START).as_secs(), expected, "{life}");
        }
    }
    let mut machine = fresh_account();
    machine.handle(Input::SessionsLive, START, 0.0);
    assert_eq!(machine.handle(Input::DeadlinePassed, at(2879), 0.0), []);
    assert_eq!(machine.handle(Input::DeadlinePassed, at(2880), 0.0), [send(&machine)]);
    // Nobody waits for it: the old token is still fresh.
    assert_eq!(
        machine.handle(asked(1), at(2881), 0.0),
        [Action::Answer(1, Answer::Token)]
    );
    machine.handle(succeeded(&machine, times(2882, 3600)), at(2882), 0.0);
    assert_eq!(machine.deadline(), Some(at(2882 + 2880)));
    machine.handle(Input::SessionsGone, at(3000), 0.0);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn backoff_doubles_from_a_second_to_five_minutes_with_jitter() {
    let mut machine = new_account();
    let mut now = START;
    for (attempt, least) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300].into_iter().enumerate() {
        let sent = match attempt {
            0 => machine.handle(asked(1), now, 0.0),
            _ => machine.handle(Input::DeadlinePassed, now, 0.0),
        };
        assert_eq!(sent, [send(&machine)]);
        machine.handle(failed(&machine, PASSING), now, 0.0);
        assert_eq!(machine.next_try().unwrap().since(now), Duration::from_secs(least));
        assert_eq!(
            machine.handle(asked(2), now, 0.0),
            [Action::Answer(2, Answer::Unavailable)]
        );
        now = machine.deadline().unwrap();
    }
    for attempts in 0..100 {
        for jitter in [0.0, 0.3, 1.0] {
            let wait = backoff(attempts, jitter);
            assert!((REFRESH_BACKOFF_MIN..=REFRESH_BACKOFF_MAX).contains(&wait));
        }
        assert_ne!(backoff(attempts, 0.2), backoff(attempts, 0.8));
    }
}

#[test]
fn nothing_is_attempted_for_an_account_that_nobody_uses_nor_with_a_refused_app() {
    let mut machine = new_account();
    machine.handle(asked(1), START, 0.0);
    let mut now = START;
    let mut attempts = 1;
    machine.handle(failed(&machine, PASSING), now, 0.0);
    while let Some(deadline) = machine.deadline() {
        now = deadline;
        assert_eq!(machine.handle(Input::DeadlinePassed, now, 0.0), [send(&machine)]);
        machine.handle(failed(&machine, PASSING), now, 0.0);
        attempts += 1;
    }
    // 1 + 2 + 4 + … + 256 s, then 300 s.
    assert_eq!((attempts, now), (11, at(811)));
    assert!(
        !machine.is_at_rest(now),
        "what it knows of the wait is kept until that is over"
    );
    let until = machine.next_try().unwrap();
    assert!(machine.is_at_rest(until));
    assert_eq!(machine.handle(asked(2), until, 0.0), [send(&machine)]);
    machine.handle(failed(&machine, Failure::App), until, 0.0);
    machine.handle(Input::SessionsLive, until, 0.0);
    assert_eq!(machine.deadline(), None);
    let until = machine.next_try().unwrap();
    assert_eq!(machine.handle(asked(3), until, 0.0), [send(&machine)]);
}

#[test]
fn retry_after_is_honoured_up_to_an_hour() {
    for (asked_for, honoured) in [(0, 1), (90, 90), (3600, 3600), (86400, 3600)] {
        let mut machine = new_account();
        machine.handle(asked(1), START, 0.0);
        let retry_after = Some(Duration::from_secs(asked_for));
        machine.handle(failed(&machine, Failure::Temporary { retry_after }), START, 0.0);
        assert_eq!(machine.next_try(), Some(at(honoured)));
    }
}

#[test]
fn a_still_valid_token_is_used_on_through_trouble() {
    for failure in [PASSING, Failure::App] {
        let mut machine = fresh_account();
        machine.handle(asked(1), at(3550), 0.0);
        assert_eq!(
            machine.handle(failed(&machine, failure), at(3551), 0.0),
            [Action::Answer(1, Answer::Token)]
        );
        assert_eq!(
            machine.handle(asked(2), at(3551), 0.0),
            [Action::Answer(2, Answer::Token)]
        );
        machine.handle(asked(4), at(3552), 0.0);
        machine.handle(failed(&machine, failure), at(3599), 0.0);
        let answer = if failure == Failure::App {
            Answer::AppRefused
        } else {
            Answer::Unavailable
        };
        assert_eq!(machine.handle(asked(3), at(3600), 0.0), [Action::Answer(3, answer)]);
    }
}

#[test]
fn only_new_credentials_end_needs_authorization() {
    let mut machine = new_account();
    machine.handle(asked(1), START, 0.0);
    let answers = machine.handle(failed(&machine, Failure::Grant), START, 0.0);
    assert_eq!(answers, [Action::Answer(1, Answer::NeedsAuthorization)]);
    machine.handle(Input::SessionsLive, START, 0.0);
    for input in [asked(2), Input::AppChanged, Input::DeadlinePassed] {
        let actions = machine.handle(input, START.after(HOUR * 1000), 0.0);
        assert!(!actions.contains(&send(&machine)));
    }
    let replaced = Input::GrantReplaced {
        times: None,
        renewal: Renewal::Possible,
    };
    machine.handle(replaced, at(10), 0.0);
    assert_eq!(machine.handle(asked(3), at(10), 0.0), [Action::Send { grant: 1 }]);
}

#[test]
fn new_credentials_end_backoff_and_outlive_the_old_grants_refresh() {
    let mut machine = new_account();
    machine.handle(asked(1), START, 0.0);
    let old = machine.grant();
    let replaced = Input::GrantReplaced {
        times: None,
        renewal: Renewal::Possible,
    };
    assert_eq!(machine.handle(replaced, at(1), 0.0), [Action::Send { grant: 1 }]);
    // The old grant's refresh comes back, either way: it changes nothing.
    let late = Input::Succeeded {
        grant: old,
        times: times(2, 3600),
    };
    assert_eq!(machine.handle(late, at(2), 0.0), []);
    let late = Input::Failed {
        grant: old,
        failure: Failure::Grant,
    };
    assert_eq!(machine.handle(late, at(2), 0.0), []);
    assert!(machine.is_refreshing());
    machine.handle(failed(&machine, PASSING), at(3), 0.0);
    let replaced = Input::GrantReplaced {
        times: Some(times(3, 3600)),
        renewal: Renewal::Possible,
    };
    machine.handle(replaced, at(3), 0.0);
    assert_eq!(machine.handle(asked(4), at(3), 0.0), [Action::Answer(4, Answer::Token)]);
}

#[test]
fn a_refused_token_is_replaced_at_most_once_a_minute() {
    let mut machine = fresh_account();
    let first = machine.generation();
    assert_eq!(machine.handle(refused(1, &machine), at(10), 0.0), [send(&machine)]);
    // While that lasts, nobody is given the refused token.
    assert_eq!(machine.handle(asked(2), at(10), 0.0), []);
    machine.handle(succeeded(&machine, times(11, 3600)), at(11), 0.0);
    // Who was refused the old one is given the new one.
    let late = Input::Asked {
        waiter: 3,
        refused: Some(first),
    };
    assert_eq!(machine.handle(late, at(11), 0.0), [Action::Answer(3, Answer::Token)]);
    assert_eq!(
        machine.handle(refused(4, &machine), at(12), 0.0),
        [Action::Answer(4, Answer::StillRefused)]
    );
    assert_eq!(
        machine.handle(refused(5, &machine), at(69), 0.0),
        [Action::Answer(5, Answer::StillRefused)]
    );
    assert_eq!(machine.handle(refused(6, &machine), at(70), 0.0), [send(&machine)]);
    // The replacement fails: the refused token is not handed out, though it has not ended.
    let answers = machine.handle(failed(&machine, PASSING), at(71), 0.0);
    assert_eq!(answers, [Action::Answer(6, Answer::Unavailable)]);
}

#[test]
fn an_access_token_alone_is_used_to_its_end() {
    let mut machine = Machine::new(Some(times(0, 3600)), Renewal::Impossible, START, 0.0);
    machine.handle(Input::SessionsLive, START, 0.0);
    assert_eq!(machine.deadline(), None);
    assert_eq!(
        machine.handle(asked(1), at(3599), 0.0),
        [Action::Answer(1, Answer::Token)]
    );
    assert_eq!(
        machine.handle(asked(2), at(3600), 0.0),
        [Action::Answer(2, Answer::NeedsAuthorization)]
    );
    assert_eq!(machine.state_name(), "NeedsAuthorization");
}

#[test]
fn nothing_new_is_sent_once_the_program_stops() {
    let mut machine = fresh_account();
    machine.handle(Input::Draining, START, 0.0);
    machine.handle(Input::SessionsLive, START, 0.0);
    assert_eq!(machine.deadline(), None);
    assert_eq!(
        machine.handle(asked(1), at(3590), 0.0),
        [Action::Answer(1, Answer::Token)]
    );
    assert_eq!(
        machine.handle(asked(2), at(3600), 0.0),
        [Action::Answer(2, Answer::Unavailable)]
    );
}

#[test]
fn a_changed_app_is_tried_at_once() {
    let mut machine = new_account();
    machine.handle(asked(1), START, 0.0);
    machine.handle(failed(&machine, Failure::App), START, 0.0);
    assert_eq!(
        machine.handle(asked(2), START, 0.0),
        [Action::Answer(2, Answer::AppRefused)]
    );
    assert_eq!(machine.handle(Input::AppChanged, START, 0.0), [send(&machine)]);
    assert_eq!(machine.handle(asked(3), START, 0.0), []);
    assert_eq!(
        machine.handle(succeeded(&machine, times(0, 3600)), START, 0.0),
        [Action::Answer(3, Answer::Token)]
    );
}

#[test]
fn a_changed_app_ends_no_wait_that_a_provider_asked_for() {
    let mut machine = new_account();
    machine.handle(asked(1), START, 0.0);
    machine.handle(failed(&machine, PASSING), START, 0.0);
    let due = machine.next_try();
    assert_eq!(machine.handle(Input::AppChanged, START, 0.0), []);
    assert_eq!(machine.next_try(), due);
}

/// Where the table's rows begin: a name, a machine, and the time it is.
fn table_states() -> Vec<(&'static str, Machine, Timestamp)> {
    let refreshing = |mut machine: Machine, now| {
        machine.handle(asked(1), now, 0.0);
        machine
    };
    let after = |mut machine: Machine, failure, now| {
        let input = failed(&machine, failure);
        machine.handle(input, now, 0.0);
        machine
    };
    let renewing = || {
        let mut machine = fresh_account();
        machine.handle(Input::SessionsLive, START, 0.0);
        machine.handle(Input::DeadlinePassed, at(2880), 0.0);
        machine
    };
    vec![
        ("Fresh", fresh_account(), at(10)),
        ("Stale, no token", new_account(), at(10)),
        ("Stale, token at its end", fresh_account(), at(3550)),
        ("Refreshing, token fresh", renewing(), at(2881)),
        ("Refreshing, one waits", refreshing(new_account(), at(9)), at(10)),
        (
            "Backoff, token valid",
            after(refreshing(fresh_account(), at(3550)), PASSING, at(3550)),
            at(3550),
        ),
        (
            "Backoff, no token",
            after(refreshing(new_account(), at(9)), PASSING, at(10)),
            at(10),
        ),
        (
            "Backoff, its time over",
            after(refreshing(new_account(), at(9)), PASSING, at(10)),
            at(12),
        ),
        (
            "Backoff, app refused",
            after(refreshing(new_account(), at(9)), Failure::App, at(10)),
            at(10),
        ),
        ("NeedsAuthorization", Machine::needing_authorization(), at(10)),
    ]
}

type MakeInput = fn(&Machine, Timestamp) -> Input<u32>;

/// The table's columns: a name, and the input made for a machine at a time.
fn table_events() -> Vec<(&'static str, MakeInput)> {
    fn hour(now: Timestamp) -> TokenTimes {
        let expires = now.after(HOUR);
        TokenTimes { obtained: now, expires }
    }
    vec![
        ("Asked", |_, _| asked(9)),
        ("Asked, current token refused", |machine, _| refused(9, machine)),
        ("Asked, older token refused", |_, _| Input::Asked {
            waiter: 9,
            refused: Some(1),
        }),
        ("Succeeded", |machine, now| succeeded(machine, hour(now))),
        ("Succeeded, of an older grant", |_, now| Input::Succeeded {
            grant: u64::MAX,
            times: hour(now),
        }),
        ("Failed: grant", |machine, _| failed(machine, Failure::Grant)),
        ("Failed: app", |machine, _| failed(machine, Failure::App)),
        ("Failed: temporary", |machine, _| failed(machine, PASSING)),
        ("GrantReplaced, with a token", |_, now| Input::GrantReplaced {
            times: Some(hour(now)),
            renewal: Renewal::Possible,
        }),
        ("GrantReplaced, without", |_, _| Input::GrantReplaced {
            times: None,
            renewal: Renewal::Possible,
        }),
        ("KeepAlive", |_, _| Input::KeepAlive { waiter: 9 }),
        ("AppChanged", |_, _| Input::AppChanged),
        ("DeadlinePassed", |_, _| Input::DeadlinePassed),
        ("Draining", |_, _| Input::Draining),
    ]
}

fn describe(action: &Action<u32>) -> String {
    match action {
        Action::Send { .. } => "send".to_owned(),
        Action::Answer(_, answer) => format!("answer {answer:?}"),
        Action::Defect(_) => "**defect**".to_owned(),
    }
}

fn render_table() -> String {
    let mut rows = String::new();
    let mut edges = BTreeMap::<(&str, &str), BTreeSet<String>>::new();
    for (state, _, _) in table_states() {
        let _ = writeln!(rows, "\n## {state}\n\n| event | actions | then |\n|---|---|---|");
        for (event, input) in table_events() {
            let (_, mut machine, now) = table_states().into_iter().find(|(name, ..)| *name == state).unwrap();
            machine.settle(now);
            let before = machine.state_name();
            let input = input(&machine, now);
            let actions = machine.handle(input, now, 0.0).iter().map(describe).collect::<Vec<_>>();
            let then = machine.state_name();
            if before != then {
                let trigger = event.split([',', ':']).next().unwrap_or(event).to_owned();
                edges.entry((before, then)).or_default().insert(trigger);
            }
            let actions = if actions.is_empty() {
                "–".to_owned()
            } else {
                actions.join(", ")
            };
            let _ = writeln!(rows, "| {event} | {actions} | {then} |");
        }
    }
    let mut text = HEAD.to_owned();
    for ((from, to), triggers) in edges {
        let triggers = triggers.into_iter().collect::<Vec<_>>().join(" / ");
        let _ = writeln!(text, "    {from} --> {to}: {triggers}");
    }
    text + "    Fresh --> Stale: time\n```\n" + &rows
}

const HEAD: &str = "# Life cycle of an account's OAuth token\n\n\
    Written by a test from `src/account/refresh.rs`: every state with every event. `–` is a deliberate nothing; a defect is\n\
    an event that cannot come in that state, and is logged. To write it anew after a change of the policy:\n\
    `PORTREEVE_REWRITE=1 cargo test --lib account::refresh`.\n\n\
    ```mermaid\nstateDiagram-v2\n    [*] --> Stale\n";

#[test]
fn the_table_in_the_documentation_is_what_the_machine_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/lifecycle-account.md");
    let table = render_table();
    if std::env::var_os("PORTREEVE_REWRITE").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), table);
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    AskRefused,
    AskRefusedOlder,
    Succeed(u64),
    Fail(Failure),
    Replace(Option<u64>),
    KeepAlive,
    AppChanged,
    Sessions(bool),
    Wake,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let failure = prop_oneof![
        Just(Failure::Grant),
        Just(Failure::App),
        prop::option::of(0_u64..10_000).prop_map(|seconds| Failure::Temporary {
            retry_after: seconds.map(Duration::from_secs)
        }),
    ];
    let step = prop_oneof![
        4 => Just(Step::Ask),
        2 => Just(Step::AskRefused),
        1 => Just(Step::AskRefusedOlder),
        4 => (1_u64..8000).prop_map(Step::Succeed),
        3 => failure.prop_map(Step::Fail),
        1 => prop::option::of(1_u64..8000).prop_map(Step::Replace),
        1 => Just(Step::KeepAlive),
        1 => Just(Step::AppChanged),
        1 => any::<bool>().prop_map(Step::Sessions),
        3 => Just(Step::Wake),
    ];
    prop::collection::vec((prop_oneof![Just(0), 0_u64..100, 0_u64..5000], step), 0..120)
}

/// What an outsider knows who has seen every input and every action.
struct Model {
    machine: Machine,
    now: u64,
    jitter: f64,
    on_the_way: BTreeSet<u64>,
    waiting: BTreeSet<u32>,
    next_waiter: u32,
    expires: Option<u64>,
    not_before: u64,
    last_forced: Option<u64>,
    grant_gone: bool,
    app_refused: bool,
}

impl Model {
    fn new(jitter: f64) -> Self {
        Self {
            machine: new_account(),
            now: 0,
            jitter,
            on_the_way: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next_waiter: 0,
            expires: None,
            not_before: 0,
            last_forced: None,
            grant_gone: false,
            app_refused: false,
        }
    }

    fn feed(&mut self, input: Input<u32>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for action in self.machine.handle(input, at(self.now), self.jitter) {
            match action {
                Action::Send { grant } => {
                    assert_eq!(grant, self.machine.grant());
                    assert!(self.on_the_way.insert(grant), "two refreshes of one grant");
                    assert!(!self.grant_gone, "a refresh with a grant that is gone");
                    assert!(self.now >= self.not_before, "a refresh within the back-off");
                }
                Action::Answer(waiter, answer) => {
                    assert!(self.waiting.remove(&waiter), "answered twice or never asked");
                    answers.push(answer);
                }
                Action::Defect(what) => unreachable!("{what}"),
            }
        }
        answers
    }

    fn ask(&mut self, refused: Option<u64>) {
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        self.waiting.insert(waiter);
        let was_fresh = self.machine.state_name() == "Fresh";
        let sent = self.on_the_way.len();
        let answers = self.feed(Input::Asked { waiter, refused });
        if was_fresh
            && refused == Some(self.machine.generation())
            && self.on_the_way.len() > sent
            && self.expires.is_some_and(|end| end > self.now + 60)
        {
            let last = self.last_forced.replace(self.now);
            assert!(
                last.is_none_or(|last| self.now >= last + 60),
                "forced twice within a minute"
            );
        }
        if answers == [Answer::Token] {
            assert!(
                self.expires.is_some_and(|end| self.now < end),
                "an ended token handed out"
            );
        }
    }

    fn end(&mut self, end: impl FnOnce(&Machine) -> Input<u32>) -> Option<Vec<Answer>> {
        let is_current = self.on_the_way.remove(&self.machine.grant());
        is_current.then(|| {
            let input = end(&self.machine);
            self.feed(input)
        })
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Ask => self.ask(None),
            Step::AskRefused => self.ask(Some(self.machine.generation())),
            Step::AskRefusedOlder => self.ask(self.machine.generation().checked_sub(1)),
            Step::Succeed(life) => {
                if let Some(answers) = self.end(|machine| succeeded(machine, times(now, life))) {
                    assert!(answers.iter().all(|answer| *answer == Answer::Token));
                    self.expires = Some(now + life);
                    self.not_before = 0;
                    self.app_refused = false;
                }
            }
            Step::Fail(failure) => {
                let Some(answers) = self.end(|machine| failed(machine, failure)) else {
                    return;
                };
                self.app_refused = failure == Failure::App;
                match failure {
                    Failure::Grant => {
                        self.grant_gone = true;
                        assert!(answers.iter().all(|answer| *answer == Answer::NeedsAuthorization));
                    }
                    Failure::App => self.not_before = now + 1,
                    Failure::Temporary { retry_after } => {
                        self.not_before = now + retry_after.map_or(1, |wait| wait.as_secs().clamp(1, 3600));
                        assert!(!answers.contains(&Answer::AppRefused));
                    }
                }
            }
            Step::Replace(life) => {
                self.expires = life.map(|life| now + life);
                (self.grant_gone, self.not_before, self.last_forced) = (false, 0, None);
                self.app_refused = false;
                let times = life.map(|life| times(now, life));
                let renewal = Renewal::Possible;
                self.feed(Input::GrantReplaced { times, renewal });
            }
            Step::KeepAlive => {
                let waiter = self.next_waiter;
                self.next_waiter += 1;
                self.waiting.insert(waiter);
                self.feed(Input::KeepAlive { waiter });
            }
            Step::AppChanged => {
                // The only thing that shortens a back-off is a change of what caused it.
                if self.app_refused {
                    self.not_before = 0;
                }
                self.feed(Input::AppChanged);
            }
            Step::Sessions(true) => drop(self.feed(Input::SessionsLive)),
            Step::Sessions(false) => drop(self.feed(Input::SessionsGone)),
            Step::Wake => drop(self.feed(Input::DeadlinePassed)),
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(jitter in 0.0..1.0_f64, steps in steps()) {
        let mut model = Model::new(jitter);
        for (seconds, step) in steps {
            model.now += seconds;
            model.step(step);
            prop_assert!(model.waiting.is_empty() || model.machine.is_refreshing(), "somebody waits for nothing");
            prop_assert_eq!(model.machine.is_refreshing(), model.on_the_way.contains(&model.machine.grant()));
        }
        model.step(Step::Fail(PASSING));
        prop_assert!(model.waiting.is_empty(), "somebody was never answered");
    }
}
