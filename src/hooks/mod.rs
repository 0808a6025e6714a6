//! Hooks: a program of the administrator's and a URL that are told when an account's state changes or its grant will end soon.
//!
//! ```text
//!  account ──notices──> Hooks ──one task for each event──┬── command   (argv, the event as JSON on its standard input)
//!                                                        └── webhook   (POST, signed, up to three times)
//! ```
//!
//! An account never waits for a hook: notices are bounded, and so are deliveries at once. Events may overtake each other; each
//! carries its time. What cannot be delivered is logged and lost, for the state itself can be read at any time. When the program
//! stops, deliveries may go on for a while ([`HOOKS_DRAIN`]); then they are cut off.
//!
//! No event holds a secret: it is made of a [`Notice`], which has none.

mod command;
mod event;
mod webhook;

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::account::Notice;
use crate::config::{self, Config};
use crate::limits::{HOOKS_DRAIN, HOOKS_IN_FLIGHT_MAX};
use crate::net::http::Http;

use event::Event;

/// Delivers events.
pub struct Hooks {
    config: watch::Receiver<Arc<Config>>,
    http: Http,
    deliveries: JoinSet<()>,
}

impl Hooks {
    /// Hooks as `config` has them at each event, which posts by `http`.
    pub fn new(config: watch::Receiver<Arc<Config>>, http: Http) -> Self {
        Self {
            config,
            http,
            deliveries: JoinSet::new(),
        }
    }

    /// Delivers what `notices` tells until `stop` is ready, then what is left, for a while.
    pub async fn run(mut self, mut notices: broadcast::Receiver<Notice>, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                received = notices.recv() => match received {
                    Ok(notice) => self.deliver(&notice).await,
                    Err(broadcast::error::RecvError::Lagged(lost)) => report_lost(lost),
                    Err(broadcast::error::RecvError::Closed) => break,
                },
            }
        }
        if timeout(HOOKS_DRAIN, self.finish(&mut notices)).await.is_err() {
            tracing::warn!("hooks did not end in time; what they had to deliver is lost");
        }
    }

    /// Begins a delivery, once there is room for one more.
    async fn deliver(&mut self, notice: &Notice) {
        let hooks = self.config.borrow().hooks.clone();
        if hooks.command.is_empty() && hooks.webhook_url.is_none() {
            return;
        }
        let event = Event::new(notice);
        let Some(body) = event.body() else {
            return;
        };
        while self.deliveries.len() >= HOOKS_IN_FLIGHT_MAX {
            self.deliveries.join_next().await;
        }
        let http = self.http.clone();
        self.deliveries.spawn(async move {
            tokio::join!(run_command(&hooks, &event, &body), post(&hooks, &http, &event, &body));
        });
    }

    async fn finish(&mut self, notices: &mut broadcast::Receiver<Notice>) {
        loop {
            match notices.try_recv() {
                Ok(notice) => self.deliver(&notice).await,
                Err(broadcast::error::TryRecvError::Lagged(lost)) => report_lost(lost),
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => break,
            }
        }
        while self.deliveries.join_next().await.is_some() {}
    }
}

async fn run_command(hooks: &config::Hooks, event: &Event, body: &[u8]) {
    if let Some((program, arguments)) = hooks.command.split_first() {
        command::run(program, arguments, &hooks.env, event, body).await;
    }
}

async fn post(hooks: &config::Hooks, http: &Http, event: &Event, body: &[u8]) {
    if let Some(url) = &hooks.webhook_url {
        let secret = hooks.webhook_secret.as_ref();
        webhook::Webhook { url, secret }.deliver(http, event, body).await;
    }
}

fn report_lost(lost: u64) {
    tracing::warn!(lost, "hooks are too slow: events were lost");
}

#[cfg(test)]
mod tests;
