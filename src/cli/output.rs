//! What commands print: answers on standard output; spinners and questions on standard error, and only for people.
//!
//! Colours appear on a terminal only, and not where `NO_COLOR` is set. Text that came from outside (a client's name, a
//! provider's message) is printed without its control characters, which could otherwise move the cursor.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::Duration;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use indicatif::ProgressBar;
use tokio::time::timeout;

use super::{Exit, Failure};
use crate::admin::types::Deleted;
use crate::store::{AccountState, Failures};

/// Prints `text` and a newline.
///
/// # Errors
/// A reader that has gone (`portreeve … | head`) ends the command quietly; anything else is told.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))
        .and_then(|()| out.flush())
        .map_err(untold)
}

/// How a command ends whose output could not be written: a reader that has had enough is no trouble.
pub(super) fn untold(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::told(Exit::Done),
        _ => Failure::failed(format!("cannot write to standard output: {error}")),
    }
}

/// What is said of a deletion: `done`, and whether that will last.
pub(super) fn deletion(done: &str, deleted: Deleted) -> String {
    match deleted.durable {
        Some(false) => format!(
            "{done}. This is in force, but not on the disk yet, which is full or does not answer: it is written as soon as it \
             can be. If the daemon were restarted before, what was deleted would be there again."
        ),
        Some(true) | None => format!("{done}."),
    }
}

/// A run of failed logins.
pub(super) fn failures_in_words(failures: Failures) -> String {
    match failures.count {
        1 => format!("1 failed login, at {}", failures.since),
        count => format!("{count} failed logins since {}", failures.since),
    }
}

/// Columns under `header`, one row per entry.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        // Ids must survive a narrow terminal in one piece, so that they can be copied.
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    if !has_colours() {
        table.force_no_tty();
    }
    table
}

/// Prints `table` without the blanks at its lines' ends.
///
/// # Errors
/// Those of [`print()`].
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    print(&lines.join("\n"))
}

/// Names and values, one pair a line; pairs without a value are left out.
///
/// # Errors
/// Those of [`print()`].
pub(super) fn print_pairs(pairs: &[(&str, Option<String>)]) -> Result<(), Failure> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = pairs
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name:width$}  {}", clean(value))))
        .collect();
    print(&lines.join("\n"))
}

/// A cell with an account's state, coloured by how much it needs somebody.
pub(super) fn state_cell(state: AccountState) -> Cell {
    let cell = Cell::new(crate::metrics::names::state_label(state));
    match state {
        AccountState::Active => cell.fg(Color::Green),
        AccountState::New | AccountState::Disabled => cell,
        AccountState::Failing => cell.fg(Color::Yellow),
        AccountState::NeedsAuthorization => cell.fg(Color::Red),
    }
}

/// A cell with text that may come from outside; `-` for none.
pub(super) fn cell(text: Option<&str>) -> Cell {
    match text {
        Some(text) if !text.is_empty() => Cell::new(clean(text)),
        _ => Cell::new("-"),
    }
}

/// `text` without control characters.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// The footer under a page that is not all there is.
pub(super) fn page_footer(head: &crate::admin::types::PageHead, what: &str) -> Option<String> {
    (head.pages > 1).then(|| {
        format!(
            "\n{} {what} on {} pages; this is --page {}",
            head.total, head.pages, head.page
        )
    })
}

/// Waits for `future`; on a terminal a spinner says so if it takes long.
pub(super) async fn wait<F: Future>(what: &'static str, future: F) -> F::Output {
    let mut future = pin!(future);
    if !io::stderr().is_terminal() {
        return future.await;
    }
    if let Ok(output) = timeout(PATIENCE, future.as_mut()).await {
        return output;
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(SPINNER_TICK);
    let output = future.await;
    spinner.finish_and_clear();
    output
}

/// Asks a question on a terminal. Without a terminal there is nobody to ask, and the answer is yes: the command was typed
/// by a script, which meant it.
///
/// # Errors
/// If the answer cannot be read.
pub(super) fn confirm(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(true);
    }
    let cannot = |error: io::Error| Failure::failed(format!("cannot ask: {error}"));
    write!(io::stderr(), "{question} [y/N] ").map_err(cannot)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(cannot)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// How long a wait is before it is worth a spinner.
const PATIENCE: Duration = Duration::from_millis(400);

const SPINNER_TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_a_terminal() {
        assert_eq!(
            clean("a\u{1b}[2Jb\r\n\u{9b}c"),
            "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}c"
        );
        assert_eq!(clean("Größe"), "Größe");
    }

    #[test]
    fn a_reader_that_has_gone_is_no_trouble_and_a_full_disk_is() {
        assert_eq!(untold(io::ErrorKind::BrokenPipe.into()), Failure::told(Exit::Done));
        let full = untold(io::ErrorKind::StorageFull.into());
        assert_eq!(full.exit, Exit::Failed);
        assert!(full.message.starts_with("cannot write to standard output: "), "{full}");
    }

    #[test]
    fn a_deletion_that_is_not_durable_says_so() {
        let with = |durable| Deleted { deleted: true, durable };
        assert_eq!(deletion("Deleted", with(None)), "Deleted.");
        let text = deletion("Deleted alice", with(Some(false)));
        assert!(
            text.starts_with("Deleted alice. This is in force, but not on the disk yet"),
            "{text}"
        );
    }

    #[test]
    fn a_table_is_plain_where_there_is_no_terminal() {
        let mut table = table(&["ACCOUNT", "STATE"]);
        table.force_no_tty();
        table.add_row([cell(Some("a")), state_cell(AccountState::NeedsAuthorization)]);
        table.add_row([cell(None), state_cell(AccountState::Active)]);
        let text = table.to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [["ACCOUNT", "STATE"], ["a", "needs-authorization"], ["-", "active"]]
        );
    }
}
