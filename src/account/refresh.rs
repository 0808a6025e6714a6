//! When an account's OAuth token is refreshed, who waits for it, and what waiters are told. Pure: time and chance are
//! arguments, tokens are known by their generation only, and what is to be done comes out as [`Action`]s.
//!
//! ```text
//!          asked, or due              answered             time
//!  Stale ───────────────> Refreshing ──────────> Fresh ──────────> Stale
//!                          │  │    ^               │ due (sessions live), or refused upstream
//!                          │  │    └───────────────┘
//!     passing trouble, app │  │ the grant is gone
//!  Backoff <───────────────┘  └──────────> NeedsAuthorization
//!     └── until, or app settings changed ──> Refreshing   └── new credentials ──> Fresh | Stale
//! ```
//!
//! **The driving contract.** Feed one [`Input`], carry out the actions in order; feed [`Input::DeadlinePassed`] when
//! [`Refresher::deadline`] has passed. Every [`Action::Send`] is answered, sooner or later, by [`Input::Succeeded`] or
//! [`Input::Failed`] with its `grant`: a refresh once sent is never cancelled. What belongs to a grant that has been replaced
//! meanwhile is ignored. Every waiter gets exactly one [`Action::Answer`].
//!
//! The whole table of states and events, and the diagram drawn from it, are in `docs/lifecycle-account.md`.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::{
    FORCED_REFRESH_INTERVAL, REFRESH_BACKOFF_MAX, REFRESH_BACKOFF_MIN, RETRY_AFTER_MAX, SUPERVISOR_IDLE,
};

/// The refresh policy of one account. `W` is whatever identifies somebody who waits.
#[derive(Debug)]
pub struct Refresher<W> {
    state: State<W>,
    /// Counts the grants that this account has had, so that an answer can be matched to the one that was sent.
    grant: u64,
    /// The last generation given to a token.
    generation: u64,
    renewal: Renewal,
    sessions: Sessions,
    /// When somebody last wanted a token: asked for one, or had a live session.
    wanted: Timestamp,
    /// When a token was last replaced because an upstream refused it.
    last_forced: Option<Timestamp>,
    service: Service,
}

/// What an account's token is doing.
#[derive(Debug)]
enum State<W> {
    /// The token has more than its margin left.
    Fresh(Token),
    /// There is no token, or it is too near to its end. Nobody waits.
    Stale(Option<Token>),
    /// A refresh is on its way.
    Refreshing {
        token: Option<Token>,
        waiters: Vec<W>,
        attempts: u32,
    },
    /// The last attempt failed for now.
    Backoff {
        token: Option<Token>,
        until: Timestamp,
        attempts: u32,
        trouble: Trouble,
    },
    /// The grant is gone.
    NeedsAuthorization,
}

/// When an OAuth token was obtained and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTimes {
    /// When it was obtained.
    pub obtained: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// Whether a grant can be refreshed at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It has a refresh token, or needs none.
    Possible,
    /// It is an access token and nothing else.
    Impossible,
}

/// What the machine is told.
#[derive(Debug)]
pub enum Input<W> {
    /// Somebody wants a token.
    Asked {
        /// Who.
        waiter: W,
        /// The generation that an upstream has just refused.
        refused: Option<u64>,
    },
    /// The grant must be used, lest it die of disuse, though nobody needs a token.
    KeepAlive {
        /// Who wants to know when that is over.
        waiter: W,
    },
    /// The refresh of the grant `grant` succeeded, and what it brought is kept.
    Succeeded {
        /// As in [`Action::Send`].
        grant: u64,
        /// The new token's times.
        times: TokenTimes,
    },
    /// The refresh of the grant `grant` failed.
    Failed {
        /// As in [`Action::Send`].
        grant: u64,
        /// Why.
        failure: Failure,
    },
    /// The account has new credentials.
    GrantReplaced {
        /// The access token among them.
        times: Option<TokenTimes>,
        /// Whether there is a refresh token among them.
        renewal: Renewal,
    },
    /// The OAuth app's settings may have changed.
    AppChanged,
    /// The account has a live session again.
    SessionsLive,
    /// The account's last session has ended.
    SessionsGone,
    /// The moment of [`Refresher::deadline`] has passed.
    DeadlinePassed,
    /// The program stops: nothing new is sent.
    Draining,
}

/// Why a refresh failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The grant is gone.
    Grant,
    /// The OAuth app is refused.
    App,
    /// It may pass.
    Temporary {
        /// How long the provider asks to be left alone.
        retry_after: Option<Duration>,
    },
}

/// What the machine wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<W> {
    /// Send a refresh request, and report how it ended with the same `grant`.
    Send {
        /// Which grant it is for.
        grant: u64,
    },
    /// Tell somebody who asked.
    Answer(W, Answer),
    /// An input came that cannot come in this state: a defect, to be logged. Nothing was changed.
    Defect(&'static str),
}

/// What somebody who asked is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The current token, whose generation is [`Refresher::generation`].
    Token,
    /// There is none for now.
    Unavailable,
    /// There is none, because the OAuth app is refused.
    AppRefused,
    /// There is none until a person acts.
    NeedsAuthorization,
    /// The token that was refused is the current one, and there is no other: it has no refresh token, or it is too soon.
    StillRefused,
}

/// A token as the machine knows it.
#[derive(Debug, Clone, Copy)]
struct Token {
    times: TokenTimes,
    /// When it is renewed ahead of need, chance included.
    renew_at: Timestamp,
    /// Whether an upstream refused it, so that it is handed out no more.
    refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    App,
    Passing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sessions {
    Live,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Open,
    Draining,
}

impl<W> Refresher<W> {
    /// A machine for what was read from the store. `jitter` is a number from 0 to 1 by chance.
    pub fn new(times: Option<TokenTimes>, renewal: Renewal, now: Timestamp, jitter: f64) -> Self {
        let mut refresher = Self {
            state: State::NeedsAuthorization,
            grant: 0,
            // A generation of an earlier run must not be taken for one of this: this one begins above it.
            generation: times.map_or(0, |times| times.obtained.as_millis()),
            renewal,
            sessions: Sessions::None,
            wanted: now,
            last_forced: None,
            service: Service::Open,
        };
        refresher.state = rest(times.map(|times| Token::new(times, jitter)), now);
        refresher
    }

    /// The same, for an account whose grant was found to be gone.
    pub fn needing_authorization() -> Self {
        let mut refresher = Self::new(None, Renewal::Possible, Timestamp::EPOCH, 0.0);
        refresher.state = State::NeedsAuthorization;
        refresher
    }

    /// Takes one input. `jitter` is a number from 0 to 1 by chance.
    pub fn handle(&mut self, input: Input<W>, now: Timestamp, jitter: f64) -> Vec<Action<W>> {
        self.settle(now);
        match input {
            Input::Asked { waiter, refused } => {
                self.wanted = now;
                self.on_asked(waiter, refused, now)
            }
            Input::KeepAlive { waiter } => self.on_keep_alive(waiter, now),
            Input::Succeeded { grant, times } if grant == self.grant => self.on_succeeded(times, now, jitter),
            Input::Failed { grant, failure } if grant == self.grant => self.on_failed(failure, now, jitter),
            // The grant has been replaced since.
            Input::Succeeded { .. } | Input::Failed { .. } => Vec::new(),
            Input::GrantReplaced { times, renewal } => self.on_grant_replaced(times, renewal, now, jitter),
            Input::AppChanged => self.on_app_changed(now),
            Input::SessionsLive => {
                self.sessions = Sessions::Live;
                self.wanted = now;
                Vec::new()
            }
            Input::SessionsGone => {
                if std::mem::replace(&mut self.sessions, Sessions::None) == Sessions::Live {
                    self.wanted = now;
                }
                Vec::new()
            }
            Input::DeadlinePassed => match self.deadline() {
                Some(deadline) if deadline <= now => self.send(Vec::new(), now),
                _ => Vec::new(),
            },
            Input::Draining => {
                self.service = Service::Draining;
                Vec::new()
            }
        }
    }

    /// When to come back with [`Input::DeadlinePassed`]: the next attempt after trouble that may pass, or the renewal of a token
    /// ahead of need, which is done while sessions are live. Nothing is attempted for an account that nobody has used for
    /// [`SUPERVISOR_IDLE`], nor with an app that is refused: the next who asks, once the wait is over, is the next attempt.
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.service == Service::Draining || self.renewal == Renewal::Impossible {
            return None;
        }
        match &self.state {
            State::Fresh(token) | State::Stale(Some(token)) if self.sessions == Sessions::Live => Some(token.renew_at),
            State::Backoff {
                until,
                trouble: Trouble::Passing,
                ..
            } if self.sessions == Sessions::Live || *until < self.wanted.after(SUPERVISOR_IDLE) => Some(*until),
            _ => None,
        }
    }

    /// When the next attempt after a failure may be made.
    pub fn next_try(&self) -> Option<Timestamp> {
        match &self.state {
            State::Backoff { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// When the current token ends.
    pub fn expires(&self) -> Option<Timestamp> {
        self.token().map(|token| token.times.expires)
    }

    /// The generation of the current token.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of the current grant, as [`Action::Send`] carries it.
    pub fn grant(&self) -> u64 {
        self.grant
    }

    /// Whether a refresh of the current grant is on its way.
    pub fn is_refreshing(&self) -> bool {
        matches!(self.state, State::Refreshing { .. })
    }

    /// Whether nothing is on its way or due, nor to be waited for: the machine can be dropped and made anew from the store.
    pub fn is_at_rest(&self, now: Timestamp) -> bool {
        match &self.state {
            State::Fresh(_) | State::Stale(_) | State::NeedsAuthorization => true,
            State::Refreshing { .. } => false,
            State::Backoff { until, .. } => *until <= now && self.deadline().is_none(),
        }
    }

    /// Whether no refresh is on its way, nor has one failed that is to be tried again.
    pub fn is_untroubled(&self) -> bool {
        matches!(
            self.state,
            State::Fresh(_) | State::Stale(_) | State::NeedsAuthorization
        )
    }

    /// The state's name, for logs and tables.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Fresh(_) => "Fresh",
            State::Stale(_) => "Stale",
            State::Refreshing { .. } => "Refreshing",
            State::Backoff { .. } => "Backoff",
            State::NeedsAuthorization => "NeedsAuthorization",
        }
    }

    /// A token goes stale by time alone.
    fn settle(&mut self, now: Timestamp) {
        if let State::Fresh(token) = self.state {
            self.state = rest(Some(token), now);
        }
    }

    fn on_asked(&mut self, waiter: W, refused: Option<u64>, now: Timestamp) -> Vec<Action<W>> {
        let is_current_refused = refused == Some(self.generation);
        if is_current_refused && let State::Fresh(_) = self.state {
            let too_soon = |last: Timestamp| now.since(last) < FORCED_REFRESH_INTERVAL;
            if self.renewal == Renewal::Impossible || self.last_forced.is_some_and(too_soon) {
                return vec![Action::Answer(waiter, Answer::StillRefused)];
            }
        }
        if is_current_refused && let Some(token) = self.token_mut() {
            token.refused = true;
        }
        let is_open = self.service == Service::Open;
        match &mut self.state {
            State::Fresh(token) if !token.refused => vec![Action::Answer(waiter, Answer::Token)],
            State::Refreshing { token, waiters, .. } => {
                if token.is_some_and(|token| token.is_fresh(now)) {
                    return vec![Action::Answer(waiter, Answer::Token)];
                }
                waiters.push(waiter);
                Vec::new()
            }
            State::Backoff { until, .. } if is_open && now >= *until => {
                let mut actions = self.send(Vec::new(), now);
                actions.extend(self.on_asked(waiter, refused, now));
                actions
            }
            State::Backoff { token, trouble, .. } => {
                let answer = trouble.answer(*token, now);
                vec![Action::Answer(waiter, answer)]
            }
            State::NeedsAuthorization => vec![Action::Answer(waiter, Answer::NeedsAuthorization)],
            State::Fresh(_) | State::Stale(_) => {
                if is_current_refused {
                    self.last_forced = Some(now);
                }
                if self.renewal == Renewal::Impossible {
                    return self.on_unrenewable(waiter, now);
                }
                self.send(vec![waiter], now)
            }
        }
    }

    /// Somebody asked and there is nothing but an access token, which is at its end or refused.
    fn on_unrenewable(&mut self, waiter: W, now: Timestamp) -> Vec<Action<W>> {
        if self.token().is_some_and(|token| token.is_usable(now)) {
            return vec![Action::Answer(waiter, Answer::Token)];
        }
        self.state = State::NeedsAuthorization;
        vec![Action::Answer(waiter, Answer::NeedsAuthorization)]
    }

    /// Refreshes even a fresh token, for it is the grant that is kept. Whoever waits out a back-off does so for this, too.
    fn on_keep_alive(&mut self, waiter: W, now: Timestamp) -> Vec<Action<W>> {
        match &mut self.state {
            State::Refreshing { waiters, .. } => {
                waiters.push(waiter);
                Vec::new()
            }
            State::NeedsAuthorization => vec![Action::Answer(waiter, Answer::NeedsAuthorization)],
            State::Backoff {
                token, trouble, until, ..
            } if now < *until => vec![Action::Answer(waiter, trouble.answer(*token, now))],
            State::Fresh(_) | State::Stale(_) if self.renewal == Renewal::Impossible => {
                vec![Action::Answer(waiter, Answer::Unavailable)]
            }
            State::Fresh(_) | State::Stale(_) | State::Backoff { .. } => self.send(vec![waiter], now),
        }
    }

    fn on_succeeded(&mut self, times: TokenTimes, now: Timestamp, jitter: f64) -> Vec<Action<W>> {
        let State::Refreshing { waiters, .. } = &mut self.state else {
            return vec![Action::Defect("a refresh ended that was not on its way")];
        };
        let waiters = std::mem::take(waiters);
        self.generation = self.generation.saturating_add(1).max(times.obtained.as_millis());
        // Whoever waited gets the new token even if its life is too short to call it fresh.
        self.state = rest(Some(Token::new(times, jitter)), now);
        answer_all(waiters, Answer::Token)
    }

    fn on_failed(&mut self, failure: Failure, now: Timestamp, jitter: f64) -> Vec<Action<W>> {
        let State::Refreshing {
            token,
            waiters,
            attempts,
        } = &mut self.state
        else {
            return vec![Action::Defect("a refresh ended that was not on its way")];
        };
        let (token, waiters, attempts) = (*token, std::mem::take(waiters), *attempts);
        let (trouble, retry_after) = match failure {
            Failure::Grant => {
                self.state = State::NeedsAuthorization;
                return answer_all(waiters, Answer::NeedsAuthorization);
            }
            Failure::App => (Trouble::App, None),
            Failure::Temporary { retry_after } => (Trouble::Passing, retry_after),
        };
        let wait = backoff(attempts, jitter).max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX));
        self.state = State::Backoff {
            token,
            until: now.after(wait),
            attempts: attempts.saturating_add(1),
            trouble,
        };
        answer_all(waiters, trouble.answer(token, now))
    }

    /// New credentials: what was is forgotten, and whoever waits goes on waiting for the new grant's token.
    fn on_grant_replaced(
        &mut self,
        times: Option<TokenTimes>,
        renewal: Renewal,
        now: Timestamp,
        jitter: f64,
    ) -> Vec<Action<W>> {
        let waiters = match &mut self.state {
            State::Refreshing { waiters, .. } => std::mem::take(waiters),
            _ => Vec::new(),
        };
        self.grant = self.grant.saturating_add(1);
        self.generation = self.generation.saturating_add(1);
        self.renewal = renewal;
        self.last_forced = None;
        self.state = rest(times.map(|times| Token::new(times, jitter)), now);
        waiters
            .into_iter()
            .flat_map(|waiter| self.on_asked(waiter, None, now))
            .collect()
    }

    /// What refused the app may be mended: tried at once, for nobody may ask for long, and who mended it watches. A provider's
    /// own trouble has nothing to do with it, and goes on being waited for.
    fn on_app_changed(&mut self, now: Timestamp) -> Vec<Action<W>> {
        match self.state {
            State::Backoff {
                trouble: Trouble::App, ..
            } => self.send(Vec::new(), now),
            _ => Vec::new(),
        }
    }

    /// Sends a refresh from any state but those in which one is on its way or would be of no use.
    fn send(&mut self, waiters: Vec<W>, now: Timestamp) -> Vec<Action<W>> {
        if self.service == Service::Draining {
            return answer_all(waiters, Trouble::Passing.answer(self.token().copied(), now));
        }
        let (token, attempts) = match self.state {
            State::Fresh(token) => (Some(token), 0),
            State::Stale(token) => (token, 0),
            State::Backoff { token, attempts, .. } => (token, attempts),
            State::Refreshing { .. } | State::NeedsAuthorization => {
                return vec![Action::Defect("a refresh was to be sent where none can be")];
            }
        };
        self.state = State::Refreshing {
            token,
            waiters,
            attempts,
        };
        vec![Action::Send { grant: self.grant }]
    }

    fn token(&self) -> Option<&Token> {
        match &self.state {
            State::Fresh(token) => Some(token),
            State::Stale(token) | State::Refreshing { token, .. } | State::Backoff { token, .. } => token.as_ref(),
            State::NeedsAuthorization => None,
        }
    }

    fn token_mut(&mut self) -> Option<&mut Token> {
        match &mut self.state {
            State::Fresh(token) => Some(token),
            State::Stale(token) | State::Refreshing { token, .. } | State::Backoff { token, .. } => token.as_mut(),
            State::NeedsAuthorization => None,
        }
    }
}

impl Token {
    fn new(times: TokenTimes, jitter: f64) -> Self {
        Self {
            times,
            renew_at: renewal_due(times, jitter),
            refused: false,
        }
    }

    /// Fresh while more than min(60 s, 10 % of its life) remains. A token from the future tells that the clock was wrong.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let margin = FRESH_MARGIN_MAX.min(self.times.life() / 10);
        !self.refused && self.times.obtained <= now && self.times.expires.since(now) > margin
    }

    /// Good enough while there is no other.
    fn is_usable(&self, now: Timestamp) -> bool {
        !self.refused && now < self.times.expires
    }
}

impl TokenTimes {
    /// From one end to the other.
    pub fn life(self) -> Duration {
        self.expires.since(self.obtained)
    }
}

impl Trouble {
    /// What somebody is told who asks in the midst of it: a token that is still valid is used on.
    fn answer(self, token: Option<Token>, now: Timestamp) -> Answer {
        match self {
            _ if token.is_some_and(|token| token.is_usable(now)) => Answer::Token,
            Self::App => Answer::AppRefused,
            Self::Passing => Answer::Unavailable,
        }
    }
}

/// The state in which nothing is on its way.
fn rest<W>(token: Option<Token>, now: Timestamp) -> State<W> {
    match token {
        Some(token) if token.is_fresh(now) => State::Fresh(token),
        token => State::Stale(token),
    }
}

fn answer_all<W>(waiters: Vec<W>, answer: Answer) -> Vec<Action<W>> {
    let tell = |waiter| Action::Answer(waiter, answer);
    waiters.into_iter().map(tell).collect()
}

/// At 80 % of the life, but at least ten minutes before the end of a life of twenty or more; earlier by chance, so that
/// accounts authorized together are not renewed together.
fn renewal_due(times: TokenTimes, jitter: f64) -> Timestamp {
    let life = times.life();
    let mut due = times.obtained.after(life * 4 / 5);
    if life >= RENEWAL_LEAD_MIN * 2 {
        due = due.min(times.expires.before(RENEWAL_LEAD_MIN));
    }
    due.before((life / 20).mul_f64(jitter.clamp(0.0, 1.0)))
        .max(times.obtained.after(RENEWAL_INTERVAL_MIN))
}

/// 1 s, doubling to 5 min; up to half as much again by chance, or, at the longest, up to a quarter less.
fn backoff(attempts: u32, jitter: f64) -> Duration {
    let jitter = jitter.clamp(0.0, 1.0);
    let base = REFRESH_BACKOFF_MIN.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX));
    let wait = base.min(REFRESH_BACKOFF_MAX).mul_f64(1.0 + jitter / 2.0);
    if wait > REFRESH_BACKOFF_MAX {
        return REFRESH_BACKOFF_MAX.mul_f64(1.0 - jitter / 4.0);
    }
    wait
}

/// What must remain of a token's life for it to be called fresh, where a tenth of the life is more.
const FRESH_MARGIN_MAX: Duration = Duration::from_secs(60);

/// How long before its end a token is renewed at the latest, where its life allows: some upstreams want a token to last
/// that long at login.
const RENEWAL_LEAD_MIN: Duration = Duration::from_secs(600);

/// A token is not renewed ahead of need sooner than this, whatever life a provider claims for it.
const RENEWAL_INTERVAL_MIN: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
