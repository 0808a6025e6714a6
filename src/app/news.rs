//! What supervisors tell of their accounts, as usage events and metrics.

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::account::{News, Notice};
use crate::metrics::names;
use crate::usage::UsageLog;

/// Records what `notices` tells until `stop` is ready, and what is left then.
pub(super) async fn record(mut notices: Receiver<Notice>, usage: UsageLog, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            received = notices.recv() => match received {
                Ok(notice) => note(&notice, &usage),
                Err(RecvError::Lagged(lost)) => report_lost(lost),
                Err(RecvError::Closed) => return,
            },
        }
    }
    loop {
        match notices.try_recv() {
            Ok(notice) => note(&notice, &usage),
            Err(TryRecvError::Lagged(lost)) => report_lost(lost),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

fn note(notice: &Notice, usage: &UsageLog) {
    if let News::State { to, .. } = &notice.news {
        names::account_state_changes(&notice.provider, *to).increment(1);
    }
    if let Some(reason) = notice.news.reason() {
        usage.state(&notice.account, reason, notice.time);
    }
}

fn report_lost(lost: u64) {
    tracing::warn!(lost, "changes of accounts' states came too fast to be recorded");
}
